//! Lost wake-ups (hard case 11): for messages, for room, and for the two halves of one port.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

mod bursts;
mod ends;
mod support;

use std::sync::atomic::AtomicU64;

use bursts::{
    answer_bursts, both_halves, is_registered, post_at_the_moment, post_bursts,
    post_into_little_room, read_from_little_room, read_from_little_room_with_pauses,
    tell_the_moment, warm_up_poster, warm_up_reader,
};
use support::{Setup, conversation};
use zeroport::WaitStrategy::{Adaptive, Sleep};
use zeroport::{MessagePort, WaitStrategy};

fn rounds() -> u64 {
    if ends::long() { 1_000_000 } else { 30_000 }
}

const LARGE: Setup = Setup::new().capacity(256 << 10);
/// One ring that gets full, and a queue that grows a little before it does.
const SMALL: Setup = Setup::new().capacity(4096).limit(0).strategy(Sleep);
const LIMITED: Setup = SMALL.limit(16 << 10);

/// A poster that relies on the reader's barrier, as after some time in any stream.
fn hunt(port: MessagePort, strategy: WaitStrategy) {
    warm_up_poster(&port);
    assert_ne!(is_registered(), Some(false));
    port.set_wait_strategy(strategy);
    post_bursts(&port, rounds());
}

fn be_hunted(port: MessagePort, strategy: WaitStrategy) {
    warm_up_reader(&port);
    port.set_wait_strategy(strategy);
    answer_bursts(&port);
    assert!(port.sleeps() > 0, "never slept");
}

conversation!(bursts_to_a_sleeper, LARGE, |port| hunt(port, Sleep), |port| be_hunted(port, Sleep));
conversation!(bursts_to_an_adaptive_reader, LARGE, |port| hunt(port, Adaptive), |port| be_hunted(
    port, Adaptive
));

/// The last message of each burst comes at the very moment when the reader stops streaming: it has
/// seen an empty ring, and is about to sleep. A poster that streams does not look whether it does;
/// what wakes the reader is the barrier that it puts into the poster before its last look.
#[test]
fn at_the_moment_of_falling_asleep() {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    support::with_thread(
        LARGE,
        |port| {
            warm_up_poster(&port);
            assert_ne!(is_registered(), Some(false));
            port.set_wait_strategy(Sleep);
            post_at_the_moment(&port, &TOLD, rounds());
        },
        |port| {
            warm_up_reader(&port);
            port.set_wait_strategy(Sleep);
            tell_the_moment(&port, &TOLD);
        },
    );
}

// A poster that is not registered yet fences after every post.
conversation!(
    bursts_of_a_newcomer,
    LARGE.strategy(Sleep),
    |port| post_bursts(&port, rounds()),
    |port| answer_bursts(&port),
);

fn wait_for_room(port: MessagePort) {
    let (sender, _receiver) = port.split();
    post_into_little_room(&sender, rounds());
    assert!(sender.sleeps() > 0, "never waited");
}

fn make_room(port: MessagePort) {
    let (_sender, receiver) = port.split();
    read_from_little_room(&receiver, rounds());
}

/// A poster watches a reader that is at work for a while before it sleeps, and at the limit too.
fn make_room_now_and_then(port: MessagePort) {
    let (_sender, receiver) = port.split();
    read_from_little_room_with_pauses(&receiver, rounds());
}

conversation!(little_room, SMALL, wait_for_room, make_room);
conversation!(little_room_at_the_limit, LIMITED, wait_for_room, make_room_now_and_then);

conversation!(halves_of_one_port, SMALL, |port| both_halves(port, rounds()), |port| both_halves(
    port,
    rounds()
));
conversation!(
    halves_at_the_limit,
    LIMITED,
    |port| both_halves(port, rounds()),
    |port| both_halves(port, rounds())
);
conversation!(
    halves_that_adapt,
    SMALL.strategy(Adaptive),
    |port| both_halves(port, rounds()),
    |port| both_halves(port, rounds())
);
