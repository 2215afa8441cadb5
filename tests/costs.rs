//! What a message does not cost: system calls, and allocations.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code, missing_docs)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use rkyv::{Archive, Serialize};
use support::{Setup, be_peer, is_peer_of, test_name, this_test, with_thread, with_watchdog};
use zeroport::WaitStrategy::{Adaptive, Sleep, Spin};
use zeroport::{MessageChannel, MessagePort, Tagged};

const MESSAGES: u64 = 1_000_000;
/// What they may cost altogether, both sides counted.
const SYSTEM_CALLS: u64 = 1_000;
/// A stream that takes no longer was not interrupted much.
const FLOWING: Duration = Duration::from_millis(200);

// ---- system calls ----

/// A call that the kernel refuses and that nobody else makes: the tracer counts from one to the next.
const MARK: u64 = 0x7a70_0001;

fn mark() {
    // SAFETY: an option that does not exist: refused, with no effect.
    unsafe { libc::prctl(MARK as i32, 0, 0, 0, 0) };
}

fn post_a_stream(port: &MessagePort) {
    assert_eq!(port.recv().expect("a reader").bytes(), b"ready");
    mark();
    for n in 0..MESSAGES {
        port.post_pod(&[n; 8]).expect("a reader");
    }
    mark();
    assert_eq!(port.recv().expect("a reader").bytes(), b"done");
}

fn read_a_stream(port: &MessagePort) {
    mark();
    port.post_bytes(b"ready").expect("a poster");
    for n in 0..MESSAGES {
        assert_eq!(port.recv().expect("a poster").pod::<[u64; 8]>().expect("words"), &[n; 8]);
    }
    mark();
    port.post_bytes(b"done").expect("a poster");
}

/// A steady stream between two spinning processes, through one ring. Both run under a tracer that counts
/// the system calls of all of their threads.
#[test]
fn a_million_messages_take_few_system_calls() {
    let test = test_name(concat!(module_path!(), "::a_million_messages_take_few_system_calls"));
    stream_under_a_tracer(test, Setup::new().limit(0), |call, _, millis| match call {
        "poll" => Some(2 * millis + 8),
        "membarrier" => Some(20 * millis + 8),
        _ => None,
    });
}

/// As above, where a poster that the reader leaves alone goes on in a larger ring: what that takes is known
/// too.
#[test]
fn a_million_messages_take_few_system_calls_where_the_queue_grows() {
    /// Bytes of a record, and those for which a grown ring asks the kernel at once.
    const RECORD: u64 = 16 + 64;
    const CHUNK: u64 = 128 << 10;
    let test = test_name(concat!(
        module_path!(),
        "::a_million_messages_take_few_system_calls_where_the_queue_grows"
    ));
    stream_under_a_tracer(test, Setup::new(), |call, rings, millis| match call {
        "poll" => Some(2 * millis + 8),
        "membarrier" => Some(20 * millis + 8),
        // Before it makes a ring, a poster leaves its processor to the reader for a while.
        "sched_yield" => Some(1_000 * millis + 8),
        "memfd_create" => Some(rings),
        "fallocate" => Some(2 * rings + MESSAGES * RECORD / CHUNK),
        "making or finding a ring" => Some(24 * rings + 8),
        _ => None,
    });
}

