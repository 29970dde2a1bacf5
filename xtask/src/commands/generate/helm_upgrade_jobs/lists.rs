//! The lists of jobs for the matrices of a workflow.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    commands::generate::{
        helm_upgrade_jobs::{
            images::Images,
            plan::{IGNORE_FREEZE, Plan, SUPPORT, Upgrades},
        },
        jobs::{JOBS, OfCluster, Share, by_provider, names, reasons, shares, shortened},
    },
    repository::cluster::Hub,
};

/// The lists of a wave's jobs. config/cluster.schema.json has their numbers.
const WAVES: [(u8, &str); 5] = [
    (1, "wave-1"),
    (2, "wave-2"),
    (3, "wave-3"),
    (4, "wave-4"),
    (5, "wave-5"),
];

/// How long a list should be: five of them have many hubs, and a workflow takes half a million characters of all.
const LONGEST: usize = 100 << 10;

/// How many jobs a list has at least if there is so much to do, however long it is.
const FEWEST: usize = 64;

/// The first word of the name of a job that builds images: `github filter-jobs` reads `Image NAME` as the release `Image/NAME`.
const IMAGE: &str = "Image";

/// The lists by name: first two in the form of the deployer's first version, then one for each kind of job, then for
/// workflows that deploy in waves, and last the images that a pull request changes.
pub(crate) fn lists(plan: &Plan) -> Vec<(&'static str, Value)> {
    let all: Vec<_> = plan.upgrades.iter().collect();
    let images = &plan.images;
    let mut lists = vec![
        ("support-and-staging-matrix-jobs", first_jobs(&all)),
        ("prod-hub-matrix-jobs", prod_jobs_in_old_form(&all)),
        ("support-jobs", fitting(|most| support_jobs(&all, most))),
        (
            "staging-jobs",
            fitting(|most| hub_jobs(&all, images, staging, most)),
        ),
        (
            "prod-jobs",
            fitting(|most| hub_jobs(&all, images, prod, most)),
        ),
    ];
    let mut busy = Vec::new();
    for (number, name) in WAVES {
        let own = all.iter().copied();
        let own: Vec<_> = own.filter(|it| it.cluster.wave == number).collect();
        let first_used = images.of_wave(number);
        if !own.is_empty() || !first_used.is_empty() {
            busy.push(number);
        }
        lists.push((name, wave(&own, &first_used, images)));
    }
    lists.push(("waves", json!(busy)));
    let held = plan.held.iter().map(|it| it.as_json());
    lists.push(("held", held.collect()));
    lists.push(("changed-image-jobs", plan.changed_images.jobs()));
    lists
}

/// A list with as many jobs as GitHub takes, or with fewer so that it does not get too long: what several hubs wait for is
/// in it once for each job.
fn fitting(list: impl Fn(usize) -> Value) -> Value {
    let mut most = JOBS;
    loop {
        let jobs = list(most);
        if most == FEWEST || jobs.to_string().len() <= LONGEST {
            return jobs;
        }
        most /= 2;
    }
}

/// A job for the support chart and all staging hubs of a cluster.
fn first_jobs(plan: &[&Upgrades]) -> Value {
    let jobs = plan.iter().map(|it| {
        json!({
            "cluster_name": it.cluster.name,
            "provider": it.cluster.provider_name(),
            "upgrade_support": it.support.is_some(),
            "reason_for_support_redeploy": it.support.as_deref().unwrap_or_default(),
            "upgrade_staging": !it.staging.is_empty(),
            "reason_for_staging_redeploy": shortened(&reasons(&it.staging), plan.len()),
            "staging_hubs": names(&it.staging),
        })
    });
    jobs.collect()
}

fn prod_jobs_in_old_form(plan: &[&Upgrades]) -> Value {
    let shares = shares(plan.iter().map(|it| prod(it)), JOBS);
    let jobs = shares
        .iter()
        .map(|it| it.job("reason_for_redeploy", shares.len()));
    jobs.collect()
}

/// What the jobs of a wave need to know. It builds the images that it is the first to use, of all that are built.
fn wave(plan: &[&Upgrades], first_used: &Images, images: &Images) -> Value {
    json!({
        "images": first_used.jobs(),
        "support": fitting(|most| brief(&support_jobs(plan, most))),
        "staging": fitting(|most| brief(&hub_jobs(plan, images, staging, most))),
        "prod": fitting(|most| brief(&hub_jobs(plan, images, prod, most))),
    })
}

