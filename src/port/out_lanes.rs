//! Sending descriptors: on the lane, and where that is full, on a further one.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use crate::error::PostError;
use crate::lane::Outgoing;
use crate::line::Line;
use crate::packet;
use crate::record::NEXT_LANE;
use crate::sync::Ordering;
use crate::ticket::{MAX_LANES, TicketLanes};

use super::post::{Patience, Sender};
use super::wait::{Look, is_past};

/// The lanes of one sender.
#[derive(Debug)]
pub(super) struct OutLanes {
    /// Made when the first descriptors are sent.
    lane: RefCell<Option<Arc<Outgoing>>>,
    /// Whether nothing was sent on it yet.
    is_fresh: Cell<bool>,
    /// Lanes that were made, ever.
    count: Cell<u32>,
}

impl OutLanes {
    pub(super) fn new(lane: Option<Outgoing>, lanes: TicketLanes) -> Self {
        Self {
            lane: RefCell::new(lane.map(Arc::new)),
            is_fresh: Cell::new(lanes.is_fresh),
            count: Cell::new(lanes.sent),
        }
    }

    /// The lane, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Outgoing>> {
        self.lane.borrow().clone()
    }

    /// What the next holder has to know.
    pub(super) fn describe(&self) -> TicketLanes {
        TicketLanes {
            outgoing: self.lane.borrow().is_some(),
            is_fresh: self.is_fresh.get(),
            sent: self.count.get(),
            ..TicketLanes::default()
        }
    }

    pub(super) fn let_go(&self) {
        self.lane.take();
        // Whoever adopts the port would look for it.
        self.is_fresh.set(false);
    }

    fn add(&self, lane: Outgoing) {
        self.count.set(self.count.get().wrapping_add(1));
        self.is_fresh.set(true);
        *self.lane.borrow_mut() = Some(Arc::new(lane));
    }

    /// Something was sent: the flags of the record to which that belongs.
    fn used(&self) -> u8 {
        if self.is_fresh.replace(false) { NEXT_LANE } else { 0 }
    }
}

/// Sends what belongs to one record. The outer error is final, the inner one the lane's.
type Send<'a, T> = &'a mut dyn FnMut(&Outgoing) -> Result<Result<T, Errno>, PostError>;

/// Where there is no room.
enum Full {
    Lanes,
    Line(Arc<Line>),
}

impl Sender {
    /// Sends descriptors; waits for room on the lanes as for room in the ring. Gives the flags that the
    /// record has to have.
    pub(super) fn send<T>(
        &self,
        len: u64,
        patience: Patience,
        send: Send<'_, T>,
    ) -> Result<(T, u8), PostError> {
        loop {
            match self.send_once(len, patience, send)? {
                Ok(sent) => return Ok(sent),
                Err(Full::Line(line)) => self.wait_for_line(&line, len, patience)?,
                Err(Full::Lanes) => match patience {
                    Patience::None => return Err(PostError::Full { len }),
                    Patience::Until(deadline) => return self.send_until(len, deadline, send),
                },
            }
        }
    }

    /// As [`send`](Self::send), without waiting; `None`: there is no room.
    pub(super) fn try_send<T>(
        &self,
        len: u64,
        patience: Patience,
        send: Send<'_, T>,
    ) -> Result<Option<(T, u8)>, PostError> {
        Ok(self.send_once(len, patience, send)?.ok())
    }

    /// The reader tells of room on the lanes as of room in the ring.
    fn send_until<T>(
        &self,
        len: u64,
        deadline: Option<Instant>,
        send: Send<'_, T>,
    ) -> Result<(T, u8), PostError> {
        // What was staged must be visible, or the reader would never make room.
        self.flush();
        let (word, patience) = (&self.hold().endpoint.own().room_wake, Patience::Until(deadline));
        let found = self.hold().wait(word, deadline, |how| match how {
            Look::Quick => None,
            Look::Thorough => self.try_send(len, patience, send).transpose(),
        });
        found.unwrap_or_else(|| self.check().and(Err(PostError::Full { len })))
    }

    fn send_once<T>(
        &self,
        len: u64,
        patience: Patience,
        send: Send<'_, T>,
    ) -> Result<Result<(T, u8), Full>, PostError> {
        loop {
            if let Some(lane) = self.lanes().current() {
                match send(&lane)? {
                    Ok(sent) => return Ok(Ok((sent, self.lanes().used()))),
                    // What has no room on an empty lane has none anywhere.
                    Err(Errno::AGAIN) if self.lanes().is_fresh.get() => {
                        return Ok(Err(Full::Lanes));
                    }
                    Err(Errno::AGAIN) => {}
                    Err(refused) => return Err(self.refusal(refused, len, patience)),
                }
            }
            if let Err(full) = self.add_lane(len, patience)? {
                return Ok(Err(full));
            }
        }
    }

    /// Makes a further lane, whose other end goes over the line.
    fn add_lane(&self, len: u64, patience: Patience) -> Result<Result<(), Full>, PostError> {
        self.check()?;
        if self.lanes().current().is_some() && !self.may_add_lane() {
            return Ok(Err(Full::Lanes));
        }
        let [ours, theirs] = packet::pair().map_err(PostError::Os)?;
        let line = self.hold().line().ok_or(PostError::Detached)?;
        match line.send_lane(theirs.as_fd().map_err(PostError::Os)?) {
            Ok(()) => {
                self.lanes().add(Outgoing::new(ours));
                Ok(Ok(()))
            }
            Err(Errno::AGAIN) => Ok(Err(Full::Line(line))),
            Err(refused) => Err(self.refusal(refused, len, patience)),
        }
    }

    /// Whether the reader has come so far that a further lane may wait for it.
    fn may_add_lane(&self) -> bool {
        // Relaxed: a count; what is on the lanes is the kernel's to order.
        let come_to = self.ring_words().lanes.load(Ordering::Relaxed) as u32;
        let waiting = self.lanes().count.get().wrapping_sub(come_to) as usize;
        self.growth().sent.limit() > 0 && waiting < MAX_LANES
    }

    /// Waits for room on the line, which holds little more than bells.
    fn wait_for_line(&self, line: &Line, len: u64, patience: Patience) -> Result<(), PostError> {
        match patience {
            Patience::Until(deadline) if !is_past(deadline) => {
                // A reader that is to empty the line must have something to read.
                self.flush();
                line.wait_for_room(deadline);
                if line.is_hung_up() {
                    self.hold().endpoint.note_hang_up();
                }
                Ok(())
            }
            _ => Err(PostError::Full { len }),
        }
    }

    /// Why the kernel has refused a packet, for other reasons than want of room. (Where that takes a
    /// moment to show, and the caller has none, there is no room now.)
    fn refusal(&self, refused: Errno, len: u64, patience: Patience) -> PostError {
        let is_gone = matches!(refused, Errno::PIPE | Errno::CONNREFUSED | Errno::NOTCONN);
        let hangs_up = |line: Arc<Line>| match patience {
            Patience::None => line.is_hung_up(),
            Patience::Until(deadline) => line.hangs_up_soon(deadline),
        };
        let closed = self.check().err().or_else(|| {
            if is_gone && self.hold().line().is_none_or(hangs_up) {
                self.hold().endpoint.note_hang_up();
            }
            self.check().err()
        });
        closed.unwrap_or(match patience {
            Patience::None if is_gone => PostError::Full { len },
            _ => PostError::Os(refused.into()),
        })
    }
}
