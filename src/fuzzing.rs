//! The door for the fuzz targets: what they need to see of the inside. Only there under
//! `cfg(fuzzing)`, and no part of the interface.
#![expect(clippy::indexing_slicing, clippy::expect_used, clippy::panic)] // the twins fail by panicking

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{AttachError, OpenError};
use crate::layout::{HEADER_LEN, Identity, MAX_LIMIT, Shape, Side};
use crate::line::Line;
use crate::named::{Envelope, Kind};
use crate::port::{ChannelOptions, MessageChannel, MessagePort};
use crate::queue::{Poster, Reader};
use crate::record::{self, Head};
use crate::ring::{Consumer, Content, Found, Memory, Producer, Record, Refusal};
use crate::segment::{Mapping, Region, Segment};
use crate::sync::{AtomicU64, Ordering};

/// A ring whose bytes the fuzzer wrote. Bytes past the input are zero.
struct Heap {
    words: Vec<AtomicU64>,
    released: AtomicU64,
}

impl Heap {
    fn new(words: &[u64], capacity: u64, released: u64) -> Rc<Self> {
        let word = |index| AtomicU64::new(words.get(index as usize).copied().unwrap_or(0));
        let words = (0..capacity / 8).map(word).collect();
        Rc::new(Self { words, released: AtomicU64::new(released) })
    }
}

