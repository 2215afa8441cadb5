//! A hostile other side: it writes whatever it likes into the segment and onto the line, at any time.
//! Nothing panics, hangs or reads out of bounds; a broken ring closes its channel, and no other.
//!
//! The tests hold both ends. They play the other side through the descriptors that it has: the
//! segment's memory as a file, and its end of the line. Offsets are those drawn in `src/layout.rs`.
//! Each test has a process of its own, so that nobody else's descriptors come and go.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod ends;
mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ends::{expect_end, expect_post_closed};
use rustix::fs::FallocateFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, send, sendmsg};
use support::{Setup, alone, asleep, count_descriptors, in_all_ways, in_thread, with_watchdog};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{
    CloseReason, EventLoop, MessageChannel, MessagePort, PeerState, PostError, RecvError,
};

const CAPACITY: u64 = 4096;
const SMALL: Setup = Setup::new().capacity(CAPACITY);
/// A queue that does not grow.
const FIXED: Setup = SMALL.limit(0);
const MESSAGE: u64 = 1 << 32;
const FILLER: u64 = 2 << 32;
const LINK: u64 = 3 << 32;

/// Words of the hostile side (0) and of its victim (1).
const HOSTILE_EPOCH: u64 = 0x80;
const HOSTILE_WAKES: u64 = 0x88;
const VICTIM_EPOCH: u64 = 0x100;
const VICTIM_WAKES: u64 = 0x108;
/// Up to where the hostile side has given back the room of what the victim posted; bytes outside the ring
/// that it has let go; and lanes that it has come to.
const HOSTILE_RELEASED: u64 = 0x200;
const HOSTILE_LET_GO: u64 = 0x208;
const HOSTILE_LANES: u64 = 0x210;
/// Where the ring begins that the victim reads.
const RING: u64 = 0x1000;

/// One channel: the victim's port, and all that the other side has.
struct Channel {
    victim: MessagePort,
    /// The other side's port, for as long as it keeps to the protocol.
    hostile: MessagePort,
    segment: File,
    line: OwnedFd,
    victims_line: RawFd,
}

impl Channel {
    fn open(setup: Setup) -> Self {
        // A segment of an earlier channel would not be a new descriptor.
        zeroport::trim();
        let before = descriptors("");
        let MessageChannel { port1: hostile, port2: victim } = setup.open();
        let memfds: Vec<_> = descriptors("zeroport").difference(&before).copied().collect();
        let lines: Vec<_> = descriptors("socket:").difference(&before).copied().collect();
        let ([memfd], [line, victims_line]) = (&memfds[..], &lines[..]) else {
            panic!("a channel is one segment and one line, not {memfds:?} and {lines:?}");
        };
        let path = format!("/proc/self/fd/{memfd}");
        let segment = File::options().read(true).write(true).open(path).expect("the segment");
        // SAFETY: `hostile` keeps it open.
        let line = unsafe { BorrowedFd::borrow_raw(*line) };
        let line = line.try_clone_to_owned().expect("a copy of the line's end");
        Self { victim, hostile, segment, line, victims_line: *victims_line }
    }

    /// Writes a word of the segment, all of its eight bytes at once.
    fn write(&self, offset: u64, word: u64) {
        self.segment.write_all_at(&word.to_le_bytes(), offset).expect("a word of the segment");
    }

    fn send(&self, packet: &[u8]) {
        // A full line is as good.
        let _ = send(&self.line, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Brings the ring that the victim reads to a position of which everything is received.
    fn advance(&self, to: u64) {
        for _ in 0..to / 64 {
            self.hostile.post_bytes(&[1; 48]).unwrap();
            assert_eq!(self.victim.recv().unwrap().bytes(), [1; 48]);
        }
    }

    /// The victim has found out, says so for ever, and the other side learns of it.
    fn expect_violated(&self) {
        expect_end(&self.victim, CloseReason::Violated);
        expect_some_end(&self.hostile);
    }
}

/// The other side learns of the end too, after what the victim had posted.
fn expect_some_end(port: &MessagePort) {
    assert_ne!(port.peer_state(), PeerState::Open);
    port.drain().for_each(drop);
    assert!(matches!(port.recv(), Err(RecvError::Closed(_))));
}

/// Open descriptors whose name contains this.
fn descriptors(name: &str) -> BTreeSet<RawFd> {
    let list = std::fs::read_dir("/proc/self/fd").expect("the list of descriptors");
    list.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        // The directory that is being read is a descriptor too.
        let target = target.to_str()?;
        (target.contains(name) && !target.ends_with("/fd")).then_some(number)
    })
    .collect()
}

