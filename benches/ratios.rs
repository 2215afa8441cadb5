//! Paired ratios: two cases by turns, so that whatever else the machine does hits both.
//!
//! `cargo bench --bench ratios` prints, for each pair, the medians of both, and the median, minimum
//! and maximum of the ratios of the repetitions. Then how soon a close and a death are seen.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use support::Case;
use support::floors::{CacheLine, Rtrb, Seqpacket};
use support::ports::{RoundTrip, Stream, run_far_end};

fn main() {
    run_far_end();
    // `cargo bench -- --test` and `cargo test --benches` only want to see that it works.
    let quick = std::env::args().any(|arg| arg == "--test");
    let reps = if quick { 1 } else { 21 };
    let scale = if quick { 1000 } else { 1 };

    println!(
        "{:<46}{:>12}{:>12}{:>24}",
        "pair (ours / theirs)", "ours", "theirs", "ratio (min … max)"
    );
    let streams = pair(reps, 2_000_000 / scale, &mut Stream::new(), &mut Rtrb::new());
    streams.print("stream 64 B, M msg/s / rtrb in threads", rate);
    let spin = pair(reps, 200_000 / scale, &mut RoundTrip::new("spin"), &mut CacheLine::new());
    spin.print("round trip spinning, ns / cache line", nanos);
    let mut sleeping = RoundTrip::new("sleep");
    let steps = 5_000 / scale.min(50);
    let sleep = pair(reps, steps, &mut sleeping, &mut Seqpacket::new());
    sleep.print("round trip sleeping, ns / bare seqpacket", nanos);
    let trips = (reps + 1) * steps;
    println!("  of {trips} sleeping round trips, this end slept in {}", sleeping.sleeps());
}

struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// Nanoseconds a step, by turns; one turn of each goes before, unmeasured.
fn pair(reps: u64, steps: u64, ours: &mut dyn Case, theirs: &mut dyn Case) -> Pair {
    let per_step = |time: Duration| time.as_nanos() as f64 / steps as f64;
    ours.run(steps);
    theirs.run(steps);
    let (ours, theirs) =
        (0..reps).map(|_| (per_step(ours.run(steps)), per_step(theirs.run(steps)))).unzip();
    Pair { ours, theirs }
}

fn rate(nanos: f64) -> f64 {
    1e3 / nanos
}

fn nanos(nanos: f64) -> f64 {
    nanos
}

impl Pair {
    fn print(&self, name: &str, unit: fn(f64) -> f64) {
        let ratios =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| unit(*ours) / unit(*theirs));
        let (ratio, min, max) = spread(ratios.collect());
        let (ours, ..) = spread(self.ours.iter().map(|x| unit(*x)).collect());
        let (theirs, ..) = spread(self.theirs.iter().map(|x| unit(*x)).collect());
        println!("{name:<46}{ours:>12.1}{theirs:>12.1}{ratio:>10.2} ({min:.2} … {max:.2})");
    }
}

/// Median, minimum, maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
