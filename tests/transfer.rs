//! A port can be given away, with what waits in it, and its other end notices nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod support;

use std::time::Duration;

use ends::{expect_end, expect_report};
use support::{
    Setup, alone, asleep, channels, conversation, count_descriptors, expect_all_entangled,
    expect_entangled, with_watchdog,
};
use zeroport::{
    CloseReason, MessageChannel, MessagePort, PeerState, PostError, RecvError, TakeError,
    TransferList, WaitStrategy, tag_of_plain_data, transfer,
};

/// Receives one port.
fn take_port(carrier: &MessagePort) -> MessagePort {
    let [port] = carrier.recv().unwrap().take_ports().unwrap();
    port
}

/// Gives a port away and takes it at the other end of a channel in this process.
fn moved(port: MessagePort) -> MessagePort {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes_with(b"", port).unwrap();
    take_port(&port2)
}

fn expect_bytes(port: &MessagePort, bytes: &[u8]) {
    let message = port.recv().unwrap();
    assert_eq!((message.bytes(), message.port_count()), (bytes, 0));
}

conversation!(
    a_port_moves_with_its_messages,
    |port: MessagePort| {
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        mine.post_bytes(b"first").unwrap();
        mine.post_bytes(b"second").unwrap();
        assert_eq!(theirs.recv().unwrap().bytes(), b"first");
        theirs.post_bytes(b"before").unwrap();
        port.post_bytes_with(b"yours", transfer![theirs]).unwrap();
        mine.post_bytes(b"third").unwrap();
        assert_eq!(mine.recv().unwrap().bytes(), b"before");
        assert_eq!(mine.recv().unwrap().bytes(), b"after");
        assert_eq!(mine.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    },
    |port: MessagePort| {
        let message = port.recv().unwrap();
        assert_eq!(message.bytes(), b"yours");
        let [theirs] = message.take_ports().unwrap();
        assert_eq!(theirs.recv().unwrap().bytes(), b"second");
        assert_eq!(theirs.recv().unwrap().bytes(), b"third");
        theirs.post_bytes(b"after").unwrap();
    },
);

// Ports of a message that is dropped are closed then, whatever lies before them.
#[test]
fn messages_with_ports_are_dropped_in_any_order() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        for taken in 0..3 {
            let (mine, theirs) = channels(3);
            theirs.into_iter().for_each(|theirs| port1.post_bytes_with(b"", theirs).unwrap());
            let mut held: Vec<_> = (0..3).map(|_| Some(port2.recv().unwrap())).collect();
            let message = held[taken].take().unwrap();
            held.into_iter().rev().for_each(drop);
            expect_entangled(&mine[taken], &message.take_port().unwrap().unwrap());
            for (number, mine) in mine.iter().enumerate() {
                let reason = if number == taken { CloseReason::Closed } else { CloseReason::Lost };
                expect_end(mine, reason);
            }
        }
    });
}

// ---- Lists ----

conversation!(
    a_list_keeps_length_and_order,
    |port: MessagePort| {
        for count in 0..20usize {
            let (mine, theirs) = channels(count);
            port.post_pod_with(&(count as u64), theirs).unwrap();
            for (number, mine) in mine.iter().enumerate() {
                assert_eq!(mine.recv().unwrap().pod::<u64>().unwrap(), &(number as u64));
            }
        }
    },
    |port: MessagePort| {
        while let Ok(message) = port.recv() {
            let count = *message.pod::<u64>().unwrap() as usize;
            for number in 0..count {
                assert_eq!(message.port_count(), count - number);
                // Another number of ports than there are: they stay.
                let refused = message.take_ports::<77>().unwrap_err();
                assert!(
                    matches!(refused, TakeError::Count { expected: 77, found } if found == count - number)
                );
                let port = message.take_port().unwrap().unwrap();
                port.post_pod(&(number as u64)).unwrap();
            }
            assert_eq!(message.port_count(), 0);
            assert!(message.take_port().unwrap().is_none());
            assert!(message.take_all_ports().unwrap().is_empty());
            let [] = message.take_ports().unwrap();
        }
    },
);

