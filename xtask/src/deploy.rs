//! Installing and upgrading hubs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::{
    charts,
    cluster::{Cluster, Hub, Nodes, Provider, list},
    credentials,
    local::node,
    process::{self, Output},
    rollout,
    secrets::{self, Decrypted, Kind, Mask},
    setup,
};

/// Install or upgrade the hubs of a cluster
///
/// Checks cluster.yaml and the files that it lists, decrypts secrets in memory, logs in, prepares the charts, and
/// then gives each hub to helm and follows its rollout. A hub that fails doesn't stop the others; the exit status is
/// 1 then. With `provider: local` the rehearsal cluster is brought up first.
#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// A folder in config/clusters/
    cluster: String,
    /// Deploy only these hubs, not every hub of the cluster
    hubs: Vec<String>,
    /// Change nothing: print the manifests that would be applied, with secrets hidden
    #[arg(long)]
    dry_run: bool,
    /// Show what helm logs, with secrets hidden
    #[arg(long)]
    debug: bool,
    /// How long each hub may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What all hubs of one run share, ready before the first one is touched.
struct Run<'a> {
    sh: &'a Shell,
    cluster: &'a Cluster,
    args: &'a Deploy,
    /// Prepared charts by their paths from the root.
    charts: BTreeMap<PathBuf, Result<PathBuf>>,
    /// Encrypted files by their paths from the root.
    decrypted: BTreeMap<PathBuf, Result<Decrypted>>,
    mask: Mask,
    /// What the pods run on, if it's a rehearsal cluster.
    rehearsal: Option<Nodes>,
}

/// What `helm … --output json` tells of a release.
#[derive(Deserialize)]
struct Release {
    version: u32,
    manifest: String,
    #[serde(default)]
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
struct Hook {
    manifest: String,
}

pub(crate) fn deploy(sh: &Shell, root: &Path, args: &Deploy) -> Result<()> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let encrypted = check_files(root, &cluster, &hubs)?;

    let render_only = args.dry_run && credentials::is_down(root, &cluster)?;
    let local = matches!(cluster.provider, Provider::Local(_));
    let sh = &setup::provide(sh, setup::FOR_HUBS, local)?;
    let sh = &secrets::with_demo_key(sh, root, &cluster)?;
    let decrypted = process::side_by_side(sh, &encrypted, |sh, file| secrets::decrypt(sh, file));
    let decrypted: BTreeMap<_, _> = encrypted.into_iter().zip(decrypted).collect();
    let charts: BTreeSet<_> = hubs.iter().map(|it| it.chart()).collect();
    let charts: Vec<_> = charts.into_iter().collect();
    let prepared = process::side_by_side(sh, &charts, |sh, chart| charts::prepare(sh, root, chart));
    let charts = charts.into_iter().zip(prepared).collect();
    let login = if render_only {
        say!("the rehearsal cluster `{}` is down: rendering without it", cluster.name);
        None
    } else {
        let login = credentials::log_in(sh, root, &cluster);
        Some(login.with_context(|| format!("cannot log in to `{}`", cluster.name))?)
    };
    let kubeconfig = login.as_ref().and_then(|it| it.kubeconfig.as_ref());
    let mask = Mask::new(decrypted.values().flatten().chain(kubeconfig));
    let sh = login.as_ref().map_or(sh, |it| &it.sh);

    let rehearsal = login.as_ref().and_then(|it| it.rehearsal);
    let run = Run { sh, cluster: &cluster, args, charts, decrypted, mask, rehearsal };
    let mut summary = String::new();
    let mut failed = Vec::new();
    for hub in &hubs {
        let started = Instant::now();
        let result = match (args.dry_run, render_only) {
            (true, true) => run.render(hub),
            (true, false) => run.dry_run(hub),
            (false, _) => run.upgrade(hub),
        };
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(text) if args.dry_run => crate::print(&text)?,
            Ok(text) => summary += &format!("{:<20} deployed  {text}, {seconds:.1} s\n", hub.name),
            Err(err) => {
                say!("`{}` failed: {}", hub.name, run.mask.hide(&format!("{err:#}")));
                if !args.dry_run {
                    summary += &format!("{:<20} failed    after {seconds:.1} s\n", hub.name);
                }
                failed.push(&hub.name);
            }
        }
    }
    let printed = crate::print(&summary);
    if !failed.is_empty() {
        let (count, all) = (failed.len(), hubs.len());
        bail!("{count} of {all} hubs of `{}` failed: {}", cluster.name, list(failed));
    }
    printed
}

