//! Lines for people and for pipes. A reader that has gone (`| head`) must not end a run, so a line
//! that nobody takes is dropped. What files and folders are called, and what they hold, never steers the
//! terminal.

use std::fmt::Write as _;
use std::io::Write as _;

/// The result of a command, on stdout.
pub fn result(text: &str) {
    styled(&shown(text));
}

/// What a person wants to know beside the result, on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown(text));
}

/// Lines for stdout that are styled: what in them comes from outside was made [`printable`] before.
pub fn styled(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Lines without what would steer the terminal.
fn shown(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// A text in one line, with codes in place of characters that would steer the terminal or turn the
/// direction of writing. Codes are JSON's, which stays JSON so.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c != '\t' && (c.is_control() || turns) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{:04x}", c as u32);
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal_and_json_stays_json() {
        let evil = "a\u{1b}]0;x\u{7}b\r\u{9b}2J\u{7f}\u{202e}\tä";
        assert_eq!(printable(evil), "a\\u001b]0;x\\u0007b\\u000d\\u009b2J\\u007f\\u202e\tä");
        let json = serde_json::to_string(evil).unwrap();
        assert_eq!(serde_json::from_str::<String>(&shown(&json)).unwrap(), evil);
        assert_eq!(shown("one\ntwo\n"), "one\ntwo\n");
    }
}
