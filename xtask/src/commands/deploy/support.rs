//! cert-manager and the chart `support`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xshell::Shell;

use crate::{
    charts::{
        fetch::{self, Remote},
        version::Version,
    },
    commands::deploy::{
        diffs,
        given::Given,
        options::DeployOptions,
        report::{DeployReport, DeployedRelease},
        run::{Prepared, Run},
        unchanged::Unchanged,
    },
    kubernetes::{
        api::Api,
        helm::Release,
        release::{FORCE_CONFLICTS, HelmRunner},
        volumes,
    },
    machine::{
        name::Name,
        process,
        programs::{self, Tools},
        tree::Tree,
        workflow,
    },
    repository::{
        cluster::SHARED,
        fleet::Fleet,
        hub_traits::{self, PlainValues},
        problem::What,
    },
    settings::Settings,
};

/// Install or upgrade cert-manager and the chart `support` of a cluster
///
/// These are what the hubs of a cluster share: certificates, the ingress controller, Prometheus and Grafana. Values are
/// read from enc-support.secret.values.yaml, enc-cryptnono.secret.values.yaml and values.jsonnet in helm-charts/support, as
/// far as they exist, and then from the files that cluster.yaml lists under `support`. A cluster without `support` gets
/// nothing. Set `support.cert_manager: false` for a cluster that has a cert-manager of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask deploy-support lake --diff  show what would change, and ask\n\
\x20 cargo xtask deploy-support lake         cert-manager, then the chart `support`")]
pub struct DeploySupport {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// The version of cert-manager's chart, v1.15.0 or newer
    #[arg(long, value_name = "VERSION", default_value = "v1.20.3")]
    cert_manager_version: String,
    /// Leave cert-manager's CRDs in the cluster as they are
    #[arg(long)]
    skip_crds: bool,
    #[command(flatten)]
    options: DeployOptions,
}

/// Deploys cert-manager and the chart `support`.
pub fn deploy_support(sh: &Shell, tree: &Tree, args: &DeploySupport) -> Result<ExitCode> {
    if !args.options.dry_run {
        process::end_in_order();
    }
    let fleet = Fleet::load(sh, tree, &[What::Support], Some(&args.cluster), &[])?;
    let cluster = fleet.cluster(&args.cluster)?;
    let Some(support) = &cluster.support else {
        let file = cluster.file();
        say!("{} has no `support`: nothing to do", file.display());
        return Ok(ExitCode::SUCCESS);
    };
    refuse_old_cert_manager(&args.cert_manager_version)?;
    let settings = Settings::load(tree)?;
    if !args.options.diff {
        args.options
            .refuse_frozen(tree, &settings, cluster, &SHARED)?;
    }
    let wants_cert_manager = support.cert_manager;
    let tools = programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let prepared = Prepared::new(&tools, tree, settings, fleet, &args.cluster, &args.options)?;
    let (sh, mut run) = prepared.open(Given::new(), Unchanged::new())?;
    if let Some(session) = &mut run.session {
        args.options
            .record_ignored_freeze(&run.settings, &args.cluster, &mut session.record);
    }

    let releases = run.fleet.releases();
    let config = releases.first().context("`support` has no release")?;
    // By the person's own logins to registries.
    let cert_manager = wants_cert_manager
        .then(|| fetch_cert_manager(&tools, &run.settings, args))
        .transpose();
    let (cert_manager, release) = both(cert_manager, run.release(config))?;
    let session = run.session.as_ref();
    let crds = session.map_or(Ok(None), |it| CertManagerCrds::find(&it.api))?;
    let cert_manager = cert_manager.as_deref();
    let support = SupportReleases {
        run: &run,
        helm: HelmRunner {
            flags: args.options.flags(),
            ..run.helm(&sh, &args.options)
        },
        cert_manager: cert_manager.map(|it| cert_manager_release(it, args, crds.as_ref())),
        plain: hub_traits::plain_values(&run.fleet, config),
        release,
        // Its issuer is of a kind that cert-manager brings.
        lacks: crds.is_none().then_some("cert-manager"),
    };
    support.show_or_deploy(args)
}

/// What both results have, or the errors of both.
fn both<'a>(
    cert_manager: Result<Option<PathBuf>>,
    release: Result<Release<'a>>,
) -> Result<(Option<PathBuf>, Release<'a>)> {
    match (cert_manager, release) {
        (Ok(cert_manager), Ok(release)) => Ok((cert_manager, release)),
        (Err(err), Ok(_)) => bail!("{err:#}\n{}", fetch::HINT),
        (Ok(_), Err(err)) => Err(err),
        (Err(err), Err(other)) => bail!("{err:#}\n{other:#}"),
    }
}

/// With an older chart CRDs, and with them all certificates, go when they are left out once.
fn refuse_old_cert_manager(version: &str) -> Result<()> {
    let oldest = Version::new(1, 15, 0);
    ensure!(
        Version::parse(version).is_some_and(|it| it.compare(&oldest).is_ge()),
        "`--cert-manager-version {version}` isn't v1.15.0 or newer: with an older chart CRDs, and with them all \
         certificates, go when they are left out once"
    );
    Ok(())
}

fn fetch_cert_manager(tools: &Tools, settings: &Settings, args: &DeploySupport) -> Result<PathBuf> {
    let chart = Remote {
        name: Name::new("cert-manager")?,
        version: args.cert_manager_version.clone(),
        repository: "https://charts.jetstack.io".to_owned(),
    };
    chart.fetch(tools.sh(), settings)
}

