//! Memory for large payloads that is used again: on channels whose two sides have trusted each other from
//! the beginning. Page faults are most of what a large payload costs in fresh memory.
//!
//! ```text
//!  0x0000  state │ the rest of the page is unused
//!  0x1000  payload
//! ```
//!
//! The poster keeps a few blocks, the reader keeps them mapped, and the state says whose turn it is
//! ([`crate::turn`]). What the reader has kept is not sent to it again, but named by its file.
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

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::io::{Errno, pread};

use crate::fork::Mark;
use crate::memfd;
use crate::segment::SegmentId;
use crate::sync::AtomicU32;
use crate::turn::{self, Claimed};

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
        let map = MmapOptions::new().len(len).map_raw(&memfd).map_err(errno_of)?;
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
    /// Its number in the kernel's own file system, where all memfds are.
    file: u64,
    is_kept: bool,
    mark: Mark,
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
        let file = fstat(&memfd)?.st_ino;
        let shared = Shared::map(memfd.as_fd(), len)?;
        let mark = Mark::here().map_err(errno_of)?;
        let block = Self { shared, memfd, file, is_kept: false, mark };
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

    /// The number of its file, if the reader has kept it.
    pub(crate) fn kept(&self) -> Option<u64> {
        self.is_kept.then_some(self.file)
    }

    /// Takes the block back from its reader, if that one has let it go.
    pub(crate) fn claim(&mut self) -> bool {
        let claimed = turn::claim(self.shared.state(), || self.allocate().is_ok());
        self.is_kept = claimed == Some(Claimed::Kept);
        claimed.is_some()
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

impl Drop for Block {
    fn drop(&mut self) {
        // A forked child has a copy of what its parent may be writing.
        if self.mark.is_original() {
            // A reader that has kept it may forget it.
            turn::give_up(self.shared.state());
        }
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

/// A block as its reader has it, or will have it once it is mapped.
#[derive(Debug)]
pub(crate) struct Reading {
    shared: OnceLock<Shared>,
    /// For the next holder of the port.
    memfd: OwnedFd,
    id: SegmentId,
    size: u64,
}

impl Reading {
    /// Verifies what came as a block. `None`: it is none.
    pub(crate) fn new(memfd: OwnedFd) -> Result<Option<Self>, Errno> {
        // Only memfds have these seals; so nothing below asks a file system of somebody else's.
        if !fcntl_get_seals(&memfd).is_ok_and(|seals| seals.contains(SEALS)) {
            return Ok(None);
        }
        let stat = fstat(&memfd)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_block = size.is_multiple_of(HEADER_LEN) && size >= HEADER_LEN;
        let (shared, id) = (OnceLock::new(), SegmentId::of(&stat));
        Ok(is_block.then_some(Self { shared, memfd, id, size }))
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.size.saturating_sub(HEADER_LEN)
    }

    /// Maps it, if that was not done.
    pub(crate) fn map(&self) -> Result<(), Errno> {
        if self.shared.get().is_none() {
            let shared = Shared::map(self.memfd(), self.size)?;
            self.shared.get_or_init(|| shared);
        }
        Ok(())
    }

    /// The first bytes of the payload, for a reader that trusts the poster. None before it was mapped.
    pub(crate) fn payload(&self, len: usize) -> &[u8] {
        let Some(shared) = self.shared.get() else { return &[] };
        let len = len.min(shared.capacity() as usize);
        // SAFETY: M1, M3: only called for a trusted poster, between the receipt and `let_go`.
        unsafe { std::slice::from_raw_parts(shared.payload(), len) }
    }

    /// The poster may use it again, and need not send it again.
    pub(crate) fn let_go(&self) {
        if let Some(shared) = self.shared.get() {
            turn::let_go(shared.state());
        }
    }

    /// The poster may use it again, and has to send it then. Its memory goes back to the kernel.
    pub(crate) fn forget(&self) {
        if let Some(shared) = self.shared.get() {
            turn::forget(shared.state(), || self.give_back(shared));
        }
    }

    /// As [`forget`](Self::forget), if the poster has not claimed it.
    pub(crate) fn trim(&self) -> bool {
        let shared = self.map().ok().and_then(|()| self.shared.get());
        shared.is_some_and(|shared| turn::trim(shared.state(), || self.give_back(shared)))
    }

    fn give_back(&self, shared: &Shared) {
        let (from, len) = (HEADER_LEN as usize, self.capacity() as usize);
        // SAFETY: M3: in the reader's turn only a message has a slice of the payload, and that is gone; in
        // TRIMMING nobody has. It then reads as zeros. If it is refused, the memory stays warm.
        let _ = unsafe { shared.map.unchecked_advise_range(UncheckedAdvice::Remove, from, len) };
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)
}
