//! The queue against a `VecDeque` (what was said, in order), whatever the two sides do, and wherever the
//! queue goes on.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use proptest::prelude::*;

use super::{Poster, Reader};
use crate::record::{HEADER_LEN, record_len};
use crate::ring::tests::heap::Heap;
use crate::ring::{Content, Found, Memory, Record, Refusal, Reservation};

/// What the two sides may do. Lengths and places are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    Publish(u64),
    /// Withheld until the next flush.
    Stage(u64),
    /// Reserve, write, and publish nothing.
    Abandon(u64),
    Flush,
    /// Go on in another ring, whether there is room or not.
    Grow(u32),
    GoBack,
    Take,
    /// Let one of the held records go: any.
    Release(usize),
    /// What was let go in the first ring.
    GiveBack,
    Leave,
    /// Somebody else takes over.
    MovePoster,
    MoveReader,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<u64>().prop_map(Step::Publish),
        3 => any::<u64>().prop_map(Step::Stage),
        1 => any::<u64>().prop_map(Step::Abandon),
        2 => Just(Step::Flush),
        2 => (0u32..4).prop_map(Step::Grow),
        3 => Just(Step::GoBack),
        10 => Just(Step::Take),
        10 => any::<usize>().prop_map(Step::Release),
        4 => Just(Step::GiveBack),
        4 => Just(Step::Leave),
        1 => Just(Step::MovePoster),
        1 => Just(Step::MoveReader),
    ];
    prop::collection::vec(step, 1..400)
}

/// A message as it was posted.
type Said = (u32, Vec<u8>);

/// A record that is held, where it lies, and what it should be.
struct Held {
    record: Record,
    memory: Rc<Heap>,
    said: Said,
}

/// Both sides of a queue, and what they should be.
struct Twins {
    first: Rc<Heap>,
    poster: Poster<Rc<Heap>>,
    reader: Reader<Rc<Heap>>,
    /// Rings that were sent, and to which no link was followed.
    lane: VecDeque<Rc<Heap>>,
    /// Published, not taken.
    said: VecDeque<Said>,
    /// Staged, not flushed.
    staged: VecDeque<Said>,
    held: Vec<Held>,
    /// Grown rings that the reader has come to and not left: by number.
    come_to: VecDeque<(u32, Weak<Heap>)>,
    /// Grown rings that this reader has come to, ever.
    count: u32,
    /// All grown rings.
    grown: Vec<Weak<Heap>>,
    tag: u32,
}

impl Twins {
    fn new(capacity: u64) -> Self {
        let first = Heap::new(capacity);
        Self {
            poster: Poster::new(Rc::clone(&first), 0),
            reader: Reader::new(Rc::clone(&first), 0),
            first,
            lane: VecDeque::new(),
            said: VecDeque::new(),
            staged: VecDeque::new(),
            held: Vec::new(),
            come_to: VecDeque::new(),
            count: 0,
            grown: Vec::new(),
            tag: 0,
        }
    }

    /// Where the poster stands: the ring, and what is free in it.
    fn room(&self) -> (Rc<Heap>, u64, u64) {
        let (ring, next, given_back) = match self.poster.grown() {
            // For one lap.
            Some((ring, next)) => (ring, next, 0),
            None => {
                let next = self.poster.first().position();
                (Rc::clone(&self.first), next, self.first.given_back())
            }
        };
        let free = ring.capacity() - (next - given_back);
        (ring, next, free)
    }

