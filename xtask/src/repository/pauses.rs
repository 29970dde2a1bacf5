//! Clusters and hubs that are left alone for a while.

use crate::{
    machine::date::Date,
    yaml::{Finding, Node},
};

/// Pauses in a cluster.yaml whose end is no date.
pub(crate) fn unreadable(yaml: &Node) -> Vec<Finding> {
    let mut problems = Vec::new();
    for (_, until) in ends(yaml) {
        if let Some(text) = until.as_text()
            && let Err(err) = Date::parse(text)
        {
            let message = format!("`paused`: `until`: {err}");
            problems.push(Finding::problem("paused", until.at, message));
        }
    }
    problems
}

/// Pauses that are over: they count no more, and whatever they were for may be forgotten.
pub(crate) fn over(yaml: &Node) -> Vec<Finding> {
    let mut problems = Vec::new();
    for (name, until) in ends(yaml) {
        let date = until.as_text().and_then(|it| Date::parse(it).ok());
        if let Some(date) = date.filter(Date::is_over) {
            let who = name.map_or_else(|| "the cluster".to_owned(), |hub| format!("hub `{hub}`"));
            let message = format!(
                "{who} was paused until {date}, and is deployed again: remove `paused`, or give it a new end"
            );
            problems.push(Finding::problem("paused", until.at, message));
        }
    }
    problems
}

/// The ends of all pauses in a cluster.yaml, each with the name of its hub, if it is not for the whole cluster.
fn ends(yaml: &Node) -> Vec<(Option<&str>, &Node)> {
    let path = ["paused", "until"];
    let hubs = yaml.get(&["hubs"]).and_then(Node::as_list);
    let hubs = hubs.unwrap_or_default().iter();
    let of_hubs = hubs.filter_map(|hub| Some((hub.text(&["name"]), hub.get(&path)?)));
    let of_cluster = yaml.get(&path).map(|until| (None, until));
    of_cluster.into_iter().chain(of_hubs).collect()
}
