//! The epoch of a side: who holds the port, and whether it is still open.
//!
//! `epoch = generation << 2 | state`. Each change of hands raises the generation, so a handle that
//! knows an older value is stale.
//!
//! ```text
//!          let go            adopt (compare-exchange, so only once)
//!   Open ──────────▶ InTransit ──────────▶ Open            each arrow: generation + 1
//!     │ close
//!     ▼
//!   Closed                                                 for ever
//! ```
//!
//! A port that is never adopted stays in transit: nobody is left who could say more.
//!
//! The epoch says what the holder *said*; the line says whether the holder still *lives*. A hang-up
//! of the line is read together with the epoch: while open the peer has died, while in transit the
//! port was lost.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const OPEN: u64 = 1;
const IN_TRANSIT: u64 = 2;
const CLOSED: u64 = 3;

/// What the holder of a side has said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Somebody holds the port.
    Open,
    /// The former holder has let go, the next has not adopted yet.
    InTransit,
    /// Closed for ever.
    Closed,
    /// Nothing that a holder writes.
    Broken,
}

/// A value of an epoch word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The epoch of a port in the hands of the channel's maker.
    pub(crate) const FIRST: Self = Self::new(1, State::Open);

    pub(crate) const fn new(generation: u64, state: State) -> Self {
        let state = match state {
            State::Open => OPEN,
            State::InTransit => IN_TRANSIT,
            State::Closed => CLOSED,
            State::Broken => 0,
        };
        Self(generation << STATE_BITS | state)
    }

    pub(crate) const fn from_wire(wire: u64) -> Self {
        Self(wire)
    }

    pub(crate) const fn to_wire(self) -> u64 {
        self.0
    }

    pub(crate) const fn state(self) -> State {
        match self.0 & STATE_MASK {
            OPEN => State::Open,
            IN_TRANSIT => State::InTransit,
            CLOSED => State::Closed,
            _ => State::Broken,
        }
    }

    const fn next(self, state: State) -> Self {
        Self::new((self.0 >> STATE_BITS).wrapping_add(1), state)
    }

    /// For a channel that is made of the memory of an earlier one, whose sides have come so far.
    pub(crate) fn after(former: [Self; 2]) -> Self {
        let [first, second] = former;
        Self(first.0.max(second.0)).next(State::Open)
    }

    /// What the word becomes when the holder of a fresh end lets go before anybody else knows of it.
    pub(crate) const fn let_go(self) -> Self {
        self.next(State::InTransit)
    }
}

/// Whether the other side is neither closed nor broken.
#[inline(always)]
pub(crate) fn is_open(word: &AtomicU64) -> bool {
    // Relaxed: as long as it is open, nothing need have come before; else `look` tells.
    matches!(word.load(Ordering::Relaxed) & STATE_MASK, OPEN | IN_TRANSIT)
}

/// What the other side has said last.
#[inline]
pub(crate) fn look(word: &AtomicU64) -> State {
    // EPOCH: pairs with the Release in `close`; who sees `Closed` sees all that was published before.
    Epoch(word.load(Ordering::Acquire)).state()
}

/// Lets go of the own side, held since `open`; gives what the next holder has to find. `None` if it is
/// not ours any more.
pub(crate) fn let_go(word: &AtomicU64, open: Epoch) -> Option<Epoch> {
    let in_transit = open.let_go();
    // ADOPT: Release pairs with the Acquire in `adopt`, so that the next holder sees what we left.
    // Relaxed on failure: nothing is read.
    word.compare_exchange(open.0, in_transit.0, Ordering::Release, Ordering::Relaxed)
        .is_ok()
        .then_some(in_transit)
}

/// Makes the caller the holder of a port in transit; `None` if it is not the one that was meant. Also
/// for who let go and could not give it away.
pub(crate) fn adopt(word: &AtomicU64, in_transit: Epoch) -> Option<Epoch> {
    let open = in_transit.next(State::Open);
    if in_transit.state() != State::InTransit {
        return None;
    }
    // ADOPT: Acquire pairs with the Release in `let_go` and `set`, so that the new holder sees what the
    // former one left. Not Release: whoever takes the port next pairs with the `let_go` by which we let
    // go of it. Relaxed on failure: nothing is read.
    word.compare_exchange(in_transit.0, open.0, Ordering::Acquire, Ordering::Relaxed)
        .is_ok()
        .then_some(open)
}

/// Writes the epoch of an end that nobody else knows of yet.
pub(crate) fn set(word: &AtomicU64, epoch: Epoch) {
    // ADOPT: pairs with the Acquire in `adopt`.
    word.store(epoch.0, Ordering::Release);
}

/// Closes the own side, held since `open`. Nothing changes if the port has gone to somebody else.
pub(crate) fn close(word: &AtomicU64, open: Epoch) {
    let closed = open.next(State::Closed);
    // EPOCH: Release pairs with the Acquire in `look`: all that was published here is seen by whoever
    // sees the close. Relaxed on failure: nothing is read.
    let _ = word.compare_exchange(open.0, closed.0, Ordering::Release, Ordering::Relaxed);
}

/// Says that a side, given as its bit, uses the channel's memory no more. True for the one who says so last:
/// nobody uses it then.
pub(crate) fn is_done(word: &AtomicU32, bit: u32) -> bool {
    const BOTH: u32 = 3;
    // DONE: AcqRel pairs with itself on the other side, whose last use of the memory comes before ours.
    word.fetch_or(bit, Ordering::AcqRel) | bit == BOTH
}
