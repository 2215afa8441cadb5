//! A hostile other side of a carrier: its records claim ports that never came, its packets carry what is
//! no port, somebody else's, or too much of it. Nothing panics, hangs or stays behind; a broken lane
//! closes its channel and no other; what is good among the bad can be taken.
//!
//! The tests hold both ends. They play the other side by hand, with the descriptors of a port that was
//! let go: the segment's memory as a file, its end of the line, and a lane of their own making. Offsets
//! are those drawn in `src/layout.rs`, `src/record.rs` and `src/ticket.rs`. Each test has a process of its
//! own, so that nobody else's descriptors come and go.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod ends;
mod support;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ends::expect_end;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socket, socketpair,
};
use support::{
    Setup, alone, count_descriptors, count_segment_mappings, lower_descriptor_limit, pattern,
    post_ports_until_refused, raise_descriptor_limit, with_watchdog,
};
use zeroport::{
    AttachError, CloseReason, Message, MessageChannel, MessagePort, PeerState, PostError,
    RecvError, TakeError, TransferError, Trust, WaitStrategy, transfer,
};

const CAPACITY: u64 = 64 << 10;
const RING: u64 = 0x1000;
const MESSAGE: u64 = 1 << 32;
/// What belongs to the record came first on a further lane.
const NEXT_LANE: u64 = 2 << 40;
/// Set while the hostile side sleeps.
const HOSTILE_MESSAGE_WAKE: u64 = 0x88;
const ASLEEP: u32 = 2;
const LANE_END: &[u8] = b"zp-lane\0";
const TICKET_LEN: usize = 80;
/// Where a ticket says what.
const SIDE: usize = 4;
const FLAGS: usize = 5;
const LANES: usize = 6;
const EPOCH: usize = 16;
const NEXT: usize = 24;
const READ: usize = 40;
const SENT: usize = 56;
const RECEIVED: usize = 64;
const LENGTH: usize = 72;
const MAX_FDS: usize = 253;
const MAX_PORTS: u16 = 1024;
/// Lanes that may wait for a reader.
const MAX_LANES: usize = 16;
const QUIET: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// The other side of a victim's port, played by hand.
struct Hostile {
    segment: File,
    line: OwnedFd,
    /// Where its next record goes.
    at: u64,
    /// The end of the lane into which it sends.
    lane: Option<OwnedFd>,
    /// Whether no record has said so far that it is the first of that lane.
    is_fresh: bool,
}

/// Messages that wait in queues that have grown, and how many of them were read before.
const GROWN: u64 = 300;
const READ_OF_GROWN: u64 = 100;

/// A port that was let go, as its ticket and descriptors, and its other end.
struct Goods {
    other: MessagePort,
    ticket: [u8; TICKET_LEN],
    fds: Vec<OwnedFd>,
}

/// A victim and its hostile other side.
fn open_channel(setup: Setup) -> (MessagePort, Hostile) {
    let MessageChannel { port1, port2: victim } = setup.capacity(CAPACITY).open();
    // SAFETY: nobody reads a message in place while it is written to.
    let parts = unsafe { port1.into_descriptors_trusted() }.expect("a port that can be let go");
    let [segment, line] = <[OwnedFd; 2]>::try_from(parts.descriptors).expect("two descriptors");
    (victim, Hostile { segment: segment.into(), line, at: 0, lane: None, is_fresh: false })
}

fn stranger() -> (MessagePort, Hostile) {
    open_channel(Setup::new().untrusted())
}

impl Hostile {
    /// Gives the victim the reader's end of a lane: the first, or a further one.
    fn open_lane(&mut self) {
        let [ours, theirs] = pair();
        send(&self.line, LANE_END, &[theirs.as_fd()]);
        self.use_lane(ours);
    }

    /// Sends on this lane from now on.
    fn use_lane(&mut self, ours: OwnedFd) {
        (self.lane, self.is_fresh) = (Some(ours), true);
    }

    /// Puts a packet on the lane.
    fn pack(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        send(self.lane.as_ref().expect("a lane"), bytes, fds);
    }

    /// Publishes a record of 16 bytes that claims so many ports, and rings. The first one that has ports
    /// says that they are on the next lane.
    fn publish(&mut self, ports: u16) {
        let is_next = ports > 0 && std::mem::take(&mut self.is_fresh);
        self.publish_with(ports, if is_next { NEXT_LANE } else { 0 });
    }

    /// As above, with these flags.
    fn publish_with(&mut self, ports: u16, flags: u64) {
        let place = RING + self.at % CAPACITY;
        self.segment.write_all_at(&[7; 16], place + 16).unwrap();
        self.segment.write_all_at(&[0; 8], RING + (self.at + 32) % CAPACITY).unwrap();
        let head = MESSAGE | flags | u64::from(ports) << 48 | 16;
        self.segment.write_all_at(&head.to_le_bytes(), place).unwrap();
        self.at += 32;
        // A line that was hung up is as good.
        let _ = rustix::net::send(&self.line, &[0], QUIET);
    }
}

impl Goods {
    fn new() -> Self {
        Self::of(Setup::new())
    }

    fn of(setup: Setup) -> Self {
        let MessageChannel { port1: other, port2 } = setup.untrusted().open();
        other.post_bytes(b"waits").unwrap();
        let parts = port2.into_descriptors().unwrap();
        Self { other, ticket: parts.ticket, fds: parts.descriptors }
    }

    /// One that has both lanes.
    fn with_lanes() -> Self {
        let MessageChannel { port1: other, port2 } = MessageChannel::untrusted().unwrap();
        other.post_bytes(b"waits").unwrap();
        for (from, to) in [(&other, &port2), (&port2, &other)] {
            let MessageChannel { port1: gift, port2: _ } = MessageChannel::untrusted().unwrap();
            from.post_bytes_with(b"", transfer![gift]).unwrap();
            to.drain().for_each(drop);
        }
        other.post_bytes(b"waits").unwrap();
        let parts = port2.into_descriptors().unwrap();
        assert_eq!(parts.descriptors.len(), 4);
        Self { other, ticket: parts.ticket, fds: parts.descriptors }
    }

    /// One whose queues have grown in both directions: it reads a grown ring, and posts to one.
    fn grown() -> Self {
        let MessageChannel { port1: other, port2 } = Setup::new().untrusted().open();
        for port in [&other, &port2] {
            (0..GROWN).for_each(|number| port.post_bytes(&pattern(number, 1000)).unwrap());
        }
        for number in 0..READ_OF_GROWN {
            assert_eq!(port2.recv().unwrap().bytes(), pattern(number, 1000));
        }
        let parts = port2.into_descriptors().unwrap();
        assert_eq!(parts.descriptors.len(), 6);
        Self { other, ticket: parts.ticket, fds: parts.descriptors }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }

    fn with_ticket(mut self, at: usize, bytes: &[u8]) -> Self {
        self.ticket[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Nobody has it any more, and its other end is told.
    fn expect_lost(self) {
        drop(self.fds);
        assert_eq!(self.other.recv().map(drop), Err(RecvError::Closed(CloseReason::Lost)));
    }
}

/// A parcel of these ports, tickets in one row and descriptors in another.
fn parcel(goods: &[Goods]) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
    let tickets = goods.iter().flat_map(|goods| goods.ticket).collect();
    (tickets, goods.iter().flat_map(Goods::fds).collect())
}

fn pair() -> [OwnedFd; 2] {
    let (first, second) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    [first, second]
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, QUIET).expect("a packet that fits");
}

