//! One run of this program: how it measures, how far it is, and what it has found.

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::report::{Row, print_json, print_table, size_name};

/// How to measure and print, from the command line.
#[derive(Default)]
pub struct Plan {
    pub quick: bool,
    pub json: bool,
}

pub struct Run {
    plan: Plan,
    bar: ProgressBar,
    /// Contests that are over.
    contests: u64,
    /// Repetitions of the present contest.
    repetitions: u64,
    pub rows: Vec<Row>,
}

/// Steps of the progress bar for each contest.
const TICKS: u64 = 100;

impl Run {
    pub fn new(plan: Plan, contests: u64) -> Result<Self> {
        let template = "{bar:32} {percent:>3} % {msg} ({elapsed} of about {duration})";
        let bar = ProgressBar::new(contests * TICKS);
        bar.set_style(ProgressStyle::with_template(template)?);
        Ok(Self { plan, bar, contests: 0, repetitions: 1, rows: Vec::new() })
    }

    pub fn repetitions(&self) -> usize {
        if self.plan.quick { 5 } else { 21 }
    }

    pub fn is_quick(&self) -> bool {
        self.plan.quick
    }

    /// How long a repetition lasts.
    pub fn seconds(&self) -> f64 {
        if self.plan.quick { 0.02 } else { 0.06 }
    }

    /// A contest begins.
    pub fn begin(&mut self, case: &str, size: usize, repetitions: usize) {
        self.repetitions = repetitions as u64;
        self.bar.set_position(self.contests * TICKS);
        self.bar.set_message(format!("{case}{}", size_name(size)));
        self.bar.tick();
    }

    /// A repetition is over.
    pub fn advance(&self) {
        self.bar.inc(TICKS / self.repetitions);
    }

    /// A contest is over.
    pub fn report(&mut self, rows: Vec<Row>) -> Result<()> {
        self.contests += 1;
        self.bar.suspend(|| if self.plan.json { print_json(&rows) } else { print_table(&rows) })?;
        self.rows.extend(rows);
        Ok(())
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
