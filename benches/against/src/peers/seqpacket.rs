//! A bare `SOCK_SEQPACKET` pair: what the kernel itself has.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};

use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::far::{Far, Role};

/// One socket of a pair.
pub struct Socket(OwnedFd);

/// Starts a far end that holds one socket of a new pair; the other one is here.
pub fn link(role: Role) -> Result<Link<Socket>> {
    let [near, far] = Socket::pair()?;
    let far = Far::process_with(role, far.0, Stdio::null())?;
    Ok(Link { far, carrier: near })
}

impl Socket {
    pub fn pair() -> Result<[Self; 2]> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok([Self(one), Self(other)])
    }

    /// Takes the socket that this process inherited. No copy of it remains, so that it can be closed.
    pub fn accept() -> Result<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Self(socket))
    }

    /// Gives a socket away.
    pub fn send_socket(&self, socket: Self) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [socket.0.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a socket.
    pub fn receive_socket(&self) -> Result<Self> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        Ok(Self(descriptors.next().and_then(|mut one| one.next()).ok_or("no descriptor came")?))
    }

    /// Waits until the other end is gone.
    pub fn receive_end(&self) -> Result<()> {
        let (len, _) = recv(&self.0, &mut [0u8; 8], RecvFlags::empty())?;
        assert_eq!(len, 0, "a message, and no end");
        Ok(())
    }
}

impl<const N: usize> Carrier<N> for Socket {
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        send(&self.0, bytemuck::bytes_of(payload), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        let mut payload = [0; N];
        let (len, _) = recv(&self.0, bytemuck::bytes_of_mut(&mut payload), RecvFlags::empty())?;
        assert_eq!(len, size_of::<[u64; N]>());
        Ok(read(&payload))
    }
}
