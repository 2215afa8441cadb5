//! Sequences of C calls on whatever handles there are, live or long gone, against a model: it knows what became of each
//! handle, what waits in each channel, and so what a call may say. At the end everything is given back.
#![allow(unsafe_code)]

mod halves;
mod model;
mod named;
mod step;
pub(crate) mod stories;

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

use zeroport_ffi::*;

use model::{Content, Gathering, Kind, Model, Said, State};
use step::{Inside, Message, Step, step};

/// What handlers were told and did, in order.
enum Told {
    Message { port: u64, content: Content, inside: Inside, status: Status },
    Closed { port: u64, reason: Status },
    Removed(usize),
}

thread_local! {
    static TOLD: RefCell<Vec<Told>> = const { RefCell::new(Vec::new()) };
    static DOES: RefCell<(Inside, u64)> = const { RefCell::new((Inside::Nothing, 0)) };
}

fn tell(told: Told) {
    TOLD.with_borrow_mut(|all| all.push(told));
}

/// So many bytes of what was received.
fn bytes_at(data: *const c_void, len: usize) -> Vec<u8> {
    assert!(!data.is_null() && data.addr().is_multiple_of(16));
    // SAFETY: it was received and not released.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
}

fn content(message: &CMessage) -> Content {
    let content = Content {
        bytes: bytes_at(message.data, message.len),
        tag: message.tag,
        name_len: None,
        is_request: false,
        ports: message.port_count as usize,
        buffers: message.buffer_count as usize,
    };
    named::open(message, content)
}

unsafe extern "C" fn on_message(_user: *mut c_void, port: CPort, message: *mut CMessage) {
    let (inside, id) = DOES.with_borrow(|does| *does);
    let events = CLoop { id };
    // SAFETY: the library has given it for this call.
    let told = unsafe { *message };
    let content = content(&told);
    let status = match inside {
        Inside::Nothing => Status::Ok,
        // SAFETY: as above.
        Inside::Release => unsafe { zp_message_release(message) },
        Inside::Close => zp_port_close(port),
        Inside::Remove => zp_loop_remove(events, port),
        Inside::Pause => zp_loop_pause(events, port),
        Inside::Stop => zp_loop_stop(events),
        Inside::RunAgain => {
            assert_eq!(zp_loop_close(events), Status::Busy);
            let status = zp_loop_run_ready(events);
            assert_eq!(status, Status::Busy);
            Status::Ok
        }
    };
    tell(Told::Message { port: port.id, content, inside, status });
}

unsafe extern "C" fn on_close(_user: *mut c_void, port: CPort, reason: Status) {
    assert_eq!(zp_port_close(port), Status::Freed);
    tell(Told::Closed { port: port.id, reason });
}

unsafe extern "C" fn on_error(_user: *mut c_void, _port: CPort, status: Status) {
    panic!("there are descriptors and memory: {status:?}");
}

unsafe extern "C" fn removed(user: *mut c_void) {
    tell(Told::Removed(user.addr()));
}

