//! Payloads: what is posted as a type is read as that type only; what cannot be read or written costs
//! one message and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytemuck::{Pod, Zeroable};
use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Place, Serialize};
use support::{Setup, conversation, in_all_ways, in_both_queues, pattern};
use zeroport::{
    CloseReason, DecodeError, EncodeError, MessageChannel, MessagePort, PostError, RecvError,
    Tagged, tag_of_name, tag_of_plain_data,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);

#[derive(Archive, Serialize)]
struct Text {
    text: String,
}

impl Tagged for Text {
    const NAME: &'static str = "test.Text";
}

#[derive(Archive, Serialize)]
struct Number(u64);

impl Tagged for Number {
    const NAME: &'static str = "test.Number";
}

/// A value that only some bytes are: its archive holds the bits of a `bool`.
#[derive(Archive, Serialize)]
struct Flag(bool);

impl Tagged for Flag {
    const NAME: &'static str = "test.Flag";
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
struct Point {
    x: u32,
    y: u32,
}

impl Tagged for Point {
    const NAME: &'static str = "test.Point";
}

#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
struct Wide([u64; 4]);

impl Tagged for Wide {
    const NAME: &'static str = "test.Wide";
}

fn both_trusts() -> [MessageChannel; 2] {
    [Setup::new().open(), Setup::new().untrusted().open()]
}

conversation!(
    a_wrong_type_costs_one_message_only,
    |port| {
        port.post(&Text { text: "one".into() }).unwrap();
        port.post(&Number(2)).unwrap();
        port.post_pod(&Point { x: 3, y: 3 }).unwrap();
        port.post_bytes(b"four").unwrap();
        port.post(&Text { text: "five".into() }).unwrap();
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        let expected = tag_of_name("test.Text");
        let wrong = |found| {
            move |error: DecodeError| match error {
                DecodeError::WrongType { expected: asked, found: tag } => {
                    assert_eq!((asked, tag), (expected, found));
                }
                error => panic!("{error}"),
            }
        };
        assert_eq!(port.recv().unwrap().get::<Text>().unwrap().text, "one");
        let number = port.recv().unwrap();
        number.get::<Text>().map(drop).map_err(wrong(tag_of_name("test.Number"))).unwrap_err();
        // The very message can still be read as what it is.
        assert_eq!(number.get::<Number>().unwrap().0, 2);
        drop(number);
        let point = port.recv().unwrap();
        let tag = tag_of_plain_data("test.Point", 8, 4);
        point.get::<Text>().map(drop).map_err(wrong(tag)).unwrap_err();
        assert_eq!(point.pod::<Point>().unwrap(), &Point { x: 3, y: 3 });
        drop(point);
        port.recv().unwrap().get::<Text>().map(drop).map_err(wrong(0)).unwrap_err();
        assert_eq!(port.recv().unwrap().get::<Text>().unwrap().text, "five");
        port.post_bytes(b"all").unwrap();
    }
);

in_all_ways!(
    an_undecodable_message_between_two_good_ones,
    |port| {
        for round in 0..50 {
            port.post(&Text { text: format!("before {round}") }).unwrap();
            let mut loan = port.reserve(64).unwrap();
            // Under the tag of a good type: bytes that no UTF-8 has, or a length and a relative
            // pointer that lead far out.
            loan.fill(if round % 2 == 0 { 0xf8 } else { 0x81 });
            loan.publish_tagged(64, tag_of_name("test.Text")).unwrap();
            port.post(&Text { text: format!("after {round}") }).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for round in 0..50 {
            let before = port.recv().unwrap();
            assert_eq!(before.get::<Text>().unwrap().text, *format!("before {round}"));
            drop(before);
            let error = port.recv().unwrap().get::<Text>().map(drop).unwrap_err();
            assert!(matches!(error, DecodeError::Invalid(_)), "{error}");
            let after = port.recv().unwrap();
            assert_eq!(after.get::<Text>().unwrap().text, *format!("after {round}"));
        }
        port.post_bytes(b"all").unwrap();
    }
);

#[test]
fn every_length_and_every_byte_is_checked() {
    for MessageChannel { port1, port2 } in both_trusts() {
        for byte in 0..=255u8 {
            let mut loan = port1.reserve(1).unwrap();
            loan[0] = byte;
            loan.publish_tagged(1, tag_of_name("test.Flag")).unwrap();
            let message = port2.recv().unwrap();
            match message.get::<Flag>() {
                Ok(flag) => assert_eq!(flag.0, byte == 1),
                Err(DecodeError::Invalid(_)) => assert!(byte > 1),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(message.get::<Flag>().is_ok(), byte <= 1);
        }
        // An archive that is cut short anywhere: refused, or read inside the bounds of its message
        // (the root stands at the end, and some text looks like a root).
        port1.post(&Text { text: "a text that does not fit into its own pointer".into() }).unwrap();
        let archive = port2.recv().unwrap().bytes().to_vec();
        let mut refused = 0;
        for len in 0..archive.len() {
            let mut loan = port1.reserve(len).unwrap();
            loan.copy_from_slice(&archive[..len]);
            loan.publish_tagged(len, tag_of_name("test.Text")).unwrap();
            let message = port2.recv().unwrap();
            match message.get::<Text>() {
                Ok(text) => {
                    assert!(len >= size_of_val(text));
                    let (all, part) =
                        (message.bytes().as_ptr_range(), text.text.as_bytes().as_ptr_range());
                    assert!(all.start <= part.start && part.end <= all.end);
                }
                Err(DecodeError::Invalid(_)) => refused += 1,
                Err(error) => panic!("{len} bytes: {error}"),
            }
        }
        assert!(refused >= size_of::<rkyv::Archived<Text>>(), "only {refused} were refused");
    }
}

#[test]
fn plain_data_of_a_wrong_length_is_refused() {
    for MessageChannel { port1, port2 } in both_trusts() {
        port1.post_pod_slice(&[Point { x: 1, y: 2 }; 3]).unwrap();
        let message = port2.recv().unwrap();
        assert_eq!(message.pod_slice::<Point>().unwrap(), [Point { x: 1, y: 2 }; 3]);
        let error = message.pod::<Point>().unwrap_err();
        assert!(matches!(error, DecodeError::Length { len: 24, unit: 8 }), "{error}");

        let mut loan = port1.reserve(12).unwrap();
        loan.fill(1);
        loan.publish_tagged(12, tag_of_plain_data("test.Point", 8, 4)).unwrap();
        let message = port2.recv().unwrap();
        for error in [
            message.pod::<Point>().map(drop).unwrap_err(),
            message.pod_slice::<Point>().map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, DecodeError::Length { len: 12, unit: 8 }), "{error}");
        }
        // The bytes of a message can always be read.
        assert_eq!(message.bytes(), [1; 12]);
    }
}

#[test]
fn plain_data_of_the_same_name_but_another_shape_is_another_type() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_pod(&[1u32, 2]).unwrap();
    let message = port2.recv().unwrap();
    assert!(matches!(message.pod::<[u32; 3]>(), Err(DecodeError::WrongType { .. })));
    assert!(matches!(message.pod::<u32>(), Err(DecodeError::WrongType { .. })));
    assert!(matches!(message.pod::<[i32; 2]>(), Err(DecodeError::WrongType { .. })));
    assert_eq!(message.pod::<[u32; 2]>().unwrap(), &[1, 2]);
}

