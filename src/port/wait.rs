//! How a half waits: spin, arm, look again, sleep on the line. The same for messages and for room.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::barrier;
use crate::halves::Half;
use crate::line::{Heard, Line};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicU32, spin_loop};

use super::endpoint::{Endpoint, UNFENCED_DELAY};
use super::spin::{Patience, Spin};

/// How a port waits for messages, and for room.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitStrategy {
    /// Never sleep: the lowest latency, and one processor for each waiter.
    Spin,
    /// Spin for a while that is learnt from what was seen (at most 50 µs), then sleep.
    #[default]
    Adaptive,
    /// Sleep at once: no processor time, and the latency of a wake-up.
    Sleep,
}

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// At the ring only.
    Quick,
    /// Also whether either end is gone.
    Thorough,
}

/// Quick looks between two thorough ones.
pub(super) const QUICK_LOOKS: u32 = 64;
/// How often a side that does not sleep asks the kernel whether the other lives.
pub(super) const LINE_LOOK: Duration = Duration::from_millis(1);

/// One half's way of waiting.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) spin: Spin,
    sleeper: Sleeper,
    line_look: Cell<Option<Instant>>,
    sleeps: Cell<u64>,
}

/// What a wait needs to see of its port.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) line: &'a Line,
    pub(super) word: &'a AtomicU32,
}

impl Waits {
    /// For the half that waits on `word`.
    pub(super) fn new(half: Half, strategy: WaitStrategy, word: &AtomicU32) -> Self {
        Self {
            spin: Spin::new(strategy),
            sleeper: Sleeper::new(half, word),
            line_look: Cell::new(None),
            sleeps: Cell::new(0),
        }
    }

    pub(super) fn half(&self) -> Half {
        self.sleeper.half()
    }

    pub(super) fn set_strategy(&self, strategy: WaitStrategy) {
        self.spin.set_strategy(strategy);
    }

    pub(super) fn strategy(&self) -> WaitStrategy {
        self.spin.strategy()
    }

    pub(super) fn sleeps_at_once(&self) -> bool {
        self.strategy() == WaitStrategy::Sleep
    }

    pub(super) fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    pub(super) fn count_sleep(&self) {
        self.sleeps.set(self.sleeps.get() + 1);
    }

    /// Notes that there was no need to wait; after many such, streams.
    #[inline]
    pub(super) fn succeeded(&self, word: &AtomicU32) {
        let waiter = self.sleeper.waiter();
        if waiter.succeeded() && barrier::is_demandable() {
            waiter.stream(word);
        }
    }

    /// Whether [`succeeded`](Self::succeeded) would note nothing.
    #[inline(always)]
    pub(super) fn has_succeeded_for_long(&self) -> bool {
        self.sleeper.waiter().has_succeeded_for_long()
    }

    /// A few quick looks, before anything that takes time: what is about to come is found at once.
    #[inline]
    pub(super) fn glance(&self, look: impl FnMut() -> bool) -> bool {
        let has_paid = self.spin.may_glance() && self.look_a_few_times(look);
        if has_paid {
            self.spin.has_paid_at_once();
        }
        has_paid
    }

    #[inline]
    pub(super) fn look_a_few_times(&self, mut look: impl FnMut() -> bool) -> bool {
        for _ in 0..QUICK_LOOKS {
            if look() {
                return true;
            }
            spin_loop();
        }
        false
    }

