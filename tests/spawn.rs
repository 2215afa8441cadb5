//! First contact with a child: its port, its end, and nothing else of it touched.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod ends;
mod support;

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use ends::{expect_end, expect_report};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use support::{
    Peer, Setup, alone, be_peer, conversation, count_descriptors, count_segment_mappings, doomed,
    is_peer_of, lower_descriptor_limit, raise_descriptor_limit, test_name, this_test,
    with_watchdog,
};
use zeroport::{
    AttachError, CloseReason, MessageChannel, MessagePort, ParentPortError, PeerState, SpawnError,
    parent_port, spawn,
};

/// The variable that names the child's end of the line.
const VARIABLE: &str = "ZEROPORT_PARENT";
/// The version of the protocol that this build speaks.
const VERSION: u32 = 5;
/// The status of a child that has found what it should find.
const FOUND: i32 = 70;

fn answer(port: MessagePort) {
    while let Ok(message) = port.recv() {
        port.post_bytes(message.bytes()).unwrap();
    }
}

fn expect_answer(port: &MessagePort) {
    port.post_bytes(b"question").unwrap();
    assert_eq!(port.recv().unwrap().bytes(), b"question");
}

// S-145: posted before the child runs, and before it listens, which it does late.
#[test]
fn messages_wait_for_the_child() {
    let test = test_name(concat!(module_path!(), "::messages_wait_for_the_child"));
    if is_peer_of(test) {
        // The host closes our input once it has posted all.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        be_peer(Setup::new(), |port| {
            for n in 0..500u64 {
                assert_eq!(port.recv().unwrap().bytes(), n.to_ne_bytes());
            }
            port.post_bytes(b"got them").unwrap();
        });
    }
    with_watchdog(move || {
        let mut command = this_test(test);
        command.stdin(Stdio::piped());
        let (port, mut child) = spawn(command).unwrap();
        for n in 0..500u64 {
            port.post_bytes(&n.to_ne_bytes()).unwrap();
        }
        assert_eq!(port.peer_state(), PeerState::Open);
        drop(child.stdin.take());
        assert_eq!(port.recv().unwrap().bytes(), b"got them");
        expect_end(&port, CloseReason::Closed);
        child.wait().unwrap();
    });
}

// S-146: the port is there for as long as the child wants it.
conversation!(both_ways, |port| expect_answer(&port), answer);

