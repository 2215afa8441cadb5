//! The machine on which this runs: its processors, its clock, and what it is called.

use std::hint::spin_loop;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The processor of the end that measures.
pub const NEAR: usize = 0;
/// The processor of the end that answers.
pub const FAR: usize = 1;

/// Pins the calling thread to one processor. Where there is no such, it runs unpinned.
pub fn pin(processor: usize) {
    let _ = try_pin(processor);
}

/// Pins the calling thread to the near end's processor, and says if ends cannot be pinned here.
pub fn pin_near() {
    for processor in [FAR, NEAR] {
        if let Err(error) = try_pin(processor) {
            eprintln!("cannot pin to processor {processor}, measuring unpinned: {error}");
        }
    }
}

fn try_pin(processor: usize) -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only)
}

/// The clock that all processes share, in nanoseconds.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Spins until `time` on the shared clock.
pub fn wait_until(time: u64) {
    while now() < time {
        spin_loop();
    }
}

/// So long, in nanoseconds.
pub fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// Processor and kernel, for the foot of the chart.
pub fn description() -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let system = rustix::system::uname();
    let [name, release] = [system.sysname(), system.release()].map(|text| text.to_string_lossy());
    format!("{model}, {name} {release}")
}

/// The day, in UTC.
pub fn today() -> String {
    time::OffsetDateTime::now_utc().date().to_string()
}
