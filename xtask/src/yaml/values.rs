//! Values files: what helm reads from one, and findings about what it would not mention.

use crate::yaml::{
    documents::{Document, documents},
    mistakes,
    node::{Data, Finding, Node, Place, merge},
    reader::{Content, ReadDocument, read_document},
};

/// The rule that a second document breaks.
pub(crate) const SECOND_DOCUMENT: &str = "second-document";

/// A file's values, always a map, and findings about what helm would not mention. The error is what helm refuses, or
/// what is not text.
pub(crate) fn read(content: &[u8], file: u32) -> Result<(Node, Vec<Finding>), Finding> {
    let text = refuse_byte_order_mark(text(content)?)?;
    if let Some(finding) = merge_conflict(text) {
        return Err(finding);
    }
    let mut findings = Vec::new();
    let mut whole: Option<Node> = None;
    for document in documents(text)? {
        let Some(mut read) = read_document(&document, file, Content::Values)? else {
            continue;
        };
        findings.append(&mut read.findings);
        let at = read.node.at;
        match (read.node.data, &mut whole) {
            (Data::Null, _) => {}
            (Data::Map(map), None) => {
                let data = Data::Map(map);
                whole = Some(Node { data, ..read.node });
            }
            (Data::Map(map), Some(before)) => {
                findings.push(second_document(before, at));
                if let Data::Map(before) = &mut before.data {
                    merge(before, map);
                }
            }
            (data, _) => return Err(Finding::problem("yaml", at, no_mapping(&data))),
        }
    }
    let whole = whole.unwrap_or_else(|| Node::nowhere(Data::empty_map()));
    Ok((whole, findings))
}

/// Says that git could not merge two versions of a text, and that nobody did it since.
pub(crate) fn merge_conflict(text: &str) -> Option<Finding> {
    let line = mistakes::line_of_merge(text)?;
    Some(in_line(line + 1, "yaml", mistakes::OF_MERGE))
}

/// Why a document is refused that is no mapping.
fn no_mapping(data: &Data) -> String {
    let key = match data {
        Data::Text(text) => mistakes::key_without_blank(text),
        _ => None,
    };
    key.map_or_else(
        || "values must be a mapping of keys".to_owned(),
        mistakes::no_blank,
    )
}

fn second_document(first: &Node, at: Option<Place>) -> Finding {
    let line = first.at.map_or(1, |it| it.line);
    let message =
        format!("helm merges this second document over the one in line {line}: join them");
    Finding::problem(SECOND_DOCUMENT, at, message)
}

/// A value that stands alone, as somebody writes it on a command line.
pub(crate) fn read_value(value: &str) -> Result<Node, Finding> {
    let document = Document {
        text: value.to_owned(),
        lines_before: 0,
    };
    let read = read_document(&document, 0, Content::Values)?;
    let Some(ReadDocument { node, findings }) = read else {
        return Ok(Node::nowhere(Data::Null));
    };
    let dropped = findings.into_iter().find(|it| !it.is_warning);
    dropped.map_or(Ok(node), Err)
}

/// The text of a file without the byte order mark that it may begin with.
pub(crate) fn text(content: &[u8]) -> Result<&str, Finding> {
    let text = str::from_utf8(content).map_err(|err| {
        let before = &content[..err.valid_up_to()];
        let newlines = before.iter().filter(|it| **it == b'\n').count();
        let is_utf_16 = content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff");
        let message = if is_utf_16 {
            "this is text in UTF-16: save it as UTF-8"
        } else {
            "this is not text in UTF-8"
        };
        in_line(newlines + 1, "not-text", message)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn refuse_byte_order_mark(text: &str) -> Result<&str, Finding> {
    match text.find('\u{feff}') {
        None => Ok(text),
        Some(at) => {
            let line = text[..at].matches('\n').count() + 1;
            let message = "a byte order mark inside the text";
            Err(in_line(line, "byte-order-mark", message))
        }
    }
}

fn in_line(line: usize, rule: &'static str, message: &str) -> Finding {
    let at = Place {
        line: line as u32,
        ..Place::start_of(0)
    };
    Finding::problem(rule, Some(at), message)
}
