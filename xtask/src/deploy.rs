//! Installing and upgrading hubs, and in support.rs what a cluster's hubs share.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::IsTerminal,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use xshell::{Shell, cmd};

use crate::{
    api::Api,
    charts,
    cluster::{Cluster, Hub, Nodes, list},
    credentials,
    diff::{self, Differ, Plain},
    health, history,
    local::node,
    process,
    progress::Progress,
    record::Record,
    release::{Helm, Release},
    rollout,
    secrets::{self, InMemory, Mask},
    session::{self, Session},
    settings::Settings,
    setup,
    validate::{self, Fleet, What, number_of},
};

mod report;
pub(crate) mod support;

use report::{Done, Report};

/// Install or upgrade the hubs of a cluster
///
/// Checks cluster.yaml and the files that it lists, decrypts secrets in memory, logs in, prepares the charts, and
/// then gives the hubs to helm side by side, follows their rollouts, and checks that a person can work on them (see
/// `run-hub-health-check`). Staging hubs come first, and the others follow if those stand. A hub that fails doesn't stop
/// the others; the exit status is 1 then. With `provider: local` the rehearsal cluster is brought up first.
///
/// Ctrl-C ends in order, and says what each hub is left at. What was cut off, however that came, is healed by the next
/// deploy.
#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// A folder in config/clusters/
    cluster: String,
    /// Deploy only these hubs, not every hub of the cluster
    hubs: Vec<String>,
    /// The version of dask-gateway's CRDs, for hubs that have it [default: that of the chart]
    #[arg(long, value_name = "VERSION")]
    dask_gateway_version: Option<String>,
    /// Deploy the other hubs even if a staging hub doesn't stand; helm's history keeps the reason
    #[arg(long, value_name = "REASON")]
    ignore_staging: Option<String>,
    /// How many hubs at once [default: one a core, 8 at most]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Don't check whether a person could work on the hubs then
    #[arg(long, alias = "skip-hub-health-test")]
    skip_hub_health_check: bool,
    /// Leave out hubs that stand, and of which nothing would change
    #[arg(long)]
    skip_unchanged: bool,
    /// Deploy although the cluster has a newer commit
    #[arg(long)]
    force_older: bool,
    /// Take over fields that somebody set by other means, such as `kubectl edit`
    #[arg(long)]
    force_conflicts: bool,
    /// Replace objects rather than change them, and without server-side apply
    #[arg(long, conflicts_with = "force_conflicts")]
    force_replace: bool,
    /// Remove new objects of an upgrade that helm gives up
    #[arg(long)]
    cleanup_on_fail: bool,
    /// Return a hub that fails to its last good revision, and follow that
    #[arg(long)]
    rollback_on_failure: bool,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct How {
    /// Change nothing: print the manifests that would be applied, with secrets hidden
    #[arg(long)]
    dry_run: bool,
    /// Show what would change in the cluster's objects, secrets hidden, and ask before going on
    #[arg(long)]
    diff: bool,
    /// End with 3 if anything would change
    #[arg(long, requires = "dry_run", requires = "diff")]
    detailed_exitcode: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Show what helm logs, with secrets hidden
    #[arg(long)]
    debug: bool,
    /// How long each release may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How the outcome is printed; a dry run's manifests are YAML
    #[arg(long, default_value = "text", conflicts_with_all = ["dry_run", "diff"])]
    format: Format,
}

