//! `zp_port_detach`, `zp_port_attach`: ports outside of this library.
//!
//! Invariant A6: a C program that names a descriptor as trusted, or as one to be adopted, answers for that.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::c_int;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use zeroport::{MessagePort, PortDescriptors, Transferable};

use crate::boundary::{call, item, items, place, places};
use crate::holding::PORTS;
use crate::port::{CPort, give_port};
use crate::status::{Failure, Status};
use crate::table::Gone;

/// `ZP_TICKET_LEN`.
pub const TICKET_LEN: usize = 80;
/// `ZP_MAX_DESCRIPTORS`: what the kernel passes at once.
pub const MAX_DESCRIPTORS: usize = 253;

/// A `ZP_TRUST_…` that says one or the other.
fn is_trusted(trust: u32) -> Result<bool, Failure> {
    match trust {
        1 => Ok(true),
        2 => Ok(false),
        _ => Err(Status::BadArgument.into()),
    }
}

/// Gives a port away as its descriptors.
///
/// # Safety
///
/// A1: `ticket` is null or has its length; `fds` has `capacity` places; `count` is null or a place. A6.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_detach(
    port: CPort,
    trust: u32,
    ticket: *mut u8,
    fds: *mut c_int,
    capacity: usize,
    count: *mut usize,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let count = unsafe { place(count) }.map(|count| count.write(0));
        // SAFETY: A1.
        let ticket = unsafe { place(ticket.cast::<[u8; TICKET_LEN]>()) };
        let ticket = ticket.map(|ticket| ticket.write([0; TICKET_LEN]));
        let (count, ticket) = (count?, ticket?);
        let is_trusted = is_trusted(trust)?;
        // SAFETY: A1.
        let places = unsafe { places(fds, capacity) }?;
        if places.len() < MAX_DESCRIPTORS {
            *count = MAX_DESCRIPTORS;
            return Err(Status::TooSmall.into());
        }
        let mut visit = PORTS.enter(port.id)?;
        let leaving = visit.take()?;
        let parts = match is_trusted {
            // SAFETY: A6.
            true => unsafe { leaving.into_descriptors_trusted() },
            false => leaving.into_descriptors(),
        };
        let PortDescriptors { ticket: told, descriptors, .. } = match parts {
            Ok(parts) => parts,
            Err(refused) => {
                for thing in refused.list {
                    if let Transferable::Port(port) = thing {
                        visit.put_back(port);
                    }
                }
                return Err(refused.source.into());
            }
        };
        drop(visit.leave(Gone::Transferred));
        *ticket = told;
        for (place, fd) in places.iter_mut().zip(descriptors) {
            place.write(fd.into_raw_fd());
            *count += 1;
        }
        Ok(())
    })
}

/// Makes a port of descriptors.
///
/// # Safety
///
/// A1: `ticket` is null or has its length; `fds` has `count` numbers; `port` is null or a place. A6.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_attach(
    ticket: *const u8,
    fds: *const c_int,
    count: usize,
    trust: u32,
    port: *mut CPort,
) -> Status {
    let attach = || {
        // SAFETY: A1.
        let ticket = unsafe { item(ticket.cast::<[u8; TICKET_LEN]>()) }?;
        // SAFETY: A1.
        let numbers = unsafe { items(fds, count) }?;
        let is_trusted = is_trusted(trust)?;
        // SAFETY: A6.
        let fds = unsafe { adopt(numbers) }?;
        Ok(match is_trusted {
            // SAFETY: A6.
            true => unsafe { MessagePort::from_descriptors_trusted(ticket, fds) },
            false => MessagePort::from_descriptors(ticket, fds),
        }?)
    };
    // SAFETY: A1, passed on.
    call(|| unsafe { give_port(port, attach) })
}

/// # Safety
///
/// A6: they are the caller's to give.
unsafe fn adopt(numbers: &[c_int]) -> Result<Vec<OwnedFd>, Failure> {
    let mut seen = HashSet::new();
    for number in numbers {
        // SAFETY: a question about a number, which may be anything.
        let is_open = unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
        if !is_open || !seen.insert(*number) {
            return Err(Status::BadArgument.into());
        }
    }
    // SAFETY: A6; they are open, and each is there once.
    Ok(numbers.iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) }).collect())
}