pub fn c_calls(data: &[u8]) {
    // What stays with a process that has made its first channel.
    drop(zeroport::MessageChannel::new().unwrap());
    zeroport::trim();
    let before = open_descriptors();
    let mut model = Model::default();
    open(&mut model, false, false, false);
    let (steps, _) = data.as_chunks::<4>();
    for (number, bytes) in steps.iter().take(200).enumerate() {
        play(&mut model, step(*bytes), number as u8);
        hear(&mut model);
        model.expect_removals();
    }
    end(&mut model);
    zeroport::trim();
    assert_eq!(open_descriptors(), before, "descriptors");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Takes note of what handlers were told.
fn hear(model: &mut Model) {
    for told in TOLD.take() {
        match told {
            Told::Message { port, content, inside, status } => {
                let port = model.live_member(port);
                model.expect_next(port, &content);
                model.drop_current();
                assert_eq!(status, Status::Ok, "{inside:?}");
                match inside {
                    Inside::Close => model.close(port),
                    Inside::Remove => model.leave(port),
                    Inside::Pause => model.set_paused(port, true),
                    _ => {}
                }
            }
            Told::Closed { port, reason } => {
                let port = model.live_member(port);
                model.expect_end(port, reason);
                let is_ours = model.is_shut(port) && reason == Status::Closed;
                assert!(!is_ours, "this program has shut it down");
                model.close(port);
            }
            Told::Removed(insertion) => model.note_removal(insertion),
        }
    }
}

fn play(model: &mut Model, step: Step, mark: u8) {
    match step {
        Step::Channel { untrusted, small, cold } => open(model, untrusted, small, cold),
        Step::Close(port) => close(model, model.port(port)),
        Step::Shutdown(port) => shutdown(model, model.port(port)),
        Step::Post { port, len } => post(model, model.port(port), len, mark),
        Step::PostWith { port, message } => post_with(model, model.port(port), &message, mark),
        Step::PostAll { port, count, timed } => {
            post_all(model, model.port(port), count, timed, mark);
        }
        Step::Loan { port, len } => reserve(model, model.port(port), len, mark),
        Step::Publish { port, used, item } => {
            let items = model.items(&[item]);
            publish(model, model.borrower(port), used.into(), &items);
        }
        Step::Cancel(port) => cancel(model, model.borrower(port)),
        Step::Receive { port, most } => receive(model, model.reader(port), most.into()),
        Step::TakePorts { message, capacity } => take_ports(model, message, capacity.into()),
        Step::TakeBuffers { message, capacity } => take_buffers(model, message, capacity.into()),
        Step::Release(message) => release(model, message),
        Step::ReleaseAll => release_all(model),
        Step::Buffer { len, sealed } => make_buffer(model, len, sealed, mark),
        Step::CopyBuffer(buffer) => copy_buffer(model, buffer),
        Step::FreeBuffer(buffer) => free_buffer(model, buffer),
        Step::Gathering { is_loop } => gather(model, is_loop),
        Step::Insert { gathering, port, deaf } => insert(model, gathering, model.port(port), deaf),
        Step::Remove { gathering, port } => remove(model, gathering, model.port(port)),
        Step::Pause { gathering, port, resume } => {
            pause(model, gathering, model.port(port), resume)
        }
        Step::Wait { gathering, most } => wait(model, gathering, most.into()),
        Step::Run { gathering, until, inside } => run(model, gathering, until, inside),
        Step::Signal { gathering, stop, arm } => signal(model, gathering, stop, arm),
        Step::CloseGathering(gathering) => close_gathering(model, gathering),
        Step::Ask(port) => ask(model, model.port(port)),
        Step::Travel(port) => travel(model, model.port(port)),
        Step::MadeUp { id, of, number } => made_up(model, id, of, number),
        Step::Split(port) => halves::split(model, model.port(port)),
        Step::Join { sender, receiver } => halves::join(model, sender, receiver),
        Step::Named { port, message, timed } => {
            named::post(model, model.port(port), &message, timed, mark);
        }
        Step::Invoke { port, message, timed } => {
            named::invoke(model, model.port(port), &message, timed, mark);
        }
        Step::Open(message) => named::open_again(model, message),
        Step::Busy(port) => halves::keep_busy(model, model.port(port)),
    }
}

fn open(model: &mut Model, untrusted: bool, small: bool, cold: bool) {
    if model.ports.len() >= 64 {
        return;
    }
    let options = COptions {
        size: size_of::<COptions>(),
        trust: if untrusted { 2 } else { 1 },
        wait: 0,
        capacity: if small { [4096; 2] } else { [0; 2] },
        limit: if small { [0, 200_000] } else { [USUAL_LIMIT; 2] },
        cold: cold.into(),
        reserved: 0,
    };
    let mut ports = [CPort { id: 1 }; 2];
    // SAFETY: places and options that are there.
    assert_eq!(unsafe { zp_channel_new(ports.as_mut_ptr(), &options) }, Status::Ok);
    model.open(ports.map(|port| port.id), !untrusted, small);
}

fn close(model: &mut Model, port: usize) {
    let status = zp_port_close(model.handle(port));
    // To close a member is to change its set.
    let refusal = model.gone(port).or(model.refuses_to_go(port)).or(model.borrows(port));
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.close(port);
    }
}

fn shutdown(model: &mut Model, port: usize) {
    let status = zp_port_shutdown(model.handle(port));
    assert_eq!(status, model.gone(port).unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.shut_down(port);
    }
}

/// Whether it was posted; if not, whether the reason can be.
fn is_posted(model: &Model, port: usize, status: Status) -> bool {
    if let Some(expected) = model.refuses_to_post(port) {
        assert_eq!(status, expected);
        return false;
    }
    let is_loaned = model.ports[port].loan.is_some();
    match status {
        Status::Ok => {
            assert!(!model.is_known_to_be_over(port) && !is_loaned);
            return true;
        }
        Status::Full => assert!(!is_loaned),
        Status::Loaned => assert!(is_loaned),
        Status::Closed | Status::Lost => assert!(model.may_be_over(port)),
        other => panic!("{other:?}"),
    }
    false
}

/// Of a message that any free ring has room for.
const SHORT: usize = 200;

