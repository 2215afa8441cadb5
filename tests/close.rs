//! Close: said once, after the last message, with its reason, and at once to whoever asks.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod ends;
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ends::{expect_end, expect_post_closed, expect_report};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{
    Peer, Setup, alone, be_peer, conversation, count_descriptors, count_segment_mappings, doomed,
    in_all_ways, in_thread, is_peer_of, pattern, test_name, wait_until,
};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{
    BatchError, CloseReason, Closer, MessageChannel, MessagePort, PeerState, PostError, RecvError,
};

/// Messages before an end: many laps of the default ring.
const MANY: u64 = 5_000;

fn number(message: &[u8]) -> u64 {
    u64::from_ne_bytes(message.try_into().expect("a number"))
}

fn post_numbers(port: &MessagePort, count: u64) {
    for n in 0..count {
        port.post_bytes(&n.to_ne_bytes()).expect("room and a peer");
    }
}

fn receive_numbers(port: &MessagePort, count: u64) {
    for n in 0..count {
        assert_eq!(number(port.recv().expect("a message before the end").bytes()), n);
    }
}

// S-048, S-059: the peer closes; nothing is delivered to it any more, and nothing throws.
conversation!(
    explicit_close,
    |port| {
        expect_report(&port, CloseReason::Closed);
        expect_end(&port, CloseReason::Closed);
        // S-081: closing what has ended is a no-op.
        port.closer().close();
        expect_end(&port, CloseReason::Closed);
        port.close();
    },
    |port| port.close(),
);

// S-066.
conversation!(drop_closes, |port| expect_end(&port, CloseReason::Closed), drop);

// S-051, S-062: hard case 1, at length.
in_all_ways!(
    all_messages_then_the_end,
    |port| {
        receive_numbers(&port, MANY);
        expect_end(&port, CloseReason::Closed);
    },
    |port| {
        post_numbers(&port, MANY);
        port.close();
    },
);

// S-051 for a reader that polls.
conversation!(
    all_messages_then_the_end_for_a_poller,
    |port| {
        let mut next = 0;
        let end = loop {
            match port.try_recv() {
                Ok(message) => {
                    assert_eq!(number(message.bytes()), next);
                    next += 1;
                }
                Err(RecvError::Empty) => std::hint::spin_loop(),
                Err(end) => break end,
            }
        };
        assert_eq!((next, end), (MANY, RecvError::Closed(CloseReason::Closed)));
        expect_end(&port, CloseReason::Closed);
    },
    |port| {
        post_numbers(&port, MANY);
        port.close();
    },
);

// S-060: who closes is told nothing; the verbs of its own handle say so at once (S-049, S-055), and
// what it has not received is dropped (D-02).
conversation!(
    own_close_is_immediate,
    |port| {
        // A message is there, and has not been received.
        assert_eq!(port.recv().expect("the first").bytes(), b"first");
        port.closer().close();
        expect_end(&port, CloseReason::Closed);
    },
    |port| {
        port.post_bytes(b"first").unwrap();
        // The host may have closed by then.
        let _ = port.post_bytes(b"second");
        expect_end(&port, CloseReason::Closed);
    },
);

