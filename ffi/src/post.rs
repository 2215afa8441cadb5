//! `zp_port_post…`: messages go out.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::c_void;
use std::time::Duration;

use zeroport::{AtOnce, Sender, TransferError, TransferList, Transferable};

use crate::bias::{self, Inside};
use crate::boundary::{call, item, items, place, told};
use crate::buffer::{BUFFERS, Bytes};
use crate::holding::{Ending, PORTS, Port};
use crate::options::milliseconds;
use crate::port::CPort;
use crate::status::{Failure, Status};
use crate::table::{Gone, Visit};

/// `zp_item`: the handle of a port or a buffer that goes with a message.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CItem {
    /// Of either.
    pub id: u64,
}

/// `zp_post`: a message that goes out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CPost {
    /// The payload.
    pub data: *const c_void,
    /// Bytes of the payload.
    pub len: usize,
    /// What goes with it.
    pub items: *const CItem,
    /// How many.
    pub item_count: usize,
    /// The type tag; 0 for bytes.
    pub tag: u32,
    /// 0.
    pub reserved: u32,
}

/// `ZP_NO_INDEX`: nothing in the list is to blame.
pub const NO_INDEX: usize = usize::MAX;
/// The most ports, and the most buffers, that one message carries: more are not even looked at.
const MOST: usize = 2 * 1024;

pub(crate) const FOR_EVER: Option<Duration> = None;
pub(crate) const NOT: Option<Duration> = Some(Duration::ZERO);

pub(crate) fn at_most(timeout_ms: u32) -> Option<Duration> {
    Some(milliseconds(timeout_ms))
}

/// Posts bytes; waits for room.
///
/// # Safety
///
/// A1: `data` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post(port: CPort, data: *const c_void, len: usize) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post(port, data, len, FOR_EVER) }
}

/// Posts bytes; does not wait.
///
/// # Safety
///
/// As [`zp_port_post`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_post(port: CPort, data: *const c_void, len: usize) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post(port, data, len, NOT) }
}

/// Posts bytes; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_post`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_timeout(
    port: CPort,
    data: *const c_void,
    len: usize,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post(port, data, len, at_most(timeout_ms)) }
}

/// # Safety
///
/// As [`zp_port_post`].
#[inline(always)]
unsafe fn post(port: CPort, data: *const c_void, len: usize, timeout: Option<Duration>) -> Status {
    if len < Sender::FEW {
        // SAFETY: A1, passed on.
        return unsafe { post_usually(port, data, len, timeout) };
    }
    // SAFETY: A1, passed on.
    unsafe { post_longer(port, data, len, timeout) }
}

/// Apart, because what calls something saves registers.
///
/// # Safety
///
/// As [`zp_port_post`].
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
unsafe extern "C" fn post_longer(
    port: CPort,
    data: *const c_void,
    len: usize,
    timeout: Option<Duration>,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_usually(port, data, len, timeout) }
}

/// The usual case, as short as can be; a panic, of which there is none, would end the process here (A5).
///
/// # Safety
///
/// As [`zp_port_post`].
#[inline(always)]
unsafe fn post_usually(
    port: CPort,
    data: *const c_void,
    len: usize,
    timeout: Option<Duration>,
) -> Status {
    if !data.is_null()
        && isize::try_from(len).is_ok()
        && let Some((visited, inside)) = PORTS.enter_at_once(port.id)
    {
        // SAFETY: A1; it is not null, and not larger than any memory.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast(), len) };
        let posted = match visited.sender() {
            Ok(sender) => sender.post_at_once(bytes),
            Err(_) => AtOnce::NotPosted,
        };
        if let AtOnce::Published { last } = posted {
            return finish(visited, inside, last);
        }
        bias::leave(inside);
        return match posted {
            AtOnce::Posted => Status::Ok,
            // SAFETY: A1, passed on.
            _ => unsafe { post_next(port, data, len, timeout) },
        };
    }
    // SAFETY: A1, passed on.
    unsafe { post_slowly(port, data, len, timeout) }
}

/// The rest of a post in the usual case, where there is more to do than usual.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
extern "C" fn finish(visited: &Port, inside: &Inside, last: u64) -> Status {
    let finished = visited.sender().and_then(|sender| Ok(sender.finish_post(last)?));
    bias::leave(inside);
    finished.map_or_else(told, |()| Status::Ok)
}

