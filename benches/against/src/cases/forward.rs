//! A buffer that goes through three processes and comes back. Nobody reads it on the way; in the end it is
//! read-only, and what was written.

use std::time::Instant;

use zeroport::{Buffer, MessageChannel, MessagePort, SealedBuffer, transfer};

use crate::Result;
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Far, Role};
use crate::machine::nanos;
use crate::run::Run;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("forward", 64 << 20, Unit::Micros)
        .peer("zeroport", Chain::start(64 << 20)?)
        .peer("zeroport, 1 MiB", Chain::start(1 << 20)?)
        .run(run)
}

/// Three processes in a row, each with the port on which it gets something and the one where it gives it on.
struct Chain {
    // In this order: the end of the first port goes through the chain.
    first: MessagePort,
    last: MessagePort,
    buffer: Option<SealedBuffer>,
    _processes: Vec<Far>,
}

impl Chain {
    fn start(len: usize) -> Result<Self> {
        let mut buffer = Buffer::new(len)?;
        buffer.fill(7);
        let MessageChannel { port1: first, port2: mut next } = MessageChannel::new()?;
        let mut processes = Vec::new();
        for _ in 0..3 {
            let far = Far::process(Role::new("forward", "zeroport", len))?;
            let MessageChannel { port1: out, port2 } = MessageChannel::new()?;
            far.control().post_bytes_with(b"", transfer![next, out])?;
            next = port2;
            processes.push(far);
        }
        Ok(Self { first, last: next, buffer: Some(buffer.seal()?), _processes: processes })
    }

    fn round(&mut self) -> Result<()> {
        let buffer = self.buffer.take().ok_or("the buffer is away")?;
        self.first.post_bytes_with(b"", transfer![buffer])?;
        let [buffer] = self.last.recv()?.take_buffers()?;
        self.buffer = Some(buffer);
        Ok(())
    }
}

impl Measure for Chain {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let start = Instant::now();
        (0..steps).try_for_each(|_| self.round())?;
        let elapsed = start.elapsed();
        let read = self.buffer.iter().flat_map(|buffer| buffer.iter());
        assert!(read.take(1 << 20).all(|byte| *byte == 7));
        Ok(nanos(elapsed) / steps as f64)
    }
}

/// Forwards until the end.
pub fn serve(control: &MessagePort) -> Result<()> {
    let [from, to] = control.recv()?.take_ports()?;
    while let Ok(message) = from.recv() {
        let [buffer] = message.take_buffers()?;
        to.post_bytes_with(message.bytes(), transfer![buffer])?;
    }
    Ok(())
}
