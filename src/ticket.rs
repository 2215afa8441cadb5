//! What travels on a lane beside the descriptors: one ticket for each thing.
//!
//! ```text
//!  byte 0      4      5       6       7        8           12         16
//!       ┌──────┬──────┬───────┬───────┬────────┬───────────┬──────────┐
//!       │ kind │ side │ flags │ lanes │ blocks │ lanes sent│ res. = 0 │
//!       │ u32  │ u8   │ u8    │ u8    │ u8     │ u32       │ u32      │
//!       ├──────┴──────┴───────┴───────┼────────┴───────────┴──────────┤
//!    16 │ epoch                       │ next, in the first ring       │
//!    32 │ next, in a grown ring       │ read, in the first ring       │
//!    48 │ read, in a grown ring       │ bytes sent                    │
//!    64 │ bytes received              │ length                        │
//!       └─────────────────────────────┴───────────────────────────────┘
//! ```
//!
//! | kind | descriptors that belong to it, in this order | fields |
//! |---|---|---|
//! | port | segment; line; the grown ring that it posts to; the one that it reads; incoming lanes; outgoing lane; the blocks that it has kept; as far as there are | all but length |
//! | envelope | a socket that holds the tickets, for more descriptors than one packet takes | |
//! | buffer | its memory | length |
//! | payload | the memory of a large payload | length |
//! | ring | the segment of a grown ring | length: its capacity |
//!
//! All fields are little-endian; those that a kind does not have are 0.

use bytemuck::{Pod, Zeroable};

use crate::epoch::{Epoch, State};
use crate::layout::Side;
use crate::record::HEADER_LEN;

const KIND_PORT: u32 = 1;
const KIND_ENVELOPE: u32 = 2;
const KIND_BUFFER: u32 = 3;
const KIND_PAYLOAD: u32 = 4;
const KIND_RING: u32 = 5;

/// The first of the incoming lanes is one that the reader has come to.
const FLAG_AT_LANE: u8 = 1;
const FLAG_OUTGOING: u8 = 2;
const FLAG_UNTRUSTED: u8 = 4;
const FLAG_TRUSTED_CHANNEL: u8 = 8;
const FLAG_NEXT_GROWN: u8 = 16;
const FLAG_READ_GROWN: u8 = 32;
/// Nothing was sent on the outgoing lane yet.
const FLAG_FRESH_LANE: u8 = 64;

/// The most lanes that may wait in one direction, beside the one that the reader is at.
pub(crate) const MAX_LANES: usize = 16;

/// The most blocks that the reader of a direction keeps.
pub(crate) const MAX_BLOCKS: usize = 16;

/// No position of an honest port comes near: 146 years at a gigabyte a second, or 9 where all laps end early.
const MAX_POSITION: u64 = 1 << 62;

/// Bytes of a ticket.
pub(crate) const TICKET_LEN: usize = size_of::<Ticket>();

/// A ticket as it is sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Ticket {
    kind: u32,
    side: u8,
    flags: u8,
    lanes: u8,
    blocks: u8,
    lanes_sent: u32,
    reserved: u32,
    epoch: u64,
    next: [u64; 2],
    read: [u64; 2],
    sent: u64,
    received: u64,
    len: u64,
}

const _: () = assert!(TICKET_LEN == 80, "part of the shared format");

/// A place in a queue ([`crate::queue`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// In the first ring: where the next record is, or the link that leads to the grown ring.
    pub(crate) first: u64,
    /// In the grown ring, if the queue is in one.
    pub(crate) grown: Option<u64>,
}

impl Place {
    fn to_wire(self) -> [u64; 2] {
        [self.first, self.grown.unwrap_or(0)]
    }

    fn from_wire([first, grown]: [u64; 2], is_grown: bool) -> Option<Self> {
        let is_position = |at: u64| at < MAX_POSITION && at.is_multiple_of(HEADER_LEN);
        (is_position(first) && is_position(grown) && (is_grown || grown == 0))
            .then_some(Self { first, grown: is_grown.then_some(grown) })
    }
}

/// Where a port stands: what its next holder has to know beside what is in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) side: Side,
    /// Who holds it: the value that the next holder has to find.
    pub(crate) epoch: Epoch,
    /// Where its next record goes.
    pub(crate) next: Place,
    /// Where the next record from the other side will be.
    pub(crate) read: Place,
    /// Bytes outside the first ring that it has sent, ever.
    pub(crate) sent: u64,
    /// Bytes outside the first ring that it has received, ever.
    pub(crate) received: u64,
}

impl Standing {
    /// The end of a fresh channel.
    pub(crate) fn fresh(side: Side, epoch: Epoch) -> Self {
        let (next, read) = (Place::default(), Place::default());
        Self { side, epoch, next, read, sent: 0, received: 0 }
    }
}

/// The lanes that come with a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TicketLanes {
    /// Incoming ones.
    pub(crate) incoming: usize,
    /// Whether the reader has come to the first of them.
    pub(crate) is_at_first: bool,
    /// Whether there is an outgoing one.
    pub(crate) outgoing: bool,
    /// Whether nothing was sent on it yet.
    pub(crate) is_fresh: bool,
    /// Outgoing lanes, ever.
    pub(crate) sent: u32,
}

