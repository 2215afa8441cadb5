//! Heads of any value; rings and queues of arbitrary bytes, read; and those whose reader says arbitrary things,
//! written.

use arbitrary::Arbitrary;
use zeroport::fuzzing::{
    PosterStep, parse_head, post_into_queue, post_into_ring, read_queue, read_ring,
};

#[derive(Arbitrary, Debug)]
enum Script {
    Read { capacity: u8, read: u16, words: Vec<Word> },
    Post { capacity: u8, steps: Vec<(u16, Released)> },
    Heads(Vec<Word>),
    Queue { rings: Vec<(u8, Vec<Word>)> },
    Poster { capacity: u8, steps: Vec<(Step, [Released; 2])> },
}

/// A word of the ring: anything, or something that begins like a header.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Any(u64),
    /// With up to three ports.
    Head {
        len: u16,
        kind: u8,
    },
    /// With all that a head has.
    Full {
        len: u8,
        kind: u8,
        flags: u8,
        ports: u16,
    },
    /// The second word of a header.
    Detail {
        tag: u8,
        buffers: u16,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Released {
    Any(u64),
    Near(u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Post(u16),
    Grow(u8),
    GoBack,
}

pub fn record(data: &[u8]) {
    match crate::script(data) {
        Some(Script::Read { capacity, read, words }) => {
            let words: Vec<_> = words.iter().copied().map(Word::value).collect();
            read_ring(&words, ring(capacity), u64::from(read) * 16, 4096);
        }
        Some(Script::Post { capacity, steps }) => {
            let steps: Vec<_> =
                steps.iter().map(|&(len, position)| (len.into(), position.value())).collect();
            post_into_ring(ring(capacity), &steps);
        }
        Some(Script::Heads(words)) => words.into_iter().map(Word::value).for_each(parse_head),
        Some(Script::Queue { rings }) => {
            let words = |words: &[Word]| words.iter().copied().map(Word::value).collect();
            let rings: Vec<_> =
                rings.iter().map(|(capacity, some)| (ring(*capacity), words(some))).collect();
            read_queue(&rings, 4096);
        }
        Some(Script::Poster { capacity, steps }) => {
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
            Self::Head { len, kind } => {
                let (kind, ports) = (kind & 0x3f, kind >> 6);
                u64::from(len) | u64::from(kind) << 32 | u64::from(ports) << 48
            }
            Self::Full { len, kind, flags, ports } => {
                let (kind, flags, ports) = (kind % 5, flags % 8, ports % 1100);
                u64::from(len)
                    | u64::from(kind) << 32
                    | u64::from(flags) << 40
                    | u64::from(ports) << 48
            }
            Self::Detail { tag, buffers } => u64::from(tag) | u64::from(buffers % 1100) << 32,
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

impl Step {
    fn value(self) -> PosterStep {
        match self {
            Self::Post(len) => PosterStep::Post(len.into()),
            Self::Grow(capacity) => PosterStep::Grow(ring(capacity)),
            Self::GoBack => PosterStep::GoBack,
        }
    }
}
