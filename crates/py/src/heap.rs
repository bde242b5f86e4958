//! This process's own memory, as Python asks for it.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use oomguard_sys::footprint;

/// Bytes of this process that are in RAM, shared pages included; None where that cannot be read. 15 us.
#[pyfunction]
pub(crate) fn resident() -> Option<u64> {
    footprint::resident().ok().map(|bytes| bytes.0)
}

/// The most that resident() has been since the process began, or since forget_peak(); None where it cannot be read.
#[pyfunction]
pub(crate) fn peak_resident() -> Option<u64> {
    footprint::peak().ok().map(|bytes| bytes.0)
}

/// Begins a new peak_resident(). Raises OSError where the kernel does not let us.
#[pyfunction]
pub(crate) fn forget_peak() -> PyResult<()> {
    footprint::forget_peak().map_err(|error| PyOSError::new_err(error.to_string()))
}

/// Gives freed heap back to the kernel (malloc_trim), without the GIL. Returns the bytes that the resident set fell by,
/// None where the allocator has no such call.
#[pyfunction]
pub(crate) fn trim(py: Python<'_>) -> Option<u64> {
    py.detach(footprint::trim).map(|bytes| bytes.0)
}
