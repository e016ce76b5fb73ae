//! Compares `limits.txt`, the list of bounds and their tests, with the sources.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

const LIST: &str = include_str!("limits.txt");

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The bounds in the list, each with the test that reaches it.
fn listed() -> Vec<(&'static str, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split_once("  ").unwrap_or_else(|| panic!("put two spaces after the name of the bound: {line}"))
        })
        .collect()
}

/// The public constants of `limits`.
fn defined() -> BTreeSet<String> {
    let files = std::fs::read_dir(repository().join("proto/src/limits")).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let names = |text: String| -> Vec<String> {
        let consts = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
        consts.map(|(name, _)| name.to_owned()).collect()
    };
    texts.flat_map(names).collect()
}

/// Whether a file has a test with this name. The test is a function, or a scene of a transcript.
fn has_test(file: &str, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(repository().join(file)) else { return false };
    let mut lines = text.lines().map(str::trim).peekable();
    if file.ends_with(".txt") {
        return lines.any(|line| line.strip_prefix("# ") == Some(name));
    }
    let function = format!("fn {name}(");
    let mut is_test = false;
    lines.any(|line| {
        if line.starts_with("#[") {
            is_test |= line.contains("test");
            return false;
        }
        let found = is_test && line.contains(&function);
        is_test &= line.starts_with("//");
        found
    })
}

#[test]
fn each_bound_is_listed_once() {
    let listed: Vec<String> = listed().into_iter().map(|(name, _)| name.to_owned()).collect();
    let distinct: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a bound is listed twice");
    let defined = defined();
    assert!(defined.len() > 190, "the constants were not found");
    let missing: Vec<_> = defined.difference(&distinct).collect();
    assert!(
        missing.is_empty(),
        "add a line for {missing:?} to proto/tests/limits.txt: the test that reaches it, or the reason why no test does"
    );
    let unknown: Vec<_> = distinct.difference(&defined).collect();
    assert!(
        unknown.is_empty(),
        "proto/src/limits does not define {unknown:?}: remove the lines from proto/tests/limits.txt"
    );
}

#[test]
fn each_test_in_the_list_exists() {
    let mut wrong = Vec::new();
    for (bound, what) in listed() {
        if let Some(reason) = what.strip_prefix("- ") {
            assert!(reason.len() > 20, "{bound}: the reason why no test reaches it is too short");
            continue;
        }
        let Some((file, name)) = what.split_once(": ") else {
            panic!("{bound}: write the file and the name of a test, as `file: name`, not {what}")
        };
        if !has_test(file, name) {
            wrong.push(format!("{bound}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "these tests of proto/tests/limits.txt do not exist:\n{}", wrong.join("\n"));
}
