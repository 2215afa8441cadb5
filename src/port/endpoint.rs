//! What the two halves of a port and its closers share: the segment, the epoch, and the ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::barrier;
use crate::ends::{End, Ends};
use crate::epoch::{self, Epoch, State};
use crate::error::CloseReason;
use crate::fork::Mark;
use crate::halves::{Asleep, Half};
use crate::layout::{Side, SideWords};
use crate::line::Line;
use crate::segment::{Segment, Words};
use crate::spares;
use crate::sync::{AtomicBool, Ordering};
use crate::tenure::{Held, Tenure};

use super::Trust;
use super::parts::Trusts;
use super::set_handle::Bell;

/// How long a store may stay unseen where no barrier can be had.
pub(super) const UNFENCED_DELAY: Duration = Duration::from_millis(1);

/// One end of a channel, held by this process. The last half to let go closes it.
#[derive(Debug)]
pub(super) struct Endpoint {
    segment: Arc<Segment>,
    /// The words of this side and of the other.
    own: Words,
    peer: Words,
    side: Side,
    mark: Mark,
    trusts: Trusts,
    ends: Ends,
    asleep: Asleep,
    /// The bells between the halves once they were split (`None`: the process had no descriptors for
    /// them).
    kicks: OnceLock<Option<[OwnedFd; 2]>>,
    /// Which halves were kicked, as far as can be told without a system call.
    kicked: [AtomicBool; 2],
    /// Whose bell wakes the receiving half while it sleeps in a set, and its place there.
    listener: Mutex<Option<(Arc<Bell>, usize)>>,
    tenure: Tenure,
    /// To hang up, by who holds the tenure; the halves hold it.
    line: Weak<Line>,
}

impl Endpoint {
    pub(super) fn new(
        segment: Arc<Segment>,
        side: Side,
        epoch: Epoch,
        mark: Mark,
        trusts: Trusts,
        line: &Arc<Line>,
    ) -> Self {
        Self {
            own: Words::new(&segment, side),
            peer: Words::new(&segment, side.other()),
            segment,
            side,
            mark,
            trusts,
            ends: Ends::new(),
            asleep: Asleep::default(),
            kicks: OnceLock::new(),
            kicked: Default::default(),
            listener: Mutex::default(),
            tenure: Tenure::new(epoch),
            line: Arc::downgrade(line),
        }
    }

    /// Locks out closers. Never while code of the user runs, and never for long.
    pub(super) fn tenure(&self) -> Held<'_> {
        self.tenure.hold()
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn trusts(&self) -> Trusts {
        self.trusts
    }

    #[inline(always)]
    pub(super) fn trust(&self) -> Trust {
        self.trusts.port
    }

    /// Whether the other end may trust this one.
    pub(super) fn trust_of_channel(&self) -> Trust {
        self.trusts.channel
    }

    /// The words that this side owns.
    #[inline(always)]
    pub(super) fn own(&self) -> &SideWords {
        &self.own
    }

    /// The words that the other side owns.
    #[inline(always)]
    pub(super) fn peer(&self) -> &SideWords {
        &self.peer
    }

    #[cfg(feature = "async")]
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// False for the copy that a fork makes.
    #[inline(always)]
    pub(super) fn is_original(&self) -> bool {
        self.mark.is_original()
    }

    /// Why this end was closed, if it was.
    #[inline(always)]
    pub(super) fn own_end(&self) -> Option<CloseReason> {
        self.ends.own().map(reason)
    }

    /// Why the other end is gone, if it is.
    #[inline(always)]
    pub(super) fn peer_end(&self) -> Option<CloseReason> {
        self.ends.peer(&self.peer().epoch).map(reason)
    }

    /// Whether a message may be posted: this handle is no copy, and neither end is known to be gone.
    #[inline(always)]
    pub(super) fn may_post(&self) -> bool {
        self.is_original() && self.ends.are_open(&self.peer.epoch)
    }

    /// Whether a message may be received: this handle is no copy, and its end was not closed.
    #[inline(always)]
    pub(super) fn may_receive(&self) -> bool {
        self.is_original() && self.ends.is_own_open()
    }

    /// Whether this end was not closed.
    #[inline(always)]
    pub(super) fn is_own_open(&self) -> bool {
        self.ends.is_own_open()
    }

    /// Why the channel has ended, if it has.
    #[inline(always)]
    pub(super) fn end(&self) -> Option<CloseReason> {
        self.ends.either(&self.peer().epoch).map(reason)
    }

    /// Notes the end of the channel as it is reported; gives the reason that stays.
    pub(super) fn report(&self, reason: CloseReason) -> CloseReason {
        self.ends.report(match reason {
            CloseReason::Closed => End::Closed,
            CloseReason::PeerDied => End::Died,
            CloseReason::Lost => End::Lost,
            CloseReason::Violated => End::Violated,
        });
        self.own_end().unwrap_or(reason)
    }

