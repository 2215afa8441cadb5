//! Stopped in the middle of a transfer: nobody waits for who is stopped, and it hides nobody's death.

use std::time::Duration;

use rustix::process::Signal;

use super::player::{Part, Player};
use super::support::test_name;
use super::*;

#[test]
fn a_giver_that_is_stopped() {
    in_host(test_name(concat!(module_path!(), "::a_giver_that_is_stopped")), || {
        for count in COUNTS {
            for hit in Hit::all(&SENDING, count, Signal::STOP) {
                let before = holdings();
                stop_the_giver(count, hit);
                expect_nothing_left(before, &(count, hit));
            }
        }
    });
}

/// The taker is killed while the giver is stopped. From the moment at which a taker can have the ports
/// its death is told at once. Before, the giver holds them: it is stopped, and not dead.
fn stop_the_giver(count: usize, hit: Hit) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let (taker, giver) =
        (Player::start(Part::EchoOver, None), Player::start(Part::PassOn, Some(hit)));
    taker.equip(port1);
    let Bundle { near, mut far, deep } = bundle(count);
    far.push(port2);
    giver.port.post_bytes_with(b"", far).unwrap();
    giver.wait_until_stopped();

    for near in &near {
        near.post_bytes(b"meanwhile").unwrap();
        assert_eq!(near.peer_state(), PeerState::Open);
    }
    if hit.step == Step::Published {
        near.iter().for_each(|near| assert_eq!(near.recv().unwrap().bytes(), b"meanwhile"));
    }
    taker.kill();
    let told = match hit.step {
        Step::Published => Some(CloseReason::PeerDied),
        Step::Closed => Some(CloseReason::Lost),
        _ => None,
    };
    for near in &near {
        match told {
            Some(reason) => expect_end(near, reason),
            None => assert_eq!(near.peer_state(), PeerState::Open),
        }
    }
    assert_eq!(giver.state(), 'T', "stopped all the while");

    giver.go_on();
    if matches!(hit.step, Step::Detached | Step::Packed) {
        near.iter().for_each(|near| assert_eq!(near.recv().unwrap().bytes(), b"still mine"));
        near.iter().for_each(|near| expect_end(near, CloseReason::Closed));
        expect_end(&deep, CloseReason::Closed);
    } else {
        let reason = told.unwrap_or(CloseReason::Lost);
        near.iter().for_each(|near| expect_end(near, reason));
        // The taker that got so far as to unpack closed it.
        let unpacked = hit.step == Step::Published;
        expect_end(&deep, if unpacked { CloseReason::Closed } else { CloseReason::Lost });
    }
    giver.expect_done();
}

#[test]
fn a_taker_that_is_stopped() {
    in_host(test_name(concat!(module_path!(), "::a_taker_that_is_stopped")), || {
        for count in COUNTS {
            for hit in Hit::all(&TAKING, count, Signal::STOP) {
                let before = holdings();
                stop_the_taker(count, hit);
                expect_nothing_left(before, &(count, hit));
            }
        }
    });
}

/// The other ends post on, and notice nothing.
fn stop_the_taker(count: usize, hit: Hit) {
    let taker = Player::start(Part::Echo, Some(hit));
    let Bundle { near, far, deep } = bundle(count);
    taker.port.post_bytes_with(b"", far).unwrap();
    taker.wait_until_stopped();
    for near in &near {
        near.post_bytes(b"meanwhile").unwrap();
        assert_eq!(near.try_recv().map(drop), Err(RecvError::Empty));
        assert_eq!(near.peer_state(), PeerState::Open);
    }
    taker.go_on();
    near.iter().for_each(|near| assert_eq!(near.recv().unwrap().bytes(), b"meanwhile"));
    drop(near);
    expect_end(&deep, CloseReason::Closed);
    taker.expect_done();
}

/// A taker that did not wait for the record, as ours always do: the giver that is stopped after
/// [`Step::Sent`] still has a copy of the line. A close is seen all the same, as it hangs up.
#[test]
fn a_copy_of_the_line_hides_no_close() {
    with_early_taker("a_copy_of_the_line_hides_no_close", |giver, taker, near| {
        taker.tell("close");
        expect_end(near, CloseReason::Closed);
        assert_eq!(giver.state(), 'T', "stopped all the while");
        giver.go_on();
        giver.expect_done();
        taker.expect_done();
    });
}

/// But it would hide a death: that is why nothing is published before the own copies are closed.
#[test]
fn a_copy_of_the_line_hides_a_death() {
    with_early_taker("a_copy_of_the_line_hides_a_death", |giver, taker, near| {
        taker.kill();
        assert_eq!(near.recv_timeout(Duration::from_millis(50)).map(drop), Err(RecvError::Empty));
        assert_eq!(near.peer_state(), PeerState::Open);
        giver.go_on();
        expect_end(near, CloseReason::PeerDied);
        giver.expect_done();
    });
}

fn with_early_taker(test: &str, then: fn(Player, Player, &MessagePort)) {
    let test: &'static str = format!("{}::{test}", test_name(module_path!())).leak();
    in_host(test, || {
        let before = holdings();
        let hit = Hit { step: Step::Sent, after: 0, signal: Signal::STOP };
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let taker = Player::start(Part::AdoptEarly, None);
        let giver = Player::start(Part::PassOn, Some(hit));
        taker.equip(port1);
        let Bundle { near, mut far, deep } = bundle(1);
        far.push(port2);
        giver.port.post_bytes_with(b"", far).unwrap();
        giver.wait_until_stopped();
        taker.tell("now");
        near[0].post_bytes(b"meanwhile").unwrap();
        assert_eq!(near[0].recv().unwrap().bytes(), b"meanwhile");
        then(giver, taker, &near[0]);
        expect_end(&deep, CloseReason::Closed);
        drop((near, deep));
        expect_nothing_left(before, &hit);
    });
}
