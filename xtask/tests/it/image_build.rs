//! Images that are built from folders of the repository, by the real buildah, and pushed to real registries. What another
//! engine would be given is seen by a script in its place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    leaks::{in_arguments, on_disk},
    login::{amazon, aws},
    registry::{Program, Registry},
    repo::{Key, Ran, Repo, assert_succeeded, wait_until},
    upstream::{Answer, Running, Server, free_address},
};

/// A repository of git whose cluster `lake` has hubs with these images, as cluster.yaml has them. Each is built from a folder
/// `images/NAME`. buildah's own images are in a folder of the test.
fn repo(images: &[(&str, &str)]) -> Repo {
    let mut repo = Repo::new();
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for (hub, images) in images {
        yaml += &format!(
            "- name: {hub}\n  domain: {hub}.example.org\n  helm_chart: pond\n  \
             helm_chart_values_files: [common.values.yaml]\n  images: {images}\n"
        );
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
    folder(&repo, "user", "FROM scratch\nCOPY hello /hello\n");
    git(&repo, "init --quiet --initial-branch main");
    commit(&repo, "one");
    let storage = repo.cache().join("storage.conf");
    let cache = repo.cache();
    let text = format!(
        "[storage]\ndriver = \"vfs\"\nrunroot = \"{0}/run\"\ngraphroot = \"{0}/graph\"\n",
        cache.display()
    );
    fs::write(&storage, text).unwrap();
    let settings = [
        ("CONTAINERS_STORAGE_CONF", storage.display().to_string()),
        ("BUILDAH_ISOLATION", "chroot".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    repo.env.extend(settings);
    without_docker(&mut repo);
    repo
}

/// Neither docker nor podman work, whatever there is on this machine.
fn without_docker(repo: &mut Repo) {
    repo.script("docker", "echo 'no daemon here' >&2; exit 1");
    repo.script("podman", "echo 'no podman here' >&2; exit 1");
}

/// A folder that an image is built from.
fn folder(repo: &Repo, name: &str, dockerfile: &str) {
    let folder = format!("config/clusters/lake/images/{name}");
    repo.write(&format!("{folder}/Dockerfile"), dockerfile);
    repo.write(&format!("{folder}/hello"), name);
}

fn git(repo: &Repo, args: &str) -> String {
    git_in(&repo.root, args)
}

fn git_in(folder: &Path, args: &str) -> String {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
        .args(args.split_whitespace())
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert_succeeded(&output);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(repo: &Repo, message: &str) {
    git(repo, "add --all");
    git(
        repo,
        &format!("commit --quiet --allow-empty --message {message}"),
    );
}

/// The tag of what the last commit changed.
fn tag(repo: &Repo) -> String {
    tag_of(&git(repo, "rev-parse HEAD"))
}

/// As many digits of a commit's hash as YAML reads as a text.
fn tag_of(commit: &str) -> String {
    let is_number = |it: &str| it.parse::<f64>().is_ok();
    let mut tags = (7..).map(|length| &commit[..length]);
    tags.find(|it| !is_number(it)).unwrap().to_owned()
}

/// All files below a folder, with what they hold.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
        }
    }
    found
}

/// How many folders of log-ins there are that hold a file with this text.
fn logins_with(text: &str) -> usize {
    let uid = rustix::process::getuid().as_raw();
    let Ok(folders) = fs::read_dir(format!("/dev/shm/xtask-{uid}")) else {
        return 0;
    };
    let files = folders
        .flatten()
        .map(|it| it.path().join("docker/config.json"));
    let files = files.filter_map(|it| fs::read_to_string(it).ok());
    files.filter(|it| it.contains(text)).count()
}

/// A docker-registry that lets in the user `pusher` with this password.
fn registry_with(password: &str, dir: &Path) -> (Running, String) {
    let address = free_address();
    let hash = Command::new("perl")
        .args([
            "-e",
            "print crypt(<STDIN>, q($2y$04$abcdefghijklmnopqrstuu))",
        ])
        .stdin(fs::File::open(written(dir, "password", password)).unwrap())
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    fs::remove_file(dir.join("password")).unwrap();
    let htpasswd = written(dir, "htpasswd", &format!("pusher:{hash}\n"));
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n\
         auth: {{htpasswd: {{realm: here, path: {}}}}}\n",
        dir.join("data").display(),
        htpasswd.display()
    );
    let config = written(dir, "registry.yaml", &config);
    let args = ["serve".to_owned(), config.display().to_string()];
    (Running::start("docker-registry", &args, &address), address)
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn an_image_of_two_hubs_is_built_and_pushed_once() {
    let data = Repo::new();
    let registry = Registry::open(Program::Debian, &data.cache());
    let name = format!("{}/lake/user", registry.address);
    let image = format!("[{{name: '{name}', path: images/user}}]");
    let repo = repo(&[("staging", &image), ("prod", &image)]);
    fs::create_dir_all(repo.home().join(".docker")).unwrap();
    fs::write(repo.home().join(".docker/config.json"), "{[broken").unwrap();
    let before = files(&repo.home());
    let tag = tag(&repo);

    let built = repo.ok("image build lake");
    assert_eq!(built.stdout, format!("{name}:{tag} built\n"));
    let first = built.stderr.lines().next().unwrap();
    assert!(first.starts_with("building with buildah 1."), "{first}");
    let why = format!(
        "{name}:{tag} is built: from `config/clusters/lake/images/user`, for `staging`, `prod`\n"
    );
    assert!(built.stderr.contains(&why), "{}", built.stderr);
    assert!(
        built.stderr.contains("user: STEP 2/2: COPY hello /hello\n"),
        "{}",
        built.stderr
    );
    assert_eq!(built.stderr.matches("STEP 1/2").count(), 1);

    let pushed = repo.ok("image build lake prod --check-registry --push");
    let digest = pushed.stdout.trim().rsplit_once(' ').unwrap().1;
    assert_eq!(pushed.stdout, format!("{name}:{tag} pushed, {digest}\n"));
    assert!(
        pushed
            .stderr
            .contains("is built: its registry does not have it\n")
    );
    let url = format!(
        "http://{}/v2/lake/user/manifests/{digest}",
        registry.address
    );
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(
        ureq::get(url)
            .header("accept", accept)
            .call()
            .unwrap()
            .status(),
        200
    );

    let left = repo.ok("image build lake --check-registry --push");
    assert_eq!(left.stdout, format!("{name}:{tag} not built\n"));
    assert_eq!(
        left.stderr,
        format!("{name}:{tag} is not built: its registry has it\n")
    );
    assert_eq!(files(&repo.home()), before);
}

/// A name of this machine that is not taken for the machine itself, so that layers are shared through the registry.
fn elsewhere(address: &str) -> String {
    address.replace("127.0.0.1", "0.0.0.0")
}

#[test]
fn layers_of_earlier_builds_come_from_the_registry() {
    let data = Repo::new();
    let registry = Registry::open(Program::Debian, &data.cache());
    let address = elsewhere(&registry.address);
    let name = format!("{address}/lake/user");
    let mut repo = repo(&[("prod", &format!("[{{name: '{name}', path: images/user}}]"))]);
    let registries = repo.cache().join("registries.conf");
    let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
    fs::write(&registries, text).unwrap();
    let registries = registries.display().to_string();
    repo.env
        .push(("CONTAINERS_REGISTRIES_CONF".into(), registries));
    let first = repo.ok("image build lake --push");
    assert!(first.stderr.contains("Pushing cache"), "{}", first.stderr);

    // Another machine, which has no layers.
    fs::remove_dir_all(repo.cache().join("graph")).unwrap();
    let again = repo.ok("image build lake");
    assert!(
        again.stderr.contains("Cache pulled from remote"),
        "{}",
        again.stderr
    );
    fs::remove_dir_all(repo.cache().join("graph")).unwrap();
    let anew = repo.ok("image build lake --no-cache");
    assert!(!anew.stderr.contains("cache"), "{}", anew.stderr);
}

#[test]
fn an_image_of_a_dirty_folder_is_not_pushed() {
    let repo = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    let tag = tag(&repo);
    // Git ignores new files for who has it so.
    git(&repo, "config status.showUntrackedFiles no");
    repo.write("config/clusters/lake/images/user/new", "");
    let built = repo.ok("image build lake");
    assert_eq!(
        built.stdout,
        format!("127.0.0.1:1/user:{tag}-dirty built\n")
    );
    let said = repo.fails("image build lake --push");
    assert!(
        said.starts_with(
            "error: `config/clusters/lake/images/user` has changes that no commit has"
        ),
        "{said}"
    );
    assert!(
        said.contains("\nhint: `git status` shows them; commit them, or build without `--push`"),
        "{said}"
    );
}

#[test]
fn a_shallow_clone_is_refused_where_it_cannot_know_the_tag() {
    let origin = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    commit(&origin, "two");
    commit(&origin, "three");
    let clone = repo(&[]);
    for (depth, is_enough) in [(1, false), (3, false), (4, true)] {
        fs::remove_dir_all(&clone.root).unwrap();
        if is_enough {
            folder(&origin, "user", "FROM scratch\nCOPY hello /again\n");
            commit(&origin, "four");
        }
        let args = format!(
            "clone --quiet --depth {depth} file://{} {}",
            origin.root.display(),
            clone.root.display()
        );
        git_in(&origin.root, &args);
        let ran = clone.run("image build lake");
        if is_enough {
            let tag = tag(&origin);
            assert_eq!(
                ran.stdout,
                format!("127.0.0.1:1/user:{tag} built\n"),
                "{}",
                ran.stderr
            );
        } else {
            assert_eq!(ran.code, Some(1));
            assert!(
                ran.stderr
                    .contains("this clone is shallow: it does not have the last commit"),
                "{}",
                ran.stderr
            );
            assert!(
                ran.stderr
                    .contains("hint: `git fetch --unshallow`, or in a workflow `fetch-depth: 0`")
            );
        }
    }
}

#[test]
fn a_tag_that_yaml_would_read_as_a_number_is_longer() {
    let repo = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    let is_number = |hash: &str| {
        let short = &hash[..7];
        let (digits, exponent) = short.split_once('e').unwrap_or((short, "0"));
        let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
        is_digits(digits) && is_digits(exponent)
    };
    let mut count = 0;
    let hash = loop {
        git(&repo, &format!("commit --quiet --amend --message {count}"));
        let hash = git(&repo, "rev-parse HEAD");
        if is_number(&hash) {
            break hash;
        }
        count += 1;
    };
    let built = repo.ok("image build lake");
    let tag = built.stdout.split([':', ' ']).nth(2).unwrap();
    assert!(tag.len() > 7 && hash.starts_with(tag), "{tag} of {hash}");
    let read: Value = serde_yaml::from_str(tag).unwrap();
    assert!(read.is_string(), "{tag}");
}

#[test]
fn a_link_to_a_folder_is_built_as_that_folder() {
    let images =
        "[{name: 127.0.0.1:1/user, path: images/link}, {name: 127.0.0.1:1/all, path: ../../..}]";
    let repo = repo(&[("prod", images)]);
    repo.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    commit(&repo, "all");
    let user = tag_of(&git(&repo, "rev-parse HEAD~1"));
    let link = repo.root.join("config/clusters/lake/images/link");
    std::os::unix::fs::symlink("user", link).unwrap();
    commit(&repo, "link");
    let all = tag(&repo);
    let built = repo.ok("image build lake");
    assert_eq!(
        built.stdout,
        format!("127.0.0.1:1/user:{user} built\n127.0.0.1:1/all:{all} built\n")
    );
    repo.write("config/clusters/lake/images/user/hello", "again");
    let built = repo.ok("image build lake --image 127.0.0.1:1/user");
    assert_eq!(
        built.stdout,
        format!("127.0.0.1:1/user:{user}-dirty built\n")
    );
}

#[test]
fn what_has_no_tag_is_told_at_once() {
    let images = "[{name: 127.0.0.1:1/a, path: images/none}, {name: 127.0.0.1:1/b, path: images/user/hello}, \
         {name: 127.0.0.1:1/c, path: images/new}, {name: 127.0.0.1:1/d, path: images/user}]";
    let repo = repo(&[
        ("staging", images),
        (
            "prod",
            "[{name: 127.0.0.1:1/d, path: images/user, build: repo2docker}]",
        ),
    ]);
    folder(&repo, "new", "FROM scratch");
    let said = repo.fails("image build lake");
    for part in [
        "lake/staging: `127.0.0.1:1/a`: `config/clusters/lake/images/none` doesn't exist",
        "lake/staging: `127.0.0.1:1/b`: `config/clusters/lake/images/user/hello` is a file",
        "lake/staging: `127.0.0.1:1/c`: no commit has `config/clusters/lake/images/new`",
        "`127.0.0.1:1/d` is built in two ways: for `staging` from `config/clusters/lake/images/user` by docker, and for \
         `prod` from `config/clusters/lake/images/user` by repo2docker",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn commits_that_do_not_touch_the_folder_build_nothing() {
    let mut repo = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    let one = git(&repo, "rev-parse HEAD");
    repo.write("README", "");
    commit(&repo, "two");
    let two = git(&repo, "rev-parse HEAD");
    folder(&repo, "user", "FROM scratch\nCOPY hello /again\n");
    commit(&repo, "three");

    let folder = "config/clusters/lake/images/user";
    let why = |ran: Ran| {
        ran.stderr
            .lines()
            .find(|it| it.contains("built: "))
            .unwrap()
            .to_owned()
    };
    let range = format!("{one}..{two}");
    let said = why(repo.ok(&format!("image build lake --commit-range {range}")));
    assert!(
        said.ends_with(&format!(
            "is not built: `{range}` does not change `{folder}`"
        )),
        "{said}"
    );
    let range = format!("{one}...HEAD");
    let said = why(repo.ok(&format!("image build lake --commit-range {range}")));
    assert!(
        said.ends_with(&format!("is built: `{range}` changes `{folder}`")),
        "{said}"
    );

    let said = repo.fails("image build lake --commit-range");
    assert!(
        said.contains("outside of a workflow `--commit-range` needs a range"),
        "{said}"
    );
    let said = repo.fails("image build lake --commit-range lake");
    assert!(said.contains("`lake` is no range of commits"), "{said}");
    let said = repo.fails("image build lake --commit-range nothing..HEAD");
    assert!(
        said.contains("this clone does not have all commits of `nothing..HEAD`"),
        "{said}"
    );

    // By what GitHub and GitLab tell of the run.
    let event = repo.cache().join("event.json");
    let zeros = "0".repeat(40);
    let github = vec![("GITHUB_EVENT_PATH", event.display().to_string())];
    let gitlab = |name: &'static str, value: &str| {
        vec![("GITLAB_CI", "true".to_owned()), (name, value.to_owned())]
    };
    let runs = [
        (
            github.clone(),
            json!({"before": two}),
            format!("is built: `{two}..HEAD` changes `{folder}`"),
        ),
        (
            github.clone(),
            json!({"pull_request": {"base": {"sha": "HEAD"}}}),
            format!("is not built: `HEAD...HEAD` does not change `{folder}`"),
        ),
        (
            github.clone(),
            json!({"before": zeros}),
            "is built: the branch is new".to_owned(),
        ),
        (
            github,
            json!({"schedule": "0 0 * * *"}),
            "is built: no push and no pull request started this run".to_owned(),
        ),
        (
            gitlab("CI_MERGE_REQUEST_DIFF_BASE_SHA", &one),
            json!({}),
            format!("is built: `{one}...HEAD` changes `{folder}`"),
        ),
        (
            gitlab("CI_COMMIT_BEFORE_SHA", "HEAD"),
            json!({}),
            format!("is not built: `HEAD..HEAD` does not change `{folder}`"),
        ),
        (
            gitlab("CI_COMMIT_BEFORE_SHA", &zeros),
            json!({}),
            "is built: the branch is new".to_owned(),
        ),
    ];
    for (env, content, expected) in runs {
        fs::write(&event, content.to_string()).unwrap();
        let count = repo.env.len();
        let env = env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        repo.env.extend(env);
        let said = why(repo.ok("image build lake --commit-range"));
        assert!(said.ends_with(&expected), "{said}\n{expected}");
        repo.env.truncate(count);
    }
}

#[test]
fn a_login_from_an_encrypted_config_json_is_nowhere_else() {
    let data = Repo::new();
    let password = format!("pa:ss-wörd-{}", std::process::id());
    let (_registry, address) = registry_with(&password, &data.cache());
    let name = format!("{address}/lake/user");
    let image = format!("[{{name: '{name}', path: images/user}}]");
    let mut repo = repo(&[("prod", &image)]);
    let sops = Key::new();
    repo.has_key(&sops);
    let start = SystemTime::now();
    let encoded = BASE64_STANDARD.encode(format!("pusher:{password}"));
    let config = json!({"auths": {(address.clone()): {"auth": encoded}}});
    repo.write(
        "config/clusters/lake/login.secret.json",
        &config.to_string(),
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "hubs:\n",
        "registry: {provider: dockerconfig, filename: login.secret.json}\nhubs:\n",
    );
    let said = repo.fails("image build lake --push");
    assert!(
        said.contains("`config/clusters/lake/login.secret.json` holds what logs in to a registry of images, and is not encrypted"),
        "{said}"
    );
    repo.encrypt("config/clusters/lake/login.secret.json", &sops);
    let before = files(&repo.home());

    let pushed = repo.ok("image build lake --push --check-registry --verbose");
    assert!(
        pushed.stdout.contains(" pushed, sha256:"),
        "{}",
        pushed.stderr
    );
    assert!(
        pushed.stderr.contains("$ buildah push "),
        "{}",
        pushed.stderr
    );
    let again = repo.ok("image build lake --check-registry");
    assert!(
        again.stderr.contains("is not built: its registry has it"),
        "{}",
        again.stderr
    );
    for it in [&password, &encoded] {
        assert!(!(pushed.stdout.clone() + &pushed.stderr).contains(it));
        assert_eq!((in_arguments(it), logins_with(it)), (vec![], 0));
    }
    assert_eq!(on_disk(&encoded, start), Vec::<PathBuf>::new());
    assert_eq!(files(&repo.home()), before);
}

#[test]
fn what_an_engine_writes_of_a_password_is_hidden() {
    let mut repo = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    let password = "correct-horse-battery";
    let encoded = BASE64_STANDARD.encode(format!("me:{password}"));
    fs::create_dir_all(repo.home().join(".docker")).unwrap();
    let config = json!({"auths": {"127.0.0.1:1": {"auth": encoded}}});
    fs::write(repo.home().join(".docker/config.json"), config.to_string()).unwrap();
    repo.script(
        "buildah",
        "case $1 in --version) echo buildah version 1.2.3 ;; build) [ $2 = --help ] || { cat $REGISTRY_AUTH_FILE; echo correct-horse-battery >&2; exit 1; } ;; esac",
    );
    let said = repo.fails("image build lake");
    assert!(said.contains("user: ") && said.contains("***"), "{said}");
    assert!(
        !said.contains(password) && !said.contains(&encoded),
        "{said}"
    );
}

/// The logins that an engine gets, without the person's own.
fn logins_given(repo: &mut Repo, registry: &str) -> Value {
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "hubs:\n",
        &format!("registry: {registry}\nhubs:\n"),
    );
    let given = repo.cache().join("given.json");
    repo.script(
        "buildah",
        &format!(
            "case $1 in --version) echo buildah version 1.2.3 ;; build) [ $2 = --help ] || cp $REGISTRY_AUTH_FILE {} ;; \
             push) echo sha256:1 > $3 ;; esac",
            given.display()
        ),
    );
    repo.ok("image build lake --push");
    serde_json::from_slice(&fs::read(given).unwrap()).unwrap()
}

fn auth(user: &str, password: &str) -> Value {
    json!({"auth": BASE64_STANDARD.encode(format!("{user}:{password}"))})
}

#[test]
fn amazons_password_comes_with_the_clusters_key() {
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let mut repo = repo(&[(
        "prod",
        &format!("[{{name: {host}/user, path: images/user}}]"),
    )]);
    let address = free_address();
    let _amazon = amazon(&address, "https://127.0.0.1:1", "", true);
    repo.script("aws", &aws());
    repo.env
        .push(("AWS_ENDPOINT_URL".into(), format!("http://{address}")));
    repo.env.push(("AWS_PROFILE".into(), "another".into()));
    let sops = Key::new();
    repo.has_key(&sops);
    let key = json!({"AccessKey": {"AccessKeyId": "AKIAPOND", "SecretAccessKey": "a-secret-of-the-pond"}});
    repo.write("config/clusters/lake/key.secret.json", &key.to_string());
    repo.encrypt("config/clusters/lake/key.secret.json", &sops);
    let before = files(&repo.home());
    let given = logins_given(&mut repo, "{provider: aws, key: key.secret.json}");
    let password = given["auths"][host]["auth"].as_str().unwrap();
    let password = String::from_utf8(BASE64_STANDARD.decode(password).unwrap()).unwrap();
    assert!(
        password.starts_with("AWS:") && password.len() > 10,
        "{password}"
    );
    assert_eq!(files(&repo.home()), before);

    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &format!("{host}/user"),
        "quay.io/lake/user",
    );
    let said = repo.fails("image build lake --push");
    assert!(
        said.contains("cannot log in to `quay.io`: `quay.io` is no registry of Amazon's"),
        "{said}"
    );
}

