//! What `validate hub-config` says of values, and what helm says of the same files. helm is the oracle: no case records
//! a verdict. Whatever helm refuses for its YAML, its values or a schema has to be a problem here. The other way round
//! only the rules in `STRICTER` may tell of problems where helm sees none.
//!
//! Most cases pin all that helm computes: it renders the chart's values as JSON, these become the `const` of the
//! chart's schema, and what each subchart gets becomes that of its own. Whoever computes anything else refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    repo::{Repo, tool},
    upstream::package,
};

/// Rules for what helm reads, though hardly as it was meant.
const STRICTER: [&str; 5] = [
    "byte-order-mark",
    "dropped-content",
    "duplicate-key",
    "second-document",
    "too-deep",
];

/// Each is a value. In all tables `¦` separates, and `escape` has the signs for what can't be seen.
const SCALARS: &str = include_str!("differential/scalars.txt");

/// Each is a key.
const KEYS: &str = include_str!("differential/keys.txt");

/// Each is a whole values file.
pub(crate) const DOCUMENTS: &str = include_str!("differential/documents.txt");

/// A schema and, after it, values files for it. `@7` stands for the `$schema` of draft 7.
const SCHEMAS: &str = include_str!("differential/schemas.txt");

/// A format and, after it, strings, each for a draft that checks formats and for one that doesn't.
const FORMATS: &str = include_str!("differential/formats.txt");

/// Charts, each with a title and, after it, its files: what is in one stands after `|`. Values files are numbers; each `1`
/// is a case of its own. A chart without schemas gets those of what helm computes.
const CHARTS: &str = include_str!("differential/charts.txt");

/// Charts like those, with `?` for a tree by chance that has maps of the names after it.
const LAYOUTS: &str = include_str!("differential/layouts.txt");

/// Files of a chart by their paths, and values files by their numbers.
type Files = BTreeMap<String, Vec<u8>>;

struct Case {
    table: &'static str,
    files: Files,
    pinned: Pinned,
}

#[derive(Clone, Copy, PartialEq)]
enum Pinned {
    /// The chart has the schemas it came with.
    No,
    /// Its schemas are still to be made of what helm computes.
    Wanted,
    /// They are, and helm has to accept what it computed itself.
    Yes,
    /// They are, but for one value in one of them.
    Wrongly,
}

/// What helm printed, or what it said when it refused.
type Verdict = Result<String, String>;

#[test]
fn validate_refuses_what_helm_refuses() {
    let repo = Repo::new();
    let mut cases = cases();
    let computed = each(
        &cases.iter().enumerate().collect::<Vec<_>>(),
        |(number, case)| {
            case.write(&repo, *number);
            (case.pinned == Pinned::Wanted)
                .then(|| helm(&repo, *number, &["--skip-schema-validation"]))
        },
    );
    let mut known = BTreeMap::new();
    for (number, computed) in computed.into_iter().enumerate() {
        match computed {
            Some(Ok(output)) => known.extend(pin(&mut cases, number, &output)),
            // Refused without schemas, which these wouldn't change.
            Some(refused) => drop(known.insert(number, refused)),
            None => {}
        }
    }
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let with_new_schemas: Vec<_> = numbered
        .iter()
        .filter(|it| it.1.pinned != Pinned::No)
        .collect();
    each(&with_new_schemas, |(number, case)| {
        case.write(&repo, *number)
    });
    repo.write("config/clusters/lake/cluster.yaml", &cluster(&cases));
    let (ours, helms) = thread::scope(|scope| {
        let ours = scope.spawn(|| problems(&repo));
        let ask = |number: &usize| {
            known
                .get(number)
                .cloned()
                .unwrap_or_else(|| helm(&repo, *number, &[]))
        };
        let helms = each(&numbered, |(number, _)| ask(number).map(|_| ()));
        (ours.join().unwrap(), helms)
    });
    let differing: Vec<_> = (numbered.iter().zip(&helms))
        .filter_map(|((number, case), helm)| {
            let told = ours.get(number).map(Vec::as_slice).unwrap_or_default();
            let what = difference(case, helm, told)?;
            Some(format!(
                "== {what}: case {number}, of {}\n{}{helm:?}\nwe: {told:#?}",
                case.table,
                case.show()
            ))
        })
        .collect();
    assert!(cases.len() > 600 && helms.iter().filter(|it| it.is_err()).count() > 200);
    assert!(
        differing.is_empty(),
        "{}\n{} cases differ",
        differing.join("\n"),
        differing.len()
    );
}

