//! Single values of encrypted files, changed and shown.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::Shell;

use crate::{
    kubernetes::credentials,
    machine::{
        paths::{self, Replacement, is_called_secret},
        process,
        programs::{self, Tools},
        terminal::{self, list},
        tree::Tree,
    },
    repository::{
        cluster::Cluster, edited, fleet::Fleet, problem::What, readers::Readers,
        release_config::ReleaseConfig, values_file::ValuesFile,
    },
    secrets::{self, Content, Decrypter, Secret, decrypt_any, edit, git_crypt, read},
    yaml::{Data, KeyPath, Node, unquoted},
};

mod find;

/// Read, change or look for one value of encrypted files
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what each one holds")]
pub enum Secrets {
    Set(Set),
    Get(Get),
    Find(find::Find),
}

/// Change one value of the encrypted file that has it
///
/// The value is read from stdin, or asked for without showing it. sops encrypts it for the file's own recipients, and all
/// else of the file stays as it is, byte for byte, but for the date and the MAC in its `sops` block.
#[derive(clap::Args)]
#[command(
    override_usage = "cargo xtask secrets set [OPTIONS] CLUSTER HUB KEY\n       \
                      cargo xtask secrets set [OPTIONS] CLUSTER/HUB… KEY",
    after_help = "\
Examples:\n\
\x20 openssl rand -hex 32 | cargo xtask secrets set lake prod jupyterhub.hub.config.JupyterHub.token\n\
\x20 cargo xtask secrets set lake/staging lake/prod jupyterhub.proxy.secretToken\n\
\x20 cargo xtask secrets set lake support grafana.adminPassword\n\n\
KEY is written as for helm's `--set`. A line break at the end of stdin is no part of the value."
)]
pub struct Set {
    #[command(flatten)]
    chosen: Chosen,
}

