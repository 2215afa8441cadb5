//! A queue grows: messages wait in any number for whoever reads them, in order, wherever their port goes;
//! up to a limit, and never longer than they are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod support;

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use ends::{expect_end, expect_report};
use proptest::prelude::*;
use queues::{
    Busy, all_kinds, expect_filled, expect_of_row, fill, is_full, long_pattern, on_all_channels,
    on_channel, open, post_of_row,
};
use support::{
    Peer, Setup, Sleeper, alone, asleep, conversation, count_descriptors, count_segment_mappings,
    doomed, expect_all_entangled, in_all_ways, pattern, wait_until, with_watchdog,
};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{
    AttachError, Buffer, ChannelOptions, CloseReason, Message, MessageChannel, MessagePort,
    OpenError, PeerState, PostError, Receiver, RecvError, Sender, TakeError, TransferList,
    Transferable, Trust, WaitStrategy, tag_of_name, transfer,
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

/// Descriptors, and mappings of segments; nothing is kept for fresh channels.
fn counts() -> (usize, usize) {
    zeroport::trim();
    (count_descriptors(), count_segment_mappings())
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
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

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
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
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
                }
                3 => {
                    drop(port1);
                    (150..500).for_each(|number| expect_of_row(&port2, number));
                    expect_end(&port2, CloseReason::Closed);
                    assert_eq!(counts(), (before.0 + 1, before.1 + 1));
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

// ---- S-131: the limit ----

/// Messages of 1000 bytes until the limit of 64 KiB is reached, from a first ring of 4 KiB.
const LIMITED: ChannelOptions = OPTIONS.limit(64 << 10);

fn fill_limited(port: &MessagePort) -> u64 {
    let posted = fill(port, 1000);
    assert!((60..=68).contains(&posted), "{posted} messages of 1000 bytes");
    posted
}

/// Goes on until the queue is in its first ring, and the reader knows it: a ring counts until its reader has
/// left it.
fn settle(poster: &MessagePort, reader: &MessagePort) {
    for number in 0..100 {
        poster.try_post_bytes(&long_pattern(number, 1000)).unwrap();
        assert!(reader.recv().unwrap().bytes() == long_pattern(number, 1000));
    }
    assert_eq!(reader.try_recv().unwrap_err(), RecvError::Empty);
}

#[test]
fn past_the_limit_a_post_is_refused_and_hands_back() {
    for options in all_kinds(LIMITED) {
        let (port1, port2) = open(options);
        for _ in 0..3 {
            let posted = fill_limited(&port1);
            let value = "a value that is still there ".repeat(40);
            for len in [1000, 2000, 3000, 50_000] {
                assert!(is_full(&port1.try_post_bytes(&vec![1; len])), "{len} bytes");
                assert!(is_full(&port1.try_post(&"x".repeat(len))), "{len} bytes");
                assert!(is_full(&port1.try_post_pod_slice(&vec![1u8; len])), "{len} bytes");
                assert!(is_full(&port1.try_reserve(len).map(drop)), "{len} bytes");
                let (mine, theirs) = untrusted(3);
                let mut list = TransferList::from(theirs);
                list.push(Buffer::from_slice(b"a buffer").unwrap());
                let refused = port1.try_post_bytes_with(&vec![1; len], list).unwrap_err();
                assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
                expect_back(refused.list, &mine, &[b"a buffer"]);
            }
            // A buffer alone is too much where the message is not, and so is a port that needs a ring.
            assert!(is_full(&port1.try_post(&value)));
            let buffer = Buffer::from_slice(&[7; 60_000]).unwrap();
            let refused = port1.try_post_bytes_with(b"", buffer).unwrap_err();
            assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
            expect_back(refused.list, &[], &[&[7; 60_000]]);
            // The other direction has a limit of its own.
            let others = fill_limited(&port2);
            expect_filled(&port1, others, 1000);

            expect_filled(&port2, posted, 1000);
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "a refused message came");
            port1.try_post(&value).unwrap();
            assert_eq!(port2.recv().unwrap().get::<String>().unwrap().as_str(), value);
            settle(&port1, &port2);
            settle(&port2, &port1);
        }
    }
}

/// Ports that go anywhere, and the other ends of these.
fn untrusted(count: usize) -> (Vec<MessagePort>, Vec<MessagePort>) {
    let ends = (0..count).map(|_| MessageChannel::untrusted().unwrap());
    ends.map(|MessageChannel { port1, port2 }| (port1, port2)).unzip()
}

/// A list that was handed back: the other ends of these ports, then these buffers.
fn expect_back(list: TransferList, mine: &[MessagePort], buffers: &[&[u8]]) {
    let (mut ports, mut found) = (Vec::new(), Vec::new());
    for item in list {
        match item {
            Transferable::Port(port) => ports.push(port),
            Transferable::Buffer(buffer) => found.push(buffer.to_vec()),
            Transferable::SealedBuffer(buffer) => found.push(buffer.to_vec()),
            other => panic!("{other:?}"),
        }
    }
    expect_all_entangled(mine, &ports);
    assert!(found.iter().eq(buffers), "other buffers");
}

#[test]
fn past_the_limit_a_post_waits_as_long_as_it_was_told() {
    const TIMEOUT: Duration = Duration::from_millis(20);
    for options in all_kinds(LIMITED) {
        for strategy in [Adaptive, Spin, Sleep] {
            let (port1, port2) = open(options);
            port1.set_wait_strategy(strategy);
            let posted = fill_limited(&port1);
            let timed = |post: &dyn Fn() -> Result<(), PostError>| {
                let start = Instant::now();
                assert!(is_full(&post()));
                assert!(start.elapsed() >= TIMEOUT);
            };
            for len in [1000, 5000] {
                let bytes = vec![1; len];
                timed(&|| port1.post_bytes_timeout(&bytes, TIMEOUT));
                timed(&|| port1.post_timeout(&"x".repeat(len), TIMEOUT));
                timed(&|| port1.reserve_timeout(len, TIMEOUT).map(drop));
                let with = |list: TransferList| {
                    let start = Instant::now();
                    let refused = port1.post_bytes_with_timeout(&bytes, list, TIMEOUT).unwrap_err();
                    assert!(start.elapsed() >= TIMEOUT);
                    assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
                    refused.list
                };
                let (mine, theirs) = untrusted(1);
                expect_back(with(theirs.into()), &mine, &[]);
                let buffer = Buffer::from_slice(b"kept").unwrap();
                expect_back(with(buffer.into()), &[], &[b"kept"]);
            }
            expect_filled(&port2, posted, 1000);
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "a refused message came");
        }
    }
}

