//! Whether all that a file's own rules want encrypted is what sops writes. What calls itself encrypted may have been
//! changed by hand since.

use regex::Regex;

use crate::{
    schema::pattern,
    secrets::{ENCRYPTED, encrypted_type},
    yaml::{Data, Finding, Node, Place},
};

/// The rule of all findings here.
const NOT_ENCRYPTED: &str = "not-encrypted";

/// What kinds of keys a `sops` block lists, of which it needs one.
const KEYS: [&str; 8] = [
    "age",
    "azure_kv",
    "gcp_kms",
    "hc_vault",
    "hckms",
    "key_groups",
    "kms",
    "pgp",
];

/// What of a file's values is not as its `sops` block says. No finding quotes a value. In a file that is called secret,
/// something has to be encrypted.
pub(crate) fn check(
    values: &Node,
    sops: &Node,
    content: &[u8],
    is_called_secret: bool,
) -> Vec<Finding> {
    let rules = match Rules::read(sops) {
        Ok(rules) => rules,
        Err(why) => return vec![Finding::problem(NOT_ENCRYPTED, values.at, why)],
    };
    let text = String::from_utf8_lossy(content);
    let mut check = Check {
        rules,
        lines: text.lines().collect(),
        encrypted: 0,
        plain: 0,
        findings: Vec::new(),
    };
    check.node(values, &mut Vec::new(), &mut Vec::new());
    if is_called_secret && check.encrypted == 0 && check.plain > 0 {
        let message = "this is called secret, and by its `sops` block nothing in it is encrypted";
        let finding = Finding::problem(NOT_ENCRYPTED, values.at, message);
        check.findings.push(finding);
    }
    check.findings
}

/// Values of a file that is not encrypted, but that were taken from one that is: helm would deploy them as they are. Where
/// jsonnet made them, no places tell which ones they are.
pub(crate) fn stray(values: &Node, is_made: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    values.visit_texts(&mut Vec::new(), &mut |path, text, at| {
        if text.contains(ENCRYPTED) {
            let whole = is_made.then(|| format!("`{}`", path.join(".")));
            let name = whole.unwrap_or_else(|| "this".to_owned());
            let message = format!("{name} was encrypted by sops, and the file has no `sops` block: nothing would decrypt it");
            findings.push(Finding::problem(NOT_ENCRYPTED, at, message));
        }
    });
    findings
}

/// Which values sops encrypts: <https://getsops.io/docs/#encrypting-only-parts-of-a-file>
struct Rules {
    /// Whether what the rule below names is encrypted, and nothing else; or everything else.
    names_encrypted: bool,
    rule: Rule,
}

enum Rule {
    /// Of a key.
    Suffix(String),
    /// Of a key.
    Regex(Regex),
    /// Of a comment above.
    Comment(Regex),
}

impl Rules {
    /// The error says why this is no block that sops writes.
    fn read(sops: &Node) -> Result<Rules, String> {
        let mac = sops.text(&["mac"]).and_then(encrypted_type);
        let has_keys = KEYS.iter().any(|key| {
            let keys = sops.get(&[key]).and_then(Node::as_list);
            keys.is_some_and(|it| !it.is_empty())
        });
        if mac.is_none() || !has_keys {
            return Err(
                "its `sops` block is none that sops writes: it lacks a `mac` or a key. Nothing in this file counts as \
                 encrypted; if a secret was ever committed in it, replace that where it came from"
                    .to_owned(),
            );
        }
        let mut found = Vec::new();
        for (key, names_encrypted) in [
            ("unencrypted_suffix", false),
            ("encrypted_suffix", true),
            ("unencrypted_regex", false),
            ("encrypted_regex", true),
            ("unencrypted_comment_regex", false),
            ("encrypted_comment_regex", true),
        ] {
            if let Some(text) = sops.text(&[key]).filter(|it| !it.is_empty()) {
                let rule = Rule::read(key, text)?;
                found.push(Rules {
                    names_encrypted,
                    rule,
                });
            }
        }
        if found.len() > 1 {
            return Err("its `sops` block has more than one rule of what is encrypted".to_owned());
        }
        Ok(found.pop().unwrap_or(Rules {
            names_encrypted: false,
            rule: Rule::Suffix("_unencrypted".to_owned()),
        }))
    }

