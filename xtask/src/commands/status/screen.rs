//! One release on one screen of 80 columns.

use std::time::{Duration, SystemTime};

use crate::{
    commands::status::{
        hub::{Differences, State},
        repository::to_the_minute,
    },
    kubernetes::{certificates::Certificate, servers::Server},
    machine::terminal::{table, wrapped},
};

const WIDTH: usize = 80;

/// How many pods, files and servers are listed: the first ones are those that are not ready.
const MOST: usize = 12;

/// The screen.
pub(super) fn text(state: &State) -> String {
    let mut lines = vec![head(state)];
    lines.extend(release_line(state));
    for problem in &state.problems {
        lines.push(String::new());
        lines.extend(problem.lines().map(|it| fitted(it, "    ")));
    }
    section(&mut lines, "PODS", &pods(state));
    section(&mut lines, "LAST WARNINGS", &warnings(state));
    section(&mut lines, "LAST REVISIONS (UTC)", &revisions(state));
    lines.push(String::new());
    lines.extend(facts(state));
    section(&mut lines, "NOT STARTED", &servers(state));
    section(&mut lines, "NOT READ", &state.unread);
    lines.join("\n") + "\n"
}

/// `staging of lake: not ready, 1 of 2 pods are ready (2026-01-31 12:00:05 UTC)`
fn head(state: &State) -> String {
    let State {
        release, cluster, ..
    } = state;
    let time = state.time.replace('T', " ").replace('Z', " UTC");
    if state.revisions.is_empty() {
        return fitted(
            &format!("{release} of {cluster}: not deployed ({time})"),
            "  ",
        );
    }
    let (ready, wanted) = (state.pods_ready, state.pods_wanted);
    let verdict = if state.is_ready { "ready" } else { "NOT READY" };
    let head =
        format!("{release} of {cluster}: {verdict}, {ready} of {wanted} pods are ready ({time})");
    fitted(&head, "  ")
}

fn release_line(state: &State) -> Option<String> {
    let newest = state.revisions.first()?;
    let [verdict, who, commit] = &newest.shown;
    let chart = state.chart.as_deref().unwrap_or("?");
    let ago = age(newest.created.as_deref());
    let line = format!(
        "{chart}, revision {} by {who} {ago} ago ({verdict}), commit {commit}",
        newest.revision
    );
    Some(fitted(&line, "  "))
}

fn pods(state: &State) -> Vec<String> {
    let mut rows = Vec::new();
    for pod in state.pods.iter().take(MOST) {
        let restarts = match pod.restarts {
            0 => String::new(),
            count => format!("restarts: {count}"),
        };
        let cells = [
            pod.reason.clone(),
            age(pod.created.as_deref()),
            restarts,
            pod.name.clone(),
        ];
        rows.push(cells.to_vec());
    }
    let mut lines = rows_of(&rows);
    lines.extend(rest(state.pods.len()));
    lines
}

fn warnings(state: &State) -> Vec<String> {
    let warnings = state.warnings.iter();
    let lines = warnings.map(|it| {
        let ago = age(Some(&it.time));
        format!("{ago} {} {}: {}", it.object, it.reason, it.message)
    });
    lines.collect()
}

fn revisions(state: &State) -> Vec<String> {
    let mut rows = Vec::new();
    for revision in &state.revisions {
        let [verdict, who, commit] = &revision.shown;
        let created = revision.created.as_deref().unwrap_or("-");
        let cells = [
            revision.revision.to_string(),
            to_the_minute(created),
            who.clone(),
            verdict.clone(),
            commit.clone(),
        ];
        rows.push(cells.to_vec());
    }
    rows_of(&rows)
}

