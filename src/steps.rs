//! The steps of a transfer, of growing and of large payloads, named: where a test may kill or stop a process, or have it look around.

/// A step that was just taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The ports are in transit, their descriptors still here.
    Detached,
    /// A packet was put into an envelope, for more descriptors than one packet takes.
    Packed,
    /// The descriptors are on the lane.
    Sent,
    /// The own copies are closed.
    Closed,
    /// The record is visible.
    Published,
    /// The record was found, its parcel not taken yet.
    Found,
    /// A packet was taken out of an envelope.
    Unpacked,
    /// The parcel was taken off the lane.
    Taken,
    /// The segment of a port was mapped.
    Mapped,
    /// The port was adopted.
    Adopted,
    /// A larger ring was made.
    RingMade,
    /// Its descriptor is on the lane.
    RingSent,
    /// The link that leads to it is visible.
    Linked,
    /// A link was found, and what belongs to it was not taken yet.
    LinkFound,
    /// The link was followed.
    Followed,
    /// A large payload was found, and is not mapped yet.
    LargeFound,
    /// A large payload was taken.
    LargeTaken,
}

/// Called after each step. Does nothing, unless a test of this crate has asked for it.
#[inline(always)]
pub(crate) fn reach(_step: Step) {
    #[cfg(all(test, not(loom)))]
    hook::at(_step);
}

#[cfg(all(test, not(loom)))]
pub(crate) mod hook {
    use std::cell::Cell;

    use super::Step;

    thread_local!(static HOOK: Cell<Option<fn(Step)>> = const { Cell::new(None) });

    /// Has `hook` called on this thread at each step from now on.
    pub(crate) fn set(hook: fn(Step)) {
        HOOK.set(Some(hook));
    }

    pub(super) fn at(step: Step) {
        if let Some(hook) = HOOK.get() {
            hook(step);
        }
    }
}