impl Memory for Rc<Heap> {
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

/// Reads a head, and writes what was read: that is the same head, unless nobody writes such a one.
pub fn parse_head(head: u64) {
    match record::parse_head(head) {
        Head::Empty => assert_eq!(head, 0),
        Head::Plain { len } => assert_eq!(head, record::message_head(len, 0, 0)),
        Head::Message { len, flags, ports } => {
            assert_eq!(head, record::message_head(len, flags, ports));
            assert!(ports <= record::MAX_PORTS, "no more than a message carries");
            assert!(ports > 0 || flags > 0, "else it is plain");
            assert_eq!(flags & !(record::OUTSIDE | record::NEXT_LANE), 0, "no other flags");
            let least = if flags & record::OUTSIDE == 0 { 0 } else { record::OUTSIDE_LEN };
            assert!(len >= least, "room for what is outside");
        }
        Head::Filler => assert_eq!(head, record::filler_head()),
        Head::Link { flags } => {
            assert_eq!(head, record::link_head(flags));
            assert_eq!(flags & !record::NEXT_LANE, 0, "no other flags");
        }
        Head::Broken => assert_ne!(head, 0),
    }
}

/// Parses an envelope, and puts together anew what was parsed: that is the same payload, for there is one way to write
/// an envelope. False if it is refused.
pub fn parse_envelope(payload: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(payload) else { return false };
    let (name, value) = (envelope.name(payload), envelope.value(payload));
    let kind = match envelope.kind {
        Kind::Message => 1,
        Kind::Request => 2,
    };
    let mut written = vec![kind, 0];
    written.extend((name.len() as u16).to_le_bytes());
    written.extend(envelope.tag.to_le_bytes());
    written.extend([0; 8]);
    written.extend(name.as_bytes());
    written.resize(written.len().next_multiple_of(16), 0);
    written.extend(value);
    assert_eq!(written, payload);
    assert!(name.len() <= 255);
    true
}

/// What a reader is told of a record, in a ring of `capacity` bytes that was given back up to `released`.
fn check_record(found: &Record, capacity: u64, released: u64) {
    assert!(found.payload_offset.is_multiple_of(record::HEADER_LEN), "aligned");
    assert!(found.payload_offset + u64::from(found.payload_len) <= capacity, "inside");
    let (ports, buffers) = (found.rare.ports(), found.rare.buffers());
    assert!(ports + buffers <= record::MAX_PORTS, "no more than a message carries");
    assert!(found.to > found.from, "forward");
    assert!(found.to - released < capacity, "where the poster had room");
}

/// Reads up to `limit` records from a ring of `capacity` bytes that holds `words`, starting at
/// `read`, and checks what the reader was told. Returns their number, or `None` for a broken ring.
pub fn read_ring(words: &[u64], capacity: u64, read: u64, limit: usize) -> Option<usize> {
    let consumer = Consumer::new(Heap::new(words, capacity, read), read);
    for count in 0..limit {
        let found = match consumer.peek() {
            Found::Nothing => return Some(count),
            Found::Link(_) | Found::Broken => return None,
            Found::Record(found) => found,
        };
        let released = consumer.memory().released.load(Ordering::Relaxed);
        check_record(&found, capacity, released);
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

/// Reads up to `limit` records from a queue: its first ring holds the words that come first, and each link
/// leads to the next of the others. Lets go of every record but each third, and of those at the end. Returns
/// their number, or `None` for a broken queue, or one that leads nowhere.
pub fn read_queue(rings: &[(u64, Vec<u64>)], limit: usize) -> Option<usize> {
    let mut rings = rings.iter().map(|(capacity, words)| Heap::new(words, *capacity, 0));
    let first = rings.next()?;
    let reader = Reader::new(Rc::clone(&first), 0);
    let mut held = VecDeque::new();
    let mut count = 0;
    while count < limit {
        let found = reader.peek();
        match found {
            Found::Nothing => break,
            Found::Broken => return None,
            Found::Link(_) => reader.follow(rings.next()?),
            Found::Record(record) => {
                let ring = record.rare.ring();
                let memory = if ring == 0 { Rc::clone(&first) } else { reader.memory(ring)? };
                let released = memory.released.load(Ordering::Relaxed);
                check_record(&record, memory.capacity(), released);
                assert_eq!(reader.peek(), found, "to look changes nothing");
                reader.take(&record);
                held.push_back(record);
                if count % 3 != 0 {
                    let record = held.pop_back()?;
                    release(&reader, &record);
                }
                count += 1;
            }
        }
        while reader.leave().is_some() {}
    }
    held.iter().for_each(|record| release(&reader, record));
    while reader.leave().is_some() {}
    Some(count)
}

fn release(reader: &Reader<Rc<Heap>>, record: &Record) {
    match record.rare.ring() {
        0 => {
            reader.first().release(record.from, record.to);
            reader.first().give_back();
        }
        ring => reader.release(ring, record.from, record.to),
    }
}

/// What a poster does with a queue whose reader says, before each step, what it has given back in both rings.
#[derive(Clone, Copy, Debug)]
pub enum PosterStep {
    /// Publishes so many bytes if there is room for them.
    Post(u32),
    /// Goes on in a ring of as many bytes.
    Grow(u64),
    /// Goes back to the first one, if the reader has caught up.
    GoBack,
}

/// Plays a poster over rings whose reader says whatever it likes: only what is possible is believed, and a
/// grown ring is used for one lap. Ends at the first impossible word that matters.
pub fn post_into_queue(capacity: u64, steps: &[(PosterStep, [u64; 2])]) {
    let first = Heap::new(&[], capacity, 0);
    let poster = Poster::new(Rc::clone(&first), 0);
    for (step, [in_first, in_grown]) in steps {
        let grown = poster.grown();
        first.released.store(*in_first, Ordering::Relaxed);
        if let Some((grown, _)) = &grown {
            grown.released.store(*in_grown, Ordering::Relaxed);
        }
        let is_possible =
            |released: u64, next| released <= next && released.is_multiple_of(record::HEADER_LEN);
        let next = poster.first().position();
        match *step {
            PosterStep::Post(len) => match poster.reserve(len.into()) {
                Ok(room) => {
                    let in_ring = grown.as_ref().map_or(capacity, |(ring, _)| ring.capacity());
                    assert_eq!(room.is_grown(), grown.is_some());
                    assert!(room.payload_offset() + room.payload_len() <= in_ring, "inside");
                    assert!(!room.is_grown() || room.end() <= in_ring, "one lap");
                    poster.publish(room, Content::plain(len as usize, 0));
                }
                Err(Refusal::Full | Refusal::TooLarge { .. }) => {}
                Err(Refusal::Broken) => return assert!(grown.is_none(), "nobody has looked"),
                Err(Refusal::Linked) => panic!("the queue knows where it stands"),
            },
            PosterStep::Grow(capacity) => {
                let memory = Heap::new(&[], capacity, 0);
                poster.grow(memory, capacity.trailing_zeros(), 0);
            }
            PosterStep::GoBack => match poster.go_back() {
                Ok(true) => {
                    let (_, at) = grown.expect("it was away");
                    assert!(is_possible(*in_grown, at) && is_possible(*in_first, next));
                    assert!(next - in_first <= capacity / 2, "room in the first ring");
                    assert_eq!(poster.first().position(), next + record::HEADER_LEN);
                }
                Ok(false) => assert_eq!(poster.grown().is_some(), grown.is_some()),
                Err(refusal) => return assert_eq!(refusal, Refusal::Broken),
            },
        }
    }
}

/// Reserves and publishes payloads in a ring whose reader says, before each of them, that it has
/// released so much; checks that a poster believes only what is possible, and uses only free room.
pub fn post_into_ring(capacity: u64, steps: &[(u32, u64)]) {
    let producer = Producer::new(Heap::new(&[], capacity, 0), 0);
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

/// Attaches a memfd that may hold anything as a channel; if it passes, uses every word of it.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn attach(memfd: OwnedFd) -> Result<[u64; 2], AttachError> {
    let segment = Arc::new(Segment::attach(memfd)?);
    let shape = segment.shape();
    assert!(shape.limit.into_iter().all(|limit| limit <= MAX_LIMIT), "a legal limit");
    let capacities = [Side::First, Side::Second].map(|side| use_ring(&segment, side));
    assert_eq!(capacities, shape.capacity);
    Ok(capacities)
}

/// As [`attach`], as a grown ring, of this capacity if that is told.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn attach_grown(memfd: OwnedFd, capacity: Option<u64>) -> Result<[u64; 2], AttachError> {
    let mapping = Mapping::grown(memfd.as_fd(), capacity)?;
    let segment = Arc::new(mapping.held_by(memfd));
    Ok([use_ring(&segment, Side::First), 0])
}

fn use_ring(segment: &Arc<Segment>, side: Side) -> u64 {
    let region = Region::new(Arc::clone(segment), side);
    let capacity = region.capacity();
    for offset in [0, 8, capacity - 8, capacity, u64::MAX] {
        let word = region.word(offset);
        word.fetch_xor(1, Ordering::Relaxed);
    }
    let mut last = [0];
    region.copy_out(capacity - 8, &mut last);
    let _ = Consumer::new(region, 0).peek();
    capacity
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
