//! Learning rate and weight decay depend only on the step, so a resumed run replays nothing.

use std::f64::consts::PI;

/// Linear warmup, then half a cosine (V-JEPA src/utils/schedulers.py). With a cooldown, a constant
/// and then a straight line (warmup-stable-decay: Hu et al. 2024, MiniCPM, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Before the first step.
    pub start: f64,
    /// After the warmup.
    pub peak: f64,
    /// At the last step.
    pub last: f64,
    /// Steps from start to peak.
    pub warmup_steps: u64,
    /// Total number of steps.
    pub steps: u64,
    /// Steps of the straight line from peak to last. None for a cosine.
    pub cooldown_steps: Option<u64>,
}

impl Curve {
    /// Half a cosine from `start` to `last` without warmup.
    pub fn cosine(start: f64, last: f64, steps: u64) -> Self {
        Self { start, peak: start, last, warmup_steps: 0, steps, cooldown_steps: None }
    }

    /// The value at `step`, counted from 0.
    pub fn at(self, step: u64) -> f64 {
        let done = step + 1;
        if done <= self.warmup_steps {
            let share = done as f64 / self.warmup_steps as f64;
            return self.start + share * (self.peak - self.start);
        }
        if let Some(cooldown) = self.cooldown_steps {
            let left = self.steps.saturating_sub(done);
            let share = (left as f64 / cooldown.max(1) as f64).min(1.0);
            return self.last + share * (self.peak - self.last);
        }
        let left = (self.steps - self.warmup_steps).max(1) as f64;
        let share = ((done - self.warmup_steps) as f64 / left).min(1.0);
        self.last + (self.peak - self.last) * 0.5 * (1.0 + (PI * share).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_is_linear_and_the_cosine_ends_at_the_last_value() {
        let curve = Curve {
            start: 0.0,
            peak: 1.0,
            last: 0.1,
            warmup_steps: 4,
            steps: 12,
            cooldown_steps: None,
        };
        assert_eq!([0, 1, 3].map(|step| curve.at(step)), [0.25, 0.5, 1.0]);
        assert!((curve.at(7) - 0.55).abs() < 1e-12); // half way down
        assert!((curve.at(11) - 0.1).abs() < 1e-12);
        assert!((curve.at(40) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_cooldown_follows_a_constant_and_ends_at_the_last_value() {
        let cosine = Curve { warmup_steps: 2, ..Curve::cosine(1.0, 0.0, 10) };
        let curve = Curve { cooldown_steps: Some(4), ..cosine };
        let values = [1, 4, 5, 6, 7, 8, 9, 20].map(|step| curve.at(step));
        assert_eq!(values, [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn weight_decay_rises_by_a_cosine() {
        let curve = Curve::cosine(0.04, 0.4, 10);
        assert!((curve.at(4) - 0.22).abs() < 1e-12);
        assert!((curve.at(9) - 0.4).abs() < 1e-12);
    }
}
