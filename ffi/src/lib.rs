//! zeroport for C. What the functions do stands in `include/zeroport.h`; this crate is only the way
//! there: check the arguments, call one method of `zeroport`, make a status of what comes back.
//!
//! # Invariants
//!
//! * **A1** A pointer that a C program passes is null, or good for what the header says, for as long as
//!   the call lasts. Null and misaligned ones are refused; for the rest a C program answers.
//! * **A2** A handle is a number. It leads through the `table` or nowhere: what a C program makes up,
//!   copies or keeps too long is refused.
//! * **A3** A message borrows the port that it lies beside (`Used`), which neither moves nor goes
//!   while a message is there: it is taken out only when there is none, and dropped after them.
//! * **A4** A port and its messages are touched by one thread at a time, which holds their lock. Nobody
//!   waits for that lock.
//! * **A5** No panic crosses into C: every function runs inside `boundary::call`.

mod boundary;
mod holding;
mod message;
mod port;
mod status;
mod table;

pub use message::{CMessage, zp_message_release, zp_message_take_ports};
pub use port::{
    CPort, NO_INDEX, UNTRUSTED, zp_channel_new, zp_parent_port, zp_port_close, zp_port_max_payload,
    zp_port_peer_state, zp_port_post, zp_port_post_timeout, zp_port_recv, zp_port_recv_timeout,
    zp_port_shutdown, zp_port_try_post, zp_port_try_recv, zp_version,
};
pub use status::{Status, zp_status_text};
