//! Handlers: each message to all who listen, in order, and to nobody else; what they do to themselves, to their port and
//! to the loop.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod scarcity;
mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scarcity::Scarcity;
use support::{alone, channels, conversation, in_all_ways, in_thread, wait_until, with_watchdog};
use zeroport::{
    CloseReason, EventLoop, Message, MessageChannel, MessageError, MessagePort, PeerState, PortId,
    RecvError, transfer,
};

const MESSAGES: u64 = 1000;

fn number(message: &Message<'_>) -> u64 {
    *message.pod().unwrap()
}

/// A loop in which what a handler finds wrong fails the test.
fn strict<'h>() -> EventLoop<'h> {
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|payload| std::panic::resume_unwind(payload));
    events
}

/// A loop with one port, and the other end.
fn listening<'h>() -> (EventLoop<'h>, PortId, MessagePort) {
    let mut events = strict();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let port = events.insert(port2).unwrap();
    (events, port, port1)
}

fn post(port: &MessagePort, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| port.post_pod(&number).unwrap());
}

/// Has everything told that there is.
fn run_all(events: &mut EventLoop<'_>) {
    for _ in 0..20 {
        events.run_ready().unwrap();
    }
}

fn is_readable(events: &EventLoop<'_>) -> bool {
    let mut fds = [PollFd::new(events, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

/// What was heard, by whom.
#[derive(Default)]
struct Heard(RefCell<Vec<(&'static str, u64)>>);

impl Heard {
    fn note(&self, who: &'static str, message: &Message<'_>) {
        self.0.borrow_mut().push((who, number(message)));
    }

    fn take(&self) -> Vec<(&'static str, u64)> {
        self.0.take()
    }
}

// --- Starting ---

// S-018, S-062: what was posted before anybody listened comes in order, and then the end.
in_all_ways!(
    all_messages_come_in_order_and_then_the_end,
    |port: MessagePort| {
        wait_until("all is posted", || port.peer_state() != PeerState::Open);
        let (next, mut ends) = (Cell::new(0), 0);
        let mut events = strict();
        let port = events.insert(port).unwrap();
        run_all(&mut events);
        events
            .listeners_of(port)
            .on_message(|_, message| assert_eq!(number(message), next.replace(next.get() + 1)))
            .on_close(|_, reason| {
                assert!(matches!(reason, CloseReason::Closed | CloseReason::PeerDied));
                assert_eq!(next.get(), MESSAGES);
                ends += 1;
            });
        events.run().unwrap();
        assert!(events.is_empty());
        drop(events);
        assert_eq!((next.get(), ends), (MESSAGES, 1));
    },
    |port: MessagePort| post(&port, 0..MESSAGES)
);

// S-019: a listener alone does not start its port.
#[test]
fn a_listener_does_not_start_its_port() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    post(&peer, 0..3);
    events.listeners_of(port).add(|_, message| heard.note("listener", message));
    events.listeners_of(port).once(|_, message| heard.note("once", message));
    run_all(&mut events);
    assert_eq!(heard.take(), []);
    events.listeners_of(port).start().start();
    run_all(&mut events);
    assert_eq!(heard.take(), [("listener", 0), ("once", 0), ("listener", 1), ("listener", 2)]);
    // A pause takes the start back.
    events.listeners_of(port).pause();
    post(&peer, 3..5);
    run_all(&mut events);
    assert_eq!(heard.take(), []);
    events.listeners_of(port).start();
    run_all(&mut events);
    assert_eq!(heard.take(), [("listener", 3), ("listener", 4)]);
}

// S-020: the one handler implies start, also for listeners that were there before it.
#[test]
fn the_one_handler_starts_its_port() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    post(&peer, 0..1);
    let first = events.listeners_of(port).add(|_, message| heard.note("first", message));
    events.listeners_of(port).on_message(|_, message| heard.note("handler", message));
    events.listeners_of(port).add(|_, message| heard.note("last", message));
    run_all(&mut events);
    assert_eq!(heard.take(), [("first", 0), ("handler", 0), ("last", 0)], "as they came");
    // What replaces the handler has its place.
    events.listeners_of(port).on_message(|_, message| heard.note("second handler", message));
    events.listeners_of(port).remove(first);
    post(&peer, 1..2);
    run_all(&mut events);
    assert_eq!(heard.take(), [("second handler", 1), ("last", 1)]);
    // One that is set anew comes last.
    events.listeners_of(port).remove_on_message();
    events.listeners_of(port).on_message(|_, message| heard.note("third handler", message));
    post(&peer, 2..3);
    run_all(&mut events);
    assert_eq!(heard.take(), [("last", 2), ("third handler", 2)]);
}

// S-021: none of this does anything to a port that is gone.
#[test]
fn nothing_comes_of_who_listens_to_a_closed_port() {
    let (mut events, port, peer) = listening();
    post(&peer, 0..1);
    events.close(port);
    events.close(port);
    let mut listeners = events.listeners_of(port);
    let listener = listeners.add(|_, _| panic!("a message of a closed port"));
    listeners
        .start()
        .on_message(|_, _| panic!("a message of a closed port"))
        .on_close(|_, _| panic!("the end of a closed port"))
        .on_message_error(|_, _| panic!("a failure of a closed port"))
        .remove(listener)
        .remove_on_message()
        .pause();
    assert!(!events.run_ready().unwrap(), "no port is left");
    assert!(events.sender_of(port).is_none() && events.remove(port).is_none());
    // Its place may be another's.
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let next = events.insert(port2).unwrap();
    assert_ne!(next, port);
    events.listeners_of(port).on_message(|_, _| panic!("a message of another port"));
    events.close(port);
    port1.post_bytes(b"still there").unwrap();
    run_all(&mut events);
    assert_eq!(events.len(), 1);
}

// S-025: a port that goes on is not started where it arrives, and nobody listens there.
#[test]
fn a_started_port_arrives_not_started() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    let carrier = MessageChannel::new().unwrap();
    events.listeners_of(port).on_message(|_, message| heard.note("before", message));
    post(&peer, 0..1);
    run_all(&mut events);
    post(&peer, 1..3);
    let moving = events.remove(port).unwrap();
    carrier.port1.post_bytes_with(b"", moving).unwrap();
    let [arrived] = carrier.port2.recv().unwrap().take_ports().unwrap();
    let arrived = events.insert(arrived).unwrap();
    events.listeners_of(arrived).add(|_, message| heard.note("after", message));
    run_all(&mut events);
    assert_eq!(heard.take(), [("before", 0)]);
    events.listeners_of(arrived).start();
    run_all(&mut events);
    assert_eq!(heard.take(), [("after", 1), ("after", 2)]);
}

// S-024, S-025, elsewhere: it arrives not started, with what waits in it, and one who listens for one takes one.
conversation!(
    a_started_port_arrives_not_started_elsewhere,
    |carrier: MessagePort| {
        let heard = Heard::default();
        let (mut events, port, peer) = listening();
        events.set_batch(1);
        events.listeners_of(port).on_message(|_, message| heard.note("before", message));
        post(&peer, 0..4);
        events.run_once().unwrap();
        carrier.post_bytes_with(b"", events.remove(port).unwrap()).unwrap();
        assert_eq!(heard.take(), [("before", 0)]);
        assert_eq!(carrier.recv().unwrap().bytes(), b"read");
    },
    |carrier: MessagePort| {
        let heard = Heard::default();
        let mut events = strict();
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        let port = events.insert(port).unwrap();
        events.listeners_of(port).once(|_, message| heard.note("once", message));
        run_all(&mut events);
        assert_eq!(heard.take(), []);
        events.listeners_of(port).start();
        run_all(&mut events);
        assert_eq!(heard.take(), [("once", 1)]);
        events.listeners_of(port).once(|_, message| heard.note("once more", message));
        run_all(&mut events);
        assert_eq!(heard.take(), [("once more", 2)]);
        assert_eq!(number(&events.remove(port).unwrap().try_recv().unwrap()), 3);
        carrier.post_bytes(b"read").unwrap();
    }
);

// S-030: who takes a message before its handler is called has it.
#[test]
fn a_message_is_told_or_taken() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    events.listeners_of(port).on_message(|_, message| heard.note("handler", message));
    post(&peer, 0..2);
    let taken = events.remove(port).unwrap();
    assert_eq!(number(&taken.try_recv().unwrap()), 0);
    let port = events.insert(taken).unwrap();
    events.listeners_of(port).on_message(|_, message| heard.note("handler", message));
    run_all(&mut events);
    assert_eq!(heard.take(), [("handler", 1)]);
}

// --- Listeners that come and go ---

// S-022: the next message goes to the next handler, and this one to nobody again.
#[test]
fn a_handler_replaces_itself() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    post(&peer, 0..3);
    events.listeners_of(port).on_message(|turn, message| {
        heard.note("first", message);
        turn.listeners().on_message(|turn, message| {
            heard.note("second", message);
            turn.listeners()
                .remove_on_message()
                .on_message(|_, message| heard.note("third", message));
        });
    });
    run_all(&mut events);
    assert_eq!(heard.take(), [("first", 0), ("second", 1), ("third", 2)]);
}

