//! Messages that were received and not yet released, by numbers.
//!
//! A number is a place, and how many messages the place has had: so a number that was released is known as such.
#![allow(unsafe_code)]

use zeroport::{LetGo, Message};

use crate::status::{Failure, Status};

/// Bits of a number that are the place.
const PLACE_BITS: u32 = 24;
/// A port that holds so many messages gets no more.
const MOST: usize = 1 << PLACE_BITS;
const NONE: u32 = u32::MAX;

/// They borrow what they lie beside, which neither moves nor goes while there is one (A3).
#[derive(Debug)]
pub(crate) struct Held {
    /// Of who holds one message at a time: always the same place, so that the processor need not wait to learn which.
    first: Place,
    others: Vec<Place>,
    /// The number of the first free one among the others.
    free: u32,
    /// How many of the others are not free.
    count: usize,
}

#[derive(Debug)]
#[repr(align(64))]
struct Place {
    message: Option<Message<'static>>,
    /// The handle of the port on which it came, where there are many.
    member: u64,
    /// How many it has had, with this one.
    had: u64,
    next_free: u32,
}

impl Place {
    const fn new() -> Self {
        Self { message: None, member: 0, had: 0, next_free: NONE }
    }

    /// Gives the number of the message among those that the place has had.
    #[inline(always)]
    fn keep(&mut self, message: Message<'static>, member: u64) -> u64 {
        // It had none: nothing is dropped.
        std::mem::forget(self.message.replace(message));
        self.member = member;
        self.had += 1;
        self.had
    }

    /// Lets the message go that the place has, if it is the one with this number, and one as most are; calls nothing.
    #[inline(always)]
    fn release_at_once(&mut self, had: u64) -> LetGo<'static> {
        if self.had == had { Message::let_go_at_once(&mut self.message) } else { LetGo::No }
    }
}

impl Held {
    pub(crate) const fn new() -> Self {
        Self { first: Place::new(), others: Vec::new(), free: NONE, count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.message.is_none() && self.count == 0
    }

    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.first.message.is_none() || self.free != NONE
    }

    /// Makes room for one more, if there may be one more.
    #[inline(always)]
    pub(crate) fn make_room(&mut self) -> Result<(), Failure> {
        if self.has_room() { Ok(()) } else { self.add_place() }
    }

    #[cold]
    fn add_place(&mut self) -> Result<(), Failure> {
        self.others.push(Place::new());
        if self.others.len() >= MOST {
            self.others.pop();
            return Err(Failure::system(&std::io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        self.free = self.others.len() as u32;
        Ok(())
    }

    /// Keeps a message, for which room was made; gives its number, which is never 0.
    ///
    /// # Safety
    ///
    /// A3: what the message borrows stays until the message is released.
    #[inline(always)]
    pub(crate) unsafe fn keep(&mut self, message: Message<'_>, member: u64) -> u64 {
        // SAFETY: A3.
        let message = unsafe { std::mem::transmute::<Message<'_>, Message<'static>>(message) };
        if self.first.message.is_none() {
            return self.first.keep(message, member) << PLACE_BITS;
        }
        let index = self.free;
        let Some(place) = self.others.get_mut((index as usize).wrapping_sub(1)) else {
            // Not reached. (If it were dropped here it would go through memory also where it is not.)
            std::mem::forget(message);
            return 0;
        };
        self.free = place.next_free;
        self.count += 1;
        place.keep(message, member) << PLACE_BITS | u64::from(index)
    }

    /// Whether any message of such a member is held.
    pub(crate) fn has_any_of(&self, is_it: impl Fn(u64) -> bool) -> bool {
        let is_of = |place: &Place| place.message.is_some() && is_it(place.member);
        is_of(&self.first) || self.count > 0 && self.others.iter().any(is_of)
    }

    /// Whether a message is held, and came on this member.
    pub(crate) fn is_of(&mut self, number: u64, member: u64) -> bool {
        self.find(number).is_ok_and(|place| place.member == member)
    }

    #[inline(always)]
    fn find(&mut self, number: u64) -> Result<&mut Place, Failure> {
        let (index, had) = split(number);
        let place = match index.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.others.get_mut(index),
        };
        match place {
            Some(place) if place.had == had && place.message.is_some() => Ok(place),
            Some(place) if had > 0 && had <= place.had => Err(Status::Freed.into()),
            _ => Err(Status::BadHandle.into()),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&mut self, number: u64) -> Result<&Message<'static>, Failure> {
        self.find(number)?.message.as_ref().ok_or_else(|| Status::Internal.into())
    }

    /// As [`release_at_once`](Self::release_at_once), in the first place.
    #[inline(always)]
    pub(crate) fn release_first(&mut self, number: u64) -> LetGo<'static> {
        match split(number) {
            (0, had) => self.first.release_at_once(had),
            _ => LetGo::No,
        }
    }

    /// As [`Place::release_at_once`].
    #[inline(always)]
    pub(crate) fn release_at_once(&mut self, number: u64) -> LetGo<'static> {
        let (index, had) = split(number);
        let Some(index) = index.checked_sub(1) else { return self.first.release_at_once(had) };
        let Some(place) = self.others.get_mut(index) else { return LetGo::No };
        let released = place.release_at_once(had);
        if !matches!(released, LetGo::No) {
            self.set_free(number);
        }
        released
    }

    /// Lets a message go.
    #[cold]
    pub(crate) fn release(&mut self, number: u64) -> Result<(), Failure> {
        // Where it lies: a message is not moved for nothing.
        self.find(number)?.message = None;
        self.set_free(number);
        Ok(())
    }

    #[inline(always)]
    fn set_free(&mut self, number: u64) {
        let index = number as u32 & (MOST as u32 - 1);
        if index > 0
            && let Some(place) = self.others.get_mut(index as usize - 1)
        {
            place.next_free = std::mem::replace(&mut self.free, index);
            self.count -= 1;
        }
    }
}

/// The place, and how many messages it has had.
#[inline(always)]
fn split(number: u64) -> (usize, u64) {
    (number as usize & (MOST - 1), number >> PLACE_BITS)
}
