//! Ports that others pass on: what a relay does after that, and whatever becomes of it, touches nobody;
//! and what is lost on the way is known at the other end, with the right reason.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod ends;
mod stations;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use ends::{expect_end, expect_report};
use rustix::process::Signal;
use stations::{
    Random, Ring, Station, counting, expect, introduce, join_ring, journey, obey, perilous, post,
    replacing,
};
use support::{Setup, asleep, count_descriptors, count_segment_mappings, wait_until};
use zeroport::{CloseReason, MessageChannel, MessagePort, PeerState, PostError, RecvError};

const UNTRUSTED: Setup = Setup::new().untrusted();

/// The two ends of a channel: one stays, one goes.
fn channel() -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
    (port1, port2)
}

// S-104: a chain of holders, each of which receives a little, posts a little, and passes on.
journey!(
    a_chain_of_owners,
    4,
    |stations: &mut Vec<Station>| {
        for setup in [Setup::new(), UNTRUSTED] {
            let MessageChannel { port1: fixed, port2: moving } = setup.open();
            let mut slot = stations[0].take(moving);
            for (at, station) in stations.iter().enumerate() {
                let at = at as u64;
                // What was posted while the one before had it, and what is posted now.
                if at > 0 {
                    station.expect(slot, 10 * at - 1);
                }
                post(&fixed, 10 * at);
                station.expect(slot, 10 * at);
                station.post(slot, 100 + at);
                expect(&fixed, 100 + at);
                station.post(slot, 200 + at);
                post(&fixed, 10 * at + 9);
                if let Some(next) = stations.get(at as usize + 1) {
                    let (here, there) = introduce(station, next, Setup::new());
                    station.give(here, at, &[slot]);
                    slot = next.receive_port(there, at);
                    station.close(here);
                    next.close(there);
                }
                expect(&fixed, 200 + at);
            }
            stations[3].expect(slot, 39);
            stations[3].close(slot);
            expect_end(&fixed, CloseReason::Closed);
        }
    },
    obey,
);

// S-107: a relay that passes a port on without reading: what waits goes on whole, ports and all.
journey!(
    a_relay_that_does_not_read,
    3,
    |stations: &mut Vec<Station>| {
        let (fixed, moving) = channel();
        let (inner, inside) = channel();
        for n in 0..100 {
            post(&fixed, n);
        }
        fixed.post_bytes_with(&100u64.to_ne_bytes(), inside).expect("a channel");
        let mut slot = stations[0].take(moving);
        for (station, next) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
            post(&inner, station as u64);
            let (here, there) = introduce(&stations[station], &stations[next], Setup::new());
            stations[station].give(here, 7, &[slot]);
            slot = stations[next].receive_port(there, 7);
        }
        for n in 0..100 {
            stations[1].expect(slot, n);
        }
        let inside = stations[1].receive_port(slot, 100);
        for n in [0, 1, 2, 0] {
            stations[1].expect(inside, n);
        }
        stations[1].post(inside, 1);
        expect(&inner, 1);
    },
    obey,
);

/// Brings one end of a channel through the first station, the relay, to the second; and lets another
/// one go the other way. Gives the host's port, and the slot of its other end at the second station.
fn relayed(stations: &[Station]) -> (MessagePort, u64) {
    let (fixed, moving) = channel();
    post(&fixed, 1);
    let slot = stations[0].take(moving);
    let (here, there) = introduce(&stations[0], &stations[1], Setup::new());
    stations[0].give(here, 7, &[slot]);
    let slot = stations[1].receive_port(there, 7);
    // Only now, so that the way of the port is not the way of its messages.
    stations[0].close(here);
    stations[1].expect(slot, 1);
    (fixed, slot)
}

fn converse(fixed: &MessagePort, station: &Station, slot: u64) {
    assert_eq!(fixed.peer_state(), PeerState::Open);
    for n in 0..100 {
        post(fixed, n);
        station.expect(slot, n);
        station.post(slot, n);
        expect(fixed, n);
    }
}

// S-108: the relay ends, in order or not.
journey!(
    a_relay_that_exits,
    2,
    |stations: &mut Vec<Station>| {
        let (fixed, slot) = relayed(stations);
        stations[0].exit();
        converse(&fixed, &stations[1], slot);
        stations[1].close(slot);
        expect_end(&fixed, CloseReason::Closed);
        stations.remove(0);
    },
    obey,
);
perilous!(
    a_relay_that_is_killed_afterwards,
    2,
    |stations: &mut Vec<Station>| {
        let (fixed, slot) = relayed(stations);
        stations[0].kill();
        converse(&fixed, &stations[1], slot);
        stations[1].kill();
        expect_end(&fixed, CloseReason::PeerDied);
    },
    obey,
);

