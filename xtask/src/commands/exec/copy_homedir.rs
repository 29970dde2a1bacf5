//! The command that copies a user's home into another user's.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use indicatif::{HumanBytes, HumanCount};
use xshell::Shell;

use crate::{
    commands::exec::{
        helper::{self, Helper},
        homes::with_homes,
        logs,
        target::open,
    },
    kubernetes::api::Api,
    machine::{
        process,
        terminal::{self, list},
        tree::Tree,
    },
    settings::Settings,
};

/// Copy a user's home into another user's
///
/// Home S is copied to the folder `S-homedir` in home D, with owners and times, but without sockets. The folder gets this
/// name when it is complete; until then nobody but root may enter it, and nothing else in D changes. Links are copied as
/// links. Shows the sizes of both homes and asks first.
#[derive(clap::Args)]
pub struct CopyHomedirIntoAnother {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub of the cluster
    hub: String,
    /// The home to copy: a user's name, or a folder in /home; without it you are asked
    #[arg(long, value_name = "S")]
    source_homedir: Option<String>,
    /// The home to copy it into; without it you are asked
    #[arg(long, value_name = "D")]
    destination_homedir: Option<String>,
    /// Copy without asking
    #[arg(long)]
    yes: bool,
}

/// What is copied where: folders in /home, and what the first one becomes.
struct Copy {
    from: String,
    to: String,
    target: String,
}

pub(crate) fn copy(sh: &Shell, tree: &Tree, args: &CopyHomedirIntoAnother) -> Result<ExitCode> {
    // A signal ends the work that goes on, and what was made for it is deleted.
    process::end_in_order();
    let image = &Settings::load(tree)?.shell_image;
    let (cluster, login) = open(sh, tree, &args.cluster, &args.hub)?;
    let api = Api::start(&login.sh)?;
    args.require_homes_or_terminal()?;
    let helper = with_homes(&login, &api, image, &cluster, &args.hub)?;
    if !args.has_homes() {
        say!("{}", helper.read("ls -lath /home", &[])?);
    }
    let copy = Copy::ask(&helper, args)?;
    let size = copy.tell_sizes(&helper)?;
    let question = format!("Copy /home/{} to {}", copy.from, copy.target);
    terminal::confirm(&question, args.yes)?;

    copy.remove_leftovers(&helper)?;
    copy.run(&helper, &size)?;
    copy.report(&helper, &size)?;
    Ok(ExitCode::SUCCESS)
}

impl CopyHomedirIntoAnother {
    /// Whether both homes are named, so that nobody need be asked.
    fn has_homes(&self) -> bool {
        self.source_homedir.is_some() && self.destination_homedir.is_some()
    }

    fn require_homes_or_terminal(&self) -> Result<()> {
        ensure!(
            self.has_homes() || terminal::can_ask(),
            "`--source-homedir` and `--destination-homedir` are required without a terminal"
        );
        Ok(())
    }
}

impl Copy {
    /// Finds the homes that are given, and asks for those that are not.
    fn ask(helper: &Helper, args: &CopyHomedirIntoAnother) -> Result<Copy> {
        let from = helper.home(args.source_homedir.as_deref(), "Whose home is to be copied")?;
        let to = helper.home(args.destination_homedir.as_deref(), "Into whose home")?;
        ensure!(from != to, "/home/{from} cannot be copied into itself");
        let target = format!("/home/{to}/{from}-homedir");
        refuse_existing(helper, &target)?;
        Ok(Copy { from, to, target })
    }

    /// Returns the size of what is to be copied.
    fn tell_sizes(&self, helper: &Helper) -> Result<Size> {
        let source = helper.size(&format!("/home/{}", self.from))?;
        say!("from /home/{}: {}", self.from, source.shown());
        let destination = helper.size(&format!("/home/{}", self.to))?;
        say!("into /home/{}: {}", self.to, destination.shown());
        let free = helper.read("df --output=avail -B1 /home | tail -n 1", &[])?;
        say!(
            "free in /home: {}",
            HumanBytes(free.trim().parse().unwrap_or(0))
        );
        Ok(source)
    }

