//! From a recipe to data, models and methods.

use crate::console::note;
use crate::data::{
    self, Crop, Effects, Holdout, Loader, LoaderOptions, Mixed, Order, Source, Transform, hold_out,
};
use crate::failure::{Failure, asked};
use crate::method::{Covered, Mae, MaeOptions, Method, PixelNorm, SaltOptions};
use crate::model::{Encoder, SpecError, TransformerSpec, VitSpec};
use crate::recipe::{
    self, Data, DataSource, ImageSize, Loss, Model, PatchSize, Recipe, Schedule, Stage, Trunk,
};
use crate::train::{self, Curve, OptimizerOptions};
use engine::ops::LossKind;
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The images of a run.
pub(crate) struct Images {
    /// Trains, each source as often as its weight says.
    pub(crate) train: Arc<dyn Source>,
    /// The same images once each, from which probes learn: copies would vote twice, and stand on both sides
    /// where a penalty is chosen.
    pub(crate) to_probe: Arc<dyn Source>,
    /// Probes; none without a holdout, or where not every image has one of two classes or more.
    pub(crate) held_out: Option<Arc<dyn Source>>,
    /// Why nothing is held out though the recipe asks for it.
    pub(crate) reason: Option<String>,
}

/// Opens the data and holds out what the probes need.
pub(crate) fn open(recipe: &Recipe) -> Result<Images, Failure> {
    if let Some(taken) = recipe.taken_over() {
        note(&format!("of the built-in recipe: {taken}; --set changes them"));
    }
    let data = &recipe.data;
    let sources = open_sources(data)?;
    let classes = data::unite(sources.iter().map(|(source, _)| source));
    let len: usize = sources.iter().map(|(source, _)| source.len()).sum();
    let reason = why_unprobed(&sources, classes.len(), len);
    let holdout = data.held_out_of(len);
    if holdout == 0 || reason.is_some() {
        // Nothing to probe: all images train.
        let sources = sources.into_iter().map(|(source, given)| (source, given.weight));
        let [train, to_probe] = weighted_and_once(sources.collect(), classes)?;
        return Ok(Images { train, to_probe, held_out: None, reason });
    }
    refuse_shared_files(&sources)?;
    if holdout + 2 > len {
        let what: Vec<_> = sources.iter().map(|(source, _)| source.describe()).collect();
        let (most, usual) = (len.saturating_sub(2), len / 5);
        let (what, name) = (what.join("; "), recipe.origin.name());
        let problem = format!(
            "data.holdout is {holdout}, expected 0 to {most} of the images ({what}). Set data.holdout in \
             {name} or add --set data.holdout={usual}, say"
        );
        return Err(asked(recipe.origin.refuse(&["data.holdout"], problem)));
    }
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    let mut before = 0;
    for (source, given) in sources {
        // Each source gives its share, before weights: what is held out never trains.
        let share = |images: usize| images * holdout / len;
        let count = share(before + source.len()) - share(before);
        let count = count.min(source.len() - 1);
        before += source.len();
        if count == 0 {
            train.push((source, given.weight));
            continue;
        }
        let which = which_held_out(&given.path, data, count, source.len());
        let (part, held) = hold_out(&source, which).map_err(asked)?;
        train.push((Arc::new(part), given.weight));
        held_out.push((Arc::new(held) as Arc<dyn Source>, 1.0));
    }
    let [train, to_probe] = weighted_and_once(train, classes.clone())?;
    let held_out = if held_out.is_empty() { None } else { Some(mix(held_out, classes)?) };
    Ok(Images { train, to_probe, held_out, reason: None })
}

