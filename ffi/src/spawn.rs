//! `zp_spawn`: children with a port.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::boundary::{call, place, text};
use crate::holding;
use crate::options::{COptions, options};
use crate::port::CPort;
use crate::status::{Failure, Status};

/// Starts a program with a port.
///
/// # Safety
///
/// A1: `argv` and `envp` are null or end with null, and have texts before that; `options` is null or as large as it says;
/// `port` and `pid` are null or places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_spawn(
    argv: *const *const c_char,
    envp: *const *const c_char,
    options: *const COptions,
    port: *mut CPort,
    pid: *mut libc::pid_t,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place_of_port = unsafe { place(port) }.map(|port| port.write(CPort { id: 0 }));
        // SAFETY: A1.
        let place_of_pid = unsafe { place(pid) }.map(|pid| pid.write(0));
        let (place_of_port, place_of_pid) = (place_of_port?, place_of_pid?);
        // SAFETY: A1.
        let options = unsafe { self::options(options) }?;
        // SAFETY: A1.
        let arguments = unsafe { texts(argv) }?;
        let mut command = command(&arguments)?;
        if !envp.is_null() {
            // SAFETY: A1.
            set_environment(&mut command, &unsafe { texts(envp) }?)?;
        }
        let (port, child) = options.spawn(command)?;
        place_of_port.id = holding::hold(port)?;
        // Whoever waits for the child does it by this number; dropping the child does nothing to it.
        *place_of_pid = child.id().try_into().map_err(|_| Status::Internal)?;
        Ok(())
    })
}

/// The texts of a list that ends with null.
///
/// # Safety
///
/// A1: it is null or such a list.
unsafe fn texts<'a>(list: *const *const c_char) -> Result<Vec<&'a CStr>, Failure> {
    if list.is_null() || !list.is_aligned() {
        return Err(Status::BadArgument.into());
    }
    let mut found = Vec::new();
    loop {
        // SAFETY: A1: null comes after these.
        let next = unsafe { list.add(found.len()) };
        // SAFETY: A1, as above.
        let next = unsafe { *next };
        if next.is_null() {
            return Ok(found);
        }
        // SAFETY: A1.
        found.push(unsafe { text(next) }?);
    }
}

fn command(arguments: &[&CStr]) -> Result<Command, Failure> {
    let (program, others) = arguments.split_first().ok_or(Status::BadArgument)?;
    let mut command = Command::new(OsStr::from_bytes(program.to_bytes()));
    command.arg0(OsStr::from_bytes(program.to_bytes()));
    command.args(others.iter().map(|text| OsStr::from_bytes(text.to_bytes())));
    Ok(command)
}

fn set_environment(command: &mut Command, entries: &[&CStr]) -> Result<(), Failure> {
    command.env_clear();
    for entry in entries {
        let entry = entry.to_bytes();
        let split = entry.iter().position(|byte| *byte == b'=').filter(|at| *at > 0);
        let (name, value) = entry.split_at(split.ok_or(Status::BadArgument)?);
        let value = value.get(1..).unwrap_or_default();
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    Ok(())
}
