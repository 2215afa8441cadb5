//! One loop that serves a thousand clients in twenty processes, which come, stream, move, close and are killed.
//!
//! `ZEROPORT_SOAK_SECONDS=300 cargo test --release --test soak -- --nocapture` lets it go on for five minutes.
//! `ZEROPORT_SOAK_SEED=…` begins with the numbers of an earlier run.
//!
//! Of each client the loop gets every message once and in order, up to the last one that a post has returned of;
//! then one end, with the reason that fits. After each round, in which all come and go, nothing of them is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clients;
mod ends;
mod places;
mod stations;
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clients::{
    ASK, CLIENTS, FINISH, GIVE, HAVE, IDS, LEDGER, Ledger, MADE, MOVE, NUMBER, Noted, Record, SEED,
    WANT, post_words, way_of,
};
use places::{ADDRESS, Folder, address_from_environment, unique_name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stations::{Random, with_own_host};
use support::{
    Peer, Setup, be_peer, count_descriptors, count_segment_mappings, count_threads, in_thread,
    is_peer_of, raise_descriptor_limit, test_name, this_test,
};
use zeroport::{
    AcceptError, Address, AdmitError, CloseReason, EventLoop, Handlers, Message, MessageChannel,
    MessagePort, PortId, PostError, Sender, Server, Turn,
};

const PROCESSES: usize = 20;
const CLIENTS_OF_EACH: u64 = 50;
/// The first makes what stays; the others must not add to it.
const ROUNDS: u32 = 4;
/// No process lives longer, unless it is still to finish.
const LIFE: u64 = 2_000;
/// What memory may grow by when all have gone, as the allocator's pieces lie: at most so much, and so much for each
/// client. A line of the cache that stays of each would be more in the long run, a page of each in two seconds.
const SLACK: u64 = 2 << 20;
const SLACK_OF_EACH: u64 = 32;

#[test]
fn a_thousand_clients_in_twenty_processes() {
    let test = test_name(concat!(module_path!(), "::a_thousand_clients_in_twenty_processes"));
    if is_peer_of(test) {
        be_peer(Setup::new(), |host| clients::live(host, address_from_environment()));
    }
    with_own_host(test, || {
        let length = Duration::from_secs(number_from("ZEROPORT_SOAK_SECONDS").unwrap_or(6));
        let stuck_at = Instant::now() + 2 * length + Duration::from_secs(120);
        in_thread("the server", move || soak(test, length)).join(stuck_at);
    });
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// What this process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    threads: usize,
    resident: u64,
}

impl Holdings {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let pages = line.trim_end_matches("kB").trim().parse::<u64>().unwrap();
        Self {
            descriptors: count_descriptors(),
            mappings: count_segment_mappings(),
            threads: count_threads(),
            resident: pages << 10,
        }
    }

    fn counts(self) -> [usize; 3] {
        [self.descriptors, self.mappings, self.threads]
    }
}

fn soak(test: &'static str, length: Duration) {
    let seed = number_from("ZEROPORT_SOAK_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        now.subsec_nanos().into()
    });
    eprintln!("soak: ZEROPORT_SOAK_SEED={seed}");
    // A server has up to eight descriptors for each.
    let room = (raise_descriptor_limit() - 500) / 8 / PROCESSES as u64;
    let folder = Folder::new();
    let server = Server::bind(unique_name()).unwrap();
    let world = RefCell::new(World {
        test,
        address: server.address().clone(),
        ledger_path: folder.path("ledger"),
        ledger: Ledger::open(&folder.path("ledger")),
        clients_of_each: room.min(CLIENTS_OF_EACH),
        random: Random(seed | 1 << 40),
        clients: HashMap::new(),
        processes: BTreeMap::new(),
        killed: HashSet::new(),
        ended: HashMap::new(),
        paused: Vec::new(),
        started: 0,
        is_over: true,
        tally: Tally::default(),
    });
    let handlers = RefCell::new(Handlers::new());
    handlers.borrow().handle(ASK, |event| {
        let bytes = event.bytes().to_vec();
        world.borrow_mut().hear(event.sender(), *event.identity(), &bytes);
        Ok::<_, String>(bytes)
    });
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|payload| std::panic::resume_unwind(payload));
    let desk = Desk { world: &world, handlers: &handlers, server: &server };
    let before = Holdings::now();
    eprintln!("soak: before: {before:?}");
    let mut flat = None;
    for round in 0..ROUNDS {
        desk.run_round(&mut events, round, Instant::now() + length / ROUNDS);
        let now = Holdings::now();
        eprintln!("soak: after round {round}: {now:?}, {:?}", world.borrow().tally);
        assert_eq!(now.counts(), before.counts(), "after round {round}");
        let clients = world.borrow().tally.ways.into_iter().sum::<u64>();
        let (flat, clients_then): (Holdings, _) = *flat.get_or_insert((now, clients));
        let grown = now.resident.saturating_sub(flat.resident);
        let slack = SLACK + SLACK_OF_EACH * (clients - clients_then);
        assert!(grown < slack, "{grown} bytes more after round {round}, not {slack}");
    }
    let tally = world.borrow().tally;
    assert!(
        tally.ways.into_iter().chain([tally.killed, tally.moved, tally.requests]).all(|n| n > 0)
    );
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Clients, by the way in which they have come.
    ways: [u64; 3],
    messages: u64,
    requests: u64,
    moved: u64,
    closed: u64,
    died: u64,
    lost: u64,
    killed: u64,
    finished: u64,
    /// Clients that there were at once, at most.
    at_once: usize,
}

