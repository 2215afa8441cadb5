#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeroport_fuzz::c_calls(data));
