//! A live port that goes to the other process and comes back. Beside it, the kernel's own: a bare descriptor.

use ipc_channel::ipc::{IpcReceiver, IpcSender, channel};
use zeroport::{ChannelOptions, MessageChannel, MessagePort, transfer};

use super::no_such_peer;
use crate::Result;
use crate::carrier::{Carrier, Link};
use crate::contest::{Contest, Measure, Unit};
use crate::far::{Role, serve_steps};
use crate::peers::seqpacket::Socket;
use crate::peers::{ipc, ours, seqpacket};
use crate::run::Run;

pub fn run(run: &mut Run) -> Result<()> {
    Contest::new("transfer", 0, Unit::Micros)
        .peer("zeroport", zeroport()?)
        .peer("ipc-channel", ipc_channel()?)
        .peer("seqpacket", sockets()?)
        .run(run)
}

fn role(peer: &str) -> Role<'_> {
    Role::new("transfer", peer, 0)
}

pub fn serve(role: Role, control: &MessagePort) -> Result<()> {
    match role.peer {
        "zeroport" => serve_zeroport(role, control),
        "ipc-channel" => serve_ipc_channel(control),
        "seqpacket" => serve_sockets(control),
        _ => no_such_peer(role),
    }
}

/// What is here between two steps.
const HERE: &str = "it is here";

/// Each measurement ends with a message on the port that travelled: it still lives.
fn zeroport() -> Result<impl Measure> {
    let Link { far, carrier: port } = ours::link(ChannelOptions::new(), role("zeroport"))?;
    let MessageChannel { port1: other, port2 } = MessageChannel::new()?;
    let mut moving = Some(port2);
    Ok(move |steps| {
        let nanos = far.time(steps, |_| {
            port.post_bytes_with(b"", transfer![moving.take().expect(HERE)])?;
            let [back] = port.recv()?.take_ports()?;
            moving = Some(back);
            Ok(())
        })?;
        other.post_pod(&steps)?;
        assert_eq!(moving.as_ref().expect(HERE).recv()?.pod::<u64>()?, &steps);
        Ok(nanos)
    })
}

fn serve_zeroport(role: Role, control: &MessagePort) -> Result<()> {
    let port = ours::accept(role, control)?;
    serve_steps(control, |_| {
        let [moving] = port.recv()?.take_ports()?;
        Ok(port.post_bytes_with(b"", transfer![moving])?)
    })
}

/// The ends on which ipc-channel's near end gives its receiver away, and gets it back.
type Ends = (IpcSender<IpcReceiver<u64>>, IpcReceiver<IpcReceiver<u64>>);

fn ipc_channel() -> Result<impl Measure> {
    let (far, (there, back)): (_, Ends) = ipc::meet(role("ipc-channel"))?;
    let (other, receiver) = channel::<u64>()?;
    let mut moving = Some(receiver);
    Ok(move |steps| {
        let nanos = far.time(steps, |_| {
            there.send(moving.take().expect(HERE))?;
            moving = Some(back.recv()?);
            Ok(())
        })?;
        other.send(steps)?;
        assert_eq!(moving.as_ref().expect(HERE).recv()?, steps);
        Ok(nanos)
    })
}

fn serve_ipc_channel(control: &MessagePort) -> Result<()> {
    let (theirs, there) = channel::<IpcReceiver<u64>>()?;
    let (back, their) = channel::<IpcReceiver<u64>>()?;
    ipc::greet::<Ends>(control, (theirs, their))?;
    serve_steps(control, |_| Ok(back.send(there.recv()?)?))
}

fn sockets() -> Result<impl Measure> {
    let Link { far, carrier: socket } = seqpacket::link(role("seqpacket"))?;
    let [mut other, one] = Socket::pair()?;
    let mut moving = Some(one);
    Ok(move |steps| {
        let nanos = far.time(steps, |_| {
            socket.send_socket(moving.take().expect(HERE))?;
            moving = Some(socket.receive_socket()?);
            Ok(())
        })?;
        other.send(&[steps])?;
        moving.as_mut().expect(HERE).receive(|word| assert_eq!(word, &[steps]))?;
        Ok(nanos)
    })
}

fn serve_sockets(control: &MessagePort) -> Result<()> {
    let socket = Socket::accept()?;
    serve_steps(control, |_| socket.send_socket(socket.receive_socket()?))
}
