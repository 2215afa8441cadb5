//! Many ports, one wait: each message once with its key, each end once after it, nobody starved, nothing missed.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod bursts;
mod scarcity;
mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bursts::{answer_bursts_in_a_set, post_bursts, warm_up_poster, warm_up_reader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scarcity::Scarcity;
use support::{
    Setup, asleep, channels, conversation, count_descriptors, doomed, in_thread, with_watchdog,
};
use zeroport::{
    CloseReason, Event, InsertRefusal, MessageChannel, MessagePort, PeerState, PortSet,
    WaitStrategy,
};

const PORTS: u64 = 40;
const MESSAGES: u64 = 300;

fn number(message: &[u8]) -> u64 {
    u64::from_ne_bytes(message.try_into().expect("a number"))
}

/// Gives the peer one port each of so many channels, and takes the others into a set.
fn share(carrier: &MessagePort, strategy: WaitStrategy) -> PortSet<u64> {
    let mut set = PortSet::new().unwrap();
    set.set_wait_strategy(strategy);
    for key in 0..PORTS {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        set.insert(key, port1).unwrap();
        carrier.post_pod_with(&key, port2).unwrap();
    }
    set
}

fn take_all(carrier: &MessagePort) -> Vec<MessagePort> {
    (0..PORTS)
        .map(|key| {
            let message = carrier.recv().unwrap();
            assert_eq!(message.pod::<u64>().unwrap(), &key);
            let [port] = message.take_ports().unwrap();
            port
        })
        .collect()
}

/// Receives until all ports have ended: numbers from 0 on, in order, and then one end each.
fn receive_all(set: &mut PortSet<u64>, reason: CloseReason) -> HashMap<u64, u64> {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    let mut ended = Vec::new();
    while !set.is_empty() {
        for (key, event) in set.wait().unwrap() {
            assert!(!ended.contains(&key), "something after the end of {key}");
            match event {
                Event::Message(_, message) => {
                    let count = counts.entry(key).or_default();
                    assert_eq!(number(message.bytes()), *count, "in order");
                    *count += 1;
                }
                Event::Closed(found) => {
                    assert_eq!(found, reason);
                    ended.push(key);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ended.len() as u64, PORTS);
    counts
}

/// Nothing comes, not before the time is up; and nobody works for it.
fn expect_nothing(set: &mut PortSet<u64>) {
    let (start, timeout, sleeps) = (Instant::now(), Duration::from_millis(20), set.sleeps());
    assert!(set.wait_timeout(timeout).unwrap().next().is_none());
    assert!(start.elapsed() >= timeout);
    assert!(u128::from(set.sleeps() - sleeps) <= start.elapsed().as_millis() + 1);
}

/// Two ends of a channel, of which the set has one.
fn member(set: &mut PortSet<u64>, key: u64) -> MessagePort {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    set.insert(key, port2).unwrap();
    port1
}

macro_rules! each_strategy {
    ($name:ident, $host:expr, $peer:expr) => {
        mod $name {
            use super::*;
            conversation!(adaptive, |port| $host(port, WaitStrategy::Adaptive), $peer);
            conversation!(spin, |port| $host(port, WaitStrategy::Spin), $peer);
            conversation!(sleep, |port| $host(port, WaitStrategy::Sleep), $peer);
        }
    };
}

// S-040, S-041, S-062: from many ports, by turns; then the ends.
each_strategy!(
    all_messages_and_all_ends,
    |carrier: MessagePort, strategy| {
        let mut set = share(&carrier, strategy);
        let counts = receive_all(&mut set, CloseReason::Closed);
        assert!((0..PORTS).all(|key| counts[&key] == MESSAGES));
        expect_nothing(&mut set);
    },
    |carrier: MessagePort| {
        let ports = take_all(&carrier);
        for n in 0..MESSAGES {
            ports.iter().for_each(|port| port.post_bytes(&n.to_ne_bytes()).unwrap());
        }
    }
);

// S-042: one after the other, each of which the set sleeps for.
each_strategy!(
    one_at_a_time,
    |carrier: MessagePort, strategy| {
        let mut set = share(&carrier, strategy);
        for round in 0..20 * PORTS {
            let key = round * 7 % PORTS;
            set.get(&key).unwrap().post_pod(&round).unwrap();
            let mut answers = Vec::new();
            while answers.is_empty() {
                for (key, event) in set.wait().unwrap() {
                    let Event::Message(_, message) = event else { panic!("{event:?}") };
                    answers.push((key, *message.pod::<u64>().unwrap()));
                }
            }
            assert_eq!(answers, [(key, round + 1)]);
        }
    },
    |carrier: MessagePort| {
        let mut set = PortSet::new().unwrap();
        for (key, port) in take_all(&carrier).into_iter().enumerate() {
            set.insert(key, port).unwrap();
        }
        while !set.is_empty() {
            for (_, event) in set.wait().unwrap() {
                if let Event::Message(sender, message) = event {
                    sender.post_pod(&(message.pod::<u64>().unwrap() + 1)).unwrap();
                }
            }
        }
    }
);

// S-070, S-071: a process with many ports is killed.
doomed!(
    a_killed_process_ends_all_its_ports_once,
    |carrier, mut peer| {
        let mut set = share(&carrier, WaitStrategy::Adaptive);
        assert_eq!(carrier.recv().unwrap().bytes(), b"all posted");
        let killing = in_thread("the killer", move || {
            peer.kill();
            peer.wait();
        });
        let counts = receive_all(&mut set, CloseReason::PeerDied);
        assert!((0..PORTS).all(|key| counts[&key] == 3));
        killing.join(Instant::now() + Duration::from_secs(30));
    },
    |carrier| {
        let ports = take_all(&carrier);
        for n in 0..3u64 {
            ports.iter().for_each(|port| port.post_bytes(&n.to_ne_bytes()).unwrap());
        }
        carrier.post_bytes(b"all posted").unwrap();
        loop {
            std::thread::park();
        }
    }
);

// S-041, S-042: what was there before, the end too, is told at once.
#[test]
fn what_was_there_before_is_told() {
    let mut set = PortSet::new().unwrap();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(&0u64.to_ne_bytes()).unwrap();
    port1.close();
    set.insert(5u64, port2).unwrap();
    let told: Vec<_> =
        set.wait().unwrap().map(|(key, event)| (key, format!("{event:?}"))).collect();
    assert!(told[0].1.starts_with("Message"), "{told:?}");
    assert_eq!(told[1], (5, "Closed(Closed)".to_string()));
    assert_eq!((told.len(), set.len()), (2, 0));
    assert!(set.get(&5).is_none());
    expect_nothing(&mut set);
}

// S-028: a busy port does not keep the others waiting.
#[test]
fn a_turn_gives_each_port_its_share() {
    let mut set = PortSet::new().unwrap();
    set.set_batch(4);
    let peers: Vec<_> = (0..3u64)
        .map(|key| {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            set.insert(key, port2).unwrap();
            port1
        })
        .collect();
    (0..100).for_each(|_| peers[0].post_bytes(b"busy").unwrap());
    peers[1].post_bytes(b"one").unwrap();
    (0..5).for_each(|_| peers[2].post_bytes(b"some").unwrap());
    let keys =
        |set: &mut PortSet<u64>| -> Vec<u64> { set.poll().unwrap().map(|(key, _)| key).collect() };
    assert_eq!(keys(&mut set), [0, 0, 0, 0, 1, 2, 2, 2, 2]);
    assert_eq!(keys(&mut set), [0, 0, 0, 0, 2]);
    // What is not taken comes later.
    assert_eq!(set.poll().unwrap().take(2).count(), 2);
    assert_eq!(keys(&mut set).len(), 4);
    drop(peers);
}

// Others are asked about also where each turn takes long.
#[test]
fn a_slow_turn_does_not_hide_the_others() {
    let mut set = PortSet::new().unwrap();
    set.set_batch(1);
    let (busy, quiet) = (member(&mut set, 0), member(&mut set, 1));
    assert!(set.poll().unwrap().next().is_none());
    assert!(set.arm().unwrap());
    (0..20).for_each(|_| busy.post_bytes(b"busy").unwrap());
    assert!(matches!(set.wait().unwrap().next(), Some((0, Event::Message(..)))));
    quiet.post_bytes(b"quiet").unwrap();
    let is_told = (0..4).any(|_| {
        // What a user does with a message.
        std::thread::sleep(Duration::from_millis(1));
        set.wait().unwrap().any(|(key, _)| key == 1)
    });
    assert!(is_told);
}

#[test]
fn a_key_is_given_once() {
    let mut set = PortSet::new().unwrap();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    set.insert("one", port1).unwrap();
    let refused = set.insert("one", port2).unwrap_err();
    assert!(matches!(refused.source, InsertRefusal::Taken));
    let port2 = refused.into_port();
    set.insert("two", port2).unwrap();
    let port1 = set.remove(&"one").unwrap();
    assert!(set.remove(&"one").is_none());
    port1.post_bytes(b"over").unwrap();
    assert!(matches!(set.wait().unwrap().next(), Some(("two", Event::Message(..)))));
}

#[test]
fn the_key_of_a_port_whose_end_was_told_is_free() {
    let mut set = PortSet::new().unwrap();
    for round in 0..3 {
        let port = member(&mut set, 1);
        assert!(set.contains_key(&1) && set.keys().eq(&[1]));
        port.close();
        assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Closed(_)))));
        assert!(set.is_empty() && !set.contains_key(&1) && set.iter().next().is_none());
        if round > 0 {
            assert!(set.remove(&1).is_none(), "it has left");
        }
    }
}