/// A post that waits at the limit, in a thread of its own; gives back the port and what came of it.
type Waiting = Sleeper<(MessagePort, Result<(), PostError>)>;

fn post_asleep(port: MessagePort, len: usize) -> Waiting {
    asleep(move || {
        let posted = port.post_bytes(&long_pattern(u64::MAX, len));
        (port, posted)
    })
}

#[test]
fn a_waiting_post_goes_on_when_the_reader_lets_go() {
    with_watchdog(|| {
        for options in all_kinds(LIMITED) {
            for strategy in [Adaptive, Sleep] {
                for len in [0, 1000, 30_000] {
                    let (port1, port2) = open(options.wait_strategy(strategy));
                    let posted = fill_limited(&port1);
                    let mut empty = 0;
                    while port1.try_post_bytes(b"").is_ok() {
                        empty += 1;
                    }
                    let waiting = post_asleep(port1, len);
                    expect_filled(&port2, posted, 1000);
                    (0..empty).for_each(|_| assert_eq!(port2.recv().unwrap().bytes(), b""));
                    let (port1, result) = waiting.join();
                    result.unwrap();
                    assert!(port2.recv().unwrap().bytes() == long_pattern(u64::MAX, len));
                    drop(port1);
                    expect_end(&port2, CloseReason::Closed);
                }
            }
        }
    });
}

