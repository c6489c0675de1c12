//! Patch tokens of images in files of NumPy and safetensors. They are written while they are
//! computed, because those of all images rarely fit in memory.

use super::feature_files::{bytes, labels, npy_header, write_labels};
use super::{FeatureFile, Subject, blank_loader, none_readable, side_by_side};
use crate::console::Count;
use crate::data::{Batch, Source, Unreadable};
use crate::eval;
use crate::failure::{Failure, input_error, loading, run_error};
use crate::files::write_whole_with;
use crate::train::Stop;
use engine::Tape;
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The patch tokens of all images of a source.
pub(crate) struct PatchTokens<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) source: &'a Arc<dyn Source>,
    pub(crate) stop: &'a Stop,
}

impl PatchTokens<'_> {
    /// [B, N, D]: images, patches, and the widths of all layers.
    pub(crate) fn shape(&self) -> [usize; 3] {
        let (encoder, layers) = self.subject.encoder();
        [self.source.len(), encoder.grid().len(), layers * encoder.spec().width]
    }

    /// Writes a whole file, and the labels beside a .npy file. Returns the paths. Images that
    /// cannot be read are NaN, and are added to `unreadable`.
    pub(crate) fn write(
        &self,
        form: FeatureFile,
        path: &Path,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut files = vec![path.to_owned()];
        let header = match form {
            FeatureFile::Npy => {
                files.extend(write_labels(path, self.source.as_ref()).map_err(run_error)?);
                npy_header("<f4", &self.shape())
            }
            FeatureFile::Safetensors => self.safetensors_header(),
            FeatureFile::Parquet => {
                let problem = "a .parquet file holds no patch tokens. Use .npy or .safetensors";
                return Err(input_error(format!("{}: {problem}", path.display())));
            }
        };
        // Why the images could not be encoded, if that is why the file could not be written.
        let mut failure = None;
        let written = write_whole_with(path, |file| {
            file.write_all(&header)?;
            self.encode(unreadable, &mut |values| file.write_all(&bytes(values))).map_err(|error| {
                failure = Some(error);
                io::Error::other("its tokens are not complete")
            })
        });
        match (failure, written) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => {
                Err(run_error(format!("cannot write {}: {error}", path.display())))
            }
            (None, Ok(_)) => Ok(files),
        }
    }

    /// The header of a safetensors file (github.com/huggingface/safetensors, "Format"), and the
    /// labels, which are its first tensor.
    fn safetensors_header(&self) -> Vec<u8> {
        let source = self.source.as_ref();
        let (labels, shape) = (bytes(&labels(source)), self.shape());
        let end = labels.len() + 4 * shape.iter().product::<usize>();
        let classes = serde_json::Value::from(source.classes()).to_string();
        let header = json!({
            "__metadata__": {"classes": classes},
            "label": {"dtype": "I64", "shape": [source.len()], "data_offsets": [0, labels.len()]},
            "patches": {"dtype": "F32", "shape": shape, "data_offsets": [labels.len(), end]},
        });
        let mut header = header.to_string();
        // The values begin at a multiple of eight bytes.
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &labels].concat()
    }

    /// Calls `each` with the tokens [B, N, D] of one batch after the other.
    fn encode(
        &self,
        unreadable: &mut Vec<Unreadable>,
        each: &mut dyn FnMut(&[f32]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let data = &self.subject.recipe.data;
        let mut loader = blank_loader(data, data.size, self.source)?;
        let (mut first, mut count) = (0, Count::new(self.source.len()));
        while let Some(loaded) = loader.next_batch().map_err(loading)? {
            if self.stop.signal().is_some() {
                return Err(eval::Error::Stopped.into());
            }
            let batch = loaded.batch;
            let values = self.tokens(&batch, first)?;
            each(&values).map_err(|error| run_error(format!("cannot write tokens: {error}")))?;
            first += batch.labels.len();
            count.add(batch.labels.len());
            unreadable.extend(batch.unreadable);
        }
        count.finish();
        match unreadable.len() == self.source.len() {
            true => Err(none_readable(self.source.as_ref(), unreadable)),
            false => Ok(()),
        }
    }

    /// The tokens of a batch [B, N, D], whose first image is the image `first` of the source.
    fn tokens(&self, batch: &Batch, first: usize) -> Result<Vec<f32>, Failure> {
        let (encoder, layers) = self.subject.encoder();
        let encoded = encoder.last_layers(&batch.images, layers).map_err(run_error)?;
        let tape = Tape::inference();
        let patches = encoded.iter().map(|layer| layer.patches(&tape));
        let patches = patches.collect::<engine::Result<Vec<_>>>().map_err(run_error)?;
        let (mut values, width) = side_by_side(&patches);
        let broken: BTreeSet<usize> = batch.unreadable.iter().map(|image| image.index).collect();
        let image_values = encoder.grid().len() * width;
        for (index, values) in (first..).zip(values.chunks_exact_mut(image_values)) {
            if broken.contains(&index) {
                values.fill(f32::NAN);
            } else if values.iter().any(|value| !value.is_finite()) {
                return Err(run_error(format!(
                    "{}: a value of its patch tokens is not finite. The encoder has diverged: use \
                     an earlier checkpoint",
                    self.source.stamp(index).name
                )));
            }
        }
        Ok(values)
    }
}
