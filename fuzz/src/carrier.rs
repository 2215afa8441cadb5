//! A hostile carrier: any packets with any descriptors on its lane and line, any records. The victim
//! takes what it is offered. Nothing panics or hangs, and nothing of it stays behind.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use arbitrary::Arbitrary;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, shutdown, socketpair,
};
use zeroport::{ChannelOptions, Message, MessageChannel, MessagePort, RecvError, TakeError, Trust};

const CAPACITY: u64 = 4096;
const RING: u64 = 4096;
const MESSAGE: u64 = 1 << 32;
const TICKET_LEN: usize = 32;
const SHORT: Duration = Duration::from_micros(20);
/// Of the hostile side; as many as the script could name.
const PORTS: usize = 4;

#[derive(Arbitrary, Debug)]
struct Script {
    untrusted: bool,
    /// Whether the first step is an honest lane's end: most is behind that.
    lane: bool,
    steps: Vec<Step>,
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
        enveloped: bool,
    },
    Record {
        ports: u16,
        len: u8,
    },
    Word {
        place: u16,
        word: u64,
    },
    Shut {
        lane: bool,
        how: u8,
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
}

/// Tickets and descriptors, as they come.
#[derive(Arbitrary, Debug)]
struct Packet {
    tickets: Vec<Change>,
    things: Vec<Thing>,
    /// Bytes more or less than whole tickets.
    crooked: i8,
}

/// A ticket of a port, with one byte changed.
#[derive(Arbitrary, Debug)]
struct Change {
    port: u8,
    place: u8,
    value: u8,
    envelope: bool,
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
}

/// Everything that the hostile side has.
struct Hostile {
    segment: File,
    line: OwnedFd,
    lane: OwnedFd,
    lanes_end: OwnedFd,
    ports: Vec<(MessagePort, [u8; TICKET_LEN], Vec<OwnedFd>)>,
    things: [OwnedFd; 5],
    kept: Vec<OwnedFd>,
    at: u64,
}

pub fn carrier(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    // What is made once for the whole process.
    drop(MessageChannel::new().unwrap());
    let before = open_descriptors();
    play(&script);
    for _ in 0..50 {
        // Sockets that hold each other are found when one is closed.
        drop(pair());
        if open_descriptors() == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_descriptors(), before, "descriptors");
}

fn play(script: &Script) {
    let trust = if script.untrusted { Trust::Untrusted } else { Trust::Trusted };
    let options = ChannelOptions::new().capacity(CAPACITY).trust(trust);
    let MessageChannel { port1, port2: victim } = options.open().unwrap();
    let mut hostile = Hostile::new(port1);
    if script.lane {
        hostile.send(&hostile.line, b"zp-lane\0", &[hostile.lanes_end.as_fd()]);
    }
    let (mut held, mut ports) = (Vec::new(), Vec::new());
    for step in script.steps.iter().take(40) {
        match step {
            Step::Receive { hold, take } => {
                if let Some(message) = receive(&victim) {
                    ports.extend(take_ports(&message, *take, trust));
                    held.extend(hold.then_some(message));
                }
            }
            Step::Take { message, count } => {
                if let Some(message) = pick(&held, *message) {
                    ports.extend(take_ports(message, *count, trust));
                }
            }
            Step::Drop(index) if !held.is_empty() => {
                drop(held.swap_remove(usize::from(*index) % held.len()));
            }
            Step::Drop(_) => {
                ports.pop();
            }
            Step::Use(index) => pick(&ports, *index).into_iter().for_each(use_port),
            Step::Move(index) if !ports.is_empty() => {
                give_on(ports.swap_remove(usize::from(*index) % ports.len()));
            }
            step => hostile.play(step),
        }
    }
    drop(hostile);
    end(&victim, held, ports, trust);
}

