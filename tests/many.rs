//! Many ports in one message, many messages with ports, many moves: all arrive, and nothing stays behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod ends;
mod stations;
mod support;

use std::time::{Duration, Instant};

use ends::expect_report;
use rustix::io::Errno;
use rustix::process::{Resource, Signal, getpid, getrlimit, kill_process};
use stations::{Station, counting, journey};
use support::{
    alone, channels, conversation, count_descriptors, count_segment_mappings, count_threads,
    expect_all_entangled, expect_entangled, lower_descriptor_limit, raise_descriptor_limit,
};
use zeroport::{
    CloseReason, MessageChannel, MessagePort, OpenError, PostError, TakeError, TransferError,
    TransferList, transfer,
};

/// What this process holds.
fn holdings() -> (usize, usize, usize) {
    (count_descriptors(), count_segment_mappings(), count_threads())
}

/// Bytes of memory that this process has in use.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// So many channels at most, if each needs `each` descriptors in one process. (The limit is also that of
/// what an ordinary user may have in flight.)
fn as_many_as_can_be(wanted: usize, each: usize) -> usize {
    wanted.min((raise_descriptor_limit() as usize - 100) / each)
}

/// Posts ports; an ordinary user may have to wait until others were received.
fn post_ports(port: &MessagePort, bytes: &[u8], list: impl Into<TransferList>) {
    let mut list = list.into();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match port.post_bytes_with(bytes, list) {
            Ok(()) => return,
            Err(TransferError { list: back, source: PostError::Os(error), .. })
                if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) =>
            {
                assert!(Instant::now() < deadline, "nobody receives");
                std::thread::yield_now();
                list = back;
            }
            Err(refused) => panic!("{refused}"),
        }
    }
}

// ---- S-111 ----

conversation!(
    many_ports_in_one_message,
    |port: MessagePort| {
        let most = as_many_as_can_be(1024, 6);
        let counts = [1, 2, 63, 64, 65, 126, 127, 253, 254, 1000, 1024];
        for count in counts.into_iter().filter(|count| *count <= most) {
            let (mine, theirs) = channels(count);
            port.post_pod_with(&(count as u64), theirs).unwrap();
            for (index, port) in mine.iter().enumerate() {
                assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &(index as u64));
            }
            // Its other ends were closed after that.
            for port in &mine {
                expect_report(port, CloseReason::Closed);
            }
        }
    },
    |port: MessagePort| {
        raise_descriptor_limit();
        while let Ok(message) = port.recv() {
            let ports = message.take_all_ports().unwrap();
            assert_eq!(ports.len() as u64, *message.pod::<u64>().unwrap());
            for (index, port) in ports.iter().enumerate() {
                port.post_pod(&(index as u64)).unwrap();
            }
        }
    },
);

alone!(more_ports_than_a_message_carries_are_refused, || {
    if raise_descriptor_limit() < 4000 {
        return;
    }
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let (mine, theirs) = channels(1025);
    let before = holdings();
    let refused = port1.post_bytes_with(b"", theirs).unwrap_err();
    let TransferError { list, source, .. } = refused;
    assert!(matches!(source, PostError::TooManyPorts { count: 1025, max: 1024 }), "{source}");
    assert!(source.to_string().contains("1024"), "{source}");
    assert_eq!(holdings(), before);
    let mut theirs = list.into_ports();
    expect_all_entangled(&mine, &theirs);
    // One less, and they go.
    let last = theirs.pop().unwrap();
    post_ports(&port1, b"", theirs);
    let theirs = port2.recv().unwrap().take_all_ports().unwrap();
    expect_all_entangled(&mine[..1024], &theirs);
    expect_entangled(&mine[1024], &last);
});

// ---- S-118, S-105 ----

const BOUNCES: u64 = 10_000;
const WARM_UP: u64 = 1_000;

/// What a process holds after the warm-up and at the end.
struct Flat {
    holdings: (usize, usize, usize),
    resident: u64,
}

