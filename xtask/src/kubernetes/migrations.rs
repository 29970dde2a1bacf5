//! Whether a hub's database lets the hub go back to an earlier revision.
//!
//! A JupyterHub that starts migrates an older database to its own schema, and an older JupyterHub then refuses to start.
//! Every major version of JupyterHub has had one schema, and every one another.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{
        api::{self, Api},
        manifests, objects,
    },
    machine::{process, workflow},
    services::http::percent_encoded,
};

/// Where both Zero to JupyterHub and minihub have the database.
const FOLDER: &str = "/srv/jupyterhub";

/// Tells the schemas of a database and its copies, for the Python of a hub's image.
const LOOK: &str = include_str!("hub_database.py");

/// How long a hub may take to tell them.
const PATIENCE: Duration = Duration::from_secs(30);

/// How soon after its ReplicaSet a pod is the first one of it.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The schemas of the major versions of JupyterHub: the newest file in jupyterhub/alembic/versions of the tags 0.9.0 to
/// 6.0.0b2 of <https://github.com/jupyterhub/jupyterhub>, which is the same in all tags of a major version.
const SCHEMAS: [(&str, u64); 7] = [
    ("896818069c98", 0),
    ("4dc2d5a8c53c", 1),
    ("833da8570507", 2),
    ("651f5419b74d", 3),
    ("0eee8c825d24", 4),
    ("4621fec11365", 5),
    ("f460b0348206", 6),
];

/// The hub of a revision.
#[derive(PartialEq)]
struct Hub {
    deployment: String,
    /// The labels of its pods, as a selector.
    selector: String,
    /// The chart that it comes from, with its version.
    chart: String,
    image: String,
    /// The major version of JupyterHub that this chart has.
    major: u64,
    /// The claim with the database, unless that is elsewhere.
    claim: Option<String>,
}

/// What a hub's volume holds.
struct Database {
    /// The major version of JupyterHub that the database is for.
    major: u64,
    /// The copies since a revision was deployed, the newest first, with the major versions that they are for.
    backups: Vec<(u64, String)>,
}

/// Refuses to return a release from its newest revision to an earlier one if that has an older JupyterHub than its
/// database is for. Both are what helm keeps of them.
pub(crate) fn refuse_way_back(
    sh: &Shell,
    api: &Api,
    release: &str,
    live: &Value,
    wanted: &Value,
) -> Result<()> {
    let (Some(hub), Some(old)) = (Hub::of(live), Hub::of(wanted)) else {
        return Ok(());
    };
    if hub == old || has_no_lasting_database(live) {
        return Ok(());
    }
    let Some(claim) = &hub.claim else {
        return hub.refuse_other_database(&old, release, wanted);
    };
    let found = hub.look_at_database(sh, release, &wanted["info"]["last_deployed"]);
    let why = match found {
        Ok(database) if database.lets_go_back(&hub, &old) => return Ok(()),
        Ok(database) => database.told(&old, claim),
        Err(_) if hub.major <= old.major => return Ok(()),
        Err(_) if is_next(live, wanted) && hub.never_started(api, release)? => return Ok(()),
        Err(err) => format!(
            "its database could not be looked at ({err:#}); if it was migrated, the one of before is \
             `jupyterhub.sqlite.YYYY-MM-DD-HHMMSS` on the claim `{claim}`"
        ),
    };
    bail!(
        "{}: {why}\nhint: README.md tells how to put it back; {} returns to revision {} then",
        hub.differs_from(&old, wanted),
        workflow::at_terminal("rollback --force"),
        wanted["version"]
    )
}

impl Hub {
    /// The hub in a revision's manifest, if its labels name a chart whose JupyterHub is known.
    fn of(content: &Value) -> Option<Hub> {
        let manifest = content["manifest"].as_str()?;
        let documents = manifests::documents(manifest);
        let mut objects = documents
            .iter()
            .flat_map(|it| manifests::taken_apart([it.value()]));
        objects.find_map(|it| Hub::of_object(&it, &content["chart"]["metadata"]))
    }

