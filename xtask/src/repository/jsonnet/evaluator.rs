//! The program that evaluates jsonnet: tools/jsonnet, over go-jsonnet's library.
//!
//! Jsonnet is code, and may come from a stranger's pull request. The program gets no file but through us, as the repository
//! has it at the point that a command is about, and it gets no more time and memory than values need.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{self, Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Error, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use xshell::{Shell, cmd};

use crate::{
    machine::{
        conversation::{Conversation, Exceeded, Limits, converse},
        digest::digest_of,
        parallel,
        paths::{self, is_called_secret},
        process,
        programs::{self, JSONNET},
        tree::{OUTSIDE, Tree},
    },
    secrets::git_crypt,
};

/// What one file may take.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5),
    memory: 512 << 20,
};

/// For how many releases a file may take too much before it is not evaluated for more of them: a fleet may have hundreds.
const TRIES: usize = 3;

/// How much of a message of the evaluator is kept, in bytes. Whoever writes `error` chooses what it says.
const LONGEST_MESSAGE: u64 = 2000;

/// How much one file may make, in bytes. A few lines can make much, for each of hundreds of hubs, and helm keeps values in a
/// Secret, which has no more room.
const MOST_MADE: u64 = 1 << 20;

/// A file to evaluate.
pub(super) struct Wanted {
    /// From the root.
    pub(super) file: PathBuf,
    /// The external variables, by their names.
    pub(super) variables: BTreeMap<String, String>,
}

/// What a file was made of: digests by paths from the root, or none for what was looked for and is not there. Of a link it is
/// also what that leads to.
pub(crate) type Sources = BTreeMap<PathBuf, Option<String>>;

/// What became of a file.
#[derive(Clone)]
pub(super) struct Evaluated {
    pub(super) made: Result<Made, Failure>,
    pub(super) sources: Sources,
}

/// What a file makes.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) json: String,
    pub(super) places: Places,
}

/// Where keys are set, as far as the text of jsonnet tells.
pub(super) type Places = BTreeMap<String, KeyPlace>;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyPlace {
    /// From the root. None for the file of the key above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PathBuf>,
    pub(super) line: u32,
    pub(super) column: u32,
    /// Of the keys below this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) below: Places,
}

/// Why a file could not be evaluated.
#[derive(Clone)]
pub(super) struct Failure {
    /// Where the evaluation failed, from the root.
    pub(super) file: PathBuf,
    /// 1 if it is not known.
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
    /// Whether it took more than it may.
    is_too_much: bool,
}

impl Failure {
    /// At a place in the file that is not known.
    fn of(file: &Path, message: &str) -> Failure {
        Failure {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: message.to_owned(),
            is_too_much: false,
        }
    }

    /// For a file, given by its path from the root.
    pub(super) fn error(&self, file: &Path) -> Error {
        anyhow!(
            "{}:{}:{}: `{}` cannot be evaluated: {}",
            self.file.display(),
            self.line,
            self.column,
            file.display(),
            self.message
        )
    }
}

/// Evaluates files, each by itself. The results are in their order.
pub(super) fn evaluate(sh: &Shell, tree: &Tree, wanted: &[&Wanted]) -> Result<Vec<Evaluated>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let tools = programs::provide(sh, &[JSONNET], true)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = vec![(); cores.min(wanted.len())];
    let queue = Queue {
        wanted,
        next: AtomicUsize::new(0),
        too_much: Mutex::new(BTreeMap::new()),
    };
    let done = parallel::side_by_side(tools.sh(), &workers, |sh, ()| {
        Evaluator::new(sh, tree)?.evaluate_all(&queue)
    });
    let done: Vec<_> = done.into_iter().collect::<Result<_>>()?;
    Ok(queue.in_order(done.into_iter().flatten().collect()))
}

/// What is left to evaluate.
struct Queue<'a> {
    wanted: &'a [&'a Wanted],
    next: AtomicUsize,
    /// The numbers with which files took too much.
    too_much: Mutex<BTreeMap<&'a Path, BTreeSet<usize>>>,
}

