//! Ports on long ways: what the other end posts meanwhile arrives once, in order, and wakes whoever
//! waits for it, whoever holds the port then.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod bursts;
mod ends;
mod stations;
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytemuck::{Pod, Zeroable};
use ends::expect_end;
use stations::{Random, Ring, Station, join_ring, journey, make_ring};
use support::Setup;
use zeroport::{
    CloseReason, MessageChannel, MessagePort, PostError, Receiver, RecvError, Sender,
    TransferError, WaitStrategy,
};

/// Marks the last message; the rest of its first word says how many came before.
const LAST: u64 = 1 << 63;
/// Words of the longest payload: 24 cache lines.
const LONG: usize = 24 * 64 / 8;
/// Words of a payload of less than one.
const SHORT: usize = 4;

/// What travels beside a port, from station to station.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Baggage {
    /// Changes of hands that are left.
    hops: u64,
    /// The number of the next message to receive.
    expected: u64,
    /// The number of the next message to post.
    next: u64,
    /// Words of the longest message.
    longest: u64,
    strategy: u64,
    random: u64,
}

const STRATEGIES: [WaitStrategy; 3] =
    [WaitStrategy::Adaptive, WaitStrategy::Sleep, WaitStrategy::Spin];

impl Baggage {
    fn new(setup: Setup, hops: u64, longest: usize) -> Self {
        let strategy = STRATEGIES.iter().position(|known| *known == setup.strategy).unwrap() as u64;
        Self { hops, expected: 0, next: 0, longest: longest as u64, strategy, random: hops | 1 }
    }

    fn random(&mut self) -> Random {
        let mut random = Random(self.random);
        self.random = random.next();
        random
    }
}

/// The words of message `n`; every length up to the longest comes up.
fn len_of(n: u64, longest: u64) -> usize {
    1 + (n.wrapping_mul(7) % longest) as usize
}

fn post_number(sender: &Sender, n: u64, longest: u64) {
    sender.post_pod_slice(&[n; LONG][..len_of(n, longest)]).expect("a reader");
}

fn check_number(words: &[u64], n: u64, longest: u64) {
    assert_eq!(words[0], n, "lost, doubled or out of order");
    assert_eq!(words.len(), len_of(n, longest));
    assert!(words.iter().all(|word| *word == n), "a torn message");
}

fn receive_number(receiver: &Receiver, n: u64, longest: u64) {
    let message = receiver.recv().expect("a poster");
    check_number(message.pod_slice().expect("words"), n, longest);
}

/// Receives what comes until the last message, which comes after as many as it says.
fn receive_to_the_last(receiver: &Receiver, mut expected: u64, longest: u64) {
    loop {
        let message = receiver.recv().expect("a poster");
        let words = message.pod_slice::<u64>().expect("words");
        if words[0] & LAST != 0 {
            assert_eq!(words, [LAST | expected]);
            return;
        }
        check_number(words, expected, longest);
        expected += 1;
    }
}

/// Takes each port off the ring, has it visited, and passes it on; what the visit keeps has come to its
/// end. Messages without ports go on as they are, `Some` of them only.
fn pass_on(
    ring: &Ring,
    mut visit: impl FnMut(MessagePort, &mut Baggage) -> Option<MessagePort>,
    mut report: impl FnMut(&MessagePort),
) {
    while let Ok(message) = ring.last.recv() {
        if message.port_count() == 0 {
            report(&ring.first);
            continue;
        }
        let mut baggage: Baggage = bytemuck::pod_read_unaligned(message.bytes());
        let [port] = message.take_ports().expect("a port");
        drop(message);
        port.set_wait_strategy(STRATEGIES[baggage.strategy as usize]);
        if let Some(port) = visit(port, &mut baggage) {
            ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), port).expect("a next one");
        }
    }
}

fn report(ring: &MessagePort) {
    ring.post_bytes(b"report").expect("a next one");
}

// S-102: the other end posts, and receives, without pause.

