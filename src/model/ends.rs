//! END and HANGUP: a post that reports success is seen before the close, and a close is not taken for
//! a death.

use loom::sync::Arc;
use loom::thread;

use super::barrier::{Barrier, step};
use super::{Bells, check};
use crate::ends::{End, Ends};
use crate::epoch::Epoch;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::{STREAMING, must_ring};

/// More steps than a post takes.
const STEPS: usize = 4;

/// A port that one thread posts on and another closes, and what the other side sees of it.
struct Port {
    ends: Ends,
    epoch: AtomicU64,
    wake: AtomicU32,
    published: AtomicU64,
}

fn port(wake: u32) -> Arc<Port> {
    Arc::new(Port {
        ends: Ends::new(),
        epoch: AtomicU64::new(Epoch::FIRST.to_wire()),
        wake: AtomicU32::new(wake),
        published: AtomicU64::new(0),
    })
}

impl Port {
    /// Publishes and wakes; whether it reports success.
    fn post(&self, registered: bool) -> bool {
        step();
        // Relaxed: what follows has to bring it.
        self.published.store(1, Ordering::Relaxed);
        let _ = must_ring(&self.wake, registered);
        step();
        self.ends.own().is_none()
    }

    fn close(&self, barrier: impl FnOnce()) {
        self.ends.close(&self.epoch, Epoch::FIRST, false, barrier);
    }

    /// The other side's look, which ends the channel if it sees the close and no message.
    fn ends_without_a_message(&self, other: &Ends) -> bool {
        let message = || self.published.load(Ordering::Relaxed) == 1;
        !message() && other.peer(&self.epoch).is_some() && !message()
    }
}

#[test]
fn a_post_that_fences_is_delivered_or_refused() {
    check(None, || {
        let port = port(STREAMING);
        let (posted, closed) = (Arc::clone(&port), Arc::clone(&port));
        let posting = thread::spawn(move || posted.post(false));
        let closing = thread::spawn(move || closed.close(|| {}));
        let lost = port.ends_without_a_message(&Ends::new());
        closing.join().unwrap();
        let success = posting.join().unwrap();
        assert!(!(success && lost), "reported as posted, and never seen");
    });
}

#[test]
fn a_post_that_heeds_streaming_is_delivered_or_refused() {
    for at in 0..STEPS {
        check(Some(3), move || {
            let (port, barrier) = (port(STREAMING), Barrier::new());
            let (posted, closed) = (Arc::clone(&port), Arc::clone(&port));
            let coming = barrier.clone();
            let posting = thread::spawn(move || coming.strikes(at, || posted.post(true)));
            let closing = thread::spawn(move || closed.close(|| barrier.demand()));
            let lost = port.ends_without_a_message(&Ends::new());
            closing.join().unwrap();
            let success = posting.join().unwrap();
            assert!(!(success && lost), "reported as posted, and never seen");
        });
    }
}

#[test]
#[should_panic(expected = "reported as posted, and never seen")]
fn a_post_that_heeds_streaming_is_lost_without_a_barrier() {
    check(None, || {
        let port = port(STREAMING);
        let (posted, closed) = (Arc::clone(&port), Arc::clone(&port));
        let posting = thread::spawn(move || posted.post(true));
        let closing = thread::spawn(move || closed.close(|| {}));
        let lost = port.ends_without_a_message(&Ends::new());
        closing.join().unwrap();
        let success = posting.join().unwrap();
        assert!(!(success && lost), "reported as posted, and never seen");
    });
}

/// Closers race; the first reason stays.
#[test]
fn closed_once() {
    check(None, || {
        let port = port(STREAMING);
        let other = Arc::clone(&port);
        let violated = thread::spawn(move || {
            other.ends.close(&other.epoch, Epoch::FIRST, true, || {});
            other.ends.own()
        });
        port.close(|| {});
        let here = port.ends.own();
        assert_eq!(here, violated.join().unwrap());
        assert_eq!(here, port.ends.own());
        assert_eq!(Ends::new().peer(&port.epoch), Some(End::Closed));
    });
}

/// A hang-up that comes of our own close, and that one half notes while another asks, is no death.
#[test]
fn an_own_close_is_not_taken_for_a_death() {
    check(None, || {
        let ours = port(STREAMING);
        let theirs = AtomicU64::new(Epoch::FIRST.to_wire());
        let hung_up = Arc::new(Bells::new());
        let (closed, hanging) = (Arc::clone(&ours), Arc::clone(&hung_up));
        let closing = thread::spawn(move || {
            closed.close(|| {});
            hanging.ring();
        });
        let noted = Arc::clone(&ours);
        let half = thread::spawn(move || {
            hung_up.take();
            noted.ends.note_hang_up();
        });
        assert!(matches!(ours.ends.either(&theirs), None | Some(End::Closed)));
        closing.join().unwrap();
        half.join().unwrap();
        assert_eq!(ours.ends.either(&theirs), Some(End::Closed));
    });
}

/// Whoever closes, and comes second, hangs up only when the epoch says closed.
#[test]
fn a_second_close_is_not_taken_for_a_death() {
    check(None, || {
        let port = port(STREAMING);
        let hung_up = Arc::new(Bells::new());
        let closing = [(); 2].map(|()| {
            let (closed, hanging) = (Arc::clone(&port), Arc::clone(&hung_up));
            thread::spawn(move || {
                closed.close(|| {});
                hanging.ring();
            })
        });
        hung_up.take();
        let ends = Ends::new();
        ends.note_hang_up();
        assert_eq!(ends.peer(&port.epoch), Some(End::Closed));
        for closing in closing {
            closing.join().unwrap();
        }
    });
}

/// One half sees the line hang up and says so to the other.
#[test]
fn a_close_is_not_taken_for_a_death() {
    check(None, || {
        let theirs = port(STREAMING);
        let ends = Arc::new(Ends::new());
        let hung_up = Arc::new(Bells::new());
        let (closed, hanging) = (Arc::clone(&theirs), Arc::clone(&hung_up));
        let closing = thread::spawn(move || {
            closed.close(|| {});
            hanging.ring();
        });
        let noted = Arc::clone(&ends);
        let half = thread::spawn(move || {
            hung_up.take();
            noted.note_hang_up();
        });
        assert!(matches!(ends.peer(&theirs.epoch), None | Some(End::Closed)));
        closing.join().unwrap();
        half.join().unwrap();
        assert_eq!(ends.peer(&theirs.epoch), Some(End::Closed));
    });
}
