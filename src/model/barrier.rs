//! The barrier that a thread can demand of another: a fence that the other runs at one of its steps.
//!
//! The kernel interrupts a running process wherever it is. Here the other thread meets the demand at a
//! chosen step; a model is run once for each step, so the barrier strikes at every one, also before
//! the first and after the last (who has finished runs no more, and the kernel's switch was a fence).
//! Steps are the calls of [`step`]: the models' own, and each `compiler_fence` in the crate.

use std::cell::RefCell;

use loom::sync::{Arc, Condvar, Mutex};

use crate::sync::{AT_COMPILER_FENCE, Ordering, fence};

/// Where who demands and who is struck meet.
#[derive(Clone, Debug)]
pub(super) struct Barrier(Arc<(Mutex<Stage>, Condvar)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awake,
    Asleep,
    Demanded,
    Struck,
}

loom::thread_local! {
    /// The barrier that is going to strike this thread, and how many steps before it does.
    static COMING: RefCell<Option<(Barrier, usize)>> = RefCell::new(None);
}

impl Barrier {
    pub(super) fn new() -> Self {
        Self(Arc::new((Mutex::new(Stage::Awake), Condvar::new())))
    }

    /// Returns once the other thread has fenced. Later demands find that it has.
    pub(super) fn demand(&self) {
        fence(Ordering::SeqCst);
        self.meet(Stage::Awake, Stage::Demanded);
        self.wait_for(|stage| stage == Stage::Struck);
        fence(Ordering::SeqCst);
    }

    /// Sleeps; who has not demanded yet will not do so before it wakes.
    pub(super) fn asleep(&self, sleep: impl FnOnce()) {
        self.meet(Stage::Awake, Stage::Asleep);
        sleep();
        self.meet(Stage::Asleep, Stage::Awake);
    }

    /// Runs the other thread's part, which the barrier strikes at its step number `at`, or at the
    /// first later one at which the demanding thread does not sleep.
    pub(super) fn strikes<T>(self, at: usize, part: impl FnOnce() -> T) -> T {
        COMING.with(|coming| coming.replace(Some((self, at))));
        AT_COMPILER_FENCE.with(|at| at.set(step));
        let result = part();
        if let Some((barrier, _)) = COMING.with(RefCell::take) {
            barrier.wait_for(|stage| stage == Stage::Demanded);
            barrier.strike();
        }
        result
    }

    fn strike(&self) {
        fence(Ordering::SeqCst);
        self.meet(Stage::Demanded, Stage::Struck);
    }

    fn wait_for(&self, awaited: impl Fn(Stage) -> bool) -> Stage {
        let mut stage = self.0.0.lock().unwrap();
        while !awaited(*stage) {
            stage = self.0.1.wait(stage).unwrap();
        }
        *stage
    }

    fn meet(&self, from: Stage, to: Stage) {
        let mut stage = self.0.0.lock().unwrap();
        if *stage == from {
            *stage = to;
            self.0.1.notify_all();
        }
    }
}

/// A place where the barrier may strike this thread.
pub(super) fn step() {
    let due = COMING.with(|coming| {
        let mut coming = coming.borrow_mut();
        match coming.as_mut() {
            Some((barrier, 0)) => Some(barrier.clone()),
            Some((_, left)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    });
    let Some(barrier) = due else { return };
    let stage = barrier.wait_for(|stage| matches!(stage, Stage::Demanded | Stage::Asleep));
    if stage == Stage::Demanded {
        COMING.with(RefCell::take);
        barrier.strike();
    }
}
