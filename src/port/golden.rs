//! The bytes of a fixed conversation: whoever changes them has changed the shared format, and must
//! raise [`VERSION`](crate::layout::VERSION).
//!
//! `tests/golden/v<VERSION>.hex` is written by `ZEROPORT_WRITE_GOLDEN=1 cargo test --lib golden`, once
//! for each version; `ci/format` sees to it that it stays as it is.

#![allow(unsafe_code)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::{ChannelOptions, MessageChannel, MessagePort, PortDescriptors, Trust};
use crate::Buffer;
use crate::layout::{Identity, VERSION};
use crate::tag::{Tagged, tag_of_name};
use crate::ticket::Ticket;

const CAPACITY: u64 = 4096;

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Person {
    name: String,
    ages: Vec<u32>,
    nested: Option<(u64, Box<str>)>,
}

impl Tagged for Person {
    const NAME: &'static str = "golden.Person";
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Point {
    x: u32,
    y: u32,
    z: f64,
}

impl Tagged for Point {
    const NAME: &'static str = "golden.Point";
}

/// Every way to post; the way back goes over the end of a lap; some are read, some not; one side closes.
/// Padding falls on fresh memory: what stands in it is no part of the format.
fn conversation() -> MessagePort {
    let MessageChannel { port1, port2 } = options().open().unwrap();
    let receive = |port: &MessagePort, count| {
        (0..count).for_each(|_| drop(port.try_recv().unwrap()));
    };

    let nested = Some((7, "boxed".into()));
    let person = Person { name: "Ada, countess of Lovelace".into(), ages: vec![9, 36], nested };
    port1.try_post(&person).unwrap();
    port1.try_post_pod(&Point { x: 1, y: 2, z: 0.5 }).unwrap();
    let points = [Point { x: 3, y: 4, z: 1.5 }, Point { x: 5, y: 6, z: 2.5 }];
    port1.post_pod_slice(&points).unwrap();
    port1.try_post_bytes(b"").unwrap();
    port1.try_post_bytes(b"hello").unwrap();
    port1.post_all_bytes(["one", "two", "three"]).unwrap();
    let mut loan = port1.try_reserve(20).unwrap();
    loan.fill(0xab);
    loan.publish_tagged(20, tag_of_name("golden.Loan")).unwrap();

    // Held and let go out of order.
    let (first, second) = (port2.try_recv().unwrap(), port2.try_recv().unwrap());
    drop(second);
    drop(first);
    receive(&port2, 4);

    port2.try_post_pod(&Point { x: 7, y: 8, z: 3.5 }).unwrap();
    port2.try_post_bytes(&[0x11; 1504]).unwrap();
    receive(&port1, 2);
    // The second of these wraps, with a filler, and ends in the middle of what the reader has read.
    port2.try_post_bytes(&[0x22; 1504]).unwrap();
    receive(&port1, 1);
    port2.try_post_bytes(&[0x33; 1200]).unwrap();
    // Two ports of one channel; both are let go unread.
    let MessageChannel { port1: port3, port2: port4 } = options().open().unwrap();
    port2.try_post_bytes_with(b"ports", [port3, port4]).unwrap();
    port1.close();
    port2
}

/// No other channel has these, so the memory is fresh: what was there before is no part of the format.
fn options() -> ChannelOptions {
    ChannelOptions::new().capacity(CAPACITY).limits(3 << 20, 5 << 20)
}

/// What lies outside the first ring: a large payload, a buffer, and the ring by which a queue has grown; and
/// the ticket of a port that stands there.
fn beyond() -> String {
    let MessageChannel { port1, port2 } = options().limits(7 << 20, 0).open().unwrap();
    port1.try_post_bytes(&[0x44; 5000]).unwrap();
    port1
        .try_post_bytes_with(b"a buffer", Buffer::from_slice(b"sixteen bytes...").unwrap())
        .unwrap();
    while port1.halves().0.queue().grown().is_none() {
        port1.try_post_bytes(&[0x55; 1000]).unwrap();
    }
    port1.try_post_pod(&7u32).unwrap();
    let (first, (grown, _)) =
        (segment_of(&port1, 4096 + 2 * CAPACITY), port1.halves().0.queue().grown().unwrap());
    let mut ring = vec![0; 4096 + 2 * CAPACITY as usize];
    assert_eq!(rustix::io::pread(grown.segment().memfd(), &mut ring, 0), Ok(ring.len()));
    // As far as it is before the reader has come so far, and then as it has.
    while port2.try_recv().is_ok_and(|message| message.bytes() != 7u32.to_le_bytes()) {}
    // A poster uses so many blocks before it uses one again.
    for _ in 0..16 {
        port1.try_post_bytes(&[0x77; 5000]).unwrap();
        drop(port2.try_recv().unwrap());
    }
    let named = named(&port1);
    // SAFETY: nobody but this test gets them.
    let [poster, reader] =
        [port1, port2].map(|port| unsafe { port.into_descriptors_trusted() }.unwrap());
    let tickets = [Ticket::payload(5000), Ticket::buffer(16), Ticket::ring(8192)];
    format!(
        "first ring with a link\n{}grown ring\n{}named\n{}tickets\n{}{}{}",
        dump(&first),
        dump(&ring),
        dump(&named),
        dump(bytemuck::cast_slice(&tickets)),
        dump(&poster.ticket),
        dump(&reader.ticket),
    )
}

/// The record of a large payload in memory that the reader has kept, without the number of its file.
fn named(port: &MessagePort) -> [u8; 48] {
    let (grown, at) = port.halves().0.queue().grown().unwrap();
    port.try_post_bytes(&[0x77; 5000]).unwrap();
    let mut record = [0; 48];
    let read = rustix::io::pread(grown.segment().memfd(), &mut record, 4096 + at);
    assert_eq!(read, Ok(record.len()));
    let file = &mut record[32..40];
    assert_ne!(file, [0; 8]);
    file.fill(0xff);
    record
}

/// A reader that keeps up, of whom answers are expected: the lap ends early, and the next messages lie apart.
fn apart() -> String {
    let MessageChannel { port1, port2 } = options().capacity(2 * CAPACITY).open().unwrap();
    for _ in 0..5 {
        assert!(port1.recv_timeout(Duration::ZERO).is_err());
        port1.try_post_bytes(&[0x66; 1000]).unwrap();
        drop(port2.try_recv().unwrap());
    }
    port1.post_all_bytes(["first", "second"]).unwrap();
    dump(&segment_of(&port1, Identity::segment_len([2 * CAPACITY; 2])))
}

/// What travels with a port that has been posted to, read from, and given ports in both directions.
fn ticket() -> PortDescriptors {
    let options = ChannelOptions::new().capacity(CAPACITY).trust(Trust::Untrusted);
    let MessageChannel { port1, port2 } = options.open().unwrap();
    for _ in 0..2 {
        port1.try_post_bytes_with(b"one", options.open().unwrap().port1).unwrap();
        port2.try_post_bytes_with(b"twenty bytes of text", options.open().unwrap().port2).unwrap();
    }
    drop(port2.try_recv().unwrap());
    port2.into_descriptors().unwrap()
}

/// All bytes of a channel's segment.
fn segment(port: MessagePort) -> Vec<u8> {
    segment_of(&port, Identity::segment_len([CAPACITY; 2]))
}

fn segment_of(port: &MessagePort, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    let memfd = port.endpoint().segment().memfd();
    assert_eq!(rustix::io::pread(memfd, &mut bytes, 0), Ok(bytes.len()));
    bytes
}

/// Sixteen bytes in a line: where, what, and as text. Lines of zeroes are left out; `*` stands for
/// more of the same.
fn dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    let mut last: &[u8] = &[];
    for (index, line) in bytes.chunks(16).enumerate() {
        let more_of_the_same = last == line;
        last = line;
        if line.iter().all(|byte| *byte == 0) {
            continue;
        }
        if more_of_the_same {
            if !dump.ends_with("*\n") {
                dump.push_str("*\n");
            }
            continue;
        }
        write!(dump, "{:04x} ", 16 * index).unwrap();
        for byte in line {
            write!(dump, " {byte:02x}").unwrap();
        }
        let text =
            line.iter().map(|&byte| if byte.is_ascii_graphic() { byte as char } else { '.' });
        writeln!(dump, "  {}", text.collect::<String>()).unwrap();
    }
    dump
}

#[test]
fn golden_bytes() {
    let parts = ticket();
    assert_eq!(parts.descriptors.len(), 4, "segment, line, both lanes");
    let conversation = dump(&segment(conversation()));
    let (ticket, beyond, apart) = (dump(&parts.ticket), beyond(), apart());
    let found = format!("{conversation}ticket\n{ticket}{beyond}apart\n{apart}");
    let path = format!("{}/tests/golden/v{VERSION}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("ZEROPORT_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        // Never over one that is there.
        File::create_new(&path).unwrap().write_all(found.as_bytes()).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (number, (found, golden)) in found.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, golden, "line {} of {path}: raise VERSION", number + 1);
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "{path}: raise VERSION");
}
