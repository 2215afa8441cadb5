//! Handles: numbers that lead to something, or tell what became of it.
//!
//! ```text
//!   63        generation        32 31 kind 28 27     place      0
//! ```
//!
//! Each kind of thing has a table of its own. A place stays where it is for ever, so it is found without a lock; one
//! word of it holds the handle that leads there, or tells why none does, so one step enters it and checks the handle.
//! The generations of a table begin at a number that each process draws for itself, so one process's handle means
//! nothing in another. A place that was left is let again, with the next generation, only when many others were left
//! since: so a late caller is told what became of his handle.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bias::{self, Bias, Inside};
use crate::forks;
use crate::status::{Failure, Status};

/// Places that were left before the first of them is let again.
const REMEMBERED: usize = 1024;
/// Places that are made at once.
const CHUNK: usize = 256;
/// So there are at most four million handles of a kind.
const CHUNKS: usize = 16 << 10;

const INDEX: u64 = (1 << 28) - 1;
const KIND: u64 = 0xf << 28;

/// What became of something that had a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its owner closed it.
    Closed = 2,
    /// Its owner gave it away.
    Transferred = 3,
}

// Bits in which the word of a place differs from its handle, as those of [`Gone`] do: why nobody is let in.
const BUSY: u64 = 1;
/// There was no tenant yet.
const NEW: u64 = 4;
const CLOSED: u64 = Gone::Closed as u64;
const TRANSFERRED: u64 = Gone::Transferred as u64;

/// `T` is what one thread at a time uses, `O` what any thread may use at any time.
#[derive(Debug)]
pub(crate) struct Table<T, O = ()> {
    kind: u64,
    /// Each null, or `CHUNK` places that stay for ever.
    chunks: [AtomicPtr<Place<T, O>>; CHUNKS],
    lettings: Mutex<Lettings>,
}

#[derive(Debug)]
struct Lettings {
    /// 0: not drawn yet.
    first_generation: u64,
    places: usize,
    /// Those without tenant, the one that was left first in front.
    left: VecDeque<usize>,
}

/// Alone in its cache lines: threads that use different things do not slow one another down.
#[derive(Debug)]
#[repr(align(128))]
struct Place<T, O> {
    /// The handle that leads here, or one that differs from it by why it does not. That one leads elsewhere, so no handle
    /// whatever, made up or not, is let in by mistake.
    word: AtomicU64,
    /// The thread that may enter without making the place busy.
    bias: Bias,
    /// From a box while the place is idle or busy; whoever is inside has it.
    tenant: UnsafeCell<NonNull<T>>,
    /// The forks that were counted when its tenant came: fewer than now in a forked child that has only a copy. Relaxed: it
    /// was written before the word that lets anybody in.
    forks: AtomicU32,
    outside: Mutex<Option<O>>,
}

// SAFETY: A4: a tenant is touched by who has made its place busy, one at a time, and goes from thread to thread as a whole.
unsafe impl<T, O: Send> Sync for Table<T, O> {}

impl<T: 'static, O: 'static> Table<T, O> {
    /// A table for one kind of things, 1 to 15.
    pub(crate) const fn new(kind: u64) -> Self {
        let lettings = Lettings { first_generation: 0, places: 0, left: VecDeque::new() };
        Self {
            kind: kind << 28,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            lettings: Mutex::new(lettings),
        }
    }

    /// Whether this is a handle of this table's kind, if it is one.
    pub(crate) fn is_of(&self, id: u64) -> bool {
        id & KIND == self.kind
    }

    /// Gives something a handle, which is never 0. Drops it if there are too many.
    pub(crate) fn insert(&'static self, tenant: T, outside: O) -> Result<u64, Failure> {
        forks::watch()?;
        let tenant = NonNull::from(Box::leak(Box::new(tenant)));
        let (index, generation) = self.let_place()?;
        let id = generation << 32 | self.kind | index as u64;
        let place = self.place(id).ok_or(Status::Internal)?;
        *lock(&place.outside) = Some(outside);
        place.forks.store(forks::count(), Ordering::Relaxed);
        // SAFETY: nobody comes in before the word says so: its generation was never there.
        unsafe { *place.tenant.get() = tenant };
        // Release: partner of the Acquire in `enter_busily`.
        place.word.store(id, Ordering::Release);
        Ok(id)
    }

