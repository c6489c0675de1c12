//! What names say about images: of folders, files and values in a list. They name parts of a data
//! set, and masks.

use std::path::Path;

/// Names of training images.
const TRAINING: [&str; 3] = ["train", "training", "trainval"];

/// Names of other images than training images, the best for probes first, and whether they say so
/// also without training images beside them. Otherwise they are usual names.
const TESTS: [(&str, bool); 16] = [
    ("val", true),
    // Also a class beside `invalid`.
    ("valid", false),
    ("validation", true),
    ("dev", false),
    ("eval", true),
    ("evaluation", true),
    ("test", true),
    ("tests", true),
    ("testing", true),
    ("holdout", false),
    ("heldout", false),
    ("validate", false),
    ("minival", false),
    ("query", false),
    ("pred", false),
    // MNIST's.
    ("t10k", true),
];

/// Words that say nothing about the part of a data set.
const IMAGES: [&str; 15] = [
    "image",
    "images",
    "img",
    "imgs",
    "jpegimages",
    "pngimages",
    "leftimg8bit",
    "photo",
    "photos",
    "picture",
    "pictures",
    "set",
    "data",
    "dataset",
    "split",
];

/// Words for masks besides those that begin or end as one.
const MASKS: [&str; 8] =
    ["annotation", "annotations", "label", "labels", "gt", "gtfine", "gtcoarse", "groundtruth"];

/// Why images of a folder are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The name says that they are to validate or test.
    Test,
    /// The name says that they are masks of the images beside them.
    Masks,
    /// Caltech's folder of everything else, which is no class. torchvision leaves it out, too.
    Clutter,
}

/// The part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetPart {
    Training,
    /// With its place in the order of preference.
    Test {
        rank: usize,
        alone: bool,
    },
}

/// A folder's name in words.
struct FolderName {
    part: Option<SetPart>,
    masks: bool,
    /// Whether a word says that it holds images.
    images: bool,
    /// All other words.
    rest: Vec<String>,
}

impl FolderName {
    fn of(name: &str) -> Self {
        let mut found = Self { part: None, masks: false, images: false, rest: Vec::new() };
        let lower = name.to_lowercase().replace("ground_truth", "groundtruth");
        for word in lower.split(|letter: char| !letter.is_alphanumeric()) {
            // `val2017`, and `testset`.
            let word = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
            let short = word.strip_suffix("set").unwrap_or(word);
            if word.is_empty() {
                continue;
            }
            match part(short) {
                Some(part) if found.part.is_none() => found.part = Some(part),
                _ if is_mask(word) => found.masks = true,
                _ if IMAGES.contains(&word) => found.images = true,
                _ => found.rest.push(word.to_owned()),
            }
        }
        found
    }

    /// Whether both are parts of one data set: `seg_train` and `seg_test`.
    fn belongs_to(&self, other: &Self) -> bool {
        self.rest == other.rest && self.masks == other.masks
    }
}

fn part(word: &str) -> Option<SetPart> {
    if TRAINING.contains(&word) {
        return Some(SetPart::Training);
    }
    let rank = TESTS.iter().position(|(name, _)| *name == word)?;
    Some(SetPart::Test { rank, alone: TESTS[rank].1 })
}

fn is_mask(word: &str) -> bool {
    let is_plural = word.ends_with("mask") || word.ends_with("masks");
    is_plural
        || word.starts_with("segmentation")
        || word.starts_with("trimap")
        || MASKS.contains(&word)
}

/// Whether a folder among these (it may be one of them) is named as the training images of a set.
pub(super) fn is_training(name: &str, among: &[String]) -> bool {
    let own = FolderName::of(name);
    let is_test = |other: &FolderName| matches!(other.part, Some(SetPart::Test { .. }));
    own.part == Some(SetPart::Training)
        && !own.masks
        && (own.rest.is_empty() || has_partner(&own, among, is_test))
}

