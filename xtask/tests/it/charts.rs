//! Charts with dependencies from a repository, seen by rendering: a dry run for a rehearsal cluster that is down needs
//! no cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    repo::{Ran, Repo, tool},
    upstream::{Answer, Server, index, package, push, start_registry},
};

/// A repository on loopback with `boulder` in the versions 1.0.0 and 1.1.0, each of which says its version.
pub(crate) fn boulders(dir: &Path) -> Server {
    for version in ["1.0.0", "1.1.0"] {
        boulder_chart(dir, version, dir);
    }
    index(dir);
    Server::serving(dir)
}

/// Packages `boulder` of this version into the folder `to`.
pub(crate) fn boulder_chart(work: &Path, version: &str, to: &Path) {
    let chart = work.join("boulder");
    fs::create_dir_all(chart.join("templates")).unwrap();
    fs::write(
        chart.join("Chart.yaml"),
        format!("apiVersion: v2\nname: boulder\nversion: {version}\n"),
    )
    .unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: boulder}\ndata: {from: boulder-{{ .Chart.Version }} }\n";
    fs::write(chart.join("templates/boulder.yaml"), template).unwrap();
    package(&chart, to);
    fs::remove_dir_all(chart).unwrap();
}

/// A repository whose one hub has a chart that depends on `boulder` by way of a `file://` dependency.
pub(crate) fn repo(address: &str, version: &str) -> Repo {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n- {name: prod, domain: d, helm_chart: pond, helm_chart_values_files: []}\n",
    );
    repo.write(
        "helm-charts/stone/Chart.yaml",
        &format!(
            "apiVersion: v2\nname: stone\nversion: 0.1.0\n\
             dependencies: [{{name: boulder, version: \"{version}\", repository: \"{address}\"}}]\n"
        ),
    );
    repo
}

pub(crate) fn boulder(ran: &Ran) -> &str {
    let (_, rest) = ran
        .stdout
        .split_once("from: ")
        .unwrap_or_else(|| panic!("no boulder in {}", ran.stdout));
    rest.split_whitespace().next().unwrap()
}

pub(crate) const RENDER: &str = "deploy lake --dry-run";

/// helm takes `0.7` for a range.
#[test]
fn fewer_numbers_are_one_version_with_a_lock_or_a_pre_release() {
    let work = Repo::new();
    for version in ["0.7", "0.7.1", "v0.7-d5a68a3"] {
        boulder_chart(&work.root, version, &work.root);
    }
    index(&work.root);
    let served = Server::serving(&work.root);
    let repo = repo(&served.address, "v0.7-d5a68a3");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-v0.7-d5a68a3");
    repo.edit("helm-charts/stone/Chart.yaml", "v0.7-d5a68a3", "0.7");
    let said = repo.fails(RENDER);
    let refused = "`0.7` is not one version, and no Chart.lock says which one";
    assert!(said.contains(refused), "{said}");
    let address = &served.address;
    let lock =
        format!("dependencies: [{{name: boulder, repository: \"{address}\", version: '0.7'}}]\n");
    repo.write("helm-charts/stone/Chart.lock", &lock);
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-0.7");
}

