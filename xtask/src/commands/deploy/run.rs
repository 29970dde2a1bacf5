//! What all releases of one command share.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    charts::{fetch, prepare},
    commands::deploy::{
        options::{Deploy, DeployOptions},
        report::DeployedRelease,
    },
    health::{
        address::{domain_in, node_port},
        check,
    },
    kubernetes::{
        api::Api,
        credentials,
        diff::Differ,
        history,
        record::Record,
        release::{Helm, Release},
        rollout,
        session::Session,
    },
    machine::{
        parallel, process, programs,
        terminal::{self, Progress},
    },
    repository::{
        cluster::{Cluster, Hub, Nodes},
        fleet::{Fleet, Plain},
        problem::What,
        rules,
    },
    secrets::{self, InMemory, Mask},
    settings::Settings,
};

/// What all releases of one command share, ready before the first one is touched.
pub(crate) struct Run {
    pub(crate) settings: Settings,
    /// Prepared charts by their paths from the root.
    pub(crate) charts: BTreeMap<PathBuf, Result<PathBuf>>,
    pub(crate) fleet: Fleet,
    /// What the releases list, by the paths from the root.
    pub(crate) files: BTreeMap<PathBuf, Result<InMemory>>,
    pub(crate) mask: Mask,
    /// There is none in a dry run for a rehearsal cluster that is down: then it's rendered without asking.
    pub(crate) session: Option<Session>,
}

impl Run {
    pub(crate) fn prepare(
        sh: &Shell,
        root: &Path,
        cluster: &Cluster,
        what: &[What],
        hubs: &[String],
        charts: BTreeSet<PathBuf>,
        options: &DeployOptions,
    ) -> Result<(Shell, Run)> {
        let sh = &programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
        let settings = Settings::load(root)?;
        let charts = prepare::prepare(sh, root, &settings, charts)?;
        let fleet = rules::before_deploy(sh, root, &settings, what, &cluster.name, hubs)?;
        let render_only = options.dry_run && credentials::is_down(root, cluster)?;
        let sh = &credentials::with_demo_key(sh, root, cluster)?;
        let files = fleet.listed();
        let read =
            parallel::side_by_side(sh, &files, |sh, (file, is_encrypted)| match is_encrypted {
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
        if !options.dry_run {
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

    pub(crate) fn helm<'a>(&'a self, sh: &'a Shell, options: &DeployOptions) -> Helm<'a> {
        Helm {
            debug: options.debug,
            ..Helm::new(sh, &self.mask, options.timeout)
        }
    }

    /// There is one wherever something is changed.
    pub(crate) fn api(&self) -> Result<&Api> {
        Ok(&self.session.as_ref().context("there is no login")?.api)
    }

    /// Brings a release to what it is to be, and checks it: its new revision, and what the check says.
    pub(crate) fn upgrade<T>(
        &self,
        helm: &Helm,
        release: &Release,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let session = self.session.as_ref().context("there is no login")?;
        session.unless_stopped(release.name, helm.upgrade(release, session, check))
    }

    pub(crate) fn release<'a>(&'a self, cluster: &Cluster, hub: &'a Hub) -> Result<Release<'a>> {
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
    pub(crate) fn diff(
        &self,
        helm: &Helm,
        release: &Release,
        lacks: Option<&str>,
    ) -> Result<String> {
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
    pub(crate) fn unchanged(&self, helm: &Helm, release: &Release) -> Result<Option<u32>> {
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
            && rollout::look(api, release.name, &manifest)?.is_ready
            && Differ::new(api, &self.mask, release.name, Plain::new())
                .diff(&manifest)?
                .is_empty();
        Ok(is_same.then_some(newest.revision.number))
    }

    /// Prints what would change, release by release; whether anything does.
    pub(crate) fn show_diffs(&self, diffs: Vec<(&str, Result<String>)>) -> Result<bool> {
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
                        terminal::coloured(&text)
                    } else {
                        text
                    };
                    terminal::print(&format!("# {name}\n{text}"))?;
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
    pub(crate) fn hub(
        &self,
        sh: &Shell,
        cluster: &Cluster,
        hub: &Hub,
        args: &Deploy,
        crds: &Mutex<BTreeSet<String>>,
    ) -> Result<DeployedRelease> {
        let helm = Helm {
            rolls_back: args.rollback_on_failure,
            force_older: args.force_older,
            flags: args.flags(),
            ..self.helm(sh, &args.options)
        };
        let release = self.release(cluster, hub)?;
        let kind = self.fleet.kind(hub)?;
        let has_dask = kind.has_dask;
        if args.options.dry_run {
            return self.show(&helm, &release, self.lacking(has_dask)?);
        }
        let domain = self.domain(cluster, hub)?;
        if args.skip_unchanged
            && self.lacking(has_dask)?.is_none()
            && let Some(revision) = self.unchanged(&helm, &release)?
        {
            return Ok(DeployedRelease {
                revision: Some(revision),
                is_unchanged: true,
                ..DeployedRelease::default()
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
            check::after_rollout(self.api()?, hub, &kind, rehearsal, &domain, &self.mask).map(Some)
        })?;
        let address = match rehearsal {
            None => Some(format!("https://{}", self.mask.hide(&domain))),
            Some(Nodes::Real) => node_port(self.api()?, hub),
            // Nobody answers there.
            Some(Nodes::Simulated) => None,
        };
        Ok(DeployedRelease {
            revision: Some(revision),
            note: address,
            health,
            ..DeployedRelease::default()
        })
    }

    /// What would be applied. While the cluster lacks CRDs that come first, it can't be asked.
    pub(crate) fn show(
        &self,
        helm: &Helm,
        release: &Release,
        lacks: Option<&str>,
    ) -> Result<DeployedRelease> {
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
        Ok(DeployedRelease {
            shown: Some(shown),
            ..DeployedRelease::default()
        })
    }

    /// What a hub needs that the cluster hasn't got yet.
    pub(crate) fn lacking(&self, has_dask: bool) -> Result<Option<&'static str>> {
        if !has_dask || self.session.is_none() {
            return Ok(None);
        }
        let path =
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/daskclusters.gateway.dask.org";
        Ok(self.api()?.find(path)?.is_none().then_some("dask-gateway"))
    }

    pub(crate) fn chart(&self, chart: &Path) -> Result<&Path> {
        match &self.charts[chart] {
            Ok(prepared) => Ok(prepared),
            Err(err) => bail!("{err:#}"),
        }
    }

    /// Where programs can read each file's content.
    pub(crate) fn readable(
        &self,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Vec<PathBuf>> {
        let readable = |file: PathBuf| match &self.files[&file] {
            Ok(read) => Ok(read.file.path().to_owned()),
            Err(err) => bail!("{err:#}"),
        };
        files.into_iter().map(readable).collect()
    }

    /// Where people reach the hub: cluster.yaml's domain, or the one in the hub's `domain_override_file`.
    pub(crate) fn domain(&self, cluster: &Cluster, hub: &Hub) -> Result<String> {
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
    pub(crate) fn apply_dask_crds(
        &self,
        sh: &Shell,
        release: &Release,
        wanted: Option<&str>,
        applied: &Mutex<BTreeSet<String>>,
    ) -> Result<()> {
        let found = prepare::dependency(release.chart, "dask-gateway")?;
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
                    fetch::manifest(&self.settings, &format!("{folder}/{version}/{path}"))
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
