//! Lists of image files with optional labels: CSV (RFC 4180), TSV, or one path per line.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use crate::data::source::image_file::{ImageFiles, extension, is_image, read_at_most};
use crate::data::source::labels::Labels;
use crate::data::{Background, Error, Result};

/// Names of the column of paths, in upper or lower case.
const PATH_NAMES: [&str; 7] =
    ["path", "file", "filename", "image", "image_path", "file_path", "filepath"];

/// Names of the column of labels, in upper or lower case.
const LABEL_NAMES: [&str; 4] = ["label", "class", "target", "category"];

/// The most bytes of a list: ten million lines of 400 bytes.
const MOST_BYTES: u64 = 4 << 30;

impl ImageFiles {
    /// The images of a list in its order. Fields are separated by commas in a `.csv`, otherwise by
    /// tabs. Relative paths start at the list's folder.
    pub fn of_list(path: &Path, background: Background) -> Result<Self> {
        let bytes = read_at_most(path, MOST_BYTES, "Split it")?;
        let comma = extension(path) == "csv";
        let separator = if comma { b',' } else { b'\t' };
        let (names, labels) = parse(&bytes, separator, path)?;
        let (labels, classes) = labels.finish();
        let folder = path.parent().unwrap_or(Path::new(""));
        let files: Vec<_> = names.iter().map(|name| folder.join(name)).zip(labels).collect();
        // A wrong folder would make every image unreadable, so it is reported at once.
        if let Some((first, _)) = files.first().filter(|(first, _)| !first.exists()) {
            let problem = match names.get(1).is_some_and(|second| is_header(&names[0], second)) {
                true => unknown_header(&bytes),
                false => format!(
                    "its first image, {}, does not exist. {}",
                    first.display(),
                    other_separator(&names[0], comma).unwrap_or_else(|| {
                        "Paths start at the list's folder, or with a /".to_owned()
                    })
                ),
            };
            return Err(Error::file(path, problem));
        }
        let (path, kind, left_alone) = (path.into(), "a list of ", String::new());
        Ok(Self { path, kind, files, classes, background, left_alone })
    }
}

/// Whether a first field names a column: it is not an image's file, but the second is.
fn is_header(first: &str, second: &str) -> bool {
    !is_image(Path::new(first)) && is_image(Path::new(second))
}

fn unknown_header(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!(
        "line 1, {:?}, names no column of paths, expected {}, and for labels {}. Rename the \
         columns",
        text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default(),
        PATH_NAMES.join(", "),
        LABEL_NAMES.join(", ")
    )
}

/// Advice for a path that holds a separator of another format.
fn other_separator(path: &str, comma: bool) -> Option<String> {
    let names = [(';', "semicolons"), ('\t', "tabs"), (',', "commas"), (' ', "blanks")];
    let (_, found) = names.into_iter().find(|(separator, _)| path.contains(*separator))?;
    let (expected, kind) = if comma { ("commas", ".csv") } else { ("tabs", ".tsv and .txt") };
    Some(format!(
        "Its fields seem to be separated by {found}, expected {expected} in a {kind}. \
         Otherwise check that paths start at the list's folder, or with a /"
    ))
}

/// The columns of a record's fields.
#[derive(Clone, Copy)]
struct Columns {
    path: usize,
    label: Option<usize>,
    fields: usize,
}

