//! Messages that were received and not yet released, by numbers.
//!
//! A number is a place, and how many messages the place has had: so a number that was released is known as such.
#![allow(unsafe_code)]

use zeroport::Message;

use crate::status::{Failure, Status};

/// Bits of a number that are the place.
const PLACE_BITS: u32 = 24;
/// A port that holds so many messages gets no more.
const MOST: usize = 1 << PLACE_BITS;
const NONE: u32 = u32::MAX;

/// They borrow what they lie beside, which neither moves nor goes while there is one (A3).
#[derive(Debug)]
pub(crate) struct Held {
    places: Vec<Place>,
    /// The first of the free places.
    free: u32,
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

impl Held {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: NONE, count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.free != NONE
    }

    /// Makes room for one more, if there may be one more.
    #[inline(always)]
    pub(crate) fn make_room(&mut self) -> Result<(), Failure> {
        if self.free == NONE { self.add_place() } else { Ok(()) }
    }

    #[cold]
    fn add_place(&mut self) -> Result<(), Failure> {
        if self.places.len() >= MOST {
            return Err(Failure::system(&std::io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        self.free = self.places.len() as u32;
        self.places.push(Place { message: None, member: 0, had: 0, next_free: NONE });
        Ok(())
    }

    /// Keeps a message, for which room was made; gives where it lies now, and its number, which is never 0.
    ///
    /// # Safety
    ///
    /// A3: what the message borrows stays until the message is released.
    #[inline(always)]
    pub(crate) unsafe fn keep(
        &mut self,
        message: Message<'_>,
        member: u64,
    ) -> (Option<&Message<'static>>, u64) {
        // SAFETY: A3.
        let message = unsafe { std::mem::transmute::<Message<'_>, Message<'static>>(message) };
        let index = self.free;
        let Some(place) = self.places.get_mut(index as usize) else {
            // Not reached. (If it were dropped here it would go through memory also where it is not.)
            std::mem::forget(message);
            return (None, 0);
        };
        // It had none: nothing is dropped.
        std::mem::forget(place.message.replace(message));
        self.free = place.next_free;
        self.count += 1;
        place.had += 1;
        place.member = member;
        (place.message.as_ref(), place.had << PLACE_BITS | u64::from(index))
    }

    /// Whether any message of such a member is held.
    pub(crate) fn has_any_of(&self, is_it: impl Fn(u64) -> bool) -> bool {
        let is_of = |place: &Place| place.message.is_some() && is_it(place.member);
        !self.is_empty() && self.places.iter().any(is_of)
    }

    /// Whether a message is held, and came on this member.
    pub(crate) fn is_of(&mut self, number: u64, member: u64) -> bool {
        self.find(number).is_ok_and(|place| place.member == member)
    }

    #[inline(always)]
    fn find(&mut self, number: u64) -> Result<&mut Place, Failure> {
        let (index, had) = (number as usize & (MOST - 1), number >> PLACE_BITS);
        match self.places.get_mut(index) {
            Some(place) if place.had == had && place.message.is_some() => Ok(place),
            Some(place) if had > 0 && had <= place.had => Err(Status::Freed.into()),
            _ => Err(Status::BadHandle.into()),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&mut self, number: u64) -> Result<&Message<'static>, Failure> {
        self.find(number)?.message.as_ref().ok_or_else(|| Status::Internal.into())
    }

    /// Lets a message go, if it is one as most are.
    #[inline(always)]
    pub(crate) fn release_at_once(&mut self, number: u64) -> bool {
        let is_usual = |message: &Message<'_>| message.is_in_place();
        self.get(number).is_ok_and(is_usual) && self.release(number).is_ok()
    }

    /// Lets a message go.
    #[inline(always)]
    pub(crate) fn release(&mut self, number: u64) -> Result<(), Failure> {
        let free = self.free;
        let place = self.find(number)?;
        // Where it lies: a message is not moved for nothing.
        place.message = None;
        place.next_free = free;
        self.free = number as u32 & (MOST as u32 - 1);
        self.count -= 1;
        Ok(())
    }
}
