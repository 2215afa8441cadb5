//! `zp_loop_…`: what a set tells goes to handlers, one thing after the other.
//!
//! While a handler runs nothing is entered: it may call whatever it likes, also on the loop and its members. One message
//! is taken at a time, so what is closed, removed or paused by a handler gets nothing after that one.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::boundary::{call, place};
use crate::handlers::{CHandlers, Listener, listener};
use crate::member::{self, Anytime, Gathering, LOOPS, Told};
use crate::options::{milliseconds, strategy};
use crate::port::CPort;
use crate::status::{Failure, Status};
use crate::table::Visit;

/// `zp_loop`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CLoop {
    /// A number that means something to this library only.
    pub id: u64,
}

/// What `zp_loop_run_once` tells at most.
const TURN: usize = 64;
/// A wait that asks the kernel only where nothing is known to be there.
const AT_ONCE: Duration = Duration::from_nanos(1);
/// How long a run rests when all it could tell was a failure.
const REST: Duration = Duration::from_millis(1);

/// Makes a loop.
///
/// # Safety
///
/// A1: `events` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_loop_new(events: *mut CLoop) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(events) }?.write(CLoop { id: 0 });
        place.id = member::new(&LOOPS, Some(1))?;
        Ok(())
    })
}

/// Takes a port in.
///
/// # Safety
///
/// A1: `handlers` is null or as large as it says, and good to be called with `user`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_loop_insert(
    events: CLoop,
    port: CPort,
    handlers: *const CHandlers,
    user: *mut c_void,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let listener = unsafe { listener(handlers, user) }?;
        member::insert(&LOOPS, events.id, port.id, user, Some(listener)).map_err(
            |(failure, listener)| {
                listener.into_iter().for_each(Listener::forget);
                failure
            },
        )
    })
}

/// Takes a port out.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_remove(events: CLoop, port: CPort) -> Status {
    call(|| member::remove(&LOOPS, events.id, port.id))
}

/// Has the messages of a port wait.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_pause(events: CLoop, port: CPort) -> Status {
    call(|| member::pause(&LOOPS, events.id, port.id, true))
}

/// Has them told again.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_resume(events: CLoop, port: CPort) -> Status {
    call(|| member::pause(&LOOPS, events.id, port.id, false))
}

/// Calls handlers until the loop is stopped or has no port left.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_run(events: CLoop) -> Status {
    call(|| {
        let run = Run::begin(events.id)?;
        while run.goes_on()? {
            run.tell_next(None)?;
        }
        Ok(())
    })
}

/// The same, at most so long.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_run_timeout(events: CLoop, timeout_ms: u32) -> Status {
    call(|| {
        let deadline = Instant::now() + milliseconds(timeout_ms);
        let run = Run::begin(events.id)?;
        while run.goes_on()? {
            let left = deadline.saturating_duration_since(Instant::now());
            run.tell_next(Some(left))?;
            if left.is_zero() {
                return run.outcome();
            }
        }
        Err(Status::Finished.into())
    })
}

/// One wait, and what there is then.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_run_once(events: CLoop) -> Status {
    call(|| turn(events.id, None))
}

/// What there is now.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_run_ready(events: CLoop) -> Status {
    call(|| turn(events.id, Some(Duration::ZERO)))
}

fn turn(id: u64, timeout: Option<Duration>) -> Result<(), Failure> {
    let run = Run::begin(id)?;
    let mut timeout = timeout;
    for _ in 0..TURN {
        if !run.goes_on()? {
            return Err(Status::Finished.into());
        }
        if !run.tell_next(timeout)? {
            break;
        }
        timeout = Some(AT_ONCE);
    }
    run.outcome()
}

/// One call that runs a loop; there is one at a time.
struct Run {
    id: u64,
}

impl Run {
    fn begin(id: u64) -> Result<Self, Failure> {
        let mut visit = LOOPS.enter(id)?;
        if std::mem::replace(&mut visit.is_running, true) {
            return Err(Status::Busy.into());
        }
        Ok(Self { id })
    }

