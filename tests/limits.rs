//! Limits: capacities and payload sizes from the smallest to the largest, and what happens when the
//! process runs out of descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod support;

use std::os::unix::fs::MetadataExt;

use rkyv::rancor::Fallible;
use rkyv::ser::Writer;
use rkyv::{Archive, Place, Serialize};
use support::{
    Setup, alone, conversation, count_descriptors, count_segment_mappings, count_threads,
    lower_descriptor_limit, pattern, raise_descriptor_limit,
};
use zeroport::{
    CloseReason, EncodeError, MessageChannel, MessagePort, OpenError, PostError, RecvError,
    SpawnError, Tagged,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
const MIN: u64 = 4 << 10;
const MAX: u64 = 1 << 30;
/// The longest payload, and the longest archive of a value.
const MAX_PAYLOAD: usize = 4 << 30;
const MAX_VALUE: usize = i32::MAX as usize;
/// The most segments that a process keeps for fresh channels.
const MAX_SPARES: usize = 4;

fn refused(first: u64, second: u64) -> u64 {
    let setup = Setup::new().capacities(first, second);
    let error = setup.options().open().unwrap_err();
    let OpenError::Capacity { requested, min: MIN, max: MAX } = error else { panic!("{error}") };
    let told = error.to_string();
    for number in [requested, MIN, MAX] {
        assert!(told.contains(&number.to_string()), "{told}");
    }
    // A child is not even started for it.
    let command = std::process::Command::new("/nonexistent");
    let error = setup.options().spawn(command).unwrap_err();
    assert!(matches!(error, SpawnError::Open(OpenError::Capacity { .. })), "{error}");
    requested
}

#[test]
fn capacities_that_are_not_legal_are_refused_by_name() {
    for capacity in
        [0, 1, 100, 2048, MIN - 1, MIN + 1, 3 << 12, MAX - 1, MAX + 1, MAX * 2, u64::MAX]
    {
        assert_eq!(refused(capacity, MIN), capacity);
        assert_eq!(refused(MAX, capacity), capacity);
    }
}

#[test]
fn every_legal_capacity_works_in_both_directions() {
    for first in (12..=30).map(|power| 1u64 << power) {
        let second = MIN + MAX - first;
        let second = if second.is_power_of_two() { second } else { MIN };
        let MessageChannel { port1, port2 } = Setup::new().capacities(first, second).open();
        for (port, other, capacity) in [(&port1, &port2, first), (&port2, &port1, second)] {
            assert_eq!(port.max_payload(), MAX_PAYLOAD);
            assert_eq!(port.max_in_ring() as u64, capacity / 2 - 32);
            // The largest ones would fill the machine's memory.
            let len = port.max_in_ring().min(1 << 20);
            for (number, len) in [(0, len), (1, len + 1), (2, len)] {
                port.post_bytes(&pattern(number, len)).unwrap();
                assert!(other.recv().unwrap().bytes() == pattern(number, len));
            }
        }
    }
}

alone!(memory_is_taken_as_it_is_used, || {
    let MessageChannel { port1, port2 } = Setup::new().capacity(MAX).open();
    let taken = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let segment = fds.map(|fd| fd.unwrap().path()).find(|fd| {
            std::fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().contains("memfd:zeroport"))
        });
        let segment = std::fs::metadata(segment.expect("the segment")).unwrap();
        assert!(segment.len() > 2 * MAX);
        segment.blocks() * 512
    };
    assert!(taken() <= 64 << 10, "{} bytes for a fresh channel", taken());
    port1.post_bytes(&[1; 1 << 20]).unwrap();
    assert_eq!(port2.recv().unwrap().bytes().len(), 1 << 20);
    assert!((1 << 20..2 << 20).contains(&taken()), "{} bytes for a megabyte", taken());
});

fn too_large<T>(result: Result<T, PostError>, expected_len: usize, expected_max: usize) {
    match result.map(drop).unwrap_err() {
        PostError::TooLarge { len, max } => {
            assert_eq!((len as usize, max as usize), (expected_len, expected_max));
        }
        error => panic!("{error}"),
    }
}

