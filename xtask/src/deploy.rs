//! Installing and upgrading hubs, and in support.rs what a cluster's hubs share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    charts,
    cluster::{Cluster, Hub, Nodes, Provider, list},
    credentials::{self, Login},
    local::node,
    process,
    release::{Helm, Release},
    secrets::{self, Decrypted, Mask},
    settings::Settings,
    setup,
    validate::{self, What},
};

pub(crate) mod support;

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
    /// The version of dask-gateway's CRDs, for hubs that have it [default: that of the chart]
    #[arg(long, value_name = "VERSION")]
    dask_gateway_version: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct How {
    /// Change nothing: print the manifests that would be applied, with secrets hidden
    #[arg(long)]
    dry_run: bool,
    /// Show what helm logs, with secrets hidden
    #[arg(long)]
    debug: bool,
    /// How long each release may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What all releases of one command share, ready before the first one is touched.
struct Run {
    /// The login's, if there is one.
    sh: Shell,
    settings: Settings,
    /// Prepared charts by their paths from the root.
    charts: BTreeMap<PathBuf, Result<PathBuf>>,
    /// Encrypted files by their paths from the root.
    decrypted: BTreeMap<PathBuf, Result<Decrypted>>,
    mask: Mask,
    /// There is none in a dry run for a rehearsal cluster that is down: then it's rendered without asking.
    login: Option<Login>,
}

/// What came of each release, for the last lines.
struct Report<'a> {
    mask: &'a Mask,
    dry_run: bool,
    summary: String,
    failed: Vec<&'a str>,
    /// Which release failed first with each message: what is wrong with a chart is wrong for every hub that has it.
    messages: BTreeMap<String, &'a str>,
}

pub(crate) fn deploy(sh: &Shell, root: &Path, args: &Deploy) -> Result<()> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let charts = hubs.iter().map(|it| it.chart()).collect();
    let what = [What::Hubs, What::Authenticators];
    let run = Run::prepare(sh, root, &cluster, &what, &args.hubs, charts, &args.how)?;

    let helm = run.helm(&args.how);
    let mut report = Report::new(&run, &args.how);
    let mut crds = BTreeSet::new();
    for hub in &hubs {
        let started = Instant::now();
        let result = run.chart(&hub.chart()).and_then(|chart| {
            let files = hub.helm_chart_values_files.iter().map(|it| cluster.dir.join(it));
            let release = Release { name: &hub.name, chart, values: run.readable(files)?, flags: Vec::new() };
            let has_dask = has_dask_gateway(hub, &release)?;
            if args.how.dry_run {
                let lacks = has_dask && run.login.is_some() && run.lacks("daskclusters.gateway.dask.org")?;
                return run.show(&helm, &release, lacks.then_some("dask-gateway"));
            }
            let domain = run.domain(&cluster, hub)?;
            if has_dask {
                run.apply_dask_crds(&release, args.dask_gateway_version.as_deref(), &mut crds)?;
            }
            let revision = helm.upgrade(&release)?;
            let address = match run.login.as_ref().and_then(|it| it.rehearsal) {
                None => format!(", https://{}", run.mask.hide(&domain)),
                Some(Nodes::Real) => run.node_port(hub).map_or_else(String::new, |it| format!(", {it}")),
                // Nobody answers there.
                Some(Nodes::Simulated) => String::new(),
            };
            Ok(format!("revision {revision}{address}"))
        });
        report.add(&hub.name, started, result)?;
    }
    report.finish(&format!("{} hubs", hubs.len()), &cluster)
}

