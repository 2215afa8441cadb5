//! What memory itself takes: slots of one length between two threads, and a number in each that says whose it is.
//!
//! No rival, but a limit: nothing here tells lengths or types, finds room that is not where it always is, sees an
//! end, sleeps, or checks what the other side writes. Whatever carries as much between two processors does at least
//! this.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroport::MessagePort;

use super::CAPACITY;
use crate::Result;
use crate::carrier::{Carrier, Inlet, Link, Outlet};
use crate::far::Far;

/// As large as a record of ours.
#[repr(C, align(16))]
struct Slot<T> {
    /// One more than the number of the message that lies here.
    number: AtomicU64,
    _unused: u64,
    payload: UnsafeCell<T>,
}

/// Slots that are filled in turn, and how many messages the reader is done with.
struct Slots<T> {
    slots: Box<[Slot<T>]>,
    done: Line,
}

// SAFETY: the poster writes a payload before it stores the number that hands it over, and again only after the
// reader has said that it is done; the reader reads it in between.
unsafe impl<T: Send> Sync for Slots<T> {}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// The reader says that it is done as often as our reader does: an eighth of all at once.
const SHARE: u64 = 8;

/// What is sent, and so what suits it.
#[derive(Clone, Copy)]
pub enum Traffic {
    /// In as many bytes as all have; a reader that has found nothing leaves the poster alone for a while.
    Stream,
    /// In as few bytes as ours uses where each message is waited for.
    RoundTrips,
}

impl Traffic {
    fn capacity(self) -> usize {
        match self {
            Self::Stream => CAPACITY,
            Self::RoundTrips => 4096,
        }
    }

    fn pauses(self) -> u32 {
        match self {
            Self::Stream => 200,
            Self::RoundTrips => 1,
        }
    }
}

/// One end of the slots there, and of those back.
struct End<T> {
    slots: Arc<Slots<T>>,
    /// Messages that went through here.
    count: u64,
    /// The slot of the next one.
    index: usize,
    /// How far the other side is known to be done, or was told.
    done: u64,
    /// Of a reader that has found nothing.
    pauses: u32,
}

impl<T> End<T> {
    fn pair(count: usize, pauses: u32, mut payload: impl FnMut() -> T) -> [Self; 2] {
        let slot =
            || Slot { number: AtomicU64::new(0), _unused: 0, payload: UnsafeCell::new(payload()) };
        let slots = std::iter::repeat_with(slot).take(count).collect();
        let slots = Arc::new(Slots { slots, done: Line::default() });
        [Arc::clone(&slots), slots].map(|slots| Self { slots, count: 0, index: 0, done: 0, pauses })
    }

    #[inline(always)]
    fn step(&mut self) {
        self.count += 1;
        self.index += 1;
        if self.index == self.slots.slots.len() {
            self.index = 0;
        }
    }

    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut T)) {
        let slots = self.slots.slots.len() as u64;
        while self.count - self.done == slots {
            self.done = self.slots.done.0.load(Ordering::Acquire);
            spin_loop();
        }
        let slot = &self.slots.slots[self.index];
        // SAFETY: the reader is done with it.
        write(unsafe { &mut *slot.payload.get() });
        slot.number.store(self.count + 1, Ordering::Release);
        self.step();
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&T) -> R) -> R {
        let slot = &self.slots.slots[self.index];
        while slot.number.load(Ordering::Acquire) != self.count + 1 {
            // Who is right behind the poster takes the lines from it that it is about to write.
            (0..self.pauses).for_each(|_| spin_loop());
        }
        // SAFETY: its number says that it was written, and it is written again only after we are done.
        let result = read(unsafe { &*slot.payload.get() });
        self.step();
        if self.count - self.done >= (self.slots.slots.len() as u64 / SHARE).max(1) {
            self.done = self.count;
            self.slots.done.0.store(self.done, Ordering::Release);
        }
        result
    }
}

/// Small payloads.
pub struct Words<const N: usize> {
    send: End<[u64; N]>,
    receive: End<[u64; N]>,
}

/// Starts a far end that works on the other ends.
pub fn link<const N: usize>(
    traffic: Traffic,
    serve: fn(&MessagePort, Words<N>) -> Result<()>,
) -> Result<Link<Words<N>>> {
    let count = traffic.capacity() / size_of::<Slot<[u64; N]>>();
    let pair = || End::pair(count, traffic.pauses(), || [0; N]);
    let ([send, theirs], [their, receive]) = (pair(), pair());
    let words = Words { send: their, receive: theirs };
    let far = Far::thread(move |control| serve(control, words))?;
    Ok(Link { far, carrier: Words { send, receive } })
}

impl<const N: usize> Words<N> {
    /// Sends what `write` writes in place.
    #[inline(always)]
    pub fn send_with(&mut self, write: impl FnOnce(&mut [u64; N])) {
        self.send.send(write);
    }
}

impl<const N: usize> Carrier<N> for Words<N> {
    #[inline(always)]
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        self.send_with(|place| *place = *payload);
        Ok(())
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        Ok(self.receive.receive(read))
    }
}

/// Large payloads, one way.
pub struct Blocks(End<Box<[u8]>>);

/// Bytes of all blocks, as far as 2 to 16 make so many: more than the caches of one processor hold, and less than
/// those that all share.
const BLOCKS: usize = 8 << 20;

/// Starts a far end that reads payloads of `len` bytes.
pub fn link_large(
    len: usize,
    serve: impl FnOnce(&MessagePort, Blocks) -> Result<()> + Send + 'static,
) -> Result<Link<Blocks>> {
    let block = || vec![0; len].into_boxed_slice();
    let [ours, theirs] =
        End::pair((BLOCKS / len).clamp(2, 16), Traffic::Stream.pauses(), block).map(Blocks);
    let far = Far::thread(move |control| serve(control, theirs))?;
    Ok(Link { far, carrier: ours })
}

impl Outlet for Blocks {
    fn send(&mut self, _: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        self.0.send(|block| write(block));
        Ok(())
    }
}

impl Inlet for Blocks {
    fn receive<R>(&mut self, _: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(self.0.receive(|block| read(block)))
    }
}
