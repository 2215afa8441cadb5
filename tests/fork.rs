//! fork without exec (S-149): the child's copies are useless and harmless, and hide nothing.
//!
//! Each test forks in a process of its own.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![allow(unsafe_code)]

mod ends;
mod support;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ends::expect_end;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, waitpid};
use support::{
    Setup, alone, be_peer, count_descriptors, is_peer_of, test_name, this_test, wait_until,
    with_watchdog,
};
use zeroport::{
    CloseReason, Event, EventLoop, InsertRefusal, LoopHandle, MessageChannel, MessagePort,
    PeerState, PortId, PortSet, PostError, RecvError, SetHandle, spawn,
};

/// Forks; the child runs `body` and ends.
fn fork(body: impl FnOnce()) -> Pid {
    // SAFETY: the child runs `body` on its only thread and then ends without any clean-up. glibc keeps
    // its allocator usable in such a child.
    match unsafe { libc::fork() } {
        0 => {
            let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        pid => Pid::from_raw(pid).expect("a child"),
    }
}

/// Waits for a forked child, which must not have failed.
fn expect_success(child: Pid) {
    let mut status = None;
    wait_until("the forked child has ended", || {
        status = waitpid(Some(child), WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().1.exit_status(), Some(0), "the forked child failed");
}

fn expect_open(port1: &MessagePort, port2: &MessagePort) {
    for (from, to) in [(port1, port2), (port2, port1)] {
        assert_eq!(to.peer_state(), PeerState::Open);
        from.post_bytes(b"as ever").unwrap();
        assert_eq!(to.recv().unwrap().bytes(), b"as ever");
    }
}

fn expect_detached(port: &MessagePort) {
    let short = Duration::from_millis(1);
    assert!(matches!(port.recv(), Err(RecvError::Detached)));
    assert!(matches!(port.try_recv(), Err(RecvError::Detached)));
    assert!(matches!(port.recv_timeout(short), Err(RecvError::Detached)));
    assert_eq!(port.drain().count(), 0);
    assert!(matches!(port.post_bytes(b"from a copy"), Err(PostError::Detached)));
    assert!(matches!(port.try_post_bytes(b"from a copy"), Err(PostError::Detached)));
    assert!(matches!(port.post(&7u32), Err(PostError::Detached)));
    assert!(matches!(
        port.post_all_bytes([b"from a copy"]).unwrap_err().source,
        PostError::Detached
    ));
    assert!(matches!(port.reserve(4), Err(PostError::Detached)));
    assert_ne!(port.peer_state(), PeerState::Open);
    port.closer().close();
}

// Use and drop of the copies: the parent's channel notices nothing.
alone!(copies_are_detached, || with_watchdog(|| {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(b"unread").unwrap();
    let child = fork(|| {
        expect_detached(&port1);
        expect_detached(&port2);
    });
    expect_success(child);
    assert_eq!(port2.recv().unwrap().bytes(), b"unread");
    expect_open(&port1, &port2);

    let mut ports = Some((port1, port2));
    let child = fork(|| drop(ports.take()));
    expect_success(child);
    let (port1, port2) = ports.unwrap();
    expect_open(&port1, &port2);

    let closer = port1.closer();
    let mut halves = Some(port1.split());
    let child = fork(|| {
        let (sender, receiver) = halves.take().unwrap();
        closer.close();
        assert!(matches!(sender.post_bytes(b"from a copy"), Err(PostError::Detached)));
        assert!(matches!(receiver.recv(), Err(RecvError::Detached)));
        sender.close();
        receiver.close();
    });
    expect_success(child);
    let (sender, receiver) = halves.unwrap();
    expect_open(&MessagePort::join(sender, receiver).unwrap(), &port2);
}));

// What was begun before the fork is the parent's to finish.
alone!(begun_before_the_fork, || with_watchdog(|| {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(b"held").unwrap();
    let mut message = Some(port2.recv().unwrap());
    let mut loan = Some(port1.reserve(4).unwrap());
    loan.as_mut().unwrap().copy_from_slice(b"loan");
    let child = fork(|| {
        // Its bytes are the parent's: there are none to read or write here.
        assert!(loan.as_mut().unwrap().is_empty());
        assert!(matches!(loan.take().unwrap().publish(0), Err(PostError::Detached)));
        assert_eq!(message.take().unwrap().bytes(), b"held");
    });
    expect_success(child);
    assert_eq!(port2.try_recv().map(drop), Err(RecvError::Empty));
    loan.unwrap().publish(4).unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"loan");
    assert_eq!(message.unwrap().bytes(), b"held");

    // A batch whose iterator forks: what was staged is the parent's to publish.
    let posted = port1.post_all_bytes((0..3u8).map(|n| {
        if n == 1 {
            let child = fork(|| expect_detached(&port1));
            expect_success(child);
            assert_eq!(port2.try_recv().map(drop), Err(RecvError::Empty));
        }
        [n]
    }));
    assert_eq!(posted.unwrap(), 3);
    for n in 0..3 {
        assert_eq!(port2.recv().unwrap().bytes(), [n]);
    }
}));

// A batch that goes on in the child, to its end, publishes nothing there.
alone!(a_batch_that_ends_in_both, || with_watchdog(|| {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut child = None;
    let posted = port1.post_all_bytes((0..3u8).map(|n| {
        if n == 1 {
            // SAFETY: as in `fork`; the child ends below.
            child = Pid::from_raw(unsafe { libc::fork() });
        }
        if n == 2
            && let Some(child) = child
        {
            expect_success(child);
            assert_eq!(port2.try_recv().map(drop), Err(RecvError::Empty));
        }
        [n]
    }));
    if child.is_none() {
        let refused = matches!(posted, Err(error) if matches!(error.source, PostError::Detached));
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!refused)) }
    }
    assert_eq!(posted.unwrap(), 3);
    for n in 0..3 {
        assert_eq!(port2.recv().unwrap().bytes(), [n]);
    }
}));

