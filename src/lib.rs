//! Message ports for native programs: entangled pairs, in shared memory, between processes.
//!
//! A [`MessageChannel`] is two entangled ports; what is posted on one is received on the other, also
//! when the other is in a child process. Messages wait until somebody listens, ports can be given away
//! in messages, and after the last message a port tells why its channel ended, be it that the process
//! at the other end was killed.
//!
//! ```
//! use zeroport::MessageChannel;
//!
//! let MessageChannel { port1, port2 } = MessageChannel::new()?;
//! port1.post_bytes(b"hello")?;
//! assert_eq!(port2.recv()?.bytes(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to start
//!
//! * [`spawn`] starts a child process with a port, [`parent_port`] is the child's end;
//!   [`MessageChannel::new`] makes both ends here, for two threads. [`ChannelOptions`] sets
//!   capacities, limits, [trust](Trust) and [waiting](WaitStrategy) for either way.
//! * [`Server`] and [`connect`] bring programs together that did not start each other: at a path, or at
//!   an abstract name ([`Address`]). Each side learns who the other is ([`Credentials`]).
//! * [`MessagePort`] has all the verbs: posting, receiving, closing. Its page is the reference for
//!   [`Sender`] and [`Receiver`], too.
//! * [`EventLoop`] has handlers called for what comes on many ports: `on_message`, `on_close` and their like.
//! * [`PortSet`] waits on many ports at once, and tells what comes, and which ports have ended: for loops of your own.
#![cfg_attr(
    feature = "async",
    doc = "* [`AsyncPort`] waits in tasks: of tokio, of smol, or of another runtime ([`Reactor`])."
)]
#![cfg_attr(
    not(feature = "async"),
    doc = "* `AsyncPort` waits in tasks, with the feature `tokio` or `smol`."
)]
//!   [`MessagePort::arm`] and [`Sender::post_or_arm`] are for loops of other kinds.
//! * [`Handlers`] are called for [messages with names](MessagePort::post_message), and reply to
//!   [requests](MessagePort::invoke).
//! * [`Message`] is what was received: bytes, plain data or a value, where it lies, and the ports and
//!   buffers that came with it.
//! * [`Buffer`] is memory of its own, to be filled and then given away without a copy.
//!
//! # Payloads
//!
//! | payload | posted by | read by | needs |
//! |---|---|---|---|
//! | bytes | [`post_bytes`](MessagePort::post_bytes) | [`bytes`](Message::bytes) | nothing |
//! | plain data: structs of numbers without padding | [`post_pod`](MessagePort::post_pod), [`post_pod_slice`](MessagePort::post_pod_slice) | [`pod`](Message::pod), [`pod_slice`](Message::pod_slice) | [`Tagged`], and bytemuck's `Pod` |
#![cfg_attr(
    feature = "rkyv",
    doc = "| values: strings, vectors, enums, … | [`post`](MessagePort::post) | [`get`](Message::get) | [`Tagged`], and rkyv's `Archive` and `Serialize` |"
)]
#![cfg_attr(
    not(feature = "rkyv"),
    doc = "| values: strings, vectors, enums, … | `post` | `get` | the feature `rkyv` |"
)]
//! | whatever is written in place | [`reserve`](MessagePort::reserve), [`Loan::publish`] | as it was tagged | nothing |
//! | a [`Buffer`], beside one of these | [`post_bytes_with`](MessagePort::post_bytes_with) and its like | [`take_buffers`](Message::take_buffers) | nothing |
//!
//! ```
//! use zeroport::MessageChannel;
//!
//! let MessageChannel { port1, port2 } = MessageChannel::new()?;
//! port1.post_pod_slice(&[0.5f32, 1.5])?; // one message
//! port1.post_all_pod(&[1u32, 2, 3])?; // three, which appear at once
//! assert_eq!(port2.recv()?.pod_slice::<f32>()?, [0.5, 1.5]);
//! assert_eq!(port2.drain().filter_map(|message| message.pod::<u32>().ok().copied()).sum::<u32>(), 6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All of them carry a [tag](Tagged) of their type. Reading as another type is an error, as are bytes
//! that are not a valid value; either costs that message only.
//!
//! A payload of up to [`max_in_ring`](MessagePort::max_in_ring) bytes travels in the ring. A longer one, up to
//! 4 GiB (a value: 2 GiB), has a memory of its own, and is read there; the verbs are the same. Whoever
//! wants to fill such memory in place uses a loan, or a buffer, which can also be kept, and given on:
//!
//! ```
//! use zeroport::{Buffer, MessageChannel, transfer};
//!
//! let MessageChannel { port1, port2 } = MessageChannel::new()?;
//! port1.post_bytes(&vec![7; 1 << 20])?;
//! assert_eq!(port2.recv()?.bytes().len(), 1 << 20);
//!
//! let mut buffer = Buffer::new(8 << 20)?;
//! buffer.as_pod_slice_mut::<u64>()?.fill(7);
//! port1.post_bytes_with(b"sevens", transfer![buffer])?;
//! let [buffer] = port2.recv()?.take_buffers()?; // read-only from now on, for everybody
//! assert!(buffer.pod_slice::<u64>()?.iter().all(|seven| *seven == 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ports in messages
//!
//! A port can be given away with a message, and whoever [takes](Message::take_ports) it from there is
//! its holder. So ports introduce ports: a parent makes a channel and gives one end to each of two
//! children; a request carries the port for its replies.
//!
//! ```
//! use zeroport::{CloseReason, MessageChannel, RecvError, transfer};
//!
//! let MessageChannel { port1: client, port2: server } = MessageChannel::new()?;
//! let MessageChannel { port1: replies, port2: reply } = MessageChannel::new()?;
//! client.post_bytes_with(b"count to three", transfer![reply])?;
//!
//! let request = server.recv()?;
//! let [reply] = request.take_ports()?;
//! reply.post_all_pod(&[1u32, 2, 3])?;
//! reply.close();
//!
//! for n in 1..=3 {
//!     assert_eq!(replies.recv()?.pod::<u32>()?, &n);
//! }
//! assert_eq!(replies.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    feature = "rkyv",
    doc = "* [`post_with`](MessagePort::post_with), [`post_bytes_with`](MessagePort::post_bytes_with),"
)]
#![cfg_attr(
    not(feature = "rkyv"),
    doc = "* `post_with`, [`post_bytes_with`](MessagePort::post_bytes_with),"
)]
//!   [`post_pod_with`](MessagePort::post_pod_with) and [`Loan::publish_with`] take a [`TransferList`],
//!   made by [`transfer!`], or from one port or [buffer](Buffer), an array, a vector. All of it goes, or
//!   nothing: [`TransferError`] hands the list back.
//! * Programs with their own way to pass descriptors use
//!   [`into_descriptors`](MessagePort::into_descriptors) and
//!   [`from_descriptors`](MessagePort::from_descriptors).
//! * A port can go at any time: with messages waiting in it, while its other end posts, or moves too,
//!   or was closed. Its messages go along, in their order; its other end is not told and need not be
//!   awake. No message goes through a former holder, who may be stopped, or end, the next instant.
//! * It cannot go on itself or to its own other end, nor once it is at its end; see
//!   [`Untransferable`].
//!
//! | what becomes of a port | what its other end is told, after the last message |
//! |---|---|
//! | it is taken, and closed or dropped later | [`Closed`](CloseReason::Closed) |
//! | it is taken, and its holder dies | [`PeerDied`](CloseReason::PeerDied) |
//! | its message is dropped, or the process that should receive it ends, before it was taken | [`Lost`](CloseReason::Lost) |
//!
//! # Messages with names
//!
//! A layer on ports: a message has a name, a [payload](Payload), and ports and buffers; a request brings the port for its
//! replies, so that whoever asked learns of each of them, of a failure, and that there will never be one. It works on
//! every port, in either direction; handlers in an [`EventLoop`] take new ports into it by [`NamedEvent::later`].
//! docs/from-electron.md, beside the source, has what each name of Electron is here.
//!
//! ```
//! use zeroport::{AsPod, Handlers, MessageChannel, transfer};
//!
//! let MessageChannel { port1, port2 } = MessageChannel::new()?;
//! let mut handlers = Handlers::<&str>::new();
//! handlers.on("greet", |event| println!("{} says hello", event.identity()));
//! handlers.handle("double", |event| event.pod::<u32>().map(|n| AsPod(2 * n)));
//!
//! port1.post_message("greet", b"hello".as_slice(), transfer![])?;
//! let reply = port1.invoke("double", &AsPod(21u32), transfer![])?;
//! for message in port2.drain() {
//!     handlers.dispatch(port2.sender(), &"port1", &message);
//! }
//! assert_eq!(reply.recv()?.pod::<u32>()?, &42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Order and waiting
//!
//! * Messages of one port arrive once, whole, and in the order of their posts, whatever their kind.
//!   Between two channels no order is promised.
//! * A post returns when its message is visible to the other side; it does not wait for the other side to
//!   run. What does not fit in the ring waits in larger ones, by which the queue grows, until as many bytes
//!   wait as the [limit](ChannelOptions::limit) allows: 256 MiB in each direction unless told otherwise.
//!   Then `post` waits for room as long as it takes, `post_timeout` so long, and `try_post` is
//!   [`Full`](PostError::Full). Two sides that post and never receive wait for each other in the end.
//! * Before the queue grows, a post watches a reader that is awake, for a moment: `try_post` at most 0.1 ms,
//!   the others 5 ms. It may make room sooner.
//! * The memory that a queue has grown by goes back to the system as it is read, and what is left of it when
//!   the reader has nothing to do for a tenth of a second.
//! * [`recv`](MessagePort::recv) waits, [`try_recv`](MessagePort::try_recv) does not,
//!   [`recv_timeout`](MessagePort::recv_timeout) so long; [`drain`](MessagePort::drain) takes what is
//!   there. Signals do not end a wait.
//! * How they wait is the port's [`WaitStrategy`]. There are no hidden threads.
//!
//! ```
//! use std::time::Duration;
//! use zeroport::{ChannelOptions, MessageChannel, PostError, WaitStrategy};
//!
//! let MessageChannel { port1, port2 } = ChannelOptions::new().limit(0).open()?; // never grows
//! port1.set_wait_strategy(WaitStrategy::Spin);
//! while port1.try_post_pod(&7u64).is_ok() {} // until the ring is full
//! let refused = port1.post_bytes_timeout(&[0; 100], Duration::from_millis(1));
//! assert!(matches!(refused, Err(PostError::Full { len: 100 })));
//! assert_eq!(port1.sleeps(), 0, "it spins");
//!
//! assert!(port2.drain().count() > 1000);
//! let loan = port1.try_reserve(100)?;
//! assert!(matches!(port1.try_reserve(100), Err(PostError::Busy))); // one at a time
//! loan.publish(100)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Handlers
//!
//! An [`EventLoop`] calls what was set for its ports, one message after the other, on the thread that runs it.
//!
//! * [`on_message`](Listeners::on_message) starts a port; [listeners](Listeners::add) beside it, and
//!   [those for one message](Listeners::once), wait for a [`start`](Listeners::start).
//! * While nobody listens, messages wait. None is lost between two handlers, nor when a port goes elsewhere.
//! * A handler may replace itself, post on its port, close it or give it away. A close is a hard stop: what waits is
//!   dropped, and no handler of the port is called again.
//! * [`on_close`](Listeners::on_close) is told of the other end's going, once, after the last message.
//! * A handler that panics costs its message, and one that meets an undecodable message does, too
//!   ([`on_message_error`](Listeners::on_message_error)).
//! * [`run`](EventLoop::run) ends when no port is left; loops of other kinds poll the loop's descriptor.
//!
//! # The end
//!
//! [`close`](MessagePort::close), drop, and the end of the process all close a port. The other end
//! first receives what had been posted, then [`RecvError::Closed`] with its [`CloseReason`], once and
//! for ever; [`peer_state`](MessagePort::peer_state) knows it at once. A process that is stopped is
//! not dead.
//!
//! # Errors
//!
//! Each verb has an error of its own, which says what happened, with the number and the limit, and
//! what to do: [`OpenError`], [`SpawnError`], [`ParentPortError`] ([`AttachError`] inside),
//! [`PostError`] ([`BatchError`] or [`TransferError`] around it), [`RecvError`], [`DecodeError`],
//! [`TakeError`] ([`AttachError`] inside), [`BufferError`], [`InsertError`], [`NamedError`], [`ReplyError`]; handlers are told a [`MessageError`]. A failed post has posted nothing, and what was
//! to be posted is still the caller's. Where descriptors or memory have run out, nothing is lost on either
//! side: free some, and call again. Strangers that do not come together are told why by [`BindError`],
//! [`AcceptError`], [`AdmitError`] and [`ConnectError`] ([`AddressError`] inside). All are
//! `Send + Sync + 'static`.
//!
//! # Threads
//!
//! A port serves one thread at a time; [`MessagePort::split`] makes two halves for two threads.
//!
//! | type | `Send` | `Sync` | |
//! |---|---|---|---|
//! | [`MessageChannel`], [`MessagePort`], [`Sender`], [`Receiver`] | yes | no | may move to another thread |
//! | [`Connection`] | yes | no | as its port |
//! | [`PortSet`] | yes | no | as its ports |
//! | [`EventLoop`] | no | no | stays with its handlers, which may hold anything |
#![cfg_attr(
    feature = "async",
    doc = "| [`AsyncPort`], [`AsyncSender`], [`AsyncReceiver`], [`Messages`], [`Posts`] | yes | no | go where their task goes |\n| [`AsyncMessage`] | yes | no | a message that may go there, too: it has its half to itself |"
)]
//! | [`Closer`] | yes | yes | closes from any thread; `Clone` |
//! | [`SetHandle`], [`LoopHandle`] | yes | yes | reach their set, or loop, from any thread; `Clone` |
//! | [`Server`] | yes | yes | several threads may accept |
//! | [`Caller`], [`Credentials`], [`Address`] | yes | yes | |
//! | [`Buffer`], [`SealedBuffer`] | yes | yes | memory like any other |
//! | [`Message`], [`Loan`], [`Drain`] | no | no | stay with their port |
//! | [`NamedMessage`], [`NamedEvent`] | no | no | stay with their message |
//! | [`Handlers`] | no | no | its handlers need not be `Send` |
//! | [`Reply`], [`Responder`] | yes | no | as their port |
//! | [`Events`], [`Event`] | no | no | stay with their set |
//! | [`Turn`], [`Listeners`] | no | no | stay with their loop |
//! | [`ChannelOptions`], [`Trust`], [`WaitStrategy`], [`PeerState`], [`CloseReason`], [`PortId`], [`ListenerId`], [`HandlerId`] | yes | yes | plain values |
//! | [`AsPod`], [`AsPodSlice`] | yes | yes | if what is in them is |
//! | [`Transferable`] | yes | no | holds a port |
//! | [`TransferList`], [`PortDescriptors`] | yes | yes | give what they hold to who owns them |
//! | [`Untransferable`], all errors | yes | yes | |
#![cfg_attr(
    feature = "rkyv",
    doc = "| [`EncodeWriter`], [`Encoder`] | no | no | live for one serialisation |"
)]
//!
//! # Trust
//!
//! On a [`Trusted`](Trust::Trusted) channel, the default except between a [`Server`] and its callers,
//! payloads are validated and then read in shared memory: all its holders must be our own processes. On an
//! [`Untrusted`](Trust::Untrusted) one they are copied, then validated; large ones, and buffers, lie in memory
//! that nobody can change any more, and are read there. A hostile other side can send
//! nonsense and end the channel, no more. Positions, lengths, tags and descriptors are checked in either
//! case; who breaks the protocol is reported as [`Violated`](CloseReason::Violated). SECURITY.md, beside
//! the source, says what is promised and what is not.
//!
//! A port that comes in a message is [untrusted](MessagePort::trust) if it was so at its sender, or if
//! the port that brings it is. An end of a trusted channel is not given away on an untrusted port
//! ([`Untransferable::Trusted`]): make channels for strangers with [`MessageChannel::untrusted`].
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `rkyv` | yes | values: `post`, `Message::get`. Without it: bytes and plain data |
//! | `tokio` | no | `tokio::AsyncPort`: a port in tasks of tokio |
//! | `smol` | no | `smol::AsyncPort`: the same for smol, and whatever waits by `async-io` |
//! | `async` | no | `AsyncPort` for any other runtime (`Reactor`); the two above have it |
//!
//! # Platform
//!
//! 64-bit little-endian Linux, 4.14 or newer; some later features of the kernel are used where it
//! has them. Rust 1.88 or newer.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The models use some of each lower layer, and nobody else is there to use the rest.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("zeroport needs 64-bit little-endian Linux");