/// Print one value of an encrypted file
///
/// It is decrypted in memory and printed to stdout as it is.
#[derive(clap::Args)]
#[command(override_usage = "cargo xtask secrets get [OPTIONS] CLUSTER HUB KEY")]
pub struct Get {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(clap::Args)]
struct Chosen {
    /// Cluster and hub, or `support`, and then KEY
    #[arg(value_names = ["CLUSTER", "HUB", "KEY"], num_args = 1.., required = true)]
    releases: Vec<String>,
    /// The value in this file, whoever lists it: a path from the root
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Where a value is: in one or several files.
struct Found {
    /// Each with the releases that read it, and that were not named.
    files: BTreeMap<PathBuf, Vec<String>>,
    key: KeyPath,
}

/// Runs a command about secrets.
pub fn secrets(sh: &Shell, tree: &Tree, command: &Secrets) -> Result<ExitCode> {
    let tools = programs::provide(sh, &["sops"], false)?;
    match command {
        Secrets::Set(args) => set(&tools, tree, &args.chosen)?,
        Secrets::Get(args) => get(&tools, tree, &args.chosen)?,
        Secrets::Find(_) => {
            let value = value("Value to look for:")?;
            find::find(&tools, tree, value.exposed(), decrypter)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set(tools: &Tools, tree: &Tree, chosen: &Chosen) -> Result<()> {
    process::end_in_order();
    let found = Found::of(tools, tree, chosen)?;
    if chosen.file.is_none() {
        found.refuse_shared()?;
    }
    let value = value(&format!("Value of `{}`:", found.key))?;
    // Nobody may change a file between our reading and writing it.
    let _lock = edited::lock(tree)?;
    let mut old = BTreeMap::new();
    let mut new = BTreeMap::new();
    for file in found.files.keys() {
        let shown = file.display();
        let content = encrypted_content(tools, tree, file)?;
        let decrypter = decrypter(tools, tree, file)?;
        let changed = edit::set(&decrypter, file, &content, &found.key, value.exposed())
            .with_context(|| format!("{shown}: `{}`", found.key))?;
        match changed {
            Some(changed) => _ = new.insert(file, changed),
            None => say!("{shown}: `{}` has this value already", found.key),
        }
        old.insert(file, content);
    }
    let replacements = new.iter().map(|(file, changed)| Replacement {
        file: tree.root().join(file),
        old: &old[file],
        new: changed.text.as_bytes(),
    });
    paths::replace_all(&replacements.collect::<Vec<_>>())?;
    for (file, changed) in new {
        let what = if changed.is_new {
            "is a new key"
        } else {
            "has a new value"
        };
        say!("{}: `{}` {what}", file.display(), found.key);
    }
    Ok(())
}

/// What an encrypted file holds. An error that says what else it is.
fn encrypted_content(tools: &Tools, tree: &Tree, file: &Path) -> Result<Vec<u8>> {
    let shown = file.display();
    let content = tree.read(file).with_context(|| format!("`{shown}`"))?;
    if matches!(read(file, &content, 0), Ok(Content::Encrypted(_))) {
        return Ok(content);
    }
    let is_of_git_crypt =
        git_crypt::is_locked(&content) || !git_crypt::marked(tools.sh(), tree, [file])?.is_empty();
    ensure!(
        !is_of_git_crypt,
        "`{shown}` is encrypted by git-crypt, and not by sops\n\
         hint: `git-crypt unlock`, and read or change it in an editor"
    );
    ensure!(!is_called_secret(file), secrets::not_encrypted(file));
    bail!(
        "`{shown}` is not encrypted\nhint: `config get-values` shows it, and `config set` changes it"
    )
}

fn get(tools: &Tools, tree: &Tree, chosen: &Chosen) -> Result<()> {
    let found = Found::of(tools, tree, chosen)?;
    let mut files = found.files.keys();
    let (Some(file), None) = (files.next(), files.next()) else {
        bail!(
            "these are in several files: {}\nhint: name one of them with `--file`",
            list(found.files.keys().map(|it| it.display()))
        );
    };
    let content = encrypted_content(tools, tree, file)?;
    let decrypted = decrypt_any(&decrypter(tools, tree, file)?, file, &content)?;
    let shown = file.display();
    let values = decrypted.values().with_context(|| {
        format!("`{shown}` is one text without keys\nhint: `sops decrypt {shown}` prints it")
    })?;
    let node = found.key.find(&values);
    let node = node.with_context(|| format!("`{}` has no `{}`", file.display(), found.key))?;
    terminal::print(&(unquoted(&node.to_json()) + "\n"))
}

/// Decrypts a file with the person's keys, and in a rehearsal cluster's folder with its demo key.
fn decrypter(tools: &Tools, tree: &Tree, file: &Path) -> Result<Decrypter> {
    let folder = file.parent().and_then(Path::file_name);
    let cluster = folder.and_then(|it| Cluster::load(tree, it.to_str()?).ok());
    match cluster {
        Some(cluster) => credentials::decrypter(tools, tree, &cluster),
        None => Ok(Decrypter::new(tools, None)),
    }
}

/// A value that is piped, or that the person types.
fn value(question: &str) -> Result<Secret> {
    let text = if io::stdin().is_terminal() {
        terminal::ask_unseen(question)?
    } else {
        let mut text = String::new();
        let read = io::stdin().read_to_string(&mut text);
        read.context("cannot read the value from stdin")?;
        let end = text.strip_suffix('\n').unwrap_or(&text);
        end.strip_suffix('\r').unwrap_or(end).to_owned()
    };
    ensure!(!text.is_empty(), "the value is empty");
    Ok(Secret::new(text))
}

impl Found {
    fn of(tools: &Tools, tree: &Tree, chosen: &Chosen) -> Result<Found> {
        let Some((key, named)) = chosen.releases.split_last() else {
            unreachable!("clap wants one word at least")
        };
        let key = KeyPath::parse(key)?;
        if let (Some(file), []) = (&chosen.file, named) {
            let files = BTreeMap::from([(tree.real(&paths::lexical(file)), Vec::new())]);
            return Ok(Found { files, key });
        }
        let named = releases(named)?;
        let sh = tools.sh();
        let fleet = Fleet::load(sh, tree, &[What::Hubs, What::Support], None, &[])?;
        let all = fleet.releases();
        let readers = Readers::find(&fleet, &all);
        let mut files = BTreeMap::new();
        for name in &named {
            let release = release(&fleet, &all, name)?;
            let file = file_of(&fleet, release, &key, chosen.file.as_deref())?;
            let others = readers.others(&file, &named);
            files.insert(tree.real(&file), others.into_iter().cloned().collect());
        }
        Ok(Found { files, key })
    }

    /// Refuses to change files that others read as well, who were not named.
    fn refuse_shared(&self) -> Result<()> {
        for (file, others) in &self.files {
            let shown = file.display();
            ensure!(
                others.is_empty(),
                "`{shown}` is also read by {}\nhint: name these as well; `--file {shown}` changes it for all of them",
                list(others)
            );
        }
        Ok(())
    }
}

/// The words before KEY as `CLUSTER/HUB`.
fn releases(words: &[String]) -> Result<Vec<String>> {
    match words {
        [cluster, hub] if !cluster.contains('/') && !hub.contains('/') => {
            Ok(vec![format!("{cluster}/{hub}")])
        }
        _ => {
            let wrong = words.iter().find(|it| !it.contains('/'));
            ensure!(
                wrong.is_none() && !words.is_empty(),
                "before KEY come a cluster and a hub, or several as `CLUSTER/HUB`"
            );
            Ok(words.to_vec())
        }
    }
}

/// A release by its name, such as `lake/prod`.
fn release<'r, 'a>(
    fleet: &Fleet,
    all: &'r [ReleaseConfig<'a>],
    name: &str,
) -> Result<&'r ReleaseConfig<'a>> {
    if let Some(found) = all.iter().find(|it| it.path() == name) {
        return Ok(found);
    }
    let (cluster, release) = name.split_once('/').unwrap_or((name, ""));
    fleet.cluster(cluster)?.release(release)?;
    bail!("`{name}` has no values files")
}

/// The encrypted file of a release that has the key: the last one, which wins, or else the only one there is.
fn file_of(
    fleet: &Fleet,
    release: &ReleaseConfig,
    key: &KeyPath,
    wanted: Option<&Path>,
) -> Result<PathBuf> {
    let encrypted = encrypted_files(fleet, release, wanted);
    let mut last_first = encrypted.iter().rev();
    let with_key = last_first.find(|it| has(&fleet.values[**it], key));
    let name = release.path();
    let file = match (with_key, &encrypted[..]) {
        (Some(file), _) | (None, [file]) => *file,
        (None, []) => bail!(
            "`{name}` lists no file that sops encrypted{}",
            wanted.map_or_else(String::new, |it| format!(
                " and that is called `{}`",
                it.display()
            ))
        ),
        (None, several) => bail!(
            "none of the encrypted files of `{name}` has `{key}`: {}\nhint: name one of them with `--file`",
            list(several.iter().map(|it| it.display()))
        ),
    };
    if wanted.is_none() {
        refuse_without_effect(fleet, release, key, file)?;
    }
    Ok(file.to_owned())
}

/// The files of a release that sops encrypted; those of a name, if one is wanted.
fn encrypted_files<'a>(
    fleet: &Fleet,
    release: &'a ReleaseConfig,
    wanted: Option<&Path>,
) -> Vec<&'a Path> {
    let files = release.values_files();
    let mut encrypted: Vec<_> = files
        .filter(|it| fleet.values[*it].sops().is_some())
        .collect();
    encrypted.dedup();
    if let Some(wanted) = wanted {
        let candidates = [wanted.to_owned(), release.cluster.dir.join(wanted)];
        let candidates = candidates.map(|it| paths::lexical(&it));
        encrypted.retain(|file| candidates.iter().any(|it| it == file));
    }
    encrypted
}

/// Refuses a file of a release if another one wins over it.
fn refuse_without_effect(
    fleet: &Fleet,
    release: &ReleaseConfig,
    key: &KeyPath,
    file: &Path,
) -> Result<()> {
    let mut later = release.values_files().skip_while(|it| *it != file).skip(1);
    if let Some(other) = later.find(|it| has(&fleet.values[*it], key)) {
        bail!(
            "`{}` sets `{key}` after `{}`, which has no effect\nhint: `--file` names a file all the same",
            other.display(),
            file.display()
        );
    }
    Ok(())
}

/// Whether a file has a key, as far as can be seen.
fn has(file: &ValuesFile, key: &KeyPath) -> bool {
    let values = file.values().cloned().unwrap_or_default();
    key.find(&Node::nowhere(Data::Map(values))).is_some()
}
