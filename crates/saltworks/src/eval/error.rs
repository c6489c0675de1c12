//! Why features cannot be evaluated.

/// Each message names the features, what was found, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no rows, or their width is 0.
    #[error(
        "{which} are [{rows}, {dim}], a probe needs at least one row and one column: give it \
         labelled images"
    )]
    Empty {
        /// Training or test features.
        which: &'static str,
        /// B
        rows: usize,
        /// D
        dim: usize,
    },
    /// Values, width and labels do not fit each other.
    #[error(
        "{which}: {values} values in rows of {dim} for {labels} labels, expected {labels} x \
         {dim}: give one row per label"
    )]
    Ragged {
        /// Training or test features.
        which: &'static str,
        /// Length of the value vector.
        values: usize,
        /// D
        dim: usize,
        /// B
        labels: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "{which}: row {row}, column {column} is {value}, expected a finite number: the encoder \
         that made them has diverged, use an earlier checkpoint"
    )]
    NotFinite {
        /// Training or test features.
        which: &'static str,
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
        /// The value itself.
        value: f32,
    },
    /// The two sets do not come from the same encoder.
    #[error(
        "training features are {train} wide, test features {test}: make both with the same \
         encoder and pooling"
    )]
    Widths {
        /// D of the training features.
        train: usize,
        /// D of the test features.
        test: usize,
    },
    /// There is only one class.
    #[error(
        "all {rows} training labels are {label}, a linear probe needs two classes: give it rows \
         of another class"
    )]
    OneClass {
        /// B
        rows: usize,
        /// The only label.
        label: u32,
    },
    /// There are too few images for LiDAR.
    #[error(
        "{rows} rows are {images} image(s) of {views} views, but LiDAR needs two images: give it \
         more rows, or fewer views of each image"
    )]
    FewImages {
        /// Whole images among the rows.
        images: usize,
        /// B
        rows: usize,
        /// q
        views: usize,
    },
    /// A class has fewer images than requested.
    #[error(
        "{shots} images of each class, expected 1 to {most}, the images of class {class}: \
         change the shots, or give it more images"
    )]
    Shots {
        /// Images of each class that were requested.
        shots: usize,
        /// Rows of the smallest class.
        most: usize,
        /// The class's number.
        class: u32,
    },
    /// Every probe of a grid diverged.
    #[error(
        "every probe of the grid diverged: choose smaller learning rates, or check whether the \
         encoder's tokens are finite"
    )]
    Diverged,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The [`StopCheck`](super::StopCheck) returned true.
    #[error("stopped as requested")]
    Stopped,
    /// A setting outside its range.
    #[error("{setting} is {found}, expected {expected}: change it in the probe's settings")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
}
