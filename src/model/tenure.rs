//! HALVES, and a port in many hands: letting go, taking back, adopting and closing at once. There is one
//! holder at most, and the other end is told one end, the right one, after the last message.
#![allow(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::check;
use crate::ends::{End, Ends};
use crate::epoch::{self, Epoch};
use crate::sync::{AtomicU64, Ordering};
use crate::tenure::Tenure;

/// What the kernel keeps: the lane on which the port travels, and whether its line hung up.
#[derive(Default)]
struct Kernel {
    ticket: Option<Epoch>,
    hung_up: bool,
}

/// A port, whoever holds it.
struct Port {
    epoch: AtomicU64,
    /// The number of the last message that its holders have posted.
    posted: AtomicU64,
    /// What only a holder touches.
    position: UnsafeCell<u64>,
    kernel: Mutex<Kernel>,
}

// SAFETY: loom checks that the cell is not used by two threads at once.
unsafe impl Sync for Port {}
// SAFETY: as above.
unsafe impl Send for Port {}

/// One process's hold on a port.
struct Holder {
    port: Arc<Port>,
    tenure: Tenure,
    ends: Ends,
}

impl Port {
    fn adopt(port: &Arc<Self>, ticket: Epoch) -> Option<Arc<Holder>> {
        let epoch = epoch::adopt(&port.epoch, ticket)?;
        Some(Holder::new(port, epoch))
    }

    /// The last copy of its line's end is gone.
    fn hang_up(&self) {
        self.kernel.lock().unwrap().hung_up = true;
    }

    /// What the other end finds: how this one has ended, if it has, and the last message.
    fn look(&self, other: &Ends) -> Option<(End, u64)> {
        if self.kernel.lock().unwrap().hung_up {
            other.note_hang_up();
        }
        // Relaxed: as in `post`.
        Some((other.peer(&self.epoch)?, self.posted.load(Ordering::Relaxed)))
    }
}

impl Holder {
    fn new(port: &Arc<Port>, epoch: Epoch) -> Arc<Self> {
        let (port, tenure) = (Arc::clone(port), Tenure::new(epoch));
        Arc::new(Self { port, tenure, ends: Ends::new() })
    }

    /// The first holder of a port that has posted one message.
    fn first() -> (Arc<Port>, Arc<Self>) {
        let port = Arc::new(Port {
            epoch: AtomicU64::new(Epoch::FIRST.to_wire()),
            posted: AtomicU64::new(0),
            position: UnsafeCell::new(0),
            kernel: Mutex::default(),
        });
        let holder = Self::new(&port, Epoch::FIRST);
        holder.post(1);
        (port, holder)
    }

    /// Posts a message; only by the holder itself.
    fn post(&self, number: u64) {
        // SAFETY: the holder's own; loom checks it.
        self.port.position.with_mut(|position| unsafe { *position = number });
        // Relaxed: what brings the end has to bring it.
        self.port.posted.store(number, Ordering::Relaxed);
    }

    /// By anybody in the holder's process.
    fn close(&self) {
        let hang_up = || self.port.hang_up();
        self.tenure.close(&self.ends, &self.port.epoch, false, || {}, hang_up);
    }

    /// The holder gives the port away, if it is open; `kernel`: whether the kernel takes it.
    fn give_away(&self, kernel: bool) -> bool {
        let mut held = self.tenure.hold();
        if self.ends.own().is_some() || !held.is_ours() {
            return false;
        }
        let Some(in_transit) = held.let_go(&self.port.epoch) else { return false };
        if kernel {
            self.port.kernel.lock().unwrap().ticket = Some(in_transit);
        } else {
            held.take_back(&self.port.epoch, in_transit);
        }
        kernel
    }

    fn drop_halves(&self) {
        (0..2).for_each(|_| self.tenure.let_half_go(&self.port.epoch));
    }
}

/// What becomes of a port that is on the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Adopted; its new holder posts a message and closes it.
    Closed,
    /// Adopted; its new holder posts a message and dies.
    Died,
    /// Whoever was to take it lets it go.
    Dropped,
}

impl Fate {
    /// The taker's part; whether there was something to take.
    fn meets(self, port: &Arc<Port>) -> bool {
        let Some(ticket) = port.kernel.lock().unwrap().ticket.take() else { return false };
        if self != Self::Dropped {
            let holder = Port::adopt(port, ticket).unwrap();
            holder.post(2);
            if self == Self::Closed {
                holder.close();
            }
        }
        // What is left of the line goes with its last holder.
        port.hang_up();
        true
    }

    /// What the other end is told.
    fn end(self) -> (End, u64) {
        match self {
            Self::Closed => (End::Closed, 2),
            Self::Died => (End::Died, 2),
            Self::Dropped => (End::Lost, 1),
        }
    }
}

