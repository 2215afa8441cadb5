//! Memory: what a burst has taken goes back when it was read, what nobody will read is not kept, and what
//! waits is bounded by the limit.
//!
//! Each test has its processes for itself: what they use is measured from the outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod stations;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use ends::expect_end;
use queues::{all_kinds, open};
use rustix::process::{Pid, getpid};
use stations::with_own_host;
use support::{
    Peer, Setup, alone, count_descriptors, pattern, raise_descriptor_limit, test_name, wait_until,
    with_doomed,
};
use zeroport::{
    Buffer, ChannelOptions, CloseReason, MessageChannel, MessagePort, PeerState, PostError,
    RecvError, Trust,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const OPTIONS: ChannelOptions = ChannelOptions::new();
/// How long memory may take to go back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a process uses, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Memory of its own.
    anonymous: u64,
    /// Memory of channels that is mapped and was touched.
    mapped: u64,
    /// Memory of the channels' files that it has open, touched by anybody.
    files: u64,
}

impl Usage {
    fn of(pid: Pid) -> Self {
        let mut usage = Self::default();
        let mut is_channel = false;
        for line in std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let kib = || value.trim_start().trim_end_matches(" kB").parse::<u64>().unwrap() * KIB;
            match name {
                "Anonymous:" => usage.anonymous += kib(),
                "Rss:" if is_channel => usage.mapped += kib(),
                // The first line of a mapping has an address instead of a name.
                _ if !name.ends_with(':') => is_channel = line.contains("memfd:zeroport"),
                _ => {}
            }
        }
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let path = entry.unwrap().path();
            let is_channel = std::fs::read_link(&path)
                .is_ok_and(|to| to.to_string_lossy().contains("memfd:zeroport"));
            if let (true, Ok(file)) = (is_channel, std::fs::metadata(&path)) {
                files.insert(file.ino(), file.blocks() * 512);
            }
        }
        usage.files = files.into_values().sum();
        usage
    }

    fn own() -> Self {
        zeroport::trim();
        Self::of(getpid())
    }

    fn plus(self, more: u64) -> Self {
        let Self { anonymous, mapped, files } = self;
        Self { anonymous: anonymous + more, mapped: mapped + more, files: files + more }
    }

    fn is_at_most(self, most: Self) -> bool {
        self.anonymous <= most.anonymous && self.mapped <= most.mapped && self.files <= most.files
    }

    /// All that stays in memory because of this process.
    fn resident(self) -> u64 {
        self.anonymous + self.mapped.max(self.files)
    }
}

/// Waits until a process uses no more.
fn expect_at_most(who: &str, pid: Pid, most: Usage) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = Usage::of(pid);
        if now.is_at_most(most) {
            return;
        }
        assert!(Instant::now() < deadline, "{who} uses {now:?}, not at most {most:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A host and a peer that are processes of their own, on a channel that the host makes.
macro_rules! measured {
    ($name:ident, $options:expr, $host:expr, $peer:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = test_name(concat!(module_path!(), "::", stringify!($name)));
            let host = |carrier: MessagePort, mut peer: Peer| {
                queues::host(carrier, $options, |port| ($host)(port, &mut peer));
                peer.expect_done();
            };
            with_own_host(test, || {
                with_doomed(test, Setup::new(), host, |carrier| queues::peer(carrier, $peer));
            });
        }
    };
}

// ---- After a burst ----

/// Messages that add up to 64 MiB.
struct Burst {
    bytes: Vec<u8>,
    /// The longest.
    max: usize,
}

impl Burst {
    const SUM: usize = 64 << 20;

    fn new(max: usize) -> Self {
        Self { bytes: pattern(1, max + 4096), max }
    }