#[test]
fn dependencies_of_the_right_version() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "1.0.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    repo.ok(RENDER);
    repo.edit("helm-charts/pond/values.yaml", "depth: 0", "depth: 1");
    repo.ok(RENDER);
    assert_eq!(
        served.archives_served.load(Ordering::Relaxed),
        1,
        "what is in the cache was fetched again"
    );

    // A range needs a Chart.lock, which has to agree with Chart.yaml.
    repo.edit("helm-charts/stone/Chart.yaml", "1.0.0", ">=1.0 <2");
    assert!(
        repo.fails(RENDER)
            .contains("`>=1.0 <2` is not one version, and no Chart.lock says which one")
    );
    let lock = |version: &str| {
        let address = &served.address;
        let lock = format!(
            "dependencies:\n- {{name: boulder, repository: \"{address}\", version: {version}}}\n"
        );
        repo.write("helm-charts/stone/Chart.lock", &lock);
    };
    lock("1.1.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.1.0");
    lock("2.0.0");
    assert!(
        repo.fails(RENDER)
            .contains("Chart.lock has 2.0.0, and Chart.yaml wants >=1.0 <2")
    );

    // In charts/ the right version is used, and a wrong one isn't.
    lock("1.0.0");
    let charts = repo.root.join("helm-charts/stone/charts");
    fs::create_dir(&charts).unwrap();
    boulder_chart(&work.root, "1.1.0", &charts);
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    let fetched = served.archives_served.load(Ordering::Relaxed);
    fs::remove_dir_all(repo.cache().join("xtask/dependencies")).unwrap();
    lock("1.1.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.1.0");
    assert_eq!(served.archives_served.load(Ordering::Relaxed), fetched);
    // A wrong version that is called like the right one is seen for what it is.
    fs::rename(
        charts.join("boulder-1.1.0.tgz"),
        charts.join("boulder-1.0.0.tgz"),
    )
    .unwrap();
    lock("1.0.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
}

#[test]
fn two_processes_prepare_one_chart() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "1.0.0");
    let both = [repo.start(RENDER), repo.start(RENDER)];
    for ran in both.map(Ran::from) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(boulder(&ran), "boulder-1.0.0");
    }
    assert_eq!(served.archives_served.load(Ordering::Relaxed), 1);
}

#[test]
fn a_dependency_that_is_not_to_be_had() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "9.9.9");
    let said = repo.fails(RENDER);
    let wanted = format!(
        "cannot get the chart `boulder` 9.9.9 from {}",
        served.address
    );
    assert!(
        said.contains(&wanted) && said.contains("helm-charts/stone/Chart.yaml"),
        "{said}"
    );
    assert!(said.contains("`prod` failed"), "{said}");
    repo.edit("helm-charts/stone/Chart.yaml", &served.address, "@person");
    let said = repo.fails(RENDER);
    assert!(
        said.contains("the repository `@person` is not an address"),
        "{said}"
    );
    repo.edit(
        "helm-charts/pond/Chart.yaml",
        "file://../stone",
        "file://../stoen",
    );
    let said = repo.fails(RENDER);
    assert!(
        said.contains(
            "helm-charts/pond/Chart.yaml:5:11: dependency `stone`: there is no chart `helm-charts/stoen`"
        ),
        "{said}"
    );
    repo.edit(
        "helm-charts/pond/Chart.yaml",
        "file://../stoen",
        "file://../pond",
    );
    let said = repo.fails(RENDER);
    assert!(said.contains("depends on itself"), "{said}");
}

