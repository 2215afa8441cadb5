//! Payloads of any size: byte for byte, in order with all others, whole or not at all; and what happens
//! when there is no descriptor or no memory for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod scarcity;
mod support;

use std::process::Command;
use std::time::Duration;

use ends::{expect_end, expect_report, long};
use queues::{
    Busy, all_kinds, channel_for_strangers, expect_of_row, is_full, long_pattern, on_all_channels,
    open, post_of_row,
};
use rkyv::rancor::Fallible;
use rkyv::{Archive, Place, Serialize};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use scarcity::Scarcity;
use support::{
    Peer, alone, asleep, doomed, expect_all_entangled, expect_entangled, raise_descriptor_limit,
    wait_until, with_watchdog,
};
use zeroport::{
    Buffer, BufferError, ChannelOptions, CloseReason, DecodeError, EncodeError, MessagePort,
    PeerState, PostError, RecvError, Tagged, TransferList, Transferable, Trust, tag_of_name,
    transfer,
};

const OPTIONS: ChannelOptions = ChannelOptions::new();
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Too large for the ring of any channel here.
const LARGE: usize = 100_000;

/// As long as [`long_pattern`], and text.
fn long_text(number: u64, len: usize) -> String {
    let bytes = long_pattern(number, len).into_iter().map(|byte| byte & 0x7f).collect();
    String::from_utf8(bytes).unwrap()
}

// ---- S-128, S-129: every size, byte for byte ----

/// Sizes at which other systems change their way of carrying, and the edges of this one's.
fn sizes(max_in_ring: usize) -> impl Iterator<Item = (u64, usize)> {
    let named = [0, 1, 65535, 65536, 65537, 256 * KIB + 3, 3 * MIB + 1];
    // A loan that may have buffers beside it has less room by 32 bytes, a text by its length and place.
    let edge = max_in_ring - 42..=max_in_ring + 2;
    (0..).zip(named.into_iter().chain(edge))
}

fn post_sizes(port: MessagePort) {
    for (number, size) in sizes(port.max_in_ring()) {
        let (bytes, text) = (long_pattern(number, size), long_text(number, size));
        port.post_bytes(&bytes).unwrap();
        port.post_pod_slice(&bytes).unwrap();
        // More is reserved than is published.
        let mut loan = port.reserve(size + number as usize % 3 * 1000).unwrap();
        loan[..size].copy_from_slice(&bytes);
        loan.publish(size).unwrap();
        port.post(&text).unwrap();
        assert_eq!(port.post_all_bytes([&bytes, &bytes]).unwrap(), 2);
        for _ in 0..5 {
            assert!(port.recv().unwrap().bytes() == bytes, "{size} bytes came back");
        }
        assert!(port.recv().unwrap().get::<String>().unwrap() == text.as_str(), "{size} bytes");
    }
}

fn echo_sizes(port: MessagePort) {
    for (number, size) in sizes(port.max_in_ring()) {
        let (bytes, text) = (long_pattern(number, size), long_text(number, size));
        let mut held = Vec::new();
        for place in 0..6 {
            let message = port.recv().unwrap();
            assert!(message.bytes().as_ptr().addr().is_multiple_of(16));
            match place {
                1 => assert!(message.pod_slice::<u8>().unwrap() == bytes, "{size} bytes"),
                3 => assert!(message.get::<String>().unwrap() == text.as_str(), "{size} bytes"),
                _ => assert!(message.bytes() == bytes, "{size} bytes"),
            }
            if place != 3 {
                port.post_bytes(message.bytes()).unwrap();
            }
            held.push(message);
        }
        port.post(&text).unwrap();
    }
}

on_all_channels!(every_size_arrives_byte_for_byte, OPTIONS, post_sizes, echo_sizes);
on_all_channels!(
    every_size_arrives_byte_for_byte_past_a_small_ring,
    OPTIONS.capacity(4096),
    post_sizes,
    echo_sizes
);

