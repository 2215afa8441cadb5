//! Lists that are refused: the error names what is wrong, nothing has changed, and the list is back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod support;

use ends::{expect_end, expect_post_closed, expect_report};
use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Place, Serialize};
use support::{
    Setup, channels, conversation, expect_all_entangled, expect_entangled, with_watchdog,
};
use zeroport::{
    CloseReason, EncodeError, MessageChannel, MessagePort, PostError, RecvError, Tagged,
    TransferError, TransferList, Untransferable, transfer,
};

/// The list comes back, for a port of which it says what is wrong.
fn expect_untransferable(
    posted: Result<(), TransferError>,
    at: usize,
    why: Untransferable,
) -> Vec<MessagePort> {
    let TransferError { list, source, .. } = posted.unwrap_err();
    match &source {
        PostError::Untransferable { index, reason } => assert_eq!((*index, *reason), (at, why)),
        other => panic!("{other:?}"),
    }
    assert!(source.to_string().contains(&at.to_string()), "{source}");
    list.into_ports()
}

fn expect_nothing(port: &MessagePort) {
    assert_eq!(port.try_recv().map(drop), Err(RecvError::Empty));
}

/// One of the verbs.
type Post = fn(&MessagePort, Vec<MessagePort>) -> Result<(), TransferError>;

/// A port that has reported the end of its channel.
fn ended() -> MessagePort {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    drop(port1);
    expect_report(&port2, CloseReason::Closed);
    port2
}

/// A port that was closed here.
fn closed_here() -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port2.closer().close();
    (port1, port2)
}

// One bad entry, at each place of a list, and with each verb: the others are as they were.
#[test]
fn one_bad_entry_spoils_nothing() {
    with_watchdog(|| {
        for at in 0..4 {
            for has_lane in [false, true] {
                let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
                let (mine, mut list) = channels(3);
                if has_lane {
                    port1.post_bytes_with(b"", channels(1).1).unwrap();
                    drop(port2.recv().unwrap());
                }
                mine.iter().for_each(|mine| mine.post_bytes(b"unread").unwrap());
                let (_other, bad) = closed_here();
                list.insert(at, bad);
                let posts: [Post; 4] = [
                    |port, list| port.post_bytes_with(b"", list),
                    |port, list| port.try_post_pod_with(&1u32, list),
                    |port, list| port.post_with(&"value".to_string(), list),
                    |port, list| port.reserve(10).unwrap().publish_with(10, 0, list),
                ];
                let reason = Untransferable::Closed(CloseReason::Closed);
                for post in posts {
                    list = expect_untransferable(post(&port1, list), at, reason);
                    assert_eq!(list.len(), 4);
                    expect_nothing(&port2);
                }
                drop(list.remove(at));
                for theirs in &list {
                    assert_eq!(theirs.recv().unwrap().bytes(), b"unread");
                }
                expect_all_entangled(&mine, &list);
                // Without it, they go.
                port1.post_bytes_with(b"", list).unwrap();
                expect_all_entangled(&mine, &port2.recv().unwrap().take_all_ports().unwrap());
            }
        }
    });
}

#[test]
fn ports_at_their_end_are_refused() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let reason = Untransferable::Closed(CloseReason::Closed);
        expect_untransferable(port1.post_bytes_with(b"", ended()), 0, reason);
        let (other, closed) = closed_here();
        let back = expect_untransferable(port1.post_bytes_with(b"", closed), 0, reason);
        expect_end(&back[0], CloseReason::Closed);
        expect_end(&other, CloseReason::Closed);
        expect_nothing(&port2);
    });
}

// The carrier's other end, by whatever way it came here (S-091, S-092).
#[test]
fn the_other_end_of_the_carrier_is_refused() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let back =
            expect_untransferable(port1.post_bytes_with(b"", port2), 0, Untransferable::OtherEnd);
        expect_entangled(&port1, &back[0]);
    });
}

conversation!(
    an_other_end_that_came_back_is_refused,
    |port: MessagePort| {
        let MessageChannel { port1: mine, port2: theirs } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"", theirs).unwrap();
        let [theirs] = port.recv().unwrap().take_ports().unwrap();
        let (stays, other) = channels(1);
        let list: TransferList = other.into_iter().chain([theirs]).collect();
        let refused = mine.post_bytes_with(b"", list);
        let back = expect_untransferable(refused, 1, Untransferable::OtherEnd);
        expect_entangled(&stays[0], &back[0]);
        expect_entangled(&mine, &back[1]);
    },
    |port: MessagePort| {
        let [theirs] = port.recv().unwrap().take_ports().unwrap();
        port.post_bytes_with(b"", theirs).unwrap();
    },
);

