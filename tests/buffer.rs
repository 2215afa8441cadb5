//! Buffers: filled as bytes and as plain data, sealed, copied; nothing leaks; useless in a forked child.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![allow(unsafe_code)]

mod support;

use std::fmt::Debug;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, WaitOptions, waitpid};
use static_assertions::assert_impl_all;
use support::{alone, count_descriptors, count_segment_mappings};
use zeroport::{Buffer, BufferError, DecodeError, SealedBuffer};

assert_impl_all!(Buffer: Send, Sync, Debug, std::panic::UnwindSafe, std::panic::RefUnwindSafe);
assert_impl_all!(SealedBuffer: Send, Sync, Debug, std::panic::UnwindSafe, std::panic::RefUnwindSafe);
assert_impl_all!(BufferError: std::error::Error, Send, Sync);

const LENS: [usize; 6] = [0, 1, 4095, 4096, 4097, 1 << 20];

/// Forks; the child runs `body` and ends. It must not fail.
fn in_fork(body: impl FnOnce()) {
    // SAFETY: the child runs `body` on its only thread and then ends without any clean-up. glibc keeps
    // its allocator usable in such a child.
    match unsafe { libc::fork() } {
        0 => {
            let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        pid => {
            let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "the forked child failed");
        }
    }
}

#[test]
fn filled_as_bytes() {
    for len in LENS {
        let mut buffer = Buffer::new(len).unwrap();
        assert_eq!(buffer.len(), len);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(7);
        let sealed = buffer.seal().unwrap();
        assert_eq!(sealed.len(), len);
        assert!(sealed.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn filled_as_plain_data() {
    let values: Vec<u64> = (0..5000).collect();
    let mut buffer = Buffer::new(8 * values.len()).unwrap();
    buffer.as_pod_slice_mut().unwrap().copy_from_slice(&values);
    assert_eq!(buffer.as_pod_slice::<u64>().unwrap(), values);
    let sealed = buffer.seal().unwrap();
    assert_eq!(sealed.pod_slice::<u64>().unwrap(), values);
    assert_eq!(sealed.pod_slice::<u128>().unwrap().len(), 2500);
    assert!(sealed.as_ptr().addr().is_multiple_of(4096));
}

#[test]
fn a_length_that_is_no_number_of_values_is_named() {
    fn expect_refused<T: Debug>(refused: Result<T, DecodeError>) {
        assert!(matches!(refused.unwrap_err(), DecodeError::Length { len: 7, unit: 4 }));
    }
    let mut buffer = Buffer::new(7).unwrap();
    expect_refused(buffer.as_pod_slice::<u32>());
    expect_refused(buffer.as_pod_slice_mut::<u32>());
    expect_refused(buffer.seal().unwrap().pod_slice::<u32>());
    assert!(Buffer::new(0).unwrap().as_pod_slice::<u32>().unwrap().is_empty());
}

#[test]
fn a_copy_is_private_and_can_be_written() {
    for len in LENS {
        let mut buffer = Buffer::new(len).unwrap();
        buffer.fill(1);
        let sealed = buffer.seal().unwrap();
        let mut copy = sealed.to_buffer().unwrap();
        assert_eq!(copy[..], sealed[..]);
        copy.fill(2);
        assert!(sealed.iter().all(|byte| *byte == 1));
        assert!(copy.seal().unwrap().iter().all(|byte| *byte == 2));
    }
    assert_eq!(Buffer::try_from(&b"bytes"[..]).unwrap()[..], *b"bytes");
}

#[test]
fn what_cannot_be_is_an_error_that_names_the_length() {
    for len in [1 << 50, isize::MAX as usize, usize::MAX] {
        let error = Buffer::new(len).unwrap_err();
        assert!(matches!(error, BufferError::Os { len: named, .. } if named == len));
        assert!(error.to_string().contains(&len.to_string()), "{error}");
    }
}

#[test]
fn debug_shows_no_content() {
    let buffer = Buffer::from_slice(b"secret").unwrap();
    assert_eq!(format!("{buffer:?}"), "Buffer { len: 6, .. }");
    assert_eq!(format!("{:?}", buffer.seal().unwrap()), "SealedBuffer { len: 6, .. }");
}

#[test]
fn threads_share_and_move_them() {
    let mut buffer = Buffer::new(1 << 16).unwrap();
    let (first, second) = buffer.split_at_mut(1 << 15);
    std::thread::scope(|scope| {
        scope.spawn(|| first.fill(1));
        scope.spawn(|| second.fill(2));
    });
    let sealed = std::thread::spawn(|| buffer.seal().unwrap()).join().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(sealed.iter().map(|n| u64::from(*n)).sum::<u64>() == 3 << 15));
        }
    });
}

