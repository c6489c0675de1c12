//! Lists of image files with optional labels: CSV, TSV, JSON Lines, or one path per line.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use crate::data::source::image_file::{ImageFiles, extension, read_at_most};
use crate::data::source::labels::{Classes, Labels};
use crate::data::source::part_column::{MOST_PARTS, PartColumn, is_part_name, plain};
use crate::data::source::{Notes, several};
use crate::data::{Decoding, Error, Result};

mod csv;
mod jsonl;

/// Names of the column of paths. Case, blanks, `_` and `-` do not count.
const PATH_NAMES: ColumnNames = ColumnNames {
    usual: &["path", "file", "file_name", "file_path", "image", "image_path"],
    other: &[
        "fname",
        "image_file",
        "image_id",
        "image_name",
        "img",
        "img_path",
        "img_file",
        "img_id",
        "img_name",
    ],
};

/// Names of the column of labels, in the same way.
const LABEL_NAMES: ColumnNames = ColumnNames {
    usual: &["label", "class", "target", "category"],
    other: &["label_id", "label_name", "class_id", "class_name", "category_id", "category_name"],
};

/// Names that a column may have.
struct ColumnNames {
    usual: &'static [&'static str],
    /// These count if no column has a usual name: `image_id` may be a number beside `filename`.
    other: &'static [&'static str],
}

impl ColumnNames {
    /// The first column with a usual name, or with another one of these.
    fn find<'a>(&self, mut columns: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
        let has =
            |names: &[&str], column: &str| names.iter().any(|name| plain(name) == plain(column));
        let usual = columns.clone().position(|column| has(self.usual, column));
        usual.or_else(|| columns.position(|column| has(self.other, column)))
    }

    fn join(&self, separator: &str) -> String {
        [self.usual, self.other].concat().join(separator)
    }
}

/// Extensions of lists.
pub(super) const LISTS: [&str; 4] = ["csv", "tsv", "txt", "jsonl"];

/// The most bytes of a list: ten million lines of 400 bytes.
const MOST_BYTES: u64 = 4 << 30;

impl ImageFiles {
    /// The images of a list in its order. Fields are separated by commas in a `.csv`, otherwise by
    /// tabs. Relative paths start at the list's folder. Of a list that says which images are to
    /// train on and which to test, only one kind is read: those to test if `tests` is set.
    pub fn of_list(path: &Path, decoding: Decoding, tests: bool) -> Result<Self> {
        let mut list = ImageList::read(path)?;
        let holds_tests = !tests && !list.tests.is_empty();
        let of_tests = tests && !list.tests.is_empty();
        if of_tests {
            list.take_tests();
        } else if !list.tests.is_empty() {
            let (count, named) = (list.tests.len(), &list.tests_named);
            let left = format!("{count} images {named}. To read them, too, rename the column");
            list.notes.left_alone.push(left);
        }
        // A wrong folder would make every image unreadable, so it is reported at once.
        if let Some((first, _)) = list.files.first().filter(|(first, _)| !first.exists()) {
            let problem = match first.strip_prefix(path.parent().unwrap_or(Path::new(""))) {
                Ok(written) if has_drive(&written.to_string_lossy()) => format!(
                    "its first image, {}, is a path of another system: it begins with a drive. \
                     Write paths from the list's folder, or with a /",
                    written.display()
                ),
                _ => format!(
                    "its first image, {}, does not exist. Paths start at the list's folder, or \
                     with a /",
                    first.display(),
                ),
            };
            return Err(Error::file(path, problem));
        }
        let mut labels = Labels::default();
        list.files.iter().for_each(|(_, label)| labels.push(label.as_deref()));
        let Classes { of: numbers, names: classes, alike, .. } = labels.finish();
        let files = list.files.into_iter().map(|(file, _)| file).zip(numbers).collect();
        let kind = if of_tests { "the lines to test of a list, " } else { "a list of " };
        let (path, mut notes) = (path.into(), list.notes);
        notes.remarks.extend(alike);
        Ok(Self { path, kind, files, classes, decoding, notes, holds_tests })
    }
}

/// The files of a list in its order, each once.
#[derive(Debug)]
pub(super) struct ImageList {
    /// Files with their labels as written.
    pub(super) files: Vec<(PathBuf, Option<String>)>,
    /// Files that the list says are to validate or test, in the same way. They are no part of
    /// `files`.
    pub(super) tests: Vec<(PathBuf, Option<String>)>,
    /// Their places in the order of preference.
    ranks: Vec<usize>,
    /// What the list calls those, for people.
    pub(super) tests_named: String,
    /// Whether any has a label.
    pub(super) has_labels: bool,
    /// The names of all columns. Empty without a header.
    columns: Vec<String>,
    pub(super) notes: Notes,
}

