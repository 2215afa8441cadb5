//! The envelope: what stands before the value of a named message. It is part of the shared format.
//!
//! ```text
//!  0      1      2             4              8              16
//!  ├──────┼──────┼─────────────┼──────────────┼──────────────┤
//!  │ kind │ zero │ length of   │ tag of the   │ zeroes       │
//!  │      │      │ the name    │ value        │              │
//!  ├──────┴──────┴─────────────┴──────────────┴──────────────┤
//!  │ the name in UTF-8, then zeroes to a multiple of 16      │
//!  ├─────────────────────────────────────────────────────────┤
//!  │ the value, to the end of the payload                    │
//!  └─────────────────────────────────────────────────────────┘
//! ```
//!
//! Numbers are little-endian. A kind is 1, a message, or 2, a request: then the first port of the list is where the
//! reply goes. So the value starts at a multiple of 16, as it does without an envelope. What must be zero is for
//! later, and an envelope in which it is not is refused.
//!
//! The other side has written it: the header is loaded once, checked, and only what was checked is used.

use bytemuck::{Pod, Zeroable};

use crate::error::PostError;

use super::error::NamedError;

/// The longest name, in bytes.
pub(super) const MAX_NAME: usize = 255;

const HEADER_LEN: usize = 16;
const UNIT: usize = 16;
const MAX_LEN: usize = HEADER_LEN + MAX_NAME.next_multiple_of(UNIT);

/// What a named message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Message = 1,
    Request = 2,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    kind: u8,
    zero: u8,
    name_len: u16,
    tag: u32,
    zeroes: u64,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN, "the header is part of the format");

/// An envelope that was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    name_len: usize,
    /// The tag of the value.
    pub(crate) tag: u32,
}

impl Envelope {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, NamedError> {
        let len = payload.len();
        let short = |needed| NamedError::TooShort { len, needed };
        let header = payload.get(..HEADER_LEN).ok_or(short(HEADER_LEN))?;
        let Header { kind, zero, name_len, tag, zeroes } = bytemuck::pod_read_unaligned(header);
        let kind = match kind {
            1 => Kind::Message,
            2 => Kind::Request,
            kind => return Err(NamedError::UnknownKind { kind }),
        };
        let name_len = usize::from(name_len);
        if name_len > MAX_NAME {
            return Err(NamedError::NameTooLong { len: name_len, max: MAX_NAME });
        }
        let envelope = Self { kind, name_len, tag };
        let head = payload.get(..envelope.len()).ok_or(short(envelope.len()))?;
        if zero != 0 || zeroes != 0 || !is_padded(head, name_len) {
            return Err(NamedError::NotZero);
        }
        let name = envelope.name_bytes(payload);
        if !name.is_ascii() {
            str::from_utf8(name).map_err(NamedError::NameNotUtf8)?;
        }
        Ok(envelope)
    }

    /// Bytes before the value.
    fn len(&self) -> usize {
        HEADER_LEN + self.name_len.next_multiple_of(UNIT)
    }

    pub(super) fn name_bytes<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(HEADER_LEN..HEADER_LEN + self.name_len).unwrap_or_default()
    }

    /// The name. (On a trusted port somebody could have changed it since it was checked: so that is done anew.)
    pub(crate) fn name<'a>(&self, payload: &'a [u8]) -> &'a str {
        str::from_utf8(self.name_bytes(payload)).unwrap_or_default()
    }

    pub(crate) fn value<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.len()..).unwrap_or_default()
    }
}

/// Whether a name of this length is followed by zeroes to the end of a head, which are less than a unit.
fn is_padded(head: &[u8], name_len: usize) -> bool {
    match (name_len % UNIT, head.last_chunk()) {
        (0, _) => true,
        (used, Some(last)) => u128::from_le_bytes(*last) >> (8 * used) == 0,
        (_, None) => false,
    }
}

/// Room for every envelope, zeroed.
pub(super) struct Room([u8; MAX_LEN]);

impl Room {
    pub(super) const fn new() -> Self {
        Self([0; MAX_LEN])
    }

