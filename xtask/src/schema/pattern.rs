//! Regular expressions of schemas as helm reads them, which is as Go's package regexp does, written for the crate
//! regex. Only whether something matches is kept, not where: groups lose their names and repetitions their `?`.
//! The crate jsonschema takes a pattern for ECMAScript's first (`jsonschema_regex::to_rust_regex`), so what is
//! written here means the same before and after that: no `\d`, no class in a class, no flag beyond its atom. It is
//! valid ECMAScript, which the metaschemas of drafts 4 to 7 ask for there, unless it has `(?-u:\b)`.
//!
//! Out of reach: Go's tables are of Unicode 15.0 and regex's of 16.0, so that `\p{…}` and `(?i)` differ for the few
//! characters added or changed since. Go's limit on the size of the whole isn't kept and that on its depth only
//! about, for regex refuses far smaller ones: by its size limit, and below a depth of 250.

use std::{iter, mem};

const UNKNOWN: &str = "isn't known to Go's regular expressions";

/// How often Go lets something be repeated, also by repetitions in one another, and how deep it lets it lie.
const MAX_COPIES: u64 = 1000;
const MAX_DEPTH: u32 = 1000;

/// Sets of ASCII characters, as first and last of each range: `[:alnum:]` and so on, `\d`, `\s` and `\w`.
const NAMED_SETS: &[(&str, &[u8])] = &[
    ("alnum", b"09AZaz"),
    ("alpha", b"AZaz"),
    ("ascii", b"\0\x7f"),
    ("blank", b"\t\t  "),
    ("cntrl", b"\0\x1f\x7f\x7f"),
    ("digit", b"09"),
    ("graph", b"!~"),
    ("lower", b"az"),
    ("print", b" ~"),
    ("punct", b"!/:@[`{~"),
    ("space", b"\t\r  "),
    ("upper", b"AZ"),
    ("word", b"09AZ__az"),
    ("xdigit", b"09AFaf"),
];
const DIGIT: &[u8] = b"09";
/// Without `\v`, unlike `[:space:]`.
const SPACE: &[u8] = b"\t\n\x0c\r  ";
const WORD: &[u8] = b"09AZ__az";

/// The categories that Go knows by letters and by words, compared without case, spaces, `_` and `-`.
const CATEGORIES: &str = " c cc cf cn co cs l lc ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk \
    sm so z zl zp zs casedletter closepunctuation cntrl combiningmark connectorpunctuation control currencysymbol \
    dashpunctuation decimalnumber digit enclosingmark finalpunctuation format initialpunctuation letter \
    letternumber lineseparator lowercaseletter mark mathsymbol modifierletter modifiersymbol nonspacingmark number \
    openpunctuation other otherletter othernumber otherpunctuation othersymbol paragraphseparator privateuse punct \
    punctuation separator spaceseparator spacingmark surrogate symbol titlecaseletter unassigned uppercaseletter ";

/// The scripts that Go finds: those of Unicode 15.0 with one word as their name. It drops `_` from what it looks for,
/// but not from the names in its table, such as Old_Italic (seen in Go 1.26).
const SCRIPTS: &str = " adlam ahom arabic armenian avestan balinese bamum batak bengali bhaiksuki bopomofo brahmi \
    braille buginese buhid carian chakma cham cherokee chorasmian common coptic cuneiform cypriot cyrillic deseret \
    devanagari dogra duployan elbasan elymaic ethiopic georgian glagolitic gothic grantha greek gujarati gurmukhi \
    han hangul hanunoo hatran hebrew hiragana inherited javanese kaithi kannada katakana kawi kharoshthi khmer \
    khojki khudawadi lao latin lepcha limbu lisu lycian lydian mahajani makasar malayalam mandaic manichaean \
    marchen medefaidrin miao modi mongolian mro multani myanmar nabataean nandinagari newa nko nushu ogham oriya \
    osage osmanya palmyrene phoenician rejang runic samaritan saurashtra sharada shavian siddham sinhala sogdian \
    soyombo sundanese syriac tagalog tagbanwa takri tamil tangsa tangut telugu thaana thai tibetan tifinagh tirhuta \
    toto ugaritic vai vithkuqi wancho yezidi yi ";

