//! The time in the files of a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, to the millisecond.
pub fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |time| time.as_millis() as f64 / 1e3)
}