on_all_channels!(
    sixty_four_mebibytes,
    OPTIONS,
    |port| {
        let bytes = long_pattern(7, 64 * MIB);
        port.post_bytes(&bytes).unwrap();
        port.post_bytes(b"behind").unwrap();
        assert!(port.recv().unwrap().bytes() == bytes);
        let text = String::from_utf8(vec![b'x'; 64 * MIB]).unwrap();
        port.post(&text).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let message = port.recv().unwrap();
        let mut loan = port.reserve(message.bytes().len()).unwrap();
        loan.copy_from_slice(message.bytes());
        drop(message);
        assert_eq!(port.recv().unwrap().bytes(), b"behind");
        loan.publish(64 * MIB).unwrap();
        let message = port.recv().unwrap();
        let text = message.get::<String>().unwrap();
        assert!(text.len() == 64 * MIB && text.bytes().all(|byte| byte == b'x'));
        port.post_bytes(b"all").unwrap();
    }
);

// What was reserved and not published stays here.
#[test]
fn a_large_loan_is_as_long_as_it_is_published() {
    for options in all_kinds(OPTIONS.capacity(4096)) {
        let (port1, port2) = open(options);
        for published in [0, 1, 15, 16, 2000, 2016, 2017, 4095, 4096, 4097, 50_000, LARGE] {
            let mut loan = port1.reserve(LARGE).unwrap();
            assert_eq!(loan.len(), LARGE);
            loan.fill(0xff);
            loan[..published].copy_from_slice(&long_pattern(1, published));
            loan.publish(published).unwrap();
            port1.post_bytes(b"behind").unwrap();
            assert!(port2.recv().unwrap().bytes() == long_pattern(1, published), "{published}");
            assert_eq!(port2.recv().unwrap().bytes(), b"behind");

            let mut loan = port1.reserve(LARGE).unwrap();
            loan[..published].copy_from_slice(&long_pattern(2, published));
            let (mine, theirs) = channel_for_strangers();
            let list = transfer![Buffer::from_slice(b"beside").unwrap(), theirs];
            loan.publish_with(published, 5, list).unwrap();
            let message = port2.recv().unwrap();
            assert_eq!(message.tag(), 5);
            assert!(message.bytes() == long_pattern(2, published), "{published}");
            expect_entangled(&mine, &message.take_port().unwrap().unwrap());
            assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");

            // Too long, and abandoned: nothing comes of it, and nothing is kept.
            let refused = port1.reserve(published).unwrap().publish(published + 1).unwrap_err();
            assert!(matches!(refused, PostError::TooLarge { .. }), "{refused}");
            assert!(matches!(port2.try_recv(), Err(RecvError::Empty)));
        }
    }
}

// While a loan in a memory of its own exists, nothing else is posted, as with any other.
#[test]
fn one_large_loan_at_a_time() {
    let (port1, port2) = open(OPTIONS);
    let loan = port1.reserve(LARGE).unwrap();
    assert!(matches!(port1.try_reserve(LARGE), Err(PostError::Busy)));
    assert!(matches!(port1.try_post_bytes(b""), Err(PostError::Busy)));
    assert!(matches!(port1.try_post_bytes(&[0; LARGE]), Err(PostError::Busy)));
    drop(loan);
    port1.try_post_bytes(&[0; LARGE]).unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), [0; LARGE]);
}

/// A value that serialises to as many bytes as it is told, in pieces.
struct Huge(u64);

impl Tagged for Huge {
    const NAME: &'static str = "test.Huge";
}

impl Archive for Huge {
    type Archived = ();
    type Resolver = ();

    fn resolve(&self, (): (), _out: Place<()>) {}
}

impl<S: Fallible<Error = EncodeError> + rkyv::ser::Writer + ?Sized> Serialize<S> for Huge {
    fn serialize(&self, serializer: &mut S) -> Result<(), S::Error> {
        const PIECE: &[u8] = &[7; MIB];
        let mut left = self.0;
        while left > 0 {
            let len = left.min(MIB as u64);
            serializer.write(&PIECE[..len as usize])?;
            left -= len;
        }
        Ok(())
    }
}

const MAX: u64 = 4 << 30;
const MAX_VALUE: u64 = (2 << 30) - 1;

