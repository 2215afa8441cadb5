//! Buffers in messages: they arrive as they were filled, for reading only, wherever they are forwarded to,
//! and leave nothing behind where nobody takes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod scarcity;
mod stations;
mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use ends::{expect_end, expect_report};
use queues::{
    all_kinds, channel_for_strangers, expect_filled, fill, long_pattern, on_all_channels, open,
};
use scarcity::Scarcity;
use stations::{Station, join_ring, journey, make_ring};
use support::{
    Peer, Setup, alone, count_descriptors, count_segment_mappings, doomed, expect_all_entangled,
    expect_entangled, raise_descriptor_limit, wait_until,
};
use zeroport::{
    Buffer, ChannelOptions, CloseReason, MessagePort, PostError, RecvError, SealedBuffer,
    TakeError, TransferError, TransferList, Transferable, Untransferable, transfer,
};

const OPTIONS: ChannelOptions = ChannelOptions::new();
const MIB: usize = 1 << 20;

fn filled(number: u64, len: usize) -> Buffer {
    Buffer::from_slice(&long_pattern(number, len)).unwrap()
}

fn expect_buffer(buffer: &[u8], number: u64, len: usize) {
    assert!(buffer == long_pattern(number, len), "buffer {number} of {len} bytes");
}

// ---- They arrive as they were filled ----

/// Lengths around pages, and a few more.
const LENS: [usize; 8] = [0, 1, 4095, 4096, 4097, 65536, 100_000, 3 * MIB + 1];

on_all_channels!(
    buffers_arrive_as_they_were_filled,
    OPTIONS,
    |port| {
        for (number, len) in (0..).zip(LENS) {
            // Beside a payload in the ring, in a memory of its own, and none; sealed before or not.
            for payload in [0, 100, 100_000] {
                let bytes = long_pattern(number, payload);
                port.post_bytes_with(&bytes, filled(number, len)).unwrap();
                port.post_bytes_with(&bytes, filled(number, len).seal().unwrap()).unwrap();
            }
        }
        let mut numbers = Buffer::new(8 * 1000).unwrap();
        numbers.as_pod_slice_mut().unwrap().iter_mut().zip(0u64..).for_each(|(at, n)| *at = n);
        port.post_pod_with(&1000u64, numbers).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for (number, len) in (0..).zip(LENS) {
            for payload in [0, 100, 100_000] {
                for _ in 0..2 {
                    let message = port.recv().unwrap();
                    assert!(message.bytes() == long_pattern(number, payload));
                    assert_eq!((message.buffer_count(), message.port_count()), (1, 0));
                    let [buffer] = message.take_buffers().unwrap();
                    assert!(message.take_buffer().unwrap().is_none());
                    // It does not need its message.
                    drop(message);
                    expect_buffer(&buffer, number, len);
                }
            }
        }
        let message = port.recv().unwrap();
        let [numbers] = message.take_buffers().unwrap();
        let numbers = numbers.pod_slice::<u64>().unwrap();
        assert_eq!(numbers.len() as u64, *message.pod::<u64>().unwrap());
        assert!(numbers.iter().zip(0..).all(|(at, number)| *at == number));
        port.post_bytes(b"all").unwrap();
    }
);

// Where the payload hardly fits beside what tells of the buffers, in the ring and in a loan.
#[test]
fn payloads_at_every_edge_of_a_ring() {
    for options in all_kinds(OPTIONS.capacity(4096)) {
        let (port1, port2) = open(options);
        for len in (0..40).chain(port1.max_in_ring() - 40..port1.max_in_ring() + 20) {
            let bytes = long_pattern(len as u64, len);
            let (mine, theirs) = channel_for_strangers();
            port1.post_bytes_with(&bytes, transfer![filled(1, 10), theirs]).unwrap();
            let mut loan = port1.reserve(len).unwrap();
            loan.copy_from_slice(&bytes);
            loan.publish_with(len, 3, filled(2, 20)).unwrap();
            let mut loan = port1.reserve(len).unwrap();
            loan.copy_from_slice(&bytes);
            loan.publish_with(len / 2, 4, filled(3, 30)).unwrap();
            port1.post_with(&"x".repeat(len), filled(4, 40)).unwrap();

            let message = port2.recv().unwrap();
            assert!(message.bytes() == bytes && message.tag() == 0, "{len} bytes");
            assert!(message.bytes().as_ptr().addr().is_multiple_of(16));
            expect_entangled(&mine, &message.take_port().unwrap().unwrap());
            expect_buffer(&message.take_buffer().unwrap().unwrap(), 1, 10);
            let message = port2.recv().unwrap();
            assert!(message.bytes() == bytes && message.tag() == 3, "{len} bytes");
            expect_buffer(&message.take_buffer().unwrap().unwrap(), 2, 20);
            let message = port2.recv().unwrap();
            assert!(message.bytes() == &bytes[..len / 2] && message.tag() == 4, "{len} bytes");
            expect_buffer(&message.take_buffer().unwrap().unwrap(), 3, 30);
            let message = port2.recv().unwrap();
            assert!(message.get::<String>().unwrap().as_str() == "x".repeat(len), "{len} bytes");
            expect_buffer(&message.take_buffer().unwrap().unwrap(), 4, 40);
        }
    }
}

