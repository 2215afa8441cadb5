//! Trust cannot be smuggled: a port that was untrusted anywhere on its way stays so, an end of a trusted
//! channel does not get to strangers, and what an untrusted port reads and writes is private memory.
//! No word of the segment decides.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use support::{Setup, alone, pattern};
use zeroport::Trust::{Trusted, Untrusted};
use zeroport::{
    Address, ChannelOptions, MessageChannel, MessagePort, PostError, Server, TransferError, Trust,
    Untransferable, connect, transfer,
};

/// One step on a port's way.
#[derive(Clone, Copy, Debug)]
enum Hop {
    /// In a message, on a carrier that its two holders trust so.
    Carrier(Trust, Trust),
    /// As descriptors, which may come from anybody.
    Descriptors,
    /// As descriptors of our own.
    OwnDescriptors,
}

const HOPS: [Hop; 6] = [
    Hop::Carrier(Trusted, Trusted),
    Hop::Carrier(Trusted, Untrusted),
    Hop::Carrier(Untrusted, Trusted),
    Hop::Carrier(Untrusted, Untrusted),
    Hop::Descriptors,
    Hop::OwnDescriptors,
];

/// The rule, for a port that has this trust by now. `None`: refused.
fn expected(channel: Trust, trust: Trust, hop: Hop) -> Option<Trust> {
    match (channel, hop) {
        // Whatever the port is by now: its other end is as it was, and trusts it.
        (Trusted, Hop::Carrier(Untrusted, _) | Hop::Descriptors) => None,
        (_, Hop::Carrier(_, Untrusted) | Hop::Descriptors) => Some(Untrusted),
        (_, Hop::Carrier(..) | Hop::OwnDescriptors) => Some(trust),
    }
}

/// A carrier whose ends have a trust of their own each: what connects decides for itself, and so does
/// who admits it.
fn carrier(sender: Trust, receiver: Trust) -> MessageChannel {
    let name = format!("zeroport trust {} {sender:?} {receiver:?}", std::process::id());
    let server = Server::bind(Address::abstract_name(&name)).unwrap();
    let connecting = std::thread::spawn(move || {
        let options = ChannelOptions::new().trust(sender);
        options.connect(Address::abstract_name(&name)).unwrap().port
    });
    let port2 = server.accept().unwrap().admit_with(ChannelOptions::new().trust(receiver)).unwrap();
    let port1 = connecting.join().unwrap();
    assert_eq!([port1.trust(), port2.trust()], [sender, receiver]);
    MessageChannel { port1, port2 }
}

/// Posts a port in one of the ways that there are.
fn post(carrier: &MessagePort, port: MessagePort, way: usize) -> Result<(), TransferError> {
    match way % 4 {
        0 => carrier.post_bytes_with(b"", transfer![port]),
        1 => carrier.post_with(&String::from("a value"), transfer![port]),
        2 => carrier.try_post_pod_with(&1u32, transfer![port]),
        _ => carrier.reserve(10).unwrap().publish_with(10, 0, transfer![port]),
    }
}

/// The port that was refused because its channel is trusted.
fn as_trusted(refused: TransferError) -> MessagePort {
    let TransferError { list, source, .. } = refused;
    let reason = Untransferable::Trusted;
    assert!(
        matches!(source, PostError::Untransferable { index: 0, reason: found } if found == reason),
        "{source:?}"
    );
    let [port] = <[MessagePort; 1]>::try_from(list.into_ports()).unwrap();
    port
}

