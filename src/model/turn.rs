//! REUSE: memory that is used again is in one side's hands at a time, and warm when its poster has it.
#![allow(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::sync::AtomicU32;
use crate::turn::{Claimed, claim, forget, give_up, is_free, let_go, send, trim};

/// A block: the word, and the payload, of which loom reports if both sides use it at once.
struct Block {
    word: AtomicU32,
    payload: UnsafeCell<Payload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Of(u64),
    /// The kernel has the memory.
    Gone,
}

// SAFETY: the payload is used by who has the turn, and loom checks that it is.
unsafe impl Sync for Block {}
// SAFETY: as above.
unsafe impl Send for Block {}

impl Block {
    /// One that was sent with 1 in it. (Its reader learns of that from a record.)
    fn sent() -> Arc<Self> {
        let block = Self { word: AtomicU32::new(0), payload: UnsafeCell::new(Payload::Of(1)) };
        send(&block.word);
        Arc::new(block)
    }

    fn read(&self) -> Payload {
        // SAFETY: who reads has the turn; loom checks it.
        self.payload.with(|payload| unsafe { *payload })
    }

    fn write(&self, payload: Payload) {
        // SAFETY: who writes has the turn; loom checks it.
        self.payload.with_mut(|place| unsafe { *place = payload });
    }

    /// The poster's part: takes the block if that is free, and fills it.
    fn fill(&self, value: u64) -> bool {
        let warm_up = || {
            self.write(Payload::Of(0));
            true
        };
        let is_ours = claim(&self.word, warm_up).is_some();
        if is_ours {
            assert_ne!(self.read(), Payload::Gone, "it has memory");
            self.write(Payload::Of(value));
        }
        is_ours
    }

    fn trim(&self) -> bool {
        trim(&self.word, || self.write(Payload::Gone))
    }
}

#[test]
fn filled_after_it_was_let_go() {
    check(None, || {
        let block = Block::sent();
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || theirs.fill(2));
        assert_eq!(block.read(), Payload::Of(1));
        let_go(&block.word);
        if !posting.join().unwrap() {
            assert!(is_free(&block.word));
            assert!(block.fill(2), "it is free");
        }
        assert!(!is_free(&block.word));
        assert_eq!(block.read(), Payload::Of(2));
    });
}

#[test]
fn filled_or_trimmed() {
    check(None, || {
        let block = Block::sent();
        let_go(&block.word);
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || theirs.fill(2) || theirs.fill(2));
        block.trim();
        if !posting.join().unwrap() {
            assert!(block.fill(2), "it is cold");
        }
        assert_eq!(block.read(), Payload::Of(2));
        block.trim();
        assert_eq!(block.read(), Payload::Of(2), "it is the poster's");
    });
}

#[test]
fn what_cannot_be_warmed_up_stays_cold() {
    check(None, || {
        let block = Block::sent();
        let_go(&block.word);
        block.trim();
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || assert_eq!(claim(&theirs.word, || false), None));
        // It is cold already.
        block.trim();
        posting.join().unwrap();
        assert!(block.fill(2));
        assert_eq!(block.read(), Payload::Of(2));
    });
}

#[test]
fn what_the_poster_claims_as_kept_is_not_forgotten() {
    check(None, || {
        let block = Block::sent();
        let_go(&block.word);
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || claim(&theirs.word, || true));
        let is_forgotten = block.trim();
        let claimed = posting.join().unwrap();
        assert_ne!((is_forgotten, claimed), (true, Some(Claimed::Kept)));
        assert!(is_forgotten || claimed == Some(Claimed::Kept));
    });
}

#[test]
fn forgotten_when_it_is_let_go() {
    check(None, || {
        let block = Block::sent();
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || theirs.fill(2));
        assert_eq!(block.read(), Payload::Of(1));
        forget(&block.word, || block.write(Payload::Gone));
        if !posting.join().unwrap() {
            assert!(block.fill(2), "it is cold");
        }
        assert_eq!(block.read(), Payload::Of(2));
    });
}

#[test]
fn what_the_poster_gives_up_can_be_forgotten() {
    check(None, || {
        let block = Block::sent();
        let_go(&block.word);
        let theirs = Arc::clone(&block);
        let posting = thread::spawn(move || {
            theirs.fill(2);
            give_up(&theirs.word);
        });
        block.trim();
        posting.join().unwrap();
        block.trim();
        assert!(block.fill(3), "it is cold");
        assert_eq!(block.read(), Payload::Of(3));
    });
}
