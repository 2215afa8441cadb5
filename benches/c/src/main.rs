//! Beside `beside_rust.c`: the same loops over the same channels, between two pinned threads of one process.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use rustix::thread::{CpuSet, sched_setaffinity};
use zeroport::{ChannelOptions, MessageChannel, MessagePort, WaitStrategy};

/// Not measured: by then both sides have learnt how the other is.
const WARM_UP: usize = 400_000;
const TRIPS: usize = 100_000;
const MESSAGES: usize = 1_000_000;
/// Of a batch.
const BATCH: usize = 64;
const BYTES: [u8; 64] = [7; 64];

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let (here, there, count): (Here, There, usize) = match name.as_str() {
        "round-trip" => (ask, answer, TRIPS),
        "stream" => (post, receive, MESSAGES),
        "batched" => (post_batches, receive_batches, MESSAGES),
        _ => panic!("round-trip, stream or batched?"),
    };
    let channel = ChannelOptions::new().wait_strategy(WaitStrategy::Spin).open();
    let MessageChannel { port1, port2 } = channel.unwrap();
    // Who posts to a thread that has yet to start fills the ring, and measures a larger one.
    let both = Arc::new(Barrier::new(2));
    let started = both.clone();
    let other = std::thread::spawn(move || {
        pin(1);
        started.wait();
        there(&port2, count.min(WARM_UP));
        there(&port2, count);
    });
    pin(0);
    both.wait();
    here(&port1, count.min(WARM_UP));
    let start = Instant::now();
    here(&port1, count);
    other.join().unwrap();
    println!("{:.2}", start.elapsed().as_nanos() as f64 / count as f64);
}

type Here = fn(&MessagePort, usize);
type There = fn(&MessagePort, usize);

fn pin(processor: usize) {
    let mut processors = CpuSet::new();
    processors.set(processor);
    sched_setaffinity(None, &processors).unwrap();
}

fn ask(port: &MessagePort, count: usize) {
    for _ in 0..count {
        port.post_bytes(&BYTES).unwrap();
        black_box(port.recv().unwrap().bytes()[0]);
    }
}

fn answer(port: &MessagePort, count: usize) {
    for _ in 0..count {
        let message = port.recv().unwrap();
        port.post_bytes(message.bytes()).unwrap();
    }
}

fn post(port: &MessagePort, count: usize) {
    for _ in 0..count {
        port.post_bytes(&BYTES).unwrap();
    }
}

fn receive(port: &MessagePort, count: usize) {
    for _ in 0..count {
        black_box(port.recv().unwrap().bytes()[0]);
    }
}

fn post_batches(port: &MessagePort, count: usize) {
    let batch = [BYTES; BATCH];
    for _ in 0..count / BATCH {
        port.post_all_bytes(&batch).unwrap();
    }
}

fn receive_batches(port: &MessagePort, count: usize) {
    let mut left = count / BATCH * BATCH;
    while left > 0 {
        black_box(port.recv().unwrap().bytes()[0]);
        left -= 1;
        for message in port.drain().take(left) {
            black_box(message.bytes()[0]);
            left -= 1;
        }
    }
}
