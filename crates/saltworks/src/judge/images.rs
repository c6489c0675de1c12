//! The images of a recipe. Its sources are opened, mixed, and split into training images and images
//! held out for probes.

use crate::console::note;
use crate::data::{
    self, Copies, Holdout, Mixed, Notes, OpenOptions, Source, Split, Survey, hold_out_of,
};
use crate::failure::{Failure, input_error};
use crate::recipe::{Data, DataSource, Depth, Recipe};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Test images, and their path.
pub(crate) type TestSet = (String, Arc<dyn Source>);

/// The images of a run.
pub(crate) struct ImageSets {
    /// Training images. Each source is repeated by its weight.
    pub(crate) train: Arc<dyn Source>,
    /// The same images, each once, to fit probes on. Copies would vote twice, and would be on both
    /// sides when a penalty is chosen.
    pub(crate) to_probe: Arc<dyn Source>,
    /// Held-out images for probes. None without a holdout. All images must have classes, and there
    /// must be at least two classes.
    pub(crate) held_out: Option<Arc<dyn Source>>,
    /// More images for the probes after training, by their paths.
    pub(crate) more_tests: Vec<TestSet>,
    /// Whether the probes use a folder beside the training images.
    pub(crate) is_beside: bool,
    /// Why nothing is held out although the recipe requests it.
    pub(crate) reason: Option<String>,
}

/// Opens the data and holds out what the probes need.
pub(crate) fn open_images(recipe: &Recipe) -> Result<ImageSets, Failure> {
    let data = &recipe.data;
    let sources = open_sources(data)?;
    let tests = open_tests(recipe, &sources)?;
    refuse_tests_in_training(&sources, &tests)?;
    note_unknown_classes(&sources, &tests);
    let all = sources.iter().map(|(source, _)| source);
    let classes = data::unite(all.chain(tests.iter().map(|(_, source)| source)));
    let len: usize = sources.iter().map(|(source, _)| source.len()).sum();
    let reason = why_unprobed(&sources, classes.len(), len);
    let holdout = match data.holdout {
        None if !tests.is_empty() => 0,
        _ => data.held_out_of(len),
    };
    let train: Vec<&dyn Source> = sources.iter().map(|(source, _)| &**source).collect();
    tests.iter().for_each(|(path, test)| note_tests_that_train(&train, path, &**test));
    if holdout == 0 || reason.is_some() {
        // All images are used for training.
        let sources = sources.into_iter().map(|(source, given)| (source, given.weight));
        let [train, to_probe] = weighted_and_once(sources.collect(), classes.clone())?;
        let tests = if reason.is_some() { Vec::new() } else { labelled(tests, &classes)? };
        tests.iter().for_each(|(path, test)| note_missing_classes(path, &**test, &*to_probe));
        let mut tests = tests.into_iter();
        let held_out = tests.next().map(|(_, source)| source);
        let is_beside = held_out.is_some() && recipe.probe.test.is_empty();
        let more_tests = tests.collect();
        return Ok(ImageSets { train, to_probe, held_out, more_tests, is_beside, reason });
    }
    refuse_shared_files(&sources)?;
    if holdout + 2 > len {
        let what: Vec<_> = sources.iter().map(|(source, _)| source.describe()).collect();
        let (most, usual) = (len.saturating_sub(2), len / 5);
        let (what, name) = (what.join("; "), recipe.origin.name());
        let problem = format!(
            "data.holdout is {holdout}, expected 0 to {most} of the images ({what}). Set \
             data.holdout in {name} or add e.g. --set data.holdout={usual}"
        );
        return Err(input_error(recipe.origin.refuse(&["data.holdout"], problem)));
    }
    let (train, held_out) = split(sources, data, holdout)?;
    let [train, to_probe] = weighted_and_once(train, classes.clone())?;
    let held_out = if held_out.is_empty() { None } else { Some(mix(held_out, classes.clone())?) };
    if let Some(source) = &held_out {
        note_missing_classes("the held-out images", &**source, &*to_probe);
    }
    let more_tests = labelled(tests, &classes)?;
    more_tests.iter().for_each(|(path, test)| note_missing_classes(path, &**test, &*to_probe));
    Ok(ImageSets { train, to_probe, held_out, more_tests, is_beside: false, reason: None })
}