#[test]
fn tags_are_the_documented_ones() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes(b"bytes").unwrap();
    port1.reserve(1).unwrap().publish(1).unwrap();
    port1.post(&Number(1)).unwrap();
    port1.post_pod(&Point { x: 1, y: 1 }).unwrap();
    port1.post_pod_slice(&[Point { x: 1, y: 1 }; 2]).unwrap();
    port1.reserve(1).unwrap().publish_tagged(1, 7).unwrap();
    let tags: Vec<_> = port2.drain().map(|message| message.tag()).collect();
    let point = tag_of_plain_data("test.Point", 8, 4);
    assert_eq!(tags, [0, 0, tag_of_name("test.Number"), point, point, 7]);
}

in_both_queues!(
    payloads_are_aligned_wherever_they_lie,
    Setup::new().capacity(4096),
    |port| {
        for number in 0..1000u64 {
            port.post_bytes(&pattern(number, number as usize % 37)).unwrap();
            port.post_pod(&Wide([number; 4])).unwrap();
            port.post_pod(&u128::from(number)).unwrap();
        }
        assert_eq!(port.recv().unwrap().bytes(), b"all");
    },
    |port| {
        for number in 0..1000u64 {
            let message = port.recv().unwrap();
            assert!(message.bytes().as_ptr().addr().is_multiple_of(16));
            assert_eq!(port.recv().unwrap().pod::<Wide>().unwrap(), &Wide([number; 4]));
            assert_eq!(*port.recv().unwrap().pod::<u128>().unwrap(), u128::from(number));
            drop(message);
        }
        port.post_bytes(b"all").unwrap();
    }
);

