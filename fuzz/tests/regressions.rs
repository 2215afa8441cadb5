//! Every input that the fuzzers began with, and every one that ever found something, run again.

use std::fs;
use std::path::Path;

/// A ring whose laps never end early was looked back on after the first record of a lap.
#[test]
fn a_ring_is_not_looked_back_on_for_nothing() {
    let (len, released) = (
        [240, 240, 240, 224, 0, 240, 208, 16, 480, 16, 464],
        [0, 0, 0, 512, 512, 512, 512, 1504, 1504, 2080, 0],
    );
    let steps: Vec<_> = len.into_iter().zip(released).collect();
    zeroport::fuzzing::post_into_ring(1024, &steps);
}

#[test]
fn kept_inputs_pass() {
    keep_stories();
    for (name, target) in zeroport_fuzz::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let kept: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(!kept.is_empty(), "{} is empty", corpus.display());
        for input in kept {
            println!("{name}: {}", input.path().display());
            target(&fs::read(input.path()).unwrap());
        }
    }
}

/// The corpus has them as they are written today; with `BLESS=1` they are written to it.
fn keep_stories() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/c_calls");
    for (name, calls) in zeroport_fuzz::STORIES {
        let (path, bytes) = (corpus.join(name), calls.concat());
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap_or_default(), bytes, "{}", path.display());
    }
}
