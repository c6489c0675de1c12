//! The time that files state.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of 1970, to the millisecond.
pub fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |time| time.as_millis() as f64 / 1e3)
}