    /// Reserves, and checks that it was refused exactly when it had to be.
    fn reserve(&self, len: u64) -> Option<Reservation> {
        let (ring, next, free) = self.room();
        let rest = ring.capacity() - next % ring.capacity();
        let record = record_len(len);
        let filler = if record > rest { rest } else { 0 };
        let max = |ring: &Rc<Heap>| ring.capacity() / 2 - 2 * HEADER_LEN;
        match self.poster.reserve(len) {
            Ok(reservation) => {
                // The record, a filler if it would wrap, and the header for the next one, or a link.
                assert!(filler + record + HEADER_LEN <= free, "{len} bytes do not fit in {free}");
                assert_eq!(reservation.is_grown(), self.poster.grown().is_some());
                Some(reservation)
            }
            Err(Refusal::Full) => {
                assert!(filler + record + HEADER_LEN > free, "{len} bytes fit in {free}");
                None
            }
            Err(Refusal::TooLarge { max: told }) => {
                assert!(len > told);
                assert!([max(&self.first), max(&ring)].contains(&told));
                None
            }
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    fn fill(&mut self, reservation: &Reservation) -> Said {
        let (ring, ..) = self.room();
        let (offset, len) = (reservation.payload_offset(), reservation.payload_len());
        assert!(offset + len <= ring.capacity());
        self.tag += 1;
        let bytes: Vec<u8> = (0..len).map(|at| (at as u8) ^ (self.tag as u8)).collect();
        self.poster
            .with_memory(reservation.is_grown(), |memory| {
                assert!(Rc::ptr_eq(memory, &ring));
                memory.write(offset, len, &bytes);
            })
            .unwrap();
        (self.tag, bytes)
    }

    fn post(&mut self, len: u64, at_once: bool) {
        let Some(reservation) = self.reserve(len) else { return };
        let said = self.fill(&reservation);
        let content = Content::plain(said.1.len(), said.0);
        if at_once {
            // As a port does: what is staged goes first.
            self.flush();
            self.poster.publish(reservation, content);
            self.said.push_back(said);
        } else {
            self.poster.stage(reservation, content);
            self.staged.push_back(said);
        }
    }

    fn flush(&mut self) {
        assert_eq!(self.poster.flush(), !self.staged.is_empty());
        self.said.append(&mut self.staged);
    }

    fn grow(&mut self, shift: u32) {
        self.flush();
        let ring = Heap::new(128 << shift);
        self.grown.push(Rc::downgrade(&ring));
        self.lane.push_back(Rc::clone(&ring));
        self.poster.grow(ring, 7 + shift, 0);
    }

    fn go_back(&mut self) -> bool {
        self.flush();
        let next = self.poster.grown().map(|(_, next)| next);
        let was_away = next.is_some();
        let unread: u64 = self.said.iter().map(|(_, bytes)| record_len(bytes.len() as u64)).sum();
        let has_gone_back = self.poster.go_back().unwrap();
        assert!(was_away || !has_gone_back);
        assert_eq!(self.poster.grown().is_some(), was_away && !has_gone_back);
        // From a ring in which nothing was ever posted it goes back whatever lies in those before.
        if has_gone_back && next != Some(0) {
            let few = self.first.capacity();
            assert!(unread <= few, "{unread} bytes were not read");
        }
        has_gone_back
    }

    /// Follows links to the next record, or to where there is none.
    fn peek(&mut self) -> Option<Record> {
        loop {
            let found = self.reader.peek();
            assert_eq!(self.reader.peek(), found, "to look takes nothing");
            match found {
                Found::Nothing => return None,
                Found::Record(record) => return Some(record),
                Found::Link(link) => {
                    let ring = self.lane.pop_front().expect("a ring comes before its link");
                    assert_eq!(1 << link.order, ring.capacity());
                    self.reader.follow(Rc::clone(&ring));
                    assert!(Rc::ptr_eq(&self.reader.grown().unwrap().0, &ring));
                    self.count += 1;
                    self.come_to.push_back((self.count, Rc::downgrade(&ring)));
                }
                Found::Broken => panic!("broken"),
            }
        }
    }

    fn take(&mut self) {
        match (self.peek(), self.said.pop_front()) {
            (None, None) => {}
            (Some(record), Some(said)) => {
                let memory = match record.rare.ring() {
                    0 => Rc::clone(&self.first),
                    ring => self.reader.memory(ring).unwrap(),
                };
                let held = Held { record, memory, said };
                held.check();
                self.reader.take(&held.record);
                self.held.push(held);
            }
            other => panic!("found and should be: {other:?}"),
        }
    }

    fn release(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.swap_remove(which % self.held.len());
        let Record { from, to, rare, .. } = held.record;
        match rare.ring() {
            0 => self.reader.first().release(from, to),
            ring => self.reader.release(ring, from, to),
        }
    }

    fn give_back(&mut self) {
        self.reader.first().give_back();
        let held = self.held.iter().map(|held| held.record);
        let in_first = held.filter(|record| record.rare.ring() == 0);
        let oldest = in_first.map(|record| record.from).min();
        let read = self.reader.first().position();
        assert_eq!(self.first.given_back(), oldest.unwrap_or(read));
    }

    /// Leaves what can be left: rings before the one that is read, of which nothing is held.
    fn leave(&mut self) {
        let held: Vec<u32> = self.held.iter().map(|held| held.record.rare.ring()).collect();
        let reads = usize::from(self.reader.grown().is_some());
        while let Some(capacity) = self.reader.leave() {
            assert!(self.come_to.len() > reads, "the ring that is read");
            let (number, ring) = self.come_to.pop_front().unwrap();
            assert!(!held.contains(&number), "its records are held");
            if let Some(ring) = ring.upgrade() {
                assert_eq!(ring.capacity(), capacity);
                // Nobody but the poster, who knows it later.
                assert_eq!(
                    self.poster.grown().map(|(posts_to, _)| Rc::as_ptr(&posts_to)),
                    Some(Rc::as_ptr(&ring))
                );
            }
        }
        let first = self.come_to.front().filter(|_| self.come_to.len() > reads);
        assert!(first.is_none_or(|(number, _)| held.contains(number)), "it could be left");
    }

    fn move_poster(&mut self) {
        self.flush();
        let at = self.poster.first().position();
        let first = Rc::clone(&self.first);
        self.poster = match self.poster.grown() {
            None => Poster::new(first, at),
            Some((ring, next)) => Poster::in_grown(first, at, ring, next),
        };
    }

    /// All that was received is let go, also what was forgotten.
    fn move_reader(&mut self) {
        self.held.clear();
        self.reader.release_all();
        self.leave();
        self.give_back();
        let at = self.reader.first().position();
        let first = Rc::clone(&self.first);
        self.reader = match self.reader.grown() {
            None => Reader::new(first, at),
            Some((ring, read)) => Reader::in_grown(first, at, ring, read),
        };
        self.come_to.iter_mut().for_each(|(number, _)| *number = 1);
        self.count = self.come_to.len() as u32;
    }

    fn step(&mut self, step: &Step) {
        // Sizes near nothing and near the most are as likely as all between.
        let max = self.first.capacity() / 2 - 32;
        let wanted = |len: u64| match len % 3 {
            0 => (len / 3 % 49).min(max),
            1 => max - len / 3 % 33,
            _ => len / 3 % (max + 2),
        };
        match *step {
            Step::Publish(len) => self.post(wanted(len), true),
            Step::Stage(len) => self.post(wanted(len), false),
            Step::Abandon(len) => {
                if let Some(reservation) = self.reserve(wanted(len)) {
                    self.fill(&reservation);
                }
            }
            Step::Flush => self.flush(),
            Step::Grow(shift) => self.grow(shift),
            Step::GoBack => drop(self.go_back()),
            Step::Take => self.take(),
            Step::Release(which) => self.release(which),
            Step::GiveBack => self.give_back(),
            Step::Leave => self.leave(),
            Step::MovePoster => self.move_poster(),
            Step::MoveReader => self.move_reader(),
        }
        self.held.iter().for_each(Held::check);
    }

    /// All comes; then both are in the first ring, all of which is free, and nothing is left of the others.
    fn end(&mut self) {
        self.flush();
        while !self.said.is_empty() {
            self.take();
        }
        while !self.held.is_empty() {
            self.release(0);
        }
        assert_eq!(self.peek(), None);
        self.give_back();
        let is_away = self.poster.grown().is_some();
        assert_eq!(self.go_back(), is_away, "who has read all has caught up");
        assert_eq!(self.peek(), None);
        self.leave();
        self.give_back();
        assert!(self.poster.grown().is_none() && self.reader.grown().is_none());
        assert!(self.grown.iter().all(|ring| ring.strong_count() == 0), "none is kept");
        assert_eq!(self.poster.is_drained(), Ok(true));
        assert!(self.reserve(self.first.capacity() / 2 - 32).is_some());
    }
}

impl Held {
    fn check(&self) {
        let Record { tag, payload_offset, payload_len, .. } = self.record;
        let found = (tag, self.memory.read(payload_offset, payload_len.into()));
        assert_eq!(found, self.said, "it lies where it was posted, as long as it is held");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queue_does_as_its_twin(
        capacity in prop::sample::select(vec![128, 256, 1024]),
        steps in steps(),
    ) {
        let mut twins = Twins::new(capacity);
        for step in &steps {
            twins.step(step);
        }
        twins.end();
    }

    /// Whatever the reader of a grown ring claims: a poster goes back on the strength of what is possible only.
    #[test]
    fn impossible_releases_are_refused(claims in any::<[u64; 2]>(), is_near: bool) {
        let mut twins = Twins::new(256);
        twins.grow(1);
        twins.post(16, true);
        let grown = twins.poster.grown().unwrap().0;
        let claims = if is_near { claims.map(|claim| claim % 5 * 16) } else { claims };
        grown.claim_released(claims[0]);
        twins.first.claim_released(claims[1]);
        let is_possible = claims[0] <= 32 && claims[0].is_multiple_of(16);
        prop_assert_eq!(twins.poster.is_drained().is_ok(), is_possible);
        match twins.poster.go_back() {
            Ok(true) => prop_assert!(is_possible && claims[0] > 0 && claims[1] == 0),
            Ok(false) => prop_assert!(is_possible && claims[0] == 0),
            Err(refusal) => {
                prop_assert_eq!(refusal, Refusal::Broken);
                prop_assert!(!is_possible || claims[1] != 0);
            }
        }
    }
}

#[test]
fn several_links_lie_unread() {
    let mut twins = Twins::new(128);
    for shift in [0, 2, 1, 0] {
        while let Some(reservation) = twins.reserve(24) {
            let said = twins.fill(&reservation);
            twins.poster.publish(reservation, Content::plain(24, said.0));
            twins.said.push_back(said);
        }
        twins.grow(shift);
    }
    assert!(!twins.go_back(), "nothing was read");
    twins.post(24, true);
    twins.end();
    assert_eq!(twins.tag, 2 + 2 + 10 + 5 + 1);
}
