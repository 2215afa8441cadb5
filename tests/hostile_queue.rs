//! A hostile other side of a queue that grows: links that lead nowhere, rings that are none, large payloads
//! whose memory is not what it should be, counts that lie. Nothing panics, hangs, faults or stays behind;
//! the channel is closed as violated, and no other.
//!
//! The tests hold both ends. They play the other side by hand, with the descriptors of a port that was let
//! go: the segment's memory as a file, its end of the line, a lane of their own making, and memory that they
//! forge. Offsets are those drawn in `src/layout.rs`, `src/record.rs`, `src/ticket.rs` and `src/warm.rs`. Each
//! test has a process of its own, so that nobody else's descriptors come and go.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod ends;
mod support;

use std::cell::Cell;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use ends::{expect_end, expect_post_closed};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use support::{
    alone, count_descriptors, count_segment_mappings, pattern, post_ports_until_refused,
    with_watchdog,
};
use zeroport::{
    AttachError, Buffer, ChannelOptions, CloseReason, MessageChannel, MessagePort, PeerState,
    PostError, RecvError, TakeError, Trust, transfer,
};

/// Bytes of the first ring in each direction, and of the rings that follow it here.
const CAPACITY: u64 = 4096;
const GROWN: u64 = 8192;
const ORDER: u32 = GROWN.trailing_zeros();
const LIMIT: u64 = 1 << 20;
const MAX_IN_RING: u64 = CAPACITY / 2 - 32;
const GIB: u64 = 1 << 30;
/// The most that is sent in memory that is used again.
const MAX_WARM: u64 = 32 << 20;

/// Bytes before the first ring.
const HEADER: u64 = 0x1000;
/// What the victim writes of the ring that it reads.
const VICTIMS_WORDS: u64 = 0x180;
/// What the hostile side writes of the ring that it reads.
const RELEASED: u64 = 0x200;
const LET_GO: u64 = 0x208;
const LANES: u64 = 0x210;
const CAPACITIES_IN_IDENTITY: usize = 0x18;

const MESSAGE: u64 = 1 << 32;
const FILLER: u64 = 2 << 32;
const LINK: u64 = 3 << 32;
const OUTSIDE: u8 = 1;
const NEXT_LANE: u8 = 2;

const PORT: u8 = 1;
const ENVELOPE: u8 = 2;
const BUFFER: u8 = 3;
const PAYLOAD: u8 = 4;
const RING: u8 = 5;
const TICKET_LEN: usize = 80;
const LANE_END: &[u8] = b"zp-lane\0";
/// Lanes that may wait for a reader.
const MAX_LANES: usize = 16;
/// Links without a record between them are more than a queue has.
const MANY_LINKS: usize = 1100;

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
const ALL_SEALS: SealFlags = SIZE_SEALS.union(SealFlags::WRITE);
const QUIET: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A page of the memory for a payload that is used again comes before it, and says whose turn it is.
const SENT: u32 = 1;

/// Who reads what the hostile side posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Who trusts nobody.
    Untrusted,
    /// Who trusts the other side.
    Cold,
    /// The same, where memory is used again.
    Warm,
    /// Who trusts nobody, on a channel that was made for who does.
    Stranger,
}

const READERS: [Reader; 4] = [Reader::Untrusted, Reader::Cold, Reader::Warm, Reader::Stranger];

impl Reader {
    fn uses_again(self) -> bool {
        matches!(self, Self::Warm | Self::Stranger)
    }

    fn is_trusting(self) -> bool {
        matches!(self, Self::Cold | Self::Warm)
    }
}

/// The other side of a victim's port, played by hand.
struct Hostile {
    reader: Reader,
    segment: File,
    line: OwnedFd,
    /// The end of the lane into which it sends.
    lane: Option<OwnedFd>,
    /// Whether nothing was sent on it, and what the record says to which the first packet belongs.
    is_fresh: Cell<bool>,
    flags: Cell<u8>,
    /// The ring into which it posts, if that is not the first one.
    ring: Option<(File, u64)>,
    /// Where its next record goes, in the first ring and in the other one.
    at: [u64; 2],
}

/// A victim and its hostile other side.
fn open(reader: Reader, limit: u64) -> (MessagePort, Hostile) {
    let options = ChannelOptions::new().capacity(CAPACITY).limit(limit);
    let options = match reader {
        Reader::Untrusted => options.trust(Trust::Untrusted),
        Reader::Cold => options.warm(false),
        Reader::Warm | Reader::Stranger => options,
    };
    let MessageChannel { port1, port2: victim } = options.open().unwrap();
    // SAFETY: nobody reads a message in place while it is written to.
    let parts = unsafe { port1.into_descriptors_trusted() }.expect("a port that can be let go");
    let [segment, line] = <[OwnedFd; 2]>::try_from(parts.descriptors).expect("two descriptors");
    let victim = if reader == Reader::Stranger { distrusting(victim) } else { victim };
    let segment = segment.into();
    (
        victim,
        Hostile {
            reader,
            segment,
            line,
            lane: None,
            is_fresh: Cell::new(false),
            flags: Cell::new(0),
            ring: None,
            at: [0; 2],
        },
    )
}

/// The same port, for who does not trust the other side.
fn distrusting(port: MessagePort) -> MessagePort {
    // SAFETY: nobody but this function has them.
    let parts = unsafe { port.into_descriptors_trusted() }.unwrap();
    MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap()
}

impl Hostile {
    /// Gives the victim the reader's end of a lane.
    fn open_lane(&mut self) {
        let [ours, theirs] = pair();
        send(&self.line, LANE_END, &[theirs.as_fd()]);
        self.lane = Some(ours);
        self.is_fresh.set(true);
    }

