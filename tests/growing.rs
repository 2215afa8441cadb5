//! A queue grows: messages wait in any number for whoever reads them, in order, and are followed by the end;
//! when they were read, the queue is as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod support;

use std::cell::Cell;
use std::collections::VecDeque;
use std::thread;

use ends::expect_end;
use proptest::prelude::*;
use queues::{
    Busy, all_kinds, check_of_row, counts, expect_of_row, long_pattern, on_all_channels, open,
    post_of_row, strangers,
};
use rustix::process::{Signal, getpid, kill_process};
use support::{Peer, Setup, alone, doomed, expect_all_entangled, in_all_ways, pattern, wait_until};
use zeroport::{
    Buffer, ChannelOptions, CloseReason, Message, MessageChannel, MessagePort, PeerState,
    PostError, RecvError, Trust, tag_of_name, transfer,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
/// A first ring so small that a queue soon grows, several times.
const SMALL: Setup = Setup::new().capacity(4096);
const OPTIONS: ChannelOptions = ChannelOptions::new().capacity(4096);
const KIB: usize = 1 << 10;

/// Messages that need several rings.
const MANY: u64 = 3000;

fn short(number: u64) -> Vec<u8> {
    pattern(number, number as usize * 7 % 600)
}

fn post_many(port: &MessagePort) {
    for number in 0..MANY {
        port.try_post_bytes(&short(number)).unwrap();
    }
}

fn expect_many(port: &MessagePort) {
    for number in 0..MANY {
        assert_eq!(port.recv().unwrap().bytes(), short(number), "message {number}");
    }
}

// ---- S-018: posted long before anybody reads ----

in_all_ways!(
    messages_wait_for_whoever_reads_late,
    SMALL,
    |port| {
        let MessageChannel { port1: gate, port2 } = MessageChannel::untrusted().unwrap();
        port.try_post_bytes_with(b"wait here", port2).unwrap();
        post_many(&port);
        gate.post_bytes(b"now").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let message = port.recv().unwrap();
        assert_eq!(message.bytes(), b"wait here");
        let [gate] = message.take_ports().unwrap();
        assert_eq!(gate.recv().unwrap().bytes(), b"now");
        drop(message);
        expect_many(&port);
        assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
        port.post_bytes(b"all").unwrap();
    }
);

// Rows of all kinds: empty, small, as large as a ring takes, larger, with ports and with buffers.
on_all_channels!(
    messages_of_all_kinds_wait,
    OPTIONS,
    |port| {
        for number in 0..1500 {
            post_of_row(&port, number);
        }
        port.close();
    },
    |port| {
        wait_until("all is posted", || port.peer_state() == PeerState::Closed(CloseReason::Closed));
        for number in 0..1500 {
            expect_of_row(&port, number);
        }
        expect_end(&port, CloseReason::Closed);
    }
);

// ---- Both directions, independent ----

// Neither reads before it has posted all: who waited for the other would wait for ever.
in_all_ways!(both_directions_grow, SMALL, post_then_read, post_then_read);

fn post_then_read(port: MessagePort) {
    post_many(&port);
    expect_many(&port);
}

in_all_ways!(
    a_grown_direction_leaves_the_other_alone,
    SMALL,
    |port| {
        post_many(&port);
        for number in 0..5000u64 {
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &number);
        }
        assert_eq!(port.recv().unwrap().bytes(), b"and now yours");
        // It has read nothing so far.
        port.post_bytes(b"last").unwrap();
    },
    |port| {
        for number in 0..5000u64 {
            port.post_pod(&number).unwrap();
        }
        port.post_bytes(b"and now yours").unwrap();
        wait_until("the host has read all", || port.peer_state() != PeerState::Open);
        expect_many(&port);
        assert_eq!(port.recv().unwrap().bytes(), b"last");
        expect_end(&port, CloseReason::Closed);
    }
);

// ---- Order across links ----

