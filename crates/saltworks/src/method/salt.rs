//! Stage 2: match a frozen teacher's latents at masked patches. SALT, eq. 2.1; stable-pretraining
//! methods/salt.py.

use super::{Method, Step, Teacher};
use crate::mask::Masks;
use crate::model::layers::join;
use crate::model::{Encoder, Outputs, Patches, Predictor, StepKey, TransformerSpec, VitSpec};
use crate::weights::{self, Hint, LoadedEncoder};
use engine::ops::{self, Images, LossKind};
use engine::{Error, Frozen, Module, Parameter, Result, Tape, Tensor};
use std::path::Path;

/// Why nothing can teach.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// The file.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// Teacher and student together.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// There is none.
    #[error("SALT needs a teacher, and none is given")]
    Missing,
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

    /// The encoder of a checkpoint that is to teach a student of the sizes `student`: its sizes are
    /// those the file states or its tensors have, its heads, if nothing says them, the student's at
    /// the student's width. Its position table is brought to the student's images.
    pub fn load_teacher(
        path: &Path,
        student: &VitSpec,
    ) -> std::result::Result<LoadedEncoder, TeacherError> {
        let file = weights::ModelFile::open(path)?;
        let heads = Some((student.width, student.heads));
        let hint = Hint { heads, grid: Some(student.grid()) };
        let sizes = file.sizes(None, hint)?.spec;
        // Positions are resized to the student's images if patches are the same.
        let seen = |spec: &VitSpec| (spec.patch, spec.channels);
        let image = (seen(&sizes) == seen(student)).then_some(student.image);
        let sees = VitSpec { image: image.unwrap_or(sizes.image), ..sizes };
        Self::check_sizes(&sees, student)?;
        Ok(file.load_encoder(None, hint, image)?)
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

    /// The teacher's latents at the targets [M, teacher width]: the whole image goes in, the last
    /// block computes the targets alone.
    fn targets(&self, tape: &Tape, images: &Images, masks: &Masks) -> Result<Tensor> {
        let read = Outputs::Patches(&masks.target);
        let latents = self.teacher.forward(tape, images, Patches::All, read, None)?.tokens;
        if self.options.target_layer_norm {
            // torch's functional layer_norm: ε = 1e-5.
            return ops::layer_norm(tape, &latents, None, 1e-5);
        }
        Ok(latents)
    }
}

impl Method for Salt {
    fn step(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<Step> {
        let targets = self.targets(tape, images, masks)?; // [M, teacher width]
        let visible = Patches::Some(&masks.context);
        let encoded = self.student.forward(tape, images, visible, Outputs::All, key)?;
        let context = encoded.patches(tape)?; // [K, D]
        let predictions = self.predictor.forward(tape, &context, masks, key)?;
        Ok(Step {
            loss: ops::loss(tape, &predictions, &targets, self.options.loss, None)?,
            target_count: predictions.rows(),
            context_tokens: context.rows(),
            context: encoded,
            predictions,
            targets,
        })
    }

    fn encoder(&self) -> &Encoder {
        &self.student
    }
}

impl Module for Salt {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        self.student.visit(&join(prefix, "student"), f);
        self.predictor.visit(&join(prefix, "predictor"), f);
    }
}
