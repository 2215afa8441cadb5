//! rtrb, a ring between two threads. Both sides spin: it has nothing else.

use std::hint::spin_loop;

use rtrb::{Consumer, Producer, RingBuffer};
use zeroport::MessagePort;

use super::CAPACITY;
use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::far::Far;

/// A ring there, and one back.
pub struct Rings<const N: usize> {
    pub producer: Producer<[u64; N]>,
    pub consumer: Consumer<[u64; N]>,
}

/// Starts a far end that works on its ends of the rings.
pub fn link<const N: usize>(
    serve: fn(&MessagePort, Rings<N>) -> Result<()>,
) -> Result<Link<Rings<N>>> {
    let (producer, theirs) = RingBuffer::new(CAPACITY / size_of::<[u64; N]>());
    let (their, consumer) = RingBuffer::new(CAPACITY / size_of::<[u64; N]>());
    let rings = Rings { producer: their, consumer: theirs };
    let far = Far::thread(move |control| serve(control, rings))?;
    Ok(Link { far, carrier: Rings { producer, consumer } })
}

impl<const N: usize> Carrier<N> for Rings<N> {
    #[inline(always)]
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        while self.producer.push(*payload).is_err() {
            spin_loop();
        }
        Ok(())
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        loop {
            if let Ok(payload) = self.consumer.pop() {
                return Ok(read(&payload));
            }
            spin_loop();
        }
    }
}