/// What is said when both dependencies of a chart come from this server.
fn failing(server: &Server) -> String {
    let repo = repo("https://charts.example.org/stones", "1.0.0");
    repo.write(
        "config/xtask.yaml",
        &format!(
            "chart_mirrors: {{https://charts.example.org: {}}}\n",
            server.address
        ),
    );
    repo.edit(
        "helm-charts/stone/Chart.yaml",
        "dependencies: [",
        "dependencies: [{name: gravel, version: 3.2.1, repository: https://charts.example.org/stones/}, ",
    );
    let said = repo.fails(RENDER);
    for (name, version) in [("boulder", "1.0.0"), ("gravel", "3.2.1")] {
        let wanted = format!(
            "helm-charts/stone/Chart.yaml: dependency `{name}`: cannot get the chart `{name}` {version} from \
             https://charts.example.org/stones"
        );
        assert!(said.contains(&wanted), "{said}");
    }
    assert!(
        said.contains(&format!("by its mirror {}/stones", server.address)),
        "{said}"
    );
    assert_eq!(
        said.matches("hint: `chart_mirrors` in config/xtask.yaml")
            .count(),
        1,
        "{said}"
    );
    let left = fs::read_dir(repo.cache().join("xtask/dependencies"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "something other than locks was left in the cache");
    said
}

/// With a hundred hubs of one chart nobody wants to read it a hundred times.
#[test]
fn what_fails_for_two_hubs_is_told_once() {
    let repo = repo("https://charts.example.org", "1.0.0");
    repo.write(
        "config/xtask.yaml",
        "chart_mirrors: {https://charts.example.org: http://127.0.0.1:1}\n",
    );
    let yaml = repo.read("config/clusters/lake/cluster.yaml");
    repo.write(
        "config/clusters/lake/cluster.yaml",
        &format!(
            "{yaml}{}",
            yaml.lines().last().unwrap().replace("prod", "twin")
        ),
    );
    let said = repo.fails(RENDER);
    assert_eq!(said.matches("cannot get the chart").count(), 1, "{said}");
    assert!(
        (said.contains("`twin` failed as `prod` did")
            || said.contains("`prod` failed as `twin` did"))
            && said.contains("2 of 2 hubs of `lake` failed: `prod`, `twin`"),
        "{said}"
    );
}

#[test]
fn repositories_that_answer_wrongly() {
    let said = failing(&Server::answering(|_| Answer::Status(500)));
    assert!(said.contains("http status: 500"), "{said}");
    let said = failing(&Server::answering(|_| {
        Answer::Page("<!DOCTYPE html><title>Log in</title>")
    }));
    assert!(
        said.contains("index.yaml there is not the index of a chart repository"),
        "{said}"
    );
    let said = failing(&Server::answering(|_| {
        Answer::File(b"entries: {}\n".into())
    }));
    assert!(
        said.contains("index.yaml there does not have the chart"),
        "{said}"
    );
    // The index stands, and what it lists is gone.
    let index = "entries:
  boulder: [{version: 2.0.0}, {version: v1.0.0, urls: [boulder-1.0.0.tgz], digest: 00}]
  gravel: [{version: 3.2.2}]
";
    let said = failing(&Server::answering(|path| match path {
        "stones/index.yaml" => Answer::File(index.into()),
        _ => Answer::Status(404),
    }));
    assert!(
        said.contains("stones/boulder-1.0.0.tgz: http status: 404"),
        "{said}"
    );
    assert!(
        said.contains("does not have this version; the newest are: 3.2.2"),
        "{said}"
    );
    let said = failing(&Server::answering(|path| match path {
        "stones/index.yaml" => Answer::File(index.into()),
        _ => Answer::Page("<!DOCTYPE html><title>Not found, but 200</title>"),
    }));
    assert!(
        said.contains("is not the archive in index.yaml: its sha256 is "),
        "{said}"
    );
}

#[test]
fn a_repository_that_hangs() {
    let said = failing(&Server::answering(|_| Answer::Silence));
    assert!(said.contains("timeout"), "{said}");
}

#[test]
fn an_archive_that_is_not_whole() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let archive = work.root.join("boulder-1.0.0.tgz");
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() - 20]).unwrap();
    let repo = repo(&served.address, "1.0.0");
    let said = repo.fails(RENDER);
    assert!(
        said.contains("boulder-1.0.0.tgz is not the archive in index.yaml: its sha256 is "),
        "{said}"
    );
    // An index without digests leaves the archive's own checksum.
    let index = fs::read_to_string(work.root.join("index.yaml")).unwrap();
    let without: Vec<_> = index.lines().filter(|it| !it.contains("digest:")).collect();
    fs::write(work.root.join("index.yaml"), without.join("\n")).unwrap();
    let said = repo.fails(RENDER);
    assert!(said.contains("is not a whole archive of a chart"), "{said}");
    // Nor is one in charts/ taken for another reason than its content.
    let charts = repo.root.join("helm-charts/stone/charts");
    fs::create_dir(&charts).unwrap();
    fs::copy(&archive, charts.join("boulder-1.0.0.tgz")).unwrap();
    let said = repo.fails(RENDER);
    assert!(
        said.contains(
            "helm-charts/stone/charts/boulder-1.0.0.tgz` is not a whole archive of a chart"
        ),
        "{said}"
    );
    // Once it's whole again, so is the hub.
    fs::remove_dir_all(charts).unwrap();
    fs::write(&archive, whole).unwrap();
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
}

