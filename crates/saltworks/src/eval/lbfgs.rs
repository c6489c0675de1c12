//! Minimises a smooth convex function by L-BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5),
//! with the caller's guess of the inverse Hessian.

use super::StopCheck;
use std::collections::VecDeque;

/// A function of a vector, and what is known about its minimum.
pub(super) trait Objective {
    /// f(x), and its gradient.
    fn value_and_gradient(&self, x: &[f64]) -> (f64, Vec<f64>);
    /// An upper bound of the difference between f(x) and its minimum.
    fn above(&self, x: &[f64], value: f64, gradient: &[f64]) -> f64;
    /// An estimate of `above`, for functions whose bound is tight only at a settled x.
    fn guess(&self, x: &[f64], value: f64, gradient: &[f64]) -> f64 {
        self.above(x, value, gradient)
    }
    /// Moves x to a point at which `above` is tight within a `gap` (a share of f).
    fn settle(&self, _x: &mut Vec<f64>, _gap: f64) {}
    /// H₀⁻¹ g in place: an approximation of the inverse Hessian times a vector.
    fn precondition(&self, gradient: &mut [f64]);
}

/// When to stop.
#[derive(Clone, Copy)]
pub(super) struct StopRule<'a> {
    /// The share of f by which it may lie above its minimum.
    pub(super) gap: f64,
    pub(super) iterations: usize,
    /// Stops at once if it returns true.
    pub(super) stopped: StopCheck<'a>,
}

/// Number of stored pairs of steps. It is scikit-learn's and SciPy's default.
const MEMORY: usize = 10;
/// Halvings of a step before it is given up as rounding.
const HALVINGS: usize = 12;

/// Share of f that may be rounding: logits are f32.
const ROUNDING: f64 = 1e-6;
/// Number of steps in which f may fail to decrease.
const LEVEL_STEPS: usize = 20; // (guess)

/// The result of a minimisation.
pub(super) struct Minimum {
    /// f
    pub(super) value: f64,
    /// An upper bound of the share of f by which it lies above its minimum. It exceeds the
    /// requested gap if the iterations or the precision did not suffice.
    pub(super) gap: f64,
}

/// Moves `x` to the minimum of `f`.
pub(super) fn minimize(f: &impl Objective, x: &mut Vec<f64>, stop: StopRule<'_>) -> Minimum {
    let mut pairs = Pairs::default();
    let mut point = Point::at(f, std::mem::take(x));
    let (mut enough, mut level) = (stop.gap, 0);
    for _ in 0..stop.iterations {
        if (stop.stopped)() {
            break;
        }
        if f.guess(&point.x, point.value, &point.gradient) <= enough * point.value {
            point = point.settled(f, stop);
            if point.gap(f) <= stop.gap {
                break;
            }
            // The estimate was too low. Check again only when it is much lower.
            enough *= 0.25;
        }
        let direction = pairs.direction(f, &point.gradient);
        let Some(next) = line_search(f, &point, &direction, stop.stopped) else { break };
        level += usize::from(next.value >= point.value);
        if level > LEVEL_STEPS {
            break;
        }
        pairs.push(difference(&next.x, &point.x), difference(&next.gradient, &point.gradient));
        point = next;
    }
    if point.gap(f) > stop.gap && !(stop.stopped)() {
        point = point.settled(f, stop);
    }
    let found = Minimum { value: point.value, gap: point.gap(f) };
    *x = point.x;
    found
}

struct Point {
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

impl Point {
    fn at(f: &impl Objective, x: Vec<f64>) -> Self {
        let (value, gradient) = f.value_and_gradient(&x);
        Self { x, value, gradient }
    }

    fn settled(mut self, f: &impl Objective, stop: StopRule<'_>) -> Self {
        f.settle(&mut self.x, stop.gap);
        Self::at(f, self.x)
    }

