//! Placeholders for decrypted values. What a rendering with them has in common with the real one comes from no secret.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Result;

use crate::{
    secrets::{decrypted::Decrypted, in_memory::InMemory},
    yaml::{Data, Node},
};

/// What the first characters of words are taken from: letters that begin few secrets, and no word that YAML knows.
const LETTERS: &str = "qjxzkvwgubdhmrsclp";

/// What a placeholder that differs from its secret in each character is made of. It begins with a letter, lest YAML
/// read a number.
const CHARACTERS: [char; 5] = ['K', 'W', 'X', '3', '7'];

/// For each of these files that was encrypted two others, with placeholders. They are found by the path that programs are
/// given of it.
///
/// Whatever helm makes of a secret should differ from what it makes of one placeholder or the other. Both are longer
/// than the secret: charts refuse short ones. In the first set all texts are one word, in lower case. In the second one
/// no two are the same, in upper case and with digits: so not even a comparison of two secrets comes out the same.
pub(crate) fn placeholders<'a>(
    files: impl Iterator<Item = &'a InMemory>,
) -> Result<BTreeMap<PathBuf, [InMemory; 2]>> {
    let mut encrypted = Vec::new();
    for file in files {
        if let Some(decrypted) = &file.decrypted {
            encrypted.push((file, decrypted));
        }
    }
    let word = word(encrypted.iter().map(|(_, decrypted)| *decrypted));
    let mut numbers = [0, 0];
    let mut found = BTreeMap::new();
    for (file, decrypted) in encrypted {
        let alike = decrypted.with(|secret| {
            numbers[0] += 1;
            alike(secret, &word, numbers[0])
        });
        let different = decrypted.with(|secret| {
            numbers[1] += 1;
            different(secret, numbers[1])
        });
        // As JSON, which helm reads as well.
        let in_memory =
            |values: Node| InMemory::secret(&values.to_json().to_string(), file.source.clone());
        let given = file.file.path().to_owned();
        found.insert(given, [in_memory(alike)?, in_memory(different)?]);
    }
    Ok(found)
}

/// The same for a domain. Both are names with as many labels.
pub(crate) fn of_domain(domain: &str) -> [String; 2] {
    let labels = || domain.split('.');
    let longest = labels().map(str::len).fold(0, usize::max);
    let beginnings: String = labels().filter_map(|it| it.chars().next()).collect();
    let letter = unused_letter(&beginnings.to_ascii_lowercase());
    let word = letter.to_string().repeat(longest + 1);
    let alike: Vec<_> = labels().map(|_| word.as_str()).collect();
    let different: Vec<_> = (1..)
        .zip(labels())
        .map(|(number, label)| different_text(label, number).to_ascii_lowercase())
        .collect();
    [alike.join("."), different.join(".")]
}

/// A word that is longer than each line of a secret, and that begins like none of them if possible.
fn word<'a>(files: impl Iterator<Item = &'a Decrypted>) -> String {
    let mut longest = 0;
    let mut beginnings = String::new();
    for file in files {
        file.each_secret(|it| {
            let text = it.as_text().unwrap_or_default();
            beginnings.extend(text.chars().next().map(|it| it.to_ascii_lowercase()));
            longest = text.lines().map(str::len).fold(longest, usize::max);
        });
    }
    unused_letter(&beginnings).to_string().repeat(longest + 1)
}

fn unused_letter(beginnings: &str) -> char {
    let unused = LETTERS.chars().find(|it| !beginnings.contains(*it));
    unused.unwrap_or('q')
}

/// A placeholder of the first set.
fn alike(secret: &Data, word: &str, number: usize) -> Data {
    match secret {
        Data::Bool(it) => Data::Bool(*it ^ (!number.is_multiple_of(3))),
        Data::Number(it) => Data::Number(smaller(*it)),
        Data::Text(text) => Data::Text(with_lines(text, |_| word.to_owned())),
        other => other.clone(),
    }
}

/// A placeholder of the second set.
fn different(secret: &Data, number: usize) -> Data {
    match secret {
        Data::Bool(it) => Data::Bool(*it ^ (number % 3 != 1)),
        Data::Number(it) => Data::Number(larger(*it)),
        Data::Text(text) => Data::Text(with_lines(text, |line| different_text(line, number))),
        other => other.clone(),
    }
}

/// A text that has a placeholder for each line, and one more if there are several.
fn with_lines(text: &str, placeholder: impl Fn(&str) -> String) -> Arc<str> {
    let mut lines: Vec<_> = text.lines().map(&placeholder).collect();
    if lines.len() > 1 {
        lines.push(placeholder(""));
    }
    let end = if text.ends_with('\n') { "\n" } else { "" };
    (lines.join("\n") + end).into()
}

/// A longer text that differs in each character, counted from the beginning and from the end.
fn different_text(line: &str, number: usize) -> String {
    let secret: Vec<char> = line.chars().map(|it| it.to_ascii_uppercase()).collect();
    let length = secret.len() + 3 + number % 5;
    let mut text = String::new();
    for index in 0..length {
        let from_end = (secret.len() + index).checked_sub(length);
        let taken = [Some(index), from_end].map(|it| secret.get(it?));
        let choices = if index == 0 { 3 } else { CHARACTERS.len() };
        let fits = |it: &char| !taken.contains(&Some(it));
        let mut candidates = (0..choices).map(|it| CHARACTERS[(it + index * number) % choices]);
        text.push(candidates.find(fits).unwrap_or('K'));
    }
    text
}

/// A negative number that is odd if this one is even. Negative numbers become positive ones.
fn smaller(secret: f64) -> f64 {
    -longer(secret, [3.0, 4.0, 7.0, 8.0]).copysign(secret)
}

/// A larger number that is odd if this one is even.
fn larger(secret: f64) -> f64 {
    longer(secret, [9.0, 6.0, 5.0, 2.0])
}

/// A number with two digits more, which are all one of these.
fn longer(secret: f64, digits: [f64; 4]) -> f64 {
    let whole = secret.abs().trunc();
    let digit = other_digit(whole, digits);
    let length = whole.to_string().len() + 2;
    let repeated = (0..length).fold(0.0, |sum, _| sum * 10.0 + digit);
    repeated + fraction(secret)
}

/// One of these digits that is not a number's first one, and odd if the number is even.
fn other_digit(number: f64, digits: [f64; 4]) -> f64 {
    let text = number.to_string();
    let fits =
        |digit: &&f64| !text.starts_with(&digit.to_string()) && **digit % 2.0 != number % 2.0;
    *digits.iter().find(fits).unwrap_or(&digits[0])
}

/// What is behind the point, so that a number with a fraction stays one.
fn fraction(secret: f64) -> f64 {
    if secret.fract() == 0.0 {
        0.0
    } else if secret.fract().abs() == 0.25 {
        0.75
    } else {
        0.25
    }
}
