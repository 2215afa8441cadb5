//! Ports that a set or a loop receives for.
//!
//! Inside a set the ports are the set's; what C holds is a handle that leads there. A call enters the set, and the port
//! within it, and nobody waits inside for either: who comes second is told that it is busy.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroport::{
    CloseReason, Event, InsertRefusal, MessagePort, PortSet, RecvError, Sender, SetHandle,
};

use crate::handlers::Listener;
use crate::held::Held;
use crate::holding::{self, PORTS};
use crate::message::CMessage;
use crate::port::wait_failure;
use crate::receive::keep;
use crate::status::{Failure, Status};
use crate::table::{Gone, Table, Visit};

pub(crate) type Gatherings = Table<Gathering, Anytime>;
/// All sets of this program.
pub(crate) static SETS: Gatherings = Table::new(5);
/// All loops.
pub(crate) static LOOPS: Gatherings = Table::new(6);

/// A set or a loop.
#[derive(Debug)]
pub(crate) struct Gathering {
    // In this order they are dropped (A3).
    pub(crate) held: Held,
    pub(crate) set: PortSet<Key>,
    /// Members whose end was told: the set drops them when it is next changed.
    ended: HashSet<u64>,
    /// Of a loop: who listens to which member.
    pub(crate) listeners: HashMap<u64, Arc<Listener>>,
    /// Of a loop: the number of the message that a handler is being told, or 0.
    pub(crate) current: u64,
    /// Of a loop: whether it runs.
    pub(crate) is_running: bool,
}

/// What any thread may use at any time.
#[derive(Debug)]
pub(crate) struct Anytime {
    handle: SetHandle<Key>,
    is_stopped: AtomicBool,
}

impl Anytime {
    pub(crate) fn wake(&self) {
        self.handle.wake();
    }

    pub(crate) fn stop(&self) {
        // Relaxed: says only that no more is to be done.
        self.is_stopped.store(true, Ordering::Relaxed);
        self.handle.wake();
    }

    /// Whether it was stopped, once.
    pub(crate) fn take_stop(&self) -> bool {
        self.is_stopped.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// A member: the handle of its port, and what the program wants to be told with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) port: u64,
    pub(crate) user: usize,
}

impl Key {
    fn of(port: u64) -> Self {
        Self { port, user: 0 }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.port.hash(state);
    }
}

/// Where a port is that a set or loop has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    /// The handle of the set or loop.
    of: u64,
}

impl Membership {
    /// Does something with the sending half of a member.
    pub(crate) fn sending<R>(
        self,
        port: u64,
        with: impl FnOnce(&Sender) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let visit = table_of(self.of)?.enter(self.of)?;
        with(visit.set.get(&Key::of(port)).ok_or(Status::Freed)?)
    }
}

fn table_of(id: u64) -> Result<&'static Gatherings, Failure> {
    let table = [&SETS, &LOOPS].into_iter().find(|table| table.is_of(id));
    table.ok_or_else(|| Status::BadHandle.into())
}

/// Does something with the messages that a set or loop holds.
pub(crate) fn with_held<R>(
    receiver: u64,
    with: impl FnOnce(&mut Held) -> Result<R, Failure>,
) -> Result<R, Failure> {
    with(&mut table_of(receiver)?.enter(receiver)?.held)
}

/// As [`with_held`], to release some.
pub(crate) fn with_held_to_release(
    receiver: u64,
    with: impl FnOnce(&mut Held) -> Result<(), Failure>,
) -> Result<(), Failure> {
    with(&mut table_of(receiver)?.enter_to_give_back(receiver)?.held)
}

/// Makes a set or loop, from each of whose members come so many messages at a time.
pub(crate) fn new(table: &'static Gatherings, batch: Option<usize>) -> Result<u64, Failure> {
    let mut set = PortSet::new().map_err(wait_failure)?;
    batch.into_iter().for_each(|batch| set.set_batch(batch));
    let anytime = Anytime { handle: set.handle(), is_stopped: AtomicBool::new(false) };
    let gathering = Gathering {
        held: Held::new(),
        set,
        ended: HashSet::new(),
        listeners: HashMap::new(),
        current: 0,
        is_running: false,
    };
    table.insert(gathering, anytime)
}

/// One thing that a wait tells.
pub(crate) enum Told {
    Message(Key, CMessage),
    /// The end of a channel, and whether this program has ended it itself.
    Closed(Key, CloseReason, bool),
    Failed(Key, RecvError),
}

impl Gathering {
    /// Before whatever makes the set drop members whose end was told (A3).
    fn may_change(&mut self) -> Result<(), Failure> {
        if self.ended.is_empty() {
            return Ok(());
        }
        if self.held.has_any_of(|member| self.ended.contains(&member)) {
            return Err(Status::Borrowed.into());
        }
        self.ended.clear();
        Ok(())
    }

    /// Tells what there is, once `wait` has it, until `tell` wants no more.
    pub(crate) fn wait(
        &mut self,
        id: u64,
        timeout: Option<Duration>,
        mut tell: impl FnMut(Told) -> bool,
    ) -> Result<(), Failure> {
        self.may_change()?;
        self.held.make_room()?;
        let events = match timeout {
            None => self.set.wait(),
            Some(Duration::ZERO) => self.set.poll(),
            Some(timeout) => self.set.wait_timeout(timeout),
        };
        let mut events = events.map_err(wait_failure)?;
        loop {
            if self.held.make_room().is_err() {
                return Ok(());
            }
            let Some((key, event)) = events.next() else { return Ok(()) };
            let told = match event {
                Event::Message(_, message) => {
                    // SAFETY: A3: it borrows a member, which the set drops only after `may_change`, or gives away after
                    // `take_out`.
                    Told::Message(key, unsafe { keep(id, message, &mut self.held, key.port) })
                }
                Event::Closed(reason) => {
                    self.ended.insert(key.port);
                    let is_ours = PORTS.at_any_time(key.port, holding::Ending::is_ended);
                    holding::spend(key.port);
                    Told::Closed(key, reason, is_ours.unwrap_or(false))
                }
                Event::Failed(_, failed) => Told::Failed(key, failed),
                // Only handles ask for such, and ours only wake.
                _ => continue,
            };
            if !tell(told) {
                return Ok(());
            }
        }
    }