    /// Puts a packet on the lane.
    fn pack(&self, tickets: &[[u8; TICKET_LEN]], fds: &[BorrowedFd<'_>]) {
        self.used_lane();
        send(self.lane.as_ref().expect("a lane"), &tickets.concat(), fds);
    }

    /// The next record is the first that needs this lane.
    fn used_lane(&self) {
        if self.is_fresh.take() {
            self.flags.set(NEXT_LANE);
        }
    }

    fn bell(&self) {
        // A line that was hung up is as good.
        let _ = rustix::net::send(&self.line, &[0], QUIET);
    }

    /// Publishes a record with any header, and rings.
    fn publish(&mut self, head: u64, detail: u64, payload: &[u8]) {
        let head = head | u64::from(self.flags.take()) << 40;
        let (file, capacity) = match &self.ring {
            None => (&self.segment, CAPACITY),
            Some((file, capacity)) => (file, *capacity),
        };
        let at = &mut self.at[usize::from(self.ring.is_some())];
        let place = HEADER + *at % capacity;
        file.write_all_at(payload, place + 16).unwrap();
        *at += 16 + (payload.len() as u64).next_multiple_of(16);
        file.write_all_at(&[0; 8], HEADER + *at % capacity).unwrap();
        file.write_all_at(&detail.to_le_bytes(), place + 8).unwrap();
        file.write_all_at(&head.to_le_bytes(), place).unwrap();
        self.bell();
    }

    fn record(&mut self, flags: u8, [ports, buffers]: [u16; 2], payload: &[u8]) {
        let head = MESSAGE | u64::from(flags) << 40 | u64::from(ports) << 48;
        self.publish(head | payload.len() as u64, u64::from(buffers) << 32, payload);
    }

    fn bytes(&mut self, payload: &[u8]) {
        self.record(0, [0, 0], payload);
    }

    fn link(&mut self, order: u32, flags: u8) {
        self.publish(LINK | u64::from(flags) << 40, order.into(), &[]);
    }

    /// From now on it posts into another ring.
    fn enter(&mut self, ring: File) {
        let capacity = ring.metadata().unwrap().len() - HEADER;
        self.ring = Some((ring, capacity));
        self.at[1] = 0;
    }

    /// From now on it posts into the first ring.
    fn leave(&mut self) {
        self.ring = None;
    }

    /// The first words of the channel's segment, for one with rings of these capacities.
    fn identity(&self, capacity: [u64; 2]) -> [u8; 128] {
        let mut identity = [0; 128];
        // The magic, the version, the length of the header, the features.
        let honest = &mut identity[..CAPACITIES_IN_IDENTITY];
        self.segment.read_exact_at(honest, 0).unwrap();
        for (place, capacity) in identity[CAPACITIES_IN_IDENTITY..].chunks_mut(8).zip(capacity) {
            place.copy_from_slice(&capacity.to_le_bytes());
        }
        identity
    }

    /// The segment of a grown ring.
    fn grown(&self, capacity: u64) -> File {
        memory(&self.identity([capacity, 0]), HEADER + capacity, SIZE_SEALS)
    }

    /// Goes on in a fresh ring, by the rules.
    fn grow(&mut self) {
        let ring = self.grown(GROWN);
        self.pack(&[ticket(RING, GROWN)], &[ring.as_fd()]);
        self.link(ORDER, 0);
        self.enter(ring);
    }

    /// The memory of a large payload, by the rules.
    fn payload(&self, bytes: &[u8]) -> File {
        let before = if self.reader.uses_again() { HEADER as usize } else { 0 };
        let mut contents = vec![0; (before + bytes.len()).next_multiple_of(4096)];
        contents[..before.min(4)].copy_from_slice(&SENT.to_le_bytes()[..before.min(4)]);
        contents[before..before + bytes.len()].copy_from_slice(bytes);
        memory(&contents, contents.len() as u64, self.payload_seals())
    }

    fn payload_seals(&self) -> SealFlags {
        if self.reader.uses_again() { SIZE_SEALS } else { ALL_SEALS }
    }

    /// Bytes of the file of a payload of this length.
    fn payload_file_len(&self, len: u64) -> u64 {
        len.next_multiple_of(4096) + if self.reader.uses_again() { HEADER } else { 0 }
    }

    fn large(&mut self, bytes: &[u8]) {
        self.pack(&[ticket(PAYLOAD, bytes.len() as u64)], &[self.payload(bytes).as_fd()]);
        self.record(OUTSIDE, [0, 0], &outside(bytes.len() as u64, 0));
    }

    /// A large payload that is said to be so long, in this memory.
    fn false_large(&mut self, len: u64, memory: &impl AsFd) {
        self.pack(&[ticket(PAYLOAD, len)], &[memory.as_fd()]);
        self.record(OUTSIDE, [0, 0], &outside(len, 0));
    }

    /// Up to where the victim has given back room of the first ring.
    fn given_back(&self) -> u64 {
        self.word(VICTIMS_WORDS)
    }

    fn word(&self, place: u64) -> u64 {
        let mut word = [0; 8];
        self.segment.read_exact_at(&mut word, place).unwrap();
        u64::from_le_bytes(word)
    }

    fn write(&self, place: u64, word: u64) {
        self.segment.write_all_at(&word.to_le_bytes(), place).unwrap();
    }
}

/// A ticket for anything but a port.
fn ticket(kind: u8, len: u64) -> [u8; TICKET_LEN] {
    let mut ticket = [0; TICKET_LEN];
    ticket[0] = kind;
    ticket[72..].copy_from_slice(&len.to_le_bytes());
    ticket
}

/// What a record says that it has outside the ring.
fn outside(large: u64, buffers: u64) -> [u8; 32] {
    outside_of([large, buffers, 0, 0])
}

/// The same for a payload of a memory that the victim is said to have kept: the number of its file.
fn kept(large: u64, file: u64) -> [u8; 32] {
    outside_of([large, 0, file, 0])
}

fn outside_of(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Bytes of memory that count for a payload or a buffer.
fn pages(len: u64) -> u64 {
    len.max(1).next_multiple_of(4096)
}

/// A memfd of any contents, length and seals; what is not in the contents is a hole.
fn memory(contents: &[u8], len: u64, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(c"zeroport", flags).unwrap());
    file.write_all_at(contents, 0).unwrap();
    file.set_len(len).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn sealed(contents: &[u8]) -> File {
    let mut pages = contents.to_vec();
    pages.resize(contents.len().max(1).next_multiple_of(4096), 0);
    memory(&pages, pages.len() as u64, ALL_SEALS)
}

fn pair() -> [OwnedFd; 2] {
    let (first, second) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    [first, second]
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, QUIET).expect("a packet that fits");
}

/// Takes the descriptor of the next packet that has one.
fn take_descriptor(socket: &OwnedFd) -> OwnedFd {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let bytes = &mut [0; 2 * TICKET_LEN];
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::DONTWAIT)
            .expect("a packet");
        let taken = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if let Some(taken) = taken {
            return taken;
        }
    }
}

fn open_file(path: impl AsRef<std::path::Path>) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Descriptors of all kinds, none of them memory that was made by the rules.
fn strange_descriptors(hostile: &Hostile) -> Vec<(&'static str, OwnedFd)> {
    let (reader, writer) = std::io::pipe().unwrap();
    let (stream, _) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let [socket, _] = pair();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let plain = memfd_create(c"zeroport", MemfdFlags::CLOEXEC).unwrap();
    let pathed = rustix::fs::open(
        format!("/proc/self/fd/{}", hostile.segment.as_raw_fd()),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    vec![
        ("the reading end of a pipe", reader.into()),
        ("the writing end of a pipe", writer.into()),
        ("/dev/zero", open_file("/dev/zero")),
        ("/dev/null", open_file("/dev/null")),
        ("a file", open_file("/proc/self/exe")),
        ("a file without a length", open_file("/proc/self/maps")),
        ("a directory", open_file("/")),
        ("memory that is only named", pathed.unwrap()),
        ("a stream socket", stream),
        ("a socket", socket),
        ("an eventfd", eventfd),
        ("memory that cannot be sealed", plain),
        ("empty memory", memory(&[], 0, ALL_SEALS).into()),
        ("unsealed memory", memory(&[7; 16384], 16384, SealFlags::empty()).into()),
        ("the channel's segment", hostile.segment.try_clone().unwrap().into()),
    ]
}

fn expect_violated(victim: &MessagePort) {
    expect_end(victim, CloseReason::Violated);
    assert_eq!(victim.peer_state(), PeerState::Closed(CloseReason::Violated));
}

/// Runs a case, which must leave no descriptor and no mapping behind, and must not touch a channel that
/// stands by.
fn case(what: &str, body: impl FnOnce()) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let counts = || {
        // A cycle of sockets that hold each other is found when a Unix socket is next closed.
        drop(pair());
        zeroport::trim();
        (count_descriptors(), count_segment_mappings())
    };
    let before = counts();
    eprintln!("{what}");
    body();
    support::wait_until(what, || counts() == before);
    port1.post_bytes(b"as ever").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"as ever", "{what}");
}

/// What the hostile side plays is found out, after what came before it, by readers of all kinds.
fn expect_violation(what: &str, play: impl Fn(&mut Hostile)) {
    for reader in READERS {
        expect_violation_by(reader, what, &play);
    }
}

fn expect_violation_by(reader: Reader, what: &str, play: impl Fn(&mut Hostile)) {
    case(&format!("{what}; {reader:?}"), || {
        let (victim, mut hostile) = open(reader, LIMIT);
        hostile.bytes(b"before");
        hostile.open_lane();
        play(&mut hostile);
        assert_eq!(victim.recv().unwrap().bytes(), b"before");
        expect_violated(&victim);
    });
}

// What is made by hand here is what an honest side makes: it is the deviations below that are refused.
alone!(by_the_rules_it_works, || {
    with_watchdog(|| {
        for reader in READERS {
            case(&format!("links, large payloads, buffers; {reader:?}"), || play_fair(reader));
        }
    });
});

fn play_fair(reader: Reader) {
    let (victim, mut hostile) = open(reader, LIMIT);
    hostile.open_lane();
    for round in 0..3u8 {
        hostile.bytes(&[round; 100]);
        for _ in 0..round {
            hostile.grow();
            hostile.bytes(&[round; 1000]);
            hostile.large(&pattern(round.into(), 5000));
        }
        if round > 0 {
            hostile.link(0, 0);
            hostile.leave();
        }
        hostile.large(&pattern(7, 3 << 17));
        let buffer = sealed(b"a buffer");
        hostile.pack(&[ticket(BUFFER, 8)], &[buffer.as_fd()]);
        hostile.record(OUTSIDE, [0, 1], &[&outside(0, pages(8))[..], b"with a buffer"].concat());
        drop(buffer);

        assert_eq!(victim.recv().unwrap().bytes(), [round; 100]);
        for _ in 0..round {
            assert_eq!(victim.recv().unwrap().bytes(), [round; 1000]);
            assert_eq!(victim.recv().unwrap().bytes(), pattern(round.into(), 5000));
        }
        assert_eq!(victim.recv().unwrap().bytes(), pattern(7, 3 << 17));
        let message = victim.recv().unwrap();
        assert_eq!(message.bytes(), b"with a buffer");
        assert_eq!(message.take_buffers::<1>().unwrap()[0][..], *b"a buffer");
    }
    assert_eq!(victim.try_recv().map(drop), Err(RecvError::Empty));
    assert_eq!(
        hostile.word(VICTIMS_WORDS + 8),
        3 * GROWN + 3 * pages(5000) + 9 * (1 << 17) + 3 * pages(8)
    );
    assert_eq!(hostile.given_back(), hostile.at[0]);
    // One more of each, on a further lane, and the last one with a port and buffers.
    hostile.open_lane();
    let MessageChannel { port1: other, port2 } = MessageChannel::untrusted().unwrap();
    let parts = port2.into_descriptors().unwrap();
    let (large, buffer) = (hostile.payload(&[9; 6000]), sealed(&[3; 4096]));
    let [inner, end] = pair();
    let port_fds: Vec<_> = parts.descriptors.iter().map(AsFd::as_fd).collect();
    send(
        &inner,
        &[parts.ticket, ticket(BUFFER, 4096)].concat(),
        &[&port_fds[..], &[buffer.as_fd()]].concat(),
    );
    hostile.pack(&[ticket(PAYLOAD, 6000), ticket(ENVELOPE, 0)], &[large.as_fd(), end.as_fd()]);
    hostile.record(OUTSIDE | NEXT_LANE, [1, 1], &outside(6000, 4096));
    drop((inner, end, parts));
    let message = victim.recv().unwrap();
    assert_eq!(message.bytes(), [9; 6000]);
    assert_eq!(message.take_buffers::<1>().unwrap()[0][..], [3; 4096]);
    let [port] = message.take_ports().unwrap();
    port.post_bytes(b"there").unwrap();
    assert_eq!(other.recv().unwrap().bytes(), b"there");
    assert_eq!(victim.peer_state(), PeerState::Open);
}

