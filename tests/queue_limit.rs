//! The limit of a queue: past it a post is refused with everything handed back, or waits as long as it was
//! told and goes on when the reader lets go; with a limit of 0 nothing ever grows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod support;

use std::thread;
use std::time::{Duration, Instant};

use ends::{expect_end, expect_report};
use queues::{
    all_kinds, counts, expect_filled, fill, is_full, long_pattern, on_all_channels, open, strangers,
};
use support::{Peer, Sleeper, alone, asleep, doomed, expect_all_entangled, with_watchdog};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{
    AttachError, Buffer, ChannelOptions, CloseReason, MessagePort, OpenError, PostError, RecvError,
    TakeError, TransferList, Transferable, Trust, WaitStrategy,
};

/// A first ring so small that a queue soon grows.
const OPTIONS: ChannelOptions = ChannelOptions::new().capacity(4096);

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
                let (mine, theirs) = strangers(3);
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
                let (mine, theirs) = strangers(1);
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
            for number in 0..round % 12 {
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
    let cases = [
        (256 << 20, 256 << 20, true),
        (257 << 20, 256 << 20, false),
        (1 << 30, 2 << 30, true),
        (3 << 30, 2 << 30, false),
    ];
    // For the taker, and from it.
    let both =
        |(limit, accepted, is_ok)| [([limit, 0], accepted, is_ok), ([0, limit], accepted, is_ok)];
    for ([from_there, from_here], accepted, is_ok) in cases.into_iter().flat_map(both) {
        let limit = from_there.max(from_here);
        let (carrier1, carrier2) = open(stranger.limit(accepted));
        let (mine, theirs) = open(stranger.limits(from_there, from_here));
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

// The queue goes back to its first ring to have room for the large one: not before what stands in the batch.
#[test]
fn a_batch_in_a_grown_ring_ends_with_a_large_message() {
    for len in [40_000, 70_000] {
        for options in all_kinds(LIMITED) {
            with_watchdog(move || {
                let (port1, port2) = open(options);
                let posted = fill_limited(&port1);
                expect_filled(&port2, posted, 1000);
                let lens = [10, 20, 30, len, 40];
                let reader = thread::spawn(move || {
                    for (number, len) in (0..).zip(lens) {
                        assert!(port2.recv().unwrap().bytes() == long_pattern(number, len));
                    }
                    port2
                });
                let messages = (0..).zip(lens).map(|(number, len)| long_pattern(number, len));
                port1.post_all_bytes(messages).unwrap();
                let port2 = reader.join().unwrap();
                assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
            });
        }
    }
}

// It keeps the first ring from having much room; what has none there has it elsewhere.
#[test]
fn a_held_message_in_the_first_ring_makes_nothing_full() {
    for options in all_kinds(OPTIONS.limit(4 << 20)) {
        for (before, released) in (0..8).flat_map(|before| (0..4).map(move |it| (before, it))) {
            let (port1, port2) = open(options);
            let post = |number, len| port1.try_post_bytes(&long_pattern(number, len)).unwrap();
            let expect = |number, len| {
                let message = port2.recv().unwrap();
                assert!(message.bytes() == long_pattern(number, len));
                message
            };
            for number in 0..before {
                post(number, 500);
                expect(number, 500);
            }
            (0..280).for_each(|number| post(number, 960));
            (0..released).for_each(|number| drop(expect(number, 960)));
            let held = expect(released, 960);
            (released + 1..280).for_each(|number| drop(expect(number, 960)));
            for number in 0..100 {
                post(number, 1900);
                expect(number, 1900);
            }
            assert!(held.bytes() == long_pattern(released, 960));
        }
    }
}

// What is left of the limit may be enough for a small ring only. The message goes into the first one, later.
#[test]
fn a_grown_ring_that_is_smaller_than_the_first_makes_nothing_too_large() {
    const LIMIT: u64 = 1 << 20;
    for used in [64 << 10, LIMIT as usize - (16 << 10)] {
        let (port1, port2) = open(ChannelOptions::new().capacity(64 << 10).limit(LIMIT));
        for number in 0..52 {
            port1.post_bytes(&long_pattern(number, 64)).unwrap();
            assert!(port2.recv().unwrap().bytes() == long_pattern(number, 64));
        }
        port1.post_bytes_with(b"", Buffer::new(used).unwrap()).unwrap();
        let held = port2.recv().unwrap();
        for number in 0..2_000 {
            let large = port1.try_post_bytes(&long_pattern(number, 20_000));
            assert!(large.is_ok() || is_full(&large), "{large:?}");
            let small = port1.try_post_bytes(&long_pattern(number, 64));
            if is_full(&large) && is_full(&small) {
                break;
            }
        }
        drop(held);
        while port2.try_recv().is_ok() {}
        port1.try_post_bytes(&long_pattern(7, 20_000)).unwrap();
        assert!(port2.recv().unwrap().bytes() == long_pattern(7, 20_000));
    }
}

#[test]
fn a_large_message_with_a_list_takes_no_ring_from_a_loan() {
    let (port1, port2) = open(OPTIONS.limit(1 << 20));
    let (port3, _port4) = open(OPTIONS);
    (0..8).for_each(|number| port1.post_bytes(&long_pattern(number, 1000)).unwrap());
    (0..8).for_each(|number| assert!(port2.recv().unwrap().bytes() == long_pattern(number, 1000)));
    let mut loan = port1.reserve(5).unwrap();
    loan.copy_from_slice(b"loan!");
    // More than the limit allows beside a grown ring.
    let refused = port1.try_post_bytes_with(&vec![2; (1 << 20) - 4096], port3).unwrap_err();
    assert!(matches!(refused.source, PostError::Busy), "{refused}");
    loan.publish(5).unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"loan!");
}
