//! The masks of a batch: which tokens of each sample the encoder sees, and which are predicted.

use engine::Segments;

use super::{Error, Grid, Result};

/// Tokens of one sample by their index in the grid, ascending.
pub type TokenIndex = Vec<u32>;

/// Context and target tokens of the B samples of a batch. Lists may differ in length: no list is
/// padded or cut.
///
/// A sample may have several masks. Then the lists are those of the first mask of all samples,
/// followed by those of the second, and so on. Each list is a sequence of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks {
    /// The grid of the tokens.
    pub grid: Grid,
    /// [S B] lists of the K_b tokens that the encoder sees, S being the masks of a sample.
    pub context: Vec<TokenIndex>,
    /// [S B] lists of the M_b tokens to predict, none of them in the context.
    pub target: Vec<TokenIndex>,
    /// S
    per_sample: usize,
    /// Targets of each mask in the whole batch, if this is a part of it.
    batch_targets: Option<Vec<usize>>,
}

impl Masks {
    /// One mask of each sample, from lists that are not checked.
    pub fn of_lists(grid: Grid, context: Vec<TokenIndex>, target: Vec<TokenIndex>) -> Self {
        assert_eq!(context.len(), target.len(), "a context and a target for each sample");
        Self { grid, context, target, per_sample: 1, batch_targets: None }
    }

    /// Several masks of each sample, each given for all samples.
    pub fn several(masks: Vec<Self>) -> Self {
        let mut masks = masks.into_iter();
        let mut all = masks.next().expect("at least one mask of a sample");
        for more in masks {
            assert_eq!((more.grid, more.len()), (all.grid, all.len()), "masks of the same samples");
            all.context.extend(more.context);
            all.target.extend(more.target);
            all.per_sample += more.per_sample;
        }
        all
    }

    /// Checks lists that come from outside: each is ascending, inside the grid and not empty, and
    /// no token is both context and target.
    pub fn new(grid: Grid, context: Vec<TokenIndex>, target: Vec<TokenIndex>) -> Result<Self> {
        if context.len() != target.len() {
            let problem =
                format!("{} context lists, but {} target lists", context.len(), target.len());
            return Err(Error::Lists { sample: context.len().min(target.len()), problem });
        }
        for (sample, (context, target)) in context.iter().zip(&target).enumerate() {
            check_sample(grid, context, target)
                .map_err(|problem| Error::Lists { sample, problem })?;
        }
        Ok(Self::of_lists(grid, context, target))
    }

    /// [`Masks::new`] of lists whose tokens are in any order. Context tokens, predictions and
    /// targets keep it.
    pub fn in_any_order(
        grid: Grid,
        context: Vec<TokenIndex>,
        target: Vec<TokenIndex>,
    ) -> Result<Self> {
        let sorted = |lists: &[TokenIndex]| -> Vec<TokenIndex> {
            let mut lists = lists.to_vec();
            lists.iter_mut().for_each(|list| list.sort_unstable());
            lists
        };
        Self::new(grid, sorted(&context), sorted(&target))?;
        Ok(Self::of_lists(grid, context, target))
    }

    /// B, the number of samples.
    pub fn len(&self) -> usize {
        self.context.len() / self.per_sample
    }

    /// S, the number of masks of a sample.
    pub fn per_sample(&self) -> usize {
        self.per_sample
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty()
    }

    /// The masks of some of the samples.
    #[must_use]
    pub fn part(&self, samples: std::ops::Range<usize>) -> Self {
        let [context, target] = [&self.context, &self.target].map(|lists| {
            let of_masks = lists.chunks(self.len().max(1));
            of_masks.flat_map(|lists| lists[samples.clone()].iter().cloned()).collect()
        });
        let batch_targets = Some(self.targets_of_masks());
        Self { grid: self.grid, context, target, per_sample: self.per_sample, batch_targets }
    }

    /// [S] targets of each mask in the whole batch.
    fn targets_of_masks(&self) -> Vec<usize> {
        let count = |lists: &[TokenIndex]| lists.iter().map(Vec::len).sum();
        let counted = || self.target.chunks(self.len().max(1)).map(count).collect();
        self.batch_targets.clone().unwrap_or_else(counted)
    }

    /// The share of these targets in the loss of the whole batch, which is the mean over masks of
    /// the mean over their targets.
    pub fn share(&self) -> f32 {
        let counts = self.target.chunks(self.len().max(1)).zip(self.targets_of_masks());
        let shares = counts
            .map(|(lists, all)| lists.iter().map(Vec::len).sum::<usize>() as f32 / all as f32);
        shares.sum::<f32>() / self.per_sample as f32
    }

    /// [ΣM] what each target weighs in the loss, in sum 1. None if all weigh the same, as they do
    /// if each sample has one mask.
    pub fn target_weights(&self) -> Option<Vec<f32>> {
        if self.per_sample == 1 {
            return None;
        }
        let share = f64::from(self.share()) * self.per_sample as f64;
        let of_masks = self.target.chunks(self.len().max(1)).zip(self.targets_of_masks());
        let weights = of_masks.flat_map(|(lists, all)| {
            let count = lists.iter().map(Vec::len).sum();
            std::iter::repeat_n((1.0 / (all as f64 * share)) as f32, count)
        });
        Some(weights.collect())
    }

    /// ΣM, all tokens to predict.
    pub fn target_count(&self) -> usize {
        self.target.iter().map(Vec::len).sum()
    }

