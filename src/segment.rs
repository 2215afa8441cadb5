//! The segment: the sealed memory of one channel, made here or attached and verified.
//!
//! # Invariants
//!
//! * **S1** The mapping is as long as the file, the file is sealed against shrinking and growing
//!   before anybody else has it (or was verified to be), and the mapping lives as long as the
//!   [`Segment`]: no access inside it faults for lack of file.
//! * **S2** Header words and ring words are only ever used as atomics, by all sides, so a reference to
//!   them is sound whoever writes.
//! * **S3** Payload bytes are reached through raw copies, through loads of atomic words, or through a
//!   slice that somebody vouches for: a [`Reservation`](crate::ring::Reservation) (R5: nobody else of
//!   this process writes there) or a trusted other side (which does not write what it published).
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{SealFlags, Stat, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::io::Errno;

use crate::error::AttachError;
use crate::layout::{
    HEADER_LEN, Header, Identity, KNOWN_FEATURES, MAGIC, MAX_CAPACITY, MIN_CAPACITY, RingWords,
    Shape, Side, SideWords, VERSION, rkyv_format,
};
use crate::memfd;
use crate::ring::{self, Cursor, Memory, Reservation};

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

const LEGAL_LENS: std::ops::RangeInclusive<u64> =
    HEADER_LEN + MIN_CAPACITY..=HEADER_LEN + 2 * MAX_CAPACITY;

/// Whether a ring may have this capacity.
pub(crate) const fn is_legal_capacity(capacity: u64) -> bool {
    capacity.is_power_of_two() && capacity >= MIN_CAPACITY && capacity <= MAX_CAPACITY
}

/// The memory of one channel.
#[derive(Debug)]
pub(crate) struct Segment {
    mapping: Mapping,
    memfd: OwnedFd,
}

/// A segment that was found to be one and is mapped, before anybody takes its descriptor.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    shape: Shape,
    id: OnceLock<SegmentId>,
}

/// What is expected of a segment that somebody else made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// That of a channel.
    Channel,
    /// One grown ring, of this capacity if that is known.
    Grown(Option<u64>),
}

impl Expected {
    fn is_met(self, capacity: [u64; 2]) -> bool {
        match self {
            Self::Channel => capacity.into_iter().all(is_legal_capacity),
            Self::Grown(expected) => {
                let [found, none] = capacity;
                is_legal_capacity(found) && none == 0 && expected.unwrap_or(found) == found
            }
        }
    }
}

impl Mapping {
    /// Verifies and maps the segment of a channel that somebody else made; it may be tried again.
    pub(crate) fn new(memfd: BorrowedFd<'_>) -> Result<Self, AttachError> {
        Self::expect(Expected::Channel, memfd)
    }

    /// As [`new`](Self::new), for a grown ring, of this capacity if that is known.
    pub(crate) fn grown(memfd: BorrowedFd<'_>, capacity: Option<u64>) -> Result<Self, AttachError> {
        Self::expect(Expected::Grown(capacity), memfd)
    }

    fn expect(expected: Expected, memfd: BorrowedFd<'_>) -> Result<Self, AttachError> {
        let seals = fcntl_get_seals(memfd).map_err(|_| AttachError::NotSealed)?;
        if !seals.contains(SEALS) {
            return Err(AttachError::NotSealed);
        }
        let stat = fstat(memfd).map_err(AttachError::os)?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        if !LEGAL_LENS.contains(&len) {
            return Err(AttachError::Size { found: len, expected: None });
        }
        let shape = Self::verify(expected, memfd, len)?;
        let mapping = Self::map(memfd, shape).map_err(AttachError::os)?;
        // Known already, so it need not be asked for.
        let _ = mapping.id.set(SegmentId::of(&stat));
        Ok(mapping)
    }

    /// The segment, with the descriptor that was mapped.
    pub(crate) fn held_by(self, memfd: OwnedFd) -> Segment {
        Segment { mapping: self, memfd }
    }