impl<'a> Queue<'a> {
    /// The next file, with its number.
    fn next(&self) -> Option<(usize, &'a Wanted)> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let wanted = self.wanted.get(index)?;
            if !self.is_given_up(index) {
                return Some((index, wanted));
            }
        }
    }

    fn add_too_much(&self, index: usize) {
        let mut too_much = self.too_much();
        let file = &*self.wanted[index].file;
        too_much.entry(file).or_default().insert(index);
    }

    /// Whether the file of this number took too much for enough releases before.
    fn is_given_up(&self, index: usize) -> bool {
        let too_much = self.too_much();
        let numbers = too_much.get(&*self.wanted[index].file);
        let last = numbers.and_then(|it| it.iter().nth(TRIES - 1));
        last.is_some_and(|it| *it < index)
    }

    /// The results in the order of the files. What was given up has the same verdict, whether it was evaluated meanwhile or
    /// not.
    fn in_order(&self, mut done: BTreeMap<usize, Evaluated>) -> Vec<Evaluated> {
        let mut sources = BTreeMap::new();
        let mut verdicts = Vec::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            let file = &wanted.file;
            let evaluated = done.remove(&index).filter(|_| !self.is_given_up(index));
            verdicts.push(match evaluated {
                Some(evaluated) => {
                    sources.insert(file, evaluated.sources.clone());
                    evaluated
                }
                None => Evaluated::given_up(file, sources[file].clone()),
            });
        }
        verdicts
    }

    fn too_much(&self) -> MutexGuard<'_, BTreeMap<&'a Path, BTreeSet<usize>>> {
        self.too_much.lock().expect("nobody panics with it")
    }
}

/// The program, which is started when it is needed.
struct Evaluator<'a> {
    sh: &'a Shell,
    tree: &'a Tree,
    /// The root, absolute. Links are not resolved: a file may ask by which path it was found.
    root: PathBuf,
    program: Option<Program>,
}

struct Program {
    conversation: Conversation,
    /// All files that it has asked for.
    asked: Sources,
}

#[derive(Serialize)]
struct Request<'a> {
    file: &'a Path,
    variables: &'a BTreeMap<String, String>,
}

/// A line of the program.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// The path of a file that it wants.
    Read(PathBuf),
    Made(Report),
    Failed(Report),
}

#[derive(Deserialize)]
struct Report {
    /// Of what was made, or of the message, in bytes.
    length: u64,
    paths: BTreeSet<PathBuf>,
    #[serde(default)]
    places: Places,
    /// Where it failed.
    #[serde(default)]
    file: PathBuf,
    /// 0 if it is not known.
    line: u32,
    column: u32,
}

