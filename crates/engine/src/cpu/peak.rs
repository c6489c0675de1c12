//! The machine's floor: how many multiply-adds its threads can do, measured.

use super::gemm::fma_rate;
use rayon::prelude::*;

/// GFLOP/s that `threads` threads reach together on multiply-adds held in registers.
pub fn fma_peak_gflops(threads: usize) -> f64 {
    // Best of several: other programs only ever slow it down.
    (0..5)
        .map(|_| {
            let rates: Vec<f64> = (0..threads).into_par_iter().map(|_| fma_rate()).collect();
            rates.iter().sum::<f64>()
        })
        .fold(0.0, f64::max)
}
