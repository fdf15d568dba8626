//! House rules that a compiler does not check: doors of foreign crates, headers, file sizes, unfinished marks.
#![allow(clippy::expect_used, clippy::panic)] // a test

use std::path::{Path, PathBuf};

/// Lines of code (in-file tests not counted) above which a file needs a reason in `LARGE`.
const MAX_LINES: usize = 500;

/// Files over the limit, each with its reason.
const LARGE: &[(&str, &str)] = &[
    ("server/src/sql/ast.rs", "one list of statement types, no logic"),
    ("server/src/sql/bind.rs", "one match over every expression form"),
    ("server/src/sql/parse/expr.rs", "one precedence table and its prefix forms"),
];

/// A foreign crate's name as code mentions it, and the only paths (from the root, by prefix) that may.
const DOORS: &[(&str, &[&str])] = &[
    ("openraft::", &["wal/src/raft"]),
    ("io_uring::", &["wal/src/disk/uring", "cache/src/nvme/"]),
    ("object_store::", &["engine/src/store", "tests/", "benches/compare/slatedb"]),
    ("moka::", &["cache/src/failures.rs"]),
];

/// Crate folders, and the names that their sources must never mention.
const ABSENT: &[(&str, &[&str])] = &[
    ("wal/src", &["holdfast_cache", "object_store", "holdfast::"]),
    ("cache/src", &["holdfast_wal", "object_store", "openraft", "holdfast::"]),
    ("engine/src", &["openraft::", "io_uring::", "mysql"]),
    ("server/src", &["holdfast_wal", "holdfast_cache", "openraft::", "object_store::"]),
];

struct Source {
    /// Path from the workspace's root.
    path: String,
    text: String,
}

impl Source {
    /// The text before the in-file tests.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    /// The code without its comments.
    fn statements(&self) -> String {
        self.code().lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["wal", "cache", "engine", "server", "benches", "tests"].map(|c| root.join(c)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("readable source");
                let path = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "the walk found the workspace");
    found
}

/// Fails with every offence, so that one run shows all.
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    none(
        sources().iter().filter(|s| !s.text.starts_with("//!")).map(|s| format!("{}: no //! header", s.path)).collect(),
    );
}

#[test]
fn no_file_grows_beyond_its_one_job() {
    let over = |s: &Source| {
        let lines = s.code().lines().count();
        (lines > MAX_LINES && !LARGE.iter().any(|(path, _)| *path == s.path))
            .then(|| format!("{}: {lines} lines", s.path))
    };
    none(sources().iter().filter_map(over).collect());
}

#[test]
fn foreign_crates_have_one_door() {
    let mut offences = Vec::new();
    for source in sources() {
        let code = source.statements();
        for (name, doors) in DOORS {
            if code.contains(name)
                && !doors.iter().any(|door| source.path.starts_with(door))
                && !source.path.starts_with("tests/tidy")
            {
                offences.push(format!("{}: mentions {name}", source.path));
            }
        }
    }
    none(offences);
}

#[test]
fn crates_do_not_know_what_they_must_not() {
    let mut offences = Vec::new();
    for source in sources() {
        let code = source.statements();
        for (folder, names) in ABSENT {
            for name in *names {
                if source.path.starts_with(folder) && code.contains(name) && !allowed(&source.path, name) {
                    offences.push(format!("{}: mentions {name}", source.path));
                }
            }
        }
    }
    none(offences);
}

/// The engine's one door to the object store is the exception to nothing: it is the rule's other half.
fn allowed(path: &str, name: &str) -> bool {
    DOORS.iter().any(|(door, paths)| *door == name && paths.iter().any(|p| path.starts_with(p)))
}

#[test]
fn nothing_is_left_unfinished() {
    const MARKS: &[&str] = &["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX"];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| !s.path.starts_with("tests/tidy")) {
        for mark in MARKS.iter().filter(|m| source.text.contains(**m)) {
            offences.push(format!("{}: {mark}", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            offences.push(format!("{}: use foo.rs beside foo/", source.path));
        }
    }
    none(offences);
}
