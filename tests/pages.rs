//! The pages for users name what exists, and all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGES: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/c.md",
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

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The names of the files in a folder that end so, without that.
fn names_in(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = fs::read_dir(root().join(folder)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
}

#[test]
fn every_example_is_listed_and_tested() {
    let (readme, electron, tests) =
        (read("README.md"), read("docs/from-electron.md"), read("tests/examples.rs"));
    let examples = names_in("examples", ".rs");
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

/// (`ci/install` builds and runs all of them.)
#[test]
fn every_example_in_c_is_listed() {
    let (readme, page) = (read("README.md"), read("docs/c.md"));
    let examples = names_in("examples/c", "");
    for example in &examples {
        assert!(readme.contains(&format!("[`{example}`](examples/c/{example})")), "{example}");
        assert!(page.contains(&format!("(../examples/c/{example})")), "{example}");
    }
    assert!(examples.len() > 2);
}

/// And from nothing to a message it takes thirty lines.
#[test]
fn the_pages_for_c_begin_with_an_example_that_is_built() {
    let hello = read("examples/c/hello.c");
    let shown = format!("```c\n{hello}```\n");
    assert!(read("README.md").contains(&shown));
    let page = read("docs/c.md");
    let first: Vec<_> = page.lines().take(30).collect();
    assert!(first.join("\n").ends_with(hello.trim_end()), "{first:?}");
    assert!(page.contains(&shown));
    // What they say before it is the same, too.
    let commands = |page: &str| {
        let all = page.split("```sh\n").find(|block| block.starts_with("make install"));
        all.and_then(|block| block.split("```").next()).unwrap().to_owned()
    };
    assert_eq!(commands(&page), commands(&read("README.md")));
}

#[test]
fn the_page_for_c_says_what_each_status_asks() {
    let (header, page) = (read("include/zeroport.h"), read("docs/c.md"));
    let names =
        header.lines().filter_map(|line| line.trim().strip_prefix("ZP_")?.split_once(" = "));
    let names: Vec<_> = names.map(|(name, _)| format!("`ZP_{name}`")).collect();
    assert!(names.len() > 30, "{names:?}");
    let table = page.split("## What a status asks").nth(1).unwrap();
    let missing: Vec<_> = names.iter().filter(|name| !table.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
