//! `saltworks inspect`: the contents of a set of images or of a weights file.

use crate::console::{Count, note, printable, result};
use crate::data::{self, Copies, Source, Survey, SurveyDepth};
use crate::failure::{Failure, input_error, run_error};
use crate::judge;
use crate::judge::stage_index;
use crate::mask::Grid;
use crate::recipe::{self, Data, Depth, ImageSize};
use crate::run_files::names::{MODEL, RECIPE};
use crate::weights::{ListedModel, ListedModels, Listing, ModelFile, TensorEntry, is_weights};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest number of classes that are listed.
const MOST_CLASSES: usize = 20;

/// Options of `inspect`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Anything that `data.path` accepts, a recipe (its sources), or weights. Weights are a run
    /// (its last stage), a transformers folder, or a safetensors or PyTorch file.
    path: PathBuf,
    /// Decode every image, not only its header.
    #[arg(long)]
    decode: bool,
    /// Of a file of weights with several models: the one to read, by the words before its names.
    #[arg(long, value_name = "PART")]
    part: Option<String>,
    /// Of a file of weights: the rows and columns of patches that its position table was made for,
    /// as 8x16, if they are no square and the file does not state them.
    #[arg(long, value_name = "ROWSxCOLUMNS")]
    grid: Option<Grid>,
    /// Of a file of weights: list every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Images whose headers are read first, to find those of more than eight bits. (guess)
const HEADERS: usize = 500;

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(file) = weights_of(&arguments.path)? {
        return inspect_weights(&file, arguments);
    }
    let of_recipe = arguments.path.extension().is_some_and(|extension| extension == "toml");
    let (source, data) = if of_recipe {
        let recipe = recipe::load(Some(&arguments.path), &[]).map_err(input_error)?;
        (judge::open_all(&recipe.data)?, recipe.data)
    } else {
        // No pixels are shown, so any background works. 224 is the usual size of a model's images.
        let mut data = Data { size: ImageSize::square(224), ..Data::default() };
        let mut source = data::open(&arguments.path, data.decoding()).map_err(input_error)?;
        if arguments.decode {
            // As `pretrain` without a recipe chooses it.
            let survey = Survey::of_some(&*source, HEADERS, Duration::MAX);
            let values = survey.stored_values(&*source, HEADERS);
            data.depth = values.as_ref().and_then(Depth::fitting);
            if data.depth.is_some() {
                source = data::open(&arguments.path, data.decoding()).map_err(input_error)?;
            }
        }
        (source, data)
    };
    let depth = if arguments.decode { SurveyDepth::Pixels } else { SurveyDepth::Headers };
    let mut count = Count::new(source.len());
    let survey = Survey::of(&*source, depth, |done| count.done(done));
    count.finish();
    let copies = data::copies_among(&*source);
    match arguments.json {
        true => result(&to_json(&*source, &survey, copies.as_ref()).to_string()),
        false => result(to_text(&*source, &survey, copies.as_ref()).trim_end()),
    }
    let notes = judge::size_notes(&survey, source.len(), data.size, data.threads);
    notes.iter().for_each(|words| note(words));
    let path =
        if of_recipe { data.path.clone().map(PathBuf::from) } else { Some(arguments.path.clone()) };
    if let Some(tests) = path.and_then(|path| data::tests_beside(&path, &*source)) {
        match tests.open(judge::test_options(&data)) {
            Ok(opened) => {
                note(&format!("beside the training images, to test: {}", opened.describe()));
                judge::note_tests_that_train(&[&*source], &tests.to_string(), &*opened);
            }
            Err(error) => note(&format!("images to test cannot be read: {error}")),
        }
    }
    let unfit = of_recipe.then(|| unfit(&survey, &data)).flatten();
    match survey.unreadable {
        0 => unfit.map_or(Ok(()), |problem| Err(run_error(problem))),
        n => Err(run_error(format!("{n} of {} images cannot be read", source.len()))),
    }
}

/// Why a run of this recipe could not read some images that are whole.
fn unfit(survey: &Survey, data: &Data) -> Option<String> {
    let wanted = data.channels();
    let colours = [1, 3];
    let fits =
        |found: usize| found == wanted || (colours.contains(&found) && colours.contains(&wanted));
    if let Some((found, images)) = survey.channels.iter().find(|(found, _)| !fits(**found)) {
        return Some(format!(
            "{images} images have {found} bands, and data.channels is {wanted}: they cannot be \
             read. Set data.channels={found}, or remove them"
        ));
    }
    let values = survey.values.as_ref().filter(|_| data.depth.is_none())?;
    let fitting = Depth::fitting(values).filter(|_| values.kind.usual_range().is_none())?;
    Some(format!(
        "{} images hold {}, and nothing says which of them are black and white: they cannot be \
         read. Set data.depth={fitting}",
        survey.deep.len(),
        values.describe()
    ))
}

