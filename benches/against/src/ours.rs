//! zeroport as a carrier of payloads.

use zeroport::{ChannelOptions, MessageChannel, MessagePort, WaitStrategy, transfer};

use crate::Result;
use crate::far::{Carrier, Far};
use crate::link::{Inlet, Link, Outlet};

/// Starts a far end that holds one port of a new channel; the other one is for `outlet`.
pub fn link<O>(options: ChannelOptions, outlet: fn(MessagePort) -> O) -> Result<Link<O>> {
    let far = Far::start(Carrier::Zeroport)?;
    let MessageChannel { port1, port2 } = options.wait_strategy(WaitStrategy::Spin).open()?;
    far.control().post_bytes_with(b"", transfer![port2])?;
    Ok(Link { far, outlet: outlet(port1) })
}

/// Messages that are written in place.
pub struct Loans(pub MessagePort);

impl Outlet for Loans {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut loan = self.0.reserve(len)?;
        write(&mut loan[..len]);
        Ok(loan.publish(len)?)
    }
}

/// Messages that are written in private memory and then posted.
pub struct Posts {
    port: MessagePort,
    message: Vec<u8>,
}

impl Posts {
    pub fn new(port: MessagePort) -> Self {
        Self { port, message: Vec::new() }
    }
}

impl Outlet for Posts {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        self.message.resize(len, 0);
        write(&mut self.message);
        Ok(self.port.post_bytes(&self.message)?)
    }
}

/// Messages that are read where they were received.
pub struct Incoming(MessagePort);

impl Incoming {
    /// Takes the port that comes first on the control port.
    pub fn accept(control: &MessagePort) -> Result<Self> {
        let [port] = control.recv()?.take_ports()?;
        port.set_wait_strategy(WaitStrategy::Spin);
        Ok(Self(port))
    }
}

impl Inlet for Incoming {
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(read(self.0.recv()?.bytes()))
    }
}
