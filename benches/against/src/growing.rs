//! What it costs that a queue may grow: the same stream on two channels of ours.

use zeroport::ChannelOptions;

use crate::contest::{Contest, Plan};
use crate::ours::Posts;
use crate::{Result, ours};

const LEN: usize = 64;
const STEPS: u64 = 2_000_000;

pub fn run(plan: &Plan) -> Result<()> {
    let stream = |options| Ok::<_, Box<dyn std::error::Error>>(ours::link(options, Posts::new)?);
    let contest = Contest {
        case: "growing",
        size: LEN,
        unit: "M msg/s",
        peers: vec![
            ("growing", stream(ChannelOptions::new())?.millions(LEN, STEPS)),
            ("limit 0", stream(ChannelOptions::new().limit(0))?.millions(LEN, STEPS)),
        ],
    };
    contest.run(plan)
}