/// Sources with their weights.
type WeightedSources = Vec<(Arc<dyn Source>, f64)>;

/// Training and held-out images. Each source gives its share of the `holdout` images before weights
/// apply. Held-out images and their copies are never trained on.
fn split(
    sources: Vec<NamedSource>,
    data: &Data,
    holdout: usize,
) -> Result<(WeightedSources, WeightedSources), Failure> {
    let len: usize = sources.iter().map(|(source, _)| source.len()).sum();
    let (mut parts, mut before) = (Vec::new(), 0);
    for (source, given) in &sources {
        let share = |images: usize| images * holdout / len;
        let count = share(before + source.len()) - share(before);
        let count = count.min(source.len() - 1);
        before += source.len();
        let which = which_held_out(&given.path, data, count, source.len());
        parts.push((source.clone(), Some(which).filter(|_| count > 0)));
    }
    let found = hold_out_of(&parts).map_err(input_error)?;
    copies_text(&found).iter().for_each(|text| note(text));
    let (mut train, mut held_out): (WeightedSources, WeightedSources) = (Vec::new(), Vec::new());
    for ((source, given), (part, held)) in sources.into_iter().zip(found.parts) {
        if held.is_empty() {
            train.push((source, given.weight));
            continue;
        }
        train.push((Arc::new(part), given.weight));
        held_out.push((Arc::new(held), 1.0));
    }
    Ok((train, held_out))
}

/// What to say of images that have the bytes of others, when some are held out.
pub(crate) fn copies_text(split: &Split) -> Option<String> {
    let Copies { images, different, example, unread, .. } = &split.copies;
    if *unread > 0 {
        return Some(format!(
            "copies of held-out images are not looked for: {unread} images have the lengths of \
             such images, too many to compare. `saltworks inspect` compares them all"
        ));
    }
    let [one, other] = example.as_ref()?;
    let fate = match split.on_both_sides {
        true => "Some are held out and others train. Remove them: probes are too good with them",
        false => "Copies are held out together, or train together",
    };
    let copies = format!("{images} images are copies ({different} different ones)");
    let classes = contradiction_text(&split.copies);
    let classes = classes.map_or(String::new(), |classes| format!(". {classes}"));
    Some(format!("{copies}, such as {one} and {other}. {fate}{classes}"))
}

/// What to say of equal images in different classes.
pub(crate) fn contradiction_text(copies: &Copies) -> Option<String> {
    let [one, other] = copies.contradiction.as_ref()?;
    let count = copies.contradictory;
    Some(format!("{count} of the different ones are in several classes, such as {one} and {other}"))
}

/// The images of `probe.test`, or those to validate or test beside the training images.
fn open_tests(recipe: &Recipe, sources: &[NamedSource]) -> Result<Vec<TestSet>, Failure> {
    if recipe.probe.test.is_empty() {
        return Ok(tests_beside_sources(&recipe.data, sources).into_iter().collect());
    }
    let options = test_options(&recipe.data);
    let open = |path: &String| {
        let source = data::open(Path::new(path), options.clone())
            .map_err(|error| input_error(format!("probe.test: {error}")))?;
        Ok((path.clone(), test_labels(source, &recipe.data).map_err(input_error)?))
    };
    recipe.probe.test.iter().map(open).collect()
}

/// How test images are read: as the training images, if those are of one source.
pub(crate) fn test_options(data: &Data) -> OpenOptions {
    let mut columns = data.sources().into_iter().map(|source| source.column);
    let column = columns.next().flatten().filter(|_| columns.next().is_none());
    let clips = data.frames > 1;
    OpenOptions { decoding: data.decoding(), column, clips, tests: true }
}

/// The validation images beside the training images, if each has a class. Nobody asked for them, so
/// others are not an error.
fn tests_beside_sources(data: &Data, sources: &[NamedSource]) -> Option<TestSet> {
    match sources {
        [(source, given)] if data.holdout.is_none() => tests_beside(
            (&given.path, source),
            data,
            "probe.test names others, and data.holdout holds images out instead",
        ),
        _ => None,
    }
}

