//! What is measured.

mod async_round_trip;
mod batched;
mod close_seen;
mod forward;
mod fresh;
mod growing;
mod large;
mod limits;
mod many;
mod one_way;
mod round_trip;
mod setup;
mod stream;
mod threshold;
mod transfer;
mod typed;
mod untrusted;

use zeroport::MessagePort;

use crate::Result;
use crate::far::Role;
use crate::run::Run;

#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    /// How many contests it has.
    pub contests: u64,
    pub run: fn(&mut Run) -> Result<()>,
}

const fn case(
    name: &'static str,
    contests: u64,
    run: fn(&mut Run) -> Result<()>,
    about: &'static str,
) -> Case {
    Case { name, about, contests, run }
}

pub const CASES: [Case; 18] = [
    case("stream", 5, stream::run, "small messages, one post and one recv each"),
    case("stream_batched", 1, batched::run, "messages of 64 bytes, 64 at a time"),
    case("stream_typed", 1, typed::run, "rkyv values, beside rkyv alone in private memory"),
    case("rtt_spin", 1, round_trip::spin, "64 bytes there and back, beside a bare cache line"),
    case("rtt_sleep", 1, round_trip::sleep, "the same, both ends sleeping at once"),
    case("rtt_one_core", 1, round_trip::one_core, "the same, both ends on one processor"),
    case(
        "async_round_trip",
        1,
        async_round_trip::run,
        "the same between tasks of tokio, beside its own sockets",
    ),
    case("large", 3, large::run, "a stream of large messages, beside bare memcpy"),
    case("setup", 1, setup::run, "a request with a fresh reply port, ten replies, close"),
    case("transfer", 1, transfer::run, "a live port there and back"),
    case("close_seen", 2, close_seen::run, "a sleeping reader is told of a close, of a SIGKILL"),
    case("one_way", 2, one_way::run, "from before a large message is written until it was read"),
    case("untrusted", 2, untrusted::run, "a stream between ends that do not trust each other"),
    case("growing", 1, growing::run, "a stream in a queue that may grow, beside one that may not"),
    case("fresh", 1, fresh::run, "a channel is made, carries a message each way, is dropped"),
    case("many", 1, many::run, "64 bytes there and back in a set of 8 000 ports"),
    case("threshold", 10, threshold::run, "messages in a ring, and in a memory of their own"),
    case("forward", 1, forward::run, "a buffer through three processes and back, by its size"),
];

/// Limits are measured with what is compared with them.
const LIMITS: [(&str, &str); 6] = [
    ("limit_slots", "stream"),
    ("limit_copied", "stream_typed"),
    ("limit_in_place", "stream_typed"),
    ("limit_cache_line_rtt", "rtt_spin"),
    ("limit_memcpy", "large"),
    ("limit_blocks", "large"),
];

/// The case of this name, or the one that has the limit of this name.
pub fn find(name: &str) -> Option<&'static Case> {
    let name = LIMITS.iter().find(|limit| limit.0 == name).map_or(name, |limit| limit.1);
    CASES.iter().find(|case| case.name == name)
}

/// Works as a far end.
pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.work {
        "stream" => stream::serve(role, control),
        "batched" => batched::serve(role, control),
        "typed" => typed::serve(role, control),
        "async_round_trip" => async_round_trip::serve(role, control),
        "round_trip" => round_trip::serve(role, control),
        "large" => large::serve(role, control),
        "one_way" => one_way::serve(role, control),
        "setup" => setup::serve(role, control),
        "transfer" => transfer::serve(role, control),
        "many" => many::serve_crowd(role, control),
        "close" => close_seen::serve_close(role, control),
        "kill" => close_seen::serve_kill(role, control),
        "forward" => forward::serve(control),
        other => Err(format!("no such work: {other}").into()),
    }
}

/// A peer that this work does not have.
fn no_such_peer<T>(role: Role) -> Result<T> {
    Err(format!("{} does no {}", role.peer, role.work).into())
}
