//! A login to a cluster: the environment that it sets, and the secrets that it holds.

use std::{
    env,
    ffi::OsString,
    fmt::{self, Display},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OpenOptionsExt;
use serde_json::Value;
use xshell::{Cmd, Shell};

use crate::{
    kubernetes::objects::named,
    machine::{paths, private::PrivateFolder, process, programs, shell::Env, tree::Tree},
    repository::cluster::Nodes,
    secrets::{self, Decrypter, InMemory, Mask},
    yaml,
};

/// A login to one cluster, as long as this lives. Our own environment knows nothing of it.
pub(crate) struct Login {
    /// Runs helm and kubectl on the cluster.
    pub(crate) sh: Shell,
    /// The variables that are set in `sh`, for a shell of the person's own.
    pub(crate) env: Env,
    /// Secrets that programs read again while the login is used, and that must not show: the key, the kubeconfig.
    pub(crate) keys: Vec<InMemory>,
    /// What the pods run on, if it is a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
    pub(crate) folder: PrivateFolder,
}

/// Where a login leads, as `https://10.0.0.1 (context admin)`.
pub(crate) struct Place {
    /// The address of the API server.
    server: String,
    /// The kubeconfig's name for the login.
    context: String,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (context {})", self.server, self.context)
    }
}

/// Settings that would lead helm to another cluster or namespace in a shell of the person's own. helm's
/// pkg/cli/environment.go has all of them.
const HELM_SETTINGS: [&str; 9] = [
    "HELM_KUBEAPISERVER",
    "HELM_KUBEASGROUPS",
    "HELM_KUBEASUSER",
    "HELM_KUBECAFILE",
    "HELM_KUBECONTEXT",
    "HELM_KUBEINSECURE_SKIP_TLS_VERIFY",
    "HELM_KUBETLS_SERVER_NAME",
    "HELM_KUBETOKEN",
    "HELM_NAMESPACE",
];

impl Login {
    pub(crate) fn new(sh: &Shell) -> Result<Login> {
        let folder = PrivateFolder::new(sh)?;
        let mut login = Login {
            sh: sh.clone(),
            env: Env::new(),
            keys: Vec::new(),
            rehearsal: None,
            folder,
        };
        login.set("KUBECONFIG", login.kubeconfig());
        login.set("KUBECACHEDIR", paths::cache()?.join("kube"));
        // The preferences of the person's own kubectl.
        login.set("KUBERC", "off");
        for setting in HELM_SETTINGS {
            login.set(setting, "");
        }
        Ok(login)
    }

    /// Sets a variable; an empty one is not passed on to programs.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        let value = value.into();
        self.sh.set_var(name, &value);
        self.env.insert(name.to_owned(), value);
    }

    /// Keeps variables of the person's own environment from programs, by their names.
    pub(crate) fn unset(&mut self, is_unwanted: impl Fn(&str) -> bool) {
        for (name, _) in env::vars_os() {
            if let Ok(name) = name.into_string()
                && is_unwanted(&name)
            {
                self.set(&name, "");
            }
        }
    }

    /// Where programs can write a kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path.join("kubeconfig")
    }

    /// Keeps helm and kubectl away from the person's own folders, for a login with a key.
    pub(crate) fn isolate(&mut self) {
        for (name, folder) in [
            ("KUBECACHEDIR", "kube"),
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ] {
            self.set(name, self.folder.path.join(folder));
        }
    }

    /// Uses a kubeconfig from memory, whose relative paths start at `dir`.
    pub(crate) fn hold_kubeconfig(&mut self, kubeconfig: InMemory, dir: &Path) -> Result<()> {
        let kubeconfig = with_absolute_paths(kubeconfig, dir)?;
        self.set("KUBECONFIG", kubeconfig.file.path());
        self.keys.push(kubeconfig);
        Ok(())
    }

    /// Copies the kubeconfig to where kubectl can write it (`kubectl config set-context`), as long as this lives.
    pub(crate) fn make_writable(&mut self) -> Result<()> {
        let from = &self.env["KUBECONFIG"];
        let to = self.kubeconfig();
        if *from == to {
            return Ok(());
        }
        let content = fs::read(from).context("cannot read the kubeconfig")?;
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&to)
            .and_then(|mut it| it.write_all(&content))
            .with_context(|| format!("cannot write `{}`", to.display()))?;
        self.set("KUBECONFIG", to);
        Ok(())
    }

    /// Where the kubeconfig leads. An error if it says nothing of that: kubectl would ask this machine then.
    pub(crate) fn place(&self) -> Result<Place> {
        let content = fs::read(&self.env["KUBECONFIG"]).context("cannot read the kubeconfig")?;
        let kubeconfig: Value = yaml::parse(&content).context("the kubeconfig is not YAML")?;
        let context = kubeconfig["current-context"].as_str().unwrap_or_default();
        ensure!(
            !context.is_empty(),
            "the kubeconfig has no `current-context`\nhint: name the context in it that leads to the cluster"
        );
        let name = &named(&kubeconfig["contexts"], "name", context)["context"]["cluster"];
        let cluster = named(
            &kubeconfig["clusters"],
            "name",
            name.as_str().unwrap_or_default(),
        );
        let server = cluster["cluster"]["server"].as_str();
        let server = server.with_context(|| {
            format!("the kubeconfig's current context `{context}` leads to no cluster in it")
        })?;
        Ok(Place {
            server: server.to_owned(),
            context: context.to_owned(),
        })
    }

    /// A mask of what must not show of the login.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new(&self.keys)
    }

    /// Runs a provider's own program, which must succeed; `hint` is what to do if it does not.
    pub(crate) fn run_provider(&self, cmd: Cmd, hint: &str) -> Result<()> {
        match process::read(&self.sh, cmd) {
            Ok(_) => Ok(()),
            Err(err) => bail!("{}\nhint: {hint}", self.mask().hide(&format!("{err:#}"))),
        }
    }
}

