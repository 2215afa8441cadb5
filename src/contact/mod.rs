//! First contact with strangers: a server listens, callers connect, each learns who the other is.
//!
//! The server's socket is a `SOCK_SEQPACKET` Unix socket, and an accepted connection becomes the
//! line. The server makes the segment when it admits a caller, and sends the same welcome as `spawn`
//! does. It needs nothing from the caller: who says nothing, or garbage, blocks nobody, and whatever
//! lies on the connection is taken for bells.

mod address;
mod bind;
mod connect;
mod credentials;
mod error;
mod server;

pub use address::Address;
pub use connect::{Connection, connect};
pub use credentials::Credentials;
pub use error::{AcceptError, AddressError, AdmitError, BindError, ConnectError};
pub use server::{Caller, Server};

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use crate::line::poll_until;

/// Waits until there is something to take, or a hang-up. False if the deadline comes first.
fn wait_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(poll_until(&mut fds, deadline)? > 0)
}
