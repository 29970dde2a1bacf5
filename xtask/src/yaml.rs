//! YAML as helm 4 reads it, with the place of every value: sigs.k8s.io/yaml over go.yaml.in/yaml/v2. What that reader
//! drops or changes silently is a finding here.

use anyhow::anyhow;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::{
    documents::Document,
    reader::{Content, ReadDocument, read_document},
    values::text,
};
pub(crate) use self::{
    documents::split_documents,
    key_path::{KeyPath, Step},
    node::{Data, Files, Finding, Map, Node, Place, merge, unquoted},
    scalar::is_of_version,
    shape::Shape,
    values::{SECOND_DOCUMENT, merge_conflict, read, read_value},
};

mod documents;
pub(crate) mod edit;
mod key_path;
mod mistakes;
mod node;
mod reader;
pub(crate) mod replace;
mod scalar;
mod shape;
mod timestamp;
mod tree;
mod types;
mod values;

/// A file as a type. Like sigs.k8s.io/yaml's Unmarshal, which helm reads all but values with, this takes the first
/// document, and of keys that are set twice the last one. An error names the line, but not the file.
pub(crate) fn parse<T: DeserializeOwned>(content: &[u8]) -> anyhow::Result<T> {
    Ok(T::deserialize(&first_document(content)?)?)
}

/// Reads a file over what `into` has of another one. Like `parse`, this takes the first document.
pub(crate) fn parse_over(content: &[u8], shape: &Shape, into: &mut Value) -> anyhow::Result<()> {
    shape.read(&first_document(content)?, into)
}

fn first_document(content: &[u8]) -> anyhow::Result<Node> {
    let read = text(content).and_then(|text| {
        let document = Document {
            text: text.to_owned(),
            lines_before: 0,
        };
        read_document(&document, 0, Content::Object)
    });
    match read {
        Ok(Some(ReadDocument { node, .. })) => Ok(node),
        Ok(None) => Ok(Node::nowhere(Data::Null)),
        Err(finding) => Err(refused(finding)),
    }
}

/// A finding as an error, which names the line, but not the file.
pub(crate) fn refused(finding: Finding) -> anyhow::Error {
    anyhow!("line {}: {}", finding.line, finding.message)
}