#[test]
fn keys_of_google_and_azure_are_passwords_beside_the_persons_own() {
    let mut repo = repo(&[("prod", "[{name: eu.gcr.io/lake/user, path: images/user}]")]);
    let sops = Key::new();
    repo.has_key(&sops);
    let google = json!({"client_email": "deployer@lake-1.iam.gserviceaccount.com", "private_key": "a long private key",
        "private_key_id": "0123456789abcdef"});
    repo.write(
        "config/clusters/lake/google.secret.json",
        &google.to_string(),
    );
    repo.encrypt("config/clusters/lake/google.secret.json", &sops);
    let azure = json!({"service_principal_id": "lake", "service_principal_password": "a-password-of-azure",
        "tenant_id": "here", "subscription_id": "there"});
    repo.write("config/clusters/lake/azure.secret.json", &azure.to_string());
    repo.encrypt("config/clusters/lake/azure.secret.json", &sops);
    fs::create_dir_all(repo.home().join(".docker")).unwrap();
    let own = json!({"auths": {"quay.io": {"auth": "bWU6cGFzcw=="}, "ghcr.io": {}, "eu.gcr.io": {"auth": "bWU6b2xk"}},
        "credsStore": "pond", "currentContext": "default"});
    fs::write(repo.home().join(".docker/config.json"), own.to_string()).unwrap();

    let given = logins_given(&mut repo, "{provider: gcloud, key: google.secret.json}");
    let expected = json!({
        "auths": {"quay.io": {"auth": "bWU6cGFzcw=="}, "ghcr.io": {}, "eu.gcr.io": auth("_json_key", &google.to_string())},
        "credHelpers": {"ghcr.io": "pond"}, "currentContext": "default"});
    assert_eq!(given, expected);

    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "registry: {provider: gcloud, key: google.secret.json}\n",
        "",
    );
    let given = logins_given(&mut repo, "{provider: azure, key: azure.secret.json}");
    assert_eq!(
        given["auths"]["eu.gcr.io"],
        auth("lake", "a-password-of-azure")
    );
}

