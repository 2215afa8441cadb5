//! `zp_server_…`, `zp_caller_…`, `zp_connect`: first contact with strangers.
#![allow(unsafe_code)]

use std::ffi::{OsStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use zeroport::{AcceptError, Address, Caller, Connection, Credentials, Server};

use crate::boundary::{call, place, text};
use crate::holding;
use crate::options::{COptions, milliseconds, options};
use crate::port::{CPort, give_port};
use crate::status::{Failure, Status};
use crate::table::{Gone, Table};

/// `zp_server`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CServer {
    /// A number that means something to this library only.
    pub id: u64,
}

/// `zp_caller`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CCaller {
    /// A number that means something to this library only.
    pub id: u64,
}

/// `zp_credentials`: who is at the other end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CCredentials {
    /// The effective user.
    pub uid: libc::uid_t,
    /// The effective group.
    pub gid: libc::gid_t,
    /// The process, or 0.
    pub pid: libc::pid_t,
    /// The process itself, or -1.
    pub pidfd: c_int,
}

impl CCredentials {
    const NONE: Self = Self { uid: u32::MAX, gid: u32::MAX, pid: 0, pidfd: -1 };

    fn of(found: Credentials) -> Self {
        let told = Self::without_pidfd(&found);
        Self { pidfd: found.pidfd.map_or(-1, IntoRawFd::into_raw_fd), ..told }
    }

    /// What somebody else keeps, with a copy of the descriptor in the place of `room`: so this cannot fail for want of one.
    fn copy(found: &Credentials, room: OwnedFd) -> Self {
        let copied = found.pidfd.as_ref().is_some_and(|pidfd| {
            // SAFETY: takes three numbers; the second one is ours, whatever it stood for.
            unsafe { libc::dup3(pidfd.as_raw_fd(), room.as_raw_fd(), libc::O_CLOEXEC) >= 0 }
        });
        let pidfd = if copied { room.into_raw_fd() } else { -1 };
        Self { pidfd, ..Self::without_pidfd(found) }
    }

    fn without_pidfd(found: &Credentials) -> Self {
        let pid = found.pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0);
        Self { uid: found.uid, gid: found.gid, pid, pidfd: -1 }
    }
}

static SERVERS: Table<Server> = Table::new(3);
static CALLERS: Table<Caller> = Table::new(4);

/// # Safety
///
/// A1: `address` is null or a text.
unsafe fn address(address: *const c_char) -> Result<Address, Failure> {
    // SAFETY: A1, passed on.
    let bytes = unsafe { text(address) }?.to_bytes();
    Ok(match bytes.strip_prefix(b"@") {
        Some(name) => Address::abstract_name(name),
        None => Address::from(OsStr::from_bytes(bytes)),
    })
}

/// A place for credentials, which the caller may not want.
///
/// # Safety
///
/// A1: `credentials` is null or a place.
unsafe fn wanted<'a>(
    credentials: *mut CCredentials,
) -> Result<Option<&'a mut CCredentials>, Failure> {
    if credentials.is_null() {
        return Ok(None);
    }
    // SAFETY: A1.
    Ok(Some(unsafe { place(credentials) }?.write(CCredentials::NONE)))
}

/// Listens.
///
/// # Safety
///
/// A1: `address` is null or a text; `server` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_server_bind(address: *const c_char, server: *mut CServer) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(server) }?.write(CServer { id: 0 });
        // SAFETY: A1.
        let bound = Server::bind(unsafe { self::address(address) }?)?;
        place.id = SERVERS.insert(bound, ())?;
        Ok(())
    })
}

/// A descriptor that says when a caller waits.
///
/// # Safety
///
/// A1: `fd` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_server_fd(server: CServer, fd: *mut c_int) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(fd) }?.write(-1);
        *place = SERVERS.enter(server.id)?.as_fd().as_raw_fd();
        Ok(())
    })
}

/// Waits for a caller.
///
/// # Safety
///
/// A1: `caller` is null or a place, and so is `credentials`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_server_accept(
    server: CServer,
    caller: *mut CCaller,
    credentials: *mut CCredentials,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { accept(server, caller, credentials, Server::accept) }
}

