//! What it costs not to trust the other side: the same stream on two channels of ours.

use zeroport::{ChannelOptions, Trust};

use crate::contest::{Contest, Measure, Plan};
use crate::ours::Posts;
use crate::{Result, ours};

/// Bytes of a message, and how many of them go in one measurement.
const SIZES: [(usize, u64); 2] = [(64, 500_000), (4 << 10, 100_000)];

pub fn run(plan: &Plan) -> Result<()> {
    for (len, steps) in SIZES {
        let measure = |trust| stream(trust, len, steps);
        let contest = Contest {
            case: "untrusted",
            size: len,
            unit: "M msg/s",
            peers: vec![
                ("untrusted", measure(Trust::Untrusted)?),
                ("trusted", measure(Trust::Trusted)?),
            ],
        };
        contest.run(plan)?;
    }
    Ok(())
}

fn stream(trust: Trust, len: usize, steps: u64) -> Result<Measure> {
    let options = ChannelOptions::new().trust(trust);
    Ok(ours::link(options, Posts::new)?.millions(len, steps))
}
