//! What is posted under a name, and replied: bytes, plain data or a value.

use bytemuck::NoUninit;

use crate::port::{Heading, Patience, Sender, TransferError, TransferList};
use crate::tag::{Tagged, plain_data_tag};

use sealed::Sealed;

/// What can be posted [under a name](crate::MessagePort::post_message), and replied.
///
/// | payload | is | read by |
/// |---|---|---|
#[cfg_attr(
    feature = "rkyv",
    doc = "| every [`Postable`](crate::Postable) type | a value | [`get`](crate::NamedMessage::get) |"
)]
/// | `[u8]`, `Vec<u8>` | bytes | [`bytes`](crate::NamedMessage::bytes) |
/// | [`AsPod`] | one value of plain data | [`pod`](crate::NamedMessage::pod) |
/// | [`AsPodSlice`] | a slice of plain data | [`pod_slice`](crate::NamedMessage::pod_slice) |
///
/// ```
/// use zeroport::{AsPod, AsPodSlice, MessageChannel, NamedMessage, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_message("text", b"bytes".as_slice(), transfer![])?;
/// port1.post_message("volume", &AsPod(0.5f32), transfer![])?;
/// port1.post_message("samples", &AsPodSlice(&[1i16, -1]), transfer![])?;
/// assert_eq!(NamedMessage::open(port2.recv()?)?.bytes(), b"bytes");
/// assert_eq!(NamedMessage::open(port2.recv()?)?.pod::<f32>()?, &0.5);
/// assert_eq!(NamedMessage::open(port2.recv()?)?.pod_slice::<i16>()?, [1, -1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Payload: Sealed {}

/// A value of plain data, where its bytes are to be posted as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsPod<T>(pub T);

/// A slice of plain data, where its bytes are to be posted as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsPodSlice<'a, T>(pub &'a [T]);

/// Bytes with the tag of a type that only another language knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsTagged<'a>(pub(super) &'a [u8], pub(super) u32);

pub(super) mod sealed {
    use super::{Heading, Patience, Sender, TransferError, TransferList};

    /// How a payload is posted.
    pub trait Sealed {
        fn tag(&self) -> u32;

        fn post(
            &self,
            sender: &Sender,
            heading: Heading<'_>,
            patience: Patience,
            list: TransferList,
        ) -> Result<(), TransferError>;
    }
}

#[cfg(feature = "rkyv")]
impl<T: crate::Postable> Payload for T {}

#[cfg(feature = "rkyv")]
impl<T: crate::Postable> Sealed for T {
    fn tag(&self) -> u32 {
        crate::tag::value_tag::<T>()
    }

    fn post(
        &self,
        sender: &Sender,
        heading: Heading<'_>,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        sender.post_value_headed(heading, self, patience, list)
    }
}

/// Payloads that are bytes already.
macro_rules! posted_as_bytes {
    ($([$($generics:tt)*] $payload:ty, $tag:expr, $bytes:expr;)*) => {
        $(impl<$($generics)*> Payload for $payload {}

        impl<$($generics)*> Sealed for $payload {
            fn tag(&self) -> u32 {
                let tag: fn(&Self) -> u32 = $tag;
                tag(self)
            }

            fn post(
                &self,
                sender: &Sender,
                heading: Heading<'_>,
                patience: Patience,
                list: TransferList,
            ) -> Result<(), TransferError> {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                sender.post_headed(heading, bytes(self), patience, list)
            }
        })*
    };
}

/// The tag of bytes.
const UNTAGGED: u32 = 0;

posted_as_bytes! {
    [] [u8], |_| UNTAGGED, |bytes| bytes;
    [] Vec<u8>, |_| UNTAGGED, |bytes| bytes;
    [] AsTagged<'_>, |AsTagged(_, tag)| *tag, |AsTagged(bytes, _)| bytes;
    [T: Tagged + NoUninit] AsPod<T>, |_| plain_data_tag::<T>(),
        |AsPod(value)| bytemuck::bytes_of(value);
    [T: Tagged + NoUninit] AsPodSlice<'_, T>, |_| plain_data_tag::<T>(),
        |AsPodSlice(values)| bytemuck::cast_slice(values);
}