    /// Enters the loop, where another thread may be for a moment.
    fn enter(&self) -> Result<Visit<Gathering, Anytime>, Failure> {
        loop {
            match LOOPS.enter(self.id) {
                Err(Failure { status: Status::Busy, .. }) => std::thread::yield_now(),
                entered => return entered,
            }
        }
    }

    /// Whether there is something to go on for. That it was stopped is heard once.
    fn goes_on(&self) -> Result<bool, Failure> {
        let is_stopped = LOOPS.at_any_time(self.id, Anytime::take_stop)?;
        Ok(!is_stopped && !self.enter()?.set.is_empty())
    }

    fn outcome(&self) -> Result<(), Failure> {
        if self.goes_on()? { Ok(()) } else { Err(Status::Finished.into()) }
    }

    /// Tells one thing, for which it waits. False if there was none.
    fn tell_next(&self, timeout: Option<Duration>) -> Result<bool, Failure> {
        let mut next = None;
        let mut visit = self.enter()?;
        visit.wait(self.id, timeout, |told| {
            next = Some(told);
            false
        })?;
        let Some(told) = next else { return Ok(false) };
        let port = match &told {
            Told::Message(key, _) | Told::Closed(key, ..) | Told::Failed(key, _) => key.port,
        };
        let listener = match &told {
            Told::Closed(..) => visit.listeners.remove(&port),
            _ => visit.listeners.get(&port).cloned(),
        };
        if let Told::Message(_, message) = &told {
            visit.current = message.opaque[1];
        }
        drop(visit);
        self.tell(port, told, listener.as_ref())?;
        // Who has removed it inside, or its end, is followed by the notice.
        drop(listener);
        Ok(true)
    }

    fn tell(&self, port: u64, told: Told, listener: Option<&Arc<Listener>>) -> Result<(), Failure> {
        match told {
            Told::Message(_, mut message) => {
                listener.inspect(|listener| {
                    listener.is_failing(false);
                    listener.on_message(port, &mut message);
                });
                let mut visit = self.enter()?;
                let current = std::mem::take(&mut visit.current);
                if current != 0 {
                    // Fails if the handler has released it.
                    let _ = visit.held.release(current);
                }
            }
            // Who broke the protocol was not closed by us, though we closed this end.
            Told::Closed(_, zeroport::CloseReason::Closed, true) => {}
            Told::Closed(_, reason, _) => {
                listener.inspect(|listener| listener.on_close(port, reason.into()));
            }
            Told::Failed(_, failed) => {
                listener.filter(|listener| !listener.is_failing(true)).inspect(|listener| {
                    listener.on_error(port, failed.into());
                });
                // Else it would be told again and again, until this process has a descriptor to spare.
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Ok(mut visit) = self.enter() {
            visit.is_running = false;
        }
    }
}

/// Ends the run, from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_stop(events: CLoop) -> Status {
    call(|| LOOPS.at_any_time(events.id, Anytime::stop))
}

/// Ends a wait, from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_wake(events: CLoop) -> Status {
    call(|| LOOPS.at_any_time(events.id, Anytime::wake))
}

/// The descriptor of a loop.
///
/// # Safety
///
/// A1: `fd` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_loop_fd(events: CLoop, fd: *mut c_int) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(fd) }?.write(-1);
        *place = LOOPS.enter(events.id)?.set.as_fd().as_raw_fd();
        Ok(())
    })
}

/// Has the descriptor say when there is something.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_arm(events: CLoop) -> Status {
    call(|| {
        if LOOPS.at_any_time(events.id, Anytime::is_stopped)? {
            return Err(Status::Ready.into());
        }
        LOOPS.enter(events.id)?.arm()
    })
}

/// Chooses how the loop waits.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_set_wait(events: CLoop, wait: u32) -> Status {
    call(|| {
        LOOPS.enter(events.id)?.set.set_wait_strategy(strategy(wait)?);
        Ok(())
    })
}

/// Closes a loop and its members.
#[unsafe(no_mangle)]
pub extern "C" fn zp_loop_close(events: CLoop) -> Status {
    call(|| member::close_all(&LOOPS, events.id))
}