#[test]
fn without_an_engine_all_that_was_tried_is_named() {
    let mut repo = repo(&[("prod", "[{name: 127.0.0.1:1/user, path: images/user}]")]);
    repo.script("buildah", "echo 'no buildah here' >&2; exit 1");
    let said = repo.fails("image build lake");
    assert_eq!(
        said,
        "error: nothing works here that builds images:\n  docker: no daemon here\n  podman: no podman here\n  \
         buildah: no buildah here\n\nhint: start docker, or install podman or buildah\n"
    );
}

#[test]
fn repo2docker_names_what_it_lacks() {
    let image =
        "[{name: 127.0.0.1:1/user, path: images/user, build: repo2docker, base_image: pond:1}]";
    let mut repo = repo(&[("prod", image)]);
    let said = repo.fails("image build lake");
    assert!(
        said.contains("`repo2docker` is not on PATH\nhint: `pip install jupyter-repo2docker`"),
        "{said}"
    );
    let args = repo.cache().join("args");
    repo.script(
        "jupyter-repo2docker",
        &format!("echo $DOCKER_HOST \"$@\" > {}", args.display()),
    );
    let said = repo.fails("image build lake");
    assert!(
        said.contains("repo2docker needs docker with its plugin buildx, or podman"),
        "{said}"
    );
    repo.script(
        "docker",
        "case $1 in version) echo 28.2.2 ;; *) exit 1 ;; esac",
    );
    let said = repo.fails("image build lake");
    assert!(
        said.contains("repo2docker needs docker's plugin buildx, which is missing"),
        "{said}"
    );
    repo.script("docker", "echo 28.2.2");
    repo.ok("image build lake");
    let expected = format!(
        " --no-run --user-id 1000 --user-name jovyan --target-repo-dir /srv/repo --image-name 127.0.0.1:1/user:{} \
         --Repo2Docker.platform=linux/amd64 --Repo2Docker.base_image=pond:1 {}/config/clusters/lake/images/user",
        tag(&repo),
        repo.root.display()
    );
    assert_eq!(fs::read_to_string(&args).unwrap().trim(), expected.trim());
    repo.script("docker", "exit 1");
    repo.script("podman", "echo 5.0.0");
    repo.ok("image build lake");
    let given = fs::read_to_string(&args).unwrap();
    assert!(
        given.starts_with("unix:///run/podman/podman.sock --no-run"),
        "{given}"
    );
}

