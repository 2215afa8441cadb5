//! The shared format: every byte of a segment, and nothing else.
//!
//! ```text
//!  0x0000  identity      magic, version, features, capacities, …  written once, by the creator
//!  0x0080  side 0        epoch │ message wake │ room wake         written by the holder of side 0
//!  0x0100  side 1        epoch │ message wake │ room wake         written by the holder of side 1
//!  0x0180  ring 0        released │ let go │ lanes left            written by side 1, its reader
//!  0x0200  ring 1        released │ let go │ lanes left            written by side 0, its reader
//!  0x0280  done          one bit for each side                    set by who uses the segment no more
//!  0x1000  ring 0 data   capacity[0] bytes                        side 0 posts, side 1 reads
//!     …    ring 1 data   capacity[1] bytes                        side 1 posts, side 0 reads
//! ```
//!
//! The segment of a *grown* ring ([`crate::queue`]) begins likewise and has one ring, the first; of its
//! words only `released` is used.
//!
//! All fields are little-endian and of fixed width. Words that different sides write in the course of
//! a conversation never share a pair of cache lines (128 bytes): the prefetcher moves lines in pairs.
//! (A wake word is set by its owner; the other side changes it only to ring the bell.)
//!
//! Records are drawn in [`crate::record`]; states of the wake words in [`crate::wake`], of the epochs
//! in [`crate::epoch`]. Any change to what stands in those places raises [`VERSION`].

use bytemuck::{Pod, Zeroable};

use crate::sync::{AtomicU32, AtomicU64};

/// The first eight bytes of a segment.
pub(crate) const MAGIC: [u8; 8] = *b"ZEROPORT";
/// The version of the shared format.
pub(crate) const VERSION: u32 = 5;

/// The smallest capacity of a ring: one page.
pub(crate) const MIN_CAPACITY: u64 = 4 << 10;
/// The largest capacity of a ring.
pub(crate) const MAX_CAPACITY: u64 = 1 << 30;
/// The capacity of a ring unless one is asked for.
pub(crate) const DEFAULT_CAPACITY: u64 = 64 << 10;
/// Bytes that may wait in each direction beyond the ring, unless another limit is asked for.
pub(crate) const DEFAULT_LIMIT: u64 = 256 << 20;
/// The largest limit.
pub(crate) const MAX_LIMIT: u64 = 1 << 46;
/// Bytes before the first ring.
pub(crate) const HEADER_LEN: u64 = 4096;

/// The features that this build can read: the low byte of the feature word, see [`rkyv_format`].
pub(crate) const KNOWN_FEATURES: u64 = 0xff;

/// rkyv's archives as this build writes them: 0 without rkyv, else bit 0 and, for each of rkyv's
/// format features that is on, one more bit. Two builds understand each other's values if these are
/// equal; bytes and plain data need no agreement.
pub(crate) const fn rkyv_format() -> u64 {
    #[cfg(feature = "rkyv")]
    {
        let pointer = size_of::<rkyv::Archived<usize>>();
        let unaligned = align_of::<rkyv::Archived<u64>>() == 1;
        1 | ((pointer == 2) as u64) << 1 | ((pointer == 8) as u64) << 2 | (unaligned as u64) << 3
    }
    #[cfg(not(feature = "rkyv"))]
    0
}

/// zeroport's format is little-endian throughout: with rkyv's `big_endian` this does not compile.
#[cfg(feature = "rkyv")]
const _: () = {
    trait LittleEndian {}
    impl LittleEndian for rkyv::rend::u32_le {}
    impl LittleEndian for rkyv::rend::unaligned::u32_ule {}
    const fn assert_little_endian<T: LittleEndian>() {}
    assert_little_endian::<rkyv::Archived<u32>>();
};

/// What the creator of a segment chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of each ring.
    pub(crate) capacity: [u64; 2],
    /// Bytes that may wait beyond each ring.
    pub(crate) limit: [u64; 2],
    /// Whether memory outside the rings may be used again.
    pub(crate) reuse: bool,
}

impl Shape {
    /// One grown ring.
    pub(crate) const fn grown(capacity: u64) -> Self {
        Self { capacity: [capacity, 0], limit: [0; 2], reuse: false }
    }
}

