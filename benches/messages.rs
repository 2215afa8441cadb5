//! `cargo bench --bench messages`: streams, round trips and transfers between two processes, each by itself and
//! compared with its last run. For floors and rivals, measured by turns with these, see `benches/against`.
#![allow(missing_docs, unreachable_pub, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput};

use support::Case;
use support::ports::{Batches, Bounce, Fresh, ReplyStream, RoundTrip, Stream, Typed, run_far_end};

fn main() {
    run_far_end();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();

    let mut streams = criterion.benchmark_group("stream");
    streams.throughput(Throughput::Elements(1));
    measure(&mut streams, "raw 64 B", Stream::new);
    measure(&mut streams, "raw 64 B, batches of 64", Batches::new);
    measure(&mut streams, "typed: id, name, 16 floats", Typed::new);
    streams.finish();

    let mut trips = criterion.benchmark_group("round trip");
    measure(&mut trips, "spin 64 B", || RoundTrip::new("spin"));
    measure(&mut trips, "sleep 64 B", || RoundTrip::new("sleep"));
    measure(&mut trips, "adaptive 64 B", || RoundTrip::new("adaptive"));
    trips.finish();

    let mut transfers = criterion.benchmark_group("transfer");
    measure(&mut transfers, "fresh channel, one message, dropped", || Fresh);
    measure(&mut transfers, "request with a fresh port, ten replies, close", ReplyStream::new);
    measure(&mut transfers, "port there and back", || Bounce::new(0));
    measure(&mut transfers, "port with 1000 unread messages there and back", || Bounce::new(1000));
    transfers.finish();

    criterion.final_summary();
}

/// The case is made when it is measured, and only then: its far end is a process.
fn measure<C: Case>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    make: impl Fn() -> C,
) {
    group.bench_function(name, |bencher| {
        let mut case = make();
        bencher.iter_custom(|steps| case.run(steps));
    });
}
