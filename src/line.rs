//! The line: a `SOCK_SEQPACKET` socket pair, one end with each port. Door-bell and proof of life.
//!
//! * A bell is one packet of one byte. It carries no state; `EAGAIN` on it means that enough bells lie
//!   there already.
//! * A lane's end comes as a packet of [`LANE_END`] with one descriptor. It must not be lost when this
//!   process has no descriptor for it: so whatever lies on the line is looked at before it is taken.
//! * The kernel hangs the line up when the last copy of the other end is closed, so also when its
//!   holder dies. `shutdown` says the same while copies still exist.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use crate::fork::{ForkSafeFd, Mark};
use crate::packet::{self, Ahead};
use crate::ticket::MAX_LANES;

/// Tries of a bell that the kernel has no memory for.
const BELL_TRIES: u32 = 8;

/// More bells than a socket buffer holds.
const MAX_BELLS: u32 = 1024;

/// The packet with which a lane's end comes.
const LANE_END: [u8; 8] = *b"zp-lane\0";

/// How long a wait lasts where the line is blocked by what cannot be taken.
pub(crate) const BLOCKED_WAIT: Duration = Duration::from_millis(1);

/// How many waits of that kind the other descriptors of who is dying take at most.
const HANG_UP_LOOKS: u32 = 100;

/// One end of a line. Dropping it hangs up, also where copies of it exist.
#[derive(Debug)]
pub(crate) struct Line {
    /// `None` once it was given away.
    fd: Option<ForkSafeFd>,
    mark: Mark,
    /// The ends of lanes that were found on the line, in their order. Locked while something is taken off
    /// it: what was looked at is what is taken, also where two halves share the line.
    lanes: Mutex<VecDeque<ForkSafeFd>>,
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
    /// A bell, which still lies there: to take it is another call, and can wait.
    Ringing,
    /// The other half of this port kicked us, the time is up, or somebody else took the bell.
    Nothing,
    /// A lane's end that cannot be taken: this process may not have another descriptor.
    Blocked,
    /// The other end is gone.
    HungUp,
}

impl Line {
    /// Holds an end of a line from now on.
    pub(crate) fn hold(fd: ForkSafeFd) -> Self {
        Self { mark: fd.mark(), fd: Some(fd), lanes: Mutex::default() }
    }

    /// Closes this copy without hanging up: somebody else has the line now.
    pub(crate) fn give_away(mut self) {
        self.fd = None;
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_ref().ok_or(Errno::BADF)?.as_fd()
    }

    /// Gives the other side the end of a lane. Never blocks; `AGAIN`: the line is full.
    pub(crate) fn send_lane(&self, end: BorrowedFd<'_>) -> Result<(), Errno> {
        let fd = self.as_fd().map_err(|_| Errno::BADF)?;
        packet::send(fd, &LANE_END, &[end])
    }

    /// The ends of lanes that were found on the line, in their order.
    pub(crate) fn take_lanes(&self) -> VecDeque<ForkSafeFd> {
        std::mem::take(&mut *self.found())
    }

    /// Keeps lanes as long as the line lasts.
    pub(crate) fn keep_lanes(&self, ends: impl IntoIterator<Item = ForkSafeFd>) {
        self.found().extend(ends);
    }