#[test]
fn what_is_too_large_says_so_at_once() {
    fn expect_too_large<T>(refused: Result<T, PostError>, least: u64, most: u64) {
        match refused.map(drop).unwrap_err() {
            PostError::TooLarge { len, max } => assert!(len >= least && max == most, "{len}"),
            refused => panic!("{refused}"),
        }
    }
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        assert_eq!(port1.max_payload() as u64, MAX);
        for len in [MAX + 1, 1 << 40, usize::MAX as u64] {
            expect_too_large(port1.reserve(len as usize), len, MAX);
            expect_too_large(port1.try_reserve(len as usize), len, MAX);
        }
        for len in [MAX_VALUE + 1, MAX, MAX + 1] {
            expect_too_large(port1.post(&Huge(len)), MAX_VALUE + 1, MAX_VALUE);
            expect_too_large(port1.try_post(&Huge(len)), MAX_VALUE + 1, MAX_VALUE);
        }
        port1.post_bytes(b"usable").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"usable");
    }
}

// As large as they can be; takes 10 GiB.
#[test]
fn the_largest_of_all() {
    if !long() {
        return;
    }
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        let mut loan = port1.reserve(MAX as usize).unwrap();
        let marks = [0, 1, MAX / 2 - 1, MAX / 2, (2 << 30) + 7, MAX - 2, MAX - 1];
        for (number, at) in (1..).zip(marks) {
            loan[at as usize] = number;
        }
        loan.publish(MAX as usize).unwrap();
        let message = port2.recv().unwrap();
        assert_eq!(message.bytes().len() as u64, MAX);
        for (number, at) in (1..).zip(marks) {
            assert_eq!(message.bytes()[at as usize], number);
        }
        drop(message);
        port1.post(&Huge(MAX_VALUE)).unwrap();
        let message = port2.recv().unwrap();
        assert_eq!(message.bytes().len() as u64, MAX_VALUE);
        assert!(message.bytes().iter().all(|byte| *byte == 7));
    }
}

// ---- S-010: in order with all the others ----

