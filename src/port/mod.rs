//! Ports: the public types, and the only place where ring, wake words, epoch and line meet.

mod adopt;
mod arm;
mod batch;
mod channel;
mod closer;
mod descriptors;
mod drain;
#[cfg(feature = "rkyv")]
mod encode;
mod endpoint;
mod event_loop;
mod foreign;
#[cfg(test)]
#[cfg(feature = "rkyv")]
mod golden;
mod grow;
mod headed;
mod hold;
mod in_lanes;
mod kept;
#[cfg(test)]
mod kills;
mod large;
mod listeners;
mod loan;
mod look;
mod loop_handle;
mod loop_ports;
mod loop_turn;
mod message;
mod message_port;
mod out_lanes;
mod outside;
mod parcels;
mod parts;
mod plain;
mod post;
mod post_with;
mod receive;
mod set;
mod set_events;
mod set_handle;
mod set_pause;
mod set_wait;
mod spin;
#[cfg(feature = "async")]
mod tasks;
mod transfer;
mod transfer_list;
mod wait;

pub(crate) use channel::Parts;
pub use channel::{ChannelOptions, MessageChannel};
pub use closer::Closer;
pub use descriptors::PortDescriptors;
pub use drain::Drain;
pub use event_loop::EventLoop;
pub(crate) use foreign::patience;
#[doc(hidden)]
pub use foreign::{AtOnce, LetGo, Usual};
pub(crate) use headed::Heading;
pub use listeners::{Listeners, MessageError};
pub use loan::Loan;
pub use loop_handle::LoopHandle;
pub use loop_ports::{ListenerId, PortId};
pub use loop_turn::Turn;
pub use message::Message;
pub(crate) use message::assert_countable;
pub use message_port::MessagePort;
pub(crate) use post::Patience;
pub use post::Sender;
pub use receive::Receiver;
pub use set::PortSet;
pub use set_events::{Event, Events, InsertError, InsertRefusal};
pub use set_handle::SetHandle;
#[cfg(feature = "async")]
pub(crate) use tasks::Spell;
pub use transfer_list::{TransferError, TransferList, Transferable};
pub use wait::WaitStrategy;

use crate::error::CloseReason;
use hold::Hold;

/// Whom a port faces, and so how it reads what the other side writes.
///
/// ```
/// use zeroport::{ChannelOptions, MessageChannel, Trust};
///
/// // The verbs are the same; only what they do inside differs.
/// let MessageChannel { port1, port2 } = ChannelOptions::new().trust(Trust::Untrusted).open()?;
/// port1.post_bytes(b"who are you?")?;
/// assert_eq!(port2.recv()?.bytes(), b"who are you?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// All holders of the channel are our own processes. Payloads are validated, then read where
    /// they lie in shared memory; a hostile holder could change them after that.
    #[default]
    Trusted,
    /// The other side may be anybody. Payloads are copied to private memory, then validated. Large ones, and
    /// [buffers](crate::Buffer), lie in memory that was verified to be unchangeable, and are read there.
    Untrusted,
}

/// How the other end of a channel is, whatever is still to be received from it.
///
/// ```
/// use zeroport::{CloseReason, MessageChannel, PeerState, RecvError};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// assert_eq!(port2.peer_state(), PeerState::Open);
/// port1.post_bytes(b"last words")?;
/// port1.close();
/// assert_eq!(port2.peer_state(), PeerState::Closed(CloseReason::Closed)); // at once
/// assert_eq!(port2.recv()?.bytes(), b"last words");
/// assert_eq!(port2.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed)); // in its turn
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Somebody holds the other port, or it is on its way to somebody.
    Open,
    /// The channel has ended; posting is pointless, messages may still be waiting.
    Closed(CloseReason),
}

/// Asks at once: the epoch, and the kernel about the line.
fn peer_state(hold: &Hold) -> PeerState {
    let endpoint = &hold.endpoint;
    if !endpoint.is_original() {
        return PeerState::Closed(CloseReason::Closed);
    }
    if hold.line().is_none_or(|line| line.is_hung_up()) && endpoint.own_end().is_none() {
        endpoint.note_hang_up();
    }
    match endpoint.end() {
        None => PeerState::Open,
        Some(reason) => PeerState::Closed(reason),
    }
}
