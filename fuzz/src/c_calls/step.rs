//! What the bytes of an input mean. A step takes four, so that a few of them make a long story.

#[derive(Debug)]
pub(super) enum Step {
    Channel {
        untrusted: bool,
        small: bool,
        cold: bool,
    },
    Close(u8),
    Shutdown(u8),
    Post {
        port: u8,
        len: usize,
    },
    PostWith {
        port: u8,
        message: Message,
    },
    PostAll {
        port: u8,
        count: u8,
        timed: bool,
    },
    Loan {
        port: u8,
        len: usize,
    },
    Publish {
        port: u8,
        used: u16,
        item: u8,
    },
    Cancel(u8),
    Receive {
        port: u8,
        most: u8,
    },
    TakePorts {
        message: u8,
        capacity: u8,
    },
    TakeBuffers {
        message: u8,
        capacity: u8,
    },
    Release(u8),
    ReleaseAll,
    Buffer {
        len: u16,
        sealed: bool,
    },
    CopyBuffer(u8),
    FreeBuffer(u8),
    Gathering {
        is_loop: bool,
    },
    Insert {
        gathering: u8,
        port: u8,
        deaf: bool,
    },
    Remove {
        gathering: u8,
        port: u8,
    },
    Pause {
        gathering: u8,
        port: u8,
        resume: bool,
    },
    Wait {
        gathering: u8,
        most: u8,
    },
    Run {
        gathering: u8,
        until: bool,
        inside: Inside,
    },
    Signal {
        gathering: u8,
        stop: bool,
        arm: bool,
    },
    CloseGathering(u8),
    Ask(u8),
    Travel(u8),
    /// A number that is no handle, or one with a few bits changed.
    MadeUp {
        id: u64,
        of: Option<u8>,
        number: u64,
    },
    Split(u8),
    Join {
        sender: u8,
        receiver: u8,
    },
    Named {
        port: u8,
        message: Message,
        timed: bool,
    },
    Invoke {
        port: u8,
        message: Message,
        timed: bool,
    },
    Open(u8),
    Busy(u8),
}

/// What is posted.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) len: usize,
    pub(super) tag: u32,
    /// See `Model::items`.
    pub(super) items: [u8; 3],
    /// Must be 0.
    pub(super) reserved: u32,
    pub(super) name_len: usize,
}

/// What a handler does when it is told a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Inside {
    Nothing,
    Release,
    Close,
    Remove,
    Pause,
    Stop,
    RunAgain,
}

const INSIDE: [Inside; 7] = [
    Inside::Nothing,
    Inside::Release,
    Inside::Close,
    Inside::Remove,
    Inside::Pause,
    Inside::Stop,
    Inside::RunAgain,
];

macro_rules! kinds {
    ($($kind:ident)*) => {
        /// The kinds of steps.
        #[derive(Clone, Copy)]
        pub(super) enum Kind {
            $($kind,)*
        }

        const KINDS: &[Kind] = &[$(Kind::$kind,)*];
    };
}

kinds! {
    Channel Close Shutdown Post PostWith PostAll Loan Publish Cancel Receive TakePorts
    TakeBuffers Release ReleaseAll Buffer CopyBuffer FreeBuffer Gathering Insert Remove Pause
    Wait Run Signal CloseGathering Ask Travel MadeUp Split Join Named Invoke Open Busy
}

/// What brings life comes more often than what ends it.
const OFTEN: [Kind; 32] = {
    use Kind::*;
    [
        Channel,
        Channel,
        Channel,
        Channel,
        Post,
        Post,
        PostWith,
        PostWith,
        PostWith,
        PostWith,
        PostWith,
        Receive,
        Receive,
        Receive,
        Receive,
        Receive,
        TakePorts,
        TakePorts,
        TakeBuffers,
        Buffer,
        Buffer,
        Gathering,
        Insert,
        Insert,
        Wait,
        Wait,
        Run,
        Run,
        Loan,
        Publish,
        Invoke,
        Named,
    ]
};

