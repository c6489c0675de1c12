//! The command line: one file per verb.

mod bench;
mod bench_data;
mod embed;
mod export;
mod inspect;
mod log;
mod plan;
mod pretrain;
mod probe;
mod replay;
mod report;
mod serve;
mod setup;
mod watch;

use crate::report::note;
use crate::train::Stop;
use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

/// Pretrains vision transformers on images, without labels, by SALT: a teacher learns to
/// reconstruct masked pixels, then a student learns to predict the frozen teacher's latents.
#[derive(Parser)]
#[command(name = "saltworks", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  saltworks pretrain                                  the quickstart: both stages, then probes
  saltworks pretrain recipe.toml --out runs/first     your own recipe
  saltworks pretrain --set data.path=photos --set data.size=64 --set model.patch=8
  saltworks plan recipe.toml                          what it will cost
  saltworks inspect photos                            what data.path=photos would read
  saltworks export runs/first --to timm --out vit.safetensors
  saltworks probe runs/first --kind knn,linear,attentive
  saltworks bench --stage salt --model vit_tiny_patch16_224 --batch 16 --steps 5

Exit codes: 0 done; 1 the run failed; 2 something to correct in what was asked; 130 (Ctrl-C),
143 (SIGTERM), 138 (SIGUSR1), 140 (SIGUSR2), 129 (SIGHUP; not under nohup): stopped by the signal
after saving a checkpoint.";

#[derive(Subcommand)]
enum Command {
    /// Train the stages of a recipe, or the built-in quickstart, and probe what they learned.
    Pretrain(pretrain::Arguments),
    /// Tell what a recipe will cost before it runs: parameters, FLOPs, time, memory.
    Plan(plan::Arguments),
    /// Time training steps on synthetic images.
    Bench(bench::Arguments),
    /// Look at a set of images, or at a file of weights: kind, counts, classes, sizes, what is broken.
    Inspect(inspect::Arguments),
    /// Write the weights of a run, or of a file, for timm, PyTorch, stable-pretraining, transformers or ONNX.
    Export(export::Arguments),
    /// Write report.html: curves, probes and pictures of a run, or a comparison of several.
    Report(report::Arguments),
    /// Show all runs under a folder live in a browser: a table, curves, pictures, comparisons.
    Serve(serve::Arguments),
    /// Watch a run's curves in the terminal.
    Watch(watch::Arguments),
    /// Write runs for other programs: event files of TensorBoard, offline runs of Weights & Biases.
    Log(log::Arguments),
    /// Judge a trained encoder on labelled images: kNN, linear, attentive and few-shot probes.
    Probe(Box<probe::Arguments>),
    /// Write features of images for other programs: .npy, .safetensors or .parquet.
    Embed(embed::Arguments),
    /// Find the sample and the layer that made a step not finite.
    Replay(replay::Arguments),
}

pub use pretrain::{Asked, Watch, pretrain};

/// Why a command did not finish.
pub enum Failure {
    /// What was asked cannot be done, or an image cannot be read: for the user to correct.
    Asked(Box<dyn std::error::Error>),
    /// The run failed.
    Run(Box<dyn std::error::Error>),
    /// Stopped by a signal, or by the caller.
    Interrupted {
        /// Its number; 0 where the caller asked.
        signal: i32,
        /// What to know then.
        text: String,
    },
}

/// For `map_err`: an error in what was asked.
fn asked(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Asked(error.into())
}

/// For `map_err`: an error of the run.
fn ran(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Run(error.into())
}

/// Refuses a file in a folder that is not there, before the work whose result it shall hold.
fn expect_parent(file: &Path) -> Result<(), Failure> {
    match file.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => Err(asked(format!(
            "{}: there is no folder {}. Make it, or choose another place",
            file.display(),
            parent.display()
        ))),
        None => Ok(()),
    }
}

/// For `map_err` while images are loaded: those that cannot be read are the user's to mend, a store
/// that does not answer fails a run that may go on later.
fn loading(error: crate::data::Error) -> Failure {
    if error.is_of_store() { ran(error) } else { asked(error) }
}

/// For a run in `folder` that a signal ended at a point called `when`.
fn interrupted(stop: &Stop, when: &str, folder: &Path) -> Failure {
    let out = folder.display();
    let text = format!("interrupted {when}; `saltworks pretrain --resume --out {out}` goes on");
    // Nothing but a signal ends a run there.
    Failure::Interrupted { signal: stop.signal().unwrap_or(0), text }
}

/// Parses the command line, runs the command and prints an error, once.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Pretrain(arguments) => pretrain::run(arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Asked(error)) => {
            note(&format!("error: {error}"));
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            note(&format!("error: {error}"));
            ExitCode::from(1)
        }
        Err(Failure::Interrupted { signal, text }) => {
            note(&text);
            // As a shell tells of a process that a signal ended.
            ExitCode::from(128 + signal as u8)
        }
    }
}

/// Uses this many threads for all computation; 0 for one per core. Returns how many there are.
fn use_threads(threads: usize) -> Result<usize, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // More than cores only cost time, many more seem to hang.
    let most = 8 * cores;
    if threads > most {
        return Err(asked(format!(
            "threads is {threads}, expected at most {most}, eight for each core here; 0 is one each"
        )));
    }
    // This thread is one of them: asking a pool from outside costs two trips through the kernel for
    // every operation. It can only fail if the pool exists already, and then its threads are as good.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    let _ = pool.build_global();
    Ok(rayon::current_num_threads())
}
