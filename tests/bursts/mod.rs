//! Conversations that lose a wake-up, if it can be lost: then both sides sleep, and the watchdog of
//! the test bites.
//!
//! A wake-up is lost in a race of some nanoseconds, while a store is on its way. So the payloads have
//! many cache lines, which the poster's processor must first fetch: they hold the publishing store
//! back. Bursts are short, and silence comes after each: no later message makes up for a lost bell.
//! And the poster *hunts*: the reader tells whether it had slept when the last message of a burst
//! came, and the poster posts the next one a little sooner or later, always about when it goes to sleep.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use zeroport::{Event, MessagePort, PortSet, Receiver, Sender, WaitStrategy};

/// Words of a payload of 24 cache lines.
const LONG: usize = 24 * 64 / 8;
/// Words of a payload of less than one.
const SHORT: usize = 4;
/// After so many messages without a sleep a reader certainly streams.
pub(crate) const STREAM: usize = 70;
/// After so many single posts to a reader that streams, a poster is certainly registered.
const REGISTERED: u64 = 200_000;

/// Marks the last message of a burst.
pub(crate) const LAST: u64 = 1 << 63;
/// After so long somebody has slept through a message.
const STUCK: Duration = Duration::from_secs(15);

/// Bursts of both kinds, each the last word of the poster until it is answered.
pub(crate) fn post_bursts(port: &MessagePort, rounds: u64) {
    let mut hunt = Hunt::new();
    for round in 0..rounds {
        if round % 4 == 3 {
            // A reader that does not stream, and several long messages in a row.
            for n in 0..round % 5 {
                port.post_pod_slice(&[n; LONG]).expect("a reader");
            }
        } else {
            // All at once, so that the reader does not sleep in between, and streams after that.
            let burst = [[round; SHORT]; STREAM];
            port.post_all_bytes(burst.iter().map(bytemuck::bytes_of)).expect("a reader");
        }
        hunt.delay();
        port.post_pod_slice(&[LAST | round; LONG]).expect("a reader");
        let answer =
            port.recv_timeout(STUCK).expect("an answer: the reader sleeps through a message");
        hunt.learn(answer.bytes() == [1]);
    }
    port.closer().close();
}

/// Answers each burst, until the poster closes.
pub(crate) fn answer_bursts(port: &MessagePort) {
    let mut sleeps = port.sleeps();
    while let Ok(message) = port.recv() {
        let words: &[u64] = bytemuck::cast_slice(message.bytes());
        assert!(words.iter().all(|word| *word == words[0]), "a torn message");
        let slept = port.sleeps() != sleeps;
        sleeps = port.sleeps();
        if words[0] & LAST != 0 {
            port.post_bytes(&[u8::from(slept)]).expect("a poster");
        }
    }
}

/// As [`answer_bursts`], for a reader that waits in a set.
pub(crate) fn answer_bursts_in_a_set(port: MessagePort, strategy: WaitStrategy) {
    let mut set = PortSet::new().expect("a set");
    set.set_wait_strategy(strategy);
    set.insert((), port).expect("room in the set");
    while !set.is_empty() {
        let (sleeps, mut is_last) = (set.sleeps(), false);
        for (_, event) in set.wait().expect("a wait") {
            if let Event::Message(_, message) = event {
                let words: &[u64] = bytemuck::cast_slice(message.bytes());
                assert!(words.iter().all(|word| *word == words[0]), "a torn message");
                is_last |= words[0] & LAST != 0;
            }
        }
        if is_last {
            let slept = set.sleeps() != sleeps;
            set.get(&()).expect("a port").post_bytes(&[u8::from(slept)]).expect("a poster");
        }
    }
    assert!(strategy == WaitStrategy::Spin || set.sleeps() > 0, "never slept");
}

/// The delay before the last message of a burst, drawn towards the moment when the reader falls asleep.
pub(crate) struct Hunt {
    steps: i64,
    random: u64,
}

impl Hunt {
    pub(crate) fn new() -> Self {
        Self { steps: 1_000, random: 1 }
    }

    pub(crate) fn delay(&mut self) {
        let steps = self.steps + (next_random(&mut self.random) % 256) as i64;
        for step in 0..steps {
            black_box(step);
        }
    }

    pub(crate) fn learn(&mut self, slept: bool) {
        self.steps = (self.steps + if slept { -16 } else { 16 }).clamp(0, 1_000_000);
    }
}

