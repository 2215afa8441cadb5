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
use support::ports::{Bounce, RoundTrip, Stream, close_seen, death_seen, run_far_end};

fn main() {
    run_far_end();
    // `cargo bench -- --test` and `cargo test --benches` only want to see that it works.
    let quick = std::env::args().any(|arg| arg == "--test");
    let only: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let run = Run { reps: if quick { 1 } else { 21 }, scale: if quick { 50 } else { 1 }, only };

    println!("{:<48}{:>10}{:>10}{:>26}", "ours / theirs", "ours", "theirs", "ratio (min … max)");
    run.pair("stream: 64 B, M msg/s / rtrb in threads", rate, 1_000_000, || {
        (Stream::new(), Rtrb::new())
    });
    run.pair("spin: 64 B round trip, ns / cache line", nanos, 100_000, || {
        (RoundTrip::new("spin"), CacheLine::new())
    });
    run.pair("sleep: 64 B round trip, ns / bare seqpacket", nanos, 5_000, || {
        (RoundTrip::new("sleep"), Seqpacket::new())
    });
    run.pair("transfer: there and back, ns, 1000 unread / 0", nanos, 2_000, || {
        (Bounce::new(1000), Bounce::new(0))
    });
    run.seen("close: seen by a sleeping reader, µs", close_seen);
    run.seen("death: SIGKILL seen by a sleeping reader, µs", death_seen);
}

struct Run {
    reps: u64,
    scale: u64,
    only: Vec<String>,
}

impl Run {
    /// Measures both cases by turns and prints a line; one turn of each goes before, unmeasured.
    fn pair<O: Case, T: Case>(
        &self,
        name: &str,
        unit: fn(f64) -> f64,
        steps: u64,
        cases: impl FnOnce() -> (O, T),
    ) {
        if !self.wants(name) {
            return;
        }
        let steps = steps / self.scale;
        let (mut ours, mut theirs) = cases();
        let per_step = |time: Duration| time.as_nanos() as f64 / steps as f64;
        ours.run(steps);
        theirs.run(steps);
        let (our, their) = (0..self.reps)
            .map(|_| (per_step(ours.run(steps)), per_step(theirs.run(steps))))
            .unzip();
        Pair { ours: our, theirs: their }.print(name, unit);
        if let Some(sleeps) = ours.sleeps() {
            println!("  {sleeps} sleeps at this end in {} steps", (self.reps + 1) * steps);
        }
    }
}

struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
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
        println!("{name:<48}{ours:>10.1}{theirs:>10.1}{ratio:>12.2} ({min:.2} … {max:.2})");
    }
}

impl Run {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.starts_with(word.as_str()))
    }

    /// Measures how soon something is seen, with a fresh process each time.
    fn seen(&self, name: &str, measure: fn() -> Duration) {
        if !self.wants(name) {
            return;
        }
        let times = (0..2 * self.reps).map(|_| measure().as_nanos() as f64 / 1e3).collect();
        let (median, min, max) = spread(times);
        println!("{name:<48}{median:>10.1}{:>22}({min:.1} … {max:.1})", "");
    }
}

/// Median, minimum, maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
