//! Two honest ports against a twin made of queues: whatever they post, in whichever rings and memory it travels,
//! and wherever they go meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use arbitrary::Arbitrary;
use zeroport::{
    Buffer, ChannelOptions, CloseReason, Message, MessageChannel, MessagePort, PostError,
    RecvError, TransferList, Trust,
};

#[derive(Arbitrary, Debug)]
struct Script {
    untrusted: bool,
    cold: bool,
    limit: Limit,
    steps: Vec<(bool, Step)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Limit {
    None,
    Little(u16),
    Much,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes(Len),
    Plain(u64),
    Text(String),
    /// A text of so many bytes.
    LongText(Len),
    Batch(u8),
    Loan {
        len: Len,
        used: Option<u16>,
    },
    /// A message with a port, a buffer, or both.
    Gift {
        len: Len,
        port: bool,
        buffer: Option<Len>,
    },
    Receive {
        hold: bool,
    },
    Release(u8),
    Drain(u8),
    /// The port goes over another channel; its messages were let go.
    Move,
    Close,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Len {
    /// In a ring, or just not.
    Short(u16),
    Long(u16),
}

/// What one port has posted and the other has not received.
type Queue = VecDeque<Said>;

#[derive(Debug)]
struct Said {
    bytes: Vec<u8>,
    /// What a port says that came along.
    port: Option<u8>,
    buffer: Option<Vec<u8>>,
}

/// What is known of one port.
#[derive(Default)]
struct Twin {
    sent: Queue,
    closed: bool,
}

/// One port with its twin.
struct End<'p> {
    port: &'p MessagePort,
    twin: &'p mut Twin,
    held: Vec<(Message<'p>, Vec<u8>)>,
}

impl End<'_> {
    /// Whether nothing of what this end has posted lies with the other one.
    fn is_empty(&self, other: &End<'_>) -> bool {
        self.twin.sent.is_empty() && other.held.is_empty()
    }
}

pub fn operations(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let trust = if script.untrusted { Trust::Untrusted } else { Trust::Trusted };
    let options = ChannelOptions::new().capacity(4096).trust(trust).warm(!script.cold);
    let options = match script.limit {
        Limit::None => options.limit(0),
        Limit::Little(bytes) => options.limit(bytes.into()),
        Limit::Much => options,
    };
    let MessageChannel { port1, port2 } = options.open().unwrap();
    let (mut ports, mut twins) = ([port1, port2], [Twin::default(), Twin::default()]);
    let (mut steps, mut swapped) = (script.steps.iter().enumerate(), false);
    while let Some(moves) = play_until_move(&ports, &mut twins, &mut steps, &mut swapped) {
        if moves {
            let [port, other] = ports;
            ports = if swapped {
                [port, move_port(other, twins[1].closed)]
            } else {
                [move_port(port, twins[0].closed), other]
            };
        }
    }
}

/// Plays until a port has to move (true), or to the end (none).
fn play_until_move<'s>(
    [port1, port2]: &[MessagePort; 2],
    [twin1, twin2]: &mut [Twin; 2],
    steps: &mut impl Iterator<Item = (usize, &'s (bool, Step))>,
    swapped: &mut bool,
) -> Option<bool> {
    let new = |port, twin| End { port, twin, held: Vec::new() };
    let (mut end, mut other) = (new(port1, twin1), new(port2, twin2));
    if *swapped {
        std::mem::swap(&mut end, &mut other);
    }
    for (number, (swap, step)) in steps {
        if *swap {
            std::mem::swap(&mut end, &mut other);
            *swapped = !*swapped;
        }
        if let Step::Move = step {
            return Some(true);
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
    None
}

/// Gives a port away, and takes it.
fn move_port(port: MessagePort, closed: bool) -> MessagePort {
    let MessageChannel { port1, port2 } = ChannelOptions::new().trust(port.trust()).open().unwrap();
    match port1.post_bytes_with(b"", port) {
        Ok(()) => {
            assert!(!closed, "what is closed stays");
            let [port] = port2.recv().unwrap().take_ports().unwrap();
            port
        }
        // Its own end was closed, or it has reported the other one's.
        Err(refused) => {
            assert!(matches!(refused.source, PostError::Untransferable { .. }), "{refused:?}");
            refused.list.into_ports().pop().expect("it comes back")
        }
    }
}

fn play(end: &mut End<'_>, other: &mut End<'_>, step: &Step, mark: u8) {
    let said = |bytes: &[u8]| Said { bytes: bytes.to_vec(), port: None, buffer: None };
    match step {
        Step::Bytes(len) => {
            let bytes = vec![mark; len.value()];
            post(end, other, said(&bytes), |port| port.try_post_bytes(&bytes));
        }
        Step::Plain(value) => {
            post(end, other, said(&value.to_ne_bytes()), |port| port.try_post_pod(value));
        }
        Step::Text(text) => post_text(end, other, text),
        Step::LongText(len) => post_text(end, other, &"x".repeat(len.value())),
        Step::Batch(count) => batch(end, other, *count % 16, mark),
        Step::Loan { len, used } => loan(end, other, len.value(), *used, mark),
        Step::Gift { len, port, buffer } => {
            let said = Said {
                bytes: vec![mark; len.value()],
                port: port.then_some(mark),
                buffer: buffer.map(|len| vec![!mark; len.value()]),
            };
            gift(end, other, said);
        }
        Step::Receive { hold } => drop(receive(end, other, *hold)),
        Step::Release(index) if !end.held.is_empty() => {
            drop(end.held.swap_remove(usize::from(*index) % end.held.len()));
        }
        Step::Release(_) | Step::Move => {}
        Step::Drain(count) => drain(end, other, usize::from(*count)),
        Step::Close => {
            end.port.closer().close();
            end.twin.closed = true;
        }
    }
}

impl Len {
    fn value(self) -> usize {
        match self {
            Self::Short(len) => usize::from(len) % 2100,
            Self::Long(len) => usize::from(len),
        }
    }
}

/// Posts, and holds what that said against the twin.
fn post(
    end: &mut End<'_>,
    other: &mut End<'_>,
    said: Said,
    mut post: impl FnMut(&MessagePort) -> Result<(), PostError>,
) {
    let mut posted = post(end.port);
    let is_over = end.twin.closed || other.twin.closed;
    // A queue of which all was let go has room for anything, once its reader has looked for more.
    for _ in 0..3 {
        if !matches!(posted, Err(PostError::Full { .. })) || !end.is_empty(other) || is_over {
            break;
        }
        assert!(!receive(other, end, false), "nothing was posted");
        posted = post(end.port);
    }
    match posted {
        Ok(()) => {
            assert!(!is_over, "posted what cannot be");
            end.twin.sent.push_back(said);
        }
        Err(PostError::Closed(CloseReason::Closed)) => assert!(is_over),
        Err(PostError::Full { .. }) => assert!(!end.is_empty(other), "full of nothing"),
        Err(error) => panic!("{error}"),
    }
}

fn post_text(end: &mut End<'_>, other: &mut End<'_>, text: &String) {
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(text).unwrap().to_vec();
    let said = Said { bytes, port: None, buffer: None };
    post(end, other, said, |port| port.try_post(text));
}

fn batch(end: &mut End<'_>, other: &mut End<'_>, count: u8, mark: u8) {
    let messages: Vec<_> = (0..count).map(|len| vec![mark; len.into()]).collect();
    if !end.is_empty(other) || end.twin.closed || other.twin.closed {
        return; // it would wait for room
    }
    assert!(!receive(other, end, false), "nothing was posted");
    assert_eq!(end.port.post_all_bytes(&messages).unwrap(), messages.len());
    let said = messages.into_iter().map(|bytes| Said { bytes, port: None, buffer: None });
    end.twin.sent.extend(said);
}

fn loan(end: &mut End<'_>, other: &mut End<'_>, len: usize, used: Option<u16>, mark: u8) {
    let Some(used) = used.map(|used| usize::from(used) % (len + 1)) else {
        if let Ok(mut loan) = end.port.try_reserve(len) {
            loan.fill(mark);
            assert!(matches!(end.port.try_post_bytes(b""), Err(PostError::Busy)));
        }
        return;
    };
    let said = Said { bytes: vec![mark; used], port: None, buffer: None };
    post(end, other, said, |port| {
        let mut loan = port.try_reserve(len)?;
        assert_eq!(loan.len(), len);
        loan.fill(mark);
        assert!(matches!(port.try_post_bytes(b""), Err(PostError::Busy)));
        loan.publish(used)
    });
}

fn gift(end: &mut End<'_>, other: &mut End<'_>, said: Said) {
    let mut list = TransferList::new();
    if let Some(mark) = said.port {
        let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
        port1.post_bytes(&[mark]).unwrap();
        list.push(port2);
    }
    if let Some(bytes) = &said.buffer {
        list.push(Buffer::from_slice(bytes).unwrap());
    }
    let count = list.len();
    let bytes = said.bytes.clone();
    let mut list = Some(list);
    post(end, other, said, |port| {
        port.try_post_bytes_with(&bytes, list.take().unwrap()).map_err(|refused| {
            assert_eq!(refused.list.len(), count, "all comes back");
            list = Some(refused.list);
            refused.source
        })
    });
}

/// Receives and compares one message; false if there is none.
fn receive<'p>(end: &mut End<'p>, other: &mut End<'_>, hold: bool) -> bool {
    match end.port.recv_timeout(Duration::ZERO) {
        Ok(message) => {
            let expected = other.twin.sent.pop_front().expect("nothing was posted");
            assert!(!end.twin.closed, "an end that is closed receives nothing");
            compare(&message, &expected);
            if hold {
                end.held.push((message, expected.bytes));
            }
            true
        }
        Err(RecvError::Empty) => {
            let is_over = end.twin.closed || other.twin.closed;
            assert!(other.twin.sent.is_empty() && !is_over, "not at its end");
            false
        }
        Err(RecvError::Closed(CloseReason::Closed)) => {
            let is_read = other.twin.closed && other.twin.sent.is_empty();
            assert!(end.twin.closed || is_read, "after the last message");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn compare(message: &Message<'_>, expected: &Said) {
    assert_eq!(message.bytes(), expected.bytes);
    assert_eq!(message.port_count(), usize::from(expected.port.is_some()));
    assert_eq!(message.buffer_count(), usize::from(expected.buffer.is_some()));
    // Some are dropped with their message.
    if expected.bytes.len().is_multiple_of(3) {
        return;
    }
    if let Some(bytes) = &expected.buffer {
        let [buffer] = message.take_buffers().unwrap();
        assert_eq!(buffer[..], bytes[..]);
    }
    if let Some(mark) = expected.port {
        let [port] = message.take_ports().unwrap();
        assert_eq!(port.recv().unwrap().bytes(), [mark]);
        assert!(matches!(port.recv(), Err(RecvError::Closed(CloseReason::Closed))));
    }
}

fn drain(end: &mut End<'_>, other: &mut End<'_>, count: usize) {
    for message in end.port.drain().take(count) {
        compare(&message, &other.twin.sent.pop_front().expect("nothing was posted"));
    }
}
