//! Where servers listen in tests, and callers that are no zeroport programs.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use zeroport::Address;

/// A folder of a test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(unique());
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A name that nobody else uses.
pub(crate) fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("zeroport-server-{}-{number}", std::process::id())
}

/// An abstract name that nobody else uses.
pub(crate) fn unique_name() -> Address {
    Address::abstract_name(unique())
}

fn socket_address(address: &Address) -> SocketAddrUnix {
    match address {
        Address::Path(path) => SocketAddrUnix::new(path.as_path()).unwrap(),
        Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A stranger: connects, and has not said anything yet. `AGAIN`: as many as may wait do so already.
pub(crate) fn try_stranger(address: &Address) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &socket_address(address))?;
    Ok(socket)
}

pub(crate) fn stranger(address: &Address) -> OwnedFd {
    try_stranger(address).unwrap()
}

/// Something that listens at an address and speaks as the test likes.
pub(crate) fn raw_server(address: &Address) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::bind(&socket, &socket_address(address)).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket
}

/// The file of a server that has died: nobody listens.
pub(crate) fn leave_stale_file(path: &Path) {
    drop(raw_server(&Address::from(path)));
    assert!(path.exists());
}
