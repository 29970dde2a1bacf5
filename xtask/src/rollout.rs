//! Following one release until its workloads stand.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{process, secrets::split_documents};

/// What `kubectl rollout status` takes.
struct Workload {
    /// `deployment/hub`.
    name: String,
    /// Where it isn't the release's own.
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
}

#[derive(Default, Deserialize)]
struct ObjectMeta {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
}

/// A StatefulSet or DaemonSet.
#[derive(Deserialize)]
struct Set {
    spec: SetSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetSpec {
    update_strategy: UpdateStrategy,
}

#[derive(Deserialize)]
struct UpdateStrategy {
    r#type: String,
}

/// Waits until all workloads of a release's manifest are rolled out, or `until` has come. The error names each one
/// that isn't, with what kubectl said last.
pub(crate) fn follow(sh: &Shell, namespace: &str, manifest: &str, until: Instant) -> Result<()> {
    let found: Result<Vec<_>> = split_documents(manifest).map(workload).collect();
    let workloads: Vec<Workload> = found?.into_iter().flatten().collect();
    let failures = process::side_by_side(sh, &workloads, |sh, it| follow_one(sh, namespace, it, until));
    let failures: Vec<String> =
        failures.into_iter().filter_map(|it| Some(format!("{:#}", it.err()?))).collect();
    if !failures.is_empty() {
        let lines: Vec<_> = failures.into_iter().chain(troubles(sh, namespace)).collect();
        bail!("{}\nhint: `kubectl -n {namespace} get pods` and `… describe pod` tell more", lines.join("\n"));
    }
    Ok(())
}

/// What keeps containers in this namespace from running, as far as the cluster says it.
fn troubles(sh: &Shell, namespace: &str) -> Vec<String> {
    let pods = process::read(sh, cmd!(sh, "kubectl get pods --namespace {namespace} --output json"));
    let pods: Value = pods.ok().and_then(|it| serde_json::from_str(&it).ok()).unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut troubles = Vec::new();
    for pod in list(&pods["items"]) {
        let (name, status) = (text(&pod["metadata"]["name"]), &pod["status"]);
        for condition in list(&status["conditions"]) {
            if condition["type"] == "PodScheduled" && condition["status"] == "False" {
                troubles.push(format!("pod `{name}` has no node: {}", text(&condition["message"])));
            }
        }
        let containers =
            [list(&status["initContainerStatuses"]), list(&status["containerStatuses"])].concat();
        for container in containers {
            let (state, last) = (&container["state"], &container["lastState"]);
            let reason = text(&state["waiting"]["reason"]);
            let exit_codes = [state, last].map(|it| it["terminated"]["exitCode"].as_i64());
            let why = match exit_codes.into_iter().flatten().find(|it| *it != 0) {
                Some(code) => {
                    let now = if state["running"].is_object() { "running again" } else { &reason };
                    format!("exit code {code}, restarts: {}, {now}", container["restartCount"])
                        .trim_end_matches(", ")
                        .to_owned()
                }
                None if ["", "ContainerCreating", "PodInitializing"].contains(&reason.as_str()) => continue,
                None => format!("{reason}: {}", text(&state["waiting"]["message"])),
            };
            troubles.push(format!("container `{}` of pod `{name}`: {why}", text(&container["name"])));
        }
    }
    troubles
}

fn follow_one(sh: &Shell, namespace: &str, workload: &Workload, until: Instant) -> Result<()> {
    let name = &workload.name;
    let namespace = workload.namespace.as_deref().unwrap_or(namespace);
    // kubectl takes 0 as forever.
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let timeout = format!("{}ms", left.as_millis());
    let output =
        process::run(sh, cmd!(sh, "kubectl rollout status {name} -n {namespace} --timeout {timeout}"), b"")?;
    if !output.success {
        let said = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!(
            "`{name}` isn't ready: {}",
            [said, error].iter().filter(|it| !it.is_empty()).cloned().collect::<Vec<_>>().join("; ")
        );
    }
    Ok(())
}

/// The workload in a document, if it is one that kubectl can follow: with OnDelete nothing rolls, and z2jh's
/// placeholders stay pending until a node is free for them.
fn workload(document: &str) -> Result<Option<Workload>> {
    if !["Deployment", "StatefulSet", "DaemonSet"].iter().any(|it| document.contains(it)) {
        return Ok(None);
    }
    let object: Option<Object> =
        serde_yaml::from_str(document).context("cannot tell the workloads in the release's manifest")?;
    let Some(Object { kind, metadata: ObjectMeta { name: Some(name), namespace, labels } }) = object else {
        return Ok(None);
    };
    if labels.get("component").is_some_and(|it| it == "user-placeholder") {
        return Ok(None);
    }
    let followed = match kind.as_str() {
        "Deployment" => true,
        "StatefulSet" | "DaemonSet" => {
            !serde_yaml::from_str(document).is_ok_and(|it: Set| it.spec.update_strategy.r#type == "OnDelete")
        }
        _ => false,
    };
    Ok(followed.then(|| Workload { name: format!("{}/{name}", kind.to_lowercase()), namespace }))
}