impl<'a> Evaluator<'a> {
    fn new(sh: &'a Shell, tree: &'a Tree) -> Result<Evaluator<'a>> {
        Ok(Evaluator {
            sh,
            tree,
            root: path::absolute(tree.root())?,
            program: None,
        })
    }

    /// Evaluates what is in the queue until nothing is left in it.
    fn evaluate_all(&mut self, queue: &Queue) -> Result<BTreeMap<usize, Evaluated>> {
        let mut done = BTreeMap::new();
        while let Some((index, wanted)) = queue.next() {
            let is_new = self.program.is_none();
            let mut evaluated = self.evaluate(wanted)?;
            if evaluated.is_too_much() && !is_new {
                // What others left behind is no fault of this file.
                evaluated = self.evaluate(wanted)?;
            }
            process::check_stopped()?;
            if evaluated.is_too_much() {
                queue.add_too_much(index);
            }
            done.insert(index, evaluated);
        }
        Ok(done)
    }

    fn evaluate(&mut self, wanted: &Wanted) -> Result<Evaluated> {
        let mut program = match self.program.take() {
            Some(program) => program,
            None => Program {
                conversation: self.start()?,
                asked: Sources::new(),
            },
        };
        let Program {
            conversation,
            asked,
        } = &mut program;
        let answer = conversation.within(LIMITS, |it| self.converse(it, wanted, asked));
        let message = match answer {
            Ok(Ok(evaluated)) => {
                self.program = Some(program);
                return Ok(evaluated);
            }
            Ok(Err(_)) => "the evaluator gave up: is something nested too deeply?",
            Err(Exceeded::Time) => "it takes more than 5 s of a processor",
            Err(Exceeded::Memory) => "it takes more than 512 MiB of memory",
        };
        Ok(Evaluated {
            made: Err(Failure {
                is_too_much: true,
                ..Failure::of(&wanted.file, message)
            }),
            sources: program.asked,
        })
    }

    /// Starts the program without any variable: what the environment holds is no business of jsonnet.
    fn start(&self) -> Result<Conversation> {
        let file = programs::find(self.sh, JSONNET)?;
        converse(self.sh, cmd!(self.sh, "env -i {file}"))
    }

    /// Has a file evaluated. An error means that the program cannot be heard any more.
    fn converse(
        &self,
        program: &mut Conversation,
        wanted: &Wanted,
        asked: &mut Sources,
    ) -> Result<Evaluated> {
        let request = Request {
            file: &self.root.join(&wanted.file),
            variables: &wanted.variables,
        };
        program.tell(&serde_json::to_string(&request)?, b"")?;
        loop {
            match serde_json::from_str(&program.hear()?)? {
                Said::Read(path) => {
                    let path = self.relative(&path);
                    let digest = self.give(program, &path)?;
                    asked.insert(path, digest);
                }
                Said::Made(report) => {
                    let json = program.read(report.length, MOST_MADE)?;
                    return Ok(self.made(wanted, report, &json, asked));
                }
                Said::Failed(report) => {
                    let message = program.read(report.length, LONGEST_MESSAGE)?;
                    return Ok(self.failed(&report, &message, asked));
                }
            }
        }
    }

    /// The verdict on a file that made values, of which `json` may be only the beginning.
    fn made(&self, wanted: &Wanted, mut report: Report, json: &[u8], asked: &Sources) -> Evaluated {
        if report.length > MOST_MADE {
            let message = format!("it makes more than {} MiB of values", MOST_MADE >> 20);
            let failure = Failure::of(&wanted.file, &message);
            return self.evaluated(Err(failure), &report.paths, asked);
        }
        self.make_relative(&mut report.places);
        let made = Made {
            json: String::from_utf8_lossy(json).into_owned(),
            places: report.places,
        };
        self.evaluated(Ok(made), &report.paths, asked)
    }

    /// The verdict on a file that failed with a message, of which this may be only the beginning.
    fn failed(&self, report: &Report, message: &[u8], asked: &Sources) -> Evaluated {
        let mut message = self.with_paths_from_root(&String::from_utf8_lossy(message));
        if report.length > LONGEST_MESSAGE {
            message += " …";
        }
        let failure = Failure {
            line: report.line.max(1),
            column: report.column.max(1),
            ..Failure::of(&self.relative(&report.file), &message)
        };
        self.evaluated(Err(failure), &report.paths, asked)
    }

    fn evaluated(
        &self,
        made: Result<Made, Failure>,
        paths: &BTreeSet<PathBuf>,
        asked: &Sources,
    ) -> Evaluated {
        let mut sources = Sources::new();
        for path in paths.iter().map(|it| self.relative(it)) {
            if self.is_outside(&path) {
                continue;
            }
            let digest = asked.get(&path).cloned().flatten();
            if let Ok(Some(found)) = self.tree.find(&path) {
                sources.insert(found.path, digest.clone());
            }
            sources.insert(path, digest);
        }
        Evaluated { made, sources }
    }

    /// Makes the paths of files those from the root.
    fn make_relative(&self, places: &mut Places) {
        for place in places.values_mut() {
            place.file = place.file.as_deref().map(|it| self.relative(it));
            self.make_relative(&mut place.below);
        }
    }

    /// Gives a file to the program, if the repository has it. Returns its digest.
    fn give(&self, program: &mut Conversation, path: &Path) -> Result<Option<String>> {
        let (answer, content) = match self.read(path) {
            Ok(Some(content)) => (json!({ "length": content.len() }), Some(content)),
            Ok(None) => (json!({ "missing": true }), None),
            Err(err) => (json!({ "refused": format!("{err:#}") }), None),
        };
        let bytes = content.as_deref().unwrap_or_default();
        program.tell(&answer.to_string(), bytes)?;
        Ok(content.as_deref().map(|it| digest_of([it])))
    }

    /// What the repository has at a path from the root.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        ensure!(!self.is_outside(path), "it is {OUTSIDE}");
        let Some(found) = self.tree.find(path)? else {
            return Ok(None);
        };
        let is_secret = is_called_secret(path) || is_called_secret(&found.path);
        ensure!(
            !is_secret,
            "it is called secret, and what evaluates jsonnet gets no secrets"
        );
        ensure!(
            git_crypt::marked(self.sh, self.tree, [path])?.is_empty(),
            "git-crypt encrypts it, and what evaluates jsonnet gets no secrets"
        );
        self.tree.read_found(&found).map(Some)
    }

    fn is_outside(&self, path: &Path) -> bool {
        self.tree.below_top(path).starts_with("..")
    }

    /// A message that does not depend on where the repository is.
    fn with_paths_from_root(&self, message: &str) -> String {
        message.replace(&format!("{}/", self.root.display()), "")
    }

    /// The path from the root of one that is absolute.
    fn relative(&self, path: &Path) -> PathBuf {
        paths::from(&self.root, path)
    }
}

impl Evaluated {
    /// What stands for a file that took too much for other releases, and was made from these files there.
    fn given_up(file: &Path, sources: Sources) -> Evaluated {
        let message =
            format!("it took too much for {TRIES} other releases, and is not evaluated for more");
        Evaluated {
            made: Err(Failure::of(file, &message)),
            sources,
        }
    }

    fn is_too_much(&self) -> bool {
        self.made.as_ref().err().is_some_and(|it| it.is_too_much)
    }
}