fn post(model: &mut Model, port: usize, len: usize, mark: u8) {
    let bytes = vec![mark; len];
    // SAFETY: the bytes are there.
    let status = unsafe { zp_port_try_post(model.handle(port), bytes.as_ptr().cast(), len) };
    if is_posted(model, port, status) {
        model.say(port, Said::bytes(len, mark));
    }
    assert!(status != Status::Full || len >= SHORT || !model.is_empty(port), "there is room");
}

/// The struct for C. What it points to must outlive it.
fn as_c(message: &Message, bytes: &[u8], list: &[CItem]) -> CPost {
    CPost {
        data: bytes.as_ptr().cast(),
        len: bytes.len(),
        items: if list.is_empty() { null() } else { list.as_ptr() },
        item_count: list.len(),
        tag: message.tag,
        reserved: message.reserved,
    }
}

fn post_with(model: &mut Model, port: usize, message: &Message, mark: u8) {
    let items = model.items(&message.items);
    let (bytes, list) = (vec![mark; message.len], model.ids(&items));
    let post = as_c(message, &bytes, &list);
    let mut index = 0;
    // SAFETY: all of it is there.
    let status = unsafe { zp_port_try_post_with(model.handle(port), &post, &mut index) };
    if post.reserved != 0 {
        assert_eq!((status, index), (Status::BadArgument, NO_INDEX));
        return;
    }
    let said = Said { tag: message.tag, ..Said::bytes(message.len, mark) };
    if is_given(model, port, status, index, &items) {
        say_with(model, port, &items, said);
    }
}

fn say_with(model: &mut Model, port: usize, items: &[(Kind, usize)], said: Said) {
    let said = model.give(port, items, said);
    model.say(port, said);
}

/// Whether it was posted with a list; if not, whether the reason can be.
fn is_given(
    model: &Model,
    port: usize,
    status: Status,
    index: usize,
    items: &[(Kind, usize)],
) -> bool {
    if model.refuses_to_post(port).is_none()
        && let Some(expected) = model.blame(port, items)
    {
        assert_eq!((index, status), expected);
        return false;
    }
    if index == NO_INDEX {
        return is_posted(model, port, status);
    }
    assert!(model.may_refuse(port, items[index], status), "{status:?} of {:?}", items[index]);
    false
}

fn post_all(model: &mut Model, port: usize, count: u8, timed: bool, mark: u8) {
    let bytes = [mark; 16];
    let posts: Vec<_> = (0..count)
        .map(|len| CPost {
            data: bytes.as_ptr().cast(),
            len: len.into(),
            items: null(),
            item_count: 0,
            tag: len.into(),
            reserved: 0,
        })
        .collect();
    let (handle, mut posted) = (model.handle(port), 77);
    let status = match timed {
        // SAFETY: all of it is there.
        true => unsafe {
            zp_port_post_all_timeout(handle, posts.as_ptr(), posts.len(), &mut posted, 0)
        },
        // SAFETY: all of it is there.
        false => unsafe { zp_port_try_post_all(handle, posts.as_ptr(), posts.len(), &mut posted) },
    };
    // Nothing at all may be posted anywhere.
    let is_nothing = count == 0 && status == Status::Ok && model.refuses_to_post(port).is_none();
    if !is_nothing && !is_posted(model, port, status) {
        assert!(posted < posts.len().max(1));
    } else {
        assert_eq!(posted, posts.len());
    }
    for len in 0..posted {
        model.say(port, Said { tag: len as u32, ..Said::bytes(len, mark) });
    }
}

fn reserve(model: &mut Model, port: usize, len: usize, mark: u8) {
    let mut loan = CLoan { data: null_mut(), len: 7, opaque: [0; 2] };
    // SAFETY: a place.
    let status = unsafe { zp_port_try_reserve(model.handle(port), len, &mut loan) };
    if model.set_of(port).is_some() {
        assert_eq!(status, Status::Member);
    } else if is_posted(model, port, status) {
        assert_eq!(loan.len, len);
        // SAFETY: reserved just now.
        unsafe { loan.data.cast::<u8>().write_bytes(mark, len) };
        model.ports[port].loan = Some((loan, mark));
        expect_spent(model, port);
        return;
    }
    assert!(loan.data.is_null() && loan.opaque == [0; 2]);
}

