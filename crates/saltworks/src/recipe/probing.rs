//! When online probes are due in a stage.

use super::Probe;

impl Probe {
    /// The most probes between a stage's first and last one if `every_steps` is not set.
    pub const MOST: u64 = 20;
    /// Shares of a stage after which a probe is due even if `share` allows none. So reports of a
    /// short stage soon show more than its untrained encoder.
    const DUE: [f64; 4] = [0.05, 0.25, 0.5, 0.75];
    /// Such a probe waits until it takes at most this share of the time trained so far. All of them
    /// then take at most this share of a stage.
    pub const MOST_DUE_SHARE: f64 = 0.1;

    /// Whether one of these shares of `steps` steps was reached after the step `last`.
    pub fn is_share_reached(steps: u64, last: u64, step: u64) -> bool {
        let due = Self::DUE.map(|share| (share * steps as f64).ceil() as u64);
        due.iter().any(|due| (last + 1..=step).contains(due))
    }

    /// About how many probes a stage will have, with the first and the last one. A step takes
    /// `step_seconds`, and a probe takes `probe_seconds`.
    pub fn expected(&self, steps: u64, step_seconds: f64, probe_seconds: f64) -> f64 {
        if !self.online {
            return 0.0;
        }
        if let Some(every) = self.every_steps {
            return 2.0 + (steps.saturating_sub(1) / every.max(1)) as f64;
        }
        let trained = step_seconds * steps as f64;
        let (by_share, most) = (self.share * trained / probe_seconds, (Self::MOST - 1) as f64);
        // A probe that waited stands for all shares before it.
        let least = probe_seconds / Self::MOST_DUE_SHARE;
        let mut due = Self::DUE.map(|share| (share * trained).max(least)).to_vec();
        due.dedup();
        due.retain(|seconds| *seconds < trained);
        // Probes that take no time are as many as possible: `min` ignores what is not a number.
        2.0 + by_share.min(most).max(due.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_as_they_will_be_made() {
        let probe = |every_steps| Probe { every_steps, share: 0.05, ..Probe::default() };
        let count = |every, steps| probe(every).expected(steps, 0.1, 2.0);
        // Steps 0, 300, 600, 900 and 1000, or 0, 500 and 1000: the last is one of them.
        assert_eq!([count(Some(300), 1000), count(Some(500), 1000)], [5.0, 3.0]);
        // 5 % of 1,000 s are 25 probes, more than curves need.
        assert_eq!(count(None, 10_000), 21.0);
        // After 20, 25, 50 and 75 of 100 s. The one due after 5 s waits.
        assert_eq!(count(None, 1000), 6.0);
        // A probe costs more than a tenth of the stage's 10 s. `share` allows a quarter of one.
        assert_eq!(count(None, 100), 2.25);
        assert_eq!(Probe { online: false, ..Probe::default() }.expected(1000, 0.1, 2.0), 0.0);
    }

    #[test]
    fn shares_of_a_stage_are_reached_once() {
        let reached = |last, step| Probe::is_share_reached(200, last, step);
        assert!(!reached(0, 9) && reached(0, 10) && reached(0, 30));
        assert!(!reached(10, 49) && reached(10, 50) && !reached(150, 200));
    }
}
