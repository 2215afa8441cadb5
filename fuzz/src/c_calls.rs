//! Sequences of C calls on whatever handles there are, live or long gone, against a model: it knows what became of each
//! handle, what waits in each channel, and so what a call may say. At the end everything is given back.
#![allow(unsafe_code)]

mod model;

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

use zeroport_ffi::*;

use model::{Kind, Model, Said, State};

#[derive(Debug)]
enum Step {
    Channel {
        untrusted: bool,
        small: bool,
        cold: bool,
    },
    Close(u8),
    Shutdown(u8),
    Post {
        port: u8,
        len: usize,
    },
    PostWith {
        port: u8,
        len: usize,
        tag: u32,
        items: [Option<(bool, u8)>; 3],
    },
    PostAll {
        port: u8,
        count: u8,
    },
    Loan {
        port: u8,
        len: usize,
    },
    Publish {
        port: u8,
        used: u16,
        item: Option<(bool, u8)>,
    },
    Cancel(u8),
    Receive {
        port: u8,
        most: u8,
    },
    TakePorts {
        message: u8,
        capacity: u8,
    },
    TakeBuffers {
        message: u8,
        capacity: u8,
    },
    Release(u8),
    ReleaseAll,
    Buffer {
        len: u16,
        sealed: bool,
    },
    CopyBuffer(u8),
    FreeBuffer(u8),
    Gathering {
        is_loop: bool,
    },
    Insert {
        gathering: u8,
        port: u8,
        deaf: bool,
    },
    Remove {
        gathering: u8,
        port: u8,
    },
    Pause {
        gathering: u8,
        port: u8,
        resume: bool,
    },
    Wait {
        gathering: u8,
        most: u8,
    },
    Run {
        gathering: u8,
        until: bool,
        inside: Inside,
    },
    Signal {
        gathering: u8,
        stop: bool,
        arm: bool,
    },
    CloseGathering(u8),
    Ask(u8),
    Travel(u8),
    /// A number that is no handle, or one with a few bits changed.
    MadeUp {
        id: u64,
        of: Option<u8>,
        number: u64,
    },
}

/// What a handler does when it is told a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inside {
    Nothing,
    Release,
    Close,
    Remove,
    Pause,
    Stop,
    RunAgain,
}

/// What brings life comes more often than what ends it: numbers of steps.
const OFTEN: [u8; 32] = [
    0, 0, 0, 0, 0, 0, 3, 3, 5, 5, 5, 5, 5, 12, 12, 12, 12, 12, 15, 15, 16, 19, 19, 22, 23, 23, 26,
    26, 27, 27, 9, 10,
];

/// A step takes four bytes, so that a few of them make a long story.
fn step([what, a, b, c]: [u8; 4]) -> Step {
    let [item, second] = [c % 16, c / 16].map(listed);
    let gathering = b;
    match OFTEN.get(usize::from(what % 64)).copied().unwrap_or(what % 32) {
        0 => Step::Channel { untrusted: a & 1 != 0, small: a & 2 != 0, cold: a & 4 != 0 },
        1 => Step::Close(a),
        2 => Step::Shutdown(a),
        3 | 4 => Step::Post { port: a, len: len(b) },
        5..=7 => {
            let items = [item, second, listed(b % 16).filter(|_| b > 100)];
            Step::PostWith { port: a, len: len(b), tag: b.into(), items }
        }
        8 => Step::PostAll { port: a, count: b },
        9 => Step::Loan { port: a, len: len(b) },
        10 => Step::Publish { port: a, used: u16::from(b) * 8, item },
        11 => Step::Cancel(a),
        12..=14 => Step::Receive { port: a, most: b },
        15 => Step::TakePorts { message: a, capacity: b },
        16 => Step::TakeBuffers { message: a, capacity: b },
        17 => Step::Release(a),
        18 => Step::ReleaseAll,
        19 => Step::Buffer { len: u16::from(b) * 64, sealed: a & 1 != 0 },
        20 => Step::CopyBuffer(a),
        21 => Step::FreeBuffer(a),
        22 => Step::Gathering { is_loop: a & 1 != 0 },
        23 => Step::Insert { gathering, port: a, deaf: c == 0 },
        24 => Step::Remove { gathering, port: a },
        25 => Step::Pause { gathering, port: a, resume: c & 1 != 0 },
        26 => Step::Wait { gathering, most: a },
        27 => Step::Run {
            gathering,
            until: a & 1 != 0,
            inside: INSIDE[usize::from(c) % INSIDE.len()],
        },
        28 => Step::Signal { gathering, stop: a & 1 != 0, arm: c & 1 != 0 },
        29 => Step::CloseGathering(b),
        30 => {
            if b & 1 == 0 {
                Step::Ask(a)
            } else {
                Step::Travel(a)
            }
        }
        _ => {
            let (id, of) = (1 << (b % 64), if a == 0 { None } else { Some(a) });
            Step::MadeUp { id, of, number: c.into() }
        }
    }
}