// ---- links ----

alone!(a_link_without_its_ring_closes_the_channel, || {
    with_watchdog(|| {
        expect_violation("nothing on the lane", |hostile| hostile.link(ORDER, NEXT_LANE));
        expect_violation("a lane that nobody has come to", |hostile| hostile.link(ORDER, 0));
        expect_violation("nothing on a further lane", |hostile| {
            hostile.grow();
            hostile.open_lane();
            hostile.link(ORDER, NEXT_LANE);
        });
        expect_violation("on the further lane, but nobody says so", |hostile| {
            hostile.grow();
            hostile.open_lane();
            hostile.pack(&[ticket(RING, GROWN)], &[hostile.grown(GROWN).as_fd()]);
            hostile.flags.take();
            hostile.link(ORDER, 0);
        });
        expect_violation("no further lane", |hostile| {
            hostile.grow();
            hostile.link(ORDER, NEXT_LANE);
        });
        for reader in READERS {
            for flags in [0, NEXT_LANE] {
                case("no lane at all", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.link(ORDER, flags);
                    expect_violated(&victim);
                });
            }
        }
        expect_violation("a lane that was shut", |hostile| {
            let lane = hostile.lane.as_ref().unwrap();
            rustix::net::shutdown(lane, rustix::net::Shutdown::Both).unwrap();
            hostile.link(ORDER, NEXT_LANE);
        });
        expect_violation("the second of two", |hostile| {
            hostile.grow();
            hostile.link(ORDER + 1, 0);
        });
    });
});

alone!(a_link_that_nobody_writes_closes_the_channel, || {
    with_watchdog(|| {
        let heads = [
            LINK | 1,
            LINK | 16,
            LINK | 1 << 48,
            LINK | 1 << 63,
            LINK | u64::from(OUTSIDE) << 40,
            LINK | 4 << 40,
            LINK | 0xff << 40,
        ];
        for head in heads {
            expect_violation("a wrong head", |hostile| {
                let ring = hostile.grown(GROWN);
                hostile.pack(&[ticket(RING, GROWN)], &[ring.as_fd()]);
                hostile.publish(head, ORDER.into(), &[]);
            });
        }
        // In rings that there cannot be; whatever is told beside it.
        let orders = [1, 4, 11, 31, 32, 62, 63, 64, 65, 127, 128, 255, 256 + ORDER, u32::MAX];
        for order in orders {
            for told in [GROWN, 1u64.checked_shl(order).unwrap_or(0), 0, u64::MAX] {
                expect_violation("a wrong order", |hostile| {
                    let ring = hostile.grown(GROWN);
                    hostile.pack(&[ticket(RING, told)], &[ring.as_fd()]);
                    hostile.link(order, 0);
                });
            }
        }
        for reader in READERS {
            case("a link after a filler", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.bytes(b"before");
                assert_eq!(victim.recv().unwrap().bytes(), b"before");
                hostile.pack(&[ticket(RING, GROWN)], &[hostile.grown(GROWN).as_fd()]);
                hostile.write(HEADER + 8, ORDER.into());
                hostile.write(HEADER, LINK | u64::from(hostile.flags.take()) << 40);
                hostile.publish(FILLER, 0, &[]);
                expect_violated(&victim);
            });
        }
    });
});

alone!(a_link_back_although_nobody_left_closes_the_channel, || {
    with_watchdog(|| {
        expect_violation("in the first ring", |hostile| hostile.link(0, 0));
        expect_violation("the second time", |hostile| {
            hostile.grow();
            hostile.link(0, 0);
            hostile.leave();
            hostile.link(0, 0);
        });
        expect_violation("to a place where nothing was prepared", |hostile| {
            hostile.write(HEADER + hostile.at[0] + 16, u64::MAX);
            let at = hostile.at[0] + 16;
            hostile.grow();
            hostile.write(HEADER + at, 7 << 32);
            hostile.link(0, 0);
        });
        // The first ring says something else than it did when it was left: who reads finds whatever is there.
        for head in [MESSAGE | 6, FILLER, LINK | 1, 0, u64::MAX] {
            for reader in READERS {
                case("the link has gone", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    hostile.grow();
                    hostile.bytes(b"in the grown ring");
                    assert_eq!(victim.recv().unwrap().bytes(), b"in the grown ring");
                    hostile.write(HEADER, head);
                    hostile.link(0, 0);
                    let expected = match head {
                        0 => Err(RecvError::Empty),
                        head if head == MESSAGE | 6 => Ok(6),
                        _ => Err(RecvError::Closed(CloseReason::Violated)),
                    };
                    let received = victim.try_recv().map(|message| message.bytes().len());
                    assert_eq!(received, expected, "{head:#x}");
                });
            }
        }
    });
});

alone!(a_ring_that_is_none_closes_the_channel, || {
    with_watchdog(|| {
        let (_victim, some) = open(Reader::Untrusted, LIMIT);
        for (what, strange) in strange_descriptors(&some) {
            expect_violation(what, |hostile| {
                hostile.pack(&[ticket(RING, GROWN)], &[strange.as_fd()]);
                hostile.link(ORDER, 0);
            });
        }
        type Forged = (&'static str, fn(&Hostile) -> File);
        let forged: [Forged; 14] = [
            ("unsealed", |hostile| {
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, SealFlags::empty())
            }),
            ("can shrink", |hostile| {
                let seals = SealFlags::GROW | SealFlags::SEAL;
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, seals)
            }),
            ("can grow", |hostile| {
                let seals = SealFlags::SHRINK | SealFlags::SEAL;
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, seals)
            }),
            ("can be sealed", |hostile| {
                let seals = SealFlags::SHRINK | SealFlags::GROW;
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, seals)
            }),
            ("cannot be written", |hostile| {
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, ALL_SEALS)
            }),
            ("can be written by who has done so", |hostile| {
                let seals = SIZE_SEALS | SealFlags::FUTURE_WRITE;
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN, seals)
            }),
            ("can only be read", |hostile| {
                let ring = hostile.grown(GROWN);
                let path = format!("/proc/self/fd/{}", ring.as_raw_fd());
                File::open(path).unwrap()
            }),
            ("another capacity", |hostile| hostile.grown(2 * GROWN)),
            ("a shorter file", |hostile| {
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN / 2, SIZE_SEALS)
            }),
            ("a longer file", |hostile| {
                memory(&hostile.identity([GROWN, 0]), HEADER + GROWN + 4096, SIZE_SEALS)
            }),
            ("two rings", |hostile| {
                memory(&hostile.identity([GROWN, CAPACITY]), HEADER + GROWN + CAPACITY, SIZE_SEALS)
            }),
            ("two rings in as many bytes", |hostile| {
                memory(&hostile.identity([CAPACITY, CAPACITY]), HEADER + GROWN, SIZE_SEALS)
            }),
            ("no identity", |_| memory(&[], HEADER + GROWN, SIZE_SEALS)),
            ("another version", |hostile| {
                let mut identity = hostile.identity([GROWN, 0]);
                identity[8] += 1;
                memory(&identity, HEADER + GROWN, SIZE_SEALS)
            }),
        ];
        for (what, forge) in forged {
            expect_violation(what, |hostile| {
                let ring = forge(hostile);
                hostile.pack(&[ticket(RING, GROWN)], &[ring.as_fd()]);
                hostile.link(ORDER, 0);
            });
        }
    });
});

