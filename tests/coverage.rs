//! `COVERAGE.md` names every behaviour, and only tests that exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("COVERAGE.md");
const BEHAVIOURS: usize = 152;

/// The cells of each row: number, behaviour, what shows it.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    PAGE.lines().filter(|line| line.starts_with("| S-")).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("three cells: {line}"))
    })
}

/// What stands between two marks, each time.
fn marked(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

#[test]
fn every_number_has_its_row() {
    let expected: Vec<_> = (1..=BEHAVIOURS).map(|number| format!("S-{number:03}")).collect();
    let found: Vec<_> = rows().map(|[number, ..]| number).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_row_has_a_test_an_issue_or_a_reason() {
    let waited_for: BTreeSet<_> =
        PAGE.lines().filter_map(|line| marked(line.strip_prefix("* ")?, '*').next()).collect();
    assert_eq!(waited_for, BTreeSet::new());
    for [number, behaviour, shown] in rows() {
        assert!(!behaviour.is_empty(), "{number}");
        let tested = shown.starts_with('`');
        let excused = shown.strip_prefix("no test: ").is_some_and(|reason| reason.len() > 20);
        let mut waits = marked(shown, '*').peekable();
        assert!(tested || excused || waits.peek().is_some(), "{number}: {shown}");
        for title in waits {
            assert!(waited_for.contains(title), "{number} waits for {title}");
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut named = 0;
    for [number, _, shown] in rows() {
        for path in marked(shown, '`').filter(|name| name.contains("::")) {
            assert!(exists(path), "{number} names {path}");
            named += 1;
        }
    }
    assert!(named > 100, "only {named} tests are named");
    assert!(!exists("delivery::no_such_test") && !exists("no_such_file::test"));
}

/// Whether a file declares all of a path: functions, modules, and tests that a macro makes.
fn exists(path: &str) -> bool {
    let (file, rest) = path.split_once("::").expect("file::test");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places =
        ["tests", "src", "ffi/tests"].map(|folder| root.join(folder).join(format!("{file}.rs")));
    let Some(source) = places.iter().find_map(|place| std::fs::read_to_string(place).ok()) else {
        return false;
    };
    rest.split("::").all(|name| declares(&source, name))
}

fn declares(source: &str, name: &str) -> bool {
    let is_word = |text: char| text.is_alphanumeric() || text == '_';
    source.match_indices(name).any(|(at, _)| {
        let (before, after) = (&source[..at], &source[at + name.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        let before = before.trim_end();
        whole && ["fn", "mod", "!("].iter().any(|declaration| before.ends_with(declaration))
    })
}
