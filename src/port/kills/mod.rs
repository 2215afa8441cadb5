//! A process is killed or stopped at each step of a transfer, on either side: nothing hangs, nothing
//! leaks, nobody waits for the stopped one, and the other ends are told the right reason.
//!
//! Each test runs in a process of its own, the *host*, which counts its descriptors. It keeps the near
//! ends of some channels; their far ends are moved by further processes, the *players*, which are this
//! very binary again and do what the host tells them.

#[path = "../../../tests/support/mod.rs"]
mod support;

mod growing;
mod killed;
mod looks;
mod player;
mod refused;
mod stopped;

use std::sync::{Mutex, PoisonError};

use rustix::process::{Signal, kill_process};

use crate::steps::{Step, hook};
use zeroport::{CloseReason, MessageChannel, MessagePort, PeerState, RecvError, transfer};

use support::{
    count_descriptors, count_segment_mappings, in_own_process, raise_descriptor_limit, wait_until,
};

/// The steps of whoever gives ports away.
const SENDING: [Step; 5] =
    [Step::Detached, Step::Packed, Step::Sent, Step::Closed, Step::Published];
/// The steps of whoever takes them.
const TAKING: [Step; 5] = [Step::Found, Step::Unpacked, Step::Taken, Step::Mapped, Step::Adopted];

/// The steps of whoever posts so much that the queue grows, and large payloads.
const GROWING: [Step; 6] =
    [Step::RingMade, Step::RingSent, Step::Linked, Step::Sent, Step::Closed, Step::Published];
/// The steps of whoever reads that.
const FOLLOWING: [Step; 4] = [Step::LinkFound, Step::Followed, Step::LargeFound, Step::LargeTaken];

/// How many ports one message carries. The last do not fit in one packet.
const COUNTS: [usize; 3] = [1, 3, 130];
/// More ports than one packet carries.
const MANY: usize = 130;

/// Runs the body of a test in a process of its own, which has made a port before: what a process keeps
/// for all of its ports is there, and what is left over can be counted. One test at a time: an ordinary
/// user may not have many descriptors in flight, in all processes together.
fn in_host(test: &'static str, body: impl FnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    in_own_process(test, || {
        raise_descriptor_limit();
        drop(MessageChannel::new().unwrap());
        body();
    });
}

/// What happens to a process, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hit {
    step: Step,
    /// So many times that step passes by unharmed.
    after: usize,
    signal: Signal,
}

impl Hit {
    /// All places for a hit in a message with so many ports.
    fn all(steps: &[Step], count: usize, signal: Signal) -> impl Iterator<Item = Self> + '_ {
        let times = move |step| match step {
            Step::Packed | Step::Unpacked => usize::from(count >= MANY) * 2,
            Step::Mapped | Step::Adopted => count.min(3),
            _ => 1,
        };
        let hit = move |step, after| Self { step, after, signal };
        steps.iter().flat_map(move |step| (0..times(*step)).map(move |after| hit(*step, after)))
    }
}

/// Has this process hit itself.
fn strike(hit: Hit) {
    static COMING: Mutex<Option<Hit>> = Mutex::new(None);

    *COMING.lock().unwrap() = Some(hit);
    hook::set(|step| {
        let due = {
            let mut coming = COMING.lock().unwrap();
            match &mut *coming {
                Some(hit) if hit.step == step && hit.after == 0 => coming.take(),
                Some(hit) if hit.step == step => {
                    hit.after -= 1;
                    None
                }
                _ => None,
            }
        };
        if let Some(hit) = due {
            // By the number of this thread: it stops before it returns from the call.
            kill_process(rustix::thread::gettid(), hit.signal).unwrap();
        }
    });
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
}

fn holdings() -> Holdings {
    Holdings { descriptors: count_descriptors(), mappings: count_segment_mappings() }
}

/// Channels: what stays here, and what is given away. In each far port waits its number. In the first, a
/// port waits too, the other end of `deep`; it has a lane each way, both in use before.
struct Bundle {
    near: Vec<MessagePort>,
    far: Vec<MessagePort>,
    deep: MessagePort,
}

fn bundle(count: usize) -> Bundle {
    let channels = (0..count).map(|_| MessageChannel::new().unwrap());
    let (near, far): (Vec<_>, Vec<_>) = channels.map(|ends| (ends.port1, ends.port2)).unzip();
    for (from, to) in [(&near[0], &far[0]), (&far[0], &near[0])] {
        let MessageChannel { port1: _closed, port2: some } = MessageChannel::new().unwrap();
        from.post_bytes_with(b"", transfer![some]).unwrap();
        assert_eq!(to.recv().unwrap().take_all_ports().unwrap().len(), 1);
    }
    for (number, near) in (0u64..).zip(&near) {
        near.post_pod(&number).unwrap();
    }
    let MessageChannel { port1: deep, port2: inside } = MessageChannel::new().unwrap();
    near[0].post_bytes_with(b"deep", transfer![inside]).unwrap();
    Bundle { near, far, deep }
}

/// Reads what waits in a far port since [`bundle`]; gives the port that waits in the first.
fn unpack(number: usize, far: &MessagePort) -> Option<MessagePort> {
    assert_eq!(far.recv().unwrap().pod::<u64>().unwrap(), &(number as u64));
    (number == 0).then(|| {
        let message = far.recv().unwrap();
        assert_eq!(message.bytes(), b"deep");
        let [inside] = message.take_ports().unwrap();
        inside
    })
}

/// That a message passes each way between two ends.
fn expect_talk(one: &MessagePort, other: &MessagePort) {
    for (from, to) in [(one, other), (other, one)] {
        from.post_bytes(b"talk").unwrap();
        assert_eq!(to.recv().unwrap().bytes(), b"talk");
    }
}

/// That nothing is left to read, and why.
fn expect_end(port: &MessagePort, reason: CloseReason) {
    assert_eq!(port.recv().map(drop), Err(RecvError::Closed(reason)));
    assert_eq!(port.peer_state(), PeerState::Closed(reason));
}

/// That the other end is told at once, without any receive.
fn expect_told(port: &MessagePort, reason: CloseReason) {
    wait_until("the other end is told", || port.peer_state() != PeerState::Open);
    assert_eq!(port.peer_state(), PeerState::Closed(reason));
}

/// That all that was held since `before` was let go. (The kernel may still be at it.)
fn expect_nothing_left(before: Holdings, what: &dyn std::fmt::Debug) {
    let mut now = holdings();
    wait_until(&format!("nothing is left of {before:?} after {what:?}"), || {
        now = holdings();
        now == before
    });
}
