//! Among users' files, in a pod that is made for it.

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    charts::fetch,
    commands::exec::{
        logs,
        target::{InHub, interactive, open},
    },
    kubernetes::{
        api::{Api, quoted},
        credentials::{self, login::Login},
        rollout,
    },
    machine::{
        process::{self, Whose},
        programs,
        terminal::{self, list},
    },
    repository::{cluster::Cluster, fleet::Fleet, problem::What, release_values::ReleaseValues},
    settings::Settings,
};

/// When a pod goes if nobody takes it away, in seconds: a person's evening, or the copy of a large home.
const DEADLINE: u32 = 12 * 60 * 60;

/// How long a pod may take: a node may have to be made for it first.
const PATIENCE: Duration = Duration::from_secs(300);

/// Copy a user's home into another user's
///
/// Home S comes into home D as the folder `S-homedir`, with owners and times; what is in D stays as it is. It gets that
/// name when it's complete. Asks first, with the sizes of both.
#[derive(clap::Args)]
pub struct Copy {
    /// A folder in config/clusters/
    cluster: String,
    /// One of its hubs
    hub: String,
    /// Whose home: a user's name, or the folder in /home; asked for if it isn't given
    #[arg(long, value_name = "S")]
    source_homedir: Option<String>,
    /// Into whose home
    #[arg(long, value_name = "D")]
    destination_homedir: Option<String>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// A pod in a hub's namespace, with a volume. It goes with this.
struct Helper<'a> {
    sh: &'a Shell,
    api: &'a Api,
    namespace: &'a str,
    job: String,
    pod: String,
}