/// Paths and labels of a list.
fn parse(bytes: &[u8], separator: u8, path: &Path) -> Result<(Vec<String>, Labels)> {
    let fail = |line: usize, problem: String| Error::file(path, format!("line {line}: {problem}"));
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        fail(line, "is not UTF-8. Save the list as UTF-8".to_owned())
    })?;
    let mut records = Records { rest: text, separator, line: 1 };
    let (mut columns, mut names, mut labels) = (None, Vec::new(), Labels::default());
    let mut lines: HashMap<PathBuf, usize> = HashMap::new();
    while let Some((line, record)) = records.next_record().map_err(|(at, found)| fail(at, found))? {
        let known = match columns {
            Some(columns) => columns,
            None => {
                let (found, is_header) = columns_of(&record).map_err(|found| fail(line, found))?;
                columns = Some(found);
                if is_header {
                    continue;
                }
                found
            }
        };
        let Columns { path, label, fields } = known;
        if record.len() != fields || record[path].is_empty() {
            let found = record.len();
            let found =
                if found == fields { "no path".to_owned() } else { format!("{found} fields") };
            return Err(fail(line, format!("has {found}, expected {fields} fields with a path")));
        }
        // `a.png` and `./a.png` are one file. As two images, one could train while the other is
        // held out.
        let file = Path::new(&record[path])
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if let Some(first) = lines.insert(file, line) {
            let problem = format!("{} is in line {first}, too. Remove one", record[path]);
            return Err(fail(line, problem));
        }
        labels.push(label.map(|label| record[label].as_str()));
        names.push(record[path].clone());
    }
    match names.is_empty() {
        true => Err(Error::file(path, "lists 0 images, expected a path on each line")),
        false => Ok((names, labels)),
    }
}

/// The columns of a first record, and whether it is a header.
fn columns_of(record: &[String]) -> std::result::Result<(Columns, bool), String> {
    let column = |names: &[&str]| {
        record.iter().position(|field| names.contains(&field.trim().to_lowercase().as_str()))
    };
    let fields = record.len();
    match (column(&PATH_NAMES), fields) {
        (Some(path), _) => Ok((Columns { path, label: column(&LABEL_NAMES), fields }, true)),
        (None, 1) => Ok((Columns { path: 0, label: None, fields }, false)),
        (None, 2) => Ok((Columns { path: 0, label: Some(1), fields }, false)),
        (None, _) => Err(format!(
            "has {fields} fields and no header, expected a path and a label, or a header that \
             names columns path and label"
        )),
    }
}

/// Splits a text into records. A field in quotes may hold separators, line ends and "" for a quote.
struct Records<'a> {
    rest: &'a str,
    separator: u8,
    line: usize,
}

impl Records<'_> {
    /// The next record that is not an empty line, and the line it begins in.
    #[expect(clippy::type_complexity, reason = "a line with its fields, or with its error")]
    fn next_record(
        &mut self,
    ) -> std::result::Result<Option<(usize, Vec<String>)>, (usize, String)> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let line = self.line;
            let mut record = Vec::new();
            while self.field(&mut record)? {}
            if record != [""] {
                return Ok(Some((line, record)));
            }
        }
    }

    /// Adds a field. True if the record has more.
    fn field(&mut self, record: &mut Vec<String>) -> std::result::Result<bool, (usize, String)> {
        let field = match self.rest.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            None => {
                let is_end = |byte: u8| byte == self.separator || byte == b'\n';
                let end = self.rest.bytes().position(is_end).unwrap_or(self.rest.len());
                let (field, rest) = self.rest.split_at(end);
                self.rest = rest;
                let last = !rest.starts_with(self.separator as char);
                if last { field.strip_suffix('\r').unwrap_or(field) } else { field }.to_owned()
            }
        };
        record.push(field);
        if let Some(rest) = self.rest.strip_prefix(self.separator as char) {
            self.rest = rest;
            return Ok(true);
        }
        let rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
        match rest.strip_prefix('\n') {
            Some(rest) => self.rest = rest,
            None if rest.is_empty() => self.rest = rest,
            None => return Err((self.line, "has text after a closing quote".to_owned())),
        }
        self.line += 1;
        Ok(false)
    }

    fn quoted(&mut self, quoted: &str) -> std::result::Result<String, (usize, String)> {
        let first_line = self.line;
        let (mut field, mut from) = (String::new(), 0);
        loop {
            let Some(quote) = quoted[from..].find('"').map(|at| from + at) else {
                return Err((first_line, "has a quote that is not closed".to_owned()));
            };
            field.push_str(&quoted[from..quote]);
            if !quoted[quote + 1..].starts_with('"') {
                self.line += field.matches('\n').count();
                let rest = self.rest.len() - (quoted.len() - quote - 1);
                self.rest = &self.rest[rest..];
                return Ok(field);
            }
            field.push('"');
            from = quote + 2;
        }
    }
}

#[cfg(test)]
mod tests;
