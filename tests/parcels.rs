//! How many ports one message carries, and what happens when descriptors, or room for them, run out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod scarcity;
mod support;

use std::time::{Duration, Instant};

use ends::{expect_end, expect_report};
use rustix::process::{Resource, Rlimit, Uid, geteuid, getpid, getrlimit, setrlimit};
use rustix::thread::set_thread_uid;
use rustix::time::{ClockId, clock_gettime};
use scarcity::Scarcity;
use support::{
    Peer, Setup, Sleeper, alone, asleep, channels, conversation, count_descriptors,
    count_segment_mappings, doomed, expect_all_entangled, expect_entangled, lower_descriptor_limit,
    raise_descriptor_limit, wait_until,
};
use zeroport::{
    Buffer, ChannelOptions, CloseReason, Message, MessageChannel, MessagePort, PeerState,
    PostError, RecvError, TakeError, TransferError, WaitStrategy, transfer,
};

fn expect_no_descriptor<T: std::fmt::Debug>(taken: Result<T, TakeError>) {
    match taken {
        Err(TakeError::Os(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
        other => panic!("{other:?} instead of EMFILE"),
    }
}

/// Address space that this process uses.
fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    pages * 4096 // as x86-64 has them
}

/// A carrier of which the reader has the lane already, or finds it on the line.
fn carrier(has_lane: bool) -> MessageChannel {
    let channel = MessageChannel::new().unwrap();
    if has_lane {
        let (mine, theirs) = channels(1);
        channel.port1.post_bytes_with(b"", theirs).unwrap();
        let theirs = channel.port2.recv().unwrap().take_all_ports().unwrap();
        expect_all_entangled(&mine, &theirs);
    }
    channel
}

/// Whether this process may have so many channels, all of whose ports are here twice for a moment.
fn fits(count: &usize) -> bool {
    raise_descriptor_limit() as usize > 7 * count + 100
}

// ---- S-126: the reader runs out of descriptors ----

alone!(ports_wait_for_descriptors, || {
    raise_descriptor_limit();
    drop(carrier(true));
    let before = (count_descriptors(), count_segment_mappings());
    for has_lane in [true, false] {
        for count in [1, 2, 126, 127, 300].into_iter().filter(fits) {
            // Two for each port, one for an envelope, one for the lane.
            let needed = 2 * count + usize::from(count > 126) + usize::from(!has_lane);
            for free in [0, 1, 2, needed / 2, needed - 1, needed] {
                let MessageChannel { port1, port2 } = carrier(has_lane);
                let (mine, theirs) = channels(count);
                mine[0].post_bytes(b"unread").unwrap();
                port1.post_bytes_with(b"ports", theirs).unwrap();
                port1.post_bytes(b"no ports").unwrap();

                let scarcity = Scarcity::new(free);
                let message = port2.recv().unwrap();
                assert_eq!((message.bytes(), message.port_count()), (&b"ports"[..], count));
                if free < needed {
                    for _ in 0..3 {
                        expect_no_descriptor(message.take_port());
                        expect_no_descriptor(message.take_all_ports());
                        assert_eq!(message.port_count(), count);
                    }
                }
                assert_eq!(port2.recv().unwrap().bytes(), b"no ports");
                assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
                assert!(mine.iter().all(|port| port.peer_state() == PeerState::Open));
                let early = (free >= needed).then(|| message.take_all_ports().unwrap());
                drop(scarcity);
                let theirs = early.unwrap_or_else(|| message.take_all_ports().unwrap());
                assert_eq!(theirs[0].recv().unwrap().bytes(), b"unread");
                expect_all_entangled(&mine, &theirs);
            }
        }
    }
    assert_eq!((count_descriptors(), count_segment_mappings()), before);
});

alone!(ports_wait_for_memory, || {
    const RING: u64 = 64 << 20;
    let MessageChannel { port1, port2 } = carrier(false);
    let ends = (0..3).map(|_| ChannelOptions::new().capacity(RING).open().unwrap());
    let (near, far): (Vec<_>, Vec<_>) = ends.map(|ends| (ends.port1, ends.port2)).unzip();
    port1.post_bytes_with(b"three", far).unwrap();
    let message = port2.recv().unwrap();
    let limit = getrlimit(Resource::As);
    // Enough for one of them, not for two.
    let tight = Some(mapped_bytes() + 3 * RING);
    setrlimit(Resource::As, Rlimit { current: tight, ..limit }).unwrap();
    assert!(matches!(message.take_all_ports(), Err(TakeError::Os(_))));
    assert!(matches!(message.take_ports::<3>(), Err(TakeError::Os(_))));
    assert_eq!(message.port_count(), 3);
    let first = message.take_port().unwrap().unwrap();
    assert!(matches!(message.take_port(), Err(TakeError::Os(_))));
    setrlimit(Resource::As, limit).unwrap();
    let rest = message.take_all_ports().unwrap();
    for (near, far) in near.iter().zip([first].iter().chain(&rest)) {
        near.post_bytes(b"here").unwrap();
        assert_eq!(far.recv().unwrap().bytes(), b"here");
    }
});

// Buffers wait for memory as ports do.
alone!(buffers_wait_for_memory, || {
    const LEN: usize = 64 << 20;
    for setup in [Setup::new(), Setup::new().untrusted()] {
        let MessageChannel { port1, port2 } = setup.open();
        let buffer = |fill| {
            let mut buffer = Buffer::new(LEN).unwrap();
            buffer[LEN - 1] = fill;
            buffer
        };
        port1.post_bytes_with(b"two", transfer![buffer(1), buffer(2)]).unwrap();
        let message = port2.recv().unwrap();
        let limit = getrlimit(Resource::As);
        // Enough for one of them, not for two.
        let tight = Some(mapped_bytes() + LEN as u64 * 3 / 2);
        setrlimit(Resource::As, Rlimit { current: tight, ..limit }).unwrap();
        let first = message.take_buffer().unwrap().unwrap();
        for _ in 0..3 {
            assert_eq!(message.buffer_count(), 1);
            assert!(matches!(message.take_buffer(), Err(TakeError::Os(_))));
        }
        setrlimit(Resource::As, limit).unwrap();
        let second = message.take_buffer().unwrap().expect("it was not lost");
        assert_eq!((first[LEN - 1], second[LEN - 1]), (1, 2));
        assert_eq!(port1.peer_state(), PeerState::Open);
    }
});

alone!(a_message_that_is_dropped_without_descriptors_drops_its_ports_only, || {
    raise_descriptor_limit();
    for has_lane in [true, false] {
        for count in [1, 127, 300].into_iter().filter(fits) {
            let MessageChannel { port1, port2 } = carrier(has_lane);
            let (mut mine, mut theirs) = channels(2 * count);
            let (second, their_second) = (mine.split_off(count), theirs.split_off(count));
            port1.post_bytes_with(b"first", theirs).unwrap();
            port1.post_bytes_with(b"second", their_second).unwrap();

            // Enough for a part of an envelope.
            let scarcity = Scarcity::new(count);
            let message = port2.recv().unwrap();
            expect_no_descriptor(message.take_all_ports());
            drop(message);
            drop(scarcity);

            let message = port2.recv().unwrap();
            assert_eq!(message.bytes(), b"second");
            expect_all_entangled(&second, &message.take_all_ports().unwrap());
            for port in &mine {
                expect_end(port, CloseReason::Lost);
            }
        }
    }
});

// Nothing else is ever posted: whoever looks for the next message drops what could not be dropped before.
alone!(what_could_not_be_dropped_without_descriptors_is_dropped_later, || {
    for has_lane in [true, false] {
        for sleeps in [true, false] {
            let MessageChannel { port1, port2 } = carrier(has_lane);
            let (mine, theirs) = channels(1);
            port1.post_bytes_with(b"with a port", theirs).unwrap();
            let scarcity = Scarcity::new(0);
            drop(port2.recv().unwrap());
            drop(scarcity);
            if sleeps {
                let reader = std::thread::spawn(move || port2.recv().unwrap().bytes().to_vec());
                expect_end(&mine[0], CloseReason::Lost);
                port1.post_bytes(b"no port").unwrap();
                assert_eq!(reader.join().unwrap(), b"no port");
            } else {
                assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
                expect_end(&mine[0], CloseReason::Lost);
            }
        }
    }
});

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let insert = |order: Vec<usize>| {
        (0..=last).map(move |at| [&order[..at], &[last], &order[at..]].concat())
    };
    orders(last).into_iter().flat_map(insert).collect()
}

