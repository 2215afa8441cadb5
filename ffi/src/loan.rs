//! `zp_port_reserve…` and `zp_loan_…`: messages that are written where they travel.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use zeroport::{Loan, PostError, Sender, TransferList};

use crate::boundary::{call, item, place};
use crate::holding::{Ending, PORTS, Port};
use crate::options::milliseconds;
use crate::port::CPort;
use crate::post::{CItem, blaming, give_away, list};
use crate::status::{Failure, Status};
use crate::table::Visit;

/// `zp_loan`: room for a message. Only `opaque` is ever believed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CLoan {
    /// To be written.
    pub data: *mut c_void,
    /// Bytes that may be written.
    pub len: usize,
    /// The handle of the port, and the number of the loan there.
    pub opaque: [u64; 2],
}

impl CLoan {
    const NONE: Self = Self { data: ptr::null_mut(), len: 0, opaque: [0; 2] };
}

/// Reserves room for a message; waits for it.
///
/// # Safety
///
/// A1: `loan` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_reserve(port: CPort, len: usize, loan: *mut CLoan) -> Status {
    // SAFETY: A1, passed on.
    unsafe { reserve(port, loan, |sender| sender.reserve(len)) }
}

/// Reserves room for a message; does not wait.
///
/// # Safety
///
/// As [`zp_port_reserve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_reserve(port: CPort, len: usize, loan: *mut CLoan) -> Status {
    // SAFETY: A1, passed on.
    unsafe { reserve(port, loan, |sender| sender.try_reserve(len)) }
}

/// Reserves room for a message; waits for it at most so long.
///
/// # Safety
///
/// As [`zp_port_reserve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_reserve_timeout(
    port: CPort,
    len: usize,
    loan: *mut CLoan,
    timeout_ms: u32,
) -> Status {
    let timeout: Duration = milliseconds(timeout_ms);
    // SAFETY: A1, passed on.
    unsafe { reserve(port, loan, |sender| sender.reserve_timeout(len, timeout)) }
}

/// # Safety
///
/// As [`zp_port_reserve`].
#[inline(always)]
unsafe fn reserve(
    port: CPort,
    loan: *mut CLoan,
    how: impl FnOnce(&Sender) -> Result<Loan<'_>, PostError>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(loan) }?.write(CLoan::NONE);
        let mut visit = PORTS.enter(port.id)?;
        let room = how(visit.sender()?)?;
        // SAFETY: A3: it borrows nothing but the port, beside which it lies from now on.
        let room = unsafe { std::mem::transmute::<Loan<'_>, Loan<'static>>(room) };
        // SAFETY: A3, as above.
        let number = unsafe { visit.lend(room) };
        if let Some(room) = &mut visit.loan {
            *place = CLoan {
                data: room.as_mut_ptr().cast(),
                len: room.len(),
                opaque: [port.id, number],
            };
        }
        Ok(())
    })
}

/// The port of a loan, once entered.
fn find(loan: &CLoan, visit: Visit<Port, Ending>) -> Result<Visit<Port, Ending>, Failure> {
    let [_, number] = loan.opaque;
    match () {
        () if visit.loan.is_some() && number == visit.loans => Ok(visit),
        () if (1..=visit.loans).contains(&number) => Err(Status::Freed.into()),
        () => Err(Status::BadHandle.into()),
    }
}

/// Posts what was written, with a tag, ports and buffers.
///
/// # Safety
///
/// A1: `loan` was filled by `zp_port_reserve`; there are so many items; `bad_index` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_loan_publish(
    loan: *mut CLoan,
    len: usize,
    tag: u32,
    items: *const CItem,
    item_count: usize,
    bad_index: *mut usize,
) -> Status {
    let body = || {
        // SAFETY: A1.
        let given = unsafe { item(loan) }?;
        // SAFETY: A1.
        let list = unsafe { list(items, item_count) }?;
        let mut visit = find(given, PORTS.enter(given.opaque[0])?)?;
        if visit.loan.as_ref().is_none_or(|room| len > room.len()) {
            return Err(Status::TooLarge.into());
        }
        let publish = |visit: &mut Visit<Port, Ending>, list: TransferList| {
            // SAFETY: A1: it was read before.
            unsafe { loan.write(CLoan::NONE) };
            // It is there: see above.
            visit.loan.take().map_or(Ok(()), |room| room.publish_with(len, tag, list))
        };
        if list.is_empty() {
            return publish(&mut visit, TransferList::new())
                .map_err(|refused| refused.source.into());
        }
        give_away(given.opaque[0], list, |list| publish(&mut visit, list))
    };
    // SAFETY: A1, passed on.
    unsafe { blaming(bad_index, body) }
}

/// Gives reserved room back.
///
/// # Safety
///
/// A1: `loan` was filled by `zp_port_reserve`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_loan_cancel(loan: *mut CLoan) -> Status {
    call(|| {
        // SAFETY: A1.
        let given = unsafe { item(loan) }?;
        drop(find(given, PORTS.enter_to_give_back(given.opaque[0])?)?.loan.take());
        // SAFETY: A1.
        unsafe { place(loan) }?.write(CLoan::NONE);
        Ok(())
    })
}
