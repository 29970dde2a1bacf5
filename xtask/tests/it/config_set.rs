//! What `config set` makes of texts in which values are written in every way: it changes the value alone, and helm reads
//! that back.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    process::Command,
};

use serde_json::{Map, Value, json};
use xtask::commands::config::set_in;

use crate::{
    differential::{DOCUMENTS, escape, values_of},
    repo::{Repo, run_by, tool},
};

/// The files of the test repository that set a greeting.
const LAKE: &str = "config/clusters/lake/common.values.yaml";
const RIVER: &str = "config/clusters/river/river.values.yaml";

/// What is before and after a value, and its key, with how deep it must be indented.
const AROUND: &[(&str, &str, &str)] = &[
    (
        "# top ü\nfirst: 1 # one\nmap:\n    # inner\n    key:",
        "\n    # below\n    other: [1, 2]   # end\n\nlast: x\n",
        "map.key",
    ),
    ("list:\n- a # x\n-", "\n- z\n# end\n", "list[1]"),
    ("a: é\nkey:", "", "key"),
    ("a: 1\n---\nkey:", "\n\n\n", "key"),
    (
        "l:\n  - name: x\n    key:",
        "\n    b: 2\n  - name: y\n",
        "l[0].key",
    ),
    ("a.b:\n  'c[d':\n    \"e\\\\\":", "\n", "a\\.b.c\\[d.e\\\\"),
];

/// Ways to write a value on the line of its key, or from there on.
const OLD: &[&str] = &[
    " plain",
    " two words",
    " 'it''s'",
    " \"say \\\"ü\\\"\"",
    " 12",
    " 1.50",
    " true",
    " ~",
    "",
    " &x plain",
    " !!str 12",
    " &x !!str '1'",
    " several\n      words",
    " \"several\n      words\"",
    "\n      below",
    " {}",
    " []",
    " [a, {b: c}]",
    "  \"wide\"",
    "\t'tab'",
    " # only a comment",
    " plain\t# comment",
    " 'it''s' # comment",
    " 1 #comment",
    " &x  # comment",
    " [a,\n      b] # comment",
];

/// Blocks, each with what of it must stay.
const BLOCKS: &[(&str, &str)] = &[
    (" |\n      one\n        two\n\n      three", ""),
    (" |-  # why\n      one", "  # why"),
    (" >\n      one\n      two", ""),
    (" &x >-\n\n      one", ""),
    (" |2\n        one", ""),
];