/// What was published or cancelled cannot be again.
fn expect_spent(model: &Model, port: usize) {
    if let Some(old) = model.ports[port].old_loan {
        let expected = model.gone(port).unwrap_or(Status::Freed);
        let mut index = 0;
        // SAFETY: a copy of what was reserved.
        let cancelled = unsafe { zp_loan_cancel(&mut { old }) };
        // SAFETY: the same.
        let published = unsafe { zp_loan_publish(&mut { old }, 0, 3, null(), 0, &mut index) };
        assert_eq!([cancelled, published], [expected; 2]);
    }
}

fn publish(model: &mut Model, port: usize, used: usize, items: &[(Kind, usize)]) {
    expect_spent(model, port);
    let Some((mut loan, mark)) = model.ports[port].loan else { return };
    let is_long = loan.len >= SHORT || !items.is_empty();
    // Some buffers there is never room for.
    let is_tight = model.is_small(port) && items.iter().any(|item| item.0 == Kind::Buffer);
    if is_tight || is_long && !model.is_empty(port) {
        return; // it might wait
    }
    let used = used % (loan.len + 2);
    let list = model.ids(items);
    let items_at = if list.is_empty() { null() } else { list.as_ptr() };
    let (mut index, before) = (0, loan);
    // SAFETY: all of it is there.
    let status = unsafe { zp_loan_publish(&mut loan, used, 3, items_at, list.len(), &mut index) };
    let is_too_large = used > before.len;
    if is_too_large || model.blame(port, items).is_some() {
        assert!(loan.data == before.data && loan.opaque == before.opaque);
        let expected = Some((NO_INDEX, Status::TooLarge)).filter(|_| is_too_large);
        assert_eq!(Some((index, status)), expected.or(model.blame(port, items)));
        return;
    }
    assert!(loan.data.is_null() && loan.opaque == [0; 2]);
    model.ports[port].loan = None;
    model.ports[port].old_loan = Some(before);
    expect_spent(model, port);
    if is_given(model, port, status, index, items) {
        say_with(model, port, items, Said { tag: 3, ..Said::bytes(used, mark) });
    }
}

fn cancel(model: &mut Model, port: usize) {
    expect_spent(model, port);
    if let Some((mut loan, _)) = model.ports[port].loan.take() {
        model.ports[port].old_loan = Some(loan);
        // SAFETY: it was reserved.
        assert_eq!(unsafe { zp_loan_cancel(&mut loan) }, Status::Ok);
        assert!(loan.data.is_null() && loan.opaque == [0; 2]);
        expect_spent(model, port);
    }
}

fn receive(model: &mut Model, port: usize, most: usize) {
    let mut messages = [CMessage::NONE; 4];
    let mut count = 1;
    let there = model.waiting_for(port).min(most.max(1));
    let status = match most {
        // SAFETY: a place.
        0 => unsafe { zp_port_try_recv(model.handle(port), messages.as_mut_ptr()) },
        // SAFETY: so many places.
        _ => unsafe {
            zp_port_try_recv_all(model.handle(port), messages.as_mut_ptr(), most, &mut count)
        },
    };
    if let Some(expected) = model.refuses_to_receive(port) {
        assert_eq!(status, expected);
        return;
    }
    match status {
        Status::Ok => {
            assert_eq!(count, there);
            for message in &messages[..count] {
                model.expect_next(port, &content(message));
                model.hold(port, *message);
            }
        }
        Status::Empty => assert!(there == 0 && !model.is_known_to_be_over(port)),
        status => {
            model.expect_end(port, status);
            model.note_end(port);
        }
    }
}

fn take_ports(model: &mut Model, message: u8, capacity: usize) {
    let Some(message) = model.message(message) else { return };
    let mut ports = [CPort { id: 0 }; 4];
    let (mut count, capacity) = (77, capacity % 5);
    let held = &mut model.messages[message];
    // SAFETY: it was received; so many places.
    let status = unsafe {
        zp_message_take_ports(&mut held.message, ports.as_mut_ptr(), capacity, &mut count)
    };
    let said = held.said.ports.len();
    if !held.is_held {
        assert_eq!((status, count), (model.gone_message(message), 0));
    } else if said > capacity {
        assert_eq!((status, count), (Status::TooSmall, said));
    } else {
        assert_eq!((status, count, held.message.port_count), (Status::Ok, said, 0));
        model.take_ports(message, &ports[..count]);
    }
}