// Four messages whose ports are out of reach; each is dropped or taken, in every order, the first few of
// them while there are no descriptors.
alone!(messages_whose_ports_wait_are_finished_in_any_order, || {
    const MESSAGES: usize = 4;
    for has_lane in [true, false] {
        for order in orders(MESSAGES) {
            // Each number says in its bits which messages are dropped rather than taken.
            for drops in 0..1 << MESSAGES {
                let MessageChannel { port1, port2 } = carrier(has_lane);
                let (mine, theirs) = channels(MESSAGES);
                for (number, port) in (0u64..).zip(theirs) {
                    port1.post_pod_with(&number, port).unwrap();
                }
                let is_dropped = |number: usize| drops >> number & 1 == 1;
                let scarcity = Scarcity::new(0);
                let mut held: Vec<Option<Message<'_>>> =
                    (0..MESSAGES).map(|_| port2.recv().ok()).collect();
                let (early, late) = order.split_at(2);
                for &number in early {
                    if is_dropped(number) {
                        held[number] = None;
                    } else {
                        expect_no_descriptor(held[number].as_ref().unwrap().take_port());
                    }
                }
                drop(scarcity);
                let mut taken: Vec<Option<MessagePort>> = mine.iter().map(|_| None).collect();
                for &number in late.iter().chain(early) {
                    if !is_dropped(number) {
                        let message = held[number].as_ref().unwrap();
                        taken[number] = Some(message.take_port().unwrap().unwrap());
                    }
                    held[number] = None;
                }
                for (number, mine) in mine.iter().enumerate() {
                    match &taken[number] {
                        Some(theirs) => expect_entangled(mine, theirs),
                        None => expect_report(mine, CloseReason::Lost),
                    }
                    assert_eq!(taken[number].is_none(), is_dropped(number));
                }
                // The next message finds its own ports.
                let (mine, theirs) = channels(2);
                port1.post_bytes_with(b"", theirs).unwrap();
                expect_all_entangled(&mine, &port2.recv().unwrap().take_all_ports().unwrap());
            }
        }
    }
});

