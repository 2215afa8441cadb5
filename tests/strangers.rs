//! Strangers who keep silent, talk garbage, die or do not fit: no side can harm the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod places;
mod support;

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use ends::expect_end;
use places::{
    Folder, SHORT, admit_stranger, be_client_of, expect_answer, hang_up, is_readable, raw_server,
    serve, somewhere, start_client, stranger, unique_name,
};
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use support::{
    alone, asleep, count_descriptors, count_segment_mappings, lower_descriptor_limit,
    raise_descriptor_limit, test_name, wait_until, with_watchdog,
};
use zeroport::{
    AcceptError, Address, AdmitError, AttachError, Caller, ChannelOptions, CloseReason,
    ConnectError, PeerState, RecvError, connect,
};

// S-133: who says nothing keeps nobody waiting, admitted or not.
#[test]
fn a_silent_stranger_blocks_nobody() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let strangers = [(); 10].map(|()| stranger(server.address()));
        let mut callers = Vec::new();
        let mut ports = Vec::new();
        for n in 0..strangers.len() {
            let caller = server.accept().unwrap();
            if n % 2 == 0 { ports.push(caller.admit().unwrap()) } else { callers.push(caller) }
        }
        let address = server.address().clone();
        let client = thread::spawn(move || expect_answer(&connect(address).unwrap().port));
        serve(&server.accept().unwrap().admit().unwrap());
        client.join().unwrap();
        for port in &ports {
            assert_eq!(port.peer_state(), PeerState::Open);
            assert!(matches!(port.try_recv(), Err(RecvError::Empty)));
        }
        // S-134: they go without having said anything.
        strangers.into_iter().for_each(hang_up);
        for port in ports {
            expect_end(&port, CloseReason::Lost);
        }
        for caller in callers {
            assert!(matches!(caller.admit(), Err(AdmitError::Gone)));
        }
    });
}

/// Packets that no caller should send, some with a descriptor, which comes back at its end.
fn say_garbage(stranger: &OwnedFd) -> PipeReader {
    let (end, pipe) = std::io::pipe().unwrap();
    for len in [1, 2, 8, 24, 4096] {
        let garbage = vec![0xa5; len];
        send(stranger, &garbage, SendFlags::NOSIGNAL).unwrap();
        send_with_descriptor(stranger, &garbage, &pipe);
    }
    end
}

