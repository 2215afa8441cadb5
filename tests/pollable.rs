//! One port in a loop that is not ours: its descriptor tells, and misses nothing (S-042, S-047).
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod scarcity;
mod support;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Signal, getpid, kill_process};
use scarcity::Scarcity;
use support::{
    Peer, Setup, alone, channels, conversation, doomed, in_all_ways, wait_until, with_watchdog,
};
use zeroport::{
    CloseReason, MessageChannel, MessagePort, PostError, Receiver, RecvError, Sender, TransferList,
};

const LITTLE: Setup = Setup::new().capacity(4096).limit(0);
/// More than sixteen lanes hold.
const PORTS: u64 = 6_000;

/// Whether a descriptor is readable now.
fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

fn wait_for(fd: impl AsFd) {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
}

/// The next message's number, by the descriptor alone.
fn receive(receiver: &Receiver) -> Result<u64, RecvError> {
    loop {
        match receiver.try_recv() {
            Ok(message) => return Ok(*message.pod().unwrap()),
            Err(RecvError::Empty) => {}
            Err(end) => return Err(end),
        }
        if receiver.arm().unwrap() {
            wait_for(receiver.pollable().unwrap());
        }
    }
}

fn post(sender: &Sender, number: u64) -> Result<(), PostError> {
    let words = vec![number; 1 + number as usize % 200];
    while let Err(refused) = sender.post_or_arm(|sender| sender.try_post_pod_slice(&words)) {
        match refused {
            PostError::Full { .. } => wait_for(sender.pollable().unwrap()),
            refused => return Err(refused),
        }
    }
    Ok(())
}

// S-047: from the first message to the end.
in_all_ways!(
    the_descriptor_tells,
    |port: MessagePort| {
        let (sender, receiver) = port.split();
        for round in 0..500u64 {
            sender.post_pod(&round).unwrap();
            assert_eq!(receive(&receiver), Ok(round));
            // The bell of what came before may come late, once.
            let looks = (0..3)
                .find(|_| !receiver.arm().unwrap() || !is_readable(receiver.pollable().unwrap()));
            assert!(looks.is_some(), "drained");
        }
        sender.post_bytes(b"").unwrap();
        assert_eq!(receive(&receiver), Err(RecvError::Closed(CloseReason::Closed)));
        assert!(!receiver.arm().unwrap(), "there is nothing to wait for");
    },
    |port: MessagePort| {
        while let Ok(round) = port.recv().unwrap().pod::<u64>().copied() {
            port.post_pod(&round).unwrap();
        }
    }
);

#[test]
fn a_descriptor_stays_readable_until_somebody_looks() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    assert!(port2.arm().unwrap());
    port1.post_bytes(b"one").unwrap();
    port1.post_bytes(b"two").unwrap();
    for _ in 0..3 {
        assert!(is_readable(port2.pollable().unwrap()));
    }
    assert!(!port2.arm().unwrap(), "something is there");
    assert_eq!(port2.drain().count(), 2);
    assert!(port2.arm().unwrap() && !is_readable(port2.pollable().unwrap()));
    port1.close();
    assert!(is_readable(port2.pollable().unwrap()));
    assert!(!port2.arm().unwrap(), "the end is there");
    assert!(matches!(port2.try_recv(), Err(RecvError::Closed(CloseReason::Closed))));
    assert!(!is_readable(port2.pollable().unwrap()), "it was told");
}

#[test]
fn nobody_rings_for_who_was_disarmed() {
    let MessageChannel { port1, port2 } = LITTLE.open();
    let (sender, receiver) = port2.split();
    for _ in 0..3 {
        assert!(receiver.arm().unwrap());
        receiver.disarm();
        port1.post_bytes(b"quiet").unwrap();
        assert!(!is_readable(receiver.pollable().unwrap()));
        drop(receiver.try_recv().unwrap());

        let fill = || sender.post_or_arm(|sender| sender.try_post_bytes(&[0; 100]));
        while fill().is_ok() {}
        assert!(matches!(fill(), Err(PostError::Full { len: 100 })));
        sender.disarm();
        assert!(port1.drain().count() > 10);
        assert!(!is_readable(sender.pollable().unwrap()));
    }
}