/// Requires the programs that a provider's login needs; `hint` says how to get them.
pub(crate) fn require_on_path(sh: &Shell, programs: &[&str], hint: &str) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| programs::which(sh, name).is_none())
        .map(|name| format!("`{name}`"))
        .collect();
    if !missing.is_empty() {
        bail!("PATH has no {}\nhint: {hint}", missing.join(" and no "));
    }
    Ok(())
}

/// Reads a key file, and texts in it. A key may be written in several forms, each of which has the texts at its own paths:
/// JSON pointers. Those that begin with `*` are secret, and nothing else of the file is: a message may say whose key was
/// refused. Programs get the key as JSON.
pub(crate) fn read_key<const N: usize>(
    decrypter: &Decrypter,
    tree: &Tree,
    file: &Path,
    forms: &[[&str; N]],
) -> Result<(InMemory, [String; N])> {
    let key = secrets::open(decrypter, tree, file)?;
    let text = key.text()?;
    let json: Value = serde_json::from_str(&text)
        .or_else(|_| yaml::parse(text.as_bytes()))
        .unwrap_or_default();
    let shown = file.display();
    // An error's own text may quote the file.
    ensure!(json.is_object(), "`{shown}` is not a key: it is not JSON");
    let found = forms.iter().find(|it| missing_texts(&json, *it).is_empty());
    let Some(paths) = found else {
        bail!(
            "`{shown}` is not a key of this provider: it has no text {}",
            missing_texts(&json, &forms[0]).join(", ")
        );
    };
    let texts = paths.map(|path| text_at(&json, path).unwrap_or_default().to_owned());
    let secrets = paths.iter().zip(&texts);
    let secrets = secrets.filter(|(path, _)| path.starts_with('*'));
    let secrets = secrets.map(|(_, text)| text.clone()).collect();
    let key = key.hiding(secrets).with_text(&json.to_string())?;
    Ok((key, texts))
}

/// The paths at which there is no text, as messages show them: `AccessKey.AccessKeyId`.
fn missing_texts(json: &Value, paths: &[&str]) -> Vec<String> {
    paths
        .iter()
        .filter(|path| text_at(json, path).is_none())
        .map(|path| format!("`{}`", pointer(path)[1..].replace('/', ".")))
        .collect()
}

fn text_at<'a>(json: &'a Value, path: &str) -> Option<&'a str> {
    json.pointer(pointer(path))?.as_str()
}

fn pointer(path: &str) -> &str {
    path.trim_start_matches('*')
}

/// Makes the paths of a kubeconfig absolute, so that its files and programs are found from everywhere. They are relative
/// to its own folder (<https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/>).
fn with_absolute_paths(kubeconfig: InMemory, dir: &Path) -> Result<InMemory> {
    let text = kubeconfig.text()?;
    let Ok(mut yaml) = yaml::parse::<Value>(text.as_bytes()) else {
        // kubectl says what is wrong with it.
        return Ok(kubeconfig);
    };
    for cluster in entries(&mut yaml, "clusters", "cluster") {
        make_absolute(cluster.get_mut("certificate-authority"), dir);
    }
    for user in entries(&mut yaml, "users", "user") {
        for key in ["client-certificate", "client-key", "tokenFile"] {
            make_absolute(user.get_mut(key), dir);
        }
        let command = user.get_mut("exec").and_then(|it| it.get_mut("command"));
        // A name without a slash is looked up on PATH.
        make_absolute(command.filter(|it| has_slash(it)), dir);
    }
    kubeconfig.with_text(&serde_yaml::to_string(&yaml)?)
}

/// What each entry of a list of the kubeconfig has under `key`.
fn entries<'a>(
    kubeconfig: &'a mut Value,
    list: &str,
    key: &'a str,
) -> impl Iterator<Item = &'a mut Value> {
    kubeconfig
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(move |entry| entry.get_mut(key))
}

fn make_absolute(path: Option<&mut Value>, dir: &Path) {
    if let Some(Value::String(path)) = path
        && !path.is_empty()
    {
        *path = dir.join(&*path).display().to_string();
    }
}

fn has_slash(command: &Value) -> bool {
    command.as_str().is_some_and(|it| it.contains('/'))
}
