//! Ports in tasks of smol, and wherever else `async-io` is. See [`crate::AsyncPort`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;

use super::Reactor;

/// A port in tasks of smol.
pub type AsyncPort = super::AsyncPort<Smol>;
/// The sending half of a port in tasks of smol.
pub type AsyncSender = super::AsyncSender<Smol>;
/// The receiving half of a port in tasks of smol.
pub type AsyncReceiver = super::AsyncReceiver<Smol>;

/// The reactor of `async-io`, of which a process has one.
#[derive(Debug)]
pub struct Smol(Async<Arc<OwnedFd>>);

impl Reactor for Smol {
    fn watch(descriptor: Arc<OwnedFd>) -> io::Result<Self> {
        Async::new_nonblocking(descriptor).map(Self)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }
}