// Who comes while a message is told hears the next one; who goes does not hear this one any more.
#[test]
fn listeners_come_and_go_while_a_message_is_told() {
    let (heard, last) = (Heard::default(), Cell::new(None));
    let (mut events, port, peer) = listening();
    post(&peer, 0..2);
    events.listeners_of(port).once(|turn, message| {
        heard.note("first", message);
        turn.listeners().remove(last.get().unwrap());
        turn.listeners().add(|_, message| heard.note("new", message));
    });
    events.listeners_of(port).add(|_, message| heard.note("middle", message));
    let id = events.listeners_of(port).add(|_, message| heard.note("last", message));
    last.set(Some(id));
    events.listeners_of(port).start();
    run_all(&mut events);
    assert_eq!(heard.take(), [("first", 0), ("middle", 0), ("middle", 1), ("new", 1)]);
}

// S-023, D-09: without listeners messages wait, for whoever comes next.
#[test]
fn without_listeners_messages_wait() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    events.listeners_of(port).start();
    post(&peer, 0..2);
    run_all(&mut events);
    let listener = events.listeners_of(port).add(|_, message| heard.note("listener", message));
    run_all(&mut events);
    events.listeners_of(port).remove(listener);
    post(&peer, 2..4);
    run_all(&mut events);
    assert_eq!(heard.take(), [("listener", 0), ("listener", 1)]);
    // From inside, between two messages that arrived together.
    let one_at_a_time = |turn: &mut zeroport::Turn<'_, '_>, message: &Message<'_>| {
        heard.note("handler", message);
        turn.listeners().remove_on_message();
    };
    for expected in 2..4 {
        events.listeners_of(port).on_message(one_at_a_time);
        run_all(&mut events);
        assert_eq!(heard.take(), [("handler", expected)]);
    }
}

