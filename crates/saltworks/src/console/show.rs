//! Lines for people and for pipes. A reader that ends early (`| head`) must not end a run, so a
//! line that cannot be written is dropped. Names and contents of files never control the terminal.

use std::fmt::Write as _;
use std::io::Write as _;

/// Prints the result of a command to stdout.
pub fn result(text: &str) {
    styled(&escaped(text));
}

/// Prints other information for people to stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", escaped(text));
}

/// Prints styled lines to stdout. The caller must make text from outside [`printable`].
pub fn styled(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Makes each line [`printable`].
fn escaped(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// A line with codes in place of characters that control the terminal or the direction of writing.
/// The codes are JSON's, so JSON stays JSON.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\t' && (c.is_control() || turns_writing(c)) {
            // Writing to a string cannot fail.
            let _ = write!(line, "\\u{:04x}", c as u32);
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether a character changes the direction of writing.
fn turns_writing(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_controls_the_terminal_and_json_stays_json() {
        let evil = "a\u{1b}]0;x\u{7}b\r\u{9b}2J\u{7f}\u{202e}\tä";
        assert_eq!(printable(evil), "a\\u001b]0;x\\u0007b\\u000d\\u009b2J\\u007f\\u202e\tä");
        let json = serde_json::to_string(evil).unwrap();
        assert_eq!(serde_json::from_str::<String>(&escaped(&json)).unwrap(), evil);
        assert_eq!(escaped("one\ntwo\n"), "one\ntwo\n");
    }
}
