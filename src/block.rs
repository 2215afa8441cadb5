//! Memory of its own, for what is too large for a ring: written by one, then sealed, then only read.
//!
//! A [`Block`] is a memfd that nobody else has. Sealed ([`Sealed`]), it can never change again, whoever
//! made it and whoever has its descriptor, so it is read in place also where nobody is trusted.
//!
//! # Invariants
//!
//! * **B1** Nobody else uses the descriptor of a [`Block`] before it is sealed (a forked child has it, and
//!   leaves it alone), and its mapping is as long as its file: nobody writes there but through the one
//!   `&mut`, and no access faults for lack of file.
//! * **B2** A forked child does not get the mapping of a [`Block`] (`MADV_DONTFORK`, before anybody can
//!   fork). There, what is at
//!   its addresses is nobody's, or somebody else's: a copy is neither read, nor written, nor unmapped.
//! * **B3** The file of a [`Sealed`] is a memfd with all four [`SEALS`], before the first byte of its
//!   mapping is read, and the mapping is as long as the file: so the bytes never change, and no access
//!   faults for lack of file. No process can take a seal away.
//! * **B4** The file of a [`Sealed`] has no hole, and cannot get one: to read it takes no memory, which
//!   might have run out. (Whoever first takes it from a stranger has looked; those who trust that one, or the
//!   one who made it here, need not.)
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::fs::{
    SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate, seek,
};
use rustix::io::{Errno, pwrite};

use crate::fork::{self, Mark};
use crate::memfd;

/// Against writing, shrinking, growing, and other seals.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Files are a whole number of these long, in bytes, on every machine.
const UNIT: u64 = 4096;

/// Bytes that are allocated with one call.
const STEP: u64 = 8 << 20;

/// How often a seal is tried. The kernel itself waits for some 0.1 s each time for pages that are in use.
const SEAL_TRIES: u32 = 20;

/// Bytes of the file of a block of `len` bytes. Where that is no number, the one that no file can have.
pub(crate) fn file_len(len: u64) -> u64 {
    len.max(1).checked_next_multiple_of(UNIT).unwrap_or(u64::MAX)
}

/// Bytes of the mapping of that file; `None` if there can be none.
fn map_len(len: u64) -> Option<usize> {
    isize::try_from(file_len(len)).ok().map(isize::unsigned_abs)
}

/// Memory that is still written, in this process only. A copy in a forked child is empty.
#[derive(Debug)]
pub(crate) struct Block {
    memory: Writable,
    memfd: OwnedFd,
    len: usize,
}

/// A block that could not be sealed.
#[derive(Debug)]
pub(crate) struct Unsealed {
    /// The block as it was; `None` if it could not even be mapped again.
    pub(crate) block: Option<Block>,
    /// Why not.
    pub(crate) errno: Errno,
}

impl Block {
    /// Makes a block of `len` bytes, all zero. All its memory is there from the beginning, so want of it
    /// is an error here and not a signal (`SIGBUS`) later.
    pub(crate) fn create(len: u64) -> Result<Self, Errno> {
        let mark = Mark::here().map_err(errno_of)?;
        let map_len = map_len(len).ok_or(Errno::NOMEM)?;
        let memfd = memfd::make()?;
        allocate(memfd.as_fd(), map_len)?;
        // It fits: the mapping is at least as long.
        Self::map(memfd, len as usize, mark)
    }

    fn map(memfd: OwnedFd, len: usize, mark: Mark) -> Result<Self, Errno> {
        let map_len = map_len(len as u64).ok_or(Errno::NOMEM)?;
        let memory = Writable::new(memfd.as_fd(), map_len, mark)?;
        Ok(Self { memory, memfd, len })
    }

    /// False in a forked child, whose copy is empty and cannot be sealed.
    pub(crate) fn is_original(&self) -> bool {
        self.memory.mark.is_original()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.memory.bytes().get(..self.len).unwrap_or_default()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len;
        self.memory.bytes_mut().get_mut(..len).unwrap_or_default()
    }

