//! The port itself: both halves in one handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytemuck::NoUninit;

use crate::error::{BatchError, CloseReason, PostError, RecvError};
use crate::tag::Tagged;

use super::{Closer, Drain, Loan, Message, PeerState, Receiver, Sender, Trust, WaitStrategy};

/// One end of a channel: posts to, and receives from, the other end only.
///
/// A port is `Send` but not `Sync`: one thread uses it at a time. [`split`](Self::split) makes two
/// halves for two threads; [`closer`](Self::closer) closes from any thread.
///
/// Dropping a port closes it, like [`close`](Self::close). So does the end of its process, however
/// it comes; then the other end reads what was posted before, and after that
/// [`PeerDied`](crate::CloseReason::PeerDied).
///
/// # Posting
///
/// | verb | payload | tag |
/// |---|---|---|
#[cfg_attr(
    feature = "rkyv",
    doc = "| [`post`](Self::post) | an rkyv value, serialised into the ring | by name |"
)]
/// | [`post_pod`](Self::post_pod), [`post_pod_slice`](Self::post_pod_slice) | plain data | by name, size, alignment |
/// | [`post_bytes`](Self::post_bytes) | bytes | none |
/// | [`reserve`](Self::reserve) | whatever is written into the loan | as published |
///
/// A post that returns `Ok` is visible to the other side. It does not wait for the other side to run.
/// What the ring has no room for waits in larger ones, up to the [limit](crate::ChannelOptions::limit) of the
/// channel. Past that the plain verbs wait as long as it takes, `try_…` does not wait, `…_timeout` waits so
/// long. Payloads are borrowed, so what was not posted is still the caller's. No post raises `SIGPIPE`.
///
/// A payload longer than [`max_in_ring`](Self::max_in_ring) is written into a memory of its own. Where that,
/// or a larger ring, cannot be made or sent for want of memory or descriptors, the post is
/// [`PostError::Os`].
///
/// A post on a channel that has ended says [`PostError::Closed`]. A message that is posted while the
/// other end closes is lost with the channel; there is no receipt but a reply.
#[derive(Debug)]
pub struct MessagePort {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

impl MessagePort {
    /// Posts a value, serialised by rkyv.
    ///
    /// It is serialised in private memory, which each thread keeps, and copied into the ring; one that is too
    /// large for the ring is measured so, and serialised once more into a memory of its own. A panic in its
    /// serialiser, or a post on this same port from inside it, leaves the port usable (what is posted inside
    /// goes first).
    ///
    /// # Errors
    ///
    /// [`PostError::TooLarge`] (more than 2 GiB), [`PostError::Closed`], [`PostError::Encode`],
    /// [`PostError::Busy`] (while a loan is out), [`PostError::Os`], [`PostError::Detached`]. Nothing was
    /// posted then.
    #[cfg(feature = "rkyv")]
    #[inline]
    pub fn post<T: crate::Postable>(&self, value: &T) -> Result<(), PostError> {
        self.sender.post(value)
    }

    /// As [`post`](Self::post), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post), and [`PostError::Full`].
    #[cfg(feature = "rkyv")]
    #[inline]
    pub fn try_post<T: crate::Postable>(&self, value: &T) -> Result<(), PostError> {
        self.sender.try_post(value)
    }

    /// As [`post`](Self::post), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post), and [`PostError::Full`], not before the time is up.
    #[cfg(feature = "rkyv")]
    pub fn post_timeout<T: crate::Postable>(
        &self,
        value: &T,
        timeout: Duration,
    ) -> Result<(), PostError> {
        self.sender.post_timeout(value, timeout)
    }

    /// Posts many values, which the other side sees all at once as far as there is room for them all.
    /// Returns how many. While the iterator runs nothing of the batch is certain to be visible, so it
    /// must not wait for an answer to it.
    ///
    /// # Errors
    ///
    /// [`BatchError`] with the number of those that were posted before one was refused.
    #[cfg(feature = "rkyv")]
    pub fn post_all<'v, T: crate::Postable + 'v>(
        &self,
        values: impl IntoIterator<Item = &'v T>,
    ) -> Result<usize, BatchError> {
        self.sender.post_all(values)
    }

    /// Posts bytes as one message, untagged. An empty slice is a message too.
    ///
    /// # Errors
    ///
    /// [`PostError::TooLarge`] (more than 4 GiB), [`PostError::Closed`], [`PostError::Busy`] (while a loan
    /// is out), [`PostError::Os`], [`PostError::Detached`]. Nothing was posted then.
    #[inline]
    pub fn post_bytes(&self, bytes: &[u8]) -> Result<(), PostError> {
        self.sender.post_bytes(bytes)
    }

