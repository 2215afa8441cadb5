//! Delivery: what is posted on one port is received on the other, once and whole, whatever kind of
//! payload it is and whatever either side does meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::thread;

use bytemuck::{Pod, Zeroable};
use rustix::process::Signal;
use support::{Setup, alone, conversation, doomed, in_all_ways, in_both_queues, pattern};
use zeroport::{CloseReason, MessageChannel, MessagePort, PeerState, PostError, RecvError, Tagged};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);

#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize)]
struct Question {
    number: u64,
    words: Vec<String>,
    hint: Option<Box<str>>,
}

impl Tagged for Question {
    const NAME: &'static str = "test.Question";
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Answer(u64);

impl Tagged for Answer {
    const NAME: &'static str = "test.Answer";
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
struct Point {
    x: f64,
    y: f64,
}

impl Tagged for Point {
    const NAME: &'static str = "test.Point";
}

fn channel() -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    (port1, port2)
}

#[test]
fn a_channel_has_two_live_ends() {
    let (port1, port2) = channel();
    for port in [&port1, &port2] {
        assert_eq!(port.peer_state(), PeerState::Open);
        assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
    }
    let (other1, other2) = channel();
    port1.post_bytes(b"to port2").unwrap();
    port2.post_bytes(b"to port1").unwrap();
    for other in [&other1, &other2] {
        assert_eq!(other.try_recv().unwrap_err(), RecvError::Empty, "another channel");
    }
    assert_eq!(port1.recv().unwrap().bytes(), b"to port1");
    assert_eq!(port2.recv().unwrap().bytes(), b"to port2");
}

conversation!(
    a_message_goes_to_the_other_end_only,
    |port| {
        port.post_bytes(b"for you").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"seen");
        // The other end has taken it; had it come to this end, it would be here by now.
        assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
        port.post_bytes(b"checked").unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
    |port| {
        assert_eq!(port.recv().unwrap().bytes(), b"for you");
        port.post_bytes(b"seen").unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"checked");
    }
);

in_all_ways!(values_arrive_as_posted, ask_questions, answer_questions);

fn question(number: u64) -> Question {
    let words = (0..number % 7).map(|word| format!("word {word} of {number}")).collect();
    Question { number, words, hint: number.is_multiple_of(3).then(|| "three".into()) }
}

fn ask_questions(port: MessagePort) {
    for number in 0..500 {
        port.post(&question(number)).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.get::<Answer>().unwrap().0, number * 2);
    }
}

fn answer_questions(port: MessagePort) {
    for number in 0..500 {
        let message = port.recv().unwrap();
        let (asked, expected) = (message.get::<Question>().unwrap(), question(number));
        assert_eq!(asked.number, number);
        assert_eq!(asked.words.as_slice(), expected.words.as_slice());
        assert_eq!(asked.hint.as_ref().map(|hint| &**hint), expected.hint.as_deref());
        // The question is held while its answer is posted.
        port.post(&Answer(asked.number.to_native() * 2)).unwrap();
    }
    assert_eq!(port.recv().unwrap_err(), CLOSED);
}

