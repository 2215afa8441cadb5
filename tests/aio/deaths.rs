//! A process that dies while nobody waits: who waits next is told, whatever its runtime has heard meanwhile.

use std::task::Poll;

use futures_util::future::{poll_fn, poll_immediate};
use zeroport::{CloseReason, MessagePort, PostError, RecvError};

use super::sleeping;
use crate::runtime::block_on;
use crate::support::{Peer, Setup, doomed};

const LITTLE: Setup = Setup::new().capacity(4096).limit(0);
const DIED: RecvError = RecvError::Closed(CloseReason::PeerDied);

/// Posts one message when told to, and is no more.
fn post_and_die(port: MessagePort) {
    drop(port.recv().unwrap());
    port.post_bytes(b"the last").unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
}

/// Reads nothing until it is killed.
fn be_killed(port: MessagePort) {
    port.post_bytes(b"here").unwrap();
    loop {
        std::thread::park();
    }
}

// The bell and the end of the line come at the same time, as its task sees it.
doomed!(
    the_last_message_and_the_death_come_at_once,
    |port: MessagePort, mut peer: Peer| block_on(async {
        let mut port = sleeping(port);
        poll_fn(|cx| {
            assert!(port.receiver.poll_recv(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        port.sender.post_bytes(b"go").await.unwrap();
        // Nothing else runs in this thread until it is dead.
        peer.wait();
        assert_eq!(port.receiver.recv().await.unwrap().bytes(), b"the last");
        assert_eq!(port.receiver.recv().await.unwrap_err(), DIED);
    }),
    post_and_die
);

// The wait was given up before.
doomed!(
    a_death_between_two_waits_is_told,
    |port: MessagePort, mut peer: Peer| block_on(async {
        let mut port = sleeping(port);
        assert_eq!(port.receiver.recv().await.unwrap().bytes(), b"here");
        assert!(poll_immediate(port.receiver.recv()).await.is_none());
        peer.kill();
        peer.wait();
        // Its runtime hears of it before it is asked.
        crate::runtime::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(port.receiver.recv().await.unwrap_err(), DIED);
    }),
    be_killed
);

// The same for a wait for room.
doomed!(
    a_death_between_two_posts_is_told,
    LITTLE,
    |port: MessagePort, mut peer: Peer| block_on(async {
        let mut port = sleeping(port);
        assert_eq!(port.receiver.recv().await.unwrap().bytes(), b"here");
        while port.sender.get_ref().try_post_bytes(&[0; 100]).is_ok() {}
        assert!(poll_immediate(port.sender.post_bytes(&[0; 100])).await.is_none());
        peer.kill();
        peer.wait();
        crate::runtime::sleep(std::time::Duration::from_millis(5)).await;
        let refused = port.sender.post_bytes(&[0; 100]).await.unwrap_err();
        assert!(matches!(refused, PostError::Closed(CloseReason::PeerDied)), "{refused}");
    }),
    be_killed
);
