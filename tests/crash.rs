//! A peer that is killed, stopped, or never comes: what it had published is delivered, then its death.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod ends;
mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ends::{expect_end, expect_report};
use rustix::process::Signal;
use support::{
    Peer, Setup, be_peer, doomed, in_thread, is_peer_of, pattern, test_name, wait_until,
    with_watchdog,
};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{CloseReason, MessagePort, PeerState, PostError, RecvError};

/// A peer that does nothing until it is killed.
fn wait_for_the_end(port: MessagePort) {
    port.post_bytes(b"here").expect("a host");
    let _ = port.recv();
}

/// The peer is there, and has nothing more to say.
fn expect_here(port: &MessagePort) {
    assert_eq!(port.recv().expect("the peer's word").bytes(), b"here");
    assert_eq!(port.try_recv().map(drop), Err(RecvError::Empty));
    assert_eq!(port.peer_state(), PeerState::Open);
}

/// S-070 for a reader that is already waiting when the peer is killed.
fn killed_while_waiting(port: MessagePort, mut peer: Peer) {
    expect_here(&port);
    let killer = in_thread("the killer", move || {
        peer.kill();
        peer.wait();
    });
    expect_end(&port, CloseReason::PeerDied);
    killer.join(Instant::now() + Duration::from_secs(60));
}

/// S-081: whatever is done to a port whose end was reported, the reason stays, on every verb.
fn closed_after_the_death(port: MessagePort, mut peer: Peer) {
    expect_here(&port);
    peer.kill();
    peer.wait();
    expect_end(&port, CloseReason::PeerDied);
    port.closer().close();
    expect_end(&port, CloseReason::PeerDied);
    assert_eq!(port.peer_state(), PeerState::Closed(CloseReason::PeerDied));
    let late = port.post_bytes(b"late");
    assert!(matches!(late, Err(PostError::Closed(CloseReason::PeerDied))), "{late:?}");
}

doomed!(the_reason_stays, Setup::new(), closed_after_the_death, wait_for_the_end);

doomed!(
    seen_by_a_spinning_reader,
    Setup::new().strategy(Spin),
    killed_while_waiting,
    wait_for_the_end
);
doomed!(seen_by_an_adaptive_reader, Setup::new(), killed_while_waiting, wait_for_the_end);
doomed!(
    seen_by_an_untrusting_reader,
    Setup::new().untrusted(),
    killed_while_waiting,
    wait_for_the_end
);

/// S-070 for a reader that certainly sleeps when the peer is killed.
#[test]
fn seen_by_a_sleeping_reader() {
    let test = test_name(concat!(module_path!(), "::seen_by_a_sleeping_reader"));
    let setup = Setup::new().strategy(Sleep);
    if is_peer_of(test) {
        be_peer(setup, wait_for_the_end);
    }
    let (port, mut peer) = Peer::spawn(test, setup);
    let (report, thread) = std::sync::mpsc::channel();
    let reader = in_thread("the reader", move || {
        expect_here(&port);
        report.send(rustix::thread::gettid()).unwrap();
        expect_end(&port, CloseReason::PeerDied);
    });
    let thread = thread.recv().unwrap();
    let task = format!("/proc/self/task/{}", thread.as_raw_nonzero());
    wait_until("the reader sleeps", || is_in_socket_call(&task));
    peer.kill();
    peer.wait();
    reader.join(Instant::now() + Duration::from_secs(60));
}

/// Whether a thread of ours is asleep in the kernel, and on a socket: it says so itself.
fn is_in_socket_call(task: &str) -> bool {
    let status = std::fs::read_to_string(format!("{task}/status")).expect("our own thread");
    let asleep = status.lines().any(|line| line.starts_with("State:\tS"));
    // Number of the call and its arguments, or `running`.
    let call = std::fs::read_to_string(format!("{task}/syscall")).unwrap_or_default();
    let number = call.split_whitespace().next().and_then(|number| number.parse::<i64>().ok());
    let calls = [libc::SYS_recvfrom, libc::SYS_poll, libc::SYS_ppoll];
    asleep && (call.is_empty() || number.is_some_and(|number| calls.contains(&number)))
}