impl ImageList {
    /// Reads a list.
    pub(super) fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_at_most(path, MOST_BYTES, "Split it")?, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail =
            |fault: Fault| Error::file(path, format!("line {}: {}", fault.line, fault.problem));
        let text = decoded(bytes).map_err(fail)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let table = match extension(path).as_str() {
            "jsonl" => jsonl::rows(&text),
            "csv" => csv::rows(&text, ',', folder),
            _ => csv::rows(&text, '\t', folder),
        };
        let table = table.map_err(fail)?;
        if table.rows.is_empty() {
            return Err(Error::file(path, "lists 0 images, expected a path on each line"));
        }
        table.once(folder).map_err(fail)
    }

    /// Makes the images to test those of the list: the best ones, as of folders.
    pub(super) fn take_tests(&mut self) {
        let best = self.ranks.iter().min().copied();
        let (all, tests) = (self.files.len() + self.tests.len(), std::mem::take(&mut self.tests));
        let ranked = tests.into_iter().zip(&self.ranks);
        self.files =
            ranked.filter(|(_, rank)| Some(**rank) == best).map(|(file, _)| file).collect();
        let others = all - self.files.len();
        self.notes.left_alone.push(format!("{others} images of other parts of the list"));
    }

    /// The names of its columns, for people.
    pub(super) fn columns(&self) -> String {
        match self.columns.as_slice() {
            [] => "paths".to_owned(),
            columns => columns.join(", "),
        }
    }
}

/// What is wrong with a line.
#[derive(Debug)]
struct Fault {
    line: usize,
    problem: String,
}

/// A line of a list.
struct ListRow {
    line: usize,
    path: String,
    label: Option<String>,
    /// Columns that may say whether it is to train on, and their texts.
    parts: Vec<(usize, String)>,
}

impl ListRow {
    /// Its text in a column of parts.
    fn part(&self, column: usize) -> String {
        let found = self.parts.iter().find(|(found, _)| *found == column);
        found.map_or(String::new(), |(_, text)| text.trim().to_owned())
    }
}

/// The lines of a list as written.
#[derive(Default)]
struct ListTable {
    rows: Vec<ListRow>,
    columns: Vec<String>,
    /// Which columns are read.
    used: Vec<usize>,
    remarks: Vec<String>,
}

