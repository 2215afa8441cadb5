//! What a `fork` without `exec` may not break.
//!
//! The child gets copies of all ports. They must be useless there, and they must not hide that the
//! parent has died: a copy of a line's end keeps the line up. So two things happen in the child.
//!
//! * A private page that the kernel wipes in the child (`MADV_WIPEONFORK`, Linux 4.14) tells every
//!   handle by one load that it is a copy: [`Mark::is_original`].
//! * A handler (`pthread_atfork(3)`) closes the child's copies of all lines. It runs between `fork`
//!   and anything else, also in the child that `std::process::Command` forks for a `pre_exec`.
//!
//! `vfork` and `posix_spawn` run `exec` at once, and all descriptors are close-on-exec.
//!
//! # Invariants
//!
//! * **F1** The page lies where the kernel has put it, is never unmapped, and is only ever used as one
//!   atomic word.
//! * **F2** The handlers are plain functions, which live as long as the program and capture nothing.
//! * **F3** In the child, a listed descriptor is the handler's to close: it was open when the fork
//!   began (the list is locked across it), and a [`ForkSafeFd`] that is a copy never closes its own.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, dup3};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// The page that is zero in a forked child until that child makes ports of its own.
static PAGE: OnceLock<Page> = OnceLock::new();
/// Held across a fork, so that no descriptor is half in or half out of the list. Nothing that may take
/// long is done meanwhile.
static LINES: Mutex<Lines> = Mutex::new(None);

type Lines = Option<BTreeSet<RawFd>>;
type HeldLines = MutexGuard<'static, Lines>;

thread_local! {
    /// The lock between the handler before the fork and those after it.
    /// Without a destructor, so that a fork may also come at the very end of a thread.
    static HELD: Cell<ManuallyDrop<Option<HeldLines>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
    /// The line that the child of this thread's next fork is meant to have.
    static KEPT: Cell<RawFd> = const { Cell::new(-1) };
}

/// Bytes of the page; the kernel rounds up.
const PAGE_LEN: usize = 4096;

/// The number of the process image that made ports here last; zero in a fresh child.
struct Page(&'static AtomicU64);

impl Page {
    fn new() -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: F1: the kernel chooses the place, so no mapping of anybody is replaced.
        let page =
            unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE_LEN, access, MapFlags::PRIVATE) }?;
        // SAFETY: F1: the mapping is ours; the advice changes what a forked child gets.
        unsafe { madvise(page, PAGE_LEN, Advice::LinuxWipeOnFork) }?;
        // SAFETY: F1: page-aligned, writable, zero, never unmapped, only used through this atomic.
        Ok(Self(unsafe { AtomicU64::from_ptr(page.cast()) }))
    }
}

/// Which process image made a handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    image: &'static AtomicU64,
    number: u64,
}

impl Mark {
    /// The mark of this process. The first call installs the handlers.
    pub(crate) fn here() -> io::Result<Self> {
        static IMAGES: AtomicU64 = AtomicU64::new(0);
        let image = page()?.0;
        // Relaxed, all: one process image has one value, whoever sets it; the memory of a child
        // starts as its only thread left it.
        if image.load(Ordering::Relaxed) == 0 {
            let number = IMAGES.fetch_add(1, Ordering::Relaxed) + 1;
            let _ = image.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(Self { image, number: image.load(Ordering::Relaxed) })
    }

    /// False in a forked child, for all that its parent made.
    #[inline]
    pub(crate) fn is_original(self) -> bool {
        // Relaxed: the word changes only by a fork, which orders everything.
        self.image.load(Ordering::Relaxed) == self.number
    }
}

/// An end of a line or a lane, which a forked child must not keep.
#[derive(Debug)]
pub(crate) struct ForkSafeFd {
    fd: Option<OwnedFd>,
    mark: Mark,
}

impl ForkSafeFd {
    /// Makes descriptors under the lock, so that no fork can come between making and listing.
    pub(crate) fn make<const N: usize>(
        make: impl FnOnce() -> io::Result<[OwnedFd; N]>,
    ) -> io::Result<[Self; N]> {
        let mark = Mark::here()?;
        let mut lines = lock();
        let fds = make()?;
        let list = lines.get_or_insert_default();
        for fd in &fds {
            list.insert(fd.as_raw_fd());
        }
        Ok(fds.map(|fd| Self { fd: Some(fd), mark }))
    }