/// S-052: two posts and a close, again and again: both arrive every time.
#[test]
fn ten_thousand_rounds_of_two_posts_and_a_close_by_a_thread() {
    const ROUNDS: u64 = 10_000;
    let (hand_over, channels) = std::sync::mpsc::sync_channel::<MessagePort>(1);
    let poster = in_thread("the poster", move || {
        for port in channels {
            port.post_bytes(b"one").expect("the first");
            port.post_bytes(b"two").expect("the second");
            port.close();
        }
    });
    let reader = in_thread("the reader", move || {
        for round in 0..ROUNDS {
            let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
            hand_over.send(port2).expect("the poster");
            if round % 2 == 0 {
                expect_round(&port1, || port1.recv());
            } else {
                expect_round(&port1, || poll(&port1));
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    reader.join(deadline);
    poster.join(deadline);
}

/// As above, with both threads on one processor: the poster interrupts the reader at any point of its
/// look, and has posted and closed before the reader goes on.
#[test]
fn two_posts_and_a_close_while_the_reader_is_interrupted() {
    const ROUNDS: u64 = 300;
    let processor = one_processor();
    let (hand_over, channels) = std::sync::mpsc::sync_channel::<MessagePort>(0);
    let poster = in_thread("the poster", move || {
        sched_setaffinity(None, &processor).expect("one processor");
        for (round, port) in (0u64..).zip(channels) {
            // What comes after it interrupts the reader, who is looking meanwhile.
            std::thread::sleep(Duration::from_micros(20 + round * 7 % 60));
            port.post_bytes(b"one").expect("the first");
            port.post_bytes(b"two").expect("the second");
            port.close();
        }
    });
    let reader = in_thread("the reader", move || {
        sched_setaffinity(None, &processor).expect("one processor");
        for _ in 0..ROUNDS {
            let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
            hand_over.send(port2).expect("the poster");
            expect_round(&port1, || poll(&port1));
        }
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    reader.join(deadline);
    poster.join(deadline);
}

/// A set of one of our processors.
fn one_processor() -> CpuSet {
    let ours = sched_getaffinity(None).expect("our processors");
    let first = (0..CpuSet::MAX_CPU).find(|processor| ours.is_set(*processor));
    let mut one = CpuSet::new();
    one.set(first.expect("a processor"));
    one
}

fn expect_round<'p>(
    port: &'p MessagePort,
    mut receive: impl FnMut() -> Result<zeroport::Message<'p>, RecvError>,
) {
    assert_eq!(receive().expect("the first").bytes(), b"one");
    assert_eq!(receive().expect("the second").bytes(), b"two");
    assert_eq!(receive().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
    assert_eq!(port.recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
}

fn poll(port: &MessagePort) -> Result<zeroport::Message<'_>, RecvError> {
    loop {
        match port.try_recv() {
            Err(RecvError::Empty) => std::hint::spin_loop(),
            found => return found,
        }
    }
}

/// S-052 with processes: each round has a process of its own, because a process gets one port at its
/// start. Fewer rounds than with threads, for a process takes some milliseconds.
#[test]
fn a_thousand_rounds_of_two_posts_and_a_close_by_a_process() {
    let rounds = if ends::long() { 10_000 } else { 1_000 };
    let test = test_name(concat!(
        module_path!(),
        "::a_thousand_rounds_of_two_posts_and_a_close_by_a_process"
    ));
    if is_peer_of(test) {
        be_peer(Setup::new(), |port| {
            port.post_bytes(b"one").unwrap();
            port.post_bytes(b"two").unwrap();
            port.close();
        });
    }
    for round in 0..rounds {
        let (port, mut peer) = Peer::spawn(test, Setup::new());
        if round % 2 == 0 {
            expect_round(&port, || port.recv());
        } else {
            expect_round(&port, || poll(&port));
        }
        peer.expect_done();
    }
}

// S-053: what the closer has not received is dropped, and its memory with it.
alone!(undelivered_messages_leave_nothing_behind, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let (descriptors, mappings) = (count_descriptors(), count_segment_mappings());
    for _ in 0..100 {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        post_numbers(&port1, 1_000);
        post_numbers(&port2, 1_000);
        port2.close();
        expect_post_closed(port1.try_post_bytes(b"late"), CloseReason::Closed);
    }
    assert_eq!((count_descriptors(), count_segment_mappings()), (descriptors, mappings));
    drop((port1, port2));
});

// S-063: nobody receives; the end waits behind the messages, but whoever asks is told at once (S-079).
conversation!(
    the_end_waits_behind_the_messages,
    |port| {
        wait_until("the peer has closed", || port.peer_state() != PeerState::Open);
        assert_eq!(port.peer_state(), PeerState::Closed(CloseReason::Closed));
        expect_post_closed(port.try_post_bytes(b"late"), CloseReason::Closed);
        for n in 0..100 {
            assert_eq!(port.peer_state(), PeerState::Closed(CloseReason::Closed));
            assert_eq!(number(port.recv().expect("a message before the end").bytes()), n);
        }
        expect_end(&port, CloseReason::Closed);
    },
    |port| post_numbers(&port, 100),
);

// S-064, S-065: a port that was never used before its peer closed is told all the same.
conversation!(
    a_late_question_is_answered,
    |port| {
        wait_until("the peer has closed", || port.peer_state() != PeerState::Open);
        assert_eq!(port.try_recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
        expect_end(&port, CloseReason::Closed);
    },
    drop,
);

// S-069, S-082: a process that posts and ends at once, without close or flush: all of it arrives.
// Its end comes without a word, so the reason is its death.
doomed!(
    process_exit_after_the_last_post,
    |port, mut peer| {
        receive_numbers(&port, 1_000);
        expect_end(&port, CloseReason::PeerDied);
        assert_eq!(peer.wait().code(), Some(3));
    },
    |port| {
        post_numbers(&port, 1_000);
        std::process::exit(3)
    },
);

// S-069: a process that returns from its work drops its port on the way out.
conversation!(
    return_after_the_last_post,
    |port| {
        receive_numbers(&port, 1_000);
        expect_end(&port, CloseReason::Closed);
    },
    |port| post_numbers(&port, 1_000),
);

// S-076: neither is told, nothing leaks.
alone!(both_ends_close_at_the_same_moment, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let (descriptors, mappings) = (count_descriptors(), count_segment_mappings());
    let start = Barrier::new(2);
    let (give, take) = std::sync::mpsc::sync_channel(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for port in take {
                start.wait();
                MessagePort::close(port);
            }
        });
        for _ in 0..2_000 {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            give.send(port2).unwrap();
            start.wait();
            port1.close();
        }
        drop(give);
    });
    assert_eq!((count_descriptors(), count_segment_mappings()), (descriptors, mappings));
    drop((port1, port2));
});

// S-081: the end of the channel lets the line go at once, not with the handle.
alone!(a_reported_end_holds_no_line, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let open = count_descriptors();
    drop(port2);
    assert_eq!(count_descriptors(), open - 1);
    expect_end(&port1, CloseReason::Closed);
    assert_eq!(count_descriptors(), open - 2);
    // What was posted before the line went is no concern of the next channel.
    let MessageChannel { port1: next1, port2: next2 } = MessageChannel::new().unwrap();
    next1.post_bytes(b"next").unwrap();
    assert_eq!(next2.recv().unwrap().bytes(), b"next");
    expect_end(&port1, CloseReason::Closed);
});

/// A message outlives the end of its channel, whoever ends it.
#[test]
fn a_held_message_stays_readable() {
    for own in [false, true] {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let bytes = pattern(1, 3_000);
        port2.post_bytes(&bytes).unwrap();
        let message = port1.recv().unwrap();
        if own {
            port1.closer().close();
        }
        drop(port2);
        expect_end(&port1, CloseReason::Closed);
        assert_eq!(message.bytes(), bytes);
    }
}

/// A queue that is soon full.
const FIXED: Setup = Setup::new().capacity(4096).limit(0);

/// S-045: whoever waits on a port is woken when another thread closes it, however it waits.
fn expect_wake<T>(setup: Setup, wait: fn(&MessagePort) -> T, check: fn(T))
where
    T: Send + 'static,
{
    let MessageChannel { port1, port2 } = setup.open();
    let closer = port1.closer();
    let begun = Arc::new(AtomicU64::new(0));
    let sign = Arc::clone(&begun);
    let waiting = in_thread("whoever waits", move || {
        sign.store(1, Ordering::Release);
        check(wait(&port1));
        expect_end(&port1, CloseReason::Closed);
    });
    wait_until("the other thread has begun", || begun.load(Ordering::Acquire) == 1);
    // Close both early and late in the other thread's way to sleep.
    for _ in 0..begun_delay() {
        std::hint::spin_loop();
    }
    let closers: Vec<_> = (0..3)
        .map(|_| closer.clone())
        .map(|closer| in_thread("a closer", move || closer.close()))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    waiting.join(deadline);
    closers.into_iter().for_each(|closer| closer.join(deadline));
    // A full queue holds messages for the other end; after those comes the end.
    for message in port2.drain() {
        assert_eq!(message.bytes().len(), 500);
    }
    expect_end(&port2, CloseReason::Closed);
}

/// A different number of steps each time.
fn begun_delay() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) % 50 * 2_000
}