    /// A place without tenant, and its next generation.
    fn let_place(&self) -> Result<(usize, u64), Failure> {
        let mut lettings = lock(&self.lettings);
        if lettings.first_generation == 0 {
            lettings.first_generation = (RandomState::new().hash_one(()) >> 32).max(1);
        }
        if lettings.left.len() > REMEMBERED
            && let Some(index) = lettings.left.pop_front()
            && let Some(place) = self.place(self.kind | index as u64)
        {
            // Relaxed: whoever left it did so under the lock of the lettings.
            return Ok((index, after(place.word.load(Ordering::Relaxed) >> 32)));
        }
        let index = lettings.places;
        if index.is_multiple_of(CHUNK) {
            let full = || Failure::system(&std::io::Error::from_raw_os_error(libc::ENFILE));
            let chunk = self.chunks.get(index / CHUNK).ok_or_else(full)?;
            // Release: partner of the Acquire in `place`.
            chunk.store(new_chunk(index), Ordering::Release);
        }
        lettings.places += 1;
        Ok((index, lettings.first_generation))
    }

    /// The place that a handle names, if it is a handle of this table: only the word of the place tells.
    #[inline(always)]
    fn place(&self, id: u64) -> Option<&'static Place<T, O>> {
        let index = id as usize % (CHUNKS * CHUNK);
        // Acquire: partner of the Release in `let_place`.
        let chunk = self.chunks.get(index / CHUNK)?.load(Ordering::Acquire);
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a chunk has so many places.
        let place = unsafe { chunk.add(index % CHUNK) };
        // SAFETY: it stays for ever.
        Some(unsafe { &*place })
    }

    /// Begins to use what a handle leads to, unless another thread does.
    #[inline(always)]
    pub(crate) fn enter(&'static self, id: u64) -> Result<Visit<T, O>, Failure> {
        let visit = self.enter_to_give_back(id)?;
        if visit.place.is_copy() {
            return Err(Status::Detached.into());
        }
        Ok(visit)
    }

    /// As [`enter`](Self::enter), also in a forked child, to give its copy back.
    #[inline(always)]
    pub(crate) fn enter_to_give_back(&'static self, id: u64) -> Result<Visit<T, O>, Failure> {
        let place = self.place(id).ok_or(Status::BadHandle)?;
        let inside = if place.is_open_to(id) { place.bias.enter() } else { None };
        if inside.is_none() {
            self.enter_busily(place, id)?;
        }
        Ok(Visit { table: self, place, id, inside })
    }

    /// As [`enter`](Self::enter), for the owner of the place only, who is in no other one, and must [leave](bias::leave) it. A
    /// panic before that must end the process (A5): nobody would be let in any more. It does not ask whether a fork has copied
    /// the tenant: that must know it by itself.
    #[allow(clippy::mut_from_ref)] // A4: this thread has it alone
    #[inline(always)]
    pub(crate) fn enter_at_once(
        &'static self,
        id: u64,
    ) -> Option<(&'static mut T, &'static Inside)> {
        let place = self.place(id).filter(|place| place.is_open_to(id))?;
        let inside = place.bias.enter_alone()?;
        // SAFETY: A4: this thread has it alone.
        let mut tenant = unsafe { *place.tenant.get() };
        // SAFETY: it comes from a box, and stays until the place is left.
        Some((unsafe { tenant.as_mut() }, inside))
    }

    /// Makes a place busy.
    #[inline(never)]
    fn enter_busily(&self, place: &Place<T, O>, id: u64) -> Result<(), Failure> {
        // Acquire: partner of the Releases in `insert` and in the drop of the visit before.
        // Relaxed on failure: nothing is touched.
        match place.word.compare_exchange(id, id ^ BUSY, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) if place.bias.disown() => Ok(()),
            Ok(_) => {
                // Release: partner of the Acquire above.
                place.word.store(id, Ordering::Release);
                Err(Status::Busy.into())
            }
            Err(found) => Err(Self::refusal(id, found)),
        }
    }

    #[cold]
    fn refusal(id: u64, found: u64) -> Failure {
        let status = match found ^ id {
            BUSY => Status::Busy,
            CLOSED => Status::Freed,
            TRANSFERRED => Status::Transferred,
            _ => Status::BadHandle,
        };
        status.into()
    }

    /// Whether a handle leads somewhere, whoever uses that.
    pub(crate) fn check(&self, id: u64) -> Result<(), Failure> {
        // Relaxed: it says what there is to say; nobody goes in.
        let found = self.place(id).ok_or(Status::BadHandle)?.word.load(Ordering::Relaxed);
        match Self::refusal(id, found) {
            _ if found == id => Ok(()),
            Failure { status: Status::Busy, .. } => Ok(()),
            refusal => Err(refusal),
        }
    }

    /// Uses what any thread may use, whoever is inside.
    pub(crate) fn at_any_time<R>(&self, id: u64, with: impl FnOnce(&O) -> R) -> Result<R, Failure> {
        self.check(id)?;
        let place = self.place(id).ok_or(Status::BadHandle)?;
        let outside = lock(&place.outside);
        // Who left meanwhile has emptied it first, and who came then has another generation.
        self.check(id)?;
        if place.is_copy() {
            return Err(Status::Detached.into());
        }
        outside.as_ref().map(with).ok_or_else(|| Status::Freed.into())
    }
}