/// The encrypted ones among all files that these hubs list. All that is wrong with any of them is one error.
fn check_files(root: &Path, cluster: &Cluster, hubs: &[&Hub]) -> Result<Vec<PathBuf>> {
    let mut kinds = BTreeMap::new();
    let mut problems = BTreeSet::new();
    let cluster_yaml = cluster.dir.join("cluster.yaml");
    for hub in hubs {
        let mut problem = |text: String| {
            problems.insert(format!("{}: hub `{}`: {text}", cluster_yaml.display(), hub.name));
        };
        for file in hub.helm_chart_values_files.iter().chain(&hub.domain_override_file) {
            let path = cluster.dir.join(file);
            if path.extension().is_some_and(|it| it == "jsonnet") {
                problem(format!("`{}`: values in jsonnet aren't supported yet", file.display()));
                continue;
            }
            match kinds.entry(path.clone()).or_insert_with(|| secrets::inspect(root, &path)) {
                Ok(_) => {}
                Err(err) => problem(format!("{err:#}")),
            }
        }
        if hub.chart_override.is_some() {
            problem("`chart_override` isn't supported yet".to_owned());
        }
        let chart = hub.chart();
        if !root.join(&chart).join("Chart.yaml").is_file() {
            problem(format!("there is no chart in `{}`", chart.display()));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.into_iter().collect::<Vec<_>>().join("\n"));
    }
    let encrypted = kinds.into_iter().filter(|(_, kind)| matches!(kind, Ok(Kind::Encrypted)));
    Ok(encrypted.map(|(path, _)| path).collect())
}

