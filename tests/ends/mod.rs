//! What is asserted of every port that has come to its end.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::time::Duration;

use zeroport::{CloseReason, MessagePort, PeerState, PostError, RecvError};

/// The end is reported by every verb, with this reason, and for ever.
pub(crate) fn expect_end(port: &MessagePort, reason: CloseReason) {
    expect_report(port, reason);
    for _ in 0..3 {
        assert_eq!(port.try_recv().map(drop), Err(RecvError::Closed(reason)));
        assert_eq!(port.recv().map(drop), Err(RecvError::Closed(reason)));
        let timeout = Duration::from_secs(60);
        assert_eq!(port.recv_timeout(timeout).map(drop), Err(RecvError::Closed(reason)));
        assert_eq!(port.drain().count(), 0);
        assert_eq!(port.peer_state(), PeerState::Closed(reason));
        expect_post_closed(port.try_post_bytes(b"late"), reason);
        expect_post_closed(port.post_bytes(b"late"), reason);
        expect_post_closed(port.post_bytes_timeout(b"late", timeout), reason);
        expect_post_closed(port.reserve(4).map(drop), reason);
    }
}

/// The next thing that the port receives is its end. Waits for it.
pub(crate) fn expect_report(port: &MessagePort, reason: CloseReason) {
    match port.recv() {
        Err(error) => assert_eq!(error, RecvError::Closed(reason)),
        Ok(message) => panic!("a message of {} bytes instead of the end", message.bytes().len()),
    }
}

pub(crate) fn expect_post_closed(posted: Result<(), PostError>, reason: CloseReason) {
    match posted {
        Err(PostError::Closed(found)) => assert_eq!(found, reason),
        other => panic!("{other:?} instead of Closed({reason:?})"),
    }
}

/// Whether the long forms of the tests are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("ZEROPORT_LONG").is_some()
}
