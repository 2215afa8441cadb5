//! Every input that the fuzzers began with, and every one that ever found something, run again.

use std::fs;
use std::path::Path;

#[test]
fn kept_inputs_pass() {
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
