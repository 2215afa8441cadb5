//! Delivery: what is posted on one port is received on the other, whatever kind of payload it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::in_all_ways;
use zeroport::{CloseReason, MessagePort, RecvError};

in_all_ways!(bytes_arrive_as_posted, post_and_listen, answer);

fn post_and_listen(port: MessagePort) {
    port.post_bytes(b"hello").unwrap();
    assert_eq!(port.recv().unwrap().bytes(), b"HELLO");
    assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
}

fn answer(port: MessagePort) {
    let upper = port.recv().unwrap().bytes().to_ascii_uppercase();
    port.post_bytes(&upper).unwrap();
}
