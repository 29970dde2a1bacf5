//! What can be told of a file that sops encrypted without decrypting it: its keys, the types of its values, and for
//! whom it is.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::{
    machine::{terminal::list, tree::Tree},
    schema::pattern,
    secrets::encrypted_type,
    yaml::{self, Data, Files, Finding, Node},
};

/// One of `creation_rules` in .sops.yaml.
pub(crate) struct Rule {
    /// None matches every path.
    path: Option<Regex>,
    recipients: BTreeSet<String>,
}

impl Rule {
    fn is_for(&self, path: &str) -> bool {
        self.path.as_ref().is_none_or(|regex| regex.is_match(path))
    }
}

/// Takes the `sops` block out of a file's values, if they have one.
pub(crate) fn take_sops(values: &mut Node) -> Option<Node> {
    let Data::Map(map) = &mut values.data else {
        return None;
    };
    map.get("sops")?.as_map()?;
    map.remove("sops")
}

/// Puts placeholders where sops encrypted something.
pub(crate) fn put_placeholders(node: &mut Node) {
    match &mut node.data {
        Data::Map(map) => map.values_mut().for_each(put_placeholders),
        Data::List(items) => {
            items.retain(|it| it.as_text().and_then(encrypted_type) != Some("comment"));
            items.iter_mut().for_each(put_placeholders);
        }
        Data::Text(text) => {
            if let Some(kind) = encrypted_type(text) {
                node.data = Data::Encrypted(kind);
            }
        }
        _ => {}
    }
}

/// The rules of the repository's .sops.yaml, in its order, and what is wrong with it.
pub(crate) fn rules(tree: &Tree, files: &mut Files) -> (Vec<Rule>, Option<(u32, Finding)>) {
    let file = PathBuf::from(".sops.yaml");
    let content = match tree.read_if_there(&file) {
        Ok(None) => return (Vec::new(), None),
        content => content,
    };
    let number = files.add(&file);
    let content = match content {
        Ok(content) => content.unwrap_or_default(),
        Err(err) => {
            let finding = Finding::problem("recipients", None, format!("{err:#}"));
            return (Vec::new(), Some((number, finding)));
        }
    };
    let read = yaml::read(&content, number).and_then(|(yaml, _)| {
        let rules = yaml
            .get(&["creation_rules"])
            .and_then(Node::as_list)
            .unwrap_or_default();
        rules.iter().map(rule).collect()
    });
    match read {
        Ok(rules) => (rules, None),
        Err(finding) => (Vec::new(), Some((number, finding))),
    }
}

/// What keys are called in a rule, which names some of them as text with commas.
const RULE_KEYS: [&str; 7] = [
    "age",
    "gcp_kms",
    "kms",
    "azure_keyvault",
    "hc_vault_transit_uri",
    "hc_vault",
    "pgp",
];

/// What keys are called in a `sops` block.
const BLOCK_KEYS: [&str; 6] = ["age", "gcp_kms", "kms", "azure_kv", "hc_vault", "pgp"];

fn rule(yaml: &Node) -> Result<Rule, Finding> {
    let path = match yaml.get(&["path_regex"]) {
        Some(node) => Some(path_regex(node)?),
        None => None,
    };
    let mut recipients = BTreeSet::new();
    for group in with_key_groups(yaml) {
        for key in RULE_KEYS {
            match group.get(&[key]).map(|it| &it.data) {
                Some(Data::Text(text)) => {
                    recipients.extend(text.split(',').map(|it| normal(it.trim())));
                }
                Some(Data::List(items)) => recipients.extend(items.iter().filter_map(recipient)),
                _ => {}
            }
        }
    }
    recipients.remove("");
    Ok(Rule { path, recipients })
}

fn path_regex(node: &Node) -> Result<Regex, Finding> {
    let text = node.as_text().unwrap_or_default();
    pattern::to_rust(text)
        .and_then(|it| Regex::new(&it).map_err(|err| err.to_string()))
        .map_err(|why| Finding::problem("recipients", node.at, format!("`path_regex`: {why}")))
}

/// A rule or `sops` block, which may have keys itself, and its groups of keys.
fn with_key_groups(yaml: &Node) -> impl Iterator<Item = &Node> {
    let groups = yaml.get(&["key_groups"]).and_then(Node::as_list);
    [yaml].into_iter().chain(groups.unwrap_or_default())
}

/// A key in a `sops` block, or in a rule's list, as one text.
fn recipient(node: &Node) -> Option<String> {
    let named = ["recipient", "resource_id", "arn", "fp"];
    let own = node.as_text();
    let own = own.or_else(|| named.into_iter().find_map(|key| node.text(&[key])));
    own.map(str::to_owned)
        .or_else(|| azure_key(node, "vault_url", "name"))
        .or_else(|| azure_key(node, "vaultUrl", "key"))
        .or_else(|| vault_key(node))
        .map(|id| normal(&id))
}

fn azure_key(node: &Node, vault: &str, name: &str) -> Option<String> {
    let vault = node.text(&[vault])?.trim_end_matches('/');
    Some(format!("{vault}/keys/{}", node.text(&[name])?))
}

fn vault_key(node: &Node) -> Option<String> {
    let address = node.text(&["vault_address"])?.trim_end_matches('/');
    let engine = node.text(&["engine_path"])?.trim_matches('/');
    let name = node.text(&["key_name"])?;
    Some(format!("{address}/v1/{engine}/keys/{name}"))
}

/// Without the role of an AWS key and the version of an Azure one.
fn normal(id: &str) -> String {
    let id = id
        .split_once('+')
        .map_or(id, |(arn, _)| arn)
        .trim_end_matches('/');
    match id.split_once(".vault.azure.net/keys/") {
        Some((vault, key)) => {
            format!(
                "{vault}.vault.azure.net/keys/{}",
                key.split('/').next().unwrap_or_default()
            )
        }
        None => id.to_owned(),
    }
}

/// What to say of a file whose `sops` block is for others than .sops.yaml wants for its path.
pub(crate) fn other_recipients(rules: &[Rule], path: &Path, sops: &Node) -> Option<String> {
    let shown = path.display().to_string();
    let rule = rules.iter().find(|it| it.is_for(&shown))?;
    let found = recipients_of_block(sops);
    let mut wrong = Vec::new();
    let missing: Vec<_> = rule.recipients.difference(&found).collect();
    if !missing.is_empty() {
        wrong.push(format!(
            "{} of .sops.yaml {} missing",
            recipients(&missing),
            is(&missing)
        ));
    }
    let extra: Vec<_> = found.difference(&rule.recipients).collect();
    if !extra.is_empty() {
        wrong.push(format!(
            "{} {} not in .sops.yaml",
            recipients(&extra),
            is(&extra)
        ));
    }
    if wrong.is_empty() {
        return None;
    }
    Some(format!(
        "{}: `sops updatekeys {shown}`",
        wrong.join(", and ")
    ))
}

/// The keys that a `sops` block names.
fn recipients_of_block(sops: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for group in with_key_groups(sops) {
        let lists = BLOCK_KEYS.map(|key| group.get(&[key]).and_then(Node::as_list));
        found.extend(lists.into_iter().flatten().flatten().filter_map(recipient));
    }
    found
}

fn recipients(ids: &[&String]) -> String {
    let plural = if ids.len() == 1 { "" } else { "s" };
    format!("recipient{plural} {}", list(ids))
}

fn is<T>(ids: &[T]) -> &'static str {
    if ids.len() == 1 { "is" } else { "are" }
}
