//! Stage 2: match a frozen teacher's latents at masked patches. SALT, eq. 2.1; stable-pretraining
//! methods/salt.py.

use super::{Method, Step, Teacher};
use crate::mask::Masks;
use crate::model::layers::join;
use crate::model::{
    Encoder, Outputs, Patches, Positions, Predictor, StepKey, TransformerSpec, VitSpec,
};
use crate::weights::{self, Hint, LoadedEncoder};
use engine::ops::{self, Images, LossKind};
use engine::{Error, Frozen, Module, Parameter, Result, Tape, Tensor};
use std::path::Path;

/// Why there is no usable teacher.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// The file cannot be used.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// Teacher and student do not fit together.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// No teacher is given.
    #[error("SALT needs a teacher, and none is given")]
    Missing,
}

/// Settings of stage 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaltOptions {
    /// The predictor's sizes. The reference has width 384, depth 12 and 16 heads.
    pub predictor: TransformerSpec,
    /// l. The paper uses L1.
    pub loss: LossKind,
    /// Mask tokens of the predictor: 1, or one for each mask of a sample, as in V-JEPA.
    pub mask_tokens: usize,
    /// A layer norm without parameters on the targets, as in V-JEPA (app/vjepa/train.py). The
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
    /// Freezes `teacher`. The initial weights of a new predictor are drawn from `seed`. Teacher and
    /// student must have the same image sizes and grid of patches. All else may differ.
    pub fn new(
        teacher: Encoder,
        student: Encoder,
        options: SaltOptions,
        seed: u64,
    ) -> Result<Self> {
        Self::check_sizes(teacher.spec(), student.spec())?;
        let (spec, width) = (student.spec(), teacher.spec().width);
        let tokens = options.mask_tokens;
        let predictor = Predictor::new(options.predictor, spec, width, tokens, seed);
        Ok(Self { teacher: Frozen::new(teacher), student, predictor, options })
    }

    /// Loads the encoder of a checkpoint as teacher of a student of the sizes `student`. `part`
    /// says which, as for [`weights::ModelFile::open`]. Its sizes are read from the file or from
    /// its tensors. If the number of heads is unknown and the width is the student's, the student's
    /// heads are used. The position table is resized to the student's images.
    pub fn load_teacher(
        path: &Path,
        part: Option<&str>,
        student: &VitSpec,
    ) -> std::result::Result<LoadedEncoder, TeacherError> {
        let file = weights::ModelFile::open(path, part)?;
        let heads = Some((student.width, student.heads));
        let hint = Hint { heads, image: Some(student.image), ..Hint::default() };
        let sizes = file.sizes(None, hint)?.spec;
        // Positions are resized to the student's images if the patches are the same.
        let seen = |spec: &VitSpec| (spec.patch, spec.channels);
        let image = (seen(&sizes) == seen(student)).then_some(student.image);
        let sees = VitSpec { image: image.unwrap_or(sizes.image), ..sizes };
        Self::check_sizes(&sees, student)?;
        Ok(file.load_encoder(None, hint, image)?)
    }

    /// Refuses a teacher whose image sizes or grid of patches differ from the student's.
    pub fn check_sizes(teacher: &VitSpec, student: &VitSpec) -> Result<()> {
        let sizes = |spec: &VitSpec| {
            let ([_, h, w], [_, ph, pw], c) = (spec.image, spec.patch, spec.channels);
            let grid = spec.grid();
            format!("{grid} patches of {ph} x {pw} pixels in {h} x {w} images with {c} channels")
        };
        if sizes(teacher) == sizes(student) {
            return Ok(());
        }
        Err(Error::Shape {
            op: "salt",
            arg: "the teacher's input",
            found: sizes(teacher),
            expected: format!("the student's {}", sizes(student)),
        })
    }

    /// The frozen teacher.
    pub fn teacher(&self) -> &Teacher {
        &self.teacher
    }

    /// The predictor.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// The teacher's latents at the targets [M, teacher width]. The whole image is encoded once. If
    /// it has one mask, the last block computes only the targets.
    fn targets(&self, tape: &Tape, images: &Images, masks: &Masks) -> Result<Tensor> {
        let encode = |read| self.teacher.forward(tape, images, Patches::All, read, None);
        let latents = match masks.per_sample() {
            1 => encode(Outputs::Patches(&masks.target))?.tokens,
            _ => {
                let all = encode(Outputs::All)?.patches(tape)?; // [B N, teacher width]
                ops::gather(tape, &all, masks.target_global())?
            }
        };
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
        let predictions = self.predictor.forward(tape, &context, masks, Positions::Targets, key)?;
        let weights = masks.target_weights();
        Ok(Step {
            loss: ops::loss(tape, &predictions, &targets, self.options.loss, weights.as_deref())?,
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
