//! Arbitrary bytes, posted as values of several types: each is read as a value or refused.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hint::black_box;

use arbitrary::Arbitrary;
use rkyv::ser::{Allocator, Writer};
use rkyv::{Archive, Serialize, rancor};
use zeroport::{ChannelOptions, Message, MessageChannel, Readable, Tagged, Trust};

#[derive(Arbitrary, Archive, Debug, Serialize)]
#[rkyv(derive(Debug))]
pub struct Nested {
    id: u32,
    name: String,
    pairs: Vec<(u16, String)>,
    map: BTreeMap<String, Vec<u8>>,
    maybe: Option<Box<Shape>>,
}

#[derive(Arbitrary, Archive, Debug, Serialize)]
#[rkyv(derive(Debug))]
pub enum Shape {
    Point,
    Circle { radius: f64 },
    Named(String, char, bool),
}

#[derive(Arbitrary, Archive, Debug, Serialize)]
#[rkyv(
    derive(Debug),
    serialize_bounds(__S: Writer + Allocator, __S::Error: rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rancor::Source))
)]
pub struct Tree {
    #[rkyv(omit_bounds)]
    branches: Vec<Tree>,
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Plain {
    wide: u64,
    pair: [u32; 2],
}

impl Tagged for Nested {
    const NAME: &str = "fuzz.Nested";
}

impl Tagged for Tree {
    const NAME: &str = "fuzz.Tree";
}

impl Tagged for Plain {
    const NAME: &str = "fuzz.Plain";
}

#[derive(Arbitrary, Debug)]
struct Script<'a> {
    /// Whether the ports trust each other; and whether their rings are so small that much does not fit.
    channel: u8,
    tag: Tag,
    /// An honest value whose archive comes first, if there is one.
    value: Option<Value>,
    /// Bytes that are changed in it.
    edits: Vec<(u16, u8)>,
    more: &'a [u8],
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Tag {
    Nested,
    Tree,
    Text,
    Plain,
    Untagged,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Nested(Nested),
    Tree(Tree),
}

/// More than fits in a ring.
const MAX: usize = 60_000;

pub fn payload(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let trust = if script.channel & 1 == 1 { Trust::Untrusted } else { Trust::Trusted };
    let options = ChannelOptions::new().trust(trust);
    let options = if script.channel & 2 == 2 { options.capacity(4096) } else { options };
    let MessageChannel { port1, port2 } = options.open().unwrap();
    let mut bytes = script.bytes();
    bytes.truncate(MAX);
    let mut loan = port1.reserve(bytes.len()).unwrap();
    loan.copy_from_slice(&bytes);
    let plain = zeroport::tag_of_plain_data(Plain::NAME, 16, 8);
    let tag = match script.tag {
        Tag::Nested => zeroport::tag_of_name(Nested::NAME),
        Tag::Tree => zeroport::tag_of_name(Tree::NAME),
        Tag::Text => zeroport::tag_of_name(String::NAME),
        Tag::Plain => plain,
        Tag::Untagged => 0,
    };
    loan.publish_tagged(bytes.len(), tag).unwrap();
    let message = port2.recv().unwrap();
    assert_eq!(message.bytes(), bytes);
    let read = [
        walk::<Nested>(&message),
        walk::<Tree>(&message),
        walk::<String>(&message),
        message.pod::<Plain>().map(show).is_ok(),
        message.pod_slice::<Plain>().map(show).is_ok(),
    ];
    let whole = bytes.len().is_multiple_of(16);
    assert_eq!(read[3], tag == plain && bytes.len() == 16, "one plain value");
    assert_eq!(read[4], tag == plain && whole, "a slice of plain values");
    assert!(tag != 0 || read == [false; 5], "bytes have no type");
    if script.edits.is_empty() && script.more.is_empty() && bytes.len() < MAX {
        match (script.tag, script.value) {
            (Tag::Nested, Some(Value::Nested(_))) => assert!(read[0], "an honest value"),
            (Tag::Tree, Some(Value::Tree(tree))) => {
                assert!(read[1] || tree.depth() > 100, "an honest value");
            }
            _ => {}
        }
    }
}

impl Script<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match &self.value {
            Some(Value::Nested(value)) => rkyv::to_bytes::<rancor::Error>(value).unwrap().to_vec(),
            Some(Value::Tree(value)) => rkyv::to_bytes::<rancor::Error>(value).unwrap().to_vec(),
            None => Vec::new(),
        };
        for (place, byte) in &self.edits {
            let place = usize::from(*place) % bytes.len().max(1);
            bytes.get_mut(place).into_iter().for_each(|edited| *edited ^= byte);
        }
        // rkyv reads from the end, so what is more goes before it; archives start at 16.
        let more = &self.more[..self.more.len() / 16 * 16];
        [more, &bytes].concat()
    }
}

impl Tree {
    fn depth(&self) -> usize {
        1 + self.branches.iter().map(Self::depth).max().unwrap_or(0)
    }
}

/// Reads a value to its last leaf.
fn walk<T: Readable<Archived: Debug>>(message: &Message<'_>) -> bool {
    message.get::<T>().map(show).is_ok()
}

fn show(value: &(impl Debug + ?Sized)) {
    black_box(format!("{value:?}"));
}
