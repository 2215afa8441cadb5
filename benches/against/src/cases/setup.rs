//! A request that carries a fresh reply port, ten replies, close. Beside it, the kernel's own: a socket of a fresh
//! pair, given away.

use ipc_channel::ipc::{IpcSender, channel};
use serde::{Deserialize, Serialize};
use zeroport::{ChannelOptions, CloseReason, MessageChannel, MessagePort, RecvError, transfer};

use super::no_such_peer;
use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Role, serve_steps};
use crate::peers::seqpacket::Socket;
use crate::peers::{ipc, ours, seqpacket};
use crate::run::Run;

/// Replies to one request.
const REPLIES: u64 = 10;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("setup", 0, Unit::Micros)
        .peer("zeroport", zeroport()?)
        .peer("ipc-channel", ipc_channel()?)
        .peer("seqpacket", sockets()?)
        .run(run)
}

fn role(peer: &str) -> Role<'_> {
    Role::new("setup", peer, 0)
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_zeroport(role, control),
        "ipc-channel" => serve_ipc_channel(control),
        "seqpacket" => serve_sockets(control),
        _ => no_such_peer(role),
    }
}

fn zeroport() -> Result<impl Measure> {
    let Link { far, carrier: port } = ours::link(ChannelOptions::new(), role("zeroport"))?;
    Ok(move |steps| {
        far.time(steps, |_| {
            let MessageChannel { port1: replies, port2: reply } = MessageChannel::new()?;
            port.post_bytes_with(b"", transfer![reply])?;
            for number in 0..REPLIES {
                assert_eq!(replies.recv()?.pod::<u64>()?, &number);
            }
            let end = replies.recv().map(drop);
            assert_eq!(end, Err(RecvError::Closed(CloseReason::Closed)));
            Ok(())
        })
    })
}

fn serve_zeroport(role: Role, control: &MessagePort) -> Result<()> {
    let port = ours::accept(role, control)?;
    serve_steps(control, |_| {
        let [reply] = port.recv()?.take_ports()?;
        for number in 0..REPLIES {
            reply.post_pod(&number)?;
        }
        Ok(())
    })
}

/// What ipc-channel's far end gets: a reply channel for each request.
#[derive(Serialize, Deserialize)]
struct Request(IpcSender<u64>);

fn ipc_channel() -> Result<impl Measure> {
    let (far, requests): (_, IpcSender<Request>) = ipc::meet(role("ipc-channel"))?;
    Ok(move |steps| {
        far.time(steps, |_| {
            let (reply, replies) = channel()?;
            requests.send(Request(reply))?;
            for number in 0..REPLIES {
                assert_eq!(replies.recv()?, number);
            }
            assert!(replies.recv().is_err(), "closed after the last reply");
            Ok(())
        })
    })
}

fn serve_ipc_channel(control: &MessagePort) -> Result<()> {
    let (theirs, requests) = channel::<Request>()?;
    ipc::greet(control, theirs)?;
    serve_steps(control, |_| {
        let Request(reply) = requests.recv()?;
        for number in 0..REPLIES {
            reply.send(number)?;
        }
        Ok(())
    })
}

fn sockets() -> Result<impl Measure> {
    let Link { far, carrier: socket } = seqpacket::link(role("seqpacket"))?;
    Ok(move |steps| {
        far.time(steps, |_| {
            let [mut replies, reply] = Socket::pair()?;
            socket.send_socket(reply)?;
            for number in 0..REPLIES {
                replies.receive(|reply| assert_eq!(reply, &[number]))?;
            }
            replies.receive_end()
        })
    })
}

fn serve_sockets(control: &MessagePort) -> Result<()> {
    let socket = Socket::accept()?;
    serve_steps(control, |_| {
        let mut reply = socket.receive_socket()?;
        (0..REPLIES).try_for_each(|number| reply.send(&[number]))
    })
}