// Nothing is lost with a carrier that is closed (S-096).
#[test]
fn a_closed_carrier_hands_back() {
    with_watchdog(|| {
        for setup in [Setup::new(), Setup::new().untrusted()] {
            for how in 0..4 {
                let MessageChannel { port1, port2 } = setup.open();
                let MessageChannel { port1: mine, port2: theirs } =
                    MessageChannel::untrusted().unwrap();
                let loan = (how == 3).then(|| port1.reserve(1).unwrap());
                match how {
                    0 => port1.closer().close(),
                    _ => drop(port2),
                }
                if how == 2 {
                    expect_report(&port1, CloseReason::Closed);
                }
                let refused = match loan {
                    Some(loan) => loan.publish_with(1, 0, theirs),
                    None => port1.post_bytes_with(b"", theirs),
                };
                let TransferError { list, source, .. } = refused.unwrap_err();
                expect_post_closed(Err(source), CloseReason::Closed);
                let theirs = list.into_ports().remove(0);
                let refused = port1.post_with(&1u64, theirs).unwrap_err();
                expect_post_closed(Err(refused.source), CloseReason::Closed);
                expect_entangled(&mine, &refused.list.into_ports()[0]);
                expect_end(&port1, CloseReason::Closed);
            }
        }
    });
}

// A message that the ring has no room for, now or ever, and a port that is busy.
#[test]
fn a_carrier_without_room_hands_back() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = Setup::new().capacity(4 << 10).limit(0).open();
        let (mine, mut list) = channels(2);
        let loan = port1.reserve(10).unwrap();
        let refused = port1.post_bytes_with(b"", list).unwrap_err();
        assert!(matches!(refused.source, PostError::Busy));
        list = refused.list.into_ports();
        let refused = loan.publish_with(5000, 0, list).unwrap_err();
        assert!(matches!(refused.source, PostError::TooLarge { len: 5000, .. }));
        list = refused.list.into_ports();
        while port1.try_post_bytes(&[0; 500]).is_ok() {}
        // In the ring, and in a memory of its own, which a queue that never grows takes when it is empty.
        for len in [500, 5000] {
            let refused = port1.try_post_bytes_with(&vec![0; len], list).unwrap_err();
            assert!(
                matches!(refused.source, PostError::Full { len: found } if found == len as u64)
            );
            list = refused.list.into_ports();
        }
        expect_all_entangled(&mine, &list);
        assert!(port2.drain().all(|message| message.port_count() == 0));
        port1.post_bytes_with(b"", list).unwrap();
        expect_all_entangled(&mine, &port2.recv().unwrap().take_all_ports().unwrap());
    });
}

/// A value that does as it is told while it is serialised, and then fails.
struct Unwilling<'a>(&'a dyn Fn());

#[derive(Debug, thiserror::Error)]
#[error("this value does not want to be posted")]
struct DoesNotWant;

impl Tagged for Unwilling<'_> {
    const NAME: &'static str = "test.Unwilling";
}

impl Archive for Unwilling<'_> {
    type Archived = ();
    type Resolver = ();

    fn resolve(&self, (): (), _: Place<()>) {}
}

impl<S: Fallible<Error = EncodeError> + ?Sized> Serialize<S> for Unwilling<'_> {
    fn serialize(&self, _: &mut S) -> Result<(), EncodeError> {
        (self.0)();
        Err(EncodeError::new(DoesNotWant))
    }
}

#[test]
fn a_value_that_cannot_be_serialised_hands_back() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let (mine, list) = channels(2);
        // It posts ports on the very port meanwhile: these are posted.
        let (others, given) = channels(1);
        let given = std::cell::Cell::new(given);
        let post = || port1.post_bytes_with(b"meanwhile", given.take()).unwrap();
        let TransferError { list, source, .. } =
            port1.post_with(&Unwilling(&post), list).unwrap_err();
        assert!(matches!(&source, PostError::Encode(why) if why.to_string().contains("want")));
        expect_all_entangled(&mine, &list.into_ports());
        let message = port2.recv().unwrap();
        assert_eq!(message.bytes(), b"meanwhile");
        expect_all_entangled(&others, &message.take_all_ports().unwrap());
        expect_nothing(&port2);
        port1.post_bytes(b"still open").unwrap();
    });
}

// Several things are wrong at once: what concerns the carrier, then the value, then the ports (S-095).
#[test]
fn complaints_come_in_an_order() {
    with_watchdog(|| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        let unwilling = Unwilling(&|| {});
        let list = transfer![ended(), port2];
        let back =
            expect_untransferable(port1.post_with(&unwilling, list), 1, Untransferable::OtherEnd);
        let mut back = back.into_iter();
        let TransferError { list, source, .. } =
            port1.post_with(&unwilling, back.next().unwrap()).unwrap_err();
        assert!(matches!(source, PostError::Encode(_)), "{source}");
        let reason = Untransferable::Closed(CloseReason::Closed);
        expect_untransferable(port1.post_bytes_with(b"", list), 0, reason);
        // A closed carrier comes before all.
        let port2 = back.next().unwrap();
        port1.closer().close();
        let refused = port1.post_with(&unwilling, port2).unwrap_err();
        expect_post_closed(Err(refused.source), CloseReason::Closed);
    });
}
