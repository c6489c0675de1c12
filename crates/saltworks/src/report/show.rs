//! Lines for people and for pipes. A reader that has gone (`| head`) must not end a run, so a line
//! that nobody takes is dropped.

use std::io::Write as _;

/// The result of a command, on stdout.
pub fn result(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a person wants to know beside the result, on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
