//! The peers: how each carries payloads.

pub mod bare;
pub mod crossbeam;
pub mod iceoryx;
pub mod ipc;
pub mod ours;
pub mod pipe;
pub mod rtrb;
pub mod seqpacket;
pub mod stream;

/// Bytes that may wait in a queue whose capacity is chosen: as many as in our default ring.
pub const CAPACITY: usize = 64 << 10;
