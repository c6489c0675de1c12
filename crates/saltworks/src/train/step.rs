//! The optimizer step: gradient norm, clipping, AdamW.

use engine::optim::{AdamW, clip_grad_norm, decays_by_default, grad_norm, zero_grad};
use engine::{Parameter, Result, Tensor};

/// Settings of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// β1, β2
    pub betas: (f64, f64),
    /// ε
    pub eps: f32,
    /// Largest allowed L2 norm of the gradient.
    pub clip: Option<f32>,
    /// Whether every parameter decays, as in the reference. If not, only matrices decay.
    pub decay_all: bool,
}

/// AdamW over all trained parameters.
pub struct Optimizer {
    parameters: Vec<(String, Parameter)>,
    adamw: AdamW,
    options: OptimizerOptions,
}

impl Optimizer {
    /// A new optimizer, before its first step.
    pub fn new(parameters: Vec<(String, Parameter)>, options: OptimizerOptions) -> Self {
        Self { parameters, adamw: AdamW::new(options.betas, options.eps), options }
    }

    /// The trained parameters by name.
    pub fn parameters(&self) -> &[(String, Parameter)] {
        &self.parameters
    }

    /// AdamW's moments: (parameter name, first, second, updates).
    pub fn moments(&self) -> impl Iterator<Item = (&str, &Tensor, &Tensor, u64)> {
        self.adamw.state()
    }

    /// Restores the moments of one parameter.
    pub fn restore(
        &mut self,
        name: &str,
        first: &Tensor,
        second: &Tensor,
        updates: u64,
    ) -> Result<()> {
        self.adamw.restore(name, first, second, updates)
    }

    /// Clears all gradients.
    pub fn zero_grad(&self) {
        zero_grad(self.parameters.iter().map(|(_, parameter)| parameter));
    }

    /// Applies the gradients and returns the norm they had before clipping. A gradient that is not
    /// finite is an error, and nothing is applied.
    pub fn step(&mut self, lr: f64, weight_decay: f64) -> Result<f32> {
        let norm = match self.options.clip {
            Some(most) => clip_grad_norm(&self.parameters, most)?,
            None => grad_norm(&self.parameters)?,
        };
        let decay_all = self.options.decay_all;
        self.adamw.step(self.parameters.iter().map(|(name, parameter)| {
            let decayed = decay_all || decays_by_default(name, &parameter.shape());
            let decay = if decayed { weight_decay } else { 0.0 };
            (name.as_str(), parameter, lr as f32, decay as f32)
        }));
        Ok(norm)
    }
}