    /// All of them, made before anything is measured.
    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = Self::SUM;
        (0usize..).map_while(move |number| {
            // Small ones have every length, large ones about one.
            let len = if self.max > 4096 {
                self.max - number * 7919 % 4096
            } else {
                number * 7919 % (self.max + 1)
            };
            left = left.checked_sub(len)?;
            Some(&self.bytes[number * 37 % 4096..][..len])
        })
    }

    fn post(&self, port: &MessagePort) {
        self.messages().for_each(|bytes| port.try_post_bytes(bytes).unwrap());
    }

    fn expect(&self, port: &MessagePort) {
        self.messages().for_each(|bytes| assert!(port.recv().unwrap().bytes() == bytes));
    }
}

/// How a reader waits that has read all.
#[derive(Clone, Copy)]
enum Waits {
    WithATimeout,
    Polling,
}

const ROUNDS: u64 = 3;

/// Posts bursts that nobody reads at first; after each, the memory of both goes back.
fn post_bursts(port: MessagePort, peer: &Peer, burst: &Burst) {
    let MessageChannel { port1: gate, port2: theirs } = MessageChannel::untrusted().unwrap();
    port.post_bytes_with(b"the gate", theirs).unwrap();
    assert_eq!(gate.recv().unwrap().bytes(), b"here");
    let before = [Usage::own(), Usage::of(peer.pid())];
    for _ in 0..ROUNDS {
        gate.post_bytes(b"stop").unwrap();
        assert_eq!(gate.recv().unwrap().bytes(), b"stopped");
        burst.post(&port);
        gate.post_bytes(b"read").unwrap();
        assert_eq!(gate.recv().unwrap().bytes(), b"read all");
        expect_at_most("the poster", getpid(), before[0].plus(MIB));
        expect_at_most("the reader", peer.pid(), before[1].plus(MIB));
    }
}

fn read_bursts(port: MessagePort, waits: Waits, burst: &Burst) {
    let [gate] = port.recv().unwrap().take_ports().unwrap();
    gate.post_bytes(b"here").unwrap();
    loop {
        match gate.try_recv() {
            Ok(stop) => {
                assert_eq!(stop.bytes(), b"stop");
                gate.post_bytes(b"stopped").unwrap();
                assert_eq!(gate.recv().unwrap().bytes(), b"read");
                burst.expect(&port);
                gate.post_bytes(b"read all").unwrap();
            }
            Err(RecvError::Empty) => {
                let moment = Duration::from_millis(5);
                let nothing = match waits {
                    Waits::WithATimeout => port.recv_timeout(moment).map(drop),
                    Waits::Polling => {
                        thread::sleep(moment);
                        port.try_recv().map(drop)
                    }
                };
                assert!(matches!(nothing, Err(RecvError::Empty | RecvError::Closed(_))));
            }
            Err(_) => return,
        }
    }
}

/// One kind of burst on one kind of channel.
macro_rules! burst {
    ($name:ident, $options:expr, $max:expr, $waits:expr) => {
        measured!(
            $name,
            $options,
            |port, peer: &mut Peer| post_bursts(port, peer, &Burst::new($max)),
            |port| read_bursts(port, $waits, &Burst::new($max))
        );
    };
}

mod after_a_burst_memory_goes_back {
    use super::*;

    const UNTRUSTED: ChannelOptions = OPTIONS.trust(Trust::Untrusted);
    const LARGE: usize = 600 << 10;

    burst!(small_trusted, OPTIONS, 4096, Waits::WithATimeout);
    burst!(small_untrusted, UNTRUSTED, 4096, Waits::WithATimeout);
    burst!(small_polled, OPTIONS, 4096, Waits::Polling);
    burst!(small_from_a_small_ring, OPTIONS.capacity(4096), 2000, Waits::WithATimeout);
    burst!(large_trusted, OPTIONS, LARGE, Waits::WithATimeout);
    burst!(large_untrusted, UNTRUSTED, LARGE, Waits::WithATimeout);
    burst!(large_cold, OPTIONS.warm(false), LARGE, Waits::WithATimeout);
    burst!(large_polled, OPTIONS, LARGE, Waits::Polling);
}

