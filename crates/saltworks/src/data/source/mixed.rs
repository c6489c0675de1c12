//! Several sources as one. The weight of a source says how often its images occur.

use std::collections::HashMap;
use std::sync::Arc;

use crate::data::source::Notes;
use crate::data::{Error, Info, RawSample, Result, Sample, Source, Stamp};

/// Sources one after another. The image of a number depends only on the lengths and weights of the
/// sources. A source of n images and weight w has round(n w) numbers. Each whole unit of w covers
/// all n images. The rest covers some of its images, evenly spread.
pub struct Mixed {
    parts: Vec<MixedSource>,
    len: usize,
    classes: Vec<String>,
}

struct MixedSource {
    source: Arc<dyn Source>,
    /// Its first number.
    first: usize,
    /// How many numbers it has.
    len: usize,
    /// For each class of the source, the class of the same name in the mixture.
    classes: Vec<i32>,
}

impl Mixed {
    /// Mixes these sources with their weights. `classes` are the names of all classes, from
    /// [`unite`].
    pub fn new(sources: Vec<(Arc<dyn Source>, f64)>, classes: Vec<String>) -> Result<Self> {
        let (mut parts, mut first) = (Vec::new(), 0);
        for (source, weight) in sources {
            if !(weight > 0.0 && weight <= 1e6) {
                return Err(Error::setting("source.weight", &weight, "above 0, up to 1000000"));
            }
            let len = ((source.len() as f64 * weight).round() as usize).max(1);
            let classes = numbers_of(&*source, &classes);
            parts.push(MixedSource { source, first, len, classes });
            first += len;
        }
        Ok(Self { parts, len: first, classes })
    }

    /// The source of a number, and the image's number there.
    fn find(&self, index: usize) -> (&MixedSource, usize) {
        let part = self.parts.partition_point(|part| part.first <= index) - 1;
        let part = &self.parts[part];
        (part, part.image(index - part.first))
    }
}

impl MixedSource {
    /// The image of the source's number `at`.
    fn image(&self, at: usize) -> usize {
        let images = self.source.len();
        let (pass, offset) = (at / images, at % images);
        let rest = self.len - pass * images;
        // Whole passes in order. The last pass has gaps of equal size.
        if rest >= images { offset } else { offset * images / rest }
    }
}

impl Source for Mixed {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let (part, image) = self.find(index);
        let sample = part.source.read(image)?;
        Ok(Sample { label: self.label(index), ..sample })
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let (part, image) = self.find(index);
        let raw = part.source.raw(image)?;
        Ok(RawSample { label: self.label(index), ..raw })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (part, image) = self.find(index);
        part.source.info(image)
    }

    fn stamp(&self, index: usize) -> Stamp {
        let (part, image) = self.find(index);
        part.source.stamp(image)
    }

    fn label(&self, index: usize) -> i32 {
        let (part, image) = self.find(index);
        let label = usize::try_from(part.source.label(image)).ok();
        label.and_then(|label| part.classes.get(label).copied()).unwrap_or(-1)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label_sets(&self) -> Vec<String> {
        let mut parts = self.parts.iter().map(|part| part.source.label_sets());
        let mut sets = parts.next().unwrap_or_default();
        parts.for_each(|others| sets.retain(|set| others.contains(set)));
        sets
    }

    fn labelled_by(&self, set: &str) -> Option<Arc<dyn Source>> {
        let sources = self.parts.iter().map(|part| part.source.labelled_by(set));
        let sources = sources.collect::<Option<Vec<_>>>()?;
        let classes = unite(&sources);
        let parts = self.parts.iter().zip(sources);
        let parts = parts.map(|(part, source)| {
            let classes = numbers_of(&*source, &classes);
            MixedSource { source, classes, ..*part }
        });
        Some(Arc::new(Self { parts: parts.collect(), len: self.len, classes }))
    }

    fn frames(&self) -> [usize; 2] {
        let all = self.parts.iter().map(|part| part.source.frames());
        all.reduce(|[a, b], [c, d]| [a.min(c), b.max(d)]).unwrap_or([1, 1])
    }

    fn requests(&self) -> usize {
        self.parts.iter().map(|part| part.source.requests()).max().unwrap_or(1)
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        let (part, image) = self.find(index);
        part.source.stored_bytes(image)
    }

    fn notes(&self) -> Notes {
        let mut all = Notes::default();
        self.parts.iter().for_each(|part| all.append(part.source.notes()));
        all
    }

    fn describe(&self) -> String {
        let part = |part: &MixedSource| {
            let (what, images) = (part.source.describe(), part.source.len());
            // A source's description begins with its path.
            let path = what.split_once(": ").map_or(what.as_str(), |(path, _)| path);
            let weighted = format!(", {} an epoch", part.len);
            let weighted = if part.len == images { "" } else { &weighted };
            format!("{path}: {images} images{weighted}")
        };
        let parts: Vec<_> = self.parts.iter().map(part).collect();
        format!("{}; {}", parts.join("; "), crate::data::source::classes(&self.classes))
    }
}

