//! What came with records beside the ring, until somebody takes it.
//!
//! A *parcel* is what belongs to one record: one packet on a lane. The ports and buffers of a message stay
//! there until somebody asks for one, so a message costs its receiver no descriptor before that. Parcels
//! lie on the lanes in the order of their records, but messages are taken up and let go in any order: so
//! each message knows the number of its parcel, and whoever asks for a later one takes the earlier ones in
//! passing. Links and large payloads are taken at once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustix::io::Errno;

use crate::fork::ForkSafeFd;
use crate::lane::{Arrival, Envelope, Incoming, NotHere, Taken};
use crate::steps::{Step, reach};
use crate::ticket::MAX_LANES;

/// Finds the ends of further lanes on the line, and has them [added](Parcels::add_lanes).
pub(super) type Find<'a> = &'a dyn Fn() -> Result<(), NotHere>;

/// The parcels of one receiver.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    /// The lane on which the next parcel lies, unless that is the first on the next one.
    lane: RefCell<Option<Arc<Incoming>>>,
    /// Further lanes, as far as they were found on the line.
    coming: RefCell<VecDeque<Arc<Incoming>>>,
    /// Changes of lanes that were not told yet.
    changes: Cell<u64>,
    /// The parcel for whose sake the last change of lanes was made.
    changed_for: Cell<Option<u64>>,
    /// The number of the first parcel that is on a lane still.
    head: Cell<u64>,
    /// Those parcels, of messages that were received.
    on_lane: RefCell<VecDeque<OnLane>>,
    /// Those that were taken off the lane.
    here: RefCell<BTreeMap<u64, Held>>,
}

/// A parcel on a lane.
#[derive(Clone, Copy, Debug)]
struct OnLane {
    /// Whether it is the first on the next lane.
    is_next: bool,
    /// Whether its message is there still.
    is_wanted: bool,
}

/// A parcel that was taken off its lane.
#[derive(Debug)]
enum Held {
    Packed(Envelope),
    Unpacked(VecDeque<Arrival>),
}

/// What a record tells of its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) ports: u16,
    pub(super) buffers: u16,
    /// Bytes of memory of all buffers.
    pub(super) bytes: u64,
}

/// The ports and buffers of one message.
#[derive(Debug)]
pub(super) struct Parcel {
    number: u64,
    ports: usize,
    buffers: usize,
    /// Bytes of memory of all buffers, as the record tells.
    bytes: u64,
    /// Ports and buffers that were taken.
    taken: Cell<[usize; 2]>,
}

impl Parcel {
    fn new(number: u64, list: List) -> Self {
        let List { ports, buffers, bytes } = list;
        let (ports, buffers) = (ports.into(), buffers.into());
        Self { number, ports, buffers, bytes, taken: Cell::default() }
    }

    /// Ports and buffers that were not taken yet.
    pub(super) fn left(&self) -> [usize; 2] {
        let [ports, buffers] = self.taken.get();
        [self.ports - ports, self.buffers - buffers]
    }

    /// Ports and buffers that were taken.
    pub(super) fn taken(&self) -> [usize; 2] {
        self.taken.get()
    }

    fn count(&self, is_port: bool) {
        let [ports, buffers] = self.taken.get();
        self.taken.set(if is_port { [ports + 1, buffers] } else { [ports, buffers + 1] });
    }
}

impl Parcels {
    /// For who takes over the lanes, of the first of which a parcel may have been taken already.
    pub(super) fn new(lanes: impl IntoIterator<Item = Incoming>, is_at_first: bool) -> Self {
        let mut lanes = lanes.into_iter();
        let lane = if is_at_first { lanes.next() } else { None };
        let lane = RefCell::new(lane.map(Arc::new));
        Self { lane, coming: RefCell::new(lanes.map(Arc::new).collect()), ..Self::default() }
    }

    /// Further lanes were found on the line. An honest side lets no more of them wait than are kept.
    pub(super) fn add_lanes(&self, lanes: impl IntoIterator<Item = Incoming>) {
        let mut coming = self.coming.borrow_mut();
        let room = MAX_LANES.saturating_sub(coming.len());
        coming.extend(lanes.into_iter().take(room).map(Arc::new));
    }

