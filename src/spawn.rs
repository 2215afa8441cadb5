//! First contact with a child: `spawn` in the parent, `parent_port` in the child.
//!
//! The child inherits one end of the line, under the number that an environment variable names. The
//! first packet on it is the [welcome](crate::welcome).
//!
//! # Invariants
//!
//! * **P1** From before the fork until the `exec`, the inherited number is the child's end of the line:
//!   the parent holds it meanwhile, and the at-fork handler ([`crate::fork`]) leaves this one open.
//! * **P2** Between fork and `exec` runs only what a signal handler may run: one system call.
//! * **P3** Whoever takes the inherited line is its only owner: the number is a socket with the inode
//!   that the parent named, nobody has made it close-on-exec yet, and taking it does, one at a time.
//! * **P4** A number that may be anybody's is asked about, and neither changed nor closed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{SocketType, sockopt};

use crate::error::{AttachError, PARENT_VARIABLE, ParentPortError, SpawnError};
use crate::fork::ForkSafeFd;
use crate::line::Line;
use crate::port::{ChannelOptions, MessagePort, Parts};
use crate::welcome::{self, Found};

/// The lowest number that no standard stream uses.
const FIRST_FREE_FD: RawFd = 3;

/// Starts a child process with a port.
///
/// The child gets the other port from [`parent_port`]; what is posted before it asks waits for it.
/// Everything else about the child is as the command says and as [`std::process`] does it: arguments,
/// environment, standard streams, exit status. The command is consumed because it now carries the
/// port.
///
/// The child's end is `Lost` if it ends without having asked for its port, and `PeerDied` if it ends
/// after that without closing it.
///
/// ```no_run
/// use std::process::Command;
///
/// let (port, mut child) = zeroport::spawn(Command::new("./worker"))?;
/// port.post_bytes(b"work")?;
/// let status = child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`SpawnError::Open`] if the channel cannot be made, [`SpawnError::Start`] if the program cannot be
/// started.
pub fn spawn(command: Command) -> Result<(MessagePort, Child), SpawnError> {
    spawn_with(ChannelOptions::new(), command)
}

pub(crate) fn spawn_with(
    options: ChannelOptions,
    command: Command,
) -> Result<(MessagePort, Child), SpawnError> {
    let parts = options.make()?;
    let program = command.get_program().to_string_lossy().into_owned();
    start(options, parts, command).map_err(|source| SpawnError::Start { program, source })
}

fn start(
    options: ChannelOptions,
    parts: Parts,
    mut command: Command,
) -> io::Result<(MessagePort, Child)> {
    let [ours, theirs] = parts.lines;
    let theirs = above_standard_streams(theirs)?;
    let port = welcome::offer((parts.segment, parts.epoch), Line::hold(ours), options.for_child())?;

    let inherited = theirs.as_fd()?;
    let number = inherited.as_raw_fd();
    let inode = rustix::fs::fstat(inherited)?.st_ino;
    command.env(PARENT_VARIABLE, format!("{number}:{inode}"));
    let keep = move || {
        // SAFETY: P1: runs in the forked child, where the at-fork handler has left this line open.
        let line = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(fcntl_setfd(line, FdFlags::empty())?)
    };
    // SAFETY: P2: the closure makes one system call and neither allocates nor locks.
    unsafe { command.pre_exec(keep) };
    let child = theirs.keep_while(|| command.spawn())?;
    Ok((port, child))
}

/// Moves a descriptor out of the way of the child's standard streams.
fn above_standard_streams(fd: ForkSafeFd) -> io::Result<ForkSafeFd> {
    if fd.as_fd()?.as_raw_fd() >= FIRST_FREE_FD {
        return Ok(fd);
    }
    let [moved] =
        ForkSafeFd::make(|| Ok([rustix::io::fcntl_dupfd_cloexec(fd.as_fd()?, FIRST_FREE_FD)?]))?;
    Ok(moved)
}

/// The port to the process that started this one with [`spawn`]. It can be taken once.
///
/// What this process inherits stays open in programs that it starts itself before it has called this;
/// so call it early. A program in between that does not call it (`sh -c`, without `exec`) keeps a
/// copy of the line, and the parent learns of this process's death only when that one has ended too.
/// Of several processes that have inherited one port, the first that calls gets it.
///
/// ```no_run
/// let port = zeroport::parent_port()?;
/// while let Ok(message) = port.recv() {
///     port.post_bytes(message.bytes())?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParentPortError::NoParent`] if the process was not started by `spawn`, [`ParentPortError::Gone`]
/// if the port was taken before, [`ParentPortError::Attach`] if the parent speaks another version or
/// this process has no descriptor or memory left. After that last one ([`AttachError::Os`]) the port
/// can be asked for again.
pub fn parent_port() -> Result<MessagePort, ParentPortError> {
    static TAKING: Mutex<()> = Mutex::new(());
    let value = std::env::var(PARENT_VARIABLE).map_err(|_| ParentPortError::NoParent)?;
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = || ParentPortError::Gone { value: value.clone() };
    let number = inherited_line(&value).ok_or_else(gone)?;
    Ok(take_parent_port(number)?)
}

fn take_parent_port(number: RawFd) -> Result<MessagePort, AttachError> {
    // SAFETY: P3: nobody takes the line meanwhile, so it stays open.
    let found = welcome::look(unsafe { BorrowedFd::borrow_raw(number) });
    if let Err(error @ AttachError::Os(_)) = found {
        // The line stays what it was, for another try.
        return Err(error);
    }
    let take = || {
        // SAFETY: P3: the number is that of the line which the parent meant for us, and was not taken
        // before (see `inherited_line`), so nobody else owns it.
        let line = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl_setfd(&line, FdFlags::CLOEXEC)?;
        Ok([line])
    };
    let [line] = ForkSafeFd::make(take).map_err(AttachError::Os)?;
    match found? {
        Found::Offer(offer) => offer.take(line, ChannelOptions::new()),
        // The welcome was taken already, by another process that inherited the line too. What lies
        // there now, if anything, is a bell for that one.
        Found::Bell | Found::Nothing | Found::HangUp => Err(AttachError::Detached),
    }
}

/// The number of the inherited line, if `value` (`number:inode`) names it and it was not taken yet:
/// whoever takes it makes it close-on-exec.
fn inherited_line(value: &str) -> Option<RawFd> {
    let (number, inode) = value.split_once(':')?;
    let (number, inode) = (number.parse().ok()?, inode.parse::<u64>().ok()?);
    if number < FIRST_FREE_FD {
        return None;
    }
    // SAFETY: P4: borrowed for three questions that change nothing, whatever the number is.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let untaken = fcntl_getfd(fd).ok()?.is_empty();
    let is_line = sockopt::socket_type(fd).ok()? == SocketType::SEQPACKET;
    let is_meant = rustix::fs::fstat(fd).ok()?.st_ino == inode;
    (untaken && is_line && is_meant).then_some(number)
}