impl How {
    fn exit_code(&self, differs: bool) -> ExitCode {
        if self.detailed_exitcode && differs {
            ExitCode::from(3)
        } else {
            ExitCode::SUCCESS
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A line for each release
    Text,
    /// An object with a list of releases
    Json,
}

/// What all releases of one command share, ready before the first one is touched.
struct Run {
    settings: Settings,
    /// Prepared charts by their paths from the root.
    charts: BTreeMap<PathBuf, Result<PathBuf>>,
    fleet: Fleet,
    /// What the releases list, by the paths from the root.
    files: BTreeMap<PathBuf, Result<InMemory>>,
    mask: Mask,
    /// There is none in a dry run for a rehearsal cluster that is down: then it's rendered without asking.
    session: Option<Session>,
}

pub(crate) fn deploy(sh: &Shell, root: &Path, args: &Deploy) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let charts = hubs.iter().map(|it| it.chart()).collect();
    let what = [What::Hubs, What::Authenticators];
    let (sh, mut run) = Run::prepare(sh, root, &cluster, &what, &args.hubs, charts, &args.how)?;
    if let Some(session) = &mut run.session {
        session.record.ignore_staging = args.ignore_staging.clone();
    }

    let jobs = args.jobs.map_or_else(default_jobs, NonZero::get);
    if args.how.diff {
        let diffs = process::in_order(&sh, jobs, &vec![Vec::new(); hubs.len()], |sh, index| {
            let helm = Helm {
                flags: args.flags(),
                ..run.helm(sh, &args.how)
            };
            let diff = || {
                let release = run.release(&cluster, hubs[index])?;
                let has_dask = run.fleet.kind(hubs[index])?.has_dask;
                run.diff(&helm, &release, run.lacking(has_dask)?)
            };
            (hubs[index].name.as_str(), diff())
        });
        let differs = run.show_diffs(diffs)?;
        if args.how.dry_run {
            return Ok(args.how.exit_code(differs));
        }
        session::confirm(
            &format!(
                "Deploy {} of `{}`",
                number_of(hubs.len(), "hub"),
                cluster.name
            ),
            args.how.yes,
        )?;
    }
    let report = Report::new(
        &run.mask,
        &args.how,
        &cluster,
        hubs.iter().map(|it| it.name.as_str()).collect(),
    );
    let crds = Mutex::new(BTreeSet::new());
    // Nothing has to stand where nothing is changed.
    let gates: Vec<_> = hubs
        .iter()
        .map(|it| {
            if args.how.dry_run {
                vec![]
            } else {
                gates(it, &hubs)
            }
        })
        .collect();
    process::in_order(&sh, jobs, &gates, |sh, index| {
        let hub = hubs[index];
        if process::check_stopped().is_err() {
            return report.not_begun(index);
        }
        let missing: Vec<_> = gates[index]
            .iter()
            .filter(|it| !report.stands(**it))
            .collect();
        if !missing.is_empty() {
            let missing = list(missing.into_iter().map(|it| &hubs[*it].name));
            match &args.ignore_staging {
                Some(reason) => say!("{}: going on without {missing}: {reason}", hub.name),
                None => return report.hold_back(index, &missing),
            }
        }
        let started = Instant::now();
        report.add(index, started, run.hub(sh, &cluster, hub, args, &crds));
    });
    report.finish(&format!("{} hubs", hubs.len()))?;
    Ok(ExitCode::SUCCESS)
}

impl Deploy {
    /// What helm is told besides.
    fn flags(&self) -> Vec<&'static str> {
        let flags: [(bool, &[&'static str]); 3] = [
            // A release that helm 3 made would keep to its way.
            (
                self.force_conflicts,
                &["--server-side=true", "--force-conflicts"],
            ),
            // Which helm doesn't do by server-side apply.
            (
                self.force_replace,
                &["--server-side=false", "--force-replace"],
            ),
            (self.cleanup_on_fail, &["--cleanup-on-fail"]),
        ];
        flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .flat_map(|(_, it)| it)
            .copied()
            .collect()
    }
}

/// The domain in a `domain_override_file`.
pub(crate) fn domain_in(file: &InMemory) -> Result<String> {
    let shown = file.source.display();
    let yaml: serde_yaml::Value = serde_yaml::from_str(&file.text()?)
        .ok()
        .with_context(|| format!("`{shown}` isn't YAML"))?;
    let domain = yaml.get("domain").and_then(serde_yaml::Value::as_str);
    Ok(domain
        .with_context(|| format!("`{shown}` has no `domain`"))?
        .to_owned())
}

/// Where this machine reaches the hub on the real node of a rehearsal cluster, if its proxy has a port there.
pub(crate) fn node_port(api: &Api, hub: &Hub) -> Option<String> {
    let service = api.get(&format!(
        "/api/v1/namespaces/{}/services/proxy-public",
        hub.name
    ));
    let port = service.ok()?["spec"]["ports"][0]["nodePort"].as_u64()?;
    Some(format!("http://{}:{port}", node::ADDRESS))
}

fn default_jobs() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(8)
}

/// The numbers of the hubs which have to stand before this one is deployed: those among the run's that gate it.
fn gates(hub: &Hub, hubs: &[&Hub]) -> Vec<usize> {
    let gates = hubs
        .iter()
        .enumerate()
        .filter(|(_, it)| it.is_staging() && hub.waits_for(it));
    gates.map(|(index, _)| index).collect()
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
    ) -> Result<(Shell, Run)> {
        let sh = &setup::provide(sh, setup::FOR_HUBS, cluster.is_local())?;
        let settings = Settings::load(root)?;
        let charts = charts::prepare(sh, root, &settings, charts)?;
        let fleet = validate::before_deploy(sh, root, &settings, what, &cluster.name, hubs)?;
        let render_only = how.dry_run && credentials::is_down(root, cluster)?;
        let sh = &secrets::with_demo_key(sh, root, cluster)?;
        let files = fleet.listed();
        let read =
            process::side_by_side(sh, &files, |sh, (file, is_encrypted)| match is_encrypted {
                true => secrets::decrypt(sh, file),
                false => secrets::read(root, file),
            });
        let files: BTreeMap<_, _> = files.into_iter().map(|(file, _)| file).zip(read).collect();
        let login = if render_only {
            say!(
                "the rehearsal cluster `{}` is down: rendering without it",
                cluster.name
            );
            None
        } else {
            let login = credentials::log_in(sh, root, cluster);
            Some(login.with_context(|| format!("cannot log in to `{}`", cluster.name))?)
        };
        let keys = login.iter().flat_map(|it| &it.keys);
        let mask = Mask::new(files.values().flatten().chain(keys));
        let sh = login.as_ref().map_or(sh, |it| &it.sh).clone();
        let record = Record::new(&sh, root);
        mask.announce();
        if !how.dry_run {
            record.warn();
            process::end_in_order();
        }
        let session = login.map(|it| Session::start(it, record)).transpose()?;
        Ok((
            sh,
            Run {
                settings,
                charts,
                fleet,
                files,
                mask,
                session,
            },
        ))
    }

