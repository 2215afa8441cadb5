//! Memory of a large payload that the reader has kept is not sent again: nobody needs a descriptor for it. It
//! goes along when the reader moves, with what was posted meanwhile; and it does not stay for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod ends;
mod queues;
mod scarcity;
mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ends::{expect_end, expect_post_closed, expect_report};
use queues::{long_pattern, open};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use scarcity::Scarcity;
use support::{
    Peer, Setup, alone, conversation, count_descriptors, doomed, raise_descriptor_limit, test_name,
    wait_until, with_process,
};
use zeroport::{
    AttachError, Buffer, ChannelOptions, CloseReason, MessagePort, PortSet, RecvError, Trust,
};

const OPTIONS: ChannelOptions = ChannelOptions::new();
const LEN: usize = 1 << 20;
/// As many payloads as a poster uses memory for in turn, and more.
const ROUND: u64 = 20;
/// Where a ticket says how many blocks come with it (`src/ticket.rs`).
const BLOCKS_IN_TICKET: usize = 7;

fn post(port: &MessagePort, number: u64) {
    port.post_bytes(&long_pattern(number, LEN)).unwrap();
}

fn expect(port: &MessagePort, number: u64) {
    let message = port.recv().unwrap();
    assert!(message.bytes() == long_pattern(number, LEN), "number {number}");
}

/// Has the reader keep what the poster uses.
fn warm_up(poster: &MessagePort, reader: &MessagePort) {
    for number in 0..ROUND {
        post(poster, number);
        expect(reader, number);
    }
}

alone!(no_descriptor_is_needed, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    {
        let _scarcity = Scarcity::new(0);
        for number in 0..ROUND {
            post(&port1, number);
            expect(&port2, number);
        }
        // Some lie there, and the reader holds others.
        let held: Vec<_> = (0..3)
            .map(|number| {
                post(&port1, number);
                port2.recv().unwrap()
            })
            .collect();
        for number in 3..6 {
            post(&port1, number);
        }
        for (number, message) in held.iter().enumerate() {
            assert!(message.bytes() == long_pattern(number as u64, LEN));
        }
        drop(held);
        (3..6).for_each(|number| expect(&port2, number));
    }
    // A buffer beside it has to be sent, and its payload is sent with it.
    let text = Buffer::from_slice(b"beside").unwrap();
    port1.post_bytes_with(&long_pattern(1, LEN), text).unwrap();
    let message = port2.recv().unwrap();
    assert!(message.bytes() == long_pattern(1, LEN));
    assert_eq!(message.take_buffer().unwrap().unwrap()[..], *b"beside");
    drop(message);
    let _scarcity = Scarcity::new(0);
    for number in 0..ROUND {
        post(&port1, number);
        expect(&port2, number);
    }
});

alone!(who_is_not_trusted_gets_a_fresh_one_each_time, || {
    raise_descriptor_limit();
    for options in [OPTIONS.trust(Trust::Untrusted), OPTIONS.warm(false)] {
        let (port1, port2) = open(options);
        warm_up(&port1, &port2);
        post(&port1, 0);
        let scarcity = Scarcity::new(0);
        assert_eq!(port2.try_recv().map(drop), Err(RecvError::Os { errno: libc::EMFILE }));
        drop(scarcity);
        expect(&port2, 0);
    }
});

/// A channel that has its lane already, which stays: from then on only blocks take and free descriptors.
fn open_with_lane() -> (MessagePort, MessagePort) {
    let (port1, port2) = open(OPTIONS);
    port1.post_bytes_with(b"", Buffer::new(1).unwrap()).unwrap();
    drop(port2.recv().unwrap().take_buffer().unwrap());
    (port1, port2)
}

alone!(what_is_kept_goes_when_it_is_not_used, || {
    raise_descriptor_limit();
    let (port1, port2) = open_with_lane();
    let before = count_descriptors();
    warm_up(&port1, &port2);
    let kept = count_descriptors();
    assert!(kept > before);
    // The poster keeps its own.
    wait_until("the reader has let go", || {
        assert_eq!(port2.recv_timeout(Duration::from_millis(1)).map(drop), Err(RecvError::Empty));
        count_descriptors() - before <= (kept - before) / 2
    });
    warm_up(&port1, &port2);
    assert_eq!(count_descriptors(), kept);
    drop((port1, port2));
    zeroport::trim();
    assert!(count_descriptors() < before);
});

