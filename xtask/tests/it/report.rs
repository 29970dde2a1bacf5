//! What a deploy shows: to a person at a terminal, to a workflow, to another program.

use std::fs;

use serde_json::Value;

use crate::{
    repo::{Key, Repo, Shared, wait_until},
    terminal::Terminal,
};

#[test]
fn a_line_for_each_hub_on_a_terminal() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["seen-staging", "seen", "seen-too"]);
    for hub in ["seen", "seen-too"] {
        repo.write(
            &format!("config/clusters/lake/{hub}.values.yaml"),
            "fate: slow\n",
        );
    }
    let terminal = Terminal::start(&repo, "xtask deploy lake --jobs 2\necho exit $?");
    // Both at once, each in a line of its own.
    let pods = |hub: &str| format!("{hub:<20} 0 of 1 pods are ready ");
    wait_until("both lines", || {
        let screen = terminal.screen();
        screen.contains(&pods("seen")) && screen.contains(&pods("seen-too"))
    });
    // Whoever is done says so before the others are, and nothing is checked on simulated nodes.
    let early = terminal.screen();
    assert!(
        early.contains("\nseen-staging: deployed, revision 1, "),
        "{early}"
    );
    terminal.shows("\nexit 0");
    let screen = terminal.screen();
    assert!(
        !screen.contains("pods are ready"),
        "lines are left over: {screen}"
    );
    let lines: Vec<_> = screen
        .lines()
        .map(|it| it.split_whitespace().take(2).collect::<Vec<_>>())
        .collect();
    let expected: Vec<_> = ["seen-staging", "seen", "seen-too"]
        .iter()
        .map(|it| vec![*it, "deployed"])
        .collect();
    assert_eq!(lines[0][0], "lake:", "{screen}");
    // After a line for each at its end.
    assert_eq!(lines[4..7], expected, "{screen}");
}

#[test]
fn for_workflows_and_programs() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["told-staging", "told"]);
    let key = Key::new();
    repo.has_key(&key);
    let values = "config/clusters/lake/told-staging.values.yaml";
    repo.write(values, "fate: pull\nnote: 3-in-the-morning\n");
    repo.encrypt(values, &key);
    fs::remove_file(repo.root.join(".sops.yaml")).unwrap();
    let summary = repo.home().join("summary.md");
    fs::write(&summary, "before\n").unwrap();
    let plain = repo.env.clone();
    repo.env.extend([
        ("GITHUB_ACTIONS".to_owned(), "true".to_owned()),
        (
            "GITHUB_STEP_SUMMARY".to_owned(),
            summary.display().to_string(),
        ),
    ]);
    let ran = repo.run("deploy lake");
    assert_eq!(ran.code, Some(1));
    for part in [
        "::add-mask::3-in-the-morning\n",
        "::error title=`told-staging` failed::revision 1 did not become ready: `deployment/pond` failed: ",
        "\n::group::`told-staging` failed\nrevision 1 did not become ready",
        "more\n::endgroup::\n",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    let unmasked = ran
        .stderr
        .lines()
        .filter(|it| !it.starts_with("::add-mask::") && it.contains("3-in-the-m"));
    assert_eq!(unmasked.count(), 0, "{}", ran.stderr);
    let summary = fs::read_to_string(&summary).unwrap();
    for part in [
        "before\n### `lake`\n\n| release | | |\n",
        "\n| told-staging | failed | after ",
        "\n| told | held back | by `told-staging` |\n",
        "<details><summary>told-staging</summary>",
        "ImagePullBackOff",
    ] {
        assert!(summary.contains(part), "no {part:?} in {summary}");
    }

    repo.env = plain;
    repo.write(values, "note: fine\n");
    let ran = repo.ok("deploy lake --format json");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&told["cluster"], told["releases"].as_array().unwrap().len()),
        (&"lake".into(), 2)
    );
    let first = &told["releases"][0];
    assert_eq!(
        (&first["release"], &first["state"]),
        (&"told-staging".into(), &"deployed".into())
    );
    assert_eq!(
        (&first["revision"], &first["note"]),
        (&2.into(), &"https://told-staging.example.org".into())
    );
}
