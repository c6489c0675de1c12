//! Chooses a recipe for images, from what is known of them and from the time. Each rule states its
//! reason here. What a user gives with `--set` is kept, and the other values follow from it.

use super::load::from_text;
use super::set::{LENGTHS, with_whole_keys};
use super::{Depth, ImageSize, Normalize, Overrides, PatchSize, Recipe, RecipeError};
use crate::data::StoredValues;
use std::fmt::{Display, Write as _};

/// What is known of the images.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFacts {
    /// How many they are.
    pub images: usize,
    /// Median height in pixels.
    pub height: usize,
    /// Median width in pixels.
    pub width: usize,
    /// Whether nearly all have the same shape.
    pub same_shape: bool,
    /// 1 if all are grey, 3 if some have colours, or the number of their bands.
    pub channels: usize,
    /// The numbers of images of more than eight bits.
    pub values: Option<StoredValues>,
    /// The share of the images that are stored with transparency.
    pub transparent: f64,
    /// Mean of each channel, 0 to 1.
    pub mean: Vec<f32>,
    /// Deviation of each channel, 0 to 1.
    pub std: Vec<f32>,
}

/// The sizes of a model that the user named, or of the teacher's file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownModel {
    /// Height and width of its patches.
    pub patch: usize,
    /// Height and width of its images.
    pub size: usize,
    /// D
    pub width: usize,
}

/// A teacher from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownTeacher {
    /// The file.
    pub path: String,
    /// Which of its models is meant, if it has several.
    pub part: Option<String>,
    /// Its sizes.
    pub model: KnownModel,
    /// C
    pub channels: usize,
    /// The normalisation it was trained with, if the file states it.
    pub normalize: Option<Normalize>,
}

/// What the user gives besides the images.
#[derive(Clone, Debug)]
pub struct ChoiceInput<'a> {
    /// Where the images are, for the first line of the recipe.
    pub images: String,
    /// The model that is named.
    pub model: Option<KnownModel>,
    /// The teacher, if it is not trained.
    pub teacher: Option<KnownTeacher>,
    /// How many threads train.
    pub threads: usize,
    /// `--set key=value`
    pub set: &'a Overrides,
}

/// A value that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenValue {
    /// `data.size`, `teacher.lr`, ...
    pub key: String,
    /// In TOML.
    pub value: String,
    /// In words. Empty if there is nothing to say.
    pub why: String,
}

/// The time of a run for which no time is given. (guess: long enough to learn something, short
/// enough to wait for)
const MINUTES: f64 = 20.0;

/// A model that a time suffices for. In the first two, sides and patches follow from measurements
/// on digits and emoji (LOG.md, "What a short time suffices for"): fewer tokens give more steps,
/// which count more. All else is a guess, up to ViT-base at 224 pixels.
struct Tier {
    /// The most minutes times threads.
    effort: f64,
    width: usize,
    depth: usize,
    /// The largest side of an image in pixels.
    side: usize,
    /// Patches along a side.
    patches: f64,
    /// Images in a step.
    batch: usize,
}

#[rustfmt::skip]
const TIERS: [Tier; 6] = [
    Tier { effort: 15.0, width: 96, depth: 6, side: 48, patches: 6.5, batch: 32 },
    Tier { effort: 90.0, width: 128, depth: 6, side: 48, patches: 6.5, batch: 32 },
    Tier { effort: 400.0, width: 192, depth: 6, side: 96, patches: 8.0, batch: 64 },
    Tier { effort: 4_000.0, width: 192, depth: 12, side: 128, patches: 8.0, batch: 64 },
    Tier { effort: 40_000.0, width: 384, depth: 12, side: 160, patches: 10.0, batch: 64 },
    Tier { effort: f64::INFINITY, width: 768, depth: 12, side: 224, patches: 14.0, batch: 64 },
];

/// The fewest and the most patches along a side: 36 to 196 tokens.
const PATCHES: [usize; 2] = [6, 14];

/// The share of a run's time that is kept for the probes after training, which are bounded by the
/// training's FLOPs. (guess)
pub const PROBES_SHARE: f64 = 0.1;
/// The teacher's share of the time that is left. The paper finds short teachers best (SALT, section
/// 3: compute allocation). The number is a guess.
const TEACHER: f64 = 0.25;