/// The same for the images that a source reads of its path. `instead` is how to use others.
pub(crate) fn tests_beside(
    (path, source): (&str, &Arc<dyn Source>),
    data: &Data,
    instead: &str,
) -> Option<TestSet> {
    let found = data::tests_beside(Path::new(path), &**source)?;
    let name = found.to_string();
    let opened = found.open(test_options(data)).map_err(|error| error.to_string());
    let opened = opened.and_then(|source| test_labels(source, data));
    let unused = |why: &str| {
        note(&format!(
            "{name} is not used for probes: {why}. Training images are held out if possible"
        ));
    };
    match opened {
        Err(error) => unused(&error),
        Ok(source) if (0..source.len()).any(|index| source.label(index) < 0) => {
            unused("not all of its images have a class");
        }
        Ok(source) => {
            note(&format!("probing on {name}, which is beside the training images. {instead}"));
            return Some((name, source));
        }
    }
    None
}

/// Test images with the numbers of these classes. Each must have a class.
fn labelled(tests: Vec<TestSet>, classes: &[String]) -> Result<Vec<TestSet>, Failure> {
    let number = |(path, source): TestSet| {
        if let Some(index) = (0..source.len()).find(|&index| source.label(index) < 0) {
            return Err(input_error(format!(
                "{path}: {} has no class, expected one for each image of probe.test. Give each a \
                 class, e.g. by a folder per class, or set data.holdout to hold images out instead",
                source.stamp(index).name
            )));
        }
        Ok((path, mix(vec![(source, 1.0)], classes.to_vec())?))
    };
    tests.into_iter().map(number).collect()
}

/// Why no image can be held out. Probes need a class for each image.
fn why_unprobed(sources: &[NamedSource], classes: usize, len: usize) -> Option<String> {
    let unlabelled =
        |source: &Arc<dyn Source>| (0..source.len()).filter(|&i| source.label(i) < 0).count();
    let count: usize = sources.iter().map(|(source, _)| unlabelled(source)).sum();
    match (count, classes) {
        (_, 0) => Some("no image has a class".to_owned()),
        (0, 1) => Some("all images have one class".to_owned()),
        (0, _) => None,
        (count, _) => {
            let first = sources.iter().find_map(|(source, _)| {
                let index = (0..source.len()).find(|&i| source.label(i) < 0)?;
                Some(source.stamp(index).name)
            });
            Some(format!(
                "{count} of {len} images have no class. The first is {}. Give each image a class, \
                 e.g. by a folder per class, or remove these images to get probes",
                first.unwrap_or_default()
            ))
        }
    }
}

/// The sources as one by their weights, and as one with each image once.
fn weighted_and_once(
    sources: Vec<(Arc<dyn Source>, f64)>,
    classes: Vec<String>,
) -> Result<[Arc<dyn Source>; 2], Failure> {
    if sources.iter().all(|(_, weight)| *weight == 1.0) {
        let all = mix(sources, classes)?;
        return Ok([all.clone(), all]);
    }
    let once = sources.iter().map(|(source, _)| (source.clone(), 1.0)).collect();
    Ok([mix(sources, classes.clone())?, mix(once, classes)?])
}

/// All images of a recipe, each once.
pub(crate) fn open_all(data: &Data) -> Result<Arc<dyn Source>, Failure> {
    let sources = open_sources(data)?;
    let classes = data::unite(sources.iter().map(|(source, _)| source));
    mix(sources.into_iter().map(|(source, _)| (source, 1.0)).collect(), classes)
}

/// The images to test beside a recipe's images, or in the same list or table. Their classes
/// have the numbers of the others.
pub(crate) fn open_all_tests(data: &Data) -> Result<Arc<dyn Source>, Failure> {
    let sources = open_sources(data)?;
    let [(source, given)] = sources.as_slice() else {
        let count = sources.len();
        return Err(input_error(format!(
            "--tests needs images of one source, but there are {count}. Give one with --data"
        )));
    };
    let Some(found) = data::tests_beside(Path::new(&given.path), &**source) else {
        return Err(input_error(format!(
            "{}: no images to test are in this folder, list or table. Give the path that holds \
             both kinds, or leave out --tests",
            given.path
        )));
    };
    let tests = found.open(test_options(data)).map_err(input_error)?;
    let tests = test_labels(tests, data).map_err(input_error)?;
    let classes = data::unite([source, &tests]);
    mix(vec![(tests, 1.0)], classes)
}

/// A source and the lines of the recipe that name it.
type NamedSource = (Arc<dyn Source>, DataSource);