// S-070 for a reader that polls and never waits.
doomed!(
    seen_by_a_polling_reader,
    |port, mut peer| {
        expect_here(&port);
        peer.kill();
        wait_until("the poller is told", || match port.try_recv() {
            Err(RecvError::Empty) => false,
            other => {
                assert_eq!(other.map(drop), Err(RecvError::Closed(CloseReason::PeerDied)));
                true
            }
        });
        expect_end(&port, CloseReason::PeerDied);
    },
    wait_for_the_end,
);

// S-079: whoever asks is told at once, though messages wait.
doomed!(
    seen_by_who_asks,
    |port, mut peer| {
        expect_here(&port);
        port.post_bytes(b"post as well").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"as well");
        peer.kill();
        peer.wait();
        assert_eq!(port.peer_state(), PeerState::Closed(CloseReason::PeerDied));
        assert_eq!(port.recv().unwrap().bytes(), b"and this");
        expect_end(&port, CloseReason::PeerDied);
    },
    |port| {
        port.post_bytes(b"here").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"post as well");
        port.post_all_bytes(["as well", "and this"]).unwrap();
        let _ = port.recv();
    },
);

/// S-070 for a poster that waits for room which nobody will make.
fn killed_while_full(port: MessagePort, mut peer: Peer) {
    expect_here(&port);
    while let Ok(()) = port.try_post_bytes(&[1; 500]) {}
    let killer = in_thread("the killer", move || {
        peer.kill();
        peer.wait();
    });
    match port.post_bytes(&[2; 500]) {
        Err(PostError::Closed(CloseReason::PeerDied)) => {}
        other => panic!("{other:?}"),
    }
    expect_end(&port, CloseReason::PeerDied);
    killer.join(Instant::now() + Duration::from_secs(60));
}

/// As [`wait_for_the_end`], but reads nothing.
fn read_nothing(port: MessagePort) {
    port.post_bytes(b"here").expect("a host");
    loop {
        std::thread::park();
    }
}

/// A ring that gets full.
const SMALL: Setup = Setup::new().capacity(4096).limit(0);
/// A queue that grows a few times, then gets full too.
const GROWING: Setup = Setup::new().capacity(4096).limit(64 << 10);
doomed!(seen_by_a_sleeping_poster, SMALL.strategy(Sleep), killed_while_full, read_nothing);
doomed!(seen_by_a_spinning_poster, SMALL.strategy(Spin), killed_while_full, read_nothing);
doomed!(seen_by_an_adaptive_poster, SMALL, killed_while_full, read_nothing);
doomed!(seen_at_the_limit_asleep, GROWING.strategy(Sleep), killed_while_full, read_nothing);
doomed!(seen_at_the_limit_spinning, GROWING.strategy(Spin), killed_while_full, read_nothing);
doomed!(seen_at_the_limit_untrusting, GROWING.untrusted(), killed_while_full, read_nothing);

// S-070 for a poster that never waits: told by the refusal that the ring is full, or sooner.
doomed!(
    seen_by_a_polling_poster,
    SMALL,
    |port, mut peer| {
        expect_here(&port);
        peer.kill();
        wait_until("the poster is told", || match port.try_post_bytes(&[1; 500]) {
            Ok(()) | Err(PostError::Full { .. }) => false,
            Err(PostError::Closed(reason)) => {
                assert_eq!(reason, CloseReason::PeerDied);
                true
            }
            Err(error) => panic!("{error}"),
        });
        expect_end(&port, CloseReason::PeerDied);
    },
    read_nothing,
);

