//! A ring of arbitrary bytes, read, and each word of it as a head; and a ring whose reader says arbitrary things,
//! written.

use arbitrary::Arbitrary;
use zeroport::fuzzing::{parse_head, post_into_ring, read_ring};

#[derive(Arbitrary, Debug)]
enum Script {
    Read { capacity: u8, read: u16, words: Vec<Word> },
    Post { capacity: u8, steps: Vec<(u16, Released)> },
}

/// A word of the ring: anything, or something that begins like a header, with up to three ports, or like the second
/// word of one, with a small gap.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Any(u64),
    Head { len: u16, kind: u8 },
    Detail { tag: u8, gap: u8 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Released {
    Any(u64),
    Near(u16),
}

pub fn record(data: &[u8]) {
    match crate::script(data) {
        Some(Script::Read { capacity, read, words }) => {
            let words: Vec<_> = words
                .iter()
                .map(|word| match *word {
                    Word::Any(word) => word,
                    Word::Detail { tag, gap } => u64::from(tag) | u64::from(gap % 16) << 48,
                    Word::Head { len, kind } => {
                        let (kind, ports) = (kind & 0x3f, kind >> 6);
                        u64::from(len) | u64::from(kind) << 32 | u64::from(ports) << 48
                    }
                })
                .collect();
            words.iter().copied().for_each(parse_head);
            read_ring(&words, 64 << (capacity % 7), u64::from(read) * 16, 4096);
        }
        Some(Script::Post { capacity, steps }) => {
            let released = |released| match released {
                Released::Any(position) => position,
                Released::Near(position) => u64::from(position) * 16,
            };
            let steps: Vec<_> =
                steps.iter().map(|&(len, position)| (len.into(), released(position))).collect();
            post_into_ring(64 << (capacity % 7), &steps);
        }
        None => {}
    }
}
