//! What a reader finds outside the first ring: grown rings, and large payloads in a memory of their own.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::account::Received;
use crate::block::{NotSealed, Sealed, View, is_write_sealed};
use crate::error::{AttachError, RecvError};
use crate::lane::{Envelope, NotHere, Taken};
use crate::layout::Side;
use crate::queue::Reader;
use crate::record::{NEXT_LANE, OUTSIDE, OUTSIDE_LEN, Outside};
use crate::ring::{Link, Rare, Record};
use crate::segment::{Mapping, Region, is_legal_capacity};
use crate::steps::{Step, reach};
use crate::warm::{self, Reading};

use super::Trust;
use super::kept::Kept;
use super::large::MAX_WARM;
use super::message::{Aside, Where};
use super::parcels::List;
use super::post::MAX_PAYLOAD;
use super::receive::Receiver;

/// A reader that has waited so long in vain lets warm memory go.
const COOL_AFTER: Duration = Duration::from_millis(100);
/// Memory of a grown ring that was read goes back to the kernel in such pieces.
const PIECE: u64 = 256 << 10;
const PAGE: u64 = 4096;

/// What a receiver keeps of what lies outside the first ring.
#[derive(Debug)]
pub(super) struct Beyond {
    pub(super) received: Received,
    kept: Kept,
    /// Up to where the grown ring that is read was given back to the kernel.
    given_back: Cell<u64>,
    /// Since when there may be memory that is not used: the last time that some was.
    warm_since: Cell<Option<Instant>>,
}

/// A large payload that was received.
#[derive(Debug)]
pub(super) enum Payload {
    /// Nobody can change it.
    Sealed(Sealed),
    /// From a poster whom we trust, who uses it again.
    Warm(Arc<Reading>, usize),
}

impl Payload {
    /// The poster may use it again.
    pub(super) fn let_go(&self) {
        if let Self::Warm(reading, _) = self {
            match Arc::strong_count(reading) {
                1 => reading.forget(),
                _ => reading.let_go(),
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Sealed(sealed) => sealed.as_slice(),
            Self::Warm(reading, len) => reading.payload(*len),
        }
    }
}

impl Beyond {
    /// For who takes over after `received` bytes, of which all were let go but the grown ring that is read,
    /// with the blocks that were kept.
    pub(super) fn new(limit: u64, received: u64, queue: &Reader<Region>, kept: Kept) -> Self {
        let (grown, read) = queue.with_current(|ring| (ring.capacity(), ring.position())).unzip();
        let let_go = received.saturating_sub(grown.unwrap_or(0));
        Self {
            received: Received::new(limit, received, let_go),
            given_back: Cell::new(read.unwrap_or(0) / PAGE * PAGE),
            warm_since: Cell::new((grown.is_some() || kept.can_be_trimmed()).then(Instant::now)),
            kept,
        }
    }

    /// Bytes that forgotten messages would hold for ever.
    pub(super) fn forgotten(&self, queue: &Reader<Region>) -> u64 {
        let current = queue.with_current(|ring| ring.capacity()).unwrap_or(0);
        self.received.outstanding().saturating_sub(current)
    }

    /// Lets go of all that is kept: nothing more will come.
    pub(super) fn let_go(&self) {
        self.kept.let_go();
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// When memory that is not used is to go, if there may be any.
    pub(super) fn cools_at(&self) -> Option<Instant> {
        self.warm_since.get().map(|since| since + COOL_AFTER)
    }

    fn was_used(&self) {
        self.warm_since.set(Some(Instant::now()));
    }
}

impl Receiver {
    /// Follows a link: maps the next ring, and goes on there.
    pub(super) fn follow(&self, link: Link) -> Result<(), RecvError> {
        self.again_without_kept(|| self.try_follow(link))
    }

    /// Where that fails for want of something, tries again without the blocks that were kept.
    fn again_without_kept(
        &self,
        mut run: impl FnMut() -> Result<(), RecvError>,
    ) -> Result<(), RecvError> {
        match run() {
            Err(RecvError::Os { .. }) if self.beyond().kept.trim() => run(),
            done => done,
        }
    }

    fn try_follow(&self, link: Link) -> Result<(), RecvError> {
        reach(Step::LinkFound);
        let capacity = 1u64.checked_shl(link.order).unwrap_or(0);
        let received = &self.beyond().received;
        let may_come = capacity <= received.limit() && received.may_come(capacity);
        if !is_legal_capacity(capacity) || !may_come {
            return Err(self.violated());
        }
        let map = |taken| match taken {
            Taken::Ring { memfd, capacity: told } if told == capacity => {
                let mapping = Mapping::grown(memfd.as_fd(), Some(capacity)).map_err(not_here)?;
                Ok(mapping.held_by(memfd))
            }
            _ => Err(NotHere::Broken),
        };
        let is_next = link.flags & NEXT_LANE != 0;
        let taken = self.parcels().receive_now(is_next, &|| self.find_lanes(), map);
        self.tell_of_lanes();
        let segment = taken.map_err(|error| self.refused(error))?;
        received.add(capacity);
        self.beyond().given_back.set(0);
        self.beyond().was_used();
        self.queue().follow(Region::new(Arc::new(segment), Side::First));
        reach(Step::Followed);
        // The poster may want to come back.
        self.give_back();
        self.leave_rings();
        Ok(())
    }