    /// Whether sops encrypts a value at this path of keys, with these comments above it and above the maps that it is in.
    fn want_encrypted(&self, path: &[&str], comments: &[String]) -> bool {
        let is_named = match &self.rule {
            Rule::Suffix(suffix) => path.iter().any(|it| it.ends_with(suffix)),
            Rule::Regex(regex) => path.iter().any(|it| regex.is_match(it)),
            Rule::Comment(regex) => comments.iter().any(|it| regex.is_match(it)),
        };
        is_named == self.names_encrypted
    }
}

impl Rule {
    fn read(key: &str, text: &str) -> Result<Rule, String> {
        if key.ends_with("suffix") {
            return Ok(Rule::Suffix(text.to_owned()));
        }
        let regex = pattern::to_rust(text)
            .and_then(|it| Regex::new(&it).map_err(|err| err.to_string()))
            .map_err(|why| format!("`{key}` of its `sops` block: {why}"))?;
        if key.contains("comment") {
            Ok(Rule::Comment(regex))
        } else {
            Ok(Rule::Regex(regex))
        }
    }
}

struct Check<'a> {
    rules: Rules,
    /// The file's lines, for the comments in them.
    lines: Vec<&'a str>,
    /// How many values are encrypted, and how many are not.
    encrypted: u32,
    plain: u32,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// Checks a value at this path of keys, with these comments above.
    fn node<'a>(&mut self, node: &'a Node, path: &mut Vec<&'a str>, comments: &mut Vec<String>) {
        match &node.data {
            Data::Map(map) => {
                for (key, value) in map {
                    let above = comments.len();
                    comments.extend(self.comments_above(value.key_at.or(value.at)));
                    path.push(key);
                    self.node(value, path, comments);
                    path.pop();
                    comments.truncate(above);
                }
            }
            Data::List(items) => {
                for item in items {
                    let above = comments.len();
                    comments.extend(self.comments_above(item.at));
                    self.node(item, path, comments);
                    comments.truncate(above);
                }
            }
            Data::Null => {}
            // sops leaves an empty text as it is.
            Data::Text(text) if text.is_empty() => {}
            _ => self.leaf(node, path, comments),
        }
    }

    fn leaf(&mut self, node: &Node, path: &[&str], comments: &[String]) {
        let is_encrypted = node.as_text().and_then(encrypted_type).is_some();
        if is_encrypted {
            self.encrypted += 1;
        } else {
            self.plain += 1;
        }
        let is_wanted = self.rules.want_encrypted(path, comments);
        let shown = path.join(".");
        let message = match (is_encrypted, is_wanted) {
            (true, true) | (false, false) => return,
            (false, true) => format!(
                "`{shown}` is not encrypted, though the `sops` block of this file wants it to be. If it was ever committed or \
                 shared, take it as leaked and replace it where it came from; `sops edit` takes the new one"
            ),
            (true, false) => format!(
                "`{shown}` is encrypted, but by the `sops` block of this file sops would not decrypt it"
            ),
        };
        self.findings
            .push(Finding::problem(NOT_ENCRYPTED, node.at, message));
    }

    /// The comments in the lines before a place, and in its own line.
    fn comments_above(&self, at: Option<Place>) -> Vec<String> {
        let (Rule::Comment(_), Some(at)) = (&self.rules.rule, at) else {
            return Vec::new();
        };
        let line = at.line as usize;
        let before = self.lines[..line.saturating_sub(1).min(self.lines.len())].iter();
        let above = before
            .rev()
            .map_while(|it| it.trim_start().strip_prefix('#'));
        let own = self.lines.get(line - 1).and_then(|it| it.split_once(" #"));
        let own = own.map(|(_, comment)| comment);
        above.chain(own).map(str::to_owned).collect()
    }
}
