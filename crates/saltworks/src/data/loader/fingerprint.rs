//! What distinguishes one set of images from another, without reading them.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::Source;
use crate::data::store::object::at_once;

/// Images stamped between two additions to the hashes.
const CHUNK: usize = 65_536;

/// What is known about an image without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its file, or its name in its file.
    pub name: String,
    /// Its bytes as stored, or those of the file that holds it with others. 0 if nothing is stored.
    pub bytes: u64,
}

/// Hashes over all images of some sources, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    names: String,
    sizes: String,
    labels: String,
}

impl Fingerprint {
    /// The fingerprint of these sources, one after another.
    pub fn of<'a>(sources: impl IntoIterator<Item = &'a dyn Source>) -> Self {
        let [mut names, mut sizes, mut labels] = [(); 3].map(|()| Sha256::new());
        for source in sources {
            for first in (0..source.len()).step_by(CHUNK) {
                let chunk = first..(first + CHUNK).min(source.len());
                // Each length needs a request to the file system, so several run at once.
                let stamps: Vec<Stamp> = at_once(source.requests(), || {
                    chunk.clone().into_par_iter().map(|index| source.stamp(index)).collect()
                });
                for (index, Stamp { name, bytes }) in chunk.zip(stamps) {
                    names.update(name.as_bytes());
                    names.update([0]);
                    sizes.update(bytes.to_le_bytes());
                    labels.update(source.label(index).to_le_bytes());
                }
            }
            for class in source.classes() {
                labels.update(class.as_bytes());
                labels.update([0]);
            }
        }
        let hex = |hash: Sha256| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { names: hex(names), sizes: hex(sizes), labels: hex(labels) }
    }

    /// The parts that differ from `other`, as words for people. Empty if none differs.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("names", &self.names, &other.names),
            ("lengths", &self.sizes, &other.sizes),
            ("classes", &self.labels, &other.labels),
        ];
        pairs.into_iter().filter(|(_, a, b)| a != b).map(|(what, ..)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;
    use std::fs;
    use std::path::Path;

    #[test]
    fn other_names_lengths_and_classes_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let file = |name: &str, bytes: usize| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::File::create(root.join(name)).unwrap().set_len(bytes as u64).unwrap();
        };
        let of = |path: &Path| Fingerprint::of([&*open(path, [0; 3]).unwrap()]);
        // Nothing in them is an image: they are not read.
        for name in ["ants/1.png", "ants/2.png", "bees/3.png"] {
            file(name, 10);
        }
        let first = of(root);
        assert!(of(root).differences(&first).is_empty());
        file("ants/2.png", 11);
        assert_eq!(of(root).differences(&first), ["lengths"]);
        fs::remove_file(root.join("ants/2.png")).unwrap();
        file("ants/4.png", 10);
        assert_eq!(of(root).differences(&first), ["names"]);
        fs::remove_file(root.join("ants/4.png")).unwrap();
        file("bees/2.png", 10);
        assert_eq!(of(root).differences(&first), ["names", "classes"]);
    }
}
