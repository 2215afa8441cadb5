//! How a receiver looks for the next message, and waits for it.

use std::time::Instant;

use crate::error::{CloseReason, RecvError};
use crate::line::Heard;
use crate::ring::Found;
use crate::sync::spin_loop;

use super::message::Message;
use super::receive::Receiver;
use super::wait::{Look, Place, Waits, is_past};

/// Bytes read without a wait that make a burst, and pauses at its end.
const BURST: u64 = 512;
const BURST_PAUSES: u32 = 32;
/// More links than a queue within any limit has without a record between them.
const MAX_LINKS: u32 = 1024;

impl Receiver {
    /// Looks at the ring; a thorough look tells the end of the channel: only after the last message.
    fn look(&self, how: Look) -> Option<Result<(), RecvError>> {
        if how == Look::Thorough {
            // First: it may hear the bell of a message, which is found then.
            self.drop_left_behind();
        }
        let found = self.found();
        if found.is_some() || how == Look::Quick {
            self.queue().first().prefetch();
            return found;
        }
        // Our own end is asked last, as in `Ends::either`.
        let peer_end = self.hold().endpoint.peer_end();
        if let Err(end) = self.check() {
            return Some(Err(end));
        }
        let reason = peer_end?;
        // All that the other side published, it published before it was gone.
        Some(self.found().unwrap_or_else(|| Err(self.report(reason))))
    }

    /// Whether there is a record; follows links to it. (The record itself would be copied about in memory:
    /// who hands it out looks again.)
    #[inline(never)]
    pub(super) fn found(&self) -> Option<Result<(), RecvError>> {
        for _ in 0..MAX_LINKS {
            let found = self.queue().peek();
            if self.queue().has_gone_back() {
                // The link that stood there is read, too: who waits for an empty ring waits for that.
                self.give_back();
                self.leave_rings();
            }
            match found {
                Found::Nothing => return None,
                Found::Record(_) => return Some(Ok(())),
                Found::Broken => return Some(Err(self.violated())),
                Found::Link(link) => {
                    if let Err(refused) = self.follow(link) {
                        return Some(Err(refused));
                    }
                }
            }
        }
        Some(Err(self.violated()))
    }

    /// Whether there is a message, or a ring that leads to one: a look that costs little.
    pub(crate) fn has_next(&self) -> bool {
        self.look(Look::Quick).is_some()
    }

    /// Whether there is a message, or the end.
    pub(super) fn has_next_or_end(&self) -> bool {
        self.look(Look::Thorough).is_some()
    }

    /// For who sleeps on many lines at once, and is told there what the others say.
    #[inline(always)]
    pub(crate) fn try_next(&self) -> Result<Message<'_>, RecvError> {
        self.receive(
            |_| false,
            |receiver| {
                receiver.give_back();
                receiver.look(Look::Thorough).unwrap_or(Err(RecvError::Empty))
            },
        )
    }

    /// The end, if no message waits before it, nor what cannot be had now.
    pub(super) fn try_end(&self) -> Option<CloseReason> {
        // A close of our own comes before what waits.
        match self.check().err().map(Err).or_else(|| self.look(Look::Thorough)) {
            Some(Err(RecvError::Closed(reason))) => Some(reason),
            _ => None,
        }
    }

    #[cold]
    pub(super) fn look_once(&self) -> Result<(), RecvError> {
        self.give_back();
        self.hold().look_at_line();
        let found = self.look(Look::Thorough).unwrap_or(Err(RecvError::Empty));
        if found == Err(RecvError::Empty) {
            self.cool(is_past(self.beyond().cools_at()));
        }
        found
    }

    /// Waits a moment for a record in the first ring: the shortest way to one that is about to come.
    #[inline(never)]
    pub(super) fn glance(&self) -> bool {
        let ring = self.queue().first();
        if !ring.is_empty() {
            return false;
        }
        // Nobody may wait for room that we owe while we wait for messages.
        self.give_back();
        self.let_poster_run_ahead();
        self.hold().waits.glance(|| {
            let is_there = !ring.is_empty();
            if !is_there {
                ring.prefetch();
            }
            is_there
        })
    }

    /// At the end of a burst, leaves the poster alone for a moment: a reader that polls the very line
    /// that is being written takes it away from the poster at every store.
    fn let_poster_run_ahead(&self) {
        let ring = self.queue().first();
        let burst = ring.position() - self.waited_at.replace(ring.position());
        // One message is none. More is a lap that ended early, or a reader so far behind that it was in no way.
        if burst > BURST.max(ring.usual_room()) && burst < ring.capacity() / 4 {
            for _ in 0..BURST_PAUSES {
                spin_loop();
            }
        }
    }

    #[cold]
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<(), RecvError> {
        self.give_back();
        if let Some(cools_at) = self.beyond().cools_at() {
            return self.wait_and_cool(deadline, cools_at);
        }
        self.wait_until(deadline).unwrap_or(Err(RecvError::Empty))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Result<(), RecvError>> {
        let word = &self.hold().endpoint.own().message_wake;
        self.hold().wait_longer(word, deadline, |how| self.look(how))
    }

    /// Waits; when nothing has come for a while, lets memory go that only a busy channel needs.
    fn wait_and_cool(&self, deadline: Option<Instant>, cools_at: Instant) -> Result<(), RecvError> {
        self.cool(false);
        let first = deadline.map_or(cools_at, |at| at.min(cools_at));
        let mut found = self.wait_until(Some(first));
        if found.is_none() && is_past(Some(cools_at)) {
            self.cool(true);
            if !is_past(deadline) {
                found = self.wait_until(deadline);
            }
        }
        found.unwrap_or(Err(RecvError::Empty))
    }
}

/// The steps of a sleep in a set; see [`crate::sleep`].
impl Receiver {
    /// Takes the promise to stream back. True if a barrier must come before it lies down.
    pub(super) fn must_demand(&self) -> bool {
        let hold = self.hold();
        hold.waits.must_demand(&hold.endpoint.own().message_wake)
    }

    /// Announces sleep, unless there is something: a message, the end, or no line to sleep on.
    pub(super) fn try_lie_down(&self) -> bool {
        self.give_back();
        let look = || self.look(Look::Thorough).is_some();
        self.at_line(|waits, place| waits.try_lie_down(place, look)).unwrap_or(false)
    }

    /// Takes the announcement back. `took_bell`: whether the line was heard since.
    pub(super) fn get_up(&self, took_bell: bool) {
        self.at_line(|waits, place| waits.get_up(place, took_bell));
    }

    /// Takes what the line says.
    pub(super) fn hear(&self) -> Heard {
        let hold = self.hold();
        hold.line().map_or(Heard::HungUp, |line| hold.clear_line(&line))
    }

    fn at_line<T>(&self, work: impl FnOnce(&Waits, Place<'_>) -> T) -> Option<T> {
        let hold = self.hold();
        let (endpoint, line) = (&*hold.endpoint, hold.line()?);
        let word = &endpoint.own().message_wake;
        Some(work(&hold.waits, Place { endpoint, line: &line, word }))
    }
}
