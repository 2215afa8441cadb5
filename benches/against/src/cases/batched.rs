//! Streams in batches: what each peer has for many messages at once.

use zeroport::{ChannelOptions, MessagePort};

use crate::Result;
use crate::carrier::Link;
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Role, serve as serve_orders};
use crate::payload::{check_words, words};
use crate::peers::{ours, rtrb};
use crate::run::Run;

/// Words of a message.
const WORDS: usize = 8;
const SIZE: usize = size_of::<[u64; WORDS]>();

/// Messages at a time.
const BATCH: u64 = 64;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("stream_batched", SIZE, Unit::MillionMessages)
        .peer("zeroport", zeroport()?)
        .peer("rtrb", chunks()?)
        .run(run)
}

fn zeroport() -> Result<impl Measure> {
    let role = Role::new("batched", "zeroport", SIZE);
    let Link { far, carrier: port } = ours::link(ChannelOptions::new(), role)?;
    Ok(move |steps| {
        far.time_batches(steps, BATCH, |from, len| {
            let batch: [[u64; WORDS]; BATCH as usize] =
                std::array::from_fn(|index| words(from + index as u64));
            port.post_all_pod(&batch[..len])?;
            Ok(())
        })
    })
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    let port = ours::accept(role, control)?;
    serve_orders(control, |steps| {
        let mut step = 0;
        while step < steps {
            check_words::<WORDS>(port.recv()?.pod()?, step);
            step += 1;
            for message in port.drain().take((steps - step) as usize) {
                check_words::<WORDS>(message.pod()?, step);
                step += 1;
            }
        }
        Ok(steps)
    })
}

/// rtrb's chunks, written and read in place.
fn chunks() -> Result<impl Measure> {
    let Link { far, carrier: mut rings } = rtrb::link(serve_chunks)?;
    Ok(move |steps| {
        far.time_batches(steps, BATCH, |from, len| {
            let room = loop {
                if let Ok(room) = rings.producer.write_chunk_uninit(len) {
                    break room;
                }
                std::hint::spin_loop();
            };
            room.fill_from_iter((from..).map(words::<WORDS>));
            Ok(())
        })
    })
}

fn serve_chunks(control: &MessagePort, mut rings: rtrb::Rings<WORDS>) -> Result<()> {
    serve_orders(control, |steps| {
        let mut step = 0;
        while step < steps {
            let chunk = rings.consumer.read_chunk(rings.consumer.slots())?;
            let (one, two) = chunk.as_slices();
            for payload in one.iter().chain(two) {
                check_words(payload, step);
                step += 1;
            }
            chunk.commit_all();
            std::hint::spin_loop();
        }
        Ok(steps)
    })
}