// Up to 1024 things in one list, ports and buffers mixed; each kind in its own order.
/// Whether this process may have so many buffers, each twice for a moment.
fn fits(count: &u64) -> bool {
    raise_descriptor_limit() > 3 * count + 200
}

alone!(many_buffers_in_one_message, || {
    for options in all_kinds(OPTIONS) {
        for payload in [10, 100_000] {
            for count in [1, 2, 126, 127, 252, 253, 254, 300, 1023, 1024].into_iter().filter(fits) {
                let (port1, port2) = open(options);
                let (mut mine, mut list) = (Vec::new(), TransferList::new());
                for number in 0..count {
                    if number % 10 == 3 && mine.len() < 50 {
                        let (stays, goes) = channel_for_strangers();
                        mine.push(stays);
                        list.push(goes);
                    } else if number % 2 == 0 {
                        list.push(filled(number, number as usize));
                    } else {
                        list.push(filled(number, number as usize).seal().unwrap());
                    }
                }
                port1.post_bytes_with(&long_pattern(count, payload), list).unwrap();
                let message = port2.recv().unwrap();
                assert!(message.bytes() == long_pattern(count, payload));
                let buffers = count as usize - mine.len();
                assert_eq!((message.port_count(), message.buffer_count()), (mine.len(), buffers));
                let wrong = message.take_buffers::<1025>().unwrap_err();
                let TakeError::Count { expected: 1025, found } = wrong else { panic!("{wrong}") };
                assert_eq!(found, buffers);
                let mut ports = 0;
                for number in 0..count {
                    if number % 10 == 3 && ports < mine.len() {
                        ports += 1;
                    } else {
                        let buffer = message.take_buffer().unwrap().unwrap();
                        expect_buffer(&buffer, number, number as usize);
                    }
                }
                assert!(message.take_buffer().unwrap().is_none());
                expect_all_entangled(&mine, &message.take_all_ports().unwrap());
            }
        }
    }
});

// ---- S-097: forwarded, for reading only, and never copied ----

/// The inode of the file that a buffer is a mapping of, and how it is mapped.
fn mapping_of(buffer: &SealedBuffer) -> (u64, String) {
    let place = buffer.as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').unwrap();
        let at = |hex| usize::from_str_radix(hex, 16).unwrap();
        if (at(from)..at(to)).contains(&place) {
            return (words[4].parse().unwrap(), words[1].into());
        }
    }
    panic!("a buffer that lies nowhere")
}

/// Whatever this process tries, the buffer stays as it is.
fn expect_read_only(buffer: &SealedBuffer) {
    let (inode, access) = mapping_of(buffer);
    assert_eq!(&access[..3], "r--");
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // Others close theirs meanwhile.
        let Ok(file) = std::fs::metadata(&path) else { continue };
        if file.ino() != inode || !file.is_file() {
            continue;
        }
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        found += 1;
        let refused = [
            file.write_at(b"changed", 0).unwrap_err(),
            file.set_len(0).unwrap_err(),
            file.set_len(1 << 30).unwrap_err(),
        ];
        for refused in refused {
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{refused}");
        }
    }
    assert!(found > 0, "the buffer has no descriptor");
}

/// Two sizes, for the one of which a copy would take much longer.
const FORWARDED: [usize; 2] = [MIB + 1, 16 * MIB + 1];

