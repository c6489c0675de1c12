//! Time of the matrix kernels against the machine's multiply-add peak.
//!
//! `cargo bench -p engine` prints, for each shape: milliseconds (minimum of several), GFLOP/s and
//! the share of the peak measured in the same run.

// A benchmark is for people to read.
#![allow(clippy::print_stdout)]

use engine::cpu::Cpu;
use engine::device::{Device, Epilogue, LinearSize, Write};
use engine::{Parameter, Segments, Tape, Tensor, fma_peak_gflops, ops};
use std::time::Instant;

fn main() -> engine::Result<()> {
    let threads = rayon::current_num_threads();
    let peak = fma_peak_gflops(threads);
    println!("{threads} threads, multiply-add peak {peak:.0} GFLOP/s");
    for (rows, input, output) in [
        (2816, 384, 1152),
        (2816, 384, 1536),
        (2816, 1536, 384),
        (3136, 192, 576),
        (2000, 96, 288),
        (788, 768, 3072),
        (788, 3072, 768),
        (332, 768, 3072),
        (332, 768, 768),
    ] {
        linear(peak, LinearSize { rows, input, output });
    }
    for (samples, tokens, heads, head_dim) in
        [(16, 176, 16, 24), (16, 197, 3, 64), (128, 49, 6, 16), (2, 1568, 12, 64)]
    {
        attention(peak, samples, tokens, heads, head_dim)?;
    }
    Ok(())
}

/// The shortest of several runs, in seconds.
fn shortest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn line(name: &str, flops: f64, seconds: f64, peak: f64) {
    let rate = flops / seconds * 1e-9;
    let share = 100.0 * rate / peak;
    println!("{name:<44} {:8.3} ms {rate:7.1} GFLOP/s {share:5.1} % of peak", seconds * 1e3);
}

fn random(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 1000) as f32 * 1e-3 - 0.5).collect()
}

fn linear(peak: f64, size: LinearSize) {
    let LinearSize { rows, input, output } = size;
    let mut buffers = [rows * input, output * input, rows * output, output].map(|len| {
        let mut buffer = Cpu.buffer(len);
        Cpu.upload(buffer.view_mut(), &random(len));
        buffer
    });
    let [x, w, y, b] = &mut buffers;
    let mut dy = Cpu.buffer(rows * output);
    Cpu.upload(dy.view_mut(), &random(rows * output));
    let flops = 2.0 * (rows * input * output) as f64;
    let seconds = shortest(|| {
        let bias = Some(b.view());
        Cpu.linear(y.view_mut(), x.view(), w.view(), bias, size, Epilogue::None);
    });
    line(&format!("linear {rows}x{input}x{output}"), flops, seconds, peak);
    let seconds = shortest(|| {
        let bias = Some(b.view());
        Cpu.linear(y.view_mut(), x.view(), w.view(), bias, size, Epilogue::Gelu(None));
    });
    line(&format!("linear_gelu {rows}x{input}x{output}"), flops, seconds, peak);
    let (mut slope, mut curved) = (Cpu.buffer(rows * input), Cpu.buffer(rows * input));
    let seconds = shortest(|| {
        let (slope, curved) = (slope.view_mut(), curved.view_mut());
        Cpu.linear_grad_gelu(slope, curved, dy.view(), w.view(), x.view(), size);
    });
    line(&format!("grad_gelu {rows}x{input}x{output}"), flops, seconds, peak);
    let seconds = shortest(|| {
        Cpu.linear_grad_input(Write::Set(slope.view_mut()), dy.view(), w.view(), size);
    });
    line(&format!("grad_input {rows}x{input}x{output}"), flops, seconds, peak);
    let seconds = shortest(|| Cpu.linear_grad_weight(w.view_mut(), dy.view(), x.view(), size));
    line(&format!("grad_weight {rows}x{input}x{output}"), flops, seconds, peak);
}

fn attention(
    peak: f64,
    samples: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
) -> engine::Result<()> {
    let (rows, width) = (samples * tokens, heads * head_dim);
    let segments = Segments::uniform(samples, tokens);
    let qkv = Parameter::new("qkv", Tensor::from_vec(random(rows * 3 * width), &[rows, 3 * width]));
    let name = format!("{samples}x{tokens}, {heads} heads of {head_dim}");
    let product = 2.0 * (samples * heads * tokens * tokens * head_dim) as f64;
    let mut times = [f64::INFINITY; 2];
    for _ in 0..6 {
        let tape = Tape::new().timed();
        let y = ops::attention(&tape, &qkv.tensor(), &segments, heads)?;
        let target = Tensor::zeros(y.shape());
        let loss = ops::loss(&tape, &y, &target, ops::LossKind::Mse, None)?;
        tape.backward(&loss)?;
        let cost = tape.costs().into_iter().find(|cost| cost.op == "attention");
        // The tape ran attention above, so it has its cost.
        let seconds = cost.expect("the cost of attention").seconds;
        times = [times[0].min(seconds[0]), times[1].min(seconds[1])];
    }
    line(&format!("attention {name}"), 2.0 * product, times[0], peak);
    line(&format!("attention backward {name}"), 5.0 * product, times[1], peak);
    Ok(())
}
