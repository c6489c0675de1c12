//! Stage 2: match a frozen teacher's latents at masked patches. SALT, eq. 2.1; stable-pretraining
//! methods/salt.py.

use super::{Method, Step, Teacher, context_embedding};
use crate::mask::Masks;
use crate::model::{
    Encoder, Patches, Predictor, Read, SpecError, StepKey, TransformerSpec, VitSpec,
};
use crate::weights;
use engine::ops::{self, Images, LossKind};
use engine::{Error, Frozen, Module, Parameter, Result, Tape, Tensor};
use std::path::Path;

/// The key of a weight file's metadata that holds the encoder's [`VitSpec`] as JSON.
pub const MODEL_KEY: &str = "model";

/// A checkpoint that cannot teach.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// Its stated sizes.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Sizes that cannot be read.
    #[error("its metadata `model` is not readable: {0}. Save it again, or remove the metadata")]
    Metadata(String),
    /// Sizes that the file does not hold.
    #[error("its metadata state a model of {claimed} values or more, but it holds {held}")]
    Claims {
        /// Values in the file.
        held: usize,
        /// Values of the blocks alone.
        claimed: usize,
    },
    /// Weights of a run that diverged.
    #[error("tensor {0} holds values that are not finite: its training diverged")]
    NotFinite(String),
    /// Teacher and student together.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// Settings of stage 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaltOptions {
    /// The predictor's sizes; the reference's are 384 wide, 12 deep, 16 heads.
    pub predictor: TransformerSpec,
    /// l; the paper's is L1.
    pub loss: LossKind,
    /// A layer norm without parameters on the targets, as V-JEPA (app/vjepa/train.py); the
    /// reference has none.
    pub target_layer_norm: bool,
}

/// Frozen teacher, student and predictor.
pub struct Salt {
    teacher: Teacher,
    student: Encoder,
    predictor: Predictor,
    options: SaltOptions,
}

impl Salt {
    /// Freezes `teacher`; a new predictor's first weights are drawn from `seed`. Teacher and
    /// student may differ in all but the images they see and their grid of patches.
    pub fn new(
        teacher: Encoder,
        student: Encoder,
        options: SaltOptions,
        seed: u64,
    ) -> Result<Self> {
        Self::check_sizes(teacher.spec(), student.spec())?;
        let widths = (student.spec().width, teacher.spec().width);
        let predictor = Predictor::new(options.predictor, widths.0, widths.1, student.grid(), seed);
        Ok(Self { teacher: Frozen::new(teacher), student, predictor, options })
    }

    /// Stage 2 from a checkpoint of stage 1: a safetensors file of an encoder under timm's names, or
    /// of all that a stage trained. The teacher's sizes are those the file states, else `sizes`.
    pub fn from_checkpoint(
        path: &Path,
        sizes: &VitSpec,
        student: Encoder,
        options: SaltOptions,
        seed: u64,
    ) -> std::result::Result<Self, CheckpointError> {
        let teacher = Self::load_teacher(path, sizes)?;
        Ok(Self::new(teacher, student, options, seed)?)
    }

    /// The encoder of a checkpoint that is to teach a student of the sizes `student`.
    pub fn load_teacher(
        path: &Path,
        student: &VitSpec,
    ) -> std::result::Result<Encoder, CheckpointError> {
        let file = weights::load(path)?;
        let sizes = stated_sizes(&file)?.unwrap_or_else(|| student.clone());
        sizes.check()?;
        Self::check_sizes(&sizes, student)?;
        encoder_of(path, &file, &sizes)
    }

    /// Refuses a teacher that sees other images, or another grid of patches, than the student.
    pub fn check_sizes(teacher: &VitSpec, student: &VitSpec) -> Result<()> {
        let sizes = |spec: &VitSpec| {
            let ([_, h, w], c) = (spec.image, spec.channels);
            format!("{} patches of {h} x {w} images with {c} channels", spec.grid())
        };
        if sizes(teacher) == sizes(student) {
            return Ok(());
        }
        Err(Error::Shape {
            op: "salt",
            arg: "what the teacher sees",
            found: sizes(teacher),
            expected: format!("the student's {}", sizes(student)),
        })
    }

    /// The encoder that teaches.
    pub fn teacher(&self) -> &Teacher {
        &self.teacher
    }

    /// The trained encoder.
    pub fn into_student(self) -> Encoder {
        self.student
    }

    /// The teacher's latents at the targets [M, teacher width]: the whole image goes in, the last
    /// block computes the targets alone.
    fn targets(&self, tape: &Tape, images: &Images, masks: &Masks) -> Result<Tensor> {
        let read = Read::Patches(&masks.target);
        let latents = self.teacher.forward(tape, images, Patches::All, read, None)?.tokens;
        if self.options.target_layer_norm {
            // torch's functional layer_norm: ε = 1e-5.
            return ops::layer_norm(tape, &latents, None, 1e-5);
        }
        Ok(latents)
    }
}

/// The encoder of a checkpoint. Its sizes are those the file states, else `sizes`.
pub fn load_encoder(path: &Path, sizes: &VitSpec) -> std::result::Result<Encoder, CheckpointError> {
    let file = weights::load(path)?;
    let sizes = stated_sizes(&file)?.unwrap_or_else(|| sizes.clone());
    sizes.check()?;
    encoder_of(path, &file, &sizes)
}

/// The sizes in a file's metadata.
fn stated_sizes(file: &weights::File) -> std::result::Result<Option<VitSpec>, CheckpointError> {
    let text = file.metadata.get(MODEL_KEY);
    let sizes = text.map(|text| serde_json::from_str(text)).transpose();
    sizes.map_err(|error| CheckpointError::Metadata(error.to_string()))
}

/// An encoder of these sizes, which have passed their check, with the file's weights.
fn encoder_of(
    path: &Path,
    file: &weights::File,
    sizes: &VitSpec,
) -> std::result::Result<Encoder, CheckpointError> {
    // Before memory is taken for what a file only claims.
    let held = file.tensors.values().map(Tensor::len).sum();
    if file.metadata.contains_key(MODEL_KEY) && sizes.block_parameters() > held {
        return Err(CheckpointError::Claims { held, claimed: sizes.block_parameters() });
    }
    let finite = |tensor: &Tensor| tensor.as_slice().iter().all(|value| value.is_finite());
    if let Some((name, _)) = file.tensors.iter().find(|(_, tensor)| !finite(tensor)) {
        return Err(CheckpointError::NotFinite(name.clone()));
    }
    let encoder = Encoder::new(sizes, 0);
    weights::assign(path, &file.encoder(), &encoder.parameters())?;
    Ok(encoder)
}

impl Method for Salt {
    fn step(&self, tape: &Tape, images: &Images, masks: &Masks, key: StepKey) -> Result<Step> {
        let targets = self.targets(tape, images, masks)?; // [M, teacher width]
        let visible = Patches::Some(&masks.context);
        let encoded = self.student.forward(tape, images, visible, Read::All, Some(key))?;
        let context = encoded.patches(tape)?; // [K, D]
        let predictions = self.predictor.forward(tape, &context, masks, Some(key))?;
        Ok(Step {
            loss: ops::loss(tape, &predictions, &targets, self.options.loss, None)?,
            embedding: context_embedding(tape, &encoded, self.student.spec().class_token)?,
            target_count: predictions.rows(),
            context_tokens: context.rows(),
            predictions,
            targets,
        })
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &Parameter)) {
        self.student.visit("student", f);
        self.predictor.visit("predictor", f);
    }

    fn encoder(&self) -> &Encoder {
        &self.student
    }
}
