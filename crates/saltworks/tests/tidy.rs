//! The rules of ARCHITECTURE.md and STYLE.md that a program can check. Each rule is a function from
//! a file to its complaints, and is shown to complain before it is trusted.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 700;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 100;

/// Type names that a crate may have twice, each with its reason.
const SHARED_TYPE_NAMES: &[(&str, &str)] = &[
    ("Error", "each module has its own, and callers name it with the module"),
    ("Result", "the result of each module's Error"),
    ("Normalize", "recipe's is the key as written, data's has a number for each channel"),
    ("Position", "data's says where a loader stands, train's where a stage does"),
    ("Arguments", "each verb of the command line has its own"),
];

/// Participles that say nothing as the name of a type.
const PARTICIPLES: &[&str] = &[
    "Told", "Seen", "Kept", "Given", "Asked", "Held", "Made", "Found", "Shown", "Wanted",
    "Planned", "Followed", "Opened", "Near", "Said", "Stored", "Loaded", "Gathered",
];

/// Rooms of crates/saltworks/src by floor, from the ground up. A room may know only rooms of lower
/// floors.
const FLOORS: &[&[&str]] = &[
    &["base64", "range", "fuzz", "files"],
    &["zip"],
    &["mask"],
    &["data"],
    &["recipe"],
    &["model"],
    &["weights"],
    &["method"],
    &["eval"],
    &["pictures"],
    &["run_files"],
    &["train"],
    &["console"],
    &["failure"],
    &["judge"],
    &["loggers", "report"],
    &["run"],
    &["serve"],
    &["cli"],
    &["main"],
];

/// Lower rooms that a room still must not know.
const STRANGERS: &[(&str, &[&str])] = &[
    ("data", &["mask"]),
    ("model", &["data", "recipe"]),
    ("eval", &["method", "mask", "data", "recipe", "weights"]),
    ("pictures", &["data", "recipe", "weights"]),
    ("report", &["model", "method", "train", "pictures", "judge", "loggers"]),
    (
        "serve",
        &["pictures", "mask", "data", "recipe", "model", "method", "train", "eval", "weights"],
    ),
];

/// Operations whose result carries no gradient, by their definition.
const WITHOUT_GRADIENT: &[&str] = &["patchify", "normalize_patches"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the repository: its path from the root, its text, and that text without comments and
/// the insides of strings, line for line.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code_of(text) }
    }

    /// The room of crates/saltworks/src that this file belongs to.
    fn room(&self) -> Option<&str> {
        let path = self.path.strip_prefix("crates/saltworks/src/")?;
        path.split(['/', '.']).next()
    }

    fn complain(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

/// All Rust files under crates/ and fuzz/.
fn sources() -> Vec<Source> {
    let mut paths = files_under(&root().join("crates"), "rs");
    paths.extend(files_under(&root().join("fuzz"), "rs"));
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            Source::new(name, &std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(sources.len() > 40, "found {} Rust files only: look into `sources`", sources.len());
    sources
}

fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            files.extend(files_under(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `text` with comments and the insides of strings and characters blanked.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (code_len, whole_len) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (0, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            (1, raw_string_len(rest))
        } else if next == '"' {
            (1, quoted_len(rest, '"'))
        } else if next == '\'' && is_character(rest) {
            (1, quoted_len(rest, '\''))
        } else {
            (next.len_utf8(), next.len_utf8())
        };
        code.push_str(&rest[..code_len]);
        code.extend(rest[code_len..whole_len].chars().filter(|c| *c == '\n'));
        rest = &rest[whole_len..];
    }
    code
}

/// 'a' and '\n', but not the lifetime 'a.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    let first = chars.next();
    first == Some('\\') || (first.is_some() && chars.next() == Some('\''))
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_len(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 1; // r#type is a name
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len())
}

/// The names in a line of code.
fn names(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty())
}

/// The rooms that code names, with the lines: `crate::room` and `crate::{room, other::Thing}`.
fn rooms_named(code: &str) -> Vec<(usize, &str)> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count();
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = &group[..matching_brace(group)];
                rooms.extend(
                    top_level(group).filter_map(|part| names(part).next()).map(|n| (line, n)),
                );
            }
            None => rooms.extend(names(rest).next().map(|name| (line, name))),
        }
    }
    rooms
}