// S-024: a listener for one message takes one, also where two have arrived together.
conversation!(
    a_listener_for_one_takes_one,
    |port: MessagePort| {
        wait_until("all is posted", || port.peer_state() != PeerState::Open);
        let heard = Heard::default();
        let mut events = strict();
        let port = events.insert(port).unwrap();
        events.listeners_of(port).start();
        for expected in 0..10 {
            events.listeners_of(port).once(|_, message| heard.note("once", message));
            run_all(&mut events);
            assert_eq!(heard.take(), [("once", expected)]);
        }
        // One that asks for the next one.
        fn next<'h>(turn: &mut zeroport::Turn<'_, 'h>, heard: &'h Heard, message: &Message<'_>) {
            heard.note("next", message);
            turn.listeners().once(|turn, message| next(turn, heard, message));
        }
        let heard_too = &heard;
        events.listeners_of(port).once(move |turn, message| next(turn, heard_too, message));
        events.run().unwrap();
        assert_eq!(heard.take(), (10..20).map(|number| ("next", number)).collect::<Vec<_>>());
    },
    |port: MessagePort| post(&port, 0..20)
);

// A listener that puts another handler in the place of one whose turn has not come: that one hears this message.
#[test]
fn what_stands_in_for_another_has_its_turn() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    post(&peer, 0..2);
    events.listeners_of(port).once(|turn, message| {
        heard.note("first", message);
        turn.listeners().on_message(|_, message| heard.note("new", message));
    });
    events.listeners_of(port).on_message(|_, message| heard.note("old", message));
    run_all(&mut events);
    assert_eq!(heard.take(), [("first", 0), ("new", 0), ("new", 1)]);
}

// S-043: what a port's handlers hold is let go once, and none is called after that.
#[test]
fn handlers_go_with_their_port() {
    for way in ["close", "remove", "close from inside", "the other end", "drop of the loop"] {
        let (mut events, port, peer) = listening();
        let held = Rc::new(());
        let (here, there, last) = (held.clone(), held.clone(), held.clone());
        events
            .listeners_of(port)
            .on_message(move |turn, _| {
                turn.close(turn.port());
                assert!(Rc::strong_count(&here) > 1, "it runs still");
            })
            .on_close(move |_, _| drop(there))
            .on_message_error(move |_, _| assert!(Rc::strong_count(&last) > 1));
        assert_eq!(Rc::strong_count(&held), 4);
        match way {
            "close" => events.close(port),
            "remove" => drop(events.remove(port)),
            "close from inside" => post(&peer, 0..2),
            "the other end" => drop(peer),
            _ => drop(std::mem::replace(&mut events, strict())),
        }
        run_all(&mut events);
        assert_eq!(Rc::strong_count(&held), 1, "{way}");
    }
}

