//! The socket file of a server: private, there while the server listens, replaced only when dead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod places;
mod support;

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use places::{
    Folder, hang_up, leave_stale_file, raw_server, stranger, unique_name, wait_until_stale,
};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{geteuid, umask};
use support::{
    Peer, alone, be_peer, conversation, count_descriptors, is_peer_of, lower_descriptor_limit,
    raise_descriptor_limit, test_name, this_test, with_watchdog,
};
use zeroport::{
    AcceptError, Address, AddressError, AdmitError, BindError, ChannelOptions, CloseReason,
    ConnectError, MessagePort, RecvError, Server, connect,
};

fn bind_error(address: impl Into<Address>) -> BindError {
    Server::bind(address).map(drop).unwrap_err()
}

/// Somebody who connects there now gets to this server.
fn expect_reached(server: &Server, path: &Path) {
    let path = path.to_owned();
    let client = thread::spawn(move || connect(&path).map(|connection| connection.port));
    let port = server.accept_timeout(Duration::from_secs(30)).unwrap().admit().unwrap();
    port.post_bytes(b"hello").unwrap();
    let other = client.join().unwrap().unwrap();
    assert_eq!(other.recv().unwrap().bytes(), b"hello");
}

fn expect_in_use(path: &Path) {
    let error = bind_error(path);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let BindError::InUse { address } = error else { panic!("{error:?}") };
    assert_eq!(address, Address::from(path));
}

