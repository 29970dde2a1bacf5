//! What may be told of an encrypted file: its keys, and the types of its values.

use crate::{
    secrets::encrypted_type,
    yaml::{Data, Node},
};

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

/// Puts placeholders for all scalars.
pub(crate) fn hide_all(node: &mut Node) {
    match &mut node.data {
        Data::Map(map) => map.values_mut().for_each(hide_all),
        Data::List(items) => items.iter_mut().for_each(hide_all),
        Data::Text(_) => node.data = Data::Encrypted("str"),
        Data::Number(number) => {
            let kind = if number.fract() == 0.0 {
                "int"
            } else {
                "float"
            };
            node.data = Data::Encrypted(kind);
        }
        Data::Bool(_) => node.data = Data::Encrypted("bool"),
        _ => {}
    }
}
