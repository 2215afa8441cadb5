//! A buffer that goes through three processes and comes back. Nobody reads it on the way; in the end it is
//! read-only, and what was written.

use std::process::{Child, Command};
use std::time::Instant;

use zeroport::{Buffer, MessageChannel, MessagePort, SealedBuffer, transfer};

use crate::Result;
use crate::contest::{Contest, Measure, Plan};

/// Says to a process that it is to forward.
const FORWARD: &str = "ZEROPORT_AGAINST_FORWARD";

const STEPS: u32 = 200;

pub fn run(plan: &Plan) -> Result<()> {
    let contest = Contest {
        case: "forward",
        size: 0,
        unit: "µs",
        peers: vec![
            ("64 MiB", Chain::start(64 << 20)?.rounds()),
            ("1 MiB", Chain::start(1 << 20)?.rounds()),
        ],
    };
    contest.run(plan)
}

/// Three processes in a row, each with the port on which it gets something and the one where it gives it on.
struct Chain {
    first: Option<MessagePort>,
    last: MessagePort,
    buffer: Option<SealedBuffer>,
    processes: Vec<(MessagePort, Child)>,
}

impl Chain {
    fn start(len: usize) -> Result<Self> {
        let mut buffer = Buffer::new(len)?;
        buffer.fill(7);
        let MessageChannel { port1: first, port2: mut next } = MessageChannel::new()?;
        let mut processes = Vec::new();
        for _ in 0..3 {
            let mut command = Command::new(std::env::current_exe()?);
            command.env(FORWARD, "1");
            let (control, process) = zeroport::spawn(command)?;
            let MessageChannel { port1: out, port2 } = MessageChannel::new()?;
            control.post_bytes_with(b"", transfer![next, out])?;
            next = port2;
            processes.push((control, process));
        }
        Ok(Self { first: Some(first), last: next, buffer: Some(buffer.seal()?), processes })
    }

    fn rounds(mut self) -> Measure {
        Box::new(move || {
            let start = Instant::now();
            for _ in 0..STEPS {
                self.round()?;
            }
            let elapsed = start.elapsed();
            let read = self.buffer.iter().flat_map(|buffer| buffer.iter());
            assert!(read.take(1 << 20).all(|byte| *byte == 7));
            Ok(elapsed.as_nanos() as f64 / 1e3 / f64::from(STEPS))
        })
    }

    fn round(&mut self) -> Result<()> {
        let (Some(first), Some(buffer)) = (&self.first, self.buffer.take()) else { return Ok(()) };
        first.post_bytes_with(b"", transfer![buffer])?;
        let [buffer] = self.last.recv()?.take_buffers()?;
        self.buffer = Some(buffer);
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The end goes through the chain.
        self.first = None;
        for (_, process) in &mut self.processes {
            let _ = process.wait();
        }
    }
}

/// Forwards until the end, if this process is one that does. To be called first in `main`.
pub fn run_far_end() -> Result<()> {
    if std::env::var_os(FORWARD).is_none() {
        return Ok(());
    }
    let control = zeroport::parent_port()?;
    let [from, to] = control.recv()?.take_ports()?;
    while let Ok(message) = from.recv() {
        let [buffer] = message.take_buffers()?;
        to.post_bytes_with(message.bytes(), transfer![buffer])?;
    }
    std::process::exit(0);
}
