//! What a person starts by hand in CI: one action of a fixed list, with options of a fixed list.

use std::{collections::BTreeMap, env, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::record::REASON,
    machine::{
        name::Name,
        process::{self, Whose},
        terminal::list,
        tree::Tree,
        workflow::{self, WITH_REASON, variable},
    },
    repository::{
        cluster::Cluster,
        cluster_yaml::{self, UnusableCluster},
    },
};

/// Do what a person has started a workflow or a pipeline for
///
/// `ACTION` says what. `CLUSTER`, `HUBS`, `OPTIONS` and `REVISION` say where and how, and `REASON` why: it is kept in helm's
/// history. Nothing that deletes volumes can be said.
#[derive(clap::Args)]
pub struct ByHand {
    /// Only check the variables, and set the output `jobs` to a list of the clusters
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Action {
    Deploy,
    DeploySupport,
    DeployEverything,
    Rollback,
    Status,
    HealthCheck,
}

/// All options, of which each action takes some. They are those of our own commands.
const OPTIONS: [&str; 7] = [
    "ignore-staging",
    "skip-hub-health-check",
    "ignore-freeze",
    "force-older",
    "heal",
    "take-over",
    "force-conflicts",
];

impl Action {
    /// The commands that do it for a cluster, one after the other.
    fn commands(self) -> &'static [&'static str] {
        match self {
            Action::Deploy => &["deploy"],
            Action::DeploySupport => &["deploy-support"],
            Action::DeployEverything => &["deploy-support", "deploy"],
            Action::Rollback => &["rollback"],
            Action::Status => &["status"],
            Action::HealthCheck => &["run-hub-health-check"],
        }
    }

    fn options(self) -> &'static [&'static str] {
        let options = self.commands().iter().map(|it| options_of(it));
        options.max_by_key(|it| it.len()).unwrap_or_default()
    }

    fn is_for_hubs(self) -> bool {
        ![Action::DeploySupport, Action::DeployEverything].contains(&self)
    }

    /// Whether it is done for all clusters where none is named. A forgotten name must not deploy them all.
    fn is_for_all_clusters(self) -> bool {
        self == Action::DeployEverything || !self.changes()
    }

    fn changes(self) -> bool {
        ![Action::Status, Action::HealthCheck].contains(&self)
    }
}

/// The options that a command takes here.
fn options_of(command: &str) -> &'static [&'static str] {
    match command {
        "deploy" => &OPTIONS,
        "deploy-support" => &OPTIONS[2..],
        "rollback" => &OPTIONS[6..],
        _ => &[],
    }
}

/// What the person has asked for.
struct Request {
    action: Action,
    /// The action's name.
    name: String,
    cluster: Option<String>,
    hubs: Vec<String>,
    /// By their names, with the value of `take-over`.
    options: BTreeMap<String, Option<String>>,
    revision: Option<u32>,
    reason: Option<String>,
    stage: Stage,
}

/// The branch that this runs on, if groups promote by pull requests between `staging` and `production`. Else empty.
struct Stage(String);

impl Stage {
    /// Whether staging hubs, or the others, are deployed from here.
    fn is_of(&self, is_staging: bool) -> bool {
        self.0.is_empty() || (self.0 == "staging") == is_staging
    }
}

