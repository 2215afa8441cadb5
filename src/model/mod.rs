//! loom models of the ring, of the rings in a row, of memory that is used again, of sleeping and waking, of
//! the epochs, of the ends and of who holds a port. Each names the pairs of orderings that it stands for
//! (`ci/weaken` weakens them one by one and sees it fail).
//!
//! loom runs every order of the threads' steps, and every value that a load may see. It differs from
//! the memory model of the language. A `SeqCst` fence *synchronises* with every later one, so a fence
//! may hide a missing Release or Acquire: therefore the models of the ring and of the epochs have no
//! fences. No load sees a store that comes later: that a reader is done with bytes before they are
//! written again is checked through the cells of [`Heap`]. And loom does not know that nothing comes
//! between what a read-modify-write reads and what it writes, so it allows more there than a machine.

#![expect(clippy::unreachable)] // what a model never does, it must not do

mod barrier;
mod bells;
mod ends;
mod epoch;
mod halves;
mod heap;
mod queue;
mod ring;
mod set;
mod task;
mod tenure;
mod turn;
mod wake;

use bells::Bells;
use heap::Heap;

/// Runs a model with at most so many forced switches between threads in each run; what threads do
/// when they end or wait does not count. Without a bound, every run there is.
fn check(max_preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = max_preemptions;
    builder.check(model);
}