impl Run {
    fn prepare(
        sh: &Shell,
        root: &Path,
        cluster: &Cluster,
        what: &[What],
        hubs: &[String],
        charts: BTreeSet<PathBuf>,
        how: &How,
    ) -> Result<Run> {
        let local = matches!(cluster.provider, Provider::Local(_));
        let sh = &setup::provide(sh, setup::FOR_HUBS, local)?;
        let settings = Settings::load(root)?;
        let charts = charts::prepare(sh, root, &settings, charts)?;
        let encrypted = validate::before_deploy(sh, root, &settings, what, &cluster.name, hubs)?;
        let render_only = how.dry_run && credentials::is_down(root, cluster)?;
        let sh = &secrets::with_demo_key(sh, root, cluster)?;
        let decrypted = process::side_by_side(sh, &encrypted, |sh, file| secrets::decrypt(sh, file));
        let decrypted: BTreeMap<_, _> = encrypted.into_iter().zip(decrypted).collect();
        let login = if render_only {
            say!("the rehearsal cluster `{}` is down: rendering without it", cluster.name);
            None
        } else {
            let login = credentials::log_in(sh, root, cluster);
            Some(login.with_context(|| format!("cannot log in to `{}`", cluster.name))?)
        };
        let kubeconfig = login.as_ref().and_then(|it| it.kubeconfig.as_ref());
        let mask = Mask::new(decrypted.values().flatten().chain(kubeconfig));
        let sh = login.as_ref().map_or(sh, |it| &it.sh).clone();
        Ok(Run { sh, settings, charts, decrypted, mask, login })
    }

    fn helm(&self, how: &How) -> Helm<'_> {
        Helm { sh: &self.sh, mask: &self.mask, debug: how.debug, timeout: how.timeout }
    }

    /// What would be applied. While the cluster lacks CRDs that come first, it can't be asked.
    fn show(&self, helm: &Helm, release: &Release, lacks: Option<&str>) -> Result<String> {
        if self.login.is_none() {
            return helm.render(release);
        }
        let Some(lacks) = lacks else { return helm.dry_run(release) };
        say!("the cluster has no {lacks} yet: rendering `{}` without asking it", release.name);
        helm.render(release)
    }

    fn lacks(&self, crd: &str) -> Result<bool> {
        let sh = &self.sh;
        Ok(process::read(sh, cmd!(sh, "kubectl get crd {crd} --ignore-not-found --output name"))?.is_empty())
    }

    fn chart(&self, chart: &Path) -> Result<&Path> {
        match &self.charts[chart] {
            Ok(prepared) => Ok(prepared),
            Err(err) => bail!("{err:#}"),
        }
    }

    /// Each file itself, or a file in memory with what it holds decrypted.
    fn readable(&self, files: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>> {
        let readable = |file: PathBuf| match self.decrypted.get(&file) {
            Some(Ok(decrypted)) => Ok(decrypted.file.path().to_owned()),
            Some(Err(err)) => bail!("{err:#}"),
            None => Ok(file),
        };
        files.into_iter().map(readable).collect()
    }

    /// Where people reach the hub: cluster.yaml's domain, or the one in the hub's `domain_override_file`.
    fn domain(&self, cluster: &Cluster, hub: &Hub) -> Result<String> {
        let Some(file) = &hub.domain_override_file else { return Ok(hub.domain.clone()) };
        let path = cluster.dir.join(file);
        let text = self.sh.read_file(&self.readable([path.clone()])?[0])?;
        let yaml: serde_yaml::Value =
            serde_yaml::from_str(&text).with_context(|| format!("`{}` isn't YAML", path.display()))?;
        let domain = yaml.get("domain").and_then(serde_yaml::Value::as_str);
        Ok(domain.with_context(|| format!("`{}` has no `domain`", path.display()))?.to_owned())
    }

    /// Where this machine reaches the hub on the real node of a rehearsal cluster, if its proxy has a port there.
    fn node_port(&self, hub: &Hub) -> Option<String> {
        let (sh, name) = (&self.sh, &hub.name);
        let field = "jsonpath={.spec.ports[0].nodePort}";
        let cmd = cmd!(sh, "kubectl get service proxy-public --namespace {name} --output {field}");
        let port = process::read(sh, cmd).ok().filter(|it| !it.is_empty())?;
        Some(format!("http://{}:{port}", node::ADDRESS))
    }

    /// Brings dask-gateway's CRDs to the wanted version, or to that of the chart: helm itself never touches CRDs that
    /// are there. `applied` has the versions of hubs before this one.
    fn apply_dask_crds(
        &self,
        release: &Release,
        wanted: Option<&str>,
        applied: &mut BTreeSet<String>,
    ) -> Result<()> {
        let found = charts::dependency(release.chart, "dask-gateway")?;
        let version = wanted.or(found.as_ref().map(|(version, _)| version.as_str())).context(
            "the chart has no dependency `dask-gateway`\nhint: `--dask-gateway-version` says the version of its CRDs",
        )?;
        if applied.contains(version) {
            return Ok(());
        }
        let manifests = match &found {
            Some((own, crds)) if own == version && !crds.is_empty() => crds.clone(),
            _ => {
                let folder = "https://raw.githubusercontent.com/dask/dask-gateway";
                let manifest = |name: &str| {
                    let path = format!("resources/helm/dask-gateway/crds/{name}.yaml");
                    charts::fetch::manifest(&self.settings, &format!("{folder}/{version}/{path}"))
                };
                format!("{}\n---\n{}", manifest("daskclusters")?, manifest("traefik")?)
            }
        };
        say!("{}: applying the CRDs of dask-gateway {version}", release.name);
        let sh = &self.sh;
        // They are too large for an annotation of kubectl's own, and whoever applied them before gives way.
        let cmd = cmd!(sh, "kubectl apply --server-side --force-conflicts --filename -");
        let output = process::run(sh, cmd, manifests.as_bytes())?;
        let said = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        ensure!(output.success, "cannot apply the CRDs of dask-gateway {version}: {}", said.trim());
        applied.insert(version.to_owned());
        Ok(())
    }
}

