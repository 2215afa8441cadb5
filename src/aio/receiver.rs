//! The receiving half: a message is there, or its runtime is asked to tell.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;

use crate::Message;
use crate::Receiver;
use crate::WaitStrategy;
use crate::error::RecvError;
use crate::port::Spell;

use super::{AsyncMessage, Messages, Reactor, Watcher};

/// The receiving half of an [`AsyncPort`](super::AsyncPort), for a task of its own.
#[derive(Debug)]
pub struct AsyncReceiver<R> {
    // Before the half: the runtime must forget its descriptor before that is closed.
    watcher: Watcher<R>,
    receiver: Receiver,
    /// How the half looks for messages now; `None` if it does not wait.
    spell: Option<Spell>,
}

impl<R: Reactor> AsyncReceiver<R> {
    /// Makes a receiving half async; the other half may be used by a thread.
    pub fn new(receiver: Receiver) -> Self {
        Self { watcher: Watcher::new(receiver.mark()), receiver, spell: None }
    }

    /// Chooses how the tasks of this half wait for messages; at first as the port did.
    ///
    /// An [adaptive](WaitStrategy::Adaptive) wait looks for a while, learnt from what was seen and 50 µs at most, before
    /// it sleeps. Every few looks it lets the other tasks of its thread run. [`Spin`](WaitStrategy::Spin) does so for
    /// 50 µs each time: a task sleeps in the end.
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.receiver.set_wait_strategy(strategy);
    }

    /// Waits for the next message. See [`MessagePort::recv`](crate::MessagePort::recv).
    ///
    /// A message is taken when this returns it, and not before: if the future is dropped, it comes next time.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] after the last message, now and at every later call; [`RecvError::Detached`];
    /// [`RecvError::Os`] if this process has no descriptor or memory for the next message or for the wait, which can
    /// be tried again. (`ECANCELED`: the runtime in which this half has waited is gone.)
    ///
    /// # Panics
    ///
    /// What the runtime does to who waits outside of it: tokio panics there, and where its I/O is not enabled.
    pub async fn recv(&mut self) -> Result<AsyncMessage<'_>, RecvError> {
        let waiting = Waiting(self);
        poll_fn(|cx| waiting.0.poll_next(cx)).await?;
        // It has ended as it should.
        std::mem::forget(waiting);
        self.try_recv()
    }

    /// As [`recv`](Self::recv), for who writes futures by hand. Who does not poll any longer, and keeps the half,
    /// had better [disarm](Receiver::disarm) it.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<AsyncMessage<'_>, RecvError>> {
        ready!(self.poll_next(cx))?;
        Poll::Ready(self.try_recv())
    }

    /// Takes the next message if there is one. See [`MessagePort::try_recv`](crate::MessagePort::try_recv).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv(&mut self) -> Result<AsyncMessage<'_>, RecvError> {
        AsyncMessage::take(&mut self.receiver)
    }

    /// The messages as a [`Stream`](futures_core::Stream). A stream cannot lend what it gives, so `read` makes
    /// something of each message: a copy of the bytes, a value, the ports that came with it.
    ///
    #[cfg_attr(feature = "tokio", doc = "```")]
    #[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
    /// use futures_util::TryStreamExt;
    /// use zeroport::MessageChannel;
    /// use zeroport::tokio::AsyncPort;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post_all_pod(&[1u32, 2, 3])?;
    /// port1.close();
    ///
    /// let receiver = AsyncPort::new(port2).receiver;
    /// let numbers = receiver.into_stream(|message| message.pod::<u32>().copied().unwrap_or(0));
    /// let numbers: Vec<u32> = numbers.try_collect().await?; // until the end of the channel
    /// assert_eq!(numbers, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_stream<F, T>(self, read: F) -> Messages<R, F>
    where
        F: FnMut(&Message<'_>) -> T,
    {
        Messages::new(self, read)
    }

    /// The half itself, for what never waits.
    pub fn get_ref(&self) -> &Receiver {
        &self.receiver
    }

    /// The half as it was, for a thread.
    pub fn into_inner(self) -> Receiver {
        self.receiver.disarm();
        self.receiver.split();
        self.receiver
    }

    /// Ready when there is a message, the end, or another reason not to wait.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RecvError>> {
        if self.receiver.has_next() || ready!(self.poll_spell(cx)) {
            if let Some(spell) = self.spell.take() {
                self.receiver.end_spell(spell);
            }
            // Who has posted that, rings, or has rung: there is no announcement to take back.
            return self.watcher.poll_turn(cx).map(Ok);
        }
        loop {
            self.watcher.take_news(cx);
            if !self.receiver.arm().map_err(refused)? {
                self.spell = None;
                return Poll::Ready(Ok(()));
            }
            let readable = self.watcher.poll_readable(cx, || self.receiver.shared_pollable());
            ready!(readable).map_err(refused)?;
            ready!(self.watcher.poll_turn(cx));
        }
    }

    /// Looks for messages before the half is armed, once in each wait. Whether there is one.
    fn poll_spell(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let spell = match self.spell {
            None => self.receiver.begin_spell(),
            Some(spell) => self.receiver.go_on(spell),
        };
        self.spell = Some(spell);
        match spell {
            Spell::Going { .. } => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Spell::Paid => Poll::Ready(true),
            Spell::Over => Poll::Ready(false),
        }
    }
}

fn refused(error: io::Error) -> RecvError {
    // What is no error of the kernel's says that the runtime is gone.
    let errno = error.raw_os_error().unwrap_or(Errno::CANCELED.raw_os_error());
    RecvError::Os { errno }
}

/// A wait that is given up when this is dropped: a half that nobody polls is not to be rung for.
struct Waiting<'r, R>(&'r mut AsyncReceiver<R>);

impl<R> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        self.0.spell = None;
        self.0.receiver.disarm();
    }
}