/// Takes one step. `Err`: it was refused, and this is the port again.
#[allow(clippy::result_large_err)] // handing back what was handed in
fn go(
    port: MessagePort,
    hop: Hop,
    carriers: &[MessageChannel],
    way: usize,
) -> Result<MessagePort, MessagePort> {
    match hop {
        Hop::Carrier(sender, receiver) => {
            let on_the_way = |channel: &&MessageChannel| {
                (channel.port1.trust(), channel.port2.trust()) == (sender, receiver)
            };
            let carrier = carriers.iter().find(on_the_way).unwrap();
            if let Err(refused) = post(&carrier.port1, port, way) {
                assert!(carrier.port2.try_recv().is_err(), "nothing was posted");
                return Err(as_trusted(refused));
            }
            let [port] = carrier.port2.recv().unwrap().take_ports().unwrap();
            Ok(port)
        }
        Hop::Descriptors => {
            let parts = port.into_descriptors().map_err(as_trusted)?;
            Ok(MessagePort::from_descriptors(&parts.ticket, parts.descriptors).unwrap())
        }
        Hop::OwnDescriptors => {
            // SAFETY: nobody but this test gets them.
            let parts = unsafe { port.into_descriptors_trusted() }.unwrap();
            // SAFETY: nobody but this test has had them.
            let port =
                unsafe { MessagePort::from_descriptors_trusted(&parts.ticket, parts.descriptors) };
            Ok(port.unwrap())
        }
    }
}

/// All ways of up to three hops.
fn ways() -> Vec<Vec<Hop>> {
    let mut ways: Vec<Vec<Hop>> = vec![vec![]];
    for len in 0..3 {
        let longer = ways
            .iter()
            .filter(|way| way.len() == len)
            .flat_map(|way| HOPS.map(|hop| way.iter().copied().chain([hop]).collect::<Vec<_>>()));
        let longer: Vec<_> = longer.collect();
        ways.extend(longer);
    }
    ways
}

// A port is untrusted if it was so at its sender, or if its carrier is, on every later hop too; and an
// end of a trusted channel is refused on an untrusted carrier, as it was.
#[test]
fn on_every_way_of_three_hops() {
    let pairs =
        [(Trusted, Trusted), (Trusted, Untrusted), (Untrusted, Trusted), (Untrusted, Untrusted)];
    let carriers = pairs.map(|(sender, receiver)| carrier(sender, receiver));
    let (mut arrived, mut refused) = (0, 0);
    for (number, way) in ways().into_iter().enumerate() {
        for channel in [Trusted, Untrusted] {
            let MessageChannel { port1: other, port2: mut port } =
                ChannelOptions::new().trust(channel).open().unwrap();
            let mut trust = channel;
            for (at, hop) in way.iter().enumerate() {
                let expected = expected(channel, trust, *hop);
                let went = go(port, *hop, &carriers, number + at);
                let was_refused = went.is_err();
                assert_eq!(was_refused, expected.is_none(), "{way:?} at {at}");
                trust = expected.unwrap_or(trust);
                port = went.unwrap_or_else(|port| port);
                assert_eq!(port.trust(), trust, "{way:?} at {at}");
                refused += u32::from(was_refused);
            }
            assert_eq!(other.trust(), channel, "its other end goes on as it was");
            other.post_bytes(b"hello").unwrap();
            assert_eq!(port.recv().unwrap().bytes(), b"hello");
            arrived += 1;
        }
    }
    assert!(arrived == 2 * (1 + 6 + 36 + 216) && refused > 50, "{arrived}, {refused}");
}

// One of a list is enough, and its place is named; the others come back with it.
#[test]
fn one_trusted_end_keeps_the_whole_list_here() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    for index in 0..3 {
        let mut others = Vec::new();
        let list: Vec<_> = (0..3)
            .map(|at| {
                let trust = if at == index { Trusted } else { Untrusted };
                let MessageChannel { port1, port2 } =
                    ChannelOptions::new().trust(trust).open().unwrap();
                others.push(port1);
                port2
            })
            .collect();
        let TransferError { list, source, .. } = port1.post_bytes_with(b"", list).unwrap_err();
        let reason = Untransferable::Trusted;
        assert!(
            matches!(source, PostError::Untransferable { index: at, reason: found } if (at, found) == (index, reason)),
            "{source:?}"
        );
        for (port, other) in list.into_ports().into_iter().zip(others) {
            port.post_bytes(b"as it was").unwrap();
            assert_eq!(other.recv().unwrap().bytes(), b"as it was");
        }
        assert!(port2.try_recv().is_err());
    }
}

