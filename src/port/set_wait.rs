//! How a set waits: it spins over what is warm, has all lie down, and sleeps on the epoll.

use std::hash::Hash;
use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use crate::barrier;
use crate::line::{BLOCKED_WAIT, Heard};
use crate::sleep::take_back_all;
use crate::sync::spin_loop;

use super::endpoint::UNFENCED_DELAY;
use super::set::{BELL, PortSet};
use super::set_events::{Member, State};
use super::spin::Patience;
use super::wait::{LINE_LOOK, QUICK_LOOKS, is_past};

/// Turns that may go by, while there is always something to do, before those that sleep are asked about.
const TURNS: u32 = 64;
/// Turns that may go by before it is asked whether they have lasted long: the time costs something, too.
const TIMED_TURNS: u32 = 4;
/// Waits without a message after which a member is no longer looked at.
const WARM_FOR: u64 = 8;
/// What the kernel tells at once.
const TOLD: usize = 256;
/// The longest sleep of one call: more than this the kernel may not be able to count.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

impl<K: Clone + Eq + Hash> PortSet<K> {
    /// Waits until there is something to tell, or a handle wakes the set.
    pub(super) fn wait_for_news(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.begin_wait()?;
        self.turns += 1;
        let is_timed = self.turns.is_multiple_of(TIMED_TURNS);
        if self.turns > TURNS || is_timed && self.asked_at.elapsed() >= LINE_LOOK {
            self.ask(Some(Duration::ZERO))?;
            self.look_at_warm();
        }
        self.settle();
        while !self.has_news() && !self.spin(deadline)? && !self.sleep(deadline)? {
            if is_past(deadline) {
                break;
            }
        }
        Ok(())
    }

    /// Looks what there is to tell, without waiting.
    pub(super) fn look_for_news(&mut self) -> io::Result<()> {
        self.begin_wait()?;
        self.ask(Some(Duration::ZERO))?;
        self.obey();
        self.settle();
        self.look_at_warm();
        Ok(())
    }

    pub(super) fn begin_wait(&mut self) -> io::Result<()> {
        if !self.shared.is_original() {
            return Err(Errno::BADF.into());
        }
        self.let_ended_go();
        self.is_armed = false;
        self.waits += 1;
        Ok(())
    }

    /// Whether a warm member has something.
    pub(super) fn look_at_warm(&mut self) -> bool {
        let (members, epoll) = (&self.members, &self.epoll);
        let before = self.ready.len();
        let ready = &mut self.ready;
        self.warm.retain(|index| {
            let Some(member) = members.get(*index) else { return false };
            let is_warm = member.is(State::Warm); // else its line was faster
            let has_next = is_warm && member.port.receiver.has_next();
            if has_next && member.is_paused.get() {
                member.stall(epoll, *index);
            } else if has_next {
                member.state.set(State::Ready);
                ready.push_back(*index);
            }
            let stays = is_warm && !has_next;
            member.in_warm.set(stays);
            stays
        });
        self.ready.len() > before
    }

