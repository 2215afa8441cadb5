//! First contact: strangers meet, know each other, and cannot harm who listens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Forks, and the signal handler of the interrupted waits.
#![allow(unsafe_code)]

mod ends;
mod places;
mod support;

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ends::{expect_end, expect_report};
use places::{
    ADDRESS, FOR_EVER, SHORT, address_from_environment, be_client_of, expect_answer, is_readable,
    serve, somewhere, start_client, stranger, try_stranger, unique_name,
};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getegid, geteuid, waitpid};
use support::{
    DONE, Peer, Sleeper, alone, asleep, test_name, this_test, wait_until, with_watchdog,
};
use zeroport::{
    AcceptError, Address, AdmitError, Caller, ChannelOptions, CloseReason, ConnectError,
    Credentials, MessagePort, PeerState, Server, Trust, connect,
};

/// Makes `mod name { fn thread(); fn process(); }`: a server that gets the number of its client's
/// process, and the client.
macro_rules! meeting {
    ($name:ident, $server:expr, $client:expr $(,)?) => {
        mod $name {
            use super::*;

            #[test]
            fn thread() {
                with_watchdog(|| {
                    let (_folder, server) = somewhere();
                    let address = server.address().clone();
                    let client = thread::spawn(move || $client(address));
                    $server(&server, std::process::id());
                    client.join().unwrap();
                });
            }

            #[test]
            fn process() {
                let test = test_name(concat!(module_path!(), "::process"));
                be_client_of(test, $client);
                with_watchdog(move || {
                    let (_folder, server) = somewhere();
                    let mut peer = start_client(test, server.address());
                    $server(&server, peer.child.id());
                    peer.expect_done();
                });
            }
        }
    };
}

fn expect_our_user(credentials: &Credentials) {
    assert_eq!(credentials.uid, geteuid().as_raw());
    assert_eq!(credentials.gid, getegid().as_raw());
}

// S-136: each side knows the other, then they talk.
meeting!(
    strangers_meet,
    |server: &Server, client: u32| {
        let caller = server.accept().unwrap();
        expect_our_user(caller.credentials());
        assert_eq!(caller.credentials().pid, Some(client));
        let port = caller.admit().unwrap();
        assert_eq!(port.trust(), Trust::Untrusted);
        serve(&port);
        expect_end(&port, CloseReason::Closed);
    },
    |address| {
        let connection = connect(address).unwrap();
        expect_our_user(&connection.server);
        assert!(connection.server.pid.is_some());
        assert_eq!(connection.port.trust(), Trust::Untrusted);
        expect_answer(&connection.port);
    },
);

// What is posted before the other side has its port waits for it, in both directions.
meeting!(
    the_server_speaks_first,
    |server: &Server, _| {
        let port = server.accept().unwrap().admit().unwrap();
        for n in 0..100u64 {
            port.post_pod(&n).unwrap();
        }
        port.close();
    },
    |address| {
        let port = connect(address).unwrap().port;
        for n in 0..100u64 {
            assert_eq!(port.recv().unwrap().pod::<u64>().unwrap(), &n);
        }
        expect_end(&port, CloseReason::Closed);
    },
);

meeting!(
    a_refused_caller_is_told,
    |server: &Server, _| {
        server.accept().unwrap().refuse();
        drop(server.accept().unwrap());
        server.accept().unwrap().admit().unwrap();
    },
    |address: Address| {
        for _ in 0..2 {
            let error = connect(address.clone()).map(drop).unwrap_err();
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            let ConnectError::Refused { address: found } = error else { panic!("{error:?}") };
            assert_eq!(found, address);
        }
        // A refusal is no ban.
        expect_report(&connect(address).unwrap().port, CloseReason::Closed);
    },
);

// Trust is each side's own choice, and neither's by accident.
meeting!(
    trust_must_be_asked_for,
    |server: &Server, _| {
        let admit = |options| server.accept().unwrap().admit_with(options).unwrap();
        let untrusted = ChannelOptions::new().capacity(4096);
        let [first, second] = [untrusted, untrusted.trust(Trust::Trusted)].map(admit);
        assert_eq!([first.trust(), second.trust()], [Trust::Untrusted, Trust::Trusted]);
        [first, second].iter().for_each(serve);
    },
    |address: Address| {
        let first = ChannelOptions::new().trust(Trust::Trusted).connect(address.clone()).unwrap();
        let second = ChannelOptions::new().connect_timeout(address, FOR_EVER).unwrap();
        let ports = [first.port, second.port];
        assert_eq!(ports.each_ref().map(MessagePort::trust), [Trust::Trusted, Trust::Untrusted]);
        for port in ports {
            assert_eq!(port.max_in_ring(), 4096 / 2 - 32, "the server's choice");
            expect_answer(&port);
        }
    },
);

