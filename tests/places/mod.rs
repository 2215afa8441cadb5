//! Where servers listen in tests, clients in processes of their own, and callers that are no zeroport
//! programs.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use zeroport::{Address, MessagePort, Server};

use crate::support::{DONE, Peer, is_peer_of, this_test, wait_until};

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
    wait_until_stale(path);
}

/// Waits until nobody has the socket of a file. (Other tests start processes meanwhile, which have
/// copies of all sockets for a moment.)
pub(crate) fn wait_until_stale(path: &Path) {
    wait_until("the socket is closed", || {
        try_stranger(&Address::from(path)).is_err_and(|error| error == Errno::CONNREFUSED)
    });
}

/// A stranger hangs up: at once, also where another process has a copy for a moment.
pub(crate) fn hang_up(stranger: OwnedFd) {
    rustix::net::shutdown(&stranger, rustix::net::Shutdown::Both).unwrap();
}

/// Tells a client in a process of its own where its server is.
pub(crate) const ADDRESS: &str = "ZEROPORT_TEST_ADDRESS";
pub(crate) const SHORT: Duration = Duration::from_millis(30);
/// So long nobody waits.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(1 << 40);

pub(crate) fn somewhere() -> (Folder, Server) {
    let folder = Folder::new();
    let server = Server::bind(folder.path("socket")).unwrap();
    (folder, server)
}

/// Runs the body of a client, if this process was started to be one.
pub(crate) fn be_client_of(test: &str, client: impl FnOnce(Address)) {
    if is_peer_of(test) {
        client(address_from_environment());
        std::process::exit(DONE);
    }
}

pub(crate) fn address_from_environment() -> Address {
    let address = std::env::var(ADDRESS).unwrap();
    match address.strip_prefix('@') {
        Some(name) => Address::abstract_name(name),
        None => Address::from(&address),
    }
}

pub(crate) fn start_client(test: &str, address: &Address) -> Peer {
    Peer::new(this_test(test).env(ADDRESS, address.to_string()).spawn().unwrap())
}

pub(crate) fn serve(port: &MessagePort) {
    while let Ok(message) = port.recv() {
        port.post_bytes(message.bytes()).unwrap();
    }
}

pub(crate) fn expect_answer(port: &MessagePort) {
    port.post_bytes(b"question").unwrap();
    assert_eq!(port.recv().unwrap().bytes(), b"question");
}

/// The port of a caller, and its other end in a raw client, who never takes it.
pub(crate) fn admit_stranger(server: &Server) -> (MessagePort, OwnedFd) {
    let stranger = stranger(server.address());
    (server.accept().unwrap().admit().unwrap(), stranger)
}

pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}
