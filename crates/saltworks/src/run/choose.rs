//! The recipe of a run: the one that is given, or one that is chosen for its images.

use crate::data::{Clip, Info, Source, Survey};
use crate::failure::{Failure, input_error, use_threads};
use crate::judge::open_all;
use crate::model::VitSpec;
use crate::recipe::{
    self, ChoiceInput, ChosenValue, Color, Depth, ImageFacts, KnownModel, KnownTeacher, Normalize,
    Overrides, Recipe, TeacherFile, choose, given, is_chosen,
};
use crate::run_files::names::RECIPE;
use crate::weights::{Hint, ModelFile};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A recipe, and the values of it that were chosen for the images.
pub struct ChosenRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// The chosen values that the user did not set. Empty if a recipe was given.
    pub choices: Vec<ChosenValue>,
}

/// What a path names.
pub enum NamedInput<'a> {
    /// A recipe, or the folder of a run with one. Also what does not exist.
    Recipe(&'a Path),
    /// Images.
    Images(&'a str),
}

impl<'a> NamedInput<'a> {
    /// What the path names.
    pub fn of(path: &'a Path) -> Self {
        let text = path.to_str().unwrap_or_default();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let is_written = ["builtin:", "://", "{"].iter().any(|sign| text.contains(sign));
        let is_data = !text.is_empty() && (path.exists() || is_written);
        match is_toml || path.join(RECIPE).is_file() || !is_data {
            true => Self::Recipe(path),
            false => Self::Images(text),
        }
    }
}

/// Reads the recipe at `path` and applies `set`. If `path` names images, or `set` names images or a
/// model, a recipe is chosen for them. Without any of these it is the quickstart. A `teacher`, a
/// file of weights, takes the place of the stage that trains one. `threads` are those for which it
/// is chosen, if not those of this machine.
pub fn recipe_for(
    path: Option<&Path>,
    teacher: Option<TeacherFile<'_>>,
    set: &Overrides,
    threads: Option<usize>,
) -> Result<ChosenRecipe, Failure> {
    let images = match path.map(NamedInput::of) {
        Some(NamedInput::Recipe(path)) => return given_recipe(Some(path), teacher, set),
        Some(NamedInput::Images(images)) => Some(images),
        None => None,
    };
    let images = images.map(|path| format!("data.path={}", toml::Value::from(path)));
    let set: Vec<_> = images.into_iter().chain(set.iter().cloned()).collect();
    if is_chosen(&set) || teacher.is_some() {
        return chosen_recipe(teacher, &set, threads);
    }
    given_recipe(None, None, &set)
}

fn given_recipe(
    path: Option<&Path>,
    teacher: Option<TeacherFile<'_>>,
    set: &Overrides,
) -> Result<ChosenRecipe, Failure> {
    let recipe = match teacher {
        Some(teacher) => recipe::load_for_teacher(path, teacher, set),
        None => recipe::load(path, set),
    };
    Ok(ChosenRecipe { recipe: recipe.map_err(input_error)?, choices: Vec::new() })
}

fn chosen_recipe(
    teacher: Option<TeacherFile<'_>>,
    set: &Overrides,
    began: Option<usize>,
) -> Result<ChosenRecipe, Failure> {
    let mut asked = given(set).map_err(input_error)?;
    // Before images are looked at: the first use of threads decides their number. A recipe for a
    // larger machine may be printed here, and too many are refused where they train.
    let _ = use_threads(asked.threads);
    if !asked.origin.says("data.background") {
        asked.data.background = PAPER;
    }
    let source = open_all(&asked.data)?;
    let images = asked.data.sources().iter().map(|source| source.path.clone()).collect::<Vec<_>>();
    let mut facts = facts_of(&source)?;
    let fitting = facts.values.as_ref().and_then(Depth::fitting);
    if fitting.is_some() && !asked.origin.says("data.depth") {
        // The pixels are looked at again as they will be shown.
        asked.data.depth = fitting;
        facts = facts_of(&open_all(&asked.data)?)?;
    }
    let given = ChoiceInput {
        images: images.join(", "),
        model: asked.model.name.as_deref().map(named_model).transpose()?,
        teacher: teacher.map(teacher_of).transpose()?,
        threads: began.unwrap_or_else(|| threads(asked.threads)),
        set,
    };
    let (recipe, choices) = choose(&facts, &given).map_err(input_error)?;
    Ok(ChosenRecipe { recipe, choices })
}

/// What transparent parts show if nothing is set: most drawings are made for white paper.
const PAPER: Color = Color([255; 3]);

/// The threads that will compute.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        asked => asked,
    }
}

fn named_model(name: &str) -> Result<KnownModel, Failure> {
    VitSpec::from_name(name).map(|spec| known(&spec)).map_err(input_error)
}