    fn found(&self) -> MutexGuard<'_, VecDeque<ForkSafeFd>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
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
            // One blocking call instead of poll.
            return match self.as_fd().map(|fd| packet::look(fd, true)) {
                Ok(Ok(Ahead::Packet(1))) => Heard::Ringing,
                Ok(Ok(Ahead::Packet(len))) => self.take(Some(len)),
                // A former holder can make the socket non-blocking: then fall back on poll.
                Ok(Ok(Ahead::Nothing)) => self.poll_and_take(None, None),
                Ok(Err(_)) | Err(_) => Heard::HungUp,
            };
        }
        self.poll_and_take(kick, deadline)
    }

    fn poll_and_take(&self, kick: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Heard {
        self.poll(PollFlags::IN | PollFlags::RDHUP, kick, deadline);
        self.take(None)
    }

    /// For a line that is [`Heard::Blocked`]: waits a millisecond for a kick or a hang-up.
    pub(crate) fn wait_blocked(&self, kick: Option<BorrowedFd<'_>>, deadline: Option<Instant>) {
        let soon = Instant::now() + BLOCKED_WAIT;
        let deadline = deadline.map_or(soon, |at| at.min(soon));
        self.poll(PollFlags::RDHUP, kick, Some(deadline));
    }

    /// Waits until there is room for what was refused with `AGAIN`; also ends when the line hangs up.
    pub(crate) fn wait_for_room(&self, deadline: Option<Instant>) {
        self.poll(PollFlags::OUT | PollFlags::RDHUP, None, deadline);
    }

    /// Whether the line hangs up, of which another sign was seen. The kernel closes the descriptors of a
    /// process that dies one by one, and those of a port in a queue that is dropped.
    pub(crate) fn hangs_up_soon(&self, deadline: Option<Instant>) -> bool {
        (0..HANG_UP_LOOKS).any(|_| {
            self.is_hung_up() || {
                self.wait_blocked(None, deadline);
                false
            }
        })
    }

    /// Takes what lies on the line. One bell for each sleep is the rule; a hostile side that rings
    /// without end keeps nobody here.
    pub(crate) fn clear(&self) -> Heard {
        if self.clear_bells() {
            return Heard::Nothing;
        }
        for _ in 0..MAX_BELLS {
            match self.take(None) {
                Heard::Bell => {}
                heard => return heard,
            }
        }
        Heard::Nothing
    }

    /// Takes what lies there if that is a few bells, which is the usual case: a system call for each is enough then.
    fn clear_bells(&self) -> bool {
        let Ok(fd) = self.as_fd() else { return false };
        let _lanes = self.found();
        let bells = bells_ahead(fd);
        (0..bells).all(|_| packet::skip(fd).is_ok()) && bells > 0
    }

    /// Takes one packet off the line, if there is one.
    pub(crate) fn hear(&self) -> Heard {
        self.take(None)
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

    /// Takes one packet off the line. `len`: what lies there, if that is known.
    fn take(&self, len: Option<usize>) -> Heard {
        let Ok(fd) = self.as_fd() else { return Heard::HungUp };
        let mut lanes = self.found();
        let ahead = match len {
            Some(len) => Ok(Ahead::Packet(len)),
            None if bells_ahead(fd) > 0 => Ok(Ahead::Packet(1)),
            None => packet::look(fd, false),
        };
        match ahead {
            Ok(Ahead::Nothing) => Heard::Nothing,
            // The end of the line, or an empty packet, which only a hostile side sends.
            Ok(Ahead::Packet(0)) if self.is_hung_up() => Heard::HungUp,
            Ok(Ahead::Packet(len)) if len == LANE_END.len() => take_lane_end(fd, &mut lanes),
            Ok(Ahead::Packet(_)) => match packet::skip(fd) {
                Err(Errno::AGAIN) => Heard::Nothing,
                _ => Heard::Bell,
            },
            Err(_) => Heard::HungUp,
        }
    }

    fn poll(&self, events: PollFlags, kick: Option<BorrowedFd<'_>>, deadline: Option<Instant>) {
        let Ok(fd) = self.as_fd() else { return };
        let mut fds = [
            PollFd::from_borrowed_fd(fd, events),
            PollFd::from_borrowed_fd(
                kick.unwrap_or(fd),
                if kick.is_some() { PollFlags::IN } else { events },
            ),
        ];
        // Whatever it says: whoever waits looks again.
        let _ = poll_until(&mut fds, deadline);
    }
}

/// How many bells lie on a line, if it is only bells, and not many: too little for a lane's end. (What comes
/// meanwhile comes behind them. Empty packets, which only a hostile side sends, are taken in their place.)
fn bells_ahead(line: BorrowedFd<'_>) -> u64 {
    let bytes = packet::bytes_ahead(line);
    if bytes < LANE_END.len() as u64 { bytes } else { 0 }
}

/// Takes the packet with a lane's end. What comes beyond the lanes that an honest side lets wait is
/// dropped.
fn take_lane_end(line: BorrowedFd<'_>, lanes: &mut VecDeque<ForkSafeFd>) -> Heard {
    match packet::take(line, &mut [0; LANE_END.len()]) {
        Ok((_, ends)) => {
            let room = MAX_LANES.saturating_sub(lanes.len());
            lanes.extend(ends.into_iter().take(room.min(1)));
            Heard::Bell
        }
        Err(Errno::AGAIN) => Heard::Nothing,
        Err(_) => Heard::Blocked,
    }
}

/// Waits for one of these, at most until the deadline; signals do not end it. Says how many are ready.
pub(crate) fn poll_until(
    fds: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> Result<usize, Errno> {
    loop {
        let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return polled,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.mark.is_original() {
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
