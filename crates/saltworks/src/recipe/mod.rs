//! The recipe: a user writes it in TOML, and it is read and checked here.
//!
//! [`Recipe`] holds the keys as written. Each key has its default only in `schema.rs`. `load` reads
//! them, with errors that name the line. `plan` turns them into steps, seeds and settings of
//! loaders.

mod check;
mod choose;
mod color;
mod depth;
mod difference;
mod load;
mod normalize;
mod origin;
mod plan;
mod probing;
mod schema;
mod set;
mod sizes;
mod suggest;
mod values;

pub use check::is_stage_name;
pub use choose::{
    ChoiceInput, ChosenValue, ImageFacts, KnownModel, KnownTeacher, PROBES_SHARE, choose, given,
    is_chosen,
};
pub use color::Color;
pub use depth::Depth;
pub(crate) use depth::EXPECTED as DEPTH_EXPECTED;
pub use difference::differences;
pub use load::{
    Overrides, QUICKSTART, TeacherFile, from_json, from_text, from_trained_text, load,
    load_for_teacher, load_trained,
};
pub use origin::Origin;
pub use plan::Schedule;
pub use schema::{
    Augment, Checkpointing, Data, DataSource, Log, Model, Normalize, Precision, Probe, Recipe,
    Stage,
};
pub use sizes::{ImageSize, PatchSize};
pub use values::{
    Covered, CutImages, DecoderSize, Duration, InitialWeights, Loss, MethodName, PixelNorm,
    RopeForm,
};

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe {path}: {source}{advice}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
        /// What to do, or which file was meant.
        advice: String,
    },
    /// The text is not a recipe.
    #[error("{origin}, line {line}: {problem}")]
    Text {
        /// File name, or "--set".
        origin: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The file is not text.
    #[error(
        "{path} is not a recipe (TOML text). Give the file of a recipe, or the folder of a run"
    )]
    NoText {
        /// The file.
        path: String,
    },
    /// A `--set` cannot be applied.
    #[error("--set {given}: {problem}")]
    Set {
        /// As given.
        given: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A value is not allowed.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        /// The key's path.
        key: String,
        /// Its value.
        found: String,
        /// Which values are allowed.
        expected: String,
    },
    /// Some of its values cannot be used together.
    #[error("{location}: {problem}")]
    Refused {
        /// The file and line, or the `--set`.
        location: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}
