//! A full ring of a queue that does not grow: it refuses or waits as it was asked to, loses nothing, and never stands in the way of
//! the other direction, a close or a death.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::{
    Setup, asleep, conversation, doomed, in_all_ways, pattern, wait_until, with_watchdog,
};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{CloseReason, MessageChannel, MessagePort, PeerState, PostError, RecvError};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
const SMALL: Setup = Setup::new().capacity(4096).limit(0);
const LARGE: Setup = Setup::new().capacity(64 << 10).limit(0);

/// Fills the ring of a port with messages of 1000 bytes; says how many.
fn fill(port: &MessagePort) -> u64 {
    let mut posted = 0;
    while port.try_post_bytes(&pattern(posted, 1000)).is_ok() {
        posted += 1;
    }
    posted
}

fn is_full<T>(result: Result<T, PostError>) -> bool {
    matches!(result, Err(PostError::Full { .. }))
}

#[test]
fn a_full_ring_refuses_and_keeps_nothing() {
    for setup in [SMALL, SMALL.untrusted()] {
        let MessageChannel { port1, port2 } = setup.open();
        let posted = fill(&port1);
        let value = "a value that is still there ".repeat(40);
        for _ in 0..100 {
            assert!(is_full(port1.try_post(&value)));
            assert!(is_full(port1.try_post_bytes(value.as_bytes())));
            assert!(is_full(port1.try_post_pod(&[0u64; 130])));
            assert!(is_full(port1.try_reserve(1000)));
        }
        // What is small enough still fits.
        port1.try_post_bytes(b"small").unwrap();
        for number in 0..posted {
            assert_eq!(port2.recv().unwrap().bytes(), pattern(number, 1000));
        }
        assert_eq!(port2.recv().unwrap().bytes(), b"small");
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "a refused message came");
        port1.try_post(&value).unwrap();
        assert_eq!(port2.recv().unwrap().get::<String>().unwrap().as_str(), value);
    }
}

#[test]
fn a_full_ring_says_how_much_did_not_fit() {
    let MessageChannel { port1, port2: _port2 } = SMALL.open();
    fill(&port1);
    let error = port1.try_post_bytes(&[0; 1234]).unwrap_err();
    assert!(matches!(error, PostError::Full { len: 1234 }), "{error}");
    assert!(error.to_string().contains("1234"), "{error}");
}

in_all_ways!(
    posts_wait_for_room_and_then_go_on,
    SMALL,
    |port| {
        for number in 0..300 {
            match number % 3 {
                0 => port.post_bytes(&pattern(number, 1500)).unwrap(),
                1 => port.post_pod_slice(&pattern(number, 1500)).unwrap(),
                _ => {
                    let mut loan = port.reserve(1500).unwrap();
                    loan.copy_from_slice(&pattern(number, 1500));
                    loan.publish(1500).unwrap();
                }
            }
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..300 {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, 1500));
        }
        port.post_bytes(b"all").unwrap();
    }
);

in_all_ways!(
    a_full_ring_leaves_the_other_direction_alone,
    SMALL,
    |port| {
        assert_eq!(fill(&port), 3);
        for number in 0..2000u64 {
            assert!(is_full(port.try_post_bytes(&[0; 1000])));
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
        }
        assert!(is_full(port.try_post_bytes(&[0; 1000])));
    },
    |port| {
        for number in 0..2000u64 {
            port.post_pod(&number).unwrap();
        }
        // Nothing is read before the host has come to its end.
        wait_until("the host has read all", || port.peer_state() != PeerState::Open);
        for number in 0..3 {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, 1000));
        }
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    }
);

in_all_ways!(
    a_close_comes_through_a_full_ring,
    SMALL,
    |port| {
        assert_eq!(port.recv().unwrap().bytes(), b"ready");
        fill(&port);
        port.close();
    },
    |port| {
        port.post_bytes(b"ready").unwrap();
        wait_until("the close is seen while all messages wait", || {
            port.peer_state() == PeerState::Closed(CloseReason::Closed)
        });
        for number in 0..3 {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, 1000));
        }
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    }
);