type Receive = fn(&MessagePort) -> Result<usize, RecvError>;
type Post = fn(&MessagePort) -> Result<(), PostError>;

/// The ways to receive; each must find out on its own.
const RECEIVE: [Receive; 4] = [
    |port| port.recv().map(|message| message.bytes().len()),
    |port| port.try_recv().map(|message| message.bytes().len()),
    |port| port.recv_timeout(Duration::from_secs(60)).map(|message| message.bytes().len()),
    |port| {
        let drained = port.drain().map(|message| message.bytes().len()).next();
        drained.map_or_else(|| port.recv().map(|message| message.bytes().len()), Ok)
    },
];

// S-124: heads that no poster writes, at the start of the ring.
alone!(a_broken_head_closes_the_channel, || {
    with_watchdog(|| {
        let bystander = MessageChannel::new().unwrap();
        let max = CAPACITY / 2 - 32;
        let broken = [
            5,
            LINK,
            LINK | 1,
            LINK | 1 << 40,
            LINK | 4 << 40,
            LINK | 1 << 48,
            4 << 32,
            0xff << 32,
            MESSAGE | (max + 1),
            MESSAGE | 0xffff_ffff,
            MESSAGE | 1 << 40,
            MESSAGE | 1 << 40 | 15,
            MESSAGE | 4 << 40,
            MESSAGE | 0x80 << 40,
            MESSAGE | 1025 << 48,
            MESSAGE | 1 << 63,
            FILLER,
            FILLER | 1,
            FILLER | 1 << 40,
            1 << 63,
            u64::MAX,
        ];
        for head in broken {
            for receive in RECEIVE {
                for setup in [SMALL, SMALL.untrusted()] {
                    let channel = Channel::open(setup);
                    channel.write(RING, head);
                    let received = receive(&channel.victim);
                    assert_eq!(
                        received,
                        Err(RecvError::Closed(CloseReason::Violated)),
                        "{head:#x}"
                    );
                    channel.expect_violated();
                }
            }
        }
        bystander.port1.post_bytes(b"as ever").unwrap();
        assert_eq!(bystander.port2.recv().unwrap().bytes(), b"as ever");
    });
});

// S-124: where the lap ends. What was posted before the broken place is delivered.
alone!(a_broken_lap_closes_the_channel, || {
    with_watchdog(|| {
        let last = CAPACITY - 64;
        // The word at the last place of the lap, the one at its start, and what the victim finds.
        let broken = [
            (MESSAGE | 49, 0),
            (MESSAGE | 100, 0),
            (FILLER, 0),
            (FILLER, FILLER),
            (FILLER, 7 << 32),
            (FILLER, MESSAGE | 0x10000),
            (FILLER | 16, MESSAGE | 16),
        ];
        for (at_end, at_start) in broken {
            for receive in RECEIVE {
                let channel = Channel::open(SMALL);
                channel.advance(last - 64);
                channel.hostile.post_bytes(&[2; 48]).unwrap();
                channel.write(RING, at_start);
                channel.write(RING + last, at_end);
                assert_eq!(channel.victim.recv().unwrap().bytes(), [2; 48]);
                let received = receive(&channel.victim);
                assert_eq!(
                    received,
                    Err(RecvError::Closed(CloseReason::Violated)),
                    "{at_end:#x}, {at_start:#x}"
                );
                channel.expect_violated();
            }
        }
        // The same by the rules is a message: it is the words that are wrong above, not the place.
        for (at_end, at_start, len) in [(MESSAGE | 48, 0, 48), (FILLER, MESSAGE | 100, 100)] {
            let channel = Channel::open(SMALL);
            channel.advance(last);
            channel.write(RING, at_start);
            channel.write(RING + last, at_end);
            assert_eq!(channel.victim.recv().unwrap().bytes().len(), len);
            assert_eq!(channel.victim.peer_state(), PeerState::Open);
        }
    });
});