/// Nothing, a port or a buffer.
fn listed(number: u8) -> Option<(bool, u8)> {
    if number == 0 { None } else { Some((!number.is_multiple_of(4), number)) }
}

/// In a ring, not in every ring, or with memory of its own.
fn len(number: u8) -> usize {
    match number {
        0..200 => number.into(),
        200..240 => usize::from(number) * 50,
        _ => 100_000,
    }
}

const INSIDE: [Inside; 7] = [
    Inside::Nothing,
    Inside::Release,
    Inside::Close,
    Inside::Remove,
    Inside::Pause,
    Inside::Stop,
    Inside::RunAgain,
];

/// What handlers were told and did, in order.
enum Told {
    Message { port: u64, message: CMessage, bytes: Vec<u8>, inside: Inside, status: Status },
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

fn bytes_of(message: &CMessage) -> Vec<u8> {
    assert!(!message.data.is_null() && message.data.addr().is_multiple_of(16));
    // SAFETY: it was received and not released.
    unsafe { std::slice::from_raw_parts(message.data.cast::<u8>(), message.len) }.to_vec()
}

unsafe extern "C" fn on_message(_user: *mut c_void, port: CPort, message: *mut CMessage) {
    let (inside, id) = DOES.with_borrow(|does| *does);
    let events = CLoop { id };
    // SAFETY: the library has given it for this call.
    let told = unsafe { *message };
    let bytes = bytes_of(&told);
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
    tell(Told::Message { port: port.id, message: told, bytes, inside, status });
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
            Told::Message { port, message, bytes, inside, status } => {
                let port = model.live_member(port);
                model.expect_next(port, &message, &bytes);
                model.drop_current();
                assert_eq!(status, Status::Ok, "{inside:?}");
                match inside {
                    Inside::Close => model.close(port),
                    Inside::Remove => model.leave(port),
                    _ => {}
                }
            }
            Told::Closed { port, reason } => {
                let port = model.live_member(port);
                model.expect_end(port, reason);
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
        Step::PostWith { port, len, tag, items } => {
            let items = model.items(&items);
            post_with(model, model.port(port), (len, tag, mark), &items);
        }
        Step::PostAll { port, count } => post_all(model, model.port(port), count % 16, mark),
        Step::Loan { port, len } => reserve(model, model.port(port), len, mark),
        Step::Publish { port, used, item } => {
            let items = model.items(&[item]);
            publish(model, model.port(port), used.into(), &items);
        }
        Step::Cancel(port) => cancel(model, model.port(port)),
        Step::Receive { port, most } => receive(model, model.reader(port), usize::from(most % 4)),
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
        Step::Pause { gathering, port, resume } => pause(model, gathering, port, resume),
        Step::Wait { gathering, most } => wait(model, gathering, usize::from(most % 4) + 1),
        Step::Run { gathering, until, inside } => run(model, gathering, until, inside),
        Step::Signal { gathering, stop, arm } => signal(model, gathering, stop, arm),
        Step::CloseGathering(gathering) => close_gathering(model, gathering),
        Step::Ask(port) => ask(model, model.port(port)),
        Step::Travel(port) => travel(model, model.port(port)),
        Step::MadeUp { id, of, number } => made_up(model, id, of, number),
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
    model.open(ports.map(|port| port.id), !untrusted);
}

/// What a call on a port says if its handle leads nowhere, else none.
fn refused(model: &Model, port: usize, status: Status) -> bool {
    match model.gone(port) {
        Some(expected) => {
            assert_eq!(status, expected);
            true
        }
        None => {
            let never = [
                Status::BadArgument,
                Status::BadHandle,
                Status::Freed,
                Status::Transferred,
                Status::Busy,
                Status::Detached,
                Status::Internal,
                Status::Violated,
                Status::PeerDied,
                Status::System,
            ];
            assert!(!never.contains(&status), "{status:?}");
            false
        }
    }
}

fn close(model: &mut Model, port: usize) {
    let status = zp_port_close(model.handle(port));
    if refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            assert!(!model.is_lent(port), "messages or a loan would have gone");
            model.close(port);
        }
        // To close a member is to change its set.
        Status::Borrowed => {
            let set = model.set_of(port);
            assert!(
                model.ports[port].held > 0 || set.is_some_and(|set| model.has_held_of_ended(set))
            );
        }
        Status::Loaned => assert!(model.ports[port].loan.is_some()),
        other => panic!("{other:?}"),
    }
}

