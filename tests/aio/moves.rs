//! Ports that become async, and no longer are: in messages, in sets, in forked children.
#![allow(unsafe_code)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::poll_fn;
use zeroport::{Event, MessageChannel, MessagePort, PortSet, PostError, RecvError, transfer};

use crate::runtime::{AsyncPort, block_on};
use crate::support::{alone, conversation, is_asleep, wait_until, with_watchdog};

// What waits in a port waits in the one that it becomes.
conversation!(
    a_port_moves_between_tasks,
    |carrier: MessagePort| block_on(async {
        let MessageChannel { port1: mut stays, port2: goes } = MessageChannel::new().unwrap();
        let mut carrier = AsyncPort::new(carrier);
        let mut port = Some(goes);
        for round in 0..100u64 {
            stays.post_pod(&round).unwrap();
            let mut port_now = AsyncPort::new(port.take().unwrap());
            if round % 2 == 0 {
                // It has waited here.
                drop(port_now.receiver.recv().await.unwrap());
                futures_util::future::poll_immediate(port_now.receiver.recv())
                    .await
                    .ok_or(())
                    .unwrap_err();
                stays.post_pod(&round).unwrap();
            }
            let port_now = port_now.into_port().unwrap();
            carrier.sender.post_pod_with(&round, &mut transfer![port_now]).await.unwrap();
            let mut ours = AsyncPort::new(stays);
            assert_eq!(ours.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &(round + 1));
            stays = ours.into_port().unwrap();
            let message = carrier.receiver.recv().await.unwrap();
            let [back] = message.take_ports().unwrap();
            port = Some(back);
        }
    }),
    |carrier: MessagePort| block_on(async {
        let mut carrier = AsyncPort::new(carrier);
        while let Ok(message) = carrier.receiver.recv().await {
            let round = *message.pod::<u64>().unwrap();
            let [port] = message.take_ports().unwrap();
            let mut port = AsyncPort::new(port);
            assert_eq!(port.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &round);
            port.sender.post_pod(&(round + 1)).await.unwrap();
            let port = port.into_port().unwrap();
            drop(message);
            carrier.sender.post_bytes_with(b"", &mut transfer![port]).await.unwrap();
        }
    })
);

#[test]
fn a_port_is_async_in_a_thread_and_in_a_set_by_turns() {
    with_watchdog(|| {
        block_on(async {
            let MessageChannel { port1, mut port2 } = MessageChannel::new().unwrap();
            for round in 0..30u64 {
                let mut port = AsyncPort::new(port2);
                assert!(futures_util::future::poll_immediate(port.receiver.recv()).await.is_none());
                port1.post_pod(&round).unwrap();
                assert_eq!(port.receiver.recv().await.unwrap().pod::<u64>().unwrap(), &round);
                port2 = port.into_port().unwrap();

                port1.post_pod(&round).unwrap();
                assert_eq!(port2.recv().unwrap().pod::<u64>().unwrap(), &round);

                let mut set = PortSet::new().unwrap();
                set.insert((), port2).unwrap();
                port1.post_pod(&round).unwrap();
                assert!(matches!(set.wait().unwrap().next(), Some(((), Event::Message(..)))));
                port2 = set.remove(&()).unwrap();
            }
        });
    });
}

// Halves of two ports make none.
#[test]
fn halves_of_two_ports_come_back() {
    let (one, other) = (MessageChannel::new().unwrap(), MessageChannel::new().unwrap());
    let (mut mixed, mut rest) = (AsyncPort::new(one.port1), AsyncPort::new(other.port1));
    std::mem::swap(&mut mixed.sender, &mut rest.sender);
    let mut mixed = mixed.into_port().unwrap_err();
    std::mem::swap(&mut mixed.sender, &mut rest.sender);
    let port = mixed.into_port().unwrap();
    port.post_bytes(b"as ever").unwrap();
    assert_eq!(one.port2.recv().unwrap().bytes(), b"as ever");
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

// S-149: a copy says so, never waits, and takes nothing from the original.
alone!(a_copy_in_a_forked_child_is_detached, || block_on(async {
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    let mut port = Some(AsyncPort::new(port2));
    let receiver = &mut port.as_mut().unwrap().receiver;
    // It is watched by the runtime, and lies down.
    poll_fn(|cx| {
        assert!(receiver.poll_recv(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    // SAFETY: the child polls and drops, and then ends without any clean-up.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut copy = port.take().unwrap();
        let received = poll_once(copy.receiver.recv()).map(|received| received.err());
        let posted = poll_once(copy.sender.post_bytes(b"from a copy"));
        let is_right = received == Poll::Ready(Some(RecvError::Detached))
            && matches!(posted, Poll::Ready(Err(PostError::Detached)));
        drop(copy);
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!is_right)) }
    }
    let child = rustix::process::Pid::from_raw(child);
    let mut status = None;
    wait_until("the forked child has ended", || {
        status = rustix::process::waitpid(child, rustix::process::WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().1.exit_status(), Some(0), "the forked child failed");
    // The runtime still watches it: this comes while it waits.
    let waiter = rustix::thread::gettid();
    let posting = std::thread::spawn(move || {
        wait_until("the task waits", || is_asleep(waiter));
        port1.post_bytes(b"to the original").map(|()| port1)
    });
    let mut port = port.unwrap();
    assert_eq!(port.receiver.recv().await.unwrap().bytes(), b"to the original");
    drop(posting.join().unwrap());
}));
