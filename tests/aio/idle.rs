//! What a task costs that has nothing to do, and what others get of one that always has.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use rustix::time::{ClockId, clock_gettime};
use zeroport::{MessageChannel, Reactor, WaitStrategy};

use super::{echo, sleeping};
use crate::runtime::{AsyncPort, block_on, sleep, spawn};
use crate::support::{Setup, alone, channels, count_descriptors, count_threads, with_watchdog};

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Fails if this process works although nothing happens.
async fn expect_idleness() {
    // What came before may not be over.
    sleep(Duration::from_millis(50)).await;
    let before = processor_time();
    sleep(Duration::from_millis(300)).await;
    let worked = processor_time() - before;
    assert!(worked < Duration::from_millis(20), "worked for {worked:?}");
}

alone!(tasks_that_wait_do_not_work, || block_on(async {
    let threads = count_threads();
    let (ports, peers) = channels(50);
    let waiting: Vec<_> = ports.into_iter().map(|port| spawn(echo(AsyncPort::new(port)))).collect();
    expect_idleness().await;
    // After some work, too.
    let mut peers: Vec<_> = peers.into_iter().map(AsyncPort::new).collect();
    for peer in &mut peers {
        super::ask(peer, 100).await;
    }
    expect_idleness().await;
    // The runtimes have threads of their own; of ours there are none.
    assert!(count_threads() <= threads + 2);
    drop(peers);
    for end in waiting {
        end.await;
    }
}));

// Nor do those that spin first, whichever way they were told to.
alone!(tasks_that_spin_sleep_in_the_end, || block_on(async {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Spin] {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let (port, mut peer) = (AsyncPort::new(port1), AsyncPort::new(port2));
        port.receiver.set_wait_strategy(strategy);
        peer.receiver.set_wait_strategy(strategy);
        let waiting = spawn(echo(port));
        super::ask(&mut peer, 1000).await;
        expect_idleness().await;
        drop(peer);
        waiting.await;
    }
}));

// Two that wait on one line do not wake each other for ever.
alone!(two_halves_that_wait_do_not_work, || block_on(async {
    let MessageChannel { port1, port2 } = Setup::new().capacity(4096).limit(0).open();
    let AsyncPort { mut sender, mut receiver, .. } = sleeping(port1);
    let posting = spawn(async move { while sender.post_bytes(&[0; 100]).await.is_ok() {} });
    let reading = spawn(async move { while receiver.recv().await.is_ok() {} });
    for round in 0..20 {
        if round % 2 == 0 {
            port2.post_bytes(b"for one").unwrap();
        } else {
            drop(port2.recv().unwrap());
        }
        sleep(Duration::from_millis(1)).await;
    }
    expect_idleness().await;
    drop(port2);
    posting.await;
    reading.await;
}));

// Memory that only a busy channel needs goes back although nobody asks for anything.
alone!(memory_of_a_burst_goes_back_while_a_task_waits, || block_on(async {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut port = AsyncPort::new(port2);
    (0..1000).for_each(|_| port1.post_bytes(&[7; 30_000]).unwrap());
    port1.post_bytes(&[7; 1 << 20]).unwrap();
    for _ in 0..1001 {
        drop(port.receiver.recv().await.unwrap());
    }
    // Some goes at once.
    assert!(poll_immediate(port.receiver.recv()).await.is_none());
    let before = memory_of_channels();
    let waiting = spawn(async move { port.receiver.recv().await.map(drop).map(|()| port) });
    assert!(before >= 1 << 20, "nothing to give back: {before}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while memory_of_channels() > before - (1 << 20) {
        assert!(Instant::now() < deadline, "{} of {before}", memory_of_channels());
        sleep(Duration::from_millis(10)).await;
    }
    // And that was all: the clock does not go on.
    expect_idleness().await;
    port1.post_bytes(b"and on").unwrap();
    drop(waiting.await.unwrap());
}));

/// Bytes of memory behind the channels of this process.
fn memory_of_channels() -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = descriptors.filter_map(|entry| {
        let path = entry.unwrap().path();
        let is_ours = std::fs::read_link(&path).ok()?.to_string_lossy().contains("memfd:zeroport");
        let file = std::fs::metadata(&path).ok().filter(|_| is_ours)?;
        Some((file.ino(), file.blocks() * 512))
    });
    files.collect::<BTreeMap<_, _>>().into_values().sum()
}

// S-028: a task that never has to wait lets others run.
#[test]
fn a_busy_task_lets_others_run() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        (0..1_000u64).for_each(|n| port1.post_pod(&n).unwrap());
        let mut port = AsyncPort::new(port2);
        let turns = Cell::new(0);
        let mut is_over = false;
        let busy = async {
            for n in 0..1_000u64 {
                assert_eq!(port.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &n);
            }
            let while_receiving = turns.get();
            for n in 0..1_000u64 {
                port.sender.post_pod(&n).await.unwrap();
            }
            (while_receiving, turns.get() - while_receiving)
        };
        let mut busy = pin!(busy);
        // Each time that this comes back without an end, others would have run.
        let (receiving, posting) = block_on(poll_fn(|cx| {
            assert!(!is_over);
            turns.set(turns.get() + 1);
            let polled = busy.as_mut().poll(cx);
            is_over = polled.is_ready();
            polled
        }));
        assert!((5..20).contains(&receiving), "{receiving} turns");
        assert!((5..20).contains(&posting), "{posting} turns");
    });
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A runtime that says "look" whenever it is asked.
struct Eager;

impl Reactor for Eager {
    fn watch(_: Arc<OwnedFd>) -> io::Result<Self> {
        Ok(Self)
    }

    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// Nor does a task that is ever told to look, and finds nothing, keep its thread.
#[test]
fn a_task_that_looks_for_nothing_lets_others_run() {
    with_watchdog(|| {
        let MessageChannel { port1, port2: _other } = Setup::new().capacity(4096).limit(0).open();
        let mut port = zeroport::AsyncPort::<Eager>::new(port1);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(port.receiver.poll_recv(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it goes on by itself");
        while port.sender.get_ref().try_post_bytes(&[0; 100]).is_ok() {}
        assert!(pin!(port.sender.post_bytes(&[0; 100])).poll(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 2, "it goes on by itself");
    });
}

async fn come_and_go() {
    let (ports, peers) = channels(10);
    let waiting: Vec<_> = ports.into_iter().map(|port| spawn(echo(AsyncPort::new(port)))).collect();
    for peer in peers {
        super::ask(&mut AsyncPort::new(peer), 3).await;
    }
    for end in waiting {
        end.await;
    }
}

alone!(nothing_stays_of_an_async_port, || block_on(async {
    come_and_go().await;
    let before = count_descriptors();
    for _ in 0..10 {
        come_and_go().await;
    }
    assert_eq!(count_descriptors(), before);
}));