// From the host through three others and back: the very memory that was filled.
journey!(
    a_buffer_is_forwarded_and_never_copied,
    3,
    |stations: &mut Vec<Station>| {
        for setup in [Setup::new(), Setup::new().untrusted()] {
            let ring = make_ring(stations, setup);
            for (number, len) in (0..).zip(FORWARDED) {
                let buffer = filled(number, len).seal().unwrap();
                let (inode, _) = mapping_of(&buffer);
                let list = transfer![buffer, filled(number, 5)];
                ring.first.post_pod_with(&[number, len as u64], list).unwrap();
                let message = ring.last.recv().unwrap();
                let [buffer, other] = message.take_buffers().unwrap();
                expect_buffer(&buffer, number, len);
                expect_buffer(&other, number, 5);
                assert_eq!(mapping_of(&buffer).0, inode, "it was copied on its way");
                expect_read_only(&buffer);
            }
        }
    },
    |host| {
        while let Some(ring) = join_ring(&host) {
            while let Ok(message) = ring.last.recv() {
                let what = *message.pod::<[u64; 2]>().unwrap();
                let [buffer, other] = message.take_buffers().unwrap();
                drop(message);
                expect_buffer(&buffer, what[0], what[1] as usize);
                expect_read_only(&buffer);
                ring.first.post_pod_with(&what, transfer![buffer, other]).unwrap();
            }
        }
    },
);

on_all_channels!(
    a_copy_of_a_received_buffer_is_private,
    OPTIONS,
    |port| {
        port.post_bytes_with(b"", filled(1, 100_000)).unwrap();
        let message = port.recv().unwrap();
        let [original, changed] = message.take_buffers().unwrap();
        expect_buffer(&original, 1, 100_000);
        assert!(changed[..50_000] == [7; 50_000]);
        assert!(changed[50_000..] == long_pattern(1, 100_000)[50_000..]);
    },
    |port| {
        let [received] = port.recv().unwrap().take_buffers().unwrap();
        let mut copy = received.to_buffer().unwrap();
        copy[..50_000].fill(7);
        expect_buffer(&received, 1, 100_000);
        port.post_bytes_with(b"both", transfer![received, copy]).unwrap();
    }
);

// ---- A refused post hands them back, with their bytes ----

/// Ports, buffers and sealed ones that came back, in the order of [`list_of_all`].
fn expect_list_back(mine: &[MessagePort], list: TransferList) -> TransferList {
    let mut again = TransferList::new();
    assert_eq!(list.len(), 4);
    for (place, item) in list.into_iter().enumerate() {
        match &item {
            Transferable::Port(port) => {
                assert!(place == 1, "a port in place {place}");
                expect_entangled(&mine[0], port);
            }
            // It may have been sealed for the post that was refused.
            Transferable::Buffer(buffer) => {
                assert_ne!(place, 2);
                expect_buffer(buffer, place as u64, 5000);
            }
            Transferable::SealedBuffer(buffer) => expect_buffer(buffer, place as u64, 5000),
            other => panic!("{other:?}"),
        }
        again.push(item);
    }
    again
}

fn list_of_all() -> (Vec<MessagePort>, TransferList) {
    let (mine, theirs) = channel_for_strangers();
    let sealed = filled(2, 5000).seal().unwrap();
    (vec![mine], transfer![filled(0, 5000), theirs, sealed, filled(3, 5000)])
}

fn refused(posted: Result<(), TransferError>) -> (TransferList, PostError) {
    let TransferError { list, source, .. } = posted.unwrap_err();
    (list, source)
}