alone!(nothing_leaks, || {
    // What is made once for the whole process.
    drop(Buffer::new(1).unwrap());
    let before = (count_descriptors(), count_segment_mappings());
    let now = || (count_descriptors(), count_segment_mappings());
    let made: Vec<_> = LENS.into_iter().map(|len| Buffer::new(len).unwrap()).collect();
    assert_eq!(now(), (before.0 + LENS.len(), before.1 + LENS.len()));
    let sealed: Vec<_> = made.into_iter().map(|buffer| buffer.seal().unwrap()).collect();
    assert_eq!(now(), (before.0 + LENS.len(), before.1 + LENS.len()));
    let copies: Vec<_> = sealed.iter().map(|sealed| sealed.to_buffer().unwrap()).collect();
    assert_eq!(now(), (before.0 + 2 * LENS.len(), before.1 + 2 * LENS.len()));
    drop(sealed);
    drop(copies);
    assert_eq!(now(), before);
    assert!(Buffer::new(1 << 50).is_err());
    assert_eq!(now(), before);
});

alone!(a_forked_child_has_an_empty_buffer, || {
    let mut buffer = Buffer::from_slice(&[7; 5000]).unwrap();
    let mut whole = Some(Buffer::from_slice(&[8; 5000]).unwrap());
    in_fork(|| {
        assert_eq!(count_segment_mappings(), 0);
        assert!(buffer.is_empty());
        buffer.fill(1);
        assert!(buffer.as_pod_slice_mut::<u64>().unwrap().is_empty());
        assert_eq!(format!("{buffer:?}"), "Buffer { len: 0, .. }");
        assert!(matches!(whole.take().unwrap().seal(), Err(BufferError::Detached)));
        // It has buffers of its own.
        let own = Buffer::from_slice(b"own").unwrap().seal().unwrap();
        assert_eq!(own[..], *b"own");
    });
    assert_eq!(buffer[..], [7; 5000]);
    // The child has not kept it from being sealed.
    assert_eq!(buffer.seal().unwrap()[..], [7; 5000]);
    assert_eq!(whole.unwrap().seal().unwrap()[..], [8; 5000]);
});

// By the time the copy is dropped, its place may be somebody else's.
alone!(the_childs_drop_unmaps_nothing, || {
    let buffer = Buffer::from_slice(&[7; 4096]).unwrap();
    let place = buffer.as_ptr().cast_mut();
    let mut copy = Some(buffer);
    in_fork(|| {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: nothing is mapped there, or it would be refused.
        let other = unsafe { libc::mmap(place.cast(), 4096, access, flags, -1, 0) };
        assert_eq!(other.cast(), place, "the child has no mapping there");
        // SAFETY: mapped above.
        unsafe { place.write(9) };
        let before = count_descriptors();
        drop(copy.take());
        assert_eq!(count_descriptors(), before - 1, "its descriptor is closed");
        // SAFETY: mapped above.
        assert_eq!(unsafe { place.read() }, 9);
        drop(File::open("/proc/self/exe").unwrap());
    });
    assert_eq!(copy.unwrap()[..], [7; 4096]);
});

// What is sealed is as good in the child as in the parent.
alone!(a_sealed_buffer_outlives_a_fork, || {
    let mut sealed = Some(Buffer::from_slice(&[7; 5000]).unwrap().seal().unwrap());
    in_fork(|| {
        let sealed = sealed.take().unwrap();
        assert_eq!(sealed[..], [7; 5000]);
        assert_eq!(sealed.to_buffer().unwrap()[..], [7; 5000]);
        drop(sealed);
        assert_eq!(count_segment_mappings(), 0);
    });
    assert_eq!(sealed.unwrap()[..], [7; 5000]);
});