// A reader that is asleep when the ring breaks finds out when it is woken.
alone!(a_sleeping_reader_finds_out, || {
    with_watchdog(|| {
        for strategy in [Spin, Adaptive, Sleep] {
            let channel = Channel::open(SMALL.strategy(strategy));
            let Channel { victim, hostile, segment, line, .. } = channel;
            let reader = in_thread("the victim", move || {
                expect_end(&victim, CloseReason::Violated);
            });
            segment.write_all_at(&u64::MAX.to_le_bytes(), RING).unwrap();
            // It may have seen it, and have hung up, already.
            let _ = send(&line, &[0], SendFlags::NOSIGNAL);
            reader.join(Instant::now() + Duration::from_secs(60));
            expect_some_end(&hostile);
        }
    });
});

const OPEN: u64 = 1 << 2 | 1;
const CLOSED: u64 = 2 << 2 | 3;

// S-045: the other side says closed, but wakes nobody; a half that was told can still wake the other.
alone!(a_half_that_was_told_of_the_end_wakes_the_other, || {
    with_watchdog(|| {
        let channel = Channel::open(SMALL.strategy(Sleep));
        channel.write(HOSTILE_EPOCH, OPEN);
        let Channel { victim, hostile: _hostile, segment, line: _line, .. } = channel;
        let (sender, receiver) = victim.split();
        let waiting = asleep(move || receiver.recv().map(drop));
        segment.write_all_at(&CLOSED.to_le_bytes(), HOSTILE_EPOCH).unwrap();
        expect_post_closed(sender.post_bytes(b"late"), CloseReason::Closed);
        sender.close();
        assert_eq!(waiting.join(), Err(RecvError::Closed(CloseReason::Closed)));
    });
});

// S-060: what has ended stays so, though the other side says that it is open again.
alone!(an_end_is_for_ever, || {
    const POST: [Post; 3] = [
        |port| port.try_post_bytes(&[1; 48]),
        |port| port.post_bytes(&[1; 48]),
        |port| port.reserve(48).map(drop),
    ];
    for is_full in [false, true] {
        let channel = Channel::open(SMALL);
        if is_full {
            fill(&channel.victim);
        }
        channel.write(HOSTILE_EPOCH, CLOSED);
        expect_post_closed(channel.victim.post_bytes(b"late"), CloseReason::Closed);
        channel.write(HOSTILE_EPOCH, OPEN);
        for post in POST {
            assert!(matches!(post(&channel.victim), Err(PostError::Closed(_))));
            assert_ne!(channel.victim.peer_state(), PeerState::Open);
        }
        assert!(matches!(channel.victim.recv(), Err(RecvError::Closed(_))));
    }
});

// S-124: room given back that was never used, or again, or crooked.
alone!(a_broken_released_position_closes_the_channel, || {
    const POST: [Post; 5] = [
        |port| port.try_post_bytes(&[1; 48]),
        |port| port.post_bytes(&[1; 48]),
        |port| port.post_bytes_timeout(&[1; 48], Duration::from_secs(60)),
        |port| port.reserve(48).map(drop),
        |port| port.try_post(&String::from("a value that is longer than what is left of the ring")),
    ];
    with_watchdog(|| {
        for post in POST {
            // Ahead of all that was posted, crooked, behind what was given back before.
            for released in [u64::MAX, 1 << 40, 2 * CAPACITY, 8, CAPACITY / 2 + 1, 0, 16] {
                let channel = Channel::open(FIXED);
                fill(&channel.victim);
                assert_eq!(channel.hostile.drain().count(), 63);
                fill(&channel.victim);
                channel.write(HOSTILE_RELEASED, released);
                expect_post_closed(post(&channel.victim), CloseReason::Violated);
                channel.expect_violated();
            }
        }
    });
});

fn fill(port: &MessagePort) {
    while port.try_post_bytes(&[1; 48]).is_ok() {}
    assert!(matches!(port.try_post_bytes(&[1; 48]), Err(PostError::Full { len: 48 })));
}

