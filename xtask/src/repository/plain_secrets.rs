//! Secrets that somebody wrote down in plain text, known by their form or by what they are called.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Tokens and keys as their makers define them, and what they are. A letter or digit more makes something else of a text.
const FORMS: &[(&str, &str)] = &[
    // https://age-encryption.org/v1: Bech32 of 32 bytes
    ("AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}", "a private age key"),
    // https://cloud.google.com/docs/authentication/api-keys
    ("AIza[0-9A-Za-z_-]{35}", "a key of Google's APIs"),
    ("GOCSPX-[0-9A-Za-z_-]{28}", "a client's secret of Google"),
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids: in base32
    ("(?:AKIA|ASIA)[A-Z2-7]{16}", "an access key of AWS"),
    // https://github.blog/engineering/behind-githubs-new-authentication-token-formats
    ("gh[oprsu]_[0-9A-Za-z]{36}", "a token of GitHub"),
    (
        "github_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}",
        "a token of GitHub",
    ),
    // https://docs.gitlab.com/security/tokens/#token-prefixes
    (
        "glpat-[0-9A-Za-z_-]{20}(?:[0-9A-Za-z_-]*\\.[0-9a-z]{2}\\.[0-9a-z]{9})?",
        "a token of GitLab",
    ),
    // https://docs.slack.dev/authentication/tokens
    (
        "xox[abprs]-[0-9A-Za-z]{8,}(?:-[0-9A-Za-z]+)+",
        "a token of Slack",
    ),
];

/// What kind of key is in a text, if there is one.
pub(crate) fn kind_of_secret(text: &str) -> Option<&'static str> {
    static FORMS_IN_TEXT: LazyLock<RegexSet> = LazyLock::new(|| {
        let whole = FORMS
            .iter()
            .map(|(form, _)| format!("(?:^|[^0-9A-Za-z_-]){form}(?:$|[^0-9A-Za-z_-])"));
        RegexSet::new(whole).expect("these are regular expressions")
    });
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let form = FORMS_IN_TEXT.matches(text).iter().next()?;
    Some(FORMS[form].1)
}

/// Whether a value is called a secret by its key, and looks as if it was made at random.
pub(crate) fn looks_secret(key: &str, text: &str) -> bool {
    static CALLED_SECRET: LazyLock<Regex> = LazyLock::new(|| {
        let words = "secret|token|password|passwd|passphrase|api_?key|private_?key|secret_?key|access_?key|credentials?";
        Regex::new(&format!("(?i)(?:{words})$")).expect("this is a regular expression")
    });
    CALLED_SECRET.is_match(&key.replace('-', "_")) && is_random(text)
}

/// How many characters of a text that was made at random follow one another at least.
const LONG: usize = 16;

/// Whether a part of a text looks as if it was made at random, as hexadecimal digits, in base64 or as a UUID. Words are not
/// random, however they are joined, and neither is what stands for something else, such as `{{ … }}` and `$(…)`.
fn is_random(text: &str) -> bool {
    static UUID: LazyLock<Regex> = LazyLock::new(|| {
        let groups = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        Regex::new(&format!("(?i)^{groups}$")).expect("this is a regular expression")
    });
    let text = text.trim();
    if text.contains(char::is_whitespace) || text.contains(['{', '$', '<', '(']) {
        return false;
    }
    let mut parts = text.split(divides);
    UUID.is_match(text) || parts.any(|it| it.len() >= LONG && changes(it) * 4 >= it.len())
}

/// Whether a character stands between words.
fn divides(char: char) -> bool {
    !char.is_ascii_alphanumeric() && !"+=!#%^&*".contains(char)
}

/// How often small letters, capitals, digits and signs take turns in a text.
fn changes(text: &str) -> usize {
    let kinds: Vec<_> = text.bytes().map(kind).collect();
    kinds.windows(2).filter(|it| it[0] != it[1]).count()
}

fn kind(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    }
}