fn teacher_of(TeacherFile { path, part }: TeacherFile<'_>) -> Result<KnownTeacher, Failure> {
    let file = ModelFile::open(path, part).map_err(input_error)?;
    let spec = file.sizes(None, Hint::default()).map_err(input_error)?.spec;
    let normalize = file.normalize(spec.channels).map_err(input_error)?;
    Ok(KnownTeacher {
        path: path.display().to_string(),
        part: part.map(str::to_owned),
        model: known(&spec),
        channels: spec.channels,
        normalize: normalize.map(|known| Normalize { mean: known.mean, std: known.std }),
    })
}

fn known(spec: &VitSpec) -> KnownModel {
    let ([_, patch, _], [_, size, _]) = (spec.patch, spec.image);
    KnownModel { patch, size, width: spec.width }
}

/// Images whose headers are read, evenly spaced. (guess)
const HEADERS: usize = 500;
/// Images that are decoded, and the most pixels of one of them. (guess: under a second)
const DECODED: usize = 100;
const DECODED_PIXELS: usize = 1_000_000;

/// Images that are decoded if all are large.
const LARGE: usize = 8;

/// The least deviation of pixels. Images of one colour have none, and nothing can be divided by 0.
const LEAST_STD: f64 = 0.01;

/// Looks at some of the images.
pub(super) fn facts_of(source: &Arc<dyn Source>) -> Result<ImageFacts, Failure> {
    // Without a limit of time: a resumed run must choose the same.
    let survey = Survey::of_some(source.as_ref(), HEADERS, Duration::MAX);
    let median = |sorted: &[usize]| sorted.get(sorted.len() / 2).copied();
    let (Some(height), Some(width)) = (median(&survey.heights), median(&survey.widths)) else {
        let first = survey.problems.first().map_or("", String::as_str);
        let problem = format!("none of the images that were tried can be read. The first: {first}");
        return Err(input_error(format!("{}: {problem}", source.describe())));
    };
    let pixels = Pixels::of(source.as_ref());
    Ok(ImageFacts {
        images: source.len(),
        height,
        width,
        same_shape: survey.has_one_shape(),
        channels: pixels.shown(),
        values: survey.stored_values(source.as_ref(), DECODED),
        transparent: survey.transparent as f64 / survey.heights.len() as f64,
        mean: pixels.each(|sums| sums.mean() as f32),
        std: pixels.each(|sums| sums.variance().sqrt().max(LEAST_STD) as f32),
    })
}

/// Sums over the pixels of a channel, 0 to 1.
#[derive(Clone, Copy, Default)]
struct PixelSums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl PixelSums {
    fn mean(self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    fn variance(self) -> f64 {
        (self.squares / self.count.max(1.0) - self.mean().powi(2)).max(0.0)
    }
}

/// What some decoded images hold.
#[derive(Default)]
struct Pixels {
    /// One for each band. Grey counts as three equal colours.
    channels: Vec<PixelSums>,
    coloured: bool,
}

impl Pixels {
    /// Decodes images, evenly spaced. Large ones are passed over, or all if all are large. Those
    /// that cannot be read are reported by the run.
    fn of(source: &dyn Source) -> Self {
        let count = DECODED.min(source.len());
        let mut found = Self::default();
        for at in (0..count).map(|nth| nth * source.len() / count) {
            let small = |info: Info| info.height * info.width <= DECODED_PIXELS;
            if source.info(at).is_ok_and(small) {
                found.read(source, at);
            }
        }
        if found.channels.is_empty() {
            (0..count.min(LARGE)).for_each(|nth| found.read(source, nth * source.len() / count));
        }
        found
    }

    fn read(&mut self, source: &dyn Source, at: usize) {
        if let Ok(sample) = source.read(at) {
            self.add(&sample.clip);
        }
    }

    fn add(&mut self, clip: &Clip) {
        let bands = if clip.channels == 1 { 3 } else { clip.channels };
        if self.channels.is_empty() {
            self.channels.resize(bands, PixelSums::default());
        }
        if self.channels.len() != bands {
            // The run refuses images of other bands by name.
            return;
        }
        // Each image counts once, however large it is.
        let weight = 1.0 / (clip.data.len() / clip.channels) as f64;
        for pixel in clip.data.chunks_exact(clip.channels) {
            if clip.channels == 3 {
                self.coloured |= pixel.iter().any(|value| value.abs_diff(pixel[0]) > GREY);
            }
            for (channel, sums) in self.channels.iter_mut().enumerate() {
                let value = f64::from(pixel[channel % clip.channels]) / 255.0;
                sums.count += weight;
                sums.sum += weight * value;
                sums.squares += weight * value * value;
            }
        }
    }

    /// The channels with which the images are read.
    fn shown(&self) -> usize {
        match self.channels.len() {
            0 => 1,
            3 if !self.coloured => 1,
            bands => bands,
        }
    }

    /// A number for each channel that the images have.
    fn each(&self, of: impl Fn(PixelSums) -> f32) -> Vec<f32> {
        let sums = |channel: usize| self.channels.get(channel).copied().unwrap_or_default();
        (0..self.shown()).map(|channel| of(sums(channel))).collect()
    }
}

/// The most by which the channels of a grey pixel differ. JPEG rounds them.
const GREY: u8 = 8;