// S-124: bytes let go that were never sent, or fewer than before.
alone!(a_broken_account_closes_the_channel, || {
    const GROWING: Setup = SMALL.limit(64 << 10);
    const POST: [Post; 4] = [
        |port| port.try_post_bytes(&[1; 48]),
        |port| port.post_bytes(&[1; 48]),
        |port| port.post_bytes(&[1; 5000]),
        |port| port.reserve(48).map(drop),
    ];
    with_watchdog(|| {
        for post in POST {
            for let_go in [u64::MAX, 1 << 40, 1 << 20, 0] {
                let channel = Channel::open(GROWING);
                // The reader lets all go but the last ring, and then the poster asks once.
                fill(&channel.victim);
                assert!(channel.hostile.drain().count() > 4096 / 64);
                fill(&channel.victim);
                channel.write(HOSTILE_LET_GO, let_go);
                expect_post_closed(post(&channel.victim), CloseReason::Violated);
                channel.expect_violated();
            }
        }
    });
});

// Lanes that the reader has not come to are the poster's own business: a number that lies closes nothing.
alone!(a_broken_count_of_lanes_holds_nobody, || {
    with_watchdog(|| {
        for lanes in [1, 16, 17, u64::from(u32::MAX), u64::MAX] {
            let channel = Channel::open(SMALL);
            channel.write(HOSTILE_LANES, lanes);
            for _ in 0..3 {
                let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
                channel.victim.try_post_bytes_with(b"a port", port1).unwrap();
                let message = channel.hostile.recv().unwrap();
                let [port1] = message.take_ports().unwrap();
                port1.post_bytes(b"here").unwrap();
                assert_eq!(port2.recv().unwrap().bytes(), b"here");
            }
            assert_eq!(channel.victim.peer_state(), PeerState::Open);
        }
    });
});

alone!(a_waiting_poster_finds_out, || {
    with_watchdog(|| {
        for strategy in [Spin, Adaptive, Sleep] {
            let at_the_limit = SMALL.limit(64 << 10);
            for (setup, place, word) in
                [(FIXED, HOSTILE_RELEASED, 7u64), (at_the_limit, HOSTILE_LET_GO, u64::MAX)]
            {
                let channel = Channel::open(setup.strategy(strategy));
                fill(&channel.victim);
                let Channel { victim, hostile, segment, line, .. } = channel;
                let poster = in_thread("the victim", move || {
                    expect_post_closed(victim.post_bytes(&[1; 48]), CloseReason::Violated);
                    expect_end(&victim, CloseReason::Violated);
                });
                segment.write_all_at(&word.to_le_bytes(), place).unwrap();
                // It may have seen it, and have hung up, already.
                let _ = send(&line, &[0], SendFlags::NOSIGNAL);
                poster.join(Instant::now() + Duration::from_secs(60));
                expect_some_end(&hostile);
            }
        }
    });
});

// Whatever the epoch says: what was posted comes first, then a reason that fits.
alone!(any_epoch_is_an_answer, || {
    with_watchdog(|| {
        let ends = [
            (0, CloseReason::Violated),
            (!3, CloseReason::Violated),
            (7 << 2, CloseReason::Violated),
            (3, CloseReason::Closed),
            (u64::MAX, CloseReason::Closed),
            (1 << 63 | 3, CloseReason::Closed),
        ];
        for (epoch, reason) in ends {
            let channel = Channel::open(SMALL);
            channel.hostile.post_bytes(b"before").unwrap();
            channel.write(HOSTILE_EPOCH, epoch);
            assert_eq!(channel.victim.peer_state(), PeerState::Closed(reason));
            assert_eq!(channel.victim.recv().unwrap().bytes(), b"before");
            expect_end(&channel.victim, reason);
            assert_ne!(channel.hostile.peer_state(), PeerState::Open, "{epoch:#x}");
        }
        // Open and in transit are no end, whatever the generation; the hang-up is.
        let open = [(1, CloseReason::PeerDied), (99 << 2 | 1, CloseReason::PeerDied)];
        let in_transit = [(2, CloseReason::Lost), (!1, CloseReason::Lost)];
        for (epoch, reason) in open.into_iter().chain(in_transit) {
            let channel = Channel::open(SMALL);
            channel.write(HOSTILE_EPOCH, epoch);
            assert_eq!(channel.victim.peer_state(), PeerState::Open);
            channel.hostile.post_bytes(b"after").unwrap();
            assert_eq!(channel.victim.recv().unwrap().bytes(), b"after");
            assert_eq!(channel.victim.try_recv().map(drop), Err(RecvError::Empty));
            rustix::net::shutdown(&channel.line, Shutdown::Write).unwrap();
            expect_end(&channel.victim, reason);
        }
    });
});