/// What `config get-values` prints of each case, put together again, is all that helm computes.
#[test]
fn get_values_prints_what_helm_computes() {
    let repo = Repo::new();
    let mut seen = BTreeSet::new();
    let mut cases = cases();
    // LAYOUTS come several times, and helm takes its time.
    let mut number = 0;
    cases.retain(|it| {
        number += 1;
        match it.table {
            "CHARTS" => number % 3 == 0,
            "DOCUMENTS" => number % 5 == 0 && it.pinned == Pinned::Wanted,
            "LAYOUTS" => seen.insert(it.files.get("Chart.yaml").cloned()),
            _ => false,
        }
    });
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let helms = each(&numbered, |(number, case)| {
        case.write(&repo, *number);
        helm(&repo, *number, &["--skip-schema-validation"])
    });
    repo.write("config/clusters/lake/cluster.yaml", &cluster(&cases));
    let ran = repo.run("config get-values lake --all --format json");
    let not_shown = ran
        .stderr
        .lines()
        .filter_map(|it| it.trim().strip_prefix("not shown: "));
    let not_shown: BTreeSet<_> = not_shown.flat_map(|it| it.split(", ")).collect();
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let mut ours: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows {
        let hub = row["hub"].as_str().unwrap().to_owned();
        let values = ours.entry(hub).or_insert_with(|| json!({}));
        *at_key(values, row["key"].as_str().unwrap()) = row["value"].clone();
    }
    let mut compared = 0;
    for (number, helm) in helms.iter().enumerate() {
        let Ok(output) = helm else { continue };
        // Where we are stricter.
        if not_shown.contains(&format!("lake/c{number}").as_str()) {
            continue;
        }
        let helms = values_of(output);
        let ours = ours.remove(&format!("c{number}"));
        let ours = ours.unwrap_or_else(|| json!({}));
        assert!(
            same(&ours, &helms),
            "{}ours: {ours}\nhelm: {helms}",
            cases[number].show()
        );
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

/// The place of a key that `config get-values` prints.
fn at_key<'a>(mut value: &'a mut Value, key: &str) -> &'a mut Value {
    let mut step = String::new();
    let mut chars = key.chars();
    let enter = |value: &'a mut Value, step: &mut String| {
        if step.is_empty() {
            return value;
        }
        let step = std::mem::take(step);
        if let Some(index) = step.strip_prefix('[') {
            if !value.is_array() {
                *value = json!([]);
            }
            let index = index.parse::<usize>().unwrap();
            let items = value.as_array_mut().unwrap();
            items.resize(items.len().max(index + 1), Value::Null);
            return &mut items[index];
        }
        if !value.is_object() {
            *value = json!({});
        }
        value
            .as_object_mut()
            .unwrap()
            .entry(step)
            .or_insert(Value::Null)
    };
    while let Some(char) = chars.next() {
        match char {
            '\\' => step.push(chars.next().unwrap()),
            '.' | ']' => value = enter(value, &mut step),
            '[' => {
                value = enter(value, &mut step);
                step.push('[');
            }
            _ => step.push(char),
        }
    }
    enter(value, &mut step)
}

/// Whether two values are the same, however their numbers are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn difference(case: &Case, helm: &Result<(), String>, told: &[Value]) -> Option<&'static str> {
    if case.pinned == Pinned::Yes && helm.is_err() {
        return Some("helm computes now this, now that");
    }
    let is_text = case.files.values().all(|it| str::from_utf8(it).is_ok());
    let stricter = |rule: &str| STRICTER.contains(&rule) || rule == "not-text" && !is_text;
    match helm {
        Err(_) if told.is_empty() => Some("helm refuses, we don't"),
        Ok(()) if !told.iter().all(|it| stricter(it["rule"].as_str().unwrap())) => {
            Some("we refuse, helm doesn't")
        }
        _ => None,
    }
}

/// The problems that `validate` tells of, by the numbers of the cases.
pub(crate) fn problems(repo: &Repo) -> BTreeMap<usize, Vec<Value>> {
    let ran = repo.run("validate hub-config lake --format json");
    assert!(
        matches!(ran.code, Some(0 | 1)),
        "{:?} {}",
        ran.code,
        ran.stderr
    );
    let told: Vec<Value> =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|err| panic!("{err}: {}", ran.stderr));
    let mut problems: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for it in told.into_iter().filter(|it| it["level"] == "problem") {
        let place = it["hub"]
            .as_str()
            .or(it["path"].as_str())
            .unwrap_or_default();
        let number = place
            .split(['/', '-', '.'])
            .find_map(|it| it.strip_prefix('c')?.parse().ok());
        problems
            .entry(number.unwrap_or_else(|| panic!("of no case: {it}")))
            .or_default()
            .push(it);
    }
    problems
}

