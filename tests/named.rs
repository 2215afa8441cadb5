//! Named messages: every verb, every name, every envelope; requests whose replies come, never come, fail and stream;
//! handlers that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "rkyv")]

mod support;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use rustix::process::Signal;
use support::{
    Setup, alone, conversation, count_descriptors, count_segment_mappings, doomed, in_all_ways,
    pattern, wait_until,
};
use zeroport::{
    Address, AsPod, AsPodSlice, AttachError, Buffer, ChannelOptions, CloseReason, Credentials,
    DecodeError, Event, EventLoop, Handlers, MessageChannel, MessagePort, NamedError, NamedMessage,
    PeerState, PortSet, PostError, RecvError, Reply, ReplyError, Responder, Server, Tagged,
    TakeError, TransferError, TransferList, Transferable, Untransferable, tag_of_name, transfer,
};

/// Long enough for everything, and not waited for.
const LONG: Duration = Duration::from_secs(30);
const MAX_NAME: usize = 255;
const NAMED: &str = "zeroport.named";

const NOTHING: &[u8] = &[];

fn open(port: &MessagePort) -> NamedMessage<'_> {
    NamedMessage::open(port.recv().unwrap()).unwrap()
}

fn respond(request: &NamedMessage<'_>) -> Responder {
    request.responder().unwrap().expect("a request")
}

