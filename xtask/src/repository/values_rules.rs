//! Values against the schemas of a chart and of its enabled subcharts.

use crate::{
    charts::values::EnabledChart,
    machine::terminal::list,
    repository::{
        fleet::Fleet,
        problem::{NOT_CHECKED, Problems},
        release_config::ReleaseConfig,
    },
    schema::{Fault, Schema, Unusable},
    yaml::{Node, Place},
};

/// One chart among those of a release.
struct ChartValues<'a> {
    fleet: &'a Fleet,
    release: &'a ReleaseConfig<'a>,
    enabled: &'a EnabledChart<'a>,
    values: &'a Node,
    /// The keys that lead to these values in the release's.
    path: Vec<&'a str>,
}

/// Checks all values of a release.
pub(crate) fn check(
    fleet: &Fleet,
    release: &ReleaseConfig,
    enabled: &EnabledChart,
    values: &Node,
    problems: &mut Problems,
) {
    let path = Vec::new();
    let chart = ChartValues {
        fleet,
        release,
        enabled,
        values,
        path,
    };
    chart.check(problems);
}

impl ChartValues<'_> {
    fn check(&self, problems: &mut Problems) {
        let chart = self.enabled.chart;
        if chart.is_missing {
            let message = format!(
                "the values of `{}` {} were not checked: the chart is missing from the cache; `--fetch` gets it",
                chart.name, chart.version
            );
            return problems.warning(NOT_CHECKED, Some(chart.at), message);
        }
        if let Some((at, schema)) = &chart.schema {
            match &**schema {
                Ok(schema) => self.check_against(schema, problems),
                Err(unusable) => self.schema_problem(unusable, *at, problems),
            }
        }
        for enabled in &self.enabled.parts {
            if let Some(values) = self.values.get(&[enabled.name]) {
                self.below(enabled, values).check(problems);
            }
        }
    }

    /// The values of an enabled subchart.
    fn below<'a>(&'a self, enabled: &'a EnabledChart<'a>, values: &'a Node) -> ChartValues<'a> {
        let mut path = self.path.clone();
        path.push(enabled.name);
        ChartValues {
            enabled,
            values,
            path,
            ..*self
        }
    }

    /// The schema itself can't be used.
    fn schema_problem(&self, unusable: &Unusable, at: Place, problems: &mut Problems) {
        let name = self.enabled.name;
        match unusable {
            Unusable::Broken(why) => {
                for line in why.lines() {
                    let message = format!("`{name}`: its schema: {line}");
                    problems.problem("schema", Some(at), message);
                }
            }
            Unusable::Elsewhere(urls) => {
                let urls = list(urls);
                let message = format!(
                    "the values of `{name}` were not checked: its schema refers to {urls}, which is missing from the cache; \
                     `--fetch` gets it"
                );
                problems.warning(NOT_CHECKED, Some(at), message);
            }
        }
    }

    fn check_against(&self, schema: &Schema, problems: &mut Problems) {
        for fault in schema.check(self.values) {
            if !self.may_be_right(&fault) {
                let at = fault.place(self.values);
                problems.problem("values", at, self.message(&fault, at));
            }
        }
    }

    /// The defaults of a subchart that isn't here may have what is missing, and a file that can't be read much else.
    fn may_be_right(&self, fault: &Fault) -> bool {
        let is_of_missing = fault.path.first().is_some_and(|name| {
            let mut subcharts = self.enabled.parts.iter();
            subcharts.any(|it| it.chart.is_missing && it.name == name)
        });
        fault.is_lack && is_of_missing
            || fault.extra.is_none() && !self.fleet.is_readable(self.release)
    }

    fn message(&self, fault: &Fault, at: Option<Place>) -> String {
        let own = fault.path.iter().map(String::as_str);
        let path: Vec<_> = self.path.iter().copied().chain(own).collect();
        let mut message = fault.message.clone();
        if !path.is_empty() {
            message = format!("`{}`: {message}", path.join("."));
        }
        match at {
            None => format!("{}: {message}", self.release.shown()),
            Some(at) if !self.fleet.is_set(self.release, at) => {
                format!("{message} (a default of the chart `{}`)", self.enabled.name)
            }
            Some(_) => message,
        }
    }
}
