//! Streams and sinks.

use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use zeroport::{CloseReason, MessagePort, PostError, RecvError, Sender};

use super::number;
use crate::runtime::{AsyncPort, AsyncSender, block_on, spawn};
use crate::support::{Setup, conversation, with_watchdog};

const ITEMS: u64 = 10_000;
const LITTLE: Setup = Setup::new().capacity(4096).limit(0);

#[allow(clippy::ptr_arg)] // what the sink holds
fn post_bytes(sender: &Sender, bytes: &mut Vec<u8>) -> Result<(), PostError> {
    sender.try_post_bytes(bytes)
}

async fn send_all(sender: AsyncSender) {
    let mut sink = sender.into_sink(post_bytes);
    let items = (0..ITEMS).map(|n| Ok(n.to_ne_bytes().to_vec()));
    sink.send_all(&mut stream::iter(items)).await.unwrap();
    let (_sender, held) = sink.into_inner();
    assert!(held.is_none());
}

// All of them in their order, and then the end, once.
conversation!(
    ten_thousand_items_and_the_end,
    LITTLE,
    |port: MessagePort| block_on(async {
        let AsyncPort { receiver, sender: _sender, .. } = AsyncPort::new(port);
        let mut numbers = receiver.into_stream(|message| number(message.bytes()));
        for n in 0..ITEMS {
            assert_eq!(numbers.next().await, Some(Ok(n)));
        }
        for _ in 0..3 {
            assert_eq!(numbers.next().await, None);
        }
        let end = numbers.into_inner().recv().await.unwrap_err();
        assert_eq!(end, RecvError::Closed(CloseReason::Closed));
    }),
    |port: MessagePort| block_on(async {
        let AsyncPort { sender, receiver: _receiver, .. } = AsyncPort::new(port);
        spawn(send_all(sender)).await;
    })
);

// What is refused stays in the sink, and is taken back from there.
#[test]
fn what_a_sink_does_not_post_comes_back() {
    with_watchdog(|| {
        block_on(async {
            let zeroport::MessageChannel { port1, port2 } = LITTLE.open();
            let AsyncPort { sender, receiver, .. } = AsyncPort::new(port1);
            let mut sink = sender.into_sink(post_bytes);
            sink.feed(b"first".to_vec()).await.unwrap();
            sink.flush().await.unwrap();
            assert_eq!(port2.recv().unwrap().bytes(), b"first");
            sink.feed(b"second".to_vec()).await.unwrap();
            drop(port2);
            let refused = sink.flush().await;
            assert!(matches!(refused, Err(PostError::Closed(CloseReason::Closed))));
            let (_sender, held) = sink.into_inner();
            assert_eq!(held.unwrap(), b"second");
            let none: Vec<()> = receiver.into_stream(|_| ()).try_collect().await.unwrap();
            assert!(none.is_empty());
        });
    });
}
