//! How old a large message is once it has been read: from before its first word is written. One
//! message at a time.

use zeroport::{ChannelOptions, MessagePort};

use super::no_such_peer;
use crate::Result;
use crate::carrier::{Inlet, Link, Outlet};
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Role, serve as serve_orders};
use crate::machine::now;
use crate::payload::{check_stamped, fill_stamped};
use crate::peers::{iceoryx, ours};
use crate::run::Run;

const SIZES: [usize; 2] = [1 << 20, 8 << 20];

pub fn run(run: &mut Run) -> Result<()> {
    for len in SIZES {
        let link = iceoryx::link_large(Role::new("one_way", "iceoryx2", len))?;
        Contest::new("one_way", len, Unit::Micros)
            .peer("zeroport", zeroport(ChannelOptions::new(), len)?)
            .peer("zeroport, pool off", zeroport(ChannelOptions::new().warm(false), len)?)
            .peer("iceoryx2", latency(link, len))
            .run(run)?;
    }
    Ok(())
}

/// Measures the age of large messages on a channel of ours.
pub fn zeroport(options: ChannelOptions, len: usize) -> Result<impl Measure> {
    Ok(latency(ours::link(options, Role::new("one_way", "zeroport", len))?, len))
}

/// Measures the median age.
fn latency(Link { far, mut carrier }: Link<impl Outlet + 'static>, len: usize) -> impl Measure {
    move |steps| {
        far.begin(steps)?;
        for step in 0..steps {
            let stamp = now();
            carrier.send(len, |room| fill_stamped(room, step, stamp))?;
            far.answer()?;
        }
        Ok(far.finish()? as f64)
    }
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_inlet(role, control, ours::accept(role, control)?),
        "iceoryx2" => serve_inlet(role, control, iceoryx::Incoming::accept(control)?),
        _ => no_such_peer(role),
    }
}

fn serve_inlet(role: Role, control: &MessagePort, mut inlet: impl Inlet) -> Result<()> {
    serve_orders(control, |steps| {
        let mut nanos = Vec::with_capacity(steps as usize);
        for step in 0..steps {
            nanos.push(inlet.receive(role.size, |bytes| {
                let stamp = check_stamped(bytes, step);
                now() - stamp
            })?);
            control.post_pod(&step)?;
        }
        nanos.sort_unstable();
        Ok(nanos[nanos.len() / 2])
    })
}
