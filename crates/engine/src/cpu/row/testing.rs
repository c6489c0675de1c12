//! Bit equality across threads and instruction sets.

use crate::cpu::dispatch::cap;
use std::sync::Mutex;

/// Runs `f` with one and two threads and every instruction set, and compares bits.
pub(crate) fn same_bits(f: impl Fn() -> Vec<f32> + Sync) {
    let first: Mutex<Option<Vec<u32>>> = Mutex::new(None);
    cap::for_each(|level, threads| {
        let bits: Vec<u32> = f().into_iter().map(f32::to_bits).collect();
        let mut first = first.lock().unwrap();
        let first = first.get_or_insert_with(|| bits.clone());
        assert!(*first == bits, "{level:?} on {threads} threads differs");
    });
}
