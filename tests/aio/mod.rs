//! Futures that wait for messages and for room: the same bodies on each runtime (`crate::runtime`).

mod cancel;
mod deaths;
mod idle;
mod moves;
mod streams;

use std::future::Future;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use static_assertions::{assert_impl_all, assert_not_impl_any};
use zeroport::{AsyncMessage, CloseReason, MessageChannel, MessagePort, RecvError, WaitStrategy};

use crate::bursts::{self, warm_up_poster, warm_up_reader};
use crate::runtime::{AsyncPort, AsyncReceiver, AsyncSender, block_on, spawn};
use crate::support::{
    Setup, conversation, doomed, in_all_ways, in_thread, is_asleep, wait_until, with_watchdog,
};

assert_impl_all!(AsyncPort: Send, Unpin, std::fmt::Debug);
assert_impl_all!(AsyncSender: Send, Unpin, std::fmt::Debug);
assert_impl_all!(AsyncReceiver: Send, Unpin, std::fmt::Debug);
assert_not_impl_any!(AsyncPort: Sync, Clone);
assert_impl_all!(AsyncMessage<'static>: Send, std::fmt::Debug);
assert_not_impl_any!(AsyncMessage<'static>: Sync, Clone);

const ROUNDS: u64 = 2_000;

fn is_send<F: Future + Send>(future: F) -> F {
    future
}

/// One whose tasks are armed at once, where that is what a test is about.
fn sleeping(port: MessagePort) -> AsyncPort {
    port.set_wait_strategy(WaitStrategy::Sleep);
    AsyncPort::new(port)
}

fn number(message: &[u8]) -> u64 {
    u64::from_ne_bytes(message.try_into().expect("a number"))
}

/// Sends all back, with each message held until its answer is posted.
async fn echo(mut port: AsyncPort) -> RecvError {
    loop {
        match port.receiver.recv().await {
            Ok(message) => port.sender.post_bytes(message.bytes()).await.unwrap(),
            Err(end) => return end,
        }
    }
}

async fn ask(port: &mut AsyncPort, rounds: u64) {
    for round in 0..rounds {
        port.sender.post_bytes(&round.to_ne_bytes()).await.unwrap();
        let message = port.receiver.recv().await.unwrap();
        assert_eq!(number(message.bytes()), round);
    }
}

// S-038: one after the other, each of which somebody waits for.
in_all_ways!(
    round_trips,
    |port: MessagePort| block_on(async {
        let mut port = AsyncPort::new(port);
        ask(&mut port, ROUNDS).await;
    }),
    |port: MessagePort| {
        let end = block_on(async { spawn(is_send(echo(AsyncPort::new(port)))).await });
        assert_eq!(end, RecvError::Closed(CloseReason::Closed));
    }
);

// The other end is a thread that knows nothing of it.
conversation!(
    round_trips_with_a_thread,
    |port: MessagePort| block_on(async {
        ask(&mut AsyncPort::new(port), ROUNDS).await;
    }),
    |port: MessagePort| {
        for _ in 0..ROUNDS {
            let round = number(port.recv().unwrap().bytes());
            port.post_bytes(&round.to_ne_bytes()).unwrap();
        }
        assert!(port.recv().is_err());
    }
);

/// As [`bursts::answer_bursts`], in a task.
async fn answer_bursts(mut port: AsyncPort) {
    let mut sleeps = 0;
    loop {
        let Ok(message) = port.receiver.recv().await else { break };
        let words: &[u64] = bytemuck::cast_slice(message.bytes());
        assert!(words.iter().all(|word| *word == words[0]), "a torn message");
        let is_last = words[0] & bursts::LAST != 0;
        drop(message);
        let now = port.receiver.get_ref().sleeps();
        let slept = std::mem::replace(&mut sleeps, now) != now;
        if is_last {
            port.sender.post_bytes(&[u8::from(slept)]).await.unwrap();
        }
    }
    assert!(sleeps > 0, "never slept");
}

// S-042: a task that streams falls asleep, at the very moment when something comes.
conversation!(
    what_streams_falls_asleep_and_wakes,
    |port: MessagePort| {
        warm_up_reader(&port);
        block_on(async { spawn(answer_bursts(AsyncPort::new(port))).await });
    },
    |port: MessagePort| {
        warm_up_poster(&port);
        port.set_wait_strategy(WaitStrategy::Adaptive);
        bursts::post_bursts(&port, 2_000);
    }
);

/// As [`bursts::tell_the_moment`], in a task.
async fn tell_the_moment(mut port: AsyncPort, told: &AtomicU64) {
    let mut in_burst = 0;
    loop {
        let Ok(message) = port.receiver.recv().await else { break };
        let word = bytemuck::cast_slice::<u8, u64>(message.bytes())[0];
        drop(message);
        in_burst += 1;
        if word & bursts::LAST != 0 {
            in_burst = 0;
            port.sender.post_bytes(b"answer").await.unwrap();
        } else if in_burst == bursts::STREAM {
            told.store(word, Ordering::Relaxed);
        }
    }
}

// S-042: something comes at the very moment when a task stops streaming: it relies on its barrier.
#[test]
fn at_the_moment_of_falling_asleep() {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    crate::support::with_thread(
        Setup::new().capacity(256 << 10),
        |port| {
            warm_up_poster(&port);
            assert_ne!(bursts::is_registered(), Some(false));
            port.set_wait_strategy(WaitStrategy::Sleep);
            bursts::post_at_the_moment(&port, &TOLD, 30_000);
        },
        |port| {
            warm_up_reader(&port);
            block_on(tell_the_moment(sleeping(port), &TOLD));
        },
    );
}

const LITTLE: Setup = Setup::new().capacity(4096).limit(0);
const COUNT: u64 = 20_000;

/// Words of the longest message.
const LONG: u64 = 24 * 64 / 8;

async fn post_into_little_room(mut sender: AsyncSender, count: u64) -> AsyncSender {
    for n in 0..count {
        sender.post_pod_slice(&vec![n; 1 + (n % LONG) as usize]).await.unwrap();
    }
    sender
}

async fn read_from_little_room(mut receiver: AsyncReceiver, count: u64) -> AsyncReceiver {
    for n in 0..count {
        let message = receiver.recv().await.unwrap();
        let words = message.pod_slice::<u64>().unwrap();
        assert_eq!(words.len() as u64, 1 + n % LONG);
        assert!(words.iter().all(|word| *word == n), "a torn message");
        drop(message);
        for step in 0..(n % 64) * (n % 7) * 10 {
            black_box(step);
        }
    }
    receiver
}

/// Both halves at once, each in a task of its own; then the port is whole again.
fn both_halves(port: MessagePort, count: u64) {
    block_on(async {
        let AsyncPort { sender, receiver, .. } = AsyncPort::new(port);
        let posting = spawn(post_into_little_room(sender, count));
        let receiver = spawn(read_from_little_room(receiver, count)).await;
        let (sender, receiver) = (posting.await.into_inner(), receiver.into_inner());
        let port = MessagePort::join(sender, receiver).unwrap();
        // Neither goes before the other has all.
        port.post_bytes(b"done").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"done");
    });
}

// S-042: two sleepers on each line, one for messages and one for room, and every bell is for one of them.
conversation!(both_halves_wait, LITTLE, |port| both_halves(port, COUNT), |port| both_halves(
    port, COUNT
));
conversation!(
    both_halves_wait_for_threads,
    LITTLE,
    |port| both_halves(port, COUNT),
    |port: MessagePort| {
        let (sender, receiver) = port.split();
        let posting = std::thread::spawn(move || {
            bursts::post_into_little_room(&sender, COUNT);
            sender
        });
        bursts::read_from_little_room(&receiver, COUNT);
        assert_eq!(receiver.recv().unwrap().bytes(), b"done");
        posting.join().unwrap().post_bytes(b"done").unwrap();
        assert!(receiver.recv().is_err());
    }
);

// One half in a task, the other in a thread: they share a line.
#[test]
fn a_task_and_a_thread_share_a_port() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = LITTLE.open();
        let peer = in_thread("the peer", || both_halves(port2, COUNT));
        let (sender, receiver) = port1.split();
        let reading = std::thread::spawn(move || {
            bursts::read_from_little_room(&receiver, COUNT);
            assert_eq!(receiver.recv().unwrap().bytes(), b"done");
            receiver
        });
        block_on(async {
            let mut sender = post_into_little_room(AsyncSender::new(sender), COUNT).await;
            sender.post_bytes(b"done").await.unwrap();
        });
        assert!(reading.join().unwrap().recv().is_err());
        peer.join(Instant::now() + Duration::from_secs(30));
    });
}

