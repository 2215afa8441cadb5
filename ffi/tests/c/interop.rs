//! Rust and C talk: each promise in both directions, by every way to a port, trusted and not. The C program is
//! `interop.c`, which has the same two roles as this file.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use bytemuck::{Pod, Zeroable};
use zeroport::{
    Address, Buffer, ChannelOptions, CloseReason, Event, Message, MessagePort, PortSet, RecvError,
    Server, Tagged, TransferList, Trust, tag_of_name,
};

use super::support::{DONE, Peer, this_test, with_watchdog};
use super::{Library, build_checked, channel, checked, expect_bytes};

const LARGE: usize = 1 << 20;
const TEXT: u32 = tag_of_name("interop.Text");
/// Says to this test binary that it is a child, and what it is to do: "ask trusted".
const ROLE: &str = "ZEROPORT_INTEROP";

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
struct Point {
    serial: u64,
    x: i32,
    y: i32,
}

impl Tagged for Point {
    const NAME: &'static str = "interop.Point";
}

/// The same bytes by another name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Other(Point);

impl Tagged for Other {
    const NAME: &'static str = "interop.Other";
}

fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || build_checked("tests/interop.c", "interop", Library::Static);
    PROGRAM.get_or_init(build).clone()
}

/// The C program in one of its roles.
fn in_c(way: &str, role: &str, trust: Trust, promise: &str) -> Command {
    let mut command = checked(&program());
    command.args([way, role, said(trust), promise]).stdin(Stdio::null());
    command
}

fn said(trust: Trust) -> &'static str {
    if trust == Trust::Trusted { "trusted" } else { "untrusted" }
}

fn address(test: &str, role: &str, trust: Trust) -> (Address, OsString) {
    let name = format!("zeroport-{test}-{role}-{}-{}", said(trust), std::process::id());
    (Address::abstract_name(&name), format!("@{name}").into())
}

/// The role of the other side.
fn other(role: &str) -> &'static str {
    if role == "ask" { "answer" } else { "ask" }
}

/// What one side does with its port.
fn play(role: &str, port: MessagePort, trust: Trust, ask: fn(&MessagePort, Trust)) {
    match role {
        "ask" => ask(&port, trust),
        _ => answer(&port),
    }
    port.close();
}

/// One promise by every way, with either side asking.
fn in_every_way(test: &'static str, promise: &'static str, ask: fn(&MessagePort, Trust)) {
    if let Ok(role) = std::env::var(ROLE) {
        let (role, trust) = role.split_once(' ').unwrap();
        let trust = if trust == "trusted" { Trust::Trusted } else { Trust::Untrusted };
        let port = zeroport::parent_port().unwrap();
        assert_eq!(port.trust(), Trust::Trusted, "a child trusts its parent");
        play(role, port, trust, ask);
        std::process::exit(DONE);
    }
    with_watchdog(move || {
        for trust in [Trust::Trusted, Trust::Untrusted] {
            for role in ["ask", "answer"] {
                with_a_child_in_c(role, promise, trust, ask);
                with_a_parent_in_c(test, role, promise, trust);
                with_a_server_in_c(role, promise, trust, ask);
                with_a_caller_in_c(role, promise, trust, ask);
            }
        }
    });
}

fn with_a_child_in_c(role: &str, promise: &str, trust: Trust, ask: fn(&MessagePort, Trust)) {
    let command = in_c("child", other(role), trust, promise);
    let (port, child) = ChannelOptions::new().trust(trust).spawn(command).unwrap();
    assert_eq!(port.trust(), trust);
    play(role, port, trust, ask);
    Peer::new(child).expect_done();
}

fn with_a_parent_in_c(test: &'static str, role: &str, promise: &str, trust: Trust) {
    let mut command = in_c("parent", other(role), trust, promise);
    let this = this_test(test);
    command.arg(this.get_program()).args(this.get_args());
    command.env(ROLE, format!("{role} {}", said(trust))).stdout(Stdio::null());
    Peer::new(command.spawn().unwrap()).expect_done();
}

/// Waits until it listens.
fn listening(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
}

fn with_a_server_in_c(role: &str, promise: &str, trust: Trust, ask: fn(&MessagePort, Trust)) {
    let (address, name) = address(promise, role, trust);
    let mut command = in_c("server", other(role), trust, promise);
    let mut child = command.arg(name).stdout(Stdio::piped()).spawn().unwrap();
    listening(&mut child);
    let connection = ChannelOptions::new().trust(trust).connect(address).unwrap();
    assert_eq!(connection.server.pid, Some(child.id()));
    assert_eq!(connection.port.trust(), trust);
    play(role, connection.port, trust, ask);
    Peer::new(child).expect_done();
}

