//! Streams of several documents.

use std::{iter, mem};

use crate::yaml::node::{Finding, Place};

/// A document of a stream, without its separators.
pub(crate) struct Document {
    pub(crate) text: String,
    /// How many lines of the stream come before it.
    pub(crate) lines_before: u32,
}

/// Splits a stream as helm does before it reads any YAML: at every line that begins with `---`
/// (k8s.io/apimachinery's YAMLReader).
pub(crate) fn documents(stream: &str) -> Result<Vec<Document>, Finding> {
    let mut found = Vec::new();
    let mut text = String::new();
    let mut lines_before = 0;
    for (number, line) in (1..).zip(stream.split_terminator('\n')) {
        if let Some(rest) = line.strip_prefix("---") {
            refuse_content(rest, number)?;
            if !text.is_empty() {
                found.push(Document {
                    text: mem::take(&mut text),
                    lines_before,
                });
                lines_before = number;
                continue;
            }
        }
        text += line.strip_suffix('\r').unwrap_or(line);
        text.push('\n');
    }
    found.push(Document { text, lines_before });
    Ok(found)
}

/// Refuses anything but a comment behind a `---`, in the line of this number.
fn refuse_content(rest: &str, line: u32) -> Result<(), Finding> {
    let rest = rest.trim();
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(());
    }
    let at = Place {
        file: 0,
        line,
        column: 4,
    };
    let message = format!("only a comment may follow `---` on its line, but there is `{rest}`");
    Err(Finding::problem("yaml", Some(at), message))
}

/// The documents of a YAML stream as text, without empty ones. No document can contain a line `---`.
pub(crate) fn split_documents(stream: &str) -> impl Iterator<Item = &str> {
    let separators = stream.match_indices("---\n").map(|(at, _)| at);
    let separators = separators.filter(|at| *at == 0 || stream.as_bytes()[at - 1] == b'\n');
    let mut starts: Vec<usize> = iter::once(0).chain(separators).collect();
    starts.dedup();
    starts.push(stream.len());
    let documents: Vec<&str> = starts.windows(2).map(|it| &stream[it[0]..it[1]]).collect();
    documents
        .into_iter()
        .map(|it| it.strip_prefix("---\n").unwrap_or(it))
        .filter(|it| !it.trim().is_empty())
}
