//! Waiting: whoever waits sleeps or spins as it was told, wakes for whatever it waits for, and for
//! nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// The signal handler of the interrupted waits.
#![allow(unsafe_code)]

mod support;

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel as channel_of_words;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Setup, Sleeper, alone, asleep, conversation, count_descriptors, in_all_ways,
    lower_descriptor_limit, pattern, wait_until, with_watchdog,
};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{
    CloseReason, MessageChannel, MessagePort, PeerState, PostError, Receiver, RecvError, Sender,
    WaitStrategy,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
const STRATEGIES: [WaitStrategy; 3] = [Adaptive, Spin, Sleep];
/// So long nobody waits.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);
const SHORT: Duration = Duration::from_millis(30);

/// One small ring in each direction, which gets full.
const SMALL: Setup = Setup::new().capacity(4096).limit(0);

fn channel(strategy: WaitStrategy) -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = SMALL.strategy(strategy).open();
    (port1, port2)
}

/// Fills the ring of a port to the last message of 1000 bytes.
fn fill(port: &MessagePort) -> u64 {
    let mut posted = 0;
    while port.try_post_bytes(&[1; 1000]).is_ok() {
        posted += 1;
    }
    posted
}

#[test]
fn polling_an_empty_port_never_waits() {
    for strategy in STRATEGIES {
        let (port1, port2) = channel(strategy);
        for _ in 0..1000 {
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
            assert_eq!(port2.drain().count(), 0);
        }
        fill(&port1);
        for _ in 0..1000 {
            let error = port1.try_post_bytes(&[1; 1000]).unwrap_err();
            assert!(matches!(error, PostError::Full { .. }), "{error}");
        }
        assert_eq!((port1.sleeps(), port2.sleeps()), (0, 0));
    }
}

in_all_ways!(
    an_empty_port_and_a_closed_one_differ,
    |port| {
        for _ in 0..100 {
            assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
            assert_eq!(port.peer_state(), PeerState::Open);
        }
        port.post_bytes(b"close").unwrap();
        wait_until("the end is seen by polling", || match port.try_recv().unwrap_err() {
            RecvError::Empty => false,
            error => error == CLOSED,
        });
        // And for ever after, whatever is asked.
        for _ in 0..10 {
            assert_eq!(port.try_recv().unwrap_err(), CLOSED);
            assert_eq!(port.recv().unwrap_err(), CLOSED);
            assert_eq!(port.recv_timeout(FOR_EVER).unwrap_err(), CLOSED);
            assert_eq!(port.drain().count(), 0);
            assert_eq!(port.peer_state(), PeerState::Closed(CloseReason::Closed));
        }
    },
    |port| assert_eq!(port.recv().unwrap().bytes(), b"close")
);

#[test]
fn a_port_that_was_closed_here_says_so() {
    for strategy in STRATEGIES {
        let (port1, port2) = channel(strategy);
        port2.post_bytes(b"never read").unwrap();
        port1.closer().close();
        for _ in 0..3 {
            assert_eq!(port1.try_recv().unwrap_err(), CLOSED);
            assert_eq!(port1.recv().unwrap_err(), CLOSED);
            assert_eq!(port1.recv_timeout(FOR_EVER).unwrap_err(), CLOSED);
            let error = port1.post_bytes(b"no").unwrap_err();
            assert!(matches!(error, PostError::Closed(CloseReason::Closed)), "{error}");
        }
    }
}

in_all_ways!(
    a_timed_receive_in_silence_ends_not_before_its_time,
    |port| {
        for timeout in [Duration::ZERO, Duration::from_micros(300), SHORT] {
            let start = Instant::now();
            assert_eq!(port.recv_timeout(timeout).unwrap_err(), RecvError::Empty);
            assert!(start.elapsed() >= timeout, "{:?} instead of {timeout:?}", start.elapsed());
        }
        port.post_bytes(b"now").unwrap();
        // It comes long before anybody's patience ends.
        assert_eq!(port.recv_timeout(FOR_EVER).unwrap().bytes(), b"something");
        assert_eq!(port.recv_timeout(FOR_EVER).unwrap_err(), CLOSED);
    },
    |port| {
        assert_eq!(port.recv_timeout(Duration::MAX).unwrap().bytes(), b"now");
        port.post_bytes(b"something").unwrap();
    }
);