    /// Removes what earlier copies left in the destination whose pods were deleted before they were complete.
    fn remove_leftovers(&self, helper: &Helper) -> Result<()> {
        let prefix = format!(".{}-homedir.", self.from);
        let found = helper.read("cd \"/home/$1\" && ls -A", &[&self.to])?;
        for part in found.lines() {
            let Some(pod) = part.strip_prefix(&prefix) else {
                continue;
            };
            if pod.starts_with(helper::NAME) && !helper.has_neighbour(pod)? {
                say!(
                    "removing /home/{}/{part}, which a copy left that was cut off",
                    self.to
                );
                helper.read("rm -rf -- \"/home/$1/$2\"", &[&self.to, part])?;
            }
        }
        Ok(())
    }

    fn run(&self, helper: &Helper, size: &Size) -> Result<()> {
        let source = format!("/home/{}", self.from);
        let name = format!(".{}-homedir.{}", self.from, helper.pod);
        let part = format!("/home/{}/{name}", self.to);
        let total = size.files.to_string();
        let command = [
            "bash", "-c", COPY, "bash", &self.from, &self.to, &name, &total,
        ];
        let code = helper.in_front(&command.map(str::to_owned))?;
        if code == ExitCode::SUCCESS {
            return Ok(());
        }
        match stop_and_remove(helper, &part) {
            Ok(()) => bail!("{source} was not copied"),
            Err(_) => bail!("{source} was not copied; a part of it is left in {part}"),
        }
    }

    /// Says what was copied, and warns if that is not what there was before.
    fn report(&self, helper: &Helper, before: &Size) -> Result<()> {
        let copied = helper.size(&self.target)?;
        terminal::print(&format!(
            "copied /home/{} to {}: {}\n",
            self.from,
            self.target,
            copied.shown()
        ))?;
        if copied.files != before.files {
            say!(
                "warning: there were {} files before: somebody is working in /home/{}",
                HumanCount(before.files),
                self.from
            );
        }
        Ok(())
    }
}

fn refuse_existing(helper: &Helper, target: &str) -> Result<()> {
    let found = helper.read("[ ! -e \"$1\" ] && [ ! -L \"$1\" ] || echo yes", &[target])?;
    ensure!(
        found.is_empty(),
        "{target} exists already, and is left as it is\nhint: move it away first"
    );
    Ok(())
}

/// Ends a `tar` that may still be running, and removes what it has copied.
fn stop_and_remove(helper: &Helper, part: &str) -> Result<()> {
    let stop = "kill -9 $(cat /tmp/copying); sleep 0.2; rm -rf -- \"$1\"";
    helper.read(stop, &[part])?;
    Ok(())
}

const COPY: &str = include_str!("copy_homedir.sh");

/// What a folder holds, with all that is below it.
struct Size {
    bytes: u64,
    files: u64,
}

impl Size {
    fn shown(&self) -> String {
        format!(
            "{} in {} files and folders",
            HumanBytes(self.bytes),
            HumanCount(self.files)
        )
    }
}

impl Helper<'_> {
    /// The folder in /home of a user who is given or asked for by name.
    fn home(&self, given: Option<&str>, question: &str) -> Result<String> {
        let name = match given {
            Some(name) => name.to_owned(),
            None => terminal::ask(question)?,
        };
        let name = name.trim();
        ensure!(
            !name.is_empty() && !name.contains('/') && ![".", ".."].contains(&name),
            "`{name}` is not the name of a folder in /home"
        );
        let found = self.find_home(name)?;
        if found.is_empty() {
            let there = self.read("cd /home && ls -t | head -n 30", &[])?;
            bail!(
                "there is no /home/{name}; the latest there are: {}",
                list(there.lines())
            );
        }
        Ok(found)
    }

    /// The folder in /home of this name, or of the name as older KubeSpawners escape it; empty if there is none.
    fn find_home(&self, name: &str) -> Result<String> {
        let escaped = logs::escaped(name);
        let script = "for it; do if [ -d \"/home/$it\" ] && [ ! -L \"/home/$it\" ]; then echo \"$it\"; exit; fi; done";
        self.read(script, &[name, &escaped])
    }

    fn size(&self, folder: &str) -> Result<Size> {
        let script = "du --summarize --bytes -- \"$1\" | cut -f1; find \"$1\" -mindepth 1 ! -type s -printf . | wc -c";
        let printed = self.read(script, &[folder])?;
        let mut numbers = printed.lines().map(|it| it.trim().parse().unwrap_or(0));
        Ok(Size {
            bytes: numbers.next().unwrap_or(0),
            files: numbers.next().unwrap_or(0),
        })
    }

    /// Whether there is a pod of this name beside ours.
    fn has_neighbour(&self, pod: &str) -> Result<bool> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace);
        Ok(self.api.find(&path)?.is_some())
    }
}