on_all_channels!(
    payloads_of_all_kinds_are_one_queue,
    OPTIONS,
    |port| {
        for number in 0..1000 {
            post_of_row(&port, number);
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..1000 {
            expect_of_row(&port, number);
        }
        assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
        port.post_bytes(b"all").unwrap();
    }
);

// More than one lane holds, unread, on a port that then moves: its lanes go along.
on_all_channels!(
    more_large_payloads_than_a_lane_holds,
    OPTIONS.capacity(4096),
    |carrier| {
        // What an ordinary user may have on its way is little.
        let count: u64 = if raise_descriptor_limit() > 4000 { 700 } else { 300 };
        let (port1, port2) = open(OPTIONS.capacity(4096).trust(carrier.trust()));
        for number in 0..count {
            port1.try_post_bytes(&long_pattern(number, 3000 + number as usize)).unwrap();
        }
        carrier.post_pod_with(&count, port2).unwrap();
        assert_eq!(port1.recv().unwrap().bytes(), b"all");
    },
    |carrier| {
        let message = carrier.recv().unwrap();
        let [port] = message.take_ports().unwrap();
        for number in 0..*message.pod::<u64>().unwrap() {
            let expected = long_pattern(number, 3000 + number as usize);
            assert!(port.recv().unwrap().bytes() == expected, "message {number}");
        }
        port.post_bytes(b"all").unwrap();
    }
);

// ---- The limit ----

#[test]
fn one_above_the_limit_passes_only_into_an_empty_queue() {
    for options in all_kinds(OPTIONS.limit(MIB as u64)) {
        let (port1, port2) = open(options);
        let above = long_pattern(1, 3 * MIB);
        for _ in 0..3 {
            port1.try_post_bytes(&above).unwrap();
            port1.try_post_bytes(b"small").unwrap();
            let expect_full = || {
                assert!(is_full(&port1.try_post_bytes(&above)));
                assert!(is_full(&port1.try_post(&"x".repeat(3 * MIB))));
                assert!(is_full(&port1.try_reserve(3 * MIB)));
                assert!(is_full(&port1.post_bytes_timeout(&above, Duration::from_millis(1))));
                // Also what is not above it by itself, but beside what waits.
                assert!(is_full(&port1.try_post_bytes(&above[..LARGE])));
                let buffer = Buffer::from_slice(&above).unwrap();
                let refused = port1.try_post_bytes_with(b"", buffer).unwrap_err();
                assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
                match refused.list.into_iter().next() {
                    Some(Transferable::Buffer(back)) => assert!(back[..] == above),
                    Some(Transferable::SealedBuffer(back)) => assert!(back[..] == above),
                    other => panic!("{other:?} has come back"),
                }
            };
            expect_full();
            let held = port2.recv().unwrap();
            expect_full();
            assert!(held.bytes() == above);
            drop(held);
            // Nothing but a small one, but that is something.
            assert!(is_full(&port1.try_post_bytes(&above)));
            drop(port2.recv().unwrap());
            assert!(matches!(port2.try_recv(), Err(RecvError::Empty)));
            // A buffer above the limit, too.
            port1.try_post_bytes_with(b"", Buffer::from_slice(&above).unwrap()).unwrap();
            assert!(is_full(&port1.try_post_bytes(&above[..LARGE])));
            let message = port2.recv().unwrap();
            let buffer = message.take_buffer().unwrap().unwrap();
            drop(message);
            assert!(buffer[..] == above);
        }
    }
}

#[test]
fn one_above_the_limit_waits_for_an_empty_queue() {
    with_watchdog(|| {
        for options in all_kinds(OPTIONS.capacity(4096).limit(MIB as u64)) {
            for strategy in [zeroport::WaitStrategy::Adaptive, zeroport::WaitStrategy::Sleep] {
                let (port1, port2) = open(options.wait_strategy(strategy));
                for number in 0..200 {
                    port1.try_post_bytes(&long_pattern(number, number as usize)).unwrap();
                }
                port1.try_post_bytes(&long_pattern(200, LARGE)).unwrap();
                let waiting = asleep(move || {
                    port1.post_bytes(&long_pattern(201, 3 * MIB)).unwrap();
                    port1
                });
                for number in 0..200 {
                    let message = port2.recv().unwrap();
                    assert!(message.bytes() == long_pattern(number, number as usize));
                }
                waiting.wait_until_asleep();
                assert!(port2.recv().unwrap().bytes() == long_pattern(200, LARGE));
                assert!(port2.recv().unwrap().bytes() == long_pattern(201, 3 * MIB));
                drop(waiting.join());
                expect_end(&port2, CloseReason::Closed);
            }
        }
    });
}

// ---- S-130: never seen in part ----

#[test]
fn nothing_is_seen_of_a_payload_that_is_not_whole() {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        let expect_nothing = || {
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
            assert_eq!(port2.recv_timeout(Duration::from_micros(1)).unwrap_err(), RecvError::Empty);
            assert_eq!(port2.drain().count(), 0);
        };
        for _ in 0..3 {
            let mut loan = port1.reserve(3 * MIB).unwrap();
            for (piece, number) in loan.chunks_mut(MIB).zip(1..) {
                piece.fill(number);
                expect_nothing();
            }
            drop(loan);
            expect_nothing();

            let value = Busy { payload: vec![1; LARGE], meanwhile: &expect_nothing };
            port1.post(&value).unwrap();
            assert!(port2.try_recv().unwrap().bytes().starts_with(&[1; LARGE]));

            let batch = [0, 1, 2].map(|number| vec![number; LARGE]);
            let looking = batch.iter().inspect(|_| expect_nothing());
            assert_eq!(port1.post_all_bytes(looking).unwrap(), 3);
            for expected in batch {
                assert!(port2.try_recv().unwrap().bytes() == expected);
            }
            expect_nothing();
        }
    }
}