    /// As [`make`](Self::make), for descriptors that come in an unknown number, with something else.
    pub(crate) fn make_all<T>(
        make: impl FnOnce() -> io::Result<(T, Vec<OwnedFd>)>,
    ) -> io::Result<(T, Vec<Self>)> {
        let mark = Mark::here()?;
        let mut lines = lock();
        let (made, fds) = make()?;
        let list = lines.get_or_insert_default();
        list.extend(fds.iter().map(AsRawFd::as_raw_fd));
        Ok((made, fds.into_iter().map(|fd| Self { fd: Some(fd), mark }).collect()))
    }

    /// Takes the descriptor out of the list, for what a forked child may keep. `None` in such a child.
    pub(crate) fn into_owned(mut self) -> Option<OwnedFd> {
        if !self.mark.is_original() {
            return None;
        }
        let fd = self.fd.take()?;
        if let Some(list) = lock().as_mut() {
            list.remove(&fd.as_raw_fd());
        }
        Some(fd)
    }

    /// The descriptor; an error in a forked child, where the number may be somebody else's by now.
    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let fd = self.fd.as_ref().filter(|_| self.mark.is_original());
        fd.map(AsFd::as_fd).ok_or_else(|| rustix::io::Errno::BADF.into())
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Runs `fork` (on this thread) so that its child keeps this one line.
    pub(crate) fn keep_while<T>(&self, fork: impl FnOnce() -> T) -> T {
        let _reset = Reset;
        KEPT.set(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        fork()
    }
}

/// Runs something between two forks of this process, as it were: none divides it. Not for long.
pub(crate) fn undivided<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // With the handlers, a fork waits for the lock.
    page()?;
    let _held = lock();
    run()
}

struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        KEPT.set(-1);
    }
}

impl Drop for ForkSafeFd {
    fn drop(&mut self) {
        let Some(mut fd) = self.fd.take() else { return };
        if !self.mark.is_original() {
            // The handler has closed it; the number may be somebody else's by now.
            let _ = fd.into_raw_fd();
            return;
        }
        empty(&mut fd);
        let mut lines = lock();
        if let Some(list) = lines.as_mut() {
            list.remove(&fd.as_raw_fd());
        }
        drop(fd);
    }
}

/// Lets go of what a descriptor leads to, and keeps its number.
///
/// The last close of a file may take as long as whoever sent it likes (a TCP socket that lingers, a file
/// system in user space), also if it lies unread in the queue of a socket that is closed. All other ports
/// and every fork would wait for it, if that came while the list is locked. A fork meanwhile is no harm:
/// the number stays listed, and stays ours.
fn empty(fd: &mut OwnedFd) {
    // Without another descriptor, or below a lowered limit, the close itself does it.
    let _ = nothing().and_then(|nothing| dup3(nothing, fd, DupFlags::CLOEXEC));
}

/// A descriptor that leads nowhere.
fn nothing() -> rustix::io::Result<&'static OwnedFd> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    match NOTHING.get() {
        Some(nothing) => Ok(nothing),
        None => eventfd(0, EventfdFlags::CLOEXEC).map(|made| NOTHING.get_or_init(|| made)),
    }
}

fn lock() -> HeldLines {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn page() -> io::Result<&'static Page> {
    if let Some(page) = PAGE.get() {
        return Ok(page);
    }
    let page = Page::new()?;
    // Made now, while there are descriptors. If there is none it is asked for again.
    let _ = nothing();
    // SAFETY: F2: the three handlers are plain functions that live as long as the program.
    let status = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status));
    }
    // If two threads come here at once, one page is never used and the handlers run twice, which
    // they bear.
    Ok(PAGE.get_or_init(|| page))
}

extern "C" fn prepare() {
    // Nothing is held yet, unless the handlers were installed twice.
    let held = take_held().unwrap_or_else(lock);
    HELD.set(ManuallyDrop::new(Some(held)));
}

extern "C" fn parent() {
    drop(take_held());
}

fn take_held() -> Option<HeldLines> {
    ManuallyDrop::into_inner(HELD.replace(ManuallyDrop::new(None)))
}

extern "C" fn child() {
    let Some(mut lines) = take_held() else { return };
    crate::barrier::after_fork();
    let kept = KEPT.get();
    for fd in lines.take().into_iter().flatten().filter(|fd| *fd != kept) {
        // SAFETY: F3: the list holds descriptors that were open when the fork began; their owners
        // in this process are copies that will not close them again (`Drop` above).
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}