/// The port is given away while somebody closes it: one of the two happens. The next holder is there at
/// once or late; the other end looks at any time.
fn given_away_or_closed(fate: Fate) {
    check(Some(3), move || {
        let (port, holder) = Holder::first();
        let (closer, taken) = (Arc::clone(&holder), Arc::clone(&port));
        let giving = thread::spawn(move || {
            let gone = holder.give_away(true);
            if gone {
                // As the list is dropped. Nothing of it is ours any more.
                holder.drop_halves();
            }
            gone
        });
        let closing = thread::spawn(move || closer.close());
        let taking = thread::spawn(move || fate.meets(&taken));

        let other = Ends::new();
        let seen = port.look(&other);
        closing.join().unwrap();
        let (gone, taken) = (giving.join().unwrap(), taking.join().unwrap());
        assert!(gone || !taken);
        if gone && !taken {
            assert_eq!(seen, None, "nobody has ended it");
            assert!(fate.meets(&port));
        }
        let expected = if gone { fate.end() } else { (End::Closed, 1) };
        assert_eq!(port.look(&other), Some(expected));
        assert!(seen.is_none_or(|seen| seen == expected), "{seen:?}, then {expected:?}");
        assert_eq!(port.look(&Ends::new()), Some(expected), "for who asks late, too");
    });
}

#[test]
fn given_away_and_closed_there_or_closed_here() {
    given_away_or_closed(Fate::Closed);
}

#[test]
fn given_away_and_died_there_or_closed_here() {
    given_away_or_closed(Fate::Died);
}

#[test]
fn given_away_and_lost_or_closed_here() {
    given_away_or_closed(Fate::Dropped);
}

/// Given away, back, and away again, while a closer of the first hold is late: it never touches what
/// is held anew.
#[test]
fn a_late_closer_closes_nothing_of_a_later_hold() {
    check(Some(3), || {
        let (port, holder) = Holder::first();
        assert!(holder.give_away(true));
        let closing = thread::spawn(move || holder.close());
        let ticket = port.kernel.lock().unwrap().ticket.take().unwrap();
        let again = Port::adopt(&port, ticket).unwrap();
        again.post(2);
        let other = Ends::new();
        assert_eq!(port.look(&other), None);
        closing.join().unwrap();
        assert_eq!(port.look(&other), None);
        again.close();
        assert_eq!(port.look(&other), Some((End::Closed, 2)));
    });
}

/// The kernel refuses while somebody closes: the closer gets its way, before or after, and the other
/// end is told of nothing else.
#[test]
fn refused_and_closed() {
    check(None, || {
        let (port, holder) = Holder::first();
        let (closer, giver) = (Arc::clone(&holder), Arc::clone(&holder));
        let giving = thread::spawn(move || giver.give_away(false));
        let closing = thread::spawn(move || closer.close());
        let other = Ends::new();
        let seen = port.look(&other);
        assert!(matches!(seen, None | Some((End::Closed, 1))), "{seen:?}");
        closing.join().unwrap();
        assert!(!giving.join().unwrap());
        assert_eq!(port.look(&other), Some((End::Closed, 1)));
        assert!(!holder.give_away(true), "it is closed");
    });
}

/// The kernel refuses, and yet somebody got hold of the ticket: one of the two has the port then. If it
/// was taken back, the ticket is good for nothing, for ever.
#[test]
fn taken_back_or_adopted_by_a_thief() {
    check(None, || {
        let (port, holder) = Holder::first();
        let ticket = Epoch::FIRST.let_go();
        let stolen_from = Arc::clone(&port);
        let stealing = thread::spawn(move || {
            let thief = Port::adopt(&stolen_from, ticket);
            thief.inspect(|thief| thief.post(2)).is_some()
        });
        assert!(!holder.give_away(false));
        let is_ours = holder.tenure.hold().is_ours();
        if is_ours {
            holder.post(2);
        }
        let stolen = stealing.join().unwrap();
        assert!(is_ours ^ stolen);
        assert!(Port::adopt(&port, ticket).is_none());
        holder.close();
        let expected = is_ours.then_some((End::Closed, 2));
        assert_eq!(port.look(&Ends::new()), expected);
    });
}

/// Halves that are dropped by two threads: what either has posted comes before the close.
#[test]
fn the_second_half_closes_after_what_the_first_has_posted() {
    check(None, || {
        let (port, holder) = Holder::first();
        let halves = [(); 2].map(|()| Arc::clone(&holder));
        let [sender, receiver] = halves;
        let sending = thread::spawn(move || {
            sender.post(2);
            sender.tenure.let_half_go(&sender.port.epoch);
        });
        let receiving = thread::spawn(move || receiver.tenure.let_half_go(&receiver.port.epoch));
        let other = Ends::new();
        let seen = port.look(&other);
        assert!(matches!(seen, None | Some((End::Closed, 2))), "{seen:?}");
        sending.join().unwrap();
        receiving.join().unwrap();
        assert_eq!(port.look(&other), Some((End::Closed, 2)));
    });
}

/// A half that is dropped, the other that is given up, and a closer: one close.
#[test]
fn closed_by_halves_and_by_a_closer() {
    check(None, || {
        let (port, holder) = Holder::first();
        let closer = Arc::clone(&holder);
        let closing = thread::spawn(move || closer.close());
        holder.drop_halves();
        // Whatever the closer is at: the epoch says closed before the line goes.
        port.hang_up();
        let other = Ends::new();
        assert_eq!(port.look(&other), Some((End::Closed, 1)));
        closing.join().unwrap();
        assert_eq!(port.look(&other), Some((End::Closed, 1)));
    });
}
