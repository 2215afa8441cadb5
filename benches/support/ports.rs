//! zeroport between two processes: this one, and itself once more as the far end.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use zeroport::{CloseReason, MessageChannel, MessagePort, RecvError, Tagged, WaitStrategy};

use super::{Case, FAR, NEAR, Payload, check, payload, pin};

/// Says to the far end what it is there for.
const ROLE: &str = "ZEROPORT_BENCH_ROLE";

/// Runs the far end if this process is one. To be called first in `main`.
pub fn run_far_end() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (kind, strategy) = role.split_once('/').expect("a kind and a strategy");
    let port = zeroport::parent_port().expect("a port to the bench");
    pin(FAR);
    let work: fn(&MessagePort, u64) = match kind {
        "stream" => stream,
        "batches" => batches,
        "typed" => typed,
        "echo" => echo,
        "replies" => replies,
        "bounce" => bounce,
        other => panic!("no such role: {other}"),
    };
    serve(&port, strategy_of(strategy), work);
    std::process::exit(0);
}

fn strategy_of(name: &str) -> WaitStrategy {
    match name {
        "spin" => WaitStrategy::Spin,
        "sleep" => WaitStrategy::Sleep,
        _ => WaitStrategy::Adaptive,
    }
}

/// Takes a count, does so many steps, acknowledges; again and again. Sleeps in between, so that it
/// disturbs nobody else's measurement.
fn serve(port: &MessagePort, strategy: WaitStrategy, work: fn(&MessagePort, u64)) {
    loop {
        port.set_wait_strategy(WaitStrategy::Sleep);
        let Ok(steps) = port.recv().map(|message| *message.pod().expect("a count")) else { return };
        port.set_wait_strategy(strategy);
        work(port, steps);
        port.post_pod(&steps).expect("a near end");
    }
}

fn stream(port: &MessagePort, steps: u64) {
    for step in 0..steps {
        check(port.recv().expect("a message").pod().expect("a payload"), step);
    }
}

fn batches(port: &MessagePort, steps: u64) {
    let mut step = 0;
    while step < steps {
        for message in port.drain().take((steps - step) as usize) {
            check(message.pod().expect("a payload"), step);
            step += 1;
        }
        std::hint::spin_loop();
    }
}

fn typed(port: &MessagePort, steps: u64) {
    for step in 0..steps {
        let message = port.recv().expect("a message");
        check_sample(message.get::<Sample>().expect("a sample"), step);
    }
}

fn echo(port: &MessagePort, steps: u64) {
    for _ in 0..steps {
        let question: Payload = *port.recv().expect("a message").pod().expect("a payload");
        port.post_pod(&question).expect("a near end");
    }
}

/// Serves requests that carry a port: ten replies on it, then its close.
fn replies(port: &MessagePort, steps: u64) {
    for _ in 0..steps {
        let request = port.recv().expect("a request");
        let [reply] = request.take_ports().expect("a reply port");
        for number in 0..REPLIES {
            reply.post_pod(&number).expect("somebody who asked");
        }
    }
}

/// Gives back each port that comes.
fn bounce(port: &MessagePort, steps: u64) {
    for _ in 0..steps {
        let [moving] = port.recv().expect("a message").take_ports().expect("a port");
        port.post_bytes_with(b"", moving).expect("a near end");
    }
}

/// A channel to a far end in a process of its own.
pub struct Channel {
    pub port: Option<MessagePort>,
    far: Child,
}

impl Channel {
    pub fn new(kind: &str, strategy: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.env(ROLE, format!("{kind}/{strategy}"));
        let (port, far) = zeroport::spawn(command).expect("a far end");
        port.set_wait_strategy(strategy_of(strategy));
        pin(NEAR);
        Self { port: Some(port), far }
    }

    pub fn port(&self) -> &MessagePort {
        self.port.as_ref().expect("open until dropped")
    }

    pub fn start(&self, steps: u64) -> Instant {
        let start = Instant::now();
        self.port().post_pod(&steps).expect("a far end");
        start
    }

    pub fn finish(&self, start: Instant, steps: u64) -> Duration {
        let done = self.port().recv().expect("an acknowledgement");
        assert_eq!(done.pod::<u64>().expect("a count"), &steps);
        start.elapsed()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.port = None;
        let _ = self.far.wait();
    }
}

/// One post and one recv a message.
pub struct Stream(Channel);

impl Stream {
    pub fn new() -> Self {
        Self(Channel::new("stream", "spin"))
    }
}

impl Case for Stream {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.0.start(steps);
        for step in 0..steps {
            self.0.port().post_pod(&payload(step)).expect("a far end");
        }
        self.0.finish(start, steps)
    }
}