fn failure(reply: &Reply) -> String {
    match reply.recv() {
        Err(ReplyError::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Posts a payload that is an envelope, or is not.
fn post_envelope(port: &MessagePort, payload: &[u8]) {
    let mut loan = port.reserve(payload.len()).unwrap();
    loan.copy_from_slice(payload);
    loan.publish_tagged(payload.len(), tag_of_name(NAMED)).unwrap();
}

/// The payload of the next message.
fn envelope(port: &MessagePort) -> Vec<u8> {
    let message = port.recv().unwrap();
    assert!(message.is_named());
    message.bytes().to_vec()
}

fn dispatch_all<'h, S>(handlers: &mut Handlers<'h, S>, port: &MessagePort, identity: &S) {
    port.drain().for_each(|message| handlers.dispatch(port.sender(), identity, &message));
}

// --- Verbs ---

in_all_ways!(every_verb, say_everything, hear_everything);

fn say_everything(port: MessagePort) {
    port.post_message("value", &"text".to_string(), transfer![]).unwrap();
    port.try_post_message("bytes", b"bytes".as_slice(), transfer![]).unwrap();
    port.post_message_timeout("more bytes", &b"more".to_vec(), transfer![], LONG).unwrap();
    port.post_message("plain", &AsPod(7u64), transfer![]).unwrap();
    port.post_message("slice", &AsPodSlice(&[1u16, 2, 3]), transfer![]).unwrap();
    port.post_message("nothing", &(), transfer![]).unwrap();

    let MessageChannel { port1: ours, port2: theirs } = MessageChannel::untrusted().unwrap();
    let buffer = Buffer::from_slice(b"a buffer").unwrap();
    port.post_message("list", &"with a list".to_string(), transfer![buffer, theirs]).unwrap();
    assert_eq!(ours.recv().unwrap().bytes(), b"from the list");

    let MessageChannel { port1: ours, port2: theirs } = MessageChannel::untrusted().unwrap();
    let replies = [
        port.invoke("value", &"ask".to_string(), theirs).unwrap(),
        port.try_invoke("bytes", b"ask".as_slice(), transfer![]).unwrap(),
        port.invoke_timeout("plain", &AsPod(3u8), transfer![], LONG).unwrap(),
        port.invoke("port", NOTHING, transfer![]).unwrap(),
        port.invoke("failure", NOTHING, transfer![]).unwrap(),
    ];
    assert_eq!(replies[0].recv().unwrap().get::<String>().unwrap(), "reply");
    assert_eq!(replies[1].recv_timeout(LONG).unwrap().bytes(), b"reply");
    let mut doubled = None;
    wait_until("a reply is there", || {
        doubled = replies[2].try_recv().ok().map(|reply| *reply.pod::<u8>().unwrap());
        doubled.is_some()
    });
    assert_eq!(doubled, Some(6));
    let [port3] = replies[3].recv().unwrap().take_ports().unwrap();
    assert_eq!(port3.recv().unwrap().bytes(), b"from the port of a reply");
    assert_eq!(failure(&replies[4]), "it cannot be done");
    assert_eq!(ours.recv().unwrap().bytes(), b"from the list of a request");
    // One reply, and then the end.
    for reply in &replies {
        assert_eq!(reply.recv().unwrap_err(), ReplyError::Closed(CloseReason::Closed));
    }
}

fn hear_everything(port: MessagePort) {
    let heard = |name: &str, check: &dyn Fn(&NamedMessage<'_>)| {
        let message = open(&port);
        assert_eq!(message.name(), name);
        assert!(!message.is_request() && message.responder().unwrap().is_none());
        check(&message);
    };
    heard("value", &|message| {
        assert!(message.is::<String>() && !message.is_pod::<u64>());
        assert_eq!(message.get::<String>().unwrap(), "text");
        assert!(matches!(message.get::<u32>(), Err(DecodeError::WrongType { .. })));
        assert!(matches!(message.pod::<u64>(), Err(DecodeError::WrongType { .. })));
    });
    heard("bytes", &|message| assert_eq!((message.bytes(), message.tag()), (&b"bytes"[..], 0)));
    heard("more bytes", &|message| assert_eq!(message.bytes(), b"more"));
    heard("plain", &|message| {
        assert!(message.is_pod::<u64>());
        assert_eq!(message.pod::<u64>().unwrap(), &7);
    });
    heard("slice", &|message| {
        assert_eq!(message.pod_slice::<u16>().unwrap(), [1, 2, 3]);
        assert!(matches!(message.pod::<u16>(), Err(DecodeError::Length { len: 6, unit: 2 })));
    });
    heard("nothing", &|message| assert!(message.get::<()>().is_ok()));
    heard("list", &|message| {
        assert_eq!(message.get::<String>().unwrap(), "with a list");
        assert_eq!((message.port_count(), message.buffer_count()), (1, 1));
        let [buffer] = message.take_buffers().unwrap();
        let [port] = message.take_ports().unwrap();
        assert_eq!(&*buffer, b"a buffer");
        port.post_bytes(b"from the list").unwrap();
    });

    let request = open(&port);
    assert_eq!((request.name(), request.port_count()), ("value", 1));
    // The list may be asked for first.
    request.take_port().unwrap().unwrap().post_bytes(b"from the list of a request").unwrap();
    respond(&request).reply(&"reply".to_string()).unwrap();
    assert!(request.responder().unwrap().is_none(), "once");
    respond(&open(&port)).reply(b"reply".as_slice()).unwrap();
    let request = open(&port);
    respond(&request).reply(&AsPod(2 * request.pod::<u8>().unwrap())).unwrap();
    let MessageChannel { port1: ours, port2: theirs } = MessageChannel::untrusted().unwrap();
    respond(&open(&port)).reply_with(NOTHING, theirs).unwrap();
    ours.post_bytes(b"from the port of a reply").unwrap();
    respond(&open(&port)).fail("it cannot be done").unwrap();
    assert!(port.recv().is_err());
}

// --- Names and values ---

in_all_ways!(
    names_of_every_length,
    |port| {
        for len in 0..=MAX_NAME {
            let (name, value) = ("n".repeat(len), pattern(len as u64, len));
            port.post_message(&name, &value, transfer![]).unwrap();
        }
        let MessageChannel { port1: stays, port2: goes } = MessageChannel::untrusted().unwrap();
        for len in [MAX_NAME + 1, 1 << 20] {
            let (name, list) = ("n".repeat(len), transfer![Buffer::new(1).unwrap()]);
            let TransferError { list, source, .. } =
                port.post_message(&name, NOTHING, list).unwrap_err();
            assert_eq!(list.len(), 1);
            assert!(
                matches!(source, PostError::NameTooLong { len: told, max: 255 } if told == len)
            );
        }
        let TransferError { list, source, .. } =
            port.invoke(&"n".repeat(256), NOTHING, goes).unwrap_err();
        assert!(matches!(source, PostError::NameTooLong { .. }));
        port.post_message("имя", NOTHING, list).unwrap();
        assert_eq!(stays.recv().unwrap().bytes(), b"was handed back");
    },
    |port| {
        for len in 0..=MAX_NAME {
            let message = open(&port);
            assert_eq!(message.name(), "n".repeat(len));
            assert_eq!(message.bytes(), pattern(len as u64, len));
        }
        let message = open(&port);
        assert_eq!(message.name(), "имя");
        message.take_port().unwrap().unwrap().post_bytes(b"was handed back").unwrap();
    },
);

#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
struct Wide([u64; 4]);

impl Tagged for Wide {
    const NAME: &'static str = "test.Wide";
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Nested {
    name: String,
    wide: Vec<u128>,
    maybe: Option<Box<str>>,
}

impl Tagged for Nested {
    const NAME: &'static str = "test.Nested";
}

in_all_ways!(
    values_at_every_alignment,
    |port| {
        for len in 0..48 {
            let name = "n".repeat(len);
            port.post_message(&name, &AsPod(Wide([len as u64; 4])), transfer![]).unwrap();
            let nested = Nested {
                name: "x".repeat(len),
                wide: vec![7; len],
                maybe: (len % 2 == 1).then(|| "maybe".into()),
            };
            // With a buffer, the payload stands elsewhere in its record.
            let buffer = Buffer::new(1).unwrap();
            port.post_message(&name, &nested, buffer).unwrap();
        }
    },
    |port| {
        for len in 0..48 {
            let message = open(&port);
            let wide = message.pod::<Wide>().unwrap();
            assert!(std::ptr::from_ref(wide).addr().is_multiple_of(16));
            assert_eq!(wide, &Wide([len as u64; 4]));
            let message = open(&port);
            let nested = message.get::<Nested>().unwrap();
            assert_eq!(nested.name, "x".repeat(len));
            assert!(nested.wide.iter().all(|wide| *wide == 7) && nested.wide.len() == len);
            assert_eq!(nested.maybe.is_some(), len % 2 == 1);
        }
    },
);

/// At both sides of what fits in the ring, and far beyond.
fn large_lengths(port: &MessagePort) -> Vec<usize> {
    let edge = port.max_in_ring();
    let edges = edge - 100..edge + 40;
    edges.step_by(4).chain([1 << 20, (3 << 20) + 1]).collect()
}

in_all_ways!(
    large_values,
    Setup::new().capacity(4096),
    |port| {
        for len in large_lengths(&port) {
            let bytes = pattern(len as u64, len);
            let text = "x".repeat(len);
            port.post_message("bytes", &bytes, transfer![]).unwrap();
            port.post_message("text", &text, transfer![]).unwrap();
            let MessageChannel { port1: stays, port2: goes } = MessageChannel::untrusted().unwrap();
            let list = transfer![Buffer::from_slice(b"beside it").unwrap(), goes];
            let reply = port.invoke("echo", &text, list).unwrap();
            assert_eq!(reply.recv().unwrap().get::<String>().unwrap().as_str(), text);
            assert_eq!(stays.recv().unwrap().bytes(), bytes);
        }
    },
    |port| {
        for len in large_lengths(&port) {
            let bytes = pattern(len as u64, len);
            assert_eq!(open(&port).bytes(), bytes);
            assert_eq!(open(&port).get::<String>().unwrap().len(), len);
            let request = open(&port);
            let [buffer] = request.take_buffers().unwrap();
            assert_eq!(&*buffer, b"beside it");
            let text = request.get::<String>().unwrap().as_str().to_string();
            respond(&request).reply(&text).unwrap();
            let [gift] = request.take_ports().unwrap();
            gift.post_bytes(&bytes).unwrap();
        }
    },
);

// --- Envelopes ---

/// Every truncation, every changed byte and some nonsense: no panic, an error or another message, and the port goes on.
#[test]
fn broken_envelopes_cost_one_message_each() {
    for options in [ChannelOptions::new(), ChannelOptions::new().trust(zeroport::Trust::Untrusted)]
    {
        let MessageChannel { port1, port2 } = options.open().unwrap();
        port1.post_message("greet", &AsPod(7u64), transfer![]).unwrap();
        let good = envelope(&port2);
        assert_eq!(good.len(), 16 + 16 + 8);
        let handlers = RefCell::new(Handlers::<()>::new());
        let (mut errors, mut good_ones) = (0, 0);
        let mut try_it = |payload: &[u8], must_fail: bool| {
            post_envelope(&port1, payload);
            let refused = NamedMessage::open(port2.recv().unwrap()).is_err();
            assert!(refused || !must_fail, "{payload:?}");
            post_envelope(&port1, payload);
            handlers.borrow_mut().dispatch(port2.sender(), &(), &port2.recv().unwrap());
            errors += u64::from(refused);
            assert_eq!(handlers.borrow().message_errors(), errors);
            port1.post_message("good", &AsPod(9u64), transfer![]).unwrap();
            assert_eq!(open(&port2).pod::<u64>().unwrap(), &9);
            good_ones += 1;
        };
        for len in 0..good.len() {
            try_it(&good[..len], len < 32);
        }
        for place in 0..good.len() {
            for change in 1..=255u8 {
                let mut changed = good.clone();
                changed[place] ^= change;
                // A request would bring a port.
                let must_fail = matches!(place, 0 | 1 | 3 | 8..16 | 21..32);
                try_it(&changed, must_fail);
            }
        }
        for number in 0..500 {
            try_it(&pattern(number, number as usize), false);
        }
        assert_eq!(port2.peer_state(), PeerState::Open);
        assert!(good_ones > 10_000 && errors > 5_000, "{good_ones}, {errors}");
    }
}

#[test]
fn each_fault_of_an_envelope_is_told() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let told = |payload: &[u8]| {
        post_envelope(&port1, payload);
        NamedMessage::open(port2.recv().unwrap()).unwrap_err()
    };
    let header = |kind: u8, len: u16| {
        let [low, high] = len.to_le_bytes();
        [kind, 0, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    assert!(matches!(told(b""), NamedError::TooShort { len: 0, needed: 16 }));
    assert!(matches!(told(&header(1, 1)), NamedError::TooShort { len: 16, needed: 32 }));
    assert!(matches!(told(&header(3, 0)), NamedError::UnknownKind { kind: 3 }));
    assert!(matches!(told(&header(2, 0)), NamedError::NoReplyPort));
    assert!(matches!(told(&header(1, 256)), NamedError::NameTooLong { len: 256, max: 255 }));
    let wrong_text = [header(1, 2), *b"\xc3\x28\0\0\0\0\0\0\0\0\0\0\0\0\0\0"].concat();
    assert!(matches!(told(&wrong_text), NamedError::NameNotUtf8(_)));
    let not_padded = [header(1, 2), *b"name\0\0\0\0\0\0\0\0\0\0\0\0"].concat();
    assert!(matches!(told(&not_padded), NamedError::NotZero));

    // What is no named message at all; and ports that come with what is broken.
    port1.post_bytes(b"plain").unwrap();
    let refused = NamedMessage::open(port2.recv().unwrap()).unwrap_err();
    assert!(matches!(refused, NamedError::NotNamed { tag: 0 }));
    let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
    let loan = port1.reserve(0).unwrap();
    loan.publish_with(0, tag_of_name(NAMED), goes).unwrap();
    assert!(NamedMessage::open(port2.recv().unwrap()).is_err());
    assert_eq!(stays.recv().unwrap_err(), RecvError::Closed(CloseReason::Lost));
}

#[test]
fn good_bad_good() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let mut handlers = Handlers::new();
    handlers.on("good", |event| heard.borrow_mut().push(format!("{:?}", event.pod::<u8>())));
    handlers.on_message_error(|error, sender, name: &&str| {
        heard.borrow_mut().push(format!("{name}: {error}"));
        sender.post_bytes(b"what?").unwrap();
    });
    port1.post_message("good", &AsPod(1u8), transfer![]).unwrap();
    post_envelope(&port1, b"bad");
    port1.post_message("good", &AsPod(2u8), transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &"she");
    let bad = "she: the message has 3 bytes, and its envelope would need 16";
    assert_eq!(*heard.borrow(), ["Ok(1)", bad, "Ok(2)"]);
    assert_eq!((handlers.message_errors(), handlers.unhandled()), (1, 0));
    assert_eq!(port1.recv().unwrap().bytes(), b"what?");
}

// --- Handlers ---

fn names_heard<'h>(handlers: &Handlers<'h>, heard: &'h RefCell<Vec<String>>, names: &[&str]) {
    for name in names {
        let label = (*name).to_string();
        let note = move |name: &str| heard.borrow_mut().push(format!("{label}: {name}"));
        handlers.on(name, move |event| note(event.name()));
    }
}

#[test]
fn handlers_are_called_in_order_and_by_name() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let mut handlers = Handlers::new();
    names_heard(&handlers, &heard, &["a", "b", "a", ""]);
    for name in ["b", "a", "", "c", "b"] {
        port1.post_message(name, NOTHING, transfer![]).unwrap();
    }
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(*heard.borrow(), ["b: b", "a: a", "a: a", ": ", "b: b"]);
    assert_eq!(handlers.unhandled(), 1);
}

#[test]
fn handlers_come_and_go() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let note = |what: &str| heard.borrow_mut().push(what.to_string());
    let mut handlers = Handlers::new();
    let tick = |handlers: &mut Handlers<'_>| {
        port1.post_message("tick", NOTHING, transfer![]).unwrap();
        dispatch_all(handlers, &port2, &());
        heard.take()
    };
    let first = handlers.on("tick", |_| note("first"));
    handlers.once("tick", |_| note("once"));
    let last = handlers.on("tick", |_| note("last"));
    assert_eq!(tick(&mut handlers), ["first", "once", "last"]);
    assert_eq!(tick(&mut handlers), ["first", "last"]);
    assert!(handlers.off(first) && !handlers.off(first));
    assert_eq!(tick(&mut handlers), ["last"]);
    assert!(handlers.off(last));
    assert!(tick(&mut handlers).is_empty());
    assert_eq!(handlers.unhandled(), 1);
    handlers.on("tick", |_| note("anew"));
    assert_eq!(tick(&mut handlers), ["anew"]);
}

