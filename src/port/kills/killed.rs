//! Killed in the middle of a transfer.

use rustix::process::Signal;

use super::player::{Part, Player};
use super::support::test_name;
use super::*;

#[test]
fn a_giver_that_is_killed() {
    in_host(test_name(concat!(module_path!(), "::a_giver_that_is_killed")), || {
        for count in COUNTS {
            for hit in Hit::all(&SENDING, count, Signal::KILL) {
                let before = holdings();
                kill_the_giver(count, hit);
                expect_nothing_left(before, &(count, hit));
            }
        }
    });
}

fn kill_the_giver(count: usize, hit: Hit) {
    let MessageChannel { port1: carrier, port2 } = MessageChannel::new().unwrap();
    let giver = Player::start(Part::PassOn, Some(hit));
    let Bundle { near, mut far, deep } = bundle(count);
    far.push(port2);
    giver.port.post_bytes_with(b"", far).unwrap();
    let port = giver.expect_killed();
    expect_told(&port, CloseReason::PeerDied);

    let reason = match hit.step {
        Step::Detached | Step::Packed => {
            // They died with their giver: whether anybody looks at the carrier does not matter.
            near.iter().for_each(|near| expect_told(near, CloseReason::Lost));
            CloseReason::Lost
        }
        Step::Published => {
            let message = carrier.recv().unwrap();
            assert_eq!((message.bytes(), message.port_count()), (&b"passed on"[..], count));
            for (number, near) in near.iter().enumerate() {
                let far = message.take_port().unwrap().unwrap();
                drop(unpack(number, &far));
                expect_talk(near, &far);
            }
            CloseReason::Closed
        }
        _ => {
            // On the lane, with no record: nobody has them, until the carrier's end is reported.
            near.iter().for_each(|near| assert_eq!(near.peer_state(), PeerState::Open));
            CloseReason::Lost
        }
    };
    expect_end(&carrier, CloseReason::PeerDied);
    near.iter().chain([&deep]).for_each(|port| expect_end(port, reason));
}

#[test]
fn a_taker_that_is_killed() {
    in_host(test_name(concat!(module_path!(), "::a_taker_that_is_killed")), || {
        for count in COUNTS {
            for hit in Hit::all(&TAKING, count, Signal::KILL) {
                let before = holdings();
                kill_the_taker(count, hit);
                expect_nothing_left(before, &(count, hit));
            }
        }
    });
}

fn kill_the_taker(count: usize, hit: Hit) {
    let taker = Player::start(Part::Echo, Some(hit));
    let Bundle { near, far, deep } = bundle(count);
    taker.port.post_bytes_with(b"", far).unwrap();
    let carrier = taker.expect_killed();
    let adopted = match hit.step {
        Step::Mapped => hit.after,
        Step::Adopted => hit.after + 1,
        _ => 0,
    };
    for (number, near) in near.iter().enumerate() {
        let held = number < adopted;
        expect_end(near, if held { CloseReason::PeerDied } else { CloseReason::Lost });
    }
    expect_end(&deep, CloseReason::Lost);
    expect_end(&carrier, CloseReason::PeerDied);
}