fn take_buffers(model: &mut Model, message: u8, capacity: usize) {
    let Some(message) = model.message(message) else { return };
    let mut buffers = [CBuffer { id: 0 }; 4];
    let (mut count, capacity) = (77, capacity % 5);
    let held = &mut model.messages[message];
    // SAFETY: it was received; so many places.
    let status = unsafe {
        zp_message_take_buffers(&mut held.message, buffers.as_mut_ptr(), capacity, &mut count)
    };
    let said = held.said.buffers.len();
    if !held.is_held {
        assert_eq!((status, count), (model.gone_message(message), 0));
    } else if said > capacity {
        assert_eq!((status, count), (Status::TooSmall, said));
    } else {
        assert_eq!((status, count, held.message.buffer_count), (Status::Ok, said, 0));
        let said = std::mem::take(&mut held.said.buffers);
        for (buffer, (len, mark)) in buffers.into_iter().zip(said) {
            expect_buffer(buffer, len, mark);
            model.buffers.push((buffer.id, len, mark, true, State::Live));
        }
    }
}

fn expect_buffer(buffer: CBuffer, len: usize, mark: u8) {
    let (mut data, mut found) = (null(), 0);
    // SAFETY: places.
    assert_eq!(unsafe { zp_buffer_read(buffer, &mut data, &mut found) }, Status::Ok);
    assert_eq!(found, len);
    // SAFETY: it is there until it is freed.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), found) };
    assert!(bytes.iter().all(|byte| *byte == mark));
}

fn release(model: &mut Model, message: u8) {
    let Some(message) = model.message(message) else { return };
    let mut copy = model.messages[message].message;
    // SAFETY: it was received.
    let status = unsafe { zp_message_release(&mut copy) };
    if model.messages[message].is_held {
        assert_eq!(status, Status::Ok);
        assert!(copy.data.is_null() && copy.opaque == [0; 2]);
        model.release(message);
    } else {
        assert_eq!(status, model.gone_message(message));
    }
}

fn release_all(model: &mut Model) {
    let held: Vec<_> = (0..model.messages.len()).filter(|at| model.messages[*at].is_held).collect();
    let mut copies: Vec<_> = held.iter().map(|at| model.messages[*at].message).collect();
    // SAFETY: they were received.
    let status = unsafe { zp_messages_release(copies.as_mut_ptr(), copies.len()) };
    assert_eq!(status, Status::Ok);
    held.into_iter().for_each(|at| model.release(at));
}

fn make_buffer(model: &mut Model, len: u16, sealed: bool, mark: u8) {
    if model.buffers.len() >= 64 {
        return;
    }
    let mut buffer = CBuffer { id: 0 };
    // SAFETY: a place.
    assert_eq!(unsafe { zp_buffer_new(len.into(), &mut buffer) }, Status::Ok);
    fill(buffer, mark);
    if sealed {
        assert_eq!(zp_buffer_seal(buffer), Status::Ok);
        let (mut data, mut found) = (null_mut(), 7);
        // SAFETY: places.
        assert_eq!(unsafe { zp_buffer_write(buffer, &mut data, &mut found) }, Status::Sealed);
        assert!(data.is_null() && found == 0);
    }
    model.buffers.push((buffer.id, len.into(), mark, sealed, State::Live));
}

fn fill(buffer: CBuffer, mark: u8) {
    let (mut data, mut found) = (null_mut(), 0);
    // SAFETY: places.
    assert_eq!(unsafe { zp_buffer_write(buffer, &mut data, &mut found) }, Status::Ok);
    // SAFETY: it is there until it is sealed or freed.
    unsafe { data.cast::<u8>().write_bytes(mark, found) };
}

fn copy_buffer(model: &mut Model, buffer: u8) {
    let Some(buffer) = model.buffer(buffer) else { return };
    let (id, len, mark, _, state) = model.buffers[buffer];
    let mut copy = CBuffer { id: 7 };
    // SAFETY: a place.
    let status = unsafe { zp_buffer_copy(CBuffer { id }, &mut copy) };
    if let Some(expected) = state.refusal() {
        assert_eq!((status, copy.id), (expected, 0));
        return;
    }
    assert_eq!(status, Status::Ok);
    expect_buffer(copy, len, mark);
    fill(copy, mark);
    assert_eq!(zp_buffer_free(copy), Status::Ok);
    expect_buffer(CBuffer { id }, len, mark);
}

fn free_buffer(model: &mut Model, buffer: u8) {
    let Some(buffer) = model.buffer(buffer) else { return };
    let (id, .., state) = &mut model.buffers[buffer];
    let status = zp_buffer_free(CBuffer { id: *id });
    assert_eq!(status, state.refusal().unwrap_or(Status::Ok));
    if status == Status::Ok {
        *state = State::Freed;
    }
}

