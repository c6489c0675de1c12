//! docs/recipe.md: a section for each table of a recipe, a row for each key.

use crate::defaults::{Default, Defaults, Step};
use crate::source::{Member, Type};
use std::fmt::Write as _;
use toml::Value;

const INTRODUCTION: &str = "# Recipe

A recipe is a TOML file. This page lists every key, with its type, its default and its meaning. It
is generated from the program's source ([how](development.md#documentation)).

Any key can be changed on the command line, by its path: `--set data.size=32`. Name a stage to
change its keys: `--set teacher.lr=1e-3`. If a key is \"not set\", its meaning says what happens.

Without a recipe, values are [chosen for your images](data.md#a-recipe-for-your-images).
`saltworks recipe photos` prints them, each with its meaning.
";

/// Writes the page.
pub(crate) struct Page<'a> {
    types: &'a [Type],
    defaults: Defaults,
    text: String,
    /// Tables that have a section: type, heading, and defaults.
    done: Vec<(&'a str, String, Vec<Default>)>,
}

/// A table of a recipe.
struct Section<'a> {
    of: &'a Type,
    path: Vec<Step>,
    /// Whether a recipe may have several.
    is_list: bool,
}

/// What a key holds.
enum Kind<'a> {
    /// A value, in words.
    Plain(String),
    /// A table, or a list of them.
    Table { of: &'a Type, is_list: bool },
    /// One of several tables, by the value of a tag.
    Tagged { of: &'a Type, tag: &'a str },
}

impl<'a> Page<'a> {
    /// The page of the recipe whose type is called `root`.
    pub(crate) fn of(types: &'a [Type], root: &str) -> String {
        let root = types.iter().find(|found| found.name == root && is_read(found));
        let root = root.expect("the type of a recipe");
        let masks = ["stage", "masks"].iter().fold(root, |table, key| {
            let member = table.members.iter().find(|member| member.name == *key);
            let found = member.and_then(|member| find(types, &member.of, &table.file));
            found.expect("the types of stage and masks")
        });
        let kinds: Vec<_> = masks.members.iter().map(|member| member.key(masks)).collect();
        let defaults = Defaults::new(&kinds);
        let mut page = Self { types, defaults, text: INTRODUCTION.to_owned(), done: Vec::new() };
        page.section(&Section { of: root, path: Vec::new(), is_list: false });
        page.text
    }

    fn section(&mut self, section: &Section<'a>) {
        let heading = heading(section);
        let level = if keys(&section.path).len() < 2 { "##" } else { "###" };
        let docs = plain(&section.of.docs).replace('\n', "\n\n");
        let _ = writeln!(self.text, "\n{level} {heading}\n\n{docs}");
        // Without `default`, serde's derived reader needs every key.
        let is_derived = section.of.attributes.contains("Deserialize");
        if is_derived && !section.of.says("default") && !section.path.is_empty() {
            self.text.push_str("\nIf you write this table, give all of its keys.\n");
        }
        self.text.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        if let Some(Step::Tagged(tag, value)) = section.path.last() {
            let _ = writeln!(self.text, "| `{tag}` | text | required | `\"{value}\"` |");
        }
        let mut below = Vec::new();
        for (member, file) in self.fields(section.of) {
            below.extend(self.row(section, member, file));
        }
        let defaults = self.all_defaults(section);
        self.done.push((&section.of.name, heading, defaults));
        for section in below {
            if self.same(&section).is_none() {
                self.section(&section);
            }
        }
    }

