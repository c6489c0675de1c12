//! Finds the known word that is nearest to an unknown one.

/// Names of our keys in other programs.
const SYNONYMS: [(&str, &str); 34] = [
    ("learning_rate", "lr"),
    ("base_lr", "lr"),
    ("min_lr", "final_lr"),
    ("wd", "weight_decay"),
    ("epoch", "epochs"),
    ("max_epochs", "epochs"),
    ("num_epochs", "epochs"),
    ("iterations", "steps"),
    ("max_steps", "steps"),
    ("num_steps", "steps"),
    ("batch_size", "batch"),
    ("bs", "batch"),
    ("accum_iter", "accumulate"),
    ("warmup_epochs", "warmup"),
    ("warmup_steps", "warmup"),
    ("clip_grad", "clip"),
    ("grad_clip", "clip"),
    ("image_size", "size"),
    ("img_size", "size"),
    ("resolution", "size"),
    ("in_chans", "channels"),
    ("num_workers", "threads"),
    ("workers", "threads"),
    ("data_path", "path"),
    ("root", "path"),
    ("patch_size", "patch"),
    ("embed_dim", "width"),
    ("dim", "width"),
    ("num_heads", "heads"),
    ("num_layers", "depth"),
    ("time", "minutes"),
    ("hours", "minutes"),
    ("max_time", "minutes"),
    ("layers", "depth"),
];

/// Our name for a key of other programs. Otherwise the word itself.
pub(super) fn ours(word: &str) -> &str {
    SYNONYMS.iter().find(|(theirs, _)| *theirs == word).map_or(word, |(_, ours)| ours)
}

/// The candidate nearest to `word`, if it is near enough to have been meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_nonsense_is_not() {
        assert_eq!(nearest("epohcs", ["steps", "epochs"]), Some("epochs"));
        assert_eq!(nearest("wieght_decay", ["weight_decay", "warmup"]), Some("weight_decay"));
        assert_eq!(nearest("zzz", ["steps", "epochs"]), None);
    }
}
