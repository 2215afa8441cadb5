//! Order: every message once, in the order of posting, over many laps of the ring and at every place
//! where a lap can end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::cell::Cell;
use std::collections::VecDeque;

use proptest::prelude::*;
use support::{Setup, in_both_queues, pattern};
use zeroport::{CloseReason, Message, MessageChannel, MessagePort, PostError, RecvError, Trust};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);

in_both_queues!(
    many_more_messages_than_the_ring_holds,
    Setup::new().capacity(4096),
    |port| {
        for number in 0..20_000u64 {
            port.post_pod(&number).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..20_000u64 {
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
        }
        port.post_bytes(b"all").unwrap();
    }
);

/// Sizes without a pattern, the same ones on both sides: mostly small, some as large as they can be.
fn sizes(max: usize) -> impl Iterator<Item = usize> {
    let mut random = 0x1234_5678_9abc_def1u64;
    std::iter::repeat_with(move || {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let size = (random >> 20) as usize;
        match random % 8 {
            0 => 0,
            1 => max - size % 20,
            2 => size % (max + 1),
            _ => size % 100,
        }
    })
}

/// Half of the longer ones travel in a memory of their own.
fn longest(port: &MessagePort) -> usize {
    2 * port.max_in_ring()
}

in_both_queues!(
    sizes_of_all_kinds_on_one_port,
    Setup::new().capacities(4096, 8192),
    |port| {
        let echo = sizes(longest(&port)).zip(0..).take(1500);
        for (size, number) in echo {
            post_one_way_or_another(&port, number, size);
            // A few are on the way at any time.
            if number >= 3 {
                assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number - 3);
            }
        }
        for number in 1497..1500 {
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
        }
    },
    |port| {
        // What the host can post is half of what this side can.
        for (size, number) in sizes(4096 - 64).zip(0..).take(1500) {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, size));
            port.post_pod(&number).unwrap();
        }
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    }
);

fn post_one_way_or_another(port: &MessagePort, number: u64, size: usize) {
    let bytes = pattern(number, size);
    match number % 4 {
        0 => {
            let mut loan = port.reserve(size).unwrap();
            loan.copy_from_slice(&bytes);
            loan.publish(size).unwrap();
        }
        1 => assert_eq!(port.post_all_bytes([&bytes]).unwrap(), 1),
        _ => port.post_bytes(&bytes).unwrap(),
    }
}

// The same through a ring that never waits: the poster runs far ahead of the reader.
in_both_queues!(
    sizes_of_all_kinds_in_a_stream,
    Setup::new().capacity(16 << 10),
    |port| {
        for (size, number) in sizes(longest(&port)).zip(0..).take(3000) {
            port.post_bytes(&pattern(number, size)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for (size, number) in sizes(longest(&port)).zip(0..).take(3000) {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, size), "message {number}");
        }
        port.post_bytes(b"all").unwrap();
    }
);

/// Both ends of a channel, and where in the lap its next record starts.
struct Ring {
    port1: MessagePort,
    port2: MessagePort,
    capacity: usize,
    offset: Cell<usize>,
    posted: Cell<u64>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        let setup = Setup::new().capacity(capacity as u64).limit(0);
        let MessageChannel { port1, port2 } = setup.open();
        Self { port1, port2, capacity, offset: Cell::new(0), posted: Cell::new(0) }
    }

    fn record(len: usize) -> usize {
        16 + len.next_multiple_of(16)
    }

    /// Posts and receives one message; says whether it went past the end of the lap.
    fn pass(&self, len: usize) -> bool {
        let number = self.posted.replace(self.posted.get() + 1);
        let (offset, record) = (self.offset.get(), Self::record(len));
        let bytes = pattern(number, len);
        // Room that is lent out has a header's length more, for what may go with it.
        let is_lent = number % 3 == 1 && len + 16 <= self.port1.max_in_ring();
        let claimed = if is_lent { record + 16 } else { record };
        let wraps = offset + claimed > self.capacity;
        // Every way in has to see the end of the lap.
        match number % 3 {
            _ if is_lent => {
                let mut loan = self.port1.try_reserve(len).unwrap();
                loan.copy_from_slice(&bytes);
                loan.publish(len).unwrap();
            }
            0 | 1 => self.port1.try_post_bytes(&bytes).unwrap(),
            _ => assert_eq!(self.port1.post_all_bytes([&bytes]).unwrap(), 1),
        }
        let message = self.port2.try_recv().unwrap();
        assert_eq!(message.bytes(), bytes, "{len} bytes at {offset}");
        assert!(message.bytes().as_ptr().addr().is_multiple_of(16), "{len} bytes at {offset}");
        self.offset.set(if wraps { record } else { (offset + record) % self.capacity });
        wraps
    }

    fn go_to(&self, offset: usize) {
        while self.offset.get() != offset {
            self.pass(0);
        }
    }
}