/// New values as they are typed, and what they are.
fn new_values() -> Vec<(&'static str, Value)> {
    vec![
        ("new", json!("new")),
        ("it's new", json!("it's new")),
        ("4", json!(4)),
        ("-1.50", json!(-1.5)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("'on'", json!("on")),
        ("\"1.10\"", json!("1.10")),
        ("[a, 1, '2']", json!(["a", 1, "2"])),
        ("{a: 1}", json!({"a": 1})),
        ("'- x'", json!("- x")),
        ("'a, b]}'", json!("a, b]}")),
        ("'key: v'", json!("key: v")),
        ("'x # y'", json!("x # y")),
        ("''", json!("")),
        ("' wide '", json!(" wide ")),
        ("\"two\\nlines\\n\"", json!("two\nlines\n")),
        ("\"\\t\\e\\u2028\\u00a0\"", json!("\t\u{1b}\u{2028}\u{a0}")),
        (
            "https://ü.example.org/*?a=b#c",
            json!("https://ü.example.org/*?a=b#c"),
        ),
        ("2026-01-01", json!("2026-01-01")),
        ("", json!("")),
    ]
}

/// A text in which a value was set, and what was there before.
struct Trial {
    before: String,
    after: String,
    key: String,
    spelt: String,
    value: Value,
}

impl Trial {
    fn show(&self) -> String {
        format!(
            "{} = {}\n{}\n=>\n{}",
            self.key, self.spelt, self.before, self.after
        )
    }
}

#[test]
fn each_leaf_is_set_alone_however_it_is_written() {
    let mut trials = Vec::new();
    for (number, (before, after, key)) in AROUND.iter().enumerate() {
        for (nth, old) in OLD.iter().enumerate() {
            // All ways to write the old value meet all new ones, but not at each place.
            let new = new_values().into_iter().skip((number + nth) % 3).step_by(3);
            for (spelt, value) in new {
                if old.starts_with('\t') && key.ends_with(']') {
                    continue;
                }
                for ends in ["\n", "\r\n"] {
                    let [before, old, after] =
                        [before, old, after].map(|it| it.replace('\n', ends));
                    let comment = old.find(" #").or(old.find("\t#"));
                    let comment = comment.map_or("", |it| &old[it..]);
                    let text = format!("{before}{old}{after}");
                    let edited = set_in(&text, key, spelt)
                        .unwrap_or_else(|err| panic!("{key} = {spelt}: {err:#}\n{text}"));
                    let is_around = edited.starts_with(before.trim_end_matches('-'))
                        && edited.ends_with(&format!("{comment}{after}"));
                    assert!(is_around, "{key} = {spelt}\n{text}\n=>\n{edited}");
                    trials.push(Trial {
                        before: text,
                        after: edited,
                        key: (*key).to_owned(),
                        spelt: spelt.to_owned(),
                        value: value.clone(),
                    });
                }
            }
        }
    }
    check(&trials);
}

#[test]
fn a_block_is_set_alone_and_keeps_its_comment() {
    let mut trials = Vec::new();
    for (before, after, key) in AROUND {
        for (old, stays) in BLOCKS {
            for (spelt, value) in new_values() {
                let text = format!("{before}{old}{after}");
                let edited = set_in(&text, key, spelt)
                    .unwrap_or_else(|err| panic!("{key} = {spelt}: {err:#}\n{text}"));
                assert!(
                    edited.starts_with(before) && edited.contains(stays) && edited.ends_with(after),
                    "{key} = {spelt}\n{text}\n=>\n{edited}"
                );
                trials.push(Trial {
                    before: text,
                    after: edited,
                    key: (*key).to_owned(),
                    spelt: spelt.to_owned(),
                    value,
                });
            }
        }
    }
    check(&trials);
}

/// Documents with anchors, merges, and all else: what is refused stays, and what is set is set alone.
#[test]
fn no_other_value_changes_in_any_document() {
    let mut trials = Vec::new();
    let texts = DOCUMENTS.lines().flat_map(|it| it.split('¦'));
    let texts: Vec<_> = texts
        .map(|it| escape(it.trim()))
        .filter(|it| !it.contains("---"))
        // Of two keys that are the same text helm takes now this one, now that.
        .filter(|it| !it.contains("'1'") && !it.contains("'true'"))
        .collect();
    let read = read_by_helm(&texts);
    for (text, value) in texts.iter().zip(read) {
        if value.get("Error").is_some() {
            continue;
        }
        let mut keys = Vec::new();
        add_leaves(&value, "", &mut keys);
        for key in keys {
            for (spelt, value) in [("new", json!("new")), ("[x]", json!(["x"]))] {
                if let Ok(edited) = set_in(text, &key, spelt) {
                    trials.push(Trial {
                        before: text.clone(),
                        after: edited,
                        key: key.clone(),
                        spelt: spelt.to_owned(),
                        value,
                    });
                }
            }
        }
    }
    assert!(trials.len() > 200, "{}", trials.len());
    check(&trials);
}

#[test]
fn keys_are_added_in_the_layout_of_what_is_around() {
    for (text, key, spelt, wanted) in [
        ("", "a.b", "1", "a:\n  b: 1\n"),
        ("# only\n", "a", "x", "# only\na: x\n"),
        ("{}\n", "a.b", "x", "a:\n  b: x\n"),
        ("{} # none\n", "a", "x", "a: x # none\n"),
        (
            "a:\n    b:\n        c: 1 # c\n# end\nz: 1\n",
            "a.d.e",
            "2G",
            "a:\n    b:\n        c: 1 # c\n    d:\n        e: \"2G\"\n# end\nz: 1\n",
        ),
        (
            "a:\r\n  b: 1\r\n",
            "a.c",
            "true",
            "a:\r\n  b: 1\r\n  c: true\r\n",
        ),
        ("a:\n  b: 1", "a.c", "x", "a:\n  b: 1\n  c: x"),
        (
            "a: {b: 1} # c\n",
            "a.c.d",
            "x",
            "a: {b: 1, c: {d: x}} # c\n",
        ),
        ("a: {}\n", "a.c", "x", "a: {c: x}\n"),
        (
            "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n",
            "a.c",
            "x",
            "{\n  \"a\": {\n    \"b\": 1, \"c\": \"x\"\n  }\n}\n",
        ),
        (
            "a:\n- b # b\nc: 1\n",
            "a[1]",
            "x",
            "a:\n- b # b\n- x\nc: 1\n",
        ),
        (
            "a:\n  - k: 1\n    l: 2\n",
            "a[1].k",
            "3",
            "a:\n  - k: 1\n    l: 2\n  - {k: 3}\n",
        ),
        ("a: [b]\n", "a[1]", "x", "a: [b, x]\n"),
        ("a: []\n", "a[0]", "x", "a: [x]\n"),
        (
            "a:\n  b: 1\n",
            "a.users[0]",
            "x",
            "a:\n  b: 1\n  users: [x]\n",
        ),
        (
            "a:\n  b: |\n    text\n\n\nc: 1\n",
            "a.d",
            "x",
            "a:\n  b: |\n    text\n  d: x\n\n\nc: 1\n",
        ),
        (
            "a: 1\n---\nb: {c: 1}\n",
            "b.d",
            "x",
            "a: 1\n---\nb: {c: 1, d: x}\n",
        ),
        (
            "x: &x {a: 1}\nw:\n  <<: *x\n",
            "w.a",
            "2",
            "x: &x {a: 1}\nw:\n  <<: *x\n  a: 2\n",
        ),
        ("a: {b: 1}\n", "a.x y", "'1'", "a: {b: 1, \"x y\": \"1\"}\n"),
        ("a:\n- b\n- c\n", "a", "[d, '1']", "a:\n- d\n- \"1\"\n"),
        ("a:\n  - b\nc: 1\n", "a", "[]", "a: []\nc: 1\n"),
        ("x: &x 1\nw: *x\n", "w", "2", "x: &x 1\nw: 2\n"),
        (
            "a: |  # why\n  one\nb: 1\n",
            "a",
            "\"x\\ny\\n\"",
            "a: |  # why\n  x\n  y\nb: 1\n",
        ),
        (
            "image:\n  tag: 1.10\n",
            "image.tag",
            "1.20",
            "image:\n  tag: 1.20\n",
        ),
        (
            "image:\n  name: x\n",
            "image.tag",
            "1.20",
            "image:\n  name: x\n  tag: \"1.20\"\n",
        ),
        ("port: '80'\n", "port", "8080", "port: '8080'\n"),
    ] {
        let edited =
            set_in(text, key, spelt).unwrap_or_else(|err| panic!("{key}: {err:#}\n{text}"));
        assert_eq!(edited, wanted, "{key} = {spelt}");
    }
}

#[test]
fn what_cannot_be_set_alone_is_refused() {
    for (text, key, spelt, why) in [
        (
            "a:\n  b: 1\n",
            "a",
            "2",
            "line 2: there is a map: set its keys one by one",
        ),
        (
            "x: &x 1\ny: *x\n",
            "x",
            "2",
            "line 1: nothing that could be written there changes this value alone",
        ),
        (
            "x: &x {a: 1}\nw: *x\n",
            "w.a",
            "2",
            "line 2: `*x` stands for what is written elsewhere",
        ),
        (
            "x: &x {m: {a: 1, b: 2}}\nw: {<<: *x}\n",
            "w.m.a",
            "2",
            "changes this value alone",
        ),
        ("a: ~\n", "a.b", "1", "there is `null`, which has no `b`"),
        (
            "a: [1]\n",
            "a[2]",
            "1",
            "the list has 1 items, counted from 0, and `[2]` is neither one nor the next",
        ),
        ("a: [1]\n", "a.b", "1", "`b` is neither one nor the next"),
        (
            "a:\n- b # why\n- c\n",
            "a",
            "[d]",
            "line 2: the list has comments, which would be lost",
        ),
        ("a: 1\n", "b..c", "1", "`b..c` has an empty key"),
        ("a: 1\n", "b[x]", "1", "the number of an item"),
        ("a: 1\n", "b[0]c", "1", "a `.` or nothing follows a `]`"),
        ("a: 1\n", "a", "x #y", "`x #y` has a comment"),
        ("a: 1\n", "a", "x\ny", "YAML reads `x\ny` as \"x y\""),
        ("a: 1\n", "a", "*.org", "`*.org` is not YAML"),
        ("a: 1\n", "a", "1\n---\n2", "is not YAML"),
        ("a: [\n", "a", "1", "line "),
    ] {
        let err = set_in(text, key, spelt).expect_err(text);
        assert!(format!("{err:#}").contains(why), "{text}{key}: {err:#}");
    }
}

#[test]
fn no_comment_within_brackets_is_lost() {
    for (text, key) in [
        ("a: [x, # first\n  y, # second\n  ] # end\n", "a"),
        ("a: {x: [1, # keep\n 2], y: 3}\n", "a.x"),
        ("a: [ # none\n ]\n", "a"),
        ("a: { # none\n }\n", "a"),
        ("a:\n- [x, # first\n  'y']\n", "a[0]"),
        ("a: &x [ \"#\", # first\n  ]\n", "a"),
    ] {
        for spelt in ["[z]", "null", "text"] {
            let err = set_in(text, key, spelt).expect_err(text);
            let err = format!("{err:#}");
            assert!(err.contains("comments"), "{text}{key}: {err}");
            assert!(err.contains("which would be lost"), "{text}{key}: {err}");
        }
    }
    for (text, wanted) in [
        ("a: [ '#', \"x # y\", b#c ] # end\n", "a: [z] # end\n"),
        ("a: [\n  x,\n  ] # end\n", "a: [z] # end\n"),
    ] {
        assert_eq!(set_in(text, "a", "[z]").unwrap(), wanted);
    }
}

#[test]
fn nothing_is_written_into_a_comment() {
    for text in [
        "a:\n  # these:\n  - x\n  - y\n",
        "a: # these:\n  - x\n",
        "a:\n  - x\n  # and these:\nb:\n  # 'these:\n  - y\n",
    ] {
        let key = if text.contains("b:") { "b" } else { "a" };
        let err = set_in(text, key, "null").expect_err(text);
        assert!(format!("{err:#}").contains("line "), "{text}: {err:#}");
    }
    let edited = set_in("\"a # b\":\n- x\n", "a # b", "null").unwrap();
    assert_eq!(edited, "\"a # b\": null\n");
}

#[test]
fn of_two_at_once_none_is_lost() {
    let repo = Repo::new();
    repo.ok("config set all greeting hi");
    let locks = repo.cache().join("xtask/config-set");
    let lock = fs::read_dir(locks).unwrap().next().unwrap().unwrap();
    let lock = File::open(lock.path()).unwrap();
    lock.lock().unwrap();
    let mut second = repo.start("config set all greeting bye");
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for another process that sets a value") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it did not wait");
    }
    repo.write(RIVER, "greeting: hello\n");
    drop(lock);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("was changed meanwhile: nothing was written"),
        "{rest}"
    );
    assert!(!second.wait().unwrap().success());
    assert_eq!(repo.read(LAKE), "greeting: hi\n");
    assert_eq!(repo.read(RIVER), "greeting: hello\n");
}

