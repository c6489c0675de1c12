//! Why weights cannot be read, used or written.

use std::path::Path;

/// Weights that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is damaged, or not a safetensors file at all.
    #[error(
        "{path} is not a whole safetensors file: {problem}. Export it again, or choose another"
    )]
    Format {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A torch file that is damaged, refused, or of an unsupported format.
    #[error("{path}: {problem}")]
    Torch {
        /// Which file.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A weight has a type that no weight can have.
    #[error("{path}: {}", not_a_weight(name, found))]
    Dtype {
        /// Which file.
        path: String,
        /// Which tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A value does not fit the requested type.
    #[error("{path}: {name} holds {value}, which {dtype} cannot hold. Write it as F32 or BF16")]
    Range {
        /// Which file.
        path: String,
        /// Which tensor.
        name: String,
        /// The value.
        value: f32,
        /// The type.
        dtype: &'static str,
    },
    /// The tensors do not fit the model.
    #[error("{path} does not fit the model: {problem}. {advice}")]
    Fit {
        /// Which file.
        path: String,
        /// Which tensors.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// The tensors or sizes fit no supported model.
    #[error("{path}: {problem}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

/// Why a weight of this name cannot have the type that was found.
pub(super) fn not_a_weight(name: &str, found: &str) -> String {
    format!("tensor {name} is {found}, expected F32, F16, BF16 or F64. Convert it to F32")
}

impl Error {
    pub(super) fn model(path: &Path, problem: impl Into<String>) -> Self {
        Self::Model { path: path.display().to_string(), problem: problem.into() }
    }

    pub(super) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.display().to_string(), source }
    }

    pub(super) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.display().to_string(), source }
    }

    pub(super) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.display().to_string(), problem: problem.into() }
    }

    pub(super) fn torch(path: &Path, problem: impl Into<String>) -> Self {
        Self::Torch { path: path.display().to_string(), problem: problem.into() }
    }
}