// --- What handlers do ---

// S-026: a handler that panics costs its message, in the run that goes on.
conversation!(
    a_handler_that_panics_costs_its_message,
    |port: MessagePort| {
        let (heard, beside) = (Heard::default(), Cell::new(0));
        let panics = RefCell::new(Vec::new());
        let mut events = strict();
        events.on_panic(|payload| panics.borrow_mut().push(*payload.downcast::<u64>().unwrap()));
        let port = events.insert(port).unwrap();
        events
            .listeners_of(port)
            .on_message(|_, message| {
                if number(message) % 3 == 1 {
                    std::panic::resume_unwind(Box::new(number(message)));
                }
                heard.note("handler", message);
            })
            .on_close(|_, _| std::panic::resume_unwind(Box::new(99u64)));
        events.listeners_of(port).add(|_, _| beside.set(beside.get() + 1));
        events.run().unwrap();
        drop(events);
        assert_eq!(heard.take(), [0, 2, 3, 5, 6].map(|number| ("handler", number)));
        assert_eq!((beside.get(), panics.take()), (7, vec![1, 4, 99]));
    },
    |port: MessagePort| post(&port, 0..7)
);

// The hook may end the run; the loop can be run again.
#[test]
fn a_panic_that_is_passed_on_ends_the_run() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    events.on_panic(|payload| std::panic::resume_unwind(payload));
    events.listeners_of(port).on_message(|turn, message| {
        if number(message) == 0 {
            turn.later(|events| events.stop());
            std::panic::resume_unwind(Box::new("a test"));
        }
        heard.note("handler", message);
    });
    post(&peer, 0..3);
    let run = std::panic::AssertUnwindSafe(|| events.run());
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(heard.take(), []);
    assert!(!events.run_once().unwrap(), "what it had asked for is done: stop");
    assert!(events.run_once().unwrap());
    assert_eq!(heard.take(), [("handler", 1), ("handler", 2)]);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("a bomb"));
    }
}

// What a handler holds may panic, too, when it goes with its handler.
#[test]
fn what_panics_when_it_is_let_go_costs_nothing() {
    let (heard, bombs) = (Heard::default(), Cell::new(0));
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|_| bombs.set(bombs.get() + 1));
    let MessageChannel { port1: peer, port2 } = MessageChannel::new().unwrap();
    let port = events.insert(port2).unwrap();
    post(&peer, 0..3);
    let armed = |heard, which| {
        let bomb = Bomb;
        move |turn: &mut zeroport::Turn<'_, '_>, message: &Message<'_>| {
            let (_bomb, heard): (_, &Heard) = (&bomb, heard);
            heard.note(which, message);
            turn.listeners().remove_on_message();
        }
    };
    // One that removes itself, one that the end removes.
    events.listeners_of(port).add(|_, message| heard.note("beside", message));
    events.listeners_of(port).on_message(armed(&heard, "armed"));
    run_all(&mut events);
    assert_eq!(bombs.get(), 1);
    let bomb = Bomb;
    events.listeners_of(port).add(move |_, _| assert_eq!(size_of_val(&bomb), 0));
    drop(peer);
    events.run().unwrap();
    assert!(events.is_empty());
    assert_eq!(bombs.get(), 2);
    let told = [("beside", 0), ("armed", 0), ("beside", 1), ("beside", 2)];
    assert_eq!(heard.take(), told);
}

// S-027: posting on the own port, and closing it.
conversation!(
    a_handler_uses_its_own_port,
    |port: MessagePort| {
        let mut events = strict();
        let port = events.insert(port).unwrap();
        events
            .listeners_of(port)
            .on_message(|turn, message| {
                turn.sender().post_pod(&(number(message) + 1)).unwrap();
                let sender = turn.sender_of(turn.port()).unwrap();
                sender.post_pod(&(number(message) + 2)).unwrap();
                if number(message) == 7 {
                    turn.close(turn.port());
                }
            })
            .on_close(|_, _| panic!("it was closed here"));
        events.run().unwrap();
    },
    |port: MessagePort| {
        post(&port, 0..8);
        // Too late, or not read.
        let _ = port.post_pod(&8u64);
        for expected in 0..8 {
            assert_eq!(number(&port.recv().unwrap()), expected + 1);
            assert_eq!(number(&port.recv().unwrap()), expected + 2);
        }
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    }
);

