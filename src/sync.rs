//! The only door to atomics, fences, locks of the modelled layers, and spinning: the standard ones, or loom's under its models.

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence},
    sync::{Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
};

/// loom runs each thread's steps in program order: there is no compiler to hold back. What is left is
/// a place where the barrier of another thread may strike.
#[cfg(loom)]
pub(crate) fn compiler_fence(_: Ordering) {
    AT_COMPILER_FENCE.with(|at| at.get()());
}

#[cfg(loom)]
loom::thread_local! {
    /// What a model has this thread do at each [`compiler_fence`].
    pub(crate) static AT_COMPILER_FENCE: std::cell::Cell<fn()> = std::cell::Cell::new(|| {});
}
