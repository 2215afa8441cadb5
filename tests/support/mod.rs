//! Runs one body with the peer as a thread and as a process, and ends what is stuck.
//!
//! A peer in a process of its own is this very test binary, started again for this very test with a
//! variable that says "you are the peer"; so both roles stand side by side in one place.
//!
//! ```ignore
//! conversation!(echo, |port| assert_eq!(ask(&port), 42), |port| answer(&port));
//! conversation!(echo_small, Setup::new().capacity(4096), host, peer);
//! in_all_ways!(echo_everywhere, host, peer);
//! in_both_queues!(echo_at_length, Setup::new().capacity(4096), host, peer);
//! doomed!(killed, |port, peer| { peer.kill(); … }, post_for_ever);
//! alone!(no_descriptor_stays, || …);
//! ```
#![allow(dead_code, unused_macros, unused_imports)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use zeroport::{ChannelOptions, MessageChannel, MessagePort, TransferError, Trust, WaitStrategy};

/// Names the test whose peer this process is.
const ROLE: &str = "ZEROPORT_TEST_ROLE";
/// The exit status of a peer whose body has run to its end: no other way leads to it.
pub(crate) const DONE: i32 = 77;
/// After so long a test counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the channel of a conversation is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) capacities: [u64; 2],
    pub(crate) limits: [u64; 2],
    pub(crate) trust: Trust,
    pub(crate) strategy: WaitStrategy,
    pub(crate) stuck_after: Duration,
}

impl Setup {
    pub(crate) const fn new() -> Self {
        Self {
            capacities: [64 << 10; 2],
            limits: [256 << 20; 2],
            trust: Trust::Trusted,
            strategy: WaitStrategy::Adaptive,
            stuck_after: STUCK,
        }
    }

    pub(crate) const fn capacity(self, bytes: u64) -> Self {
        self.capacities(bytes, bytes)
    }

    /// What the host posts, and what the peer posts.
    pub(crate) const fn capacities(mut self, host: u64, peer: u64) -> Self {
        self.capacities = [host, peer];
        self
    }

    /// Bytes that may wait beyond the ring, in either direction; with 0 the queue never grows.
    pub(crate) const fn limit(self, bytes: u64) -> Self {
        self.limits(bytes, bytes)
    }

    /// For what the host posts, and for what the peer posts.
    pub(crate) const fn limits(mut self, host: u64, peer: u64) -> Self {
        self.limits = [host, peer];
        self
    }

    /// A host that does not trust its peer; as a thread, neither does the peer trust its host.
    pub(crate) const fn untrusted(mut self) -> Self {
        self.trust = Trust::Untrusted;
        self
    }

    pub(crate) const fn strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    pub(crate) const fn stuck_after(mut self, seconds: u64) -> Self {
        self.stuck_after = Duration::from_secs(seconds);
        self
    }

    pub(crate) fn options(self) -> ChannelOptions {
        let ([first, second], [first_limit, second_limit]) = (self.capacities, self.limits);
        ChannelOptions::new()
            .capacities(first, second)
            .limits(first_limit, second_limit)
            .trust(self.trust)
            .wait_strategy(self.strategy)
    }

    pub(crate) fn open(self) -> MessageChannel {
        self.options().open().expect("a channel")
    }
}

/// Makes `mod name { fn thread(); fn process(); }`, two tests of one conversation.
macro_rules! conversation {
    ($name:ident, $host:expr, $peer:expr $(,)?) => {
        $crate::support::conversation!($name, $crate::support::Setup::new(), $host, $peer);
    };
    ($name:ident, $setup:expr, $host:expr, $peer:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn thread() {
                $crate::support::with_thread($setup, $host, $peer);
            }

            #[test]
            fn process() {
                let test = $crate::support::test_name(concat!(module_path!(), "::process"));
                $crate::support::with_process(test, $setup, $host, $peer);
            }
        }
    };
}

/// A conversation with each wait strategy, and with a host that does not trust its peer.
macro_rules! in_all_ways {
    ($name:ident, $host:expr, $peer:expr $(,)?) => {
        $crate::support::in_all_ways!($name, $crate::support::Setup::new(), $host, $peer);
    };
    ($name:ident, $setup:expr, $host:expr, $peer:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use zeroport::WaitStrategy::{Sleep, Spin};

            $crate::support::conversation!(adaptive, $setup, $host, $peer);
            $crate::support::conversation!(spin, $setup.strategy(Spin), $host, $peer);
            $crate::support::conversation!(sleep, $setup.strategy(Sleep), $host, $peer);
            $crate::support::conversation!(untrusted, $setup.untrusted(), $host, $peer);
        }
    };
}

/// As [`in_all_ways!`], in one ring that gets full, and in a queue that grows.
macro_rules! in_both_queues {
    ($name:ident, $setup:expr, $host:expr, $peer:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::support::in_all_ways!(one_ring, $setup.limit(0), $host, $peer);
            $crate::support::in_all_ways!(growing, $setup, $host, $peer);
        }
    };
}