#[test]
fn handlers_come_and_go_from_inside() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let heard = &heard;
    let later = Cell::new(None);
    let later = &later;
    let mut handlers = Handlers::new();
    handlers.on("tick", |event| {
        heard.borrow_mut().push("itself");
        event.off();
        event.off(); // once is enough
        // For the next message.
        event.handlers().once("tick", |_| heard.borrow_mut().push("added"));
        // Its turn would come with this very message.
        assert!(event.handlers().off(later.get().unwrap()));
    });
    handlers.on("tick", |_| heard.borrow_mut().push("stays"));
    later.set(Some(handlers.on("tick", |_| heard.borrow_mut().push("never"))));
    for _ in 0..3 {
        port1.post_message("tick", NOTHING, transfer![]).unwrap();
    }
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(*heard.borrow(), ["itself", "stays", "stays", "added", "stays"]);
}

#[test]
fn a_handler_that_replaces_itself_is_not_called_again() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let heard = &heard;
    let mut handlers = Handlers::new();
    handlers.on("tick", |event| {
        heard.borrow_mut().push("old");
        event.off();
        event.handlers().on("tick", |_| heard.borrow_mut().push("new"));
    });
    for _ in 0..3 {
        port1.post_message("tick", NOTHING, transfer![]).unwrap();
    }
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(*heard.borrow(), ["old", "new", "new"]);
}

/// Whatever a handler holds is dropped when it goes, also what uses the registry as it is dropped.
#[test]
fn what_a_handler_holds_goes_with_it() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let MessageChannel { port1: ours, port2: held } = MessageChannel::new().unwrap();
    let mut handlers = Handlers::new();
    let id = handlers.on("tick", move |_| held.post_bytes(b"tick").unwrap());
    port1.post_message("tick", NOTHING, transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &());
    assert!(handlers.off(id));
    assert_eq!(ours.recv().unwrap().bytes(), b"tick");
    assert_eq!(ours.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
}

#[test]
fn what_nobody_handles_is_counted_and_told() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = RefCell::new(Vec::new());
    let mut handlers = Handlers::new();
    let reply = port1.invoke("one", NOTHING, transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(failure(&reply), "nobody handles \"one\"");
    handlers.on_unhandled(|event| {
        heard.borrow_mut().push(event.name().to_string());
        if event.name() == "four" {
            respond(event).reply(b"replied all the same".as_slice()).unwrap();
        }
    });
    handlers.handle("two", |_| Ok::<_, DecodeError>(()));
    // Who handles requests is not for messages.
    let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
    port1.post_message("two", NOTHING, goes).unwrap();
    let replies = ["three", "four"].map(|name| port1.invoke(name, NOTHING, transfer![]).unwrap());
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(failure(&replies[0]), "nobody handles \"three\"");
    assert_eq!(replies[1].recv().unwrap().bytes(), b"replied all the same");
    assert_eq!(*heard.borrow(), ["two", "three", "four"]);
    assert_eq!((handlers.unhandled(), handlers.message_errors()), (4, 0));
    assert_eq!(stays.recv().unwrap_err(), RecvError::Closed(CloseReason::Lost));
}