#[test]
fn strangers_meet_at_a_name() {
    let test = test_name(concat!(module_path!(), "::strangers_meet_at_a_name"));
    be_client_of(test, |address| {
        let connection = connect(address).unwrap();
        expect_our_user(&connection.server);
        assert!(connection.server.pid.is_some());
        expect_answer(&connection.port);
    });
    with_watchdog(move || {
        let server = Server::bind(unique_name()).unwrap();
        let mut peer = start_client(test, server.address());
        let caller = server.accept().unwrap();
        assert_eq!(caller.credentials().pid, Some(peer.child.id()));
        serve(&caller.admit().unwrap());
        peer.expect_done();
    });
}

// S-136: the process itself, also when its number has gone to somebody else.
#[test]
fn a_pidfd_stands_for_its_process() {
    let test = test_name(concat!(module_path!(), "::a_pidfd_stands_for_its_process"));
    be_client_of(test, |address| {
        // Refused when the test is over, if it is not the one that is killed.
        let _ = connect(address);
    });
    with_watchdog(move || {
        let (_folder, server) = somewhere();
        let mut peers = [(); 2].map(|()| start_client(test, server.address()));
        let callers = [(); 2].map(|()| server.accept().unwrap());
        let Some(first) = callers.iter().find(|caller| is_from(caller, &peers[0])) else {
            panic!("{callers:?}");
        };
        let second = callers.iter().find(|caller| is_from(caller, &peers[1])).unwrap();
        let pidfd = |caller: &Caller| caller.credentials().pidfd.as_ref().map(is_readable);
        if pidfd(first).is_none() {
            eprintln!("this kernel has no SO_PEERPIDFD");
            return;
        }
        assert_eq!((pidfd(first), pidfd(second)), (Some(false), Some(false)));
        peers[0].kill();
        wait_until("the end of the first is seen", || pidfd(first) == Some(true));
        assert_eq!(pidfd(second), Some(false));
        peers[0].wait();
        assert_eq!(pidfd(first), Some(true));
    });
}

fn is_from(caller: &Caller, peer: &Peer) -> bool {
    caller.credentials().pid == Some(peer.child.id())
}

// S-136: other users are told apart, and kept out by the mode of the socket file.
#[test]
fn another_user_is_known() {
    const OTHER: u32 = 12_345;
    let test = test_name(concat!(module_path!(), "::another_user_is_known"));
    be_client_of(test, |address| {
        let port = connect(address).unwrap().port;
        expect_answer(&port);
        let path = std::env::var("CLOSED_PATH").unwrap();
        let error = connect(&path).map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::NotAllowed { .. }), "{error:?}");
        assert!(error.to_string().contains(&path), "{error}");
    });
    if !geteuid().is_root() {
        eprintln!("only root can be somebody else");
        return;
    }
    with_watchdog(move || {
        let (folder, closed) = somewhere();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&folder.0, mode).unwrap();
        let server = Server::bind(unique_name()).unwrap();
        // Its own copy of the program: that of the build may lie where others may not look.
        let program = folder.path("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut command = Command::new(program);
        let like = this_test(test);
        command.args(like.get_args()).envs(like.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        command.env(ADDRESS, server.address().to_string());
        command.env("CLOSED_PATH", closed.address().to_string());
        command.uid(OTHER).gid(OTHER + 1);
        let mut started = None;
        wait_until("no process that was just forked has the copy open", || {
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                child => started = Some(Peer::new(child.unwrap())),
            }
            started.is_some()
        });
        let mut peer = started.unwrap();
        let caller = server.accept().unwrap();
        let Credentials { uid, gid, pid, .. } = caller.credentials();
        assert_eq!((*uid, *gid, *pid), (OTHER, OTHER + 1, Some(peer.child.id())));
        serve(&caller.admit().unwrap());
        peer.expect_done();
        assert!(matches!(closed.try_accept(), Err(AcceptError::Empty)));
    });
}