#[test]
fn what_a_killed_one_left_is_removed() {
    let repo = Repo::new();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let left = |pid| format!("config/clusters/lake/common.values.part-{pid}-0");
    let [of_gone, of_other] = [gone.id(), std::process::id()].map(left);
    repo.write(&of_gone, "half");
    repo.write(&of_other, "half");
    repo.ok("config set all greeting hi");
    assert!(!repo.root.join(of_gone).exists());
    assert!(repo.root.join(of_other).exists());
}

#[test]
fn if_one_file_cannot_be_replaced_none_is() {
    let repo = Repo::new();
    let before = [LAKE, RIVER].map(|it| repo.read(it));
    let mount = format!("mount --bind {RIVER} {RIVER} && exec \"$@\"");
    let mut outer = Command::new("unshare");
    outer.args([
        "--mount",
        "--propagation=private",
        "bash",
        "-c",
        &mount,
        "bash",
    ]);
    let inner = repo.command("config set all greeting hi");
    let ran = run_by(outer, &inner).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.contains("cannot write"), "{said}");
    assert_eq!([LAKE, RIVER].map(|it| repo.read(it)), before);
    for file in [LAKE, RIVER] {
        let folder = repo.root.join(file);
        let entries = fs::read_dir(folder.parent().unwrap()).unwrap();
        let mut names = entries.map(|it| it.unwrap().file_name());
        assert!(!names.any(|it| it.to_string_lossy().contains(".part-")));
    }
}

