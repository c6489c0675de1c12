//! The nearest known word to one that is not known.

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