alone!(a_packet_that_is_no_rings_closes_the_channel, || {
    with_watchdog(|| {
        for told in [0, 1, CAPACITY, GROWN - 1, GROWN + 1, 2 * GROWN, u64::MAX] {
            expect_violation("another capacity told", |hostile| {
                let ring = hostile.grown(GROWN);
                hostile.pack(&[ticket(RING, told)], &[ring.as_fd()]);
                hostile.link(ORDER, 0);
            });
        }
        for kind in [0, PORT, BUFFER, PAYLOAD, 6, 255] {
            expect_violation("another kind of ticket", |hostile| {
                let ring = hostile.grown(GROWN);
                hostile.pack(&[ticket(kind, GROWN)], &[ring.as_fd()]);
                hostile.link(ORDER, 0);
            });
        }
        for place in 1..72 {
            expect_violation_by(Reader::Untrusted, "more in the ticket", |hostile| {
                let ring = hostile.grown(GROWN);
                let mut ticket = ticket(RING, GROWN);
                ticket[place] = 1;
                hostile.pack(&[ticket], &[ring.as_fd()]);
                hostile.link(ORDER, 0);
            });
        }
        expect_violation("an envelope", |hostile| {
            let ring = hostile.grown(GROWN);
            let [inner, end] = pair();
            send(&inner, &ticket(RING, GROWN), &[ring.as_fd()]);
            hostile.pack(&[ticket(ENVELOPE, 0)], &[end.as_fd()]);
            hostile.link(ORDER, 0);
        });
        expect_violation("a ring beside an envelope", |hostile| {
            let ring = hostile.grown(GROWN);
            let [_inner, end] = pair();
            hostile.pack(&[ticket(RING, GROWN), ticket(ENVELOPE, 0)], &[ring.as_fd(), end.as_fd()]);
            hostile.link(ORDER, 0);
        });
        expect_violation("two rings", |hostile| {
            let ring = hostile.grown(GROWN);
            hostile.pack(&[ticket(RING, GROWN); 2], &[ring.as_fd(), ring.as_fd()]);
            hostile.link(ORDER, 0);
        });
        expect_violation("two descriptors", |hostile| {
            let ring = hostile.grown(GROWN);
            hostile.pack(&[ticket(RING, GROWN)], &[ring.as_fd(), ring.as_fd()]);
            hostile.link(ORDER, 0);
        });
        expect_violation("no descriptor", |hostile| {
            hostile.pack(&[ticket(RING, GROWN)], &[]);
            hostile.link(ORDER, 0);
        });
        expect_violation("not a whole ticket", |hostile| {
            let ring = hostile.grown(GROWN);
            let lane = hostile.lane.as_ref().unwrap();
            send(lane, &ticket(RING, GROWN)[..TICKET_LEN - 1], &[ring.as_fd()]);
            hostile.used_lane();
            hostile.link(ORDER, 0);
        });
        // The other way round: what belongs to a link comes with a message.
        for ports in [[1, 0], [0, 1], [2, 3]] {
            for reader in READERS {
                case("a ring with a message", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    let ring = hostile.grown(GROWN);
                    hostile.pack(&[ticket(RING, GROWN)], &[ring.as_fd()]);
                    hostile.record(OUTSIDE, ports, &outside(0, 0));
                    expect_untakeable(&victim);
                });
            }
        }
    });
});

/// What the next message claims to bring cannot be had; that ends the channel.
fn expect_untakeable(victim: &MessagePort) {
    let message = victim.recv().unwrap();
    if message.port_count() > 0 {
        assert!(matches!(message.take_port(), Err(TakeError::Violated)));
    }
    if message.buffer_count() > 0 {
        assert!(matches!(message.take_buffer(), Err(TakeError::Violated)));
    }
    assert_eq!(victim.peer_state(), PeerState::Closed(CloseReason::Violated));
    drop(message);
    expect_violated(victim);
}

alone!(rings_above_the_limit_close_the_channel, || {
    with_watchdog(|| {
        for reader in READERS {
            for limit in [0, 1, GROWN - 1] {
                case("a ring that is larger than the limit", || {
                    let (victim, mut hostile) = open(reader, limit);
                    hostile.open_lane();
                    hostile.grow();
                    expect_violated(&victim);
                });
            }
            case("as much as the limit, and one more", || {
                let (victim, mut hostile) = open(reader, 3 * GROWN);
                hostile.open_lane();
                let mut held = Vec::new();
                for _ in 0..3 {
                    hostile.grow();
                    hostile.bytes(&[1; 16]);
                    held.push(victim.recv().unwrap());
                }
                // Who reads a copy has left the rings before this one; and this one counts while it is read.
                if reader.is_trusting() {
                    hostile.grow();
                    hostile.bytes(&[1; 16]);
                    assert_eq!(
                        victim.recv().map(drop),
                        Err(RecvError::Closed(CloseReason::Violated))
                    );
                    assert!(held.iter().all(|message| message.bytes() == [1; 16]), "still there");
                    drop(held);
                    expect_violated(&victim);
                } else {
                    drop(held);
                    for _ in 0..10 {
                        hostile.grow();
                        hostile.bytes(&[1; 16]);
                        assert_eq!(victim.recv().unwrap().bytes(), [1; 16]);
                    }
                }
            });
        }
    });
});

// Links and nothing else: whoever looks for the next message comes to an end all the same.
alone!(links_without_end_hold_nobody, || {
    with_watchdog(|| {
        for reader in READERS {
            case("from ring to ring", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                // A ring that leads to itself, whichever time it comes.
                let ring = hostile.grown(GROWN);
                send_many_rings(&mut hostile, &ring);
                hostile.link(ORDER, NEXT_LANE);
                hostile.enter(ring);
                hostile.link(ORDER, 0);
                expect_violated(&victim);
            });
            case("to and fro", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                let ring = hostile.grown(GROWN);
                send_many_rings(&mut hostile, &ring);
                for place in (0..CAPACITY).step_by(16) {
                    hostile.write(HEADER + place, LINK);
                    hostile.write(HEADER + place + 8, ORDER.into());
                }
                hostile.write(HEADER, LINK | u64::from(NEXT_LANE) << 40);
                hostile.enter(ring);
                hostile.link(0, 0);
                expect_violated(&victim);
            });
        }
    });
});

/// Fills a lane with one ring, many times.
fn send_many_rings(hostile: &mut Hostile, ring: &File) {
    let [ours, theirs] = pair();
    rustix::net::sockopt::set_socket_send_buffer_size_force(&ours, 64 << 20)
        .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&ours, 64 << 20))
        .unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    for _ in 0..MANY_LINKS {
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [ring.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        // As many as fit: without privileges that may be fewer. The last of them leads nowhere then.
        let ticket = ticket(RING, GROWN);
        if sendmsg(&ours, &[IoSlice::new(&ticket)], &mut control, QUIET).is_err() {
            break;
        }
    }
    send(&hostile.line, LANE_END, &[theirs.as_fd()]);
    hostile.lane = Some(ours);
}

// A record in a grown ring is checked like any other, and memory that the hostile side has back is its own.
alone!(a_broken_grown_ring_closes_the_channel, || {
    with_watchdog(|| {
        let max = GROWN / 2 - 32;
        let heads = [
            5,
            4 << 32,
            MESSAGE | (max + 1),
            MESSAGE | 0xffff_ffff,
            MESSAGE | 4 << 40,
            MESSAGE | u64::from(OUTSIDE) << 40 | 31,
            FILLER,
            FILLER | 1,
            u64::MAX,
        ];
        for head in heads {
            expect_violation("a broken head", |hostile| {
                hostile.grow();
                hostile.publish(head, 0, &[]);
            });
        }
        for reader in READERS {
            case("lap after lap", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.grow();
                for number in 0..1000u64 {
                    hostile.bytes(&pattern(number, 240));
                    assert_eq!(victim.recv().unwrap().bytes(), pattern(number, 240));
                }
                assert_eq!(
                    victim.recv_timeout(Duration::from_millis(1)).map(drop),
                    Err(RecvError::Empty)
                );
                hostile.link(0, 0);
                hostile.leave();
                hostile.bytes(b"back");
                assert_eq!(victim.recv().unwrap().bytes(), b"back");
            });
            case("over what is held", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.grow();
                hostile.bytes(&[1; 240]);
                let held = victim.recv().unwrap();
                let mut received = 0;
                let end = loop {
                    hostile.bytes(&[2; 240]);
                    match victim.recv() {
                        Ok(message) if received < 100 => {
                            received += usize::from(message.bytes() == [2; 240])
                        }
                        Ok(_) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                if reader.is_trusting() {
                    assert_eq!(end, Err(RecvError::Closed(CloseReason::Violated)));
                    assert!(received <= GROWN as usize / 256);
                } else {
                    assert_eq!(end, Ok(()));
                }
                assert_eq!(held.bytes(), [1; 240]);
            });
            case("with holes", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.grow();
                hostile.bytes(&[1; 48]);
                assert_eq!(victim.recv().unwrap().bytes(), [1; 48]);
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (ring, _) = hostile.ring.as_ref().unwrap();
                ring.set_len(0).expect_err("the seals forbid it");
                fallocate(ring, flags, 0, HEADER + GROWN).unwrap();
                assert_eq!(victim.try_recv().map(drop), Err(RecvError::Empty));
                hostile.bytes(&[2; 48]);
                assert_eq!(victim.recv().unwrap().bytes(), [2; 48]);
            });
        }
    });
});

// ---- large payloads ----

const LEN: u64 = 5000;

alone!(a_large_record_without_its_memory_closes_the_channel, || {
    with_watchdog(|| {
        for flags in [OUTSIDE, OUTSIDE | NEXT_LANE] {
            expect_violation("nothing on the lane", |hostile| {
                if flags & NEXT_LANE != 0 {
                    hostile.open_lane();
                }
                hostile.record(flags, [0, 0], &outside(LEN, 0));
            });
            for reader in READERS {
                case("no lane at all", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.record(flags, [0, 0], &outside(LEN, 0));
                    expect_violated(&victim);
                });
            }
        }
        expect_violation("the second of two", |hostile| {
            hostile.pack(&[ticket(PAYLOAD, 6)], &[hostile.payload(b"before").as_fd()]);
            hostile.at[0] = 0;
            hostile.record(OUTSIDE, [0, 0], &outside(6, 0));
            hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
        });
        let (_victim, some) = open(Reader::Untrusted, LIMIT);
        for (what, strange) in strange_descriptors(&some) {
            // The segment is as sealed as memory that is used again, and long enough for little.
            expect_violation(what, |hostile| hostile.false_large(3 * GROWN, &strange));
            expect_violation(what, |hostile| {
                hostile.pack(
                    &[ticket(PAYLOAD, LEN), ticket(ENVELOPE, 0)],
                    &[hostile.payload(&[1; LEN as usize]).as_fd(), strange.as_fd()],
                );
                hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
            });
        }
    });
});

