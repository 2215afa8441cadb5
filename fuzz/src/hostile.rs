//! A port whose other side rewrites any word of the segment and of all grown rings at any time, and rings as it
//! likes: the port never panics, never hangs, never reads out of bounds, and reports its end once and for
//! ever.

use std::fs::File;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arbitrary::Arbitrary;
use rustix::io::pwrite;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zeroport::{
    Buffer, ChannelOptions, Message, MessageChannel, MessagePort, PostError, RecvError, TakeError,
    Trust, WaitStrategy, fuzzing,
};

/// The shortest wait that goes through every stage of waiting.
const SHORT: Duration = Duration::from_micros(20);

#[derive(Arbitrary, Debug)]
struct Script {
    untrusted: bool,
    cold: bool,
    strategy: u8,
    limit: u8,
    /// Honest posts of either side before all else, so many that there may be grown rings from the beginning.
    before: [u8; 2],
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The hostile side.
    Write(Write),
    Bell {
        empty: bool,
        count: u8,
    },
    TakeBell,
    HonestPost(u16),
    HonestReceive,
    HonestClose,
    HonestBuffer(u16),
    /// The port under test.
    Receive {
        wait: bool,
        hold: bool,
    },
    Release(u8),
    Drain,
    Post {
        len: u16,
        wait: bool,
    },
    PostValue(String),
    PostBuffer(u16),
    PostAll(Vec<u8>),
    Reserve {
        len: u16,
        publish: Option<u16>,
    },
    State,
    Close,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Write {
    place: Place,
    word: Word,
}

/// Where to write: anywhere, or at a word that matters.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Any(u16),
    Control { line: u8, word: u8 },
    Ring { second: bool, record: u8 },
    Grown { which: u8, words: bool, record: u8 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Any(u64),
    Small(u8),
    Head { len: u16, kind: u8 },
    Rare { len: u8, kind: u8, flags: u8, ports: u8 },
}

pub fn hostile(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let (channel, memory, line) = open(&script);
    play(&channel, &script, &line, |write| write.to(&memory.with_grown()));
    end(channel);
}

/// As [`hostile`], with the writes made over and over by another thread.
pub fn hostile_race(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let (channel, memory, line) = open(&script);
    let memory = memory.with_grown();
    let writes: Vec<_> = (script.steps.iter())
        .filter_map(|step| if let Step::Write(write) = step { Some(*write) } else { None })
        .collect();
    let done = AtomicBool::new(writes.is_empty());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                writes.iter().for_each(|write| write.to(&memory));
            }
        });
        let _done = OnDrop(|| done.store(true, Ordering::Relaxed));
        play(&channel, &script, &line, |_| std::thread::yield_now());
    });
    end(channel);
}

fn open(script: &Script) -> (MessageChannel, Memory, OwnedFd) {
    let trust = if script.untrusted { Trust::Untrusted } else { Trust::Trusted };
    let strategy = [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Sleep]
        [usize::from(script.strategy % 3)];
    let limit = [0, 8192, 1 << 16, 1 << 20][usize::from(script.limit % 4)];
    let options = ChannelOptions::new().capacity(4096).limit(limit).warm(!script.cold);
    zeroport::trim();
    let before = segments();
    let (channel, memfd, line) =
        fuzzing::open(options.trust(trust).wait_strategy(strategy)).unwrap();
    for (port, posts) in [&channel.port1, &channel.port2].into_iter().zip(script.before) {
        (0..posts % 64).for_each(|_| posted(port.try_post_bytes(&[1; 500])));
    }
    (channel, Memory { memfd, before, grown: Vec::new() }, line)
}

/// All that a hostile side can write to.
struct Memory {
    memfd: OwnedFd,
    /// Descriptors of segments that are none of this channel.
    before: Vec<u32>,
    grown: Vec<File>,
}

impl Memory {
    /// With the memory of the grown rings that there are now, found by their descriptors.
    fn with_grown(&self) -> Self {
        let new = segments().into_iter().filter(|number| !self.before.contains(number));
        let open = |number| File::options().write(true).open(format!("/proc/self/fd/{number}"));
        // What is sealed against writing is not opened so.
        let grown = new.filter_map(|number| open(number).ok()).collect();
        Self { memfd: self.memfd.try_clone().unwrap(), before: Vec::new(), grown }
    }
}

/// Descriptors of this process that lead to memory of this library.
fn segments() -> Vec<u32> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    list.filter(|entry| {
        let target = std::fs::read_link(entry.path());
        target.is_ok_and(|target| target.to_string_lossy().contains("memfd:zeroport"))
    })
    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    .collect()
}

impl Write {
    fn to(self, memory: &Memory) {
        let header = fuzzing::HEADER;
        let word = match self.word {
            Word::Any(word) => word,
            Word::Small(word) => word.into(),
            Word::Head { len, kind } => u64::from(len) | u64::from(kind) << 32,
            Word::Rare { len, kind, flags, ports } => {
                let (kind, flags) = (1 + kind % 3, flags % 4);
                u64::from(len)
                    | u64::from(kind) << 32
                    | u64::from(flags) << 40
                    | u64::from(ports) << 48
            }
        }
        .to_ne_bytes();
        let offset = match self.place {
            Place::Any(word) => 8 * (u64::from(word) % (3 * header / 8)),
            Place::Control { line, word } => 128 * u64::from(line % 6) + 4 * u64::from(word % 6),
            Place::Ring { second, record } => {
                header + u64::from(second) * header + 16 * u64::from(record)
            }
            Place::Grown { which, words, record } => {
                let count = memory.grown.len().max(1);
                if let Some(ring) = memory.grown.get(usize::from(which) % count) {
                    let record = 16 * u64::from(record);
                    // Its words are those of the first ring.
                    let offset = if words { 3 * 128 + record % 128 } else { header + record };
                    // A payload's memory may have been sealed since.
                    let _ = pwrite(ring, &word, offset);
                }
                return;
            }
        };
        pwrite(&memory.memfd, &word, offset).unwrap();
    }
}