/// What a ticket says of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketTrust {
    /// The port was untrusted where it comes from.
    pub(crate) is_untrusted: bool,
    /// Its other end may trust it, whatever it does itself: it must not get to strangers.
    pub(crate) is_of_trusted_channel: bool,
}

/// What a ticket was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Port,
    Envelope,
    Buffer,
    Payload,
    Ring,
}

impl Ticket {
    pub(crate) const ENVELOPE: Self = Self::of(KIND_ENVELOPE, 0);

    /// For a buffer of so many bytes.
    pub(crate) const fn buffer(len: u64) -> Self {
        Self::of(KIND_BUFFER, len)
    }

    /// For a payload of so many bytes.
    pub(crate) const fn payload(len: u64) -> Self {
        Self::of(KIND_PAYLOAD, len)
    }

    /// For a grown ring.
    pub(crate) const fn ring(capacity: u64) -> Self {
        Self::of(KIND_RING, capacity)
    }

    const fn of(kind: u32, len: u64) -> Self {
        Self {
            kind,
            side: 0,
            flags: 0,
            lanes: 0,
            blocks: 0,
            lanes_sent: 0,
            reserved: 0,
            epoch: 0,
            next: [0; 2],
            read: [0; 2],
            sent: 0,
            received: 0,
            len,
        }
    }

    pub(crate) fn port(
        standing: Standing,
        lanes: TicketLanes,
        blocks: usize,
        trust: TicketTrust,
    ) -> Self {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Self {
            side: standing.side.to_wire() as u8,
            flags: flag(lanes.is_at_first, FLAG_AT_LANE)
                | flag(lanes.outgoing, FLAG_OUTGOING)
                | flag(lanes.is_fresh, FLAG_FRESH_LANE)
                | flag(trust.is_untrusted, FLAG_UNTRUSTED)
                | flag(trust.is_of_trusted_channel, FLAG_TRUSTED_CHANNEL)
                | flag(standing.next.grown.is_some(), FLAG_NEXT_GROWN)
                | flag(standing.read.grown.is_some(), FLAG_READ_GROWN),
            lanes: lanes.incoming as u8,
            blocks: blocks as u8,
            lanes_sent: lanes.sent,
            epoch: standing.epoch.to_wire(),
            next: standing.next.to_wire(),
            read: standing.read.to_wire(),
            sent: standing.sent,
            received: standing.received,
            ..Self::of(KIND_PORT, 0)
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it says it is; `None` is nothing that we know.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let is_bare = *self == Self::of(self.kind, self.len);
        let lanes = usize::from(self.lanes);
        match self.kind {
            KIND_PORT => (self.flags & 128 == 0
                && self.reserved == 0
                && self.len == 0
                && lanes <= MAX_LANES + 1
                && self.blocks() <= MAX_BLOCKS
                && (lanes > 0 || !self.has(FLAG_AT_LANE))
                && (self.has(FLAG_OUTGOING) || !self.has(FLAG_FRESH_LANE)))
            .then_some(Kind::Port),
            KIND_ENVELOPE if is_bare && self.len == 0 => Some(Kind::Envelope),
            KIND_BUFFER if is_bare => Some(Kind::Buffer),
            KIND_PAYLOAD if is_bare => Some(Kind::Payload),
            KIND_RING if is_bare => Some(Kind::Ring),
            _ => None,
        }
    }

    /// Bytes of a buffer or a payload, or the capacity of a ring.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether a grown ring for posting and one for reading come with it.
    pub(crate) fn grown(&self) -> [bool; 2] {
        [self.has(FLAG_NEXT_GROWN), self.has(FLAG_READ_GROWN)]
    }

    /// The lanes that come with it.
    pub(crate) fn lanes(&self) -> TicketLanes {
        TicketLanes {
            incoming: self.lanes.into(),
            is_at_first: self.has(FLAG_AT_LANE),
            outgoing: self.has(FLAG_OUTGOING),
            is_fresh: self.has(FLAG_FRESH_LANE),
            sent: self.lanes_sent,
        }
    }

    /// How many blocks come with it.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.into()
    }

    /// How many descriptors belong to it.
    pub(crate) fn fds(&self) -> usize {
        if self.kind != KIND_PORT {
            return 1;
        }
        let grown = self.grown().into_iter().filter(|grown| *grown).count();
        2 + grown + usize::from(self.lanes) + usize::from(self.has(FLAG_OUTGOING)) + self.blocks()
    }

    pub(crate) fn trust(&self) -> TicketTrust {
        TicketTrust {
            is_untrusted: self.has(FLAG_UNTRUSTED),
            is_of_trusted_channel: self.has(FLAG_TRUSTED_CHANNEL),
        }
    }

    /// Where the port stands, if that is possible at all.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let epoch = Epoch::from_wire(self.epoch);
        let side = Side::from_wire(self.side.into())?;
        let [next_grown, read_grown] = self.grown();
        let next = Place::from_wire(self.next, next_grown)?;
        let read = Place::from_wire(self.read, read_grown)?;
        let (sent, received) = (self.sent, self.received);
        (epoch.state() == State::InTransit && sent < MAX_POSITION && received < MAX_POSITION)
            .then_some(Standing { side, epoch, next, read, sent, received })
    }
}
