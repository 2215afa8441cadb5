//! The interface: what may go to and be shared between threads, and what errors are. Most of it is
//! settled at compile time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::error::Error;
use std::fmt::Debug;

use static_assertions::{assert_impl_all, assert_not_impl_any};
use zeroport::{
    AcceptError, Address, AddressError, AdmitError, AsPod, AsPodSlice, AtOnce, AttachError,
    BatchError, BindError, Buffer, BufferError, Caller, ChannelOptions, CloseReason, Closer,
    ConnectError, Connection, Credentials, DecodeError, Drain, EncodeError, EncodeWriter, Event,
    EventLoop, Events, HandlerId, Handlers, InsertError, InsertRefusal, LetGo, ListenerId,
    Listeners, Loan, LoopHandle, Message, MessageChannel, MessageError, MessagePort, NamedError,
    NamedEvent, NamedMessage, OpenError, ParentPortError, PeerState, PortDescriptors, PortId,
    PortSet, PostError, Receiver, RecvError, Reply, ReplyError, Responder, SealedBuffer, Sender,
    Server, SetHandle, SpawnError, TakeError, TransferError, TransferList, Transferable, Trust,
    Turn, Untransferable, Usual, WaitStrategy,
};

// One thread at a time, and any thread.
assert_impl_all!(MessagePort: Send, Debug);
assert_not_impl_any!(MessagePort: Sync, Clone);
assert_impl_all!(MessageChannel: Send, Debug);
assert_not_impl_any!(MessageChannel: Sync, Clone);
assert_impl_all!(Sender: Send, Debug);
assert_not_impl_any!(Sender: Sync, Clone);
assert_impl_all!(Receiver: Send, Debug);
assert_not_impl_any!(Receiver: Sync, Clone);

assert_impl_all!(Connection: Send, Debug);
assert_not_impl_any!(Connection: Sync, Clone);

// Any number of threads.
assert_impl_all!(Server: Send, Sync, Debug, std::os::fd::AsFd);
assert_impl_all!(Caller: Send, Sync, Debug);
assert_impl_all!(Credentials: Send, Sync, Debug);
assert_not_impl_any!(Server: Clone);
assert_not_impl_any!(Caller: Clone);
assert_impl_all!(Closer: Send, Sync, Clone, Debug);

assert_impl_all!(Buffer: Send, Sync, Debug, std::ops::DerefMut<Target = [u8]>);
assert_not_impl_any!(Buffer: Clone);
assert_impl_all!(SealedBuffer: Send, Sync, Debug, std::ops::Deref<Target = [u8]>);
assert_not_impl_any!(SealedBuffer: Clone, std::ops::DerefMut);