/// Receives some and posts some, one after the other or both at once.
fn visit_in_traffic(port: MessagePort, baggage: &mut Baggage) -> MessagePort {
    baggage.hops -= 1;
    let mut random = baggage.random();
    let (reads, posts) = (random.amount(), random.amount());
    let longest = baggage.longest;
    let (to_read, to_post) =
        (baggage.expected..baggage.expected + reads, baggage.next..baggage.next + posts);
    (baggage.expected, baggage.next) = (to_read.end, to_post.end);

    let (sender, receiver) = port.split();
    let sender = if random.below(2) == 0 {
        to_post.for_each(|n| post_number(&sender, n, longest));
        to_read.for_each(|n| receive_number(&receiver, n, longest));
        sender
    } else {
        let poster = thread::spawn(move || {
            to_post.for_each(|n| post_number(&sender, n, longest));
            sender
        });
        to_read.for_each(|n| receive_number(&receiver, n, longest));
        poster.join().expect("the poster")
    };
    MessagePort::join(sender, receiver).expect("both halves")
}

/// The station where the way ends reports, and receives what is left.
fn station_in_traffic(host: MessagePort) {
    let ring = join_ring(&host).expect("a ring");
    pass_on(
        &ring,
        |port, baggage| {
            if baggage.hops > 0 {
                return Some(visit_in_traffic(port, baggage));
            }
            report(&ring.first);
            let (sender, receiver) = port.split();
            receive_to_the_last(&receiver, baggage.expected, baggage.longest);
            sender.post_pod_slice(&[LAST | baggage.next]).expect("a reader");
            None
        },
        report,
    );
}

/// One end stays with the host, the other makes its way round the ring, of which the host is part.
fn a_hundred_hops(stations: &[Station], setup: Setup, longest: usize) {
    // The last change of hands brings it to the first station.
    let hops = 1 + 3 * if ends::long() { 20_000 } else { 33 };
    let ring = make_ring(stations, Setup::new());
    let MessageChannel { port1: fixed, port2: moving } = setup.open();
    let baggage = Baggage::new(setup, hops - 1, longest);
    let longest = longest as u64;
    let (sender, receiver) = fixed.split();
    let arrived = &AtomicBool::new(false);
    let (sender, receiver) = thread::scope(|scope| {
        let poster = scope.spawn(move || {
            let mut n = 0;
            while !arrived.load(Ordering::Relaxed) {
                post_number(&sender, n, longest);
                n += 1;
            }
            sender.post_pod_slice(&[LAST | n]).expect("a reader");
            sender
        });
        let reader = scope.spawn(move || {
            receive_to_the_last(&receiver, 0, longest);
            receiver
        });
        ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), moving).expect("a station");
        pass_on(
            &ring,
            |port, baggage| Some(visit_in_traffic(port, baggage)),
            |ring| {
                arrived.store(true, Ordering::Relaxed);
                ring.closer().close();
            },
        );
        (poster.join().expect("the poster"), reader.join().expect("the reader"))
    });
    if setup.strategy == WaitStrategy::Sleep && setup.limits[0] == 0 {
        assert!(sender.sleeps() > 0, "the poster never slept for room");
    }
    let fixed = MessagePort::join(sender, receiver).expect("both halves");
    expect_end(&fixed, CloseReason::Closed);
}

/// One ring that is soon full; a queue that grows from it; and one that is soon as long as it may be.
const SMALL: Setup = Setup::new().capacity(4096).limit(0);
const GROWING: Setup = Setup::new().capacity(4096);
const LIMITED: Setup = Setup::new().capacity(4096).limit(64 << 10);

macro_rules! a_hundred_hops {
    ($name:ident, $setup:expr, $longest:expr) => {
        journey!(
            $name,
            2,
            |stations: &mut Vec<Station>| a_hundred_hops(stations, $setup, $longest),
            station_in_traffic,
        );
    };
}

mod a_hundred_hops_in_traffic {
    use super::*;
    use zeroport::WaitStrategy::{Sleep, Spin};