    /// Reads the identity once, from the file, and checks the copy.
    fn verify(expected: Expected, memfd: BorrowedFd<'_>, len: u64) -> Result<Shape, AttachError> {
        let mut identity: Identity = bytemuck::Zeroable::zeroed();
        let read = rustix::io::pread(memfd, bytemuck::bytes_of_mut(&mut identity), 0)
            .map_err(AttachError::os)?;
        if read != size_of::<Identity>() || identity.magic != MAGIC {
            return Err(AttachError::NotASegment);
        }
        if identity.version != VERSION {
            return Err(AttachError::Version { ours: VERSION, theirs: identity.version });
        }
        check_features(identity.features)?;
        if !expected.is_met(identity.capacity) {
            return Err(AttachError::Capacity { found: identity.capacity });
        }
        let expected = Identity::segment_len(identity.capacity);
        if u64::from(identity.header_len) != HEADER_LEN || len != expected {
            return Err(AttachError::Size { found: len, expected: Some(expected) });
        }
        identity.shape().ok_or(AttachError::NotASegment)
    }

    fn map(memfd: BorrowedFd<'_>, shape: Shape) -> Result<Self, Errno> {
        let len = Identity::segment_len(shape.capacity);
        let len = usize::try_from(len).map_err(|_| Errno::OVERFLOW)?;
        let map = MmapOptions::new()
            .len(len)
            .map_raw(&memfd)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        Ok(Self { map, shape, id: OnceLock::new() })
    }
}

impl Segment {
    /// Makes, seals and maps a fresh segment. The shape is legal.
    pub(crate) fn create(shape: Shape) -> Result<Self, Errno> {
        let memfd = memfd::make()?;
        ftruncate(&memfd, Identity::segment_len(shape.capacity))?;
        fcntl_add_seals(&memfd, SEALS)?;
        let segment = Mapping::map(memfd.as_fd(), shape)?.held_by(memfd);
        let words = Identity::new(shape).to_words();
        for (place, word) in segment.header().identity.iter().zip(words) {
            // Relaxed: the descriptor is handed over later, and the kernel orders that.
            place.store(word, Ordering::Relaxed);
        }
        Ok(segment)
    }

    /// Maps a segment that somebody else made, after it was found to be one.
    pub(crate) fn attach(memfd: OwnedFd) -> Result<Self, AttachError> {
        Ok(Mapping::new(memfd.as_fd())?.held_by(memfd))
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: S1, S2: the mapping is page-aligned, at least HEADER_LEN long, and `Header` (at
        // most that long) consists of atomics only.
        unsafe { &*self.mapping.map.as_ptr().cast::<Header>() }
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.mapping.shape
    }

    /// Finds memory for bytes of the first ring, so that its lack shows here and not as a signal.
    pub(crate) fn allocate(&self, from: u64, to: u64) -> Result<(), Errno> {
        memfd::allocate(&self.memfd, HEADER_LEN + from, to - from)
    }

    /// Gives memory of the first ring back to the kernel; reading it gives zeros then.
    pub(crate) fn give_back(&self, from: u64, to: u64) {
        memfd::give_back(&self.memfd, HEADER_LEN + from, to - from);
    }

    /// Which channel this is: an identity inside the segment could be forged.
    pub(crate) fn id(&self) -> io::Result<SegmentId> {
        if let Some(id) = self.mapping.id.get() {
            return Ok(*id);
        }
        let id = SegmentId::of(&fstat(&self.memfd)?);
        Ok(*self.mapping.id.get_or_init(|| id))
    }
}

/// One side's words of a mapped segment: found once, as every message needs them.
#[derive(Debug)]
pub(crate) struct Words {
    words: *const SideWords,
    _segment: Arc<Segment>,
}

// SAFETY: S1, S2: the words are atomics, in the mapping that `_segment` keeps alive.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(crate) fn new(segment: &Arc<Segment>, side: Side) -> Self {
        Self { words: side.of(&segment.header().sides), _segment: Arc::clone(segment) }
    }
}

impl Deref for Words {
    type Target = SideWords;

    #[inline(always)]
    fn deref(&self) -> &SideWords {
        // SAFETY: S1, S2: made of a reference into the mapping, which lives as long as `self`.
        unsafe { &*self.words }
    }
}

/// Where the payload of a message goes, in whatever memory: so that there is one write, from registers if
/// the value is there.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    start: *mut u8,
    len: usize,
    _memory: PhantomData<&'a u8>,
}

impl<'a> Place<'a> {
    /// In memory that whoever writes there holds as long as that takes.
    pub(crate) fn of(room: &mut [u8]) -> Self {
        Self { start: room.as_mut_ptr(), len: room.len(), _memory: PhantomData }
    }

    /// The same, for as long as its memory is held by something else than what it was borrowed from.
    pub(crate) fn held<'b>(self) -> Place<'b> {
        Place { start: self.start, len: self.len, _memory: PhantomData }
    }

