//! YAML as helm 4 reads it, with the place of every value: sigs.k8s.io/yaml over go.yaml.in/yaml/v2, whose parser is
//! libyaml's, as libyaml-safer's is. What that reader drops without a word is a finding here.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use libyaml_safer::{Event, EventData, Mark, Parser, ScalarStyle};
use serde_json::Value;

use self::scalar::Scalar;

mod scalar;

/// Far deeper than anybody's values, and nothing that recursion can't bear. helm itself allows 10,000.
const MAX_DEPTH: usize = 200;

/// Where a value stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The caller's number of the file.
    pub(crate) file: u32,
    /// From 1, as editors count.
    pub(crate) line: u32,
    /// In characters from 1.
    pub(crate) column: u32,
}

/// The files that places are in, by their numbers.
#[derive(Default)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// The number of a file, given by its path from the root.
    pub(crate) fn add(&mut self, path: &Path) -> u32 {
        let known = self.0.iter().position(|it| it == path);
        let number = known.unwrap_or_else(|| {
            self.0.push(path.to_owned());
            self.0.len() - 1
        });
        u32::try_from(number).expect("nobody has so many files")
    }

    pub(crate) fn path(&self, number: u32) -> &Path {
        &self.0[number as usize]
    }
}

/// A value, and where it was set.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// Of a mapping's or list's key, if it has one, else of the value itself.
    pub(crate) at: Option<Place>,
    /// Of the key in a mapping.
    pub(crate) key_at: Option<Place>,
}

pub(crate) type Map = BTreeMap<Arc<str>, Node>;

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// helm knows no other numbers.
    Number(f64),
    Text(Arc<str>),
    List(Vec<Node>),
    Map(Map),
    /// A scalar that sops encrypted, of which only the type can be told: `str`, `int`, `float`, `bool` or `bytes`.
    Encrypted(&'static str),
}

/// What is to be said of a place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) rule: &'static str,
    pub(crate) is_warning: bool,
    pub(crate) message: String,
}

impl Finding {
    /// At the place, or at the file's beginning.
    pub(crate) fn problem(
        rule: &'static str,
        at: Option<Place>,
        message: impl Into<String>,
    ) -> Finding {
        let (line, column) = at.map_or((1, 1), |it| (it.line, it.column));
        Finding {
            line,
            column,
            rule,
            is_warning: false,
            message: message.into(),
        }
    }
}

impl Node {
    pub(crate) fn nowhere(data: Data) -> Node {
        Node {
            data,
            at: None,
            key_at: None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// What is at a path of keys and, in lists, of numbers from 0.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match &node.data {
            Data::Map(map) => map.get(*step),
            Data::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// As a JSON schema is held against it. An encrypted value becomes one of its type.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(it) => Value::Bool(*it),
            Data::Number(it) => number(*it),
            Data::Text(text) => Value::from(&**text),
            Data::List(items) => items.iter().map(Node::to_json).collect(),
            Data::Map(map) => map
                .iter()
                .map(|(key, it)| (key.to_string(), it.to_json()))
                .collect(),
            Data::Encrypted("bool") => Value::Bool(true),
            Data::Encrypted("int") => Value::from(1),
            Data::Encrypted("float") => Value::from(1.5),
            Data::Encrypted(_) => Value::from("encrypted"),
        }
    }

    /// Makes this the place of all that is in the value, for a file whose lines nobody sees.
    pub(crate) fn move_to(&mut self, at: Place) {
        (self.at, self.key_at) = (Some(at), Some(at));
        match &mut self.data {
            Data::List(items) => items.iter_mut().for_each(|it| it.move_to(at)),
            Data::Map(map) => map.values_mut().for_each(|it| it.move_to(at)),
            _ => {}
        }
    }

    /// Calls `f` with every value in this one, itself included.
    pub(crate) fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Node)) {
        f(self);
        match &self.data {
            Data::List(items) => items.iter().for_each(|it| it.visit(f)),
            Data::Map(map) => map.values().for_each(|it| it.visit(f)),
            _ => {}
        }
    }
}