    /// Ends all writing, for ever; what was written can be read here, and wherever it is sent.
    pub(crate) fn seal(self) -> Result<Sealed, Unsealed> {
        // First, for it may fail, and the block could not be written again. It is not read before the
        // file is sealed, and does not stand in the way of a seal: it is private.
        match View::map(self.memfd.as_fd(), self.len) {
            Ok(view) => Ok(view.held_by(self.into_sealed_memfd()?)),
            Err(errno) => Err(Unsealed { block: Some(self), errno }),
        }
    }

    /// Keeps the first `len` bytes only; nothing of the others can be seen by who gets the file.
    pub(crate) fn shorten(mut self, len: u64) -> Result<Self, Errno> {
        let Ok(len) = usize::try_from(len) else { return Ok(self) };
        let old = self.len;
        if len >= old || !self.is_original() {
            return Ok(self);
        }
        let end = map_len(len as u64).ok_or(Errno::NOMEM)?.min(old);
        if let Some(rest) = self.as_mut_slice().get_mut(len..end) {
            rest.fill(0);
        }
        let Self { memory, memfd, .. } = self;
        let mark = memory.mark;
        // No mapping may reach behind the end of its file (B1).
        drop(memory);
        ftruncate(&memfd, file_len(len as u64))?;
        Self::map(memfd, len, mark)
    }

    /// As [`seal`](Self::seal), for what is not read here any more.
    pub(crate) fn into_sealed_memfd(self) -> Result<OwnedFd, Unsealed> {
        let ready = if self.is_original() { fill_up(self.memfd.as_fd()) } else { Err(Errno::BADF) };
        if let Err(errno) = ready {
            return Err(Unsealed { block: Some(self), errno });
        }
        let Self { memory, memfd, len } = self;
        let mark = memory.mark;
        // The kernel refuses the seal as long as somebody could write through a mapping.
        drop(memory);
        match add_seals(memfd.as_fd()) {
            Ok(()) => Ok(memfd),
            Err(errno) => Err(Unsealed { block: Self::map(memfd, len, mark).ok(), errno }),
        }
    }
}

/// Nobody maps the file, but the kernel may hold pages of it while it moves them in memory (compaction):
/// on a busy machine for longer than it waits for itself. See `memfd_wait_for_pins` in mm/memfd.c.
fn add_seals(memfd: BorrowedFd<'_>) -> Result<(), Errno> {
    for _ in 1..SEAL_TRIES {
        match fcntl_add_seals(memfd, SEALS) {
            Err(Errno::BUSY) => {}
            result => return result,
        }
    }
    fcntl_add_seals(memfd, SEALS)
}

/// The mapping of a block.
#[derive(Debug)]
struct Writable {
    /// Always there, until it is dropped.
    map: Option<MmapMut>,
    mark: Mark,
}

impl Writable {
    fn new(memfd: BorrowedFd<'_>, len: usize, mark: Mark) -> Result<Self, Errno> {
        let map = fork::undivided(|| {
            // SAFETY: B1: the file is `len` bytes long, and nobody else uses it.
            let map = unsafe { MmapOptions::new().len(len).map_mut(&memfd) }?;
            map.advise(Advice::DontFork)?;
            Ok(map)
        });
        let map = map.map_err(errno_of)?;
        // All pages at once are cheaper than one by one. Before Linux 5.14, they come one by one.
        let _ = map.advise(Advice::PopulateWrite);
        Ok(Self { map: Some(map), mark })
    }

    fn bytes(&self) -> &[u8] {
        match &self.map {
            Some(map) if self.mark.is_original() => map,
            _ => &[],
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.map {
            Some(map) if self.mark.is_original() => map,
            _ => &mut [],
        }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        if !self.mark.is_original() {
            // B2: what is mapped there by now is not ours to unmap.
            std::mem::forget(self.map.take());
        }
    }
}

/// Memory that can never change.
#[derive(Debug)]
pub(crate) struct Sealed {
    view: View,
    memfd: OwnedFd,
}

/// Why a descriptor is no [`Sealed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSealed {
    /// It is not what an honest side sends, and never will be.
    Broken,
    /// Memory or descriptors have run out here: it may be tried again.
    Os(Errno),
}

