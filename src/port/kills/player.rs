//! What the further processes do.

use rustix::process::{Signal, set_parent_process_death_signal};

use super::support::{Peer, Setup, be_peer, is_peer_of};
use super::*;
use crate::error::{PARENT_VARIABLE, PostError};
use crate::lane::Arrival;
use crate::port::adopt::adopt;
use crate::port::parcels::List;

/// The test as whose peer each player is started.
const PLAYER: &str = "port::kills::player::players_that_nothing_happens_to";

/// A process that plays a part.
pub(super) struct Player {
    pub(super) port: MessagePort,
    pub(super) process: Peer,
}

/// What a player is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Gives the ports that it is given over the last of them.
    PassOn,
    /// Takes ports, echoes one message of each, and waits for their ends.
    Echo,
    /// As `Echo`, with what comes over the port that it is given.
    EchoOver,
    /// Posts a row of messages, when told.
    PostRow,
    /// Reads a row of messages.
    ReadRow,
    /// Takes what is on the lane of the port that it is given, before there is a record, when told.
    AdoptEarly,
}

impl Player {
    /// Starts a player, and says what happens to it. It has a lane from this process already, so that
    /// its descriptors can be counted.
    pub(super) fn start(part: Part, hit: Option<Hit>) -> Self {
        let (port, process) = Peer::spawn(PLAYER, Setup::new());
        let MessageChannel { port1: _closed, port2: ballast } = MessageChannel::new().unwrap();
        port.post_bytes_with(name(part, hit).as_bytes(), transfer![ballast]).unwrap();
        Self { port, process }
    }

    /// Gives a player the port on which it is to work, and waits until it has it.
    pub(super) fn equip(&self, carrier: MessagePort) {
        self.port.post_bytes_with(b"", transfer![carrier]).unwrap();
        assert_eq!(self.port.recv().unwrap().bytes(), b"ready");
    }

    /// Says that it is time.
    pub(super) fn tell(&self, word: &str) {
        self.port.post_bytes(word.as_bytes()).unwrap();
    }

    pub(super) fn state(&self) -> char {
        let stat = format!("/proc/{}/stat", self.process.child.id());
        let stat = std::fs::read_to_string(stat).unwrap();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap()
    }

    pub(super) fn wait_until_stopped(&self) {
        wait_until("the player is stopped", || self.state() == 'T');
    }

    pub(super) fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    pub(super) fn kill(mut self) {
        self.process.kill();
        self.expect_killed();
    }

    /// Waits until it has been killed; gives the port to it.
    pub(super) fn expect_killed(mut self) -> MessagePort {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(self.process.wait().signal(), Some(Signal::KILL.as_raw()));
        self.port
    }

    /// Waits until it has played its part to the end.
    pub(super) fn expect_done(mut self) {
        drop(self.port);
        self.process.expect_done();
    }
}

fn play(port: MessagePort) {
    // Nobody is there to continue a player that was stopped, if the host fails.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    raise_descriptor_limit();
    let Ok(message) = port.recv() else { return };
    let (part, hit) = find(std::str::from_utf8(message.bytes()).unwrap());
    drop(message.take_all_ports().unwrap());
    drop(message);
    let before = holdings();
    match part {
        Part::PassOn => pass_on(&port, hit),
        Part::Echo => {
            hit.into_iter().for_each(strike);
            echo(&port);
        }
        Part::EchoOver => echo(&be_equipped(&port)),
        Part::PostRow => {
            assert_eq!(port.recv().unwrap().bytes(), b"now");
            hit.into_iter().for_each(strike);
            (0..growing::ROW).for_each(|number| port.post_bytes(&growing::of_row(number)).unwrap());
        }
        Part::ReadRow => {
            hit.into_iter().for_each(strike);
            growing::count_row(&port);
        }
        Part::AdoptEarly => adopt_early(&port, &be_equipped(&port)),
    }
    if part != Part::PostRow {
        // Of a row that was posted, something is kept until the end.
        expect_nothing_left(before, &part);
    }
    // Until the host has seen what it wants to see.
    while port.recv().is_ok() {}
}

