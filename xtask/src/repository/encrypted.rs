//! What can be told of a file that sops encrypted without decrypting it: its keys, and the types of its values.

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
