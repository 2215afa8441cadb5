//! A line of one waiter: bells that can be rung, waited for and cleared.

use loom::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(super) struct Bells {
    lying: Mutex<u32>,
    rung: Condvar,
}

impl Bells {
    pub(super) fn new() -> Self {
        Self { lying: Mutex::new(0), rung: Condvar::new() }
    }

    pub(super) fn ring(&self) {
        *self.lying.lock().unwrap() += 1;
        self.rung.notify_all();
    }

    /// Sleeps until there is a bell and takes it. loom reports a sleep that nobody ends.
    pub(super) fn take(&self) {
        let mut lying = self.lying.lock().unwrap();
        while *lying == 0 {
            lying = self.rung.wait(lying).unwrap();
        }
        *lying -= 1;
    }

    /// As [`take`](Self::take), but leaves it there.
    pub(super) fn hear(&self) {
        let mut lying = self.lying.lock().unwrap();
        while *lying == 0 {
            lying = self.rung.wait(lying).unwrap();
        }
    }

    pub(super) fn clear(&self) {
        *self.lying.lock().unwrap() = 0;
    }
}
