//! All the messages that are there.

use super::message::Message;
use super::receive::Receiver;

impl Receiver {
    /// The messages that are there now. See [`MessagePort::drain`](crate::MessagePort::drain).
    pub fn drain(&self) -> Drain<'_> {
        self.draining.set(true);
        let most = self.queue().first().capacity().saturating_add(self.received().limit());
        Drain { receiver: self, left: most }
    }

    fn stop_draining(&self) {
        self.draining.set(false);
        if self.is_original() {
            self.give_back();
        }
    }
}

/// The messages that are there now, without waiting; see
/// [`MessagePort::drain`](crate::MessagePort::drain).
#[derive(Debug)]
pub struct Drain<'p> {
    receiver: &'p Receiver,
    /// Bytes of messages that may still come: at first, as many as a queue can hold.
    left: u64,
}

impl<'p> Iterator for Drain<'p> {
    type Item = Message<'p>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let message = self.receiver.try_recv().ok()?;
        self.left = self.left.saturating_sub(message.room());
        Some(message)
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.receiver.stop_draining();
    }
}