// Wherever the records stand when a ring ends, in it and in the three after it.
#[test]
fn every_size_at_every_end_of_a_ring() {
    const PAST_THREE_RINGS: usize = 40 * KIB;
    for trust in [Trust::Trusted, Trust::Untrusted] {
        for len in [0, 1, 15, 16, 17, 31, 32, 48, 100, 240, 241, 1000, 2000, 2015, 2016] {
            for before in 0..9 {
                let (port1, port2) = open(OPTIONS.trust(trust));
                for _ in 0..before {
                    port1.try_post_bytes(b"").unwrap();
                }
                let count = (PAST_THREE_RINGS / (16 + len)) as u64;
                for number in 0..count {
                    // A batch now and then: it must be visible before a link.
                    if number % 5 == 4 {
                        assert_eq!(port1.post_all_bytes([pattern(number, len)]).unwrap(), 1);
                    } else {
                        port1.try_post_bytes(&pattern(number, len)).unwrap();
                    }
                }
                for _ in 0..before {
                    assert_eq!(port2.try_recv().unwrap().bytes(), b"");
                }
                for number in 0..count {
                    let message = port2.try_recv().unwrap();
                    assert_eq!(message.bytes(), pattern(number, len), "after {before}");
                    assert!(message.bytes().as_ptr().addr().is_multiple_of(16));
                }
                assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
            }
        }
    }
}

// A reader that is now behind and now has caught up: there and back between the first ring and others.
in_all_ways!(
    bursts_and_pauses_are_one_stream,
    SMALL,
    |port| {
        let mut next = 0;
        for burst in [1, 30, 500, 2, 1000, 7, 60, 3, 200, 1, 1, 800, 20] {
            for _ in 0..burst {
                port.try_post_bytes(&short(next)).unwrap();
                next += 1;
            }
            port.post_bytes(b"a pause").unwrap();
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &next);
        }
    },
    |port| {
        let mut next = 0;
        while let Ok(message) = port.recv() {
            if message.bytes() == b"a pause" {
                port.post_pod(&next).unwrap();
            } else {
                assert_eq!(message.bytes(), short(next), "message {next}");
                next += 1;
            }
        }
    }
);

#[derive(Clone, Debug)]
enum Step {
    Post(usize),
    Batch(Vec<usize>),
    Loan { reserved: usize, published: usize },
    AbandonLoan(usize),
    WithPort(usize),
    Receive(usize),
    Hold,
    Forget,
    LetGo(usize),
}

/// What happens between two moves, and which of the ports moves then.
type Stay = (Vec<Step>, [bool; 2]);

fn stays() -> impl Strategy<Value = Vec<Stay>> {
    let len = || prop_oneof![6 => 0..500usize, 2 => 0..=2016usize, 1 => 1990..2100usize, 1 => 0..20_000usize];
    let loan = (len(), len()).prop_map(|(one, other)| Step::Loan {
        reserved: one.max(other),
        published: one.min(other),
    });
    let step = prop_oneof![
        8 => len().prop_map(Step::Post),
        2 => prop::collection::vec(len(), 0..30).prop_map(Step::Batch),
        1 => loan,
        1 => len().prop_map(Step::AbandonLoan),
        1 => len().prop_map(Step::WithPort),
        4 => (0..25usize).prop_map(Step::Receive),
        2 => Just(Step::Hold),
        1 => Just(Step::Forget),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::LetGo(index.index(1000))),
    ];
    prop::collection::vec((prop::collection::vec(step, 0..60), any::<[bool; 2]>()), 1..6)
}

/// What a message must be: its number, its length, and the other end of a port that came with it.
type Expected = (u64, usize, Option<MessagePort>);

/// Both ends of a queue in one thread, as long as neither moves.
struct Twin<'p> {
    port1: &'p MessagePort,
    port2: &'p MessagePort,
    expected: &'p mut VecDeque<Expected>,
    posted: &'p mut u64,
    held: Vec<(u64, Message<'p>)>,
}