alone!(a_large_record_that_lies_closes_the_channel, || {
    with_watchdog(|| {
        let bytes = [1; LEN as usize];
        for told in [0, 1, LEN - 1, LEN + 1, 4096, 8192, u64::MAX] {
            expect_violation("another length in the ticket", |hostile| {
                hostile.pack(&[ticket(PAYLOAD, told)], &[hostile.payload(&bytes).as_fd()]);
                hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
            });
        }
        for len in [8193, 12288, 1 << 19, LIMIT] {
            expect_violation("longer than its memory", |hostile| {
                let payload = hostile.payload(&bytes);
                hostile.false_large(len, &payload);
            });
        }
        for (large, buffers) in [
            (4 * GIB + 1, 0),
            (5 * GIB, 0),
            (1 << 46, 0),
            (isize::MAX as u64, 0),
            (u64::MAX - 4096, 0),
            (u64::MAX, 0),
            (LEN, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (1 << 63, 1 << 63),
        ] {
            expect_violation("longer than any payload", |hostile| {
                hostile.pack(&[ticket(PAYLOAD, large)], &[hostile.payload(&bytes).as_fd()]);
                hostile.record(OUTSIDE, [0, 0], &outside(large, buffers));
            });
        }
        for len in 0..32 {
            expect_violation("less in the ring than it needs", |hostile| {
                hostile.pack(&[ticket(PAYLOAD, LEN)], &[hostile.payload(&bytes).as_fd()]);
                hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0)[..len]);
            });
        }
        for more in [1, 16, 100] {
            expect_violation("more in the ring", |hostile| {
                hostile.pack(&[ticket(PAYLOAD, LEN)], &[hostile.payload(&bytes).as_fd()]);
                let payload = [&outside(LEN, 0)[..], &vec![0; more]].concat();
                hostile.record(OUTSIDE, [0, 0], &payload);
            });
        }
        for file in [1, u64::MAX] {
            expect_violation("a memory that was not kept", |hostile| {
                hostile.record(OUTSIDE, [0, 0], &kept(LEN, file));
            });
        }
        expect_violation("a memory that was not kept, and comes on the lane", |hostile| {
            let payload = hostile.payload(&bytes);
            hostile.pack(&[ticket(PAYLOAD, LEN)], &[payload.as_fd()]);
            hostile.record(OUTSIDE, [0, 0], &kept(LEN, payload.metadata().unwrap().ino()));
        });
        expect_violation("words that are not used yet", |hostile| {
            hostile.pack(&[ticket(PAYLOAD, LEN)], &[hostile.payload(&bytes).as_fd()]);
            hostile.record(OUTSIDE, [0, 0], &outside_of([LEN, 0, 0, 1]));
        });
        expect_violation("a kept memory of no payload", |hostile| {
            hostile.record(OUTSIDE, [0, 0], &kept(0, 1));
        });
        for kind in [0, PORT, BUFFER, RING, 6] {
            expect_violation("another kind of ticket", |hostile| {
                hostile.pack(&[ticket(kind, LEN)], &[hostile.payload(&bytes).as_fd()]);
                hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
            });
        }
        expect_violation("two descriptors", |hostile| {
            let payload = hostile.payload(&bytes);
            hostile.pack(&[ticket(PAYLOAD, LEN)], &[payload.as_fd(), payload.as_fd()]);
            hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
        });
        expect_violation("two payloads", |hostile| {
            let payload = hostile.payload(&bytes);
            hostile.pack(&[ticket(PAYLOAD, LEN); 2], &[payload.as_fd(), payload.as_fd()]);
            hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
        });
        expect_violation("in an envelope", |hostile| {
            let [inner, end] = pair();
            send(&inner, &ticket(PAYLOAD, LEN), &[hostile.payload(&bytes).as_fd()]);
            hostile.pack(&[ticket(ENVELOPE, 0)], &[end.as_fd()]);
            hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
        });
    });
});

/// Sends a large payload by the rules, and has the victim read it. Gives its memory.
fn have_kept(victim: &MessagePort, hostile: &mut Hostile) -> File {
    let memory = hostile.payload(&[1; LEN as usize]);
    hostile.pack(&[ticket(PAYLOAD, LEN)], &[memory.as_fd()]);
    hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
    assert_eq!(victim.recv().unwrap().bytes(), [1; LEN as usize]);
    memory
}

alone!(a_kept_memory_named_by_a_liar_closes_the_channel, || {
    with_watchdog(|| {
        let expect = |what, reader, play: &dyn Fn(&mut Hostile, &File), is_legal| {
            case(what, || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                let memory = have_kept(&victim, &mut hostile);
                play(&mut hostile, &memory);
                if is_legal {
                    assert_eq!(victim.recv().unwrap().bytes(), [2; LEN as usize]);
                    assert_eq!(victim.peer_state(), PeerState::Open);
                } else {
                    expect_violated(&victim);
                }
            });
        };
        let name = |hostile: &mut Hostile, memory: &File, len| {
            memory.write_all_at(&[2; LEN as usize], HEADER).unwrap();
            hostile.record(OUTSIDE, [0, 0], &kept(len, memory.metadata().unwrap().ino()));
        };
        expect("by the rules", Reader::Warm, &|hostile, memory| name(hostile, memory, LEN), true);
        for reader in [Reader::Untrusted, Reader::Cold, Reader::Stranger] {
            expect(
                "who keeps nothing",
                reader,
                &|hostile, _| {
                    hostile.record(OUTSIDE, [0, 0], &kept(LEN, 1));
                },
                false,
            );
        }
        // Who does not trust us has a copy of what can still be written.
        let named = |hostile: &mut Hostile, memory: &File| name(hostile, memory, LEN);
        expect("a stranger", Reader::Stranger, &named, false);
        for len in [pages(LEN) + 1, LIMIT] {
            let longer = |hostile: &mut Hostile, memory: &File| name(hostile, memory, len);
            expect("longer than it is", Reader::Warm, &longer, false);
        }
        for counts in [[1, 0], [0, 1]] {
            expect(
                "with a list",
                Reader::Warm,
                &|hostile, memory| {
                    let file = memory.metadata().unwrap().ino();
                    hostile.record(OUTSIDE, counts, &kept(LEN, file));
                },
                false,
            );
        }
        // Twice before it was read is bad manners, and no harm.
        expect(
            "twice",
            Reader::Warm,
            &|hostile, memory| {
                name(hostile, memory, LEN);
                name(hostile, memory, LEN);
            },
            true,
        );
    });
});

alone!(memory_that_could_change_or_fault_closes_the_channel, || {
    with_watchdog(|| {
        for missing in ALL_SEALS.iter() {
            expect_violation("a seal is missing", |hostile| {
                if !hostile.payload_seals().contains(missing) {
                    // Memory that is used again is not sealed against writing; but then it is too short.
                    return hostile.record(OUTSIDE, [0, 0], &outside(LEN, 0));
                }
                let len = hostile.payload_file_len(LEN);
                let seals = hostile.payload_seals() - missing;
                let payload = memory(&vec![1; len as usize], len, seals);
                hostile.false_large(LEN, &payload);
            });
        }
        for reader in [Reader::Untrusted, Reader::Cold] {
            expect_violation_by(reader, "who has mapped it can write", |hostile| {
                let payload = memory(&[1; 8192], 8192, SIZE_SEALS | SealFlags::FUTURE_WRITE);
                hostile.false_large(LEN, &payload);
            });
            expect_violation_by(reader, "not whole pages", |hostile| {
                hostile.false_large(LEN, &memory(&[1; 5000], 5000, ALL_SEALS));
            });
            for len in [4096, 12288, 1 << 20] {
                expect_violation_by(reader, "another length of the file", |hostile| {
                    hostile.false_large(LEN, &memory(&vec![1; len], len as u64, ALL_SEALS));
                });
            }
            case("nothing can be changed afterwards", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                let payload = hostile.payload(&[1; LEN as usize]);
                hostile.false_large(LEN, &payload);
                payload.set_len(0).expect_err("sealed");
                let message = victim.recv().unwrap();
                payload.set_len(0).expect_err("sealed");
                payload.write_all_at(&[2], 0).expect_err("sealed");
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&payload, flags, 0, 8192).expect_err("sealed");
                assert_eq!(message.bytes(), [1; LEN as usize]);
            });
        }
        // Who trusts the other side does not look for holes, and reads zeros.
        for written in [0, 1, 4096] {
            expect_violation_by(Reader::Untrusted, "with a hole", |hostile| {
                hostile.false_large(LEN, &memory(&vec![1; written], 8192, ALL_SEALS));
            });
        }
        for reader in [Reader::Warm, Reader::Stranger] {
            for len in [4096, 8192] {
                expect_violation_by(reader, "too short a file", |hostile| {
                    hostile.false_large(LEN, &memory(&vec![1; len], len as u64, SIZE_SEALS));
                });
            }
            // Who posts may not trust the reader: then it is sealed, and never used again.
            case("sealed all the same", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.false_large(LEN, &sealed(&[1; LEN as usize]));
                assert_eq!(victim.recv().unwrap().bytes(), [1; LEN as usize]);
                hostile.false_large(LEN, &sealed(&[1; 4096]));
                expect_violated(&victim);
            });
        }
    });
});

