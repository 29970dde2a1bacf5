//! .helmignore, as helm reads it.

use std::path::Path;

use glob::{MatchOptions, Pattern};

use crate::charts::files::Content;

/// Without what a .helmignore of these lines names in a chart's own folder. Our values.schema.yaml isn't helm's to ignore.
pub(crate) fn without_ignored(files: Content, rules: Option<Vec<u8>>) -> Content {
    let Some(rules) = rules else { return files };
    let rules = String::from_utf8_lossy(&rules);
    let rules: Vec<_> = rules
        .lines()
        .map(str::trim)
        .filter(|it| !it.is_empty() && !it.starts_with('#'))
        .collect();
    let is_ignored = |path: &Path, is_dir: bool| {
        rules.iter().any(|rule| {
            let (rule, negated) = rule
                .strip_prefix('!')
                .map_or((*rule, false), |it| (it, true));
            let (rule, wants_dir) = rule
                .strip_suffix('/')
                .map_or((rule, false), |it| (it, true));
            let subject = if rule.contains('/') {
                path
            } else {
                Path::new(path.file_name().unwrap_or_default())
            };
            let options = MatchOptions {
                require_literal_separator: true,
                ..MatchOptions::new()
            };
            let pattern = Pattern::new(rule.trim_start_matches('/'));
            let matches = pattern.is_ok_and(|it| it.matches_path_with(subject, options));
            (!wants_dir || is_dir) && matches != negated || negated && wants_dir && !is_dir
        })
    };
    let goes = |path: &Path| {
        path.ancestors()
            .enumerate()
            .any(|(up, it)| !it.as_os_str().is_empty() && is_ignored(it, up > 0))
    };
    files
        .into_iter()
        .filter(|(path, _)| path == Path::new("values.schema.yaml") || !goes(path))
        .collect()
}
