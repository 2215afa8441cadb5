//! Pure arithmetic of positions: no memory, no atomics.

use crate::record::{HEADER_LEN, record_len};

/// The shape of one ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    capacity: u64,
}

impl Cursor {
    pub(crate) const fn new(capacity: u64) -> Self {
        Self { capacity }
    }

    pub(crate) const fn capacity(self) -> u64 {
        self.capacity
    }

    /// The place in memory of a position.
    pub(crate) const fn offset(self, position: u64) -> u64 {
        position & (self.capacity - 1)
    }

    /// Bytes from a position to the end of its lap: 16 to the capacity.
    pub(crate) const fn to_end(self, position: u64) -> u64 {
        self.capacity - self.offset(position)
    }

    /// The longest payload that fits from any position once the ring is empty.
    ///
    /// A record that does not fit before the end wastes less than its own length on a filler, and
    /// the header after it must be free too: twice the record and one header make a lap.
    pub(crate) const fn max_payload(self) -> u64 {
        self.capacity / 2 - 2 * HEADER_LEN
    }

    /// Where a record with this payload starts if the poster stands at `next`.
    pub(crate) const fn start(self, next: u64, payload_len: u64) -> u64 {
        let to_end = self.to_end(next);
        if record_len(payload_len) <= to_end { next } else { next + to_end }
    }

    /// Whether everything below `end`, and the header after it, is the poster's (R1, R2).
    pub(crate) const fn is_free(self, end: u64, released: u64) -> bool {
        end + HEADER_LEN <= released + self.capacity
    }
}
