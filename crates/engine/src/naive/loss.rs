//! Losses.

use super::{Real, set_or_add};
use crate::device::{LossKind, Write};

/// l(δ)
fn value(delta: f64, kind: LossKind) -> f64 {
    match kind {
        LossKind::L1 => delta.abs(),
        LossKind::Mse => delta * delta,
        LossKind::SmoothL1 { beta } if delta.abs() < beta.f64() => 0.5 * delta * delta / beta.f64(),
        LossKind::SmoothL1 { beta } => delta.abs() - 0.5 * beta.f64(),
    }
}

/// l'(δ), 0 at the kink of |δ|.
fn slope(delta: f64, kind: LossKind) -> f64 {
    match kind {
        LossKind::Mse => 2.0 * delta,
        LossKind::SmoothL1 { beta } if delta.abs() < beta.f64() => delta / beta.f64(),
        LossKind::L1 | LossKind::SmoothL1 { .. } if delta == 0.0 => 0.0,
        LossKind::L1 | LossKind::SmoothL1 { .. } => delta.signum(),
    }
}

/// y = Σ_r w_r mean_d l(prediction - target), w_r = 1/R by default.
pub fn loss<T: Real, P: Real>(
    y: &mut [P],
    prediction: &[T],
    target: &[P],
    kind: LossKind,
    weights: Option<&[P]>,
    d: usize,
) {
    let rows = prediction.len() / d;
    let mut sum = 0.0;
    for i in 0..prediction.len() {
        let weight = weights.map_or(1.0 / rows.max(1) as f64, |w| w[i / d].f64());
        sum += weight * value(prediction[i].f64() - target[i].f64(), kind) / d as f64;
    }
    y[0] = P::of(sum);
}

/// dprediction[R,D] = g w_r l'(prediction - target)/D
pub fn loss_backward<T: Real, P: Real>(
    dprediction: Write<&mut [T]>,
    g: &[P],
    prediction: &[T],
    target: &[P],
    kind: LossKind,
    weights: Option<&[P]>,
    d: usize,
) {
    let rows = prediction.len() / d;
    set_or_add(dprediction, |dprediction| {
        for i in 0..prediction.len() {
            let weight = weights.map_or(1.0 / rows.max(1) as f64, |w| w[i / d].f64());
            let slope = slope(prediction[i].f64() - target[i].f64(), kind);
            dprediction[i] = g[0].f64() * weight * slope / d as f64;
        }
    });
}

/// softmax(logits_b), computed after the largest logit is subtracted.
fn softmax<T: Real>(logits: &[T]) -> Vec<f64> {
    let max = logits.iter().map(|v| v.f64()).fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|v| (v.f64() - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// y = mean_b -log softmax(logits_b)[label_b]; logits[B,C].
pub fn cross_entropy<T: Real>(y: &mut [T], logits: &[T], labels: &[u32], classes: usize) {
    let mut sum = 0.0;
    for b in 0..labels.len() {
        sum -= softmax(&logits[b * classes..][..classes])[labels[b] as usize].ln();
    }
    y[0] = T::of(sum / labels.len().max(1) as f64);
}

/// dlogits[B,C] = g (softmax(logits_b) - onehot(label_b))/B
pub fn cross_entropy_backward<T: Real>(
    dlogits: Write<&mut [T]>,
    g: &[T],
    logits: &[T],
    labels: &[u32],
    classes: usize,
) {
    set_or_add(dlogits, |dlogits| {
        for b in 0..labels.len() {
            let mut slope = softmax(&logits[b * classes..][..classes]);
            slope[labels[b] as usize] -= 1.0;
            for c in 0..classes {
                dlogits[b * classes + c] = g[0].f64() * slope[c] / labels.len() as f64;
            }
        }
    });
}