// What is held counts: only when it is let go is there room for more.
#[test]
fn a_held_message_keeps_a_post_waiting() {
    with_watchdog(|| {
        for options in all_kinds(LIMITED) {
            let (port1, port2) = open(options);
            for number in 0..3 {
                port1.try_post_bytes(&long_pattern(number, 20_000)).unwrap();
            }
            assert!(is_full(&port1.try_post_bytes(&[0; 20_000])));
            let waiting = post_asleep(port1, 20_000);
            let held = port2.recv().unwrap();
            waiting.wait_until_asleep();
            assert!(held.bytes() == long_pattern(0, 20_000));
            drop(held);
            let (_port1, posted) = waiting.join();
            posted.unwrap();
            for number in [1, 2, u64::MAX] {
                assert!(port2.recv().unwrap().bytes() == long_pattern(number, 20_000));
            }
        }
    });
}

// A message of a ring that was left counts with all of that ring.
#[test]
fn a_held_message_in_a_left_ring_counts_toward_the_limit() {
    // On an untrusted port, nothing that was received holds anything of the queue.
    let (port1, port2) = open(LIMITED);
    let posted = fill_limited(&port1);
    let middle = posted / 2;
    expect_filled(&port2, middle, 1000);
    let held = port2.recv().unwrap();
    assert!(held.bytes() == long_pattern(middle, 1000));
    for number in middle + 1..posted {
        assert!(port2.recv().unwrap().bytes() == long_pattern(number, 1000));
    }
    settle(&port1, &port2);
    let with_held = fill(&port1, 1000);
    expect_filled(&port2, with_held, 1000);
    assert!(held.bytes() == long_pattern(middle, 1000));
    drop(held);
    settle(&port1, &port2);
    let without = fill_limited(&port1);
    assert!(with_held + 5 < without, "{with_held} with a message held, {without} without");
}

// However messages come and go, the account stays right: in the end as much fits as at first.
#[test]
fn the_account_of_a_long_life_is_right() {
    for options in all_kinds(LIMITED) {
        let (port1, port2) = open(options);
        let (carrier1, carrier2) = open(options);
        let mut ports = [port1, port2];
        let first = fill_limited(&ports[0]);
        expect_filled(&ports[1], first, 1000);
        for round in 0..60 {
            for number in 0..round % 20 {
                ports[0].try_post_bytes(&long_pattern(number, 1000)).unwrap();
            }
            ports[0].try_post_bytes(&[0; 5000]).unwrap();
            ports[0].try_post_bytes_with(b"", Buffer::new(3000).unwrap()).unwrap();
            let mut messages = ports[1].drain();
            if round % 5 == 1 {
                // What is forgotten keeps its room until the port moves.
                std::mem::forget(messages.next().unwrap());
            }
            assert!(messages.count() > 0);
            for port in ports.iter_mut().take(round as usize % 3) {
                let goes = std::mem::replace(port, open(OPTIONS).0);
                carrier1.post_bytes_with(b"", goes).unwrap();
                [*port] = carrier2.recv().unwrap().take_ports().unwrap();
            }
            if round % 5 == 1 && round % 3 != 2 {
                let goes = std::mem::replace(&mut ports[1], open(OPTIONS).0);
                carrier1.post_bytes_with(b"", goes).unwrap();
                [ports[1]] = carrier2.recv().unwrap().take_ports().unwrap();
            }
        }
        settle(&ports[0], &ports[1]);
        let last = fill_limited(&ports[0]);
        assert!(first.abs_diff(last) <= 4, "{last} at the end, {first} at first");
    }
}

// Many times as much as may wait, of all sizes: the poster waits for the reader again and again.
mod many_more_bytes_than_the_limit {
    use super::*;

    const COUNT: u64 = 2500;