// The victim's own epoch, changed by the other side: the victim goes on, closes, and is heard.
alone!(a_stolen_epoch_does_not_keep_a_port_open, || {
    with_watchdog(|| {
        for epoch in [0, 1, 2, 3, 5 << 2 | 1, u64::MAX] {
            let channel = Channel::open(SMALL);
            channel.write(VICTIM_EPOCH, epoch);
            // What the other side makes of its own deed is its own affair: an epoch that no holder
            // writes, or one that says closed, ends the channel for it.
            let posted = channel.hostile.post_bytes(b"as ever").is_ok();
            let received = channel.victim.try_recv().map(|message| message.bytes().len());
            assert_eq!(received.is_ok(), posted, "{epoch:#x}: {received:?}");
            channel.victim.close();
            expect_some_end(&channel.hostile);
        }
    });
});

// Wake words: the worst that they can do is a bell too many, or one that was the other side's to ring.
alone!(any_wake_word_is_survived, || {
    with_watchdog(|| {
        for strategy in [Adaptive, Sleep] {
            let channel = Channel::open(SMALL.strategy(strategy));
            let Channel { victim, hostile, segment, line, .. } = channel;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut random = Random(1);
                    while !stop.load(Ordering::Relaxed) {
                        let words =
                            random.next() & 0x3_0000_0003 | random.next() & random.next() << 60;
                        for place in [VICTIM_WAKES, HOSTILE_WAKES] {
                            segment.write_all_at(&words.to_le_bytes(), place).unwrap();
                        }
                    }
                });
                for n in 0..500u64 {
                    let timeout = Duration::from_micros(200);
                    let begin = Instant::now();
                    assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                    assert!(begin.elapsed() >= timeout);
                    hostile.post_bytes(&n.to_ne_bytes()).unwrap();
                    // Its own bell may be lost to the words above; this one is not.
                    let _ = send(&line, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                    assert_eq!(victim.recv().unwrap().bytes(), n.to_ne_bytes());
                    victim.post_bytes(&n.to_ne_bytes()).unwrap();
                    assert_eq!(hostile.try_recv().unwrap().bytes(), n.to_ne_bytes());
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
});

// Packets that are no bells: empty, long, many, with descriptors. They wake, and that is all.
alone!(any_packet_is_at_most_a_bell, || {
    with_watchdog(|| {
        for strategy in [Spin, Adaptive, Sleep] {
            let channel = Channel::open(SMALL.strategy(strategy));
            let descriptors = count_descriptors();
            for packet in [&[][..], &[0], &[7; 100], &[9; 60_000]] {
                for count in [1, 3, 1_000] {
                    for _ in 0..count {
                        channel.send(packet);
                        send_descriptor(&channel.line);
                    }
                    let timeout = Duration::from_millis(2);
                    let begin = Instant::now();
                    let received = channel.victim.recv_timeout(timeout).map(drop);
                    assert_eq!(received, Err(RecvError::Empty));
                    assert!(begin.elapsed() >= timeout);
                    assert_eq!(channel.victim.peer_state(), PeerState::Open);
                    channel.hostile.post_bytes(b"still").unwrap();
                    assert_eq!(channel.victim.recv().unwrap().bytes(), b"still");
                }
            }
            assert_eq!(count_descriptors(), descriptors, "none was taken in");
            drop(channel.hostile);
            expect_end(&channel.victim, CloseReason::Closed);
        }
    });
});

fn send_descriptor(line: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let gift = [line.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&gift));
    // A full line is as good.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = sendmsg(line, &[IoSlice::new(&[0])], &mut control, flags);
}

// A line that never falls silent: every wait still ends in time, and messages come through.
alone!(a_flood_of_bells_starves_nobody, || {
    with_watchdog(|| {
        for strategy in [Spin, Adaptive, Sleep] {
            for packet in [&[][..], &[1]] {
                let Channel { victim, hostile, line, .. } = Channel::open(SMALL.strategy(strategy));
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let flood = || {
                        while !stop.load(Ordering::Relaxed) {
                            let _ = send(&line, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                        }
                    };
                    scope.spawn(flood);
                    scope.spawn(flood);
                    for n in 0..50u64 {
                        let timeout = Duration::from_millis(2);
                        let begin = Instant::now();
                        assert_eq!(victim.recv_timeout(timeout).map(drop), Err(RecvError::Empty));
                        assert!(begin.elapsed() >= timeout);
                        hostile.post_bytes(&n.to_ne_bytes()).unwrap();
                        assert_eq!(victim.recv().unwrap().bytes(), n.to_ne_bytes());
                    }
                    stop.store(true, Ordering::Relaxed);
                });
            }
        }
    });
});

/// A loop in which one member echoes what its other end posts, beside the victims.
fn beside(victims: Vec<MessagePort>, body: impl FnOnce(&mut EventLoop<'_>, &MessagePort)) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|panic| std::panic::resume_unwind(panic));
    let echo = events.insert(port2).unwrap();
    events.listeners_of(echo).on_message(|turn, message| {
        turn.sender().post_bytes(message.bytes()).unwrap();
    });
    for victim in victims {
        let victim = events.insert(victim).unwrap();
        events.listeners_of(victim).on_message(|_, _| panic!("a message"));
    }
    body(&mut events, &port1);
}

fn expect_echoes(events: &mut EventLoop<'_>, port: &MessagePort) {
    for n in 0..50u64 {
        port.post_bytes(&n.to_ne_bytes()).unwrap();
        loop {
            events.run_once().unwrap();
            match port.try_recv() {
                Ok(message) => break assert_eq!(message.bytes(), n.to_ne_bytes()),
                Err(empty) => assert_eq!(empty, RecvError::Empty),
            }
        }
    }
}

/// The loop waits so long, and sleeps meanwhile.
fn expect_idle(events: &mut EventLoop<'_>) {
    let (deadline, sleeps) = (Instant::now() + Duration::from_millis(100), events.sleeps());
    assert!(events.run_until(deadline).unwrap());
    assert!(Instant::now() >= deadline);
    assert!(events.sleeps() - sleeps <= 3, "{} sleeps", events.sleeps() - sleeps);
}

// Members of a loop whose lines never fall silent: the others are served, waits end in time, and then it is quiet.
alone!(a_flood_of_bells_starves_no_loop, || {
    with_watchdog(|| {
        for packet in [&[][..], &[1]] {
            let channels = [(); 3].map(|()| Channel::open(SMALL));
            let (mut victims, mut lines, mut others) = (Vec::new(), Vec::new(), Vec::new());
            for Channel { victim, hostile, line, .. } in channels {
                victims.push(victim);
                lines.push(line);
                others.push(hostile);
            }
            beside(victims, |events, port| {
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    for line in &lines {
                        let stop = &stop;
                        scope.spawn(move || {
                            while !stop.load(Ordering::Relaxed) {
                                let _ =
                                    send(line, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                            }
                        });
                    }
                    expect_echoes(events, port);
                    let deadline = Instant::now() + Duration::from_millis(20);
                    assert!(events.run_until(deadline).unwrap());
                    assert!(Instant::now() < deadline + Duration::from_secs(10));
                    stop.store(true, Ordering::Relaxed);
                });
                // What lies on the lines by now is taken.
                for _ in 0..1000 {
                    events.run_ready().unwrap();
                }
                expect_idle(events);
                expect_echoes(events, port);
            });
        }
    });
});

// Members whose rings are broken, or whose lines are hung up half-way: each ends once, and the others go on.
alone!(broken_members_end_and_the_loop_goes_on, || {
    with_watchdog(|| {
        for is_listened_to in [true, false] {
            let broken = Channel::open(SMALL);
            let silent = Channel::open(SMALL);
            let Channel { victim: broken_victim, hostile, segment, line, .. } = broken;
            let ends = std::cell::RefCell::new(Vec::new());
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let mut events = EventLoop::new().unwrap();
            events.on_panic(|panic| std::panic::resume_unwind(panic));
            let echo = events.insert(port2).unwrap();
            events.listeners_of(echo).on_message(|turn, message| {
                turn.sender().post_bytes(message.bytes()).unwrap();
            });
            for victim in [broken_victim, silent.victim] {
                let port = events.insert(victim).unwrap();
                let ends = &ends;
                let mut listeners = events.listeners_of(port);
                listeners.on_close(move |_, reason| ends.borrow_mut().push(reason));
                if is_listened_to {
                    listeners.on_message(|_, _| panic!("a message"));
                }
            }
            expect_idle(&mut events);
            segment.write_all_at(&u64::MAX.to_le_bytes(), RING).unwrap();
            send(&line, &[0], SendFlags::NOSIGNAL).unwrap();
            rustix::net::shutdown(&silent.line, Shutdown::Write).unwrap();
            while ends.borrow().len() < 2 {
                events.run_once().unwrap();
            }
            expect_idle(&mut events);
            ends.borrow_mut().sort_by_key(|reason| reason.to_string());
            let mut expected = vec![CloseReason::Violated, CloseReason::PeerDied];
            expected.sort_by_key(|reason: &CloseReason| reason.to_string());
            assert_eq!(*ends.borrow(), expected);
            expect_echoes(&mut events, &port1);
            assert_eq!(events.len(), 1);
            drop((hostile, silent.hostile));
        }
    });
});

// A line that somebody made non-blocking: a wait is still a wait.
alone!(a_non_blocking_line_still_waits, || {
    with_watchdog(|| {
        let channel = Channel::open(SMALL.strategy(Sleep));
        // SAFETY: `channel.victim` keeps it open.
        let line = unsafe { BorrowedFd::borrow_raw(channel.victims_line) };
        rustix::fs::fcntl_setfl(line, rustix::fs::OFlags::NONBLOCK).unwrap();
        let Channel { victim, hostile, .. } = channel;
        let reader = in_thread("the victim", move || {
            for n in 0..200u64 {
                assert_eq!(victim.recv().unwrap().bytes(), n.to_ne_bytes());
                victim.post_bytes(b"next").unwrap();
            }
            // A wait that did not wait would count its rounds in millions.
            assert!(victim.sleeps() < 2_000, "{} sleeps", victim.sleeps());
        });
        for n in 0..200u64 {
            hostile.post_bytes(&n.to_ne_bytes()).unwrap();
            assert_eq!(hostile.recv().unwrap().bytes(), b"next");
        }
        reader.join(Instant::now() + Duration::from_secs(60));
    });
});

// S-140: the memory cannot be taken away. A hole in it reads as zeros.
alone!(the_memory_cannot_be_taken_away, || {
    let channel = Channel::open(SMALL);
    for len in [0, 4096, 3 * CAPACITY - 1, 100 * CAPACITY] {
        channel.segment.set_len(len).expect_err("the seals forbid it");
    }
    channel.hostile.post_bytes(b"gone").unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&channel.segment, flags, RING, CAPACITY).unwrap();
    assert_eq!(channel.victim.try_recv().map(drop), Err(RecvError::Empty));
    rustix::fs::fallocate(&channel.segment, flags, 0, 3 * CAPACITY).unwrap();
    expect_end(&channel.victim, CloseReason::Violated);
});

