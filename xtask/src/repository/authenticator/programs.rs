//! What the programs in a hub's values may set: Python in `hub.extraConfig` and `hub.extraFiles`, which JupyterHub runs
//! after it has read `hub.config`. They are never run here.

use std::{iter::Peekable, str::Chars};

use crate::yaml::{Data, Node};

/// The programs of one hub.
pub(crate) struct Programs {
    programs: Vec<Vec<Token>>,
    /// Whether some aren't in the values: they are encrypted, or come from a volume.
    some_are_elsewhere: bool,
}

/// A piece of a Python program, without comments.
#[derive(PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Sign(char),
}

/// Where JupyterHub looks for programs.
const FOLDER: &str = "/usr/local/etc/jupyterhub";

impl Programs {
    /// Those of JupyterHub's `hub` values, and those that it mounts from what the charts' templates make.
    pub(crate) fn find(hub: &Node, templates: impl FnOnce() -> Vec<String>) -> Programs {
        let mut found = Programs::in_values(hub);
        found.some_are_elsewhere |= has_other_sources(hub);
        let mounted: Vec<_> = mounts(hub).filter_map(mounted_program).collect();
        if !mounted.is_empty() {
            let templates = templates();
            mounted
                .into_iter()
                .for_each(|it| found.add_mounted(it, &templates));
        }
        found
    }

    /// Those whose text is in JupyterHub's `hub` values.
    pub(crate) fn in_values(hub: &Node) -> Programs {
        let mut found = Programs {
            programs: Vec::new(),
            some_are_elsewhere: false,
        };
        if let Some(extra) = hub.get(&["extraConfig"]) {
            found.add(extra);
        }
        let files = hub.get(&["extraFiles"]).and_then(Node::as_map);
        let files = files.into_iter().flat_map(|it| it.values());
        for file in files.filter(|it| is_python(it)) {
            found.add(file);
            found.some_are_elsewhere |= file.get(&["binaryData"]).is_some();
        }
        found
    }

    fn add(&mut self, program: &Node) {
        program.visit(&mut |node| match &node.data {
            Data::Text(text) => self.programs.push(tokens(text)),
            Data::Encrypted(_) => self.some_are_elsewhere = true,
            _ => {}
        });
    }

    /// Adds what the templates have that name this file.
    fn add_mounted(&mut self, name: &str, templates: &[String]) {
        let named: Vec<_> = templates.iter().filter(|it| it.contains(name)).collect();
        let is_there = !named.is_empty() && named.iter().all(|it| !it.contains(".Files"));
        self.some_are_elsewhere |= !is_there;
        self.programs.extend(named.into_iter().map(|it| tokens(it)));
    }

    /// Whether one of them may say how people log in.
    pub(crate) fn may_set_class(&self) -> bool {
        self.some_are_elsewhere || self.set_class()
    }

    /// Whether one of them says how people log in.
    pub(crate) fn set_class(&self) -> bool {
        self.programs.iter().any(|it| sets_class(it))
    }

    /// Whether one of them has to do with this setting of an authenticator, or with the function that decides by it.
    pub(crate) fn may_set(&self, setting: &str) -> bool {
        self.programs.iter().any(|program| {
            let names = [setting, "check_allowed", "check_blocked_users"];
            is_about_authenticators(program) && names.iter().any(|it| mentions(program, it))
        })
    }

    /// Whether one of them has to do with any setting of an authenticator.
    pub(crate) fn are_about_authenticators(&self) -> bool {
        self.programs.iter().any(|it| is_about_authenticators(it))
    }
}

/// Whether a file of the hub is a program, or a part of one.
fn is_python(file: &Node) -> bool {
    let path = file.text(&["mountPath"]);
    path.is_some_and(|it| it.ends_with(".py"))
}

/// Whether a hub has settings that aren't in its values.
fn has_other_sources(hub: &Node) -> bool {
    let ways = ["existingSecret", "command", "args"];
    let is_started_otherwise = ways
        .iter()
        .any(|way| hub.get(&[way]).is_some_and(|it| !it.is_falsy()));
    let mut paths = mounts(hub).filter_map(|it| it.text(&["mountPath"]));
    is_started_otherwise || paths.any(is_of_configuration)
}

