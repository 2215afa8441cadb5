//! Several rings of arbitrary bytes, read as one queue; and one whose reader says arbitrary things, written.

use arbitrary::Arbitrary;
use zeroport::fuzzing::{PosterStep, parse_head, post_into_queue, read_queue};

#[derive(Arbitrary, Debug)]
enum Script {
    Read { rings: Vec<(u8, Vec<Word>)> },
    Post { capacity: u8, steps: Vec<(Step, [Released; 2])> },
}

/// A word of a ring: anything, or something that looks like half of a header.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Any(u64),
    Head { len: u8, kind: u8, flags: u8, ports: u16 },
    Plain(u8),
    Detail { tag: u8, buffers: u16 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Post(u16),
    Grow(u8),
    GoBack,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Released {
    Any(u64),
    Near(u8),
}

pub fn queue(data: &[u8]) {
    match crate::script(data) {
        Some(Script::Read { rings }) => {
            let value = |word: &Word| {
                parse_head(word.value());
                word.value()
            };
            let rings: Vec<_> = rings
                .iter()
                .map(|(capacity, words)| (ring(*capacity), words.iter().map(value).collect()))
                .collect();
            read_queue(&rings, 4096);
        }
        Some(Script::Post { capacity, steps }) => {
            let steps: Vec<_> = steps
                .iter()
                .map(|(step, released)| (step.value(), released.map(Released::value)))
                .collect();
            post_into_queue(ring(capacity), &steps);
        }
        None => {}
    }
}

fn ring(capacity: u8) -> u64 {
    64 << (capacity % 7)
}

impl Word {
    fn value(self) -> u64 {
        match self {
            Self::Any(word) => word,
            Self::Head { len, kind, flags, ports } => {
                let (kind, flags, ports) = (kind % 5, flags % 8, ports % 1100);
                u64::from(len)
                    | u64::from(kind) << 32
                    | u64::from(flags) << 40
                    | u64::from(ports) << 48
            }
            Self::Plain(len) => 1 << 32 | u64::from(len),
            Self::Detail { tag, buffers } => u64::from(tag) | u64::from(buffers % 1100) << 32,
        }
    }
}

impl Step {
    fn value(self) -> PosterStep {
        match self {
            Self::Post(len) => PosterStep::Post(len.into()),
            Self::Grow(capacity) => PosterStep::Grow(ring(capacity)),
            Self::GoBack => PosterStep::GoBack,
        }
    }
}

impl Released {
    fn value(self) -> u64 {
        match self {
            Self::Any(position) => position,
            Self::Near(position) => u64::from(position) * 16,
        }
    }
}
