//! The rules of STYLE.md for plain English that a program can check. Each rule is shown to complain
//! before it is trusted. `-- --nocapture` prints the number of sentences, their median and longest.

use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_SENTENCE_WORDS: usize = 30;
const MAX_MEDIAN_WORDS: usize = 17;
const MAX_README_LINES: usize = 150;

/// Phrases that a reader has to translate first. STYLE.md has their plain form.
const BANNED: &[&str] = &[
    "gone on with",
    "carried out",
    "foretold",
    "whoever",
    "of no worth",
    "goes on from where it",
    "is told of",
    "where nobody",
];

/// Words that end with a full stop but end no sentence.
const ABBREVIATIONS: &[&str] = &["e.g.", "i.e.", "vs.", "al.", "cf."];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Markdown page: its path from the root, and its text.
struct Page {
    path: String,
    text: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        Self { path: path.to_owned(), text }
    }
}

/// README.md and docs/*.md.
fn pages() -> Vec<Page> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    assert!(names.len() > 5, "docs/ holds {names:?} only: look into `pages`");
    let docs = names.iter().map(|name| Page::read(&format!("docs/{name}")));
    std::iter::once(Page::read("README.md")).chain(docs).collect()
}

/// A paragraph, a list item or a table cell, without markup.
#[derive(Debug, PartialEq)]
enum Block {
    Text(String),
    Cell(String),
}

/// The blocks of a page. Code, headings, pictures and list items that are a link are no prose.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut in_fence, mut in_paragraph, mut in_list) = (false, false, false);
    for line in markdown.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            (in_fence, in_paragraph) = (!in_fence, false);
            continue;
        }
        // Text of a list item is indented by two or three, code in it by more.
        in_list &= trimmed.is_empty() || line.starts_with("  ") || in_paragraph;
        let margin = line.len() - line.trim_start().len();
        let is_code = in_fence || (!in_paragraph && margin >= if in_list { 6 } else { 4 });
        let is_skipped = ["#", "![", "<!--"].iter().any(|start| trimmed.starts_with(start));
        if is_code || is_skipped || trimmed.is_empty() {
            in_paragraph = false;
            continue;
        }
        if let Some(row) = trimmed.strip_prefix('|') {
            let cells = without_code(row).replace("<br>", "|");
            blocks.extend(cells.split('|').map(|cell| Block::Cell(cell.trim().to_owned())));
            in_paragraph = false;
            continue;
        }
        let item = list_item(trimmed);
        match (item, blocks.last_mut()) {
            (None, Some(Block::Text(last))) if in_paragraph => {
                last.push(' ');
                last.push_str(trimmed);
            }
            _ => blocks.push(Block::Text(item.unwrap_or(trimmed).to_owned())),
        }
        in_list |= item.is_some();
        in_paragraph = true;
    }
    blocks.retain(|block| !matches!(block, Block::Text(text) if text.starts_with('[')));
    blocks.into_iter().map(plain).collect()
}

/// What follows the mark of a list item.
fn list_item(line: &str) -> Option<&str> {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = digits.strip_prefix(". ").filter(|_| digits.len() < line.len());
    line.strip_prefix("* ").or(line.strip_prefix("- ")).or(numbered)
}

fn plain(block: Block) -> Block {
    let plain = |text: String| without_links(&without_code(&text)).replace("**", "");
    match block {
        Block::Text(text) => Block::Text(plain(text)),
        Block::Cell(text) => Block::Cell(plain(text)),
    }
}

/// Text in which each `code span` is one word.
fn without_code(text: &str) -> String {
    text.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "CODE" }).collect()
}

