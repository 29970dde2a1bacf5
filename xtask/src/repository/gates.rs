//! Staging hubs that a production hub need not wait for, as far as names and values files tell.

use crate::repository::{
    cluster::{Cluster, Hub},
    fleet::Fleet,
    problem::Problems,
};

/// Suggests `gates` for production hubs that wait for all staging hubs, but go with one of them.
pub(crate) fn suggest(_: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    let staging: Vec<_> = cluster.hubs.iter().filter(|it| it.is_staging()).collect();
    if staging.len() < 2 {
        return;
    }
    let mut lines = Vec::new();
    for hub in &cluster.hubs {
        if hub.is_staging() || hub.gates.is_some() {
            continue;
        }
        if let Some(own) = of_name(hub, &staging).or_else(|| of_values(hub, cluster)) {
            lines.push(format!("`gates: [{}]` in hub `{}`", own.name, hub.name));
        }
    }
    if lines.is_empty() {
        return;
    }
    let message = format!(
        "hubs without `gates` wait for all {} staging hubs, though by names or values files some go with one of them: write {}",
        staging.len(),
        lines.join(", ")
    );
    let at = cluster.yaml.get(&["hubs"]).and_then(|it| it.at);
    problems.suggestion("gates", at, message);
}

/// The only staging hub whose name is the same but for its stage: `data8-staging` for `data8-prod` or `data8`.
fn of_name<'a>(hub: &Hub, staging: &[&'a Hub]) -> Option<&'a Hub> {
    let name = without_stage(&hub.name);
    only(
        staging
            .iter()
            .filter(|it| without_stage(&it.name) == name)
            .copied(),
    )
}

fn without_stage(name: &str) -> Vec<&str> {
    let stages = ["staging", "stage", "prod", "production"];
    name.split('-').filter(|it| !stages.contains(it)).collect()
}

/// The only staging hub that shares a values file with this hub which no other staging hub has.
fn of_values<'a>(hub: &Hub, cluster: &'a Cluster) -> Option<&'a Hub> {
    let mut found = Vec::new();
    for file in &hub.helm_chart_values_files {
        let hubs = cluster.hubs.iter();
        let own =
            only(hubs.filter(|it| it.is_staging() && it.helm_chart_values_files.contains(file)));
        found.extend(own);
    }
    found.dedup_by(|a, b| a.name == b.name);
    only(found.into_iter())
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