fn helm(repo: &Repo, number: usize, args: &[&str]) -> Verdict {
    let mut helm = tool("helm");
    // Go's own threads and its collection of garbage make each of these short runs longer.
    helm.env("GOMAXPROCS", "1")
        .env("GOGC", "off")
        .args(["template", "x"])
        .args(args);
    helm.arg(repo.root.join(format!("helm-charts/c{number}")));
    let files = (1..)
        .map(|it| repo.root.join(values_file(number, it)))
        .take_while(|it| it.exists());
    let output = helm
        .args(files.map(|it| format!("--values={}", it.display())))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).replace(repo.root.to_str().unwrap(), "");
    // A case that fails for anything else tests nothing.
    let about = [
        "failed to parse ",
        "cannot load values.yaml",
        "values don't meet the spec",
        "type mismatch on ",
    ];
    let known = output.status.success() || about.iter().any(|it| said.contains(it));
    assert!(known, "c{number}: {}: {said}", output.status);
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(said)
    }
}

/// Makes schemas of all that helm computed, and now and then adds a twin with a wrong one. What helm says is known then
/// where it has nothing to compute; even so it's asked now and then.
fn pin(cases: &mut Vec<Case>, number: usize, output: &str) -> Option<(usize, Verdict)> {
    let text = text_of_values(output);
    let computed: Value = serde_json::from_slice(&text).unwrap();
    let case = &mut cases[number];
    case.pinned = Pinned::Yes;
    let is_chart = ["CHARTS", "LAYOUTS"].contains(&case.table);
    let mut schemas = Vec::new();
    for (chart, names) in instances(&case.files) {
        let wanted: Vec<_> = names.iter().filter_map(|it| computed.pointer(it)).collect();
        if !wanted.is_empty() {
            schemas.push((chart + "values.schema.json", json!({ "enum": wanted })));
        }
    }
    // The chart's own, the first, has helm's own text: serde_json's may have other numbers.
    let own = [b"{\"const\":", text.as_slice(), b"}"].concat();
    schemas
        .iter()
        .for_each(|(path, it)| drop(case.files.insert(path.clone(), it.to_string().into())));
    case.files.insert("values.schema.json".into(), own);
    if number.is_multiple_of(if is_chart { 4 } else { 24 }) {
        let (path, mut schema) = schemas.swap_remove(number / 4 % schemas.len());
        change(&mut schema["enum"], number);
        let mut files = case.files.clone();
        files.insert(path, schema.to_string().into());
        cases.push(Case {
            table: cases[number].table,
            files,
            pinned: Pinned::Wrongly,
        });
    }
    (!is_chart && !number.is_multiple_of(32)).then(|| (number, Ok(String::new())))
}

/// The values that a template of these tests prints, as JSON.
fn text_of_values(output: &str) -> Vec<u8> {
    let (_, base64) = output
        .split_once("values: ")
        .unwrap_or_else(|| panic!("{output}"));
    BASE64_STANDARD
        .decode(base64.lines().next().unwrap())
        .unwrap()
}

pub(crate) fn values_of(output: &str) -> Value {
    serde_json::from_slice(&text_of_values(output)).unwrap()
}

/// Changes one leaf in each of these.
fn change(value: &mut Value, nth: usize) {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter_mut().for_each(|it| change(it, nth)),
        Value::Object(entries) if !entries.is_empty() => {
            let nth_entry = nth % entries.len();
            change(entries.iter_mut().nth(nth_entry).unwrap().1, nth / 3);
        }
        Value::Bool(it) => *it = !*it,
        Value::String(it) => it.push('.'),
        Value::Number(it) if it.as_i64() == Some(1) => *value = 2.into(),
        Value::Null | Value::Number(_) => *value = "other".into(),
        Value::Array(_) | Value::Object(_) => *value = json!({"other": [1]}),
    }
}