// S-027, S-098: a handler gives its own port away, with all that waits in it.
conversation!(
    a_handler_gives_its_own_port_away,
    |carrier: MessagePort| {
        let heard = Heard::default();
        let mut events = strict();
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        post(&mine, 0..10);
        let (carrier, port) = (events.insert(carrier).unwrap(), events.insert(theirs).unwrap());
        let heard_too = &heard;
        events
            .listeners_of(port)
            .on_message(move |turn, message| {
                heard_too.note("handler", message);
                if number(message) == 2 {
                    turn.remove(turn.port(), move |events, port| {
                        let carrier = events.sender_of(carrier).unwrap();
                        carrier.post_bytes_with(b"go on", transfer![port]).unwrap();
                    });
                }
            })
            .on_close(|_, _| panic!("a port that was given away"));
        events.listeners_of(carrier).on_message(|turn, _| turn.stop());
        events.run().unwrap();
        assert_eq!(heard.take(), [0, 1, 2].map(|number| ("handler", number)));
        assert_eq!(mine.recv().unwrap().bytes(), b"from the new holder");
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        for expected in 3..10 {
            assert_eq!(number(&port.recv().unwrap()), expected);
        }
        port.post_bytes(b"from the new holder").unwrap();
        carrier.post_bytes(b"done").unwrap();
        assert!(carrier.recv().is_err());
    }
);

// S-054: close from inside is a hard stop, for all who listen; S-057: also from another port's handler.
#[test]
fn a_close_from_inside_is_a_hard_stop() {
    let heard = Heard::default();
    let (mut events, port, peer) = listening();
    let MessageChannel { port1: other_peer, port2: other } = MessageChannel::new().unwrap();
    let other = events.insert(other).unwrap();
    let MessageChannel { port1: inner, port2: gift } = MessageChannel::new().unwrap();
    post(&peer, 0..1);
    peer.post_pod_with(&1u64, gift).unwrap();
    post(&other_peer, 0..5);
    let heard_too = &heard;
    events.listeners_of(port).on_message(move |turn, message| {
        heard_too.note("handler", message);
        turn.close(turn.port());
        turn.close(other);
        turn.close(turn.port());
        turn.listeners().on_close(|_, _| panic!("it was closed")).start();
    });
    events.listeners_of(port).add(|_, _| panic!("it was closed before this one's turn"));
    events.listeners_of(other).on_message(|_, _| panic!("it was closed"));
    events.run().unwrap();
    assert!(events.is_empty());
    assert_eq!(heard.take(), [("handler", 0)]);
    for peer in [&peer, &other_peer] {
        assert_eq!(peer.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    }
    assert!(inner.recv().is_err(), "a port in a message that was dropped");
}

// S-013: who posts to itself for ever keeps nobody waiting.
#[test]
fn a_handler_that_posts_to_itself_starves_nobody() {
    with_watchdog(|| {
        let (mut events, port, peer) = listening();
        let peer = events.insert(peer).unwrap();
        for own in [port, peer] {
            events.listeners_of(own).on_message(|turn, message| {
                turn.sender().post_pod(&(number(message) + 1)).unwrap();
            });
        }
        events.sender_of(peer).unwrap().post_pod(&0u64).unwrap();
        assert!(events.run_once().unwrap());
        let MessageChannel { port1: other_peer, port2: other } = MessageChannel::new().unwrap();
        let other = events.insert(other).unwrap();
        events.listeners_of(other).on_message(|turn, _| turn.stop());
        let posting = in_thread("the poster", move || {
            other_peer.post_bytes(b"stop").unwrap();
            assert!(other_peer.recv().is_err());
        });
        events.run().unwrap();
        // A deadline ends it, too.
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(events.run_until(deadline).unwrap());
        assert!(Instant::now() >= deadline);
        drop(events);
        posting.join(Instant::now() + Duration::from_secs(30));
    });
}

// S-028: a turn is a bounded batch from each port, whatever its handler does meanwhile.
#[test]
fn a_turn_is_a_bounded_batch() {
    let (heard, mut peers) = (RefCell::new(Vec::new()), Vec::new());
    let mut events = strict();
    events.set_batch(4);
    for key in 0..3 {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let port = events.insert(port2).unwrap();
        let heard = &heard;
        events.listeners_of(port).on_message(move |turn, _| {
            heard.borrow_mut().push(key);
            // What ends a look at the set's members ends no port's turn.
            turn.listeners().pause().start();
            turn.later(|_| ());
        });
        peers.push(port1);
    }
    post(&peers[0], 0..100);
    post(&peers[1], 0..1);
    post(&peers[2], 0..5);
    assert!(events.run_once().unwrap());
    assert_eq!(heard.take(), [0, 0, 0, 0, 1, 2, 2, 2, 2]);
    assert!(events.run_once().unwrap());
    assert_eq!(heard.take(), [0, 0, 0, 0, 2]);
}

// S-028 among many: who has much to do, slowly, is one of them.
#[test]
fn one_slow_port_among_a_thousand() {
    // An ordinary user may not have the descriptors of so many.
    let count = if support::raise_descriptor_limit() > 8000 { 1000 } else { 100 };
    let (mine, theirs) = channels(count);
    let (slow, others) = (Cell::new(0), Cell::new(0));
    let mut events = strict();
    events.set_batch(2);
    for (key, port) in theirs.into_iter().enumerate() {
        let port = events.insert(port).unwrap();
        let (slow, others) = (&slow, &others);
        events.listeners_of(port).on_message(move |_, _| {
            if key == 0 {
                std::thread::sleep(Duration::from_millis(1));
                slow.set(slow.get() + 1);
            } else {
                others.set(others.get() + 1);
            }
        });
    }
    post(&mine[0], 0..1000);
    mine.iter().skip(1).for_each(|port| post(port, 0..3));
    while others.get() < 3 * (count - 1) {
        events.run_once().unwrap();
    }
    assert!(slow.get() <= 4, "{} messages of the slow one", slow.get());
}

// --- Messages that cannot be had ---

// S-121: good, undecodable, good.
#[cfg(feature = "rkyv")]
conversation!(
    an_undecodable_message_between_two_good_ones,
    |port: MessagePort| {
        let heard = RefCell::new(Vec::new());
        let mut events = strict();
        let port = events.insert(port).unwrap();
        events
            .listeners_of(port)
            .on_value::<String>(|_, text, _| heard.borrow_mut().push(text.to_string()))
            .on_message_error(|turn, error| {
                assert!(matches!(error, MessageError::Decode(_)));
                turn.sender().post_bytes(b"what?").unwrap();
                heard.borrow_mut().push("?".to_string());
            })
            .on_close(|_, _| heard.borrow_mut().push("end".to_string()));
        events.run().unwrap();
        assert_eq!((events.undecoded(), events.len()), (0, 0));
        drop(events);
        assert_eq!(heard.take(), ["good", "?", "good again", "end"]);
    },
    |port: MessagePort| {
        let MessageChannel { port1: inner, port2: gift } = MessageChannel::new().unwrap();
        port.post(&"good".to_string()).unwrap();
        port.post_bytes_with(b"bad", gift).unwrap();
        port.post(&"good again".to_string()).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"what?");
        assert!(inner.recv().is_err(), "its ports are closed");
    }
);