// The carrier is what counts, not what the sender says: a hostile one clears the mark on its ticket, and
// scribbles over all of the segment that is not in use. Nor can either make a trusted port of ours less.
alone!(no_word_of_the_segment_or_the_sender_decides, || {
    let trusts = |change: fn(&mut [u8; 80]), adopt: fn(&[u8], Vec<OwnedFd>) -> MessagePort| {
        [Trusted, Untrusted].map(|trust| {
            let MessageChannel { port1: _other, port2 } =
                ChannelOptions::new().trust(trust).open().unwrap();
            // SAFETY: nobody but this test gets them, and it changes no message.
            let mut parts = unsafe { port2.into_descriptors_trusted() }.unwrap();
            change(&mut parts.ticket);
            let segment = File::from(parts.descriptors[0].try_clone().unwrap());
            for byte in [0x00, 0xff, 0x04] {
                // Whether memory is used again, what is reserved in the identity, and what comes after
                // the control words.
                segment.write_all_at(&[byte & 1], 56).unwrap();
                segment.write_all_at(&[byte; 64], 64).unwrap();
                segment.write_all_at(&[byte; 0x1000 - 0x300], 0x300).unwrap();
            }
            adopt(&parts.ticket, parts.descriptors).trust()
        })
    };
    let from_strangers: fn(&[u8], Vec<OwnedFd>) -> MessagePort =
        |ticket, fds| MessagePort::from_descriptors(ticket, fds).unwrap();
    // SAFETY: nobody but this test has had them.
    let from_us: fn(&[u8], Vec<OwnedFd>) -> MessagePort =
        |ticket, fds| unsafe { MessagePort::from_descriptors_trusted(ticket, fds) }.unwrap();
    let unchanged = |_: &mut [u8; 80]| {};
    let cleared = |ticket: &mut [u8; 80]| ticket[5] &= !4;
    let set = |ticket: &mut [u8; 80]| ticket[5] |= 4;
    for change in [unchanged, cleared, set] {
        assert_eq!(trusts(change, from_strangers), [Untrusted, Untrusted]);
    }
    assert_eq!(trusts(unchanged, from_us), [Trusted, Untrusted]);
    assert_eq!(trusts(set, from_us), [Untrusted, Untrusted]);
});

/// The child says what the ports are that it gets, and sends ends of both kinds of channel.
/// The way for descriptors that was made for the list goes with the end of the channel.
#[test]
fn who_was_refused_a_list_can_be_given_away_after_its_end() {
    let MessageChannel { port1, port2 } = MessageChannel::untrusted().unwrap();
    let MessageChannel { port1: trusted, port2: _trusted } = MessageChannel::new().unwrap();
    let refused = port1.post_bytes_with(b"", transfer![trusted]).unwrap_err();
    assert!(matches!(
        refused.source,
        PostError::Untransferable { reason: Untransferable::Trusted, .. }
    ));
    drop(port2);
    assert!(matches!(port1.try_reserve(5), Err(PostError::Closed(_))));

    let MessageChannel { port1: near, port2: far } = MessageChannel::untrusted().unwrap();
    near.post_bytes_with(b"", transfer![port1]).unwrap();
    let [arrived] = far.recv().unwrap().take_ports().unwrap();
    assert!(matches!(arrived.recv(), Err(zeroport::RecvError::Closed(_))));
    near.post_bytes(b"the carrier lives").unwrap();
    assert_eq!(far.recv().unwrap().bytes(), b"the carrier lives");
}

fn trusting_child(port: MessagePort) {
    assert_eq!(port.trust(), Trusted, "a child trusts who has started it");
    let [theirs] = port.recv().unwrap().take_ports().unwrap();
    let trust = theirs.trust();
    theirs.post(&format!("{trust:?}")).unwrap();
    for trust in [Trusted, Untrusted] {
        let MessageChannel { port1, port2 } = ChannelOptions::new().trust(trust).open().unwrap();
        port.post_bytes_with(b"", transfer![port2]).unwrap();
        assert_eq!(port1.recv().unwrap().bytes(), b"taken");
    }
    // And on: what was untrusted at its sender is so at each later holder.
    let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
    port1.post_bytes_with(b"", transfer![theirs]).unwrap();
    let [theirs] = port2.recv().unwrap().take_ports().unwrap();
    let trust = theirs.trust();
    theirs.post(&format!("{trust:?}")).unwrap();
}

