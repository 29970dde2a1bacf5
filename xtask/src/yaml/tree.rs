//! The parser's events as a tree. The parser is libyaml's, as that of go.yaml.in/yaml/v2 is.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::HashMap,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use libyaml_safer::{Error, Event, EventData, Mark, Parser, ScalarStyle};

use crate::yaml::{
    documents::Document,
    mistakes,
    node::{Finding, Place},
};

/// A document's nodes in the order of their beginnings. Nodes refer to others by their index.
pub(crate) struct Tree {
    pub(crate) nodes: Vec<RawNode>,
    /// None for an empty document.
    pub(crate) root: Option<usize>,
    /// What there is to say of content behind the document, if there is any.
    pub(crate) dropped: Option<Finding>,
    lines_before: u32,
    pub(crate) max_depth: usize,
}

pub(crate) struct RawNode {
    pub(crate) raw: Raw,
    /// The beginning of its anchor or tag, if it has one.
    pub(crate) mark: Mark,
    /// Behind its last character. That of a block is where something else begins.
    pub(crate) end: Mark,
}

pub(crate) enum Raw {
    Scalar(RawScalar),
    List(Vec<usize>),
    /// Keys with their values.
    Map(Vec<(usize, usize)>),
    Alias {
        name: String,
        target: usize,
    },
}

pub(crate) struct RawScalar {
    pub(crate) text: String,
    pub(crate) tag: Option<String>,
    pub(crate) is_plain: bool,
    pub(crate) style: ScalarStyle,
}

/// What is known while a document is parsed.
struct Building {
    anchors: HashMap<String, usize>,
    open: Vec<OpenCollection>,
    escaped_slashes: Vec<u64>,
    /// How long the document is without a line break that we add.
    length: u64,
}

struct OpenCollection {
    index: usize,
    /// In a mapping, the key that waits for its value.
    key: Option<usize>,
}

impl Building {
    /// Whether `\/` could be an escape between these bytes.
    fn has_escaped_slash(&self, between: Range<u64>) -> bool {
        let slashes = &self.escaped_slashes;
        let next = slashes.partition_point(|it| *it < between.start);
        slashes.get(next).is_some_and(|it| *it < between.end)
    }
}

impl Tree {
    /// The tree of a document that is nested no deeper than this.
    pub(crate) fn parse(document: &Document, max_depth: usize) -> Result<Tree, Finding> {
        let text = with_last_break(&document.text);
        let mut input = text.as_bytes();
        let mut parser = Parser::new();
        parser.set_input_string(&mut input);
        let mut tree = Tree::empty(document.lines_before, max_depth);
        let mut building = Building {
            anchors: HashMap::new(),
            open: Vec::new(),
            escaped_slashes: escaped_slashes(&document.text),
            length: document.text.len() as u64,
        };
        loop {
            let event = tree.next_event(&mut parser, document)?;
            match event.data {
                EventData::StreamEnd => return Ok(tree),
                EventData::DocumentEnd { .. } => break,
                EventData::DocumentStart {
                    version_directive: Some(version),
                    ..
                } if version.minor != 1 => {
                    let message = "helm reads only YAML 1.1, and this says that it is another";
                    return Err(tree.problem(event.start_mark, message));
                }
                EventData::StreamStart { .. } | EventData::DocumentStart { .. } => {}
                EventData::SequenceEnd | EventData::MappingEnd => {
                    let closed = building.open.pop().expect("it was opened");
                    tree.nodes[closed.index].end = event.end_mark;
                }
                _ => tree.add(event, &mut building)?,
            }
        }
        tree.dropped = tree.look_behind(&mut parser, document);
        Ok(tree)
    }

    fn empty(lines_before: u32, max_depth: usize) -> Tree {
        Tree {
            max_depth,
            nodes: Vec::new(),
            root: None,
            dropped: None,
            lines_before,
        }
    }

    fn next_event(
        &self,
        parser: &mut Parser<&mut &[u8]>,
        document: &Document,
    ) -> Result<Event, Finding> {
        let Some(event) = next(parser) else {
            let message = "a tag is not followed by a blank, here or soon after";
            return Err(self.problem(self.last_mark(), message));
        };
        event.map_err(|err| self.syntax_problem(document, &err))
    }

    /// Adds the node that an event begins.
    fn add(&mut self, event: Event, building: &mut Building) -> Result<(), Finding> {
        let mark = event.start_mark;
        let end = event.end_mark;
        let index = self.nodes.len();
        let (raw, anchor) = self.raw(event, building)?;
        let is_collection = matches!(raw, Raw::List(_) | Raw::Map(_));
        self.nodes.push(RawNode { raw, mark, end });
        if let Some(anchor) = anchor {
            building.anchors.insert(anchor, index);
        }
        match building.open.last_mut() {
            None => self.root = Some(index),
            Some(collection) => self.put(index, collection),
        }
        if is_collection {
            building.open.push(OpenCollection { index, key: None });
        }
        if building.open.len() > self.max_depth {
            return Err(self.too_deep(mark));
        }
        Ok(())
    }

    fn too_deep(&self, mark: Mark) -> Finding {
        let message = format!("nested deeper than {} levels", self.max_depth);
        Finding {
            rule: "too-deep",
            ..self.problem(mark, message)
        }
    }