impl From<Errno> for NotSealed {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN => Self::Os(errno),
            _ => Self::Broken,
        }
    }
}

impl Sealed {
    /// Maps `len` bytes that somebody else has made, who need not be trusted, after their file was found
    /// to be sealed. To try again after [`NotSealed::Os`], use a [`View`].
    #[cfg(test)]
    pub(crate) fn verify(memfd: OwnedFd, len: u64) -> Result<Self, NotSealed> {
        Ok(View::new(memfd.as_fd(), len, false)?.held_by(memfd))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.view.len as u64
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.view.map.get(..self.view.len).unwrap_or_default()
    }

    /// To be sent with its length; whoever has it cannot change anything.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

/// A mapping of what was found to be sealed, before anybody takes its descriptor.
#[derive(Debug)]
pub(crate) struct View {
    map: Mmap,
    len: usize,
}

impl View {
    /// Verifies and maps what somebody else made; it may be tried again. Who trusts the side that it comes
    /// from need not look for holes (B4), which takes the longer the larger it is.
    pub(crate) fn new(
        memfd: BorrowedFd<'_>,
        len: u64,
        is_trusted: bool,
    ) -> Result<Self, NotSealed> {
        verify(memfd, file_len(len))?;
        // `st_blocks` would not do: it also counts what was allocated behind the end of the file.
        if !is_trusted && first_hole(memfd, 0)? < file_len(len) {
            return Err(NotSealed::Broken);
        }
        let len = usize::try_from(len).map_err(|_| NotSealed::Broken)?;
        Ok(Self::map(memfd, len)?)
    }

    /// The sealed memory, with the descriptor that was mapped.
    pub(crate) fn held_by(self, memfd: OwnedFd) -> Sealed {
        Sealed { view: self, memfd }
    }

