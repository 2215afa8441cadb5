//! Memory of a large payload that the reader has kept is not sent again: nobody needs a descriptor for it. It
//! goes along when the reader moves, with what was posted meanwhile; and it does not stay for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod scarcity;
mod support;

use std::time::Duration;

use ends::{expect_end, expect_post_closed, expect_report};
use queues::{long_pattern, open};
use scarcity::Scarcity;
use support::{
    Peer, alone, conversation, count_descriptors, doomed, raise_descriptor_limit, wait_until,
};
use zeroport::{Buffer, ChannelOptions, CloseReason, MessagePort, RecvError, Trust};

const OPTIONS: ChannelOptions = ChannelOptions::new();
const LEN: usize = 1 << 20;
/// As many payloads as a poster uses memory for in turn, and more.
const ROUND: u64 = 20;

fn post(port: &MessagePort, number: u64) {
    port.post_bytes(&long_pattern(number, LEN)).unwrap();
}

fn expect(port: &MessagePort, number: u64) {
    let message = port.recv().unwrap();
    assert!(message.bytes() == long_pattern(number, LEN), "number {number}");
}

/// Has the reader keep what the poster uses.
fn warm_up(poster: &MessagePort, reader: &MessagePort) {
    for number in 0..ROUND {
        post(poster, number);
        expect(reader, number);
    }
}

alone!(no_descriptor_is_needed, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    {
        let _scarcity = Scarcity::new(0);
        for number in 0..ROUND {
            post(&port1, number);
            expect(&port2, number);
        }
        // Some lie there, and the reader holds others.
        let held: Vec<_> = (0..3)
            .map(|number| {
                post(&port1, number);
                port2.recv().unwrap()
            })
            .collect();
        for number in 3..6 {
            post(&port1, number);
        }
        for (number, message) in held.iter().enumerate() {
            assert!(message.bytes() == long_pattern(number as u64, LEN));
        }
        drop(held);
        (3..6).for_each(|number| expect(&port2, number));
    }
    // A buffer beside it has to be sent, and its payload is sent with it.
    let text = Buffer::from_slice(b"beside").unwrap();
    port1.post_bytes_with(&long_pattern(1, LEN), text).unwrap();
    let message = port2.recv().unwrap();
    assert!(message.bytes() == long_pattern(1, LEN));
    assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");
    drop(message);
    let _scarcity = Scarcity::new(0);
    for number in 0..ROUND {
        post(&port1, number);
        expect(&port2, number);
    }
});

alone!(who_is_not_trusted_gets_a_fresh_one_each_time, || {
    raise_descriptor_limit();
    for options in [OPTIONS.trust(Trust::Untrusted), OPTIONS.warm(false)] {
        let (port1, port2) = open(options);
        warm_up(&port1, &port2);
        post(&port1, 0);
        let scarcity = Scarcity::new(0);
        assert_eq!(port2.try_recv().map(drop), Err(RecvError::Os { errno: libc::EMFILE }));
        drop(scarcity);
        expect(&port2, 0);
    }
});

alone!(what_is_kept_goes_when_it_is_not_used, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    // The lane stays.
    port1.post_bytes_with(b"", Buffer::new(1).unwrap()).unwrap();
    drop(port2.recv().unwrap().take_buffer().unwrap());
    let before = count_descriptors();
    warm_up(&port1, &port2);
    let kept = count_descriptors();
    assert!(kept > before);
    // The poster keeps its own.
    wait_until("the reader has let go", || {
        assert_eq!(port2.recv_timeout(Duration::from_millis(1)).map(drop), Err(RecvError::Empty));
        count_descriptors() - before <= (kept - before) / 2
    });
    warm_up(&port1, &port2);
    assert_eq!(count_descriptors(), kept);
    drop((port1, port2));
    zeroport::trim();
    assert!(count_descriptors() < before);
});

alone!(a_block_that_was_not_sent_after_all_can_be_forgotten, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    port1.post_bytes_with(b"", Buffer::new(1).unwrap()).unwrap();
    drop(port2.recv().unwrap().take_buffer().unwrap());
    let before = count_descriptors();
    warm_up(&port1, &port2);
    let kept = count_descriptors() - before;
    // Reserved in memory that the reader has kept, and given up: the poster has less of it then.
    for _ in 0..ROUND {
        drop(port1.reserve(LEN).unwrap());
    }
    wait_until("the reader has none", || {
        assert_eq!(port2.recv_timeout(Duration::from_millis(1)).map(drop), Err(RecvError::Empty));
        count_descriptors() - before < kept / 2
    });
    warm_up(&port1, &port2);
});

