//! Round trips of 64 bytes: both ends spinning, both sleeping at once, both on one processor.

use std::time::Instant;

use hdrhistogram::Histogram;
use zeroport::{ChannelOptions, MessagePort, WaitStrategy};

use super::limits::CacheLine;
use super::no_such_peer;
use crate::Result;
use crate::carrier::{Carrier, Link, serve_echo};
use crate::contest::{Contest, Measure, Turns, Unit};
use crate::far::Role;
use crate::machine::{NEAR, nanos};
use crate::payload::{check_words, words};
use crate::peers::bare::{self, Traffic};
use crate::peers::{crossbeam, iceoryx, ipc, ours, pipe, rtrb, seqpacket};
use crate::report::Extra;
use crate::run::Run;

/// Words of a message.
const WORDS: usize = 8;
const SIZE: usize = size_of::<[u64; WORDS]>();

fn role(peer: &'static str) -> Role<'static> {
    Role::new("round_trip", peer, SIZE)
}

pub fn spin(run: &mut Run) -> Result<()> {
    let ours = Role { wait: WaitStrategy::Spin, ..role("zeroport") };
    Contest::new("rtt_spin", SIZE, Unit::Nanos)
        .peer("zeroport", RoundTrips::new(ours::link(ChannelOptions::new(), ours)?))
        .limit("limit_cache_line_rtt", CacheLine::new()?)
        .limit("limit_slots_rtt", RoundTrips::new(bare::link(Traffic::RoundTrips, serve_echo)?))
        .peer("rtrb", RoundTrips::new(rtrb::link(serve_echo)?))
        .peer("crossbeam-channel", RoundTrips::new(crossbeam::link(ours.wait, serve_echo)?))
        .peer("iceoryx2", RoundTrips::new(iceoryx::link(role("iceoryx2"))?))
        .run(run)
}

pub fn sleep(run: &mut Run) -> Result<()> {
    let ours = Role { wait: WaitStrategy::Sleep, ..role("zeroport") };
    let zeroport = RoundTrips::new(ours::link(ChannelOptions::new(), ours)?);
    blocking("rtt_sleep", zeroport.each_sleeps_once(), role, run)
}

pub fn one_core(run: &mut Run) -> Result<()> {
    let role = |peer| Role { processor: NEAR, ..role(peer) };
    let zeroport = RoundTrips::new(ours::link(ChannelOptions::new(), role("zeroport"))?);
    blocking("rtt_one_core", zeroport, role, run)
}

/// Beside the rivals that sleep in the kernel.
fn blocking(
    case: &'static str,
    zeroport: impl Measure + 'static,
    role: fn(&'static str) -> Role<'static>,
    run: &mut Run,
) -> Result<()> {
    Contest::new(case, SIZE, Unit::Nanos)
        .peer("zeroport", zeroport)
        .peer("seqpacket", RoundTrips::new(seqpacket::link(role("seqpacket"))?))
        .peer("pipe", RoundTrips::new(pipe::link(role("pipe"))?))
        .peer("ipc-channel", RoundTrips::new(ipc::link(role("ipc-channel"))?))
        .run(run)
}

/// One message there, one back.
pub(super) struct RoundTrips<C> {
    link: Link<C>,
    /// All that were made.
    steps: u64,
    /// Sleeps of the far end in all of them.
    far_sleeps: u64,
    each_sleeps_once: bool,
}

impl<C: Carrier<WORDS>> RoundTrips<C> {
    pub(super) fn new(link: Link<C>) -> Self {
        Self { link, steps: 0, far_sleeps: 0, each_sleeps_once: false }
    }

    /// In each round trip both ends have to sleep once.
    fn each_sleeps_once(self) -> Self {
        Self { each_sleeps_once: true, ..self }
    }

    fn round_trip(&mut self, step: u64) -> Result<()> {
        self.link.carrier.send(&words(step))?;
        self.link.carrier.receive(|payload| check_words(payload, step))
    }

    fn finish(&mut self, steps: u64) -> Result<()> {
        self.far_sleeps = self.link.far.finish()?;
        self.steps += steps;
        Ok(())
    }

    /// The time of each round trip.
    fn histogram(&mut self, steps: u64) -> Result<Histogram<u64>> {
        let mut histogram = Histogram::new(3)?;
        let mut before = self.link.far.begin(steps)?;
        for step in 0..steps {
            self.round_trip(step)?;
            let now = Instant::now();
            histogram.record((now - before).as_nanos() as u64)?;
            before = now;
        }
        self.finish(steps)?;
        Ok(histogram)
    }

    /// Sleeps a round trip, both ends together.
    fn sleeps(&self) -> Option<f64> {
        let near = self.link.carrier.sleeps()?;
        Some((near + self.far_sleeps) as f64 / self.steps as f64)
    }
}

impl<C: Carrier<WORDS>> Measure for RoundTrips<C> {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let start = self.link.far.begin(steps)?;
        for step in 0..steps {
            self.round_trip(step)?;
        }
        let elapsed = start.elapsed();
        self.finish(steps)?;
        Ok(nanos(elapsed) / steps as f64)
    }

    fn extras(&mut self, turns: Turns) -> Result<Vec<Extra>> {
        let histogram = self.histogram(turns.steps * turns.repetitions as u64)?;
        let percentiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let mut extras = percentiles
            .map(|(name, part)| (name, histogram.value_at_quantile(part) as f64))
            .to_vec();
        if let Some(sleeps) = self.sleeps() {
            assert!(!self.each_sleeps_once || (1.9..2.1).contains(&sleeps), "{sleeps} sleeps");
            extras.push(("sleeps", sleeps));
        }
        Ok(extras)
    }
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_echo::<WORDS>(control, ours::accept(role, control)?),
        "iceoryx2" => serve_echo::<WORDS>(control, iceoryx::Services::accept(control)?),
        "ipc-channel" => serve_echo::<WORDS>(control, ipc::Bytes::accept(control)?),
        "seqpacket" => serve_echo::<WORDS>(control, seqpacket::Socket::accept()?),
        "pipe" => serve_echo::<WORDS>(control, pipe::Pipes::accept()?),
        _ => no_such_peer(role),
    }
}
