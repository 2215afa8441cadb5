//! What other threads have of an event loop.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sync::{AtomicBool, Ordering};

use super::event_loop::EventLoop;
use super::loop_ports::PortId;
use super::message_port::MessagePort;
use super::set_events::InsertError;
use super::set_handle::SetHandle;

/// What a handle asks for.
pub(super) type LoopOrder = Box<dyn for<'h> FnOnce(&mut EventLoop<'h>) + Send>;

/// What a loop shares with its handles.
#[derive(Default)]
pub(super) struct LoopShared {
    /// `None` once the loop is gone.
    orders: Mutex<Option<VecDeque<LoopOrder>>>,
    has_orders: AtomicBool,
    is_stopped: AtomicBool,
}

impl LoopShared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { orders: Mutex::new(Some(VecDeque::new())), ..Self::default() })
    }

    pub(super) fn has_orders(&self) -> bool {
        // Relaxed: the lock brings the orders; who sleeps is woken for them.
        self.has_orders.load(Ordering::Relaxed)
    }

    pub(super) fn take_orders(&self) -> VecDeque<LoopOrder> {
        let mut orders = self.lock();
        // Relaxed: under the lock, as where it is set.
        self.has_orders.store(false, Ordering::Relaxed);
        orders.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// No loop is there any more. What is still asked for is dropped.
    pub(super) fn end(&self) {
        let orders = self.lock().take();
        drop(orders);
    }

    pub(super) fn is_stopped(&self) -> bool {
        // Relaxed: says only that no more is to be done.
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// As [`is_stopped`](Self::is_stopped), once: one that comes meanwhile is for the next run.
    pub(super) fn take_stop(&self) -> bool {
        // Relaxed, as there.
        self.is_stopped.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<LoopOrder>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way into an [`EventLoop`](crate::EventLoop) from other threads; it keeps nothing alive.
///
/// ```
/// use zeroport::{EventLoop, MessageChannel};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let mut events = EventLoop::new()?;
/// events.keep_running(true);
/// let handle = events.handle();
/// let joining = std::thread::spawn(move || {
///     let inserted = handle.insert(port2, |events, port| {
///         let port = port.expect("the kernel can watch it");
///         events.listeners_of(port).on_message(|turn, _| turn.stop());
///     });
///     inserted.expect("the loop is there");
///     port1.post_bytes(b"stop").unwrap();
///     port1
/// });
/// events.run()?;
/// joining.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LoopHandle {
    shared: Arc<LoopShared>,
    set: SetHandle<PortId>,
}

impl LoopHandle {
    pub(super) fn new(shared: &Arc<LoopShared>, set: SetHandle<PortId>) -> Self {
        Self { shared: Arc::clone(shared), set }
    }

    /// Takes a port into the loop, and has its listeners set up there, on the loop's thread, where handlers may hold what
    /// cannot be sent. Never waits.
    ///
    /// # Errors
    ///
    /// The port, if the loop is gone, or if this is a copy that a fork has made.
    #[allow(clippy::result_large_err)] // handing back what was handed in
    pub fn insert(
        &self,
        port: MessagePort,
        set_up: impl FnOnce(&mut EventLoop<'_>, Result<PortId, InsertError>) + Send + 'static,
    ) -> Result<(), MessagePort> {
        self.order(port, |port| {
            Box::new(move |events| {
                let inserted = events.insert(port);
                set_up(events, inserted);
            })
        })
    }

    /// Does something with the loop, on its thread, while no handler runs. Never waits.
    ///
    /// # Errors
    ///
    /// What was to be done, if the loop is gone, or if this is a copy that a fork has made.
    pub fn later<F>(&self, work: F) -> Result<(), F>
    where
        F: for<'h> FnOnce(&mut EventLoop<'h>) + Send + 'static,
    {
        self.order(work, |work| Box::new(work))
    }

    /// Ends the loop's run when the handler that runs has returned; if there is no run, the next one ends at once. Never
    /// waits.
    pub fn stop(&self) {
        // Relaxed: nothing travels with it, and the bell comes behind it.
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.set.wake();
    }

    /// Ends a wait of the loop, at once or the next one: [`run_once`](crate::EventLoop::run_once) returns, a
    /// [`run`](crate::EventLoop::run) goes on. Never waits.
    pub fn wake(&self) {
        self.set.wake();
    }

    fn order<T>(&self, with: T, order: impl FnOnce(T) -> LoopOrder) -> Result<(), T> {
        // Another thread may have held the lock when this copy was made.
        if !self.set.is_original() {
            return Err(with);
        }
        let mut orders = self.shared.lock();
        let Some(orders) = orders.as_mut() else { return Err(with) };
        orders.push_back(order(with));
        // Relaxed: under the lock, as where it is taken back.
        self.shared.has_orders.store(true, Ordering::Relaxed);
        self.set.wake();
        Ok(())
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").finish_non_exhaustive()
    }
}