/// An expression for regex that matches what Go's matches, or why Go refuses this one.
pub(crate) fn to_rust(pattern: &str) -> Result<String, String> {
    let mut done = Translated::default();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = match repetition(rest)? {
            Some(repetition) => done.repeat(&repetition, rest)?,
            None => {
                done.is_repeated = false;
                done.translate(c, rest)?
            }
        };
    }
    if !done.outer.is_empty() {
        return Err("a `(` isn't closed".to_owned());
    }
    done.end_branch();
    done.group.depth()?;
    Ok(done.text)
}

/// The flags that decide whether something matches: `i`, `m` and `s`.
#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    all: bool,
}

/// What is translated so far. Open groups are kept here, as calls within calls could end the stack.
#[derive(Default)]
struct Translated {
    text: String,
    flags: Flags,
    group: Group,
    outer: Vec<Group>,
    /// Whether the last thing was a repetition: Go refuses `a**`, but not `a*(?i)*`, which repeats `a*`.
    is_repeated: bool,
}

/// An open group, or all of the expression.
#[derive(Default)]
struct Group {
    start: usize,
    captures: bool,
    /// What holds again behind it.
    flags: Flags,
    branches: usize,
    /// The atoms of this branch, and the most of any.
    atoms: usize,
    most_atoms: usize,
    last: Option<Atom>,
    /// The greatest of all atoms but the last, which may still be repeated.
    depth: u32,
    copies: u64,
}

/// What a repetition can follow: where it begins, whether it needs no group for that, how deep it is and how often
/// something in it is repeated.
struct Atom {
    start: usize,
    alone: bool,
    depth: u32,
    copies: u64,
}

struct Repetition<'a> {
    operator: &'a str,
    /// Of `{2,3}`, but not of `*`, `+` and `?`.
    counts: Option<(u64, Option<u64>)>,
}

