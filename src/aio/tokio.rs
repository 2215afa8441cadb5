//! Ports in tasks of tokio. See [`crate::AsyncPort`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::Reactor;

/// A port in tasks of tokio.
pub type AsyncPort = super::AsyncPort<Tokio>;
/// The sending half of a port in tasks of tokio.
pub type AsyncSender = super::AsyncSender<Tokio>;
/// The receiving half of a port in tasks of tokio.
pub type AsyncReceiver = super::AsyncReceiver<Tokio>;

/// The reactor of a tokio runtime, whose I/O must be enabled: of the one in which the first wait was.
#[derive(Debug)]
pub struct Tokio(AsyncFd<Arc<OwnedFd>>);

impl Reactor for Tokio {
    // What stands for it since 1.54 is an `unsafe fn`, for types that may give another descriptor each time.
    #[allow(deprecated)]
    fn watch(descriptor: Arc<OwnedFd>) -> io::Result<Self> {
        AsyncFd::with_interest(descriptor, Interest::READABLE).map(Self)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // To be told of what comes next; what is there, the half looks at now.
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