// S-136: a process that has no number here is known by its pidfd.
#[test]
fn a_process_of_another_namespace_is_known() {
    let test = test_name(concat!(module_path!(), "::a_process_of_another_namespace_is_known"));
    be_client_of(test, |address: Address| {
        if std::env::var_os("INNER").is_some() {
            assert_eq!(std::process::id(), 1, "a namespace of its own");
            let server = Server::bind(address_from_environment()).unwrap();
            let caller = server.accept().unwrap();
            // Who calls from outside has no number in here.
            assert_eq!(caller.credentials().pid, None);
            serve(&caller.admit().unwrap());
        } else {
            let connection = connect(address).unwrap();
            expect_answer(&connection.port);
        }
    });
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        command
    };
    if !unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("no namespaces may be made here");
        return;
    }
    let inside = move |address: &Address, inner: bool| {
        let (like, mut command) = (this_test(test), unshare());
        command.arg(like.get_program()).args(like.get_args());
        command.envs(like.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env(ADDRESS, address.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        if inner {
            command.env("INNER", "1");
        }
        Peer::new(command.spawn().unwrap())
    };
    with_watchdog(move || {
        let (folder, server) = somewhere();
        // From in there to out here: the outer namespace knows everybody in the inner one.
        let mut peer = inside(server.address(), false);
        let caller = server.accept().unwrap();
        assert!(caller.credentials().pid.is_some());
        serve(&caller.admit().unwrap());
        peer.expect_done();

        // From out here to in there.
        let address = Address::from(&folder.path("inner"));
        let mut peer = inside(&address, true);
        wait_until("the inner server listens", || folder.path("inner").exists());
        let connection = connect(address).unwrap();
        if let Some(pidfd) = &connection.server.pidfd {
            assert!(!is_readable(pidfd), "it lives");
        }
        expect_answer(&connection.port);
        drop(connection);
        peer.expect_done();
    });
}

#[test]
fn ports_outlive_their_server() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let address = server.address().clone();
        let client = thread::spawn(move || connect(address).unwrap().port);
        let port = server.accept().unwrap().admit().unwrap();
        drop(server);
        let serving = thread::spawn(move || serve(&port));
        let port = client.join().unwrap();
        expect_answer(&port);
        drop(port);
        serving.join().unwrap();
    });
}

// A full backlog makes callers wait, and nobody fail.
#[test]
fn a_full_backlog_is_waited_for() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let address = server.address().clone();
        let mut strangers = Vec::new();
        let full = loop {
            match try_stranger(&address) {
                Ok(stranger) => strangers.push(stranger),
                Err(error) => break error,
            }
            assert!(strangers.len() < 10_000);
        };
        assert_eq!(full, Errno::AGAIN);
        assert!(strangers.len() >= 128, "only {} may wait", strangers.len());

        let start = Instant::now();
        let late = ChannelOptions::new().connect_timeout(address.clone(), SHORT);
        assert!(matches!(late, Err(ConnectError::TimedOut { .. })), "{late:?}");
        assert!(start.elapsed() >= SHORT);

        let calls = [None, Some(FOR_EVER)].map(|timeout| {
            let (address, options) = (address.clone(), ChannelOptions::new());
            asleep(move || match timeout {
                None => options.connect(address).unwrap(),
                Some(timeout) => options.connect_timeout(address, timeout).unwrap(),
            })
        });
        for _ in &strangers {
            server.accept().unwrap().refuse();
        }
        let ports = [(); 2].map(|()| server.accept().unwrap().admit().unwrap());
        let _connections = calls.map(Sleeper::join);
        ports.iter().for_each(|port| assert_eq!(port.peer_state(), PeerState::Open));
    });
}

#[test]
fn timed_waits_end_not_before_their_time() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        assert!(matches!(server.try_accept(), Err(AcceptError::Empty)));
        let start = Instant::now();
        assert!(matches!(server.accept_timeout(SHORT), Err(AcceptError::Empty)));
        assert!(start.elapsed() >= SHORT);
        let start = Instant::now();
        let late = ChannelOptions::new().connect_timeout(server.address().clone(), SHORT);
        assert!(matches!(late, Err(ConnectError::TimedOut { .. })), "{late:?}");
        assert!(start.elapsed() >= SHORT);
        // The one that gave up is still in the queue.
        assert!(matches!(server.try_accept().unwrap().admit(), Err(AdmitError::Gone)));
    });
}

#[test]
fn a_server_polls_as_readable_while_somebody_waits() {
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        assert!(!is_readable(&server));
        let strangers = [(); 2].map(|()| stranger(server.address()));
        for _ in strangers {
            assert!(is_readable(&server));
            server.try_accept().unwrap().refuse();
        }
        assert!(!is_readable(&server));
        assert!(matches!(server.try_accept(), Err(AcceptError::Empty)));
    });
}