// S-123: where nobody wants to know, it is counted.
#[test]
fn undecodable_messages_are_counted() {
    let (sum, told) = (Cell::new(0), Cell::new(0));
    let (mut events, port, peer) = listening();
    events.listeners_of(port).on_pod::<u64>(|_, number, _| sum.set(sum.get() + number));
    post(&peer, 1..3);
    peer.post_bytes(b"bad").unwrap();
    peer.post_pod(&1u32).unwrap();
    post(&peer, 3..4);
    run_all(&mut events);
    assert_eq!((sum.get(), events.undecoded()), (6, 2));
    // Handlers replace themselves here, too.
    events.listeners_of(port).on_message_error(|turn, _| {
        told.set(told.get() + 1);
        turn.listeners().on_message_error(|turn, _| {
            told.set(told.get() + 10);
            turn.listeners().remove_on_message_error();
        });
    });
    (0..3).for_each(|_| peer.post_bytes(b"bad").unwrap());
    run_all(&mut events);
    assert_eq!((told.get(), events.undecoded()), (11, 3));
}

// S-126 for handlers: what cannot be had now is told once, and comes when it can.
alone!(a_message_that_cannot_be_had_now, || {
    let (mut failures, heard) = (0, Cell::new(0));
    let (mut events, port, peer) = listening();
    let handle = events.handle();
    events
        .listeners_of(port)
        .on_message(|turn, message| {
            heard.set(message.bytes().len());
            turn.stop();
        })
        .on_message_error(|_, error| {
            assert!(matches!(error, MessageError::Receive(RecvError::Os { .. })), "{error}");
            failures += 1;
        });
    peer.post_bytes(&vec![7; 1 << 20]).unwrap();
    let scarcity = Scarcity::new(0);
    let start = Instant::now();
    for _ in 0..10 {
        events.run_once().unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(9), "it would be told again at once");
    drop((scarcity, handle));
    events.run().unwrap();
    drop(events);
    assert_eq!((failures, heard.get()), (1, 1 << 20));
});

