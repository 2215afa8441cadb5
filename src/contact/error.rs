//! Why nobody listens, nobody came, or nobody was reached: one enum for each verb.

use std::io;

use crate::error::{AttachError, OpenError};

use super::Address;

/// Why an address is none that a server can have.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The kernel has no room for it.
    #[error("it is {len} bytes long, and sockets take at most {max}: choose a shorter one")]
    TooLong {
        /// Bytes of the path or name.
        len: usize,
        /// The most that it may have, in bytes.
        max: usize,
    },
    /// There is nothing in it.
    #[error("it is empty: a server needs a path or a name")]
    Empty,
    /// The path does not end in a name that a file can have.
    #[error("it names no file: end it with the name of the socket file, without a zero byte")]
    NoFileName,
}

/// Why a server cannot listen.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not legal.
    #[error("cannot listen at {address}: {source}")]
    Address {
        /// The address that was asked for.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// Somebody listens there already.
    #[error("{address} is in use: another server listens there; end it, or choose another address")]
    InUse {
        /// The address that was asked for.
        address: Address,
    },
    /// At the path is something that is no socket. It was not touched.
    #[error("{address} exists and is no socket: remove it, or choose another path")]
    NotASocket {
        /// The path that was asked for.
        address: Address,
    },
    /// The folder is missing or not writable, or the socket file of a former server belongs to
    /// somebody else.
    #[error("cannot make the socket {address} ({source}): its folder must exist and be writable")]
    Folder {
        /// The path that was asked for.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder stayed locked (`flock(2)`), so a former server's socket file could not be replaced.
    #[error(
        "another process has locked the folder of {address} for {seconds} seconds: end that one, or \
         remove the old socket file"
    )]
    Locked {
        /// The path that was asked for.
        address: Address,
        /// How long the lock was waited for.
        seconds: u64,
    },
    /// The operating system refused: memory or descriptors have run out.
    #[error("cannot listen ({0}): free descriptors or memory, or raise RLIMIT_NOFILE")]
    Os(#[source] io::Error),
}

/// Why there is no caller. The next call may find one.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is none now, and the call does not wait (any longer).
    #[error("nobody has called yet")]
    Empty,
    /// This handle is a copy in a forked process; the server belongs to the parent.
    #[error("this server belongs to the process that this one was forked from")]
    Detached,
    /// The operating system refused: memory or descriptors have run out. Callers wait meanwhile.
    #[error(
        "cannot accept a caller ({0}): free descriptors or memory, or raise RLIMIT_NOFILE; \
         callers wait until the next try"
    )]
    Os(#[source] io::Error),
}

/// Why a caller got no port. It is hung up on then, and may connect again.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The channel could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The caller has hung up.
    #[error("the caller has gone: accept the next one")]
    Gone,
    /// This handle is a copy in a forked process; the caller belongs to the parent.
    #[error("this caller belongs to the process that this one was forked from")]
    Detached,
    /// The operating system did not let the port go out.
    #[error("cannot send the caller its port: {0}")]
    Os(#[source] io::Error),
}

/// Why there is no connection.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not legal.
    #[error("cannot connect to {address}: {source}")]
    Address {
        /// The address that was asked for.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// Nobody listens there.
    #[error("nobody listens at {address} ({source}): start the server first")]
    NoServer {
        /// The address that was asked for.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// This process may not connect to that address.
    #[error("connecting to {address} is not allowed ({source}): only its owner may, as a rule")]
    NotAllowed {
        /// The address that was asked for.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server hung up: it refused, or ended before it had answered.
    #[error("{address} hung up without giving a port: the server refused, or ended meanwhile")]
    Refused {
        /// The address that was asked for.
        address: Address,
    },
    /// The time was up before the server had answered.
    #[error("{address} has not answered in time: the server is busy or stuck; try again later")]
    TimedOut {
        /// The address that was asked for.
        address: Address,
    },
    /// The server speaks another version of the protocol, or something else altogether; or this
    /// process has no descriptor or memory left for the port.
    #[error("cannot take the port that {address} gave: {source}")]
    Attach {
        /// The address that was asked for.
        address: Address,
        /// What is wrong with it.
        source: AttachError,
    },
    /// The operating system refused: memory or descriptors have run out.
    #[error("cannot connect ({0}): free descriptors or memory, or raise RLIMIT_NOFILE")]
    Os(#[source] io::Error),
}