/// The bytes of a regular file: what is something else might never end.
pub(crate) fn content(file: &Path) -> anyhow::Result<Vec<u8>> {
    let found = file.metadata().context("cannot read it")?;
    ensure!(found.is_file(), "it isn't a file");
    fs::read(file).context("cannot read it")
}

/// A file's values, always a map, and what helm would not say of it. The error is what helm refuses, or what isn't text.
pub(crate) fn read(content: &[u8], file: u32) -> Result<(Node, Vec<Finding>), Finding> {
    let text = std::str::from_utf8(content).map_err(|err| {
        let line = content[..err.valid_up_to()]
            .iter()
            .filter(|it| **it == b'\n')
            .count();
        finding("not-text", line as u32 + 1, 1, "this isn't text in UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find('\u{feff}') {
        let line = text[..at].matches('\n').count() as u32 + 1;
        return Err(finding(
            "byte-order-mark",
            line,
            1,
            "a byte order mark in the midst of the text",
        ));
    }
    let mut findings = Vec::new();
    let mut whole = Node {
        data: Data::Map(Map::new()),
        at: None,
        key_at: None,
    };
    let mut first: Option<u32> = None;
    for (start, document) in documents(text)? {
        let mut reader = Reader::parse(&document, file, start)?;
        let Some(root) = reader.root else { continue };
        let node = reader.construct(root)?;
        findings.append(&mut reader.findings);
        let at = reader.place(root);
        match node.data {
            Data::Null => continue,
            Data::Map(map) => match (first, &mut whole.data) {
                (Some(line), Data::Map(before)) => {
                    findings.push(finding(
                        "second-document",
                        at.line,
                        at.column,
                        format!(
                            "a second document, which helm merges over the one in line {line}: write one"
                        ),
                    ));
                    merge(before, map);
                }
                _ => {
                    first = Some(at.line);
                    whole = Node {
                        data: Data::Map(map),
                        at: Some(at),
                        key_at: None,
                    };
                }
            },
            _ => {
                return Err(finding(
                    "yaml",
                    at.line,
                    at.column,
                    "values are a mapping of keys, and this isn't one",
                ));
            }
        }
    }
    Ok((whole, findings))
}

/// A later file's values over an earlier one's, as helm merges `--values`: maps by key, all else replaced.
pub(crate) fn merge(into: &mut Map, from: Map) {
    for (key, mut node) in from {
        match (into.get_mut(&key), node.data) {
            (
                Some(Node {
                    data: Data::Map(before),
                    at,
                    key_at,
                }),
                Data::Map(map),
            ) => {
                merge(before, map);
                (*at, *key_at) = (node.at, node.key_at);
            }
            (_, data) => {
                node.data = data;
                into.insert(key, node);
            }
        }
    }
}

/// An integer is one however it was written; a large one has no more digits than tell it from the next.
fn number(value: f64) -> Value {
    if value.fract() != 0.0 {
        return Value::from(value);
    }
    let digits = value.to_string();
    let small = digits.parse::<i64>().map(Value::from);
    small
        .or_else(|_| digits.parse::<u64>().map(Value::from))
        .unwrap_or_else(|_| Value::from(value))
}

fn finding(rule: &'static str, line: u32, column: u32, message: impl Into<String>) -> Finding {
    Finding::problem(
        rule,
        Some(Place {
            file: 0,
            line,
            column,
        }),
        message,
    )
}

/// The documents as helm splits them before it reads YAML, at every line that begins with `---`, each with the number
/// of lines before it (k8s.io/apimachinery's YAMLReader).
fn documents(text: &str) -> Result<Vec<(u32, String)>, Finding> {
    let mut found = Vec::new();
    let mut document = String::new();
    let mut start = 0;
    for (number, line) in text.split_terminator('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            let rest = rest.trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                let message = format!(
                    "nothing but a comment may follow `---` in its line, and there is `{rest}`"
                );
                return Err(finding("yaml", number as u32 + 1, 4, message));
            }
            if !document.is_empty() {
                found.push((start, std::mem::take(&mut document)));
                start = number as u32 + 1;
                continue;
            }
        }
        document += line.strip_suffix('\r').unwrap_or(line);
        document.push('\n');
    }
    found.push((start, document));
    Ok(found)
}