fn be_equipped(port: &MessagePort) -> MessagePort {
    let carrier = take(port).remove(0);
    port.post_bytes(b"ready").unwrap();
    carrier
}

/// How a player is told its part.
fn name(part: Part, hit: Option<Hit>) -> String {
    format!("{part:?}, {hit:?}")
}

fn find(told: &str) -> (Part, Option<Hit>) {
    let parts =
        [Part::PassOn, Part::Echo, Part::EchoOver, Part::PostRow, Part::ReadRow, Part::AdoptEarly];
    let hits = [Signal::KILL, Signal::STOP].into_iter().flat_map(|signal| {
        [&SENDING[..], &TAKING, &GROWING, &FOLLOWING]
            .into_iter()
            .flat_map(move |steps| Hit::all(steps, MANY, signal).map(Some).collect::<Vec<_>>())
    });
    let mut all = hits.chain([None]).flat_map(|hit| parts.map(|part| (part, hit)));
    all.find(|(part, hit)| name(*part, *hit) == told).unwrap()
}

fn take(port: &MessagePort) -> Vec<MessagePort> {
    port.recv().unwrap().take_all_ports().unwrap()
}

fn pass_on(port: &MessagePort, hit: Option<Hit>) {
    let mut ports = take(port);
    let carrier = ports.pop().unwrap();
    hit.into_iter().for_each(strike);
    let posted = carrier.post_bytes_with(b"passed on", ports);
    if !matches!(hit, Some(Hit { step: Step::Detached | Step::Packed, .. })) {
        return posted.unwrap();
    }
    // Nothing was sent yet, and the receiver has died meanwhile: the ports are here, as they were.
    let error = posted.unwrap_err();
    assert!(matches!(error.source, PostError::Closed(CloseReason::PeerDied)), "{error:?}");
    for (number, far) in error.list.into_ports().iter().enumerate() {
        unpack(number, far);
        assert_eq!(far.recv().unwrap().bytes(), b"meanwhile");
        far.post_bytes(b"still mine").unwrap();
    }
}

fn echo(carrier: &MessagePort) {
    let Ok(message) = carrier.recv() else { return };
    let ports = message.take_all_ports().unwrap();
    for (number, port) in ports.iter().enumerate() {
        unpack(number, port);
        let message = port.recv().unwrap();
        port.post_bytes(message.bytes()).unwrap();
    }
    for port in &ports {
        assert!(port.recv().is_err());
    }
}

fn adopt_early(port: &MessagePort, carrier: &MessagePort) {
    assert_eq!(port.recv().unwrap().bytes(), b"now");
    assert_eq!(carrier.try_recv().map(drop), Err(RecvError::Empty), "there is no record");
    let (_, receiver) = carrier.halves();
    let parcel = receiver.parcels().receive(List { ports: 1, buffers: 0, bytes: 0 }, true);
    let arrival = receiver.take_from(&parcel, true).unwrap().unwrap();
    let Arrival::Port(arrival) = arrival else { panic!("a buffer") };
    let far = adopt(*arrival, carrier.endpoint().trusts()).unwrap();
    unpack(0, &far);
    let message = far.recv().unwrap();
    far.post_bytes(message.bytes()).unwrap();
    drop(message);
    assert_eq!(port.recv().unwrap().bytes(), b"close");
    far.close();
}

/// The plain way: what the other tests disturb.
#[test]
fn players_that_nothing_happens_to() {
    if is_peer_of(PLAYER) && std::env::var_os(PARENT_VARIABLE).is_some() {
        be_peer(Setup::new(), play);
    }
    in_host(PLAYER, || {
        for count in COUNTS {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let (taker, giver) =
                (Player::start(Part::EchoOver, None), Player::start(Part::PassOn, None));
            taker.equip(port1);
            let Bundle { near, mut far, deep } = bundle(count);
            far.push(port2);
            giver.port.post_bytes_with(b"", far).unwrap();
            for near in &near {
                near.post_bytes(b"meanwhile").unwrap();
                assert_eq!(near.recv().unwrap().bytes(), b"meanwhile");
            }
            drop(near);
            expect_end(&deep, CloseReason::Closed);
            taker.expect_done();
            giver.expect_done();
        }
    });
}