fn open_sources(data: &Data) -> Result<Vec<NamedSource>, Failure> {
    let mut paths = BTreeSet::new();
    let mut sources = Vec::new();
    for given in data.sources() {
        let path = Path::new(&given.path);
        // An image in both would be trained on and held out.
        if !paths.insert(path.canonicalize().unwrap_or_else(|_| path.into())) {
            let problem = "data.source has it twice. Give it once, with a larger weight";
            return Err(input_error(format!("{}: {problem}", given.path)));
        }
        let column = given.column.clone();
        let (decoding, clips) = (data.decoding(), data.frames > 1);
        let options = OpenOptions { decoding, column, clips, tests: false };
        let source = data::open(path, options).map_err(input_error)?;
        if let (Some(column), None) = (&given.column, source.column()) {
            return Err(input_error(format!(
                "{}: `column` is {column:?}, but it has no columns, expected parquet files. \
                 Remove that key (--column of probe and embed)",
                given.path
            )));
        }
        sources.push((chosen_labels(source, data).map_err(input_error)?, given));
    }
    Ok(sources)
}

/// Images to test with the set of labels that the recipe chooses, or with their only one.
pub(crate) fn test_labels(source: Arc<dyn Source>, data: &Data) -> Result<Arc<dyn Source>, String> {
    if source.label_sets().is_empty() { Ok(source) } else { chosen_labels(source, data) }
}

/// A source with the set of labels that the recipe chooses.
fn chosen_labels(source: Arc<dyn Source>, data: &Data) -> Result<Arc<dyn Source>, String> {
    let Some(set) = &data.labels else { return Ok(source) };
    source.labelled_by(set).ok_or_else(|| {
        let found = match source.label_sets().as_slice() {
            [] => "has no sets of labels by name. Leave out data.labels (--labels)".to_owned(),
            sets => format!("has the sets {}", sets.join(", ")),
        };
        let what = source.describe();
        let path = what.split_once(": ").map_or(what.as_str(), |(path, _)| path);
        format!("data.labels is {set:?}, but {path} {found}")
    })
}

/// Notes test images whose class no training image has: no probe can find it.
fn note_unknown_classes(sources: &[NamedSource], tests: &[TestSet]) {
    let known: BTreeSet<&str> =
        sources.iter().flat_map(|(source, _)| source.classes()).map(String::as_str).collect();
    for (path, test) in tests {
        let is_unknown = |index: &usize| {
            let class = usize::try_from(test.label(*index)).ok();
            class.is_some_and(|class| !known.contains(test.classes()[class].as_str()))
        };
        let unknown = (0..test.len()).filter(is_unknown).count();
        if unknown > 0 {
            note(&format!(
                "{path}: {unknown} of {} images are of classes that no training image has. No \
                 probe can be right on them",
                test.len()
            ));
        }
    }
}

/// Notes classes of the training images that no test image has. Both have the same classes.
pub(crate) fn note_missing_classes(what: &str, test: &dyn Source, train: &dyn Source) {
    let classes = |source: &dyn Source| -> BTreeSet<i32> {
        (0..source.len()).map(|index| source.label(index)).filter(|class| *class >= 0).collect()
    };
    let (known, tested) = (classes(train), classes(test));
    let missing: Vec<&i32> = known.difference(&tested).collect();
    if let Some(&&first) = missing.first() {
        let (count, first) = (missing.len(), &train.classes()[first as usize]);
        note(&format!(
            "{what}: no image of {count} of the {} classes that are trained on, such as {first}. \
             Probes do not judge these",
            known.len()
        ));
    }
}

/// Notes test images at `path` that have the bytes of training images.
pub(crate) fn note_tests_that_train(train: &[&dyn Source], path: &str, test: &dyn Source) {
    let Copies { images, example, compared, unread, .. } = data::copies_between(train, test);
    if unread > 0 {
        note(&format!(
            "{path}: copies of training images are not looked for: {unread} images have equal \
             lengths, too many to compare"
        ));
    }
    if let Some([train, test]) = example {
        note(&format!(
            "{path}: {images} of {compared} images that were compared are training images, too, \
             such as {test}, a copy of {train}. Remove them: probes are too good with them"
        ));
    }
}

/// Images whose numbers are looked at before others are judged, and the time for it. (guess)
const MOST_DEEP: usize = 16;
const DEEP_TIME: Duration = Duration::from_secs(2);

