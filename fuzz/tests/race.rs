//! Both ends of a channel over one mapping, a thread at each, for the thread sanitizer: nothing but
//! the ring itself orders the bytes that one writes and the other reads.

use std::time::Duration;

use zeroport::{ChannelOptions, MessageChannel, MessagePort, RecvError, Trust, WaitStrategy};

const ROUNDS: u64 = 20_000;

fn main() {
    for trust in [Trust::Trusted, Trust::Untrusted] {
        for strategy in [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Sleep] {
            // Of a grown ring each side has a mapping of its own, which the sanitizer cannot match.
            let options =
                ChannelOptions::new().capacity(4096).limit(0).trust(trust).wait_strategy(strategy);
            // Never dropped: the standard library is not instrumented, so a lock in it orders
            // nothing that the sanitizer knows of.
            let MessageChannel { port1, port2 } = options.open().unwrap();
            let threads = [port1, port2].map(|port| {
                let port = Box::leak(Box::new(port));
                std::thread::spawn(|| converse(port))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }
    println!("race: ok");
}

/// Posts and receives messages of all sizes at once, in both directions.
fn converse(port: &mut MessagePort) {
    let mut received = 0;
    for round in 0..ROUNDS {
        let bytes = [round as u8; 2016];
        let len = (round * 37 % 2017) as usize;
        while port.try_post_bytes(&bytes[..len]).is_err() {
            received += receive(port, received);
        }
    }
    while received < ROUNDS {
        received += receive(port, received);
    }
}

/// Receives one message, if there is one soon: the other thread may be waiting for room, too.
fn receive(port: &MessagePort, round: u64) -> u64 {
    let message = match port.recv_timeout(Duration::from_millis(1)) {
        Err(RecvError::Empty) => return 0,
        received => received.unwrap(),
    };
    assert_eq!(message.bytes().len() as u64, round * 37 % 2017);
    assert!(message.bytes().iter().all(|byte| *byte == round as u8));
    1
}