// A child can be untrusted by its parent: nothing of a trusted channel gets there, and what comes from
// there is untrusted here, whatever the child thinks of it.
#[test]
fn an_untrusted_child_gets_and_gives_untrusted_ports_only() {
    let test = "an_untrusted_child_gets_and_gives_untrusted_ports_only";
    let host = |port: MessagePort| {
        assert_eq!(port.trust(), Untrusted);
        let MessageChannel { port1: _kept, port2: secret } = MessageChannel::new().unwrap();
        let refused = port.post_bytes_with(b"", transfer![secret]).unwrap_err();
        assert!(matches!(
            refused.source,
            PostError::Untransferable { index: 0, reason: Untransferable::Trusted }
        ));
        let MessageChannel { port1: reports, port2: theirs } = MessageChannel::untrusted().unwrap();
        port.post_bytes_with(b"", transfer![theirs]).unwrap();
        assert_eq!(reports.recv().unwrap().get::<String>().unwrap(), "Untrusted");
        for _ in 0..2 {
            let [port] = port.recv().unwrap().take_ports().unwrap();
            assert_eq!(port.trust(), Untrusted);
            port.post_bytes(b"taken").unwrap();
        }
        assert_eq!(reports.recv().unwrap().get::<String>().unwrap(), "Untrusted");
    };
    support::with_process(test, Setup::new().untrusted(), host, trusting_child);
}

// Who stands between two that must not meet cannot introduce them: a child trusts its parent, and gives
// it one end of a channel that it trusts. The parent, who does not trust the child, cannot pass that on
// to a stranger, nor the port to the child itself; to its own it can.
#[test]
fn a_trusted_channel_does_not_get_to_strangers_through_a_third() {
    let test = "a_trusted_channel_does_not_get_to_strangers_through_a_third";
    let host = |port: MessagePort| {
        let [demoted] = port.recv().unwrap().take_ports().unwrap();
        assert_eq!(demoted.trust(), Untrusted);
        let own = MessageChannel::new().unwrap();
        own.port1.post_bytes_with(b"", transfer![demoted]).unwrap();
        let [demoted] = own.port2.recv().unwrap().take_ports().unwrap();
        let stranger = MessageChannel::untrusted().unwrap();
        let demoted = as_trusted(stranger.port1.post_bytes_with(b"", demoted).unwrap_err());
        let demoted = as_trusted(demoted.into_descriptors().unwrap_err());
        demoted.post_bytes(b"as it was").unwrap();
        let port = as_trusted(stranger.port1.post_bytes_with(b"", port).unwrap_err());
        port.post_bytes(b"as it was").unwrap();
    };
    let child = |port: MessagePort| {
        let MessageChannel { port1, port2 } = MessageChannel::new().unwrap();
        port.post_bytes_with(b"", port2).unwrap();
        assert_eq!(port1.recv().unwrap().bytes(), b"as it was");
        assert_eq!(port.recv().unwrap().bytes(), b"as it was");
    };
    support::with_process(test, Setup::new().untrusted(), host, child);
}

// Strangers meet untrusted, on both sides.
#[test]
fn strangers_get_and_give_untrusted_ports_only() {
    let name = format!("zeroport strangers {}", std::process::id());
    let server = Server::bind(Address::abstract_name(&name)).unwrap();
    let connecting =
        std::thread::spawn(move || connect(Address::abstract_name(&name)).unwrap().port);
    let ours = server.accept().unwrap().admit().unwrap();
    let theirs = connecting.join().unwrap();
    for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
        assert_eq!(from.trust(), Untrusted);
        let MessageChannel { port1: _kept, port2: secret } = MessageChannel::new().unwrap();
        let refused = from.post_bytes_with(b"", transfer![secret]).unwrap_err();
        let secret = refused.list.into_ports().pop().unwrap();
        assert_eq!(secret.trust(), Trusted);
        let MessageChannel { port1: _kept, port2: gift } = MessageChannel::untrusted().unwrap();
        from.post_bytes_with(b"", transfer![gift]).unwrap();
        let [gift] = to.recv().unwrap().take_ports().unwrap();
        assert_eq!(gift.trust(), Untrusted);
    }
}

