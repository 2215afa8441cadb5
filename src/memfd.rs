//! Memory files, `memfd_create(2)`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::io::{Errno, retry_on_intr};

/// A fresh one, empty, that can be sealed.
pub(crate) fn make() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(c"zeroport", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(Errno::INVAL) => memfd_create(c"zeroport", flags),
        made => made,
    }
}

/// Finds memory for a part of it, so that its lack shows here and not as a signal at the first use.
pub(crate) fn allocate(memfd: impl AsFd, from: u64, len: u64) -> Result<(), Errno> {
    match retry_on_intr(|| fallocate(&memfd, FallocateFlags::empty(), from, len)) {
        // Where memory is never overcommitted, want of it is so called.
        Err(Errno::NOSPC) => Err(Errno::NOMEM),
        allocated => allocated,
    }
}

/// Gives the memory of a part of it back to the kernel; it reads as zeros then.
pub(crate) fn give_back(memfd: impl AsFd, from: u64, len: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // If that is refused, the memory goes with the file.
    let _ = retry_on_intr(|| fallocate(&memfd, flags, from, len));
}
