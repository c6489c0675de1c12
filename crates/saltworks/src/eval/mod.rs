//! Evaluates frozen features. It does not depend on training runs, data or weight files. Only the
//! attentive probe uses blocks and layers of `model`, for its own small network.
//!
//! [`knn`] measures how well neighbours agree, [`linear`] how well a plane separates the classes.
//! [`rank_me`], [`lidar`] and [`feature_std`] need no labels and show collapse.
//!
//! All give the same numbers for any number of threads, because every sum has one fixed order.

mod attentive;
mod error;
mod features;
mod few_shot;
mod knn;
mod lbfgs;
mod lidar;
mod linear;
mod logistic;
mod matrix;
mod paired;
mod pca;
mod rank_me;
mod scores;
mod spread;
mod symmetric;
mod tsne;

pub use attentive::{
    AttentiveForm, AttentiveOptions, AttentiveResult, TokenBatch, Tokens, Trial, attentive,
    images_read,
};
pub use error::Error;
pub use features::{Features, Standardizer};
pub use few_shot::{FewShotOptions, FewShotResult, few_shot};
pub use knn::{KnnOptions, Vote, knn, knn_scores};
pub use lidar::{LidarOptions, lidar};
pub use linear::{L2_BOUNDS, LinearOptions, LinearResult, linear};
pub use paired::{RightImages, mcnemar};
pub use pca::{Pca, pca};
pub use rank_me::rank_me;
pub use scores::{ClassReport, MOST_CONFUSED, Report, Scores, wilson};
pub use spread::feature_std;
pub use tsne::{Tsne, TsneOptions, tsne};

/// Whether the work should stop. It is called every second or so, from any thread. Once true, it
/// must stay true. The result is then [`Error::Stopped`].
pub type StopCheck<'a> = &'a (dyn Fn() -> bool + Sync);

/// The result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;

/// The class given to each row, and how often it is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// One class per row, `[B]`.
    pub labels: Vec<u32>,
    /// Share of rows whose class is right, 0 to 1.
    pub accuracy: f64,
}

impl Prediction {
    /// Compares `labels` `[B]` with the `truth` `[B]`.
    pub fn new(labels: Vec<u32>, truth: &[u32]) -> Self {
        let right = labels.iter().zip(truth).filter(|(label, truth)| label == truth).count();
        let accuracy = right as f64 / truth.len() as f64;
        Self { labels, accuracy }
    }
}
