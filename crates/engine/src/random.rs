//! Random numbers from a counter, without hidden state: Philox4x32-10 (Salmon et al. 2011,
//! "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A stream is identified by (seed, purpose, index), for instance (17, "masks", step). Its numbers
//! are the same on any thread and after any restart.
//!
//! * key (64 bits) = mix(mix(seed) + FNV-1a-64(purpose)), where mix is SplitMix64's finaliser;
//! * counter (128 bits) = block number in the low 64 bits, index in the high 64 bits.
//!
//! Two indices of one key never share a counter. This layout is part of the contract: a change to
//! it changes every run.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32: four random words from a counter and a key (low word first).
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let high = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// One stream of random numbers.
///
/// ```
/// use engine::random::Random;
/// let mut random = Random::new(17, "masks", 3);
/// let again = Random::new(17, "masks", 3).next_u32();
/// assert_eq!(random.next_u32(), again);
/// assert!(random.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 2],
    index: u64,
    block: u64,
    words: [u32; 4],
    /// Number of `words` that were already returned.
    used: usize,
    /// The second value of the last Box-Muller pair.
    spare_normal: Option<f64>,
}

impl Random {
    /// The stream of this seed, purpose and index, from its start.
    pub fn new(seed: u64, purpose: &'static str, index: u64) -> Self {
        let key = mix(mix(seed).wrapping_add(fnv1a64(purpose.as_bytes())));
        let key = [key as u32, (key >> 32) as u32];
        Self { key, index, block: 0, words: [0; 4], used: 4, spare_normal: None }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let words = |v: u64| [v as u32, (v >> 32) as u32];
            let ([b0, b1], [i0, i1]) = (words(self.block), words(self.index));
            self.words = philox4x32([b0, b1, i0, i1], self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// 64 random bits. The first word drawn is the low one.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// An integer in 0..n, each equally likely (Lemire 2019). `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below(0): there is no number to draw");
        let n = n as u64;
        // Products whose low half is among the lowest 2⁶⁴ mod n values are rejected. The others are
        // uniform.
        let reject = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= reject {
                return (product >> 64) as usize;
            }
        }
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f32 {
        if let Some(value) = self.spare_normal.take() {
            return value as f32;
        }
        // 1 - u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform_f64()).sin_cos();
        self.spare_normal = Some(radius * sin);
        (radius * cos) as f32
    }

    /// Puts the items in random order. Every order is equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): the hash of a purpose.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection that maps similar seeds to very
/// different values.
fn mix(v: u64) -> u64 {
    let v = v.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let v = (v ^ (v >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    v ^ (v >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        // kat_vectors of Random123 1.14, philox4x32 10.
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox4x32(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn fnv_gives_its_published_answers() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index_and_repeat_otherwise() {
        let first = |seed, purpose, index| Random::new(seed, purpose, index).next_u64();
        assert_eq!(first(1, "masks", 2), first(1, "masks", 2));
        let others = [first(0, "masks", 2), first(1, "order", 2), first(1, "masks", 3)];
        assert!(others.iter().all(|&v| v != first(1, "masks", 2)));
    }

    #[test]
    fn below_reaches_every_number_equally_often() {
        let mut random = Random::new(3, "below", 0);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        // Five standard deviations of one count: √(70000 · 1/7 · 6/7) = 93.
        assert!(counts.iter().all(|&n| n.abs_diff(10_000) < 465), "{counts:?}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut random = Random::new(5, "moments", 0);
        let n = 100_000;
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(random.uniform())).collect();
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = |v: &[f64], power: i32| v.iter().map(|x| x.powi(power)).sum::<f64>() / n as f64;
        // Five standard errors: 0.2887 / √n, then √2 and √24 over √n for the normal's powers.
        assert!((mean(&uniform, 1) - 0.5).abs() < 0.0046);
        let normal: Vec<f64> = (0..n).map(|_| f64::from(random.normal())).collect();
        assert!(mean(&normal, 1).abs() < 0.016);
        assert!((mean(&normal, 2) - 1.0).abs() < 0.023);
        assert!((mean(&normal, 4) - 3.0).abs() < 0.16);
    }

    #[test]
    fn shuffle_keeps_every_item_and_moves_each_anywhere() {
        let mut random = Random::new(7, "shuffle", 0);
        let mut counts = [[0_u32; 5]; 5];
        for _ in 0..10_000 {
            let mut items = [0, 1, 2, 3, 4];
            random.shuffle(&mut items);
            items.iter().enumerate().for_each(|(index, &item): (_, &usize)| {
                counts[item][index] += 1;
            });
        }
        // Five standard deviations of 40.
        assert!(counts.iter().flatten().all(|&n| n.abs_diff(2000) < 200), "{counts:?}");
    }
}