/// Takes a caller if there is one.
///
/// # Safety
///
/// As [`zp_server_accept`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_server_try_accept(
    server: CServer,
    caller: *mut CCaller,
    credentials: *mut CCredentials,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { accept(server, caller, credentials, Server::try_accept) }
}

/// Waits for a caller, at most so long.
///
/// # Safety
///
/// As [`zp_server_accept`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_server_accept_timeout(
    server: CServer,
    caller: *mut CCaller,
    credentials: *mut CCredentials,
    timeout_ms: u32,
) -> Status {
    let how = |server: &Server| server.accept_timeout(milliseconds(timeout_ms));
    // SAFETY: A1, passed on.
    unsafe { accept(server, caller, credentials, how) }
}

/// # Safety
///
/// As [`zp_server_accept`].
unsafe fn accept(
    server: CServer,
    caller: *mut CCaller,
    credentials: *mut CCredentials,
    how: impl FnOnce(&Server) -> Result<Caller, AcceptError>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(caller) }.map(|place| place.write(CCaller { id: 0 }));
        // SAFETY: A1.
        let wanted = unsafe { wanted(credentials) };
        let (place, wanted) = (place?, wanted?);
        let server = SERVERS.enter(server.id)?;
        // Before there is a caller, who could not wait for the next try.
        let room = wanted.as_ref().map(|_| server.as_fd().try_clone_to_owned()).transpose();
        let room = room.map_err(|error| Failure::system(&error))?;
        let accepted = how(&server)?;
        if let Some((place, room)) = wanted.zip(room) {
            *place = CCredentials::copy(accepted.credentials(), room);
        }
        place.id = CALLERS.insert(accepted, ())?;
        Ok(())
    })
}

/// Gives a caller a port.
///
/// # Safety
///
/// A1: `options` is null or as large as it says; `port` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_caller_admit(
    caller: CCaller,
    options: *const COptions,
    port: *mut CPort,
) -> Status {
    let admit = || {
        // SAFETY: A1.
        let options = unsafe { self::options(options) }?;
        let caller = CALLERS.enter(caller.id)?.leave(Gone::Closed);
        Ok(caller.admit_with(options)?)
    };
    // SAFETY: A1, passed on.
    call(|| unsafe { give_port(port, admit) })
}

/// Hangs up.
#[unsafe(no_mangle)]
pub extern "C" fn zp_caller_refuse(caller: CCaller) -> Status {
    call(|| {
        CALLERS.enter_to_give_back(caller.id)?.leave(Gone::Closed).refuse();
        Ok(())
    })
}

/// Listens no longer.
#[unsafe(no_mangle)]
pub extern "C" fn zp_server_close(server: CServer) -> Status {
    call(|| {
        drop(SERVERS.enter_to_give_back(server.id)?.leave(Gone::Closed));
        Ok(())
    })
}

/// Connects to a server; waits for its answer.
///
/// # Safety
///
/// A1: `address` is null or a text; `options` is null or as large as it says; `port` is null or a place, and so is
/// `credentials`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_connect(
    address: *const c_char,
    options: *const COptions,
    port: *mut CPort,
    credentials: *mut CCredentials,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { connect(address, options, port, credentials, None) }
}

/// Connects to a server; waits for its answer at most so long.
///
/// # Safety
///
/// As [`zp_connect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_connect_timeout(
    address: *const c_char,
    options: *const COptions,
    port: *mut CPort,
    credentials: *mut CCredentials,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { connect(address, options, port, credentials, Some(milliseconds(timeout_ms))) }
}

/// # Safety
///
/// As [`zp_connect`].
unsafe fn connect(
    address: *const c_char,
    options: *const COptions,
    port: *mut CPort,
    credentials: *mut CCredentials,
    timeout: Option<Duration>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(port) }.map(|place| place.write(CPort { id: 0 }));
        // SAFETY: A1.
        let wanted = unsafe { wanted(credentials) };
        let (place, wanted) = (place?, wanted?);
        // SAFETY: A1.
        let address = unsafe { self::address(address) }?;
        // SAFETY: A1.
        let options = unsafe { self::options(options) }?;
        let Connection { port, server, .. } = match timeout {
            None => options.connect(address),
            Some(timeout) => options.connect_timeout(address, timeout),
        }?;
        place.id = holding::hold(port)?;
        if let Some(place) = wanted {
            *place = CCredentials::of(server);
        }
        Ok(())
    })
}
