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

    /// Whether one more could be kept.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.count < MOST { Ok(()) } else { Err(full()) }
    }

    /// Keeps a message, for which there is room; gives its number, which is never 0.
    ///
    /// # Safety
    ///
    /// A3: what the message borrows stays until the message is released.
    #[inline(always)]
    pub(crate) unsafe fn keep(&mut self, message: Message<'_>, member: u64) -> u64 {
        // SAFETY: A3.
        let message = unsafe { std::mem::transmute::<Message<'_>, Message<'static>>(message) };
        let index = self.free;
        match self.places.get_mut(index as usize) {
            Some(place) => {
                self.free = place.next_free;
                place.had += 1;
                // It had none: nothing is dropped.
                std::mem::forget(place.message.replace(message));
                place.member = member;
                self.count += 1;
                place.had << PLACE_BITS | u64::from(index)
            }
            None => self.keep_anew(message, member),
        }
    }

    #[cold]
    fn keep_anew(&mut self, message: Message<'static>, member: u64) -> u64 {
        let index = self.places.len() as u64;
        self.places.push(Place { message: Some(message), member, had: 1, next_free: NONE });
        self.count += 1;
        1 << PLACE_BITS | index
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

    pub(crate) fn get(&mut self, number: u64) -> Result<&Message<'static>, Failure> {
        self.find(number)?.message.as_ref().ok_or_else(|| Status::Internal.into())
    }

    /// Lets a message go.
    #[inline(always)]
    pub(crate) fn release(&mut self, number: u64) -> Result<(), Failure> {
        let free = self.free;
        let place = self.find(number)?;
        let message = place.message.take();
        place.next_free = free;
        self.free = number as u32 & (MOST as u32 - 1);
        self.count -= 1;
        drop(message);
        Ok(())
    }
}

#[cold]
fn full() -> Failure {
    Failure::system(&std::io::Error::from_raw_os_error(libc::ENOMEM))
}
