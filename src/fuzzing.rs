//! The door for the fuzz targets: what they need to see of the inside. Only there under
//! `cfg(fuzzing)`, and no part of the interface.
#![expect(clippy::indexing_slicing)] // the twins fail by panicking

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{AttachError, OpenError};
use crate::layout::{HEADER_LEN, Identity, Shape, Side};
use crate::line::Line;
use crate::port::{ChannelOptions, MessageChannel, MessagePort};
use crate::record;
use crate::ring::{Consumer, Content, Found, Memory, Producer, Refusal};
use crate::segment::{Region, Segment};
use crate::sync::{AtomicU64, Ordering};

/// A ring whose bytes the fuzzer wrote. Bytes past the input are zero.
struct Heap {
    words: Vec<AtomicU64>,
    released: AtomicU64,
}

impl Memory for Heap {
    fn capacity(&self) -> u64 {
        8 * self.words.len() as u64
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        let index = (offset & (self.capacity() - 1)) / 8;
        &self.words[index as usize]
    }

    fn released(&self) -> &AtomicU64 {
        &self.released
    }
}

/// Reads up to `limit` records from a ring of `capacity` bytes that holds `words`, starting at
/// `read`, and checks what the reader was told. Returns their number, or `None` for a broken ring.
pub fn read_ring(words: &[u64], capacity: u64, read: u64, limit: usize) -> Option<usize> {
    let word = |index| AtomicU64::new(words.get(index as usize).copied().unwrap_or(0));
    let heap =
        Heap { words: (0..capacity / 8).map(word).collect(), released: AtomicU64::new(read) };
    let consumer = Consumer::new(heap, read);
    for count in 0..limit {
        let found = match consumer.peek() {
            Found::Nothing => return Some(count),
            Found::Link(_) | Found::Broken => return None,
            Found::Record(found) => found,
        };
        let released = consumer.memory().released.load(Ordering::Relaxed);
        assert!(found.payload_offset.is_multiple_of(record::HEADER_LEN), "aligned");
        assert!(found.payload_offset + u64::from(found.payload_len) <= capacity, "inside");
        assert!(found.rare.ports() <= record::MAX_PORTS, "no more than a message carries");
        assert!(found.to > found.from, "forward");
        assert!(found.to - released < capacity, "where the poster had room");
        assert_eq!(consumer.peek(), Found::Record(found), "to look changes nothing");
        consumer.take(found.to);
        consumer.release(found.from, found.to);
        assert_eq!(consumer.owed(), found.to - released);
        if count % 3 == 2 {
            continue; // owe it for a while
        }
        consumer.give_back();
    }
    Some(limit)
}

/// Reserves and publishes payloads in a ring whose reader says, before each of them, that it has
/// released so much; checks that a poster believes only what is possible, and uses only free room.
pub fn post_into_ring(capacity: u64, steps: &[(u32, u64)]) {
    let words = (0..capacity / 8).map(|_| AtomicU64::new(0)).collect();
    let producer = Producer::new(Heap { words, released: AtomicU64::new(0) }, 0);
    let (mut next, mut believed) = (0, 0);
    for &(len, released) in steps {
        producer.memory().released.store(released, Ordering::Relaxed);
        let start = producer.cursor().start(next, len.into());
        let end = start + record::record_len(len.into());
        let possible = released <= next && released.is_multiple_of(record::HEADER_LEN);
        match producer.reserve(len.into()) {
            Ok(reservation) => {
                if possible {
                    believed = u64::max(believed, released);
                }
                let offset = start % capacity + record::HEADER_LEN;
                assert_eq!(reservation.payload_offset(), offset, "the place that the twin expects");
                assert!(offset + reservation.payload_len() <= capacity, "inside");
                assert!(end + record::HEADER_LEN <= believed + capacity, "free");
                producer.publish(reservation, Content::plain(len as usize, 0));
                next = end;
            }
            Err(Refusal::Full) => {
                assert!(possible && end + record::HEADER_LEN > released + capacity, "no room");
                believed = released;
            }
            Err(Refusal::Broken) => return assert!(!possible || released < believed, "broken"),
            Err(Refusal::TooLarge { max }) => assert!(u64::from(len) > max),
            Err(Refusal::Linked) => panic!("nobody has linked it"),
        }
    }
}

/// Attaches a memfd that may hold anything; if it passes, uses every word of it.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn attach(memfd: OwnedFd) -> Result<[u64; 2], AttachError> {
    let segment = Arc::new(Segment::attach(memfd)?);
    let mut capacities = [0; 2];
    for (side, capacity) in [Side::First, Side::Second].into_iter().zip(&mut capacities) {
        let region = Region::new(Arc::clone(&segment), side);
        *capacity = region.capacity();
        for offset in [0, 8, *capacity - 8, *capacity, u64::MAX] {
            let word = region.word(offset);
            word.fetch_xor(1, Ordering::Relaxed);
        }
        let mut last = [0];
        region.copy_out(*capacity - 8, &mut last);
        let _ = Consumer::new(region, 0).peek();
    }
    Ok(capacities)
}

/// The first bytes of a segment of this build with these capacities, and the length of its file.
pub fn identity(capacity: [u64; 2]) -> ([u64; 16], u64) {
    let shape = Shape { capacity, limit: [0; 2], reuse: false };
    (Identity::new(shape).to_words(), Identity::segment_len(capacity))
}

/// Bytes before the first ring.
pub const HEADER: u64 = HEADER_LEN;

/// Opens a channel; adds copies of its segment and of the second port's end of the line, for
/// whoever plays the second port and breaks the protocol.
///
/// # Errors
///
/// As [`ChannelOptions::open`].
pub fn open(options: ChannelOptions) -> Result<(MessageChannel, OwnedFd, OwnedFd), OpenError> {
    let parts = options.make()?;
    let (segment, [line1, line2], epoch) = (parts.segment, parts.lines, parts.epoch);
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(OpenError::Os);
    let memfd = copy(segment.memfd())?;
    let line = copy(line2.as_fd().map_err(OpenError::Os)?)?;
    let port =
        |side, line| MessagePort::new(Arc::clone(&segment), side, epoch, Line::hold(line), options);
    let channel =
        MessageChannel { port1: port(Side::First, line1), port2: port(Side::Second, line2) };
    Ok((channel, memfd, line))
}