/// A client, as the server sees it.
#[derive(Debug)]
struct Client {
    /// Who connects says so in the first message.
    id: Option<u64>,
    /// The processes that have had its port, in their order.
    holders: Vec<u64>,
    /// The last of them that a message has come from.
    heard_from: Option<usize>,
    received: u64,
    echoed: u64,
    has_left: bool,
    /// No process was there to go on with it.
    is_homeless: bool,
}

impl Client {
    fn of(process: u64, id: Option<u64>) -> Self {
        let holders = vec![process];
        let (heard_from, received, echoed) = (None, 0, 0);
        Self { id, holders, heard_from, received, echoed, has_left: false, is_homeless: false }
    }

    /// Takes the next message; panics if it is another one.
    fn take(&mut self, record: Record) {
        assert_eq!(*self.id.get_or_insert(record.id), record.id);
        assert_eq!(record.number, self.received, "{self:?}");
        assert!(record.acked <= self.echoed && !self.has_left, "{record:?} of {self:?}");
        // What a former holder has posted may come after it has given the port away, and not after the next one's.
        let before = self.heard_from.unwrap_or(0);
        let since = self.holders[before..].iter().position(|holder| *holder == record.holder);
        self.heard_from = Some(before + since.expect("one who has the port"));
        self.received += 1;
        self.has_left = record.is_last;
    }

    /// Whether this end fits, and what the client has noted.
    fn expect_end(&self, reason: CloseReason, noted: Noted, is_killed: bool) {
        let about = format!("{reason:?} of {self:?}, {noted:?}, killed: {is_killed}");
        assert!(noted.acked <= self.echoed, "{about}");
        let is_taken = self.heard_from == Some(self.holders.len() - 1);
        // Who is killed may have posted one more than noted.
        let (fits, more) = match reason {
            CloseReason::Closed => (self.has_left || self.is_homeless, u64::from(is_killed)),
            CloseReason::PeerDied => (is_killed, 1),
            CloseReason::Lost => (is_killed && (!is_taken || noted.is_moving), 1),
            _ => (false, 0),
        };
        assert!(fits, "{about}");
        let all = noted.posted..=noted.posted + more;
        assert!(self.id.is_none() || all.contains(&self.received), "{about}");
    }
}

/// A process, as the server sees it.
struct Process {
    peer: Peer,
    port: PortId,
    /// When it is killed, or told to finish.
    due: Option<Instant>,
    has_spoken: bool,
    is_finishing: bool,
}

struct World {
    test: &'static str,
    address: Address,
    ledger_path: PathBuf,
    ledger: Ledger,
    clients_of_each: u64,
    random: Random,
    clients: HashMap<PortId, Client>,
    processes: BTreeMap<u64, Process>,
    killed: HashSet<u64>,
    /// How many messages came of each, by its id.
    ended: HashMap<u64, u64>,
    paused: Vec<PortId>,
    started: u64,
    is_over: bool,
    tally: Tally,
}

impl World {
    /// A message of a client: it goes back as it is.
    fn hear(&mut self, sender: &Sender, port: PortId, bytes: &[u8]) {
        let record = Record::from_bytes(bytes);
        let client = self.clients.get_mut(&port).expect("a client that has not ended");
        client.take(record);
        self.tally.messages += 1;
        match sender.post_bytes(bytes) {
            Ok(()) => client.echoed += 1,
            Err(PostError::Closed(_)) => {}
            Err(refused) => panic!("{refused}"),
        }
    }

    fn end(&mut self, port: PortId, reason: CloseReason) {
        let client = self.clients.remove(&port).expect("it was not told before");
        let is_killed = self.killed.contains(client.holders.last().unwrap());
        let noted = client.id.map(|id| self.ledger.of_client(id)).unwrap_or_default();
        client.expect_end(reason, noted, is_killed);
        if let Some(id) = client.id {
            assert_eq!(self.ended.insert(id, client.received), None, "{client:?}");
            self.tally.ways[way_of(id) as usize] += 1;
        }
        match reason {
            CloseReason::Closed => self.tally.closed += 1,
            CloseReason::PeerDied => self.tally.died += 1,
            _ => self.tally.lost += 1,
        }
    }