// --- Running ---

// S-046: an idle loop keeps no process alive.
alone!(an_idle_loop_keeps_no_process, || {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut events, port, _peer) = listening();
        events.listeners_of(port).on_message(|_, _| ());
        tell.send(()).unwrap();
        events.run().unwrap();
    });
    told.recv().unwrap();
});

#[test]
fn a_run_ends_without_ports_or_when_it_is_stopped() {
    with_watchdog(|| {
        let mut empty = strict();
        empty.run().unwrap();
        assert!(!empty.run_once().unwrap() && !empty.run_ready().unwrap());
        let soon = Instant::now() + Duration::from_millis(10);
        assert!(!empty.run_until(soon + Duration::from_secs(60)).unwrap());
        empty.keep_running(true);
        assert!(empty.run_until(soon).unwrap());
        assert!(Instant::now() >= soon);
        empty.handle().stop();
        empty.run().unwrap();

        let heard = Heard::default();
        let (mut events, port, peer) = listening();
        events.listeners_of(port).on_message(|turn, message| {
            heard.note("handler", message);
            turn.stop();
        });
        post(&peer, 0..2);
        for expected in 0..2 {
            events.run().unwrap();
            assert_eq!(heard.take(), [("handler", expected)]);
        }
        events.stop();
        events.run().unwrap();
    });
}

// A run inside a run has ends of its own: what was asked for before it began is for the one around it.
#[test]
fn runs_inside_runs() {
    with_watchdog(|| {
        let heard = Heard::default();
        let (mut events, port, peer) = listening();
        let MessageChannel { port1: other_peer, port2: other } = MessageChannel::new().unwrap();
        let other = events.insert(other).unwrap();
        post(&peer, 0..3);
        post(&other_peer, 10..12);
        let heard_too = &heard;
        events.listeners_of(port).on_message(move |turn, message| {
            heard_too.note("outer", message);
            turn.stop();
            turn.later(move |events| {
                events.listeners_of(other).on_message(move |turn, message| {
                    heard_too.note("inner", message);
                    turn.stop();
                });
                // Also that of the port whose handler has asked for it.
                events.listeners_of(port).on_message(|turn, message| {
                    heard_too.note("outer, inside", message);
                    turn.close(turn.port());
                });
                events.run().unwrap();
                events.listeners_of(other).pause();
                heard_too.0.borrow_mut().push(("back", 0));
            });
        });
        events.run().unwrap();
        let told = heard.take();
        assert_eq!(told.first(), Some(&("outer", 0)));
        assert_eq!(told.last(), Some(&("back", 0)), "the stop was for the run around it");
        assert!(told.contains(&("inner", 10)) && !told.contains(&("inner", 11)));
        assert!(!told.contains(&("outer, inside", 2)));
        // In the handler of an end.
        let heard_too = &heard;
        events.listeners_of(other).remove_on_message().on_close(move |events, _| {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let port = events.insert(port2).unwrap();
            events.listeners_of(port).on_message(|_, message| heard_too.note("within", message));
            post(&port1, 7..9);
            drop(port1);
            events.run().unwrap();
            assert!(events.is_empty());
        });
        events.listeners_of(other).on_message(|_, message| heard.note("rest", message));
        drop((peer, other_peer));
        events.run().unwrap();
        assert_eq!(heard.take(), [("rest", 11), ("within", 7), ("within", 8)]);
    });
}

