//! From which length on a message is better in a memory of its own than in a ring: both on trusted channels of
//! ours, of which one has a ring that is large enough for many such messages.

use zeroport::ChannelOptions;

use crate::contest::{Contest, Plan};
use crate::ours::Loans;
use crate::{Result, ours};

const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Bytes in each measurement of a stream, whatever the size of the messages.
const TOTAL: usize = 256 << 20;
/// Messages in each measurement of the time on the way.
const STEPS: u64 = 200;

pub fn run(plan: &Plan) -> Result<()> {
    for len in SIZES {
        let in_ring = ChannelOptions::new().capacity(16 * len as u64).limit(0);
        // Too small a ring for one of them.
        let own = ChannelOptions::new().capacity(len as u64);
        let steps = (TOTAL / len) as u64;
        let stream = Contest {
            case: "threshold, stream",
            size: len,
            unit: "GB/s",
            peers: vec![
                ("ring", ours::link(in_ring, Loans)?.gigabytes(len, steps)),
                ("own memory", ours::link(own, Loans)?.gigabytes(len, steps)),
            ],
        };
        stream.run(plan)?;
        let one_way = Contest {
            case: "threshold, one way",
            size: len,
            unit: "µs",
            peers: vec![
                ("ring", ours::link(in_ring, Loans)?.latency(len, STEPS)),
                ("own memory", ours::link(own, Loans)?.latency(len, STEPS)),
            ],
        };
        one_way.run(plan)?;
    }
    Ok(())
}
