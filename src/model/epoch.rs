//! EPOCH, ADOPT and DONE: who sees `Closed` sees all that was published; who adopts sees all that was left,
//! and adopts alone; who is done last has the memory alone.
#![allow(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::epoch::{Epoch, State, adopt, close, is_done, let_go, look, set};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A side's epoch, and something that its holder leaves behind.
struct Side {
    epoch: AtomicU64,
    left: UnsafeCell<u64>,
    published: AtomicU64,
}

// SAFETY: loom checks that the cell is not used by two threads at once.
unsafe impl Sync for Side {}
// SAFETY: as above.
unsafe impl Send for Side {}

fn side(epoch: Epoch) -> Arc<Side> {
    Arc::new(Side {
        epoch: AtomicU64::new(epoch.to_wire()),
        left: UnsafeCell::new(0),
        published: AtomicU64::new(0),
    })
}

impl Side {
    fn leave(&self, value: u64) {
        // SAFETY: the holder's own; loom checks it.
        self.left.with_mut(|left| unsafe { *left = value });
    }

    fn take_over(&self) -> u64 {
        // SAFETY: the holder's own; loom checks it.
        self.left.with(|left| unsafe { *left })
    }
}

#[test]
fn closed_is_seen_after_all_that_was_published() {
    check(None, || {
        let side = side(Epoch::FIRST);
        let other = Arc::clone(&side);
        let closing = thread::spawn(move || {
            // Relaxed: the epoch alone has to bring it.
            other.published.store(1, Ordering::Relaxed);
            close(&other.epoch, Epoch::FIRST);
        });
        if look(&side.epoch) == State::Closed {
            assert_eq!(side.published.load(Ordering::Relaxed), 1);
        }
        closing.join().unwrap();
        assert_eq!(look(&side.epoch), State::Closed);
    });
}

#[test]
fn closed_by_a_later_holder_is_seen_after_all_that_was_published() {
    check(None, || {
        let side = side(Epoch::FIRST);
        let in_transit = Epoch::FIRST.let_go();
        let (first, second) = (Arc::clone(&side), Arc::clone(&side));
        let giving = thread::spawn(move || {
            first.published.store(1, Ordering::Relaxed);
            assert!(let_go(&first.epoch, Epoch::FIRST).is_some());
        });
        let taking = thread::spawn(move || {
            if let Some(open) = adopt(&second.epoch, in_transit) {
                close(&second.epoch, open);
            }
        });
        if look(&side.epoch) == State::Closed {
            assert_eq!(side.published.load(Ordering::Relaxed), 1);
        }
        giving.join().unwrap();
        taking.join().unwrap();
    });
}

fn adopter_sees_what_was_left(let_go: fn(&AtomicU64, Epoch)) {
    check(None, move || {
        let side = side(Epoch::FIRST);
        let in_transit = Epoch::FIRST.let_go();
        let former = Arc::clone(&side);
        let giving = thread::spawn(move || {
            former.leave(7);
            let_go(&former.epoch, in_transit);
        });
        if adopt(&side.epoch, in_transit).is_some() {
            assert_eq!(side.take_over(), 7);
            side.leave(8);
        }
        giving.join().unwrap();
    });
}

#[test]
fn adopter_sees_what_the_former_holder_left() {
    adopter_sees_what_was_left(|word, in_transit| {
        assert_eq!(let_go(word, Epoch::FIRST), Some(in_transit));
    });
}

#[test]
fn adopter_sees_what_the_maker_left() {
    adopter_sees_what_was_left(set);
}

#[test]
fn adopted_once() {
    check(None, || {
        let in_transit = Epoch::FIRST.let_go();
        let side = side(in_transit);
        let other = Arc::clone(&side);
        let adopting = thread::spawn(move || adopt(&other.epoch, in_transit).is_some());
        let here = adopt(&side.epoch, in_transit).is_some();
        assert!(here ^ adopting.join().unwrap());
        assert_eq!(look(&side.epoch), State::Open);
    });
}

#[test]
fn closed_in_transit_or_adopted() {
    check(None, || {
        let in_transit = Epoch::FIRST.let_go();
        let side = side(in_transit);
        let other = Arc::clone(&side);
        let closing = thread::spawn(move || close(&other.epoch, in_transit));
        let adopted = adopt(&side.epoch, in_transit);
        closing.join().unwrap();
        let expected = if adopted.is_some() { State::Open } else { State::Closed };
        assert_eq!(look(&side.epoch), expected);
        // A stale handle changes nothing.
        set(&side.epoch, in_transit.let_go());
        close(&side.epoch, in_transit);
        assert_eq!(look(&side.epoch), State::InTransit);
    });
}

/// Each side has its own use of the memory; the one that is done last uses all of it.
#[test]
fn who_is_done_last_has_the_memory_alone() {
    check(None, || {
        let sides = Arc::new([side(Epoch::FIRST), side(Epoch::FIRST)]);
        let word = Arc::new(AtomicU32::new(0));
        let part = |own: usize| {
            let (sides, word) = (Arc::clone(&sides), Arc::clone(&word));
            move || {
                sides[own].leave(7);
                let is_last = is_done(&word, 1 << own);
                if is_last {
                    assert_eq!(sides[1 - own].take_over(), 7);
                    sides.iter().for_each(|side| side.leave(0));
                }
                is_last
            }
        };
        let (here, there) = (part(0), part(1));
        let there = thread::spawn(there);
        let is_last = here();
        assert!(is_last ^ there.join().unwrap(), "one is the last");
    });
}
