//! Room for a release on a rehearsal cluster: the nodes that its pods select, and the storage classes of its claims.
//!
//! What they ask for is in its manifest, and for users' pods in the values that charts hand to the hub in a Secret.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    kubernetes::{
        api::{self, Api},
        manifests,
        objects::List,
    },
    machine::paths,
    repository::cluster::Nodes,
    yaml,
};

/// What asks for room, by any of the keys that Kubernetes, z2jh's values, KubeSpawner and other charts have.
const SELECTORS: [&str; 2] = ["nodeSelector", "node_selector"];
const TOLERATIONS: [&str; 3] = ["tolerations", "extraTolerations", "extra_tolerations"];
const CLASSES: [&str; 3] = ["storageClassName", "storageClass", "storage_class"];

/// A part of the names of all those keys, and of the Secrets that hold values.
const HINTS: [&str; 8] = [
    "ode_selector",
    "odeSelector",
    "ffinity",
    "torageClass",
    "torage_class",
    "PersistentVolume",
    "values.yaml",
    "values.json",
];

/// What a kubelet says of its own machine.
const OF_THE_MACHINE: [&str; 3] = [
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
];

/// The manager of the objects that are made here.
const OURS: &str = "xtask-rehearsal";

/// A node that pods of a release select.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct WantedNode {
    labels: BTreeMap<String, String>,
    /// Labels that it must not have.
    without: BTreeSet<String>,
    /// The taints that the pods tolerate, values by keys and effects.
    taints: BTreeMap<(String, String), String>,
}

/// What the pods and claims of a release ask for.
#[derive(Default)]
struct Wanted {
    nodes: BTreeSet<WantedNode>,
    classes: BTreeSet<String>,
    /// The storage classes that the release makes itself.
    own_classes: BTreeSet<String>,
    /// Those of its own volumes, to which its claims are bound.
    static_classes: BTreeSet<String>,
}

/// Gives the cluster what a release asks for that it lacks. What was made for others stays.
pub(crate) fn make(api: &Api, release: &str, manifest: &str, nodes: Nodes) -> Result<()> {
    let wanted = Wanted::by(manifest);
    if wanted.nodes.is_empty() && wanted.classes.is_empty() && wanted.own_classes.is_empty() {
        return Ok(());
    }
    wanted
        .make_classes(api)
        .and_then(|()| match nodes {
            Nodes::Simulated => wanted.make_nodes(api),
            Nodes::Real => wanted.label_node(api),
        })
        .with_context(|| {
            format!("cannot give the rehearsal cluster what `{release}` asks of nodes and storage")
        })
}

impl Wanted {
    fn by(manifest: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for document in manifests::documents(manifest) {
            if !HINTS.iter().any(|it| document.text.contains(it)) {
                continue;
            }
            // helm says what is wrong with a manifest.
            let objects = manifests::taken_apart(document.object().cloned());
            objects.iter().for_each(|it| wanted.add_object(it));
        }
        let given =
            |it: &String| wanted.own_classes.contains(it) || wanted.static_classes.contains(it);
        let classes = wanted.classes.iter().filter(|it| !given(it)).cloned();
        Wanted {
            classes: classes.collect(),
            ..wanted
        }
    }

    fn add_object(&mut self, object: &Value) {
        match object["kind"].as_str() {
            Some("Secret") => values_in(object)
                .iter()
                .for_each(|it| self.add(it, &WantedNode::default())),
            Some("StorageClass") => self.own_classes.extend(text(&object["metadata"]["name"])),
            Some("PersistentVolume") => {
                self.static_classes
                    .extend(text(&object["spec"]["storageClassName"]));
                self.add(object, &WantedNode::default());
            }
            _ => self.add(object, &WantedNode::default()),
        }
    }

    /// Adds what a part of an object or of values asks for. A profile's pods also select what all users' pods do, which is
    /// `around` it.
    fn add(&mut self, part: &Value, around: &WantedNode) {
        match part {
            Value::Array(items) => items.iter().for_each(|it| self.add(it, around)),
            Value::Object(fields) => {
                let node = WantedNode::by(part, around);
                if node != *around && node.is_selected() {
                    self.nodes.insert(node.clone());
                }
                for key in CLASSES {
                    self.classes.extend(text(&part[key]).filter(|it| it != "-"));
                }
                fields.values().for_each(|it| self.add(it, &node));
            }
            _ => {}
        }
    }

    fn make_classes(&self, api: &Api) -> Result<()> {
        const PATH: &str = "/apis/storage.k8s.io/v1/storageclasses";
        if self.classes.is_empty() && self.own_classes.is_empty() {
            return Ok(());
        }
        let there: List<Value> = api.list(PATH)?;
        let is_there = |name: &String| {
            there
                .items
                .iter()
                .any(|it| it["metadata"]["name"] == **name)
        };
        for name in self.classes.iter().filter(|it| !is_there(it)) {
            let class = json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": OURS}},
                "provisioner": "xtask/folder", "volumeBindingMode": "Immediate",
            });
            create(api, PATH, &class)?;
        }
        for class in &there.items {
            let name = class["metadata"]["name"].as_str().unwrap_or_default();
            let is_ours = class["metadata"]["labels"]["app.kubernetes.io/managed-by"] == OURS;
            // helm would not take over what another release was the first to name.
            if is_ours && self.own_classes.contains(name) {
                api.delete(&format!("{PATH}/{}", api::step(name)?), &json!({}))?;
            }
        }
        Ok(())
    }

    /// Adds a simulated node for each kind of pods that no node takes.
    fn make_nodes(&self, api: &Api) -> Result<()> {
        const PATH: &str = "/api/v1/nodes";
        let there: List<Value> = api.list(PATH)?;
        for wanted in &self.nodes {
            if !there.items.iter().any(|it| wanted.is_met_by(it)) {
                create(api, PATH, &wanted.node())?;
            }
        }
        Ok(())
    }

    /// Gives the one real node all labels, for DaemonSets: other pods come to it whatever they select, by a policy of
    /// the node. It has no taints: all pods have to run there.
    fn label_node(&self, api: &Api) -> Result<()> {
        const PATH: &str = "/api/v1/nodes/node-0";
        let labels = self.nodes.iter().flat_map(|it| &it.labels);
        let labels: BTreeMap<_, _> = labels
            .filter(|(key, _)| !OF_THE_MACHINE.contains(&key.as_str()))
            .collect();
        for (key, value) in labels {
            let object = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-0", "labels": {key: value}},
            });
            // Each by a manager of its own: one label that a manager no longer names goes.
            let manager = format!("{OURS}-{}", hash(key));
            let path = format!("{PATH}?fieldManager={manager}&force=true");
            api.send("PATCH", &path, &object)?;
        }
        Ok(())
    }
}