    a_hundred_hops!(adaptive, Setup::new(), SHORT);
    a_hundred_hops!(sleep, Setup::new().strategy(Sleep), SHORT);
    a_hundred_hops!(spin, Setup::new().strategy(Spin), SHORT);
    a_hundred_hops!(untrusted, Setup::new().untrusted(), LONG);
    a_hundred_hops!(long, Setup::new(), LONG);
    a_hundred_hops!(small_ring, SMALL, LONG);
    a_hundred_hops!(small_ring_sleep, SMALL.strategy(Sleep), LONG);
    a_hundred_hops!(small_ring_untrusted, SMALL.strategy(Sleep).untrusted(), LONG);
    a_hundred_hops!(growing, GROWING, LONG);
    a_hundred_hops!(growing_untrusted, GROWING.untrusted(), LONG);
    a_hundred_hops!(limited, LIMITED, LONG);
    a_hundred_hops!(limited_sleep, LIMITED.strategy(Sleep), LONG);
    a_hundred_hops!(limited_untrusted, LIMITED.strategy(Sleep).untrusted(), LONG);
}

// S-103: both ends are on their way at once.

/// Posts and receives what can be had without waiting.
fn visit_in_passing(port: &MessagePort, baggage: &mut Baggage) -> bool {
    let mut random = baggage.random();
    let longest = baggage.longest;
    let last_posts = baggage.hops == 0;
    for _ in 0..random.amount() {
        let n = baggage.next;
        if last_posts || port.try_post_pod_slice(&[n; LONG][..len_of(n, longest)]).is_err() {
            break;
        }
        baggage.next += 1;
    }
    // The mark of the last message stays in the baggage, so it is posted once.
    if last_posts
        && baggage.next & LAST == 0
        && port.try_post_pod_slice(&[LAST | baggage.next]).is_ok()
    {
        baggage.next |= LAST;
    }
    let reads = if last_posts { u64::MAX } else { random.amount() };
    for _ in 0..reads {
        match port.try_recv() {
            Ok(message) => {
                let words = message.pod_slice::<u64>().expect("words");
                if words[0] & LAST != 0 {
                    assert_eq!(words, [LAST | baggage.expected]);
                    baggage.expected |= LAST;
                } else {
                    check_number(words, baggage.expected, longest);
                    baggage.expected += 1;
                }
            }
            Err(RecvError::Empty) => break,
            // The other end has received our last message, and we its.
            Err(end) => {
                assert_eq!(end, RecvError::Closed(CloseReason::Closed));
                assert!(baggage.expected & LAST != 0 && baggage.next & LAST != 0, "{baggage:?}");
                break;
            }
        }
    }
    baggage.hops = baggage.hops.saturating_sub(1);
    baggage.expected & baggage.next & LAST != 0
}

fn wander(ring: &Ring, report: impl FnMut(&MessagePort)) {
    pass_on(
        ring,
        |port, baggage| {
            if visit_in_passing(&port, baggage) {
                self::report(&ring.first);
                return None;
            }
            Some(port)
        },
        report,
    );
}

fn both_ends_wander(stations: &[Station], setup: Setup, longest: usize) {
    const CHANNELS: u64 = 3;
    let hops = if ends::long() { 20_000 } else { 300 };
    let ring = make_ring(stations, Setup::new());
    for channel in 0..CHANNELS {
        let MessageChannel { port1, port2 } = setup.open();
        for (port, hops) in [(port1, hops + channel), (port2, hops + 50 * channel)] {
            let baggage = Baggage::new(setup, hops, longest);
            ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), port).expect("a station");
        }
    }
    let mut arrived = 0;
    wander(&ring, |ring| {
        arrived += 1;
        if arrived == 2 * CHANNELS {
            ring.closer().close();
        }
    });
    assert_eq!(arrived, 2 * CHANNELS);
}

fn wandering_station(host: MessagePort) {
    let ring = join_ring(&host).expect("a ring");
    wander(&ring, report);
}

macro_rules! both_ends_wander {
    ($name:ident, $setup:expr, $longest:expr) => {
        journey!(
            $name,
            3,
            |stations: &mut Vec<Station>| both_ends_wander(stations, $setup, $longest),
            wandering_station,
        );
    };
}

mod both_ends_at_once {
    use super::*;

    both_ends_wander!(short, Setup::new(), SHORT);
    both_ends_wander!(long, Setup::new(), LONG);
    both_ends_wander!(small_ring, SMALL, LONG);
    both_ends_wander!(untrusted, SMALL.untrusted(), LONG);
}

