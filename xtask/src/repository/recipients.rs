//! For whom files have to be encrypted, by the nearest .sops.yaml above them, and for whom they are. Keys are compared
//! as `sops updatekeys` compares them: each by its whole text.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::{
    machine::{terminal::list, tree::Tree},
    schema::pattern,
    yaml::{self, Data, Files, Finding, Node},
};

const CONFIG: &str = ".sops.yaml";

/// The rules of all .sops.yaml files that count for some file, by their folders.
#[derive(Default)]
pub(crate) struct Recipients(BTreeMap<PathBuf, Vec<Rule>>);

/// One of `creation_rules`.
struct Rule {
    /// None matches every path.
    path: Option<Regex>,
    groups: Vec<BTreeSet<String>>,
    threshold: Option<i64>,
}

impl Recipients {
    /// Reads the .sops.yaml of the root, and those in folders that hold one of these files, given by their paths from the
    /// root. Returns also what is wrong with them.
    pub(crate) fn read<'a>(
        tree: &Tree,
        encrypted: impl Iterator<Item = &'a Path>,
        files: &mut Files,
    ) -> (Recipients, Vec<(u32, Finding)>) {
        let above = encrypted.flat_map(|it| tree.folders_above(it));
        let mut folders: BTreeSet<_> = above.map(|(folder, _)| folder).collect();
        folders.insert(PathBuf::new());
        let mut recipients = Recipients::default();
        let mut findings = Vec::new();
        for folder in folders {
            let file = folder.join(CONFIG);
            let content = match tree.read_if_there(&file) {
                Ok(None) => continue,
                Ok(Some(content)) => Ok(content),
                Err(err) => Err(Finding::problem("recipients", None, format!("{err:#}"))),
            };
            let number = files.add(&file);
            let rules = content.and_then(|it| rules(&it, number));
            let rules = rules.unwrap_or_else(|finding| {
                findings.push((number, finding));
                Vec::new()
            });
            recipients.0.insert(folder, rules);
        }
        (recipients, findings)
    }

    /// What to say of a file whose `sops` block is for others than .sops.yaml wants for its path.
    pub(crate) fn difference(&self, tree: &Tree, path: &Path, sops: &Node) -> Option<String> {
        let above = tree.folders_above(path).into_iter();
        let mut configs =
            above.filter_map(|(folder, path)| Some((self.0.get(&folder)?, folder, path)));
        let (rules, folder, from_config) = configs.next()?;
        let rule = rules
            .iter()
            .find(|it| it.is_for(&from_config.to_string_lossy()))?;
        let config = folder.join(CONFIG).display().to_string();
        let block = Rule::of_block(sops);
        let Some(wrong) = rule.difference(&block, &config) else {
            return rule.other_threshold(&block, &config);
        };
        // sops looks for .sops.yaml in the folder that it is called in, and above.
        let option = if folder.as_os_str().is_empty() {
            String::new()
        } else {
            format!("--config {config} ")
        };
        let shown = path.display();
        Some(format!("{wrong}: `sops {option}updatekeys {shown}`"))
    }
}

fn rules(content: &[u8], number: u32) -> Result<Vec<Rule>, Finding> {
    let (yaml, _) = yaml::read(content, number)?;
    let rules = yaml.get(&["creation_rules"]).and_then(Node::as_list);
    rules
        .unwrap_or_default()
        .iter()
        .map(Rule::of_config)
        .collect()
}

impl Rule {
    fn of_config(yaml: &Node) -> Result<Rule, Finding> {
        let path = match yaml.get(&["path_regex"]) {
            Some(node) => Some(path_regex(node)?),
            None => None,
        };
        Ok(Rule {
            path,
            ..Rule::of_block(yaml)
        })
    }

    /// The same of what a `sops` block says.
    fn of_block(yaml: &Node) -> Rule {
        // sops takes no other keys where there are groups.
        let groups = yaml.get(&["key_groups"]).and_then(Node::as_list);
        let groups = match groups.filter(|it| !it.is_empty()) {
            Some(groups) => groups.iter().map(keys_of_group).collect(),
            None => vec![keys_of_group(yaml)],
        };
        let threshold = yaml.get(&["shamir_threshold"]).map(Node::to_json);
        Rule {
            path: None,
            groups,
            threshold: threshold.and_then(|it| it.as_i64()),
        }
    }

    fn is_for(&self, path: &str) -> bool {
        self.path.as_ref().is_none_or(|regex| regex.is_match(path))
    }

    /// What a `sops` block has that this rule of `config` does not want, and the other way round.
    fn difference(&self, block: &Rule, config: &str) -> Option<String> {
        let wanted = self.all();
        let found = block.all();
        let mut missing = wanted.clone();
        missing.retain(|key| !found.iter().any(|it| fits(key, it)));
        let mut extra = found.clone();
        extra.retain(|key| !wanted.iter().any(|it| fits(it, key)));
        let mut wrong = Vec::new();
        if !missing.is_empty() {
            wrong.push(format!(
                "{} of {config} {} missing",
                recipients(&missing),
                is(&missing)
            ));
        }
        if !extra.is_empty() {
            wrong.push(format!(
                "{} {} not in {config}",
                recipients(&extra),
                is(&extra)
            ));
        }
        if wrong.is_empty() && !self.has_groups_of(block) {
            wrong.push(format!("{config} groups its recipients otherwise"));
        }
        (!wrong.is_empty()).then(|| wrong.join(", and "))
    }