    fn of_object(object: &Value, metadata: &Value) -> Option<Hub> {
        let labels = &object["metadata"]["labels"];
        let component = labels["app.kubernetes.io/component"].as_str();
        if object["kind"] != "Deployment" || component.or(labels["component"].as_str())? != "hub" {
            return None;
        }
        let chart = labels["helm.sh/chart"].as_str();
        let chart = chart.or(labels["chart"].as_str())?;
        let pod = &object["spec"]["template"]["spec"];
        let container = objects::named(&pod["containers"], "name", "hub");
        let mount = objects::named(&container["volumeMounts"], "mountPath", FOLDER);
        let volume = objects::named(
            &pod["volumes"],
            "name",
            mount["name"].as_str().unwrap_or(""),
        );
        let claim = volume["persistentVolumeClaim"]["claimName"].as_str();
        Some(Hub {
            deployment: object["metadata"]["name"].as_str()?.to_owned(),
            selector: selector(&object["spec"]["selector"]["matchLabels"]),
            chart: chart.to_owned(),
            image: container["image"].as_str().unwrap_or_default().to_owned(),
            major: major(chart, metadata)?,
            claim: claim.map(str::to_owned),
        })
    }

    /// Refuses the way back to an older JupyterHub with a database that is not on a volume.
    fn refuse_other_database(&self, old: &Hub, release: &str, wanted: &Value) -> Result<()> {
        ensure!(
            self.major <= old.major,
            "{}: its database is not on a volume of the hub, and JupyterHub makes no backup of it\n\
             hint: put back your own backup of the database of `{release}`, then pass {}",
            self.differs_from(old, wanted),
            workflow::at_terminal("--force")
        );
        Ok(())
    }

    /// `revision 3 has JupyterHub 5 (jupyterhub-4.4.0), and now it is 6 (jupyterhub-5.0.0)`
    fn differs_from(&self, old: &Hub, wanted: &Value) -> String {
        format!(
            "revision {} has JupyterHub {} ({}), and the hub has {} now ({})",
            wanted["version"], old.major, old.chart, self.major, self.chart
        )
    }

    /// Asks the hub's pod for the database and its copies since a time.
    fn look_at_database(&self, sh: &Shell, namespace: &str, since: &Value) -> Result<Database> {
        let deployment = format!("deployment/{}", self.deployment);
        let since = since.as_str().unwrap_or("1970-01-01T00:00:00Z");
        let output = api::repeated(|| {
            let exec = cmd!(
                sh,
                "kubectl exec --namespace {namespace} {deployment} --container hub -- python3 -c {LOOK} {FOLDER} {since}"
            );
            process::run_within(sh, exec, PATIENCE)
        })?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.success,
            "{}",
            errors.lines().last().unwrap_or_default()
        );
        Database::of(&String::from_utf8_lossy(&output.stdout), self.major)
    }

    /// Whether no pod of the live revision has ever run its containers: each is the first of its ReplicaSet, and waits.
    fn never_started(&self, api: &Api, namespace: &str) -> Result<bool> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods?labelSelector={}",
            percent_encoded(&self.selector)
        );
        let pods = api.get(&path)?;
        let pods = pods["items"].as_array().context("no pods are listed")?;
        for pod in pods {
            if has_started(pod) || !is_first(api, namespace, pod)? {
                return Ok(false);
            }
        }
        Ok(!pods.is_empty())
    }
}

impl Database {
    /// What the hub's pod has printed. A schema that is not known is newer than those that are.
    fn of(printed: &str, newest: u64) -> Result<Database> {
        let mut lines = printed.lines();
        let schema = lines.next().context("the hub told no schema")?;
        let mut backups = Vec::new();
        for line in lines {
            let (schema, name) = line.split_once(' ').context("a copy has no name")?;
            backups.push((major_of_schema(schema, newest), name.to_owned()));
        }
        Ok(Database {
            major: major_of_schema(schema, newest),
            backups,
        })
    }