// The reader moves, there and back, with payloads unread in memory that it has kept.
conversation!(
    the_reader_moves,
    |carrier: MessagePort| {
        let (port1, mut port2) = open(OPTIONS);
        for hop in 0..4 {
            warm_up(&port1, &port2);
            (0..5).for_each(|number| post(&port1, hop + number));
            carrier.post_bytes_with(b"there", port2).unwrap();
            [port2] = carrier.recv().unwrap().take_ports().unwrap();
            // What the peer has left, and what it was kept in.
            (5..10).for_each(|number| post(&port1, hop + number));
            (3..10).for_each(|number| expect(&port2, hop + number));
        }
        drop(port1);
        expect_end(&port2, CloseReason::Closed);
    },
    |carrier: MessagePort| {
        for hop in 0..4 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            (0..3).for_each(|number| expect(&port, hop + number));
            carrier.post_bytes_with(b"back", port).unwrap();
        }
    },
);

alone!(a_reader_that_has_moved_needs_no_descriptor, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    let (carrier1, carrier2) = open(OPTIONS);
    warm_up(&port1, &port2);
    (0..5).for_each(|number| post(&port1, number));
    carrier1.post_bytes_with(b"", port2).unwrap();
    let [port2] = carrier2.recv().unwrap().take_ports().unwrap();
    let _scarcity = Scarcity::new(0);
    (0..5).for_each(|number| expect(&port2, number));
    for number in 0..ROUND {
        post(&port1, number);
        expect(&port2, number);
    }
});

// The poster moves: its next holder makes memory of its own, and the reader keeps that instead.
conversation!(
    the_poster_moves,
    |carrier: MessagePort| {
        let (mut port1, port2) = open(OPTIONS);
        for hop in 0..4 {
            (0..ROUND).for_each(|number| {
                post(&port1, hop + number);
                expect(&port2, hop + number);
            });
            post(&port1, hop);
            carrier.post_bytes_with(b"there", port1).unwrap();
            [port1] = carrier.recv().unwrap().take_ports().unwrap();
            (0..5).for_each(|number| expect(&port2, hop + number));
        }
    },
    |carrier: MessagePort| {
        for hop in 0..4 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            (1..5).for_each(|number| post(&port, hop + number));
            carrier.post_bytes_with(b"back", port).unwrap();
        }
    },
);

doomed!(
    what_a_killed_poster_has_named_is_read,
    |carrier: MessagePort, mut peer: Peer| {
        let (port1, port2) = open(OPTIONS);
        carrier.post_bytes_with(b"yours", port2).unwrap();
        (0..ROUND).for_each(|number| expect(&port1, number));
        carrier.post_bytes(b"all were read").unwrap();
        assert_eq!(carrier.recv().unwrap().bytes(), b"more lie there");
        peer.kill();
        (0..5).for_each(|number| expect(&port1, number));
        expect_end(&port1, CloseReason::PeerDied);
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (0..ROUND).for_each(|number| post(&port, number));
        drop(carrier.recv().unwrap());
        (0..5).for_each(|number| post(&port, number));
        carrier.post_bytes(b"more lie there").unwrap();
        let _ = carrier.recv();
    },
);

doomed!(
    a_killed_reader_leaves_the_poster_an_end,
    |carrier: MessagePort, mut peer: Peer| {
        let (port1, port2) = open(OPTIONS);
        carrier.post_bytes_with(b"yours", port2).unwrap();
        (0..ROUND).for_each(|number| post(&port1, number));
        assert_eq!(carrier.recv().unwrap().bytes(), b"all were read");
        (0..3).for_each(|number| post(&port1, number));
        peer.kill();
        expect_report(&port1, CloseReason::PeerDied);
        expect_post_closed(port1.post_bytes(&long_pattern(0, LEN)), CloseReason::PeerDied);
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (0..ROUND).for_each(|number| expect(&port, number));
        carrier.post_bytes(b"all were read").unwrap();
        let _ = carrier.recv();
    },
);
