//! Notebooks: <https://nbformat.readthedocs.io/en/latest/format_description.html>, version 4.

use std::{iter, time::Duration};

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

/// Of this tag, a cell must write and show what the notebook holds.
const CHECKED: &str = "check-output";

pub(crate) struct Notebook {
    pub(crate) name: String,
    cells: Vec<Cell>,
}

struct Cell {
    /// Among all cells, from 1.
    number: usize,
    source: String,
    /// What it must write and show.
    expected: Option<Vec<Said>>,
}

/// The name of a stream or the kind of what is shown, and its text.
type Said = (String, String);

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
    /// What every hub of this kind must be able to run.
    pub(crate) fn of(kind: &HubTraits) -> Vec<Notebook> {
        let simple = Notebook::own("simple", include_str!("notebooks/simple.ipynb"));
        let dask = || Notebook::own("dask", include_str!("notebooks/dask.ipynb"));
        iter::once(simple).chain(kind.has_dask.then(dask)).collect()
    }

    /// Dask's workers come and go.
    pub(crate) fn scaling() -> Notebook {
        Notebook::own("dask-scaling", include_str!("notebooks/dask-scaling.ipynb"))
    }

    fn own(name: &str, text: &str) -> Notebook {
        Notebook::read(name, text).expect("it was a notebook when this was compiled")
    }

    pub(crate) fn read(name: &str, text: &str) -> Result<Notebook> {
        let what = || format!("`{name}` isn't a notebook of version 4");
        let file: File = serde_json::from_str(text).with_context(what)?;
        let has_source = |it: &RawCell| it.source.is_string() || it.source.is_array();
        ensure!(
            file.cells.iter().all(has_source),
            "{}: a cell's source is no text",
            what()
        );
        ensure!(
            file.nbformat == 4,
            "{}: it has version {}",
            what(),
            file.nbformat
        );
        let cells = file
            .cells
            .into_iter()
            .zip(1..)
            .filter(|(it, _)| it.cell_type == "code");
        let cells = cells.map(|(cell, number)| {
            let tags = cell.metadata["tags"].as_array();
            let is_checked = tags.is_some_and(|it| it.iter().any(|it| it == CHECKED));
            let expected = is_checked.then(|| said(&cell.outputs));
            Cell {
                number,
                source: whole(&cell.source),
                expected,
            }
        });
        let cells: Vec<_> = cells.filter(|it| !it.source.trim().is_empty()).collect();
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
        for Cell {
            number,
            source,
            expected,
        } in &self.cells
        {
            let of = || format!("cell {number} of the notebook `{}`", self.name);
            let output = kernel.run(source, until.within(CELL)).with_context(of)?;
            match output {
                Err(Failure(said)) => bail!("{} fails: {said}\nIts code:\n{source}", of()),
                Ok(outputs) => {
                    let given = said(&outputs);
                    if let Some(expected) = expected.as_ref().filter(|it| **it != given) {
                        let (given, expected) = (shown(&given), shown(expected));
                        bail!(
                            "{} gives {given}, not {expected}\nIts code:\n{source}",
                            of()
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

/// What outputs say, of a kernel or in a notebook. Each stream is whole, for how streams mix is chance; what is shown
/// as plain text and otherwise is that text.
fn said(outputs: &[Value]) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    for output in outputs {
        if let Some(name) = output["name"].as_str() {
            match said.iter_mut().find(|(it, _)| it == name) {
                Some((_, text)) => text.push_str(&whole(&output["text"])),
                None => said.push((name.to_owned(), whole(&output["text"]))),
            }
        }
        let data = &output["data"];
        let has_plain = data["text/plain"] != Value::Null;
        let kinds = data.as_object().into_iter().flatten();
        let kinds = kinds
            .filter(|(kind, _)| kind.starts_with("text/") && (!has_plain || *kind == "text/plain"));
        said.extend(kinds.map(|(kind, text)| (kind.clone(), whole(text))));
    }
    for (_, text) in &mut said {
        text.truncate(text.trim_end().len());
    }
    said.retain(|(_, text)| !text.is_empty());
    said.sort_by(|(one, _), (other, _)| one.cmp(other));
    said
}

/// For messages.
fn shown(said: &[Said]) -> String {
    let said: Vec<_> = said
        .iter()
        .map(|(kind, text)| format!("{kind} {text:?}"))
        .collect();
    if said.is_empty() {
        "nothing".to_owned()
    } else {
        said.join(", ")
    }
}

/// A text, which may be there as its lines.
fn whole(text: &Value) -> String {
    match text {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        text => text.as_str().unwrap_or_default().to_owned(),
    }
}