/// Now the other side is gone (though a copy of its line that lies unread may hide it): all that is left
/// comes, and after the victim's own close the end, for ever.
fn end(victim: &MessagePort, held: Vec<Message<'_>>, ports: Vec<MessagePort>, trust: Trust) {
    for message in &held {
        drop(take_ports(message, u8::MAX, trust));
    }
    drop((held, ports));
    // A ring can be one without end.
    for message in victim.drain() {
        drop(take_ports(&message, 3, trust));
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
        Ok(message) => Some(message),
        Err(RecvError::Empty | RecvError::Closed(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn take_ports(message: &Message<'_>, count: u8, carrier: Trust) -> Vec<MessagePort> {
    let (announced, mut ports) = (message.port_count(), Vec::new());
    assert!(announced <= 1024);
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
    }
    ports
}

fn use_port(port: &MessagePort) {
    let _ = port.try_post_bytes(b"hello");
    let MessageChannel { port1: gift, port2: _kept } = MessageChannel::untrusted().unwrap();
    let posted = port.post_bytes_with_timeout(b"", gift, SHORT);
    assert!(posted.is_ok() || posted.is_err_and(|error| error.list.len() == 1));
    if let Ok(message) = port.recv_timeout(SHORT) {
        drop(take_ports(&message, 2, port.trust()));
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

impl Hostile {
    fn new(port: MessagePort) -> Self {
        // SAFETY: nobody reads a message in place while it is written to.
        let parts = unsafe { port.into_descriptors_trusted() }.unwrap();
        let mut parts = parts.descriptors.into_iter();
        let (segment, line) = (parts.next().unwrap().into(), parts.next().unwrap());
        let [lane, lanes_end] = pair();
        let ports = (0..PORTS).map(|_| {
            let options = ChannelOptions::new().capacity(CAPACITY).trust(Trust::Untrusted);
            let MessageChannel { port1, port2 } = options.open().unwrap();
            port1.post_bytes(b"waits").unwrap();
            let parts = port2.into_descriptors().unwrap();
            (port1, parts.ticket, parts.descriptors)
        });
        let stream =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let things = [
            File::open("/dev/null").unwrap().into(),
            rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
            std::io::pipe().unwrap().0.into(),
            stream.unwrap().0,
            pair().into_iter().next().unwrap(),
        ];
        let ports = ports.collect();
        Self { segment, line, lane, lanes_end, ports, things, kept: Vec::new(), at: 0 }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::LaneEnd(things) => self.send(&self.line, b"zp-lane\0", &self.fds(things)),
            Step::Line { len, things } => {
                self.send(&self.line, &vec![1; (len % 70).into()], &self.fds(things));
            }
            Step::Lane(packet) => self.pack(&self.lane, packet),
            Step::Envelope { packets, keep } => {
                let [inner, end] = pair();
                packets.iter().for_each(|packet| self.pack(&inner, packet));
                self.send(&self.lane, &envelope(), &[end.as_fd()]);
                self.kept.extend(keep.then_some(inner));
            }
            Step::Parcel { ports, enveloped } => self.parcel(ports, *enveloped),
            Step::Record { ports, len } => self.record(*ports, (*len).into()),
            Step::Word { place, word } => {
                let place = u64::from(*place) % (RING + 2 * CAPACITY - 8);
                self.segment.write_all_at(&word.to_le_bytes(), place).unwrap();
            }
            Step::Shut { lane, how } => {
                use rustix::net::Shutdown::{Both, Read, Write};
                let how = [Read, Write, Both][usize::from(how % 3)];
                let _ = shutdown(if *lane { &self.lane } else { &self.line }, how);
            }
            _ => {}
        }
    }

    fn parcel(&mut self, ports: &[u8], enveloped: bool) {
        let ports: Vec<_> = ports.iter().filter_map(|port| pick(&self.ports, *port)).collect();
        let ports = &ports[..ports.len().min(100)];
        let tickets: Vec<u8> = ports.iter().flat_map(|(_, ticket, _)| *ticket).collect();
        let fds: Vec<_> = ports.iter().flat_map(|(.., fds)| fds.iter().map(AsFd::as_fd)).collect();
        if enveloped {
            let [inner, end] = pair();
            self.send(&inner, &tickets, &fds);
            self.send(&self.lane, &envelope(), &[end.as_fd()]);
        } else {
            self.send(&self.lane, &tickets, &fds);
        }
        self.record(ports.len() as u16, 0);
    }

    fn record(&mut self, ports: u16, len: u64) {
        let size = 16 + len.next_multiple_of(16);
        if self.at % CAPACITY + size + 16 > CAPACITY {
            return;
        }
        let place = RING + self.at % CAPACITY;
        self.segment.write_all_at(&[0; 8], place + size).unwrap();
        let head = MESSAGE | u64::from(ports) << 48 | len;
        self.segment.write_all_at(&head.to_le_bytes(), place).unwrap();
        self.at += size;
    }

    fn pack(&self, socket: &OwnedFd, packet: &Packet) {
        let tickets = packet.tickets.iter().take(130).flat_map(|change| {
            let mut ticket = if change.envelope { envelope() } else { self.ticket(change.port) };
            ticket[usize::from(change.place) % TICKET_LEN] ^= change.value;
            ticket
        });
        let mut bytes: Vec<u8> = tickets.collect();
        bytes.resize(bytes.len().saturating_add_signed(packet.crooked.into()), 0);
        self.send(socket, &bytes, &self.fds(&packet.things));
    }

    fn ticket(&self, port: u8) -> [u8; TICKET_LEN] {
        self.ports[usize::from(port) % PORTS].1
    }

    fn fds(&self, things: &[Thing]) -> Vec<BorrowedFd<'_>> {
        let fd = |thing: &Thing| match *thing {
            Thing::Of { port, which } => {
                let (.., fds) = &self.ports[usize::from(port) % PORTS];
                fds[usize::from(which) % fds.len()].as_fd()
            }
            Thing::Null => self.things[0].as_fd(),
            Thing::Memory => self.things[1].as_fd(),
            Thing::Pipe => self.things[2].as_fd(),
            Thing::Stream => self.things[3].as_fd(),
            Thing::Socket => self.things[4].as_fd(),
            Thing::OwnLine => self.line.as_fd(),
            Thing::OwnLane => self.lane.as_fd(),
            Thing::LanesEnd => self.lanes_end.as_fd(),
        };
        things.iter().take(253).map(fd).collect()
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

fn envelope() -> [u8; TICKET_LEN] {
    let mut ticket = [0; TICKET_LEN];
    ticket[0] = 2;
    ticket
}

fn pair() -> [OwnedFd; 2] {
    let (first, second) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    [first, second]
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