    /// Writes an envelope, to be posted before a value.
    pub(super) fn write(&mut self, kind: Kind, name: &str, tag: u32) -> Result<&[u8], PostError> {
        let (len, max) = (name.len(), MAX_NAME);
        let (header, room) = self.0.split_at_mut(HEADER_LEN);
        let Some(room) = room.get_mut(..len).filter(|_| len <= max) else {
            return Err(PostError::NameTooLong { len, max });
        };
        room.copy_from_slice(name.as_bytes());
        let written = Header { kind: kind as u8, zero: 0, name_len: len as u16, tag, zeroes: 0 };
        header.copy_from_slice(bytemuck::bytes_of(&written));
        Ok(self.0.get(..HEADER_LEN + len.next_multiple_of(UNIT)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(kind: Kind, name: &str, tag: u32) -> Vec<u8> {
        Room::new().write(kind, name, tag).unwrap().to_vec()
    }

    /// Whoever changes these bytes has changed the shared format.
    #[test]
    fn golden_bytes() {
        let written = envelope(Kind::Message, "greet", 0x0403_0201);
        let golden = b"\x01\0\x05\0\x01\x02\x03\x04\0\0\0\0\0\0\0\0greet\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(written.as_slice(), golden);
        let written = envelope(Kind::Request, "sixteen letters.", 0);
        let golden = b"\x02\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0sixteen letters.";
        assert_eq!(written.as_slice(), golden);
        let written = envelope(Kind::Message, "", 7);
        assert_eq!(written.as_slice(), b"\x01\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!([super::super::NAMED, super::super::FAILED], [0x065b_64e3, 0x54fb_0c77]);
    }

    #[test]
    fn what_is_written_is_read() {
        let names = (0..=MAX_NAME).map(|len| "n".repeat(len));
        for name in names.chain(["имя".into(), "\0".into()]) {
            for kind in [Kind::Message, Kind::Request] {
                let written = envelope(kind, &name, 9);
                let payload = [written.as_slice(), b"value"].concat();
                let envelope = Envelope::parse(&payload).unwrap();
                assert_eq!((envelope.kind, envelope.tag), (kind, 9));
                assert_eq!(envelope.name(&payload), name);
                assert_eq!(envelope.value(&payload), b"value");
                assert!(envelope.len().is_multiple_of(UNIT));
            }
        }
        let (mut room, name) = (Room::new(), "n".repeat(256));
        let refused = room.write(Kind::Message, &name, 0);
        assert!(matches!(refused, Err(PostError::NameTooLong { len: 256, max: 255 })));
    }

    #[test]
    fn every_truncation_is_refused() {
        for name in ["", "n", "sixteen letters.", &"n".repeat(MAX_NAME)] {
            let written = envelope(Kind::Message, name, 9);
            for len in 0..written.len() {
                let needed = if len < HEADER_LEN { HEADER_LEN } else { written.len() };
                let refused = Envelope::parse(&written[..len]);
                let expected = NamedError::TooShort { len, needed };
                assert_eq!(refused.unwrap_err().to_string(), expected.to_string());
            }
            assert!(Envelope::parse(&written).is_ok());
        }
    }

    #[test]
    fn every_bit_counts() {
        let written = envelope(Kind::Message, "имя", 9);
        for bit in 0..8 * written.len() {
            let mut payload = [written.as_slice(), b"value"].concat();
            payload[bit / 8] ^= 1 << (bit % 8);
            let parsed = Envelope::parse(&payload);
            match bit / 8 {
                1 | 8..16 | 22.. => assert!(matches!(parsed, Err(NamedError::NotZero)), "{bit}"),
                0 => assert!(matches!(parsed, Err(NamedError::UnknownKind { .. })), "{bit}"),
                3 => assert!(matches!(parsed, Err(NamedError::NameTooLong { .. })), "{bit}"),
                4..8 => assert!(parsed.is_ok_and(|envelope| envelope.tag != 9), "{bit}"),
                // Another name, or none.
                _ => assert!(
                    parsed.is_err() || parsed.is_ok_and(|found| found.name(&payload) != "имя"),
                    "{bit}"
                ),
            }
        }
    }
}
