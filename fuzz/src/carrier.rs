//! A hostile carrier: any packets with any descriptors on its lanes and line, any records and links, memory of
//! all kinds for rings, payloads and buffers. The victim takes what it is offered, posts, and moves. Nothing
//! panics or hangs, and nothing of it stays behind.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use arbitrary::Arbitrary;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, shutdown, socketpair,
};
use zeroport::{
    Buffer, ChannelOptions, Message, MessageChannel, MessagePort, PeerState, PostError, RecvError,
    TakeError, Trust, fuzzing,
};

const CAPACITY: u64 = 4096;
const GROWN: u64 = 8192;
const LIMIT: u64 = 1 << 20;
const RING: u64 = 4096;
const MESSAGE: u64 = 1 << 32;
const LINK: u64 = 3 << 32;
const OUTSIDE: u8 = 1;
const NEXT_LANE: u8 = 2;
const TICKET_LEN: usize = 80;
const SHORT: Duration = Duration::from_micros(20);
/// Of the hostile side; as many as the script could name.
const PORTS: usize = 4;
/// Bytes of the memory that is offered for payloads and buffers.
const LEN: u64 = 10_000;

#[derive(Arbitrary, Debug)]
struct Script {
    victim: Victim,
    /// Whether the first step is an honest lane's end: most is behind that.
    lane: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Victim {
    Untrusted,
    Cold,
    Warm,
    /// One that does not trust the other side, on a channel whose memory is used again.
    Stranger,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The hostile side.
    LaneEnd(Vec<Thing>),
    Line {
        len: u8,
        things: Vec<Thing>,
    },
    Lane(Packet),
    /// An envelope with these packets, and whether its sender keeps its end.
    Envelope {
        packets: Vec<Packet>,
        keep: bool,
    },
    /// What an honest side sends, once or again.
    Parcel {
        ports: Vec<u8>,
        buffers: u8,
        enveloped: bool,
        told: Lie,
    },
    Record {
        flags: u8,
        ports: u16,
        buffers: u16,
        len: u8,
        outside: [u32; 4],
    },
    Word {
        place: u16,
        word: u64,
    },
    Shut {
        lane: bool,
        how: u8,
    },
    /// A further lane, from now on in use.
    NewLane,
    /// Goes on in another ring, which is one if nothing is said.
    Grow {
        ring: Option<Thing>,
        told: Lie,
        order: Lie,
    },
    Back,
    /// A word of the ring that it posts to, if that is a grown one.
    GrownWord {
        place: u16,
        word: u64,
    },
    Large {
        memory: Option<Thing>,
        told: Lie,
        len: Lie,
        list: Option<Vec<u8>>,
    },
    /// A payload in a memory that the victim may have kept.
    Kept {
        memory: Thing,
        len: Lie,
    },
    /// Descriptors that the victim has sent are taken, and rings among them written to.
    TakeSent {
        word: u64,
    },
    /// The victim.
    Receive {
        hold: bool,
        take: u8,
    },
    Take {
        message: u8,
        count: u8,
    },
    Drop(u8),
    Use(u8),
    Move(u8),
    Post {
        len: u16,
        buffer: bool,
        count: u8,
    },
    /// The victim itself goes over another channel; its messages were let go.
    MoveVictim,
}

/// Something that is told: mostly the truth.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Lie {
    True,
    TrueToo,
    Near(i8),
    Any(u64),
}

impl Lie {
    fn told(self, truth: u64) -> u64 {
        match self {
            Self::True | Self::TrueToo => truth,
            Self::Near(off) => truth.saturating_add_signed(off.into()),
            Self::Any(told) => told,
        }
    }
}

/// Tickets and descriptors, as they come.
#[derive(Arbitrary, Debug)]
struct Packet {
    tickets: Vec<Change>,
    things: Vec<Thing>,
    /// Bytes more or less than whole tickets.
    crooked: i8,
}

/// A ticket of a port or of something else, with one byte changed.
#[derive(Arbitrary, Debug)]
struct Change {
    port: u8,
    place: u8,
    value: u8,
    kind: u8,
}

/// Something that a descriptor can lead to.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Thing {
    /// One of a port's own.
    Of {
        port: u8,
        which: u8,
    },
    Null,
    Memory,
    Pipe,
    Stream,
    Socket,
    OwnLine,
    OwnLane,
    LanesEnd,
    Segment,
    /// What is good for a ring, a payload or a buffer; and what only looks so.
    Ring,
    Sealed,
    Warm,
    Unsealed,
    Hole,
    WarmHole,
    SealedRing,
}

