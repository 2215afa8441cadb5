//! `zp_port_split`, `zp_port_join`: one port for two threads.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use zeroport::MessagePort;

use crate::boundary::{call, place, places};
use crate::holding::{PORTS, Port, hold_later};
use crate::port::CPort;
use crate::status::Status;
use crate::table::Gone;

/// Makes two handles of one: one posts, the other receives.
///
/// # Safety
///
/// A1: `halves` is null or has places for two.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_split(port: CPort, halves: *mut CPort) -> Status {
    call(|| {
        // SAFETY: A1.
        let places = unsafe { places(halves, 2) }?;
        places.fill(MaybeUninit::new(CPort { id: 0 }));
        let mut visit = PORTS.enter(port.id)?;
        visit.may_leave()?;
        // First their handles, of which there may be too many.
        let mut sends = hold_later(port.id)?;
        let mut receives = match hold_later(port.id) {
            Ok(receives) => receives,
            Err(failure) => {
                drop(sends.leave(Gone::Closed));
                return Err(failure);
            }
        };
        let (sender, receiver) = visit.take()?.split();
        sends.put_sender(sender);
        receives.put_receiver(receiver);
        drop(visit.leave(Gone::Closed));
        for (place, id) in places.iter_mut().zip([sends.id(), receives.id()]) {
            place.write(CPort { id });
        }
        Ok(())
    })
}

/// Makes one handle of two again.
///
/// # Safety
///
/// A1: `port` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_join(sender: CPort, receiver: CPort, port: *mut CPort) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(port) }?.write(CPort { id: 0 });
        let mut sends = PORTS.enter(sender.id)?;
        if receiver == sender {
            return Err(Status::Half.into());
        }
        let mut receives = PORTS.enter(receiver.id)?;
        sends.is_free()?;
        receives.is_free()?;
        let mut whole = hold_later(sender.id)?;
        let refusal = match Port::take_halves(&mut sends, &mut receives) {
            None => Status::Half,
            Some((sender, receiver)) => match MessagePort::join(sender, receiver) {
                Ok(port) => {
                    whole.put_back(port);
                    place.id = whole.id();
                    drop(sends.leave(Gone::Closed));
                    drop(receives.leave(Gone::Closed));
                    return Ok(());
                }
                Err((sender, receiver)) => {
                    sends.put_sender(sender);
                    receives.put_receiver(receiver);
                    Status::Stranger
                }
            },
        };
        drop(whole.leave(Gone::Closed));
        Err(refusal.into())
    })
}
