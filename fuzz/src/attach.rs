//! A memfd of arbitrary contents, size and seals, as a channel's segment or as a grown ring.

use std::os::fd::AsFd;

use arbitrary::Arbitrary;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::pwrite;
use zeroport::fuzzing;

#[derive(Arbitrary, Debug)]
struct Script {
    capacity: [u8; 2],
    /// Words of an honest header that are changed.
    changes: Vec<(u8, u64)>,
    /// Added to the length of an honest file.
    longer: i32,
    seals: u8,
    sealable: bool,
    grown: Grown,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Grown {
    No,
    /// Of any capacity, or of the one that is told.
    Yes {
        told: Option<u8>,
    },
}

pub fn attach(data: &[u8]) {
    let Some(script) = crate::script::<Script>(data) else { return };
    let mut honest = script.capacity.map(|exponent| 1u64 << (exponent % 40));
    if let Grown::Yes { .. } = script.grown {
        honest[1] = 0;
    }
    let (mut words, len) = fuzzing::identity(honest);
    for &(place, word) in &script.changes {
        words[usize::from(place) % words.len()] = word;
    }
    let flags = if script.sealable { MemfdFlags::ALLOW_SEALING } else { MemfdFlags::empty() };
    let memfd = memfd_create("fuzz", flags).unwrap();
    let len = len.saturating_add_signed(script.longer.into());
    pwrite(&memfd, bytemuck::bytes_of(&words), 0).unwrap();
    ftruncate(&memfd, len).unwrap();
    let seals = SealFlags::from_bits_retain(script.seals.into());
    let sealed = fcntl_add_seals(memfd.as_fd(), seals).is_ok();
    let needed = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    let attached = match script.grown {
        Grown::No => fuzzing::attach(memfd),
        Grown::Yes { told } => {
            let told = told.map(|exponent| 1 << (exponent % 40));
            let attached = fuzzing::attach_grown(memfd, told);
            if let (Ok([capacity, _]), Some(told)) = (&attached, told) {
                assert_eq!(*capacity, told, "as told");
            }
            attached
        }
    };
    if let Ok(capacities) = attached {
        assert!(sealed && seals.contains(needed), "only sealed memory");
        assert_eq!(len, fuzzing::identity(capacities).1, "only of the right size");
        let rings = if let Grown::No = script.grown { &capacities[..] } else { &capacities[..1] };
        assert!(rings.iter().all(|capacity| (4 << 10..=1 << 30).contains(capacity)));
    }
}