/// The folders of a chart and of its subcharts, and where the values for each are in the chart's own.
fn instances(files: &Files) -> Vec<(String, Vec<String>)> {
    let mut found = vec![(String::new(), vec![String::new()])];
    for folder in folders(files).into_iter().skip(1) {
        let (above, name) = folder.trim_end_matches('/').rsplit_once("charts/").unwrap();
        let names = aliases(files, above, name.trim_end_matches(".tgz"));
        let (_, above) = found.iter().find(|it| it.0 == above).unwrap();
        let places = above
            .iter()
            .flat_map(|above| names.iter().map(move |it| format!("{above}/{it}")));
        let places = places.collect();
        found.push((folder, places));
    }
    found
}

/// What a subchart is called by the chart in the folder above. helm takes no alias from an entry without a version.
fn aliases(files: &Files, above: &str, name: &str) -> BTreeSet<String> {
    let lists = ["Chart.yaml", "requirements.yaml"].map(|it| files.get(&format!("{above}{it}")));
    let lists = lists
        .into_iter()
        .flatten()
        .map(|it| serde_yaml::from_slice::<Value>(it).unwrap());
    let entries = lists.flat_map(|it| it["dependencies"].as_array().cloned().unwrap_or_default());
    let named = entries.filter(|it| it["name"] == name && it["version"].is_string());
    let aliases: BTreeSet<_> = named
        .map(|it| it["alias"].as_str().unwrap_or(name).to_owned())
        .collect();
    if aliases.is_empty() {
        BTreeSet::from([name.to_owned()])
    } else {
        aliases
    }
}

/// The folders of charts, each with a slash, those above first.
fn folders(files: &Files) -> Vec<String> {
    let mut found = BTreeSet::from([String::new()]);
    for path in files.keys() {
        let charts = path.match_indices("charts/").map(|(at, it)| at + it.len());
        found.extend(
            charts.filter_map(|at| Some(path[..at + path[at..].find('/')? + 1].to_owned())),
        );
    }
    found.into_iter().collect()
}

fn values_file(number: usize, nth: usize) -> String {
    format!("config/clusters/lake/c{number}-{nth}.values.yaml")
}

fn cluster(cases: &[Case]) -> String {
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for (number, case) in cases.iter().enumerate() {
        let files = case.files.keys().filter(|it| it.parse::<usize>().is_ok());
        let files: Vec<_> = files
            .map(|it| format!("c{number}-{it}.values.yaml"))
            .collect();
        yaml += &format!(
            "- {{name: c{number}, domain: c{number}.example.org, helm_chart: c{number}, \
             helm_chart_values_files: [{}]}}\n",
            files.join(", ")
        );
    }
    yaml
}

impl Case {
    fn write(&self, repo: &Repo, number: usize) {
        let write = |path: &str, content: &[u8]| {
            let file = repo.root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        };
        let chart = format!("helm-charts/c{number}");
        for folder in folders(&self.files) {
            let name = folder
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap()
                .trim_end_matches(".tgz");
            let given = self
                .files
                .get(&format!("{folder}Chart.yaml"))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let given = str::from_utf8(given).unwrap();
            let version = if given.contains("apiVersion") {
                ""
            } else {
                "apiVersion: v2\n"
            };
            let name = if name.is_empty() { "parent" } else { name };
            let text = format!("{version}name: {name}\nversion: 0.1.0\n{given}\n");
            write(&format!("{chart}/{folder}Chart.yaml"), text.as_bytes());
        }
        for (path, content) in self
            .files
            .iter()
            .filter(|(path, _)| !path.ends_with("Chart.yaml"))
        {
            match path.parse() {
                Ok(nth) => write(&values_file(number, nth), content),
                Err(_) => write(&format!("{chart}/{path}"), content),
            }
        }
        let template = "apiVersion: v1\nkind: Values\nvalues: {{ toJson .Values | b64enc }}\n";
        write(&format!("{chart}/templates/all.yaml"), template.as_bytes());
        for folder in folders(&self.files)
            .iter()
            .filter(|it| it.ends_with(".tgz/"))
        {
            let folder = repo.root.join(&chart).join(folder);
            package(&folder, folder.parent().unwrap());
            fs::remove_dir_all(folder).unwrap();
        }
    }

    fn show(&self) -> String {
        let show =
            |(path, content): (&String, &Vec<u8>)| format!("{path} | {}\n", content.escape_ascii());
        self.files.iter().map(show).collect()
    }
}

/// The results in the order of the items, by as many threads as there are processors.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    done.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