impl ListTable {
    /// The files, each once. `a.png` and `./a.png` are one file. As two images, one could train
    /// while the other is held out.
    fn once(mut self, folder: &Path) -> std::result::Result<ImageList, Fault> {
        let keys = ListFolder::new(folder);
        let (mut files, mut notes) = (Vec::new(), Notes::default());
        let (tests, tests_named) = self.take_tests(&mut notes);
        let mut seen: HashMap<PathBuf, (usize, usize)> = HashMap::new();
        let (mut repeated, mut example, mut respelt) = (0, String::new(), 0);
        for ListRow { line, path, label, .. } in self.rows {
            let (spelt, as_written) = spelt(folder, &path);
            respelt += usize::from(!as_written);
            let key = keys.key(Path::new(&*spelt));
            let label =
                label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            if let Some(&(first, at)) = seen.get(&key) {
                let earlier: &(PathBuf, Option<String>) = &files[at];
                if earlier.1 != label {
                    let text = |label: &Option<String>| label.clone().unwrap_or("none".to_owned());
                    let (now, then) = (text(&label), text(&earlier.1));
                    let problem = format!(
                        "{path} is in line {first}, too, with another label: {then} there, {now} \
                         here. Remove one"
                    );
                    return Err(Fault { line, problem });
                }
                if repeated == 0 {
                    example = format!("line {line} ({path}, also in line {first})");
                }
                repeated += 1;
                continue;
            }
            seen.insert(key, (line, files.len()));
            files.push((folder.join(&*spelt), label));
        }
        if repeated > 0 {
            notes.left_alone.push(format!("{repeated} lines that repeat an image: {example}"));
        }
        notes.left_alone.extend(unread_columns(&self.columns, &self.used));
        notes.remarks.append(&mut self.remarks);
        if respelt > 0 {
            notes.remarks.push(format!(
                "{respelt} paths are read with / for \\, and without blanks around them"
            ));
        }
        let has_labels = files.iter().any(|(_, label)| label.is_some());
        let (mut both, mut rest, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashSet::new();
        for (ListRow { path, label, .. }, rank) in tests {
            let (spelt, _) = spelt(folder, &path);
            let key = keys.key(Path::new(&*spelt));
            if !known.insert(key.clone()) {
                continue;
            }
            match seen.contains_key(&key) {
                true => both.push(path),
                false => {
                    rest.push((folder.join(&*spelt), label));
                    ranks.push(rank);
                }
            }
        }
        if let Some(first) = both.first() {
            let count = both.len();
            notes.remarks.push(format!(
                "the list names images both to train on and to test: {count}, such as {first}. \
                 They train"
            ));
        }
        let columns = self.columns;
        Ok(ImageList { files, tests: rest, ranks, tests_named, has_labels, columns, notes })
    }

    /// The texts of a column that may name parts, with their numbers of rows. None if there are too
    /// many.
    fn values(&self, column: usize) -> Option<BTreeMap<String, usize>> {
        let mut values = BTreeMap::new();
        for row in &self.rows {
            *values.entry(row.part(column)).or_default() += 1;
            if values.len() > MOST_PARTS {
                return None;
            }
        }
        Some(values)
    }

    /// Takes the rows out that are to validate or test, unless no row would be left. Returns them
    /// with their places in the order of preference, and what the list calls them. A column counts
    /// if one of its texts names images to train on.
    fn take_tests(&mut self, notes: &mut Notes) -> (Vec<(ListRow, usize)>, String) {
        let columns: BTreeSet<usize> =
            self.rows.iter().flat_map(|row| row.parts.iter().map(|(column, _)| *column)).collect();
        for column in columns {
            let Some(values) = self.values(column) else { continue };
            let found = PartColumn::of(&self.columns[column], &values);
            notes.remarks.extend(found.remarks);
            if !found.is_used {
                continue;
            }
            self.used.push(column);
            if found.ranks.is_empty() {
                break;
            }
            let mut taken = Vec::new();
            for row in std::mem::take(&mut self.rows) {
                match found.ranks.get(&row.part(column)) {
                    Some(&rank) => taken.push((row, rank)),
                    None => self.rows.push(row),
                }
            }
            return (taken, found.named);
        }
        (Vec::new(), String::new())
    }
}

/// The columns that are not read, as text for people.
fn unread_columns(columns: &[String], used: &[usize]) -> Option<String> {
    let unread = columns.iter().enumerate().filter(|(at, _)| !used.contains(at));
    // The index that pandas writes has no name.
    let is_index = |name: &str| name.trim().is_empty() || name.starts_with("Unnamed:");
    let unread: Vec<_> = unread.map(|(_, name)| name).filter(|name| !is_index(name)).collect();
    (!unread.is_empty()).then(|| format!("the columns {}", several(&unread)))
}

/// The text of a list: UTF-8, or UTF-16 with a mark, as Excel writes it.
fn decoded(bytes: &[u8]) -> std::result::Result<String, Fault> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let text: std::result::Result<String, _> = char::decode_utf16(units).collect();
        let problem = "is not UTF-16, although its first bytes say so. Save the list as UTF-8";
        text.map_err(|_| Fault { line: 1, problem: problem.to_owned() })
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => return wide(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => return wide(rest, u16::from_be_bytes),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        Fault { line, problem: "is not UTF-8. Save the list as UTF-8".to_owned() }
    })?;
    Ok(text.to_owned())
}

/// What is wrong with columns of these names.
fn no_path_column(found: &[String]) -> String {
    format!(
        "{:?} names no column of paths and is no image, expected a column {}, and for labels {}. \
         Rename the columns",
        found.join(","),
        PATH_NAMES.join(", "),
        LABEL_NAMES.join(", ")
    )
}

/// Whether a path begins with a drive of Windows, such as `C:\`.
fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

/// A path as its file is called, and whether that is as written. Lists from Windows have
/// backslashes.
fn spelt<'a>(folder: &Path, path: &'a str) -> (Cow<'a, str>, bool) {
    let plain = path.trim().replace('\\', "/");
    if plain == path || folder.join(path).exists() || !folder.join(&plain).exists() {
        return (path.into(), true);
    }
    (plain.into(), false)
}

/// The folder of a list, to tell whether two paths are of one file.
pub(super) struct ListFolder {
    /// From the root, as it was given.
    given: PathBuf,
    /// From the root, without links.
    real: PathBuf,
}

impl ListFolder {
    pub(super) fn new(folder: &Path) -> Self {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let given = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        let real = folder.canonicalize().unwrap_or_else(|_| given.clone());
        Self { given, real }
    }

    /// [`Self::key`] of a path that starts at the working folder.
    pub(super) fn key_of_file(&self, file: &Path) -> PathBuf {
        self.key(&std::path::absolute(file).unwrap_or_else(|_| file.into()))
    }

    /// A path that is the same for all spellings of a file's path. Links are followed only where
    /// `..` needs it.
    fn key(&self, path: &Path) -> PathBuf {
        let file = self.real.join(path.strip_prefix(&self.given).unwrap_or(path));
        let file: PathBuf = file.components().filter(|part| *part != Component::CurDir).collect();
        if !file.components().any(|part| part == Component::ParentDir) {
            return file;
        }
        let real = file.parent().and_then(|folder| folder.canonicalize().ok());
        match (real, file.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => file,
        }
    }
}

#[cfg(test)]
mod tests;
