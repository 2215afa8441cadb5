//! A channel that is made, carries one message each way, and is dropped, in one process.

use std::time::Instant;

use zeroport::{ChannelOptions, MessageChannel};

use crate::Result;
use crate::contest::{Contest, Measure, Unit};
use crate::machine::nanos;
use crate::run::Run;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("fresh", 0, Unit::Micros)
        .peer("zeroport", channels(ChannelOptions::new()))
        .peer("zeroport, pool off", channels(ChannelOptions::new().warm(false)))
        .run(run)
}

fn channels(options: ChannelOptions) -> impl Measure {
    move |steps| {
        let start = Instant::now();
        for _ in 0..steps {
            let MessageChannel { port1, port2 } = options.open()?;
            port1.post_bytes(b"there")?;
            port2.recv()?;
            port2.post_bytes(b"and back")?;
            port1.recv()?;
        }
        Ok(nanos(start.elapsed()) / steps as f64)
    }
}
