//! Two members of a set, one who waits: each change is seen, though its ringer only rings at the line of its own
//! member. WAKE, as in [`super::wake`], for who sleeps on both lines at once.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::check;
use crate::halves::{Asleep, Half};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::wake::must_ring;

/// The lines of both, and the epoll over them: bells lie on a line until they are taken.
#[derive(Default)]
struct Lines {
    bells: Mutex<[u32; 2]>,
    rung: Condvar,
}

impl Lines {
    fn ring(&self, member: usize) {
        self.bells.lock().unwrap()[member] += 1;
        self.rung.notify_all();
    }

    /// Sleeps until a line has a bell; which ones have. loom reports a sleep that nobody ends.
    fn wait(&self) -> [bool; 2] {
        let mut bells = self.bells.lock().unwrap();
        while *bells == [0, 0] {
            bells = self.rung.wait(bells).unwrap();
        }
        bells.map(|count| count > 0)
    }

    fn clear(&self, member: usize) {
        self.bells.lock().unwrap()[member] = 0;
    }
}

#[derive(Default)]
struct Member {
    word: AtomicU32,
    change: AtomicBool,
}

#[derive(Default)]
struct Shared {
    members: [Member; 2],
    lines: Lines,
}

struct Line<'a>(&'a Lines, usize);

impl Bed for Line<'_> {
    fn barrier(&self) -> bool {
        unreachable!("nobody streams here")
    }

    fn wait(&self) -> bool {
        unreachable!("it sleeps on all lines")
    }

    fn wait_shortly(&self) -> bool {
        unreachable!("barriers are never refused here")
    }

    fn clear(&self) {
        self.0.clear(self.1);
    }

    fn kick(&self, _: Half) {
        unreachable!("the other half never sleeps here")
    }
}

/// As [`crate::port`]'s set: all lie down, unless there is something; then it sleeps, and who is told of gets up.
fn wait_for_both(shared: &Shared) {
    let sleepers =
        shared.members.each_ref().map(|member| Sleeper::new(Half::Receiver, &member.word));
    let asleep = [Asleep::default(), Asleep::default()];
    let (mut seen, mut lies) = ([false; 2], [false; 2]);
    while seen != [true; 2] {
        for index in 0..2 {
            let (member, bed) = (&shared.members[index], Line(&shared.lines, index));
            // Relaxed: the wake-up alone has to show the change.
            let look = || member.change.load(Ordering::Relaxed);
            if !seen[index] && !lies[index] {
                lies[index] =
                    sleepers[index].try_lie_down(&bed, &asleep[index], &member.word, look);
                seen[index] = !lies[index];
            }
        }
        if !lies.contains(&true) || seen == [true; 2] {
            continue;
        }
        let told = shared.lines.wait();
        for index in (0..2).filter(|index| told[*index]) {
            let (member, bed) = (&shared.members[index], Line(&shared.lines, index));
            bed.clear();
            if lies[index] {
                sleepers[index].get_up(&bed, &asleep[index], &member.word, true);
                lies[index] = false;
                seen[index] = member.change.load(Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn both_are_seen() {
    check(Some(3), || {
        let shared = Arc::new(Shared::default());
        let ringers = [0, 1].map(|index| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let member = &shared.members[index];
                member.change.store(true, Ordering::Relaxed);
                if must_ring(&member.word, false) {
                    shared.lines.ring(index);
                }
            })
        });
        wait_for_both(&shared);
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}
