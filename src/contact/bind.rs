//! Sockets that listen, and the files of those that have a path.
//!
//! A socket is bound to a name of its own beside the path, listens, and only then gets the path: so
//! callers that find it are heard. Three things can be there already:
//!
//! * nothing: the file is renamed, which fails if somebody was faster;
//! * the file of a server that is gone (no socket has it any more): the rename replaces it, so that
//!   there is no moment without a file. Between finding that out and the rename no other server may do the same, or
//!   a live one could be replaced: the folder is locked (`flock(2)`; the kernel lets go of it with its
//!   holder). No lock is needed against a server whose path is free: it cannot rename over a file;
//! * anything else: it is left alone.
//!
//! A process that is killed within these steps can leave a file `.zeroport-…` behind, which means
//! nothing to anybody.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, chmodat, fchmod, flock,
    open, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::fork::ForkSafeFd;

use super::Address;
use super::error::{AddressError, BindError};

/// Callers that may wait to be accepted; one more waits inside its `connect`.
const BACKLOG: i32 = 128;
/// How long others may take to replace a socket file. They need microseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
/// Tries of a name that nobody has, and of a path that changes under us.
const TRIES: usize = 100;
/// Read and write for the owner: who may not write to a socket's file cannot connect.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The file of a listening socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    folder: OwnedFd,
    name: OsString,
    /// Device and inode.
    identity: (u64, u64),
}

/// A socket that listens at an address.
pub(super) fn listen_at(address: &Address) -> Result<(ForkSafeFd, Option<SocketFile>), BindError> {
    let named = |source| BindError::Address { address: address.clone(), source };
    let to = address.to_socket_address().map_err(named)?;
    let listener = fresh_socket().map_err(BindError::Os)?;
    let socket = listener.as_fd().map_err(BindError::Os)?;
    let file = match address {
        Address::Path(path) => {
            let (folder, name) = split(path).ok_or(named(AddressError::NoFileName))?;
            let place = Place { address, to, folder: open_folder(address, folder)?, name };
            Some(place.listen(folder, socket)?)
        }
        Address::Abstract(_) => {
            bind(socket, &to).map_err(|error| match error {
                Errno::ADDRINUSE => BindError::InUse { address: address.clone() },
                error => BindError::Os(error.into()),
            })?;
            listen(socket, BACKLOG).map_err(|error| BindError::Os(error.into()))?;
            None
        }
    };
    Ok((listener, file))
}

fn fresh_socket() -> io::Result<ForkSafeFd> {
    // A forked child has no copy: nobody would accept there, and callers would wait for ever.
    let [listener] = ForkSafeFd::make(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The file inherits the mode, less the umask: it is never wider than this.
        fchmod(&socket, PRIVATE)?;
        Ok([socket])
    })?;
    Ok(listener)
}

/// The folder of a path, and the name in it.
fn split(path: &Path) -> Option<(&Path, OsString)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Some((folder.unwrap_or(Path::new(".")), path.file_name()?.to_owned()))
}

fn open_folder(address: &Address, folder: &Path) -> Result<OwnedFd, BindError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(folder, flags, Mode::empty()).map_err(|error| refused(address, error))
}

/// What the operating system says about a path is about its folder, unless it has run out.
fn refused(address: &Address, error: Errno) -> BindError {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => BindError::Os(error.into()),
        error => BindError::Folder { address: address.clone(), source: error.into() },
    }
}

/// A name in a folder, where a socket is to get.
struct Place<'a> {
    address: &'a Address,
    to: SocketAddrUnix,
    folder: OwnedFd,
    name: OsString,
}