// A loop that is put in the place of another while that one runs.
#[test]
fn a_loop_is_let_go_from_inside() {
    with_watchdog(|| {
        let heard = Heard::default();
        let (mut events, port, peer) = listening();
        let MessageChannel { port1: other_peer, port2: other } = MessageChannel::new().unwrap();
        post(&peer, 0..3);
        post(&other_peer, 10..12);
        drop(other_peer);
        let (heard_too, other) = (&heard, Rc::new(Cell::new(Some(other))));
        events.listeners_of(port).on_message(move |turn, message| {
            heard_too.note("before", message);
            let other = Rc::clone(&other);
            turn.later(move |events| {
                drop(std::mem::replace(events, strict()));
                let other = events.insert(other.take().unwrap()).unwrap();
                events
                    .listeners_of(other)
                    .on_message(|_, message| heard_too.note("after", message));
            });
        });
        events.run().unwrap();
        assert_eq!(heard.take(), [("before", 0), ("after", 10), ("after", 11)]);
        assert_eq!(peer.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    });
}

// Other threads reach a loop that sleeps.
#[test]
fn handles_reach_a_loop() {
    with_watchdog(|| {
        let heard = Heard::default();
        let mut events = strict();
        events.keep_running(true);
        let handle = events.handle();
        let (mine, mut theirs) = channels(2);
        let too_late = theirs.pop().unwrap();
        let joined = theirs.pop().unwrap();
        let peer = in_thread("the peer", move || {
            let set_up = |events: &mut EventLoop<'_>, port: Result<PortId, _>| {
                let counted = Cell::new(0);
                events.listeners_of(port.unwrap()).on_message(move |turn, message| {
                    counted.set(counted.get() + 1);
                    turn.sender().post_pod(&(number(message) + counted.get())).unwrap();
                });
            };
            handle.insert(joined, set_up).unwrap();
            for round in 0..50u64 {
                mine[0].post_pod(&round).unwrap();
                assert_eq!(number(&mine[0].recv().unwrap()), 2 * round + 1);
                handle.wake();
            }
            assert!(handle.later(|events| events.stop()).is_ok());
            assert!(mine[0].recv().is_err(), "the loop is gone");
            let refused = handle.insert(too_late, |_, _| ()).unwrap_err();
            refused.post_bytes(b"as it was").unwrap();
            assert_eq!(mine[1].recv().unwrap().bytes(), b"as it was");
            assert!(handle.later(|_| ()).is_err());
            handle.stop();
        });
        events.run().unwrap();
        drop(events);
        peer.join(Instant::now() + Duration::from_secs(30));
        assert_eq!(heard.take(), []);
    });
}

// S-047: also of what is asked for while the loop is armed.
#[test]
fn an_armed_loop_hears_who_listens_now() {
    let told = Cell::new(0);
    let mut events = strict();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_pod(&7u64).unwrap();
    events.keep_running(true);
    assert!(events.arm().unwrap() && !is_readable(&events));
    let port = events.insert(port2).unwrap();
    events.listeners_of(port).on_message(|_, message| told.set(told.get() + number(message)));
    assert!(is_readable(&events));
    events.run_ready().unwrap();
    assert_eq!(told.get(), 7);

    events.listeners_of(port).pause();
    port1.post_pod(&8u64).unwrap();
    events.run_ready().unwrap();
    assert!(events.arm().unwrap() && !is_readable(&events));
    events.listeners_of(port).start();
    assert!(is_readable(&events));
    events.run_ready().unwrap();
    assert_eq!(told.get(), 15);
    assert!(events.arm().unwrap() && !is_readable(&events));
}

// S-047: a descriptor for foreign loops, readable as long as there is something to tell.
conversation!(
    the_descriptor_tells,
    |port: MessagePort| {
        let answer = Cell::new(None);
        let mut events = strict();
        let port = events.insert(port).unwrap();
        events.listeners_of(port).on_message(|_, message| answer.set(Some(number(message))));
        for round in 0..200u64 {
            events.sender_of(port).unwrap().post_pod(&round).unwrap();
            while answer.get().is_none() {
                if events.arm().unwrap() {
                    poll(&mut [PollFd::new(&events, PollFlags::IN)], None).unwrap();
                    assert!(is_readable(&events), "as long as nobody looks");
                }
                assert!(events.run_ready().unwrap());
            }
            assert_eq!(answer.take(), Some(round));
            if events.arm().unwrap() {
                assert!(!is_readable(&events), "drained");
            }
        }
        // Of what nobody listens to it says nothing.
        events.listeners_of(port).pause();
        events.sender_of(port).unwrap().post_pod(&7u64).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        events.run_until(deadline).unwrap();
        assert!(events.arm().unwrap() && !is_readable(&events));
        events.handle().wake();
        assert!(is_readable(&events));
        events.run_ready().unwrap();
        assert!(events.arm().unwrap() && !is_readable(&events));
        events.listeners_of(port).start();
        assert!(!events.arm().unwrap(), "it waits there");
    },
    |port: MessagePort| {
        for _ in 0..201 {
            let question = *port.recv().unwrap().pod::<u64>().unwrap();
            port.post_pod(&question).unwrap();
        }
        assert!(port.recv().is_err());
    },
);