#[test]
fn a_registry_that_takes_only_half_of_an_image_stops_no_other() {
    let data = Repo::new();
    let good = Registry::open(Program::Debian, &data.cache());
    let asked = Arc::new(AtomicUsize::new(0));
    let uploads = asked.clone();
    // It begins to take a layer, and then has enough.
    let bad = Server::asked(move |request| match request.method.as_str() {
        "GET" if request.path == "v2/" => Answer::Json(200, json!({})),
        "POST" => {
            uploads.fetch_add(1, Ordering::SeqCst);
            Answer::Json(
                507,
                json!({"errors": [{"code": "DENIED", "message": "the disk is full"}]}),
            )
        }
        _ => Answer::Status(404),
    });
    let bad = bad.address.strip_prefix("http://").unwrap();
    let images = format!(
        "[{{name: '{bad}/lake/user', path: images/user}}, {{name: '{}/lake/user', path: images/user}}]",
        good.address
    );
    let repo = repo(&[("staging", "[]"), ("prod", &images)]);
    let tag = tag(&repo);
    let ran = repo.run("image build lake --push");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.starts_with(&format!(
            "{bad}/lake/user:{tag} failed\n{}/lake/user:{tag} pushed, sha256:",
            good.address
        )),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert!(
        ran.stderr.contains("user: failed: the push failed: ") && ran.stderr.contains("507"),
        "{}",
        ran.stderr
    );
    let last = ran.stderr.lines().last().unwrap();
    assert_eq!(
        last,
        format!("error: `{bad}/lake/user:{tag}` failed; used by `lake/prod`")
    );
    assert!(asked.load(Ordering::SeqCst) > 0);
}

#[test]
fn whatever_ends_us_leaves_neither_a_login_nor_an_engine() {
    let silent = Server::asked(|_| Answer::Silence);
    let address = silent.address.strip_prefix("http://").unwrap();
    let name = format!("{address}/lake/user");
    let repo = repo(&[("prod", &format!("[{{name: '{name}', path: images/user}}]"))]);
    let marker = BASE64_STANDARD.encode(format!("me:{address}"));
    fs::create_dir_all(repo.home().join(".docker")).unwrap();
    let config = json!({"auths": {(address): {"auth": marker}}});
    fs::write(repo.home().join(".docker/config.json"), config.to_string()).unwrap();
    let pushing = || {
        in_arguments(&name)
            .iter()
            .any(|it| it.starts_with("buildah\0push"))
    };

    let mut child = repo.start("image build lake --push");
    wait_until("the push", pushing);
    assert_eq!(logins_with(&marker), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of buildah", || in_arguments(&name).is_empty());
    wait_until("the end of the login", || logins_with(&marker) == 0);

    let child = repo.start("image build lake --push");
    wait_until("the push", pushing);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("error: stopped\n"), "{}", ran.stderr);
    assert_eq!((in_arguments(&name), logins_with(&marker)), (vec![], 0));
}
