//! Frozen features in, numbers out. Knows nothing of training, of models or of where features came
//! from: [`knn`] asks how well neighbours agree, [`linear`] how well a plane separates the classes;
//! [`rank_me`], [`lidar`] and [`feature_std`] need no labels and tell of collapse.
//!
//! All give the same numbers for any number of threads: every sum runs in one fixed order.

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
mod pca;
mod rank_me;
mod scores;
mod spread;
mod symmetric;
mod tsne;

pub use attentive::{
    Attentive, AttentiveForm, AttentiveOptions, TokenBatch, Tokens, Trial, attentive, images_read,
};
pub use error::Error;
pub use features::{Features, Standardizer};
pub use few_shot::{FewShot, FewShotOptions, few_shot};
pub use knn::{KnnOptions, Vote, knn, knn_scores};
pub use lidar::{LidarOptions, lidar};
pub use linear::{Linear, LinearOptions, linear};
pub use pca::{Pca, pca};
pub use rank_me::rank_me;
pub use scores::{ClassReport, MOST_CONFUSED, Report, Scores, wilson};
pub use spread::feature_std;
pub use tsne::{Tsne, TsneOptions, tsne};

/// Whether somebody asked the work to end: looked at every second or so, from any thread. Once it says
/// yes it must go on saying so; the answer is then [`Error::Stopped`].
pub type Asked<'a> = &'a (dyn Fn() -> bool + Sync);

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// The class given to each row, and how often it was the right one.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// One class per row, `[B]`.
    pub labels: Vec<u32>,
    /// Share of rows whose class is right, 0 to 1.
    pub accuracy: f64,
}

impl Prediction {
    /// Holds `labels` `[B]` against the `truth` `[B]`.
    pub fn new(labels: Vec<u32>, truth: &[u32]) -> Self {
        let right = labels.iter().zip(truth).filter(|(label, truth)| label == truth).count();
        let accuracy = right as f64 / truth.len() as f64;
        Self { labels, accuracy }
    }
}