fn shutdown(model: &mut Model, port: usize) {
    let status = zp_port_shutdown(model.handle(port));
    if !refused(model, port, status) {
        assert_eq!(status, Status::Ok);
        model.shut_down(port);
    }
}

/// Whether it was posted; if not, whether the reason can be.
fn is_posted(model: &Model, port: usize, status: Status) -> bool {
    match status {
        Status::Ok => {
            assert!(!model.is_known_to_be_over(port) && model.ports[port].loan.is_none());
            return true;
        }
        Status::Full => {}
        Status::Loaned => assert!(model.ports[port].loan.is_some()),
        Status::Closed | Status::Lost => assert!(model.may_be_over(port)),
        other => panic!("{other:?}"),
    }
    false
}

fn post(model: &mut Model, port: usize, len: usize, mark: u8) {
    let bytes = vec![mark; len];
    // SAFETY: the bytes are there.
    let status = unsafe { zp_port_try_post(model.handle(port), bytes.as_ptr().cast(), len) };
    if !refused(model, port, status) && is_posted(model, port, status) {
        model.say(port, Said::bytes(len, mark));
    }
}

fn post_with(
    model: &mut Model,
    port: usize,
    (len, tag, mark): (usize, u32, u8),
    items: &[(Kind, usize)],
) {
    let bytes = vec![mark; len];
    let list = model.ids(items);
    let post = CPost {
        data: bytes.as_ptr().cast(),
        len,
        items: if list.is_empty() { null() } else { list.as_ptr() },
        item_count: list.len(),
        tag,
        reserved: 0,
    };
    let mut index = 0;
    // SAFETY: all of it is there.
    let status = unsafe { zp_port_try_post_with(model.handle(port), &post, &mut index) };
    if model.gone(port).is_some() {
        refused(model, port, status);
        return;
    }
    note_list(model, port, status, index, items, Said { tag, ..Said::bytes(len, mark) });
}

/// Notes what a post with a list has done.
fn note_list(
    model: &mut Model,
    port: usize,
    status: Status,
    index: usize,
    items: &[(Kind, usize)],
    said: Said,
) {
    if index != NO_INDEX {
        assert!(status != Status::Ok && index < items.len(), "{status:?} {index}");
        assert!(model.may_refuse(port, items, index, status), "{status:?} of {:?}", items[index]);
        return;
    }
    if is_posted(model, port, status) {
        let said = model.give(items, said);
        model.say(port, said);
    }
}

fn post_all(model: &mut Model, port: usize, count: u8, mark: u8) {
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
    let mut posted = 77;
    // SAFETY: all of it is there.
    let status = unsafe {
        zp_port_try_post_all(model.handle(port), posts.as_ptr(), posts.len(), &mut posted)
    };
    if refused(model, port, status) {
        assert_eq!(posted, 0);
        return;
    }
    // Nothing at all may be posted anywhere.
    if count > 0 || status != Status::Ok {
        let is_all = is_posted(model, port, status);
        assert!(posted <= posts.len() && (is_all == (posted == posts.len()) || count == 0));
    }
    for len in 0..posted {
        model.say(port, Said { tag: len as u32, ..Said::bytes(len, mark) });
    }
}

