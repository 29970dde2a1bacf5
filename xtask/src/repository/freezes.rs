//! What there is to say of the freezes in config/xtask.yaml.

use anyhow::{Result, bail};

use crate::{
    machine::{
        terminal::{did_you_mean, list, nearest},
        tree::Tree,
    },
    repository::cluster_yaml,
    settings::{self, Settings, freeze::Freeze},
    yaml::{Finding, Node},
};

/// Freezes that are over, and names of clusters that there are not. `yaml` is the file that they are in.
pub(crate) fn findings(freezes: &[Freeze], yaml: &Node, clusters: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, freeze) in freezes.iter().enumerate() {
        let index = index.to_string();
        let place = |path: &[&str]| {
            let path = [&["freeze", &index], path].concat();
            yaml.get(&path).and_then(|it| it.at)
        };
        if freeze.until.is_over() {
            let Freeze { until, reason, .. } = freeze;
            let message = format!("the freeze until {until} ({reason}) is over: remove it");
            findings.push(Finding {
                is_warning: true,
                ..Finding::problem("freeze", place(&["until"]), message)
            });
        }
        for (nth, name) in freeze.clusters().iter().enumerate() {
            if !clusters.contains(&name.as_str()) {
                let message = unknown(name, clusters);
                let at = place(&["clusters", &nth.to_string()]);
                findings.push(Finding::problem("freeze", at, message));
            }
        }
    }
    findings
}

/// Refuses a freeze that is now for a cluster that there is not: it would hold nothing, and nobody would know.
pub(crate) fn refuse_unknown(tree: &Tree, settings: &Settings) -> Result<()> {
    let files = cluster_yaml::files(tree)?;
    let clusters = files.iter().map(|it| cluster_yaml::folder_name(it));
    let clusters: Vec<_> = clusters.collect();
    let now = settings.freeze.iter().filter(|it| it.is_now());
    for name in now.flat_map(Freeze::clusters) {
        if !clusters.contains(&name.as_str()) {
            bail!("{}: {}", settings::FILE, unknown(name, &clusters));
        }
    }
    Ok(())
}

fn unknown(name: &str, clusters: &[&str]) -> String {
    let meant = did_you_mean(nearest(name, clusters.iter().copied()));
    let known = list(clusters);
    format!("`freeze`: there is no cluster `{name}`; there are: {known}{meant}")
}
