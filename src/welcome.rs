//! The welcome: the first packet on a line whose other end goes to another process. It says which end
//! of which segment that process gets, and the segment's descriptor comes with it.
//!
//! A receiver looks at it first, with its descriptor, and takes it off the line only once it has all
//! that it needs: running out of descriptors loses nothing and can be tried again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use rustix::io::Errno;

use crate::epoch::{self, Epoch};
use crate::error::AttachError;
use crate::fork::ForkSafeFd;
use crate::layout::{MAGIC, Side, VERSION};
use crate::line::Line;
use crate::packet::{self, Ahead};
use crate::port::{ChannelOptions, MessagePort};
use crate::segment::Segment;

/// The bytes of the packet: part of the shared format.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Welcome {
    magic: [u8; 8],
    version: u32,
    side: u32,
    epoch: u64,
}

const _: () = assert!(size_of::<Welcome>() == 24, "part of the shared format");

/// Makes our port of a fresh segment, and offers the other one to whoever is at the other end of the
/// line. If that fails the line is hung up.
pub(crate) fn offer(
    (segment, epoch): (Arc<Segment>, Epoch),
    line: Line,
    options: ChannelOptions,
) -> io::Result<MessagePort> {
    let in_transit = epoch.let_go();
    epoch::set(&Side::Second.of(&segment.header().sides).epoch, in_transit);
    let port = MessagePort::new(Arc::clone(&segment), Side::First, epoch, line, options);
    port.send_welcome(|line| send(line, &segment, in_transit))?;
    Ok(port)
}

fn send(line: BorrowedFd<'_>, segment: &Segment, epoch: Epoch) -> io::Result<()> {
    let side = Side::Second.to_wire();
    let welcome = Welcome { magic: MAGIC, version: VERSION, side, epoch: epoch.to_wire() };
    Ok(packet::send(line, bytemuck::bytes_of(&welcome), &[segment.memfd()])?)
}

/// What lies on a line that may have a welcome.
pub(crate) enum Found {
    /// A port, to be taken.
    Offer(Offer),
    /// A bell: the welcome was taken before, or was never there.
    Bell,
    /// Nothing yet.
    Nothing,
    /// Nothing, and there never will be.
    HangUp,
}

/// A port that lies on a line, verified but not taken.
pub(crate) struct Offer {
    segment: Arc<Segment>,
    side: Side,
    in_transit: Epoch,
}

/// Looks at what lies on the line, and leaves it there. An error of the operating system
/// ([`AttachError::Os`]) may be gone the next time; any other is final.
pub(crate) fn look(line: BorrowedFd<'_>) -> Result<Found, AttachError> {
    match packet::look(line, false).map_err(AttachError::os)? {
        Ahead::Nothing => return Ok(Found::Nothing),
        Ahead::Packet(0) => return Ok(Found::HangUp),
        Ahead::Packet(1) => return Ok(Found::Bell),
        Ahead::Packet(len) if len != size_of::<Welcome>() => return Err(AttachError::NotASegment),
        Ahead::Packet(_) => {}
    }
    let mut welcome = Welcome::zeroed();
    match packet::peek(line, bytemuck::bytes_of_mut(&mut welcome)) {
        Ok((_, memfds)) => {
            let memfd = memfds.into_iter().next().ok_or(AttachError::NotASegment)?;
            Offer::verify(welcome, memfd).map(Found::Offer)
        }
        // Another process that inherited the line too was faster.
        Err(Errno::AGAIN) => Ok(Found::Nothing),
        Err(Errno::MSGSIZE) => Err(AttachError::NotASegment),
        Err(error) => Err(AttachError::os(error)),
    }
}

impl Offer {
    fn verify(welcome: Welcome, memfd: OwnedFd) -> Result<Self, AttachError> {
        if welcome.magic != MAGIC {
            return Err(AttachError::NotASegment);
        }
        if welcome.version != VERSION {
            return Err(AttachError::Version { ours: VERSION, theirs: welcome.version });
        }
        let side = Side::from_wire(welcome.side).ok_or(AttachError::NotASegment)?;
        let segment = Arc::new(Segment::attach(memfd)?);
        Ok(Self { segment, side, in_transit: Epoch::from_wire(welcome.epoch) })
    }

    /// Takes the port, if nobody else has. What is refused may be a copy of somebody else's line, so
    /// it is closed but not hung up.
    pub(crate) fn take(
        self,
        line: ForkSafeFd,
        options: ChannelOptions,
    ) -> Result<MessagePort, AttachError> {
        let Self { segment, side, in_transit } = self;
        let epoch = epoch::adopt(&side.of(&segment.header().sides).epoch, in_transit)
            .ok_or(AttachError::Detached)?;
        // Now the welcome is ours to take off the line. Left there it would be a bell.
        let _ = line.as_fd().map(packet::skip);
        Ok(MessagePort::new(segment, side, epoch, Line::hold(line), options))
    }
}
