//! zeroport and its rivals in one run, by turns, each between two processes (threads where the rival has no more),
//! pinned.
//!
//! `cargo run --release --manifest-path benches/against/Cargo.toml -- --help` says what is measured, and how to
//! choose.

mod carrier;
mod cases;
mod chart;
mod contest;
mod far;
mod machine;
mod payload;
mod peers;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use cases::{CASES, Case};
use run::{Plan, Run};

/// Whatever goes wrong ends the run.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: [--quick] [--json] [--chart FILE.svg] [CASE…]";

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    help: bool,
    plan: Plan,
    chart: Option<PathBuf>,
    /// All, if there are none.
    cases: Vec<Case>,
}

fn main() -> ExitCode {
    match run_far_or_near() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {error}", env!("CARGO_PKG_NAME"));
            ExitCode::FAILURE
        }
    }
}

fn run_far_or_near() -> Result<ExitCode> {
    far::run_far_end()?;
    match arguments(std::env::args().skip(1)) {
        Ok(asked) if asked.help => help(),
        Ok(asked) => measure(asked)?,
        Err(unknown) => {
            eprintln!("no such argument or case: {unknown}\n{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The error is an argument that there is not, or that lacks its value.
fn arguments(mut given: impl Iterator<Item = String>) -> std::result::Result<Asked, String> {
    let mut asked = Asked::default();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--help" => asked.help = true,
            "--quick" => asked.plan.quick = true,
            "--json" => asked.plan.json = true,
            "--chart" => asked.chart = Some(given.next().ok_or(argument)?.into()),
            name => asked.cases.push(*cases::find(name).ok_or(name)?),
        }
    }
    Ok(asked)
}

fn help() {
    println!("zeroport and its rivals, measured by turns in one run.\n\n{USAGE}\n");
    println!("  --quick  repeats less, and ends within a minute");
    println!("  --json   prints one object a line");
    println!("  --chart  draws the main figures\n");
    for Case { name, about, .. } in &CASES {
        println!("  {name:<16} {about}");
    }
}

fn measure(Asked { plan, chart, mut cases, .. }: Asked) -> Result<()> {
    machine::pin_near();
    let quick = plan.quick;
    if cases.is_empty() {
        cases.extend(CASES);
    }
    let mut run = Run::new(plan, cases.iter().map(|case| case.contests).sum())?;
    for case in cases {
        (case.run)(&mut run).map_err(|error| format!("{}: {error}", case.name))?;
    }
    run.finish();
    if let Some(file) = chart {
        chart::draw(&run.rows, quick, &file)?;
    }
    Ok(())
}