    on_all_channels!(adaptive, LIMITED, |port| post_all(port, Adaptive), |port| read_all(
        port, Adaptive
    ));
    on_all_channels!(sleep, LIMITED, |port| post_all(port, Sleep), |port| read_all(port, Sleep));
    on_all_channels!(spin, LIMITED, |port| post_all(port, Spin), |port| read_all(port, Spin));

    fn len(number: u64) -> usize {
        let mixed = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        // One of each hundred is above the limit by itself.
        match number % 100 {
            17 => 65_000 + mixed % 10_000,
            n if n % 10 == 3 => mixed % 20_000,
            _ => mixed % 1000,
        }
    }

    fn post_all(port: MessagePort, strategy: WaitStrategy) {
        port.set_wait_strategy(strategy);
        for number in 0..COUNT {
            port.post_bytes(&long_pattern(number, len(number))).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    }

    fn read_all(port: MessagePort, strategy: WaitStrategy) {
        port.set_wait_strategy(strategy);
        for number in 0..COUNT {
            let message = port.recv().unwrap();
            assert!(message.bytes() == long_pattern(number, len(number)), "message {number}");
        }
        port.post_bytes(b"all").unwrap();
    }
}

// Whoever waits at the limit is told of the end.
mod the_end_of_a_wait_at_the_limit {
    use super::*;

    on_all_channels!(
        by_a_close,
        LIMITED,
        |port| {
            for len in [1000, 30_000] {
                let (port1, port2) = open(LIMITED.trust(port.trust()));
                fill_limited(&port1);
                let waiting = post_asleep(port1, len);
                port.post_bytes_with(b"close this", port2).unwrap();
                let (port1, posted) = waiting.join();
                let refused = posted.unwrap_err();
                assert!(matches!(refused, PostError::Closed(CloseReason::Closed)), "{refused}");
                expect_end(&port1, CloseReason::Closed);
            }
        },
        |port| {
            while let Ok(message) = port.recv() {
                let [port2] = message.take_ports().unwrap();
                // Never let go, so that no room comes back.
                std::mem::forget(port2.recv().unwrap());
            }
        }
    );

    doomed!(
        by_a_death,
        |port: MessagePort, mut peer: Peer| {
            let (port1, port2) = open(LIMITED);
            fill_limited(&port1);
            port.post_bytes_with(b"take this", port2).unwrap();
            assert_eq!(port.recv().unwrap().bytes(), b"taken");
            let waiting = post_asleep(port1, 30_000);
            peer.kill();
            let (port1, posted) = waiting.join();
            let refused = posted.unwrap_err();
            assert!(matches!(refused, PostError::Closed(CloseReason::PeerDied)), "{refused}");
            expect_end(&port1, CloseReason::PeerDied);
        },
        |port| {
            let [_taken] = port.recv().unwrap().take_ports().unwrap();
            port.post_bytes(b"taken").unwrap();
            loop {
                thread::park();
            }
        }
    );

    #[test]
    fn by_ones_own_closer() {
        for len in [1000, 30_000] {
            let (port1, _port2) = open(LIMITED);
            fill_limited(&port1);
            let closer = port1.closer();
            let waiting = post_asleep(port1, len);
            closer.close();
            let (_port1, posted) = waiting.join();
            let refused = posted.unwrap_err();
            assert!(matches!(refused, PostError::Closed(CloseReason::Closed)), "{refused}");
        }
    }
}

alone!(with_a_limit_of_zero_nothing_grows, || {
    for options in all_kinds(OPTIONS.limit(0)) {
        let (port1, port2) = open(options);
        for _ in 0..3 {
            let before = counts();
            assert_eq!(fill(&port1, 1000), 3);
            assert_eq!(counts(), before, "a ring was made");
            assert!(is_full(&port1.try_post_bytes(&[1; 5000])), "into a queue that is not empty");
            let timeout = Duration::from_millis(1);
            assert!(is_full(&port1.post_bytes_timeout(&[1; 1000], timeout)));
            expect_filled(&port2, 3, 1000);
            port1.try_post_bytes(&[1; 5000]).unwrap();
            assert!(is_full(&port1.try_post_bytes(&[1; 5000])), "a second one");
            port1.try_post_bytes(b"small").unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), [1; 5000]);
            assert_eq!(port2.recv().unwrap().bytes(), b"small");
        }
    }
});