#[test]
fn every_size_that_meets_the_end_of_a_lap_at_every_place() {
    let ring = Ring::new(4096);
    let max = ring.port1.max_in_ring();
    let (mut fitted, mut wrapped) = (0, 0);
    for offset in (0..ring.capacity).step_by(16) {
        let rest = ring.capacity - offset;
        // A record that leaves two headers, one, none, and those that are too long by a little.
        let around = [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64];
        let around = around.into_iter().filter_map(|less| (rest + 16).checked_sub(less));
        for len in around.chain([0, 1, 15, 16, 17, max - 1, max]).filter(|len| *len <= max) {
            ring.go_to(offset);
            if ring.pass(len) { wrapped += 1 } else { fitted += 1 }
        }
    }
    assert!(fitted > 1000 && wrapped > 1000, "{fitted} fitted, {wrapped} did not");
}

#[test]
fn the_ring_can_be_filled_to_the_last_byte_from_every_place() {
    let ring = Ring::new(4096);
    for offset in (0..ring.capacity).step_by(16) {
        ring.go_to(offset);
        // All but the header that must stay free after the last record.
        let mut posted = 0u64;
        while ring.port1.try_post_pod(&posted).is_ok() {
            posted += 1;
        }
        assert_eq!(posted, 127, "records of 32 bytes from {offset}, a header between the laps");
        for number in 0..posted {
            assert_eq!(*ring.port2.try_recv().unwrap().pod::<u64>().unwrap(), number);
        }
        let walked = posted as usize * 32;
        // From an odd place, one header closes the lap.
        let filler = if offset % 32 == 0 { 0 } else { 16 };
        ring.offset.set((offset + walked + filler) % ring.capacity);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post(usize),
    Batch(Vec<usize>),
    Loan { reserved: usize, published: usize },
    AbandonLoan(usize),
    Receive,
    Hold,
    LetGo(usize),
    Drain(usize),
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..100usize, 1 => 0..=max, 1 => max - 40..=max + 2];
    let loan = (0..=max, 0..=max).prop_map(|(one, other)| Step::Loan {
        reserved: one.max(other),
        published: one.min(other),
    });
    let step = prop_oneof![
        6 => size.prop_map(Step::Post),
        1 => prop::collection::vec(0..200usize, 0..8).prop_map(Step::Batch),
        1 => loan,
        1 => (0..=max).prop_map(Step::AbandonLoan),
        6 => Just(Step::Receive),
        2 => Just(Step::Hold),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::LetGo(index.index(1000))),
        1 => (0..10usize).prop_map(Step::Drain),
    ];
    prop::collection::vec(step, 1..200)
}

/// Both ends in one thread, and what they must agree with.
struct Twin<'p> {
    port1: &'p MessagePort,
    port2: &'p MessagePort,
    expected: VecDeque<Vec<u8>>,
    held: Vec<(Vec<u8>, Message<'p>)>,
    posted: u64,
}

