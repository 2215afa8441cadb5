//! Arbitrary bytes as the payload of a named message: opened or refused, dispatched or counted, and the port goes on.

use arbitrary::Arbitrary;
use zeroport::{
    Buffer, ChannelOptions, Handlers, MessageChannel, MessagePort, NamedMessage, PeerState,
    TransferList, Trust, tag_of_name,
};

#[derive(Arbitrary, Debug)]
struct Script<'a> {
    is_untrusted: bool,
    /// Ports and buffers that come along.
    list: [u8; 2],
    /// An honest envelope that comes first, if there is one.
    honest: Option<Honest<'a>>,
    /// Bytes that are changed in it.
    edits: Vec<(u16, u8)>,
    more: &'a [u8],
}

#[derive(Arbitrary, Debug)]
struct Honest<'a> {
    is_request: bool,
    name: &'a str,
    tag: u32,
}

pub fn envelope(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let payload = script.payload();
    let is_good = zeroport::fuzzing::parse_envelope(&payload);
    let trust = if script.is_untrusted { Trust::Untrusted } else { Trust::Trusted };
    let MessageChannel { port1, port2 } = ChannelOptions::new().trust(trust).open().unwrap();
    let [ports, buffers] = script.list.map(|count| usize::from(count % 4));

    post(&port1, &payload, [ports, buffers]);
    match NamedMessage::open(port2.recv().unwrap()) {
        Ok(message) => {
            assert!(is_good);
            assert!(message.bytes().as_ptr().addr().is_multiple_of(16), "aligned");
            let _ = (message.get::<String>().is_ok(), message.pod::<u64>().is_ok());
            let before = usize::from(message.is_request());
            assert_eq!(message.port_count() + before, ports);
            assert_eq!(message.take_all_ports().unwrap().len() + before, ports);
            assert_eq!(message.buffer_count(), buffers);
            assert_eq!(message.responder().unwrap().is_some(), message.is_request());
        }
        Err(error) => assert!(!is_good || ports == 0, "{error}"),
    }

    post(&port1, &payload, [ports, buffers]);
    let mut handlers = Handlers::new();
    handlers.dispatch(port2.sender(), &(), &port2.recv().unwrap());
    assert_eq!(handlers.unhandled() + handlers.message_errors(), 1);
    assert_eq!(port2.peer_state(), PeerState::Open);
}

fn post(port: &MessagePort, payload: &[u8], [ports, buffers]: [usize; 2]) {
    let mut list = TransferList::new();
    (0..ports).for_each(|_| list.push(MessageChannel::untrusted().unwrap().port1));
    (0..buffers).for_each(|_| list.push(Buffer::new(1).unwrap()));
    let mut loan = port.reserve(payload.len()).unwrap();
    loan.copy_from_slice(payload);
    loan.publish_with(payload.len(), tag_of_name("zeroport.named"), list).unwrap();
}

impl Script<'_> {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(Honest { is_request, name, tag }) = &self.honest {
            bytes.extend([1 + u8::from(*is_request), 0]);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(tag.to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend(name.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        for (place, byte) in &self.edits {
            let place = usize::from(*place) % bytes.len().max(1);
            bytes.get_mut(place).into_iter().for_each(|edited| *edited ^= byte);
        }
        bytes.extend(self.more);
        bytes
    }
}