/// Smallest, median and largest.
fn spread(sorted: &[usize]) -> Option<[usize; 3]> {
    Some([*sorted.first()?, sorted[(sorted.len() - 1) / 2], *sorted.last()?])
}

fn mean_pixels(survey: &Survey) -> f64 {
    survey.pixels as f64 / survey.heights.len().max(1) as f64
}

/// Classes with their numbers of images, largest first.
fn largest_classes<'a>(source: &'a dyn Source, survey: &Survey) -> Vec<(&'a str, usize)> {
    let names = source.classes().iter().map(String::as_str);
    let mut classes: Vec<_> = names.zip(survey.classes.iter().copied()).collect();
    // Stable sort: classes of equal size keep their order.
    classes.sort_by_key(|&(_, images)| std::cmp::Reverse(images));
    classes
}

fn to_text(source: &dyn Source, survey: &Survey, copies: Option<&Copies>) -> String {
    let mut text = format!("{}\n", source.describe());
    // Writing to a string cannot fail.
    for (name, sorted) in [("width", &survey.widths), ("height", &survey.heights)] {
        if let Some([least, median, most]) = spread(sorted) {
            let _ = writeln!(text, "{name:8}  {least} to {most}, median {median}");
        }
    }
    let channels = survey.channels.iter().map(|(channels, images)| match channels {
        1 => format!("{images} grey"),
        3 => format!("{images} colour"),
        bands => format!("{images} of {bands} bands"),
    });
    let _ = writeln!(text, "images    {}", channels.collect::<Vec<_>>().join(", "));
    let _ = writeln!(text, "pixels    {:.2} million per image", mean_pixels(survey) / 1e6);
    let _ = writeln!(text, "bytes     {}", survey.bytes);
    let sets = source.label_sets();
    if !sets.is_empty() {
        let _ = writeln!(text, "labels    {}: data.labels chooses a set", sets.join(", "));
    }
    if let Some(values) = &survey.values {
        let fitting = Depth::fitting(values);
        let shown = fitting.map_or(String::new(), |fitting| format!(". Fits data.depth={fitting}"));
        let (deep, found) = (survey.deep.len(), values.describe());
        let of = match survey.images_of_values {
            images if images < deep => format!("{images} of them hold "),
            _ => String::new(),
        };
        let _ = writeln!(text, "depth     {deep} of more than 8 bits: {of}{found}{shown}");
    }
    if let Some(Copies { images, different, example: Some([one, other]), .. }) = copies {
        let _ = writeln!(
            text,
            "copies    {images} images ({different} different ones), such as {one} and {other}"
        );
    }
    if let Some(words) = copies.and_then(judge::contradiction_text) {
        let _ = writeln!(text, "          {words}");
    }
    let notes = source.notes();
    notes.remarks.iter().for_each(|words| text.push_str(&format!("{words}\n")));
    notes.left_alone.iter().for_each(|what| text.push_str(&format!("not read: {what}\n")));
    let classes = largest_classes(source, survey);
    for (name, images) in classes.iter().take(MOST_CLASSES) {
        let _ = writeln!(text, "class     {images:>8}  {name}");
    }
    if classes.len() > MOST_CLASSES {
        let _ = writeln!(text, "          and {} more", classes.len() - MOST_CLASSES);
    }
    if survey.unlabelled > 0 && !classes.is_empty() {
        let _ = writeln!(text, "no class  {:>8}", survey.unlabelled);
    }
    for problem in &survey.problems {
        let _ = writeln!(text, "unreadable: {problem}");
    }
    if survey.unreadable > survey.problems.len() {
        let _ = writeln!(text, "and {} more", survey.unreadable - survey.problems.len());
    }
    text
}

