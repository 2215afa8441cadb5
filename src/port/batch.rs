//! Batches: messages that appear all at once.

use crate::error::{BatchError, PostError};

use super::post::Sender;

impl Sender {
    pub(super) fn flush(&self) {
        // A fork may have come from inside the caller's iterator.
        if self.is_original() && self.queue().flush() {
            self.notify_reader();
        }
    }

    /// Posts all, visible at once as far as the room allows.
    pub(super) fn post_each<I: IntoIterator>(
        &self,
        messages: I,
        post: impl Fn(I::Item) -> Result<(), PostError>,
    ) -> Result<usize, BatchError> {
        let batch = self.begin_batch();
        let mut posted = 0;
        let mut refused = None;
        for message in messages {
            refused = post(message).err();
            if refused.is_some() {
                break;
            }
            posted += 1;
        }
        self.end_batch(batch, posted, refused)
    }

    pub(super) fn begin_batch(&self) -> Batch<'_> {
        // In the middle of a batch no reader has caught up with it: so it is asked here.
        if self.queue().grown().is_some() && !self.batching.get() && self.is_ready() {
            // What is broken, the next post finds.
            let _ = self.go_back();
        }
        Batch { sender: self, outermost: !self.batching.replace(true) }
    }

    /// Publishes what was staged; says how much that was, and why there is no more.
    pub(super) fn end_batch(
        &self,
        batch: Batch<'_>,
        posted: usize,
        refused: Option<PostError>,
    ) -> Result<usize, BatchError> {
        drop(batch);
        // As after every publish: a port that was closed meanwhile makes no promise.
        self.own_end().map_err(|source| BatchError { posted: 0, source })?;
        refused.map_or(Ok(posted), |source| Err(BatchError { posted, source }))
    }
}

/// Publishes what was staged, also when the caller's iterator panics.
pub(super) struct Batch<'p> {
    sender: &'p Sender,
    outermost: bool,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.outermost {
            self.sender.batching.set(false);
            self.sender.flush();
        }
    }
}