// Bytes and ports, each with and without the other, are one queue (S-010, S-012).
conversation!(
    with_and_without_bytes_and_ports,
    |port: MessagePort| {
        let mut staying = Vec::new();
        for number in 0..100u64 {
            let bytes = support::pattern(number, (number % 5 * 300) as usize);
            if number % 3 == 0 {
                let (mine, theirs) = channels(1 + number as usize % 2);
                port.post_bytes_with(&bytes, theirs).unwrap();
                staying.extend(mine);
            } else if number % 3 == 1 {
                port.post_bytes_with(&bytes, TransferList::new()).unwrap();
            } else {
                port.post_bytes(&bytes).unwrap();
            }
        }
        for (number, mine) in (0u64..).zip(&staying) {
            assert_eq!(mine.recv().unwrap().pod::<u64>().unwrap(), &number);
        }
    },
    |port: MessagePort| {
        let mut came = 0u64;
        for number in 0..100u64 {
            let message = port.recv().unwrap();
            assert_eq!(message.bytes(), support::pattern(number, (number % 5 * 300) as usize));
            let count = if number % 3 == 0 { 1 + number as usize % 2 } else { 0 };
            assert_eq!(message.port_count(), count);
            for theirs in message.take_all_ports().unwrap() {
                theirs.post_pod(&came).unwrap();
                came += 1;
            }
        }
    },
);

alone!(an_empty_list_is_a_plain_post, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let before = count_descriptors();
    port1.post_bytes_with(b"bytes", TransferList::default()).unwrap();
    port1.post_pod_with(&1u32, Vec::new()).unwrap();
    port1.post_with(&"value".to_string(), transfer![]).unwrap();
    let loan = port1.reserve(4).unwrap();
    loan.publish_with(0, 0, []).unwrap();
    assert_eq!(count_descriptors(), before, "no lane was made");
    expect_bytes(&port2, b"bytes");
    assert_eq!(port2.recv().unwrap().pod::<u32>().unwrap(), &1);
    assert_eq!(port2.recv().unwrap().get::<String>().unwrap(), "value");
    expect_bytes(&port2, b"");
});

// ---- All verbs ----

#[test]
fn every_form_of_a_post_carries_ports() {
    with_watchdog(|| {
        const SOON: Duration = Duration::from_secs(60);
        for setup in [Setup::new(), Setup::new().untrusted()] {
            let MessageChannel { port1, port2 } = setup.open();
            let (mut mine, value) = (Vec::new(), "value".to_string());
            let mut goes = || {
                let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
                mine.push(port1);
                port2
            };
            port1.post_bytes_with(b"bytes", goes()).unwrap();
            port1.try_post_bytes_with(b"bytes", [goes()]).unwrap();
            port1.post_bytes_with_timeout(b"bytes", vec![goes()], SOON).unwrap();
            port1.post_pod_with(&7u64, transfer![goes()]).unwrap();
            port1.try_post_pod_with(&7u64, goes()).unwrap();
            port1.post_pod_with_timeout(&7u64, goes(), SOON).unwrap();
            port1.post_with(&value, goes()).unwrap();
            port1.try_post_with(&value, goes()).unwrap();
            port1.post_with_timeout(&value, goes(), SOON).unwrap();
            for tag in [0, tag_of_plain_data("u64", 8, 8)] {
                let mut loan = port1.reserve(20).unwrap();
                loan[..8].copy_from_slice(&7u64.to_ne_bytes());
                loan.publish_with(8, tag, goes()).unwrap();
            }
            let (sender, receiver) = port1.split();
            sender.post_bytes_with(b"bytes", goes()).unwrap();
            sender.post_pod_with(&7u64, goes()).unwrap();
            sender.post_with(&value, goes()).unwrap();

            let messages: Vec<_> = port2.drain().collect();
            let (mut bytes, mut pods, mut values, mut theirs) = (0, 0, 0, Vec::new());
            for message in &messages {
                bytes += usize::from(message.tag() == 0);
                pods += usize::from(message.pod::<u64>().is_ok_and(|value| *value == 7));
                values += usize::from(message.get::<String>().is_ok_and(|value| value == "value"));
                theirs.extend(message.take_ports::<1>().unwrap());
            }
            assert_eq!((messages.len(), bytes, pods, values), (14, 5, 5, 4));
            expect_all_entangled(&mine, &theirs);
            drop((sender, receiver));
        }
    });
}