#[test]
fn a_handler_that_panics_leaves_the_registry_usable() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = Cell::new(0);
    let mut handlers = Handlers::new();
    handlers.on("tick", |event| {
        assert_ne!(event.bytes(), b"bad", "a handler's own trouble");
        heard.set(heard.get() + 1);
    });
    handlers.once("once", |_| panic!("a handler's own trouble"));
    handlers.handle("ask", |event| match event.bytes() {
        b"bad" => panic!("a handler's own trouble"),
        bytes => Ok::<_, DecodeError>(bytes.to_vec()),
    });
    handlers.on_unhandled(|_| panic!("a handler's own trouble"));
    handlers.on_message_error(|_, _, ()| panic!("a handler's own trouble"));
    let mut dispatch = |is_good: bool| {
        let message = port2.recv().unwrap();
        let dispatched =
            catch_unwind(AssertUnwindSafe(|| handlers.dispatch(port2.sender(), &(), &message)));
        assert_eq!(dispatched.is_ok(), is_good);
    };
    for _ in 0..3 {
        port1.post_message("tick", b"good".as_slice(), transfer![]).unwrap();
        dispatch(true);
        port1.post_message("tick", b"bad".as_slice(), transfer![]).unwrap();
        dispatch(false);
        let reply = port1.invoke("ask", b"bad".as_slice(), transfer![]).unwrap();
        dispatch(false);
        assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent);
        let reply = port1.invoke("ask", b"good".as_slice(), transfer![]).unwrap();
        dispatch(true);
        assert_eq!(reply.recv().unwrap().bytes(), b"good");
        port1.post_message("nobody", NOTHING, transfer![]).unwrap();
        dispatch(false);
        post_envelope(&port1, b"bad");
        dispatch(false);
    }
    port1.post_message("once", NOTHING, transfer![]).unwrap();
    dispatch(false);
    assert_eq!((handlers.unhandled(), handlers.message_errors()), (3, 3));
    drop(handlers);
    assert_eq!(heard.get(), 3);
}

/// A handler that posts to itself for every message: each turn ends, and others come between.
#[test]
fn a_handler_that_posts_to_itself_starves_nobody() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let MessageChannel { port1: other1, port2: other2 } = MessageChannel::new().unwrap();
    let mut set = PortSet::new().unwrap();
    set.insert("itself", port2).unwrap();
    set.insert("other", other2).unwrap();
    let counts = RefCell::new([0u32; 2]);
    let mut handlers = Handlers::new();
    handlers.on("again", |event| {
        counts.borrow_mut()[0] += 1;
        port1.post_message("again", event.bytes(), transfer![]).unwrap();
    });
    handlers.on("other", |_| counts.borrow_mut()[1] += 1);
    port1.post_message("again", NOTHING, transfer![]).unwrap();
    for number in 1..=100 {
        other1.post_message("other", NOTHING, transfer![]).unwrap();
        let before = counts.borrow()[0];
        while counts.borrow()[1] < number {
            for (key, event) in set.wait().unwrap() {
                let Event::Message(sender, message) = event else { panic!("{key}: {event:?}") };
                handlers.dispatch(sender, &key, &message);
            }
        }
        assert!(counts.borrow()[0] - before < 1000, "a turn is bounded");
    }
}

// S-142, S-145: a port that comes with a named message joins the loop of its handler, with what waits in it.
conversation!(
    a_handler_takes_a_port_into_its_loop,
    |parent: MessagePort| {
        let lost = &Cell::new(0);
        let work = Handlers::new();
        work.handle("double", |event| event.pod::<u32>().map(|n| AsPod(2 * n)));
        let work = Rc::new(RefCell::new(work));
        let mut from_parent = Handlers::new();
        from_parent.on("new-client", move |event| {
            let ([client], work) = (event.take_ports().unwrap(), Rc::clone(&work));
            assert!(event.later(move |events| {
                let client = events.insert(client).unwrap();
                events
                    .listeners_of(client)
                    .on_message(move |turn, message| {
                        work.borrow_mut().dispatch_in(turn, &(), message);
                    })
                    .on_close(|_, _| lost.set(lost.get() + 1));
            }));
        });
        let mut events = EventLoop::new().unwrap();
        events.on_panic(|payload| std::panic::resume_unwind(payload));
        let parent = events.insert(parent).unwrap();
        events.listeners_of(parent).on_message(move |turn, message| {
            from_parent.dispatch_in(turn, &(), message);
        });
        events.run().unwrap();
        assert_eq!(lost.get(), 3);
    },
    |main: MessagePort| {
        let clients = [(); 3].map(|()| {
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            let early = port1.invoke("double", &AsPod(21u32), transfer![]).unwrap();
            main.post_message("new-client", NOTHING, port2).unwrap();
            (port1, early)
        });
        for (client, early) in clients {
            assert_eq!(early.recv().unwrap().pod::<u32>().unwrap(), &42);
            let late = client.invoke("double", &AsPod(4u32), transfer![]).unwrap();
            assert_eq!(late.recv().unwrap().pod::<u32>().unwrap(), &8);
        }
    }
);

/// What a handler wants of the loop is done before the next message, also if it panics then; without a loop it is dropped.
#[test]
fn what_a_handler_wants_of_its_loop() {
    let (told, panics) = (RefCell::new(Vec::new()), Cell::new(0));
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut handlers = Handlers::new();
    handlers.on("first", |event| {
        event.later(|_| told.borrow_mut().push("later"));
        told.borrow_mut().push("first");
        panic!("after it has asked for something");
    });
    handlers.on("second", |event| {
        told.borrow_mut().push("second");
        event.later(|events| events.stop());
    });
    for name in ["first", "second", "second"] {
        port1.post_message(name, NOTHING, transfer![]).unwrap();
    }
    drop(port1); // so that the run ends, whatever becomes of the stop
    let mut events = EventLoop::new().unwrap();
    events.on_panic(|_| panics.set(panics.get() + 1));
    let port = events.insert(port2).unwrap();
    events.listeners_of(port).on_message(move |turn, message| {
        handlers.dispatch_in(turn, &(), message);
    });
    events.run().unwrap();
    assert_eq!((told.take(), panics.get()), (vec!["first", "later", "second"], 1));
    let port2 = events.remove(port).unwrap();
    drop(events);

    let mut held = Some(Rc::new(()));
    let weak = held.as_ref().map(Rc::downgrade).unwrap();
    let mut handlers = Handlers::new();
    handlers.on("second", |event| {
        let held = held.take();
        told.borrow_mut().push(if event.later(move |_| drop(held)) { "later" } else { "no loop" });
    });
    handlers.dispatch(port2.sender(), &(), &port2.recv().unwrap());
    assert!(weak.upgrade().is_none(), "it is dropped");
    assert_eq!(told.take(), ["no loop"]);
}

/// As in a loop with several listeners: the message is lent, and its reply port is for the first who asks.
#[test]
fn several_may_look_at_one_message() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let MessageChannel { port1: ours, port2: theirs } = MessageChannel::new().unwrap();
    let reply = port1.invoke("ask", b"all of you".as_slice(), theirs).unwrap();
    let message = port2.recv().unwrap();
    let mut silent = Handlers::new();
    silent.on("ask", |event| {
        assert_eq!((event.bytes(), event.port_count()), (&b"all of you"[..], 1))
    });
    let mut handlers = Handlers::new();
    handlers.handle("ask", |event| Ok::<_, DecodeError>(event.bytes().to_vec()));
    silent.dispatch(port2.sender(), &(), &message);
    handlers.dispatch(port2.sender(), &(), &message);
    silent.dispatch(port2.sender(), &(), &message);
    let late = NamedMessage::of(&message).unwrap();
    assert!(late.is_request() && late.responder().unwrap().is_none());
    let [theirs] = late.take_ports().unwrap();
    theirs.post_bytes(b"the list is as it was").unwrap();
    assert_eq!(reply.recv().unwrap().bytes(), b"all of you");
    assert_eq!(ours.recv().unwrap().bytes(), b"the list is as it was");
    let late = NamedMessage::of(&message).unwrap();
    assert_eq!((late.name(), late.port_count()), ("ask", 0));
}

