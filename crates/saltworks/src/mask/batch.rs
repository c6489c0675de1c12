//! The masks of a batch: which tokens of each sample the encoder sees, and which are predicted.

use engine::Segments;

use super::{Error, Grid, Result};

/// Tokens of one sample by their index in the grid, ascending.
pub type TokenIndex = Vec<u32>;

/// Context and target tokens, one list for each of the B samples. Lists of one batch may differ in
/// length: no list is padded or cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks {
    /// The grid of the tokens.
    pub grid: Grid,
    /// [B] lists of the K_b tokens that the encoder sees.
    pub context: Vec<TokenIndex>,
    /// [B] lists of the M_b tokens to predict, none of them in the context.
    pub target: Vec<TokenIndex>,
}

impl Masks {
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
        Ok(Self { grid, context, target })
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
        Ok(Self { grid, context, target })
    }

    /// B, the number of samples.
    pub fn len(&self) -> usize {
        self.context.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty()
    }

    /// The masks of some of the samples.
    #[must_use]
    pub fn part(&self, samples: std::ops::Range<usize>) -> Self {
        let [context, target] =
            [&self.context, &self.target].map(|lists| lists[samples.clone()].to_vec());
        Self { grid: self.grid, context, target }
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
        let samples = self.target.iter().zip(0..);
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
