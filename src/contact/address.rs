//! Where a server can be found.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::SocketAddrUnix;

use super::error::AddressError;

/// What the kernel's socket address has room for, in bytes: a path with its final zero, or a name
/// with its leading one.
const MAX_LEN: usize = 107;

/// Where a [`Server`](crate::Server) listens: a path, or an abstract name.
///
/// Paths convert by themselves, so that functions which take `impl Into<Address>` take a `&str`,
/// `String`, `&Path` or `PathBuf` too. A path or name may have 107 bytes.
///
/// A path is guarded by the permissions of its folder and of the socket file (which is made with mode
/// 0600). An abstract name is in no file system and leaves nothing behind, but everybody in the same
/// network namespace can connect to it, or take it first: whoever uses one must look at the
/// [`Credentials`](crate::Credentials) of the other side.
///
/// ```
/// use zeroport::Address;
///
/// assert_eq!(Address::from("/run/demo/socket").to_string(), "/run/demo/socket");
/// assert_eq!(Address::abstract_name("demo").to_string(), "@demo");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket file.
    Path(PathBuf),
    /// A name that only the kernel knows: any bytes, but not none.
    Abstract(Vec<u8>),
}

impl Address {
    /// An abstract name.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self::Abstract(name.as_ref().to_vec())
    }

    /// The address as the kernel knows it.
    pub(super) fn to_socket_address(&self) -> Result<SocketAddrUnix, AddressError> {
        let bytes = match self {
            Self::Path(path) => path.as_os_str().as_bytes(),
            Self::Abstract(name) => name,
        };
        if bytes.len() > MAX_LEN {
            return Err(AddressError::TooLong { len: bytes.len(), max: MAX_LEN });
        }
        if bytes.is_empty() {
            return Err(AddressError::Empty);
        }
        match self {
            Self::Path(path) => SocketAddrUnix::new(path.as_path()),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        }
        // A path with a zero byte in it; lengths were checked.
        .map_err(|_| AddressError::NoFileName)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(formatter),
            Self::Abstract(name) => write!(formatter, "@{}", name.escape_ascii()),
        }
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<String> for Address {
    fn from(path: String) -> Self {
        Self::Path(path.into())
    }
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for Address {
    fn from(path: &P) -> Self {
        Self::Path(path.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_to_the_byte() {
        for make in [
            |len| Address::Path("p".repeat(len).into()),
            |len| Address::abstract_name("n".repeat(len)),
        ] {
            assert!(make(MAX_LEN).to_socket_address().is_ok());
            let error = make(MAX_LEN + 1).to_socket_address().unwrap_err();
            assert!(matches!(error, AddressError::TooLong { len: 108, max: 107 }), "{error:?}");
            assert!(error.to_string().contains("108") && error.to_string().contains("107"));
            assert!(matches!(make(0).to_socket_address().unwrap_err(), AddressError::Empty));
        }
    }

    #[test]
    fn a_zero_byte_belongs_in_names_only() {
        let path = Address::from("zero\0byte").to_socket_address();
        assert!(matches!(path, Err(AddressError::NoFileName)), "{path:?}");
        assert!(Address::abstract_name([0, 1, 0]).to_socket_address().is_ok());
    }
}