#[test]
fn each_direction_has_its_limit() {
    let (port1, port2) = open(OPTIONS.limits(0, 64 << 10));
    assert_eq!(fill(&port1, 1000), 3);
    let posted = fill_limited(&port2);
    expect_filled(&port1, posted, 1000);
    expect_filled(&port2, 3, 1000);
}

#[test]
fn a_limit_that_is_not_legal_is_refused_by_name() {
    const MAX: u64 = 64 << 40;
    for (limits, found) in [([MAX + 1, 0], MAX + 1), ([0, u64::MAX], u64::MAX)] {
        let error = ChannelOptions::new().limits(limits[0], limits[1]).open().unwrap_err();
        let OpenError::Limit { requested, max: MAX } = error else { panic!("{error}") };
        assert_eq!(requested, found);
        let told = error.to_string();
        assert!(told.contains(&found.to_string()) && told.contains(&MAX.to_string()), "{told}");
    }
    let (port1, port2) = open(ChannelOptions::new().limit(MAX));
    port1.post_bytes(b"much may wait").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"much may wait");
}

// Who takes a port from a stranger accepts no more than the port that it comes over would.
#[test]
fn a_strangers_port_may_not_have_a_higher_limit() {
    let stranger = ChannelOptions::new().trust(Trust::Untrusted);
    for (limit, accepted, is_ok) in [
        (256 << 20, 256 << 20, true),
        (257 << 20, 256 << 20, false),
        (1 << 30, 2 << 30, true),
        (3 << 30, 2 << 30, false),
    ] {
        let (carrier1, carrier2) = open(stranger.limit(accepted));
        let (mine, theirs) = open(stranger.limits(limit, 0));
        carrier1.post_bytes_with(b"", theirs).unwrap();
        let message = carrier2.recv().unwrap();
        match message.take_port() {
            Ok(taken) => {
                assert!(is_ok);
                expect_all_entangled(&[mine], &[taken.unwrap()]);
            }
            Err(TakeError::Attach { index: 0, source, .. }) => {
                assert!(!is_ok, "{source}");
                let AttachError::Limit { found, accepts } = source else { panic!("{source}") };
                assert_eq!((found, accepts), (limit, accepted));
                expect_report(&mine, CloseReason::Lost);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

// ---- A port that moves takes everything along ----

/// How often each end moves.
const HOPS: u64 = 24;

// Both ends of one channel bounce between host and peer, each on a carrier of its own, while whoever has
// one posts or reads with it. At first little is read, so that many rings and lanes lie behind; the row is
// of all kinds.
mod both_ends_bounce {
    use super::*;

    on_channel!(trusted, SETUP, OPTIONS, |port| bounce_as_host(port, OPTIONS), bounce_as_peer);
    on_channel!(
        untrusted,
        SETUP,
        OPTIONS.trust(Trust::Untrusted),
        |port| bounce_as_host(port, OPTIONS.trust(Trust::Untrusted)),
        bounce_as_peer
    );
    on_channel!(
        cold,
        SETUP,
        OPTIONS,
        |port| bounce_as_host(port, OPTIONS.warm(false)),
        bounce_as_peer
    );

    const SETUP: Setup = Setup::new();

    fn bounce_as_host(poster_carrier: MessagePort, options: ChannelOptions) {
        let (reader_carrier, theirs) = open(options);
        poster_carrier.post_bytes_with(b"the readers'", theirs).unwrap();
        let (poster, reader) = open(options);
        let posting = thread::spawn(move || bounce_poster(&poster_carrier, Some(poster)));
        bounce_reader(&reader_carrier, Some(reader));
        posting.join().unwrap();
    }

    fn bounce_as_peer(poster_carrier: MessagePort) {
        let [reader_carrier] = poster_carrier.recv().unwrap().take_ports().unwrap();
        let posting = thread::spawn(move || bounce_poster(&poster_carrier, None));
        bounce_reader(&reader_carrier, None);
        posting.join().unwrap();
    }

    /// The port, from here or from the other side, with the hop and the number of the next message.
    fn next_stay(
        carrier: &MessagePort,
        own: &mut Option<MessagePort>,
    ) -> Option<([u64; 2], MessagePort)> {
        if let Some(port) = own.take() {
            return Some(([0, 0], port));
        }
        let message = carrier.recv().ok()?;
        let stay = *message.pod::<[u64; 2]>().unwrap();
        Some((stay, message.take_port().unwrap().unwrap()))
    }

    fn bounce_poster(carrier: &MessagePort, mut own: Option<MessagePort>) {
        while let Some(([hop, mut next], port)) = next_stay(carrier, &mut own) {
            for _ in 0..hop * 37 % 150 {
                post_of_row(&port, next);
                next += 1;
            }
            if hop == HOPS {
                // The reader learns of it by the end of the channel.
                return;
            }
            carrier.post_pod_with(&[hop + 1, next], port).unwrap();
            if hop + 1 == HOPS {
                return;
            }
        }
    }

    fn bounce_reader(carrier: &MessagePort, mut own: Option<MessagePort>) {
        while let Some(([hop, mut next], port)) = next_stay(carrier, &mut own) {
            if hop >= HOPS {
                // All the rest, and the end.
                let total: u64 = (0..=HOPS).map(|hop| hop * 37 % 150).sum();
                while next < total {
                    expect_of_row(&port, next);
                    next += 1;
                }
                expect_end(&port, CloseReason::Closed);
                return;
            }
            for _ in 0..hop * 13 % 60 {
                let Ok(message) = port.try_recv() else { break };
                queues::check_of_row(&message, next, port.max_in_ring());
                next += 1;
            }
            carrier.post_pod_with(&[hop + 1, next], port).unwrap();
            if hop + 1 >= HOPS {
                return;
            }
        }
    }
}

// One end moves on over three hops while the other posts on; nobody reads before the last hop.
on_all_channels!(
    several_hops_with_everything_unread,
    OPTIONS,
    |carrier| {
        let (sender, goes) = open(OPTIONS.trust(carrier.trust()));
        let posting = thread::spawn(move || {
            for number in 0..1200 {
                post_of_row(&sender, number);
                if number % 100 == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut next = goes;
        for _ in 0..3 {
            carrier.post_bytes_with(b"there", next).unwrap();
            [next] = carrier.recv().unwrap().take_ports().unwrap();
        }
        posting.join().unwrap();
        for number in 0..600 {
            expect_of_row(&next, number);
        }
        carrier.post_bytes_with(b"the rest", next).unwrap();
        assert_eq!(carrier.recv().unwrap().bytes(), b"all");
    },
    |carrier| {
        for _ in 0..3 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            carrier.post_bytes_with(b"back", port).unwrap();
        }
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        for number in 600..1200 {
            expect_of_row(&port, number);
        }
        expect_end(&port, CloseReason::Closed);
        carrier.post_bytes(b"all").unwrap();
    }
);

// The next owner wakes a poster that has gone to sleep at the limit under the former one.
on_all_channels!(
    a_poster_that_waits_is_woken_by_the_next_owner,
    OPTIONS,
    |carrier| {
        for len in [1000, 30_000] {
            let (port1, port2) = open(LIMITED.trust(carrier.trust()));
            let posted = fill_limited(&port1);
            let waiting = post_asleep(port1, len);
            carrier.post_pod_with(&[posted, len as u64], port2).unwrap();
            let (_port1, result) = waiting.join();
            result.unwrap();
            assert_eq!(carrier.recv().unwrap().bytes(), b"all");
        }
    },
    |carrier| {
        while let Ok(message) = carrier.recv() {
            let [posted, len] = *message.pod::<[u64; 2]>().unwrap();
            let [port] = message.take_ports().unwrap();
            expect_filled(&port, posted, 1000);
            assert!(port.recv().unwrap().bytes() == long_pattern(u64::MAX, len as usize));
            carrier.post_bytes(b"all").unwrap();
        }
    }
);

// A port whose own queue has grown unread, in a message that itself waits in a grown ring.
#[test]
fn grown_queues_inside_grown_queues() {
    let MessageChannel { port1: mut outer1, port2: mut outer2 } = OPTIONS.open().unwrap();
    for depth in 0..5 {
        let (inner1, inner2) = open(OPTIONS);
        for number in 0..100 {
            post_of_row(&inner1, number);
        }
        inner1.try_post_pod_with(&depth, transfer![outer1, outer2]).unwrap();
        for number in 100..200 {
            post_of_row(&inner1, number);
        }
        (outer1, outer2) = (inner1, inner2);
    }
    for depth in (0..5).rev() {
        (0..100).for_each(|number| expect_of_row(&outer2, number));
        let message = outer2.recv().unwrap();
        assert_eq!(message.pod::<i32>().unwrap(), &depth);
        let inner = message.take_ports::<2>().unwrap();
        drop(message);
        (100..200).for_each(|number| expect_of_row(&outer2, number));
        drop(outer1);
        expect_report(&outer2, CloseReason::Closed);
        [outer1, outer2] = inner;
    }
}

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

// A batch of several times the limit: its reader must see what waits in the way.
on_all_channels!(
    a_batch_waits_at_the_limit,
    LIMITED,
    |port| {
        let sizes = [100, 600, 2500, 0, 1900];
        let messages: Vec<_> =
            (0..600u64).map(|n| long_pattern(n, sizes[n as usize % sizes.len()])).collect();
        assert_eq!(port.post_all_bytes(&messages).unwrap(), messages.len());
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let sizes = [100, 600, 2500, 0, 1900];
        for number in 0..600 {
            let len = sizes[number as usize % sizes.len()];
            assert!(port.recv().unwrap().bytes() == long_pattern(number, len), "{number}");
        }
        port.post_bytes(b"all").unwrap();
    }
);

#[test]
fn a_batch_says_how_far_it_came() {
    for options in all_kinds(LIMITED) {
        let (port1, port2) = open(options);
        let messages = (0..60u64).map(|number| {
            if number == 50 {
                port2.closer().close();
            }
            long_pattern(number, 1000)
        });
        let error = port1.post_all_bytes(messages).unwrap_err();
        assert_eq!(error.posted, 50);
        assert!(matches!(error.source, PostError::Closed(CloseReason::Closed)), "{error}");
    }
}

// ---- Whatever posts, posts into grown rings too ----

/// Rounds of each of the ways below.
const ROUNDS: u64 = 250;

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
            let (mine, theirs) = untrusted(1);
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
            let inner = std::cell::Cell::new(0u64);
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

// Split and joined with messages unread on both sides, then given away.
conversation!(
    a_joined_port_moves_with_its_rings,
    |carrier: MessagePort| {
        let (port1, port2) = open(OPTIONS);
        (0..100).for_each(|number| post_of_row(&port1, number));
        (0..100).for_each(|number| post_of_row(&port2, number));
        let (sender, receiver): (Sender, Receiver) = port2.split();
        for number in 0..50 {
            queues::check_of_row(&receiver.recv().unwrap(), number, port1.max_in_ring());
        }
        sender.post_bytes(b"by a half").unwrap();
        let port2 = MessagePort::join(sender, receiver).unwrap();
        carrier.post_bytes_with(b"", port2).unwrap();
        (0..100).for_each(|number| expect_of_row(&port1, number));
        assert_eq!(port1.recv().unwrap().bytes(), b"by a half");
        assert_eq!(port1.recv().unwrap().bytes(), b"by the next one");
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (50..100).for_each(|number| expect_of_row(&port, number));
        port.post_bytes(b"by the next one").unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
);

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
            queues::check_of_row(message, number as u64, port2.max_in_ring());
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