// Memory that is used again can be written: who does not trust the other side has a copy, and a hole in it
// takes no memory of ours.
alone!(a_stranger_reads_a_copy, || {
    with_watchdog(|| {
        case("changed afterwards", || {
            let (victim, mut hostile) = open(Reader::Stranger, LIMIT);
            hostile.open_lane();
            let payload = hostile.payload(&[1; LEN as usize]);
            hostile.false_large(LEN, &payload);
            let message = victim.recv().unwrap();
            payload.write_all_at(&[2; LEN as usize], HEADER).unwrap();
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            payload.set_len(HEADER).expect_err("its size is sealed");
            fallocate(&payload, flags, 0, HEADER + 8192).unwrap();
            assert_eq!(message.bytes(), [1; LEN as usize]);
            drop(message);
            // Once more, with nothing in it.
            hostile.false_large(LEN, &payload);
            assert_eq!(victim.recv().unwrap().bytes(), [0; LEN as usize]);
        });
        for len in [LIMIT, MAX_WARM] {
            case("nothing but a hole", || {
                let (victim, mut hostile) = open(Reader::Stranger, LIMIT);
                hostile.open_lane();
                let payload = memory(&[], HEADER + len, SIZE_SEALS);
                hostile.false_large(len, &payload);
                let message = victim.recv().unwrap();
                assert_eq!(message.bytes().len() as u64, len);
                assert!(message.bytes().iter().all(|byte| *byte == 0));
                assert_eq!(rustix::fs::fstat(&payload).unwrap().st_blocks, 0, "it took no memory");
            });
        }
        // A hole costs its sender nothing, and its copy would cost us.
        for len in [MAX_WARM + 1, GIB, 4 * GIB] {
            expect_violation_by(Reader::Stranger, "a large hole", |hostile| {
                hostile.false_large(len, &memory(&[], HEADER + pages(len), SIZE_SEALS));
            });
        }
    });
});

// Words of memory that is used again, whatever they say: the trusting reader gets what lies there.
alone!(any_turn_is_survived, || {
    with_watchdog(|| {
        for state in [0, 1, 2, 3, 4, 5, u32::MAX] {
            for reader in [Reader::Warm, Reader::Stranger] {
                case("a state", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    let payload = hostile.payload(&[1; LEN as usize]);
                    for _ in 0..3 {
                        payload.write_all_at(&state.to_le_bytes(), 0).unwrap();
                        hostile.false_large(LEN, &payload);
                        assert_eq!(victim.recv().unwrap().bytes(), [1; LEN as usize]);
                        payload.write_all_at(&state.to_le_bytes(), 0).unwrap();
                        // Long enough to be trimmed.
                        let timeout = Duration::from_millis(150);
                        assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                        hostile.payload(&[1; LEN as usize]);
                        payload.write_all_at(&[1; LEN as usize], HEADER).unwrap();
                    }
                });
            }
        }
        // The same memory again, and longer than it is.
        for reader in [Reader::Warm, Reader::Stranger] {
            case("longer than it was", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                let payload = hostile.payload(&[1; LEN as usize]);
                hostile.false_large(LEN, &payload);
                assert_eq!(victim.recv().unwrap().bytes(), [1; LEN as usize]);
                hostile.false_large(8193, &payload);
                expect_violated(&victim);
            });
        }
    });
});

alone!(large_payloads_above_the_limit_close_the_channel, || {
    with_watchdog(|| {
        for reader in READERS {
            case("one above the limit, and then another", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                let large = vec![1; LIMIT as usize + 1];
                // Into an empty queue.
                for _ in 0..2 {
                    hostile.large(&large);
                    assert_eq!(victim.recv().unwrap().bytes().len(), large.len());
                }
                hostile.large(&large);
                hostile.bytes(b"small ones may come");
                hostile.large(&[2; LEN as usize]);
                let held = victim.recv().unwrap();
                assert_eq!(victim.recv().unwrap().bytes(), b"small ones may come");
                assert_eq!(victim.recv().map(drop), Err(RecvError::Closed(CloseReason::Violated)));
                assert_eq!(held.bytes(), large);
                drop(held);
                expect_violated(&victim);
            });
            case("more than the limit beside others", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                let quarter = vec![1; LIMIT as usize / 4];
                for _ in 0..4 {
                    hostile.large(&quarter);
                }
                let held: Vec<_> = (0..4).map(|_| victim.recv().unwrap()).collect();
                hostile.large(&[1; 4096]);
                assert_eq!(victim.recv().map(drop), Err(RecvError::Closed(CloseReason::Violated)));
                assert!(held.iter().all(|message| message.bytes() == quarter));
                drop(held);
                expect_violated(&victim);
            });
            for limit in [0, LIMIT] {
                case("buffers beside others", || {
                    let (victim, mut hostile) = open(reader, limit);
                    hostile.open_lane();
                    let buffer = sealed(&[3; 4096]);
                    for bytes in [4096, limit] {
                        hostile.pack(&[ticket(BUFFER, 4096)], &[buffer.as_fd()]);
                        hostile.record(OUTSIDE, [0, 1], &outside(0, bytes.max(1)));
                    }
                    let held = victim.recv().unwrap();
                    assert_eq!(
                        victim.recv().map(drop),
                        Err(RecvError::Closed(CloseReason::Violated))
                    );
                    assert_eq!(held.buffer_count(), 1);
                    drop(held);
                    expect_violated(&victim);
                });
            }
        }
    });
});

// ---- lists ----

alone!(a_large_record_with_a_wrong_list_closes_the_channel, || {
    with_watchdog(|| {
        let bytes = [1; LEN as usize];
        let buffer = sealed(&[3; 100]);
        expect_violation("a list that nobody spoke of", |hostile| {
            let [inner, end] = pair();
            send(&inner, &ticket(BUFFER, 100), &[buffer.as_fd()]);
            hostile.pack(
                &[ticket(PAYLOAD, LEN), ticket(ENVELOPE, 0)],
                &[hostile.payload(&bytes).as_fd(), end.as_fd()],
            );
            hostile.record(OUTSIDE, [0, 0], &outside(LEN, pages(100)));
        });
        for counts in [[1, 0], [0, 1], [3, 4]] {
            expect_violation("no list", |hostile| {
                hostile.pack(&[ticket(PAYLOAD, LEN)], &[hostile.payload(&bytes).as_fd()]);
                hostile.record(OUTSIDE, counts, &outside(LEN, pages(100)));
            });
            expect_violation("a list that is not packed", |hostile| {
                hostile.pack(
                    &[ticket(PAYLOAD, LEN), ticket(BUFFER, 100)],
                    &[hostile.payload(&bytes).as_fd(), buffer.as_fd()],
                );
                hostile.record(OUTSIDE, counts, &outside(LEN, pages(100)));
            });
            expect_violation("the list first", |hostile| {
                let [_inner, end] = pair();
                hostile.pack(
                    &[ticket(ENVELOPE, 0), ticket(PAYLOAD, LEN)],
                    &[end.as_fd(), hostile.payload(&bytes).as_fd()],
                );
                hostile.record(OUTSIDE, counts, &outside(LEN, pages(100)));
            });
        }
        for counts in [[1000, 25], [0, 1025], [1, 1024], [1025, 0], [u16::MAX, u16::MAX]] {
            expect_violation("more than a message may have", |hostile| {
                let [_inner, end] = pair();
                hostile.pack(
                    &[ticket(PAYLOAD, LEN), ticket(ENVELOPE, 0)],
                    &[hostile.payload(&bytes).as_fd(), end.as_fd()],
                );
                hostile.record(OUTSIDE, counts, &outside(LEN, pages(100)));
            });
        }
        // The payload has come: what is wrong with the list shows when it is unpacked.
        for counts in [[1, 0], [0, 2], [1, 1], [0, 1024]] {
            for reader in READERS {
                case("another list than told", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    let [inner, end] = pair();
                    send(&inner, &ticket(BUFFER, 100), &[buffer.as_fd()]);
                    hostile.pack(
                        &[ticket(PAYLOAD, LEN), ticket(ENVELOPE, 0)],
                        &[hostile.payload(&bytes).as_fd(), end.as_fd()],
                    );
                    drop((inner, end));
                    hostile.record(OUTSIDE, counts, &outside(LEN, pages(100)));
                    expect_untakeable(&victim);
                });
            }
        }
    });
});

