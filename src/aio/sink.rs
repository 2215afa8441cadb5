//! A half that takes things to post, one after the other.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;

use crate::Sender;
use crate::error::PostError;

use super::{AsyncSender, Reactor};

/// A sink for what is posted; see [`AsyncSender::into_sink`].
///
/// It holds one thing at most, which waits for room. A thing that is refused stays, is tried again at the next call,
/// and can be [taken back](Self::into_inner). To close the sink has it post what it holds; the port is closed when
/// both of its halves are gone.
pub struct Posts<R, F, T> {
    sender: AsyncSender<R>,
    post: F,
    held: Option<T>,
}

impl<R: Reactor, F, T> Posts<R, F, T> {
    pub(super) fn new(sender: AsyncSender<R>, post: F) -> Self {
        Self { sender, post, held: None }
    }

    /// The half, and what was not posted.
    pub fn into_inner(self) -> (AsyncSender<R>, Option<T>) {
        self.sender.get_ref().disarm();
        (self.sender, self.held)
    }
}

// What is posted is not pinned.
impl<R, F, T> Unpin for Posts<R, F, T> {}

impl<R: Reactor, F, T> Sink<T> for Posts<R, F, T>
where
    F: FnMut(&Sender, &mut T) -> Result<(), PostError>,
{
    type Error = PostError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), PostError>> {
        self.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: T) -> Result<(), PostError> {
        // Posted at the next call, which may wait.
        self.held = Some(item);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), PostError>> {
        let Self { sender, post, held } = self.get_mut();
        if let Some(item) = held {
            ready!(sender.poll_post(cx, |sender| post(sender, item)))?;
            *held = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), PostError>> {
        self.poll_flush(cx)
    }
}

impl<R: fmt::Debug, F, T> fmt::Debug for Posts<R, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posts").field("sender", &self.sender).finish_non_exhaustive()
    }
}