    /// As [`post_bytes`](Self::post_bytes), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`].
    #[inline]
    pub fn try_post_bytes(&self, bytes: &[u8]) -> Result<(), PostError> {
        self.sender.try_post_bytes(bytes)
    }

    /// As [`post_bytes`](Self::post_bytes), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`], not before the time is up.
    pub fn post_bytes_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<(), PostError> {
        self.sender.post_bytes_timeout(bytes, timeout)
    }

    /// Posts one value of plain data: a `#[repr(C)]` struct of numbers without padding, say.
    ///
    /// ```
    /// use bytemuck::{Pod, Zeroable};
    /// use zeroport::{MessageChannel, Tagged};
    ///
    /// #[repr(C)]
    /// #[derive(Clone, Copy, Pod, Zeroable)]
    /// struct Point {
    ///     x: f32,
    ///     y: f32,
    /// }
    ///
    /// impl Tagged for Point {
    ///     const NAME: &'static str = "demo.Point";
    /// }
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post_pod(&Point { x: 1.0, y: 2.0 })?;
    /// assert_eq!(port2.recv()?.pod::<Point>()?.y, 2.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes).
    #[inline]
    pub fn post_pod<T: Tagged + NoUninit>(&self, value: &T) -> Result<(), PostError> {
        self.sender.post_pod(value)
    }

    /// As [`post_pod`](Self::post_pod), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`].
    #[inline]
    pub fn try_post_pod<T: Tagged + NoUninit>(&self, value: &T) -> Result<(), PostError> {
        self.sender.try_post_pod(value)
    }

    /// As [`post_pod`](Self::post_pod), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`], not before the time is up.
    pub fn post_pod_timeout<T: Tagged + NoUninit>(
        &self,
        value: &T,
        timeout: Duration,
    ) -> Result<(), PostError> {
        self.sender.post_pod_timeout(value, timeout)
    }

    /// Posts a slice of plain data as one message.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes).
    #[inline]
    pub fn post_pod_slice<T: Tagged + NoUninit>(&self, values: &[T]) -> Result<(), PostError> {
        self.sender.post_pod_slice(values)
    }

    /// As [`post_pod_slice`](Self::post_pod_slice), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`].
    #[inline]
    pub fn try_post_pod_slice<T: Tagged + NoUninit>(&self, values: &[T]) -> Result<(), PostError> {
        self.sender.try_post_pod_slice(values)
    }

    /// As [`post_pod_slice`](Self::post_pod_slice), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`], not before the time is up.
    pub fn post_pod_slice_timeout<T: Tagged + NoUninit>(
        &self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), PostError> {
        self.sender.post_pod_slice_timeout(values, timeout)
    }

    /// Posts many byte messages, which the other side sees all at once as far as there is room for
    /// them all. Returns how many. While the iterator runs nothing of the batch is certain to be
    /// visible, so it must not wait for an answer to it.
    ///
    /// # Errors
    ///
    /// [`BatchError`] with the number of those that were posted before one was refused.
    pub fn post_all_bytes<I>(&self, messages: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.sender.post_all_bytes(messages)
    }

    /// Posts many values of plain data, each a message, as
    /// [`post_all_bytes`](Self::post_all_bytes) does.
    ///
    /// # Errors
    ///
    /// As [`post_all_bytes`](Self::post_all_bytes).
    pub fn post_all_pod<'v, T: Tagged + NoUninit>(
        &self,
        values: impl IntoIterator<Item = &'v T>,
    ) -> Result<usize, BatchError> {
        self.sender.post_all_pod(values)
    }