fn reserve(model: &mut Model, port: usize, len: usize, mark: u8) {
    let mut loan = CLoan { data: null_mut(), len: 7, opaque: [0; 2] };
    // SAFETY: a place.
    let status = unsafe { zp_port_try_reserve(model.handle(port), len, &mut loan) };
    if refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            assert!(!model.is_known_to_be_over(port) && loan.len == len);
            // SAFETY: reserved just now.
            unsafe { loan.data.cast::<u8>().write_bytes(mark, len) };
            model.ports[port].loan = Some((loan, mark));
        }
        Status::Member => assert!(matches!(model.ports[port].state, State::In(_))),
        status => assert!(!is_posted(model, port, status)),
    }
}

fn publish(model: &mut Model, port: usize, used: usize, items: &[(Kind, usize)]) {
    let Some((mut loan, mark)) = model.ports[port].loan else { return };
    if model.waiting(port) >= 20 {
        return; // it might wait for room
    }
    let used = used % (loan.len + 2);
    let list = model.ids(items);
    let items_at = if list.is_empty() { null() } else { list.as_ptr() };
    let (mut index, before) = (0, loan);
    // SAFETY: all of it is there.
    let status = unsafe { zp_loan_publish(&mut loan, used, 3, items_at, list.len(), &mut index) };
    if used > before.len {
        assert_eq!(status, Status::TooLarge);
        assert_eq!(loan.opaque, before.opaque);
        return;
    }
    if loan.data.is_null() {
        model.ports[port].loan = None;
        // SAFETY: a copy of what is spent.
        assert_eq!(unsafe { zp_loan_cancel(&mut { before }) }, Status::Freed);
    } else {
        assert!(index != NO_INDEX && loan.opaque == before.opaque);
    }
    note_list(model, port, status, index, items, Said { tag: 3, ..Said::bytes(used, mark) });
}

fn cancel(model: &mut Model, port: usize) {
    if let Some((mut loan, _)) = model.ports[port].loan.take() {
        // SAFETY: it was reserved.
        assert_eq!(unsafe { zp_loan_cancel(&mut loan) }, Status::Ok);
    }
}

fn receive(model: &mut Model, port: usize, most: usize) {
    let mut messages = [NO_MESSAGE; 4];
    let mut count = 1;
    let status = match most {
        // SAFETY: a place.
        0 => unsafe { zp_port_try_recv(model.handle(port), messages.as_mut_ptr()) },
        // SAFETY: so many places.
        _ => unsafe {
            zp_port_try_recv_all(model.handle(port), messages.as_mut_ptr(), most, &mut count)
        },
    };
    if refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            for message in &messages[..count] {
                model.expect_next(port, message, &bytes_of(message));
                model.hold(port, *message);
            }
        }
        Status::Empty => assert!(model.is_read(port) && !model.is_known_to_be_over(port)),
        Status::Member => assert!(matches!(model.ports[port].state, State::In(_))),
        Status::Closed | Status::Lost => {
            model.expect_end(port, status);
            model.ports[port].ended = true;
        }
        other => panic!("{other:?}"),
    }
}

const NO_MESSAGE: CMessage = CMessage {
    data: null(),
    len: 0,
    tag: 0,
    port_count: 0,
    buffer_count: 0,
    reserved: 0,
    opaque: [0; 2],
};

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
        assert!([Status::Freed, Status::Transferred].contains(&status) && count == 0);
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
        assert!([Status::Freed, Status::Transferred].contains(&status) && count == 0);
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
        assert!([Status::Freed, Status::Transferred].contains(&status), "{status:?}");
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
    if !model.gatherings[at].is_alive {
        assert_eq!(status, Status::Freed);
        return;
    }
    if status == Status::Borrowed && model.has_held_of_ended(at) || refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            assert!(!model.is_lent(port) && model.ports[port].state == State::Live);
            model.join(at, port);
        }
        Status::Member => assert!(matches!(model.ports[port].state, State::In(_))),
        Status::Borrowed => assert!(model.ports[port].held > 0),
        Status::Loaned => assert!(model.ports[port].loan.is_some()),
        other => panic!("{other:?}"),
    }
}