// An iterator of a batch may give ports away on the very port; nothing is visible before its end.
#[test]
fn ports_are_posted_inside_a_batch() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let (mine, theirs) = channels(3);
        let mut theirs = theirs.into_iter();
        let batch = (0..3u8).map(|number| {
            port1.post_bytes_with(&[10 + number], theirs.next().unwrap()).unwrap();
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
            [number]
        });
        assert_eq!(port1.post_all_bytes(batch).unwrap(), 3);
        let messages: Vec<_> = port2.drain().collect();
        let bytes: Vec<_> = messages.iter().map(|message| message.bytes()[0]).collect();
        assert_eq!(bytes, [10, 0, 11, 1, 12, 2]);
        let came = messages.iter().filter_map(|message| message.take_port().unwrap());
        expect_all_entangled(&mine, &came.collect::<Vec<_>>());
    });
}

/// More than one lane has room for.
const MANY_PORTS: usize = 400;

/// Posts a batch in whose course so many ports are given away.
fn post_batch_with_ports(port: &MessagePort) -> usize {
    let batch = (0..MANY_PORTS).map(|number| {
        let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
        stays.post_bytes(b"unread").unwrap();
        port.post_bytes_with(b"a port", goes).unwrap();
        (number as u64).to_ne_bytes()
    });
    port.post_all_bytes(batch).unwrap()
}

fn expect_batch_with_ports(port: &MessagePort) {
    for number in 0..MANY_PORTS as u64 {
        expect_bytes(&take_port(port), b"unread");
        expect_bytes(port, &number.to_ne_bytes());
    }
}

// A batch with more ports than the lane has room for becomes visible as far as that.
#[test]
fn a_batch_waits_for_room_on_the_lane() {
    with_watchdog(|| {
        support::raise_descriptor_limit();
        let MessageChannel { port1, port2 } = Setup::new().limit(0).open();
        let posting = asleep(move || post_batch_with_ports(&port1));
        expect_batch_with_ports(&port2);
        assert_eq!(posting.join(), MANY_PORTS);
    });
}

#[test]
fn a_batch_goes_on_on_further_lanes() {
    with_watchdog(|| {
        support::raise_descriptor_limit();
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        assert_eq!(post_batch_with_ports(&port1), MANY_PORTS);
        expect_batch_with_ports(&port2);
    });
}

// ---- What travels ----

conversation!(
    both_ends_in_one_message,
    |port: MessagePort| {
        let MessageChannel { port1: left, port2: right } = MessageChannel::new().unwrap();
        left.post_bytes(b"to the right").unwrap();
        right.post_bytes(b"to the left").unwrap();
        port.post_bytes_with(b"", transfer![left, right]).unwrap();
        // And back again.
        let [left, right] = port.recv().unwrap().take_ports().unwrap();
        expect_entangled(&left, &right);
    },
    |port: MessagePort| {
        let [left, right] = port.recv().unwrap().take_ports().unwrap();
        expect_bytes(&left, b"to the left");
        expect_bytes(&right, b"to the right");
        expect_entangled(&left, &right);
        port.post_bytes_with(b"", [left, right]).unwrap();
    },
);

// Posted before the move, in transit, and by the new holder: one queue in either direction.
fn keep_order_across_owners(port: &MessagePort, channel: MessageChannel) {
    let MessageChannel { port1: mine, port2: theirs } = channel;
    for number in 0..10u64 {
        mine.post_pod(&number).unwrap();
        theirs.post_pod(&number).unwrap();
    }
    for number in 0..5u64 {
        assert_eq!(theirs.recv().unwrap().pod::<u64>().unwrap(), &number);
    }
    port.post_bytes_with(b"", theirs).unwrap();
    // Nobody receives it before this word.
    for number in 10..20u64 {
        mine.post_pod(&number).unwrap();
    }
    port.post_bytes(b"now").unwrap();
    for number in 20..30u64 {
        mine.post_pod(&number).unwrap();
    }
    for number in 0..30u64 {
        assert_eq!(mine.recv().unwrap().pod::<u64>().unwrap(), &number);
    }
    expect_end(&mine, CloseReason::Closed);
}

fn go_on_in_order(port: MessagePort) {
    while let Ok(message) = port.recv() {
        assert_eq!(port.recv().unwrap().bytes(), b"now");
        let [theirs] = message.take_ports().unwrap();
        for number in 5..30u64 {
            assert_eq!(theirs.recv().unwrap().pod::<u64>().unwrap(), &number);
        }
        for number in 10..30u64 {
            theirs.post_pod(&number).unwrap();
        }
    }
}