/// Notes numbers of images at `path` that are not shown as they should be with this depth.
pub(crate) fn note_depth(path: &str, source: &dyn Source, depth: Option<Depth>) {
    let survey = Survey::of_some(source, MOST_DEEP, DEEP_TIME);
    let values = survey.stored_values(source, MOST_DEEP);
    let doubts = values.iter().flat_map(|values| Depth::doubts(depth, values, "--depth"));
    doubts.for_each(|doubt| note(&format!("{path}: {doubt}")));
}

/// Notes how a source is read, and what of it is `not`: not read, or not trained on.
pub(crate) fn note_reading(source: &dyn Source, not: &str) {
    let Notes { left_alone, remarks } = source.notes();
    remarks.iter().for_each(|words| note(words));
    left_alone.iter().for_each(|what| note(&format!("{not}: {what}")));
}

/// Refuses test images that are training images, also through a link.
fn refuse_tests_in_training(sources: &[NamedSource], tests: &[TestSet]) -> Result<(), Failure> {
    for (path, test) in tests {
        for (source, given) in sources {
            let both = [(source, given.path.as_str()), (test, path.as_str())];
            // Sources without files, such as built-in ones and objects in stores.
            if source.describe() == test.describe() {
                return Err(input_error(format!(
                    "{path} is both what is trained on and a part of probe.test. Remove it there, \
                     or hold images out with data.holdout"
                )));
            }
            if let Some(SharedFile { file, first, .. }) = shared_file(&both) {
                return Err(input_error(format!(
                    "{} is in the images to train on, {first}, and in {path} of probe.test. \
                     Remove it from one of them",
                    file.display()
                )));
            }
        }
    }
    Ok(())
}

/// Refuses sources that share a file, also through a link. An image that one source holds out would
/// be trained on through the other.
fn refuse_shared_files(sources: &[NamedSource]) -> Result<(), Failure> {
    let named: Vec<_> =
        sources.iter().map(|(source, given)| (source, given.path.as_str())).collect();
    let Some(SharedFile { file, first, second }) = shared_file(&named) else { return Ok(()) };
    let file = file.display();
    Err(input_error(format!(
        "{file} is in the sources {first} and {second}, so it could be both trained on and held \
         out. Remove it from one of them, or hold out nothing with --set data.holdout=0"
    )))
}

/// A file of two sources.
pub(crate) struct SharedFile<'a> {
    pub(crate) file: PathBuf,
    pub(crate) first: &'a str,
    pub(crate) second: &'a str,
}

/// A file that two of these sources share, also through a link.
pub(crate) fn shared_file<'a>(sources: &[(&Arc<dyn Source>, &'a str)]) -> Option<SharedFile<'a>> {
    let mut owners = HashMap::new();
    // A single source shares no file, so its files are not checked.
    for (index, (source, name)) in sources.iter().enumerate().filter(|_| sources.len() > 1) {
        for file in source.files() {
            // A file that cannot be checked is reported when it is read.
            let Ok(found) = file.metadata() else { continue };
            let owner = *owners.entry((found.dev(), found.ino())).or_insert(index);
            if owner != index {
                return Some(SharedFile {
                    file: file.to_owned(),
                    first: sources[owner].1,
                    second: name,
                });
            }
        }
    }
    None
}

fn which_held_out(path: &str, data: &Data, count: usize, len: usize) -> Holdout {
    if path.starts_with("builtin:") {
        return Holdout::Last { count };
    }
    Holdout::Share { fraction: count as f64 / len as f64, seed: data.holdout_seed }
}