// A ring full of messages from end to end never runs empty. Whoever drains it comes to an end all the
// same, and the port can be closed.
alone!(a_ring_without_end_does_not_hold_who_drains_it, || {
    with_watchdog(|| {
        // As many as a queue can hold.
        for limit in [0, 1 << 20] {
            let channel = Channel::open(SMALL.limit(limit).untrusted());
            for place in (0..CAPACITY).step_by(64) {
                channel.write(RING + place, MESSAGE | 48);
            }
            for _ in 0..10 {
                assert_eq!(channel.victim.drain().count() as u64, (CAPACITY + limit) / 64);
            }
            let Channel { victim, hostile, .. } = channel;
            drop(hostile);
            assert_eq!(victim.peer_state(), PeerState::Closed(CloseReason::Closed));
            victim.closer().close();
            expect_end(&victim, CloseReason::Closed);
        }
    });
});

// S-139: what an untrusting port has received cannot be changed any more.
alone!(a_received_payload_is_out_of_reach, || {
    let channel = Channel::open(SMALL.untrusted());
    channel.hostile.post_bytes(&[1; 1000]).unwrap();
    let message = channel.victim.recv().unwrap();
    let garbage = vec![0xff; CAPACITY as usize];
    channel.segment.write_all_at(&garbage, RING).unwrap();
    assert_eq!(message.bytes(), [1; 1000]);
});