conversation!(
    the_order_is_kept_across_owners,
    |port: MessagePort| {
        for _ in 0..50 {
            keep_order_across_owners(&port, MessageChannel::new().unwrap());
        }
    },
    go_on_in_order,
);

conversation!(
    the_order_is_kept_across_owners_who_are_strangers,
    Setup::new().untrusted(),
    |port: MessagePort| {
        for _ in 0..50 {
            keep_order_across_owners(&port, MessageChannel::untrusted().unwrap());
        }
    },
    go_on_in_order,
);

// Its other end closes before, or while, or after it moves: the queue, and then the end.
conversation!(
    a_port_whose_other_end_was_closed_moves,
    |port: MessagePort| {
        for when in 0..4 {
            let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
            let inner = MessageChannel::new().unwrap();
            mine.post_bytes(b"unread").unwrap();
            mine.post_bytes_with(b"with a port", inner.port1).unwrap();
            let mut mine = Some(mine);
            if when < 2 {
                mine = None;
            }
            if when == 1 {
                // It knows already.
                assert_eq!(theirs.peer_state(), PeerState::Closed(CloseReason::Closed));
                let closed = theirs.try_post_bytes(b"").unwrap_err();
                assert!(matches!(closed, PostError::Closed(CloseReason::Closed)), "{closed}");
            }
            port.post_bytes_with(b"", theirs).unwrap();
            if when == 2 {
                mine = None;
            }
            port.post_bytes(b"now").unwrap();
            expect_bytes(&port, b"taken");
            drop(mine);
            port.post_bytes(b"closed").unwrap();
            expect_bytes(&inner.port2, b"to the inside");
        }
    },
    |port: MessagePort| {
        while let Ok(message) = port.recv() {
            expect_bytes(&port, b"now");
            let [theirs] = message.take_ports().unwrap();
            port.post_bytes(b"taken").unwrap();
            expect_bytes(&port, b"closed");
            expect_bytes(&theirs, b"unread");
            assert_eq!(theirs.peer_state(), PeerState::Closed(CloseReason::Closed));
            let message = theirs.recv().unwrap();
            let [inner] = message.take_ports().unwrap();
            drop(message);
            expect_end(&theirs, CloseReason::Closed);
            inner.post_bytes(b"to the inside").unwrap();
        }
    },
);

const DEPTH: usize = 5;

// The innermost first: each waits in the queue of the one around it.
conversation!(
    ports_in_ports_in_ports,
    |port: MessagePort| {
        for innermost_is_closed in [false, true] {
            let (mut staying, mut around) = (Vec::new(), None);
            for depth in 0..DEPTH {
                let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
                stays.post_pod(&(depth as u64)).unwrap();
                if let Some(inner) = around.replace(goes) {
                    stays.post_bytes_with(b"inside", transfer![inner]).unwrap();
                }
                staying.push(stays);
            }
            if innermost_is_closed {
                drop(staying.remove(0));
            }
            port.post_bytes_with(b"outermost", around.unwrap()).unwrap();
            for stays in &staying {
                expect_bytes(stays, b"unpacked");
            }
        }
    },
    |port: MessagePort| {
        while let Ok(message) = port.recv() {
            let mut port = message.take_port().unwrap();
            for depth in (0..DEPTH).rev() {
                let outer = port.take().unwrap();
                assert_eq!(outer.recv().unwrap().pod::<u64>().unwrap(), &(depth as u64));
                if depth > 0 {
                    port = Some(take_port(&outer));
                }
                // The innermost may be closed.
                let posted = outer.post_bytes(b"unpacked");
                assert!(posted.is_ok() || depth == 0, "{posted:?}");
            }
        }
    },
);

