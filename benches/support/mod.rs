//! What criterion measures (`benches/messages.rs`). A case runs so many steps and says how long they took.
//!
//! All run between two processes, which are pinned, one to each of the first two processors. Every payload is
//! written whole and checked whole.

pub mod ports;

use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Something to measure.
pub trait Case {
    /// Runs so many steps (messages, round trips) and says how long they took.
    fn run(&mut self, steps: u64) -> Duration;
}

/// Bytes of the payload in all cases that do not say otherwise, as words.
pub type Payload = [u64; 8];

/// The payload of step `step`: no two words alike, so that a torn or stale one shows.
#[inline]
pub fn payload(step: u64) -> Payload {
    std::array::from_fn(|word| step.wrapping_add(word as u64))
}

/// Checks all of a payload.
#[inline]
pub fn check(found: &Payload, step: u64) {
    assert_eq!(*found, payload(step), "a wrong payload at step {step}");
}

/// The end that measures.
pub const NEAR: usize = 0;
/// The end that answers.
pub const FAR: usize = 1;

/// Pins the calling thread to processor 0 or 1; where there is no such, the bench runs unpinned.
pub fn pin(end: usize) {
    let mut only = CpuSet::new();
    only.set(end);
    let _ = sched_setaffinity(None, &only);
}