in_all_ways!(
    plain_data_and_bytes_arrive_as_posted,
    |port| {
        for number in 0..300u32 {
            let at = f64::from(number);
            port.post_pod(&Point { x: at, y: -at }).unwrap();
            port.post_pod_slice(&vec![number; number as usize]).unwrap();
            port.post_bytes(&pattern(number.into(), number as usize)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..300u32 {
            let at = f64::from(number);
            assert_eq!(port.recv().unwrap().pod::<Point>().unwrap(), &Point { x: at, y: -at });
            let expected = vec![number; number as usize];
            assert_eq!(port.recv().unwrap().pod_slice::<u32>().unwrap(), expected);
            assert_eq!(port.recv().unwrap().bytes(), pattern(number.into(), number as usize));
        }
        port.post_bytes(b"all").unwrap();
    }
);

in_all_ways!(
    loans_arrive_as_filled,
    |port| {
        for number in 0..500 {
            let len = number as usize % 1000;
            // More is reserved than is published in the end.
            let mut loan = port.reserve(len + number as usize % 40).unwrap();
            loan[..len].copy_from_slice(&pattern(number, len));
            loan.publish(len).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..500 {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, number as usize % 1000));
        }
        port.post_bytes(b"all").unwrap();
    }
);

// A batch several times as large as the ring: its posters must not wait for a reader that sees
// nothing of it.
in_both_queues!(
    batches_larger_than_the_ring_arrive,
    Setup::new().capacity(4096),
    |port| {
        let messages: Vec<_> =
            (0..1000).map(|number| pattern(number, number as usize % 90)).collect();
        assert_eq!(port.post_all_bytes(&messages).unwrap(), 1000);
        let values: Vec<_> = (0..1000).map(question).collect();
        assert_eq!(port.post_all(&values).unwrap(), 1000);
        let points: Vec<_> = (0..1000u16).map(|at| Point { x: at.into(), y: 0.0 }).collect();
        assert_eq!(port.post_all_pod(&points).unwrap(), 1000);
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..1000 {
            assert_eq!(port.recv().unwrap().bytes(), pattern(number, number as usize % 90));
        }
        for number in 0..1000 {
            assert_eq!(port.recv().unwrap().get::<Question>().unwrap().number, number);
        }
        for at in 0..1000u16 {
            assert_eq!(port.recv().unwrap().pod::<Point>().unwrap().x, f64::from(at));
        }
        port.post_bytes(b"all").unwrap();
    }
);

in_both_queues!(
    drained_messages_are_the_same_ones,
    Setup::new().capacity(4096),
    |port| {
        let mut next = 0;
        while next < 5000 {
            for message in port.drain() {
                assert_eq!(message.bytes(), pattern(next, next as usize % 200));
                next += 1;
            }
            thread::yield_now();
        }
        port.post_bytes(b"all").unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
    |port| {
        for number in 0..5000 {
            port.post_bytes(&pattern(number, number as usize % 200)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    }
);

#[test]
fn a_batch_appears_at_once() {
    let (port1, port2) = channel();
    let messages = (0..3u8).map(|number| {
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "before the batch is whole");
        [number]
    });
    assert_eq!(port1.post_all_bytes(messages).unwrap(), 3);
    let received: Vec<_> = port2.drain().map(|message| message.bytes().to_vec()).collect();
    assert_eq!(received, [[0], [1], [2]]);
}

#[test]
fn a_batch_that_ends_early_says_how_far_it_came() {
    let (port1, port2) = channel();
    let mut loan = None;
    let messages = ["one", "two", "three", "four"].into_iter().inspect(|message| {
        if *message == "three" {
            loan = Some(port1.reserve(1).unwrap());
        }
    });
    let error = port1.post_all_bytes(messages).unwrap_err();
    assert_eq!(error.posted, 2);
    assert!(matches!(error.source, PostError::Busy), "{error}");
    drop(loan);
    port1.post_bytes(b"next").unwrap();
    let received: Vec<_> = port2.drain().map(|message| message.bytes().to_vec()).collect();
    assert_eq!(received, [&b"one"[..], b"two", b"next"]);
}

conversation!(
    an_empty_message_is_a_message,
    |port| {
        port.post_bytes(b"").unwrap();
        port.post_pod_slice::<u64>(&[]).unwrap();
        port.reserve(100).unwrap().publish(0).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"");
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
    |port| {
        assert_eq!(port.recv().unwrap().bytes(), b"");
        assert_eq!(port.recv().unwrap().pod_slice::<u64>().unwrap().len(), 0);
        assert_eq!(port.recv().unwrap().bytes(), b"");
        // One polling call that finds nothing, and one that finds an empty message.
        assert_eq!(port.try_recv().unwrap_err(), RecvError::Empty);
        port.post_bytes(b"").unwrap();
    }
);

in_both_queues!(
    a_payload_is_what_it_was_when_it_was_posted,
    Setup::new().capacity(4096),
    |port| {
        let mut buffer = [0u8; 1000];
        for number in 0..200u8 {
            buffer.fill(number);
            port.post_bytes(&buffer).unwrap();
            buffer.fill(0xee);
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..200u8 {
            assert_eq!(port.recv().unwrap().bytes(), [number; 1000]);
        }
        port.post_bytes(b"all").unwrap();
    }
);

// Both post 10 000 messages before they read the last answer: each direction is its own ring.
in_all_ways!(both_directions_at_once, talk_both_ways, talk_both_ways);

fn talk_both_ways(port: MessagePort) {
    let (sender, receiver) = port.split();
    let posting = thread::spawn(move || {
        for number in 0..10_000u64 {
            sender.post_pod(&number).unwrap();
        }
        sender
    });
    for number in 0..10_000u64 {
        assert_eq!(*receiver.recv().unwrap().pod::<u64>().unwrap(), number);
    }
    let sender = posting.join().unwrap();
    let port = MessagePort::join(sender, receiver).unwrap();
    // The other end may be gone already.
    let nothing = port.try_recv().map(drop).unwrap_err();
    assert!(matches!(nothing, RecvError::Empty | CLOSED), "{nothing}");
}

in_both_queues!(
    several_messages_may_be_held_and_dropped_in_any_order,
    Setup::new().capacity(4096),
    |port| {
        for number in 0..3000 {
            port.post_bytes(&pattern(number, number as usize % 120)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let mut held = Vec::new();
        for number in 0..3000u64 {
            held.push((number, port.recv().unwrap()));
            // Seven at most; now the oldest goes first, now the youngest, now one between.
            if held.len() == 7 {
                held.swap_remove((number as usize * 5) % 7);
                held.swap_remove((number as usize * 3) % 6);
            }
            for (number, message) in &held {
                assert_eq!(message.bytes(), pattern(*number, *number as usize % 120));
            }
        }
        port.post_bytes(b"all").unwrap();
    }
);

#[test]
fn room_comes_back_in_the_order_of_posting() {
    let MessageChannel { port1, port2 } = Setup::new().capacity(4096).limit(0).open();
    let mut posted = 0u64;
    while port1.try_post_bytes(&pattern(posted, 100)).is_ok() {
        posted += 1;
    }
    let mut held: Vec<_> = (0..posted).map(|_| port2.recv().unwrap()).collect();
    let full = || matches!(port1.try_post_bytes(&[0; 100]), Err(PostError::Full { len: 100 }));
    // All but the oldest are dropped, from the youngest on: nothing comes back.
    while held.len() > 1 {
        held.pop();
        assert!(full(), "room behind a message that is still held");
    }
    assert_eq!(held[0].bytes(), pattern(0, 100));
    held.clear();
    // Then all of it comes back at once.
    for _ in 0..posted {
        port1.try_post_bytes(&[0; 100]).unwrap();
    }
    assert!(full());
}

#[test]
fn a_copied_message_holds_no_room() {
    let setup = Setup::new().untrusted().capacity(4096).limit(0);
    let MessageChannel { port1, port2 } = setup.open();
    let held: Vec<_> = (0..200u64)
        .map(|number| {
            port1.try_post_bytes(&pattern(number, 100)).unwrap();
            port2.recv().unwrap()
        })
        .collect();
    for (number, message) in held.iter().enumerate() {
        assert_eq!(message.bytes(), pattern(number as u64, 100));
    }
}

#[test]
fn room_that_is_owed_goes_back_before_the_reader_waits() {
    let MessageChannel { port1, port2 } = Setup::new().capacity(4096).limit(0).open();
    // So many posts without a wait that the reader may owe room.
    for number in 0..1000 {
        port1.post_bytes(&pattern(number, 100)).unwrap();
        port2.recv().unwrap();
    }
    port1.post_bytes(&[1; 100]).unwrap();
    port1.post_bytes(&[2; 100]).unwrap();
    drop(port2.recv().unwrap());
    let held = port2.recv().unwrap();
    assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
    // All of the ring but what is held, and the room of headers.
    let record = |len: usize| 16 + len.next_multiple_of(16);
    let mut free = 4096 - record(100) - 16;
    let mut posted = 0;
    while port1.try_post_bytes(&[]).is_ok() {
        posted += 1;
        free -= record(0);
    }
    assert_eq!(free, 0, "{posted} empty messages fitted");
    assert_eq!(held.bytes(), [2; 100]);
}

#[test]
fn a_forgotten_message_keeps_its_room_and_harms_nothing() {
    let MessageChannel { port1, port2 } = Setup::new().capacity(4096).limit(0).open();
    port1.post_bytes(b"forgotten").unwrap();
    std::mem::forget(port2.recv().unwrap());
    let mut posted = 0;
    while port1.try_post_bytes(&[7; 100]).is_ok() {
        assert_eq!(port2.recv().unwrap().bytes(), [7; 100]);
        posted += 1;
    }
    // What is left of 4096 bytes beside the forgotten 32, in records of 128.
    assert_eq!(posted, 31);
    drop(port1);
    assert_eq!(port2.recv().unwrap_err(), CLOSED);
}

#[test]
fn a_forgotten_message_does_not_stop_a_queue_that_grows() {
    for setup in [Setup::new(), Setup::new().untrusted()] {
        let MessageChannel { port1, port2 } = setup.capacity(4096).open();
        // One in the first ring, and one in a later one.
        for round in 0..2u64 {
            port1.try_post_bytes(b"forgotten").unwrap();
            std::mem::forget(port2.recv().unwrap());
            for burst in [1, 100, 2000] {
                for number in 0..burst {
                    port1.try_post_bytes(&pattern(number, 100)).unwrap();
                }
                for number in 0..burst {
                    let message = port2.recv().unwrap();
                    assert_eq!(message.bytes(), pattern(number, 100), "round {round}");
                }
            }
        }
        drop(port1);
        assert_eq!(port2.recv().unwrap_err(), CLOSED);
    }
}

#[test]
fn messages_wait_for_whoever_listens_later() {
    let (port1, port2) = channel();
    for number in 0..100u64 {
        port1.post_pod(&number).unwrap();
    }
    let listening = thread::spawn(move || {
        for number in 0..100u64 {
            assert_eq!(*port2.recv().unwrap().pod::<u64>().unwrap(), number);
        }
        assert_eq!(port2.recv().unwrap_err(), CLOSED);
    });
    drop(port1);
    listening.join().unwrap();
}

doomed!(
    a_post_does_not_wait_for_a_stopped_receiver,
    |port, mut peer| {
        assert_eq!(port.recv().unwrap().bytes(), b"here");
        peer.signal(Signal::STOP);
        for number in 0..500u64 {
            port.post_pod(&number).unwrap();
        }
        peer.signal(Signal::CONT);
        assert_eq!(port.recv().unwrap().bytes(), b"all");
        peer.expect_done();
    },
    |port| {
        port.post_bytes(b"here").unwrap();
        for number in 0..500u64 {
            assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), number);
        }
        port.post_bytes(b"all").unwrap();
    }
);

// A sender is not `Sync`; threads share it behind a lock of their own.
in_both_queues!(
    threads_behind_a_lock_keep_their_own_order,
    Setup::new().capacity(4096),
    |port| {
        let (sender, receiver) = port.split();
        let sender = Arc::new(Mutex::new(sender));
        let threads: Vec<_> = (0..3u64)
            .map(|thread| {
                let sender = Arc::clone(&sender);
                thread::spawn(move || {
                    for number in 0..1000 {
                        let numbers = vec![thread << 32 | number; number as usize % 50 + 1];
                        sender.lock().unwrap().post_pod_slice(&numbers).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(receiver.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let mut next = [0; 3];
        for _ in 0..3000 {
            let message = port.recv().unwrap();
            let numbers = message.pod_slice::<u64>().unwrap();
            let (thread, number) = ((numbers[0] >> 32) as usize, numbers[0] & 0xffff_ffff);
            assert_eq!(number, next[thread]);
            assert_eq!(numbers, vec![numbers[0]; number as usize % 50 + 1], "torn");
            next[thread] += 1;
        }
        assert_eq!(next, [1000; 3]);
        port.post_bytes(b"all").unwrap();
    }
);

conversation!(
    a_port_may_go_to_another_thread_in_mid_conversation,
    |port| {
        let mut port = port;
        for round in 0..50u64 {
            port = thread::spawn(move || {
                port.post_pod(&round).unwrap();
                assert_eq!(*port.recv().unwrap().pod::<u64>().unwrap(), round);
                port
            })
            .join()
            .unwrap();
        }
    },
    |port| {
        while let Ok(message) = port.recv() {
            port.post_pod(message.pod::<u64>().unwrap()).unwrap();
        }
    }
);

// The last things that a thread and a process do: their thread-locals are already going.
alone!(a_port_works_while_its_thread_ends, || {
    struct Last(MessagePort);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.post_bytes(b"bytes").unwrap();
            self.0.post(&Answer(42)).unwrap();
            let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
            port1.post_bytes(b"new").unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), b"new");
        }
    }
    thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
    for values_first in [false, true] {
        let (port1, port2) = channel();
        let ending = thread::spawn(move || {
            if values_first {
                port1.post(&Answer(1)).unwrap();
            }
            LAST.set(Some(Last(port1)));
            if !values_first {
                LAST.with_borrow(|last| last.as_ref().unwrap().0.post(&Answer(1)).unwrap());
            }
        });
        assert_eq!(port2.recv().unwrap().get::<Answer>().unwrap().0, 1);
        assert_eq!(port2.recv().unwrap().bytes(), b"bytes");
        assert_eq!(port2.recv().unwrap().get::<Answer>().unwrap().0, 42);
        assert_eq!(port2.recv().unwrap_err(), CLOSED);
        ending.join().unwrap();
    }
});
