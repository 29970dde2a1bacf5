//! What values in jsonnet become, and what go-jsonnet's own program makes of the same files, run as 2i2c's deployer runs
//! it. That program is the oracle: no case records what it makes or what it says.
//!
//! Each case is the file of one hub, and one `validate` evaluates all of them in few processes. Each hub's chart has a schema
//! that allows nothing but what helm reads of what the oracle made. Our evaluator also gets the files by its own protocol,
//! all in one process and in two orders, and what it makes has to be the same to the byte.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, Weak},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    differential::{each, escape, problems},
    repo::{Repo, assert_succeeded, persons_cache, shared, tool},
};

/// Programs, with `¦` between them. In a line that begins with `@` is a file that they import, after `|`. One that begins
/// with `!` has programs that we refuse on purpose, after what we say of them. `escape` has the signs for what can't be
/// seen; after `##` is what lines are about.
const TABLE: &str = include_str!("differential/jsonnet.txt");

/// The folder of all programs, from the root.
const FOLDER: &str = "config/clusters/lake";

/// Values of an external variable that our evaluator could spoil on their way.
const ODD: &str = "a=b \"'\\ \n\t‹ü€😀\u{1}\u{7f}\u{2028}</script>&";

struct Table {
    programs: Vec<Program>,
    /// By their paths from the folder of all programs.
    files: Vec<(&'static str, Vec<u8>)>,
}

struct Program {
    text: String,
    /// What we say of it, although the oracle may take it.
    refused: Option<&'static str>,
}

/// JSON, or why there is none.
type Verdict = Result<String, Failure>;

#[derive(Clone, Debug, PartialEq)]
struct Failure {
    message: String,
    /// The path from the root and the line, if they are known.
    place: Option<(String, u64)>,
}

/// All programs in a repository, each as the file of a hub, and what the oracle makes of them.
struct Asked {
    repo: Repo,
    programs: Vec<Program>,
    verdicts: Vec<Verdict>,
}

impl Table {
    fn read() -> Table {
        let mut table = Table {
            programs: long(),
            files: BYTES.map(|(path, bytes)| (path, bytes.to_vec())).into(),
        };
        for line in TABLE.lines().filter(|it| !it.starts_with("##")) {
            if let Some(file) = line.strip_prefix('@') {
                let (path, text) = file.split_once('|').unwrap();
                let text = escape(text.trim()).into_bytes();
                table.files.push((path.trim(), text));
                continue;
            }
            let mut programs = line.split('¦').map(str::trim).peekable();
            let refused = programs.next_if(|it| it.starts_with('!'));
            let refused = refused.map(|it| it[1..].trim());
            table
                .programs
                .extend(programs_of(refused, programs.map(escape)));
        }
        table
    }
}

fn programs_of(
    refused: Option<&'static str>,
    texts: impl IntoIterator<Item = String>,
) -> Vec<Program> {
    let texts = texts.into_iter();
    texts.map(|text| Program { text, refused }).collect()
}

/// Files that no line of a table can hold.
const BYTES: [(&str, &[u8]); 3] = [
    (
        "bytes.bin",
        b"\xff\xfe\0a\xc3\x28\xed\xa0\x80\xf4\x90\x80\x80\r\n\xe2\x82",
    ),
    ("bytes.libsonnet", b"{a: 'x\xff\xc3', \xe9: 1}"),
    ("latin.libsonnet", b"// caf\xe9\n{a: 'caf\xe9'}"),
];

/// Programs that are too long for a table.
fn long() -> Vec<Program> {
    let nested = |depth: usize| format!("{{a: {}{}}}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth));
    let sum = |terms: usize| format!("{{a: {}}}", vec!["1"; terms].join(" + "));
    let locals = |count: usize| {
        let each = |nth: usize| format!("local a{} = a{nth} + 1; ", nth + 1);
        let all: String = (0..count).map(each).collect();
        format!("local a0 = 0; {all}{{a: a{count}}}")
    };
    // Each takes what the one before it made, in either branch.
    let conditions = |count: usize| {
        let keys: String = (0..300).map(|it| format!("k{it}: {it}, ")).collect();
        let each = |nth: usize| format!("local a{} = if x then a{nth} else a{nth}; ", nth + 1);
        let all: String = (0..count).map(each).collect();
        format!(
            "local x = std.extVar('XTASK_HUB_NAME') == 'c'; local a0 = {{{keys}}}; {all}a{count}"
        )
    };
    let too_deep = [nested(240), nested(260), objects(240)];
    let with_long_key = [format!("{{'{}': 1}}", "k".repeat(2000))];
    let others = [
        nested(100),
        nested(2000),
        objects(100),
        objects(600),
        sum(100),
        sum(490),
        sum(510),
        sum(3000),
        locals(100),
        locals(600),
        conditions(14),
        format!("{{a: '{}'}}", "long ".repeat(40_000)),
        format!("{{'{}': 1}}", "k".repeat(1000)),
        format!("{{a: 1{}}}", "0".repeat(300)),
        format!("{{a: 1{}}}", "0".repeat(400)),
        format!("{{a: {}1}}", "-".repeat(300)),
    ];
    let mut programs = programs_of(None, others);
    programs.extend(programs_of(Some("nested deeper than 200 levels"), too_deep));
    // helm says so.
    programs.extend(programs_of(
        Some("did not find expected ','"),
        with_long_key,
    ));
    programs
}

impl Asked {
    fn all() -> Arc<Asked> {
        static ASKED: Mutex<Weak<Asked>> = Mutex::new(Weak::new());
        shared(&ASKED, Asked::ask)
    }

    fn ask() -> Asked {
        let repo = Repo::new();
        let folder = repo.root.join(FOLDER);
        let Table { programs, files } = Table::read();
        for (path, content) in files {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match content.strip_prefix("→ ".as_bytes()) {
                Some(target) => symlink(OsStr::from_bytes(target), file).unwrap(),
                None => fs::write(file, content).unwrap(),
            }
        }
        for (number, program) in programs.iter().enumerate() {
            let root = repo.root.to_str().unwrap();
            let text = program.text.replace("ROOT", root);
            repo.write(&file(number), &text);
        }
        let numbers: Vec<_> = (0..programs.len()).collect();
        let verdicts = each(&numbers, |it| {
            oracle(&repo.root, &file(*it), &variables(*it))
        });
        Asked {
            repo,
            programs,
            verdicts,
        }
    }
}

/// The file of a program, from the root.
fn file(number: usize) -> String {
    format!("{FOLDER}/c{number}.jsonnet")
}

/// The external variables of a program's hub.
fn variables(number: usize) -> BTreeMap<String, String> {
    let variables = [
        ("CLUSTER_NAME", "lake".to_owned()),
        ("HUB_NAME", format!("c{number}")),
        ("HUB_DOMAIN", format!("c{number}.example.org")),
        ("PROVIDER", "kubeconfig".to_owned()),
        ("ACCOUNT_ID", "None".to_owned()),
    ];
    let named = |prefix: &'static str| {
        let variables = variables.iter();
        variables.map(move |(name, value)| (format!("{prefix}{name}"), value.clone()))
    };
    named("VARS_2I2C_").chain(named("XTASK_")).collect()
}

fn oracle(root: &Path, file: &str, variables: &BTreeMap<String, String>) -> Verdict {
    let program = persons_cache().join("xtask/tests/jsonnet@v0.22.0/jsonnet");
    let variables = variables.iter();
    let variables =
        variables.flat_map(|(name, value)| ["--ext-str".into(), format!("{name}={value}")]);
    let file = root.join(file);
    let output = Command::new(&program)
        .env_clear()
        .arg("--jpath")
        .arg(file.parent().unwrap())
        .args(variables)
        .arg(&file)
        .output()
        .unwrap_or_else(|err| {
            panic!(
                "{}: {err}; `cargo xtask ci` puts it there",
                program.display()
            )
        });
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = from_root(root, &message);
    // A mistake in the text has its place before it, and one of a run has it in the lines after it.
    let frames = message.lines().filter_map(|it| it.strip_prefix('\t'));
    let place = [message.as_str()].into_iter().chain(frames).find_map(place);
    Err(Failure { message, place })
}

/// A text with paths from the root.
fn from_root(root: &Path, text: &str) -> String {
    text.replace(&format!("{}/", root.display()), "")
}

/// The path and the line that a text begins with: `a.jsonnet:1:2-3` or `a.jsonnet:(1:2)-(3:4)`.
fn place(text: &str) -> Option<(String, u64)> {
    let (path, range) = text.split_once(':')?;
    let line = range.trim_start_matches('(').split(':').next()?;
    let is_ours = path.starts_with(FOLDER);
    is_ours.then_some((path.to_owned(), line.parse().ok()?))
}

/// Whether a file fails with what the oracle says of it, and where.
fn agree(number: usize, oracle: &Failure, ours: &Failure) -> bool {
    // `validate` shows lines in one.
    let in_one_line = |it: &str| it.replace('\n', "; ");
    let is_said = in_one_line(&oracle.message).contains(&in_one_line(&ours.message));
    is_said && are_at_one_place(number, oracle, ours)
}

/// Without a place it is the file's beginning.
fn are_at_one_place(number: usize, oracle: &Failure, ours: &Failure) -> bool {
    let beginning = Some((file(number), 1));
    ours.place == oracle.place.clone().or(beginning)
}

/// Has one `validate` look at all hubs, in this order.
fn validate(asked: &Asked, numbers: impl Iterator<Item = usize>) -> BTreeMap<usize, Vec<Value>> {
    let hub = |it| {
        format!(
            "- {{name: c{it}, domain: c{it}.example.org, helm_chart: c{it}, helm_chart_values_files: [c{it}.jsonnet]}}\n"
        )
    };
    let hubs: String = numbers.map(hub).collect();
    let cluster = format!(
        "name: lake\nprovider: kubeconfig\nkubeconfig: {{file: kubeconfig.yaml}}\nhubs:\n{hubs}"
    );
    asked
        .repo
        .write(&format!("{FOLDER}/cluster.yaml"), &cluster);
    problems(&asked.repo)
}

/// Writes the chart of each hub. Its schema allows what helm reads of what the oracle made, and nothing else.
fn write_charts(asked: &Asked) {
    let repo = &asked.repo;
    let helms = helms_reading(asked);
    for number in 0..asked.programs.len() {
        let chart = format!("helm-charts/c{number}");
        repo.write(
            &format!("{chart}/Chart.yaml"),
            "{apiVersion: v2, name: parent, version: 0.1.0}\n",
        );
        let values = helms.get(&number);
        let schema = values.map_or_else(|| "{}".to_owned(), |it| format!("{{\"const\": {it}}}"));
        repo.write(&format!("{chart}/values.schema.json"), &schema);
    }
}

/// Has one helm read all that the oracle made, and write it as JSON.
fn helms_reading(asked: &Asked) -> BTreeMap<usize, String> {
    let chart = "helm-charts/all";
    let repo = &asked.repo;
    repo.write(
        &format!("{chart}/Chart.yaml"),
        "{apiVersion: v2, name: all, version: 0.1.0}\n",
    );
    repo.write(
        &format!("{chart}/templates/all.yaml"),
        "{{range $name, $values := .Values}}{{$name}}: {{toJson $values | b64enc}}\n{{end}}",
    );
    let made = (0..asked.programs.len()).filter_map(|it| Some((it, asked.values(it)?)));
    let made: Vec<_> = made
        .map(|(number, json)| format!("\"c{number}\": {json}"))
        .collect();
    repo.write("made.json", &format!("{{{}}}", made.join(",\n")));
    let output = tool("helm")
        .args(["template", "x", chart, "--values=made.json"])
        .current_dir(&repo.root)
        .output()
        .unwrap();
    assert_succeeded(&output);
    let output = String::from_utf8(output.stdout).unwrap();
    let lines = output
        .lines()
        .filter_map(|it| it.strip_prefix('c')?.split_once(": "));
    let read = lines.map(|(number, base64)| {
        let json = BASE64_STANDARD.decode(base64).unwrap();
        (number.parse().unwrap(), String::from_utf8(json).unwrap())
    });
    read.collect()
}

/// What differs in the problems of one hub.
fn difference(asked: &Asked, number: usize, told: &[Value]) -> Option<&'static str> {
    let ours = told.iter().find_map(of_validate);
    let oracle = &asked.verdicts[number];
    if let Some(refused) = asked.programs[number].refused {
        return difference_of_refused(number, refused, oracle, ours, told);
    }
    match oracle {
        Err(_) if told.is_empty() => Some("the oracle fails, we don't"),
        Err(failure) => {
            let agrees = ours.is_some_and(|it| agree(number, failure, &it));
            (!agrees).then_some("we fail in another way")
        }
        Ok(made) if made.starts_with('{') || made == "null\n" => {
            (!told.is_empty()).then_some("the oracle makes something else, or we fail")
        }
        Ok(_) => {
            let is_refused = told.len() == 1 && told[0]["rule"] == "yaml";
            (!is_refused).then_some("values must be a mapping")
        }
    }
}