/// Whether no recipe is given, but something that the built-in recipe does not fit: other images,
/// or another model.
pub fn is_chosen(set: &Overrides) -> bool {
    with_whole_keys(set).iter().any(|given| {
        let (key, value) = given.split_once('=').unwrap_or((given, ""));
        match key.trim() {
            "data.path" => !value.trim().trim_start_matches('"').starts_with("builtin:"),
            key => ["data.source", "model.name"].contains(&key),
        }
    })
}

/// A recipe to which `--set` is applied before anything is known. It has the tables of a chosen
/// recipe, so that a `--set` may change a part of one.
const STAGES: &str = "
[[stage]]
name = 'teacher'
steps = 1
masks = { kind = 'random', ratio = 0.75 }
decoder = { width = 64, depth = 2, heads = 2 }
[[stage]]
name = 'student'
method = 'salt'
teacher = 'teacher'
steps = 1
masks = { kind = 'random', ratio = 0.75 }
predictor = { width = 64, depth = 2, heads = 2 }
";

/// Applies `--set` to a recipe without values. The result says where the images are and what the
/// user sets.
pub fn given(set: &Overrides) -> Result<Recipe, RecipeError> {
    from_text("the chosen recipe", STAGES, set)
}

/// Chooses a recipe. Returns it with the values that the user did not set.
pub fn choose(
    facts: &ImageFacts,
    given: &ChoiceInput<'_>,
) -> Result<(Recipe, Vec<ChosenValue>), RecipeError> {
    let all = choices(facts, given)?;
    let origin = format!("the recipe chosen for {}", given.images);
    // The time is divided among the stages.
    let is_time =
        |given: &String| given.split('=').next().is_some_and(|key| key.trim() == "minutes");
    let set: Vec<_> = given.set.iter().filter(|given| !is_time(given)).cloned().collect();
    let mut recipe = from_text(&origin, &text_of(&all, facts, given), &set)?;
    recipe.origin.is_chosen = true;
    let is_set = |key: &str| match key.strip_suffix(".minutes") {
        Some(stage) => {
            LENGTHS.iter().any(|length| recipe.origin.is_set(&format!("{stage}.{length}")))
        }
        None => recipe.origin.is_set(key),
    };
    let kept = all.into_iter().filter(|choice| !is_set(&choice.key)).collect();
    Ok((recipe, kept))
}

/// Chooses every value that the data and the time decide.
fn choices(facts: &ImageFacts, given: &ChoiceInput<'_>) -> Result<Vec<ChosenValue>, RecipeError> {
    let recipe = self::given(given.set)?;
    check_sizes(&recipe).map_err(|error| recipe.origin.locate(error))?;
    let minutes = recipe.minutes.unwrap_or(MINUTES);
    let effort = minutes * given.threads as f64;
    // The last one has no limit.
    let tier = TIERS.iter().find(|tier| effort <= tier.effort).expect("a tier");
    let mut all = Choices { recipe: &recipe, list: Vec::new() };
    all.data(facts, given, tier);
    let width = all.model(given, tier);
    all.stages(facts, given, (minutes, tier, width));
    Ok(all.list)
}

/// The most pixels or features along an axis, as in model/spec.rs.
const MOST_SIDE: usize = 1 << 16;

/// Refuses sizes from which nothing can be derived.
fn check_sizes(recipe: &Recipe) -> Result<(), RecipeError> {
    let patch = recipe.model.patch.map_or([1; 3], PatchSize::sides);
    let size = recipe.data.size;
    let sides = [
        ("data.size", size.sides().to_vec()),
        ("model.patch", patch.to_vec()),
        ("model.width", recipe.model.width.into_iter().collect()),
    ];
    let fits = |side: &usize| (1..=MOST_SIDE).contains(side);
    match sides.into_iter().find(|(_, sides)| !sides.iter().all(fits)) {
        None => Ok(()),
        Some((key, sides)) => Err(RecipeError::Value {
            key: key.into(),
            found: sides.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x "),
            expected: format!("1 to {MOST_SIDE}"),
        }),
    }
}

/// The choices so far.
struct Choices<'a> {
    recipe: &'a Recipe,
    list: Vec<ChosenValue>,
}