/// Jobs without what only people read.
fn brief(jobs: &Value) -> Value {
    let needed = ["provider", "releases", "deploys", "needs", "ignore_freeze"];
    let jobs = jobs.as_array().into_iter().flatten();
    let jobs = jobs.filter_map(Value::as_object).map(|job| {
        let mut job = job.clone();
        job.retain(|key, _| needed.contains(&key.as_str()));
        job
    });
    jobs.collect()
}

fn staging<'a>(upgrades: &'a Upgrades) -> OfCluster<'a> {
    OfCluster {
        cluster: upgrades.cluster,
        todos: &upgrades.staging,
    }
}

fn prod<'a>(upgrades: &'a Upgrades) -> OfCluster<'a> {
    OfCluster {
        cluster: upgrades.cluster,
        todos: &upgrades.prod,
    }
}

fn support_jobs(plan: &[&Upgrades], most: usize) -> Value {
    let all = plan.iter().copied().filter(|it| it.support.is_some());
    let groups = by_provider(all.collect(), |it| it.cluster, most);
    let jobs = groups.iter().map(|group| support_job(group, groups.len()));
    jobs.collect()
}

/// The job for the support charts of one cluster, or of several.
fn support_job(group: &[&Upgrades], jobs: usize) -> Value {
    let clusters: Vec<_> = group.iter().map(|it| it.cluster.name.as_str()).collect();
    let releases: Vec<_> = group.iter().map(|it| it.cluster.path_of(SUPPORT)).collect();
    let reasons: Vec<_> = group
        .iter()
        .filter_map(|it| it.support.as_deref())
        .collect();
    let is_past_freeze = group.iter().any(|it| it.past_freeze.contains(SUPPORT));
    json!({
        "cluster_name": clusters.join(" "),
        "provider": group[0].cluster.provider_name(),
        "choice_reason": shortened(&reasons.join("; "), jobs),
        "releases": releases.join(" "),
        "deploys": clusters.join("\n"),
        "needs": [],
        "ignore_freeze": ignore_freeze(is_past_freeze),
    })
}

fn hub_jobs<'a>(
    plan: &[&'a Upgrades<'a>],
    images: &Images,
    hubs: fn(&'a Upgrades) -> OfCluster<'a>,
    most: usize,
) -> Value {
    let shares = shares(plan.iter().map(|it| hubs(it)), most);
    let jobs = shares.iter().map(|share| {
        let mut job: Map<_, _> = share.job("choice_reason", shares.len());
        let parts = with_upgrades(share, plan);
        let needs: Vec<_> = parts
            .iter()
            .flat_map(|(part, it)| needs(part, it, images))
            .collect();
        let is_past_freeze = parts.iter().any(|(part, upgrades)| {
            let names = names(part.todos);
            names.iter().any(|it| upgrades.past_freeze.contains(it))
        });
        job.insert("releases".to_owned(), json!(share.releases()));
        job.insert("deploys".to_owned(), json!(share.lines()));
        job.insert("needs".to_owned(), json!(needs));
        job.insert(
            "ignore_freeze".to_owned(),
            json!(ignore_freeze(is_past_freeze)),
        );
        job
    });
    jobs.collect()
}

/// The parts of a share, each with what else is upgraded on its cluster.
fn with_upgrades<'a>(
    share: &Share<'a>,
    plan: &[&'a Upgrades<'a>],
) -> Vec<(OfCluster<'a>, &'a Upgrades<'a>)> {
    let parts = share.0.iter().filter_map(|part| {
        let upgrades = plan
            .iter()
            .find(|it| it.cluster.name == part.cluster.name)?;
        Some((*part, *upgrades))
    });
    parts.collect()
}

/// The images and releases whose jobs have to go well before these hubs are deployed.
fn needs(part: &OfCluster, upgrades: &Upgrades, images: &Images) -> Vec<String> {
    let cluster = upgrades.cluster;
    let support = upgrades.support.iter().map(|_| SUPPORT);
    let is_waited_for = |gate: &Hub| part.todos.iter().any(|it| it.hub.waits_for(gate));
    let gates = upgrades.staging.iter().map(|it| it.hub);
    let gates = gates.filter(|it| is_waited_for(it));
    let needed = support.chain(gates.map(|it| it.name.as_str()));
    let built: BTreeSet<_> = part
        .todos
        .iter()
        .flat_map(|it| images.of_hub(it.hub))
        .collect();
    let built = built.into_iter().map(|it| format!("{IMAGE}/{it}"));
    built.chain(needed.map(|it| cluster.path_of(it))).collect()
}

/// The reason that a job gives for ignoring a freeze; none if it doesn't.
fn ignore_freeze(is_past_freeze: bool) -> &'static str {
    if is_past_freeze { IGNORE_FREEZE } else { "" }
}
