//! Health checks of hubs, good and bad.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    a_real_node::Node,
    repo::{Key, Ran, Repo, Shared, wait_until},
    stop::signal,
};

fn notebook(repo: &Repo, cells: &[Value]) {
    let cells: Vec<_> = cells
        .iter()
        .map(|cell| match cell {
            Value::String(source) => {
                json!({"cell_type": "code", "source": source, "metadata": {}, "outputs": []})
            }
            cell => cell.clone(),
        })
        .collect();
    let text = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells});
    repo.write("try.ipynb", &text.to_string());
}

/// On the hub `staging` of a real node.
pub(crate) fn a_check_that_can_fail(repo: &Repo, node: &Node) {
    let pods = || node.get("get pods -n staging -o name");
    let is_clean = || !pods().contains("deployment-service-check");
    let ran = repo.ok("run-hub-health-check local staging --port-forward");
    assert!(ran.stdout.starts_with("`staging` of `local` is healthy: user "), "{}", ran.stdout);
    assert!(is_clean(), "{}", pods());
    let report = repo.ok("run-hub-health-check local staging --format json").stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    let names: Vec<_> = report["attempts"][0]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["user", "server", "kernel", "simple", "end"]);
    assert_eq!((&report["healthy"], &report["hub"]), (&true.into(), &"staging".into()));

    let fails = |cells: &[Value], more: &str| {
        notebook(repo, cells);
        let started = Instant::now();
        let ran =
            repo.run(&format!("run-hub-health-check local staging --attempts 1 --notebook try.ipynb {more}"));
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
        assert!(is_clean(), "{}", pods());
        ran.stdout + &ran.stderr
    };
    let checked = json!({
        "cell_type": "code", "source": ["print(6 *\n", "      7)"], "metadata": {"tags": ["check-output"]},
        "outputs": [{"output_type": "stream", "name": "stdout", "text": ["43\n"]}],
    });
    for (cells, more, part) in [
        (
            vec![json!("x = 1"), json!("def f():\n    raise ValueError('no such lake')\nf()")],
            "",
            "cell 2 of the notebook `try.ipynb` fails: ValueError: no such lake\n",
        ),
        (vec![json!("import os; os._exit(1)")], "", "cell 1 of the notebook `try.ipynb`: the kernel died"),
        (
            vec![json!("import time; time.sleep(600)")],
            "--attempt-timeout 45s",
            "cell 1 of the notebook `try.ipynb`: the cell took too long",
        ),
        (vec![checked], "", "cell 1 of the notebook `try.ipynb` gives \"42\", not \"43\""),
    ] {
        let said = fails(&cells, more);
        assert!(said.contains(part), "no {part:?} in {said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
        assert!(said.contains("`staging` of `local` isn't healthy: "), "{said}");
    }
    // A source that is all right, but no notebook.
    for (text, part) in [
        ("{}", "`try.ipynb` isn't a notebook of version 4"),
        (
            r##"{"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "# Hi"}]}"##,
            "the notebook `try.ipynb` has no code to run",
        ),
    ] {
        repo.write("try.ipynb", text);
        let said = repo.fails("run-hub-health-check local staging --notebook try.ipynb");
        assert!(said.contains(part), "{said}");
    }

    // Stopped, it clears up; killed, the next one does, also while the server is only starting.
    notebook(repo, &[json!("import time; time.sleep(600)")]);
    let child = repo.start("run-hub-health-check local staging --notebook try.ipynb");
    wait_until("the server", || !is_clean());
    signal(&child, "TERM");
    assert_eq!(Ran::from(child).code, Some(1));
    assert!(is_clean(), "{}", pods());
    let mut child = repo.start("run-hub-health-check local staging");
    wait_until("the server", || !is_clean());
    child.kill().unwrap();
    child.wait().unwrap();
    repo.ok("run-hub-health-check local staging --attempts 1");
    assert!(is_clean(), "{}", pods());

    // A token that the hub doesn't know, and no hub.
    let field = r"jsonpath={.data.hub\.services\.hub-health\.apiToken}";
    let token = node.get(&format!("get secret hub -n staging -o {field}"));
    let set = |token: &str| {
        let patch = format!(r#"{{"data":{{"hub.services.hub-health.apiToken":"{token}"}}}}"#);
        node.get(&format!("patch secret hub -n staging -p {patch}"));
    };
    set("Z3Vlc3NlZA==");
    let said = repo.fails("run-hub-health-check local staging --attempts 2");
    assert!(
        said.contains("attempt 2 of 2: ") && said.contains("its service `hub-health` lacks the rights"),
        "{said}"
    );
    assert!(!said.contains("guessed"), "{said}");
    set("");
    let said = repo.fails("run-hub-health-check local staging");
    assert!(said.contains("so nobody can check it\nhint: define the service `hub-health`"), "{said}");
    set(&token);
    node.get("scale deployment hub -n staging --replicas 0");
    wait_until("no hub", || !pods().contains("pod/hub-"));
    let said = repo.fails("run-hub-health-check local staging --attempts 1");
    assert!(said.contains("the proxy answers 50"), "{said}");
    node.get("scale deployment hub -n staging --replicas 1");
    node.get("rollout status deployment hub -n staging --timeout 60s");
    repo.ok("run-hub-health-check local staging");
}

#[test]
fn where_nothing_can_be_checked() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["unchecked"]);
    let said = repo.fails("run-hub-health-check lake unchecked");
    assert!(said.contains("`unchecked` has no Secret `hub`: it isn't deployed"), "{said}");
    let said = repo.fails("run-hub-health-check lake nobody");
    assert!(said.contains("cluster `lake` has no hub `nobody`"), "{said}");
    // There is a token, and nobody behind the domain.
    cluster.kubectl("create namespace unchecked");
    cluster.kubectl(
        "create secret generic hub -n unchecked --from-literal=hub.services.hub-health.apiToken=of-the-test",
    );
    let said = repo.fails("run-hub-health-check lake unchecked --attempts 1");
    assert!(
        said.contains("the hub can't be reached: GET https://unchecked.example.org/hub/api/users/"),
        "{said}"
    );
    assert!(!said.contains("of-the-test"), "{said}");

    // Nor is a domain shown that is encrypted.
    let key = Key::new();
    repo.has_key(&key);
    repo.write("config/clusters/lake/domain.secret.yaml", "domain: hidden.example.org\n");
    repo.encrypt("config/clusters/lake/domain.secret.yaml", &key);
    let domain = "domain: unchecked.example.org";
    let own = format!("{domain}\n  domain_override_file: domain.secret.yaml");
    repo.edit("config/clusters/lake/cluster.yaml", domain, &own);
    let ran = repo.run("run-hub-health-check lake unchecked --attempts 2 --format json");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("attempt 2 of 2: the hub can't be reached: GET https://***/hub/api/"),
        "{}",
        ran.stderr
    );
    assert!(!(ran.stdout + &ran.stderr).contains("hidden.example"));
}