    /// Whether the older hub can have this database. A hub may have an image with a newer JupyterHub than its chart has:
    /// if both charts have the same, a copy tells that there was a migration.
    fn lets_go_back(&self, hub: &Hub, old: &Hub) -> bool {
        let is_newer = self.major > old.major;
        let was_migrated = hub.major > old.major || self.backup(old).is_some();
        !(is_newer && was_migrated)
    }

    /// The newest copy that the older hub can have.
    fn backup(&self, old: &Hub) -> Option<&str> {
        let fitting = self.backups.iter().find(|(major, _)| *major <= old.major);
        fitting.map(|(_, name)| name.as_str())
    }

    fn told(&self, old: &Hub, claim: &str) -> String {
        let migrated = format!("its database is for JupyterHub {}", self.major);
        match self.backup(old) {
            Some(name) => format!(
                "{migrated}, and the one of before is `{name}`, in the same folder of the claim `{claim}`"
            ),
            None => {
                format!(
                    "{migrated}, and there is no backup of the one of before on the claim `{claim}`"
                )
            }
        }
    }
}

/// The major version of the JupyterHub of a chart like `jupyterhub-4.4.0`, which is the release's own chart with this
/// metadata or one that it depends on. Zero to JupyterHub's are from appVersion in jupyterhub/Chart.yaml of the tags 0.7.0
/// to 4.4.0 of <https://github.com/jupyterhub/zero-to-jupyterhub-k8s>; the next one is taken to go on like that.
fn major(chart: &str, metadata: &Value) -> Option<u64> {
    let own = metadata["name"].as_str().unwrap_or_default();
    let is_own = chart
        .strip_prefix(own)
        .is_some_and(|it| it.starts_with('-'));
    if is_own && let Some(version) = metadata["appVersion"].as_str() {
        return first_numbers(version).map(|it| it.0);
    }
    match first_numbers(chart.strip_prefix("jupyterhub-")?)? {
        (0, 0..=8) => Some(0),
        (0 | 1, _) => Some(1),
        (version, _) => Some(version + 1),
    }
}

/// The first two numbers of a version.
fn first_numbers(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn major_of_schema(schema: &str, newest: u64) -> u64 {
    let known = SCHEMAS.iter().find(|(it, _)| *it == schema);
    known.map_or(newest.max(SCHEMAS.len() as u64), |(_, major)| *major)
}

/// Whether a hub forgets its database when it restarts.
fn has_no_lasting_database(content: &Value) -> bool {
    let config = &content["config"];
    let values = [
        config,
        &config["jupyterhub"],
        &config["basehub"]["jupyterhub"],
    ];
    values
        .iter()
        .any(|it| it["hub"]["db"]["type"] == "sqlite-memory")
}

/// Whether nothing came between two revisions.
fn is_next(live: &Value, wanted: &Value) -> bool {
    let number = wanted["version"].as_u64();
    live["version"].as_u64() == number.map(|it| it + 1)
}

fn has_started(pod: &Value) -> bool {
    let mut containers = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    containers.any(|it| {
        let has_ended = !it["lastState"]["terminated"].is_null();
        has_ended || it["state"]["waiting"].is_null()
    })
}

/// Whether a pod was made at once with its ReplicaSet, and so replaces no other one of it.
fn is_first(api: &Api, namespace: &str, pod: &Value) -> Result<bool> {
    let owner = objects::named(&pod["metadata"]["ownerReferences"], "kind", "ReplicaSet");
    let name = owner["name"].as_str().context("a pod has no ReplicaSet")?;
    let path = format!(
        "/apis/apps/v1/namespaces/{namespace}/replicasets/{}",
        api::step(name)?
    );
    let age = created(pod)?.duration_since(created(&api.get(&path)?)?);
    Ok(age.is_ok_and(|it| it <= AT_ONCE))
}

fn created(object: &Value) -> Result<SystemTime> {
    let time = object["metadata"]["creationTimestamp"].as_str();
    Ok(humantime::parse_rfc3339(time.unwrap_or_default())?)
}

fn selector(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let pairs = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}