#[test]
fn the_identity_is_what_the_server_has_seen() {
    let name = Address::abstract_name(format!("named-identity-{}", std::process::id()));
    let server = Server::bind(name.clone()).unwrap();
    let client = thread::spawn(move || {
        let port = zeroport::connect(name).unwrap().port;
        let reply = port.invoke("who am I?", NOTHING, transfer![]).unwrap();
        *reply.recv().unwrap().pod::<[u32; 2]>().unwrap()
    });
    let caller = server.accept().unwrap();
    let credentials = caller.credentials().try_clone().unwrap();
    assert_eq!(credentials.pidfd.is_some(), caller.credentials().pidfd.is_some());
    let mut handlers = Handlers::<Credentials>::new();
    handlers.handle("who am I?", |event| {
        let Credentials { uid, pid, .. } = *event.identity();
        Ok::<_, DecodeError>(AsPod([uid, pid.unwrap()]))
    });
    let end = handlers.serve(&caller.admit().unwrap(), &credentials);
    assert_eq!(end, Ok(CloseReason::Closed));
    assert_eq!(client.join().unwrap(), [credentials.uid, std::process::id()]);
}

// --- Replies ---

conversation!(
    replies_that_never_come,
    |port| {
        let ask = |name| port.invoke(name, NOTHING, transfer![]).unwrap();
        for name in ["drop the responder", "drop the request", "drop the message"] {
            let reply = ask(name);
            assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent, "{name}");
            assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent, "for ever");
            assert_eq!(reply.try_recv().unwrap_err(), ReplyError::NeverSent);
        }
        let reply = ask("keep it");
        assert_eq!(reply.try_recv().unwrap_err(), ReplyError::Empty);
        let start = Instant::now();
        let wait = Duration::from_millis(10);
        assert_eq!(reply.recv_timeout(wait).unwrap_err(), ReplyError::Empty);
        assert!(start.elapsed() >= wait);
        port.post_message("now drop it", NOTHING, transfer![]).unwrap();
        assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent);
        // Nobody receives it.
        let reply = ask("after the end");
        assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent);
    },
    |port| {
        drop(respond(&open(&port)));
        drop(open(&port));
        drop(port.recv().unwrap());
        let responder = respond(&open(&port));
        assert_eq!(open(&port).name(), "now drop it");
        drop(responder);
        wait_until("the last request", || port.drain().count() == 1);
    },
);

conversation!(
    requesters_that_have_gone,
    |port| {
        for _ in 0..4 {
            drop(port.invoke("ask", NOTHING, transfer![]).unwrap());
        }
        port.post_message("now", NOTHING, transfer![]).unwrap();
        assert!(port.recv().is_err());
    },
    |port| {
        let mut requests: Vec<_> = (0..4).map(|_| respond(&open(&port))).collect();
        assert_eq!(open(&port).name(), "now");
        let mut next = || requests.pop().unwrap();
        assert!(matches!(next().reply(NOTHING), Err(PostError::Closed(CloseReason::Closed))));
        assert!(matches!(next().fail("why"), Err(PostError::Closed(CloseReason::Closed))));
        let MessageChannel { port1: stays, port2: goes } = MessageChannel::new().unwrap();
        let TransferError { list, .. } = next().reply_with(NOTHING, goes).unwrap_err();
        list.into_ports().remove(0).post_bytes(b"handed back").unwrap();
        assert_eq!(stays.recv().unwrap().bytes(), b"handed back");
        drop(next());
    },
);

in_all_ways!(
    streams_of_replies,
    |port| {
        let reply = port.invoke("ten", &AsPod(42u32), transfer![]).unwrap();
        for _ in 0..10 {
            assert_eq!(reply.recv().unwrap().pod::<u32>().unwrap(), &42);
        }
        assert_eq!(reply.recv().unwrap_err(), ReplyError::Closed(CloseReason::Closed));

        let mut set = PortSet::new().unwrap();
        for key in 0..10 {
            let reply = port.invoke("ten", &AsPod(key), transfer![]).unwrap();
            set.insert(key, reply.into_port()).unwrap();
        }
        let mut counts = [0; 10];
        while !set.is_empty() {
            for (key, event) in set.wait().unwrap() {
                match event {
                    Event::Message(_, message) => {
                        assert_eq!(message.pod::<u32>().unwrap(), &key);
                        counts[key as usize] += 1;
                    }
                    Event::Closed(reason) => assert_eq!(reason, CloseReason::Closed),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(counts, [10; 10]);
    },
    |port| {
        let mut handlers = Handlers::new();
        handlers.on("ten", |event| {
            let number = event.pod::<u32>().unwrap();
            let stream = respond(event).into_port();
            stream.post_all_pod(&[*number; 10]).unwrap();
        });
        assert_eq!(handlers.serve(&port, &()), Ok(CloseReason::Closed));
    },
);

/// A value that cannot be posted is told to the requester, instead of leaving it to wonder.
#[test]
fn a_reply_that_cannot_be_posted_is_a_failure() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let reply = port1.invoke("ask", NOTHING, transfer![]).unwrap();
    let closed = MessageChannel::new().unwrap().port1;
    closed.closer().close();
    let refused = respond(&open(&port2)).reply_with(NOTHING, closed).unwrap_err();
    assert!(matches!(refused.source, PostError::Untransferable { index: 0, .. }));
    assert!(failure(&reply).contains("port 0 of the list cannot be transferred"));

    // What is said about a failure is read as far as it is reasonable.
    let reply = port1.invoke("ask", NOTHING, transfer![]).unwrap();
    respond(&open(&port2)).fail(&"why? ".repeat(1 << 20)).unwrap();
    assert_eq!(failure(&reply).len(), 4096);
}

#[test]
fn a_refused_request_hands_its_list_back() {
    let MessageChannel { port1, port2 } = ChannelOptions::new().limit(0).open().unwrap();
    let id_of = |refused: &TransferError| match refused.source {
        PostError::Untransferable { index, reason } => (index, reason),
        ref other => panic!("{other}"),
    };
    let MessageChannel { port1: good, port2: _stays } = MessageChannel::new().unwrap();
    let refused = port1.invoke("ask", NOTHING, transfer![good, port2]).unwrap_err();
    assert_eq!(id_of(&refused), (1, Untransferable::OtherEnd));
    let mut ports = refused.list.into_ports();
    assert_eq!(ports.len(), 2);
    let (port2, good) = (ports.remove(1), ports.remove(0));

    // An ordinary user may not have so many descriptors.
    if support::raise_descriptor_limit() > 2048 {
        let buffers = (0..1024).map(|_| Transferable::from(Buffer::new(1).unwrap()));
        let refused = port1.invoke("ask", NOTHING, buffers.collect::<TransferList>()).unwrap_err();
        assert!(matches!(refused.source, PostError::TooManyPorts { count: 1024, max: 1023 }));
        assert_eq!(refused.list.len(), 1024);
    }

    while port1.try_post_message("fill", &[0; 100].to_vec(), transfer![]).is_ok() {}
    let refused = port1.try_invoke("ask", &[0; 100].to_vec(), good).unwrap_err();
    assert!(matches!(refused.source, PostError::Full { .. }));
    assert_eq!(refused.list.len(), 1);
    let timeout = Duration::from_millis(1);
    let refused =
        port1.invoke_timeout("ask", &[0; 100].to_vec(), refused.list, timeout).unwrap_err();
    assert!(matches!(refused.source, PostError::Full { .. }));

    drop(port2);
    let refused = port1.invoke("ask", NOTHING, refused.list).unwrap_err();
    assert!(matches!(refused.source, PostError::Closed(CloseReason::Closed)));
    assert_eq!(refused.list.len(), 1);
}

// --- The other side dies ---

doomed!(
    killed_over_a_request,
    |port, mut peer| {
        let reply = port.invoke("ask", NOTHING, transfer![]).unwrap();
        assert_eq!(open(&port).name(), "have it");
        peer.kill();
        assert_eq!(reply.recv().unwrap_err(), ReplyError::Closed(CloseReason::PeerDied));
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::PeerDied));
    },
    |port| {
        let _responder = respond(&open(&port));
        port.post_message("have it", NOTHING, transfer![]).unwrap();
        loop {
            thread::park();
        }
    },
);

