//! Secrets that somebody wrote down in plain text, known by their form.

/// Keys by the words that their issuer begins all of them with, how many letters and digits follow at least, and what
/// they are.
const KEYS: &[(&str, usize, &str)] = &[
    ("AGE-SECRET-KEY-1", 58, "a private age key"),
    ("AIza", 35, "a key of Google's APIs"),
    ("AKIA", 16, "an access key of AWS"),
    ("ASIA", 16, "an access key of AWS"),
    ("GOCSPX-", 28, "a client's secret of Google"),
    ("ghp_", 36, "a token of GitHub"),
    ("gho_", 36, "a token of GitHub"),
    ("ghs_", 36, "a token of GitHub"),
    ("github_pat_", 22, "a token of GitHub"),
    ("glpat-", 20, "a token of GitLab"),
    ("xoxb-", 24, "a token of Slack"),
];

/// What kind of key is in a text, if there is one.
pub(crate) fn kind_of_secret(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    KEYS.iter()
        .find(|(start, length, _)| has_key(text, start, *length))
        .map(|(_, _, kind)| *kind)
}

fn has_key(text: &str, start: &str, length: usize) -> bool {
    text.match_indices(start).any(|(at, _)| {
        let is_word_begin = !text[..at].ends_with(is_part);
        let rest = text[at + start.len()..].chars();
        is_word_begin && rest.take_while(|it| is_part(*it)).count() >= length
    })
}

fn is_part(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == '-'
}