    fn all(&self) -> BTreeSet<&String> {
        self.groups.iter().flatten().collect()
    }

    /// Whether the groups are those of another one, each with keys that fit.
    fn has_groups_of(&self, block: &Rule) -> bool {
        let mut pairs = self.groups.iter().zip(&block.groups);
        self.groups.len() == block.groups.len()
            && pairs.all(|(wanted, found)| all_fit(wanted, found))
    }

    /// What to say if a file takes another number of groups to decrypt.
    fn other_threshold(&self, block: &Rule, config: &str) -> Option<String> {
        let wanted = self.threshold?;
        let found = block.threshold.filter(|it| *it != wanted)?;
        Some(format!(
            "`shamir_threshold` is {found} here, and {wanted} in {config}: decrypt this file with sops, and encrypt it again"
        ))
    }
}

fn path_regex(node: &Node) -> Result<Regex, Finding> {
    let text = node.as_text().unwrap_or_default();
    pattern::to_rust(text)
        .and_then(|it| Regex::new(&it).map_err(|err| err.to_string()))
        .map_err(|why| Finding::problem("recipients", node.at, format!("`path_regex`: {why}")))
}

/// What keys are called in rules and in `sops` blocks.
const KEYS: [&str; 10] = [
    "age",
    "azure_keyvault",
    "azure_kv",
    "gcp_kms",
    "hc_vault",
    "hc_vault_transit_uri",
    "hckms",
    "kms",
    "merge",
    "pgp",
];

/// All keys of a group, each as sops shows it. A rule or `sops` block without groups is one itself.
fn keys_of_group(group: &Node) -> BTreeSet<String> {
    let profile = group.text(&["aws_profile"]);
    let mut keys = BTreeSet::new();
    for node in KEYS.iter().filter_map(|key| group.get(&[key])) {
        let one = std::slice::from_ref(node);
        for key in node.as_list().unwrap_or(one) {
            match &key.data {
                Data::Text(text) => keys.extend(text.split(',').map(|it| key_in_text(it, profile))),
                Data::Map(map) if KEYS.iter().any(|it| map.contains_key(*it)) => {
                    keys.extend(keys_of_group(key));
                }
                _ => keys.extend(key_in_map(key)),
            }
        }
    }
    keys.remove("");
    keys
}

/// A key in a rule's text.
fn key_in_text(text: &str, profile: Option<&str>) -> String {
    let text = text.trim().trim_end_matches('/');
    if text.starts_with("ssh-") {
        return text.to_owned();
    }
    let text = text.replace(' ', "");
    match profile.filter(|_| text.starts_with("arn:")) {
        Some(profile) => format!("{text}||{profile}"),
        None => text,
    }
}

/// A key in a `sops` block or in a rule's group.
fn key_in_map(node: &Node) -> Option<String> {
    ["recipient", "resource_id", "fp", "key_id"]
        .iter()
        .find_map(|key| node.text(&[key]))
        .map(str::to_owned)
        .or_else(|| aws_key(node))
        .or_else(|| azure_key(node, "vault_url", "name"))
        .or_else(|| azure_key(node, "vaultUrl", "key"))
        .or_else(|| vault_key(node))
}

/// The key, the role that it is used by, and with what.
fn aws_key(node: &Node) -> Option<String> {
    let mut key = node.text(&["arn"])?.to_owned();
    if let Some(role) = node.text(&["role"]).filter(|it| !it.is_empty()) {
        key += &format!("+{role}");
    }
    let context = node.get(&["context"]).and_then(Node::as_map);
    let context = context.into_iter().flatten();
    let context: Vec<_> = context
        .map(|(key, it)| format!("{key}:{}", it.as_text().unwrap_or_default()))
        .collect();
    let profile = node.text(&["aws_profile"]).unwrap_or_default();
    if !context.is_empty() || !profile.is_empty() {
        key += &format!("|{}", context.join(","));
    }
    if !profile.is_empty() {
        key += &format!("|{profile}");
    }
    Some(key)
}

fn azure_key(node: &Node, vault: &str, name: &str) -> Option<String> {
    let vault = node.text(&[vault])?.trim_end_matches('/');
    let version = node.text(&["version"]).unwrap_or_default();
    let key = format!("{vault}/keys/{}/{version}", node.text(&[name])?);
    Some(key.trim_end_matches('/').to_owned())
}

fn vault_key(node: &Node) -> Option<String> {
    let address = node.text(&["vault_address"])?.trim_end_matches('/');
    let engine = node.text(&["engine_path"])?.trim_matches('/');
    let name = node.text(&["key_name"])?;
    Some(format!("{address}/v1/{engine}/keys/{name}"))
}

/// Whether a key in a file is the one that a rule wants. A rule may leave open which version of Azure's key it is.
fn fits(wanted: &str, found: &str) -> bool {
    let rest = found.strip_prefix(wanted);
    rest == Some("") || wanted.contains("/keys/") && rest.is_some_and(|it| it.starts_with('/'))
}

fn all_fit(wanted: &BTreeSet<String>, found: &BTreeSet<String>) -> bool {
    let mut pairs = wanted.iter().zip(found);
    wanted.len() == found.len() && pairs.all(|(wanted, found)| fits(wanted, found))
}

fn recipients(keys: &BTreeSet<&String>) -> String {
    let plural = if keys.len() == 1 { "" } else { "s" };
    format!("recipient{plural} {}", list(keys))
}

fn is<T>(keys: &BTreeSet<T>) -> &'static str {
    if keys.len() == 1 { "is" } else { "are" }
}