impl Flat {
    fn at(bounce: u64, flat: &mut Option<Self>) {
        let now = Self { holdings: holdings(), resident: resident() };
        if bounce == WARM_UP {
            *flat = Some(now);
        } else if let Some(before) = flat {
            assert_eq!(now.holdings, before.holdings, "after {bounce} bounces");
            // A page for each bounce would be 40 MiB, a line of memory 640 KiB.
            let grown = now.resident.saturating_sub(before.resident);
            assert!(grown < 512 << 10, "{grown} bytes after {bounce} bounces");
        }
    }
}

/// Takes the two ports out of a message, reads what travelled in them, and has more travel.
fn bounce(carrier: &MessagePort, number: u64) -> [MessagePort; 2] {
    let message = carrier.recv().unwrap();
    assert_eq!(message.pod::<u64>().unwrap(), &number);
    let [left, right] = message.take_ports().unwrap();
    for (from, to) in [(&left, &right), (&right, &left)] {
        assert_eq!(to.recv().unwrap().pod::<u64>().unwrap(), &number);
        from.post_pod(&(number + 1)).unwrap();
    }
    [left, right]
}

fn bounce_back(carrier: MessagePort) {
    let mut flat = None;
    for number in (0..BOUNCES).map(|number| 2 * number) {
        let ports = bounce(&carrier, number);
        carrier.post_pod_with(&(number + 1), ports).unwrap();
        if number % (2 * WARM_UP) == 0 {
            Flat::at(number / 2, &mut flat);
        }
    }
}

counting!(
    two_ports_bounce_ten_thousand_times,
    1,
    |_, stations: &mut Vec<Station>| {
        let carrier = stations[0].port();
        let MessageChannel { port1: left, port2: right } = MessageChannel::new().unwrap();
        left.post_pod(&0u64).unwrap();
        right.post_pod(&0u64).unwrap();
        let (mut ports, mut flat) = ([left, right], None);
        for number in (0..BOUNCES).map(|number| 2 * number) {
            carrier.post_pod_with(&number, ports).unwrap();
            ports = bounce(carrier, number + 1);
            if number % (2 * WARM_UP) == 0 {
                Flat::at(number / 2, &mut flat);
            }
        }
        let [left, right] = ports;
        for port in [&left, &right] {
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &(2 * BOUNCES));
        }
        expect_entangled(&left, &right);
    },
    bounce_back,
);

alone!(ten_thousand_ports_that_are_never_taken_leave_nothing_behind, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes_with(b"", channels(1).1).unwrap();
    drop(port2.recv().unwrap().take_all_ports().unwrap());
    let before = holdings();
    for round in 0..10_000 / 4 {
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        let both = MessageChannel::new().unwrap();
        mine.post_bytes_with(b"inside", transfer![both.port1]).unwrap();
        port1.post_bytes_with(b"", transfer![theirs, both.port2]).unwrap();
        if round % 2 == 0 {
            drop(port2.recv().unwrap());
        } else {
            // The first is taken, with what is in it.
            drop(port2.recv().unwrap().take_port().unwrap());
        }
    }
    assert_eq!(holdings(), before);
});

// ---- S-112 ----

/// Makes pairs, gives the other end of each to the other station, and talks over all of them.
fn exchange_pairs(host: MessagePort) {
    let message = host.recv().unwrap();
    let count = *message.pod::<u64>().unwrap() as usize;
    let [other] = message.take_ports().unwrap();
    raise_descriptor_limit();
    let (made, given) = channels(count);
    let mut given = given.into_iter();
    while given.len() > 0 {
        post_ports(&other, b"", given.by_ref().take(50).collect::<Vec<_>>());
    }
    let mut came = Vec::new();
    while came.len() < count {
        came.extend(other.recv().unwrap().take_all_ports().unwrap());
    }
    for (number, port) in (0u64..).zip(made.iter().chain(&came)) {
        port.post_pod(&(number % count as u64)).unwrap();
    }
    for (number, port) in (0u64..).zip(came.iter().chain(&made)) {
        assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &(number % count as u64));
    }
    host.post_pod(&(came.len() as u64)).unwrap();
    // The other one may still be reading.
    assert!(host.recv().is_err());
}

