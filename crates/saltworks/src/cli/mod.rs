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
mod recipe;
mod recipe_arguments;
mod replay;
mod report;
mod serve;
mod subject;
mod watch;

use crate::console::note;
use crate::failure::{Failure, input_error};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Pretrains vision transformers on images and clips, without labels, by SALT: a teacher learns to
/// reconstruct masked pixels, then a student learns to predict the frozen teacher's latents.
#[derive(Parser)]
#[command(name = "saltworks", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  saltworks pretrain                                  the quickstart: both stages, then probes
  saltworks pretrain photos --minutes 20              your own images, in runs/photos
  saltworks pretrain photos --teacher vit_base.safetensors
  saltworks recipe photos > photos.toml               the recipe that it uses, to be changed
  saltworks pretrain photos.toml --out runs/first     your own recipe
  saltworks plan photos.toml                          what it will cost
  saltworks inspect photos                            what it would read
  saltworks export runs/first --to timm --out vit.safetensors
  saltworks probe runs/first --kind knn,linear,attentive
  saltworks bench --stage salt --model vit_tiny_patch16_224 --batch 16 --steps 5

Exit codes: 0 done; 1 the run failed; 2 the input must be corrected; 130 (Ctrl-C),
143 (SIGTERM), 138 (SIGUSR1), 140 (SIGUSR2), 129 (SIGHUP; not under nohup): stopped by the signal
after saving a checkpoint; 134 or 137: memory ran out.";

#[derive(Subcommand)]
enum Command {
    /// Train on images, or the stages of a recipe, and probe what was learned.
    Pretrain(Box<pretrain::Arguments>),
    /// Print a whole recipe, each key with its meaning: the one that images get, or a given one.
    Recipe(recipe::Arguments),
    /// Show what a recipe will cost before it runs: parameters, FLOPs, time, memory.
    Plan(plan::Arguments),
    /// Time training steps on synthetic images.
    Bench(bench::Arguments),
    /// Describe a set of images or a weights file: kind, counts, classes, sizes, unreadable images.
    Inspect(inspect::Arguments),
    /// Write the weights of a run, or of a file, for timm, PyTorch, stable-pretraining,
    /// transformers or ONNX.
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
    /// Find the sample and the layer that made a step non-finite.
    Replay(replay::Arguments),
}

/// Parses the command line, runs the command and prints an error, once.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let result = limit_instructions().and_then(|()| run(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => {
            note(&format!("error: {error}"));
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            note(&format!("error: {error}"));
            ExitCode::from(1)
        }
        Err(Failure::Interrupted { signal, text }) => {
            note(&text);
            // Shells report the same code for a process that a signal ended.
            ExitCode::from(128 + signal as u8)
        }
    }
}

/// The variable that limits the instruction set, so that another CPU gives the same bits.
const INSTRUCTIONS: &str = "SALTWORKS_INSTRUCTIONS";

fn limit_instructions() -> Result<(), Failure> {
    let Some(name) = std::env::var_os(INSTRUCTIONS) else { return Ok(()) };
    engine::cpu::limit_instruction_set(&name.to_string_lossy())
        .map_err(|problem| input_error(format!("{INSTRUCTIONS}: {problem}")))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Pretrain(arguments) => pretrain::run(*arguments),
        Command::Recipe(arguments) => recipe::run(&arguments),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// The arguments of a line of a page that calls the program, as a shell splits them. Without
    /// comments, redirections and further commands.
    fn words(line: &str) -> Option<Vec<String>> {
        let (before, call) = line.split_at(line.find("saltworks ")?);
        let is_before = |word: &str| word == "exec" || word.split_once('=').is_some();
        if !before.split_whitespace().all(is_before) {
            return None;
        }
        let (mut words, mut quoted) = (vec![String::new()], false);
        for letter in call.chars() {
            match letter {
                '\'' => quoted = !quoted,
                '#' | '|' | '>' | '&' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut()?.push(letter),
            }
        }
        words.retain(|word| !word.is_empty() && word != "...");
        Some(words)
    }

    #[test]
    fn the_commands_of_the_pages_can_be_given() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
        let mut commands = 0;
        for page in docs.filter(is_page).chain([root.join("README.md")]) {
            let name = page.display();
            let text = std::fs::read_to_string(&page).unwrap();
            let calls = text.lines().filter(|line| line.starts_with("    "));
            for words in calls.filter_map(words) {
                if let Err(error) = Arguments::try_parse_from(&words) {
                    panic!("{name}: {words:?}: {error}");
                }
                commands += 1;
            }
        }
        assert!(commands > 30, "{commands} commands were found");
        assert!(
            Arguments::try_parse_from(words("    saltworks plan a --minute 3").unwrap()).is_err()
        );
    }
}
