//! Futures that are dropped before they are ready.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, poll_fn, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroport::{MessageChannel, MessagePort, PostError, WaitStrategy, transfer};

use super::{number, sleeping};
use crate::runtime::{block_on, sleep, spawn};
use crate::support::{Setup, channels, conversation, with_watchdog};

const CANCELS: u64 = 10_000;
const LITTLE: Setup = Setup::new().capacity(4096).limit(0);

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Polls a future once; drops it if it is not ready.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Lets others run once.
pub(super) async fn step_back() {
    let mut is_back = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_back, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Drops the future if it is not ready after some polls, or some time: in any of its states.
async fn sometimes<T>(random: &mut Random, future: impl Future<Output = T>) -> Option<T> {
    let steps = random.next() % 4;
    let until = async {
        if steps == 3 {
            sleep(Duration::from_micros(random.next() % 100)).await;
        }
        for _ in 0..steps {
            step_back().await;
        }
    };
    match select(pin!(future), pin!(until)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

// S-039: nothing is lost, nothing comes twice, all comes in order.
conversation!(
    receives_are_dropped_in_all_states,
    |port: MessagePort| block_on(async {
        let mut port = sleeping(port);
        let (mut random, mut cancels, mut next) = (Random(1), 0, 0);
        while cancels < CANCELS {
            let strategies = [WaitStrategy::Sleep, WaitStrategy::Adaptive, WaitStrategy::Spin];
            port.receiver.set_wait_strategy(strategies[cancels as usize % 3]);
            match sometimes(&mut random, port.receiver.recv()).await {
                None => cancels += 1,
                Some(message) => {
                    assert_eq!(number(message.unwrap().bytes()), next);
                    next += 1;
                }
            }
            // The other side posts none or some, now and a little later.
            if random.next().is_multiple_of(4) {
                port.sender.post_bytes(b"more").await.unwrap();
            }
        }
        assert!(next > CANCELS / 10, "only {next} messages");
    }),
    |port: MessagePort| {
        let (mut random, mut next) = (Random(2), 0u64);
        while let Ok(message) = port.recv() {
            drop(message);
            for _ in 0..random.next() % 4 {
                // Nothing is received any more when this end comes late.
                let _ = port.post_bytes(&next.to_ne_bytes());
                next += 1;
                for step in 0..random.next() % 20_000 {
                    std::hint::black_box(step);
                }
            }
        }
    }
);

// S-039 for posts: one that was dropped has posted nothing, so it is made again.
conversation!(
    posts_are_dropped_in_all_states,
    LITTLE,
    |port: MessagePort| block_on(async {
        let mut port = sleeping(port);
        let (mut random, mut cancels, mut next) = (Random(1), 0, 0u64);
        while cancels < CANCELS {
            let words = vec![next; 1 + random.next() as usize % 100];
            match sometimes(&mut random, port.sender.post_pod_slice(&words)).await {
                None => cancels += 1,
                Some(posted) => {
                    posted.unwrap();
                    next += 1;
                }
            }
        }
        port.sender.post_bytes(b"").await.unwrap();
        assert_eq!(port.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &next);
    }),
    |port: MessagePort| {
        let mut next = 0u64;
        loop {
            let message = port.recv().unwrap();
            if message.bytes().is_empty() {
                break;
            }
            assert!(message.pod_slice::<u64>().unwrap().iter().all(|word| *word == next));
            next += 1;
            for step in 0..next % 3_000 {
                std::hint::black_box(step);
            }
        }
        port.post_pod(&next).unwrap();
        assert!(port.recv().is_err());
    }
);

fn is_readable(fd: impl std::os::fd::AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

// A wait that was dropped is no wait: nobody is rung for.
#[test]
fn nobody_rings_for_a_future_that_was_dropped() {
    with_watchdog(|| {
        block_on(async {
            let MessageChannel { port1, port2 } = LITTLE.open();
            let mut port = sleeping(port2);
            for round in 0..10u64 {
                assert!(at_once(port.receiver.recv()).await.is_none());
                port1.post_pod(&round).unwrap();
                assert!(!is_readable(port.receiver.get_ref().pollable().unwrap()));
                assert_eq!(port.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &round);
            }
            // (At the end of a turn it is not ready either.)
            while port.sender.get_ref().try_post_bytes(&[0; 100]).is_ok() {}
            assert!(at_once(port.sender.post_bytes(&[0; 100])).await.is_none());
            while port1.try_recv().is_ok() {}
            assert!(!is_readable(port.sender.get_ref().pollable().unwrap()));
            // And then it is as it ever was.
            port.sender.post_bytes(b"after").await.unwrap();
            assert_eq!(port1.recv().unwrap().bytes(), b"after");
        });
    });
}

// A post that waits for room and is dropped, with ports: they are still the caller's.
#[test]
fn what_was_to_be_given_away_is_not_lost_with_its_future() {
    with_watchdog(|| {
        block_on(async {
            let MessageChannel { port1, port2 } = LITTLE.open();
            let mut port = sleeping(port1);
            while port.sender.get_ref().try_post_bytes(&[0; 100]).is_ok() {}
            let (mine, theirs) = channels(2);
            let mut list = theirs.into_iter().collect();
            assert!(at_once(port.sender.post_bytes_with(&[1; 100], &mut list)).await.is_none());
            assert_eq!(list.len(), 2);
            let reading = std::thread::spawn(move || {
                while port2.recv().unwrap().bytes()[0] == 0 {}
                port2
            });
            port.sender.post_bytes_with(&[1; 100], &mut list).await.unwrap();
            assert!(list.is_empty());
            let port2 = reading.join().unwrap();
            drop(port2);
            let refused = port.sender.post_bytes_with(b"", &mut transfer![]).await;
            assert!(matches!(refused, Err(PostError::Closed(_))));
            // Nobody has taken them.
            assert!(mine.iter().all(|port| port.recv().is_err()));
        });
    });
}

// The port of a task that is dropped while it waits goes on elsewhere.
#[test]
fn a_dropped_wait_leaves_a_port_that_works() {
    with_watchdog(|| {
        block_on(async {
            let MessageChannel { port1, port2 } = LITTLE.open();
            let (mut port1, mut port2) = (Some(port1), Some(port2));
            for round in 0..100u64 {
                let mut port = sleeping(port2.take().unwrap());
                assert!(at_once(port.receiver.recv()).await.is_none());
                while port.sender.get_ref().try_post_pod(&round).is_ok() {}
                assert!(at_once(port.sender.post_pod(&round)).await.is_none());
                let back = port.into_port().unwrap();
                let other = port1.take().unwrap();
                let answering = spawn(async move {
                    let mut other = sleeping(other);
                    while let Ok(message) = other.receiver.try_recv() {
                        assert_eq!(message.pod::<u64>().unwrap(), &round);
                    }
                    other.sender.post_pod(&round).await.unwrap();
                    other.into_port().unwrap()
                });
                assert_eq!(back.recv().unwrap().pod::<u64>().unwrap(), &round);
                (port1, port2) = (Some(answering.await), Some(back));
            }
        });
    });
}
