//! A ring's memory on the heap, which notices when both sides use the same payload at once.
#![allow(unsafe_code)]

use std::array::from_fn;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::record::HEADER_LEN;
use crate::ring::{Memory, Record, Reservation};
use crate::sync::{AtomicU64, Ordering};

/// Three records of 16 bytes fill it, a lap is four of them.
pub(super) const CAPACITY: u64 = 128;
/// What a ring is full of that was in use before.
const OLD: u64 = u64::MAX;

/// The words hold the headers; each 16 bytes of payload are one cell, and loom reports a cell that is
/// written while another thread uses it.
#[derive(Debug)]
pub(super) struct Heap {
    words: [AtomicU64; CAPACITY as usize / 8],
    cells: [UnsafeCell<u64>; (CAPACITY / HEADER_LEN) as usize],
    released: AtomicU64,
}

// SAFETY: the cells are used as the ring promises (R2), and loom checks that they are.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    /// A ring both of whose sides stand at `position`: full of old bytes but for the header there.
    pub(super) fn at(position: u64) -> Arc<Self> {
        let head = (position % CAPACITY / 8) as usize;
        Arc::new(Self {
            words: from_fn(|index| AtomicU64::new(if index == head { 0 } else { OLD })),
            cells: from_fn(|_| UnsafeCell::new(OLD)),
            released: AtomicU64::new(position),
        })
    }

    /// Fills a reservation with a value.
    pub(super) fn fill(&self, reservation: &Reservation, value: u64) {
        let (offset, len) = (reservation.payload_offset(), reservation.payload_len());
        for cell in self.payload(offset, len) {
            // SAFETY: R2: the poster's own; loom checks it.
            cell.with_mut(|cell| unsafe { *cell = value });
        }
    }

    /// The value of which a record is full.
    pub(super) fn value(&self, record: &Record) -> u64 {
        let cells = self.payload(record.payload_offset, record.payload_len.into());
        // SAFETY: R2: the reader's own; loom checks it.
        let values = cells.iter().map(|cell| cell.with(|cell| unsafe { *cell }));
        values.reduce(|one, other| if one == other { one } else { OLD }).unwrap_or(OLD)
    }

    /// Uses the payload of a record for something else.
    pub(super) fn give_away(&self, record: &Record) {
        for cell in self.payload(record.payload_offset, record.payload_len.into()) {
            // SAFETY: nobody writes there any more; loom checks it.
            cell.with_mut(|cell| unsafe { *cell = OLD });
        }
    }

    fn payload(&self, offset: u64, len: u64) -> &[UnsafeCell<u64>] {
        let first = (offset / HEADER_LEN) as usize;
        let count = len.div_ceil(HEADER_LEN) as usize;
        &self.cells[first..first + count]
    }

    /// How far room was given back.
    pub(super) fn given_back(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }
}

impl Memory for Arc<Heap> {
    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        &self.words[(offset % CAPACITY / 8) as usize]
    }

    fn released(&self) -> &AtomicU64 {
        &self.released
    }
}