fn difference_of_refused(
    number: usize,
    refused: &str,
    oracle: &Verdict,
    ours: Option<Failure>,
    told: &[Value],
) -> Option<&'static str> {
    let mut messages = told.iter().map(|it| it["message"].as_str().unwrap());
    if !messages.any(|it| it.contains(refused)) {
        return Some("we do not refuse it for this");
    }
    let oracle = oracle.as_ref().err()?;
    (!are_at_one_place(number, oracle, &ours?)).then_some("the oracle fails elsewhere")
}

/// Why a file could not be evaluated, of a problem that `validate` tells of.
fn of_validate(problem: &Value) -> Option<Failure> {
    let (_, message) = problem["message"]
        .as_str()?
        .split_once("cannot be evaluated: ")?;
    let message = message.strip_suffix("; keys that it may set are not reported as missing")?;
    Some(Failure {
        message: message.to_owned(),
        place: Some((
            problem["path"].as_str()?.to_owned(),
            problem["line"].as_u64()?,
        )),
    })
}

#[test]
fn values_are_what_go_jsonnet_makes() {
    let asked = Asked::all();
    write_charts(&asked);
    let numbers = 0..asked.programs.len();
    let told = validate(&asked, numbers.clone());
    let differing: Vec<_> = numbers
        .clone()
        .filter_map(|number| {
            let told = told.get(&number).map(Vec::as_slice).unwrap_or_default();
            let what = difference(&asked, number, told)?;
            Some(asked.show(number, what, &format!("{told:#?}")))
        })
        .collect();
    assert_none_differs(&asked, &differing);
    assert_eq!(
        told,
        validate(&asked, numbers.rev()),
        "another order, another verdict"
    );
}

