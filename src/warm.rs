//! Memory for large payloads that is used again: on channels whose two sides have trusted each other from
//! the beginning. Page faults are most of what a large payload costs in fresh memory.
//!
//! ```text
//!  0x0000  state │ the rest of the page is unused
//!  0x1000  payload
//! ```
//!
//! The poster keeps a few blocks, the reader keeps them mapped, and the state says whose turn it is
//! ([`crate::turn`]).
//!
//! A reader that has waited in vain for a while *trims*: it gives the pages of free blocks back to the
//! kernel. It does so because a poster that is done with its burst may not come back for long.
//!
//! # Invariants
//!
//! * **M1** The mapping is as long as the file, the file was sealed against shrinking and growing before it
//!   was mapped, and the mapping lives as long as its owner here.
//! * **M2** The state word is only ever used as an atomic, by both sides.
//! * **M3** The payload belongs to the poster in `POSTERS`, to the reader in `SENT`. A slice of it exists
//!   only on the side that has the turn; the other side is trusted to keep to that. A reader that does
//!   not trust it maps nothing, but has the kernel copy the payload.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::io::{Errno, pread};

use crate::memfd;
use crate::segment::SegmentId;
use crate::sync::AtomicU32;
use crate::turn;

/// Bytes before the payload.
const HEADER_LEN: u64 = 4096;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The part of a block's length by which it may be longer than asked for, so that payloads of about one
/// length share blocks.
const SLACK_SHARE: u64 = 8;

/// Both sides' view of a block.
#[derive(Debug)]
struct Shared {
    map: MmapRaw,
}

impl Shared {
    fn map(memfd: BorrowedFd<'_>, len: u64) -> Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::OVERFLOW)?;
        let map = MmapOptions::new()
            .len(len)
            .map_raw(&memfd)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        Ok(Self { map })
    }

    fn state(&self) -> &AtomicU32 {
        // SAFETY: M1, M2: page-aligned and inside the mapping.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast()) }
    }

    fn payload(&self) -> *mut u8 {
        // SAFETY: M1: the file is longer than its header.
        unsafe { self.map.as_mut_ptr().add(HEADER_LEN as usize) }
    }

    fn capacity(&self) -> u64 {
        self.map.len() as u64 - HEADER_LEN
    }
}

/// A block as its poster has it, whose turn it is until it is [sent](Self::sent).
#[derive(Debug)]
pub(crate) struct Block {
    shared: Shared,
    memfd: OwnedFd,
}

impl Block {
    /// Makes a block for payloads of this length and a little more. All of it is allocated, so that want
    /// of memory shows here and not as a signal.
    pub(crate) fn create(len: u64) -> Result<Self, Errno> {
        let step = (len / SLACK_SHARE).next_power_of_two().max(HEADER_LEN);
        let len = HEADER_LEN + len.next_multiple_of(step);
        let memfd = memfd::make()?;
        ftruncate(&memfd, len)?;
        fcntl_add_seals(&memfd, SEALS)?;
        let block = Self { shared: Shared::map(memfd.as_fd(), len)?, memfd };
        block.allocate()?;
        Ok(block)
    }

    fn allocate(&self) -> Result<(), Errno> {
        memfd::allocate(&self.memfd, 0, self.shared.map.len() as u64)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.shared.capacity()
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Takes the block back from its reader, if that one has let it go.
    pub(crate) fn claim(&self) -> bool {
        turn::claim(self.shared.state(), || self.allocate().is_ok())
    }

    /// Whether the reader has let it go.
    pub(crate) fn is_free(&self) -> bool {
        turn::is_free(self.shared.state())
    }

    /// The first bytes of the payload; no more than there are.
    pub(crate) fn payload(&self, len: usize) -> &[u8] {
        let len = len.min(self.capacity() as usize);
        // SAFETY: M1, M3: it is the poster's turn, and the block is borrowed for reading.
        unsafe { std::slice::from_raw_parts(self.shared.payload(), len) }
    }

    /// As [`payload`](Self::payload), to be filled.
    pub(crate) fn payload_mut(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.capacity() as usize);
        // SAFETY: M1, M3: it is the poster's turn, and the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.shared.payload(), len) }
    }

    /// It is the reader's turn now.
    pub(crate) fn sent(&self) {
        turn::send(self.shared.state());
    }
}

/// Copies the payload of a block, whatever the poster does meanwhile: for a reader that does not trust it. By
/// the kernel, because to read a hole through a mapping takes memory. `None`: it is no block, or shorter.
pub(crate) fn copy_out(memfd: BorrowedFd<'_>, into: &mut [u64]) -> Result<(), Option<Errno>> {
    // A file that is no memfd may keep whoever reads it waiting.
    if !fcntl_get_seals(memfd).is_ok_and(|seals| seals.contains(SEALS)) {
        return Err(None);
    }
    let into: &mut [u8] = bytemuck::cast_slice_mut(into);
    let mut copied = 0;
    while let Some(rest) = into.get_mut(copied..).filter(|rest| !rest.is_empty()) {
        match pread(memfd, rest, HEADER_LEN + copied as u64) {
            Ok(0) => return Err(None),
            Ok(read) => copied += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Some(error)),
        }
    }
    Ok(())
}

/// A block as its reader has it.
#[derive(Debug)]
pub(crate) struct Reading {
    shared: Shared,
    id: SegmentId,
}

impl Reading {
    /// What a descriptor is, to be found among the blocks that are mapped already.
    pub(crate) fn id_of(memfd: BorrowedFd<'_>) -> Result<SegmentId, Errno> {
        Ok(SegmentId::of(&fstat(memfd)?))
    }

    /// Maps a block. `None`: it is not one for a payload of this length.
    pub(crate) fn map(memfd: BorrowedFd<'_>, len: u64) -> Result<Option<Self>, Errno> {
        let seals = fcntl_get_seals(memfd).unwrap_or(SealFlags::empty());
        let stat = fstat(memfd)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_block = seals.contains(SEALS)
            && size.is_multiple_of(HEADER_LEN)
            && size.checked_sub(HEADER_LEN).is_some_and(|capacity| len <= capacity);
        if !is_block {
            return Ok(None);
        }
        Ok(Some(Self { shared: Shared::map(memfd, size)?, id: SegmentId::of(&stat) }))
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.shared.capacity()
    }

    /// The first bytes of the payload, for a reader that trusts the poster.
    pub(crate) fn payload(&self, len: usize) -> &[u8] {
        let len = len.min(self.capacity() as usize);
        // SAFETY: M1, M3: only called for a trusted poster, between the receipt and `let_go`.
        unsafe { std::slice::from_raw_parts(self.shared.payload(), len) }
    }

    /// The poster may use it again.
    pub(crate) fn let_go(&self) {
        turn::let_go(self.shared.state());
    }

    /// Gives the memory of the payload back to the kernel, if the block is free.
    pub(crate) fn trim(&self) {
        turn::trim(self.shared.state(), || {
            let (from, len) = (HEADER_LEN as usize, self.capacity() as usize);
            // SAFETY: M3: in TRIMMING nobody has a slice of the payload, which then reads as zeros.
            // If it is refused, the memory stays warm.
            let _ = unsafe {
                self.shared.map.unchecked_advise_range(UncheckedAdvice::Remove, from, len)
            };
        });
    }
}
