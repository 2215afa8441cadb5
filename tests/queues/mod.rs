//! Conversations on channels that were made with any options, and what is said there: long payloads, and
//! long rows of messages of all kinds that wait unread.
//!
//! ```ignore
//! on_channel!(name, ChannelOptions::new().limit(0), host, peer);
//! on_all_channels!(name, ChannelOptions::new().capacity(4096), host, peer);
//! ```
#![allow(dead_code, unused_macros, unused_imports)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

use rkyv::rancor::Fallible;
use rkyv::{Archive, Place, Serialize};
use zeroport::{
    Buffer, ChannelOptions, EncodeError, Message, MessageChannel, MessagePort, PostError, Tagged,
    TransferList,
};

use crate::support::{count_descriptors, count_segment_mappings, pattern};

/// A conversation on a channel of which the host makes both ends, and gives one to the peer.
macro_rules! on_channel {
    ($name:ident, $options:expr, $host:expr, $peer:expr $(,)?) => {
        $crate::queues::on_channel!($name, $crate::support::Setup::new(), $options, $host, $peer);
    };
    ($name:ident, $setup:expr, $options:expr, $host:expr, $peer:expr $(,)?) => {
        $crate::support::conversation!(
            $name,
            $setup,
            |port| $crate::queues::host(port, $options, $host),
            |port| $crate::queues::peer(port, $peer),
        );
    };
}

/// The same, on a trusted channel, an untrusted one, and one that never uses memory again.
macro_rules! on_all_channels {
    ($name:ident, $options:expr, $host:expr, $peer:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use zeroport::Trust;

            $crate::queues::on_channel!(trusted, $options, $host, $peer);
            $crate::queues::on_channel!(untrusted, $options.trust(Trust::Untrusted), $host, $peer);
            $crate::queues::on_channel!(cold, $options.warm(false), $host, $peer);
        }
    };
}

pub(crate) use {on_all_channels, on_channel};

pub(crate) fn host(carrier: MessagePort, options: ChannelOptions, body: impl FnOnce(MessagePort)) {
    let MessageChannel { port1, port2 } = options.open().unwrap();
    carrier.post_bytes_with(b"yours", port2).unwrap();
    body(port1);
}

pub(crate) fn peer(carrier: MessagePort, body: impl FnOnce(MessagePort)) {
    let [port] = carrier.recv().unwrap().take_ports().unwrap();
    body(port);
}

/// Both ends of a channel that is made like this.
pub(crate) fn open(options: ChannelOptions) -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = options.open().unwrap();
    (port1, port2)
}

/// A channel whose ends may go anywhere.
pub(crate) fn channel_for_strangers() -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    (port1, port2)
}

/// Ports that may go anywhere, and the other ends of these.
pub(crate) fn strangers(count: usize) -> (Vec<MessagePort>, Vec<MessagePort>) {
    (0..count).map(|_| channel_for_strangers()).unzip()
}

/// Descriptors of this process, and mappings of segments.
pub(crate) fn counts() -> (usize, usize) {
    (count_descriptors(), count_segment_mappings())
}

/// The three kinds of channels on which large payloads go their different ways.
pub(crate) fn all_kinds(options: ChannelOptions) -> [ChannelOptions; 3] {
    [options, options.trust(zeroport::Trust::Untrusted), options.warm(false)]
}

/// As [`pattern`], and quick for payloads of any length: no page is like another one.
pub(crate) fn long_pattern(number: u64, len: usize) -> Vec<u8> {
    // A prime, so that no multiple of a page is a whole number of these.
    const PERIOD: usize = 65521;
    let period = pattern(number, PERIOD.min(len));
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let rest = (len - bytes.len()).min(PERIOD);
        bytes.extend_from_slice(&period[..rest]);
    }
    bytes
}