    /// The lane that was come to, and further ones; for who gives the port away.
    pub(super) fn lanes(&self) -> (Option<Arc<Incoming>>, VecDeque<Arc<Incoming>>) {
        (self.lane.borrow().clone(), self.coming.borrow().clone())
    }

    /// How often a further lane was come to, since this was last asked.
    pub(super) fn take_changes(&self) -> u64 {
        self.changes.take()
    }

    /// Lets go of the lanes: no more messages will come. (Those that are still there may need them.)
    pub(super) fn close(&self) {
        if self.on_lane.borrow().is_empty() {
            self.lane.take();
            self.coming.take();
        }
    }

    /// The lanes, for who keeps them from now on.
    pub(super) fn take_lanes(&self) -> Vec<ForkSafeFd> {
        let lanes = self.lane.take().into_iter().chain(self.coming.take());
        lanes.filter_map(Arc::into_inner).map(Incoming::into_end).collect()
    }

    /// The parcel of a message that is received now. `is_next`: it is the first on the next lane.
    pub(super) fn receive(&self, list: List, is_next: bool) -> Parcel {
        let mut on_lane = self.on_lane.borrow_mut();
        let number = self.head.get() + on_lane.len() as u64;
        on_lane.push_back(OnLane { is_next, is_wanted: true });
        Parcel::new(number, list)
    }

    /// Takes what belongs to the record that is received now, at once. If that fails for want of
    /// something, it can be asked for again.
    /// `map` says what is to become of it; what it refuses stays on the lane.
    pub(super) fn receive_now<T>(
        &self,
        is_next: bool,
        find: Find<'_>,
        map: impl FnOnce(Taken) -> Result<T, NotHere>,
    ) -> Result<T, NotHere> {
        let number = self.head.get() + self.on_lane.borrow().len() as u64;
        self.take_up_to(number, find)?;
        let taken = self.lane_of(number, is_next, find)?.take_if(map)?;
        self.head.set(number + 1);
        Ok(taken)
    }

    /// The list that came with a large payload.
    pub(super) fn keep(&self, packed: Envelope, list: List) -> Parcel {
        // It came with the last parcel that was taken.
        let number = self.head.get() - 1;
        self.here.borrow_mut().insert(number, Held::Packed(packed));
        Parcel::new(number, list)
    }

    /// Whether a parcel has to be taken off its lane before anything of it can be had.
    fn is_on_lane(&self, parcel: &Parcel) -> bool {
        parcel.number >= self.head.get()
    }

    /// The lane on which a parcel lies, the first of those that are not here.
    fn lane_of(
        &self,
        number: u64,
        is_next: bool,
        find: Find<'_>,
    ) -> Result<Arc<Incoming>, NotHere> {
        if is_next && self.changed_for.get() != Some(number) {
            if self.coming.borrow().is_empty() {
                find()?;
            }
            let next = self.coming.borrow_mut().pop_front().ok_or(NotHere::Broken)?;
            *self.lane.borrow_mut() = Some(next);
            self.changed_for.set(Some(number));
            self.changes.set(self.changes.get() + 1);
        }
        self.lane.borrow().clone().ok_or(NotHere::Broken)
    }

    /// Takes all parcels below a number off their lanes; drops those that nobody wants.
    fn take_up_to(&self, number: u64, find: Find<'_>) -> Result<(), NotHere> {
        while self.head.get() < number
            && let Some(first) = self.front()
        {
            self.take_first(first, find)?;
        }
        Ok(())
    }

    fn front(&self) -> Option<OnLane> {
        self.on_lane.borrow().front().copied()
    }

    fn take_first(&self, first: OnLane, find: Find<'_>) -> Result<(), NotHere> {
        let number = self.head.get();
        let lane = self.lane_of(number, first.is_next, find)?;
        if first.is_wanted {
            reach(Step::Found);
            let held = match lane.take()? {
                Taken::List(arrivals) => Held::Unpacked(arrivals.into()),
                Taken::Envelope(envelope) => Held::Packed(envelope),
                Taken::Payload { .. } | Taken::Ring { .. } => return Err(NotHere::Broken),
            };
            reach(Step::Taken);
            self.here.borrow_mut().insert(number, held);
        } else {
            lane.skip();
        }
        self.on_lane.borrow_mut().pop_front();
        self.head.set(number + 1);
        Ok(())
    }

