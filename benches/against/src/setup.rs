//! A request that carries a fresh reply port, ten replies, close.

use crate::contest::{Contest, Measure, Plan};
use crate::support::Case;
use crate::support::ports::ReplyStream;
use crate::{Result, ipc};

pub fn run(plan: &Plan) -> Result<()> {
    let steps = if plan.quick { 500 } else { 2_000 };
    let contest = Contest {
        case: "setup",
        size: 0,
        unit: "µs",
        peers: vec![
            ("zeroport", micros(ReplyStream::new(), steps)),
            ("ipc-channel", micros(ipc::ReplyStream::new(), steps)),
        ],
    };
    contest.run(plan)
}

/// Measures µs of one step.
fn micros(mut case: impl Case + 'static, steps: u64) -> Measure {
    Box::new(move || Ok(case.run(steps).as_nanos() as f64 / 1e3 / steps as f64))
}