impl<'p> Twin<'p> {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Post(len) => self.post(len, |twin, bytes| twin.port1.try_post_bytes(bytes)),
            Step::Batch(ref sizes) => self.batch(sizes),
            Step::Loan { reserved, published } => self.post(published, |twin, bytes| {
                let mut loan = twin.port1.try_reserve(reserved)?;
                assert_eq!(loan.len(), reserved);
                loan[..published].copy_from_slice(bytes);
                loan[published..].fill(0xff);
                loan.publish(published)
            }),
            Step::AbandonLoan(len) => {
                if let Ok(mut loan) = self.port1.try_reserve(len) {
                    loan.fill(0xff);
                }
            }
            Step::Receive => drop(self.receive()),
            Step::Hold => {
                let held = self.receive();
                self.held.extend(held);
            }
            Step::LetGo(index) if !self.held.is_empty() => {
                let (bytes, message) = self.held.swap_remove(index % self.held.len());
                assert_eq!(message.bytes(), bytes, "changed while it was held");
            }
            Step::LetGo(_) => {}
            Step::Drain(most) => self.drain(most),
        }
    }

    fn post(&mut self, len: usize, post: impl FnOnce(&Self, &[u8]) -> Result<(), PostError>) {
        let bytes = pattern(self.posted, len);
        match post(self, &bytes) {
            Ok(()) => {
                self.posted += 1;
                self.expected.push_back(bytes);
            }
            Err(PostError::Full { .. }) => {
                let all_read = self.expected.is_empty() && self.held.is_empty();
                assert!(!all_read, "full, with nothing in it");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Small ones only, and only where they fit: a batch waits for room.
    fn batch(&mut self, sizes: &[usize]) {
        let need: usize = sizes.iter().map(|len| Ring::record(*len)).sum();
        let reserved = self.port1.try_reserve(2 * need + 64).map(drop);
        if reserved.is_err() {
            return;
        }
        let messages: Vec<_> =
            sizes.iter().zip(self.posted..).map(|(len, number)| pattern(number, *len)).collect();
        assert_eq!(self.port1.post_all_bytes(&messages).unwrap(), sizes.len());
        self.posted += sizes.len() as u64;
        self.expected.extend(messages);
    }

    fn receive(&mut self) -> Option<(Vec<u8>, Message<'p>)> {
        match (self.port2.try_recv(), self.expected.pop_front()) {
            (Ok(message), Some(bytes)) => {
                assert_eq!(message.bytes(), bytes);
                Some((bytes, message))
            }
            (Err(RecvError::Empty), None) => None,
            (received, expected) => panic!("{received:?} instead of {expected:?}"),
        }
    }

    fn drain(&mut self, most: usize) {
        for message in self.port2.drain().take(most) {
            assert_eq!(Some(message.bytes().to_vec()), self.expected.pop_front());
        }
    }
}

fn is_like_a_queue(steps: &[Step], trust: Trust) {
    // Where a queue grows, `growing.rs` looks.
    let options = Setup::new().capacity(4096).limit(0).options().trust(trust);
    let MessageChannel { port1, port2 } = options.open().unwrap();
    let mut twin =
        Twin { port1: &port1, port2: &port2, expected: VecDeque::new(), held: vec![], posted: 0 };
    for step in steps {
        twin.step(step);
    }
    while twin.receive().is_some() {}
    drop(twin);
    // All room has come back.
    port1.try_post_bytes(&vec![1; port1.max_in_ring()]).unwrap();
    drop(port1);
    assert_eq!(port2.recv().unwrap().bytes().len(), 4096 / 2 - 32);
    assert_eq!(port2.recv().unwrap_err(), CLOSED);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_trusted_port_is_like_a_queue(steps in steps(2016)) {
        is_like_a_queue(&steps, Trust::Trusted);
    }

    #[test]
    fn an_untrusted_port_is_like_a_queue(steps in steps(2016)) {
        is_like_a_queue(&steps, Trust::Untrusted);
    }
}
