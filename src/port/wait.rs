//! How a half waits: spin, arm, look again, sleep on the line. The same for messages and for room.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::barrier;
use crate::line::{Heard, Line};
use crate::sync::{AtomicU32, spin_loop};
use crate::wake::Waiter;

use super::endpoint::{Endpoint, Half, UNFENCED_DELAY};

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

const SPIN_MAX: Duration = Duration::from_micros(50);
const SPIN_MIN: Duration = Duration::from_nanos(500);
/// Quick looks between two thorough ones.
const QUICK_LOOKS: u32 = 64;
/// How often a side that does not sleep asks the kernel whether the other lives.
const LINE_LOOK: Duration = Duration::from_millis(1);

/// One half's way of waiting.
#[derive(Debug)]
pub(super) struct Waits {
    half: Half,
    strategy: Cell<WaitStrategy>,
    waiter: Waiter,
    spin: Cell<Duration>,
    /// A bell was rung for a sleep that did not happen; it still lies on the line.
    stray_bell: Cell<bool>,
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
    pub(super) fn new(half: Half, strategy: WaitStrategy) -> Self {
        Self {
            half,
            strategy: Cell::new(strategy),
            waiter: Waiter::default(),
            spin: Cell::new(SPIN_MAX),
            stray_bell: Cell::new(false),
            line_look: Cell::new(None),
            sleeps: Cell::new(0),
        }
    }

    pub(super) fn set_strategy(&self, strategy: WaitStrategy) {
        self.strategy.set(strategy);
    }

    pub(super) fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Notes that there was no need to wait; after many such, streams.
    #[inline]
    pub(super) fn succeeded(&self, word: &AtomicU32) {
        if self.waiter.succeeded() && barrier::is_demandable() {
            self.waiter.stream(word);
        }
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

    fn spin<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        look: &mut impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let limit = match self.strategy.get() {
            WaitStrategy::Spin => None,
            WaitStrategy::Adaptive => Some(self.spin.get()),
            WaitStrategy::Sleep => return None,
        };
        let start = Instant::now();
        loop {
            for _ in 0..QUICK_LOOKS {
                if let Some(found) = look(Look::Quick) {
                    self.learn(true);
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
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                self.learn(false);
                return None;
            }
        }
    }

    /// Spins longer after a spin that paid, shorter after one that did not.
    fn learn(&self, paid: bool) {
        let spin = self.spin.get();
        self.spin.set(if paid { (spin * 2).min(SPIN_MAX) } else { (spin / 2).max(SPIN_MIN) });
    }

    /// Arms, looks, sleeps once. `None` is "look again".
    fn sleep<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        look: &mut impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let Place { endpoint, line, word } = place;
        if self.waiter.is_streaming() {
            self.waiter.leave_streaming(word);
            if !barrier::demand() {
                // Nobody can be sure that ringers know: sleep shortly, this once, and look again.
                self.hear(place, soon(deadline));
                return None;
            }
        }
        if self.stray_bell.replace(false) {
            self.note(place, line.clear());
        }
        endpoint.set_asleep(self.half, true);
        self.waiter.arm(word);
        let found = look(Look::Thorough);
        let heard = if found.is_none() { self.hear(place, deadline) } else { Heard::Nothing };
        let bell_due = self.waiter.disarm(word);
        endpoint.set_asleep(self.half, false);
        self.stray_bell.set(bell_due && heard != Heard::Bell);
        found
    }

    fn hear(&self, place: Place<'_>, deadline: Option<Instant>) -> Heard {
        self.sleeps.set(self.sleeps.get() + 1);
        let deadline = if place.endpoint.is_deaf() { soon(deadline) } else { deadline };
        let heard = place.line.wait(place.endpoint.kick_of(self.half), deadline);
        place.endpoint.clear_kick(self.half);
        self.note(place, heard);
        heard
    }

    fn note(&self, place: Place<'_>, heard: Heard) {
        match heard {
            Heard::Bell => place.endpoint.pass_on(self.half),
            Heard::HungUp => place.endpoint.note_hang_up(),
            Heard::Nothing => {}
        }
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}

/// A millisecond from now, or the deadline if that is earlier.
fn soon(deadline: Option<Instant>) -> Option<Instant> {
    let soon = Instant::now() + UNFENCED_DELAY;
    Some(deadline.map_or(soon, |at| at.min(soon)))
}
