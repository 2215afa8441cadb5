//! zeroport and its rivals in one run, by turns, each between two processes.
//!
//! `cargo run --release --manifest-path benches/against/Cargo.toml [-- --quick]`
//!
//! | case | what one step is |
//! |---|---|
//! | `setup` | a request carries a fresh reply port; ten replies come on it, then its close |

mod ipc;
#[path = "../../support/mod.rs"]
mod support;

use support::Case;
use support::ports::{ReplyStream, run_far_end};

fn main() {
    run_far_end();
    ipc::run_far_end();
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (repetitions, steps) = if quick { (5, 500) } else { (21, 2_000) };

    let mut cases: [(&str, Box<dyn Case>); 2] = [
        ("zeroport", Box::new(ReplyStream::new())),
        ("ipc-channel", Box::new(ipc::ReplyStream::new())),
    ];
    // One turn of each, unmeasured, then by turns: whatever else the machine does hits all of them.
    let mut micros = [const { Vec::new() }; 2];
    for repetition in 0..=repetitions {
        for (case, micros) in cases.iter_mut().zip(&mut micros) {
            let time = case.1.run(steps);
            if repetition > 0 {
                micros.push(time.as_nanos() as f64 / 1e3 / steps as f64);
            }
        }
    }
    let [ours, theirs] = &micros;
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    println!("setup, µs: request with a fresh reply port, ten replies, close");
    for ((name, _), micros) in cases.iter().zip(&micros) {
        let (median, min, max) = spread(micros.clone());
        println!("  {name:<14}{median:>8.1} ({min:.1} … {max:.1})");
    }
    let (median, min, max) = spread(ratios);
    println!("  zeroport / ipc-channel {median:.2} ({min:.2} … {max:.2}), paired");
}

/// Median, minimum, maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
