//! The verbs for bytes and plain data: nothing of the user's runs while they post.

use std::time::Duration;

use bytemuck::NoUninit;

use crate::error::{BatchError, PostError};
use crate::tag::{Tagged, plain_data_tag};

use super::post::{Patience, Sender, UNTAGGED};

impl Sender {
    /// Posts bytes, untagged. See [`MessagePort::post_bytes`](crate::MessagePort::post_bytes).
    #[inline]
    pub fn post_bytes(&self, bytes: &[u8]) -> Result<(), PostError> {
        self.post_raw(bytes, UNTAGGED, Patience::FOR_EVER)
    }

    /// As [`post_bytes`](Self::post_bytes), without waiting.
    #[inline]
    pub fn try_post_bytes(&self, bytes: &[u8]) -> Result<(), PostError> {
        self.post_raw(bytes, UNTAGGED, Patience::None)
    }

    /// As [`post_bytes`](Self::post_bytes), waiting at most so long.
    pub fn post_bytes_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<(), PostError> {
        self.post_raw(bytes, UNTAGGED, Patience::at_most(timeout))
    }

    /// Posts one value of plain data. See [`MessagePort::post_pod`](crate::MessagePort::post_pod).
    #[inline]
    pub fn post_pod<T: Tagged + NoUninit>(&self, value: &T) -> Result<(), PostError> {
        self.post_one(value, Patience::FOR_EVER)
    }

    /// As [`post_pod`](Self::post_pod), without waiting.
    #[inline]
    pub fn try_post_pod<T: Tagged + NoUninit>(&self, value: &T) -> Result<(), PostError> {
        self.post_one(value, Patience::None)
    }

    /// As [`post_pod`](Self::post_pod), waiting at most so long.
    pub fn post_pod_timeout<T: Tagged + NoUninit>(
        &self,
        value: &T,
        timeout: Duration,
    ) -> Result<(), PostError> {
        self.post_one(value, Patience::at_most(timeout))
    }

    #[inline(always)]
    fn post_one<T: Tagged + NoUninit>(
        &self,
        value: &T,
        patience: Patience,
    ) -> Result<(), PostError> {
        self.post_raw(bytemuck::bytes_of(value), plain_data_tag::<T>(), patience)
    }

    /// Posts a slice of plain data as one message. See
    /// [`MessagePort::post_pod_slice`](crate::MessagePort::post_pod_slice).
    #[inline]
    pub fn post_pod_slice<T: Tagged + NoUninit>(&self, values: &[T]) -> Result<(), PostError> {
        self.post_raw(bytemuck::cast_slice(values), plain_data_tag::<T>(), Patience::FOR_EVER)
    }

    /// As [`post_pod_slice`](Self::post_pod_slice), without waiting.
    #[inline]
    pub fn try_post_pod_slice<T: Tagged + NoUninit>(&self, values: &[T]) -> Result<(), PostError> {
        self.post_raw(bytemuck::cast_slice(values), plain_data_tag::<T>(), Patience::None)
    }

    /// As [`post_pod_slice`](Self::post_pod_slice), waiting at most so long.
    pub fn post_pod_slice_timeout<T: Tagged + NoUninit>(
        &self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), PostError> {
        let patience = Patience::at_most(timeout);
        self.post_raw(bytemuck::cast_slice(values), plain_data_tag::<T>(), patience)
    }

    /// Posts many byte messages that appear at once. See
    /// [`MessagePort::post_all_bytes`](crate::MessagePort::post_all_bytes).
    pub fn post_all_bytes<I>(&self, messages: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.post_each(messages, |bytes| self.post_bytes(bytes.as_ref()))
    }

    /// Posts many values of plain data that appear at once. See
    /// [`MessagePort::post_all_pod`](crate::MessagePort::post_all_pod).
    pub fn post_all_pod<'v, T: Tagged + NoUninit>(
        &self,
        values: impl IntoIterator<Item = &'v T>,
    ) -> Result<usize, BatchError> {
        self.post_each(values, |value| self.post_pod(value))
    }
}
