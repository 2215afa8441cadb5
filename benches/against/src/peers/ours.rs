//! zeroport itself.

use zeroport::{ChannelOptions, MessageChannel, MessagePort, transfer};

use crate::Result;
use crate::carrier::{Carrier, Inlet, Link, Outlet};
use crate::far::{Far, Role};

/// Starts a far end that holds one port of a new channel; the other one is here.
pub fn link(options: ChannelOptions, role: Role) -> Result<Link<MessagePort>> {
    let far = Far::process(role)?;
    let MessageChannel { port1, port2 } = options.wait_strategy(role.wait).open()?;
    far.control().post_bytes_with(b"", transfer![port2])?;
    Ok(Link { far, carrier: port1 })
}

/// Takes the port that comes first on the control port.
pub fn accept(role: Role, control: &MessagePort) -> Result<MessagePort> {
    let [port] = control.recv()?.take_ports()?;
    port.set_wait_strategy(role.wait);
    Ok(port)
}

impl<const N: usize> Carrier<N> for MessagePort {
    #[inline(always)]
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        Ok(self.post_pod(payload)?)
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        Ok(read(self.recv()?.pod()?))
    }

    fn sleeps(&self) -> Option<u64> {
        Some(MessagePort::sleeps(self))
    }
}

/// Large messages are written in place.
impl Outlet for MessagePort {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut loan = self.reserve(len)?;
        write(&mut loan[..len]);
        Ok(loan.publish(len)?)
    }
}

/// They are read where they were received.
impl Inlet for MessagePort {
    fn receive<R>(&mut self, _: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(read(self.recv()?.bytes()))
    }
}
