//! The end of a channel, told to a handler: once, after the last message, and only when the other end has gone.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use support::{
    alone, channels, conversation, count_descriptors, count_segment_mappings, doomed, in_all_ways,
    in_thread, wait_until, with_watchdog,
};
use zeroport::{
    ChannelOptions, CloseReason, EventLoop, MessageChannel, MessagePort, PeerState, PortId,
    PostError, RecvError, Trust, transfer,
};

/// A loop in which what a handler finds wrong fails the test.
fn strict<'h>() -> EventLoop<'h> {
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|payload| std::panic::resume_unwind(payload));
    events
}

fn listening<'h>() -> (EventLoop<'h>, PortId, MessagePort) {
    let mut events = strict();
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let port = events.insert(port2).unwrap();
    (events, port, port1)
}

fn run_all(events: &mut EventLoop<'_>) {
    for _ in 0..20 {
        events.run_ready().unwrap();
    }
}

// S-059, S-062, S-066, S-069: messages, then the end.
in_all_ways!(
    messages_and_then_the_end,
    |port: MessagePort| {
        let (next, ends) = &(Cell::new(0u64), Cell::new(0));
        let mut events = strict();
        let port = events.insert(port).unwrap();
        events
            .listeners_of(port)
            .on_pod::<u64>(|_, number, _| {
                assert_eq!(next.replace(number + 1), *number);
                assert_eq!(ends.get(), 0);
            })
            .on_close(move |events, _| {
                assert_eq!(next.get(), 500);
                ends.set(ends.get() + 1);
                // There is nothing left of it.
                assert!(events.sender_of(port).is_none() && events.is_empty());
            });
        events.run().unwrap();
        assert_eq!(ends.get(), 1);
    },
    |port: MessagePort| (0..500u64).for_each(|number| port.post_pod(&number).unwrap())
);

/// The end may be found some looks before it is told, and in a queue that has grown nothing is left to look at then.
#[test]
fn an_end_that_was_found_before_is_told() {
    with_watchdog(|| {
        for trust in [Trust::Trusted, Trust::Untrusted] {
            let (read, end) = &(Cell::new(0), Cell::new(None));
            let MessageChannel { port1, port2 } =
                ChannelOptions::new().capacity(4096).trust(trust).open().unwrap();
            let mut events = strict();
            let port = events.insert(port2).unwrap();
            events
                .listeners_of(port)
                .on_message(|_, _| read.set(read.get() + 1))
                .on_close(|_, reason| end.set(Some(reason)));
            // More than fits in the first ring.
            (0..100).for_each(|_| port1.post_bytes(&[7; 100]).unwrap());
            while read.get() < 100 {
                events.run_ready().unwrap();
            }
            port1.close();
            assert!(!events.arm().unwrap() && !events.arm().unwrap());
            run_all(&mut events);
            assert_eq!(end.get(), Some(CloseReason::Closed), "{trust:?}");
        }
    });
}

// S-060: nobody is told of what he did himself, in whatever way; S-075, D-07: nor of what was given away.
#[test]
fn nobody_is_told_of_an_end_of_his_own() {
    for way in ["close", "remove", "from inside", "a closer", "given away", "both"] {
        let (mut events, port, peer) = listening();
        let mut closer = None;
        let port = match way {
            "a closer" | "both" => {
                let out = events.remove(port).unwrap();
                closer = Some(out.closer());
                events.insert(out).unwrap()
            }
            _ => port,
        };
        let mut listeners = events.listeners_of(port);
        listeners.on_message(|turn, _| turn.close(turn.port()));
        listeners.on_close(|_, _| panic!("told of an end of its own"));
        let mut peer = Some(peer);
        match way {
            "close" => events.close(port),
            "remove" => drop(events.remove(port)),
            "from inside" => peer.as_ref().unwrap().post_bytes(b"close").unwrap(),
            "a closer" => closer.unwrap().close(),
            "both" => {
                closer.unwrap().close();
                drop(peer.take());
            }
            _ => {
                let carrier = MessageChannel::new().unwrap();
                let out = events.remove(port).unwrap();
                carrier.port1.post_bytes_with(b"", transfer![out]).unwrap();
                drop(carrier);
            }
        }
        run_all(&mut events);
        assert!(events.is_empty(), "{way}");
        if let Some(peer) = peer {
            assert!(matches!(peer.recv(), Err(RecvError::Closed(_))), "{way}");
        }
    }
}

