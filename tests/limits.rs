//! Limits: capacities and payload sizes from the smallest to the largest, and what happens when the
//! process runs out of descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::os::unix::fs::MetadataExt;

use support::{
    Setup, alone, conversation, count_descriptors, count_segment_mappings, count_threads,
    lower_descriptor_limit, pattern, raise_descriptor_limit,
};
use zeroport::{
    CloseReason, MessageChannel, MessagePort, OpenError, PostError, RecvError, SpawnError,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
const MIN: u64 = 4 << 10;
const MAX: u64 = 1 << 30;

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
            assert_eq!(port.max_payload() as u64, capacity / 2 - 32);
            // The largest ones would fill the machine's memory.
            let len = port.max_payload().min(1 << 20);
            for number in 0..3 {
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

#[test]
fn what_can_never_fit_says_so_at_once() {
    for setup in [Setup::new().capacity(MIN), Setup::new().capacity(MIN).untrusted()] {
        let MessageChannel { port1, port2 } = setup.open();
        let max = port1.max_payload();
        assert_eq!(max, 2016);
        // Also when the ring is full: waiting would not help.
        for fullness in 0..3 {
            for len in [max + 1, max + 16, 2 * max, 4096, 1 << 20] {
                too_large(port1.post_bytes(&vec![0; len]), len, max);
                too_large(port1.try_post_bytes(&vec![0; len]), len, max);
                too_large(port1.post_pod_slice(&vec![0u8; len]), len, max);
                too_large(port1.reserve(len), len, max);
                too_large(port1.try_reserve(len), len, max);
                too_large(port1.post_all_bytes([vec![0; len]]).map_err(|e| e.source), len, max);
                // The archive of a long string: its bytes, padded to the alignment of the root.
                let archived = (len + 8).next_multiple_of(4);
                too_large(port1.post(&"x".repeat(len)), archived, max);
                too_large(port1.try_post(&"x".repeat(len)), archived, max);
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
fn a_payload_that_is_too_large_is_told_what_would_carry_it() {
    let MessageChannel { port1, port2: _port2 } = Setup::new().capacity(MIN).open();
    let mut capacity = MIN;
    // Follow the advice of the error, and the payload fits.
    for len in [3000, 100_000, 100_001, 131_072 - 32, 131_072 - 31] {
        let told = port1.post_bytes(&vec![0; len]).unwrap_err().to_string();
        let advice: u64 = told.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(advice > capacity || advice == advice.next_power_of_two(), "{told}");
        capacity = advice;
        let MessageChannel { port1, port2 } = Setup::new().capacity(advice).open();
        port1.post_bytes(&vec![7; len]).unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), vec![7; len]);
        let MessageChannel { port1, port2: _port2 } = Setup::new().capacity(advice / 2).open();
        too_large(port1.post_bytes(&vec![7; len]), len, advice as usize / 4 - 32);
    }
    let most = MAX as usize / 2 - 32;
    let told = |len| port1.reserve(len).unwrap_err().to_string();
    assert!(told(most).ends_with(&MAX.to_string()), "{}", told(most));
    for len in [most + 1, usize::MAX] {
        assert!(told(len).ends_with("post it in parts"), "{}", told(len));
    }
}

// The largest record takes half of the ring less one header, so it starts at another place each time.
#[test]
fn the_largest_payload_fits_at_every_place() {
    for capacity in [4 << 10, 8 << 10, 64 << 10] {
        let MessageChannel { port1, port2 } = Setup::new().capacity(capacity).open();
        let max = port1.max_payload();
        for number in 0..capacity / 16 {
            // An empty ring takes it, whatever stood there before.
            let small = number as usize % 50;
            port1.try_post_bytes(&pattern(number, small)).unwrap();
            assert_eq!(port2.try_recv().unwrap().bytes(), pattern(number, small));
            let mut loan = port1.try_reserve(max).unwrap();
            loan.fill(number as u8);
            loan.publish(max).unwrap();
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
    let edges = [max - 17, max - 16, max - 15, max - 1, max];
    [&named[..], &pages[..], &edges[..]].concat()
}

conversation!(
    sizes_round_trip_byte_for_byte,
    Setup::new().capacity(8 << 20),
    |port| {
        for (number, size) in sizes(port.max_payload()).into_iter().enumerate() {
            let bytes = pattern(number as u64, size);
            port.post_bytes(&bytes).unwrap();
            assert!(port.recv().unwrap().bytes() == bytes, "{size} bytes");
        }
    },
    |port| {
        while let Ok(message) = port.recv() {
            port.post_bytes(message.bytes()).unwrap();
        }
    }
);

conversation!(
    sizes_round_trip_byte_for_byte_between_strangers,
    Setup::new().capacity(8 << 20).untrusted(),
    |port| {
        for (number, size) in sizes(port.max_payload()).into_iter().enumerate() {
            let bytes = pattern(number as u64, size);
            let mut loan = port.reserve(size).unwrap();
            loan.copy_from_slice(&bytes);
            loan.publish(size).unwrap();
            assert!(port.recv().unwrap().bytes() == bytes, "{size} bytes");
        }
    },
    |port| {
        while let Ok(message) = port.recv() {
            port.post_bytes(message.bytes()).unwrap();
        }
    }
);

alone!(ten_thousand_channels_leave_nothing_behind, || {
    const CHANNELS: usize = 10_000;
    // The first channel of a process makes what all of them use.
    drop(MessageChannel::new().unwrap());
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
        let after = (count_descriptors(), count_segment_mappings(), count_threads());
        assert_eq!(after, before, "after {made} channels");
    }
});

alone!(used_and_split_channels_leave_nothing_behind, || {
    drop(MessageChannel::new().unwrap());
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