/// The code in README.md, run with the other examples. (Some of it needs tokio.)
#[cfg(all(doctest, feature = "rkyv", feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// As well the code in docs/from-electron.md.
#[cfg(all(doctest, feature = "rkyv", feature = "tokio"))]
#[doc = include_str!("../docs/from-electron.md")]
struct FromElectron;

// What the tests outside share with those inside knows the crate by its name.
#[cfg(all(test, not(loom)))]
extern crate self as zeroport;

// In the order of their layers: each uses only those above it (ci/layers holds them to it).
mod sync;

mod record;
mod tag;

mod account;
mod epoch;
mod halves;
mod layout;
mod turn;
mod wake;

mod ends;
mod queue;
mod ring;
mod sleep;
mod steps;
mod ticket;

mod tenure;

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod block;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod lane;
#[cfg(not(loom))]
mod line;
#[cfg(not(loom))]
mod memfd;
#[cfg(not(loom))]
mod packet;
#[cfg(all(feature = "rkyv", not(loom)))]
mod payload;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod spares;
#[cfg(not(loom))]
mod warm;

#[cfg(all(feature = "async", not(loom)))]
mod aio;
#[cfg(not(loom))]
mod contact;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod port;
#[cfg(not(loom))]
mod spawn;
#[cfg(not(loom))]
mod welcome;

