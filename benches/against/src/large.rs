//! Streams of large messages, written in place and read in place, and what copying them would cost.

use std::hint::black_box;
use std::time::Instant;

use zeroport::ChannelOptions;

use crate::contest::{Contest, Measure, Plan};
use crate::link::rate;
use crate::ours::Loans;
use crate::payload::fill;
use crate::support::{NEAR, pin};
use crate::{Result, iceoryx, ours};

const SIZES: [usize; 3] = [64 << 10, 1 << 20, 8 << 20];

/// Bytes in each measurement, whatever the size of the messages.
const TOTAL: usize = 512 << 20;

pub fn run(plan: &Plan) -> Result<()> {
    for len in SIZES {
        let steps = (TOTAL / len) as u64;
        let warm = ChannelOptions::new();
        let contest = Contest {
            case: "large",
            size: len,
            unit: "GB/s",
            peers: vec![
                ("zeroport", ours::link(warm, Loans)?.gigabytes(len, steps)),
                ("zeroport, pool off", ours::link(warm.warm(false), Loans)?.gigabytes(len, steps)),
                ("iceoryx2", iceoryx::link(len)?.gigabytes(len, steps)),
                ("memcpy", memcpy(len, steps)),
            ],
        };
        contest.run(plan)?;
    }
    Ok(())
}

/// From one private buffer to another: what a message would cost that were only copied.
fn memcpy(len: usize, steps: u64) -> Measure {
    pin(NEAR);
    let (mut from, mut to) = (vec![0; len], vec![0; len]);
    fill(&mut from, 0);
    Box::new(move || {
        let start = Instant::now();
        for _ in 0..steps {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        Ok(rate(len as u64 * steps, start.elapsed()))
    })
}
