//! Streams of small messages: one post and one recv each.

use zeroport::{ChannelOptions, MessagePort, WaitStrategy};

use super::no_such_peer;
use crate::Result;
use crate::carrier::{Carrier, Link, serve_stream};
use crate::contest::{Contest, Measure, Unit};
use crate::far::Role;
use crate::payload::{fill_words, words};
use crate::peers::bare::{self, Traffic};
use crate::peers::{crossbeam, iceoryx, ipc, ours, pipe, rtrb, seqpacket};
use crate::run::Run;

pub fn run(run: &mut Run) -> Result<()> {
    contest::<1>(run)?;
    contest::<8>(run)?;
    contest::<32>(run)?;
    contest::<128>(run)?;
    contest::<512>(run)
}

fn contest<const N: usize>(run: &mut Run) -> Result<()> {
    let size = size_of::<[u64; N]>();
    let role = |peer| Role::new("stream", peer, size);
    let threads = crossbeam::link(WaitStrategy::Adaptive, serve_stream)?;
    Contest::new("stream", size, Unit::MillionMessages)
        .peer("zeroport", zeroport::<N>(ChannelOptions::new())?)
        .limit("limit_slots", stream::<N>(bare::link(Traffic::Stream, serve_stream)?))
        .peer("rtrb", stream::<N>(rtrb::link(serve_stream)?))
        .peer("crossbeam-channel", stream::<N>(threads))
        .peer("iceoryx2", stream::<N>(iceoryx::link(role("iceoryx2"))?))
        .peer("ipc-channel", stream::<N>(ipc::link(role("ipc-channel"))?))
        .peer("seqpacket", stream::<N>(seqpacket::link(role("seqpacket"))?))
        .peer("pipe", stream::<N>(pipe::link(role("pipe"))?))
        .run(run)
}

/// Measures a stream on a channel of ours.
pub fn zeroport<const N: usize>(options: ChannelOptions) -> Result<impl Measure> {
    let role = Role::new("stream", "zeroport", size_of::<[u64; N]>());
    Ok(stream::<N>(ours::link(options, role)?))
}

/// Measures a stream until its last message has been checked.
pub fn stream<const N: usize>(
    Link { far, mut carrier }: Link<impl Carrier<N> + 'static>,
) -> impl Measure {
    // A page, if made anew for each message, would also be copied, which takes longer than to send it.
    let mut page = [0; N];
    move |steps| {
        far.time(steps, |step| {
            if N < 512 {
                return carrier.send(&words(step));
            }
            fill_words(&mut page, step);
            carrier.send(&page)
        })
    }
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.size {
        8 => serve_words::<1>(role, control),
        64 => serve_words::<8>(role, control),
        256 => serve_words::<32>(role, control),
        1024 => serve_words::<128>(role, control),
        4096 => serve_words::<512>(role, control),
        other => Err(format!("no stream of {other} bytes").into()),
    }
}

fn serve_words<const N: usize>(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_stream::<N>(control, ours::accept(role, control)?),
        "iceoryx2" => serve_stream::<N>(control, iceoryx::Services::accept(control)?),
        "ipc-channel" => serve_stream::<N>(control, ipc::Bytes::accept(control)?),
        "seqpacket" => serve_stream::<N>(control, seqpacket::Socket::accept()?),
        "pipe" => serve_stream::<N>(control, pipe::Pipes::accept()?),
        _ => no_such_peer(role),
    }
}