// Any word at any time, while an untrusting port does all that it can.
alone!(random_words_at_any_time, || {
    with_watchdog(|| {
        let mut violated = 0;
        for seed in 1..=if ends::long() { 20_000 } else { 300 } {
            let channel = Channel::open(SMALL.untrusted());
            let Channel { victim, hostile, segment, line, .. } = channel;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut random = Random(seed);
                    while !stop.load(Ordering::Relaxed) {
                        let (place, word) = (random.place(), random.word());
                        segment.write_all_at(&word.to_le_bytes(), place).unwrap();
                        let _ = send(&line, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                    }
                });
                let mut random = Random(!seed);
                for _ in 0..50 {
                    use_in_some_way(&victim, &mut random);
                }
                stop.store(true, Ordering::Relaxed);
            });
            violated += u32::from(victim.peer_state() == PeerState::Closed(CloseReason::Violated));
            drop(victim);
            // The ring may be one without end.
            assert_ne!(hostile.peer_state(), PeerState::Open);
            hostile.drain().for_each(drop);
        }
        assert!(violated > 0, "garbage is found out");
    });
});

fn use_in_some_way(port: &MessagePort, random: &mut Random) {
    let short = Duration::from_micros(50);
    match random.next() % 8 {
        0 => drop(port.try_post_bytes(&[1; 100])),
        1 => drop(port.post_bytes_timeout(&[1; 700], short)),
        2 => drop(port.try_post(&String::from("a value"))),
        3 => drop(port.try_recv().map(|message| message.get::<String>().map(|text| text.len()))),
        4 => drop(port.drain().map(|message| message.bytes().iter().fold(0, |a, b| a ^ b)).max()),
        5 => drop(port.recv_timeout(short).map(|message| message.pod::<u64>().copied())),
        6 => drop(port.try_reserve(300).map(|loan| loan.publish(200))),
        _ => drop(port.try_recv().map(|message| message.pod_slice::<u32>().map(<[u32]>::len))),
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Mostly a word that matters.
    fn place(&mut self) -> u64 {
        let words = [
            HOSTILE_EPOCH,
            HOSTILE_WAKES,
            VICTIM_EPOCH,
            VICTIM_WAKES,
            HOSTILE_RELEASED,
            HOSTILE_LET_GO,
            HOSTILE_LANES,
        ];
        match self.next() % 16 {
            0..6 => words[(self.next() % 7) as usize],
            6..12 => RING + self.next() % 8 * 16,
            _ => self.next() % (RING + 2 * CAPACITY - 8),
        }
    }

    /// Mostly a word that nearly makes sense.
    fn word(&mut self) -> u64 {
        match self.next() % 10 {
            0 => 0,
            1 | 2 => MESSAGE | (self.next() % 600),
            // With memory outside the ring, with ports, or both; and links.
            8 => {
                (MESSAGE | (self.next() % 600)) | (self.next() % 4) << 40 | (self.next() % 3) << 48
            }
            9 => LINK | (self.next() % 4) << 40,
            3 => FILLER,
            4 => (self.next() % CAPACITY) & !15,
            5 => self.next() % 40,
            6 => 1 << 2 | 1,
            _ => self.next(),
        }
    }
}

/// Writes a head that no poster writes behind its own last message, and goes.
fn break_the_own_ring(port: MessagePort) {
    let mark = format!("{:>32}{:>16x}", std::process::id(), &raw const port as usize);
    port.post_bytes(mark.as_bytes()).unwrap();
    drop(port.recv().unwrap());
    let (segment, payload) = descriptors("zeroport")
        .into_iter()
        .find_map(|number| {
            let path = format!("/proc/self/fd/{number}");
            let file = File::options().read(true).write(true).open(&path).ok()?;
            let bytes = std::fs::read(&path).ok()?;
            let place = bytes.windows(mark.len()).position(|bytes| bytes == mark.as_bytes())?;
            Some((file, place))
        })
        .expect("the segment that holds the mark");
    segment.write_all_at(&[0xff; 8], (payload + mark.len()) as u64).unwrap();
}

// S-124, whoever the hostile side is: a thread or a process of its own.
in_all_ways!(
    a_broken_ring_is_found_wherever_its_breaker_lives,
    |port| {
        assert_eq!(port.recv().unwrap().bytes().len(), 48);
        port.post_bytes(b"go on").unwrap();
        expect_end(&port, CloseReason::Violated);
    },
    break_the_own_ring
);
