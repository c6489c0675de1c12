//! The saltworks program.

use std::process::ExitCode;

fn main() -> ExitCode {
    saltworks::cli::main()
}
