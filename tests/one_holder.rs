//! Whatever is given to whomever, in whatever order: each end of each channel is in one place, and what
//! was posted arrives there, once and in order (S-117).
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod ends;
mod stations;
mod support;

use std::collections::VecDeque;

use stations::{Random, Station, counting, obey};
use support::Setup;
use zeroport::MessageChannel;

const CHANNELS: usize = 8;
/// Messages that may wait in one port: far fewer than it has room for.
const MOST_UNREAD: usize = 100;

/// Where an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With a station, in a slot.
    Held { station: usize, slot: u64 },
    /// In a message that waits to be received on this other end.
    Unread { on: usize },
}

/// What is known of an end. Ends 2n and 2n + 1 are those of one channel.
#[derive(Debug)]
struct End {
    place: Place,
    /// Numbers that wait for it, and the ends that came with them.
    unread: VecDeque<(u64, Vec<usize>)>,
    /// Whether ports were posted on it: it has a lane then.
    has_outgoing: bool,
    /// Whether it has taken the other side's lane off the line, for the first port that came.
    has_incoming: bool,
}

/// The channels and their stations, as they should be.
struct World<'s> {
    stations: &'s [Station],
    ends: Vec<End>,
    random: Random,
    next: u64,
    /// What each station had open before.
    before: Vec<[u64; 2]>,
}

impl<'s> World<'s> {
    fn new(stations: &'s [Station], seed: u64) -> Self {
        for station in stations {
            // The host's ports to them have lanes from now on.
            let slot = station.take(MessageChannel::new().expect("a channel").port1);
            station.close(slot);
        }
        let before = stations.iter().map(Station::counts).collect();
        let mut world = Self { stations, ends: Vec::new(), random: Random(seed), next: 0, before };
        for channel in 0..CHANNELS {
            let setup = if channel % 2 == 0 { Setup::new() } else { Setup::new().untrusted() };
            let MessageChannel { port1, port2 } = setup.open();
            for port in [port1, port2] {
                let station = world.random.below(stations.len() as u64) as usize;
                let place = Place::Held { station, slot: stations[station].take(port) };
                let (has_outgoing, has_incoming) = (false, false);
                world.ends.push(End { place, unread: VecDeque::new(), has_outgoing, has_incoming });
            }
        }
        world
    }

    /// Ends that a station holds.
    fn held_by(&self, here: usize) -> Vec<(usize, u64)> {
        let held = self.ends.iter().enumerate().filter_map(|(end, known)| match known.place {
            Place::Held { station, slot } if station == here => Some((end, slot)),
            _ => None,
        });
        held.collect()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.below(all.len() as u64) as usize]
    }

    fn step(&mut self) {
        let station = self.random.below(self.stations.len() as u64) as usize;
        let held = self.held_by(station);
        if held.is_empty() {
            return;
        }
        let (end, slot) = self.one_of(&held);
        if self.random.below(2) == 0 {
            self.receive(station, end, slot);
        } else {
            self.post(station, end, slot, held);
        }
    }

    fn receive(&mut self, station: usize, end: usize, slot: u64) {
        let Some((number, came)) = self.ends[end].unread.pop_front() else { return };
        let (found, slots) = self.stations[station].receive(slot).expect("a message");
        assert_eq!((found, slots.len()), (number, came.len()));
        self.ends[end].has_incoming |= !came.is_empty();
        for (end, slot) in came.into_iter().zip(slots) {
            self.ends[end].place = Place::Held { station, slot };
        }
    }

    /// Posts a number, with some of the other ends that the station has.
    fn post(&mut self, station: usize, carrier: usize, slot: u64, mut held: Vec<(usize, u64)>) {
        let to = carrier ^ 1;
        if self.ends[to].unread.len() >= MOST_UNREAD {
            return;
        }
        let around = self.around(to);
        held.retain(|(end, _)| *end != carrier && !around.contains(end));
        let mut given = Vec::new();
        for _ in 0..self.random.below(4).min(held.len() as u64) {
            let at = self.random.below(held.len() as u64) as usize;
            given.push(held.swap_remove(at));
        }
        // Untrusted ports go everywhere, others not to strangers.
        if carrier % 4 >= 2 {
            given.retain(|(end, _)| end % 4 >= 2);
        }
        self.next += 1;
        let slots: Vec<_> = given.iter().map(|(_, slot)| *slot).collect();
        self.stations[station].give(slot, self.next, &slots);
        let given: Vec<_> = given.into_iter().map(|(end, _)| end).collect();
        for end in &given {
            self.ends[*end].place = Place::Unread { on: to };
        }
        self.ends[carrier].has_outgoing |= !given.is_empty();
        self.ends[to].unread.push_back((self.next, given));
    }

    /// An end, and the ends in whose queues it lies: what may not be posted to it, or nobody could ever
    /// receive it.
    fn around(&self, end: usize) -> Vec<usize> {
        let mut around = vec![end];
        while let Place::Unread { on } = self.ends[around[around.len() - 1]].place {
            around.push(on);
        }
        around
    }

    /// Each station has open what belongs to the ends that it holds, and nothing else.
    fn check(&self) {
        for (at, station) in self.stations.iter().enumerate() {
            let mut expected = self.before[at];
            let is_mine = |other: usize| {
                other == at || !self.stations[other].is_process() && !station.is_process()
            };
            for end in &self.ends {
                if let Place::Held { station, .. } = end.place
                    && is_mine(station)
                {
                    expected[0] += 2 + u64::from(end.has_outgoing) + u64::from(end.has_incoming);
                    expected[1] += 1;
                }
            }
            assert_eq!(station.counts(), expected, "descriptors and mappings of station {at}");
        }
    }

    /// All that waits is received.
    fn receive_all(&mut self) {
        while let Some((end, station, slot)) =
            self.ends.iter().enumerate().find_map(|(end, known)| match known.place {
                Place::Held { station, slot } if !known.unread.is_empty() => {
                    Some((end, station, slot))
                }
                _ => None,
            })
        {
            self.receive(station, end, slot);
        }
        assert!(self.ends.iter().all(|end| matches!(end.place, Place::Held { .. })));
    }

    /// All that is held is closed, and with it what waits there.
    fn close_all(self) {
        for at in 0..self.stations.len() {
            for (_, slot) in self.held_by(at) {
                self.stations[at].close(slot);
            }
        }
        let now: Vec<_> = self.stations.iter().map(Station::counts).collect();
        assert_eq!(now, self.before, "after all were closed");
    }
}

fn wander(stations: &[Station], seeds: u64) {
    for seed in 1..=if ends::long() { 200 * seeds } else { seeds } {
        println!("seed {seed}");
        let mut world = World::new(stations, seed);
        for step in 0..1_000 {
            world.step();
            if step % 50 == 49 {
                world.check();
            }
        }
        if seed % 2 == 0 {
            world.receive_all();
            world.check();
        }
        world.close_all();
    }
}

counting!(among_processes, 3, |_, stations: &mut Vec<Station>| wander(stations, 4), obey);

counting!(
    among_threads,
    0,
    |_, stations: &mut Vec<Station>| {
        stations.extend((0..3).map(|_| Station::thread(obey)));
        wander(stations, 4);
    },
    obey
);

// S-119: ports that move between threads and processes, and back.
counting!(
    among_threads_and_processes,
    2,
    |_, stations: &mut Vec<Station>| {
        stations.extend((0..2).map(|_| Station::thread(obey)));
        wander(stations, 4);
    },
    obey
);
