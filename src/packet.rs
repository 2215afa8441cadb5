//! One packet on a `SOCK_SEQPACKET` socket, with descriptors (`SCM_RIGHTS`, `unix(7)`).
//!
//! The kernel leaves out the descriptors that a process may not have (`RLIMIT_NOFILE`), and says so
//! (`MSG_CTRUNC`) when it is too late. So a packet with descriptors is first peeked, which copies them,
//! and consumed, without them, only when all are here: what failed can be tried again.
//!
//! `ECONNRESET` says, once, that the other end went away with packets of ours unread, *before* what is
//! still queued for us: read on. Who sends instead, is told so first, and that nobody is there next.
//!
//! Whoever shares a socket with us, or had it before, may have set options of it that make the kernel put
//! more beside a packet: credentials, times, labels, even a pidfd, which is a descriptor too. So all that
//! comes is looked through here, and what was not asked for is closed.
//!
//! # Invariants
//!
//! * **K1** A message header begins as zeros, which point to nothing; what it points to later is as long
//!   as it says, and outlives the call.
//! * **K2** The numbers in control messages from the kernel are fresh descriptors, each named once.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

use crate::fork::ForkSafeFd;

/// Descriptors that the kernel takes in one packet (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// Room for the descriptors that are sent with a packet.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Words for all that may come beside the bytes, with room for what was not asked for.
const CONTROL_WORDS: usize = 256;

/// A control message with a pidfd (`SO_PASSPIDFD`, Linux 6.5).
const SCM_PIDFD: i32 = 4;

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

/// How many bytes lie there in all packets together. Cheaper than a [`look`].
pub(crate) fn bytes_ahead(socket: BorrowedFd<'_>) -> u64 {
    // Fails only for what is no socket.
    ioctl_fionread(socket).unwrap_or(0)
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

/// Takes the packet at the head, whole or not at all. As [`look_into`].
pub(crate) fn take(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<ForkSafeFd>), Errno> {
    let taken = look_into(socket, bytes)?;
    skip(socket)?;
    Ok(taken)
}

/// The packet at the head, with copies of its descriptors; it stays there. Never blocks. Gives its length
/// and descriptors; `MSGSIZE`: it is longer than `bytes`; `MFILE`: this process may not have all the
/// descriptors.
pub(crate) fn look_into(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<ForkSafeFd>), Errno> {
    let taken = ForkSafeFd::make_all(|| {
        let peeked = receive(socket, bytes)?;
        Ok((peeked.whole(), peeked.fds))
    });
    // What has to be closed is closed only here, where nobody waits for it.
    let (len, fds) = taken.map_err(errno)?;
    Ok((len?, fds))
}

/// As [`look_into`], for descriptors that a forked child may have.
pub(crate) fn peek(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let peeked = receive(socket, bytes)?;
    Ok((peeked.whole()?, peeked.fds))
}

/// What was seen at the head of a socket.
struct Peeked {
    len: usize,
    flags: i32,
    fds: Vec<OwnedFd>,
}

impl Peeked {
    /// The length, unless something is missing.
    fn whole(&self) -> Result<usize, Errno> {
        match self.flags {
            flags if flags & libc::MSG_CTRUNC != 0 => Err(Errno::MFILE),
            flags if flags & libc::MSG_TRUNC != 0 => Err(Errno::MSGSIZE),
            _ => Ok(self.len),
        }
    }
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Peeked, Errno> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    loop {
        // SAFETY: K1: numbers and pointers, for which zero is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: K1: it points to `bytes` and `control`, which are borrowed mutably here.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        let Ok(len) = usize::try_from(received) else {
            match errno(io::Error::last_os_error()) {
                Errno::INTR | Errno::CONNRESET => continue,
                error => return Err(error),
            }
        };
        let control: &[u8] = bytemuck::cast_slice(&control);
        let control = control.get(..header.msg_controllen as usize).unwrap_or_default();
        return Ok(Peeked { len, flags: header.msg_flags, fds: descriptors(control) });
    }
}

/// The descriptors among the control messages that the kernel has just written, `cmsg(3)`; those that
/// nobody has sent are closed.
fn descriptors(mut control: &[u8]) -> Vec<OwnedFd> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut sent = Vec::new();
    while let Some((header, rest)) = control.split_at_checked(HEADER) {
        // On 64-bit Linux: the length with the header, the level, the type.
        let [len, what] = bytemuck::pod_read_unaligned::<[u64; 2]>(header);
        let (level, kind) = (what as i32, (what >> 32) as i32);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(data) = len.checked_sub(HEADER).and_then(|len| rest.get(..len)) else { break };
        if level == libc::SOL_SOCKET && [libc::SCM_RIGHTS, SCM_PIDFD].contains(&kind) {
            let fds = data.chunks_exact(size_of::<i32>()).map(|number| {
                let number = bytemuck::pod_read_unaligned(number);
                // SAFETY: K2: the kernel has made it for us.
                unsafe { OwnedFd::from_raw_fd(number) }
            });
            if kind == libc::SCM_RIGHTS { sent.extend(fds) } else { fds.for_each(drop) }
        }
        control = control.get(len.next_multiple_of(size_of::<u64>())..).unwrap_or_default();
    }
    sent
}

/// What the operating system said; want of memory where it was not asked.
pub(crate) fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)
}
