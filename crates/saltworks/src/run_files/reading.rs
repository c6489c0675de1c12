//! Reads files of a run's folder that may be missing, damaged or changed by somebody else.

use super::names::RECIPE;
use crate::files::read_regular_in;
use crate::recipe::{self, Recipe};
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;

/// The largest recipe, and the largest file of JSON, that is read.
const MOST_RECIPE_BYTES: u64 = 4 << 20;
const MOST_JSON_BYTES: u64 = 64 << 20;

/// The text of a run's recipe.
pub(crate) fn recipe_text(run: &Path) -> io::Result<String> {
    let path = run.join(RECIPE);
    let named = |problem: String| io::Error::other(format!("{}: {problem}", path.display()));
    let bytes = read_regular_in(run, Path::new(RECIPE), MOST_RECIPE_BYTES);
    let bytes = bytes.map_err(|error| named(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| named("the file is not UTF-8 text".into()))
}

/// A run's recipe, [`redacted`].
pub(crate) fn recipe(run: &Path) -> io::Result<Recipe> {
    let text = redacted(&recipe_text(run)?);
    recipe::from_trained_text(RECIPE, &text).map_err(io::Error::other)
}

/// The contents of a run's JSON file. The default if it is missing, too large, or has another form.
pub(crate) fn json<T: DeserializeOwned + Default>(run: &Path, name: impl AsRef<Path>) -> T {
    json_or(run, name, &mut Vec::new())
}

/// Like [`json`]. It also adds what is wrong with an existing file to `problems`.
pub(crate) fn json_or<T: DeserializeOwned + Default>(
    run: &Path,
    name: impl AsRef<Path>,
    problems: &mut Vec<String>,
) -> T {
    let name = name.as_ref();
    let read = match read_regular_in(run, name, MOST_JSON_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        bytes => bytes.map_err(|error| error.to_string()),
    };
    let read = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
    read.unwrap_or_else(|problem| {
        problems.push(format!("{} is left out: {problem}", name.display()));
        T::default()
    })
}

/// A text without the users, passwords and queries of its addresses. They may hold keys, and people
/// share reports and logs.
pub(crate) fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        shown += before;
        // An address in quotes ends with them. Other quotes may be part of it.
        let scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let opened = before[..at].trim_end_matches(scheme).chars().next_back();
        let end =
            |c: char| c.is_whitespace() || "\"`\\".contains(c) || (c == '\'' && opened == Some(c));
        let (address, after) = address.split_at(address.find(end).unwrap_or(address.len()));
        let (address, query) = match address.find(['?', '#']) {
            Some(query) => (&address[..query], "?..."),
            None => (address, ""),
        };
        let host = address.find('/').unwrap_or(address.len());
        match address[..host].rfind('@') {
            Some(user) => shown.extend(["...", &address[user..]]),
            None => shown += address,
        }
        shown += query;
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_addresses_are_not_shown() {
        let text = "path = \"https://host/a.tar?key=secret&x=1\"\nother = \"s3://b/c\" # why?";
        let shown = redacted(text);
        assert_eq!(shown, "path = \"https://host/a.tar?...\"\nother = \"s3://b/c\" # why?");
        assert_eq!(redacted("what? no address"), "what? no address");
        let users = redacted("http://bob:key@host:80/a.tar answers 403; see ftp://key@host");
        assert_eq!(users, "http://...@host:80/a.tar answers 403; see ftp://...@host");
        let signed = redacted("['s3://b?Headers=host;x,y&Signature=key', 'https://b?it=it's']");
        assert_eq!(signed, "['s3://b?...', 'https://b?...'s']");
        assert_eq!(redacted("\"https://h/a?x='1'&key=2\""), "\"https://h/a?...\"");
        assert_eq!(redacted("https://h/a?k=1"), "https://h/a?...");
        let json = serde_json::to_string("p = \"https://h/a?k=1\"").unwrap();
        assert_eq!(redacted(&json), serde_json::to_string("p = \"https://h/a?...\"").unwrap());
    }
}
