//! Images held out from training.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use engine::random::Random;
use serde::{Deserialize, Serialize};

use crate::data::source::Notes;
use crate::data::source::copies::{Copies, CopySearch, ImageLengths, Place};
use crate::data::{Error, Info, RawSample, Result, Sample, Source, Stamp};

/// How often images are drawn in place of those with too many copies. (guess)
const MOST_ROUNDS: usize = 8;

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
#[derive(Clone)]
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

/// Sources split into the part that trains and the part held out, both in their source's order.
pub struct Split {
    /// Both parts of each source.
    pub parts: Vec<(Part, Part)>,
    /// Images among those looked at that have the bytes of others.
    pub copies: Copies,
    /// Whether copies are on both sides, because nothing could be held out otherwise.
    pub on_both_sides: bool,
}

/// Splits one source. Equal images are on the same side.
pub fn hold_out(source: &Arc<dyn Source>, holdout: Holdout) -> Result<Split> {
    hold_out_of(&[(source.clone(), Some(holdout))])
}

/// Splits several sources, each as its `Holdout` says. Images with the same bytes are on the same
/// side, also those of different sources. Without such images the split is that of the draw.
pub fn hold_out_of(sources: &[(Arc<dyn Source>, Option<Holdout>)]) -> Result<Split> {
    let draws: Vec<HoldoutDraw> = sources
        .iter()
        .map(|(source, holdout)| HoldoutDraw::of(&**source, *holdout))
        .collect::<Result<_>>()?;
    let lengths = ImageLengths::of(sources.iter().map(|(source, _)| &**source).collect());
    let mut search = CopySearch::default();
    let mut held_out = together(draws.clone(), &lengths, &mut search);
    let on_both_sides = held_out.iter().all(BTreeSet::is_empty);
    if on_both_sides {
        held_out = draws.iter().map(|draw| draw.first().collect()).collect();
    }
    let parts = sources.iter().zip(&held_out).map(|((source, _), held_out)| {
        let (held, train) = (0..source.len()).partition(|index| held_out.contains(index));
        let part = |indices, name| Part { source: Arc::clone(source), indices, name };
        (part(train, "training"), part(held, "held out"))
    });
    Ok(Split { parts: parts.collect(), copies: search.copies(&lengths), on_both_sides })
}

/// The images of each source that are held out. Those that are drawn first are taken. Images with
/// the bytes of one that is taken are taken with it. If they are too many, all of them train, and
/// the next ones of the draw are taken. After some rounds of this, fewer are held out.
fn together(
    mut draws: Vec<HoldoutDraw>,
    lengths: &ImageLengths<'_>,
    search: &mut CopySearch,
) -> Vec<BTreeSet<usize>> {
    let mut held_out = vec![BTreeSet::new(); draws.len()];
    let mut decided = HashSet::new();
    for _ in 0..MOST_ROUNDS {
        let next = |(source, draw): (usize, &mut HoldoutDraw)| {
            let images = draw.next(|index| decided.contains(&(source, index)));
            images.into_iter().map(move |index| (source, index)).collect::<Vec<Place>>()
        };
        let next: Vec<Place> = draws.iter_mut().enumerate().flat_map(next).collect();
        if next.is_empty() {
            break;
        }
        let groups = search.groups(lengths, &next);
        let group_of: HashMap<Place, &Vec<Place>> =
            groups.iter().flat_map(|group| group.iter().map(move |&at| (at, group))).collect();
        for place in next {
            let alone = vec![place];
            let group = group_of.get(&place).copied().unwrap_or(&alone);
            if decided.contains(&place) {
                continue;
            }
            let count = |source: usize| group.iter().filter(|at| at.0 == source).count();
            let fits = draws.iter().enumerate().all(|(source, draw)| count(source) <= draw.lacking);
            for &(source, index) in group {
                decided.insert((source, index));
                if fits {
                    held_out[source].insert(index);
                    draws[source].lacking -= 1;
                }
            }
        }
    }
    held_out
}

/// The order in which images of a source are held out.
#[derive(Clone)]
struct HoldoutDraw {
    /// The last image is the first one.
    order: Vec<usize>,
    /// How many are still to be held out.
    lacking: usize,
}

impl HoldoutDraw {
    fn of(source: &dyn Source, holdout: Option<Holdout>) -> Result<Self> {
        let len = source.len();
        let Some(holdout) = holdout else {
            return Ok(Self { order: Vec::new(), lacking: 0 });
        };
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
        Ok(Self { order, lacking: held })
    }

    /// The images that are held out if no two are equal.
    fn first(&self) -> impl Iterator<Item = usize> {
        self.order.iter().rev().take(self.lacking).copied()
    }

    /// As many of the next images as are lacking, without those decided.
    fn next(&mut self, is_decided: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut next = Vec::new();
        while next.len() < self.lacking {
            match self.order.pop() {
                Some(index) if is_decided(index) => {}
                Some(index) => next.push(index),
                None => break,
            }
        }
        next
    }
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

