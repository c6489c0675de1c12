//! Durations for people.

use std::time::Duration;

/// As `8 s`, `10 min 23 s`, `3 h 5 min`, `2 d 4 h`.
pub fn time_text(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let parts = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => parts(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => parts(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => parts(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// [`time_text`] of computed seconds: `?` if they are negative, not finite or too many.
pub fn seconds_text(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if seconds < 1e10 => time_text(time),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_its_two_largest_units() {
        let text = |seconds: f64| time_text(Duration::from_secs_f64(seconds));
        let times = [0.2, 59.4, 59.6, 623.0, 3600.0, 11_100.0, 187_200.0];
        let texts = ["0 s", "59 s", "1 min", "10 min 23 s", "1 h", "3 h 5 min", "2 d 4 h"];
        assert_eq!(times.map(text), texts);
        assert_eq!(
            [623.0, -1.0, 1e300, f64::NAN].map(seconds_text),
            ["10 min 23 s", "?", "?", "?"]
        );
    }
}