/// The parser's next event; none where libyaml-safer 0.3 panics, which it does for a tag before a comma (`[!!str, x]`)
/// and Go refuses.
fn next(parser: &mut Parser<&mut &[u8]>) -> Option<libyaml_safer::Result<Event>> {
    static QUIET: Once = Once::new();
    thread_local!(static PARSING: Cell<bool> = const { Cell::new(false) });
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !PARSING.get() {
                usual(info);
            }
        }));
    });
    PARSING.set(true);
    let event = panic::catch_unwind(AssertUnwindSafe(|| parser.parse()));
    PARSING.set(false);
    event.ok()
}

/// Whether `\/` is among the escapes of a double-quoted scalar: YAML 1.2 has it, and Go's parser of YAML 1.1 hasn't.
fn escapes_slash(document: &str, start: Mark, end: Mark) -> bool {
    if !document.contains("\\/") {
        return false;
    }
    let mut chars = document
        .chars()
        .skip(start.index as usize)
        .take((end.index - start.index) as usize);
    while let Some(it) = chars.next() {
        if it == '\\' && chars.next() == Some('/') {
            return true;
        }
    }
    false
}

enum Raw {
    Scalar {
        text: String,
        tag: Option<String>,
        is_plain: bool,
    },
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
    Alias(String, usize),
}

/// One document: its nodes in the order of their beginnings.
struct Reader {
    nodes: Vec<(Raw, Mark)>,
    root: Option<usize>,
    file: u32,
    lines_before: u32,
    findings: Vec<Finding>,
    /// Whose value is being read.
    key: Arc<str>,
    /// The aliases that are being read, the innermost last.
    within: Vec<usize>,
    /// How many values were read, and how many of them in aliases.
    read: usize,
    read_in_aliases: usize,
}

impl Reader {
    fn parse(document: &str, file: u32, lines_before: u32) -> Result<Reader, Finding> {
        let mut reader = Reader {
            nodes: Vec::new(),
            root: None,
            file,
            lines_before,
            findings: Vec::new(),
            key: "".into(),
            within: Vec::new(),
            read: 0,
            read_in_aliases: 0,
        };
        let mut input = document.as_bytes();
        let mut parser = Parser::new();
        parser.set_input_string(&mut input);
        let mut anchors = HashMap::new();
        // The collections that are open, each with a key that waits for its value.
        let mut open: Vec<(usize, Option<usize>)> = Vec::new();
        loop {
            let Some(event) = next(&mut parser) else {
                let at = reader.nodes.last().map(|(_, mark)| *mark);
                return Err(reader.problem(
                    at.unwrap_or_default(),
                    "a tag isn't followed by a blank, here or soon after",
                ));
            };
            let event = event.map_err(|err| reader.syntax(document, &err))?;
            let (mark, end) = (event.start_mark, event.end_mark);
            let index = reader.nodes.len();
            let (raw, anchor) = match event.data {
                EventData::StreamEnd => return Ok(reader),
                EventData::DocumentEnd { .. } => break,
                EventData::SequenceEnd | EventData::MappingEnd => {
                    open.pop();
                    continue;
                }
                EventData::StreamStart { .. } | EventData::DocumentStart { .. } => continue,
                EventData::Alias { anchor } => {
                    let Some(target) = anchors.get(&anchor) else {
                        return Err(reader.problem(
                            mark,
                            format!("there is no anchor `&{anchor}` before this alias"),
                        ));
                    };
                    (Raw::Alias(anchor, *target), None)
                }
                EventData::Scalar {
                    anchor,
                    tag,
                    value,
                    plain_implicit,
                    style,
                    ..
                } => {
                    if style == ScalarStyle::DoubleQuoted && escapes_slash(document, mark, end) {
                        return Err(
                            reader.problem(mark, "helm doesn't know the escape `\\/` in this text")
                        );
                    }
                    (
                        Raw::Scalar {
                            text: value,
                            tag,
                            is_plain: plain_implicit,
                        },
                        anchor,
                    )
                }
                EventData::SequenceStart { anchor, .. } => (Raw::List(Vec::new()), anchor),
                EventData::MappingStart { anchor, .. } => (Raw::Map(Vec::new()), anchor),
            };
            let is_collection = matches!(raw, Raw::List(_) | Raw::Map(_));
            reader.nodes.push((raw, mark));
            if let Some(anchor) = anchor {
                anchors.insert(anchor, index);
            }
            match open.last_mut() {
                None => reader.root = Some(index),
                Some((collection, key)) => match &mut reader.nodes[*collection].0 {
                    Raw::List(items) => items.push(index),
                    Raw::Map(entries) => match key.take() {
                        Some(key) => entries.push((key, index)),
                        None => *key = Some(index),
                    },
                    _ => unreachable!("only collections are open"),
                },
            }
            if is_collection {
                open.push((index, None));
                if open.len() > MAX_DEPTH {
                    let message = format!("nested deeper than {MAX_DEPTH} levels");
                    return Err(Finding {
                        rule: "too-deep",
                        ..reader.problem(mark, message)
                    });
                }
            }
        }
        reader.look_behind(&mut parser, document);
        Ok(reader)
    }

