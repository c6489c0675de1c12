//! Losses over rows, as torch.nn.functional defines them, summed with 64 bits.

use super::lanes::{each2, sum2_f64};
use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{In, Out, for_rows, rows_per_task, sum_rows};
use crate::device::{LossKind, Write};
use crate::dtype::Element;

/// y = Σ_r w_r mean_d l(prediction - target). prediction[R,D], target[R,D]; weights[R], by default
/// 1/R each. Without rows y is 0.
pub(crate) fn loss<T: Element>(
    y: &mut [f32],
    prediction: &[T],
    target: &[f32],
    kind: LossKind,
    weights: Option<&[f32]>,
    d: usize,
) {
    assert_eq!(prediction.len(), target.len(), "loss: prediction and target");
    let rows = prediction.len() / d;
    let operands = (In(prediction, d), In(target, d));
    let sum = sum_rows(rows, d, operands, |first, (prediction, target)| {
        loss_rows(prediction.0, target.0, kind, weights.map(|w| &w[first..]), d)
    });
    let factor = weights.map_or(1.0 / rows.max(1) as f64, |_| 1.0);
    y[0] = (sum * factor / d as f64) as f32;
}

/// dprediction[R,D] = g w_r l'(prediction - target)/D
pub(crate) fn loss_backward<T: Element>(
    dprediction: Write<&mut [T]>,
    g: &[f32],
    prediction: &[T],
    target: &[f32],
    kind: LossKind,
    weights: Option<&[f32]>,
    d: usize,
) {
    set_or_add(dprediction, |dprediction| {
        set_gradient(dprediction, g[0], prediction, target, kind, weights, d);
    });
}

fn set_gradient<T: Element>(
    dprediction: &mut [T],
    g: f32,
    prediction: &[T],
    target: &[f32],
    kind: LossKind,
    weights: Option<&[f32]>,
    d: usize,
) {
    assert_eq!(dprediction.len(), prediction.len(), "loss_backward: dprediction");
    assert_eq!(prediction.len(), target.len(), "loss_backward: prediction and target");
    let rows = prediction.len() / d;
    let operands = (Out(dprediction, d), In(prediction, d), In(target, d));
    for_rows(rows, rows_per_task(d), operands, |first, (dprediction, prediction, target)| {
        let factor = |r| f64::from(weights.map_or(1.0, |w: &[f32]| w[first + r]));
        let even = weights.map_or(1.0 / rows.max(1) as f64, |_| 1.0);
        let inputs = prediction.0.chunks_exact(d).zip(target.0.chunks_exact(d));
        for (r, (dp, (p, t))) in dprediction.0.chunks_exact_mut(d).zip(inputs).enumerate() {
            let scale = (f64::from(g) * factor(r) * even / d as f64) as f32;
            slope_row(dp, p, t, kind, scale);
        }
    });
}

/// y = mean_b -log softmax(logits_b)[label_b]; logits[B,C], C classes.
pub(crate) fn cross_entropy(y: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    assert_eq!(logits.len(), labels.len() * classes, "cross_entropy: logits are [B, C]");
    let operands = (In(logits, classes), In(labels, 1));
    let sum = sum_rows(labels.len(), classes, operands, |_, (logits, labels)| {
        let rows = logits.0.chunks_exact(classes).zip(labels.0);
        rows.map(|(logits, &label)| {
            let (max, sum) = max_and_sum(logits);
            sum.ln() - (f64::from(logits[label as usize]) - f64::from(max))
        })
        .sum()
    });
    y[0] = (sum / labels.len().max(1) as f64) as f32;
}

/// dlogits[B,C] = g (softmax(logits_b) - onehot(label_b))/B
pub(crate) fn cross_entropy_backward(
    dlogits: Write<&mut [f32]>,
    g: &[f32],
    logits: &[f32],
    labels: &[u32],
    classes: usize,
) {
    set_or_add(dlogits, |dlogits| set_logits_gradient(dlogits, g[0], logits, labels, classes));
}