alone!(a_reader_that_cannot_take_its_lane_sleeps_and_loses_nothing, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let (mine, theirs) = channels(1);
    let silence = Duration::from_millis(200);
    port1.post_bytes_with(b"ports", theirs).unwrap();
    let scarcity = Scarcity::new(0);
    port2.set_wait_strategy(WaitStrategy::Sleep);
    let message = port2.recv().unwrap();
    expect_no_descriptor(message.take_port());

    let now = || {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        (Instant::now(), Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32), port2.sleeps())
    };
    let (start, cpu, sleeps) = now();
    assert_eq!(port2.recv_timeout(silence).unwrap_err(), RecvError::Empty);
    let (end, cpu_after, sleeps_after) = now();
    let elapsed = end - start;
    assert!(elapsed >= silence);
    // It looks about once a millisecond, and does nothing else.
    assert!(u128::from(sleeps_after - sleeps) <= elapsed.as_millis() + 1);
    assert!(cpu_after - cpu < elapsed / 2, "{:?} of {elapsed:?}", cpu_after - cpu);

    port1.post_bytes(b"a bell behind the lane's end").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"a bell behind the lane's end");
    drop(scarcity);
    expect_entangled(&mine[0], &message.take_port().unwrap().unwrap());
});

/// The other end of this port is lost: nobody says so but the line.
fn lose(port: MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes_with(b"", port).unwrap();
    drop(port2);
}

alone!(a_reader_that_cannot_take_its_lane_learns_of_the_end, || {
    for in_time in [false, true] {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes_with(b"ports", channels(1).1).unwrap();
        lose(port1);
        let scarcity = Scarcity::new(0);
        port2.set_wait_strategy(WaitStrategy::Sleep);
        let message = port2.recv().unwrap();
        let ended =
            if in_time { port2.recv_timeout(Duration::from_secs(30)) } else { port2.recv() };
        assert_eq!(ended.map(drop), Err(RecvError::Closed(CloseReason::Lost)));
        drop(scarcity);
        assert_eq!(message.take_all_ports().unwrap().len(), 1);
    }
});

