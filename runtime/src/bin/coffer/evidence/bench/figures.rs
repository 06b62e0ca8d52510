//! What the benches count with.

use std::time::Duration;

use crate::error::{Class, CliError};

/// Rounds of each measurement; the median is reported.
pub const ROUNDS: usize = 301;

/// The figure could not be taken; a defect of ours.
pub fn broken(what: &str) -> CliError {
    CliError::new(Class::Internal, format!("evidence made for the measurement: {what}"))
}

/// In microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A count, to reckon with.
pub fn real(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::INFINITY, f64::from)
}

/// The middle one.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