/// The sources as one. A single source with weight 1 is returned unchanged.
fn mix(
    mut sources: Vec<(Arc<dyn Source>, f64)>,
    classes: Vec<String>,
) -> Result<Arc<dyn Source>, Failure> {
    match sources.as_slice() {
        [(source, 1.0)] if source.classes() == classes => Ok(sources.remove(0).0),
        _ => Ok(Arc::new(Mixed::new(sources, classes).map_err(input_error)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Normalize;

    fn folder(root: &Path, name: &str, values: std::ops::Range<u8>) -> DataSource {
        for value in values {
            let class = root.join(name).join(format!("class{}", value % 2));
            std::fs::create_dir_all(&class).unwrap();
            let image = image::GrayImage::from_pixel(2, 2, image::Luma([value]));
            image.save(class.join(format!("{value:03}.png"))).unwrap();
        }
        let path = root.join(name).display().to_string();
        DataSource { path, weight: 2.0, ..DataSource::default() }
    }

    fn values(source: &Arc<dyn Source>) -> BTreeSet<u8> {
        (0..source.len()).map(|at| source.read(at).unwrap().clip.data[0]).collect()
    }

    fn images(source: Vec<DataSource>) -> Result<ImageSets, Failure> {
        let normalize = Normalize::default();
        let data = Data { source, holdout: Some(8), normalize, ..Data::default() };
        open_images(&Recipe { data, ..Recipe::default() })
    }

    #[test]
    fn a_column_is_refused_if_the_images_are_in_no_table() {
        let root = tempfile::tempdir().unwrap();
        let path = folder(root.path(), "a", 0..3).path;
        let data = Data { path: Some(path), column: Some("jpg".to_owned()), ..Data::default() };
        let Err(Failure::Input(error)) = open_all(&data) else { panic!("refused") };
        let message = error.to_string();
        assert!(message.contains("`column` is \"jpg\", but it has no columns"));
        assert_eq!(test_options(&data).column.as_deref(), Some("jpg"));
    }

    #[test]
    fn what_is_held_out_of_several_sources_never_trains() {
        let folder_of_all = tempfile::tempdir().unwrap();
        let (a, b) =
            (folder(folder_of_all.path(), "a", 0..30), folder(folder_of_all.path(), "b", 100..110));
        let found = images(vec![a, b]).ok().unwrap();
        let held_out = found.held_out.unwrap();
        assert_eq!((found.train.len(), held_out.len()), (2 * 32, 8));
        let (train, held_out) = (values(&found.train), values(&held_out));
        assert_eq!((train.len(), held_out.len()), (32, 8));
        assert!(train.is_disjoint(&held_out));
        assert_eq!(held_out.iter().filter(|&&value| value >= 100).count(), 2);
        assert_eq!(found.to_probe.len(), 32, "each image once");
        assert_eq!(values(&found.to_probe), train);
    }

    #[test]
    fn a_source_given_twice_is_refused() {
        let folder_of_all = tempfile::tempdir().unwrap();
        let a = folder(folder_of_all.path(), "a", 0..30);
        let again = DataSource { path: format!("{}/../a", a.path), ..a.clone() };
        let Err(Failure::Input(error)) = images(vec![a, again]) else { panic!("not refused") };
        assert!(error.to_string().contains("data.source has it twice"), "{error}");
    }

    #[test]
    fn sources_that_share_a_file_are_refused_if_images_are_held_out() {
        let folder_of_all = tempfile::tempdir().unwrap();
        let a = folder(folder_of_all.path(), "a", 0..30);
        let above = DataSource { path: folder_of_all.path().display().to_string(), ..a.clone() };
        let b = folder(folder_of_all.path(), "b", 100..110);
        std::fs::hard_link(
            folder_of_all.path().join("a/class0/000.png"),
            folder_of_all.path().join("b/class0/linked.png"),
        )
        .unwrap();
        for other in [above.clone(), b] {
            let Err(Failure::Input(error)) = images(vec![a.clone(), other]) else {
                panic!("not refused")
            };
            assert!(error.to_string().contains("is in the sources"), "{error}");
        }
        let normalize = Normalize::default();
        let data = Data { source: vec![a, above], holdout: Some(0), normalize, ..Data::default() };
        assert!(open_images(&Recipe { data, ..Recipe::default() }).is_ok());
    }

    #[test]
    fn the_shares_of_several_sources_add_up_to_the_holdout() {
        let root = tempfile::tempdir().unwrap();
        let source = |n: u8| folder(root.path(), &format!("s{n}"), 40 * n..40 * n + 7);
        let found = images((0..3).map(source).collect()).ok().unwrap();
        let held_out = values(&found.held_out.unwrap());
        assert_eq!(held_out.len(), 8);
        // 8 of 21 images are two and two thirds of seven.
        let of = [0, 1, 2].map(|n| held_out.iter().filter(|value| **value / 40 == n).count());
        assert!(of.iter().all(|count| [2, 3].contains(count)), "{of:?}");
    }
}
