//! `saltworks embed`: features of images in a file for other programs.

use super::subject::SubjectArguments;
use crate::console::{Count, note, result};
use crate::data::{Source, Unreadable};
use crate::eval;
use crate::failure::{Failure, expect_parent, input_error, run_error, use_threads};
use crate::judge::{
    self, Embeddings, FeatureFile, FeatureRows, SourceFeatures, Subject, features, note_unreadable,
};
use crate::train::Stop;
use std::path::PathBuf;
use std::sync::Arc;

/// Options of `embed`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectArguments,
    /// The file to write: .npy (one kind of features), .safetensors or .parquet.
    #[arg(long)]
    out: PathBuf,
    /// Features: mean of the patch tokens, class token, or both (default: mean for .npy, else all
    /// available).
    #[arg(long, value_delimiter = ',')]
    features: Vec<FeatureKind>,
    /// Replace an existing file.
    #[arg(long)]
    overwrite: bool,
}

const EXAMPLES: &str = "Examples:
  saltworks embed runs/first --out features.parquet                all images of the run's data
  saltworks embed runs/first --data photos --out photos.npy   # and photos.labels.npy
  saltworks embed vit.safetensors --data photos --features mean,cls --out f.safetensors

Row i is image i in the order of `saltworks inspect`: paths are sorted, lists keep their order.
Rows of images that cannot be read are NaN. A .npy file holds [images, width] in float32. A .parquet
file has the columns image, label, class, mean, cls. A .safetensors file has the tensors mean
[N, D], cls [N, D] and label [N] (int64, -1 without one).";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FeatureKind {
    /// The mean of the patch tokens.
    Mean,
    /// The class token.
    Cls,
}

impl FeatureKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let form = FeatureFile::of(&arguments.out).map_err(input_error)?;
    expect_parent(&arguments.out)?;
    let mut written = form.files(&arguments.out).into_iter();
    if let Some(there) = written.find(|file| file.exists() && !arguments.overwrite) {
        return Err(input_error(format!(
            "{} exists already. Choose another --out, or add --overwrite",
            there.display()
        )));
    }
    if form == FeatureFile::Npy && arguments.features.len() > 1 {
        return Err(input_error(
            "a .npy file holds one kind of features. Choose one, or use --out FILE.safetensors",
        ));
    }
    use_threads(arguments.subject.threads)?;
    let stop = Stop::listen().map_err(run_error)?;
    let subject = arguments.subject.open()?;
    if !subject.of_run && arguments.subject.data.is_none() {
        return Err(input_error("no images are given. Add --data PATH"));
    }
    let source = judge::open_all(&subject.recipe.data)?;
    note(&format!("embedding {}", source.describe()));
    let mut unreadable = Vec::new();
    let pooled = arguments.embed(&subject, &source, &stop, &mut unreadable)?;
    let count = pooled[0].rows.len() / pooled[0].dim;
    let kinds: Vec<String> =
        pooled.iter().map(|pooled| format!("{} [{count}, {}]", pooled.name, pooled.dim)).collect();
    let embeddings = Embeddings { pooled, source: source.as_ref() };
    let written = embeddings.write(form, &arguments.out).map_err(run_error)?;
    note_unreadable(&unreadable, source.len(), "their rows are NaN");
    let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    result(&format!("{}: {}", files.join(", "), kinds.join(", ")));
    Ok(())
}

impl Arguments {
    /// The requested kinds of features, for all images of a source.
    fn embed(
        &self,
        subject: &Subject,
        source: &Arc<dyn Source>,
        stop: &Stop,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<Vec<FeatureRows>, Failure> {
        let mut count = Count::new(source.len());
        let Subject { recipe, extractor, .. } = subject;
        let made = features(recipe, source, extractor, stop, unreadable, &mut count)?;
        let made = made.ok_or_else(|| match Failure::from(eval::Error::Stopped) {
            Failure::Interrupted { text, .. } => {
                Failure::Interrupted { signal: stop.signal().unwrap_or(0), text }
            }
            other => other,
        })?;
        count.finish();
        let alone = FeatureFile::of(&self.out) == Ok(FeatureFile::Npy) && self.features.is_empty();
        let wanted = if alone { &[FeatureKind::Mean][..] } else { &self.features[..] };
        let SourceFeatures { kinds, replaced } = made;
        let kinds = [FeatureKind::Mean, FeatureKind::Cls].into_iter().zip(kinds);
        let kept = kinds.filter(|(kind, _)| wanted.is_empty() || wanted.contains(kind));
        let kept = kept.map(|(kind, features)| {
            let mut pooled =
                FeatureRows { name: kind.name(), dim: features.dim, rows: features.rows };
            refuse_infinite(&pooled, source.as_ref())?;
            replaced.iter().for_each(|image| pooled.forget(image.index));
            Ok(pooled)
        });
        let kept: Vec<FeatureRows> = kept.collect::<Result<_, Failure>>()?;
        match wanted.iter().find(|kind| kept.iter().all(|pooled| pooled.name != kind.name())) {
            Some(_) => Err(input_error("the encoder has no class token. Choose --features mean")),
            None => Ok(kept),
        }
    }
}

/// Refuses features that are not finite. NaN is reserved for images that cannot be read.
fn refuse_infinite(pooled: &FeatureRows, source: &dyn Source) -> Result<(), Failure> {
    let Some(index) = pooled.rows.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    Err(run_error(format!(
        "{}: value {} of its {} token is {}. The encoder has diverged: use an earlier checkpoint",
        source.stamp(index / pooled.dim).name,
        index % pooled.dim,
        pooled.name,
        pooled.rows[index]
    )))
}