fn send_with_descriptor(line: &OwnedFd, packet: &[u8], descriptor: impl AsFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(line, &[std::io::IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

// S-133: garbage, before and after admission, is no message and leaves no descriptor.
alone!(a_garbling_stranger_harms_nobody, || with_watchdog(|| {
    let (_folder, server) = somewhere();
    drop(admit_stranger(&server));
    let before = (count_descriptors(), count_segment_mappings());
    for admitted in [false, true] {
        let stranger = stranger(server.address());
        let mut pipes = vec![say_garbage(&stranger)];
        let caller = server.accept().unwrap();
        if admitted {
            let port = caller.admit().unwrap();
            pipes.push(say_garbage(&stranger));
            assert!(matches!(port.recv_timeout(SHORT), Err(RecvError::Empty)));
            assert_eq!(port.peer_state(), PeerState::Open);
            drop(stranger);
            expect_end(&port, CloseReason::Lost);
        } else {
            caller.refuse();
            drop(stranger);
        }
        // Nobody has kept the other ends.
        for mut pipe in pipes {
            wait_until("the descriptors are closed", || is_readable(&pipe));
            assert_eq!(pipe.read(&mut [0; 1]).unwrap(), 0);
        }
    }
    assert_eq!((count_descriptors(), count_segment_mappings()), before);
}));

// Thousands of them leave nothing behind.
alone!(strangers_leave_nothing_behind, || with_watchdog(|| {
    let (_folder, server) = somewhere();
    let meet = |times: u32| {
        for n in 0..times {
            let stranger = stranger(server.address());
            let caller = server.accept().unwrap();
            match n % 3 {
                0 => caller.refuse(),
                1 => drop((caller.admit().unwrap(), stranger)),
                _ => {
                    hang_up(stranger);
                    assert!(matches!(caller.admit(), Err(AdmitError::Gone)));
                }
            }
        }
    };
    meet(10);
    let before = (count_descriptors(), count_segment_mappings());
    meet(2_000);
    assert_eq!((count_descriptors(), count_segment_mappings()), before);
}));

// S-134: the caller dies, at each stage.
#[test]
fn a_caller_that_dies() {
    let test = test_name(concat!(module_path!(), "::a_caller_that_dies"));
    be_client_of(test, |address| {
        let port = connect(address).unwrap().port;
        port.post_bytes(b"I am in").unwrap();
        let _ = port.recv();
    });
    with_watchdog(move || {
        let (_folder, server) = somewhere();
        // Before it is accepted, and before it is admitted.
        for accepted in [false, true] {
            let mut peer = start_client(test, server.address());
            wait_until("it has called", || is_readable(&server));
            let early = accepted.then(|| server.accept().unwrap());
            peer.kill();
            peer.wait();
            let caller = early.unwrap_or_else(|| server.accept().unwrap());
            assert_eq!(caller.credentials().pid, Some(peer.child.id()));
            assert!(matches!(caller.admit(), Err(AdmitError::Gone)));
        }
        // Once it has its port.
        let mut peer = start_client(test, server.address());
        let port = server.accept().unwrap().admit().unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"I am in");
        peer.kill();
        expect_end(&port, CloseReason::PeerDied);
    });
}

// S-135: an end that its caller never takes, because it was given one too many, is lost.
#[test]
fn a_caller_that_never_takes_its_port() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let (port, stranger) = admit_stranger(&server);
        port.post_bytes(b"anybody?").unwrap();
        assert_eq!(port.peer_state(), PeerState::Open);
        drop(stranger);
        expect_end(&port, CloseReason::Lost);
        // A caller that gives up waiting is such a one.
        let address = server.address().clone();
        let waited = ChannelOptions::new().connect_timeout(address, Duration::ZERO);
        assert!(matches!(waited, Err(ConnectError::TimedOut { .. })), "{waited:?}");
        assert!(matches!(server.accept().unwrap().admit(), Err(AdmitError::Gone)));
    });
}

// S-134: the server goes, with callers waiting in each stage.
#[test]
fn a_server_that_ends_refuses_all() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let address = server.address().clone();
        let call = |address: Address| asleep(move || connect(address).map(drop).unwrap_err());
        let first = call(address.clone());
        let caller = server.accept().unwrap();
        let calls = [first, call(address.clone())];
        wait_until("the second has called", || is_readable(&server));
        drop(server);
        drop(caller);
        for call in calls {
            let error = call.join();
            assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        }
        let error = connect(address.clone()).map(drop).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(matches!(error, ConnectError::NoServer { .. }), "{error:?}");
    });
}

/// A server that is none: accepts one caller, and says what the test likes.
fn answer_with(say: impl FnOnce(&OwnedFd)) -> ConnectError {
    let address = unique_name();
    let listener = raw_server(&address);
    let client = thread::spawn(move || connect(address).map(drop).unwrap_err());
    let line = accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
    say(&line);
    // Not hung up before the client has made up its mind.
    client.join().unwrap()
}

fn welcome(version: u32) -> Vec<u8> {
    let (side, epoch) = (1u32.to_le_bytes(), 6u64.to_le_bytes());
    [&b"ZEROPORT"[..], &version.to_le_bytes(), &side, &epoch].concat()
}

