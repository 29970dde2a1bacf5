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
                self.add(&fault, problems);
            }
        }
    }

    /// Adds a fault where people can mend it: where they set the value, or in the file where they would set it.
    fn add(&self, fault: &Fault, problems: &mut Problems) {
        let path = self.path_of(fault);
        let mut message = self.message(fault, &path);
        let own = fault.path.iter().any(|it| it.parse::<usize>().is_ok());
        let at = fault.place(self.values);
        let set_at = at.filter(|at| self.fleet.is_set(self.release, *at));
        if at.is_some() && set_at.is_none() {
            message += &format!(" (a default of the chart `{}`)", self.enabled.name);
        }
        // Of what several files set together, another hub may have more, and jsonnet makes something else for it.
        let is_made = set_at.is_some_and(|it| self.fleet.is_made(self.release, it));
        if set_at.is_none() || is_made || fault.missing.is_some() && !own {
            message = format!("{}: {message}", self.release.shown_with_cluster());
        }
        let at = set_at.or_else(|| self.fleet.place_for(self.release, &path));
        problems.problem("values", at, message);
    }

    /// The defaults of a subchart that isn't here may have what is missing, and a file that can't be read much else.
    fn may_be_right(&self, fault: &Fault) -> bool {
        let is_of_missing = fault.path.first().is_some_and(|name| {
            let mut subcharts = self.enabled.parts.iter();
            subcharts.any(|it| it.chart.is_missing && it.name == name)
        });
        let may_be_mended = !self.fleet.is_readable(self.release)
            || !self.fleet.knows_all_of(self.release) && !self.is_final(fault);
        fault.missing.is_some() && is_of_missing || fault.extra.is_none() && may_be_mended
    }

    /// Whether a fault is in what no default changes: a scalar or a list that people set.
    fn is_final(&self, fault: &Fault) -> bool {
        let path: Vec<_> = fault.path.iter().map(String::as_str).collect();
        let is_in_list = path.iter().any(|it| it.parse::<usize>().is_ok());
        let value = self.values.get(&path);
        let is_merged = !is_in_list && value.is_none_or(|it| it.as_map().is_some());
        let at = fault.place(self.values);
        !is_merged && at.is_some_and(|it| self.fleet.is_set(self.release, it))
    }

    /// The keys that lead to a fault in the release's values.
    fn path_of<'a>(&'a self, fault: &'a Fault) -> Vec<&'a str> {
        let own = fault.path.iter().map(String::as_str);
        self.path.iter().copied().chain(own).collect()
    }

    fn message(&self, fault: &Fault, path: &[&str]) -> String {
        let mut message = fault.message.clone();
        if let Some(extra) = fault.extra.as_deref().filter(|_| fault.path.is_empty())
            && let Some(home) = home_of(extra, self.enabled, self.values)
        {
            let home = [path, &home[..]].concat().join(".");
            message = format!("there is no key `{extra}`: it is `{home}` here");
        }
        if !path.is_empty() {
            message = format!("`{}`: {message}", path.join("."));
        }
        message
    }
}

/// The path of a subchart's key that somebody may have meant by a key of the chart.
fn home_of<'a>(key: &'a str, enabled: &EnabledChart<'a>, values: &Node) -> Option<Vec<&'a str>> {
    let parts = || {
        let parts = enabled.parts.iter();
        parts.filter_map(|part| Some((part, values.get(&[part.name])?)))
    };
    let own = parts().find(|(_, values)| values.get(&[key]).is_some());
    if let Some((part, _)) = own {
        return Some(vec![part.name, key]);
    }
    parts().find_map(|(part, values)| {
        let below = home_of(key, part, values)?;
        Some([&[part.name], &below[..]].concat())
    })
}