// The descriptor of a line may have copies: with a former holder, say.
#[test]
fn nothing_comes_of_an_ended_line_that_somebody_keeps() {
    let mut set = PortSet::new().unwrap();
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let parts = port2.into_descriptors().unwrap();
    let _copies: Vec<_> = parts.descriptors.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let port2 = MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap();
    set.insert(1, port2).unwrap();
    port1.close();
    assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Closed(_)))));
    assert!(!is_readable(&set));
    expect_nothing(&mut set);
}

// What a member is lent for, between an `arm` and what it waits for, takes no bell from it.
#[test]
fn a_member_that_sleeps_is_woken_whatever_its_sender_does() {
    let mut set = PortSet::new().unwrap();
    let port = member(&mut set, 1);
    for round in 0..100u64 {
        assert!(set.poll().unwrap().next().is_none());
        assert!(set.arm().unwrap());
        let sender = set.get(&1).unwrap();
        sender.post_pod(&round).unwrap();
        assert_eq!(sender.peer_state(), PeerState::Open);
        assert!(!is_readable(&set));
        port.post_bytes(b"wake up").unwrap();
        assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &round);
        assert!(is_readable(&set));
        assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Message(..)))));
    }
}

// S-043: what was taken out says nothing more, and goes on outside.
#[test]
fn a_port_that_was_taken_out_goes_on() {
    with_watchdog(|| {
        let mut set = PortSet::new().unwrap();
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let mut port2 = Some(port2);
        for round in 0..100u64 {
            set.insert(0, port2.take().unwrap()).unwrap();
            // From every state.
            if round % 3 > 0 {
                assert!(set.poll().unwrap().next().is_none());
            }
            if round % 3 > 1 {
                assert!(set.arm().unwrap());
            }
            let taken = set.remove(&0).unwrap();
            port1.post_pod(&round).unwrap();
            assert!(set.poll().unwrap().next().is_none());
            assert_eq!(taken.recv().unwrap().pod::<u64>().unwrap(), &round);
            port2 = Some(taken);
        }
    });
}