doomed!(
    killed_before_it_looks_at_a_request,
    |port, mut peer| {
        assert_eq!(open(&port).name(), "ready");
        let reply = port.invoke("ask", NOTHING, transfer![]).unwrap();
        peer.kill();
        assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent);
        assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::PeerDied));
    },
    |port| {
        port.post_message("ready", NOTHING, transfer![]).unwrap();
        loop {
            thread::park();
        }
    },
);

doomed!(
    killed_in_the_middle_of_a_stream,
    |port, mut peer| {
        let reply = port.invoke("count", NOTHING, transfer![]).unwrap();
        let mut count = 0u64;
        loop {
            match reply.recv() {
                Ok(number) => assert_eq!(number.pod::<u64>().unwrap(), &count),
                Err(error) => {
                    assert_eq!(error, ReplyError::Closed(CloseReason::PeerDied));
                    break;
                }
            }
            count += 1;
            if count == 1000 {
                peer.kill();
            }
        }
        assert!(count >= 1000);
    },
    |port| {
        let stream = respond(&open(&port)).into_port();
        for number in 0u64.. {
            stream.post_pod(&number).unwrap();
        }
    },
);

doomed!(
    a_requester_that_is_killed,
    |port, mut peer| {
        let (mut count, killed) = (0, Cell::new(false));
        let mut handlers = Handlers::new();
        handlers.handle("ask", |event| {
            count += 1;
            if count == 1000 {
                peer.kill();
                killed.set(true);
            }
            Ok::<_, DecodeError>(event.bytes().to_vec())
        });
        assert_eq!(handlers.serve(&port, &()), Ok(CloseReason::PeerDied));
        assert!(killed.get());
        assert_eq!((handlers.unhandled(), handlers.message_errors()), (0, 0));
    },
    |port| {
        loop {
            let reply = port.invoke("ask", b"echo".as_slice(), transfer![]).unwrap();
            assert_eq!(reply.recv().unwrap().bytes(), b"echo");
        }
    },
);

/// Posts number `n` by one of all verbs.
fn post_somehow(port: &MessagePort, n: u64) -> Result<(), TransferError> {
    let list = || match n % 5 {
        0 => transfer![Buffer::new(1).unwrap()],
        1 => transfer![MessageChannel::new().unwrap().port1],
        _ => transfer![],
    };
    match n % 7 {
        0 => port.post_message("value", &n, list()),
        1 => port.post_message("bytes", n.to_le_bytes().as_slice(), list()),
        2 => port.post_message_timeout("plain", &AsPod(n), list(), LONG),
        3 => port.post_message("slice", &AsPodSlice(&[n; 3]), list()),
        4 => port.post_message("large", &vec![n as u8; 100_000], list()),
        5 => port.invoke("request", &AsPod(n), list()).map(drop),
        _ => port.invoke_timeout("request", &AsPod(n), list(), LONG).map(drop),
    }
}

fn check_somehow(message: &NamedMessage<'_>, n: u64) {
    match n % 7 {
        0 => assert_eq!(message.get::<u64>().unwrap().to_native(), n),
        1 => assert_eq!(message.bytes(), n.to_le_bytes()),
        3 => assert_eq!(message.pod_slice::<u64>().unwrap(), [n; 3]),
        4 => assert_eq!(message.bytes(), vec![n as u8; 100_000]),
        _ => assert_eq!(message.pod::<u64>().unwrap(), &n),
    }
    let names = ["value", "bytes", "plain", "slice", "large", "request", "request"];
    assert_eq!(message.name(), names[(n % 7) as usize]);
    let counts = [usize::from(n % 5 == 1), usize::from(n.is_multiple_of(5))];
    assert_eq!([message.port_count(), message.buffer_count()], counts);
}

doomed!(
    a_poster_that_is_killed,
    |port, mut peer| {
        let mut count = 0;
        let end = loop {
            match port.recv() {
                Ok(message) => check_somehow(&NamedMessage::open(message).unwrap(), count),
                Err(end) => break end,
            }
            count += 1;
            if count == 1000 {
                peer.kill();
            }
        };
        assert!(count >= 1000);
        assert_eq!(end, RecvError::Closed(CloseReason::PeerDied));
    },
    |port| {
        for n in 0.. {
            post_somehow(&port, n).unwrap();
        }
    },
);

doomed!(
    a_reader_that_is_killed,
    Setup::new().limit(1 << 20),
    |port, mut peer| {
        let mut n = 0;
        let refused = loop {
            match post_somehow(&port, n) {
                Ok(()) => n += 1,
                Err(refused) => break refused,
            }
            if n == 1000 {
                peer.kill();
            }
        };
        assert!(n >= 1000);
        assert!(matches!(refused.source, PostError::Closed(CloseReason::PeerDied)), "{refused}");
        assert_eq!(refused.list.len(), usize::from(n % 5 < 2), "handed back");
    },
    |port| {
        for n in 0.. {
            check_somehow(&open(&port), n);
        }
    },
);

// --- Load ---

const MANY: u32 = 100_000;
const STUCK_LIMIT: u64 = 1 << 20;