// A reader that polls while they come: nothing, or all of one.
on_all_channels!(
    a_poller_sees_all_of_a_payload_or_nothing,
    OPTIONS,
    |port| {
        for number in 0..40u8 {
            port.post_bytes(&vec![number; MIB + 77 * usize::from(number)]).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..40u8 {
            wait_until("the next one comes", || match port.try_recv() {
                Ok(message) => {
                    let expected = vec![number; MIB + 77 * usize::from(number)];
                    assert!(message.bytes() == expected, "message {number}");
                    true
                }
                Err(error) => {
                    assert_eq!(error, RecvError::Empty);
                    std::thread::yield_now();
                    false
                }
            });
        }
        port.post_bytes(b"all").unwrap();
    }
);

doomed!(
    a_payload_whose_poster_dies_over_it_is_never_seen,
    |port: MessagePort, mut peer: Peer| {
        peer.wait();
        for number in 0..3 {
            assert!(port.recv().unwrap().bytes() == long_pattern(number, LARGE));
        }
        expect_end(&port, CloseReason::PeerDied);
    },
    |port| {
        for number in 0..3 {
            port.post_bytes(&long_pattern(number, LARGE)).unwrap();
        }
        let mut loan = port.reserve(LARGE).unwrap();
        loan[..LARGE / 2].fill(1);
        let _ = kill_process(getpid(), Signal::KILL);
    },
);

// ---- Held ----

// Memory that is used again, is not before its message has gone.
on_all_channels!(
    held_payloads_do_not_change,
    OPTIONS,
    |port| {
        for number in 0..150 {
            port.post_bytes(&long_pattern(number, 40_000 + number as usize * 700)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let check = |(number, message): &(u64, zeroport::Message<'_>)| {
            let expected = long_pattern(*number, 40_000 + *number as usize * 700);
            assert!(message.bytes() == expected, "message {number} changed");
        };
        let mut held = Vec::new();
        for number in 0..150u64 {
            held.push((number, port.recv().unwrap()));
            if held.len() == 9 {
                held.iter().for_each(check);
                for by in [5, 3, 7] {
                    let gone = held.swap_remove((number as usize * by) % held.len());
                    check(&gone);
                }
            }
        }
        port.post_bytes(b"all").unwrap();
        held.iter().for_each(check);
    }
);

#[test]
fn held_payloads_outlive_their_channel() {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        for number in 0..20 {
            port1.post_bytes(&long_pattern(number, LARGE)).unwrap();
        }
        drop(port1);
        let held: Vec<_> = (0..20).map(|_| port2.recv().unwrap()).collect();
        expect_end(&port2, CloseReason::Closed);
        for (number, message) in held.iter().enumerate() {
            assert!(message.bytes() == long_pattern(number as u64, LARGE));
        }
    }
}

// ---- S-126: the reader has no descriptor or no memory ----

fn expect_shortage(port: &MessagePort, expected: i32) {
    let is_it = |error: RecvError| {
        let told = error.to_string();
        assert!(told.contains("RLIMIT_NOFILE"), "{told}");
        assert_eq!(error, RecvError::Os { errno: expected });
    };
    for _ in 0..3 {
        is_it(port.try_recv().map(drop).unwrap_err());
        is_it(port.recv().map(drop).unwrap_err());
        is_it(port.recv_timeout(Duration::from_secs(60)).map(drop).unwrap_err());
        assert_eq!(port.drain().count(), 0);
    }
}

/// What lies behind the first message and needs a descriptor; which ones it takes, without the lane.
#[derive(Clone, Copy, Debug)]
enum Next {
    Payload,
    PayloadWithList,
    Ring,
}

impl Next {
    fn needed(self) -> usize {
        match self {
            Self::Payload | Self::Ring => 1,
            Self::PayloadWithList => 2,
        }
    }

    /// Posts it; gives the other end of a port that went along.
    fn post(self, port: &MessagePort) -> Option<MessagePort> {
        match self {
            Self::Payload => port.try_post_bytes(&long_pattern(1, LARGE)).unwrap(),
            Self::PayloadWithList => {
                let (mine, theirs) = channel_for_strangers();
                let buffer = Buffer::from_slice(b"beside").unwrap();
                let list = transfer![theirs, buffer];
                port.try_post_bytes_with(&long_pattern(1, LARGE), list).unwrap();
                return Some(mine);
            }
            Self::Ring => {
                (0..60).for_each(|number| port.try_post_bytes(&[number; 1000]).unwrap());
            }
        }
        None
    }

    /// How many messages come before the one that needs something.
    fn expect_before(self, port: &MessagePort) -> u8 {
        let Self::Ring = self else { return 0 };
        // As many as the first ring holds.
        (0..3).for_each(|number| assert_eq!(port.recv().unwrap().bytes(), [number; 1000]));
        3
    }

    fn expect(self, port: &MessagePort, read: u8, mine: Option<MessagePort>) {
        if let Self::Ring = self {
            (read..60).for_each(|number| assert_eq!(port.recv().unwrap().bytes(), [number; 1000]));
            return;
        }
        let message = port.recv().unwrap();
        assert!(message.bytes() == long_pattern(1, LARGE));
        if let Some(mine) = mine {
            expect_entangled(&mine, &message.take_port().unwrap().unwrap());
            assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");
        }
    }
}

alone!(without_descriptors_a_message_waits, || {
    raise_descriptor_limit();
    for options in all_kinds(OPTIONS.capacity(4096)) {
        for has_lane in [false, true] {
            for next in [Next::Payload, Next::PayloadWithList, Next::Ring] {
                for is_closed in [false, true] {
                    let needed = next.needed() + usize::from(!has_lane);
                    for free in 0..=needed {
                        let case = format!("{options:?}, {has_lane}, {next:?}, {free} of {needed}");
                        let (port1, port2) = open(options);
                        if has_lane {
                            port1.post_bytes_with(b"", Buffer::new(1).unwrap()).unwrap();
                            port2.recv().unwrap().take_buffer().unwrap();
                        }
                        let mine = next.post(&port1);
                        port1.try_post_bytes(b"behind").unwrap();
                        let port1 = (!is_closed).then_some(port1);

                        let read = next.expect_before(&port2);
                        let scarcity = Scarcity::new(free);
                        if free < needed {
                            expect_shortage(&port2, libc::EMFILE);
                            if let Some(port1) = &port1 {
                                assert_eq!(port2.peer_state(), PeerState::Open, "{case}");
                                port2.post_bytes(b"the other way").unwrap();
                                assert_eq!(port1.recv().unwrap().bytes(), b"the other way");
                            }
                        } else {
                            drop(port2.recv().unwrap_or_else(|error| panic!("{error}: {case}")));
                            continue;
                        }
                        drop(scarcity);
                        next.expect(&port2, read, mine);
                        assert_eq!(port2.recv().unwrap().bytes(), b"behind", "{case}");
                        drop(port1);
                        expect_report(&port2, CloseReason::Closed);
                    }
                }
            }
        }
    }
});

/// Has at most so many bytes of address space more than it uses now, until it is dropped.
struct LittleMemory(Rlimit);

impl LittleMemory {
    fn new(free: usize) -> Self {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
        let limit = getrlimit(Resource::As);
        // Pages as x86-64 has them.
        let tight = Some(pages * 4096 + free as u64);
        setrlimit(Resource::As, Rlimit { current: tight, ..limit }).unwrap();
        Self(limit)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        setrlimit(Resource::As, self.0).unwrap();
    }
}

alone!(without_memory_a_message_waits, || {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        let bytes = long_pattern(1, 64 * MIB);
        port1.post_bytes(b"before").unwrap();
        port1.post_bytes(&bytes).unwrap();
        port1.post_bytes(b"behind").unwrap();
        let scarcity = LittleMemory::new(16 * MIB);
        assert_eq!(port2.recv().unwrap().bytes(), b"before");
        expect_shortage(&port2, libc::ENOMEM);
        drop(scarcity);
        assert!(port2.recv().unwrap().bytes() == bytes);
        assert_eq!(port2.recv().unwrap().bytes(), b"behind");
    }
    // A ring of 16 MiB.
    let (port1, port2) = open(OPTIONS);
    let count = 2000;
    for number in 0..count {
        port1.try_post_bytes(&long_pattern(number, 20_000)).unwrap();
    }
    let scarcity = LittleMemory::new(8 * MIB);
    let mut next = 0;
    let shortage = loop {
        match port2.try_recv() {
            Ok(message) => assert!(message.bytes() == long_pattern(next, 20_000)),
            Err(shortage) => break shortage,
        }
        next += 1;
    };
    assert_eq!(shortage, RecvError::Os { errno: libc::ENOMEM });
    expect_shortage(&port2, libc::ENOMEM);
    drop(scarcity);
    for number in next..count {
        assert!(port2.recv().unwrap().bytes() == long_pattern(number, 20_000));
    }
});

// ---- S-127: the poster has no descriptor or no memory ----

fn expect_os<T>(refused: Result<T, PostError>, errno: i32) {
    match refused.map(drop).unwrap_err() {
        PostError::Os(error) => assert_eq!(error.raw_os_error(), Some(errno), "{error}"),
        refused => panic!("{refused}"),
    }
}

alone!(without_descriptors_a_post_hands_back, || {
    raise_descriptor_limit();
    for options in all_kinds(OPTIONS.capacity(4096)) {
        for has_lane in [false, true] {
            let (port1, port2) = open(options);
            if has_lane {
                port1.post_bytes_with(b"", Buffer::new(1).unwrap()).unwrap();
                drop(port2.recv().unwrap().take_buffer().unwrap());
            }
            let large = long_pattern(1, LARGE);
            let text = long_text(1, LARGE);
            let (mine, theirs) = channel_for_strangers();
            let mut list = TransferList::from(theirs);
            list.push(Buffer::from_slice(b"beside").unwrap());

            let scarcity = Scarcity::new(0);
            expect_os(port1.try_post_bytes(&large), libc::EMFILE);
            expect_os(port1.post_bytes(&large), libc::EMFILE);
            expect_os(port1.post(&text), libc::EMFILE);
            expect_os(port1.reserve(LARGE), libc::EMFILE);
            let refused = port1.post_all_bytes([&b"first"[..], &large, b"third"]).unwrap_err();
            assert_eq!(refused.posted, 1);
            expect_os(Err::<(), _>(refused.source), libc::EMFILE);
            assert_eq!(port2.recv().unwrap().bytes(), b"first");
            for _ in 0..3 {
                let refused = port1.post_bytes_with(&large, list).unwrap_err();
                expect_os(Err::<(), _>(refused.source), libc::EMFILE);
                list = refused.list;
                assert_eq!(list.len(), 2);
            }
            assert!(matches!(Buffer::new(1), Err(BufferError::Os { len: 1, .. })));
            // What fits in the ring goes; a larger ring cannot be made.
            let mut posted = 0;
            let full = loop {
                match port1.try_post_bytes(&long_pattern(posted, 1000)) {
                    Ok(()) => posted += 1,
                    Err(refused) => break refused,
                }
            };
            expect_os(Err::<(), _>(full), libc::EMFILE);
            expect_os(port1.post_bytes(&[0; 1000]), libc::EMFILE);
            for number in 0..posted {
                assert!(port2.recv().unwrap().bytes() == long_pattern(number, 1000));
            }
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "a refused message came");
            drop(scarcity);

            port1.post_bytes_with(&large, list).unwrap();
            port1.post(&text).unwrap();
            let message = port2.recv().unwrap();
            assert!(message.bytes() == large);
            expect_all_entangled(&[mine], &message.take_all_ports().unwrap());
            assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");
            assert!(port2.recv().unwrap().get::<String>().unwrap() == text.as_str());
        }
    }
});

