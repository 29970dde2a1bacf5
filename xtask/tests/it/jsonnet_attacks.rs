//! Values in jsonnet as a stranger's pull request, a careless colleague and a hostile chart would write them.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Child, Command},
};

use crate::{
    repo::{Key, Repo, Shared, command_lines, executable, is_below, tool_path, wait_until},
    stop::signal,
};

const CHART: &str = "helm-charts/pond/values.jsonnet";

/// Takes all memory that it can get, soon.
const LARGE: &str = "local twice(list, times) = if times == 0 then list else twice(list + list, times - 1) tailstrict; \
                     std.length(twice([1, 2, 3, 4, 5, 6, 7, 8], 26))";

/// Takes all time that it can get.
const ENDLESS: &str = "{depth: std.length(std.makeArray(1000000000, function(i) i))}";

/// Ends the evaluator, which does not get that deep.
const TOO_DEEP: &str = "local deeper(it) = deeper(it + 1) tailstrict; {depth: deeper(1)}";

/// The repository whose chart has these values.
fn with_chart(jsonnet: &str) -> Repo {
    let repo = Repo::new();
    repo.write(CHART, jsonnet);
    repo
}

/// A cluster with hubs that have nothing but the values of their chart.
fn with_hubs(repo: &Repo, count: usize) {
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for number in 0..count {
        yaml += &format!(
            "- {{name: hub{number}, domain: hub{number}.example.org, helm_chart: pond, helm_chart_values_files: []}}\n"
        );
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
}

#[test]
fn nothing_outside_of_the_repository_is_imported() {
    let repo = with_chart("{}");
    let beside = repo.root.with_file_name("beside.txt");
    fs::write(&beside, "treasure-of-the-house").unwrap();
    let at = beside.display().to_string();
    let chart = repo.root.join("helm-charts/pond");
    symlink(&beside, chart.join("link.txt")).unwrap();
    symlink("link.txt", chart.join("chain.txt")).unwrap();
    symlink("loop.txt", chart.join("loop.txt")).unwrap();
    symlink(beside.parent().unwrap(), chart.join("folder")).unwrap();
    repo.write(".git/config", "treasure-of-the-house");
    repo.write(
        "helm-charts/pond/inner/.GIT/config",
        "treasure-of-the-house",
    );
    let paths = [
        at.as_str(),
        &format!("/{at}"),
        &format!("/proc/../{at}"),
        "../../../beside.txt",
        "../pond/../../config/../../beside.txt",
        "link.txt",
        "chain.txt",
        "loop.txt",
        "folder/beside.txt",
        "folder/repo/../beside.txt",
        "../../.git/config",
        "inner/.GIT/config",
        "/proc/self/environ",
        "/proc/thread-self/environ",
        "/dev/stdin",
        "/dev/fd/0",
        "/dev/zero",
        ".",
        "/",
        "\\u0000",
        "a\\nb\\\"}\\n{\\\"length\\\": 1}\\nx",
        &"long/".repeat(1000),
    ];
    for (number, path) in paths.iter().enumerate() {
        repo.write(
            &format!("config/clusters/lake/{number}.jsonnet"),
            &format!("{{greeting: importstr \"{path}\"}}"),
        );
        // Beside the chart, where the links are.
        repo.write(
            &format!("helm-charts/pond/{number}.libsonnet"),
            &format!("importstr \"{path}\""),
        );
        repo.write(
            &format!("config/clusters/lake/chart-{number}.jsonnet"),
            &format!("{{greeting: import '../../../helm-charts/pond/{number}.libsonnet'}}"),
        );
    }
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for number in 0..paths.len() {
        yaml += &format!(
            "- {{name: hub{number}, domain: hub{number}.example.org, helm_chart: pond, \
             helm_chart_values_files: [{number}.jsonnet, chart-{number}.jsonnet]}}\n"
        );
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
    let ran = repo.run("validate lake");
    let said = ran.stdout + &ran.stderr;
    assert!(!said.contains("treasure"), "{said}");
    for (number, path) in paths.iter().enumerate() {
        for file in [
            format!("{number}.jsonnet"),
            format!("chart-{number}.jsonnet"),
        ] {
            let refused = format!("lake/{file}` cannot be evaluated: cannot import");
            assert!(said.contains(&refused), "{path}: {said}");
        }
    }
}

#[test]
fn what_is_too_much_for_one_hub_is_no_verdict_on_another() {
    let repo = with_chart(&format!(
        "if std.extVar('XTASK_HUB_NAME') == 'hub0' then {{depth: {LARGE}}} else {{}}"
    ));
    with_hubs(&repo, 2);
    let said = repo.fails("validate lake");
    assert!(said.contains("hub `hub0` of `lake`: "), "{said}");
    assert!(said.contains("it takes more than"), "{said}");
    assert!(!said.contains("`hub1`"), "{said}");
}

#[test]
fn a_chart_that_crashes_the_evaluator_is_given_up_after_three_hubs() {
    let repo = with_chart(TOO_DEEP);
    with_hubs(&repo, 12);
    let said = repo.fails("validate lake");
    assert!(said.contains("too much for 3 other releases"), "{said}");
}

#[test]
fn an_error_of_any_length_is_told_in_short() {
    let repo = with_chart("error std.repeat('again and again ', 10000)");
    let said = repo.fails("validate lake");
    assert!(said.contains("cannot be evaluated: again and again"));
    assert!(said.len() < 5000, "{} bytes", said.len());
}

#[test]
fn an_error_does_nothing_to_a_terminal_or_a_workflow() {
    let mut repo = with_chart(r#"error "\u001b[31m\r::stop-commands::x\n::set-env name=a::b""#);
    repo.env.push(("GITHUB_ACTIONS".into(), "true".into()));
    let said = repo.fails("validate lake --format text");
    assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
    assert!(said.contains("stop-commands"), "{said:?}");
    assert!(!said.contains("\n::"), "{said:?}");
}

/// Starts the program, and waits for its evaluator.
fn evaluating(repo: &Repo, args: &str) -> (Child, u32) {
    let child = repo.start(args);
    wait_until("the evaluator", || evaluator_of(&child).is_some());
    let evaluator = evaluator_of(&child).unwrap();
    (child, evaluator)
}

fn evaluator_of(child: &Child) -> Option<u32> {
    let running = command_lines().into_iter();
    let mut evaluators = running.filter(|(_, it)| it.trim().ends_with("xtask-jsonnet"));
    let (pid, _) = evaluators.find(|(pid, _)| is_below(*pid, child.id()))?;
    Some(pid)
}

#[test]
fn the_evaluator_has_no_environment() {
    let mut repo = with_chart(ENDLESS);
    repo.env
        .push(("SOPS_AGE_KEY".into(), "AGE-SECRET-KEY-1TREASURE".into()));
    let (mut child, evaluator) = evaluating(&repo, "validate lake");
    let environment = fs::read_to_string(format!("/proc/{evaluator}/environ")).unwrap();
    signal(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(environment, "");
    wait_until("the evaluator's end", || {
        !command_lines().iter().any(|(pid, _)| *pid == evaluator)
    });
}

#[test]
fn a_signal_ends_an_evaluation() {
    let repo = with_chart(ENDLESS);
    let (child, evaluator) = evaluating(&repo, "deploy lake --yes");
    signal(&child, "INT");
    let ran: crate::repo::Ran = child.into();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("error: stopped"), "{}", ran.stderr);
    assert!(!command_lines().iter().any(|(pid, _)| *pid == evaluator));
}

/// The hub `name` with an encrypted domain and these values of its chart, on the cluster that tests share.
fn with_secret_domain(cluster: &Shared, name: &str, jsonnet: &str) -> Repo {
    let mut repo = Repo::on(cluster, &[name]);
    repo.write(CHART, jsonnet);
    let file = "config/clusters/lake/domain.secret.yaml";
    repo.write(file, "domain: hidden-treasure.example.net\n");
    let key = Key::new();
    repo.encrypt(file, &key);
    repo.has_key(&key);
    let domain = format!("domain: {name}.example.org");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &domain,
        &format!("{domain}\n  domain_override_file: domain.secret.yaml"),
    );
    repo
}

const BACKWARDS: &str = "local domain = std.extVar('XTASK_HUB_DOMAIN'); \
                         local backwards = std.join('', std.reverse(std.stringChars(domain))); ";

#[test]
fn an_error_tells_nothing_of_an_encrypted_domain() {
    let cluster = Shared::cluster();
    let jsonnet = "if std.endsWith(domain, '.invalid') then {} else error 'no: ' + backwards";
    let repo = with_secret_domain(&cluster, "js-error", &format!("{BACKWARDS}{jsonnet}"));
    let said = repo.fails("deploy lake --dry-run");
    assert!(said.contains("cannot be evaluated"), "{said}");
    assert!(!said.contains("erusaert"), "{said}");
}

#[test]
fn what_is_made_of_an_encrypted_domain_alone_is_not_shown() {
    let cluster = Shared::cluster();
    let jsonnet = "if std.endsWith(domain, '.invalid') then {} \
                   else if std.endsWith(domain, '.example.net') then {note: 'shown ' + backwards} else error 'no'";
    let repo = with_secret_domain(&cluster, "js-made", &format!("{BACKWARDS}{jsonnet}"));
    let said = repo.ok("deploy lake --dry-run");
    let said = said.stdout + &said.stderr;
    assert!(said.contains("kind: ConfigMap"), "{said}");
    assert!(!said.contains("erusaert"), "{said}");
}

#[test]
fn no_form_of_an_encrypted_domain_shows() {
    const FORMS: &str = "local forms = [domain, backwards, std.asciiUpper(domain), std.base64(domain), std.md5(domain), \
                         std.join(' ', std.stringChars(domain)), std.toString(std.length(domain) * 1000003)]; \
                         {note: std.join('\\n', forms), greeting: backwards, \
                          depth: std.length(domain) * 1000003, fate: std.substr(backwards, 0, 20)}";
    let cluster = Shared::cluster();
    let repo = with_secret_domain(&cluster, "js-forms", &format!("{BACKWARDS}{FORMS}"));
    let mut said = String::new();
    let mut run = |args: &str| {
        let ran = repo.ok(args);
        said += &format!("$ {args}\n{}{}", ran.stdout, ran.stderr);
    };
    run("deploy lake --dry-run --debug --verbose");
    run("deploy lake --debug --verbose");
    repo.write(
        CHART,
        &format!("{BACKWARDS}{}", FORMS.replace("note:", "note: 'more ' +")),
    );
    run("deploy lake --dry-run --diff --verbose");
    run("deploy lake");
    run("status lake");
    run("status lake js-forms");
    run("rollback lake js-forms --yes --verbose");
    run("deploy lake --skip-unchanged");
    repo.write(
        CHART,
        &format!("{BACKWARDS}{FORMS} + {{selector: {{[backwards]: 'x'}}}}"),
    );
    run("deploy lake --dry-run");
    run("deploy lake --dry-run --diff");
    let lower = said.to_lowercase();
    for form in [
        "treasure",
        "erusaert",
        "t r e a s",
        "aglkzgvulxry",
        "4bda59195b72",
        "27000081",
    ] {
        assert!(!lower.contains(form), "{form}: {said}");
    }
}

#[test]
fn a_rollback_waits_for_no_build_of_the_evaluator() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["js-back"]);
    repo.ok("deploy lake");
    repo.write(CHART, "{note: 'from jsonnet'}");
    repo.ok("deploy lake");
    repo.without_tools();
    for name in ["helm", "sops", "kubectl"] {
        let program = tool_path(name);
        let folder = program.parent().unwrap();
        let link = repo
            .cache()
            .join("xtask/tools")
            .join(folder.file_name().unwrap());
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(folder, link).unwrap();
    }
    repo.script("go", "touch \"$XDG_CACHE_HOME/built\"; exit 1");
    let said = repo.ok("rollback lake js-back --yes");
    assert!(
        said.stdout.contains("js-back is as in revision 1"),
        "{}",
        said.stdout
    );
    repo.run("status lake js-back");
    assert!(!repo.cache().join("built").exists());
}