fn mounts(hub: &Node) -> impl Iterator<Item = &Node> {
    let mounts = hub.get(&["extraVolumeMounts"]).and_then(Node::as_list);
    mounts.into_iter().flatten()
}

/// The name that the program of a mount has in its volume.
fn mounted_program(mount: &Node) -> Option<&str> {
    let path = mount.text(&["mountPath"])?;
    let below = path.strip_prefix(FOLDER)?;
    let name = below.strip_prefix("/jupyterhub_config.d/")?;
    Some(mount.text(&["subPath"]).unwrap_or(name)).filter(|it| !it.is_empty())
}

/// Whether what is mounted here takes the place of JupyterHub's whole configuration, or of a folder of it.
fn is_of_configuration(path: &str) -> bool {
    let below = path.trim_end_matches('/').strip_prefix(FOLDER);
    below.is_some_and(|it| ["", "/jupyterhub_config.py", "/jupyterhub_config.d"].contains(&it))
}

fn is_about_authenticators(program: &[Token]) -> bool {
    program.iter().any(|it| match it {
        Token::Name(name) | Token::Text(name) => name.ends_with("Authenticator"),
        Token::Sign(_) => false,
    })
}

/// Whether a program has this as an attribute or as a key.
fn mentions(program: &[Token], name: &str) -> bool {
    let mut before = None;
    program.iter().any(|token| {
        let found = match token {
            Token::Name(it) => it == name && before == Some(&Token::Sign('.')),
            Token::Text(it) => it == name,
            Token::Sign(_) => false,
        };
        before = Some(token);
        found
    })
}

/// Whether a program assigns `authenticator_class`, and doesn't only look at it, or runs another program.
fn sets_class(program: &[Token]) -> bool {
    (0..program.len()).any(|at| match &program[at] {
        Token::Name(name) => match name.as_str() {
            "authenticator_class" => is_assigned(&program[at + 1..]),
            "exec" | "load_subconfig" => program.get(at + 1) == Some(&Token::Sign('(')),
            _ => false,
        },
        Token::Text(text) => text == "authenticator_class" && is_given(&program[at + 1..]),
        Token::Sign(_) => false,
    })
}

/// Whether a name is assigned, by what follows it.
fn is_assigned(rest: &[Token]) -> bool {
    rest.first() == Some(&Token::Sign('=')) && rest.get(1) != Some(&Token::Sign('='))
}

/// Whether a key is given a value, by what follows it: `["key"] = …`, `{"key": …}`, `setattr(…, "key", …)`.
fn is_given(rest: &[Token]) -> bool {
    match rest.first() {
        Some(Token::Sign(']')) => is_assigned(&rest[1..]),
        Some(Token::Sign(sign)) => [':', ','].contains(sign),
        _ => false,
    }
}

/// Splits a program. What isn't Python gives some tokens as well.
fn tokens(program: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = program.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '#' => _ = rest.by_ref().find(|it| *it == '\n'),
            '"' | '\'' => tokens.push(Token::Text(text(next, &mut rest))),
            _ if is_of_name(next) => tokens.push(Token::Name(name(next, &mut rest))),
            _ if next.is_whitespace() || next == '\\' => {}
            _ => tokens.push(Token::Sign(next)),
        }
    }
    tokens
}

fn is_of_name(next: char) -> bool {
    next.is_alphanumeric() || next == '_'
}

fn name(first: char, rest: &mut Peekable<Chars>) -> String {
    let mut name = first.to_string();
    while let Some(next) = rest.next_if(|it| is_of_name(*it)) {
        name.push(next);
    }
    name
}

/// The text after a quote, up to the same quote, or to three of them.
fn text(quote: char, rest: &mut Peekable<Chars>) -> String {
    let mut length = 1;
    if rest.next_if_eq(&quote).is_some() {
        if rest.next_if_eq(&quote).is_none() {
            return String::new();
        }
        length = 3;
    }
    let mut text = String::new();
    let mut quotes = 0;
    while let Some(next) = rest.next() {
        text.push(next);
        quotes = if next == quote { quotes + 1 } else { 0 };
        if next == '\\' {
            text.extend(rest.next());
        } else if quotes == length {
            text.truncate(text.len() - length);
            return text;
        }
    }
    text
}
