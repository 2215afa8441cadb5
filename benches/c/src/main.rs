//! Beside `beside_rust.c`: the same loops over channels of the same kind, between two pinned threads of one process, which
//! take turns. So a round compares what ran within the same milliseconds.
//!
//! `zeroport-beside-c WORKLOAD STATIC SHARED`: the loops in C, with the static library in them and with the shared one. Prints
//! nanoseconds a message for Rust, both of C and the floor if there is one, then each of those by Rust's of the same round:
//! the middle ones.

use std::arch::asm;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::thread::{CpuSet, sched_setaffinity};
use zeroport::{ChannelOptions, Message, MessageChannel, MessagePort, WaitStrategy};

const ROUNDS: usize = 40;
/// Posts before the first round: by then both sides have learnt how the other is, and the process has registered for barriers.
const LEARNING: usize = 100_000;
/// Messages before the clock starts in each turn. All counts are of whole batches.
const WARM_UP: usize = 6_400;
/// Of a batch.
const BATCH: usize = 64;
const BYTES: [u8; 64] = [7; 64];

/// This side's loop, and the other's.
type Loops = [fn(&MessagePort, usize); 2];

struct Workload {
    name: &'static str,
    /// Messages of a post.
    at_once: usize,
    /// Messages of a turn.
    count: usize,
    in_rust: Loops,
    /// The same with post, receive and release behind calls that are not inlined, as they are for every C program.
    floor: Option<Loops>,
    in_c: [&'static str; 2],
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "round-trip",
        at_once: 1,
        count: 19_200,
        in_rust: [ask, answer],
        floor: Some([ask_by_calls, answer_by_calls]),
        in_c: ["ask", "answer"],
    },
    Workload {
        name: "batched",
        at_once: BATCH,
        count: 512_000,
        in_rust: [post_batches, receive_batches],
        floor: None,
        in_c: ["post_batches", "receive_batches"],
    },
    Workload {
        name: "stream",
        at_once: 1,
        count: 192_000,
        in_rust: [post, receive],
        floor: None,
        in_c: ["post", "receive"],
    },
];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, libraries @ ..] = &arguments[..] else { panic!("which workload?") };
    let workload = WORKLOADS.into_iter().find(|it| it.name == name).expect("a workload");
    let mut contestants = vec![over_a_channel(workload.in_rust)];
    contestants.extend(libraries.iter().map(|library| in_c(library, workload.in_c)));
    contestants.extend(workload.floor.map(over_a_channel));
    let times = measure(contestants, LEARNING * workload.at_once, workload.count);
    let [in_rust, others @ ..] = &times[..] else { unreachable!() };
    let ratio = |other: &Vec<f64>| other.iter().zip(in_rust).map(|(it, rust)| it / rust).collect();
    let figures = times.iter().cloned().chain(others.iter().map(ratio)).map(middle);
    println!("{}", figures.map(|figure| format!("{figure:.3}")).collect::<Vec<_>>().join(" "));
}