// The child may make channels of its own, and fork again.
alone!(the_child_has_channels_of_its_own, || with_watchdog(|| {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let child = fork(|| {
        let own = MessageChannel::new().unwrap();
        expect_open(&own.port1, &own.port2);
        expect_detached(&port1);
        let grandchild = fork(|| {
            expect_detached(&own.port1);
            expect_detached(&port2);
            let own = MessageChannel::new().unwrap();
            expect_open(&own.port1, &own.port2);
        });
        expect_success(grandchild);
        expect_open(&own.port1, &own.port2);
        drop(own.port1);
        expect_end(&own.port2, CloseReason::Closed);
    });
    expect_success(child);
    expect_open(&port1, &port2);
}));

fn expect_useless(mut set: PortSet<u8>, handle: &SetHandle<u8>) {
    const BADF: Option<i32> = Some(libc::EBADF);
    assert_eq!(set.poll().unwrap_err().raw_os_error(), BADF);
    assert_eq!(set.arm().unwrap_err().raw_os_error(), BADF);
    assert_eq!(set.wait_timeout(Duration::ZERO).unwrap_err().raw_os_error(), BADF);
    assert_eq!(set.wait().unwrap_err().raw_os_error(), BADF);
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let refused = set.insert(9, port1).unwrap_err();
    assert!(matches!(refused.source, InsertRefusal::Detached));
    let port1 = handle.insert(9, refused.into_port()).unwrap_err();
    handle.remove(1);
    handle.wake();
    expect_detached(&set.remove(&1).unwrap());
    drop(set);
    // The child may have a set of its own.
    let mut own = PortSet::new().unwrap();
    own.insert(1, port1).unwrap();
    port2.post_bytes(b"here").unwrap();
    assert!(matches!(own.wait().unwrap().next(), Some((1, Event::Message(..)))));
}

// What sleeps in a set is woken there, whatever the child does with the copy.
alone!(a_set_is_its_makers, || with_watchdog(|| {
    let mut set = PortSet::new().unwrap();
    let handle = set.handle();
    let (mut others, mut keys) = (Vec::new(), Vec::new());
    for key in 0..3u8 {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        set.insert(key, port1).unwrap();
        others.push(port2);
    }
    assert!(set.poll().unwrap().next().is_none());
    assert!(set.arm().unwrap());
    let mut set = Some(set);
    let child = fork(|| expect_useless(set.take().unwrap(), &handle));
    expect_success(child);
    let mut set = set.unwrap();
    let is_readable = |set: &PortSet<u8>| {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(set, PollFlags::IN)], Some(&now)).unwrap() > 0
    };
    assert!(!is_readable(&set), "nobody has rung");
    others.iter().for_each(|port| port.post_bytes(b"as ever").unwrap());
    assert!(is_readable(&set));
    while keys.len() < 3 {
        keys.extend(set.wait().unwrap().map(|(key, _)| key));
    }
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 2]);
    handle.remove(1);
    assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Removed(_)))));
}));