#[test]
fn a_trusted_port_reads_in_place_and_an_untrusted_one_does_not() {
    let [trusted, untrusted] = both_trusts().map(|MessageChannel { port1, port2 }| {
        port1.post_bytes(b"where am I?").unwrap();
        let message = port2.recv().unwrap();
        let place = message.bytes().as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("memfd:zeroport")).any(|line| {
            let range = line.split_whitespace().next().unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let at = |hex| usize::from_str_radix(hex, 16).unwrap();
            (at(from)..at(to)).contains(&place)
        })
    });
    assert!(trusted && !untrusted);
}

/// A value whose serialiser does as it is told.
struct Wilful<'a> {
    payload: Vec<u8>,
    /// Called in the middle of the work, each time it is done.
    meanwhile: &'a dyn Fn(),
    fails: bool,
}

impl Tagged for Wilful<'_> {
    const NAME: &'static str = "test.Wilful";
}

#[derive(Debug, thiserror::Error)]
#[error("this value does not want to be posted")]
struct Unwilling;

impl Archive for Wilful<'_> {
    type Archived = rkyv::vec::ArchivedVec<u8>;
    type Resolver = rkyv::vec::VecResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        rkyv::vec::ArchivedVec::resolve_from_len(self.payload.len(), resolver, out);
    }
}

impl<S> Serialize<S> for Wilful<'_>
where
    S: Fallible<Error = EncodeError> + rkyv::ser::Writer + rkyv::ser::Allocator + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        let resolver = rkyv::vec::ArchivedVec::serialize_from_slice(&self.payload, serializer)?;
        (self.meanwhile)();
        if self.fails { Err(EncodeError::new(Unwilling)) } else { Ok(resolver) }
    }
}

fn bytes_of(message: &zeroport::Message<'_>) -> Vec<u8> {
    assert_eq!(message.tag(), tag_of_name("test.Wilful"));
    // The archive of a vector begins with its elements.
    message.bytes().to_vec()
}

#[test]
fn a_serialiser_that_fails_sends_nothing() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let wilful = Wilful { payload: vec![1; 100], meanwhile: &|| {}, fails: true };
        for error in [
            port1.post(&wilful).unwrap_err(),
            port1.try_post(&wilful).unwrap_err(),
            port1.post_all([&wilful]).unwrap_err().source,
        ] {
            let PostError::Encode(source) = error else { panic!("{error}") };
            assert!(source.to_string().contains("does not want"), "{source}");
        }
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
        port1.post(&Number(1)).unwrap();
        assert_eq!(port2.recv().unwrap().get::<Number>().unwrap().0, 1);
    }
}

#[test]
fn a_serialiser_that_panics_sends_nothing_and_leaves_the_port_usable() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let wilful =
            Wilful { payload: vec![1; 100], meanwhile: &|| panic!("on purpose"), fails: false };
        for _ in 0..3 {
            catch_unwind(AssertUnwindSafe(|| port1.post(&wilful))).unwrap_err();
            catch_unwind(AssertUnwindSafe(|| port1.post_all([&wilful]))).unwrap_err();
            assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
        }
        port1.post_bytes(b"bytes").unwrap();
        port1.post(&Number(1)).unwrap();
        port1.reserve(4).unwrap().publish(4).unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"bytes");
        assert_eq!(port2.recv().unwrap().get::<Number>().unwrap().0, 1);
        assert_eq!(port2.recv().unwrap().bytes().len(), 4);
    }
}