/// As one that was killed leaves it, or a disk that was full.
#[test]
fn a_damaged_cache_is_mended() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "1.0.0");
    repo.ok(RENDER);
    let cache = repo.cache().join("xtask");
    let mut found = Vec::new();
    paths(&cache.join("dependencies"), &mut found);
    let archive = found.iter().find(|it| it.ends_with("boulder-1.0.0.tgz"));
    let archive = archive.unwrap();
    let whole = fs::read(archive).unwrap();
    fs::write(archive, &whole[..whole.len() / 2]).unwrap();
    let halves = [
        "charts/.gone.part",
        "dependencies/.gone.part",
        "charts/.held.part",
    ];
    let halves = halves.map(|it| cache.join(it));
    for half in &halves {
        fs::create_dir_all(half.join("templates")).unwrap();
    }
    let held = fs::File::create(cache.join("charts/locks/held")).unwrap();
    held.lock().unwrap();

    repo.edit("helm-charts/pond/values.yaml", "depth: 0", "depth: 1");
    repo.ok("validate");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    assert_eq!(fs::read(archive).unwrap(), whole);
    let are_there = halves.map(|it| it.exists());
    // Somebody is at work on the last one.
    assert_eq!(are_there, [false, false, true]);
}

/// An index may list archives beside it, from the host's root, or at whole, public addresses.
#[test]
fn archives_wherever_they_are() {
    let work = Repo::new();
    boulder_chart(&work.root, "1.0.0", &work.root);
    let archive = fs::read(work.root.join("boulder-1.0.0.tgz")).unwrap();
    for (url, path) in [
        ("here/boulder.tgz", "stones/here/boulder.tgz"),
        ("/there/boulder.tgz", "there/boulder.tgz"),
        (
            "https://releases.example.org/v1/boulder.tgz",
            "releases/v1/boulder.tgz",
        ),
    ] {
        let archive = archive.clone();
        let server = Server::answering(move |asked| match asked {
            "stones/index.yaml" => Answer::File(
                format!("entries: {{boulder: [{{version: 1.0.0, urls: ['{url}']}}]}}\n")
                    .into_bytes(),
            ),
            _ if asked == path => Answer::File(archive.clone()),
            _ => Answer::Status(404),
        });
        let repo = repo("https://charts.example.org/stones", "1.0.0");
        let address = &server.address;
        // Only whole steps of a path are a prefix.
        repo.write(
            "config/xtask.yaml",
            &format!(
                "chart_mirrors:\n  https://charts.example.org: {address}\n  https://charts.example.org/sto: {address}/no\n  \
                 https://releases.example.org/: {address}/releases/\n"
            ),
        );
        assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    }
}

/// Nothing of an archive is written elsewhere than below the prepared chart.
#[test]
fn an_archive_that_reaches_out() {
    let repo = repo("https://charts.example.org", "1.0.0");
    repo.write(
        "Chart.yaml",
        "apiVersion: v2\nname: boulder\nversion: 1.0.0\n",
    );
    repo.write("reaching", "out");
    fs::create_dir(repo.root.join("helm-charts/stone/charts")).unwrap();
    let tar = std::process::Command::new("tar")
        .args([
            "-czPf",
            "helm-charts/stone/charts/boulder-1.0.0.tgz",
            "--transform=s,^reaching,boulder/../../reaching,",
        ])
        .args([
            "--transform=s,^Chart,boulder/Chart,",
            "Chart.yaml",
            "reaching",
        ])
        .current_dir(&repo.root)
        .status();
    assert!(tar.unwrap().success());
    let said = repo.fails(RENDER);
    assert!(
        said.contains("`../../reaching` would lie outside of the chart"),
        "{said}"
    );
}

#[test]
fn an_archive_that_is_another_chart() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let index = fs::read_to_string(work.root.join("index.yaml")).unwrap();
    fs::write(
        work.root.join("index.yaml"),
        index.replace("version: 1.1.0", "version: 1.2.0"),
    )
    .unwrap();
    let said = repo(&served.address, "1.2.0").fails(RENDER);
    assert!(said.contains("got `boulder` 1.1.0 in its place"), "{said}");
}

