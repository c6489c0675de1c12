//! Tokens of an encoder or a transformer, and their backward pass.

use crate::arrays::{gradient, images, new_array, patches};
use crate::compute::{Recorded, Results};
use crate::errors::refused;
use crate::model::{Model, array};
use numpy::{PyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use saltworks::mask::{Grid, TokenIndex};
use saltworks::model::{Encoder, Outputs, Patches, StepKey};

/// Tokens [B, L, D].
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Tokens {
    /// The tokens [B, L, D].
    #[pyo3(get)]
    tokens: Py<PyArrayDyn<f32>>,
    /// Shapes of the inputs that get a gradient.
    inputs: Vec<Vec<usize>>,
    recorded: Recorded,
}

impl Tokens {
    pub(crate) fn new(
        tokens: Py<PyArrayDyn<f32>>,
        inputs: Vec<Vec<usize>>,
        recorded: Recorded,
    ) -> Self {
        Self { tokens, inputs, recorded }
    }
}

/// The gradient of each input.
type InputArrays<'py> = Vec<Option<Bound<'py, PyArrayDyn<f32>>>>;

#[pymethods]
impl Tokens {
    /// `gradient` [B, L, D] is that of the tokens. Adds the gradient of every weight, and returns a
    /// list with the gradient of each input other than images. It is None for an input that the
    /// tokens do not depend on.
    fn backward<'py>(
        &self,
        py: Python<'py>,
        gradient: &Bound<'py, PyAny>,
    ) -> PyResult<InputArrays<'py>> {
        let given = self::gradient("gradient", Some(gradient), self.tokens.bind(py))?;
        let inputs = self.recorded.backward(py, vec![given])?.into_iter().zip(&self.inputs);
        let arrays = inputs.map(|(dx, shape)| dx.map(|dx| new_array(py, dx, shape)).transpose());
        arrays.collect()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("Tokens(tokens={:?})", self.tokens.bind(py).shape())
    }
}

/// The lists of patches of each sample, in any order. Refuses a patch that is not in the grid, and
/// with `once` one that is given twice.
pub(crate) fn patch_lists(
    name: &str,
    given: &Bound<'_, PyAny>,
    samples: usize,
    grid: Grid,
    once: bool,
) -> PyResult<Vec<TokenIndex>> {
    let lists = patches(name, given, samples)?;
    for (sample, list) in lists.iter().enumerate() {
        let mut seen = vec![false; grid.len()];
        for &patch in list {
            let (patch, count) = (patch as usize, grid.len());
            let problem = match seen.get_mut(patch) {
                None => format!("{patch}, which is outside the {grid} grid of {count} patches"),
                Some(true) if once => format!("{patch} twice"),
                Some(seen) => {
                    *seen = true;
                    continue;
                }
            };
            return Err(refused(format!("{name} of sample {sample} holds {problem}")));
        }
    }
    Ok(lists)
}

/// Encodes images [B, C, H, W], or only the patches `given` [K] or [B, K] of them.
pub(crate) fn encode(
    py: Python<'_>,
    model: &Model,
    vit: &Encoder,
    (images, given): (&Bound<'_, PyAny>, Option<&Bound<'_, PyAny>>),
    key: Option<StepKey>,
    record: bool,
) -> PyResult<Tokens> {
    let images = self::images(images, model.bytes(), vit.spec())?;
    let samples = images.samples();
    let lists =
        given.map(|given| patch_lists("patches", given, samples, vit.grid(), true)).transpose()?;
    if lists.iter().flatten().any(Vec::is_empty) {
        return Err(refused("patches are empty, expected at least one of each sample"));
    }
    let (tokens, recorded) = model.turn().record(py, record, |tape| {
        let patches = lists.as_deref().map_or(Patches::All, Patches::Some);
        let tokens = vit.forward(tape, &images, patches, Outputs::All, key)?.tokens;
        Ok((tokens.clone(), Results::of([tokens])))
    })?;
    let shape = [samples, tokens.rows() / samples, tokens.dim(1)];
    Ok(Tokens::new(array(py, &tokens, &shape)?, Vec::new(), recorded))
}
