//! Peers that are measured by turns, and what is printed of them.

use crate::Result;

/// How to measure and print, from the command line.
#[derive(Default)]
pub struct Plan {
    pub quick: bool,
    pub json: bool,
}

impl Plan {
    fn repetitions(&self) -> usize {
        if self.quick { 5 } else { 21 }
    }
}

/// One measurement, in the unit of its contest.
pub type Measure = Box<dyn FnMut() -> Result<f64>>;

/// The same work by several peers. The first one is compared with each of the others.
pub struct Contest {
    pub case: &'static str,
    /// Bytes of a message; 0 where that says nothing.
    pub size: usize,
    pub unit: &'static str,
    pub peers: Vec<(&'static str, Measure)>,
}

impl Contest {
    /// Measures all peers by turns, and prints.
    pub fn run(mut self, plan: &Plan) -> Result<()> {
        let figures = self.by_turns(plan.repetitions())?;
        if !plan.json {
            println!("{}{}, {}", self.case, size_suffix(self.size), self.unit);
        }
        for ((name, _), figures) in self.peers.iter().zip(&figures) {
            self.print(plan, name, self.unit, figures.clone());
        }
        let Some((first, others)) = figures.split_first() else { return Ok(()) };
        for (peer, other) in self.peers.iter().skip(1).zip(others) {
            let ratios = first.iter().zip(other).map(|(first, other)| first / other).collect();
            self.print(plan, &format!("{}/{}", self.peers[0].0, peer.0), "ratio", ratios);
        }
        Ok(())
    }

    /// One turn of each, unmeasured, then by turns: whatever else the machine does hits all of
    /// them.
    fn by_turns(&mut self, repetitions: usize) -> Result<Vec<Vec<f64>>> {
        let mut figures = vec![Vec::new(); self.peers.len()];
        for repetition in 0..=repetitions {
            for ((_, measure), figures) in self.peers.iter_mut().zip(&mut figures) {
                let figure = measure()?;
                if repetition > 0 {
                    figures.push(figure);
                }
            }
        }
        Ok(figures)
    }

    fn print(&self, plan: &Plan, peer: &str, unit: &str, figures: Vec<f64>) {
        let (median, min, max) = spread(figures);
        let Self { case, size, .. } = self;
        if plan.json {
            println!(
                "{{\"case\":\"{case}\",\"peer\":\"{peer}\",\"size\":{size},\"median\":{median:.4},\
                 \"min\":{min:.4},\"max\":{max:.4},\"unit\":\"{unit}\"}}"
            );
        } else {
            let note = if unit == "ratio" { ", paired" } else { "" };
            println!("  {peer:<22}{median:>9.2} ({min:.2} … {max:.2}){note}");
        }
    }
}

/// Median, minimum, maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn size_suffix(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        bytes if bytes >= 1 << 20 => format!(", {} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!(", {} KiB", bytes >> 10),
        bytes => format!(", {bytes} B"),
    }
}
