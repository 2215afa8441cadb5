//! The far end: this program once more, in a process of its own, on the other processor; or a thread, for rivals
//! that have no more.
//!
//! It takes orders on a control port, which is zeroport's whoever carries the payloads: so the beginning and the
//! end of a measurement cost the same for all. Between orders it sleeps, and disturbs nobody.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Signal, set_parent_process_death_signal};
use zeroport::{MessageChannel, MessagePort, WaitStrategy};

use crate::machine::{FAR, nanos, pin};
use crate::{Result, cases};

/// Says to the far end what it is there for.
const ROLE: &str = "ZEROPORT_AGAINST_ROLE";

/// What a far end does, with what, and how.
#[derive(Clone, Copy)]
pub struct Role<'r> {
    pub work: &'r str,
    pub peer: &'r str,
    /// Bytes of a message.
    pub size: usize,
    /// For those that can choose.
    pub wait: WaitStrategy,
    pub processor: usize,
}

impl<'r> Role<'r> {
    pub fn new(work: &'r str, peer: &'r str, size: usize) -> Self {
        Self { work, peer, size, wait: WaitStrategy::default(), processor: FAR }
    }

    fn to_text(self) -> String {
        let Self { work, peer, size, wait, processor } = self;
        format!("{work} {peer} {size} {wait:?} {processor}")
    }

    fn from_text(text: &'r str) -> Result<Self> {
        let &[work, peer, size, wait, processor] = &*text.split(' ').collect::<Vec<_>>() else {
            return Err("a role has five words".into());
        };
        let wait = match wait {
            "Spin" => WaitStrategy::Spin,
            "Sleep" => WaitStrategy::Sleep,
            _ => WaitStrategy::Adaptive,
        };
        Ok(Self { work, peer, size: size.parse()?, wait, processor: processor.parse()? })
    }
}

/// A far end, seen from here.
pub struct Far {
    control: Option<MessagePort>,
    end: Option<End>,
    /// An order is being carried out. If it comes to nothing, the far end cannot be waited for.
    busy: Cell<bool>,
}

enum End {
    Process(Child),
    Thread(JoinHandle<()>),
}

impl Far {
    /// Starts a process. What it needs to know more, it waits for on its control port.
    pub fn process(role: Role) -> Result<Self> {
        Self::process_with(role, Stdio::null(), Stdio::null())
    }

    /// Starts a process that inherits two descriptors.
    pub fn process_with(
        role: Role,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, role.to_text()).stdin(stdin).stdout(stdout);
        let (control, process) = zeroport::spawn(command)?;
        Ok(Self::new(control, End::Process(process)))
    }

    /// Starts a thread.
    pub fn thread(work: impl FnOnce(&MessagePort) -> Result<()> + Send + 'static) -> Result<Self> {
        let MessageChannel { port1: control, port2 } = MessageChannel::new()?;
        let thread = std::thread::spawn(move || {
            pin(FAR);
            port2.set_wait_strategy(WaitStrategy::Sleep);
            let served = catch_unwind(AssertUnwindSafe(|| work(&port2)));
            if let Err(error) = served.unwrap_or_else(|_| Err("it panicked".into())) {
                // The near end may be spinning, and would for ever.
                eprintln!("a far end failed: {error}");
                std::process::exit(1);
            }
        });
        Ok(Self::new(control, End::Thread(thread)))
    }

    fn new(control: MessagePort, end: End) -> Self {
        control.set_wait_strategy(WaitStrategy::Spin);
        Self { control: Some(control), end: Some(end), busy: Cell::new(false) }
    }

    pub fn control(&self) -> &MessagePort {
        self.control.as_ref().expect("open until dropped")
    }

    /// Orders so many steps; the clock starts when the far end is awake.
    pub fn begin(&self, steps: u64) -> Result<Instant> {
        self.busy.set(true);
        self.control().post_pod(&steps)?;
        self.answer()?;
        Ok(Instant::now())
    }

    /// What the far end says at the end of an order.
    pub fn finish(&self) -> Result<u64> {
        let answer = self.answer()?;
        self.busy.set(false);
        Ok(answer)
    }

    /// The next word from the far end.
    pub fn answer(&self) -> Result<u64> {
        Ok(*self.control().recv()?.pod()?)
    }

    /// Runs so many steps here and there, and says how many nanoseconds each took until the far end was done too.
    pub fn time(&self, steps: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<f64> {
        let start = self.begin(steps)?;
        for number in 0..steps {
            step(number)?;
        }
        self.finish()?;
        Ok(nanos(start.elapsed()) / steps as f64)
    }

    /// As [`time`](Self::time), so many steps at once: `batch` gets the first of them and how many.
    pub fn time_batches(
        &self,
        steps: u64,
        len: u64,
        mut batch: impl FnMut(u64, usize) -> Result<()>,
    ) -> Result<f64> {
        let start = self.begin(steps)?;
        for from in (0..steps).step_by(len as usize) {
            batch(from, len.min(steps - from) as usize)?;
        }
        self.finish()?;
        Ok(nanos(start.elapsed()) / steps as f64)
    }

    /// Kills a process.
    pub fn kill(&mut self) {
        if let Some(End::Process(process)) = &mut self.end {
            process.kill().expect("a far end");
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.control = None;
        match self.end.take() {
            Some(End::Process(mut process)) => {
                if self.busy.get() {
                    let _ = process.kill();
                }
                let _ = process.wait();
            }
            Some(End::Thread(thread)) if !self.busy.get() => drop(thread.join()),
            _ => {}
        }
    }
}

/// Runs the far end if this process is one. To be called first in `main`.
pub fn run_far_end() -> Result<()> {
    let Ok(role) = std::env::var(ROLE) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let control = zeroport::parent_port()?;
    control.set_wait_strategy(WaitStrategy::Sleep);
    let role = Role::from_text(&role)?;
    pin(role.processor);
    cases::serve(role, &control)?;
    std::process::exit(0);
}

/// Does so many steps as it is ordered, and answers, again and again until the control port ends.
pub fn serve(control: &MessagePort, mut work: impl FnMut(u64) -> Result<u64>) -> Result<()> {
    while let Ok(order) = control.recv().map(|message| message.pod::<u64>().copied()) {
        let steps = order?;
        control.post_pod(&steps)?;
        let answer = work(steps)?;
        control.post_pod(&answer)?;
    }
    Ok(())
}

/// As [`serve`], one step at a time and nothing to say.
pub fn serve_steps(control: &MessagePort, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
    serve(control, |steps| {
        (0..steps).try_for_each(&mut step)?;
        Ok(steps)
    })
}