impl Translated {
    /// Translates what `rest` begins with, the character `c`, and returns what follows it.
    fn translate<'a>(&mut self, c: char, rest: &'a str) -> Result<&'a str, String> {
        let flags = self.flags;
        let after = &rest[c.len_utf8()..];
        let rest = match c {
            '(' => self.open(after)?,
            ')' => {
                self.close()?;
                after
            }
            '|' => {
                self.end_branch();
                self.text.push('|');
                after
            }
            '^' => self.add(if flags.lines { "(?m:^)" } else { "^" }, after),
            '$' => self.add(if flags.lines { "(?m:$)" } else { "$" }, after),
            '.' => self.add(if flags.all { "(?s:.)" } else { "." }, after),
            '[' => {
                let (class, after) = class(after, flags.fold)?;
                self.add(&class, after)
            }
            '\\' => self.add_escaped(rest)?,
            _ => self.add(&literal(c, flags.fold), after),
        };
        Ok(rest)
    }

    /// Adds an atom, and returns `rest`.
    fn add<'a>(&mut self, text: &str, rest: &'a str) -> &'a str {
        // ECMAScript has no `^*`.
        let alone = !matches!(text, "^" | "$");
        self.group.push(Atom {
            start: self.text.len(),
            alone,
            depth: 1,
            copies: 1,
        });
        self.text.push_str(text);
        rest
    }

    /// Adds what `rest` begins with, an escape; what follows it.
    fn add_escaped<'a>(&mut self, rest: &'a str) -> Result<&'a str, String> {
        let fold = self.flags.fold;
        if let Some(after) = rest.strip_prefix(r"\Q") {
            return Ok(self.add_quoted(after));
        }
        if let Some((assertion, after)) = assertion(rest) {
            return Ok(self.add(assertion, after));
        }
        if let Some((set, after)) = set(rest, fold)? {
            return Ok(self.add(&bracket(&set, false, fold), after));
        }
        let (code, after) = character(rest)?;
        let text =
            char::from_u32(code).map_or_else(|| bracket("", false, fold), |it| literal(it, fold));
        Ok(self.add(&text, after))
    }

    /// Adds the characters before a `\E`, or all; what follows it.
    fn add_quoted<'a>(&mut self, rest: &'a str) -> &'a str {
        let (quoted, after) = rest.split_once(r"\E").unwrap_or((rest, ""));
        for c in quoted.chars() {
            self.add(&literal(c, self.flags.fold), after);
        }
        after
    }

    /// Takes what follows a `(`; what follows its flags or name.
    fn open<'a>(&mut self, rest: &'a str) -> Result<&'a str, String> {
        if let Some(named) = rest.strip_prefix("?P<").or_else(|| rest.strip_prefix("?<")) {
            self.begin_group(true, self.flags);
            return after_name(named);
        }
        if let Some(inner) = rest.strip_prefix('?') {
            return self.open_with_flags(inner);
        }
        self.begin_group(true, self.flags);
        Ok(rest)
    }

    /// Takes what follows a `(?`: flags for a group, or for the rest of the one around it. Returns what follows them.
    fn open_with_flags<'a>(&mut self, inner: &'a str) -> Result<&'a str, String> {
        let end = inner.find([':', ')']).unwrap_or(inner.len());
        let flags = self
            .flags
            .changed(&inner[..end])
            .filter(|_| end < inner.len())
            .ok_or_else(|| format!("`(?{}` {UNKNOWN}", inner.chars().next().unwrap_or_default()))?;
        if inner[end..].starts_with(')') {
            self.flags = flags;
        } else {
            self.begin_group(false, flags);
        }
        Ok(&inner[end + 1..])
    }

    /// Begins a group in which these flags hold.
    fn begin_group(&mut self, captures: bool, flags: Flags) {
        let group = Group {
            start: self.text.len(),
            captures,
            flags: self.flags,
            ..Group::default()
        };
        self.outer.push(mem::replace(&mut self.group, group));
        self.flags = flags;
        self.text.push_str(if captures { "(" } else { "(?:" });
    }

    fn close(&mut self) -> Result<(), String> {
        self.end_branch();
        let outer = self.outer.pop().ok_or("a `)` has no `(`")?;
        let group = mem::replace(&mut self.group, outer);
        self.text.push(')');
        self.flags = group.flags;
        let depth = group.depth()?;
        // An empty group counts as well.
        let copies = group.copies.max(1);
        self.group.push(Atom {
            start: group.start,
            alone: true,
            depth,
            copies,
        });
        Ok(())
    }

    fn end_branch(&mut self) {
        let group = &mut self.group;
        group.settle();
        group.branches += 1;
        group.most_atoms = group.most_atoms.max(mem::take(&mut group.atoms));
    }

    /// Repeats the last atom, and returns what follows the repetition.
    fn repeat<'a>(&mut self, repetition: &Repetition, rest: &'a str) -> Result<&'a str, String> {
        let operator = repetition.operator;
        if mem::replace(&mut self.is_repeated, true) {
            return Err(format!("`{operator}` follows another repetition"));
        }
        let atom = self
            .group
            .last
            .as_mut()
            .ok_or_else(|| format!("`{operator}` has nothing to repeat"))?;
        atom.depth += 1;
        atom.copies = repetition.copies_of(atom.copies);
        if atom.copies > MAX_COPIES {
            return Err(format!("`{operator}` repeats too often, with those in it"));
        }
        if !mem::replace(&mut atom.alone, false) {
            self.text.insert_str(atom.start, "(?:");
            self.text.push(')');
        }
        self.text.push_str(operator);
        // Whether few or many are preferred does not decide whether something matches.
        let after = &rest[operator.len()..];
        Ok(after.strip_prefix('?').unwrap_or(after))
    }
}

impl Flags {
    /// These flags after `(?i-s`, for example.
    fn changed(self, text: &str) -> Option<Self> {
        match text.split_once('-') {
            None => self.set(text, true),
            Some((_, "")) => None,
            Some((on, off)) => self.set(on, true)?.set(off, false),
        }
    }

