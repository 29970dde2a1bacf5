//! Ranges of versions, as helm reads them: helm itself is asked about each range and each version, and no verdict is
//! written down here.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use crate::repo::{Repo, tool};

/// Ranges, with `¦` between them.
const RANGES: &str = include_str!("ranges/ranges.txt");

const VERSIONS: [&str; 34] = [
    "0.0.0",
    "0.0.1",
    "0.0.3-beta.2",
    "0.0.3",
    "0.1.0",
    "0.2.3",
    "0.2.4-rc.1",
    "1",
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0+build.5",
    "1.0.1",
    "1.1.0",
    "1.2",
    "1.2.3-beta.1",
    "1.2.3-beta.11",
    "1.2.3-beta.2+x",
    "01.02.03",
    "v1.2.4",
    "1.3.0-0",
    "1.10.0",
    "2.0.0-rc.1",
    "2.0.0",
    "v2.1.0",
    "2.1.0-18446744073709551616",
    "3.3.8",
    "4.0.0-0.dev.git.6613.h1234abc",
    "4.0.0-beta.2",
    "4.0.0",
    "11.0.0",
    "20240731-224556.git.8607.hf7abb041",
    "18446744073709551615.0.0",
];

/// Each operator is tried before each of these.
const BOUNDS: [&str; 16] = [
    "0",
    "0.0",
    "0.0.0",
    "0.0.3",
    "0.2",
    "0.2.3",
    "1",
    "1.x",
    "1.2",
    "1.2.3",
    "1.2.3-beta.2",
    "1.2-0",
    "*",
    "*-0",
    "v2.0.0",
    "4.0.0-0.dev.git.6613.h1234abc",
];

const OPERATORS: [&str; 13] = [
    "", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^", "==",
];

fn ranges() -> Vec<String> {
    let mut ranges: Vec<_> = RANGES
        .lines()
        .flat_map(|it| it.split('¦'))
        .map(str::to_owned)
        .collect();
    for operator in OPERATORS {
        ranges.extend(BOUNDS.map(|it| format!("{operator}{it}")));
    }
    ranges
}

/// A chart with a subchart `inner` which depends on each version by each range, under an alias of its own. What it takes
/// for a dependency is a key that its schema allows no value for.
fn repo(ranges: &[String]) -> Repo {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n- {name: prod, domain: d, helm_chart: pond, helm_chart_values_files: []}\n",
    );
    repo.write(
        "helm-charts/pond/Chart.yaml",
        "{apiVersion: v2, name: pond, version: 0.1.0, dependencies: [{name: inner, version: 0.1.0}]}\n",
    );
    fs::remove_file(repo.root.join("helm-charts/pond/values.schema.yaml")).unwrap();
    let mut dependencies = Vec::new();
    for (nth, version) in VERSIONS.iter().enumerate() {
        let name = format!("v{nth}");
        let chart = format!("helm-charts/pond/charts/inner/charts/{name}/Chart.yaml");
        let text = json!({"apiVersion": "v2", "name": name, "version": version});
        repo.write(&chart, &text.to_string());
        for (range, text) in ranges.iter().enumerate() {
            let alias = format!("r{range}-{name}");
            dependencies.push(json!({"name": name, "version": text, "alias": alias}));
        }
    }
    let inner = json!({"apiVersion": "v2", "name": "inner", "version": "0.1.0", "dependencies": dependencies});
    repo.write(
        "helm-charts/pond/charts/inner/Chart.yaml",
        &inner.to_string(),
    );
    let schema = json!({"patternProperties": {"^r": false}});
    repo.write(
        "helm-charts/pond/charts/inner/values.schema.json",
        &schema.to_string(),
    );
    repo
}

/// The aliases in a text, each after `start`.
fn aliases<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let found = text.split(start).skip(1);
    let found = found.filter_map(|it| it.split(['\'', '`']).next());
    found.filter(|it| it.starts_with('r')).collect()
}

#[test]
fn a_version_is_in_a_range_if_helm_says_so() {
    let ranges = ranges();
    let repo = repo(&ranges);
    let helm = tool("helm")
        .args(["template", "x"])
        .arg(repo.root.join("helm-charts/pond"))
        .output()
        .unwrap();
    let helm = String::from_utf8(helm.stderr).unwrap();
    assert!(helm.contains("false schema"), "{helm}");
    let ours = repo.run("validate hub-config lake --format json");
    let helm = aliases(&helm, "at '/");
    let ours = aliases(&ours.stdout, "`inner.");
    assert!(
        ranges.len() > 300 && helm.len() > 1500,
        "{} {}",
        ranges.len(),
        helm.len()
    );
    let differing: Vec<_> = helm
        .symmetric_difference(&ours)
        .map(|alias| {
            let (range, version) = alias[1..].split_once("-v").unwrap();
            let range = &ranges[range.parse::<usize>().unwrap()];
            let version = VERSIONS[version.parse::<usize>().unwrap()];
            let taken_by = if helm.contains(alias) { "helm" } else { "us" };
            format!("`{range}` takes {version}: only for {taken_by}")
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{}\n{} differ",
        differing.join("\n"),
        differing.len()
    );
}