// Wake-ups across a change of hands: bursts, then silence. The port moves in the middle of a burst,
// from one who streams to one who is about to sleep, and no later message makes up for a lost bell.
mod wake_ups {
    use std::hint::black_box;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use super::*;
    use bursts::{Hunt, is_registered, warm_up_poster, warm_up_reader};

    /// After so many messages without a sleep a reader certainly streams.
    const STREAM: usize = 70;
    /// After so long somebody has slept through a message.
    const STUCK: Duration = Duration::from_secs(15);

    fn rounds(usually: u64) -> u64 {
        if ends::long() { 200_000 } else { usually }
    }

    /// When the last message of a round is posted: about when the new holder falls asleep.
    trait Timing {
        fn wait(&mut self, round: u64);
        fn learn(&mut self, slept: bool);
    }

    impl Timing for Hunt {
        fn wait(&mut self, _: u64) {
            self.delay();
        }

        fn learn(&mut self, slept: bool) {
            Self::learn(self, slept);
        }
    }

    /// The round whose last message the holder is about to wait for: [`telling_station`]s say so.
    static MOMENT: AtomicU64 = AtomicU64::new(0);

    struct AtTheMoment(Random);

    impl Timing for AtTheMoment {
        fn wait(&mut self, round: u64) {
            let steps = self.0.below(256);
            let give_up = Instant::now() + STUCK;
            while MOMENT.load(Ordering::Relaxed) != round {
                assert!(Instant::now() < give_up, "the port does not arrive, or its holder sleeps");
            }
            for step in 0..steps {
                black_box(step);
            }
        }

        fn learn(&mut self, _: bool) {}
    }

    fn expect_words<const N: usize>(port: &MessagePort, word: u64) {
        let message = port.recv_timeout(STUCK).expect("a message: its reader sleeps");
        let words: &[u64] = bytemuck::cast_slice(message.bytes());
        assert_eq!(words, [word; N]);
    }

    /// Receives the last message of a round and answers it, then the burst of the next round, in the
    /// course of which it streams. The baggage counts rounds; `None`: that was the last.
    fn visit_of_a_sleeper(
        port: MessagePort,
        baggage: &mut Baggage,
        tell: fn(u64),
    ) -> Option<MessagePort> {
        let (round, sleeps) = (baggage.next, port.sleeps());
        tell(round);
        expect_words::<LONG>(&port, LAST | round);
        port.post_bytes(&[u8::from(port.sleeps() != sleeps)]).expect("a poster");
        baggage.next += 1;
        if baggage.next > baggage.hops {
            return None;
        }
        for _ in 0..STREAM {
            expect_words::<SHORT>(&port, baggage.next);
        }
        Some(port)
    }

    fn sleepy_station(host: MessagePort) {
        let ring = join_ring(&host).expect("a ring");
        pass_on_until_the_last(&ring, |_| (), report);
    }

    fn telling_station(host: MessagePort) {
        let ring = join_ring(&host).expect("a ring");
        pass_on_until_the_last(&ring, tell, report);
    }

    fn tell(round: u64) {
        MOMENT.store(round, Ordering::Relaxed);
    }

    fn pass_on_until_the_last(ring: &Ring, tell: fn(u64), at_the_end: fn(&MessagePort)) {
        let visit = |port, baggage: &mut Baggage| {
            let port = visit_of_a_sleeper(port, baggage, tell);
            if port.is_none() {
                at_the_end(&ring.first);
            }
            port
        };
        pass_on(ring, visit, at_the_end);
    }

