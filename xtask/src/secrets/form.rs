//! The forms in which sops writes encrypted files: what can be read of each without a key.

use std::path::Path;

use crate::{
    secrets::decrypted::ENCRYPTED,
    yaml::{self, Data, Finding, Node, Place},
};

/// By the names that sops has for its stores.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Yaml,
    Json,
    /// One text as a whole, in JSON with the only key `data`.
    Binary,
    Dotenv,
    Ini,
}

impl Form {
    /// As `--input-type` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Yaml => "yaml",
            Form::Json => "json",
            Form::Binary => "binary",
            Form::Dotenv => "dotenv",
            Form::Ini => "ini",
        }
    }

    /// Whether the file is neither YAML nor JSON, and holds nothing but texts.
    pub(crate) fn is_flat(self) -> bool {
        matches!(self, Form::Dotenv | Form::Ini)
    }

    /// Whether the file has the keys that its values have once it is decrypted.
    pub(crate) fn has_keys(self) -> bool {
        matches!(self, Form::Yaml | Form::Json)
    }
}

/// The rule of what keeps an encrypted file from being read.
pub(crate) const BROKEN: &str = "broken-encrypted";

/// What a file holds.
pub(crate) enum Content {
    Plain(Node, Vec<Finding>),
    Encrypted(Encrypted),
}

/// A file with a `sops` block.
pub(crate) struct Encrypted {
    pub(crate) form: Form,
    /// Without the `sops` block.
    pub(crate) values: Node,
    pub(crate) sops: Node,
    /// Why sops would not decrypt it.
    pub(crate) faults: Vec<Finding>,
    /// What helm would not mention if these were values.
    pub(crate) findings: Vec<Finding>,
}

/// Reads a file, which may be encrypted. The error is what neither helm nor sops takes.
pub(crate) fn read(file: &Path, content: &[u8], number: u32) -> Result<Content, Finding> {
    let text = str::from_utf8(content).unwrap_or_default();
    if let Some(conflict) = yaml::merge_conflict(text) {
        return Err(broken(text, conflict, MERGED));
    }
    if text.lines().any(|it| it.trim_end() == "[sops]") {
        return Ok(Content::Encrypted(ini(text, number)));
    }
    if text.lines().any(is_of_sops) {
        return Ok(Content::Encrypted(dotenv(text, number)));
    }
    let read = yaml::read(content, number).map_err(|it| broken(text, it, NOT_YAML));
    let (mut values, mut findings) = read?;
    let Some(sops) = take_sops(&mut values) else {
        return Ok(Content::Plain(values, findings));
    };
    let form = if !content.trim_ascii_start().starts_with(b"{") {
        Form::Yaml
    } else if is_named_for_keys(file) || !is_one_text(&values) {
        Form::Json
    } else {
        Form::Binary
    };
    let is_fault = |it: &mut Finding| form == Form::Yaml && it.rule == "duplicate-key";
    let twice = findings.extract_if(.., is_fault);
    let faults = twice.map(|it| Finding {
        message: "this key is set twice in its mapping, and sops decrypts no such file".to_owned(),
        ..it
    });
    Ok(Content::Encrypted(Encrypted {
        form,
        values,
        sops,
        faults: faults.collect(),
        findings,
    }))
}

/// sops signs all of a file, so that two versions of it cannot be joined.
const MERGED: &str = "this line is left from a merge in git, and what sops encrypted cannot be merged by hand: take one version \
                      whole (`git checkout --ours` or `--theirs`), and make the change of the other with `sops edit`";

const NOT_YAML: &str = "sops encrypted this file, and from here on it is not YAML any more: restore the version that sops wrote, \
                        and make the change with `sops edit`";

/// The same finding, in other words if sops encrypted the text: the parser's may quote it.
fn broken(text: &str, finding: Finding, message: &str) -> Finding {
    if !text.contains(ENCRYPTED) {
        return finding;
    }
    Finding {
        rule: BROKEN,
        message: message.to_owned(),
        ..finding
    }
}

impl Encrypted {
    /// The same file as a key or kubeconfig, none of which consists of a key `data`.
    pub(crate) fn for_key(mut self) -> Encrypted {
        if self.form == Form::Json && is_one_text(&self.values) {
            self.form = Form::Binary;
        }
        self
    }
}

/// Whether this is a line of sops's own in its dotenv form.
fn is_of_sops(line: &str) -> bool {
    line.starts_with("sops_mac=") || line.starts_with("sops_version=")
}

fn take_sops(values: &mut Node) -> Option<Node> {
    let Data::Map(map) = &mut values.data else {
        return None;
    };
    map.get("sops")?.as_map()?;
    map.remove("sops")
}

