//! `zp_port_recv…`: messages come in.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use zeroport::{Message, RecvError};

use crate::bias;
use crate::boundary::{call, place, places};
use crate::held::Held;
use crate::holding::{PORTS, Receiving};
use crate::message::CMessage;
use crate::options::milliseconds;
use crate::port::CPort;
use crate::status::Status;

/// How often a message is looked for that is as most are: at once, when it has come, and when nothing is in the way.
const TRIES: u32 = 3;

/// Waits for the next message.
///
/// # Safety
///
/// A1: `message` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_recv(port: CPort, message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, true, |receiver| receiver.recv()) }
}

/// Takes the next message if there is one.
///
/// # Safety
///
/// As [`zp_port_recv`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_recv(port: CPort, message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, false, |receiver| receiver.try_recv()) }
}

/// Waits for the next message, at most so long.
///
/// # Safety
///
/// As [`zp_port_recv`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_recv_timeout(
    port: CPort,
    message: *mut CMessage,
    timeout_ms: u32,
) -> Status {
    let timeout = milliseconds(timeout_ms);
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, timeout_ms > 0, |receiver| receiver.recv_timeout(timeout)) }
}

/// # Safety
///
/// As [`zp_port_recv`].
#[inline(always)]
unsafe fn receive(
    port: CPort,
    message: *mut CMessage,
    waits: bool,
    how: impl for<'p> FnOnce(Receiving<'p>) -> Result<Message<'p>, RecvError>,
) -> Status {
    // SAFETY: A1, passed on.
    if unsafe { receive_at_once(port, message, waits) } {
        return Status::Ok;
    }
    // SAFETY: A1, passed on.
    unsafe { receive_slowly(port, message, how) }
}

/// # Safety
///
/// As [`zp_port_recv`].
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
unsafe extern "C" fn receive_slowly(
    port: CPort,
    message: *mut CMessage,
    how: impl for<'p> FnOnce(Receiving<'p>) -> Result<Message<'p>, RecvError>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(message) }?;
        let received = PORTS.enter(port.id).and_then(|mut visit| {
            let (receiver, held) = visit.receiving()?;
            held.make_room()?;
            // SAFETY: A3: it lies beside the port from now on.
            Ok(unsafe { keep(port.id, how(receiver)?, held, 0) })
        });
        place.write(*received.as_ref().unwrap_or(&CMessage::NONE));
        received.map(drop)
    })
}

/// The usual case, as short as can be; a panic, of which there is none, would end the process here (A5).
///
/// # Safety
///
/// As [`zp_port_recv`].
#[inline(always)]
unsafe fn receive_at_once(port: CPort, message: *mut CMessage, waits: bool) -> bool {
    // SAFETY: A1.
    let Ok(place) = (unsafe { place(message) }) else { return false };
    let Some((visited, inside)) = PORTS.enter_at_once(port.id) else { return false };
    let is_received = match visited.receiving_at_once() {
        Some((receiver, soon, held)) if held.has_room() => {
            let mut tries = TRIES;
            let is_received = loop {
                if let Some(received) = receiver.recv() {
                    // SAFETY: A3: it lies beside the port from now on.
                    place.write(unsafe { keep(port.id, received, held, 0) });
                    break true;
                }
                tries -= 1;
                if tries == 0 || !soon.sees(waits) {
                    break false;
                }
            };
            if is_received {
                receiver.note();
            }
            is_received
        }
        _ => false,
    };
    bias::leave(inside);
    is_received
}

/// # Safety
///
/// A3: what the message borrows stays until it is released.
#[inline(always)]
pub(crate) unsafe fn keep(
    receiver: u64,
    message: Message<'_>,
    held: &mut Held,
    member: u64,
) -> CMessage {
    let mut told = CMessage::of(&message);
    // SAFETY: A3, passed on.
    told.opaque = [receiver, unsafe { held.keep(message, member) }];
    told
}

/// Waits for the next message, and takes what else is there.
///
/// # Safety
///
/// A1: `messages` has `capacity` places; `count` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_recv_all(
    port: CPort,
    messages: *mut CMessage,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive_all(port, (messages, capacity, count), |receiver| receiver.recv()) }
}

/// Takes what messages are there.
///
/// # Safety
///
/// As [`zp_port_recv_all`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_recv_all(
    port: CPort,
    messages: *mut CMessage,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive_all(port, (messages, capacity, count), |receiver| receiver.try_recv()) }
}

/// Waits for the next message, at most so long, and takes what else is there.
///
/// # Safety
///
/// As [`zp_port_recv_all`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_recv_all_timeout(
    port: CPort,
    messages: *mut CMessage,
    capacity: usize,
    count: *mut usize,
    timeout_ms: u32,
) -> Status {
    let timeout = milliseconds(timeout_ms);
    // SAFETY: A1, passed on.
    unsafe {
        receive_all(port, (messages, capacity, count), |receiver| receiver.recv_timeout(timeout))
    }
}

/// # Safety
///
/// As [`zp_port_recv_all`].
#[inline(always)]
unsafe fn receive_all(
    port: CPort,
    (messages, capacity, count): (*mut CMessage, usize, *mut usize),
    how: impl for<'p> FnOnce(Receiving<'p>) -> Result<Message<'p>, RecvError>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let count = unsafe { place(count) }?.write(0);
        // SAFETY: A1.
        let places = unsafe { places(messages, capacity) }?;
        let (first, others) = places.split_first_mut().ok_or(Status::BadArgument)?;
        let mut visit = PORTS.enter(port.id)?;
        let (receiver, held) = visit.receiving()?;
        held.make_room()?;
        // SAFETY: A3: it lies beside the port from now on.
        first.write(unsafe { keep(port.id, how(receiver)?, held, 0) });
        *count = 1;
        loop {
            let left = others.get_mut(*count - 1..).unwrap_or_default();
            *count += receive_some(port.id, receiver, held, left);
            let Some(place) = others.get_mut(*count - 1) else { break };
            if held.make_room().is_err() {
                break;
            }
            let Some(message) = try_recv(receiver) else { break };
            // SAFETY: A3, as above.
            place.write(unsafe { keep(port.id, message, held, 0) });
            *count += 1;
        }
        Ok(())
    })
}

/// Receives, as long as each message is there and as most are. (Apart, so that all of it stays in registers.)
#[inline(never)]
fn receive_some(
    port: u64,
    receiver: Receiving<'_>,
    held: &mut Held,
    places: &mut [MaybeUninit<CMessage>],
) -> usize {
    let receiver = receiver.as_receiver();
    let Some(usual) = receiver.usual() else { return 0 };
    let mut received = 0;
    for place in places {
        if held.make_room().is_err() {
            break;
        }
        let again = || receiver.clears_the_way().then(|| usual.recv()).flatten();
        let Some(message) = usual.recv().or_else(again) else { break };
        // SAFETY: A3: it lies beside the port from now on.
        place.write(unsafe { keep(port, message, held, 0) });
        usual.note();
        received += 1;
    }
    received
}

/// The next message, where it is not as most are.
#[cold]
#[inline(never)]
fn try_recv(receiver: Receiving<'_>) -> Option<Message<'_>> {
    receiver.try_recv().ok()
}