impl WantedNode {
    /// The node that is selected by a part of an object or of values, within what is selected around it.
    fn by(part: &Value, around: &WantedNode) -> WantedNode {
        let mut node = around.clone();
        for (key, value) in SELECTORS
            .iter()
            .flat_map(|it| part[it].as_object())
            .flatten()
        {
            let value = value.as_str().map(str::to_owned);
            node.labels.extend(value.map(|it| (key.clone(), it)));
        }
        for requirement in requirements(part) {
            node.require(requirement);
        }
        let tolerations = TOLERATIONS
            .iter()
            .flat_map(|it| part[it].as_array())
            .flatten();
        let taints: BTreeMap<_, _> = tolerations.filter_map(taint).collect();
        if !taints.is_empty() {
            node.taints = taints;
        }
        node
    }

    /// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/node-selector-requirement>
    fn require(&mut self, requirement: &Value) {
        let Some(key) = text(&requirement["key"]) else {
            return;
        };
        let first = text(&requirement["values"][0]).unwrap_or_default();
        let number = || first.parse::<i64>().unwrap_or_default();
        let value = match requirement["operator"].as_str() {
            Some("In") => first,
            Some("Exists") => self.labels.remove(&key).unwrap_or_default(),
            Some("Gt") => (number() + 1).to_string(),
            Some("Lt") => (number() - 1).to_string(),
            _ => {
                self.without.insert(key);
                return;
            }
        };
        self.labels.insert(key, value);
    }

    fn is_selected(&self) -> bool {
        !self.labels.is_empty() || !self.without.is_empty()
    }

    fn is_met_by(&self, node: &Value) -> bool {
        let labels = &node["metadata"]["labels"];
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        self.labels
            .iter()
            .all(|(key, value)| labels[key] == **value)
            && self.without.iter().all(|key| labels[key].is_null())
            && taints
                .filter_map(taint)
                .all(|(id, value)| self.taints.get(&id) == Some(&value))
    }

    /// A simulated node that is so.
    fn node(&self) -> Value {
        let name = format!(
            "asked-for-{}",
            hash(&json!([self.labels, self.taints()]).to_string())
        );
        let mut labels = json!({
            "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        });
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "simulated"}},
            "spec": {"taints": self.taints()},
        })
    }

    fn taints(&self) -> Vec<Value> {
        let taints = self.taints.iter();
        taints
            .map(|((key, effect), value)| json!({"key": key, "effect": effect, "value": value}))
            .collect()
    }
}

/// What a part of an object or of values requires of nodes' labels. Where there are several ways, the first one counts.
fn requirements(part: &Value) -> impl Iterator<Item = &Value> {
    let affinity = &part["affinity"]["nodeAffinity"];
    let terms = [
        &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0],
        &part["nodeAffinity"]["required"]["nodeSelectorTerms"][0],
        &part["extraNodeAffinity"]["required"][0],
        &part["node_affinity_required"][0],
    ];
    let expressions = terms
        .into_iter()
        .flat_map(|it| it["matchExpressions"].as_array());
    expressions.flatten()
}

/// A taint's key and effect, and its value: of a toleration, or of a taint. Those of Kubernetes come and go by themselves.
fn taint(toleration: &Value) -> Option<((String, String), String)> {
    let key = text(&toleration["key"])?;
    if key.is_empty()
        || key.contains("node.kubernetes.io/")
        || key.contains("node-role.kubernetes.io/")
    {
        return None;
    }
    let effect = text(&toleration["effect"]).unwrap_or_else(|| "NoSchedule".to_owned());
    Some((
        (key, effect),
        text(&toleration["value"]).unwrap_or_default(),
    ))
}

/// The values that a chart hands to its hub.
pub(crate) fn values_in(secret: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for key in ["values.yaml", "values.json"] {
        let encoded = secret["data"][key].as_str();
        let decoded = encoded.and_then(|it| BASE64_STANDARD.decode(it).ok());
        let plain = secret["stringData"][key]
            .as_str()
            .map(|it| it.as_bytes().to_vec());
        let values = decoded.or(plain).and_then(|it| yaml::parse(&it).ok());
        found.extend(values);
    }
    found
}

/// A text that is not empty.
fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
}

/// Creates something, unless another one has just done it.
fn create(api: &Api, path: &str, object: &Value) -> Result<()> {
    match api.send("POST", path, object) {
        Err(err) if api::status(&err) == Some(409) => Ok(()),
        created => created.map(|_| ()),
    }
}

fn hash(text: &str) -> String {
    paths::hex(&Sha256::digest(text)[..4])
}