#[test]
fn the_file_lives_as_long_as_its_server() {
    with_watchdog(|| {
        let folder = Folder::new();
        let path = folder.path("socket");
        for _ in 0..3 {
            let server = Server::bind(&path).unwrap();
            assert_eq!(server.address(), &Address::Path(path.clone()));
            assert_eq!(folder.names(), ["socket"]);
            expect_reached(&server, &path);
            drop(server);
            assert!(folder.names().is_empty());
            let error = connect(&path).map(drop).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            let ConnectError::NoServer { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn a_stale_file_is_replaced() {
    with_watchdog(|| {
        let folder = Folder::new();
        let path = folder.path("socket");
        let leave: [fn(&Path); 3] = [
            leave_stale_file,
            |path| drop(UnixListener::bind(path).unwrap()),
            |path| drop(UnixDatagram::bind(path).unwrap()),
        ];
        for leave in leave {
            leave(&path);
            wait_until_stale(&path);
            let error = connect(&path).map(drop).unwrap_err();
            let ConnectError::NoServer { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.kind(), ErrorKind::ConnectionRefused);
            let server = Server::bind(&path).unwrap();
            assert_eq!(folder.names(), ["socket"]);
            expect_reached(&server, &path);
            drop(server);
            assert!(folder.names().is_empty());
        }
    });
}

#[test]
fn a_live_server_is_not_replaced() {
    with_watchdog(|| {
        let folder = Folder::new();
        let path = folder.path("socket");
        let server = Server::bind(&path).unwrap();
        for _ in 0..3 {
            expect_in_use(&path);
        }
        assert_eq!(folder.names(), ["socket"]);
        // The server was not disturbed.
        assert!(matches!(server.try_accept(), Err(AcceptError::Empty)));
        // Also when so many wait that nobody else can.
        let mut strangers = Vec::new();
        while let Ok(stranger) = places::try_stranger(server.address()) {
            strangers.push(stranger);
        }
        expect_in_use(&path);
        for _ in strangers {
            server.accept().unwrap().refuse();
        }
        expect_reached(&server, &path);
    });
}

#[test]
fn a_server_of_another_kind_is_not_replaced() {
    let folder = Folder::new();
    let [stream, datagram, raw] = ["stream", "datagram", "raw"].map(|name| folder.path(name));
    let _stream = UnixListener::bind(&stream).unwrap();
    let _datagram = UnixDatagram::bind(&datagram).unwrap();
    let _raw = raw_server(&Address::from(&raw));
    // It will listen in a moment.
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (unix, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
    let early = rustix::net::socket_with(unix, kind, flags, None).unwrap();
    let early_path = folder.path("early");
    rustix::net::bind(&early, &rustix::net::SocketAddrUnix::new(&early_path).unwrap()).unwrap();
    expect_in_use(&early_path);
    [stream, datagram, raw].iter().for_each(|path| expect_in_use(path));
    assert_eq!(folder.names(), ["datagram", "early", "raw", "stream"]);
}

#[test]
fn what_is_no_socket_is_not_touched() {
    let folder = Folder::new();
    let names = ["dangling", "file", "folder", "link", "pipe"];
    let [dangling, file, inner, link, pipe] = names.map(|name| folder.path(name));
    std::fs::write(&file, b"precious").unwrap();
    std::fs::create_dir(&inner).unwrap();
    symlink("nowhere", &dangling).unwrap();
    leave_stale_file(&inner.join("stale"));
    symlink("folder/stale", &link).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, Mode::RUSR, 0).unwrap();
    for path in [&dangling, &file, &inner, &link, &pipe] {
        let error = bind_error(path);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let BindError::NotASocket { address } = error else { panic!("{error:?}") };
        assert_eq!(address, Address::from(path));
    }
    assert_eq!(folder.names(), names);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(link.is_symlink() && dangling.is_symlink() && inner.join("stale").exists());
}

/// Some that start at the same moment, on a path that is free, or has a stale file.
fn start_at_once(rounds: u32, servers: usize) {
    let folder = Folder::new();
    let path = folder.path("socket");
    for round in 0..rounds {
        if round % 2 == 0 {
            leave_stale_file(&path);
        }
        let start = Barrier::new(servers);
        let mut bound: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..servers)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Server::bind(&path)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        bound.sort_by_key(Result::is_err);
        let winner = bound.remove(0).unwrap();
        for other in bound {
            assert!(matches!(other, Err(BindError::InUse { .. })), "{other:?}");
        }
        assert_eq!(folder.names(), ["socket"], "in round {round}");
        expect_reached(&winner, &path);
    }
}

#[test]
fn of_two_that_start_at_once_one_wins() {
    with_watchdog(|| start_at_once(100, 2));
}

#[test]
fn of_many_that_start_at_once_one_wins() {
    with_watchdog(|| start_at_once(50, 5));
}

// The same with the other one in another process: who wins says so and answers.
conversation!(
    of_two_programs_one_wins,
    |port: MessagePort| {
        let folder = Folder::new();
        let path = folder.path("socket");
        let mut wins = 0;
        for round in 0..50 {
            if round % 2 == 0 {
                leave_stale_file(&path);
            }
            port.post_bytes(path.to_str().unwrap().as_bytes()).unwrap();
            let ours = Server::bind(&path);
            let theirs = port.recv().unwrap().bytes() == b"won";
            assert_ne!(ours.is_ok(), theirs, "in round {round}: {ours:?}");
            assert_eq!(folder.names(), ["socket"], "in round {round}");
            match ours {
                Ok(server) => {
                    expect_reached(&server, &path);
                    wins += 1;
                }
                Err(error) => {
                    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
                    let reached = connect(&path).unwrap().port;
                    assert_eq!(reached.recv().unwrap().bytes(), b"hello");
                }
            }
            port.post_bytes(b"next").unwrap();
            assert_eq!(port.recv().unwrap().bytes(), b"ready");
        }
        eprintln!("won {wins} of 50");
    },
    |port: MessagePort| {
        while let Ok(path) = port.recv().map(|path| String::from_utf8(path.bytes().into()).unwrap())
        {
            let server = Server::bind(&path);
            port.post_bytes(if server.is_ok() { b"won" } else { b"lost" }).unwrap();
            if let Ok(server) = &server {
                let admitted = server.accept().unwrap().admit().unwrap();
                admitted.post_bytes(b"hello").unwrap();
                assert_eq!(port.recv().unwrap().bytes(), b"next");
            } else {
                assert_eq!(port.recv().unwrap().bytes(), b"next");
            }
            drop(server);
            port.post_bytes(b"ready").unwrap();
        }
    },
);

// S-150: killed and started again, over and over, at the same path and at the same name.
#[test]
fn a_killed_server_starts_again_at_once() {
    const WHERE: &str = "ZEROPORT_TEST_WHERE";
    let test = test_name(concat!(module_path!(), "::a_killed_server_starts_again_at_once"));
    if is_peer_of(test) {
        be_peer(support::Setup::new(), |parent| {
            let place = std::env::var(WHERE).unwrap();
            let address = match place.strip_prefix('@') {
                Some(name) => Address::abstract_name(name),
                None => Address::from(&place),
            };
            let server = Server::bind(address).unwrap();
            parent.post_bytes(b"listening").unwrap();
            loop {
                let port = server.accept().unwrap().admit().unwrap();
                while let Ok(message) = port.recv() {
                    port.post_bytes(message.bytes()).unwrap();
                }
            }
        });
    }
    with_watchdog(move || {
        let folder = Folder::new();
        let path = folder.path("socket");
        for address in [Address::from(&path), unique_name()] {
            for _ in 0..10 {
                let mut command = this_test(test);
                command.env(WHERE, address.to_string());
                let (parent, child) = zeroport::spawn(command).unwrap();
                let mut server = Peer::new(child);
                assert_eq!(parent.recv().unwrap().bytes(), b"listening");
                let connection = connect(address.clone()).unwrap();
                assert_eq!(connection.server.pid, Some(server.child.id()));
                connection.port.post_bytes(b"question").unwrap();
                assert_eq!(connection.port.recv().unwrap().bytes(), b"question");
                server.kill();
                let end = connection.port.recv().map(drop).unwrap_err();
                assert_eq!(end, RecvError::Closed(CloseReason::PeerDied));
                server.wait();
            }
        }
        // The last one's file is there, and nothing else.
        assert_eq!(folder.names(), ["socket"]);
    });
}

// Private from the first moment: no name in the folder is ever open to others.
alone!(the_file_is_never_open_to_others, || with_watchdog(|| {
    let folder = Folder::new();
    let path = folder.path("socket");
    let mode = |path: &Path| {
        std::fs::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777)
    };
    for mask in [0, 0o777, 0o022, 0o277] {
        umask(Mode::from_raw_mode(mask));
        for stale in [false, true] {
            if stale {
                // As a server does: not so that its own user may not touch it.
                umask(Mode::RWXG | Mode::RWXO);
                leave_stale_file(&path);
                umask(Mode::from_raw_mode(mask));
            }
            let server = Server::bind(&path).unwrap();
            assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
            assert_eq!(mode(&path).unwrap(), 0o600, "with umask {mask:o}");
            drop(server);
        }
    }
    umask(Mode::empty());
    let (done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..500 {
                drop(Server::bind(&path).unwrap());
            }
            while !seen.load(Ordering::Relaxed) {
                drop(Server::bind(&path).unwrap());
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            for name in folder.names() {
                // It may be gone by now.
                if let Ok(mode) = mode(&folder.path(&name)) {
                    seen.store(true, Ordering::Relaxed);
                    assert_eq!(mode, 0o600, "{name}");
                }
            }
        }
    });
}));

// A server removes what is its own, wherever its program has gone meanwhile.
alone!(only_the_own_file_is_removed, || with_watchdog(|| {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let path = folder.path("socket");
    let first = Server::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path).unwrap();
    drop(first);
    expect_reached(&second, &path);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"precious").unwrap();
    drop(second);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    std::env::set_current_dir(&folder.0).unwrap();
    let relative = Server::bind("socket").unwrap();
    std::env::set_current_dir(&elsewhere.0).unwrap();
    std::fs::write("socket", b"precious").unwrap();
    expect_reached(&relative, &path);
    drop(relative);
    assert!(folder.names().is_empty());
    assert_eq!(elsewhere.names(), ["socket"]);
}));

