//! What a deploy would change, in words that show no secret.

use crate::repo::{Key, Ran, Repo, Shared};

fn diff(repo: &Repo, hub: &str) -> Ran {
    repo.run(&format!(
        "deploy lake {hub} --diff --dry-run --detailed-exitcode"
    ))
}

#[test]
fn shows_what_differs_and_no_secret() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["shown"]);
    let key = Key::new();
    repo.has_key(&key);
    let (plain, secret) = (
        "config/clusters/lake/shown.values.yaml",
        "config/clusters/lake/enc-shown.secret.values.yaml",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "shown.values.yaml]",
        "shown.values.yaml, enc-shown.secret.values.yaml]",
    );
    let encrypt = |text: &str| {
        repo.write(secret, text);
        repo.encrypt(secret, &key);
    };
    repo.write(plain, "note: hello\ndepth: 7\njob: fine\n");
    encrypt("token: the-first-albatross\ngreeting: the-first-petrel\n");

    let ran = diff(&repo, "shown");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    for part in [
        "# shown\n--- nothing\n+++ secret/pond\n",
        "\n+  note: hello\n",
        "\n+  token: '***'\n",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("namespace/shown\n")
    );
    repo.ok("deploy lake");
    let ran = diff(&repo, "shown");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), ""),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("shown: nothing would change\n"),
        "{}",
        ran.stderr
    );

    repo.write(plain, "note: goodbye\ndepth: 7\n");
    encrypt("token: the-second-albatross\ngreeting: the-second-petrel\n");
    cluster.kubectl("set image deployment/pond pond=by-hand -n shown");
    let applied = "kubectl.kubernetes.io/last-applied-configuration=dGhlLWZpcnN0LWFsYmF0cm9zcw==";
    cluster.kubectl(&format!("annotate secret pond -n shown {applied}"));
    let ran = diff(&repo, "shown");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    for part in [
        "--- configmap/pond\n+++ configmap/pond\n",
        "\n-  note: hello\n",
        "\n+  note: goodbye\n",
        "\n-  greeting: '*** (old)'\n",
        "\n+  greeting: '*** (new)'\n",
        "\n-  token: '*** (old)'\n",
        "\n+  token: '*** (new)'\n",
        // What the Secret holds as YAML.
        "\n     depth: 7\n",
        "\n-    token: '*** (old)'\n",
        "\n+    note: goodbye\n",
        "--- job/once\n+++ nothing\n",
        "\n-      - image: by-hand\n",
        "\n+      - image: pond\n",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    let all = ran.stdout + &ran.stderr;
    assert!(
        !all.contains("albatross") && !all.contains("petrel"),
        "{all}"
    );
    // Base64 of "albatross" and "petrel" at all alignments.
    for part in [
        "dGhlLWZpcnN0",
        "bGJhdHJvc3",
        "YWxiYXRyb3Nz",
        "hbGJhdHJvc3",
        "cGV0cmVs",
        "BldHJlb",
        "wZXRyZW",
    ] {
        assert!(!all.contains(part), "{part} in {all}");
    }

    let note = || cluster.kubectl("get configmap pond -n shown -o jsonpath={.data.note}");
    let said = repo.fails("deploy lake shown --diff --force-conflicts");
    assert!(
        said.contains("Deploy 1 hub of `lake`: cannot ask without a terminal; pass `--yes`"),
        "{said}"
    );
    assert_eq!(note(), "hello");
    let ran = repo.ok("deploy lake shown --diff --yes --force-conflicts");
    assert!(
        ran.stdout.contains("\n+  note: goodbye\n")
            && ran.stdout.contains("shown                deployed")
    );
    assert_eq!(note(), "goodbye");
    assert_eq!(repo.run("deploy lake --detailed-exitcode").code, Some(2));

    // What stands as it is can be left out, until somebody changes it.
    let deploy = || {
        repo.ok("deploy lake --skip-unchanged --force-conflicts")
            .stdout
    };
    let revision = |printed: &str| {
        printed
            .split_whitespace()
            .nth(3)
            .unwrap()
            .trim_end_matches(',')
            .to_owned()
    };
    let first = deploy();
    assert!(
        first.starts_with("shown                unchanged revision 2,"),
        "{first}"
    );
    cluster.kubectl("set image deployment/pond pond=by-hand -n shown");
    assert_eq!(revision(&deploy()), "3");
    assert_eq!(revision(&deploy()), "3");
    repo.write(plain, "note: goodbye\ndepth: 7\nhook: true\n");
    let printed = repo.run("deploy lake --skip-unchanged --timeout 3s");
    assert!(
        printed.stderr.contains("`shown` failed"),
        "{}",
        printed.stderr
    );
    repo.write(plain, "note: goodbye\ndepth: 7\n");
    assert!(deploy().contains("shown                deployed"));
}
