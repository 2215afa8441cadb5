//! What the handle of a port leads to: the port, with what was received on it and is still held, and the room that is
//! reserved.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use zeroport::{Closer, Loan, MessagePort, Sender};

use crate::held::Held;
use crate::member::Membership;
use crate::status::{Failure, Status};
use crate::table::{Gone, Table, Visit};

/// All ports of this program.
pub(crate) static PORTS: Table<Port, Ending> = Table::new(1);

/// Ends a channel, whoever uses the port.
#[derive(Debug)]
pub(crate) struct Ending {
    closer: Closer,
    /// Whether it has.
    is_ended: AtomicBool,
}

impl Ending {
    pub(crate) fn end(&self) {
        // Relaxed: says only who has closed it.
        self.is_ended.store(true, Ordering::Relaxed);
        self.closer.close();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }
}

/// A port that a C program holds. Alone in its cache lines: ports of different threads do not slow one another down.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Port {
    // In this order they are dropped (A3).
    pub(crate) held: Held,
    pub(crate) loan: Option<Loan<'static>>,
    whose: Whose,
    /// How many loans there were, with this one.
    pub(crate) loans: u64,
}

/// Who has the port.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // that is what it mostly is
enum Whose {
    Ours(MessagePort),
    /// A set or a loop has it.
    In(Membership),
    /// It is being given away.
    Away,
}

/// Gives a port a handle. Closes it if there are too many.
pub(crate) fn hold(port: MessagePort) -> Result<u64, Failure> {
    let ending = Ending { closer: port.closer(), is_ended: AtomicBool::new(false) };
    let whose = Whose::Ours(port);
    PORTS.insert(Port { held: Held::new(), loan: None, loans: 0, whose }, ending)
}

impl Port {
    /// The port, if no set or loop has it.
    #[inline(always)]
    pub(crate) fn ours(&self) -> Result<&MessagePort, Failure> {
        match &self.whose {
            Whose::Ours(port) => Ok(port),
            Whose::In(_) => Err(Status::Member.into()),
            Whose::Away => Err(Status::Internal.into()),
        }
    }

    /// The port, and where to keep what is received on it.
    #[inline(always)]
    pub(crate) fn receiving(&mut self) -> Result<(&MessagePort, &mut Held), Failure> {
        match &self.whose {
            Whose::Ours(port) => Ok((port, &mut self.held)),
            Whose::In(_) => Err(Status::Member.into()),
            Whose::Away => Err(Status::Internal.into()),
        }
    }

    /// Does something with the sending half, wherever it is.
    #[inline(always)]
    pub(crate) fn sending<R>(
        &self,
        id: u64,
        with: impl FnOnce(&Sender) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        match &self.whose {
            Whose::Ours(port) => with(port.as_sender()),
            Whose::In(membership) => membership.sending(id, with),
            Whose::Away => Err(Status::Internal.into()),
        }
    }

    pub(crate) fn membership(&self) -> Option<Membership> {
        match &self.whose {
            Whose::In(membership) => Some(*membership),
            Whose::Ours(_) | Whose::Away => None,
        }
    }

    /// Whether the port could be taken out: nobody may borrow it.
    pub(crate) fn may_leave(&self) -> Result<(), Failure> {
        self.ours()?;
        if !self.held.is_empty() {
            return Err(Status::Borrowed.into());
        }
        if self.loan.is_some() { Err(Status::Loaned.into()) } else { Ok(()) }
    }

    /// Takes the port out.
    pub(crate) fn take(&mut self) -> Result<MessagePort, Failure> {
        self.may_leave()?;
        match std::mem::replace(&mut self.whose, Whose::Away) {
            Whose::Ours(port) => Ok(port),
            // Not reached.
            Whose::In(_) | Whose::Away => Err(Status::Internal.into()),
        }
    }

    /// Puts in what was taken out.
    pub(crate) fn put_back(&mut self, port: MessagePort) {
        self.whose = Whose::Ours(port);
    }

    pub(crate) fn join(&mut self, membership: Membership) {
        self.whose = Whose::In(membership);
    }

    /// Keeps room that was reserved on the port beside it; gives its number.
    ///
    /// # Safety
    ///
    /// A3: it was reserved on this very port.
    pub(crate) unsafe fn lend(&mut self, loan: Loan<'_>) -> u64 {
        // SAFETY: A3: it is gone before the port is.
        let loan = unsafe { std::mem::transmute::<Loan<'_>, Loan<'static>>(loan) };
        self.loan = Some(loan);
        self.loans += 1;
        self.loans
    }
}

/// Takes the handle from a port that is gone: its set has told the end, or is closed. Another thread may be inside for a
/// moment, to find that the port is a member.
pub(crate) fn spend(id: u64) {
    if let Some(visit) = enter_member(id) {
        drop(visit.leave(Gone::Closed));
    }
}

/// Enters a member, in which nobody waits.
pub(crate) fn enter_member(id: u64) -> Option<Visit<Port, Ending>> {
    loop {
        match PORTS.enter(id) {
            Ok(visit) => return Some(visit),
            Err(Failure { status: Status::Busy, .. }) => std::thread::yield_now(),
            Err(_) => return None,
        }
    }
}
