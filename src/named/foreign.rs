//! For bindings to other languages, which know types by their tags only. Not part of the interface that Rust programs
//! are promised.

use std::time::Duration;

use crate::port::{Sender, TransferError, TransferList, patience};

use super::envelope::Kind;
use super::payload::AsTagged;
use super::reply::Reply;

impl Sender {
    #[doc(hidden)]
    pub fn post_message_foreign(
        &self,
        name: &str,
        (bytes, tag): (&[u8], u32),
        list: TransferList,
        timeout: Option<Duration>,
    ) -> Result<(), TransferError> {
        self.post_named((Kind::Message, name), &AsTagged(bytes, tag), patience(timeout), list)
    }

    #[doc(hidden)]
    pub fn invoke_foreign(
        &self,
        name: &str,
        (bytes, tag): (&[u8], u32),
        list: TransferList,
        timeout: Option<Duration>,
    ) -> Result<Reply, TransferError> {
        self.request(name, &AsTagged(bytes, tag), patience(timeout), list)
    }
}
