//! Members of a set, one who waits: each change is seen, though its ringer only rings at the line of its own member, and
//! though members come, pause and go on meanwhile. WAKE, as in [`super::wake`], for who sleeps on all lines at once.

use std::cell::Cell;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::barrier::{Barrier, step};
use super::check;
use crate::halves::{Asleep, Half};
use crate::sleep::{Bed, Sleeper, take_back_all};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::wake::must_ring;

/// More steps than the ringer here takes.
const STEPS: usize = 8;
const MEMBERS: usize = 2;
/// The line of the set itself, by which handles reach it.
const BELL: usize = MEMBERS;

/// The lines of all, and the epoll over them: bells lie on a line until they are taken.
#[derive(Default)]
struct Lines {
    bells: Mutex<[u32; MEMBERS + 1]>,
    rung: Condvar,
}

impl Lines {
    fn ring(&self, line: usize) {
        self.bells.lock().unwrap()[line] += 1;
        self.rung.notify_all();
    }

    /// Sleeps until a line has a bell; says which lines have one. loom reports a sleep that nobody ends.
    fn wait(&self) -> [bool; MEMBERS + 1] {
        let mut bells = self.bells.lock().unwrap();
        while bells.iter().all(|count| *count == 0) {
            bells = self.rung.wait(bells).unwrap();
        }
        bells.map(|count| count > 0)
    }

    fn clear(&self, line: usize) {
        self.bells.lock().unwrap()[line] = 0;
    }
}

#[derive(Default)]
struct Member {
    word: AtomicU32,
    change: AtomicBool,
}

/// What a handle asks for.
#[derive(Clone, Copy)]
enum Order {
    Insert(usize),
    Pause(usize),
    Resume(usize),
}

#[derive(Default)]
struct Shared {
    members: [Member; MEMBERS],
    lines: Lines,
    orders: Mutex<Vec<Order>>,
    has_orders: AtomicBool,
}

impl Shared {
    /// A handle's part, as [`crate::port`]'s.
    fn order(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap();
        orders.push(order);
        // Relaxed: the bell alone has to show it.
        self.has_orders.store(true, Ordering::Relaxed);
        self.lines.ring(BELL);
    }

    /// A ringer's part at one member.
    fn change(&self, index: usize, registered: bool) {
        let member = &self.members[index];
        // Relaxed: the wake-up alone has to show the change.
        member.change.store(true, Ordering::Relaxed);
        if must_ring(&member.word, registered) {
            self.lines.ring(index);
        }
    }
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

/// Where a member is, as in [`crate::port`]'s set.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Absent,
    Ready,
    Warm,
    Asleep,
    Stalled,
}

struct Place {
    sleeper: Sleeper,
    asleep: Asleep,
    state: Cell<State>,
    is_paused: Cell<bool>,
    is_seen: Cell<bool>,
}

impl Place {
    fn of(member: &Member) -> Self {
        Self {
            sleeper: Sleeper::new(Half::Receiver, &member.word),
            asleep: Asleep::default(),
            state: Cell::new(State::Ready),
            is_paused: Cell::new(false),
            is_seen: Cell::new(false),
        }
    }
}

/// The steps of [`crate::port`]'s set.
struct Set<'a> {
    shared: &'a Shared,
    barrier: Option<&'a Barrier>,
    places: [Place; MEMBERS],
}

impl<'a> Set<'a> {
    fn of(shared: &'a Shared, barrier: Option<&'a Barrier>) -> Self {
        Self { shared, barrier, places: shared.members.each_ref().map(Place::of) }
    }

    /// Waits until the changes of all members were seen.
    fn wait_for_all(&self) {
        while !self.places.iter().all(|place| place.is_seen.get()) {
            if self.has_news() {
                self.tell();
                continue;
            }
            self.rest();
            if !self.has_news() {
                self.sleep();
            }
        }
    }

    fn obey(&self) {
        if !self.shared.has_orders.load(Ordering::Relaxed) {
            return;
        }
        let mut orders = self.shared.orders.lock().unwrap();
        self.shared.has_orders.store(false, Ordering::Relaxed);
        for order in std::mem::take(&mut *orders) {
            match order {
                Order::Insert(index) => self.places[index].state.set(State::Ready),
                Order::Pause(index) => self.places[index].is_paused.set(true),
                Order::Resume(index) => {
                    let place = &self.places[index];
                    place.is_paused.set(false);
                    if place.state.get() == State::Stalled {
                        place.state.set(State::Ready);
                    }
                }
            }
        }
    }

    /// A change is news once, as a message is.
    fn has_change(&self, index: usize) -> bool {
        !self.places[index].is_seen.get()
            && self.shared.members[index].change.load(Ordering::Relaxed)
    }

    fn has_news(&self) -> bool {
        self.obey();
        for (index, place) in self.places.iter().enumerate() {
            if place.state.get() != State::Ready {
                continue;
            }
            match (self.has_change(index), place.is_paused.get()) {
                (true, false) => return true,
                (true, true) => place.state.set(State::Stalled),
                (false, _) => place.state.set(State::Warm),
            }
        }
        false
    }