alone!(a_refused_post_hands_buffers_back, || {
    raise_descriptor_limit();
    for options in all_kinds(OPTIONS.capacity(4096).limit(64 << 10)) {
        for payload in [100, 10_000] {
            let bytes = long_pattern(9, payload);
            let (port1, port2) = open(options);
            let (mine, mut list) = list_of_all();
            let mut source;

            // The limit.
            let posted = fill(&port1, 1000);
            (list, source) = refused(port1.try_post_bytes_with(&bytes, list));
            assert!(matches!(source, PostError::Full { .. }), "{source}");
            list = expect_list_back(&mine, list);
            expect_filled(&port2, posted, 1000);
            for _ in 0..100 {
                port1.try_post_bytes(b"back to the first ring").unwrap();
                drop(port2.recv().unwrap());
            }

            // A loan at the same time.
            let loan = port1.reserve(10).unwrap();
            (list, source) = refused(port1.try_post_bytes_with(&bytes, list));
            assert!(matches!(source, PostError::Busy), "{source}");
            drop(loan);
            list = expect_list_back(&mine, list);

            // A port that cannot go, behind them.
            let (_other_end, own) = open(OPTIONS);
            let mut bad: Vec<_> = list.into_iter().collect();
            own.closer().close();
            bad.push(own.into());
            let (back, untransferable) =
                refused(port1.try_post_bytes_with(&bytes, TransferList::from_iter(bad)));
            let reason = match untransferable {
                PostError::Untransferable { index: 4, reason } => reason,
                refused => panic!("{refused}"),
            };
            assert!(matches!(reason, Untransferable::Closed(_)), "{reason}");
            list = expect_list_back(&mine, back.into_iter().take(4).collect());

            // No descriptor: not even for a lane.
            let (fresh, unread) = open(options);
            let scarcity = Scarcity::new(0);
            (list, source) = refused(fresh.try_post_bytes_with(&bytes, list));
            drop(scarcity);
            assert!(matches!(unread.try_recv(), Err(RecvError::Empty)));
            let PostError::Os(error) = source else { panic!("{source}") };
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            list = expect_list_back(&mine, list);

            // Nothing of all that was seen; then it goes, and the next one finds the channel closed.
            assert!(matches!(port2.try_recv(), Err(RecvError::Empty)));
            port1.post_bytes_with(&bytes, list).unwrap();
            let message = port2.recv().unwrap();
            assert!(message.bytes() == bytes);
            let buffers = message.take_buffers::<3>().unwrap();
            for (number, buffer) in [0, 2, 3].into_iter().zip(&buffers) {
                expect_buffer(buffer, number, 5000);
            }
            expect_all_entangled(&mine, &message.take_all_ports().unwrap());
            drop(message);
            drop(port2);
            let (mine, list) = list_of_all();
            let (list, source) = refused(port1.try_post_bytes_with(&bytes, list));
            assert!(matches!(source, PostError::Closed(CloseReason::Closed)), "{source}");
            expect_list_back(&mine, list);
        }
    }
});

#[test]
fn a_list_that_is_too_long_comes_back() {
    if !fits(&1025) {
        return;
    }
    let (port1, port2) = open(OPTIONS);
    let list: TransferList =
        (0..1025u64).map(|number| Transferable::from(filled(number, 8))).collect();
    let (list, source) = refused(port1.post_bytes_with(b"", list));
    let PostError::TooManyPorts { count: 1025, max: 1024 } = source else { panic!("{source}") };
    for (number, item) in (0..).zip(list) {
        let Transferable::Buffer(buffer) = item else { panic!("{item:?}") };
        expect_buffer(&buffer, number, 8);
    }
    assert!(matches!(port2.try_recv(), Err(RecvError::Empty)));
}

// ---- Without descriptors ----

alone!(buffers_wait_for_descriptors, || {
    raise_descriptor_limit();
    for options in all_kinds(OPTIONS) {
        for has_lane in [false, true] {
            for count in [1, 10, 300] {
                let (port1, port2) = open(options);
                if has_lane {
                    port1.post_bytes_with(b"", filled(1, 1)).unwrap();
                    drop(port2.recv().unwrap().take_buffer().unwrap());
                }
                let list: TransferList =
                    (0..count).map(|number| Transferable::from(filled(number, 100))).collect();
                port1.post_bytes_with(b"buffers", list).unwrap();
                port1.post_bytes(b"none").unwrap();
                let scarcity = Scarcity::new(count as usize / 2);
                let message = port2.recv().unwrap();
                for _ in 0..3 {
                    match message.take_buffer() {
                        Err(TakeError::Os(error)) => {
                            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                        }
                        other => panic!("{other:?}"),
                    }
                    assert_eq!(message.buffer_count(), count as usize);
                }
                assert_eq!(port2.recv().unwrap().bytes(), b"none");
                drop(scarcity);
                for number in 0..count {
                    expect_buffer(&message.take_buffer().unwrap().unwrap(), number, 100);
                }
            }
        }
    }
});

// ---- Nobody takes them: nothing is left ----

/// What becomes of messages with buffers in them.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Dropped,
    PartlyTaken,
    Unread,
    ReaderCloses,
    PosterForgets,
    InAQueueThatIsDropped,
    Moved,
}

