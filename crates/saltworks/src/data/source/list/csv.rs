//! Lists whose fields are separated by a letter: CSV (RFC 4180), TSV, or one path per line.

use std::path::Path;

use crate::data::source::image_file::is_image;

use super::{Fault, LABEL_NAMES, ListRow, ListTable, PATH_NAMES, is_part_name, no_path_column};

/// Separators besides the one that a list's extension promises. Excel writes semicolons where the
/// comma is the decimal point, and V-JEPA's lists have blanks.
const SEPARATORS: [char; 4] = [',', ';', '\t', ' '];

/// The columns of a record's fields.
#[derive(Clone, Copy)]
struct Columns {
    path: usize,
    label: Option<usize>,
    fields: usize,
}

/// Rows of a text whose fields are separated by `usual`, or by another letter if the first line
/// names or has a path only so. Paths start at `folder`.
pub(super) fn rows(text: &str, usual: char, folder: &Path) -> Result<ListTable, Fault> {
    let separator = separator(text, usual);
    let mut records = Records { rest: text, separator, line: 1 };
    let (mut columns, mut table) = (None, ListTable::default());
    let mut parts: Vec<usize> = Vec::new();
    if separator != usual {
        table.remarks.push(format!("fields are separated by {:?}", separator));
    }
    while let Some((line, mut record)) = records.next_record()? {
        let known = match columns {
            Some(columns) => columns,
            None => {
                let found = header(&record).or_else(|| without_header(&record, folder));
                let found = found.ok_or_else(|| Fault { line, problem: no_path(&record) })?;
                columns = Some(found);
                if header(&record).is_some() {
                    table.columns = record;
                    table.used = [Some(found.path), found.label].into_iter().flatten().collect();
                    let is_part = |at: &usize| is_part_name(&table.columns[*at]);
                    parts = (0..found.fields).filter(is_part).collect();
                    continue;
                }
                found
            }
        };
        let Columns { path, label, fields } = known;
        if record.len() != fields || record[path].trim().is_empty() {
            let found = record.len();
            let found =
                if found == fields { "no path".to_owned() } else { format!("{found} fields") };
            let problem = format!("has {found}, expected {fields} fields with a path");
            return Err(Fault { line, problem });
        }
        let parts = parts.iter().map(|&part| (part, record[part].clone())).collect();
        let label = label.map(|label| std::mem::take(&mut record[label]));
        table.rows.push(ListRow { line, path: std::mem::take(&mut record[path]), label, parts });
    }
    Ok(table)
}

/// The separator of a list by its first line.
fn separator(text: &str, usual: char) -> char {
    let is_list = |separator: &char| {
        let mut records = Records { rest: text, separator: *separator, line: 1 };
        let Ok(Some((_, record))) = records.next_record() else { return false };
        let starts_with_image = || record.len() <= 2 && is_image(Path::new(&record[0]));
        header(&record).is_some() || starts_with_image()
    };
    [usual].into_iter().chain(SEPARATORS).find(is_list).unwrap_or(usual)
}

/// The columns that a header names. None if it names no path.
fn header(record: &[String]) -> Option<Columns> {
    let columns = || record.iter().map(String::as_str);
    let (path, label) = (PATH_NAMES.find(columns())?, LABEL_NAMES.find(columns()));
    Some(Columns { path, label, fields: record.len() })
}

/// A path and perhaps a label. None if the first field is neither named as an image nor a file.
fn without_header(record: &[String], folder: &Path) -> Option<Columns> {
    let (first, fields) = (record.first()?, record.len());
    let is_path = is_image(Path::new(first)) || folder.join(first).is_file();
    (is_path && fields <= 2).then_some(Columns {
        path: 0,
        label: (fields == 2).then_some(1),
        fields,
    })
}

/// What is wrong with a first record without a path.
fn no_path(record: &[String]) -> String {
    match record {
        [first, _, _, ..] if is_image(Path::new(first)) => format!(
            "has {} fields and no header, expected a path and a label, or a header that names \
             columns path and label",
            record.len()
        ),
        _ => no_path_column(record),
    }
}

/// Splits a text into records. A field in quotes may hold separators, line ends and "" for a quote.
struct Records<'a> {
    rest: &'a str,
    separator: char,
    line: usize,
}

impl Records<'_> {
    /// The next record that is not an empty line, and the line it begins in.
    fn next_record(&mut self) -> Result<Option<(usize, Vec<String>)>, Fault> {
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
    fn field(&mut self, record: &mut Vec<String>) -> Result<bool, Fault> {
        let field = match self.rest.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            None => {
                let is_end = |byte: u8| byte == self.separator as u8 || byte == b'\n';
                let end = self.rest.bytes().position(is_end).unwrap_or(self.rest.len());
                let (field, rest) = self.rest.split_at(end);
                self.rest = rest;
                let last = !rest.starts_with(self.separator);
                if last { field.strip_suffix('\r').unwrap_or(field) } else { field }.to_owned()
            }
        };
        record.push(field);
        if let Some(rest) = self.rest.strip_prefix(self.separator) {
            self.rest = rest;
            return Ok(true);
        }
        let rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
        match rest.strip_prefix('\n') {
            Some(rest) => self.rest = rest,
            None if rest.is_empty() => self.rest = rest,
            None => {
                let problem = "has text after a closing quote".to_owned();
                return Err(Fault { line: self.line, problem });
            }
        }
        self.line += 1;
        Ok(false)
    }

    fn quoted(&mut self, quoted: &str) -> Result<String, Fault> {
        let first_line = self.line;
        let (mut field, mut from) = (String::new(), 0);
        loop {
            let Some(quote) = quoted[from..].find('"').map(|at| from + at) else {
                let problem = "has a quote that is not closed".to_owned();
                return Err(Fault { line: first_line, problem });
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