/// `most` says how many calls of a kind there may be, of the number of rings that were made and of the
/// milliseconds that it took.
fn stream_under_a_tracer(
    test: &'static str,
    setup: Setup,
    most: fn(&str, u64, u64) -> Option<u64>,
) {
    let setup = setup.strategy(Spin);
    if is_peer_of(test) {
        if std::env::var_os("ZEROPORT_PARENT").is_some() {
            be_peer(setup, |port| read_a_stream(&port));
        }
        let (port, mut child) = setup.options().spawn(this_test(test)).expect("a peer process");
        post_a_stream(&port);
        let status = child.wait().expect("the peer's status");
        std::process::exit(if status.code() == Some(support::DONE) { FOUND } else { 1 });
    }
    with_watchdog(move || {
        // Most kinds of call grow with the time that is spent waiting: a spinning side asks once a
        // millisecond whether the other lives, a poster that has waited 50 microseconds for room leaves
        // `Streaming`, and a queue grows where its reader is not at work. A stream that flows takes a
        // tenth of a second; a busy machine interrupts it. So the first of a few runs that flows counts.
        for _ in 0..5 {
            let Stream { calls, took } = traced(test);
            let total: u64 = calls.values().sum();
            println!("{total} system calls for {MESSAGES} messages in {took:?}: {calls:?}");
            let rings = calls.get("memfd_create").copied().unwrap_or(0);
            for (call, count) in &calls {
                let most = most(call, rings, took.as_millis() as u64);
                let most = most.unwrap_or_else(|| panic!("{count} calls: {call}"));
                assert!(*count <= most, "{count} calls in {took:?} with {rings} rings: {call}");
            }
            if total < SYSTEM_CALLS {
                return;
            }
            assert!(took > FLOWING, "{total} calls in {took:?}");
        }
        println!("the machine was too busy for a steady stream");
    });
}

/// The status of a process that has run to its end.
const FOUND: i32 = 70;

/// Which calls a stream makes for what: asking whether the other side lives; registering for barriers,
/// once in a process, and demanding them; and whatever a further ring takes.
fn name_of(call: u64) -> String {
    match call as i64 {
        libc::SYS_poll | libc::SYS_ppoll => "poll".into(),
        libc::SYS_membarrier => "membarrier".into(),
        libc::SYS_sched_yield => "sched_yield".into(),
        libc::SYS_memfd_create => "memfd_create".into(),
        libc::SYS_fallocate => "fallocate".into(),
        libc::SYS_ftruncate
        | libc::SYS_fcntl
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_pread64
        | libc::SYS_mmap
        | libc::SYS_munmap
        | libc::SYS_brk
        | libc::SYS_dup3
        | libc::SYS_close
        | libc::SYS_socketpair
        | libc::SYS_getsockopt
        | libc::SYS_sendmsg
        | libc::SYS_recvmsg
        | libc::SYS_ioctl
        | libc::SYS_recvfrom => "making or finding a ring".into(),
        other => format!("number {other}"),
    }
}

/// What `PTRACE_GET_SYSCALL_INFO` tells (Linux 5.3).
#[repr(C)]
#[derive(Default)]
struct CallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction: u64,
    stack: u64,
    call: u64,
    args: [u64; 6],
}

const OP_ENTRY: u8 = 1;
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;

/// What one stream took.
struct Stream {
    calls: BTreeMap<String, u64>,
    took: Duration,
}

/// Runs the two processes of the stream under this thread's eyes; counts what they call between marks.
fn traced(test: &str) -> Stream {
    let mut command = this_test(test);
    let trace_me = || {
        // SAFETY: asks to be traced by the thread that forked us; touches no memory.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, which neither allocates nor locks.
    unsafe { command.pre_exec(trace_me) };
    #[allow(clippy::zombie_processes)] // waited for below, by hand
    let host = command.spawn().expect("a process that may be traced").id() as i32;
    let mut tracer = Tracer::default();
    while let Some((thread, status)) = wait_for_any() {
        if thread == host && libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), FOUND, "see its output");
        }
        if libc::WIFSTOPPED(status) {
            tracer.stopped(thread, status);
        }
    }
    assert_eq!(tracer.counting.values().filter(|counting| !**counting).count(), 2, "two streams");
    let took = tracer.first_mark.zip(tracer.last_mark).map(|(first, last)| last - first);
    Stream { calls: tracer.calls, took: took.expect("four marks") }
}

/// The next change of any process or thread that this thread has started or traces.
fn wait_for_any() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: writes the status only.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    (thread > 0).then_some((thread, status))
}

#[derive(Default)]
struct Tracer {
    seen: BTreeSet<i32>,
    /// Threads that have come to their first mark: whether the second is still to come. (The others of a process are
    /// the test harness's, which come to their rest when they may.)
    counting: BTreeMap<i32, bool>,
    calls: BTreeMap<String, u64>,
    first_mark: Option<Instant>,
    last_mark: Option<Instant>,
}