fn set_logits_gradient(
    dlogits: &mut [f32],
    g: f32,
    logits: &[f32],
    labels: &[u32],
    classes: usize,
) {
    assert_eq!(dlogits.len(), labels.len() * classes, "cross_entropy_backward: dlogits are [B, C]");
    let factor = f64::from(g) / labels.len() as f64;
    let operands = (Out(dlogits, classes), In(logits, classes), In(labels, 1));
    for_rows(labels.len(), rows_per_task(classes), operands, |_, (dlogits, logits, labels)| {
        let rows = dlogits.0.chunks_exact_mut(classes).zip(logits.0.chunks_exact(classes));
        for ((dlogits, logits), &label) in rows.zip(labels.0) {
            let (max, sum) = max_and_sum(logits);
            for (c, (d, &logit)) in dlogits.iter_mut().zip(logits).enumerate() {
                let probability = (f64::from(logit) - f64::from(max)).exp() / sum;
                let wanted = f64::from(u8::from(c == label as usize));
                *d = (factor * (probability - wanted)) as f32;
            }
        }
    });
}

/// The largest logit, and Σ exp(logit - largest).
fn max_and_sum(logits: &[f32]) -> (f32, f64) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, logits.iter().map(|&v| (f64::from(v) - f64::from(max)).exp()).sum())
}

multiversion! {
    fn loss_rows<T: Element>(
        prediction: &[T], target: &[f32], kind: LossKind, weights: Option<&[f32]>, d: usize,
    ) -> f64 {
        let mut sum = 0.0;
        let rows = prediction.chunks_exact(d).zip(target.chunks_exact(d));
        for (r, (p, t)) in rows.enumerate() {
            sum += loss_row(p, t, kind) * f64::from(weights.map_or(1.0, |w| w[r]));
        }
        sum
    }

    fn slope_row<T: Element>(dp: &mut [T], p: &[T], t: &[f32], kind: LossKind, scale: f32) {
        match kind {
            LossKind::L1 => each2(dp, p, t, |p, t| scale * sign(p - t)),
            LossKind::Mse => each2(dp, p, t, |p, t| scale * (2.0 * (p - t))),
            LossKind::SmoothL1 { beta } => each2(dp, p, t, |p, t| {
                let delta = p - t;
                let slope = if delta.abs() < beta { delta / beta } else { sign(delta) };
                scale * slope
            }),
        }
    }
}

#[inline(always)]
fn loss_row<T: Element>(p: &[T], t: &[f32], kind: LossKind) -> f64 {
    match kind {
        LossKind::L1 => sum2_f64(p, t, |p, t| f64::from((p - t).abs())),
        LossKind::Mse => sum2_f64(p, t, |p, t| {
            let delta = f64::from(p - t);
            delta * delta
        }),
        LossKind::SmoothL1 { beta } => {
            let (half, half_inverse) = (0.5 * f64::from(beta), 0.5 / f64::from(beta));
            sum2_f64(p, t, |p, t| {
                let delta = (p - t).abs();
                let (wide, inside) = (f64::from(delta), delta < beta);
                if inside { wide * wide * half_inverse } else { wide - half }
            })
        }
    }
}

