//! `zp_channel_options`.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::time::Duration;

use zeroport::{ChannelOptions, Trust, WaitStrategy};

use crate::boundary::{item, items};
use crate::status::{Failure, Status};

/// `zp_channel_options`: how a channel is made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct COptions {
    /// Bytes of the caller's struct.
    pub size: usize,
    /// `ZP_TRUST_…`.
    pub trust: u32,
    /// `ZP_WAIT_…`.
    pub wait: u32,
    /// Bytes of the ring in each direction; 0 for the usual.
    pub capacity: [u64; 2],
    /// Bytes that may wait beyond it; [`USUAL_LIMIT`] for the usual.
    pub limit: [u64; 2],
    /// Whether memory is never used again.
    pub cold: u32,
    /// 0.
    pub reserved: u32,
}

/// `ZP_LIMIT_USUAL`.
pub const USUAL_LIMIT: u64 = u64::MAX;
/// `ZP_TRUST_USUAL`, `ZP_TRUST_TRUSTED`, `ZP_TRUST_UNTRUSTED`.
pub const TRUSTS: [u32; 3] = [0, 1, 2];
/// `ZP_WAIT_ADAPTIVE`, `ZP_WAIT_SLEEP`, `ZP_WAIT_SPIN`.
pub const WAITS: [u32; 3] = [0, 1, 2];

const USUAL_CAPACITY: u64 = 64 << 10;
const USUAL_BEYOND: u64 = 256 << 20;

/// What a program says of a channel; null is the usual.
///
/// # Safety
///
/// A1: `options` is null, or has as many bytes as it says.
pub(crate) unsafe fn options(options: *const COptions) -> Result<ChannelOptions, Failure> {
    if options.is_null() {
        return Ok(ChannelOptions::new());
    }
    // SAFETY: A1: it begins with its size.
    let size = *unsafe { item(options.cast::<usize>()) }?;
    let known = size_of::<COptions>();
    if size < known {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1.
    let bytes = unsafe { items(options.cast::<u8>(), size) }?;
    // What a later version has added, this one can do without only if it is not used.
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1: it is as large as we know it.
    from_c(unsafe { item(options) }?)
}

fn from_c(given: &COptions) -> Result<ChannelOptions, Failure> {
    let [capacity, limit] =
        [(given.capacity, 0, USUAL_CAPACITY), (given.limit, USUAL_LIMIT, USUAL_BEYOND)]
            .map(|(given, usual, value)| given.map(|it| if it == usual { value } else { it }));
    let mut options = ChannelOptions::new()
        .capacities(capacity[0], capacity[1])
        .limits(limit[0], limit[1])
        .wait_strategy(strategy(given.wait)?);
    if given.reserved != 0 {
        return Err(Status::BadArgument.into());
    }
    options = match given.trust {
        0 => options,
        1 => options.trust(Trust::Trusted),
        2 => options.trust(Trust::Untrusted),
        _ => return Err(Status::BadArgument.into()),
    };
    match given.cold {
        0 => Ok(options),
        1 => Ok(options.warm(false)),
        _ => Err(Status::BadArgument.into()),
    }
}

/// A `ZP_WAIT_…`.
pub(crate) fn strategy(number: u32) -> Result<WaitStrategy, Failure> {
    match number {
        0 => Ok(WaitStrategy::Adaptive),
        1 => Ok(WaitStrategy::Sleep),
        2 => Ok(WaitStrategy::Spin),
        _ => Err(Status::BadArgument.into()),
    }
}

#[inline(always)]
pub(crate) fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

/// `uint32_t zp_tag_of_name(const char *name)`: the tag that Rust gives a type that it serialises. 0 for null.
///
/// # Safety
///
/// A1: `name` is null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_tag_of_name(name: *const c_char) -> u32 {
    // SAFETY: A1.
    let name = unsafe { crate::boundary::text(name) };
    name.map_or(0, |name| zeroport::tag_of_name(&name.to_string_lossy()))
}

/// `uint32_t zp_tag_of_plain_data(…)`: the tag that Rust gives a plain type. 0 for null.
///
/// # Safety
///
/// A1: `name` is null or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_tag_of_plain_data(name: *const c_char, size: u64, align: u64) -> u32 {
    // SAFETY: A1.
    let name = unsafe { crate::boundary::text(name) };
    name.map_or(0, |name| zeroport::tag_of_plain_data(&name.to_string_lossy(), size, align))
}