fn cases() -> Vec<Case> {
    let one = |table, text: Vec<u8>| {
        let files = Files::from([
            ("1".to_owned(), text),
            ("values.yaml".to_owned(), b"{}".into()),
        ]);
        Case {
            table,
            files,
            pinned: Pinned::Wanted,
        }
    };
    let mut cases = Vec::new();
    let items = |table: &'static str| {
        table
            .trim()
            .lines()
            .flat_map(|it| it.split('¦'))
            .map(str::trim)
    };
    cases.extend(items(SCALARS).map(|it| one("SCALARS", format!("k: {it}\n").into())));
    cases.extend(items(KEYS).map(|it| one("KEYS", format!("{it}: 1\n").into())));
    cases.extend(items(DOCUMENTS).map(|it| one("DOCUMENTS", escape(it).into())));
    cases.extend(BYTES.iter().map(|it| one("BYTES", it.to_vec())));
    for text in long() {
        let case = one("long()", text.into());
        cases.push(Case {
            pinned: Pinned::No,
            ..case
        });
    }
    let under = |schema: &str, table, text: String| {
        let mut case = one(table, text.into());
        let schema = schema
            .replace("@4", &draft("draft-04"))
            .replace("@6", &draft("draft-06"));
        let schema = schema
            .replace("@7", &draft("draft-07"))
            .replace("@19", &draft("2019-09"));
        case.files
            .insert("values.schema.json".into(), escape(&schema).into());
        Case {
            pinned: Pinned::No,
            ..case
        }
    };
    for line in SCHEMAS.trim_matches('\n').lines() {
        let (schema, texts) = line.split_once('¦').unwrap();
        cases.extend(
            texts
                .split('¦')
                .map(|it| under(schema.trim(), "SCHEMAS", it.trim().to_owned() + "\n")),
        );
    }
    for line in FORMATS.trim().lines() {
        let (format, texts) = line.split_once('¦').unwrap();
        let schema = |draft| {
            format!(
                "{{{draft}\"additionalProperties\":{{\"format\":\"{}\"}}}}",
                format.trim()
            )
        };
        let texts: Vec<_> = texts
            .split('¦')
            .map(|it| json!({"a": it.trim()}).to_string())
            .collect();
        cases.extend(
            texts
                .iter()
                .map(|it| under(&schema("@7,"), "FORMATS", it.clone())),
        );
        cases.extend(["@4,", ""].map(|it| under(&schema(it), "FORMATS", texts[1].clone())));
    }
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for text in CHARTS.split("\n# ").skip(1) {
        cases.extend(charts("CHARTS", text, &mut dice));
    }
    for text in LAYOUTS.repeat(6).split("\n# ").skip(1) {
        cases.extend(charts("LAYOUTS", text, &mut dice));
    }
    cases
}

/// Files that no line of a table can hold.
const BYTES: &[&[u8]] = &[
    b"",
    b"a: \xff\n",
    b"# \xe9\na: 1\n",
    b"a: \xc0\x80\n",
    b"a: \xed\xa0\x80\n",
    b"a: \xf4\x90\x80\x80\n",
    b"a: 1\n---\nb: \xe9\n",
    b"\xff\xfea\0:\0 \x001\0\n\0",
    b"\xfe\xff\0a\0:\0 \x001",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xef\xbb\xbf\xef\xbb\xbfa: 1\n",
];

fn long() -> Vec<String> {
    let bomb = |levels: usize, width: usize| {
        let level = |nth: usize| {
            format!(
                "a{nth}: &a{nth} [{}]\n",
                vec![format!("*a{}", nth - 1); width].join(", ")
            )
        };
        format!("a0: &a0 x\n{}", (1..=levels).map(level).collect::<String>())
    };
    let key = |length| "k".repeat(length);
    vec![
        bomb(2, 10),
        bomb(3, 9),
        bomb(4, 9),
        bomb(6, 9),
        bomb(40, 2),
        bomb(200, 1),
        format!("a: &a {{b: 1}}\nc: [{}]\n", "*a, ".repeat(5000)),
        format!(
            "a: &a {{b: 1}}\n{}",
            (0..300)
                .map(|it| format!("c{it}: {{<<: *a}}\n"))
                .collect::<String>()
        ),
        format!("a: {}{}\n", "[".repeat(90), "]".repeat(90)),
        format!("a: {}{}\n", "[".repeat(9000), "]".repeat(9000)),
        format!("a: {}{}\n", "[".repeat(10001), "]".repeat(10001)),
        format!("a:\n  {}x\n", "- ".repeat(90)),
        format!("a:\n  {}x\n", "- ".repeat(10001)),
        format!("a: {}x{}\n", "{a: ".repeat(2000), "}".repeat(2000)),
        format!("{}: 1\n", key(1022)),
        format!("{}: 1\n", key(1023)),
        format!("{}: 1\n", key(1024)),
        format!("{}: 1\n", key(1025)),
        format!("\"{}\": 1\n", key(1023)),
        format!("\"{}\": 1\n", key(1024)),
        format!("? {}\n: 1\n", key(2000)),
        format!("{{{}: 1}}\n", key(2000)),
        format!("[{}]: 1\n", key(2000)),
        format!("a: {}", key(4093)),
        format!("a: |\n  {}\n---\nb: 1", key(4090)),
        format!("a: {}\nb: [", key(4089)),
    ]
}