    /// helm reads the first node of a document and drops what follows.
    fn look_behind(&mut self, parser: &mut Parser<&mut &[u8]>, document: &str) {
        let at = match next(parser) {
            Some(Ok(event)) if event.data == EventData::StreamEnd => return,
            Some(Ok(event)) => self.problem(event.start_mark, ""),
            Some(Err(err)) => self.syntax(document, &err),
            None => self.problem(
                self.nodes
                    .last()
                    .map_or_else(Mark::default, |(_, mark)| *mark),
                "",
            ),
        };
        let message = "helm drops, without a word, what begins here: \
                       the lines before it are indented otherwise, or have ended the document";
        self.findings.push(Finding {
            rule: "dropped-content",
            message: message.to_owned(),
            ..at
        });
    }

    fn syntax(&self, document: &str, err: &libyaml_safer::Error) -> Finding {
        let (problem, mark) = (err.problem(), err.problem_mark());
        let Some(mark) = mark else {
            // The reader of bytes knows no lines: it stops at the first character that YAML doesn't allow.
            let allowed = |it: char| {
                matches!(it, '\t' | '\n' | '\r' | '\u{85}' | '\u{feff}' | ' '..='~' | '\u{a0}'..='\u{d7ff}')
                    || it >= '\u{e000}' && it != '\u{fffe}' && it != '\u{ffff}'
            };
            let line = document
                .lines()
                .position(|it| !it.chars().all(allowed))
                .unwrap_or(0);
            return finding("yaml", self.lines_before + line as u32 + 1, 1, problem);
        };
        let context = err.context().map(|it| format!(" {it}")).unwrap_or_default();
        self.problem(mark, format!("{problem}{context}"))
    }

    fn problem(&self, mark: Mark, message: impl Into<String>) -> Finding {
        finding(
            "yaml",
            self.lines_before + mark.line as u32 + 1,
            mark.column as u32 + 1,
            message,
        )
    }

    fn place(&self, index: usize) -> Place {
        let mark = self.nodes[index].1;
        Place {
            file: self.file,
            line: self.lines_before + mark.line as u32 + 1,
            column: mark.column as u32 + 1,
        }
    }