/// The position at which an open group ends.
fn matching_brace(group: &str) -> usize {
    let mut depth = 1;
    for (i, c) in group.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return i;
        }
    }
    group.len()
}

/// The parts of `a, b::{c, d}` between its outer commas.
fn top_level(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    group.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    })
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Rooms that a file names and must not know.
fn strangers(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|room| *room != "lib") else { return Vec::new() };
    let Some(own) = floor(room) else {
        return vec![source.complain(0, &format!("{room} stands on no floor: add it to FLOORS"))];
    };
    let forbidden = STRANGERS.iter().find(|(name, _)| *name == room);
    let forbidden = forbidden.map_or(&[][..], |(_, strangers)| strangers);
    rooms_named(&source.code)
        .into_iter()
        .filter(|(_, other)| *other != room)
        .filter(|(_, other)| {
            floor(other).is_some_and(|floor| floor >= own) || forbidden.contains(other)
        })
        .map(|(line, other)| source.complain(line, &format!("{room} must not know {other}")))
        .collect()
}

fn devices(source: &Source) -> Vec<String> {
    if !matches!(source.room(), Some("model" | "method")) {
        return Vec::new();
    }
    let lines = source.code.lines().enumerate();
    let named = lines.filter(|(_, line)| {
        names(line).any(|name| ["cpu", "cuda", "device", "Cpu", "Device", "Buffer"].contains(&name))
    });
    named.map(|(i, _)| source.complain(i, "model and method never name a device")).collect()
}

fn prints(source: &Source) -> Vec<String> {
    let in_sources = source.path.contains("/src/");
    if !in_sources || matches!(source.room(), Some("cli" | "console" | "main")) {
        return Vec::new();
    }
    let macros = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let lines = source.code.lines().enumerate();
    let printing = lines.filter(|(_, line)| macros.iter().any(|name| line.contains(name)));
    printing.map(|(i, _)| source.complain(i, "only cli, console and main print")).collect()
}

fn generators(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate();
    let hidden = lines.filter(|(_, line)| {
        line.contains("rand::")
            || names(line).any(|name| name == "thread_rng" || name == "fastrand")
    });
    hidden.map(|(i, _)| source.complain(i, "random numbers come from engine::random")).collect()
}

fn long_files(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let long = lines > MAX_FILE_LINES;
    long.then(|| source.complain(lines - 1, &format!("more than {MAX_FILE_LINES} lines")))
        .into_iter()
        .collect()
}

/// Lines over [`MAX_COLUMNS`]. A string that holds no space, alone on its line, cannot be broken.
fn wide_lines(source: &Source) -> Vec<String> {
    if !source.path.starts_with("crates/") {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let wide = lines
        .map(|(i, line)| (i, line.chars().count(), line))
        .filter(|(_, columns, line)| *columns > MAX_COLUMNS && line.trim().contains(' '));
    wide.map(|(i, columns, _)| {
        source.complain(i, &format!("{columns} columns, at most {MAX_COLUMNS} are allowed"))
    })
    .collect()
}

/// The types that a file defines: line and name.
fn types(source: &Source) -> Vec<(usize, &str)> {
    let lines = source.code.lines().enumerate();
    lines.filter_map(|(i, line)| type_in(line).map(|name| (i, name))).collect()
}

/// The name of the type that a line begins to define.
fn type_in(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let visibility = match text.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => text.find(')')? + 1,
        Some(rest) if rest.starts_with(' ') => 3,
        _ => 0,
    };
    let mut words = names(&text[visibility..]).skip_while(|word| *word == "unsafe");
    let is_type = ["struct", "enum", "trait", "type"].contains(&words.next()?);
    words.next().filter(|_| is_type)
}

/// Type names that a crate defines in two files. Associated types, which are indented, and those of
/// tests do not count.
fn double_type_names(sources: &[Source]) -> Vec<String> {
    let mut known: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut complaints = Vec::new();
    for source in sources {
        let Some((crate_name, file)) = source.path.split_once("/src/") else { continue };
        if file.ends_with("tests.rs") {
            continue;
        }
        let own = source.code.lines().enumerate().filter(|(_, line)| !line.starts_with(' '));
        for (line, name) in own.filter_map(|(i, line)| Some((i, type_in(line)?))) {
            if SHARED_TYPE_NAMES.iter().any(|(shared, _)| *shared == name) {
                continue;
            }
            if let Some(other) = known.insert((crate_name, name), &source.path) {
                complaints.push(source.complain(line, &format!("{name} is also in {other}")));
            }
        }
    }
    complaints
}