mod a_reader_that_closes_ends_the_wait_for_room {
    use super::*;

    conversation!(adaptive, SMALL, post_until_closed, read_one_and_close);
    conversation!(spin, SMALL.strategy(Spin), post_until_closed, read_one_and_close);
    conversation!(sleep, SMALL.strategy(Sleep), post_until_closed, read_one_and_close);

    fn post_until_closed(port: MessagePort) {
        fill(&port);
        let error = port.post_bytes(&[0; 1000]).unwrap_err();
        assert!(matches!(error, PostError::Closed(CloseReason::Closed)), "{error}");
        assert!(matches!(port.try_post_bytes(b""), Err(PostError::Closed(CloseReason::Closed))));
    }

    fn read_one_and_close(port: MessagePort) {
        // Never let go, so that no room comes back.
        std::mem::forget(port.recv().unwrap());
        port.close();
    }
}

doomed!(
    a_death_comes_through_a_full_ring,
    SMALL,
    |port, mut peer| {
        assert_eq!(port.recv().unwrap().bytes(), b"ready");
        let (sender, receiver) = port.split();
        while sender.try_post_bytes(&[0; 1000]).is_ok() {}
        let posting = asleep(move || sender.post_bytes(&[0; 1000]));
        peer.kill();
        let error = posting.join().unwrap_err();
        assert!(matches!(error, PostError::Closed(CloseReason::PeerDied)), "{error}");
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Closed(CloseReason::PeerDied));
    },
    |port| {
        port.post_bytes(b"ready").unwrap();
        loop {
            thread::park();
        }
    }
);

/// Streams so long that neither side fences any more, and leaves the ring empty.
fn stream(port1: &MessagePort, port2: &MessagePort) {
    for number in 0..1000u64 {
        port1.post_pod(&number).unwrap();
        assert_eq!(*port2.recv().unwrap().pod::<u64>().unwrap(), number);
    }
}

#[test]
fn a_reader_that_has_read_all_owes_nothing() {
    for strategy in [Adaptive, Spin, Sleep] {
        let MessageChannel { port1, port2 } = SMALL.strategy(strategy).open();
        stream(&port1, &port2);
        for round in 0..500usize {
            for _ in 0..round % 40 {
                port1.try_post_bytes(&[0; 50]).unwrap();
            }
            for _ in 0..round % 40 {
                port2.try_recv().unwrap();
            }
            // The largest message fits only into a ring that is all free, or nearly so.
            port1.try_post_bytes(&vec![1; port1.max_in_ring()]).unwrap();
            port2.try_recv().unwrap();
        }
    }
}

#[test]
fn a_reader_owes_a_stream_at_most_an_eighth() {
    let MessageChannel { port1, port2 } = LARGE.open();
    stream(&port1, &port2);
    for _ in 0..20 {
        while port1.try_post_pod(&1u64).is_ok() {}
        // An eighth of the ring and one more message, and then the reader has other things to do.
        for _ in 0..(64 << 10) / 8 / 32 + 1 {
            port2.recv().unwrap();
        }
        for _ in 0..(64 << 10) / 8 / 32 {
            port1.try_post_pod(&1u64).unwrap();
        }
    }
}

#[test]
fn a_poster_that_sleeps_wakes_for_the_first_room() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = LARGE.open();
        stream(&port1, &port2);
        let mut port1 = port1;
        for round in 0..50u64 {
            while port1.try_post_pod(&round).is_ok() {}
            let posting = asleep(move || {
                port1.post_pod(&round).unwrap();
                port1
            });
            // The reader takes one message and then nothing more.
            port2.recv().unwrap();
            port1 = posting.join();
        }
    });
}

// A poster that waits for a large piece of room, and a reader that then waits for its message; and the
// same where the queue may grow, and then not grow any more.
mod large_and_small_in_turn_never_wait_for_each_other {
    use super::*;

