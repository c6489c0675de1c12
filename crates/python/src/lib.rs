//! The Python module `saltworks`: thin classes over crates/saltworks. If stable-pretraining 0.1.8
//! has a class, its names and arguments are used.

mod arrays;
mod compute;
mod encoder;
mod errors;
mod loader;
mod mae;
mod masking;
mod model;
mod optimizer;
mod parameter;
mod pretrain;
mod salt;
mod spec;
mod state;
mod tokens;
mod transformer;

use pyo3::prelude::*;

#[pymodule]
fn _saltworks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<mae::PyMae>()?;
    module.add_class::<mae::MAEOutput>()?;
    module.add_class::<salt::PySalt>()?;
    module.add_class::<salt::SALTOutput>()?;
    module.add_class::<parameter::Parameter>()?;
    module.add_class::<masking::MultiBlockMasking>()?;
    module.add_class::<masking::PatchMasking>()?;
    module.add_class::<encoder::Encoder>()?;
    module.add_class::<encoder::Features>()?;
    module.add_class::<tokens::Tokens>()?;
    module.add_class::<transformer::PyTransformer>()?;
    module.add_class::<loader::Loader>()?;
    module.add_class::<optimizer::AdamW>()?;
    module.add_function(wrap_pyfunction!(optimizer::clip_grad_norm, module)?)?;
    module.add_function(wrap_pyfunction!(model::encoder_weights, module)?)?;
    module.add_function(wrap_pyfunction!(model::student_of_checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(pretrain::pretrain, module)?)?;
    module.add_function(wrap_pyfunction!(masking::multi_block_mask, module)?)
}