/// -1, 0 or 1.
#[inline(always)]
fn sign(v: f32) -> f32 {
    f32::from(u8::from(v > 0.0)) - f32::from(u8::from(v < 0.0))
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::{LossKind, Write};
    use crate::naive::testing::{SIZES, assert_close, gradient, indices, numbers, wide};
    use crate::{cpu::row, naive};

    const KINDS: [LossKind; 4] = [
        LossKind::L1,
        LossKind::Mse,
        LossKind::SmoothL1 { beta: 0.7 },
        LossKind::SmoothL1 { beta: 0.0 },
    ];

    #[test]
    fn loss_equals_its_naive_twin() {
        for (rows, d) in SIZES {
            let (p, mut t) = (numbers(1, rows * d), numbers(2, rows * d));
            let w: Vec<f32> = numbers(3, rows).iter().map(|w| w.abs()).collect();
            t[0] = p[0]; // δ = 0
            for kind in KINDS {
                for w in [Some(&w[..]), None] {
                    let [got, want] = [row::loss, naive::loss::<f32, f32>].map(|loss| {
                        let mut y = [9.0];
                        loss(&mut y, &p, &t, kind, w, d);
                        y
                    });
                    assert_close("loss", &got, &want, 2e-7); // roundings of the sum and of δ
                    let twins = [row::loss_backward, naive::loss_backward::<f32, f32>];
                    let [got, want] = twins.map(|backward| {
                        let mut dp = vec![9.0; rows * d];
                        backward(Write::Set(&mut dp), &[3.0], &p, &t, kind, w, d);
                        dp
                    });
                    assert_close("dprediction", &got, &want, 3e-7); // three roundings
                }
            }
        }
    }

    #[test]
    fn loss_gradient_is_the_slope_of_its_forward() {
        let (p, t) = (wide(&numbers(1, 20)), wide(&numbers(2, 20)));
        let w = wide(&numbers(3, 4));
        for kind in KINDS {
            for w in [Some(&w[..]), None] {
                let mut dp = vec![9.0; 20];
                naive::loss_backward(Write::Set(&mut dp[..]), &[1.5], &p, &t, kind, w, 5);
                let slope = gradient(&p, |p| {
                    let mut y = [0.0];
                    naive::loss(&mut y, p, &t, kind, w, 5);
                    1.5 * y[0]
                });
                assert_close("dprediction", &dp, &slope, 1e-7);
            }
        }
    }

    #[test]
    fn equal_prediction_and_target_have_no_loss_and_no_slope() {
        for kind in KINDS {
            let mut y = [9.0];
            row::loss(&mut y, &[1.5; 4], &[1.5; 4], kind, None, 2);
            assert_eq!(y, [0.0]);
            let mut dp = [9.0; 4];
            row::loss_backward(Write::Set(&mut dp), &[1.0], &[1.5; 4], &[1.5; 4], kind, None, 2);
            assert_eq!(dp, [0.0; 4]);
        }
    }

    #[test]
    fn no_rows_have_no_loss() {
        for loss in [row::loss, naive::loss::<f32, f32>] {
            let mut y = [9.0];
            loss(&mut y, &[], &[], LossKind::L1, None, 3);
            assert_eq!(y, [0.0]);
        }
        for cross_entropy in [row::cross_entropy, naive::cross_entropy::<f32>] {
            let mut y = [9.0];
            cross_entropy(&mut y, &[], &[], 3);
            assert_eq!(y, [0.0]);
        }
    }

    #[test]
    fn cross_entropy_equals_its_naive_twin() {
        for (b, classes) in SIZES {
            let (logits, labels) = (numbers(1, b * classes), indices(2, b, classes));
            let [got, want] =
                [row::cross_entropy, naive::cross_entropy::<f32>].map(|cross_entropy| {
                    let mut y = [9.0];
                    cross_entropy(&mut y, &logits, &labels, classes);
                    y
                });
            assert_close("loss", &got, &want, 1e-7);
            let twins = [row::cross_entropy_backward, naive::cross_entropy_backward::<f32>];
            let [got, want] = twins.map(|backward| {
                let mut d = vec![9.0; b * classes];
                backward(Write::Set(&mut d), &[2.0], &logits, &labels, classes);
                d
            });
            assert_close("dlogits", &got, &want, 1e-7);
        }
    }

    #[test]
    fn cross_entropy_gradient_is_the_slope_of_its_forward() {
        let (logits, labels) = (wide(&numbers(1, 15)), [4, 0, 2]);
        let mut d = vec![0.0; 15];
        naive::cross_entropy_backward(Write::Set(&mut d[..]), &[1.5], &logits, &labels, 5);
        let slope = gradient(&logits, |logits| {
            let mut y = [0.0];
            naive::cross_entropy(&mut y, logits, &labels, 5);
            1.5 * y[0]
        });
        assert_close("dlogits", &d, &slope, 1e-7);
    }

    #[test]
    fn cross_entropy_of_large_logits_is_finite() {
        for (label, want) in [(0, 0.0), (1, 1e4)] {
            let mut y = [9.0];
            row::cross_entropy(&mut y, &[1e4, 0.0], &[label], 2);
            assert_eq!(y, [want]);
        }
    }

    #[test]
    fn losses_give_the_same_bits_on_any_threads_and_instructions() {
        let (p, t) = (numbers(1, 1300 * 96), numbers(2, 1300 * 96));
        same_bits(|| {
            let kind = LossKind::SmoothL1 { beta: 0.5 };
            let mut dp = vec![0.0; p.len()];
            row::loss_backward(Write::Set(&mut dp), &[1.0], &p, &t, kind, None, 96);
            let mut y = [0.0; 5];
            for (y, kind) in y.chunks_mut(1).zip(KINDS) {
                row::loss(y, &p, &t, kind, None, 96);
            }
            row::cross_entropy(&mut y[4..], &p, &[7; 1300], 96);
            dp.extend(y);
            dp
        });
    }
}
