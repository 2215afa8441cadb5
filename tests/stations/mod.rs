//! Several parties that ports travel among: a host, which is the test, and stations, which are threads
//! or processes of their own. The host introduces them to each other with ports.
//!
//! * [`journey!`] runs a host with stations of a kind of its own.
//! * An [`obey`] station does what its host orders: it keeps ports in numbered slots, posts, receives,
//!   gives them away. So a test says step by step who does what.
#![allow(dead_code, unused_macros, unused_imports)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::exit;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use zeroport::{CloseReason, MessageChannel, MessagePort, RecvError, TransferList};

use crate::ends;
use crate::support::{
    DONE, Peer, Running, Setup, be_peer, count_descriptors, count_segment_mappings, in_thread,
    is_peer_of, this_test_as, wait_until,
};

/// After so long a station that was asked something does not answer any more.
const ANSWER: Duration = Duration::from_secs(60);

/// After so long a journey counts as stuck.
fn stuck_after() -> Instant {
    Instant::now() + Duration::from_secs(if ends::long() { 600 } else { 100 })
}

/// A station, as its host sees it. Dropped: its port is closed, and it must come to its end then.
pub(crate) struct Station {
    pub(crate) port: Option<MessagePort>,
    life: Life,
}

enum Life {
    Thread(Option<Running>),
    Process(Peer),
    /// Killed: nothing is expected of it.
    Over(Peer),
}

/// Makes `mod name { fn threads(); fn processes(); }`: one journey among stations of both kinds.
macro_rules! journey {
    ($name:ident, $stations:expr, $host:expr, $station:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn threads() {
                $crate::stations::among_threads($stations, $host, $station);
            }

            $crate::stations::journey!(@processes processes, $stations, $host, $station);
        }
    };
    (@processes $name:ident, $stations:expr, $host:expr, $station:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = $crate::support::test_name(concat!(module_path!(), "::", stringify!($name)));
            $crate::stations::among_processes(test, $stations, $host, $station);
        }
    };
}

/// A journey among processes only: some of them are killed, stopped, or end.
macro_rules! perilous {
    ($name:ident, $stations:expr, $host:expr, $station:expr $(,)?) => {
        $crate::stations::journey!(@processes $name, $stations, $host, $station);
    };
}

/// As [`perilous!`], for a host that is told the name of the test too: it starts further stations.
macro_rules! replacing {
    ($name:ident, $stations:expr, $host:expr, $station:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = $crate::support::test_name(concat!(module_path!(), "::", stringify!($name)));
            let host = move |stations: &mut Vec<_>| ($host)(test, stations);
            $crate::stations::among_processes(test, $stations, host, $station);
        }
    };
}

/// As [`replacing!`], with a process of its own for the host: it counts what the process has open.
macro_rules! counting {
    ($name:ident, $stations:expr, $host:expr, $station:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = $crate::support::test_name(concat!(module_path!(), "::", stringify!($name)));
            let host = move |stations: &mut Vec<_>| ($host)(test, stations);
            $crate::stations::with_own_host(test, || {
                $crate::stations::among_processes(test, $stations, host, $station);
            });
        }
    };
}

pub(crate) use {counting, journey, perilous, replacing};

/// Runs a host in a process of its own, which the test waits for: it has a watchdog itself.
pub(crate) fn with_own_host(test: &str, host: impl FnOnce()) {
    let role = format!("{test} (host)");
    if is_peer_of(test) || is_peer_of(&role) {
        host();
        exit(DONE);
    }
    let status = this_test_as(test, &role).status().expect("the test binary");
    assert_eq!(status.code(), Some(DONE), "the host has failed ({status}); see its output");
}

pub(crate) fn among_threads(
    count: usize,
    host: impl FnOnce(&mut Vec<Station>) + Send + 'static,
    station: fn(MessagePort),
) {
    let host = in_thread("the host", move || {
        let mut stations = (0..count).map(|_| Station::thread(station)).collect();
        host(&mut stations);
        stations.into_iter().for_each(Station::finish);
    });
    host.join(stuck_after());
}

