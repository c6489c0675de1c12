//! The time that a run still needs for training. Terminal and pages show the same estimate.

use super::seconds_text;
use crate::recipe::Probe;

/// An estimate needs so many steps, and so much time of steps: the first ones fill caches.
const LEAST_STEPS: u64 = 3;
const LEAST_SECONDS: f64 = 2.0;

/// Steps and probes of a stage so far.
#[derive(Clone, Debug, Default)]
pub struct StagePace {
    /// Its name in the recipe.
    pub name: String,
    /// Steps of the whole stage.
    pub steps: u64,
    /// Steps made.
    pub step: u64,
    /// Time of these steps, without probes.
    pub step_seconds: f64,
    /// Online probes made.
    pub probes: u64,
    /// Time of these probes.
    pub probe_seconds: f64,
    /// FLOPs of a step, or 0 if they are unknown.
    pub step_flops: f64,
}

/// The pace of a whole run: its stages in their order.
#[derive(Clone, Debug, Default)]
pub struct RunPace {
    /// The stages.
    pub stages: Vec<StagePace>,
    /// When online probes are due.
    pub probe: Probe,
}

impl RunPace {
    /// The time left of the stage that trains and of all training, in words. The final probes come
    /// after it. None before it can be known, and after the last step of a stage.
    pub fn left(&self) -> Option<String> {
        let index = self.stages.iter().rposition(|stage| stage.step > 0)?;
        let now = &self.stages[index];
        let begins = now.step < LEAST_STEPS || now.step_seconds < LEAST_SECONDS;
        if begins || now.step >= now.steps {
            return None;
        }
        let stage = self.seconds_left(now, now);
        let later = &self.stages[index + 1..];
        let run = later.iter().map(|stage| self.seconds_left(stage, now)).sum::<f64>() + stage;
        Some(match later {
            [] => format!("training: {} left", seconds_text(stage)),
            _ => format!(
                "stage: {} left, all training: {} left",
                seconds_text(stage),
                seconds_text(run)
            ),
        })
    }

    /// Time left of a stage. One that has not begun is as fast as `like`, for its FLOPs.
    fn seconds_left(&self, stage: &StagePace, like: &StagePace) -> f64 {
        let known = stage.step_flops > 0.0 && like.step_flops > 0.0;
        let work = if known { stage.step_flops / like.step_flops } else { 1.0 };
        let step = match stage.step {
            0 => work * like.step_seconds / like.step as f64,
            made => stage.step_seconds / made as f64,
        };
        let timed = if stage.probes > 0 { stage } else { like };
        let probe = timed.probe_seconds / timed.probes.max(1) as f64;
        let todo = stage.steps.saturating_sub(stage.step) as f64;
        // The last probe comes after the last step.
        let least = if self.probe.online { 1.0 } else { 0.0 };
        let probes = self.probe.expected(stage.steps, step, probe) - stage.probes as f64;
        let probes = probes.max(least);
        todo * step + probes * probe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(step: u64, step_seconds: f64, probes: u64) -> StagePace {
        let probe_seconds = 10.0 * probes as f64;
        StagePace { steps: 100, step, step_seconds, probes, probe_seconds, ..StagePace::default() }
    }

    fn left(stages: &[StagePace]) -> Option<String> {
        let probe = Probe { every_steps: Some(50), ..Probe::default() };
        RunPace { stages: stages.to_vec(), probe }.left()
    }

    #[test]
    fn a_probe_before_the_first_step_is_no_step() {
        // 90 steps of a second, and two probes of 10 s.
        let alone = left(&[stage(10, 10.0, 1)]).unwrap();
        assert_eq!(alone, "training: 1 min 50 s left");
    }

    #[test]
    fn the_stage_and_the_run_are_told_apart() {
        // The second stage adds 100 s and three probes.
        let both = left(&[stage(10, 10.0, 1), stage(0, 0.0, 0)]).unwrap();
        assert_eq!(both, "stage: 1 min 50 s left, all training: 4 min left");
        let second = left(&[stage(100, 300.0, 3), stage(50, 50.0, 2)]).unwrap();
        assert_eq!(second, "training: 1 min left");
    }

    #[test]
    fn a_stage_of_more_work_takes_longer() {
        let with = |stage: StagePace, step_flops: f64| StagePace { step_flops, ..stage };
        let both = left(&[with(stage(10, 10.0, 1), 1e9), with(stage(0, 0.0, 0), 2e9)]).unwrap();
        assert_eq!(both, "stage: 1 min 50 s left, all training: 5 min 40 s left");
    }

    #[test]
    fn nothing_is_estimated_from_a_step_or_two() {
        assert_eq!(left(&[stage(2, 60.0, 1)]), None);
        assert_eq!(left(&[stage(30, 1.5, 1)]), None);
        assert_eq!(left(&[stage(100, 100.0, 3), stage(1, 9.0, 1)]), None);
        assert_eq!(left(&[stage(0, 0.0, 1)]), None);
        assert_eq!(left(&[stage(100, 100.0, 2)]), None, "only a probe is left");
    }
}