// S-045 for a set: others join, leave and wake while a thread waits.
#[test]
fn handles_reach_a_set_that_sleeps() {
    with_watchdog(|| {
        let mut set = PortSet::new().unwrap();
        let (handle, waking) = (set.handle(), set.handle());
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let waiting = asleep(move || {
            let joined = match set.wait().unwrap().next() {
                Some((7, Event::Message(_, message))) => message.bytes().to_vec(),
                other => panic!("{other:?}"),
            };
            let removed = loop {
                match set.wait().unwrap().next() {
                    Some((7, Event::Removed(port))) => break port,
                    None => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(set.wait().unwrap().next().is_none(), "woken");
            (joined, removed)
        });
        port1.post_bytes(b"waits there").unwrap();
        handle.insert(7, port2).unwrap();
        waiting.wait_until_asleep();
        handle.remove(7);
        waiting.wait_until_asleep();
        waking.wake();
        let (joined, removed) = waiting.join();
        assert_eq!(joined, b"waits there");
        port1.post_bytes(b"outside").unwrap();
        assert_eq!(removed.recv().unwrap().bytes(), b"outside");
        // The set is gone.
        assert!(handle.insert(8, *removed).is_err());
    });
}

#[test]
fn a_poll_does_what_handles_ask_for() {
    let mut set = PortSet::new().unwrap();
    let handle = set.handle();
    let (mine, theirs) = channels(2);
    let [first, second] = theirs.try_into().unwrap();
    handle.insert(1, first).unwrap();
    mine[0].post_bytes(b"the first").unwrap();
    assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Message(..)))));
    handle.insert(1, second).unwrap();
    let second = match set.poll().unwrap().next() {
        Some((1, Event::Refused(refused))) => {
            assert!(matches!(refused.source, InsertRefusal::Taken));
            refused.into_port()
        }
        other => panic!("{other:?}"),
    };
    mine[1].post_bytes(b"as it was").unwrap();
    assert_eq!(second.recv().unwrap().bytes(), b"as it was");
    handle.remove(1);
    assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Removed(_)))));
    assert!(set.is_empty());
}