/// Text in which `[words](target)` is its words.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, target)) = rest.split_once("](") {
        let (before, words) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.extend([before, words]);
        rest = target.split_once(')').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// The sentences of a text. A colon or a semicolon ends none.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let mut sentences = vec![Vec::new()];
    for word in text.split_whitespace() {
        let Some(sentence) = sentences.last_mut() else { break };
        if word.chars().any(char::is_alphanumeric) {
            sentence.push(word);
        }
        let end = word.trim_end_matches([')', '"', '*', '\u{201d}']);
        if end.ends_with(['.', '!', '?']) && !ABBREVIATIONS.contains(&end.trim_start_matches('(')) {
            sentences.push(Vec::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

fn long_sentences(page: &Page) -> Vec<String> {
    let blocks = blocks(&page.text);
    let texts = blocks.iter().map(|block| match block {
        Block::Text(text) | Block::Cell(text) => text,
    });
    let all = texts.flat_map(|text| sentences(text));
    let long = all.filter(|sentence| sentence.len() > MAX_SENTENCE_WORDS);
    long.map(|sentence| {
        let words = sentence.len();
        format!(
            "{}: {words} words, at most {MAX_SENTENCE_WORDS}: {}",
            page.path,
            sentence.join(" ")
        )
    })
    .collect()
}

/// The lengths of all sentences outside tables, ascending.
fn lengths(pages: &[Page]) -> Vec<usize> {
    let blocks = pages.iter().flat_map(|page| blocks(&page.text));
    let counts = blocks.flat_map(|block| match block {
        Block::Text(text) => sentences(&text).iter().map(Vec::len).collect(),
        Block::Cell(_) => Vec::new(),
    });
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    counts
}

fn median(ascending: &[usize]) -> usize {
    ascending.get(ascending.len() / 2).copied().unwrap_or(0)
}

fn long_median(pages: &[Page]) -> Vec<String> {
    let lengths = lengths(pages);
    let median = median(&lengths);
    let what = format!("the median sentence has {median} words, at most {MAX_MEDIAN_WORDS}");
    if median > MAX_MEDIAN_WORDS { vec![what] } else { Vec::new() }
}

fn semicolons(page: &Page) -> Vec<String> {
    let blocks = blocks(&page.text).into_iter().map(|block| match block {
        Block::Text(text) | Block::Cell(text) => text,
    });
    let texts: Vec<String> = blocks.collect();
    let words = texts.iter().flat_map(|text| sentences(text));
    let found = words.filter(|words| words.iter().any(|word| word.contains(';')));
    found.map(|words| format!("{}: a semicolon in: {}", page.path, words.join(" "))).collect()
}

fn long_page(page: &Page, most: usize) -> Vec<String> {
    let lines = page.text.lines().count();
    let what = format!("{}: {lines} lines, at most {most}", page.path);
    if lines > most { vec![what] } else { Vec::new() }
}

/// Banned phrases in a text, also where a line ends inside one.
fn banned(path: &str, text: &str) -> Vec<String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let text = words.join(" ");
    let found = BANNED.iter().filter(|phrase| text.contains(**phrase));
    found.map(|phrase| format!("{path}: \"{phrase}\"; STYLE.md has the plain words")).collect()
}

/// A page without its code, in which bad examples may stand.
fn prose_of(page: &Page) -> String {
    let blocks = blocks(&page.text);
    let texts = blocks.iter().map(|block| match block {
        Block::Text(text) | Block::Cell(text) => text.as_str(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The comment lines that a recipe begins with.
fn header(recipe: &str) -> String {
    let lines = recipe.lines().take_while(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#')).collect::<Vec<_>>().join("\n")
}

fn assert_plain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = letters.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// Links of a page to a file or a heading that does not exist.
fn broken_links(page: &Page) -> Vec<String> {
    let mut complaints = Vec::new();
    let folder = root().join(Path::new(&page.path).parent().unwrap());
    for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if link.contains("://") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let text = match file {
            "" => Ok(page.text.clone()),
            file if !folder.join(file).exists() => Err(()),
            _ if heading.is_empty() => continue,
            file => std::fs::read_to_string(folder.join(file)).map_err(|_| ()),
        };
        let is_there = |text: String| {
            heading.is_empty()
                || text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
        };
        if !text.is_ok_and(is_there) {
            complaints.push(format!("{}: the link {link} leads nowhere", page.path));
        }
    }
    complaints
}

#[test]
fn links_lead_somewhere() {
    let others = ["ARCHITECTURE.md", "STYLE.md", "LOG.md", "CHANGELOG.md"];
    let others = others.into_iter().chain(["crates/python/README.md"]).map(Page::read);
    let complaints = pages().into_iter().chain(others).flat_map(|page| broken_links(&page));
    assert_plain(&complaints.collect::<Vec<_>>());
}

#[test]
#[expect(clippy::print_stdout, reason = "it is what --nocapture shows")]
fn sentences_are_short() {
    let pages = pages();
    let lengths = lengths(&pages);
    let (count, longest) = (lengths.len(), lengths.last().copied().unwrap_or(0));
    println!("{count} sentences, median {} words, longest {longest}", median(&lengths));
    assert_plain(&pages.iter().flat_map(long_sentences).collect::<Vec<_>>());
    assert_plain(&long_median(&pages));
}

#[test]
fn the_readme_is_short_and_has_no_semicolons() {
    let readme = Page::read("README.md");
    assert_plain(&semicolons(&readme));
    assert_plain(&long_page(&readme, MAX_README_LINES));
}

#[test]
fn pages_use_plain_words() {
    let mut all = pages();
    all.extend(["STYLE.md", "CHANGELOG.md", "crates/python/README.md"].map(Page::read));
    let architecture = Page::read("ARCHITECTURE.md");
    let words = all.iter().chain([&architecture]).flat_map(|p| banned(&p.path, &prose_of(p)));
    assert_plain(&words.collect::<Vec<_>>());
}

#[test]
fn recipes_use_plain_words() {
    let entries = std::fs::read_dir(root().join("recipes")).unwrap();
    let complaints = entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        banned(&path.display().to_string(), &header(&std::fs::read_to_string(&path).unwrap()))
    });
    assert_plain(&complaints.collect::<Vec<_>>());
}

#[test]
fn the_help_uses_plain_words() {
    let help = |verb: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_saltworks"));
        let verb = (!verb.is_empty()).then_some(verb);
        let output = program.args(verb).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help("");
    let verbs = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"pretrain"), "found {verbs:?} only: look into this test");
    let verbs = verbs.into_iter().filter(|verb| *verb != "help");
    let complaints = std::iter::once("").chain(verbs);
    let complaints = complaints.flat_map(|verb| banned(&format!("{verb} --help"), &help(verb)));
    assert_plain(&complaints.collect::<Vec<_>>());
}

#[test]
fn each_rule_finds_what_it_forbids() {
    let page = |text: &str| Page { path: "x.md".into(), text: text.into() };
    let long = |words: usize| "a ".repeat(words - 1) + "word. ";
    assert_eq!(long_sentences(&page(&long(31))).len(), 1);
    assert_eq!(long_sentences(&page(&format!("* one\n* {}", long(31)))).len(), 1);
    assert_eq!(long_sentences(&page(&format!("| one | {} |", long(31)))).len(), 1);
    assert!(long_sentences(&page(&long(30).repeat(2))).is_empty());
    assert!(long_sentences(&page(&format!("# {}\n\n    {}", long(31), long(31)))).is_empty());
    assert_eq!(long_median(&[page(&long(18))]).len(), 1);
    assert!(long_median(&[page(&long(17)), page(&long(20)), page("One.")]).is_empty());
    assert_eq!(semicolons(&page("One; two.")).len(), 1);
    assert_eq!(semicolons(&page("| one; two |")).len(), 1);
    assert!(semicolons(&page("`one; two`\n\n    a;\n\n```\nb;\n```\n")).is_empty());
    assert_eq!(long_page(&page("\n\n\n"), 2).len(), 1);
    assert!(long_page(&page("\n\n"), 2).is_empty());
    assert_eq!(banned("x", "Runs are gone\non with.").len(), 1);
    assert_eq!(banned("x", "Whoever reads").len(), 1);
    assert!(banned("x", "Runs are resumed.").is_empty());
    assert!(banned("x", &prose_of(&page("Not `whoever`, but \"if you\"."))).is_empty());
    let links = page("[a](README.md#is-it-learning) [b](docs) [c](#d-e)\n## D: `e`\n");
    assert!(broken_links(&links).is_empty(), "{:?}", broken_links(&links));
    for link in ["nothing.md", "#nothing", "README.md#nothing"] {
        assert_eq!(broken_links(&page(&format!("[a]({link})"))).len(), 1, "{link}");
    }
    assert_eq!(header("# one\n# two\n\n# three\n"), " one\n two");
}

#[test]
fn markdown_is_cut_into_sentences() {
    let text = "# Title\n\nOne `a; b` is [two words](x.md). Three, e.g. four (five.)\nSix.\n\n\
                * [link](y.md): seven\n* Eight\n  nine.\n\n        code\n\n| a | b |\n\n\
                Ten:\n\n    c\n";
    let blocks = blocks(text);
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| match block {
            Block::Text(text) => Some(text.as_str()),
            Block::Cell(_) => None,
        })
        .collect();
    let whole = "One CODE is two words. Three, e.g. four (five.) Six.";
    assert_eq!(texts, [whole, "Eight nine.", "Ten:"]);
    assert_eq!(sentences(whole).iter().map(Vec::len).collect::<Vec<_>>(), [5, 4, 1]);
}
