//! Values that are computed once and never trained, such as a fixed position table.

use crate::Tensor;
use crate::device::Device;
use std::sync::{Mutex, PoisonError};

/// A tensor without a gradient. It moves to the device that reads it. Two devices that read it in
/// turn would copy it each time.
pub struct Constant(Mutex<Tensor>);

impl Constant {
    /// A constant of this value.
    pub fn new(value: &Tensor) -> Self {
        Self(Mutex::new(value.detach()))
    }

    /// The value in the memory of the device of `other`.
    pub fn beside(&self, other: &Tensor) -> Tensor {
        self.on(other.device())
    }

    fn on(&self, device: &'static dyn Device) -> Tensor {
        // A panic elsewhere cannot leave a tensor half replaced.
        let mut value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if value.device().name() != device.name() {
            *value = value.to(device);
        }
        value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::Constant;
    use crate::naive::Naive;
    use crate::{HOST, Tensor};

    #[test]
    fn a_constant_lies_where_it_is_read() {
        let constant = Constant::new(&Tensor::from_vec([1.0, 2.0], &[2]));
        let first = constant.on(HOST).to_host().as_ptr();
        assert_eq!(constant.on(HOST).to_host().as_ptr(), first, "no copy");
        for device in [&Naive, HOST] {
            let value = constant.on(device);
            assert_eq!((value.device().name(), value.to_vec()), (device.name(), vec![1.0, 2.0]));
        }
    }
}