/// Batches of 64 messages, drained as they come.
pub struct Batches(Channel);

impl Batches {
    pub fn new() -> Self {
        Self(Channel::new("batches", "spin"))
    }
}

impl Case for Batches {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.0.start(steps);
        let mut batch = [Payload::default(); 64];
        let mut step = 0;
        while step < steps {
            let len = (steps - step).min(64) as usize;
            for place in &mut batch[..len] {
                *place = payload(step);
                step += 1;
            }
            self.0.port().post_all_pod(&batch[..len]).expect("a far end");
        }
        self.0.finish(start, steps)
    }
}

/// A typical typed message.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub struct Sample {
    id: u64,
    name: String,
    samples: Vec<f32>,
}

impl Tagged for Sample {
    const NAME: &'static str = "bench.Sample";
}

impl Sample {
    pub fn new(id: u64) -> Self {
        Self { id, name: "sixteen bytes ok".into(), samples: vec![id as f32; 16] }
    }
}

pub fn check_sample(sample: &ArchivedSample, step: u64) {
    assert_eq!(sample.id, step);
    assert_eq!(sample.name, "sixteen bytes ok");
    assert!(sample.samples.len() == 16 && sample.samples.iter().all(|x| *x == step as f32));
}

/// rkyv values, serialised into the ring, validated and read in place.
pub struct Typed(Channel, Sample);

impl Typed {
    pub fn new() -> Self {
        Self(Channel::new("typed", "spin"), Sample::new(0))
    }
}

impl Case for Typed {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.0.start(steps);
        for step in 0..steps {
            self.1.id = step;
            self.1.samples.fill(step as f32);
            self.0.port().post(&self.1).expect("a far end");
        }
        self.0.finish(start, steps)
    }
}

/// One message there, one back.
pub struct RoundTrip(Channel);

impl RoundTrip {
    pub fn new(strategy: &str) -> Self {
        Self(Channel::new("echo", strategy))
    }
}

impl Case for RoundTrip {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.0.start(steps);
        for step in 0..steps {
            self.0.port().post_pod(&payload(step)).expect("a far end");
            check(self.0.port().recv().expect("an answer").pod().expect("a payload"), step);
        }
        self.0.finish(start, steps)
    }
}

/// A channel is made, used once, and dropped, all in this process.
pub struct Fresh;

impl Case for Fresh {
    fn run(&mut self, steps: u64) -> Duration {
        let start = Instant::now();
        for step in 0..steps {
            let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
            port1.post_pod(&payload(step)).expect("room for a message");
            check(port2.recv().expect("a message").pod().expect("a payload"), step);
        }
        start.elapsed()
    }
}

/// Replies to one request.
pub const REPLIES: u64 = 10;

/// A request that carries a fresh reply port, ten replies, close. Default options throughout.
pub struct ReplyStream(Channel);

impl ReplyStream {
    pub fn new() -> Self {
        Self(Channel::new("replies", "adaptive"))
    }
}

impl Case for ReplyStream {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.0.start(steps);
        for _ in 0..steps {
            let MessageChannel { port1: mine, port2: theirs } =
                MessageChannel::new().expect("a channel");
            self.0.port().post_bytes_with(b"", theirs).expect("a far end");
            for number in 0..REPLIES {
                assert_eq!(mine.recv().expect("a reply").pod::<u64>().expect("a number"), &number);
            }
            let end = mine.recv().map(drop);
            assert_eq!(end, Err(RecvError::Closed(CloseReason::Closed)));
        }
        self.0.finish(start, steps)
    }
}

/// A port goes there and back, with so many unread messages in it.
pub struct Bounce {
    channel: Channel,
    _other_end: MessagePort,
    moving: Option<MessagePort>,
}

impl Bounce {
    pub fn new(unread: u64) -> Self {
        let channel = Channel::new("bounce", "adaptive");
        let MessageChannel { port1, port2 } = MessageChannel::new().expect("a channel");
        for number in 0..unread {
            port1.post_pod(&number).expect("room for the message");
        }
        Self { channel, _other_end: port1, moving: Some(port2) }
    }
}

impl Case for Bounce {
    fn run(&mut self, steps: u64) -> Duration {
        let start = self.channel.start(steps);
        for _ in 0..steps {
            let moving = self.moving.take().expect("the port is here");
            self.channel.port().post_bytes_with(b"", moving).expect("a far end");
            let answer = self.channel.port().recv().expect("the port back");
            let [back] = answer.take_ports().expect("one port");
            self.moving = Some(back);
        }
        self.channel.finish(start, steps)
    }
}
