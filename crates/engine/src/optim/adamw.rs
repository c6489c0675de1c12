//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), the arithmetic of
//! torch.optim.AdamW.

use crate::device::{AdamWOperands, AdamWStep, Device, View, ViewMut};
use crate::{Error, Parameter, Result, Tensor};
use std::collections::{BTreeMap, HashMap};

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

impl MomentPair {
    fn new(device: &'static dyn Device, shape: &[usize]) -> Self {
        let zeros = || Tensor::lasting_zeros(device, shape);
        Self { first: zeros(), second: zeros(), step: 0 }
    }

    fn operands<'a>(
        &'a mut self,
        value: ViewMut<'a>,
        grad: View<'a>,
        step: AdamWStep,
    ) -> AdamWOperands<View<'a>, ViewMut<'a>> {
        self.first.make_unique();
        self.second.make_unique();
        // make_unique left both the only handles.
        let first = self.first.view_mut().expect("a unique moment");
        let second = self.second.view_mut().expect("a unique moment");
        AdamWOperands { value, first, second, grad, step }
    }
}

impl AdamW {
    /// No update made yet.
    pub fn new(betas: (f64, f64), eps: f32) -> Self {
        Self { betas, eps, moments: BTreeMap::new() }
    }

    /// Updates each parameter that has a gradient: (name, parameter, learning rate, weight decay).
    /// The moments are kept by name, so names must differ from one another, and each parameter must
    /// be listed once. The parameters are locked meanwhile: no task of the same thread pool may
    /// read them.
    pub fn step<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (&'a str, &'a Parameter, f32, f32)>,
    ) {
        let updates: Vec<_> = updates.into_iter().collect();
        let mut locked = Parameter::lock_all(updates.iter().map(|(_, parameter, ..)| *parameter));
        let Some(device) = locked.first().map(|state| state.device()) else { return };
        for ((name, ..), state) in updates.iter().zip(&locked) {
            if state.has_grad() && !self.moments.contains_key(*name) {
                self.moments.insert((*name).to_owned(), MomentPair::new(device, state.shape()));
            }
        }
        let (betas, eps) = (self.betas, self.eps);
        let mut moments: HashMap<&str, &mut MomentPair> =
            self.moments.iter_mut().map(|(name, pair)| (name.as_str(), pair)).collect();
        let mut operands = Vec::with_capacity(updates.len());
        for ((name, _, lr, weight_decay), state) in updates.into_iter().zip(&mut locked) {
            let Some((value, grad)) = state.value_and_grad() else { continue };
            let pair = moments.remove(name);
            let pair = pair.unwrap_or_else(|| panic!("{name} is the name of two parameters"));
            pair.step += 1;
            let step = AdamWStep { lr, betas, eps, weight_decay, step: pair.step };
            operands.push(pair.operands(value, grad, step));
        }
        device.adamw(operands);
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
