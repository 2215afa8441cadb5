//! Payloads with a head: what a layer above puts before that which its user posts.
//!
//! Head and payload are written one after the other to where they will be read, so neither is copied twice.
//! The length of a head is a multiple of 16, so the payload behind it is aligned as it is without.

use crate::error::{OpenError, PostError};
use crate::layout::DEFAULT_LIMIT;
use crate::record::OUTSIDE_LEN;
use crate::ring::Content;

use super::post::{Patience, Sender};
use super::transfer_list::{TransferError, TransferList};
use super::{ChannelOptions, MessageChannel, MessagePort, Trust};

/// What stands before a payload, and the tag of both together.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) tag: u32,
}

impl Heading<'_> {
    pub(crate) const fn none(tag: u32) -> Self {
        Self { head: &[], tag }
    }
}

/// No ring of a channel for replies is larger.
const MAX_REPLY_CAPACITY: u64 = 64 << 10;

impl Sender {
    /// Posts bytes with a head before them, and gives away what the list holds.
    pub(crate) fn post_headed(
        &self,
        heading: Heading<'_>,
        bytes: &[u8],
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        if list.items().is_empty() {
            let posted = self.post_raw_headed(heading, bytes, patience);
            return posted.map_err(|source| TransferError::new(list, source));
        }
        match self.check().and_then(|()| self.check_carrier(&mut list)) {
            Ok(()) => self.post_checked_headed(heading, bytes, patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// As [`post_headed`](Self::post_headed), for a list that this port can carry.
    pub(super) fn post_checked_headed(
        &self,
        heading: Heading<'_>,
        bytes: &[u8],
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        if list.items().is_empty() {
            return self.post_headed(heading, bytes, patience, list);
        }
        let Heading { head, tag } = heading;
        let before = if list.counts()[1] == 0 { 0 } else { OUTSIDE_LEN as usize };
        let len = before + head.len() + bytes.len();
        if len > self.max_in_ring() {
            return self.post_large_headed(heading, bytes, patience, list);
        }
        let (in_ring, len_told) = (len as u64, (len - before) as u64);
        let room = self
            .check_loan()
            .and_then(|()| self.reserve_with(in_ring, list.bytes(), len_told, patience));
        let room = match room {
            Ok(room) => room,
            Err(source) => return Err(TransferError::new(list, source)),
        };
        let at = room.payload_offset() + before as u64;
        self.write(room.is_grown(), at, head);
        self.write(room.is_grown(), at + head.len() as u64, bytes);
        self.give_away(room, Content::plain(len, tag), patience, list, None)
    }

    /// Posts what does not fit in the ring.
    fn post_large_headed(
        &self,
        heading: Heading<'_>,
        bytes: &[u8],
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        let Heading { head, tag } = heading;
        let len = head.len() + bytes.len();
        // To find room for it, the queue may let a ring go: not while a part of it is lent out.
        let large = self.check_loan().and_then(|()| self.make_large(len as u64, patience));
        match large {
            Ok(mut large) => {
                if let Some(room) = after_head(large.bytes_mut(), head) {
                    room.copy_from_slice(bytes);
                }
                self.post_filled(large, len, tag, patience, list)
            }
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// Makes a channel of which this port can carry an end, and whoever receives that accepts it: it faces
    /// the same side, and no more can wait on it than on this port.
    pub(crate) fn reply_channel(&self) -> Result<MessageChannel, PostError> {
        let endpoint = &self.hold().endpoint;
        let (shape, side) = (endpoint.segment().shape(), endpoint.side());
        let capacity = |bytes: u64| bytes.min(MAX_REPLY_CAPACITY);
        // A stranger accepts so much, whatever this port has been given.
        let is_trusted = endpoint.trust() == Trust::Trusted;
        let limit = |bytes: u64| if is_trusted { bytes } else { bytes.min(DEFAULT_LIMIT) };
        let ours = (*side.of(&shape.capacity), *side.of(&shape.limit));
        let theirs = (*side.other().of(&shape.capacity), *side.other().of(&shape.limit));
        let options = ChannelOptions::new()
            .capacities(capacity(ours.0), capacity(theirs.0))
            .limits(limit(ours.1), limit(theirs.1))
            .trust(endpoint.trust());
        options.open().map_err(|error| match error {
            OpenError::Os(error) => PostError::Os(error),
            // Not reached: this port has the same.
            other => PostError::Os(std::io::Error::other(other)),
        })
    }
}

/// Writes the head to the beginning of the room, and gives the rest.
pub(super) fn after_head<'a>(room: &'a mut [u8], head: &[u8]) -> Option<&'a mut [u8]> {
    let (first, rest) = room.split_at_mut_checked(head.len())?;
    first.copy_from_slice(head);
    Some(rest)
}

impl MessagePort {
    /// The sending half, for functions that post on what they are lent, be it a port or half of one.
    ///
    /// ```
    /// use zeroport::{MessageChannel, PostError, Sender};
    ///
    /// fn greet(sender: &Sender) -> Result<(), PostError> {
    ///     sender.post_bytes(b"hello")
    /// }
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// greet(port1.sender())?;
    /// assert_eq!(port2.recv()?.bytes(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sender(&self) -> &Sender {
        self.halves().0
    }
}
