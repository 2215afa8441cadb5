//! A lane: a `SOCK_SEQPACKET` socket pair that carries the descriptors of messages with ports.
//!
//! Each direction of a channel gets one at its first need; the reader's end goes through the line.
//! Lanes are apart from the line, so that unread descriptors never keep a bell from a sleeper, nor a
//! sleeper awake.
//!
//! One message is one packet: its tickets ([`crate::ticket`]) and their descriptors. Those of more than
//! one packet's worth go into a fresh socket pair first, in several packets, and its end is the packet.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::error::AttachError;
use crate::fork::ForkSafeFd;
use crate::packet::{self, Ahead, MAX_FDS, errno};
use crate::segment::Mapping;
use crate::steps::{Step, reach};
use crate::ticket::{Kind, TICKET_LEN, Ticket};

/// The most tickets that one packet can carry: each has two descriptors at least.
const MAX_TICKETS: usize = MAX_FDS / 2;

/// One port on its way: its ticket and its descriptors.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) ticket: Ticket,
    pub(crate) segment: ForkSafeFd,
    /// The segment in memory, once that was tried and done.
    pub(crate) mapping: Option<Mapping>,
    pub(crate) line: ForkSafeFd,
    pub(crate) incoming: Option<ForkSafeFd>,
    pub(crate) outgoing: Option<ForkSafeFd>,
}

impl Arrival {
    /// Takes what belongs to a ticket from a row of descriptors. `None` if they do not suffice, or a
    /// socket is none of ours.
    pub(crate) fn new(ticket: Ticket, fds: &mut impl Iterator<Item = ForkSafeFd>) -> Option<Self> {
        let (segment, line) = (fds.next()?, fds.next()?);
        let mut lane = |comes: bool| if comes { fds.next().map(Some) } else { Some(None) };
        let [has_incoming, has_outgoing] = ticket.lanes();
        let (incoming, outgoing) = (lane(has_incoming)?, lane(has_outgoing)?);
        let sockets = [Some(&line), incoming.as_ref(), outgoing.as_ref()];
        let are_ours = sockets.into_iter().flatten().all(is_seqpacket);
        are_ours.then(|| Self { ticket, segment, mapping: None, line, incoming, outgoing })
    }

    /// Maps the segment, if that was not done. Fails only for want of memory, and may be asked for again;
    /// what else is wrong shows when the port is adopted.
    pub(crate) fn map(&mut self) -> Result<(), Errno> {
        if self.mapping.is_none() {
            let mapping = self.segment.as_fd().map_err(AttachError::Os).and_then(Mapping::new);
            self.mapping = match mapping {
                Err(AttachError::Os(error)) if is_shortage(&error) => return Err(errno(error)),
                mapping => mapping.ok(),
            };
        }
        Ok(())
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::NOMEM, Errno::AGAIN, Errno::NFILE, Errno::MFILE];
    Errno::from_io_error(error).is_some_and(|error| shortages.contains(&error))
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

    /// Sends the ports of one message: all or none. Never blocks; `AGAIN`: there is no room now.
    pub(crate) fn send(&self, tickets: &[Ticket], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let lane = self.as_fd().map_err(errno)?;
        if fds.len() <= MAX_FDS {
            return packet::send(lane, bytemuck::cast_slice(tickets), fds);
        }
        let [inner, end] = packet::pair().map_err(errno)?;
        send_in_parts(inner.as_fd().map_err(errno)?, tickets, fds)?;
        let envelope = [Ticket::ENVELOPE];
        packet::send(lane, bytemuck::cast_slice(&envelope), &[end.as_fd().map_err(errno)?])
    }
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

/// The end of a lane from which the reader takes.
#[derive(Debug)]
pub(crate) struct Incoming {
    fd: ForkSafeFd,
    /// The message whose packet was an envelope, as far as it was unpacked.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    inner: ForkSafeFd,
    arrivals: Vec<Arrival>,
}

impl Incoming {
    pub(crate) fn new(fd: ForkSafeFd) -> Self {
        Self { fd, opened: Mutex::default() }
    }

