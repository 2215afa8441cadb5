//! How long an adaptive wait spins before it sleeps: learnt from what was seen.

use std::cell::Cell;
use std::time::Duration;

use super::wait::WaitStrategy;

/// Bounds of what an adaptive wait spins, in nanoseconds.
const SPIN_MAX: u32 = 50_000;
const SPIN_MIN: u32 = 500;
/// One adaptive wait in so many spins as long as it may: at first, and once that never pays.
const PROBE_EVERY: u32 = 64;
const PROBE_RARELY: u32 = 1024;

/// What was learnt.
#[derive(Debug)]
pub(super) struct Spin {
    strategy: Cell<WaitStrategy>,
    /// What an adaptive wait spins at most, in nanoseconds.
    most: Cell<u32>,
    /// Adaptive waits until the next probe, and how many there are between two.
    until_probe: Cell<u32>,
    probe_every: Cell<u32>,
}

/// How long one wait spins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    For(Duration),
    ForEver,
}

impl Patience {
    /// What no adaptive wait exceeds.
    #[cfg(feature = "async")]
    pub(super) const LONGEST: Duration = Duration::from_nanos(SPIN_MAX as u64);
}

impl Spin {
    pub(super) fn new(strategy: WaitStrategy) -> Self {
        Self {
            strategy: Cell::new(strategy),
            most: Cell::new(SPIN_MAX),
            until_probe: Cell::new(PROBE_EVERY),
            probe_every: Cell::new(PROBE_EVERY),
        }
    }

    pub(super) fn strategy(&self) -> WaitStrategy {
        self.strategy.get()
    }

    pub(super) fn set_strategy(&self, strategy: WaitStrategy) {
        self.strategy.set(strategy);
    }

    /// Whether a few looks may pay, before anything that takes time.
    #[inline]
    pub(super) fn may_glance(&self) -> bool {
        match self.strategy.get() {
            WaitStrategy::Spin => true,
            WaitStrategy::Adaptive => self.most.get() > 0,
            WaitStrategy::Sleep => false,
        }
    }

    /// How long this wait spins: as was learnt, but every so often as long as it may.
    ///
    /// Without such a probe, two sides that have both learnt to sleep would never find out that
    /// neither needs to: each is only slow because the other sleeps.
    pub(super) fn patience(&self) -> Patience {
        match self.strategy.get() {
            WaitStrategy::Spin => Patience::ForEver,
            WaitStrategy::Sleep => Patience::None,
            WaitStrategy::Adaptive => self.adaptive(),
        }
    }

    fn adaptive(&self) -> Patience {
        let until_probe = self.until_probe.get();
        self.until_probe.set(until_probe.saturating_sub(1));
        if until_probe == 0 {
            // If it pays, the next one comes as soon as ever.
            let every = self.probe_every.get();
            self.until_probe.set(every);
            self.probe_every.set((every * 2).min(PROBE_RARELY));
            return Patience::For(Duration::from_nanos(SPIN_MAX.into()));
        }
        match self.most.get() {
            0 => Patience::None,
            nanos => Patience::For(Duration::from_nanos(nanos.into())),
        }
    }

    /// A glance has paid.
    #[inline]
    pub(super) fn has_paid_at_once(&self) {
        if self.most.get() < SPIN_MAX || self.probe_every.get() > PROBE_EVERY {
            self.has_paid(Duration::ZERO);
        }
    }

    /// A spin has paid after so long: the next may take twice as long, and longer than this one might have.
    pub(super) fn has_paid(&self, after: Duration) {
        let seen = u32::try_from(2 * after.as_nanos()).unwrap_or(SPIN_MAX);
        self.most.set((self.most.get() * 2).max(seen).clamp(SPIN_MIN, SPIN_MAX));
        self.probe_every.set(PROBE_EVERY);
        self.until_probe.set(self.until_probe.get().min(PROBE_EVERY));
    }

    /// A spin was in vain. One after the other makes them shorter, and in the end there is none: two sides on
    /// one processor only keep each other from it. A single one says little.
    pub(super) fn was_vain(&self) {
        let most = self.most.get() - self.most.get() / 8;
        self.most.set(if most > SPIN_MIN { most } else { 0 });
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const LONGEST: Patience = Patience::For(Duration::from_nanos(SPIN_MAX as u64));

    fn adaptive() -> Spin {
        Spin::new(WaitStrategy::Adaptive)
    }

    /// Waits in vain until one spins as long as it may; how many did not spin at all.
    fn vain_until_probe(spin: &Spin) -> u32 {
        let patience = std::iter::repeat_with(|| spin.patience()).inspect(|patience| {
            if *patience != Patience::None {
                spin.was_vain();
            }
        });
        let before = patience.take_while(|patience| *patience != LONGEST);
        before.filter(|patience| *patience == Patience::None).count() as u32
    }

    #[test]
    fn what_never_pays_is_tried_ever_more_seldom() {
        let spin = adaptive();
        assert_eq!(spin.patience(), LONGEST, "at first");
        (0..64).for_each(|_| spin.was_vain());
        let probes: Vec<_> = (0..7).map(|_| vain_until_probe(&spin)).collect();
        assert_eq!(probes[1..], [64, 128, 256, 512, 1024, 1024]);
    }

    #[test]
    fn what_has_paid_is_tried_again() {
        let spin = adaptive();
        (0..64).for_each(|_| spin.was_vain());
        for _ in 0..5 {
            vain_until_probe(&spin);
        }
        spin.has_paid(Duration::from_micros(20));
        let twice = Patience::For(Duration::from_micros(40));
        assert_eq!(spin.patience(), twice, "twice as long as it took");
        spin.was_vain();
        let less = Patience::For(Duration::from_micros(35));
        assert_eq!(spin.patience(), less, "one outlier is no rule");
        (0..64).for_each(|_| spin.was_vain());
        assert!(vain_until_probe(&spin) <= PROBE_EVERY, "and soon there is a probe");
    }
}
