//! The line: a `SOCK_SEQPACKET` socket pair, one end with each port. Door-bell and proof of life.
//!
//! * A bell is one packet of one byte. It carries no state; `EAGAIN` on it means that enough bells lie
//!   there already.
//! * The kernel hangs the line up when the last copy of the other end is closed, so also when its
//!   holder dies. `shutdown` says the same while copies still exist.
//! * `ECONNRESET` says that the other end went away with bells unread, *before* what is still queued
//!   for us: read on until the end.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};

use crate::fork::{ForkSafeFd, Mark};

/// Tries of a bell that the kernel has no memory for.
const BELL_TRIES: u32 = 8;

/// More bells than a socket buffer holds.
const MAX_BELLS: u32 = 1024;

/// One end of a line. Dropping it hangs up, also where copies of it exist.
#[derive(Debug)]
pub(crate) struct Line {
    fd: ForkSafeFd,
}

/// What became of a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// It lies there, or enough others do.
    Yes,
    /// Nobody is there to hear it.
    HungUp,
    /// The kernel has no room for it now.
    No,
}

/// What a wait on the line ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A bell, which was taken off the line.
    Bell,
    /// The other half of this port kicked us, the time is up, or somebody else took the bell.
    Nothing,
    /// The other end is gone.
    HungUp,
}

impl Line {
    /// A fresh line: both ends, of which one will usually be given away.
    pub(crate) fn pair() -> io::Result<[ForkSafeFd; 2]> {
        ForkSafeFd::make(|| {
            let (first, second) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            Ok([first, second])
        })
    }

    /// Holds an end of a line from now on.
    pub(crate) fn hold(fd: ForkSafeFd) -> Self {
        Self { fd }
    }

    pub(crate) fn mark(&self) -> Mark {
        self.fd.mark()
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    /// Rings at the other end. Never blocks, never raises `SIGPIPE`.
    #[cold]
    pub(crate) fn ring(&self) -> Rung {
        let Ok(fd) = self.as_fd() else { return Rung::HungUp };
        for _ in 0..BELL_TRIES {
            match send(fd, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) | Err(Errno::AGAIN) => return Rung::Yes,
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::NOBUFS | Errno::NOMEM) => std::thread::yield_now(),
                Err(_) => return Rung::HungUp,
            }
        }
        Rung::No
    }

    /// Sleeps until a bell, a hang-up, a kick of the other half, or the deadline.
    pub(crate) fn wait(&self, kick: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Heard {
        if kick.is_none() && deadline.is_none() {
            // One blocking call does for both halves of poll-and-read.
            return self.receive(RecvFlags::empty());
        }
        self.poll(kick, deadline);
        self.receive(RecvFlags::DONTWAIT)
    }

    /// Takes the bells that lie on the line. One for each sleep is the rule; a hostile side that rings
    /// without end keeps nobody here.
    pub(crate) fn clear(&self) -> Heard {
        for _ in 0..MAX_BELLS {
            match self.receive(RecvFlags::DONTWAIT) {
                Heard::Bell => {}
                heard => return heard,
            }
        }
        Heard::Nothing
    }

    /// Whether the other end is gone, by one system call that takes nothing.
    pub(crate) fn is_hung_up(&self) -> bool {
        let Ok(fd) = self.as_fd() else { return true };
        let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [fd] = fds;
        polled.is_ok() && fd.revents().intersects(PollFlags::HUP | PollFlags::RDHUP)
    }

    /// Ends the line for both sides and wakes whoever waits on it.
    pub(crate) fn hang_up(&self) {
        if let Ok(fd) = self.as_fd() {
            // The only failure is that it was hung up before.
            let _ = shutdown(fd, Shutdown::Both);
        }
    }

    fn receive(&self, flags: RecvFlags) -> Heard {
        let Ok(fd) = self.as_fd() else { return Heard::HungUp };
        loop {
            let mut bell = [0; 1];
            match recv(fd, &mut bell, flags) {
                Ok((0, _)) => return self.nothing_received(),
                Ok(_) => return Heard::Bell,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) if self.is_hung_up() => return Heard::HungUp,
                Err(Errno::CONNRESET) => {}
                // A former holder can make the socket non-blocking: then fall back on poll.
                Err(Errno::AGAIN) if !flags.contains(RecvFlags::DONTWAIT) => self.poll(None, None),
                Err(Errno::AGAIN) => return Heard::Nothing,
                Err(_) => return Heard::HungUp,
            }
        }
    }

    /// No bytes: the end of the line, or an empty packet, which only a hostile side sends.
    fn nothing_received(&self) -> Heard {
        if self.is_hung_up() { Heard::HungUp } else { Heard::Bell }
    }

    fn poll(&self, kick: Option<BorrowedFd<'_>>, deadline: Option<Instant>) {
        let Ok(fd) = self.as_fd() else { return };
        let mut fds = [
            PollFd::new(&fd, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(kick.unwrap_or(fd), PollFlags::IN),
        ];
        loop {
            let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.mark().is_original() {
            self.hang_up();
        }
    }
}

/// Rounded up to what the kernel can count, so that no wait ends early.
fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
