//! What other threads have of a set: its bell, and orders for who waits there.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::fork::Mark;
use crate::sync::{AtomicBool, Ordering};

use super::message_port::MessagePort;

/// Wakes who waits in a set.
#[derive(Debug)]
pub(super) struct Bell {
    eventfd: OwnedFd,
    /// Members whose line has said something to somebody else.
    called: Mutex<HashSet<usize>>,
}

impl Bell {
    /// Has a member looked at.
    pub(super) fn call(&self, index: usize) {
        lock(&self.called).insert(index);
        self.ring();
    }

    fn ring(&self) {
        // Fails only when the counter is full: then it is readable anyway.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Order<K> {
    Insert(K, Box<MessagePort>),
    Remove(K),
    Pause(K),
    Resume(K),
}

/// What a set shares with its handles.
#[derive(Debug)]
pub(super) struct Shared<K> {
    mark: Mark,
    bell: Arc<Bell>,
    /// `None` once the set is gone.
    orders: Mutex<Option<Orders<K>>>,
    has_orders: AtomicBool,
}

/// Orders in their turn, and whether a wait is to end.
type Orders<K> = (VecDeque<Order<K>>, bool);

impl<K> Shared<K> {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let mark = Mark::here()?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell { eventfd, called: Mutex::default() });
        let orders = Mutex::new(Some((VecDeque::new(), false)));
        Ok(Arc::new(Self { mark, bell, orders, has_orders: AtomicBool::new(false) }))
    }

    /// False for the copy that a fork makes. It shares epoll and bell with the original, and another thread may have
    /// held the locks.
    pub(super) fn is_original(&self) -> bool {
        self.mark.is_original()
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }

    pub(super) fn ring_bell(&self) {
        if self.is_original() {
            self.bell.ring();
        }
    }

    pub(super) fn listener(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Takes the bell's ringing, and whom it was for.
    pub(super) fn clear(&self) -> HashSet<usize> {
        // Fails only when there is none.
        let _ = rustix::io::read(&self.bell.eventfd, &mut [0; 8]);
        std::mem::take(&mut *lock(&self.bell.called))
    }

    pub(super) fn has_orders(&self) -> bool {
        // Relaxed: the lock brings the orders; who sleeps is rung for.
        self.has_orders.load(Ordering::Relaxed)
    }

    pub(super) fn take_orders(&self) -> Orders<K> {
        let mut orders = lock(&self.orders);
        self.has_orders.store(false, Ordering::Relaxed);
        orders.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// No set is there any more. What was to be taken in is dropped.
    pub(super) fn end(&self) {
        let orders = lock(&self.orders).take();
        drop(orders);
    }

    /// Gives the order back if the set is gone, or is another process's.
    fn order(&self, order: Order<K>) -> Result<(), Order<K>> {
        if !self.is_original() {
            return Err(order);
        }
        let mut orders = lock(&self.orders);
        let Some((orders, _)) = orders.as_mut() else { return Err(order) };
        orders.push_back(order);
        self.ring();
        Ok(())
    }

    fn wake(&self) {
        if self.is_original()
            && let Some((_, is_woken)) = lock(&self.orders).as_mut()
        {
            *is_woken = true;
            self.ring();
        }
    }

    fn ring(&self) {
        self.has_orders.store(true, Ordering::Relaxed);
        self.bell.ring();
    }
}

/// A way into a [`PortSet`](crate::PortSet) from other threads; it keeps nothing alive.
///
/// ```
/// use zeroport::{Event, MessageChannel, PortSet};
///
/// let mut set = PortSet::new()?;
/// let handle = set.handle();
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let joining = std::thread::spawn(move || {
///     handle.insert("late", port2).expect("the set is there");
///     handle.remove("late");
/// });
/// let removed = loop {
///     let event = set.wait()?.next();
///     if let Some(("late", Event::Removed(port))) = event {
///         break port;
///     }
/// };
/// port1.post_bytes(b"still open")?;
/// assert_eq!(removed.recv()?.bytes(), b"still open");
/// joining.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SetHandle<K>(Arc<Shared<K>>);

impl<K> Clone for SetHandle<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> SetHandle<K> {
    pub(super) fn new(shared: &Arc<Shared<K>>) -> Self {
        Self(Arc::clone(shared))
    }

    /// False for the copy that a fork makes.
    pub(super) fn is_original(&self) -> bool {
        self.0.is_original()
    }

    /// Has the set take a port in, and ends its wait for that. Where it cannot (another port has the key, or the kernel
    /// cannot watch one more), the port comes to who waits there, as [`Event::Refused`](crate::Event::Refused). Never
    /// waits.
    ///
    /// # Errors
    ///
    /// The port, if the set is gone, or if this is a copy that a fork has made.
    #[allow(clippy::result_large_err)] // handing back what was handed in
    pub fn insert(&self, key: K, port: MessagePort) -> Result<(), MessagePort> {
        match self.0.order(Order::Insert(key, Box::new(port))) {
            Err(Order::Insert(_, port)) => Err(*port),
            _ => Ok(()),
        }
    }

    /// Has the set let a port go: who waits there gets it, as [`Event::Removed`](crate::Event::Removed), and nothing
    /// of it after that. Without such a port, or without the set, nothing comes. Never waits.
    pub fn remove(&self, key: K) {
        let _ = self.0.order(Order::Remove(key));
    }

    /// Has the set [pause](crate::PortSet::pause) a port. Without such a port, or without the set, nothing happens.
    /// Never waits; what the set tells before it comes to this order it tells.
    pub fn pause(&self, key: K) {
        let _ = self.0.order(Order::Pause(key));
    }

    /// Has the set [resume](crate::PortSet::resume) a port, and ends its wait for that. Without such a port, or without
    /// the set, nothing happens. Never waits.
    pub fn resume(&self, key: K) {
        let _ = self.0.order(Order::Resume(key));
    }

    /// Ends a wait of the set, at once or the next one. Never waits.
    pub fn wake(&self) {
        self.0.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
