//! Pods of a namespace.

use std::mem;

use anyhow::Result;
use serde_json::Value;

use crate::{kubernetes::api::Api, services::http::percent_encoded};

/// The pods of a namespace that have these labels.
pub(crate) fn find(api: &Api, namespace: &str, labels: &str) -> Result<Vec<Value>> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector={}",
        percent_encoded(labels)
    );
    let mut found = api.get(&path)?;
    let items = found["items"].as_array_mut();
    Ok(items.map(mem::take).unwrap_or_default())
}

pub(crate) fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The names of a pod's containers.
pub(crate) fn containers(pod: &Value) -> Vec<&str> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.filter_map(|it| it["name"].as_str()).collect()
}

/// The newest pod that is ready and is not being deleted.
pub(crate) fn newest_ready(pods: Vec<Value>) -> Option<Value> {
    pods.into_iter().filter(is_ready).max_by_key(|pod| {
        pod["metadata"]["creationTimestamp"]
            .as_str()
            .map(str::to_owned)
    })
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}