// A reader that waits without a deadline, until the poster has seen that it has let go.
measured!(
    a_sleeping_reader_lets_memory_go,
    OPTIONS,
    |port: MessagePort, peer: &mut Peer| {
        let bursts = [Burst::new(4096), Burst::new(600 << 10)];
        port.post_bytes(b"begin").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        let before = [Usage::own(), Usage::of(peer.pid())];
        for burst in &bursts {
            burst.post(&port);
            assert_eq!(port.recv().unwrap().bytes(), b"read all");
            expect_at_most("the poster", getpid(), before[0].plus(MIB));
            expect_at_most("the reader", peer.pid(), before[1].plus(MIB));
        }
    },
    |port: MessagePort| {
        let bursts = [Burst::new(4096), Burst::new(600 << 10)];
        assert_eq!(port.recv().unwrap().bytes(), b"begin");
        port.post_bytes(b"here").unwrap();
        for burst in &bursts {
            burst.expect(&port);
            port.post_bytes(b"read all").unwrap();
        }
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    },
);

// Messages that were held while memory went back: theirs goes when they do.
measured!(
    what_was_held_meanwhile_goes_back_later,
    OPTIONS,
    |port: MessagePort, peer: &mut Peer| {
        let burst = Burst::new(600 << 10);
        port.post_bytes(b"begin").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        let before = [Usage::own(), Usage::of(peer.pid())];
        burst.post(&port);
        assert_eq!(port.recv().unwrap().bytes(), b"dropped");
        expect_at_most("the poster", getpid(), before[0].plus(MIB));
        expect_at_most("the reader", peer.pid(), before[1].plus(MIB));
    },
    |port: MessagePort| {
        let burst = Burst::new(600 << 10);
        assert_eq!(port.recv().unwrap().bytes(), b"begin");
        port.post_bytes(b"here").unwrap();
        let mut held = Vec::new();
        for (number, bytes) in burst.messages().enumerate() {
            let message = port.recv().unwrap();
            assert!(message.bytes() == bytes);
            if number % 10 == 5 {
                held.push((message, bytes));
            }
        }
        // Longer than memory is kept warm.
        let nothing = port.recv_timeout(Duration::from_millis(300)).map(drop);
        assert_eq!(nothing, Err(RecvError::Empty));
        assert!(held.iter().all(|(message, bytes)| message.bytes() == *bytes));
        drop(held);
        port.post_bytes(b"dropped").unwrap();
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
    },
);

// The end is reported and the handle lives on: nothing is kept for it, though it had not waited.
measured!(
    after_the_end_memory_goes_back,
    OPTIONS,
    |port: MessagePort, peer: &mut Peer| {
        let (small, large) = (Burst::new(4096), Burst::new(600 << 10));
        port.post_bytes(b"begin").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        let before = [Usage::own(), Usage::of(peer.pid())];
        small.post(&port);
        large.post(&port);
        let (sender, receiver) = port.split();
        sender.closer().close();
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
        assert!(matches!(sender.post_bytes(b""), Err(PostError::Closed(CloseReason::Closed))));
        expect_at_most("the reader", peer.pid(), before[1].plus(MIB));
        expect_at_most("the poster", getpid(), before[0].plus(MIB));
        peer.signal(rustix::process::Signal::TERM);
        peer.wait();
        std::process::exit(support::DONE);
    },
    |port: MessagePort| {
        let (small, large) = (Burst::new(4096), Burst::new(600 << 10));
        assert_eq!(port.recv().unwrap().bytes(), b"begin");
        port.post_bytes(b"here").unwrap();
        small.expect(&port);
        large.expect(&port);
        expect_end(&port, CloseReason::Closed);
        loop {
            thread::park();
        }
    },
);

// ---- Idle channels ----