// S-108 and S-115: the port lies in the queue of the next one when the relay is killed.
perilous!(
    a_relay_that_is_killed_after_its_post,
    2,
    |stations: &mut Vec<Station>| {
        let (fixed, moving) = channel();
        let slot = stations[0].take(moving);
        let (here, there) = introduce(&stations[0], &stations[1], Setup::new());
        stations[0].give(here, 7, &[slot]);
        stations[0].kill();
        post(&fixed, 1);
        let slot = stations[1].receive_port(there, 7);
        assert_eq!(stations[1].receive(there), Err(CloseReason::PeerDied));
        stations[1].expect(slot, 1);
        converse(&fixed, &stations[1], slot);
    },
    obey,
);

// S-110: the relay is stopped. Messages, wake-ups, ports, closes and deaths go past it.
perilous!(
    a_relay_that_is_stopped,
    2,
    |stations: &mut Vec<Station>| {
        let (fixed, slot) = relayed(stations);
        let (another, another_slot) = relayed(stations);
        let (third, third_slot) = relayed(stations);
        stations[0].peer().signal(Signal::STOP);
        converse(&fixed, &stations[1], slot);

        // Both sides sleep, and wake.
        stations[1].begin_receive(slot);
        wait_until("the station sleeps", || is_asleep(stations[1].peer().pid()));
        post(&fixed, 1);
        assert_eq!(stations[1].end_receive(), Ok((1, Vec::new())));
        let reader = asleep(move || {
            expect(&fixed, 2);
            fixed
        });
        stations[1].post(slot, 2);
        let fixed = reader.join();

        let (mine, theirs) = channel();
        fixed.post_bytes_with(&3u64.to_ne_bytes(), theirs).expect("a station");
        let theirs = stations[1].receive_port(slot, 3);
        converse(&mine, &stations[1], theirs);

        stations[1].close(slot);
        expect_end(&fixed, CloseReason::Closed);
        another.close();
        assert_eq!(stations[1].receive(another_slot), Err(CloseReason::Closed));
        stations[1].post(third_slot, 5);
        stations[1].kill();
        expect(&third, 5);
        expect_end(&third, CloseReason::PeerDied);
        stations[0].peer().signal(Signal::CONT);
    },
    obey,
);

/// Whether the only thread that a station works in sleeps in the kernel.
fn is_asleep(pid: rustix::process::Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks.map(|task| task.expect("a thread").path().join("stat")).all(|stat| {
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    })
}

// S-109: the relay is killed with the port in its hands or in its queue.

/// Where a port is when its relay is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a message that nobody has received.
    Unread,
    /// In a message on a port that lies in such a message.
    UnreadInUnread,
    /// In a message that was received, but not taken.
    Untaken,
    /// Taken.
    Held,
}

impl Place {
    /// Brings a port there. Gives the carriers on the way, and how they end.
    fn bring(self, port: MessagePort, relay: &Station) -> Vec<(MessagePort, CloseReason)> {
        let (carrier, there) = channel();
        if self == Self::UnreadInUnread {
            let (inner, moves) = channel();
            inner.post_bytes_with(b"", port).expect("a channel");
            carrier.post_bytes_with(b"", moves).expect("a channel");
            relay.take(there);
            return vec![(carrier, CloseReason::PeerDied), (inner, CloseReason::Lost)];
        }
        carrier.post_bytes_with(&1u64.to_ne_bytes(), port).expect("a channel");
        let there = relay.take(there);
        match self {
            Self::Untaken => relay.cling(there),
            Self::Held => drop(relay.receive_port(there, 1)),
            Self::Unread | Self::UnreadInUnread => {}
        }
        vec![(carrier, CloseReason::PeerDied)]
    }

    fn reason(self) -> CloseReason {
        if self == Self::Held { CloseReason::PeerDied } else { CloseReason::Lost }
    }
}

