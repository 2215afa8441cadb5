//! `zp_status`: what every function returns, and what each Rust error becomes.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_uint};
use std::io;

use zeroport::{
    AttachError, CloseReason, OpenError, ParentPortError, PostError, RecvError, TakeError,
    Untransferable,
};

use crate::table::{Gone, Stale};

/// The statuses, each with its number and its text.
macro_rules! statuses {
    ($($name:ident = $number:literal, $c_name:literal, $text:literal;)*) => {
        /// `zp_status`. What each means stands in `zeroport.h`.
        #[repr(C)]
        #[allow(missing_docs)] // one place for that is enough
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Status {
            $($name = $number,)*
        }

        impl Status {
            /// All of them, with their names in C.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $c_name),)*];

            /// What it means, in a few words.
            pub const fn text(self) -> &'static CStr {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    Ok = 0, "ZP_OK", c"done";
    Empty = 1, "ZP_EMPTY", c"no message yet";
    Full = 2, "ZP_FULL", c"no room for the message yet";
    Closed = 3, "ZP_CLOSED", c"the channel was closed";
    PeerDied = 4, "ZP_PEER_DIED", c"the process at the other end died";
    Lost = 5, "ZP_LOST", c"the other port was lost on its way to a new holder";
    Violated = 6, "ZP_VIOLATED", c"the other side broke the protocol";
    BadArgument = 7, "ZP_BAD_ARGUMENT", c"an argument is null or not legal";
    BadHandle = 8, "ZP_BAD_HANDLE", c"this is no handle";
    Freed = 9, "ZP_FREED", c"this program has closed the port or released the message already";
    Transferred = 10, "ZP_TRANSFERRED", c"this program has given the port away";
    Busy = 11, "ZP_BUSY", c"another thread is using the port";
    Borrowed = 12, "ZP_BORROWED", c"messages of the port are held: release them first";
    Detached = 13, "ZP_DETACHED", c"the port belongs to the process that this one was forked from";
    TooLarge = 14, "ZP_TOO_LARGE", c"the message is longer than this channel carries";
    TooSmall = 15, "ZP_TOO_SMALL", c"there is not enough room for the ports of the message";
    TooManyPorts = 16, "ZP_TOO_MANY_PORTS", c"too many ports for one message";
    Duplicate = 17, "ZP_DUPLICATE", c"a port stands twice in the list";
    Carrier = 18, "ZP_CARRIER", c"a port cannot carry itself";
    OtherEnd = 19, "ZP_OTHER_END", c"a port cannot carry its own other end";
    Ended = 20, "ZP_ENDED", c"a port whose channel has ended cannot be given away";
    Trusted = 21, "ZP_TRUSTED", c"an end of a trusted channel cannot go to strangers";
    Refused = 22, "ZP_REFUSED", c"what came is no port, or somebody else's";
    Incompatible = 23, "ZP_INCOMPATIBLE", c"the other program has another version of zeroport";
    NoParent = 24, "ZP_NO_PARENT", c"no zeroport program has started this one";
    System = 25, "ZP_SYSTEM", c"the operating system refused: errno says why";
    Internal = 26, "ZP_INTERNAL", c"a bug in zeroport";
}

/// `const char *zp_status_text(zp_status status)`: what a status means, in a few words. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn zp_status_text(status: c_uint) -> *const c_char {
    let known = Status::ALL.iter().find(|(known, _)| *known as c_uint == status);
    known.map_or(c"unknown status", |(known, _)| known.text()).as_ptr()
}

/// Why a call did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// What the system said, with [`Status::System`].
    pub(crate) errno: Option<i32>,
    /// The place in the caller's list that it is about.
    pub(crate) index: Option<usize>,
}

impl Failure {
    pub(crate) fn system(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { errno: Some(errno), ..Status::System.into() }
    }

    pub(crate) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, errno: None, index: None }
    }
}

impl From<Stale> for Failure {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Unknown => Status::BadHandle.into(),
            Stale::Gone(Gone::Closed) => Status::Freed.into(),
            Stale::Gone(Gone::Transferred) => Status::Transferred.into(),
        }
    }
}

impl From<CloseReason> for Status {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Closed => Self::Closed,
            CloseReason::PeerDied => Self::PeerDied,
            CloseReason::Lost => Self::Lost,
            CloseReason::Violated => Self::Violated,
            _ => Self::Internal,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Capacity { .. } | OpenError::Limit { .. } => Status::BadArgument.into(),
            OpenError::Os(error) => Self::system(&error),
            _ => Status::Internal.into(),
        }
    }
}

impl From<PostError> for Failure {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Full { .. } => Status::Full.into(),
            PostError::TooLarge { .. } => Status::TooLarge.into(),
            PostError::Closed(reason) => Status::from(reason).into(),
            PostError::Busy => Status::Busy.into(),
            PostError::Detached => Status::Detached.into(),
            PostError::Untransferable { index, reason } => Self::from(reason).at(index),
            PostError::TooManyPorts { .. } => Status::TooManyPorts.into(),
            PostError::Os(error) => Self::system(&error),
            _ => Status::Internal.into(),
        }
    }
}

impl From<Untransferable> for Failure {
    fn from(reason: Untransferable) -> Self {
        let status = match reason {
            Untransferable::Carrier => Status::Carrier,
            Untransferable::OtherEnd => Status::OtherEnd,
            Untransferable::Closed(_) => Status::Ended,
            Untransferable::Detached => Status::Detached,
            Untransferable::Trusted => Status::Trusted,
            _ => Status::Internal,
        };
        status.into()
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Empty => Status::Empty.into(),
            RecvError::Closed(reason) => Status::from(reason).into(),
            RecvError::Detached => Status::Detached.into(),
            RecvError::Os { errno } => Self::system(&io::Error::from_raw_os_error(errno)),
            _ => Status::Internal.into(),
        }
    }
}

impl From<TakeError> for Failure {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Os(error) => Self::system(&error),
            TakeError::Violated => Status::Violated.into(),
            TakeError::Attach { source, .. } => source.into(),
            TakeError::Detached => Status::Detached.into(),
            _ => Status::Internal.into(),
        }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Version { .. } | AttachError::Features { .. } => {
                Status::Incompatible.into()
            }
            AttachError::Os(error) => Self::system(&error),
            _ => Status::Refused.into(),
        }
    }
}

impl From<ParentPortError> for Failure {
    fn from(error: ParentPortError) -> Self {
        match error {
            ParentPortError::NoParent => Status::NoParent.into(),
            ParentPortError::Gone { .. } => Status::Refused.into(),
            ParentPortError::Attach(error) => error.into(),
            _ => Status::Internal.into(),
        }
    }
}
