//! Finds the models in a file by the names of its tensors: whatever words stand before them, and
//! however many there are.

use super::dialect::{Dialect, HUGGING_FACE_PATCHES, PATCHES, stable_pretraining_owners};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Words that wrappers put into names: torch.compile, FSDP, activation checkpointing, DeepSpeed,
/// and DistributedDataParallel.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "module",
];

/// The last words of parameters that FSDP has joined.
const FLAT: [&str; 2] = ["flat_param", "_flat_param"];

/// Encoders of a model that has several, in the order of preference: as stable-pretraining's
/// `SALT.from_checkpoint`, then the trained one.
pub(super) const OWNERS: [&str; 3] = ["encoder", "student", "teacher"];

/// Tensors of a predictor or decoder of ours, which no other program has.
const TRUNKS: [&str; 2] = ["decoder.transformer.", "predictor."];
const OF_TRUNKS: [&str; 3] = ["context_proj.weight", "final_norm.weight", "output_proj.weight"];

/// The most models that a file may hold, and the most that are named in messages.
const MOST_MODELS: usize = 64;
const MOST_NAMED: usize = 8;

/// A name without the words of wrappers.
pub(super) fn unwrapped(name: &str) -> Cow<'_, str> {
    if !name.split('.').any(|word| WRAPPERS.contains(&word)) {
        return name.into();
    }
    let words: Vec<&str> = name.split('.').filter(|word| !WRAPPERS.contains(word)).collect();
    words.join(".").into()
}

/// A model in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundModel {
    /// Whose names it uses.
    pub(super) dialect: Dialect,
    /// What stands before its names, without the words of wrappers. Empty, or with a dot at its
    /// end.
    pub(super) before: String,
    /// The encoders in it.
    pub(super) owners: Vec<&'static str>,
    /// What stands before the names of models whose names begin as its own do.
    within: Vec<String>,
}

impl FoundModel {
    /// Our name for one of the file's, if it belongs to the model.
    pub(super) fn our_name(&self, name: &str) -> Option<String> {
        let name = unwrapped(name);
        let is_other = self.within.iter().any(|other| name.starts_with(other));
        self.dialect.our_name(name.strip_prefix(&self.before).filter(|_| !is_other)?)
    }

    /// What stands before its names, for people and for `--part`.
    pub(super) fn words(&self) -> &str {
        self.before.trim_end_matches('.')
    }

    /// The encoder that a user names, and how well the name fits, 0 best: all words before its
    /// names or the network of a model with several, one of these words, any average as `ema`, a
    /// part of a word such as `student` of `student_backbone`, or the only encoder.
    fn encoder(&self, wanted: &str) -> Option<(usize, &'static str)> {
        let several = matches!(self.dialect, Dialect::Saltworks | Dialect::StablePretraining);
        let owner = self.owners.iter().find(|owner| **owner == wanted);
        let (first, wanted) = (self.owners[0], unwrapped(wanted));
        match owner {
            Some(owner) if several => Some((0, owner)),
            _ if *wanted == *self.words() => Some((0, first)),
            _ if self.words().split('.').any(|word| word == wanted) => Some((1, first)),
            _ if *wanted == *"ema" && self.role() == Role::Average => Some((2, first)),
            _ if self.words().split(['.', '_']).any(|word| word == wanted) => Some((3, first)),
            Some(owner) => Some((4, owner)),
            None => None,
        }
    }

    fn role(&self) -> Role {
        let role = |word: &str| {
            let word = word.to_lowercase();
            let has = |part: &str| word.split('_').any(|found| found == part);
            match () {
                () if word == "target_encoder" => Role::Target,
                () if has("teacher") => Role::Teacher,
                () if ["ema", "swa", "averaged", "momentum"].into_iter().any(has) => Role::Average,
                () if has("student") => Role::Student,
                () => Role::Plain,
            }
        };
        self.words().split('.').map(role).min().unwrap_or(Role::Plain)
    }
}

/// What a model is, by the words before its names, the best first. The teachers of DINO and I-JEPA
/// are averages of their students, and are what their papers evaluate. An average beside plain
/// weights is taken only if it is asked for, as in timm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Target,
    Teacher,
    Average,
    Student,
    Plain,
}

