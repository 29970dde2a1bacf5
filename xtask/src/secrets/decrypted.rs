//! The values of an encrypted file, and which of them sops encrypted.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::yaml::{Data, Node};

/// How the text of an encrypted value begins.
pub(crate) const ENCRYPTED: &str = "ENC[AES256_GCM,";

/// The values of a file beside those that sops wrote.
pub(crate) struct Decrypted {
    values: Node,
    encrypted: Node,
}

impl Decrypted {
    pub(crate) fn new(values: Node, encrypted: Node) -> Decrypted {
        Decrypted { values, encrypted }
    }

    /// Calls `f` with each scalar that was encrypted.
    pub(crate) fn each_secret(&self, mut f: impl FnMut(&Node)) {
        let mut values = self.values.clone();
        change_secrets(&mut values, Some(&self.encrypted), &mut |it| f(it));
    }

    /// The values with something else for each scalar that was encrypted.
    pub(crate) fn with(&self, mut placeholder: impl FnMut(&Data) -> Data) -> Node {
        let mut values = self.values.clone();
        change_secrets(&mut values, Some(&self.encrypted), &mut |it| {
            it.data = placeholder(&it.data);
        });
        values
    }
}

/// Calls `change` with each scalar that was encrypted; with all of them where the two don't have the same shape.
fn change_secrets(values: &mut Node, encrypted: Option<&Node>, change: &mut impl FnMut(&mut Node)) {
    match (&mut values.data, encrypted.map(|it| &it.data)) {
        (Data::Map(map), _) => {
            for (key, value) in map {
                let before = encrypted.and_then(|it| it.get(&[&**key]));
                change_secrets(value, before, change);
            }
        }
        (Data::List(items), _) => {
            let before = encrypted.and_then(Node::as_list).unwrap_or_default();
            let before: Vec<_> = before.iter().filter(|it| !is_comment(it)).collect();
            let is_same_length = before.len() == items.len();
            for (index, item) in items.iter_mut().enumerate() {
                let before = before.get(index).filter(|_| is_same_length);
                change_secrets(item, before.copied(), change);
            }
        }
        (_, Some(Data::Text(text))) if encrypted_type(text).is_none() => {}
        (_, Some(Data::Null | Data::Bool(_) | Data::Number(_))) => {}
        _ => change(values),
    }
}

/// Whether this is a comment, which sops encrypts as an item of its list.
pub(crate) fn is_comment(node: &Node) -> bool {
    node.as_text().and_then(encrypted_type) == Some("comment")
}

/// The type in `ENC[AES256_GCM,data:…,iv:…,tag:…,type:str]`; none for any other text.
pub(crate) fn encrypted_type(text: &str) -> Option<&'static str> {
    let inner = text.strip_prefix(ENCRYPTED)?.strip_suffix(']')?;
    let (data, inner) = inner.strip_prefix("data:")?.split_once(",iv:")?;
    let (iv, inner) = inner.split_once(",tag:")?;
    let (tag, kind) = inner.split_once(",type:")?;
    if length(data)? == 0 || length(iv)? != 32 || length(tag)? != 16 {
        return None;
    }
    let kinds = ["str", "int", "float", "bool", "bytes", "time", "comment"];
    kinds.into_iter().find(|it| *it == kind)
}

/// The length of what is in base64.
fn length(base64: &str) -> Option<usize> {
    Some(BASE64_STANDARD.decode(base64).ok()?.len())
}
