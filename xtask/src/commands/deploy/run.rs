//! What all releases of one command share.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow, ensure};
use xshell::{Shell, cmd};

use crate::{
    charts::{
        ChartPath, fetch,
        prepare::{self, PreparedCharts},
    },
    commands::deploy::{
        given::{Common, Given},
        options::{Deploy, DeployOptions},
        report::DeployedRelease,
        unchanged::{self, Unchanged},
        values::OpenedFiles,
    },
    health::{
        address::node_port,
        check::{self, Location},
    },
    kubernetes::{
        api::{self, Api},
        credentials::{self, login::Login},
        diff::Differ,
        helm::Release,
        history,
        lease::Lease,
        manifests::{Disguised, Rendering, Trials},
        ownership,
        record::Record,
        rehearsal::{chart_images, room},
        release::{HelmRunner, Rendered, UpgradePolicy},
        rollout,
        session::Session,
    },
    machine::{process, programs::Tools, terminal::Progress, tree::Tree, workflow},
    repository::{
        cluster::{Cluster, Hub, Nodes},
        fleet::Fleet,
        hub_traits::{self, HubTraits, PlainValues},
        kubernetes_version::Kubernetes,
        release_config::ReleaseConfig,
        rules,
    },
    secrets::{Decrypter, Mask},
    settings::Settings,
};

/// What all releases of one command share, ready before the first one is touched.
pub(crate) struct Run {
    pub(crate) settings: Settings,
    charts: PreparedCharts,
    pub(crate) fleet: Fleet,
    kubernetes: Kubernetes,
    files: OpenedFiles,
    pub(crate) mask: Mask,
    /// There is none in a dry run for a rehearsal cluster that is down: then manifests are rendered without it.
    pub(crate) session: Option<Session>,
    /// Digests of what helm is given for hubs.
    given: Given,
    /// The hubs that need no helm to be known as unchanged.
    unchanged: Unchanged,
    /// The chart or the cluster whose release may be taken over.
    take_over: Option<String>,
}

/// What is ready before anything is decrypted but the login.
pub(crate) struct Prepared {
    settings: Settings,
    charts: PreparedCharts,
    fleet: Fleet,
    kubernetes: Kubernetes,
    decrypter: Decrypter,
    /// Logged in, if there is a session.
    sh: Shell,
    session: Option<Session>,
    take_over: Option<String>,
}

/// A hub with what cluster.yaml says of its release.
pub(crate) struct HubToDeploy<'a> {
    pub(crate) hub: &'a Hub,
    config: ReleaseConfig<'a>,
}

impl HubToDeploy<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.hub.name
    }
}

impl Prepared {
    /// Checks what is to be deployed, prepares its charts and logs in to the cluster.
    pub(crate) fn new(
        tools: &Tools,
        tree: &Tree,
        settings: Settings,
        fleet: Fleet,
        cluster: &str,
        options: &DeployOptions,
    ) -> Result<Prepared> {
        let (fleet, charts) = check_and_prepare(tools.sh(), tree, &settings, fleet)?;
        let cluster = fleet.cluster(cluster)?;
        let kubernetes = cluster.kubernetes;
        let decrypter = credentials::decrypter(tools, tree, cluster)?;
        let login = log_in(&decrypter, tree, cluster, options)?;
        let sh = login.as_ref().map_or(decrypter.sh(), |it| &it.sh).clone();
        let session = start_session(&sh, tree, cluster, login, options)?;
        Ok(Prepared {
            settings,
            charts,
            fleet,
            kubernetes,
            decrypter,
            sh,
            session,
            take_over: options.take_over.clone(),
        })
    }

    /// Decrypts the files of the hubs that may have to be deployed. Returns also a `Shell` that is logged in.
    pub(crate) fn for_hubs(self, tools: &Tools, args: &Deploy) -> Result<(Shell, Run)> {
        let Some(session) = &self.session else {
            return self.open(Given::new(), Unchanged::new());
        };
        let wanted = args.dask_gateway_version.as_deref();
        let common = Common::find(tools, &session.api, &self.fleet, &self.charts, wanted);
        // Without digests helm is asked of each hub.
        let given = common.map_or_else(|_| Given::new(), |it| it.digests());
        let unchanged = if args.skips_unchanged() {
            unchanged::find(session, &self.fleet, &given)
        } else {
            Unchanged::new()
        };
        self.open(given, unchanged)
    }

