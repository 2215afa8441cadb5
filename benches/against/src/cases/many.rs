//! Round trips on one port of a set, beside 7 999 others that nobody uses.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use zeroport::{Event, MessageChannel, MessagePort, PortSet};

use crate::Result;
use crate::contest::{Contest, Measure, Turns, Unit};
use crate::far::{Far, Role, serve};
use crate::machine::nanos;
use crate::payload::{check_words, words};
use crate::report::Extra;
use crate::run::Run;

const WORDS: usize = 8;
const MANY: usize = 8000;
/// Ports that go with one message.
const TOGETHER: usize = 500;
/// Round trips after which the other ports are left alone.
const FIRST: u64 = 100;
/// How long the set is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_QUICKLY: Duration = Duration::from_secs(1);

pub fn run(run: &mut Run) -> Result<()> {
    raise_limit()?;
    let idle = if run.is_quick() { IDLE_QUICKLY } else { IDLE };
    Contest::new("many", size_of::<[u64; WORDS]>(), Unit::Nanos)
        .peer("zeroport", Crowd::new(MANY, Some(idle))?)
        .peer("zeroport, one port", Crowd::new(1, None)?)
        .run(run)
}

/// Each port has two descriptors.
fn raise_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A set of ports here, and of the other ends there. One of them is used.
struct Crowd {
    set: PortSet<usize>,
    active: usize,
    idle: Option<Duration>,
    far: Far,
}

impl Crowd {
    fn new(ports: usize, idle: Option<Duration>) -> Result<Self> {
        let far = Far::process(Role::new("many", "zeroport", ports))?;
        let mut set = PortSet::new()?;
        for from in (0..ports).step_by(TOGETHER) {
            let mut theirs = Vec::new();
            for key in from..ports.min(from + TOGETHER) {
                let MessageChannel { port1, port2 } = MessageChannel::new()?;
                set.insert(key, port1)?;
                theirs.push(port2);
            }
            far.control().post_bytes_with(b"", theirs)?;
        }
        let mut crowd = Self { set, active: ports / 2, idle, far };
        // Ports that have joined are looked at for the next few waits: or the steps of a turn would be counted in those.
        crowd.run(FIRST)?;
        Ok(crowd)
    }

    fn round_trip(&mut self, step: u64) -> Result<()> {
        let port = self.set.get(&self.active).ok_or("it has closed")?;
        port.post_pod(&words::<WORDS>(step))?;
        loop {
            let Some((key, event)) = self.set.wait()?.next() else { continue };
            let Event::Message(_, message) = event else { return Err("no message".into()) };
            assert_eq!(key, self.active);
            check_words::<WORDS>(message.pod()?, step);
            return Ok(());
        }
    }
}

impl Measure for Crowd {
    fn run(&mut self, steps: u64) -> Result<f64> {
        let start = self.far.begin(steps)?;
        for step in 0..steps {
            self.round_trip(step)?;
        }
        let elapsed = start.elapsed();
        self.far.finish()?;
        Ok(nanos(elapsed) / steps as f64)
    }

    fn extras(&mut self, _: Turns) -> Result<Vec<Extra>> {
        let Some(idle) = self.idle else { return Ok(Vec::new()) };
        // What the last messages have left to do is done.
        self.set.wait_timeout(Duration::from_millis(200))?;
        let (start, before) = (Instant::now(), cpu_time());
        assert!(self.set.wait_timeout(idle)?.next().is_none());
        let used = (cpu_time() - before) as f64 / 1e3;
        Ok(vec![("idle_seconds", start.elapsed().as_secs_f64()), ("idle_cpu_µs", used)])
    }
}

/// Nanoseconds for which this process has run so far.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn serve_crowd(role: Role, control: &MessagePort) -> Result<()> {
    raise_limit()?;
    let mut set = PortSet::new()?;
    while set.len() < role.size {
        for port in control.recv()?.take_all_ports()? {
            set.insert(set.len(), port)?;
        }
    }
    serve(control, |steps| {
        let mut left = steps;
        while left > 0 {
            for (_, event) in set.wait()? {
                let Event::Message(port, message) = event else { return Err("an end".into()) };
                port.post_pod(message.pod::<[u64; WORDS]>()?)?;
                left -= 1;
            }
        }
        Ok(steps)
    })
}
