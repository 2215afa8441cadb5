//! One packet on a `SOCK_SEQPACKET` socket, with descriptors (`SCM_RIGHTS`, `unix(7)`).
//!
//! The kernel leaves out the descriptors that a process may not have (`RLIMIT_NOFILE`), and says so
//! (`MSG_CTRUNC`) when it is too late. So a packet with descriptors is first peeked, which copies them,
//! and consumed, without them, only when all are here: what failed can be tried again.
//!
//! `ECONNRESET` says, once, that the other end went away with packets of ours unread, *before* what is
//! still queued for us: read on. Who sends instead, is told so first, and that nobody is there next.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg,
    sendmsg, socketpair,
};

use crate::fork::ForkSafeFd;

/// Descriptors that the kernel takes in one packet (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// Room for what comes beside the bytes: descriptors, and credentials if a former holder has asked the
/// socket for them.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1));

/// A fresh socket pair, for a line or a lane.
pub(crate) fn pair() -> io::Result<[ForkSafeFd; 2]> {
    ForkSafeFd::make(|| {
        let (first, second) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok([first, second])
    })
}

/// Sends a packet; never blocks, never raises `SIGPIPE`. At most [`MAX_FDS`] descriptors.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            sent => return sent.map(drop),
        }
    }
}

/// What lies at the head of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// A packet of so many bytes; 0 is also the end of the stream.
    Packet(usize),
    /// Nothing yet.
    Nothing,
}

/// Looks at the head of a socket, without taking anything; waits for it unless told otherwise.
pub(crate) fn look(socket: BorrowedFd<'_>, wait: bool) -> Result<Ahead, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let flags = if wait { flags } else { flags | RecvFlags::DONTWAIT };
    loop {
        match recv(socket, &mut [0; 1], flags) {
            Ok((_, len)) => return Ok(Ahead::Packet(len)),
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => return Ok(Ahead::Nothing),
            Err(error) => return Err(error),
        }
    }
}

/// Drops the packet at the head, with its descriptors. Never blocks.
pub(crate) fn skip(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match recv(socket, &mut [0; 1], RecvFlags::DONTWAIT) {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            taken => return taken.map(drop),
        }
    }
}

/// Takes the packet at the head, whole or not at all. Never blocks. Gives its length and descriptors;
/// `MSGSIZE`: it is longer than `bytes`; `MFILE`: this process may not have all the descriptors.
pub(crate) fn take(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<ForkSafeFd>), Errno> {
    let taken = ForkSafeFd::make_all(|| Ok(peek(socket, bytes)?));
    let taken = taken.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
    skip(socket)?;
    Ok(taken)
}

/// The packet at the head, with copies of its descriptors; it stays there. As [`take`].
pub(crate) fn peek(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    loop {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            received => received?,
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(Errno::MSGSIZE);
        }
        return Ok((received.bytes, fds));
    }
}