alone!(a_block_that_was_not_sent_after_all_can_be_forgotten, || {
    raise_descriptor_limit();
    let (port1, port2) = open_with_lane();
    let before = count_descriptors();
    warm_up(&port1, &port2);
    let kept = count_descriptors() - before;
    // Reserved in memory that the reader has kept, and given up: the poster has less of it then.
    for _ in 0..ROUND {
        drop(port1.reserve(LEN).unwrap());
    }
    wait_until("the reader has none", || {
        assert_eq!(port2.recv_timeout(Duration::from_millis(1)).map(drop), Err(RecvError::Empty));
        count_descriptors() - before < kept / 2
    });
    warm_up(&port1, &port2);
});

// The reader moves, there and back, with payloads unread in memory that it has kept.
conversation!(
    the_reader_moves,
    |carrier: MessagePort| {
        let (port1, mut port2) = open(OPTIONS);
        for hop in 0..4 {
            warm_up(&port1, &port2);
            (0..5).for_each(|number| post(&port1, hop + number));
            carrier.post_bytes_with(b"there", port2).unwrap();
            [port2] = carrier.recv().unwrap().take_ports().unwrap();
            // What the peer has left, and what it was kept in.
            (5..10).for_each(|number| post(&port1, hop + number));
            (3..10).for_each(|number| expect(&port2, hop + number));
        }
        drop(port1);
        expect_end(&port2, CloseReason::Closed);
    },
    |carrier: MessagePort| {
        for hop in 0..4 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            (0..3).for_each(|number| expect(&port, hop + number));
            carrier.post_bytes_with(b"back", port).unwrap();
        }
    },
);

alone!(a_reader_that_has_moved_needs_no_descriptor, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    let (carrier1, carrier2) = open(OPTIONS);
    warm_up(&port1, &port2);
    (0..5).for_each(|number| post(&port1, number));
    carrier1.post_bytes_with(b"", port2).unwrap();
    let [port2] = carrier2.recv().unwrap().take_ports().unwrap();
    let _scarcity = Scarcity::new(0);
    (0..5).for_each(|number| expect(&port2, number));
    // What they were in is kept here now.
    for number in 0..ROUND {
        post(&port1, number);
        expect(&port2, number);
    }
});

// The poster moves: its next holder makes memory of its own, and the reader keeps that instead.
conversation!(
    the_poster_moves,
    |carrier: MessagePort| {
        let (mut port1, port2) = open(OPTIONS);
        for hop in 0..4 {
            (0..ROUND).for_each(|number| {
                post(&port1, hop + number);
                expect(&port2, hop + number);
            });
            post(&port1, hop);
            carrier.post_bytes_with(b"there", port1).unwrap();
            [port1] = carrier.recv().unwrap().take_ports().unwrap();
            (0..5).for_each(|number| expect(&port2, hop + number));
        }
    },
    |carrier: MessagePort| {
        for hop in 0..4 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            (1..5).for_each(|number| post(&port, hop + number));
            carrier.post_bytes_with(b"back", port).unwrap();
        }
    },
);

// ---- trust that is lost on the way ----

// What a former holder has kept may be named: who does not trust the poster has it copied.
#[test]
fn a_reader_that_comes_to_trust_nobody_reads_what_is_named() {
    let host = |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        assert_eq!(port.trust(), Trust::Untrusted);
        for number in 0..3 * ROUND {
            expect(&port, number);
            port.post_bytes(b"read").unwrap();
        }
        expect_report(&port, CloseReason::Closed);
    };
    let child = |carrier: MessagePort| {
        let (port1, port2) = open(OPTIONS);
        warm_up(&port1, &port2);
        // Some are named already, some may be named still.
        (0..3).for_each(|number| post(&port1, number));
        let loan = port1.reserve(LEN).unwrap();
        carrier.post_bytes_with(b"yours", port2).unwrap();
        drop(loan);
        for number in 3..3 * ROUND {
            assert_eq!(port1.recv().unwrap().bytes(), b"read");
            post(&port1, number);
        }
        (0..3).for_each(|_| assert_eq!(port1.recv().unwrap().bytes(), b"read"));
    };
    let test = test_name(concat!(
        module_path!(),
        "::a_reader_that_comes_to_trust_nobody_reads_what_is_named"
    ));
    // A child that trusts its parent, who does not trust it.
    with_process(test, Setup::new().untrusted(), host, child);
}

// ---- a forked child, and other threads ----