    /// Takes a parcel off its lane, and those before it; those behind it that nobody wants go, too.
    pub(super) fn fetch(&self, parcel: &Parcel, find: Find<'_>) -> Result<(), NotHere> {
        if self.is_on_lane(parcel) {
            self.take_up_to(parcel.number + 1, find)?;
            // What cannot be dropped now is dropped later.
            let _ = self.drop_unwanted(find);
        }
        self.unpack(parcel)
    }

    fn unpack(&self, parcel: &Parcel) -> Result<(), NotHere> {
        let mut here = self.here.borrow_mut();
        let Some(held) = here.get_mut(&parcel.number) else { return Ok(()) };
        if let Held::Packed(envelope) = held {
            let arrivals = envelope.unpack(parcel.ports + parcel.buffers)?;
            *held = Held::Unpacked(arrivals.into());
        }
        let Held::Unpacked(arrivals) = held else { return Ok(()) };
        if parcel.taken() != [0, 0] {
            return Ok(()); // it was compared before
        }
        let ports = arrivals.iter().filter(|arrival| arrival.is_port()).count();
        let bytes = arrivals.iter().map(Arrival::buffer_bytes).fold(0, u64::saturating_add);
        let found = (ports, arrivals.len() - ports, bytes);
        let is_as_told = found == (parcel.ports, parcel.buffers, parcel.bytes);
        if is_as_told { Ok(()) } else { Err(NotHere::Broken) }
    }

    /// The next port, or buffer, of a parcel that was fetched. It stays where it is if there is no memory
    /// for it.
    pub(super) fn take(
        &self,
        parcel: &Parcel,
        is_port: bool,
        is_trusted: bool,
    ) -> Result<Option<Arrival>, Errno> {
        let mut here = self.here.borrow_mut();
        let Some(Held::Unpacked(arrivals)) = here.get_mut(&parcel.number) else { return Ok(None) };
        let place = arrivals.iter().position(|arrival| arrival.is_port() == is_port);
        let Some(place) = place else { return Ok(None) };
        if let Some(next) = arrivals.get_mut(place) {
            next.map(is_trusted)?;
            parcel.count(is_port);
        }
        Ok(arrivals.remove(place))
    }

    /// Finds memory for all ports, or buffers, of a parcel that was fetched.
    pub(super) fn map(
        &self,
        parcel: &Parcel,
        is_port: bool,
        is_trusted: bool,
    ) -> Result<(), Errno> {
        match self.here.borrow_mut().get_mut(&parcel.number) {
            Some(Held::Unpacked(arrivals)) => arrivals
                .iter_mut()
                .filter(|arrival| arrival.is_port() == is_port)
                .try_for_each(|arrival| arrival.map(is_trusted)),
            Some(Held::Packed(_)) | None => Ok(()),
        }
    }

    /// Lets a parcel go with its message: what was not taken is dropped, on the lane too. An error says
    /// that what nobody wants has to stay there.
    pub(super) fn let_go(&self, parcel: &Parcel, find: Find<'_>) -> Result<(), NotHere> {
        let Some(place) = parcel.number.checked_sub(self.head.get()) else {
            self.here.borrow_mut().remove(&parcel.number);
            return Ok(());
        };
        if let Some(parcel) = self.on_lane.borrow_mut().get_mut(place as usize) {
            parcel.is_wanted = false;
        }
        self.drop_unwanted(find)
    }

    /// Whether there are parcels on the lane whose messages were received.
    pub(super) fn is_behind(&self) -> bool {
        !self.on_lane.borrow().is_empty()
    }

    /// Whether nobody wants the first of these.
    pub(super) fn is_unwanted_behind(&self) -> bool {
        self.front().is_some_and(|first| !first.is_wanted)
    }

    /// Drops the parcels of all messages that were received: nobody can take them any more.
    pub(super) fn let_all_go(&self, find: Find<'_>) -> Result<(), NotHere> {
        self.here.borrow_mut().clear();
        self.on_lane.borrow_mut().iter_mut().for_each(|parcel| parcel.is_wanted = false);
        self.drop_unwanted(find)
    }

    pub(super) fn drop_unwanted(&self, find: Find<'_>) -> Result<(), NotHere> {
        while let Some(first) = self.front().filter(|first| !first.is_wanted) {
            self.take_first(first, find)?;
        }
        Ok(())
    }
}
