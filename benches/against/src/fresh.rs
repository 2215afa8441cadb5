//! A channel that is made, carries one message each way, and is dropped, in one process.

use std::time::Instant;

use zeroport::{ChannelOptions, MessageChannel};

use crate::Result;
use crate::contest::{Contest, Measure, Plan};

const STEPS: u32 = 5_000;

pub fn run(plan: &Plan) -> Result<()> {
    let contest = Contest {
        case: "fresh",
        size: 0,
        unit: "µs",
        peers: vec![
            ("zeroport", channels(ChannelOptions::new())),
            ("zeroport, pool off", channels(ChannelOptions::new().warm(false))),
        ],
    };
    contest.run(plan)
}

fn channels(options: ChannelOptions) -> Measure {
    Box::new(move || {
        let start = Instant::now();
        for _ in 0..STEPS {
            let MessageChannel { port1, port2 } = options.open()?;
            port1.post_bytes(b"there")?;
            port2.recv()?;
            port2.post_bytes(b"and back")?;
            port1.recv()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / 1e3 / f64::from(STEPS))
    })
}
