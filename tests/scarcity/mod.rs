//! A process that runs out of descriptors, for as long as a test wants it.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::support::{count_descriptors, lower_descriptor_limit, raise_descriptor_limit};

/// Leaves this process exactly so many more descriptors, until it is dropped.
pub(crate) struct Scarcity {
    _fillers: Vec<File>,
}

impl Scarcity {
    pub(crate) fn new(free: usize) -> Self {
        // All numbers below the limit must be in use for the limit to be exact, also after a trim.
        zeroport::trim();
        let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
        let number = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap()
        };
        let highest = numbers.map(number).max().unwrap();
        let mut fillers = vec![File::open("/dev/null").unwrap()];
        while fillers.last().unwrap().as_raw_fd() < highest {
            fillers.push(File::open("/dev/null").unwrap());
        }
        lower_descriptor_limit((count_descriptors() + free) as u64);
        Self { _fillers: fillers }
    }
}

impl Drop for Scarcity {
    fn drop(&mut self) {
        raise_descriptor_limit();
    }
}
