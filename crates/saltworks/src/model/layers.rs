//! Linear layers and norms under their parameter names.

use engine::random::Random;
use engine::{Module, Parameter, Result, Tape, Tensor, init, ops};

/// Joins a prefix and a name with a dot. An empty prefix adds no dot.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Initial weights of a linear layer.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Truncated normal of deviation 0.02, zero bias: timm's ViT.
    TruncNormal,
    /// Xavier uniform, zero bias: MAE's decoder (facebookresearch/mae, models_mae.py).
    Xavier,
    /// Uniform within 1/√fan_in, also for the bias: torch.nn.Linear's default.
    Torch,
}

/// y = x wᵀ + b
pub(crate) struct Linear {
    pub(crate) weight: Parameter,
    pub(crate) bias: Parameter,
}

impl Linear {
    pub(crate) fn new(input: usize, output: usize, start: Start, random: &mut Random) -> Self {
        let values = match start {
            Start::TruncNormal => init::trunc_normal(random, input * output, 0.02),
            Start::Xavier => init::xavier_uniform(random, input * output, input, output),
            Start::Torch => init::fan_in_uniform(random, input * output, input),
        };
        let bias = match start {
            Start::TruncNormal | Start::Xavier => Tensor::zeros(&[output]),
            Start::Torch => {
                Tensor::from_vec(init::fan_in_uniform(random, output, input), &[output])
            }
        };
        Self {
            weight: Parameter::new("weight", Tensor::from_vec(values, &[output, input])),
            bias: Parameter::new("bias", bias),
        }
    }

    /// x [R, I] -> [R, O]
    pub(crate) fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        ops::linear(tape, x, &self.weight.tensor(), Some(&self.bias.tensor()))
    }

    /// Only the outputs `rows` of the layer: x [R, I] -> [R, rows]
    pub(crate) fn part(
        &self,
        tape: &Tape,
        x: &Tensor,
        rows: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let weight = self.weight.tensor().narrow(rows.clone())?;
        ops::linear(tape, x, &weight, Some(&self.bias.tensor().narrow(rows)?))
    }
}

impl Module for Linear {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        f(&join(prefix, "weight"), &self.weight);
        f(&join(prefix, "bias"), &self.bias);
    }
}

/// Layer norm with weight and bias.
pub(crate) struct Norm {
    weight: Parameter,
    bias: Parameter,
    eps: f32,
}

impl Norm {
    pub(crate) fn new(width: usize, eps: f32) -> Self {
        Self {
            weight: Parameter::new("weight", Tensor::from_vec(vec![1.0; width], &[width])),
            bias: Parameter::new("bias", Tensor::zeros(&[width])),
            eps,
        }
    }

    /// x [R, D] -> [R, D]
    pub(crate) fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        let affine = (&self.weight.tensor(), &self.bias.tensor());
        ops::layer_norm(tape, x, Some(affine), self.eps)
    }

    /// Normalises each head within `columns` of x [R, S].
    pub(crate) fn by_head(
        &self,
        tape: &Tape,
        x: &Tensor,
        columns: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        ops::head_norm(tape, x, columns, weight.len(), &weight, &bias, self.eps)
    }
}

impl Module for Norm {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        f(&join(prefix, "weight"), &self.weight);
        f(&join(prefix, "bias"), &self.bias);
    }
}
