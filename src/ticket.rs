//! What travels with a port: which end of the channel it is, and where it stands in the rings.
//!
//! ```text
//!  byte 0      4      5       6          8       16        24        32
//!       ┌──────┬──────┬───────┬──────────┬───────┬─────────┬─────────┐
//!       │ kind │ side │ flags │ reserved │ epoch │ next    │ read    │
//!       │ u32  │ u8   │ u8    │ u16 = 0  │ u64   │ u64     │ u64     │
//!       └──────┴──────┴───────┴──────────┴───────┴─────────┴─────────┘
//! ```
//!
//! The descriptors that belong to a ticket follow in this order: segment, line, then the lanes that
//! the flags announce, first the incoming one. All fields are little-endian.

use bytemuck::{Pod, Zeroable};

use crate::epoch::{Epoch, State};
use crate::layout::Side;
use crate::record::HEADER_LEN;

/// A port.
const KIND_PORT: u32 = 1;
/// No port: a socket that holds the tickets, for more descriptors than one packet takes.
const KIND_ENVELOPE: u32 = 2;

const FLAG_INCOMING: u8 = 1;
const FLAG_OUTGOING: u8 = 2;
const FLAG_UNTRUSTED: u8 = 4;
const FLAG_TRUSTED_CHANNEL: u8 = 8;
const FLAGS: u8 = FLAG_INCOMING | FLAG_OUTGOING | FLAG_UNTRUSTED | FLAG_TRUSTED_CHANNEL;

/// No position of an honest port comes near: 146 years at a gigabyte a second.
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
    reserved: u16,
    epoch: u64,
    next: u64,
    read: u64,
}

const _: () = assert!(TICKET_LEN == 32, "part of the shared format");

/// Where a port stands: what its next holder has to know beside what is in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) side: Side,
    /// Who holds it: the value that the next holder has to find.
    pub(crate) epoch: Epoch,
    /// Where its next record goes.
    pub(crate) next: u64,
    /// Where the next record from the other side will be.
    pub(crate) read: u64,
}

impl Standing {
    /// The end of a fresh channel.
    pub(crate) const fn fresh(side: Side, epoch: Epoch) -> Self {
        Self { side, epoch, next: 0, read: 0 }
    }
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
}

impl Ticket {
    pub(crate) const ENVELOPE: Self =
        Self { kind: KIND_ENVELOPE, side: 0, flags: 0, reserved: 0, epoch: 0, next: 0, read: 0 };

    pub(crate) fn new(standing: Standing, lanes: [bool; 2], trust: TicketTrust) -> Self {
        let [incoming, outgoing] = lanes;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Self {
            kind: KIND_PORT,
            side: standing.side.to_wire() as u8,
            flags: flag(incoming, FLAG_INCOMING)
                | flag(outgoing, FLAG_OUTGOING)
                | flag(trust.is_untrusted, FLAG_UNTRUSTED)
                | flag(trust.is_of_trusted_channel, FLAG_TRUSTED_CHANNEL),
            reserved: 0,
            epoch: standing.epoch.to_wire(),
            next: standing.next,
            read: standing.read,
        }
    }

    /// What it says it is; `None` is nothing that we know.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.kind {
            KIND_PORT if self.flags & !FLAGS == 0 && self.reserved == 0 => Some(Kind::Port),
            KIND_ENVELOPE => Some(Kind::Envelope),
            _ => None,
        }
    }

    /// Whether an incoming and an outgoing lane come with it.
    pub(crate) fn lanes(&self) -> [bool; 2] {
        [FLAG_INCOMING, FLAG_OUTGOING].map(|flag| self.flags & flag != 0)
    }

    /// How many descriptors belong to it.
    pub(crate) fn fds(&self) -> usize {
        2 + self.lanes().into_iter().filter(|lane| *lane).count()
    }

    pub(crate) fn trust(&self) -> TicketTrust {
        TicketTrust {
            is_untrusted: self.flags & FLAG_UNTRUSTED != 0,
            is_of_trusted_channel: self.flags & FLAG_TRUSTED_CHANNEL != 0,
        }
    }

    /// Where the port stands, if that is possible at all.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let is_position = |at: u64| at < MAX_POSITION && at.is_multiple_of(HEADER_LEN);
        let epoch = Epoch::from_wire(self.epoch);
        let side = Side::from_wire(self.side.into())?;
        (epoch.state() == State::InTransit && is_position(self.next) && is_position(self.read))
            .then_some(Standing { side, epoch, next: self.next, read: self.read })
    }
}
