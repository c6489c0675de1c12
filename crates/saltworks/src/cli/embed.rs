//! `saltworks embed`: features of images in a file for other programs.

use super::subject::SubjectArguments;
use crate::console::{Count, note, result};
use crate::data::{Source, Unreadable};
use crate::eval;
use crate::failure::{Failure, expect_output, input_error, run_error, use_threads};
use crate::judge::{
    self, Embeddings, FeatureFile, FeatureRows, PatchTokens, SourceFeatures, Subject, features,
    note_unreadable,
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
    /// available). Or all patch tokens.
    #[arg(long, value_delimiter = ',')]
    features: Vec<FeatureKind>,
    /// The images to test in place of those to train on: the folder `val` or `test` beside them, or
    /// the lines of a list or table that say so.
    #[arg(long)]
    tests: bool,
    /// Replace an existing file.
    #[arg(long)]
    overwrite: bool,
}

const EXAMPLES: &str = "Examples:
  saltworks embed runs/first --out features.parquet                all images of the run's data
  saltworks embed runs/first --data photos --out photos.npy   # and photos.labels.npy
  saltworks embed runs/first --data list.csv --tests --out tests.npy      the lines to test
  saltworks embed vit.safetensors --data photos --features mean,cls --out f.safetensors
  saltworks embed vit.safetensors --data photos --features patches --out patches.npy

Row i is image i in the order of `saltworks inspect`: paths are sorted, lists keep their order. With
--tests, row i is test image i, and labels are the numbers of the classes of the images to train on.
Rows of images that cannot be read are NaN. A .npy file holds [images, width] in float32. A .parquet
file has the columns image, label, class, mean, cls. A .safetensors file has the tensors mean
[N, D], cls [N, D] and label [N] (int64, -1 without one). Patch tokens are [images, patches, width],
patches row by row. They are written while they are computed, and need little memory.";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FeatureKind {
    /// The mean of the patch tokens.
    Mean,
    /// The class token.
    Cls,
    /// All patch tokens. Only for `embed`, alone, to .npy or .safetensors.
    Patches,
}

impl FeatureKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Patches => "patches",
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let form = FeatureFile::of(&arguments.out).map_err(input_error)?;
    let written = form.files(&arguments.out);
    written.iter().try_for_each(|file| expect_output(file))?;
    if let Some(there) = written.iter().find(|file| file.exists() && !arguments.overwrite) {
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
    let patches = arguments.features.contains(&FeatureKind::Patches);
    if patches && arguments.features.len() > 1 {
        return Err(input_error(
            "--features patches is written alone. Write mean and cls to another file",
        ));
    }
    use_threads(arguments.subject.threads)?;
    let stop = Stop::listen().map_err(run_error)?;
    let subject = arguments.subject.open()?;
    if !subject.of_run && arguments.subject.data.is_none() {
        return Err(input_error("no images are given. Add --data PATH"));
    }
    let named = &subject.recipe.probe.test;
    if let (true, None, [first, ..]) = (arguments.tests, &arguments.subject.data, &named[..]) {
        return Err(input_error(format!(
            "--tests reads images beside those to train on, but probe.test of the run names \
             {first}. Give --data {first} instead"
        )));
    }
    let source = match arguments.tests {
        true => judge::open_all_tests(&subject.recipe.data)?,
        false => judge::open_all(&subject.recipe.data)?,
    };
    note(&format!("embedding {}", source.describe()));
    judge::note_reading(&*source, "not read");
    if let Some(path) = &arguments.subject.data {
        let depth = subject.recipe.data.depth;
        judge::note_depth(&path.display().to_string(), &*source, depth);
    }
    let mut unreadable = Vec::new();
    let job = EmbedJob { arguments, form, subject: &subject, source: &source, stop: &stop };
    let written = match patches {
        true => job.write_patches(&mut unreadable),
        false => job.write_pooled(&mut unreadable),
    };
    let (files, what) = written.map_err(|failure| match failure {
        // `eval` does not know which signal it was.
        Failure::Interrupted { text, .. } => {
            Failure::Interrupted { signal: stop.signal().unwrap_or(0), text }
        }
        other => other,
    })?;
    note_unreadable(&unreadable, source.len(), "their rows are NaN");
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    result(&format!("{}: {what}", files.join(", ")));
    Ok(())
}

/// The files, and what they hold as text for people.
type WrittenFiles = (Vec<PathBuf>, String);

/// The features of one source on their way to files.
struct EmbedJob<'a> {
    arguments: &'a Arguments,
    form: FeatureFile,
    subject: &'a Subject,
    source: &'a Arc<dyn Source>,
    stop: &'a Stop,
}

impl EmbedJob<'_> {
    fn write_patches(&self, unreadable: &mut Vec<Unreadable>) -> Result<WrittenFiles, Failure> {
        let Self { subject, source, stop, .. } = *self;
        let tokens = PatchTokens { subject, source, stop };
        let shape = tokens.shape();
        let mib = shape.iter().product::<usize>() >> 18;
        note(&format!("patch tokens {shape:?} in float32 take {mib} MiB on disk"));
        let files = tokens.write(self.form, &self.arguments.out, unreadable)?;
        Ok((files, format!("patches {shape:?}")))
    }

    fn write_pooled(&self, unreadable: &mut Vec<Unreadable>) -> Result<WrittenFiles, Failure> {
        let pooled = self.pooled(unreadable)?;
        let count = self.source.len();
        let kinds =
            pooled.iter().map(|pooled| format!("{} [{count}, {}]", pooled.name, pooled.dim));
        let what = kinds.collect::<Vec<_>>().join(", ");
        let embeddings = Embeddings { pooled, source: self.source.as_ref() };
        Ok((embeddings.write(self.form, &self.arguments.out).map_err(run_error)?, what))
    }

    /// The requested kinds of features, for all images of the source.
    fn pooled(&self, unreadable: &mut Vec<Unreadable>) -> Result<Vec<FeatureRows>, Failure> {
        let Self { subject, source, stop, .. } = *self;
        let mut count = Count::new(source.len());
        let Subject { recipe, extractor, .. } = subject;
        let made = features(recipe, source, extractor, stop, unreadable, &mut count)?;
        let made = made.ok_or_else(|| Failure::from(eval::Error::Stopped))?;
        count.finish();
        let asked_for = &self.arguments.features[..];
        let alone = self.form == FeatureFile::Npy && asked_for.is_empty();
        let wanted = if alone { &[FeatureKind::Mean][..] } else { asked_for };
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