    /// Lets go of rings that were left and of which nothing is held.
    pub(super) fn leave_rings(&self) {
        while let Some(capacity) = self.queue().leave() {
            self.account_for(capacity);
        }
    }

    /// Says that memory outside the first ring was let go.
    pub(super) fn account_for(&self, bytes: u64) {
        if bytes > 0 {
            self.beyond().received.let_go(bytes, &self.ring_words().let_go);
            self.notify_of_room();
        }
    }

    fn refused(&self, error: NotHere) -> RecvError {
        match error {
            NotHere::Refused(errno) => RecvError::Os { errno: errno.raw_os_error() },
            NotHere::Broken => self.violated(),
        }
    }

    /// Takes a record that has more than most: fills in what its message has aside. If that fails, the record
    /// was not taken.
    pub(super) fn fill_aside(&self, aside: &mut Aside, record: Record) -> Result<(), RecvError> {
        if record.rare == Rare::NOTHING {
            // Of an untrusted port: else there was nothing to set aside.
            let ring = self.queue().first();
            let offset = record.payload_offset;
            self.copy(aside, record.payload_len, |into| ring.memory().copy_out(offset, into))?;
            ring.take(record.to);
            self.release(record.from, record.to);
            aside.set_over(true);
            return Ok(());
        }
        self.again_without_kept(|| self.fill_rare(aside, record))
    }

    fn fill_rare(&self, aside: &mut Aside, record: Record) -> Result<(), RecvError> {
        let memory = match record.rare.ring() {
            0 => self.queue().first().memory().clone(),
            ring => self.queue().memory(ring).ok_or_else(|| self.violated())?,
        };
        let mut outside = Outside::default();
        let (mut offset, mut len) = (record.payload_offset, record.payload_len);
        if record.rare.flags() & OUTSIDE != 0 {
            let mut words = [0; OUTSIDE_LEN as usize / 8];
            memory.copy_out(offset, &mut words);
            outside = bytemuck::cast(words);
            // The head was checked to be as long.
            (offset, len) = (offset + u64::from(OUTSIDE_LEN), len - OUTSIDE_LEN);
        }
        let is_allowed = |bytes: &u64| self.beyond().received.may_come(*bytes);
        let bytes = outside.bytes().filter(is_allowed).ok_or_else(|| self.violated())?;
        let list = self.take_large(aside, &outside, record)?;
        if outside.large == 0 {
            self.place_payload(aside, memory, record.rare.ring(), offset, len)?;
        }
        self.queue().take(&record);
        if record.rare.ring() != 0 && self.beyond().warm_since.get().is_none() {
            self.beyond().was_used();
        }
        self.beyond().received.add(bytes);
        aside.set_outside(bytes);
        let is_over = !matches!(aside.place(), Where::First { .. } | Where::Grown { .. });
        if is_over {
            self.release_record(&record);
        }
        aside.set_over(is_over);
        self.set_list(aside, record, &outside, list);
        Ok(())
    }

    fn place_payload(
        &self,
        aside: &mut Aside,
        memory: Region,
        ring: u32,
        offset: u64,
        len: u32,
    ) -> Result<(), RecvError> {
        if self.hold().endpoint.trust() == Trust::Untrusted {
            return self.copy(aside, len, |into| memory.copy_out(offset, into));
        }
        aside.set_place(match ring {
            0 => Where::First { offset, len },
            _ => Where::Grown { memory, offset, len },
        });
        Ok(())
    }

    fn copy(
        &self,
        aside: &mut Aside,
        len: u32,
        fill: impl FnOnce(&mut [u64]),
    ) -> Result<(), RecvError> {
        let filled = aside.copy(len as usize, |into| {
            fill(into);
            Ok::<(), Errno>(())
        });
        filled.map(drop).map_err(|_| self.refused(NotHere::Refused(Errno::NOMEM)))
    }

    fn set_list(
        &self,
        aside: &mut Aside,
        record: Record,
        outside: &Outside,
        packed: Option<Envelope>,
    ) {
        let (ports, buffers) = (record.rare.ports(), record.rare.buffers());
        let list = List { ports, buffers, bytes: outside.buffers };
        match packed {
            Some(packed) => aside.set_parcel(self.parcels().keep(packed, list)),
            None if outside.large > 0 || (ports == 0 && buffers == 0) => {}
            None => {
                let is_next = record.rare.flags() & NEXT_LANE != 0;
                aside.set_parcel(self.parcels().receive(list, is_next));
            }
        }
    }

