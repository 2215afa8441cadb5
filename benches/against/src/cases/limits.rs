//! What the machine can do at best.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::Result;
use crate::contest::Measure;
use crate::far::{Far, serve};
use crate::machine::nanos;
use crate::payload::fill;

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    fn wait_for(&self, step: u64) {
        while self.0.load(Ordering::Acquire) != step {
            spin_loop();
        }
    }
}

/// One cache line there, another back: the floor of every round trip.
///
/// How long that takes depends on where in memory the lines are, so each run takes the next of many pairs.
pub struct CacheLine {
    pairs: Arc<Vec<[Line; 2]>>,
    runs: usize,
    far: Far,
}

/// Pairs of lines, a page of them apart from each other.
const PAIRS: usize = 64;
const PAIR_STRIDE: usize = 17;

impl CacheLine {
    pub fn new() -> Result<Self> {
        let lines = std::iter::repeat_with(Default::default).take(PAIRS * PAIR_STRIDE);
        let pairs: Arc<Vec<[Line; 2]>> = Arc::new(lines.collect());
        let (shared, mut runs) = (Arc::clone(&pairs), 0);
        let far = Far::thread(move |control| {
            serve(control, |steps| {
                let [there, back] = next_pair(&shared, &mut runs);
                for step in 1..=steps {
                    there.wait_for(step);
                    back.0.store(step, Ordering::Release);
                }
                there.0.store(0, Ordering::Relaxed);
                Ok(steps)
            })
        })?;
        Ok(Self { pairs, runs: 0, far })
    }
}

fn next_pair<'l>(pairs: &'l [[Line; 2]], runs: &mut usize) -> &'l [Line; 2] {
    *runs += 1;
    &pairs[*runs % PAIRS * PAIR_STRIDE]
}

impl Measure for CacheLine {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let [there, back] = next_pair(&self.pairs, &mut self.runs);
        back.0.store(0, Ordering::Relaxed);
        let start = self.far.begin(steps)?;
        for step in 1..=steps {
            there.0.store(step, Ordering::Release);
            back.wait_for(step);
        }
        let elapsed = start.elapsed();
        self.far.finish()?;
        Ok(nanos(elapsed) / steps as f64)
    }
}

/// From one private buffer to another: what a message would cost that were only copied. Two processors, of which
/// one writes while the other reads, can do better.
pub fn memcpy(len: usize) -> impl Measure {
    let (mut from, mut to) = (vec![0; len], vec![0; len]);
    fill(&mut from, 0);
    move |steps| {
        let start = Instant::now();
        for _ in 0..steps {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        Ok(nanos(start.elapsed()) / steps as f64)
    }
}