/// What a segment is: written once, before anybody else can see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Identity {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) header_len: u32,
    pub(crate) features: u64,
    /// Bytes of each ring; the second is 0 for a grown ring.
    pub(crate) capacity: [u64; 2],
    /// Bytes that may wait beyond each ring: [`crate::account`].
    pub(crate) limit: [u64; 2],
    /// 1 if both sides trust each other from the beginning: what lies outside the rings is not sealed
    /// against writing then, but used again.
    pub(crate) reuse: u64,
    pub(crate) reserved: [u64; 8],
}

/// [`Identity`] as the words in which it is written and read.
pub(crate) type IdentityWords = [u64; 16];

impl Identity {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            header_len: HEADER_LEN as u32,
            features: rkyv_format(),
            capacity: shape.capacity,
            limit: shape.limit,
            reuse: shape.reuse.into(),
            reserved: [0; 8],
        }
    }

    /// The shape that it tells, if that is one of ours.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let [first, second] = self.limit;
        let is_legal = first <= MAX_LIMIT && second <= MAX_LIMIT && self.reuse <= 1;
        let Self { capacity, limit, reuse, .. } = *self;
        is_legal.then_some(Shape { capacity, limit, reuse: reuse == 1 })
    }

    pub(crate) fn to_words(self) -> IdentityWords {
        bytemuck::cast(self)
    }

    /// Bytes of the whole segment.
    pub(crate) const fn segment_len(capacity: [u64; 2]) -> u64 {
        HEADER_LEN + capacity[0] + capacity[1]
    }

    /// Where the data of a ring starts.
    pub(crate) const fn ring_offset(capacity: [u64; 2], ring: Side) -> u64 {
        match ring {
            Side::First => HEADER_LEN,
            Side::Second => HEADER_LEN + capacity[0],
        }
    }
}

/// One of the two ends of a channel. Ring `s` carries what side `s` posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(crate) const fn of<T>(self, pair: &[T; 2]) -> &T {
        let [first, second] = pair;
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }

    pub(crate) const fn to_wire(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    pub(crate) const fn from_wire(wire: u32) -> Option<Self> {
        match wire {
            0 => Some(Self::First),
            1 => Some(Self::Second),
            _ => None,
        }
    }
}

/// The words of one side. The other side only loads them, but for the exchange that rings the bell.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct SideWords {
    /// Generation and state of the port's holder: [`crate::epoch`].
    pub(crate) epoch: AtomicU64,
    /// Whether this side, as a reader, must be woken: [`crate::wake`].
    pub(crate) message_wake: AtomicU32,
    /// Whether this side, as a poster that waits for room, must be woken.
    pub(crate) room_wake: AtomicU32,
}

/// The word of one ring's reader.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct RingWords {
    /// The position up to which the reader has given room back.
    pub(crate) released: AtomicU64,
    /// Bytes outside the ring that the reader has let go, ever: [`crate::account`].
    pub(crate) let_go: AtomicU64,
    /// Lanes that the reader has come to, ever.
    pub(crate) lanes: AtomicU64,
}

/// The first page of a segment. All of it is atomic, so a reference to it is sound whoever writes.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) identity: [AtomicU64; 16],
    pub(crate) sides: [SideWords; 2],
    pub(crate) rings: [RingWords; 2],
    pub(crate) done: DoneWord,
}

/// Which sides use the segment no more: [`crate::epoch::is_done`].
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct DoneWord {
    pub(crate) sides: AtomicU32,
}

// loom's atomics are larger than the words they stand for; its models never map a segment.
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Identity>() == 128, "one pair of cache lines");
    assert!(size_of::<SideWords>() == 128, "one pair of cache lines");
    assert!(size_of::<RingWords>() == 128, "one pair of cache lines");
    assert!(std::mem::offset_of!(Header, sides) == 0x80, "as drawn");
    assert!(std::mem::offset_of!(Header, rings) == 0x180, "as drawn");
    assert!(std::mem::offset_of!(SideWords, epoch) == 0, "as drawn");
    assert!(std::mem::offset_of!(SideWords, message_wake) == 8, "as drawn");
    assert!(std::mem::offset_of!(SideWords, room_wake) == 12, "as drawn");
    assert!(std::mem::offset_of!(Header, done) == 0x280, "as drawn");
    assert!(std::mem::offset_of!(RingWords, let_go) == 8, "as drawn");
    assert!(std::mem::offset_of!(RingWords, lanes) == 16, "as drawn");
    assert!(size_of::<Header>() as u64 <= HEADER_LEN, "the rings begin behind it");
    assert!(HEADER_LEN.is_multiple_of(4096), "rings are page-aligned");
};