conversation!(
    a_stuck_reader_is_held_to_its_limit,
    Setup::new().limit(STUCK_LIMIT),
    |stuck| {
        let MessageChannel { port1: served, port2 } = MessageChannel::new().unwrap();
        stuck.post_message("serve", NOTHING, port2).unwrap();
        let mut posted = Vec::new();
        for number in 0..MANY {
            match stuck.try_post_message("tick", &AsPod(number), transfer![]) {
                Ok(()) => posted.push(number),
                Err(TransferError { source: PostError::Full { .. }, .. }) => {}
                Err(other) => panic!("{other}"),
            }
            if number % 1000 == 0 {
                let reply = served.invoke("echo", &AsPod(number), transfer![]).unwrap();
                assert_eq!(reply.recv_timeout(LONG).unwrap().pod::<u32>().unwrap(), &number);
            }
        }
        // Each takes a header, an envelope of 32 bytes and its value: 64 at least.
        let room = STUCK_LIMIT + (64 << 10);
        assert!((posted.len() as u64) < room / 64, "{} were taken", posted.len());
        assert!(posted.len() > 1000, "{} were taken", posted.len());
        served.close();
        let found = open(&stuck).pod_slice::<u32>().unwrap().to_vec();
        assert_eq!(found, posted);
    },
    |port| {
        let first = open(&port);
        let [served] = first.take_ports().unwrap();
        drop(first);
        let mut handlers = Handlers::new();
        handlers.handle("echo", |event| event.pod::<u32>().map(|number| AsPod(*number)));
        assert_eq!(handlers.serve(&served, &()), Ok(CloseReason::Closed));
        let found =
            port.drain().map(|message| *NamedMessage::open(message).unwrap().pod::<u32>().unwrap());
        let found: Vec<u32> = found.collect();
        port.post_message("found", &AsPodSlice(&found), transfer![]).unwrap();
    },
);

alone!(requests_leave_nothing_behind, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut handlers = Handlers::new();
    handlers.handle("ask", |event| Ok::<_, DecodeError>(event.bytes().to_vec()));
    let mut ask = || {
        let reply = port1.invoke("ask", b"echo".as_slice(), transfer![]).unwrap();
        let unhandled = port1.invoke("nobody", NOTHING, transfer![]).unwrap();
        let broken = port1.invoke("ask", NOTHING, transfer![]).unwrap();
        for _ in 0..2 {
            handlers.dispatch(port2.sender(), &(), &port2.recv().unwrap());
        }
        drop(port2.recv().unwrap());
        assert_eq!(reply.recv().unwrap().bytes(), b"echo");
        failure(&unhandled);
        assert_eq!(broken.recv().unwrap_err(), ReplyError::NeverSent);
    };
    ask();
    let before = (count_descriptors(), count_segment_mappings());
    (0..1000).for_each(|_| ask());
    assert_eq!((count_descriptors(), count_segment_mappings()), before);
});

/// The channel of the replies asks no more of a stranger than the port itself has been given.
#[test]
fn requests_pass_between_strangers_with_small_limits() {
    let name = Address::abstract_name(format!("named-limits-{}", std::process::id()));
    let server = Server::bind(name.clone()).unwrap();
    let options = ChannelOptions::new().capacity(4096).limit(8192);
    let client = thread::spawn(move || options.connect(name));
    let port1 = server.accept().unwrap().admit_with(options).unwrap();
    let port2 = client.join().unwrap().unwrap().port;
    for (requester, handler) in [(&port1, &port2), (&port2, &port1)] {
        let reply = requester.invoke("ask", NOTHING, transfer![]).unwrap();
        respond(&open(handler)).reply(&pattern(1, 100_000)).unwrap();
        assert_eq!(reply.recv().unwrap().bytes(), pattern(1, 100_000));
    }
}

// --- Hostile peers, and unusual ones ---

/// A request made by hand: its list begins with what is no good as a port for the reply.
fn post_request(port: &MessagePort, name: &str, list: TransferList) {
    let mut payload = vec![2, 0, name.len() as u8, 0];
    payload.resize(16, 0);
    payload.extend(name.as_bytes());
    payload.resize(payload.len().next_multiple_of(16), 0);
    let mut loan = port.reserve(payload.len()).unwrap();
    loan.copy_from_slice(&payload);
    loan.publish_with(payload.len(), tag_of_name(NAMED), list).unwrap();
}

/// An end on which more may wait than anybody accepts of a stranger.
fn unacceptable() -> MessageChannel {
    let options = ChannelOptions::new().trust(zeroport::Trust::Untrusted);
    options.limits(1 << 40, 1 << 40).open().unwrap()
}

#[test]
fn a_reply_port_that_cannot_be_taken_costs_that_request() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let faults = RefCell::new(Vec::new());
    let mut handlers = Handlers::new();
    handlers.handle("ask", |event| Ok::<_, DecodeError>(event.bytes().to_vec()));
    handlers.on("list", |event| {
        assert!(event.responder().is_err() && event.responder().unwrap().is_none());
        let [good] = event.take_ports().unwrap();
        good.post_bytes(b"good").unwrap();
    });
    handlers.on_message_error(|error, _, ()| faults.borrow_mut().push(error.to_string()));
    for name in ["ask", "nobody", "list"] {
        let MessageChannel { port1: stays, port2: bad } = unacceptable();
        let MessageChannel { port1: good, port2: goes } = MessageChannel::untrusted().unwrap();
        post_request(&port1, name, transfer![bad, goes]);
        dispatch_all(&mut handlers, &port2, &());
        assert!(stays.recv_timeout(LONG).is_err(), "it was let go");
        let expected = if name == "list" { Ok(b"good".to_vec()) } else { Err(CloseReason::Lost) };
        let found = match good.recv_timeout(LONG) {
            Ok(message) => Ok(message.bytes().to_vec()),
            Err(RecvError::Closed(reason)) => Err(reason),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expected);
    }
    let reply = port1.invoke("ask", b"still here".as_slice(), transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(reply.recv().unwrap().bytes(), b"still here");
    assert_eq!((handlers.message_errors(), handlers.unhandled()), (1, 1));
    drop(handlers);
    let faults = faults.into_inner();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("the port for the reply cannot be taken: "), "{faults:?}");
}

/// Whoever serves a stream of replies is not held to what the requester says.
#[test]
fn a_stranger_does_not_choose_how_much_a_stream_of_replies_may_hold() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let options = ChannelOptions::new().trust(zeroport::Trust::Untrusted);
    // Little may wait for the responder, and much from it.
    for (limit, is_ok) in [(1 << 40, false), (8 << 20, true)] {
        let MessageChannel { port1: _stays, port2: goes } =
            options.limits(1 << 20, limit).open().unwrap();
        post_request(&port1, "stream", transfer![goes]);
        let request = open(&port2);
        let responder = match request.responder() {
            Ok(responder) => responder.unwrap(),
            Err(refused) => {
                let TakeError::Attach { index: 0, source, .. } = refused else {
                    panic!("{refused}")
                };
                let AttachError::Limit { found, accepts } = source else { panic!("{source}") };
                assert_eq!((found, accepts, is_ok), (limit, 256 << 20, false));
                continue;
            }
        };
        assert!(is_ok, "{limit} bytes may wait for a stranger who reads nothing");
        let (stream, piece) = (responder.into_port(), vec![7; 1 << 20]);
        let posted = (0..1000).take_while(|_| stream.try_post_bytes(&piece).is_ok()).count();
        assert!((1..=8).contains(&posted), "{posted} MiB wait");
    }
}

/// As between those who have settled on other limits.
#[test]
fn requests_pass_where_more_may_wait_than_usual() {
    let name = Address::abstract_name(format!("named-wide-{}", std::process::id()));
    let server = Server::bind(name.clone()).unwrap();
    let client = thread::spawn(move || zeroport::connect(name));
    let options = ChannelOptions::new().limits(1 << 30, 1 << 29);
    let port1 = server.accept().unwrap().admit_with(options).unwrap();
    let port2 = client.join().unwrap().unwrap().port;
    for (requester, handler) in [(&port1, &port2), (&port2, &port1)] {
        let reply = requester.invoke("ask", NOTHING, transfer![]).unwrap();
        respond(&open(handler)).reply(b"reply".as_slice()).unwrap();
        assert_eq!(reply.recv().unwrap().bytes(), b"reply");
    }
}

