//! A pod that is made for one command, with a volume.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    commands::exec::{pods, target::interactive},
    kubernetes::{
        api::{self, Api},
        rollout,
    },
    machine::{
        paths,
        process::{self, Unfinished, Whose},
    },
    services::http::percent_encoded,
};

/// How the names of its job and its pod begin.
pub(crate) const NAME: &str = "xtask-homes-";

/// After how many seconds the pod ends if nobody deletes it: a person's evening, or the copy of a large home.
const DEADLINE: u32 = 12 * 60 * 60;

/// How long a pod may take to be ready: a node may have to be made for it first.
const PATIENCE: Duration = Duration::from_secs(300);

/// A pod in a hub's namespace, with a volume. It is deleted when this is dropped.
pub(crate) struct Helper<'a> {
    sh: &'a Shell,
    pub(crate) api: &'a Api,
    pub(crate) namespace: &'a str,
    job: String,
    pub(crate) pod: String,
    _unfinished: Unfinished,
}

impl<'a> Helper<'a> {
    /// Creates the pod with the volume at `mount`, and waits until it is ready.
    pub(crate) fn start(
        sh: &'a Shell,
        api: &'a Api,
        image: &str,
        namespace: &'a str,
        mount: &str,
        volume: &Value,
    ) -> Result<Helper<'a>> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?fieldValidation=Strict");
        let job_name = format!("{NAME}{}", paths::random_suffix());
        let mut helper = Helper {
            _unfinished: process::unfinished(format!(
                "the job `{job_name}` is left in `{namespace}`, and ends by itself in {} hours\nhint: `kubectl --namespace {namespace} delete job {job_name}`",
                DEADLINE / 3600
            )),
            sh,
            api,
            namespace,
            job: job_name,
            pod: String::new(),
        };
        match api.send("POST", &path, &job(&helper.job, image, mount, volume)) {
            // We have made it, and the answer did not reach us.
            Err(err) if api::status(&err) == Some(409) => {}
            made => _ = made.context("cannot make a job for the pod")?,
        }
        helper.pod = helper.wait_for_pod()?;
        Ok(helper)
    }

    /// Returns the pod's name.
    fn wait_for_pod(&self) -> Result<String> {
        let started = Instant::now();
        let label = format!("batch.kubernetes.io/job-name={}", self.job);
        let mut told = false;
        loop {
            process::check_stopped()?;
            let pods = pods::find(self.api, self.namespace, &label)?;
            let trouble = pods.iter().find_map(rollout::trouble_of_job);
            if let Some(pod) = pods::newest_ready(pods) {
                return Ok(pods::name(&pod).to_owned());
            }
            let warnings = self.warnings().unwrap_or_default().join("; ");
            refuse_trouble(trouble.as_ref(), &warnings, started.elapsed() > PATIENCE)?;
            if !told && started.elapsed() > Duration::from_secs(5) {
                told = true;
                match trouble.map_or(warnings, |(what, _)| what).as_str() {
                    "" => say!("waiting for the pod"),
                    reason => say!("waiting for the pod: {reason}"),
                }
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The warnings of the cluster about the job and its pod.
    fn warnings(&self) -> Result<Vec<String>> {
        let path = format!(
            "/api/v1/namespaces/{}/events?fieldSelector={}",
            self.namespace,
            percent_encoded("type=Warning")
        );
        let events = self.api.get(&path)?;
        let mut messages = Vec::new();
        for event in events["items"].as_array().into_iter().flatten() {
            let object = event["involvedObject"]["name"].as_str().unwrap_or_default();
            if object.starts_with(&self.job)
                && let Some(message) = event["message"].as_str()
            {
                messages.push(message.to_owned());
            }
        }
        messages.dedup();
        Ok(messages)
    }

    /// Runs a command in the pod with our terminal.
    pub(crate) fn in_front(&self, command: &[String]) -> Result<ExitCode> {
        let sh = self.sh;
        let namespace = self.namespace;
        let pod = &self.pod;
        let stdin = interactive();
        let exec = cmd!(
            sh,
            "kubectl exec --namespace {namespace} {stdin...} {pod} -- {command...}"
        );
        process::in_front(sh, exec, Whose::Ours)
    }

    /// Runs a script of bash in the pod, which must succeed, and returns what it prints.
    pub(crate) fn read(&self, script: &str, args: &[&str]) -> Result<String> {
        let sh = self.sh;
        let namespace = self.namespace;
        let pod = &self.pod;
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

    fn delete(&self, path: &str) -> Result<()> {
        let options = json!({"gracePeriodSeconds": 1, "propagationPolicy": "Background"});
        self.api.delete(path, &options)
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let namespace = self.namespace;
        let job = &self.job;
        let deleted = self.delete(&format!("/apis/batch/v1/namespaces/{namespace}/jobs/{job}"));
        if !self.pod.is_empty() {
            // The cluster does that too, in its own time.
            let pod = format!("/api/v1/namespaces/{namespace}/pods/{}", self.pod);
            let _ = self.delete(&pod);
        }
        if let Err(err) = deleted {
            say!(
                "cannot delete the job `{job}` in `{namespace}`, which ends by itself in {} hours: {err:#}",
                DEADLINE / 3600
            );
        }
    }
}

/// A job has an end, and is deleted after it even when nobody is there to do that.
fn job(name: &str, image: &str, mount: &str, volume: &Value) -> Value {
    let mut volume = volume.clone();
    volume["name"] = json!("homes");
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
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
                    "containers": [container(image, mount)],
                },
            },
        },
    })
}

fn container(image: &str, mount: &str) -> Value {
    json!({
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
    })
}

/// Refuses to wait any longer for a pod that will not become ready, or is late. `trouble` is what keeps it from that, and
/// whether it is certain to stay.
fn refuse_trouble(trouble: Option<&(String, bool)>, warnings: &str, is_late: bool) -> Result<()> {
    if let Some((what, is_certain)) = trouble
        && (*is_certain || is_late)
    {
        bail!(
            "the pod for it did not become ready: {what}\nhint: `shell_image` in config/xtask.yaml names its image"
        );
    }
    ensure!(
        !is_late,
        "the pod for it is not ready after {} s: {warnings}",
        PATIENCE.as_secs()
    );
    ensure!(
        !rollout::is_refusal(warnings),
        "the pod for it cannot be made: {warnings}"
    );
    Ok(())
}