/// The port is what was sent, and works in both directions.
fn expect_alive(port: &MessagePort, other: &MessagePort) {
    assert_eq!(port.trust(), Trust::Untrusted);
    assert_eq!(port.recv().unwrap().bytes(), b"waits");
    port.post_bytes(b"there").unwrap();
    assert_eq!(other.recv().unwrap().bytes(), b"there");
    other.post_bytes(b"and back").unwrap();
    assert_eq!(port.recv().unwrap().bytes(), b"and back");
    // This asks the line, too.
    assert_eq!([port, other].map(MessagePort::peer_state), [PeerState::Open; 2]);
}

fn expect_violated(victim: &MessagePort) {
    expect_end(victim, CloseReason::Violated);
    assert_eq!(victim.peer_state(), PeerState::Closed(CloseReason::Violated));
}

/// Runs a case, which must leave no descriptor and no mapping behind, and must not touch a channel that
/// stands by.
fn case(what: &str, body: impl FnOnce()) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let before = (count_descriptors(), count_segment_mappings());
    body();
    // A cycle of sockets that hold each other is found when a Unix socket is next closed.
    drop(pair());
    support::wait_until(what, || {
        drop(pair());
        (count_descriptors(), count_segment_mappings()) == before
    });
    port1.post_bytes(b"as ever").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"as ever", "{what}");
}

/// A packet is sent and a record that claims so many ports is published: the victim finds it out.
fn expect_refusal(what: &str, ports: u16, send: impl FnOnce(&Hostile)) {
    case(what, || {
        let (victim, mut hostile) = stranger();
        hostile.open_lane();
        send(&hostile);
        hostile.publish(ports);
        expect_untakeable(&victim, ports);
    });
}

/// The next message claims ports that nobody can have; that ends the channel.
fn expect_untakeable(victim: &MessagePort, ports: u16) {
    if ports <= MAX_PORTS {
        let message = receive(victim, ports.into());
        for _ in 0..2 {
            let taken = message.take_port();
            assert!(matches!(taken, Err(TakeError::Violated)), "{taken:?}");
        }
    }
    expect_violated(victim);
}

/// A message with ports comes, whatever they are.
#[track_caller]
fn receive(victim: &MessagePort, ports: usize) -> Message<'_> {
    let message = victim.recv().expect("a message");
    assert_eq!(message.bytes(), [7; 16]);
    assert_eq!(message.port_count(), ports);
    message
}

alone!(a_claim_of_ports_without_a_lane_ends_the_channel_also_where_nobody_takes_them, || {
    with_watchdog(|| {
        for flags in [0, NEXT_LANE] {
            case("without a lane, dropped", || {
                let (victim, mut hostile) = stranger();
                hostile.publish_with(1, flags);
                hostile.publish(0);
                drop(receive(&victim, 1));
                expect_violated(&victim);
            });
        }
        case("one lane less than is claimed, dropped", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = Goods::new();
            hostile.pack(&goods.ticket, &goods.fds());
            hostile.publish(1);
            hostile.publish_with(1, NEXT_LANE);
            drop(receive(&victim, 1));
            drop(receive(&victim, 1));
            expect_violated(&victim);
            goods.expect_lost();
        });
    });
});

// What is sent by hand here is what an honest side sends: it is the deviations below that are refused.
alone!(by_the_rules_it_works, || {
    with_watchdog(|| {
        case("one by one, several, and with lanes", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            for goods in [vec![Goods::new()], vec![Goods::with_lanes(), Goods::new()]] {
                let (tickets, fds) = parcel(&goods);
                hostile.pack(&tickets, &fds);
                drop(fds);
                hostile.publish(goods.len() as u16);
                let message = receive(&victim, goods.len());
                let ports = message.take_all_ports().unwrap();
                for (port, goods) in ports.iter().zip(&goods) {
                    expect_alive(port, &goods.other);
                }
            }
            assert_eq!(victim.peer_state(), PeerState::Open);
        });
        case("with queues that have grown", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = Goods::grown();
            hostile.pack(&goods.ticket, &goods.fds());
            hostile.publish(1);
            let [port] = receive(&victim, 1).take_ports().unwrap();
            for number in READ_OF_GROWN..GROWN {
                assert_eq!(port.recv().unwrap().bytes(), pattern(number, 1000));
            }
            for number in 0..GROWN {
                assert_eq!(goods.other.recv().unwrap().bytes(), pattern(number, 1000));
            }
            goods.other.post_bytes(b"waits").unwrap();
            expect_alive(&port, &goods.other);
        });
        case("on one lane after the other", || {
            let (victim, mut hostile) = stranger();
            // As many as may wait, and then one by one.
            for count in [MAX_LANES, 1, 1, 1, MAX_LANES, 2, MAX_LANES] {
                let goods: Vec<_> = (0..count).map(|_| Goods::new()).collect();
                for goods in &goods {
                    hostile.open_lane();
                    hostile.pack(&goods.ticket, &goods.fds());
                    hostile.publish(1);
                }
                for goods in &goods {
                    expect_alive(&receive(&victim, 1).take_port().unwrap().unwrap(), &goods.other);
                }
            }
            assert_eq!(victim.peer_state(), PeerState::Open);
        });
        case("in an envelope", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = [Goods::new(), Goods::new(), Goods::new()];
            let [inner, end] = pair();
            for (tickets, fds) in [parcel(&goods[..2]), parcel(&goods[2..])] {
                send(&inner, &tickets, &fds);
            }
            hostile.pack(&envelope(), &[end.as_fd()]);
            hostile.publish(3);
            let ports: [MessagePort; 3] = receive(&victim, 3).take_ports().unwrap();
            for (port, goods) in ports.iter().zip(&goods) {
                expect_alive(port, &goods.other);
            }
        });
    });
});

/// A ticket of which only kind and length say anything.
fn bare(kind: u8, len: u64) -> [u8; TICKET_LEN] {
    let mut ticket = [0; TICKET_LEN];
    ticket[0] = kind;
    ticket[LENGTH..].copy_from_slice(&len.to_le_bytes());
    ticket
}

fn envelope() -> [u8; TICKET_LEN] {
    bare(2, 0)
}

// S-124: a record and its packet belong together.
alone!(a_record_without_a_packet_closes_the_channel, || {
    with_watchdog(|| {
        expect_refusal("no packet at all", 1, |_| {});
        for ports in [1, 2, 1024, 1025, u16::MAX] {
            for flags in [0, NEXT_LANE] {
                case("no lane at all", || {
                    let (victim, mut hostile) = stranger();
                    hostile.publish_with(ports, flags);
                    expect_untakeable(&victim, ports);
                });
            }
        }
        case("the second message's", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = [Goods::new()];
            let (tickets, fds) = parcel(&goods);
            hostile.pack(&tickets, &fds);
            hostile.publish(1);
            hostile.publish(1);
            let first = receive(&victim, 1);
            let second = receive(&victim, 1);
            // Whoever asks for the second first takes the first in passing, which stays good.
            assert!(matches!(second.take_port(), Err(TakeError::Violated)));
            let [port] = first.take_ports().unwrap();
            expect_alive(&port, &goods[0].other);
            expect_violated(&victim);
        });
        case("a lane that no record has come to", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = Goods::new();
            hostile.pack(&goods.ticket, &goods.fds());
            hostile.publish_with(1, 0);
            expect_untakeable(&victim, 1);
        });
        case("on the lane before", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = [Goods::new(), Goods::new()];
            for goods in &goods {
                hostile.pack(&goods.ticket, &goods.fds());
            }
            hostile.publish(1);
            expect_alive(&receive(&victim, 1).take_port().unwrap().unwrap(), &goods[0].other);
            hostile.open_lane();
            hostile.publish(1);
            expect_untakeable(&victim, 1);
        });
        case("after the lane was shut", || {
            for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
                let (victim, mut hostile) = stranger();
                hostile.open_lane();
                shutdown(hostile.lane.as_ref().unwrap(), how).unwrap();
                hostile.publish(1);
                expect_untakeable(&victim, 1);
            }
        });
    });
});

