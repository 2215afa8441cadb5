//! Streams of rkyv values, beside what rkyv itself takes in private memory: serialising, and validating.

use std::hint::black_box;
use std::time::Instant;

use rkyv::api::high::to_bytes_in;
use rkyv::rancor::Error;
use rkyv::ser::writer::Buffer;
use rkyv::util::AlignedVec;
use zeroport::{ChannelOptions, MessagePort, Tagged};

use super::stream::stream;
use crate::Result;
use crate::carrier::{Carrier, Link, serve_stream};
use crate::contest::{Contest, Measure, Turns, Unit};
use crate::far::{Role, serve_steps};
use crate::machine::nanos;
use crate::peers::bare::{self, Traffic};
use crate::peers::ours;
use crate::report::{Extra, Spread};
use crate::run::Run;

/// A typical typed message.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub struct Sample {
    id: u64,
    name: String,
    samples: Vec<f32>,
}

impl Tagged for Sample {
    const NAME: &'static str = "against.Sample";
}

/// Words of its archive.
const WORDS: usize = 13;

const NAME: &str = "sixteen bytes ok";

const UNIT: Unit = Unit::MillionMessages;

impl Sample {
    fn new() -> Self {
        Self { id: 0, name: NAME.into(), samples: vec![0.0; 16] }
    }

    #[inline(always)]
    fn refill(&mut self, step: u64) {
        self.id = step;
        self.samples.fill(step as f32);
    }
}

#[inline(always)]
fn check(sample: &ArchivedSample, step: u64) {
    assert_eq!(sample.id, step);
    assert_eq!(sample.name, NAME);
    assert!(sample.samples.len() == 16 && sample.samples.iter().all(|x| *x == step as f32));
}

pub fn run(run: &mut Run) -> Result<()> {
    let size = archive(&mut Sample::new(), 0, AlignedVec::new())?.len();
    assert_eq!(size, size_of::<[u64; WORDS]>());
    Contest::new("stream_typed", size, UNIT)
        .peer("zeroport", zeroport()?)
        .limit("limit_slots", stream::<WORDS>(bare::link(Traffic::Stream, serve_stream)?))
        .limit("limit_copied", copied()?)
        .limit("limit_in_place", in_place()?)
        .peer("rkyv", Rkyv::default())
        .run(run)
}

fn zeroport() -> Result<impl Measure> {
    let role = Role::new("typed", "zeroport", 0);
    let Link { far, carrier: port } = ours::link(ChannelOptions::new(), role)?;
    let mut sample = Sample::new();
    Ok(move |steps| {
        far.time(steps, |step| {
            sample.refill(step);
            Ok(port.post(&sample)?)
        })
    })
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    let port = ours::accept(role, control)?;
    serve_steps(control, |step| {
        check(port.recv()?.get::<Sample>()?, step);
        Ok(())
    })
}

/// rkyv, and nothing else but memory: serialises to private memory, and copies that.
fn copied() -> Result<impl Measure> {
    let (mut sample, mut bytes) = (Sample::new(), AlignedVec::<16>::new());
    bare_stream(move |place, step| {
        bytes = archive(&mut sample, step, std::mem::take(&mut bytes))?;
        place.copy_from_slice(&bytes);
        Ok(())
    })
}

/// The same, serialising where it will be read.
fn in_place() -> Result<impl Measure> {
    let mut sample = Sample::new();
    bare_stream(move |place, step| {
        sample.refill(step);
        to_bytes_in::<_, Error>(&sample, Buffer::from(place))?;
        Ok(())
    })
}

fn bare_stream(mut write: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<impl Measure> {
    let Link { far, carrier: mut words } =
        bare::link::<WORDS>(Traffic::Stream, |control, mut words| {
            serve_steps(control, |step| {
                words.receive(|place| {
                    check(rkyv::access::<ArchivedSample, Error>(bytemuck::bytes_of(place))?, step);
                    Ok(())
                })?
            })
        })?;
    Ok(move |steps| {
        far.time(steps, |step| {
            let mut written = Ok(());
            words.send_with(|place| written = write(bytemuck::bytes_of_mut(place), step));
            written
        })
    })
}

/// rkyv in private memory. Two ends that work at the same time are as fast as the slower one of them.
#[derive(Default)]
struct Rkyv {
    serialise: Vec<f64>,
    validate: Vec<f64>,
}

impl Measure for Rkyv {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let (serialise, validate) = (serialise(steps)?, validate(steps)?);
        self.serialise.push(serialise);
        self.validate.push(validate);
        Ok(serialise.max(validate))
    }

    fn extras(&mut self, turns: Turns) -> Result<Vec<Extra>> {
        // The first ones were not measurements.
        let figure = |all: &[f64]| {
            let measured = all[all.len() - turns.repetitions..].to_vec();
            UNIT.figure(0, Spread::of(measured).median)
        };
        Ok(vec![("serialise", figure(&self.serialise)), ("validate", figure(&self.validate))])
    }
}

/// Nanoseconds to refill a value and serialise it into memory that is used again.
fn serialise(steps: u64) -> Result<f64> {
    let (mut sample, mut bytes) = (Sample::new(), AlignedVec::new());
    let start = Instant::now();
    for step in 0..steps {
        bytes = archive(black_box(&mut sample), step, bytes)?;
        black_box(&mut bytes);
    }
    Ok(nanos(start.elapsed()) / steps as f64)
}

#[inline(always)]
fn archive(sample: &mut Sample, step: u64, mut bytes: AlignedVec) -> Result<AlignedVec> {
    sample.refill(step);
    bytes.clear();
    Ok(to_bytes_in::<_, Error>(&*sample, bytes)?)
}

/// Nanoseconds to validate an archive and check all of it.
fn validate(steps: u64) -> Result<f64> {
    let bytes = archive(&mut Sample::new(), 7, AlignedVec::new())?;
    let start = Instant::now();
    for _ in 0..steps {
        check(rkyv::access::<ArchivedSample, Error>(black_box(&bytes))?, 7);
    }
    Ok(nanos(start.elapsed()) / steps as f64)
}
