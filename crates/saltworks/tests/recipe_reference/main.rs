//! docs/recipe.md is written from the doc comments of the recipe's types. It is out of date if this
//! test fails; with SALTWORKS_WRITE_DOCS=1 the test writes it again.

mod defaults;
mod page;
mod source;

use page::Page;
use source::{Member, types_of, types_under};
use std::io::Write as _;
use std::path::Path;

const COMMAND: &str =
    "SALTWORKS_WRITE_DOCS=1 cargo test --release -p saltworks --test recipe_reference";

#[test]
fn the_page_of_the_recipe_says_what_the_source_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = Page::of(&types_under(&root.join("src")), "Recipe");
    let path = root.join("../../docs/recipe.md");
    if std::env::var_os("SALTWORKS_WRITE_DOCS").is_some() {
        std::fs::File::create(&path).unwrap().write_all(page.as_bytes()).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(found.lines()).find(|(new, old)| new != old);
    assert!(page == found, "docs/recipe.md is out of date at {differs:?}. Run {COMMAND}");
}

#[test]
fn types_are_read_with_their_comments_and_attributes() {
    let text = "/// A table.\n///\n/// More.\n#[derive(Deserialize)]\n#[serde(\n    default,\n    \
                tag = \"kind\"\n)]\npub struct A {\n    /// One\n    /// line.\n    \
                #[serde(skip)]\n    \
                pub(super) a: Option<Vec<u8>>, // why\n    /// Two.\n    pub b: [f64; 2],\n}\n";
    let [found] = &types_of("a.rs", &text.replace(" // why", ""))[..] else { panic!("one type") };
    assert_eq!((found.docs.as_str(), found.serde("tag")), ("A table.\nMore.", Some("kind")));
    assert!(found.says("default") && !found.is_enum);
    let a = &found.members[0];
    assert_eq!(
        (a.name.as_str(), a.of.as_str(), a.docs.as_str()),
        ("a", "Option<Vec<u8>>", "One line.")
    );
    assert!(a.says("skip") && !found.members[1].says("skip"));
    let text = "#[serde(rename_all = \"snake_case\")]\nenum B {\n    SmoothL1(f32),\n    Mse,\n}\n";
    let [found] = &types_of("b.rs", text)[..] else { panic!("one type") };
    let keys: Vec<_> = found.members.iter().map(|m: &Member| m.key(found)).collect();
    assert_eq!((keys.join(" "), found.members[0].of.as_str()), ("smooth_l1 mse".to_owned(), "f32"));
}
