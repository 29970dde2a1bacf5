//! Notebooks: <https://nbformat.readthedocs.io/en/latest/format_description.html>, version 4.

use std::{iter, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Until,
    kernel::{Failure, Kernel},
};
use crate::validate::Kind;

/// How long a cell may take.
const CELL: Duration = Duration::from_secs(300);

/// Of this tag, a cell must write and show what the notebook holds.
const CHECKED: &str = "check-output";

pub(super) struct Notebook {
    pub(super) name: String,
    cells: Vec<Cell>,
}

struct Cell {
    /// Among all cells, from 1.
    number: usize,
    source: String,
    /// What it must write and show.
    expected: Option<String>,
}

#[derive(Deserialize)]
struct File {
    nbformat: u32,
    cells: Vec<RawCell>,
}

#[derive(Deserialize)]
struct RawCell {
    cell_type: String,
    source: Text,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    outputs: Vec<RawOutput>,
}

#[derive(Deserialize)]
struct RawOutput {
    text: Option<Text>,
    #[serde(default)]
    data: std::collections::BTreeMap<String, Value>,
}

/// A text, or its lines.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Whole(String),
    Lines(Vec<String>),
}

impl Text {
    fn whole(self) -> String {
        match self {
            Text::Whole(text) => text,
            Text::Lines(lines) => lines.concat(),
        }
    }
}

impl Notebook {
    /// What every hub of this kind must be able to run.
    pub(super) fn of(kind: &Kind) -> Vec<Notebook> {
        let simple = Notebook::own("simple", include_str!("notebooks/simple.ipynb"));
        let dask = || Notebook::own("dask", include_str!("notebooks/dask.ipynb"));
        iter::once(simple).chain(kind.has_dask.then(dask)).collect()
    }

    /// Dask's workers come and go.
    pub(super) fn scaling() -> Notebook {
        Notebook::own("dask-scaling", include_str!("notebooks/dask-scaling.ipynb"))
    }

    fn own(name: &str, text: &str) -> Notebook {
        Notebook::read(name, text).expect("it was a notebook when this was compiled")
    }

    pub(super) fn read(name: &str, text: &str) -> Result<Notebook> {
        let what = || format!("`{name}` isn't a notebook of version 4");
        let file: File = serde_json::from_str(text).with_context(what)?;
        ensure!(file.nbformat == 4, "{}: it has version {}", what(), file.nbformat);
        let cells = file.cells.into_iter().zip(1..).filter(|(it, _)| it.cell_type == "code");
        let cells = cells.map(|(cell, number)| {
            let tags = cell.metadata["tags"].as_array();
            let is_checked = tags.is_some_and(|it| it.iter().any(|it| it == CHECKED));
            let expected: String = cell.outputs.into_iter().map(shown).collect();
            Cell { number, source: cell.source.whole(), expected: is_checked.then_some(expected) }
        });
        let cells: Vec<_> = cells.filter(|it| !it.source.trim().is_empty()).collect();
        ensure!(!cells.is_empty(), "the notebook `{name}` has no code to run");
        Ok(Notebook { name: name.to_owned(), cells })
    }

    /// Runs all cells in order.
    pub(super) fn run(&self, kernel: &mut Kernel, until: Until) -> Result<()> {
        for Cell { number, source, expected } in &self.cells {
            let of = || format!("cell {number} of the notebook `{}`", self.name);
            let output = kernel.run(source, until.within(CELL)).with_context(of)?;
            match output {
                Err(Failure(said)) => bail!("{} fails: {said}\nIts code:\n{source}", of()),
                Ok(output) => {
                    if let Some(expected) = expected.as_ref().filter(|it| it.trim() != output.trim()) {
                        bail!(
                            "{} gives {:?}, not {:?}\nIts code:\n{source}",
                            of(),
                            output.trim(),
                            expected.trim()
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

fn shown(output: RawOutput) -> String {
    if let Some(text) = output.text {
        return text.whole();
    }
    let plain = output.data.get("text/plain").cloned().unwrap_or_default();
    let plain: Option<Text> = serde_json::from_value(plain).ok();
    plain.map_or_else(String::new, |it| it.whole() + "\n")
}
