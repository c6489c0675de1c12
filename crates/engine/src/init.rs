//! Initial values of weights, as plain numbers in row-major order.

use crate::random::Random;

/// Normal with mean 0, truncated at -2 and 2 in absolute units. This is timm's
/// `trunc_normal_(std=std)`, whose default bounds are not multiples of `std`
/// (timm/layers/weight_init.py).
pub fn trunc_normal(random: &mut Random, len: usize, std: f32) -> Vec<f32> {
    assert!(std.is_finite(), "trunc_normal: std is {std}, expected a finite number");
    // Drawing again gives exactly the truncated distribution. timm computes it with erfinv.
    let draw = |_| loop {
        let value = std * random.normal();
        if value.abs() <= 2.0 {
            break value;
        }
    };
    (0..len).map(draw).collect()
}

/// Normal with mean 0.
pub fn normal(random: &mut Random, len: usize, std: f32) -> Vec<f32> {
    (0..len).map(|_| std * random.normal()).collect()
}

/// Uniform in ±√(6 / (fan_in + fan_out)): Glorot and Bengio 2010, `torch.nn.init.xavier_uniform_`.
/// For MAE (models_mae.py, `initialize_weights`) the patch projection is [D, pt·ph·pw·C].
pub fn xavier_uniform(random: &mut Random, len: usize, fan_in: usize, fan_out: usize) -> Vec<f32> {
    let bound = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
    (0..len).map(|_| bound * (2.0 * random.uniform() - 1.0)).collect()
}

/// Uniform in ±1/√fan_in: the default of torch's Linear and Conv2d, for weight and bias.
pub fn fan_in_uniform(random: &mut Random, len: usize, fan_in: usize) -> Vec<f32> {
    let bound = (fan_in as f32).sqrt().recip();
    (0..len).map(|_| (2.0 * random.uniform() - 1.0) * bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f32]) -> f64 {
        let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        (squares / values.len() as f64).sqrt()
    }

    #[test]
    fn trunc_normal_truncates_at_two_for_any_std() {
        let small = trunc_normal(&mut Random::new(1, "init", 0), 20_000, 0.02);
        assert!((spread(&small) - 0.02).abs() < 0.0005);
        assert!(small.iter().any(|v| v.abs() > 0.04));
        let wide = trunc_normal(&mut Random::new(1, "init", 1), 20_000, 2.0);
        assert!(wide.iter().all(|v| v.abs() <= 2.0));
        // Standard deviation of a normal truncated at one σ: 0.5396 σ.
        assert!((spread(&wide) - 1.0793).abs() < 0.02);
    }

    #[test]
    fn normal_and_xavier_have_their_spread() {
        let values = normal(&mut Random::new(2, "init", 0), 20_000, 0.5);
        assert!((spread(&values) - 0.5).abs() < 0.0125);
        let values = xavier_uniform(&mut Random::new(2, "init", 1), 20_000, 100, 50);
        assert!(values.iter().all(|v| v.abs() <= 0.2));
        assert!((spread(&values) - 0.2 / 3_f64.sqrt()).abs() < 0.003);
        let values = fan_in_uniform(&mut Random::new(2, "init", 2), 20_000, 25);
        assert!(values.iter().all(|v| v.abs() <= 0.2));
        assert!((spread(&values) - 0.2 / 3_f64.sqrt()).abs() < 0.003);
    }
}