fn to_json(source: &dyn Source, survey: &Survey, copies: Option<&Copies>) -> Value {
    let sides = |sorted: &[usize]| {
        spread(sorted).map(|[min, median, max]| json!({"min": min, "median": median, "max": max}))
    };
    let classes = largest_classes(source, survey);
    let class = |(name, images): &(&str, usize)| json!({"name": name, "images": images});
    let channels = survey.channels.iter();
    let notes = source.notes();
    json!({
        "source": source.describe(),
        "images": source.len(),
        "width": sides(&survey.widths),
        "height": sides(&survey.heights),
        "channels": channels
            .map(|(n, images)| (n.to_string(), *images))
            .collect::<std::collections::BTreeMap<_, _>>(),
        "mean_pixels": mean_pixels(survey),
        "bytes": survey.bytes,
        "deep": survey.values.map(|values| json!({
            "images": survey.deep.len(),
            "looked_at": survey.images_of_values,
            "kind": values.kind.to_string(),
            "min": values.range.min,
            "max": values.range.max,
            "max_of_darkest": values.darkest,
            "some_not_finite": values.some_not_finite,
            "depth": Depth::fitting(&values),
        })),
        "cut": survey.cut,
        "several_pictures": survey.several,
        "transparent": survey.transparent,
        "left_alone": notes.left_alone,
        "remarks": notes.remarks,
        "copies": copies.map(|copies| json!({
            "images": copies.images,
            "different": copies.different,
            "example": copies.example,
            "in_several_classes": copies.contradictory,
            "example_in_several_classes": copies.contradiction,
        })),
        "label_sets": source.label_sets(),
        "classes": classes.iter().map(class).collect::<Vec<_>>(),
        "unlabelled": survey.unlabelled,
        "unreadable": {
            "count": survey.unreadable,
            "too_large": survey.too_large,
            "first": survey.problems,
        },
    })
}

/// The weights file that a path names or contains.
fn weights_of(path: &Path) -> Result<Option<PathBuf>, Failure> {
    if path.join(RECIPE).is_file() {
        let recipe = recipe::load_trained(&path.join(RECIPE), &[]).map_err(input_error)?;
        let index = stage_index(path, &recipe, None)?;
        return Ok(Some(path.join(&recipe.stage[index].name).join(MODEL)));
    }
    let is_onnx = path.extension().is_some_and(|extension| extension == "onnx") && path.is_file();
    if is_onnx {
        let path = path.display();
        return Err(input_error(format!(
            "{path} is an ONNX graph, which cannot be read. Inspect the weights it was exported \
             from"
        )));
    }
    if path.is_dir() {
        // Any other folder may hold images.
        return Ok(ModelFile::find(path).ok());
    }
    Ok(is_weights(path).then(|| path.to_owned()))
}

fn inspect_weights(path: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let listing = Listing::read(path).map_err(input_error)?;
    let contents = listing.contents(path, arguments.part.as_deref(), arguments.grid);
    let contents = contents.map_err(input_error)?;
    if arguments.json {
        result(&weights_json(&listing, &contents).to_string());
        return Ok(());
    }
    let Listing { tensors, metadata } = listing;
    let values = tensors.iter().map(TensorEntry::values).fold(0, u64::saturating_add);
    result(&format!("{}: {} tensors, {values} values", path.display(), tensors.len()));
    let ListedModels { models, others, problem } = contents;
    for model in &models {
        let ListedModel { dialect, words, encoders, tensors, values, is_taken, problem } = model;
        let words =
            if words.is_empty() { String::new() } else { format!("{}: ", printable(words)) };
        let read = match (is_taken, problem) {
            (true, None) => "read".to_owned(),
            (false, None) => "not read".to_owned(),
            (_, Some(problem)) => format!("cannot be read, because {}", printable(problem)),
        };
        result(&format!("{words}{dialect}, {tensors} tensors, {values} values: {read}"));
        encoders.iter().for_each(|encoder| result(&format!("  {encoder}")));
    }
    if let Some(problem) = problem {
        result(&format!("no model would be read: the file {problem}"));
    }
    for (word, tensors, values) in &others {
        let (word, count) = (printable(word), if *tensors == 1 { "tensor" } else { "tensors" });
        result(&format!("not read: {word}, {tensors} {count}, {values} values"));
    }
    if arguments.tensors {
        let width = tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
        for tensor in &tensors {
            let name = printable(&tensor.name);
            result(&format!("{name:width$}  {}  {:?}", tensor.dtype, tensor.shape));
        }
    }
    for (key, value) in &metadata {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        result(&format!("{key} = {text}"));
    }
    Ok(())
}

fn weights_json(listing: &Listing, contents: &ListedModels) -> Value {
    let tensor = |t: &TensorEntry| json!({"name": t.name, "dtype": t.dtype, "shape": t.shape});
    let model = |model: &ListedModel| {
        json!({
            "words": model.words,
            "dialect": model.dialect,
            "encoders": model.encoders,
            "tensors": model.tensors,
            "values": model.values,
            "read": model.is_taken && model.problem.is_none(),
            "problem": model.problem,
        })
    };
    let other = |other: &(String, usize, u64)| {
        let (word, tensors, values) = other;
        json!({ "word": word, "tensors": tensors, "values": values })
    };
    json!({
        "tensors": listing.tensors.iter().map(tensor).collect::<Vec<_>>(),
        "metadata": listing.metadata,
        "models": contents.models.iter().map(model).collect::<Vec<_>>(),
        "others": contents.others.iter().map(other).collect::<Vec<_>>(),
        "problem": contents.problem,
    })
}
