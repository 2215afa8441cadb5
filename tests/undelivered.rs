//! Ports in messages that nobody reads, or cannot be read: they are closed, to any depth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod support;

use std::os::unix::net::UnixStream;

use ends::{expect_end, expect_report};
use support::{
    Setup, alone, channels, conversation, count_descriptors, count_segment_mappings, wait_until,
    with_watchdog,
};
use zeroport::{
    CloseReason, DecodeError, MessageChannel, MessagePort, PeerState, RecvError, tag_of_name,
    transfer,
};

const DEPTH: usize = 6;

/// A port with a port in its queue, with a port in its queue, and so on; and the other ends of them all,
/// the innermost first.
fn nested() -> (MessagePort, Vec<MessagePort>) {
    let (mut staying, mut around) = (Vec::new(), None);
    for _ in 0..DEPTH {
        let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
        if let Some(inner) = around.replace(goes) {
            stays.post_bytes_with(b"inside", transfer![inner]).unwrap();
        }
        staying.push(stays);
    }
    (around.unwrap(), staying)
}

/// What the peer does with a message that has nested ports in it.
#[derive(Clone, Copy)]
enum Fate {
    /// It closes the port on which the message waits.
    Unread,
    /// It drops the message.
    Dropped,
    /// It takes the outermost port and drops that.
    Taken,
}

const FATES: [Fate; 3] = [Fate::Unread, Fate::Dropped, Fate::Taken];

conversation!(
    unread_ports_are_closed_to_any_depth,
    |port: MessagePort| {
        for fate in FATES {
            let MessageChannel { port1: carrier, port2: theirs } = MessageChannel::new().unwrap();
            let (outermost, mut staying) = nested();
            carrier.post_bytes_with(b"nested", transfer![outermost]).unwrap();
            port.post_bytes_with(b"", transfer![theirs]).unwrap();
            if let Fate::Taken = fate {
                expect_report(&staying.pop().unwrap(), CloseReason::Closed);
            }
            for stays in &staying {
                expect_end(stays, CloseReason::Lost);
            }
            expect_end(&carrier, CloseReason::Closed);
        }
    },
    |port: MessagePort| {
        for fate in FATES {
            let [carrier] = port.recv().unwrap().take_ports().unwrap();
            match fate {
                Fate::Unread => {}
                Fate::Dropped => drop(carrier.recv().unwrap()),
                Fate::Taken => drop(carrier.recv().unwrap().take_port().unwrap()),
            }
        }
    },
);

// A closer is at work while messages with ports wait, and the end is reported with the handle alive.
#[test]
fn a_reported_end_keeps_no_ports() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        // The lane is taken up.
        port1.post_bytes_with(b"", channels(1).1).unwrap();
        drop(port2.recv().unwrap().take_port().unwrap());
        let (outermost, staying) = nested();
        port1.post_bytes_with(b"nested", transfer![outermost]).unwrap();
        port2.closer().close();
        expect_end(&port2, CloseReason::Closed);
        for stays in &staying {
            expect_end(stays, CloseReason::Lost);
        }
        expect_end(&port1, CloseReason::Closed);
    });
}

// The peers of taken ports are told of their end when they are dropped, and not before (S-068).
conversation!(
    taken_ports_live_until_they_are_dropped,
    |port: MessagePort| {
        let (mine, theirs) = channels(2);
        port.post_bytes_with(b"", theirs).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"one is kept");
        expect_end(&mine[0], CloseReason::Closed);
        assert_eq!(mine[1].peer_state(), PeerState::Open);
        port.post_bytes(b"go on").unwrap();
        expect_end(&mine[1], CloseReason::Closed);
    },
    |port: MessagePort| {
        let [dropped, _kept] = port.recv().unwrap().take_ports().unwrap();
        drop(dropped);
        port.post_bytes(b"one is kept").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"go on");
    },
);

// Good, undecodable, good: the bad one costs itself, and the ports that came with it (S-121, S-122).
fn post_undecodable(port: &MessagePort) {
    let (mine, theirs) = channels(3);
    let mut theirs = theirs.into_iter();
    let mut next = || transfer![theirs.next().unwrap()];
    port.post_with(&"good".to_string(), next()).unwrap();
    let mut loan = port.reserve(8).unwrap();
    // A short string, and no UTF-8.
    loan.copy_from_slice(b"\xc3(\xff\xff\xff\xff\xff\xff");
    loan.publish_with(8, tag_of_name("string"), next()).unwrap();
    port.post_with(&"good".to_string(), next()).unwrap();
    expect_report(&mine[1], CloseReason::Lost);
    for number in [0, 2] {
        assert_eq!(mine[number].recv().unwrap().bytes(), b"taken");
    }
}

fn read_undecodable(port: MessagePort) {
    for number in 0..3 {
        let message = port.recv().unwrap();
        match message.get::<String>() {
            Ok(value) => {
                assert_eq!(value, "good");
                let theirs = message.take_port().unwrap().unwrap();
                theirs.post_bytes(b"taken").unwrap();
            }
            Err(DecodeError::Invalid(_)) => assert_eq!((number, message.port_count()), (1, 1)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(port.recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
}

conversation!(
    ports_of_an_undecodable_message_are_closed,
    |port: MessagePort| post_undecodable(&port),
    read_undecodable,
);

/// Two ports in each other's queues, and a third that waits there with them: its other end is told when
/// they are gone.
fn make_cycle(witness: MessagePort) {
    let MessageChannel { port1: left, port2: in_right } = MessageChannel::new().unwrap();
    let MessageChannel { port1: right, port2: in_left } = MessageChannel::new().unwrap();
    left.post_bytes_with(b"", transfer![witness]).unwrap();
    left.post_bytes_with(b"", transfer![in_left]).unwrap();
    right.post_bytes_with(b"", transfer![in_right]).unwrap();
}

/// The kernel looks for cycles when a Unix socket is closed.
fn expect_collected(witness: &MessagePort) {
    wait_until("the cycle is found", || {
        drop(UnixStream::pair().unwrap());
        witness.peer_state() == PeerState::Closed(CloseReason::Lost)
    });
    expect_end(witness, CloseReason::Lost);
}

alone!(a_cycle_is_found, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let before = (count_descriptors(), count_segment_mappings());
    make_cycle(port2);
    let MessageChannel { port1: another, port2 } = MessageChannel::new().unwrap();
    make_cycle(port2);
    expect_collected(&port1);
    expect_collected(&another);
    drop(another);
    // The line is gone with the end, and port2.
    assert_eq!((count_descriptors(), count_segment_mappings()), (before.0 - 2, before.1));
});

// No process is kept alive by a cycle, nor its memory after it.
conversation!(
    a_cycle_ends_with_its_process,
    Setup::new(),
    |port: MessagePort| {
        let MessageChannel { port1: witness, port2 } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"", transfer![port2]).unwrap();
        expect_report(&port, CloseReason::Closed);
        expect_collected(&witness);
    },
    |port: MessagePort| {
        let [witness] = port.recv().unwrap().take_ports().unwrap();
        make_cycle(witness);
    },
);