// S-061, S-070, S-071: a close, an exit and a kill at once are one end, after what was posted.
doomed!(
    an_end_of_many_causes_is_told_once,
    |carrier: MessagePort, mut peer| {
        let (messages, ends) = (Cell::new(0), Cell::new(0));
        let mut events = strict();
        for _ in 0..30 {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            carrier.post_bytes_with(b"", port2).unwrap();
            let port = events.insert(port1).unwrap();
            events
                .listeners_of(port)
                .on_message(|_, _| messages.set(messages.get() + 1))
                .on_close(|_, _| ends.set(ends.get() + 1));
        }
        let killing = in_thread("the killer", move || {
            assert_eq!(carrier.recv().unwrap().bytes(), b"closing");
            peer.kill();
            peer.wait();
        });
        events.run().unwrap();
        assert_eq!((messages.get(), ends.get()), (30, 30));
        killing.join(Instant::now() + Duration::from_secs(30));
    },
    |carrier: MessagePort| {
        let take = |_| {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            port.post_bytes(b"last words").unwrap();
            port
        };
        let ports: Vec<_> = (0..30).map(take).collect();
        carrier.post_bytes(b"closing").unwrap();
        ports.into_iter().for_each(MessagePort::close);
        loop {
            std::thread::park();
        }
    }
);

// S-063: without a start the end waits behind the messages; S-064: and behind nothing else.
#[test]
fn the_end_of_a_port_that_is_not_started() {
    let told = RefCell::new(Vec::new());
    let mut events = strict();
    let (mut mine, theirs) = channels(3);
    let ports: Vec<_> = theirs.into_iter().map(|port| events.insert(port).unwrap()).collect();
    for (key, port) in ports.iter().enumerate() {
        let told = &told;
        events.listeners_of(*port).on_close(move |_, _| told.borrow_mut().push(key));
    }
    // One that is started, with nobody to listen.
    events.listeners_of(ports[2]).start();
    mine[1].post_bytes(b"unread").unwrap();
    mine[2].post_bytes(b"unread").unwrap();
    run_all(&mut events);
    mine.clear();
    run_all(&mut events);
    assert_eq!(told.take(), [0]);
    events.listeners_of(ports[2]).once(|_, message| assert_eq!(message.bytes(), b"unread"));
    run_all(&mut events);
    assert_eq!(told.take(), [2], "its message was read");
    events.listeners_of(ports[1]).on_message(|_, _| told.borrow_mut().push(7));
    run_all(&mut events);
    assert_eq!(told.take(), [7, 1]);
    assert!(events.is_empty());
}

// S-065: who asks late is told, once, in a turn of its own.
#[test]
fn who_listens_late_is_told_of_the_end() {
    for is_started in [false, true] {
        let told = Cell::new(0);
        let (mut events, port, peer) = listening();
        if is_started {
            events.listeners_of(port).start();
        }
        drop(peer);
        run_all(&mut events);
        assert!(events.is_empty());
        events.listeners_of(port).on_close(|_, reason| {
            assert_eq!(reason, CloseReason::Closed);
            told.set(told.get() + 1);
        });
        assert_eq!(told.get(), 0, "never inside the call");
        assert!(!events.arm().unwrap(), "there is something to tell");
        events.run().unwrap();
        assert_eq!(told.get(), 1);
        events.listeners_of(port).on_close(|_, _| panic!("told twice"));
        run_all(&mut events);
        assert!(events.arm().unwrap());
    }
}