// S-113: packets that no message speaks of are never adopted, and go with the port.
alone!(packets_without_a_record_are_nobodys, || {
    with_watchdog(|| {
        case("many packets", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods: Vec<_> = (0..50).map(|_| Goods::new()).collect();
            for goods in &goods {
                hostile.pack(&goods.ticket, &goods.fds());
            }
            assert_eq!(victim.try_recv().map(drop), Err(RecvError::Empty));
            hostile.publish(0);
            drop(receive(&victim, 0));
            drop((victim, hostile));
            goods.into_iter().for_each(|goods| {
                assert_eq!(goods.other.peer_state(), PeerState::Open, "held here still");
                goods.expect_lost();
            });
        });
    });
});

// S-124: numbers that lie.
alone!(a_wrong_number_closes_the_channel, || {
    with_watchdog(|| {
        let goods = [Goods::new(), Goods::with_lanes(), Goods::new()];
        let (tickets, fds) = parcel(&goods);
        for ports in [1, 2, 4, 1000, 1024, 1025, u16::MAX] {
            expect_refusal("not as many as claimed", ports, |lane| lane.pack(&tickets, &fds));
        }
        for count in 0..fds.len() {
            expect_refusal("too few descriptors", 3, |lane| lane.pack(&tickets, &fds[..count]));
        }
        let more: Vec<_> = fds.iter().chain(&fds[..1]).copied().collect();
        expect_refusal("one descriptor more", 3, |lane| lane.pack(&tickets, &more));
        let all = vec![fds[0]; MAX_FDS];
        expect_refusal("all that fit", 3, |lane| lane.pack(&tickets, &all));
        for len in [0, 1, 79, 81, 159, 161, 239] {
            expect_refusal("not whole tickets", 3, |lane| lane.pack(&tickets[..len], &fds));
        }
        for len in [0, 1, 79, 81] {
            let one = &fds[..2];
            expect_refusal("not one ticket", 1, |lane| lane.pack(&[1; 100][..len], one));
        }
        let long = [goods[0].ticket; MAX_FDS + 1].concat();
        expect_refusal("too long a packet", 254, |lane| lane.pack(&long, &all));
        let says = |flags: u8, lanes: u8| {
            let mut ticket = goods[0].ticket;
            (ticket[FLAGS], ticket[LANES]) = (flags, lanes);
            ticket
        };
        for (flags, lanes) in [(0, 1), (1, 1), (2, 0), (2 | 64, 0), (3, 1), (0, 16), (1, 17)] {
            expect_refusal("lanes that did not come", 1, |lane| {
                lane.pack(&says(flags, lanes), &goods[0].fds());
            });
        }
        for flags in [16, 32, 16 | 32] {
            expect_refusal("rings that did not come", 1, |lane| {
                lane.pack(&says(flags, 0), &goods[0].fds());
            });
        }
        expect_refusal("lanes that came unannounced", 1, |lane| {
            lane.pack(&says(0, 0), &goods[1].fds());
        });
        expect_refusal("more lanes than may wait", 1, |lane| {
            let fds = [&goods[0].fds()[..], &[goods[1].fds()[2]; MAX_LANES + 2]].concat();
            lane.pack(&says(1, MAX_LANES as u8 + 2), &fds);
        });
    });
});