/// A reader that waits so long in vain forgets what it has kept.
fn expect_nothing_for_long(port: &MessagePort) {
    let nothing = port.recv_timeout(Duration::from_millis(300)).map(drop);
    assert_eq!(nothing, Err(RecvError::Empty));
}

/// Runs something in a forked child.
fn fork(body: impl FnOnce()) {
    // SAFETY: the child runs `body`, and nothing else of this process.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        body();
        // SAFETY: ends the child, without the harness's own end.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child, and writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child");
}

alone!(a_forked_child_takes_no_block_from_its_parent, || {
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    let mut loan = Some(port1.reserve(LEN).unwrap());
    loan.as_mut().unwrap().copy_from_slice(&long_pattern(3, LEN));
    fork(|| drop(loan.take()));
    expect_nothing_for_long(&port2);
    let mut loan = loan.unwrap();
    assert!(loan[..] == long_pattern(3, LEN));
    fork(|| {
        loan.fill(9);
    });
    loan.copy_from_slice(&long_pattern(3, LEN));
    loan.publish(LEN).unwrap();
    expect(&port2, 3);
});

alone!(a_child_that_was_forked_before_takes_no_block_from_its_parent, || {
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    let (told, mut tell) = std::io::pipe().unwrap();
    let mut ports = Some((port1, port2));
    // SAFETY: the child waits, drops its copies, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let _ = (&told).read(&mut [0]);
        drop(ports.take());
        // SAFETY: ends the child, without the harness's own end.
        unsafe { libc::_exit(0) };
    }
    let (port1, port2) = ports.unwrap();
    let mut loan = port1.reserve(LEN).unwrap();
    loan.copy_from_slice(&long_pattern(3, LEN));
    tell.write_all(b"!").unwrap();
    let mut status = 0;
    // SAFETY: waits for the child, and writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child");
    expect_nothing_for_long(&port2);
    loan.publish(LEN).unwrap();
    expect(&port2, 3);
});

// A post that has said that all is well is delivered, also if a closer comes in between.
#[test]
fn a_post_that_a_closer_overtakes_is_refused_or_delivered() {
    const ROUNDS: u32 = 30;
    let bytes = long_pattern(1, 16 * LEN);
    let mut posted = 0;
    for round in 0..ROUNDS {
        let (port1, port2) = open(OPTIONS);
        let mut took = Duration::ZERO;
        for _ in 0..4 {
            let start = Instant::now();
            port1.post_bytes(&bytes).unwrap();
            took = start.elapsed();
            assert_eq!(port2.recv().unwrap().bytes().len(), bytes.len());
        }
        let closer = port1.closer();
        let (tell, told) = mpsc::channel();
        let closing = thread::spawn(move || {
            told.recv().unwrap();
            // At any time of the post.
            thread::sleep(took * round / ROUNDS);
            closer.close();
        });
        let reading = thread::spawn(move || std::iter::from_fn(|| port2.recv().ok()).count());
        tell.send(()).unwrap();
        let is_posted = port1.post_bytes(&bytes).is_ok();
        closing.join().unwrap();
        assert_eq!(reading.join().unwrap(), usize::from(is_posted), "round {round}");
        posted += u32::from(is_posted);
    }
    assert!(posted < ROUNDS, "some were refused");
}

// ---- what is kept while it is used, and goes when it is not ----

alone!(what_is_used_stays, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    let kept = count_descriptors();
    let start = Instant::now();
    // Longer than what is not used is kept.
    while start.elapsed() < Duration::from_millis(500) {
        post(&port1, 1);
        expect(&port2, 1);
        assert_eq!(port2.try_recv().map(drop), Err(RecvError::Empty));
        assert_eq!(count_descriptors(), kept);
    }
});

alone!(what_is_used_stays_in_a_set, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    let mut set = PortSet::new().unwrap();
    set.insert((), port2).unwrap();
    let kept = count_descriptors();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        post(&port1, 1);
        assert_eq!(set.wait().unwrap().count(), 1);
        assert_eq!(set.wait_timeout(Duration::from_millis(1)).unwrap().count(), 0);
        assert_eq!(count_descriptors(), kept);
    }
    wait_until("the set has let go", || {
        assert_eq!(set.wait_timeout(Duration::from_millis(10)).unwrap().count(), 0);
        count_descriptors() <= kept - 8
    });
});

