//! Cases from folders: tests/cases/NAME has the arguments in `args`, what tests/repo lacks, and in `expected` all that
//! the program writes. `UPDATE_EXPECT=1 cargo test` writes that anew, for review.

use std::{env, fs, path::Path};

use crate::repo::{Repo, copy};

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() > 10);
    let mut differing = Vec::new();
    for case in &cases {
        let repo = Repo::new();
        copy(case, &repo.root);
        let args = fs::read_to_string(case.join("args")).unwrap();
        let first = show(&repo, &args);
        assert_eq!(
            first,
            show(&repo, &args),
            "{}: one input, two outputs",
            case.display()
        );
        let expected = case.join("expected");
        if env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected, &first).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != first {
            differing.push(format!("{} differs:\n{first}", expected.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn show(repo: &Repo, args: &str) -> String {
    let ran = repo.run(args);
    let text = format!(
        "exit status {}\n--- stdout\n{}--- stderr\n{}",
        ran.code.unwrap(),
        ran.stdout,
        ran.stderr
    );
    text.replace(repo.root.to_str().unwrap(), "ROOT")
}