/// Everything that the hostile side has.
struct Hostile {
    victim: Victim,
    segment: File,
    line: OwnedFd,
    lane: OwnedFd,
    lanes_end: OwnedFd,
    /// Whether the first packet on the lane has no record yet.
    is_fresh: bool,
    ports: Vec<(MessagePort, [u8; TICKET_LEN], Vec<OwnedFd>)>,
    things: [OwnedFd; 12],
    kept: Vec<OwnedFd>,
    /// The grown ring that it posts to.
    ring: Option<File>,
    /// Where its next record goes: in the first ring, and in the other one.
    at: [u64; 2],
}

pub fn carrier(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    // What is made once for the whole process.
    drop(MessageChannel::new().unwrap());
    zeroport::trim();
    let before = open_descriptors();
    play(&script);
    for _ in 0..50 {
        // Sockets that hold each other are found when one is closed.
        drop(pair());
        zeroport::trim();
        if open_descriptors() == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_descriptors(), before, "descriptors");
}

fn play(script: &Script) {
    let options = ChannelOptions::new().capacity(CAPACITY).limit(LIMIT);
    let options = match script.victim {
        Victim::Untrusted => options.trust(Trust::Untrusted),
        Victim::Cold => options.warm(false),
        Victim::Warm | Victim::Stranger => options,
    };
    let MessageChannel { port1, port2: mut victim } = options.open().unwrap();
    if script.victim == Victim::Stranger {
        // SAFETY: nobody but this function has them.
        let parts = unsafe { victim.into_descriptors_trusted() }.unwrap();
        victim = MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap();
    }
    let mut hostile = Hostile::new(port1, script.victim);
    if script.lane {
        hostile.send(&hostile.line, LANE_END, &[hostile.lanes_end.as_fd()]);
    }
    let mut ports = Vec::new();
    let moves = |step: &Step| matches!(step, Step::MoveVictim);
    let steps = &script.steps[..script.steps.len().min(40)];
    for (number, steps) in steps.split(moves).enumerate() {
        if number > 0 {
            let Some(moved) = move_on(victim) else { return };
            victim = moved;
        }
        play_steps(&victim, &mut hostile, &mut ports, steps);
    }
    drop(hostile);
    end(&victim, ports);
}

const LANE_END: &[u8] = b"zp-lane\0";

/// Gives the victim away, and takes it; by an honest carrier, which nothing of it touches. `None`: the other
/// side has made a segment that is none of it.
fn move_on(victim: MessagePort) -> Option<MessagePort> {
    let MessageChannel { port1, port2 } =
        ChannelOptions::new().trust(victim.trust()).open().unwrap();
    match port1.post_bytes_with_timeout(b"", victim, SHORT) {
        Ok(()) => {
            let taken = port2.recv().unwrap().take_port();
            assert_eq!(port2.peer_state(), PeerState::Open, "an honest carrier");
            match taken {
                Ok(Some(victim)) => Some(victim),
                Err(TakeError::Attach { .. }) => None,
                other => panic!("{other:?}"),
            }
        }
        // It has ended, or belongs to a trusted channel.
        Err(refused) => {
            assert!(
                matches!(refused.source, PostError::Untransferable { .. } | PostError::Os(_)),
                "{refused:?}"
            );
            refused.list.into_ports().pop()
        }
    }
}

fn play_steps(
    victim: &MessagePort,
    hostile: &mut Hostile,
    ports: &mut Vec<MessagePort>,
    steps: &[Step],
) {
    let mut held = Vec::new();
    for step in steps {
        match step {
            Step::Receive { hold, take } => {
                if let Some(message) = receive(victim) {
                    ports.extend(take_from(&message, *take, victim.trust()));
                    held.extend(hold.then_some(message));
                }
            }
            Step::Take { message, count } => {
                if let Some(message) = pick(&held, *message) {
                    ports.extend(take_from(message, *count, victim.trust()));
                }
            }
            Step::Drop(index) if !held.is_empty() => {
                drop(held.swap_remove(usize::from(*index) % held.len()));
            }
            Step::Drop(_) => {
                ports.pop();
            }
            Step::Use(index) => pick(ports, *index).into_iter().for_each(use_port),
            Step::Move(index) if !ports.is_empty() => {
                give_on(ports.swap_remove(usize::from(*index) % ports.len()));
            }
            Step::Post { len, buffer, count } => {
                for _ in 0..count % 32 {
                    post(victim, (*len).into(), *buffer);
                }
            }
            step => hostile.play(step),
        }
    }
    // Some of what was not taken is taken at the end.
    for message in &held {
        drop(take_from(message, u8::MAX, victim.trust()));
    }
}