    /// Looks at warm members for a while. True if there is something to tell.
    pub(super) fn spin(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let patience = if self.pays_to_spin() { self.spin.patience() } else { Patience::None };
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
        let start = Instant::now();
        loop {
            for _ in 0..QUICK_LOOKS {
                if self.look_at_warm() {
                    self.spin.has_paid(start.elapsed());
                    return Ok(true);
                }
                spin_loop();
            }
            // Those that sleep, the ends of those that do not, and handles.
            if self.asked_at.elapsed() >= LINE_LOOK {
                self.ask(Some(Duration::ZERO))?;
            }
            if self.has_news() {
                return Ok(true);
            }
            if is_past(deadline) || !self.pays_to_spin() {
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

    /// Whether there is a warm member whose messages can be told.
    fn pays_to_spin(&self) -> bool {
        let mut warm = self.warm.iter().filter_map(|index| self.members.get(*index));
        warm.any(|member| !member.is_paused.get())
    }

    /// Has all that are warm lie down, looks once more, and sleeps. True if there is something to tell.
    pub(super) fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        if !self.try_rest() {
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

    /// Has all that are warm lie down, unless there is something to tell.
    pub(super) fn try_rest(&mut self) -> bool {
        self.demand(u64::MAX);
        self.lie_down(u64::MAX);
        let has_news = self.has_news();
        if !has_news && self.is_blocked {
            // The kernel would be asked again and again, until this process has a descriptor to spare.
            std::thread::sleep(BLOCKED_WAIT);
        }
        !has_news
    }

    /// Has those lie down that nothing came to in the last waits: each look at what is warm costs something.
    pub(super) fn settle(&mut self) {
        let lately = self.waits.saturating_sub(WARM_FOR);
        if self.tired(lately).next().is_some() {
            self.demand(lately);
            self.lie_down(lately);
        }
    }

    /// Warm members to which nothing came since that wait.
    fn tired(&self, since: u64) -> impl Iterator<Item = &Member<K>> {
        let warm = self.warm.iter().filter_map(|index| self.members.get(*index));
        warm.map(|member| &**member).filter(move |member| member.active_at.get() < since)
    }

    /// Takes back what tired members have promised if they stream: one barrier for all of them.
    fn demand(&self, since: u64) {
        let streamed = self.tired(since).map(|member| member.port.receiver.must_demand());
        if !take_back_all(streamed, barrier::demand) {
            // Longer than what they have stored, or posters have, may stay unseen.
            std::thread::sleep(UNFENCED_DELAY);
        }
    }

    /// Has tired members lie down.
    fn lie_down(&mut self, since: u64) {
        let (members, ready, cooling) = (&self.members, &mut self.ready, &mut self.cooling);
        self.warm.retain(|index| {
            let Some(member) = members.get(*index) else { return false };
            let is_warm = member.is(State::Warm);
            let stays = is_warm && member.active_at.get() >= since;
            member.in_warm.set(stays);
            if stays || !is_warm {
                return stays;
            }
            let receiver = &member.port.receiver;
            if receiver.try_lie_down() {
                member.state.set(State::Asleep);
                let has_memory = receiver.beyond().cools_at().is_some();
                if has_memory && !member.in_cooling.replace(true) {
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
            let Some(member) = members.get(*index) else { return false };
            let receiver = &member.port.receiver;
            // Who is at work again is listed when it lies down.
            let is_asleep = member.is(State::Asleep);
            let cools_at = receiver.beyond().cools_at().filter(|_| is_asleep);
            let is_time = is_past(cools_at);
            if cools_at.is_some() {
                receiver.cool(is_time);
            }
            let stays = is_asleep && receiver.beyond().cools_at().is_some();
            member.in_cooling.set(stays);
            stays
        });
    }

    fn ask_until(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.ask(deadline.map(|at| at.saturating_duration_since(Instant::now())))
    }

    /// Asks the kernel which lines have something to say; sleeps so long for the first one.
    pub(super) fn ask(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| timeout.min(LONGEST_SLEEP).try_into().ok());
        let mut told = [MaybeUninit::<epoll::Event>::uninit(); TOLD];
        let told = epoll::wait(&self.epoll, &mut told, timeout.as_ref());
        (self.turns, self.asked_at, self.is_blocked) = (0, Instant::now(), false);
        let told = match told {
            Ok((told, _)) => told,
            Err(Errno::INTR) => return Ok(()),
            Err(refused) => return Err(refused.into()),
        };
        for event in told {
            match event.data.u64() {
                BELL => {
                    for index in self.shared.clear() {
                        self.wake(index, epoll::EventFlags::empty());
                    }
                }
                index => self.wake(index as usize, event.flags),
            }
        }
        Ok(())
    }

    /// Takes what a member's line says, and has it looked at.
    fn wake(&mut self, index: usize, flags: epoll::EventFlags) {
        let Some(member) = self.members.get(index) else { return };
        let receiver = &member.port.receiver;
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::RDHUP) {
            // It need not be the line that says so: what cannot be taken may lie before its end.
            receiver.hold().endpoint.note_hang_up();
        }
        self.is_blocked |= receiver.hear() == Heard::Blocked;
        if member.is(State::Asleep) {
            receiver.get_up(true);
        }
        // (One that is stalled and was closed here has its end to tell.)
        let is_closed = member.is(State::Stalled) && receiver.hold().endpoint.own_end().is_some();
        if is_closed || matches!(member.state.get(), State::Asleep | State::Warm) {
            member.state.set(State::Ready);
            self.ready.push_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageChannel;

    #[test]
    fn who_has_memory_to_let_go_is_listed_once() {
        let mut set = PortSet::new().unwrap();
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        set.insert((), port2).unwrap();
        port1.post_bytes(&vec![7; 1 << 20]).unwrap();
        for _ in 0..10 {
            port1.post_bytes(b"and some more").unwrap();
            assert!(set.wait().unwrap().count() > 0);
            assert!(set.arm().unwrap());
        }
        assert_eq!(set.cooling.len(), 1);
        // Longer than it keeps what is not used.
        assert_eq!(set.wait_timeout(Duration::from_millis(300)).unwrap().count(), 0);
        assert!(set.cooling.is_empty());
    }
}
