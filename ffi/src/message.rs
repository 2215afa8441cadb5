//! `zp_message_…`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use zeroport::{Message, MessagePort, TakeError};

use crate::boundary::{call, items, place, places};
use crate::holding;
use crate::port::CPort;
use crate::status::{Failure, Status};

/// `zp_message`: what was received. Only `opaque` is ever believed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CMessage {
    /// The payload; not null in a message.
    pub data: *const c_void,
    /// Bytes of the payload.
    pub len: usize,
    /// The type tag; 0 for bytes.
    pub tag: u32,
    /// Ports that were not taken yet.
    pub port_count: u32,
    /// The handle of the port that has received it, and its number there.
    pub opaque: [u64; 2],
}

impl CMessage {
    pub(crate) const NONE: Self =
        Self { data: ptr::null(), len: 0, tag: 0, port_count: 0, opaque: [0; 2] };

    pub(crate) fn of(message: &Message<'_>) -> Self {
        let (bytes, tag) = (message.bytes(), message.tag());
        let port_count = message.port_count() as u32;
        Self { data: bytes.as_ptr().cast(), len: bytes.len(), tag, port_count, ..Self::NONE }
    }
}

/// Takes the ports out of a message.
///
/// # Safety
///
/// A1: `message` is null or was received; `ports` has `capacity` places; `count` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_message_take_ports(
    message: *mut CMessage,
    ports: *mut CPort,
    capacity: usize,
    count: *mut usize,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let count = unsafe { place(count) }?.write(0);
        // SAFETY: A1: it is the caller's, and was received or filled with zeros.
        let [from, number] = unsafe { opaque(message) }?;
        // SAFETY: A1.
        let places = unsafe { places(ports, capacity) }?;
        let holding = holding::find(from)?;
        let visit = holding.enter()?;
        let (needed, is_enough) =
            visit.look_at(number, |held| (held.port_count(), held.port_count() <= capacity))?;
        *count = needed;
        if !is_enough {
            return Err(Status::TooSmall.into());
        }
        let (taken, left, failure) = visit.look_at(number, take_all)?;
        *count = taken.len();
        for (place, port) in places.iter_mut().zip(taken) {
            place.write(CPort { id: port.map_or(0, holding::hold) });
        }
        // SAFETY: A1.
        unsafe { (*message).port_count = left };
        failure.map_or(Ok(()), Err)
    })
}

/// All ports that can be had (`None` in the place of one that is none), how many are left, and the
/// first failure.
fn take_all(message: &Message<'_>) -> (Vec<Option<MessagePort>>, u32, Option<Failure>) {
    let mut taken = Vec::with_capacity(message.port_count());
    let mut failure = None;
    loop {
        match message.take_port() {
            Ok(Some(port)) => taken.push(Some(port)),
            Ok(None) => break,
            Err(error) => {
                let is_gone = matches!(error, TakeError::Attach { .. });
                failure = failure.or(Some(error.into()));
                if !is_gone {
                    break;
                }
                taken.push(None);
            }
        }
    }
    (taken, message.port_count() as u32, failure)
}

/// Lets a message go.
///
/// # Safety
///
/// A1: `message` is null or was received.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_message_release(message: *mut CMessage) -> Status {
    call(|| {
        // SAFETY: A1: it is the caller's, and was received or filled with zeros.
        let [from, number] = unsafe { opaque(message) }?;
        holding::find(from)?.enter()?.release(number)?;
        // SAFETY: A1.
        unsafe { place(message) }?.write(CMessage::NONE);
        Ok(())
    })
}

/// # Safety
///
/// A1: `message` is null or initialised.
unsafe fn opaque(message: *const CMessage) -> Result<[u64; 2], Failure> {
    // SAFETY: A1, passed on.
    let message = unsafe { items(message, 1) }?;
    message.first().map(|message| message.opaque).ok_or_else(|| Status::BadArgument.into())
}
