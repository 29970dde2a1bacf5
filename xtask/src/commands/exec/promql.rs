//! Questions to a cluster's Prometheus.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    charts::fetch,
    kubernetes::credentials,
    machine::{
        process, programs,
        terminal::{self, Format},
    },
    repository::{cluster::Cluster, fleet::Fleet, problem::What, release_values::ReleaseValues},
    services::http,
    settings::Settings,
    yaml::Node,
};

/// Ask a cluster's Prometheus
///
/// Its address and password are those of the values files of `support`; a password that stands in none of them is read
/// from the Secret `prometheus-auth` in the cluster.
#[derive(clap::Args)]
pub struct Promql {
    /// A folder in config/clusters/
    cluster: String,
    /// In PromQL: `sum by (namespace) (kube_pod_info)`
    query: String,
    /// How to print the answer; `json` is `data` of what Prometheus answers
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn promql(sh: &Shell, root: &Path, args: &Promql) -> Result<ExitCode> {
    let fleet = Fleet::load(root, &[What::Support], Some(&args.cluster), &[])?;
    let fleet = fleet.with_charts(fetch::cached_schemas());
    let cluster = fleet.cluster(&args.cluster)?;
    let releases = fleet.releases();
    let Some(config) = releases.first() else {
        bail!("{} has no `support`", cluster.file().display());
    };
    let sh = &programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let sh = &credentials::with_demo_key(sh, root, cluster)?;
    let values = ReleaseValues::decrypted(sh, &fleet, config)?;
    let hosts = values
        .values
        .get(&["prometheus", "server", "ingress", "hosts", "0"]);
    let host = hosts.and_then(Node::as_text).with_context(|| {
        format!(
            "the support values of `{}` have no `prometheus.server.ingress.hosts`",
            cluster.name
        )
    })?;
    let username = auth(&values, "username").unwrap_or("prometheus");
    let password = match auth(&values, "password") {
        Some(password) => password.to_owned(),
        None => made_password(sh, root, cluster)?,
    };

    let public = format!("https://{host}/api/v1/query");
    let url = Settings::load(root)?.mirrored(&public);
    let mut answer = http::agent()
        .post(&url)
        .header(
            "Authorization",
            format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{username}:{password}"))
            ),
        )
        .send_form([("query", &args.query)])
        .with_context(|| format!("POST {url}"))?;
    let body = answer
        .body_mut()
        .read_to_string()
        .with_context(|| format!("POST {url}"))?;
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    match json["error"].as_str() {
        Some(error) => bail!("Prometheus answers: {error}"),
        None if answer.status() == 401 => bail!(
            "{url} refuses the password of `{username}`\nhint: what `deploy-support {}` set up last counts",
            cluster.name
        ),
        None => ensure!(
            json["status"] == "success",
            "{url} answers {}, and not as Prometheus does",
            answer.status()
        ),
    }
    terminal::print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&json["data"])? + "\n",
        Format::Text => table(&json["data"]),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the values of `support` say of Prometheus' login.
fn auth<'a>(values: &'a ReleaseValues, key: &str) -> Option<&'a str> {
    // The second one is what 2i2c's chart calls it.
    let sections = ["prometheusAuthSecret", "prometheusIngressAuthSecret"];
    let texts = sections
        .into_iter()
        .filter_map(|it| values.text(&[it, key]));
    texts.into_iter().find(|it| !it.is_empty())
}

/// The password that the support chart made.
fn made_password(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<String> {
    let login = credentials::open(sh, root, cluster)?;
    let sh = &login.sh;
    let field = "jsonpath={.data.password}";
    let get = cmd!(
        sh,
        "kubectl get secret --namespace support prometheus-auth --output {field}"
    );
    let password = process::read(sh, get)
        .context("no values file of `support` has a password for Prometheus")?;
    let password = BASE64_STANDARD
        .decode(password.trim())
        .context("the password isn't base64")?;
    String::from_utf8(password).context("the password isn't text")
}

/// A row for each series: its labels, then its value, or all of them by their times.
fn table(data: &Value) -> String {
    let value = |point: &Value| point[1].as_str().unwrap_or("?").to_owned();
    let result = match data["resultType"].as_str() {
        Some("scalar" | "string") => return value(&data["result"]) + "\n",
        _ => data["result"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default(),
    };
    let rows = result.iter().map(|series| {
        let labels = series["metric"].as_object().into_iter().flatten();
        let name = series["metric"]["__name__"].as_str().unwrap_or_default();
        let labels: Vec<_> = labels
            .filter(|(key, _)| *key != "__name__")
            .map(|(key, it)| format!("{key}={it}"))
            .collect();
        let points = series["values"].as_array();
        let values = match points {
            Some(points) => points
                .iter()
                .map(|it| format!("{}@{}", value(it), it[0]))
                .collect::<Vec<_>>()
                .join(" "),
            None => value(&series["value"]),
        };
        (format!("{name}{{{}}}", labels.join(", ")), values)
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    let width = rows
        .iter()
        .map(|(labels, _)| labels.len())
        .max()
        .unwrap_or(0);
    rows.into_iter()
        .map(|(labels, values)| format!("{labels:<width$}  {values}\n"))
        .collect()
}
