//! The ports that came with messages, until somebody takes them.
//!
//! A *parcel* is the ports of one message: one packet on the lane. It stays there until somebody asks
//! for a port of it, so a message costs its receiver no descriptor before that. Parcels lie on the lane
//! in the order of their messages, but messages are taken up and let go in any order: so each message
//! knows the number of its parcel, and whoever asks for a later one takes the earlier ones in passing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustix::io::Errno;

use crate::fork::ForkSafeFd;
use crate::lane::{Arrival, Incoming, NotHere};
use crate::steps::{Step, reach};

/// The parcels of one receiver.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    /// `None`: not found on the line yet, or the end was reported.
    lane: RefCell<Option<Arc<Incoming>>>,
    /// The number of the first parcel that is on the lane still.
    head: Cell<u64>,
    /// Those parcels, of messages that were received.
    on_lane: RefCell<VecDeque<OnLane>>,
    /// Those that were taken off the lane.
    here: RefCell<BTreeMap<u64, VecDeque<Arrival>>>,
}

/// A parcel on the lane.
#[derive(Clone, Copy, Debug)]
struct OnLane {
    count: usize,
    /// Whether its message is there still.
    is_wanted: bool,
}

/// The ports of one message.
#[derive(Debug)]
pub(super) struct Parcel {
    number: u64,
    count: usize,
    taken: Cell<usize>,
}

impl Parcel {
    /// Ports that were not taken yet.
    pub(super) fn left(&self) -> usize {
        self.count - self.taken.get()
    }

    /// Ports that were taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }
}

impl Parcels {
    pub(super) fn new(lane: Option<Incoming>) -> Self {
        Self { lane: RefCell::new(lane.map(Arc::new)), ..Self::default() }
    }

    /// The lane, if it was found.
    pub(super) fn lane(&self) -> Option<Arc<Incoming>> {
        self.lane.borrow().clone()
    }

    /// The lane was found on the line.
    pub(super) fn set_lane(&self, lane: Incoming) {
        self.lane.borrow_mut().get_or_insert_with(|| Arc::new(lane));
    }

    /// Lets go of the lane: no more messages will come. (Those that are still there may need it.)
    pub(super) fn close(&self) {
        if self.on_lane.borrow().is_empty() {
            self.lane.take();
        }
    }

    /// The lane, for who keeps it from now on.
    pub(super) fn take_lane(&self) -> Option<ForkSafeFd> {
        Arc::into_inner(self.lane.take()?).map(Incoming::into_end)
    }

    /// The parcel of the message that is received now.
    pub(super) fn receive(&self, count: u16) -> Parcel {
        let mut on_lane = self.on_lane.borrow_mut();
        let number = self.head.get() + on_lane.len() as u64;
        let count = count.into();
        on_lane.push_back(OnLane { count, is_wanted: true });
        Parcel { number, count, taken: Cell::default() }
    }

    /// Whether a parcel has to be taken off the lane before a port of it can be had.
    pub(super) fn is_on_lane(&self, parcel: &Parcel) -> bool {
        parcel.number >= self.head.get()
    }

    /// Takes a parcel off the lane, and those before it; those behind it that nobody wants go, too.
    pub(super) fn fetch(&self, parcel: &Parcel, lane: &Incoming) -> Result<(), NotHere> {
        let mut on_lane = self.on_lane.borrow_mut();
        while self.is_on_lane(parcel)
            && let Some(first) = on_lane.front()
        {
            reach(Step::Found);
            if first.is_wanted {
                let arrivals = lane.take(first.count)?;
                self.here.borrow_mut().insert(self.head.get(), arrivals.into());
            } else {
                lane.skip();
            }
            reach(Step::Taken);
            on_lane.pop_front();
            self.head.set(self.head.get() + 1);
        }
        drop(on_lane);
        self.skip_while(lane, |parcel| !parcel.is_wanted);
        Ok(())
    }

    /// The next port of a parcel that was taken off the lane. It stays where it is if there is no memory
    /// for it.
    pub(super) fn take(&self, parcel: &Parcel) -> Result<Option<Arrival>, Errno> {
        let mut here = self.here.borrow_mut();
        let Some(arrivals) = here.get_mut(&parcel.number) else { return Ok(None) };
        if let Some(next) = arrivals.front_mut() {
            next.map()?;
            parcel.taken.set(parcel.taken.get() + 1);
        }
        Ok(arrivals.pop_front())
    }

    /// Finds memory for all ports of a parcel that was taken off the lane.
    pub(super) fn map(&self, parcel: &Parcel) -> Result<(), Errno> {
        let mut here = self.here.borrow_mut();
        here.get_mut(&parcel.number).into_iter().flatten().try_for_each(Arrival::map)
    }

    /// Lets a parcel go with its message: ports that were not taken are dropped, on the lane too.
    pub(super) fn let_go(&self, parcel: &Parcel, lane: Option<&Incoming>) {
        let Some(place) = parcel.number.checked_sub(self.head.get()) else {
            self.here.borrow_mut().remove(&parcel.number);
            return;
        };
        if let Some(parcel) = self.on_lane.borrow_mut().get_mut(place as usize) {
            parcel.is_wanted = false;
        }
        if let Some(lane) = lane {
            self.skip_while(lane, |parcel| !parcel.is_wanted);
        }
    }

    /// Whether there are parcels on the lane whose messages were received.
    pub(super) fn is_behind(&self) -> bool {
        !self.on_lane.borrow().is_empty()
    }

    /// Drops the parcels of all messages that were received: nobody can take them any more.
    pub(super) fn let_all_go(&self, lane: &Incoming) {
        self.here.borrow_mut().clear();
        self.skip_while(lane, |_| true);
    }

    fn skip_while(&self, lane: &Incoming, is_to_go: impl Fn(&OnLane) -> bool) {
        let mut on_lane = self.on_lane.borrow_mut();
        while on_lane.front().is_some_and(&is_to_go) {
            lane.skip();
            on_lane.pop_front();
            self.head.set(self.head.get() + 1);
        }
    }
}