const CHANNELS: u64 = 4000;
/// What each of them may take, in each process.
const IDLE: u64 = 12 * KIB;

/// As many channels as this process may have.
fn as_many(descriptors_each: u64) -> u64 {
    (raise_descriptor_limit().saturating_sub(200) / descriptors_each).min(CHANNELS)
}

alone!(an_idle_channel_takes_little, || {
    let count = as_many(3);
    drop(MessageChannel::new().unwrap());
    let mut channels = Vec::with_capacity(count as usize);
    let before = Usage::own();
    channels.extend((0..count).map(|_| MessageChannel::new().unwrap()));
    let now = Usage::own();
    let each = (now.resident() - before.resident()) / count;
    assert!(each <= IDLE, "{each} bytes each: {now:?} after {before:?}");
    assert!(channels.iter().all(|ends| ends.port1.peer_state() == PeerState::Open));
});

// Each direction has touched a page of its ring.
alone!(an_idle_channel_that_was_used_takes_little_more, || {
    let count = as_many(3);
    drop(MessageChannel::new().unwrap());
    let mut channels = Vec::with_capacity(count as usize);
    let before = Usage::own();
    channels.extend((0..count).map(|_| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        support::expect_entangled(&port1, &port2);
        (port1, port2)
    }));
    let now = Usage::own();
    let each = (now.resident() - before.resident()) / count;
    assert!(each <= IDLE + 4 * KIB, "{each} bytes each: {now:?} after {before:?}");
});

measured!(
    an_idle_channel_of_two_processes_takes_little,
    OPTIONS,
    |port: MessagePort, peer: &mut Peer| {
        // Ours, and the other end of it for a moment.
        let count = as_many(4) / 100 * 100;
        let mut kept = Vec::with_capacity(count as usize);
        port.post_pod(&count).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        let before = [Usage::own(), Usage::of(peer.pid())];
        for _ in 0..count / 100 {
            let (mine, theirs) = support::channels(100);
            port.post_bytes_with(b"", theirs).unwrap();
            kept.extend(mine);
            // No more than these are ever on their way.
            assert_eq!(port.recv().unwrap().bytes(), b"taken");
        }
        let now = [Usage::own(), Usage::of(peer.pid())];
        for (before, now) in before.into_iter().zip(now) {
            let each = (now.resident() - before.resident()) / count;
            assert!(each <= IDLE, "{each} bytes each: {now:?} after {before:?}");
        }
    },
    |port: MessagePort| {
        raise_descriptor_limit();
        let count = *port.recv().unwrap().pod::<u64>().unwrap();
        let mut kept = Vec::with_capacity(count as usize);
        port.post_bytes(b"here").unwrap();
        while let Ok(message) = port.recv() {
            kept.extend(message.take_all_ports().unwrap());
            port.post_bytes(b"taken").unwrap();
        }
    },
);

// ---- S-056: a receiver that has closed ----

const POSTS: usize = 16;
const POSTED: usize = 256 << 10;

mod nothing_is_kept_for_a_closed_receiver {
    use super::*;

    measured!(trusted, OPTIONS, post_to_nobody, close_unread);
    measured!(untrusted, OPTIONS.trust(Trust::Untrusted), post_to_nobody, close_unread);
    measured!(cold, OPTIONS.warm(false), post_to_nobody, close_unread);