fn gather(model: &mut Model, is_loop: bool) {
    if model.gatherings.len() >= 16 {
        return;
    }
    let (mut set, mut events) = (CSet { id: 0 }, CLoop { id: 0 });
    let status = match is_loop {
        // SAFETY: a place.
        true => unsafe { zp_loop_new(&mut events) },
        // SAFETY: a place.
        false => unsafe { zp_set_new(&mut set) },
    };
    assert_eq!(status, Status::Ok);
    model.gather(set.id | events.id, is_loop);
}

fn insert(model: &mut Model, gathering: u8, port: usize, deaf: bool) {
    let Some(at) = model.gathering(gathering) else { return };
    let (id, is_loop) = (model.gatherings[at].id, model.gatherings[at].is_loop);
    let insertion = model.insertions.len();
    let user = std::ptr::without_provenance_mut(insertion);
    let handlers = CHandlers {
        size: size_of::<CHandlers>(),
        on_message: if deaf { None } else { Some(on_message) },
        on_close: Some(on_close),
        on_error: Some(on_error),
        removed: Some(removed),
    };
    let status = match is_loop {
        // SAFETY: functions for that.
        true => unsafe { zp_loop_insert(CLoop { id }, model.handle(port), &handlers, user) },
        false => zp_set_insert(CSet { id }, model.handle(port), user),
    };
    let refusal = gone_gathering(model, at).or_else(|| {
        // It lets go of those whose end was told.
        let is_lent = model.has_held_of_ended(at).then_some(Status::Borrowed);
        is_lent.or(model.refuses_to_leave(port))
    });
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.join(at, port);
        model.set_paused(port, is_loop && deaf);
    }
}

fn gone_gathering(model: &Model, at: usize) -> Option<Status> {
    (!model.gatherings[at].is_alive).then_some(Status::Freed)
}

/// Why nothing can be done in a set or loop to one of its members.
fn refused_to_find(model: &Model, at: usize, port: usize) -> Option<Status> {
    let is_stranger = || (model.set_of(port) != Some(at)).then_some(Status::Stranger);
    gone_gathering(model, at).or(model.gone(port)).or_else(is_stranger)
}

fn remove(model: &mut Model, gathering: u8, port: usize) {
    let Some(at) = model.gathering(gathering) else { return };
    let id = model.gatherings[at].id;
    let status = match model.gatherings[at].is_loop {
        true => zp_loop_remove(CLoop { id }, model.handle(port)),
        false => zp_set_remove(CSet { id }, model.handle(port)),
    };
    let refusal = refused_to_find(model, at, port).or(model.refuses_to_go(port));
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.leave(port);
    }
}

fn pause(model: &mut Model, gathering: u8, port: usize, resume: bool) {
    let Some(at) = model.gathering(gathering) else { return };
    let (handle, id) = (model.handle(port), model.gatherings[at].id);
    let status = match (model.gatherings[at].is_loop, resume) {
        (true, false) => zp_loop_pause(CLoop { id }, handle),
        (true, true) => zp_loop_resume(CLoop { id }, handle),
        (false, false) => zp_set_pause(CSet { id }, handle),
        (false, true) => zp_set_resume(CSet { id }, handle),
    };
    assert_eq!(status, refused_to_find(model, at, port).unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.set_paused(port, !resume);
    }
}

fn wait(model: &mut Model, gathering: u8, most: usize) {
    let Some(at) = model.gathering(gathering) else { return };
    let nothing = CEvent {
        user: null_mut(),
        port: CPort { id: 0 },
        kind: 0,
        status: Status::Ok,
        message: CMessage::NONE,
    };
    let (mut events, mut count) = ([nothing; 4], 77);
    let set = CSet { id: model.gatherings[at].id };
    // SAFETY: so many places.
    let status = unsafe { zp_set_try_wait(set, events.as_mut_ptr(), most, &mut count) };
    if model.gatherings[at].is_loop {
        assert_eq!((status, count), (Status::BadHandle, 0));
        return;
    }
    let is_lent = model.has_held_of_ended(at).then_some(Status::Borrowed);
    match gone_gathering(model, at).or(is_lent) {
        Some(expected) => assert_eq!((status, count), (expected, 0)),
        None if count == 0 => {
            assert_eq!(status, Status::Empty);
            assert!(!model.has_news(at), "there is something");
        }
        None => assert!(status == Status::Ok && count <= most),
    }
    for event in &events[..count] {
        let port = model.live_member(event.port.id);
        assert_eq!(model.insertion(port), event.user.addr());
        match event.kind {
            1 => {
                model.expect_next(port, &content(&event.message));
                model.hold(port, event.message);
            }
            2 => {
                model.expect_end(port, event.status);
                model.close(port);
            }
            other => panic!("event {other}"),
        }
    }
}

