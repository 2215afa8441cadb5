//! The side that listens: servers, and callers that wait for an answer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::fork::ForkSafeFd;
use crate::line::Line;
use crate::port::{ChannelOptions, MessagePort};
use crate::welcome;

use super::bind::{SocketFile, listen_at};
use super::error::{AcceptError, AdmitError, BindError};
use super::{Address, Credentials, wait_readable};

/// Listens for strangers, who [`connect`](crate::connect).
///
/// ```
/// use zeroport::Server;
///
/// let path = std::env::temp_dir().join(format!("zeroport-doc-{}", std::process::id()));
/// let server = Server::bind(&path)?;
/// let client = std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let connection = zeroport::connect(&path)?;
///     connection.port.post_bytes(b"may I?")?;
///     assert_eq!(connection.port.recv()?.bytes(), b"you may");
///     Ok(())
/// });
///
/// let caller = server.accept()?;
/// if caller.credentials().uid == server_owner() {
///     let port = caller.admit()?; // dropping the caller refuses it
///     assert_eq!(port.recv()?.bytes(), b"may I?");
///     port.post_bytes(b"you may")?;
///     assert!(port.recv().is_err(), "the client closes");
/// }
/// client.join().unwrap().unwrap();
/// # fn server_owner() -> u32 { rustix::process::geteuid().as_raw() }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A caller that says nothing, or garbage, keeps nobody waiting: nothing is read from it before it has
/// its port. Callers that nobody accepts wait; beyond 128 of them, new ones wait inside their
/// `connect`.
///
/// Dropping the server removes its socket file and hangs up on who was not accepted; ports that it has
/// given out live on. In a forked child a copy of it is useless and harmless.
///
/// [`AsFd`] is for poll loops: the descriptor is readable while a caller waits, and can do nothing else.
#[derive(Debug)]
pub struct Server {
    address: Address,
    listener: ForkSafeFd,
    /// An epoll instance with the listener in it: good also where the listener is not, in a copy.
    pollable: OwnedFd,
    file: Option<SocketFile>,
}