/// helm reads the new value where it was set, and all others as they were.
fn check(trials: &[Trial]) {
    let before: Vec<_> = trials.iter().map(|it| it.before.clone()).collect();
    let after: Vec<_> = trials.iter().map(|it| it.after.clone()).collect();
    for ((trial, mut wanted), now) in trials
        .iter()
        .zip(read_by_helm(&before))
        .zip(read_by_helm(&after))
    {
        let place = wanted
            .pointer_mut(&pointer(&trial.key))
            .unwrap_or_else(|| panic!("{}", trial.show()));
        let stays_text = place.is_string() && (trial.value.is_number() || trial.value.is_boolean());
        *place = if stays_text {
            json!(trial.spelt)
        } else {
            trial.value.clone()
        };
        assert_eq!(now, wanted, "{}", trial.show());
    }
}

/// The JSON pointer of a key.
fn pointer(key: &str) -> String {
    let mut pointer = "/".to_owned();
    let mut chars = key.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => pointer.extend(chars.next()),
            '.' | '[' => pointer.push('/'),
            ']' => {}
            '~' => pointer += "~0",
            '/' => pointer += "~1",
            _ => pointer.push(char),
        }
    }
    pointer
}

fn add_leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                let key = key
                    .replace('\\', "\\\\")
                    .replace('.', "\\.")
                    .replace('[', "\\[");
                add_leaves(value, &format!("{path}{dot}{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                add_leaves(item, &format!("{path}[{index}]"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// What helm reads from these texts, all by one run. Of two documents it merges the later one over the other, which its
/// `fromYaml` does not.
fn read_by_helm(texts: &[String]) -> Vec<Value> {
    let repo = Repo::new();
    let mut numbered = Map::new();
    for (number, text) in texts.iter().enumerate() {
        let documents = text.split("\n---\n");
        let documents = documents.flat_map(|it| it.split("\r\n---\r\n"));
        // helm ends the last line of a values file.
        let documents: Vec<_> = documents.map(|it| format!("{it}\n")).collect();
        numbered.insert(format!("{number:05}"), json!(documents));
    }
    repo.write(
        "chart/Chart.yaml",
        "apiVersion: v2\nname: texts\nversion: 0.1.0\n",
    );
    repo.write("chart/texts.json", &Value::from(numbered).to_string());
    repo.write(
        "chart/templates/all.yaml",
        "{{- $all := dict }}\n\
         {{- range $number, $texts := .Files.Get \"texts.json\" | fromJson }}\n\
         {{- $one := dict }}\n\
         {{- range $texts }}{{ $one = mergeOverwrite $one (fromYaml .) }}{{ end }}\n\
         {{- $_ := set $all $number $one }}\n\
         {{- end }}\n\
         apiVersion: v1\nkind: Values\nvalues: {{ $all | toJson | b64enc }}\n",
    );
    let output = tool("helm")
        .arg("template")
        .arg("x")
        .arg(repo.root.join("chart"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let values = values_of(&String::from_utf8(output.stdout).unwrap());
    values.as_object().unwrap().values().cloned().collect()
}
