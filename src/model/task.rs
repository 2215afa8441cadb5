//! A task that waits in a runtime: it checks, arms, and is woken by what is new on its line, and only by that, as
//! a runtime asks for (`EPOLLET`). Each change is seen, and so is the end, also where both are told of at once.

use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;

use super::barrier::{Barrier, step};
use super::check;
use crate::halves::{Asleep, Half};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::must_ring;

/// More steps than the ringer here takes.
const STEPS: usize = 8;

/// The line as the kernel knows it, and what the runtime was told of it.
#[derive(Default)]
struct Line {
    bells: u32,
    is_hung_up: bool,
    is_news: bool,
}

#[derive(Default)]
struct Shared {
    word: AtomicU32,
    changes: AtomicU64,
    line: Mutex<Line>,
    told: Condvar,
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap()
    }

    fn tell(&self, what: impl FnOnce(&mut Line)) {
        let mut line = self.line();
        what(&mut line);
        line.is_news = true;
        self.told.notify_all();
    }

    /// The runtime sleeps until there is news. loom reports a sleep that nobody ends.
    fn wait_for_news(&self) {
        let mut line = self.line();
        while !line.is_news {
            line = self.told.wait(line).unwrap();
        }
        line.is_news = false;
    }

    /// Takes a bell, if there is one.
    fn hear(&self) -> bool {
        let mut line = self.line();
        let bell = line.bells > 0;
        line.bells -= u32::from(bell);
        bell
    }

    /// The other side's part: its changes, and then it is no more.
    fn change(&self, changes: u64, registered: bool) {
        for change in 1..=changes {
            step();
            self.changes.store(change, Ordering::Relaxed);
            if must_ring(&self.word, registered) {
                self.tell(|line| line.bells += 1);
            }
            step();
        }
        self.tell(|line| line.is_hung_up = true);
    }
}

struct OnLine<'a> {
    shared: &'a Shared,
    barrier: Option<&'a Barrier>,
}

impl Bed for OnLine<'_> {
    fn barrier(&self) -> bool {
        self.barrier.unwrap().demand();
        true
    }

    fn wait(&self) -> bool {
        unreachable!("the runtime does")
    }

    fn wait_shortly(&self) -> bool {
        unreachable!("barriers are never refused here")
    }

    fn clear(&self) {
        self.shared.line().bells = 0;
    }

    fn kick(&self, _: Half) {
        unreachable!("the other half never sleeps here")
    }
}

/// A half in a task.
struct Task<'a> {
    bed: OnLine<'a>,
    sleeper: &'a Sleeper,
    asleep: Asleep,
    is_armed: bool,
    knows_the_end: bool,
}

impl Task<'_> {
    /// As a port's `Hold::arm`.
    fn arm(&mut self, is_there: impl Fn(&Self) -> bool) -> bool {
        let (shared, sleeper) = (self.bed.shared, self.sleeper);
        let was_armed = std::mem::take(&mut self.is_armed);
        let bell = was_armed && shared.hear();
        self.knows_the_end |= shared.line().is_hung_up;
        if was_armed {
            sleeper.get_up(&self.bed, &self.asleep, &shared.word, bell);
        }
        assert!(sleeper.stop_streaming(&self.bed, &shared.word));
        let look = || is_there(self);
        self.is_armed = sleeper.try_lie_down(&self.bed, &self.asleep, &shared.word, look);
        self.is_armed
    }

    /// As `AsyncReceiver::poll_next`, until it is ready; asked once more, it takes what its runtime has to say first.
    fn wait(&mut self, is_there: impl Fn(&Self) -> bool) {
        while !is_there(self) {
            self.bed.shared.line().is_news = false;
            if !self.arm(&is_there) {
                return;
            }
            match self.bed.barrier {
                Some(barrier) => barrier.asleep(|| self.bed.shared.wait_for_news()),
                None => self.bed.shared.wait_for_news(),
            }
        }
    }

    /// A wait that is given up before anything is said.
    fn give_up(&mut self) {
        if self.arm(|_| false) {
            self.is_armed = false;
            self.sleeper.get_up(&self.bed, &self.asleep, &self.bed.shared.word, false);
        }
    }
}

/// Waits for so many changes, one by one, and for the end.
fn see_all(
    shared: &Shared,
    sleeper: &Sleeper,
    changes: u64,
    given_up: bool,
    barrier: Option<&Barrier>,
) {
    let bed = OnLine { shared, barrier };
    let asleep = Asleep::default();
    let mut task = Task { bed, sleeper, asleep, is_armed: false, knows_the_end: false };
    for change in 1..=changes {
        // Relaxed: the wake-up alone has to show the change.
        task.wait(|_| shared.changes.load(Ordering::Relaxed) >= change);
    }
    if given_up {
        task.give_up();
    }
    task.wait(|task| task.knows_the_end);
}

fn changes_and_the_end(changes: u64, given_up: bool) {
    check(Some(3), move || {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let ringing = thread::spawn(move || theirs.change(changes, false));
        let sleeper = Sleeper::new(Half::Receiver, &shared.word);
        see_all(&shared, &sleeper, changes, given_up, None);
        ringing.join().unwrap();
    });
}

#[test]
fn changes_and_the_end_are_seen() {
    changes_and_the_end(1, false);
    changes_and_the_end(2, false);
}

#[test]
fn the_end_is_seen_after_a_wait_that_was_given_up() {
    changes_and_the_end(0, true);
    changes_and_the_end(1, true);
}

/// The ringer relies on the barrier of who stops to stream, which reaches it at its step number `at`.
#[test]
fn what_comes_to_one_that_streams_is_seen() {
    for at in 0..STEPS {
        check(Some(3), move || {
            let (shared, barrier) = (Arc::new(Shared::default()), Barrier::new());
            let sleeper = Sleeper::new(Half::Receiver, &shared.word);
            sleeper.waiter().stream(&shared.word);
            let (theirs, coming) = (Arc::clone(&shared), barrier.clone());
            let ringing = thread::spawn(move || coming.strikes(at, || theirs.change(1, true)));
            see_all(&shared, &sleeper, 1, false, Some(&barrier));
            ringing.join().unwrap();
        });
    }
}