// S-124: what is no ticket. S-088: what is a ticket, but of no port; the others can be taken.
alone!(a_wrong_ticket_is_refused, || {
    with_watchdog(|| {
        let broken: [(usize, &[u8]); 20] = [
            (0, &[0]),
            // Buffers, payloads and rings have no more than a length.
            (0, &[3]),
            (0, &[4]),
            (0, &[5]),
            (0, &[6]),
            (0, &[1, 1]),
            (0, &[0xff; 4]),
            (FLAGS, &[1]),
            (FLAGS, &[4 | 16]),
            (FLAGS, &[4 | 64]),
            (FLAGS, &[0x80]),
            (FLAGS, &[0xff]),
            (LANES, &[1]),
            (LANES, &[0xff]),
            (7, &[0x80]),
            (12, &[1]),
            (LENGTH, &[1]),
            (0, &[0; TICKET_LEN]),
            (0, &[0xff; TICKET_LEN]),
            // An envelope, but not alone.
            (0, &[2]),
        ];
        for (at, bytes) in broken {
            let goods = [Goods::new(), Goods::new().with_ticket(at, bytes)];
            let (tickets, fds) = parcel(&goods);
            expect_refusal("no ticket", 2, |lane| lane.pack(&tickets, &fds));
        }
        // Things that may come, with what belongs to them, but as no port.
        let (goods, memory) = (Goods::new(), sealed(b"", SealFlags::WRITE));
        for kind in [2, 3, 4, 5] {
            let other = bare(kind, if kind == 2 { 0 } else { 4096 });
            expect_refusal("no port", 1, |lane| lane.pack(&other, &[memory.as_fd()]));
            let fds = [goods.fds(), vec![memory.as_fd()]].concat();
            let both = [goods.ticket, other].concat();
            expect_refusal("one port of two", 2, |lane| lane.pack(&both, &fds));
            expect_refusal("something beside one port", 1, |lane| lane.pack(&both, &fds));
        }
        let far = [0, 0, 0, 0, 0, 0, 0, 0x40];
        let no_port: [(usize, &[u8]); 21] = [
            (SIDE, &[2]),
            (SIDE, &[0xff]),
            // Epochs of a port that is open, closed, or nothing.
            (EPOCH, &[0; 8]),
            (EPOCH, &[2 << 2 | 1]),
            (EPOCH, &[2 << 2 | 3]),
            (EPOCH, &[2 << 2]),
            (EPOCH, &[0xff; 8]),
            // Positions, in the first ring and in a grown one.
            (NEXT, &[1]),
            (NEXT, &[8]),
            (NEXT, &far),
            (NEXT, &[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (NEXT + 8, &[1]),
            (NEXT + 8, &far),
            (READ, &[15]),
            (READ, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
            (READ, &[0xff; 8]),
            (READ + 8, &[15]),
            (READ + 8, &[0xff; 8]),
            // Bytes, ever.
            (SENT, &far),
            (SENT, &[0xff; 8]),
            (RECEIVED, &far),
        ];
        for (at, bytes) in no_port {
            expect_one_bad(&Goods::new().with_ticket(at, bytes), |error| {
                matches!(error, AttachError::NotAPort)
            });
        }
        // Somebody else's generation, and the other side of the same channel, which is held.
        let detached = [(EPOCH, [3 << 2 | 2]), (EPOCH, [2]), (EPOCH + 1, [1]), (SIDE, [0])];
        for (at, bytes) in detached {
            expect_one_bad(&Goods::new().with_ticket(at, &bytes), |error| {
                matches!(error, AttachError::Detached)
            });
        }
    });
});

/// Of three ports the middle one is refused, for this reason; the others can be taken, and work.
fn expect_one_bad(bad: &Goods, is_expected: impl Fn(&AttachError) -> bool) {
    case("one bad of three", || {
        let (victim, mut hostile) = stranger();
        hostile.open_lane();
        let (first, last) = (Goods::new(), Goods::with_lanes());
        let tickets = [first.ticket, bad.ticket, last.ticket].concat();
        let fds = [first.fds(), bad.fds(), last.fds()].concat();
        hostile.pack(&tickets, &fds);
        hostile.publish(3);
        let message = receive(&victim, 3);
        let first_port = message.take_port().unwrap().unwrap();
        match message.take_port() {
            Err(TakeError::Attach { index: 1, source }) => {
                assert!(is_expected(&source), "{source:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(message.port_count(), 1);
        let last_port = message.take_port().unwrap().unwrap();
        assert!(message.take_port().unwrap().is_none());
        drop(message);
        expect_alive(&first_port, &first.other);
        expect_alive(&last_port, &last.other);
        assert_eq!(victim.peer_state(), PeerState::Open);
    });
    // What was refused was touched by nobody: whoever has it can still adopt it.
    assert_eq!(bad.other.peer_state(), PeerState::Open);
}

/// Descriptors of all kinds, none of them a segment, a line or a lane.
fn strange_descriptors() -> Vec<(&'static str, OwnedFd)> {
    let open = |path, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let socket = |family, kind| socket(family, kind, None).unwrap();
    let (stream, _) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let memfd = memfd_create(c"none", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let this = Goods::new();
    let path = format!("/proc/self/fd/{}", this.fds[0].as_raw_fd());
    let pathed = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    vec![
        ("the reading end of a pipe", reader.into()),
        ("the writing end of a pipe", writer.into()),
        ("/dev/null", open("/dev/null", OFlags::RDWR)),
        ("/dev/zero", open("/dev/zero", OFlags::RDWR)),
        ("a directory", open("/", OFlags::RDONLY)),
        ("a file", open("/proc/self/exe", OFlags::RDONLY)),
        ("a place in the file system", open("/", OFlags::PATH)),
        ("a segment that is only named", pathed),
        ("a TCP socket", socket(AddressFamily::INET, SocketType::STREAM)),
        ("a UDP socket", socket(AddressFamily::INET, SocketType::DGRAM)),
        ("a stream socket", stream),
        ("a datagram socket", socket(AddressFamily::UNIX, SocketType::DGRAM)),
        ("an eventfd", eventfd),
        ("an epoll", epoll),
        ("unsealed memory", memfd),
    ]
}

/// Memory of a good segment's size, sealed like one.
fn sealed(contents: &[u8], seals: SealFlags) -> OwnedFd {
    let memfd = memfd_create(c"forged", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let memfd = File::from(memfd);
    memfd.set_len(RING + 2 * CAPACITY).unwrap();
    memfd.write_all_at(contents, 0).unwrap();
    let needed = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    fcntl_add_seals(&memfd, needed | seals).unwrap();
    memfd.into()
}

// S-088: in the place of a segment.
alone!(a_strange_segment_costs_that_port_only, || {
    with_watchdog(|| {
        let refused_as = |fd: OwnedFd, is_expected: fn(&AttachError) -> bool| {
            let mut goods = Goods::new();
            goods.fds[0] = fd;
            expect_one_bad(&goods, is_expected);
        };
        for (what, fd) in strange_descriptors() {
            eprintln!("{what}");
            refused_as(fd, |error| matches!(error, AttachError::NotSealed));
        }
        for end in pair() {
            refused_as(end, |error| matches!(error, AttachError::NotSealed));
        }
        refused_as(sealed(b"ZEROPORD", SealFlags::empty()), |error| {
            matches!(error, AttachError::NotASegment)
        });
        refused_as(sealed(b"ZEROPORT", SealFlags::empty()), |error| {
            matches!(error, AttachError::Version { theirs: 0, .. })
        });
        let honest = Goods::new();
        let mut identity = [0; 128];
        File::from(honest.fds[0].try_clone().unwrap()).read_exact_at(&mut identity, 0).unwrap();
        for seals in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            refused_as(sealed(&identity, seals), |error| matches!(error, AttachError::Os(_)));
        }
        let path = format!("/proc/self/fd/{}", honest.fds[0].as_raw_fd());
        let read_only = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        refused_as(read_only, |error| matches!(error, AttachError::Os(_)));
        // A good segment whose words say that nobody has let go of it.
        refused_as(sealed(&identity, SealFlags::empty()), |error| {
            matches!(error, AttachError::Detached)
        });
    });
});

// S-124: in the place of a line or a lane. No system call but the question what it is sees any of these.
alone!(a_strange_line_closes_the_channel, || {
    with_watchdog(|| {
        let goods = Goods::with_lanes();
        for place in 1..4 {
            for (what, strange) in strange_descriptors() {
                let mut fds = goods.fds();
                fds[place] = strange.as_fd();
                expect_refusal(what, 1, |lane| lane.pack(&goods.ticket, &fds));
            }
            let mut fds = goods.fds();
            fds[place] = goods.fds[0].as_fd();
            expect_refusal("the segment itself", 1, |lane| lane.pack(&goods.ticket, &fds));
        }
        goods.expect_lost();
    });
});

/// Sockets of the right kind that lead nowhere, or to the wrong place.
fn strange_sockets(hostile: &Hostile) -> Vec<(&'static str, OwnedFd)> {
    let fresh = || socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    let bound = |number| {
        let socket = fresh();
        let name = format!("zeroport test {} {number}", std::process::id());
        let name = rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&socket, &name).unwrap();
        socket
    };
    let listening = bound(1);
    rustix::net::listen(&listening, 1).unwrap();
    let [shut, _shut] = pair();
    shutdown(&shut, Shutdown::Both).unwrap();
    let [orphan, _] = pair();
    vec![
        ("unconnected", fresh()),
        ("bound", bound(0)),
        ("listening", listening),
        ("shut", shut),
        ("without a peer", orphan),
        ("the carrier's line", hostile.line.try_clone().unwrap()),
        ("the carrier's lane", hostile.lane.as_ref().unwrap().try_clone().unwrap()),
    ]
}

// Such sockets pass for a line or a lane until they are used. Then they are hung up, broken or silent,
// and nobody waits on them for longer than was asked.
alone!(a_socket_that_leads_nowhere_holds_nobody, || {
    with_watchdog(|| {
        for place in 1..4 {
            for kind in 0..7 {
                case("a strange socket", || use_strange_socket(place, kind));
            }
        }
    });
});

fn use_strange_socket(place: usize, kind: usize) {
    let short = Duration::from_millis(3);
    let (victim, mut hostile) = stranger();
    hostile.open_lane();
    let goods = Goods::with_lanes();
    let strange = strange_sockets(&hostile).swap_remove(kind).1;
    let mut fds = goods.fds();
    fds[place] = strange.as_fd();
    hostile.pack(&goods.ticket, &fds);
    drop(fds);
    drop(strange);
    hostile.publish(1);
    let [port] = receive(&victim, 1).take_ports().unwrap();
    assert_eq!(port.recv().unwrap().bytes(), b"waits");
    let begin = Instant::now();
    let received = port.recv_timeout(short).map(drop);
    assert!(received != Err(RecvError::Empty) || begin.elapsed() >= short);
    // Ports that are posted there come back, or are gone for good, as the post says.
    for _ in 0..3 {
        let MessageChannel { port1: gift, port2: other } = MessageChannel::untrusted().unwrap();
        match port.post_bytes_with_timeout(b"", transfer![gift], short) {
            Ok(()) => {}
            Err(TransferError { list, .. }) => {
                let gift = list.into_ports().pop().expect("it comes back");
                gift.post_bytes(b"as it was").unwrap();
                assert_eq!(other.recv().unwrap().bytes(), b"as it was");
            }
        }
    }
    // So does the other end post: it knows nothing of this.
    let MessageChannel { port1: gift, port2: _other } = MessageChannel::untrusted().unwrap();
    if goods.other.post_bytes_with_timeout(b"", transfer![gift], short).is_ok() {
        let _ = port.recv_timeout(short).map(|message| drop(message.take_all_ports()));
    }
    drop(port);
}

// A port that stands where its segment says that it cannot: whoever uses it finds out.
alone!(positions_that_lie_break_that_channel_only, || {
    with_watchdog(|| {
        for position in [16, 1 << 20, 1 << 40, (1 << 62) - 16] {
            case("a poster far ahead", || {
                let goods = Goods::of(Setup::new().limit(0));
                let port = take_one(goods.with_ticket(NEXT, &u64::to_le_bytes(position)));
                let mut posts = 0;
                let end = loop {
                    // Where what was given back can be true, it posts until its ring is full.
                    match port.0.try_post_bytes(&[1; 4000]) {
                        Ok(()) => posts += 1,
                        Err(error) => break error,
                    }
                };
                assert!(posts <= CAPACITY / 4000, "{posts}");
                let is_expected = matches!(end, PostError::Full { .. })
                    || matches!(end, PostError::Closed(CloseReason::Violated));
                assert!(is_expected, "{end:?}");
            });
            case("a poster far ahead in a queue that grows", || {
                let goods = Goods::of(Setup::new().limit(1 << 20));
                let port = take_one(goods.with_ticket(NEXT, &u64::to_le_bytes(position)));
                let mut posts = 0;
                while port.0.try_post_bytes(&[1; 4000]).is_ok() {
                    posts += 1;
                }
                assert!(posts <= ((1 << 20) + CAPACITY) / 4000, "{posts}");
            });
            case("a reader far ahead", || {
                let goods = Goods::new().with_ticket(READ, &u64::to_le_bytes(position));
                let (port, other) = take_one(goods);
                // At the same place of another lap it finds what lies there; and no more.
                let found = port.drain().map(|message| message.bytes().to_vec());
                let expected =
                    if position % CAPACITY == 0 { vec![b"waits".to_vec()] } else { vec![] };
                assert_eq!(found.collect::<Vec<_>>(), expected, "{position:#x}");
                drop(port);
                assert_ne!(other.peer_state(), PeerState::Open);
            });
        }
    });
});

// The same in queues that have grown; and accounts that lie.
alone!(standings_that_lie_break_that_channel_only, || {
    with_watchdog(|| {
        let places = [NEXT, NEXT + 8, READ, READ + 8, SENT, RECEIVED];
        for (place, word) in places.into_iter().flat_map(|place| {
            let words = [0, 16, 32, 4096, 65536, (128 << 10) - 16, 1 << 40, (1 << 62) - 16];
            words.map(|word| (place, word))
        }) {
            case("a standing that lies", || use_port_that_lies(place, word));
        }
    });
});

/// Everything ends, in one way or another.
fn use_port_that_lies(place: usize, word: u64) {
    let (victim, mut hostile) = stranger();
    hostile.open_lane();
    let goods = Goods::grown().with_ticket(place, &word.to_le_bytes());
    hostile.pack(&goods.ticket, &goods.fds());
    hostile.publish(1);
    let message = receive(&victim, 1);
    let port = match message.take_port() {
        Ok(port) => port.unwrap(),
        Err(TakeError::Attach { source, .. }) => {
            assert!(matches!(source, AttachError::NotAPort), "{source:?}");
            assert!(place == NEXT + 8 || place == READ + 8, "at {place}: {word:#x}");
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    drop(message);
    for _ in 0..3 {
        let found = port.drain().map(|message| message.bytes().len()).max();
        assert!(found.unwrap_or(0) <= 2 * CAPACITY as usize);
        for _ in 0..GROWN {
            let _ = port.try_post_bytes(&[1; 1000]);
        }
        let found = goods.other.drain().map(|message| message.bytes().len()).max();
        assert!(found.unwrap_or(0) <= 2 * CAPACITY as usize);
        for _ in 0..GROWN {
            let _ = goods.other.try_post_bytes(&[2; 1000]);
        }
    }
    assert_eq!(victim.peer_state(), PeerState::Open);
}

// S-088: in the place of a grown ring.
alone!(a_strange_grown_ring_costs_that_port_only, || {
    with_watchdog(|| {
        for place in [2, 3] {
            let refused_as = |fd: OwnedFd, is_expected: fn(&AttachError) -> bool| {
                let mut goods = Goods::grown();
                goods.fds[place] = fd;
                expect_one_bad(&goods, is_expected);
            };
            for (what, fd) in strange_descriptors() {
                eprintln!("{what}");
                refused_as(fd, |error| matches!(error, AttachError::NotSealed));
            }
            let honest = Goods::grown();
            // The segment of a channel.
            refused_as(honest.fds[0].try_clone().unwrap(), |error| {
                matches!(error, AttachError::Capacity { .. })
            });
            refused_as(sealed(b"ZEROPORD", SealFlags::empty()), |error| {
                matches!(error, AttachError::NotASegment)
            });
            let mut identity = [0; 128];
            let ring = File::from(honest.fds[place].try_clone().unwrap());
            ring.read_exact_at(&mut identity, 0).unwrap();
            // Of another capacity than its size allows.
            identity[24..32].copy_from_slice(&(64u64 << 20).to_le_bytes());
            refused_as(sealed(&identity, SealFlags::empty()), |error| {
                matches!(error, AttachError::Size { .. })
            });
            identity[24..32].copy_from_slice(&(3u64 << 12).to_le_bytes());
            refused_as(sealed(&identity, SealFlags::empty()), |error| {
                matches!(error, AttachError::Capacity { .. })
            });
        }
        // A grown ring that the channel's limit does not allow.
        for flag in [16, 32] {
            let mut goods = Goods::of(Setup::new().limit(64 << 10));
            goods.fds.insert(2, Goods::grown().fds.swap_remove(2));
            let flags = goods.ticket[FLAGS] | flag;
            expect_one_bad(
                &goods.with_ticket(FLAGS, &[flags]),
                |error| matches!(error, AttachError::Limit { found, accepts: 65536 } if *found > 65536),
            );
        }
        // And in a grown ring, but behind its end.
        for place in [NEXT + 8, READ + 8] {
            let goods = Goods::grown().with_ticket(place, &u64::to_le_bytes(1 << 30));
            expect_one_bad(&goods, |error| matches!(error, AttachError::NotAPort));
        }
    });
});

/// Has a victim take one port; gives it, with its other end.
fn take_one(goods: Goods) -> (MessagePort, MessagePort) {
    let (victim, mut hostile) = stranger();
    hostile.open_lane();
    hostile.pack(&goods.ticket, &goods.fds());
    hostile.publish(1);
    let [port] = receive(&victim, 1).take_ports().unwrap();
    (port, goods.other)
}

// S-075, S-117: a port is adopted once, however often its descriptors come. Who comes too late touches
// nothing: the line that came along is somebody else's by now.
alone!(a_replayed_port_is_refused_and_hangs_nobody_up, || {
    with_watchdog(|| {
        case("twice in one message, and again later", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods = Goods::with_lanes();
            let twice = [goods.fds(), goods.fds()].concat();
            hostile.pack(&[goods.ticket, goods.ticket].concat(), &twice);
            hostile.publish(2);
            let message = receive(&victim, 2);
            let port = message.take_port().unwrap().unwrap();
            expect_detached(message.take_port(), 1);
            drop(message);
            for _ in 0..3 {
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
                expect_detached(receive(&victim, 1).take_port(), 0);
                // Untaken it is as harmless.
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
                drop(receive(&victim, 1));
            }
            expect_alive(&port, &goods.other);
            assert_eq!(victim.peer_state(), PeerState::Open);
        });
        case("to two victims, and after the first has given it on", || {
            let victims = [stranger(), stranger(), stranger()];
            let goods = Goods::new();
            let mut holder = None;
            for (victim, mut hostile) in victims {
                hostile.open_lane();
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
                let taken = receive(&victim, 1).take_port();
                if holder.is_none() {
                    // On to somebody else: in transit again, but of a later generation.
                    let parts = taken.unwrap().unwrap().into_descriptors().unwrap();
                    assert_ne!(parts.ticket, goods.ticket);
                    holder = Some(parts);
                } else {
                    expect_detached(taken, 0);
                }
            }
            let parts = holder.unwrap();
            let port = MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap();
            expect_alive(&port, &goods.other);
        });
        case("after it was closed", || {
            let goods = Goods::new();
            let copies: Vec<_> = goods.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
            let ticket = goods.ticket;
            let (port, other) = take_one(goods);
            port.close();
            let again = MessagePort::from_descriptors(&ticket, copies).map(drop);
            assert!(matches!(again, Err(AttachError::Detached)));
            assert_eq!(other.recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
        });
    });
});

fn expect_detached(taken: Result<Option<MessagePort>, TakeError>, at: usize) {
    match taken {
        Err(TakeError::Attach { index, source: AttachError::Detached }) if index == at => {}
        other => panic!("{other:?}"),
    }
}

// S-124: what an envelope may not be.
alone!(a_broken_envelope_closes_the_channel, || {
    with_watchdog(|| {
        let goods = [Goods::new(), Goods::new()];
        let (tickets, fds) = parcel(&goods);
        let one = (&tickets[..TICKET_LEN], &fds[..2]);
        let envelope = &envelope()[..];
        let inside = |packets: &[(&[u8], &[BorrowedFd<'_>])]| {
            let [inner, end] = pair();
            packets.iter().for_each(|(bytes, fds)| send(&inner, bytes, fds));
            (inner, end)
        };
        for ports in [1, 2, u16::MAX] {
            let (_inner, end) = inside(&[]);
            expect_refusal("empty", ports, |lane| lane.pack(envelope, &[end.as_fd()]));
            let (_, end) = inside(&[]);
            expect_refusal("empty, and hung up", ports, |lane| lane.pack(envelope, &[end.as_fd()]));
            let (_, end) = inside(&[one, one, one]);
            expect_refusal("another number", ports, |lane| lane.pack(envelope, &[end.as_fd()]));
        }
        let (_, end) = inside(&[one, (&[], &[])]);
        expect_refusal("an empty packet behind it", 2, |lane| {
            lane.pack(envelope, &[end.as_fd()]);
        });
        for behind in [&[0][..], &tickets[..TICKET_LEN], &[9; 5000]] {
            let (_inner, end) = inside(&[one, (behind, &[])]);
            expect_refusal("more behind it", 1, |lane| lane.pack(envelope, &[end.as_fd()]));
        }
        for tickets in [&tickets[..TICKET_LEN - 1], &tickets[..], &[0; TICKET_LEN]] {
            let (_inner, end) = inside(&[(tickets, one.1)]);
            expect_refusal("a wrong ticket", 1, |lane| lane.pack(envelope, &[end.as_fd()]));
        }
        let (_, end) = inside(&[one]);
        let (_, outer) = inside(&[(envelope, &[end.as_fd()])]);
        expect_refusal("an envelope in it", 1, |lane| lane.pack(envelope, &[outer.as_fd()]));
        let (_, end) = inside(&[one, one]);
        let twice = [envelope, envelope].concat();
        expect_refusal("two of them", 2, |lane| {
            lane.pack(&twice, &[end.as_fd(), end.as_fd()]);
        });
        let mixed = [envelope, one.0].concat();
        expect_refusal("a port beside it", 2, |lane| {
            lane.pack(&mixed, &[end.as_fd(), fds[0], fds[1]]);
        });
        expect_refusal("no socket", 1, |lane| lane.pack(envelope, &[]));
        expect_refusal("two sockets", 1, |lane| lane.pack(envelope, &[end.as_fd(), end.as_fd()]));
        for (what, strange) in strange_descriptors() {
            expect_refusal(what, 1, |lane| lane.pack(envelope, &[strange.as_fd()]));
        }
        for kind in 0..7 {
            expect_refusal("a socket that leads nowhere", 1, |lane| {
                let strange = strange_sockets(lane).swap_remove(kind).1;
                lane.pack(envelope, &[strange.as_fd()]);
            });
        }
        // An envelope that holds itself.
        let [inner, end] = pair();
        send(&inner, envelope, &[end.as_fd()]);
        expect_refusal("itself in it", 1, |lane| lane.pack(envelope, &[end.as_fd()]));
    });
});

// What lies on the line beside bells: lanes' ends wait in their order for the records that need them, as
// many as an honest side lets wait; all else is dropped.
alone!(any_packet_on_the_line_is_a_bell_or_a_lane, || {
    with_watchdog(|| {
        case("garbage of every length, with and without descriptors", || {
            let (victim, mut hostile) = stranger();
            let (null, [end, _end]) = (File::open("/dev/null").unwrap(), pair());
            for len in 0..64 {
                let garbage = vec![0xa5; len];
                send(&hostile.line, &garbage, &[]);
                send(&hostile.line, &garbage, &[null.as_fd()]);
                if len != LANE_END.len() {
                    send(&hostile.line, &garbage, &[end.as_fd(), null.as_fd()]);
                }
                let begin = Instant::now();
                let timeout = Duration::from_micros(300);
                assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                assert!(begin.elapsed() >= timeout);
            }
            assert_eq!(victim.peer_state(), PeerState::Open);
            // None of it was taken for a lane.
            hostile.publish_with(1, NEXT_LANE);
            expect_untakeable(&victim, 1);
        });
        case("more than one lane's end", || {
            let (victim, mut hostile) = stranger();
            let [_other, wrong] = pair();
            hostile.open_lane();
            for _ in 0..5 {
                send(&hostile.line, LANE_END, &[wrong.as_fd()]);
                send(&hostile.line, LANE_END, &[]);
            }
            for goods in [Goods::new(), Goods::new()] {
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
                let [port] = receive(&victim, 1).take_ports().unwrap();
                expect_alive(&port, &goods.other);
                // More of them, now that there is a lane.
                send(&hostile.line, LANE_END, &[wrong.as_fd()]);
                send(&hostile.line, LANE_END, &[hostile.line.as_fd()]);
                let timeout = Duration::from_micros(300);
                assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
            }
        });
        case("more lanes' ends than may wait", || {
            let (victim, mut hostile) = stranger();
            let goods: Vec<_> = (0..MAX_LANES + 3).map(|_| Goods::new()).collect();
            for goods in &goods {
                hostile.open_lane();
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
            }
            let messages: Vec<_> = goods.iter().map(|_| receive(&victim, 1)).collect();
            let (first, beyond) = messages.split_at(MAX_LANES);
            for (message, goods) in first.iter().zip(&goods) {
                expect_alive(&message.take_port().unwrap().unwrap(), &goods.other);
            }
            for message in beyond {
                assert!(matches!(message.take_port(), Err(TakeError::Violated)));
            }
            expect_violated(&victim);
            drop(messages);
            goods.into_iter().skip(MAX_LANES).for_each(Goods::expect_lost);
        });
        case("a flood of lanes' ends", || {
            let (victim, mut hostile) = stranger();
            victim.set_wait_strategy(WaitStrategy::Sleep);
            let before = count_descriptors();
            for _ in 0..20 {
                for _ in 0..10 {
                    let [_ours, theirs] = pair();
                    send(&hostile.line, LANE_END, &[theirs.as_fd()]);
                }
                let timeout = Duration::from_millis(1);
                assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                hostile.publish(0);
                drop(receive(&victim, 0));
            }
            let held = count_descriptors() - before;
            assert!((1..=2 * MAX_LANES).contains(&held), "{held} ends are held");
            assert_eq!(victim.peer_state(), PeerState::Open);
        });
        for (what, strange) in strange_descriptors() {
            case(what, || {
                let (victim, mut hostile) = stranger();
                hostile.is_fresh = true;
                send(&hostile.line, LANE_END, &[strange.as_fd()]);
                hostile.publish(1);
                expect_untakeable(&victim, 1);
            });
        }
        for kind in 0..7 {
            case("a lane that leads nowhere", || {
                let (victim, mut hostile) = stranger();
                let [lane, _end] = pair();
                hostile.use_lane(lane);
                let strange = strange_sockets(&hostile).swap_remove(kind).1;
                send(&hostile.line, LANE_END, &[strange.as_fd()]);
                hostile.publish(1);
                expect_untakeable(&victim, 1);
            });
        }
        case("as many descriptors as fit", || {
            let (victim, mut hostile) = stranger();
            let strange = File::open("/dev/null").unwrap();
            let [lane, theirs] = pair();
            let mut fds = vec![theirs.as_fd()];
            fds.resize(MAX_FDS, strange.as_fd());
            send(&hostile.line, LANE_END, &fds);
            send(&hostile.line, LANE_END, &fds);
            hostile.use_lane(lane);
            let goods = Goods::new();
            hostile.pack(&goods.ticket, &goods.fds());
            hostile.publish(1);
            let [port] = receive(&victim, 1).take_ports().unwrap();
            expect_alive(&port, &goods.other);
        });
    });
});

/// Takes a lane's end off a line, as its reader does.
fn take_lane_end(line: &OwnedFd) -> OwnedFd {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 8];
        let bytes = &mut [IoSliceMut::new(&mut bytes)];
        recvmsg(line, bytes, &mut control, RecvFlags::DONTWAIT).expect("a lane's end");
        let end = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if let Some(end) = end {
            return end;
        }
    }
}

/// Sets an option of a socket to a number.
fn set_option(fd: BorrowedFd<'_>, option: i32, value: i32) -> bool {
    // SAFETY: the value is as long as it says, and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    set == 0
}

/// Hand over a pidfd with each packet (Linux 6.5), and no descriptors (6.16).
const SO_PASSPIDFD: i32 = 76;

// A socket has options that all its holders share: who made the lane, or had the line before, can have
// the kernel put more beside each packet. None of that stays, and the ports come all the same.
alone!(options_of_a_shared_socket_bring_nothing_in, || {
    with_watchdog(|| {
        let options = [
            libc::SO_PASSCRED,
            SO_PASSPIDFD,
            libc::SO_PASSSEC,
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
        ];
        for (number, option) in options.into_iter().enumerate() {
            for together in [false, true] {
                case("a socket that says more", || {
                    let (victim, mut hostile) = stranger();
                    let [ours, theirs] = pair();
                    for option in &options[if together { 0 } else { number }..=number] {
                        // An older kernel does not know all of them.
                        set_option(theirs.as_fd(), *option, 1);
                    }
                    send(&hostile.line, LANE_END, &[theirs.as_fd()]);
                    hostile.use_lane(ours);
                    for round in 0..3 {
                        let goods = Goods::with_lanes();
                        set_option(goods.fds[1].as_fd(), option, 1);
                        hostile.pack(&goods.ticket, &goods.fds());
                        hostile.publish(1);
                        let before = count_descriptors();
                        let [port] = receive(&victim, 1).take_ports().unwrap();
                        // Four came, and at the first time the lane.
                        let came = if round == 0 { 5 } else { 4 };
                        assert_eq!(count_descriptors(), before + came, "option {option}");
                        expect_alive(&port, &goods.other);
                    }
                });
            }
        }
    });
});

// Options with which a shared socket delays, hides or refuses: a wait still ends, with one answer or
// another.
alone!(options_of_a_shared_socket_hold_nobody, || {
    with_watchdog(|| {
        let short = Duration::from_millis(2);
        for (option, value) in
            [(libc::SO_PEEK_OFF, 1000), (libc::SO_PEEK_OFF, 0), (libc::SO_RCVLOWAT, 9)]
        {
            case("an option", || {
                let (victim, mut hostile) = stranger();
                let [ours, theirs] = pair();
                set_option(theirs.as_fd(), option, value);
                send(&hostile.line, LANE_END, &[theirs.as_fd()]);
                hostile.use_lane(ours);
                let goods = Goods::with_lanes();
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
                if let Ok(message) = victim.recv_timeout(short) {
                    drop(message.take_all_ports());
                }
            });
            case("an option of a line", || {
                let goods = Goods::new();
                set_option(goods.fds[1].as_fd(), option, value);
                let (port, other) = take_one(goods);
                assert_eq!(port.recv().unwrap().bytes(), b"waits");
                let begin = Instant::now();
                assert_eq!(port.recv_timeout(short).map(drop), Err(RecvError::Empty));
                assert!(begin.elapsed() >= short);
                drop(other);
                expect_end(&port, CloseReason::Closed);
            });
        }
        case("a lane that does not block, or blocks", || {
            for flags in [OFlags::NONBLOCK, OFlags::empty()] {
                let (victim, mut hostile) = stranger();
                let [ours, theirs] = pair();
                rustix::fs::fcntl_setfl(&theirs, flags).unwrap();
                send(&hostile.line, LANE_END, &[theirs.as_fd()]);
                hostile.use_lane(ours);
                hostile.publish(1);
                expect_untakeable(&victim, 1);
            }
        });
    });
});

// Who receives nothing: posts with ports say so in time, and hand everything back. The victim's lane is
// its own; the hostile side can only take its end of it away.
alone!(a_reader_that_takes_nothing_holds_nobody, || {
    with_watchdog(|| {
        raise_descriptor_limit();
        // One lane, and as many as may wait, one after the other.
        for (limit, lanes) in [(0, 1), (256 << 20, MAX_LANES)] {
            case("lanes that fill up", || {
                let (victim, _hostile) = open_channel(Setup::new().limit(limit).untrusted());
                let (posted, refused) = post_ports_until_refused(&victim);
                assert!((10 * lanes..2000 * lanes).contains(&posted), "{posted}");
                assert!(matches!(refused.source, PostError::Full { len: 0 }), "{refused:?}");
                let (begin, short) = (Instant::now(), Duration::from_millis(20));
                let refused = victim.post_bytes_with_timeout(b"", refused.list, short).unwrap_err();
                assert!(begin.elapsed() >= short);
                assert!(matches!(refused.source, PostError::Full { len: 0 }), "{refused:?}");
                assert_eq!(refused.list.len(), 1);
                victim.post_bytes(b"without ports it goes on").unwrap();
            });
        }
        case("a line that is full before the lane's end", || {
            let (victim, hostile) = stranger();
            // A side that is always asleep is rung for each message.
            for _ in 0..2000 {
                hostile.segment.write_all_at(&ASLEEP.to_le_bytes(), HOSTILE_MESSAGE_WAKE).unwrap();
                victim.post_bytes(b"bell").unwrap();
            }
            let MessageChannel { port1: gift, port2: _ } = MessageChannel::untrusted().unwrap();
            let refused = victim.try_post_bytes_with(b"", transfer![gift]).unwrap_err();
            assert!(matches!(refused.source, PostError::Full { .. }), "{refused:?}");
            assert_eq!(refused.list.len(), 1);
        });
        case("a lane's end that is shut, or closed", || {
            for how in [Some(Shutdown::Read), Some(Shutdown::Both), None] {
                let (victim, hostile) = stranger();
                let MessageChannel { port1: gift, port2: kept } =
                    MessageChannel::untrusted().unwrap();
                victim.post_bytes_with(b"", transfer![gift]).unwrap();
                let end = take_lane_end(&hostile.line);
                if let Some(how) = how {
                    shutdown(&end, how).unwrap();
                } else {
                    drop(end);
                    expect_end(&kept, CloseReason::Lost);
                }
                let MessageChannel { port1: gift, port2: other } =
                    MessageChannel::untrusted().unwrap();
                let refused = victim.post_bytes_with(b"", transfer![gift]).unwrap_err();
                // It can be a side that is just going: then its line says so next.
                assert!(matches!(refused.source, PostError::Os(_)), "{how:?}: {refused:?}");
                let gift = refused.list.into_ports().pop().unwrap();
                gift.post_bytes(b"as it was").unwrap();
                assert_eq!(other.recv().unwrap().bytes(), b"as it was");
            }
        });
    });
});

// S-126: a victim without free descriptors is told, and gets its ports once it has some; also if it
// cannot even take the lane's end, or only a part of an envelope.
alone!(without_descriptors_the_ports_wait, || {
    with_watchdog(|| {
        for free in [0, 1, 2, 100, 150] {
            for enveloped in [false, true] {
                raise_descriptor_limit();
                case("not enough descriptors", || expect_a_wait(free, enveloped));
            }
        }
    });
});

fn expect_a_wait(free: usize, enveloped: bool) {
    let (victim, mut hostile) = stranger();
    let goods: Vec<_> = (0..100).map(|_| Goods::new()).collect();
    hostile.open_lane();
    if enveloped {
        let [inner, end] = pair();
        for goods in goods.chunks(30) {
            let (tickets, fds) = parcel(goods);
            send(&inner, &tickets, &fds);
        }
        hostile.pack(&envelope(), &[end.as_fd()]);
    } else {
        let (tickets, fds) = parcel(&goods);
        hostile.pack(&tickets, &fds);
    }
    hostile.publish(100);
    let held = descriptors_to_the_limit(free);
    let message = receive(&victim, 100);
    for _ in 0..3 {
        assert!(matches!(message.take_port(), Err(TakeError::Os(_))), "{free}");
        assert_eq!(message.port_count(), 100);
    }
    assert_eq!(victim.peer_state(), PeerState::Open);
    drop(held);
    raise_descriptor_limit();
    let ports = message.take_all_ports().unwrap();
    for (port, goods) in ports.iter().zip(&goods) {
        expect_alive(port, &goods.other);
    }
}

/// Takes all descriptors that this process may have but so many.
fn descriptors_to_the_limit(free: usize) -> Vec<File> {
    lower_descriptor_limit(2000);
    let null = File::open("/dev/null").unwrap();
    let mut held: Vec<_> = std::iter::from_fn(|| null.try_clone().ok()).collect();
    held.truncate(held.len() - free);
    held
}

// A message may claim 1024 ports, and a packet may hold 253 descriptors. Who is sent more, or is sent
// descriptors beside bells, has them no longer than it takes to find out.
alone!(a_flood_of_descriptors_goes_as_it_comes, || {
    with_watchdog(|| {
        raise_descriptor_limit();
        case("more ports than a message may have", || {
            let goods = Goods::new();
            for ports in [1025, 2000, u16::MAX] {
                let (victim, mut hostile) = stranger();
                hostile.open_lane();
                let [inner, end] = pair();
                let (tickets, fds) = (goods.ticket.repeat(126), goods.fds().repeat(126));
                for _ in 0..9 {
                    send(&inner, &tickets, &fds);
                }
                hostile.pack(&envelope(), &[end.as_fd()]);
                drop(end);
                hostile.publish(ports);
                expect_violated(&victim);
                // Nobody has opened the envelope: as the kernel says once, all of it went unread.
                let sent = rustix::net::send(&inner, &[0], QUIET);
                assert_eq!(sent, Err(Errno::CONNRESET));
                drop(hostile);
            }
        });
        case("descriptors beside every bell", || {
            let (victim, mut hostile) = stranger();
            victim.set_wait_strategy(WaitStrategy::Sleep);
            let null = File::open("/dev/null").unwrap();
            let fds = vec![null.as_fd(); MAX_FDS];
            for _ in 0..100 {
                send(&hostile.line, &[0], &fds);
                send(&hostile.line, LANE_END, &fds);
                hostile.publish(0);
                drop(receive(&victim, 0));
                let timeout = Duration::from_micros(50);
                assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
            }
        });
        case("messages that are held, and let go in any order", || {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let goods: Vec<_> = (0..60).map(|_| Goods::new()).collect();
            for goods in &goods {
                hostile.pack(&goods.ticket, &goods.fds());
                hostile.publish(1);
            }
            let mut messages: Vec<_> = (0..60).map(|_| receive(&victim, 1)).collect();
            while messages.len() > 1 {
                let number = messages.len() * 7 % 11 % messages.len();
                drop(messages.swap_remove(number));
            }
            let port = messages.pop().unwrap().take_port().unwrap().unwrap();
            let alive = goods.iter().position(|goods| {
                goods.other.post_bytes(b"who?").unwrap();
                port.recv_timeout(Duration::ZERO).is_ok()
            });
            assert_eq!(alive, Some(0), "the port is one of them");
        });
    });
});

// What was sent can take its time to be closed: a TCP socket that lingers, for one. That is the time of
// who drops it; all others go on.
alone!(a_descriptor_that_closes_slowly_holds_no_other_port, || {
    with_watchdog(|| {
        for place in ["untaken", "refused", "left over", "on the line"] {
            let (victim, mut hostile) = stranger();
            hostile.open_lane();
            let (lingering, reader) = lingering_socket();
            let goods = Goods::new();
            match place {
                "on the line" => send(&hostile.line, LANE_END, &[lingering.as_fd()]),
                "left over" => {
                    let fds = [goods.fds(), vec![lingering.as_fd()]].concat();
                    hostile.pack(&goods.ticket, &fds);
                }
                _ => {
                    hostile.pack(&goods.ticket, &[lingering.as_fd(), goods.fds[1].as_fd()]);
                }
            }
            drop(lingering);
            hostile.publish(u16::from(place != "on the line"));
            let closing = support::asleep(move || {
                match victim.recv() {
                    Ok(message) if place == "refused" => drop(message.take_port()),
                    received => drop(received),
                }
                drop(victim);
            });
            // Whatever needs the list of all sockets: to make ports, to drop them, to fork.
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            port1.post_bytes(b"as ever").unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), b"as ever");
            drop((port1, port2));
            assert!(!closing.thread.is_finished(), "{place}");
            // Nothing of it is left to be sent.
            drop(reader);
            closing.join();
        }
    });
});

/// A socket whose last close waits for an hour, or until its reader is gone.
fn lingering_socket() -> (OwnedFd, std::net::TcpStream) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut writer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[0; 65536]).is_ok() {}
    let hour = Some(Duration::from_secs(3600));
    rustix::net::sockopt::set_socket_linger(&writer, hour).unwrap();
    // Else its close waits for nothing.
    writer.set_nonblocking(false).unwrap();
    (writer.into(), reader)
}
