//! zeroport and its rivals in one run, by turns, each between two processes.
//!
//! `cargo run --release --manifest-path benches/against/Cargo.toml [-- [--quick] [--json] [CASE…]]`
//!
//! | case | what is measured |
//! |---|---|
//! | `setup` | a request carries a fresh reply port; ten replies come on it, then its close |
//! | `large` | a stream of large messages, written whole and read whole, beside bare `memcpy` |
//! | `one_way` | from before a large message is written until it has been read |
//! | `untrusted` | a stream between ends that do not trust each other, beside one that does |
//! | `growing` | a stream in a queue that may grow, beside one that may not |
//! | `fresh` | a channel that is made, carries a message each way, and is dropped |
//! | `threshold` | messages in a ring, beside the same in a memory of their own |
//! | `forward` | a buffer that goes through three processes and comes back, by its size |
//!
//! `--quick` repeats less often, `--json` prints one object a line.

mod contest;
mod far;
mod forward;
mod fresh;
mod growing;
mod iceoryx;
mod ipc;
mod large;
mod link;
mod one_way;
mod ours;
mod payload;
mod setup;
#[path = "../../support/mod.rs"]
mod support;
mod threshold;
mod untrusted;

use std::process::ExitCode;

use contest::Plan;

/// Whatever goes wrong ends the run.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

type Case = (&'static str, fn(&Plan) -> Result<()>);

const CASES: [Case; 8] = [
    ("setup", setup::run),
    ("large", large::run),
    ("one_way", one_way::run),
    ("untrusted", untrusted::run),
    ("growing", growing::run),
    ("fresh", fresh::run),
    ("threshold", threshold::run),
    ("forward", forward::run),
];

fn main() -> Result<ExitCode> {
    run_far_ends()?;
    let (plan, cases) = match arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(unknown) => {
            let names = CASES.map(|(name, _)| name).join(" | ");
            eprintln!("no such case: {unknown}\nusage: [--quick] [--json] [{names}]…");
            return Ok(ExitCode::from(2));
        }
    };
    for (_, run) in cases {
        run(&plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does not return if this process is somebody's far end.
fn run_far_ends() -> Result<()> {
    support::ports::run_far_end();
    ipc::run_far_end();
    forward::run_far_end()?;
    far::run_far_end()
}

/// How to measure, and what: all, unless cases are named. The error is a name that there is not.
fn arguments(
    given: impl Iterator<Item = String>,
) -> std::result::Result<(Plan, Vec<Case>), String> {
    let (mut plan, mut cases) = (Plan::default(), Vec::new());
    for argument in given {
        match argument.as_str() {
            "--quick" => plan.quick = true,
            "--json" => plan.json = true,
            name => cases.push(*CASES.iter().find(|case| case.0 == name).ok_or(name)?),
        }
    }
    if cases.is_empty() {
        cases.extend(CASES);
    }
    Ok((plan, cases))
}