counting!(
    a_relay_that_is_killed_with_a_port,
    0,
    |test: &'static str, _: &mut Vec<Station>| {
        // Once for what a process opens with its first port.
        let mut before = None;
        for place in [Place::Unread, Place::UnreadInUnread, Place::Untaken, Place::Held] {
            let mut relay = Station::process(test);
            let (one, moves) = channel();
            post(&moves, 1);
            let carriers = place.bring(moves, &relay);
            assert_eq!(one.peer_state(), PeerState::Open, "{place:?}");
            let reader = asleep(move || {
                expect(&one, 1);
                expect_report(&one, place.reason());
                one
            });
            relay.kill();
            expect_end(&reader.join(), place.reason());
            for (carrier, reason) in carriers {
                expect_end(&carrier, reason);
            }
            drop(relay);
            let now = (count_descriptors(), count_segment_mappings());
            assert_eq!(*before.get_or_insert(now), now, "{place:?}");
        }
    },
    obey,
);

// S-096: a carrier whose reader was killed, with ports in its queue, takes no more, and says why.
perilous!(
    a_post_to_a_relay_that_was_killed,
    1,
    |stations: &mut Vec<Station>| {
        let (carrier, there) = channel();
        let (first, lost) = channel();
        let (second, stays) = channel();
        carrier.post_bytes_with(b"", lost).expect("a channel");
        stations[0].take(there);
        stations[0].kill();
        let error = carrier.post_bytes_with(b"", stays).unwrap_err();
        assert!(matches!(error.source, PostError::Closed(CloseReason::PeerDied)), "{error}");
        expect_end(&carrier, CloseReason::PeerDied);
        expect_end(&first, CloseReason::Lost);
        let stays = error.list.into_ports().remove(0);
        post(&stays, 1);
        expect(&second, 1);
    },
    obey,
);

// S-109: both ends were given away, and one is lost: the other learns it, where it is by then.
perilous!(
    a_relay_that_is_killed_with_one_end_of_two,
    3,
    |stations: &mut Vec<Station>| {
        let (one, other) = channel();
        let (carrier, unread) = channel();
        post(&one, 1);
        carrier.post_bytes_with(b"", one).expect("a channel");
        stations[0].take(unread);
        let slot = stations[1].take(other);
        let (here, there) = introduce(&stations[1], &stations[2], Setup::new());
        stations[1].give(here, 7, &[slot]);
        stations[0].kill();
        let slot = stations[2].receive_port(there, 7);
        stations[2].expect(slot, 1);
        assert_eq!(stations[2].receive(slot), Err(CloseReason::Lost));
        expect_end(&carrier, CloseReason::PeerDied);
    },
    obey,
);

// S-074, S-075: the other end goes while the port is on its way. Whoever takes it finds what waits in
// it, and then the end; and nobody else is told.

/// When the other end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeThePost,
    WhileUnread,
    OnceTaken,
}

/// Station 0 has the other end, and the host's port goes to station 1, and from there to station 2.
fn the_other_end_goes(
    stations: &mut [Station],
    reason: CloseReason,
    mut go: impl FnMut(&mut [Station], u64),
) {
    for when in [When::BeforeThePost, When::WhileUnread, When::OnceTaken] {
        for unread in [0, 3] {
            let (other, moving) = channel();
            let (carrier, there) = channel();
            let other = stations[0].take(other);
            let there = stations[1].take(there);
            for n in 0..unread {
                stations[0].post(other, n);
            }
            if when == When::BeforeThePost {
                go(stations, other);
            }
            carrier.post_bytes_with(&7u64.to_ne_bytes(), moving).expect("a station");
            if when == When::WhileUnread {
                go(stations, other);
            }
            let slot = stations[1].receive_port(there, 7);
            if when == When::OnceTaken {
                go(stations, other);
            }
            let (here, there) = introduce(&stations[1], &stations[2], Setup::new());
            stations[1].give(here, 8, &[slot]);
            let slot = stations[2].receive_port(there, 8);
            for n in 0..unread {
                stations[2].expect(slot, n);
            }
            for _ in 0..2 {
                assert_eq!(stations[2].receive(slot), Err(reason), "{when:?}, {unread} unread");
            }
            stations[2].close(slot);
            assert_eq!(carrier.peer_state(), PeerState::Open);
        }
    }
}

