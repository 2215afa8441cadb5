//! What the machine can do at best, and the fastest queue between threads.

use std::hint::spin_loop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::{Case, FAR, NEAR, Payload, check, payload, pin};

/// A thread at the far end. It sleeps until it is told to do so many steps, so that it disturbs
/// nobody else's measurement.
struct FarThread {
    steps: Option<Sender<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl FarThread {
    fn new(mut work: impl FnMut(u64) + Send + 'static) -> Self {
        let (steps, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            pin(FAR);
            told.iter().for_each(&mut work);
        });
        pin(NEAR);
        Self { steps: Some(steps), thread: Some(thread) }
    }

    /// Tells it to do so many steps.
    fn start(&self, steps: u64) -> Instant {
        let start = Instant::now();
        self.steps.as_ref().expect("open until dropped").send(steps).expect("a far end");
        start
    }
}

impl Drop for FarThread {
    fn drop(&mut self) {
        drop(self.steps.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    fn wait_for(&self, step: u64) {
        while self.0.load(Ordering::Acquire) != step {
            spin_loop();
        }
    }
}

/// One cache line there, another back: the floor of every round trip.
///
/// How long that takes depends on where in memory the lines are (here between 60 and 120 ns), so each
/// run takes the next of many pairs.
pub struct CacheLine {
    pairs: Arc<Vec<[Line; 2]>>,
    runs: usize,
    far: FarThread,
}

/// Pairs of lines, a page of them apart from each other.
const PAIRS: usize = 64;
const PAIR_STRIDE: usize = 17;

impl CacheLine {
    pub fn new() -> Self {
        let pairs: Arc<Vec<[Line; 2]>> =
            Arc::new(std::iter::repeat_with(Default::default).take(PAIRS * PAIR_STRIDE).collect());
        let shared = Arc::clone(&pairs);
        let mut runs = 0;
        let far = FarThread::new(move |steps| {
            let [there, back] = Self::next_pair(&shared, &mut runs);
            for step in 1..=steps {
                there.wait_for(step);
                back.0.store(step, Ordering::Release);
            }
            there.0.store(0, Ordering::Relaxed);
        });
        Self { pairs, runs: 0, far }
    }

    fn next_pair<'l>(pairs: &'l [[Line; 2]], runs: &mut usize) -> &'l [Line; 2] {
        *runs += 1;
        &pairs[*runs % PAIRS * PAIR_STRIDE]
    }
}

impl Case for CacheLine {
    fn run(&mut self, steps: u64) -> Duration {
        let [there, back] = Self::next_pair(&self.pairs, &mut self.runs);
        back.0.store(0, Ordering::Relaxed);
        let start = self.far.start(steps);
        for step in 1..=steps {
            there.0.store(step, Ordering::Release);
            back.wait_for(step);
        }
        start.elapsed()
    }
}

/// Copying a payload in private memory and checking the copy: the floor of every stream.
pub struct Memcpy {
    from: Vec<Payload>,
    to: Vec<Payload>,
}

impl Memcpy {
    pub fn new() -> Self {
        pin(NEAR);
        Self { from: vec![payload(0); 1024], to: vec![payload(0); 1024] }
    }
}

impl Case for Memcpy {
    fn run(&mut self, steps: u64) -> Duration {
        let start = Instant::now();
        for step in 0..steps {
            let place = step as usize % self.from.len();
            self.from[place] = payload(step);
            self.to[place].copy_from_slice(std::hint::black_box(&self.from[place]));
            check(std::hint::black_box(&self.to[place]), step);
        }
        start.elapsed()
    }
}

/// rtrb between two threads, as many bytes of capacity as our default ring.
pub struct Rtrb {
    there: rtrb::Producer<Payload>,
    back: rtrb::Consumer<u64>,
    far: FarThread,
}

impl Rtrb {
    pub fn new() -> Self {
        let slots = (64 << 10) / size_of::<Payload>();
        let (there, mut messages) = rtrb::RingBuffer::<Payload>::new(slots);
        let (mut done, back) = rtrb::RingBuffer::<u64>::new(1);
        let far = FarThread::new(move |steps| {
            for step in 0..steps {
                check(&pop(&mut messages), step);
            }
            done.push(steps).expect("one acknowledgement at a time");
        });
        Self { there, back, far }
    }
}

fn pop<T>(from: &mut rtrb::Consumer<T>) -> T {
    loop {
        if let Ok(value) = from.pop() {
            return value;
        }
        spin_loop();
    }
}

impl Case for Rtrb {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.far.start(steps);
        for step in 0..steps {
            while self.there.push(payload(step)).is_err() {
                spin_loop();
            }
        }
        pop(&mut self.back);
        start.elapsed()
    }
}

/// A payload there and back over a bare `SOCK_SEQPACKET` pair: the floor of sleeping round trips.
pub struct Seqpacket {
    near: OwnedFd,
    far: FarThread,
}

impl Seqpacket {
    pub fn new() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .expect("a socket pair");
        let far = FarThread::new(move |steps| {
            for _ in 0..steps {
                let mut question = Payload::default();
                let bytes = bytemuck::bytes_of_mut(&mut question);
                recv(&far, &mut *bytes, RecvFlags::empty()).expect("a question");
                send(&far, bytes, SendFlags::NOSIGNAL).expect("a near end");
            }
        });
        Self { near, far }
    }
}

impl Case for Seqpacket {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.far.start(steps);
        for step in 0..steps {
            let mut answer = Payload::default();
            let question = payload(step);
            send(&self.near, bytemuck::bytes_of(&question), SendFlags::NOSIGNAL)
                .expect("a far end");
            recv(&self.near, bytemuck::bytes_of_mut(&mut answer), RecvFlags::empty())
                .expect("an answer");
            check(&answer, step);
        }
        start.elapsed()
    }
}