/// Where a lap of the ring begins, which is every now and then: as [`post_usually`], A5 too.
///
/// # Safety
///
/// As [`zp_port_post`]; `data` is not null.
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
unsafe extern "C" fn post_next(
    port: CPort,
    data: *const c_void,
    len: usize,
    timeout: Option<Duration>,
) -> Status {
    if let Some((visited, inside)) = PORTS.enter_at_once(port.id) {
        // SAFETY: A1; it is not null, and not larger than any memory.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast(), len) };
        let posted = visited.sender().ok().and_then(|sender| sender.post_next(bytes));
        bias::leave(inside);
        if let Some(posted) = posted {
            return posted.map_or_else(|error| told(error.into()), |()| Status::Ok);
        }
    }
    // SAFETY: A1, passed on.
    unsafe { post_slowly(port, data, len, timeout) }
}

/// # Safety
///
/// As [`zp_port_post`].
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions)] // in C's way only so that nothing unwinds out of it: then it is jumped to
unsafe extern "C" fn post_slowly(
    port: CPort,
    data: *const c_void,
    len: usize,
    timeout: Option<Duration>,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let bytes = unsafe { items(data.cast::<u8>(), len) }?;
        PORTS.enter(port.id)?.sending(port.id, |sender| Ok(sender.post_foreign(bytes, 0, timeout)?))
    })
}

/// Posts bytes with a tag, ports and buffers; waits for room.
///
/// # Safety
///
/// A1: `post` is null or good for what it says; `bad_index` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_with(
    port: CPort,
    post: *const CPost,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_with(port, post, bad_index, FOR_EVER) }
}

/// Posts bytes with a tag, ports and buffers; does not wait.
///
/// # Safety
///
/// As [`zp_port_post_with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_post_with(
    port: CPort,
    post: *const CPost,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_with(port, post, bad_index, NOT) }
}

/// Posts bytes with a tag, ports and buffers; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_post_with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_with_timeout(
    port: CPort,
    post: *const CPost,
    bad_index: *mut usize,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_with(port, post, bad_index, at_most(timeout_ms)) }
}

/// # Safety
///
/// As [`zp_port_post_with`].
unsafe fn post_with(
    port: CPort,
    post: *const CPost,
    bad_index: *mut usize,
    timeout: Option<Duration>,
) -> Status {
    let body = || {
        // SAFETY: A1.
        let post = unsafe { item(post) }?;
        // SAFETY: A1.
        let bytes = unsafe { payload(post) }?;
        // SAFETY: A1.
        let list = unsafe { list(post.items, post.item_count) }?;
        PORTS.enter(port.id)?.sending(port.id, |sender| {
            if list.is_empty() {
                return Ok(sender.post_foreign(bytes, post.tag, timeout)?);
            }
            give_away(port.id, list, |list| {
                sender.post_foreign_with(bytes, post.tag, list, timeout)
            })
        })
    };
    // SAFETY: A1, passed on.
    unsafe { blaming(bad_index, body) }
}