impl Tracer {
    fn stopped(&mut self, thread: i32, status: i32) {
        let signal = libc::WSTOPSIG(status);
        let fresh = self.seen.insert(thread);
        if fresh {
            let options = libc::PTRACE_O_TRACESYSGOOD
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            // SAFETY: the thread is stopped, and ours.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0, options) };
        }
        let mut pass_on = 0;
        if signal == libc::SIGTRAP | 0x80 {
            self.called(thread);
        } else if signal != libc::SIGTRAP && !(fresh && signal == libc::SIGSTOP) {
            pass_on = signal;
        }
        // SAFETY: the thread is stopped, and ours.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, pass_on) };
    }

    fn called(&mut self, thread: i32) {
        let mut info = CallInfo::default();
        let len = size_of::<CallInfo>();
        // SAFETY: the kernel writes at most `len` bytes, and all of them are plain numbers.
        unsafe { libc::ptrace(GET_SYSCALL_INFO, thread, len, &raw mut info) };
        if info.op != OP_ENTRY {
        } else if info.call as i64 == libc::SYS_prctl && info.args[0] as u32 == MARK as u32 {
            let more = self.counting.entry(thread).or_insert(false);
            *more = !*more;
            self.last_mark = Some(Instant::now());
            self.first_mark = self.first_mark.or(self.last_mark);
        } else if self.counting.get(&thread) == Some(&true) {
            *self.calls.entry(name_of(info.call)).or_default() += 1;
        }
    }
}

// ---- allocations ----

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all that it promises the system's allocator keeps; counting touches a plain cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises us.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises us.
        unsafe { System.realloc(place, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a body some times to warm up, then many times without any allocation on this thread.
fn expect_no_allocation(what: &str, mut body: impl FnMut()) {
    for _ in 0..200 {
        body();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..5_000 {
        body();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "{what}");
}

#[derive(Archive, Serialize)]
struct Reading {
    sensor: u32,
    values: [f64; 6],
}

impl Tagged for Reading {
    const NAME: &'static str = "test.Reading";
}

#[derive(Archive, Serialize)]
struct Report {
    title: String,
    readings: Vec<u64>,
    note: Option<Box<u16>>,
}

impl Tagged for Report {
    const NAME: &'static str = "test.Report";
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn no_message_allocates() {
    for setup in [Setup::new(), Setup::new().untrusted(), Setup::new().capacity(4096)] {
        let MessageChannel { port1, port2 } = setup.open();
        let bytes = [7; 300];
        expect_no_allocation("bytes", || {
            port1.post_bytes(&bytes).unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), bytes);
        });
        expect_no_allocation("plain data", || {
            port1.post_pod(&[1u64; 8]).unwrap();
            assert_eq!(port2.recv().unwrap().pod::<[u64; 8]>().unwrap(), &[1; 8]);
            port1.try_post_pod(&2u32).unwrap();
            assert_eq!(port2.try_recv().unwrap().pod::<u32>().unwrap(), &2);
            port1.post_pod_slice(&[3u16; 20]).unwrap();
            assert_eq!(port2.recv().unwrap().pod_slice::<u16>().unwrap(), [3; 20]);
        });
        let reading = Reading { sensor: 5, values: [0.5; 6] };
        expect_no_allocation("a value of fixed size", || {
            port1.post(&reading).unwrap();
            let message = port2.recv().unwrap();
            let received = message.get::<Reading>().unwrap();
            assert_eq!((received.sensor, received.values[5]), (5.into(), 0.5.into()));
        });
        let report = Report {
            title: "a title that is too long to stand inside the string itself".into(),
            readings: (0..30).collect(),
            note: Some(Box::new(9)),
        };
        expect_no_allocation("a value with strings and lists", || {
            port1.post(&report).unwrap();
            let message = port2.recv().unwrap();
            let received = message.get::<Report>().unwrap();
            assert_eq!(received.title, report.title);
            assert_eq!(received.readings.len(), 30);
            assert!(received.note.is_some());
        });
        expect_no_allocation("batches", || {
            port1.post_all_bytes([b"one", b"two"]).unwrap();
            assert_eq!(port2.drain().count(), 2);
            port1.post_all(&[1u32, 2, 3]).unwrap();
            assert_eq!(port2.drain().count(), 3);
        });
    }
}

#[test]
fn no_loan_and_no_order_of_letting_go_allocates() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    expect_no_allocation("loans", || {
        let mut loan = port1.reserve(100).unwrap();
        loan.fill(1);
        loan.publish(50).unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), [1; 50]);
    });
    expect_no_allocation("held messages", || {
        port1.post_all_bytes([b"one", b"two", b"six"]).unwrap();
        let (one, two, six) = (port2.recv().unwrap(), port2.recv().unwrap(), port2.recv().unwrap());
        drop(six);
        drop(one);
        drop(two);
    });
}

