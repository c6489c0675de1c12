//! What tests hold results against: another computation within an argued tolerance, and finite
//! differences of the forward pass.

use crate::device::Device;
use crate::random::Random;
use crate::{Parameter, Result, Tape, Tensor};

/// How far a result may be from what it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// ‖got - want‖ / ‖want‖
    RelativeL2(f64),
    /// max |got - want|
    Absolute(f64),
    /// The same bits.
    Exact,
}

/// ‖got - want‖ / ‖want‖ at most `bound`.
pub fn rel_l2(bound: f64) -> Tolerance {
    Tolerance::RelativeL2(bound)
}

/// max |got - want| at most `bound`.
pub fn max_abs(bound: f64) -> Tolerance {
    Tolerance::Absolute(bound)
}

/// Panics unless `got` is within `tolerance` of `want`; `why` argues the tolerance and is shown.
/// A NaN is never close, and an all-zero `want` only to zeros in the relative measure.
pub fn assert_close<G, W>(name: &str, got: &[G], want: &[W], tolerance: Tolerance, why: &str)
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    assert_eq!(got.len(), want.len(), "{name}: number of values");
    let pairs = || got.iter().zip(want).map(|(&g, &w)| (g.into(), w.into()));
    let norm = |squares: f64| squares.sqrt();
    let difference = norm(pairs().map(|(g, w)| (g - w) * (g - w)).sum());
    let size = norm(pairs().map(|(_, w)| w * w).sum());
    let close = match tolerance {
        Tolerance::RelativeL2(bound) => difference <= bound * size,
        Tolerance::Absolute(bound) => pairs().all(|(g, w)| (g - w).abs() <= bound),
        Tolerance::Exact => pairs().all(|(g, w)| g.to_bits() == w.to_bits()),
    };
    if close {
        return;
    }
    // NaN counts as the farthest: total_cmp puts it above every number.
    let far = |(g, w): (f64, f64)| (g - w).abs();
    let worst = pairs().enumerate().max_by(|(_, a), (_, b)| far(*a).total_cmp(&far(*b)));
    panic!(
        "{name}: relative L2 error {:.3e}, allowed {tolerance:?} ({why}); \
         farthest (index, (got, want)): {worst:?}",
        difference / size
    );
}

