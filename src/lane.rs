//! A lane: a `SOCK_SEQPACKET` socket pair that carries the descriptors of messages with ports.
//!
//! Each direction of a channel gets one at its first need; the reader's end goes through the line.
//! Lanes are apart from the line, so that unread descriptors never keep a bell from a sleeper, nor a
//! sleeper awake.
//!
//! What belongs to one record is one packet: its tickets ([`crate::ticket`]) and their descriptors. Those of
//! more than one packet's worth go into a fresh socket pair first, in several packets, and its end is the
//! packet, an *envelope*. A large payload that comes with ports has the payload and such an envelope: so what
//! has to be taken at once is little.
//!
//! A lane that is full is followed by a further one. A record says that what belongs to it came first on
//! the next lane, so nothing has to be said on the lane itself.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::block::{NotSealed, Sealed, View, file_len};
use crate::error::AttachError;
use crate::fork::ForkSafeFd;
use crate::packet::{self, Ahead, MAX_FDS, errno};
use crate::segment::Mapping;
use crate::steps::{Step, reach};
use crate::ticket::{Kind, TICKET_LEN, Ticket};

/// The most tickets that one packet can carry.
const MAX_TICKETS: usize = MAX_FDS;

/// Something on its way.
#[derive(Debug)]
pub(crate) enum Arrival {
    Port(Box<PortArrival>),
    Buffer(BufferArrival),
}

/// A buffer on its way.
#[derive(Debug)]
pub(crate) struct BufferArrival {
    memfd: ForkSafeFd,
    len: u64,
    /// The buffer in memory, once that was tried and done.
    view: Option<View>,
}

impl BufferArrival {
    fn map(&mut self, is_trusted: bool) -> Result<(), Errno> {
        if self.view.is_none() {
            let memfd = self.memfd.as_fd().map_err(errno)?;
            self.view = match View::new(memfd, self.len, is_trusted) {
                Err(NotSealed::Os(shortage)) => return Err(shortage),
                view => view.ok(),
            };
        }
        Ok(())
    }

    /// The buffer, if it is one and was mapped.
    pub(crate) fn open(self) -> Option<Sealed> {
        Some(self.view?.held_by(self.memfd.into_owned()?))
    }
}

/// One port on its way: its ticket and its descriptors.
#[derive(Debug)]
pub(crate) struct PortArrival {
    pub(crate) ticket: Ticket,
    pub(crate) segment: Attaching,
    pub(crate) line: ForkSafeFd,
    /// The grown ring that it posts to, and the one that it reads.
    pub(crate) grown: [Option<Attaching>; 2],
    pub(crate) incoming: Vec<ForkSafeFd>,
    pub(crate) outgoing: Option<ForkSafeFd>,
    /// The blocks that its reader has kept.
    pub(crate) kept: Vec<ForkSafeFd>,
}

/// A segment that has come, and is or will be mapped.
#[derive(Debug)]
pub(crate) struct Attaching {
    memfd: ForkSafeFd,
    is_grown: bool,
    /// The segment in memory, once that was tried and done.
    mapping: Option<Mapping>,
}

impl Attaching {
    fn new(memfd: ForkSafeFd, is_grown: bool) -> Self {
        Self { memfd, is_grown, mapping: None }
    }

    fn try_map(&self) -> Result<Mapping, AttachError> {
        let memfd = self.memfd.as_fd().map_err(AttachError::Os)?;
        if self.is_grown { Mapping::grown(memfd, None) } else { Mapping::new(memfd) }
    }

    /// Maps it, if that was not done. Fails only for want of memory, and may be asked for again.
    fn map(&mut self) -> Result<(), Errno> {
        if self.mapping.is_none() {
            self.mapping = match self.try_map() {
                Err(AttachError::Os(error)) => match errno(error) {
                    shortage if is_shortage(shortage) => return Err(shortage),
                    _ => None,
                },
                mapping => mapping.ok(),
            };
        }
        Ok(())
    }