#[test]
fn a_registry_that_lost_something() {
    let work = Repo::new();
    let (process, registry) = start_registry(&work.root);
    boulder_chart(&work.root, "1.0.0", &work.root);
    push(
        &work.root.join("boulder-1.0.0.tgz"),
        &format!("{registry}/stones"),
    );
    let settings = format!("chart_mirrors: {{\"oci://registry.example.org\": \"{registry}\"}}\n");
    let repo = |version| {
        let repo = repo("oci://registry.example.org/stones", version);
        repo.write("config/xtask.yaml", &settings);
        repo
    };
    assert_eq!(boulder(&repo("1.0.0").ok(RENDER)), "boulder-1.0.0");
    let said = repo("1.1.0").fails(RENDER);
    let wanted = "cannot get the chart `boulder` 1.1.0 from oci://registry.example.org/stones by its mirror oci://127";
    assert!(
        said.contains(wanted) && said.contains("not found"),
        "{said}"
    );

    // An archive that isn't what its digest says.
    let mut files = Vec::new();
    paths(&work.root.join("registry"), &mut files);
    let whole = fs::read(work.root.join("boulder-1.0.0.tgz")).unwrap();
    let blob = files
        .iter()
        .find(|it| fs::read(it).unwrap() == whole)
        .unwrap();
    let mut broken = whole.clone();
    broken[100] ^= 1;
    fs::write(blob, broken).unwrap();
    let said = repo("1.0.0").fails(RENDER);
    assert!(
        said.contains("cannot get the chart `boulder` 1.0.0") && said.contains("digest"),
        "{said}"
    );
    drop(process);
    let said = repo("1.0.0").fails(RENDER);
    assert!(
        said.contains("cannot get the chart `boulder` 1.0.0")
            && said.contains("connection refused"),
        "{said}"
    );
}

#[test]
fn a_lock_that_says_more_than_its_chart() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "1.0.0");
    let lock = format!(
        "dependencies:\n- {{name: boulder, repository: \"{0}\", version: 1.0.0}}\n\
         - {{name: gravel, repository: \"{0}\", version: 1.0.0}}\n",
        served.address
    );
    repo.write("helm-charts/stone/Chart.lock", &lock);
    let said = repo.fails(RENDER);
    assert!(
        said.contains("helm-charts/stone/Chart.lock has `gravel` from"),
        "{said}"
    );
    // And one that says other versions: both are told.
    repo.edit(
        "helm-charts/stone/Chart.yaml",
        "dependencies: [",
        "dependencies: [{name: gravel, version: ^2, repository: X}, ",
    );
    repo.edit(
        "helm-charts/stone/Chart.yaml",
        "X}",
        &format!("\"{}\"}}", served.address),
    );
    repo.edit(
        "helm-charts/stone/Chart.yaml",
        "version: \"1.0.0\"",
        "version: 1.0.1",
    );
    let said = repo.fails(RENDER);
    for wanted in [
        "4:23: dependency `gravel`: Chart.lock has 1.0.0, and Chart.yaml wants ^2",
        "4:90: dependency `boulder`: Chart.lock has 1.0.0, and Chart.yaml wants 1.0.1",
    ] {
        assert!(
            said.contains(&format!("helm-charts/stone/Chart.yaml:{wanted}")),
            "{said}"
        );
    }
}

#[test]
fn settings_that_are_not_settings() {
    let repo = repo("https://charts.example.org", "1.0.0");
    repo.write("config/xtask.yaml", "chart_mirror: {}\n");
    let said = repo.fails(RENDER);
    assert!(
        said.contains(
            "config/xtask.yaml: not the deployer's settings: line 1: unknown field `chart_mirror`"
        ),
        "{said}"
    );
}