const FATES: [Fate; 7] = [
    Fate::Dropped,
    Fate::PartlyTaken,
    Fate::Unread,
    Fate::ReaderCloses,
    Fate::PosterForgets,
    Fate::InAQueueThatIsDropped,
    Fate::Moved,
];

/// Posts messages with buffers of `len` bytes beside a payload of each kind, and lets `fate` come.
fn meet(fate: Fate, options: ChannelOptions, len: usize) {
    let (port1, port2) = open(options);
    for payload in [0, 100, 100_000] {
        let list = transfer![filled(1, len), filled(2, len).seal().unwrap(), filled(3, len)];
        port1.post_bytes_with(&long_pattern(1, payload), list).unwrap();
    }
    match fate {
        Fate::Dropped => assert_eq!(port2.drain().count(), 3),
        Fate::PartlyTaken => {
            for message in port2.drain() {
                let _one = message.take_buffer().unwrap().unwrap();
            }
        }
        Fate::Unread => drop(port2),
        Fate::ReaderCloses => {
            drop(port2.recv().unwrap());
            port2.closer().close();
            expect_end(&port2, CloseReason::Closed);
            expect_end(&port1, CloseReason::Closed);
        }
        Fate::PosterForgets => {
            // The list of a refused post, dropped with its error.
            drop(port2);
            drop(port1.post_bytes_with(b"", transfer![filled(4, len)]).unwrap_err());
        }
        Fate::InAQueueThatIsDropped => {
            let (outer1, outer2) = open(options);
            outer1.post_bytes_with(b"", transfer![port2]).unwrap();
            drop((outer1, outer2));
            expect_report(&port1, CloseReason::Lost);
        }
        Fate::Moved => {
            let (carrier1, carrier2) = open(options);
            std::mem::forget(port2.recv().unwrap());
            carrier1.post_bytes_with(b"", transfer![port2]).unwrap();
            let [port2] = carrier2.recv().unwrap().take_ports().unwrap();
            drop(port2.recv().unwrap());
        }
    }
}

alone!(unread_buffers_leave_no_descriptor_and_no_mapping, || {
    let counts = || (count_descriptors(), count_segment_mappings());
    // What a process makes once.
    FATES.into_iter().for_each(|fate| meet(fate, OPTIONS, 10));
    for options in all_kinds(OPTIONS) {
        for fate in FATES {
            let before = counts();
            (0..5).for_each(|_| meet(fate, options, 5000));
            assert_eq!(counts(), before, "{fate:?}, {options:?}");
        }
    }
});

/// Shared memory of the whole machine, in bytes.
fn shared_memory() -> usize {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = memory.lines().find(|line| line.starts_with("Shmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Far more than what other tests use meanwhile, and than what a round takes.
const MUCH: usize = 512 << 20;

fn expect_no_memory_left(before: usize, what: &str) {
    wait_until(what, || shared_memory() < before + MUCH / 2);
}

alone!(unread_buffers_leave_no_memory, || {
    const LEN: usize = 8 * MIB;
    for fate in FATES {
        let before = shared_memory();
        // Nine buffers each time.
        for _ in 0..MUCH / (9 * LEN) + 1 {
            meet(fate, OPTIONS, LEN);
        }
        expect_no_memory_left(before, "the memory of unread buffers is free");
    }
});

// The process that should have read them is killed: some are unread, some taken, one is its own.
doomed!(
    buffers_of_a_killed_process_leave_nothing,
    |port: MessagePort, mut peer: Peer| {
        const LEN: usize = 16 * MIB;
        let before = shared_memory();
        for number in 0..20 {
            port.post_bytes_with(b"", filled(number, LEN)).unwrap();
            if number == 7 {
                assert_eq!(port.recv().unwrap().bytes(), b"eight are taken");
            }
        }
        peer.kill();
        expect_report(&port, CloseReason::PeerDied);
        expect_end(&port, CloseReason::PeerDied);
        peer.wait();
        // Of 320 MiB.
        wait_until("their memory is free", || shared_memory() < before + 128 * MIB);
    },
    |port| {
        let _own = filled(1, MIB);
        let take = |number| {
            let [buffer] = port.recv().unwrap().take_buffers().unwrap();
            expect_buffer(&buffer, number, 16 * MIB);
            buffer
        };
        let _taken: Vec<_> = (0..8).map(take).collect();
        port.post_bytes(b"eight are taken").unwrap();
        loop {
            std::thread::park();
        }
    },
);
