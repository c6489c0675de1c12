//! `saltworks.MAE`: stage 1.

use crate::arrays::{gradient, images};
use crate::compute::{Recorded, Results, Turn};
use crate::errors::{raised, refused};
use crate::masking::{MultiBlockMasking, PatchMasking, indices};
use crate::model::{Model, ModelParts, array};
use crate::spec::{encoder_spec, normalization};
use crate::state::{Extras, reference_weights};
use crate::tokens::{Tokens, encode, patch_lists};
use crate::transformer::{Call, initial_weights};
use engine::ops::{Images, LossKind};
use engine::{Module as _, Tape};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::mask::{Masking, Masks};
use saltworks::method::{Covered, Mae, MaeOptions, Method, PixelNorm};
use saltworks::model::{Encoder, Inputs, StepKey, TransformerSpec};

/// The result of MAE.__call__.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct MAEOutput {
    /// Mean over the masked patches. 0 in eval mode.
    #[pyo3(get)]
    loss: f32,
    /// Reconstructed patches [B, N, ph pw C], including visible ones.
    #[pyo3(get)]
    predictions: Py<PyArrayDyn<f32>>,
    /// [B, N], 1 for masked patches.
    #[pyo3(get)]
    mask: Py<PyArrayDyn<f32>>,
    /// Number of masked patches of a sample.
    #[pyo3(get)]
    num_masked: usize,
    /// Number of visible patches of a sample.
    #[pyo3(get)]
    num_visible: usize,
    /// Visible patches, int64 [B, K].
    #[pyo3(get)]
    context_idx: Py<PyArrayDyn<i64>>,
    recorded: Recorded,
}

#[pymethods]
impl MAEOutput {
    /// Adds `gradient` times d loss / d p to the gradient of every weight p. `predictions` [B, N,
    /// ph pw C] is the gradient of another loss by the predictions. Then `gradient` may be None.
    #[pyo3(signature = (gradient=Some(1.0), predictions=None))]
    fn backward(
        &self,
        py: Python<'_>,
        gradient: Option<f32>,
        predictions: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let of_predictions = self::gradient("predictions", predictions, self.predictions.bind(py))?;
        let given = vec![gradient.map(|gradient| vec![gradient]), of_predictions];
        self.recorded.backward(py, given).map(drop)
    }

    fn __repr__(&self) -> String {
        let Self { loss, num_masked, num_visible, .. } = self;
        format!("MAEOutput(loss={loss}, num_masked={num_masked}, num_visible={num_visible})")
    }
}

/// Stage 1: an encoder of the visible patches and a decoder of the pixels of the others.
#[pyclass(frozen, name = "MAE", extends = Model, subclass, module = "saltworks")]
pub(crate) struct PyMae {
    method: Mae,
    masking: Masking,
}

impl PyMae {
    /// The given masks, or the next masks drawn. Every patch that is not visible is a target.
    fn masks(
        &self,
        samples: usize,
        context: Option<&Bound<'_, PyAny>>,
        key: StepKey,
    ) -> PyResult<Masks> {
        let grid = self.method.encoder().grid();
        let Some(context) = context else {
            let drawn = self.masking.sample(grid, samples, key.seed, key.step);
            return Ok(self.method.masks(drawn.map_err(raised)?));
        };
        let mut context = patch_lists("context_idx", context, samples, grid, true)?;
        context.iter_mut().for_each(|list| list.sort_unstable());
        let target = vec![Vec::new(); samples];
        let masks = Masks::of_lists(grid, context, target).with_all_others_as_target();
        Masks::new(grid, masks.context, masks.target).map_err(raised)
    }

    fn reconstructed(&self, py: Python<'_>, turn: &Turn, images: &Images) -> PyResult<MAEOutput> {
        let whole = turn.compute(py, || self.method.reconstruct(&Tape::inference(), images));
        let (samples, patches) = (images.samples(), self.method.encoder().grid().len());
        let whole = whole.map_err(raised)?;
        let every: Vec<u32> = (0..patches as u32).collect();
        Ok(MAEOutput {
            loss: 0.0,
            predictions: array(py, &whole, &[samples, patches, whole.dim(1)])?,
            mask: self.mask(py, &vec![Vec::new(); samples])?,
            num_masked: 0,
            num_visible: patches,
            context_idx: indices(py, &vec![every; samples])?.unbind(),
            recorded: Recorded::none(),
        })
    }

