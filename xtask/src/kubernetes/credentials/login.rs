//! What a login sets and holds.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::OpenOptionsExt;
use serde_yaml::Value;
use xshell::{Cmd, Shell};

use crate::{
    machine::{paths, private::PrivateFolder, process, programs, shell::Env},
    repository::cluster::Nodes,
    secrets::{self, InMemory, Mask},
};

/// A login to one cluster, as long as this lives. Our own environment knows nothing of it.
pub(crate) struct Login {
    /// Its helm and kubectl talk to the cluster.
    pub(crate) sh: Shell,
    /// What is set in it.
    pub(crate) env: Env,
    /// The key, or what else must not show and is read again while the login is used.
    pub(crate) keys: Vec<InMemory>,
    /// What the pods run on, if it's a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
    pub(crate) folder: PrivateFolder,
}

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
        // kubectl's preferences and helm's settings of the person's own shell would point elsewhere.
        login.set("KUBERC", "off");
        for setting in [
            "KUBEAPISERVER",
            "KUBEASGROUPS",
            "KUBEASUSER",
            "KUBECONTEXT",
            "KUBETOKEN",
            "NAMESPACE",
        ] {
            login.set(&format!("HELM_{setting}"), "");
        }
        Ok(login)
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        let value = value.into();
        self.sh.set_var(name, &value);
        self.env.insert(name.to_owned(), value);
    }

    /// Takes variables of the person's own environment away, by their names.
    pub(crate) fn take_away(&mut self, is_meant: impl Fn(&str) -> bool) {
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        names
            .filter(|it| is_meant(it))
            .for_each(|it| self.set(&it, ""));
    }

    /// Where programs can write a kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path.join("kubeconfig")
    }

    /// Keeps helm and kubectl away from the person's own folders, for a login with a key.
    pub(crate) fn keep_to_itself(&mut self) {
        for (name, folder) in [
            ("KUBECACHEDIR", "kube"),
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ] {
            self.set(name, self.folder.path.join(folder));
        }
    }

    /// Uses a kubeconfig that lay in `dir`, from memory.
    pub(crate) fn hold_kubeconfig(&mut self, kubeconfig: InMemory, dir: &Path) -> Result<()> {
        let kubeconfig = with_whole_paths(kubeconfig, dir)?;
        self.set("KUBECONFIG", kubeconfig.file.path());
        self.keys.push(kubeconfig);
        Ok(())
    }

    /// Lets kubectl write its kubeconfig, as long as this lives.
    pub(crate) fn make_writable(&mut self) -> Result<()> {
        let (from, to) = (&self.env["KUBECONFIG"], self.kubeconfig());
        if *from != to {
            let content = fs::read(from).context("cannot read the kubeconfig")?;
            let file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&to);
            file.and_then(|mut it| it.write_all(&content))
                .with_context(|| format!("cannot write `{}`", to.display()))?;
            self.set("KUBECONFIG", to);
        }
        Ok(())
    }

    /// Hides what of the login must not show.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new(&self.keys)
    }

    /// Runs a provider's own program, which must succeed; `hint` is what to do if it doesn't.
    pub(crate) fn step(&self, cmd: Cmd, hint: &str) -> Result<()> {
        let read = process::read(&self.sh, cmd);
        read.map_err(|err| anyhow!("{}\nhint: {hint}", self.mask().hide(&format!("{err:#}"))))?;
        Ok(())
    }
}

/// Refuses to go on without programs that a provider's login needs.
pub(crate) fn refuse_without(sh: &Shell, programs: &[&str], hint: &str) -> Result<()> {
    let missing = programs
        .iter()
        .filter(|it| programs::which(sh, it).is_none());
    let missing: Vec<_> = missing.map(|it| format!("`{it}`")).collect();
    if !missing.is_empty() {
        bail!("PATH has no {}\nhint: {hint}", missing.join(" and no "));
    }
    Ok(())
}

/// A key file in JSON, with the texts in it at `paths`; those whose path begins with `*` are secret, and nothing else is:
/// who is refused is for everybody to see.
pub(crate) fn read_key<const N: usize>(
    sh: &Shell,
    root: &Path,
    file: &Path,
    paths: [&str; N],
) -> Result<(InMemory, [String; N])> {
    let key = secrets::open(sh, root, file)?;
    let text = key.text()?;
    let shown = file.display();
    // An error's own text may quote what stands there.
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| anyhow!("`{shown}` isn't a key: it isn't JSON"))?;
    let at = |path: &str| {
        json.pointer(path.trim_start_matches('*'))
            .and_then(serde_json::Value::as_str)
    };
    let name = |path: &str| path.trim_start_matches('*')[1..].replace('/', ".");
    let missing: Vec<_> = paths
        .iter()
        .filter(|it| at(it).is_none())
        .map(|it| format!("`{}`", name(it)))
        .collect();
    if !missing.is_empty() {
        bail!(
            "`{shown}` isn't a key of this provider: it has no text {}",
            missing.join(", ")
        );
    }
    let secret = paths
        .iter()
        .filter(|it| it.starts_with('*'))
        .filter_map(|it| at(it));
    let key = key.hiding(secret.map(str::to_owned).collect());
    Ok((key, paths.map(|it| at(it).unwrap_or_default().to_owned())))
}

/// A kubeconfig whose files and programs are found from wherever it is read. They are relative to where it lay
/// (<https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/>).
pub(crate) fn with_whole_paths(kubeconfig: InMemory, dir: &Path) -> Result<InMemory> {
    fn whole(value: Option<&mut Value>, is_file: impl Fn(&str) -> bool, dir: &Path) {
        if let Some(Value::String(text)) = value
            && is_file(text)
        {
            *text = dir.join(&*text).display().to_string();
        }
    }
    let text = kubeconfig.text()?;
    let Ok(mut yaml) = serde_yaml::from_str::<Value>(&text) else {
        // kubectl says what is wrong with it.
        return Ok(kubeconfig);
    };
    for (list, inner, keys) in [
        ("clusters", "cluster", &["certificate-authority"][..]),
        (
            "users",
            "user",
            &["client-certificate", "client-key", "tokenFile"],
        ),
    ] {
        for entry in yaml
            .get_mut(list)
            .and_then(Value::as_sequence_mut)
            .into_iter()
            .flatten()
        {
            let Some(entry) = entry.get_mut(inner) else {
                continue;
            };
            keys.iter()
                .for_each(|key| whole(entry.get_mut(key), |it| !it.is_empty(), dir));
            let command = entry.get_mut("exec").and_then(|it| it.get_mut("command"));
            whole(command, |it| it.contains('/'), dir);
        }
    }
    kubeconfig.with_text(&serde_yaml::to_string(&yaml)?)
}