/// Whether sops takes a file of this name for YAML or JSON.
fn is_named_for_keys(file: &Path) -> bool {
    let name = file.to_string_lossy();
    [".yaml", ".yml", ".json"]
        .iter()
        .any(|it| name.ends_with(it))
}

fn is_one_text(values: &Node) -> bool {
    let keys = values.as_map().map_or(0, |it| it.len());
    keys == 1 && values.text(&["data"]).is_some()
}

/// Lines `KEY=value`; those of sops itself are called `sops_…`.
fn dotenv(text: &str, number: u32) -> Encrypted {
    let mut faults = Vec::new();
    if text.contains('\r') {
        let message =
            "the lines of this file end in CR LF, and sops decrypts its dotenv form only with LF";
        faults.push(Finding::problem("not-encrypted", None, message));
    }
    let mut values = Node::nowhere(Data::empty_map());
    let mut sops = Node::nowhere(Data::empty_map());
    for (at, line) in lines(text, number) {
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        match key.strip_prefix("sops_") {
            Some(key) => put(&mut sops, &flattened(key), value, at),
            None => put(&mut values, &[Step::Key(key)], value, at),
        }
    }
    Encrypted {
        form: Form::Dotenv,
        values,
        sops,
        faults,
        findings: Vec::new(),
    }
}

/// Sections with lines `key = value`; that of sops itself is called `[sops]`.
fn ini(text: &str, number: u32) -> Encrypted {
    let mut values = Node::nowhere(Data::empty_map());
    let mut sops = Node::nowhere(Data::empty_map());
    let mut section = "DEFAULT";
    let mut is_inside_text = false;
    for (at, line) in lines(text, number) {
        let line = line.trim();
        if is_inside_text {
            is_inside_text = !line.ends_with(LONG_TEXT);
        } else if line.starts_with(['#', ';']) {
        } else if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim();
            let value = value.trim();
            let long = value.strip_prefix(LONG_TEXT);
            is_inside_text = long.is_some_and(|it| !it.ends_with(LONG_TEXT));
            let value = value.trim_matches(['"', '`']);
            if section == "sops" {
                put(&mut sops, &flattened(key), value, at);
            } else {
                let steps = [Step::Key(section), Step::Key(key)];
                put(&mut values, &steps, value, at);
            }
        }
    }
    Encrypted {
        form: Form::Ini,
        values,
        sops,
        faults: Vec::new(),
        findings: Vec::new(),
    }
}

/// Before and after a text of several lines.
const LONG_TEXT: &str = "\"\"\"";

fn lines(text: &str, file: u32) -> impl Iterator<Item = (Place, &str)> {
    (1..).zip(text.lines()).map(move |(line, text)| {
        let at = Place {
            file,
            line,
            column: 1,
        };
        (at, text)
    })
}

/// A step into a value.
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

/// More keys than any file is encrypted for.
const MOST_ITEMS: usize = 1000;

/// The steps in a key of a flat file: `age__list_0__map_recipient`.
fn flattened(key: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in key.split("__map_") {
        let mut items = part.split("__list_");
        steps.extend(items.next().map(Step::Key));
        let items = items.filter_map(|it| it.parse().ok());
        steps.extend(items.filter(|it| *it < MOST_ITEMS).map(Step::Item));
    }
    steps
}

/// Puts a text where the steps lead.
fn put(mut node: &mut Node, steps: &[Step], text: &str, at: Place) {
    for step in steps {
        node = match step {
            Step::Key(key) => value_of_key(node, key),
            Step::Item(index) => item(node, *index),
        };
        node.at = node.at.or(Some(at));
        node.key_at = node.at;
    }
    node.data = Data::Text(text.into());
}

/// The value of a key in a node, which becomes a map.
fn value_of_key<'a>(node: &'a mut Node, key: &str) -> &'a mut Node {
    if node.as_map().is_none() {
        node.data = Data::empty_map();
    }
    let Data::Map(map) = &mut node.data else {
        unreachable!("it is a map by now")
    };
    map.entry(key.into())
        .or_insert_with(|| Node::nowhere(Data::Null))
}

/// An item of a node, which becomes a list that is long enough.
fn item(node: &mut Node, index: usize) -> &mut Node {
    if node.as_list().is_none() {
        node.data = Data::List(Vec::new());
    }
    let Data::List(items) = &mut node.data else {
        unreachable!("it is a list by now")
    };
    let length = items.len().max(index + 1);
    items.resize(length, Node::nowhere(Data::Null));
    &mut items[index]
}
