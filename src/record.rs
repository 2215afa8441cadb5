//! The record header: sixteen bytes before each payload, read and written as two words.
//!
//! ```text
//!         byte 0        4      5        6         8            12         14         16
//!              ┌────────┬──────┬────────┬─────────┬────────────┬──────────┬──────────┐
//!              │ length │ kind │ flags  │ ports   │ type tag   │ buffers  │ gap      │ payload …
//!              │  u32   │  u8  │   u8   │   u16   │    u32     │   u16    │   u16    │
//!              └────────┴──────┴────────┴─────────┴────────────┴──────────┴──────────┘
//!               ╰──── head: zero = not published ─╯╰───────────── detail ────────────╯
//! ```
//!
//! All fields are little-endian. `kind` is never 0, so a published head is never 0. The next header comes
//! after the payload, its padding, and, if it is a message's, `gap` times sixteen bytes more.
//!
//! * A **message** whose flags say *outside* has memory outside the ring; its payload in the ring then
//!   begins with an [`Outside`]. If its payload is large, nothing comes after that.
//! * A **filler** ends a lap.
//! * A **link** is the last record of a ring: the queue goes on in another one. Its detail holds the base-2
//!   logarithm of that ring's capacity in the place of the tag, or 0 if it goes back to the first ring.
//! * The flag *next lane* says that what belongs to this record came first on a further lane.

use bytemuck::{Pod, Zeroable};

/// Bytes of a record header, and the alignment of records and payloads.
pub(crate) const HEADER_LEN: u64 = 16;

/// The most ports and buffers that one message carries.
pub(crate) const MAX_PORTS: u16 = 1024;

const KIND_MESSAGE: u8 = 1;
const KIND_FILLER: u8 = 2;
const KIND_LINK: u8 = 3;

/// The message has memory outside the ring.
pub(crate) const OUTSIDE: u8 = 1;
/// Its descriptors came first on a further lane.
pub(crate) const NEXT_LANE: u8 = 2;

/// The room that a payload of `payload_len` bytes takes, with its header and padding.
pub(crate) const fn record_len(payload_len: u64) -> u64 {
    HEADER_LEN + payload_len.next_multiple_of(HEADER_LEN)
}

/// What a message has outside the ring: the first bytes of its payload in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Outside {
    /// Bytes of a payload that has a memory of its own; 0 if the payload is in the ring.
    pub(crate) large: u64,
    /// Bytes of memory of all buffers: each a whole number of pages.
    pub(crate) buffers: u64,
    /// The number of the file in which the large payload is, if the reader has kept that; 0 if its descriptor is on the lane.
    pub(crate) kept: u64,
    /// 0.
    pub(crate) reserved: u64,
}

impl Outside {
    /// Bytes of memory that count toward the limit. `None`: no number, so no honest poster's.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let large = match self.large {
            0 => 0,
            large => large.checked_next_multiple_of(PAGE)?,
        };
        large.checked_add(self.buffers)
    }
}

/// Memory is counted in pages, of this length on every machine.
const PAGE: u64 = 4096;

/// Bytes of an [`Outside`].
pub(crate) const OUTSIDE_LEN: u32 = size_of::<Outside>() as u32;

const _: () =
    assert!((OUTSIDE_LEN as u64).is_multiple_of(HEADER_LEN), "what follows stays aligned");

/// What a head says, after it was checked for form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not published yet.
    Empty,
    /// A message with this many bytes of payload, and nothing else.
    Plain { len: u32 },
    /// A message with flags, or with ports on the lane.
    Message { len: u32, flags: u8, ports: u16 },
    /// The rest of the lap is unused.
    Filler,
    /// The queue goes on elsewhere.
    Link { flags: u8 },
    /// No poster that keeps the protocol writes this.
    Broken,
}

/// The head of a message.
pub(crate) const fn message_head(len: u32, flags: u8, ports: u16) -> u64 {
    len as u64 | (KIND_MESSAGE as u64) << 32 | (flags as u64) << 40 | (ports as u64) << 48
}

/// The length of a plain message: one without flags and ports, as most are.
#[inline(always)]
pub(crate) const fn plain_len(head: u64) -> Option<u32> {
    if head >> 32 == KIND_MESSAGE as u64 { Some(head as u32) } else { None }
}

/// The head that ends a lap.
pub(crate) const fn filler_head() -> u64 {
    (KIND_FILLER as u64) << 32
}

/// The head that ends a ring.
pub(crate) const fn link_head(flags: u8) -> u64 {
    (KIND_LINK as u64) << 32 | (flags as u64) << 40
}

/// The second word of a header; `gap` in bytes.
pub(crate) const fn detail(tag: u32, buffers: u16, gap: u64) -> u64 {
    tag as u64 | (buffers as u64) << 32 | (gap / HEADER_LEN) << 48
}

/// The type tag in the second word.
pub(crate) const fn tag_of(detail: u64) -> u32 {
    detail as u32
}

/// The number of buffers in the second word.
pub(crate) const fn buffers_of(detail: u64) -> u16 {
    (detail >> 32) as u16
}

/// Gaps are shorter than this.
pub(crate) const MAX_GAP: u64 = (1 << 16) * HEADER_LEN;

/// The bytes that stay free behind a record.
pub(crate) const fn gap_of(detail: u64) -> u64 {
    (detail >> 48) * HEADER_LEN
}

/// Reads a head. Every 64-bit value has a meaning, most of them [`Head::Broken`].
pub(crate) const fn parse_head(head: u64) -> Head {
    let len = head as u32;
    match head >> 32 {
        0 if len == 0 => Head::Empty,
        rest if rest == KIND_MESSAGE as u64 => Head::Plain { len },
        rest if rest == KIND_FILLER as u64 && len == 0 => Head::Filler,
        rest => parse_rare(rest as u8, (rest >> 8) as u8, (rest >> 16) as u16, len),
    }
}

#[cold]
const fn parse_rare(kind: u8, flags: u8, ports: u16, len: u32) -> Head {
    if kind == KIND_MESSAGE
        && flags & !(OUTSIDE | NEXT_LANE) == 0
        && ports <= MAX_PORTS
        && (flags & OUTSIDE == 0 || len >= OUTSIDE_LEN)
    {
        return Head::Message { len, flags, ports };
    }
    if kind == KIND_LINK && flags & !NEXT_LANE == 0 && ports == 0 && len == 0 {
        return Head::Link { flags };
    }
    Head::Broken
}