impl<T, O> Place<T, O> {
    /// Whether a fork has copied its tenant.
    #[inline(always)]
    fn is_copy(&self) -> bool {
        self.forks.load(Ordering::Relaxed) != forks::count()
    }

    /// Whether a handle leads here and nobody has made the place busy. The owner need not look again once it is inside: as long
    /// as it is the owner, nobody else gets in.
    #[inline(always)]
    fn is_open_to(&self, id: u64) -> bool {
        // Relaxed: what there is of the tenant this thread has made, or one that has ended and left it its `Owner`.
        self.word.load(Ordering::Relaxed) == id
    }

    /// For the owner, who is inside: another thread may find that out at this moment, and then goes.
    fn make_busy(&self, id: u64) {
        // Acquire: partner of the Release in `enter_busily`. Relaxed on failure: it is tried again.
        let make =
            || self.word.compare_exchange(id, id ^ BUSY, Ordering::Acquire, Ordering::Relaxed);
        while make().is_err() {
            std::thread::yield_now();
        }
    }
}

fn new_chunk<T, O>(first: usize) -> *mut Place<T, O> {
    let place = |index| Place::<T, O> {
        word: AtomicU64::new(index as u64 ^ NEW),
        bias: Bias::new(),
        tenant: UnsafeCell::new(NonNull::dangling()),
        forks: AtomicU32::new(0),
        outside: Mutex::new(None),
    };
    let chunk: Vec<_> = (first..first + CHUNK).map(place).collect();
    Box::into_raw(chunk.into_boxed_slice()).cast()
}

/// One thread's use of what a handle leads to.
#[derive(Debug)]
pub(crate) struct Visit<T: 'static, O: 'static = ()> {
    table: &'static Table<T, O>,
    place: &'static Place<T, O>,
    id: u64,
    /// Where the owner says that it is here; `None`: the place was made busy.
    inside: Option<&'static Inside>,
}

impl<T, O> Visit<T, O> {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the handle from its tenant, for ever.
    pub(crate) fn leave(self, why: Gone) -> Box<T> {
        let Self { table, place, id, inside } = self;
        std::mem::forget(self);
        if let Some(inside) = inside {
            place.make_busy(id);
            bias::leave(inside);
        }
        place.bias.forget();
        *lock(&place.outside) = None;
        // SAFETY: A4: this visit has it alone.
        let tenant = unsafe { *place.tenant.get() };
        // Release: partner of the Acquire in `enter_busily`, which fails.
        place.word.store(id ^ why as u64, Ordering::Release);
        let mut lettings = lock(&table.lettings);
        // A place that has had all generations is never let again.
        if after(id >> 32) != lettings.first_generation {
            lettings.left.push_back((id & INDEX) as usize);
        }
        drop(lettings);
        // SAFETY: it comes from a box, and nobody finds it any more.
        unsafe { Box::from_raw(tenant.as_ptr()) }
    }
}

