//! `zp_status`: what every function returns, and what each Rust error becomes.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_uint};
use std::io;

use zeroport::{
    AcceptError, AdmitError, AttachError, BindError, BufferError, CloseReason, ConnectError,
    OpenError, ParentPortError, PostError, RecvError, SpawnError, TakeError, Untransferable,
};

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
    Empty = 1, "ZP_EMPTY", c"nothing there yet";
    Full = 2, "ZP_FULL", c"no room for the message yet";
    Ready = 3, "ZP_READY", c"there is something already: no need to wait";
    TimedOut = 4, "ZP_TIMED_OUT", c"the time is up, and the server has not answered";
    Finished = 5, "ZP_FINISHED", c"the loop was stopped, or has no port left";
    Closed = 6, "ZP_CLOSED", c"the channel was closed";
    PeerDied = 7, "ZP_PEER_DIED", c"the process at the other end died";
    Lost = 8, "ZP_LOST", c"the other port was lost on its way to a new holder";
    Violated = 9, "ZP_VIOLATED", c"the other side broke the protocol";
    BadArgument = 10, "ZP_BAD_ARGUMENT", c"an argument is null or not legal";
    BadHandle = 11, "ZP_BAD_HANDLE", c"this is no handle";
    Freed = 12, "ZP_FREED", c"this program has closed or released it already";
    Transferred = 13, "ZP_TRANSFERRED", c"this program has given it away";
    Busy = 14, "ZP_BUSY", c"another call is using it";
    Borrowed = 15, "ZP_BORROWED", c"messages of it are held: release them first";
    Loaned = 16, "ZP_LOANED", c"room of the port is reserved: publish or cancel first";
    Member = 17, "ZP_MEMBER", c"the port is in a set or a loop, which receives for it";
    Half = 18, "ZP_HALF", c"it is half a port, and not for that: join the halves first";
    Stranger = 19, "ZP_STRANGER", c"the port is not in this set or loop, the halves are not of one port";
    Sealed = 20, "ZP_SEALED", c"the buffer is sealed: it can only be read";
    Detached = 21, "ZP_DETACHED", c"it belongs to the process that this one was forked from";
    TooLarge = 22, "ZP_TOO_LARGE", c"longer than may be";
    TooSmall = 23, "ZP_TOO_SMALL", c"the array of the caller is too small";
    TooMany = 24, "ZP_TOO_MANY", c"too many ports and buffers for one message";
    Duplicate = 25, "ZP_DUPLICATE", c"something stands twice in the list";
    Carrier = 26, "ZP_CARRIER", c"a port cannot carry itself";
    OtherEnd = 27, "ZP_OTHER_END", c"a port cannot carry its own other end";
    Ended = 28, "ZP_ENDED", c"a port whose channel has ended cannot be given away";
    Trusted = 29, "ZP_TRUSTED", c"an end of a trusted channel cannot go to strangers";
    Refused = 30, "ZP_REFUSED", c"what came is no port, or the server refused";
    Incompatible = 31, "ZP_INCOMPATIBLE", c"the other program has another version of zeroport";
    Unnamed = 32, "ZP_UNNAMED", c"the message has no name";
    NoParent = 33, "ZP_NO_PARENT", c"no zeroport program has started this one";
    BadAddress = 34, "ZP_BAD_ADDRESS", c"no server can have this address";
    InUse = 35, "ZP_IN_USE", c"somebody else has this address";
    NoServer = 36, "ZP_NO_SERVER", c"nobody listens at this address";
    NotAllowed = 37, "ZP_NOT_ALLOWED", c"this process may not connect to this address";
    HungUp = 38, "ZP_HUNG_UP", c"the caller has hung up";
    System = 39, "ZP_SYSTEM", c"the operating system refused: errno says why";
    Internal = 40, "ZP_INTERNAL", c"a bug in zeroport";
}

/// `const char *zp_status_text(zp_status status)`: what a status means, in a few words. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn zp_status_text(status: c_uint) -> *const c_char {
    let known = Status::ALL.iter().find(|(known, _)| *known as c_uint == status);
    known.map_or(c"unknown status", |(known, _)| known.text()).as_ptr()
}

/// Why a call did not do what it should. So small that it is returned in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// With [`Status::System`] what the system said, else 1 more than the place in the caller's list that it is about, or 0.
    detail: u32,
}

impl Failure {
    pub(crate) fn system(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { status: Status::System, detail: errno.unsigned_abs() }
    }

    pub(crate) fn at(self, index: usize) -> Self {
        match self.status {
            Status::System => self,
            status => Self { status, detail: index as u32 + 1 },
        }
    }

    pub(crate) fn errno(self) -> Option<i32> {
        if self.status == Status::System { self.detail.try_into().ok() } else { None }
    }

    pub(crate) fn index(self) -> Option<usize> {
        if self.status == Status::System { None } else { (self.detail as usize).checked_sub(1) }
    }
}

impl From<Status> for Failure {
    #[inline(always)]
    fn from(status: Status) -> Self {
        Self { status, detail: 0 }
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
            PostError::TooLarge { .. } | PostError::NameTooLong { .. } => Status::TooLarge.into(),
            PostError::Closed(reason) => Status::from(reason).into(),
            PostError::Busy => Status::Loaned.into(),
            PostError::Detached => Status::Detached.into(),
            PostError::Untransferable { index, reason } => Self::from(reason).at(index),
            PostError::TooManyPorts { .. } => Status::TooMany.into(),
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

impl From<BufferError> for Failure {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::Os { source, .. } | BufferError::Seal { source, .. } => {
                Self::system(&source)
            }
            BufferError::Detached => Status::Detached.into(),
            _ => Status::Internal.into(),
        }
    }
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Open(error) => error.into(),
            SpawnError::Start { source, .. } => Self::system(&source),
            _ => Status::Internal.into(),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Address { .. } => Status::BadAddress.into(),
            BindError::InUse { .. } | BindError::NotASocket { .. } | BindError::Locked { .. } => {
                Status::InUse.into()
            }
            BindError::Folder { source, .. } | BindError::Os(source) => Self::system(&source),
            _ => Status::Internal.into(),
        }
    }
}

impl From<AcceptError> for Failure {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Empty => Status::Empty.into(),
            AcceptError::Detached => Status::Detached.into(),
            AcceptError::Os(error) => Self::system(&error),
            _ => Status::Internal.into(),
        }
    }
}

impl From<AdmitError> for Failure {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Open(error) => error.into(),
            AdmitError::Gone => Status::HungUp.into(),
            AdmitError::Detached => Status::Detached.into(),
            AdmitError::Os(error) => Self::system(&error),
            _ => Status::Internal.into(),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Address { .. } => Status::BadAddress.into(),
            ConnectError::NoServer { .. } => Status::NoServer.into(),
            ConnectError::NotAllowed { .. } => Status::NotAllowed.into(),
            ConnectError::Refused { .. } => Status::Refused.into(),
            ConnectError::TimedOut { .. } => Status::TimedOut.into(),
            ConnectError::Attach { source, .. } => source.into(),
            ConnectError::Os(error) => Self::system(&error),
            _ => Status::Internal.into(),
        }
    }
}
