//! Another value in a text of YAML, of which all else stays as it is: comments, layout, and how other values are written.
//!
//! How a value can be written depends on what is around it. So each way is tried, and taken only if our reader finds the
//! new value in the new text, and all others as they were.

use std::ops::Range;

use anyhow::{Result, anyhow, bail};
use libyaml_safer::ScalarStyle;
use serde_json::Value;

use crate::yaml::{
    documents::{Document, documents},
    key_path::{KeyPath, Step},
    node::{Data, Node},
    reader::name_of_key,
    tree::{Raw, RawScalar, Tree},
    values,
};

/// Deeper than we read values.
const DEPTH: usize = 250;

/// The indentation of keys in a file that has no example.
const INDENTATION: usize = 2;

/// What takes the place of parts of a text.
pub(crate) type Edits = Vec<(Range<usize>, String)>;

/// A new value, as it may be written.
pub(crate) struct NewValue {
    pub(crate) node: Node,
    /// As somebody wrote it.
    pub(crate) spelt: String,
}

/// The text with this value at a path, which is added below its deepest part that is there. The error says why that
/// cannot be done, and in which line.
pub(crate) fn set(text: &str, path: &KeyPath, value: &NewValue) -> Result<String> {
    let old = read(text)?;
    let mut wanted = old.clone();
    put(&mut wanted, &path.0, value.node.to_json())?;
    let source = Source::find(text, path)?;
    for edits in source.ways(path, value)? {
        let edited = apply(text, edits);
        if read(&edited).is_ok_and(|it| it == wanted) {
            return Ok(edited);
        }
    }
    bail!(
        "line {}: nothing that could be written there changes this value alone",
        source.line()
    )
}

/// All values of a text.
fn read(text: &str) -> Result<Value> {
    match values::read(text.as_bytes(), 0) {
        Ok((node, _)) => Ok(node.to_json()),
        Err(finding) => bail!("line {}: {}", finding.line, finding.message),
    }
}

/// Puts a value into others. Maps and lists that are missing are made.
pub(crate) fn put(into: &mut Value, path: &[Step], value: Value) -> Result<()> {
    let Some((step, rest)) = path.split_first() else {
        *into = value;
        return Ok(());
    };
    match (into, step) {
        (Value::Object(map), Step::Key(key)) => {
            let below = map.entry(key.as_str()).or_insert_with(|| empty(rest));
            put(below, rest, value)
        }
        (Value::Array(items), _) => {
            let count = items.len();
            let Some(index) = step.index().filter(|it| *it <= count) else {
                bail!(
                    "the list has {count} items, counted from 0, and `{}` is neither one nor the next",
                    named(step)
                );
            };
            if index == count {
                items.push(empty(rest));
            }
            put(&mut items[index], rest, value)
        }
        (other, _) => bail!("there is `{other}`, which has no `{}`", named(step)),
    }
}

/// What a path leads into.
fn empty(path: &[Step]) -> Value {
    match path.first() {
        Some(Step::Item(_)) => Value::Array(Vec::new()),
        _ => Value::Object(serde_json::Map::new()),
    }
}

fn named(step: &Step) -> String {
    KeyPath(vec![step.clone()]).to_string()
}

pub(crate) fn apply(text: &str, mut edits: Edits) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut edited = text.to_owned();
    for (range, new) in edits.into_iter().rev() {
        edited.replace_range(range, &new);
    }
    edited
}

/// A document in a text.
pub(crate) struct Source<'a> {
    /// The whole text.
    text: &'a str,
    /// Where the document begins in it.
    start: usize,
    pub(crate) tree: Tree,
    /// The nodes on a path, as far as it goes, and the root first.
    nodes: Vec<usize>,
    /// Whether it is written as JSON.
    is_json: bool,
}