#[test]
fn what_is_called_secret_beside_a_chart_stays_out_of_the_cache() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n- {name: prod, domain: d, helm_chart: pond, helm_chart_values_files: []}\n",
    );
    repo.write(
        "helm-charts/pond/decrypted.secret.values.yaml",
        "token: lying-around\n",
    );
    repo.write("helm-charts/pond/templates/secret.yaml", "# nothing\n");
    repo.ok(RENDER);
    let mut prepared = Vec::new();
    paths(&repo.cache().join("xtask/charts"), &mut prepared);
    let is_there = |name: &str| prepared.iter().any(|it| it.ends_with(name));
    assert!(!is_there("decrypted.secret.values.yaml"), "{prepared:?}");
    assert!(
        is_there("secret.yaml") && is_there("values.schema.json"),
        "{prepared:?}"
    );
    let template = "# {{ .Chart.Name }}\n# {{ (.Files.Glob \"files/secrets/*\").AsSecrets }}\n";
    repo.write("helm-charts/pond/templates/keys.yaml", template);
    let said = repo.ok("validate").stdout;
    let left_out = "helm-charts/pond/templates/keys.yaml:2:7: warning: helm gets no files of a chart that are called secret";
    assert!(said.contains(left_out), "{said}");
}

/// All files below a folder.
fn paths(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths(&path, found)
        } else {
            found.push(path)
        }
    }
}

/// Writes a chart of these files, by their paths in it.
fn chart(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// helm reads only values.schema.json; what others keep in a values.schema.yaml is their affair.
#[test]
fn a_schema_in_yaml_of_somebody_else() {
    let work = Repo::new();
    let files = [
        (
            "Chart.yaml",
            "{apiVersion: v2, name: boulder, version: 1.0.0}",
        ),
        ("values.schema.yaml", "required: [size]"),
        (
            "charts/pebble/Chart.yaml",
            "{apiVersion: v2, name: pebble, version: 1.0.0}",
        ),
        ("charts/pebble/values.schema.yaml", "required: [size]"),
    ];
    chart(&work.root.join("boulder"), &files);
    package(&work.root.join("boulder"), &work.root);
    index(&work.root);
    let served = Server::serving(&work.root);
    let repo = repo(&served.address, "1.0.0");
    let validate = "validate hub-config lake --fetch --strict";
    repo.ok(validate);
    repo.ok(RENDER);

    let charts = repo.root.join("helm-charts/stone/charts");
    chart(&charts.join("boulder"), &files);
    chart(&charts.join("gravel"), &files);
    repo.edit(
        "helm-charts/stone/charts/gravel/Chart.yaml",
        "boulder",
        "gravel",
    );
    repo.ok(validate);
    repo.ok(RENDER);
    repo.write(
        "helm-charts/stone/charts/boulder/values.schema.json",
        r#"{"required": ["size"]}"#,
    );
    let said = repo.run(validate).stdout;
    assert!(
        said.contains("`stone.boulder`: the key `size` is missing"),
        "{said}"
    );
}

/// Counts what is asked for.
fn counting(answer: fn() -> Answer) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::answering(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        answer()
    });
    (server, asked)
}

/// A repository that would ask here for what JSON Schema's own site has, and how often it did.
fn with_mirror_of_dialects() -> (Repo, Server, Arc<AtomicUsize>) {
    let (server, asked) = counting(|| Answer::Status(404));
    let repo = repo("", "1.0.0");
    repo.write(
        "config/xtask.yaml",
        &format!(
            "chart_mirrors: {{http://json-schema.org: {0}, https://json-schema.org: {0}}}\n",
            server.address
        ),
    );
    (repo, server, asked)
}