/// All models in a file with these names, those with the fewest words before their names first.
pub(super) fn find<'a>(names: impl Iterator<Item = &'a str>) -> Vec<FoundModel> {
    let names: BTreeSet<Cow<'_, str>> = names.map(unwrapped).collect();
    let before = |end: &'static str| {
        let cut = move |name: &Cow<'_, str>| {
            let before = name.strip_suffix(end)?;
            (before.is_empty() || before.ends_with('.')).then(|| before.to_owned())
        };
        names.iter().filter_map(cut).collect::<BTreeSet<String>>()
    };
    let (plain, hugging) = (before(PATCHES), before(HUGGING_FACE_PATCHES));
    let has = |name: &str| names.contains(name);
    let mut found: Vec<FoundModel> = Vec::new();
    let mut add = |dialect: Dialect, before: &str, owner: &'static str| match found
        .iter_mut()
        .find(|model| model.dialect == dialect && model.before == before)
    {
        Some(model) => model.owners.push(owner),
        None => {
            let (before, owners, within) = (before.into(), vec![owner], Vec::new());
            found.push(FoundModel { dialect, before, owners, within });
        }
    };
    for before in plain.iter().take(4 * (MOST_MODELS + 1)) {
        // The second name of stable-pretraining's patch embedding.
        let is_whole =
            ["norm.weight", "fc_norm.weight"].map(|norm| has(&format!("{before}{norm}")));
        if plain.contains(&format!("{before}vit.")) && is_whole == [false; 2] {
            continue;
        }
        match owner_of(before, &plain, &has) {
            Some((dialect, before, owner)) => add(dialect, &before, owner),
            None => add(Dialect::of_plain(before, &has), before, "encoder"),
        }
    }
    for before in hugging.iter().take(MOST_MODELS + 1) {
        add(Dialect::HuggingFace, before, "encoder");
    }
    let place = |owner: &&str| OWNERS.iter().position(|known| known == owner);
    found.iter_mut().for_each(|model| model.owners.sort_by_key(place));
    found.sort_by_key(|model| model.before.len());
    // One more tells that there are too many.
    found.truncate(MOST_MODELS + 1);
    let all: Vec<String> = found.iter().map(|model| model.before.clone()).collect();
    for model in &mut found {
        let own = &model.before;
        let others = all.iter().filter(|other| *other != own && other.starts_with(own));
        model.within = others.cloned().collect();
    }
    found
}

/// The model of several networks whose encoder has these words before its names.
fn owner_of(
    before: &str,
    plain: &BTreeSet<String>,
    has: &impl Fn(&str) -> bool,
) -> Option<(Dialect, String, &'static str)> {
    let ends = |words: &str| {
        let outside = before.strip_suffix(words)?;
        (outside.is_empty() || outside.ends_with('.')).then(|| outside.to_owned())
    };
    for (theirs, ours) in stable_pretraining_owners() {
        let Some(outside) = ends(&format!("{theirs}.vit.")) else { continue };
        if plain.contains(&format!("{outside}{theirs}.")) {
            return Some((Dialect::StablePretraining, outside, ours));
        }
    }
    for owner in OWNERS {
        let Some(outside) = ends(&format!("{owner}.")) else { continue };
        let is_ours =
            |trunk: &str| OF_TRUNKS.iter().any(|of| has(&format!("{outside}{trunk}{of}")));
        if TRUNKS.iter().any(|trunk| is_ours(trunk)) {
            return Some((Dialect::Saltworks, outside, owner));
        }
    }
    None
}