/// Types that are named by a participle alone.
fn participles(source: &Source) -> Vec<String> {
    let found = types(source).into_iter().filter(|(_, name)| PARTICIPLES.contains(name));
    found
        .map(|(i, name)| source.complain(i, &format!("{name} does not say what the type is")))
        .collect()
}

/// Relies on rustfmt: a function ends at the first brace that stands where its first line begins.
fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.code.lines().collect();
    let mut complaints = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !names(line).any(|name| name == "fn") || line.contains('}') || line.ends_with(';') {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        // A trait's function without a body ends with its types.
        let end = lines[start..].iter().position(|line| {
            line.len() > indent
                && line[..indent].trim().is_empty()
                && (line[indent..].starts_with('}')
                    || (line[indent..].starts_with(')') && line.ends_with(';')))
        });
        let count = end.map_or(0, |end| end + 1);
        if count > MAX_FUNCTION_LINES {
            let what =
                format!("a function of {count} lines, at most {MAX_FUNCTION_LINES} are allowed");
            complaints.push(source.complain(start, &what));
        }
    }
    complaints
}

/// `unsafe` needs a SAFETY comment (blocks, impls) or a `# Safety` section (functions) close above.
fn unexplained_unsafe(source: &Source) -> Vec<String> {
    let text: Vec<&str> = source.text.lines().collect();
    let lines = source.code.lines().enumerate();
    let uses = lines.filter(|(_, line)| names(line).any(|name| name == "unsafe"));
    uses.filter(|(i, _)| {
        let above = &text[i.saturating_sub(8)..=*i];
        !above.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety"))
    })
    .map(|(i, _)| source.complain(i, "unsafe without its reason: // SAFETY: names the check"))
    .collect()
}

/// Public functions of ops/ that no gradient test calls.
fn untested_operations(source: &Source, tests: &str) -> Vec<String> {
    if !source.path.starts_with("crates/engine/src/ops/") {
        return Vec::new();
    }
    let lines = source.code.lines().enumerate();
    // Functions at the margin are operations, indented ones are methods.
    let named =
        lines.filter_map(|(i, line)| Some((i, names(line.strip_prefix("pub fn ")?).next()?)));
    named
        .filter(|(_, name)| !WITHOUT_GRADIENT.contains(name))
        .filter(|(_, name)| !tests.contains(&format!("ops::{name}(")))
        .map(|(i, name)| source.complain(i, &format!("no gradient test calls ops::{name}")))
        .collect()
}

/// Files of crates/engine/src, and the modules of the engine that each may name.
const ENGINE_FLOORS: &[(&str, &[&str])] = &[
    ("dtype.rs", &[]),
    ("pool.rs", &["dtype"]),
    ("index.rs", &[]),
    ("device.rs", &["dtype", "index", "pool"]),
];

/// What lies below the border in the engine and names something above it.
fn engine_strangers(source: &Source) -> Vec<String> {
    let Some(file) = source.path.strip_prefix("crates/engine/src/") else { return Vec::new() };
    let Some((_, known)) = ENGINE_FLOORS.iter().find(|(name, _)| *name == file) else {
        return Vec::new();
    };
    // These files lie at the root of the crate, so `super` is the crate, but in their tests.
    let code = source.code.replace("\nuse super::", "\nuse crate::");
    let named = rooms_named(&code).into_iter().filter(|(_, other)| !known.contains(other));
    named
        .map(|(line, other)| source.complain(line, &format!("{file} must not know {other}")))
        .collect()
}

/// Operations and optimizers that name a device: their tensors carry it.
fn engine_devices(source: &Source) -> Vec<String> {
    if !["ops", "optim"]
        .iter()
        .any(|room| source.path.starts_with(&format!("crates/engine/src/{room}/")))
    {
        return Vec::new();
    }
    let lines = source.code.lines().enumerate();
    let named = lines.filter(|(_, line)| {
        names(line).any(|name| ["cpu", "cuda", "naive", "Cpu", "Naive", "HOST"].contains(&name))
    });
    named.map(|(i, _)| source.complain(i, "ops and optim never name a device")).collect()
}

