//! Large payloads, on the sending side: written into a memory of their own, whose descriptor goes ahead on
//! the lane, if the reader has not kept it; the record follows in its turn.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::block::{Block, file_len};
use crate::error::PostError;
use crate::record::OUTSIDE_LEN;
use crate::ring::Content;
use crate::sync::spin_loop;
use crate::ticket::{MAX_BLOCKS, Ticket};
use crate::warm;

use super::grow::QUICK_LOOKS;
use super::headed::Heading;
use super::post::{MAX_PAYLOAD, Patience, Sender};
use super::transfer_list::{TransferError, TransferList};

/// What a sender keeps warm, in bytes. (In number: [`MAX_BLOCKS`].)
pub(super) const MAX_WARM: u64 = 32 << 20;
/// Blocks are used in turn as long as all of them have so many bytes together. The lines that the poster has
/// written last are still its own, and cost the reader more than those that have left its caches (1 MiB one
/// way: 39 µs in turn, 125 µs in one block). With more bytes they would leave the shared cache too.
const IN_TURN: u64 = 8 << 20;
/// How fast fresh memory is made.
const NEW_BYTES_IN_A_NANO: u64 = 2;

/// Memory for a large payload, to be filled.
#[derive(Debug)]
pub(super) enum Large {
    /// To be sealed, and never used again: for who may be a stranger.
    Fresh(Block),
    /// To be used again.
    Warm(warm::Block, u64),
}

impl Large {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Fresh(block) => block.as_slice(),
            Self::Warm(block, len) => block.payload(*len as usize),
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Fresh(block) => block.as_mut_slice(),
            Self::Warm(block, len) => block.payload_mut(*len as usize),
        }
    }

    /// Ends the writing. Only the first `len` bytes are the payload.
    fn finish(self, len: u64) -> Result<Finished, PostError> {
        match self {
            Self::Fresh(block) => {
                let block = block.shorten(len).map_err(os)?;
                let memfd = block.into_sealed_memfd().map_err(|unsealed| os(unsealed.errno))?;
                Ok(Finished { memory: Memory::Sealed(memfd), len })
            }
            Self::Warm(block, _) => Ok(Finished { memory: Memory::Warm(block), len }),
        }
    }
}

/// A large payload, ready to be sent.
#[derive(Debug)]
pub(super) struct Finished {
    memory: Memory,
    len: u64,
}

#[derive(Debug)]
enum Memory {
    Sealed(OwnedFd),
    Warm(warm::Block),
}

impl Finished {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The number of its file, if the reader has kept that.
    pub(super) fn kept(&self) -> Option<u64> {
        match &self.memory {
            Memory::Sealed(_) => None,
            Memory::Warm(block) => block.kept(),
        }
    }

    /// What goes on the lane.
    pub(super) fn on_lane(&self) -> (Ticket, BorrowedFd<'_>) {
        let memfd = match &self.memory {
            Memory::Sealed(memfd) => memfd.as_fd(),
            Memory::Warm(block) => block.memfd(),
        };
        (Ticket::payload(self.len), memfd)
    }
}

/// The memory that a sender keeps for large payloads.
#[derive(Debug)]
pub(super) struct Store {
    is_warm: bool,
    blocks: RefCell<Vec<warm::Block>>,
}

impl Store {
    /// `is_warm`: the receiver will always be somebody whom we trust, so memory can be used again.
    pub(super) fn new(is_warm: bool) -> Self {
        Self { is_warm, blocks: RefCell::default() }
    }

    /// Whether there are as many blocks for this length as are used in turn.
    fn is_enough(&self, len: u64) -> bool {
        let blocks = self.blocks.borrow();
        let fitting = blocks.iter().filter(|block| fits(block, len)).count();
        (fitting as u64 + 1) * len > IN_TURN.max(2 * len) || fitting >= MAX_BLOCKS
    }