// With one descriptor too few, wherever it is that it lacks.
alone!(with_too_few_descriptors_a_post_changes_nothing, || {
    raise_descriptor_limit();
    for options in all_kinds(OPTIONS.capacity(4096)) {
        for has_list in [false, true] {
            for is_grown in [false, true] {
                let mut refusals = 0;
                for free in 0.. {
                    let (port1, port2) = open(options);
                    let small = if is_grown { 60 } else { 1 };
                    for number in 0..small {
                        port1.try_post_bytes(&[number; 1000]).unwrap();
                    }
                    let large = long_pattern(1, LARGE);
                    let (mine, theirs) = channel_for_strangers();
                    let mut list = TransferList::new();
                    if has_list {
                        list.push(theirs);
                        list.push(Buffer::from_slice(b"beside").unwrap());
                    }
                    let scarcity = Scarcity::new(free);
                    let mut posted = port1.try_post_bytes_with(&large, list);
                    drop(scarcity);
                    let is_done = posted.is_ok();
                    if let Err(refused) = posted {
                        expect_os(Err::<(), _>(refused.source), libc::EMFILE);
                        posted = port1.try_post_bytes_with(&large, refused.list);
                        refusals += 1;
                    }
                    posted.unwrap();
                    for number in 0..small {
                        assert_eq!(port2.recv().unwrap().bytes(), [number; 1000]);
                    }
                    let message = port2.recv().unwrap();
                    assert!(message.bytes() == large);
                    if has_list {
                        expect_all_entangled(&[mine], &message.take_all_ports().unwrap());
                        assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");
                    }
                    if is_done {
                        break;
                    }
                }
                // At least the memory itself.
                assert!((1..10).contains(&refusals), "{refusals} refusals");
            }
        }
    }
});

