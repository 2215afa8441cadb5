//! What the handle of a port leads to: the port, with what was received on it and is still held, and the room that is
//! reserved.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroport::{
    Closer, Drain, Loan, Message, MessagePort, PeerState, Receiver, RecvError, Sender, Usual,
};

use crate::bias;
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
    /// Whether it has: of all handles that the port ever has.
    is_ended: Arc<AtomicBool>,
}

impl Ending {
    /// For another handle of the same port.
    pub(crate) fn copy(&self) -> Self {
        Self { closer: self.closer.clone(), is_ended: self.is_ended.clone() }
    }

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
#[repr(u8)] // so that one comparison tells
enum Whose {
    Ours(MessagePort),
    /// The half that posts.
    Sends(Sender),
    /// The half that receives.
    Receives(Receiver),
    /// A set or a loop has it.
    In(Membership),
    /// It is being given away, split or joined.
    Away,
}

impl Whose {
    #[inline(always)]
    fn receiver(&self) -> Result<Receiving<'_>, Failure> {
        match self {
            Self::Ours(port) => Ok(Receiving::Port(port)),
            Self::Receives(half) => Ok(Receiving::Half(half)),
            Self::Sends(_) => Err(Status::Half.into()),
            Self::In(_) => Err(Status::Member.into()),
            Self::Away => Err(Status::Internal.into()),
        }
    }
}

/// Waits a moment for what a port receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soon<'p>(&'p Whose);

impl Soon<'_> {
    /// As [`Receiver::sees_soon`].
    #[inline(never)]
    pub(crate) fn sees(self, waits: bool) -> bool {
        match self.0 {
            Whose::Ours(port) => port.sees_soon(waits),
            Whose::Receives(half) => half.sees_soon(waits),
            _ => false,
        }
    }
}

/// What receives: a port, or its half.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Receiving<'p> {
    Port(&'p MessagePort),
    Half(&'p Receiver),
}

impl<'p> Receiving<'p> {
    pub(crate) fn recv(self) -> Result<Message<'p>, RecvError> {
        match self {
            Self::Port(port) => port.recv(),
            Self::Half(half) => half.recv(),
        }
    }

    pub(crate) fn try_recv(self) -> Result<Message<'p>, RecvError> {
        match self {
            Self::Port(port) => port.try_recv(),
            Self::Half(half) => half.try_recv(),
        }
    }

    pub(crate) fn recv_timeout(self, timeout: Duration) -> Result<Message<'p>, RecvError> {
        match self {
            Self::Port(port) => port.recv_timeout(timeout),
            Self::Half(half) => half.recv_timeout(timeout),
        }
    }

    #[inline(always)]
    pub(crate) fn as_receiver(self) -> &'p Receiver {
        match self {
            Self::Port(port) => port.as_receiver(),
            Self::Half(half) => half,
        }
    }

    pub(crate) fn drain(self) -> Drain<'p> {
        match self {
            Self::Port(port) => port.drain(),
            Self::Half(half) => half.drain(),
        }
    }

    pub(crate) fn pollable(self) -> io::Result<BorrowedFd<'p>> {
        match self {
            Self::Port(port) => port.pollable(),
            Self::Half(half) => half.pollable(),
        }
    }

    pub(crate) fn arm(self) -> io::Result<bool> {
        match self {
            Self::Port(port) => port.arm(),
            Self::Half(half) => half.arm(),
        }
    }

    pub(crate) fn disarm(self) {
        match self {
            Self::Port(port) => port.disarm(),
            Self::Half(half) => half.disarm(),
        }
    }

    pub(crate) fn peer_state(self) -> PeerState {
        match self {
            Self::Port(port) => port.peer_state(),
            Self::Half(half) => half.peer_state(),
        }
    }
}

/// Gives a port a handle. Closes it if there are too many.
pub(crate) fn hold(port: MessagePort) -> Result<u64, Failure> {
    bias::may_demand();
    let ending = Ending { closer: port.closer(), is_ended: Arc::default() };
    PORTS.insert(Port::new(Whose::Ours(port)), ending)
}

