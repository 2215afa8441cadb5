//! PUBLISH and RELEASE over several rings: a queue goes on in another ring, and comes back, and every message
//! is seen whole, in order and once.
//!
//! The reader follows a link only when it finds one, to the ring that lies on the lane then. (The lane is a
//! lock here, as in the kernel: what was sent before a link would be seen without it. What is prepared in
//! the first ring before a link leads back there has nothing but the link.)

use std::cell::Cell;
use std::collections::VecDeque;

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::check;
use super::heap::{CAPACITY, Heap};
use crate::epoch::{self, Epoch, State};
use crate::queue::{Poster, Reader};
use crate::ring::{Content, Found, Record, Reservation};
use crate::sync::AtomicU64;

const ORDER: u32 = CAPACITY.trailing_zeros();
/// Payloads of the three records of which the first ring is full to its last byte: a link that ends it has
/// the first of them behind it.
const LENS: [u64; 3] = [16, 32, 16];

/// Rings to which no link was followed yet.
type Lane = Arc<Mutex<VecDeque<Arc<Heap>>>>;

struct Posting {
    queue: Poster<Arc<Heap>>,
    lane: Lane,
}

struct Reading {
    queue: Reader<Arc<Heap>>,
    lane: Lane,
    /// The next value that has to come.
    next: Cell<u64>,
}

/// Both sides of an empty queue.
fn sides() -> (Posting, Reading) {
    let (first, lane) = (Heap::at(0), Lane::default());
    let posting = Posting { queue: Poster::new(Arc::clone(&first), 0), lane: Arc::clone(&lane) };
    (posting, Reading { queue: Reader::new(first, 0), lane, next: Cell::new(1) })
}

/// A queue whose first ring is full, of 1 to 3.
fn full() -> (Posting, Reading) {
    let (posting, reading) = sides();
    for (value, len) in (1..).zip(LENS) {
        assert!(posting.post_len(value, len));
    }
    assert!(!posting.post(4), "it is full");
    (posting, reading)
}

impl Posting {
    /// Posts a value; false: there is no room where it stands.
    fn post(&self, value: u64) -> bool {
        self.post_len(value, 16)
    }

    fn post_len(&self, value: u64, len: u64) -> bool {
        let Some(room) = self.fill(value, len) else { return false };
        self.queue.publish(room, Content::plain(len as usize, value as u32));
        true
    }

    fn stage(&self, value: u64) -> bool {
        let Some(room) = self.fill(value, 16) else { return false };
        self.queue.stage(room, Content::plain(16, value as u32));
        true
    }

    fn fill(&self, value: u64, len: u64) -> Option<Reservation> {
        let room = self.queue.reserve(len).ok()?;
        self.queue.with_memory(room.is_grown(), |memory| memory.fill(&room, value)).unwrap();
        Some(room)
    }

    fn grow(&self) {
        self.queue.flush();
        let ring = Heap::at(0);
        self.lane.lock().unwrap().push_back(Arc::clone(&ring));
        self.queue.grow(ring, ORDER, 0);
    }

    /// Goes back to the first ring if the reader has caught up; posts wherever it stands then.
    fn go_back_and_post(&self, value: u64) {
        self.queue.go_back().unwrap();
        assert!(self.post(value), "there is room in either ring");
    }
}

impl Reading {
    /// Takes the next record, if there is one: it has to be the next one, whole.
    fn take(&self) -> Option<Record> {
        loop {
            match self.queue.peek() {
                Found::Nothing => return None,
                Found::Record(record) => {
                    let expected = self.next.replace(self.next.get() + 1);
                    assert_eq!(u64::from(record.tag), expected);
                    assert_eq!(self.value(&record), expected);
                    self.queue.take(&record);
                    return Some(record);
                }
                Found::Link(link) => {
                    assert_eq!(link.order, ORDER, "a link is seen whole");
                    let ring = self.lane.lock().unwrap().pop_front();
                    self.queue.follow(ring.expect("a ring comes before its link"));
                }
                Found::Broken => panic!("something else than a record"),
            }
        }
    }

    fn value(&self, record: &Record) -> u64 {
        self.memory(record).value(record)
    }

    fn memory(&self, record: &Record) -> Arc<Heap> {
        match record.rare.ring() {
            0 => Arc::clone(self.queue.first().memory()),
            ring => self.queue.memory(ring).unwrap(),
        }
    }

    fn let_go(&self, record: &Record) {
        match record.rare.ring() {
            0 => {
                self.queue.first().release(record.from, record.to);
                self.queue.first().give_back();
            }
            ring => self.queue.release(ring, record.from, record.to),
        }
        while self.queue.leave().is_some() {}
    }

