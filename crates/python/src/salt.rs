//! `saltworks.SALT`: stage 2.

use crate::arrays::{gradient, images};
use crate::compute::{Recorded, Results, Turn};
use crate::errors::{raised, refused};
use crate::masking::{Indices, MultiBlockMasking, Pair, indices};
use crate::model::{Model, ModelParts, array, model_of, student_of_checkpoint};
use crate::spec::{encoder_spec, normalization};
use crate::state::{Extras, reference_weights, unread};
use crate::tokens::{Tokens, encode, patch_lists};
use crate::transformer::{Call, initial_weights};
use engine::ops::{Images, LossKind};
use engine::{Module, Tape, Tensor};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyType};
use saltworks::mask::{Masking, Masks};
use saltworks::method::{Method, Salt, SaltOptions, Step};
use saltworks::model::{
    EncodedTokens, Encoder, Outputs, Patches, StepKey, TransformerSpec, VitSpec,
};
use saltworks::weights;
use std::path::PathBuf;

/// The result of SALT.__call__.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct SALTOutput {
    /// L1 between predicted and teacher's latents. 0 in eval mode.
    #[pyo3(get)]
    loss: f32,
    /// Class token of the student [B, D].
    #[pyo3(get)]
    embedding: Py<PyArrayDyn<f32>>,
    /// Predicted latents [B, M, D]. None in eval mode.
    #[pyo3(get)]
    predictions: Option<Py<PyArrayDyn<f32>>>,
    /// The teacher's latents [B, M, D]. None in eval mode.
    #[pyo3(get)]
    targets: Option<Py<PyArrayDyn<f32>>>,
    /// M, the number of target patches of a sample. 0 in eval mode.
    #[pyo3(get)]
    num_targets: usize,
    /// K, the number of context patches of a sample. In eval mode it is the number of all patches.
    #[pyo3(get)]
    num_context: usize,
    /// Patches that the student saw, int64 [B, K]. None in eval mode.
    #[pyo3(get)]
    context_idx: Option<Py<PyArrayDyn<i64>>>,
    /// Predicted patches, int64 [B, M]. None in eval mode.
    #[pyo3(get)]
    target_idx: Option<Py<PyArrayDyn<i64>>>,
    recorded: Recorded,
}

#[pymethods]
impl SALTOutput {
    /// Adds `gradient` times d loss / d p to the gradient of every weight p of student and
    /// predictor. `predictions` [B, M, D] is the gradient of another loss by the predictions. Then
    /// `gradient` may be None.
    #[pyo3(signature = (gradient=Some(1.0), predictions=None))]
    fn backward(
        &self,
        py: Python<'_>,
        gradient: Option<f32>,
        predictions: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let of_predictions = match &self.predictions {
            Some(made) => self::gradient("predictions", predictions, made.bind(py))?,
            None => None,
        };
        let given = vec![gradient.map(|gradient| vec![gradient]), of_predictions];
        self.recorded.backward(py, given).map(drop)
    }

    fn __repr__(&self) -> String {
        let Self { loss, num_targets, num_context, .. } = self;
        format!("SALTOutput(loss={loss}, num_targets={num_targets}, num_context={num_context})")
    }
}

/// Stage 2 of SALT: a frozen teacher, a student that sees the context patches, and a predictor of
/// the teacher's latents at the target patches.
#[pyclass(frozen, name = "SALT", extends = Model, subclass, module = "saltworks")]
pub(crate) struct PySalt {
    method: Salt,
    masking: Masking,
    embedding: Embedding,
}

/// What `embedding` is for an encoder without a class token.
#[derive(Clone, Copy)]
enum Embedding {
    /// The mean of the patch tokens.
    Mean,
    /// The first token, which is the first patch or register. stable-pretraining's.
    FirstToken,
}

impl Embedding {
    fn named(name: &str) -> PyResult<Self> {
        match name {
            "mean" => Ok(Self::Mean),
            "first_token" => Ok(Self::FirstToken),
            _ => Err(refused(format!(
                "embedding is {name:?}, expected \"mean\" or \"first_token\": what represents an \
                 image whose encoder has no class token"
            ))),
        }
    }

