//! Halves of ports, and ports in which another thread is.

use std::ptr::null_mut;
use std::thread;

use zeroport_ffi::*;

use super::bytes_at;
use super::model::{Model, Part};

pub(super) fn split(model: &mut Model, port: usize) {
    let mut halves = [CPort { id: 7 }; 2];
    // SAFETY: places.
    let status = unsafe { zp_port_split(model.handle(port), halves.as_mut_ptr()) };
    let refusal = model.refuses_to_leave(port);
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    match refusal {
        Some(_) => assert_eq!(halves, [CPort { id: 0 }; 2]),
        None => model.split(port, halves),
    }
}

pub(super) fn join(model: &mut Model, sender: u8, receiver: u8) {
    let halves = [model.half(sender, Part::Sends), model.half(receiver, Part::Receives)];
    let mut port = CPort { id: 7 };
    let [sender, receiver] = halves.map(|half| model.handle(half));
    // SAFETY: a place.
    let status = unsafe { zp_port_join(sender, receiver, &mut port) };
    let refusal = model.refuses_to_join(halves[0], halves[1]);
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    match refusal {
        Some(_) => assert_eq!(port.id, 0),
        None => model.join_halves(halves, port.id),
    }
}

/// While another thread waits in a port, it is busy for all others; the other half is not.
pub(super) fn keep_busy(model: &mut Model, port: usize) {
    let is_apt = model.refuses_to_receive(port).is_none()
        && !model.is_lent(port)
        && model.is_read(port)
        && !model.may_be_over(port);
    let Some(poster) = model.poster_to(port).filter(|_| is_apt) else { return };
    let (handle, poster) = (model.handle(port), model.handle(poster));
    let waiter = thread::spawn(move || receive_one(handle));
    while zp_port_peer_state(handle) != Status::Busy {
        assert!(!waiter.is_finished(), "nothing was posted");
        thread::yield_now();
    }
    expect_busy(handle, poster);
    // SAFETY: the bytes are there.
    assert_eq!(unsafe { zp_port_try_post(poster, c"x".as_ptr().cast(), 1) }, Status::Ok);
    assert_eq!(waiter.join().unwrap(), b"x");
}

fn receive_one(port: CPort) -> Vec<u8> {
    let mut message = CMessage::NONE;
    // Who looks whether this one is inside may be for a moment.
    // SAFETY: a place.
    while unsafe { zp_port_recv(port, &mut message) } == Status::Busy {}
    let bytes = bytes_at(message.data, message.len);
    // SAFETY: it was received.
    while unsafe { zp_message_release(&mut message) } == Status::Busy {}
    bytes
}

fn expect_busy(port: CPort, other: CPort) {
    let (mut message, mut halves) = (CMessage::NONE, [CPort { id: 7 }; 2]);
    let mut loan = CLoan { data: null_mut(), len: 0, opaque: [0; 2] };
    let list = CItem { id: port.id };
    let post = CPost { data: null_mut(), len: 0, items: &list, item_count: 1, tag: 0, reserved: 0 };
    let mut index = 7;
    // SAFETY: places, and what is there.
    let statuses = unsafe {
        [
            zp_port_try_post(port, c"x".as_ptr().cast(), 1),
            zp_port_try_recv(port, &mut message),
            zp_port_try_reserve(port, 1, &mut loan),
            zp_port_split(port, halves.as_mut_ptr()),
            zp_port_join(port, port, halves.as_mut_ptr()),
            zp_port_disarm(port),
            zp_port_close(port),
            zp_port_try_post_with(other, &post, &mut index),
        ]
    };
    assert_eq!((statuses, index), ([Status::Busy; 8], 0));
}
