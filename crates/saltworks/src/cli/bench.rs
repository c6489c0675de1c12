//! `saltworks bench`: times steps on synthetic images.

use super::{Failure, asked, ran, use_threads};
use crate::mask::{Masking, MultiBlock};
use crate::method::{Covered, Mae, MaeOptions, Method, PixelNorm, Salt, SaltOptions};
use crate::model::{Encoder, StepKey, TransformerSpec, VitSpec};
use crate::train::{Optimizer, OptimizerOptions};
use engine::cpu::fma_peak_gflops;
use engine::ops::{Images, LossKind};
use engine::random::Random;
use engine::{Tape, Times};
use serde_json::json;
use std::time::Instant;

/// Options of `bench`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What a step is: a SALT step, an MAE step, or features of whole images.
    #[arg(long, value_enum, default_value = "salt")]
    stage: What,
    /// timm's name of the encoder.
    #[arg(long, default_value = "vit_tiny_patch16_224")]
    model: String,
    /// Images of a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Steps to time, after one that is not timed.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Threads; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Width, depth and heads of the predictor (salt) or decoder (mae).
    #[arg(long, num_args = 3, value_names = ["WIDTH", "DEPTH", "HEADS"])]
    trunk: Option<Vec<usize>>,
    /// Print one line of JSON instead.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
enum What {
    Salt,
    Mae,
    Features,
}

/// What the timed steps took.
struct Measured {
    seconds: Vec<f64>,
    flops: f64,
    times: Times,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = use_threads(arguments.threads);
    let spec = VitSpec::from_name(&arguments.model).map_err(asked)?;
    if arguments.batch == 0 || arguments.steps == 0 {
        return Err(asked("--batch and --steps must be at least 1"));
    }
    let peak = fma_peak_gflops(threads);
    let measured = measure(arguments, &spec)?;
    report(arguments, &measured, peak, threads);
    Ok(())
}

fn trunk(arguments: &Arguments, width: usize, depth: usize, heads: usize) -> TransformerSpec {
    match arguments.trunk.as_deref() {
        Some(&[width, depth, heads]) => TransformerSpec { width, depth, heads },
        _ => TransformerSpec { width, depth, heads },
    }
}

fn measure(arguments: &Arguments, spec: &VitSpec) -> Result<Measured, Failure> {
    let images = synthetic(spec, arguments.batch).map_err(ran)?;
    let encoder = Encoder::new(spec, 0);
    match arguments.stage {
        What::Features => {
            timed(arguments.steps, |tape, _| features(tape, &encoder, &images).map_err(ran))
        }
        What::Mae => {
            let options = MaeOptions {
                decoder: trunk(arguments, 512, 8, 16),
                covered: Covered::AllMasked,
                pixel_norm: PixelNorm::Joint,
                loss: LossKind::Mse,
            };
            training(arguments, &Mae::new(encoder, options, 0), &images)
        }
        What::Salt => {
            let options = SaltOptions {
                predictor: trunk(arguments, 384, 12, 16),
                loss: LossKind::L1,
                target_layer_norm: false,
            };
            let salt = Salt::new(Encoder::new(spec, 1), encoder, options, 0).map_err(asked)?;
            training(arguments, &salt, &images)
        }
    }
}

fn features(tape: &Tape, encoder: &Encoder, images: &Images) -> engine::Result<()> {
    use crate::model::{Patches, Read};
    encoder.forward(tape, images, Patches::All, Read::All, None).map(drop)
}

fn training(
    arguments: &Arguments,
    method: &dyn Method,
    images: &Images,
) -> Result<Measured, Failure> {
    let masking = Masking::MultiBlock(MultiBlock { per_sample: false, ..MultiBlock::default() });
    let grid = method.encoder().grid();
    masking.validate(grid).map_err(asked)?;
    let options = OptimizerOptions { betas: (0.9, 0.95), eps: 1e-8, clip: None, decay_all: false };
    let mut optimizer = Optimizer::new(method.parameters(), options);
    timed(arguments.steps, |tape, step| {
        let masks = masking.sample(grid, arguments.batch, 0, step).map_err(ran)?;
        optimizer.zero_grad();
        let result = method.step(tape, images, &masks, StepKey { seed: 0, step }).map_err(ran)?;
        tape.backward(&result.loss).map_err(ran)?;
        optimizer.step(1e-4, 0.04).map_err(ran)?;
        Ok(())
    })
}

