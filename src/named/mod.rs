//! Named messages: a layer on ports, in which each message has a name, and a request brings the port for its
//! reply.
//!
//! A named message is an ordinary one, tagged `zeroport.named`, whose payload is an [envelope]: who knows nothing of
//! names can pass it on, and a port can carry both kinds. A reply is an ordinary message on a port of its own,
//! tagged as its payload is; one tagged `zeroport.failed` is the text of a failure instead.
//!
//! Nothing here waits for messages: handlers are called for a message that somebody else has received, be that a
//! loop over one port, a set of ports or something else.

mod envelope;
mod error;
mod event;
mod foreign;
mod handlers;
mod message;
mod payload;
mod post;
mod reply;

pub use error::{NamedError, ReplyError};
pub use event::NamedEvent;
pub use handlers::{HandlerId, Handlers};
pub use message::NamedMessage;
pub use payload::{AsPod, AsPodSlice, Payload};
pub use reply::{Reply, Responder};

use crate::tag::tag_of_name;

/// The tag of every named message.
const NAMED: u32 = tag_of_name("zeroport.named");
/// The tag of a reply that tells of a failure.
const FAILED: u32 = tag_of_name("zeroport.failed");

#[cfg(fuzzing)]
pub(crate) use envelope::{Envelope, Kind};