pub(crate) fn among_processes(
    test: &'static str,
    count: usize,
    host: impl FnOnce(&mut Vec<Station>) + Send + 'static,
    station: fn(MessagePort),
) {
    if is_peer_of(test) {
        be_peer(Setup::new(), station);
    }
    let mut stations: Vec<_> = (0..count).map(|_| Station::process(test)).collect();
    let pids: Vec<_> = stations.iter().map(|station| station.peer().pid()).collect();
    let host = in_thread("the host", move || {
        host(&mut stations);
        stations.into_iter().for_each(Station::finish);
    });
    if let Err(stuck) = host.try_join(stuck_after()) {
        for pid in pids {
            // The host still has them, so their numbers cannot have been given to anybody else;
            // those that it has replaced are gone.
            let _ = kill_process(pid, Signal::KILL);
        }
        panic!("{stuck}");
    }
}

impl Station {
    pub(crate) fn thread(station: fn(MessagePort)) -> Self {
        let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
        let running = in_thread("a station", move || station(port2));
        Self { port: Some(port1), life: Life::Thread(Some(running)) }
    }

    /// Starts this test binary again, for this test; see [`be_peer`].
    pub(crate) fn process(test: &str) -> Self {
        let (port, peer) = Peer::spawn(test, Setup::new());
        Self { port: Some(port), life: Life::Process(peer) }
    }

    /// The host's port to it.
    pub(crate) fn port(&self) -> &MessagePort {
        self.port.as_ref().expect("a station that has not ended")
    }

    /// The process that it is.
    pub(crate) fn peer(&self) -> &Peer {
        match &self.life {
            Life::Process(peer) | Life::Over(peer) => peer,
            Life::Thread(_) => panic!("the station is a thread"),
        }
    }

    pub(crate) fn is_process(&self) -> bool {
        !matches!(self.life, Life::Thread(_))
    }

    /// SIGKILL, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.life = match std::mem::replace(&mut self.life, Life::Thread(None)) {
            Life::Process(mut peer) => {
                peer.kill();
                peer.wait();
                Life::Over(peer)
            }
            _ => panic!("only a process can be killed"),
        };
    }

    /// Closes its port and waits for its end.
    pub(crate) fn finish(mut self) {
        drop(self.port.take());
        match &mut self.life {
            Life::Thread(running) => {
                running.take().expect("a thread").join(Instant::now() + ANSWER);
            }
            Life::Process(peer) => peer.expect_done(),
            Life::Over(_) => {}
        }
    }
}

/// Marsaglia's xorshift.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// Nothing, a little, or enough to stream.
    pub(crate) fn amount(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => 1 + self.below(3),
            2 => self.below(40),
            _ => 70 + self.below(70),
        }
    }
}

/// What the host makes of itself and its stations: each receives from the one before and posts to the
/// next, the host is before the first and after the last.
pub(crate) struct Ring {
    pub(crate) first: MessagePort,
    pub(crate) last: MessagePort,
}

/// Gives each station its two ports of the ring.
pub(crate) fn make_ring(stations: &[Station], setup: Setup) -> Ring {
    let MessageChannel { port1: first, port2: mut last } = setup.open();
    for station in stations {
        let MessageChannel { port1: next, port2: after } = setup.open();
        station.port().post_bytes_with(b"ring", [last, next]).expect("a station");
        last = after;
    }
    Ring { first, last }
}

/// A station's two ports of the ring; none if the host has closed.
pub(crate) fn join_ring(host: &MessagePort) -> Option<Ring> {
    let message = host.recv().ok()?;
    let [last, first] = message.take_ports().expect("both ports of the ring");
    Some(Ring { first, last })
}

// Orders to a station that obeys, and its answers: four words each.

