//! Members of a set that are paused: nothing of theirs is told, nothing is lost, and it costs nothing.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use support::{Setup, conversation, doomed, wait_until, with_watchdog};
use zeroport::{
    CloseReason, Event, MessageChannel, MessagePort, PeerState, PortSet, RecvError, WaitStrategy,
};

/// Two ends of a channel, of which the set has one.
fn member(set: &mut PortSet<u64>, key: u64) -> MessagePort {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    set.insert(key, port2).unwrap();
    port1
}

/// What is told now: numbers, and ends.
fn told(set: &mut PortSet<u64>) -> Vec<Result<u64, CloseReason>> {
    let told = set.poll().unwrap().map(|(_, event)| match event {
        Event::Message(_, message) => Ok(*message.pod::<u64>().unwrap()),
        Event::Closed(reason) => Err(reason),
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn is_readable(set: &PortSet<u64>) -> bool {
    let mut fds = [PollFd::new(set, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

/// Processor time of this thread.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nothing is told, and nobody works for it.
fn expect_idle(set: &mut PortSet<u64>) {
    let (start, worked_before, sleeps) = (Instant::now(), worked(), set.sleeps());
    let timeout = Duration::from_millis(100);
    assert!(set.wait_timeout(timeout).unwrap().next().is_none());
    assert!(start.elapsed() >= timeout);
    // A hang-up of a paused one may wake it once.
    assert!(set.sleeps() - sleeps <= 2, "{} sleeps", set.sleeps() - sleeps);
    assert!(worked() - worked_before < Duration::from_millis(20), "{:?}", worked());
    assert!(set.arm().unwrap() && !is_readable(set));
}

// From every state that a member can be in.
#[test]
fn nothing_of_a_paused_port_is_told() {
    for state in ["ready", "warm", "asleep"] {
        let mut set = PortSet::new().unwrap();
        let port = member(&mut set, 1);
        if state != "ready" {
            assert_eq!(told(&mut set), []);
        }
        if state == "asleep" {
            assert!(set.arm().unwrap());
        }
        for round in 0..3 {
            assert!(set.pause(&1) && set.pause(&1));
            let numbers = [2 * round, 2 * round + 1];
            port.post_all_pod(&numbers).unwrap();
            assert_eq!(told(&mut set), [], "{state}");
            expect_idle(&mut set);
            assert_eq!(set.get(&1).unwrap().peer_state(), PeerState::Open);
            assert!(set.resume(&1) && set.resume(&1));
            assert_eq!(told(&mut set), numbers.map(Ok), "{state}");
            assert_eq!(told(&mut set), []);
        }
    }
}

#[test]
fn who_is_not_there_cannot_be_paused() {
    let mut set = PortSet::new().unwrap();
    assert!(!set.pause(&1) && !set.resume(&1));
    member(&mut set, 1).close();
    assert_eq!(told(&mut set), [Err(CloseReason::Closed)]);
    assert!(!set.pause(&1) && !set.resume(&1));
    assert_eq!(told(&mut set), []);
}

// S-063, S-064: the end of a paused port waits behind its messages, and behind nothing else.
#[test]
fn the_end_of_a_paused_port() {
    with_watchdog(|| {
        for is_asleep in [false, true] {
            let mut set = PortSet::new().unwrap();
            let (empty, full) = (member(&mut set, 1), member(&mut set, 2));
            set.pause(&1);
            set.pause(&2);
            if is_asleep {
                assert_eq!(told(&mut set), []);
                assert!(set.arm().unwrap());
            }
            full.post_pod(&7u64).unwrap();
            drop((empty, full));
            assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Closed(_)))));
            assert_eq!(told(&mut set), []);
            expect_idle(&mut set);
            expect_idle(&mut set);
            set.resume(&2);
            assert_eq!(told(&mut set), [Ok(7), Err(CloseReason::Closed)]);
            assert_eq!(told(&mut set), []);
            assert!(set.is_empty());
        }
    });
}

// The same where the kernel tells of the death.
doomed!(
    a_killed_process_keeps_no_set_awake,
    |port, mut peer| {
        let mut set = PortSet::new().unwrap();
        set.insert(1, port).unwrap();
        set.pause(&1);
        assert!(!is_told_within(&mut set, Duration::from_millis(10)));
        set.get(&1).unwrap().post_bytes(b"post").unwrap();
        wait_until("a message is there", || {
            assert!(!is_told_within(&mut set, Duration::from_millis(1)));
            set.resume(&1);
            let is_there = told(&mut set) == [Ok(1)];
            set.pause(&1);
            is_there
        });
        set.get(&1).unwrap().post_bytes(b"once more").unwrap();
        // It posts, and kills itself.
        peer.wait();
        expect_idle(&mut set);
        expect_idle(&mut set);
        set.resume(&1);
        assert_eq!(told(&mut set), [Ok(2), Err(CloseReason::PeerDied)]);
    },
    |port| {
        for number in [1u64, 2] {
            drop(port.recv().unwrap());
            port.post_pod(&number).unwrap();
        }
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    }
);

fn is_told_within(set: &mut PortSet<u64>, time: Duration) -> bool {
    set.wait_timeout(time).unwrap().next().is_some()
}

// S-043: a closer is a hard stop, also where messages wait, and also when the line has said its last already.
#[test]
fn a_paused_port_that_is_closed_here_says_so() {
    for has_hung_up in [false, true] {
        let mut set = PortSet::new().unwrap();
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let closer = port2.closer();
        set.insert(1, port2).unwrap();
        set.pause(&1);
        // S-053: what waits goes with it.
        let MessageChannel { port1: inner, port2: gift } = MessageChannel::new().unwrap();
        port1.post_pod_with(&1u64, gift).unwrap();
        assert_eq!(told(&mut set), []);
        if has_hung_up {
            port1.close();
            expect_idle(&mut set);
        }
        assert!(set.arm().unwrap());
        closer.close();
        assert_eq!(told(&mut set), [Err(CloseReason::Closed)]);
        expect_idle(&mut set);
        assert!(set.is_empty());
        assert_eq!(inner.recv().unwrap_err(), RecvError::Closed(CloseReason::Lost));
    }
}

// Nothing of it can be told, so nobody spins for it.
#[test]
fn nobody_spins_for_a_paused_port() {
    with_watchdog(|| {
        let mut set = PortSet::new().unwrap();
        set.set_wait_strategy(WaitStrategy::Spin);
        let port = member(&mut set, 1);
        port.post_pod(&1u64).unwrap();
        assert_eq!(told(&mut set), [Ok(1)]);
        set.pause(&1);
        expect_idle(&mut set);
        // Nor when a message comes while the set spins for another one.
        let other = member(&mut set, 2);
        other.post_pod(&2u64).unwrap();
        assert_eq!(told(&mut set), [Ok(2)]);
        port.post_pod(&3u64).unwrap();
        let handle = set.handle();
        let pausing = std::thread::spawn(move || handle.pause(2));
        assert!(set.wait_timeout(Duration::from_millis(20)).unwrap().next().is_none());
        pausing.join().unwrap();
        expect_idle(&mut set);
    });
}

#[test]
fn a_paused_port_is_taken_out_with_what_waits() {
    let mut set = PortSet::new().unwrap();
    let port = member(&mut set, 1);
    set.pause(&1);
    port.post_pod(&1u64).unwrap();
    assert_eq!(told(&mut set), []);
    let out = set.remove(&1).unwrap();
    assert_eq!(out.recv().unwrap().pod::<u64>().unwrap(), &1);
    // It is not paused where it goes next, and it sleeps and wakes as ever.
    set.insert(1, out).unwrap();
    assert_eq!(told(&mut set), []);
    assert!(set.arm().unwrap());
    port.post_pod(&2u64).unwrap();
    assert!(is_readable(&set));
    assert_eq!(told(&mut set), [Ok(2)]);
}

#[test]
fn handles_pause_and_resume() {
    with_watchdog(|| {
        let mut set = PortSet::new().unwrap();
        let handle = set.handle();
        let port = member(&mut set, 1);
        handle.pause(1);
        assert_eq!(told(&mut set), []);
        port.post_pod(&1u64).unwrap();
        assert_eq!(told(&mut set), []);
        let resuming = std::thread::spawn(move || handle.resume(1));
        assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Message(..)))));
        resuming.join().unwrap();
    });
}

