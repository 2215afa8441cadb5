//! A process with many clients of one server, for the soak: they come by three ways, stream, move to other
//! processes, close. It may be killed at any moment.
//!
//! Each client numbers its messages from 0. What it has posted, and what came back, it notes in a file, the
//! *ledger*, which outlives it: after a post has returned, so the server must have at least that much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use zeroport::{
    Address, Event, MessageChannel, MessagePort, PortSet, PostError, Sender, TransferError,
    TransferList, connect, transfer,
};

use crate::stations::Random;
use crate::support::pattern;

/// Ids that one process has for its clients.
pub(crate) const IDS: u64 = 1 << 12;
/// What a process is told when it is started.
pub(crate) const NUMBER: &str = "ZEROPORT_SOAK_PROCESS";
pub(crate) const SEED: &str = "ZEROPORT_SOAK_SEED";
pub(crate) const LEDGER: &str = "ZEROPORT_SOAK_LEDGER";
pub(crate) const CLIENTS: &str = "ZEROPORT_SOAK_CLIENTS";
/// The name of the messages that are requests as well.
pub(crate) const ASK: &str = "ask";

/// Messages that may be on their way.
const WINDOW: u64 = 32;
/// Nobody waits so long for a server that is there.
const LONG: Duration = Duration::from_secs(60);
/// The port of the server's process, among those of the clients.
const HOST: u64 = u64::MAX;

// Orders of the server, and what it is told: four words each, with a port where one goes along.

/// Here is the port that client *a* wants.
pub(crate) const HAVE: u64 = 0;
/// Go on with this port of client *a*, which has posted *b*, and *c* came back.
pub(crate) const GIVE: u64 = 1;
/// Let all clients close, then exit.
pub(crate) const FINISH: u64 = 2;
/// Make a channel for client *a*.
pub(crate) const WANT: u64 = 3;
/// This is the other end of client *a*.
pub(crate) const MADE: u64 = 4;
/// Have another process go on with client *a*; the rest as in [`GIVE`].
pub(crate) const MOVE: u64 = 5;

/// The ways a client comes by its port; the third is a channel of its own.
pub(crate) const GIVEN: u64 = 0;
pub(crate) const CONNECTED: u64 = 1;

pub(crate) fn way_of(id: u64) -> u64 {
    id % 3
}

/// Posts four words with ports; an ordinary user may have to wait until others were received.
pub(crate) fn post_words(
    sender: &Sender,
    words: [u64; 4],
    list: impl Into<TransferList>,
) -> Result<(), TransferError> {
    let mut list = list.into();
    let deadline = Instant::now() + LONG;
    loop {
        match sender.post_bytes_with(bytemuck::bytes_of(&words), list) {
            Err(TransferError { list: back, source: PostError::Os(error), .. })
                if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) =>
            {
                assert!(Instant::now() < deadline, "nobody receives");
                yield_now();
                list = back;
            }
            posted => return posted,
        }
    }
}

/// A message of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) number: u64,
    /// How many came back so far.
    pub(crate) acked: u64,
    /// The process that has posted it.
    pub(crate) holder: u64,
    pub(crate) is_last: bool,
}

impl Record {
    const WORDS: usize = 6;