    /// [B, N], 1 at the targets.
    fn mask(&self, py: Python<'_>, targets: &[Vec<u32>]) -> PyResult<Py<PyArrayDyn<f32>>> {
        let patches = self.method.encoder().grid().len();
        let mut mask = vec![0.0; targets.len() * patches];
        for (row, target) in mask.chunks_exact_mut(patches).zip(targets) {
            target.iter().for_each(|&patch| row[patch as usize] = 1.0);
        }
        Ok(crate::arrays::new_array(py, mask, &[targets.len(), patches])?.unbind())
    }
}

/// The sampler of `masking`, or PatchMasking with `mask_ratio` and `block_size`.
fn masking_of(
    given: Option<&Bound<'_, PyAny>>,
    mask_ratio: f64,
    block_size: usize,
) -> PyResult<Masking> {
    let Some(given) = given else {
        return Ok(PatchMasking::new(mask_ratio, block_size, 0.0)?.masking());
    };
    if let Ok(masking) = given.cast::<MultiBlockMasking>() {
        return Ok(masking.get().masking());
    }
    if let Ok(masking) = given.cast::<PatchMasking>() {
        return Ok(masking.get().masking());
    }
    let kind = given.get_type();
    Err(refused(format!("masking is {kind}, expected MultiBlockMasking or PatchMasking")))
}

