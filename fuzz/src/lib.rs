//! What the fuzz targets do with their input. They are functions, so that `tests/regressions.rs` can
//! run every kept input again without a fuzzer.

mod attach;
mod c_calls;
mod carrier;
mod envelope;
mod hostile;
mod operations;
mod payload;
mod queue;
mod record;

pub use attach::attach;
pub use c_calls::c_calls;
pub use c_calls::stories::STORIES;
pub use carrier::carrier;
pub use envelope::envelope;
pub use hostile::{hostile, hostile_race};
pub use operations::operations;
pub use payload::payload;
pub use queue::queue;
pub use record::record;

/// What a target does with one input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("attach", attach),
    ("c_calls", c_calls),
    ("carrier", carrier),
    ("envelope", envelope),
    ("hostile", hostile),
    ("hostile_race", hostile_race),
    ("operations", operations),
    ("payload", payload),
    ("queue", queue),
    ("record", record),
];

/// Reads the whole input as a script. Every input is one.
fn script<'a, T: arbitrary::Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(arbitrary::Unstructured::new(data)).ok()
}