    /// None if Go has no flag for one of the letters.
    fn set(mut self, letters: &str, value: bool) -> Option<Self> {
        for letter in letters.chars() {
            match letter {
                'i' => self.fold = value,
                'm' => self.lines = value,
                's' => self.all = value,
                'U' => {}
                _ => return None,
            }
        }
        Some(self)
    }
}

impl Repetition<'_> {
    /// How often something is repeated that already has so many copies in it.
    fn copies_of(&self, copies: u64) -> u64 {
        match self.counts {
            None => copies,
            Some((_, Some(0))) => 1,
            Some((min, max)) => copies * max.unwrap_or(min).max(1),
        }
    }
}

impl Group {
    fn push(&mut self, atom: Atom) {
        self.settle();
        self.atoms += 1;
        self.last = Some(atom);
    }

    fn settle(&mut self) {
        if let Some(atom) = self.last.take() {
            self.depth = self.depth.max(atom.depth);
            self.copies = self.copies.max(atom.copies);
        }
    }

    /// As Go counts it: a sequence, a choice and a capture are a level each.
    fn depth(&self) -> Result<u32, String> {
        let levels = [self.most_atoms > 1, self.branches > 1, self.captures];
        let depth = self.depth.max(1) + levels.into_iter().map(u32::from).sum::<u32>();
        if depth > MAX_DEPTH {
            Err("it nests too deep".to_owned())
        } else {
            Ok(depth)
        }
    }
}

/// The repetition that the text begins with. A `{` that begins none is a character like others.
fn repetition(text: &str) -> Result<Option<Repetition<'_>>, String> {
    if text.starts_with(['*', '+', '?']) {
        return Ok(Some(Repetition {
            operator: &text[..1],
            counts: None,
        }));
    }
    let Some((inner, _)) = text.strip_prefix('{').and_then(|it| it.split_once('}')) else {
        return Ok(None);
    };
    let Some((min, max)) = counts(inner) else {
        return Ok(None);
    };
    let operator = &text[..inner.len() + 2];
    if min.max(max.unwrap_or(min)) > MAX_COPIES || max.is_some_and(|it| it < min) {
        return Err(format!(
            "`{operator}` repeats more than {MAX_COPIES} times, or less at most than at least"
        ));
    }
    Ok(Some(Repetition {
        operator,
        counts: Some((min, max)),
    }))
}

/// The least and the greatest number of repetitions in `2`, `2,` or `2,3`.
fn counts(text: &str) -> Option<(u64, Option<u64>)> {
    let (min, max) = text.split_once(',').unwrap_or((text, text));
    let min = number(min)?;
    if max.is_empty() {
        return Some((min, None));
    }
    Some((min, Some(number(max)?)))
}

/// A number without zeros before it; one that is too large for any purpose is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    (digits && !padded).then(|| text.parse().unwrap_or(u64::MAX))
}

/// What follows the name of a group and its `>`.
fn after_name(text: &str) -> Result<&str, String> {
    match text.split_once('>') {
        Some((name, rest)) if is_group_name(name) => Ok(rest),
        _ => Err(format!("`(?<` without a name {UNKNOWN}")),
    }
}

fn is_group_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

/// The assertion that the text begins with, an escape, and what follows it.
fn assertion(text: &str) -> Option<(&'static str, &str)> {
    let (escape, after) = text.split_at_checked(2)?;
    let assertion = match escape {
        r"\A" => "^",
        r"\z" => "$",
        r"\b" => r"(?-u:\b)",
        r"\B" => r"(?-u:\B)",
        _ => return None,
    };
    Some((assertion, after))
}

/// The class whose `[` was before the text, and what follows it.
fn class(text: &str, fold: bool) -> Result<(String, &str), String> {
    let (negated, mut rest) = negation(text);
    let mut items = String::new();
    let mut first = true;
    while mem::take(&mut first) || !rest.starts_with(']') {
        let (item, after) = class_item(rest, fold)?;
        items.push_str(&item);
        rest = after;
    }
    Ok((bracket(&items, negated, fold), &rest[1..]))
}

/// Whether the text begins with a `^`, and what follows that.
fn negation(text: &str) -> (bool, &str) {
    match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}