journey!(
    the_other_end_closes,
    3,
    |stations: &mut Vec<Station>| {
        the_other_end_goes(stations, CloseReason::Closed, |stations, other| {
            stations[0].close(other)
        });
    },
    obey,
);
// It was in a message that nobody has read when its carrier closed.
journey!(
    the_other_end_is_lost,
    3,
    |stations: &mut Vec<Station>| {
        the_other_end_goes(stations, CloseReason::Lost, |stations, other| {
            let (here, there) = introduce(&stations[0], &stations[2], Setup::new());
            stations[0].give(here, 9, &[other]);
            stations[2].close(there);
            stations[0].close(here);
        });
    },
    obey,
);
replacing!(
    the_other_end_dies,
    3,
    |test: &'static str, stations: &mut Vec<Station>| {
        the_other_end_goes(stations, CloseReason::PeerDied, |stations, _| {
            stations[0].kill();
            stations[0] = Station::process(test);
        });
    },
    obey,
);

// S-113: the port itself goes while it is on its way. What was posted on it is received, then the end.

/// Has a port of the host go to station 1, and `end` what becomes of it on a carrier between stations 0
/// and 1, whose slots it is told.
fn the_port_goes(
    stations: &mut [Station],
    reason: CloseReason,
    mut end: impl FnMut(&mut [Station], u64, u64),
) {
    for posts in [0, 3] {
        let (fixed, moving) = channel();
        let (here, there) = introduce(&stations[0], &stations[1], Setup::new());
        let slot = stations[0].take(moving);
        for n in 0..posts {
            stations[0].post(slot, n);
        }
        post(&fixed, 1);
        stations[0].give(here, 7, &[slot]);
        assert_eq!(fixed.peer_state(), PeerState::Open);
        post(&fixed, 2);
        end(stations, here, there);
        for n in 0..posts {
            expect(&fixed, n);
        }
        expect_end(&fixed, reason);
    }
}

journey!(
    the_carrier_closes_with_the_port_unread,
    2,
    |stations: &mut Vec<Station>| {
        the_port_goes(stations, CloseReason::Lost, |stations, _, there| stations[1].close(there));
    },
    obey,
);
journey!(
    the_carrier_closes_behind_the_port,
    2,
    |stations: &mut Vec<Station>| {
        the_port_goes(stations, CloseReason::Closed, |stations, here, there| {
            // What was posted before the close arrives, the port too.
            stations[0].close(here);
            let slot = stations[1].receive_port(there, 7);
            assert_eq!(stations[1].receive(there), Err(CloseReason::Closed));
            stations[1].expect(slot, 1);
            stations[1].expect(slot, 2);
            stations[1].close(slot);
        });
    },
    obey,
);
replacing!(
    the_next_holder_dies_before_it_reads,
    2,
    |test: &'static str, stations: &mut Vec<Station>| {
        the_port_goes(stations, CloseReason::Lost, |stations, _, _| {
            stations[1].kill();
            stations[1] = Station::process(test);
        });
    },
    obey,
);
replacing!(
    the_next_holder_dies_after_it_has_taken,
    2,
    |test: &'static str, stations: &mut Vec<Station>| {
        the_port_goes(stations, CloseReason::PeerDied, |stations, _, there| {
            let slot = stations[1].receive_port(there, 7);
            stations[1].expect(slot, 1);
            stations[1].kill();
            stations[1] = Station::process(test);
        });
    },
    obey,
);

// A ring of processes that pass ports on, and one of them is killed at some moment, again and again.

const PORTS: usize = 6;

/// What a station says at the end of a round.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Account {
    /// How the station before it ended, and the one after it: 0 for closed, 1 for died, 2 for not seen.
    before: u64,
    after: u64,
    /// Ports that it has closed, because there was nobody to pass them on to.
    closed: u64,
    descriptors: u64,
    mappings: u64,
}

const CLOSED: u64 = 0;
const DIED: u64 = 1;
const NOT_SEEN: u64 = 2;

fn account_of(reason: CloseReason) -> u64 {
    match reason {
        CloseReason::Closed => CLOSED,
        // Lost: it was killed before it had even taken its ports of the ring.
        CloseReason::PeerDied | CloseReason::Lost => DIED,
        other => panic!("{other:?}: nobody breaks the protocol"),
    }
}

/// Passes ports on until the ring ends, and gives an account of it; then again.
fn station_of_a_ring(host: MessagePort) {
    while let Some(ring) = join_ring(&host) {
        let mut account = pass_on(ring);
        account.descriptors = count_descriptors() as u64;
        account.mappings = count_segment_mappings() as u64;
        host.post_bytes(bytemuck::bytes_of(&account)).expect("a host");
    }
}