in_all_ways!(
    a_timed_post_without_room_ends_not_before_its_time,
    SMALL,
    |port| {
        let posted = fill(&port);
        for timeout in [Duration::ZERO, Duration::from_micros(300), SHORT] {
            let start = Instant::now();
            let error = port.post_bytes_timeout(&[2; 1000], timeout).unwrap_err();
            assert!(matches!(error, PostError::Full { len: 1000 }), "{error}");
            assert!(start.elapsed() >= timeout, "{:?} instead of {timeout:?}", start.elapsed());
            let error = port.post_timeout(&"x".repeat(1000), timeout).unwrap_err();
            assert!(matches!(error, PostError::Full { .. }), "{error}");
        }
        while port.recv().unwrap().bytes() == [1; 1000] {}
        port.post_bytes_timeout(&[2; 1000], FOR_EVER).unwrap();
        port.post_timeout(&"x".repeat(1000), FOR_EVER).unwrap();
        port.post_pod(&posted).unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
    |port| {
        // This waits until the host reads; so until then this side does not read either.
        fill(&port);
        port.post_bytes(&[3; 1000]).unwrap();
        let mut read = 0;
        while port.recv().unwrap().bytes() == [1; 1000] {
            read += 1;
        }
        // The one after the full ring was taken by the loop.
        assert_eq!(port.recv().unwrap().get::<String>().unwrap().len(), 1000);
        assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), read);
    }
);

in_all_ways!(
    sleepers_wake_for_every_message,
    |port| {
        for number in 0..2000u64 {
            port.post_pod(&number).unwrap();
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
        }
    },
    |port| {
        for number in 0..2000u64 {
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
            port.post_pod(&number).unwrap();
        }
    }
);

#[test]
fn a_strategy_is_kept() {
    let (port1, port2) = channel(Spin);
    let peer = thread::spawn(move || {
        while let Ok(message) = port2.recv() {
            port2.post_bytes(message.bytes()).unwrap();
        }
        port2.sleeps()
    });
    let ask = |times| {
        for number in 0..times {
            port1.post_bytes(&[number]).unwrap();
            assert_eq!(port1.recv().unwrap().bytes(), [number]);
        }
    };
    ask(200u8);
    assert_eq!(port1.recv_timeout(SHORT).unwrap_err(), RecvError::Empty);
    assert_eq!(port1.sleeps(), 0, "a spinning port has slept");
    for strategy in [Sleep, Adaptive] {
        port1.set_wait_strategy(strategy);
        let before = port1.sleeps();
        assert_eq!(port1.recv_timeout(SHORT).unwrap_err(), RecvError::Empty);
        assert!(port1.sleeps() > before, "a silent port has not slept: {strategy:?}");
        ask(200);
    }
    port1.set_wait_strategy(Spin);
    let before = port1.sleeps();
    assert_eq!(port1.recv_timeout(SHORT).unwrap_err(), RecvError::Empty);
    ask(200);
    assert_eq!(port1.sleeps(), before, "it spins again");
    drop(port1);
    assert_eq!(peer.join().unwrap(), 0, "the other port was never told to sleep");
}

#[test]
fn silence_costs_a_sleeper_one_sleep() {
    for strategy in [Sleep, Adaptive] {
        let (port1, port2) = channel(strategy);
        let waiting = asleep(move || {
            assert_eq!(port2.recv().unwrap().bytes(), b"at last");
            port2.sleeps()
        });
        thread::sleep(SHORT); // the silence
        port1.post_bytes(b"at last").unwrap();
        assert_eq!(waiting.join(), 1, "{strategy:?}");
    }
}

/// Somebody who waits in a thread of its own; asleep, unless it spins.
fn waiting<T: Send + 'static>(
    strategy: WaitStrategy,
    wait: impl FnOnce() -> T + Send + 'static,
) -> Box<dyn FnOnce() -> T> {
    if strategy != Spin {
        let sleeper = asleep(wait);
        return Box::new(|| sleeper.join());
    }
    let spinner = thread::spawn(wait);
    Box::new(|| {
        wait_until("the spinning thread has ended", || spinner.is_finished());
        spinner.join().unwrap()
    })
}

fn is_closed(posted: Result<(), PostError>) -> bool {
    matches!(posted, Err(PostError::Closed(CloseReason::Closed)))
}