impl<'p> Twin<'p> {
    fn step(&mut self, step: &Step) {
        let number = *self.posted;
        match *step {
            Step::Post(len) => {
                let posted = self.port1.try_post_bytes(&long_pattern(number, len));
                self.note(posted, &[len]);
            }
            Step::Batch(ref lens) => {
                let messages: Vec<_> =
                    lens.iter().zip(number..).map(|(len, n)| long_pattern(n, *len)).collect();
                // It would wait, and nobody would read.
                if lens.iter().sum::<usize>() < 30 * KIB && self.is_far_from_the_limit() {
                    assert_eq!(self.port1.post_all_bytes(&messages).unwrap(), lens.len());
                    self.note(Ok(()), lens);
                }
            }
            Step::Loan { reserved, published } => {
                let posted = self.port1.try_reserve(reserved).and_then(|mut loan| {
                    loan[..published].copy_from_slice(&long_pattern(number, published));
                    loan[published..].fill(0xff);
                    loan.publish(published)
                });
                self.note(posted, &[published]);
            }
            Step::AbandonLoan(len) => {
                if let Ok(mut loan) = self.port1.try_reserve(len) {
                    loan.fill(0xff);
                }
            }
            Step::WithPort(len) => {
                let MessageChannel { port1: stays, port2: goes } =
                    MessageChannel::untrusted().unwrap();
                match self.port1.try_post_bytes_with(&long_pattern(number, len), goes) {
                    Ok(()) => {
                        *self.posted += 1;
                        self.expected.push_back((number, len, Some(stays)));
                    }
                    Err(refused) => {
                        assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
                        expect_all_entangled(&[stays], &refused.list.into_ports());
                    }
                }
            }
            Step::Receive(count) => (0..count).for_each(|_| drop(self.receive())),
            Step::Hold => {
                let held = self.receive();
                self.held.extend(held);
            }
            Step::Forget => self.receive().into_iter().for_each(std::mem::forget),
            Step::LetGo(index) if !self.held.is_empty() => {
                drop(self.held.swap_remove(index % self.held.len()));
            }
            Step::LetGo(_) => {}
        }
        for (number, message) in &self.held {
            assert!(message.bytes() == long_pattern(*number, message.bytes().len()));
        }
    }

