//! The record header: sixteen bytes before each payload, read and written as two words.
//!
//! ```text
//!         byte 0        4      5        6         8            12          16
//!              ┌────────┬──────┬────────┬─────────┬────────────┬───────────┐
//!              │ length │ kind │ flags  │ ports   │ type tag   │ reserved  │ payload …
//!              │  u32   │  u8  │ u8 = 0 │   u16   │    u32     │  u32 = 0  │
//!              └────────┴──────┴────────┴─────────┴────────────┴───────────┘
//!               ╰──── head: zero = not published ─╯╰──────── detail ───────╯
//! ```
//!
//! All fields are little-endian. `kind` is never 0, so a published head is never 0.

/// Bytes of a record header, and the alignment of records and payloads.
pub(crate) const HEADER_LEN: u64 = 16;

/// The most ports that one message carries.
pub(crate) const MAX_PORTS: u16 = 1024;

const KIND_MESSAGE: u8 = 1;
const KIND_FILLER: u8 = 2;

/// The room that a payload of `payload_len` bytes takes, with its header and padding.
pub(crate) const fn record_len(payload_len: u64) -> u64 {
    HEADER_LEN + payload_len.next_multiple_of(HEADER_LEN)
}

/// What a head says, after it was checked for form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not published yet.
    Empty,
    /// A message with this many bytes of payload, and this many ports on the lane.
    Message { len: u32, ports: u16 },
    /// The rest of the lap is unused.
    Filler,
    /// No poster that keeps the protocol writes this.
    Broken,
}

/// The head of a message.
pub(crate) const fn message_head(len: u32, ports: u16) -> u64 {
    len as u64 | (KIND_MESSAGE as u64) << 32 | (ports as u64) << 48
}

/// The head that ends a lap.
pub(crate) const fn filler_head() -> u64 {
    (KIND_FILLER as u64) << 32
}

/// The second word of a header.
pub(crate) const fn detail(tag: u32) -> u64 {
    tag as u64
}

/// The type tag in the second word.
pub(crate) const fn tag_of(detail: u64) -> u32 {
    detail as u32
}

/// Reads a head. Every 64-bit value has a meaning, most of them [`Head::Broken`].
pub(crate) const fn parse_head(head: u64) -> Head {
    let len = head as u32;
    match head >> 32 {
        0 if len == 0 => Head::Empty,
        rest if rest == KIND_MESSAGE as u64 => Head::Message { len, ports: 0 },
        rest if rest == KIND_FILLER as u64 && len == 0 => Head::Filler,
        rest if rest as u16 == KIND_MESSAGE as u16 && rest >> 16 <= MAX_PORTS as u64 => {
            Head::Message { len, ports: (rest >> 16) as u16 }
        }
        _ => Head::Broken,
    }
}
