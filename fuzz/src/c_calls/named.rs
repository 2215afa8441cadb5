//! Messages with names, and requests.

use std::ffi::CString;
use std::ptr::null;

use zeroport_ffi::*;

use super::model::{Content, Kind, Model, Said};
use super::step::Message;
use super::{as_c, bytes_at, is_given, say_with};

/// Longer ones are refused.
const LONGEST: usize = 255;

fn name(len: usize) -> CString {
    CString::new(vec![b'n'; len]).unwrap()
}

/// The content of a message as its name makes it.
pub(super) fn open(message: &CMessage, content: Content) -> Content {
    let mut named =
        CNamed { name: null(), name_len: 7, data: null(), len: 7, tag: 7, is_request: 7 };
    // SAFETY: it was received; a place.
    let status = unsafe { zp_message_open(message, &mut named) };
    if status == Status::Unnamed {
        assert!(named.name.is_null() && named.len == 0 && named.is_request == 0);
        return content;
    }
    assert_eq!(status, Status::Ok);
    // SAFETY: it stays as long as the message.
    let name = unsafe { std::slice::from_raw_parts(named.name.cast::<u8>(), named.name_len) };
    assert!(name.iter().all(|letter| *letter == b'n'));
    Content {
        bytes: bytes_at(named.data, named.len),
        tag: named.tag,
        name_len: Some(named.name_len),
        is_request: named.is_request == 1,
        ..content
    }
}

/// A held message is opened like the first time, others not.
pub(super) fn open_again(model: &mut Model, message: u8) {
    let Some(at) = model.message(message) else { return };
    let held = &model.messages[at];
    let mut named =
        CNamed { name: null(), name_len: 7, data: null(), len: 7, tag: 7, is_request: 7 };
    // SAFETY: it was received, and may be gone; a place.
    let status = unsafe { zp_message_open(&held.message, &mut named) };
    if !held.is_held {
        assert_eq!((status, named.len, named.tag), (model.gone_message(at), 0, 0));
        return;
    }
    let Some(name_len) = held.said.name_len else {
        assert_eq!((status, named.len, named.tag), (Status::Unnamed, 0, 0));
        return;
    };
    assert_eq!(status, Status::Ok);
    assert_eq!((named.name_len, named.len), (name_len, held.said.len));
    assert_eq!((named.tag, named.is_request == 1), (held.said.tag, held.said.is_request));
}

pub(super) fn post(model: &mut Model, port: usize, message: &Message, timed: bool, mark: u8) {
    let items = model.items(&message.items);
    let (bytes, list) = (vec![mark; message.len], model.ids(&items));
    let (post, name) = (as_c(message, &bytes, &list), name(message.name_len));
    let (handle, name, mut index) = (model.handle(port), name.as_ptr(), 0);
    let status = match timed {
        // SAFETY: all of it is there.
        true => unsafe { zp_port_post_named_timeout(handle, name, &post, &mut index, 0) },
        // SAFETY: all of it is there.
        false => unsafe { zp_port_try_post_named(handle, name, &post, &mut index) },
    };
    if is_named(model, port, message, (status, index), &items) {
        say_with(model, port, &items, said(message, mark));
    }
}

pub(super) fn invoke(model: &mut Model, port: usize, message: &Message, timed: bool, mark: u8) {
    let items = model.items(&message.items);
    let (bytes, list) = (vec![mark; message.len], model.ids(&items));
    let (post, name) = (as_c(message, &bytes, &list), name(message.name_len));
    let (handle, name, mut index) = (model.handle(port), name.as_ptr(), 0);
    let mut replies = CPort { id: 7 };
    let status = match timed {
        // SAFETY: all of it is there.
        true => unsafe { zp_port_invoke_timeout(handle, name, &post, &mut index, &mut replies, 0) },
        // SAFETY: all of it is there.
        false => unsafe { zp_port_try_invoke(handle, name, &post, &mut index, &mut replies) },
    };
    if !is_named(model, port, message, (status, index), &items) {
        assert_eq!(replies.id, 0);
        return;
    }
    let other = model.open_replies(port, replies.id);
    let said = Said { is_request: true, ports: vec![other], ..said(message, mark) };
    say_with(model, port, &items, said);
}

fn said(message: &Message, mark: u8) -> Said {
    let name_len = Some(message.name_len);
    Said { tag: message.tag, name_len, ..Said::bytes(message.len, mark) }
}

/// Whether it was posted; if not, whether the reason can be.
fn is_named(
    model: &Model,
    port: usize,
    message: &Message,
    (status, index): (Status, usize),
    items: &[(Kind, usize)],
) -> bool {
    if message.reserved != 0 {
        assert_eq!((status, index), (Status::BadArgument, NO_INDEX));
        return false;
    }
    let is_refused = model.refuses_to_post(port).is_some() || model.blame(port, items).is_some();
    if message.name_len > LONGEST && !is_refused {
        assert_eq!((status, index), (Status::TooLarge, NO_INDEX));
        return false;
    }
    is_given(model, port, status, index, items)
}
