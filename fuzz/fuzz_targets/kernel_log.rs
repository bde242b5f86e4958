#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oomguard_sys::fuzz::kernel_log(bytes));