    /// The segment; says what is wrong with it.
    pub(crate) fn attach(mut self) -> Result<crate::segment::Segment, AttachError> {
        let mapping = self.mapping.take().map_or_else(|| self.try_map(), Ok)?;
        let memfd = self.memfd.into_owned().ok_or(AttachError::Detached)?;
        Ok(mapping.held_by(memfd))
    }
}

impl PortArrival {
    /// Takes what belongs to a ticket from a row of descriptors. `None` if they do not suffice, or a
    /// socket is none of ours.
    pub(crate) fn new(ticket: Ticket, fds: &mut impl Iterator<Item = ForkSafeFd>) -> Option<Self> {
        let (segment, line) = (Attaching::new(fds.next()?, false), fds.next()?);
        let mut ring = |comes: bool| {
            if comes { fds.next().map(|fd| Some(Attaching::new(fd, true))) } else { Some(None) }
        };
        let [posts_to, reads] = ticket.grown();
        let grown = [ring(posts_to)?, ring(reads)?];
        let lanes = ticket.lanes();
        let incoming: Vec<_> = fds.take(lanes.incoming).collect();
        let outgoing = if lanes.outgoing { Some(fds.next()?) } else { None };
        let kept: Vec<_> = fds.take(ticket.blocks()).collect();
        let are_ours = incoming.len() == lanes.incoming
            && kept.len() == ticket.blocks()
            && [&line].into_iter().chain(&incoming).chain(&outgoing).all(is_seqpacket);
        are_ours.then(|| Self { ticket, segment, line, grown, incoming, outgoing, kept })
    }

    fn map(&mut self) -> Result<(), Errno> {
        let segments = [&mut self.segment].into_iter().chain(self.grown.iter_mut().flatten());
        segments.into_iter().try_for_each(Attaching::map)
    }
}

impl Arrival {
    fn new(ticket: Ticket, fds: &mut impl Iterator<Item = ForkSafeFd>) -> Option<Self> {
        match ticket.kind()? {
            Kind::Port => PortArrival::new(ticket, fds).map(|port| Self::Port(Box::new(port))),
            Kind::Buffer => {
                let (memfd, len) = (fds.next()?, ticket.len());
                Some(Self::Buffer(BufferArrival { memfd, len, view: None }))
            }
            Kind::Envelope | Kind::Payload | Kind::Ring => None,
        }
    }

    pub(crate) fn is_port(&self) -> bool {
        matches!(self, Self::Port(_))
    }

    /// Bytes of a buffer's memory, as its ticket tells; 0 for a port.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        match self {
            Self::Port(_) => 0,
            Self::Buffer(buffer) => file_len(buffer.len),
        }
    }

    /// Maps the segments of a port, or a buffer, if that was not done. Fails only for want of memory, and
    /// may be asked for again; what else is wrong shows when the port is adopted or the buffer opened.
    pub(crate) fn map(&mut self, is_trusted: bool) -> Result<(), Errno> {
        match self {
            Self::Port(port) => port.map(),
            Self::Buffer(buffer) => buffer.map(is_trusted),
        }
    }
}

fn is_shortage(error: Errno) -> bool {
    [Errno::NOMEM, Errno::AGAIN, Errno::NFILE, Errno::MFILE].contains(&error)
}

/// Whether it is a socket of the only kind that we use.
pub(crate) fn is_seqpacket(fd: &ForkSafeFd) -> bool {
    fd.as_fd().is_ok_and(|fd| {
        sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
    })
}

/// The end of a lane into which the poster sends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    fd: ForkSafeFd,
}

