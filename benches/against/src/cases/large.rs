//! Streams of large messages, written in place and read in place by those that can, and what copying them would
//! cost.

use zeroport::{ChannelOptions, MessagePort};

use super::limits::memcpy;
use super::no_such_peer;
use crate::Result;
use crate::carrier::{Inlet, Link, Outlet};
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Role, serve_steps};
use crate::payload::{check, fill};
use crate::peers::{bare, iceoryx, ipc, ours, pipe};
use crate::run::Run;

const SIZES: [usize; 3] = [64 << 10, 1 << 20, 8 << 20];

pub fn run(run: &mut Run) -> Result<()> {
    for len in SIZES {
        let role = |peer| Role::new("large", peer, len);
        let pool_off = ChannelOptions::new().warm(false);
        Contest::new("large", len, Unit::GigaBytes)
            .peer("zeroport", zeroport(ChannelOptions::new(), len)?)
            .limit("limit_memcpy", memcpy(len))
            .limit("limit_blocks", blocks(len)?)
            .peer("zeroport, pool off", zeroport(pool_off, len)?)
            .peer("iceoryx2", stream(iceoryx::link_large(role("iceoryx2"))?, len))
            .peer("ipc-channel", stream(ipc::link(role("ipc-channel"))?, len))
            .peer("pipe", stream(pipe::link(role("pipe"))?, len))
            .run(run)?;
    }
    Ok(())
}

/// Measures a stream of large messages on a channel of ours.
pub fn zeroport(options: ChannelOptions, len: usize) -> Result<impl Measure> {
    Ok(stream(ours::link(options, Role::new("large", "zeroport", len))?, len))
}

fn blocks(len: usize) -> Result<impl Measure> {
    let link = bare::link_large(len, move |control, blocks| serve_inlet(len, control, blocks))?;
    Ok(stream(link, len))
}

fn stream(Link { far, mut carrier }: Link<impl Outlet + 'static>, len: usize) -> impl Measure {
    move |steps| far.time(steps, |step| carrier.send(len, |room| fill(room, step)))
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_inlet(role.size, control, ours::accept(role, control)?),
        "iceoryx2" => serve_inlet(role.size, control, iceoryx::Incoming::accept(control)?),
        "ipc-channel" => serve_inlet(role.size, control, ipc::Bytes::accept(control)?),
        "pipe" => serve_inlet(role.size, control, pipe::Pipes::accept()?),
        _ => no_such_peer(role),
    }
}

fn serve_inlet(len: usize, control: &MessagePort, mut inlet: impl Inlet) -> Result<()> {
    serve_steps(control, |step| {
        inlet.receive(len, |bytes| {
            assert_eq!(bytes.len(), len);
            check(bytes, step);
        })
    })
}