fn middle(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

type Half = Box<dyn Fn(usize) + Send>;

struct Contestant {
    here: Half,
    there: Half,
}

fn over_a_channel([here, there]: Loops) -> Contestant {
    let channel = ChannelOptions::new().wait_strategy(WaitStrategy::Spin).open();
    let MessageChannel { port1, port2 } = channel.unwrap();
    let here = Box::new(move |count| here(&port1, count));
    Contestant { here, there: Box::new(move |count| there(&port2, count)) }
}

fn in_c(library: &str, names: [&str; 2]) -> Contestant {
    // SAFETY: built for this, and stays.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) }.unwrap();
    let library = Box::leak(Box::new(library));
    let mut ports = [0u64; 2];
    // SAFETY: `void open_channel(zp_port ports[2])`.
    let open = unsafe { library.get::<extern "C" fn(*mut u64)>(b"open_channel") }.unwrap();
    open(ports.as_mut_ptr());
    let half = |name: &str, port| -> Half {
        // SAFETY: `void ask(zp_port port, size_t count)`, and all others.
        let half = unsafe { library.get::<extern "C" fn(u64, usize)>(name.as_bytes()) }.unwrap();
        Box::new(move |count| half(port, count))
    };
    Contestant { here: half(names[0], ports[0]), there: half(names[1], ports[1]) }
}

/// Nanoseconds a message, of each contestant in each round.
fn measure(contestants: Vec<Contestant>, learning: usize, count: usize) -> Vec<Vec<f64>> {
    let all = contestants.len();
    let (here, there): (Vec<_>, Vec<_>) =
        contestants.into_iter().map(|it| (it.here, it.there)).unzip();
    // Nobody is always the first one, or always behind the same.
    let turn = move |round: usize, turn| {
        let turn = (turn + round) % all;
        if round.is_multiple_of(2) { turn } else { all - 1 - turn }
    };
    let turns = move || (0..ROUNDS).flat_map(move |round| (0..all).map(move |it| turn(round, it)));
    let other = std::thread::spawn(move || {
        pin(1);
        for half in &there {
            meet();
            half(learning);
        }
        for turn in turns() {
            meet();
            there[turn](WARM_UP + count);
            meet();
        }
    });
    pin(0);
    for half in &here {
        meet();
        half(learning);
    }
    let mut times = vec![Vec::new(); all];
    for turn in turns() {
        meet();
        here[turn](WARM_UP);
        let start = Instant::now();
        here[turn](count);
        meet();
        times[turn].push(start.elapsed().as_nanos() as f64 / count as f64);
    }
    other.join().unwrap();
    times
}

/// Waits for the other thread, without sleeping: who posts to one that has yet to wake up fills the ring, and measures a
/// larger one.
fn meet() {
    static MET: AtomicUsize = AtomicUsize::new(0);
    let both = (MET.fetch_add(1, Ordering::AcqRel) + 1).next_multiple_of(2);
    while MET.load(Ordering::Acquire) < both {
        spin_loop();
    }
}

fn pin(processor: usize) {
    let mut processors = CpuSet::new();
    processors.set(processor);
    sched_setaffinity(None, &processors).unwrap();
}

/// Has the compiler read the message, and nothing else done.
fn look(message: &Message<'_>) {
    let first = usize::from(message.bytes()[0]);
    // SAFETY: does nothing.
    unsafe { asm!("/* {} */", in(reg) first, options(nomem, nostack, preserves_flags)) };
}

fn ask(port: &MessagePort, count: usize) {
    for _ in 0..count {
        port.post_bytes(&BYTES).unwrap();
        look(&port.recv().unwrap());
    }
}

fn answer(port: &MessagePort, count: usize) {
    for _ in 0..count {
        let message = port.recv().unwrap();
        port.post_bytes(message.bytes()).unwrap();
    }
}

fn ask_by_calls(port: &MessagePort, count: usize) {
    let mut place = None;
    for _ in 0..count {
        assert!(call_post(port, &BYTES));
        assert!(call_recv(port, &mut place));
        look(place.as_ref().unwrap());
        call_release(&mut place);
    }
}

fn answer_by_calls(port: &MessagePort, count: usize) {
    let mut place = None;
    for _ in 0..count {
        assert!(call_recv(port, &mut place));
        assert!(call_post(port, place.as_ref().unwrap().bytes()));
        call_release(&mut place);
    }
}

#[inline(never)]
fn call_post(port: &MessagePort, bytes: &[u8]) -> bool {
    port.post_bytes(bytes).is_ok()
}

#[inline(never)]
fn call_recv<'p>(port: &'p MessagePort, place: &mut Option<Message<'p>>) -> bool {
    *place = port.recv().ok();
    place.is_some()
}

#[inline(never)]
fn call_release(place: &mut Option<Message<'_>>) {
    *place = None;
}

fn post(port: &MessagePort, count: usize) {
    for _ in 0..count {
        port.post_bytes(&BYTES).unwrap();
    }
}

fn receive(port: &MessagePort, count: usize) {
    for _ in 0..count {
        look(&port.recv().unwrap());
    }
}

fn post_batches(port: &MessagePort, count: usize) {
    let batch = [BYTES; BATCH];
    for _ in 0..count / BATCH {
        port.post_all_bytes(batch.iter()).unwrap();
    }
}

fn receive_batches(port: &MessagePort, count: usize) {
    let mut left = count / BATCH * BATCH;
    while left > 0 {
        look(&port.recv().unwrap());
        left -= 1;
        for message in port.drain().take(left) {
            look(&message);
            left -= 1;
        }
    }
}