    fn construct(&mut self, index: usize) -> Result<Node, Finding> {
        self.count(index)?;
        let at = Some(self.place(index));
        let data = match &self.nodes[index].0 {
            Raw::Alias(_, target) => {
                let target = *target;
                self.enter(index)?;
                let node = self.construct(target)?;
                self.within.pop();
                return Ok(Node { at, ..node });
            }
            Raw::Scalar { .. } => self.value(index)?,
            Raw::List(items) => {
                let items = items.clone();
                Data::List(
                    items
                        .into_iter()
                        .map(|it| self.construct(it))
                        .collect::<Result<_, _>>()?,
                )
            }
            Raw::Map(_) => {
                let mut map = Map::new();
                self.fill(index, &mut map)?;
                Data::Map(map)
            }
        };
        Ok(Node {
            data,
            at,
            key_at: None,
        })
    }

    /// Refuses what grows beyond measure by its aliases, with go.yaml.in/yaml/v2's own limits.
    fn count(&mut self, index: usize) -> Result<(), Finding> {
        self.read += 1;
        self.read_in_aliases += usize::from(!self.within.is_empty());
        let allowed = match self.read {
            ..=400_000 => 0.99,
            4_000_000.. => 0.10,
            read => 0.99 - 0.89 * ((read - 400_000) as f64 / 3_600_000.0),
        };
        let ratio = self.read_in_aliases as f64 / self.read as f64;
        if self.read_in_aliases > 100 && self.read > 1000 && ratio > allowed {
            return Err(self.problem(
                self.nodes[index].1,
                "aliases make the document grow beyond measure",
            ));
        }
        Ok(())
    }

    fn enter(&mut self, alias: usize) -> Result<(), Finding> {
        if self.within.contains(&alias) || self.within.len() > MAX_DEPTH {
            let Raw::Alias(name, _) = &self.nodes[alias].0 else {
                unreachable!("only aliases are entered")
            };
            return Err(self.problem(
                self.nodes[alias].1,
                format!("what `*{name}` stands for contains itself"),
            ));
        }
        self.within.push(alias);
        Ok(())
    }

    fn value(&mut self, index: usize) -> Result<Data, Finding> {
        let data = match self.scalar(index)? {
            Scalar::Null => Data::Null,
            Scalar::Bool(it) => Data::Bool(it),
            Scalar::Int(it) => Data::Number(it as f64),
            Scalar::Uint(it) => Data::Number(it as f64),
            Scalar::Float(it) if !it.is_finite() => {
                return Err(self.problem(
                    self.nodes[index].1,
                    "helm's values can't hold infinity or not-a-number",
                ));
            }
            Scalar::Float(it) => Data::Number(it),
            Scalar::Text(it) => Data::Text(it.into()),
        };
        Ok(data)
    }