fn with_a_caller_in_c(role: &str, promise: &str, trust: Trust, ask: fn(&MessagePort, Trust)) {
    let (address, name) = address(promise, role, trust);
    let server = Server::bind(address).unwrap();
    let child = in_c("caller", other(role), trust, promise).arg(name).spawn().unwrap();
    let caller = server.accept().unwrap();
    assert_eq!(caller.credentials().pid, Some(child.id()));
    let port = caller.admit_with(ChannelOptions::new().trust(trust)).unwrap();
    assert_eq!(port.trust(), trust);
    play(role, port, trust, ask);
    Peer::new(child).expect_done();
}

fn answer(port: &MessagePort) {
    loop {
        match port.recv() {
            Ok(message) => answer_one(port, &message),
            Err(error) => {
                assert_eq!(error, RecvError::Closed(CloseReason::Closed));
                return;
            }
        }
    }
}

fn answer_one(port: &MessagePort, message: &Message<'_>) {
    let turned = |it: &Point| Point { serial: it.serial + 1, x: it.y, y: it.x };
    if let Ok(point) = message.pod::<Point>() {
        assert!(message.pod::<Other>().is_err());
        port.post_pod(&turned(point)).unwrap();
    } else if let Ok(points) = message.pod_slice::<Point>() {
        port.post_pod_slice(&points.iter().map(turned).collect::<Vec<_>>()).unwrap();
    } else if let Ok(number) = message.pod::<u32>() {
        port.post_pod(&(number + 1)).unwrap();
    } else if message.tag() == TEXT {
        let mut loan = port.reserve(message.bytes().len() + 10).unwrap();
        let back = reversed(message.bytes());
        loan[..back.len()].copy_from_slice(&back);
        loan.publish_tagged(back.len(), TEXT).unwrap();
    } else if message.tag() != 0 {
        port.post_bytes(b"refused").unwrap();
    } else if message.port_count() > 0 {
        let ports = message.take_all_ports().unwrap();
        ports.iter().for_each(|port| port.post_bytes(b"here").unwrap());
        port.post_bytes_with(b"ports", ports).unwrap();
    } else if message.buffer_count() > 0 {
        give_buffers_back(port, message);
    } else {
        port.post_bytes(&reversed(message.bytes())).unwrap();
    }
}

fn give_buffers_back(port: &MessagePort, message: &Message<'_>) {
    let mut list = TransferList::new();
    let mut copies = Vec::new();
    while let Some(buffer) = message.take_buffer().unwrap() {
        let mut copy = buffer.to_buffer().unwrap();
        copy.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        copies.push(copy);
        list.push(buffer);
    }
    copies.into_iter().for_each(|copy| list.push(copy));
    port.post_bytes_with(b"buffers", list).unwrap();
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// As in C.
fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + number * 7 + (index >> 8)) as u8).collect()
}

fn ask_plain_data(port: &MessagePort, _: Trust) {
    for number in 0..100u32 {
        let point = Point { serial: number.into(), x: 1, y: -2 };
        let turned = Point { serial: u64::from(number) + 1, x: -2, y: 1 };
        port.post_pod(&point).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.pod::<Point>().unwrap(), &turned);
        assert!(message.pod::<Other>().is_err() && message.pod::<u32>().is_err());
        port.post_pod_slice(&[point; 3]).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.pod_slice::<Point>().unwrap(), [turned; 3]);
        assert!(message.pod::<Point>().is_err() && message.pod_slice::<Other>().is_err());
        port.post_pod(&number).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.pod::<u32>().unwrap(), &(number + 1));
        assert!(message.pod::<i32>().is_err() && message.pod::<Point>().is_err());
    }
    port.post_pod(&Other(Point { serial: 1, x: 2, y: 3 })).unwrap();
    expect_bytes(port, b"refused");
}

fn ask_bytes(port: &MessagePort, _: Trust) {
    let max = port.max_in_ring();
    for (number, len) in [0, 1, 64, 1000, max, max + 1, LARGE, 3].into_iter().enumerate() {
        let bytes = pattern(number, len);
        port.post_bytes(&bytes).unwrap();
        expect_bytes(port, &reversed(&bytes));
    }
}

fn ask_ports(port: &MessagePort, trust: Trust) {
    for count in [1, 2, 65] {
        let (mine, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| channel(trust)).unzip();
        for (number, port) in mine.iter().enumerate() {
            port.post_bytes(&number.to_le_bytes()).unwrap();
        }
        port.post_bytes_with(b"ports", theirs).unwrap();
        let theirs = port.recv().unwrap().take_all_ports().unwrap();
        assert_eq!(theirs.len(), count);
        for (number, (mine, theirs)) in mine.iter().zip(theirs).enumerate() {
            expect_bytes(&theirs, &number.to_le_bytes());
            expect_bytes(mine, b"here");
            theirs.post_bytes(b"home").unwrap();
            expect_bytes(mine, b"home");
            theirs.close();
            super::expect_closed(mine);
        }
    }
}