#[test]
fn what_a_serialiser_posts_on_the_same_port_comes_first() {
    for MessageChannel { port1, port2 } in both_trusts() {
        for inner_post in 0..4 {
            let inner = || match inner_post {
                0 => port1.post_bytes(&[2; 300]).unwrap(),
                1 => port1.post(&Number(2)).unwrap(),
                2 => {
                    let mut loan = port1.reserve(300).unwrap();
                    loan.fill(2);
                    loan.publish(300).unwrap();
                }
                _ => assert_eq!(port1.post_all_bytes([[2; 10], [2; 10]]).unwrap(), 2),
            };
            let outer = Wilful { payload: vec![1; 200], meanwhile: &inner, fails: false };
            port1.post(&outer).unwrap();
            let mut received: Vec<_> = port2.drain().collect();
            let last = received.pop().unwrap();
            assert_eq!(bytes_of(&last)[..200], [1; 200], "inner post {inner_post}");
            assert_eq!(received.len(), if inner_post == 3 { 2 } else { 1 });
            for message in received {
                match message.get::<Number>() {
                    Ok(number) => assert_eq!(number.0, 2),
                    Err(_) => assert!(message.bytes().iter().all(|byte| *byte == 2)),
                }
            }
        }
    }
}

#[test]
fn serialisers_that_post_values_that_post_end_from_the_inside_out() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    fn post_nested(port: &MessagePort, depth: u8) {
        let meanwhile = || {
            if depth > 0 {
                post_nested(port, depth - 1);
            }
        };
        let len = 40 * usize::from(depth) + 8;
        port.post(&Wilful { payload: vec![depth; len], meanwhile: &meanwhile, fails: false })
            .unwrap();
    }
    post_nested(&port1, 9);
    for depth in 0..=9u8 {
        let len = 40 * usize::from(depth) + 8;
        assert_eq!(bytes_of(&port2.recv().unwrap())[..len], vec![depth; len]);
    }
    assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
}

// The outer value is serialised before it finds room, and what is posted inside may take the last of that.
#[test]
fn a_serialiser_that_posts_into_a_ring_that_gets_full() {
    for payload in [1900, 1000, 500] {
        post_into_a_ring_that_gets_full(Setup::new(), payload);
        post_into_a_ring_that_gets_full(Setup::new().limit(0), payload);
    }
    // And no ring would do.
    post_into_a_ring_that_gets_full(Setup::new(), 5000);
}

fn post_into_a_ring_that_gets_full(setup: Setup, payload: usize) {
    let MessageChannel { port1, port2 } = setup.capacity(4096).open();
    let posted = Cell::new(0usize);
    let inner = || {
        port1.post_bytes(&[2; 100]).unwrap();
        posted.set(posted.get() + 1);
    };
    // Little room in one piece where the poster stands.
    for _ in 0..25 {
        port1.post_bytes(&[0; 100]).unwrap();
        port2.recv().unwrap();
    }
    let outer = Wilful { payload: vec![1; payload], meanwhile: &inner, fails: false };
    port1.post(&outer).unwrap();
    let mut received: Vec<_> = port2.drain().collect();
    assert_eq!(bytes_of(&received.pop().unwrap())[..payload], vec![1; payload]);
    assert_eq!(received.len(), posted.get());
    assert!(received.iter().all(|message| message.bytes() == [2; 100]));
}

#[test]
fn a_serialiser_that_closes_its_own_port_posts_nothing() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let closer = port1.closer();
    let outer = Wilful { payload: vec![1; 10], meanwhile: &|| closer.close(), fails: false };
    assert!(matches!(port1.post(&outer), Err(PostError::Closed(CloseReason::Closed))));
    // The post has said that it failed, so nobody may count on the message; what comes is whole.
    if let Ok(message) = port2.recv() {
        assert_eq!(bytes_of(&message)[..10], [1; 10]);
    }
    assert_eq!(port2.recv().unwrap_err(), CLOSED);
}

#[test]
fn an_iterator_that_panics_in_the_middle_of_a_batch() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let values = [Number(0), Number(1), Number(2)];
        let panicking = values.iter().inspect(|number| assert!(number.0 < 2, "on purpose"));
        catch_unwind(AssertUnwindSafe(|| port1.post_all(panicking))).unwrap_err();
        // What the iterator had given was posted; the port goes on.
        port1.post(&Number(9)).unwrap();
        let received: Vec<_> =
            port2.drain().map(|message| message.get::<Number>().unwrap().0.to_native()).collect();
        assert_eq!(received, [0, 1, 9]);
    }
}