    /// Lends room for a message of up to `len` bytes, to be written in place; waits for room. Large room is a
    /// memory of its own.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes).
    pub fn reserve(&self, len: usize) -> Result<Loan<'_>, PostError> {
        self.sender.reserve(len)
    }

    /// As [`reserve`](Self::reserve), without waiting.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`].
    pub fn try_reserve(&self, len: usize) -> Result<Loan<'_>, PostError> {
        self.sender.try_reserve(len)
    }

    /// As [`reserve`](Self::reserve), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_bytes`](Self::post_bytes), and [`PostError::Full`], not before the time is up.
    pub fn reserve_timeout(&self, len: usize, timeout: Duration) -> Result<Loan<'_>, PostError> {
        self.sender.reserve_timeout(len, timeout)
    }

    /// The longest payload that a message can have, in bytes: 4 GiB. (A value serialised by rkyv reaches
    /// only 2 GiB.)
    pub fn max_payload(&self) -> usize {
        self.sender.max_payload()
    }

    /// The longest payload that travels in the ring, in bytes: half the capacity less 32. Longer ones have a
    /// memory of their own, which costs system calls.
    pub fn max_in_ring(&self) -> usize {
        self.sender.max_in_ring()
    }

    /// Waits for the next message.
    ///
    /// Messages come once each, in the order in which they were posted. After the last one, when the
    /// other end is gone, comes the reason, at this call and at every later one. Signals
    /// do not end the wait.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`], [`RecvError::Detached`], and [`RecvError::Os`] if this process has no descriptor
    /// or memory for the next message: free some, and call again.
    #[inline(always)]
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        self.recv_until(None)
    }

    /// Takes the next message if there is one; never waits.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`] if there is none yet; else as [`recv`](Self::recv). A peer that was
    /// killed is noticed within about a millisecond of such calls.
    #[inline(always)]
    pub fn try_recv(&self) -> Result<Message<'_>, RecvError> {
        let received = self.receiver.try_recv();
        if received.is_err() {
            self.after_failure();
        }
        received
    }

    /// Waits for the next message, at most so long.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], not before the time is up; else as [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let deadline = Instant::now().checked_add(timeout);
        self.recv_until(deadline)
    }

    /// The messages that are there, one by one, without waiting; at most as many as the ring and the limit
    /// let wait, so that it ends also while the other side goes on posting. Room in the ring goes back to the
    /// poster in large pieces, at the latest when the iterator is dropped. It ends at the end of the channel
    /// too, and where a message cannot be had ([`RecvError::Os`]); [`recv`](Self::recv) then says why.
    ///
    /// ```
    /// use zeroport::MessageChannel;
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post_all_bytes(["a", "b", "c"])?;
    /// let all: Vec<_> = port2.drain().map(|message| message.bytes().to_vec()).collect();
    /// assert_eq!(all, [b"a", b"b", b"c"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&self) -> Drain<'_> {
        self.receiver.drain()
    }

    /// How the other end is, at once: also while messages from it wait to be received.
    pub fn peer_state(&self) -> PeerState {
        self.receiver.peer_state()
    }

    /// Whether this port trusts whoever holds the other end. It is settled where the port comes from:
    /// how the channel was made, and over which ports it came here.
    pub fn trust(&self) -> Trust {
        self.endpoint().trust()
    }

    /// Chooses how this port waits, for messages and for room. It does not travel with the port.
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.sender.set_wait_strategy(strategy);
        self.receiver.set_wait_strategy(strategy);
    }

    /// How often this port has slept in the kernel: a figure for benchmarks and tests.
    pub fn sleeps(&self) -> u64 {
        self.sender.sleeps() + self.receiver.sleeps()
    }

    #[inline(always)]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<Message<'_>, RecvError> {
        // Who posts and then waits is likely to be answered, message by message.
        let before = || self.sender.queue().first().will_wait();
        let received = self.receiver.recv_until(deadline, before);
        if received.is_err() {
            self.after_failure();
        }
        received
    }

    /// As [`try_recv`](Self::try_recv), for a set, which watches the line itself.
    #[inline(always)]
    pub(super) fn try_next(&self) -> Result<Message<'_>, RecvError> {
        self.receiver.try_next().inspect_err(|_| self.after_failure())
    }

    /// The end, if no message waits before it; for a set that does not want the messages.
    pub(super) fn try_end(&self) -> Option<CloseReason> {
        let reason = self.receiver.try_end()?;
        self.after_failure();
        Some(reason)
    }

    /// Once the end was reported, this whole handle lets the line go.
    #[cold]
    fn after_failure(&self) {
        if self.receiver.hold().line().is_none() {
            self.sender.let_go();
        }
    }

    /// Closes the port. What was posted on it is still delivered; what was not received from it is
    /// dropped. The other end sees [`Closed`](crate::CloseReason::Closed) after the last message.
    pub fn close(self) {
        drop(self);
    }

    /// A handle that closes this port from any thread, also while another one waits on it.
    pub fn closer(&self) -> Closer {
        self.receiver.closer()
    }

    /// Makes two halves for two threads. The channel notices nothing.
    ///
    /// The halves wake each other through two descriptors of their own. If the process has none
    /// left, a half that waits looks once a millisecond instead.
    pub fn split(self) -> (Sender, Receiver) {
        self.sender.hold().endpoint.split();
        (self.sender, self.receiver)
    }

    /// Puts the two halves of one port together again.
    ///
    /// # Errors
    ///
    /// The halves themselves, if they are not of one port.
    #[allow(clippy::result_large_err)] // handing back what was handed in
    pub fn join(sender: Sender, receiver: Receiver) -> Result<Self, (Sender, Receiver)> {
        if Arc::ptr_eq(&sender.hold().endpoint, &receiver.hold().endpoint) {
            Ok(Self { sender, receiver })
        } else {
            Err((sender, receiver))
        }
    }
}
