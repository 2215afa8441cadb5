//! Round trips of 64 bytes between two tasks, each in a tokio runtime of one thread; beside threads that receive, and
//! beside tasks and threads that sleep at once.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use zeroport::tokio::AsyncPort;
use zeroport::{ChannelOptions, MessagePort, WaitStrategy};

use super::no_such_peer;
use super::round_trip::RoundTrips;
use crate::Result;
use crate::carrier::serve_echo;
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Far, Role, serve as serve_orders};
use crate::machine::nanos;
use crate::payload::{check_words, words};
use crate::peers::{ours, stream};
use crate::run::Run;

const WORDS: usize = 8;
const SIZE: usize = size_of::<[u64; WORDS]>();

/// Who sleeps at once instead of looking for a while first.
const TASKS_ASLEEP: &str = "asleep";
const THREADS_ASLEEP: &str = "recv-asleep";

fn role(peer: &'static str) -> Role<'static> {
    let wait = match peer {
        TASKS_ASLEEP | THREADS_ASLEEP => WaitStrategy::Sleep,
        _ => WaitStrategy::default(),
    };
    Role { wait, ..Role::new("async_round_trip", peer, SIZE) }
}

pub fn run(run: &mut Run) -> Result<()> {
    let link = |peer| ours::link(ChannelOptions::new(), role(peer));
    let tasks = |peer| link(peer).and_then(|it| Tasks::new(it.far, AsyncPort::new(it.carrier)));
    let (far, socket) = stream::link(role("UnixStream"))?;
    let runtime = runtime()?;
    let socket = Socket::new(&runtime, socket)?;
    Contest::new("async_round_trip", SIZE, Unit::Nanos)
        .peer("zeroport", tasks("zeroport")?)
        .peer("tokio UnixStream", Tasks { runtime, far, end: socket })
        .peer("zeroport, recv", RoundTrips::new(link("recv")?))
        .peer("zeroport, asleep", tasks(TASKS_ASLEEP)?)
        .peer("zeroport, recv asleep", RoundTrips::new(link(THREADS_ASLEEP)?))
        .run(run)
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?)
}

/// An end of a way for messages, in a task.
trait Carrier {
    fn send(&mut self, payload: &[u64; WORDS]) -> impl Future<Output = Result<()>>;
    fn receive<T>(
        &mut self,
        read: impl FnOnce(&[u64; WORDS]) -> T,
    ) -> impl Future<Output = Result<T>>;
}

impl Carrier for AsyncPort {
    async fn send(&mut self, payload: &[u64; WORDS]) -> Result<()> {
        Ok(self.sender.post_pod(payload).await?)
    }

    async fn receive<T>(&mut self, read: impl FnOnce(&[u64; WORDS]) -> T) -> Result<T> {
        Ok(read(self.receiver.recv().await?.pod()?))
    }
}

/// A stream of bytes, in messages of one length.
struct Socket {
    stream: UnixStream,
    /// Larger than a message: who does not fill it is not asked again before there is more.
    read: Box<[u8]>,
}

impl Socket {
    fn new(runtime: &Runtime, stream: std::os::unix::net::UnixStream) -> Result<Self> {
        let _context = runtime.enter();
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, read: vec![0; 64 * SIZE].into() })
    }
}

impl Carrier for Socket {
    async fn send(&mut self, payload: &[u64; WORDS]) -> Result<()> {
        Ok(self.stream.write_all(bytemuck::bytes_of(payload)).await?)
    }

    async fn receive<T>(&mut self, read: impl FnOnce(&[u64; WORDS]) -> T) -> Result<T> {
        let mut len = 0;
        while len < SIZE {
            let more = self.stream.read(&mut self.read[len..]).await?;
            assert!(more > 0 && len + more <= SIZE, "no message");
            len += more;
        }
        Ok(read(&bytemuck::pod_read_unaligned(&self.read[..SIZE])))
    }
}

/// Round trips in a task.
struct Tasks<C> {
    end: C,
    runtime: Runtime,
    far: Far,
}

impl<C: Carrier> Tasks<C> {
    fn new(far: Far, end: C) -> Result<Self> {
        Ok(Self { end, runtime: runtime()?, far })
    }
}

impl<C: Carrier> Measure for Tasks<C> {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let start = self.far.begin(steps)?;
        self.runtime.block_on(async {
            for step in 0..steps {
                self.end.send(&words(step)).await?;
                self.end.receive(|payload| check_words(payload, step)).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        let elapsed = start.elapsed();
        self.far.finish()?;
        Ok(nanos(elapsed) / steps as f64)
    }
}

fn serve_tasks(control: &MessagePort, runtime: &Runtime, mut end: impl Carrier) -> Result<()> {
    serve_orders(control, |steps| {
        runtime.block_on(async {
            for _ in 0..steps {
                let payload = end.receive(|payload| *payload).await?;
                end.send(&payload).await?;
            }
            Ok(steps)
        })
    })
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    let runtime = runtime()?;
    match role.peer {
        "zeroport" | TASKS_ASLEEP => {
            let port = AsyncPort::new(ours::accept(role, control)?);
            serve_tasks(control, &runtime, port)
        }
        "UnixStream" => {
            let socket = Socket::new(&runtime, stream::accept()?)?;
            serve_tasks(control, &runtime, socket)
        }
        "recv" | THREADS_ASLEEP => serve_echo::<WORDS>(control, ours::accept(role, control)?),
        _ => no_such_peer(role),
    }
}
