//! What it costs that a queue may grow: the same stream on two channels of ours.

use zeroport::ChannelOptions;

use super::stream;
use crate::Result;
use crate::contest::{Contest, Unit};
use crate::run::Run;

/// Words of a message.
const WORDS: usize = 8;

pub fn run(run: &mut Run) -> Result<()> {
    let bounded = ChannelOptions::new().limit(0);
    Contest::new("growing", size_of::<[u64; WORDS]>(), Unit::MillionMessages)
        .peer("zeroport", stream::zeroport::<WORDS>(ChannelOptions::new())?)
        .peer("zeroport, limit 0", stream::zeroport::<WORDS>(bounded)?)
        .run(run)
}