impl Server {
    /// Listens at a path or an abstract name.
    ///
    /// The socket file has mode 0600 from the first moment, whatever the umask. (Give others access
    /// with `chmod`, afterwards.) The file of a server that has ended without removing it is replaced;
    /// that of one which still listens is not, nor is anything that is no socket.
    ///
    /// # Errors
    ///
    /// [`BindError::InUse`], [`BindError::NotASocket`], [`BindError::Address`] (too long, say),
    /// [`BindError::Folder`] if the folder is missing or closed to this process, and rarely
    /// [`BindError::Locked`] and [`BindError::Os`].
    pub fn bind(address: impl Into<Address>) -> Result<Self, BindError> {
        let address = address.into();
        let (listener, file) = listen_at(&address)?;
        match pollable(&listener) {
            Ok(pollable) => Ok(Self { address, listener, pollable, file }),
            Err(error) => {
                file.inspect(SocketFile::remove);
                Err(BindError::Os(error))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a caller.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Os`] if the process has no descriptors or memory left: callers then wait for the
    /// next try, for which something must have been freed. [`AcceptError::Detached`].
    pub fn accept(&self) -> Result<Caller, AcceptError> {
        self.accept_until(None)
    }

    /// As [`accept`](Self::accept), without waiting.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zeroport::{AcceptError, Address, Server};
    ///
    /// let server = Server::bind(Address::abstract_name(format!("try-{}", std::process::id())))?;
    /// assert!(matches!(server.try_accept(), Err(AcceptError::Empty)));
    /// assert!(matches!(server.accept_timeout(Duration::from_millis(1)), Err(AcceptError::Empty)));
    ///
    /// let address = server.address().clone();
    /// let client = std::thread::spawn(|| zeroport::connect(address));
    /// let port = server.accept_timeout(Duration::from_secs(60))?.admit()?;
    /// client.join().unwrap()?.port.post_bytes(b"hello")?;
    /// assert_eq!(port.recv()?.bytes(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept), and [`AcceptError::Empty`].
    pub fn try_accept(&self) -> Result<Caller, AcceptError> {
        self.accept_until(Some(Instant::now()))
    }

    /// As [`accept`](Self::accept), waiting at most so long.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept), and [`AcceptError::Empty`], not before the time is up.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Caller, AcceptError> {
        self.accept_until(Instant::now().checked_add(timeout))
    }

    fn accept_until(&self, deadline: Option<Instant>) -> Result<Caller, AcceptError> {
        if !self.listener.mark().is_original() {
            return Err(AcceptError::Detached);
        }
        let listener = self.listener.as_fd().map_err(AcceptError::Os)?;
        while wait_readable(listener, deadline).map_err(AcceptError::Os)? {
            match take_caller(listener) {
                // Another thread was faster.
                Err(AcceptError::Empty) => {}
                taken => return taken,
            }
        }
        Err(AcceptError::Empty)
    }
}

fn pollable(listener: &ForkSafeFd) -> io::Result<OwnedFd> {
    let pollable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&pollable, listener.as_fd()?, data, epoll::EventFlags::IN)?;
    Ok(pollable)
}

/// Takes the next caller. Without enough descriptors nobody is taken.
fn take_caller(listener: BorrowedFd<'_>) -> Result<Caller, AcceptError> {
    // Keeps the place of the descriptor that comes with the credentials.
    let place = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| AcceptError::Os(error.into()))?;
    let accept = || loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            accepted => return Ok([accepted?]),
        }
    };
    let [line] = ForkSafeFd::make(accept).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => AcceptError::Empty,
        _ => AcceptError::Os(error),
    })?;
    drop(place);
    let line = Line::hold(line);
    let credentials = line.as_fd().and_then(Credentials::of_peer).map_err(AcceptError::Os)?;
    Ok(Caller { line, credentials })
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pollable.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && self.listener.mark().is_original()
        {
            // While it still listens: who finds the file dead may replace it.
            file.remove();
        }
    }
}

/// Somebody who has connected to a [`Server`], and waits to be admitted or refused.
///
/// Dropping it refuses.
#[derive(Debug)]
#[must_use = "a caller that is dropped is refused"]
pub struct Caller {
    line: Line,
    credentials: Credentials,
}

impl Caller {
    /// Who it is.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Gives the caller one end of a fresh channel, and the acceptor the other. The port is
    /// [`Untrusted`](crate::Trust::Untrusted).
    ///
    /// It does not wait for the caller. Until the caller has taken its port, its end is reported as
    /// [`Lost`](crate::CloseReason::Lost) if it goes away.
    ///
    /// # Errors
    ///
    /// [`AdmitError::Gone`] if the caller has hung up, [`AdmitError::Open`] if the channel cannot be
    /// made, [`AdmitError::Detached`], [`AdmitError::Os`].
    pub fn admit(self) -> Result<MessagePort, AdmitError> {
        self.admit_with(ChannelOptions::new())
    }

    /// As [`admit`](Self::admit), with these options. The acceptor's port is `port1` of their
    /// capacities. It is untrusted unless they say otherwise: [`Trusted`](crate::Trust::Trusted) is for
    /// callers that are known, by their [`credentials`](Self::credentials), to be our own processes.
    ///
    /// ```
    /// use zeroport::{Address, ChannelOptions, Server};
    ///
    /// let name = Address::abstract_name(format!("admit-{}", std::process::id()));
    /// let server = Server::bind(name.clone())?;
    /// let client = std::thread::spawn(|| zeroport::connect(name));
    /// let port = server.accept()?.admit_with(ChannelOptions::new().capacities(1 << 20, 4 << 10))?;
    /// assert!(port.max_in_ring() > client.join().unwrap()?.port.max_in_ring());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    pub fn admit_with(self, options: ChannelOptions) -> Result<MessagePort, AdmitError> {
        let Self { line, credentials } = self;
        if !line.mark().is_original() {
            return Err(AdmitError::Detached);
        }
        // Its descriptor makes room for the channel's.
        drop(credentials);
        let options = options.for_strangers();
        let segment = options.make_segment(false)?;
        welcome::offer(segment, line, options).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AdmitError::Gone,
            _ => AdmitError::Os(error),
        })
    }

    /// Hangs up, which the caller sees as [`ConnectError::Refused`](crate::ConnectError::Refused).
    pub fn refuse(self) {}
}
