//! Whether a scalar that helm does not read as text may be one.

use crate::{
    charts::values::{self, EnabledChart},
    repository::{fleet::Fleet, release_config::ReleaseConfig},
    yaml::{self, Data, Finding, Map, Node, is_of_version},
};

/// Whether a finding about a file of a release says something useful: what should be quoted may be a text where it is.
pub(crate) fn may_be_followed(
    fleet: &Fleet,
    release: &ReleaseConfig,
    file: &Node,
    finding: &Finding,
) -> bool {
    let Some(text) = &finding.unquoted else {
        return true;
    };
    let path = file.path_to(finding.line, finding.column);
    let (Some(path), Some(Ok(chart))) = (path, fleet.charts.get(&release.chart)) else {
        return true;
    };
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    // Another file may have replaced a list that this value is in.
    let mut set = fleet.set(release);
    yaml::merge(&mut set, file.as_map().cloned().unwrap_or_default());
    match values::compute(chart, &set) {
        Ok((values, enabled)) => takes_text(&enabled, values, &path, text),
        Err(_) => true,
    }
}

/// Whether a chart and its subcharts take a text at this path of their values. Of a subchart that is not there only
/// this is known: its versions are texts.
fn takes_text(enabled: &EnabledChart, values: Map, path: &[&str], text: &str) -> bool {
    let values = Node::nowhere(Data::Map(values));
    let mut chart = enabled;
    let mut below = &values;
    for start in 0..path.len() {
        if chart.chart.is_missing {
            return path.last().is_some_and(|it| is_of_version(it));
        }
        if !own_takes_text(chart, below, &path[start..], text) {
            return false;
        }
        let mut parts = chart.parts.iter();
        let part = parts.find(|it| it.name == path[start]);
        let (Some(part), Some(values)) = (part, below.get(&path[start..=start])) else {
            return true;
        };
        chart = part;
        below = values;
    }
    true
}

/// Whether the chart's own schema, if it has one, takes the text.
fn own_takes_text(enabled: &EnabledChart, values: &Node, path: &[&str], text: &str) -> bool {
    let schema = enabled.chart.schema.as_ref();
    let schema = schema.and_then(|(_, schema)| schema.as_ref().as_ref().ok());
    schema.is_none_or(|it| it.takes_text(values, path, text))
}
