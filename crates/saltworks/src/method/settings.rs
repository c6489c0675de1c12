//! The method of a stage and its settings. Methods are built only here.

use super::{Mae, MaeOptions, Method, Salt, SaltOptions, TeacherError};
use crate::mask::Masks;
use crate::model::{Encoder, FirstWeights, TransformerSpec};
use crate::recipe::{self, DecoderSize, MethodName, Stage};

/// A method with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MethodSettings {
    /// Stage 1.
    Mae(MaeOptions),
    /// Stage 2.
    Salt(SaltOptions),
}

impl MethodSettings {
    /// The settings of a recipe's stage.
    pub fn of(stage: &Stage) -> Self {
        let loss = stage.loss().into();
        match stage.method {
            MethodName::Mae => Self::Mae(MaeOptions {
                decoder: stage.decoder().into(),
                covered: stage.covered(),
                pixel_norm: stage.pixel_norm(),
                loss,
            }),
            MethodName::Salt => Self::Salt(SaltOptions {
                predictor: stage.predictor().into(),
                loss,
                mask_tokens: stage.mask_tokens(),
                target_layer_norm: stage.target_layer_norm(),
            }),
        }
    }

    /// Builds the method around an encoder. The initial weights of the decoder or predictor are
    /// drawn from `seed`. SALT needs a teacher.
    pub fn build(
        &self,
        encoder: Encoder,
        teacher: Option<Encoder>,
        seed: u64,
    ) -> Result<Box<dyn Method>, TeacherError> {
        match (*self, teacher) {
            (Self::Mae(options), _) => Ok(Box::new(Mae::new(encoder, options, seed))),
            (Self::Salt(options), Some(teacher)) => {
                Ok(Box::new(Salt::new(teacher, encoder, options, seed)?))
            }
            (Self::Salt(_), None) => Err(TeacherError::Missing),
        }
    }

    /// The name of the decoder or predictor in recipes, and its sizes.
    pub fn trunk(&self) -> (&'static str, TransformerSpec) {
        match self {
            Self::Mae(options) => ("decoder", options.decoder),
            Self::Salt(options) => ("predictor", options.predictor),
        }
    }

    /// The number of mask tokens of the decoder or predictor.
    pub fn mask_tokens(&self) -> usize {
        match self {
            Self::Mae(_) => 1,
            Self::Salt(options) => options.mask_tokens,
        }
    }

    /// The name of the trained encoder in plans.
    pub fn encoder_name(&self) -> &'static str {
        match self {
            Self::Mae(_) => "encoder",
            Self::Salt(_) => "student",
        }
    }

    /// Masks as the method reads them: see [`Method::masks`].
    pub fn masks(&self, drawn: Masks) -> Masks {
        match self {
            Self::Mae(options) => options.covered.masks(drawn),
            Self::Salt(_) => drawn,
        }
    }
}

impl From<DecoderSize> for TransformerSpec {
    // Recipe and model do not depend on each other, so each has its own type.
    fn from(DecoderSize { width, depth, heads, initial_weights }: DecoderSize) -> Self {
        let initial = match initial_weights {
            recipe::InitialWeights::Published => FirstWeights::Published,
            recipe::InitialWeights::Torch => FirstWeights::Torch,
        };
        Self { width, depth, heads, initial }
    }
}