/// The place in the order of preference of a folder among these that is named as the validation or
/// test images of a set. None if it is not.
pub(super) fn test_rank(name: &str, among: &[String]) -> Option<usize> {
    let own = FolderName::of(name);
    let Some(SetPart::Test { rank, alone }) = own.part else { return None };
    let is_training = |other: &FolderName| other.part == Some(SetPart::Training);
    ((alone && own.rest.is_empty()) || has_partner(&own, among, is_training)).then_some(rank)
}

fn has_partner(
    own: &FolderName,
    among: &[String],
    is_partner: impl Fn(&FolderName) -> bool,
) -> bool {
    among
        .iter()
        .map(|other| FolderName::of(other))
        .any(|other| own.belongs_to(&other) && is_partner(&other))
}

/// Whether a text says training or test images: a value of a column, or the name of a file or
/// folder. None if it says neither, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedPart {
    Training,
    /// With its place in the order of preference.
    Test(usize),
}

/// The words of a text without digits at their ends. `PublicTest` has two.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut before) = (Vec::new(), String::new(), ' ');
    for letter in text.chars().chain([' ']) {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && before.is_lowercase()) {
            let short = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
            words.extend((!short.is_empty()).then(|| short.to_owned()));
            word.clear();
        }
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words
}

/// The part that a word names.
fn part_of_word(word: &str) -> Option<SetPart> {
    part(word.strip_suffix("set").unwrap_or(word))
}

/// The part of a set that a text names.
pub(super) fn named_part(text: &str) -> Option<NamedPart> {
    let found: Vec<SetPart> = words(text).iter().filter_map(|word| part_of_word(word)).collect();
    let is_training = found.contains(&SetPart::Training);
    let rank = |part: &SetPart| match part {
        SetPart::Test { rank, .. } => Some(*rank),
        SetPart::Training => None,
    };
    match (is_training, found.iter().filter_map(rank).min()) {
        (true, None) => Some(NamedPart::Training),
        (false, Some(rank)) => Some(NamedPart::Test(rank)),
        _ => None,
    }
}

/// The part of a file by its path below the root of a set. A folder named as a part alone decides
/// first, then the deepest name that says one.
pub(super) fn part_of_file(path: &Path) -> Option<NamedPart> {
    let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let folders = &names[..names.len().saturating_sub(1)];
    let is_alone = |name: &&String| {
        let own = FolderName::of(name);
        own.part.is_some() && own.rest.is_empty()
    };
    let folder = folders.iter().find(is_alone).and_then(|name| named_part(name));
    folder.or_else(|| names.iter().rev().find_map(|name| named_part(name)))
}

/// What is left of a file's path without the words of parts and numbers. Training and test files of
/// one set have the same.
pub(super) fn set_of_file(path: &Path) -> Vec<String> {
    let of = |name: &std::ffi::OsStr| words(&name.to_string_lossy());
    path.iter().flat_map(of).filter(|word| part_of_word(word).is_none()).collect()
}

/// Whether a word of a file's path is one for masks.
pub(super) fn has_mask_word(path: &Path) -> bool {
    path.iter().any(|name| words(&name.to_string_lossy()).iter().any(|word| is_mask(word)))
}

/// Whether a folder is named as training or test images, whatever stands beside it.
pub(super) fn is_part(name: &str) -> bool {
    FolderName::of(name).part.is_some()
}

/// Why a folder among these is left alone. `images_beside` says whether images are directly beside
/// it.
pub(super) fn purpose(name: &str, among: &[String], images_beside: bool) -> Option<Purpose> {
    if is_masks(name, among, images_beside) {
        return Some(Purpose::Masks);
    }
    if name == "BACKGROUND_Google" && among.len() > 1 {
        return Some(Purpose::Clutter);
    }
    test_rank(name, among).map(|_| Purpose::Test)
}

