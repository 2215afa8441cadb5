//! Ports in tasks of tokio; see `aio/mod.rs`.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod aio;
mod bursts;
mod support;

/// What the bodies in `aio` run on.
mod runtime {
    use std::future::Future;
    use std::time::Duration;

    pub(crate) use zeroport::tokio::{AsyncPort, AsyncReceiver, AsyncSender};

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a runtime").block_on(future)
    }

    /// Runs a task, which may go from thread to thread.
    pub(crate) fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        let task = tokio::spawn(future);
        async { task.await.expect("a task that does not panic") }
    }

    pub(crate) async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

mod shutdown {
    use std::time::Duration;

    use tokio::runtime::Runtime;
    use zeroport::tokio::AsyncPort;
    use zeroport::{CloseReason, MessageChannel, RecvError};

    use crate::support::{wait_until, with_watchdog};

    fn expect_closed(error: RecvError) {
        assert_eq!(error, RecvError::Closed(CloseReason::Closed));
    }

    // A task that waits goes with its runtime, and its port with it.
    #[test]
    fn a_runtime_that_is_dropped_closes_what_waits_in_it() {
        with_watchdog(|| {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let runtime = Runtime::new().unwrap();
            let task = runtime.spawn(async move {
                let mut port = AsyncPort::new(port2);
                port.sender.post_bytes(b"here").await.unwrap();
                port.receiver.recv().await.map(drop)
            });
            assert_eq!(port1.recv().unwrap().bytes(), b"here");
            drop(runtime);
            expect_closed(port1.recv().unwrap_err());
            wait_until("the task is gone", || task.is_finished());
        });
    }

    // A half that has waited in a runtime says so when that is gone, and waits in another one after that.
    #[test]
    fn a_port_outlives_its_runtime() {
        with_watchdog(|| {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let mut port = AsyncPort::new(port2);
            let short = Duration::from_millis(5);
            let gone = Runtime::new().unwrap();
            gone.block_on(async { tokio::time::timeout(short, port.receiver.recv()).await })
                .unwrap_err();
            drop(gone);
            let runtime = Runtime::new().unwrap();
            let error = runtime.block_on(port.receiver.recv()).unwrap_err();
            assert_eq!(error, RecvError::Os { errno: libc::ECANCELED });
            let posting = std::thread::spawn(move || port1.post_bytes(b"late").map(|()| port1));
            assert_eq!(runtime.block_on(port.receiver.recv()).unwrap().bytes(), b"late");
            drop(posting.join().unwrap().unwrap());
            expect_closed(runtime.block_on(port.receiver.recv()).unwrap_err());
        });
    }
}