/// The text with its signs replaced by what they stand for.
pub(crate) fn escape(text: &str) -> String {
    let mut text = text
        .replace('␠', " ")
        .replace('⏎', "\n")
        .replace('␍', "\r")
        .replace('⇥', "\t")
        .replace('🅱', "\u{feff}");
    while let Some((before, after)) = text.split_once('‹') {
        let (hex, after) = after.split_once('›').unwrap();
        let sign = char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap();
        text = format!("{before}{sign}{after}");
    }
    text
}

fn draft(name: &str) -> String {
    let (scheme, end) = if name.starts_with("draft") {
        ("http", "schema#")
    } else {
        ("https", "schema")
    };
    let name = if name.starts_with("draft") {
        name.to_owned()
    } else {
        format!("draft/{name}")
    };
    format!("\"$schema\":\"{scheme}://json-schema.org/{name}/{end}\"")
}

/// The cases of one chart: one for each values file `1`.
fn charts(table: &'static str, text: &str, dice: &mut Dice) -> Vec<Case> {
    let (mut files, mut firsts) = (Files::new(), Vec::new());
    for part in text.lines().skip(1).flat_map(|it| it.split('¦')) {
        let (path, content) = part.split_once('|').unwrap();
        let content = match content.trim().strip_prefix('?') {
            Some(names) => {
                json!(dice.tree(&names.split_whitespace().collect::<Vec<_>>(), 3)).to_string()
            }
            None => escape(content.trim()),
        };
        match path.trim() {
            "1" => firsts.push(content.into()),
            path => drop(files.insert(path.to_owned(), content.into())),
        }
    }
    let with_schemas = files.keys().any(|it| it.ends_with("values.schema.json"));
    let pinned = if with_schemas {
        Pinned::No
    } else {
        Pinned::Wanted
    };
    let case = |first: Vec<u8>| {
        let mut files = files.clone();
        files.insert("1".to_owned(), first);
        Case {
            table,
            files,
            pinned,
        }
    };
    firsts.into_iter().map(case).collect()
}

/// Chance that is the same in every run: Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }

    /// A map with some of the keys a, b and c, and most of these.
    fn tree(&mut self, names: &[&str], depth: u64) -> Map<String, Value> {
        let mut tree = Map::new();
        for key in ["a", "b", "c"] {
            if self.below(3) > 0 {
                tree.insert(key.to_owned(), self.value(depth));
            }
        }
        for name in names
            .iter()
            .filter(|_| self.below(5) > 0)
            .collect::<Vec<_>>()
        {
            let value = match (*name, self.below(36)) {
                ("live", nth) => {
                    [json!(true), json!(false), json!(null), json!("no")][nth as usize % 4].clone()
                }
                ("tags", nth) => json!({"front": nth % 2 == 0, "back": nth % 3 == 0}),
                (_, 0) => json!(null),
                ("global", 1) => json!("x"),
                (_, 2) => json!(1),
                ("global" | "exports", _) => json!(self.tree(&[], depth)),
                _ => json!(self.tree(
                    if depth > 1 {
                        &["live", "global", "deep"]
                    } else {
                        &[]
                    },
                    depth - 1
                )),
            };
            tree.insert((*name).to_owned(), value);
        }
        tree
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(12) {
            0..3 => json!(null),
            3 | 4 => json!(self.below(3)),
            5 => json!("x"),
            6 => json!([null, {"a": null}]),
            7 => json!(self.below(2) == 0),
            _ if depth == 0 => json!({}),
            _ => json!(self.tree(&[], depth - 1)),
        }
    }
}