// S-147: no such program: an error, and nothing of the channel is left.
alone!(a_missing_program_leaves_nothing, || {
    let keep = MessageChannel::new().unwrap();
    let before = (count_descriptors(), count_segment_mappings());
    for _ in 0..10 {
        match spawn(Command::new("/no/such/program")) {
            Err(SpawnError::Start { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((count_descriptors(), count_segment_mappings()), before);
    let error = spawn(Command::new("/no/such/program")).map(drop).unwrap_err();
    assert!(error.to_string().contains("cannot start /no/such/program: "), "{error}");
    assert!(error.source().is_some());
    drop(keep);
});

// S-134, S-147: it ends before it has taken its port; its status is the command's.
#[test]
fn a_child_that_never_asks() {
    with_watchdog(|| {
        for status in [0, 7] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exit {status}")]);
            let (port, mut child) = spawn(command).unwrap();
            expect_report(&port, CloseReason::Lost);
            expect_end(&port, CloseReason::Lost);
            assert_eq!(child.wait().unwrap().code(), Some(status));
        }
    });
}

// S-147: it ends badly, after a word.
doomed!(
    a_child_that_fails,
    |port, mut peer| {
        assert_eq!(port.recv().unwrap().bytes(), b"a word");
        expect_end(&port, CloseReason::PeerDied);
        assert_eq!(peer.wait().code(), Some(5));
    },
    |port| {
        port.post_bytes(b"a word").unwrap();
        std::process::exit(5)
    },
);

doomed!(
    a_child_that_aborts,
    |port, mut peer| {
        assert_eq!(port.recv().unwrap().bytes(), b"a word");
        expect_end(&port, CloseReason::PeerDied);
        assert_eq!(peer.wait().signal(), Some(libc::SIGABRT));
    },
    |port| {
        port.post_bytes(b"a word").unwrap();
        std::process::abort()
    },
);

// A program that was started by hand.
alone!(no_parent, || {
    let error = parent_port().map(drop).unwrap_err();
    assert!(matches!(error, ParentPortError::NoParent));
    assert!(error.to_string().contains(VARIABLE), "{error}");
    assert!(error.to_string().contains("zeroport::spawn"), "{error}");
});

// S-126: a child that may not have the descriptor of its port can ask again.
#[test]
fn a_child_without_descriptors_asks_again() {
    let test = test_name(concat!(module_path!(), "::a_child_without_descriptors_asks_again"));
    if is_peer_of(test) {
        let before = count_descriptors();
        for _ in 0..3 {
            // The standard streams take what is left.
            lower_descriptor_limit(3);
            let error = parent_port().map(drop).unwrap_err();
            raise_descriptor_limit();
            let ParentPortError::Attach(AttachError::Os(error)) = error else {
                panic!("{error:?}")
            };
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            assert_eq!(count_descriptors(), before);
        }
        be_peer(Setup::new(), answer);
    }
    with_watchdog(move || {
        let (port, mut peer) = Peer::spawn(test, Setup::new());
        expect_answer(&port);
        drop(port);
        peer.expect_done();
    });
}

fn expect_gone() {
    let error = parent_port().map(drop).unwrap_err();
    let text = error.to_string();
    let ParentPortError::Gone { value } = error else { panic!("{error:?}") };
    assert_eq!(value, std::env::var(VARIABLE).unwrap());
    assert!(text.contains(&value), "{text}");
}

// The port can be taken once: also after it was dropped.
conversation!(taken_once, |port| expect_answer(&port), |port| {
    if std::env::var_os(VARIABLE).is_some() {
        expect_gone();
    }
    answer(port);
    if std::env::var_os(VARIABLE).is_some() {
        expect_gone();
    }
},);

// What else the variable may say: nothing is taken that is not the port, and nothing is closed.
#[test]
fn a_variable_that_names_no_port() {
    let test = test_name(concat!(module_path!(), "::a_variable_that_names_no_port"));
    if is_peer_of(test) {
        let before = count_descriptors();
        expect_gone();
        assert_eq!(count_descriptors(), before);
        std::process::exit(FOUND);
    }
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let number = file.as_raw_fd();
    let values = ["", ":", "x", "3", "-1:1", "0:0", "1:1", "99999:1", "99999999999999999999:1"];
    let values = values.into_iter().map(String::from).chain([format!("{number}:1")]);
    for value in values {
        let status = this_test(test).env(VARIABLE, &value).status().unwrap();
        assert_eq!(status.code(), Some(FOUND), "{value}");
    }
}

/// A parent that is no zeroport program, or one of another version.
#[test]
fn a_parent_that_speaks_otherwise() {
    let test = test_name(concat!(module_path!(), "::a_parent_that_speaks_otherwise"));
    if is_peer_of(test) {
        let error = parent_port().map(drop).unwrap_err();
        let ParentPortError::Attach(error) = error else { panic!("{error:?}") };
        let kind = match error {
            AttachError::NotASegment => "not a segment",
            AttachError::Version { ours: VERSION, theirs } if theirs == VERSION + 1 => "version",
            AttachError::Detached => "taken",
            _ => panic!("{error:?}"),
        };
        assert_eq!(kind, std::env::var("EXPECTED").unwrap());
        std::process::exit(FOUND);
    }
    let welcome = |magic: &[u8; 8], version: u32| {
        let (side, epoch) = (1u32.to_le_bytes(), 6u64.to_le_bytes());
        [&magic[..], &version.to_le_bytes(), &side, &epoch].concat()
    };
    let packets = [
        (Some(b"hello".to_vec()), "not a segment"),
        (Some(vec![0; 4096]), "not a segment"),
        (Some(welcome(b"ZEROPORD", VERSION)), "not a segment"),
        // No segment comes with it.
        (Some(welcome(b"ZEROPORT", VERSION)), "not a segment"),
        (None, "taken"),
    ];
    for (packet, expected) in packets {
        let (ours, theirs) = raw_line();
        if let Some(packet) = packet {
            send(&ours, &packet, SendFlags::NOSIGNAL).unwrap();
        }
        expect_found(this_test(test).env("EXPECTED", expected), &theirs);
    }
    // The segment of the next version is none that this build could read, so any will do.
    let (ours, theirs) = raw_line();
    send_with_descriptor(&ours, &welcome(b"ZEROPORT", VERSION + 1));
    expect_found(this_test(test).env("EXPECTED", "version"), &theirs);
    // A parent that has gone.
    let (ours, theirs) = raw_line();
    drop(ours);
    expect_found(this_test(test).env("EXPECTED", "taken"), &theirs);
}

/// A line whose second end a child inherits.
fn raw_line() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    (ours, theirs)
}

fn send_with_descriptor(line: &OwnedFd, packet: &[u8]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
    use std::os::fd::AsFd;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [line.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(line, &[std::io::IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

fn expect_found(command: &mut Command, line: &OwnedFd) {
    let inode = rustix::fs::fstat(line).unwrap().st_ino;
    let value = format!("{}:{inode}", line.as_raw_fd());
    let status = command.env(VARIABLE, value).status().unwrap();
    assert_eq!(status.code(), Some(FOUND), "see its output");
}

// S-148: the variable reaches the child's own children, the port does not.
#[test]
fn a_grandchild_has_no_port() {
    const GRANDCHILD: &str = "ZEROPORT_TEST_GRANDCHILD";
    let test = test_name(concat!(module_path!(), "::a_grandchild_has_no_port"));
    if is_peer_of(test) {
        if std::env::var_os(GRANDCHILD).is_some() {
            expect_gone();
            std::process::exit(FOUND);
        }
        be_peer(Setup::new(), |port| {
            let status = this_test(test).env(GRANDCHILD, "1").status().unwrap();
            port.post_bytes(&status.code().unwrap().to_ne_bytes()).unwrap();
        });
    }
    with_watchdog(move || {
        let (port, mut peer) = Peer::spawn(test, Setup::new());
        assert_eq!(port.recv().unwrap().bytes(), FOUND.to_ne_bytes());
        peer.expect_done();
    });
}

// A line that several processes have inherited belongs to the first that asks; the others do no harm.
#[test]
fn a_second_heir_changes_nothing() {
    const HEIR: &str = "ZEROPORT_TEST_HEIR";
    let test = test_name(concat!(module_path!(), "::a_second_heir_changes_nothing"));
    if is_peer_of(test) {
        if std::env::var_os(HEIR).is_some() {
            // The first heir closes our input once it has the port.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            let error = parent_port().unwrap_err();
            assert!(matches!(error, ParentPortError::Attach(AttachError::Detached)), "{error:?}");
            std::process::exit(FOUND);
        }
        let mut heir = this_test(test).env(HEIR, "1").stdin(Stdio::piped()).spawn().unwrap();
        be_peer(Setup::new(), |port| {
            heir.stdin.take();
            assert_eq!(heir.wait().unwrap().code(), Some(FOUND));
            answer(port);
        });
    }
    with_watchdog(move || {
        let (port, mut peer) = Peer::spawn(test, Setup::new());
        expect_answer(&port);
        drop(port);
        peer.expect_done();
    });
}

// S-148: the child's children live on; its death is seen all the same.
#[test]
fn a_grandchild_does_not_hide_a_death() {
    let test = test_name(concat!(module_path!(), "::a_grandchild_does_not_hide_a_death"));
    if is_peer_of(test) {
        be_peer(Setup::new(), |port| {
            // One without a port and one with; both end when our input does, after us.
            #[allow(clippy::zombie_processes)]
            let plain = Command::new("cat").stdout(Stdio::null()).spawn().unwrap();
            let mut ported = Command::new("cat");
            ported.stdout(Stdio::null());
            let (other, ported) = spawn(ported).unwrap();
            port.post_pod_slice(&[plain.id(), ported.id()]).unwrap();
            let _ = port.recv();
            drop(other);
        });
    }
    with_watchdog(move || {
        let mut command = this_test(test);
        command.stdin(Stdio::piped());
        let (port, mut child) = spawn(command).unwrap();
        let input = child.stdin.take().unwrap();
        let grandchildren = port.recv().unwrap().pod_slice::<u32>().unwrap().to_vec();
        child.kill().unwrap();
        expect_end(&port, CloseReason::PeerDied);
        for grandchild in grandchildren {
            let command = std::fs::read_to_string(format!("/proc/{grandchild}/comm")).unwrap();
            assert_eq!(command.trim(), "cat", "it lives on");
        }
        child.wait().unwrap();
        drop(input);
    });
}

// A child has its own end of its own line, and nothing of all the other ports.
alone!(a_child_inherits_one_line_only, || {
    with_watchdog(|| {
        let _others: Vec<_> = (0..10).map(|_| MessageChannel::new().unwrap()).collect();
        // What this process inherited itself goes on to its children.
        let inherited = count_lines(list_descriptors().spawn().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let (_port, child) = spawn(list_descriptors()).unwrap();
                        assert_eq!(count_lines(child), inherited + 1);
                    }
                });
            }
        });
    });
});

fn list_descriptors() -> Command {
    let mut command = Command::new("ls");
    command.args(["-l", "/proc/self/fd"]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Sockets of a child that lists its descriptors; it must have no segment.
fn count_lines(child: std::process::Child) -> usize {
    let list = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(list.matches("zeroport").count(), 0, "{list}");
    list.matches("socket:").count()
}

/// Streams, arguments, environment, folder and status are the command's.
#[test]
fn the_rest_of_the_child_is_untouched() {
    with_watchdog(|| {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "cat; echo \"$GREETING $1 $(pwd)\"; echo oh >&2; exit 9",
                "sh",
                "argument",
            ])
            .env("GREETING", "hello")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (port, mut child) = spawn(command).unwrap();
        child.stdin.take().unwrap().write_all(b"from the input\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"from the input\nhello argument /\n");
        assert_eq!(output.stderr, b"oh\n");
        assert_eq!(output.status.code(), Some(9));
        expect_end(&port, CloseReason::Lost);
    });
    assert!(std::env::var_os(VARIABLE).is_none(), "the parent's own environment");
}

// A parent without standard streams: its lines may have their numbers, the child's may not.
#[test]
fn a_parent_without_standard_streams() {
    const WITHOUT: &str = "ZEROPORT_TEST_WITHOUT";
    let test = test_name(concat!(module_path!(), "::a_parent_without_standard_streams"));
    if std::env::var_os(WITHOUT).is_some() {
        if is_peer_of(test) && std::env::var_os(VARIABLE).is_some() {
            be_peer(Setup::new(), answer);
        }
        for number in 0..3 {
            // SAFETY: nobody in this process uses them from now on.
            unsafe { libc::close(number) };
        }
        let mut command = this_test(test);
        command.stderr(Stdio::null());
        let (port, mut child) = spawn(command).unwrap();
        expect_answer(&port);
        drop(port);
        assert!(child.wait().is_ok());
        std::process::exit(FOUND);
    }
    let status = this_test(test).env(WITHOUT, "1").status().unwrap();
    assert_eq!(status.code(), Some(FOUND));
}

// S-142, S-150: one child of many dies; the others go on, and a fresh one takes its place.
#[test]
fn children_die_alone() {
    let test = test_name(concat!(module_path!(), "::children_die_alone"));
    if is_peer_of(test) {
        be_peer(Setup::new(), answer);
    }
    with_watchdog(move || {
        let mut peers: Vec<_> = (0..5).map(|_| Peer::spawn(test, Setup::new())).collect();
        for dying in 0..5 {
            peers.iter().for_each(|(port, _)| expect_answer(port));
            let (port, peer) = &mut peers[dying];
            peer.kill();
            expect_end(port, CloseReason::PeerDied);
            for (port, _) in peers.iter().enumerate().filter(|(n, _)| *n != dying).map(|(_, p)| p) {
                assert_eq!(port.peer_state(), PeerState::Open);
                expect_answer(port);
            }
            peers[dying] = Peer::spawn(test, Setup::new());
        }
    });
}