// S-063, S-064, S-065, with the other ends elsewhere: one that waits for its message, one that is told at once, one that
// is asked for late.
conversation!(
    ends_that_are_told_at_once_and_ends_that_wait,
    |carrier: MessagePort| {
        let told = &RefCell::new(Vec::new());
        let mut events = strict();
        let (mine, theirs) = channels(3);
        carrier.post_bytes_with(b"", theirs).unwrap();
        let [at_once, unread, late] = mine.try_into().expect("three ports");
        let [at_once, unread, late] = [at_once, unread, late].map(|it| events.insert(it).unwrap());
        let hear = |who| move |_: &mut EventLoop<'_>, _| told.borrow_mut().push(who);
        events.listeners_of(at_once).on_close(hear("at once"));
        events.listeners_of(unread).on_close(hear("unread"));
        assert_eq!(carrier.recv().unwrap().bytes(), b"posted");
        run_all(&mut events);
        assert!(told.borrow().is_empty());
        carrier.post_bytes(b"close").unwrap();
        // That of the late one is taken note of; then only the one with its message is left.
        while events.len() > 1 {
            events.run_once().unwrap();
        }
        let is_open = |state| state == PeerState::Open;
        wait_until("it is closed", || !is_open(events.sender_of(unread).unwrap().peer_state()));
        run_all(&mut events);
        assert_eq!(told.take(), ["at once"]);
        events.listeners_of(late).on_close(hear("late"));
        run_all(&mut events);
        assert_eq!(told.take(), ["late"]);
        events.listeners_of(unread).on_message(|_, _| told.borrow_mut().push("a message"));
        events.run().unwrap();
        assert_eq!(told.take(), ["a message", "unread"]);
    },
    |carrier: MessagePort| {
        let ports: [_; 3] = carrier.recv().unwrap().take_ports().unwrap();
        ports[1].post_bytes(b"unread").unwrap();
        carrier.post_bytes(b"posted").unwrap();
        assert_eq!(carrier.recv().unwrap().bytes(), b"close");
    }
);

// S-077: a handler for the end runs in a turn of its own, never inside the close.
#[test]
fn an_end_is_told_in_a_turn_of_its_own() {
    let (is_closing, told) = (Cell::new(false), Cell::new(0));
    let (mut events, port, peer) = listening();
    let peer = events.insert(peer).unwrap();
    events.listeners_of(port).on_close(|_, _| {
        assert!(!is_closing.get());
        told.set(told.get() + 1);
    });
    is_closing.set(true);
    events.close(peer);
    is_closing.set(false);
    assert_eq!(told.get(), 0);
    run_all(&mut events);
    assert_eq!(told.get(), 1);

    // From a handler of another port.
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let MessageChannel { port1: asking, port2: asked } = MessageChannel::new().unwrap();
    let [one, other, asked] = [port1, port2, asked].map(|port| events.insert(port).unwrap());
    events.listeners_of(one).on_close(|_, _| {
        assert!(!is_closing.get());
        told.set(told.get() + 1);
    });
    let is_closing = &is_closing;
    events.listeners_of(asked).on_message(move |turn, _| {
        is_closing.set(true);
        turn.close(other);
        is_closing.set(false);
    });
    asking.post_bytes(b"close the other one").unwrap();
    run_all(&mut events);
    assert_eq!(told.get(), 2);
}

// S-078: the loop goes: its handlers are not told, the other ends are.
#[test]
fn a_loop_that_goes_tells_the_others_only() {
    let (mine, theirs) = channels(3);
    let mut events = strict();
    for port in theirs {
        let port = events.insert(port).unwrap();
        events.listeners_of(port).on_message(|_, _| ()).on_close(|_, _| panic!("told in teardown"));
    }
    run_all(&mut events);
    drop(events);
    for port in mine {
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    }
}

