//! The results of probes, as tables and as JSON.

use crate::console::{note, result};
use crate::eval::{ClassReport, FewShotResult, Report};
use crate::failure::{Failure, run_error};
use crate::files::write_whole;
use crate::judge::StageProgress;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One probe.
pub(super) struct ProbeResult {
    pub(super) kind: &'static str,
    /// Mean, class token or all tokens.
    pub(super) features: &'static str,
    /// Its settings as text.
    pub(super) note: String,
    /// Its settings as JSON.
    pub(super) detail: Value,
    pub(super) report: Report,
}

/// Two measures of whether features have collapsed.
pub(super) struct Spread {
    pub(super) features: &'static str,
    pub(super) rank_me: f64,
    pub(super) feature_std: f64,
}

/// The results of all probes.
pub(super) struct Results {
    /// The file that was probed.
    pub(super) weights: PathBuf,
    pub(super) trained: Option<StageProgress>,
    /// From how many of the last blocks features were taken.
    pub(super) layers: usize,
    /// A description of the training images.
    pub(super) train: String,
    /// A description of the test images.
    pub(super) test: String,
    /// Names of the classes 0, 1, ...
    pub(super) classes: Vec<String>,
    pub(super) found: Vec<ProbeResult>,
    /// For each kind of features.
    pub(super) few_shot: Vec<(&'static str, FewShotResult)>,
    pub(super) spread: Vec<Spread>,
}

impl Results {
    /// Prints the tables, and writes the JSON to the file or to stdout, which then holds nothing
    /// else.
    pub(super) fn show(
        &self,
        json: Option<&Path>,
        per_class: bool,
        confusion: bool,
    ) -> Result<(), Failure> {
        let mut text = self.table();
        for found in self.found.iter().filter(|_| per_class) {
            text += &self.class_table(found);
        }
        for found in self.found.iter().filter(|_| confusion) {
            text += &self.confusion_table(found);
        }
        let text = text.trim_end();
        match json {
            Some(path) if path == Path::new("-") => {
                note(text);
                result(&format!("{:#}", self.to_json()));
            }
            Some(path) => {
                result(text);
                let json = format!("{:#}\n", self.to_json());
                let fail = |error| run_error(format!("cannot write {}: {error}", path.display()));
                write_whole(path, json.as_bytes()).map_err(fail)?;
            }
            None => result(text),
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if let Some(ProbeResult { report, .. }) = self.found.first() {
            let _ = writeln!(
                text,
                "{:9}  {:8}  {:>8}  {:>14}  {:>5}   (% of {} test images)",
                "probe", "features", "accuracy", "95 % interval", "top-5", report.images
            );
        }
        for ProbeResult { kind, features, note, report, .. } in &self.found {
            let [low, high] = report.interval.map(|x| 100.0 * x);
            let top5 = percent(report.top5);
            let accuracy = 100.0 * report.accuracy;
            let interval = format!("{low:.1} to {high:.1}");
            let _ = writeln!(
                text,
                "{kind:9}  {features:8}  {accuracy:>8.1}  {interval:>14}  {top5:>5}   {note}"
            );
        }
        for (features, FewShotResult { shots, accuracies, mean, std }) in &self.few_shot {
            let kind = format!("{shots}-shot");
            let spread = std.map_or(String::new(), |std| format!(" ± {:.1}", 100.0 * std));
            let draws = accuracies.len();
            let _ = writeln!(
                text,
                "{kind:9}  {features:8}  {:>8.1}{spread}   (mean ± deviation of {draws} draws)",
                100.0 * mean
            );
        }
        for Spread { features, rank_me, feature_std } in &self.spread {
            let _ = writeln!(
                text,
                "training features {features}: RankMe {rank_me:.1}, deviation {feature_std:.2}"
            );
        }
        text
    }

    fn class_table(&self, found: &ProbeResult) -> String {
        let ProbeResult { kind, features, report, .. } = found;
        let names: Vec<String> =
            report.classes.iter().map(|class| self.name(class.class)).collect();
        let width = width_of(&names).max(5);
        let mut text = format!("\n{kind}, {features}, per class\n");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  precision  recall  images", "class");
        for (name, ClassReport { count, precision, recall, .. }) in
            names.iter().zip(&report.classes)
        {
            let (precision, recall) = (percent(*precision), percent(*recall));
            let _ = writeln!(text, "{name:width$}  {precision:>9}  {recall:>6}  {count:>6}");
        }
        text
    }

    fn confusion_table(&self, found: &ProbeResult) -> String {
        let ProbeResult { kind, features, report, .. } = found;
        let Some(rows) = &report.confusion else {
            return format!("\n{kind}, {features}: too many classes for a confusion table\n");
        };
        let names: Vec<String> =
            report.classes.iter().map(|class| self.name(class.class)).collect();
        let width = width_of(&names).max(5);
        let most = rows.iter().flatten().max().map_or(1, |most| most.to_string().len()).max(3);
        let mut text =
            format!("\n{kind}, {features}: rows are the true class, columns the predicted class\n");
        let header = (0..names.len()).map(|column| format!(" {column:>most$}")).collect::<String>();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "     {:width$}{header}", "class");
        for (number, (name, row)) in names.iter().zip(rows).enumerate() {
            let row: String = row.iter().map(|count| format!(" {count:>most$}")).collect();
            let _ = writeln!(text, "{number:>4} {name:width$}{row}");
        }
        text
    }

    fn name(&self, class: u32) -> String {
        self.classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string())
    }

    fn to_json(&self) -> Value {
        let probe = |found: &ProbeResult| {
            let ProbeResult { kind, features, detail, report, .. } = found;
            json!({"kind": kind, "features": features, "settings": detail, "report": report})
        };
        let few =
            |(features, few): &(&str, FewShotResult)| json!({"features": features, "result": few});
        let spread = |spread: &Spread| {
            let Spread { features, rank_me, feature_std } = spread;
            json!({"features": features, "rank_me": rank_me, "feature_std": feature_std})
        };
        json!({
            "weights": self.weights,
            "trained": self.trained,
            "layers": self.layers,
            "train": self.train,
            "test": self.test,
            "classes": self.classes,
            "probes": self.found.iter().map(probe).collect::<Vec<_>>(),
            "few_shot": self.few_shot.iter().map(few).collect::<Vec<_>>(),
            "training_features": self.spread.iter().map(spread).collect::<Vec<_>>(),
        })
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", 100.0 * share))
}

fn width_of(names: &[String]) -> usize {
    names.iter().map(|name| name.chars().count()).max().unwrap_or(0)
}
