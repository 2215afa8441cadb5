//! Two honest ports against a twin made of queues.

use std::collections::VecDeque;
use std::time::Duration;

use arbitrary::Arbitrary;
use zeroport::{
    ChannelOptions, CloseReason, Message, MessageChannel, MessagePort, PostError, RecvError, Trust,
};

#[derive(Arbitrary, Debug)]
struct Script {
    untrusted: bool,
    steps: Vec<(bool, Step)>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes(u16),
    Plain(u64),
    Text(String),
    Batch(u8),
    Loan { len: u16, used: Option<u16> },
    Receive { hold: bool },
    Release(u8),
    Drain(u8),
    Close,
}

/// What one port has posted and the other has not received.
type Queue = VecDeque<Vec<u8>>;

/// One port with its twin.
struct End<'p> {
    port: &'p MessagePort,
    sent: Queue,
    held: Vec<(Message<'p>, Vec<u8>)>,
    closed: bool,
}

pub fn operations(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let trust = if script.untrusted { Trust::Untrusted } else { Trust::Trusted };
    let options = ChannelOptions::new().capacity(4096).trust(trust);
    let MessageChannel { port1, port2 } = options.open().unwrap();
    let new = |port| End { port, sent: Queue::new(), held: Vec::new(), closed: false };
    let (mut end, mut other) = (new(&port1), new(&port2));
    for (number, (swap, step)) in script.steps.iter().enumerate() {
        if *swap {
            std::mem::swap(&mut end, &mut other);
        }
        play(&mut end, &mut other, step, number as u8);
        for (message, expected) in end.held.iter().chain(&other.held) {
            assert_eq!(message.bytes(), expected, "held messages stay as they are");
        }
    }
    end.held.clear();
    other.held.clear();
    while receive(&mut end, &mut other, false) {}
    while receive(&mut other, &mut end, false) {}
}

fn play(end: &mut End<'_>, other: &mut End<'_>, step: &Step, mark: u8) {
    match step {
        Step::Bytes(len) => {
            let bytes = vec![mark; usize::from(*len) % 2100];
            let posted = end.port.try_post_bytes(&bytes);
            note(end, other, posted, bytes);
        }
        Step::Plain(value) => {
            let posted = end.port.try_post_pod(value);
            note(end, other, posted, value.to_ne_bytes().to_vec());
        }
        Step::Text(text) => {
            let posted = end.port.try_post(text);
            let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(text).unwrap();
            note(end, other, posted, bytes.to_vec());
        }
        Step::Batch(count) => batch(end, other, *count % 16, mark),
        Step::Loan { len, used } => loan(end, other, usize::from(*len) % 2100, *used, mark),
        Step::Receive { hold } => drop(receive(end, other, *hold)),
        Step::Release(index) if !end.held.is_empty() => {
            drop(end.held.swap_remove(usize::from(*index) % end.held.len()));
        }
        Step::Release(_) => {}
        Step::Drain(count) => drain(end, other, usize::from(*count)),
        Step::Close => {
            end.port.closer().close();
            end.closed = true;
        }
    }
}

/// Holds what a post said against the twin.
fn note(end: &mut End<'_>, other: &End<'_>, posted: Result<(), PostError>, bytes: Vec<u8>) {
    let fits = bytes.len() <= end.port.max_payload();
    match posted {
        Ok(()) => {
            assert!(fits && !end.closed && !other.closed, "posted what cannot be");
            end.sent.push_back(bytes);
        }
        Err(PostError::Closed(CloseReason::Closed)) => assert!(end.closed || other.closed),
        Err(PostError::TooLarge { .. }) => assert!(!fits),
        Err(PostError::Full { .. }) => {
            assert!(fits && !(end.sent.is_empty() && other.held.is_empty()), "full of nothing");
        }
        Err(error) => panic!("{error}"),
    }
}

fn batch(end: &mut End<'_>, other: &End<'_>, count: u8, mark: u8) {
    let messages: Vec<_> = (0..count).map(|len| vec![mark; len.into()]).collect();
    let empty = end.sent.is_empty() && other.held.is_empty();
    if !empty || end.closed || other.closed {
        return; // it would wait for room
    }
    assert_eq!(end.port.post_all_bytes(&messages).unwrap(), messages.len());
    end.sent.extend(messages);
}

fn loan(end: &mut End<'_>, other: &End<'_>, len: usize, used: Option<u16>, mark: u8) {
    match end.port.try_reserve(len) {
        Ok(mut loan) => {
            loan.fill(mark);
            assert!(matches!(end.port.try_post_bytes(b""), Err(PostError::Busy)));
            let Some(used) = used.map(|used| usize::from(used) % (len + 1)) else { return };
            let posted = loan.publish(used);
            note(end, other, posted, vec![mark; used]);
        }
        Err(error) => note(end, other, Err(error), vec![mark; len]),
    }
}

/// Receives and compares one message; false if there is none.
fn receive<'p>(end: &mut End<'p>, other: &mut End<'_>, hold: bool) -> bool {
    match end.port.recv_timeout(Duration::ZERO) {
        Ok(message) => {
            let expected = other.sent.pop_front().expect("nothing was posted");
            assert!(!end.closed, "an end that is closed receives nothing");
            assert_eq!(message.bytes(), expected);
            if hold {
                end.held.push((message, expected));
            }
            true
        }
        Err(RecvError::Empty) => {
            assert!(other.sent.is_empty() && !end.closed && !other.closed, "not at its end");
            false
        }
        Err(RecvError::Closed(CloseReason::Closed)) => {
            assert!(end.closed || other.closed && other.sent.is_empty(), "after the last message");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn drain(end: &mut End<'_>, other: &mut End<'_>, count: usize) {
    for message in end.port.drain().take(count) {
        assert_eq!(message.bytes(), other.sent.pop_front().expect("nothing was posted"));
    }
}