    /// A process has ended: as it should have?
    fn bury(&mut self, number: u64, reason: CloseReason) {
        let mut process = self.processes.remove(&number).expect("it was not told before");
        let is_killed = self.killed.contains(&number);
        match reason {
            CloseReason::Closed => assert!(process.is_finishing, "process {number} has failed"),
            CloseReason::PeerDied => assert!(is_killed),
            CloseReason::Lost => assert!(is_killed && !process.has_spoken),
            other => panic!("{other:?} of process {number}"),
        }
        if is_killed {
            process.peer.wait();
        } else {
            process.peer.expect_done();
            self.tally.finished += 1;
        }
    }

    fn start(&mut self) -> (u64, MessagePort, Peer) {
        let number = self.started;
        self.started += 1;
        let mut command = this_test(self.test);
        command
            .env(ADDRESS, self.address.to_string())
            .env(NUMBER, number.to_string())
            .env(SEED, (self.random.next() | 1).to_string())
            .env(LEDGER, &self.ledger_path)
            .env(CLIENTS, self.clients_of_each.to_string());
        let (port, child) = Setup::new().options().spawn(command).unwrap();
        (number, port, Peer::new(child))
    }

    /// Nobody is left, and of everybody that has posted all came.
    fn expect_all_ended(&mut self, first: u64) {
        let clients: Vec<_> =
            self.clients.values().map(|c| (c, c.id.map(|id| self.ledger.of_client(id)))).collect();
        assert!(clients.is_empty() && self.processes.is_empty(), "left: {clients:?}");
        for number in first..self.started {
            for (id, noted) in (number * IDS..).zip(self.ledger.of_process(number)) {
                let received = self.ended.get(&id).copied().unwrap_or(0);
                assert!(received >= noted.posted, "{received} of client {id:#x}, {noted:?}");
            }
        }
        (self.ended, self.killed) = Default::default();
    }
}

/// What handlers need. (They live as long as the loop, the world longer.)
#[derive(Clone, Copy)]
struct Desk<'h, 'w> {
    world: &'w RefCell<World>,
    handlers: &'h RefCell<Handlers<'w, PortId>>,
    server: &'h Server,
}