/// Why no image can be held out for probes, which need a class for each of them.
fn why_unprobed(sources: &[Opened], classes: usize, len: usize) -> Option<String> {
    let unlabelled =
        |source: &Arc<dyn Source>| (0..source.len()).filter(|&i| source.label(i) < 0).count();
    let count: usize = sources.iter().map(|(source, _)| unlabelled(source)).sum();
    match (count, classes) {
        (_, 0) => Some("no image has a class".to_owned()),
        (0, 1) => Some("all images have one class".to_owned()),
        (0, _) => None,
        (count, _) => {
            let first = sources.iter().find_map(|(source, _)| {
                let place = (0..source.len()).find(|&i| source.label(i) < 0)?;
                Some(source.stamp(place).name)
            });
            Some(format!(
                "{count} of {len} images have no class, the first is {}: give each one, as a folder of \
                 its class does, or take them out, and there will be probes",
                first.unwrap_or_default()
            ))
        }
    }
}

/// The sources as one by their weights, and once each.
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

/// A source and the lines of the recipe that name it.
type Opened = (Arc<dyn Source>, DataSource);

fn open_sources(data: &Data) -> Result<Vec<Opened>, Failure> {
    let mut paths = BTreeSet::new();
    let mut sources = Vec::new();
    for given in data.sources() {
        let path = Path::new(&given.path);
        // An image of both would train where it is held out.
        if !paths.insert(path.canonicalize().unwrap_or_else(|_| path.into())) {
            let problem = "data.source has it twice. Give it once, with a greater weight";
            return Err(asked(format!("{}: {problem}", given.path)));
        }
        sources.push((data::open(path, data.background).map_err(asked)?, given));
    }
    Ok(sources)
}

/// Refuses sources that read one file, also by a link: what one of them holds out would train by way
/// of another.
fn refuse_shared_files(sources: &[Opened]) -> Result<(), Failure> {
    let named: Vec<_> =
        sources.iter().map(|(source, given)| (source, given.path.as_str())).collect();
    let Some(Shared { file, first, second }) = shared_file(&named) else { return Ok(()) };
    let file = file.display();
    Err(asked(format!(
        "{file}: is in the sources {first} and {second}, so that it could train where it is held out. \
         Leave it to one of them, or hold out nothing by --set data.holdout=0"
    )))
}

/// A file of two sources.
pub(crate) struct Shared<'a> {
    pub(crate) file: PathBuf,
    pub(crate) first: &'a str,
    pub(crate) second: &'a str,
}