/// Now the other side is gone (though a copy of its line that lies unread may hide it): all that is left
/// comes, and after the victim's own close the end, for ever.
fn end(victim: &MessagePort, ports: Vec<MessagePort>) {
    drop(ports);
    // A ring can be one without end.
    for message in victim.drain().take(10_000) {
        drop(take_from(&message, 3, victim.trust()));
    }
    victim.closer().close();
    let Err(RecvError::Closed(reason)) = victim.recv() else { panic!("closed") };
    assert_eq!(victim.recv().unwrap_err(), RecvError::Closed(reason));
}

fn pick<T>(items: &[T], index: u8) -> Option<&T> {
    items.get(usize::from(index) % items.len().max(1))
}

fn receive(victim: &MessagePort) -> Option<Message<'_>> {
    match victim.recv_timeout(SHORT) {
        Ok(message) => {
            let sum = message.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            std::hint::black_box(sum);
            Some(message)
        }
        Err(RecvError::Empty | RecvError::Closed(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Takes ports and buffers, so many of each.
fn take_from(message: &Message<'_>, count: u8, carrier: Trust) -> Vec<MessagePort> {
    let (announced, mut ports) = (message.port_count(), Vec::new());
    assert!(announced + message.buffer_count() <= 1024);
    for taken in 0..count {
        match message.take_port() {
            Ok(Some(port)) => {
                assert!(carrier == Trust::Trusted || port.trust() == Trust::Untrusted);
                ports.push(port);
            }
            Ok(None) => assert!(message.port_count() == 0 && usize::from(taken) >= announced),
            Err(TakeError::Attach { index, .. }) => assert!(index < 1024),
            Err(TakeError::Violated) => break,
            Err(error) => panic!("{error}"),
        }
        match message.take_buffer() {
            Ok(Some(buffer)) => {
                std::hint::black_box(buffer.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
            }
            Ok(None) => assert_eq!(message.buffer_count(), 0),
            Err(TakeError::Violated) => break,
            Err(error) => panic!("{error}"),
        }
    }
    ports
}

fn post(port: &MessagePort, len: usize, buffer: bool) {
    let bytes = vec![1; len];
    let posted = if buffer {
        let buffer = Buffer::from_slice(&bytes).unwrap();
        port.try_post_bytes_with(b"", buffer).map_err(|refused| {
            assert_eq!(refused.list.len(), 1, "it comes back");
            refused.source
        })
    } else {
        port.try_post_bytes(&bytes)
    };
    match posted {
        // A lane whose other end is gone refuses by itself.
        Ok(()) | Err(PostError::Full { .. } | PostError::Closed(_) | PostError::Os(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

fn use_port(port: &MessagePort) {
    for len in [5, 3000] {
        let _ = port.try_post_bytes(&vec![2; len]);
    }
    let MessageChannel { port1: gift, port2: _kept } = MessageChannel::untrusted().unwrap();
    let posted = port.post_bytes_with_timeout(b"", gift, SHORT);
    assert!(posted.is_ok() || posted.is_err_and(|error| error.list.len() == 1));
    if let Ok(message) = port.recv_timeout(SHORT) {
        drop(take_from(&message, 2, port.trust()));
    }
}

/// Away with a port, whatever lies in it.
fn give_on(port: MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let trust = port.trust();
    if port1.post_bytes_with_timeout(b"", port, SHORT).is_ok() {
        let taken = port2.recv().unwrap().take_ports::<1>();
        assert!(taken.is_ok_and(|[port]| port.trust() == trust) || trust == Trust::Untrusted);
    }
}

/// A memfd of these contents, as long as it says.
fn memory(contents: &[u8], len: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("fuzz", flags).unwrap());
    file.write_all_at(contents, 0).unwrap();
    file.set_len(len).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

fn ring(seals: SealFlags) -> OwnedFd {
    let (identity, len) = fuzzing::identity([GROWN, 0]);
    let identity: Vec<u8> = identity.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory(&identity, len, seals)
}

impl Hostile {
    fn new(port: MessagePort, victim: Victim) -> Self {
        // SAFETY: nobody reads a message in place while it is written to.
        let parts = unsafe { port.into_descriptors_trusted() }.unwrap();
        let mut parts = parts.descriptors.into_iter();
        let (segment, line) = (parts.next().unwrap().into(), parts.next().unwrap());
        let [lane, lanes_end] = pair();
        let ports = (0..PORTS).map(|number| {
            let options =
                ChannelOptions::new().capacity(CAPACITY).limit(LIMIT).trust(Trust::Untrusted);
            let MessageChannel { port1, port2 } = options.open().unwrap();
            port1.post_bytes(b"waits").unwrap();
            if number == 0 {
                // One that stands in grown rings.
                for port in [&port1, &port2] {
                    (0..10).for_each(|_| port.post_bytes(&[1; 1000]).unwrap());
                }
                port2.drain().take(8).for_each(drop);
            }
            let parts = port2.into_descriptors().unwrap();
            (port1, parts.ticket, parts.descriptors)
        });
        let stream =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let size = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let all = size | SealFlags::WRITE;
        let pages = LEN.next_multiple_of(4096);
        let contents = vec![7; (RING + pages) as usize];
        let things = [
            File::open("/dev/null").unwrap().into(),
            memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap(),
            std::io::pipe().unwrap().0.into(),
            stream.unwrap().0,
            pair().into_iter().next().unwrap(),
            ring(size),
            memory(&contents[..pages as usize], pages, all),
            memory(&contents, RING + pages, size),
            memory(&contents, RING + pages, SealFlags::empty()),
            memory(&[], pages, all),
            memory(&[], RING + pages, size),
            ring(all),
        ];
        let ports = ports.collect();
        let (kept, at, ring, is_fresh) = (Vec::new(), [0; 2], None, true);
        Self { victim, segment, line, lane, lanes_end, is_fresh, ports, things, kept, ring, at }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::LaneEnd(things) => self.send(&self.line, LANE_END, &self.fds(things)),
            Step::Line { len, things } => {
                self.send(&self.line, &vec![1; (len % 70).into()], &self.fds(things));
            }
            Step::Lane(packet) => self.pack(&self.lane, packet),
            Step::Envelope { packets, keep } => {
                let [inner, end] = pair();
                packets.iter().for_each(|packet| self.pack(&inner, packet));
                self.send(&self.lane, &ticket(ENVELOPE, 0), &[end.as_fd()]);
                self.kept.extend(keep.then_some(inner));
            }
            Step::Parcel { ports, buffers, enveloped, told } => {
                self.parcel(ports, usize::from(*buffers) % 8, *enveloped, *told);
            }
            Step::Record { flags, ports, buffers, len, outside } => {
                let len = usize::from(*len);
                let outside = outside.map(u64::from);
                self.record(flags % 8, [*ports, *buffers], outside, len);
            }
            Step::Word { place, word } => {
                let place = u64::from(*place) % (RING + 2 * CAPACITY - 8);
                self.segment.write_all_at(&word.to_le_bytes(), place).unwrap();
            }
            Step::Shut { lane, how } => {
                use rustix::net::Shutdown::{Both, Read, Write};
                let how = [Read, Write, Both][usize::from(how % 3)];
                let _ = shutdown(if *lane { &self.lane } else { &self.line }, how);
            }
            Step::NewLane => {
                [self.lane, self.lanes_end] = pair();
                self.is_fresh = true;
                self.send(&self.line, LANE_END, &[self.lanes_end.as_fd()]);
            }
            Step::Grow { ring, told, order } => self.grow(*ring, *told, *order),
            Step::Back => {
                self.link(0, 0);
                self.ring = None;
            }
            Step::GrownWord { place, word } => {
                if let Some(ring) = &self.ring {
                    let place = u64::from(*place) % (RING + GROWN - 8);
                    // Some memory cannot be written.
                    let _ = ring.write_all_at(&word.to_le_bytes(), place);
                }
            }
            Step::Large { memory, told, len, list } => {
                self.large(*memory, *told, *len, list.as_deref());
            }
            Step::Kept { memory, len } => {
                let file = rustix::fs::fstat(self.fd(*memory)).unwrap().st_ino;
                self.record(OUTSIDE, [0, 0], [len.told(LEN), 0, file, 0], 32);
            }
            Step::TakeSent { word } => self.take_sent(*word),
            _ => {}
        }
    }

    /// The flags of the next record: whether it is the first that needs this lane.
    fn flags(&mut self) -> u8 {
        if std::mem::take(&mut self.is_fresh) { NEXT_LANE } else { 0 }
    }

    fn parcel(&mut self, ports: &[u8], buffers: usize, enveloped: bool, told: Lie) {
        let ports: Vec<_> = ports.iter().filter_map(|port| pick(&self.ports, *port)).collect();
        let ports = &ports[..ports.len().min(30)];
        let mut tickets: Vec<u8> = ports.iter().flat_map(|(_, ticket, _)| *ticket).collect();
        tickets.extend(ticket(BUFFER, LEN).repeat(buffers));
        let buffer = self.fd(Thing::Sealed);
        let fds = ports.iter().flat_map(|(.., fds)| fds.iter().map(AsFd::as_fd));
        let fds: Vec<_> = fds.chain(std::iter::repeat_n(buffer, buffers)).collect();
        if enveloped {
            let [inner, end] = pair();
            self.send(&inner, &tickets, &fds);
            self.send(&self.lane, &ticket(ENVELOPE, 0), &[end.as_fd()]);
        } else {
            self.send(&self.lane, &tickets, &fds);
        }
        let counts = [ports.len() as u16, buffers as u16];
        let bytes = told.told(LEN * buffers as u64);
        let flags = self.flags() | if buffers > 0 { OUTSIDE } else { 0 };
        self.record(flags, counts, [0, bytes, 0, 0], 32);
    }

    fn grow(&mut self, thing: Option<Thing>, told: Lie, order: Lie) {
        let fresh = ring(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
        let ring = thing.map_or(fresh.as_fd(), |thing| self.fd(thing));
        let ring = File::from(ring.try_clone_to_owned().unwrap());
        let told = told.told(GROWN);
        self.send(&self.lane, &ticket(RINGS, told), &[ring.as_fd()]);
        let flags = self.flags();
        self.link(order.told(GROWN.trailing_zeros().into()) as u32, flags);
        (self.ring, self.at[1]) = (Some(ring), 0);
    }

    fn large(&mut self, memory: Option<Thing>, told: Lie, len: Lie, list: Option<&[u8]>) {
        let uses_again = matches!(self.victim, Victim::Warm | Victim::Stranger);
        let memory = memory.unwrap_or(if uses_again { Thing::Warm } else { Thing::Sealed });
        let len = len.told(LEN);
        // Not so much that the fuzzer itself runs out of memory.
        let len = if len <= 4 << 30 { len.min(4 << 20) } else { len };
        let payload = ticket(PAYLOAD, told.told(len));
        let [mut ports, mut buffers] = [0; 2];
        if let Some(list) = list {
            let [inner, end] = pair();
            for number in list.iter().take(20) {
                if number % 2 == 0 {
                    let (_, ticket, fds) = &self.ports[usize::from(*number) % PORTS];
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    self.send(&inner, ticket, &fds);
                    ports += 1;
                } else {
                    self.send(&inner, &ticket(BUFFER, LEN), &[self.fd(Thing::Sealed)]);
                    buffers += 1;
                }
            }
            let both = [payload, ticket(ENVELOPE, 0)].concat();
            self.send(&self.lane, &both, &[self.fd(memory), end.as_fd()]);
        } else {
            self.send(&self.lane, &payload, &[self.fd(memory)]);
        }
        let flags = self.flags() | OUTSIDE;
        self.record(flags, [ports, buffers], [len, LEN * u64::from(buffers), 0, 0], 32);
    }

    fn record(&mut self, flags: u8, [ports, buffers]: [u16; 2], outside: [u64; 4], len: usize) {
        let head = MESSAGE | u64::from(flags) << 40 | u64::from(ports) << 48 | len as u64;
        let mut payload: Vec<u8> = outside.iter().flat_map(|word| word.to_le_bytes()).collect();
        payload.resize(len, 9);
        self.publish(head, u64::from(buffers) << 32, &payload);
    }

    fn link(&mut self, order: u32, flags: u8) {
        self.publish(LINK | u64::from(flags) << 40, order.into(), &[]);
    }

    fn publish(&mut self, head: u64, detail: u64, payload: &[u8]) {
        let (file, capacity) = match &self.ring {
            None => (&self.segment, CAPACITY),
            Some(ring) => (ring, GROWN),
        };
        let at = &mut self.at[usize::from(self.ring.is_some())];
        let size = 16 + payload.len().next_multiple_of(16) as u64;
        if *at % capacity + size + 16 > capacity {
            return;
        }
        let place = RING + *at % capacity;
        let write = |bytes: &[u8], place| file.write_all_at(bytes, place);
        // What cannot be written to is no ring.
        let written = write(payload, place + 16)
            .and_then(|()| write(&[0; 8], place + size))
            .and_then(|()| write(&detail.to_le_bytes(), place + 8))
            .and_then(|()| write(&head.to_le_bytes(), place));
        if written.is_ok() {
            *at += size;
        }
    }

    /// Takes a lane's end that the victim has sent, and what lies there: rings are written to.
    fn take_sent(&mut self, word: u64) {
        let Some(lane) = take_descriptor(&self.line) else { return };
        while let Some(fd) = take_descriptor(&lane) {
            let file = File::from(fd);
            // Most are no rings, or cannot be written.
            for place in [0x180, RING] {
                let _ = file.write_all_at(&word.to_le_bytes(), place);
            }
        }
        self.kept.push(lane);
    }

    fn pack(&self, socket: &OwnedFd, packet: &Packet) {
        let tickets = packet.tickets.iter().take(130).flat_map(|change| {
            let mut ticket = match change.kind % 8 {
                kind @ 2..=5 => ticket(kind, if kind == RINGS { GROWN } else { LEN }),
                _ => self.ports[usize::from(change.port) % PORTS].1,
            };
            ticket[usize::from(change.place) % TICKET_LEN] ^= change.value;
            ticket
        });
        let mut bytes: Vec<u8> = tickets.collect();
        bytes.resize(bytes.len().saturating_add_signed(packet.crooked.into()), 0);
        self.send(socket, &bytes, &self.fds(&packet.things));
    }

    fn fds(&self, things: &[Thing]) -> Vec<BorrowedFd<'_>> {
        things.iter().take(253).map(|thing| self.fd(*thing)).collect()
    }

    fn fd(&self, thing: Thing) -> BorrowedFd<'_> {
        let place = match thing {
            Thing::Of { port, which } => {
                let (.., fds) = &self.ports[usize::from(port) % PORTS];
                return fds[usize::from(which) % fds.len()].as_fd();
            }
            Thing::OwnLine => return self.line.as_fd(),
            Thing::OwnLane => return self.lane.as_fd(),
            Thing::LanesEnd => return self.lanes_end.as_fd(),
            Thing::Segment => return self.segment.as_fd(),
            Thing::Null => 0,
            Thing::Memory => 1,
            Thing::Pipe => 2,
            Thing::Stream => 3,
            Thing::Socket => 4,
            Thing::Ring => 5,
            Thing::Sealed => 6,
            Thing::Warm => 7,
            Thing::Unsealed => 8,
            Thing::Hole => 9,
            Thing::WarmHole => 10,
            Thing::SealedRing => 11,
        };
        self.things[place].as_fd()
    }

    /// Sends if there is room; a socket that is full or shut is as good.
    fn send(&self, socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags);
    }
}

const ENVELOPE: u8 = 2;
const BUFFER: u8 = 3;
const PAYLOAD: u8 = 4;
const RINGS: u8 = 5;

/// A ticket for anything but a port.
fn ticket(kind: u8, len: u64) -> [u8; TICKET_LEN] {
    let mut ticket = [0; TICKET_LEN];
    ticket[0] = kind;
    if kind != ENVELOPE {
        ticket[72..].copy_from_slice(&len.to_le_bytes());
    }
    ticket
}

/// The descriptor of the next packet that has one.
fn take_descriptor(socket: &OwnedFd) -> Option<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    for _ in 0..1000 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let bytes = &mut [0; 2 * TICKET_LEN];
        let bytes = &mut [std::io::IoSliceMut::new(bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let taken = recvmsg(socket, bytes, &mut control, flags).ok()?;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if fd.is_some() || taken.bytes == 0 {
            return fd;
        }
    }
    None
}

fn pair() -> [OwnedFd; 2] {
    let (first, second) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    [first, second]
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
