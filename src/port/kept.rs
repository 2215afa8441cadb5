//! The blocks that a reader keeps, so that its poster need not send them again ([`crate::warm`]).
//!
//! A reader that does not trust its poster keeps none. But one that has come to be so on its way has those of
//! the former holder, which the poster may name: it has each copied once, and does not hand it back.

use std::cell::RefCell;
use std::sync::Arc;

use crate::ticket::MAX_BLOCKS;
use crate::warm::Reading;

use super::Trust;
use super::large::MAX_WARM;

/// Blocks that came, in this order.
#[derive(Debug)]
pub(super) struct Kept {
    trust: Trust,
    blocks: RefCell<Vec<Arc<Reading>>>,
}

impl Kept {
    /// For who takes over those of a former holder.
    pub(super) fn new(trust: Trust, blocks: Vec<Reading>) -> Self {
        Self { trust, blocks: RefCell::new(blocks.into_iter().map(Arc::new).collect()) }
    }

    /// All of them, for the next holder.
    pub(super) fn all(&self) -> Vec<Arc<Reading>> {
        self.blocks.borrow().clone()
    }

    /// One of them.
    pub(super) fn find(&self, is_it: impl Fn(&Reading) -> bool) -> Option<Arc<Reading>> {
        self.blocks.borrow().iter().find(|block| is_it(block)).cloned()
    }

    /// Keeps a block of which there is a message, and forgets what is too much. The poster keeps no more; but
    /// what it has claimed it may name, so that stays.
    pub(super) fn keep(&self, block: Arc<Reading>) {
        let mut blocks = self.blocks.borrow_mut();
        blocks.push(block);
        while blocks.len() > MAX_BLOCKS || bytes(&blocks) > MAX_WARM {
            let Some(place) = blocks.iter().position(forget) else { break };
            blocks.remove(place);
        }
    }

    /// Lets a block go that will not be named again.
    pub(super) fn remove(&self, block: &Arc<Reading>) {
        self.blocks.borrow_mut().retain(|kept| !Arc::ptr_eq(kept, block));
    }

    /// Forgets all that the poster has not claimed, and gives its memory back to the kernel. Whether there
    /// was any.
    pub(super) fn trim(&self) -> bool {
        if self.trust == Trust::Untrusted {
            return false;
        }
        let mut blocks = self.blocks.borrow_mut();
        let before = blocks.len();
        blocks.retain(|block| !forget(block));
        blocks.len() < before
    }

    /// Whether there is something to be trimmed, now or later.
    pub(super) fn can_be_trimmed(&self) -> bool {
        self.trust == Trust::Trusted && !self.blocks.borrow().is_empty()
    }

    /// Lets go of all: nothing more will come.
    pub(super) fn let_go(&self) {
        self.blocks.take();
    }
}

fn bytes(blocks: &[Arc<Reading>]) -> u64 {
    blocks.iter().map(|block| block.capacity()).fold(0, u64::saturating_add)
}

/// Whether a block need not be kept. One of which there is a message is forgotten with that.
fn forget(block: &Arc<Reading>) -> bool {
    Arc::strong_count(block) > 1 || block.trim()
}
