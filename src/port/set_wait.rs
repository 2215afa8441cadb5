//! How a set waits: it spins over what is warm, has all lie down, and sleeps on the epoll.

use std::collections::VecDeque;
use std::hash::Hash;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::barrier;
use crate::sync::spin_loop;

use super::endpoint::UNFENCED_DELAY;
use super::message_port::MessagePort;
use super::set::{BELL, PortSet};
use super::set_events::{Member, Members, State};
use super::spin::Patience;
use super::wait::{LINE_LOOK, QUICK_LOOKS, is_past};

/// Waits without a message after which a member is no longer looked at.
const WARM_FOR: u64 = 8;
/// What the kernel tells at once.
const TOLD: usize = 256;

impl<K: Clone + Eq + Hash> PortSet<K> {
    /// Whether a warm member has something.
    pub(super) fn look_at_warm(&mut self) -> bool {
        let members = &self.members;
        let before = self.ready.len();
        let ready = &mut self.ready;
        self.warm.retain(|index| {
            let Some(member) = members.get(*index).filter(|member| member.is(State::Warm)) else {
                return false; // its line was faster
            };
            let has_next = member.port.receiver.has_next();
            if has_next {
                member.state.set(State::Ready);
                ready.push_back(*index);
            }
            !has_next
        });
        self.ready.len() > before
    }

    /// Looks at warm members for a while. True if there is something to tell.
    pub(super) fn spin(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let patience = if self.warm.is_empty() { Patience::None } else { self.spin.patience() };
        if patience == Patience::None {
            return Ok(false);
        }
        for _ in 0..QUICK_LOOKS {
            if self.look_at_warm() {
                self.spin.has_paid_at_once();
                return Ok(true);
            }
            spin_loop();
        }
        let (start, mut asked) = (Instant::now(), Instant::now());
        loop {
            for _ in 0..QUICK_LOOKS {
                if self.look_at_warm() {
                    self.spin.has_paid(start.elapsed());
                    return Ok(true);
                }
                spin_loop();
            }
            // Those that sleep, the ends of those that do not, and handles.
            if asked.elapsed() >= LINE_LOOK {
                self.ask(Some(Duration::ZERO))?;
                asked = Instant::now();
            }
            if self.has_news() {
                return Ok(true);
            }
            if is_past(deadline) {
                return Ok(false);
            }
            if let Patience::For(limit) = patience
                && start.elapsed() >= limit
            {
                self.spin.was_vain();
                return Ok(false);
            }
        }
    }

    /// Has all that are warm lie down, looks once more, and sleeps. True if there is something to tell.
    pub(super) fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        if !self.demand(u64::MAX) {
            // Nobody can be sure that posters know: sleep shortly, this once, and look again.
            let soon = Instant::now() + UNFENCED_DELAY;
            self.ask_until(Some(deadline.map_or(soon, |at| at.min(soon))))?;
            return Ok(self.look_at_warm() || self.has_news());
        }
        self.lie_down(u64::MAX);
        if self.has_news() {
            return Ok(true);
        }
        self.sleeps += 1;
        let cools_at = self.cools_at();
        self.ask_until(deadline.into_iter().chain(cools_at).min())?;
        if is_past(cools_at) {
            self.cool();
        }
        Ok(self.has_news())
    }

    /// Has those lie down that nothing came to in the last waits: each look at what is warm costs something.
    pub(super) fn settle(&mut self) {
        let lately = self.waits.saturating_sub(WARM_FOR);
        if self.tired(lately).next().is_some() && self.demand(lately) {
            self.lie_down(lately);
        }
    }

    /// Warm members to which nothing came since that wait.
    fn tired(&self, since: u64) -> impl Iterator<Item = &Member<K>> {
        let warm = self.warm.iter().filter_map(|index| self.members.get(*index));
        warm.map(|member| &**member).filter(move |member| member.active_at.get() < since)
    }

    /// Takes back what tired members have promised if they stream: one barrier for all of them. False if it cannot
    /// be had.
    pub(super) fn demand(&self, since: u64) -> bool {
        let must_demand =
            self.tired(since).fold(false, |must, member| must | member.port.receiver.must_demand());
        !must_demand || barrier::demand()
    }

    /// Has tired members lie down.
    pub(super) fn lie_down(&mut self, since: u64) {
        let (members, ready, cooling) = (&self.members, &mut self.ready, &mut self.cooling);
        self.warm.retain(|index| {
            let Some(member) = members.get(*index).filter(|member| member.is(State::Warm)) else {
                return false;
            };
            if member.active_at.get() >= since {
                return true;
            }
            let receiver = &member.port.receiver;
            if receiver.try_lie_down() {
                member.state.set(State::Asleep);
                if receiver.beyond().cools_at().is_some() {
                    cooling.push(*index);
                }
            } else {
                member.state.set(State::Ready);
                ready.push_back(*index);
            }
            false
        });
    }

    /// When the first of those that sleep has memory to let go.
    fn cools_at(&self) -> Option<Instant> {
        let cooling = self.cooling.iter().filter_map(|index| self.members.get(*index));
        cooling.filter_map(|member| member.port.receiver.beyond().cools_at()).min()
    }

    fn cool(&mut self) {
        let members = &self.members;
        self.cooling.retain(|index| {
            let Some(member) = members.get(*index).filter(|member| member.is(State::Asleep)) else {
                return false; // it is at work again
            };
            let receiver = &member.port.receiver;
            let is_time = is_past(receiver.beyond().cools_at());
            receiver.cool(is_time);
            !is_time
        });
    }

    fn ask_until(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.ask(deadline.map(|at| at.saturating_duration_since(Instant::now())))
    }

    /// Asks the kernel which lines have something to say; sleeps so long for the first one.
    pub(super) fn ask(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.turns = 0;
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut told = [MaybeUninit::<epoll::Event>::uninit(); TOLD];
        let told = match epoll::wait(&self.epoll, &mut told, timeout.as_ref()) {
            Ok((told, _)) => told,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(refused) => return Err(refused.into()),
        };
        for event in told {
            match event.data.u64() {
                BELL => {
                    for index in self.shared.clear() {
                        wake(&self.members, &mut self.ready, index);
                    }
                }
                index => wake(&self.members, &mut self.ready, index as usize),
            }
        }
        Ok(())
    }
}

/// Has a member that sleeps get up, and takes what its line says.
fn wake<K>(members: &Members<K>, ready: &mut VecDeque<usize>, index: usize) {
    let Some(member) = members.get(index) else { return };
    let receiver = &member.port.receiver;
    receiver.hear();
    if member.is(State::Asleep) {
        receiver.get_up(true);
    }
    if matches!(member.state.get(), State::Asleep | State::Warm) {
        member.state.set(State::Ready);
        ready.push_back(index);
    }
}

pub(super) fn watch(epoll: &OwnedFd, port: &MessagePort, index: usize) -> io::Result<()> {
    // What has no line any more has ended, which the first look tells.
    let Some(line) = port.receiver.hold().line() else { return Ok(()) };
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    Ok(epoll::add(epoll, line.as_fd()?, epoll::EventData::new_u64(index as u64), flags)?)
}

pub(super) fn forget(epoll: &OwnedFd, port: &MessagePort) {
    port.endpoint().listen(None);
    if let Some(line) = port.receiver.hold().line()
        && let Ok(fd) = line.as_fd()
    {
        // Fails only where it was never watched.
        let _ = epoll::delete(epoll, fd);
    }
}