// Lanes in both directions, several messages with ports unread, in an end that moves again and again.
conversation!(
    lanes_move_with_their_port,
    |port: MessagePort| {
        for used in 0..8 {
            let MessageChannel { port1: mine, port2: mut theirs } = MessageChannel::new().unwrap();
            let (kept, inside) = channels(6);
            for (number, kept) in (0u64..).zip(&kept) {
                kept.post_pod(&number).unwrap();
            }
            let mut inside = inside.into_iter();
            let mut put = |from: &MessagePort| from.post_bytes_with(b"", inside.next().unwrap());
            let mut taken = Vec::new();
            if used & 1 != 0 {
                // The lane to the one that moves is known there.
                put(&mine).unwrap();
                taken.push(take_port(&theirs));
            }
            if used & 2 != 0 {
                // The one that moves has made a lane, unread at the other end.
                put(&theirs).unwrap();
            }
            put(&mine).unwrap();
            put(&mine).unwrap();
            if used & 4 != 0 {
                theirs = moved(theirs);
                put(&mine).unwrap();
                theirs = moved(theirs);
            }
            port.post_bytes_with(b"", theirs).unwrap();
            put(&mine).unwrap();
            mine.post_bytes(b"last").unwrap();
            if used & 2 != 0 {
                taken.push(take_port(&mine));
            }
            // What the new holder posts comes over the same lane, or a first one.
            let came = take_port(&mine);
            expect_bytes(&came, b"from the new holder");
            let rest = mine.recv().unwrap();
            taken.extend(rest.take_all_ports().unwrap());
            assert_eq!(taken.len() + inside.len(), kept.len());
            for port in &taken {
                let number = *port.recv().unwrap().pod::<u64>().unwrap();
                expect_entangled(&kept[number as usize], port);
            }
        }
    },
    |port: MessagePort| {
        while let Ok(message) = port.recv() {
            let [theirs] = message.take_ports().unwrap();
            drop(message);
            let mut inside = Vec::new();
            loop {
                let message = theirs.recv().unwrap();
                match message.take_port().unwrap() {
                    Some(port) => inside.push(port),
                    None => break,
                }
            }
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            port1.post_bytes(b"from the new holder").unwrap();
            theirs.post_bytes_with(b"", port2).unwrap();
            theirs.post_bytes_with(b"rest", inside).unwrap();
        }
    },
);

#[test]
fn there_and_back_a_hundred_times() {
    with_watchdog(|| {
        let MessageChannel { port1: left, port2: right } = MessageChannel::new().unwrap();
        let MessageChannel { port1: mine, port2: mut theirs } = MessageChannel::new().unwrap();
        for number in 0..100u64 {
            mine.post_pod(&number).unwrap();
            let (from, to) = if number % 2 == 0 { (&left, &right) } else { (&right, &left) };
            from.post_bytes_with(b"", theirs).unwrap();
            theirs = take_port(to);
            assert_eq!(theirs.recv().unwrap().pod::<u64>().unwrap(), &number);
        }
        expect_entangled(&mine, &theirs);
    });
}

// ---- What stays ----

#[test]
fn a_closer_stays_behind_without_effect() {
    with_watchdog(|| {
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        let closers = [theirs.closer(), theirs.closer()];
        let theirs = moved(theirs);
        closers.iter().for_each(zeroport::Closer::close);
        expect_entangled(&mine, &theirs);
        // Its new ones do.
        theirs.closer().close();
        expect_end(&mine, CloseReason::Closed);
        expect_end(&theirs, CloseReason::Closed);
    });
}

#[test]
fn a_closer_of_a_port_that_stays_after_all_still_closes() {
    with_watchdog(|| {
        let MessageChannel { port1: carrier, port2: other } = MessageChannel::new().unwrap();
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        let closer = theirs.closer();
        drop(other);
        let refused = carrier.post_bytes_with(b"", theirs).unwrap_err();
        let theirs = refused.list.into_ports().remove(0);
        expect_entangled(&mine, &theirs);
        closer.close();
        expect_end(&theirs, CloseReason::Closed);
        expect_end(&mine, CloseReason::Closed);
    });
}

// A port that was split and joined has descriptors for its halves: they stay here.
alone!(the_kicks_of_a_joined_port_stay_here, || {
    let carrier = MessageChannel::new().unwrap();
    carrier.port1.post_bytes_with(b"", channels(1).1).unwrap();
    drop(take_port(&carrier.port2));
    let before = count_descriptors();
    let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
    let open = count_descriptors();
    let (sender, receiver) = theirs.split();
    assert_eq!(count_descriptors(), open + 2);
    let receiving = asleep(move || {
        assert_eq!(receiver.recv().unwrap().bytes(), b"woken");
        receiver
    });
    mine.post_bytes(b"woken").unwrap();
    let theirs = MessagePort::join(sender, receiving.join()).unwrap();
    carrier.port1.post_bytes_with(b"", theirs).unwrap();
    let theirs = take_port(&carrier.port2);
    // The segment has another descriptor there.
    assert_eq!(count_descriptors(), open + 1);
    expect_entangled(&mine, &theirs);
    let waiting = asleep(move || theirs.recv().map(|message| message.bytes().to_vec()));
    mine.post_bytes(b"woken there").unwrap();
    assert_eq!(waiting.join().unwrap(), b"woken there");
    drop(mine);
    assert_eq!(count_descriptors(), before);
});

