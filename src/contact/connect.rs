//! The side that calls.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect as connect_socket,
    shutdown, socket_with,
};

use crate::error::AttachError;
use crate::fork::ForkSafeFd;
use crate::port::{ChannelOptions, MessagePort};
use crate::welcome::{self, Found, Offer};

use super::error::ConnectError;
use super::{Address, Credentials, wait_readable};

/// A port to a server, and who that is.
#[non_exhaustive]
#[derive(Debug)]
pub struct Connection {
    /// The port that the server gave.
    pub port: MessagePort,
    /// Who began to listen at the address. Where anybody could have (an abstract name, a folder that
    /// others can write to), look before anything is posted.
    pub server: Credentials,
}

/// Connects to a [`Server`](crate::Server), and waits until it has given a port or refused: for ever, if it
/// never accepts. [`ChannelOptions::connect_timeout`] waits for a limited time.
///
/// The port is [`Untrusted`](crate::Trust::Untrusted); [`ChannelOptions::connect`] can say otherwise.
///
/// ```
/// use zeroport::{Address, ConnectError, Server};
///
/// let name = Address::abstract_name(format!("connect-{}", std::process::id()));
/// assert!(matches!(zeroport::connect(name.clone()), Err(ConnectError::NoServer { .. })));
///
/// let server = Server::bind(name.clone())?;
/// let client = std::thread::spawn(move || zeroport::connect(name));
/// let port = server.accept()?.admit()?;
/// let connection = client.join().unwrap()?;
/// assert_eq!(connection.server.pid, Some(std::process::id()));
/// connection.port.post_bytes(b"hello")?;
/// assert_eq!(port.recv()?.bytes(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ConnectError::NoServer`] if nobody listens there, [`ConnectError::Refused`] if the server hangs
/// up, [`ConnectError::NotAllowed`], [`ConnectError::Address`], [`ConnectError::Attach`] if it is no
/// zeroport server or one of another version, [`ConnectError::Os`].
pub fn connect(address: impl Into<Address>) -> Result<Connection, ConnectError> {
    ChannelOptions::new().connect(address)
}

/// Connecting to a server.
impl ChannelOptions {
    /// As [`connect`], with the trust and the way of waiting of these options. The capacities are the
    /// server's choice.
    ///
    /// # Errors
    ///
    /// As [`connect`].
    pub fn connect(self, address: impl Into<Address>) -> Result<Connection, ConnectError> {
        Call { address: address.into(), deadline: None }.make(self)
    }

    /// As [`connect`](Self::connect), waiting at most so long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zeroport::{Address, ChannelOptions, ConnectError, Server};
    ///
    /// let name = Address::abstract_name(format!("timeout-{}", std::process::id()));
    /// let busy = Server::bind(name.clone())?;
    /// let connection = ChannelOptions::new().connect_timeout(name, Duration::from_millis(1));
    /// assert!(matches!(connection, Err(ConnectError::TimedOut { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connect`], and [`ConnectError::TimedOut`], not before the time is up.
    pub fn connect_timeout(
        self,
        address: impl Into<Address>,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let deadline = Instant::now().checked_add(timeout);
        Call { address: address.into(), deadline }.make(self)
    }
}

struct Call {
    address: Address,
    deadline: Option<Instant>,
}

impl Call {
    fn make(self, options: ChannelOptions) -> Result<Connection, ConnectError> {
        let address = || self.address.clone();
        let to = self.address.to_socket_address();
        let to = to.map_err(|source| ConnectError::Address { address: address(), source })?;
        let [line] = ForkSafeFd::make(|| {
            let flags = SocketFlags::CLOEXEC;
            Ok([socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?])
        })
        .map_err(ConnectError::Os)?;
        let socket = line.as_fd().map_err(ConnectError::Os)?;
        let met = self.meet(socket, &to);
        let (server, offer) = met.inspect_err(|_| {
            // The server need not wait until nobody has a copy of the socket. Fails if it is not
            // connected.
            let _ = shutdown(socket, Shutdown::Both);
        })?;
        let port = offer.take(line, options.for_strangers()).map_err(|error| self.wrong(error))?;
        Ok(Connection { port, server })
    }

    fn meet(
        &self,
        socket: BorrowedFd<'_>,
        to: &SocketAddrUnix,
    ) -> Result<(Credentials, Offer), ConnectError> {
        self.dial(socket, to)?;
        let server = Credentials::of_peer(socket).map_err(ConnectError::Os)?;
        Ok((server, self.wait_for_offer(socket)?))
    }

    /// Connects. Blocking, because a full backlog makes it wait, and only so.
    fn dial(&self, socket: BorrowedFd<'_>, to: &SocketAddrUnix) -> Result<(), ConnectError> {
        loop {
            self.limit(socket)?;
            let source = match connect_socket(socket, to) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => continue,
                // The kernel counts in ticks, and may be early by one.
                Err(Errno::AGAIN) if self.deadline.is_some_and(|at| Instant::now() < at) => {
                    continue;
                }
                Err(source) => source,
            };
            let address = self.address.clone();
            return Err(match source {
                Errno::AGAIN => ConnectError::TimedOut { address },
                Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR | Errno::LOOP => {
                    ConnectError::NoServer { address, source: source.into() }
                }
                Errno::ACCESS | Errno::PERM => {
                    ConnectError::NotAllowed { address, source: source.into() }
                }
                // What listens there is a socket of another kind.
                Errno::PROTOTYPE => self.wrong(AttachError::NotASegment),
                error => ConnectError::Os(error.into()),
            });
        }
    }

    /// Has the kernel end the wait for room in the backlog.
    fn limit(&self, socket: BorrowedFd<'_>) -> Result<(), ConnectError> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        // Zero would be for ever.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        match set_socket_timeout(socket, Timeout::Send, Some(left)) {
            // More than the kernel can count is for ever.
            Ok(()) | Err(Errno::DOM | Errno::INVAL) => Ok(()),
            Err(error) => Err(ConnectError::Os(error.into())),
        }
    }

    fn wait_for_offer(&self, line: BorrowedFd<'_>) -> Result<Offer, ConnectError> {
        while wait_readable(line, self.deadline).map_err(ConnectError::Os)? {
            match welcome::look(line).map_err(|error| self.wrong(error))? {
                Found::Offer(offer) => return Ok(offer),
                Found::HangUp => {
                    return Err(ConnectError::Refused { address: self.address.clone() });
                }
                Found::Bell => return Err(self.wrong(AttachError::NotASegment)),
                Found::Nothing => {}
            }
        }
        Err(ConnectError::TimedOut { address: self.address.clone() })
    }

    fn wrong(&self, source: AttachError) -> ConnectError {
        ConnectError::Attach { address: self.address.clone(), source }
    }
}
