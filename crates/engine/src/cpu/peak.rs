//! The machine's floor: how many multiply-adds its threads can do, measured.

use super::gemm::fma_rate;
use rayon::prelude::*;

/// GFLOP/s that `threads` threads reach together on multiply-adds held in registers.
pub fn fma_peak_gflops(threads: usize) -> f64 {
    // The best of many short runs: other programs only ever slow it down.
    const RUNS: usize = 100;
    let best = |_| (0..RUNS).map(|_| fma_rate()).fold(0.0, f64::max);
    (0..threads).into_par_iter().map(best).sum()
}
