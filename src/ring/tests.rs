//! The ring against `rtrb` (a ring of as many bytes) and a `VecDeque` (what was said, in order), and
//! its invariants after every step.

pub(crate) mod heap;

use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::{
    Consumer, Content, Cursor, FEW, Found, Memory, Producer, Record, Refusal, Reservation,
};
use crate::record::{HEADER_LEN, Head, gap_of, parse_head, record_len};
use crate::sync::Ordering;
use heap::Heap;

/// What the two sides may do. Lengths and places are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    /// Reserve so much, publish the first part of it.
    Publish {
        len: u64,
        part: u64,
    },
    /// The same, withheld until the next flush.
    Stage {
        len: u64,
        part: u64,
    },
    /// Reserve, write, and publish nothing.
    Abandon {
        len: u64,
    },
    Flush,
    Take,
    /// Let one of the held records go: any.
    Release {
        which: usize,
    },
    GiveBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u64>(), any::<u64>()).prop_map(|(len, part)| Step::Publish { len, part }),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(len, part)| Step::Stage { len, part }),
        1 => any::<u64>().prop_map(|len| Step::Abandon { len }),
        2 => Just(Step::Flush),
        8 => Just(Step::Take),
        8 => any::<usize>().prop_map(|which| Step::Release { which }),
        5 => Just(Step::GiveBack),
    ];
    prop::collection::vec(step, 1..400)
}

/// How far apart records lie while laps end early.
const APART: u64 = 64;

/// A message as it was posted.
type Said = (u32, Vec<u8>);

/// Both sides of a ring, and what they should be.
struct Twins {
    heap: Rc<Heap>,
    producer: Producer<Rc<Heap>>,
    consumer: Consumer<Rc<Heap>>,
    /// Published, not taken.
    said: VecDeque<Said>,
    /// Staged, not flushed.
    staged: VecDeque<Said>,
    /// Taken, not released; with what the record said.
    held: Vec<(Record, Said)>,
    /// A ring of as many bytes: a byte for each byte of records and fillers that is in use.
    bytes: (rtrb::Producer<u8>, rtrb::Consumer<u8>),
    /// Where the poster, its first withheld record, and the reader stand; what was given back.
    next: u64,
    published: u64,
    read: u64,
    given_back: u64,
    tag: u32,
    turns_early: bool,
    answers: bool,
}

impl Twins {
    fn new(capacity: u64) -> Self {
        let heap = Heap::new(capacity);
        Self {
            turns_early: false,
            answers: false,
            producer: Producer::new(Rc::clone(&heap), 0),
            consumer: Consumer::new(Rc::clone(&heap), 0),
            heap,
            said: VecDeque::new(),
            staged: VecDeque::new(),
            held: Vec::new(),
            bytes: rtrb::RingBuffer::new(capacity as usize),
            next: 0,
            published: 0,
            read: 0,
            given_back: 0,
            tag: 0,
        }
    }

    /// With laps that may end early.
    fn turning_early(capacity: u64, after: u64, answers: bool) -> Self {
        let twins = Self { turns_early: true, answers, ..Self::new(capacity) };
        twins.producer.turn_early(after, APART);
        twins
    }

    fn capacity(&self) -> u64 {
        self.heap.capacity()
    }

    fn max_payload(&self) -> u64 {
        self.capacity() / 2 - 32
    }

