//! A backlog: very many messages of all sizes are posted before anybody reads; meanwhile the port on which
//! they wait goes to a new owner, who then reads them all, in order, and checks every byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod support;

use std::sync::mpsc::{Sender, channel};
use std::thread;

use ends::{expect_end, long};
use queues::open;
use support::{Setup, conversation, pattern, raise_descriptor_limit};
use zeroport::{CloseReason, MessageChannel, MessagePort, Trust};

/// Raised to suit: of the channel, and of the port over which its end goes.
const LIMIT: u64 = 4 << 30;
const SETUP: Setup = Setup::new().limit(LIMIT).stuck_after(600);

/// Messages that do not fit in a ring.
const LARGE: u64 = 200;
/// Messages with a port.
const WITH_PORTS: u64 = 100;

fn count() -> u64 {
    if long() { 1_000_000 } else { 50_000 }
}

/// What all messages are parts of.
struct Source {
    bytes: Vec<u8>,
    count: u64,
}

impl Source {
    /// Each message starts at another place.
    const STARTS: u64 = 1 << 20;
    const MAX: usize = 400_000;

    fn new() -> Self {
        Self { bytes: pattern(1, Self::STARTS as usize + Self::MAX), count: count() }
    }

    /// Message `number`: up to 4 KiB, or above the threshold.
    fn message(&self, number: u64) -> &[u8] {
        let mixed = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize;
        let is_large = number % (self.count / LARGE) == 77;
        let len = if is_large { 32_737 + mixed % (Self::MAX - 32_737) } else { mixed % 4097 };
        let start = number.wrapping_mul(7919) % Self::STARTS;
        &self.bytes[start as usize..][..len]
    }

    fn has_port(&self, number: u64) -> bool {
        // A few of them are large.
        number % (self.count / WITH_PORTS) == 77 + number / (self.count / WITH_PORTS) % 2
    }
}

conversation!(
    a_new_owner_reads_a_backlog_of_a_trusted_channel,
    SETUP,
    |carrier| post_backlog(carrier, Trust::Trusted),
    read_backlog
);
conversation!(
    a_new_owner_reads_a_backlog_of_an_untrusted_channel,
    SETUP,
    |carrier| post_backlog(carrier, Trust::Untrusted),
    read_backlog
);

fn post_backlog(carrier: MessagePort, trust: Trust) {
    raise_descriptor_limit();
    let (port1, port2) = open(SETUP.options().trust(trust));
    let (tell, told) = channel();
    let posting = thread::spawn(move || post_all(port1, &tell));
    told.recv().expect("the half of them");
    carrier.post_bytes_with(b"yours, but do not read yet", port2).unwrap();
    let staying = posting.join().unwrap();
    carrier.post_bytes(b"now").unwrap();
    for (number, port) in staying {
        assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &number);
    }
    assert_eq!(carrier.recv().unwrap().bytes(), b"all");
}

/// Posts all, without waiting; says when it has posted the half. Gives the other ends of the ports that it
/// has sent.
fn post_all(port: MessagePort, tell: &Sender<()>) -> Vec<(u64, MessagePort)> {
    let source = Source::new();
    let mut staying = Vec::new();
    for number in 0..source.count {
        let bytes = source.message(number);
        if source.has_port(number) {
            let MessageChannel { port1: stays, port2: goes } = MessageChannel::untrusted().unwrap();
            port.try_post_bytes_with(bytes, goes).unwrap();
            staying.push((number, stays));
        } else if number % 5 == 3 {
            let mut loan = port.try_reserve(bytes.len()).unwrap();
            loan.copy_from_slice(bytes);
            loan.publish(bytes.len()).unwrap();
        } else {
            port.try_post_bytes(bytes).unwrap();
        }
        if number == source.count / 2 {
            tell.send(()).unwrap();
        }
    }
    staying
}

fn read_backlog(carrier: MessagePort) {
    raise_descriptor_limit();
    let source = Source::new();
    let [port] = carrier.recv().unwrap().take_ports().unwrap();
    assert_eq!(carrier.recv().unwrap().bytes(), b"now");
    let (mut large, mut ports) = (0, 0);
    for number in 0..source.count {
        let message = port.recv().unwrap();
        assert!(message.bytes() == source.message(number), "message {number}");
        large += u64::from(message.bytes().len() > port.max_in_ring());
        assert_eq!(message.port_count(), source.has_port(number).into());
        if let Some(theirs) = message.take_port().unwrap() {
            theirs.post_pod(&number).unwrap();
            ports += 1;
        }
    }
    expect_end(&port, CloseReason::Closed);
    assert_eq!((large, ports), (LARGE, WITH_PORTS));
    carrier.post_bytes(b"all").unwrap();
}
