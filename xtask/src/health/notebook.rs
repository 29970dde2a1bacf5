//! Notebooks: <https://nbformat.readthedocs.io/en/latest/format_description.html>, version 4.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    health::kernel::{Failure, Kernel},
    machine::until::Until,
    repository::hub_traits::HubTraits,
};

/// How long a cell may take.
const CELL: Duration = Duration::from_secs(300);

/// The tag of a cell that must write and show what the notebook holds.
const CHECKED: &str = "check-output";

pub(crate) struct Notebook {
    pub(crate) name: String,
    cells: Vec<Cell>,
}

struct Cell {
    /// Its place among all cells, from 1.
    number: usize,
    source: String,
    /// What it must write and show.
    expected: Option<Vec<Text>>,
}

/// What was written to a stream, or shown.
#[derive(PartialEq)]
struct Text {
    /// The stream's name, or the media type.
    kind: String,
    text: String,
}

#[derive(Deserialize)]
struct File {
    nbformat: u32,
    cells: Vec<RawCell>,
}

#[derive(Deserialize)]
struct RawCell {
    cell_type: String,
    source: Value,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    outputs: Vec<Value>,
}

impl Notebook {
    /// The notebooks that every hub of this kind must be able to run.
    pub(crate) fn of(kind: &HubTraits) -> Vec<Notebook> {
        let mut notebooks = vec![Notebook::built_in(
            "simple",
            include_str!("notebooks/simple.ipynb"),
        )];
        if kind.has_dask {
            let dask = include_str!("notebooks/dask.ipynb");
            notebooks.push(Notebook::built_in("dask", dask));
        }
        notebooks
    }

    /// One that needs Dask's workers to come and go.
    pub(crate) fn scaling() -> Notebook {
        Notebook::built_in("dask-scaling", include_str!("notebooks/dask-scaling.ipynb"))
    }

    fn built_in(name: &str, text: &str) -> Notebook {
        Notebook::read(name, text).expect("it was a notebook when this was compiled")
    }

    pub(crate) fn read(name: &str, text: &str) -> Result<Notebook> {
        let file =
            parse(text).with_context(|| format!("`{name}` is not a notebook of version 4"))?;
        let mut cells = Vec::new();
        for (cell, number) in file.cells.into_iter().zip(1..) {
            let source = joined(&cell.source);
            if cell.cell_type == "code" && !source.trim().is_empty() {
                cells.push(Cell {
                    number,
                    source,
                    expected: cell.is_checked().then(|| texts(&cell.outputs)),
                });
            }
        }
        ensure!(
            !cells.is_empty(),
            "the notebook `{name}` has no code to run"
        );
        Ok(Notebook {
            name: name.to_owned(),
            cells,
        })
    }

    /// Runs all cells in order.
    pub(crate) fn run(&self, kernel: &mut Kernel, until: Until) -> Result<()> {
        for cell in &self.cells {
            let name = format!("cell {} of the notebook `{}`", cell.number, self.name);
            let output = kernel.run(&cell.source, until.within(CELL));
            let outputs = match output.with_context(|| name.clone())? {
                Ok(outputs) => outputs,
                Err(Failure(failure)) => {
                    bail!("{name} fails: {failure}\nIts code:\n{}", cell.source)
                }
            };
            let given = texts(&outputs);
            if let Some(expected) = &cell.expected
                && *expected != given
            {
                bail!(
                    "{name} gives {}, not {}\nIts code:\n{}",
                    shown(&given),
                    shown(expected),
                    cell.source
                );
            }
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<File> {
    let file: File = serde_json::from_str(text)?;
    ensure!(
        file.cells
            .iter()
            .all(|cell| cell.source.is_string() || cell.source.is_array()),
        "a cell's source is not text"
    );
    ensure!(file.nbformat == 4, "it has version {}", file.nbformat);
    Ok(file)
}

impl RawCell {
    fn is_checked(&self) -> bool {
        let tags = self.metadata["tags"].as_array();
        tags.is_some_and(|tags| tags.iter().any(|tag| tag == CHECKED))
    }
}

/// The texts in outputs of a kernel or a notebook, sorted. Each stream is one text, for how streams mix is chance. Of what
/// is shown as plain text and otherwise, the plain text counts.
fn texts(outputs: &[Value]) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    for output in outputs {
        if let Some(name) = output["name"].as_str() {
            let text = joined(&output["text"]);
            match texts.iter_mut().find(|it| it.kind == name) {
                Some(stream) => stream.text.push_str(&text),
                None => texts.push(Text {
                    kind: name.to_owned(),
                    text,
                }),
            }
        }
        texts.extend(shown_texts(&output["data"]));
    }
    for text in &mut texts {
        text.text.truncate(text.text.trim_end().len());
    }
    texts.retain(|text| !text.text.is_empty());
    texts.sort_by(|a, b| a.kind.cmp(&b.kind));
    texts
}

/// The texts in a MIME bundle
/// (<https://nbformat.readthedocs.io/en/latest/format_description.html#display-data>).
fn shown_texts(bundle: &Value) -> impl Iterator<Item = Text> {
    let has_plain = !bundle["text/plain"].is_null();
    bundle
        .as_object()
        .into_iter()
        .flatten()
        .filter(move |(kind, _)| {
            if has_plain {
                *kind == "text/plain"
            } else {
                kind.starts_with("text/")
            }
        })
        .map(|(kind, text)| Text {
            kind: kind.clone(),
            text: joined(text),
        })
}

/// Texts for a message.
fn shown(texts: &[Text]) -> String {
    let texts: Vec<_> = texts
        .iter()
        .map(|it| format!("{} {:?}", it.kind, it.text))
        .collect();
    if texts.is_empty() {
        "nothing".to_owned()
    } else {
        texts.join(", ")
    }
}

/// A text, which may be there as a list of its lines.
fn joined(text: &Value) -> String {
    match text {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        text => text.as_str().unwrap_or_default().to_owned(),
    }
}
