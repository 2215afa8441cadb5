//! Without `membarrier(2)`: a seccomp filter refuses it to the host, to the peer, to both, from the
//! start or from some later moment. Messages and bells come through all the same.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![allow(unsafe_code)]

mod bursts;
mod ends;
mod support;

use std::time::{Duration, Instant};

use bursts::{
    answer_bursts, answer_bursts_in_a_set, both_halves, is_registered, post_bursts, warm_up_poster,
    warm_up_reader,
};
use support::{Peer, Setup, be_peer, in_own_process, in_thread, with_watchdog};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{CloseReason, Closer, MessageChannel, MessagePort, PeerState, WaitStrategy};

/// Set in a process that was started with a port: the peer. The host has a process of its own too,
/// because a filter is for ever.
const PARENT: &str = "ZEROPORT_PARENT";

/// When a process is refused the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Never,
    FromTheStart,
    /// Once its port streams, and its posts rely on the barrier.
    Later,
}

use Refused::{FromTheStart, Later, Never};

fn rounds() -> u64 {
    if ends::long() { 100_000 } else { 5_000 }
}

/// Refuses the barrier to all threads of this process, and to its children to come.
fn refuse_barriers() {
    let step =
        |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = libc::SYS_membarrier as u32;
    let mut filter = [
        // The number of the call is the first word of what the filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only; forbids this process to gain rights.
    let locked = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(locked, 0);
    // SAFETY: the program outlives the call, which copies it.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: asks a question; touches no memory.
    let asked = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
    assert_eq!(asked, -1, "the barrier is refused");
}

fn host(port: MessagePort, strategy: WaitStrategy, refused: Refused, by_peer: Refused) {
    if refused == FromTheStart {
        refuse_barriers();
    }
    warm_up_poster(&port);
    if refused != FromTheStart
        && let Some(registered) = is_registered()
    {
        // A reader that cannot demand barriers does not stream, so there is nothing to register for.
        assert_eq!(registered, by_peer != FromTheStart);
    }
    if refused == Later {
        refuse_barriers();
    }
    port.set_wait_strategy(strategy);
    post_bursts(&port, rounds());
}

type Answer = fn(MessagePort, WaitStrategy);

fn answer_on_a_port(port: MessagePort, strategy: WaitStrategy) {
    port.set_wait_strategy(strategy);
    answer_bursts(&port);
    assert!(port.sleeps() > 0, "never slept");
}

fn peer(port: MessagePort, answer: Answer, strategy: WaitStrategy, refused: Refused) {
    if refused == FromTheStart {
        refuse_barriers();
    }
    warm_up_reader(&port);
    if refused == Later {
        refuse_barriers();
    }
    answer(port, strategy);
}

fn bursts(test: &'static str, strategy: WaitStrategy, by_host: Refused, by_peer: Refused) {
    bursts_to(test, answer_on_a_port, strategy, by_host, by_peer);
}

fn bursts_to_a_set(test: &'static str, strategy: WaitStrategy, by_host: Refused, by_peer: Refused) {
    bursts_to(test, answer_bursts_in_a_set, strategy, by_host, by_peer);
}

fn bursts_to(
    test: &'static str,
    answer: Answer,
    strategy: WaitStrategy,
    by_host: Refused,
    by_peer: Refused,
) {
    let setup = Setup::new().capacity(256 << 10).strategy(strategy);
    in_own_process(test, || {
        if std::env::var_os(PARENT).is_some() {
            be_peer(setup, |port| peer(port, answer, strategy, by_peer));
        }
        with_watchdog(move || {
            let (port, mut child) = Peer::spawn(test, setup);
            host(port, strategy, by_host, by_peer);
            child.expect_done();
        });
    });
}

/// As [`bursts`], for room in a queue that does not grow: both directions of a small ring at once, all halves asleep at times.
fn little_room(test: &'static str, strategy: WaitStrategy, by_host: Refused, by_peer: Refused) {
    let setup = Setup::new().capacity(4096).limit(0).strategy(strategy);
    in_own_process(test, || {
        let refuse = |refused| {
            if refused != Never {
                refuse_barriers();
            }
        };
        if std::env::var_os(PARENT).is_some() {
            be_peer(setup, |port| {
                refuse(by_peer);
                both_halves(port, rounds());
            });
        }
        with_watchdog(move || {
            let (port, mut child) = Peer::spawn(test, setup);
            refuse(by_host);
            both_halves(port, rounds());
            child.expect_done();
        });
    });
}

macro_rules! mixes {
    ($($name:ident: $shape:ident($strategy:expr, $by_host:expr, $by_peer:expr);)*) => {
        $(#[test]
        fn $name() {
            let test = support::test_name(concat!(module_path!(), "::", stringify!($name)));
            $shape(test, $strategy, $by_host, $by_peer);
        })*
    };
}

mixes! {
    bursts_refused_to_nobody: bursts(Sleep, Never, Never);
    bursts_refused_to_the_poster: bursts(Sleep, FromTheStart, Never);
    bursts_refused_to_the_reader: bursts(Sleep, Never, FromTheStart);
    bursts_refused_to_both: bursts(Sleep, FromTheStart, FromTheStart);
    adaptive_bursts_refused_to_nobody: bursts(Adaptive, Never, Never);
    adaptive_bursts_refused_to_the_poster: bursts(Adaptive, FromTheStart, Never);
    adaptive_bursts_refused_to_the_reader: bursts(Adaptive, Never, FromTheStart);
    adaptive_bursts_refused_to_both: bursts(Adaptive, FromTheStart, FromTheStart);
    bursts_refused_to_the_poster_later: bursts(Sleep, Later, Never);
    bursts_refused_to_the_reader_later: bursts(Sleep, Never, Later);
    bursts_refused_to_both_later: bursts(Adaptive, Later, Later);
    bursts_to_a_set_refused_to_the_poster: bursts_to_a_set(Sleep, FromTheStart, Never);
    bursts_to_a_set_refused_to_the_set_later: bursts_to_a_set(Sleep, Never, Later);
    room_refused_to_nobody: little_room(Sleep, Never, Never);
    room_refused_to_the_host: little_room(Sleep, FromTheStart, Never);
    room_refused_to_the_peer: little_room(Adaptive, Never, FromTheStart);
    room_refused_to_both: little_room(Sleep, FromTheStart, FromTheStart);
}

/// Lets this process meet a streaming reader until it registers for barriers.
fn register() {
    let MessageChannel { port1, port2 } = Setup::new().open();
    let reading = in_thread("a reader", move || warm_up_reader(&port2));
    warm_up_poster(&port1);
    reading.join(soon());
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What may happen to a port while it is being closed.
const MEANWHILE: [fn(MessagePort, &Closer); 3] = [
    // Whoever waits on it is told, and lets the line go.
    |port, _| ends::expect_report(&port, CloseReason::Closed),
    |port, _| drop(port),
    // It is closed once more.
    |port, closer| {
        closer.close();
        drop(port);
    },
];

/// Where the barrier is refused, a close by a registered process waits for a millisecond before the
/// other end may see it. Nobody hangs up meanwhile: the close would be taken for a death.
#[test]
fn a_close_that_takes_time_is_not_taken_for_a_death() {
    in_own_process("a_close_that_takes_time_is_not_taken_for_a_death", || {
        with_watchdog(|| {
            register();
            refuse_barriers();
            for meanwhile in [MEANWHILE; 5].into_iter().flatten() {
                let MessageChannel { port1, port2 } = Setup::new().strategy(Spin).open();
                let closer = port1.closer();
                let first = closer.clone();
                let closing = in_thread("a closer", move || first.close());
                while port1.peer_state() == PeerState::Open {
                    std::hint::spin_loop();
                }
                meanwhile(port1, &closer);
                ends::expect_end(&port2, CloseReason::Closed);
                closing.join(soon());
            }
        });
    });
}
