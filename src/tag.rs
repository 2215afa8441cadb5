//! The type tag: 32 bits in each record that say what the payload is.
//!
//! A tag is the 32-bit FNV-1a hash (Fowler, Noll and Vo; <http://www.isthe.com/chongo/tech/comp/fnv/>) of a byte
//! string, and 1 where that hash is 0; tag 0 means "untagged". The byte string is
//!
//! * for rkyv values, the type's declared name in UTF-8;
//! * for plain data, the name, one zero byte, the size and the alignment of the type, each as eight
//!   little-endian bytes.
//!
//! Another language repeats it in five lines:
//!
//! ```text
//! hash = 2166136261
//! for byte in name (and, for plain data, 0, size as u64 LE, alignment as u64 LE):
//!     hash = (hash xor byte) * 16777619   (mod 2^32)
//! tag = hash, or 1 if hash is 0
//! ```

/// A type that declares its name on the wire.
///
/// Two programs understand each other if they use the same name for the same type, so a name is a
/// promise: change it whenever the type's fields change. Any string will do; `"app.Question"` or
/// `"app.Question/2"` are good ones. The name becomes the message's 32-bit type tag at compile time
/// (how: [`tag_of_name`] and [`tag_of_plain_data`]). Memory safety never rests on it: a payload is
/// validated whatever its tag says.
///
/// ```
/// # #[cfg(feature = "rkyv")]
/// # mod with_rkyv {
/// use zeroport::Tagged;
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Question {
///     n: u32,
/// }
///
/// impl Tagged for Question {
///     const NAME: &'static str = "demo.Question";
/// }
/// # }
/// ```
pub trait Tagged {
    /// The name of the type on the wire.
    const NAME: &'static str;
}

/// The tag of an rkyv value: FNV-1a of the name.
///
/// ```
/// assert_eq!(zeroport::tag_of_name("demo.Question"), 0x4a9c_f414);
/// assert_ne!(zeroport::tag_of_name("demo.Answer"), zeroport::tag_of_name("demo.Question"));
/// ```
pub const fn tag_of_name(name: &str) -> u32 {
    never_untagged(fnv1a(FNV_OFFSET, name.as_bytes()))
}

/// The tag of plain data: FNV-1a of the name, a zero byte, and size and alignment in bytes.
///
/// ```
/// // A `u32` in Rust, a `uint32_t` in C.
/// assert_eq!(zeroport::tag_of_plain_data("u32", 4, 4), 0xb1fd_ade3);
/// ```
pub const fn tag_of_plain_data(name: &str, size: u64, align: u64) -> u32 {
    let hash = fnv1a(fnv1a(FNV_OFFSET, name.as_bytes()), &[0]);
    never_untagged(fnv1a(fnv1a(hash, &size.to_le_bytes()), &align.to_le_bytes()))
}

#[cfg_attr(not(feature = "rkyv"), allow(dead_code))]
pub(crate) const fn value_tag<T: Tagged>() -> u32 {
    const { tag_of_name(T::NAME) }
}

pub(crate) const fn plain_data_tag<T: Tagged>() -> u32 {
    const { tag_of_plain_data(T::NAME, size_of::<T>() as u64, align_of::<T>() as u64) }
}

const FNV_OFFSET: u32 = 2_166_136_261;
const FNV_PRIME: u32 = 16_777_619;

const fn fnv1a(mut hash: u32, mut bytes: &[u8]) -> u32 {
    while let [byte, rest @ ..] = bytes {
        hash = (hash ^ *byte as u32).wrapping_mul(FNV_PRIME);
        bytes = rest;
    }
    hash
}

const fn never_untagged(hash: u32) -> u32 {
    if hash == 0 { 1 } else { hash }
}

macro_rules! tagged {
    ($($type:ty = $name:literal),* $(,)?) => {
        $(impl Tagged for $type {
            const NAME: &'static str = $name;
        })*
    };
}

tagged! {
    u8 = "u8", u16 = "u16", u32 = "u32", u64 = "u64", u128 = "u128",
    i8 = "i8", i16 = "i16", i32 = "i32", i64 = "i64", i128 = "i128",
    f32 = "f32", f64 = "f64", bool = "bool", char = "char", () = "()", String = "string",
}

/// An array goes by its element's name; the tag of plain data also tells the lengths apart.
impl<T: Tagged, const N: usize> Tagged for [T; N] {
    const NAME: &'static str = T::NAME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of the FNV authors.
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0x811c_9dc5);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn plain_data_is_told_apart_by_size() {
        assert_ne!(plain_data_tag::<[u32; 2]>(), plain_data_tag::<[u32; 3]>());
        assert_ne!(plain_data_tag::<u32>(), value_tag::<u32>());
    }

    #[test]
    fn no_type_is_untagged() {
        assert_eq!(never_untagged(0), 1);
    }
}
