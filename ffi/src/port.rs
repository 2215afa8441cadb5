//! `zp_channel_…`, `zp_parent_port` and `zp_port_…`.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::time::Duration;

use zeroport::{Message, MessageChannel, MessagePort, PeerState, RecvError, TransferList};

use crate::boundary::{call, items, place, places};
use crate::holding::{self, Visit};
use crate::message::CMessage;
use crate::status::{Failure, Status};
use crate::table::Gone;

/// `zp_port`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CPort {
    /// A number that means something to this library only.
    pub id: u64,
}

/// `ZP_UNTRUSTED`: a flag of [`zp_channel_new`].
pub const UNTRUSTED: u32 = 1;
/// `ZP_NO_INDEX`: no port of the list is to blame.
pub const NO_INDEX: usize = usize::MAX;
/// The most ports that one message carries: more are not even looked at.
const MAX_PORTS: usize = 1024;

/// How long a post may wait for room.
enum Patience {
    ForEver,
    None,
    AtMost(Duration),
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
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
/// A1: `ports` is null or has places for two.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_channel_new(ports: *mut CPort, flags: u32) -> Status {
    call(|| {
        // SAFETY: A1.
        let places = unsafe { places(ports, 2) }?;
        places.fill(MaybeUninit::new(CPort { id: 0 }));
        let channel = match flags {
            0 => MessageChannel::new()?,
            UNTRUSTED => MessageChannel::untrusted()?,
            _ => return Err(Status::BadArgument.into()),
        };
        for (place, port) in places.iter_mut().zip([channel.port1, channel.port2]) {
            place.write(CPort { id: holding::hold(port) });
        }
        Ok(())
    })
}

/// Takes the port to the parent process.
///
/// # Safety
///
/// A1: `port` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_parent_port(port: *mut CPort) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(port) }?;
        place.write(CPort { id: 0 });
        place.write(CPort { id: holding::hold(zeroport::parent_port()?) });
        Ok(())
    })
}

/// Posts bytes and ports; waits for room.
///
/// # Safety
///
/// A1: `data` has `len` bytes, `ports` has `port_count` handles, `bad_index` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post(
    port: CPort,
    data: *const c_void,
    len: usize,
    ports: *const CPort,
    port_count: usize,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post(port, (data, len), (ports, port_count), bad_index, Patience::ForEver) }
}

/// Posts bytes and ports; does not wait.
///
/// # Safety
///
/// As [`zp_port_post`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_post(
    port: CPort,
    data: *const c_void,
    len: usize,
    ports: *const CPort,
    port_count: usize,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post(port, (data, len), (ports, port_count), bad_index, Patience::None) }
}

/// Posts bytes and ports; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_post`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_timeout(
    port: CPort,
    data: *const c_void,
    len: usize,
    ports: *const CPort,
    port_count: usize,
    bad_index: *mut usize,
    timeout_ms: u32,
) -> Status {
    let patience = Patience::AtMost(milliseconds(timeout_ms));
    // SAFETY: A1, passed on.
    unsafe { post(port, (data, len), (ports, port_count), bad_index, patience) }
}

/// # Safety
///
/// As [`zp_port_post`].
unsafe fn post(
    port: CPort,
    (data, len): (*const c_void, usize),
    (ports, port_count): (*const CPort, usize),
    bad_index: *mut usize,
    patience: Patience,
) -> Status {
    call(|| {
        if !bad_index.is_null() {
            // SAFETY: A1.
            unsafe { place(bad_index) }?.write(NO_INDEX);
        }
        if port_count > MAX_PORTS {
            return Err(Status::TooManyPorts.into());
        }
        // SAFETY: A1.
        let bytes = unsafe { items(data.cast::<u8>(), len) }?;
        // SAFETY: A1.
        let ports = unsafe { items(ports, port_count) }?;
        post_with(port.id, bytes, ports, patience).inspect_err(|failure| {
            // SAFETY: A1.
            if let (Some(index), Ok(place)) = (failure.index, unsafe { place(bad_index) }) {
                place.write(index);
            }
        })
    })
}

