//! The log of a run for other programs. They share the log as numbers with names, and the recipe
//! as settings.

mod tensorboard;
mod wandb;

pub use tensorboard::{FileMode, TensorBoard, remove_events};
pub use wandb::{Wandb, remove_wandb};

use crate::recipe::Recipe;
use crate::run_files::names::RECIPE;
use crate::run_files::{Line, LineKind, ProbeRow, reading};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The numbers of a line by name. An alarm has none.
pub(super) fn scalars(line: &Line) -> Vec<(String, f64)> {
    match &line.kind {
        LineKind::Step(step) => [
            ("loss", step.loss),
            ("lr", step.lr),
            ("weight_decay", step.weight_decay),
            ("grad_norm", step.grad_norm),
            ("images_per_second", step.images_per_second),
            ("data_wait_share", step.data_wait_share),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        LineKind::Probe(probe) => {
            let Ok(Value::Object(values)) = serde_json::to_value(probe) else { return Vec::new() };
            let number = |(name, value): (String, Value)| {
                value.as_f64().map(|value| (format!("probe/{name}"), value))
            };
            values.into_iter().filter_map(number).collect()
        }
        LineKind::Alarm(_) => Vec::new(),
    }
}

/// Results of the probes after a stage, by name.
pub(super) fn final_scalars(row: &ProbeRow) -> Vec<(String, f64)> {
    let ProbeRow { knn_mean, knn_cls, linear_mean, linear_cls, .. } = row;
    let all = [
        ("knn_mean", Some(*knn_mean)),
        ("knn_cls", *knn_cls),
        ("linear_mean", *linear_mean),
        ("linear_cls", *linear_cls),
    ];
    all.into_iter().filter_map(|(name, value)| Some((format!("final/{name}"), value?))).collect()
}

/// A run's recipe, as settings and as it is.
pub(super) fn settings(run: &Path) -> io::Result<(Map<String, Value>, Recipe)> {
    let recipe = reading::recipe(run)?;
    match serde_json::to_value(&recipe) {
        Ok(Value::Object(settings)) => Ok((settings, recipe)),
        other => Err(io::Error::other(format!("{RECIPE}: {other:?}"))),
    }
}

/// A run's settings by name. Those of a stage begin with its name, as in `teacher.lr`. `None` if
/// the recipe cannot be read.
pub fn run_settings(run: &Path) -> Option<BTreeMap<String, String>> {
    let (mut settings, recipe) = settings(run).ok()?;
    settings.remove("tags");
    settings.remove("stage");
    for stage in &recipe.stage {
        settings.insert(stage.name.clone(), serde_json::to_value(stage).ok()?);
    }
    let text = |value: Value| match value {
        Value::String(text) => text,
        value => value.to_string(),
    };
    Some(flat(&settings).into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// Settings by names that begin with their section, as in `data.size`. Lists are JSON texts. Null
/// is left out.
pub(super) fn flat(settings: &Map<String, Value>) -> Vec<(String, Value)> {
    let of = |(name, value): (&String, &Value)| match value {
        Value::Object(within) => {
            flat(within).into_iter().map(|(rest, v)| (format!("{name}.{rest}"), v)).collect()
        }
        Value::Null => Vec::new(),
        Value::Array(_) => vec![(name.clone(), Value::String(value.to_string()))],
        _ => vec![(name.clone(), value.clone())],
    };
    settings.iter().flat_map(of).collect()
}
