//! A `SOCK_STREAM` pair, for runtimes that make something of it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::Result;
use crate::far::{Far, Role};

/// Starts a far end that holds one socket of a new pair; the other one is here.
pub fn link(role: Role) -> Result<(Far, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    let far = Far::process_with(role, OwnedFd::from(far), Stdio::null())?;
    Ok((far, near))
}

/// Takes the socket that this process inherited.
pub fn accept() -> Result<UnixStream> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}