// S-144: a reply port that is dropped unanswered.
conversation!(
    a_reply_that_never_comes,
    |port: MessagePort| {
        let mut told = Vec::new();
        let MessageChannel { port1: replies, port2: reply } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"a request", reply).unwrap();
        let mut events = strict();
        let replies = events.insert(replies).unwrap();
        events
            .listeners_of(replies)
            .on_message(|_, _| panic!("a reply"))
            .on_close(|_, reason| told.push(reason));
        events.run().unwrap();
        drop(events);
        assert_eq!(told, [CloseReason::Closed]);
    },
    |port: MessagePort| {
        let [reply] = port.recv().unwrap().take_ports().unwrap();
        drop(reply);
        assert!(port.recv().is_err());
    }
);

// S-152: a list of ports, from which each leaves at its end.
#[test]
fn a_broadcaster_and_its_list() {
    with_watchdog(|| {
        let list = RefCell::new(Vec::new());
        let mut events = strict();
        let (mut mine, theirs) = channels(10);
        for port in theirs {
            let port = events.insert(port).unwrap();
            let list = &list;
            list.borrow_mut().push(port);
            events.listeners_of(port).on_close(move |_, _| {
                list.borrow_mut().retain(|listed| *listed != port);
            });
        }
        for round in 0..10 {
            run_all(&mut events);
            assert_eq!(list.borrow().len(), 10 - round);
            for port in &*list.borrow() {
                events.sender_of(*port).unwrap().post_bytes(b"news").unwrap();
            }
            drop(mine.remove(0));
            for port in &mine {
                assert_eq!(port.recv().unwrap().bytes(), b"news");
                assert_eq!(port.peer_state(), PeerState::Open);
            }
        }
        events.run().unwrap();
        assert!(list.borrow().is_empty());
    });
}

// S-118: what a port had goes with it, also when the loop has nothing more to do.
alone!(nothing_stays_of_ports_whose_end_was_told, || {
    let mut events = strict();
    let before = (count_descriptors(), count_segment_mappings());
    for _ in 0..3 {
        let (ours, theirs) = channels(20);
        for port in ours {
            let port = events.insert(port).unwrap();
            events.listeners_of(port).on_message(|_, _| panic!("nothing was posted"));
        }
        drop(theirs);
        events.run().unwrap();
        assert_eq!((count_descriptors(), count_segment_mappings()), before);
    }
});

// S-142, S-152: among the listed are some of a process that is killed, and one that never reads; the rest hear all.
doomed!(
    a_broadcaster_among_processes,
    |carrier: MessagePort, mut peer| {
        const NEWS: usize = 1000;
        let list = RefCell::new(Vec::new());
        let mut events = strict();
        let (kept, ours) = channels(5);
        let (remote, theirs) = channels(5);
        let stuck = ChannelOptions::new().limit(0).open().unwrap();
        carrier.post_bytes_with(b"", theirs).unwrap();
        for port in ours.into_iter().chain(remote).chain([stuck.port1]) {
            let (port, list) = (events.insert(port).unwrap(), &list);
            list.borrow_mut().push(port);
            events.listeners_of(port).on_close(move |_, reason| {
                assert_eq!(reason, CloseReason::PeerDied);
                list.borrow_mut().retain(|listed| *listed != port);
            });
        }
        assert_eq!(carrier.recv().unwrap().bytes(), b"taken");
        let mut refused = 0;
        for round in 0..NEWS {
            if round == NEWS / 2 {
                peer.kill();
                while list.borrow().len() > 6 {
                    events.run_once().unwrap();
                }
            }
            for port in &*list.borrow() {
                match events.sender_of(*port).unwrap().try_post_bytes(&[7; 1000]) {
                    Err(PostError::Full { .. }) => refused += 1,
                    posted => posted.unwrap(),
                }
            }
        }
        peer.wait();
        let read = stuck.port2.drain().count();
        assert_eq!((read + refused, read < 100), (NEWS, true));
        assert!(kept.iter().all(|port| port.drain().count() == NEWS));
    },
    |carrier: MessagePort| {
        let ports = carrier.recv().unwrap().take_all_ports().unwrap();
        carrier.post_bytes(b"taken").unwrap();
        loop {
            ports.iter().for_each(|port| drop(port.recv()));
        }
    }
);
