//! Structs and enums of the crate's source text: doc comments, attributes, fields. It relies on
//! rustfmt: an item begins at the margin and ends with a brace at the margin.

use std::path::Path;

/// A struct or an enum.
pub(crate) struct Type {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) docs: String,
    /// All attributes in one line.
    pub(crate) attributes: String,
    pub(crate) is_enum: bool,
    pub(crate) members: Vec<Member>,
}

/// A field of a struct, or a variant of an enum.
#[derive(Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) docs: String,
    pub(crate) attributes: String,
    /// A field's type, or what a variant holds; empty for a variant that holds nothing.
    pub(crate) of: String,
}

/// The types of all files under a folder.
pub(crate) fn types_under(folder: &Path) -> Vec<Type> {
    let mut types = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            types.extend(types_under(&path));
        } else if path.extension().is_some_and(|found| found == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            types.extend(types_of(&path.display().to_string(), &text));
        }
    }
    types
}

/// The types of one file.
pub(crate) fn types_of(file: &str, text: &str) -> Vec<Type> {
    let mut types = Vec::new();
    let mut above = Above::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if above.takes(line) {
            continue;
        }
        let Above { docs, attributes, .. } = std::mem::take(&mut above);
        let Some((is_enum, name)) = header(line) else { continue };
        let body = lines.by_ref().take_while(|line| *line != "}");
        let members = members(&body.collect::<Vec<_>>(), is_enum);
        let (file, name) = (file.to_owned(), name.to_owned());
        types.push(Type { file, name, docs, attributes, is_enum, members });
    }
    types
}

/// Whether `pub struct Name {` is an enum, and its name. Structs without named fields are no table.
fn header(line: &str) -> Option<(bool, &str)> {
    let line = line.strip_suffix(" {")?;
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [.., "struct", name] => Some((false, name)),
        [.., "enum", name] => Some((true, name)),
        _ => None,
    }
}

/// Doc comments and attributes above an item.
#[derive(Default)]
struct Above {
    docs: String,
    attributes: String,
    in_attribute: bool,
}

impl Above {
    /// Takes a line that is part of them.
    fn takes(&mut self, line: &str) -> bool {
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("///") {
            let doc = doc.trim();
            let gap = match (self.docs.is_empty(), doc.is_empty()) {
                (false, true) => "\n",
                (false, false) if !self.docs.ends_with('\n') => " ",
                _ => "",
            };
            self.docs.extend([gap, doc]);
            return true;
        }
        if self.in_attribute || line.starts_with("#[") {
            self.attributes.push_str(line);
            self.in_attribute = !line.ends_with(']');
            return true;
        }
        line.starts_with("//")
    }
}

fn members(body: &[&str], is_enum: bool) -> Vec<Member> {
    let mut members = Vec::new();
    let mut above = Above::default();
    let mut code = String::new();
    for line in body {
        if code.is_empty() && above.takes(line) {
            continue;
        }
        let line = line.trim();
        code.push_str(if line.starts_with("//") { "" } else { line });
        if !code.ends_with(',') || !is_balanced(&code) {
            continue;
        }
        let Above { docs, attributes, .. } = std::mem::take(&mut above);
        let code = std::mem::take(&mut code);
        let (name, of) = if is_enum { variant(&code) } else { field(&code) };
        members.push(Member { name: name.to_owned(), docs, attributes, of: of.to_owned() });
    }
    members
}

fn is_balanced(code: &str) -> bool {
    let count = |c: char| code.matches(c).count();
    [('(', ')'), ('{', '}'), ('[', ']'), ('<', '>')].iter().all(|(a, b)| count(*a) == count(*b))
}

/// `pub name: Type,`
fn field(code: &str) -> (&str, &str) {
    let (name, of) = code.trim_end_matches(',').split_once(':').unwrap_or((code, ""));
    (name.rsplit(' ').next().unwrap_or(name), of.trim())
}

/// `Name,`, `Name(Type),` or `Name { .. },`
fn variant(code: &str) -> (&str, &str) {
    let code = code.trim_end_matches(',');
    match code.split_once('(') {
        Some((name, of)) => (name, of.strip_suffix(')').unwrap_or(of)),
        None => code.split_once('{').map_or((code, ""), |(name, _)| (name.trim(), "a table")),
    }
}

impl Type {
    /// The value of a serde attribute, such as `tag = "kind"`.
    pub(crate) fn serde(&self, key: &str) -> Option<&str> {
        serde(&self.attributes, key)
    }

    /// Whether a serde attribute without a value is there, such as `default`.
    pub(crate) fn says(&self, word: &str) -> bool {
        says(&self.attributes, word)
    }
}

impl Member {
    /// Whether a serde attribute without a value is there.
    pub(crate) fn says(&self, word: &str) -> bool {
        says(&self.attributes, word)
    }

    /// The name in a recipe.
    pub(crate) fn key(&self, of: &Type) -> String {
        if let Some(name) = serde(&self.attributes, "rename") {
            return name.to_owned();
        }
        match of.serde("rename_all") {
            Some("lowercase") => self.name.to_lowercase(),
            Some("snake_case") if of.is_enum => snake_case(&self.name, '_'),
            Some("kebab-case") if of.is_enum => snake_case(&self.name, '-'),
            _ => self.name.clone(),
        }
    }
}

fn serde<'a>(attributes: &'a str, key: &str) -> Option<&'a str> {
    let inside = attributes.split("#[serde(").skip(1);
    let values = inside.filter_map(|text| {
        let (_, rest) = text.split_once(&format!("{key} = \""))?;
        rest.split('"').next()
    });
    values.into_iter().next()
}

fn says(attributes: &str, word: &str) -> bool {
    let inside = attributes.split("#[serde(").skip(1);
    let mut words = inside.filter_map(|text| text.split(")]").next()).flat_map(|t| t.split(','));
    words.any(|found| found.trim() == word)
}

/// serde's rule: a word begins with each capital letter.
fn snake_case(name: &str, between: char) -> String {
    let mut snake = String::new();
    for (i, c) in name.char_indices() {
        if i > 0 && c.is_uppercase() {
            snake.push(between);
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
