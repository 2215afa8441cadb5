//! What the two halves of a port and its closers share: the segment, the epoch, and the ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::barrier;
use crate::ends::{End, Ends};
use crate::epoch::{self, Epoch};
use crate::error::CloseReason;
use crate::fork::Mark;
use crate::halves::{Asleep, Half};
use crate::layout::{Side, SideWords};
use crate::segment::Segment;

use super::Trust;

/// How long a store may stay unseen where no barrier can be had.
pub(super) const UNFENCED_DELAY: Duration = Duration::from_millis(1);

/// One end of a channel, held by this process. The last one to let go closes it.
#[derive(Debug)]
pub(super) struct Endpoint {
    segment: Arc<Segment>,
    side: Side,
    epoch: Epoch,
    mark: Mark,
    trust: Trust,
    ends: Ends,
    asleep: Asleep,
    /// The bells between the halves once they were split (`None`: the process had no descriptors for
    /// them).
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
            ends: Ends::new(),
            asleep: Asleep::default(),
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
    #[inline(always)]
    pub(super) fn own(&self) -> &SideWords {
        self.side.of(&self.segment.header().sides)
    }

    /// The words that the other side owns.
    #[inline(always)]
    pub(super) fn peer(&self) -> &SideWords {
        self.side.other().of(&self.segment.header().sides)
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

    /// Closes this end while others may be posting on it: afterwards no post reports success.
    pub(super) fn close(&self, violated: bool) {
        if !self.is_original() {
            return;
        }
        self.ends.close(&self.own().epoch, self.epoch, violated, || {
            // Registered posters may heed `Streaming` for good, also where barriers are refused by now.
            if !barrier::demand() && barrier::is_registered() {
                std::thread::sleep(UNFENCED_DELAY);
            }
        });
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

    /// Which halves sleep on the line.
    pub(super) fn asleep(&self) -> &Asleep {
        &self.asleep
    }

    /// Wakes a half that sleeps on the line, without the line.
    pub(super) fn kick(&self, half: Half) {
        if let Some(kick) = self.kick_of(half) {
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

fn reason(end: End) -> CloseReason {
    match end {
        End::Closed => CloseReason::Closed,
        End::Died => CloseReason::PeerDied,
        End::Lost => CloseReason::Lost,
        End::Violated => CloseReason::Violated,
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.is_original() {
            epoch::close(&self.own().epoch, self.epoch);
        }
    }
}