// What was forgotten here is no burden there: room, ports, and the right to post.
#[test]
fn forgotten_messages_and_loans_stay_here() {
    let setup = Setup::new().capacity(4 << 10);
    with_watchdog(move || forget_and_move(setup.limit(0)));
    with_watchdog(move || forget_and_move(setup));
}

fn forget_and_move(setup: Setup) {
    let MessageChannel { port1: mine, port2: theirs } = setup.open();
    let (kept, inside) = channels(4);
    let mut inside = inside.into_iter();
    mine.post_bytes(&[1; 1000]).unwrap();
    mine.post_bytes_with(&[2; 500], inside.next().unwrap()).unwrap();
    mine.post_bytes_with(&[3; 500], inside.next().unwrap()).unwrap();
    mine.post_bytes_with(&[4; 20], inside.next().unwrap()).unwrap();
    mine.post_bytes_with(b"unread", inside.next().unwrap()).unwrap();
    for _ in 0..2 {
        std::mem::forget(theirs.recv().unwrap());
    }
    // One whose port was taken, with that before it, and one whose port lies on the lane.
    let message = theirs.recv().unwrap();
    let third = message.take_port().unwrap().unwrap();
    std::mem::forget(message);
    std::mem::forget(theirs.recv().unwrap());
    std::mem::forget(theirs.reserve(100).unwrap());
    assert!(matches!(theirs.try_post_bytes(b""), Err(PostError::Busy)));

    let theirs = moved(theirs);
    let message = theirs.recv().unwrap();
    assert_eq!(message.bytes(), b"unread");
    expect_entangled(&kept[3], &message.take_port().unwrap().unwrap());
    drop(message);
    expect_entangled(&kept[1], &third);
    expect_report(&kept[0], CloseReason::Lost);
    expect_report(&kept[2], CloseReason::Lost);
    // All of the room is there again.
    for number in 0..100 {
        let bytes = support::pattern(number, mine.max_in_ring());
        mine.try_post_bytes(&bytes).unwrap();
        assert_eq!(theirs.try_recv().unwrap().bytes(), bytes);
        theirs.post_bytes(b"not busy").unwrap();
        expect_bytes(&mine, b"not busy");
    }
}

// A port arrives with the default way of waiting: it sleeps, though its former holder had it spin.
#[test]
fn a_wait_strategy_stays_behind() {
    with_watchdog(|| {
        let MessageChannel { port1: _mine, port2: theirs } = MessageChannel::new().unwrap();
        theirs.set_wait_strategy(WaitStrategy::Spin);
        let soon = Duration::from_millis(20);
        assert_eq!(theirs.recv_timeout(soon).unwrap_err(), RecvError::Empty);
        assert_eq!(theirs.sleeps(), 0);
        let theirs = moved(theirs);
        assert_eq!(theirs.recv_timeout(soon).unwrap_err(), RecvError::Empty);
        assert!(theirs.sleeps() > 0);
    });
}

// A port whose receiving half was dropped is open still: ports are posted to it as other messages are, and
// end with it.
conversation!(
    ports_posted_to_half_a_port,
    |port: MessagePort| {
        let MessageChannel { port1: control, port2 } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"before", port2).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"half of me is gone");
        let MessageChannel { port1: after, port2 } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"after", port2).unwrap();
        assert_eq!(after.peer_state(), PeerState::Open);
        control.post_bytes(b"now go").unwrap();
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
        assert_eq!(after.recv().unwrap_err(), RecvError::Closed(CloseReason::Lost));
    },
    |port: MessagePort| {
        let control = take_port(&port);
        let (sender, receiver) = port.split();
        drop(receiver);
        sender.post_bytes(b"half of me is gone").unwrap();
        assert_eq!(control.recv().unwrap().bytes(), b"now go");
    },
);