// S-034, S-071: all messages of a process that is killed while a task waits, then its end, for ever.
doomed!(
    a_killed_process_ends_a_wait,
    |port: MessagePort, mut peer: crate::support::Peer| block_on(async {
        let mut port = AsyncPort::new(port);
        for n in 0..3u64 {
            assert_eq!(number(port.receiver.recv().await.unwrap().bytes()), n);
        }
        let waiter = rustix::thread::gettid();
        let killing = in_thread("the killer", move || {
            wait_until("the task waits", || is_asleep(waiter));
            peer.kill();
            peer.wait();
        });
        for _ in 0..3 {
            let end = port.receiver.recv().await.unwrap_err();
            assert_eq!(end, RecvError::Closed(CloseReason::PeerDied));
        }
        assert!(port.sender.post_bytes(b"to nobody").await.is_err());
        killing.join(Instant::now() + Duration::from_secs(30));
    }),
    |port: MessagePort| {
        (0..3u64).for_each(|n| port.post_bytes(&n.to_ne_bytes()).unwrap());
        loop {
            std::thread::park();
        }
    }
);

// The same for a post that waits for room.
doomed!(
    a_killed_process_ends_a_wait_for_room,
    LITTLE,
    |port: MessagePort, mut peer: crate::support::Peer| block_on(async {
        let mut port = AsyncPort::new(port);
        assert_eq!(port.receiver.recv().await.unwrap().bytes(), b"here");
        let waiter = rustix::thread::gettid();
        let killing = in_thread("the killer", move || {
            wait_until("the task waits", || is_asleep(waiter));
            peer.kill();
            peer.wait();
        });
        let refused = loop {
            if let Err(refused) = port.sender.post_bytes(&[0; 100]).await {
                break refused;
            }
        };
        assert!(matches!(refused, zeroport::PostError::Closed(CloseReason::PeerDied)), "{refused}");
        killing.join(Instant::now() + Duration::from_secs(30));
    }),
    |port: MessagePort| {
        port.post_bytes(b"here").unwrap();
        loop {
            std::thread::park();
        }
    }
);