fn remove(model: &mut Model, gathering: u8, port: usize) {
    let Some(at) = model.gathering(gathering) else { return };
    let id = model.gatherings[at].id;
    let status = match model.gatherings[at].is_loop {
        true => zp_loop_remove(CLoop { id }, model.handle(port)),
        false => zp_set_remove(CSet { id }, model.handle(port)),
    };
    if !model.gatherings[at].is_alive {
        assert_eq!(status, Status::Freed);
        return;
    }
    if refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            assert!(model.ports[port].state == State::In(at) && model.ports[port].held == 0);
            model.leave(port);
        }
        Status::Stranger => assert!(model.ports[port].state != State::In(at)),
        Status::Borrowed => assert!(model.ports[port].held > 0 || model.has_held_of_ended(at)),
        other => panic!("{other:?}"),
    }
}

fn pause(model: &mut Model, gathering: u8, port: u8, resume: bool) {
    let Some(at) = model.gathering(gathering) else { return };
    let (port, id) = (model.port(port), model.gatherings[at].id);
    let handle = model.handle(port);
    let status = match (model.gatherings[at].is_loop, resume) {
        (true, false) => zp_loop_pause(CLoop { id }, handle),
        (true, true) => zp_loop_resume(CLoop { id }, handle),
        (false, false) => zp_set_pause(CSet { id }, handle),
        (false, true) => zp_set_resume(CSet { id }, handle),
    };
    if !model.gatherings[at].is_alive {
        assert_eq!(status, Status::Freed);
    } else if !refused(model, port, status) {
        let is_in = model.ports[port].state == State::In(at);
        assert_eq!(status, if is_in { Status::Ok } else { Status::Stranger });
    }
}

