//! Ports in tasks of smol; see `aio/mod.rs`.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod aio;
mod bursts;
mod support;

/// What the bodies in `aio` run on.
mod runtime {
    use std::future::Future;
    use std::time::Duration;

    pub(crate) use zeroport::smol::{AsyncPort, AsyncReceiver, AsyncSender};

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        smol::block_on(future)
    }

    /// Runs a task, which may go from thread to thread.
    pub(crate) fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        smol::spawn(future)
    }

    pub(crate) async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }
}