// A bell has no address: who takes one that is for the other half wakes that one.
#[test]
fn a_bell_for_the_other_half_is_passed_on() {
    let MessageChannel { port1, port2 } = LITTLE.open();
    let (sender, receiver) = port2.split();
    let fill = || sender.post_or_arm(|sender| sender.try_post_bytes(&[0; 100]));
    for _ in 0..3 {
        while fill().is_ok() {}
        assert!(receiver.arm().unwrap());
        // Both wait. This is for the receiver, and the sender takes it.
        port1.post_bytes(b"for one").unwrap();
        assert!(fill().is_err());
        assert!(!is_readable(sender.pollable().unwrap()));
        assert!(is_readable(receiver.pollable().unwrap()));
        assert_eq!(receiver.try_recv().unwrap().bytes(), b"for one");
        assert!(receiver.arm().unwrap() && !is_readable(receiver.pollable().unwrap()));

        // And the other way round.
        assert!(port1.drain().count() > 10);
        assert!(receiver.arm().unwrap());
        assert!(!is_readable(receiver.pollable().unwrap()));
        assert!(is_readable(sender.pollable().unwrap()));
        assert!(fill().is_ok());
        receiver.disarm();
    }
}

#[test]
fn nobody_rings_for_a_half_that_is_gone() {
    let MessageChannel { port1, port2 } = LITTLE.open();
    let (sender, receiver) = port2.split();
    while sender.post_or_arm(|sender| sender.try_post_bytes(&[0; 100])).is_ok() {}
    assert!(receiver.arm().unwrap());
    drop(receiver);
    port1.post_bytes(b"unread").unwrap();
    assert!(!is_readable(sender.pollable().unwrap()));
    drop(port1.recv().unwrap());
    assert!(is_readable(sender.pollable().unwrap()), "there is room");
}

// S-042: both halves of both ports wait on their lines.
fn both_ways(port: MessagePort) {
    const COUNT: u64 = 10_000;
    let (sender, receiver) = port.split();
    let posting = std::thread::spawn(move || {
        (0..COUNT).for_each(|number| post(&sender, number).unwrap());
        sender
    });
    for number in 0..COUNT {
        let message = loop {
            match receiver.try_recv() {
                Ok(message) => break message,
                Err(RecvError::Empty) => {}
                Err(end) => panic!("{end}"),
            }
            if receiver.arm().unwrap() {
                wait_for(receiver.pollable().unwrap());
            }
        };
        let words = message.pod_slice::<u64>().unwrap();
        assert!(words.len() as u64 == 1 + number % 200 && words.iter().all(|word| *word == number));
        drop(message);
        for step in 0..(number % 64) * (number % 7) * 10 {
            std::hint::black_box(step);
        }
    }
    // Neither goes before the other has all.
    posting.join().unwrap().post_bytes(b"done").unwrap();
    assert_eq!(receiver.recv().unwrap().bytes(), b"done");
}
conversation!(both_halves_wait_in_loops, LITTLE, both_ways, both_ways);

// A copy of the line may be with a former holder.
#[test]
fn nothing_comes_of_an_ended_line_that_somebody_keeps() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let parts = port2.into_descriptors().unwrap();
    let _copies: Vec<_> = parts.descriptors.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let port2 = MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap();
    assert!(port2.arm().unwrap());
    port1.close();
    assert!(is_readable(port2.pollable().unwrap()));
    assert!(port2.try_recv().is_err());
    assert!(!is_readable(port2.pollable().unwrap()));
}