    fn scalar(&mut self, index: usize) -> Result<Scalar, Finding> {
        let (
            Raw::Scalar {
                text,
                tag,
                is_plain,
            },
            mark,
        ) = &self.nodes[index]
        else {
            unreachable!("only scalars are read so")
        };
        let tag = match tag.as_deref() {
            None if !is_plain => return Ok(Scalar::Text(text.clone())),
            Some("tag:yaml.org,2002:binary") => {
                let bytes = BASE64_STANDARD
                    .decode(text.replace(['\n', '\r'], ""))
                    .map_err(|_| self.problem(*mark, "`!!binary` and no base64"))?;
                return Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()));
            }
            tag => tag.unwrap_or_default(),
        };
        let resolved = scalar::resolve(tag, text).map_err(|it| self.problem(*mark, it))?;
        // A value that many aliases name is said once.
        if tag.is_empty()
            && self.within.is_empty()
            && let Some(message) = scalar::misread(&self.key, text, &resolved)
        {
            let warning = Finding {
                rule: "misread-scalar",
                is_warning: true,
                ..self.problem(*mark, message)
            };
            self.findings.push(warning);
        }
        Ok(resolved)
    }

    /// Reads a mapping's entries into `map`, one after another; what `<<` names as well, wherever it stands.
    fn fill(&mut self, index: usize, map: &mut Map) -> Result<(), Finding> {
        let Raw::Map(entries) = &self.nodes[index].0 else {
            unreachable!("only mappings are read so")
        };
        let entries = entries.clone();
        let mut own = BTreeSet::new();
        for (key, value) in entries {
            if self.is_merge(key) {
                self.merge(value, map)?;
                continue;
            }
            let key_at = self.place(key);
            let name = self.key(key)?;
            self.key = name.clone();
            let mut node = self.construct(value)?;
            if matches!(node.data, Data::List(_) | Data::Map(_)) {
                node.at = Some(key_at);
            }
            node.key_at = Some(key_at);
            if !own.insert(name.clone()) && self.within.is_empty() {
                let mark = self.nodes[key].1;
                let message =
                    format!("`{name}` is set twice in this mapping, and only the last one counts");
                self.findings.push(Finding {
                    rule: "duplicate-key",
                    ..self.problem(mark, message)
                });
            }
            map.insert(name, node);
        }
        Ok(())
    }

    fn is_merge(&self, key: usize) -> bool {
        let Raw::Scalar {
            text,
            tag,
            is_plain,
        } = &self.nodes[key].0
        else {
            return false;
        };
        text == "<<" && (*is_plain || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
    }

    fn merge(&mut self, index: usize, map: &mut Map) -> Result<(), Finding> {
        let target = match self.nodes[index].0 {
            Raw::Alias(_, target) => target,
            _ => index,
        };
        match &self.nodes[target].0 {
            Raw::Map(_) => self.merge_one(index, map),
            // Only a list in its place may name several maps, and the first one wins.
            Raw::List(items) if target == index => items
                .clone()
                .into_iter()
                .rev()
                .try_for_each(|it| self.merge_one(it, map)),
            _ => Err(self.wants_maps(index)),
        }
    }

    fn merge_one(&mut self, index: usize, map: &mut Map) -> Result<(), Finding> {
        self.count(index)?;
        match self.nodes[index].0 {
            Raw::Map(_) => self.fill(index, map),
            Raw::Alias(_, target) if matches!(self.nodes[target].0, Raw::Map(_)) => {
                self.enter(index)?;
                self.merge_one(target, map)?;
                self.within.pop();
                Ok(())
            }
            _ => Err(self.wants_maps(index)),
        }
    }

    fn wants_maps(&self, index: usize) -> Finding {
        self.problem(
            self.nodes[index].1,
            "`<<` merges a mapping or a list of mappings",
        )
    }

    fn key(&mut self, index: usize) -> Result<Arc<str>, Finding> {
        self.count(index)?;
        let mark = self.nodes[index].1;
        let scalar = match &self.nodes[index].0 {
            Raw::Scalar { .. } => self.scalar(index)?,
            Raw::Alias(_, target) => {
                let target = *target;
                self.enter(index)?;
                let key = self.key(target)?;
                self.within.pop();
                return Ok(key);
            }
            _ => {
                return Err(
                    self.problem(mark, "a mapping's key can't be a list or another mapping")
                );
            }
        };
        match scalar {
            Scalar::Text(it) => Ok(it.into()),
            Scalar::Bool(it) => Ok(it.to_string().into()),
            Scalar::Int(it) => Ok(it.to_string().into()),
            Scalar::Float(it) => Ok(scalar::float_key(it).into()),
            Scalar::Null => Err(self.problem(mark, "a mapping's key can't be null: quote it")),
            Scalar::Uint(_) => {
                Err(self.problem(mark, "helm can't take so large a number as a key: quote it"))
            }
        }
    }
}

/// The documents of a YAML stream as text. A line `---` can't stand inside a document.
pub(crate) fn split_documents(stream: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(
        stream
            .match_indices("---\n")
            .map(|(at, _)| at)
            .filter(|at| *at == 0 || stream.as_bytes()[at - 1] == b'\n'),
    );
    let mut starts: Vec<usize> = starts.collect();
    starts.dedup();
    starts.push(stream.len());
    let documents: Vec<&str> = starts.windows(2).map(|it| &stream[it[0]..it[1]]).collect();
    documents
        .into_iter()
        .map(|it| it.strip_prefix("---\n").unwrap_or(it))
        .filter(|it| !it.trim().is_empty())
}
