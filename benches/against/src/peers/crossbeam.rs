//! crossbeam-channel, bounded, between two threads.

use std::hint::spin_loop;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use zeroport::{MessagePort, WaitStrategy};

use super::CAPACITY;
use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::far::Far;

/// A channel there, and one back.
pub struct Channels<const N: usize> {
    sender: Sender<[u64; N]>,
    receiver: Receiver<[u64; N]>,
    wait: WaitStrategy,
}

/// Starts a far end that works on its ends of the channels.
pub fn link<const N: usize>(
    wait: WaitStrategy,
    serve: fn(&MessagePort, Channels<N>) -> Result<()>,
) -> Result<Link<Channels<N>>> {
    let (sender, theirs) = bounded(CAPACITY / size_of::<[u64; N]>());
    let (their, receiver) = bounded(CAPACITY / size_of::<[u64; N]>());
    let channels = Channels { sender: their, receiver: theirs, wait };
    let far = Far::thread(move |control| serve(control, channels))?;
    Ok(Link { far, carrier: Channels { sender, receiver, wait } })
}

impl<const N: usize> Channels<N> {
    fn spin_for_message(&self) -> Result<[u64; N]> {
        loop {
            match self.receiver.try_recv() {
                Err(TryRecvError::Empty) => spin_loop(),
                received => return Ok(received?),
            }
        }
    }
}

impl<const N: usize> Carrier<N> for Channels<N> {
    #[inline(always)]
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        Ok(self.sender.send(*payload)?)
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        let payload = match self.wait {
            WaitStrategy::Spin => self.spin_for_message()?,
            _ => self.receiver.recv()?,
        };
        Ok(read(&payload))
    }
}
