//! `zp_port_post_named…`, `zp_port_invoke…`, `zp_message_open`: messages with names.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::ptr;
use std::time::Duration;

use zeroport::{NamedMessage, Reply, Sender, TransferError, TransferList};

use crate::boundary::{call, item, place, text};
use crate::holding::{self, PORTS};
use crate::message::{self, CMessage};
use crate::port::CPort;
use crate::post::{CItem, CPost, FOR_EVER, NOT, at_most, blaming, give_away, list, payload};
use crate::status::{Failure, Status};

/// `ZP_TAG_FAILED`: of a reply that is the text of a failure.
pub const TAG_FAILED: u32 = zeroport::tag_of_name("zeroport.failed");

/// `zp_named`: what a message with a name holds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CNamed {
    /// UTF-8, not terminated.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_len: usize,
    /// The payload; not null.
    pub data: *const c_void,
    /// Bytes of the payload.
    pub len: usize,
    /// The type tag of the payload; 0 for bytes.
    pub tag: u32,
    /// 1: a reply is waited for.
    pub is_request: u32,
}

impl CNamed {
    const NONE: Self =
        Self { name: ptr::null(), name_len: 0, data: ptr::null(), len: 0, tag: 0, is_request: 0 };

    fn of(named: &NamedMessage<'_>) -> Self {
        let (name, bytes) = (named.name(), named.bytes());
        Self {
            name: name.as_ptr().cast(),
            name_len: name.len(),
            data: bytes.as_ptr().cast(),
            len: bytes.len(),
            tag: named.tag(),
            is_request: named.is_request().into(),
        }
    }
}

/// Posts a message with a name; waits for room.
///
/// # Safety
///
/// A1: `name` is null or a text; `post` is null or good for what it says; `bad_index` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_named(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_named(port, name, post, bad_index, FOR_EVER) }
}

/// Posts a message with a name; does not wait.
///
/// # Safety
///
/// As [`zp_port_post_named`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_post_named(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_named(port, name, post, bad_index, NOT) }
}

/// Posts a message with a name; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_post_named`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_post_named_timeout(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { post_named(port, name, post, bad_index, at_most(timeout_ms)) }
}

/// # Safety
///
/// As [`zp_port_post_named`].
unsafe fn post_named(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    timeout: Option<Duration>,
) -> Status {
    let send = |sender: &Sender, name: &str, payload: (&[u8], u32), list| {
        sender.post_message_foreign(name, payload, list, timeout)
    };
    // SAFETY: A1, passed on.
    let body = || unsafe { give_away_named(port, name, post, send) };
    // SAFETY: A1, passed on.
    unsafe { blaming(bad_index, body) }
}

/// Posts a request, and gives the port that the replies come on; waits for room.
///
/// # Safety
///
/// As [`zp_port_post_named`]; `replies` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_invoke(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    replies: *mut CPort,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { invoke(port, name, post, bad_index, replies, FOR_EVER) }
}

/// As [`zp_port_invoke`]; does not wait.
///
/// # Safety
///
/// As [`zp_port_invoke`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_try_invoke(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    replies: *mut CPort,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { invoke(port, name, post, bad_index, replies, NOT) }
}

/// As [`zp_port_invoke`]; waits for room at most so long.
///
/// # Safety
///
/// As [`zp_port_invoke`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_port_invoke_timeout(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    replies: *mut CPort,
    timeout_ms: u32,
) -> Status {
    // SAFETY: A1, passed on.
    unsafe { invoke(port, name, post, bad_index, replies, at_most(timeout_ms)) }
}

/// # Safety
///
/// As [`zp_port_invoke`].
unsafe fn invoke(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    bad_index: *mut usize,
    replies: *mut CPort,
    timeout: Option<Duration>,
) -> Status {
    let send = |sender: &Sender, name: &str, payload: (&[u8], u32), list| {
        sender.invoke_foreign(name, payload, list, timeout)
    };
    let body = || {
        // SAFETY: A1.
        let place = unsafe { place(replies) }?;
        // SAFETY: A1, passed on.
        let reply: Reply = unsafe { give_away_named(port, name, post, send) }?;
        place.write(CPort { id: holding::hold(reply.into_port())? });
        Ok(())
    };
    // Whatever else is wrong.
    // SAFETY: A1.
    if let Ok(place) = unsafe { place(replies) } {
        place.write(CPort { id: 0 });
    }
    // SAFETY: A1, passed on.
    unsafe { blaming(bad_index, body) }
}

/// Has a named message posted with what is listed.
///
/// # Safety
///
/// A1: `name` is null or a text; `post` is null or good for what it says.
unsafe fn give_away_named<R>(
    port: CPort,
    name: *const c_char,
    post: *const CPost,
    send: impl FnOnce(&Sender, &str, (&[u8], u32), TransferList) -> Result<R, TransferError>,
) -> Result<R, Failure> {
    // SAFETY: A1.
    let name = unsafe { text(name) }?.to_str().map_err(|_| Status::BadArgument)?;
    // SAFETY: A1.
    let post = unsafe { item(post) }?;
    // SAFETY: A1.
    let bytes = unsafe { payload(post) }?;
    // SAFETY: A1.
    let list: &[CItem] = unsafe { list(post.items, post.item_count) }?;
    PORTS.enter(port.id)?.sending(port.id, |sender| {
        give_away(port.id, list, |list| send(sender, name, (bytes, post.tag), list))
    })
}

/// Reads a message that has a name.
///
/// # Safety
///
/// A1: `message` is null or was received; `named` is null or a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_message_open(message: *const CMessage, named: *mut CNamed) -> Status {
    call(|| {
        // SAFETY: A1.
        let place = unsafe { place(named) }?.write(CNamed::NONE);
        // SAFETY: A1: it is the caller's, and was received or filled with zeros.
        let [from, number] = unsafe { message::opaque(message) }?;
        message::with_held(from, |held| {
            let opened = NamedMessage::of(held.get(number)?).map_err(|_| Status::Unnamed)?;
            *place = CNamed::of(&opened);
            Ok(())
        })
    })
}
