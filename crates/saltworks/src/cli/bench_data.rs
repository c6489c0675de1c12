//! `saltworks bench data`: how fast images load, and what takes the time.

use crate::console::result;
use crate::data::{self, Loader, LoaderOptions, Source};
use crate::failure::{Failure, input_error, loading};
use crate::judge;
use crate::recipe::{self, Recipe};
use crate::run_files::{peak_memory_bytes, resident_memory_bytes};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Options of `bench data`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Anything that `data.path` accepts: a folder of images, a list, shards, ...
    path: PathBuf,
    /// Loader threads (default: 1, then 2).
    #[arg(long)]
    threads: Option<usize>,
    /// Height and width of the crops.
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Images per batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Timed batches, after two untimed ones (default: one epoch).
    #[arg(long)]
    batches: Option<u64>,
    /// Recipe settings of `[data]`, e.g. data.augment.crop_scale=[0.08,1.0].
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one line of JSON instead.
    #[arg(long)]
    json: bool,
}

/// Batches before timing starts. In these, threads start and files are read for the first time.
const UNTIMED: u64 = 2;

/// Images for which each part of loading is timed.
const SPLIT_IMAGES: usize = 256;

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let recipe = recipe(arguments)?;
    let source = judge::open_images(&recipe)?.train;
    let counts = arguments.threads.map_or_else(|| vec![1, 2], |threads| vec![threads]);
    let batch = arguments.batch as u64;
    let batches = arguments.batches.unwrap_or_else(|| (source.len() as u64 / batch).max(1));
    let options = |threads: usize| {
        let mut options = recipe.training_loader(0);
        (options.threads, options.prefetch) = (threads, 2 * threads + 2);
        options
    };
    let mut runs = Vec::new();
    for threads in counts {
        let run = time(source.clone(), options(threads), batches)?;
        if !arguments.json {
            result(&line(&run));
        }
        runs.push(run);
    }
    let split = split(&source, &options(1))?;
    if arguments.json {
        let described = source.describe();
        result(&json!({ "source": described, "runs": runs, "split_ms": split }).to_string());
    } else {
        result(&split_lines(&split, &source.describe()));
    }
    Ok(())
}

/// The settings of the data, as a recipe of one stage.
fn recipe(arguments: &Arguments) -> Result<Recipe, Failure> {
    if arguments.batches == Some(0) {
        return Err(input_error("--batches must be at least 1"));
    }
    let path = toml::Value::from(arguments.path.display().to_string());
    let text = format!(
        "data = {{ path = {path}, size = {}, channels = 3, holdout = 0, normalize = 'imagenet' }}\n\
         [[stage]]\nname = 'bench'\nsteps = 1\nbatch = {}\n",
        arguments.size, arguments.batch
    );
    recipe::from_text("bench data", &text, &arguments.set).map_err(input_error)
}

/// Times whole batches through a loader.
fn time(source: Arc<dyn Source>, options: LoaderOptions, batches: u64) -> Result<Value, Failure> {
    let (threads, batch) = (options.threads, options.batch);
    let mut loader = Loader::new(source, options).map_err(input_error)?;
    let mut next = || loader.next_batch().map_err(loading);
    for _ in 0..UNTIMED {
        next()?;
    }
    let before = resident_memory_bytes();
    let start = Instant::now();
    let mut unreadable = 0;
    for _ in 0..batches {
        // Training order has no end.
        unreadable += next()?.map_or(0, |loaded| loaded.batch.unreadable.len());
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "threads": threads,
        "images_per_second": (batches * batch as u64) as f64 / seconds,
        "batches": batches,
        "unreadable": unreadable,
        "memory_before_bytes": before,
        "memory_after_bytes": resident_memory_bytes(),
        "peak_memory_bytes": peak_memory_bytes(),
    }))
}

/// Milliseconds per image in one thread, for each part of loading.
fn split(source: &Arc<dyn Source>, options: &LoaderOptions) -> Result<Value, Failure> {
    let timed = data::time_parts(source.as_ref(), options, SPLIT_IMAGES).map_err(input_error)?;
    let ms = |seconds: f64| 1e3 * seconds;
    Ok(json!({ "read": ms(timed.read), "decode": ms(timed.decode), "augment": ms(timed.augment) }))
}

fn line(run: &Value) -> String {
    let megabytes = |key: &str| run[key].as_f64().map_or("?".into(), |b| format!("{:.0}", b / 1e6));
    let rate = run["images_per_second"].as_f64().unwrap_or(0.0);
    let (before, after) = (megabytes("memory_before_bytes"), megabytes("memory_after_bytes"));
    let (threads, batches) = (&run["threads"], &run["batches"]);
    format!(
        "{threads} threads  {rate:.0} images/s over {batches} batches, memory {before} to {after} \
         MB"
    )
}

fn split_lines(split: &Value, described: &str) -> String {
    let ms = |key: &str| split[key].as_f64().unwrap_or(0.0);
    let (read, decode, augment) = (ms("read"), ms("decode"), ms("augment"));
    format!(
        "{described}\nan image in one thread: read {read:.3} ms, decode {decode:.3} ms, crop and \
         augment {augment:.3} ms"
    )
}
