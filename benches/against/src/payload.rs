//! Payloads: written whole and checked whole, by the same code for all peers.
//!
//! No two words of a payload are alike, and each changes with every step, so that a torn or stale one shows.

/// Bytes of a word. Lengths are multiples of it.
pub const WORD: usize = size_of::<u64>();

/// The small payload of step `step`.
#[inline(always)]
pub fn words<const N: usize>(step: u64) -> [u64; N] {
    std::array::from_fn(|index| step.wrapping_add(index as u64))
}

/// Writes the small payload of step `step`.
#[inline(always)]
pub fn fill_words<const N: usize>(payload: &mut [u64; N], step: u64) {
    for (index, word) in payload.iter_mut().enumerate() {
        *word = step.wrapping_add(index as u64);
    }
}

/// Checks every word of a small payload.
///
/// # Panics
///
/// If one is wrong.
#[inline(always)]
pub fn check_words<const N: usize>(found: &[u64; N], step: u64) {
    let difference = found
        .iter()
        .enumerate()
        .fold(0, |difference, (index, word)| difference | (word ^ step.wrapping_add(index as u64)));
    assert_eq!(difference, 0, "a wrong payload at step {step}");
}

/// Writes all of a large payload.
///
/// Never inlined, so that no peer gets a better compiled one than another.
#[inline(never)]
pub fn fill(bytes: &mut [u8], step: u64) {
    for (index, word) in bytes.chunks_exact_mut(WORD).enumerate() {
        word.copy_from_slice(&step.wrapping_add(index as u64).to_ne_bytes());
    }
}

/// Checks every word of a large payload. Words that differ are only counted on the way, so that this runs as
/// fast as memory can be read.
///
/// # Panics
///
/// If one is wrong.
#[inline(never)]
pub fn check(bytes: &[u8], step: u64) {
    let mut difference = 0;
    for (index, word) in bytes.as_chunks::<WORD>().0.iter().enumerate() {
        difference |= u64::from_ne_bytes(*word) ^ step.wrapping_add(index as u64);
    }
    assert_eq!(difference, 0, "a wrong payload at step {step}");
}

/// As [`fill`], with the time `nanos` in place of the first word.
pub fn fill_stamped(bytes: &mut [u8], step: u64, nanos: u64) {
    fill(bytes, step);
    bytes[..WORD].copy_from_slice(&nanos.to_ne_bytes());
}

/// As [`check`], and gives the time back.
pub fn check_stamped(bytes: &[u8], step: u64) -> u64 {
    let (stamp, rest) = bytes.split_first_chunk().expect("a stamp");
    check(rest, step.wrapping_add(1));
    u64::from_ne_bytes(*stamp)
}
