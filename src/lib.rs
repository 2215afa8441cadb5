//! Message ports for native programs: entangled pairs, in shared memory, between processes.
//!
//! ```
//! use zeroport::MessageChannel;
//!
//! let MessageChannel { port1, port2 } = MessageChannel::new()?;
//! port1.post_bytes(b"hello")?;
//! assert_eq!(port2.recv()?.bytes(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("zeroport needs 64-bit little-endian Linux");

// In the order of their layers: each uses only those above it (ci/layers holds them to it).
mod sync;

mod record;
mod tag;

mod epoch;
mod halves;
mod layout;
mod wake;

mod ends;
mod ring;
mod sleep;

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod line;
#[cfg(all(feature = "rkyv", not(loom)))]
mod payload;
#[cfg(not(loom))]
mod segment;

#[cfg(not(loom))]
mod port;
#[cfg(not(loom))]
mod spawn;

#[cfg(all(test, loom))]
mod model;

pub use tag::{Tagged, tag_of_name, tag_of_plain_data};

#[cfg(not(loom))]
pub use error::{
    AttachError, BatchError, CloseReason, DecodeError, OpenError, ParentPortError, PostError,
    RecvError, SpawnError,
};
#[cfg(all(feature = "rkyv", not(loom)))]
pub use payload::{EncodeError, EncodeWriter, Encoder, Postable, Readable};
#[cfg(not(loom))]
pub use port::{
    ChannelOptions, Closer, Drain, Loan, Message, MessageChannel, MessagePort, PeerState, Receiver,
    Sender, Trust, WaitStrategy,
};
#[cfg(not(loom))]
pub use spawn::{parent_port, spawn};
