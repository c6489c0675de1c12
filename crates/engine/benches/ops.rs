//! Time of the matrix kernels against the machine's multiply-add peak.
//!
//! `cargo bench -p engine` prints, for each shape and type of activations: milliseconds (minimum of
//! several), GFLOP/s and the share of the peak measured in the same run. "Saturated" rows have
//! activations so large that GELU and its slope are 0 or 1: no kernel may be slower there.
//! `SALTWORKS_INSTRUCTIONS=avx2` limits the instruction set, as it does for `saltworks`.

// A benchmark is for people to read.
#![allow(clippy::print_stdout)]

use engine::cpu::Cpu;
use engine::device::{Buffer, Device, Epilogue, Full, LinearSize, Write};
use engine::{Dtype, Parameter, Segments, Tape, Tensor, fma_peak_gflops, ops};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(set) = std::env::var_os("SALTWORKS_INSTRUCTIONS") {
        engine::cpu::limit_instruction_set(&set.to_string_lossy())?;
    }
    let threads = rayon::current_num_threads();
    let [peak, narrow] = [Dtype::F32, Dtype::Bf16].map(|dtype| fma_peak_gflops(threads, dtype));
    println!("{threads} threads, multiply-add peak {peak:.0} GFLOP/s, of bf16 {narrow:.0}");
    let peak_of = |dtype| if dtype == Dtype::F32 { peak } else { narrow };
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
        for dtype in [Dtype::F32, Dtype::Bf16] {
            linear(peak_of(dtype), LinearSize { rows, input, output }, dtype);
        }
    }
    for shape in [[16, 176, 16, 24], [16, 197, 3, 64], [128, 49, 6, 16], [2, 1568, 12, 64]] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            attention(peak_of(dtype), shape, dtype)?;
        }
    }
    for shape in [[3136, 3, 64], [3136, 12, 64], [3136, 16, 24]] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            rope(shape, dtype)?;
        }
    }
    Ok(())
}

/// Rows, heads, width of a head. It moves memory, so its line is bytes read and written a second.
fn rope([rows, heads, head_dim]: [usize; 3], dtype: Dtype) -> engine::Result<()> {
    let width = heads * head_dim;
    let qkv = Parameter::new("qkv", Tensor::from_vec(random(rows * 3 * width), &[rows, 3 * width]));
    let factors = Tensor::from_vec(random(1568 * 2 * head_dim), &[1568, 2 * head_dim]);
    let places = (0..rows as u32).map(|r| r % 1568).collect::<Vec<_>>().into();
    let tape = Tape::inference();
    let qkv = ops::cast(&tape, &qkv.tensor(), dtype).detach();
    let mut result = Ok(());
    let seconds = shortest(|| {
        result = ops::rope(&tape, &qkv, 0..2 * width, &factors, &places).map(|_| ());
    });
    result?;
    let bytes = (2 * rows * 3 * width * dtype.size()) as f64;
    let name = format!("rope {rows} rows, {heads} heads of {head_dim}, {}", dtype.name());
    println!("{name:<44} {:>8.3} ms  {:>6.1} GB/s", seconds * 1e3, bytes / seconds * 1e-9);
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
    println!("{name:<50} {:8.3} ms {rate:7.1} GFLOP/s {share:5.1} % of peak", seconds * 1e3);
}

fn random(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 1000) as f32 * 1e-3 - 0.5).collect()
}

fn buffer(dtype: Dtype, len: usize, scale: f32) -> Buffer {
    let mut buffer = Cpu.buffer(dtype, len);
    let values: Vec<f32> = random(len).iter().map(|value| value * scale).collect();
    Cpu.upload(buffer.view_mut(), &values);
    buffer
}

fn linear(peak: f64, size: LinearSize, dtype: Dtype) {
    let LinearSize { rows, input, output } = size;
    let (mut w, b) = (buffer(Dtype::F32, output * input, 1.0), buffer(Dtype::F32, output, 1.0));
    let (x, dy) = (buffer(dtype, rows * input, 1.0), buffer(dtype, rows * output, 1.0));
    let large = buffer(dtype, rows * input, 200.0);
    let (mut y, mut ds, mut h) = (
        buffer(dtype, rows * output, 1.0),
        Cpu.buffer(dtype, rows * input),
        Cpu.buffer(dtype, rows * input),
    );
    let flops = 2.0 * (rows * input * output) as f64;
    let name = |kernel: &str| format!("{kernel} {rows}x{input}x{output} {}", dtype.name());
    let mut forward = |kernel: &str, x: &Buffer, gelu: bool| {
        let seconds = shortest(|| {
            let epilogue = if gelu { Epilogue::Gelu(None) } else { Epilogue::None };
            let (w, b) = (Full(w.view()), Some(Full(b.view())));
            Cpu.linear(y.view_mut(), x.view(), w, b, size, epilogue);
        });
        line(&name(kernel), flops, seconds, peak);
    };
    forward("linear", &x, false);
    forward("linear_gelu", &x, true);
    forward("linear_gelu saturated", &large, true);
    for (kernel, s) in [("grad_gelu", &x), ("grad_gelu saturated", &large)] {
        let seconds = shortest(|| {
            let (ds, h) = (ds.view_mut(), h.view_mut());
            Cpu.linear_grad_gelu(ds, h, dy.view(), Full(w.view()), s.view(), size);
        });
        line(&name(kernel), flops, seconds, peak);
    }
    let seconds = shortest(|| {
        let dx = Write::Set(ds.view_mut());
        Cpu.linear_grad_input(dx, dy.view(), Full(w.view()), size);
    });
    line(&name("grad_input"), flops, seconds, peak);
    let seconds =
        shortest(|| Cpu.linear_grad_weight(Full(w.view_mut()), dy.view(), x.view(), size));
    line(&name("grad_weight"), flops, seconds, peak);
}

fn attention(
    peak: f64,
    [samples, tokens, heads, head_dim]: [usize; 4],
    dtype: Dtype,
) -> engine::Result<()> {
    let (rows, width) = (samples * tokens, heads * head_dim);
    let segments = Segments::uniform(samples, tokens);
    let qkv = Parameter::new("qkv", Tensor::from_vec(random(rows * 3 * width), &[rows, 3 * width]));
    let name = format!("{samples}x{tokens}, {heads} heads of {head_dim} {}", dtype.name());
    let product = 2.0 * (samples * heads * tokens * tokens * head_dim) as f64;
    let mut times = [f64::INFINITY; 2];
    for _ in 0..6 {
        let tape = Tape::new().timed();
        let qkv = ops::cast(&tape, &qkv.tensor(), dtype);
        let y = ops::attention(&tape, &qkv, &segments, heads)?;
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