/// The bytes of a message that is as it must be.
///
/// # Safety
///
/// A1: `post` is good for what it says.
pub(crate) unsafe fn payload(post: &CPost) -> Result<&[u8], Failure> {
    if post.reserved != 0 {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1.
    unsafe { items(post.data.cast::<u8>(), post.len) }
}

/// Runs a body that may fail for the sake of something in a list.
///
/// # Safety
///
/// A1: `bad_index` is null or a place.
pub(crate) unsafe fn blaming(
    bad_index: *mut usize,
    body: impl FnOnce() -> Result<(), Failure>,
) -> Status {
    call(|| {
        if bad_index.is_null() {
            return body();
        }
        // SAFETY: A1.
        let place = unsafe { place(bad_index) }?.write(NO_INDEX);
        body().inspect_err(|failure| *place = failure.index().unwrap_or(NO_INDEX))
    })
}

/// # Safety
///
/// A1: null, or so many items.
pub(crate) unsafe fn list<'a>(list: *const CItem, count: usize) -> Result<&'a [CItem], Failure> {
    if count > MOST {
        return Err(Status::TooMany.into());
    }
    // SAFETY: A1.
    unsafe { items(list, count) }
}

/// Something in a list that nobody else uses meanwhile.
enum Giving {
    Port(Visit<Port, Ending>),
    Buffer(Visit<Bytes>),
}

impl Giving {
    fn enter(id: u64) -> Result<Self, Failure> {
        if BUFFERS.is_of(id) {
            let visit = BUFFERS.enter(id)?;
            visit.may_leave()?;
            return Ok(Self::Buffer(visit));
        }
        let visit = PORTS.enter(id)?;
        visit.may_leave()?;
        Ok(Self::Port(visit))
    }

    fn take(&mut self) -> Result<Transferable, Failure> {
        match self {
            Self::Port(visit) => Ok(visit.take()?.into()),
            Self::Buffer(visit) => visit.take(),
        }
    }

    fn put_back(&mut self, thing: Transferable) {
        match (self, thing) {
            (Self::Port(visit), Transferable::Port(port)) => visit.put_back(port),
            (Self::Buffer(visit), thing) => visit.put_back(thing),
            // Not reached: they come back in their order.
            (Self::Port(_), _) => {}
        }
    }

    fn leave(self) {
        match self {
            Self::Port(visit) => drop(visit.leave(Gone::Transferred)),
            Self::Buffer(visit) => drop(visit.leave(Gone::Transferred)),
        }
    }
}

/// Hands all that is listed to `post`; on failure each goes back to its handle.
pub(crate) fn give_away<R>(
    carrier: u64,
    list: &[CItem],
    post: impl FnOnce(TransferList) -> Result<R, TransferError>,
) -> Result<R, Failure> {
    let mut seen = HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let checked = match item.id {
            id if id == carrier => Err(Status::Carrier.into()),
            id => check(id).and_then(|()| match seen.insert(id) {
                true => Ok(()),
                false => Err(Status::Duplicate.into()),
            }),
        };
        checked.map_err(|failure: Failure| failure.at(index))?;
    }
    let mut giving = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        giving.push(Giving::enter(item.id).map_err(|failure| failure.at(index))?);
    }
    // Nothing can fail from here to `post`: what was taken out would be lost.
    let taken = giving.iter_mut().filter_map(|thing| thing.take().ok()).collect();
    match post(taken) {
        Ok(posted) => {
            giving.into_iter().for_each(Giving::leave);
            Ok(posted)
        }
        Err(refused) => {
            for (thing, back) in giving.iter_mut().zip(refused.list) {
                thing.put_back(back);
            }
            Err(refused.source.into())
        }
    }
}

fn check(id: u64) -> Result<(), Failure> {
    if BUFFERS.is_of(id) { BUFFERS.check(id) } else { PORTS.check(id) }
}

/// Posts many messages that appear at once, as far as there is room; waits for room.
///
/// # Safety
///
/// A1: `posts` has `count` messages that are good for what they say; `posted` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_all(
    port: CPort,
    posts: *const CPost,
    count: usize,
    posted: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_all(port, posts, count, posted, FOR_EVER) }
}

/// Posts as many messages as there is room for, all at once; does not wait.
///
/// # Safety
///
/// As [`zp_port_post_all`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_post_all(
    port: CPort,
    posts: *const CPost,
    count: usize,
    posted: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_all(port, posts, count, posted, NOT) }
}

/// Posts as many messages as there is room for; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_post_all`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_all_timeout(
    port: CPort,
    posts: *const CPost,
    count: usize,
    posted: *mut usize,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_all(port, posts, count, posted, at_most(timeout_ms)) }
}

/// # Safety
///
/// As [`zp_port_post_all`].
#[inline(always)]
unsafe fn post_all(
    port: CPort,
    posts: *const CPost,
    count: usize,
    posted: *mut usize,
    timeout: Option<Duration>,
) -> Status {
    call(|| {
        let mut unasked = 0;
        let asked = if posted.is_null() { &raw mut unasked } else { posted };
        // SAFETY: A1, or our own.
        let posted = unsafe { place(asked) }?.write(0);
        // SAFETY: A1.
        let posts = unsafe { items(posts, count) }?;
        // Nothing is posted before all was looked at.
        for post in posts {
            // SAFETY: A1.
            unsafe { payload(post) }?;
            if post.item_count > 0 {
                return Err(Status::BadArgument.into());
            }
        }
        // SAFETY: A1, and it was looked at.
        let of = |post: &CPost| (unsafe { bytes_of(post) }, post.tag);
        PORTS.enter(port.id)?.sending(port.id, |sender| {
            match sender.post_all_foreign(posts, of, timeout) {
                Ok(all) => *posted = all,
                Err(refused) => {
                    *posted = refused.posted;
                    return Err(refused.source.into());
                }
            }
            Ok(())
        })
    })
}

/// # Safety
///
/// A1, and the pointer was checked.
#[inline(always)]
unsafe fn bytes_of<'a>(post: &CPost) -> &'a [u8] {
    if post.len == 0 {
        return &[];
    }
    // SAFETY: A1.
    unsafe { std::slice::from_raw_parts(post.data.cast(), post.len) }
}
