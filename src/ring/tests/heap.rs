//! A ring's memory on the heap.

use std::rc::Rc;

use super::Memory;
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Heap {
    words: Vec<AtomicU64>,
    pub(crate) released: AtomicU64,
}

impl Heap {
    pub(crate) fn new(capacity: u64) -> Rc<Self> {
        let words = (0..capacity / 8).map(|_| AtomicU64::new(0)).collect();
        Rc::new(Self { words, released: AtomicU64::new(0) })
    }

    /// Fills a payload with bytes, or with what is left of them, and some more.
    pub(crate) fn write(&self, offset: u64, len: u64, bytes: &[u8]) {
        for at in (0..len.next_multiple_of(8)).step_by(8) {
            let word: [u8; 8] =
                std::array::from_fn(|i| bytes.get(at as usize + i).copied().unwrap_or(0xee));
            let place = &self.words[((offset + at) / 8) as usize];
            place.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let first = (offset / 8) as usize;
        let words = &self.words[first..first + len.div_ceil(8) as usize];
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        bytes.take(len as usize).collect()
    }

    /// How far room was given back.
    pub(crate) fn given_back(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// What a reader says that need not be true.
    pub(crate) fn claim_released(&self, position: u64) {
        self.released.store(position, Ordering::Relaxed);
    }
}

impl Memory for Rc<Heap> {
    fn capacity(&self) -> u64 {
        8 * self.words.len() as u64
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        &self.words[((offset & (self.capacity() - 1)) / 8) as usize]
    }

    fn released(&self) -> &AtomicU64 {
        &self.released
    }
}