    /// The embedding [B, D] of encoded images.
    fn of(self, encoded: &EncodedTokens) -> engine::Result<Tensor> {
        let tape = Tape::inference();
        match (encoded.class_token, self) {
            (false, Self::Mean) => encoded.mean(&tape),
            _ => encoded.row(&tape, 0),
        }
    }
}

/// The parts of a SALT other than its encoders.
struct Settings<'py> {
    predictor: TransformerSpec,
    masking: Masking,
    embedding: Embedding,
    made: ModelParts<'py>,
    seed: u64,
}

impl PySalt {
    fn build(
        py: Python<'_>,
        teacher: Encoder,
        spec: &VitSpec,
        settings: Settings<'_>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let Settings { predictor, masking, embedding, made, seed } = settings;
        predictor.check("predictor").map_err(raised)?;
        masking.validate(spec.grid()).map_err(raised)?;
        let options =
            SaltOptions { predictor, loss: LossKind::L1, mask_tokens: 1, target_layer_norm: false };
        let frozen = teacher.parameters();
        let method = Salt::new(teacher, Encoder::new(spec, seed), options, seed).map_err(raised)?;
        let count = frozen.len();
        let frozen = frozen.into_iter().map(|(name, weight)| (format!("teacher.{name}"), weight));
        let unread = unread(predictor.width, spec.width).map_err(raised)?;
        let named = frozen.chain(method.parameters()).chain(unread).collect();
        let extras = Extras::beside(&named, spec.grid());
        let model = Model::new(py, reference_weights(named), count, extras, made)?;
        Ok(PyClassInitializer::from(model).add_subclass(Self { method, masking, embedding }))
    }

    /// The given masks, or the next masks drawn.
    fn masks(
        &self,
        samples: usize,
        given: (Option<&Bound<'_, PyAny>>, Option<&Bound<'_, PyAny>>),
        key: StepKey,
    ) -> PyResult<Masks> {
        let grid = self.method.encoder().grid();
        let masks = match given {
            (None, None) => self.masking.sample(grid, samples, key.seed, key.step),
            (Some(context), Some(target)) => {
                let context = patch_lists("context_idx", context, samples, grid, true)?;
                let target = patch_lists("target_idx", target, samples, grid, true)?;
                Masks::in_any_order(grid, context, target)
            }
            _ => return Err(refused("context_idx and target_idx go together: give both or none")),
        };
        masks.map_err(raised)
    }

    fn embedded(&self, py: Python<'_>, turn: &Turn, images: &Images) -> PyResult<SALTOutput> {
        let embedding = turn.compute(py, || {
            let (student, tape) = (self.method.encoder(), Tape::inference());
            let encoded = student.forward(&tape, images, Patches::All, Outputs::All, None)?;
            self.embedding.of(&encoded)
        });
        let embedding = embedding.map_err(|error: engine::Error| raised(error))?;
        Ok(SALTOutput {
            loss: 0.0,
            embedding: array(py, &embedding, embedding.shape())?,
            predictions: None,
            targets: None,
            num_targets: 0,
            num_context: self.method.encoder().grid().len(),
            context_idx: None,
            target_idx: None,
            recorded: Recorded::none(),
        })
    }
}