fn wait(model: &mut Model, gathering: u8, most: usize) {
    let Some(at) = model.gathering(gathering) else { return };
    let nothing = CEvent {
        user: null_mut(),
        port: CPort { id: 0 },
        kind: 0,
        status: Status::Ok,
        message: NO_MESSAGE,
    };
    let (mut events, mut count) = ([nothing; 4], 77);
    let set = CSet { id: model.gatherings[at].id };
    // SAFETY: so many places.
    let status = unsafe { zp_set_try_wait(set, events.as_mut_ptr(), most, &mut count) };
    if model.gatherings[at].is_loop {
        assert_eq!((status, count), (Status::BadHandle, 0));
        return;
    }
    match status {
        Status::Freed => assert!(!model.gatherings[at].is_alive),
        Status::Borrowed => assert!(model.has_held_of_ended(at)),
        Status::Empty => assert_eq!(count, 0),
        Status::Ok => assert!(count <= most),
        other => panic!("{other:?}"),
    }
    for event in &events[..count] {
        let port = model.live_member(event.port.id);
        assert_eq!(model.insertion(port), event.user.addr());
        match event.kind {
            1 => {
                model.expect_next(port, &event.message, &bytes_of(&event.message));
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
        true => zp_loop_run_until(events, 0),
        false => zp_loop_run_ready(events),
    };
    match status {
        Status::BadHandle => assert!(!model.gatherings[at].is_loop),
        Status::Freed => assert!(!model.gatherings[at].is_alive),
        Status::Ok | Status::Finished => assert!(model.gatherings[at].is_alive),
        other => panic!("{other:?}"),
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
        Status::Ok => assert!(model.gatherings[at].is_alive),
        other => panic!("{other:?}"),
    }
}

fn close_gathering(model: &mut Model, gathering: u8) {
    let Some(at) = model.gathering(gathering) else { return };
    let id = model.gatherings[at].id;
    let status = match model.gatherings[at].is_loop {
        true => zp_loop_close(CLoop { id }),
        false => zp_set_close(CSet { id }),
    };
    match status {
        Status::Freed => assert!(!model.gatherings[at].is_alive),
        Status::Borrowed => {
            assert!(model.messages.iter().any(|it| it.is_held && it.by == Some(at)))
        }
        Status::Ok => model.close_gathering(at),
        other => panic!("{other:?}"),
    }
}

/// Questions, which change nothing.
fn ask(model: &mut Model, port: usize) {
    let handle = model.handle(port);
    let state = zp_port_peer_state(handle);
    if !refused(model, port, state) {
        match state {
            Status::Ok => assert!(!model.is_known_to_be_over(port)),
            Status::Closed | Status::Lost => assert!(model.may_be_over(port)),
            other => panic!("{other:?}"),
        }
    }
    let (mut info, mut len) = (CPortInfo::default(), 7);
    // SAFETY: places.
    let statuses =
        unsafe { [zp_port_info(handle, &mut info), zp_port_max_payload(handle, &mut len)] };
    for status in statuses {
        assert_eq!(status, model.gone(port).unwrap_or(Status::Ok));
    }
    assert_eq!(len, info.max_payload);
    let (is_member, mut fd) = (matches!(model.ports[port].state, State::In(_)), 7);
    // SAFETY: a place.
    let asked = unsafe { zp_port_fd(handle, &mut fd) };
    for status in [asked, zp_port_arm(handle), zp_port_disarm(handle)] {
        match (model.gone(port), is_member) {
            (Some(expected), _) => assert_eq!(status, expected),
            (None, true) => assert_eq!(status, Status::Member),
            (None, false) => assert!([Status::Ok, Status::Ready].contains(&status), "{status:?}"),
        }
    }
    assert_eq!(zp_port_set_wait(handle, 1), model.gone(port).unwrap_or(Status::Ok));
}

/// A port goes out as descriptors and comes back.
fn travel(model: &mut Model, port: usize) {
    let (mut ticket, mut fds, mut count) = ([0; TICKET_LEN], [-1; MAX_DESCRIPTORS], 77);
    let (handle, trust) = (model.handle(port), if model.is_trusted(port) { 1 } else { 2 });
    // SAFETY: places.
    let status = unsafe {
        zp_port_detach(handle, trust, ticket.as_mut_ptr(), fds.as_mut_ptr(), fds.len(), &mut count)
    };
    if refused(model, port, status) {
        return;
    }
    match status {
        Status::Ok => {
            let mut back = CPort { id: 0 };
            // SAFETY: what was detached.
            let status =
                unsafe { zp_port_attach(ticket.as_ptr(), fds.as_ptr(), count, trust, &mut back) };
            assert_eq!(status, Status::Ok);
            model.come_back(port, back.id);
        }
        Status::Member => assert!(matches!(model.ports[port].state, State::In(_))),
        Status::Borrowed => assert!(model.ports[port].held > 0),
        Status::Loaned => assert!(model.ports[port].loan.is_some()),
        Status::Ended => assert!(model.may_be_over(port)),
        other => panic!("{other:?}"),
    }
}

/// What is no handle is none for any call.
fn made_up(model: &mut Model, id: u64, of: Option<u8>, number: u64) {
    // Another generation, another kind, or another place.
    let id = of.map_or(id, |of| model.handle(model.port(of)).id ^ id.max(1));
    if model.knows(id) {
        return;
    }
    let none = [Status::BadHandle, Status::Freed, Status::Transferred];
    let mut message = CMessage { opaque: [id, number], ..NO_MESSAGE };
    let mut loan = CLoan { data: null_mut(), len: 1, opaque: [id, number] };
    let (mut got, mut count, port) = (NO_MESSAGE, 0, CPort { id });
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
    assert!(statuses.iter().all(|status| none.contains(status)), "{id:x}: {statuses:?}");
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
        if model.gone(port).is_none() {
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
    assert!(model.insertions.iter().all(|(is_loop, removals)| usize::from(*is_loop) == *removals));
}

/// Reads all that is there; then the other end is there, or its end is told.
fn drain(model: &mut Model, port: usize) {
    let mut message = NO_MESSAGE;
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
        let bytes = bytes_of(&message);
        model.expect_next(port, &message, &bytes);
        model.drop_current();
        // SAFETY: it was received.
        assert_eq!(unsafe { zp_message_release(&mut message) }, Status::Ok);
    }
}
