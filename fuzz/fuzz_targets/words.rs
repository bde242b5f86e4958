#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oomguard::fuzz::words(bytes));