    /// A row for a key, and the tables under it.
    fn row(&mut self, at: &Section<'a>, member: &'a Member, file: &str) -> Vec<Section<'a>> {
        let key = member.key(at.of);
        let mut path = at.path.clone();
        path.push(Step::Key(key.clone()));
        let mut default = match self.defaults.of(&path) {
            Default::Required => "required".to_owned(),
            Default::NotSet => "not set".to_owned(),
            Default::Value(value) => format!("`{}`", written(&value)),
        };
        let mut meaning = plain(&member.docs).replace('\n', " ");
        let (kind, below) = match self.kind(&member.of, file) {
            Kind::Plain(words) => {
                meaning.push_str(&self.variants(&member.of, file));
                (words, Vec::new())
            }
            Kind::Table { of, is_list } => {
                if default.starts_with('`') {
                    default = "see there".to_owned();
                }
                let section = Section { of, path, is_list };
                let heading = self.same(&section).unwrap_or_else(|| heading(&section));
                let words = if is_list { "list of tables" } else { "table" };
                (format!("[{words}](#{})", anchor(&heading)), vec![section])
            }
            Kind::Tagged { of, tag } => {
                let section = |member: &Member| {
                    let tagged = Step::Tagged(tag.to_owned(), member.key(of));
                    let of = self.find(&member.of, file).expect("the table of a kind");
                    Section { of, path: [&*path, &[tagged]].concat(), is_list: false }
                };
                let below: Vec<_> = of.members.iter().map(section).collect();
                let link = |(member, section): (&Member, &Section<'_>)| {
                    format!("[`{}`](#{})", member.key(of), anchor(&heading(section)))
                };
                let links: Vec<_> = of.members.iter().zip(&below).map(link).collect();
                if let Default::Value(value) = self.defaults.of(&path) {
                    let value = value.get(tag).and_then(Value::as_str).unwrap_or_default();
                    default = format!("`{{ {tag} = \"{value}\" }}`");
                }
                (format!("table of a {tag}: {}", links.join(", ")), below)
            }
        };
        let meaning = meaning.replace('|', "\\|");
        let _ = writeln!(self.text, "| `{key}` | {kind} | {default} | {meaning} |");
        below
    }

    /// The fields of a struct, with those of structs that are flattened into it, and their files.
    fn fields(&self, of: &'a Type) -> Vec<(&'a Member, &'a str)> {
        let mut fields = Vec::new();
        for member in of.members.iter().filter(|member| !member.says("skip")) {
            match self.find(&member.of, &of.file).filter(|_| member.says("flatten")) {
                Some(inner) => fields.extend(self.fields(inner)),
                None => fields.push((member, of.file.as_str())),
            }
        }
        fields
    }

    fn all_defaults(&self, section: &Section<'a>) -> Vec<Default> {
        let fields = self.fields(section.of).into_iter();
        let paths = fields
            .map(|(member, _)| [&*section.path, &[Step::Key(member.key(section.of))]].concat());
        paths.map(|path| self.defaults.of(&path)).collect()
    }

    /// The heading of a table that is the same in another place of a recipe.
    fn same(&self, section: &Section<'a>) -> Option<String> {
        let defaults = self.all_defaults(section);
        let mut done = self.done.iter();
        done.find(|(of, _, found)| *of == section.of.name && *found == defaults)
            .map(|(_, heading, _)| heading.clone())
    }

    fn find(&self, of: &str, file: &str) -> Option<&'a Type> {
        find(self.types, of, file)
    }

    fn kind(&self, of: &str, file: &str) -> Kind<'a> {
        let of = inner(of);
        if let Some(item) = of.strip_prefix("Vec<").and_then(|rest| rest.strip_suffix('>')) {
            return match self.kind(item, file) {
                Kind::Plain(words) => Kind::Plain(format!("list of {words}s")),
                Kind::Table { of, .. } | Kind::Tagged { of, .. } => {
                    Kind::Table { of, is_list: true }
                }
            };
        }
        if let Some((item, count)) = of.strip_prefix('[').and_then(|rest| rest.split_once(';')) {
            let count: usize = count.trim_matches([' ', ']']).parse().unwrap_or(1);
            let item = self.words(item, file);
            return Kind::Plain(format!("[{}]", vec![item; count].join(", ")));
        }
        match of {
            "usize" | "u64" | "u32" | "u16" | "u8" => Kind::Plain("whole number".to_owned()),
            "f64" | "f32" => Kind::Plain("number".to_owned()),
            "bool" => Kind::Plain("true or false".to_owned()),
            "String" | "PathBuf" => Kind::Plain("text".to_owned()),
            // These are read by functions of their own (recipe/sizes.rs, recipe/color.rs).
            "ImageSize" => Kind::Plain("whole number or [height, width]".to_owned()),
            "PatchSize" => {
                let words = "whole number, [height, width] or [frames, height, width]";
                Kind::Plain(words.to_owned())
            }
            "Depth" => Kind::Plain("whole number or [black, white]".to_owned()),
            "Color" => Kind::Plain("[red, green, blue], name or \"#rrggbb\"".to_owned()),
            _ => {
                self.find(of, file).map_or_else(|| Kind::Plain(of.to_owned()), |t| self.of_type(t))
            }
        }
    }

    fn of_type(&self, of: &'a Type) -> Kind<'a> {
        if let Some(from) = of.serde("from").or(of.serde("try_from")) {
            let names: Vec<_> = of.members.iter().map(|member| member.name.as_str()).collect();
            let is_list = from.starts_with('[') && from.ends_with(&format!("; {}]", names.len()));
            return match is_list {
                true => Kind::Plain(format!("[{}]", names.join(", "))),
                false => self.kind(from, &of.file),
            };
        }
        match (of.is_enum, of.serde("tag")) {
            (false, _) => Kind::Table { of, is_list: false },
            (true, Some(tag)) => Kind::Tagged { of, tag },
            (true, None) => {
                let words = of.members.iter().map(|member| self.variant(of, member));
                let mut words: Vec<_> = words.collect();
                words.dedup();
                Kind::Plain(words.join(" or "))
            }
        }
    }

    fn words(&self, of: &str, file: &str) -> String {
        match self.kind(of, file) {
            Kind::Plain(words) => words,
            Kind::Table { .. } | Kind::Tagged { .. } => "table".to_owned(),
        }
    }

    /// How a recipe writes a variant.
    fn variant(&self, of: &Type, member: &Member) -> String {
        let held = self.words(&member.of, &of.file);
        match (of.says("untagged"), member.of.is_empty()) {
            (true, _) => held,
            (false, true) => format!("`\"{}\"`", member.key(of)),
            (false, false) => format!("`{{ {} = {held} }}`", member.key(of)),
        }
    }

    /// What each word stands for.
    fn variants(&self, of: &str, file: &str) -> String {
        let of = self.find(of, file).filter(|of| of.is_enum && !of.says("untagged"));
        let Some(of) = of else { return String::new() };
        let about = |member: &Member| {
            let docs = plain(&member.docs);
            format!("<br>`{}`: {}", member.key(of), docs.replace('\n', " "))
        };
        of.members.iter().map(about).collect()
    }
}