// A set without ports is armed, and waits, for its handles.
#[test]
fn handles_reach_an_empty_set() {
    let mut set: PortSet<u64> = PortSet::new().unwrap();
    let handle = set.handle();
    assert!(set.arm().unwrap() && !is_readable(&set));
    handle.wake();
    assert!(is_readable(&set));
    assert!(set.wait().unwrap().next().is_none());
    expect_nothing(&mut set);
}

// Polls count as waits: what they find nothing in falls asleep, and costs nothing more.
#[test]
fn who_only_polls_lets_ports_fall_asleep() {
    let mut set = PortSet::new().unwrap();
    let port = member(&mut set, 1);
    for _ in 0..20 {
        assert!(set.poll().unwrap().next().is_none());
    }
    assert!(!is_readable(&set));
    port.post_bytes(b"wake up").unwrap();
    assert!(is_readable(&set));
    assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Message(..)))));
}

// S-042: members that stream fall asleep, at the very moment when something comes.
each_strategy!(
    what_streams_falls_asleep_and_wakes,
    |port, strategy| {
        warm_up_reader(&port);
        answer_bursts_in_a_set(port, strategy);
    },
    |port| {
        warm_up_poster(&port);
        port.set_wait_strategy(WaitStrategy::Adaptive);
        post_bursts(&port, 2_000);
    }
);

// S-126 for a set: a lane's end that cannot be taken stays on the line, and hides what comes behind it.
support::alone!(a_line_that_is_blocked_keeps_nobody_awake, || {
    let mut set = PortSet::new().unwrap();
    let (blocked, other) = (member(&mut set, 1), member(&mut set, 2));
    let carrier = MessageChannel::new().unwrap();
    blocked.post_bytes_with(b"a port", channels(1).1).unwrap();
    carrier.port1.post_bytes_with(b"", blocked).unwrap();
    let scarcity = Scarcity::new(0);
    assert!(matches!(set.wait().unwrap().next(), Some((1, Event::Message(..)))));
    for strategy in [WaitStrategy::Sleep, WaitStrategy::Adaptive] {
        set.set_wait_strategy(strategy);
        expect_nothing(&mut set);
        other.post_bytes(b"all the same").unwrap();
        assert!(matches!(set.wait().unwrap().next(), Some((2, Event::Message(..)))));
    }
    // The port on its way is lost, which the line alone can tell. What that frees is used up before anybody waits.
    drop((carrier, scarcity));
    let scarcity = Scarcity::new(0);
    match set.wait_timeout(Duration::from_secs(30)).unwrap().next() {
        Some((1, Event::Closed(reason))) => assert_eq!(reason, CloseReason::Lost),
        other => panic!("{other:?}"),
    }
    expect_nothing(&mut set);
    drop(scarcity);
});