impl<'h, 'w: 'h> Desk<'h, 'w> {
    fn run_round(self, events: &mut EventLoop<'h>, round: u32, over_at: Instant) {
        let first = self.world.borrow().started;
        self.world.borrow_mut().is_over = false;
        (0..PROCESSES).for_each(|_| self.start(events));
        while !self.world.borrow().processes.is_empty() || !events.is_empty() {
            if Instant::now() >= over_at && !self.world.borrow().is_over {
                eprintln!("soak: {} in the loop, {:?}", events.len(), Holdings::now());
                self.world.borrow_mut().is_over = true;
            }
            self.let_in(events);
            self.do_what_is_due(events);
            // In a loop of another kind, and in its own.
            if round.is_multiple_of(2) {
                self.wait(events);
                events.run_ready().unwrap();
            } else {
                events.run_until(Instant::now() + Duration::from_millis(2)).unwrap();
            }
        }
        self.world.borrow_mut().expect_all_ended(first);
    }

    fn wait(self, events: &mut EventLoop<'h>) {
        if events.arm().unwrap() {
            let mut fds =
                [PollFd::new(&*events, PollFlags::IN), PollFd::new(self.server, PollFlags::IN)];
            let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut fds, Some(&timeout)).unwrap();
        }
    }

    fn start(self, events: &mut EventLoop<'h>) {
        let mut world = self.world.borrow_mut();
        let (number, port, peer) = world.start();
        let port = events.insert(port).unwrap();
        let due = Some(Instant::now() + Duration::from_millis(world.random.below(LIFE)));
        let (has_spoken, is_finishing) = (false, false);
        world.processes.insert(number, Process { peer, port, due, has_spoken, is_finishing });
        events
            .listeners_of(port)
            .on_message(move |turn, message| self.obey(turn, number, message))
            .on_close(move |events, reason| {
                self.world.borrow_mut().bury(number, reason);
                if !self.world.borrow().is_over {
                    self.start(events);
                }
            });
    }

    /// Takes a client in.
    fn serve(self, events: &mut EventLoop<'h>, port: MessagePort, client: Client) {
        let port = events.insert(port).unwrap();
        {
            let World { clients, tally, .. } = &mut *self.world.borrow_mut();
            clients.insert(port, client);
            tally.at_once = tally.at_once.max(clients.len());
        }
        events
            .listeners_of(port)
            .on_message(move |turn, message| self.hear(turn, message))
            .on_close(move |_, reason| self.world.borrow_mut().end(port, reason));
    }

    fn hear(self, turn: &mut Turn<'_, 'h>, message: &Message<'_>) {
        let (sender, port) = (turn.sender(), turn.port());
        if message.is_named() {
            self.handlers.borrow_mut().dispatch(sender, &port, message);
            self.world.borrow_mut().tally.requests += 1;
        } else {
            self.world.borrow_mut().hear(sender, port, message.bytes());
        }
        let mut world = self.world.borrow_mut();
        if world.random.below(1000) == 0 {
            turn.listeners().pause();
            world.paused.push(port);
        }
    }

    /// Does what a process asks for.
    fn obey(self, turn: &mut Turn<'_, 'h>, number: u64, message: &Message<'_>) {
        let words: [u64; 4] = bytemuck::pod_read_unaligned(message.bytes());
        let [order, id, ..] = words;
        let port = message.take_port().unwrap();
        self.world.borrow_mut().processes.get_mut(&number).unwrap().has_spoken = true;
        turn.later(move |events| match (order, port) {
            (WANT, None) => self.give(events, number, id),
            (MADE, Some(port)) => self.serve(events, port, Client::of(number, Some(id))),
            (MOVE, Some(port)) => self.pass_on(events, words, port),
            (order, _) => panic!("{order} of process {number}"),
        });
    }

    fn give(self, events: &mut EventLoop<'h>, number: u64, id: u64) {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let mut client = Client::of(number, Some(id));
        client.is_homeless = !self.post(events, number, [HAVE, id, 0, 0], port2);
        self.serve(events, port1, client);
    }

    /// False if the process has gone; then the port has, too.
    fn post(self, events: &EventLoop<'h>, number: u64, words: [u64; 4], port: MessagePort) -> bool {
        let world = self.world.borrow();
        let process = world.processes.get(&number);
        let sender = process.and_then(|process| events.sender_of(process.port));
        sender.is_some_and(|sender| post_words(sender, words, port).is_ok())
    }

    /// Has another process go on with a client.
    fn pass_on(self, events: &EventLoop<'h>, [_, id, posted, acked]: [u64; 4], port: MessagePort) {
        let mut world = self.world.borrow_mut();
        let ready = world.processes.iter().filter(|(_, process)| !process.is_finishing);
        let ready: Vec<u64> = ready.map(|(number, _)| *number).collect();
        let nth = world.random.below(ready.len().max(1) as u64);
        let next = ready.get(nth as usize).copied();
        world.tally.moved += 1;
        drop(world);
        let has_home =
            next.is_some_and(|next| self.post(events, next, [GIVE, id, posted, acked], port));
        let mut world = self.world.borrow_mut();
        let mut all = world.clients.values_mut();
        let client = all.find(|client| client.id == Some(id)).expect("a client that moves");
        client.is_homeless = !has_home;
        client.holders.extend(next.filter(|_| has_home));
    }

    /// Lets callers in: children of ours, all of them.
    fn let_in(self, events: &mut EventLoop<'h>) {
        loop {
            let caller = match self.server.try_accept() {
                Ok(caller) => caller,
                Err(AcceptError::Empty) => return,
                Err(error) => panic!("{error}"),
            };
            let pid = caller.credentials().pid;
            let number = {
                let world = self.world.borrow();
                let mut all = world.processes.iter();
                let found = all.find(|(_, process)| Some(process.peer.child.id()) == pid);
                found.map(|(number, _)| *number)
            };
            match (caller.admit(), number) {
                (Ok(port), Some(number)) => self.serve(events, port, Client::of(number, None)),
                // Killed meanwhile.
                (Ok(_), None) | (Err(AdmitError::Gone), _) => {}
                (Err(error), _) => panic!("{error}"),
            }
        }
    }

    /// Kills, lets finish, and listens again to who was paused.
    fn do_what_is_due(self, events: &mut EventLoop<'h>) {
        let mut world = self.world.borrow_mut();
        for port in std::mem::take(&mut world.paused) {
            events.listeners_of(port).start();
        }
        let World { processes, random, killed, tally, is_over, .. } = &mut *world;
        let now = Instant::now();
        for (number, process) in processes {
            let is_due = process.due.is_some_and(|due| due <= now);
            let is_killed = is_due && (process.is_finishing || random.below(3) > 0);
            if is_killed {
                killed.insert(*number);
                process.peer.kill();
                process.due = None;
                tally.killed += 1;
            } else if is_due || *is_over && !process.is_finishing && process.due.is_some() {
                process.is_finishing = true;
                let sender = events.sender_of(process.port).unwrap();
                sender.post_bytes(bytemuck::bytes_of(&[FINISH, 0, 0, 0])).unwrap();
                let delay = Duration::from_millis(random.below(400));
                process.due = (random.below(4) == 0).then(|| now + delay);
            }
        }
    }
}
