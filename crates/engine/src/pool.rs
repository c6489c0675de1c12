//! The pool of buffers. A steady training step takes every buffer from the pool and returns it, so
//! it allocates nothing.
//!
//! Token counts change at each step with the masks. So lengths are rounded up to size classes
//! (sixteen per factor of two). A buffer is used for any length of its class or somewhat less.

use crate::dtype::{Dtype, Slice, SliceMut};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// 64 bytes: the size of a cache line and of an AVX-512 register.
pub(crate) const LANE: usize = 16;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Lane([f32; LANE]);

impl Lane {
    pub(crate) const ZERO: Self = Self([0.0; LANE]);
}

// SAFETY: sixteen f32 fill 64 bytes without padding, and every bit pattern is valid.
unsafe impl bytemuck::Zeroable for Lane {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Lane {}

/// A 64-byte aligned f32 buffer in host memory. A dropped buffer returns to the pool, a dropped
/// lasting buffer to the system.
pub struct HostBuffer {
    lanes: Vec<Lane>,
    len: usize,
    lasting: bool,
}

impl HostBuffer {
    /// A buffer of `len` values with arbitrary content. Its user must write all of it.
    pub fn dirty(len: usize) -> Self {
        Self { lanes: POOL.take(class_of(len.div_ceil(LANE))), len, lasting: false }
    }

    /// Zeros that live for many steps. Long-lived buffers bypass the pool. If they were taken from
    /// it, the next step would need new buffers. If they were returned to it, it would keep the
    /// memory of every finished model.
    pub fn lasting(len: usize) -> Self {
        Self { lanes: POOL.new_lanes(len.div_ceil(LANE)), len, lasting: true }
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lanes)[..self.len]
    }

    /// The values, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lanes)[..self.len]
    }
}

/// A buffer of values of any type.
pub struct HostValues {
    buffer: HostBuffer,
    dtype: Dtype,
    len: usize,
}

impl HostValues {
    /// `len` values with arbitrary content.
    pub(crate) fn dirty(dtype: Dtype, len: usize) -> Self {
        let buffer = HostBuffer::dirty((len * dtype.size()).div_ceil(size_of::<f32>()));
        Self { buffer, dtype, len }
    }

    /// As [`HostBuffer::lasting`].
    pub(crate) fn lasting(len: usize) -> Self {
        Self { buffer: HostBuffer::lasting(len), dtype: Dtype::F32, len }
    }

    /// The values.
    pub(crate) fn slice(&self) -> Slice<'_> {
        let stored = self.buffer.as_slice();
        match self.dtype {
            Dtype::F32 => Slice::F32(stored),
            Dtype::Bf16 => Slice::Bf16(&bytemuck::cast_slice(stored)[..self.len]),
        }
    }

    /// The values, to write.
    pub(crate) fn slice_mut(&mut self) -> SliceMut<'_> {
        let stored = self.buffer.as_mut_slice();
        match self.dtype {
            Dtype::F32 => SliceMut::F32(stored),
            Dtype::Bf16 => SliceMut::Bf16(&mut bytemuck::cast_slice_mut(stored)[..self.len]),
        }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        if self.lasting {
            POOL.free(lanes);
        } else {
            POOL.give(lanes);
        }
    }
}

struct Pool {
    free: Mutex<BTreeMap<usize, Vec<Vec<Lane>>>>,
    allocations: AtomicU64,
    live_bytes: AtomicUsize,
}

static POOL: Pool = Pool {
    free: Mutex::new(BTreeMap::new()),
    allocations: AtomicU64::new(0),
    live_bytes: AtomicUsize::new(0),
};

/// Counters of the pool since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Buffers allocated by the system.
    pub allocations: u64,
    /// Bytes of all buffers, in use or free.
    pub bytes: usize,
}

/// Reads the counters. The test "a steady step allocates nothing" compares two readings.
pub fn stats() -> PoolStats {
    PoolStats {
        allocations: POOL.allocations.load(Ordering::Relaxed),
        bytes: POOL.live_bytes.load(Ordering::Relaxed),
    }
}

/// Returns all free buffers to the system, for example between two stages.
pub fn release() {
    let free = std::mem::take(&mut *POOL.lock());
    let lanes: usize = free.iter().map(|(class, buffers)| class * buffers.len()).sum();
    POOL.live_bytes.fetch_sub(lanes * size_of::<Lane>(), Ordering::Relaxed);
}

/// Rounds up to m * 2^k with m in 16..32: at most a sixteenth is wasted.
fn class_of(lanes: usize) -> usize {
    if lanes <= 16 {
        return 16;
    }
    let step = (lanes.next_power_of_two() / 32).max(1);
    lanes.div_ceil(step) * step
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<Vec<Lane>>>> {
        // A panic elsewhere leaves the free lists valid, because each change to them is one push or
        // pop.
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A free buffer of this class or up to one and a half times as large, else a new one. If small
    /// tensors could hold larger buffers, large tensors would need new ones.
    ///
    /// A new buffer replaces a free one that is too small. So the buffers of a step grow to its
    /// largest masks. They do not accumulate in every size.
    fn take(&self, class: usize) -> Vec<Lane> {
        let mut free = self.lock();
        let most = class + class / 2;
        if let Some(lanes) = free.range_mut(class..=most).find_map(|(_, list)| list.pop()) {
            return lanes;
        }
        let outgrown = free.range_mut(class / 2..class).rev().find_map(|(_, list)| list.pop());
        drop(free);
        if let Some(lanes) = outgrown {
            self.free(lanes);
        }
        self.new_lanes(class)
    }

    fn new_lanes(&self, count: usize) -> Vec<Lane> {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.live_bytes.fetch_add(count * size_of::<Lane>(), Ordering::Relaxed);
        vec![Lane([0.0; LANE]); count]
    }

    /// Returns a buffer to the system.
    fn free(&self, lanes: Vec<Lane>) {
        self.live_bytes.fetch_sub(lanes.len() * size_of::<Lane>(), Ordering::Relaxed);
        drop(lanes);
    }

    fn give(&self, lanes: Vec<Lane>) {
        if !lanes.is_empty() {
            self.lock().entry(lanes.len()).or_default().push(lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_a_sixteenth() {
        for lanes in 1..5000 {
            let class = class_of(lanes);
            assert!(class >= lanes);
            assert!(lanes < 16 || class * 16 <= lanes * 17, "{lanes} -> {class}");
        }
    }

    #[test]
    fn a_buffer_is_aligned_and_has_its_length() {
        let buffer = HostBuffer::dirty(17);
        assert_eq!(buffer.as_slice().len(), 17);
        assert_eq!(buffer.as_slice().as_ptr() as usize % 64, 0);
    }
}