impl Place<'_> {
    fn listen(self, path: &Path, socket: BorrowedFd<'_>) -> Result<SocketFile, BindError> {
        let refused = |error| refused(self.address, error);
        let own = self.bind_beside(path, socket).map_err(refused)?;
        let taken = self.prepare(&own, socket).map_err(refused).and_then(|stat| {
            self.take(&own)?;
            Ok((stat.st_dev, stat.st_ino))
        });
        match taken {
            Ok(identity) => Ok(SocketFile { folder: self.folder, name: self.name, identity }),
            Err(error) => {
                // What cannot be removed means nothing to anybody.
                let _ = unlinkat(&self.folder, &own, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// Binds the socket to a name of its own in the folder.
    fn bind_beside(&self, path: &Path, socket: BorrowedFd<'_>) -> Result<OsString, Errno> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        for _ in 0..TRIES {
            // Relaxed: it only has to differ.
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".zeroport-{:x}-{number:x}", std::process::id());
            match bind(socket, &self.beside(path, &name)?) {
                Ok(()) => return Ok(name.into()),
                // Left there by a process that had our number.
                Err(Errno::ADDRINUSE) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::ADDRINUSE)
    }

    /// The folder may be too long a path for one name more; then the kernel's own name for it helps.
    fn beside(&self, path: &Path, name: &str) -> Result<SocketAddrUnix, Errno> {
        let short = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        Address::Path(path.join(name))
            .to_socket_address()
            .or_else(|_| Address::Path(short.join(name)).to_socket_address())
            .map_err(|_| Errno::NAMETOOLONG)
    }

    /// Makes the socket listen, under a name that nobody knows yet.
    fn prepare(&self, own: &OsString, socket: BorrowedFd<'_>) -> Result<Stat, Errno> {
        let stat = statat(&self.folder, own, AtFlags::SYMLINK_NOFOLLOW)?;
        if Mode::from_raw_mode(stat.st_mode) != PRIVATE {
            // The umask has taken something even from the owner.
            chmodat(&self.folder, own, PRIVATE, AtFlags::empty())?;
        }
        listen(socket, BACKLOG)?;
        Ok(stat)
    }

    /// Gives our socket the name.
    fn take(&self, own: &OsString) -> Result<(), BindError> {
        let refused = |error| refused(self.address, error);
        for _ in 0..TRIES {
            let no_replace = RenameFlags::NOREPLACE;
            match renameat_with(&self.folder, own, &self.folder, &self.name, no_replace) {
                Err(Errno::EXIST) => {}
                renamed => return renamed.map_err(refused),
            }
            let _lock = self.lock()?;
            if self.is_stale()? {
                return renameat(&self.folder, own, &self.folder, &self.name).map_err(refused);
            }
            // It has gone meanwhile.
        }
        Err(BindError::InUse { address: self.address.clone() })
    }

    /// Keeps other servers from replacing what is there.
    fn lock(&self) -> Result<Lock, BindError> {
        let refused = |error| refused(self.address, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.folder, ".", flags, Mode::empty()).map_err(refused)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { folder }),
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    let (address, seconds) = (self.address.clone(), LOCK_PATIENCE.as_secs());
                    return Err(BindError::Locked { address, seconds });
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }

    /// Whether a socket is there on which nobody listens; false if nothing is there.
    fn is_stale(&self) -> Result<bool, BindError> {
        let address = || self.address.clone();
        let refused = |error| refused(self.address, error);
        let stat = match statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat.map_err(refused)?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(BindError::NotASocket { address: address() });
        }
        // A datagram socket cannot connect to a live server, nor disturb it; but the kernel first says
        // whether there is one, or any other live socket.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        match connect(probe.map_err(refused)?, &self.to) {
            Err(Errno::CONNREFUSED) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Ok(()) | Err(Errno::PROTOTYPE | Errno::PERM) => {
                Err(BindError::InUse { address: address() })
            }
            Err(error) => Err(refused(error)),
        }
    }
}

/// A locked folder.
struct Lock {
    folder: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A forked child may have a copy of the descriptor, so closing ours is not enough.
        let _ = flock(&self.folder, FlockOperation::Unlock);
    }
}

impl SocketFile {
    /// Removes the file, if it is still ours. The socket still has its inode, so nobody else can.
    pub(super) fn remove(&self) {
        let found = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            // If that fails, the next server replaces it.
            let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}