/// helm knows the dialects' own schemas by many spellings.
#[test]
fn schemas_of_dialects_are_not_asked_for() {
    let (repo, _server, asked) = with_mirror_of_dialects();
    let mut numbers = 0..;
    let charts = repo.root.join("helm-charts/stone/charts");
    chart(
        &charts.join("boulder"),
        &[(
            "Chart.yaml",
            "{apiVersion: v2, name: boulder, version: 1.0.0}",
        )],
    );
    for path in [
        "schema",
        "draft-04/schema",
        "draft-06/schema",
        "draft-07/schema",
        "draft/2019-09/schema",
        "draft/2020-12/schema",
    ] {
        for (scheme, end) in [("http", ""), ("http", "#"), ("https", ""), ("https", "#")] {
            let name = format!("c{}", numbers.next().unwrap());
            let url = format!("{scheme}://json-schema.org/{path}{end}");
            let yaml = format!("{{apiVersion: v2, name: {name}, version: 1.0.0}}");
            let schema = format!(
                r#"{{"$schema": "{url}", "properties": {{"size": {{"type": "integer"}}, "form": {{"$ref": "{url}"}}}}}}"#
            );
            let files = [
                ("Chart.yaml", yaml.as_str()),
                ("values.yaml", "size: large\nform: {type: 5}\n"),
                ("values.schema.json", &schema),
            ];
            chart(&charts.join(name), &files);
        }
    }
    let said = repo.run("validate hub-config lake --fetch").stdout;
    let helm = tool("helm")
        .args(["template", "x"])
        .arg(repo.root.join("helm-charts/stone"))
        .output()
        .unwrap();
    let helm = String::from_utf8(helm.stderr).unwrap();
    for number in 0..numbers.start {
        for key in ["size", "form"] {
            let wanted = format!("`stone.c{number}.{key}");
            assert!(said.contains(&wanted), "no {wanted} in {said}");
        }
        assert!(helm.contains(&format!("c{number}:\n")), "{helm}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "{said}");
}

/// helm can check these, and nobody here can: that is no reason to stop a deploy.
#[test]
fn a_schema_of_another_dialect_is_no_problem() {
    let (repo, _server, asked) = with_mirror_of_dialects();
    let boulder = repo.root.join("helm-charts/stone/charts/boulder");
    let yaml = "{apiVersion: v2, name: boulder, version: 1.0.0}";
    for (own, other) in [
        ("draft/2020-12", "http://json-schema.org/draft-07/schema#"),
        ("draft/2020-12", "https://json-schema.org/draft-04/schema"),
        ("draft-07", "https://json-schema.org/draft/2020-12/schema"),
        ("draft-07", "http://json-schema.org/schema#"),
    ] {
        let schema = format!(
            r#"{{"$schema": "https://json-schema.org/{own}/schema", "properties": {{"form": {{"$ref": "{other}"}}}}}}"#
        );
        let files = [("Chart.yaml", yaml), ("values.schema.json", &schema)];
        chart(&boulder, &files);
        let said = repo.ok("validate hub-config lake --fetch").stdout;
        assert!(said.contains("`boulder` were not checked"), "{said}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_schema_that_is_not_to_be_had_is_asked_for_once() {
    let (server, asked) = counting(|| Answer::Status(404));
    let repo = repo("", "1.0.0");
    repo.write(
        "config/xtask.yaml",
        &format!(
            "chart_mirrors: {{https://schemas.example.org: {}}}\n",
            server.address
        ),
    );
    let charts = repo.root.join("helm-charts/stone/charts");
    for (name, type_) in [("boulder", "object"), ("gravel", "string")] {
        let yaml = format!("{{apiVersion: v2, name: {name}, version: 1.0.0}}");
        let schema =
            format!(r#"{{"$schema": "https://schemas.example.org/own", "type": "{type_}"}}"#);
        let files = [
            ("Chart.yaml", yaml.as_str()),
            ("values.schema.json", &schema),
        ];
        chart(&charts.join(name), &files);
    }
    for _ in 0..2 {
        let said = repo.run("validate hub-config lake --fetch").stdout;
        let wanted = "its schema refers to `https://schemas.example.org/own`";
        assert_eq!(said.matches(wanted).count(), 2, "{said}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_deprecated_dependency() {
    let work = Repo::new();
    let files = [(
        "Chart.yaml",
        "{apiVersion: v2, name: boulder, version: 1.0.0, deprecated: true}",
    )];
    chart(&work.root.join("boulder"), &files);
    package(&work.root.join("boulder"), &work.root);
    index(&work.root);
    let served = Server::serving(&work.root);
    let repo = repo(&served.address, "1.0.0");
    let said = repo.ok("validate hub-config lake --fetch").stdout;
    let wanted = "helm-charts/stone/Chart.yaml:4:23: warning: dependency `boulder`: its makers call 1.0.0 deprecated";
    assert_eq!(said.matches(wanted).count(), 1, "{said}");
}