// S-071: what was committed is delivered, what was only reserved is not, then the death.
doomed!(
    committed_messages_then_the_death,
    |port, mut peer| {
        wait_until("the peer has posted all", || port.peer_state() != PeerState::Open);
        peer.wait();
        for n in 0..100 {
            assert_eq!(port.recv().expect("a committed message").bytes(), pattern(n, 300));
        }
        expect_end(&port, CloseReason::PeerDied);
    },
    |port| {
        for n in 0..100 {
            port.post_bytes(&pattern(n, 300)).unwrap();
        }
        let mut loan = port.reserve(300).unwrap();
        loan.copy_from_slice(&pattern(100, 300));
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    },
);

/// Sizes of the messages of one stream: from nothing to `max`, most of them small.
fn len_of(n: u64, max: usize) -> usize {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let limit = if mixed.is_multiple_of(16) { max + 1 } else { 200 };
    (mixed / 16) as usize % limit
}

/// Two in three of the longer ones travel in a memory of their own.
fn longest(port: &MessagePort) -> usize {
    3 * port.max_in_ring()
}

fn post_for_ever(port: MessagePort) {
    let max = longest(&port);
    for n in 0.. {
        // By turns through the ways in which bytes come into the queue.
        let bytes = pattern(n, len_of(n, max));
        if n % 3 == 0 {
            let mut loan = port.reserve(bytes.len()).expect("room");
            loan.copy_from_slice(&bytes);
            loan.publish(bytes.len()).expect("a host");
        } else if n % 3 == 1 {
            port.post_all_bytes([bytes]).expect("a host");
        } else {
            port.post_bytes(&bytes).expect("a host");
        }
    }
}

/// S-072: killed anywhere in its stream. The reader gets whole messages without a gap, and then the
/// death; it is never stuck.
fn killed_in_mid_stream(test: &'static str, setup: Setup, rounds: u64) {
    if is_peer_of(test) {
        be_peer(setup, post_for_ever);
    }
    let mut received = 0;
    for round in 0..rounds {
        let (port, mut peer) = Peer::spawn(test, setup);
        let mut next = 0;
        // Begin to kill when the stream runs, after a different part of it each time.
        let kill_at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let end = loop {
            match port.recv() {
                Ok(message) => {
                    let len = len_of(next, longest(&port));
                    assert_eq!(message.bytes(), pattern(next, len), "message {next} is whole");
                }
                Err(end) => break end,
            }
            if next == kill_at {
                peer.kill();
            }
            next += 1;
        };
        assert_eq!(end, RecvError::Closed(CloseReason::PeerDied));
        assert!(next > kill_at);
        expect_end(&port, CloseReason::PeerDied);
        received += next;
    }
    println!("{received} messages in {rounds} rounds");
}

/// Rounds for each of the forms below: more than 500 in all.
fn rounds() -> u64 {
    if ends::long() { 2_000 } else { 200 }
}

#[test]
fn killed_at_any_point_adaptive() {
    let test = test_name(concat!(module_path!(), "::killed_at_any_point_adaptive"));
    if is_peer_of(test) {
        killed_in_mid_stream(test, Setup::new(), 0);
    }
    with_watchdog(move || killed_in_mid_stream(test, Setup::new(), rounds()));
}

#[test]
fn killed_at_any_point_in_a_small_ring() {
    let test = test_name(concat!(module_path!(), "::killed_at_any_point_in_a_small_ring"));
    if is_peer_of(test) {
        killed_in_mid_stream(test, SMALL, 0);
    }
    with_watchdog(move || killed_in_mid_stream(test, SMALL.strategy(Sleep), rounds()));
}

#[test]
fn killed_at_any_point_while_the_queue_grows() {
    let test = test_name(concat!(module_path!(), "::killed_at_any_point_while_the_queue_grows"));
    if is_peer_of(test) {
        killed_in_mid_stream(test, GROWING, 0);
    }
    with_watchdog(move || killed_in_mid_stream(test, GROWING.strategy(Sleep), rounds()));
}

#[test]
fn killed_at_any_point_untrusted() {
    let test = test_name(concat!(module_path!(), "::killed_at_any_point_untrusted"));
    if is_peer_of(test) {
        killed_in_mid_stream(test, Setup::new(), 0);
    }
    with_watchdog(move || killed_in_mid_stream(test, Setup::new().untrusted(), rounds()));
}