#[test]
fn a_closer_wakes_whoever_waits_on_its_port() {
    for strategy in STRATEGIES {
        for other_side_closes in [false, true] {
            let (port1, port2) = channel(strategy);
            let closer = if other_side_closes { port2.closer() } else { port1.closer() };
            let end = waiting(strategy, move || port1.recv().map(drop).unwrap_err());
            closer.close();
            assert_eq!(end(), CLOSED);

            let (port1, port2) = channel(strategy);
            let closer = if other_side_closes { port2.closer() } else { port1.closer() };
            let end =
                waiting(strategy, move || port1.recv_timeout(FOR_EVER).map(drop).unwrap_err());
            closer.close();
            assert_eq!(end(), CLOSED);

            let (port1, port2) = channel(strategy);
            let closer = if other_side_closes { port2.closer() } else { port1.closer() };
            fill(&port1);
            let posted = waiting(strategy, move || port1.post_bytes(&[2; 1000]));
            closer.close();
            assert!(is_closed(posted()));

            let (port1, port2) = channel(strategy);
            let closer = if other_side_closes { port2.closer() } else { port1.closer() };
            fill(&port1);
            let posted = waiting(strategy, move || port1.post_bytes_timeout(&[2; 1000], FOR_EVER));
            closer.close();
            assert!(is_closed(posted()));
        }
    }
}

#[test]
fn dropping_the_other_port_wakes_both_halves() {
    for strategy in STRATEGIES {
        let (port1, port2) = channel(strategy);
        fill(&port1);
        let (sender, receiver) = port1.split();
        let received = waiting(strategy, move || receiver.recv().map(drop).unwrap_err());
        let posted = waiting(strategy, move || sender.post_bytes(&[2; 1000]));
        drop(port2);
        assert_eq!(received(), CLOSED);
        assert!(is_closed(posted()));
    }
}

#[test]
fn closing_one_half_wakes_the_other() {
    for strategy in STRATEGIES {
        let (port1, port2) = channel(strategy);
        let (sender, receiver) = port1.split();
        let received = waiting(strategy, move || receiver.recv().map(drop).unwrap_err());
        sender.close();
        assert_eq!(received(), CLOSED);
        assert_eq!(port2.recv().unwrap_err(), CLOSED);

        let (port1, port2) = channel(strategy);
        fill(&port1);
        let (sender, receiver) = port1.split();
        let posted = waiting(strategy, move || sender.post_bytes(&[2; 1000]));
        receiver.close();
        assert!(is_closed(posted()));
        drop(port2);
    }
}

#[test]
fn dropping_one_half_leaves_the_other_open() {
    let (port1, port2) = channel(Adaptive);
    let (sender, receiver) = port1.split();
    drop(sender);
    port2.post_bytes(b"still here").unwrap();
    assert_eq!(receiver.recv().unwrap().bytes(), b"still here");
    assert_eq!(port2.peer_state(), PeerState::Open);
    drop(receiver);
    assert_eq!(port2.recv().unwrap_err(), CLOSED);
}

type Posting = Sleeper<(Sender, Result<(), PostError>)>;
type Receiving = Sleeper<(Receiver, bool)>;

/// Puts both halves of a port to sleep, one for room and one for a message.
fn halves_asleep(port: MessagePort) -> (Posting, Receiving) {
    let (sender, receiver) = port.split();
    let posting = asleep(move || {
        let posted = sender.post_bytes(&[2; 1000]);
        (sender, posted)
    });
    let receiving = asleep(move || {
        let received = receiver.recv().is_ok_and(|message| message.bytes() == b"for you");
        (receiver, received)
    });
    (posting, receiving)
}

// The bell for one half wakes whichever of the two takes it off the line first.
#[test]
fn two_halves_that_sleep_on_one_line_each_get_their_own_bell() {
    with_watchdog(|| {
        for strategy in [Sleep, Adaptive] {
            let (mut port1, port2) = channel(strategy);
            for round in 0..100 {
                let full = fill(&port1);
                let (posting, receiving) = halves_asleep(port1);
                let read_all = || {
                    for _ in 0..full {
                        assert_eq!(port2.recv().unwrap().bytes(), [1; 1000]);
                    }
                };
                let ((sender, posted), (receiver, received)) = if round % 2 == 0 {
                    port2.post_bytes(b"for you").unwrap();
                    let received = receiving.join();
                    posting.wait_until_asleep();
                    read_all();
                    (posting.join(), received)
                } else {
                    read_all();
                    let posted = posting.join();
                    receiving.wait_until_asleep();
                    port2.post_bytes(b"for you").unwrap();
                    (posted, receiving.join())
                };
                posted.unwrap();
                assert!(received);
                assert_eq!(port2.recv().unwrap().bytes(), [2; 1000]);
                port1 = MessagePort::join(sender, receiver).unwrap();
            }
        }
    });
}

// Each half of each port waits most of the time; bells come while the other half is between looking
// and sleeping.
mod four_halves_in_small_rings {
    use super::*;

    /// A little more than the ring.
    const GROWING: Setup = SMALL.limit(16 << 10);

