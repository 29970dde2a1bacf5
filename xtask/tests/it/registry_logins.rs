//! Logins to registries, as `image build --check-registry` uses them.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    registry::{BASIC, BOTH, Registry},
    repo::{Repo, assert_succeeded},
    upstream::{Answer, Server},
};

/// A hub whose image has this name, which is built from a folder with one commit, and a person who is logged in to its
/// registry. Nothing can be built. Returns the tag, too.
fn repo(image: &str, login: &str) -> (Repo, String) {
    let mut repo = Repo::new();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "  - name: staging\n",
        &format!("  - name: staging\n    images: [{{name: '{image}', path: images/own}}]\n"),
    );
    repo.write(
        "config/clusters/lake/images/own/Dockerfile",
        "FROM scratch\n",
    );
    let tag = commit(&repo.root);
    let host = image.split('/').next().unwrap();
    let auth = login.trim_start_matches("Basic ");
    let config = repo.home().join(".docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    let text = serde_json::json!({"auths": {host: {"auth": auth}}});
    std::fs::write(config, text.to_string()).unwrap();
    repo.script("docker", "[ \"$1\" = version ] && echo 1 || exit 1");
    (repo, tag)
}

fn commit(root: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=A", "-c", "user.email=a@example.org"])
            .args(args)
            .current_dir(root)
            .output()
            .unwrap();
        assert_succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    // A tag that YAML reads as a number would be longer.
    git(&["commit", "--quiet", "--message", "An image"]);
    git(&["log", "--format=%H"]).trim().to_owned()
}

/// What is said of the image.
fn check(repo: &Repo) -> String {
    let ran = repo.run("image build lake staging --check-registry");
    ran.stderr + &ran.stdout
}

/// Like `BASIC` with another password.
const WRONG: &str = "Basic cmVhZGVyOndyb25n";

#[test]
fn a_registry_gets_the_login_that_there_is_for_it() {
    for program in BOTH {
        let dir = Repo::new();
        let dir = dir.root.join("..");
        let with_password = Registry::with_password(program, &dir.join("password"));
        let (with_tokens, _server) = Registry::with_tokens(program, &dir.join("tokens"));
        for registry in [&with_password, &with_tokens] {
            let image = format!("{}/private/image", registry.address);
            let (repo, commit) = repo(&image, BASIC);
            let told = check(&repo);
            assert!(
                told.contains("is built: its registry does not have it"),
                "{told}"
            );
            for length in 7..12 {
                registry.push("private/image", &commit[..length], "amd64");
            }
            let told = check(&repo);
            assert!(told.contains("is not built: its registry has it"), "{told}");
            let config = repo.home().join(".docker/config.json");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, text.replace(&BASIC[6..], &WRONG[6..])).unwrap();
            let told = check(&repo);
            let refused = format!(
                "could not be checked: {} refuses our login",
                registry.address
            );
            assert!(told.contains(&refused), "{told}");
            assert!(!told.contains("wrong"), "{told}");
        }
    }
}

/// Everything that a server was sent as `Authorization`.
type Sent = Arc<Mutex<Vec<String>>>;

/// A server that remembers the logins that it is sent.
fn listening(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Server, Sent) {
    let sent = Sent::default();
    let heard = sent.clone();
    let server = Server::asked(move |request| {
        let headers = request.headers.to_lowercase();
        let mut lines = headers.lines();
        let login = lines.find_map(|it| it.strip_prefix("authorization: "));
        heard
            .lock()
            .unwrap()
            .extend(login.map(|it| format!("{} {it}", request.path)));
        answer(&request.path)
    });
    (server, sent)
}

#[test]
fn no_other_server_gets_the_login() {
    let (thief, sent_to_thief) =
        listening(|_| Answer::Json(200, serde_json::json!({"token": "mine"})));
    let realm = format!("WWW-Authenticate: Bearer realm=\"{}/token\"", thief.address);
    let (other, sent_to_other) = listening(move |_| Answer::Refused(401, realm.clone()));
    let elsewhere = other.address.clone();
    let (registry, sent) = listening(move |path| match path {
        "v2/" => Answer::Refused(401, "WWW-Authenticate: Basic realm=\"own\"".to_owned()),
        _ => Answer::Redirect(format!("{elsewhere}/stolen")),
    });
    let address = registry.address.trim_start_matches("http://");
    let (repo, _) = repo(&format!("{address}/private/image"), BASIC);
    let told = check(&repo);
    assert!(told.contains("could not be checked"), "{told}");
    assert_eq!(sent.lock().unwrap().len(), 1);
    assert!(sent_to_other.lock().unwrap().is_empty());
    assert!(sent_to_thief.lock().unwrap().is_empty());
}

#[test]
fn a_login_is_not_sent_where_others_could_read_it() {
    // Nobody has this address: <https://www.rfc-editor.org/rfc/rfc5737>.
    let (registry, sent) = listening(|_| {
        let realm =
            "WWW-Authenticate: Bearer realm=\"http://192.0.2.1/token\",service=\"a, \\\"b\"";
        Answer::Refused(401, realm.to_owned())
    });
    let address = registry.address.trim_start_matches("http://");
    let (repo, _) = repo(&format!("{address}/private/image"), BASIC);
    let told = check(&repo);
    let refused = format!(
        "could not be checked: {address} wants our login over plain HTTP, where others could read it"
    );
    assert!(told.contains(&refused), "{told}");
    assert!(sent.lock().unwrap().is_empty());
}