journey!(
    a_thousand_pairs_between_two_clients,
    2,
    |stations: &mut Vec<Station>| {
        // Three for each that was made, two for each that came; as threads twice that.
        let count = as_many_as_can_be(500, 10) as u64;
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        for (station, port) in stations.iter().zip([port1, port2]) {
            station.port().post_pod_with(&count, port).unwrap();
        }
        for station in stations {
            assert_eq!(station.port().recv().unwrap().pod::<u64>().unwrap(), &count);
        }
    },
    exchange_pairs,
);

const FEW: u64 = 256;

/// Talks over each port that comes, in its turn; has more at once than it may.
fn talk_with_few_descriptors(host: MessagePort) {
    lower_descriptor_limit(FEW.min(getrlimit(Resource::Nofile).current.unwrap_or(FEW)));
    let (mut open, mut talked, mut refusals) = (Vec::<(u64, MessagePort)>::new(), 0u64, 0u64);
    let mut finish = |open: &mut Vec<(u64, MessagePort)>| {
        for (number, port) in open.drain(..) {
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &number);
            talked += 1;
        }
    };
    loop {
        let message = host.recv().unwrap();
        if message.port_count() == 0 {
            break;
        }
        let number = *message.pod::<u64>().unwrap();
        let port = match message.take_port() {
            Ok(port) => port.unwrap(),
            Err(TakeError::Os(error)) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::MFILE));
                refusals += 1;
                finish(&mut open);
                message.take_port().unwrap().unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        port.post_pod(&number).unwrap();
        open.push((number, port));
    }
    finish(&mut open);
    host.post_pod_slice(&[talked, refusals]).unwrap();
}

counting!(
    a_thousand_pairs_with_few_descriptors,
    2,
    |_, stations: &mut Vec<Station>| {
        const PAIRS: u64 = 1000;
        lower_descriptor_limit(FEW);
        // The host first has as many as it can at once.
        let mut made = Vec::new();
        let refused = loop {
            match MessageChannel::new() {
                Ok(channel) => made.push(channel),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, OpenError::Os(_)), "{refused}");
        assert!((50..90).contains(&made.len()), "{} channels", made.len());
        // Room for the lanes.
        made.truncate(made.len() - 4);
        for number in 0..PAIRS {
            let MessageChannel { port1, port2 } =
                made.pop().unwrap_or_else(|| MessageChannel::new().unwrap());
            for (station, port) in stations.iter().zip([port1, port2]) {
                let mut list = TransferList::from(port);
                while let Err(refused) = station.port().post_pod_with(&number, list) {
                    let TransferError { list: back, source: PostError::Os(error), .. } = refused
                    else {
                        panic!("{refused}")
                    };
                    assert_eq!(Errno::from_io_error(&error), Some(Errno::TOOMANYREFS));
                    list = back;
                    std::thread::yield_now();
                }
            }
        }
        for station in stations.iter() {
            station.port().post_bytes(b"").unwrap();
        }
        for station in stations.iter() {
            let message = station.port().recv().unwrap();
            let [talked, refusals] = message.pod_slice::<u64>().unwrap() else { panic!() };
            assert_eq!(*talked, PAIRS);
            assert!(*refusals > 0, "it never ran out");
        }
    },
    talk_with_few_descriptors,
);

// ---- S-080 ----

/// Takes all ports until a message without any. Told so, closes them; else waits for their ends.
fn close_or_be_closed(host: MessagePort) {
    raise_descriptor_limit();
    let mut ports = Vec::new();
    let is_closer = loop {
        let message = host.recv().unwrap();
        match message.port_count() {
            0 => break message.bytes() == b"close",
            _ => ports.extend(message.take_all_ports().unwrap()),
        }
    };
    host.post_pod(&(ports.len() as u64)).unwrap();
    assert_eq!(host.recv().unwrap().bytes(), b"now");
    if is_closer {
        drop(ports);
    } else {
        ports.iter().for_each(|port| expect_report(port, CloseReason::Closed));
    }
    host.post_bytes(b"all").unwrap();
}