#[test]
fn the_longest_path_is_107_bytes() {
    with_watchdog(|| {
        let folder = Folder::new();
        let len = folder.path("").as_os_str().len();
        assert!(len < 100, "{}", folder.0.display());
        // As one long name, and as a short name in a folder that leaves no room for another.
        let inner = folder.path(&"f".repeat(107 - len - 2));
        std::fs::create_dir(&inner).unwrap();
        for (path, tooth) in [
            (folder.path(&"n".repeat(107 - len)), folder.path(&"n".repeat(108 - len))),
            (inner.join("n"), inner.join("nn")),
        ] {
            assert_eq!(path.as_os_str().len(), 107);
            let server = Server::bind(&path).unwrap();
            expect_reached(&server, &path);
            for stale in [false, true] {
                if stale {
                    drop(Server::bind(&path));
                } else {
                    expect_in_use(&path);
                }
            }
            let error = bind_error(&tooth);
            assert!(error.to_string().contains("108 bytes"), "{error}");
            let BindError::Address { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source, AddressError::TooLong { len: 108, max: 107 });
            let error = connect(&tooth).map(drop).unwrap_err();
            let ConnectError::Address { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source, AddressError::TooLong { len: 108, max: 107 });
        }
    });
}

#[test]
fn addresses_that_no_server_can_have() {
    let long = Address::abstract_name([b'n'; 108]);
    let illegal = [
        (Address::from(""), AddressError::Empty),
        (Address::abstract_name(""), AddressError::Empty),
        (Address::from(".."), AddressError::NoFileName),
        (Address::from("/"), AddressError::NoFileName),
        (Address::from("zero\0byte"), AddressError::NoFileName),
        (long, AddressError::TooLong { len: 108, max: 107 }),
    ];
    for (address, expected) in illegal {
        let error = bind_error(address.clone());
        let BindError::Address { address: found, source } = error else { panic!("{error:?}") };
        assert_eq!((found, source), (address, expected));
    }
}

