//! `saltworks report`: curves, probes and pictures of runs in one file.

use crate::console::{note, result};
use crate::failure::{Failure, expect_output, input_error, run_error};
use crate::report::{RunReader, html};
use crate::run_files::names::{RECIPE, REPORT};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `report`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folders of runs. Several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write (default: report.html in the folder of a single run).
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let out = match (&arguments.out, arguments.runs.as_slice()) {
        (Some(out), _) if out.is_dir() => {
            let problem = "is a folder. Give --out the file to write, e.g. comparison.html";
            return Err(input_error(format!("{} {problem}", out.display())));
        }
        (Some(out), _) => out.clone(),
        (None, [run]) => run.join(REPORT),
        (None, _) => {
            return Err(input_error("several runs need --out, e.g. --out comparison.html"));
        }
    };
    // Runs are checked first: a missing run is reported before a missing folder of the report.
    arguments.runs.iter().try_for_each(|run| expect_run(run))?;
    expect_output(&out)?;
    let runs = arguments.runs.iter().map(|run| read(run)).collect::<Result<Vec<_>, _>>()?;
    html::write(&runs, Duration::ZERO, &out)
        .map_err(|e| run_error(format!("cannot write {}: {e}", out.display())))?;
    result(&out.display().to_string());
    Ok(())
}

/// Refuses a folder without a run.
pub(super) fn expect_run(run: &Path) -> Result<(), Failure> {
    if !run.exists() {
        return Err(input_error(format!("{}: there is no such folder", run.display())));
    }
    if !run.join(RECIPE).is_file() {
        let problem = format!("holds no run: there is no {RECIPE} in it. Give the folder of a run");
        return Err(input_error(format!("{} {problem}", run.display())));
    }
    Ok(())
}

fn read(run: &Path) -> Result<crate::report::RunData, Failure> {
    expect_run(run)?;
    let data = RunReader::new(run).read();
    let data = data.map_err(|e| run_error(format!("cannot read {}: {e}", run.display())))?;
    data.problems.iter().for_each(|problem| note(&format!("{}: {problem}", run.display())));
    Ok(data)
}