// S-133: a server that speaks otherwise is found out, and the error says how.
alone!(a_server_that_speaks_otherwise, || with_watchdog(|| {
    const VERSION: u32 = 5;
    let said = |packet: &[u8]| {
        answer_with(|line| {
            send(line, packet, SendFlags::NOSIGNAL).unwrap();
        })
    };
    let packets = [&b"!"[..], b"hello", &[0; 24], &[0; 5000], &welcome(VERSION)];
    drop(said(b"!"));
    let before = (count_descriptors(), count_segment_mappings());
    for packet in packets {
        let error = said(packet);
        let ConnectError::Attach { source, .. } = error else { panic!("{error:?}") };
        assert!(matches!(source, AttachError::NotASegment), "{source:?}");
    }
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = answer_with(|line| send_with_descriptor(line, &welcome(VERSION + 1), &file));
    let ConnectError::Attach { source, .. } = error else { panic!("{error:?}") };
    let version =
        matches!(source, AttachError::Version { ours: VERSION, theirs } if theirs == VERSION + 1);
    assert!(version, "{source:?}");
    let error = answer_with(|line| send_with_descriptor(line, &welcome(VERSION), &file));
    let ConnectError::Attach { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(source, AttachError::NotSealed), "{source:?}");
    drop(file);
    assert_eq!((count_descriptors(), count_segment_mappings()), before);

    let error = answer_with(|line| {
        rustix::net::shutdown(line, rustix::net::Shutdown::Both).unwrap();
    });
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}));

#[test]
fn a_listener_of_another_kind_is_no_server() {
    with_watchdog(|| {
        let folder = Folder::new();
        let path = folder.path("stream");
        let _stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = connect(&path).map(drop).unwrap_err();
        let ConnectError::Attach { source, .. } = error else { panic!("{error:?}") };
        assert!(matches!(source, AttachError::NotASegment), "{source:?}");
    });
}

// Descriptors run out, at each step: typed errors, nobody is lost, and the next try works.
alone!(without_descriptors_callers_wait, || with_watchdog(|| {
    let (_folder, server) = somewhere();
    drop(admit_stranger(&server));
    let _stranger = stranger(server.address());
    let before = count_descriptors();
    let mut refused = 0;
    let port = loop {
        let mut holder = fill_descriptors();
        holder.truncate(holder.len() - refused);
        let result = server.accept().map(Caller::admit);
        raise_descriptor_limit();
        drop(holder);
        match result {
            Ok(admitted) => break admitted.unwrap(),
            Err(AcceptError::Os(error)) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                assert!(is_readable(&server), "the caller waits");
            }
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(count_descriptors(), before);
        refused += 1;
    };
    // One for the connection, and one for the pidfd, which makes room for the segment.
    assert_eq!(refused, 2);
    assert_eq!(port.peer_state(), PeerState::Open);
    drop(port);
    assert_eq!(count_descriptors(), before);
}));

/// Takes all descriptors but none of those that are open already.
fn fill_descriptors() -> Vec<OwnedFd> {
    lower_descriptor_limit(64);
    let mut taken = Vec::new();
    while let Ok(fd) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        taken.push(fd);
    }
    taken
}

#[test]
fn without_descriptors_a_connection_can_be_tried_again() {
    let test =
        test_name(concat!(module_path!(), "::without_descriptors_a_connection_can_be_tried_again"));
    be_client_of(test, |address: Address| {
        drop(connect(address.clone()).unwrap());
        let before = count_descriptors();
        let mut failed = 0;
        for free in 0..8 {
            let mut holder = fill_descriptors();
            holder.truncate(holder.len() - free);
            let result = connect(address.clone());
            raise_descriptor_limit();
            drop(holder);
            let error = match result {
                Ok(connection) => {
                    expect_answer(&connection.port);
                    break;
                }
                Err(ConnectError::Os(error)) => error,
                Err(ConnectError::Attach { source: AttachError::Os(error), .. }) => error,
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
            assert_eq!(count_descriptors(), before);
            failed += 1;
        }
        // The socket, then the pidfd (from Linux 6.5), then the segment.
        assert!((2..8).contains(&failed), "{failed}");
    });
    with_watchdog(move || {
        let (_folder, server) = somewhere();
        let mut peer = start_client(test, server.address());
        wait_until("the client has tried often enough", || {
            if let Ok(caller) = server.accept_timeout(SHORT)
                && let Ok(port) = caller.admit()
            {
                serve(&port);
            }
            peer.child.try_wait().unwrap().is_some()
        });
        peer.expect_done();
    });
}