/// The item of a class that the text begins with, and what follows it.
fn class_item(text: &str, fold: bool) -> Result<(String, &str), String> {
    if let Some((name, after)) = text.strip_prefix("[:").and_then(|it| it.split_once(":]")) {
        return Ok((named_set(name, fold)?, after));
    }
    match set(text, fold)? {
        Some(set) => Ok(set),
        None => class_range(text),
    }
}

/// The items of `[:alpha:]` or `[:^alpha:]`, for example.
fn named_set(name: &str, fold: bool) -> Result<String, String> {
    let (negated, set) = negation(name);
    let known = NAMED_SETS.iter().find(|it| it.0 == set);
    let (_, pairs) = known.ok_or_else(|| format!("`[:{name}:]` {UNKNOWN}"))?;
    Ok(ascii_set(pairs, negated, fold))
}

/// The range, or the single character, that the text begins with, and what follows it.
fn class_range(text: &str) -> Result<(String, &str), String> {
    let (low, after) = class_character(text)?;
    let (high, after) = match after.strip_prefix('-') {
        Some(end) if !end.is_empty() && !end.starts_with(']') => class_character(end)?,
        _ => (low, after),
    };
    if high < low {
        let written = &text[..text.len() - after.len()];
        return Err(format!("`{written}` is a range that ends before it begins"));
    }
    Ok((range(low, high), after))
}

fn class_character(text: &str) -> Result<(u32, &str), String> {
    match text.chars().next() {
        Some('\\') => character(text),
        Some(c) => Ok((c.into(), &text[c.len_utf8()..])),
        None => Err("a `[` isn't closed".to_owned()),
    }
}

/// A class of regex's. One without any items, as of surrogates alone, matches nothing. (In Go `^\x{D800}` matches the
/// replacement character, for it compares some beginnings as UTF-8. That isn't kept.)
fn bracket(items: &str, negated: bool, fold: bool) -> String {
    let items = if items.is_empty() { r"\P{Any}" } else { items };
    let class = format!("[{}{items}]", if negated { "^" } else { "" });
    if fold { format!("(?i:{class})") } else { class }
}

/// The items of the set of characters that the text begins with, such as `\d` or `\pL`, and what follows it.
fn set(text: &str, fold: bool) -> Result<Option<(String, &str)>, String> {
    let mut chars = text.chars();
    let (Some('\\'), Some(letter)) = (chars.next(), chars.next()) else {
        return Ok(None);
    };
    let negated = letter.is_ascii_uppercase();
    let pairs = match letter.to_ascii_lowercase() {
        'd' => DIGIT,
        's' => SPACE,
        'w' => WORD,
        'p' => return unicode_set(chars.as_str(), negated).map(Some),
        _ => return Ok(None),
    };
    Ok(Some((ascii_set(pairs, negated, fold), chars.as_str())))
}

/// The items of a set of ASCII characters, or of all others. With `fold` these others lack what differs from one in
/// the set only by case: Go folds each item and then negates it, regex folds the whole class at last.
fn ascii_set(pairs: &[u8], negated: bool, fold: bool) -> String {
    let pairs = if fold && matches!(pairs, b"AZ" | b"az") {
        b"AZaz"
    } else {
        pairs
    };
    let pairs = pairs.chunks(2);
    let mut ranges: Vec<(u32, u32)> = pairs.map(|it| (it[0].into(), it[1].into())).collect();
    if negated {
        if fold && ranges.iter().any(|it| (it.0..=it.1).contains(&0x6b)) {
            // `ſ` and the sign for kelvin, which fold to `s` and `k`.
            ranges.extend([(0x17f, 0x17f), (0x212a, 0x212a)]);
        }
        ranges = gaps(&ranges);
    }
    let items = ranges.into_iter().map(|(low, high)| range(low, high));
    items.collect()
}

/// The ranges between, before and behind these, which are sorted.
fn gaps(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let starts = iter::once(0).chain(ranges.iter().map(|it| it.1 + 1));
    let ends = ranges.iter().map(|it| it.0).chain([0x11_0000]);
    starts
        .zip(ends)
        .filter(|(start, end)| start < end)
        .map(|(start, end)| (start, end - 1))
        .collect()
}

