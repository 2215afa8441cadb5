//! The far end: this program once more, in a process of its own, on the other processor.
//!
//! It takes orders on a control port, which is zeroport's whoever carries the payloads: so the
//! beginning and the end of a measurement cost the same for all. Between orders it sleeps, and
//! disturbs nobody.

use std::process::{Child, Command};

use zeroport::{MessagePort, WaitStrategy};

use crate::link::{Inlet, monotonic_nanos};
use crate::payload::{check, check_stamped};
use crate::support::{FAR, NEAR, pin};
use crate::{Result, iceoryx, ours};

/// Says to the far end what carries the payloads.
const CARRIER: &str = "ZEROPORT_AGAINST_CARRIER";

/// What carries the payloads.
#[derive(Clone, Copy)]
pub enum Carrier {
    Zeroport,
    Iceoryx2,
}

impl Carrier {
    fn name(self) -> &'static str {
        match self {
            Self::Zeroport => "zeroport",
            Self::Iceoryx2 => "iceoryx2",
        }
    }
}

/// What to do with the messages that come.
#[derive(Clone, Copy)]
pub enum Job {
    /// Check them, and answer after the last.
    Stream,
    /// Check them, and answer each; then once more, with the median of their latencies in ns.
    OneWay,
}

/// So many messages of so many bytes.
#[derive(Clone, Copy)]
pub struct Order {
    pub job: Job,
    pub len: usize,
    pub steps: u64,
}

impl Order {
    fn to_words(self) -> [u64; 3] {
        [self.job as u64, self.len as u64, self.steps]
    }

    fn from_words([job, len, steps]: [u64; 3]) -> Self {
        let job = if job == Job::Stream as u64 { Job::Stream } else { Job::OneWay };
        Self { job, len: len as usize, steps }
    }
}

/// A far end, seen from here.
pub struct Far {
    control: Option<MessagePort>,
    process: Child,
}

impl Far {
    /// Starts one. It waits for what its carrier sends first.
    pub fn start(carrier: Carrier) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(CARRIER, carrier.name());
        let (control, process) = zeroport::spawn(command)?;
        control.set_wait_strategy(WaitStrategy::Spin);
        pin(NEAR);
        Ok(Self { control: Some(control), process })
    }

    pub fn control(&self) -> &MessagePort {
        self.control.as_ref().expect("open until dropped")
    }

    pub fn order(&self, order: Order) -> Result<()> {
        Ok(self.control().post_pod(&order.to_words())?)
    }

    pub fn answer(&self) -> Result<u64> {
        Ok(*self.control().recv()?.pod()?)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.control = None;
        let _ = self.process.wait();
    }
}

/// Runs the far end if this process is one. To be called first in `main`.
pub fn run_far_end() -> Result<()> {
    let Ok(carrier) = std::env::var(CARRIER) else { return Ok(()) };
    let control = zeroport::parent_port()?;
    pin(FAR);
    if carrier == Carrier::Iceoryx2.name() {
        serve(&control, iceoryx::Incoming::accept(&control)?)?;
    } else {
        serve(&control, ours::Incoming::accept(&control)?)?;
    }
    std::process::exit(0);
}

fn serve(control: &MessagePort, mut inlet: impl Inlet) -> Result<()> {
    loop {
        let Ok(order) = control.recv().map(|message| message.pod().copied()) else { return Ok(()) };
        let order = Order::from_words(order?);
        let answer = match order.job {
            Job::Stream => stream(&mut inlet, order)?,
            Job::OneWay => one_way(&mut inlet, order, control)?,
        };
        control.post_pod(&answer)?;
    }
}

fn stream(inlet: &mut impl Inlet, Order { len, steps, .. }: Order) -> Result<u64> {
    for step in 0..steps {
        inlet.receive(|bytes| {
            assert_eq!(bytes.len(), len);
            check(bytes, step);
        })?;
    }
    Ok(steps)
}

fn one_way(inlet: &mut impl Inlet, order: Order, control: &MessagePort) -> Result<u64> {
    let mut nanos = Vec::with_capacity(order.steps as usize);
    for step in 0..order.steps {
        nanos.push(inlet.receive(|bytes| {
            assert_eq!(bytes.len(), order.len);
            let stamp = check_stamped(bytes, step);
            monotonic_nanos() - stamp
        })?);
        control.post_pod(&step)?;
    }
    nanos.sort_unstable();
    Ok(nanos[nanos.len() / 2])
}
