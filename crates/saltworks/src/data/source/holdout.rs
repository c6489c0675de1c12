//! Images held out from training.

use std::sync::Arc;

use engine::random::Random;
use serde::{Deserialize, Serialize};

use crate::data::{Error, Info, RawSample, Result, Sample, Source, Stamp};

/// Which images are held out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Holdout {
    /// The last ones in the source's own order.
    Last {
        /// How many.
        count: usize,
    },
    /// A share of the images, from all classes. A shuffle with the seed chooses them.
    Share {
        /// Above 0 and below 1.
        fraction: f64,
        /// The seed of the shuffle.
        seed: u64,
    },
}

/// Some images of a source, renumbered.
pub struct Part {
    source: Arc<dyn Source>,
    indices: Vec<usize>,
    name: &'static str,
}

impl Part {
    /// The images with these numbers, in this order; `name` is what [`Source::describe`] calls
    /// them. A number may occur several times.
    pub fn new(source: Arc<dyn Source>, indices: Vec<usize>, name: &'static str) -> Self {
        Self { source, indices, name }
    }
}

/// Splits a source into the part that trains and the part held out, both in the source's order.
pub fn hold_out(source: &Arc<dyn Source>, holdout: Holdout) -> Result<(Part, Part)> {
    let len = source.len();
    let (name, found, held) = match holdout {
        Holdout::Last { count } => ("holdout", count.to_string(), count),
        Holdout::Share { fraction, .. } => {
            let held = (fraction.clamp(0.0, 1.0) * len as f64).round() as usize;
            ("holdout", fraction.to_string(), held)
        }
    };
    if held == 0 || held >= len {
        let what = source.describe();
        let expected = format!("1 to {} images held out of {what}", len.saturating_sub(1));
        return Err(Error::setting(name, &found, expected));
    }
    let mut order: Vec<usize> = (0..len).collect();
    if let Holdout::Share { seed, .. } = holdout {
        Random::new(seed, "holdout", 0).shuffle(&mut order);
    }
    let mut held_out = order.split_off(len - held);
    order.sort_unstable();
    held_out.sort_unstable();
    let part = |indices, name| Part { source: Arc::clone(source), indices, name };
    Ok((part(order, "training"), part(held_out, "held out")))
}

impl Source for Part {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.source.read(self.indices[index])
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        self.source.raw(self.indices[index])
    }

    fn info(&self, index: usize) -> Result<Info> {
        self.source.info(self.indices[index])
    }

    fn stamp(&self, index: usize) -> Stamp {
        self.source.stamp(self.indices[index])
    }

    fn label(&self, index: usize) -> i32 {
        self.source.label(self.indices[index])
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn requests(&self) -> usize {
        self.source.requests()
    }

    fn left_alone(&self) -> String {
        self.source.left_alone()
    }

    fn describe(&self) -> String {
        format!("{} ({} {})", self.source.describe(), self.len(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::builtin;

    fn fashion() -> Arc<dyn Source> {
        Arc::new(builtin::fashion_mnist().unwrap())
    }

    #[test]
    fn the_built_in_split_is_the_first_and_the_last() {
        let source = fashion();
        let (train, held) = hold_out(&source, builtin::HOLDOUT).unwrap();
        assert_eq!((train.len(), held.len()), (9000, 1000));
        assert_eq!(held.read(0).unwrap().name, "builtin:fashion-mnist image 9000");
        assert!(train.describe().ends_with("(9000 training)"));
    }

    #[test]
    fn a_share_is_drawn_from_all_classes_and_repeats() {
        let source = fashion();
        let split = |seed| hold_out(&source, Holdout::Share { fraction: 0.1, seed }).unwrap();
        let (train, held) = split(1);
        assert_eq!((train.len(), held.len()), (9000, 1000));
        assert_eq!(held.indices, split(1).1.indices);
        assert_ne!(held.indices, split(2).1.indices);
        let mut all = [train.indices.clone(), held.indices.clone()].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10_000));
        for class in 0..10 {
            let count = (0..1000).filter(|&index| held.label(index) == class).count();
            assert!((60..150).contains(&count), "class {class}: {count}");
        }
    }

    #[test]
    fn a_part_that_leaves_nothing_is_refused() {
        let source = fashion();
        let refused = |holdout| hold_out(&source, holdout).err().unwrap().to_string();
        assert!(refused(Holdout::Last { count: 10_000 }).contains("data.holdout is 10000"));
        assert!(refused(Holdout::Share { fraction: 0.0, seed: 0 }).contains("1 to 9999 images"));
        assert!(refused(Holdout::Share { fraction: f64::NAN, seed: 0 }).contains("NaN"));
    }
}
