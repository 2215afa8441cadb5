//! How soon a sleeping reader is told that the other process has closed, or was killed. A process of its own each
//! time.

use zeroport::{ChannelOptions, CloseReason, MessagePort, RecvError, WaitStrategy};

use super::no_such_peer;
use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::contest::{Contest, Measure, Unit};
use crate::far::Role;
use crate::machine::{FAR, now, pin, wait_until};
use crate::peers::seqpacket::Socket;
use crate::peers::{ours, seqpacket};
use crate::run::Run;

/// Nanoseconds: long enough for the other side to fall asleep.
const NOTICE: u64 = 2_000_000;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("close_seen", 0, Unit::Micros)
        .single()
        .peer("zeroport", each(|| close_seen(zeroport("close")?)))
        .peer("seqpacket", each(|| close_seen(sockets("close")?)))
        .run(run)?;
    Contest::new("close_seen_sigkill", 0, Unit::Micros)
        .single()
        .peer("zeroport", each(|| kill_seen(zeroport("kill")?)))
        .peer("seqpacket", each(|| kill_seen(sockets("kill")?)))
        .run(run)
}

/// A step is one process.
fn each(mut seen: impl FnMut() -> Result<u64>) -> impl Measure {
    move |steps| {
        let nanos = (0..steps).map(|_| seen()).sum::<Result<u64>>()?;
        Ok(nanos as f64 / steps as f64)
    }
}

fn role<'r>(work: &'r str, peer: &'r str) -> Role<'r> {
    Role { wait: WaitStrategy::Sleep, ..Role::new(work, peer, 0) }
}

fn zeroport(work: &str) -> Result<Link<MessagePort>> {
    ours::link(ChannelOptions::new(), role(work, "zeroport"))
}

fn sockets(work: &str) -> Result<Link<Socket>> {
    seqpacket::link(role(work, "seqpacket"))
}

/// A carrier whose end can be waited for.
trait Closing: Carrier<1> {
    /// Waits until the other end is gone, for this reason if it is told one.
    fn wait_for_end(&mut self, reason: CloseReason) -> Result<()>;
}

impl Closing for MessagePort {
    fn wait_for_end(&mut self, reason: CloseReason) -> Result<()> {
        assert_eq!(self.recv().map(drop), Err(RecvError::Closed(reason)));
        Ok(())
    }
}

impl Closing for Socket {
    fn wait_for_end(&mut self, _: CloseReason) -> Result<()> {
        self.receive_end()
    }
}

/// Nanoseconds from a close until it was seen here.
fn close_seen(mut link: Link<impl Closing>) -> Result<u64> {
    let closed = link.carrier.receive(|[time]| *time)?;
    link.carrier.wait_for_end(CloseReason::Closed)?;
    Ok(now().saturating_sub(closed))
}

/// Nanoseconds from a SIGKILL until the end was seen here.
fn kill_seen(Link { mut far, mut carrier }: Link<impl Closing>) -> Result<u64> {
    // It is up.
    carrier.receive(|_| ())?;
    std::thread::scope(|scope| {
        let killed = scope.spawn(|| {
            pin(FAR);
            wait_until(now() + NOTICE);
            let time = now();
            far.kill();
            time
        });
        carrier.wait_for_end(CloseReason::PeerDied)?;
        let seen = now();
        Ok(seen.saturating_sub(killed.join().expect("a time")))
    })
}

/// Says when it will close, and does so at that time.
pub fn serve_close(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => close(control, ours::accept(role, control)?),
        "seqpacket" => close(control, Socket::accept()?),
        _ => no_such_peer(role),
    }
}

fn close(control: &MessagePort, mut carrier: impl Carrier<1>) -> Result<()> {
    let time = now() + NOTICE;
    carrier.send(&[time])?;
    wait_until(time);
    drop(carrier);
    wait_for_near_end(control)
}

/// Says that it is up, and waits for its death.
pub fn serve_kill(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => await_death(control, ours::accept(role, control)?),
        "seqpacket" => await_death(control, Socket::accept()?),
        _ => no_such_peer(role),
    }
}

fn await_death(control: &MessagePort, mut carrier: impl Carrier<1>) -> Result<()> {
    carrier.send(&[0])?;
    wait_for_near_end(control)
}

/// No order comes any more, only the end.
fn wait_for_near_end(control: &MessagePort) -> Result<()> {
    control.recv().map_or(Ok(()), |_| Err("an order".into()))
}
