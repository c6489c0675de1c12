//! Bit equality over threads and instruction sets.

use crate::cpu::dispatch::{self, Level};

/// Runs `f` with one and two threads and every instruction set, and compares bits.
pub(crate) fn same_bits(f: impl Fn() -> Vec<f32> + Sync) {
    let widest = dispatch::level();
    let mut levels = vec![Level::Portable];
    #[cfg(target_arch = "x86_64")]
    levels.extend([Level::Avx2, Level::Avx512]);
    levels.retain(|&level| level <= widest);
    let mut first: Option<Vec<u32>> = None;
    for level in levels {
        for threads in [1, 2] {
            let bits = on_threads(threads, level, &f);
            match &first {
                None => first = Some(bits),
                Some(first) => assert!(first == &bits, "{level:?} on {threads} threads differs"),
            }
        }
    }
}

fn on_threads(threads: usize, level: Level, f: &(impl Fn() -> Vec<f32> + Sync)) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.broadcast(|_| dispatch::cap::set(Some(level)));
    pool.install(f).into_iter().map(f32::to_bits).collect()
}