/// From here on a step's first byte is its kind.
const EXACT: u8 = 128;

/// The bytes of a step: [`step`] reads them.
pub(super) const fn bytes(kind: Kind, a: u8, b: u8, c: u8) -> [u8; 4] {
    [EXACT + kind as u8, a, b, c]
}

pub(super) fn step([what, a, b, c]: [u8; 4]) -> Step {
    let kind = match what.checked_sub(EXACT) {
        None => OFTEN[usize::from(what) % OFTEN.len()],
        Some(exact) => KINDS[usize::from(exact) % KINDS.len()],
    };
    match kind {
        Kind::Channel => {
            Step::Channel { untrusted: a & 1 != 0, small: a & 2 != 0, cold: a & 4 != 0 }
        }
        Kind::Close => Step::Close(a),
        Kind::Shutdown => Step::Shutdown(a),
        Kind::Post => Step::Post { port: a, len: len(b) },
        Kind::PostWith => Step::PostWith { port: a, message: message(b, c) },
        Kind::PostAll => Step::PostAll { port: a, count: b % 16, timed: c & 1 != 0 },
        Kind::Loan => Step::Loan { port: a, len: len(b) },
        Kind::Publish => Step::Publish { port: a, used: u16::from(b) * 8, item: c % 16 },
        Kind::Cancel => Step::Cancel(a),
        Kind::Receive => Step::Receive { port: a, most: b % 4 },
        Kind::TakePorts => Step::TakePorts { message: a, capacity: b % 5 },
        Kind::TakeBuffers => Step::TakeBuffers { message: a, capacity: b % 5 },
        Kind::Release => Step::Release(a),
        Kind::ReleaseAll => Step::ReleaseAll,
        Kind::Buffer => Step::Buffer { len: u16::from(b) * 64, sealed: a & 1 != 0 },
        Kind::CopyBuffer => Step::CopyBuffer(a),
        Kind::FreeBuffer => Step::FreeBuffer(a),
        Kind::Gathering => Step::Gathering { is_loop: a & 1 != 0 },
        Kind::Insert => Step::Insert { gathering: b, port: a, deaf: c == 1 },
        Kind::Remove => Step::Remove { gathering: b, port: a },
        Kind::Pause => Step::Pause { gathering: b, port: a, resume: c & 1 != 0 },
        Kind::Wait => Step::Wait { gathering: b, most: a % 4 + 1 },
        Kind::Run => Step::Run {
            gathering: b,
            until: a & 1 != 0,
            inside: INSIDE[usize::from(c) % INSIDE.len()],
        },
        Kind::Signal => Step::Signal { gathering: b, stop: a & 1 != 0, arm: c & 1 != 0 },
        Kind::CloseGathering => Step::CloseGathering(b),
        Kind::Ask => Step::Ask(a),
        Kind::Travel => Step::Travel(a),
        Kind::MadeUp => {
            Step::MadeUp { id: 1 << (b % 64), of: Some(a).filter(|a| *a != 0), number: c.into() }
        }
        Kind::Split => Step::Split(a),
        Kind::Join => Step::Join { sender: a, receiver: b },
        Kind::Named => Step::Named { port: a, message: message(b, c), timed: b & 1 != 0 },
        Kind::Invoke => Step::Invoke { port: a, message: message(b, c), timed: b & 1 != 0 },
        Kind::Open => Step::Open(a),
        Kind::Busy => Step::Busy(a),
    }
}

fn message(b: u8, c: u8) -> Message {
    Message {
        len: len(b),
        tag: b.into(),
        items: [c % 16, c / 16, if b > 100 { b % 16 } else { 0 }],
        reserved: u32::from(b == 99),
        name_len: [1, 0, 16, 3, 255, 256, 17, 2][usize::from(b) / 2 % 8],
    }
}

/// In a ring, not in every ring, or with memory of its own.
fn len(number: u8) -> usize {
    match number {
        0..200 => number.into(),
        200..240 => usize::from(number) * 50,
        _ => 100_000,
    }
}