/// `SegmentationClass` beside `JPEGImages`, `masks` beside `images` or `train`, and `train_masks`
/// beside `train`. A class `mask` beside other classes is none.
fn is_masks(name: &str, among: &[String], images_beside: bool) -> bool {
    let own = FolderName::of(name);
    let is_of_images = |other: FolderName| {
        let whole = own.part.is_none() && own.rest.is_empty();
        !other.masks
            && other.rest == own.rest
            && (other.part == own.part || whole)
            && (other.images || other.part.is_some())
    };
    own.masks
        && (among.iter().map(|other| FolderName::of(other)).any(is_of_images)
            || (images_beside && own.rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purposes<const N: usize>(names: [&str; N]) -> [Option<Purpose>; N] {
        let among = names.map(str::to_owned);
        names.map(|name| purpose(name, &among, false))
    }

    const TEST: Option<Purpose> = Some(Purpose::Test);
    const MASK: Option<Purpose> = Some(Purpose::Masks);

    #[test]
    fn parts_of_sets_are_known_by_the_names_that_people_give_them() {
        assert_eq!(purposes(["train", "val", "test"]), [None, TEST, TEST]);
        assert_eq!(purposes(["Train", "Validation"]), [None, TEST]);
        assert_eq!(purposes(["train2017", "val2017", "annotations"]), [None, TEST, MASK]);
        assert_eq!(purposes(["trainset", "test_set", "Valid Images"]), [None, TEST, TEST]);
        assert_eq!(purposes(["seg_train", "seg_test", "seg_pred"]), [None, TEST, TEST]);
        assert_eq!(purposes(["ILSVRC2012_img_train", "ILSVRC2012_img_val"]), [None, TEST]);
        assert_eq!(purposes(["cats", "dogs", "TEST"]), [None, None, TEST]);
    }

    #[test]
    fn values_and_files_name_their_part() {
        let part = named_part;
        for text in ["train", "Training", "train2017", "trainval", "TRAIN"] {
            assert_eq!(part(text), Some(NamedPart::Training), "{text}");
        }
        for text in ["PublicTest", "testA", "id_val", "test-dev", "minival", "validate", "heldout"]
        {
            assert!(matches!(part(text), Some(NamedPart::Test(_))), "{text}");
        }
        for text in ["", "control", "0", "train-test-split", "latest", "retrained"] {
            assert_eq!(part(text), None, "{text}");
        }
        let is_test = |path: &str| part_of_file(Path::new(path)).map(|p| p != NamedPart::Training);
        assert_eq!(is_test("imagenet1k-validation-00.tar"), Some(true));
        assert_eq!(is_test("imagenet1k-train-00.tar"), Some(false));
        assert_eq!(is_test("train-test-split/test.parquet"), Some(true));
        assert_eq!(is_test("test/train-0.parquet"), Some(true));
        assert_eq!(is_test("test_suite/train-0.parquet"), Some(false));
        assert_eq!(is_test("testbed/0.parquet"), None);
        let set = |path: &str| set_of_file(Path::new(path));
        assert_eq!(
            set("data/train-00000-of-00001.parquet"),
            set("data/test-00001-of-00002.parquet")
        );
        assert_ne!(set("validation-0.parquet"), set("backup/validation-0.parquet"));
        assert!(has_mask_word(Path::new("val_masks.tar")));
    }

    #[test]
    fn usual_words_are_classes() {
        assert_eq!(purposes(["test_tube", "flask", "dev"]), [None; 3]);
        assert_eq!(purposes(["bus", "car", "train"]), [None; 3]);
        assert_eq!(purposes(["mask", "no_mask"]), [None; 2]);
        assert_eq!(purposes(["invalid", "valid"]), [None; 2]);
        assert_eq!(purposes(["labels", "stamps"]), [None; 2]);
    }

    #[test]
    fn masks_are_known_by_the_images_beside_them() {
        let voc = ["Annotations", "ImageSets", "JPEGImages", "SegmentationClass"];
        assert_eq!(purposes(voc)[1..], [None, None, MASK]);
        assert_eq!(purposes(["images", "masks"]), [None, MASK]);
        assert_eq!(purposes(["train", "train_masks", "test"]), [None, MASK, TEST]);
        assert_eq!(purposes(["leftImg8bit", "gtFine"]), [None, MASK]);
        assert_eq!(purposes(["ground_truth", "test", "train"]), [MASK, TEST, None]);
        assert_eq!(purposes(["PNGImages", "PedMasks"]), [None, MASK]);
    }
}
