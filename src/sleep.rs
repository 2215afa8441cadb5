//! One sleep of a half: leave `Streaming`, arm, look again, sleep on the line, pass bells on.
//!
//! Everything that can lose a wake-up is in this order of steps; what a line *is* stays outside, so
//! that the steps are modelled as they are.

use std::cell::Cell;
use std::ops::BitOr;

use crate::halves::{Asleep, Half};
use crate::sync::AtomicU32;
use crate::wake::Waiter;

/// Where a half sleeps: its line, the kick of the other half, and the clock.
pub(crate) trait Bed {
    /// Puts a fence into every registered ringer; false if that cannot be had.
    fn barrier(&self) -> bool;
    /// Sleeps until a bell, a kick, the end of the line or of the time. True if it took a bell.
    fn wait(&self) -> bool;
    /// As [`wait`](Self::wait), for at most so long as a store may stay unseen without a barrier.
    fn wait_shortly(&self) -> bool;
    /// Takes all bells that lie on the line.
    fn clear(&self);
    /// Wakes the other half.
    fn kick(&self, half: Half);
}

/// For many that go to sleep at once: all [take their promises back](Sleeper::must_demand), then comes one barrier for
/// all of them. False if that cannot be had.
pub(crate) fn take_back_all(
    must_demand: impl Iterator<Item = bool>,
    barrier: impl FnOnce() -> bool,
) -> bool {
    // To the end of them: each has to take it back.
    let streamed = must_demand.fold(false, BitOr::bitor);
    if streamed { barrier() } else { true }
}

/// One half's way of sleeping.
#[derive(Debug)]
pub(crate) struct Sleeper {
    half: Half,
    waiter: Waiter,
    /// A bell was rung for a sleep that did not happen, or was heard and left; it still lies on the line.
    stray_bell: Cell<bool>,
}

impl Sleeper {
    /// For the half that waits on `word`.
    pub(crate) fn new(half: Half, word: &AtomicU32) -> Self {
        Self { half, waiter: Waiter::new(word), stray_bell: Cell::new(false) }
    }

    pub(crate) fn half(&self) -> Half {
        self.half
    }

    pub(crate) fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    /// Notes that a bell was heard and left on the line.
    pub(crate) fn leave_bell(&self) {
        self.stray_bell.set(true);
    }

    /// Takes the promise to stream back. True if a barrier must come next.
    pub(crate) fn must_demand(&self, word: &AtomicU32) -> bool {
        let was_streaming = self.waiter.is_streaming();
        if was_streaming {
            self.waiter.leave_streaming(word);
        }
        was_streaming
    }

    /// The first step of a sleep of one half. False: nobody can be sure that ringers know.
    pub(crate) fn stop_streaming(&self, bed: &impl Bed, word: &AtomicU32) -> bool {
        !self.must_demand(word) || bed.barrier()
    }

    /// As the beginning of a [`sleep`](Self::sleep), for who sleeps on many lines at once: lies down, unless there
    /// is something. The barrier, if one was due, is over.
    pub(crate) fn try_lie_down(
        &self,
        bed: &impl Bed,
        asleep: &Asleep,
        word: &AtomicU32,
        look: impl FnOnce() -> bool,
    ) -> bool {
        self.lie_down(bed, asleep, word);
        let is_there = look();
        if is_there {
            self.get_up(bed, asleep, word, false);
        }
        !is_there
    }

    /// Takes what lies on the line since before, and announces sleep. The caller then looks once more.
    fn lie_down(&self, bed: &impl Bed, asleep: &Asleep, word: &AtomicU32) {
        if self.stray_bell.replace(false) {
            bed.clear();
            // Bells for the other half may have lain there too.
            self.pass_on(bed, asleep, true);
        }
        asleep.set(self.half, true);
        self.waiter.arm(word);
    }

    /// Takes the announcement back. `took_bell`: whether a bell was taken off the line since.
    pub(crate) fn get_up(
        &self,
        bed: &impl Bed,
        asleep: &Asleep,
        word: &AtomicU32,
        took_bell: bool,
    ) {
        self.pass_on(bed, asleep, took_bell);
        let bell_due = self.waiter.disarm(word);
        asleep.set(self.half, false);
        if bell_due && !took_bell {
            self.leave_bell();
        }
    }

    /// Looks, and sleeps once if there is nothing. `None` is "look again".
    pub(crate) fn sleep<T>(
        &self,
        bed: &impl Bed,
        asleep: &Asleep,
        word: &AtomicU32,
        look: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if !self.stop_streaming(bed, word) {
            // Sleep shortly, this once, and look again.
            self.pass_on(bed, asleep, bed.wait_shortly());
            return None;
        }
        self.lie_down(bed, asleep, word);
        let found = look();
        let took_bell = found.is_none() && bed.wait();
        self.get_up(bed, asleep, word, took_bell);
        found
    }

    /// A bell that this half took may have been meant for the other.
    fn pass_on(&self, bed: &impl Bed, asleep: &Asleep, took_bell: bool) {
        if took_bell && let Some(other) = asleep.must_kick(self.half) {
            bed.kick(other);
        }
    }
}