/// A file that two of these sources read, also by a link.
pub(crate) fn shared_file<'a>(sources: &[(&Arc<dyn Source>, &'a str)]) -> Option<Shared<'a>> {
    let mut owners = HashMap::new();
    // A source alone shares with none: no need to look at each of its files.
    for (place, (source, name)) in sources.iter().enumerate().filter(|_| sources.len() > 1) {
        for file in source.files() {
            // What cannot be looked at is named when it is read.
            let Ok(found) = file.metadata() else { continue };
            let owner = *owners.entry((found.dev(), found.ino())).or_insert(place);
            if owner != place {
                return Some(Shared {
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

/// The sources as one; one source alone with weight 1 stays what it is.
fn mix(
    mut sources: Vec<(Arc<dyn Source>, f64)>,
    classes: Vec<String>,
) -> Result<Arc<dyn Source>, Failure> {
    match sources.as_slice() {
        [(source, 1.0)] if source.classes() == classes => Ok(sources.remove(0).0),
        _ => Ok(Arc::new(Mixed::new(sources, classes).map_err(asked)?)),
    }
}

/// One number for all channels, or one each.
fn by_channel(values: &[f32], channels: usize) -> Vec<f32> {
    if values.len() == 1 { vec![values[0]; channels] } else { values.to_vec() }
}

/// The normalisation of pixels.
pub(crate) fn normalize(data: &Data) -> data::Normalize {
    data::Normalize {
        mean: by_channel(&data.normalize.mean, data.channels()),
        std: by_channel(&data.normalize.std, data.channels()),
    }
}

/// How training batches are loaded.
pub(crate) fn training_loader(recipe: &Recipe, stage: &Stage, place: usize) -> LoaderOptions {
    let data = &recipe.data;
    let augment = &data.augment;
    let whole = augment.crop_scale.min == 1.0 && augment.crop_scale.max == 1.0;
    let crop = if whole {
        Crop::Center { zoom: 1.0 }
    } else {
        Crop::RandomResized { scale: augment.crop_scale, ratio: augment.crop_aspect }
    };
    let effects = Effects {
        jitter: augment.jitter,
        greyscale: augment.greyscale,
        blur: augment.blur,
        solarize: augment.solarize,
    };
    // Each stage has its own order and augmentations.
    let seed = stage_seed(recipe.seed, place);
    LoaderOptions {
        batch: stage.batch / stage.accumulate,
        threads: data.threads,
        prefetch: 2 * data.threads + 2,
        order: Order::Shuffled { seed },
        first_sample: 0,
        augment_seed: seed,
        transform: Transform {
            frames: 1,
            size: data.size.sides(),
            crop,
            flip: augment.flip,
            interpolation: augment.interpolation,
            effects,
        },
        channels: data.channels(),
        normalize: normalize(data),
        max_unreadable: data.max_unreadable,
    }
}

/// Pixels of a batch whose features are made at once, so that a signal finds its end soon.
const FEATURE_PIXELS: usize = 250 * 64 * 64;

/// A loader of all images of a source in order, brought to `size`, for features.
pub(crate) fn feature_loader(
    data: &Data,
    size: ImageSize,
    source: Arc<dyn Source>,
) -> Result<Loader, Failure> {
    Loader::new(source, feature_options(data, size)).map_err(asked)
}

/// How whole images are loaded, each once.
pub(crate) fn feature_options(data: &Data, size: ImageSize) -> LoaderOptions {
    LoaderOptions {
        batch: (FEATURE_PIXELS / (size.height * size.width).max(1)).clamp(16, 250),
        threads: data.threads,
        prefetch: 2 * data.threads + 2,
        order: Order::Once,
        first_sample: 0,
        augment_seed: 0,
        transform: Transform {
            crop: Crop::Center { zoom: data.eval_zoom },
            ..Transform::center(size.sides())
        },
        channels: data.channels(),
        normalize: normalize(data),
        max_unreadable: data.max_unreadable,
    }
}

/// The seed of stage number `place`.
pub(crate) fn stage_seed(seed: u64, place: usize) -> u64 {
    // An odd constant: different stages of neighbouring seeds do not meet (Weyl sequence).
    seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The sizes of a stage's encoder.
pub(crate) fn spec(recipe: &Recipe, stage: &Stage) -> Result<VitSpec, Failure> {
    let model = stage.model.as_ref().map(|model| model.over(&recipe.model));
    let model = model.as_ref().unwrap_or(&recipe.model);
    let spec = spec_of(model, recipe.data.size, recipe.data.channels());
    spec.map_err(|error| refuse_sizes(recipe, stage, &error))
}

/// Refuses sizes by the keys that say them.
pub(crate) fn refuse_sizes(recipe: &Recipe, stage: &Stage, error: &SpecError) -> Failure {
    let (own, all) = (format!("{}.model", stage.name), "model".to_owned());
    let of_model = |key: &str| -> Vec<String> {
        // A stage's own model is said in its part of the recipe.
        let tables = stage.model.as_ref().map(|_| own.clone()).into_iter().chain([all.clone()]);
        let said = tables.map(|table| format!("{table}.{key}"));
        vec![said.into_iter().find(|key| recipe.origin.says(key)).unwrap_or(format!("model.{key}"))]
    };
    let of_trunk = |name: &str, key: &str| vec![format!("{}.{name}.{key}", stage.name)];
    let keys = match error {
        SpecError::Name(_) => of_model("name"),
        SpecError::Heads { name: "model", .. } => [of_model("width"), of_model("heads")].concat(),
        SpecError::Heads { name, .. } => {
            [of_trunk(name, "width"), of_trunk(name, "heads")].concat()
        }
        SpecError::Small { .. } | SpecError::Left { .. } => {
            [vec!["data.size".to_owned()], of_model("patch")].concat()
        }
        SpecError::Zero { name: "model", size } | SpecError::Large { name: "model", size, .. } => {
            of_model(size)
        }
        SpecError::Zero { name, size } | SpecError::Large { name, size, .. } => {
            of_trunk(name, size)
        }
        SpecError::LayerScale(_) => of_model("layer_scale"),
        SpecError::DropPath(_) => of_model("drop_path"),
    };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let no_data = match (error, recipe.origin.is_without_data()) {
        (SpecError::Small { .. } | SpecError::Left { .. }, true) => {
            ". The recipe has no data.path, so the images are the built-in Fashion-MNIST, 28 x 28 pixels: set \
             data.path for your own"
        }
        _ => "",
    };
    let problem = format!("{}: {error}{no_data}", keys.join(", "));
    asked(recipe.origin.refuse(&keys, problem))
}

fn spec_of(model: &Model, size: ImageSize, channels: usize) -> Result<VitSpec, SpecError> {
    let name = model.name.as_deref().unwrap_or("vit_tiny_patch16_224");
    let mut spec = VitSpec::from_name(name)?;
    let ratio = spec.hidden as f64 / spec.width as f64;
    spec.image = [1, size.height, size.width];
    spec.channels = channels;
    spec.patch = model.patch.map_or(spec.patch, PatchSize::sides);
    spec.width = model.width.unwrap_or(spec.width);
    spec.depth = model.depth.unwrap_or(spec.depth);
    spec.heads = model.heads.unwrap_or(spec.heads);
    spec.hidden = (spec.width as f64 * model.mlp_ratio.unwrap_or(ratio)) as usize;
    spec.registers = model.registers.unwrap_or(spec.registers);
    spec.class_token = model.class_token.unwrap_or(spec.class_token);
    spec.no_embed_class = model.no_embed_class.unwrap_or(spec.no_embed_class);
    spec.layer_scale = model.layer_scale;
    spec.qk_norm = model.qk_norm.unwrap_or(false);
    spec.drop_path = model.drop_path.unwrap_or(0.0);
    spec.check()?;
    Ok(spec)
}

/// Sizes of a decoder or predictor.
pub(crate) fn trunk(trunk: Trunk) -> TransformerSpec {
    TransformerSpec { width: trunk.width, depth: trunk.depth, heads: trunk.heads }
}

fn loss(loss: Loss) -> LossKind {
    match loss {
        Loss::L1 => LossKind::L1,
        Loss::SmoothL1(beta) => LossKind::SmoothL1 { beta },
        Loss::Mse => LossKind::Mse,
    }
}

/// Which patches the loss of stage 1 covers.
pub(crate) fn covered(stage: &Stage) -> Covered {
    match stage.covered() {
        recipe::Covered::AllMasked => Covered::AllMasked,
        recipe::Covered::Targets => Covered::Targets,
    }
}

/// Stage 1 around a new encoder.
pub(crate) fn mae(encoder: Encoder, stage: &Stage, seed: u64) -> Mae {
    let options = MaeOptions {
        decoder: trunk(stage.decoder()),
        covered: covered(stage),
        pixel_norm: match stage.pixel_norm() {
            recipe::PixelNorm::None => PixelNorm::None,
            recipe::PixelNorm::Joint => PixelNorm::Joint,
            recipe::PixelNorm::PerChannel => PixelNorm::PerChannel,
        },
        loss: stage.loss.map_or(LossKind::Mse, loss),
    };
    Mae::new(encoder, options, seed)
}

/// Settings of stage 2.
pub(crate) fn salt_options(stage: &Stage) -> SaltOptions {
    SaltOptions {
        predictor: trunk(stage.predictor()),
        loss: stage.loss.map_or(LossKind::L1, loss),
        target_layer_norm: stage.target_layer_norm(),
    }
}

/// The schedules of learning rate and weight decay.
pub(crate) fn curves(stage: &Stage, schedule: Schedule) -> (Curve, Curve) {
    let lr = Curve {
        start: stage.start_lr,
        peak: stage.lr,
        last: stage.final_lr,
        warmup_steps: schedule.warmup_steps,
        steps: schedule.steps,
    };
    let last = stage.final_weight_decay.unwrap_or(stage.weight_decay);
    (lr, Curve::cosine(stage.weight_decay, last, schedule.steps))
}

/// A stage as the training loop takes it, from step `first_step` on; images in `unreadable` are known to be.
pub(crate) fn training<'m>(
    recipe: &Recipe,
    images: &Images,
    (method, place): (&'m dyn Method, usize),
    schedule: Schedule,
    (first_step, unreadable): (u64, BTreeSet<usize>),
) -> Result<train::Stage<'m>, Failure> {
    let stage = &recipe.stage[place];
    let (lr, weight_decay) = curves(stage, schedule);
    let mut options = training_loader(recipe, stage, place);
    options.first_sample = first_step * stage.batch as u64;
    let loader = Loader::new(images.train.clone(), options).map_err(asked)?;
    Ok(train::Stage {
        method,
        loader: loader.with_unreadable(unreadable),
        masking: stage.masks.clone(),
        grid: method.encoder().grid(),
        batch: stage.batch,
        accumulate: stage.accumulate,
        activation_checkpointing: stage.activation_checkpointing,
        first_step,
        steps: schedule.steps,
        lr,
        weight_decay,
        seed: stage_seed(recipe.seed, place),
    })
}

/// AdamW and clipping.
pub(crate) fn optimizer(stage: &Stage) -> OptimizerOptions {
    OptimizerOptions {
        betas: (stage.betas[0], stage.betas[1]),
        eps: stage.eps,
        clip: (stage.clip > 0.0).then_some(stage.clip),
        decay_all: stage.decay_all,
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
        DataSource { path: root.join(name).display().to_string(), weight: 2.0 }
    }

    fn values(source: &Arc<dyn Source>) -> BTreeSet<u8> {
        (0..source.len()).map(|at| source.read(at).unwrap().clip.data[0]).collect()
    }

    fn images(source: Vec<DataSource>) -> Result<Images, Failure> {
        let normalize = Normalize::default();
        let data = Data { source, holdout: Some(8), normalize, ..Data::default() };
        open(&Recipe { data, ..Recipe::default() })
    }

    #[test]
    fn what_is_held_out_of_several_sources_never_trains() {
        let place = tempfile::tempdir().unwrap();
        let (a, b) = (folder(place.path(), "a", 0..30), folder(place.path(), "b", 100..110));
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
        let place = tempfile::tempdir().unwrap();
        let a = folder(place.path(), "a", 0..30);
        let again = DataSource { path: format!("{}/../a", a.path), ..a.clone() };
        let Err(Failure::Asked(error)) = images(vec![a, again]) else { panic!("not refused") };
        assert!(error.to_string().contains("data.source has it twice"), "{error}");
    }

    #[test]
    fn sources_that_share_a_file_are_refused_where_images_are_held_out() {
        let place = tempfile::tempdir().unwrap();
        let a = folder(place.path(), "a", 0..30);
        let above = DataSource { path: place.path().display().to_string(), ..a.clone() };
        let b = folder(place.path(), "b", 100..110);
        std::fs::hard_link(
            place.path().join("a/class0/000.png"),
            place.path().join("b/class0/linked.png"),
        )
        .unwrap();
        for other in [above.clone(), b] {
            let Err(Failure::Asked(error)) = images(vec![a.clone(), other]) else {
                panic!("not refused")
            };
            assert!(error.to_string().contains("is in the sources"), "{error}");
        }
        let normalize = Normalize::default();
        let data = Data { source: vec![a, above], holdout: Some(0), normalize, ..Data::default() };
        assert!(open(&Recipe { data, ..Recipe::default() }).is_ok());
    }
}