alone!(a_port_whose_lane_is_out_of_reach_moves_if_that_loses_nothing, || {
    for received in [false, true] {
        let MessageChannel { port1, port2 } = carrier(true);
        let MessageChannel { port1: inner1, port2: inner2 } = MessageChannel::new().unwrap();
        let (mine, theirs) = channels(2);
        let mut theirs = theirs.into_iter();
        inner1.post_bytes_with(b"first", theirs.next().unwrap()).unwrap();
        inner1.post_bytes_with(b"second", theirs.next().unwrap()).unwrap();

        let scarcity = Scarcity::new(0);
        if received {
            std::mem::forget(inner2.recv().unwrap());
        }
        let posted = port1.post_bytes_with(b"", inner2);
        drop(scarcity);
        let inner2 = match posted {
            Ok(()) => port2.recv().unwrap().take_ports::<1>().unwrap(),
            Err(TransferError { list, source: PostError::Os(error), .. }) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                // Its first message was forgotten, and only the lane can tell which ports were its own.
                assert!(received);
                port1.post_bytes_with(b"", list).unwrap();
                port2.recv().unwrap().take_ports::<1>().unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        for (number, mine) in mine.iter().enumerate().skip(received.into()) {
            let message = inner2[0].recv().unwrap();
            assert_eq!(message.bytes(), [&b"first"[..], b"second"][number]);
            expect_entangled(mine, &message.take_port().unwrap().unwrap());
        }
        if received {
            expect_end(&mine[0], CloseReason::Lost);
        }
    }
});

// The end is reported while a message is held whose ports could not be taken.
alone!(ports_that_wait_outlive_the_end_of_their_carrier, || {
    drop(carrier(true));
    let before = count_descriptors();
    for has_lane in [true, false] {
        for taken in [true, false] {
            let MessageChannel { port1, port2 } = carrier(has_lane);
            let (mine, theirs) = channels(2);
            let mut theirs = theirs.into_iter();
            port1.post_bytes_with(b"", theirs.next().unwrap()).unwrap();
            let scarcity = Scarcity::new(0);
            let message = port2.recv().unwrap();
            expect_no_descriptor(message.take_port());
            drop(port1);
            expect_end(&port2, CloseReason::Closed);
            drop(scarcity);
            if taken {
                let theirs = message.take_port().unwrap().unwrap();
                drop(message);
                expect_entangled(&mine[0], &theirs);
            } else {
                drop(message);
                expect_end(&mine[0], CloseReason::Lost);
            }
            // The end was reported: line and lane have gone with the message.
            drop((mine, theirs));
            assert_eq!(count_descriptors(), before + 1);
        }
    }
    assert_eq!(count_descriptors(), before);
});

// ---- Full lanes ----

/// A queue that never grows, which has one lane; and one with as many as may wait one after the other, if
/// this process may have so many channels. With the number of lanes.
fn full_lanes() -> impl Iterator<Item = (Setup, usize)> {
    let setups = [(Setup::new().limit(0), 1), (Setup::new(), 16)];
    setups.into_iter().filter(|(_, lanes)| *lanes == 1 || fits(&(300 * lanes)))
}

/// Bytes of a socket's buffer, by default.
fn socket_buffer() -> u64 {
    let bytes = std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap();
    bytes.trim().parse().unwrap()
}

/// Posts messages with one port each until there is no room for another; gives what stays of each.
fn fill_lane(port: &MessagePort) -> Vec<MessagePort> {
    let mut staying = Vec::new();
    loop {
        let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
        match port.try_post_pod_with(&(staying.len() as u64), goes) {
            Ok(()) => staying.push(stays),
            Err(TransferError { list, source: PostError::Full { len: 8 }, .. }) => {
                expect_all_entangled(&[stays], &list.into_ports());
                return staying;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Receives messages with one port each; these talk to what has stayed.
fn expect_ports(port: &MessagePort, staying: &[MessagePort]) {
    for (number, stays) in (0u64..).zip(staying) {
        let message = port.recv().unwrap();
        assert_eq!(message.pod::<u64>().unwrap(), &number);
        expect_entangled(stays, &message.take_port().unwrap().unwrap());
    }
}

alone!(a_full_lane_refuses_and_hands_back, || {
    raise_descriptor_limit();
    for (setup, lanes) in full_lanes() {
        let MessageChannel { port1, port2 } = setup.capacity(1 << 20).open();
        for round in 0..3 {
            let staying = fill_lane(&port1);
            let count = staying.len();
            // 278 on each with the kernel's usual buffers.
            let least = if socket_buffer() < 212_992 { 100 } else { 250 };
            assert!((least * lanes..2000 * lanes).contains(&count), "{count} messages");
            // What has no ports finds room all the same, and so does the other direction.
            port1.post_bytes(b"no ports").unwrap();
            let (mine, theirs) = channels(1);
            port2.post_bytes_with(b"", theirs).unwrap();
            expect_all_entangled(&mine, &port1.recv().unwrap().take_all_ports().unwrap());

            let timeout = Duration::from_millis(20);
            let (start, (mine, theirs)) = (Instant::now(), channels(1));
            let refused = port1.post_bytes_with_timeout(b"late", theirs, timeout).unwrap_err();
            assert!(matches!(refused.source, PostError::Full { len: 4 }), "{refused}");
            assert!(start.elapsed() >= timeout);
            expect_all_entangled(&mine, &refused.list.into_ports());

            expect_ports(&port2, &staying);
            assert_eq!(port2.recv().unwrap().bytes(), b"no ports", "in round {round}");
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
        }
    }
});

/// A port that has posted, and what came of it.
type Posted = (MessagePort, Result<(), TransferError>);

/// Waits for room on a full lane in a thread of its own; gives the port back at the end.
fn wait_for_lane(port: MessagePort, strategy: WaitStrategy) -> (Vec<MessagePort>, Sleeper<Posted>) {
    let staying = fill_lane(&port);
    port.set_wait_strategy(strategy);
    let (mut mine, theirs) = channels(1);
    let sleeper = asleep(move || {
        let posted = port.post_bytes_with(b"late", theirs);
        (port, posted)
    });
    mine.extend(staying);
    mine.rotate_left(1);
    (mine, sleeper)
}

// One place is enough: the reader may do nothing more before it hears of the poster.
alone!(a_poster_wakes_for_the_first_place_on_a_full_lane, || {
    raise_descriptor_limit();
    for (setup, _) in full_lanes() {
        for strategy in [WaitStrategy::Adaptive, WaitStrategy::Sleep] {
            for is_dropped in [false, true] {
                let MessageChannel { port1, port2 } = setup.open();
                expect_first_place(port1, &port2, strategy, is_dropped);
            }
        }
    }
});

fn expect_first_place(
    port1: MessagePort,
    port2: &MessagePort,
    strategy: WaitStrategy,
    is_dropped: bool,
) {
    let (mut mine, sleeper) = wait_for_lane(port1, strategy);
    let message = port2.recv().unwrap();
    let last = mine.pop().unwrap();
    // Its room in the ring is not given back meanwhile.
    let taken = (!is_dropped).then(|| message.take_port().unwrap().unwrap());
    let held = (!is_dropped).then_some(message);
    let (_port1, posted) = sleeper.join();
    posted.unwrap();
    drop(held);
    match taken {
        Some(taken) => expect_entangled(&mine[0], &taken),
        None => expect_report(&mine[0], CloseReason::Lost),
    }
    let mut messages = port2.drain();
    for mine in mine[1..].iter().chain([&last]) {
        let message = messages.next().unwrap();
        expect_entangled(mine, &message.take_port().unwrap().unwrap());
    }
    assert!(messages.next().is_none());
}

/// The wait for room on a lane ended with the channel; the list came back.
fn expect_closed_while_waiting((port, posted): Posted, late: &MessagePort, reason: CloseReason) {
    let refused = posted.unwrap_err();
    assert!(matches!(refused.source, PostError::Closed(found) if found == reason), "{refused}");
    expect_entangled(late, &refused.list.into_ports()[0]);
    expect_end(&port, reason);
}

alone!(a_close_ends_the_wait_for_a_lane, || {
    raise_descriptor_limit();
    for (setup, _) in full_lanes() {
        for strategy in [WaitStrategy::Adaptive, WaitStrategy::Sleep] {
            for is_own in [false, true] {
                let MessageChannel { port1, port2 } = setup.open();
                expect_end_of_wait(port1, port2, strategy, is_own);
            }
        }
    }
});

fn expect_end_of_wait(
    port1: MessagePort,
    port2: MessagePort,
    strategy: WaitStrategy,
    is_own: bool,
) {
    let closer = if is_own { port1.closer() } else { port2.closer() };
    let (mut mine, sleeper) = wait_for_lane(port1, strategy);
    closer.close();
    let late = mine.pop().unwrap();
    expect_closed_while_waiting(sleeper.join(), &late, CloseReason::Closed);
    if !is_own {
        assert!(mine.iter().all(|port| port.peer_state() == PeerState::Open));
        expect_report(&port2, CloseReason::Closed);
    }
    drop(port2);
    for port in &mine {
        expect_report(port, CloseReason::Lost);
    }
}

mod a_death_ends_the_wait_for_a_lane {
    use super::*;

    doomed!(with_one_lane, Setup::new().limit(0), wait_and_kill, do_nothing);
    doomed!(with_many_lanes, Setup::new(), wait_on_many_and_kill, do_nothing);

    fn wait_on_many_and_kill(port: MessagePort, peer: Peer) {
        if full_lanes().count() > 1 {
            wait_and_kill(port, peer);
        }
    }

    fn wait_and_kill(port: MessagePort, mut peer: Peer) {
        raise_descriptor_limit();
        let (mut mine, sleeper) = wait_for_lane(port, WaitStrategy::Adaptive);
        peer.kill();
        let late = mine.pop().unwrap();
        expect_closed_while_waiting(sleeper.join(), &late, CloseReason::PeerDied);
        for port in &mine {
            expect_report(port, CloseReason::Lost);
        }
    }

    fn do_nothing(_port: MessagePort) {
        loop {
            std::thread::park();
        }
    }
}

mod more_messages_than_the_lane_holds {
    use super::*;

    // The reader is slower than the poster, who waits again and again, or goes on on a further lane.
    conversation!(with_one_lane, Setup::new().limit(0), post_ports, take_ports);
    conversation!(with_many_lanes, Setup::new(), post_ports, take_ports);

    fn post_ports(port: MessagePort) {
        let mine: Vec<_> = (0..1000u64)
            .map(|number| {
                let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
                port.post_pod_with(&number, goes).unwrap();
                stays
            })
            .enumerate()
            .filter_map(|(number, stays)| (number % 100 == 0).then_some((number, stays)))
            .collect();
        for (number, stays) in mine {
            assert_eq!(stays.recv().unwrap().pod::<u64>().unwrap(), &(number as u64));
        }
    }

    fn take_ports(port: MessagePort) {
        while let Ok(message) = port.recv() {
            let taken = message.take_port().unwrap().unwrap();
            // Most have no other end any more.
            let _ = taken.post_pod(message.pod::<u64>().unwrap());
        }
    }
}

// ---- S-127: the poster runs out of descriptors ----

fn expect_refused_for(posted: Result<(), TransferError>, errno: i32) -> Vec<MessagePort> {
    let TransferError { list, source, .. } = posted.unwrap_err();
    let PostError::Os(error) = &source else { panic!("{source}") };
    assert_eq!(error.raw_os_error(), Some(errno), "{source}");
    assert!(source.to_string().contains("RLIMIT_NOFILE"), "{source}");
    list.into_ports()
}

// A lane takes two descriptors, of which one stays, and so does an envelope; a message on a lane takes none.
alone!(a_poster_without_descriptors_gets_its_ports_back, || {
    raise_descriptor_limit();
    for (has_lane, count, needed) in [(false, 1, 2), (true, 1, 0), (true, 127, 2), (false, 127, 3)]
    {
        for free in 0..=needed {
            let MessageChannel { port1, port2 } = carrier(has_lane);
            let (mine, theirs) = channels(count);
            mine[0].post_bytes(b"unread").unwrap();
            let scarcity = Scarcity::new(free);
            let mut posted = port1.try_post_bytes_with(b"ports", theirs);
            if free < needed {
                let back = expect_refused_for(posted, libc::EMFILE);
                assert_eq!(back.len(), count);
                expect_all_entangled(&mine[1..], &back[1..]);
                // Nothing was posted, and what has no ports can be.
                port1.post_bytes(b"no ports").unwrap();
                assert_eq!(port2.recv().unwrap().bytes(), b"no ports");
                assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
                drop(scarcity);
                posted = port1.try_post_bytes_with(b"ports", back);
            } else {
                drop(scarcity);
            }
            posted.unwrap();
            let theirs = port2.recv().unwrap().take_all_ports().unwrap();
            assert_eq!(theirs[0].recv().unwrap().bytes(), b"unread");
            expect_all_entangled(&mine, &theirs);
        }
    }
});

/// Makes this thread an ordinary user's, who has nothing in flight but what it sends.
fn be_an_ordinary_user() {
    if geteuid().is_root() {
        set_thread_uid(Uid::from_raw(1_000_000_000 + getpid().as_raw_nonzero().get() as u32))
            .unwrap();
    }
}

/// Both ends of so many channels.
fn pairs(count: usize) -> Vec<MessagePort> {
    let both = |MessageChannel { port1, port2 }| [port1, port2];
    (0..count).flat_map(|_| both(MessageChannel::new().unwrap())).collect()
}

fn expect_pairs(ports: &[MessagePort]) {
    ports.chunks_exact(2).for_each(|pair| expect_entangled(&pair[0], &pair[1]));
}

// What one user may have in flight is bounded by the limit of descriptors; root is exempt.
alone!(an_ordinary_user_with_too_much_in_flight_gets_the_ports_back, || {
    const LIMIT: usize = 64;
    raise_descriptor_limit();
    be_an_ordinary_user();
    let MessageChannel { port1, port2 } = carrier(true);
    let MessageChannel { port1: fresh1, port2: fresh2 } = carrier(false);
    lower_descriptor_limit(LIMIT as u64);
    let mut posted = 0;
    let refused = loop {
        // Four descriptors, and none of them stays here.
        match port1.post_bytes_with(b"both ends", pairs(1)) {
            Ok(()) => posted += 1,
            refused => break refused,
        }
    };
    assert!(posted <= LIMIT / 4 + 1, "{posted} messages");
    let back = expect_refused_for(refused, libc::ETOOMANYREFS);
    assert_eq!(back.len(), 2);
    expect_pairs(&back);
    // Not even a lane can be sent; but what has no ports can.
    let back = expect_refused_for(fresh1.post_bytes_with(b"", back), libc::ETOOMANYREFS);
    fresh1.post_bytes(b"no ports").unwrap();
    assert_eq!(fresh2.recv().unwrap().bytes(), b"no ports");

    for _ in 0..posted {
        expect_pairs(&port2.recv().unwrap().take_all_ports().unwrap());
    }
    let mut list = Some(back);
    // Others of this user may have much in flight.
    wait_until("it can be sent", || match fresh1.post_bytes_with(b"", list.take().unwrap()) {
        Ok(()) => true,
        refused => {
            list = Some(expect_refused_for(refused, libc::ETOOMANYREFS));
            false
        }
    });
    expect_pairs(&fresh2.recv().unwrap().take_all_ports().unwrap());
});

// Refused when an envelope is half full: so are all of its ports.
alone!(an_ordinary_user_gets_the_ports_of_an_envelope_back, || {
    const PAIRS: usize = 100;
    raise_descriptor_limit();
    be_an_ordinary_user();
    let MessageChannel { port1, port2 } = carrier(true);
    port1.post_bytes_with(b"first", pairs(PAIRS)).unwrap();
    let second = pairs(PAIRS);
    // The first has four for each pair; the second may have one packet more, and not all.
    lower_descriptor_limit(6 * PAIRS as u64);
    let back = expect_refused_for(port1.post_bytes_with(b"", second), libc::ETOOMANYREFS);
    assert_eq!(back.len(), 2 * PAIRS);
    expect_pairs(&back);
    raise_descriptor_limit();

    for posted in [&b"first"[..], b"second"] {
        let message = port2.recv().unwrap();
        assert_eq!(message.bytes(), posted);
        let ports = message.take_all_ports().unwrap();
        assert_eq!(ports.len(), 2 * PAIRS);
        expect_pairs(&ports);
        if posted == b"first" {
            port1.post_bytes_with(b"second", pairs(PAIRS)).unwrap();
        }
    }
});