/// For each class of a source, the number of the same name among `classes`.
fn numbers_of(source: &dyn Source, classes: &[String]) -> Vec<i32> {
    let numbers: HashMap<&str, i32> = classes.iter().map(String::as_str).zip(0..).collect();
    let number = |name: &String| numbers.get(name.as_str()).copied().unwrap_or(-1);
    source.classes().iter().map(number).collect()
}

/// The names of the classes of all sources, each once, in the order of first occurrence.
pub fn unite<'a>(sources: impl IntoIterator<Item = &'a Arc<dyn Source>>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let names = sources.into_iter().flat_map(|source| source.classes().iter().cloned());
    names.filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Clip;

    /// Images whose first byte is `base` plus their number.
    struct Numbers {
        base: u8,
        len: usize,
        classes: Vec<String>,
    }

    impl Source for Numbers {
        fn len(&self) -> usize {
            self.len
        }

        fn read(&self, index: usize) -> Result<Sample> {
            let data = vec![self.base + index as u8];
            let clip = Clip::image(1, 1, 1, data);
            Ok(Sample { clip, label: self.label(index), name: String::new() })
        }

        fn label(&self, index: usize) -> i32 {
            (index % 2) as i32
        }

        fn classes(&self) -> &[String] {
            &self.classes
        }

        fn describe(&self) -> String {
            format!("numbers from {}", self.base)
        }
    }

    fn numbers(base: u8, len: usize, classes: [&str; 2]) -> Arc<dyn Source> {
        Arc::new(Numbers { base, len, classes: classes.map(str::to_owned).to_vec() })
    }

    fn values(mixed: &Mixed) -> Vec<u8> {
        (0..mixed.len()).map(|index| mixed.read(index).unwrap().clip.data[0]).collect()
    }

    #[test]
    fn weights_repeat_and_thin_out() {
        let mix = |weight| {
            let (a, b) = (numbers(0, 4, ["x", "y"]), numbers(100, 2, ["y", "z"]));
            let classes = unite([&a, &b]);
            Mixed::new(vec![(a, weight), (b, 1.0)], classes).unwrap()
        };
        assert_eq!(values(&mix(1.0)), [0, 1, 2, 3, 100, 101]);
        assert_eq!(values(&mix(0.5)), [0, 2, 100, 101]);
        assert_eq!(values(&mix(2.5)), [0, 1, 2, 3, 0, 1, 2, 3, 0, 2, 100, 101]);
        assert_eq!(values(&mix(0.01)), [0, 100, 101]);
        for weight in [0.1, 0.3, 0.77, 1.4, 3.3] {
            let mixed = mix(weight);
            assert!(values(&mixed).windows(2).all(|pair| pair[0] != pair[1]), "{weight}");
        }
    }

    #[test]
    fn classes_with_the_same_name_are_one_class() {
        let (a, b) = (numbers(0, 2, ["x", "y"]), numbers(100, 2, ["y", "z"]));
        let classes = unite([&a, &b]);
        let mixed = Mixed::new(vec![(a, 1.0), (b, 1.0)], classes).unwrap();
        let labels: Vec<_> = (0..4).map(|index| mixed.label(index)).collect();
        assert_eq!((mixed.classes().join(" "), labels), ("x y z".into(), vec![0, 1, 1, 2]));
        assert_eq!(mixed.read(3).unwrap().label, 2);
        assert_eq!(
            mixed.describe(),
            "numbers from 0: 2 images; numbers from 100: 2 images; 3 classes"
        );
    }

    #[test]
    fn a_million_classes_are_found_at_once() {
        let classes: Vec<String> = (0..1_000_000).map(|class| class.to_string()).collect();
        let source: Arc<dyn Source> =
            Arc::new(Numbers { base: 0, len: 2, classes: classes.clone() });
        let mixed = Mixed::new(vec![(source, 1.0)], classes).unwrap();
        assert_eq!((mixed.label(0), mixed.label(1)), (0, 1));
    }

    #[test]
    fn a_weight_must_be_above_zero() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let sources = vec![(numbers(0, 2, ["x", "y"]), weight)];
            assert!(Mixed::new(sources, Vec::new()).is_err(), "{weight}");
        }
    }
}
