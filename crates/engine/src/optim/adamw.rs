//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), the arithmetic of
//! torch.optim.AdamW.

use crate::device::AdamWStep;
use crate::{Error, Parameter, Result, Tensor};
use std::collections::BTreeMap;

/// The optimizer and its moments, kept by parameter name.
pub struct AdamW {
    betas: (f64, f64),
    eps: f32,
    moments: BTreeMap<String, MomentPair>,
}

struct MomentPair {
    first: Tensor,
    second: Tensor,
    step: u64,
}

impl AdamW {
    /// No update made yet.
    pub fn new(betas: (f64, f64), eps: f32) -> Self {
        Self { betas, eps, moments: BTreeMap::new() }
    }

    /// Updates each parameter that has a gradient: (name, parameter, learning rate, weight decay).
    /// The moments are kept by name, so names must differ from one another.
    pub fn step<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (&'a str, &'a Parameter, f32, f32)>,
    ) {
        for (name, parameter, lr, weight_decay) in updates {
            let (betas, eps, moments) = (self.betas, self.eps, &mut self.moments);
            parameter.update(|value, grad| {
                let moments = moments.entry(name.to_owned()).or_insert_with(|| {
                    let zeros = || Tensor::lasting_zeros(grad.device(), grad.shape());
                    MomentPair { first: zeros(), second: zeros(), step: 0 }
                });
                moments.step += 1;
                let step = AdamWStep { lr, betas, eps, weight_decay, step: moments.step };
                moments.first.make_unique();
                moments.second.make_unique();
                // make_unique left both the only handles.
                let first = moments.first.view_mut().expect("a unique moment");
                let second = moments.second.view_mut().expect("a unique moment");
                grad.device().adamw(value, first, second, grad.view(), step);
            });
        }
    }

    /// The moments and update counts: (parameter name, first, second, updates).
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor, &Tensor, u64)> {
        self.moments.iter().map(|(name, m)| (name.as_str(), &m.first, &m.second, m.step))
    }

    /// Restores one parameter's moments, of the shape of its value.
    pub fn restore(
        &mut self,
        name: &str,
        first: &Tensor,
        second: &Tensor,
        step: u64,
    ) -> Result<()> {
        if first.shape() != second.shape() {
            return Err(Error::State(format!(
                "the moments of {name} are {:?} and {:?}, expected one shape",
                first.shape(),
                second.shape()
            )));
        }
        let (first, second) = (first.lasting(), second.lasting());
        self.moments.insert(name.to_owned(), MomentPair { first, second, step });
        Ok(())
    }
}

/// Whether a parameter is decayed by default: matrices are; biases, norms, layer scales, class and
/// mask tokens and position tables are not (timm's and V-JEPA's groups).
pub fn decays_by_default(name: &str, shape: &[usize]) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let table = last.ends_with("token") || last.ends_with("tokens") || last.contains("pos_embed");
    shape.len() > 1 && !table
}