// S-061: an explicit close, the exit and a kill, all at once: one end, of one of the two reasons that
// are true, and it stays that one.
#[test]
fn close_against_kill() {
    let test = test_name(concat!(module_path!(), "::close_against_kill"));
    if is_peer_of(test) {
        be_peer(Setup::new(), |port| {
            let closer = port.closer();
            port.post_bytes(b"last").unwrap();
            closer.close();
            drop(port);
        });
    }
    with_watchdog(move || {
        let mut closed = 0;
        for round in 0..200u32 {
            let (port, mut peer) = Peer::spawn(test, Setup::new());
            assert_eq!(port.recv().unwrap().bytes(), b"last");
            for _ in 0..round % 20 * 100 {
                std::hint::spin_loop();
            }
            peer.kill();
            let Err(RecvError::Closed(reason)) = port.recv().map(drop) else {
                panic!("no second message was posted");
            };
            assert!(matches!(reason, CloseReason::Closed | CloseReason::PeerDied), "{reason}");
            closed += u32::from(reason == CloseReason::Closed);
            expect_end(&port, reason);
            peer.wait();
            expect_end(&port, reason);
        }
        println!("{closed} of 200 peers had closed before they were killed");
    });
}

/// S-073: a stopped process is not a dead one.
#[test]
fn stopped_is_not_dead() {
    let test = test_name(concat!(module_path!(), "::stopped_is_not_dead"));
    if is_peer_of(test) {
        be_peer(Setup::new(), |port| {
            while let Ok(message) = port.recv() {
                port.post_bytes(message.bytes()).unwrap();
            }
        });
    }
    let stop = Duration::from_millis(if ends::long() { 10_000 } else { 600 });
    with_watchdog(move || {
        for strategy in [Adaptive, Spin, Sleep] {
            let setup = Setup::new().strategy(strategy);
            let (port, mut peer) = Peer::spawn(test, setup);
            port.post_bytes(b"before").unwrap();
            assert_eq!(port.recv().unwrap().bytes(), b"before");

            peer.signal(Signal::STOP);
            wait_until("the peer is stopped", || state_of(&peer) == 'T');
            port.post_bytes(b"meanwhile").unwrap();
            let until = Instant::now() + stop;
            while Instant::now() < until {
                let waited = port.recv_timeout(stop / 10).map(|message| message.bytes().len());
                assert_eq!(waited, Err(RecvError::Empty));
                assert_eq!(port.peer_state(), PeerState::Open);
                assert_eq!(port.try_recv().map(drop), Err(RecvError::Empty));
            }
            assert_eq!(state_of(&peer), 'T', "stopped all the while");

            peer.signal(Signal::CONT);
            assert_eq!(port.recv().unwrap().bytes(), b"meanwhile");
            port.post_bytes(b"after").unwrap();
            assert_eq!(port.recv().unwrap().bytes(), b"after");
            port.close();
            peer.expect_done();
        }
    });
}

fn state_of(peer: &Peer) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", peer.child.id())).unwrap();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).expect("a state")
}

/// A child that ends without having taken its port: the port was lost on its way.
#[test]
fn never_taken_is_lost() {
    with_watchdog(|| {
        for strategy in [Spin, Adaptive, Sleep] {
            let options = Setup::new().strategy(strategy).options();
            let mut command = Command::new("cat");
            // It ends when its input does.
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            let (port, mut child) = options.spawn(command).unwrap();
            port.post_bytes(b"for nobody").unwrap();
            assert_eq!(port.try_recv().map(drop), Err(RecvError::Empty));
            assert_eq!(port.peer_state(), PeerState::Open);
            drop(child.stdin.take());
            expect_report(&port, CloseReason::Lost);
            expect_end(&port, CloseReason::Lost);
            assert!(child.wait().unwrap().success());
        }
    });
}