    conversation!(sleep, SMALL.strategy(Sleep), talk_in_halves, talk_in_halves);
    conversation!(adaptive, SMALL, talk_in_halves, talk_in_halves);
    conversation!(growing_sleep, GROWING.strategy(Sleep), talk_in_halves, talk_in_halves);
    conversation!(growing_adaptive, GROWING, talk_in_halves, talk_in_halves);
}

fn talk_in_halves(port: MessagePort) {
    const MESSAGES: u64 = 20_000;
    let len = |number: u64| [8, 1500, 700, 8, 8, 8, 8, 8][number as usize / 64 % 8];
    let (sender, receiver) = port.split();
    let posting = thread::spawn(move || {
        for number in 0..MESSAGES {
            sender.post_bytes(&vec![number as u8; len(number)]).unwrap();
        }
        sender
    });
    for number in 0..MESSAGES {
        let message = receiver.recv().unwrap();
        assert_eq!(message.bytes().len(), len(number));
        assert!(message.bytes().iter().all(|byte| *byte == number as u8), "{number}");
    }
    // Not before the other side has read all as well.
    drop(posting.join().unwrap());
    drop(receiver);
}

#[test]
fn halves_of_different_ports_do_not_join() {
    let (port1, port2) = channel(Adaptive);
    let ((sender1, receiver1), (sender2, receiver2)) = (port1.split(), port2.split());
    let (sender1, receiver2) = MessagePort::join(sender1, receiver2).unwrap_err();
    let (port1, port2) = (
        MessagePort::join(sender1, receiver1).unwrap(),
        MessagePort::join(sender2, receiver2).unwrap(),
    );
    port1.post_bytes(b"joined").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"joined");
}

alone!(a_port_splits_also_when_no_descriptor_is_left, || {
    let (port1, port2) = channel(Sleep);
    lower_descriptor_limit(count_descriptors() as u64);
    let mut port1 = port1;
    for _ in 0..20 {
        let full = fill(&port1);
        let (sender, receiver) = port1.split();
        let posting = thread::spawn(move || {
            sender.post_bytes(&[2; 1000]).unwrap();
            sender
        });
        let receiving = thread::spawn(move || {
            assert_eq!(receiver.recv().unwrap().bytes(), b"for you");
            receiver
        });
        for _ in 0..full {
            assert_eq!(port2.recv().unwrap().bytes(), [1; 1000]);
        }
        assert_eq!(port2.recv().unwrap().bytes(), [2; 1000]);
        port2.post_bytes(b"for you").unwrap();
        port1 = MessagePort::join(posting.join().unwrap(), receiving.join().unwrap()).unwrap();
    }
});

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);
/// Whether threads stay in [`freeze`]'s handler.
static FROZEN: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
    while FROZEN.load(Ordering::Relaxed) {
        // SAFETY: may be called from a signal handler.
        unsafe { libc::usleep(100) };
    }
}

/// Has `SIGUSR1` interrupt system calls instead of restarting them.
fn let_signals_interrupt() {
    // SAFETY: all zero is a valid `sigaction`: no flags (so no SA_RESTART), nothing masked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler uses atomics and sleeps, both of which a signal handler may.
    let status = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(status, 0);
}

/// Interrupts a thread once it sleeps.
fn interrupt_once<T>(sleeper: &Sleeper<T>) {
    sleeper.wait_until_asleep();
    let before = INTERRUPTIONS.load(Ordering::Relaxed);
    // SAFETY: the thread was not joined yet, so its handle is valid.
    let status = unsafe { libc::pthread_kill(sleeper.thread.as_pthread_t(), libc::SIGUSR1) };
    assert_eq!(status, 0);
    wait_until("the signal was handled", || INTERRUPTIONS.load(Ordering::Relaxed) > before);
}

/// Holds a sleeping thread in a signal handler, out of its system call, until [`thaw`].
fn freeze<T>(sleeper: &Sleeper<T>) {
    FROZEN.store(true, Ordering::Relaxed);
    interrupt_once(sleeper);
}

fn thaw() {
    FROZEN.store(false, Ordering::Relaxed);
}

/// Interrupts a sleeping thread so often, each time once it sleeps again.
fn interrupt_sleep<T>(sleeper: &Sleeper<T>, times: u64) {
    for _ in 0..times {
        interrupt_once(sleeper);
    }
    sleeper.wait_until_asleep();
}