// S-045: closed from another thread, by this side and by the other.
#[test]
fn a_closer_wakes_a_task() {
    with_watchdog(|| {
        block_on(async {
            for round in 0..20 {
                let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
                let (ours, theirs) = (port2.closer(), port1.closer());
                let waiting = spawn(echo(AsyncPort::new(port2)));
                let closing =
                    std::thread::spawn(
                        move || {
                            if round % 2 == 0 { ours.close() } else { theirs.close() }
                        },
                    );
                assert_eq!(waiting.await, RecvError::Closed(CloseReason::Closed));
                closing.join().unwrap();
                drop(port1);
            }
        });
    });
}

// S-031: what was there before, the end too, needs no wait.
#[test]
fn what_was_there_before_is_received() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes(&7u64.to_ne_bytes()).unwrap();
        port1.close();
        block_on(async {
            let mut port = AsyncPort::new(port2);
            assert_eq!(number(port.receiver.recv().await.unwrap().bytes()), 7);
            assert!(matches!(port.receiver.try_recv(), Err(RecvError::Closed(_))));
            assert!(port.receiver.recv().await.is_err());
        });
    });
}

// Payloads of all sizes, and what does not fit in the limit.
conversation!(
    large_payloads_wait_for_the_limit,
    Setup::new().capacity(4096).limit(1 << 20),
    |port: MessagePort| block_on(async {
        let mut port = AsyncPort::new(port);
        for n in 0..200u64 {
            let len = [10, 3_000, 100_000, 700_000][n as usize % 4];
            port.sender.post_bytes(&crate::support::pattern(n, len)).await.unwrap();
        }
        assert!(port.receiver.recv().await.is_err());
    }),
    |port: MessagePort| block_on(async {
        let mut port = AsyncPort::new(port);
        for n in 0..200u64 {
            let message = port.receiver.recv().await.unwrap();
            let len = [10, 3_000, 100_000, 700_000][n as usize % 4];
            assert!(message.bytes() == crate::support::pattern(n, len));
        }
    })
);
