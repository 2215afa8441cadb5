//! The pages for users name what exists, and all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/from-electron.md",
    "benches/NOTES.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the links of a page lead, but for those to other places.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let ends = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ends.filter(|link| !link.contains("://"))
}

/// As a heading is named in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_heading(page: &str, wanted: &str) -> bool {
    let headings = page.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#'))).any(|found| found == wanted)
}

fn leads_somewhere(from: &Path, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { from.to_path_buf() } else { from.with_file_name(path) };
    target.exists()
        && (heading.is_empty() || has_heading(&fs::read_to_string(target).unwrap(), heading))
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    for name in PAGES {
        let path = root().join(name);
        for link in links(&fs::read_to_string(&path).unwrap()) {
            assert!(leads_somewhere(&path, link), "{name} links to {link}");
            found += 1;
        }
    }
    assert!(found > 30, "only {found} links");
    let readme = root().join("README.md");
    assert!(!leads_somewhere(&readme, "examples/none.rs"));
    assert!(!leads_somewhere(&readme, "SECURITY.md#no-such-heading"));
}

#[test]
fn every_example_is_listed_and_tested() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let files = fs::read_dir(root().join("examples")).unwrap().map(|file| file.unwrap().path());
    let examples: BTreeSet<String> =
        files.filter_map(|file: PathBuf| Some(file.file_stem()?.to_str()?.to_string())).collect();
    let (readme, electron, tests) =
        (read("README.md"), read("docs/from-electron.md"), read("tests/examples.rs"));
    for example in &examples {
        assert!(readme.contains(&format!("[`{example}`](examples/{example}.rs)")), "{example}");
        assert!(
            electron.contains(&format!("[`{example}`](../examples/{example}.rs)")),
            "{example}"
        );
        assert!(tests.contains(&format!("run_example(\"{example}\"")), "{example}");
    }
    assert!(examples.len() > 10);
}