fn run(model: &mut Model, gathering: u8, until: bool, inside: Inside) {
    let Some(at) = model.gathering(gathering) else { return };
    let events = CLoop { id: model.gatherings[at].id };
    DOES.set((inside, events.id));
    let status = match until {
        true => zp_loop_run_timeout(events, 0),
        false => zp_loop_run_ready(events),
    };
    let Gathering { is_loop, is_alive, .. } = model.gatherings[at];
    match status {
        Status::BadHandle => assert!(!is_loop),
        Status::Freed => assert!(!is_alive),
        Status::Ok | Status::Finished => {
            assert!(is_alive && is_loop);
            expect_stop(model, at, inside, status);
        }
        other => panic!("{other:?}"),
    }
}

/// Who was stopped has told nothing, and whom a handler stops tells nothing after that.
fn expect_stop(model: &mut Model, at: usize, inside: Inside, status: Status) {
    let told = TOLD.with_borrow(|told| {
        told.iter().filter(|told| matches!(told, Told::Message { .. })).count()
    });
    let was_stopped = std::mem::take(&mut model.gatherings[at].is_stopped);
    if was_stopped || inside == Inside::Stop && told > 0 {
        assert_eq!((status, told), (Status::Finished, usize::from(!was_stopped)));
    }
}

fn signal(model: &mut Model, gathering: u8, stop: bool, arm: bool) {
    let Some(at) = model.gathering(gathering) else { return };
    let (id, is_loop) = (model.gatherings[at].id, model.gatherings[at].is_loop);
    let status = match (is_loop, stop, arm) {
        (true, true, false) => zp_loop_stop(CLoop { id }),
        (true, false, false) => zp_loop_wake(CLoop { id }),
        (true, _, true) => zp_loop_arm(CLoop { id }),
        (false, _, true) => zp_set_arm(CSet { id }),
        (false, _, false) => zp_set_wake(CSet { id }),
    };
    match status {
        Status::Freed => assert!(!model.gatherings[at].is_alive),
        Status::Borrowed => assert!(arm && model.has_held_of_ended(at)),
        Status::Ready => assert!(arm),
        Status::Ok if arm => assert!(!model.has_held_of_ended(at)),
        Status::Ok => model.gatherings[at].is_stopped |= stop && is_loop,
        other => panic!("{other:?}"),
    }
    assert_eq!(status == Status::Freed, !model.gatherings[at].is_alive);
}

fn close_gathering(model: &mut Model, gathering: u8) {
    let Some(at) = model.gathering(gathering) else { return };
    let id = model.gatherings[at].id;
    let status = match model.gatherings[at].is_loop {
        true => zp_loop_close(CLoop { id }),
        false => zp_set_close(CSet { id }),
    };
    let is_lent = model.messages.iter().any(|it| it.is_held && it.by == Some(at));
    let refusal = gone_gathering(model, at).or(is_lent.then_some(Status::Borrowed));
    assert_eq!(status, refusal.unwrap_or(Status::Ok));
    if status == Status::Ok {
        model.close_gathering(at);
    }
}

/// Questions, which change nothing.
fn ask(model: &mut Model, port: usize) {
    let handle = model.handle(port);
    let gone = model.gone(port);
    match (gone, zp_port_peer_state(handle)) {
        (Some(expected), status) => assert_eq!(status, expected),
        (None, Status::Ok) => assert!(!model.is_known_to_be_over(port)),
        (None, Status::Closed | Status::Lost) => assert!(model.may_be_over(port)),
        (None, other) => panic!("{other:?}"),
    }
    let (mut info, mut len) = (CPortInfo::default(), 7);
    // SAFETY: a place.
    let status = unsafe { zp_port_info(handle, &mut info) };
    assert_eq!(status, gone.unwrap_or(Status::Ok));
    // SAFETY: a place.
    let status = unsafe { zp_port_max_payload(handle, &mut len) };
    assert_eq!(status, model.refuses_to_post(port).unwrap_or(Status::Ok));
    assert_eq!(len, info.max_payload);
    if gone.is_none() {
        assert_eq!(info.is_trusted == 1, model.is_trusted(port));
        assert_eq!(info.is_member == 1, model.set_of(port).is_some());
    }
    let mut fd = 7;
    // SAFETY: a place.
    let asked = unsafe { zp_port_fd(handle, &mut fd) };
    for status in [asked, zp_port_arm(handle), zp_port_disarm(handle)] {
        match model.refuses_to_receive(port) {
            Some(expected) => assert_eq!(status, expected),
            None => assert!([Status::Ok, Status::Ready].contains(&status), "{status:?}"),
        }
    }
    assert_eq!(zp_port_set_wait(handle, 1), gone.unwrap_or(Status::Ok));
}