// Bound to the thread that borrows the port.
assert_impl_all!(Message<'static>: Debug);
assert_not_impl_any!(Message<'static>: Send, Sync, Clone);
assert_impl_all!(Loan<'static>: Debug);
assert_not_impl_any!(Loan<'static>: Send, Sync, Clone);
assert_impl_all!(Drain<'static>: Debug, Iterator<Item = Message<'static>>);
assert_not_impl_any!(Drain<'static>: Send, Sync, Clone);
assert_impl_all!(EncodeWriter<'static>: Debug);
assert_not_impl_any!(EncodeWriter<'static>: Clone);

// Messages with names.
assert_impl_all!(NamedMessage<'static>: Debug);
assert_not_impl_any!(NamedMessage<'static>: Send, Sync, Clone);
assert_impl_all!(NamedEvent<'static, 'static, ()>: Debug, std::ops::Deref<Target = NamedMessage<'static>>);
assert_not_impl_any!(NamedEvent<'static, 'static, ()>: Send, Sync, Clone);
assert_impl_all!(Handlers<'static, ()>: Debug, Default);
assert_not_impl_any!(Handlers<'static, ()>: Send, Sync, Clone);
assert_impl_all!(Reply: Send, Debug);
assert_not_impl_any!(Reply: Sync, Clone);
assert_impl_all!(Responder: Send, Debug);
assert_not_impl_any!(Responder: Sync, Clone);
assert_impl_all!(HandlerId: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(AsPod<u8>: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(AsPodSlice<'static, u8>: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(NamedError: Send, Sync, Error);
assert_impl_all!(ReplyError: Send, Sync, Clone, Eq, Error);

// A set is for one thread at a time, its handles are for all.
assert_impl_all!(PortSet<u64>: Send, Debug, std::os::fd::AsFd);
assert_not_impl_any!(PortSet<u64>: Sync, Clone);
assert_impl_all!(SetHandle<u64>: Send, Sync, Clone, Debug);
assert_impl_all!(Events<'static, u64>: Debug, Iterator<Item = (u64, Event<'static>)>);
assert_impl_all!(Event<'static>: Debug);
assert_not_impl_any!(Event<'static>: Send, Sync, Clone);
assert_impl_all!(InsertError: Send, Sync, Error);
assert_impl_all!(InsertRefusal: Send, Sync, Error);

// A loop stays where its handlers may be, its handles are for all.
assert_impl_all!(EventLoop<'static>: Debug, std::os::fd::AsFd);
assert_not_impl_any!(EventLoop<'static>: Send, Sync, Clone);
assert_impl_all!(Turn<'static, 'static>: Debug);
assert_not_impl_any!(Turn<'static, 'static>: Send, Sync, Clone);
assert_impl_all!(Listeners<'static, 'static>: Debug);
assert_not_impl_any!(Listeners<'static, 'static>: Send, Sync, Clone);
assert_impl_all!(LoopHandle: Send, Sync, Clone, Debug);
assert_impl_all!(PortId: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(ListenerId: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(MessageError: Send, Sync, Error);
// They go where their task goes; so does what it holds.
#[cfg(feature = "async")]
mod in_tasks {
    use super::*;
    use zeroport::{AsyncMessage, AsyncPort, AsyncReceiver, AsyncSender, Messages, Posts};

    assert_impl_all!(AsyncPort<()>: Send, Debug, Unpin);
    assert_not_impl_any!(AsyncPort<()>: Sync, Clone);
    assert_impl_all!(AsyncSender<()>: Send, Debug, Unpin);
    assert_not_impl_any!(AsyncSender<()>: Sync, Clone);
    assert_impl_all!(AsyncReceiver<()>: Send, Debug, Unpin);
    assert_not_impl_any!(AsyncReceiver<()>: Sync, Clone);
    assert_impl_all!(AsyncMessage<'static>: Send, Debug, std::ops::Deref<Target = Message<'static>>);
    assert_not_impl_any!(AsyncMessage<'static>: Sync, Clone, std::ops::DerefMut);
    assert_impl_all!(Messages<(), ()>: Send, Debug, Unpin);
    assert_impl_all!(Posts<(), (), ()>: Send, Debug, Unpin);
}

// Plain values.
assert_impl_all!(Address: Send, Sync, Clone, Debug, Eq, std::hash::Hash);
assert_impl_all!(ChannelOptions: Send, Sync, Copy, Debug, Default);
assert_impl_all!(Trust: Send, Sync, Copy, Debug, Default, Eq, std::hash::Hash);
assert_impl_all!(WaitStrategy: Send, Sync, Copy, Debug, Default, Eq, std::hash::Hash);
assert_impl_all!(PeerState: Send, Sync, Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(Untransferable: Send, Sync, Copy, Debug, Eq, std::hash::Hash);

// Errors that every error type of a program can hold.
assert_impl_all!(AcceptError: Error, Send, Sync);
assert_impl_all!(AddressError: Error, Send, Sync, Eq);
assert_impl_all!(AdmitError: Error, Send, Sync);
assert_impl_all!(AttachError: Error, Send, Sync);
assert_impl_all!(BatchError: Error, Send, Sync);
assert_impl_all!(BufferError: Error, Send, Sync);
assert_impl_all!(BindError: Error, Send, Sync);
assert_impl_all!(ConnectError: Error, Send, Sync);
assert_impl_all!(CloseReason: Error, Send, Sync, Copy, Eq, std::hash::Hash);
assert_impl_all!(DecodeError: Error, Send, Sync);
assert_impl_all!(EncodeError: Error, Send, Sync);
assert_impl_all!(OpenError: Error, Send, Sync);
assert_impl_all!(ParentPortError: Error, Send, Sync);
assert_impl_all!(PostError: Error, Send, Sync);
assert_impl_all!(RecvError: Error, Send, Sync, Copy, Eq);
assert_impl_all!(SpawnError: Error, Send, Sync);
assert_impl_all!(TakeError: Error, Send, Sync);
assert_impl_all!(TransferError: Error, Send, Sync);

// What holds ports, and buffers.
assert_impl_all!(PortDescriptors: Send, Sync, Debug);
assert_impl_all!(TransferList: Send, Sync, Debug, Default, FromIterator<MessagePort>);
assert_not_impl_any!(TransferList: Clone);
assert_impl_all!(TransferList: FromIterator<Transferable>, From<Buffer>, From<SealedBuffer>);
assert_impl_all!(Transferable: Send, Debug, From<MessagePort>, From<Buffer>, From<SealedBuffer>);
assert_not_impl_any!(Transferable: Sync, Clone);

// For bindings only.
assert_impl_all!(AtOnce: Send, Sync, Copy, Debug);
assert_impl_all!(LetGo<'static>: Copy, Debug);
assert_impl_all!(Usual<'static>: Copy, Debug);

const fn is_static<T: 'static>() {}
const _: () = {
    is_static::<(AttachError, BatchError, CloseReason, DecodeError, EncodeError)>();
    is_static::<(OpenError, ParentPortError, PostError, RecvError, SpawnError)>();
    is_static::<(AcceptError, AddressError, AdmitError, BindError, ConnectError)>();
    is_static::<(Server, Caller, Connection, Credentials)>();
    is_static::<(Buffer, SealedBuffer, BufferError)>();
    is_static::<(MessagePort, MessageChannel, Sender, Receiver, Closer)>();
    is_static::<(PortSet<u64>, SetHandle<u64>, InsertError, InsertRefusal)>();
    is_static::<(EventLoop<'static>, LoopHandle, PortId, ListenerId, MessageError)>();
    is_static::<(NamedError, ReplyError, Reply, Responder, HandlerId)>();
    is_static::<(TakeError, TransferError, TransferList, Untransferable)>();
};

/// Every public type of the crate's documentation is asserted above.
#[test]
fn no_public_type_is_left_out() {
    let (library, this) = (include_str!("../src/lib.rs"), include_str!("api.rs"));
    let exports = library.split("pub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let names = exports
        .flat_map(|path| path.rsplit("::").next().unwrap().split(['{', '}', ',']).map(str::trim));
    let mut types = 0;
    for name in names.filter(|name| name.starts_with(char::is_uppercase)) {
        // Traits, and an alias of a type of rkyv.
        if ["Tagged", "Payload", "Postable", "Readable", "Encoder", "Reactor"].contains(&name) {
            continue;
        }
        types += 1;
        let asserted = [':', '<'].map(|next| format!("assert_impl_all!({name}{next}"));
        assert!(asserted.iter().any(|line| this.contains(line)), "{name} is not asserted");
    }
    assert!(types >= 20, "only {types} public types were found");
}

#[test]
fn errors_keep_what_caused_them() {
    let MessageChannel { port1, port2: _port2 } = MessageChannel::new().unwrap();
    let len = port1.max_payload() + 1;
    let boxed: Box<dyn Error + Send + Sync> = port1.reserve(len).unwrap_err().into();
    assert!(boxed.to_string().contains(&len.to_string()), "{boxed}");

    let loan = port1.reserve(1).unwrap();
    let error = port1.post_all_bytes([b"while it is out"]).unwrap_err();
    drop(loan);
    let source = error.source().expect("what refused the message");
    assert_eq!(source.to_string(), error.source.to_string());
    assert!(matches!(error.source, PostError::Busy), "{error}");
    let boxed: Box<dyn Error + Send + Sync> = error.into();
    assert!(boxed.to_string().contains(&PostError::Busy.to_string()), "{boxed}");

    let error = zeroport::parent_port().unwrap_err();
    assert!(matches!(error, ParentPortError::NoParent), "{error}");
    assert!(error.to_string().contains("zeroport::spawn"), "{error}");
}

#[test]
fn defaults_are_the_documented_ones() {
    assert_eq!(Trust::default(), Trust::Trusted);
    assert_eq!(WaitStrategy::default(), WaitStrategy::Adaptive);
    let MessageChannel { port1, port2 } = ChannelOptions::default().open().unwrap();
    for port in [port1, port2] {
        assert_eq!(port.max_payload(), 4 << 30);
        assert_eq!(port.max_in_ring(), (64 << 10) / 2 - 32);
    }
}