fn post_with(
    carrier: u64,
    bytes: &[u8],
    ports: &[CPort],
    patience: Patience,
) -> Result<(), Failure> {
    let holding = holding::find(carrier)?;
    let visit = holding.enter()?;
    let carrying = visit.port(carrier)?;
    let post = |list| match patience {
        Patience::ForEver => carrying.post_bytes_with(bytes, list),
        Patience::None => carrying.try_post_bytes_with(bytes, list),
        Patience::AtMost(time) => carrying.post_bytes_with_timeout(bytes, list, time),
    };
    if ports.is_empty() {
        return post(TransferList::new()).map_err(|refused| refused.source.into());
    }
    give_away(carrier, ports, |list| match post(list) {
        Ok(()) => Ok(()),
        Err(refused) => Err((refused.list, refused.source.into())),
    })
}

/// Hands all the ports to `post`; on failure each goes back to its handle.
fn give_away(
    carrier: u64,
    ports: &[CPort],
    post: impl FnOnce(TransferList) -> Result<(), (TransferList, Failure)>,
) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    let mut holdings = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        let holding = match port.id {
            id if id == carrier => Err(Status::Carrier.into()),
            id if !seen.insert(id) => holding::find(id).and(Err(Status::Duplicate.into())),
            id => holding::find(id),
        };
        holdings.push(holding.map_err(|failure| failure.at(index))?);
    }
    let mut visits: Vec<Visit<'_>> = Vec::with_capacity(ports.len());
    for (index, (holding, port)) in holdings.iter().zip(ports).enumerate() {
        let visit = holding.enter().and_then(|visit| {
            visit.may_leave().and_then(|()| visit.port(port.id).map(drop))?;
            Ok(visit)
        });
        visits.push(visit.map_err(|failure| failure.at(index))?);
    }
    // Nothing can fail from here to `post`: what was taken out would be lost.
    let taken: Vec<MessagePort> =
        visits.iter_mut().zip(ports).filter_map(|(visit, port)| visit.take(port.id).ok()).collect();
    match post(taken.into()) {
        Ok(()) => {
            holding::forget(ports.iter().map(|port| port.id), Gone::Transferred);
            Ok(())
        }
        Err((list, failure)) => {
            for (visit, port) in visits.iter_mut().zip(list.into_ports()) {
                visit.put_back(port);
            }
            Err(failure)
        }
    }
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
        let place = unsafe { place(len) }?;
        place.write(0);
        let holding = holding::find(port.id)?;
        place.write(holding.enter()?.port(port.id)?.max_payload());
        Ok(())
    })
}

/// Waits for the next message.
///
/// # Safety
///
/// A1: `message` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_recv(port: CPort, message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, MessagePort::recv) }
}

/// Takes the next message if there is one.
///
/// # Safety
///
/// As [`zp_port_recv`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_recv(port: CPort, message: *mut CMessage) -> Status {
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, MessagePort::try_recv) }
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
    // SAFETY: A1, passed on.
    unsafe { receive(port, message, |port| port.recv_timeout(milliseconds(timeout_ms))) }
}

/// # Safety
///
/// As [`zp_port_recv`].
unsafe fn receive(
    port: CPort,
    message: *mut CMessage,
    how: impl FnOnce(&MessagePort) -> Result<Message<'_>, RecvError>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(message) }?;
        place.write(CMessage::NONE);
        let holding = holding::find(port.id)?;
        let visit = holding.enter()?;
        let received = how(visit.port(port.id)?)?;
        let mut message = CMessage::of(&received);
        message.opaque = [port.id, visit.keep(received)];
        place.write(message);
        Ok(())
    })
}

/// How the other end is: [`Status::Ok`] while the channel is open.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_peer_state(port: CPort) -> Status {
    call(|| {
        let holding = holding::find(port.id)?;
        match holding.enter()?.port(port.id)?.peer_state() {
            PeerState::Open => Ok(()),
            PeerState::Closed(reason) => Err(Status::from(reason).into()),
            _ => Err(Status::Internal.into()),
        }
    })
}

/// Ends the channel from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_shutdown(port: CPort) -> Status {
    call(|| {
        holding::find(port.id)?.shut_down();
        Ok(())
    })
}

/// Closes the port; the handle is spent.
#[unsafe(no_mangle)]
pub extern "C" fn zp_port_close(port: CPort) -> Status {
    call(|| {
        let holding = holding::find(port.id)?;
        let mut visit = holding.enter()?;
        let closing = visit.take(port.id)?;
        holding::forget([port.id], Gone::Closed);
        drop(visit);
        closing.close();
        Ok(())
    })
}