    /// Looks until it finds something or the time is up (`None`).
    pub(super) fn wait<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        mut look: impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.spin(place, deadline, &mut look) {
            return Some(found);
        }
        if is_past(deadline) {
            self.look_at_line(place.endpoint, place.line);
            return look(Look::Thorough);
        }
        loop {
            let found = self.sleep(place, deadline, &mut look).or_else(|| look(Look::Thorough));
            if found.is_some() || is_past(deadline) {
                return found;
            }
        }
    }

    /// Asks the kernel about the other side if that was not done for a while.
    pub(super) fn look_at_line(&self, endpoint: &Endpoint, line: &Line) {
        let now = Instant::now();
        if self.line_look.get().is_some_and(|last| now.duration_since(last) < LINE_LOOK) {
            return;
        }
        self.line_look.set(Some(now));
        if line.is_hung_up() {
            endpoint.note_hang_up();
        }
    }

    /// Looks for as long as was learnt to pay, or for ever.
    pub(super) fn spin<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        look: &mut impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let patience = self.spin.patience();
        if patience == Patience::None {
            return None;
        }
        let start = Instant::now();
        loop {
            for _ in 0..QUICK_LOOKS {
                if let Some(found) = look(Look::Quick) {
                    self.spin.has_paid(start.elapsed());
                    return Some(found);
                }
                spin_loop();
            }
            if let Some(found) = look(Look::Thorough) {
                return Some(found);
            }
            self.look_at_line(place.endpoint, place.line);
            if is_past(deadline) {
                return None;
            }
            match patience {
                Patience::ForEver if start.elapsed() >= LINE_LOOK => {
                    self.ask_for_room(place.word);
                }
                Patience::For(limit) if start.elapsed() >= limit => {
                    self.spin.was_vain();
                    return None;
                }
                _ => {}
            }
        }
    }

    /// A poster that spins for long shows that it waits: the reader then owes it no room.
    fn ask_for_room(&self, word: &AtomicU32) {
        let waiter = self.sleeper.waiter();
        if self.sleeper.half() == Half::Sender && waiter.is_streaming() && barrier::is_demandable()
        {
            waiter.pause_streaming(word, barrier::demand);
        }
    }

    /// The steps of a sleep, for who sleeps on many lines at once: see [`Sleeper`].
    pub(super) fn must_demand(&self, word: &AtomicU32) -> bool {
        self.sleeper.must_demand(word)
    }

    /// As there. False: a bell may stay out for as long as a store may stay unseen.
    pub(super) fn stop_streaming(&self, place: Place<'_>) -> bool {
        let bed = LineBed { waits: self, place, deadline: None };
        self.sleeper.stop_streaming(&bed, place.word)
    }

    pub(super) fn try_lie_down(&self, place: Place<'_>, look: impl FnOnce() -> bool) -> bool {
        let bed = LineBed { waits: self, place, deadline: None };
        self.sleeper.try_lie_down(&bed, place.endpoint.asleep(), place.word, look)
    }

    pub(super) fn get_up(&self, place: Place<'_>, took_bell: bool) {
        let bed = LineBed { waits: self, place, deadline: None };
        self.sleeper.get_up(&bed, place.endpoint.asleep(), place.word, took_bell);
    }

    /// Arms, looks, sleeps once. `None` is "look again".
    fn sleep<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        look: &mut impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let bed = LineBed { waits: self, place, deadline };
        let asleep = place.endpoint.asleep();
        self.sleeper.sleep(&bed, asleep, place.word, || look(Look::Thorough))
    }
}

/// The line as a place to sleep.
struct LineBed<'a> {
    waits: &'a Waits,
    place: Place<'a>,
    deadline: Option<Instant>,
}

impl LineBed<'_> {
    fn hear(&self, deadline: Option<Instant>) -> bool {
        let Place { endpoint, line, .. } = self.place;
        let half = self.waits.sleeper.half();
        self.waits.count_sleep();
        let deadline = if endpoint.is_deaf() { soon(deadline) } else { deadline };
        let heard = line.wait(endpoint.kick_of(half), deadline);
        if heard == Heard::Blocked {
            line.wait_blocked(endpoint.kick_of(half), deadline);
            // What cannot be taken lies before the end of the line, which nobody hears so.
            if line.is_hung_up() {
                endpoint.note_hang_up();
            }
        }
        endpoint.clear_kick(half);
        self.note(heard)
    }

    /// Whether it was a bell.
    fn note(&self, heard: Heard) -> bool {
        match heard {
            Heard::HungUp => self.place.endpoint.note_hang_up(),
            Heard::Ringing => self.waits.sleeper.leave_bell(),
            Heard::Bell | Heard::Nothing | Heard::Blocked => {}
        }
        heard == Heard::Bell
    }
}

impl Bed for LineBed<'_> {
    fn barrier(&self) -> bool {
        barrier::demand()
    }

    fn wait(&self) -> bool {
        self.hear(self.deadline)
    }

    fn wait_shortly(&self) -> bool {
        self.hear(soon(self.deadline))
    }

    fn clear(&self) {
        self.note(self.place.line.clear());
    }

    fn kick(&self, half: Half) {
        self.place.endpoint.kick(half);
    }
}

pub(super) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}

/// A millisecond from now, or the deadline if that is earlier.
fn soon(deadline: Option<Instant>) -> Option<Instant> {
    let soon = Instant::now() + UNFENCED_DELAY;
    Some(deadline.map_or(soon, |at| at.min(soon)))
}
