//! Charts with dependencies from a repository, seen by rendering: a dry run for a rehearsal cluster that is down needs
//! no cluster.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::repo::{Ran, Repo, tool};

/// A repository on loopback with `boulder` in the versions 1.0.0 and 1.1.0, each of which says its version.
struct ChartRepository {
    address: String,
    archives_served: Arc<AtomicUsize>,
}

impl ChartRepository {
    fn serve(dir: &Path) -> ChartRepository {
        for version in ["1.0.0", "1.1.0"] {
            package(dir, version, dir);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let index = tool("helm").args(["repo", "index", "--url", &address]).arg(dir).status().unwrap();
        assert!(index.success());
        let archives_served = Arc::new(AtomicUsize::new(0));
        let (dir, served) = (dir.to_owned(), archives_served.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).unwrap();
                let path = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                served.fetch_add(usize::from(path.ends_with(".tgz")), Ordering::Relaxed);
                let _ = match fs::read(dir.join(path)) {
                    Ok(body) => write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())
                        .and_then(|()| stream.write_all(&body)),
                    Err(_) => write!(stream, "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                };
            }
        });
        ChartRepository { address, archives_served }
    }
}

/// Packages `boulder` of this version into the folder `to`.
fn package(work: &Path, version: &str, to: &Path) {
    let chart = work.join("boulder");
    fs::create_dir_all(chart.join("templates")).unwrap();
    fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: boulder\nversion: {version}\n"))
        .unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: boulder}\ndata: {from: boulder-{{ .Chart.Version }} }\n";
    fs::write(chart.join("templates/boulder.yaml"), template).unwrap();
    let packaged = tool("helm").arg("package").arg(&chart).arg("--destination").arg(to).output().unwrap();
    assert!(packaged.status.success());
    fs::remove_dir_all(chart).unwrap();
}

/// A repository whose one hub has a chart that depends on `boulder` by way of a `file://` dependency.
fn repo(address: &str, version: &str) -> Repo {
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

fn boulder(ran: &Ran) -> &str {
    let (_, rest) = ran.stdout.split_once("from: ").unwrap_or_else(|| panic!("no boulder in {}", ran.stdout));
    rest.split_whitespace().next().unwrap()
}

const RENDER: &str = "deploy lake --dry-run";

#[test]
fn dependencies_of_the_right_version() {
    let work = Repo::new();
    let served = ChartRepository::serve(&work.root);
    let repo = repo(&served.address, "1.0.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    repo.ok(RENDER);
    repo.edit("helm-charts/pond/values.yaml", "depth: 0", "depth: 1");
    repo.ok(RENDER);
    assert_eq!(served.archives_served.load(Ordering::Relaxed), 1, "what is in the cache was fetched again");

    // A range needs a Chart.lock, which has to agree with Chart.yaml.
    repo.edit("helm-charts/stone/Chart.yaml", "1.0.0", ">=1.0 <2");
    assert!(repo.fails(RENDER).contains("`>=1.0 <2` isn't one version, and there is no Chart.lock"));
    let lock = |version: &str| {
        let address = &served.address;
        let lock =
            format!("dependencies:\n- {{name: boulder, repository: \"{address}\", version: {version}}}\n");
        repo.write("helm-charts/stone/Chart.lock", &lock);
    };
    lock("1.1.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.1.0");
    lock("2.0.0");
    assert!(repo.fails(RENDER).contains("Chart.lock has 2.0.0, and Chart.yaml wants >=1.0 <2"));

    // In charts/ the right version is used, and a wrong one isn't.
    lock("1.0.0");
    let charts = repo.root.join("helm-charts/stone/charts");
    fs::create_dir(&charts).unwrap();
    package(&work.root, "1.1.0", &charts);
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
    let fetched = served.archives_served.load(Ordering::Relaxed);
    fs::remove_dir_all(repo.cache().join("xtask/dependencies")).unwrap();
    lock("1.1.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.1.0");
    assert_eq!(served.archives_served.load(Ordering::Relaxed), fetched);
    // A wrong version that is called like the right one is seen for what it is.
    fs::rename(charts.join("boulder-1.1.0.tgz"), charts.join("boulder-1.0.0.tgz")).unwrap();
    lock("1.0.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
}

#[test]
fn two_processes_prepare_one_chart() {
    let work = Repo::new();
    let served = ChartRepository::serve(&work.root);
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
    let served = ChartRepository::serve(&work.root);
    let repo = repo(&served.address, "9.9.9");
    let said = repo.fails(RENDER);
    let wanted = format!("cannot get the chart `boulder` 9.9.9 from {}", served.address);
    assert!(said.contains(&wanted) && said.contains("helm-charts/stone/Chart.yaml"), "{said}");
    assert!(said.contains("`prod` failed"), "{said}");
    repo.edit("helm-charts/stone/Chart.yaml", &served.address, "@person");
    let said = repo.fails(RENDER);
    assert!(said.contains("the repository `@person` isn't an address"), "{said}");
    repo.edit("helm-charts/pond/Chart.yaml", "file://../stone", "file://../stoen");
    let said = repo.fails(RENDER);
    assert!(
        said.contains("helm-charts/pond/Chart.yaml: dependency `stone`: there is no chart `../stoen`"),
        "{said}"
    );
    repo.edit("helm-charts/pond/Chart.yaml", "file://../stoen", "file://../pond");
    let said = repo.fails(RENDER);
    assert!(said.contains("depends on itself"), "{said}");
}

#[test]
fn what_is_called_secret_beside_a_chart_stays_out_of_the_cache() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n- {name: prod, domain: d, helm_chart: pond, helm_chart_values_files: []}\n",
    );
    repo.write("helm-charts/pond/decrypted.secret.values.yaml", "token: lying-around\n");
    repo.write("helm-charts/pond/templates/secret.yaml", "# nothing\n");
    repo.ok(RENDER);
    let mut prepared = Vec::new();
    names(&repo.cache().join("xtask/charts"), &mut prepared);
    assert!(!prepared.contains(&"decrypted.secret.values.yaml".to_owned()), "{prepared:?}");
    assert!(prepared.contains(&"secret.yaml".to_owned()), "{prepared:?}");
    assert!(prepared.contains(&"values.schema.json".to_owned()), "{prepared:?}");
}

fn names(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            names(&entry.path(), found);
        }
    }
}