impl Choices<'_> {
    fn add(&mut self, key: &str, value: &dyn Display, why: impl Into<String>) {
        let value = value.to_string();
        self.list.push(ChosenValue { key: key.to_owned(), value, why: why.into() });
    }

    /// Size, normalisation and crops.
    fn data(&mut self, facts: &ImageFacts, given: &ChoiceInput<'_>, tier: &Tier) {
        let (size, patch) = self.sizes(facts, given, tier);
        let tokens = (size.height / patch) * (size.width / patch);
        let median = format!("images are {} x {} in the median", facts.height, facts.width);
        self.add("data.size", &size, format!("{median}; {tokens} patches of {patch} x {patch}"));
        let teacher = given.teacher.as_ref();
        let (fitting, why) = match (teacher, facts.channels) {
            (Some(teacher), _) => (teacher.channels, "the teacher's"),
            (None, 1) => (1, "the decoded images are grey"),
            (None, 3) => (3, "the decoded images have colours"),
            (None, bands) => (bands, "the bands of the decoded images"),
        };
        self.add("data.channels", &fitting, why);
        let channels = if self.recipe.origin.is_set("data.channels") {
            self.recipe.data.channels()
        } else {
            fitting
        };
        if let Some((values, depth)) =
            facts.values.as_ref().and_then(|values| Some((values, Depth::fitting(values)?)))
        {
            let why = format!("{} were found", values.describe());
            self.add("data.depth", &depth, why);
        }
        if facts.transparent > 0.0 {
            let share = 100.0 * facts.transparent;
            let why = format!("shown by transparent parts; {share:.1} % are stored with them");
            self.add("data.background", &"[255, 255, 255]", why);
        }
        let all = |values: &[f32], digits: &dyn Fn(f32) -> String| {
            let grey = values.iter().sum::<f32>() / values.len() as f32;
            let all = if channels == values.len() { values.to_vec() } else { vec![grey] };
            format!("[{}]", all.into_iter().map(digits).collect::<Vec<_>>().join(", "))
        };
        let of = |mean: &[f32], std: &[f32], digits: &dyn Fn(f32) -> String| {
            format!("{{ mean = {}, std = {} }}", all(mean, digits), all(std, digits))
        };
        let measured = of(&facts.mean, &facts.std, &|value| format!("{value:.3}"));
        let (normalize, why) = match teacher.map(|teacher| &teacher.normalize) {
            Some(Some(Normalize { mean, std })) => {
                (of(mean, std, &|value| format!("{value:?}")), "the teacher's")
            }
            Some(None) => {
                let why = "measured on the decoded images: the teacher's file does not state what \
                           it was trained with";
                (measured, why)
            }
            None => (measured, "measured on the decoded images"),
        };
        self.add("data.normalize", &normalize, why);
        // Small images are often centred, so little can be cut off: 0.6 is the quickstart's, 0.35
        // a guess.
        let least = if size.height.max(size.width) <= 32 { 0.6 } else { 0.35 };
        // Left and right often differ in grey images: digits, letters, scans.
        let (flip, why) = if facts.channels == 1 { (0.0, "grey: no flips") } else { (0.5, "") };
        let augment = format!("{{ crop_scale = [{least}, 1.0], flip = {flip:.1} }}");
        self.add("data.augment", &augment, why);
        if given.model.is_none() || given.teacher.is_some() {
            self.add("model.patch", &patch, "");
        }
    }

    /// The size of the images, and of a patch.
    fn sizes(
        &self,
        facts: &ImageFacts,
        given: &ChoiceInput<'_>,
        tier: &Tier,
    ) -> (ImageSize, usize) {
        let Recipe { data, model, origin, .. } = self.recipe;
        let known = given.teacher.as_ref().map(|teacher| teacher.model).or(given.model);
        let whole = |PatchSize { height, width, .. }: PatchSize| least_common(height, width);
        let patch = model.patch.map(whole).or(known.map(|known| known.patch));
        if origin.is_set("data.size") {
            let ImageSize { height, width } = data.size;
            // Large images are usually read in patches of 16.
            let patches = tier.patches.max((height.min(width) / 16).min(PATCHES[1]) as f64);
            let fitting = patch.unwrap_or_else(|| patch_of([height, width], patches));
            return (data.size, fitting);
        }
        let short = facts.height.min(facts.width);
        let most = known.map_or(tier.side, |known| known.size.min(tier.side.max(8 * known.patch)));
        let shape = if facts.same_shape { [facts.height, facts.width] } else { [short; 2] };
        match patch {
            Some(patch) => {
                // A teacher or a named model of few patches keeps its size.
                let fewest = known.map_or(PATCHES[0], |known| known.size / known.patch.max(1));
                (of_patches(shape, most, patch, fewest.clamp(1, PATCHES[0])), patch)
            }
            None => fitted(shape, most, tier.patches),
        }
    }

    /// The encoder. Returns its width.
    fn model(&mut self, given: &ChoiceInput<'_>, tier: &Tier) -> usize {
        if let Some(known) = given.model {
            // The name is set by the user.
            return self.recipe.model.width.unwrap_or(known.width);
        }
        self.add("model.name", &"\"vit_tiny_patch16_224\"", "changed by the next keys");
        let width = self.recipe.model.width.unwrap_or(tier.width);
        self.add("model.width", &width, "what the time suffices for");
        self.add("model.depth", &tier.depth, "");
        let heads = (1..=width / 32).rev().find(|heads| width.is_multiple_of(*heads));
        self.add("model.heads", &heads.unwrap_or(1), "");
        width
    }

    /// What is trained.
    fn stages(
        &mut self,
        facts: &ImageFacts,
        given: &ChoiceInput<'_>,
        (minutes, tier, width): (f64, &Tier, usize),
    ) {
        // A step of more than half of the images would repeat itself.
        let batch = tier.batch.min(facts.images / 2).max(1);
        let training = minutes * (1.0 - PROBES_SHARE);
        let teacher = match &given.teacher {
            Some(teacher) => toml::Value::from(teacher.path.as_str()).to_string(),
            None => {
                self.stage("teacher", "mae", (TEACHER * training, batch, width));
                "\"teacher\"".to_owned()
            }
        };
        let left = if given.teacher.is_some() { training } else { (1.0 - TEACHER) * training };
        self.stage("student", "salt", (left, batch, width));
        self.add("student.teacher", &teacher, "");
        let part = given.teacher.as_ref().and_then(|teacher| teacher.part.as_deref());
        if let Some(part) = part {
            self.add("student.teacher_part", &toml::Value::from(part).to_string(), "");
        }
    }

    fn stage(&mut self, name: &str, method: &str, (minutes, batch, width): (f64, usize, usize)) {
        let mut add = |key: &str, value: String, why: &str| {
            self.list.push(ChosenValue {
                key: format!("{name}.{key}"),
                value,
                why: why.to_owned(),
            });
        };
        add("method", format!("\"{method}\""), "");
        let minutes = (minutes * 1e6).round() / 1e6;
        add(
            "minutes",
            toml::Value::from(minutes).to_string(),
            "becomes a number of steps when the run begins",
        );
        add("batch", batch.to_string(), "");
        // The quickstart's rate, chosen for a width of 96 and a batch of 64. The roots are a guess.
        let lr = 2e-3 * (96.0 / width.max(1) as f64).sqrt() * (batch as f64 / 64.0).sqrt();
        add("lr", format!("{lr:.1e}"), "");
        add("weight_decay", "0.05".into(), "");
        add("masks", "{ kind = \"random\", ratio = 0.75 }".into(), "");
        let trunk = (width * 2 / 3).max(1).next_multiple_of(32);
        let trunk = format!("{{ width = {trunk}, depth = 2, heads = {} }}", trunk / 32);
        if method == "mae" {
            add("pixel_norm", "\"none\"".into(), "");
            add("decoder", trunk, "");
        } else {
            add("target_layer_norm", "true".into(), "");
            add("predictor", trunk, "");
        }
    }
}

