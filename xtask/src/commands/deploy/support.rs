//! cert-manager and the chart `support`.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Result, anyhow, bail, ensure};
use xshell::Shell;

use crate::{
    charts::fetch::{self, Remote},
    commands::deploy::{
        options::DeployOptions,
        report::{DeployReport, DeployedRelease},
        run::Run,
    },
    kubernetes::{
        api::Api,
        release::{Helm, Release},
    },
    machine::{programs, terminal},
    repository::{
        cluster::{Cluster, Support},
        problem::What,
    },
};

/// Install or upgrade cert-manager and the chart `support` of a cluster
///
/// What the hubs of a cluster share: certificates, the ingress controller, Prometheus and Grafana. Values come from
/// helm-charts/support/enc-support.secret.values.yaml, if there is one, and then from the files that cluster.yaml lists
/// under `support`; without `support` nothing is done. `support.cert_manager: false` leaves cert-manager out, for a
/// cluster that has one already.
#[derive(clap::Args)]
pub struct DeploySupport {
    /// A folder in config/clusters/
    cluster: String,
    /// The version of cert-manager's chart, v1.15.0 or newer
    #[arg(long, value_name = "VERSION", default_value = "v1.20.3")]
    cert_manager_version: String,
    /// Leave cert-manager's CRDs as they are in the cluster
    #[arg(long)]
    skip_crds: bool,
    #[command(flatten)]
    options: DeployOptions,
}

/// Deploys cert-manager and the chart `support`.
pub fn deploy_support(sh: &Shell, root: &Path, args: &DeploySupport) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let Some(support) = &cluster.support else {
        say!(
            "{} has no `support`: nothing to do",
            cluster.file().display()
        );
        return Ok(ExitCode::SUCCESS);
    };
    let version = args.cert_manager_version.trim_start_matches('v');
    ensure!(
        semver::Version::parse(version).is_ok_and(|it| it >= semver::Version::new(1, 15, 0)),
        "`--cert-manager-version {}` isn't v1.15.0 or newer: with an older chart CRDs, and with them all certificates, \
         go when they are left out once",
        args.cert_manager_version
    );
    let chart = Path::new("helm-charts/support");
    let own = support
        .helm_chart_values_files
        .iter()
        .map(|it| cluster.dir.join(it));
    let files: Vec<_> = Support::shared_values(root)
        .into_iter()
        .chain(own)
        .collect();
    let person_s = &programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let (sh, run) = Run::prepare(
        person_s,
        root,
        &cluster,
        &[What::Support],
        &[],
        [chart.to_owned()].into(),
        &args.options,
    )?;

    let values = run.readable(files)?;
    let cert_manager = Remote {
        name: "cert-manager".to_owned(),
        version: args.cert_manager_version.clone(),
        repository: "https://charts.jetstack.io".to_owned(),
    };
    // By the person's own logins to registries.
    let fetch = || cert_manager.fetch(person_s, &run.settings);
    let cert_manager = support.cert_manager.then(fetch).transpose();

    let (cert_manager, chart) = match (cert_manager, run.chart(chart)) {
        (Ok(cert_manager), Ok(chart)) => (cert_manager, chart),
        (Err(err), Ok(_)) => bail!("{err:#}\n{}", fetch::HINT),
        (Ok(_), Err(err)) => return Err(err),
        (Err(err), Err(other)) => bail!("{err:#}\n{other:#}"),
    };

    let helm = run.helm(&sh, &args.options);
    let report = DeployReport::new(
        &run.mask,
        &args.options,
        &cluster,
        vec!["cert-manager", "support"],
    );
    let found = match &run.session {
        Some(session) => CertManagerCrds::find(&session.api)?,
        None => None,
    };
    let cert_manager = cert_manager
        .as_deref()
        .map(|it| cert_manager_release(it, args, found.as_ref()));
    let release = Release {
        name: "support",
        chart,
        values,
        flags: Vec::new(),
    };
    // Its issuer is of a kind that cert-manager brings.
    let lacks = found.is_none().then_some("cert-manager");
    if args.options.diff {
        let first = cert_manager
            .iter()
            .map(|it| ("cert-manager", run.diff_of(&helm, it, None)));
        let diffs = first
            .chain([("support", run.diff(&helm, &release, lacks))])
            .collect();
        let differs = run.show_diffs(diffs)?;
        if args.options.dry_run {
            return Ok(args.options.exit_code(differs));
        }
        terminal::confirm(
            &format!("Deploy them to `{}`", cluster.name),
            args.options.yes,
        )?;
    }
    if let Some(release) = &cert_manager {
        let started = Instant::now();
        report.add(0, started, run.cert_manager(&helm, release, args));
    }
    if cert_manager.is_none() || report.stands(0) {
        let started = Instant::now();
        let result = match args.options.dry_run {
            true => run.show(&helm, &release, lacks),
            false => run
                .upgrade(&helm, &release, |_| Ok(()))
                .map(|(revision, ())| DeployedRelease {
                    revision: Some(revision),
                    ..DeployedRelease::default()
                }),
        };
        report.add(1, started, result);
    } else {
        say!("`support` wasn't tried: its issuer of certificates needs cert-manager");
    }
    report.finish("the releases")?;
    Ok(ExitCode::SUCCESS)
}

impl Run {
    fn cert_manager(
        &self,
        helm: &Helm,
        release: &Result<Release>,
        args: &DeploySupport,
    ) -> Result<DeployedRelease> {
        let release = release.as_ref().map_err(|err| anyhow!("{err:#}"))?;
        if args.options.dry_run {
            return self.show(helm, release, None);
        }
        let (revision, ()) = self.upgrade(helm, release, |_| Ok(()))?;
        Ok(DeployedRelease {
            revision: Some(revision),
            note: Some(args.cert_manager_version.clone()),
            ..DeployedRelease::default()
        })
    }

    fn diff_of(
        &self,
        helm: &Helm,
        release: &Result<Release>,
        lacks: Option<&str>,
    ) -> Result<String> {
        self.diff(
            helm,
            release.as_ref().map_err(|err| anyhow!("{err:#}"))?,
            lacks,
        )
    }
}

fn cert_manager_release<'a>(
    chart: &'a Path,
    args: &DeploySupport,
    found: Option<&CertManagerCrds>,
) -> Result<Release<'a>> {
    let mut flags = vec![
        "--set",
        if args.skip_crds {
            "crds.enabled=false"
        } else {
            "crds.enabled=true"
        },
    ];
    match found {
        Some(crds) if args.skip_crds && crds.in_release && !crds.kept => bail!(
            "with `--skip-crds` helm would remove the CRDs that this release holds, and with them all certificates\n\
             hint: leave `--skip-crds` out once"
        ),
        // Applied by kubectl, as cert-manager's own guide has it: from now on they are in the release.
        Some(crds) if !args.skip_crds && !crds.in_a_release => flags.extend([
            "--take-ownership",
            "--server-side=true",
            "--force-conflicts",
        ]),
        _ => {}
    }
    Ok(Release {
        name: "cert-manager",
        chart,
        values: Vec::new(),
        flags,
    })
}

/// DeployOptions cert-manager's CRDs lie in a cluster: one of them stands for all.
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
}