impl Outgoing {
    pub(crate) fn new(fd: ForkSafeFd) -> Self {
        Self { fd }
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    /// Sends what belongs to one record: all or nothing. `alone` comes before the list, and has to be taken
    /// without it. Never blocks; `AGAIN`: there is no room now.
    pub(crate) fn send(
        &self,
        alone: Option<(Ticket, BorrowedFd<'_>)>,
        tickets: &[Ticket],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let lane = self.as_fd().map_err(errno)?;
        match alone {
            None if fds.len() <= MAX_FDS => packet::send(lane, bytemuck::cast_slice(tickets), fds),
            None => {
                let end = put_in_envelope(tickets, fds)?;
                let envelope = [Ticket::ENVELOPE];
                packet::send(lane, bytemuck::cast_slice(&envelope), &[end.as_fd().map_err(errno)?])
            }
            Some((ticket, fd)) if tickets.is_empty() => {
                packet::send(lane, bytemuck::bytes_of(&ticket), &[fd])
            }
            Some((ticket, fd)) => {
                let end = put_in_envelope(tickets, fds)?;
                let both = [ticket, Ticket::ENVELOPE];
                packet::send(lane, bytemuck::cast_slice(&both), &[fd, end.as_fd().map_err(errno)?])
            }
        }
    }
}

/// A socket with all these in its queue.
fn put_in_envelope(tickets: &[Ticket], fds: &[BorrowedFd<'_>]) -> Result<ForkSafeFd, Errno> {
    let [inner, end] = packet::pair().map_err(errno)?;
    send_in_parts(inner.as_fd().map_err(errno)?, tickets, fds)?;
    Ok(end)
}

/// Sends tickets in as many packets as their descriptors need.
fn send_in_parts(
    socket: BorrowedFd<'_>,
    mut tickets: &[Ticket],
    mut fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    while !tickets.is_empty() {
        let mut count = 0;
        let fitting = tickets.iter().take_while(|ticket| {
            count += ticket.fds();
            count <= MAX_FDS
        });
        let (now, later) = tickets.split_at(fitting.count());
        let count = now.iter().map(Ticket::fds).sum();
        let (fds_now, fds_later) = fds.split_at_checked(count).ok_or(Errno::INVAL)?;
        // The pair is fresh: what has no room in it now never will have.
        packet::send(socket, bytemuck::cast_slice(now), fds_now)
            .map_err(|error| if error == Errno::AGAIN { Errno::NOBUFS } else { error })?;
        reach(Step::Packed);
        (tickets, fds) = (later, fds_later);
    }
    Ok(())
}

/// Why the ports of a message are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHere {
    /// This process may not have so many descriptors, or has no memory: they can be asked for again.
    Refused(Errno),
    /// The other side broke the protocol: what it sent is not what its record says.
    Broken,
}

/// What was taken off a lane.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Ports and buffers.
    List(Vec<Arrival>),
    /// The same, still packed.
    Envelope(Envelope),
    /// The memory of a large payload, and the list that came with it.
    Payload { memfd: OwnedFd, len: u64, list: Option<Envelope> },
    /// The segment of a grown ring.
    Ring { memfd: OwnedFd, capacity: u64 },
}

/// A list that is still packed, as far as it was not unpacked.
#[derive(Debug)]
pub(crate) struct Envelope {
    inner: ForkSafeFd,
    arrivals: Vec<Arrival>,
}

impl NotHere {
    /// What the kernel has refused: only want of something may pass.
    pub(crate) fn because(refused: Errno) -> Self {
        if is_shortage(refused) { Self::Refused(refused) } else { Self::Broken }
    }
}

/// The end of a lane from which the reader takes.
#[derive(Debug)]
pub(crate) struct Incoming {
    fd: ForkSafeFd,
}

impl Incoming {
    pub(crate) fn new(fd: ForkSafeFd) -> Self {
        Self { fd }
    }

