//! ipc-channel in the same cases.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender, channel};
use serde::{Deserialize, Serialize};

use crate::support::ports::REPLIES;
use crate::support::{Case, FAR, NEAR, pin};

/// Names the server to which the far end connects.
const SERVER: &str = "ZEROPORT_BENCH_IPC";

/// What the far end gets: a reply channel for each request.
#[derive(Serialize, Deserialize)]
struct Request(IpcSender<u64>);

/// Runs the far end if this process is one. To be called first in `main`.
pub fn run_far_end() {
    let Ok(server) = std::env::var(SERVER) else { return };
    pin(FAR);
    let (requests, theirs) = channel::<Request>().expect("a channel");
    let hello = IpcSender::connect(server).expect("the bench");
    hello.send(requests).expect("the bench");
    while let Ok(Request(reply)) = theirs.recv() {
        for number in 0..REPLIES {
            reply.send(number).expect("somebody who asked");
        }
    }
    std::process::exit(0);
}

/// A request that carries a fresh reply channel, ten replies, close.
pub struct ReplyStream {
    requests: Option<IpcSender<Request>>,
    far: Child,
}

impl ReplyStream {
    pub fn new() -> Self {
        let (server, name) = IpcOneShotServer::<IpcSender<Request>>::new().expect("a server");
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        let far = command.env(SERVER, name).spawn().expect("a far end");
        let (_, requests): (IpcReceiver<_>, _) = server.accept().expect("the far end");
        pin(NEAR);
        Self { requests: Some(requests), far }
    }
}

impl Case for ReplyStream {
    fn run(&mut self, steps: u64) -> Duration {
        let requests = self.requests.as_ref().expect("open until dropped");
        let start = Instant::now();
        for _ in 0..steps {
            let (theirs, mine) = channel().expect("a channel");
            requests.send(Request(theirs)).expect("a far end");
            for number in 0..REPLIES {
                assert_eq!(mine.recv().expect("a reply"), number);
            }
            assert!(mine.recv().is_err(), "closed after the last reply");
        }
        start.elapsed()
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.far.wait();
    }
}