/// The item for what follows `\p` or `\P`, and the rest.
fn unicode_set(text: &str, negated: bool) -> Result<(String, &str), String> {
    let (written, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or(r"a `\p{` isn't closed")?,
        None => text.split_at(text.chars().next().map_or(0, char::len_utf8)),
    };
    let (is_inverted, name) = negation(written);
    let negated = negated != is_inverted;
    let name = name.replace([' ', '_', '-'], "").to_ascii_lowercase();
    // There is none in valid UTF-8, so regex doesn't know it.
    if ["cs", "surrogate"].contains(&&*name) {
        return Ok((property_item("Any", !negated), rest));
    }
    let property = property(&name).ok_or_else(|| format!(r"`\p{{{written}}}` {UNKNOWN}"))?;
    Ok((property_item(&property, negated), rest))
}

/// The property that Go knows by this name, as regex writes it.
fn property(name: &str) -> Option<String> {
    match name {
        "any" | "assigned" | "ascii" => Some(name.to_owned()),
        _ if is_listed(name, CATEGORIES) => Some(format!("gc={name}")),
        _ if is_listed(name, SCRIPTS) => Some(format!("sc={name}")),
        _ => None,
    }
}

fn is_listed(name: &str, names: &str) -> bool {
    !name.is_empty() && names.contains(&format!(" {name} "))
}

fn property_item(property: &str, negated: bool) -> String {
    let letter = if negated { 'P' } else { 'p' };
    format!(r"\{letter}{{{property}}}")
}

/// The number of the character that the text escapes, and what follows it.
fn character(text: &str) -> Result<(u32, &str), String> {
    let mut chars = text[1..].chars();
    let c = chars.next().ok_or(r"it ends with a `\`")?;
    let rest = chars.as_str();
    let read = match c {
        '0'..='7' => octal(&text[1..]),
        'x' => hexadecimal(rest),
        'a' => Some((0x7, rest)),
        'f' => Some((0xc, rest)),
        'n' => Some((0xa, rest)),
        'r' => Some((0xd, rest)),
        't' => Some((0x9, rest)),
        'v' => Some((0xb, rest)),
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Some((c.into(), rest)),
        _ => None,
    };
    read.ok_or_else(|| format!("`\\{c}` {UNKNOWN}, or not as it stands"))
}

/// Up to three octal digits. One alone would refer back to a group, unless it is `0`.
fn octal(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take(3);
    let length = digits.take_while(|it| matches!(it, b'0'..=b'7')).count();
    if length == 1 && !text.starts_with('0') {
        return None;
    }
    let (digits, rest) = text.split_at(length);
    Some((u32::from_str_radix(digits, 8).ok()?, rest))
}

/// Two hexadecimal digits, or any number of them in braces.
fn hexadecimal(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => text.split_at_checked(2)?,
    };
    let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
    let code = u32::from_str_radix(digits, 16).ok()?;
    (is_hex && code <= char::MAX.into()).then_some((code, rest))
}

/// An item for a range of numbers, without the surrogates at its ends: regex takes none.
fn range(low: u32, high: u32) -> String {
    let low = if is_surrogate(low) { 0xe000 } else { low };
    let high = if is_surrogate(high) { 0xd7ff } else { high };
    match high {
        _ if low > high => String::new(),
        _ if low == high => unfolded(low),
        _ => format!("{}-{}", unfolded(low), unfolded(high)),
    }
}

fn is_surrogate(code: u32) -> bool {
    (0xd800..0xe000).contains(&code)
}

/// The literal for the character of this number, with regard to case.
fn unfolded(code: u32) -> String {
    char::from_u32(code).map_or_else(String::new, |it| literal(it, false))
}

fn literal(c: char, fold: bool) -> String {
    match c {
        _ if fold && c.is_alphabetic() => format!("(?i:{c})"),
        _ if c.is_control() => format!(r"\x{:02x}", u32::from(c)),
        _ if r"\.+*?()|[]{}^$#&-~".contains(c) => format!(r"\{c}"),
        _ => c.to_string(),
    }
}
