//! How bytes become the numbers that a model reads.

/// Channel means and standard deviations, for values of 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// [C]
    pub mean: Vec<f32>,
    /// [C]
    pub std: Vec<f32>,
}

impl Normalize {
    /// ImageNet's values, as in torchvision and timm (`IMAGENET_DEFAULT_MEAN`,
    /// `IMAGENET_DEFAULT_STD`).
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }
}
