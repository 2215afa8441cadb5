//! What [`crate::AsyncPort`] needs of a port beyond what every loop has ([`super::arm`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fork::Mark;

use super::MessagePort;
use super::hold::Hold;
use super::post::Sender;
use super::receive::Receiver;
use super::spin::Patience;
use super::wait::WaitStrategy;

impl MessagePort {
    /// The halves: what they wake each other with they make when they first wait.
    pub(crate) fn into_halves(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Receiver {
    /// The descriptor, for who has a runtime watch it.
    pub(crate) fn shared_pollable(&self) -> io::Result<Arc<OwnedFd>> {
        self.hold().pollable().map(Arc::clone)
    }

    /// Makes this half fit for a thread, while the other one is in a task.
    pub(crate) fn split(&self) {
        self.hold().endpoint.split();
    }

    pub(crate) fn mark(&self) -> Mark {
        self.hold().mark()
    }

    /// Begins to look for what is about to come, before anything is announced.
    pub(crate) fn begin_spell(&self) -> Spell {
        if self.glance() {
            return Spell::Paid;
        }
        match self.hold().waits.spin.patience() {
            Patience::None => Spell::Over,
            Patience::For(limit) => Spell::Going { since: Instant::now(), limit },
            // A task sleeps in the end.
            Patience::ForEver => Spell::Going { since: Instant::now(), limit: Patience::LONGEST },
        }
    }

    /// Looks a few times more.
    pub(crate) fn go_on(&self, spell: Spell) -> Spell {
        let Spell::Going { since, limit } = spell else { return spell };
        let waits = &self.hold().waits;
        if waits.look_a_few_times(|| self.has_next()) {
            self.end_spell(spell);
            Spell::Paid
        } else if since.elapsed() >= limit {
            waits.spin.was_vain();
            Spell::Over
        } else {
            spell
        }
    }

    /// There is something: learns from it.
    pub(crate) fn end_spell(&self, spell: Spell) {
        if let Spell::Going { since, .. } = spell {
            self.hold().waits.spin.has_paid(since.elapsed());
        }
    }
}

/// A time in which a task looks for messages again and again, before it sleeps. Between the looks, others run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spell {
    Going {
        since: Instant,
        limit: Duration,
    },
    /// There is something.
    Paid,
    /// It is time to sleep.
    Over,
}

impl Sender {
    /// The descriptor, for who has a runtime watch it.
    pub(crate) fn shared_pollable(&self) -> io::Result<Arc<OwnedFd>> {
        self.hold().pollable().map(Arc::clone)
    }

    /// Makes this half fit for a thread, while the other one is in a task.
    pub(crate) fn split(&self) {
        self.hold().endpoint.split();
    }

    pub(crate) fn mark(&self) -> Mark {
        self.hold().mark()
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        self.hold().waits.strategy()
    }
}

impl Hold {
    fn mark(&self) -> Mark {
        self.endpoint.mark()
    }
}