    /// Decrypts the files of all releases but those that are unchanged. Returns also a `Shell` that is logged in.
    pub(crate) fn open(self, given: Given, unchanged: Unchanged) -> Result<(Shell, Run)> {
        let mut changed = self.fleet.releases();
        changed.retain(|it| !unchanged.contains_key(it.name()));
        let files = OpenedFiles::open(&self.decrypter, &self.fleet, &changed)?;
        let keys = self.session.iter().flat_map(Session::keys);
        let mask = Mask::new(files.all().chain(keys));
        mask.announce();
        let run = Run {
            settings: self.settings,
            charts: self.charts,
            fleet: self.fleet,
            kubernetes: self.kubernetes,
            files,
            mask,
            session: self.session,
            given,
            unchanged,
            take_over: self.take_over,
        };
        Ok((self.sh, run))
    }
}

impl Run {
    /// The hubs to deploy, in the order of cluster.yaml.
    pub(crate) fn hubs(&self) -> Vec<HubToDeploy<'_>> {
        let mut hubs = Vec::new();
        for config in self.fleet.releases() {
            if let Some(hub) = config.hub {
                hubs.push(HubToDeploy { hub, config });
            }
        }
        hubs
    }

    /// Whether a hub is left as it is without asking helm.
    pub(crate) fn is_unchanged(&self, hub: &str) -> bool {
        self.unchanged.contains_key(hub)
    }

    pub(crate) fn helm<'a>(&'a self, sh: &'a Shell, options: &DeployOptions) -> HelmRunner<'a> {
        HelmRunner {
            kubernetes: self.kubernetes,
            debug: options.debug,
            ..HelmRunner::new(sh, &self.mask, options.timeout)
        }
    }

    /// There is one wherever something is changed.
    fn api(&self) -> Result<&Api> {
        Ok(&self.session.as_ref().context("there is no login")?.api)
    }

    /// What the nodes are, if this is a rehearsal cluster.
    pub(crate) fn rehearsal(&self) -> Option<Nodes> {
        self.session.as_ref()?.rehearsal
    }

    /// Installs or upgrades a release, and checks it. Returns its new revision, and what the check says.
    pub(crate) fn upgrade<T>(
        &self,
        helm: &HelmRunner,
        release: &Release,
        policy: UpgradePolicy,
        check: impl FnOnce(&Progress, &Lease) -> Result<T>,
    ) -> Result<(u32, T)> {
        let session = self.session.as_ref().context("there is no login")?;
        if let (Some(nodes), Some(manifest)) = (session.rehearsal, helm.peek(release)) {
            let manifest = manifest.with_secrets();
            room::make(&session.api, release.name, manifest, nodes)?;
            if nodes == Nodes::Real {
                chart_images::provide(helm.sh, release.name, manifest)?;
            }
        }
        let upgraded = helm.upgrade(release, session, policy, check);
        session.unless_stopped(release.name, upgraded)
    }

    /// What helm is told of a release.
    pub(crate) fn release<'a>(&'a self, config: &ReleaseConfig<'a>) -> Result<Release<'a>> {
        let mut values = Vec::new();
        for file in config.values_files() {
            values.push(self.files.of(config, file)?.file.path().to_owned());
        }
        let by_images = self.files.by_images(config)?;
        values.extend(by_images.map(|it| it.file.path().to_owned()));
        Ok(Release {
            name: config.name(),
            chart: self.chart(&config.chart)?,
            values,
            flags: Vec::new(),
        })
    }

    /// A release with placeholders for its secrets; none if it has no secrets.
    fn disguised<'a>(&self, release: &Release<'a>) -> Option<Disguised<'a>> {
        let values = release.values.iter();
        let encrypted = values.filter_map(|it| self.files.placeholders(it));
        let encrypted: Vec<_> = encrypted.flatten().collect();
        if encrypted.is_empty() {
            return None;
        }
        let with = |set: usize| Release {
            name: release.name,
            chart: release.chart,
            values: self.values_with(release, set),
            flags: release.flags.clone(),
        };
        Some(Disguised {
            releases: [with(0), with(1)],
            mask: Mask::new(encrypted),
        })
    }

    /// A release's values files, with one of the sets of placeholders for those that are encrypted.
    fn values_with(&self, release: &Release, set: usize) -> Vec<PathBuf> {
        let mut values = Vec::new();
        for file in &release.values {
            let placeholders = self.files.placeholders(file);
            let given = placeholders.map_or(file.as_path(), |it| it[set].file.path());
            values.push(given.to_owned());
        }
        values
    }

    fn chart(&self, chart: &ChartPath) -> Result<&Path> {
        let prepared = self.charts[chart].as_ref();
        Ok(prepared.map_err(|err| anyhow!("{err:#}"))?)
    }

    /// Warns that a deploy of the release would be refused, if it is somebody else's or another cluster's.
    fn warn_of_others(&self, release: &Release) -> Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let name = release.name;
        let revisions = history::revisions(&session.api, name)?;
        let take_over = self.take_over.as_deref();
        match ownership::objection(session, release, &revisions, take_over)? {
            Some(objection) => workflow::tell_warning(name, &objection),
            None => Ok(()),
        }
    }

    /// What would change in the cluster; empty if nothing does. `lacks` is what the cluster needs first.
    pub(crate) fn diff(
        &self,
        helm: &HelmRunner,
        release: &Release,
        plain: &PlainValues,
        lacks: Option<&str>,
    ) -> Result<String> {
        let session = self.session.as_ref();
        let session = session.context("there's nothing to compare with: the cluster is down")?;
        self.warn_of_others(release)?;
        let api = Some(&*session.api).filter(|_| lacks.is_none());
        let rendering = helm.rendering(release, self.disguised(release).as_ref(), api)?;
        Differ::new(&session.api, &self.mask, release.name, plain)?.diff(&rendering)
    }

    pub(crate) fn diff_of_hub(
        &self,
        sh: &Shell,
        hub: &HubToDeploy,
        args: &Deploy,
    ) -> Result<String> {
        if self.is_unchanged(hub.name()) {
            return Ok(String::new());
        }
        let helm = self.helm_for_hubs(sh, args);
        let release = self.release(&hub.config)?;
        let traits = HubTraits::find(&self.fleet, &hub.config)?;
        let plain = hub_traits::plain_values(&self.fleet, &hub.config);
        self.diff(&helm, &release, &plain, self.lacking(&traits)?)
    }

    fn helm_for_hubs<'a>(&'a self, sh: &'a Shell, args: &Deploy) -> HelmRunner<'a> {
        HelmRunner {
            flags: args.flags(),
            ..self.helm(sh, &args.options)
        }
    }

    /// Deploys one hub. Returns what a dry run shows, or what its line of the report says.
    pub(crate) fn deploy_hub(
        &self,
        sh: &Shell,
        hub: &HubToDeploy,
        args: &Deploy,
        crds: &Mutex<BTreeSet<String>>,
    ) -> Result<DeployedRelease> {
        if let Some(revision) = self.unchanged.get(hub.name()) {
            return Ok(DeployedRelease::unchanged(*revision));
        }
        let helm = HelmRunner {
            given: self.digest(hub),
            ..self.helm_for_hubs(sh, args)
        };
        let release = self.release(&hub.config)?;
        let traits = HubTraits::find(&self.fleet, &hub.config)?;
        let lacks = self.lacking(&traits)?;
        if args.options.dry_run {
            return self.show(&helm, &release, lacks);
        }
        let domain = self.domain(hub)?;
        let wants_crds = traits.has_dask && args.dask_gateway_version.is_some();
        if args.skip_unchanged
            && lacks.is_none()
            && !wants_crds
            && let Some(revision) = self.unchanged_by_helm(&helm, &release)?
        {
            return Ok(DeployedRelease::unchanged(revision));
        }
        if traits.has_dask {
            let wanted = args.dask_gateway_version.as_deref();
            self.apply_dask_crds(sh, &release, wanted, crds)?;
        }
        let policy = args.options.policy();
        let (revision, health) = self.upgrade(&helm, &release, policy, |progress, lease| {
            let is_checked = !args.skip_hub_health_check;
            let check = || self.check_health(sh, hub, &traits, &domain, lease, progress);
            is_checked.then(check).transpose()
        })?;
        Ok(DeployedRelease {
            revision: Some(revision),
            note: self.address(hub, &domain)?,
            health,
            ..DeployedRelease::default()
        })
    }

    /// Checks a hub after its rollout: "healthy", or why it couldn't be checked.
    fn check_health(
        &self,
        sh: &Shell,
        hub: &HubToDeploy,
        traits: &HubTraits,
        domain: &str,
        lease: &Lease,
        progress: &Progress,
    ) -> Result<String> {
        let location = Location {
            sh,
            api: self.api()?,
            rehearsal: self.rehearsal(),
            domain,
            shared_with: self.fleet.elsewhere(hub.config.cluster, hub.hub),
        };
        check::after_rollout(lease, progress, hub.hub, traits, location, &self.mask)
    }

    /// Where people find a hub.
    fn address(&self, hub: &HubToDeploy, domain: &str) -> Result<Option<String>> {
        Ok(match self.rehearsal() {
            None => Some(format!("https://{}", self.mask.hide(domain))),
            Some(Nodes::Real) => node_port(self.api()?, hub.hub),
            // Nobody answers there.
            Some(Nodes::Simulated) => None,
        })
    }

    /// The hub's domain: cluster.yaml's, or the one in the hub's `domain_override_file`.
    fn domain(&self, hub: &HubToDeploy) -> Result<String> {
        let overridden = self.files.domain(&hub.config)?;
        Ok(overridden.unwrap_or_else(|| hub.hub.domain.clone()))
    }

    /// The revision of a release that is deployed and ready, if helm would make the same of it now.
    fn unchanged_by_helm(&self, helm: &HelmRunner, release: &Release) -> Result<Option<u32>> {
        let session = self.session.as_ref().context("there is no login")?;
        let (api, target) = (&*session.api, &session.target);
        let revisions = history::revisions(api, release.name)?;
        let Some(newest) = revisions.last().filter(|it| it.may_be_as_it_was()) else {
            return Ok(None);
        };
        if ownership::other_cluster(target, &revisions).is_some() {
            return Ok(None);
        }
        let rendered = helm.manifests(release)?;
        let is_same = rendered.is_as_in(&newest.content(api, release.name)?)?
            && rollout::look(api, release.name, rendered.manifest.with_secrets())?.is_ready
            && self.has_no_differences(release, rendered)?;
        if let Some(given) = helm.given.filter(|_| is_same && newest.is_ready()) {
            // If it cannot be recorded, helm is asked the next time, too.
            let _ = session.mark_given(release.name, newest, given);
        }
        Ok(is_same.then_some(newest.number))
    }

    /// The digest of what helm is given for a hub, if that is known.
    fn digest(&self, hub: &HubToDeploy) -> Option<&str> {
        let is_known = self.files.are_of_known_sources(&hub.config);
        self.given
            .get(hub.name())
            .map(String::as_str)
            .filter(|_| is_known)
    }

    /// Whether the cluster is as a release would make it. Nobody sees what differs.
    fn has_no_differences(&self, release: &Release, rendered: Rendered) -> Result<bool> {
        let plain = PlainValues::default();
        let rendering = Rendering {
            manifest: rendered.manifest,
            trials: Trials::Unneeded,
        };
        let differ = Differ::new(self.api()?, &self.mask, release.name, &plain)?;
        Ok(differ.diff(&rendering)?.is_empty())
    }

    /// What would be applied. While the cluster lacks CRDs that come first, it can't be asked.
    pub(crate) fn show(
        &self,
        helm: &HelmRunner,
        release: &Release,
        lacks: Option<&str>,
    ) -> Result<DeployedRelease> {
        self.warn_of_others(release)?;
        let session = self.session.as_ref();
        if let (Some(lacks), Some(_)) = (lacks, session) {
            let name = release.name;
            say!("the cluster has no {lacks} yet: rendering `{name}` without asking it");
        }
        let api = session.filter(|_| lacks.is_none()).map(|it| &*it.api);
        let rendering = helm.rendering(release, self.disguised(release).as_ref(), api)?;
        let name = release.name;
        let shown = format!(
            "# {name}: what would be applied in the namespace `{name}`\n---\n{}\n",
            rendering.shown().trim_end()
        );
        Ok(DeployedRelease {
            shown: Some(shown),
            ..DeployedRelease::default()
        })
    }

    /// What a hub needs that the cluster hasn't got yet.
    fn lacking(&self, traits: &HubTraits) -> Result<Option<&'static str>> {
        if !traits.has_dask || self.session.is_none() {
            return Ok(None);
        }
        let has_crds = unchanged::has_dask_crds(self.api()?)?;
        Ok((!has_crds).then_some("dask-gateway"))
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
        let found = prepare::dependency(release.chart, "dask-gateway")?;
        let own = found.as_ref().map(|(version, _)| version.as_str());
        let version = wanted.or(own).with_context(|| {
            format!(
                "the chart has no dependency `dask-gateway`\nhint: {} says the version of its CRDs",
                workflow::at_terminal("--dask-gateway-version")
            )
        })?;
        let mut applied = applied.lock().expect("nobody panics with it");
        if applied.contains(version) {
            return Ok(());
        }
        let manifests = match &found {
            Some((own, crds)) if own == version && !crds.is_empty() => crds.clone(),
            _ => self.fetch_dask_crds(version)?,
        };
        let name = release.name;
        say!("{name}: applying the CRDs of dask-gateway {version}");
        self.apply(sh, &manifests)
            .with_context(|| format!("cannot apply the CRDs of dask-gateway {version}"))?;
        applied.insert(version.to_owned());
        Ok(())
    }

    /// Applies CRDs. They are too large for an annotation of kubectl's own, and whoever applied them before gives way.
    fn apply(&self, sh: &Shell, manifests: &str) -> Result<()> {
        let output = api::repeated(|| {
            let cmd = cmd!(
                sh,
                "kubectl apply --server-side --force-conflicts --filename -"
            );
            process::run(sh, cmd, manifests.as_bytes())
        })?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.success, "{}", self.mask.hide(message.trim()));
        Ok(())
    }

    /// Gets the CRDs of a version of dask-gateway from its repository.
    fn fetch_dask_crds(&self, version: &str) -> Result<String> {
        let folder = "https://raw.githubusercontent.com/dask/dask-gateway";
        let folder = format!("{folder}/{version}/resources/helm/dask-gateway/crds");
        let clusters = fetch::manifest(&self.settings, &format!("{folder}/daskclusters.yaml"))?;
        let traefik = fetch::manifest(&self.settings, &format!("{folder}/traefik.yaml"))?;
        Ok(format!("{clusters}\n---\n{traefik}"))
    }
}

