//! Two members of a set, one who waits: each change is seen, though its ringer only rings at the line of its own
//! member. WAKE, as in [`super::wake`], for who sleeps on both lines at once.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::barrier::{Barrier, step};
use super::check;
use crate::halves::{Asleep, Half};
use crate::sleep::{Bed, Sleeper};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::wake::must_ring;

/// More steps than the ringer here takes.
const STEPS: usize = 8;

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

    /// Sleeps until a line has a bell. loom reports a sleep that nobody ends.
    fn wait(&self) {
        let mut bells = self.bells.lock().unwrap();
        while *bells == [0, 0] {
            bells = self.rung.wait(bells).unwrap();
        }
    }

    /// Which lines have a bell.
    fn told(&self) -> [bool; 2] {
        self.bells.lock().unwrap().map(|count| count > 0)
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
        unreachable!("the set demands it, for all")
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

fn sleepers(shared: &Shared) -> [Sleeper; 2] {
    shared.members.each_ref().map(|member| Sleeper::new(Half::Receiver, &member.word))
}

/// As [`crate::port`]'s set: all leave `Streaming`, with one barrier; all lie down, unless there is something; then it
/// sleeps, and who is told of gets up.
fn wait_for_both(shared: &Shared, sleepers: &[Sleeper; 2], barrier: Option<&Barrier>) {
    let asleep = [Asleep::default(), Asleep::default()];
    let (mut seen, mut lies) = ([false; 2], [false; 2]);
    while seen != [true; 2] {
        let all = sleepers.iter().zip(&shared.members);
        let streamed = all.filter(|(sleeper, member)| sleeper.must_demand(&member.word));
        if streamed.count() > 0 {
            barrier.unwrap().demand();
        }
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
        match barrier {
            Some(barrier) => barrier.asleep(|| shared.lines.wait()),
            None => shared.lines.wait(),
        }
        let told = shared.lines.told();
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

/// A ringer's part at one member.
fn change(shared: &Shared, index: usize, registered: bool) {
    let member = &shared.members[index];
    member.change.store(true, Ordering::Relaxed);
    if must_ring(&member.word, registered) {
        shared.lines.ring(index);
    }
}

#[test]
fn both_are_seen() {
    check(Some(3), || {
        let shared = Arc::new(Shared::default());
        let ringers = [0, 1].map(|index| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || change(&shared, index, false))
        });
        wait_for_both(&shared, &sleepers(&shared), None);
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

/// One ringer, whom the set's barrier reaches at its step number `at`, has the other ends of both.
#[test]
fn both_that_stream_are_seen() {
    for at in 0..STEPS {
        check(Some(3), move || {
            let (shared, barrier) = (Arc::new(Shared::default()), Barrier::new());
            let sleepers = sleepers(&shared);
            let all = sleepers.iter().zip(&shared.members);
            all.for_each(|(sleeper, member)| sleeper.waiter().stream(&member.word));
            let (theirs, coming) = (Arc::clone(&shared), barrier.clone());
            let change_both = move || {
                for index in 0..2 {
                    step();
                    change(&theirs, index, true);
                    step();
                }
            };
            let ringing = thread::spawn(move || coming.strikes(at, change_both));
            wait_for_both(&shared, &sleepers, Some(&barrier));
            ringing.join().unwrap();
        });
    }
}