    fn gap(&self, f: &impl Objective) -> f64 {
        f.above(&self.x, self.value, &self.gradient) / self.value
    }
}

/// Halves the step until f falls by a ten-thousandth of the slope's prediction (Armijo). If f
/// changes only by rounding, the slope must fall instead (Hager and Zhang 2005, eq. 4.1). f is
/// convex, so the curvature along the step needs no second condition.
fn line_search(
    f: &impl Objective,
    from: &Point,
    direction: &[f64],
    stopped: StopCheck<'_>,
) -> Option<Point> {
    let slope = dot(&from.gradient, direction);
    let mut step = 1.0;
    for _ in 0..HALVINGS {
        let moved = from.x.iter().zip(direction).map(|(x, d)| x + step * d).collect();
        let point = Point::at(f, moved);
        if stopped() {
            return None;
        }
        let falls = point.value <= from.value + 1e-4 * step * slope;
        let level = || {
            point.value <= from.value * (1.0 + ROUNDING)
                && dot(&point.gradient, direction) <= (2e-4 - 1.0) * slope
        };
        if falls || level() {
            return Some(point);
        }
        step *= 0.5;
    }
    None
}

/// The last steps s and the changes y of the gradient along them.
#[derive(Default)]
struct Pairs(VecDeque<(Vec<f64>, Vec<f64>)>);

impl Pairs {
    fn push(&mut self, s: Vec<f64>, y: Vec<f64>) {
        // A pair without curvature is only rounding and would spoil the estimate.
        if dot(&s, &y) <= 1e-12 * dot(&s, &s) {
            return;
        }
        if self.0.len() == MEMORY {
            self.0.pop_front();
        }
        self.0.push_back((s, y));
    }

    /// -H⁻¹ g by the two loops of algorithm 7.4.
    fn direction(&self, f: &impl Objective, gradient: &[f64]) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut steps = Vec::with_capacity(MEMORY);
        for (s, y) in self.0.iter().rev() {
            let alpha = dot(s, &q) / dot(s, y);
            add(&mut q, -alpha, y);
            steps.push(alpha);
        }
        f.precondition(&mut q);
        let scale = self.scale(f);
        q.iter_mut().for_each(|q| *q *= scale);
        for ((s, y), alpha) in self.0.iter().zip(steps.iter().rev()) {
            let beta = dot(y, &q) / dot(s, y);
            add(&mut q, alpha - beta, s);
        }
        q
    }

    /// s·y / y·H₀⁻¹y of the newest pair: scales H₀ to the latest curvature (eq. 7.20).
    fn scale(&self, f: &impl Objective) -> f64 {
        let Some((s, y)) = self.0.back() else { return 1.0 };
        let mut z = y.clone();
        f.precondition(&mut z);
        dot(s, y) / dot(y, &z)
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// y += a x
fn add(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MU: f64 = 1e-4;

    /// 1 + Σ log cosh(c_i (x_i - i)) + (μ / 2) |x - (0, 1, ...)|², badly scaled, without a
    /// preconditioner.
    struct Bowls(Vec<f64>);

    impl Objective for Bowls {
        fn value_and_gradient(&self, x: &[f64]) -> (f64, Vec<f64>) {
            let terms = || self.0.iter().zip(x).enumerate().map(|(i, (c, x))| (c, x - i as f64));
            let value = terms().map(|(c, x)| (c * x).cosh().ln() + 0.5 * MU * x * x).sum::<f64>();
            (1.0 + value, terms().map(|(c, x)| c * (c * x).tanh() + MU * x).collect())
        }

        // |∇f|² / (2 μ), as f has at least the curvature μ (Boyd and Vandenberghe 2004, eq. 9.9).
        fn above(&self, _: &[f64], _: f64, gradient: &[f64]) -> f64 {
            dot(gradient, gradient) / (2.0 * MU)
        }

        fn precondition(&self, _: &mut [f64]) {}
    }

    fn minimum(gap: f64, iterations: usize) -> (Minimum, Vec<f64>) {
        let bowls = Bowls(vec![0.05, 0.3, 1.0, 2.0, 7.0]);
        let mut x = vec![1.0; 5];
        let found = minimize(&bowls, &mut x, StopRule { gap, iterations, stopped: &|| false });
        (found, x)
    }

    #[test]
    fn a_badly_scaled_convex_function_is_minimized() {
        let (found, x) = minimum(1e-12, 200);
        assert!(found.value - 1.0 < 1e-12 && found.gap <= 1e-12, "{}", found.value);
        assert!(x.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-5), "{x:?}");
    }

    #[test]
    fn the_gap_is_never_less_than_the_true_difference() {
        for iterations in 0..30 {
            let (found, _) = minimum(1e-9, iterations);
            assert!(found.value - 1.0 <= found.gap * found.value, "after {iterations}");
            assert!(found.gap <= 1e-9 || iterations < 29);
        }
    }
}
