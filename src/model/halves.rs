//! Two halves of one port asleep on one line: neither eats the other's bell.

use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;

use super::check;
use crate::halves::{Asleep, Half};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::must_ring;

/// What the kernel keeps: bells on the line, and a kick for each half.
#[derive(Default)]
struct Kernel {
    bells: u32,
    kicks: [bool; 2],
}

/// A port whose halves wait, each for changes of its own.
struct Port {
    asleep: Asleep,
    words: [AtomicU32; 2],
    changes: [AtomicU64; 2],
    kernel: Mutex<Kernel>,
    stirred: Condvar,
}

impl Port {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            asleep: Asleep::default(),
            words: Default::default(),
            changes: Default::default(),
            kernel: Mutex::default(),
            stirred: Condvar::new(),
        })
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    /// The other side's part: one change for this half, and the bell if it has to be rung.
    fn change(&self, half: Half, change: u64) {
        half.of(&self.changes).store(change, Ordering::Relaxed);
        if must_ring(half.of(&self.words), true) {
            self.kernel().bells += 1;
            self.stirred.notify_all();
        }
    }

    /// A half's part: waits for so many changes, one by one.
    fn wait(&self, half: Half, changes: u64) {
        let (sleeper, bed) =
            (Sleeper::new(half, half.of(&self.words)), HalfBed { port: self, half });
        for change in 1..=changes {
            let seen = || (half.of(&self.changes).load(Ordering::Relaxed) >= change).then_some(());
            while sleeper.sleep(&bed, &self.asleep, half.of(&self.words), seen).is_none() {}
        }
    }
}

fn index(half: Half) -> usize {
    *half.of(&[0, 1])
}

struct HalfBed<'a> {
    port: &'a Port,
    half: Half,
}

impl Bed for HalfBed<'_> {
    fn barrier(&self) -> bool {
        unreachable!("nobody streams here")
    }

    /// As the line does it: a poll of both, and then an attempt to take a bell.
    fn wait(&self) -> bool {
        let mut kernel = self.port.kernel();
        while kernel.bells == 0 && !kernel.kicks[index(self.half)] {
            kernel = self.port.stirred.wait(kernel).unwrap();
        }
        drop(kernel);
        let mut kernel = self.port.kernel();
        kernel.kicks[index(self.half)] = false;
        let bell = kernel.bells > 0;
        kernel.bells -= u32::from(bell);
        bell
    }

    fn wait_shortly(&self) -> bool {
        unreachable!("barriers are never refused here")
    }

    fn clear(&self) {
        self.port.kernel().bells = 0;
    }

    fn kick(&self, half: Half) {
        self.port.kernel().kicks[index(half)] = true;
        self.port.stirred.notify_all();
    }
}

/// Both halves wait in threads of their own; loom reports one that sleeps for ever.
fn both_wake(sender_changes: u64, changes: &'static [Half]) {
    check(Some(2), move || {
        let port = Port::new();
        let (sending, receiving) = (Arc::clone(&port), Arc::clone(&port));
        let sender = thread::spawn(move || sending.wait(Half::Sender, sender_changes));
        let receiver = thread::spawn(move || receiving.wait(Half::Receiver, 1));
        let mut made = [0; 2];
        for half in changes {
            made[index(*half)] += 1;
            port.change(*half, made[index(*half)]);
        }
        sender.join().unwrap();
        receiver.join().unwrap();
    });
}

#[test]
fn each_wakes_for_its_own_change() {
    both_wake(1, &[Half::Sender, Half::Receiver]);
    both_wake(1, &[Half::Receiver, Half::Sender]);
}

#[test]
fn clearing_stray_bells_takes_none_from_the_other_half() {
    both_wake(2, &[Half::Sender, Half::Receiver, Half::Sender]);
}