impl<'a> Source<'a> {
    /// The document in which a path goes furthest: of several the last one, which helm merges over the others.
    fn find(text: &'a str, path: &KeyPath) -> Result<Source<'a>> {
        let mut best: Option<Source> = None;
        for source in Source::all(text, path)? {
            if best
                .as_ref()
                .is_none_or(|it| it.nodes.len() <= source.nodes.len())
            {
                best = Some(source);
            }
        }
        best.ok_or_else(|| anyhow!("there is no document"))
    }

    /// Each document of a text, with the nodes on a path in it.
    pub(crate) fn all(text: &'a str, path: &KeyPath) -> Result<Vec<Source<'a>>> {
        let without_mark = text.strip_prefix('\u{feff}').unwrap_or(text);
        let documents =
            documents(without_mark).map_err(|it| anyhow!("line {}: {}", it.line, it.message))?;
        let documents = documents.iter();
        documents.map(|it| Source::read(text, it, path)).collect()
    }

    fn read(text: &'a str, document: &Document, path: &KeyPath) -> Result<Source<'a>> {
        let tree = Tree::parse(document, DEPTH)
            .map_err(|it| anyhow!("line {}: {}", it.line, it.message))?;
        let mark = text.len() - text.trim_start_matches('\u{feff}').len();
        let lines = text[mark..]
            .split_inclusive('\n')
            .take(document.lines_before as usize);
        let start = mark + lines.map(str::len).sum::<usize>();
        let mut source = Source {
            text,
            start,
            nodes: tree.root.into_iter().collect(),
            tree,
            is_json: text[mark..].trim_start().starts_with('{') && text.contains('"'),
        };
        for step in &path.0 {
            let Some(next) = source.nodes.last().and_then(|it| source.below(*it, step)) else {
                break;
            };
            source.nodes.push(next);
        }
        Ok(source)
    }

    /// The node that a step leads to. Of a key that is set twice the last one counts.
    fn below(&self, index: usize, step: &Step) -> Option<usize> {
        match (&self.tree.nodes[index].raw, step) {
            (Raw::List(items), _) => items.get(step.index()?).copied(),
            (Raw::Map(entries), Step::Key(key)) => {
                let mut entries = entries.iter().rev();
                let is_named = |node: usize| {
                    name_of_key(&self.tree.nodes[node].raw).is_some_and(|it| *it == **key)
                };
                entries
                    .find(|(name, _)| is_named(*name))
                    .map(|(_, value)| *value)
            }
            _ => None,
        }
    }

    /// The line of the last node on a path.
    fn line(&self) -> u32 {
        self.nodes
            .last()
            .map_or(1, |it| self.tree.place(*it, 0).line)
    }

    /// Where a position of the parser, in bytes, is in the text. The parser does not see the `\r` of a `\r\n`.
    fn offset(&self, index: u64) -> usize {
        let rest = &self.text[self.start..];
        let mut offset = index as usize;
        for (at, _) in rest.match_indices('\r') {
            if at >= offset {
                break;
            }
            offset += usize::from(matches!(rest.as_bytes().get(at + 1), None | Some(b'\n')));
        }
        self.start + offset.min(rest.len())
    }

    /// All ways to write a value at a path, the best one first.
    fn ways(&self, path: &KeyPath, value: &NewValue) -> Result<Vec<Edits>> {
        let found = self.nodes.len();
        if found == path.0.len() + 1 {
            return self.replacements(self.nodes[found - 1], value);
        }
        let rest = &path.0[found.saturating_sub(1)..];
        match self.nodes.last() {
            None => Ok(self.first_entry(rest, value)),
            Some(node) => self.additions(*node, rest, value),
        }
    }

    /// The bytes of a node without the anchor and tag before it.
    pub(crate) fn span(&self, index: usize) -> Range<usize> {
        let whole = self.whole_span(index);
        whole.start + properties(&self.text[whole.clone()]).len()..whole.end
    }

    fn whole_span(&self, index: usize) -> Range<usize> {
        let node = &self.tree.nodes[index];
        let start = self.offset(node.mark.index);
        start..self.offset(node.end.index).max(start)
    }

    /// Ways to write a value in the place of a node.
    pub(crate) fn replacements(&self, index: usize, value: &NewValue) -> Result<Vec<Edits>> {
        let span = self.span(index);
        match &self.tree.nodes[index].raw {
            Raw::Alias { .. } => Ok(self
                .inline(None, value)
                .into_iter()
                .map(|new| vec![(span.clone(), new)])
                .collect()),
            Raw::Scalar(scalar) if is_block(scalar) => Ok(self.in_place_of_block(index, value)),
            Raw::Scalar(scalar) => Ok(self.in_place_of_scalar(index, scalar, value)),
            Raw::Map(entries) if !entries.is_empty() => bail!(
                "line {}: there is a map: set its keys one by one",
                self.tree.place(index, 0).line
            ),
            Raw::List(_) if !self.is_flow(index) => self.in_place_of_list(index, value),
            Raw::List(_) | Raw::Map(_) => {
                self.refuse_comments(index, span.clone())?;
                Ok(self
                    .inline(None, value)
                    .into_iter()
                    .map(|new| vec![(span.clone(), new)])
                    .collect())
            }
        }
    }

    fn in_place_of_scalar(&self, index: usize, scalar: &RawScalar, value: &NewValue) -> Vec<Edits> {
        let whole = self.whole_span(index);
        let properties = properties(&self.text[whole.clone()]);
        let span = whole.start + properties.len()..whole.end;
        let mut ways = Vec::new();
        for new in self.inline(Some(scalar), value) {
            // Where there is nothing, a blank follows the `:` or `-` before.
            let blank = if span.is_empty() && !properties.ends_with(' ') {
                " "
            } else {
                ""
            };
            ways.push(vec![(span.clone(), format!("{blank}{new}"))]);
            if scalar.tag.is_some() {
                ways.push(vec![(whole.clone(), without_tag(properties) + &new)]);
            }
        }
        ways
    }

    /// In the place of a block like `|`, of which a comment in its first line stays.
    fn in_place_of_block(&self, index: usize, value: &NewValue) -> Vec<Edits> {
        let span = self.span(index);
        let block = &self.text[span.clone()];
        let header = block.find([' ', '\t', '\r', '\n']).unwrap_or(block.len());
        let header = span.start..span.start + header;
        let first_line = line_end(self.text, header.end);
        let content = first_line..self.end(index).max(first_line);
        let mut ways = Vec::new();
        if let Some(text) = value.node.as_text().filter(|it| it.contains('\n')) {
            let newline = self.newline();
            let lines = self.text[content.clone()]
                .lines()
                .filter(|it| !it.trim().is_empty());
            let indent = lines.map(indentation).next().unwrap_or_default();
            let body = text.strip_suffix('\n').unwrap_or(text).split('\n');
            let body: String = body.map(|it| block_line(newline, indent, it)).collect();
            let chomping = if text.ends_with('\n') { "" } else { "-" };
            ways.push(vec![
                (header.clone(), format!("|{chomping}")),
                (content.clone(), body),
            ]);
        }
        for new in self.inline(None, value) {
            ways.push(vec![
                (header.clone(), new),
                (content.clone(), String::new()),
            ]);
        }
        ways
    }

    /// In the place of a list that has a line for each item.
    fn in_place_of_list(&self, index: usize, value: &NewValue) -> Result<Vec<Edits>> {
        let span = self.span(index).start..self.end(index);
        self.refuse_comments(index, span.clone())?;
        let mut ways = Vec::new();
        if let Data::List(items) = &value.node.data
            && !items.is_empty()
        {
            let indent = " ".repeat(self.column(span.start));
            let separator = format!("{}{indent}", self.newline());
            for is_quoted in [false, true] {
                let items = items.iter().map(|it| format!("- {}", item(it, is_quoted)));
                ways.push(vec![(
                    span.clone(),
                    items.collect::<Vec<_>>().join(&separator),
                )]);
            }
        }
        let before = self.text[..span.start].trim_end();
        if before.ends_with(':') && !self.ends_in_comment(before) {
            for new in self.inline(None, value) {
                ways.push(vec![(before.len()..span.end, format!(" {new}"))]);
            }
        }
        Ok(ways)
    }

    /// Refuses a collection of which comments would be lost.
    fn refuse_comments(&self, index: usize, span: Range<usize>) -> Result<()> {
        if !self.has_comment(span) {
            return Ok(());
        }
        let line = self.tree.place(index, 0).line;
        match &self.tree.nodes[index].raw {
            Raw::List(items) if !items.is_empty() => bail!(
                "line {line}: the list has comments, which would be lost: set its items one by one"
            ),
            _ => bail!("line {line}: there are comments in the brackets, which would be lost"),
        }
    }

    /// Whether the last line of what is before a value has a comment.
    fn ends_in_comment(&self, before: &str) -> bool {
        let line = before.rfind('\n').map_or(0, |it| it + 1);
        self.has_comment(line..before.len())
    }

    /// Whether a comment is between the nodes in a part of the text.
    fn has_comment(&self, span: Range<usize>) -> bool {
        let mut text = self.text[span.clone()].as_bytes().to_vec();
        for (inner, node) in self.tree.nodes.iter().enumerate() {
            let inner_span = self.whole_span(inner);
            if matches!(node.raw, Raw::Scalar(_))
                && inner_span.start >= span.start
                && inner_span.start < span.end
            {
                let end = inner_span.end.min(span.end) - span.start;
                text[inner_span.start - span.start..end].fill(b'x');
            }
        }
        text.contains(&b'#')
    }

    /// Ways to add what the rest of a path names to a map or list.
    fn additions(&self, index: usize, rest: &[Step], value: &NewValue) -> Result<Vec<Edits>> {
        let line = self.tree.place(index, 0).line;
        let (last, is_list) = match &self.tree.nodes[index].raw {
            Raw::Map(entries) => (entries.last().map(|it| it.1), false),
            Raw::List(items) => (items.last().copied(), true),
            Raw::Alias { name, .. } => {
                bail!("line {line}: `*{name}` stands for what is written elsewhere")
            }
            Raw::Scalar(_) => bail!("line {line}: there is a value already, with no keys below it"),
        };
        if !self.is_flow(index) {
            return Ok(self.additions_to_block(index, last.unwrap_or(index), rest, value));
        }
        if last.is_none() && self.nodes.len() == 1 && !self.is_json {
            let lines = self.lines(0, self.step_of_indentation(), rest, value);
            return Ok(lines.map(|it| vec![(self.span(index), it)]).collect());
        }
        let at = last.map_or(self.span(index).start + 1, |it| self.end(it));
        let comma = if last.is_some() { ", " } else { "" };
        let ways = self.inline(None, value).into_iter();
        let entries = ways.map(|new| self.flow_entry(rest, new, is_list));
        Ok(entries
            .map(|it| vec![(at..at, format!("{comma}{it}"))])
            .collect())
    }

    fn additions_to_block(
        &self,
        index: usize,
        last: usize,
        rest: &[Step],
        value: &NewValue,
    ) -> Vec<Edits> {
        let at = line_end(self.text, self.end(last));
        let newline = self.newline();
        if let Raw::List(items) = &self.tree.nodes[index].raw {
            let first = self.whole_span(items[0]).start;
            let column = self.column(self.text[..first].rfind('-').unwrap_or(first));
            let indent = " ".repeat(column);
            let ways = self.inline(None, value).into_iter();
            let entries = ways.map(|new| self.flow_entry(rest, new, true));
            return entries
                .map(|it| vec![(at..at, format!("{newline}{indent}- {it}"))])
                .collect();
        }
        let Raw::Map(entries) = &self.tree.nodes[index].raw else {
            return Vec::new();
        };
        let column = self.tree.nodes[entries[0].0].mark.column as usize;
        let lines = self.lines(column, self.step_of_indentation(), rest, value);
        lines
            .map(|it| vec![(at..at, format!("{newline}{it}"))])
            .collect()
    }

    /// Ways to write the first entry of a document that has none.
    fn first_entry(&self, rest: &[Step], value: &NewValue) -> Vec<Edits> {
        let end = self.text.len();
        let newline = self.newline();
        let before = if self.text[self.start..].is_empty() || self.text.ends_with('\n') {
            ""
        } else {
            newline
        };
        let lines = self.lines(0, INDENTATION, rest, value);
        lines
            .map(|it| vec![(end..end, format!("{before}{it}{newline}"))])
            .collect()
    }

    /// Ways to write keys with a value in lines of their own; from the first item of a list on in one line.
    fn lines(
        &self,
        column: usize,
        step: usize,
        rest: &[Step],
        value: &NewValue,
    ) -> impl Iterator<Item = String> {
        let count = rest
            .iter()
            .take_while(|it| matches!(it, Step::Key(_)))
            .count();
        let mut keys = String::new();
        for (depth, key) in rest[..count].iter().enumerate() {
            if depth > 0 {
                keys += self.newline();
            }
            keys += &" ".repeat(column + depth * step);
            keys += &format!("{}:", self.key(key));
        }
        let ways = self.inline(None, value).into_iter();
        ways.map(move |it| format!("{keys} {}", self.within(&rest[count..], it)))
    }

    /// An entry of a collection in one line, with what is below it.
    fn flow_entry(&self, rest: &[Step], new: String, is_item: bool) -> String {
        let below = self.within(&rest[1..], new);
        if is_item {
            below
        } else {
            format!("{}: {below}", self.key(&rest[0]))
        }
    }

    /// A value within new maps and lists.
    fn within(&self, steps: &[Step], new: String) -> String {
        steps.iter().rev().fold(new, |inner, step| match step {
            Step::Key(_) => format!("{{{}: {inner}}}", self.key(step)),
            Step::Item(_) => format!("[{inner}]"),
        })
    }

    /// A key as it is written in this text.
    fn key(&self, step: &Step) -> String {
        let Step::Key(key) = step else {
            return named(step);
        };
        let is_simple = key.starts_with(|it: char| it.is_ascii_alphabetic())
            && key
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "-_./".contains(it))
            && matches!(values::read_value(key), Ok(node) if node.as_text() == Some(key));
        if is_simple && !self.is_json {
            key.clone()
        } else {
            double_quoted(key)
        }
    }

    /// Ways to write a value in a line that has something else already; in place of a scalar as that is written.
    fn inline(&self, old: Option<&RawScalar>, value: &NewValue) -> Vec<String> {
        let Some(text) = value.node.as_text() else {
            let json = value.node.to_json().to_string();
            let is_spelt = !self.is_json && !value.spelt.contains('\n');
            return is_spelt
                .then(|| value.spelt.clone())
                .into_iter()
                .chain([json])
                .collect();
        };
        let style = old.map(|it| it.style);
        let may_be_plain = match style {
            Some(ScalarStyle::Plain) => true,
            None => text.starts_with(|it: char| it.is_alphabetic() || it == '/'),
            Some(_) => false,
        };
        let is_one_line = !text.contains(char::is_control);
        let mut ways = Vec::new();
        if may_be_plain && is_one_line && !self.is_json {
            ways.push(text.to_owned());
        }
        if style == Some(ScalarStyle::SingleQuoted) && is_one_line {
            ways.push(format!("'{}'", text.replace('\'', "''")));
        }
        ways.push(double_quoted(text));
        ways
    }

    /// Behind the last character of a node: that of its last part, if it has a line for each of them.
    fn end(&self, index: usize) -> usize {
        match &self.tree.nodes[index].raw {
            Raw::Scalar(scalar) if is_block(scalar) => {
                let span = self.span(index);
                line_end(
                    self.text,
                    span.start + self.text[span.clone()].trim_end().len(),
                )
            }
            Raw::List(items) if !self.is_flow(index) && !items.is_empty() => {
                self.end(items[items.len() - 1])
            }
            Raw::Map(entries) if !self.is_flow(index) && !entries.is_empty() => {
                self.end(entries[entries.len() - 1].1)
            }
            _ => self.whole_span(index).end,
        }
    }

    /// Whether a collection is within brackets.
    fn is_flow(&self, index: usize) -> bool {
        self.text[self.span(index).start..].starts_with(['[', '{'])
    }

    /// How many characters are before this one in its line.
    fn column(&self, at: usize) -> usize {
        let line = self.text[..at].rfind('\n').map_or(0, |it| it + 1);
        self.text[line..at]
            .trim_start_matches('\u{feff}')
            .chars()
            .count()
    }

    /// How much deeper this file indents keys than those above them.
    fn step_of_indentation(&self) -> usize {
        let columns = |index: usize| match &self.tree.nodes[index].raw {
            Raw::Map(entries) => entries.first().map(|it| self.tree.nodes[it.0].mark.column),
            _ => None,
        };
        for (index, node) in self.tree.nodes.iter().enumerate() {
            let Raw::Map(entries) = &node.raw else {
                continue;
            };
            for (_, value) in entries {
                if let (Some(above), Some(below)) = (columns(index), columns(*value))
                    && !self.is_flow(*value)
                    && below > above
                {
                    return (below - above) as usize;
                }
            }
        }
        INDENTATION
    }

    /// How lines end in this text.
    fn newline(&self) -> &'static str {
        let first = self.text.find('\n').unwrap_or(0);
        if self.text[..first].ends_with('\r') {
            "\r\n"
        } else {
            "\n"
        }
    }
}

fn is_block(scalar: &RawScalar) -> bool {
    matches!(scalar.style, ScalarStyle::Literal | ScalarStyle::Folded)
}

/// The anchor and tag that a node begins with, and the blanks after them.
fn properties(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with(['&', '!']) {
        let end = rest
            .find([' ', '\t', '\r', '\n', ',', ']', '}'])
            .unwrap_or(rest.len());
        rest = rest[end..].trim_start();
    }
    &text[..text.len() - rest.len()]
}

/// The anchor alone.
fn without_tag(properties: &str) -> String {
    let words = properties
        .split_whitespace()
        .filter(|it| !it.starts_with('!'));
    words.map(|it| format!("{it} ")).collect()
}

/// The end of the line that a byte is in, without its line break.
fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |it| at + it);
    if text[at..end].ends_with('\r') {
        end - 1
    } else {
        end
    }
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches(' ').len()]
}

/// A line of a block, with the line break before it.
fn block_line(newline: &str, indent: &str, line: &str) -> String {
    if line.is_empty() {
        newline.to_owned()
    } else {
        format!("{newline}{indent}{line}")
    }
}

/// An item of a list in its line.
fn item(node: &Node, is_quoted: bool) -> String {
    match node.as_text() {
        Some(text) if !is_quoted && text.starts_with(|it: char| it.is_alphabetic()) => {
            text.to_owned()
        }
        Some(text) => double_quoted(text),
        None => node.to_json().to_string(),
    }
}

/// A text in double quotes, in which nothing is taken for a line break.
fn double_quoted(text: &str) -> String {
    let mut quoted = String::new();
    for char in Value::from(text).to_string().chars() {
        match char {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                quoted += &format!("\\u{:04x}", char as u32);
            }
            _ => quoted.push(char),
        }
    }
    quoted
}