#[pymethods]
impl PyMae {
    /// Like SALT, with a pixel decoder. `loss_type` is "mse" or "smooth_l1". `norm_pix_loss`
    /// normalises the pixels of each patch. `masking` replaces `mask_ratio` and `block_size`.
    /// `initial_weights` of the decoder are "torch" or "published" (MAE's).
    #[new]
    #[pyo3(signature = (model_or_model_name="vit_base_patch16_224", decoder_embed_dim=512,
        decoder_depth=8, decoder_num_heads=16, mask_ratio=0.75, block_size=1, norm_pix_loss=true,
        loss_type="mse", masking=None, seed=0, *, normalize=None, initial_weights="torch",
        **encoder_options))]
    #[allow(clippy::too_many_arguments)] // the reference's arguments
    fn new(
        py: Python<'_>,
        model_or_model_name: &str,
        decoder_embed_dim: usize,
        decoder_depth: usize,
        decoder_num_heads: usize,
        mask_ratio: f64,
        block_size: usize,
        norm_pix_loss: bool,
        loss_type: &str,
        masking: Option<&Bound<'_, PyAny>>,
        seed: u64,
        normalize: Option<&Bound<'_, PyAny>>,
        initial_weights: &str,
        encoder_options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let spec = encoder_spec(model_or_model_name, encoder_options)?;
        let made = ModelParts::new(py, &spec, normalization(normalize, spec.channels)?, seed)?;
        made.arguments.set_item("decoder_embed_dim", decoder_embed_dim)?;
        made.arguments.set_item("decoder_depth", decoder_depth)?;
        made.arguments.set_item("decoder_num_heads", decoder_num_heads)?;
        made.arguments.set_item("mask_ratio", mask_ratio)?;
        made.arguments.set_item("block_size", block_size)?;
        made.arguments.set_item("norm_pix_loss", norm_pix_loss)?;
        made.arguments.set_item("loss_type", loss_type)?;
        made.arguments.set_item("masking", masking)?;
        let masking = masking_of(masking, mask_ratio, block_size)?;
        masking.validate(spec.grid()).map_err(raised)?;
        made.arguments.set_item("initial_weights", initial_weights)?;
        let decoder = TransformerSpec {
            width: decoder_embed_dim,
            depth: decoder_depth,
            heads: decoder_num_heads,
            initial: self::initial_weights(initial_weights)?,
        };
        decoder.check("decoder").map_err(raised)?;
        let loss = match loss_type {
            "mse" => LossKind::Mse,
            "smooth_l1" => LossKind::SmoothL1 { beta: 1.0 },
            _ => {
                let expected = "expected \"mse\" or \"smooth_l1\"";
                return Err(refused(format!("loss_type is {loss_type:?}, {expected}")));
            }
        };
        let pixel_norm = if norm_pix_loss { PixelNorm::Joint } else { PixelNorm::None };
        let options = MaeOptions { decoder, covered: Covered::AllMasked, pixel_norm, loss };
        let method = Mae::new(Encoder::new(&spec, seed), options, seed);
        let named = method.parameters();
        let extras = Extras::beside(&named, spec.grid());
        let model = Model::new(py, reference_weights(named), 0, extras, made)?;
        Ok(PyClassInitializer::from(model).add_subclass(Self { method, masking }))
    }

    /// `images` [B, C, H, W], float32 (normalised) or uint8. In training mode `context_idx` [K] or
    /// [B, K] (patch indices, in any order) fixes the visible patches. `record=False`
    /// computes the loss without a backward pass. `drop_path=False` keeps all blocks.
    #[pyo3(signature = (images, *, context_idx=None, record=true, drop_path=true))]
    fn __call__(
        slf: &Bound<'_, Self>,
        images: &Bound<'_, PyAny>,
        context_idx: Option<&Bound<'_, PyAny>>,
        record: bool,
        drop_path: bool,
    ) -> PyResult<MAEOutput> {
        let (py, this, model) = (slf.py(), slf.get(), slf.as_super().get());
        let images = self::images(images, model.bytes(), this.method.encoder().spec())?;
        if !model.is_training() {
            return this.reconstructed(py, model.turn(), &images);
        }
        let key = model.next_key();
        let masks = this.masks(images.samples(), context_idx, key)?;
        let ((step, all), recorded) = model.turn().record(py, record, |tape| {
            let (step, all) =
                this.method.step_with_all(tape, &images, &masks, drop_path.then_some(key))?;
            let results = Results::of([step.loss.clone(), all.clone()]);
            Ok(((step, all), results))
        })?;
        let shape = [images.samples(), masks.grid.len(), all.dim(1)];
        Ok(MAEOutput {
            loss: step.loss.item(),
            predictions: array(py, &all, &shape)?,
            mask: this.mask(py, &masks.target)?,
            num_masked: masks.target[0].len(),
            num_visible: masks.context[0].len(),
            context_idx: indices(py, &masks.context)?.unbind(),
            recorded,
        })
    }

    /// [`Self::__call__`], under the name in torch's modules.
    #[pyo3(signature = (images, *, context_idx=None, record=true, drop_path=true))]
    fn forward(
        slf: &Bound<'_, Self>,
        images: &Bound<'_, PyAny>,
        context_idx: Option<&Bound<'_, PyAny>>,
        record: bool,
        drop_path: bool,
    ) -> PyResult<MAEOutput> {
        Self::__call__(slf, images, context_idx, record, drop_path)
    }

    /// All tokens of the encoder, of whole `images` or of some `patches`. See Encoder.encode. With
    /// `training`, blocks are left out at random, as in the next step.
    #[pyo3(signature = (part, images, patches=None, *, training=false, record=true))]
    fn encode(
        slf: &Bound<'_, Self>,
        part: &str,
        images: &Bound<'_, PyAny>,
        patches: Option<&Bound<'_, PyAny>>,
        training: bool,
        record: bool,
    ) -> PyResult<Tokens> {
        if part != "encoder" {
            return Err(refused(format!("part is {part:?}, expected \"encoder\"")));
        }
        let model = slf.as_super().get();
        let key = training.then(|| model.next_part_key());
        encode(slf.py(), model, slf.get().method.encoder(), (images, patches), key, record)
    }

    /// The decoder: `context` [B, K, D] at the patches `context_idx` [B, K], and `queries` [B, M,
    /// D] at the patches `query_idx` [B, M]. Without `queries`, the mask token. See Transformer.
    #[pyo3(signature = (context, queries, context_idx, query_idx, *, every=false, record=true))]
    fn transform(
        slf: &Bound<'_, Self>,
        context: &Bound<'_, PyAny>,
        queries: Option<&Bound<'_, PyAny>>,
        context_idx: &Bound<'_, PyAny>,
        query_idx: &Bound<'_, PyAny>,
        every: bool,
        record: bool,
    ) -> PyResult<Tokens> {
        let (decoder, model) = (slf.get().method.decoder(), slf.as_super().get());
        let patches = (context_idx, query_idx);
        let sizes = (model.patch_grid(), slf.get().method.encoder().spec().width);
        let call = Call::new(sizes, context, queries, patches, every)?;
        call.run(slf.py(), model, record, |tape, context, queries, masks, positions| {
            let Some(queries) = queries.filter(|queries| queries.rows() > 0) else {
                return decoder.forward(tape, context, masks, positions, None);
            };
            let query = &decoder.transformer().query(tape, queries)?;
            let inputs = Inputs { context, query, masks };
            decoder.transformer().forward(tape, &inputs, positions, None)
        })
    }

    fn __repr__(&self) -> String {
        let spec = self.method.encoder().spec();
        format!("MAE(embed_dim={}, depth={}, grid={})", spec.width, spec.depth, spec.grid())
    }
}
