//! .helmignore, as helm reads it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use glob::{MatchOptions, Pattern};

use crate::machine::tree::Tree;

/// The rules of a .helmignore.
pub(crate) struct Ignore(Vec<Rule>);

struct Rule {
    /// None if it is not a pattern, which matches nothing.
    pattern: Option<Pattern>,
    is_negated: bool,
    is_for_folders: bool,
    /// Whether the pattern is for whole paths in the chart, not for names.
    is_for_paths: bool,
}

impl Ignore {
    /// The rules of the chart in a folder.
    pub(crate) fn of(tree: &Tree, chart: &Path) -> Result<Ignore> {
        let file = chart.join(".helmignore");
        let rules = tree
            .read_if_there(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        let rules = rules.unwrap_or_default();
        let unknown = lines(&String::from_utf8_lossy(&rules)).any(|it| it.contains("**"));
        ensure!(!unknown, "`{}`: helm does not know `**`", file.display());
        Ok(Ignore::parse(&rules))
    }

    /// The content of a .helmignore; an empty one ignores nothing.
    pub(crate) fn parse(content: &[u8]) -> Ignore {
        Ignore(
            lines(&String::from_utf8_lossy(content))
                .map(Rule::parse)
                .collect(),
        )
    }

    /// Whether helm leaves out a file of the chart, by its path in it, or a folder that it is in. values.schema.yaml is
    /// ours, and not helm's to ignore.
    pub(crate) fn ignores(&self, file: &Path) -> bool {
        if file == Path::new("values.schema.yaml") {
            return false;
        }
        let paths = file.ancestors().filter(|it| !it.as_os_str().is_empty());
        paths
            .enumerate()
            .any(|(up, path)| self.0.iter().any(|it| it.ignores(path, up > 0)))
    }
}

/// The lines that are rules.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim);
    lines.filter(|it| !it.is_empty() && !it.starts_with('#'))
}

impl Rule {
    fn parse(line: &str) -> Rule {
        let unnegated = line.strip_prefix('!');
        let line = unnegated.unwrap_or(line);
        let folder = line.strip_suffix('/');
        let line = folder.unwrap_or(line);
        Rule {
            pattern: Pattern::new(line.trim_start_matches('/')).ok(),
            is_negated: unnegated.is_some(),
            is_for_folders: folder.is_some(),
            is_for_paths: line.contains('/'),
        }
    }

    fn ignores(&self, path: &Path, is_folder: bool) -> bool {
        if self.is_for_folders && !is_folder {
            return self.is_negated;
        }
        self.matches(path) != self.is_negated
    }

    fn matches(&self, path: &Path) -> bool {
        let subject = if self.is_for_paths {
            path
        } else {
            Path::new(path.file_name().unwrap_or_default())
        };
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        self.pattern
            .as_ref()
            .is_some_and(|it| it.matches_path_with(subject, options))
    }
}
