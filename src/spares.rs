//! Segments of channels that have ended, for fresh channels: to make a segment costs more than all the rest
//! of a channel.
//!
//! Only those whose sides have trusted each other from the beginning, and only after both have said that they
//! use the memory no more: the last one keeps it. What a stranger has mapped is never kept. Nobody who
//! still has an old descriptor can take up an end of the new channel, because the generation goes on
//! ([`crate::epoch`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::epoch::{self, Epoch};
use crate::fork::Mark;
use crate::layout::{DEFAULT_CAPACITY, Shape, Side};
use crate::ring::Memory;
use crate::segment::{Region, Segment};
use crate::sync::Ordering;
use crate::wake::FENCED;

/// Segments that a process keeps.
const MAX_SPARES: usize = 4;

/// The marks are of the process that has kept them: a forked child has copies, which are its parent's.
static SPARES: Mutex<Vec<(Mark, Arc<Segment>)>> = Mutex::new(Vec::new());

type Spares = MutexGuard<'static, Vec<(Mark, Arc<Segment>)>>;

/// Never waits: in a forked child somebody may hold the lock who is not there.
fn spares() -> Option<Spares> {
    match SPARES.try_lock() {
        Ok(spares) => Some(spares),
        Err(TryLockError::Poisoned(spares)) => Some(spares.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Lets go of the memory that this process keeps for fresh channels: that of at most four channels that have
/// ended.
///
/// ```
/// use zeroport::MessageChannel;
///
/// drop(MessageChannel::new()?); // leaves a descriptor and some memory for the next one
/// zeroport::trim();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn trim() {
    let gone = std::mem::take(&mut *SPARES.lock().unwrap_or_else(PoisonError::into_inner));
    // Not under the lock: to unmap takes a while.
    drop(gone);
}

/// Called when a side uses a segment no more. Keeps it if the other side was done before.
pub(crate) fn done(segment: &Arc<Segment>, side: Side) {
    let bit = 1 << side.to_wire();
    let [first, second] = segment.shape().capacity;
    // Larger rings would keep too much memory.
    let is_usual = first.max(second) <= DEFAULT_CAPACITY;
    if !epoch::is_done(&segment.header().done.sides, bit) || !is_usual {
        return;
    }
    if let (Ok(mark), Some(mut spares)) = (Mark::here(), spares())
        && spares.len() < MAX_SPARES
    {
        spares.push((mark, Arc::clone(segment)));
    }
}

/// A segment of this shape, as good as new, and the epoch of its ends.
pub(crate) fn take(shape: Shape) -> Option<(Arc<Segment>, Epoch)> {
    let mut spares = spares()?;
    spares.retain(|(mark, _)| mark.is_original());
    let place = spares.iter().rposition(|(_, segment)| segment.shape() == shape)?;
    let (_, segment) = spares.swap_remove(place);
    drop(spares);
    let epoch = renew(&segment);
    Some((segment, epoch))
}

/// Makes all words what they are in a fresh segment, but for the epochs.
fn renew(segment: &Arc<Segment>) -> Epoch {
    let header = segment.header();
    // Relaxed, all: nobody else uses the segment until its descriptor is handed over, and the kernel orders
    // that; two ends in one process are ordered by whatever passes them on.
    for (side, ring) in [Side::First, Side::Second].into_iter().zip(&header.rings) {
        ring.released.store(0, Ordering::Relaxed);
        ring.let_go.store(0, Ordering::Relaxed);
        ring.lanes.store(0, Ordering::Relaxed);
        Region::new(Arc::clone(segment), side).word(0).store(0, Ordering::Relaxed);
    }
    let former = header.sides.each_ref().map(|side| {
        side.message_wake.store(FENCED, Ordering::Relaxed);
        side.room_wake.store(FENCED, Ordering::Relaxed);
        Epoch::from_wire(side.epoch.load(Ordering::Relaxed))
    });
    header.done.sides.store(0, Ordering::Relaxed);
    Epoch::after(former)
}