/// So many bytes that nobody may look at for long: all are zero, and none has memory until it is read.
fn vast(len: usize) -> &'static [u8] {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping, at a place of the kernel's choice.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED, "address space for {len} bytes");
    // SAFETY: it is so long, zero, and never written or unmapped.
    unsafe { std::slice::from_raw_parts(place.cast(), len) }
}

/// A value whose archive is so many mebibytes long, of which it needs one at a time.
struct Vast(usize);

impl Tagged for Vast {
    const NAME: &'static str = "test.Vast";
}

impl Archive for Vast {
    type Archived = ();
    type Resolver = ();

    fn resolve(&self, (): (), _: Place<()>) {}
}

impl<S: Fallible<Error = EncodeError> + Writer + ?Sized> Serialize<S> for Vast {
    fn serialize(&self, serializer: &mut S) -> Result<(), EncodeError> {
        let part = vec![7; 1 << 20];
        (0..self.0).try_for_each(|_| serializer.write(&part))
    }
}

#[test]
fn what_can_never_fit_says_so_at_once() {
    let all = vast(MAX_PAYLOAD + (1 << 20));
    for setup in [Setup::new().capacity(MIN), Setup::new().capacity(MIN).limit(0)]
        .into_iter()
        .flat_map(|setup| [setup, setup.untrusted()])
    {
        let MessageChannel { port1, port2 } = setup.open();
        let max = port1.max_payload();
        assert_eq!(max, MAX_PAYLOAD);
        // Also when the ring is full: waiting would not help.
        for fullness in 0..3 {
            for len in [max + 1, max + 16, all.len()] {
                too_large(port1.post_bytes(&all[..len]), len, max);
                too_large(port1.try_post_bytes(&all[..len]), len, max);
                too_large(port1.post_pod_slice(&all[..len]), len, max);
                too_large(port1.post_all_bytes([&all[..len]]).map_err(|e| e.source), len, max);
            }
            for len in [max + 1, 2 * max, usize::MAX] {
                too_large(port1.reserve(len), len, max);
                too_large(port1.try_reserve(len), len, max);
            }
            // The first part that is too much.
            for count in [2048, 5000] {
                too_large(port1.post(&Vast(count)), MAX_VALUE + 1, MAX_VALUE);
                too_large(port1.try_post(&Vast(count)), MAX_VALUE + 1, MAX_VALUE);
            }
            port1.post_bytes(&vec![fullness; 1000]).unwrap();
        }
        for fullness in 0..3 {
            assert_eq!(port2.recv().unwrap().bytes(), vec![fullness; 1000]);
        }
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
    }
}

#[test]
fn a_payload_that_is_too_large_is_told_what_to_do() {
    let MessageChannel { port1, port2: _port2 } = MessageChannel::new().unwrap();
    for len in [MAX_PAYLOAD + 1, usize::MAX] {
        let told = port1.reserve(len).unwrap_err().to_string();
        assert!(told.contains(&len.to_string()), "{told}");
        assert!(told.contains(&MAX_PAYLOAD.to_string()), "{told}");
        assert!(told.ends_with("post it in parts"), "{told}");
    }
}