#[test]
fn a_hub_whose_values_are_not_known_is_not_healthy() {
    let repo = with_chart("error 'not today'");
    let said = repo.fails("run-hub-health-check lake prod");
    assert!(said.contains("cannot be evaluated: not today"), "{said}");
}

/// Another program of that name is not ours, and one in the repository is none at all.
#[test]
fn no_other_program_evaluates() {
    let mut repo = with_chart("{greeting: 'hello'}");
    let lines = "touch \"$XDG_CACHE_HOME/run\"; echo 1.0.0";
    executable(&repo.root.join("xtask-jsonnet"), lines);
    let path = std::env::var("PATH").unwrap();
    repo.env.push(("PATH".into(), format!(".:{path}:")));
    repo.ok("validate lake");
    assert!(!repo.cache().join("run").exists());
    repo.script("xtask-jsonnet", "echo 0.9.9");
    repo.ok("validate lake");
}

/// Somebody may be at work on it, and what jsonnet makes is shown.
#[test]
fn no_file_that_is_called_secret_is_imported() {
    for (imported, link) in [
        ("own.secret.yaml", None),
        ("harmless", Some("own.secret.yaml")),
    ] {
        let repo = with_chart(&format!("{{greeting: importstr '{imported}'}}"));
        repo.write(
            "helm-charts/pond/own.secret.yaml",
            "password: plain-treasure\n",
        );
        if let Some(target) = link {
            symlink(target, repo.root.join("helm-charts/pond").join(imported)).unwrap();
        }
        let said = repo.fails("validate lake");
        assert!(
            said.contains("what evaluates jsonnet gets no secrets"),
            "{said}"
        );
    }
}

#[test]
fn messages_name_files_from_the_root() {
    let repo = with_chart("import 'lib.libsonnet'");
    let said = repo.fails("validate lake");
    let place = "it is neither beside this file nor in \"helm-charts/pond\"";
    assert!(said.contains(place), "{said}");
}

/// What git ignores is in no index.
#[test]
fn staged_files_import_staged_files() {
    let repo = with_chart("{greeting: importstr 'note.txt'}");
    repo.write("helm-charts/pond/note.txt", "hello");
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args(args)
            .current_dir(&repo.root)
            .output();
        assert!(done.unwrap().status.success());
    };
    git(&["init", "--quiet"]);
    git(&["add", "config", CHART]);
    let said = repo.fails("validate --staged");
    assert!(said.contains("cannot import \"note.txt\""), "{said}");
}