/// A test whose peer is a process that the host may kill: the host gets `(MessagePort, Peer)`.
macro_rules! doomed {
    ($name:ident, $host:expr, $peer:expr $(,)?) => {
        $crate::support::doomed!($name, $crate::support::Setup::new(), $host, $peer);
    };
    ($name:ident, $setup:expr, $host:expr, $peer:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = $crate::support::test_name(concat!(module_path!(), "::", stringify!($name)));
            $crate::support::with_doomed(test, $setup, $host, $peer);
        }
    };
}

/// A test in a process of its own: for what concerns the whole process.
macro_rules! alone {
    ($name:ident, $body:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = $crate::support::test_name(concat!(module_path!(), "::", stringify!($name)));
            $crate::support::in_own_process(test, $body);
        }
    };
}

pub(crate) use {alone, conversation, doomed, in_all_ways, in_both_queues};

/// The name that the test harness knows a test by: its path without the crate.
pub(crate) fn test_name(path: &'static str) -> &'static str {
    path.split_once("::").map_or(path, |(_, test)| test)
}

/// Whether this process was started to be the peer of `test`.
pub(crate) fn is_peer_of(test: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == test)
}

/// Runs the body of a peer with the port that came from the parent, then exits.
pub(crate) fn be_peer(setup: Setup, peer: impl FnOnce(MessagePort)) -> ! {
    let port = zeroport::parent_port().expect("the host's port");
    port.set_wait_strategy(setup.strategy);
    peer(port);
    std::process::exit(DONE);
}

/// The command that starts this test binary again, for one test and in the role of its peer.
pub(crate) fn this_test(test: &str) -> Command {
    this_test_as(test, test)
}

/// As [`this_test`], in another role.
pub(crate) fn this_test_as(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

pub(crate) fn with_thread<H, P>(setup: Setup, host: H, peer: P)
where
    H: FnOnce(MessagePort) + Send + 'static,
    P: FnOnce(MessagePort) + Send + 'static,
{
    let MessageChannel { port1, port2 } = setup.open();
    let peer = in_thread("the peer", move || peer(port2));
    let host = in_thread("the host", move || host(port1));
    // The host first: if both fail, its story is the better one.
    let deadline = Instant::now() + setup.stuck_after;
    host.join(deadline);
    peer.join(deadline);
}

pub(crate) fn with_process<H, P>(test: &'static str, setup: Setup, host: H, peer: P)
where
    H: FnOnce(MessagePort) + Send + 'static,
    P: FnOnce(MessagePort),
{
    let host = move |port: MessagePort, mut peer: Peer| {
        host(port);
        peer.expect_done();
    };
    with_doomed(test, setup, host, peer);
}

pub(crate) fn with_doomed<H, P>(test: &'static str, setup: Setup, host: H, peer: P)
where
    H: FnOnce(MessagePort, Peer) + Send + 'static,
    P: FnOnce(MessagePort),
{
    if is_peer_of(test) {
        be_peer(setup, peer);
    }
    let (port, peer) = Peer::spawn(test, setup);
    let pid = peer.pid;
    let host = in_thread("the host", move || host(port, peer));
    if let Err(stuck) = host.try_join(Instant::now() + setup.stuck_after) {
        // The host still has the peer, so its number cannot have been given to anybody else.
        let _ = kill_process(pid, Signal::KILL);
        panic!("{stuck}");
    }
}

pub(crate) fn in_own_process(test: &'static str, body: impl FnOnce()) {
    if is_peer_of(test) {
        body();
        std::process::exit(DONE);
    }
    let mut child = Peer::new(this_test(test).spawn().expect("the test binary"));
    child.expect_done();
}

/// A body with a watchdog: a test that is stuck fails instead of hanging.
pub(crate) fn with_watchdog(body: impl FnOnce() + Send + 'static) {
    in_thread("the test", body).join(Instant::now() + STUCK);
}

/// The process at the other end. Killed when dropped, if it still runs.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) child: Child,
    pid: Pid,
}

impl Peer {
    /// A process that the test has started itself.
    pub(crate) fn new(child: Child) -> Self {
        let pid = Pid::from_child(&child);
        Self { child, pid }
    }

    /// Starts the peer of a test; its body runs in [`be_peer`].
    pub(crate) fn spawn(test: &str, setup: Setup) -> (MessagePort, Self) {
        let (port, child) = setup.options().spawn(this_test(test)).expect("a peer process");
        (port, Self::new(child))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// SIGKILL, without waiting for its effect.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill the peer");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("signal the peer");
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the peer process has ended", || {
            status = self.child.try_wait().expect("the status of the peer");
            status.is_some()
        });
        status.expect("a status")
    }

    /// Waits until the process has ended, which it must have done at the end of its body.
    pub(crate) fn expect_done(&mut self) {
        let status = self.wait();
        assert_eq!(status.code(), Some(DONE), "the peer process failed ({status}); see its output");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A thread whose end can be waited for with a deadline; its panic becomes the caller's.
pub(crate) struct Running {
    name: &'static str,
    ended: Receiver<Result<(), Box<dyn Any + Send>>>,
}

pub(crate) fn in_thread(name: &'static str, body: impl FnOnce() + Send + 'static) -> Running {
    let (report, ended) = channel();
    thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // Whoever waits may have given up.
            let _ = report.send(catch_unwind(AssertUnwindSafe(body)));
        })
        .expect("a thread");
    Running { name, ended }
}