    /// The end of the lane alone.
    pub(crate) fn into_end(self) -> ForkSafeFd {
        self.fd
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    /// Takes what belongs to the next record.
    pub(crate) fn take(&self) -> Result<Taken, NotHere> {
        self.take_if(Ok)
    }

    /// As [`take`](Self::take), if `map` accepts it; else it stays on the lane.
    pub(crate) fn take_if<T>(
        &self,
        map: impl FnOnce(Taken) -> Result<T, NotHere>,
    ) -> Result<T, NotHere> {
        let lane = self.as_fd().map_err(refused)?;
        let (tickets, fds) = look_at_packet(lane)?;
        let mapped = Taken::new(&tickets, fds).and_then(map)?;
        packet::skip(lane).map_err(|_| NotHere::Broken)?;
        Ok(mapped)
    }

    /// Drops what belongs to the next record.
    pub(crate) fn skip(&self) {
        if let Ok(fd) = self.as_fd() {
            // Fails if there is none: then there is nothing to drop.
            let _ = packet::skip(fd);
        }
    }
}

impl Taken {
    fn new(tickets: &[Ticket], fds: Vec<ForkSafeFd>) -> Result<Self, NotHere> {
        let mut fds = fds.into_iter();
        let kinds: Vec<_> = tickets.iter().map(Ticket::kind).collect();
        let taken = match (kinds.as_slice(), tickets) {
            ([Some(Kind::Envelope)], _) => Envelope::new(fds.next()).map(Self::Envelope),
            ([Some(Kind::Payload)], [ticket]) => owned(fds.next()).map(|memfd| Self::Payload {
                memfd,
                len: ticket.len(),
                list: None,
            }),
            ([Some(Kind::Payload), Some(Kind::Envelope)], [ticket, _]) => {
                let (memfd, list) = (owned(fds.next()), Envelope::new(fds.next()));
                memfd.zip(list).map(|(memfd, list)| Self::Payload {
                    memfd,
                    len: ticket.len(),
                    list: Some(list),
                })
            }
            ([Some(Kind::Ring)], [ticket]) => {
                owned(fds.next()).map(|memfd| Self::Ring { memfd, capacity: ticket.len() })
            }
            _ => match_up(tickets, &mut fds).map(Self::List),
        };
        taken.filter(|_| fds.next().is_none()).ok_or(NotHere::Broken)
    }
}

impl Envelope {
    fn new(inner: Option<ForkSafeFd>) -> Option<Self> {
        let inner = inner.filter(is_seqpacket)?;
        Some(Self { inner, arrivals: Vec::new() })
    }

    /// Unpacks `count` things; keeps what it has if the process runs out of descriptors.
    pub(crate) fn unpack(&mut self, count: usize) -> Result<Vec<Arrival>, NotHere> {
        while self.arrivals.len() < count {
            let inner = self.inner.as_fd().map_err(refused)?;
            let (tickets, fds) = look_at_packet(inner)?;
            packet::skip(inner).map_err(|_| NotHere::Broken)?;
            let mut fds = fds.into_iter();
            let arrivals = match_up(&tickets, &mut fds).filter(|_| fds.next().is_none());
            self.arrivals.extend(arrivals.ok_or(NotHere::Broken)?);
            reach(Step::Unpacked);
        }
        let is_empty = self.inner.as_fd().is_ok_and(|inner| {
            matches!(packet::look(inner, false), Ok(Ahead::Nothing | Ahead::Packet(0)))
        });
        let is_all = is_empty && self.arrivals.len() == count;
        if is_all { Ok(std::mem::take(&mut self.arrivals)) } else { Err(NotHere::Broken) }
    }
}

fn owned(fd: Option<ForkSafeFd>) -> Option<OwnedFd> {
    fd?.into_owned()
}

/// One packet of tickets, which stays where it is.
fn look_at_packet(socket: BorrowedFd<'_>) -> Result<(Vec<Ticket>, Vec<ForkSafeFd>), NotHere> {
    let mut tickets = vec![bytemuck::Zeroable::zeroed(); MAX_TICKETS];
    let (len, fds) =
        packet::look_into(socket, bytemuck::cast_slice_mut(&mut tickets)).map_err(|errno| {
            match errno {
                Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => {
                    NotHere::Refused(errno)
                }
                // Nothing there, though a record never comes before its descriptors; or too much; or a
                // socket that leads nowhere.
                _ => NotHere::Broken,
            }
        })?;
    if len == 0 || !len.is_multiple_of(TICKET_LEN) {
        return Err(NotHere::Broken);
    }
    tickets.truncate(len / TICKET_LEN);
    Ok((tickets, fds))
}

/// Gives each ticket its descriptors; none may be missing.
fn match_up(
    tickets: &[Ticket],
    fds: &mut impl Iterator<Item = ForkSafeFd>,
) -> Option<Vec<Arrival>> {
    tickets.iter().map(|ticket| Arrival::new(*ticket, fds)).collect()
}

fn refused(error: io::Error) -> NotHere {
    NotHere::Refused(errno(error))
}
