//! The sending half: there is room, or its runtime is asked to tell.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytemuck::NoUninit;

use crate::Sender;
use crate::Tagged;
use crate::TransferError;
use crate::TransferList;
use crate::WaitStrategy;
use crate::error::PostError;

use super::{Posts, Reactor, Watcher};

/// The sending half of an [`AsyncPort`](super::AsyncPort), for a task of its own.
///
/// The verbs are those of a [`MessagePort`](crate::MessagePort), and fail as those do. They wait for room, which is
/// only where as much waits for the other side already as the [limit](crate::ChannelOptions::limit) allows. A
/// future that is dropped before it is ready has posted nothing.
///
/// They panic where the runtime does so to who waits outside of it: tokio, also where its I/O is not enabled.
#[derive(Debug)]
pub struct AsyncSender<R> {
    // Before the half: the runtime must forget its descriptor before that is closed.
    watcher: Watcher<R>,
    sender: Sender,
    /// How the half waited before.
    strategy: WaitStrategy,
}

impl<R: Reactor> AsyncSender<R> {
    /// Makes a sending half async; the other half may be used by a thread.
    pub fn new(sender: Sender) -> Self {
        let strategy = sender.wait_strategy();
        // Or it would watch the reader before it grows: a thread of a runtime has other things to do.
        sender.set_wait_strategy(WaitStrategy::Sleep);
        Self { watcher: Watcher::new(sender.mark()), sender, strategy }
    }

    /// Posts a value. See [`MessagePort::post`](crate::MessagePort::post). It is serialised anew each time that there
    /// may be room.
    ///
    /// # Errors
    ///
    /// As there, and [`PostError::Os`] if this process cannot wait.
    #[cfg(feature = "rkyv")]
    pub async fn post<T: crate::Postable>(&mut self, value: &T) -> Result<(), PostError> {
        self.post_by(|sender| sender.try_post(value)).await
    }

    /// Posts bytes. See [`MessagePort::post_bytes`](crate::MessagePort::post_bytes).
    ///
    /// # Errors
    ///
    /// As there, and [`PostError::Os`] if this process cannot wait.
    pub async fn post_bytes(&mut self, bytes: &[u8]) -> Result<(), PostError> {
        self.post_by(|sender| sender.try_post_bytes(bytes)).await
    }