alone!(buffers_that_are_not_as_told_close_the_channel, || {
    with_watchdog(|| {
        let buffer = sealed(&[3; 100]);
        let is_told = |bytes: u64| bytes == 2 * pages(100);
        for bytes in [0, 1, 100, 200, 4096, 8191, 8192, 8193, 12288, 1 << 19, 1 << 20] {
            for enveloped in [false, true] {
                for reader in READERS {
                    case("bytes of all buffers", || {
                        let (victim, mut hostile) = open(reader, LIMIT);
                        hostile.open_lane();
                        let (tickets, fds) = ([ticket(BUFFER, 100); 2], [buffer.as_fd(); 2]);
                        if enveloped {
                            let [inner, end] = pair();
                            send(&inner, &tickets.concat(), &fds);
                            hostile.pack(&[ticket(ENVELOPE, 0)], &[end.as_fd()]);
                        } else {
                            hostile.pack(&tickets, &fds);
                        }
                        hostile.record(OUTSIDE, [0, 2], &outside(0, bytes));
                        if !is_told(bytes) {
                            return expect_untakeable(&victim);
                        }
                        let message = victim.recv().unwrap();
                        let buffers: [_; 2] = message.take_buffers().unwrap();
                        assert!(buffers.iter().all(|buffer| buffer[..] == [3; 100]));
                    });
                }
            }
        }
        for lens in [[u64::MAX, 101], [u64::MAX, 1], [1 << 63, 1 << 63]] {
            for reader in READERS {
                case("lengths whose sum is none", || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    hostile.pack(&lens.map(|len| ticket(BUFFER, len)), &[buffer.as_fd(); 2]);
                    hostile.record(OUTSIDE, [0, 2], &outside(0, pages(100)));
                    expect_untakeable(&victim);
                });
            }
        }
    });
});

alone!(a_buffer_that_is_none_closes_the_channel, || {
    with_watchdog(|| {
        let (_victim, some) = open(Reader::Untrusted, LIMIT);
        let mut strange = strange_descriptors(&some);
        for missing in ALL_SEALS.iter() {
            let memory = memory(&[3; 4096], 4096, ALL_SEALS - missing);
            strange.push(("a seal is missing", memory.into()));
        }
        strange.push(("not whole pages", memory(&[3; 100], 100, ALL_SEALS).into()));
        strange.push(("too long", memory(&[3; 8192], 8192, ALL_SEALS).into()));
        strange.push(("a ring", some.grown(GROWN).into()));
        let good = sealed(&[3; 100]);
        for (what, strange) in strange {
            for reader in READERS {
                case(&format!("{what}; {reader:?}"), || {
                    let (victim, mut hostile) = open(reader, LIMIT);
                    hostile.open_lane();
                    hostile.pack(
                        &[ticket(BUFFER, 100), ticket(BUFFER, 100)],
                        &[good.as_fd(), strange.as_fd()],
                    );
                    hostile.record(OUTSIDE, [0, 2], &outside(0, 2 * pages(100)));
                    let message = victim.recv().unwrap();
                    // What is good among the bad can be taken.
                    assert_eq!(message.take_buffer().unwrap().unwrap()[..], [3; 100]);
                    let taken = message.take_buffer();
                    assert!(matches!(taken, Err(TakeError::Violated)), "{taken:?}");
                    drop(message);
                    expect_violated(&victim);
                });
            }
        }
        for reader in READERS {
            case("a hole", || {
                let (victim, mut hostile) = open(reader, LIMIT);
                hostile.open_lane();
                hostile.pack(&[ticket(BUFFER, 100)], &[memory(&[], 4096, ALL_SEALS).as_fd()]);
                hostile.record(OUTSIDE, [0, 1], &outside(0, pages(100)));
                if !reader.is_trusting() {
                    return expect_untakeable(&victim);
                }
                // Who trusts the other side does not look for holes, and reads zeros.
                assert_eq!(victim.recv().unwrap().take_buffers::<1>().unwrap()[0][..], [0; 100]);
            });
        }
        // Nobody has asked for it: nothing was looked at.
        case("a buffer that nobody takes", || {
            let (victim, mut hostile) = open(Reader::Untrusted, LIMIT);
            hostile.open_lane();
            for _ in 0..3 {
                hostile.pack(&[ticket(BUFFER, 100)], &[hostile.line.as_fd()]);
                hostile.record(OUTSIDE, [0, 1], &outside(0, pages(100)));
                drop(victim.recv().unwrap());
            }
            hostile.bytes(b"as ever");
            assert_eq!(victim.recv().unwrap().bytes(), b"as ever");
        });
    });
});

// ---- who posts to a hostile reader ----

type Post = fn(&MessagePort) -> Result<(), PostError>;

/// Posts that ask what was let go.
const POST: [Post; 4] = [
    |port| port.try_post_bytes(&[1; 100_000]),
    |port| port.post_bytes(&[1; 100_000]),
    |port| port.post_bytes_timeout(&[1; 100_000], Duration::from_secs(60)),
    |port| port.try_reserve(100_000).map(drop),
];

alone!(a_count_of_bytes_that_lies_closes_the_channel, || {
    with_watchdog(|| {
        for post in POST {
            for reader in READERS {
                for let_go in [1, 15_000, 1 << 40, 1 << 63, u64::MAX] {
                    case("more than was sent", || {
                        let (victim, hostile) = open(reader, LIMIT);
                        if let_go > 10_000 {
                            victim.post_bytes(&[1; 10_000]).unwrap();
                        }
                        hostile.write(LET_GO, let_go);
                        expect_post_closed(post(&victim), CloseReason::Violated);
                        expect_violated(&victim);
                    });
                }
                case("less than before", || {
                    let (victim, hostile) = open(reader, LIMIT);
                    for _ in 0..3 {
                        victim.post_bytes(&[1; 10_000]).unwrap();
                    }
                    hostile.write(LET_GO, 20_000);
                    post(&victim).unwrap();
                    hostile.write(LET_GO, 10_000);
                    expect_post_closed(post(&victim), CloseReason::Violated);
                    expect_violated(&victim);
                });
            }
        }
    });
});

alone!(a_waiting_poster_finds_out, || {
    with_watchdog(|| {
        for reader in READERS {
            case("a poster that waits for what was sent to be let go", || {
                let (victim, hostile) = open(reader, LIMIT);
                victim.post_bytes(&vec![1; LIMIT as usize]).unwrap();
                let waiting = support::asleep(move || {
                    expect_post_closed(victim.post_bytes(&[1; 100_000]), CloseReason::Violated);
                    expect_violated(&victim);
                });
                hostile.write(LET_GO, u64::MAX);
                hostile.bell();
                waiting.join();
            });
        }
    });
});

/// Has the victim post until it stands in a grown ring; gives that ring's memory.
fn take_grown_ring(victim: &MessagePort, hostile: &Hostile) -> File {
    for _ in 0..CAPACITY / 512 {
        victim.try_post_bytes(&[1; 496]).unwrap();
    }
    let lane = take_descriptor(&hostile.line);
    take_descriptor(&lane).into()
}

/// Says, as the reader of a grown ring, up to where it has given back room there.
fn claim(ring: &File, released: u64) {
    ring.write_all_at(&released.to_le_bytes(), VICTIMS_WORDS).unwrap();
}

/// Posts until that is refused, which must be soon; calls `after` with the number of posts.
fn post_until_refused(victim: &MessagePort, after: impl Fn(u64)) -> PostError {
    for posts in 0..10 * LIMIT / 512 {
        after(posts);
        if let Err(refused) = victim.try_post_bytes(&[1; 496]) {
            return refused;
        }
    }
    panic!("never refused");
}

alone!(a_position_in_a_grown_ring_that_lies_closes_the_channel, || {
    with_watchdog(|| {
        for reader in READERS {
            for released in [8, 17, 4096 + 8, GROWN, 1 << 40, 1 << 62, u64::MAX - 15, u64::MAX] {
                case("given back in a grown ring", || {
                    let (victim, hostile) = open(reader, LIMIT);
                    let ring = take_grown_ring(&victim, &hostile);
                    claim(&ring, released);
                    // When that ring is full, at the latest.
                    let refused = post_until_refused(&victim, |_| {});
                    expect_post_closed(Err(refused), CloseReason::Violated);
                    expect_violated(&victim);
                });
                case("given back in the first ring, by who has read all", || {
                    let (victim, hostile) = open(reader, LIMIT);
                    let ring = take_grown_ring(&victim, &hostile);
                    hostile.write(RELEASED, released);
                    let refused =
                        post_until_refused(&victim, |posts| claim(&ring, 512 * (1 + posts)));
                    expect_post_closed(Err(refused), CloseReason::Violated);
                    expect_violated(&victim);
                });
            }
            // What was not read is its own to lose: the victim goes back, and fills the first ring.
            case("all that was posted, though nobody has read it", || {
                let (victim, hostile) = open(reader, LIMIT);
                let ring = take_grown_ring(&victim, &hostile);
                hostile.write(RELEASED, 7 * 512);
                let refused = post_until_refused(&victim, |posts| {
                    claim(&ring, 512 * (1 + posts.min(GROWN / 512 - 2)));
                });
                assert!(matches!(refused, PostError::Full { len: 496 }), "{refused:?}");
                assert_eq!(victim.peer_state(), PeerState::Open);
            });
        }
    });
});

