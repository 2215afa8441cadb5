//! A port whose other side rewrites any word of the segment at any time, and rings as it likes: the
//! port never panics, never hangs, never reads out of bounds, and reports its end once and for ever.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arbitrary::Arbitrary;
use rustix::io::pwrite;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zeroport::{
    ChannelOptions, Message, MessageChannel, MessagePort, PostError, RecvError, Trust,
    WaitStrategy, fuzzing,
};

/// The shortest wait that goes through every stage of waiting.
const SHORT: Duration = Duration::from_micros(20);

#[derive(Arbitrary, Debug)]
struct Script {
    untrusted: bool,
    strategy: u8,
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
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Any(u64),
    Small(u8),
    Head { len: u16, kind: u8 },
}

pub fn hostile(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let (channel, memfd, line) = open(&script);
    play(&channel, &script, &line, |write| write.to(&memfd));
    end(channel);
}

/// As [`hostile`], with the writes made over and over by another thread.
pub fn hostile_race(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let (channel, memfd, line) = open(&script);
    let writes: Vec<_> = (script.steps.iter())
        .filter_map(|step| if let Step::Write(write) = step { Some(*write) } else { None })
        .collect();
    let done = AtomicBool::new(writes.is_empty());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                writes.iter().for_each(|write| write.to(&memfd));
            }
        });
        let _done = OnDrop(|| done.store(true, Ordering::Relaxed));
        play(&channel, &script, &line, |_| std::thread::yield_now());
    });
    end(channel);
}

fn open(script: &Script) -> (MessageChannel, OwnedFd, OwnedFd) {
    let trust = if script.untrusted { Trust::Untrusted } else { Trust::Trusted };
    let strategy = [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Sleep]
        [usize::from(script.strategy % 3)];
    let options = ChannelOptions::new().capacity(4096).trust(trust).wait_strategy(strategy);
    fuzzing::open(options).unwrap()
}

impl Write {
    fn to(self, memfd: &OwnedFd) {
        let header = fuzzing::HEADER;
        let offset = match self.place {
            Place::Any(word) => 8 * (u64::from(word) % (3 * header / 8)),
            Place::Control { line, word } => 128 * u64::from(line % 5) + 4 * u64::from(word % 4),
            Place::Ring { second, record } => {
                header + u64::from(second) * header + 16 * u64::from(record)
            }
        };
        let word = match self.word {
            Word::Any(word) => word,
            Word::Small(word) => word.into(),
            Word::Head { len, kind } => u64::from(len) | u64::from(kind) << 32,
        };
        pwrite(memfd, &word.to_ne_bytes(), offset).unwrap();
    }
}

fn play(channel: &MessageChannel, script: &Script, line: &OwnedFd, write: impl Fn(Write)) {
    let MessageChannel { port1: port, port2: other } = channel;
    let mut held = Vec::new();
    for step in &script.steps {
        match step {
            Step::Write(change) => write(*change),
            Step::Bell { empty, count } => ring(line, *empty, *count),
            Step::TakeBell => drop(recv(line, &mut [0; 1], RecvFlags::DONTWAIT)),
            Step::HonestPost(len) => posted(other.try_post_bytes(&[1; 4096][..cut(*len)])),
            Step::HonestReceive => drop(other.try_recv().map(|message| read(&message, script))),
            Step::HonestClose => other.closer().close(),
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
                posted(port.post_bytes_timeout(&[2; 4096][..cut(*len)], SHORT));
            }
            Step::Post { len, wait: false } => {
                posted(port.try_post_bytes(&[3; 4096][..cut(*len)]));
            }
            Step::PostValue(value) => posted(port.post_timeout(value, SHORT)),
            // It has no time limit, and whoever would make room is hostile: only if it need not wait.
            Step::PostAll(values) => {
                let few = values.iter().take(8).map(|len| vec![4; usize::from(len % 200)]);
                if port.try_reserve(port.max_payload()).is_ok() {
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

fn cut(len: u16) -> usize {
    usize::from(len) % 2100
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
        Ok(()) | Err(PostError::Full { .. } | PostError::Closed(_)) => {}
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
    assert!(message.bytes().len() <= 4096 / 2 - 32, "no longer than this ring can carry");
    black_box(message.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    let _ = black_box(message.pod::<u64>());
    if script.untrusted {
        let _ = black_box(message.get::<String>().map(|text| text.len()));
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