    /// Posts plain data. See [`MessagePort::post_pod`](crate::MessagePort::post_pod).
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes).
    pub async fn post_pod<T: Tagged + NoUninit>(&mut self, value: &T) -> Result<(), PostError> {
        self.post_by(|sender| sender.try_post_pod(value)).await
    }

    /// Posts a slice of plain data. See [`MessagePort::post_pod_slice`](crate::MessagePort::post_pod_slice).
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes).
    pub async fn post_pod_slice<T: Tagged + NoUninit>(
        &mut self,
        values: &[T],
    ) -> Result<(), PostError> {
        self.post_by(|sender| sender.try_post_pod_slice(values)).await
    }

    /// Posts a value and gives away what the list holds, as [`post_bytes_with`](Self::post_bytes_with) does.
    ///
    /// # Errors
    ///
    /// As [`MessagePort::post_with`](crate::MessagePort::post_with), with the list left as it was.
    #[cfg(feature = "rkyv")]
    pub async fn post_with<T: crate::Postable>(
        &mut self,
        value: &T,
        list: &mut TransferList,
    ) -> Result<(), PostError> {
        self.post_by(|sender| with_list(list, |list| sender.try_post_with(value, list))).await
    }

    /// Posts bytes and gives away what the list holds. The list is empty then. It is lent, so that nothing of it is
    /// lost with a future that is dropped.
    ///
    #[cfg_attr(feature = "tokio", doc = "```")]
    #[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
    /// use zeroport::tokio::AsyncPort;
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
    /// let mut port1 = AsyncPort::new(port1);
    /// port1.sender.post_bytes_with(b"yours", &mut transfer![port3]).await?;
    ///
    /// let mut port2 = AsyncPort::new(port2);
    /// let [port3] = port2.receiver.recv().await?.take_ports()?;
    /// port3.post_bytes(b"hello")?;
    /// assert_eq!(AsyncPort::new(port4).receiver.recv().await?.bytes(), b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`MessagePort::post_bytes_with`](crate::MessagePort::post_bytes_with), with the list left as it was.
    /// (A [`Buffer`](crate::Buffer) may be sealed by then.)
    pub async fn post_bytes_with(
        &mut self,
        bytes: &[u8],
        list: &mut TransferList,
    ) -> Result<(), PostError> {
        self.post_by(|sender| with_list(list, |list| sender.try_post_bytes_with(bytes, list))).await
    }

    /// Posts plain data and gives away what the list holds, as [`post_bytes_with`](Self::post_bytes_with) does.
    ///
    /// # Errors
    ///
    /// As [`post_bytes_with`](Self::post_bytes_with).
    pub async fn post_pod_with<T: Tagged + NoUninit>(
        &mut self,
        value: &T,
        list: &mut TransferList,
    ) -> Result<(), PostError> {
        self.post_by(|sender| with_list(list, |list| sender.try_post_pod_with(value, list))).await
    }

    /// Posts by any verb that does not wait, each time that there may be room, until it is not
    /// [`Full`](PostError::Full): batches, say, and loans.
    ///
    #[cfg_attr(feature = "tokio", doc = "```")]
    #[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
    /// use zeroport::MessageChannel;
    /// use zeroport::tokio::AsyncPort;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut port1 = AsyncPort::new(port1);
    /// let write = |sender: &zeroport::Sender| {
    ///     let mut loan = sender.try_reserve(5)?;
    ///     loan.copy_from_slice(b"hello");
    ///     loan.publish(5)
    /// };
    /// port1.sender.post_by(write).await?;
    /// assert_eq!(port2.recv()?.bytes(), b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `post`, and [`PostError::Os`] if this process cannot wait.
    pub async fn post_by<T>(
        &mut self,
        mut post: impl FnMut(&Sender) -> Result<T, PostError>,
    ) -> Result<T, PostError> {
        let waiting = Waiting(self);
        poll_fn(|cx| waiting.0.poll_post(cx, &mut post)).await
    }

    /// As [`post_by`](Self::post_by), for who writes futures by hand. Who does not poll any longer, and keeps the
    /// half, had better [disarm](Sender::disarm) it.
    ///
    /// # Errors
    ///
    /// As [`post_by`](Self::post_by).
    pub fn poll_post<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut post: impl FnMut(&Sender) -> Result<T, PostError>,
    ) -> Poll<Result<T, PostError>> {
        ready!(self.watcher.poll_turn(cx));
        loop {
            self.watcher.take_news(cx);
            match self.sender.post_or_arm(&mut post) {
                Err(PostError::Full { .. }) => {}
                posted => return Poll::Ready(posted),
            }
            let readable = self.watcher.poll_readable(cx, || self.sender.shared_pollable());
            ready!(readable).map_err(PostError::Os)?;
            ready!(self.watcher.poll_turn(cx));
        }
    }

    /// A [`Sink`](futures_sink::Sink) for whatever `post` posts, by a verb that does not wait.
    ///
    #[cfg_attr(feature = "tokio", doc = "```")]
    #[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
    /// use futures_util::SinkExt;
    /// use zeroport::MessageChannel;
    /// use zeroport::tokio::AsyncPort;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let sender = AsyncPort::new(port1).sender;
    /// let mut sink = sender.into_sink(|sender, bytes: &mut Vec<u8>| sender.try_post_bytes(bytes));
    /// sink.send(b"hello".to_vec()).await?;
    /// assert_eq!(port2.recv()?.bytes(), b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_sink<F, T>(self, post: F) -> Posts<R, F, T>
    where
        F: FnMut(&Sender, &mut T) -> Result<(), PostError>,
    {
        Posts::new(self, post)
    }

    /// The half itself, for what never waits.
    pub fn get_ref(&self) -> &Sender {
        &self.sender
    }

    /// The half as it was, for a thread.
    pub fn into_inner(self) -> Sender {
        self.sender.disarm();
        self.sender.split();
        self.sender.set_wait_strategy(self.strategy);
        self.sender
    }
}

/// Has a list sent, or leaves it as it was.
fn with_list(
    list: &mut TransferList,
    post: impl FnOnce(TransferList) -> Result<(), TransferError>,
) -> Result<(), PostError> {
    post(std::mem::take(list)).map_err(|refused| {
        *list = refused.list;
        refused.source
    })
}

/// A wait that is given up when this is dropped: a half that nobody polls is not to be rung for.
struct Waiting<'s, R>(&'s mut AsyncSender<R>);

impl<R> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        self.0.sender.disarm();
    }
}
