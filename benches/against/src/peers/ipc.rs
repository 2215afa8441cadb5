//! ipc-channel.

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};
use serde::{Deserialize, Serialize};
use zeroport::MessagePort;

use crate::Result;
use crate::carrier::{Carrier, Inlet, Link, Outlet};
use crate::far::{Far, Role};

/// Starts a far end that gives us, first of all, the ends on which we talk to it.
pub fn meet<T>(role: Role) -> Result<(Far, T)>
where
    T: for<'de> Deserialize<'de> + Serialize,
{
    let far = Far::process(role)?;
    let (server, name) = IpcOneShotServer::<T>::new()?;
    far.control().post_bytes(name.as_bytes())?;
    let (_, ends) = server.accept()?;
    Ok((far, ends))
}

/// Gives the near end its ends.
pub fn greet<T: Serialize>(control: &MessagePort, ends: T) -> Result<()> {
    let name = String::from_utf8(control.recv()?.bytes().to_vec())?;
    Ok(IpcSender::connect(name)?.send(ends)?)
}

/// A channel of bytes there, and one back: the fastest form that it has, also for large messages. (An
/// `IpcSharedMemory` is made anew for each: that took two to eight times as long at 64 KiB to 8 MiB, whether it
/// was written in place or copied.)
#[derive(Serialize, Deserialize)]
pub struct Bytes {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    /// A large message in private memory.
    #[serde(skip)]
    message: Vec<u8>,
}

/// Starts a far end that holds the other ends of two new channels.
pub fn link(role: Role) -> Result<Link<Bytes>> {
    let (far, carrier) = meet(role)?;
    Ok(Link { far, carrier })
}

impl Bytes {
    /// Makes two channels, and gives the near end its ends of them.
    pub fn accept(control: &MessagePort) -> Result<Self> {
        let (theirs, receiver) = bytes_channel()?;
        let (sender, their) = bytes_channel()?;
        greet(control, Self { sender: theirs, receiver: their, message: Vec::new() })?;
        Ok(Self { sender, receiver, message: Vec::new() })
    }
}

impl<const N: usize> Carrier<N> for Bytes {
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        Ok(self.sender.send(bytemuck::bytes_of(payload))?)
    }

    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        Ok(read(bytemuck::from_bytes(&self.receiver.recv()?)))
    }
}

impl Outlet for Bytes {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        self.message.resize(len, 0);
        write(&mut self.message);
        Ok(self.sender.send(&self.message)?)
    }
}

impl Inlet for Bytes {
    fn receive<R>(&mut self, _: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(read(&self.receiver.recv()?))
    }
}