// The others are told meanwhile, and cost what they cost.
#[test]
fn others_go_on_beside_paused_ones() {
    let mut set = PortSet::new().unwrap();
    let paused: Vec<_> = (0..50).map(|key| member(&mut set, key)).collect();
    let port = member(&mut set, 50);
    for (key, paused) in paused.iter().enumerate() {
        set.pause(&(key as u64));
        paused.post_pod(&0u64).unwrap();
    }
    for round in 0..200u64 {
        port.post_pod(&round).unwrap();
        assert_eq!(told(&mut set), [Ok(round)]);
    }
    (0..50).for_each(|key| assert!(set.resume(&key)));
    let mut all = 0;
    while all < 50 {
        all += told(&mut set).len();
    }
    assert_eq!(all, 50);
}

const MESSAGES: u64 = 30_000;

/// Pauses and resumes at random while the peer posts as fast as it can.
fn read_with_pauses(port: MessagePort, strategy: WaitStrategy) {
    let mut set = PortSet::new().unwrap();
    set.set_wait_strategy(strategy);
    set.insert(1, port).unwrap();
    let (mut next, mut random, mut is_paused) = (0u64, 1u64, false);
    while !set.is_empty() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if random >> 61 == 0 {
            is_paused = !is_paused;
            assert!(if is_paused { set.pause(&1) } else { set.resume(&1) });
        }
        let most = (random >> 40) as usize % 70;
        let timeout = Duration::from_micros(if is_paused { 50 } else { 5_000 });
        for (_, event) in set.wait_timeout(timeout).unwrap().take(most) {
            match event {
                Event::Message(_, message) => {
                    assert!(!is_paused, "{next}");
                    assert_eq!(message.pod::<u64>().unwrap(), &next);
                    next += 1;
                }
                Event::Closed(reason) => assert_eq!(reason, CloseReason::Closed),
                other => panic!("{other:?}"),
            }
        }
        if is_paused && next == MESSAGES {
            set.resume(&1);
            is_paused = false;
        }
    }
    assert_eq!(next, MESSAGES);
}

macro_rules! with_pauses {
    ($name:ident, $setup:expr, $strategy:expr) => {
        conversation!(
            $name,
            $setup,
            |port: MessagePort| read_with_pauses(port, $strategy),
            |port: MessagePort| (0..MESSAGES).for_each(|number| port.post_pod(&number).unwrap())
        );
    };
}

mod nothing_is_lost_or_reordered {
    use super::*;
    with_pauses!(adaptive, Setup::new(), WaitStrategy::Adaptive);
    with_pauses!(sleep, Setup::new(), WaitStrategy::Sleep);
    with_pauses!(one_ring, Setup::new().capacity(4096).limit(0), WaitStrategy::Adaptive);
    with_pauses!(untrusted, Setup::new().untrusted(), WaitStrategy::Adaptive);
}
