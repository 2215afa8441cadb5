//! iceoryx2 as a carrier of payloads: publish-subscribe, samples that are loaned.

use std::hint::spin_loop;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use zeroport::MessagePort;

use crate::Result;
use crate::far::{Carrier, Far};
use crate::link::{Inlet, Link, Outlet};

/// Samples that may wait for the subscriber.
const BUFFERED: usize = 8;

/// Payloads begin on a cache line.
const ALIGNMENT: usize = 64;

/// The publisher, and what must outlive it.
pub struct Loans {
    publisher: Publisher<ipc::Service, [u8], ()>,
    _service: Service,
}

struct Service {
    factory: PortFactory<ipc::Service, [u8], ()>,
    _node: Node<ipc::Service>,
}

impl Service {
    /// The same at both ends: whoever comes first makes it.
    fn open(name: &str) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()?;
        let factory = node
            .service_builder(&name.try_into()?)
            .publish_subscribe::<[u8]>()
            .payload_alignment(Alignment::new(ALIGNMENT).ok_or("no alignment")?)
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(BUFFERED)
            .subscriber_max_borrowed_samples(1)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .max_nodes(2)
            .open_or_create()?;
        Ok(Self { factory, _node: node })
    }
}

/// Starts a far end that subscribes to messages of `len` bytes.
pub fn link(len: usize) -> Result<Link<Loans>> {
    let far = Far::start(Carrier::Iceoryx2)?;
    let name = format!("zeroport/against/{}/{len}", std::process::id());
    let service = Service::open(&name)?;
    // When the buffer is full, a send waits: it looks again and again, yielding in between.
    let publisher = service
        .factory
        .publisher_builder()
        .initial_max_slice_len(len)
        .max_loaned_samples(1)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    far.control().post_bytes(name.as_bytes())?;
    // Who subscribes later than the first send misses it.
    far.answer()?;
    Ok(Link { far, outlet: Loans { publisher, _service: service } })
}

impl Outlet for Loans {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(len)?;
        // SAFETY: bytes of mapped memory, which is always initialised; any value of them will do.
        let mut sample = unsafe { sample.assume_init() };
        write(sample.payload_mut());
        match sample.send()? {
            1 => Ok(()),
            others => Err(format!("{others} subscribers got the message").into()),
        }
    }
}

/// The subscriber, and what must outlive it.
pub struct Incoming {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    _service: Service,
}

impl Incoming {
    /// Subscribes to the service that is named first on the control port.
    pub fn accept(control: &MessagePort) -> Result<Self> {
        let service = Service::open(std::str::from_utf8(control.recv()?.bytes())?)?;
        let subscriber = service.factory.subscriber_builder().buffer_size(BUFFERED).create()?;
        control.post_pod(&0u64)?;
        Ok(Self { subscriber, _service: service })
    }
}

impl Inlet for Incoming {
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(read(sample.payload()));
            }
            spin_loop();
        }
    }
}