#[test]
fn an_iterator_that_posts_on_the_same_port() {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let messages = (0..3u8).map(|number| {
        port1.post_bytes(&[10 + number]).unwrap();
        assert_eq!(port1.post_all_bytes([[20 + number]]).unwrap(), 1);
        [number]
    });
    assert_eq!(port1.post_all_bytes(messages).unwrap(), 3);
    let received: Vec<_> = port2.drain().map(|message| message.bytes()[0]).collect();
    assert_eq!(received, [10, 20, 0, 11, 21, 1, 12, 22, 2]);
}

#[test]
fn a_port_whose_room_is_lent_out_refuses_to_post() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let mut loan = port1.reserve(100).unwrap();
        loan.fill(1);
        let busy = |result: Result<(), PostError>| matches!(result, Err(PostError::Busy));
        assert!(busy(port1.post_bytes(b"no")));
        assert!(busy(port1.try_post_bytes(b"no")));
        assert!(busy(port1.post(&Number(1))));
        assert!(busy(port1.try_post(&Number(1))));
        assert!(busy(port1.post_pod(&1u32)));
        assert!(busy(port1.reserve(1).map(drop)));
        assert!(busy(port1.try_reserve(1).map(drop)));
        let error = port1.post_all_bytes([b"no"]).unwrap_err();
        assert_eq!(error.posted, 0);
        assert!(busy(Err(error.source)));
        // The other direction and receiving go on.
        port2.post_bytes(b"yes").unwrap();
        assert_eq!(port1.recv().unwrap().bytes(), b"yes");
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty, "nothing was posted");
        loan.publish(100).unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), [1; 100]);
        port1.post_bytes(b"again").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"again");
    }
}

#[test]
fn a_loan_that_is_dropped_sends_nothing() {
    for MessageChannel { port1, port2 } in both_trusts() {
        for _ in 0..1000 {
            // In the ring, and in a memory of its own.
            port1.reserve(port1.max_in_ring() - 16).unwrap().fill(0xff);
            port1.reserve(port1.max_in_ring() + 1).unwrap().fill(0xff);
        }
        catch_unwind(AssertUnwindSafe(|| {
            let mut loan = port1.reserve(100).unwrap();
            loan.fill(0xff);
            panic!("on purpose");
        }))
        .unwrap_err();
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
        port1.post_bytes(b"after").unwrap();
        assert_eq!(port2.recv().unwrap().bytes(), b"after");
    }
}

#[test]
fn a_loan_that_is_forgotten_keeps_the_room_and_nothing_else() {
    for MessageChannel { port1, port2 } in both_trusts() {
        std::mem::forget(port1.reserve(100).unwrap());
        assert!(matches!(port1.post_bytes(b"no"), Err(PostError::Busy)));
        port2.post_bytes(b"yes").unwrap();
        assert_eq!(port1.recv().unwrap().bytes(), b"yes");
        drop(port1);
        assert_eq!(port2.recv().unwrap_err(), CLOSED);
    }
}

#[test]
fn a_loan_publishes_at_most_what_was_reserved() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let loan = port1.reserve(10).unwrap();
        assert_eq!(loan.len(), 10);
        let error = loan.publish(11).unwrap_err();
        assert!(matches!(error, PostError::TooLarge { len: 11, max: 10 }), "{error}");
        assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
        port1.reserve(10).unwrap().publish(10).unwrap();
        assert_eq!(port2.recv().unwrap().bytes().len(), 10);
    }
}

#[test]
fn a_loan_shows_nothing_of_what_was_posted_before() {
    // Only where the room is private can a peer learn nothing from what stood there.
    let MessageChannel { port1, port2 } = Setup::new().capacity(4096).untrusted().open();
    for _ in 0..20 {
        port1.post_bytes(&[0x5a; 1000]).unwrap();
        port2.recv().unwrap();
        let loan = port1.reserve(1000).unwrap();
        assert!(loan.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_loan_is_refused_once_the_channel_has_ended() {
    for MessageChannel { port1, port2 } in both_trusts() {
        let loan = port1.reserve(10).unwrap();
        drop(port2);
        assert!(matches!(loan.publish(10), Err(PostError::Closed(CloseReason::Closed))));
        assert!(matches!(port1.reserve(10).map(drop), Err(PostError::Closed(CloseReason::Closed))));
    }
}