    /// The node that an event begins, still empty if it is a collection, and its anchor.
    fn raw(&self, event: Event, building: &Building) -> Result<(Raw, Option<String>), Finding> {
        let mark = event.start_mark;
        match event.data {
            EventData::Alias { anchor: name } => Ok((self.alias(name, mark, building)?, None)),
            EventData::Scalar {
                anchor,
                tag,
                value: mut text,
                plain_implicit: is_plain,
                style,
                ..
            } => {
                if style == ScalarStyle::DoubleQuoted
                    && building.has_escaped_slash(mark.index..event.end_mark.index)
                {
                    let message = "helm does not know the escape `\\/` in this text";
                    return Err(self.problem(mark, message));
                }
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if is_block && event.end_mark.index > building.length && text.ends_with('\n') {
                    text.pop();
                }
                let scalar = RawScalar {
                    text,
                    tag,
                    is_plain,
                    style,
                };
                Ok((Raw::Scalar(scalar), anchor))
            }
            EventData::SequenceStart { anchor, .. } => Ok((Raw::List(Vec::new()), anchor)),
            EventData::MappingStart { anchor, .. } => Ok((Raw::Map(Vec::new()), anchor)),
            _ => unreachable!("other events begin no node"),
        }
    }

    fn alias(&self, name: String, mark: Mark, building: &Building) -> Result<Raw, Finding> {
        let Some(&target) = building.anchors.get(&name) else {
            let message = format!("there is no anchor `&{name}` before this alias");
            return Err(self.problem(mark, message));
        };
        Ok(Raw::Alias { name, target })
    }

    /// Puts a node into the innermost open collection.
    fn put(&mut self, index: usize, collection: &mut OpenCollection) {
        match &mut self.nodes[collection.index].raw {
            Raw::List(items) => items.push(index),
            Raw::Map(entries) => match collection.key.take() {
                Some(key) => entries.push((key, index)),
                None => collection.key = Some(index),
            },
            _ => unreachable!("only collections are open"),
        }
    }

    /// helm reads the first node of a document and drops what follows.
    fn look_behind(&self, parser: &mut Parser<&mut &[u8]>, document: &Document) -> Option<Finding> {
        let at = match next(parser) {
            Some(Ok(event)) if event.data == EventData::StreamEnd => return None,
            Some(Ok(event)) => self.problem(event.start_mark, ""),
            Some(Err(err)) => self.syntax_problem(document, &err),
            None => self.problem(self.last_mark(), ""),
        };
        let message = "helm silently ignores everything from here on: the lines before are \
                       indented differently, or have ended the document";
        Some(Finding {
            rule: "dropped-content",
            message: message.to_owned(),
            ..at
        })
    }

    fn syntax_problem(&self, document: &Document, err: &Error) -> Finding {
        if let Some(mistake) = mistakes::find(&document.text, err) {
            let line = self.lines_before + mistake.line as u32 + 1;
            let column = mistake.column as u32 + 1;
            let at = Place {
                file: 0,
                line,
                column,
            };
            return Finding::problem("yaml", Some(at), mistake.message);
        }
        let problem = err.problem();
        let Some(mark) = err.problem_mark() else {
            // The parser's reader knows no lines: it stops at the first character that YAML does not allow.
            return Finding::problem("yaml", Some(first_not_allowed(document)), problem);
        };
        match err.context() {
            Some(context) => self.problem(mark, format!("{problem} {context}")),
            None => self.problem(mark, problem),
        }
    }

    /// A problem at a node.
    pub(crate) fn problem_at(&self, index: usize, message: impl Into<String>) -> Finding {
        self.problem(self.nodes[index].mark, message)
    }

    fn problem(&self, mark: Mark, message: impl Into<String>) -> Finding {
        Finding::problem("yaml", Some(self.place_of(mark, 0)), message)
    }

    /// The place of a node in the file of this number.
    pub(crate) fn place(&self, index: usize, file: u32) -> Place {
        self.place_of(self.nodes[index].mark, file)
    }

    fn place_of(&self, mark: Mark, file: u32) -> Place {
        Place {
            file,
            line: self.lines_before + mark.line as u32 + 1,
            column: mark.column as u32 + 1,
        }
    }

    fn last_mark(&self) -> Mark {
        self.nodes.last().map(|it| it.mark).unwrap_or_default()
    }
}

/// libyaml-safer 0.3 panics at the end of a block scalar in a last line that has no end. Go's parser doesn't.
fn with_last_break(text: &str) -> Cow<'_, str> {
    if text.ends_with(['\n', '\r']) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{text}\n"))
    }
}

/// The parser's next event. None where libyaml-safer 0.3 panics, which it does for a tag before a comma (`[!!str, x]`);
/// Go refuses that.
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

/// Where `\/` could be an escape, in bytes from the beginning, as the parser counts: YAML 1.2 has it in double-quoted scalars, and Go's
/// parser of YAML 1.1 does not.
fn escaped_slashes(text: &str) -> Vec<u64> {
    let mut found = Vec::new();
    if !text.contains("\\/") {
        return found;
    }
    let mut is_escaped = false;
    for (index, char) in text.char_indices() {
        if is_escaped && char == '/' {
            found.push(index as u64);
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    found
}

/// The line of the first character that YAML does not allow.
fn first_not_allowed(document: &Document) -> Place {
    let mut lines = document.text.lines();
    let line = lines.position(|it| !it.chars().all(is_allowed));
    Place {
        file: 0,
        line: document.lines_before + line.unwrap_or(0) as u32 + 1,
        column: 1,
    }
}

/// Whether YAML 1.1 allows this character in a stream.
fn is_allowed(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' | '\u{85}' | '\u{feff}' => true,
        ' '..='~' | '\u{a0}'..='\u{d7ff}' => true,
        _ => char >= '\u{e000}' && char != '\u{fffe}' && char != '\u{ffff}',
    }
}