/// Take the ports of this message.
const TAKE: u64 = 0;
/// Receive on slot *a*, waiting.
const RECEIVE: u64 = 1;
/// Post *b* on slot *a*.
const POST: u64 = 2;
/// Post *b* on slot *a* with the ports of the slots that follow the four words.
const GIVE: u64 = 3;
/// Close slot *a*.
const CLOSE: u64 = 4;
/// Say what you have open.
const COUNT: u64 = 5;
/// Receive on slot *a* and keep the message, and its ports, until you are killed.
const CLING: u64 = 6;
/// Exit at once, as from `main`.
const EXIT: u64 = 7;

const WELL: u64 = 100;
const ENDED: u64 = 101;
const REFUSED: u64 = 102;

const REASONS: [CloseReason; 4] =
    [CloseReason::Closed, CloseReason::PeerDied, CloseReason::Lost, CloseReason::Violated];

fn reason_to_word(reason: CloseReason) -> u64 {
    REASONS.iter().position(|known| *known == reason).expect("a known reason") as u64
}

/// The body of a station that does what its host orders.
pub(crate) fn obey(host: MessagePort) {
    let mut slots: Vec<Option<MessagePort>> = Vec::new();
    while let Ok(message) = host.recv() {
        let words: &[u64] = bytemuck::cast_slice(message.bytes());
        let [verb, a, b, _] = words[..4] else { panic!("an order of four words") };
        let slot = a as usize;
        let answer = match verb {
            TAKE => {
                let ports = message.take_all_ports().expect("the ports of an order");
                keep(&mut slots, ports)
            }
            RECEIVE => receive(&mut slots, slot),
            POST => answer_to(open(&slots, slot).post_bytes(&b.to_ne_bytes()).map_err(drop)),
            GIVE => {
                let given = &words[4..];
                let list: TransferList =
                    given.iter().map(|slot| slots[*slot as usize].take().unwrap()).collect();
                let posted = open(&slots, slot).post_bytes_with(&b.to_ne_bytes(), list);
                answer_to(posted.map_err(|error| {
                    let back = error.list.into_ports();
                    for (slot, port) in given.iter().zip(back) {
                        slots[*slot as usize] = Some(port);
                    }
                }))
            }
            CLOSE => answer_to(slots[slot].take().map(MessagePort::close).ok_or(())),
            COUNT => [WELL, count_descriptors() as u64, count_segment_mappings() as u64, 0],
            CLING => {
                let clung_to = open(&slots, slot).recv().expect("a message to cling to");
                host.post_bytes(bytemuck::bytes_of(&[WELL, 0, 0, 0])).expect("a host");
                let _until_killed = clung_to;
                loop {
                    std::thread::park();
                }
            }
            EXIT => return,
            _ => panic!("an order that nobody knows: {verb}"),
        };
        drop(message);
        host.post_bytes(bytemuck::bytes_of(&answer)).expect("a host");
    }
}

fn open(slots: &[Option<MessagePort>], slot: usize) -> &MessagePort {
    slots[slot].as_ref().expect("a port in the slot")
}

fn answer_to(done: Result<(), ()>) -> [u64; 4] {
    [if done.is_ok() { WELL } else { REFUSED }, 0, 0, 0]
}

/// Puts ports into new slots; the answer tells which.
fn keep(slots: &mut Vec<Option<MessagePort>>, ports: Vec<MessagePort>) -> [u64; 4] {
    let answer = [WELL, 0, slots.len() as u64, ports.len() as u64];
    slots.extend(ports.into_iter().map(Some));
    answer
}

fn receive(slots: &mut Vec<Option<MessagePort>>, slot: usize) -> [u64; 4] {
    let (number, ports) = match open(slots, slot).recv() {
        Ok(message) => {
            let number = u64::from_ne_bytes(message.bytes().try_into().expect("a number"));
            (number, message.take_all_ports().expect("the ports of a message"))
        }
        Err(RecvError::Closed(reason)) => return [ENDED, reason_to_word(reason), 0, 0],
        Err(error) => panic!("{error}"),
    };
    let mut answer = keep(slots, ports);
    answer[1] = number;
    answer
}

/// What a host orders.
impl Station {
    fn order(&self, order: &[u64], list: impl Into<TransferList>) {
        self.port().post_bytes_with(bytemuck::cast_slice(order), list).expect("an open station");
    }

