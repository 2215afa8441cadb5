//! iceoryx2: publish-subscribe, samples that are loaned. Whoever receives spins: it waits for nothing else
//! without a further service.

use std::fmt::Debug;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::builder::publish_subscribe::Builder;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use zeroport::MessagePort;

use super::CAPACITY;
use crate::Result;
use crate::carrier::{Carrier, Inlet, Link, Outlet};
use crate::far::{Far, Role};

/// Large samples that may wait for the subscriber.
const BUFFERED: usize = 8;

/// Large payloads begin on a cache line.
const ALIGNMENT: usize = 64;

/// A service from one publisher to one subscriber, of which no sample is lost.
struct Service<T: Debug + IceoryxSend + ?Sized> {
    factory: PortFactory<ipc::Service, T, ()>,
    buffered: usize,
}

/// What a process needs once.
fn node() -> Result<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    Ok(NodeBuilder::new()
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<ipc::Service>()?)
}

/// A name that no other service has.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("zeroport/against/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn one_to_one<T: Debug + IceoryxSend + ?Sized>(
    builder: Builder<T, (), ipc::Service>,
    buffered: usize,
) -> Builder<T, (), ipc::Service> {
    builder
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(buffered)
        .subscriber_max_borrowed_samples(1)
        .history_size(0)
        .max_publishers(1)
        .max_subscribers(1)
        .max_nodes(2)
}

impl<const N: usize> Service<[u64; N]> {
    /// The same at both ends: whoever comes first makes it.
    fn of_words(node: &Node<ipc::Service>, name: &str) -> Result<Self> {
        let buffered = CAPACITY / size_of::<[u64; N]>();
        let builder = node.service_builder(&name.try_into()?).publish_subscribe::<[u64; N]>();
        Ok(Self { factory: one_to_one(builder, buffered).open_or_create()?, buffered })
    }

    fn publisher(&self) -> Result<Publisher<ipc::Service, [u64; N], ()>> {
        let builder = self.factory.publisher_builder().max_loaned_samples(1);
        Ok(builder.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create()?)
    }
}

impl Service<[u8]> {
    fn of_bytes(node: &Node<ipc::Service>, name: &str) -> Result<Self> {
        let alignment = Alignment::new(ALIGNMENT).ok_or("no alignment")?;
        let builder = node.service_builder(&name.try_into()?).publish_subscribe::<[u8]>();
        let builder = one_to_one(builder, BUFFERED).payload_alignment(alignment);
        Ok(Self { factory: builder.open_or_create()?, buffered: BUFFERED })
    }

    fn publisher(&self, len: usize) -> Result<Publisher<ipc::Service, [u8], ()>> {
        let builder = self.factory.publisher_builder().initial_max_slice_len(len);
        let builder = builder.max_loaned_samples(1);
        Ok(builder.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create()?)
    }
}

impl<T: Debug + IceoryxSend + ?Sized> Service<T> {
    fn subscriber(&self) -> Result<Subscriber<ipc::Service, T, ()>> {
        Ok(self.factory.subscriber_builder().buffer_size(self.buffered).create()?)
    }
}

/// A service there, and one back, with what must outlive them.
pub struct Services<const N: usize> {
    publisher: Publisher<ipc::Service, [u64; N], ()>,
    subscriber: Subscriber<ipc::Service, [u64; N], ()>,
    _services: [Service<[u64; N]>; 2],
    _node: Node<ipc::Service>,
}

/// Starts a far end that holds the other ends of two new services.
pub fn link<const N: usize>(role: Role) -> Result<Link<Services<N>>> {
    let far = Far::process(role)?;
    let names = [fresh_name(), fresh_name()];
    let [there, back] = &names;
    let carrier = Services::open(there, back)?;
    far.control().post_bytes(names.join(" ").as_bytes())?;
    // Who subscribes later than the first send misses it.
    far.answer()?;
    Ok(Link { far, carrier })
}

impl<const N: usize> Services<N> {
    fn open(out: &str, back: &str) -> Result<Self> {
        let node = node()?;
        let services = [Service::of_words(&node, out)?, Service::of_words(&node, back)?];
        let [out, back] = &services;
        let (publisher, subscriber) = (out.publisher()?, back.subscriber()?);
        Ok(Self { publisher, subscriber, _services: services, _node: node })
    }

    /// Opens the services that are named first on the control port.
    pub fn accept(control: &MessagePort) -> Result<Self> {
        let names = String::from_utf8(control.recv()?.bytes().to_vec())?;
        let (there, back) = names.split_once(' ').ok_or("two names")?;
        let services = Self::open(back, there)?;
        control.post_pod(&0u64)?;
        Ok(services)
    }
}

impl<const N: usize> Carrier<N> for Services<N> {
    #[inline(always)]
    fn send(&mut self, payload: &[u64; N]) -> Result<()> {
        let sample = self.publisher.loan_uninit()?.write_payload(*payload);
        delivered(sample.send()?)
    }

    #[inline(always)]
    fn receive<R>(&mut self, read: impl FnOnce(&[u64; N]) -> R) -> Result<R> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(read(sample.payload()));
            }
            spin_loop();
        }
    }
}

fn delivered(subscribers: usize) -> Result<()> {
    match subscribers {
        1 => Ok(()),
        others => Err(format!("{others} subscribers got the message").into()),
    }
}

/// The publisher of large messages, and what must outlive it.
pub struct Loans {
    publisher: Publisher<ipc::Service, [u8], ()>,
    _service: Service<[u8]>,
    _node: Node<ipc::Service>,
}

/// Starts a far end that subscribes to large messages.
pub fn link_large(role: Role) -> Result<Link<Loans>> {
    let far = Far::process(role)?;
    let (node, name) = (node()?, fresh_name());
    let service = Service::of_bytes(&node, &name)?;
    let publisher = service.publisher(role.size)?;
    far.control().post_bytes(name.as_bytes())?;
    far.answer()?;
    Ok(Link { far, carrier: Loans { publisher, _service: service, _node: node } })
}

impl Outlet for Loans {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(len)?;
        // SAFETY: bytes of mapped memory, which is always initialised; any value of them will do.
        let mut sample = unsafe { sample.assume_init() };
        write(sample.payload_mut());
        delivered(sample.send()?)
    }
}

/// The subscriber to large messages, and what must outlive it.
pub struct Incoming {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    _service: Service<[u8]>,
    _node: Node<ipc::Service>,
}

impl Incoming {
    /// Subscribes to the service that is named first on the control port.
    pub fn accept(control: &MessagePort) -> Result<Self> {
        let node = node()?;
        let service = Service::of_bytes(&node, std::str::from_utf8(control.recv()?.bytes())?)?;
        let subscriber = service.subscriber()?;
        control.post_pod(&0u64)?;
        Ok(Self { subscriber, _service: service, _node: node })
    }
}

impl Inlet for Incoming {
    fn receive<R>(&mut self, _: usize, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(read(sample.payload()));
            }
            spin_loop();
        }
    }
}