alone!(a_count_of_lanes_that_lies_holds_nobody, || {
    with_watchdog(|| {
        for lanes in [0, 3, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            case("lanes", || {
                let (victim, hostile) = open(Reader::Untrusted, LIMIT);
                hostile.write(LANES, lanes);
                let (posted, refused) = post_ports_until_refused(&victim);
                // A process without privileges may not have so many descriptors on their way.
                assert!(
                    matches!(refused.source, PostError::Full { .. } | PostError::Os(_)),
                    "{refused:?}"
                );
                assert_eq!(refused.list.len(), 1);
                assert!(posted < 1000 * (MAX_LANES + 4), "{posted}");
                let timeout = Duration::from_millis(1);
                let refused =
                    victim.post_bytes_with_timeout(b"", refused.list, timeout).unwrap_err();
                assert_eq!(refused.list.len(), 1);
                hostile.write(LANES, 0);
                assert_eq!(victim.peer_state(), PeerState::Open);
            });
        }
    });
});

// ---- lanes without end, and ports that take them along ----

alone!(more_lanes_than_may_wait_are_dropped, || {
    with_watchdog(|| {
        for reader in READERS {
            case("many lanes' ends", || {
                let (victim, hostile) = open(reader, LIMIT);
                let before = count_descriptors();
                for _ in 0..10 {
                    for _ in 0..2 * MAX_LANES {
                        let [_, theirs] = pair();
                        send(&hostile.line, LANE_END, &[theirs.as_fd()]);
                    }
                    let timeout = Duration::from_millis(1);
                    assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                    assert_eq!(victim.peer_state(), PeerState::Open);
                }
                assert!(count_descriptors() <= before + MAX_LANES);
            });
            // The victim gives its port away, over a carrier that has nothing to do with it.
            for found in [false, true] {
                case("many lanes' ends, and the port moves", || {
                    move_with_many_lanes(reader, found);
                });
            }
        }
    });
});

fn move_with_many_lanes(reader: Reader, found: bool) {
    let (victim, mut hostile) = open(reader, LIMIT);
    let flood = |hostile: &Hostile| {
        for _ in 0..2 * MAX_LANES {
            let [_, theirs] = pair();
            send(&hostile.line, LANE_END, &[theirs.as_fd()]);
        }
        let timeout = Duration::from_millis(1);
        assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
    };
    hostile.open_lane();
    flood(&hostile);
    if found {
        // Lanes are taken up as they are asked for: once for the first, and again beside those.
        let MessageChannel { port1: _kept, port2 } = MessageChannel::untrusted().unwrap();
        let parts = port2.into_descriptors().unwrap();
        let fds: Vec<_> = parts.descriptors.iter().map(AsFd::as_fd).collect();
        hostile.pack(&[parts.ticket], &fds);
        hostile.record(NEXT_LANE, [1, 0], b"a port");
        drop(victim.recv().unwrap().take_all_ports().unwrap());
        flood(&hostile);
    }
    let MessageChannel { port1: carrier, port2: carried } = MessageChannel::new().unwrap();
    carrier.post_bytes_with(b"a gift", transfer![victim]).unwrap();
    let message = carried.recv().unwrap();
    let [moved] = message.take_ports().expect("the carrier is honest");
    drop(message);
    assert_eq!(carried.peer_state(), PeerState::Open);
    hostile.bytes(b"as ever");
    assert_eq!(moved.recv().unwrap().bytes(), b"as ever");
}

/// Where the numbers of a port's ticket stand.
const FLAGS: usize = 5;
const NEXT_IN_GROWN: usize = 32;
const READ: usize = 40;
const READ_IN_GROWN: usize = 48;
const COUNTS: usize = 56;
const NEXT_GROWN: u8 = 16;
const READ_GROWN: u8 = 32;

/// An untrusted port that posts to a grown ring and reads one, as its ticket and descriptors; its other end.
fn in_grown_rings() -> (MessagePort, [u8; TICKET_LEN], Vec<OwnedFd>) {
    let options = ChannelOptions::new().capacity(CAPACITY).limit(LIMIT).trust(Trust::Untrusted);
    let MessageChannel { port1: other, port2: port } = options.open().unwrap();
    for from in [&other, &port] {
        for _ in 0..CAPACITY / 512 + 1 {
            from.post_bytes(&[1; 496]).unwrap();
        }
    }
    for _ in 0..CAPACITY / 512 {
        drop(port.recv().unwrap());
    }
    let parts = port.into_descriptors().unwrap();
    assert_eq!(parts.ticket[FLAGS] & (NEXT_GROWN | READ_GROWN), NEXT_GROWN | READ_GROWN);
    // The segment, the line, both rings, a lane in each direction.
    assert_eq!(parts.descriptors.len(), 6);
    (other, parts.ticket, parts.descriptors)
}

alone!(a_moved_port_with_a_false_ring_is_refused, || {
    with_watchdog(|| {
        case("by the rules it is taken", || {
            let (other, ticket, fds) = in_grown_rings();
            let port = MessagePort::from_descriptors(&ticket, fds).unwrap();
            assert_eq!(port.recv().unwrap().bytes(), [1; 496]);
            assert_eq!(port.try_recv().map(drop), Err(RecvError::Empty));
            assert_eq!(other.drain().count() as u64, CAPACITY / 512 + 1);
        });
        let (_victim, some) = open(Reader::Untrusted, LIMIT);
        let mut strange = strange_descriptors(&some);
        strange.push((
            "an unsealed ring",
            memory(&some.identity([GROWN, 0]), HEADER + GROWN, SealFlags::empty()).into(),
        ));
        strange.push((
            "two rings",
            memory(&some.identity([GROWN, GROWN]), HEADER + 2 * GROWN, SIZE_SEALS).into(),
        ));
        strange.push((
            "a small ring",
            memory(&some.identity([16, 0]), HEADER + 16, SIZE_SEALS).into(),
        ));
        for (what, strange) in strange {
            for place in [2, 3] {
                case(what, || {
                    let (other, ticket, mut fds) = in_grown_rings();
                    fds[place] = strange.try_clone().unwrap();
                    let refused = MessagePort::from_descriptors(&ticket, fds).unwrap_err();
                    assert!(!matches!(refused, AttachError::Detached), "{refused:?}");
                    other.drain().for_each(drop);
                    assert_eq!(other.recv().map(drop), Err(RecvError::Closed(CloseReason::Lost)));
                });
            }
        }
        for place in [NEXT_IN_GROWN, READ_IN_GROWN] {
            for position in [8, GROWN, GROWN + 16, 1 << 62, u64::MAX] {
                case("a position that no ring has", || {
                    let (_other, mut ticket, fds) = in_grown_rings();
                    ticket[place..place + 8].copy_from_slice(&position.to_le_bytes());
                    let refused = MessagePort::from_descriptors(&ticket, fds).unwrap_err();
                    assert!(matches!(refused, AttachError::NotAPort), "{refused:?}");
                });
            }
        }
        for flag in [NEXT_GROWN, READ_GROWN] {
            case("a ring less", || {
                let (_other, mut ticket, fds) = in_grown_rings();
                ticket[FLAGS] ^= flag;
                let refused = MessagePort::from_descriptors(&ticket, fds).unwrap_err();
                assert!(matches!(refused, AttachError::NotAPort), "{refused:?}");
            });
        }
    });
});

// A port that stands where its rings say that it cannot: whoever uses it comes to an end, and no further than
// that channel.
alone!(positions_that_lie_break_that_channel_only, || {
    with_watchdog(|| {
        let numbers = [0, 16, 512, 4096, GROWN - 16, 1 << 40, (1 << 62) - 16];
        for place in [24, NEXT_IN_GROWN, READ, READ_IN_GROWN, COUNTS, COUNTS + 8] {
            for number in numbers {
                case("a port that stands elsewhere", || {
                    let (other, mut ticket, fds) = in_grown_rings();
                    ticket[place..place + 8].copy_from_slice(&number.to_le_bytes());
                    let port = match MessagePort::from_descriptors(&ticket, fds) {
                        Ok(port) => port,
                        Err(AttachError::NotAPort) => return,
                        Err(refused) => panic!("{refused:?}"),
                    };
                    use_fully(&port);
                    use_fully(&other);
                    use_fully(&port);
                });
            }
        }
    });
});

/// All verbs, each of which ends.
fn use_fully(port: &MessagePort) {
    let short = Duration::from_millis(1);
    assert!(port.drain().count() < 1000);
    for len in [0, 100, MAX_IN_RING as usize, 10_000] {
        for _ in 0..40 {
            let _ = port.try_post_bytes(&vec![1; len]);
        }
        let _ = port.post_bytes_timeout(&vec![1; len], short);
    }
    let buffer = Buffer::from_slice(&[1; 100]).unwrap();
    let _ = port.post_bytes_with_timeout(b"", transfer![buffer], short);
    let _ = port.recv_timeout(short).map(drop);
    let _ = port.peer_state();
}