    /// What is behind the first `len` bytes of it.
    #[inline(always)]
    pub(crate) fn behind(self, len: usize) -> Self {
        Self { start: self.start.wrapping_add(len), len: self.len.saturating_sub(len), ..self }
    }

    /// Writes bytes; nothing if they are more than there is place for.
    #[inline(always)]
    pub(crate) fn write(self, bytes: &[u8]) {
        if bytes.len() > self.len {
            return;
        }
        if bytes.len() >= FEW {
            // SAFETY: S1, S3: so much room is held by the one who posts (R5), who writes at once.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
            return;
        }
        // None of these pieces lies in two cache lines: a store that does waits for both. (`memcpy` takes the largest.)
        let rest = self.write_piece::<64>(bytes).write_piece::<32>(bytes).write_piece::<16>(bytes);
        if bytes.len().is_multiple_of(16) {
            return;
        }
        let rest = rest.write_piece::<8>(bytes).write_piece::<4>(bytes);
        rest.write_piece::<2>(bytes).write_piece::<1>(bytes);
    }

    /// Writes the next `N` bytes, if the length of all has that bit; gives the place behind them.
    #[inline(always)]
    fn write_piece<const N: usize>(self, bytes: &[u8]) -> Self {
        if bytes.len() & N == 0 {
            return self;
        }
        let done = bytes.len() & !(2 * N - 1);
        // SAFETY: with that bit, the length is at least so much and `N` more.
        let piece = unsafe { bytes.as_ptr().add(done) };
        // SAFETY: S1, S3, as in `write`, which has looked at the length of all.
        unsafe { std::ptr::copy_nonoverlapping(piece, self.start, N) };
        self.behind(N)
    }
}

/// A payload of fewer bytes is written without a call.
pub(crate) const FEW: usize = ring::FEW as usize;

const _: () = assert!(ring::FEW <= Cursor::new(MIN_CAPACITY).max_payload(), "as it says");

/// Tells channels apart, wherever their ends have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    device: u64,
    inode: u64,
}

impl SegmentId {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// The number of the file; all memfds are in one file system, the kernel's own.
    pub(crate) fn file(self) -> u64 {
        self.inode
    }
}

/// Two builds must agree about every known feature that both have.
fn check_features(theirs: u64) -> Result<(), AttachError> {
    let ours = rkyv_format();
    let unknown = theirs & !KNOWN_FEATURES;
    let rkyv_differs = theirs != 0 && ours != 0 && theirs != ours;
    if unknown != 0 || rkyv_differs {
        return Err(AttachError::Features { ours, theirs });
    }
    Ok(())
}

/// One ring of a mapped segment.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    segment: Arc<Segment>,
    data: *mut u8,
    words: *const RingWords,
    capacity: u64,
    /// Makes an offset that of a word in the ring.
    mask: u64,
}

// SAFETY: S1, S2: the pointer leads into the mapping that `segment` keeps alive; what is shared there
// is shared between processes already, and is used as S3 says.
unsafe impl Send for Region {}

