//! AdamW and norms.
use crate::device::AdamWStep;
pub(crate) fn adamw(
    value: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    grad: &[f32],
    s: AdamWStep,
) {
    let (b1, b2) = s.betas;
    let c1 = 1.0 - b1.powi(s.step as i32);
    let c2 = (1.0 - b2.powi(s.step as i32)).sqrt() as f32;
    let (new1, keep2, new2) = ((1.0 - b1) as f32, b2 as f32, (1.0 - b2) as f32);
    let size = (f64::from(s.lr) / c1) as f32;
    for i in 0..value.len() {
        value[i] *= 1.0 - s.lr * s.weight_decay;
        first[i] += (grad[i] - first[i]) * new1;
        second[i] = second[i] * keep2 + grad[i] * grad[i] * new2;
        value[i] -= size * first[i] / (second[i].sqrt() / c2 + s.eps);
    }
}
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}
pub(crate) fn first_non_finite(x: &[f32]) -> Option<(usize, f32)> {
    x.iter().position(|x| !x.is_finite()).map(|i| (i, x[i]))
}