fn timed(
    steps: usize,
    mut step: impl FnMut(&Tape, u64) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let mut measured = Measured { seconds: Vec::new(), flops: 0.0, times: Times::new() };
    for index in 0..=steps {
        let tape = Tape::new().timed();
        let start = Instant::now();
        step(&tape, index as u64)?;
        if index == 0 {
            continue; // buffers are taken from the system in the first step
        }
        measured.seconds.push(start.elapsed().as_secs_f64());
        measured.flops += tape.flops() / steps as f64;
        for (op, times) in tape.times() {
            match measured.times.iter_mut().find(|(name, _)| *name == op) {
                Some((_, sums)) => (0..2).for_each(|way| sums[way] += times[way]),
                None => measured.times.push((op, times)),
            }
        }
    }
    Ok(measured)
}

fn synthetic(spec: &VitSpec, batch: usize) -> engine::Result<Images> {
    let [t, h, w] = spec.image;
    let mut random = Random::new(0, "bench images", 0);
    let shape = [batch, spec.channels, t, h, w];
    let bytes: Vec<u8> =
        (0..shape.iter().product()).map(|_| random.next_u32().to_le_bytes()[0]).collect();
    Images::u8(bytes, shape, vec![0.5; spec.channels], vec![0.5; spec.channels])
}

/// The most memory this process held, as Linux tells it.
fn peak_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[allow(clippy::print_stdout)] // the result of the command
fn report(arguments: &Arguments, measured: &Measured, peak: f64, threads: usize) {
    let mut sorted = measured.seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let (median, least) = (sorted[sorted.len() / 2], sorted[0]);
    let gflops = measured.flops / median * 1e-9;
    let memory = peak_memory_bytes();
    if arguments.json {
        let line = json!({
            "seconds_per_step_median": median,
            "seconds_per_step_min": least,
            "images_per_second": arguments.batch as f64 / median,
            "gflops": gflops,
            "peak_fraction": gflops / peak,
            "peak_memory_bytes": memory,
            "fma_peak_gflops": peak,
            "gflop_per_step": measured.flops * 1e-9,
            "threads": threads,
        });
        println!("{line}");
        return;
    }
    println!("{} , batch {}, {threads} threads", arguments.model, arguments.batch);
    println!("seconds per step: median {median:.4}, minimum {least:.4}");
    println!("images/s: {:.1}", arguments.batch as f64 / median);
    println!(
        "{gflops:.1} GFLOP/s, {:.1} % of the measured multiply-add peak of {peak:.1}\n\
         ({:.1} GFLOP a step: 2 per multiply-add of every matrix product made, forward and \
         backward; scores made again in attention's backward pass are not counted)",
        100.0 * gflops / peak,
        measured.flops * 1e-9
    );
    if let Some(memory) = memory {
        println!("peak memory: {:.0} MB", memory as f64 * 1e-6);
    }
    let total: f64 = measured.seconds.iter().sum();
    println!("\n{:<18} {:>12} {:>12} {:>8}", "operation", "forward ms", "backward ms", "share");
    let mut rest = total;
    for (op, [forward, backward]) in &measured.times {
        rest -= forward + backward;
        row(op, *forward, *backward, total, arguments.steps);
    }
    row("everything else", rest, 0.0, total, arguments.steps);
}

#[allow(clippy::print_stdout)] // as `report`
fn row(name: &str, forward: f64, backward: f64, total: f64, steps: usize) {
    let ms = |seconds: f64| seconds / steps as f64 * 1e3;
    let share = 100.0 * (forward + backward) / total;
    println!("{name:<18} {:>12.2} {:>12.2} {share:>7.1}%", ms(forward), ms(backward));
}
