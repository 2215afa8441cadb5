//! Waiting in a loop that is not ours: a half announces sleep, and a descriptor tells when to look again.
//!
//! The steps are those of any sleep ([`crate::sleep`]); only the sleep itself is somebody else's. What was
//! said meanwhile is heard when the half is next armed, which is when the other side is at work.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::error::PostError;
use crate::line::{BLOCKED_WAIT, Heard, Line};

use super::MessagePort;
use super::endpoint::UNFENCED_DELAY;
use super::hold::Hold;
use super::post::Sender;
use super::receive::Receiver;
use super::wait::{Place, is_past};

/// What tells a loop of another kind that a half may have something to do.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Readable when the line, the other half, or the clock has something to say. Made at the first need.
    epoll: OnceCell<Arc<OwnedFd>>,
    /// Rings when memory that only a busy channel needs is to go. Made at the first need.
    clock: OnceCell<OwnedFd>,
    is_clock_set: Cell<bool>,
    /// Whether sleep was announced.
    is_armed: Cell<bool>,
}

impl Watch {
    /// Forgets a line that has ended. (The kernel does so by itself only when its last copy is closed.)
    pub(super) fn forget(&self, line: &Line) {
        if let (Some(epoll), Ok(fd)) = (self.epoll.get(), line.as_fd()) {
            // Fails only if it was forgotten before.
            let _ = epoll::delete(epoll, fd);
        }
    }

    /// Has the clock ring then, or not at all. One that cannot be had only keeps memory longer.
    fn set_clock(&self, rings_at: Option<Instant>) {
        if rings_at.is_none() && !self.is_clock_set.get() {
            return;
        }
        let Some(clock) = self.clock() else { return };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = rings_at.map_or(never, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Nothing at all would stop the clock.
            let tv_nsec = i64::from(left.subsec_nanos()).max(1);
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec }
        });
        let times = Itimerspec { it_interval: never, it_value };
        let is_set = timerfd_settime(clock, TimerfdTimerFlags::empty(), &times).is_ok();
        self.is_clock_set.set(is_set && rings_at.is_some());
    }

    fn clock(&self) -> Option<&OwnedFd> {
        if self.clock.get().is_none() {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let clock = timerfd_create(TimerfdClockId::Monotonic, flags).ok()?;
            epoll::add(self.epoll.get()?, &clock, ANY, epoll::EventFlags::IN).ok()?;
            self.clock.get_or_init(|| clock);
        }
        self.clock.get()
    }
}

/// Which of what is watched has something to say, nobody asks.
const ANY: epoll::EventData = epoll::EventData::new_u64(0);

impl Hold {
    pub(super) fn pollable(&self) -> io::Result<&Arc<OwnedFd>> {
        if let Some(epoll) = self.watch.epoll.get() {
            return Ok(epoll);
        }
        let epoll = self.make_epoll()?;
        Ok(self.watch.epoll.get_or_init(|| Arc::new(epoll)))
    }

    fn make_epoll(&self) -> io::Result<OwnedFd> {
        if !self.endpoint.is_original() {
            return Err(Errno::BADF.into());
        }
        let line = self.line().ok_or(Errno::NOTCONN)?;
        self.endpoint.split_surely()?;
        let kick = self.endpoint.kick_of(self.waits.half()).ok_or(Errno::MFILE)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (says_something, ends) = (epoll::EventFlags::IN, epoll::EventFlags::RDHUP);
        epoll::add(&epoll, line.as_fd()?, ANY, says_something | ends)?;
        epoll::add(&epoll, kick, ANY, says_something)?;
        Ok(epoll)
    }

    /// Announces sleep, after which `look` looks once more. False, and no sleep is announced, if that finds
    /// something, or if there is nothing to wait for. What was said before is taken into account, whoever has heard it.
    fn arm(&self, look: impl FnOnce() -> bool) -> io::Result<bool> {
        let Some(line) = self.line().filter(|_| self.endpoint.is_original()) else {
            return Ok(false);
        };
        self.pollable()?;
        if self.watch.is_armed.replace(false) {
            self.rouse(&line);
        } else if line.is_hung_up() {
            self.endpoint.note_hang_up();
        }
        if !self.waits.stop_streaming(self.place(&line)) {
            // Longer than what this side has stored, or the other, may stay unseen.
            std::thread::sleep(UNFENCED_DELAY);
        }
        let is_armed = self.waits.try_lie_down(self.place(&line), look);
        self.watch.is_armed.set(is_armed);
        if is_armed {
            self.waits.count_sleep();
        }
        Ok(is_armed)
    }

    /// Takes what was said since it was armed: one packet, as each sleep has one bell. Where more lies there, the
    /// descriptor says so again, but not to a loop that asks only for what is new (`EPOLLET`: tokio). To such a one a
    /// bell that stays there does not matter, as the half looks now; of the end it hears for the last time.
    fn rouse(&self, line: &Line) {
        let heard = line.hear();
        self.endpoint.clear_kick_after(heard == Heard::Bell, self.waits.half());
        if heard == Heard::HungUp || line.is_hung_up() {
            self.endpoint.note_hang_up();
        } else if heard == Heard::Blocked {
            // The descriptor would say so again and again, until this process has one to spare.
            std::thread::sleep(BLOCKED_WAIT);
        }
        self.waits.get_up(self.place(line), heard == Heard::Bell);
    }

    /// Takes the announcement back.
    pub(super) fn disarm(&self) {
        if self.watch.is_armed.replace(false)
            && self.endpoint.is_original()
            && let Some(line) = self.line()
        {
            self.waits.get_up(self.place(&line), false);
        }
    }