#[test]
fn a_closer_wakes_a_reader() {
    for _ in 0..50 {
        for strategy in [Spin, Adaptive, Sleep] {
            expect_wake(
                FIXED.strategy(strategy),
                |port| port.recv().map(drop),
                |end| assert_eq!(end, Err(RecvError::Closed(CloseReason::Closed))),
            );
        }
    }
}

#[test]
fn a_closer_wakes_a_reader_with_a_deadline() {
    for strategy in [Spin, Adaptive, Sleep] {
        expect_wake(
            FIXED.strategy(strategy),
            |port| port.recv_timeout(Duration::from_secs(50)).map(drop),
            |end| assert_eq!(end, Err(RecvError::Closed(CloseReason::Closed))),
        );
    }
}

#[test]
fn a_closer_wakes_a_poster_that_waits_for_room() {
    for setup in [FIXED, FIXED.limit(16 << 10)] {
        for strategy in [[Spin, Adaptive, Sleep]; 50].into_iter().flatten() {
            expect_wake(
                setup.strategy(strategy),
                |port| loop {
                    // Ends only by an error, for nobody makes room.
                    if let Err(error) = port.post_bytes(&[7; 500]) {
                        break error;
                    }
                },
                |error| expect_post_closed(Err(error), CloseReason::Closed),
            );
        }
    }
}

#[test]
fn a_closer_does_not_keep_a_port_open_and_outlives_it() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let closer = port1.closer();
    shared::<Closer>(&closer);
    drop(port1);
    expect_end(&port2, CloseReason::Closed);
    closer.close();
    closer.clone().close();
}