/// A port goes out as descriptors and comes back.
fn travel(model: &mut Model, port: usize) {
    let (mut ticket, mut fds, mut count) = ([0; TICKET_LEN], [-1; MAX_DESCRIPTORS], 77);
    let (handle, trust) = (model.handle(port), if model.is_trusted(port) { 1 } else { 2 });
    // SAFETY: places.
    let status = unsafe {
        zp_port_detach(handle, trust, ticket.as_mut_ptr(), fds.as_mut_ptr(), fds.len(), &mut count)
    };
    if let Some(expected) = model.refuses_to_leave(port) {
        assert_eq!((status, count), (expected, 0));
        return;
    }
    if status != Status::Ok {
        assert!(status == Status::Ended && model.may_be_over(port), "{status:?}");
        return;
    }
    let mut back = CPort { id: 0 };
    // SAFETY: what was detached.
    let status = unsafe { zp_port_attach(ticket.as_ptr(), fds.as_ptr(), count, trust, &mut back) };
    assert_eq!(status, Status::Ok);
    model.come_back(port, back.id);
}

/// What is no handle is none for any call.
fn made_up(model: &mut Model, id: u64, of: Option<u8>, number: u64) {
    // Another generation, another kind, or another place.
    let id = of.map_or(id, |of| model.handle(model.port(of)).id ^ id.max(1));
    if model.knows(id) {
        return;
    }
    // At another place may be what is gone.
    let is_place = of.is_some() && (model.handle(model.port(of.unwrap_or(0))).id ^ id) >> 28 == 0;
    let gone: &[Status] = if is_place {
        &[Status::Freed, Status::Transferred, Status::BadHandle]
    } else {
        &[Status::BadHandle]
    };
    let mut message = CMessage { opaque: [id, number], ..CMessage::NONE };
    let mut loan = CLoan { data: null_mut(), len: 1, opaque: [id, number] };
    let (mut got, mut count, port) = (CMessage::NONE, 0, CPort { id });
    let user = null_mut();
    // SAFETY: places, or nothing; the numbers are to be refused.
    let statuses = unsafe {
        [
            zp_port_try_post(port, c"x".as_ptr().cast(), 1),
            zp_port_try_recv(port, &mut got),
            zp_port_try_reserve(port, 1, &mut loan.clone()),
            zp_port_close(port),
            zp_port_shutdown(port),
            zp_message_release(&mut message),
            zp_message_take_ports(&mut message, null_mut(), 0, &mut count),
            zp_loan_cancel(&mut loan),
            zp_buffer_free(CBuffer { id }),
            zp_buffer_seal(CBuffer { id }),
            zp_set_insert(CSet { id }, port, user),
            zp_set_wake(CSet { id }),
            zp_set_close(CSet { id }),
            zp_loop_run_ready(CLoop { id }),
            zp_loop_stop(CLoop { id }),
            zp_loop_close(CLoop { id }),
            zp_server_close(CServer { id }),
            zp_caller_refuse(CCaller { id }),
        ]
    };
    assert!(statuses.iter().all(|status| gone.contains(status)), "{id:x}: {statuses:?}");
}

/// Gives everything back, and sees that everybody is told.
fn end(model: &mut Model) {
    release_all(model);
    for port in 0..model.ports.len() {
        cancel(model, port);
    }
    for gathering in 0..model.gatherings.len() {
        close_gathering(model, gathering as u8);
    }
    hear(model);
    for port in 0..model.ports.len() {
        if model.refuses_to_receive(port).is_none() {
            drain(model, port);
        }
    }
    for port in 0..model.ports.len() {
        close(model, port);
        if let Some(peer) = model.peer(port) {
            drain(model, peer);
        }
    }
    for buffer in 0..model.buffers.len() {
        free_buffer(model, buffer as u8);
    }
    model.expect_removals();
}

/// Reads all that is there; then the other end is there, or its end is told.
fn drain(model: &mut Model, port: usize) {
    let mut message = CMessage::NONE;
    loop {
        // SAFETY: a place.
        let status = unsafe { zp_port_recv_timeout(model.handle(port), &mut message, 0) };
        if status != Status::Ok {
            match status {
                Status::Empty => assert!(model.is_read(port) && !model.is_known_to_be_over(port)),
                status => model.expect_end(port, status),
            }
            return;
        }
        model.expect_next(port, &content(&message));
        model.drop_current();
        // SAFETY: it was received.
        assert_eq!(unsafe { zp_message_release(&mut message) }, Status::Ok);
    }
}