fn ask_buffers(port: &MessagePort, _: Trust) {
    let contents: Vec<_> = [1, 5000, LARGE].into_iter().map(|len| pattern(len, len)).collect();
    let mut list = TransferList::new();
    for (number, bytes) in contents.iter().enumerate() {
        let buffer = Buffer::from_slice(bytes).unwrap();
        if number == 1 { list.push(buffer.seal().unwrap()) } else { list.push(buffer) }
    }
    port.post_bytes_with(b"buffers", list).unwrap();
    let message = port.recv().unwrap();
    assert_eq!((message.buffer_count(), message.port_count()), (6, 0));
    for added in [0, 1] {
        for bytes in &contents {
            let buffer = message.take_buffer().unwrap().unwrap();
            let expected = bytes.iter().map(|byte| byte.wrapping_add(added));
            assert!(buffer.len() == bytes.len() && buffer.iter().copied().eq(expected));
        }
    }
}

fn ask_loans_and_batches(port: &MessagePort, _: Trust) {
    for len in [1, 100, LARGE] {
        let bytes = pattern(len, len);
        let mut loan = port.reserve(len + 5).unwrap();
        loan[..len].copy_from_slice(&bytes);
        loan.publish_tagged(len, TEXT).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.tag(), TEXT);
        assert_eq!(message.bytes(), reversed(&bytes));
    }
    let numbers: Vec<_> = (0..1000u32).collect();
    assert_eq!(port.post_all_pod(&numbers).unwrap(), numbers.len());
    for number in numbers {
        assert_eq!(port.recv().unwrap().pod::<u32>().unwrap(), &(number + 1));
    }
}

#[test]
fn plain_data() {
    in_every_way("interop::plain_data", "plain", ask_plain_data);
}

#[test]
fn bytes_of_all_sizes() {
    in_every_way("interop::bytes_of_all_sizes", "bytes", ask_bytes);
}

#[test]
fn ports() {
    in_every_way("interop::ports", "ports", ask_ports);
}

#[test]
fn buffers() {
    in_every_way("interop::buffers", "buffers", ask_buffers);
}

#[test]
fn loans_and_batches() {
    in_every_way("interop::loans_and_batches", "loans", ask_loans_and_batches);
}

/// Bytes of the message with this number, of those that the doomed one posts for ever.
fn doomed_len(number: u64) -> usize {
    if number % 100 == 99 { LARGE } else { 8 + number as usize % 1000 }
}

fn expect_number(message: &Message<'_>, number: u64) {
    assert_eq!(message.bytes().len(), doomed_len(number));
    assert_eq!(message.bytes()[..8], number.to_le_bytes());
}

#[test]
fn a_killed_c_program_is_told_of_once_after_its_last_message() {
    with_watchdog(|| {
        for trust in [Trust::Trusted, Trust::Untrusted] {
            let command = in_c("child", "die", trust, "-");
            let (port, child) = ChannelOptions::new().trust(trust).spawn(command).unwrap();
            let mut child = Peer::new(child);
            (0..500).for_each(|number| expect_number(&port.recv().unwrap(), number));
            child.kill();
            let mut number = 500;
            let mut set = PortSet::new().unwrap();
            set.insert((), port).unwrap();
            let mut ends = 0;
            while !set.is_empty() {
                for ((), event) in set.wait().unwrap() {
                    match event {
                        Event::Message(_, message) => expect_number(&message, number),
                        Event::Closed(reason) => {
                            assert_eq!(reason, CloseReason::PeerDied);
                            ends += 1;
                        }
                        event => panic!("{event:?}"),
                    }
                    number += 1;
                }
            }
            assert_eq!(ends, 1);
            child.wait();
        }
    });
}

#[test]
fn a_killed_rust_program_is_told_of_once_after_its_last_message() {
    const TEST: &str = "interop::a_killed_rust_program_is_told_of_once_after_its_last_message";
    if std::env::var_os(ROLE).is_some() {
        let (port, mut bytes) = (zeroport::parent_port().unwrap(), vec![0; LARGE]);
        for number in 0u64.. {
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            port.post_bytes(&bytes[..doomed_len(number)]).unwrap();
        }
    }
    with_watchdog(|| {
        for trust in [Trust::Trusted, Trust::Untrusted] {
            let mut command = in_c("parent", "see-death", trust, "-");
            let this = this_test(TEST);
            command.arg(this.get_program()).args(this.get_args()).env(ROLE, "die");
            Peer::new(command.stdout(Stdio::null()).spawn().unwrap()).expect_done();
        }
    });
}
