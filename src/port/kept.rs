//! The blocks that a reader keeps, so that its poster need not send them again ([`crate::warm`]).

use std::cell::RefCell;
use std::sync::Arc;

use crate::ticket::MAX_BLOCKS;
use crate::warm::Reading;

use super::large::MAX_WARM;

/// Blocks that came, in this order.
#[derive(Debug, Default)]
pub(super) struct Kept {
    blocks: RefCell<Vec<Arc<Reading>>>,
}

impl Kept {
    /// For who takes over those of a former holder.
    pub(super) fn new(blocks: Vec<Reading>) -> Self {
        Self { blocks: RefCell::new(blocks.into_iter().map(Arc::new).collect()) }
    }

    /// All of them, for the next holder.
    pub(super) fn all(&self) -> Vec<Arc<Reading>> {
        self.blocks.borrow().clone()
    }

    /// The one that is this file.
    pub(super) fn find(&self, file: u64) -> Option<Arc<Reading>> {
        self.blocks.borrow().iter().find(|block| block.file() == file).cloned()
    }

    /// Keeps a block of which there is a message, and forgets what is too much. The poster keeps no more; but
    /// what it has claimed it may name, so that stays.
    pub(super) fn keep(&self, block: Arc<Reading>) {
        let mut blocks = self.blocks.borrow_mut();
        blocks.push(block);
        let bytes = |all: &[Arc<Reading>]| all.iter().map(|one| one.capacity()).sum::<u64>();
        while blocks.len() > MAX_BLOCKS || bytes(&blocks) > MAX_WARM {
            let Some(place) = blocks.iter().position(forget) else { break };
            blocks.remove(place);
        }
    }

    /// Forgets all that the poster has not claimed, and gives its memory back to the kernel.
    pub(super) fn trim(&self) {
        self.blocks.borrow_mut().retain(|block| !forget(block));
    }

    /// Lets go of all: nothing more will come.
    pub(super) fn let_go(&self) {
        self.blocks.take();
    }
}

/// Whether a block need not be kept. One of which there is a message is forgotten with that.
fn forget(block: &Arc<Reading>) -> bool {
    Arc::strong_count(block) > 1 || block.trim()
}
