//! `oomguard._core`.
use pyo3::prelude::*;

/// What Python needs from the engine.
#[pymodule]
fn _core(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