#[test]
fn a_handler_is_named_in_its_own_registry_only() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let heard = Cell::new(0);
    let (other, mut handlers) = (Handlers::<()>::new(), Handlers::new());
    let foreign = other.on("tick", |_| ());
    let own = handlers.on("tick", |_| heard.set(heard.get() + 1));
    assert!(foreign != own && !handlers.off(foreign));
    port1.post_message("tick", NOTHING, transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &());
    assert!(other.off(foreign) && handlers.off(own));
    drop(handlers);
    assert_eq!(heard.get(), 1);
}

// Neither a request nor what replies to it stays where it was.
conversation!(
    requests_and_replies_on_the_move,
    |port| {
        let MessageChannel { port1: ours, port2: theirs } = MessageChannel::untrusted().unwrap();
        let waiting =
            ours.invoke("in the queue of a port that moves", NOTHING, transfer![]).unwrap();
        let answered = port.invoke("by somebody else", NOTHING, transfer![]).unwrap();
        port.post_message("a port", NOTHING, theirs).unwrap();
        // The port on which it was asked goes away, too; and who waits for a reply goes with its own.
        let MessageChannel { port1: far, port2: near } = MessageChannel::untrusted().unwrap();
        far.post_message("yours", NOTHING, transfer![ours, waiting.into_port()]).unwrap();
        let [_ours, waiting] = open(&near).take_ports().unwrap();
        // What is to reply comes back here.
        let [responder] = open(&port).take_ports().unwrap();
        port.post_message("now", NOTHING, transfer![]).unwrap();
        assert_eq!(waiting.recv().unwrap().bytes(), b"from where it came to lie");
        assert_eq!(answered.try_recv().unwrap_err(), ReplyError::Empty);
        responder.post_bytes(b"from the requester itself").unwrap();
        assert_eq!(answered.recv().unwrap().bytes(), b"from the requester itself");
        drop(responder);
        assert_eq!(answered.recv().unwrap_err(), ReplyError::Closed(CloseReason::Closed));
    },
    |port| {
        let request = respond(&open(&port)).into_port();
        let [theirs] = open(&port).take_ports().unwrap();
        port.post_message("reply yourself", NOTHING, request).unwrap();
        assert_eq!(open(&port).name(), "now");
        respond(&open(&theirs)).reply(b"from where it came to lie".as_slice()).unwrap();
        assert!(port.recv().is_err());
    },
);

// Who has no descriptor for a request has its list back.
alone!(requests_end_with_the_descriptors, || {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    support::lower_descriptor_limit(count_descriptors() as u64 + 100);
    let buffer = Buffer::from_slice(b"mine").unwrap();
    let mut replies = Vec::new();
    let source = loop {
        match port1.invoke("ask", NOTHING, transfer![]) {
            Ok(reply) => replies.push(reply),
            Err(refused) => break refused.source,
        }
    };
    assert!(matches!(source, PostError::Os(_)), "{source}");
    let refused = port1.invoke("ask", NOTHING, buffer).unwrap_err();
    assert_eq!(refused.list.len(), 1);
    assert!(replies.len() > 10, "{}", replies.len());

    // Those that wait are replied to, with the descriptors of those that do not.
    let last = replies.pop().unwrap();
    replies.clear();
    let mut handlers = Handlers::new();
    handlers.handle("ask", |_| Ok::<_, DecodeError>(b"reply".to_vec()));
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(last.recv().unwrap().bytes(), b"reply");
    port1.post_message("list", NOTHING, refused.list).unwrap();
});

doomed!(
    stopped_over_a_request,
    |port, mut peer| {
        assert_eq!(open(&port).name(), "ready");
        peer.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", peer.pid().as_raw_nonzero());
        wait_until("it is stopped", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
        let reply = port.invoke("ask", NOTHING, transfer![]).unwrap();
        let wait = Duration::from_millis(50);
        assert_eq!(reply.recv_timeout(wait).unwrap_err(), ReplyError::Empty, "it is not dead");
        assert_eq!(port.peer_state(), PeerState::Open);
        peer.signal(Signal::CONT);
        assert_eq!(reply.recv().unwrap().bytes(), b"after all");
        peer.kill();
        let after = port.invoke("ask", NOTHING, transfer![]).map(|reply| reply.recv().map(drop));
        match after {
            Ok(refused) => assert_eq!(refused.unwrap_err(), ReplyError::NeverSent),
            Err(refused) => {
                assert!(matches!(refused.source, PostError::Closed(CloseReason::PeerDied)));
            }
        }
    },
    |port| {
        port.post_message("ready", NOTHING, transfer![]).unwrap();
        respond(&open(&port)).reply(b"after all".as_slice()).unwrap();
        loop {
            thread::park();
        }
    },
);

#[test]
fn replies_of_a_peer_that_says_too_much() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let reply = port1.invoke("ask", NOTHING, transfer![]).unwrap();
    let hostile = respond(&open(&port2)).into_port();
    hostile.post_bytes(b"one").unwrap();
    let mut loan = hostile.reserve(3).unwrap();
    loan.copy_from_slice(b"\xff\0\xfe");
    loan.publish_tagged(3, tag_of_name("zeroport.failed")).unwrap();
    post_envelope(&hostile, b"an envelope, where none belongs");
    hostile.post_message("a name, where none belongs", NOTHING, transfer![]).unwrap();
    hostile.close();
    assert_eq!(reply.recv().unwrap().bytes(), b"one");
    assert_eq!(failure(&reply), "\u{fffd}\0\u{fffd}");
    assert!(reply.recv().unwrap().is_named());
    assert_eq!(open(&reply.into_port()).name(), "a name, where none belongs");
}

/// As `ipcMain.handle` and `handleOnce`: one replies, and the next one when that has gone.
#[test]
fn the_first_of_two_who_handle_a_name_replies() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let called = RefCell::new(Vec::new());
    let mut handlers = Handlers::new();
    handlers.on("ask", |event| called.borrow_mut().push(event.is_request().to_string()));
    for name in ["first", "second"] {
        let called = &called;
        handlers.handle("ask", move |event| {
            called.borrow_mut().push(name.to_string());
            event.off();
            Ok::<_, DecodeError>(name.as_bytes().to_vec())
        });
    }
    for expected in ["first", "second"] {
        let reply = port1.invoke("ask", NOTHING, transfer![]).unwrap();
        dispatch_all(&mut handlers, &port2, &());
        assert_eq!(reply.recv().unwrap().bytes(), expected.as_bytes());
    }
    // Whoever listens, and does not reply, has had it.
    let reply = port1.invoke("ask", NOTHING, transfer![]).unwrap();
    dispatch_all(&mut handlers, &port2, &());
    assert_eq!(reply.recv().unwrap_err(), ReplyError::NeverSent);
    assert_eq!(handlers.unhandled(), 0);
    drop(handlers);
    assert_eq!(*called.borrow(), ["true", "first", "true", "second", "true"]);
}
