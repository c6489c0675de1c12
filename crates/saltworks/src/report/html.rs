//! report.html: one file that needs no other files.

use super::RunData;
use crate::files::write_whole;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::Path;
use std::time::Duration;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");

/// The scripts of every page. Each uses only those before it.
pub const SCRIPTS: [&str; 5] = [
    include_str!("html/dom.js"),
    include_str!("html/chart.js"),
    include_str!("html/pictures.js"),
    include_str!("html/report.js"),
    include_str!("html/compare.js"),
];

/// Writes the report of one run, or the comparison of several. While runs train, it is written
/// again every `again`.
///
/// # Errors
/// A file that cannot be written.
pub fn write(runs: &[RunData], again: Duration, path: &Path) -> io::Result<()> {
    write_whole(path, report(runs, again).as_bytes())
}

/// The report of one run, or the comparison of several, as a page with all its data.
pub fn report(runs: &[RunData], again: Duration) -> String {
    let data = json!({ "runs": runs, "again": again.as_secs_f64() });
    page(&data.to_string(), &[SCRIPTS.concat().as_str(), "begin();\n"].concat())
}

/// A page with this style, with data as JSON text, and with a script. No other style or script is
/// executed in it (Content Security Policy, level 3, hash sources).
pub fn page(data: &str, script: &str) -> String {
    let hash =
        |text: &str| format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())));
    // The data comes last, so that no mark in it is replaced.
    PAGE.replacen("/*STYLE HASH*/", &hash(STYLE), 1)
        .replacen("/*SCRIPT HASH*/", &hash(script), 1)
        .replacen("/*STYLE*/", STYLE, 1)
        .replacen("/*SCRIPT*/", script, 1)
        .replacen("/*DATA*/", &inside_script(data), 1)
}

/// JSON that cannot end a script element or begin a comment.
fn inside_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_leave_its_element() {
        let evil = "</script><!-- \u{2028} /*SCRIPT*/ /*DATA*/ <img src=x onerror=alert(1)>";
        let data = json!({ "name": evil }).to_string();
        let page = page(&data, "begin();");
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        let (inside, _) = rest.split_once("</script>").unwrap();
        let read: serde_json::Value = serde_json::from_str(inside).unwrap();
        assert_eq!(read["name"], evil);
        assert!(!page.contains("<img"));
        assert_eq!(page.matches("begin();").count(), 1);
    }

    #[test]
    fn a_page_loads_nothing_from_elsewhere() {
        let page = report(&[], Duration::ZERO);
        // SVG's namespace is no address, and `url(#..)` names a part of the page itself.
        let page = page.replace("http://www.w3.org/2000/svg", "").replace("url(#", "");
        for word in ["http://", "https://", "@import", "src=\"//", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
