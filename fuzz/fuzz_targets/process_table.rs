#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use oomguard_sys::fuzz;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(fuzz::folder);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::process_table(&FOLDER, bytes));
