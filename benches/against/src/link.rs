//! A way for payloads from this process to the far end, and what is measured on it.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::contest::Measure;
use crate::far::{Far, Job, Order};
use crate::payload::{fill, fill_stamped};

/// Where payloads go in. Several may be on their way; none is lost.
pub trait Outlet {
    /// Has a message of `len` bytes written, and sends it. Spins while there is no room.
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()>;
}

/// Where they come out, in the other process.
pub trait Inlet {
    /// Spins until there is a message, and has it read.
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R>;
}

/// An outlet, and the far end that holds its inlet.
pub struct Link<O> {
    // In this order: a far end leaves when it has lost its control port, whatever it holds.
    pub far: Far,
    pub outlet: O,
}

impl<O: Outlet> Link<O> {
    /// How long a stream takes until its last message has been checked.
    fn stream(&mut self, len: usize, steps: u64) -> Result<Duration> {
        let start = Instant::now();
        self.far.order(Order { job: Job::Stream, len, steps })?;
        for step in 0..steps {
            self.outlet.send(len, |room| fill(room, step))?;
        }
        self.far.answer()?;
        Ok(start.elapsed())
    }

    /// The median of the time from before a message is written until it has been checked.
    fn one_way(&mut self, len: usize, steps: u64) -> Result<Duration> {
        self.far.order(Order { job: Job::OneWay, len, steps })?;
        for step in 0..steps {
            let stamp = monotonic_nanos();
            self.outlet.send(len, |room| fill_stamped(room, step, stamp))?;
            self.far.answer()?;
        }
        self.far.answer().map(Duration::from_nanos)
    }
}

impl<O: Outlet + 'static> Link<O> {
    /// Measures GB/s of streams.
    pub fn gigabytes(mut self, len: usize, steps: u64) -> Measure {
        Box::new(move || Ok(rate(len as u64 * steps, self.stream(len, steps)?)))
    }

    /// Measures millions of messages a second.
    pub fn millions(mut self, len: usize, steps: u64) -> Measure {
        Box::new(move || Ok(1e3 * rate(steps, self.stream(len, steps)?)))
    }

    /// Measures the one-way latency in µs.
    pub fn latency(mut self, len: usize, steps: u64) -> Measure {
        Box::new(move || Ok(self.one_way(len, steps)?.as_nanos() as f64 / 1e3))
    }
}

/// So many in a nanosecond.
pub fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_nanos() as f64
}

/// The clock that all processes share.
pub fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
