//! What forms of log for other programs share: the log as numbers with names, the recipe as settings.

use super::{Line, What};
use crate::recipe;
use serde_json::{Map, Value};
use std::io;
use std::path::Path;

/// The numbers of a line by name; none of an alarm.
pub(super) fn scalars(line: &Line) -> Vec<(String, f64)> {
    match &line.what {
        What::Step(step) => [
            ("loss", step.loss),
            ("lr", step.lr),
            ("weight_decay", step.weight_decay),
            ("grad_norm", step.grad_norm),
            ("images_per_second", step.images_per_second),
            ("data_wait_share", step.data_wait_share),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        What::Probe(probe) => {
            // Numbers and texts: JSON holds them all.
            let Ok(Value::Object(found)) = serde_json::to_value(probe) else { return Vec::new() };
            let number = |(name, value): (String, Value)| {
                value.as_f64().map(|value| (format!("probe/{name}"), value))
            };
            found.into_iter().filter_map(number).collect()
        }
        What::Alarm(_) => Vec::new(),
    }
}

/// A run's recipe.
pub(super) fn settings(run: &Path) -> io::Result<(Map<String, Value>, recipe::Recipe)> {
    let path = run.join("recipe.toml");
    let text = std::fs::read_to_string(&path)?;
    let parsed = recipe::from_text("recipe.toml", &text, &[]).map_err(io::Error::other)?;
    match serde_json::to_value(&parsed) {
        Ok(Value::Object(settings)) => Ok((settings, parsed)),
        other => Err(io::Error::other(format!("{}: {other:?}", path.display()))),
    }
}

/// Settings with their sections before their names, `data.size`; lists as JSON. Nothing of null.
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