    fn answer(&self) -> [u64; 4] {
        let message = self.port().recv_timeout(ANSWER).expect("an answer");
        bytemuck::pod_read_unaligned(message.bytes())
    }

    fn ask(&self, order: &[u64]) -> [u64; 4] {
        self.order(order, TransferList::new());
        self.answer()
    }

    fn expect_done(&self, order: &[u64]) {
        assert_eq!(self.ask(order)[0], WELL, "{order:?}");
    }

    /// Gives it a port; says in which slot it has it.
    pub(crate) fn take(&self, port: MessagePort) -> u64 {
        self.order(&[TAKE, 0, 0, 0], port);
        self.answer()[2]
    }

    /// Has it receive on a slot: the number, and the slots of what came with it.
    pub(crate) fn receive(&self, slot: u64) -> Result<(u64, Vec<u64>), CloseReason> {
        self.begin_receive(slot);
        self.end_receive()
    }

    /// As [`receive`](Self::receive), but does not wait for what is received.
    pub(crate) fn begin_receive(&self, slot: u64) {
        self.order(&[RECEIVE, slot, 0, 0], TransferList::new());
    }

    pub(crate) fn end_receive(&self) -> Result<(u64, Vec<u64>), CloseReason> {
        match self.answer() {
            [ENDED, reason, ..] => Err(REASONS[reason as usize]),
            [_, number, first, count] => Ok((number, (first..first + count).collect())),
        }
    }

    /// As [`receive`](Self::receive), for a message with this number and one port.
    pub(crate) fn receive_port(&self, slot: u64, number: u64) -> u64 {
        let (found, slots) = self.receive(slot).expect("a message");
        assert_eq!((found, slots.len()), (number, 1));
        slots[0]
    }

    /// As [`receive`](Self::receive), for a message with this number and no ports.
    pub(crate) fn expect(&self, slot: u64, number: u64) {
        assert_eq!(self.receive(slot), Ok((number, Vec::new())));
    }

    pub(crate) fn post(&self, slot: u64, number: u64) {
        self.expect_done(&[POST, slot, number, 0]);
    }

    /// Has it give away what it has in the slots `given`, with a number.
    pub(crate) fn give(&self, slot: u64, number: u64, given: &[u64]) {
        let order = [&[GIVE, slot, number, 0], given].concat();
        self.expect_done(&order);
    }

    pub(crate) fn close(&self, slot: u64) {
        self.expect_done(&[CLOSE, slot, 0, 0]);
    }

    /// How many descriptors and segments it has open.
    pub(crate) fn counts(&self) -> [u64; 2] {
        let [_, descriptors, mappings, _] = self.ask(&[COUNT, 0, 0, 0]);
        [descriptors, mappings]
    }

    /// Has it receive a message with ports that it does not take, and cling to it.
    pub(crate) fn cling(&self, slot: u64) {
        self.expect_done(&[CLING, slot, 0, 0]);
    }

    /// Has it exit, and waits until it has.
    pub(crate) fn exit(&mut self) {
        self.order(&[EXIT, 0, 0, 0], TransferList::new());
        if let Life::Process(peer) = &mut self.life {
            peer.expect_done();
        } else {
            assert_eq!(
                self.port().recv().map(drop),
                Err(RecvError::Closed(CloseReason::Closed)),
                "the station ends"
            );
        }
    }
}

/// A channel between two stations: the slot at each.
pub(crate) fn introduce(one: &Station, other: &Station, setup: Setup) -> (u64, u64) {
    let MessageChannel { port1, port2 } = setup.open();
    (one.take(port1), other.take(port2))
}

pub(crate) fn post(port: &MessagePort, number: u64) {
    port.post_bytes(&number.to_ne_bytes()).expect("an open channel");
}

pub(crate) fn expect(port: &MessagePort, number: u64) {
    let message = port.recv_timeout(ANSWER).expect("a message");
    assert_eq!((message.bytes(), message.port_count()), (&number.to_ne_bytes()[..], 0));
}