/// A model's number, its encoder, and what to say of the choice.
type ChosenModel = (usize, &'static str, Option<String>);

/// What stands before a model's names, for people.
fn words_of(model: &FoundModel) -> String {
    match model.words() {
        "" => "the names without a word before them".to_owned(),
        words => words.to_owned(),
    }
}

/// The first of these models, for people.
fn some_of(models: &[FoundModel]) -> String {
    let more = if models.len() > MOST_NAMED { ", ..." } else { "" };
    let some: Vec<_> = models.iter().take(MOST_NAMED).map(words_of).collect();
    format!("{}{more}", some.join(", "))
}

/// The model that a user names.
fn named(models: &[FoundModel], wanted: &str) -> Result<ChosenModel, String> {
    let fit = |(at, model): (usize, &FoundModel)| {
        let (fit, owner) = model.encoder(wanted)?;
        Some((fit, (at, owner)))
    };
    let mut fits: Vec<_> = models.iter().enumerate().filter_map(fit).collect();
    let best = fits.iter().map(|(fit, _)| *fit).min();
    fits.retain(|(fit, _)| Some(*fit) == best);
    let fits: Vec<_> = fits.into_iter().map(|(_, found)| found).collect();
    match fits.as_slice() {
        [(at, owner)] => {
            let note = format!("weights are those of {}", words_of(&models[*at]));
            Ok((*at, owner, (models.len() > 1).then_some(note)))
        }
        [] => {
            let owners = models.iter().filter(|model| model.owners.len() > 1);
            let owners: Vec<&str> = owners.flat_map(|model| model.owners.clone()).collect();
            let found = if owners.is_empty() { some_of(models) } else { owners.join(", ") };
            Err(format!("holds no {wanted}; found {found}. Choose another part or file"))
        }
        several => {
            let fits: Vec<_> = several.iter().map(|(at, _)| words_of(&models[*at])).collect();
            let fits = fits.join(", ");
            Err(format!("holds several models named {wanted}: {fits}. Give all words of one"))
        }
    }
}

/// The model to read. `wanted` is what the user asked for.
pub(super) fn choose(models: &[FoundModel], wanted: Option<&str>) -> Result<ChosenModel, String> {
    if models.len() > MOST_MODELS {
        let some = some_of(models);
        return Err(format!("holds more than {MOST_MODELS} models: {some}. Save one of them"));
    }
    if let Some(wanted) = wanted {
        return named(models, wanted);
    }
    let rank = |model: &FoundModel| match model.role() {
        Role::Target => 0,
        Role::Teacher => 1,
        Role::Plain => 2,
        Role::Student => 3,
        Role::Average => 4,
    };
    let Some(best) = models.iter().map(rank).min() else { return Err(String::new()) };
    let mut fits = (0..models.len()).filter(|&at| rank(&models[at]) == best);
    match (fits.next(), fits.next()) {
        (Some(at), None) => {
            let others: Vec<_> = (0..models.len()).filter(|other| *other != at).collect();
            let others: Vec<_> = others.into_iter().map(|at| words_of(&models[at])).collect();
            let text = || {
                let taken = words_of(&models[at]);
                format!(
                    "weights are those of {taken}. The file also holds {}, which a part names",
                    others.join(", ")
                )
            };
            Ok((at, models[at].owners[0], (!others.is_empty()).then(text)))
        }
        _ => Err(format!(
            "holds {} models: {}. Name one with --part, or save one of them",
            models.len(),
            some_of(models)
        )),
    }
}

/// Why no model was found in a file with these names.
pub(super) fn none_found<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let flat = |name: &str| name.rsplit('.').next().is_some_and(|word| FLAT.contains(&word));
    if let Some(name) = names.clone().find(|name| flat(name)) {
        return format!(
            "holds parameters that FSDP has joined, such as {name}. Only the processes that \
             trained it can separate them. Save it there with StateDictType.FULL_STATE_DICT"
        );
    }
    let some: Vec<_> = names.clone().take(3).collect();
    format!(
        "holds no vision transformer: looked for {PATCHES} and its names in other programs, found \
         {} tensors ({}, ...)",
        names.count(),
        some.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(names: &[&str]) -> Vec<(Dialect, String, Vec<&'static str>)> {
        let found = find(names.iter().copied()).into_iter();
        found.map(|model| (model.dialect, model.words().to_owned(), model.owners)).collect()
    }

    /// The words before the names of the model that is taken.
    fn chosen(names: &[&str], wanted: Option<&str>) -> Result<String, String> {
        let found = find(names.iter().copied());
        choose(&found, wanted).map(|(at, ..)| found[at].words().to_owned())
    }

    #[test]
    fn any_words_may_stand_before_the_names() {
        for before in ["", "vit.", "student_backbone.", "a.b_c.model._model.", "encoder."] {
            let found = models(&[&format!("{before}patch_embed.proj.weight"), "loss.weight"]);
            let words = before.trim_end_matches('.').to_owned();
            assert_eq!(found, [(Dialect::Timm, words, vec!["encoder"])], "{before}");
        }
        assert_eq!(models(&["a.xpatch_embed.proj.weight", "b"]), []);
    }

    #[test]
    fn words_of_wrappers_are_taken_off_outside_and_inside() {
        let found = find(["module._orig_mod.patch_embed.proj.weight"].into_iter());
        assert_eq!((found.len(), found[0].words()), (1, ""));
        let inside = "module.blocks.0._checkpoint_wrapped_module._orig_mod.norm1.weight";
        assert_eq!(found[0].our_name(inside).unwrap(), "encoder.blocks.0.norm1.weight");
    }

    #[test]
    fn names_of_a_model_within_another_are_its_own() {
        let names = ["patch_embed.proj.weight", "ema.patch_embed.proj.weight", "ema.norm.bias"];
        let found = find(names.into_iter());
        assert_eq!((found.len(), found[0].words(), found[1].words()), (2, "", "ema"));
        assert_eq!(found[0].our_name("ema.norm.bias"), None);
        assert_eq!(found[1].our_name("ema.norm.bias").unwrap(), "encoder.norm.bias");
        assert_eq!(found[0].our_name("norm.bias").unwrap(), "encoder.norm.bias");
    }

    #[test]
    fn models_of_several_networks_are_one() {
        let salt = ["student.", "teacher.", ""].map(|owner| match owner {
            "" => "predictor.context_proj.weight".to_owned(),
            owner => format!("{owner}patch_embed.proj.weight"),
        });
        let salt: Vec<&str> = salt.iter().map(String::as_str).collect();
        let both = vec!["student", "teacher"];
        assert_eq!(models(&salt), [(Dialect::Saltworks, String::new(), both)]);
        let spt = ["x.encoder.patch_embed.proj.weight", "x.encoder.vit.patch_embed.proj.weight"];
        assert_eq!(models(&spt), [(Dialect::StablePretraining, "x".into(), vec!["encoder"])]);
    }

    #[test]
    fn the_encoder_that_papers_evaluate_is_taken_and_others_by_name() {
        let of = |parts: &[&str]| -> Vec<String> {
            parts.iter().map(|part| format!("{part}patch_embed.proj.weight")).collect()
        };
        let chosen = |parts: &[&str], wanted: Option<&str>| {
            let names = of(parts);
            super::tests::chosen(&names.iter().map(String::as_str).collect::<Vec<_>>(), wanted)
        };
        let jepa = ["encoder.module.", "target_encoder.module."];
        assert_eq!(chosen(&jepa, None).unwrap(), "target_encoder");
        assert_eq!(chosen(&jepa, Some("encoder")).unwrap(), "encoder");
        assert!(chosen(&["a.b.", "c.b."], Some("b")).unwrap_err().contains("several models"));
        let dino = ["student.module.backbone.", "teacher.backbone."];
        assert_eq!(chosen(&dino, None).unwrap(), "teacher.backbone");
        assert_eq!(chosen(&dino, Some("student")).unwrap(), "student.backbone");
        assert_eq!(chosen(&dino, Some("student.backbone")).unwrap(), "student.backbone");
        let moco = ["backbone.", "backbone_momentum."];
        assert_eq!(chosen(&moco, None).unwrap(), "backbone");
        assert_eq!(chosen(&moco, Some("momentum")).unwrap(), "backbone_momentum");
        let lightly = ["student_backbone.vit.", "teacher_backbone.vit."];
        assert_eq!(chosen(&lightly, Some("student")).unwrap(), "student_backbone.vit");
        assert_eq!(chosen(&["student.", "teacher_ema."], None).unwrap(), "teacher_ema");
        let timm = ["state_dict.", "state_dict_ema."];
        assert_eq!(chosen(&timm, None).unwrap(), "state_dict");
        assert_eq!(chosen(&timm, Some("ema")).unwrap(), "state_dict_ema");
        assert!(chosen(&timm, Some("teacher")).unwrap_err().contains("holds no teacher; found"));
        let message = chosen(&["left.", "right."], None).unwrap_err();
        assert!(message.contains("holds 2 models: left, right. Name one"), "{message}");
    }

    #[test]
    fn a_file_of_very_many_models_is_refused() {
        let names: Vec<String> = (0..5000).map(|n| format!("a{n}.{PATCHES}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for wanted in [None, Some("a1")] {
            let message = chosen(&names, wanted).unwrap_err();
            assert!(message.starts_with("holds more than 64 models: a"), "{message}");
            assert!(message.len() < 200, "{message}");
        }
    }

    #[test]
    fn joined_parameters_are_refused_with_the_reason() {
        let message = none_found(["backbone._fsdp_wrapped_module._flat_param"].into_iter());
        assert!(message.contains("FULL_STATE_DICT"), "{message}");
        assert!(none_found(["a", "b"].into_iter()).contains("found 2 tensors (a, b, ...)"));
    }
}