#[pymethods]
impl PySalt {
    /// `encoder_name` is a name of timm (vit_tiny_patch16_224). Further keyword arguments change
    /// its sizes, as in timm: img_size, patch_size, in_chans, embed_dim, depth, num_heads,
    /// mlp_ratio, class_token, reg_tokens, no_embed_class, init_values, qk_norm, pre_norm,
    /// norm_eps, drop_path_rate.
    /// `teacher_state_dict` holds the teacher's weights under the names of a file (of an encoder, a
    /// MAE, ...). `seed` determines initial weights and masks. `normalize` is the normalisation of
    /// uint8 images. `embedding` is what represents an image if there is no class token: "mean" of
    /// the patch tokens, or "first_token" as in stable-pretraining. `initial_weights` of the
    /// predictor are "torch" (torch.nn.Linear's default) or "published" (V-JEPA's).
    #[new]
    #[pyo3(signature = (encoder_name="vit_tiny_patch16_224", predictor_embed_dim=384,
        predictor_depth=12, predictor_num_heads=16, num_targets=4, context_scale=(0.85, 1.0),
        target_scale=(0.15, 0.2), context_aspect_ratio=(1.0, 1.0), target_aspect_ratio=(0.75, 1.5),
        teacher_state_dict=None, seed=0, *, normalize=None, embedding="mean",
        initial_weights="torch", **encoder_options))]
    #[allow(clippy::too_many_arguments)] // the reference's arguments
    fn new(
        py: Python<'_>,
        encoder_name: &str,
        predictor_embed_dim: usize,
        predictor_depth: usize,
        predictor_num_heads: usize,
        num_targets: usize,
        context_scale: Pair,
        target_scale: Pair,
        context_aspect_ratio: Pair,
        target_aspect_ratio: Pair,
        teacher_state_dict: Option<&Bound<'_, PyMapping>>,
        seed: u64,
        normalize: Option<&Bound<'_, PyAny>>,
        embedding: &str,
        initial_weights: &str,
        encoder_options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let spec = encoder_spec(encoder_name, encoder_options)?;
        let masking = MultiBlockMasking::new(
            num_targets,
            context_scale,
            target_scale,
            context_aspect_ratio,
            target_aspect_ratio,
        )?
        .masking();
        let predictor = TransformerSpec {
            width: predictor_embed_dim,
            depth: predictor_depth,
            heads: predictor_num_heads,
            initial: self::initial_weights(initial_weights)?,
        };
        let embedding_kind = Embedding::named(embedding)?;
        let made = ModelParts::new(py, &spec, normalization(normalize, spec.channels)?, seed)?;
        made.arguments.set_item("predictor_embed_dim", predictor_embed_dim)?;
        made.arguments.set_item("predictor_depth", predictor_depth)?;
        made.arguments.set_item("predictor_num_heads", predictor_num_heads)?;
        made.arguments.set_item("embedding", embedding)?;
        made.arguments.set_item("initial_weights", initial_weights)?;
        made.arguments.set_item("num_targets", num_targets)?;
        made.arguments.set_item("context_scale", context_scale)?;
        made.arguments.set_item("target_scale", target_scale)?;
        made.arguments.set_item("context_aspect_ratio", context_aspect_ratio)?;
        made.arguments.set_item("target_aspect_ratio", target_aspect_ratio)?;
        // Another seed, because a student that starts equal to its teacher would have nothing to
        // learn.
        let teacher = Encoder::new(&spec, !seed);
        if let Some(given) = teacher_state_dict {
            let (model, parameters) = (model_of(given)?, teacher.parameters());
            let weights = model.encoder(None).map_err(raised)?;
            weights::assign(model.path(), &weights, &parameters).map_err(raised)?;
        }
        let settings = Settings { predictor, masking, embedding: embedding_kind, made, seed };
        Self::build(py, teacher, &spec, settings)
    }

    /// Stage 2 from a checkpoint, usually of stage 1. Its encoder is the teacher (for a SALT
    /// checkpoint, its student). A new student of the same sizes is trained. `kwargs` are the
    /// constructor's arguments. Sizes are not needed, and must not contradict the file.
    #[classmethod]
    #[pyo3(signature = (ckpt_path, encoder_name=None, **kwargs))]
    fn from_checkpoint<'py>(
        class: &Bound<'py, PyType>,
        ckpt_path: PathBuf,
        encoder_name: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let all = student_of_checkpoint(class.py(), ckpt_path, encoder_name, kwargs)?;
        class.call((), Some(&all))
    }

    /// `images` [B, C, H, W], float32 (normalised) or uint8. In training mode `context_idx` [K] or
    /// [B, K] and `target_idx` [M] or [B, M] (patch indices, in any order) fix the masks.
    /// Predictions keep the order of `target_idx`.
    /// `record=False` computes the loss without a backward pass. `drop_path=False` keeps all
    /// blocks.
    #[pyo3(signature = (images, *, context_idx=None, target_idx=None, record=true, drop_path=true))]
    fn __call__(
        slf: &Bound<'_, Self>,
        images: &Bound<'_, PyAny>,
        context_idx: Option<&Bound<'_, PyAny>>,
        target_idx: Option<&Bound<'_, PyAny>>,
        record: bool,
        drop_path: bool,
    ) -> PyResult<SALTOutput> {
        let (py, this, model) = (slf.py(), slf.get(), slf.as_super().get());
        let images = self::images(images, model.bytes(), this.method.encoder().spec())?;
        if !model.is_training() {
            return this.embedded(py, model.turn(), &images);
        }
        let key = model.next_key();
        let masks = this.masks(images.samples(), (context_idx, target_idx), key)?;
        let ((step, embedding), recorded) = model.turn().record(py, record, |tape| {
            let step = this.method.step(tape, &images, &masks, drop_path.then_some(key))?;
            let embedding = this.embedding.of(&step.context)?;
            let results = Results::of([step.loss.clone(), step.predictions.clone()]);
            Ok(((step, embedding), results))
        })?;
        let Step { loss, predictions, targets, .. } = step;
        let (num_context, num_targets) = (masks.context[0].len(), masks.target[0].len());
        let shape = [images.samples(), num_targets, targets.dim(1)];
        Ok(SALTOutput {
            loss: loss.item(),
            embedding: array(py, &embedding, embedding.shape())?,
            predictions: Some(array(py, &predictions, &shape)?),
            targets: Some(array(py, &targets, &shape)?),
            num_targets,
            num_context,
            context_idx: Some(indices(py, &masks.context)?.unbind()),
            target_idx: Some(indices(py, &masks.target)?.unbind()),
            recorded,
        })
    }

    /// [`Self::__call__`], under the name in torch's modules.
    #[pyo3(signature = (images, *, context_idx=None, target_idx=None, record=true, drop_path=true))]
    fn forward(
        slf: &Bound<'_, Self>,
        images: &Bound<'_, PyAny>,
        context_idx: Option<&Bound<'_, PyAny>>,
        target_idx: Option<&Bound<'_, PyAny>>,
        record: bool,
        drop_path: bool,
    ) -> PyResult<SALTOutput> {
        Self::__call__(slf, images, context_idx, target_idx, record, drop_path)
    }

    /// All tokens of `part` ("student" or "teacher"), of whole `images` or of some `patches`. See
    /// Encoder.encode. With `training`, blocks are left out at random, as in the next step.
    #[pyo3(signature = (part, images, patches=None, *, training=false, record=true))]
    fn encode(
        slf: &Bound<'_, Self>,
        part: &str,
        images: &Bound<'_, PyAny>,
        patches: Option<&Bound<'_, PyAny>>,
        training: bool,
        record: bool,
    ) -> PyResult<Tokens> {
        let (this, model) = (slf.get(), slf.as_super().get());
        let key = training.then(|| model.next_part_key());
        let given = (images, patches);
        match part {
            "student" => encode(slf.py(), model, this.method.encoder(), given, key, record),
            "teacher" => encode(slf.py(), model, this.method.teacher(), given, None, false),
            _ => Err(refused(format!("part is {part:?}, expected \"student\" or \"teacher\""))),
        }
    }

    /// The predictor: `context` [B, K, D] at the patches `context_idx` [B, K], and the mask token
    /// at the patches `query_idx` [B, M]. See Transformer. `queries` must be None.
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
        let (predictor, model) = (slf.get().method.predictor(), slf.as_super().get());
        if queries.is_some() {
            return Err(refused(
                "SALT's predictor asks by its mask token. Give queries=None, or in saltworks.torch \
                 a query_mask that is all True",
            ));
        }
        let sizes = (model.patch_grid(), slf.get().method.encoder().spec().width);
        let call = Call::new(sizes, context, None, (context_idx, query_idx), every)?;
        call.run(slf.py(), model, record, |tape, context, _, masks, positions| {
            predictor.forward(tape, context, masks, positions, None)
        })
    }

    /// The masks that the next call will draw: (context_idx [1, K], target_idx [1, M]).
    fn next_masks<'py>(slf: &Bound<'py, Self>) -> PyResult<(Indices<'py>, Indices<'py>)> {
        let this = slf.get();
        let masks = this.masks(1, (None, None), slf.as_super().get().key())?;
        Ok((indices(slf.py(), &masks.context)?, indices(slf.py(), &masks.target)?))
    }

    fn __repr__(&self) -> String {
        let spec = self.method.encoder().spec();
        format!("SALT(embed_dim={}, depth={}, grid={})", spec.width, spec.depth, spec.grid())
    }
}