/// Does what the variables ask for. Ends with the status of the command that fails.
pub fn by_hand(sh: &Shell, tree: &Tree, args: &ByHand) -> Result<ExitCode> {
    let request = Request::read()?;
    request.check()?;
    let (clusters, unusable) = request.clusters(tree)?;
    let mut commands = Vec::new();
    for cluster in &clusters {
        commands.extend(request.commands(cluster)?);
    }
    if args.check {
        let jobs = clusters.iter().map(job).collect();
        workflow::set("GITHUB_OUTPUT", &[("jobs", Value::Array(jobs))])?;
    } else {
        let code = request.run(sh, tree, &commands)?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    if !unusable.is_empty() {
        let left_out: Vec<_> = unusable.iter().map(UnusableCluster::left_out).collect();
        bail!("{}", left_out.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A cluster's job in a matrix.
fn job(cluster: &Cluster) -> Value {
    json!({"cluster_name": cluster.name, "provider": cluster.provider_name()})
}

impl Request {
    fn read() -> Result<Request> {
        let mut hubs = words("HUBS");
        hubs.sort();
        hubs.dedup();
        let name = variable("ACTION").unwrap_or_default();
        let actions = Action::value_variants().iter();
        let actions = actions.filter_map(|it| it.to_possible_value());
        let actions = list(actions.map(|it| it.get_name().to_owned()));
        let action = Action::from_str(&name, false)
            .map_err(|_| anyhow::anyhow!("there is no action `{name}`; there are: {actions}"))?;
        Ok(Request {
            action,
            name,
            cluster: words("CLUSTER").into_iter().next(),
            hubs,
            options: options()?,
            revision: revision()?,
            reason: variable("REASON").filter(|it| !it.trim().is_empty()),
            stage: Stage(variable("STAGE").unwrap_or_default()),
        })
    }

    /// Refuses what does not fit together.
    fn check(&self) -> Result<()> {
        let name = &self.name;
        ensure!(
            words("CLUSTER").len() < 2,
            "`CLUSTER` may name one cluster, and has {}",
            list(words("CLUSTER"))
        );
        for option in self.options.keys() {
            let known = self.action.options();
            let known = if known.is_empty() {
                "no options".to_owned()
            } else {
                format!("only {}", list(known))
            };
            ensure!(
                self.action.options().contains(&option.as_str()),
                "the action `{name}` does not take the option `{option}`: it takes {known}"
            );
            ensure!(
                self.reason.is_some() || !WITH_REASON.contains(&option.as_str()),
                "the option `{option}` needs a reason, which is kept in helm's history: `REASON` is empty"
            );
        }
        ensure!(
            self.hubs.is_empty() || self.action.is_for_hubs(),
            "the action `{name}` takes no hubs, and `HUBS` has {}\nhint: the action `deploy` does",
            list(&self.hubs)
        );
        ensure!(
            self.revision.is_none() || self.action == Action::Rollback,
            "the action `{name}` takes no `REVISION`: only `rollback` does"
        );
        ensure!(
            self.hubs.len() == 1 || self.action != Action::Rollback,
            "the action `rollback` is for one hub, `support` or `cert-manager`, and `HUBS` has {}",
            self.hubs.len()
        );
        Ok(())
    }

    /// The clusters that are meant; of all, those whose cluster.yaml has problems as well. Earlier waves come first.
    fn clusters(&self, tree: &Tree) -> Result<(Vec<Cluster>, Vec<UnusableCluster>)> {
        if let Some(cluster) = &self.cluster {
            return Ok((vec![Cluster::load(tree, cluster)?], Vec::new()));
        }
        let takes_over = self.options.contains_key("take-over");
        ensure!(
            self.action.is_for_all_clusters() && self.hubs.is_empty() && !takes_over,
            "`CLUSTER` is empty, and this is for one cluster; there are: {}",
            list(cluster_yaml::names(tree))
        );
        let (mut clusters, unusable) = Cluster::all(tree)?;
        clusters.retain(|it| !it.is_local());
        if self.action != Action::Status {
            for (cluster, pause) in clusters.iter().filter_map(|it| Some((it, it.pause()?))) {
                say!("{}: {}", cluster.name, pause.shown());
            }
            clusters.retain(|it| it.pause().is_none());
        }
        clusters.sort_by_key(|it| it.wave);
        Ok((clusters, unusable))
    }

    /// The command lines for a cluster.
    fn commands(&self, cluster: &Cluster) -> Result<Vec<Vec<String>>> {
        let hubs = self.hubs_of(cluster)?;
        let mut commands = Vec::new();
        for command in self.action.commands() {
            match *command {
                "run-hub-health-check" | "status" if !hubs.is_empty() => {
                    let one_each = hubs.chunks(1);
                    commands.extend(one_each.map(|hub| self.command(command, cluster, hub)));
                }
                "deploy" | "run-hub-health-check" if hubs.is_empty() => {}
                "deploy-support"
                    if self.action == Action::DeployEverything && cluster.pause().is_some() => {}
                "deploy-support" if self.stage.is_of(true) => {
                    commands.push(self.command(command, cluster, &[]));
                }
                "deploy-support" => ensure!(
                    self.action == Action::DeployEverything,
                    "support is deployed from the branch `staging`"
                ),
                _ => commands.push(self.command(command, cluster, &hubs)),
            }
        }
        Ok(commands)
    }

    /// The names that are given to the commands. All are those of hubs or releases that cluster.yaml has.
    fn hubs_of(&self, cluster: &Cluster) -> Result<Vec<String>> {
        match self.action {
            Action::DeploySupport => Ok(Vec::new()),
            Action::Rollback | Action::Status => {
                for name in &self.hubs {
                    cluster.release(name)?;
                }
                Ok(self.hubs.clone())
            }
            _ if self.hubs.is_empty() => Ok(self.hubs_without_names(cluster)),
            _ => {
                for hub in cluster.select_hubs(&self.hubs)? {
                    let name = &hub.name;
                    ensure!(
                        !self.action.changes() || self.stage.is_of(hub.is_staging()),
                        "hub `{name}` is not deployed from the branch `{}`",
                        self.stage.0
                    );
                }
                Ok(self.hubs.clone())
            }
        }
    }

    /// The hubs that are deployed or checked where none is named.
    fn hubs_without_names(&self, cluster: &Cluster) -> Vec<String> {
        let mut hubs = Vec::new();
        for hub in &cluster.hubs {
            let is_wanted = match self.action {
                Action::HealthCheck => hub.health_check != Some(false),
                _ => self.stage.is_of(hub.is_staging()),
            };
            match cluster.pause_of(hub) {
                _ if !is_wanted => {}
                Some(pause) => say!("{}/{}: {}", cluster.name, hub.name, pause.shown()),
                None => hubs.push(hub.name.clone()),
            }
        }
        hubs
    }

    fn command(&self, command: &str, cluster: &Cluster, hubs: &[String]) -> Vec<String> {
        let mut args = vec![command.to_owned()];
        let taken = options_of(command);
        for (option, value) in &self.options {
            if taken.contains(&option.as_str()) {
                let reason = self
                    .reason
                    .as_ref()
                    .filter(|_| option.starts_with("ignore-"));
                let value = value.as_ref().or(reason);
                args.push(value.map_or_else(
                    || format!("--{option}"),
                    |value| format!("--{option}={value}"),
                ));
            }
        }
        match self.action {
            Action::Deploy if self.hubs.is_empty() => args.push("--skip-unchanged".to_owned()),
            Action::Rollback => args.push("--yes".to_owned()),
            _ => {}
        }
        args.extend(["--".to_owned(), cluster.name.clone()]);
        args.extend(hubs.iter().cloned());
        args.extend(self.revision.map(|it| it.to_string()));
        args
    }

    /// Runs our own program with each of these command lines. What changes something ends with the first that fails, and
    /// all ends with a signal.
    fn run(&self, sh: &Shell, tree: &Tree, commands: &[Vec<String>]) -> Result<ExitCode> {
        let program = env::current_exe().context("cannot find this program")?;
        let root = tree.root();
        sh.set_var(REASON, self.reason.as_deref().unwrap_or_default());
        let mut result = ExitCode::SUCCESS;
        for (number, args) in commands.iter().enumerate() {
            say!("xtask {}", args.join(" "));
            let command = cmd!(sh, "{program} --root {root} {args...}");
            let code = process::in_front(sh, command, Whose::Apart)?;
            if code == ExitCode::SUCCESS {
                continue;
            }
            result = code;
            if self.action.changes() || process::has_passed_on_signal() {
                for args in &commands[number + 1..] {
                    say!("not begun: xtask {}", args.join(" "));
                }
                break;
            }
        }
        Ok(result)
    }
}

/// What a variable has between blanks and commas.
fn words(name: &str) -> Vec<String> {
    let text = variable(name).unwrap_or_default();
    let words = text.split(|it: char| it.is_whitespace() || it == ',');
    let words = words.filter(|it| !it.is_empty());
    words.map(str::to_owned).collect()
}

fn options() -> Result<BTreeMap<String, Option<String>>> {
    let mut options = BTreeMap::new();
    for word in words("OPTIONS") {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(Name::new(value)?.to_string())),
            None => (word.as_str(), None),
        };
        ensure!(
            OPTIONS.contains(&name),
            "there is no option `{name}`; there are: {}",
            list(OPTIONS)
        );
        ensure!(
            value.is_some() == (name == "take-over"),
            "`take-over` is the option with a name, as in `take-over=NAME`, and this is `{word}`"
        );
        let before = options.insert(name.to_owned(), value);
        ensure!(before.is_none(), "the option `{name}` is there twice");
    }
    Ok(options)
}

fn revision() -> Result<Option<u32>> {
    let text = variable("REVISION").unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|it| *it > 0);
    let number = number.with_context(|| format!("`REVISION` is no revision's number: `{text}`"))?;
    Ok(Some(number))
}
