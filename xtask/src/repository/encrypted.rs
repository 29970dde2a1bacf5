//! What can be told of a file that sops encrypted without decrypting it: its keys, the types of its values, and for
//! whom it is.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::{
    schema::pattern,
    yaml::{self, Data, Files, Finding, Node},
};

/// One of `creation_rules` in .sops.yaml.
pub(crate) struct Rule {
    /// None matches every path.
    path: Option<Regex>,
    recipients: BTreeSet<String>,
}

/// Takes the `sops` block out of a file's values, if they have one, and puts placeholders where sops encrypted something.
pub(crate) fn take_sops(values: &mut Node) -> Option<Node> {
    let Data::Map(map) = &mut values.data else {
        return None;
    };
    map.get("sops")?.as_map()?;
    let sops = map.remove("sops");
    placeholders(values);
    sops
}

fn placeholders(node: &mut Node) {
    match &mut node.data {
        Data::Map(map) => map.values_mut().for_each(placeholders),
        Data::List(items) => {
            items.retain(|it| it.as_text().and_then(encrypted_type) != Some("comment"));
            items.iter_mut().for_each(placeholders);
        }
        Data::Text(text) => {
            if let Some(kind) = encrypted_type(text) {
                node.data = Data::Encrypted(kind);
            }
        }
        _ => {}
    }
}

/// `str` for `ENC[AES256_GCM,data:…,iv:…,tag:…,type:str]`.
fn encrypted_type(text: &str) -> Option<&'static str> {
    let inner = text.strip_prefix("ENC[AES256_GCM,")?.strip_suffix(']')?;
    let (_, kind) = inner.rsplit_once(",type:")?;
    ["str", "int", "float", "bool", "bytes", "comment"]
        .into_iter()
        .find(|it| *it == kind)
}

/// The rules of the repository's .sops.yaml, in its order, and what is wrong with it.
pub(crate) fn rules(root: &Path, files: &mut Files) -> (Vec<Rule>, Option<(u32, Finding)>) {
    let file = PathBuf::from(".sops.yaml");
    let Ok(content) = yaml::content(&root.join(&file)) else {
        return (Vec::new(), None);
    };
    let number = files.add(&file);
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

fn rule(yaml: &Node) -> Result<Rule, Finding> {
    let path = match yaml.get(&["path_regex"]) {
        Some(node) => {
            let text = node.as_text().unwrap_or_default();
            let compiled = pattern::to_rust(text)
                .and_then(|it| Regex::new(&it).map_err(|err| err.to_string()));
            Some(compiled.map_err(|why| {
                Finding::problem("recipients", node.at, format!("`path_regex`: {why}"))
            })?)
        }
        None => None,
    };
    let mut recipients = BTreeSet::new();
    for group in [yaml].into_iter().chain(
        yaml.get(&["key_groups"])
            .and_then(Node::as_list)
            .unwrap_or_default(),
    ) {
        for key in [
            "age",
            "gcp_kms",
            "kms",
            "azure_keyvault",
            "hc_vault_transit_uri",
            "hc_vault",
            "pgp",
        ] {
            match group.get(&[key]).map(|it| &it.data) {
                Some(Data::Text(text)) => {
                    recipients.extend(text.split(',').map(|it| normal(it.trim())))
                }
                Some(Data::List(items)) => recipients.extend(items.iter().filter_map(recipient)),
                _ => {}
            }
        }
    }
    recipients.remove("");
    Ok(Rule { path, recipients })
}

/// A key in a `sops` block, or in a rule's list, as one text.
fn recipient(node: &Node) -> Option<String> {
    let text = |key: &str| node.get(&[key]).and_then(Node::as_text);
    let vault = |at: &str, name: &str| {
        Some(format!(
            "{}/keys/{}",
            text(at)?.trim_end_matches('/'),
            text(name)?
        ))
    };
    let transit = || {
        let (address, engine) = (text("vault_address")?, text("engine_path")?);
        Some(format!(
            "{}/v1/{}/keys/{}",
            address.trim_end_matches('/'),
            engine.trim_matches('/'),
            text("key_name")?
        ))
    };
    let own = node.as_text().or_else(|| {
        ["recipient", "resource_id", "arn", "fp"]
            .into_iter()
            .find_map(text)
    });
    let id = own
        .map(str::to_owned)
        .or_else(|| vault("vault_url", "name"))
        .or_else(|| vault("vaultUrl", "key"));
    id.or_else(transit).map(|it| normal(&it))
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
    let rule = rules
        .iter()
        .find(|it| it.path.as_ref().is_none_or(|it| it.is_match(&shown)))?;
    let groups = sops
        .get(&["key_groups"])
        .and_then(Node::as_list)
        .unwrap_or_default();
    let lists = [sops].into_iter().chain(groups).flat_map(|group| {
        ["age", "gcp_kms", "kms", "azure_kv", "hc_vault", "pgp"]
            .into_iter()
            .filter_map(|it| group.get(&[it])?.as_list())
    });
    let found: BTreeSet<String> = lists.flatten().filter_map(recipient).collect();
    let listed = |ids: Vec<&String>| {
        ids.iter()
            .map(|it| format!("`{it}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing: Vec<_> = rule.recipients.difference(&found).collect();
    let extra: Vec<_> = found.difference(&rule.recipients).collect();
    let said = match (missing.is_empty(), extra.is_empty()) {
        (true, true) => return None,
        (false, true) => format!(
            "it isn't encrypted for {}, and .sops.yaml wants that",
            listed(missing)
        ),
        (true, false) => {
            format!(
                "it is encrypted also for {}, and .sops.yaml doesn't want that",
                listed(extra)
            )
        }
        (false, false) => {
            format!(
                "it is encrypted for {}, and .sops.yaml wants {}",
                listed(extra),
                listed(missing)
            )
        }
    };
    Some(format!("{said}: `sops updatekeys {shown}`"))
}
