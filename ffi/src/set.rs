//! `zp_set_…`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::boundary::{call, place, places, tell_errno};
use crate::member::{self, Anytime, SETS, Told};
use crate::message::CMessage;
use crate::options::{milliseconds, strategy};
use crate::port::CPort;
use crate::status::{Failure, Status};

/// `zp_set`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSet {
    /// A number that means something to this library only.
    pub id: u64,
}

/// `zp_event`: what a set tells.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CEvent {
    /// As given with the port.
    pub user: *mut c_void,
    /// The member.
    pub port: CPort,
    /// One of [`EVENTS`].
    pub kind: u32,
    /// How the channel has ended, or why the next message cannot be had.
    pub status: Status,
    /// The message, if that is what has come.
    pub message: CMessage,
}

/// `ZP_EVENT_MESSAGE`, `ZP_EVENT_CLOSED`, `ZP_EVENT_FAILED`.
pub const EVENTS: [u32; 3] = [1, 2, 3];

impl From<Told> for CEvent {
    fn from(told: Told) -> Self {
        let [kind_of_message, kind_of_end, kind_of_failure] = EVENTS;
        let (key, kind, status, message) = match told {
            Told::Message(key, message) => (key, kind_of_message, Status::Ok, message),
            Told::Closed(key, reason, _) => (key, kind_of_end, reason.into(), CMessage::NONE),
            Told::Failed(key, failed) => {
                let failure = Failure::from(failed);
                tell_errno(failure);
                (key, kind_of_failure, failure.status, CMessage::NONE)
            }
        };
        let user = std::ptr::with_exposed_provenance_mut(key.user);
        Self { user, port: CPort { id: key.port }, kind, status, message }
    }
}

/// Makes a set.
///
/// # Safety
///
/// A1: `set` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_set_new(set: *mut CSet) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(set) }?.write(CSet { id: 0 });
        place.id = member::new(&SETS, None)?;
        Ok(())
    })
}

/// Takes a port in.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_insert(set: CSet, port: CPort, user: *mut c_void) -> Status {
    call(|| member::insert(&SETS, set.id, port.id, user, None).map_err(|(failure, _)| failure))
}

/// Takes a port out.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_remove(set: CSet, port: CPort) -> Status {
    call(|| member::remove(&SETS, set.id, port.id))
}

/// Has the messages of a port wait.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_pause(set: CSet, port: CPort) -> Status {
    call(|| member::pause(&SETS, set.id, port.id, true))
}

/// Has them told again.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_resume(set: CSet, port: CPort) -> Status {
    call(|| member::pause(&SETS, set.id, port.id, false))
}

/// Waits for something to tell.
///
/// # Safety
///
/// A1: `events` has `capacity` places; `count` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_set_wait(
    set: CSet,
    events: *mut CEvent,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { wait(set, (events, capacity, count), None) }
}

/// Tells what there is.
///
/// # Safety
///
/// As [`zp_set_wait`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_set_try_wait(
    set: CSet,
    events: *mut CEvent,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { wait(set, (events, capacity, count), Some(Duration::ZERO)) }
}

/// Waits for something to tell, at most so long.
///
/// # Safety
///
/// As [`zp_set_wait`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_set_wait_timeout(
    set: CSet,
    events: *mut CEvent,
    capacity: usize,
    count: *mut usize,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { wait(set, (events, capacity, count), Some(milliseconds(timeout_ms))) }
}

/// # Safety
///
/// As [`zp_set_wait`].
unsafe fn wait(
    set: CSet,
    (events, capacity, count): (*mut CEvent, usize, *mut usize),
    timeout: Option<Duration>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let count = unsafe { place(count) }?.write(0);
        // SAFETY: A1.
        let places = unsafe { places(events, capacity) }?;
        if places.is_empty() {
            return Err(Status::BadArgument.into());
        }
        let (capacity, mut places) = (places.len(), places.iter_mut());
        SETS.enter(set.id)?.wait(set.id, timeout, |told| {
            if let Some(place) = places.next() {
                place.write(told.into());
                *count += 1;
            }
            *count < capacity
        })?;
        if timeout.is_some() && *count == 0 { Err(Status::Empty.into()) } else { Ok(()) }
    })
}

/// Ends a wait, from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_wake(set: CSet) -> Status {
    call(|| SETS.at_any_time(set.id, Anytime::wake))
}

/// The descriptor of a set.
///
/// # Safety
///
/// A1: `fd` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_set_fd(set: CSet, fd: *mut c_int) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(fd) }?.write(-1);
        *place = SETS.enter(set.id)?.set.as_fd().as_raw_fd();
        Ok(())
    })
}

/// Has the descriptor say when there is something.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_arm(set: CSet) -> Status {
    call(|| SETS.enter(set.id)?.arm())
}

/// Chooses how the set waits.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_set_wait(set: CSet, wait: u32) -> Status {
    call(|| {
        SETS.enter(set.id)?.set.set_wait_strategy(strategy(wait)?);
        Ok(())
    })
}

/// Closes a set and its members.
#[unsafe(no_mangle)]
pub extern "C" fn zp_set_close(set: CSet) -> Status {
    call(|| member::close_all(&SETS, set.id))
}
