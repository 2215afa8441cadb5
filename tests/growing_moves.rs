//! A port whose queue has grown moves with all that waits there: every ring and every lane, large payloads,
//! ports and buffers; also while its other end posts on, or moves too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ends;
mod queues;
mod support;

use std::thread;

use ends::{expect_end, expect_report};
use queues::{check_of_row, expect_of_row, on_all_channels, on_channel, open, post_of_row};
use support::conversation;
use zeroport::{
    ChannelOptions, CloseReason, MessagePort, Receiver, RecvError, Sender, Trust, transfer,
};

const CLOSED: RecvError = RecvError::Closed(CloseReason::Closed);
/// A first ring so small that a queue soon grows.
const OPTIONS: ChannelOptions = ChannelOptions::new().capacity(4096);

/// How often each end moves.
const HOPS: u64 = 24;

// Both ends of one channel bounce between host and peer, each on a carrier of its own, while whoever has
// one posts or reads with it. At first little is read, so that many rings and lanes lie behind; the row is
// of all kinds.
mod both_ends_bounce {
    use super::*;

    on_channel!(trusted, OPTIONS, |port| bounce_as_host(port, OPTIONS), bounce_as_peer);
    on_channel!(
        untrusted,
        OPTIONS.trust(Trust::Untrusted),
        |port| bounce_as_host(port, OPTIONS.trust(Trust::Untrusted)),
        bounce_as_peer
    );
    on_channel!(cold, OPTIONS, |port| bounce_as_host(port, OPTIONS.warm(false)), bounce_as_peer);

    fn bounce_as_host(poster_carrier: MessagePort, options: ChannelOptions) {
        let (reader_carrier, theirs) = open(options);
        poster_carrier.post_bytes_with(b"the readers'", theirs).unwrap();
        let (poster, reader) = open(options);
        let posting = thread::spawn(move || bounce_poster(&poster_carrier, Some(poster)));
        bounce_reader(&reader_carrier, Some(reader));
        posting.join().unwrap();
    }

    fn bounce_as_peer(poster_carrier: MessagePort) {
        let [reader_carrier] = poster_carrier.recv().unwrap().take_ports().unwrap();
        let posting = thread::spawn(move || bounce_poster(&poster_carrier, None));
        bounce_reader(&reader_carrier, None);
        posting.join().unwrap();
    }

    /// The port, from here or from the other side, with the hop and the number of the next message.
    fn next_stay(
        carrier: &MessagePort,
        own: &mut Option<MessagePort>,
    ) -> Option<([u64; 2], MessagePort)> {
        if let Some(port) = own.take() {
            return Some(([0, 0], port));
        }
        let message = carrier.recv().ok()?;
        let stay = *message.pod::<[u64; 2]>().unwrap();
        Some((stay, message.take_port().unwrap().unwrap()))
    }

    fn bounce_poster(carrier: &MessagePort, mut own: Option<MessagePort>) {
        while let Some(([hop, mut next], port)) = next_stay(carrier, &mut own) {
            for _ in 0..hop * 37 % 150 {
                post_of_row(&port, next);
                next += 1;
            }
            if hop == HOPS {
                // The reader learns of it by the end of the channel.
                return;
            }
            carrier.post_pod_with(&[hop + 1, next], port).unwrap();
            if hop + 1 == HOPS {
                return;
            }
        }
    }

    fn bounce_reader(carrier: &MessagePort, mut own: Option<MessagePort>) {
        while let Some(([hop, mut next], port)) = next_stay(carrier, &mut own) {
            if hop >= HOPS {
                // All the rest, and the end.
                let total: u64 = (0..=HOPS).map(|hop| hop * 37 % 150).sum();
                while next < total {
                    expect_of_row(&port, next);
                    next += 1;
                }
                expect_end(&port, CloseReason::Closed);
                return;
            }
            for _ in 0..hop * 13 % 60 {
                let Ok(message) = port.try_recv() else { break };
                check_of_row(&message, next, port.max_in_ring());
                next += 1;
            }
            carrier.post_pod_with(&[hop + 1, next], port).unwrap();
            if hop + 1 >= HOPS {
                return;
            }
        }
    }
}

// One end moves on over three hops while the other posts on; nobody reads before the last hop.
on_all_channels!(
    several_hops_with_everything_unread,
    OPTIONS,
    |carrier| {
        let (sender, goes) = open(OPTIONS.trust(carrier.trust()));
        let posting = thread::spawn(move || {
            for number in 0..1200 {
                post_of_row(&sender, number);
                if number % 100 == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut next = goes;
        for _ in 0..3 {
            carrier.post_bytes_with(b"there", next).unwrap();
            [next] = carrier.recv().unwrap().take_ports().unwrap();
        }
        posting.join().unwrap();
        for number in 0..600 {
            expect_of_row(&next, number);
        }
        carrier.post_bytes_with(b"the rest", next).unwrap();
        assert_eq!(carrier.recv().unwrap().bytes(), b"all");
    },
    |carrier| {
        for _ in 0..3 {
            let [port] = carrier.recv().unwrap().take_ports().unwrap();
            carrier.post_bytes_with(b"back", port).unwrap();
        }
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        for number in 600..1200 {
            expect_of_row(&port, number);
        }
        expect_end(&port, CloseReason::Closed);
        carrier.post_bytes(b"all").unwrap();
    }
);

// A port whose own queue has grown unread, in a message that itself waits in a grown ring.
#[test]
fn grown_queues_inside_grown_queues() {
    let (mut outer1, mut outer2) = open(OPTIONS);
    for depth in 0..5 {
        let (inner1, inner2) = open(OPTIONS);
        for number in 0..100 {
            post_of_row(&inner1, number);
        }
        inner1.try_post_pod_with(&depth, transfer![outer1, outer2]).unwrap();
        for number in 100..200 {
            post_of_row(&inner1, number);
        }
        (outer1, outer2) = (inner1, inner2);
    }
    for depth in (0..5).rev() {
        (0..100).for_each(|number| expect_of_row(&outer2, number));
        let message = outer2.recv().unwrap();
        assert_eq!(message.pod::<i32>().unwrap(), &depth);
        let inner = message.take_ports::<2>().unwrap();
        drop(message);
        (100..200).for_each(|number| expect_of_row(&outer2, number));
        drop(outer1);
        expect_report(&outer2, CloseReason::Closed);
        [outer1, outer2] = inner;
    }
}

// Split and joined with messages unread on both sides, then given away.
conversation!(
    a_joined_port_moves_with_its_rings,
    |carrier: MessagePort| {
        let (port1, port2) = open(OPTIONS);
        (0..100).for_each(|number| post_of_row(&port1, number));
        (0..100).for_each(|number| post_of_row(&port2, number));
        let (sender, receiver): (Sender, Receiver) = port2.split();
        for number in 0..50 {
            check_of_row(&receiver.recv().unwrap(), number, port1.max_in_ring());
        }
        sender.post_bytes(b"by a half").unwrap();
        let port2 = MessagePort::join(sender, receiver).unwrap();
        carrier.post_bytes_with(b"", port2).unwrap();
        (0..100).for_each(|number| expect_of_row(&port1, number));
        assert_eq!(port1.recv().unwrap().bytes(), b"by a half");
        assert_eq!(port1.recv().unwrap().bytes(), b"by the next one");
    },
    |carrier: MessagePort| {
        let [port] = carrier.recv().unwrap().take_ports().unwrap();
        (50..100).for_each(|number| expect_of_row(&port, number));
        port.post_bytes(b"by the next one").unwrap();
        assert_eq!(port.recv().unwrap_err(), CLOSED);
    },
);
