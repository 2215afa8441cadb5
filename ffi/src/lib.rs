//! zeroport for C. What the functions do stands in `include/zeroport.h`; this crate is only the way
//! there: check the arguments, call one method of `zeroport`, make a status of what comes back.
//!
//! # Invariants
//!
//! * **A1** A pointer that a C program passes is null, or good for what the header says, for as long as
//!   the call lasts. Null and misaligned ones are refused; for the rest a C program answers.
//! * **A2** A handle is a number. It leads through the `table` or nowhere: what a C program makes up,
//!   copies or keeps too long is refused.
//! * **A3** A message and a loan borrow the port that they lie beside (`Port`), or a member of the set that they lie
//!   beside (`Gathering`). That port neither moves nor goes while one is there: it is taken out, and a set drops a member
//!   whose end was told, only when there is none; and it is dropped after them.
//! * **A4** What a handle leads to is touched by one thread at a time, which has made its place busy, or owns it and is inside
//!   (`bias`). Nobody waits for a place.
//! * **A5** No panic crosses into C: every function runs inside `boundary::call`, but for the usual post, receive and release
//!   (all between `enter_at_once` and `leave`), where one would end the process.
//! * **A6** A C program that gives descriptors to be adopted owns them; one that says trusted answers for that.
//! * **A7** In a forked child the handles of its parent lead nowhere, but for what gives back the child's copies.

mod bias;
mod boundary;
mod buffer;
mod contact;
mod descriptors;
mod forks;
mod halves;
mod handlers;
mod held;
mod holding;
mod loan;
mod looping;
mod member;
mod message;
mod named;
mod options;
mod port;
mod post;
mod receive;
mod set;
mod spawn;
mod status;
mod table;

pub use buffer::*;
pub use contact::*;
pub use descriptors::*;
pub use halves::*;
pub use handlers::{CHandlers, OnMessage, OnStatus, Removed};
pub use loan::*;
pub use looping::*;
pub use message::*;
pub use named::*;
pub use options::*;
pub use port::*;
pub use post::*;
pub use receive::*;
pub use set::*;
pub use spawn::*;
pub use status::*;
