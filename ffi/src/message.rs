//! `zp_message_…`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use zeroport::{LetGo, Message, MessagePort, Receiver, SealedBuffer, TakeError};

use crate::bias::{self, Inside};
use crate::boundary::{call, items, items_mut, place, places};
use crate::buffer::{self, CBuffer};
use crate::held::Held;
use crate::holding::{self, PORTS};
use crate::member;
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
    /// Buffers that were not taken yet.
    pub buffer_count: u32,
    /// 0.
    pub reserved: u32,
    /// The handle of who has received it, and its number there.
    pub opaque: [u64; 2],
}

impl CMessage {
    /// No message.
    pub const NONE: Self = Self {
        data: ptr::null(),
        len: 0,
        tag: 0,
        port_count: 0,
        buffer_count: 0,
        reserved: 0,
        opaque: [0; 2],
    };

    /// But for whose it is.
    #[inline(always)]
    pub(crate) fn of(message: &Message<'_>) -> Self {
        let bytes = message.bytes();
        let [ports, buffers] = match message.is_in_place() {
            true => [0; 2],
            false => [message.port_count(), message.buffer_count()],
        };
        Self {
            data: bytes.as_ptr().cast(),
            len: bytes.len(),
            tag: message.tag(),
            port_count: ports as u32,
            buffer_count: buffers as u32,
            ..Self::NONE
        }
    }
}

/// Does something with the messages that a port, set or loop holds.
#[inline(always)]
pub(crate) fn with_held<R>(
    receiver: u64,
    with: impl FnOnce(&mut Held) -> Result<R, Failure>,
) -> Result<R, Failure> {
    if PORTS.is_of(receiver) {
        return with(&mut PORTS.enter(receiver)?.held);
    }
    member::with_held(receiver, with)
}

/// As [`with_held`], to release some.
#[inline(always)]
fn with_held_to_release(
    receiver: u64,
    with: impl FnOnce(&mut Held) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if PORTS.is_of(receiver) {
        return with(&mut PORTS.enter_to_give_back(receiver)?.held);
    }
    member::with_held_to_release(receiver, with)
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
    let take = |message: &Message<'_>| take_all(message.port_count(), || message.take_port());
    let hold = |port: MessagePort| holding::hold(port).map(|id| CPort { id });
    let none = CPort { id: 0 };
    // SAFETY: A1, passed on.
    unsafe { take_out(message, (ports, capacity, count), |it| it.port_count(), take, hold, none) }
}

/// Takes the buffers out of a message.
///
/// # Safety
///
/// A1: `message` is null or was received; `buffers` has `capacity` places; `count` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_message_take_buffers(
    message: *mut CMessage,
    buffers: *mut CBuffer,
    capacity: usize,
    count: *mut usize,
) -> Status {
    let take = |message: &Message<'_>| take_all(message.buffer_count(), || message.take_buffer());
    let hold = |sealed: SealedBuffer| buffer::hold(sealed.into()).map(|id| CBuffer { id });
    let none = CBuffer { id: 0 };
    // SAFETY: A1, passed on.
    unsafe {
        take_out(message, (buffers, capacity, count), |it| it.buffer_count(), take, hold, none)
    }
}

/// What could be taken (`None` in the place of what is none), and the first failure.
type Taken<T> = (Vec<Option<T>>, Option<Failure>);

/// # Safety
///
/// A1: `message` is null or was received; `things` has `capacity` places; `count` is null or a place.
unsafe fn take_out<T, C: Copy>(
    message: *mut CMessage,
    (things, capacity, count): (*mut C, usize, *mut usize),
    how_many: impl Fn(&Message<'_>) -> usize,
    take: impl FnOnce(&Message<'_>) -> Taken<T>,
    hold: impl Fn(T) -> Result<C, Failure>,
    none: C,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let count = unsafe { place(count) }?.write(0);
        // SAFETY: A1: it is the caller's, and was received or filled with zeros.
        let [from, number] = unsafe { opaque(message) }?;
        // SAFETY: A1.
        let places = unsafe { places(things, capacity) }?;
        let (taken, mut failure) = with_held(from, |held| {
            let held = held.get(number)?;
            *count = how_many(held);
            if *count > capacity {
                return Err(Status::TooSmall.into());
            }
            let taken = take(held);
            let left = [held.port_count(), held.buffer_count()];
            // SAFETY: A1.
            let message = unsafe { &mut *message };
            [message.port_count, message.buffer_count] = left.map(|left| left as u32);
            Ok(taken)
        })?;
        *count = taken.len();
        for (place, thing) in places.iter_mut().zip(taken) {
            let held = thing.map_or(Ok(none), &hold);
            place.write(*held.as_ref().unwrap_or(&none));
            failure = failure.or(held.err());
        }
        failure.map_or(Ok(()), Err)
    })
}

