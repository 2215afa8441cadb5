//! How the two ends of a channel stand, as one process knows it: what it did to its own end, and what
//! it knows of the other.

use crate::epoch::{self, Epoch, State};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const VIOLATED: u32 = 2;
const DIED: u32 = 3;
const LOST: u32 = 4;

/// How an end came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its holder said so.
    Closed,
    /// The line hung up while somebody held it.
    Died,
    /// The line hung up while nobody held it.
    Lost,
    /// The other side of whoever says this broke the protocol.
    Violated,
}

/// Shared by the halves of a port and its closers.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Whether the own end was closed, or the end of the channel reported, and why. The first of these
    /// stays for ever.
    own: AtomicU32,
    /// Whether the line was seen to hang up.
    hung_up: AtomicBool,
}

impl Ends {
    pub(crate) fn new() -> Self {
        Self { own: AtomicU32::new(OPEN), hung_up: AtomicBool::new(false) }
    }

    /// Whether neither end is known to be gone; `epoch` is the other end's word. What is wrong, the others
    /// tell: here that there is nothing to tell, in few instructions.
    #[inline(always)]
    pub(crate) fn are_open(&self, epoch: &AtomicU64) -> bool {
        // Relaxed: nothing is read on the strength of it; who finds the end looks again, with Acquire.
        let has_hung_up = self.hung_up.load(Ordering::Relaxed);
        !has_hung_up && epoch::is_open(epoch) && self.is_own_open()
    }

    /// Whether the own end was not closed, nor the end of the channel reported.
    #[inline(always)]
    pub(crate) fn is_own_open(&self) -> bool {
        // Relaxed: as in `own`.
        self.own.load(Ordering::Relaxed) == OPEN
    }

    /// How the own end was closed, or the end of the channel reported, if it was.
    #[inline]
    pub(crate) fn own(&self) -> Option<End> {
        // Relaxed: says only that no more is to be done; whoever waits is woken through the line. A
        // poster asks after the fence or the `Streaming` of its wake-up: see `close`.
        match self.own.load(Ordering::Relaxed) {
            OPEN => None,
            VIOLATED => Some(End::Violated),
            DIED => Some(End::Died),
            LOST => Some(End::Lost),
            _ => Some(End::Closed),
        }
    }

    /// Notes that the end of the channel was reported, after the last message: from now on there is no
    /// other reason, for either half.
    pub(crate) fn report(&self, end: End) {
        let end = match end {
            End::Closed => CLOSED,
            End::Violated => VIOLATED,
            End::Died => DIED,
            End::Lost => LOST,
        };
        // Relaxed: as in `own`. If it fails, an earlier reason stays.
        let _ = self.own.compare_exchange(OPEN, end, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How the other end is gone, if it is. `epoch` is that end's word.
    #[inline]
    pub(crate) fn peer(&self, epoch: &AtomicU64) -> Option<End> {
        // HANGUP: Acquire pairs with the Release in `note_hang_up`, so that the epoch is read after
        // the hang-up: a side that closes writes its epoch first.
        let hung_up = self.hung_up.load(Ordering::Acquire);
        match epoch::look(epoch) {
            State::Open if hung_up => Some(End::Died),
            State::InTransit if hung_up => Some(End::Lost),
            State::Open | State::InTransit => None,
            State::Closed => Some(End::Closed),
            State::Broken => Some(End::Violated),
        }
    }

    /// How the channel has ended, if it has: by our own close, or else by the other end's. `epoch` is
    /// the other end's word.
    #[inline]
    pub(crate) fn either(&self, epoch: &AtomicU64) -> Option<End> {
        // Our own end is asked last: our close hangs the line up too, and a hang-up that was noted
        // brings what was done before it.
        let peer = self.peer(epoch);
        self.own().or(peer)
    }

    /// Notes that the line was seen to hang up.
    pub(crate) fn note_hang_up(&self) {
        // HANGUP: pairs with the Acquire in `peer`.
        self.hung_up.store(true, Ordering::Release);
    }

    /// Closes the own end, held since `held`, while others may be posting on it: afterwards no post
    /// reports success. `barrier` reaches the posters of this process that do not fence by themselves
    /// ([`crate::wake`], W3). When it returns, the epoch says closed, so the line may be hung up.
    pub(crate) fn close(
        &self,
        epoch: &AtomicU64,
        held: Epoch,
        violated: bool,
        barrier: impl FnOnce(),
    ) {
        let end = if violated { VIOLATED } else { CLOSED };
        // Relaxed: what follows orders it. A poster publishes, fences and asks `own`; we store here,
        // fence and write the epoch. Either it sees this and reports no success, or whoever sees the
        // epoch sees what it published. Who comes second changes nothing and goes on all the same: the
        // first may still be on its way to the epoch.
        let _ = self.own.compare_exchange(OPEN, end, Ordering::Relaxed, Ordering::Relaxed);
        // END: pairs with the fence in `must_ring`.
        fence(Ordering::SeqCst);
        barrier();
        epoch::close(epoch, held);
    }
}
