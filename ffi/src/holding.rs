//! What a handle leads to: a port, with the messages that were received on it and are still held.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};

use zeroport::{Closer, Message, MessagePort};

use crate::status::{Failure, Status};
use crate::table::{Gone, Table};

static TABLE: LazyLock<Mutex<Table<Arc<Holding>>>> = LazyLock::new(|| Mutex::new(Table::new()));

/// Never while a port is used or dropped, so never for long.
fn table() -> MutexGuard<'static, Table<Arc<Holding>>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that a C program holds.
pub(crate) struct Holding {
    closer: Closer,
    used: Mutex<Used>,
}

/// What one thread at a time may touch.
struct Used {
    /// Those that are held, by number. They borrow `port`, and are dropped before it (A3).
    messages: RefCell<HashMap<u64, Message<'static>>>,
    /// The number of the next message.
    next: Cell<u64>,
    /// `None`: closed or given away. Only taken out while there are no messages (A3).
    port: Option<MessagePort>,
}

// SAFETY: A4: the messages are there only together with the port that they borrow, and whoever holds
// the lock has them all. To send them to another thread is to send the port, which is `Send`, with
// everything that borrows it; a message has nothing else that is bound to a thread.
unsafe impl Send for Used {}

/// Gives a port a handle.
pub(crate) fn hold(port: MessagePort) -> u64 {
    let closer = port.closer();
    let used = Used { messages: RefCell::default(), next: Cell::new(1), port: Some(port) };
    table().insert(Arc::new(Holding { closer, used: Mutex::new(used) }))
}

/// What a handle leads to.
pub(crate) fn find(handle: u64) -> Result<Arc<Holding>, Failure> {
    Ok(Arc::clone(table().get(handle)?))
}

/// Takes handles from their ports.
pub(crate) fn forget(handles: impl IntoIterator<Item = u64>, why: Gone) {
    let mut table = table();
    let gone: Vec<_> = handles.into_iter().map(|handle| table.remove(handle, why)).collect();
    drop(table);
    drop(gone);
}

impl Holding {
    /// Begins to use the port, unless another thread does.
    pub(crate) fn enter(&self) -> Result<Visit<'_>, Failure> {
        match self.used.try_lock() {
            Ok(used) => Ok(Visit(used)),
            // After a panic the port is as good as before: the library is made for that.
            Err(TryLockError::Poisoned(used)) => Ok(Visit(used.into_inner())),
            Err(TryLockError::WouldBlock) => Err(Status::Busy.into()),
        }
    }

    /// Ends the channel, whoever uses the port.
    pub(crate) fn shut_down(&self) {
        self.closer.close();
    }
}

/// One thread's use of a port and its messages.
pub(crate) struct Visit<'h>(MutexGuard<'h, Used>);

impl Visit<'_> {
    /// The port; `handle` is where it was found.
    pub(crate) fn port(&self, handle: u64) -> Result<&MessagePort, Failure> {
        self.0.port.as_ref().ok_or_else(|| left(handle))
    }

    /// Takes the port out; nobody may borrow it.
    pub(crate) fn take(&mut self, handle: u64) -> Result<MessagePort, Failure> {
        self.may_leave()?;
        self.0.port.take().ok_or_else(|| left(handle))
    }

    /// Whether the port could be taken out.
    pub(crate) fn may_leave(&self) -> Result<(), Failure> {
        if self.0.messages.borrow().is_empty() { Ok(()) } else { Err(Status::Borrowed.into()) }
    }

    /// Puts back what was taken out.
    pub(crate) fn put_back(&mut self, port: MessagePort) {
        self.0.port = Some(port);
    }

    /// Keeps a message that was received on the port of this visit; gives its number.
    pub(crate) fn keep(&self, message: Message<'_>) -> u64 {
        // SAFETY: A3: it borrows the port that it is kept beside, and is gone before that port is.
        let message = unsafe { std::mem::transmute::<Message<'_>, Message<'static>>(message) };
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        self.0.messages.borrow_mut().insert(number, message);
        number
    }

    /// Has a look at a message that is held.
    pub(crate) fn look_at<R>(
        &self,
        number: u64,
        look: impl FnOnce(&Message<'_>) -> R,
    ) -> Result<R, Failure> {
        self.0.messages.borrow().get(&number).map(look).ok_or_else(|| self.no_message(number))
    }

    /// Lets a message go.
    pub(crate) fn release(&self, number: u64) -> Result<(), Failure> {
        let message = self.0.messages.borrow_mut().remove(&number);
        message.map(drop).ok_or_else(|| self.no_message(number))
    }

    fn no_message(&self, number: u64) -> Failure {
        let was_one = (1..self.0.next.get()).contains(&number);
        if was_one { Status::Freed.into() } else { Status::BadHandle.into() }
    }
}

/// Why there is no port where a handle led a moment ago.
fn left(handle: u64) -> Failure {
    // A panic while it was given away would be the other reason.
    find(handle).err().unwrap_or_else(|| Status::Internal.into())
}