alone!(what_the_poster_had_claimed_goes_later, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    let before = count_descriptors();
    for is_published in [false, true] {
        warm_up(&port1, &port2);
        let kept = count_descriptors() - before;
        let loan = port1.reserve(LEN).unwrap();
        // All go but the one that is lent.
        expect_nothing_for_long(&port2);
        if is_published {
            loan.publish(LEN).unwrap();
            assert_eq!(port2.recv().unwrap().bytes().len(), LEN);
        } else {
            drop(loan);
        }
        wait_until("the reader has none", || {
            let nothing = port2.recv_timeout(Duration::from_millis(1)).map(drop);
            assert_eq!(nothing, Err(RecvError::Empty));
            // The lane and its end are there too.
            count_descriptors() - before <= 2 + (kept - 2) / 2
        });
    }
});

alone!(who_has_no_descriptor_forgets_what_is_kept, || {
    raise_descriptor_limit();
    let (port1, port2) = open(OPTIONS);
    warm_up(&port1, &port2);
    // Longer than any that is kept.
    port1.post_bytes(&long_pattern(1, 9 * LEN)).unwrap();
    let _scarcity = Scarcity::new(0);
    assert!(port2.recv().unwrap().bytes() == long_pattern(1, 9 * LEN));
});

// ---- tickets that lie ----

alone!(a_ticket_with_strange_blocks_is_none, || {
    let pages = |len: u64, seals: bool| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(c"zeroport", flags).unwrap();
        ftruncate(&file, len).unwrap();
        if seals {
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&file, seals).unwrap();
        }
        file
    };
    let with = |blocks: Vec<OwnedFd>, told: u8| {
        let (port1, port2) = open(OPTIONS);
        // SAFETY: nobody else gets them.
        let mut parts = unsafe { port2.into_descriptors_trusted() }.unwrap();
        parts.descriptors.extend(blocks);
        parts.ticket[BLOCKS_IN_TICKET] = told;
        // SAFETY: both ends are this test's.
        let adopted =
            unsafe { MessagePort::from_descriptors_trusted(&parts.ticket, parts.descriptors) };
        adopted.map(|port2| (port1, port2))
    };
    let (reader, _writer) = std::io::pipe().unwrap();
    let strange = [pages(8192, false), pages(0, true), pages(8191, true), reader.into()];
    for block in strange {
        assert!(matches!(with(vec![block], 1), Err(AttachError::NotAPort)));
    }
    assert!(matches!(with(vec![], 1), Err(AttachError::NotAPort)));
    let seventeen = (0..17).map(|_| pages(8192, true)).collect();
    assert!(matches!(with(seventeen, 17), Err(AttachError::NotAPort)));
    // As long as files can be: nobody names them, and the channel works.
    let longest = (0..3).map(|_| pages(i64::MAX as u64 / 4096 * 4096, true)).collect();
    let (port1, port2) = with(longest, 3).unwrap();
    warm_up(&port1, &port2);
});

doomed!(
    what_a_killed_poster_has_named_is_read,
    |carrier: MessagePort, mut peer: Peer| {
        let (port1, port2) = open(OPTIONS);
        carrier.post_bytes_with(b"yours", port2).unwrap();
        (0..ROUND).for_each(|number| expect(&port1, number));
        carrier.post_bytes(b"all were read").unwrap();
        assert_eq!(carrier.recv().unwrap().bytes(), b"more lie there");
        peer.kill();
        (0..5).for_each(|number| expect(&port1, number));
        expect_end(&port1, CloseReason::PeerDied);
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (0..ROUND).for_each(|number| post(&port, number));
        drop(carrier.recv().unwrap());
        (0..5).for_each(|number| post(&port, number));
        carrier.post_bytes(b"more lie there").unwrap();
        let _ = carrier.recv();
    },
);

doomed!(
    a_killed_reader_leaves_the_poster_an_end,
    |carrier: MessagePort, mut peer: Peer| {
        let (port1, port2) = open(OPTIONS);
        carrier.post_bytes_with(b"yours", port2).unwrap();
        (0..ROUND).for_each(|number| post(&port1, number));
        assert_eq!(carrier.recv().unwrap().bytes(), b"all were read");
        (0..3).for_each(|number| post(&port1, number));
        peer.kill();
        expect_report(&port1, CloseReason::PeerDied);
        expect_post_closed(port1.post_bytes(&long_pattern(0, LEN)), CloseReason::PeerDied);
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (0..ROUND).for_each(|number| expect(&port, number));
        carrier.post_bytes(b"all were read").unwrap();
        let _ = carrier.recv();
    },
);