fn play(channel: &MessageChannel, script: &Script, line: &OwnedFd, write: impl Fn(Write)) {
    let MessageChannel { port1: port, port2: other } = channel;
    let mut held = Vec::new();
    for step in script.steps.iter().take(100) {
        match step {
            Step::Write(change) => write(*change),
            Step::Bell { empty, count } => ring(line, *empty, *count),
            Step::TakeBell => drop(recv(line, &mut [0; 1], RecvFlags::DONTWAIT)),
            Step::HonestPost(len) => posted(other.try_post_bytes(&[1; MAX][..cut(*len)])),
            Step::HonestReceive => drop(other.try_recv().map(|message| read(&message, script))),
            Step::HonestClose => other.closer().close(),
            Step::HonestBuffer(len) => post_buffer(other, cut(*len)),
            Step::Receive { wait, hold } => {
                let timeout = if *wait { SHORT } else { Duration::ZERO };
                let found = received(port.recv_timeout(timeout), script);
                held.extend(found.filter(|_| *hold));
            }
            Step::Release(index) if !held.is_empty() => {
                drop(held.swap_remove(usize::from(*index) % held.len()));
            }
            Step::Release(_) => {}
            // A hostile side can go on for ever; that is the caller's to bound.
            Step::Drain => port.drain().take(600).for_each(|message| read(&message, script)),
            Step::Post { len, wait: true } => {
                posted(port.post_bytes_timeout(&[2; MAX][..cut(*len)], SHORT));
            }
            Step::Post { len, wait: false } => {
                posted(port.try_post_bytes(&[3; MAX][..cut(*len)]));
            }
            Step::PostValue(value) => posted(port.post_timeout(value, SHORT)),
            Step::PostBuffer(len) => post_buffer(port, cut(*len)),
            // It has no time limit, and whoever would make room is hostile: only if it need not wait.
            Step::PostAll(values) => {
                let few = values.iter().take(8).map(|len| vec![4; usize::from(len % 200)]);
                if port.try_reserve(port.max_in_ring()).is_ok() {
                    posted(port.post_all_bytes(few).map(drop).map_err(|error| error.source));
                }
            }
            Step::Reserve { len, publish } => reserve(port, cut(*len), *publish),
            Step::State => drop(black_box((port.peer_state(), other.peer_state()))),
            Step::Close => port.closer().close(),
        }
    }
}

/// Both ends, once reported, stay what they are; and no port waits for what never comes.
fn end(channel: MessageChannel) {
    for port in [channel.port1, channel.port2] {
        port.closer().close();
        let reason = match port.recv() {
            Err(RecvError::Closed(reason)) => reason,
            other => panic!("a closed port said {other:?}"),
        };
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(reason), "for ever");
        assert!(matches!(port.post_bytes(b"late"), Err(PostError::Closed(_))), "at its end");
    }
}

/// The longest payload that is posted here.
const MAX: usize = 20_000;

/// Mostly what fits in a ring.
fn cut(len: u16) -> usize {
    usize::from(len) % if len.is_multiple_of(8) { MAX } else { 2100 }
}

fn post_buffer(port: &MessagePort, len: usize) {
    let buffer = Buffer::from_slice(&vec![6; len]).unwrap();
    posted(port.post_bytes_with_timeout(b"a buffer", buffer, SHORT).map_err(|refused| {
        assert_eq!(refused.list.len(), 1, "it comes back");
        refused.source
    }));
}

fn reserve(port: &MessagePort, len: usize, publish: Option<u16>) {
    match port.try_reserve(len) {
        Ok(mut loan) => {
            loan.fill(5);
            if let Some(used) = publish {
                posted(loan.publish(usize::from(used) % (len + 1)));
            }
        }
        Err(error) => posted(Err(error)),
    }
}

fn ring(line: &OwnedFd, empty: bool, count: u8) {
    for _ in 0..count {
        let bell: &[u8] = if empty { &[] } else { &[0] };
        let _ = send(line, bell, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

fn posted(posted: Result<(), PostError>) {
    match posted {
        // Os: the end of the lane was taken off the line, and dropped.
        Ok(()) | Err(PostError::Full { .. } | PostError::Closed(_) | PostError::Os(_)) => {}
        Err(PostError::TooLarge { len, max }) => assert!(len > max),
        Err(error) => panic!("{error}"),
    }
}

fn received<'p>(received: Result<Message<'p>, RecvError>, script: &Script) -> Option<Message<'p>> {
    match received {
        Ok(message) => {
            read(&message, script);
            Some(message)
        }
        Err(RecvError::Empty | RecvError::Closed(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Touches all of a message. Values are read where that is promised to be safe: from a copy.
fn read(message: &Message<'_>, script: &Script) {
    assert!(message.bytes().len() <= 1 << 19, "no longer than a ring within the limit can carry");
    black_box(message.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    let _ = black_box(message.pod::<u64>());
    if script.untrusted {
        let _ = black_box(message.get::<String>().map(|text| text.len()));
    }
    match message.take_buffer() {
        Ok(Some(buffer)) => assert!(buffer.iter().all(|byte| *byte == 6), "an honest buffer"),
        Ok(None) | Err(TakeError::Violated) => {}
        Err(error) => panic!("{error}"),
    }
    match message.take_port() {
        Ok(None) | Err(TakeError::Violated) => {}
        other => panic!("nobody sends ports: {other:?}"),
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