    /// The descriptor says from now on when there is something.
    pub(crate) fn arm(&mut self) -> Result<(), Failure> {
        self.may_change()?;
        let is_armed = self.set.arm().map_err(wait_failure)?;
        if is_armed { Ok(()) } else { Err(Status::Ready.into()) }
    }

    /// Takes a member out of the set. The message of it that a handler is being told goes before.
    fn take_out(&mut self, port: u64) -> Result<MessagePort, Failure> {
        if self.current != 0 && self.held.is_of(self.current, port) {
            self.held.release(std::mem::take(&mut self.current))?;
        }
        self.may_change()?;
        if self.held.has_any_of(|member| member == port) {
            return Err(Status::Borrowed.into());
        }
        self.set.remove(&Key::of(port)).ok_or_else(|| Status::Internal.into())
    }
}

/// Takes a port in.
pub(crate) fn insert(
    table: &'static Gatherings,
    id: u64,
    port: u64,
    user: *mut c_void,
    listener: Option<Listener>,
) -> Result<(), (Failure, Option<Listener>)> {
    let inserting = || {
        let mut visit = table.enter(id)?;
        visit.may_change()?;
        let mut entering = PORTS.enter(port)?;
        let taken = entering.take()?;
        let key = Key { port, user: user.expose_provenance() };
        match visit.set.insert(key, taken) {
            Ok(()) => entering.join(Membership { of: id }),
            Err(mut refused) => {
                let source = std::mem::replace(&mut refused.source, InsertRefusal::Taken);
                entering.put_back(refused.into_port());
                return Err(refusal(source));
            }
        }
        Ok(visit)
    };
    match inserting() {
        Err(failure) => Err((failure, listener)),
        Ok(mut visit) => {
            if let Some(listener) = listener {
                if !listener.hears_messages() {
                    visit.set.pause(&key(port));
                }
                visit.listeners.insert(port, Arc::new(listener));
            }
            Ok(())
        }
    }
}

fn key(port: u64) -> Key {
    Key::of(port)
}

fn refusal(refused: InsertRefusal) -> Failure {
    match refused {
        InsertRefusal::Detached => Status::Detached.into(),
        InsertRefusal::Os(error) => Failure::system(&error),
        _ => Status::Internal.into(),
    }
}

type Both = (Visit<Gathering, Anytime>, Visit<holding::Port, holding::Ending>);

/// Enters a set or loop, and one of its members.
fn enter_both(table: &'static Gatherings, id: u64, port: u64) -> Result<Both, Failure> {
    is_in((table.enter(id)?, PORTS.enter(port)?), id)
}

fn is_in((visit, member): Both, id: u64) -> Result<Both, Failure> {
    match member.membership() {
        Some(membership) if membership.of == id => Ok((visit, member)),
        _ => Err(Status::Stranger.into()),
    }
}

/// Takes a port out: it is a port as before.
pub(crate) fn remove(table: &'static Gatherings, id: u64, port: u64) -> Result<(), Failure> {
    let (mut visit, mut leaving) = enter_both(table, id, port)?;
    leaving.put_back(visit.take_out(port)?);
    let listener = visit.listeners.remove(&port);
    drop((leaving, visit));
    // It tells the program, which may then call whatever it likes.
    drop(listener);
    Ok(())
}

/// Closes a member.
pub(crate) fn close(membership: Membership, port: u64) -> Result<(), Failure> {
    let Membership { of } = membership;
    let both = (table_of(of)?.enter_to_give_back(of)?, PORTS.enter_to_give_back(port)?);
    let (mut visit, leaving) = is_in(both, of)?;
    let closing = visit.take_out(port)?;
    drop(leaving.leave(Gone::Closed));
    let listener = visit.listeners.remove(&port);
    drop(visit);
    closing.close();
    // As in `remove`.
    drop(listener);
    Ok(())
}

/// Pauses or resumes a member.
pub(crate) fn pause(
    table: &'static Gatherings,
    id: u64,
    port: u64,
    is_paused: bool,
) -> Result<(), Failure> {
    let (mut visit, _member) = enter_both(table, id, port)?;
    let key = key(port);
    match is_paused {
        true => visit.set.pause(&key),
        // Without a handler messages wait.
        false if visit.listeners.get(&port).is_none_or(|listener| listener.hears_messages()) => {
            visit.set.resume(&key)
        }
        false => true,
    };
    Ok(())
}

/// Closes a set or loop with all its members.
pub(crate) fn close_all(table: &'static Gatherings, id: u64) -> Result<(), Failure> {
    let visit = table.enter_to_give_back(id)?;
    if visit.is_running {
        return Err(Status::Busy.into());
    }
    if !visit.held.is_empty() {
        return Err(Status::Borrowed.into());
    }
    let Gathering { set, listeners, .. } = *visit.leave(Gone::Closed);
    set.keys().for_each(|key| holding::spend(key.port));
    drop(set);
    // As in `remove`.
    drop(listeners);
    Ok(())
}