// A loop that asks only for what is new is told once of a bell and of the death behind it.
doomed!(
    a_death_behind_a_bell_is_not_missed,
    |port: MessagePort, mut peer: Peer| {
        let news = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&news, port.pollable().unwrap(), epoll::EventData::new_u64(0), flags).unwrap();
        assert!(port.arm().unwrap());
        port.post_bytes(b"go").unwrap();
        peer.wait();
        let mut told = [epoll::Event { flags, data: epoll::EventData::new_u64(0) }; 1];
        assert_eq!(epoll::wait(&news, &mut told, None), Ok(1));
        assert_eq!(port.try_recv().unwrap().bytes(), b"the last");
        assert!(!port.arm().unwrap(), "the end is there");
        assert!(matches!(port.try_recv(), Err(RecvError::Closed(CloseReason::PeerDied))));
    },
    |port: MessagePort| {
        assert_eq!(port.recv().unwrap().bytes(), b"go");
        port.post_bytes(b"the last").unwrap();
        kill_process(getpid(), Signal::KILL).unwrap();
    }
);

/// A port whose line has room for a few packets.
fn with_narrow_line(port: MessagePort) -> MessagePort {
    let parts = port.into_descriptors().unwrap();
    let narrowed = parts.descriptors.iter().filter(|fd| set_socket_send_buffer_size(fd, 0).is_ok());
    assert_eq!(narrowed.count(), 1, "the line is the only socket");
    MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap()
}

// Lanes' ends that have no room on the line: who takes one off it tells.
#[test]
fn posts_with_ports_wait_for_room_on_the_line() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
        let (sender, _receiver) = with_narrow_line(port1).split();
        let is_full = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&is_full);
        let posting = std::thread::spawn(move || {
            for number in 0..PORTS {
                let mut list: TransferList = MessageChannel::untrusted().unwrap().port1.into();
                while let Err(refused) = sender.post_or_arm(|sender| {
                    let posted = sender.try_post_pod_with(&number, std::mem::take(&mut list));
                    posted.map_err(|refused| {
                        list = refused.list;
                        refused.source
                    })
                }) {
                    assert!(matches!(refused, PostError::Full { .. }), "{refused}");
                    tells.store(true, Ordering::Relaxed);
                    wait_for(sender.pollable().unwrap());
                }
            }
        });
        wait_until("the line is full", || is_full.load(Ordering::Relaxed));
        for number in 0..PORTS {
            let message = port2.recv().unwrap();
            assert_eq!(message.pod::<u64>().unwrap(), &number);
            drop(message.take_port().unwrap());
        }
        posting.join().unwrap();
    });
}

// S-126: a lane's end that cannot be taken lies on the line; nobody works for it, and the end is told.
alone!(a_line_that_is_blocked_keeps_nobody_busy, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    assert!(port2.arm().unwrap());
    let scarcity = {
        let goes = channels(1).1;
        port1.post_bytes_with(b"a port", goes).unwrap();
        Scarcity::new(0)
    };
    assert_eq!(port2.try_recv().unwrap().bytes(), b"a port");
    let (start, mut looks) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_millis(50) {
        if port2.arm().unwrap() {
            wait_for(port2.pollable().unwrap());
        }
        assert!(matches!(port2.try_recv(), Err(RecvError::Empty)));
        looks += 1;
    }
    assert!(looks <= 100, "{looks} looks");
    port1.close();
    while let Err(RecvError::Empty) = port2.try_recv() {
        if port2.arm().unwrap() {
            wait_for(port2.pollable().unwrap());
        }
    }
    assert!(matches!(port2.try_recv(), Err(RecvError::Closed(CloseReason::Closed))));
    drop(scarcity);
});

// Without descriptors for it there is an error, and the port is as it was.
alone!(a_port_without_descriptors_to_spare_still_receives, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    for free in 0..3 {
        let scarcity = Scarcity::new(free);
        assert_eq!(port2.arm().unwrap_err().raw_os_error(), Some(libc::EMFILE));
        drop(scarcity);
        port1.post_bytes(b"all the same").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"all the same");
    }
    assert!(port2.arm().unwrap());
});
