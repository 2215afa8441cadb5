//! Receiving descriptors: what lies on the lanes for a message, and where the next lane is. Mirror of
//! [`super::out_lanes`].

use rustix::io::Errno;

use crate::lane::{Arrival, Incoming, NotHere, is_seqpacket};
use crate::line::{Heard, Line};
use crate::sync::Ordering;

use super::Trust;
use super::parcels::Parcel;
use super::receive::Receiver;

impl Receiver {
    /// Takes the next port, or buffer, of a message; `None` after the last.
    pub(super) fn take_from(
        &self,
        parcel: &Parcel,
        is_port: bool,
    ) -> Result<Option<Arrival>, NotHere> {
        let [ports, buffers] = parcel.left();
        if 0 == if is_port { ports } else { buffers } {
            return Ok(None);
        }
        self.fetch(parcel)?;
        self.parcels().take(parcel, is_port, self.is_trusted()).map_err(NotHere::Refused)
    }

    /// Finds memory for all ports, or buffers, of a message.
    pub(super) fn map_all(&self, parcel: &Parcel, is_port: bool) -> Result<(), NotHere> {
        if parcel.left() == [0, 0] || !self.is_original() {
            return Ok(());
        }
        self.fetch(parcel)?;
        self.parcels().map(parcel, is_port, self.is_trusted()).map_err(NotHere::Refused)
    }

    fn is_trusted(&self) -> bool {
        self.hold().endpoint.trust() == Trust::Trusted
    }

    /// Takes the parcel of a message off the lane, unless that was done.
    fn fetch(&self, parcel: &Parcel) -> Result<(), NotHere> {
        let fetched = self.parcels().fetch(parcel, &|| self.find_lanes());
        self.tell_of_lanes();
        fetched
    }

    /// Says how many lanes were come to. A poster may wait for room there, as for room in the ring.
    pub(super) fn tell_of_lanes(&self) {
        let words = self.ring_words();
        let changes = self.parcels().take_changes();
        if changes > 0 {
            // Relaxed, both: a count, of which this side is the only writer.
            let count = words.lanes.load(Ordering::Relaxed).wrapping_add(changes);
            words.lanes.store(count, Ordering::Relaxed);
        }
        self.notify_of_room();
    }

    pub(super) fn notify_of_room(&self) {
        self.hold().notify(&self.hold().endpoint.peer().room_wake);
    }

    /// Looks for the ends of further lanes on the line: they were put there before the first record that
    /// needs them was published.
    pub(super) fn find_lanes(&self) -> Result<(), NotHere> {
        let line = self.hold().line().ok_or(NotHere::Broken)?;
        let heard = self.hold().clear_line(&line);
        match (self.take_up_lanes(&line), heard) {
            (0, Heard::Blocked) => Err(NotHere::Refused(Errno::MFILE)),
            (0, _) => Err(NotHere::Broken),
            _ => Ok(()),
        }
    }

    /// Takes up the lanes' ends that came off the line with the bells. Says how many.
    pub(super) fn take_up_lanes(&self, line: &Line) -> usize {
        let ends: Vec<_> = line.take_lanes().into_iter().filter(is_seqpacket).collect();
        let count = ends.len();
        self.parcels().add_lanes(ends.into_iter().map(Incoming::new));
        count
    }

    /// Drops what nobody wants of the messages that were received, and could not be dropped with them: there was no
    /// descriptor to spare.
    pub(super) fn drop_left_behind(&self) {
        if self.parcels().is_unwanted_behind() && self.is_original() {
            // What cannot be dropped now is dropped later.
            let _ = self.parcels().drop_unwanted(&|| self.find_lanes());
            self.tell_of_lanes();
        }
    }

    pub(super) fn let_parcel_go(&self, parcel: &Parcel) {
        let gone = self.parcels().let_go(parcel, &|| self.find_lanes());
        self.tell_of_lanes();
        if gone == Err(NotHere::Broken) && self.hold().line().is_some() {
            // There never was a lane: who goes on like that has us keep parcels without end.
            self.hold().violated();
        }
        if self.hold().endpoint.own_end().is_some() && !self.parcels().is_behind() {
            self.let_go();
        }
    }
}