/// The type that a type's text in `file` names, without `Option` and the like. Of several with one
/// name it is the nearest.
fn find<'a>(types: &'a [Type], of: &str, file: &str) -> Option<&'a Type> {
    let of = inner(of);
    let of = of.strip_prefix("Vec<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(of);
    let name = of.rsplit("::").next()?;
    let all = types.iter().filter(|found| found.name == name && is_read(found));
    all.max_by_key(|found| common(&found.file, file))
}

/// Whether a type is read or written by serde.
fn is_read(of: &Type) -> bool {
    of.attributes.contains("Serialize") || of.attributes.contains("Deserialize")
}

/// A type without `Option<..>` and `Box<..>`. A list of masks may be written as one of them.
fn inner(of: &str) -> &str {
    if of == "MaskList" {
        return "Masking";
    }
    let outer = ["Option<", "Box<"].iter().find_map(|outer| of.strip_prefix(outer));
    outer.and_then(|rest| rest.strip_suffix('>')).map_or(of, inner)
}

/// How many bytes two paths begin with in common.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

fn keys(path: &[Step]) -> Vec<&str> {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Tagged(..) => None,
    });
    keys.collect()
}

/// `[data]`, `[[stage]]`, `[stage.masks]` of a kind.
fn heading(section: &Section<'_>) -> String {
    let name = keys(&section.path).join(".");
    let kind = section.path.iter().find_map(|step| match step {
        Step::Tagged(tag, value) => Some(format!(", {tag} `{value}`")),
        Step::Key(_) => None,
    });
    match (section.path.is_empty(), section.is_list) {
        (true, _) => "Keys of no table".to_owned(),
        (false, true) => format!("`[[{name}]]`"),
        (false, false) => format!("`[{name}]`{}", kind.unwrap_or_default()),
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

/// A doc comment without rustdoc's links.
fn plain(docs: &str) -> String {
    docs.trim().replace("[`", "`").replace("`]", "`")
}

/// A value as a recipe writes it in one line.
fn written(value: &Value) -> String {
    match value {
        Value::Float(number) => format!("{number:?}"),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let items = table.iter().map(|(key, value)| format!("{key} = {}", written(value)));
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