/// A new handle, for what another one leads to.
pub(crate) fn hold_later(from: u64) -> Result<Visit<Port, Ending>, Failure> {
    let ending = PORTS.at_any_time(from, Ending::copy)?;
    PORTS.enter(PORTS.insert(Port::new(Whose::Away), ending)?)
}

impl Port {
    fn new(whose: Whose) -> Self {
        Self { held: Held::new(), loan: None, loans: 0, whose }
    }

    /// The port, if it is one, and no set or loop has it.
    pub(crate) fn ours(&self) -> Result<&MessagePort, Failure> {
        match &self.whose {
            Whose::Ours(port) => Ok(port),
            Whose::Sends(_) | Whose::Receives(_) => Err(Status::Half.into()),
            Whose::In(_) => Err(Status::Member.into()),
            Whose::Away => Err(Status::Internal.into()),
        }
    }

    /// What posts, if no set or loop has the port.
    #[inline(always)]
    pub(crate) fn sender(&self) -> Result<&Sender, Failure> {
        match &self.whose {
            Whose::Ours(port) => Ok(port.as_sender()),
            Whose::Sends(half) => Ok(half),
            Whose::Receives(_) => Err(Status::Half.into()),
            Whose::In(_) => Err(Status::Member.into()),
            Whose::Away => Err(Status::Internal.into()),
        }
    }

    /// What receives.
    pub(crate) fn receiver(&self) -> Result<Receiving<'_>, Failure> {
        self.whose.receiver()
    }

    /// As [`receiving`](Self::receiving), where messages may be taken as most are.
    #[inline(always)]
    pub(crate) fn receiving_at_once(&mut self) -> Option<(Usual<'_>, Soon<'_>, &mut Held)> {
        let receiver = match &self.whose {
            Whose::Ours(port) => port.as_receiver(),
            Whose::Receives(half) => half,
            _ => return None,
        };
        Some((receiver.usual()?, Soon(&self.whose), &mut self.held))
    }

    /// What receives, and where to keep what it does.
    #[inline(always)]
    pub(crate) fn receiving(&mut self) -> Result<(Receiving<'_>, &mut Held), Failure> {
        Ok((self.whose.receiver()?, &mut self.held))
    }

    /// Does something with what posts, wherever it is.
    #[inline(always)]
    pub(crate) fn sending<R>(
        &self,
        id: u64,
        with: impl FnOnce(&Sender) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        match &self.whose {
            Whose::In(membership) => membership.sending(id, with),
            _ => with(self.sender()?),
        }
    }

    pub(crate) fn membership(&self) -> Option<Membership> {
        match &self.whose {
            Whose::In(membership) => Some(*membership),
            _ => None,
        }
    }

    /// Whether the port could be taken out whole: nobody may borrow it.
    pub(crate) fn may_leave(&self) -> Result<(), Failure> {
        self.ours()?;
        self.is_free()
    }

    /// Whether nobody borrows what is here.
    pub(crate) fn is_free(&self) -> Result<(), Failure> {
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
            _ => Err(Status::Internal.into()),
        }
    }

    /// Takes the halves out of two, if those have them.
    pub(crate) fn take_halves(one: &mut Self, other: &mut Self) -> Option<(Sender, Receiver)> {
        let take = |port: &mut Self| std::mem::replace(&mut port.whose, Whose::Away);
        match (take(one), take(other)) {
            (Whose::Sends(sender), Whose::Receives(receiver)) => Some((sender, receiver)),
            (first, second) => {
                (one.whose, other.whose) = (first, second);
                None
            }
        }
    }

    pub(crate) fn put_sender(&mut self, half: Sender) {
        self.whose = Whose::Sends(half);
    }

    pub(crate) fn put_receiver(&mut self, half: Receiver) {
        self.whose = Whose::Receives(half);
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
        match PORTS.enter_to_give_back(id) {
            Ok(visit) => return Some(visit),
            Err(Failure { status: Status::Busy, .. }) => std::thread::yield_now(),
            Err(_) => return None,
        }
    }
}