alone!(without_memory_a_post_hands_back, || {
    for options in all_kinds(OPTIONS) {
        let (port1, port2) = open(options);
        let bytes = long_pattern(1, 64 * MIB);
        let scarcity = LittleMemory::new(16 * MIB);
        expect_os(port1.post_bytes(&bytes), libc::ENOMEM);
        expect_os(port1.reserve(bytes.len()), libc::ENOMEM);
        let (mine, theirs) = channel_for_strangers();
        let refused = port1.post_bytes_with(&bytes, theirs).unwrap_err();
        expect_os(Err::<(), _>(refused.source), libc::ENOMEM);
        expect_all_entangled(&[mine], &refused.list.into_ports());
        assert!(matches!(Buffer::new(64 * MIB), Err(BufferError::Os { .. })));
        port1.post_bytes(b"usable").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"usable");
        drop(scarcity);
        port1.post_bytes(&bytes).unwrap();
        assert!(port2.recv().unwrap().bytes() == bytes);
    }
});

// A child that another thread forks has copies of what is mapped, until it runs its own program.
alone!(forks_of_other_threads_spoil_no_payload, || {
    let forking = std::thread::spawn(|| {
        for _ in 0..300 {
            let (port, mut child) = zeroport::spawn(Command::new("true")).unwrap();
            drop(port);
            child.wait().unwrap();
        }
    });
    let (port1, port2) = open(OPTIONS.capacity(4096).trust(Trust::Untrusted));
    let mut number = 0;
    while !forking.is_finished() {
        let bytes = long_pattern(number, 10_000);
        let buffer = Buffer::from_slice(&bytes).unwrap();
        port1.post_bytes_with(&bytes, buffer).unwrap();
        let message = port2.recv().unwrap();
        assert!(message.bytes() == bytes);
        assert!(message.take_buffer().unwrap().unwrap()[..] == bytes);
        number += 1;
    }
    forking.join().unwrap();
});

