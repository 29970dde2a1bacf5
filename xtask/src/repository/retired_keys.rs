//! Keys that cluster.yaml had in 2i2c's layout until 2022, and what took their place.

use crate::{
    machine::terminal::number_of,
    schema::Fault,
    yaml::{Finding, Node},
};

struct RetiredKey {
    /// The section of cluster.yaml that had it; none for the file itself.
    section: Option<&'static str>,
    key: &'static str,
    /// The key that is missing where this one is used.
    replaced_by: Option<&'static str>,
    instead: &'static str,
}

const RETIRED: [RetiredKey; 5] = [
    RetiredKey {
        section: None,
        key: "image_repo",
        replaced_by: None,
        instead: "`singleuser.image.name` in a values file",
    },
    RetiredKey {
        section: Some("hubs"),
        key: "auth0",
        replaced_by: None,
        instead: "the authenticator in `hub.config` of a values file, with its client's secret in an encrypted one",
    },
    RetiredKey {
        section: Some("hubs"),
        key: "template",
        replaced_by: Some("helm_chart"),
        instead: "`helm_chart`",
    },
    RetiredKey {
        section: Some("hubs"),
        key: "config",
        replaced_by: Some("helm_chart_values_files"),
        instead: "values files in `helm_chart_values_files`",
    },
    RetiredKey {
        section: Some("support"),
        key: "config",
        replaced_by: Some("helm_chart_values_files"),
        instead: "values files in `helm_chart_values_files`",
    },
];

impl RetiredKey {
    /// Whether a fault is that the key is there, or that what took its place is missing.
    fn explains(&self, fault: &Fault, yaml: &Node) -> bool {
        let depth = match self.section {
            None => 0,
            Some("hubs") => 2,
            Some(_) => 1,
        };
        let mut path: Vec<_> = fault.path.iter().map(String::as_str).collect();
        if path.len() != depth || path.first().copied() != self.section {
            return false;
        }
        path.push(self.key);
        let is_extra = fault.extra.as_deref() == Some(self.key);
        let is_replaced = fault.missing.is_some() && fault.missing.as_deref() == self.replaced_by;
        is_extra || is_replaced && yaml.get(&path).is_some()
    }

    /// "`auth0` (26 hubs) is now …", for the faults that it explains.
    fn sentence(&self, faults: &[&Fault]) -> String {
        let count = faults.iter().filter(|it| it.extra.is_some()).count();
        let (key, instead) = (self.key, self.instead);
        match self.section {
            None => format!("`{key}` is now {instead}"),
            Some("hubs") => format!("`{key}` ({}) is now {instead}", number_of(count, "hub")),
            Some(section) => format!("`{section}.{key}` is now {instead}"),
        }
    }
}

/// Takes the faults away that keys of that layout explain, and says in one sentence what took their place.
pub(crate) fn take(faults: &mut Vec<Fault>, yaml: &Node) -> Option<Finding> {
    let mut sentences = Vec::new();
    for key in &RETIRED {
        let explained: Vec<_> = faults.iter().filter(|it| key.explains(it, yaml)).collect();
        if !explained.is_empty() {
            sentences.push(key.sentence(&explained));
        }
    }
    let is_retired = |it: &Fault| RETIRED.iter().any(|key| key.explains(it, yaml));
    let first = faults.iter().filter(|it| is_retired(it));
    let at = first
        .filter_map(|it| it.place(yaml))
        .min_by_key(|it| (it.line, it.column));
    faults.retain(|it| !is_retired(it));
    let message = format!("this has keys of 2022's layout: {}", sentences.join("; "));
    (!sentences.is_empty()).then(|| Finding::problem("cluster-schema", at, message))
}