// Each caller is somebody's.
#[test]
fn several_threads_accept() {
    const CALLERS: usize = 200;
    with_watchdog(|| {
        let (_folder, server) = somewhere();
        let (server, served) = (Arc::new(server), Arc::new(AtomicU64::new(0)));
        let threads = [(); 4].map(|()| {
            let (server, served) = (Arc::clone(&server), Arc::clone(&served));
            thread::spawn(move || {
                // Relaxed: a mere count; joining the threads orders it.
                while served.load(Ordering::Relaxed) < CALLERS as u64 {
                    match server.accept_timeout(Duration::from_millis(10)) {
                        Ok(caller) => {
                            serve(&caller.admit().unwrap());
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(AcceptError::Empty) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        });
        for _ in 0..CALLERS {
            expect_answer(&connect(server.address().clone()).unwrap().port);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(served.load(Ordering::Relaxed), CALLERS as u64);
    });
}

// Nothing of a server is left to a forked child: it cannot serve, and it keeps nobody waiting.
alone!(a_fork_does_not_inherit_a_server, || with_watchdog(|| {
    let (folder, server) = somewhere();
    let address = server.address().clone();
    let _stranger = stranger(&address);
    let caller = server.accept().unwrap();
    let (mut end, input) = std::io::pipe().unwrap();
    let mut parts = Some((server, caller));
    // SAFETY: the child uses its copies on its only thread and then ends without any clean-up.
    let child = match unsafe { libc::fork() } {
        0 => {
            drop(input);
            let (server, caller) = parts.take().unwrap();
            let detached = matches!(server.accept(), Err(AcceptError::Detached))
                && matches!(server.try_accept(), Err(AcceptError::Detached))
                && matches!(caller.admit(), Err(AdmitError::Detached));
            drop(server);
            // Until the parent lets us end.
            let _ = end.read(&mut [0; 1]);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if detached { DONE } else { 1 }) }
        }
        child => rustix::process::Pid::from_raw(child).unwrap(),
    };
    drop(end);
    let (server, caller) = parts.unwrap();
    // The child's drop has removed nothing, and has hung up on nobody.
    assert_eq!(folder.names(), ["socket"]);
    assert_eq!(caller.admit().unwrap().peer_state(), PeerState::Open);
    let client = thread::spawn(|| expect_answer(&connect(address).unwrap().port));
    serve(&server.accept().unwrap().admit().unwrap());
    client.join().unwrap();
    // Without the parent nobody listens, although the child lives.
    let address = server.address().clone();
    let waiting = asleep({
        let address = address.clone();
        move || connect(address).map(drop).unwrap_err()
    });
    wait_until("somebody has called", || is_readable(&server));
    drop(server);
    assert!(matches!(waiting.join(), ConnectError::Refused { .. }));
    assert!(matches!(connect(address), Err(ConnectError::NoServer { .. })));
    drop(input);
    let mut status = None;
    wait_until("the forked child has ended", || {
        status = waitpid(Some(child), WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().1.exit_status(), Some(DONE));
}));

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Has `SIGUSR1` interrupt system calls instead of restarting them.
fn let_signals_interrupt() {
    // SAFETY: all zero is a valid `sigaction`: no flags (so no SA_RESTART), nothing masked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler uses an atomic only, which a signal handler may.
    let status = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(status, 0);
}

/// Interrupts a sleeping thread some times, each time once it sleeps again.
fn interrupt_sleep<T>(sleeper: &Sleeper<T>) {
    for _ in 0..20 {
        sleeper.wait_until_asleep();
        let before = INTERRUPTIONS.load(Ordering::Relaxed);
        // SAFETY: the thread was not joined yet, so its handle is valid.
        let status = unsafe { libc::pthread_kill(sleeper.thread.as_pthread_t(), libc::SIGUSR1) };
        assert_eq!(status, 0);
        wait_until("the signal was handled", || INTERRUPTIONS.load(Ordering::Relaxed) > before);
    }
    sleeper.wait_until_asleep();
}

alone!(signals_end_neither_accept_nor_connect, || with_watchdog(|| {
    let_signals_interrupt();
    let (_folder, server) = somewhere();
    let server = Arc::new(server);
    let address = server.address().clone();
    for timed in [false, true] {
        let accepting = asleep({
            let server = Arc::clone(&server);
            move || if timed { server.accept_timeout(FOR_EVER) } else { server.accept() }.unwrap()
        });
        interrupt_sleep(&accepting);
        let connecting = |address: Address| {
            asleep(move || match timed {
                true => ChannelOptions::new().connect_timeout(address, FOR_EVER).unwrap(),
                false => connect(address).unwrap(),
            })
        };
        // In the wait for the server's answer.
        let waiting = connecting(address.clone());
        let caller = accepting.join();
        interrupt_sleep(&waiting);
        let port = caller.admit().unwrap();
        let connection = waiting.join();
        assert_eq!(port.peer_state(), PeerState::Open);
        drop(connection);
        // In the wait for room in the backlog.
        let mut strangers = Vec::new();
        while let Ok(stranger) = try_stranger(&address) {
            strangers.push(stranger);
        }
        let waiting = connecting(address.clone());
        interrupt_sleep(&waiting);
        for _ in &strangers {
            server.accept().unwrap().refuse();
        }
        let _port = server.accept().unwrap().admit().unwrap();
        drop(waiting.join());
    }
}));