// Step by step, by holding each half in a signal handler while its bell is rung.
alone!(a_bell_that_one_half_finds_when_it_clears_the_line_wakes_the_other, || {
    let_signals_interrupt();
    let (port1, port2) = channel(Sleep);
    let full = fill(&port1);
    let (sender, receiver) = port1.split();
    let (go, told_to_go) = channel_of_words();
    let (say_full, full_again) = channel_of_words();
    let posting = asleep(move || {
        sender.post_bytes(&[2; 1000]).unwrap();
        told_to_go.recv().unwrap();
        while sender.try_post_bytes(&[3; 1000]).is_ok() {}
        say_full.send(()).unwrap();
        sender.post_bytes(&[4; 1000]).unwrap();
        sender
    });
    let receiving = asleep(move || {
        assert_eq!(receiver.recv().unwrap().bytes(), b"for you");
        receiver
    });
    // The sender's bell is taken by the receiver, which passes it on; so the sender believes that
    // the bell still lies on the line, and will clear that before it sleeps again.
    freeze(&posting);
    for _ in 0..full {
        assert_eq!(port2.recv().unwrap().bytes(), [1; 1000]);
    }
    receiving.wait_until_asleep();
    thaw();
    assert_eq!(port2.recv().unwrap().bytes(), [2; 1000]);
    posting.wait_until_asleep();
    // What lies there then is the receiver's bell.
    freeze(&receiving);
    port2.post_bytes(b"for you").unwrap();
    go.send(()).unwrap();
    full_again.recv().unwrap();
    posting.wait_until_asleep();
    thaw();
    let _receiver = receiving.join();
    while port2.recv().unwrap().bytes() != [4; 1000] {}
    let _sender = posting.join();
});

alone!(signals_do_not_end_a_wait, || {
    const TIMES: u64 = 50;
    let_signals_interrupt();
    for strategy in [Sleep, Adaptive] {
        // Each way to sleep: one blocking call, poll with a deadline, poll with two halves.
        let (port1, port2) = channel(strategy);
        let waiting = asleep(move || port2.recv().unwrap().bytes().to_vec());
        interrupt_sleep(&waiting, TIMES);
        port1.post_bytes(b"recv").unwrap();
        assert_eq!(waiting.join(), b"recv");

        let (port1, port2) = channel(strategy);
        let waiting = asleep(move || port2.recv_timeout(FOR_EVER).unwrap().bytes().to_vec());
        interrupt_sleep(&waiting, TIMES);
        port1.post_bytes(b"recv_timeout").unwrap();
        assert_eq!(waiting.join(), b"recv_timeout");

        let (port1, port2) = channel(strategy);
        let (_sender, receiver) = port2.split();
        let waiting = asleep(move || receiver.recv().unwrap().bytes().to_vec());
        interrupt_sleep(&waiting, TIMES);
        port1.post_bytes(b"a half").unwrap();
        assert_eq!(waiting.join(), b"a half");

        for timed in [false, true] {
            let (port1, port2) = channel(strategy);
            let full = fill(&port1);
            let posting = asleep(move || match timed {
                true => port1.post_bytes_timeout(&[2; 1000], FOR_EVER),
                false => port1.post_bytes(&[2; 1000]),
            });
            interrupt_sleep(&posting, TIMES);
            for _ in 0..full {
                assert_eq!(port2.recv().unwrap().bytes(), [1; 1000]);
            }
            posting.join().unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), [2; 1000]);
        }
    }
});

alone!(signals_do_not_shorten_a_timed_wait, || {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let_signals_interrupt();
    for strategy in [Sleep, Adaptive] {
        let (port1, port2) = channel(strategy);
        let start = Instant::now();
        let waiting = asleep(move || port2.recv_timeout(TIMEOUT).map(drop));
        interrupt_sleep(&waiting, 5);
        assert_eq!(waiting.join().unwrap_err(), RecvError::Empty);
        assert!(start.elapsed() >= TIMEOUT, "{:?}", start.elapsed());
        drop(port1);
    }
});

// Nothing of the library keeps a process from its end.
conversation!(
    an_idle_port_does_not_keep_its_process,
    |port| {
        assert_eq!(port.recv().unwrap().bytes(), b"idle from now on");
    },
    |port| {
        port.post_bytes(b"idle from now on").unwrap();
        std::mem::forget(port);
    }
);

alone!(there_is_no_hidden_thread, || {
    let before = support::count_threads();
    let (port1, port2) = channel(Adaptive);
    port1.post_bytes(&pattern(1, 100)).unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), pattern(1, 100));
    assert_eq!(port2.recv_timeout(SHORT).unwrap_err(), RecvError::Empty);
    let (sender, receiver) = port1.split();
    assert_eq!(support::count_threads(), before);
    drop((sender, receiver));
});