impl Region {
    pub(crate) fn new(segment: Arc<Segment>, ring: Side) -> Self {
        let capacities = segment.mapping.shape.capacity;
        let capacity = *ring.of(&capacities);
        let offset = Identity::ring_offset(capacities, ring) as usize;
        // SAFETY: S1: the data of both rings lies inside the mapping.
        let data = unsafe { segment.mapping.map.as_mut_ptr().add(offset) };
        let words = ring.of(&segment.header().rings);
        Self { words, data, capacity, mask: (capacity - 1) & !7, segment }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The room of a reservation, for whoever fills it in place.
    pub(crate) fn room<'a>(&'a self, reservation: &'a mut Reservation) -> &'a mut [u8] {
        let len = reservation.payload_len() as usize;
        let Some(start) = self.checked(reservation.payload_offset(), len) else { return &mut [] };
        // SAFETY: S1 (checked), S3: the one reservation in use is borrowed mutably; mapped memory is
        // always initialised.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// As [`room`](Self::room), to read what was filled in.
    pub(crate) fn room_so_far<'a>(&'a self, reservation: &'a Reservation) -> &'a [u8] {
        let len = reservation.payload_len() as usize;
        let Some(start) = self.checked(reservation.payload_offset(), len) else { return &[] };
        // SAFETY: S1 (checked), S3: as in `room`, borrowed for reading.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The place of a reservation's payload.
    #[inline(always)]
    pub(crate) fn place(&self, reservation: &Reservation) -> Place<'_> {
        let (offset, len) = (reservation.payload_offset(), reservation.payload_len());
        let fits = len <= self.capacity.saturating_sub(offset);
        let start = self.data.wrapping_add(offset as usize);
        Place { start, len: if fits { len as usize } else { 0 }, _memory: PhantomData }
    }

    /// Copies bytes into room that the poster holds. False if they would leave the ring.
    #[inline(always)]
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(start) = self.checked(offset, bytes.len()) else { return false };
        // SAFETY: S1 (checked), S3: a raw copy; `bytes` is private memory or other room of ours.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        true
    }

    /// The bytes that a *trusted* other side has published, in place.
    #[inline(always)]
    pub(crate) fn published(&self, offset: u64, len: u32) -> &[u8] {
        let Some(start) = self.checked(offset, len as usize) else { return &[] };
        // SAFETY: S1 (checked), S3: only called for trusted ports, and the record is held, so the
        // poster does not write there (R2).
        unsafe { std::slice::from_raw_parts(start, len as usize) }
    }

    /// Copies published bytes, word by word, whatever the other side does meanwhile.
    pub(crate) fn copy_out(&self, offset: u64, into: &mut [u64]) {
        for (index, word) in into.iter_mut().enumerate() {
            // Relaxed: the head's Acquire has brought what an honest side wrote before it.
            *word = self.word(offset + 8 * index as u64).load(Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn checked(&self, offset: u64, len: usize) -> Option<*mut u8> {
        if offset.checked_add(len as u64)? > self.capacity {
            return None;
        }
        // SAFETY: S1: `offset` is at most the capacity.
        Some(unsafe { self.data.add(offset as usize) })
    }
}

impl Memory for Region {
    #[inline]
    fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline(always)]
    fn word(&self, offset: u64) -> &AtomicU64 {
        let offset = offset & self.mask;
        // SAFETY: S1: `offset` is below the capacity.
        let word = unsafe { self.data.add(offset as usize) };
        // SAFETY: S1, S2: 8-aligned, inside the mapping, used as an atomic by all who share it.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch(&self, offset: u64) {
        let offset = offset & (self.capacity - 1);
        // SAFETY: S1: `offset` is below the capacity.
        let line = unsafe { self.data.add(offset as usize) };
        // SAFETY: S1: a hint about memory that is mapped.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
        }
    }

    #[inline]
    fn released(&self) -> &AtomicU64 {
        // SAFETY: S1, S2: made of a reference into the mapping that `segment` keeps alive.
        let words = unsafe { &*self.words };
        &words.released
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::pwrite;

    use super::*;

    const CAPACITY: [u64; 2] = [MIN_CAPACITY, 2 * MIN_CAPACITY];
    const SHAPE: Shape = Shape { capacity: CAPACITY, limit: [0, 1 << 20], reuse: true };

    /// A memfd that begins with `identity`, of any length and with any seals.
    fn forge(identity: Identity, len: u64, seals: SealFlags) -> OwnedFd {
        let memfd = memfd::make().unwrap();
        ftruncate(&memfd, len).unwrap();
        pwrite(&memfd, bytemuck::bytes_of(&identity), 0).unwrap();
        ftruncate(&memfd, len).unwrap();
        fcntl_add_seals(&memfd, seals).unwrap();
        memfd
    }

    fn honest() -> Identity {
        Identity::new(SHAPE)
    }

    fn attach(identity: Identity) -> Result<Segment, AttachError> {
        Segment::attach(forge(identity, Identity::segment_len(CAPACITY), SEALS))
    }

    fn refusal(attached: Result<Segment, AttachError>) -> AttachError {
        attached.map(drop).unwrap_err()
    }

    #[test]
    fn what_was_created_can_be_attached() {
        let created = Segment::create(SHAPE).unwrap();
        let memfd = created.memfd().try_clone_to_owned().unwrap();
        let attached = Segment::attach(memfd).unwrap();
        assert_eq!(attached.shape(), SHAPE);
        // One memory: what is written here is read there.
        created.header().rings[1].released.store(7, Ordering::Relaxed);
        assert_eq!(attached.header().rings[1].released.load(Ordering::Relaxed), 7);
        assert!(attach(honest()).is_ok());
    }

    #[test]
    fn a_segment_can_neither_shrink_nor_grow_nor_be_unsealed() {
        let segment = Segment::create(SHAPE).unwrap();
        for len in [0, HEADER_LEN, Identity::segment_len(CAPACITY) + 1] {
            assert_eq!(ftruncate(segment.memfd(), len), Err(Errno::PERM));
        }
        assert_eq!(fcntl_add_seals(segment.memfd(), SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn each_missing_seal_is_refused() {
        let len = Identity::segment_len(CAPACITY);
        let shrink_and_grow = SealFlags::SHRINK.union(SealFlags::GROW);
        for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW, shrink_and_grow] {
            let error = refusal(Segment::attach(forge(honest(), len, seals)));
            assert!(matches!(error, AttachError::NotSealed), "{seals:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_memfd_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(refusal(Segment::attach(file.into())), AttachError::NotSealed));
    }

    #[test]
    fn memory_that_is_no_segment_is_refused() {
        let mut identity = honest();
        identity.magic = *b"ZEROPORD";
        assert!(matches!(refusal(attach(identity)), AttachError::NotASegment));
        let zeros = bytemuck::Zeroable::zeroed();
        assert!(matches!(refusal(attach(zeros)), AttachError::NotASegment));
    }

    #[test]
    fn another_version_is_refused_and_both_are_named() {
        for theirs in [VERSION + 1, 0, u32::MAX] {
            let mut identity = honest();
            identity.version = theirs;
            let error = refusal(attach(identity));
            let text = error.to_string();
            assert!(
                matches!(error, AttachError::Version { ours: VERSION, theirs: found } if found == theirs)
            );
            assert!(text.contains(&format!("version {theirs}")), "{text}");
            assert!(text.contains(&format!("version {VERSION}")), "{text}");
        }
    }

    #[test]
    fn unknown_features_are_refused_and_both_sides_named() {
        for bit in 8..64 {
            let theirs = rkyv_format() | 1 << bit;
            let mut identity = honest();
            identity.features = theirs;
            let error = refusal(attach(identity));
            let text = error.to_string();
            assert!(
                matches!(error, AttachError::Features { theirs: found, .. } if found == theirs)
            );
            assert!(text.contains(&format!("{theirs:#x}")), "{text}");
            assert!(text.contains(&format!("{:#x}", rkyv_format())), "{text}");
        }
    }

    #[test]
    fn another_archive_format_is_refused_but_none_is_not() {
        let mut identity = honest();
        identity.features = rkyv_format() ^ 0x8;
        let differs = attach(identity);
        // Without rkyv there are no archives to misunderstand.
        assert_eq!(differs.is_err(), rkyv_format() != 0);
        identity.features = 0;
        assert!(attach(identity).is_ok());
    }

    #[test]
    fn illegal_capacities_are_refused_and_named() {
        for illegal in [0, 1, MIN_CAPACITY - 1, MIN_CAPACITY / 2, 3 << 12, 2 * MAX_CAPACITY, !0] {
            for capacity in [[illegal, MIN_CAPACITY], [MIN_CAPACITY, illegal]] {
                let mut identity = honest();
                identity.capacity = capacity;
                let error = refusal(attach(identity));
                assert!(matches!(error, AttachError::Capacity { found } if found == capacity));
                assert!(error.to_string().contains(&illegal.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn a_size_that_the_capacities_do_not_ask_for_is_refused() {
        let right = Identity::segment_len(CAPACITY);
        for len in [right - 1, right + 1, right - MIN_CAPACITY, right + MIN_CAPACITY] {
            let error = refusal(Segment::attach(forge(honest(), len, SEALS)));
            assert!(
                matches!(error, AttachError::Size { found, expected: Some(asked) }
                    if found == len && asked == right),
                "{error}"
            );
        }
        // Too short for any segment, or for its own header.
        for len in [0, 64, HEADER_LEN, HEADER_LEN + MIN_CAPACITY - 1] {
            let error = refusal(Segment::attach(forge(honest(), len, SEALS)));
            assert!(matches!(error, AttachError::Size { found, expected: None } if found == len));
        }
        let mut identity = honest();
        identity.header_len = 8192;
        assert!(matches!(refusal(attach(identity)), AttachError::Size { .. }));
    }

    #[test]
    fn only_powers_of_two_from_4_kib_to_1_gib_are_legal() {
        for shift in 0..64 {
            let capacity = 1u64 << shift;
            assert_eq!(is_legal_capacity(capacity), (12..=30).contains(&shift));
            assert!(shift < 2 || !is_legal_capacity(capacity + 1));
        }
    }
}
