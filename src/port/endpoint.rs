//! What the two halves of a port and its closers share: the segment, the epoch, and the ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::barrier;
use crate::epoch::{self, Epoch, State};
use crate::error::CloseReason;
use crate::fork::Mark;
use crate::layout::{Side, SideWords};
use crate::segment::Segment;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

use super::Trust;

/// How long a store may stay unseen where no barrier can be had.
pub(super) const UNFENCED_DELAY: Duration = Duration::from_millis(1);

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const VIOLATED: u32 = 2;

/// One of the two halves of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Sender,
    Receiver,
}

impl Half {
    const fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    const fn of<T>(self, pair: &[T; 2]) -> &T {
        let [sender, receiver] = pair;
        match self {
            Self::Sender => sender,
            Self::Receiver => receiver,
        }
    }
}

/// One end of a channel, held by this process. The last one to let go closes it.
#[derive(Debug)]
pub(super) struct Endpoint {
    segment: Arc<Segment>,
    side: Side,
    epoch: Epoch,
    mark: Mark,
    trust: Trust,
    /// Whether this end was closed, and why: `OPEN`, `CLOSED` or `VIOLATED`.
    end: AtomicU32,
    /// Whether the line was seen to hang up.
    hung_up: AtomicBool,
    /// Which halves sleep on the line, and the bells between them once they were split (`None`: the
    /// process had no descriptors for them).
    asleep: [AtomicBool; 2],
    kicks: OnceLock<Option<[OwnedFd; 2]>>,
}

impl Endpoint {
    pub(super) fn new(
        segment: Arc<Segment>,
        side: Side,
        epoch: Epoch,
        mark: Mark,
        trust: Trust,
    ) -> Self {
        Self {
            segment,
            side,
            epoch,
            mark,
            trust,
            end: AtomicU32::new(OPEN),
            hung_up: AtomicBool::new(false),
            asleep: Default::default(),
            kicks: OnceLock::new(),
        }
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn trust(&self) -> Trust {
        self.trust
    }

    /// The words that this side owns.
    #[inline]
    pub(super) fn own(&self) -> &SideWords {
        self.side.of(&self.segment.header().sides)
    }

    /// The words that the other side owns.
    #[inline]
    pub(super) fn peer(&self) -> &SideWords {
        self.side.other().of(&self.segment.header().sides)
    }

    /// False for the copy that a fork makes.
    #[inline]
    pub(super) fn is_original(&self) -> bool {
        self.mark.is_original()
    }

    /// Why this end was closed, if it was.
    #[inline]
    pub(super) fn own_end(&self) -> Option<CloseReason> {
        // Relaxed: says only that no more is to be done; whoever waits is woken through the line.
        match self.end.load(Ordering::Relaxed) {
            OPEN => None,
            VIOLATED => Some(CloseReason::Violated),
            _ => Some(CloseReason::Closed),
        }
    }

    /// Why the other end is gone, if it is.
    #[inline]
    pub(super) fn peer_end(&self) -> Option<CloseReason> {
        // HANGUP: Acquire pairs with the Release in `note_hang_up`, so that the epoch is read after
        // the hang-up: a side that closes writes its epoch first.
        let hung_up = self.hung_up.load(Ordering::Acquire);
        match epoch::look(&self.peer().epoch) {
            State::Open if hung_up => Some(CloseReason::PeerDied),
            State::InTransit if hung_up => Some(CloseReason::Lost),
            State::Open | State::InTransit => None,
            State::Closed => Some(CloseReason::Closed),
            State::Broken => Some(CloseReason::Violated),
        }
    }

    pub(super) fn note_hang_up(&self) {
        // HANGUP: pairs with the Acquire in `peer_end`.
        self.hung_up.store(true, Ordering::Release);
    }

    /// Closes this end while others may be posting on it: afterwards no post reports success.
    pub(super) fn close(&self, violated: bool) {
        let end = if violated { VIOLATED } else { CLOSED };
        // Relaxed: the barrier orders it before the epoch. A poster publishes, then looks here; with
        // the barrier between our two stores, either it sees this and does not report success, or
        // what it published is there before the epoch says closed.
        let first = self.end.compare_exchange(OPEN, end, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err() || !self.is_original() {
            return;
        }
        // Posters that are not registered fence by themselves; the fence is our half of that.
        crate::sync::fence(Ordering::SeqCst);
        if barrier::is_demandable() && !barrier::demand() {
            std::thread::sleep(UNFENCED_DELAY);
        }
        epoch::close(&self.own().epoch, self.epoch);
    }

    /// Makes the bells between the halves.
    pub(super) fn split(&self) {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let kicks = || Ok::<_, rustix::io::Errno>([eventfd(0, flags)?, eventfd(0, flags)?]);
        self.kicks.get_or_init(|| kicks().ok());
    }

    /// Whether a bell for one half may be taken by the other without any way to tell.
    pub(super) fn is_deaf(&self) -> bool {
        matches!(self.kicks.get(), Some(None))
    }

    /// What wakes this half beside the line.
    pub(super) fn kick_of(&self, half: Half) -> Option<BorrowedFd<'_>> {
        self.kicks.get()?.as_ref().map(|kicks| half.of(kicks).as_fd())
    }

    /// Says that this half sleeps on the line (before it arms), or no longer does.
    pub(super) fn set_asleep(&self, half: Half, asleep: bool) {
        // KICK: Release pairs with the Acquire in `pass_on`. A bell for this half can only be rung
        // after it armed, which comes after this store; who takes that bell sees the store.
        half.of(&self.asleep).store(asleep, Ordering::Release);
    }

    /// Called by the half that took a bell off the line: it may have been meant for the other.
    pub(super) fn pass_on(&self, half: Half) {
        let other = half.other();
        // KICK: pairs with the Release in `set_asleep`.
        if half.other().of(&self.asleep).load(Ordering::Acquire)
            && let Some(kick) = self.kick_of(other)
        {
            // Fails only when the counter is full: then it is readable anyway.
            let _ = rustix::io::write(kick, &1u64.to_ne_bytes());
        }
    }

    /// Takes the kicks that were meant for this half.
    pub(super) fn clear_kick(&self, half: Half) {
        if let Some(kick) = self.kick_of(half) {
            // Fails only when there is none.
            let _ = rustix::io::read(kick, &mut [0; 8]);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.is_original() {
            epoch::close(&self.own().epoch, self.epoch);
        }
    }
}