// A post that waits for room sleeps on the same line, and may take the bell that was for the set.
#[test]
fn a_bell_that_a_poster_took_is_passed_on() {
    with_watchdog(|| {
        for _ in 0..50 {
            let setup = Setup::new().capacity(4096).limit(0).strategy(WaitStrategy::Sleep);
            let MessageChannel { port1, port2 } = setup.open();
            let mut set = PortSet::new().unwrap();
            set.set_wait_strategy(WaitStrategy::Sleep);
            set.insert(1u64, port1).unwrap();
            while set.get(&1).unwrap().try_post_bytes(&[0; 1000]).is_ok() {}
            assert!(set.poll().unwrap().next().is_none());
            assert!(set.arm().unwrap());
            let posting = asleep(move || {
                let port = set.get(&1).unwrap();
                // A wait with a deadline takes what it hears off the line.
                port.post_bytes_timeout(&[1; 1000], Duration::from_secs(30)).unwrap(); // once there is room
                set
            });
            // The poster hears this bell.
            port2.post_bytes(b"for the set").unwrap();
            drop(port2.recv().unwrap());
            let mut set = posting.join();
            let event = set.wait().unwrap().next();
            assert!(matches!(event, Some((1, Event::Message(..)))), "{event:?}");
        }
    });
}

/// Whether the descriptor is readable now.
fn is_readable(set: &PortSet<u64>) -> bool {
    let mut fds = [PollFd::new(set, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

// S-047: also of what joins while the set is armed, or goes on.
#[test]
fn what_joins_an_armed_set_is_told() {
    let mut set = PortSet::new().unwrap();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(b"early").unwrap();
    assert!(set.arm().unwrap() && !is_readable(&set));
    set.insert(1, port2).unwrap();
    assert!(is_readable(&set));
    assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Message(..)))));

    assert!(set.pause(&1));
    port1.post_bytes(b"while it was paused").unwrap();
    assert!(set.poll().unwrap().next().is_none());
    assert!(set.arm().unwrap() && !is_readable(&set));
    assert!(set.resume(&1));
    assert!(is_readable(&set));
    assert!(matches!(set.poll().unwrap().next(), Some((1, Event::Message(..)))));
    assert!(set.poll().unwrap().next().is_none());
    assert!(set.arm().unwrap() && !is_readable(&set));
}

// S-047: for foreign loops.
conversation!(
    the_descriptor_tells,
    |port| {
        let mut set = PortSet::new().unwrap();
        set.insert(0u64, port).unwrap();
        for round in 0..200u64 {
            set.get(&0).unwrap().post_pod(&round).unwrap();
            let answer = loop {
                if set.arm().unwrap() {
                    poll(&mut [PollFd::new(&set, PollFlags::IN)], None).unwrap();
                    assert!(is_readable(&set), "as long as nobody looks");
                }
                if let Some((_, Event::Message(_, message))) = set.poll().unwrap().next() {
                    break *message.pod::<u64>().unwrap();
                }
            };
            assert_eq!(answer, round);
            assert!(set.poll().unwrap().next().is_none());
            if set.arm().unwrap() {
                assert!(!is_readable(&set), "drained");
            }
        }
    },
    |port| {
        for _ in 0..200 {
            let question = *port.recv().unwrap().pod::<u64>().unwrap();
            port.post_pod(&question).unwrap();
        }
        // Its end is for nobody.
        assert!(port.recv().is_err());
    },
);

fn fill_and_drop_a_set() {
    let mut set = PortSet::new().unwrap();
    let handle = set.handle();
    let mut peers = Vec::new();
    for key in 0..50u64 {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes(b"unread").unwrap();
        match key % 2 {
            0 => set.insert(key, port2).unwrap(),
            _ => handle.insert(key, port2).unwrap(),
        }
        peers.push(port1);
    }
    assert_eq!(set.poll().unwrap().take(10).count(), 10);
    drop(set);
    assert!(peers.iter().all(|port| port.recv().is_err()), "the set has closed its ports");
}

support::alone!(nothing_stays_of_a_set, || {
    // What a process has once is no leak.
    fill_and_drop_a_set();
    let before = count_descriptors();
    (0..20).for_each(|_| fill_and_drop_a_set());
    assert_eq!(count_descriptors(), before);
});