    /// A private mapping: a shared one of a file that is sealed against writing is refused before Linux
    /// 6.7, even to read. Nobody writes here, so its pages are those of the file, and none is copied.
    ///
    /// A forked child gets it too, which is no harm: it is the same there, and can be unmapped there.
    fn map(memfd: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        let map_len = map_len(len as u64).ok_or(Errno::OVERFLOW)?;
        let options = MmapOptions::new().len(map_len).to_owned();
        // SAFETY: B3: nothing is read there before the file is sealed.
        let map = unsafe { options.map_copy_read_only(&memfd) }.map_err(errno_of)?;
        Ok(Self { map, len })
    }
}

/// Whether this is a memfd that nobody can write.
pub(crate) fn is_write_sealed(memfd: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(memfd).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// Whether this is a memfd of that length which can never change.
fn verify(memfd: BorrowedFd<'_>, file_len: u64) -> Result<(), NotSealed> {
    // Only memfds have these seals; so nothing below asks a file system of somebody else's.
    if !fcntl_get_seals(memfd)?.contains(SEALS) {
        return Err(NotSealed::Broken);
    }
    // A memfd of huge pages (`MFD_HUGETLB`) may be sealed, and fault for want of them.
    if fstatfs(memfd)?.f_type != libc::TMPFS_MAGIC {
        return Err(NotSealed::Broken);
    }
    if u64::try_from(fstat(memfd)?.st_size) != Ok(file_len) {
        return Err(NotSealed::Broken);
    }
    Ok(())
}

/// Where the first page at or after `from` is that was never written; the end of the file if there is none.
fn first_hole(memfd: BorrowedFd<'_>, from: u64) -> Result<u64, Errno> {
    seek(memfd, SeekFrom::Hole(from))
}

/// Writes zeros where nothing was written. The memory is there, but the kernel tells it from a hole only
/// once somebody has used it.
fn fill_up(memfd: BorrowedFd<'_>) -> Result<(), Errno> {
    const ZEROS: &[u8] = &[0; UNIT as usize];
    let end = seek(memfd, SeekFrom::End(0))?;
    let mut from = 0;
    loop {
        from = first_hole(memfd, from)?;
        if from >= end {
            return Ok(());
        }
        // No longer than a page, or it would overwrite what was written.
        pwrite(memfd, ZEROS, from)?;
    }
}

/// Gives the empty file its length and all its memory.
fn allocate(memfd: BorrowedFd<'_>, len: usize) -> Result<(), Errno> {
    let end = len as u64;
    if end > STEP {
        // What the machine can never hold is refused at once (proc_sys_vm_overcommit_memory(5)), before
        // others have to make room for a part of it.
        drop(MmapOptions::new().len(len).map_anon().map_err(errno_of)?);
    }
    let mut from = 0;
    while from < end {
        let step = STEP.min(end - from);
        // On older kernels a signal undoes the whole call. In steps, it gets on also among many signals.
        match memfd::allocate(memfd, from, step) {
            Ok(()) => from += step,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

    use super::*;

    const LENS: [u64; 6] = [0, 1, 4095, 4096, 4097, 3 << 20];

    fn filled(len: u64) -> Block {
        let mut block = Block::create(len).unwrap();
        block.as_mut_slice().iter_mut().zip((0..251).cycle()).for_each(|(byte, n)| *byte = n);
        block
    }

    fn expect_filled(bytes: &[u8], len: u64) {
        assert_eq!(bytes.len() as u64, len);
        assert!(bytes.iter().zip((0..251).cycle()).all(|(byte, n)| *byte == n));
    }

    fn copy_of(memfd: BorrowedFd<'_>) -> OwnedFd {
        memfd.try_clone_to_owned().unwrap()
    }

    fn verify(memfd: impl Into<OwnedFd>, len: u64) -> Result<(), NotSealed> {
        Sealed::verify(memfd.into(), len).map(drop)
    }

    /// A memfd of one page that was written, with any seals.
    fn forge(seals: SealFlags) -> OwnedFd {
        let memfd = memfd::make().unwrap();
        pwrite(&memfd, &[7; 4096], 0).unwrap();
        fcntl_add_seals(&memfd, seals).unwrap();
        memfd
    }

    #[test]
    fn files_are_whole_pages() {
        let expected = [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)];
        for (len, file) in expected {
            assert_eq!(file_len(len), file);
        }
        assert_eq!(file_len(u64::MAX - 4096), u64::MAX - 4095);
        assert_eq!(file_len(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_was_written_is_read() {
        for len in LENS {
            let block = filled(len);
            assert_eq!(block.as_slice().len() as u64, len);
            expect_filled(block.as_slice(), len);
            let sealed = block.seal().unwrap();
            expect_filled(sealed.as_slice(), len);
            assert_eq!(sealed.len(), len);

            let memfd = copy_of(sealed.memfd());
            drop(sealed);
            assert_eq!(fstat(&memfd).unwrap().st_size as u64, file_len(len));
            expect_filled(Sealed::verify(memfd, len).unwrap().as_slice(), len);
        }
    }

    #[test]
    fn what_is_sent_need_not_be_mapped() {
        let memfd = filled(5000).into_sealed_memfd().unwrap();
        expect_filled(Sealed::verify(memfd, 5000).unwrap().as_slice(), 5000);
    }

    #[test]
    fn what_nobody_wrote_is_zero_and_no_hole() {
        for len in LENS {
            let sealed = Block::create(len).unwrap().seal().unwrap();
            assert!(sealed.as_slice().iter().all(|byte| *byte == 0));
            assert_eq!(sealed.as_slice().len() as u64, len);
            assert_eq!(verify(copy_of(sealed.memfd()), len), Ok(()));
        }
        // As it is where pages come one by one.
        let memfd = memfd::make().unwrap();
        allocate(memfd.as_fd(), 5 * 4096).unwrap();
        pwrite(&memfd, b"in the middle", 2 * 4096 + 100).unwrap();
        assert_eq!(first_hole(memfd.as_fd(), 0), Ok(0));
        fill_up(memfd.as_fd()).unwrap();
        assert_eq!(first_hole(memfd.as_fd(), 0), Ok(5 * 4096));
        fcntl_add_seals(&memfd, SEALS).unwrap();
        let sealed = Sealed::verify(memfd, 5 * 4096).unwrap();
        let (before, rest) = sealed.as_slice().split_at(2 * 4096 + 100);
        let (written, after) = rest.split_at(13);
        assert_eq!(written, b"in the middle");
        assert!(before.iter().chain(after).all(|byte| *byte == 0));
    }

    #[test]
    fn the_kernel_refuses_to_change_what_is_sealed() {
        let sealed = filled(8192).seal().unwrap();
        let memfd = sealed.memfd();
        assert_eq!(pwrite(memfd, b"new", 0), Err(Errno::PERM));
        for len in [0, 4096, 12288] {
            assert_eq!(ftruncate(memfd, len), Err(Errno::PERM));
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(memfd, punch, 0, 4096), Err(Errno::PERM));
        assert!(fallocate(memfd, FallocateFlags::ZERO_RANGE, 0, 4096).is_err());
        let grow = FallocateFlags::empty();
        assert_eq!(fallocate(memfd, grow, 8192, 4096), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(memfd, SealFlags::empty()), Err(Errno::PERM));
        // SAFETY: refused; if it were not, nobody would use it.
        let mapped = unsafe { MmapOptions::new().len(8192).map_mut(&memfd) };
        assert_eq!(mapped.map(drop).map_err(errno_of), Err(Errno::PERM));
        expect_filled(sealed.as_slice(), 8192);
    }

    #[test]
    fn each_missing_seal_is_refused() {
        assert_eq!(verify(forge(SEALS), 4096), Ok(()));
        for seal in SEALS.iter() {
            assert_eq!(verify(forge(SEALS.difference(seal)), 4096), Err(NotSealed::Broken));
        }
        assert_eq!(verify(forge(SealFlags::empty()), 4096), Err(NotSealed::Broken));
        // Whoever has a mapping can still write through this one.
        let future = SEALS.difference(SealFlags::WRITE).union(SealFlags::FUTURE_WRITE);
        assert_eq!(verify(forge(future), 4096), Err(NotSealed::Broken));
    }

    #[test]
    fn another_length_is_refused() {
        for len in 0..=4096 {
            assert_eq!(verify(forge(SEALS), len), Ok(()));
        }
        let max = isize::MAX as u64;
        for len in [4097, 8192, max - 4096, max, max + 1, u64::MAX - 4096, u64::MAX] {
            assert_eq!(verify(forge(SEALS), len), Err(NotSealed::Broken), "{len}");
        }
        // Not a whole number of pages.
        let memfd = memfd::make().unwrap();
        pwrite(&memfd, &[7; 4095], 0).unwrap();
        fcntl_add_seals(&memfd, SEALS).unwrap();
        assert_eq!(verify(memfd, 4095), Err(NotSealed::Broken));
    }

    #[test]
    fn a_file_with_holes_is_refused() {
        for written in 0..3 {
            let memfd = memfd::make().unwrap();
            ftruncate(&memfd, 3 * 4096).unwrap();
            for page in (0..3).filter(|page| *page != written) {
                pwrite(&memfd, &[7; 4096], page * 4096).unwrap();
            }
            fcntl_add_seals(&memfd, SEALS).unwrap();
            assert_eq!(verify(memfd, 3 * 4096), Err(NotSealed::Broken));
        }
        // One hole, and as much memory behind the end of the file: it has blocks enough.
        let memfd = memfd::make().unwrap();
        ftruncate(&memfd, 4096).unwrap();
        fallocate(&memfd, FallocateFlags::KEEP_SIZE, 4096, 1 << 20).unwrap();
        fcntl_add_seals(&memfd, SEALS).unwrap();
        assert!(fstat(&memfd).unwrap().st_blocks * 512 > 4096);
        assert_eq!(verify(memfd, 4096), Err(NotSealed::Broken));
    }

    #[test]
    fn what_is_no_memfd_is_refused() {
        let (reader, writer) = io::pipe().unwrap();
        let files = ["/proc/self/exe", "/dev/zero", "/proc/self/maps", "/"];
        let files = files.into_iter().map(|path| OwnedFd::from(File::open(path).unwrap()));
        for fd in files.chain([reader.into(), writer.into()]) {
            assert_eq!(verify(fd, 0), Err(NotSealed::Broken));
        }
    }

    #[test]
    fn huge_pages_are_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        // Not every kernel has them.
        let Ok(memfd) = memfd_create(c"huge", flags) else { return };
        ftruncate(&memfd, 1 << 30).unwrap();
        fcntl_add_seals(&memfd, SEALS).unwrap();
        assert_eq!(verify(memfd, 1 << 30), Err(NotSealed::Broken));
    }

    #[test]
    fn what_can_only_be_written_is_refused() {
        let memfd = forge(SEALS);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memfd));
        // The kernel does not open it so, as it is sealed: nothing to verify, then.
        if let Ok(file) = File::options().write(true).open(path) {
            assert_eq!(verify(file, 4096), Err(NotSealed::Broken));
        }
    }

    #[test]
    fn want_is_told_from_what_is_broken() {
        for errno in [Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::AGAIN] {
            assert_eq!(NotSealed::from(errno), NotSealed::Os(errno));
        }
        for errno in [Errno::INVAL, Errno::BADF, Errno::ACCESS, Errno::PERM] {
            assert_eq!(NotSealed::from(errno), NotSealed::Broken);
        }
    }

    #[test]
    fn more_than_the_machine_has_is_refused_at_once() {
        for len in [1 << 46, isize::MAX as u64, u64::MAX] {
            assert_eq!(Block::create(len).map(drop), Err(Errno::NOMEM));
        }
    }

    #[test]
    fn a_block_that_somebody_else_could_write_comes_back() {
        let block = filled(5000);
        // SAFETY: nobody uses it.
        let other = unsafe { MmapOptions::new().len(4096).map_mut(&block.memfd) }.unwrap();
        let Unsealed { block, errno } = block.seal().unwrap_err();
        assert_eq!(errno, Errno::BUSY);
        let mut block = block.unwrap();
        expect_filled(block.as_slice(), 5000);
        block.as_mut_slice()[0] = 0;
        drop(other);
        expect_filled(block.seal().unwrap().as_slice(), 5000);
    }

    #[test]
    fn signals_do_not_end_an_allocation() {
        extern "C" fn ignore(_: libc::c_int) {}
        // SAFETY: a handler that does nothing.
        unsafe { libc::signal(libc::SIGURG, ignore as *const () as libc::sighandler_t) };
        // SAFETY: asks for a number.
        let thread = unsafe { libc::pthread_self() };
        let len = 64 << 20;
        thread::scope(|scope| {
            let allocation = std::sync::Arc::new(());
            let goes_on = std::sync::Arc::downgrade(&allocation);
            scope.spawn(move || {
                while goes_on.upgrade().is_some() {
                    // SAFETY: that thread waits for this one.
                    unsafe { libc::pthread_kill(thread, libc::SIGURG) };
                    thread::sleep(Duration::from_micros(50));
                }
            });
            let memfd = memfd::make().unwrap();
            allocate(memfd.as_fd(), len).unwrap();
            assert_eq!(fstat(&memfd).unwrap().st_size, len as i64);
            drop(allocation);
        });
    }
}