/// Waiting and waking, for messages and for room, allocate nothing either.
#[test]
fn no_wait_allocates() {
    for strategy in [Sleep, Adaptive] {
        let setup = Setup::new().capacity(4096).limit(0).strategy(strategy);
        with_thread(
            setup,
            |port| {
                expect_no_allocation("asking and waiting", || {
                    for _ in 0..4 {
                        port.post_bytes(&[1; 2_000]).unwrap();
                    }
                    assert_eq!(port.recv().unwrap().bytes(), b"answer");
                });
            },
            |port| {
                expect_no_allocation("waiting and answering", || {
                    for _ in 0..4 {
                        assert_eq!(port.recv().unwrap().bytes(), [1; 2_000]);
                    }
                    port.post_bytes(b"answer").unwrap();
                });
            },
        );
    }
}

/// A burst that nobody reads has a queue grow: that allocates for each ring, not for each message, and not
/// at all once the queue is what it was.
#[test]
fn a_queue_that_grows_allocates_for_its_rings_only() {
    const BURST: u64 = 100_000;
    // Of 80 bytes each: 128 KiB, 256 KiB, ... to 8 MiB take up all of them.
    const RINGS: u64 = 7;
    for setup in [Setup::new(), Setup::new().untrusted()] {
        let MessageChannel { port1, port2 } = setup.open();
        for round in 0..3 {
            let before = ALLOCATIONS.get();
            (0..BURST).for_each(|n| port1.post_pod(&[n; 8]).unwrap());
            let posting = ALLOCATIONS.get() - before;
            for n in 0..BURST {
                assert_eq!(port2.recv().unwrap().pod::<[u64; 8]>().unwrap(), &[n; 8]);
            }
            let all = ALLOCATIONS.get() - before;
            // Later bursts find room in the last ring.
            let least = if round == 0 { RINGS } else { 0 };
            assert!((least..=64 * RINGS).contains(&all), "{posting} of {all} by the poster");
        }
        expect_no_allocation("after the bursts", || {
            port1.post_pod(&[7u64; 8]).unwrap();
            assert_eq!(port2.recv().unwrap().pod::<[u64; 8]>().unwrap(), &[7; 8]);
        });
    }
}

/// The steady stream itself, at both ends: a million messages, raw and typed by turns.
#[test]
fn a_million_messages_allocate_nothing() {
    const WARM_UP: u64 = 1_000;
    const MESSAGES: u64 = 1_000_000;
    /// What this thread allocates from the end of the warm-up to the last message.
    fn count(mut step: impl FnMut(u64)) -> u64 {
        (0..WARM_UP).for_each(&mut step);
        let before = ALLOCATIONS.get();
        (WARM_UP..MESSAGES).for_each(step);
        ALLOCATIONS.get() - before
    }
    let reading = |step| Reading { sensor: step as u32, values: [step as f64; 6] };
    with_thread(
        // A queue that grows allocates for each ring: that is counted above.
        Setup::new().strategy(Spin).limit(0),
        move |port| {
            let posted = count(|step| match step % 2 {
                0 => port.post_pod(&[step; 8]).unwrap(),
                _ => port.post(&reading(step)).unwrap(),
            });
            assert_eq!(posted, 0, "the poster allocates");
            drop(port.recv());
        },
        |port| {
            let received = count(|step| {
                let message = port.recv().unwrap();
                match step % 2 {
                    0 => assert_eq!(message.pod::<[u64; 8]>().unwrap(), &[step; 8]),
                    _ => assert_eq!(message.get::<Reading>().unwrap().sensor, step as u32),
                }
            });
            assert_eq!(received, 0, "the reader allocates");
        },
    );
}
