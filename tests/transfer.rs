//! A port can be given away, with what waits in it, and its other end notices nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod support;

use ends::expect_end;
use support::{channels, conversation, expect_entangled, with_watchdog};
use zeroport::{CloseReason, MessageChannel, MessagePort, RecvError, transfer};

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