#[test]
fn folders_that_are_missing_or_closed() {
    let folder = Folder::new();
    std::fs::write(folder.path("file"), b"precious").unwrap();
    for (path, kind) in [
        (folder.path("missing/socket"), ErrorKind::NotFound),
        (folder.path("file/socket"), ErrorKind::NotADirectory),
    ] {
        let error = bind_error(&path);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let BindError::Folder { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), kind);
    }
    // Root may do anything.
    if !geteuid().is_root() {
        let closed = folder.path("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        let error = bind_error(closed.join("socket"));
        let BindError::Folder { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    }
    assert!(matches!(connect(folder.path("missing/socket")), Err(ConnectError::NoServer { .. })));
    assert!(matches!(connect(folder.path("file/socket")), Err(ConnectError::NoServer { .. })));
}

// Somebody else holds the lock of the folder: only a stale file needs it, and not for ever.
#[test]
fn a_locked_folder() {
    with_watchdog(|| {
        let folder = Folder::new();
        let path = folder.path("socket");
        let lock = std::fs::File::open(&folder.0).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        drop(Server::bind(&path).unwrap());

        leave_stale_file(&path);
        let error = bind_error(&path);
        assert!(error.to_string().contains("5 seconds"), "{error}");
        assert!(matches!(error, BindError::Locked { seconds: 5, .. }), "{error:?}");
        assert_eq!(folder.names(), ["socket"]);
        let waiting = support::asleep({
            let path = path.clone();
            move || Server::bind(&path).unwrap()
        });
        flock(&lock, FlockOperation::Unlock).unwrap();
        expect_reached(&waiting.join(), &path);
    });
}

// Alone: a process that another test starts has copies of all sockets for a moment.
alone!(a_name_is_taken_once, || {
    with_watchdog(|| {
        let address = unique_name();
        let error = connect(address.clone()).map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::NoServer { .. }), "{error:?}");
        for _ in 0..3 {
            let server = Server::bind(address.clone()).unwrap();
            let error = bind_error(address.clone());
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
            assert!(matches!(server.try_accept(), Err(AcceptError::Empty)));
            hang_up(stranger(&address));
            assert!(matches!(server.accept().unwrap().admit(), Err(AdmitError::Gone)));
            // Gone with its server, at once.
        }
        let late = ChannelOptions::new().connect_timeout(address, Duration::from_secs(30));
        assert!(matches!(late, Err(ConnectError::NoServer { .. })), "{late:?}");
    });
});

// Descriptors run out at each step of a start: a typed error, and no file.
alone!(without_descriptors_nothing_is_left, || {
    let folder = Folder::new();
    let path = folder.path("socket");
    drop(Server::bind(&path).unwrap());
    let before = count_descriptors();
    for stale in [false, true] {
        let mut refused = 0;
        loop {
            if stale {
                leave_stale_file(&path);
            }
            lower_descriptor_limit(64);
            let mut taken = Vec::new();
            while let Ok(fd) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
                taken.push(fd);
            }
            taken.truncate(taken.len() - refused);
            let bound = Server::bind(&path);
            raise_descriptor_limit();
            drop(taken);
            match bound {
                Ok(_) => break,
                Err(BindError::Os(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
                Err(error) => panic!("{error:?}"),
            }
            // A stale file may have been replaced by one as stale.
            let names = folder.names();
            assert!(names.is_empty() || stale && names == ["socket"], "{names:?}");
            assert_eq!(count_descriptors(), before);
            if stale {
                let _ = std::fs::remove_file(&path);
            }
            refused += 1;
        }
        // The socket, its folder, what polls; a lock and a probe for a stale file.
        assert_eq!(refused, if stale { 4 } else { 3 });
        assert_eq!(count_descriptors(), before);
    }
});
