//! What it costs not to trust the other side: the same stream on two channels of ours.

use zeroport::{ChannelOptions, Trust};

use super::stream;
use crate::Result;
use crate::contest::{Contest, Unit};
use crate::run::Run;

pub fn run(run: &mut Run) -> Result<()> {
    contest::<8>(run)?;
    contest::<512>(run)
}

fn contest<const N: usize>(run: &mut Run) -> Result<()> {
    let untrusted = ChannelOptions::new().trust(Trust::Untrusted);
    Contest::new("untrusted", size_of::<[u64; N]>(), Unit::MillionMessages)
        .peer("zeroport, untrusted", stream::zeroport::<N>(untrusted)?)
        .peer("zeroport", stream::zeroport::<N>(ChannelOptions::new())?)
        .run(run)
}
