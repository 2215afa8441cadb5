//! Killed while a queue grows, or while a large payload is on its way.

use rustix::process::Signal;

use super::player::{Part, Player};
use super::support::{pattern, test_name};
use super::*;

/// So many messages do not fit in the first ring, nor in the first grown one.
pub(super) const ROW: u64 = 600;

/// What stands in a row of messages; every hundredth is large.
pub(super) fn of_row(number: u64) -> Vec<u8> {
    let len = if number % 100 == 50 { 70_000 } else { number % 1000 };
    pattern(number, len as usize)
}

/// How many messages of a row come, one after the other, before its end.
pub(super) fn count_row(port: &MessagePort) -> u64 {
    let mut count = 0;
    while let Ok(message) = port.recv() {
        assert!(message.bytes() == of_row(count), "message {count}");
        count += 1;
    }
    count
}

/// What was visible is read, in order and whole; then comes the end, and nothing is left.
#[test]
fn a_poster_that_is_killed() {
    in_host(test_name(concat!(module_path!(), "::a_poster_that_is_killed")), || {
        for hit in GROWING.map(|step| Hit { step, after: 0, signal: Signal::KILL }) {
            let before = holdings();
            let poster = Player::start(Part::PostRow, Some(hit));
            poster.tell("now");
            let port = poster.expect_killed();
            let count = count_row(&port);
            assert!(count > 0 && count < ROW, "{count} messages before {hit:?}");
            expect_end(&port, CloseReason::PeerDied);
            drop(port);
            expect_nothing_left(before, &hit);
        }
    });
}

#[test]
fn a_reader_that_is_killed() {
    in_host(test_name(concat!(module_path!(), "::a_reader_that_is_killed")), || {
        for hit in FOLLOWING.map(|step| Hit { step, after: 0, signal: Signal::KILL }) {
            let before = holdings();
            let reader = Player::start(Part::ReadRow, Some(hit));
            // It reads nothing before the row is there: so the queue has grown.
            reader.process.signal(Signal::STOP);
            reader.wait_until_stopped();
            (0..ROW).for_each(|number| reader.port.post_bytes(&of_row(number)).unwrap());
            reader.go_on();
            let port = reader.expect_killed();
            expect_told(&port, CloseReason::PeerDied);
            assert!(port.post_bytes(&of_row(50)).is_err());
            drop(port);
            expect_nothing_left(before, &hit);
        }
    });
}

/// Who is stopped in the middle of it holds nobody: what was visible can be read.
#[test]
fn a_poster_that_is_stopped() {
    in_host(test_name(concat!(module_path!(), "::a_poster_that_is_stopped")), || {
        for hit in GROWING.map(|step| Hit { step, after: 0, signal: Signal::STOP }) {
            let poster = Player::start(Part::PostRow, Some(hit));
            poster.tell("now");
            poster.wait_until_stopped();
            let mut count = 0;
            while let Ok(message) = poster.port.try_recv() {
                assert!(message.bytes() == of_row(count), "message {count}");
                count += 1;
            }
            assert!(count > 0 && count < ROW, "{count} messages before {hit:?}");
            assert_eq!(poster.port.peer_state(), PeerState::Open);
            poster.go_on();
            for number in count..ROW {
                assert!(poster.port.recv().unwrap().bytes() == of_row(number), "{number}");
            }
            poster.expect_done();
        }
    });
}
