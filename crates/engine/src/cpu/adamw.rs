//! AdamW in one pass over all parameters, and the norm of gradients.

use super::dispatch::multiversion;
use super::parallel::{In, Out, for_each, for_rows, rows_per_task, sum_rows};
use super::row::lanes::sum2_f64;
use crate::device::{AdamWOperands, AdamWStep};

/// Loshchilov and Hutter 2019, algorithm 2, in torch's order (torch/optim/adamw.py, single tensor):
///
/// value *= 1 - lr λ; m += (1 - β1)(g - m); v = β2 v + (1 - β2) g²;
/// value -= lr/(1 - β1ᵗ) m / (√v/√(1 - β2ᵗ) + ε)
pub(crate) fn adamw(parameters: Vec<AdamWOperands<&[f32], &mut [f32]>>) {
    for_each(parameters, adamw_of_one);
}

fn adamw_of_one(parameter: AdamWOperands<&[f32], &mut [f32]>) {
    let AdamWOperands { value, first, second, grad, step } = parameter;
    assert_eq!((first.len(), second.len()), (value.len(), value.len()), "adamw: moments");
    assert_eq!(grad.len(), value.len(), "adamw: gradient");
    let factors = Factors::new(step);
    let operands = (Out(value, 1), Out(first, 1), Out(second, 1), In(grad, 1));
    for_rows(grad.len(), rows_per_task(1), operands, |_, (value, first, second, grad)| {
        update(value.0, first.0, second.0, grad.0, factors);
    });
}

/// y[1] = √(Σ_x Σ x²), with 64-bit sums in the order of `xs`.
pub(crate) fn norm(y: &mut [f32], xs: Vec<&[f32]>) {
    let squares_of = |x: &[f32]| sum_rows(x.len(), 1, In(x, 1), |_, x| squares(x.0));
    let sum = xs.into_iter().fold(0.0, |sum: f64, x| sum + squares_of(x));
    y[0] = sum.sqrt() as f32;
}

/// Factors of one update, computed with 64 bits and then rounded.
#[derive(Clone, Copy)]
struct Factors {
    decay: f32,
    first: f32,
    second_kept: f32,
    second: f32,
    /// -lr/(1 - β1ᵗ)
    change: f32,
    /// √(1 - β2ᵗ)
    correction: f32,
    eps: f32,
}

impl Factors {
    fn new(step: AdamWStep) -> Self {
        let (beta1, beta2) = step.betas;
        let (lr, weight_decay) = (f64::from(step.lr), f64::from(step.weight_decay));
        let power = |beta: f64| 1.0 - beta.powf(step.step as f64);
        Self {
            decay: (1.0 - lr * weight_decay) as f32,
            first: (1.0 - beta1) as f32,
            second_kept: beta2 as f32,
            second: (1.0 - beta2) as f32,
            change: -(lr / power(beta1)) as f32,
            correction: power(beta2).sqrt() as f32,
            eps: step.eps,
        }
    }
}

multiversion! {
    fn update(value: &mut [f32], first: &mut [f32], second: &mut [f32], grad: &[f32], f: Factors) {
        let moments = first.iter_mut().zip(second);
        for ((value, g), (m, v)) in value.iter_mut().zip(grad).zip(moments) {
            *m += f.first * (g - *m);
            *v = *v * f.second_kept + f.second * g * g;
            let root = v.sqrt() / f.correction + f.eps;
            *value = *value * f.decay + f.change * *m / root;
        }
    }

    fn squares(x: &[f32]) -> f64 {
        sum2_f64(x, x, |a, _| f64::from(a) * f64::from(a))
    }
}

#[cfg(test)]
mod tests {
    use super::{adamw, norm};
    use crate::cpu::row::testing::same_bits;
    use crate::device::{AdamWOperands, AdamWStep};
    use crate::naive;
    use crate::naive::testing::{SIZES, assert_close, numbers};

    fn step(step: u64) -> AdamWStep {
        AdamWStep { lr: 1e-2, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.05, step }
    }

    fn operands<'a>(
        value: &'a mut [f32],
        first: &'a mut [f32],
        second: &'a mut [f32],
        grad: &'a [f32],
        step: AdamWStep,
    ) -> AdamWOperands<&'a [f32], &'a mut [f32]> {
        AdamWOperands { value, first, second, grad, step }
    }

    #[test]
    fn adamw_equals_its_naive_twin() {
        for len in SIZES.map(|(rows, d)| rows * d) {
            let [got, want] = [adamw, naive::adamw].map(|adamw| {
                let (mut p, mut m, mut v) = (numbers(1, len), vec![0.0; len], vec![0.0; len]);
                let mut alone = [[0.5], [0.0], [0.0]];
                for t in 1..=5 {
                    let grad = numbers(10 + t, len);
                    let [value, first, second] = &mut alone;
                    adamw(vec![
                        operands(&mut p, &mut m, &mut v, &grad, step(t)),
                        operands(value, first, second, &[0.25], step(t)),
                    ]);
                }
                [p, m, v, alone.concat()]
            });
            for (name, (got, want)) in
                ["value", "m", "v", "second parameter"].iter().zip(got.iter().zip(&want))
            {
                assert_close(name, got, want, 1e-6); // a few roundings, five times
            }
        }
    }

    /// From p = 1, m = v = 0, g = ±0.5: m̂ = g, √v̂ = |g|, so p = (1 - lr λ) ∓ lr, apart from ε.
    #[test]
    fn the_first_update_moves_by_the_learning_rate() {
        let (mut p, mut m, mut v) = ([1.0, 1.0], [0.0; 2], [0.0; 2]);
        let step = AdamWStep { betas: (0.5, 0.75), ..step(1) };
        adamw(vec![operands(&mut p, &mut m, &mut v, &[0.5, -0.5], step)]);
        assert_close("p", &p, &[0.9995 - 0.01, 0.9995 + 0.01], 1e-7); // one rounding
        assert_eq!((m, v), ([0.25, -0.25], [0.0625; 2]));
    }

    fn norm_of(xs: Vec<&[f32]>) -> f32 {
        let mut y = [9.0];
        norm(&mut y, xs);
        y[0]
    }

    #[test]
    fn norm_equals_its_naive_twin_and_does_not_overflow() {
        for len in SIZES.map(|(rows, d)| rows * d) {
            let (x, mut want) = (numbers(1, len), [9.0]);
            naive::norm(&mut want, vec![&x, &x]);
            assert_close("norm", &[norm_of(vec![&x, &x])], &want, 1e-7); // one rounding
        }
        assert_eq!(norm_of(vec![&[1e30; 4]]), 2e30);
        assert_eq!(norm_of(vec![&[], &[]]), 0.0);
    }

    #[test]
    fn adamw_gives_the_same_bits_on_any_threads_and_instructions() {
        let (x, g) = (numbers(1, 100_001), numbers(2, 100_001));
        same_bits(|| {
            let (mut p, mut m, mut v) = (x.clone(), g.clone(), vec![0.1; x.len()]);
            adamw(vec![operands(&mut p, &mut m, &mut v, &g, step(3))]);
            let norm = norm_of(vec![&p, &m]);
            p.push(norm);
            [p, m, v].concat()
        });
    }
}
