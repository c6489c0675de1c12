//! The arguments that name an encoder: `probe` and `embed` share them.

use crate::failure::Failure;
use crate::judge::{Subject, SubjectOptions};
use crate::mask::Grid;
use crate::recipe::ImageSize;
use std::path::PathBuf;

/// An encoder, and how its images are prepared.
#[derive(clap::Args)]
pub(super) struct SubjectArguments {
    /// A run's folder, a weights file in any format that `export` reads, or a transformers folder.
    source: PathBuf,
    /// Images: anything that `data.path` accepts (a folder with a folder for each class, tar
    /// shards, a list, parquet, .npy, IDX files, builtin:fashion-mnist). Default for a run: its own
    /// images.
    #[arg(long, value_name = "PATH")]
    pub(super) data: Option<PathBuf>,
    /// For a run: the stage (default: the last). For a file with several models: a word before the
    /// names of one, such as teacher, student or target_encoder, or `ema` (see `inspect FILE`).
    #[arg(long, visible_alias = "part", value_name = "NAME")]
    stage: Option<String>,
    /// Size of the images in pixels, as 224 or HEIGHTxWIDTH (default: the encoder's own). The
    /// position table is resized as in timm.
    #[arg(long, value_name = "PIXELS")]
    size: Option<ImageSize>,
    /// Pixel normalization: imagenet, inception, clip, or '{mean = [0.5], std = [0.25]}' (default:
    /// that of the run or the file; else imagenet, or inception for grey images).
    #[arg(long)]
    normalize: Option<String>,
    /// For images of more than eight bits: a number of bits, or '[black, white]' (default: the
    /// run's). As `data.depth` of a recipe.
    #[arg(long, allow_hyphen_values = true)]
    depth: Option<String>,
    /// The column of images in --data and --test, if they are tables (default: found by its name
    /// and type).
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// The set of labels, of images with several, such as `what` of builtin:moving-fashion
    /// (default: the run's, else the first).
    #[arg(long, value_name = "NAME")]
    labels: Option<String>,
    /// The shorter side is resized to this factor times the size, and the centre is kept (default:
    /// the run's, else 1).
    #[arg(long)]
    zoom: Option<f64>,
    /// Rows and columns of patches that the position table was made for, as 8x16. Needed if they
    /// are no square and the file does not state them.
    #[arg(long, value_name = "ROWSxCOLUMNS")]
    grid: Option<Grid>,
    /// Heads of the encoder. Needed if the file does not state them and timm has no model of its
    /// width.
    #[arg(long)]
    heads: Option<usize>,
    /// What the encoder's layer norms add to the variance, if the file does not state it (default:
    /// 1e-6, and 1e-5 with a norm before the first block).
    #[arg(long, value_name = "NUMBER")]
    eps: Option<f32>,
    /// Join the features of the last N blocks side by side, as DINOv2's linear evaluation does.
    /// Each goes through the final norm.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) layers: usize,
    /// Compute threads. 0 means one per core.
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// Threads that decode images (default: the run's, else 1).
    #[arg(long, value_name = "N")]
    data_threads: Option<usize>,
}

impl SubjectArguments {
    /// Reads the recipe and the weights.
    pub(super) fn open(&self) -> Result<Subject, Failure> {
        let Self {
            source,
            data,
            stage,
            size,
            normalize,
            depth,
            column,
            labels,
            zoom,
            grid,
            heads,
            eps,
            layers,
            threads: _,
            data_threads,
        } = self;
        let options = SubjectOptions {
            source: source.clone(),
            data: data.clone(),
            stage: stage.clone(),
            size: *size,
            normalize: normalize.clone(),
            depth: depth.clone(),
            column: column.clone(),
            labels: labels.clone(),
            zoom: *zoom,
            grid: *grid,
            heads: *heads,
            eps: *eps,
            data_threads: *data_threads,
            layers: *layers,
        };
        options.open()
    }
}