    pub(crate) fn to_bytes(self, body: usize) -> Vec<u8> {
        let Self { id, number, acked, holder, is_last } = self;
        let mut bytes = vec![0; 8];
        [id, number, acked, holder, u64::from(is_last)]
            .iter()
            .for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes.extend(pattern(id ^ number, body));
        let sum = sum(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    /// Whatever came must be what was posted.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = [0u64; Self::WORDS];
        bytemuck::bytes_of_mut(&mut words).copy_from_slice(&bytes[..8 * Self::WORDS]);
        let [found, id, number, acked, holder, is_last] = words;
        assert_eq!(found, sum(&bytes[8..]), "client {id:#x}, message {number}");
        Self { id, number, acked, holder, is_last: is_last == 1 }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_ne_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

/// What a client has noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noted {
    pub(crate) posted: u64,
    pub(crate) acked: u64,
    pub(crate) is_moving: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger(File);

impl Ledger {
    const ENTRY: u64 = 24;

    pub(crate) fn open(path: &Path) -> Self {
        let options =
            File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self(options.unwrap())
    }

    pub(crate) fn write(&self, id: u64, noted: Noted) {
        let words = [noted.posted, noted.acked, u64::from(noted.is_moving)];
        self.0.write_all_at(bytemuck::bytes_of(&words), id * Self::ENTRY).unwrap();
    }

    /// What all clients of a process have noted; who has noted nothing has all 0.
    pub(crate) fn of_process(&self, number: u64) -> Vec<Noted> {
        self.read(number * IDS, IDS as usize)
    }

    pub(crate) fn of_client(&self, id: u64) -> Noted {
        self.read(id, 1)[0]
    }

    fn read(&self, first: u64, count: usize) -> Vec<Noted> {
        let mut words = vec![[0u64; 3]; count];
        let mut left = bytemuck::cast_slice_mut::<_, u8>(&mut words);
        let mut place = first * Self::ENTRY;
        while !left.is_empty() {
            let got = self.0.read_at(left, place).unwrap();
            // Behind the end nobody has noted anything.
            if got == 0 {
                break;
            }
            place += got as u64;
            left = &mut left[got..];
        }
        let noted = words.iter();
        noted.map(|w| Noted { posted: w[0], acked: w[1], is_moving: w[2] == 1 }).collect()
    }
}

/// The body of a process.
pub(crate) fn live(host: MessagePort, address: Address) {
    let variable = |name| std::env::var(name).unwrap();
    let number = |name| variable(name).parse::<u64>().unwrap();
    let mut set = PortSet::new().unwrap();
    set.insert(HOST, host).unwrap();
    let mut crowd = Crowd {
        set,
        address,
        number: number(NUMBER),
        wanted: number(CLIENTS) as usize,
        random: Random(number(SEED)),
        ledger: Ledger::open(variable(LEDGER).as_ref()),
        clients: BTreeMap::new(),
        made: 0,
        asked_for: 0,
        is_finishing: false,
    };
    while crowd.turn() {}
}

#[derive(Debug, Default)]
struct Client {
    posted: u64,
    acked: u64,
    /// Messages that it is going to post.
    burst: u64,
}

struct Crowd {
    set: PortSet<u64>,
    address: Address,
    number: u64,
    wanted: usize,
    random: Random,
    ledger: Ledger,
    clients: BTreeMap<u64, Client>,
    made: u64,
    /// Ports that the server was asked for and has not given.
    asked_for: usize,
    is_finishing: bool,
}

impl Crowd {
    /// False if this was the last one.
    fn turn(&mut self) -> bool {
        let orders = self.listen();
        for (words, port) in orders {
            self.obey(words, port);
        }
        if self.is_finishing {
            self.finish();
        } else {
            self.do_something();
        }
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.stream(id));
        !(self.is_finishing && self.clients.is_empty() && self.asked_for == 0)
    }

    /// Takes what came back; says what the server orders.
    fn listen(&mut self) -> Vec<([u64; 4], Option<MessagePort>)> {
        let mut orders = Vec::new();
        let nap = Duration::from_micros(self.random.below(20_000));
        for (key, event) in self.set.wait_timeout(nap).unwrap() {
            let message = match event {
                Event::Message(_, message) => message,
                // The server has failed, and says why.
                Event::Closed(_) if key == HOST => std::process::exit(1),
                other => panic!("of {key:#x}: {other:?}"),
            };
            if key == HOST {
                let words = bytemuck::pod_read_unaligned(message.bytes());
                orders.push((words, message.take_port().unwrap()));
                continue;
            }
            let (record, client) = (Record::from_bytes(message.bytes()), &mut self.clients);
            let client = client.get_mut(&key).unwrap();
            assert_eq!((record.id, record.number), (key, client.acked));
            client.acked += 1;
            note(&self.ledger, key, client, false);
        }
        orders
    }

    fn obey(&mut self, [order, id, posted, acked]: [u64; 4], port: Option<MessagePort>) {
        match (order, port) {
            (HAVE, Some(port)) => {
                self.asked_for -= 1;
                self.begin(id, port, Client { burst: 1, ..Client::default() });
            }
            (GIVE, Some(port)) => self.begin(id, port, Client { posted, acked, burst: 1 }),
            (FINISH, None) => self.is_finishing = true,
            (order, _) => panic!("an order that nobody knows: {order}"),
        }
    }

    fn begin(&mut self, id: u64, port: MessagePort, client: Client) {
        self.set.insert(id, port).unwrap();
        note(&self.ledger, id, &client, false);
        self.clients.insert(id, client);
    }

    fn host(&self) -> &Sender {
        self.set.get(&HOST).unwrap()
    }

    /// As many clients as there should be; a few of them begin to stream; one may close or move.
    fn do_something(&mut self) {
        while self.clients.len() + self.asked_for < self.wanted && self.made < IDS {
            self.come();
        }
        for _ in 0..2 {
            let (amount, any) = (self.random.amount(), self.any());
            if let Some(client) = any.and_then(|id| self.clients.get_mut(&id)) {
                client.burst += amount;
            }
        }
        let Some(any) = self.any() else { return };
        match self.random.below(24) {
            0 => self.leave(any),
            1 => self.pass_on(any),
            _ if self.clients.len() > self.wanted => self.leave(any),
            _ => {}
        }
    }

    fn any(&mut self) -> Option<u64> {
        let nth = self.random.below(self.clients.len().max(1) as u64);
        self.clients.keys().nth(nth as usize).copied()
    }

    /// One client more.
    fn come(&mut self) {
        let id = self.number * IDS + self.made;
        self.made += 1;
        let port = match way_of(id) {
            GIVEN => {
                self.asked_for += 1;
                return post_words(self.host(), [WANT, id, 0, 0], transfer![]).unwrap();
            }
            CONNECTED => connect(self.address.clone()).unwrap().port,
            _ => {
                let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
                post_words(self.host(), [MADE, id, 0, 0], port2).unwrap();
                port1
            }
        };
        self.begin(id, port, Client { burst: 1, ..Client::default() });
    }

    /// Posts what the window has room for.
    fn stream(&mut self, id: u64) {
        let client = &self.clients[&id];
        let room = (client.acked + WINDOW).saturating_sub(client.posted);
        for _ in 0..client.burst.min(room) {
            self.post(id, false);
        }
    }

    fn post(&mut self, id: u64, is_last: bool) {
        let body = match self.random.below(512) {
            0 => 100_000,
            1..8 => 5_000,
            other => other / 8,
        };
        let client = self.clients.get_mut(&id).unwrap();
        let Client { posted: number, acked, .. } = *client;
        let bytes =
            Record { id, number, acked, holder: self.number, is_last }.to_bytes(body as usize);
        let sender = self.set.get(&id).unwrap();
        let mut reply = None;
        if !is_last && self.random.below(64) == 0 {
            reply = Some(sender.invoke(ASK, bytes.as_slice(), transfer![]).unwrap());
        } else {
            sender.post_bytes(&bytes).unwrap();
        }
        client.posted += 1;
        client.burst = client.burst.saturating_sub(1);
        note(&self.ledger, id, client, false);
        if let Some(reply) = reply {
            assert_eq!(reply.recv_timeout(LONG).unwrap().bytes(), bytes);
        }
    }

    /// Closes, whatever is still on its way back.
    fn leave(&mut self, id: u64) {
        self.post(id, true);
        self.clients.remove(&id);
        self.set.remove(&id).unwrap().close();
    }

    /// Has another process go on, whatever is still on its way back.
    fn pass_on(&mut self, id: u64) {
        // Before its first message the server does not know who has connected.
        if way_of(id) == CONNECTED && self.clients[&id].acked == 0 {
            return;
        }
        let client = self.clients.remove(&id).unwrap();
        let port = self.set.remove(&id).unwrap();
        note(&self.ledger, id, &client, true);
        post_words(self.host(), [MOVE, id, client.posted, client.acked], port).unwrap();
    }

    /// Lets those go that have all back.
    fn finish(&mut self) {
        let all = self.clients.iter_mut();
        let done = all.filter(|(_, client)| client.acked == client.posted && client.burst == 0);
        let done: Vec<u64> = done.map(|(id, _)| *id).collect();
        done.into_iter().for_each(|id| self.leave(id));
    }
}

fn note(ledger: &Ledger, id: u64, client: &Client, is_moving: bool) {
    ledger.write(id, Noted { posted: client.posted, acked: client.acked, is_moving });
}
