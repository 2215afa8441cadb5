//! Refused in the middle of a transfer (S-090): whatever the kernel has against it, and however far it
//! got, the list comes back whole, and its ports are as they were.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Resource, Uid, getrlimit, setrlimit};
use rustix::thread::set_thread_res_uid;

use super::support::{lower_descriptor_limit, raise_descriptor_limit, test_name};
use super::*;
use crate::epoch::Epoch;
use crate::error::PostError;
use crate::lane::Outgoing;
use crate::port::{Closer, TransferError, TransferList};

/// Some user that is nobody else's.
const ORDINARY_USER: u32 = 54_321;

fn epoch_of(port: &MessagePort) -> Epoch {
    let word = &port.endpoint().own().epoch;
    Epoch::from_wire(word.load(Ordering::Relaxed))
}

/// A bundle that is posted and refused at least once; it must be none the worse for it.
fn expect_rollback(
    count: usize,
    post: impl FnOnce(TransferList) -> Result<(), TransferError>,
) -> PostError {
    let Bundle { near, far, deep } = bundle(count);
    let before = holdings();
    let epochs: Vec<_> = far.iter().map(epoch_of).collect();
    let closers: Vec<_> = far.iter().map(MessagePort::closer).collect();
    let TransferError { list, source, .. } = post(far.into()).unwrap_err();
    assert_eq!(list.len(), count);
    assert_eq!(holdings(), before);

    let far = list.into_ports();
    for (number, far) in far.iter().enumerate() {
        // Let go, and taken back: at least two generations on.
        let (then, now) = (epochs[number].to_wire(), epoch_of(far).to_wire());
        assert_eq!((now - then) % (2 << 2), 0, "open, from {then} to {now}");
        assert!(now > then);
        assert_eq!(near[number].peer_state(), PeerState::Open);
        drop(unpack(number, far));
        expect_talk(&near[number], far);
    }
    expect_end(&deep, CloseReason::Closed);

    expect_to_move(&near, far, &closers);
    source
}

/// That ports can be given away after all. Their closers close what stays; what has gone is none of
/// theirs.
fn expect_to_move(near: &[MessagePort], mut far: Vec<MessagePort>, closers: &[Closer]) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let kept = far.split_off(far.len() / 2);
    port1.post_bytes_with(b"", far).unwrap();
    let moved = port2.recv().unwrap().take_all_ports().unwrap();
    for (near, far) in near.iter().zip(moved.iter().chain(&kept)) {
        expect_talk(near, far);
    }
    closers.iter().for_each(Closer::close);
    for (number, near) in near.iter().enumerate() {
        match moved.get(number) {
            Some(far) => expect_talk(near, far),
            None => expect_end(near, CloseReason::Closed),
        }
    }
}

fn errno(error: &PostError) -> Option<Errno> {
    match error {
        PostError::Os(error) => Errno::from_io_error(error),
        _ => None,
    }
}

/// An envelope needs two descriptors, and they are refused when all ports are in transit.
#[test]
fn no_descriptors_for_an_envelope() {
    in_host(test_name(concat!(module_path!(), "::no_descriptors_for_an_envelope")), || {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes_with(b"", bundle(1).far).unwrap();
        let error = expect_rollback(MANY, |list| {
            hook::set(|step| {
                if step == Step::Detached {
                    lower_descriptor_limit(3);
                }
            });
            let posted = port1.post_bytes_with(b"", list);
            hook::set(|_| {});
            raise_descriptor_limit();
            posted
        });
        assert_eq!(errno(&error), Some(Errno::MFILE));
        assert_eq!(port2.recv().unwrap().port_count(), 1);
        expect_talk(&port1, &port2);
    });
}

/// The kernel has enough of an ordinary user's descriptors in flight when an envelope is half full.
#[test]
fn too_many_descriptors_in_flight() {
    in_host(test_name(concat!(module_path!(), "::too_many_descriptors_in_flight")), || {
        if rustix::process::geteuid().is_root() {
            let user = Uid::from_raw(ORDINARY_USER);
            set_thread_res_uid(user, user, user).unwrap();
        }
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes_with(b"", bundle(1).far).unwrap();
        let full = getrlimit(Resource::Nofile);
        let error = expect_rollback(MANY, |list| {
            hook::set(|step| {
                if step == Step::Packed {
                    lower_descriptor_limit(100);
                }
            });
            let posted = port1.post_bytes_with(b"", list);
            hook::set(|_| {});
            setrlimit(Resource::Nofile, full).unwrap();
            posted
        });
        assert_eq!(errno(&error), Some(Errno::TOOMANYREFS));
        assert_eq!(port2.recv().unwrap().port_count(), 1);
        expect_talk(&port1, &port2);
    });
}

/// Whoever holds the other end of the lane, or held it, has hung it up.
#[test]
fn a_lane_that_was_hung_up() {
    in_host(test_name(concat!(module_path!(), "::a_lane_that_was_hung_up")), || {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes_with(b"", bundle(1).far).unwrap();
        drop(port2.recv().unwrap());
        let lane = port1.halves().0.lanes().current().unwrap();
        for count in COUNTS {
            static LANE: Mutex<Option<Arc<Outgoing>>> = Mutex::new(None);
            *LANE.lock().unwrap() = Some(lane.clone());
            let error = expect_rollback(count, |list| {
                hook::set(|step| {
                    if step == Step::Detached {
                        let lane = LANE.lock().unwrap().take().unwrap();
                        shutdown(lane.as_fd().unwrap(), Shutdown::Both).unwrap();
                    }
                });
                let posted = port1.post_bytes_with(b"", list);
                hook::set(|_| {});
                posted
            });
            assert_eq!(errno(&error), Some(Errno::PIPE));
            expect_talk(&port1, &port2);
        }
    });
}

/// A full lane is no failure, but for who does not wait.
#[test]
fn a_full_lane() {
    in_host(test_name(concat!(module_path!(), "::a_full_lane")), || {
        // One that is not followed by another.
        let options = zeroport::ChannelOptions::new().limit(0);
        let MessageChannel { port1, port2 } = options.open().unwrap();
        let mut posted = 0;
        loop {
            let MessageChannel { port1: _closed, port2: some } = MessageChannel::new().unwrap();
            match port1.try_post_bytes_with(b"", transfer![some]) {
                Ok(()) => posted += 1,
                Err(full) => {
                    assert!(matches!(full.source, PostError::Full { .. }), "{full:?}");
                    break;
                }
            }
        }
        for count in COUNTS {
            let error = expect_rollback(count, |list| port1.try_post_bytes_with(b"", list));
            assert!(matches!(error, PostError::Full { len: 0 }), "{error:?}");
            let soon = Duration::from_millis(2);
            let error =
                expect_rollback(count, |list| port1.post_bytes_with_timeout(b"", list, soon));
            assert!(matches!(error, PostError::Full { len: 0 }), "{error:?}");
        }
        // Who waits is let through when there is room again.
        let waits = support::asleep(move || {
            let Bundle { near, far, deep: _deep } = bundle(3);
            port1.post_bytes_with(b"at last", far).unwrap();
            (port1, near)
        });
        for _ in 0..posted {
            assert_eq!(port2.recv().unwrap().port_count(), 1);
        }
        let message = port2.recv().unwrap();
        assert_eq!(message.bytes(), b"at last");
        let far: [MessagePort; 3] = message.take_ports().unwrap();
        let (_port1, near) = waits.join();
        for (number, (near, far)) in near.iter().zip(&far).enumerate() {
            drop(unpack(number, far));
            expect_talk(near, far);
        }
    });
}
