//! The hot path in one process and one thread, for counting its instructions: `ci/counts`.
//!
//! `hot_path CASE ROUNDS` posts and receives 64 messages in each round. What it costs to make a channel, and
//! to come to where a stream needs no fence, is the same for any number of rounds.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;

use zeroport::{AsPod, Handlers, MessageChannel, MessagePort, NamedMessage, Tagged, transfer};

/// Messages of a round.
const ROUND: u64 = 64;
/// After so many rounds this process is registered for barriers: 65 536 posts.
const WARM_UP: u64 = 1100;

type Case = (&'static str, fn(&Ports));

const CASES: [Case; 7] = [
    ("stream", stream),
    ("round_trip", round_trip),
    ("batched", batched),
    ("bytes", bytes),
    ("typed", typed),
    ("named", named),
    ("handled", handled),
];

struct Ports {
    port1: MessagePort,
    port2: MessagePort,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Sample {
    id: u64,
    name: String,
    samples: Vec<f32>,
}

impl Tagged for Sample {
    const NAME: &'static str = "bench.Sample";
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [case, rounds] = arguments.as_slice() {
        let (_, work) = CASES.iter().find(|(name, _)| name == case).unwrap();
        return run(*work, WARM_UP, rounds.parse().unwrap());
    }
    // As a test: it still runs.
    for (_, work) in CASES {
        run(work, 1, 1);
    }
}

fn run(work: fn(&Ports), warm_up: u64, rounds: u64) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let ports = Ports { port1, port2 };
    for _ in 0..warm_up {
        stream(&ports);
    }
    for _ in 0..rounds {
        work(&ports);
    }
}

fn payload(step: u64) -> [u64; 8] {
    std::array::from_fn(|word| step.wrapping_add(word as u64))
}

fn receive(port: &MessagePort) {
    black_box(port.recv().unwrap().pod::<[u64; 8]>().unwrap());
}

fn stream(Ports { port1, port2 }: &Ports) {
    for step in 0..ROUND {
        port1.post_pod(&payload(step)).unwrap();
    }
    for _ in 0..ROUND {
        receive(port2);
    }
}

fn round_trip(Ports { port1, port2 }: &Ports) {
    for step in 0..ROUND / 2 {
        port1.post_pod(&payload(step)).unwrap();
        receive(port2);
        port2.post_pod(&payload(step)).unwrap();
        receive(port1);
    }
}

fn batched(Ports { port1, port2 }: &Ports) {
    let batch: [_; ROUND as usize] = std::array::from_fn(|step| payload(step as u64));
    port1.post_all_pod(&batch).unwrap();
    for message in port2.drain() {
        black_box(message.pod::<[u64; 8]>().unwrap());
    }
}

fn bytes(Ports { port1, port2 }: &Ports) {
    let bytes = black_box([7; 100].as_slice());
    for _ in 0..ROUND {
        port1.post_bytes(bytes).unwrap();
    }
    for _ in 0..ROUND {
        black_box(port2.recv().unwrap().bytes());
    }
}

fn typed(Ports { port1, port2 }: &Ports) {
    let mut sample = Sample { id: 0, name: "sixteen bytes ok".into(), samples: vec![0.5; 16] };
    for step in 0..ROUND {
        sample.id = step;
        port1.post(&sample).unwrap();
    }
    for _ in 0..ROUND {
        black_box(port2.recv().unwrap().get::<Sample>().unwrap().id);
    }
}

fn post_named(port: &MessagePort) {
    for step in 0..ROUND {
        port.post_message("provide-samples", &AsPod(payload(step)), transfer![]).unwrap();
    }
}

fn named(Ports { port1, port2 }: &Ports) {
    post_named(port1);
    for _ in 0..ROUND {
        let message = NamedMessage::open(port2.recv().unwrap()).unwrap();
        black_box((message.name(), message.pod::<[u64; 8]>().unwrap()));
    }
}

fn handled(Ports { port1, port2 }: &Ports) {
    let mut handlers = Handlers::new();
    for name in ["request-worker-channel", "provide-samples", "report", "tick"] {
        handlers.on(name, |event| _ = black_box(event.pod::<[u64; 8]>().unwrap()));
    }
    post_named(port1);
    for _ in 0..ROUND {
        handlers.dispatch(port2.sender(), &(), &port2.recv().unwrap());
    }
}