    fn helm<'a>(&'a self, sh: &'a Shell, how: &How) -> Helm<'a> {
        Helm {
            debug: how.debug,
            ..Helm::new(sh, &self.mask, how.timeout)
        }
    }

    /// There is one wherever something is changed.
    fn api(&self) -> Result<&Api> {
        Ok(&self.session.as_ref().context("there is no login")?.api)
    }

    /// Brings a release to what it is to be, and checks it: its new revision, and what the check says.
    fn upgrade<T>(
        &self,
        helm: &Helm,
        release: &Release,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let session = self.session.as_ref().context("there is no login")?;
        session.unless_stopped(release.name, helm.upgrade(release, session, check))
    }

    fn release<'a>(&'a self, cluster: &Cluster, hub: &'a Hub) -> Result<Release<'a>> {
        let files = hub
            .helm_chart_values_files
            .iter()
            .map(|it| cluster.dir.join(it));
        let values = self.readable(files)?;
        Ok(Release {
            name: &hub.name,
            chart: self.chart(&hub.chart())?,
            values,
            flags: Vec::new(),
        })
    }

    /// What would change in the cluster; nothing if nothing does.
    fn diff(&self, helm: &Helm, release: &Release, lacks: Option<&str>) -> Result<String> {
        let session = self
            .session
            .as_ref()
            .context("there's nothing to compare with: the cluster is down")?;
        let manifest = match lacks {
            None => helm.manifests(release)?.0,
            Some(_) => helm.template(release)?,
        };
        let plain = self.fleet.plain(release.name);
        Differ::new(&session.api, &self.mask, release.name, plain).diff(&manifest)
    }

    /// The revision of a release that is deployed and stands, if a deploy would make the same of it.
    fn unchanged(&self, helm: &Helm, release: &Release) -> Result<Option<u32>> {
        let Some(Session { api, .. }) = &self.session else {
            return Ok(None);
        };
        let Some(newest) =
            history::last(api, release.name)?.filter(|it| it.revision.status == "deployed")
        else {
            return Ok(None);
        };
        let (manifest, hooks) = helm.manifests(release)?;
        let deployed = newest.content(api)?;
        let deployed_hooks = deployed["hooks"].as_array().into_iter().flatten();
        let is_same = deployed["manifest"] == *manifest
            && deployed_hooks
                .map(|it| it["manifest"].as_str().unwrap_or_default())
                .eq(hooks.iter());
        let is_same = is_same
            && rollout::look(api, release.name, &manifest)?.0
            && Differ::new(api, &self.mask, release.name, Plain::new())
                .diff(&manifest)?
                .is_empty();
        Ok(is_same.then_some(newest.revision.number))
    }