/// What the header of a recipe lacks.
fn header_gaps(path: &str, text: &str) -> Vec<String> {
    let header: Vec<String> = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase())
        .collect();
    ["what", "command", "hardware", "time", "result"]
        .iter()
        .filter(|key| !header.iter().any(|line| line.starts_with(&format!("{key}:"))))
        .map(|key| format!("{path}: its header has no line `# {key}: ...`"))
        .collect()
}

/// The paths that a page names in backticks, braces expanded.
fn paths_named(page: &str) -> Vec<String> {
    let spans = page.split('`').skip(1).step_by(2);
    let paths = spans.filter(|span| {
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./{},".contains(c));
        let file = [".rs", ".md", ".toml", ".py", ".sh"].iter().any(|end| span.ends_with(end));
        plain && (span.contains('/') || file)
    });
    paths.flat_map(expand_braces).collect()
}

fn expand_braces(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (choices, tail))) = parts else { return vec![path.to_owned()] };
    choices.split(',').map(|choice| format!("{head}{choice}{tail}")).collect()
}

fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn every_source(rule: impl Fn(&Source) -> Vec<String>) {
    assert_tidy(&sources().iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn rooms_know_only_the_rooms_before_them() {
    every_source(strangers);
}

#[test]
fn model_and_method_never_name_a_device() {
    every_source(devices);
}

#[test]
fn nothing_prints_but_console_cli_and_main() {
    every_source(prints);
}

#[test]
fn random_numbers_come_from_the_engine_alone() {
    every_source(generators);
}

#[test]
fn files_and_functions_are_short() {
    every_source(long_files);
    every_source(long_functions);
}

#[test]
fn lines_are_narrow() {
    every_source(wide_lines);
}

#[test]
fn types_have_names_of_their_own() {
    assert_tidy(&double_type_names(&sources()));
    every_source(participles);
}

#[test]
fn unsafe_code_gives_its_reason() {
    every_source(unexplained_unsafe);
}

#[test]
fn every_operation_has_a_gradient_test() {
    let tests = std::fs::read_to_string(root().join("crates/engine/tests/gradients.rs")).unwrap();
    let tests = code_of(&tests);
    every_source(|source| untested_operations(source, &tests));
}

#[test]
fn the_engine_knows_devices_below_its_border_alone() {
    for (file, _) in ENGINE_FLOORS {
        assert!(root().join("crates/engine/src").join(file).is_file(), "{file} is gone");
    }
    every_source(engine_strangers);
    every_source(engine_devices);
}

#[test]
fn recipes_say_what_they_cost_and_give() {
    let recipes = files_under(&root().join("recipes"), "toml");
    assert!(!recipes.is_empty(), "recipes/ holds no recipe");
    let gaps = recipes.iter().flat_map(|path| {
        header_gaps(&path.display().to_string(), &std::fs::read_to_string(path).unwrap())
    });
    assert_tidy(&gaps.collect::<Vec<_>>());
}

#[test]
fn golden_files_are_those_of_the_manifest() {
    let folder = root().join("tests/golden");
    let manifest = std::fs::read_to_string(folder.join("MANIFEST")).unwrap();
    let lines = manifest.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let listed: BTreeMap<String, String> = lines
        .map(|line| line.split_once("  ").expect("a hash, two spaces, a name"))
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect();
    let files = ["safetensors", "json", "npy", "pt", "pth", "ckpt", "jpg"]
        .map(|kind| files_under(&folder, kind))
        .concat();
    let found: BTreeMap<String, String> = files
        .iter()
        .map(|path| {
            let hash = Sha256::digest(std::fs::read(path).unwrap());
            let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            (path.strip_prefix(&folder).unwrap().display().to_string(), hash)
        })
        .collect();
    assert_eq!(found, listed, "tests/golden (left) and its MANIFEST (right)");
}

#[test]
fn architecture_names_files_that_exist() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let folders = ["", "crates/engine", "crates/engine/src", "crates/saltworks/src"];
    let gone = paths_named(&page)
        .into_iter()
        .filter(|path| !folders.iter().any(|folder| root().join(folder).join(path).exists()));
    let gone: Vec<String> =
        gone.map(|path| format!("ARCHITECTURE.md: {path} is not there")).collect();
    assert_tidy(&gone);
}

#[test]
fn each_rule_finds_what_it_forbids() {
    let eval = |text: &str| Source::new("crates/saltworks/src/eval/x.rs", text);
    assert_eq!(strangers(&eval("use crate::{range::Range, method::{A, B}};\n")).len(), 1);
    assert_eq!(strangers(&eval("fn f() { crate::method::g() }\n")).len(), 1);
    assert!(strangers(&eval("// crate::model\nuse crate::range;\n")).is_empty());
    assert_eq!(
        devices(&Source::new("crates/saltworks/src/model/x.rs", "use engine::cpu;")).len(),
        1
    );
    assert_eq!(prints(&eval("println!();")).len(), 1);
    assert!(prints(&eval("let a = \"println!\"; // println!")).is_empty());
    assert!(prints(&Source::new("crates/saltworks/src/cli/x.rs", "println!();")).is_empty());
    assert_eq!(generators(&eval("let x = rand::rng();")).len(), 1);
    assert_eq!(long_files(&eval(&"\n".repeat(701))).len(), 1);
    let body = "        a();\n".repeat(69);
    assert_eq!(long_functions(&eval(&format!("    fn f() {{\n{body}    }}\n"))).len(), 1);
    let body = "    a();\n".repeat(68);
    assert!(long_functions(&eval(&format!("fn f() {{\n{body}}}\n"))).is_empty());
    let console = |text: &str| Source::new("crates/saltworks/src/console/x.rs", text);
    let wide = "a ".repeat(51);
    assert_eq!(wide_lines(&console(&format!("// {wide}\n"))).len(), 1);
    assert!(wide_lines(&console(&format!("    \"{}\",\n", "a".repeat(120)))).is_empty());
    let one = console("pub(crate) struct Grid<T> {\n}\nstruct Row;\n/// pub struct Doc\n");
    let two = console("enum Grid {}\n    type Row = u32;\npub type Error = ();\n");
    let three = console("pub trait Error {}\npub use Grid;\n");
    assert_eq!(double_type_names(&[one, two, three]).len(), 1);
    let source = console("struct Held;\npub struct HeldOut;\nlet x: Told = 1;\nenum Told {}\n");
    assert_eq!(participles(&source).len(), 2);
    assert_eq!(unexplained_unsafe(&eval("unsafe { f() }")).len(), 1);
    assert!(unexplained_unsafe(&eval("// SAFETY: checked\nunsafe { f() }")).is_empty());
    let ops = Source::new("crates/engine/src/ops/x.rs", "pub fn add(tape: &Tape) {}\n");
    assert_eq!(untested_operations(&ops, "ops::add_all(").len(), 1);
    assert!(untested_operations(&ops, "ops::add(").is_empty());
    let device = Source::new("crates/engine/src/device.rs", "use crate::{index::A, ops::B};\n");
    assert_eq!(engine_strangers(&device).len(), 1);
    let device = Source::new("crates/engine/src/device.rs", "\nuse super::ops::B;\n");
    assert_eq!(engine_strangers(&device).len(), 1);
    let ops = Source::new("crates/engine/src/ops/x.rs", "use crate::cpu::Cpu;\n");
    assert_eq!(engine_devices(&ops).len(), 1);
    let ops = Source::new("crates/engine/src/optim/x.rs", "use crate::{HOST, Tensor};\n");
    assert_eq!(engine_devices(&ops).len(), 1);
    let header = "# What: a\n# Command: b\n# Hardware: c\n# Time: d\n\n# Result: e\n";
    assert_eq!(header_gaps("x", header).len(), 1);
    assert_eq!(paths_named("`a/{b,c}.rs`, `(t*H)` and `serde`"), ["a/b.rs", "a/c.rs"]);
}

#[test]
fn code_is_distinguished_from_comments_and_strings() {
    let text = "a('\"', \"b//\\\"c\"); // d\n/* e\nf */ g::<'h>(r#\"i\"j\"#, 'k');\n";
    assert_eq!(code_of(text), "a(', \"); \n\n g::<'h>(r, ');\n");
}
