//! Measures how many multiply-adds the machine's threads can compute. Only this and a timed tape
//! read the clock in the engine.

use crate::Dtype;
use crate::cpu::peak_tile;
use rayon::prelude::*;
use std::time::Instant;

/// GFLOP/s that `threads` threads together reach on multiply-adds of this type in registers.
pub fn fma_peak_gflops(threads: usize, dtype: Dtype) -> f64 {
    // The best of many short runs is used, because other programs can only slow a run down.
    const RUNS: usize = 100;
    let best = |_| (0..RUNS).map(|_| fma_rate(dtype)).fold(0.0, f64::max);
    (0..threads).into_par_iter().map(best).sum()
}

/// GFLOP/s of this thread.
fn fma_rate(dtype: Dtype) -> f64 {
    let start = Instant::now();
    let flops = peak_tile(1_000, dtype);
    flops / start.elapsed().as_secs_f64() * 1e-9
}