/// Starts the session of a login, with the record of this run; none without a login.
fn start_session(
    sh: &Shell,
    tree: &Tree,
    cluster: &Cluster,
    login: Option<Login>,
    options: &DeployOptions,
) -> Result<Option<Session>> {
    let record = Record::new(sh, tree)?;
    if !options.dry_run {
        record.warn();
    }
    let Some(login) = login else { return Ok(None) };
    let session = Session::start(login, record, &cluster.name)?;
    say!("{}: {}", cluster.name, session.target.place);
    Ok(Some(session))
}

/// Checks everything that can be checked, prepares the charts, and then checks what needed charts that had to be fetched.
fn check_and_prepare(
    sh: &Shell,
    tree: &Tree,
    settings: &Settings,
    fleet: Fleet,
) -> Result<(Fleet, PreparedCharts)> {
    let (mut fleet, is_unchecked) = rules::before_deploy(sh, fleet, fetch::cached_schemas())?;
    let charts = prepare::prepare(sh, tree, settings, fleet.charts_wanted())?;
    if is_unchecked {
        (fleet, _) = rules::before_deploy(sh, fleet, fetch::schemas(settings))?;
    }
    Ok((fleet, charts))
}

/// Logs in to the cluster, unless it is a rehearsal cluster that is down and a dry run can do without.
fn log_in(
    decrypter: &Decrypter,
    tree: &Tree,
    cluster: &Cluster,
    options: &DeployOptions,
) -> Result<Option<Login>> {
    let name = &cluster.name;
    if options.dry_run && credentials::is_down(tree, cluster)? {
        say!("the rehearsal cluster `{name}` is down: rendering without it");
        return Ok(None);
    }
    let login = credentials::log_in(decrypter, tree, cluster);
    Ok(Some(
        login.with_context(|| format!("cannot log in to `{name}`"))?,
    ))
}