    in_all_ways!(in_one_ring, LARGE, post_large_and_small, read_large_and_small);
    in_all_ways!(in_many, Setup::new(), post_large_and_small, read_large_and_small);
    in_all_ways!(
        in_a_few,
        Setup::new().limit(300 << 10),
        post_large_and_small,
        read_large_and_small
    );

    fn post_large_and_small(port: MessagePort) {
        for number in 0..200u64 {
            for small in 0..number % 50 {
                port.post_pod(&small).unwrap();
            }
            port.post_bytes(&pattern(number, port.max_in_ring())).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    }

    fn read_large_and_small(port: MessagePort) {
        for number in 0..200u64 {
            for small in 0..number % 50 {
                assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), small);
            }
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, (64 << 10) / 2 - 32));
        }
        port.post_bytes(b"all").unwrap();
    }
}

#[test]
fn a_drain_gives_room_back_while_it_lasts() {
    let MessageChannel { port1, port2 } = LARGE.open();
    while port1.try_post_pod(&1u64).is_ok() {}
    let mut drain = port2.drain();
    for _ in 0..4 {
        // A quarter of the ring: most of it can be used again at once.
        for _ in 0..512 - 1 {
            assert_eq!(*drain.next().unwrap().pod::<u64>().unwrap(), 1);
        }
        for _ in 0..256 {
            port1.try_post_pod(&2u64).unwrap();
        }
    }
    drop(drain);
    // And at its end all that was read.
    while port2.try_recv().is_ok() {}
    port1.try_post_bytes(&vec![3; port1.max_in_ring()]).unwrap();
}

in_all_ways!(
    a_poster_that_waits_for_a_drain,
    SMALL,
    |port| {
        let mut read = 0u64;
        while read < 2000 {
            for message in port.drain() {
                assert_eq!(*message.pod::<u64>().unwrap(), read);
                read += 1;
            }
            thread::yield_now();
        }
        port.post_bytes(b"all").unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
    |port| {
        for number in 0..2000u64 {
            port.post_pod(&number).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    }
);

#[test]
fn a_reader_owes_nothing_to_a_poster_that_spins_for_room() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = SMALL.strategy(Spin).open();
        // So many messages without a wait that room goes back in pieces of an eighth: 512 bytes.
        for number in 0..200 {
            port1.post_bytes(&pattern(number, 200)).unwrap();
            port2.recv().unwrap();
        }
        while port1.try_post_bytes(&[1; 200]).is_ok() {}
        let poster = thread::spawn(move || {
            port1.post_bytes(&[2; 200]).unwrap();
            port1
        });
        // The first may come before the poster waits; the second comes when it has long waited.
        port2.recv().unwrap();
        let start = Instant::now();
        wait_until("the poster waits", || {
            poster.is_finished() || start.elapsed() > Duration::from_millis(20)
        });
        port2.recv().unwrap();
        drop(poster.join().unwrap());
    });
}

#[test]
fn every_verb_that_is_given_time_takes_it() {
    let MessageChannel { port1, port2 } = SMALL.open();
    fill(&port1);
    let time = Duration::from_millis(10);
    let values = [0u64; 130];
    let verbs: [&dyn Fn() -> Result<(), PostError>; 5] = [
        &|| port1.post_timeout(&"a value".repeat(150), time),
        &|| port1.post_bytes_timeout(&[0; 1000], time),
        &|| port1.post_pod_timeout(&values, time),
        &|| port1.post_pod_slice_timeout(&values, time),
        &|| port1.reserve_timeout(1000, time).map(drop),
    ];
    for verb in verbs {
        let start = Instant::now();
        assert!(is_full(verb()));
        assert!(start.elapsed() >= time, "given up too early");
    }
    assert!(is_full(port1.try_post_pod_slice(&values)));
    port2.drain().for_each(drop);
    for verb in verbs {
        verb().unwrap();
        port2.drain().for_each(drop);
    }
    port1.try_post_pod_slice(&values).unwrap();
    assert_eq!(port2.recv().unwrap().pod_slice::<u64>().unwrap(), values);
}
