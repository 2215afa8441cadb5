//! How a half waits: spin, arm, look again, sleep on the line. The same for messages and for room.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::barrier;
use crate::halves::Half;
use crate::line::{Heard, Line};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicU32, spin_loop};

use super::endpoint::{Endpoint, UNFENCED_DELAY};

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

/// Bounds of what an adaptive wait spins, in nanoseconds.
const SPIN_MAX: u32 = 50_000;
const SPIN_MIN: u32 = 500;
/// One adaptive wait in so many spins as long as it may: at first, and once that never pays.
const PROBE_EVERY: u32 = 64;
const PROBE_RARELY: u32 = 1024;
/// Quick looks between two thorough ones.
const QUICK_LOOKS: u32 = 64;
/// How often a side that does not sleep asks the kernel whether the other lives.
const LINE_LOOK: Duration = Duration::from_millis(1);

/// One half's way of waiting.
#[derive(Debug)]
pub(super) struct Waits {
    strategy: Cell<WaitStrategy>,
    sleeper: Sleeper,
    /// What an adaptive wait spins at most, in nanoseconds.
    spin: Cell<u32>,
    /// Adaptive waits until the next probe, and how many there are between two.
    until_probe: Cell<u32>,
    probe_every: Cell<u32>,
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
            strategy: Cell::new(strategy),
            sleeper: Sleeper::new(half, word),
            spin: Cell::new(SPIN_MAX),
            until_probe: Cell::new(PROBE_EVERY),
            probe_every: Cell::new(PROBE_EVERY),
            line_look: Cell::new(None),
            sleeps: Cell::new(0),
        }
    }

    pub(super) fn half(&self) -> Half {
        self.sleeper.half()
    }

    pub(super) fn set_strategy(&self, strategy: WaitStrategy) {
        self.strategy.set(strategy);
    }

    pub(super) fn sleeps_at_once(&self) -> bool {
        self.strategy.get() == WaitStrategy::Sleep
    }

    pub(super) fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Notes that there was no need to wait; after many such, streams.
    #[inline]
    pub(super) fn succeeded(&self, word: &AtomicU32) {
        let waiter = self.sleeper.waiter();
        if waiter.succeeded() && barrier::is_demandable() {
            waiter.stream(word);
        }
    }

    /// A few quick looks, before anything that takes time: what is about to come is found at once.
    #[inline]
    pub(super) fn glance(&self, mut look: impl FnMut() -> bool) -> bool {
        let worth_it = match self.strategy.get() {
            WaitStrategy::Spin => true,
            WaitStrategy::Adaptive => self.spin.get() > 0,
            WaitStrategy::Sleep => false,
        };
        for _ in 0..if worth_it { QUICK_LOOKS } else { 0 } {
            if look() {
                if self.spin.get() < SPIN_MAX || self.probe_every.get() > PROBE_EVERY {
                    self.has_paid(Duration::ZERO);
                }
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

    fn spin<T>(
        &self,
        place: Place<'_>,
        deadline: Option<Instant>,
        look: &mut impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let limit = match self.strategy.get() {
            WaitStrategy::Spin => None,
            WaitStrategy::Adaptive => Some(self.patience()?),
            WaitStrategy::Sleep => return None,
        };
        let start = Instant::now();
        loop {
            for _ in 0..QUICK_LOOKS {
                if let Some(found) = look(Look::Quick) {
                    self.has_paid(start.elapsed());
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
            match limit {
                None if start.elapsed() >= LINE_LOOK => {
                    self.ask_for_room(place.word);
                }
                Some(limit) if start.elapsed() >= limit => {
                    self.was_vain();
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

    /// How long an adaptive wait spins now: what was learnt, but every so often as long as it may. `None`: not
    /// at all.
    ///
    /// Without such a probe, two sides that have both learnt to sleep would never find out that
    /// neither needs to: each is only slow because the other sleeps.
    fn patience(&self) -> Option<Duration> {
        let until_probe = self.until_probe.get();
        self.until_probe.set(until_probe.saturating_sub(1));
        if until_probe == 0 {
            // If it pays, the next one comes as soon as ever.
            let every = self.probe_every.get();
            self.until_probe.set(every);
            self.probe_every.set((every * 2).min(PROBE_RARELY));
            return Some(Duration::from_nanos(SPIN_MAX.into()));
        }
        let nanos = self.spin.get();
        (nanos > 0).then(|| Duration::from_nanos(nanos.into()))
    }

    /// A spin has paid after so long: the next may take twice as long, and longer than this one might have.
    fn has_paid(&self, after: Duration) {
        let seen = u32::try_from(2 * after.as_nanos()).unwrap_or(SPIN_MAX);
        self.spin.set((self.spin.get() * 2).max(seen).clamp(SPIN_MIN, SPIN_MAX));
        self.probe_every.set(PROBE_EVERY);
        self.until_probe.set(self.until_probe.get().min(PROBE_EVERY));
    }

    /// A spin was in vain. One after the other makes them shorter, and in the end there is none: two sides on
    /// one processor only keep each other from it. A single one says little.
    fn was_vain(&self) {
        let spin = self.spin.get() - self.spin.get() / 8;
        self.spin.set(if spin > SPIN_MIN { spin } else { 0 });
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
        self.waits.sleeps.set(self.waits.sleeps.get() + 1);
        let deadline = if endpoint.is_deaf() { soon(deadline) } else { deadline };
        let heard = line.wait(endpoint.kick_of(half), deadline);
        if heard == Heard::Blocked {
            line.wait_blocked(endpoint.kick_of(half), deadline);
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

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_nanos(SPIN_MAX as u64);

    fn adaptive() -> Waits {
        Waits::new(Half::Receiver, WaitStrategy::Adaptive, &AtomicU32::new(0))
    }

    /// Waits in vain until one spins as long as it may; how many did not spin at all.
    fn vain_until_probe(waits: &Waits) -> u32 {
        let patience = std::iter::repeat_with(|| waits.patience().inspect(|_| waits.was_vain()));
        patience.take_while(|spin| *spin != Some(LONGEST)).filter(Option::is_none).count() as u32
    }

    #[test]
    fn what_never_pays_is_tried_ever_more_seldom() {
        let waits = adaptive();
        assert_eq!(waits.patience(), Some(LONGEST), "at first");
        (0..64).for_each(|_| waits.was_vain());
        let probes: Vec<_> = (0..7).map(|_| vain_until_probe(&waits)).collect();
        assert_eq!(probes[1..], [64, 128, 256, 512, 1024, 1024]);
    }

    #[test]
    fn what_has_paid_is_tried_again() {
        let waits = adaptive();
        (0..64).for_each(|_| waits.was_vain());
        for _ in 0..5 {
            vain_until_probe(&waits);
        }
        waits.has_paid(Duration::from_micros(20));
        assert_eq!(waits.patience(), Some(Duration::from_micros(40)), "twice as long as it took");
        waits.was_vain();
        assert_eq!(waits.patience(), Some(Duration::from_micros(35)), "one outlier is no rule");
        (0..64).for_each(|_| waits.was_vain());
        assert!(vain_until_probe(&waits) <= PROBE_EVERY, "and soon there is a probe");
    }
}
