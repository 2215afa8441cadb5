//! How old a large message is once it has been read: from before its first word is written. One
//! message at a time.

use zeroport::ChannelOptions;

use crate::contest::{Contest, Plan};
use crate::ours::Loans;
use crate::{Result, iceoryx, ours};

/// Bytes of a message, and how many of them are measured for one median.
const SIZES: [(usize, u64); 2] = [(1 << 20, 200), (8 << 20, 50)];

pub fn run(plan: &Plan) -> Result<()> {
    for (len, steps) in SIZES {
        let warm = ChannelOptions::new();
        let contest = Contest {
            case: "one_way",
            size: len,
            unit: "µs",
            peers: vec![
                ("zeroport", ours::link(warm, Loans)?.latency(len, steps)),
                ("zeroport, pool off", ours::link(warm.warm(false), Loans)?.latency(len, steps)),
                ("iceoryx2", iceoryx::link(len)?.latency(len, steps)),
            ],
        };
        contest.run(plan)?;
    }
    Ok(())
}
