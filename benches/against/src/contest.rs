//! Peers that are measured by turns.

use std::time::Instant;

use crate::Result;
use crate::report::{Extra, Row, Spread};
use crate::run::Run;

/// Something to measure.
pub trait Measure {
    /// Runs so many steps, and says how many nanoseconds each took.
    fn run(&mut self, steps: u64) -> Result<f64>;

    /// What else there is to say once all turns are over.
    fn extras(&mut self, _: Turns) -> Result<Vec<Extra>> {
        Ok(Vec::new())
    }
}

impl<F: FnMut(u64) -> Result<f64>> Measure for F {
    fn run(&mut self, steps: u64) -> Result<f64> {
        self(steps)
    }
}

/// How often a peer is measured, and the steps of each time.
#[derive(Clone, Copy)]
pub struct Turns {
    pub steps: u64,
    pub repetitions: usize,
}

/// What figures are in.
#[derive(Clone, Copy)]
pub enum Unit {
    MillionMessages,
    Nanos,
    Micros,
    GigaBytes,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::MillionMessages => "M msg/s",
            Self::Nanos => "ns",
            Self::Micros => "µs",
            Self::GigaBytes => "GB/s",
        }
    }

    /// The figure of a step that took so long.
    pub fn figure(self, size: usize, nanos: f64) -> f64 {
        match self {
            Self::MillionMessages => 1e3 / nanos,
            Self::Nanos => nanos,
            Self::Micros => nanos / 1e3,
            Self::GigaBytes => size as f64 / nanos,
        }
    }
}

/// The same work by several peers. The first one, ours, is compared with each of the others.
pub struct Contest {
    case: &'static str,
    /// Bytes of a message; 0 where that says nothing.
    size: usize,
    unit: Unit,
    /// Whether a repetition is one step, and there are more of them.
    single: bool,
    peers: Vec<Peer>,
}

struct Peer {
    /// The case of its rows: a limit has its own.
    case: &'static str,
    name: &'static str,
    measure: Box<dyn Measure>,
    steps: u64,
    figures: Vec<f64>,
}

/// Repetitions of one step for each repetition of many.
const SINGLE: usize = 4;

impl Contest {
    pub fn new(case: &'static str, size: usize, unit: Unit) -> Self {
        Self { case, size, unit, single: false, peers: Vec::new() }
    }

    /// A repetition is one step.
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    pub fn peer(self, name: &'static str, measure: impl Measure + 'static) -> Self {
        let case = self.case;
        self.entrant(case, name, measure)
    }

    /// What the machine itself takes.
    pub fn limit(self, case: &'static str, measure: impl Measure + 'static) -> Self {
        self.entrant(case, "limit", measure)
    }

    fn entrant(
        mut self,
        case: &'static str,
        name: &'static str,
        measure: impl Measure + 'static,
    ) -> Self {
        let measure = Box::new(measure);
        self.peers.push(Peer { case, name, measure, steps: 1, figures: Vec::new() });
        self
    }

    /// Measures all peers by turns, and reports.
    pub fn run(mut self, run: &mut Run) -> Result<()> {
        let repetitions = run.repetitions() * if self.single { SINGLE } else { 1 };
        run.begin(self.case, self.size, repetitions);
        for peer in &mut self.peers {
            if !self.single {
                peer.calibrate(run.seconds())?;
            }
            peer.measure.run(peer.steps)?;
        }
        // By turns: whatever else the machine does hits all of them.
        for _ in 0..repetitions {
            for peer in &mut self.peers {
                let nanos = peer.measure.run(peer.steps)?;
                peer.figures.push(self.unit.figure(self.size, nanos));
            }
            run.advance();
        }
        let rows = self.rows(repetitions)?;
        run.report(rows)
    }

    fn rows(&mut self, repetitions: usize) -> Result<Vec<Row>> {
        let first = self.peers.first().map(|peer| peer.figures.clone()).unwrap_or_default();
        let row = |(index, peer): (usize, &mut Peer)| {
            let turns = Turns { steps: peer.steps, repetitions };
            let ratios = first.iter().zip(&peer.figures).map(|(first, other)| first / other);
            Ok(Row {
                case: peer.case,
                peer: peer.name,
                size: self.size,
                figure: Spread::of(peer.figures.clone()),
                unit: self.unit.name(),
                ratio: (index > 0).then(|| Spread::of(ratios.collect())),
                extras: peer.measure.extras(turns)?,
            })
        };
        self.peers.iter_mut().enumerate().map(row).collect()
    }
}

impl Peer {
    /// Takes ever more steps until a repetition lasts about so many seconds.
    fn calibrate(&mut self, seconds: f64) -> Result<()> {
        loop {
            // The shorter of two: one alone may have been disturbed.
            let factor = seconds / self.lasts()?.min(self.lasts()?);
            let more = (self.steps as f64 * factor.min(10.0)) as u64;
            if factor < 2.0 {
                self.steps = more.max(1);
                return Ok(());
            }
            self.steps = more;
        }
    }

    /// How many seconds a repetition lasts.
    fn lasts(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.measure.run(self.steps)?;
        Ok(start.elapsed().as_secs_f64())
    }
}
