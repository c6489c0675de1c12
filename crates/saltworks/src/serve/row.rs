//! A run in the table of runs.

use crate::report::{RunData, StageData};
use serde::Serialize;

/// A run in the table of runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RunRow {
    /// The path of its folder below the root.
    pub id: String,
    /// The tags of its recipe.
    pub tags: Vec<String>,
    /// The status of [`RunData`], or `unreadable`.
    pub status: &'static str,
    /// Why it cannot be read, or why its last process ended.
    pub problem: Option<String>,
    /// What its process does between stages.
    pub doing: Option<String>,
    /// The last stage that has begun.
    pub stage: Option<String>,
    /// Steps made of that stage.
    pub step: u64,
    /// All steps of that stage.
    pub steps: Option<u64>,
    /// The share of steps made, if the number of all steps is known.
    pub share: Option<f64>,
    /// Its last training loss.
    pub loss: Option<f64>,
    /// Accuracy by kNN after the stage's training, with all images.
    pub final_knn: Option<f64>,
    /// The same by a linear probe.
    pub final_linear: Option<f64>,
    /// The loss of the last online probe, if it is of held-out images.
    pub held_out_loss: Option<f64>,
    /// Accuracy by kNN of the last online probe.
    pub knn: Option<f64>,
    /// The same by a linear probe.
    pub linear: Option<f64>,
    /// RankMe of the last online probe.
    pub rank_me: Option<f64>,
    /// Accuracy by kNN of each online probe. It is empty if no accuracy is known.
    pub trace: Vec<f64>,
    /// Mean images per second of the stage's steps.
    pub images_per_second: Option<f64>,
    /// Alarms of all stages that are not over.
    pub alarms: usize,
    /// When the last line was written.
    pub updated: Option<f64>,
}

impl RunRow {
    pub(super) fn new(id: String, data: &RunData) -> Self {
        let stages = &data.stages;
        let all: Option<u64> = stages.iter().map(|stage| stage.steps).sum();
        let made: u64 = stages.iter().map(|stage| stage.step).sum();
        let row = Self {
            id,
            tags: data.tags.clone(),
            status: data.status,
            doing: data.doing.clone(),
            problem: data.problems.first().cloned().or_else(|| why_ended(data)),
            share: all.filter(|all| *all > 0).map(|all| made as f64 / all as f64),
            alarms: stages
                .iter()
                .flat_map(|stage| &stage.alarms)
                .filter(|a| a.over.is_none())
                .count(),
            updated: data.updated,
            ..Self::default()
        };
        let last = stages.iter().rfind(|stage| stage.has_begun());
        let Some(stage) = last else { return row };
        let table = data.table.iter().find(|found| found.name == stage.name);
        let (knn, linear) = (table.map(|row| row.knn_mean), table.and_then(|row| row.linear_mean));
        Self { final_knn: knn, final_linear: linear, ..row.of_stage(stage) }
    }

    fn of_stage(self, stage: &StageData) -> Self {
        // The probe before the first step is of an untrained encoder.
        let last = stage.probes.last().filter(|point| point.step > 0);
        let probe = last.map(|point| &point.probe);
        Self {
            stage: Some(stage.name.clone()),
            step: stage.step,
            steps: stage.steps,
            loss: stage.series.loss.last().copied(),
            held_out_loss: probe.filter(|probe| probe.held_out).and_then(|probe| probe.loss),
            knn: probe.and_then(|probe| probe.knn_mean),
            linear: probe.and_then(|probe| probe.linear_mean),
            rank_me: probe.and_then(|probe| probe.rank_me),
            trace: stage.probes.iter().filter_map(|point| point.probe.knn_mean).collect(),
            images_per_second: stage.images_per_second,
            ..self
        }
    }
}

/// Why a run stopped. A process that was killed wrote no reason.
pub(super) fn why_ended(data: &RunData) -> Option<String> {
    let folder = &data.folder;
    let killed = || {
        format!(
            "no reason was written (killed?); \
             `saltworks pretrain --resume --out {folder}` resumes it"
        )
    };
    let written = data.ended.as_ref().map(|ended| ended.why.clone());
    written.or_else(|| (data.status == "stopped").then(killed))
}