/// The two releases, ready to be shown or deployed.
struct SupportReleases<'a> {
    run: &'a Run,
    helm: HelmRunner<'a>,
    /// None for a cluster that has a cert-manager of its own.
    cert_manager: Option<Result<Release<'a>>>,
    release: Release<'a>,
    plain: PlainValues,
    /// What the cluster needs before `support` can be compared with it.
    lacks: Option<&'static str>,
}

impl SupportReleases<'_> {
    fn show_or_deploy(&self, args: &DeploySupport) -> Result<ExitCode> {
        if args.options.diff {
            let differs = self.show_diffs()?;
            if args.options.dry_run {
                return Ok(args.options.exit_code(differs));
            }
            let cluster = self.run.fleet.cluster(&args.cluster)?;
            let settings = &self.run.settings;
            let tree = &self.run.fleet.tree;
            args.options
                .refuse_frozen(tree, settings, cluster, &SHARED)?;
            let question = format!("Deploy them to `{}`", args.cluster);
            workflow::confirm(&question, args.options.yes, "deploy-support")?;
        }
        self.deploy(args)?;
        Ok(ExitCode::SUCCESS)
    }

    fn show_diffs(&self) -> Result<bool> {
        let mut diffs = Vec::new();
        if let Some(cert_manager) = &self.cert_manager {
            diffs.push(("cert-manager", self.diff_cert_manager(cert_manager)));
        }
        let plain = &self.plain;
        let diff = self.run.diff(&self.helm, &self.release, plain, self.lacks);
        diffs.push(("support", diff));
        diffs::show(&self.run.mask, diffs)
    }

    fn diff_cert_manager(&self, release: &Result<Release>) -> Result<String> {
        let release = release.as_ref().map_err(|err| anyhow!("{err:#}"))?;
        self.run
            .diff(&self.helm, release, &PlainValues::default(), None)
    }

    /// Deploys one after the other.
    fn deploy(&self, args: &DeploySupport) -> Result<()> {
        let names = vec!["cert-manager", "support"];
        let options = &args.options;
        if let Some(session) = self.run.session.as_ref().filter(|_| !options.dry_run) {
            volumes::refuse_unknown(&session.api, &names, &options.delete_volumes)?;
        }
        let report = DeployReport::new(&self.run.mask, options.format, &args.cluster, names);
        if let Some(release) = &self.cert_manager {
            let started = Instant::now();
            report.add(0, started, self.deploy_cert_manager(release, args));
        }
        if self.cert_manager.is_none() || report.is_ready(0) {
            let started = Instant::now();
            report.add(
                1,
                started,
                self.deploy_release(&self.release, options, self.lacks),
            );
        } else {
            say!("`support` wasn't tried: its issuer of certificates needs cert-manager");
        }
        report.finish("the releases")
    }

    fn deploy_cert_manager(
        &self,
        release: &Result<Release>,
        args: &DeploySupport,
    ) -> Result<DeployedRelease> {
        let release = release.as_ref().map_err(|err| anyhow!("{err:#}"))?;
        let deployed = self.deploy_release(release, &args.options, None)?;
        Ok(DeployedRelease {
            note: deployed.revision.map(|_| args.cert_manager_version.clone()),
            ..deployed
        })
    }

    fn deploy_release(
        &self,
        release: &Release,
        options: &DeployOptions,
        lacks: Option<&str>,
    ) -> Result<DeployedRelease> {
        if options.dry_run {
            return self.run.show(&self.helm, release, lacks);
        }
        let policy = options.policy();
        let (revision, ()) = self
            .run
            .upgrade(&self.helm, release, policy, |_, _| Ok(()))?;
        Ok(DeployedRelease {
            revision: Some(revision),
            ..DeployedRelease::default()
        })
    }
}

fn cert_manager_release<'a>(
    chart: &'a Path,
    args: &DeploySupport,
    found: Option<&CertManagerCrds>,
) -> Result<Release<'a>> {
    let crds = if args.skip_crds {
        "crds.enabled=false"
    } else {
        "crds.enabled=true"
    };
    let mut flags = vec!["--set", crds];
    match found {
        Some(crds) if args.skip_crds => crds.refuse_removal()?,
        Some(crds) => flags.extend(crds.takeover_flags()),
        None => {}
    }
    Ok(Release {
        name: "cert-manager",
        chart,
        values: Vec::new(),
        flags,
    })
}

/// How cert-manager's CRDs are kept in a cluster, judged by one of them.
struct CertManagerCrds {
    /// They belong to some Helm release.
    in_a_release: bool,
    /// They belong to the one that `deploy-support` makes.
    in_release: bool,
    /// helm doesn't remove them.
    kept: bool,
}

impl CertManagerCrds {
    fn find(api: &Api) -> Result<Option<CertManagerCrds>> {
        let path =
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/certificates.cert-manager.io";
        let Some(crd) = api.find(path)? else {
            return Ok(None);
        };
        let annotations = &crd["metadata"]["annotations"];
        let release = &annotations["meta.helm.sh/release-name"];
        Ok(Some(CertManagerCrds {
            in_a_release: release.is_string(),
            in_release: release == "cert-manager",
            kept: annotations["helm.sh/resource-policy"] == "keep",
        }))
    }

    /// An error if helm removes the CRDs when they are left out of the release.
    fn refuse_removal(&self) -> Result<()> {
        ensure!(
            self.kept || !self.in_release,
            "with `--skip-crds` helm would remove the CRDs that this release holds, and with them all certificates\n\
             hint: leave `--skip-crds` out once"
        );
        Ok(())
    }

    /// The flags with which helm takes CRDs into the release that kubectl applied, as cert-manager's own guide has it.
    fn takeover_flags(&self) -> &'static [&'static str] {
        if self.in_a_release {
            return &[];
        }
        &["--take-ownership", FORCE_CONFLICTS]
    }
}