/// Posts numbered messages of this length until there is no room; says how many.
pub(crate) fn fill(port: &MessagePort, len: usize) -> u64 {
    let mut posted = 0;
    loop {
        match port.try_post_bytes(&long_pattern(posted, len)) {
            Ok(()) => posted += 1,
            Err(PostError::Full { len: told }) => {
                assert_eq!(told, len as u64);
                return posted;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads what [`fill`] has posted.
pub(crate) fn expect_filled(port: &MessagePort, posted: u64, len: usize) {
    for number in 0..posted {
        assert!(port.recv().unwrap().bytes() == long_pattern(number, len), "message {number}");
    }
}

pub(crate) fn is_full<T>(result: &Result<T, PostError>) -> bool {
    matches!(result, Err(PostError::Full { .. }))
}

/// Of how many messages in a row of all kinds one is of each of the rarer kinds.
const ROUND: u64 = 97;

/// The payload of one message of a row of all kinds, and whether ports and buffers come with it.
struct Kind {
    len: usize,
    has_port: bool,
    has_buffer: bool,
}

impl Kind {
    /// For a first ring of `max_in_ring` payload bytes.
    fn of(number: u64, max_in_ring: usize) -> Self {
        let mixed = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize;
        let (small, large) = (mixed % 600, max_in_ring + 1 + mixed % 70_000);
        let (len, has_port, has_buffer) = match number % ROUND {
            11 => (0, false, false),
            23 => (large, false, false),
            31 => (small, true, false),
            43 => (max_in_ring - mixed % 40, false, false),
            59 => (small, false, true),
            71 => (large, true, true),
            83 => (0, true, true),
            _ => (small, false, false),
        };
        Self { len, has_port, has_buffer }
    }
}

/// Posts message `number` of a row of all kinds, in one of several ways; does not wait. What comes with it
/// is [expected](expect_of_row) on the other side; the port says its number there.
pub(crate) fn post_of_row(port: &MessagePort, number: u64) {
    let kind = Kind::of(number, port.max_in_ring());
    let bytes = long_pattern(number, kind.len);
    let mut list = TransferList::new();
    if kind.has_port {
        let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
        port1.post_pod(&number).unwrap();
        list.push(port2);
    }
    if kind.has_buffer {
        list.push(Buffer::from_slice(&long_pattern(!number, 5000)).unwrap());
    }
    if !list.is_empty() {
        port.try_post_bytes_with(&bytes, list).unwrap();
    } else if number.is_multiple_of(3) {
        let mut loan = port.try_reserve(bytes.len()).unwrap();
        loan.copy_from_slice(&bytes);
        loan.publish(bytes.len()).unwrap();
    } else if number % 3 == 1 {
        assert_eq!(port.post_all_bytes([&bytes]).unwrap(), 1);
    } else {
        port.try_post_bytes(&bytes).unwrap();
    }
}

/// Receives message `number` of a row of all kinds.
pub(crate) fn expect_of_row(port: &MessagePort, number: u64) {
    let message = port.recv().unwrap();
    check_of_row(&message, number, port.max_in_ring());
}

/// `max_in_ring`: of the port that has posted it.
pub(crate) fn check_of_row(message: &Message<'_>, number: u64, max_in_ring: usize) {
    let kind = Kind::of(number, max_in_ring);
    assert_eq!(message.bytes().len(), kind.len, "message {number}");
    assert!(message.bytes() == long_pattern(number, kind.len), "message {number}");
    let counts = (message.port_count(), message.buffer_count());
    assert_eq!(counts, (kind.has_port.into(), kind.has_buffer.into()), "message {number}");
    if kind.has_buffer {
        let [buffer] = message.take_buffers().unwrap();
        assert!(buffer[..] == long_pattern(!number, 5000), "the buffer of message {number}");
    }
    if kind.has_port {
        let [theirs] = message.take_ports().unwrap();
        assert_eq!(theirs.recv().unwrap().pod::<u64>().unwrap(), &number);
    }
}

/// A value whose serialiser does something in the middle of its work.
pub(crate) struct Busy<'a> {
    pub(crate) payload: Vec<u8>,
    pub(crate) meanwhile: &'a dyn Fn(),
}

impl Tagged for Busy<'_> {
    const NAME: &'static str = "test.Busy";
}

impl Archive for Busy<'_> {
    type Archived = rkyv::vec::ArchivedVec<u8>;
    type Resolver = rkyv::vec::VecResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        rkyv::vec::ArchivedVec::resolve_from_len(self.payload.len(), resolver, out);
    }
}

impl<S> Serialize<S> for Busy<'_>
where
    S: Fallible<Error = EncodeError> + rkyv::ser::Writer + rkyv::ser::Allocator + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        let resolver = rkyv::vec::ArchivedVec::serialize_from_slice(&self.payload, serializer)?;
        (self.meanwhile)();
        Ok(resolver)
    }
}
