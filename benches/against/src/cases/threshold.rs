//! From which length on a message is better in a memory of its own than in a ring: both on trusted channels of
//! ours, of which one has a ring that is large enough for many such messages.

use zeroport::ChannelOptions;

use super::{large, one_way};
use crate::Result;
use crate::contest::{Contest, Unit};
use crate::run::Run;

const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

pub fn run(run: &mut Run) -> Result<()> {
    for len in SIZES {
        let ring = ChannelOptions::new().capacity(16 * len as u64).limit(0);
        // Too small a ring for one of them.
        let own = ChannelOptions::new().capacity(len as u64);
        Contest::new("threshold_stream", len, Unit::GigaBytes)
            .peer("zeroport, ring", large::zeroport(ring, len)?)
            .peer("zeroport, own memory", large::zeroport(own, len)?)
            .run(run)?;
        Contest::new("threshold_one_way", len, Unit::Micros)
            .peer("zeroport, ring", one_way::zeroport(ring, len)?)
            .peer("zeroport, own memory", one_way::zeroport(own, len)?)
            .run(run)?;
    }
    Ok(())
}