// Where what does not fit in the ring begins, nobody who posts or receives notices. (It takes system
// calls.)
#[test]
fn payloads_around_what_fits_in_the_ring() {
    for setup in [Setup::new().capacity(MIN), Setup::new().capacity(MIN).limit(0)]
        .into_iter()
        .flat_map(|setup| [setup, setup.untrusted()])
    {
        let MessageChannel { port1, port2 } = setup.open();
        let max = port1.max_in_ring();
        assert_eq!(max, 2016);
        let lens =
            [max - 33, max - 17, max - 16, max - 1, max, max + 1, max + 16, 2 * max, 1 << 20];
        for (number, len) in (0..).zip(lens) {
            let bytes = pattern(number, len);
            let post_loan = || {
                let mut loan = port1.try_reserve(len)?;
                loan.copy_from_slice(&bytes);
                loan.publish(len)
            };
            let post_short_loan = || {
                let mut loan = port1.try_reserve(len + 100)?;
                loan[..len].copy_from_slice(&bytes);
                loan.publish(len)
            };
            let post_batch = || port1.post_all_bytes([&bytes]).map(drop).map_err(|e| e.source);
            let verbs: [&dyn Fn() -> Result<(), PostError>; 6] = [
                &|| port1.post_bytes(&bytes),
                &|| port1.try_post_bytes(&bytes),
                &|| port1.post_pod_slice(&bytes),
                &post_batch,
                &post_loan,
                &post_short_loan,
            ];
            for (verb, post) in verbs.iter().enumerate() {
                post().unwrap_or_else(|error| panic!("{len} bytes by verb {verb}: {error}"));
                assert!(port2.try_recv().unwrap().bytes() == bytes, "{len} bytes by verb {verb}");
            }
            let text = "x".repeat(len);
            port1.try_post(&text).unwrap();
            assert!(port2.try_recv().unwrap().get::<String>().unwrap() == text.as_str());
        }
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
    }
}

// The largest record takes half of the ring less one header, so it starts at another place each time.
#[test]
fn the_largest_payload_fits_at_every_place() {
    for capacity in [4 << 10, 8 << 10, 64 << 10] {
        let MessageChannel { port1, port2 } = Setup::new().capacity(capacity).limit(0).open();
        let max = port1.max_in_ring();
        for number in 0..capacity / 16 {
            // An empty ring takes it, whatever stood there before.
            let small = number as usize % 50;
            port1.try_post_bytes(&pattern(number, small)).unwrap();
            assert_eq!(port2.try_recv().unwrap().bytes(), pattern(number, small));
            port1.try_post_bytes(&vec![number as u8; max]).unwrap();
            let message = port2.try_recv().unwrap();
            assert_eq!(message.bytes().len(), max);
            assert!(message.bytes().iter().all(|byte| *byte == number as u8));
        }
    }
}

/// Sizes at which other systems change their way of carrying, and the edges of this one's.
fn sizes(max: usize) -> Vec<usize> {
    let named = [0, 1, 65535, 65536, 65537, (256 << 10) + 3, (3 << 20) + 1];
    let pages = [4095, 4096, 4097];
    let edges = [max - 17, max - 16, max - 15, max - 1, max, max + 1, max + 16, 3 * max];
    [&named[..], &pages[..], &edges[..]].concat()
}

// Nearly all of them in a ring, and nearly all in a memory of their own.
const LARGE: Setup = Setup::new().capacity(8 << 20);
const SMALL: Setup = Setup::new().capacity(MIN);

mod sizes_round_trip_byte_for_byte {
    use super::*;

    conversation!(in_a_large_ring, LARGE, post_sizes, echo);
    conversation!(in_a_small_ring, SMALL, post_sizes, echo);
    conversation!(in_a_small_ring_that_never_grows, SMALL.limit(0), post_sizes, echo);

    fn post_sizes(port: MessagePort) {
        for (number, size) in sizes(port.max_in_ring()).into_iter().enumerate() {
            let bytes = pattern(number as u64, size);
            port.post_bytes(&bytes).unwrap();
            assert!(port.recv().unwrap().bytes() == bytes, "{size} bytes");
        }
    }
}

mod sizes_round_trip_byte_for_byte_between_strangers {
    use super::*;

    conversation!(in_a_large_ring, LARGE.untrusted(), lend_sizes, echo);
    conversation!(in_a_small_ring, SMALL.untrusted(), lend_sizes, echo);

