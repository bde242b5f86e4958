//! Whether something grows for good: the guard's own estimator, for what Python measures.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use oomguard_core::{Bytes, Estimate, Instant};

/// The trend of the lowest value of each window: Theil and Sen's slope with Mann and Kendall's confidence, over the
/// newest 16 windows. With `window_seconds` of 0 each value counts. `seconds` may be any count that only rises.
#[pyclass(module = "oomguard._core")]
pub(crate) struct Trend {
    trend: oomguard_core::Trend,
    estimate: Option<Estimate>,
}

#[pymethods]
impl Trend {
    #[new]
    #[pyo3(signature = (window_seconds = 0.0))]
    fn new(window_seconds: f64) -> PyResult<Trend> {
        let window = time("window_seconds", window_seconds)?;
        Ok(Trend { trend: oomguard_core::Trend::new(window), estimate: None })
    }

    /// Takes the value at this moment. Whether a window has ended with it.
    fn add(&mut self, seconds: f64, bytes: u64) -> PyResult<bool> {
        let at = Instant(0).after(time("seconds", seconds)?);
        let ended = self.trend.update(at, Bytes(bytes));
        if ended {
            self.estimate = self.trend.estimate();
        }
        Ok(ended)
    }

    /// Windows that count: 16 at the most.
    #[getter]
    fn windows(&self) -> usize {
        self.trend.floors()
    }

    /// Bytes per second, negative while it shrinks; None before the fourth window.
    #[getter]
    fn slope(&self) -> Option<i64> {
        self.estimate.map(|estimate| estimate.slope)
    }

    /// The slope is no less, with 95 % certainty.
    #[getter]
    fn at_least(&self) -> Option<i64> {
        self.estimate.map(|estimate| estimate.at_least)
    }

    /// The slope is no more, with 95 % certainty.
    #[getter]
    fn at_most(&self) -> Option<i64> {
        self.estimate.map(|estimate| estimate.at_most)
    }

    /// That it grows (shrinks, where the slope is negative) and chance alone did not do this: 0.5 to 0.999.
    #[getter]
    fn confidence(&self) -> Option<f64> {
        self.estimate.map(|estimate| estimate.confidence.fraction())
    }

    /// Whether it grows for good: at least eight windows, 99 % certain, by 32 MiB or more, to where it has not been,
    /// and not less and less.
    #[getter]
    fn sure(&self) -> bool {
        self.estimate.is_some_and(|estimate| estimate.is_growth())
    }

    /// Seconds until `usage` has become `limit` at this slope, None while it does not grow.
    fn reaches(&self, limit: u64, usage: u64) -> Option<f64> {
        let slope = self.estimate.map(|estimate| estimate.slope).filter(|slope| *slope > 0)?;
        Some(limit.saturating_sub(usage) as f64 / slope as f64)
    }

    fn __repr__(&self) -> String {
        match self.estimate {
            Some(known) => format!(
                "Trend({} bytes/s, {} to {}, {:.1} % certain, {} windows)",
                known.slope,
                known.at_least,
                known.at_most,
                known.confidence.fraction() * 100.0,
                self.trend.floors()
            ),
            None => format!("Trend(unknown, {} windows)", self.trend.floors()),
        }
    }
}

fn time(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("{name} must be a number of seconds, 0 or more, not `{seconds}`"))
    })
}