    /// Prints what would change, release by release; whether anything does.
    fn show_diffs(&self, diffs: Vec<(&str, Result<String>)>) -> Result<bool> {
        let is_coloured = std::io::stdout().is_terminal()
            && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        let mut differs = false;
        let mut failures = Vec::new();
        for (name, result) in diffs {
            match result {
                Ok(text) if text.is_empty() => say!("{name}: nothing would change"),
                Ok(text) => {
                    differs = true;
                    let text = self.mask.hide(&text);
                    let text = if is_coloured {
                        diff::coloured(&text)
                    } else {
                        text
                    };
                    crate::print(&format!("# {name}\n{text}"))?;
                }
                Err(err) => {
                    failures.push(format!("`{name}`: {}", self.mask.hide(&format!("{err:#}"))))
                }
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(differs)
    }

    /// One hub: what a dry run shows, or what its line in the end says.
    fn hub(
        &self,
        sh: &Shell,
        cluster: &Cluster,
        hub: &Hub,
        args: &Deploy,
        crds: &Mutex<BTreeSet<String>>,
    ) -> Result<Done> {
        let helm = Helm {
            rolls_back: args.rollback_on_failure,
            force_older: args.force_older,
            flags: args.flags(),
            ..self.helm(sh, &args.how)
        };
        let release = self.release(cluster, hub)?;
        let kind = self.fleet.kind(hub)?;
        let has_dask = kind.has_dask;
        if args.how.dry_run {
            return self.show(&helm, &release, self.lacking(has_dask)?);
        }
        let domain = self.domain(cluster, hub)?;
        if args.skip_unchanged
            && self.lacking(has_dask)?.is_none()
            && let Some(revision) = self.unchanged(&helm, &release)?
        {
            return Ok(Done {
                revision: Some(revision),
                is_unchanged: true,
                ..Done::default()
            });
        }
        if has_dask {
            self.apply_dask_crds(sh, &release, args.dask_gateway_version.as_deref(), crds)?;
        }
        let rehearsal = self.session.as_ref().and_then(|it| it.rehearsal);
        let (revision, health) = self.upgrade(&helm, &release, |progress| {
            if args.skip_hub_health_check {
                return Ok(None);
            }
            progress.phase("its pods are ready, checking its health");
            health::after_rollout(self.api()?, hub, &kind, rehearsal, &domain, &self.mask).map(Some)
        })?;
        let address = match rehearsal {
            None => Some(format!("https://{}", self.mask.hide(&domain))),
            Some(Nodes::Real) => node_port(self.api()?, hub),
            // Nobody answers there.
            Some(Nodes::Simulated) => None,
        };
        Ok(Done {
            revision: Some(revision),
            note: address,
            health,
            ..Done::default()
        })
    }

    /// What would be applied. While the cluster lacks CRDs that come first, it can't be asked.
    fn show(&self, helm: &Helm, release: &Release, lacks: Option<&str>) -> Result<Done> {
        let shown = match lacks {
            None if self.session.is_some() => helm.dry_run(release)?,
            Some(lacks) if self.session.is_some() => {
                say!(
                    "the cluster has no {lacks} yet: rendering `{}` without asking it",
                    release.name
                );
                helm.render(release)?
            }
            _ => helm.render(release)?,
        };
        Ok(Done {
            shown: Some(shown),
            ..Done::default()
        })
    }

    /// What a hub needs that the cluster hasn't got yet.
    fn lacking(&self, has_dask: bool) -> Result<Option<&'static str>> {
        if !has_dask || self.session.is_none() {
            return Ok(None);
        }
        let path =
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/daskclusters.gateway.dask.org";
        Ok(self.api()?.find(path)?.is_none().then_some("dask-gateway"))
    }

    fn chart(&self, chart: &Path) -> Result<&Path> {
        match &self.charts[chart] {
            Ok(prepared) => Ok(prepared),
            Err(err) => bail!("{err:#}"),
        }
    }

    /// Where programs can read each file's content.
    fn readable(&self, files: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>> {
        let readable = |file: PathBuf| match &self.files[&file] {
            Ok(read) => Ok(read.file.path().to_owned()),
            Err(err) => bail!("{err:#}"),
        };
        files.into_iter().map(readable).collect()
    }

    /// Where people reach the hub: cluster.yaml's domain, or the one in the hub's `domain_override_file`.
    fn domain(&self, cluster: &Cluster, hub: &Hub) -> Result<String> {
        let Some(file) = &hub.domain_override_file else {
            return Ok(hub.domain.clone());
        };
        let path = cluster.dir.join(file);
        match &self.files[&path] {
            Ok(read) => domain_in(read),
            Err(err) => bail!("{err:#}"),
        }
    }

    /// Brings dask-gateway's CRDs to the wanted version, or to that of the chart: helm itself never touches CRDs that
    /// are there. `applied` has the versions of hubs before this one.
    fn apply_dask_crds(
        &self,
        sh: &Shell,
        release: &Release,
        wanted: Option<&str>,
        applied: &Mutex<BTreeSet<String>>,
    ) -> Result<()> {
        let found = charts::dependency(release.chart, "dask-gateway")?;
        let version = wanted.or(found.as_ref().map(|(version, _)| version.as_str())).context(
            "the chart has no dependency `dask-gateway`\nhint: `--dask-gateway-version` says the version of its CRDs",
        )?;
        let mut applied = applied.lock().expect("nobody panics with it");
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
                format!(
                    "{}\n---\n{}",
                    manifest("daskclusters")?,
                    manifest("traefik")?
                )
            }
        };
        say!(
            "{}: applying the CRDs of dask-gateway {version}",
            release.name
        );
        // They are too large for an annotation of kubectl's own, and whoever applied them before gives way.
        let cmd = cmd!(
            sh,
            "kubectl apply --server-side --force-conflicts --filename -"
        );
        let output = process::run(sh, cmd, manifests.as_bytes())?;
        let said = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.success,
            "cannot apply the CRDs of dask-gateway {version}: {}",
            said.trim()
        );
        applied.insert(version.to_owned());
        Ok(())
    }
}