/// Normal values of standard deviation 1 under this name.
pub fn normal(name: &str, shape: &[usize]) -> Tensor {
    // FNV-like: different names give different streams.
    let index = name.bytes().fold(7_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    let mut random = Random::new(0, "check", index);
    let len = shape.iter().product();
    Tensor::from_vec((0..len).map(|_| random.normal()).collect::<Vec<_>>(), shape)
}

/// Makes a test on each device of every function of the list, which takes the device.
#[macro_export]
macro_rules! on_every_device {
    ($($(#[$meta:meta])* $test:ident),+ $(,)?) => {
        mod cpu {
            $($(#[$meta])* #[test] fn $test() { super::$test(&$crate::cpu::Cpu) })+
        }
        mod naive {
            $($(#[$meta])* #[test] fn $test() { super::$test(&$crate::naive::Naive) })+
        }
    };
}

/// Directions tried for each input.
const DIRECTIONS: u64 = 4;

/// Step along a direction, relative to the input's root mean square.
///
/// The difference quotient is of fourth order. Its truncation error is h⁴/30 times the fifth
/// derivative: 5e-9 here. Its rounding error is about 1.5 · 2⁻²⁴/h = 4e-6 of the size of the
/// weighted outputs. Both are far below [`TOLERANCE`].
const STEP: f64 = 2e-2;

/// Error allowed, relative to the gradient's length: 100 times the errors above, for ops whose
/// output is large beside its gradient or whose fifth derivative is; a wrong term, factor or tail
/// element shows as 1e-2 or more.
const TOLERANCE: f64 = 5e-4;

/// Panics unless the gradients that `op` records are those of its forward pass.
///
/// `op` maps tensors like `inputs`, which are moved to `device`, to one tensor y. The loss is Σ c y
/// with fixed random c, summed in f64. For each input alone and several random directions v of ±1,
/// the gradient's product with v must equal the central difference of the loss along v. Also, a
/// second backward pass adds, and an input alone gets the same gradient as together with others.
pub fn assert_gradients(
    device: &'static dyn Device,
    name: &str,
    inputs: &[(&str, Tensor)],
    op: impl Fn(&Tape, &[Tensor]) -> Result<Tensor>,
) {
    let values: Vec<Tensor> = inputs.iter().map(|(_, value)| value.to(device)).collect();
    let all: Vec<usize> = (0..inputs.len()).collect();
    let y = run(name, &Tape::inference(), &values, &op);
    let c = normal(name, y.shape());
    let sums = gradients(name, &values, &all, &c, &op);
    // Rounding of the loss: each output is right to a few units in the last place.
    let squares: f64 = products(&y, &c).iter().map(|term| term * term).sum();
    let rounding = 4.0 * 2_f64.powi(-24) * squares.sqrt();
    for (index, (input, _)) in inputs.iter().enumerate() {
        let subject = format!("{name}: gradient of {input}");
        let alone = gradients(name, &values, &[index], &c, &op);
        assert_close(&subject, &alone[0], &sums[index], Tolerance::Exact, "alone and together");
        for direction in 0..DIRECTIONS {
            let v = signs(&subject, direction, values[index].len());
            let loss = |h: f64| weighted_loss(name, &values, (index, &v, h), &c, &op);
            compare(&subject, &values[index], &sums[index], &v, rounding, loss);
        }
    }
}

fn run(
    name: &str,
    tape: &Tape,
    values: &[Tensor],
    op: &impl Fn(&Tape, &[Tensor]) -> Result<Tensor>,
) -> Tensor {
    op(tape, values).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Gradients of Σ c y with respect to the inputs numbered in `tracked`, after checking that a
/// second pass doubles them.
fn gradients(
    name: &str,
    values: &[Tensor],
    tracked: &[usize],
    c: &Tensor,
    op: &impl Fn(&Tape, &[Tensor]) -> Result<Tensor>,
) -> Vec<Vec<f32>> {
    let parameters: Vec<_> =
        tracked.iter().map(|&i| (i, Parameter::new(name, values[i].clone()))).collect();
    let mut passes = Vec::new();
    for _ in 0..2 {
        let tape = Tape::new();
        let mut tensors = values.to_vec();
        parameters.iter().for_each(|(i, parameter)| tensors[*i] = parameter.tensor());
        let y = run(name, &tape, &tensors, op);
        let loss = weighted_sum(&tape, &y, c);
        tape.backward(&loss).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = |(i, p): &(usize, Parameter)| {
            let grad = p.grad().unwrap_or_else(|| panic!("{name}: input {i} got no gradient"));
            assert_eq!(grad.shape(), values[*i].shape(), "{name}: gradient of input {i}");
            grad.to_vec()
        };
        passes.push(parameters.iter().map(read).collect::<Vec<_>>());
    }
    for (once, twice) in passes[0].iter().zip(&passes[1]) {
        let double: Vec<f32> = once.iter().map(|g| 2.0 * g).collect();
        let why = "a kernel may begin its f32 sum from the earlier gradient";
        assert_close(&format!("{name}: two passes"), twice, &double, rel_l2(1e-6), why);
    }
    passes.swap_remove(0)
}

/// Σ c y as a loss whose gradient is c itself. y and c of one shape.
fn weighted_sum(tape: &Tape, y: &Tensor, c: &Tensor) -> Tensor {
    let sum = products(y, c).iter().sum::<f64>() as f32;
    let sum = Tensor::from_vec([sum], &[1]).to(y.device());
    let (target, c) = (y.clone(), c.to(y.device()));
    tape.record("weighted_sum", sum, &[y], move |gradients, _| gradients.add(&target, c))
}

/// Σ c y in f64, input `index` moved by h v.
fn weighted_loss(
    name: &str,
    values: &[Tensor],
    (index, v, h): (usize, &[f64], f64),
    c: &Tensor,
    op: &impl Fn(&Tape, &[Tensor]) -> Result<Tensor>,
) -> f64 {
    let mut moved = values.to_vec();
    let x = &values[index];
    let sum: Vec<f32> =
        x.to_host().iter().zip(v).map(|(&x, v)| (f64::from(x) + h * v) as f32).collect();
    moved[index] = Tensor::from_vec(sum, x.shape()).to(x.device());
    let y = run(name, &Tape::inference(), &moved, op);
    products(&y, c).iter().sum()
}

/// c y of each element.
fn products(y: &Tensor, c: &Tensor) -> Vec<f64> {
    let (y, c) = (y.to_host(), c.to_host());
    y.iter().zip(c.iter()).map(|(&y, &c)| f64::from(y) * f64::from(c)).collect()
}

/// Compares gradient · v with the fourth-order central difference of `loss`.
fn compare(
    subject: &str,
    x: &Tensor,
    gradient: &[f32],
    v: &[f64],
    rounding: f64,
    loss: impl Fn(f64) -> f64,
) {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let scale = (x.to_host().iter().map(square).sum::<f64>() / x.len() as f64).sqrt();
    let h = STEP * if scale > 0.0 { scale } else { 1.0 };
    let numeric = (8.0 * (loss(h) - loss(-h)) - (loss(2.0 * h) - loss(-2.0 * h))) / (12.0 * h);
    let analytic: f64 = gradient.iter().zip(v).map(|(&g, v)| f64::from(g) * v).sum();
    let length = gradient.iter().map(square).sum::<f64>().sqrt();
    let allowed = TOLERANCE * length + rounding / h;
    assert!(
        (numeric - analytic).abs() <= allowed,
        "{subject}: along a random direction it is {analytic:.8e}, finite differences give \
         {numeric:.8e}; allowed difference {allowed:.2e}, length of the gradient {length:.3e}"
    );
}

/// Random signs: every element moves by the same amount, so none crosses a kink that keeps its
/// distance.
fn signs(subject: &str, direction: u64, len: usize) -> Vec<f64> {
    let noise = normal(&format!("{subject} {direction}"), &[len]);
    noise.to_host().iter().map(|&n| 1_f64.copysign(f64::from(n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    /// y = x³ with a gradient of `factor` x² dy.
    fn cube(tape: &Tape, x: &Tensor, factor: f32) -> Tensor {
        let map = |f: &dyn Fn(f32) -> f32| x.to_host().iter().map(|&x| f(x)).collect::<Vec<_>>();
        let (y, slope) = (map(&|x| x * x * x), map(&|x| factor * x * x));
        let input = x.clone();
        tape.record("cube", Tensor::from_vec(y, x.shape()), &[x], move |gradients, dy| {
            let dx =
                slope.iter().zip(dy.to_host().iter()).map(|(s, dy)| s * dy).collect::<Vec<_>>();
            gradients.add(&input, Tensor::from_vec(dx, dy.shape()))
        })
    }

    #[test]
    fn assert_gradients_accepts_the_right_gradient_and_finds_one_off_by_a_hundredth() {
        let x = normal("x", &[6, 11]);
        let check = |factor: f32| {
            assert_gradients(crate::HOST, "cube", &[("x", x.clone())], |tape, t| {
                Ok(cube(tape, &t[0], factor))
            });
        };
        check(3.0);
        assert!(catch_unwind(|| check(3.03)).is_err());
    }

    #[test]
    fn assert_close_measures_as_it_says_and_refuses_nan() {
        let refuses = |got: f32, tolerance| {
            catch_unwind(|| assert_close("v", &[got, 2.0], &[1.0_f32, 2.0], tolerance, "")).is_err()
        };
        // ‖(0.01, 0)‖ / ‖(1, 2)‖ = 0.00447
        assert!(!refuses(1.01, rel_l2(4.5e-3)) && refuses(1.01, rel_l2(4.4e-3)));
        assert!(!refuses(1.01, max_abs(0.0101)) && refuses(1.01, max_abs(0.0099)));
        assert!(!refuses(1.0, Tolerance::Exact) && refuses(1.000_001, Tolerance::Exact));
        assert!(refuses(f32::NAN, rel_l2(1.0)) && refuses(f32::NAN, max_abs(1.0)));
    }
}