    fn place<'a>(&'a self, line: &'a Line) -> Place<'a> {
        Place { endpoint: &self.endpoint, line, word: self.word() }
    }
}

impl Receiver {
    /// The descriptor of this half. See [`MessagePort::pollable`].
    ///
    /// # Errors
    ///
    /// As [`MessagePort::pollable`].
    pub fn pollable(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.hold().pollable()?.as_fd())
    }

    /// Announces that this half waits, unless there is something. See [`MessagePort::arm`].
    ///
    /// # Errors
    ///
    /// As [`MessagePort::arm`].
    pub fn arm(&self) -> io::Result<bool> {
        if let Some(cools_at) = self.beyond().cools_at() {
            self.cool(is_past(Some(cools_at)));
        }
        self.give_back();
        self.waited_at.set(self.queue().first().position());
        let is_armed = self.hold().arm(|| self.has_next_or_end())?;
        self.hold().watch.set_clock(self.beyond().cools_at().filter(|_| is_armed));
        Ok(is_armed)
    }

    /// Takes the announcement back. See [`MessagePort::disarm`].
    pub fn disarm(&self) {
        self.hold().disarm();
    }
}

impl Sender {
    /// A descriptor that is readable when there may be room for what [`post_or_arm`](Self::post_or_arm) has found
    /// none for. Level-triggered; it may be readable for other reasons, too.
    ///
    /// # Errors
    ///
    /// As [`MessagePort::pollable`].
    pub fn pollable(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.hold().pollable()?.as_fd())
    }

    /// Posts, for loops of other kinds. `post` is one of the verbs that do not wait; it is called at most twice.
    /// Where it finds no room, this half announces that it waits, and then `post` tries once more. So when this
    /// says [`Full`](PostError::Full), the [descriptor](Self::pollable) will tell when to call again.
    ///
    /// A call that ends otherwise takes the announcement back, and so does [`disarm`](Self::disarm).
    ///
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use zeroport::{ChannelOptions, MessageChannel, PostError};
    ///
    /// let MessageChannel { port1, port2 } = ChannelOptions::new().limit(0).open()?;
    /// let (sender, _receiver) = port1.split();
    /// let post = || sender.post_or_arm(|sender| sender.try_post_bytes(&[0; 100]));
    /// while post().is_ok() {}
    /// assert!(matches!(post(), Err(PostError::Full { len: 100 })));
    ///
    /// assert!(port2.drain().count() > 100);
    /// poll(&mut [PollFd::new(&sender.pollable()?, PollFlags::IN)], None)?;
    /// post()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `post`, and [`PostError::Os`] where the descriptor cannot be made.
    pub fn post_or_arm<T>(
        &self,
        mut post: impl FnMut(&Self) -> Result<T, PostError>,
    ) -> Result<T, PostError> {
        let posted = post(self);
        if !is_full(&posted) {
            self.disarm();
            return posted;
        }
        let mut posted = None;
        let armed = self.hold().arm(|| !is_full(posted.insert(post(self))));
        armed.map_err(PostError::Os)?;
        // Where there is nothing to wait for, the post itself says why.
        posted.unwrap_or_else(|| post(self))
    }

    /// Takes back what [`post_or_arm`](Self::post_or_arm) has announced: for who does not wait any longer.
    pub fn disarm(&self) {
        self.hold().disarm();
    }
}

fn is_full<T>(posted: &Result<T, PostError>) -> bool {
    matches!(posted, Err(PostError::Full { .. }))
}

/// Waiting in loops of other kinds.
impl MessagePort {
    /// A descriptor that is readable when there may be a message, or the end: for `poll`, `epoll` and what is built
    /// on them. Level-triggered. It tells of what comes while the port is [armed](Self::arm); once the end of the
    /// channel was told, it says nothing more.
    ///
    /// It is the port's to close, and stays the same as long as the port is here. A port that has it takes three
    /// descriptors more, and another one while memory by which its queue has grown is to go.
    ///
    /// # Errors
    ///
    /// What the kernel says if it has no descriptors or memory left. `ENOTCONN` once the end of the channel was
    /// told, `EBADF` in the copy that a fork has made.
    pub fn pollable(&self) -> io::Result<BorrowedFd<'_>> {
        self.receiver.pollable()
    }

    /// Announces that this port waits for messages, for loops of other kinds: from then on its
    /// [descriptor](Self::pollable) is readable when there may be something. False if there is something already, a
    /// message or the end: then [`try_recv`](Self::try_recv) at once, and arm the port when that finds no more.
    ///
    /// Takes at most some milliseconds: one where the kernel refuses `membarrier(2)`, and one while the port holds
    /// something for which this process has no descriptor.
    ///
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use zeroport::MessageChannel;
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// assert!(port2.arm()?, "nothing there");
    /// port1.post_bytes(b"wake up")?;
    /// poll(&mut [PollFd::new(&port2.pollable()?, PollFlags::IN)], None)?;
    /// assert_eq!(port2.try_recv()?.bytes(), b"wake up");
    ///
    /// port1.post_bytes(b"at once")?;
    /// assert!(!port2.arm()?, "something there");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What [`pollable`](Self::pollable) says the first time.
    pub fn arm(&self) -> io::Result<bool> {
        self.receiver.arm()
    }

    /// Takes the announcement back: for who does not wait any longer. Else the other side rings once more, for
    /// nobody.
    pub fn disarm(&self) {
        self.receiver.disarm();
    }
}