fn expect_loop_useless(events: &mut EventLoop<'_>, handle: &LoopHandle, port: PortId) {
    const BADF: Option<i32> = Some(libc::EBADF);
    events.listeners_of(port).on_message(|_, _| panic!("told in the child"));
    assert_eq!(events.run().unwrap_err().raw_os_error(), BADF);
    assert_eq!(events.run_ready().unwrap_err().raw_os_error(), BADF);
    assert_eq!(events.arm().unwrap_err().raw_os_error(), BADF);
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let port1 = events.insert(port1).unwrap_err().into_port();
    let port1 = handle.insert(port1, |_, _| ()).unwrap_err();
    assert!(handle.later(|_| ()).is_err());
    handle.wake();
    expect_detached(&events.remove(port).unwrap());
    // The child may have a loop of its own.
    let mut own = EventLoop::new().unwrap();
    let port1 = own.insert(port1).unwrap();
    own.listeners_of(port1).on_message(|turn, _| turn.stop());
    port2.post_bytes(b"here").unwrap();
    own.run().unwrap();
}

// The same for the loop that has the set.
alone!(a_loop_is_its_makers, || with_watchdog(|| {
    let mut events = EventLoop::new().unwrap();
    let handle = events.handle();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let port = events.insert(port2).unwrap();
    events.listeners_of(port).on_message(|turn, _| turn.stop());
    assert!(events.run_ready().unwrap() && events.arm().unwrap());
    expect_success(fork(|| expect_loop_useless(&mut events, &handle, port)));
    port1.post_bytes(b"as ever").unwrap();
    events.run().unwrap();
    assert!(handle.later(|events| events.stop()).is_ok());
    events.run().unwrap();
}));

// No line is left open in the child, so nothing of it outlives the parent there.
alone!(the_child_keeps_no_line, || with_watchdog(|| {
    let lines = || {
        let list = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = list.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let inherited = lines();
    let channels: Vec<_> = (0..20).map(|_| MessageChannel::new().unwrap()).collect();
    assert_eq!(lines(), inherited + 40);
    let mut channels = Some(channels);
    let child = fork(|| {
        assert_eq!(lines(), inherited);
        // Dropping the copies closes no number that somebody else has got meanwhile.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let before = count_descriptors();
        drop(channels.take());
        assert_eq!(lines(), inherited);
        assert!(count_descriptors() <= before);
        (&file).read_exact(&mut [0; 4]).unwrap();
    });
    expect_success(child);
    for MessageChannel { port1, port2 } in &channels.unwrap() {
        expect_open(port1, port2);
    }
}));

// The peer forks, its child lives on, and the peer's death is seen all the same.
#[test]
fn a_fork_does_not_hide_a_death() {
    let test = test_name(concat!(module_path!(), "::a_fork_does_not_hide_a_death"));
    if is_peer_of(test) {
        be_peer(Setup::new(), |port| {
            let child = fork(|| {
                // Until the host closes our input.
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
            });
            port.post_pod(&child.as_raw_nonzero().get()).unwrap();
            let _ = port.recv();
        });
    }
    with_watchdog(move || {
        let mut command = this_test(test);
        command.stdin(Stdio::piped());
        let (port, mut child) = spawn(command).unwrap();
        let input = child.stdin.take().unwrap();
        let forked = *port.recv().unwrap().pod::<i32>().unwrap();
        child.kill().unwrap();
        expect_end(&port, CloseReason::PeerDied);
        child.wait().unwrap();
        assert!(std::path::Path::new(&format!("/proc/{forked}/exe")).exists(), "it lives on");
        drop(input);
    });
}

// Forks at any moment of other threads' work with ports: no lock is left behind, nothing is lost.
alone!(forks_among_busy_threads, || with_watchdog(|| {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
                port1.close();
                expect_end(&port2, CloseReason::Closed);
            }
        });
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        scope.spawn(move || {
            for n in 0u64.. {
                if port1.post_bytes(&n.to_ne_bytes()).is_err() {
                    break;
                }
            }
        });
        let mut next = 0u64;
        for _ in 0..100 {
            let child = fork(|| {
                expect_detached(&port2);
                let own = MessageChannel::new().unwrap();
                expect_open(&own.port1, &own.port2);
            });
            for _ in 0..1_000 {
                assert_eq!(port2.recv().unwrap().bytes(), next.to_ne_bytes());
                next += 1;
            }
            expect_success(child);
        }
        drop(port2);
        stop.store(true, Ordering::Relaxed);
    });
}));
