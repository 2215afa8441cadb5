//! WAKE and the barrier: a change is seen, or the bell is rung. What changes is a word without any
//! ordering of its own, so that the wake-up alone has to do it; the same then holds for messages and
//! for room. At the end both directions at once, over a real ring.

use std::mem::ManuallyDrop;

use loom::sync::Arc;
use loom::thread;

use super::barrier::{Barrier, step};
use super::{Bells, Heap, check};
use crate::epoch::{Epoch, adopt, let_go};
use crate::halves::{Asleep, Half};
use crate::ring::{Consumer, Content, Found, Producer};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::{could_not_ring, must_ring};

/// More steps than any ringer here takes.
const STEPS: usize = 8;

/// What waiter and ringer share.
struct Shared {
    /// Of the waiter's side.
    epoch: AtomicU64,
    word: AtomicU32,
    changes: AtomicU64,
    bells: Bells,
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        epoch: AtomicU64::new(Epoch::FIRST.to_wire()),
        word: AtomicU32::default(),
        changes: AtomicU64::new(0),
        bells: Bells::new(),
    })
}

/// A waiter's bed, with the barrier of its only ringer if that one is registered.
struct OneLine<'a> {
    bells: &'a Bells,
    barrier: Option<&'a Barrier>,
}

impl Bed for OneLine<'_> {
    fn barrier(&self) -> bool {
        if let Some(barrier) = self.barrier {
            barrier.demand();
        }
        true
    }

    fn wait(&self) -> bool {
        match self.barrier {
            Some(barrier) => barrier.asleep(|| self.bells.take()),
            None => self.bells.take(),
        }
        true
    }

    fn wait_shortly(&self) -> bool {
        unreachable!("barriers are never refused here")
    }

    fn clear(&self) {
        self.bells.clear();
    }

    fn kick(&self, _: Half) {
        unreachable!("the other half never sleeps here")
    }
}

/// How the waiter stands at the start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Fenced,
    Streaming,
    /// Streams after the first success.
    AboutToStream,
}

/// Waits for the changes one by one. Returns how often it went to sleep.
fn wait_for_all(shared: &Shared, sleeper: &Sleeper, bed: &impl Bed, changes: u64) -> u32 {
    let asleep = Asleep::default();
    let mut sleeps = 0;
    for change in 1..=changes {
        let look = || (shared.changes.load(Ordering::Relaxed) >= change).then_some(());
        while look().is_none() {
            sleeps += 1;
            if sleeper.sleep(bed, &asleep, &shared.word, look).is_some() {
                break;
            }
        }
        if sleeper.waiter().succeeded() {
            sleeper.waiter().stream(&shared.word);
        }
    }
    sleeps
}

/// Makes the changes one by one. Returns how often it rang. Bells for the first `refused` changes fail.
fn make_all(shared: &Shared, changes: u64, registered: bool, refused: u64) -> u32 {
    let mut rung = 0;
    for change in 1..=changes {
        step();
        shared.changes.store(change, Ordering::Relaxed);
        if must_ring(&shared.word, registered) {
            if change > refused {
                rung += 1;
                shared.bells.ring();
            } else {
                could_not_ring(&shared.word);
            }
        }
        step();
    }
    rung
}

/// One waiter, one ringer; loom reports a waiter that sleeps for ever. `strikes_at`: the ringer is
/// registered, and the waiter's barrier reaches it there.
fn waiter_sees_all(start: Start, changes: u64, strikes_at: Option<usize>) {
    // One change: every run there is. More: every run with up to three forced switches.
    let max_preemptions = if changes > 1 { Some(3) } else { None };
    check(max_preemptions, move || {
        let shared = shared();
        let sleeper = Sleeper::new(Half::Receiver, &shared.word);
        match start {
            Start::Fenced => {}
            Start::Streaming => sleeper.waiter().stream(&shared.word),
            Start::AboutToStream => assert!(!sleeper.waiter().succeeded()),
        }
        let barrier = strikes_at.map(|at| (Barrier::new(), at));
        let (theirs, coming) = (Arc::clone(&shared), barrier.clone());
        let ringing = thread::spawn(move || match coming {
            None => make_all(&theirs, changes, false, 0),
            Some((barrier, at)) => barrier.strikes(at, || make_all(&theirs, changes, true, 0)),
        });
        let barrier = barrier.as_ref().map(|(barrier, _)| barrier);
        let bed = OneLine { bells: &shared.bells, barrier };
        let sleeps = wait_for_all(&shared, &sleeper, &bed, changes);
        // The ringer may still wait for a barrier that was not needed.
        bed.barrier();
        assert!(ringing.join().unwrap() <= sleeps, "at most one bell for each sleep");
    });
}