    fn post_to_nobody(port: MessagePort, _peer: &mut Peer) {
        let bytes = pattern(1, POSTED);
        let (small, large) = (Burst::new(4096), Burst::new(600 << 10));
        let MessageChannel { port1: gate, port2: theirs } = MessageChannel::untrusted().unwrap();
        port.post_bytes_with(b"the gate", theirs).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        let (before, descriptors) = (Usage::own(), count_descriptors());
        // Much is unread already.
        small.post(&port);
        large.post(&port);
        port.post_bytes_with(&bytes, Buffer::from_slice(&bytes).unwrap()).unwrap();
        gate.post_bytes(b"now").unwrap();
        wait_until("the receiver has closed", || port.peer_state() != PeerState::Open);
        for _ in 0..POSTS {
            for posted in [
                port.post_bytes(&bytes),
                port.try_post_bytes(&bytes),
                port.post_pod_slice(&bytes),
                port.reserve(bytes.len()).map(drop),
                port.post_bytes(b"small"),
            ] {
                let refused = posted.unwrap_err();
                assert!(matches!(refused, PostError::Closed(CloseReason::Closed)), "{refused}");
            }
        }
        expect_at_most("the poster", getpid(), before.plus(256 * KIB));
        expect_end(&port, CloseReason::Closed);
        expect_at_most("the poster", getpid(), before.plus(128 * KIB));
        assert!(count_descriptors() <= descriptors, "{} descriptors", count_descriptors());
    }

    fn close_unread(port: MessagePort) {
        let [gate] = port.recv().unwrap().take_ports().unwrap();
        port.post_bytes(b"here").unwrap();
        assert_eq!(gate.recv().unwrap().bytes(), b"now");
        // A part is read, the rest is not.
        (0..1000).for_each(|_| drop(port.recv().unwrap()));
        port.close();
    }
}

// ---- Nobody reads: bounded by the limit ----

/// Shared memory of the whole machine.
fn shared_memory() -> u64 {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = memory.lines().find(|line| line.starts_with("Shmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * KIB
}

alone!(what_waits_unread_is_bounded_by_the_limit, || {
    const LIMIT: u64 = 128 * MIB;
    // What others do meanwhile.
    const NOISE: u64 = 256 * MIB;
    for options in all_kinds(OPTIONS.limit(LIMIT)) {
        for len in [4000, 33 << 10, 66 << 10, 300_000, 5 << 20, 60 << 20] {
            let (port1, port2) = open(options);
            let bytes = pattern(1, 4096).repeat(len / 4096 + 1);
            let (before, own) = (shared_memory(), Usage::own());
            let mut posted = 0;
            loop {
                match port1.try_post_bytes(&bytes[..len]) {
                    Ok(()) => posted += len as u64,
                    Err(PostError::Full { .. }) => break,
                    // An ordinary user may not have so much on its way.
                    Err(PostError::Os(error)) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ETOOMANYREFS), "{error}");
                        posted = LIMIT;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
                // And what the first ring holds.
                assert!(posted <= LIMIT + 64 * KIB, "{posted} bytes wait");
            }
            assert!(posted > LIMIT * 3 / 4, "{posted} bytes in pieces of {len}");
            // What can be used again is a little longer than what it holds.
            let shared = shared_memory().saturating_sub(before);
            assert!(shared < LIMIT * 5 / 4 + NOISE, "{shared} bytes for pieces of {len}");
            let anonymous = Usage::own().anonymous;
            assert!(anonymous <= own.anonymous + MIB, "{anonymous} bytes of {own:?}");
            drop((port1, port2));
        }
    }
});

// The least buffer takes a page, and so it counts.
alone!(small_buffers_count_as_what_they_take, || {
    const LIMIT: u64 = MIB;
    for options in all_kinds(OPTIONS.limit(LIMIT)) {
        let (port1, port2) = open(options);
        let mut posted = 0;
        let refused = loop {
            match port1.try_post_bytes_with(b"", Buffer::new(1).unwrap()) {
                Ok(()) => posted += 1,
                Err(refused) => break refused,
            }
            assert!(posted <= LIMIT / 4096, "{posted} buffers wait");
        };
        assert!(matches!(refused.source, PostError::Full { .. }), "{refused}");
        assert!(posted > LIMIT / 4096 / 2, "{posted} buffers");
        for _ in 0..posted {
            assert_eq!(port2.recv().unwrap().take_buffer().unwrap().unwrap()[..], [0]);
        }
    }
});
