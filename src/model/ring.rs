//! PUBLISH and RELEASE: a record is seen whole or not at all, and its room is not written before it
//! was read. All over the end of a lap, with a filler.

use loom::thread;

use super::{Heap, check};
use crate::ring::{Consumer, Content, Found, Producer, Refusal};
use loom::sync::Arc;

type Poster = Producer<Arc<Heap>>;
type Reader = Consumer<Arc<Heap>>;

/// Both sides of an empty ring, standing at `position`.
fn sides(position: u64) -> (Poster, Reader) {
    let heap = Heap::at(position);
    (Producer::new(Arc::clone(&heap), position), Consumer::new(heap, position))
}

/// Posts a value of this length, which is also its tag.
fn post(poster: &Poster, len: u64, value: u64) -> Result<(), Refusal> {
    let reservation = poster.reserve(len)?;
    poster.memory().fill(&reservation, value);
    poster.publish(reservation, Content::plain(len as usize, value as u32));
    Ok(())
}

fn stage(poster: &Poster, len: u64, value: u64) {
    let reservation = poster.reserve(len).unwrap();
    poster.memory().fill(&reservation, value);
    poster.stage(reservation, Content::plain(len as usize, value as u32));
}

/// Takes the next record if there is one; it has to be this one, whole.
fn take(reader: &Reader, expected: u64) -> Option<(u64, u64)> {
    // As a port does: the first way knows no more than most records need.
    let record = match reader.peek_plain().map_or_else(|| reader.peek(), Found::Record) {
        Found::Nothing => return None,
        Found::Record(record) => record,
        Found::Link(_) | Found::Broken => panic!("something else than a record"),
    };
    assert_eq!(u64::from(record.tag), expected);
    assert_eq!(reader.memory().value(&record), expected);
    reader.take(record.to);
    Some((record.from, record.to))
}

/// Takes records from `next` on, as they come in so many looks; gives each back at once.
fn read(reader: &Reader, next: &mut u64, looks: usize) {
    for _ in 0..looks {
        if let Some((from, to)) = take(reader, *next) {
            reader.release(from, to);
            reader.give_back();
            *next += 1;
        }
    }
}

/// Each record is seen whole, in order, with the room for the third given back meanwhile or not.
fn whole_and_in_order(position: u64, lens: [u64; 3]) {
    check(None, move || {
        let (poster, reader) = sides(position);
        let posting = thread::spawn(move || {
            let posted = (1..).zip(lens).take_while(|(value, len)| {
                // Full is the only refusal; a second try may find room that was given back since.
                let mut tried = post(&poster, *len, *value);
                if tried.is_err() {
                    tried = post(&poster, *len, *value);
                }
                assert!(matches!(tried, Ok(()) | Err(Refusal::Full)));
                tried.is_ok()
            });
            posted.count() as u64
        });
        let mut next = 1;
        read(&reader, &mut next, 3);
        let posted = posting.join().unwrap();
        read(&reader, &mut next, 3);
        assert_eq!(next, posted + 1, "all that was posted, once each");
        assert!(posted >= 2, "there was room for two");
    });
}

#[test]
fn publish_without_filler() {
    whole_and_in_order(0, [16, 16, 16]);
}

#[test]
fn publish_with_filler_at_the_laps_end() {
    // 112: a header's room is left in the lap.
    whole_and_in_order(112, [16, 32, 16]);
}

#[test]
fn publish_up_to_the_laps_end() {
    // 96: the first record ends the lap exactly; the third needs a part of its room.
    whole_and_in_order(96, [16, 32, 32]);
}

#[test]
fn records_of_one_length_one_after_the_other() {
    // The reader knows the length from the first one on.
    check(None, || {
        let (poster, reader) = sides(0);
        post(&poster, 16, 1).unwrap();
        let mut next = 1;
        read(&reader, &mut next, 1);
        let posting = thread::spawn(move || post(&poster, 16, 2).unwrap());
        read(&reader, &mut next, 2);
        posting.join().unwrap();
        read(&reader, &mut next, 1);
        assert_eq!(next, 3);
    });
}

#[test]
fn laps_that_end_early() {
    // After each record the poster asks whether the reader has caught up, and goes back to the beginning; the
    // next one then has a gap behind it. (Not loom's: it is for all runs together.)
    static HAS_TURNED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    check(None, move || {
        let (poster, reader) = sides(0);
        poster.turn_early(16, 16);
        poster.will_wait();
        let posting = thread::spawn(move || {
            let posted = (1..=3).take_while(|value| post(&poster, 16, *value).is_ok()).count();
            if posted == 3 && poster.position() > 3 * 32 {
                HAS_TURNED.store(true, order);
            }
            posted as u64
        });
        let mut next = 1;
        read(&reader, &mut next, 3);
        let posted = posting.join().unwrap();
        read(&reader, &mut next, 3);
        assert_eq!(next, posted + 1, "all that was posted, once each");
    });
    assert!(HAS_TURNED.load(order), "in some run");
}

#[test]
fn batch_appears_at_once() {
    check(None, || {
        let (poster, reader) = sides(112);
        let posting = thread::spawn(move || {
            stage(&poster, 16, 1);
            stage(&poster, 32, 2);
            assert!(poster.flush());
        });
        if take(&reader, 1).is_some() {
            assert!(take(&reader, 2).is_some(), "who sees the first sees all");
            assert!(take(&reader, 3).is_none());
        }
        posting.join().unwrap();
    });
}

/// A ring that holds as much as it can: three records, of which the first lies at 0.
fn full() -> (Poster, Reader) {
    let (poster, reader) = sides(0);
    for value in 1..=3 {
        post(&poster, 16, value).unwrap();
    }
    assert_eq!(post(&poster, 16, 4), Err(Refusal::Full));
    (poster, reader)
}

#[test]
fn released_room_is_written_after_it_was_read() {
    check(None, || {
        let (poster, reader) = full();
        let posting = thread::spawn(move || {
            // The first goes beside the three, the second onto the first of them.
            let posted = (4..).take_while(|value| *value < 6 && post(&poster, 16, *value).is_ok());
            posted.count() as u64
        });
        let mut next = 1;
        read(&reader, &mut next, 2);
        let posted = posting.join().unwrap();
        read(&reader, &mut next, 5);
        assert_eq!(next, 4 + posted);
    });
}

#[test]
fn released_out_of_order() {
    check(None, || {
        let (poster, reader) = full();
        let posting = thread::spawn(move || {
            let posted = (4..).take_while(|value| *value < 6 && post(&poster, 16, *value).is_ok());
            posted.count() as u64
        });
        let (first, second) = (take(&reader, 1).unwrap(), take(&reader, 2).unwrap());
        reader.release(second.0, second.1);
        reader.give_back();
        assert_eq!(reader.memory().given_back(), 0, "an older one is still held");
        // Its bytes are still there, whatever the poster does.
        let third = take(&reader, 3).unwrap();
        reader.release(first.0, first.1);
        reader.give_back();
        assert_eq!(reader.memory().given_back(), second.1);
        reader.release(third.0, third.1);
        let posted = posting.join().unwrap();
        let mut next = 4;
        read(&reader, &mut next, 2);
        assert_eq!(next, 4 + posted);
    });
}
