//! Pipes, of the capacity that they have by default (64 KiB).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use crate::Result;
use crate::carrier::{Carrier, Inlet, Link, Outlet};
use crate::far::{Far, Role};

/// A pipe there, and one back.
pub struct Pipes {
    read: File,
    write: File,
    /// A large message in private memory.
    message: Vec<u8>,
}

/// Starts a far end that holds the other ends of two new pipes.
pub fn link(role: Role) -> Result<Link<Pipes>> {
    let (theirs, write) = std::io::pipe()?;
    let (read, their) = std::io::pipe()?;
    let far = Far::process_with(role, theirs, their)?;
    Ok(Link { far, carrier: Pipes::new(read.into(), write.into()) })
}

impl Pipes {
    fn new(read: OwnedFd, write: OwnedFd) -> Self {
        Self { read: read.into(), write: write.into(), message: Vec::new() }
    }

    /// Takes the pipes that this process inherited.
    pub fn accept() -> Result<Self> {
        let read = std::io::stdin().as_fd().try_clone_to_owned()?;
        let write = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(read, write))
    }
}

impl<const N: usize> Carrier<N> for Pipes {
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        Ok(self.write.write_all(bytemuck::bytes_of(payload))?)
    }

    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        let mut payload = [0; N];
        self.read.read_exact(bytemuck::bytes_of_mut(&mut payload))?;
        Ok(read(&payload))
    }
}

impl Outlet for Pipes {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        self.message.resize(len, 0);
        write(&mut self.message);
        Ok(self.write.write_all(&self.message)?)
    }
}

impl Inlet for Pipes {
    fn receive<R>(&mut self, len: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.message.resize(len, 0);
        self.read.read_exact(&mut self.message)?;
        Ok(read(&self.message))
    }
}