    fn lend_sizes(port: MessagePort) {
        for (number, size) in sizes(port.max_in_ring()).into_iter().enumerate() {
            let bytes = pattern(number as u64, size);
            let mut loan = port.reserve(size).unwrap();
            loan.copy_from_slice(&bytes);
            loan.publish(size).unwrap();
            assert!(port.recv().unwrap().bytes() == bytes, "{size} bytes");
        }
    }
}

fn echo(port: MessagePort) {
    while let Ok(message) = port.recv() {
        port.post_bytes(message.bytes()).unwrap();
    }
}

alone!(ten_thousand_channels_leave_nothing_behind, || {
    const CHANNELS: usize = 10_000;
    // The first channel of a process makes what all of them use.
    drop(MessageChannel::new().unwrap());
    zeroport::trim();
    let before = (count_descriptors(), count_segment_mappings(), count_threads());
    let limit = raise_descriptor_limit() as usize;
    // Three descriptors each; as many at once as the process may have, in several rounds if need be.
    let at_once = ((limit - before.0 - 10) / 3).min(CHANNELS);
    let mut made = 0;
    while made < CHANNELS {
        let channels: Vec<_> =
            (0..at_once.min(CHANNELS - made)).map(|_| MessageChannel::new().unwrap()).collect();
        made += channels.len();
        assert_eq!(count_segment_mappings(), before.1 + channels.len());
        drop(channels);
        // A few segments stay for fresh channels, until they are let go.
        assert!(count_descriptors() <= before.0 + MAX_SPARES);
        zeroport::trim();
        let after = (count_descriptors(), count_segment_mappings(), count_threads());
        assert_eq!(after, before, "after {made} channels");
    }
});

alone!(used_and_split_channels_leave_nothing_behind, || {
    drop(MessageChannel::new().unwrap());
    zeroport::trim();
    let before = (count_descriptors(), count_segment_mappings(), count_threads());
    for round in 0..500 {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port1.post_bytes(&pattern(round, 100)).unwrap();
        port2.post_bytes(b"never read").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), pattern(round, 100));
        let (sender, receiver) = port1.split();
        match round % 4 {
            0 => drop((sender, receiver)),
            1 => sender.close(),
            2 => port2.closer().close(),
            _ => MessagePort::join(sender, receiver).unwrap().close(),
        }
    }
    assert!(count_descriptors() <= before.0 + MAX_SPARES);
    zeroport::trim();
    assert_eq!((count_descriptors(), count_segment_mappings(), count_threads()), before);
});

// What the end has been reported for holds nothing any more, though the handle lives on.
alone!(a_reported_end_lets_go_of_the_line, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let open = count_descriptors();
    drop(port2);
    assert_eq!(port1.recv().unwrap_err(), CLOSED);
    // Both ends of the line.
    assert_eq!(count_descriptors(), open - 2);
    drop(port1);
    zeroport::trim();
    assert_eq!(count_descriptors(), open - 3);
});

alone!(without_descriptors_there_is_an_error_and_no_leak, || {
    // What the process needs once is there; so is a port that must go on working.
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let before = (count_descriptors(), count_segment_mappings());
    // All numbers below the limit must be in use for the limit to be exact.
    let mut fillers = vec![std::fs::File::open("/dev/null").unwrap()];
    let highest = |fillers: &[std::fs::File]| {
        fillers.iter().map(|file| std::os::fd::AsRawFd::as_raw_fd(file) as usize).max().unwrap()
    };
    while highest(&fillers) + 1 != count_descriptors() {
        fillers.push(std::fs::File::open("/dev/null").unwrap());
    }
    let used = count_descriptors();
    for free in 0..3 {
        lower_descriptor_limit((used + free) as u64);
        for _ in 0..10 {
            let error = MessageChannel::new().unwrap_err();
            let OpenError::Os(source) = &error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{error}");
            assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        }
        port1.post_bytes(b"still").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"still");
    }
    raise_descriptor_limit();
    assert_eq!((count_descriptors(), count_segment_mappings()), (used, before.1));
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(b"again").unwrap();
    assert_eq!(port2.recv().unwrap().bytes(), b"again");
});
