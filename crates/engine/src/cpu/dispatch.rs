//! One body, three instruction sets. A function in [`multiversion!`] is compiled for AVX-512, for
//! AVX2 and for the target's own features. The first version that the CPU supports is called.
//!
//! The bodies sum in a fixed number of lanes. They multiply and add in two roundings unless they
//! state otherwise. So all three give the same bits. A body can read `FUSED`: whether
//! [`f32::mul_add`] is one instruction here and not a call.

use crate::Dtype;
use std::sync::OnceLock;

/// Instruction sets in the order of their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Portable,
    /// Products of bf16 pairs by plain code, to test what surrounds them on any CPU.
    #[cfg(test)]
    PortablePairs,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 that also multiplies pairs of bf16. It is the same for f32.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// The widest instruction set of this CPU.
pub(crate) fn level() -> Level {
    #[cfg(test)]
    return cap::get();
    #[cfg(not(test))]
    detected()
}

/// Whether AVX2 may be used.
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() >= Level::Avx2;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// All levels here, the narrowest first.
const LEVELS: &[Level] = &[
    Level::Portable,
    #[cfg(test)]
    Level::PortablePairs,
    #[cfg(target_arch = "x86_64")]
    Level::Avx2,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512Bf16,
];

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(test)]
            Self::PortablePairs => "portable pairs",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512_bf16",
        }
    }
}

/// The name of the instruction set that is used for activations of this type. It determines how
/// sums are rounded.
pub fn instruction_set(dtype: Dtype) -> &'static str {
    match (level(), dtype) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512Bf16, Dtype::F32) => Level::Avx512.name(),
        (level, _) => level.name(),
    }
}

/// The widest set that may be used, if the user limits it.
static LIMIT: OnceLock<Level> = OnceLock::new();

/// Lets kernels use no wider instruction set than `name`, such as "portable" or "avx2". Two
/// machines that use the same set give the same bits. Must be called before any kernel. Returns an
/// error with the known names if there is none of this name here.
pub fn limit_instruction_set(name: &str) -> Result<(), String> {
    let known = LEVELS.iter().filter(|level| **level <= supported());
    let level = known.clone().find(|level| level.name() == name).ok_or_else(|| {
        let names: Vec<&str> = known.map(|level| level.name()).collect();
        format!("{name:?} is no instruction set of this CPU, expected {}", names.join(" or "))
    })?;
    LIMIT.set(*level).map_err(|_| "the instruction set is limited already".to_owned())
}

/// What this CPU can do, within the user's limit.
fn detected() -> Level {
    LIMIT.get().map_or_else(supported, |limit| supported().min(*limit))
}

#[cfg(target_arch = "x86_64")]
fn supported() -> Level {
    // std queries the CPU once and caches the answer.
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) if is_x86_feature_detected!("avx512bf16") => Level::Avx512Bf16,
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn supported() -> Level {
    Level::Portable
}

/// Compiles each function for every [`Level`] and calls the widest one that the CPU supports.
macro_rules! multiversion {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident$(<$($T:ident: $bound:ident),+>)?(
        $($arg:ident: $ty:ty),* $(,)?
    ) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$meta])*
        // Every version takes the same arguments.
        #[allow(clippy::too_many_arguments)]
        $vis fn $name$(<$($T: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)] // most do not read it
            fn body<const FUSED: bool $($(, $T: $bound)+)?>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512$(<$($T: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<true $($(, $T)+)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($T: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<true $($(, $T)+)?>($($arg),*)
                }
                match $crate::cpu::dispatch::level() {
                    $crate::cpu::dispatch::Level::Avx512
                    | $crate::cpu::dispatch::Level::Avx512Bf16 => {
                        // SAFETY: `level` returns these two only if the CPU has these features.
                        return unsafe { avx512($($arg),*) };
                    }
                    $crate::cpu::dispatch::Level::Avx2 => {
                        // SAFETY: `level` returns Avx2 only if the CPU has these features.
                        return unsafe { avx2($($arg),*) };
                    }
                    _ => {}
                }
            }
            body::<{ cfg!(target_arch = "aarch64") } $($(, $T)+)?>($($arg),*)
        }
    )+};
}
pub(crate) use multiversion;

/// Lets a test choose a narrower instruction set than the CPU has, on its own thread.
#[cfg(test)]
pub(crate) mod cap {
    use super::Level;
    use std::cell::Cell;

    thread_local! {
        static CAP: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(crate) fn get() -> Level {
        CAP.get().unwrap_or_else(super::detected)
    }

    /// Runs `test` for every instruction set the CPU has, in a pool of one and of two threads.
    pub(crate) fn for_each(test: impl Fn(Level, usize) + Sync) {
        let has = |level: Level| level <= super::detected() || level == Level::PortablePairs;
        for &level in super::LEVELS.iter().filter(|level| has(**level)) {
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.broadcast(|_| CAP.set(Some(level)));
                pool.install(|| test(level, threads));
            }
        }
    }
}