/// Whether the hub has dask-gateway: the chart `daskhub` does, and others where their values say so.
fn has_dask_gateway(hub: &Hub, release: &Release) -> Result<bool> {
    if hub.chart().ends_with("daskhub") {
        return Ok(true);
    }
    let own = release.chart.join("values.yaml");
    let mut enabled = false;
    for file in [&own].into_iter().filter(|it| it.is_file()).chain(&release.values) {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        // helm tells better what is wrong with a file that isn't YAML.
        let values: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_default();
        let set =
            values.get("dask-gateway").and_then(|it| it.get("enabled")).and_then(serde_yaml::Value::as_bool);
        enabled = set.unwrap_or(enabled);
    }
    Ok(enabled)
}

impl<'a> Report<'a> {
    fn new(run: &'a Run, how: &How) -> Report<'a> {
        let (summary, failed, messages) = (String::new(), Vec::new(), BTreeMap::new());
        Report { mask: &run.mask, dry_run: how.dry_run, summary, failed, messages }
    }

    /// The text of a dry run is printed at once; that of a deployed release is its line in the end.
    fn add(&mut self, name: &'a str, started: Instant, result: Result<String>) -> Result<()> {
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(text) if self.dry_run => crate::print(&text)?,
            Ok(text) => self.summary += &format!("{name:<20} deployed  {text}, {seconds:.1} s\n"),
            Err(err) => {
                let message = self.mask.hide(&format!("{err:#}"));
                match self.messages.get(&message) {
                    Some(first) => say!("`{name}` failed as `{first}` did"),
                    None => say!("`{name}` failed: {message}"),
                }
                self.messages.entry(message).or_insert(name);
                if !self.dry_run {
                    self.summary += &format!("{name:<20} failed    after {seconds:.1} s\n");
                }
                self.failed.push(name);
            }
        }
        Ok(())
    }

    fn finish(self, all: &str, cluster: &Cluster) -> Result<()> {
        let printed = crate::print(&self.summary);
        if !self.failed.is_empty() {
            let count = self.failed.len();
            bail!("{count} of {all} of `{}` failed: {}", cluster.name, list(self.failed));
        }
        printed
    }
}