impl<T, O> Deref for Visit<T, O> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: A4: this visit has it alone.
        let tenant = unsafe { *self.place.tenant.get() };
        // SAFETY: it comes from a box, and stays until the place is left.
        unsafe { tenant.as_ref() }
    }
}

impl<T, O> DerefMut for Visit<T, O> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: A4: this visit has it alone.
        let mut tenant = unsafe { *self.place.tenant.get() };
        // SAFETY: it comes from a box, and stays until the place is left.
        unsafe { tenant.as_mut() }
    }
}

impl<T, O> Drop for Visit<T, O> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.inside {
            Some(inside) => bias::leave(inside),
            None => {
                self.place.bias.own();
                // Release: partner of the Acquire in `enter_busily`.
                self.place.word.store(self.id, Ordering::Release);
            }
        }
    }
}

/// Never while anything of a tenant runs, so never for long.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Never 0: small numbers are no handles.
fn after(generation: u64) -> u64 {
    ((generation + 1) & 0xffff_ffff).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const STEP: u64 = 1 << 32;

    fn table() -> &'static Table<u32> {
        Box::leak(Box::new(Table::new(2)))
    }

    fn status(table: &'static Table<u32>, id: u64) -> Status {
        table.enter(id).map_or_else(|failure| failure.status, |_| Status::Ok)
    }

    #[test]
    fn a_handle_leads_to_what_it_was_given_for() {
        let table = table();
        let handles: Vec<_> = (0..1000).map(|n| table.insert(n, ()).unwrap()).collect();
        for (n, handle) in handles.iter().enumerate() {
            assert_eq!(*table.enter(*handle).unwrap(), n as u32);
        }
    }

    #[test]
    fn what_was_never_given_is_unknown() {
        let table = table();
        let handle = table.insert(7, ()).unwrap();
        let made_up =
            [0, 1, 2, u64::MAX, handle + 1, handle + STEP, handle - STEP, handle ^ 1 << 28];
        for made_up in made_up {
            assert_eq!(status(table, made_up), Status::BadHandle, "{made_up:#x}");
            assert!(table.check(made_up).is_err() && table.at_any_time(made_up, |()| ()).is_err());
        }
        assert_eq!(*table.enter(handle).unwrap(), 7);
    }

    /// Whatever has become of a place: there is one number that leads into it, or none.
    #[test]
    fn no_word_lets_in_who_has_not_that_handle() {
        let table = table();
        let handles: Vec<_> = (0..40).map(|n| table.insert(n, ()).unwrap()).collect();
        let _busy: Vec<_> = (8..16).map(|n| table.enter(handles[n]).unwrap()).collect();
        (16..24).for_each(|n| drop(table.enter(handles[n]).unwrap().leave(Gone::Closed)));
        (24..32).for_each(|n| drop(table.enter(handles[n]).unwrap().leave(Gone::Transferred)));
        for index in 0..CHUNK as u64 {
            let place = table.place(index).unwrap();
            let word = place.word.load(Ordering::Relaxed);
            let is_idle = handles.get(index as usize) == Some(&word);
            assert_eq!(is_idle, index < 8 || (32..40).contains(&index));
            assert!(is_idle || !ptr::eq(table.place(word).unwrap(), place), "{word:#x}");
            let likely = (0..16).map(|kind| word & !KIND ^ kind << 28).chain(0..64);
            for made_up in likely.chain((22..64).map(|bit| word ^ 1 << bit)) {
                if !handles.contains(&made_up) {
                    assert_eq!(status(table, made_up), Status::BadHandle, "{made_up:#x}");
                    assert!(table.at_any_time(made_up, |()| ()).is_err());
                }
            }
        }
    }

    #[test]
    fn one_at_a_time_is_inside_and_any_number_outside() {
        let table = table();
        let handle = table.insert(7, ()).unwrap();
        let visit = table.enter(handle).unwrap();
        assert_eq!(status(table, handle), Status::Busy);
        assert!(table.check(handle).is_ok() && table.at_any_time(handle, |()| ()).is_ok());
        drop(visit);
        assert_eq!(status(table, handle), Status::Ok);
    }

    /// One thread owns the place again and again, another one comes between: nobody is inside together with another.
    #[test]
    fn owners_are_alone_inside() {
        const VISITS: u64 = 500;
        static OWNED: AtomicU64 = AtomicU64::new(0);
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let table: &'static Table<u64> = Box::leak(Box::new(Table::new(2)));
        let handle = table.insert(0, ()).unwrap();
        let count = move || {
            let Ok(mut visit) = table.enter(handle) else { return None };
            // Two at once would lose some of these.
            let before = *visit;
            std::hint::black_box(&mut visit);
            *visit = before + 1;
            Some(visit.inside.is_some())
        };
        let owner = std::thread::spawn(move || {
            let mut entered = 0;
            while !IS_OVER.load(Ordering::Relaxed) {
                let found = count();
                entered += u64::from(found.is_some());
                OWNED.fetch_add(u64::from(found == Some(true)), Ordering::Relaxed);
            }
            entered
        });
        for _ in 0..VISITS {
            let before = OWNED.load(Ordering::Relaxed);
            while OWNED.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            while count().is_none() {}
        }
        IS_OVER.store(true, Ordering::Relaxed);
        let entered = owner.join().unwrap();
        assert_eq!(*table.enter(handle).unwrap(), entered + VISITS);
    }

    #[test]
    fn an_owner_may_leave_for_ever() {
        let table = table();
        let handle = table.insert(7, ()).unwrap();
        let enter = || table.enter(handle).unwrap();
        (0..=bias::STREAK + 1).for_each(|_| drop(enter()));
        let inside = enter();
        assert!(inside.inside.is_some(), "it owns the place");
        assert_eq!(status(table, handle), Status::Busy, "also for the owner itself");
        let other = std::thread::spawn(move || status(table, handle));
        assert_eq!(other.join().unwrap(), Status::Busy);
        assert_eq!(*inside.leave(Gone::Closed), 7);
        assert_eq!(status(table, handle), Status::Freed);
    }

    #[test]
    fn what_is_gone_says_how_until_its_place_is_let_again() {
        let table = table();
        let insert = |n| table.insert(n, ()).unwrap();
        let leave = |id, why| *table.enter(id).unwrap().leave(why);
        let (closed, transferred) = (insert(0), insert(1));
        assert_eq!(leave(closed, Gone::Closed), 0);
        assert_eq!(leave(transferred, Gone::Transferred), 1);
        for n in 0..REMEMBERED as u32 - 2 {
            assert_eq!(leave(insert(n), Gone::Closed), n);
        }
        assert_eq!(status(table, closed), Status::Freed);
        assert_eq!(status(table, transferred), Status::Transferred);
        assert!(table.at_any_time(closed, |()| ()).is_err());

        assert_eq!(leave(insert(7), Gone::Closed), 7);
        let again = insert(8);
        assert_eq!(again & INDEX, closed & INDEX, "the place that was left first");
        assert_eq!(status(table, closed), Status::BadHandle);
        assert_eq!(*table.enter(again).unwrap(), 8);
        assert_eq!(lock(&table.lettings).places, REMEMBERED + 1);
    }

    #[test]
    fn a_place_is_not_let_for_ever() {
        let table = table();
        lock(&table.lettings).first_generation = 5;
        let handle = table.insert(7, ()).unwrap();
        assert_eq!(handle >> 32, 5);
        table.place(handle).unwrap().word.store(handle - STEP, Ordering::Relaxed);
        table.enter(handle - STEP).unwrap().leave(Gone::Closed);
        assert!(
            lock(&table.lettings).left.is_empty(),
            "the next generation would be the first one"
        );
        assert_eq!(after(u64::from(u32::MAX)), 1);
    }
}