// ---- S-121, S-122: good, undecodable, good ----

on_all_channels!(
    a_large_undecodable_message_between_two_good_ones,
    OPTIONS,
    |port| {
        // A valid archive of a text, with a byte in its middle that no text has.
        let (port1, port2) = open(OPTIONS);
        port1.post(&"x".repeat(LARGE)).unwrap();
        let mut spoilt = port2.recv().unwrap().bytes().to_vec();
        spoilt[LARGE / 2] = 0xff;
        let text = tag_of_name("string");
        for undecodable in [spoilt, vec![0xf8; LARGE], vec![0x81; LARGE]] {
            let (mine, theirs): (Vec<_>, Vec<_>) = (0..4).map(|_| channel_for_strangers()).unzip();
            let mut theirs = theirs.into_iter();
            let mut next = || transfer![theirs.next().unwrap(), Buffer::new(5000).unwrap()];
            port.post_with(&long_text(1, LARGE), next()).unwrap();
            let mut loan = port.reserve(undecodable.len()).unwrap();
            loan.copy_from_slice(&undecodable);
            loan.publish_with(undecodable.len(), text, next()).unwrap();
            // Large, and of another type.
            port.post_bytes_with(&undecodable, next()).unwrap();
            port.post_with(&long_text(2, LARGE), next()).unwrap();
            for lost in &mine[1..3] {
                expect_report(lost, CloseReason::Lost);
            }
            for taken in [&mine[0], &mine[3]] {
                assert_eq!(taken.recv().unwrap().bytes(), b"taken");
            }
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for _ in 0..3 {
            for number in 0..4 {
                let message = port.recv().unwrap();
                assert_eq!((message.port_count(), message.buffer_count()), (1, 1));
                match (number, message.get::<String>()) {
                    (0 | 3, Ok(text)) => {
                        let expected = long_text(1 + number / 3, LARGE);
                        assert!(text == expected.as_str());
                        let [taken] = message.take_ports().unwrap();
                        taken.post_bytes(b"taken").unwrap();
                    }
                    (1, Err(DecodeError::Invalid(_))) => {}
                    (2, Err(DecodeError::WrongType { found: 0, .. })) => {}
                    (_, read) => panic!("message {number}: {:?}", read.map(|text| text.len())),
                }
            }
        }
        port.post_bytes(b"all").unwrap();
    }
);