/// All that can be had.
fn take_all<T>(count: usize, take: impl Fn() -> Result<Option<T>, TakeError>) -> Taken<T> {
    let (mut taken, mut failure) = (Vec::with_capacity(count), None);
    loop {
        match take() {
            Ok(Some(thing)) => taken.push(Some(thing)),
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
    (taken, failure)
}

/// Lets a message go.
///
/// # Safety
///
/// A1: `message` is null or was received.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_message_release(message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    if unsafe { release_at_once(message, Held::release_first) } {
        return Status::Ok;
    }
    // SAFETY: A1, passed on.
    unsafe { release_other(message) }
}

/// The usual case, as short as can be; a panic, of which there is none, would end the process here (A5).
///
/// # Safety
///
/// As [`zp_message_release`].
#[inline(always)]
unsafe fn release_at_once(
    message: *mut CMessage,
    release: impl FnOnce(&mut Held, u64) -> LetGo<'static>,
) -> bool {
    // SAFETY: A1: it is the caller's, and was received or filled with zeros.
    let Ok([from, number]) = (unsafe { opaque(message) }) else { return false };
    let Some((visited, inside)) = PORTS.enter_at_once(from) else { return false };
    let released = release(&mut visited.held, number);
    if let LetGo::No = released {
        bias::leave(inside);
        return false;
    }
    // SAFETY: A1.
    unsafe { message.write(CMessage::NONE) };
    match released {
        LetGo::Owing(receiver) => give_back(receiver, inside),
        _ => bias::leave(inside),
    }
    true
}

/// Of one who holds many.
///
/// # Safety
///
/// As [`zp_message_release`].
#[inline(never)]
unsafe extern "C" fn release_other(message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    if unsafe { release_at_once(message, Held::release_at_once) } {
        return Status::Ok;
    }
    // SAFETY: A1, passed on.
    unsafe { release_slowly(message) }
}

/// The rest of a release that gives room back. Apart, because much to do takes registers, which are saved.
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
extern "C" fn give_back(receiver: &Receiver, inside: &Inside) {
    if !receiver.give_back_at_once() {
        return tell(receiver, inside);
    }
    bias::leave(inside);
}

#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions)] // as above
extern "C" fn tell(receiver: &Receiver, inside: &Inside) {
    receiver.tell_of_room();
    bias::leave(inside);
}

/// # Safety
///
/// As [`zp_message_release`].
#[cold]
#[inline(never)]
unsafe extern "C" fn release_slowly(message: *mut CMessage) -> Status {
    call(|| {
        // SAFETY: A1: it is the caller's, and was received or filled with zeros.
        let [from, number] = unsafe { opaque(message) }?;
        with_held_to_release(from, |held| held.release(number))?;
        // SAFETY: A1.
        unsafe { place(message) }?.write(CMessage::NONE);
        Ok(())
    })
}

/// Lets many messages go.
///
/// # Safety
///
/// A1: `messages` has `count` messages that were received.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_messages_release(messages: *mut CMessage, count: usize) -> Status {
    call(|| {
        // SAFETY: A1: they are the caller's, and were received or filled with zeros.
        let mut messages = unsafe { items_mut(messages, count) }?;
        let mut failure = None;
        while let Some(first) = messages.first() {
            let from = first.opaque[0];
            let same = messages.iter().take_while(|message| message.opaque[0] == from).count();
            let (those, others) = messages.split_at_mut(same);
            messages = others;
            let released = release_run(from, those);
            failure = failure.or(released.err());
        }
        failure.map_or(Ok(()), Err)
    })
}

/// Lets go what one port, set or loop holds.
fn release_run(from: u64, messages: &mut [CMessage]) -> Result<(), Failure> {
    if !PORTS.is_of(from) {
        return member::with_held_to_release(from, |held| release_all(held, messages));
    }
    let mut visit = PORTS.enter_to_give_back(from)?;
    match visit.receiving() {
        Ok((receiver, held)) => {
            // The room goes back in one piece: nobody looks after each message whether there is another one, and so takes
            // that line from the poster.
            let _piece = receiver.drain();
            release_all(held, messages)
        }
        Err(_) => release_all(&mut visit.held, messages),
    }
}

/// All that can be let go, and the first failure.
fn release_all(held: &mut Held, messages: &mut [CMessage]) -> Result<(), Failure> {
    let mut failure = None;
    for message in messages {
        let number = message.opaque[1];
        let released = match held.release_at_once(number) {
            LetGo::Yes => Ok(()),
            LetGo::Owing(receiver) => {
                if !receiver.give_back_at_once() {
                    receiver.tell_of_room();
                }
                Ok(())
            }
            LetGo::No => held.release(number),
        };
        match released {
            Ok(()) => *message = CMessage::NONE,
            Err(refused) => failure = failure.or(Some(refused)),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// # Safety
///
/// A1: `message` is null or initialised.
#[inline(always)]
pub(crate) unsafe fn opaque(message: *const CMessage) -> Result<[u64; 2], Failure> {
    // SAFETY: A1, passed on.
    let message = unsafe { items(message, 1) }?;
    message.first().map(|message| message.opaque).ok_or_else(|| Status::BadArgument.into())
}
