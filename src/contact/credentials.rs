//! Who is at the other end of a connection, as the kernel has seen it.
//!
//! # Invariants
//!
//! * **C1** The kernel is told the true size of the place that it may write to, and what it writes is
//!   taken as integers, for which every bit pattern is good. (A process number may be zero, which the
//!   types of most wrappers forbid.)
//! * **C2** A descriptor that the kernel has just made for this process has no other owner.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use bytemuck::{Pod, Zeroable};

/// Who is at the other end of a connection: vouched for by the kernel, not by the other side.
///
/// They are those of the moment at which the other process connected (a caller's) or began to listen
/// (a server's); what it passed on to others since then, the kernel does not tell.
///
/// ```
/// use zeroport::{Address, Server};
///
/// let name = Address::abstract_name(format!("credentials-{}", std::process::id()));
/// let server = Server::bind(name.clone())?;
/// let client = std::thread::spawn(move || zeroport::connect(name));
/// let caller = server.accept()?;
/// let credentials = caller.credentials().try_clone()?; // outlives the caller
/// caller.refuse();
/// assert_eq!(credentials.pid, Some(std::process::id()));
/// assert!(client.join().unwrap().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug)]
pub struct Credentials {
    /// The effective user, as this process's user namespace names it (65534 if it has no name there).
    pub uid: u32,
    /// The effective group, likewise.
    pub gid: u32,
    /// The process, if this process's PID namespace has a number for it. By the time that it is read
    /// the process may have ended and its number may be somebody else's: see `pidfd`.
    pub pid: Option<u32>,
    /// The process itself, whatever becomes of its number (`pidfd_open(2)`): it polls as readable once
    /// the process has ended. `None` before Linux 6.5, and if the process had ended and was waited
    /// for already.
    pub pidfd: Option<OwnedFd>,
}

/// What `SO_PEERCRED` answers.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PeerCredentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

impl Credentials {
    /// A copy, to keep beside the port that the caller gets: a pidfd takes a descriptor more.
    ///
    /// # Errors
    ///
    /// What the kernel says if the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let pidfd = self.pidfd.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(Self { pidfd, ..*self })
    }

    pub(super) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let PeerCredentials { pid, uid, gid } = ask(socket, libc::SO_PEERCRED)?;
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0);
        Ok(Self { uid, gid, pid, pidfd: pidfd_of_peer(socket)? })
    }
}

/// `None` if the kernel has none to give; an error if this process cannot take it.
fn pidfd_of_peer(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let number: RawFd = match ask(socket, libc::SO_PEERPIDFD) {
        Ok(number) => number,
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => return Err(error),
            _ => return Ok(None),
        },
    };
    // SAFETY: C2: the kernel has made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Asks about a socket something that is answered in integers.
fn ask<T: Pod>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut answer = T::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    let place = (&raw mut answer).cast();
    // SAFETY: C1: `place` is `answer`, of `len` bytes, which is plain data.
    let status = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut len)
    };
    match status {
        0 if len as usize == size_of::<T>() => Ok(answer),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