    fn label_sets(&self) -> Vec<String> {
        self.source.label_sets()
    }

    fn labelled_by(&self, set: &str) -> Option<Arc<dyn Source>> {
        let source = self.source.labelled_by(set)?;
        Some(Arc::new(Self { source, ..self.clone() }))
    }

    fn frames(&self) -> [usize; 2] {
        self.source.frames()
    }

    fn requests(&self) -> usize {
        self.source.requests()
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.source.stored_bytes(self.indices[index])
    }

    fn notes(&self) -> Notes {
        self.source.notes()
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

    fn split(source: &Arc<dyn Source>, holdout: Holdout) -> (Part, Part) {
        hold_out(source, holdout).unwrap().parts.remove(0)
    }

    #[test]
    fn the_built_in_split_is_the_first_and_the_last() {
        let source = fashion();
        let (train, held) = split(&source, builtin::HOLDOUT);
        assert_eq!((train.len(), held.len()), (9000, 1000));
        assert_eq!(held.read(0).unwrap().name, "builtin:fashion-mnist image 9000");
        assert!(train.describe().ends_with("(9000 training)"));
    }

    #[test]
    fn a_share_is_drawn_from_all_classes_and_repeats() {
        let source = fashion();
        let split = |seed| split(&source, Holdout::Share { fraction: 0.1, seed });
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

    /// A folder with files of these names and contents.
    fn folder(root: &std::path::Path, files: &[(String, String)]) -> Arc<dyn Source> {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes())
                .unwrap();
        }
        crate::data::open(root, [0; 3]).unwrap()
    }

    fn texts(part: &Part) -> BTreeSet<Vec<u8>> {
        let bytes = |index| match part.raw(index).unwrap().stored_as {
            crate::data::StoredAs::File { bytes, .. } => bytes,
            _ => unreachable!("a folder has files"),
        };
        (0..part.len()).map(bytes).collect()
    }

    #[test]
    fn copies_are_never_on_both_sides() {
        let place = tempfile::tempdir().unwrap();
        let pair = |n: usize| {
            [format!("cat/{n}.png"), format!("dog/copy of {n}.png")]
                .map(|name| (name, format!("{n:02}")))
        };
        let source = folder(place.path(), &(0..20).flat_map(pair).collect::<Vec<_>>());
        for seed in 0..20 {
            let found = hold_out(&source, Holdout::Share { fraction: 0.2, seed }).unwrap();
            let (train, held) = &found.parts[0];
            assert_eq!((train.len(), held.len()), (32, 8), "seed {seed}");
            assert!(texts(train).is_disjoint(&texts(held)), "seed {seed}");
            assert!(found.copies.images >= 8 && !found.on_both_sides, "{:?}", found.copies);
        }
        // An odd number is none of pairs.
        let found = hold_out(&source, Holdout::Share { fraction: 0.125, seed: 0 }).unwrap();
        let (train, held) = &found.parts[0];
        assert_eq!((train.len(), held.len()), (36, 4));
        assert!(texts(train).is_disjoint(&texts(held)));
    }

    #[test]
    fn a_copy_in_another_source_does_not_train_either() {
        let places = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let files: Vec<_> = (0..20).map(|n| (format!("cat/{n}.png"), format!("{n:02}"))).collect();
        let holdout = Some(Holdout::Share { fraction: 0.2, seed: 3 });
        let sources = places.each_ref().map(|place| (folder(place.path(), &files), holdout));
        let found = hold_out_of(&sources).unwrap();
        let [(train, held), (other_train, other_held)] = &found.parts[..] else { panic!() };
        assert_eq!((held.len(), other_held.len()), (4, 4));
        assert_eq!(texts(held), texts(other_held));
        assert!(texts(train).is_disjoint(&texts(held)));
        assert!(texts(other_train).is_disjoint(&texts(held)));
    }

    #[test]
    fn a_split_without_copies_is_that_of_the_draw() {
        let place = tempfile::tempdir().unwrap();
        // Of equal lengths, so that their bytes are compared.
        let files: Vec<_> = (0..30).map(|n| (format!("a/{n:02}.png"), format!("{n:02}"))).collect();
        let source = folder(place.path(), &files);
        let (_, held) = split(&source, Holdout::Share { fraction: 0.2, seed: 4 });
        let mut order: Vec<usize> = (0..30).collect();
        Random::new(4, "holdout", 0).shuffle(&mut order);
        let mut drawn = order.split_off(24);
        drawn.sort_unstable();
        assert_eq!(held.indices, drawn);
    }

    #[test]
    fn images_that_are_all_equal_are_split_as_drawn_and_that_is_reported() {
        let place = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..10).map(|n| (format!("a/{n}.png"), "same".to_owned())).collect();
        let source = folder(place.path(), &files);
        let found = hold_out(&source, Holdout::Share { fraction: 0.2, seed: 4 }).unwrap();
        assert!(found.on_both_sides);
        assert_eq!((found.parts[0].1.len(), found.copies.images), (2, 10));
    }
}