fn pass_on(ring: Ring) -> Account {
    let mut account =
        Account { before: NOT_SEEN, after: NOT_SEEN, closed: 0, descriptors: 0, mappings: 0 };
    let Ring { first, last } = ring;
    loop {
        let ports = match last.recv() {
            Ok(message) => message.take_all_ports().expect("ports"),
            Err(RecvError::Closed(reason)) => {
                account.before = account_of(reason);
                return account;
            }
            Err(error) => panic!("{error}"),
        };
        for port in &ports {
            // What its other end has posted, if anything, is answered on the way.
            if let Ok(message) = port.try_recv() {
                let _ = port.try_post_bytes(message.bytes());
            }
        }
        if let Err(error) = first.post_bytes_with(b"", ports) {
            match error.source {
                PostError::Closed(reason) => account.after = account_of(reason),
                other => panic!("{other}"),
            }
            account.closed += error.list.len() as u64;
        }
    }
}

counting!(
    a_ring_of_which_one_is_killed,
    4,
    |test: &'static str, stations: &mut Vec<Station>| {
        let mut random = Random(0x5eed);
        let rounds = if ends::long() { 3_000 } else { 60 };
        // What the first rounds leave behind (threads' stacks, caches) is there from then on.
        let mut counts: Vec<Option<(u64, u64)>> = vec![None; stations.len()];
        let mut own = None;
        for round in 0..rounds {
            let victim = random.below(stations.len() as u64) as usize;
            one_is_killed(stations, victim, &mut random, &mut counts);
            counts[victim] = None;
            stations[victim] = Station::process(test);
            let now = (count_descriptors(), count_segment_mappings());
            assert_eq!(*own.get_or_insert(now), now, "round {round}");
        }
    },
    station_of_a_ring,
);

fn one_is_killed(
    stations: &mut [Station],
    victim: usize,
    random: &mut Random,
    counts: &mut [Option<(u64, u64)>],
) {
    let fixed = {
        let mut carriers: Vec<_> =
            stations.iter().map(|_| MessageChannel::new().expect("a channel")).collect();
        let mut fixed = Vec::new();
        for port in 0..PORTS {
            let (stays, goes) = channel();
            carriers[port % stations.len()].port1.post_bytes_with(b"", goes).expect("a channel");
            fixed.push(stays);
        }
        // Each station has the end of one carrier that receives, and that of the next one that posts.
        let mut firsts = Vec::new();
        let mut lasts = Vec::new();
        for MessageChannel { port1, port2 } in carriers.drain(..) {
            firsts.push(port1);
            lasts.push(port2);
        }
        firsts.rotate_left(1);
        for (station, ends) in stations.iter().zip(lasts.into_iter().zip(firsts)) {
            station.port().post_bytes_with(b"ring", [ends.0, ends.1]).expect("a station");
        }
        fixed
    };
    let until = std::time::Instant::now() + Duration::from_micros(random.below(4_000));
    while std::time::Instant::now() < until {
        for port in &fixed {
            let _ = port.try_post_bytes(b"on the way");
            let _ = port.try_recv();
        }
    }
    stations[victim].kill();

    let mut ends = BTreeMap::new();
    for port in fixed {
        let reason = loop {
            match port.recv_timeout(Duration::from_secs(30)) {
                Ok(_) => {}
                Err(RecvError::Closed(reason)) => break reason,
                Err(error) => panic!("a port hangs: {error}"),
            }
        };
        *ends.entry(format!("{reason:?}")).or_insert(0) += 1;
    }
    let mut closed = 0;
    for (at, station) in stations.iter().enumerate().filter(|(at, _)| *at != victim) {
        let message = station.port().recv_timeout(Duration::from_secs(30)).expect("an account");
        let account: Account = bytemuck::pod_read_unaligned(message.bytes());
        let is_after = at == (victim + 1) % stations.len();
        assert_eq!(account.before, if is_after { DIED } else { CLOSED }, "{account:?}");
        let is_before = (at + 1) % stations.len() == victim;
        let after = if is_before { [DIED, NOT_SEEN] } else { [NOT_SEEN; 2] };
        assert!(after.contains(&account.after), "{account:?}");
        closed += account.closed;
        let now = (account.descriptors, account.mappings);
        assert_eq!(*counts[at].get_or_insert(now), now, "what is open in a survivor");
    }
    assert_eq!(ends.get("Closed").copied().unwrap_or(0), closed, "{ends:?}");
    assert!(!ends.contains_key("Violated"), "{ends:?}");
}