journey!(
    three_thousand_routes_are_closed_at_once,
    2,
    |stations: &mut Vec<Station>| {
        // Two for each end; as threads in one process.
        let routes = as_many_as_can_be(3000, 5);
        let mut left = routes;
        while left > 0 {
            let count = left.min(50);
            left -= count;
            let (ones, others) = channels(count);
            for (station, ports) in stations.iter().zip([ones, others]) {
                post_ports(station.port(), b"", ports);
            }
        }
        for (station, order) in stations.iter().zip([&b"close"[..], b"watch"]) {
            station.port().post_bytes(order).unwrap();
        }
        for station in stations.iter() {
            assert_eq!(station.port().recv().unwrap().pod::<u64>().unwrap(), &(routes as u64));
        }
        for word in [&b"now"[..], b"all"] {
            for station in stations.iter() {
                if word == b"now" {
                    station.port().post_bytes(word).unwrap();
                } else {
                    assert_eq!(station.port().recv().unwrap().bytes(), word);
                }
            }
        }
    },
    close_or_be_closed,
);

// ---- S-114, S-115 ----

/// So many processes die in each of these tests.
const LIVES: u32 = 1000;

/// Waits until nothing is left of what was held; the kernel may still be at it.
fn expect_to_hold(before: (usize, usize, usize)) {
    support::wait_until("nothing is left", || holdings() == before);
}

fn never_receive(host: MessagePort) {
    host.post_bytes(b"here").unwrap();
    loop {
        std::thread::park();
    }
}

// Ports wait for a process that dies, and ports in their queues with them.
counting!(
    receivers_die_before_they_read,
    1,
    |test, stations: &mut Vec<Station>| {
        stations[0].kill();
        let before = holdings();
        for _ in 0..LIVES {
            let mut station = Station::process(test);
            let ((mine, theirs), (deep, deeper)) = (channels(3), channels(3));
            for (number, (theirs, deeper)) in theirs.into_iter().zip(deeper).enumerate() {
                mine[number].post_bytes_with(b"deep", transfer![deeper]).unwrap();
                station.port().post_bytes_with(b"never read", transfer![theirs]).unwrap();
            }
            assert_eq!(station.port().recv().unwrap().bytes(), b"here");
            station.kill();
            for port in mine.iter().chain(&deep) {
                expect_report(port, CloseReason::Lost);
            }
            expect_report(station.port(), CloseReason::PeerDied);
            station.finish();
            drop((mine, deep));
            expect_to_hold(before);
        }
    },
    never_receive,
);

/// Passes one port on, back to where it came from, and is no more.
fn pass_back_and_die(host: MessagePort) {
    let [port] = host.recv().unwrap().take_ports().unwrap();
    port.post_bytes(b"from one who is no more").unwrap();
    host.post_bytes_with(b"back", transfer![port]).unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

counting!(
    senders_die_after_they_post,
    1,
    |test, stations: &mut Vec<Station>| {
        stations[0].kill();
        let before = holdings();
        for _ in 0..LIVES {
            let mut station = Station::process(test);
            let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
            mine.post_bytes(b"unread").unwrap();
            station.port().post_bytes_with(b"", transfer![theirs]).unwrap();
            support::wait_until("it is no more", || {
                station.port().peer_state() != zeroport::PeerState::Open
            });
            let message = station.port().recv().unwrap();
            assert_eq!(message.bytes(), b"back");
            let [theirs] = message.take_ports().unwrap();
            drop(message);
            assert_eq!(theirs.recv().unwrap().bytes(), b"unread");
            assert_eq!(mine.recv().unwrap().bytes(), b"from one who is no more");
            expect_entangled(&mine, &theirs);
            expect_report(station.port(), CloseReason::PeerDied);
            station.kill();
            station.finish();
            drop((mine, theirs));
            expect_to_hold(before);
        }
    },
    pass_back_and_die,
);