fn assert_none_differs(asked: &Asked, differing: &[String]) {
    let failing = asked.verdicts.iter().filter(|it| it.is_err()).count();
    assert!(asked.programs.len() > 300 && failing > 60, "{failing} fail");
    assert!(
        differing.is_empty(),
        "{}\n{} cases differ",
        differing.join("\n"),
        differing.len()
    );
}

impl Asked {
    /// The values that the oracle made of a program that we take.
    fn values(&self, number: usize) -> Option<&str> {
        let is_taken = self.programs[number].refused.is_none();
        let made = self.verdicts[number].as_deref().ok();
        made.filter(|it| is_taken && it.starts_with('{'))
    }

    fn show(&self, number: usize, what: &str, ours: &str) -> String {
        let text = self.programs[number].text.chars();
        let text: String = text.take(300).collect();
        let oracle = &self.verdicts[number];
        format!("== {what}: case {number}\n{text}\noracle: {oracle:?}\nwe: {ours}")
    }
}

/// Our evaluator, with the files that are on the disk.
struct Evaluator {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Evaluator {
    fn start() -> Evaluator {
        let mut child = tool("xtask-jsonnet")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Evaluator {
            requests: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn evaluate(
        &mut self,
        root: &Path,
        file: &str,
        variables: &BTreeMap<String, String>,
    ) -> Verdict {
        let request = json!({"file": root.join(file), "variables": variables});
        writeln!(self.requests, "{request}").unwrap();
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            let told: Value = serde_json::from_str(&line).expect("it answers");
            if let Some(path) = told["read"].as_str() {
                self.give(path);
                continue;
            }
            let report = told["made"]
                .as_object()
                .or(told["failed"].as_object())
                .unwrap();
            let mut text = vec![0; report["length"].as_u64().unwrap() as usize];
            self.answers.read_exact(&mut text).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            if told["made"].is_object() {
                return Ok(text);
            }
            let place = report["file"].as_str().map(|it| from_root(root, it));
            let line = report["line"].as_u64().unwrap().max(1);
            return Err(Failure {
                message: from_root(root, &text),
                place: place.map(|it| (it, line)),
            });
        }
    }

    fn give(&mut self, path: &str) {
        let content = fs::read(path);
        let answer = match &content {
            Ok(content) => json!({"length": content.len()}),
            Err(err) if err.kind() == ErrorKind::NotFound => json!({"missing": true}),
            Err(err) => json!({"refused": err.to_string()}),
        };
        writeln!(self.requests, "{answer}").unwrap();
        self.requests
            .write_all(&content.unwrap_or_default())
            .unwrap();
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_evaluator_makes_the_same_bytes_in_any_order() {
    let asked = Asked::all();
    let mut evaluator = Evaluator::start();
    let taken: Vec<_> = (0..asked.programs.len())
        .filter(|it| asked.programs[*it].refused.is_none())
        .collect();
    let mut differing = Vec::new();
    // A prime number of steps comes by all of them.
    let shuffled = (0..taken.len()).map(|it| taken[it * 7919 % taken.len()]);
    for number in taken.iter().copied().chain(shuffled) {
        let ours = evaluator.evaluate(&asked.repo.root, &file(number), &variables(number));
        let is_same = match (&asked.verdicts[number], &ours) {
            (Err(oracle), Err(ours)) => agree(number, oracle, ours),
            (oracle, ours) => oracle == ours,
        };
        if !is_same {
            differing.push(asked.show(number, "not the same", &format!("{ours:?}")));
        }
    }
    assert_none_differs(&asked, &differing);
}

#[test]
fn a_variable_may_have_any_value() {
    let repo = Repo::new();
    repo.write(&file(0), "{a: std.extVar('ODD'), b: std.length(self.a)}");
    let variables = BTreeMap::from([("ODD".to_owned(), ODD.to_owned())]);
    let ours = Evaluator::start().evaluate(&repo.root, &file(0), &variables);
    assert!(ours.is_ok());
    assert_eq!(ours, oracle(&repo.root, &file(0), &variables));
}