    /// Reserves, and checks that it was refused exactly when it had to be.
    fn reserve(&self, len: u64) -> Option<Reservation> {
        let record = record_len(len);
        let free = self.bytes.0.slots() as u64;
        let rest = self.capacity() - self.next % self.capacity();
        let filler = if record > rest { rest } else { 0 };
        // The record, a filler if it would wrap, and the zeroed header after it.
        let fits = filler + record + HEADER_LEN <= free;
        let here = self.capacity() / 2 > 2 * FEW; // as in a channel
        let here = if here { self.producer.reserve_here(len) } else { None };
        match self.producer.reserve(len) {
            Ok(reservation) => {
                let place = |it: &Reservation| (it.payload_offset(), it.payload_len(), it.gap());
                assert!(here.is_none_or(|here| place(&here) == place(&reservation)));
                let start = reservation.payload_offset() - HEADER_LEN;
                let skipped = start.wrapping_sub(self.next) & (self.capacity() - 1);
                let is_early = self.turns_early && start == 0 && skipped == rest;
                assert!(skipped == filler || is_early, "{skipped} bytes passed over");
                let gap = reservation.gap();
                let apart = if self.turns_early { APART } else { 0 };
                assert!(gap <= apart, "{gap} bytes apart");
                assert!(skipped + record + gap + HEADER_LEN <= free, "{len} bytes into {free}");
                assert_eq!(reservation.payload_len(), len);
                Some(reservation)
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Full);
                assert!(here.is_none());
                assert!(!fits, "{len} bytes fit into {free}");
                // Never refused with twice the record and a header free, so never when empty.
                assert!(free < 2 * record + HEADER_LEN && free < self.capacity());
                None
            }
        }
    }

    /// Fills a reservation; `part` of it is going to be the message.
    fn fill(&mut self, reservation: &Reservation, part: u64) -> Said {
        let (offset, room) = (reservation.payload_offset(), reservation.payload_len());
        assert!(offset.is_multiple_of(HEADER_LEN), "R4");
        assert!(offset + room <= self.capacity(), "R3");
        self.assert_free(offset, room);
        self.tag += 1;
        let len = part % (room + 1);
        let bytes: Vec<u8> = (0..len).map(|at| (at as u8) ^ (self.tag as u8)).collect();
        self.heap.write(offset, room, &bytes);
        (self.tag, bytes)
    }

    /// R2: nothing that the reader has not given back lies there.
    fn assert_free(&self, offset: u64, len: u64) {
        for at in (offset..offset + len).step_by(16) {
            let used = at.wrapping_sub(self.given_back) & (self.capacity() - 1);
            assert!(used >= self.next - self.given_back, "R2");
        }
    }

    /// Moves the poster's twin past a record that starts at `payload_offset`, and the gap behind it.
    fn laid(&mut self, payload_offset: u64, len: u64, gap: u64) {
        let start = payload_offset - HEADER_LEN;
        let filler = start.wrapping_sub(self.next) & (self.capacity() - 1);
        let used = filler + record_len(len) + gap;
        self.bytes.0.write_chunk(used as usize).unwrap().commit_all();
        self.next += used;
    }

    fn post(&mut self, reservation: Reservation, part: u64, at_once: bool) {
        if self.answers {
            self.producer.will_wait();
        }
        let said = self.fill(&reservation, part);
        let (offset, len) = (reservation.payload_offset(), said.1.len() as u32);
        let gap = reservation.gap();
        if at_once {
            // As a port does: what is staged goes first.
            self.flush();
            self.producer.publish(reservation, Content::plain(len as usize, said.0));
            self.said.push_back(said);
        } else {
            self.producer.stage(reservation, Content::plain(len as usize, said.0));
            self.staged.push_back(said);
        }
        self.laid(offset, len.into(), gap);
        if at_once {
            self.published = self.next;
        }
    }

    fn flush(&mut self) {
        assert_eq!(self.producer.flush(), !self.staged.is_empty());
        self.said.append(&mut self.staged);
        self.published = self.next;
    }

    fn take(&mut self) {
        assert_eq!(self.consumer.is_empty(), self.said.is_empty());
        let [usual, plain] = [self.consumer.peek_usual(), self.consumer.peek_plain()];
        let found = self.consumer.peek();
        assert!(usual.is_none_or(|usual| Some(usual) == plain));
        assert!(plain.is_none_or(|plain| Found::Record(plain) == found));
        match (found, self.said.pop_front()) {
            (Found::Nothing, None) => {}
            (Found::Record(record), Some(said)) => {
                assert_eq!(self.found(&record), said);
                let is_next_lap = record.from.is_multiple_of(self.capacity());
                assert!(record.from == self.read || is_next_lap && record.from > self.read);
                self.read = record.to;
                self.consumer.take(record.to);
                self.held.push((record, said));
            }
            other => panic!("found and should be: {other:?}"),
        }
    }

    fn found(&self, record: &Record) -> Said {
        (record.tag, self.heap.read(record.payload_offset, record.payload_len.into()))
    }

    fn release(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let (record, said) = self.held.swap_remove(which % self.held.len());
        assert_eq!(self.found(&record), said, "R2: it was held until now");
        if self.consumer.is_oldest(record.from) {
            self.consumer.release_oldest(record.to);
        } else {
            self.consumer.release(record.from, record.to);
        }
    }

    /// Everything before the oldest record that is still held goes back.
    fn give_back(&mut self) {
        let oldest = self.held.iter().map(|(record, _)| record.from).min().unwrap_or(self.read);
        assert_eq!(self.consumer.owed(), oldest - self.given_back);
        self.consumer.give_back();
        let given_back = (oldest - self.given_back) as usize;
        self.bytes.1.read_chunk(given_back).unwrap().commit_all();
        self.given_back = oldest;
        assert_eq!(self.heap.released.load(Ordering::Relaxed), oldest);
    }

    fn step(&mut self, step: &Step) {
        // Sizes near nothing and near the most are as likely as all between.
        let wanted = |len: u64, max: u64| match len % 3 {
            0 => (len / 3 % 49).min(max),
            1 => max - len / 3 % 33,
            _ => len / 3 % (max + 1),
        };
        match *step {
            Step::Publish { len, part } | Step::Stage { len, part } => {
                if let Some(reservation) = self.reserve(wanted(len, self.max_payload())) {
                    self.post(reservation, part, matches!(step, Step::Publish { .. }));
                }
            }
            Step::Abandon { len } => {
                if let Some(reservation) = self.reserve(wanted(len, self.max_payload())) {
                    self.fill(&reservation, len);
                }
            }
            Step::Flush => self.flush(),
            Step::Take => self.take(),
            Step::Release { which } => self.release(which),
            Step::GiveBack => self.give_back(),
        }
    }

    /// Walks from the reader to the poster.
    fn check_invariants(&self) {
        let head = |at: u64| parse_head(self.heap.word(at).load(Ordering::Relaxed));
        assert_eq!(head(self.published), Head::Empty, "R1");
        assert_eq!(head(self.next), Head::Empty, "R1");
        let (mut at, mut messages, mut after_filler) = (self.read, 0, false);
        while at < self.published {
            assert!(at.is_multiple_of(HEADER_LEN), "R4");
            let (rest, at_detail) = (self.capacity() - at % self.capacity(), at + 8);
            match head(at) {
                Head::Plain { len } | Head::Message { len, .. } => {
                    assert!(record_len(len.into()) <= rest, "R3: contiguous");
                    (messages, after_filler) = (messages + 1, false);
                    at += record_len(len.into());
                    at += gap_of(self.heap.word(at_detail).load(Ordering::Relaxed));
                }
                Head::Filler => {
                    assert!(!after_filler && rest < self.capacity(), "R3: one, not at 0");
                    after_filler = true;
                    at += rest;
                }
                Head::Empty | Head::Link { .. } | Head::Broken => panic!("R1: a gap at {at}"),
            }
        }
        assert_eq!((at, messages, after_filler), (self.published, self.said.len(), false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ring_does_as_its_twins(
        capacity in prop::sample::select(vec![128, 256, 4096, 16384]),
        turn in prop::option::of(16u64..600),
        answers in any::<bool>(),
        steps in steps(),
    ) {
        let mut twins = match turn {
            None => Twins::new(capacity),
            Some(after) => Twins::turning_early(capacity, after, answers),
        };
        for step in &steps {
            twins.step(step);
            twins.check_invariants();
        }
        // In the end everything comes, and all of the ring is free again.
        twins.flush();
        while !twins.said.is_empty() {
            twins.take();
        }
        while !twins.held.is_empty() {
            twins.release(0);
        }
        twins.give_back();
        prop_assert_eq!(twins.bytes.0.slots() as u64, capacity);
        prop_assert!(twins.reserve(twins.max_payload()).is_some());
    }

    /// A lap ends early where the reader has read all but the last record, and only there; from then on
    /// records lie apart if it answers.
    #[test]
    fn laps_end_early_for_who_keeps_up(
        unread in 0usize..4, held in any::<bool>(), answers in any::<bool>(),
    ) {
        let mut twins = Twins::turning_early(4096, 512, answers);
        for number in 0..40 {
            let reservation = twins.reserve(48).unwrap();
            let start = reservation.payload_offset() - HEADER_LEN;
            let may_be_back = number > 0 && start == 0;
            let keeps_up = unread == 0 && !held;
            prop_assert!(!may_be_back || keeps_up, "early, with {unread} unread");
            // Packed, 8 are 512 bytes; apart, 4 are.
            if keeps_up && (number % 8 == 0 || answers && number > 8 && number % 4 == 0) {
                prop_assert_eq!(start, 0, "late, at message {}", number);
            }
            let gap = if keeps_up && answers && number >= 8 { APART } else { 0 };
            prop_assert_eq!(reservation.gap(), gap, "behind message {}", number);
            twins.post(reservation, 48, true);
            if twins.said.len() > unread {
                twins.take();
                if !held || number > 0 {
                    twins.release(usize::from(held));
                    twins.give_back();
                }
            }
        }
    }

    #[test]
    fn longest_payload_fits_wherever_an_empty_ring_stands(
        shift in 6u32..=30, position in any::<u32>(),
    ) {
        let cursor = Cursor::new(1 << shift);
        let next = u64::from(position) * HEADER_LEN;
        let start = cursor.start(next, cursor.max_payload());
        let len = record_len(cursor.max_payload());
        prop_assert!(len <= cursor.to_end(start), "R3");
        prop_assert!(start == next || cursor.offset(start) == 0, "R3");
        prop_assert!(cursor.is_free(start + len, next));
    }

    /// Whatever the reader claims to have given back, room that it has not is never written.
    #[test]
    fn impossible_releases_are_refused(claim in any::<u64>()) {
        let mut twins = Twins::new(4096);
        while let Some(reservation) = twins.reserve(1000) {
            twins.post(reservation, 1000, true);
        }
        twins.heap.released.store(claim, Ordering::Relaxed);
        let possible = claim <= twins.next && claim.is_multiple_of(HEADER_LEN);
        match twins.producer.reserve(1000) {
            Err(Refusal::Broken) => prop_assert!(!possible),
            Ok(_) | Err(Refusal::Full) => prop_assert!(possible),
            Err(refusal) => prop_assert!(false, "{refusal:?}"),
        }
    }
}

#[test]
fn too_large_is_told_from_full() {
    let twins = Twins::new(4096);
    assert_eq!(twins.producer.reserve(2016).map(|room| room.payload_len()), Ok(2016));
    let refusal = twins.producer.reserve(2017).map(|room| room.payload_len());
    assert_eq!(refusal, Err(Refusal::TooLarge { max: 2016 }));
}

#[test]
fn a_position_that_runs_backwards_is_refused() {
    let mut twins = Twins::new(128);
    for _ in 0..2 {
        let reservation = twins.reserve(16).unwrap();
        twins.post(reservation, 16, true);
        twins.take();
        twins.release(0);
        twins.give_back();
    }
    while let Some(reservation) = twins.reserve(16) {
        twins.post(reservation, 16, true);
    }
    twins.heap.released.store(32, Ordering::Relaxed);
    assert_eq!(twins.producer.reserve(16).map(|_| ()), Err(Refusal::Broken));
}