    /// Takes what comes in so many looks, and lets it go at once.
    fn read(&self, looks: usize) {
        for _ in 0..looks {
            if let Some(record) = self.take() {
                self.let_go(&record);
            }
        }
    }

    fn read_all(&self) {
        while let Some(record) = self.take() {
            self.let_go(&record);
        }
    }
}

/// All that was posted has come; both find back to the first ring.
fn expect_all(posting: &Posting, reading: &Reading, last: u64) {
    reading.read_all();
    assert_eq!(reading.next.get(), last + 1, "all that was posted, once each");
    posting.queue.go_back().unwrap();
    assert!(posting.queue.grown().is_none(), "who has read all has caught up");
    assert!(posting.post(last + 1));
    assert_eq!(reading.take().map(|record| record.rare.ring()), Some(0));
    while reading.queue.leave().is_some() {}
    assert!(reading.queue.grown().is_none());
}

#[test]
fn goes_on_in_another_ring() {
    check(None, || {
        let (posting, reading) = full();
        let thread = thread::spawn(move || {
            // There may be room again.
            if !posting.post(4) {
                posting.grow();
                assert!(posting.post(4));
            }
            posting
        });
        reading.read(4);
        let posting = thread.join().unwrap();
        expect_all(&posting, &reading, 4);
    });
}

#[test]
fn batch_comes_before_the_link() {
    check(None, || {
        let (posting, reading) = sides();
        assert!(posting.post_len(1, 32));
        let thread = thread::spawn(move || {
            for value in 2..=4 {
                if !posting.stage(value) {
                    posting.grow();
                    assert!(posting.stage(value));
                }
            }
            posting.queue.flush();
            posting
        });
        reading.read(2);
        let posting = thread.join().unwrap();
        expect_all(&posting, &reading, 4);
    });
}

#[test]
fn closed_is_seen_after_what_lies_behind_a_link() {
    check(None, || {
        let (posting, reading) = full();
        let word = Arc::new(AtomicU64::new(Epoch::FIRST.to_wire()));
        let closing = Arc::clone(&word);
        let thread = thread::spawn(move || {
            posting.grow();
            assert!(posting.post(4));
            epoch::close(&closing, Epoch::FIRST);
        });
        let is_closed = epoch::look(&word) == State::Closed;
        reading.read_all();
        if is_closed {
            assert_eq!(reading.next.get(), 5, "who sees the close sees all");
        }
        thread.join().unwrap();
    });
}

/// The reader gives back the only record of the grown ring, at any time.
#[test]
fn goes_back_to_the_first_ring() {
    check(None, || {
        let (posting, reading) = full();
        posting.grow();
        assert!(posting.post(4));
        reading.read(3);
        let fourth = reading.take().unwrap();
        let thread = thread::spawn(move || {
            posting.go_back_and_post(5);
            posting.go_back_and_post(6);
            posting
        });
        reading.let_go(&fourth);
        reading.read(2);
        let posting = thread.join().unwrap();
        expect_all(&posting, &reading, 6);
    });
}

/// The poster may want to go back before anything was posted in the grown ring.
#[test]
fn goes_back_only_where_there_is_room() {
    check(None, || {
        let (posting, reading) = full();
        posting.grow();
        let thread = thread::spawn(move || {
            posting.go_back_and_post(4);
            posting.go_back_and_post(5);
            posting
        });
        reading.read(3);
        let posting = thread.join().unwrap();
        expect_all(&posting, &reading, 5);
    });
}

/// A message of the first ring is held while the queue goes on elsewhere and comes back.
#[test]
fn what_is_held_is_not_written_over() {
    check(None, || {
        let (posting, reading) = full();
        posting.grow();
        assert!(posting.post(4));
        let first = reading.take().unwrap();
        reading.read(3);
        let thread = thread::spawn(move || {
            posting.go_back_and_post(5);
            posting.go_back_and_post(6);
            posting
        });
        assert_eq!(reading.value(&first), 1);
        reading.let_go(&first);
        reading.read(1);
        let posting = thread.join().unwrap();
        expect_all(&posting, &reading, 6);
    });
}

/// A grown ring is for one lap: the memory of what was read there is the reader's to give away.
#[test]
fn what_was_read_of_a_grown_ring_is_never_written() {
    check(None, || {
        let (posting, reading) = sides();
        posting.grow();
        for value in 1..=3 {
            assert!(posting.post(value));
        }
        let thread = thread::spawn(move || {
            let posted = (4..).take_while(|value| posting.post(*value));
            assert_eq!(posted.count(), 0, "the lap is over");
        });
        for _ in 0..2 {
            let record = reading.take().unwrap();
            let memory = reading.memory(&record);
            reading.let_go(&record);
            memory.give_away(&record);
        }
        thread.join().unwrap();
    });
}