impl Run<'_> {
    /// Brings the hub to what the repository says, and waits until it stands.
    fn upgrade(&self, hub: &Hub) -> Result<String> {
        let until = Instant::now() + self.args.timeout;
        let domain = self.domain(hub)?;
        say!("{}: upgrading", hub.name);
        let release = self.helm_upgrade(hub, None)?;
        say!("{}: revision {} is applied, waiting for its pods", hub.name, release.version);
        rollout::follow(self.sh, &hub.name, &release.manifest, until)
            .with_context(|| format!("revision {} doesn't stand", release.version))?;
        let address = match self.rehearsal {
            None => format!(", https://{}", self.mask.hide(&domain)),
            Some(Nodes::Real) => self.node_port(hub).map_or_else(String::new, |it| format!(", {it}")),
            // Nobody answers there.
            Some(Nodes::Simulated) => String::new(),
        };
        Ok(format!("revision {}{address}", release.version))
    }

    /// Where this machine reaches the hub on the real node of a rehearsal cluster, if its proxy has a port there.
    fn node_port(&self, hub: &Hub) -> Option<String> {
        let (sh, name) = (self.sh, &hub.name);
        let field = "jsonpath={.spec.ports[0].nodePort}";
        let cmd = cmd!(sh, "kubectl get service proxy-public --namespace {name} --output {field}");
        let port = process::read(sh, cmd).ok().filter(|it| !it.is_empty())?;
        Some(format!("http://{}:{port}", node::ADDRESS))
    }

    /// The manifests as the cluster would take them.
    fn dry_run(&self, hub: &Hub) -> Result<String> {
        let release = self.helm_upgrade(hub, Some("--dry-run=server"))?;
        let mut manifest = release.manifest;
        for hook in release.hooks {
            manifest += &format!("\n---\n{}\n", hook.manifest);
        }
        Ok(self.shown(hub, &manifest))
    }

    /// The manifests as the chart makes them, without asking a cluster.
    fn render(&self, hub: &Hub) -> Result<String> {
        let (sh, name, chart) = (self.sh, &hub.name, self.chart(hub)?);
        let values = self.values(hub)?;
        let version = setup::KUBERNETES.to_string();
        let debug = self.args.debug.then_some("--debug");
        let cmd = cmd!(
            sh,
            "helm template {name} {chart} --namespace {name} {values...} --kube-version {version} {debug...}"
        );
        let output = self.helm(hub, cmd)?;
        Ok(self.shown(hub, &String::from_utf8(output.stdout)?))
    }

    fn helm_upgrade(&self, hub: &Hub, dry_run: Option<&str>) -> Result<Release> {
        let (sh, name, chart) = (self.sh, &hub.name, self.chart(hub)?);
        let values = self.values(hub)?;
        let timeout = format!("{}s", self.args.timeout.as_secs().max(1));
        // Without --reset-values helm takes the last release's values where the files hold none.
        let debug = self.args.debug.then_some("--debug");
        let cmd = cmd!(
            sh,
            "helm upgrade --install --create-namespace --namespace {name} {name} {chart} {values...}
             --reset-values --timeout {timeout} --output json {dry_run...} {debug...}"
        );
        let output = self.helm(hub, cmd)?;
        serde_json::from_slice(&output.stdout).context("helm's answer isn't the JSON of a release")
    }

    /// Runs helm, and shows what it logs. A failure is helm's own message.
    fn helm(&self, hub: &Hub, cmd: xshell::Cmd) -> Result<Output> {
        let output = process::run(self.sh, cmd, b"")?;
        let log = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        if !output.success {
            bail!("{}", log.trim());
        }
        for line in log.lines() {
            say!("{}: {line}", hub.name);
        }
        Ok(output)
    }

    fn chart(&self, hub: &Hub) -> Result<&PathBuf> {
        self.charts[&hub.chart()].as_ref().map_err(|err| anyhow!("{err:#}"))
    }

    /// `--values FILE` for each values file in order, where a decrypted one is a file in memory.
    fn values(&self, hub: &Hub) -> Result<Vec<PathBuf>> {
        let mut args = Vec::new();
        for file in &hub.helm_chart_values_files {
            let readable = self.readable(&self.cluster.dir.join(file))?;
            args.extend([PathBuf::from("--values"), readable]);
        }
        Ok(args)
    }

    /// The file itself, or a file in memory with what it holds decrypted.
    fn readable(&self, file: &Path) -> Result<PathBuf> {
        match self.decrypted.get(file) {
            Some(decrypted) => {
                Ok(decrypted.as_ref().map_err(|err| anyhow!("{err:#}"))?.file.path().to_owned())
            }
            None => Ok(file.to_owned()),
        }
    }

    /// Where people reach the hub: cluster.yaml's domain, or the one in the hub's `domain_override_file`.
    fn domain(&self, hub: &Hub) -> Result<String> {
        let Some(file) = &hub.domain_override_file else { return Ok(hub.domain.clone()) };
        let path = self.cluster.dir.join(file);
        let text = self.sh.read_file(self.readable(&path)?)?;
        let yaml: serde_yaml::Value =
            serde_yaml::from_str(&text).with_context(|| format!("`{}` isn't YAML", path.display()))?;
        let domain = yaml.get("domain").and_then(serde_yaml::Value::as_str);
        Ok(domain.with_context(|| format!("`{}` has no `domain`", path.display()))?.to_owned())
    }

    fn shown(&self, hub: &Hub, manifest: &str) -> String {
        let manifest = self.mask.hide_in_manifest(manifest);
        format!(
            "# {}: what would be applied in the namespace `{}`\n---\n{}\n",
            hub.name,
            hub.name,
            manifest.trim_end()
        )
    }
}