/// A line for each thing that is always told.
fn facts(state: &State) -> Vec<String> {
    let at_work = match &state.at_work {
        None => "nobody".to_owned(),
        Some(who) if state.is_cut_off => format!("nobody; {who} was cut off"),
        Some(who) => who.clone(),
    };
    let mut facts = vec![
        ("deploying", at_work),
        ("repository", differences(&state.repository)),
        ("by hand", differences(&state.by_hand)),
        ("shown by", state.diff.clone()),
    ];
    let kubernetes = state.other_kubernetes.clone();
    facts.extend(kubernetes.map(|it| ("kubernetes", it)));
    facts.extend(
        state
            .address
            .url
            .iter()
            .map(|it| ("address", address(it, state))),
    );
    let certificates = state.address.certificates.iter();
    facts.extend(certificates.map(|it| ("certificate", certificate(it))));
    let servers = &state.servers;
    facts.push((
        "servers",
        format!(
            "{} running, {} starting, {} failed in the last ten minutes",
            servers.running,
            servers.starting.len(),
            servers.failed.len()
        ),
    ));
    let indent = " ".repeat(13);
    let lines = facts.iter().map(|(key, value)| format!("{key:<13}{value}"));
    lines.map(|it| fitted(&it, &indent)).collect()
}

fn address(url: &str, state: &State) -> String {
    let leads_to: Vec<_> = state.address.leads_to.iter().cloned().collect();
    if leads_to.is_empty() {
        return url.to_owned();
    }
    format!("{url}, leads to {}", leads_to.join(", "))
}

fn certificate(certificate: &Certificate) -> String {
    let name = &certificate.name;
    match &certificate.expires {
        _ if !certificate.is_issued => format!("{name}, not issued"),
        Some(time) => format!("{name}, until {} UTC", to_the_minute(time)),
        None => format!("{name}, issued"),
    }
}

fn differences(differences: &Differences) -> String {
    let mut what = differences.what.clone();
    let more = what.len().saturating_sub(MOST);
    what.truncate(MOST);
    let mut what = what.join(", ");
    if more > 0 {
        what += &format!(" and {more} more");
    }
    match differences.differs {
        Some(true) => format!("changed: {what}"),
        Some(false) => "no changes".to_owned(),
        None if what.is_empty() => "-".to_owned(),
        None => format!("cannot be told: {what}"),
    }
}

fn servers(state: &State) -> Vec<String> {
    let servers = &state.servers;
    let failed = servers.failed.iter().map(|it| server_line(it, "failed"));
    let starting = servers
        .starting
        .iter()
        .map(|it| server_line(it, "starting"));
    let mut lines: Vec<_> = failed.chain(starting).take(MOST).collect();
    lines.extend(rest(servers.failed.len() + servers.starting.len()));
    lines
}

fn server_line(server: &Server, state: &str) -> String {
    let mut line = format!("{} {state}", server.name);
    if server.time.is_some() {
        line += &format!(" {}", age(server.time.as_deref()));
    }
    if !server.why.is_empty() {
        line += &format!(": {}", server.why);
    }
    line
}

/// Adds a part with a title, if there is anything in it.
fn section(lines: &mut Vec<String>, title: &str, content: &[String]) {
    if content.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(title.to_owned());
    let content = content.iter().flat_map(|it| it.lines());
    lines.extend(content.map(|it| fitted(&format!("  {it}"), "    ")));
}

fn rows_of(rows: &[Vec<String>]) -> Vec<String> {
    table(rows).lines().map(str::to_owned).collect()
}

/// What is said of those that are not listed.
fn rest(count: usize) -> Option<String> {
    (count > MOST).then(|| format!("and {} more", count - MOST))
}

fn fitted(line: &str, indent: &str) -> String {
    wrapped(line, WIDTH, indent)
}

/// How long ago something was: `45s`, `12m`, `5h`, `3d`.
fn age(time: Option<&str>) -> String {
    let time = time.and_then(|it| humantime::parse_rfc3339(it).ok());
    let Some(time) = time else {
        return "-".to_owned();
    };
    let age = SystemTime::now().duration_since(time);
    let seconds = age.unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
