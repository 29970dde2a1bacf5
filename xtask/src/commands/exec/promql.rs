//! The command that queries a cluster's Prometheus.

use std::process::ExitCode;

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
        tree::Tree,
    },
    repository::{cluster::Cluster, fleet::Fleet, problem::What, release_values::ReleaseValues},
    secrets::Secret,
    services::http,
    settings::Settings,
};

/// Query a cluster's Prometheus
///
/// The address and the password are taken from the values of `support`. If they have no password, it is read from the Secret
/// `prometheus-auth` in the cluster.
#[derive(clap::Args)]
pub struct Promql {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// A query in PromQL, such as `sum by (namespace) (kube_pod_info)`
    query: String,
    /// How to print the answer: `json` is the field `data` of Prometheus's own answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn promql(sh: &Shell, tree: &Tree, args: &Promql) -> Result<ExitCode> {
    let fleet = Fleet::load(sh, tree, &[What::Support], Some(&args.cluster), &[])?;
    let fleet = fleet.with_charts(fetch::cached_schemas());
    let cluster = fleet.cluster(&args.cluster)?;
    let releases = fleet.releases();
    let Some(config) = releases.first() else {
        bail!("{} has no `support`", cluster.file().display());
    };
    let tools = programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let decrypter = credentials::decrypter(&tools, tree, cluster)?;
    let values = ReleaseValues::decrypted(&decrypter, &fleet, config)?;
    let host = host(&values, cluster)?;
    let username = auth(&values, "username").unwrap_or("prometheus");
    let password = match auth(&values, "password") {
        Some(password) => Secret::new(password.to_owned()),
        None => made_password(tools.sh(), tree, cluster)?,
    };

    let url = Settings::load(tree)?.mirrored(&format!("https://{host}/api/v1/query"));
    let Some(data) = query(&url, username, &password, &args.query)? else {
        bail!(
            "{} refuses the password of `{username}`\nhint: what `deploy-support {}` set up last counts",
            http::without_password(&url),
            cluster.name
        );
    };
    print(&data, args.format)?;
    Ok(ExitCode::SUCCESS)
}

/// The domain of Prometheus in the values of `support`.
fn host<'a>(values: &'a ReleaseValues, cluster: &Cluster) -> Result<&'a str> {
    let path = ["prometheus", "server", "ingress", "hosts", "0"];
    let host = values.values.text(&path);
    host.with_context(|| {
        let cluster = &cluster.name;
        format!("the support values of `{cluster}` have no `prometheus.server.ingress.hosts`")
    })
}

fn print(data: &Value, format: Format) -> Result<()> {
    terminal::print(&match format {
        Format::Json => serde_json::to_string_pretty(data)? + "\n",
        Format::Text => table(data),
    })
}

/// The `data` of Prometheus's answer; none if it refuses the password.
fn query(url: &str, username: &str, password: &Secret, query: &str) -> Result<Option<Value>> {
    let login = http::basic(username, password);
    let asked = format!("POST {}", http::without_password(url));
    let answer = http::agent()
        .post(url)
        .header("Authorization", format!("Basic {login}"))
        .send_form([("query", query)])
        .with_context(|| asked.clone())?;
    if answer.status() == 401 {
        return Ok(None);
    }
    let mut answer = http::success(answer, &asked, "Prometheus")?;
    let mut answer = http::json(&mut answer, "Prometheus").with_context(|| asked.clone())?;
    ensure!(
        answer["status"] == "success",
        "{asked}: the answer is not that of Prometheus"
    );
    Ok(Some(answer["data"].take()))
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
fn made_password(sh: &Shell, tree: &Tree, cluster: &Cluster) -> Result<Secret> {
    let login = credentials::open(sh, tree, cluster)?;
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
        .context("the password is not base64")?;
    let password = String::from_utf8(password).context("the password is not text")?;
    Ok(Secret::new(password))
}

/// A row for each series, with its labels and its value, or its values and their times
/// (<https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats>).
fn table(data: &Value) -> String {
    let result = &data["result"];
    if let Some("scalar" | "string") = data["resultType"].as_str() {
        return format!("{}\n", value_of(result));
    }
    let mut rows: Vec<_> = result
        .as_array()
        .into_iter()
        .flatten()
        .map(|series| vec![labels_of(&series["metric"]), values_of(series)])
        .collect();
    rows.sort();
    terminal::table(&rows)
}

/// `name{key="value", …}`
fn labels_of(metric: &Value) -> String {
    let name = metric["__name__"].as_str().unwrap_or_default();
    let labels: Vec<_> = metric
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "__name__")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{name}{{{}}}", labels.join(", "))
}

fn values_of(series: &Value) -> String {
    let Some(points) = series["values"].as_array() else {
        return value_of(&series["value"]).to_owned();
    };
    let points: Vec<_> = points
        .iter()
        .map(|point| format!("{}@{}", value_of(point), point[0]))
        .collect();
    points.join(" ")
}

/// The value of a pair of a time and a value.
fn value_of(point: &Value) -> &str {
    point[1].as_str().unwrap_or("?")
}