/// As [`post_bursts`], for a reader in this process that says when it is about to fall asleep, so that
/// the last message of each burst comes at the very moment.
pub(crate) fn post_at_the_moment(port: &MessagePort, told: &AtomicU64, rounds: u64) {
    let mut random = 1;
    for round in 1..=rounds {
        let burst = [[round; SHORT]; STREAM];
        port.post_all_bytes(burst.iter().map(bytemuck::bytes_of)).expect("a reader");
        // Made before, so that nothing but the copy lies between the moment and the message.
        let last = [LAST | round; LONG];
        let steps = next_random(&mut random) % 256;
        let give_up = Instant::now() + STUCK;
        while told.load(Ordering::Relaxed) != round {
            assert!(Instant::now() < give_up, "the reader sleeps though messages wait for it");
        }
        for step in 0..steps {
            black_box(step);
        }
        port.post_pod_slice(&last).expect("a reader");
        assert_eq!(
            port.recv_timeout(STUCK)
                .expect("an answer: the reader sleeps through a message")
                .bytes(),
            b"answer"
        );
    }
    port.closer().close();
}

/// The other side of [`post_at_the_moment`].
pub(crate) fn tell_the_moment(port: &MessagePort, told: &AtomicU64) {
    let mut in_burst = 0;
    while let Ok(message) = port.recv() {
        let words: &[u64] = bytemuck::cast_slice(message.bytes());
        assert!(words.iter().all(|word| *word == words[0]), "a torn message");
        let word = words[0];
        drop(message);
        if word & LAST != 0 {
            in_burst = 0;
            port.post_bytes(b"answer").expect("a poster");
        } else {
            in_burst += 1;
            if in_burst == STREAM {
                told.store(word, Ordering::Relaxed);
            }
        }
    }
}

/// Marsaglia's xorshift.
fn next_random(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Lets the process of the poster meet a streaming reader until it registers for barriers.
pub(crate) fn warm_up_poster(port: &MessagePort) {
    port.set_wait_strategy(WaitStrategy::Spin);
    for n in 0..REGISTERED {
        port.post_bytes(&n.to_ne_bytes()).expect("a reader");
    }
    assert_eq!(port.recv().expect("the reader's word").bytes(), b"warm");
}

/// The other side of [`warm_up_poster`].
pub(crate) fn warm_up_reader(port: &MessagePort) {
    port.set_wait_strategy(WaitStrategy::Spin);
    for n in 0..REGISTERED {
        assert_eq!(port.recv().expect("a poster").bytes(), n.to_ne_bytes());
    }
    port.post_bytes(b"warm").expect("a poster");
}

/// Whether this process is registered for barriers, if the kernel can say so (Linux 6.3).
pub(crate) fn is_registered() -> Option<bool> {
    const GET_REGISTRATIONS: i32 = 1 << 9;
    const REGISTER_GLOBAL_EXPEDITED: i64 = 1 << 2;
    #[allow(unsafe_code)]
    // SAFETY: asks a question; touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) };
    (answer >= 0).then_some(answer & REGISTER_GLOBAL_EXPEDITED != 0)
}

/// Fills a small ring again and again with messages of all lengths: waits for room at every turn.
pub(crate) fn post_into_little_room(sender: &Sender, count: u64) {
    for n in 0..count {
        let len = (n % LONG as u64) as usize;
        sender.post_pod_slice(&vec![n; 1 + len]).expect("a reader");
    }
}

/// Reads [`post_into_little_room`]; dawdles now and then, so that the poster falls asleep.
pub(crate) fn read_from_little_room(receiver: &Receiver, count: u64) {
    read_and(receiver, count, |_| {});
}

/// As above, and sometimes for longer than anybody watches who waits for room.
pub(crate) fn read_from_little_room_with_pauses(receiver: &Receiver, count: u64) {
    const PAUSE: Duration = Duration::from_millis(30);
    read_and(receiver, count, |n| {
        let start = Instant::now();
        while n % 5_000 == 4_999 && start.elapsed() < PAUSE {}
    });
}

fn read_and(receiver: &Receiver, count: u64, dawdle: impl Fn(u64)) {
    for n in 0..count {
        let message = receiver.recv().expect("a poster");
        let words = message.pod_slice::<u64>().expect("words");
        assert_eq!(words.len() as u64, 1 + n % LONG as u64);
        assert!(words.iter().all(|word| *word == n), "a torn message");
        dawdle(n);
        for step in 0..(n % 64) * (n % 7) * 10 {
            black_box(step);
        }
    }
}

/// Both halves of both ports at once: each line has two sleepers at each end, one for messages and one
/// for room, and every bell is for one of them.
pub(crate) fn both_halves(port: MessagePort, count: u64) {
    let (sender, receiver) = port.split();
    std::thread::scope(|scope| {
        scope.spawn(move || post_into_little_room(&sender, count));
        read_from_little_room(&receiver, count);
    });
}