    /// The same contexts, with every other token as a target. stable-pretraining's stage 1
    /// (`MAE(masking=MultiBlockMasking())`) reconstructs every token that the encoder does not see.
    #[must_use]
    pub fn with_all_others_as_target(mut self) -> Self {
        for (context, target) in self.context.iter().zip(&mut self.target) {
            let mut shown = context.iter().peekable();
            let others = (0..self.grid.len() as u32).filter(|n| shown.next_if_eq(&n).is_none());
            *target = others.collect();
        }
        self
    }

    /// The M_b target tokens of each sample as packed rows.
    pub fn target_segments(&self) -> Segments {
        Segments::new(self.target.iter().map(Vec::len))
    }

    /// [ΣM] rows b·N + n of the target tokens in a full batch of tokens [B·N, D].
    pub fn target_global(&self) -> Vec<u32> {
        let n = self.grid.len() as u32;
        let samples = self.target.iter().zip((0..self.len() as u32).cycle());
        samples.flat_map(|(index, b)| index.iter().map(move |token| b * n + token)).collect()
    }
}

fn check_sample(grid: Grid, context: &[u32], target: &[u32]) -> std::result::Result<(), String> {
    for (name, list) in [("context", context), ("target", target)] {
        if list.is_empty() {
            return Err(format!("the {name} is empty, at least one token is needed"));
        }
        if !list.is_sorted_by(|a, b| a < b) {
            return Err(format!("the {name} is not in ascending order, or has a token twice"));
        }
        if let Some(token) = list.last().filter(|&&token| token as usize >= grid.len()) {
            let n = grid.len();
            return Err(format!("{name} token {token} lies outside the {grid} grid of {n} tokens"));
        }
    }
    let both = target.iter().find(|token| context.binary_search(token).is_ok());
    both.map_or(Ok(()), |token| Err(format!("token {token} is both context and target")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(context: &[u32], target: &[u32]) -> Result<Masks> {
        Masks::new(Grid::image(2, 3), vec![context.to_vec()], vec![target.to_vec()])
    }

    #[test]
    fn global_rows_count_through_the_batch() {
        let grid = Grid::image(2, 2);
        let masks =
            Masks::new(grid, vec![vec![0, 3], vec![1]], vec![vec![1], vec![0, 2, 3]]).unwrap();
        assert_eq!(masks.target_global(), [1, 4, 6, 7]);
        assert_eq!(masks.target_segments().rows(), 4);
    }

    /// Two samples with two masks: 3 targets of the first mask, 6 of the second.
    fn two_masks() -> Masks {
        let grid = Grid::image(2, 2);
        let one = |context: [&[u32]; 2], target: [&[u32]; 2]| {
            Masks::new(
                grid,
                context.map(<[u32]>::to_vec).to_vec(),
                target.map(<[u32]>::to_vec).to_vec(),
            )
        };
        let first = one([&[0, 3], &[1]], [&[1], &[0, 2]]).unwrap();
        let second = one([&[0], &[2]], [&[1, 2, 3], &[0, 1, 3]]).unwrap();
        Masks::several(vec![first, second])
    }

    #[test]
    fn each_mask_of_a_sample_weighs_the_same_however_many_targets_it_has() {
        let masks = two_masks();
        assert_eq!((masks.len(), masks.per_sample(), masks.target_count()), (2, 2, 9));
        assert_eq!(masks.target_global(), [1, 4, 6, 1, 2, 3, 4, 5, 7]);
        let weights = masks.target_weights().unwrap();
        assert_eq!(masks.share(), 1.0);
        assert!(weights[..3].iter().all(|&weight| (weight - 1.0 / 6.0).abs() < 1e-7));
        assert!(weights[3..].iter().all(|&weight| (weight - 1.0 / 12.0).abs() < 1e-7));
    }

    /// The gradients of a batch do not depend on its parts.
    #[test]
    fn the_parts_of_a_batch_weigh_what_they_weigh_in_the_whole() {
        let whole = two_masks();
        let parts = [whole.part(0..1), whole.part(1..2)];
        assert_eq!(parts[1].context, [[1], [2]]);
        assert_eq!(parts[0].target, [vec![1], vec![1, 2, 3]]);
        let weights = |part: &Masks| {
            let weights = part.target_weights().unwrap();
            weights.iter().map(|weight| weight * part.share()).collect::<Vec<_>>()
        };
        let all = whole.target_weights().unwrap();
        let [first, second] = parts.each_ref().map(weights);
        let got = [&first[..1], &second[..2], &first[1..], &second[2..]].concat();
        assert!(got.iter().zip(&all).all(|(got, want)| (got - want).abs() < 1e-7), "{got:?}");
        assert!((parts[0].share() + parts[1].share() - 1.0).abs() < 1e-6);
        assert!((parts[0].share() - (1.0 / 3.0 + 0.5) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn all_others_are_the_tokens_outside_the_context() {
        let masks = masks(&[1, 4], &[2]).unwrap().with_all_others_as_target();
        assert_eq!(masks.target, [[0, 2, 3, 5]]);
    }

    #[test]
    fn wrong_lists_are_refused_by_sample_and_token() {
        let message =
            |context: &[u32], target: &[u32]| masks(context, target).unwrap_err().to_string();
        assert!(message(&[1, 2], &[2, 3]).contains("sample 0: token 2 is both"));
        assert!(message(&[2, 1], &[3]).contains("ascending"));
        assert!(message(&[1], &[6]).contains("token 6 lies outside the 2 x 3 grid of 6 tokens"));
        assert!(message(&[], &[3]).contains("context is empty"));
    }
}