/// A port that became untrusted on its way, its other end, and the memory that they share.
fn arrived(channel: Trust, hop: Hop) -> (MessagePort, MessagePort, File) {
    let MessageChannel { port1: other, port2 } =
        ChannelOptions::new().trust(channel).open().unwrap();
    // SAFETY: nobody but this test gets them, and it writes only where an untrusted port reads.
    let parts = unsafe { port2.into_descriptors_trusted() }.unwrap();
    let segment = File::from(parts.descriptors[0].try_clone().unwrap());
    // SAFETY: nobody but this test has had them, and it writes only where an untrusted port reads.
    let port =
        unsafe { MessagePort::from_descriptors_trusted(&parts.ticket, parts.descriptors) }.unwrap();
    assert_eq!(port.trust(), channel);
    let Hop::Carrier(sender, receiver) = hop else { return (port, other, segment) };
    let carriers = [carrier(sender, receiver)];
    (go(port, hop, &carriers, 0).unwrap(), other, segment)
}

fn place_of(bytes: &[u8], segment: &File) -> Option<u64> {
    let mut all = vec![0; segment.metadata().unwrap().len() as usize];
    segment.read_exact_at(&mut all, 0).unwrap();
    all.windows(bytes.len()).position(|found| found == bytes).map(|at| at as u64)
}

// S-139: payloads of such a port are private from the moment when they are handed out, and until the
// moment when they are published, whatever way they take; those of a trusted one lie in the ring.
alone!(payloads_of_an_untrusted_port_are_private, || {
    let ways = [
        (Untrusted, Hop::OwnDescriptors),
        (Untrusted, Hop::Carrier(Trusted, Trusted)),
        (Trusted, Hop::Carrier(Trusted, Untrusted)),
        (Trusted, Hop::OwnDescriptors),
        (Trusted, Hop::Carrier(Trusted, Trusted)),
    ];
    for (number, (channel, hop)) in ways.into_iter().enumerate() {
        let (port, other, segment) = arrived(channel, hop);
        let is_private = port.trust() == Untrusted;
        assert_eq!(is_private, number < 3, "{hop:?}");

        let sent = pattern(number as u64, 3000);
        other.post_bytes(&sent).unwrap();
        let message = port.recv().unwrap();
        let place = place_of(&sent, &segment).expect("what was posted lies in the ring");
        if is_private {
            segment.write_all_at(&[0xee; 3000], place).unwrap();
            assert_eq!(place_of(&sent, &segment), None);
            assert_eq!(message.bytes(), sent, "what was received is out of reach");
        } else {
            // Where it lies there is nothing to change: that is what trust is about.
            assert!(is_mapped_here(message.bytes(), &segment));
        }
        drop(message);

        let secret = pattern(100 + number as u64, 3000);
        let mut loan = port.reserve(3000).unwrap();
        loan.copy_from_slice(&secret);
        assert_eq!(place_of(&secret, &segment).is_none(), is_private, "a loan, {hop:?}");
        drop(loan);
        assert_eq!(place_of(&secret, &segment).is_none(), is_private, "a loan that was dropped");

        let mut loan = port.reserve(3000).unwrap();
        loan.copy_from_slice(&secret);
        // Only what is published is copied.
        loan.publish(2000).unwrap();
        assert!(place_of(&secret[..2000], &segment).is_some());
        assert_eq!(place_of(&secret[2100..], &segment).is_none(), is_private);
        assert_eq!(other.recv().unwrap().bytes(), &secret[..2000]);
    }
});

/// Whether bytes lie in a mapping of this file.
fn is_mapped_here(bytes: &[u8], file: &File) -> bool {
    let inode = file.metadata().unwrap().ino().to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text| usize::from_str_radix(text, 16).unwrap();
    maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode)).any(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        (number(from)..number(to)).contains(&bytes.as_ptr().addr())
    })
}
