//! Ports whose waits are futures, on any runtime.
//!
//! A half that finds nothing announces sleep ([`Receiver::arm`](crate::Receiver::arm),
//! [`Sender::post_or_arm`](crate::Sender::post_or_arm)) and has the runtime watch its descriptor. A runtime is
//! two functions, [`Reactor`]; there is no thread, no task and no timer of ours.

mod message;
mod receiver;
mod sender;
mod sink;
mod stream;

#[cfg(feature = "smol")]
pub mod smol;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use message::AsyncMessage;
pub use receiver::AsyncReceiver;
pub use sender::AsyncSender;
pub use sink::Posts;
pub use stream::Messages;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::MessagePort;
use crate::fork::Mark;

/// Messages after which a task that never had to wait lets others run.
const TURN: u32 = 128;

/// What tells tasks of a runtime that a descriptor is readable. The features `tokio` and `smol` bring one each; one
/// for another runtime is a few lines.
///
/// ```
/// use std::io;
/// use std::os::fd::OwnedFd;
/// use std::sync::Arc;
/// use std::task::{Context, Poll};
/// use zeroport::{AsyncPort, MessageChannel, Reactor};
///
/// /// No runtime at all: it asks again and again.
/// struct Impatient;
///
/// impl Reactor for Impatient {
///     fn watch(_descriptor: Arc<OwnedFd>) -> io::Result<Self> {
///         Ok(Self)
///     }
///
///     fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
///         cx.waker().wake_by_ref();
///         Poll::Pending
///     }
/// }
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let posting = std::thread::spawn(move || port1.post_bytes(b"hello").map(|()| port1));
/// let mut port2 = AsyncPort::<Impatient>::new(port2);
/// let message = pollster::block_on(port2.receiver.recv())?;
/// assert_eq!(message.bytes(), b"hello");
/// # posting.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Reactor: Send + Sized + Unpin {
    /// Has the runtime of the calling task watch a descriptor. Dropping what this returns ends that.
    ///
    /// # Errors
    ///
    /// What the kernel or the runtime says. The wait that needed it fails with that.
    fn watch(descriptor: Arc<OwnedFd>) -> io::Result<Self>;

    /// Ready when the descriptor may be readable; else the task is woken when it is. What has become readable since
    /// the call before must not be missed; to be ready without a reason costs a look.
    ///
    /// # Errors
    ///
    /// Where nothing can be told any more: the runtime is gone, say. The descriptor is watched anew then, if the
    /// half waits again.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A [`MessagePort`] whose waits are futures: two halves, for one task or for two.
///
/// The runtime stands in its type: use it as `zeroport::tokio::AsyncPort` or `zeroport::smol::AsyncPort`, which the
/// features of these names bring. It is registered there by the first future that has to wait, and stays there: to go on
/// in another runtime, [take the port back](Self::into_port) and make it async anew.
///
/// * A future that is dropped has done nothing: its message is not received, or not posted, and all comes in its
///   order to who asks next.
/// * All futures are `Send`, as long as what they post is `Sync`.
/// * A task that has nothing to do uses no processor time, and one that never has to wait lets others run now and
///   then.
/// * A task waits as its port did, [adaptively](AsyncReceiver::set_wait_strategy) unless told otherwise: it looks for a
///   short while before it sleeps, where that was seen to pay, and lets others run in between. Posts that wait for room
///   sleep at once.
///
/// A port that was made async takes up to five descriptors more, as its halves begin to wait.
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use zeroport::tokio::AsyncPort;
/// use zeroport::{CloseReason, MessageChannel, RecvError};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let echo = tokio::spawn(async move {
///     let mut port = AsyncPort::new(port2);
///     loop {
///         match port.receiver.recv().await {
///             // Replying while the message is held: nothing is copied but into the ring.
///             Ok(message) => port.sender.post_bytes(message.bytes()).await?,
///             Err(RecvError::Closed(CloseReason::Closed)) => return Ok::<_, zeroport::PostError>(()),
///             Err(error) => panic!("{error}"),
///         }
///     }
/// });
///
/// let mut port1 = AsyncPort::new(port1);
/// port1.sender.post_bytes(b"hello").await?;
/// assert_eq!(port1.receiver.recv().await?.bytes(), b"hello");
/// drop(port1);
/// echo.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct AsyncPort<R> {
    /// The half that posts.
    pub sender: AsyncSender<R>,
    /// The half that receives.
    pub receiver: AsyncReceiver<R>,
}

impl<R: Reactor> AsyncPort<R> {
    /// Makes a port async. The channel notices nothing; nothing is registered yet.
    pub fn new(port: MessagePort) -> Self {
        let (sender, receiver) = port.into_halves();
        Self { sender: AsyncSender::new(sender), receiver: AsyncReceiver::new(receiver) }
    }

    /// The port as it was, with what waits in it: to be used by a thread, put into a set, or given away.
    ///
    /// # Errors
    ///
    /// The halves, if they are of two ports by now.
    #[allow(clippy::result_large_err)] // handing back what was handed in
    pub fn into_port(self) -> Result<MessagePort, Self> {
        let Self { sender, receiver } = self;
        MessagePort::join(sender.into_inner(), receiver.into_inner()).map_err(
            |(sender, receiver)| Self {
                sender: AsyncSender::new(sender),
                receiver: AsyncReceiver::new(receiver),
            },
        )
    }
}

/// Has a runtime watch the descriptor of a half, from the first wait on.
#[derive(Debug)]
struct Watcher<R> {
    reactor: Option<R>,
    /// Whether it was not ready when last asked.
    is_waiting: bool,
    /// What may still be done in this turn.
    left: u32,
    mark: Mark,
}

impl<R> Watcher<R> {
    fn new(mark: Mark) -> Self {
        Self { reactor: None, is_waiting: false, left: TURN, mark }
    }

    /// Pending at the end of a turn: a task that never has to wait, or is ever told to look, would keep all others from
    /// running.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left == 0 {
            self.left = TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left -= 1;
        Poll::Ready(())
    }
}

impl<R: Reactor> Watcher<R> {
    /// Ready when the half, which was armed, has to look again.
    fn poll_readable(
        &mut self,
        cx: &mut Context<'_>,
        descriptor: impl FnOnce() -> io::Result<Arc<OwnedFd>>,
    ) -> Poll<io::Result<()>> {
        if self.reactor.is_none() {
            self.reactor = Some(R::watch(descriptor()?)?);
        }
        let polled = self.poll_reactor(cx);
        self.is_waiting = polled.is_pending();
        if self.is_waiting {
            self.left = TURN;
        } else if let Poll::Ready(Err(_)) = polled {
            self.reactor = None;
        }
        polled
    }

    /// Takes what the runtime has to say of the last wait, before the half is armed anew; or it would say that
    /// then, and be asked twice.
    fn take_news(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.is_waiting) {
            // If it fails, it fails again.
            let _ = self.poll_reactor(cx);
        }
    }

    fn poll_reactor(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.reactor {
            Some(reactor) => reactor.poll_readable(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<R> Drop for Watcher<R> {
    fn drop(&mut self) {
        if !self.mark.is_original() {
            // Here this would take back what the runtime of the other process watches.
            std::mem::forget(self.reactor.take());
        }
    }
}
