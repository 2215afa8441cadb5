//! A port as its descriptors, for programs with a way of their own to pass them.
//!
//! # Invariants
//!
//! * **D1** A trusted port reads payloads in memory that others map: nobody may write there what was
//!   published. Who takes the descriptors of a trusted channel, or adopts some as trusted, promises that
//!   for all who ever have them.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::{AttachError, PostError};
use crate::fork::ForkSafeFd;
use crate::lane::PortArrival;
use crate::layout::DEFAULT_LIMIT;
use crate::ticket::{Kind, TICKET_LEN, Ticket};

use super::parts::Trusts;
use super::transfer::Departing;
use super::transfer_list::TransferError;
use super::{MessagePort, Trust, adopt};

/// A port that nobody holds: everything that its next holder needs. Made by
/// [`MessagePort::into_descriptors`].
///
/// If the descriptors are closed, the port is [`Lost`](crate::CloseReason::Lost). As long as anybody has
/// a copy of them, the death of a later holder stays hidden; so close all copies once they were passed.
#[non_exhaustive]
#[derive(Debug)]
pub struct PortDescriptors {
    /// What the port is and where it stands: bytes to be passed beside the descriptors.
    pub ticket: [u8; TICKET_LEN],
    /// Two descriptors or more, in this order: the segment, the line, and whatever else the port has now:
    /// the rings that its queues have grown by, the lanes, and memory of large payloads that it has kept.
    pub descriptors: Vec<OwnedFd>,
}

impl MessagePort {
    /// Gives the port away as its descriptors, with all that waits in it.
    ///
    /// They are close-on-exec. Pass them, in this order, over a Unix socket, through
    /// [`CommandExt`](std::os::unix::process::CommandExt), or however you do, and the ticket with them;
    /// the next holder adopts them with [`from_descriptors`](Self::from_descriptors), once.
    ///
    /// Nobody here knows to whom they go, so the channel must be an
    /// [untrusted](crate::MessageChannel::untrusted) one: whoever has the descriptors of a trusted channel
    /// can change messages that its other end has validated. See
    /// [`into_descriptors_trusted`](Self::into_descriptors_trusted).
    ///
    /// ```
    /// use zeroport::{AttachError, MessageChannel, MessagePort, Trust};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::untrusted()?;
    /// port1.post_bytes(b"waits in port2")?;
    /// let parts = port2.into_descriptors()?;
    /// let copies: Vec<_> =
    ///     parts.descriptors.iter().map(|fd| fd.try_clone()).collect::<Result<_, _>>()?;
    ///
    /// let port2 = MessagePort::from_descriptors(&parts.ticket, parts.descriptors)?;
    /// assert_eq!(port2.recv()?.bytes(), b"waits in port2");
    /// assert_eq!(port2.trust(), Trust::Untrusted);
    ///
    /// let again = MessagePort::from_descriptors(&parts.ticket, copies);
    /// assert!(matches!(again, Err(AttachError::Detached)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the port in its list, and as its source
    /// [`PostError::Untransferable`] if it is closed, not ours, or of a trusted channel, or
    /// [`PostError::Os`] if the process has no descriptors left.
    pub fn into_descriptors(self) -> Result<PortDescriptors, TransferError> {
        self.export_over(Trust::Untrusted)
    }

    /// As [`into_descriptors`](Self::into_descriptors), for any channel.
    ///
    /// # Errors
    ///
    /// As [`into_descriptors`](Self::into_descriptors), also for trusted channels.
    ///
    /// # Safety
    ///
    /// If the channel is trusted, every process that ever gets these descriptors keeps to the protocol:
    /// it never writes to a message once that was published. (Programs that only adopt them with this
    /// crate do.) Else references to payloads, at the other end, would refer to memory that changes.
    pub unsafe fn into_descriptors_trusted(self) -> Result<PortDescriptors, TransferError> {
        self.export_over(Trust::Trusted)
    }

    fn export_over(self, carrier: Trust) -> Result<PortDescriptors, TransferError> {
        match self.export(carrier) {
            Ok(parts) => Ok(parts),
            Err(source) => Err(TransferError::new(self.into(), source)),
        }
    }

    fn export(&self, carrier: Trust) -> Result<PortDescriptors, PostError> {
        let departing = Departing::new(0, self, carrier)?;
        let copy = |fd: std::io::Result<BorrowedFd<'_>>| fd?.try_clone_to_owned();
        let descriptors: Result<_, _> = departing.fds().map(copy).collect();
        let descriptors = descriptors.map_err(PostError::Os)?;
        let ticket = bytemuck::cast(departing.ticket);
        departing.gone();
        Ok(PortDescriptors { ticket, descriptors })
    }

    /// Makes a port of what [`into_descriptors`](Self::into_descriptors) gave, here or in another
    /// process. Whoever they come from may be hostile: everything is verified, and the port is
    /// [untrusted](Trust).
    ///
    /// # Errors
    ///
    /// [`AttachError`]; the descriptors are closed then. [`AttachError::Detached`]: somebody has
    /// adopted the port before.
    pub fn from_descriptors(
        ticket: &[u8],
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<Self, AttachError> {
        import(ticket, descriptors.into_iter().collect(), Trust::Untrusted)
    }

    /// As [`from_descriptors`](Self::from_descriptors), for a channel all of whose holders are our own:
    /// the port is [trusted](Trust) unless it was untrusted where it comes from.
    ///
    /// ```
    /// use zeroport::{MessageChannel, MessagePort, Trust};
    ///
    /// let MessageChannel { port1: _port1, port2 } = MessageChannel::new()?;
    /// // SAFETY: nobody but this program gets them.
    /// let parts = unsafe { port2.into_descriptors_trusted() }?;
    /// // SAFETY: nobody but this program has had them.
    /// let port2 =
    ///     unsafe { MessagePort::from_descriptors_trusted(&parts.ticket, parts.descriptors) }?;
    /// assert_eq!(port2.trust(), Trust::Trusted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_descriptors`](Self::from_descriptors).
    ///
    /// # Safety
    ///
    /// The ticket and the descriptors are what `into_descriptors` gave, and every process that has, or
    /// ever had, access to the segment keeps to the protocol: it never writes to a message once that
    /// was published. (Programs that use it only through this crate, and not after they gave their
    /// port away, do.) Else references to payloads would refer to memory that changes.
    pub unsafe fn from_descriptors_trusted(
        ticket: &[u8],
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<Self, AttachError> {
        // D1: the caller has promised it.
        import(ticket, descriptors.into_iter().collect(), Trust::Trusted)
    }
}

fn import(ticket: &[u8], fds: Vec<OwnedFd>, trust: Trust) -> Result<MessagePort, AttachError> {
    for fd in &fds {
        fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(AttachError::os)?;
    }
    let ticket: Ticket =
        bytemuck::try_pod_read_unaligned(ticket).map_err(|_| AttachError::NotAPort)?;
    let ((), fds) = ForkSafeFd::make_all(|| Ok(((), fds))).map_err(AttachError::Os)?;
    let mut fds = fds.into_iter();
    let arrival = PortArrival::new(ticket, &mut fds)
        .filter(|_| ticket.kind() == Some(Kind::Port) && fds.next().is_none());
    let trusts = Trusts { port: trust, channel: trust, accepts: DEFAULT_LIMIT };
    adopt::adopt(arrival.ok_or(AttachError::NotAPort)?, trusts)
}
