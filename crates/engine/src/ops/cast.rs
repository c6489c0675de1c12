//! y = x in another type, rounded if it is narrower.

use crate::tape::Gradients;
use crate::{Dtype, Tape, Tensor};

/// x as `dtype`: x itself if it is stored so. The gradient is cast back.
pub fn cast(tape: &Tape, x: &Tensor, dtype: Dtype) -> Tensor {
    if x.dtype() == dtype {
        return x.clone();
    }
    let y = tape.run("cast", || x.cast(dtype));
    let backward = {
        let x = x.clone();
        move |gradients: &mut Gradients, dy: Tensor| gradients.add(&x, dy.cast(x.dtype()))
    };
    tape.record("cast", y, &[x], backward)
}