/// The least number that both divide. A patch of 0 is refused later.
fn least_common(a: usize, b: usize) -> usize {
    let [a, b] = [a, b].map(|side| side.clamp(1, 1 << 16));
    (a..=a * b).step_by(a).find(|multiple| multiple.is_multiple_of(b)).unwrap_or(a)
}

/// The divisor of all sides that gives about `patches` patches along the mean side.
fn patch_of(sides: [usize; 2], patches: f64) -> usize {
    let mean = ((sides[0] * sides[1]) as f64).sqrt();
    let off = |patch: usize| (mean / patch as f64 / patches).ln().abs();
    let fits = |patch: &usize| sides.iter().all(|side| side.is_multiple_of(*patch));
    let all = (1..=sides[0].min(sides[1])).filter(fits);
    // 1 divides everything.
    all.min_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(1)
}

/// The largest image of this shape and of whole patches, with sides of `most` pixels in the mean,
/// at least `fewest` patches along them, and not too many.
fn of_patches(shape: [usize; 2], most: usize, patch: usize, fewest: usize) -> ImageSize {
    let mean = ((shape[0] * shape[1]) as f64).sqrt();
    let [least, largest] = [fewest, PATCHES[1]].map(|patches| (patches * patch) as f64);
    let scale = mean.min(most as f64).clamp(least, largest) / mean;
    let side = |side: usize| {
        let patches = (side as f64 * scale / patch as f64).round().max(1.0);
        patches as usize * patch
    };
    ImageSize { height: side(shape[0]), width: side(shape[1]) }
}