/// S-058: close in one thread, posts in another, on the same port: a post that says `Ok` is
/// delivered, whole; the one that the close has met may be delivered and say `Closed`.
#[test]
fn close_against_post() {
    support::with_watchdog(|| {
        for round in 0..2_000 {
            // One ring, or a queue that grows a few times.
            let growing = FIXED.limit(64 << 10);
            let setup = if round % 2 == 0 { Setup::new().limit(0) } else { growing };
            let MessageChannel { port1, port2 } = setup.open();
            let closer = port1.closer();
            let progress = AtomicU64::new(0);
            let (least, most) = std::thread::scope(|scope| {
                let poster = scope.spawn(|| post_until_closed(port1, &progress));
                while progress.load(Ordering::Relaxed) <= round / 2 % 64 {
                    std::hint::spin_loop();
                }
                closer.close();
                poster.join().unwrap()
            });
            let mut delivered = 0;
            let end = loop {
                match port2.recv() {
                    Ok(message) => assert_eq!(message.bytes(), pattern(delivered, 100)),
                    Err(end) => break end,
                }
                delivered += 1;
            };
            assert_eq!(end, RecvError::Closed(CloseReason::Closed));
            assert!((least..=most).contains(&delivered), "{delivered}: {least} to {most}");
        }
    });
}

/// A batch during which its own port is closed: nothing is counted as posted that is not certain to be
/// delivered.
#[test]
fn a_batch_does_not_count_what_came_after_the_close() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let closer = port1.closer();
    let refused = port1.post_all_bytes((0..4u8).map(|n| {
        if n == 3 {
            closer.close();
            expect_report(&port2, CloseReason::Closed);
        }
        [n]
    }));
    let BatchError { posted, source, .. } = refused.unwrap_err();
    expect_post_closed(Err(source), CloseReason::Closed);
    assert_eq!(posted, 0);
    expect_end(&port2, CloseReason::Closed);
}

/// S-061: a port is closed by several threads at once, and dropped as soon as its owner learns of it.
/// Whoever watches from the other end never takes that for a death; nor does the owner.
#[test]
fn a_close_by_several_threads_is_not_taken_for_a_death() {
    support::with_watchdog(|| {
        for _ in 0..1_000 {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let closers = [port1.closer(), port1.closer()];
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for closer in closers {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        closer.close();
                    });
                }
                scope.spawn(|| {
                    start.wait();
                    while port1.peer_state() == PeerState::Open {}
                    assert_eq!(port1.peer_state(), PeerState::Closed(CloseReason::Closed));
                    expect_post_closed(port1.try_post_bytes(b"late"), CloseReason::Closed);
                    drop(port1);
                });
                start.wait();
                let seen = loop {
                    match port2.peer_state() {
                        PeerState::Open => {}
                        end => break end,
                    }
                };
                assert_eq!(seen, PeerState::Closed(CloseReason::Closed));
            });
        }
    });
}

/// Says how many messages must be delivered at least, and may be at most.
fn post_until_closed(port: MessagePort, progress: &AtomicU64) -> (u64, u64) {
    let mut n = 0;
    loop {
        match port.try_post_bytes(&pattern(n, 100)) {
            Ok(()) => n += 1,
            // Nobody reads yet, and the close is late.
            Err(PostError::Full { .. }) => return (n, n),
            Err(PostError::Closed(CloseReason::Closed)) => return (n, n + 1),
            Err(error) => panic!("{error}"),
        }
        progress.store(n, Ordering::Relaxed);
    }
}

/// S-061 in one process: close, close, drop and hang-up of one port are one end for the other.
#[test]
fn many_ways_to_close_are_one_end() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let closer = port1.closer();
    port1.post_bytes(b"last").unwrap();
    closer.close();
    closer.close();
    let (sender, receiver) = port1.split();
    sender.close();
    receiver.close();
    closer.close();
    assert_eq!(port2.recv().unwrap().bytes(), b"last");
    expect_end(&port2, CloseReason::Closed);
}

/// Halves: the port closes with the last of them, or when either closes it explicitly.
#[test]
fn halves_close_together() {
    for keep_sender in [false, true] {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let (sender, receiver) = port1.split();
        if keep_sender {
            drop(receiver);
            sender.post_bytes(b"still open").unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), b"still open");
            assert_eq!(port2.peer_state(), PeerState::Open);
            drop(sender);
        } else {
            drop(sender);
            port2.post_bytes(b"still open").unwrap();
            assert_eq!(receiver.recv().unwrap().bytes(), b"still open");
            assert_eq!(port2.peer_state(), PeerState::Open);
            drop(receiver);
        }
        expect_end(&port2, CloseReason::Closed);
    }
    for close_sender in [false, true] {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let (sender, receiver) = port1.split();
        if close_sender {
            sender.close();
            assert_eq!(receiver.recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
        } else {
            receiver.close();
            expect_post_closed(sender.post_bytes(b"late"), CloseReason::Closed);
        }
        expect_end(&port2, CloseReason::Closed);
    }
}
