//! What `validate` makes of Chart.yaml, requirements.yaml and the locks of a chart, and what helm makes of the same files.
//! helm is the oracle: no case records a verdict, but for those in which we are stricter on purpose. Where helm loads a
//! chart, the values that it computes become the `const` of the chart's schema, so that whoever takes another alias,
//! condition or import from the files refuses.

use std::{collections::BTreeMap, fs};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    differential::{each, escape, problems},
    repo::{Repo, tool},
};

const CASES: &str = include_str!("differential/chart-files.txt");

/// Keys whose values have one type each, for the file in which they are read.
const FIELDS: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "home sources description keywords maintainers icon condition tags appVersion deprecated annotations dependencies",
    ),
    (
        "requirements.yaml",
        "sources maintainers deprecated annotations icon",
    ),
    ("Chart.lock", "digest generated dependencies"),
];

const TYPES: [&str; 6] = ["~", "yes", "0.5", "x", "[[]]", "{a: {}}"];

struct Case {
    line: String,
    files: BTreeMap<String, String>,
    is_stricter: bool,
}

#[test]
fn the_files_of_a_chart_are_read_as_helm_reads_them() {
    let repo = Repo::new();
    let cases = cases();
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let helms = each(&numbered, |(number, case)| {
        case.write(&repo, *number);
        let values = helm(&repo, *number)?;
        let schema = format!("{{\"const\": {values}}}");
        let file = format!("helm-charts/c{number}/values.schema.json");
        repo.write(&file, &schema);
        Ok::<_, String>(())
    });
    repo.write("config/clusters/lake/cluster.yaml", &cluster(cases.len()));
    let ours = problems(&repo);
    let mut differing = Vec::new();
    for ((number, case), helm) in numbered.iter().zip(&helms) {
        let told = ours.get(number).map(Vec::as_slice).unwrap_or_default();
        let is_as_wanted = if case.is_stricter {
            helm.is_ok() && !told.is_empty()
        } else {
            helm.is_ok() == told.is_empty()
        };
        if !is_as_wanted {
            differing.push(format!("{}\n  helm: {helm:?}\n  we: {told:#?}", case.line));
        }
    }
    let refused = helms.iter().filter(|it| it.is_err()).count();
    assert!(
        cases.len() > 300 && refused > 100,
        "{} {refused}",
        cases.len()
    );
    assert!(
        differing.is_empty(),
        "{}\n{} cases differ",
        differing.join("\n"),
        differing.len()
    );
}

fn cases() -> Vec<Case> {
    let lines = CASES
        .lines()
        .filter(|it| !it.is_empty() && !it.starts_with('#'));
    let mut cases: Vec<_> = lines.map(Case::parse).collect();
    for (file, keys) in FIELDS {
        for key in keys.split_whitespace() {
            let lines = TYPES.map(|it| format!("@2 ¦ {file} | @2⏎{key}: {it}"));
            cases.extend(lines.iter().map(|it| Case::parse(it)));
        }
    }
    cases
}

fn cluster(hubs: usize) -> String {
    let hubs = (0..hubs).map(|it| {
        format!("- {{name: c{it}, domain: c{it}.example.org, helm_chart: c{it}, helm_chart_values_files: []}}\n")
    });
    let hubs: String = hubs.collect();
    format!(
        "name: lake\nprovider: kubeconfig\nkubeconfig: {{file: kubeconfig.yaml}}\nhubs:\n{hubs}"
    )
}

/// The values that helm computes.
fn helm(repo: &Repo, number: usize) -> Result<String, String> {
    let mut helm = tool("helm");
    helm.env("GOMAXPROCS", "1").env("GOGC", "off");
    helm.args(["template", "x"]);
    helm.arg(repo.root.join(format!("helm-charts/c{number}")));
    let output = helm.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let output = String::from_utf8(output.stdout).unwrap();
    let (_, values) = output.split_once("values: ").unwrap();
    let values = BASE64_STANDARD.decode(values.lines().next().unwrap());
    Ok(String::from_utf8(values.unwrap()).unwrap())
}

impl Case {
    fn parse(line: &str) -> Case {
        let (text, is_stricter) = match line.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        let text = text
            .replace("@1", "apiVersion: v1⏎name: it⏎version: 1.0.0")
            .replace("@2", "apiVersion: v2⏎name: it⏎version: 1.0.0")
            .replace("{s}", "{name: sub, version: 0.1.0}");
        let mut files = BTreeMap::from([
            (
                "values.yaml".to_owned(),
                "{dead: false, tags: {front: false}}".to_owned(),
            ),
            (
                "charts/sub/values.yaml".to_owned(),
                "exports: {data: {a: 1}}".to_owned(),
            ),
            (
                "charts/sub/Chart.yaml".to_owned(),
                "apiVersion: v2\nname: sub\nversion: 0.1.0\n".to_owned(),
            ),
            (
                "templates/all.yaml".to_owned(),
                "values: {{ toJson .Values | b64enc }}\n".to_owned(),
            ),
        ]);
        for part in text.split('¦') {
            let is_named = |it: &(&str, &str)| !it.0.contains([':', '⏎']);
            let (name, content) = part
                .split_once('|')
                .filter(is_named)
                .unwrap_or(("Chart.yaml", part));
            files.insert(name.trim().to_owned(), escape(content.trim()));
        }
        Case {
            line: line.to_owned(),
            files,
            is_stricter,
        }
    }

    fn write(&self, repo: &Repo, number: usize) {
        for (path, content) in &self.files {
            let file = repo.root.join(format!("helm-charts/c{number}")).join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
    }
}