    /// The end of the lane alone.
    pub(crate) fn into_end(self) -> ForkSafeFd {
        self.fd
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next message's ports, of which its record says that there are `count`.
    pub(crate) fn take(&self, count: usize) -> Result<Vec<Arrival>, NotHere> {
        let opened = self.opened().take();
        if let Some(opened) = opened {
            return self.unpack(opened, count);
        }
        let (tickets, fds) = take_packet(self.as_fd().map_err(refused)?)?;
        if let [envelope] = tickets.as_slice()
            && envelope.kind() == Some(Kind::Envelope)
        {
            let [inner] = <[ForkSafeFd; 1]>::try_from(fds).map_err(|_| NotHere::Broken)?;
            if !is_seqpacket(&inner) {
                return Err(NotHere::Broken);
            }
            return self.unpack(Opened { inner, arrivals: Vec::new() }, count);
        }
        let mut arrivals = Vec::with_capacity(tickets.len().min(count));
        match_up(&tickets, fds, count, &mut arrivals)?;
        if arrivals.len() == count { Ok(arrivals) } else { Err(NotHere::Broken) }
    }

    /// Drops the next message's ports.
    pub(crate) fn skip(&self) {
        if self.opened().take().is_none()
            && let Ok(fd) = self.as_fd()
        {
            // Fails if there is none: then there is nothing to drop.
            let _ = packet::skip(fd);
        }
    }

    /// Goes on with an envelope; keeps what it has if the process runs out of descriptors.
    fn unpack(&self, mut opened: Opened, count: usize) -> Result<Vec<Arrival>, NotHere> {
        while opened.arrivals.len() < count {
            match take_packet(opened.inner.as_fd().map_err(refused)?) {
                Ok((tickets, fds)) => {
                    match_up(&tickets, fds, count, &mut opened.arrivals)?;
                    reach(Step::Unpacked);
                }
                Err(NotHere::Refused(errno)) => {
                    *self.opened() = Some(opened);
                    return Err(NotHere::Refused(errno));
                }
                Err(NotHere::Broken) => return Err(NotHere::Broken),
            }
        }
        let is_empty = opened.inner.as_fd().is_ok_and(|inner| {
            matches!(packet::look(inner, false), Ok(Ahead::Nothing | Ahead::Packet(0)))
        });
        if is_empty { Ok(opened.arrivals) } else { Err(NotHere::Broken) }
    }
}

/// Takes one packet of tickets.
fn take_packet(socket: BorrowedFd<'_>) -> Result<(Vec<Ticket>, Vec<ForkSafeFd>), NotHere> {
    let mut tickets = vec![bytemuck::Zeroable::zeroed(); MAX_TICKETS];
    let (len, fds) = packet::take(socket, bytemuck::cast_slice_mut(&mut tickets)).map_err(
        |errno| match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => NotHere::Refused(errno),
            // Nothing there, though a record never comes before its descriptors; or too much; or a
            // socket that leads nowhere.
            _ => NotHere::Broken,
        },
    )?;
    if len == 0 || !len.is_multiple_of(TICKET_LEN) {
        return Err(NotHere::Broken);
    }
    tickets.truncate(len / TICKET_LEN);
    Ok((tickets, fds))
}

/// Gives each ticket its descriptors; none may be missing, none left over, and no more than `count`.
fn match_up(
    tickets: &[Ticket],
    fds: Vec<ForkSafeFd>,
    count: usize,
    arrivals: &mut Vec<Arrival>,
) -> Result<(), NotHere> {
    let mut fds = fds.into_iter();
    for ticket in tickets {
        let is_port = ticket.kind() == Some(Kind::Port);
        let arrival = Arrival::new(*ticket, &mut fds).filter(|_| is_port);
        arrivals.push(arrival.ok_or(NotHere::Broken)?);
    }
    let is_all = fds.next().is_none() && arrivals.len() <= count;
    if is_all { Ok(()) } else { Err(NotHere::Broken) }
}

fn refused(error: io::Error) -> NotHere {
    NotHere::Refused(errno(error))
}