impl<'a> Helper<'a> {
    /// Waits until it is ready.
    fn start(
        sh: &'a Shell,
        api: &'a Api,
        image: &str,
        namespace: &'a str,
        mount: &str,
        volume: &Value,
    ) -> Result<Helper<'a>> {
        // From here on a signal ends what is at work, and the pod is taken away.
        process::end_in_order();
        let mut volume = volume.clone();
        volume["name"] = json!("homes");
        // A job has an end, and takes itself away after it, also when nobody is there to do that.
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"generateName": "xtask-homes-"},
            "spec": {
                "activeDeadlineSeconds": DEADLINE,
                "ttlSecondsAfterFinished": 0,
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "terminationGracePeriodSeconds": 1,
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "volumes": [volume],
                        "containers": [{
                            "name": "homes",
                            "image": image,
                            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
                            "workingDir": mount,
                            "volumeMounts": [{"name": "homes", "mountPath": mount}],
                            "securityContext": {"allowPrivilegeEscalation": false, "runAsUser": 0, "runAsGroup": 0},
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "128Mi"},
                                "limits": {"memory": "1Gi"},
                            },
                        }],
                    },
                },
            },
        });
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?fieldValidation=Strict");
        let made = api
            .send("POST", &path, &job)
            .context("cannot make a job for the pod")?;
        let name = made["metadata"]["name"]
            .as_str()
            .context("the job has no name")?
            .to_owned();
        let mut helper = Helper {
            sh,
            api,
            namespace,
            job: name,
            pod: String::new(),
        };
        helper.pod = helper.wait()?;
        Ok(helper)
    }

    fn wait(&self) -> Result<String> {
        let started = Instant::now();
        let label = format!("batch.kubernetes.io/job-name={}", self.job);
        let mut said = false;
        loop {
            process::check_stopped()?;
            let pods = logs::pods(self.api, self.namespace, &label)?;
            let trouble = pods.iter().find_map(rollout::trouble_of_job);
            if let Some(pod) = logs::ready(pods) {
                return Ok(pod["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned());
            }
            let is_late = started.elapsed() > PATIENCE;
            if let Some((what, _)) = trouble
                .as_ref()
                .filter(|(_, is_certain)| *is_certain || is_late)
            {
                bail!(
                    "the pod for it doesn't get ready: {what}\nhint: `shell_image` in config/xtask.yaml names its image"
                );
            }
            let warnings = || self.warnings().unwrap_or_default().join("; ");
            ensure!(
                !is_late,
                "the pod for it isn't ready after {} s: {}",
                PATIENCE.as_secs(),
                warnings()
            );
            let refused = warnings();
            ensure!(
                !rollout::is_refusal(&refused),
                "the pod for it can't be made: {refused}"
            );
            if !said && started.elapsed() > Duration::from_secs(5) {
                said = true;
                let why = trouble.map_or(refused, |(what, _)| what);
                say!(
                    "waiting for the pod{}",
                    if why.is_empty() {
                        why
                    } else {
                        format!(": {why}")
                    }
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the cluster warns of, about the job and its pod.
    fn warnings(&self) -> Result<Vec<String>> {
        let path = format!(
            "/api/v1/namespaces/{}/events?fieldSelector={}",
            self.namespace,
            quoted("type=Warning")
        );
        let events = self.api.get(&path)?;
        let mut messages: Vec<_> = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| {
                it["involvedObject"]["name"]
                    .as_str()
                    .is_some_and(|it| it.starts_with(&self.job))
            })
            .filter_map(|it| it["message"].as_str().map(str::to_owned))
            .collect();
        messages.dedup();
        Ok(messages)
    }

    /// Runs a command in it with our terminal.
    fn in_front(&self, command: &[String]) -> Result<ExitCode> {
        let (sh, namespace, pod, how) = (self.sh, self.namespace, &self.pod, interactive());
        let exec = cmd!(
            sh,
            "kubectl exec --namespace {namespace} {how...} {pod} -- {command...}"
        );
        process::in_front(sh, exec, Whose::Ours)
    }

    /// What a script for bash prints, which must succeed.
    fn read(&self, script: &str, args: &[&str]) -> Result<String> {
        let (sh, namespace, pod) = (self.sh, self.namespace, &self.pod);
        let exec = cmd!(
            sh,
            "kubectl exec --namespace {namespace} {pod} -- bash -c {script} bash {args...}"
        );
        let output = process::run(sh, exec, b"")?;
        ensure!(
            output.success,
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let remove = |path: String| {
            let how = json!({"gracePeriodSeconds": 1, "propagationPolicy": "Background"});
            self.api.send("DELETE", &path, &how)
        };
        let gone = remove(format!(
            "/apis/batch/v1/namespaces/{}/jobs/{}",
            self.namespace, self.job
        ));
        if !self.pod.is_empty() {
            // The cluster does that too, in its own time.
            let _ = remove(format!(
                "/api/v1/namespaces/{}/pods/{}",
                self.namespace, self.pod
            ));
        }
        if let Err(err) = gone {
            say!(
                "the job `{}` in `{}` couldn't be removed, and ends by itself in {} hours: {err:#}",
                self.job,
                self.namespace,
                DEADLINE / 3600
            );
        }
    }
}

pub(crate) fn homes(sh: &Shell, root: &Path, args: &InHub) -> Result<ExitCode> {
    let image = &Settings::load(root)?.shell_image;
    let (cluster, login) = open(sh, root, &args.cluster, &args.hub)?;
    let api = Api::start(&login.sh)?;
    with_homes(&login, &api, image, &cluster, &args.hub)?.in_front(&args.command())
}

/// A pod with a hub's homes at /home.
fn with_homes<'a>(
    login: &'a Login,
    api: &'a Api,
    image: &str,
    cluster: &Cluster,
    hub: &'a str,
) -> Result<Helper<'a>> {
    const CLAIM: &str = "home-nfs";
    let claims = format!("/api/v1/namespaces/{hub}/persistentvolumeclaims");
    if api.find(&format!("{claims}/{CLAIM}"))?.is_none() {
        let found = api.get(&claims)?;
        let found = found["items"].as_array().into_iter().flatten();
        let names: Vec<_> = found
            .filter_map(|it| it["metadata"]["name"].as_str())
            .collect();
        match names.is_empty() {
            true => bail!(
                "`{hub}` of `{}` has no claim `{CLAIM}`, nor any other",
                cluster.name
            ),
            false => bail!(
                "`{hub}` of `{}` has no claim `{CLAIM}`; it has: {}",
                cluster.name,
                list(names)
            ),
        }
    }
    let volume = json!({"persistentVolumeClaim": {"claimName": CLAIM}});
    Helper::start(&login.sh, api, image, hub, "/home", &volume)
}

pub(crate) fn root_homes(sh: &Shell, root: &Path, args: &InHub) -> Result<ExitCode> {
    let image = &Settings::load(root)?.shell_image;
    let hubs = std::slice::from_ref(&args.hub);
    let fleet = Fleet::load(root, &[What::Hubs], Some(&args.cluster), hubs)?;
    let fleet = fleet.with_charts(fetch::cached_schemas());
    let cluster = fleet.cluster(&args.cluster)?;
    let sh = &programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let volume = nfs_volume(sh, root, &fleet, cluster)?;
    let login = credentials::open(sh, root, cluster)?;
    let api = Api::start(&login.sh)?;
    let helper = Helper::start(&login.sh, &api, image, &args.hub, "/root-homes", &volume)?;
    helper.in_front(&args.command())
}

/// The volume with all homes of the fleet's one hub, as its values name it.
fn nfs_volume(sh: &Shell, root: &Path, fleet: &Fleet, cluster: &Cluster) -> Result<Value> {
    let releases = fleet.releases();
    let config = releases.first().context("the hub has no release")?;
    if let Some(volume) = nfs_volume_in(&ReleaseValues::plain(fleet, config)) {
        return Ok(volume);
    }
    if fleet
        .files_of(config)
        .any(|(_, _, file)| file.is_encrypted())
    {
        let sh = &credentials::with_demo_key(sh, root, cluster)?;
        let values = ReleaseValues::decrypted(sh, fleet, config)?;
        if let Some(volume) = nfs_volume_in(&values) {
            return Ok(volume);
        }
    }
    bail!(
        "the values of `{}` of `{}` have no `nfs.pv.serverIP` and `nfs.pv.baseShareName`: its homes aren't on NFS",
        config.name(),
        cluster.name
    )
}

fn nfs_volume_in(values: &ReleaseValues) -> Option<Value> {
    let server = values.text(&["nfs", "pv", "serverIP"])?;
    let path = values.text(&["nfs", "pv", "baseShareName"])?;
    Some(json!({"nfs": {"server": server, "path": path}}))
}

pub(crate) fn copy(sh: &Shell, root: &Path, args: &Copy) -> Result<ExitCode> {
    let image = &Settings::load(root)?.shell_image;
    let (cluster, login) = open(sh, root, &args.cluster, &args.hub)?;
    let api = Api::start(&login.sh)?;
    let (hub, given) = (&args.hub, [&args.source_homedir, &args.destination_homedir]);
    ensure!(
        given.iter().all(|it| it.is_some()) || terminal::can_ask(),
        "whose home, and into whose? Nobody can be asked here\nhint: `--source-homedir` and `--destination-homedir` say it"
    );
    let helper = with_homes(&login, &api, image, &cluster, hub)?;
    if given.iter().any(|it| it.is_none()) {
        say!("{}", helper.read("ls -lath /home", &[])?);
    }
    let folder = |given: &Option<String>, question| -> Result<String> {
        match given {
            Some(name) => helper.home(name),
            None => helper.home(&terminal::ask(question)?),
        }
    };
    let from = folder(&args.source_homedir, "Whose home is to be copied")?;
    let to = folder(&args.destination_homedir, "Into whose home")?;
    ensure!(from != to, "/home/{from} can't be copied into itself");
    let target = format!("/home/{to}/{from}-homedir");
    let is_there = helper.read("[ ! -e \"$1\" ] && [ ! -L \"$1\" ] || echo yes", &[&target])?;
    ensure!(
        is_there.is_empty(),
        "{target} is there already, and is left as it is\nhint: move it away first"
    );

    let source = helper.size(&format!("/home/{from}"))?;
    say!("from /home/{from}: {}", source.shown());
    say!(
        "into /home/{to}: {}",
        helper.size(&format!("/home/{to}"))?.shown()
    );
    let free: u64 = helper
        .read("df --output=avail -B1 /home | tail -n 1", &[])?
        .trim()
        .parse()
        .unwrap_or(0);
    say!("free in /home: {}", HumanBytes(free));
    terminal::confirm(&format!("Copy /home/{from} to {target}"), args.yes)?;

    helper.remove_leftovers(&from, &to)?;
    let part = format!("/home/{to}/.{from}-homedir.{}", helper.pod);
    let total = source.files.to_string();
    let command = [
        "bash",
        "-c",
        COPY,
        "bash",
        &format!("/home/{from}"),
        &part,
        &target,
        &total,
    ];
    let code = helper.in_front(&command.map(str::to_owned))?;
    if code != ExitCode::SUCCESS {
        // It may be at work still.
        match helper.read(
            "kill -9 $(cat /tmp/copying); sleep 0.2; rm -rf -- \"$1\"",
            &[&part],
        ) {
            Ok(_) => bail!("/home/{from} wasn't copied"),
            Err(_) => bail!("/home/{from} wasn't copied; a part of it is left in {part}"),
        }
    }
    let copied = helper.size(&target)?;
    terminal::print(&format!(
        "copied /home/{from} to {target}: {}\n",
        copied.shown()
    ))?;
    if copied.files != source.files {
        say!(
            "warning: there were {} files before: somebody is at work in /home/{from}",
            HumanCount(source.files)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies `$1` to `$2` and, when that's complete, calls it `$3`; with `$4` files it says every half minute how many it has.
const COPY: &str = r#"
cp --archive --no-target-directory -- "$1" "$2" & copying=$!
echo $copying > /tmp/copying

( while sleep 30 <&- >&- 2>&-; do echo "$(find "$2" -mindepth 1 -printf . | wc -c) of $4 files" >&2; done ) & telling=$!
wait $copying; code=$?
kill $telling
[ $code = 0 ] && mv --no-target-directory -- "$2" "$3"
"#;

/// What a folder holds, in all.
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
    /// The folder in /home that is meant by a user's name.
    fn home(&self, name: &str) -> Result<String> {
        let name = name.trim();
        ensure!(
            !name.is_empty() && !name.contains('/') && ![".", ".."].contains(&name),
            "`{name}` isn't the name of a folder in /home"
        );
        let escaped = logs::escaped(name);
        let script = "for it; do if [ -d \"/home/$it\" ] && [ ! -L \"/home/$it\" ]; then echo \"$it\"; exit; fi; done";
        let found = self.read(script, &[name, &escaped])?;
        if found.is_empty() {
            let there = self.read("cd /home && ls -t | head -n 30", &[])?;
            bail!(
                "there is no /home/{name}; the latest there are: {}",
                list(there.lines())
            );
        }
        Ok(found)
    }

    fn size(&self, folder: &str) -> Result<Size> {
        let script =
            "du --summarize --bytes -- \"$1\" | cut -f1; find \"$1\" -mindepth 1 -printf . | wc -c";

        let said = self.read(script, &[folder])?;
        let mut numbers = said.lines().map(|it| it.trim().parse().unwrap_or(0));
        Ok(Size {
            bytes: numbers.next().unwrap_or(0),
            files: numbers.next().unwrap_or(0),
        })
    }

    /// Removes what copies left that were cut off with their pods.
    fn remove_leftovers(&self, from: &str, to: &str) -> Result<()> {
        let prefix = format!(".{from}-homedir.");
        let found = self.read("cd \"/home/$1\" && ls -A", &[to])?;
        for part in found.lines() {
            let Some(pod) = part
                .strip_prefix(&prefix)
                .filter(|it| it.starts_with("xtask-homes-"))
            else {
                continue;
            };
            if self
                .api
                .find(&format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace))?
                .is_none()
            {
                say!("removing /home/{to}/{part}, which a copy left that was cut off");
                self.read("rm -rf -- \"/home/$1/$2\"", &[to, part])?;
            }
        }
        Ok(())
    }
}