    /// A block that the reader has let go.
    fn claim(&self, len: u64) -> Option<warm::Block> {
        let mut blocks = self.blocks.borrow_mut();
        let is_free = |block: &mut warm::Block| fits(block, len) && block.claim();
        let place = if 2 * len <= IN_TURN {
            blocks.iter_mut().position(is_free)
        } else {
            blocks.iter_mut().rposition(is_free)
        };
        Some(blocks.remove(place?))
    }

    /// Keeps a block that is with the reader, and lets go of older ones if there are too many.
    fn keep(&self, block: warm::Block) {
        let mut blocks = self.blocks.borrow_mut();
        blocks.push(block);
        let bytes = |blocks: &[warm::Block]| blocks.iter().map(warm::Block::capacity).sum::<u64>();
        while blocks.len() > MAX_BLOCKS || bytes(&blocks) > MAX_WARM {
            let place = blocks.iter().position(warm::Block::is_free).unwrap_or(0);
            blocks.remove(place);
        }
    }

    pub(super) fn let_go(&self) {
        self.blocks.take();
    }
}

impl Sender {
    /// Posts the first `len` bytes of large memory; in the ring if that is enough for them.
    pub(super) fn post_filled(
        &self,
        large: Large,
        len: usize,
        tag: u32,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        if len + OUTSIDE_LEN as usize <= self.max_in_ring() {
            let bytes = large.bytes().get(..len).unwrap_or_default();
            return self.post_checked_headed(Heading::none(tag), bytes, patience, list);
        }
        match large.finish(len as u64) {
            Ok(large) => self.post_finished(large, tag, patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// Makes memory for a payload of exactly `len` bytes, once so much may be sent.
    pub(super) fn make_large(&self, len: u64, patience: Patience) -> Result<Large, PostError> {
        if len > MAX_PAYLOAD {
            return Err(PostError::TooLarge { len, max: MAX_PAYLOAD });
        }
        self.admit(file_len(len), len, patience)?;
        // What is larger is not kept warm; and who has come not to trust us would have to copy it.
        if !self.store().is_warm || len > MAX_WARM {
            return Block::create(len).map(Large::Fresh).map_err(os);
        }
        let block = if self.store().is_enough(len) { self.await_block(len) } else { None };
        let block = block.map_or_else(|| warm::Block::create(len), Ok).map_err(os)?;
        Ok(Large::Warm(block, len))
    }

    /// A block that the reader has let go; waits for one about as long as it would take to make one, if
    /// the reader is awake.
    fn await_block(&self, len: u64) -> Option<warm::Block> {
        let start = Instant::now();
        let longest = Duration::from_nanos(len / NEW_BYTES_IN_A_NANO);
        loop {
            for _ in 0..QUICK_LOOKS {
                let block = self.store().claim(len);
                if block.is_some() || !self.is_reader_awake() {
                    return block;
                }
                spin_loop();
            }
            if start.elapsed() > longest {
                return None;
            }
        }
    }

    fn post_finished(
        &self,
        large: Finished,
        tag: u32,
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        let outside = file_len(large.len()).saturating_add(list.bytes());
        let room = self
            .check_loan()
            .and_then(|()| self.reserve_with(OUTSIDE_LEN.into(), outside, large.len(), patience));
        match room {
            Ok(room) => {
                let content = Content::plain(OUTSIDE_LEN as usize, tag);
                self.give_away(room, content, patience, list, Some(large))
            }
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// It is on its way: what can be used again is kept.
    pub(super) fn sent_large(&self, large: Finished) {
        if let Memory::Warm(block) = large.memory {
            block.sent();
            self.store().keep(block);
        }
    }
}

/// Whether a block is for payloads of this length: much larger ones are kept for larger payloads.
fn fits(block: &warm::Block, len: u64) -> bool {
    block.capacity() >= len && block.capacity() / 4 <= len
}

fn os(error: Errno) -> PostError {
    PostError::Os(error.into())
}
