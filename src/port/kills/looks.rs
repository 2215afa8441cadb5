//! What can be seen at each step of a transfer, and what a closer can do there.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{Shutdown, shutdown};

use super::support::{Sleeper, asleep, test_name};
use super::*;
use crate::epoch::{State, look};
use crate::error::PostError;
use crate::port::Closer;

/// What a hook looks at.
struct Seen {
    before: Holdings,
    carrier: MessagePort,
    near: Vec<MessagePort>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);
static STEPS: AtomicU32 = AtomicU32::new(0);

/// A message is visible when nothing of its ports is left where they come from, and not before.
#[test]
fn from_step_to_step() {
    in_host(test_name(concat!(module_path!(), "::from_step_to_step")), || {
        for count in COUNTS {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            // The lanes are there.
            port1.post_bytes_with(b"", bundle(1).far).unwrap();
            drop(port2.recv().unwrap());
            let Bundle { near, far, deep } = bundle(count);
            STEPS.store(0, Ordering::Relaxed);
            *SEEN.lock().unwrap() = Some(Seen { before: holdings(), carrier: port2, near });
            hook::set(look_around);
            port1.post_bytes_with(b"", far).unwrap();
            hook::set(|_| {});
            let steps = STEPS.load(Ordering::Relaxed);
            assert_eq!(steps, if count < MANY { 4 } else { 6 });

            let Seen { carrier, near, .. } = SEEN.lock().unwrap().take().unwrap();
            let far = carrier.recv().unwrap().take_all_ports().unwrap();
            near.iter().zip(&far).enumerate().for_each(|(number, (near, far))| {
                drop(unpack(number, far));
                (0..steps).for_each(|_| assert_eq!(far.recv().unwrap().bytes(), b"in transit"));
                expect_talk(near, far);
            });
            expect_end(&deep, CloseReason::Closed);
        }
    });
}

fn look_around(step: Step) {
    STEPS.fetch_add(1, Ordering::Relaxed);
    let seen = SEEN.lock().unwrap();
    let Seen { before, carrier, near } = seen.as_ref().unwrap();
    for near in near {
        assert_eq!(near.peer_state(), PeerState::Open);
        assert_eq!(look(&near.endpoint().peer().epoch), State::InTransit);
        near.post_bytes(b"in transit").unwrap();
    }
    if step == Step::Published {
        return;
    }
    assert_eq!(carrier.try_recv().map(drop), Err(RecvError::Empty), "{step:?}");
    if step == Step::Closed {
        // A line each, and the lanes of the first. (The segments are also those of the near ends.)
        assert_eq!(before.descriptors - holdings().descriptors, near.len() + 2);
    }
}

/// Closers that were called at each step, and that sleep until they may.
static CLOSER: Mutex<Option<Closer>> = Mutex::new(None);
static CLOSING: Mutex<Vec<(Step, Sleeper<()>)>> = Mutex::new(Vec::new());

/// At each step before the own copies are closed.
fn call_closer(step: Step) {
    let closer = CLOSER.lock().unwrap().clone().unwrap();
    CLOSING.lock().unwrap().push((step, asleep(move || closer.close())));
}

fn closing_at() -> Vec<Step> {
    let closing = CLOSING.lock().unwrap().drain(..).collect::<Vec<_>>();
    closing.into_iter().map(|(step, closing)| (step, closing.join()).0).collect()
}

/// A closer of a port that is being given away waits, and then it is not its port any more.
#[test]
fn a_closer_comes_too_late() {
    in_host(test_name(concat!(module_path!(), "::a_closer_comes_too_late")), || {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let Bundle { near, far, deep: _deep } = bundle(3);
        *CLOSER.lock().unwrap() = Some(far[1].closer());
        hook::set(|step| match step {
            Step::Detached | Step::Sent => call_closer(step),
            // The lock has gone with the port.
            _ => CLOSER.lock().unwrap().as_ref().unwrap().close(),
        });
        port1.post_bytes_with(b"", far).unwrap();
        hook::set(|_| {});
        assert_eq!(closing_at(), [Step::Detached, Step::Sent]);
        let far = port2.recv().unwrap().take_all_ports().unwrap();
        for (number, (near, far)) in near.iter().zip(&far).enumerate() {
            drop(unpack(number, far));
            expect_talk(near, far);
        }
    });
}

/// If the port stays after all, the closer that waited closes it.
#[test]
fn a_closer_comes_into_a_refusal() {
    in_host(test_name(concat!(module_path!(), "::a_closer_comes_into_a_refusal")), || {
        let MessageChannel { port1, port2: _port2 } = MessageChannel::new().unwrap();
        port1.post_bytes_with(b"", bundle(1).far).unwrap();
        let lane = port1.halves().0.lanes().current().unwrap();
        shutdown(lane.as_fd().unwrap(), Shutdown::Both).unwrap();

        let Bundle { near, far, deep: _deep } = bundle(3);
        *CLOSER.lock().unwrap() = Some(far[1].closer());
        hook::set(call_closer);
        let error = port1.post_bytes_with(b"", far).unwrap_err();
        hook::set(|_| {});
        assert!(matches!(error.source, PostError::Os(_)), "{error:?}");
        assert_eq!(closing_at(), [Step::Detached]);
        let far = error.list.into_ports();
        assert_eq!(far[1].recv().map(drop), Err(RecvError::Closed(CloseReason::Closed)));
        expect_end(&near[1], CloseReason::Closed);
        for number in [0, 2] {
            drop(unpack(number, &far[number]));
            expect_talk(&near[number], &far[number]);
        }
    });
}

/// A closer of the carrier waits: a message whose ports have gone is delivered before the close.
#[test]
fn a_closer_of_the_carrier() {
    in_host(test_name(concat!(module_path!(), "::a_closer_of_the_carrier")), || {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let Bundle { near, far, deep: _deep } = bundle(3);
        *CLOSER.lock().unwrap() = Some(port1.closer());
        hook::set(call_closer);
        port1.post_bytes_with(b"", far).unwrap();
        hook::set(|_| {});
        assert_eq!(closing_at(), [Step::Detached, Step::Sent, Step::Closed, Step::Published]);
        let far = port2.recv().unwrap().take_all_ports().unwrap();
        for (number, (near, far)) in near.iter().zip(&far).enumerate() {
            drop(unpack(number, far));
            expect_talk(near, far);
        }
        expect_end(&port2, CloseReason::Closed);
        let MessageChannel { port1: near, port2: far } = MessageChannel::new().unwrap();
        let refused = port1.post_bytes_with(b"", far).unwrap_err();
        assert!(matches!(refused.source, PostError::Closed(CloseReason::Closed)));
        expect_talk(&near, &refused.list.into_ports()[0]);
    });
}