    /// Takes the memory of a large payload, if the message has one, and the list that came with it.
    fn take_large(
        &self,
        aside: &mut Aside,
        outside: &Outside,
        record: Record,
    ) -> Result<Option<Envelope>, RecvError> {
        let Outside { large: len, kept, reserved, .. } = *outside;
        let has_list = record.rare.ports() > 0 || record.rare.buffers() > 0;
        let is_legal = reserved == 0
            && if len == 0 { kept == 0 } else { record.payload_len == OUTSIDE_LEN }
            && (kept == 0 || !has_list);
        if len > MAX_PAYLOAD || !is_legal {
            return Err(self.violated());
        }
        if len == 0 {
            return Ok(None);
        }
        reach(Step::LargeFound);
        self.beyond().was_used();
        if kept != 0 {
            let found = self.find_kept(aside, kept, len as usize);
            return found.map(|()| None).map_err(|error| self.refused(error));
        }
        let is_next = record.rare.flags() & NEXT_LANE != 0;
        let map = |taken| match taken {
            Taken::Payload { memfd, len: told, list }
                if told == len && list.is_some() == has_list =>
            {
                self.map_large(aside, memfd, len as usize)?;
                Ok(list)
            }
            _ => Err(NotHere::Broken),
        };
        let taken = self.parcels().receive_now(is_next, &|| self.find_lanes(), map);
        self.tell_of_lanes();
        reach(Step::LargeTaken);
        taken.map_err(|error| self.refused(error))
    }

    fn map_large(
        &self,
        aside: &mut Aside,
        memfd: std::os::fd::OwnedFd,
        len: usize,
    ) -> Result<(), NotHere> {
        let is_trusted = self.hold().endpoint.trust() == Trust::Trusted;
        // Who does not trust us seals also where memory may be used again; a block cannot be sealed so.
        if !self.hold().endpoint.segment().shape().reuse || is_write_sealed(memfd.as_fd()) {
            let view = View::new(memfd.as_fd(), len as u64, is_trusted).map_err(not_sealed)?;
            aside.set_place(Where::Large(Payload::Sealed(view.held_by(memfd))));
            return Ok(());
        }
        if !is_trusted {
            return copy_block(aside, memfd.as_fd(), len);
        }
        let came = Reading::new(memfd).map_err(NotHere::because)?.ok_or(NotHere::Broken)?;
        match self.beyond().kept.find(|block| block.id() == came.id()) {
            Some(known) => set_reading(aside, &known, len),
            None => {
                let came = Arc::new(came);
                set_reading(aside, &came, len)?;
                self.beyond().kept.keep(came);
                Ok(())
            }
        }
    }

    /// Takes a large payload that is in a block which was kept.
    fn find_kept(&self, aside: &mut Aside, kept: u64, len: usize) -> Result<(), NotHere> {
        let found = self.beyond().kept.find(|block| block.id().file() == kept);
        let found = found.ok_or(NotHere::Broken)?;
        if self.hold().endpoint.trust() == Trust::Trusted {
            return set_reading(aside, &found, len);
        }
        copy_block(aside, found.memfd(), len)?;
        self.beyond().kept.remove(&found);
        Ok(())
    }

    /// Gives memory of the grown ring that was read back to the kernel: if there is much of it, or if the
    /// time has come to let all go that is not used.
    pub(super) fn cool(&self, is_time: bool) {
        let least = if is_time { PAGE } else { PIECE };
        let from = self.beyond().given_back.get();
        self.queue().with_current(|ring| {
            let to = ring.held() / PAGE * PAGE;
            if to >= from + least {
                ring.memory().segment().give_back(from, to);
                self.beyond().given_back.set(to);
            }
        });
        if is_time {
            self.beyond().kept.trim();
            // What the poster has claimed may come to be free without a message.
            let is_left = self.beyond().kept.can_be_trimmed();
            self.beyond().warm_since.set(is_left.then(Instant::now));
        }
    }
}

/// Copies what the poster can still write, as what is in the ring. It is not handed back.
fn copy_block(aside: &mut Aside, memfd: BorrowedFd<'_>, len: usize) -> Result<(), NotHere> {
    // Nobody honest sends much so; a stranger's file of holes would cost us more than him.
    if len as u64 > MAX_WARM {
        return Err(NotHere::Broken);
    }
    let copied = aside.copy(len, |into| warm::copy_out(memfd, into));
    let copied = copied.map_err(|_| NotHere::Refused(Errno::NOMEM))?;
    copied.map_err(|error| error.map_or(NotHere::Broken, NotHere::because))
}

fn set_reading(aside: &mut Aside, reading: &Arc<Reading>, len: usize) -> Result<(), NotHere> {
    if len as u64 > reading.capacity() {
        return Err(NotHere::Broken);
    }
    reading.map().map_err(NotHere::because)?;
    aside.set_place(Where::Large(Payload::Warm(Arc::clone(reading), len)));
    Ok(())
}

fn not_here(error: AttachError) -> NotHere {
    match error {
        AttachError::Os(error) => NotHere::because(crate::packet::errno(error)),
        _ => NotHere::Broken,
    }
}

fn not_sealed(error: NotSealed) -> NotHere {
    match error {
        NotSealed::Os(errno) => NotHere::Refused(errno),
        NotSealed::Broken => NotHere::Broken,
    }
}
