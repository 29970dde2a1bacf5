//! Why YAML is refused, or isn't what it seems, in the words of the mistake.

use libyaml_safer::{Error, Mark};

/// What is wrong in a text that the parser refuses, and where: the number of the line, from 0, and of the column.
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

impl Mistake {
    fn new(line: usize, column: usize, message: impl Into<String>) -> Mistake {
        Mistake {
            line,
            column,
            message: message.into(),
        }
    }
}

/// The mistake behind an error of the parser, if it is a known one.
pub(crate) fn find(text: &str, err: &Error) -> Option<Mistake> {
    let lines: Vec<_> = text.lines().collect();
    if let Some(line) = lines.iter().position(|it| is_of_merge(it)) {
        return Some(Mistake::new(line, 0, OF_MERGE));
    }
    let mark = err.problem_mark()?;
    let at = (mark.line as usize).min(lines.len().saturating_sub(1));
    let line = lines.get(at)?;
    wrong_indentation(line)
        .map(|(column, message)| Mistake::new(at, column, message))
        .or_else(|| unclosed_quote(err))
        .or_else(|| without_blank(&lines, at))
        .or_else(|| second_value(&lines, at, &mark, err.problem()))
        .or_else(|| reserved(line, at, &mark))
}

pub(crate) const OF_MERGE: &str = "this line is left from a merge in git: keep what is meant, and delete the lines with \
                                   `<<<<<<<`, `=======` and `>>>>>>>`";

/// The line, from 0, in which a conflict begins or ends that git left in a text. Some of these texts are YAML.
pub(crate) fn line_of_merge(text: &str) -> Option<usize> {
    let ends = ["<<<<<<< ", ">>>>>>> "];
    text.lines()
        .position(|line| ends.iter().any(|it| line.starts_with(it)))
}

fn is_of_merge(line: &str) -> bool {
    line_of_merge(line).is_some() || line.starts_with("||||||| ") || line == "======="
}

/// The first character of the indentation that is no blank.
fn wrong_indentation(line: &str) -> Option<(usize, String)> {
    let column = line.chars().position(|it| it != ' ')?;
    let name = match line.chars().nth(column)? {
        '\t' => "a tab".to_owned(),
        char if char.is_whitespace() => format!("the character U+{:04X}", u32::from(char)),
        _ => return None,
    };
    Some((
        column,
        format!("this line is indented with {name}: YAML takes only blanks"),
    ))
}

fn unclosed_quote(err: &Error) -> Option<Mistake> {
    let is_quoted = err.context() == Some("while scanning a quoted scalar");
    let mark = err.context_mark().filter(|_| is_quoted)?;
    let message = "this quotation mark is never closed";
    Some(Mistake::new(
        mark.line as usize,
        mark.column as usize,
        message,
    ))
}

/// A line like `key:value`, here or before, which is a text and no key with its value.
fn without_blank(lines: &[&str], at: usize) -> Option<Mistake> {
    let before = (0..=at)
        .rev()
        .filter(|it| !lines[*it].trim().is_empty())
        .take(2);
    for index in before {
        let line = lines[index]
            .trim_start()
            .trim_start_matches("- ")
            .trim_start();
        if let Some(key) = key_without_blank(line) {
            let column = lines[index].chars().count() - line.chars().count();
            return Some(Mistake::new(index, column, no_blank(key)));
        }
    }
    None
}

pub(crate) fn no_blank(key: &str) -> String {
    format!("there is no blank behind the colon of `{key}:`, so this is no key")
}

/// The key in `key:value`, which YAML takes for a text.
pub(crate) fn key_without_blank(text: &str) -> Option<&str> {
    let (key, value) = text.split_once(':')?;
    let is_key = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
    let is_named = key.starts_with(|it: char| it.is_ascii_alphabetic()) && key.chars().all(is_key);
    let is_text = !value.is_empty() && !value.starts_with([' ', '/', ':']) && !value.contains(": ");
    (is_named && is_text).then_some(key)
}

/// `mapping values are not allowed`: a second `: ` on the line, or a line that is indented below a value.
fn second_value(lines: &[&str], at: usize, mark: &Mark, problem: &str) -> Option<Mistake> {
    let line = lines[at];
    let indented = line.len() - line.trim_start().len();
    if problem == "did not find expected key" {
        let before: String = line.chars().take(mark.column as usize).collect();
        let message = if before.trim().is_empty() {
            "the indentation of this line fits none of the lines above"
        } else if before.ends_with(['\'', '"']) {
            "the text ended at the quotation mark before this: inside of the text, write it as `''` or `\\\"`"
        } else {
            return None;
        };
        return Some(Mistake::new(at, mark.column as usize, message));
    }
    if !problem.starts_with("mapping values are not allowed") {
        return None;
    }
    if line.chars().take(mark.column as usize).any(|it| it == ':') {
        let message = "a second `: ` in this line: quote the value if this is part of it";
        return Some(Mistake::new(at, mark.column as usize, message));
    }
    let message = "this line is indented deeper than the key before it, which has a value already";
    let above = lines[..at].iter().rev().find(|it| !it.trim().is_empty())?;
    let is_deeper = indented > above.len() - above.trim_start().len();
    is_deeper.then(|| Mistake::new(at, indented, message))
}

/// A character that no plain text can begin with.
fn reserved(line: &str, at: usize, mark: &Mark) -> Option<Mistake> {
    let char = line.chars().nth(mark.column as usize)?;
    let message = format!("a text that begins with `{char}` has to be quoted");
    let is_reserved = ['@', '`', '%'].contains(&char);
    is_reserved.then(|| Mistake::new(at, mark.column as usize, message))
}

/// A warning about a plain text that helm takes as it is, and that somebody meant otherwise.
pub(crate) fn not_as_meant(text: &str) -> Option<String> {
    let marks = ['“', '”', '„', '‘', '’', '‚'];
    if text.starts_with(marks) && text.ends_with(marks) {
        let message = "typographic quotation marks are part of the text for helm: use `\"` or `'`";
        return Some(message.to_owned());
    }
    if text.starts_with('\u{a0}') {
        return Some("this begins with a no-break space, which is part of it for helm".to_owned());
    }
    None
}