#[cfg(test)]
#[cfg(loom)]
mod model;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use tag::{Tagged, tag_of_name, tag_of_plain_data};

#[cfg(all(feature = "smol", not(loom)))]
pub use aio::smol;
#[cfg(all(feature = "tokio", not(loom)))]
pub use aio::tokio;
#[cfg(all(feature = "async", not(loom)))]
pub use aio::{AsyncMessage, AsyncPort, AsyncReceiver, AsyncSender, Messages, Posts, Reactor};
#[cfg(not(loom))]
pub use buffer::{Buffer, BufferError, SealedBuffer};
#[cfg(not(loom))]
pub use contact::{
    AcceptError, Address, AddressError, AdmitError, BindError, Caller, ConnectError, Connection,
    Credentials, Server, connect,
};
#[cfg(not(loom))]
pub use error::{
    AttachError, BatchError, CloseReason, DecodeError, OpenError, ParentPortError, PostError,
    RecvError, SpawnError, TakeError, Untransferable,
};
#[cfg(not(loom))]
pub use named::{
    AsPod, AsPodSlice, HandlerId, Handlers, NamedError, NamedEvent, NamedMessage, Payload, Reply,
    ReplyError, Responder,
};
#[cfg(all(feature = "rkyv", not(loom)))]
pub use payload::{EncodeError, EncodeWriter, Encoder, Postable, Readable};
#[cfg(not(loom))]
#[doc(hidden)]
pub use port::{AtOnce, LetGo, Usual};
#[cfg(not(loom))]
pub use port::{
    ChannelOptions, Closer, Drain, Event, EventLoop, Events, InsertError, InsertRefusal,
    ListenerId, Listeners, Loan, LoopHandle, Message, MessageChannel, MessageError, MessagePort,
    PeerState, PortDescriptors, PortId, PortSet, Receiver, Sender, SetHandle, TransferError,
    TransferList, Transferable, Trust, Turn, WaitStrategy,
};
#[cfg(not(loom))]
pub use spares::trim;
#[cfg(not(loom))]
pub use spawn::{parent_port, spawn};
