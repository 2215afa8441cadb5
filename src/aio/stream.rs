//! The messages of a half, one after the other.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use crate::Message;
use crate::error::RecvError;

use super::{AsyncReceiver, Reactor};

/// What is made of each message of a half; see [`AsyncReceiver::into_stream`].
///
/// It ends with the channel, for whatever reason, which [`into_inner`](Self::into_inner) can still be asked for. An
/// error is something that can be tried again ([`RecvError::Os`]), or [`RecvError::Detached`], after which it ends.
pub struct Messages<R, F> {
    receiver: AsyncReceiver<R>,
    read: F,
    is_over: bool,
}

impl<R: Reactor, F> Messages<R, F> {
    pub(super) fn new(receiver: AsyncReceiver<R>, read: F) -> Self {
        Self { receiver, read, is_over: false }
    }

    /// The half, with what was not taken from it.
    pub fn into_inner(self) -> AsyncReceiver<R> {
        self.receiver.get_ref().disarm();
        self.receiver
    }
}

// What is made of messages is not pinned.
impl<R, F> Unpin for Messages<R, F> {}

impl<R: Reactor, F, T> Stream for Messages<R, F>
where
    F: FnMut(&Message<'_>) -> T,
{
    type Item = Result<T, RecvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { receiver, read, is_over } = self.get_mut();
        if *is_over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(receiver.poll_recv(cx)) {
            Ok(message) => Some(Ok(read(&message))),
            Err(error) => {
                *is_over = matches!(error, RecvError::Closed(_) | RecvError::Detached);
                (!matches!(error, RecvError::Closed(_))).then_some(Err(error))
            }
        })
    }
}

impl<R: Reactor, F, T> FusedStream for Messages<R, F>
where
    F: FnMut(&Message<'_>) -> T,
{
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl<R: fmt::Debug, F> fmt::Debug for Messages<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}