/// A size near that of the images, at most `most` pixels in the mean, and a patch that divides it
/// into about `patches` patches along the mean side.
fn fitted(shape: [usize; 2], most: usize, patches: f64) -> (ImageSize, usize) {
    let mean = ((shape[0] * shape[1]) as f64).sqrt();
    let side = mean.min(most as f64);
    let least = (side / PATCHES[1] as f64).ceil().max(1.0) as usize;
    let largest = ((side / PATCHES[0] as f64) as usize).max(least);
    let off = |patch: usize| {
        let size = of_patches(shape, most, patch, PATCHES[0]);
        let whole = ((size.height * size.width) as f64).sqrt();
        let tokens = whole / patch as f64 / patches;
        // An image that keeps its pixels is worth more than the best number of patches. An enlarged
        // one loses nothing. (the factors are guesses)
        let resized = if whole > side { 2.0 } else { 4.0 };
        resized * (whole - side).abs() / side + tokens.ln().abs()
    };
    // `least` is one of them.
    let patch = (least..=largest).min_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(least);
    (of_patches(shape, most, patch, PATCHES[0]), patch)
}

/// The recipe as text, each value with its reason.
fn text_of(choices: &[ChosenValue], facts: &ImageFacts, given: &ChoiceInput<'_>) -> String {
    let ImageFacts { images, channels, .. } = facts;
    let colour = match channels {
        1 => "grey images".to_owned(),
        3 => "colour images".to_owned(),
        bands => format!("images of {bands} bands"),
    };
    let mut text = format!("# Chosen for {}: {images} {colour}.\n", given.images);
    let mut table = "";
    for ChosenValue { key, value, why } in choices {
        // Every key is in a table.
        let (of, key) = key.split_once('.').unwrap_or(("", key));
        if of != table {
            table = of;
            let stage = format!("\n[[stage]]\nname = \"{of}\"\n");
            let named = if ["data", "model"].contains(&of) { format!("\n[{of}]\n") } else { stage };
            text.push_str(&named);
        }
        let why = if why.is_empty() { String::new() } else { format!("  # {why}") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {value}{why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(height: usize, width: usize, same_shape: bool) -> ImageFacts {
        let (mean, std) = (vec![0.5; 3], vec![0.25; 3]);
        let (images, channels, transparent) = (1200, 3, 0.0);
        let values = None;
        ImageFacts { images, height, width, same_shape, channels, values, transparent, mean, std }
    }

    fn given<'a>(set: &'a Overrides, model: Option<KnownModel>) -> ChoiceInput<'a> {
        ChoiceInput { images: "photos".into(), model, teacher: None, threads: 2, set }
    }

    fn chosen(facts: &ImageFacts, given: &ChoiceInput<'_>) -> Recipe {
        choose(facts, given).unwrap_or_else(|error| panic!("{error}")).0
    }

    #[test]
    fn images_that_are_small_keep_their_size_and_large_ones_are_shrunk_to_few_patches() {
        for (height, width, same_shape, size, patch) in [
            (28, 28, true, [28, 28], 4),
            (20, 20, true, [21, 21], 3),
            (64, 64, true, [48, 48], 8),
            (1080, 1920, false, [48, 48], 8),
            (48, 96, true, [35, 70], 7),
            (7, 7, true, [7, 7], 1),
        ] {
            let facts = facts(height, width, same_shape);
            let recipe = chosen(&facts, &given(&[], None));
            let found = (recipe.data.size.sides(), recipe.model.patch.unwrap().height);
            assert_eq!(found, (size, patch), "for {height} x {width}");
        }
    }

    #[test]
    fn what_is_set_is_kept_and_the_rest_follows() {
        let photos = facts(300, 400, false);
        let set = ["data.size=96", "model.width=256", "teacher.steps=5"].map(str::to_owned);
        let recipe = chosen(&photos, &given(&set, None));
        assert_eq!(recipe.data.size.sides(), [96, 96]);
        assert_eq!((recipe.model.width, recipe.model.heads), (Some(256), Some(8)));
        assert!(96_usize.is_multiple_of(recipe.model.patch.unwrap().height));
        assert_eq!((recipe.stage[0].steps, recipe.stage[0].minutes), (Some(5), None));
        assert!(recipe.stage[1].minutes.is_some());
        let known = KnownModel { patch: 16, size: 224, width: 1024 };
        let set = ["data.size=224", "model.name=vit_large_patch16_224"].map(str::to_owned);
        let recipe = chosen(&photos, &given(&set, Some(known)));
        let name = Some("vit_large_patch16_224".to_owned());
        assert_eq!(recipe.model, crate::recipe::Model { name, ..crate::recipe::Model::default() });
    }

    #[test]
    fn a_teacher_from_elsewhere_decides_the_patches_and_no_teacher_is_trained() {
        let known = KnownModel { patch: 16, size: 224, width: 768 };
        let mut given = given(&[], None);
        given.teacher = Some(KnownTeacher {
            part: None,
            path: env!("CARGO_MANIFEST_DIR").to_owned(),
            model: known,
            channels: 3,
            normalize: Some(Normalize { mean: vec![0.481_454_66], std: vec![0.25] }),
        });
        let grey = ImageFacts { channels: 1, ..facts(300, 400, false) };
        let recipe = chosen(&grey, &given);
        // A teacher that was trained on colours sees them as it did then.
        assert_eq!(recipe.data.channels(), 3);
        let stated = Normalize { mean: vec![0.481_454_66], std: vec![0.25] };
        assert_eq!(recipe.data.normalize, stated);
        given.teacher.iter_mut().for_each(|teacher| teacher.normalize = None);
        let measured = choose(&grey, &given).unwrap().1;
        let normalize = measured.iter().find(|chosen| chosen.key == "data.normalize").unwrap();
        assert!(normalize.why.contains("does not state"), "{}", normalize.why);
        assert_eq!(recipe.stage.len(), 1);
        assert_eq!(recipe.model.patch.unwrap().height, 16);
        assert_eq!(recipe.data.size.sides(), [128, 128]);
    }

    #[test]
    fn images_of_a_small_teachers_size_are_not_enlarged() {
        let mut given = given(&[], None);
        for (size, patch, image, wanted) in [(32, 8, 32, 32), (32, 8, 300, 32), (48, 16, 28, 48)] {
            given.teacher = Some(KnownTeacher {
                part: None,
                path: env!("CARGO_MANIFEST_DIR").to_owned(),
                model: KnownModel { patch, size, width: 96 },
                channels: 3,
                normalize: None,
            });
            let recipe = chosen(&facts(image, image, true), &given);
            assert_eq!(recipe.data.size.sides(), [wanted; 2], "{size}, {patch}, {image}");
        }
    }

    #[test]
    fn grey_images_are_not_flipped() {
        let flip = |channels: usize| {
            let facts = ImageFacts { channels, ..facts(28, 28, true) };
            chosen(&facts, &given(&[], None)).data.augment.flip
        };
        assert_eq!((flip(1), flip(3)), (0.0, 0.5));
    }

    #[test]
    fn a_step_of_a_short_run_is_small() {
        let batch = |minutes: &str, images: usize| {
            let set = [format!("minutes={minutes}")];
            let facts = ImageFacts { images, ..facts(300, 400, false) };
            let stages = chosen(&facts, &given(&set, None)).stage;
            stages.iter().map(|stage| stage.batch).collect::<Vec<_>>()
        };
        assert_eq!(batch("10", 1200), [32, 32]);
        assert_eq!(batch("100", 1200), [64, 64]);
        assert_eq!(batch("10", 20), [10, 10], "half of the images");
    }

    #[test]
    fn more_time_makes_a_larger_model() {
        let width = |minutes: &str| {
            let set = [format!("minutes={minutes}")];
            chosen(&facts(300, 400, false), &given(&set, None)).model.width.unwrap()
        };
        assert!(width("5") < width("20") && width("20") < width("200"));
    }
}
