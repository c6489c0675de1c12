//! What archives hold besides the images that are read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::source::{image_file, kinds_of_files};

/// How many, and the first of them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    count: usize,
    first: String,
}

impl Tally {
    pub(super) fn add(&mut self, name: &str) {
        if self.count == 0 {
            name.clone_into(&mut self.first);
        }
        self.count += 1;
    }

    fn merge(&mut self, more: Self) {
        if self.count == 0 {
            self.first = more.first;
        }
        self.count += more.count;
    }
}

/// Files of each extension.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileKinds(BTreeMap<String, usize>);

impl FileKinds {
    pub(super) fn add_file(&mut self, name: &str) {
        let extension = image_file::extension(std::path::Path::new(name));
        *self.0.entry(extension).or_default() += 1;
    }
}

/// Members of archives that are not read, and ends of archives that may miss some.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotRead {
    /// Members that are neither images nor labels.
    pub(super) kinds: FileKinds,
    /// Members whose name, or a folder of it, begins with a dot.
    pub(super) hidden: Tally,
    /// Images beside the image of their sample: `a.png` beside `a.jpg`, or `a.mask.png`.
    pub(super) beside: Tally,
    /// Images that a later member of the same name replaces.
    pub(super) doubled: Tally,
    /// Damaged labels, of samples that have another one.
    pub(super) labels: Tally,
    /// Links named like images that lead to no file of their archive.
    pub(super) links: Tally,
    /// Archives without an end marker.
    pub(super) unmarked: Tally,
    /// Archives with bytes behind their end marker.
    pub(super) continued: Tally,
}

impl NotRead {
    pub(super) fn merge(&mut self, more: Self) {
        for (extension, count) in more.kinds.0 {
            *self.kinds.0.entry(extension).or_default() += count;
        }
        self.hidden.merge(more.hidden);
        self.beside.merge(more.beside);
        self.doubled.merge(more.doubled);
        self.labels.merge(more.labels);
        self.links.merge(more.links);
        self.unmarked.merge(more.unmarked);
        self.continued.merge(more.continued);
    }
}

impl NotRead {
    /// What is not read, for people.
    pub(super) fn told(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let mut tell = |Tally { count, first }: &Tally, one: &str, many: &str| match count {
            0 => {}
            1 => parts.push(format!("1 {one} ({first})")),
            count => parts.push(format!("{count} {many} (first {first})")),
        };
        tell(&self.beside, "image beside its sample's", "images beside their samples'");
        tell(
            &self.doubled,
            "image that a later member of its name replaces",
            "images that later members of their names replace",
        );
        tell(&self.hidden, "hidden file", "hidden files");
        tell(
            &self.labels,
            "damaged label beside a good one of its sample",
            "damaged labels beside good ones of their samples",
        );
        tell(&self.links, "link to no file in its archive", "links to no file in their archives");
        tell(
            &self.unmarked,
            "end of an archive, which has no end marker and may miss members",
            "ends of archives, which have no end marker and may miss members",
        );
        tell(
            &self.continued,
            "rest of an archive, behind its end marker. If archives were joined, join them with \
             `tar -A`",
            "rests of archives, behind their end markers. If archives were joined, join them with \
             `tar -A`",
        );
        if !self.kinds.0.is_empty() {
            parts.push(kinds_of_files(self.kinds.0.iter().collect()));
        }
        parts
    }
}
