//! Writes `_core.pyi` from the compiled module: what Python's type checkers see is what PyO3 built.
//!
//!     cargo build -p oomguard-py --features inspect
//!     cargo run -p oomguard-py --features inspect --example stubs -- python/oomguard/_core.pyi

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let wanted = std::env::args_os().nth(1).ok_or("give the path of the stub to write")?;
    // This program lies in `examples` beside the library.
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).ok_or("not in a target directory")?;
    let library: PathBuf =
        folder.join(format!("{}_core{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    let module = pyo3_introspection::introspect_cdylib(&library, "_core")?;
    let stubs = pyo3_introspection::module_stub_files(&module);
    let stub = stubs.values().next().ok_or("the module has no stub")?;
    std::fs::write(wanted, stub)?;
    Ok(())
}
