//! Handles: numbers that lead to something, or tell what became of it.
//!
//! A number is a place and a generation, which changes whenever the place gets another tenant. The
//! generations begin at a number that each process draws for itself, so one process's handle means
//! nothing in another. A place that was left is let again only when many others were left since, so
//! that a late caller is told what became of his handle.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// Places that were left before the first of them is let again.
const REMEMBERED: usize = 1024;

/// What became of something that had a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its owner closed it.
    Closed,
    /// Its owner gave it away.
    Transferred,
}

/// A handle that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// It never was one, or it is so long gone that nobody knows.
    Unknown,
    /// It was one.
    Gone(Gone),
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    tenant: Result<T, Gone>,
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    first_generation: u32,
    places: Vec<Place<T>>,
    /// Those without tenant, the one that was left first in front.
    left: VecDeque<u32>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self::starting_at(RandomState::new().hash_one(()) as u32)
    }

    fn starting_at(generation: u32) -> Self {
        Self { first_generation: generation.max(1), places: Vec::new(), left: VecDeque::new() }
    }

    /// Gives something a handle, which is never 0.
    pub(crate) fn insert(&mut self, tenant: T) -> u64 {
        if self.left.len() > REMEMBERED
            && let Some(index) = self.left.pop_front()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.generation = after(place.generation);
            place.tenant = Ok(tenant);
            return id(place.generation, index);
        }
        let (generation, index) = (self.first_generation, self.places.len() as u32);
        self.places.push(Place { generation, tenant: Ok(tenant) });
        id(generation, index)
    }

    pub(crate) fn get(&self, id: u64) -> Result<&T, Stale> {
        match self.places.get(index(id)) {
            Some(place) if place.generation == generation(id) => {
                place.tenant.as_ref().map_err(|gone| Stale::Gone(*gone))
            }
            _ => Err(Stale::Unknown),
        }
    }

    /// Takes the handle from something, for ever.
    pub(crate) fn remove(&mut self, id: u64, why: Gone) -> Result<T, Stale> {
        self.get(id)?;
        let place = self.places.get_mut(index(id)).ok_or(Stale::Unknown)?;
        let tenant = std::mem::replace(&mut place.tenant, Err(why)).map_err(Stale::Gone)?;
        // A place that has had all generations is never let again.
        if after(place.generation) != self.first_generation {
            self.left.push_back(index(id) as u32);
        }
        Ok(tenant)
    }
}

fn id(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn generation(id: u64) -> u32 {
    (id >> 32) as u32
}

fn index(id: u64) -> usize {
    id as u32 as usize
}

/// Never 0: small numbers are no handles.
fn after(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_leads_to_what_it_was_given_for() {
        let mut table = Table::new();
        let handles: Vec<_> = (0..100).map(|n| table.insert(n)).collect();
        for (n, handle) in handles.iter().enumerate() {
            assert_eq!(table.get(*handle), Ok(&n));
        }
    }

    #[test]
    fn what_was_never_given_is_unknown() {
        let mut table = Table::new();
        let handle = table.insert(());
        for made_up in [0, 1, 2, u64::MAX, handle + 1, handle + (1 << 32), handle - (1 << 32)] {
            assert_eq!(table.get(made_up), Err(Stale::Unknown), "{made_up:#x}");
            assert_eq!(table.remove(made_up, Gone::Closed), Err(Stale::Unknown), "{made_up:#x}");
        }
        assert_eq!(table.get(handle), Ok(&()));
    }

    #[test]
    fn what_is_gone_says_how_until_its_place_is_let_again() {
        let mut table = Table::new();
        let closed = table.insert(0);
        let transferred = table.insert(1);
        assert_eq!(table.remove(closed, Gone::Closed), Ok(0));
        assert_eq!(table.remove(transferred, Gone::Transferred), Ok(1));
        for n in 0..REMEMBERED - 2 {
            let other = table.insert(n);
            assert_eq!(table.remove(other, Gone::Closed), Ok(n));
        }
        assert_eq!(table.get(closed), Err(Stale::Gone(Gone::Closed)));
        assert_eq!(table.remove(closed, Gone::Transferred), Err(Stale::Gone(Gone::Closed)));
        assert_eq!(table.get(transferred), Err(Stale::Gone(Gone::Transferred)));

        let last = table.insert(7);
        assert_eq!(table.remove(last, Gone::Closed), Ok(7));
        let again = table.insert(8);
        assert_eq!(index(again), index(closed), "the place that was left first");
        assert_eq!(table.get(closed), Err(Stale::Unknown));
        assert_eq!(table.get(again), Ok(&8));
        assert_eq!(table.places.len(), REMEMBERED + 1);
    }

    #[test]
    fn a_place_is_not_let_for_ever() {
        let mut table = Table::starting_at(5);
        let handle = table.insert(());
        table.places[0].generation = 4;
        assert_eq!(table.remove(handle - (1 << 32), Gone::Closed), Ok(()));
        assert!(table.left.is_empty(), "the next generation would be the first one");
        assert_eq!(after(u32::MAX), 1);
    }
}
