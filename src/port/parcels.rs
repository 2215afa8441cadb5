//! The ports that came with messages, until somebody takes them.
//!
//! A *parcel* is the ports of one message: one packet on the lane. Parcels lie on the lane in the order
//! of their messages, but messages may be taken up and let go in any order. So each message knows its
//! number among those with ports, and what cannot be taken off the lane yet is left there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::lane::{Arrival, Incoming, NotHere};
use crate::steps::{Step, reach};

/// The parcels of one receiver.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    /// `None`: not made yet, or the end was reported.
    lane: RefCell<Option<Arc<Incoming>>>,
    /// The number of the parcel at the head of the lane.
    head: Cell<u64>,
    /// The number of the next message's parcel.
    next: Cell<u64>,
    /// Parcels behind the head that nobody wants any more.
    unwanted: RefCell<BTreeSet<u64>>,
}

/// The ports of one message.
#[derive(Debug)]
pub(super) struct Parcel {
    number: u64,
    count: usize,
    taken: Cell<usize>,
    /// `None`: still on the lane.
    arrivals: RefCell<Option<VecDeque<Arrival>>>,
}

/// Why a parcel is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The process was refused descriptors or memory.
    Refused(rustix::io::Errno),
    /// An earlier message has its parcel on the lane still.
    Behind,
    /// The other side broke the protocol.
    Broken,
}

impl Parcels {
    pub(super) fn new(lane: Option<Incoming>) -> Self {
        Self { lane: RefCell::new(lane.map(Arc::new)), ..Self::default() }
    }

    /// The lane, if there is one.
    pub(super) fn lane(&self) -> Option<Arc<Incoming>> {
        self.lane.borrow().clone()
    }

    /// The lane was found on the line.
    pub(super) fn set_lane(&self, lane: Incoming) {
        self.lane.borrow_mut().get_or_insert_with(|| Arc::new(lane));
    }

    /// Lets go of the lane: nothing more will come. (Unless a message that was received has its ports
    /// there still.)
    pub(super) fn close(&self) {
        if self.head == self.next {
            self.lane.take();
        }
    }

    /// The parcel of the message that is received now: taken off the lane if that can be.
    pub(super) fn receive(&self, count: u16) -> Result<Parcel, Missing> {
        let number = self.next.get();
        self.next.set(number + 1);
        let count = count.into();
        let parcel = Parcel { number, count, taken: Cell::default(), arrivals: RefCell::default() };
        match self.fetch(&parcel) {
            Err(Missing::Broken) => Err(Missing::Broken),
            // It stays on the lane, and is asked for again when somebody wants it.
            Ok(()) | Err(Missing::Refused(_) | Missing::Behind) => Ok(parcel),
        }
    }

    /// Takes a parcel off the lane, unless that was done.
    fn fetch(&self, parcel: &Parcel) -> Result<(), Missing> {
        let mut arrivals = parcel.arrivals.borrow_mut();
        if arrivals.is_some() {
            return Ok(());
        }
        if self.head.get() != parcel.number {
            return Err(Missing::Behind);
        }
        let lane = self.lane().ok_or(Missing::Broken)?;
        reach(Step::Found);
        let taken = lane.take(parcel.count).map_err(|error| match error {
            NotHere::Refused(errno) => Missing::Refused(errno),
            NotHere::Broken => Missing::Broken,
        })?;
        reach(Step::Taken);
        *arrivals = Some(taken.into());
        self.advance();
        Ok(())
    }

    /// Lets a parcel go with its message: what was not taken is dropped, on the lane too.
    pub(super) fn let_go(&self, parcel: Parcel) {
        if parcel.arrivals.into_inner().is_some() {
            return;
        }
        if parcel.number == self.head.get() {
            self.skip_head();
        } else {
            self.unwanted.borrow_mut().insert(parcel.number);
        }
    }

    /// Drops the parcels of messages that were received and forgotten: nobody can take them.
    pub(super) fn let_all_go(&self) {
        while self.head.get() < self.next.get() {
            self.skip_head();
        }
    }

    fn skip_head(&self) {
        if let Some(lane) = self.lane() {
            lane.skip();
        }
        self.advance();
    }

    /// The head was taken off the lane; so are those behind it that nobody wants.
    fn advance(&self) {
        let mut unwanted = self.unwanted.borrow_mut();
        let mut head = self.head.get() + 1;
        while unwanted.remove(&head) {
            if let Some(lane) = self.lane() {
                lane.skip();
            }
            head += 1;
        }
        self.head.set(head);
    }
}

impl Parcel {
    /// Ports that were not taken yet.
    pub(super) fn count(&self) -> usize {
        self.count - self.taken.get()
    }

    /// Ports that were taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Takes the next port.
    pub(super) fn take(&self, parcels: &Parcels) -> Result<Option<Arrival>, Missing> {
        if self.count() == 0 {
            return Ok(None);
        }
        parcels.fetch(self)?;
        let arrival = self.arrivals.borrow_mut().as_mut().and_then(VecDeque::pop_front);
        self.taken.set(self.taken.get() + 1);
        Ok(arrival)
    }
}