    fn note(&mut self, posted: Result<(), PostError>, lens: &[usize]) {
        match posted {
            Ok(()) => {
                self.expected.extend((*self.posted..).zip(lens).map(|(n, len)| (n, *len, None)));
                *self.posted += lens.len() as u64;
            }
            Err(PostError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether there is certainly room for 30 KiB in messages of up to 20 000 bytes.
    fn is_far_from_the_limit(&self) -> bool {
        self.port1.try_reserve(300 * KIB).is_ok()
    }

    fn receive(&mut self) -> Option<(u64, Message<'p>)> {
        match (self.port2.try_recv(), self.expected.pop_front()) {
            (Ok(message), Some((number, len, port))) => {
                assert!(message.bytes() == long_pattern(number, len), "message {number}");
                assert_eq!(message.port_count(), usize::from(port.is_some()));
                if let Some(stays) = port {
                    expect_all_entangled(&[stays], &message.take_all_ports().unwrap());
                }
                Some((number, message))
            }
            (Err(RecvError::Empty), None) => None,
            (received, expected) => panic!("{received:?} instead of {expected:?}"),
        }
    }
}

fn is_like_a_queue(stays: &[Stay], options: ChannelOptions) {
    let (mut port1, mut port2) = open(options.limit(1 << 20));
    let (carrier1, carrier2) = open(options);
    let (mut expected, mut posted) = (VecDeque::new(), 0);
    for (steps, moves) in stays {
        let (expected, posted) = (&mut expected, &mut posted);
        let held = Vec::new();
        let mut twin = Twin { port1: &port1, port2: &port2, expected, posted, held };
        steps.iter().for_each(|step| twin.step(step));
        drop(twin);
        for (port, is_moved) in [&mut port1, &mut port2].into_iter().zip(moves) {
            if *is_moved {
                let goes = std::mem::replace(port, open(OPTIONS).0);
                carrier1.post_bytes_with(b"moves", goes).unwrap();
                [*port] = carrier2.recv().unwrap().take_ports().unwrap();
            }
        }
    }
    for (number, len, _) in expected {
        assert!(port2.try_recv().unwrap().bytes() == long_pattern(number, len), "message {number}");
    }
    drop(port1);
    expect_end(&port2, CloseReason::Closed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_growing_trusted_port_is_like_a_queue(stays in stays()) {
        is_like_a_queue(&stays, OPTIONS);
    }

    #[test]
    fn a_growing_untrusted_port_is_like_a_queue(stays in stays()) {
        is_like_a_queue(&stays, OPTIONS.trust(Trust::Untrusted));
    }
}

// ---- The end, with several links unread ----

doomed!(
    all_messages_then_the_death,
    SMALL,
    |port: MessagePort, mut peer: Peer| {
        wait_until("the peer has died", || port.peer_state() != PeerState::Open);
        peer.wait();
        for number in 0..1000 {
            // Its ports' other ends died with it, after what they had posted.
            expect_of_row(&port, number);
        }
        expect_end(&port, CloseReason::PeerDied);
    },
    |port| {
        for number in 0..1000 {
            post_of_row(&port, number);
        }
        let mut loan = port.reserve(20_000).unwrap();
        loan.fill(1);
        let _ = kill_process(getpid(), Signal::KILL);
    },
);

// What a row leaves behind is counted in a process of its own, and each way to end it is tried.
alone!(an_unread_queue_leaves_nothing_behind, || {
    // What a process makes once.
    let (port1, port2) = open(OPTIONS);
    for number in 0..100 {
        post_of_row(&port1, number);
        expect_of_row(&port2, number);
    }
    drop((port1, port2));
    for options in all_kinds(OPTIONS) {
        for how in 0..6 {
            let before = counts();
            let (port1, port2) = open(options);
            for number in 0..500 {
                post_of_row(&port1, number);
            }
            for number in 0..how * 50 {
                expect_of_row(&port2, number);
            }
            match how {
                0 => drop((port1, port2)),
                1 => drop((port2, port1)),
                2 => {
                    // Told of the end, but not yet dropped: nothing but the segment is left.
                    port2.closer().close();
                    expect_end(&port1, CloseReason::Closed);
                    expect_end(&port2, CloseReason::Closed);
                    assert_eq!(counts(), (before.0 + 1, before.1 + 1));
                    drop((port1, port2));
                }
                3 => {
                    drop(port1);
                    (150..500).for_each(|number| expect_of_row(&port2, number));
                    expect_end(&port2, CloseReason::Closed);
                    assert_eq!(counts(), (before.0 + 1, before.1 + 1));
                    drop(port2);
                }
                4 => {
                    let (sender, receiver) = port1.split();
                    drop(port2);
                    assert_eq!(receiver.recv().unwrap_err(), CLOSED);
                    drop((receiver, sender));
                }
                _ => {
                    // Unread in the queue of another port, which is dropped too.
                    let (carrier1, carrier2) = open(options);
                    carrier1.post_bytes_with(b"", transfer![port1, port2]).unwrap();
                    drop((carrier1, carrier2));
                }
            }
            assert_eq!(counts(), before, "way {how} on {options:?}");
        }
    }
});

// A reader that closes with messages unread: its poster is told at once, however far the queue has grown.
on_all_channels!(
    a_reader_that_closes_unread_is_told_of,
    OPTIONS,
    |port| {
        let mut number = 0;
        let refused = loop {
            // As many as it takes; the reader waits for the first hundred only.
            match port.try_post_bytes(&short(number)) {
                Ok(()) => number += 1,
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, PostError::Closed(CloseReason::Closed)), "{refused}");
        expect_end(&port, CloseReason::Closed);
    },
    |port| (0..100).for_each(|number| assert_eq!(port.recv().unwrap().bytes(), short(number)))
);

// ---- Batches ----

in_all_ways!(
    a_batch_grows_as_single_posts_do,
    SMALL,
    |port| {
        let MessageChannel { port1: gate, port2 } = MessageChannel::untrusted().unwrap();
        port.try_post_bytes_with(b"wait here", port2).unwrap();
        let messages: Vec<_> = (0..MANY).map(short).collect();
        assert_eq!(port.post_all_bytes(&messages).unwrap(), MANY as usize);
        let values: Vec<_> = (0..MANY).map(|number| number.to_string()).collect();
        assert_eq!(port.post_all(&values).unwrap(), MANY as usize);
        let numbers: Vec<_> = (0..MANY).collect();
        assert_eq!(port.post_all_pod(&numbers).unwrap(), MANY as usize);
        gate.post_bytes(b"now").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let [gate] = port.recv().unwrap().take_ports().unwrap();
        gate.recv().unwrap();
        expect_many(&port);
        for number in 0..MANY {
            let message = port.recv().unwrap();
            assert_eq!(message.get::<String>().unwrap().as_str(), number.to_string());
        }
        for number in 0..MANY {
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &number);
        }
        port.post_bytes(b"all").unwrap();
    }
);

// ---- Whatever posts, posts into grown rings too ----

/// Rounds of each of the ways below.
const ROUNDS: u64 = 100;

on_all_channels!(
    values_loans_and_plain_data_wait_in_grown_rings,
    OPTIONS,
    |port| {
        let MessageChannel { port1: gate, port2 } = MessageChannel::untrusted().unwrap();
        port.try_post_bytes_with(b"wait here", port2).unwrap();
        for number in 0..ROUNDS {
            let text = number.to_string().repeat(number as usize % 50);
            port.try_post(&text).unwrap();
            port.try_post_pod(&number).unwrap();
            port.try_post_pod_slice(&vec![number; number as usize % 200]).unwrap();
            let len = number as usize % 900;
            let mut loan = port.try_reserve(len + 50).unwrap();
            assert!(matches!(port.try_post_bytes(b""), Err(PostError::Busy)));
            loan[..len].copy_from_slice(&pattern(number, len));
            loan.publish_tagged(len, 7).unwrap();
            let (mine, theirs) = strangers(1);
            mine[0].post_pod(&number).unwrap();
            port.try_post_with(&text, theirs).unwrap();
            let mut loan = port.try_reserve(len).unwrap();
            loan.copy_from_slice(&pattern(number, len));
            loan.publish_with(len, 9, Buffer::from_slice(text.as_bytes()).unwrap()).unwrap();
        }
        gate.post_bytes(b"now").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let [gate] = port.recv().unwrap().take_ports().unwrap();
        gate.recv().unwrap();
        for number in 0..ROUNDS {
            let text = number.to_string().repeat(number as usize % 50);
            let expected = vec![number; number as usize % 200];
            let len = number as usize % 900;
            assert_eq!(port.recv().unwrap().get::<String>().unwrap().as_str(), text);
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &number);
            assert_eq!(port.recv().unwrap().pod_slice::<u64>().unwrap(), expected);
            let message = port.recv().unwrap();
            assert_eq!((message.tag(), message.bytes()), (7, &pattern(number, len)[..]));
            let message = port.recv().unwrap();
            assert_eq!(message.get::<String>().unwrap().as_str(), text);
            let [theirs] = message.take_ports().unwrap();
            assert_eq!(theirs.recv().unwrap().pod::<u64>().unwrap(), &number);
            let message = port.recv().unwrap();
            assert_eq!((message.tag(), message.bytes()), (9, &pattern(number, len)[..]));
            let [buffer] = message.take_buffers().unwrap();
            assert_eq!(&buffer[..], text.as_bytes());
        }
        port.post_bytes(b"all").unwrap();
    }
);

// What the serialiser posts comes first, also if the queue grows under it, or it is too large for a ring.
#[test]
fn serialisers_that_post_while_the_queue_grows() {
    for options in all_kinds(OPTIONS) {
        for len in [100, 1000, 10_000] {
            let (port1, port2) = open(options);
            let inner = Cell::new(0u64);
            let post_inside = || {
                for _ in 0..7 {
                    port1.try_post_bytes(&long_pattern(inner.get(), 700)).unwrap();
                    inner.set(inner.get() + 1);
                }
            };
            for number in 0..40 {
                let payload = long_pattern(!number, len);
                port1.try_post(&Busy { payload, meanwhile: &post_inside }).unwrap();
            }
            let (mut next, mut values) = (0, 0);
            for message in port2.drain() {
                if message.tag() == tag_of_name("test.Busy") {
                    assert!(message.bytes().starts_with(&long_pattern(!values, len)));
                    values += 1;
                    // What was posted inside of it came before.
                    assert!(next >= 7 * values);
                } else {
                    assert!(message.bytes() == long_pattern(next, 700));
                    next += 1;
                }
            }
            assert_eq!((next, values), (inner.get(), 40));
        }
    }
}

// ---- Halves ----

in_all_ways!(halves_in_grown_rings, SMALL, talk_with_halves, talk_with_halves);

fn talk_with_halves(port: MessagePort) {
    let (sender, receiver) = port.split();
    // More than the reader of the other side can follow: it reads slowly at first.
    let posting = thread::spawn(move || {
        for number in 0..MANY {
            sender.try_post_bytes(&short(number)).unwrap();
        }
        sender
    });
    for number in 0..MANY {
        assert_eq!(receiver.recv().unwrap().bytes(), short(number));
        if number < 200 {
            thread::yield_now();
        }
    }
    let sender = posting.join().unwrap();
    let port = MessagePort::join(sender, receiver).unwrap();
    let nothing = port.try_recv().map(drop).unwrap_err();
    assert!(matches!(nothing, RecvError::Empty | CLOSED), "{nothing}");
}

// ---- Held across links ----

in_all_ways!(
    messages_held_across_links_go_in_any_order,
    SMALL,
    |port| {
        post_many(&port);
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let mut held = Vec::new();
        for number in 0..MANY {
            held.push((number, port.recv().unwrap()));
            // Seventy at most, of several rings; now the oldest goes first, now the youngest.
            if held.len() == 70 {
                for by in [5, 3, 7] {
                    let (number, message) = held.swap_remove((number as usize * by) % held.len());
                    assert_eq!(message.bytes(), short(number), "changed while it was held");
                }
            }
            if number % 100 == 0 {
                for (number, message) in &held {
                    assert_eq!(message.bytes(), short(*number), "changed while it was held");
                }
            }
        }
        drop(held);
        port.post_bytes(b"all").unwrap();
    }
);

// The end is reported, the other side has gone, and its messages are still there.
#[test]
fn held_messages_outlive_the_end() {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        (0..300).for_each(|number| post_of_row(&port1, number));
        drop(port1);
        let held: Vec<_> = (0..300).map(|_| port2.recv().unwrap()).collect();
        expect_end(&port2, CloseReason::Closed);
        for (number, message) in held.iter().enumerate().rev() {
            check_of_row(message, number as u64, port2.max_in_ring());
        }
    }
}

// ---- Back to the first ring ----

// Two mappings for each end of a channel in one process: nothing else is left after the burst.
alone!(after_a_burst_the_queue_comes_back, || {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        let before = counts();
        for _ in 0..3 {
            (0..MANY).for_each(|number| port1.try_post_bytes(&short(number)).unwrap());
            assert_ne!(counts(), before, "it has grown");
            expect_many(&port2);
            // Quiet traffic, one message at a time.
            let mut posted = 0;
            wait_until("nothing but the first ring is left", || {
                port1.try_post_bytes(&pattern(posted, 1000)).unwrap();
                assert_eq!(port2.recv().unwrap().bytes(), pattern(posted, 1000));
                posted += 1;
                assert!(posted < 1000, "{:?} instead of {before:?}", counts());
                // The lane stays.
                let (descriptors, mappings) = counts();
                descriptors <= before.0 + 2 && mappings == before.1
            });
        }
    }
});