#[test]
fn fenced() {
    waiter_sees_all(Start::Fenced, 1, None);
    waiter_sees_all(Start::Fenced, 2, None);
}

#[test]
fn streaming_to_a_registered_ringer() {
    for at in 0..STEPS {
        waiter_sees_all(Start::Streaming, 1, Some(at));
        waiter_sees_all(Start::Streaming, 2, Some(at));
    }
}

#[test]
fn begins_to_stream() {
    for at in 0..STEPS {
        waiter_sees_all(Start::AboutToStream, 2, Some(at));
    }
}

#[test]
fn streaming_to_a_ringer_that_no_barrier_reaches() {
    waiter_sees_all(Start::Streaming, 2, None);
    waiter_sees_all(Start::AboutToStream, 2, None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn heeding_streaming_without_a_barrier_sleeps_for_ever() {
    check(None, || {
        let shared = shared();
        let sleeper = Sleeper::new(Half::Receiver, &shared.word);
        sleeper.waiter().stream(&shared.word);
        let theirs = Arc::clone(&shared);
        let ringing = thread::spawn(move || make_all(&theirs, 1, true, 0));
        let bed = OneLine { bells: &shared.bells, barrier: None };
        wait_for_all(&shared, &sleeper, &bed, 1);
        ringing.join().unwrap();
    });
}

/// A port moves while its waiter streams: the former holder's part.
fn stream_and_let_go(shared: &Shared) {
    let sleeper = Sleeper::new(Half::Receiver, &shared.word);
    sleeper.waiter().stream(&shared.word);
    assert!(let_go(&shared.epoch, Epoch::FIRST).is_some());
}

fn adopts(shared: &Shared) -> bool {
    adopt(&shared.epoch, Epoch::FIRST.let_go()).is_some()
}

#[test]
fn an_adopter_that_inherits_streaming() {
    for at in 0..STEPS {
        check(Some(3), move || {
            let (shared, barrier) = (shared(), Barrier::new());
            let (former, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
            let coming = barrier.clone();
            let giving = thread::spawn(move || stream_and_let_go(&former));
            let ringing =
                thread::spawn(move || coming.strikes(at, || make_all(&theirs, 1, true, 0)));
            let bed = OneLine { bells: &shared.bells, barrier: Some(&barrier) };
            if adopts(&shared) {
                let sleeper = Sleeper::new(Half::Receiver, &shared.word);
                wait_for_all(&shared, &sleeper, &bed, 1);
            }
            bed.barrier();
            giving.join().unwrap();
            ringing.join().unwrap();
        });
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_adopter_that_does_not_inherit_sleeps_for_ever() {
    check(Some(3), || {
        let shared = shared();
        let (former, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
        let giving = thread::spawn(move || stream_and_let_go(&former));
        let ringing = thread::spawn(move || make_all(&theirs, 1, true, 0));
        if adopts(&shared) {
            let fresh = ManuallyDrop::new(AtomicU32::default());
            let sleeper = Sleeper::new(Half::Receiver, &fresh);
            assert!(!sleeper.waiter().is_streaming(), "so it demands no barrier");
            let bed = OneLine { bells: &shared.bells, barrier: None };
            wait_for_all(&shared, &sleeper, &bed, 1);
        }
        giving.join().unwrap();
        ringing.join().unwrap();
    });
}

/// As [`OneLine`], for who leaves the bell that has woken it on the line.
struct Leaving<'a>(&'a Bells, &'a Sleeper);

impl Bed for Leaving<'_> {
    fn barrier(&self) -> bool {
        unreachable!("nobody streams here")
    }

    fn wait(&self) -> bool {
        self.0.hear();
        self.1.leave_bell();
        false
    }

    fn wait_shortly(&self) -> bool {
        unreachable!("barriers are never refused here")
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn kick(&self, _: Half) {
        unreachable!("the other half never sleeps here")
    }
}

#[test]
fn a_bell_that_is_left_is_heard_once() {
    check(Some(3), || {
        let shared = shared();
        let ringer = Arc::clone(&shared);
        let ringing = thread::spawn(move || make_all(&ringer, 2, false, 0));
        let sleeper = Sleeper::new(Half::Receiver, &shared.word);
        let sleeps = wait_for_all(&shared, &sleeper, &Leaving(&shared.bells, &sleeper), 2);
        // For each change once, and once for a bell that came late.
        assert!(sleeps <= 3, "{sleeps} sleeps");
        ringing.join().unwrap();
    });
}

#[test]
fn bell_that_could_not_be_rung() {
    check(None, || {
        let shared = shared();
        let sleeper = Sleeper::new(Half::Receiver, &shared.word);
        let theirs = Arc::clone(&shared);
        let ringing = thread::spawn(move || make_all(&theirs, 2, false, 1));
        let look = || (shared.changes.load(Ordering::Relaxed) == 2).then_some(());
        let bed = OneLine { bells: &shared.bells, barrier: None };
        let asleep = Asleep::default();
        // If the second change rings nobody, then only because the waiter has seen it.
        while sleeper.sleep(&bed, &asleep, &shared.word, look).is_none() {}
        ringing.join().unwrap();
    });
}

/// Posts one record if there is room.
fn post(poster: &Producer<Arc<Heap>>, value: u64) -> Option<()> {
    let reservation = poster.reserve(16).ok()?;
    poster.memory().fill(&reservation, value);
    poster.publish(reservation, Content::plain(16, 0));
    Some(())
}

/// Takes one record if there is one, and gives its room back.
fn take(reader: &Consumer<Arc<Heap>>) -> Option<u64> {
    let Found::Record(record) = reader.peek() else { return None };
    let value = reader.memory().value(&record);
    reader.take(record.to);
    reader.release(record.from, record.to);
    reader.give_back();
    Some(value)
}

/// A poster that waits for room and a reader that waits for messages, over one ring.
#[test]
fn both_directions_over_a_ring() {
    check(Some(3), || {
        let heap = Heap::at(0);
        let poster = Producer::new(Arc::clone(&heap), 0);
        let reader = Consumer::new(heap, 0);
        (1..=3).for_each(|value| post(&poster, value).unwrap());
        let (room, messages) = (shared(), shared());
        let (rooms, message) = (Arc::clone(&room), Arc::clone(&messages));
        let posting = thread::spawn(move || {
            let (sleeper, asleep) = (Sleeper::new(Half::Sender, &rooms.word), Asleep::default());
            let bed = OneLine { bells: &rooms.bells, barrier: None };
            while sleeper.sleep(&bed, &asleep, &rooms.word, || post(&poster, 4)).is_none() {}
            if must_ring(&message.word, true) {
                message.bells.ring();
            }
        });
        let (sleeper, asleep) = (Sleeper::new(Half::Receiver, &messages.word), Asleep::default());
        let bed = OneLine { bells: &messages.bells, barrier: None };
        let mut last = 0;
        while last < 4 {
            let Some(value) = sleeper.sleep(&bed, &asleep, &messages.word, || take(&reader)) else {
                continue;
            };
            assert_eq!(value, last + 1);
            last = value;
            if must_ring(&room.word, true) {
                room.bells.ring();
            }
        }
        posting.join().unwrap();
    });
}
