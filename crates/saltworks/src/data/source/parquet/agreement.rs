//! What the files of a source agree on: the column of their images, that of their labels, and the
//! names of their classes.

use std::collections::BTreeMap;
use std::path::Path;

use super::OpenFile;
use super::features::HubFeatures;
use crate::data::source::labels::Classes;
use crate::data::{Error, Result};

/// What files have been seen to state.
#[derive(Default)]
pub(super) struct Agreement<'a> {
    /// The column of the images, and the first file of that column.
    image: Option<(String, &'a Path)>,
    /// The names of the classes, and the first file that states them.
    names: Option<(Vec<String>, &'a Path)>,
    /// What a later file states of the classes, if it is something else.
    conflict: Option<Error>,
    /// How many files have their labels in each column, and the first of them. None stands for
    /// files without labels.
    labels: BTreeMap<Option<String>, (usize, &'a Path)>,
}

impl<'a> Agreement<'a> {
    /// Adds a file. Refuses one with rows whose images are in another column than those of the
    /// first.
    pub(super) fn add(
        &mut self,
        path: &'a Path,
        file: &OpenFile,
        features: &HubFeatures,
    ) -> Result<()> {
        let label = file.label_name();
        let names = label.as_ref().and_then(|label| features.labels.get(label));
        match (&self.names, names.filter(|names| !names.is_empty())) {
            (None, Some(names)) => self.names = Some((names.clone(), path)),
            (Some((first, of)), Some(names)) if !is_start(first, names) => {
                let problem = format!(
                    "states other classes ({}) than {} ({}). Give the files as separate sources",
                    some_of(names),
                    of.display(),
                    some_of(first)
                );
                self.conflict.get_or_insert_with(|| Error::file(path, problem));
            }
            _ => {}
        }
        // Files without rows hold no images of another kind.
        if file.metadata.row_groups().iter().all(|group| group.num_rows() == 0) {
            return Ok(());
        }
        self.labels.entry(label).or_insert((0, path)).0 += 1;
        let column = &file.columns.image_name;
        let (first, of) = self.image.get_or_insert_with(|| (column.clone(), path));
        if first == column {
            return Ok(());
        }
        let problem = format!(
            "has its images in the column {column}, but {} in the column {first}. Give \
             data.column, or the files as separate sources",
            of.display()
        );
        Err(Error::file(path, problem))
    }

    /// The column of the images.
    pub(super) fn image(&self) -> Option<&str> {
        self.image.as_ref().map(|(column, _)| column.as_str())
    }

    /// A column of labels.
    pub(super) fn label(&self) -> Option<&str> {
        self.labels.keys().find_map(|column| column.as_deref())
    }

    /// Gives the classes their stated names, if they are as many. Refuses files that state
    /// different ones.
    pub(super) fn name(&mut self, classes: &mut Classes) -> Result<()> {
        if classes.names.is_empty() {
            return Ok(());
        }
        if let Some(conflict) = self.conflict.take() {
            return Err(conflict);
        }
        if let Some((names, _)) =
            self.names.take_if(|(names, _)| names.len() >= classes.names.len())
        {
            classes.names = names;
        }
        Ok(())
    }

    /// How the files are read, for people. Columns of usual names need no word. `has_classes` says
    /// whether labels are used.
    pub(super) fn remarks(&self, has_classes: bool) -> Vec<String> {
        let images = self.image().filter(|column| *column != "image");
        let mut remarks: Vec<_> = images
            .map(|column| format!("images are those of the column {column}"))
            .into_iter()
            .collect();
        if !has_classes {
            return remarks;
        }
        if self.labels.len() == 1 {
            let label = self.label().filter(|column| *column != "label");
            remarks.extend(label.map(|column| format!("labels are those of the column {column}")));
            return remarks;
        }
        let parts = self.labels.iter().map(|(column, (count, first))| {
            let column =
                column.as_ref().map_or("no column".to_owned(), |name| format!("column {name}"));
            let files = if *count == 1 { "1 file" } else { &format!("{count} files, first") };
            format!("{column} in {files} {}", first.display())
        });
        remarks.push(format!("labels are those of {}", parts.collect::<Vec<_>>().join("; ")));
        remarks
    }
}

/// Whether one of two lists begins with the other.
fn is_start(a: &[String], b: &[String]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// How many classes, and some of them.
fn some_of(names: &[String]) -> String {
    format!("{}: {}", names.len(), crate::data::source::several(names))
}
