//! `zp_channel_new`, `zp_parent_port`, and what is asked of and done to a port itself.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use zeroport::{MessageChannel, PeerState, Trust};

use crate::boundary::{call, place, places};
use crate::holding::{self, Ending, PORTS, Receiving};
use crate::member;
use crate::options::{COptions, options, strategy};
use crate::status::{Failure, Status};
use crate::table::Gone;

/// `zp_port`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CPort {
    /// A number that means something to this library only.
    pub id: u64,
}

/// `zp_port_info`: what is known of a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CPortInfo {
    /// Bytes of the longest message.
    pub max_payload: usize,
    /// Bytes of the longest message that travels in the ring.
    pub max_in_ring: usize,
    /// How often a call on this port has slept.
    pub sleeps: u64,
    /// Whether the other end is trusted.
    pub is_trusted: u32,
    /// Whether a set or a loop has it.
    pub is_member: u32,
}

/// `ZP_VERSION` of the library.
#[unsafe(no_mangle)]
pub extern "C" fn zp_version() -> u32 {
    let part = |text: &str| text.parse().unwrap_or(0);
    let [major, minor, patch]: [u32; 3] = [
        part(env!("CARGO_PKG_VERSION_MAJOR")),
        part(env!("CARGO_PKG_VERSION_MINOR")),
        part(env!("CARGO_PKG_VERSION_PATCH")),
    ];
    major << 16 | minor << 8 | patch
}

/// Makes a channel.
///
/// # Safety
///
/// A1: `ports` is null or has places for two; `options` is null or as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_channel_new(ports: *mut CPort, options: *const COptions) -> Status {
    call(|| {
        // SAFETY: A1.
        let places = unsafe { places(ports, 2) }?;
        places.fill(MaybeUninit::new(CPort { id: 0 }));
        // SAFETY: A1.
        let MessageChannel { port1, port2 } = unsafe { self::options(options) }?.open()?;
        let one = holding::hold(port1)?;
        let other = holding::hold(port2).inspect_err(|_| holding::spend(one))?;
        for (place, id) in places.iter_mut().zip([one, other]) {
            place.write(CPort { id });
        }
        Ok(())
    })
}

/// Fills a place with a port, or with none.
///
/// # Safety
///
/// A1: `port` is null or a place for one.
pub(crate) unsafe fn give_port(
    port: *mut CPort,
    make: impl FnOnce() -> Result<zeroport::MessagePort, Failure>,
) -> Result<(), Failure> {
    // SAFETY: A1.
    let place = unsafe { place(port) }?.write(CPort { id: 0 });
    place.id = holding::hold(make()?)?;
    Ok(())
}

/// Takes the port to the parent process.
///
/// # Safety
///
/// A1: `port` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_parent_port(port: *mut CPort) -> Status {
    // SAFETY: A1, passed on.
    call(|| unsafe { give_port(port, || Ok(zeroport::parent_port()?)) })
}

/// The longest payload that the port can post.
///
/// # Safety
///
/// A1: `len` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_max_payload(port: CPort, len: *mut usize) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(len) }?.write(0);
        *place = PORTS.enter(port.id)?.sending(port.id, |sender| Ok(sender.max_payload()))?;
        Ok(())
    })
}

/// What is known of a port.
///
/// # Safety
///
/// A1: `info` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_info(port: CPort, info: *mut CPortInfo) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(info) }?.write(CPortInfo::default());
        let visit = PORTS.enter(port.id)?;
        if let Ok(Receiving::Half(half)) = visit.receiver() {
            place.sleeps = half.sleeps();
            place.is_trusted = u32::from(half.trust() == Trust::Trusted);
            return Ok(());
        }
        let is_member = u32::from(visit.membership().is_some());
        *place = visit.sending(port.id, |sender| {
            Ok(CPortInfo {
                max_payload: sender.max_payload(),
                max_in_ring: sender.max_in_ring(),
                sleeps: sender.sleeps(),
                is_trusted: u32::from(sender.trust() == Trust::Trusted),
                is_member,
            })
        })?;
        if let Ok(port) = visit.ours() {
            place.sleeps = port.sleeps();
        }
        Ok(())
    })
}

/// Chooses how calls on the port wait.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_set_wait(port: CPort, wait: u32) -> Status {
    call(|| {
        let strategy = strategy(wait)?;
        let visit = PORTS.enter(port.id)?;
        match (visit.ours(), visit.receiver()) {
            (Ok(port), _) => port.set_wait_strategy(strategy),
            (_, Ok(Receiving::Half(half))) => half.set_wait_strategy(strategy),
            _ => visit.sending(port.id, |sender| {
                sender.set_wait_strategy(strategy);
                Ok(())
            })?,
        }
        Ok(())
    })
}

/// How the other end is: [`Status::Ok`] while the channel is open.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_peer_state(port: CPort) -> Status {
    call(|| {
        let visit = PORTS.enter(port.id)?;
        let state = match visit.receiver() {
            Ok(receiver) => receiver.peer_state(),
            Err(_) => visit.sending(port.id, |sender| Ok(sender.peer_state()))?,
        };
        match state {
            PeerState::Open => Ok(()),
            PeerState::Closed(reason) => Err(Status::from(reason).into()),
            _ => Err(Status::Internal.into()),
        }
    })
}

/// A descriptor to poll, for loops of other kinds.
///
/// # Safety
///
/// A1: `fd` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_fd(port: CPort, fd: *mut c_int) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(fd) }?.write(-1);
        let visit = PORTS.enter(port.id)?;
        *place = visit.receiver()?.pollable().map_err(wait_failure)?.as_raw_fd();
        Ok(())
    })
}

/// Has the descriptor say when there is something.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_arm(port: CPort) -> Status {
    call(|| {
        let is_armed = PORTS.enter(port.id)?.receiver()?.arm().map_err(wait_failure)?;
        if is_armed { Ok(()) } else { Err(Status::Ready.into()) }
    })
}

/// Takes that back.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_disarm(port: CPort) -> Status {
    call(|| {
        PORTS.enter(port.id)?.receiver()?.disarm();
        Ok(())
    })
}

/// What the kernel says of the descriptors of something that a fork has copied: they are not its own.
pub(crate) fn wait_failure(error: io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EBADF) => Status::Detached.into(),
        // The line is gone: the channel has ended.
        Some(libc::ENOTCONN) => Status::Ready.into(),
        _ => Failure::system(&error),
    }
}

/// Ends the channel from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_shutdown(port: CPort) -> Status {
    call(|| PORTS.at_any_time(port.id, Ending::end))
}

/// Closes the port; the handle is spent.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_close(port: CPort) -> Status {
    call(|| {
        let visit = PORTS.enter_to_give_back(port.id)?;
        if let Some(membership) = visit.membership() {
            drop(visit);
            return member::close(membership, port.id);
        }
        visit.is_free()?;
        drop(visit.leave(Gone::Closed));
        Ok(())
    })
}
