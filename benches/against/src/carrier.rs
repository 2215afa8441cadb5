//! Ways for payloads between this process and the far end, one for each peer, and what the far end does with what
//! comes.

use zeroport::MessagePort;

use crate::Result;
use crate::far::{Far, serve};
use crate::payload::check_words;

/// An end of a way for messages of `N` words in both directions.
pub trait Carrier<const N: usize> {
    /// Sends a message; waits while there is no room. It is visible when this returns.
    fn send(&mut self, payload: &[u64; N]) -> Result<()>;

    /// Waits for a message, and has it read where it is.
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R>;

    /// How often this end slept in the kernel, if it counts that.
    fn sleeps(&self) -> Option<u64> {
        None
    }
}

/// The near end of a way, and the far end that holds the other one.
pub struct Link<C> {
    pub far: Far,
    pub carrier: C,
}

/// The far end of a stream: checks so many messages.
pub fn serve_stream<const N: usize>(
    control: &MessagePort,
    mut carrier: impl Carrier<N>,
) -> Result<()> {
    serve(control, |steps| {
        for step in 0..steps {
            carrier.receive(|payload| check_words(payload, step))?;
        }
        Ok(steps)
    })
}

/// The far end of round trips: sends each message back. Answers how often it has slept.
pub fn serve_echo<const N: usize>(
    control: &MessagePort,
    mut carrier: impl Carrier<N>,
) -> Result<()> {
    serve(control, |steps| {
        for _ in 0..steps {
            let payload = carrier.receive(|payload| *payload)?;
            carrier.send(&payload)?;
        }
        Ok(carrier.sleeps().unwrap_or_default())
    })
}

/// Where large payloads go in. Several may be on their way; none is lost.
pub trait Outlet {
    /// Has a message of `len` bytes written, and sends it; waits while there is no room.
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()>;
}

/// Where they come out, in the other process.
pub trait Inlet {
    /// Waits for a message of `len` bytes, and has it read.
    fn receive<R>(&mut self, len: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R>;
}