    fn tell(&self) {
        for (index, place) in self.places.iter().enumerate() {
            if place.state.get() == State::Ready && !place.is_paused.get() && self.has_change(index)
            {
                place.is_seen.set(true);
                place.state.set(State::Warm);
            }
        }
    }

    fn rest(&self) {
        let all = || self.places.iter().zip(&self.shared.members).enumerate();
        let warm = || all().filter(|(_, (place, _))| place.state.get() == State::Warm);
        let must_demand =
            warm().map(|(_, (place, member))| place.sleeper.must_demand(&member.word));
        take_back_all(must_demand, || {
            self.barrier.unwrap().demand();
            true
        });
        for (index, (place, member)) in warm() {
            let bed = Line(&self.shared.lines, index);
            let look = || self.has_change(index);
            let lies = place.sleeper.try_lie_down(&bed, &place.asleep, &member.word, look);
            place.state.set(if lies { State::Asleep } else { State::Ready });
        }
    }

    fn sleep(&self) {
        let mut told = [false; MEMBERS + 1];
        match self.barrier {
            Some(barrier) => barrier.asleep(|| told = self.shared.lines.wait()),
            None => told = self.shared.lines.wait(),
        }
        if told[BELL] {
            self.shared.lines.clear(BELL);
        }
        for (index, place) in self.places.iter().enumerate().filter(|(index, _)| told[*index]) {
            let (word, bed) = (&self.shared.members[index].word, Line(&self.shared.lines, index));
            bed.clear();
            if place.state.get() == State::Asleep {
                place.sleeper.get_up(&bed, &place.asleep, word, true);
                place.state.set(State::Ready);
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
            thread::spawn(move || shared.change(index, false))
        });
        Set::of(&shared, None).wait_for_all();
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

/// One ringer, whom the set's barrier reaches at its step number `at`, has the other ends of both.
#[test]
fn both_that_stream_are_seen() {
    for at in 0..STEPS {
        check(Some(3), move || {
            let (shared, barrier) = (Arc::new(Shared::default()), Barrier::new());
            let set = Set::of(&shared, Some(&barrier));
            let all = set.places.iter().zip(&shared.members);
            all.for_each(|(place, member)| place.sleeper.waiter().stream(&member.word));
            let (theirs, coming) = (Arc::clone(&shared), barrier.clone());
            let change_both = move || {
                for index in 0..2 {
                    step();
                    theirs.change(index, true);
                    step();
                }
            };
            let ringing = thread::spawn(move || coming.strikes(at, change_both));
            set.wait_for_all();
            // If it was seen without.
            barrier.demand();
            ringing.join().unwrap();
        });
    }
}

/// A handle brings one in, while the set lies down with the other one, or sleeps. Its change may come at any time.
#[test]
fn one_that_joins_is_seen() {
    check(Some(3), || {
        let shared = Arc::new(Shared::default());
        let set = Set::of(&shared, None);
        set.places[1].state.set(State::Absent);
        let theirs = Arc::clone(&shared);
        let changing = thread::spawn(move || [1, 0].map(|index| theirs.change(index, false)));
        let handle = Arc::clone(&shared);
        let joining = thread::spawn(move || handle.order(Order::Insert(1)));
        set.wait_for_all();
        changing.join().unwrap();
        joining.join().unwrap();
    });
}

/// A handle pauses one, which may have something by then, and has it go on.
#[test]
fn one_that_pauses_is_seen_when_it_goes_on() {
    check(Some(3), || {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let changing = thread::spawn(move || [0, 1].map(|index| theirs.change(index, false)));
        let handle = Arc::clone(&shared);
        let pausing = thread::spawn(move || {
            handle.order(Order::Pause(0));
            handle.order(Order::Resume(0));
        });
        Set::of(&shared, None).wait_for_all();
        changing.join().unwrap();
        pausing.join().unwrap();
    });
}

/// As above, where both stream, and the one that was paused may still do so when it goes on.
#[test]
fn one_that_streams_and_pauses_is_seen_when_it_goes_on() {
    for at in 0..STEPS {
        check(Some(2), move || {
            let (shared, barrier) = (Arc::new(Shared::default()), Barrier::new());
            let set = Set::of(&shared, Some(&barrier));
            set.places[0].is_paused.set(true);
            let all = set.places.iter().zip(&shared.members);
            all.for_each(|(place, member)| place.sleeper.waiter().stream(&member.word));
            let (theirs, coming) = (Arc::clone(&shared), barrier.clone());
            let change_both = move || {
                for index in 0..2 {
                    step();
                    theirs.change(index, true);
                    step();
                }
            };
            let ringing = thread::spawn(move || coming.strikes(at, change_both));
            let handle = Arc::clone(&shared);
            let resuming = thread::spawn(move || handle.order(Order::Resume(0)));
            set.wait_for_all();
            // If it was seen without.
            barrier.demand();
            ringing.join().unwrap();
            resuming.join().unwrap();
        });
    }
}