    pub(super) fn note_hang_up(&self) {
        self.ends.note_hang_up();
    }

    /// Closes this end while others may be posting on it: afterwards no post reports success. Then hangs
    /// up, or it would look like a death.
    pub(super) fn close(&self, violated: bool) {
        if !self.is_original() {
            return;
        }
        let barrier = || {
            // Registered posters may heed `Streaming` for good, also where barriers are refused by now.
            if !barrier::demand() && barrier::is_registered() {
                std::thread::sleep(UNFENCED_DELAY);
            }
        };
        let hang_up = || {
            if let Some(line) = self.line.upgrade() {
                line.hang_up();
            }
            // A line that the other end has hung up says nothing more.
            self.call_listener();
        };
        self.tenure.close(&self.ends, &self.own().epoch, violated, barrier, hang_up);
    }

    /// Whether a closer has closed this end. (Its end may have been told for that reason.)
    pub(super) fn is_closed_here(&self) -> bool {
        // A closer that has begun holds the lock until the epoch says so.
        let _held = self.tenure();
        epoch::look(&self.own().epoch) == State::Closed
    }

    /// Called by each half when it is dropped, before it lets go of the line: the second closes.
    pub(super) fn let_half_go(&self) {
        if self.is_original() {
            self.tenure.let_half_go(&self.own().epoch);
        }
    }

    /// Makes the bells between the halves.
    pub(super) fn split(&self) {
        self.kicks.get_or_init(|| make_kicks().ok());
    }

    /// As [`split`](Self::split), for a half that cannot do without them.
    pub(super) fn split_surely(&self) -> Result<(), Errno> {
        if self.kicks.get().is_none() {
            let kicks = make_kicks()?;
            self.kicks.get_or_init(|| Some(kicks));
        }
        if self.is_deaf() { Err(Errno::MFILE) } else { Ok(()) }
    }

    /// Whether a bell for one half may be taken by the other without any way to tell.
    pub(super) fn is_deaf(&self) -> bool {
        matches!(self.kicks.get(), Some(None))
    }

    /// What wakes this half beside the line.
    pub(super) fn kick_of(&self, half: Half) -> Option<BorrowedFd<'_>> {
        self.kicks.get()?.as_ref().map(|kicks| half.of(kicks).as_fd())
    }

    /// Which halves sleep on the line.
    pub(super) fn asleep(&self) -> &Asleep {
        &self.asleep
    }

    /// Has a set told when the receiving half is to look, or no longer.
    pub(super) fn listen(&self, listener: Option<(Arc<Bell>, usize)>) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = listener;
    }

    /// Wakes a half that sleeps on the line, without the line.
    pub(super) fn kick(&self, half: Half) {
        if half == Half::Receiver && self.call_listener() {
            return;
        }
        if let Some(kick) = self.kick_of(half) {
            // Relaxed: see `clear_kick_after`.
            half.of(&self.kicked).store(true, Ordering::Relaxed);
            // Fails only when the counter is full: then it is readable anyway.
            let _ = rustix::io::write(kick, &1u64.to_ne_bytes());
        }
    }

    /// Has the set, if there is one, look at the receiving half.
    fn call_listener(&self) -> bool {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.as_ref().map(|(bell, index)| bell.call(*index)).is_some()
    }

    /// As [`clear_kick`](Self::clear_kick), without a system call where it was a bell that woke this half, and no kick
    /// is known of. One that is on its way wakes it again, and is taken then.
    pub(super) fn clear_kick_after(&self, bell: bool, half: Half) {
        // Relaxed: whoever sees it too late is woken again, as told above.
        if half.of(&self.kicked).swap(false, Ordering::Relaxed) || !bell {
            self.clear_kick(half);
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
    /// By now the halves and all that they have lent have let go of the memory.
    fn drop(&mut self) {
        let is_trusted =
            self.trusts.port == Trust::Trusted && self.trusts.channel == Trust::Trusted;
        let is_whole = is_trusted && self.ends.own() != Some(End::Violated);
        if self.is_original() && self.segment.shape().reuse && is_whole && self.tenure().is_ours() {
            spares::done(&self.segment, self.side);
        }
    }
}

fn make_kicks() -> Result<[OwnedFd; 2], Errno> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok([eventfd(0, flags)?, eventfd(0, flags)?])
}

fn reason(end: End) -> CloseReason {
    match end {
        End::Closed => CloseReason::Closed,
        End::Died => CloseReason::PeerDied,
        End::Lost => CloseReason::Lost,
        End::Violated => CloseReason::Violated,
    }
}