impl Running {
    pub(crate) fn join(self, deadline: Instant) {
        if let Err(stuck) = self.try_join(deadline) {
            panic!("{stuck}");
        }
    }

    /// As [`join`](Self::join), but says that it is stuck.
    pub(crate) fn try_join(&self, deadline: Instant) -> Result<(), String> {
        match self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(format!("{} is stuck", self.name))
            }
        }
    }
}

/// Waits until a condition holds, or fails after a generous time.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// A thread that has gone to sleep in the kernel inside `body`, and can be found there again.
pub(crate) struct Sleeper<T> {
    pub(crate) thread: thread::JoinHandle<T>,
    tid: Pid,
}

/// Runs a body that will wait for something, and returns when it does.
pub(crate) fn asleep<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Sleeper<T> {
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        tell.send(rustix::thread::gettid()).expect("somebody who listens");
        body()
    });
    let tid = told.recv().expect("the number of the thread");
    let sleeper = Sleeper { thread, tid };
    sleeper.wait_until_asleep();
    sleeper
}

impl<T> Sleeper<T> {
    pub(crate) fn wait_until_asleep(&self) {
        wait_until("the thread sleeps", || {
            assert!(!self.thread.is_finished(), "the thread has ended instead of sleeping");
            is_asleep(self.tid)
        });
    }

    pub(crate) fn join(self) -> T {
        wait_until("the thread has woken and ended", || self.thread.is_finished());
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Whether a thread of this process sleeps in the kernel.
pub(crate) fn is_asleep(tid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Lets this process have as many descriptors as it may ask for; says how many.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raise the soft limit to the hard one");
    limit.current.unwrap_or(u64::MAX)
}

/// Has at most so many descriptors from now on: those below that number.
pub(crate) fn lower_descriptor_limit(to: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(to);
    setrlimit(Resource::Nofile, limit).expect("lower the soft limit");
}

/// Descriptors of this process.
pub(crate) fn count_descriptors() -> usize {
    // What is kept for fresh channels is no leak.
    zeroport::trim();
    // The directory that is being read is a descriptor too.
    std::fs::read_dir("/proc/self/fd").expect("the list of descriptors").count() - 1
}

/// Mappings of segments in this process.
pub(crate) fn count_segment_mappings() -> usize {
    zeroport::trim();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the list of mappings");
    maps.lines().filter(|line| line.contains("memfd:zeroport")).count()
}

/// Threads of this process.
pub(crate) fn count_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("the list of threads").count()
}

/// Bytes that differ from message to message and from place to place.
pub(crate) fn pattern(number: u64, len: usize) -> Vec<u8> {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = number.wrapping_mul(GOLDEN).rotate_left(32);
    (0..len as u64).map(|at| (seed.wrapping_add(at).wrapping_mul(GOLDEN) >> 56) as u8).collect()
}

/// Ports that stay, and the other ends of these.
pub(crate) fn channels(count: usize) -> (Vec<MessagePort>, Vec<MessagePort>) {
    (0..count)
        .map(|_| MessageChannel::new().unwrap())
        .map(|MessageChannel { port1, port2 }| (port1, port2))
        .unzip()
}

/// Posts messages with one port each until one is refused: how many went, and the refusal.
pub(crate) fn post_ports_until_refused(port: &MessagePort) -> (usize, TransferError) {
    let mut posted = 0;
    loop {
        let MessageChannel { port1: gift, port2: _ } = MessageChannel::untrusted().unwrap();
        match port.try_post_bytes_with(b"", gift) {
            Ok(()) => posted += 1,
            Err(refused) => return (posted, refused),
        }
    }
}

/// Both talk to each other, in either direction.
pub(crate) fn expect_entangled(left: &MessagePort, right: &MessagePort) {
    left.post_bytes(b"to the right").unwrap();
    right.post_bytes(b"to the left").unwrap();
    assert_eq!(right.recv().unwrap().bytes(), b"to the right");
    assert_eq!(left.recv().unwrap().bytes(), b"to the left");
}

pub(crate) fn expect_all_entangled(left: &[MessagePort], right: &[MessagePort]) {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).for_each(|(left, right)| expect_entangled(left, right));
}