    /// Posts bursts to a port that moves in each of them, and that lies in nobody's hands at the start.
    fn bursts_to_a_mover(
        stations: &[Station],
        strategy: WaitStrategy,
        mut timing: impl Timing + Send + 'static,
        tell: fn(u64),
        rounds: u64,
    ) {
        let setup = Setup::new().capacity(256 << 10).strategy(strategy);
        let ring = make_ring(stations, Setup::new());
        let MessageChannel { port1: fixed, port2: moving } = setup.open();
        let warm = thread::spawn(move || {
            warm_up_poster(&fixed);
            fixed
        });
        warm_up_reader(&moving);
        let fixed = warm.join().expect("the poster");
        fixed.set_wait_strategy(strategy);
        assert_ne!(is_registered(), Some(false));

        let mut baggage = Baggage::new(setup, rounds, LONG);
        baggage.next = 1;
        ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), moving).expect("a station");
        let poster = thread::spawn(move || {
            for round in 1..=rounds {
                if round > 1 {
                    // All at once, so that the holder does not sleep in between.
                    let burst = [[round; SHORT]; STREAM];
                    fixed.post_all_bytes(burst.iter().map(bytemuck::bytes_of)).expect("a reader");
                }
                // Made before, so that nothing but the copy lies between the moment and the message.
                let last = [LAST | round; LONG];
                timing.wait(round);
                fixed.post_pod_slice(&last).expect("a reader");
                let answer = fixed.recv_timeout(STUCK).expect("an answer: the reader sleeps");
                timing.learn(answer.bytes() == [1]);
            }
        });
        pass_on_until_the_last(&ring, tell, |first| first.closer().close());
        poster.join().expect("the poster");
    }

    journey!(
        bursts_to_a_sleeper,
        2,
        |stations: &mut Vec<Station>| bursts_to_a_mover(
            stations,
            WaitStrategy::Sleep,
            Hunt::new(),
            |_| (),
            rounds(3_000)
        ),
        sleepy_station,
    );
    journey!(
        bursts_to_an_adaptive_reader,
        2,
        |stations: &mut Vec<Station>| bursts_to_a_mover(
            stations,
            WaitStrategy::Adaptive,
            Hunt::new(),
            |_| (),
            rounds(3_000)
        ),
        sleepy_station,
    );

    /// The last message comes at the very moment when the new holder goes to sleep, on a port whose
    /// former holder streamed: its promise not to sleep must have gone over to the new one.
    #[test]
    fn at_the_moment_of_falling_asleep() {
        let host = |stations: &mut Vec<Station>| {
            bursts_to_a_mover(
                stations,
                WaitStrategy::Sleep,
                AtTheMoment(Random(1)),
                tell,
                rounds(30_000),
            );
        };
        stations::among_threads(2, host, telling_station);
    }

    // The same for room: the port that moves is the one that posts.

    /// Posts what the reader reads at once, in the course of which it streams, after it has waited for
    /// room: for as many long messages as do not fit.
    fn visit_of_a_poster(port: MessagePort, baggage: &mut Baggage) -> Option<MessagePort> {
        for n in 0..5 {
            port.post_pod_slice(&[baggage.next + n; LONG]).expect("a reader");
        }
        baggage.next += 5;
        for n in 0..STREAM as u64 {
            port.post_pod_slice(&[baggage.next + n; SHORT]).expect("a reader");
        }
        baggage.next += STREAM as u64;
        baggage.hops -= 1;
        (baggage.hops > 0).then_some(port)
    }

    fn posting_station(host: MessagePort) {
        let ring = join_ring(&host).expect("a ring");
        let visit = |port, baggage: &mut Baggage| {
            let port = visit_of_a_poster(port, baggage);
            if port.is_none() {
                report(&ring.first);
            }
            port
        };
        pass_on(&ring, visit, report);
    }

    /// Reads from a port that moves; dawdles now and then, so that its poster falls asleep.
    fn little_room_for_a_mover(stations: &[Station], strategy: WaitStrategy) {
        let setup = SMALL.strategy(strategy);
        let ring = make_ring(stations, Setup::new());
        let MessageChannel { port1: fixed, port2: moving } = setup.open();
        let baggage = Baggage::new(setup, rounds(3_000), LONG);
        ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), moving).expect("a station");
        let reader = thread::spawn(move || {
            let mut random = Random(1);
            let mut n = 0;
            loop {
                match fixed.recv_timeout(STUCK) {
                    Ok(message) => {
                        let words = message.pod_slice::<u64>().expect("words");
                        assert!(words.iter().all(|word| *word == n), "torn, lost or doubled");
                    }
                    Err(RecvError::Closed(CloseReason::Closed)) => return n,
                    Err(error) => panic!("{error}: its poster sleeps"),
                }
                n += 1;
                for step in 0..random.below(8) * random.below(256) {
                    black_box(step);
                }
            }
        });
        let visit = |port, baggage: &mut Baggage| {
            let port = visit_of_a_poster(port, baggage);
            if port.is_none() {
                ring.first.closer().close();
            }
            port
        };
        pass_on(&ring, visit, |first| first.closer().close());
        assert_eq!(reader.join().expect("the reader"), rounds(3_000) * (5 + STREAM as u64));
    }

    journey!(
        little_room,
        2,
        |stations: &mut Vec<Station>| little_room_for_a_mover(stations, WaitStrategy::Sleep),
        posting_station,
    );
    journey!(
        little_room_for_an_adaptive_poster,
        2,
        |stations: &mut Vec<Station>| little_room_for_a_mover(stations, WaitStrategy::Adaptive),
        posting_station,
    );

    // And for room on the lane: each message carries a port, and the lane is full before the ring is.

    /// Receives some, with their ports or without; `None`: the last one was among them.
    fn visit_of_a_taker(port: MessagePort, baggage: &mut Baggage) -> Option<MessagePort> {
        for _ in 0..baggage.random().amount() {
            let message = port.recv_timeout(STUCK).expect("a message: its reader sleeps");
            let n = *message.pod::<u64>().expect("a number");
            if message.port_count() == 0 {
                assert_eq!(n, LAST | baggage.expected);
                return None;
            }
            assert_eq!(n, baggage.expected, "lost, doubled or out of order");
            baggage.expected += 1;
            // The others are dropped with their messages.
            if !n.is_multiple_of(3) {
                let [came] = message.take_ports().expect("a port");
                assert_eq!(came.recv().expect("its message").pod::<u64>().expect("a number"), &n);
            }
        }
        Some(port)
    }

    fn taking_station(host: MessagePort) {
        take_until_the_last(&join_ring(&host).expect("a ring"), report);
    }

    fn take_until_the_last(ring: &Ring, at_the_end: fn(&MessagePort)) {
        let visit = |port, baggage: &mut Baggage| {
            let port = visit_of_a_taker(port, baggage);
            if port.is_none() {
                at_the_end(&ring.first);
            }
            port
        };
        pass_on(ring, visit, at_the_end);
    }

    /// The kernel counts descriptors in flight for each user; who else is at that limit is no matter.
    fn post_port(fixed: &MessagePort, n: u64, port: MessagePort) {
        let mut list = [port].into();
        let give_up = Instant::now() + STUCK;
        while let Err(TransferError { list: back, source, .. }) = fixed.post_pod_with(&n, list) {
            assert!(matches!(source, PostError::Os(_)) && Instant::now() < give_up, "{source}");
            thread::yield_now();
            list = back;
        }
    }

    /// A port in which a number waits.
    fn port_for(n: u64) -> MessagePort {
        let MessageChannel { port1, port2 } = Setup::new().open();
        port1.post_pod(&n).expect("a channel");
        port2
    }

    fn little_room_on_the_lane(stations: &[Station]) {
        let messages = rounds(2_000);
        let ring = make_ring(stations, Setup::new());
        let MessageChannel { port1: fixed, port2: moving } =
            Setup::new().limit(0).strategy(WaitStrategy::Sleep).open();
        let (mut n, mut refused) = (0, None);
        while refused.is_none() {
            match fixed.try_post_pod_with(&n, port_for(n)) {
                Ok(()) => n += 1,
                Err(error) => refused = error.list.into_ports().pop(),
            }
        }
        assert!(n < messages, "never full");
        let poster = support::asleep(move || {
            while n < messages {
                let port = refused.take().unwrap_or_else(|| port_for(n));
                post_port(&fixed, n, port);
                n += 1;
            }
            fixed.post_pod(&(LAST | messages)).expect("a reader");
            assert!(fixed.sleeps() > 0, "never waited");
        });
        let baggage = Baggage::new(Setup::new(), 1, LONG);
        ring.first.post_bytes_with(bytemuck::bytes_of(&baggage), moving).expect("a station");
        take_until_the_last(&ring, |first| first.closer().close());
        poster.join();
    }

    journey!(
        little_room_on_a_lane,
        2,
        |stations: &mut Vec<Station>| {
            support::raise_descriptor_limit();
            little_room_on_the_lane(stations);
        },
        taking_station,
    );
}
