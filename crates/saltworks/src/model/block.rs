//! The pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).
//! timm/models/vision_transformer.py, Block; Dosovitskiy et al. 2021, eq. 2 and 3.

use super::StepKey;
use super::layers::{Linear, Norm, Start, join};
use super::rotary::Rotary;
use engine::random::Random;
use engine::{Module, Parameter, Result, Segments, Tape, Tensor, ops};
use std::sync::Arc;

/// Sizes and options of a block.
#[derive(Clone, Copy)]
pub(crate) struct BlockSpec {
    /// D
    pub(crate) width: usize,
    /// F
    pub(crate) hidden: usize,
    /// Whether the MLP is SwiGLU.
    pub(crate) swiglu: bool,
    /// A
    pub(crate) heads: usize,
    /// ε of the norms.
    pub(crate) eps: f32,
    /// Initial value of layer scale, or none without layer scale.
    pub(crate) layer_scale: Option<f32>,
    /// Layer norm on each head's queries and keys.
    pub(crate) qk_norm: bool,
    /// Rate of stochastic depth.
    pub(crate) drop_path: f32,
    pub(crate) start: Start,
}

/// A block and its parameters.
pub(crate) struct Block {
    spec: BlockSpec,
    /// Its index in the stack, which seeds its random draws.
    index: usize,
    norm1: Norm,
    qkv: Linear,
    qk_norm: Option<[Norm; 2]>,
    proj: Linear,
    scales: Option<[Parameter; 2]>,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// The packed rows that blocks read.
#[derive(Clone)]
pub(crate) struct Sequences {
    /// Rows of each sequence.
    pub(crate) segments: Segments,
    /// Where each row lies, for rotary positions.
    pub(crate) rotary: Option<Rotary>,
    /// Sequences of each sample: all first ones, then all second ones, and so on.
    pub(crate) per_sample: usize,
}

impl Sequences {
    /// The draws of stochastic depth in these sequences.
    fn draws(&self, key: Option<StepKey>) -> Option<Draws> {
        key.map(|key| Draws { key, per_sample: self.per_sample })
    }
}

impl From<Segments> for Sequences {
    /// One sequence of each sample, without rotary positions.
    fn from(segments: Segments) -> Self {
        Self { segments, rotary: None, per_sample: 1 }
    }
}

/// What the random draws of a step depend on.
#[derive(Clone, Copy)]
struct Draws {
    key: StepKey,
    /// As in [`Sequences`].
    per_sample: usize,
}

/// The rows of a block's output that are needed. Only these rows have queries.
pub(crate) struct Queries<'a> {
    /// Rows of the input, sample by sample.
    pub(crate) rows: &'a [u32],
    /// Number of rows of each sample.
    pub(crate) segments: &'a Segments,
}

impl Block {
    pub(crate) fn new(spec: BlockSpec, index: usize, random: &mut Random) -> Self {
        let BlockSpec { width, hidden, heads, eps, start, .. } = spec;
        let scale = |value| Parameter::new("gamma", Tensor::from_vec(vec![value; width], &[width]));
        Self {
            spec,
            index,
            norm1: Norm::new(width, eps),
            qkv: Linear::new(width, 3 * width, start, random),
            qk_norm: spec.qk_norm.then(|| [(); 2].map(|()| Norm::new(width / heads, eps))),
            proj: Linear::new(width, width, start, random),
            scales: spec.layer_scale.map(|value| [scale(value), scale(value)]),
            norm2: Norm::new(width, eps),
            fc1: Linear::new(width, if spec.swiglu { 2 } else { 1 } * hidden, start, random),
            fc2: Linear::new(hidden, width, start, random),
        }
    }

    /// x [R, D] -> [R, D]; tokens attend within their sample.
    pub(crate) fn forward(
        &self,
        tape: &Tape,
        x: &Tensor,
        sequences: &Sequences,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let qkv = self.queries_keys_values(tape, x, sequences)?; // [R, 3D]
        let mixed = ops::attention(tape, &qkv, &sequences.segments, self.spec.heads)?; // [R, D]
        self.after_attention(tape, x, &mixed, &sequences.segments, sequences.draws(key))
    }

    /// x [R, D] -> [R, 3D]: queries, keys and values, with the norms and the places of queries and
    /// keys.
    fn queries_keys_values(
        &self,
        tape: &Tape,
        x: &Tensor,
        sequences: &Sequences,
    ) -> Result<Tensor> {
        let width = self.spec.width;
        let mut qkv = self.qkv.forward(tape, &self.norm1.forward(tape, x)?)?; // [R, 3D]
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            qkv = q_norm.by_head(tape, &qkv, 0..width)?;
            qkv = k_norm.by_head(tape, &qkv, width..2 * width)?;
        }
        match &sequences.rotary {
            Some(rotary) => rotary.turn(tape, &qkv, 0..2 * width),
            None => Ok(qkv),
        }
    }

    /// Attention weights: for each sample [A, R, R], softmax(q·k/√E) of each head. Rows sum to 1.
    /// They are used only to draw attention. The forward pass computes no such table.
    pub(crate) fn attention(
        &self,
        tape: &Tape,
        x: &Tensor,
        sequences: &Sequences,
    ) -> Result<Vec<Vec<f32>>> {
        let (width, heads) = (self.spec.width, self.spec.heads);
        let qkv = self.queries_keys_values(tape, x, sequences)?.to_vec();
        let (segments, size) = (&sequences.segments, width / heads);
        let part = |row: usize, head: usize, which: usize| {
            let first = 3 * width * row + which * width + head * size;
            &qkv[first..first + size]
        };
        let sample = |rows: std::ops::Range<usize>| {
            let mut all = Vec::with_capacity(heads * rows.len() * rows.len());
            for head in 0..heads {
                for query in rows.clone() {
                    let q = part(query, head, 0);
                    let score = |key| {
                        let products = q.iter().zip(part(key, head, 1));
                        products.map(|(q, k)| q * k).sum::<f32>() / (size as f32).sqrt()
                    };
                    all.extend(softmax(rows.clone().map(score).collect()));
                }
            }
            all
        };
        Ok((0..segments.len()).map(|b| sample(segments.range(b))).collect())
    }

    /// Computes only the rows of `queries` [K, D]. All tokens have keys and values.
    pub(crate) fn forward_queries(
        &self,
        tape: &Tape,
        x: &Tensor,
        sequences: &Sequences,
        queries: &Queries<'_>,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let (width, heads) = (self.spec.width, self.spec.heads);
        let normed = self.norm1.forward(tape, x)?; // [R, D]
        let mut kv = self.qkv.part(tape, &normed, width..3 * width)?; // [R, 2D]
        let query_rows = ops::gather(tape, &normed, queries.rows)?; // [K, D]
        let mut q = self.qkv.part(tape, &query_rows, 0..width)?; // [K, D]
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            q = q_norm.by_head(tape, &q, 0..width)?;
            kv = k_norm.by_head(tape, &kv, 0..width)?;
        }
        if let Some(rotary) = &sequences.rotary {
            q = rotary.rows(queries.rows).turn(tape, &q, 0..width)?;
            kv = rotary.turn(tape, &kv, 0..width)?;
        }
        let (of_queries, of_keys) = (queries.segments, &sequences.segments);
        let mixed = ops::cross_attention(tape, &q, of_queries, &kv, of_keys, heads)?;
        let skip = ops::gather(tape, x, queries.rows)?; // [K, D]
        self.after_attention(tape, &skip, &mixed, queries.segments, sequences.draws(key))
    }

    fn after_attention(
        &self,
        tape: &Tape,
        skip: &Tensor,
        mixed: &Tensor,
        segments: &Segments,
        draws: Option<Draws>,
    ) -> Result<Tensor> {
        let (weight, bias) = (self.proj.weight.tensor(), self.proj.bias.tensor());
        let x = self.branch(tape, skip, segments, (draws, 0), |skip| match skip {
            Some(skip) => ops::linear_residual(tape, mixed, &weight, Some(&bias), skip),
            None => ops::linear(tape, mixed, &weight, Some(&bias)),
        })?;
        let normed = self.norm2.forward(tape, &x)?;
        let (w1, b1) = (self.fc1.weight.tensor(), self.fc1.bias.tensor());
        let (w2, b2) = (self.fc2.weight.tensor(), self.fc2.bias.tensor());
        self.branch(tape, &x, segments, (draws, 1), |skip| {
            if !self.spec.swiglu {
                return ops::mlp(tape, &normed, (&w1, Some(&b1)), (&w2, Some(&b2)), skip);
            }
            let hidden = ops::linear(tape, &normed, &w1, Some(&b1))?; // [R, 2F]
            let hidden = ops::swiglu(tape, &hidden)?; // [R, F]
            match skip {
                Some(skip) => ops::linear_residual(tape, &hidden, &w2, Some(&b2), skip),
                None => ops::linear(tape, &hidden, &w2, Some(&b2)),
            }
        })
    }

    /// skip + keep γ y: branch number `which` of the block. `compute` returns y, or skip + y if it
    /// receives the skip.
    fn branch(
        &self,
        tape: &Tape,
        skip: &Tensor,
        segments: &Segments,
        (draws, which): (Option<Draws>, usize),
        compute: impl FnOnce(Option<&Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let keep = draws.and_then(|draws| self.keep(draws, segments.len(), which));
        if self.scales.is_none() && keep.is_none() {
            return compute(Some(skip));
        }
        let y = compute(None)?;
        let scale = self.scales.as_ref().map(|scales| scales[which].tensor());
        ops::residual(tape, skip, &y, scale.as_ref(), keep.as_deref().map(|keep| (segments, keep)))
    }

    /// Each sequence's factor: 0 with probability `rate`, else 1/(1 - rate), as in timm's DropPath.
    fn keep(&self, draws: Draws, sequences: usize, which: usize) -> Option<Vec<f32>> {
        let (rate, Draws { key, per_sample }) = (self.spec.drop_path, draws);
        if rate == 0.0 {
            return None;
        }
        let factor = (1.0 - rate).recip();
        let of_samples = |mask: usize| {
            // There are 2^20 streams per step: 2^12 branches and 2^8 masks of a sample.
            let stream = ((mask << 12) | (2 * self.index + which)) as u64;
            let mut random = Random::new(key.seed, "drop_path", (key.step << 20) | stream);
            let draw = || if random.uniform() < rate { 0.0 } else { factor };
            // A sample has the same factor in a part of a batch as in the whole batch.
            let all = std::iter::repeat_with(draw).take(key.first_sample + sequences / per_sample);
            all.skip(key.first_sample).collect::<Vec<_>>()
        };
        Some((0..per_sample).flat_map(of_samples).collect())
    }
}

impl Module for Block {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        self.norm1.visit(&join(prefix, "norm1"), f);
        self.qkv.visit(&join(prefix, "attn.qkv"), f);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            q_norm.visit(&join(prefix, "attn.q_norm"), f);
            k_norm.visit(&join(prefix, "attn.k_norm"), f);
        }
        self.proj.visit(&join(prefix, "attn.proj"), f);
        if let Some([first, _]) = &self.scales {
            f(&join(prefix, "ls1.gamma"), first);
        }
        self.norm2.visit(&join(prefix, "norm2"), f);
        self.fc1.visit(&join(prefix, "mlp.fc1"), f);
        self.fc2.visit(&join(prefix, "mlp.fc2"), f);
        if let Some([_, second]) = &self.scales {
            f(&join(prefix, "ls2.gamma"), second);
        }
    }
}

fn softmax(mut scores: Vec<f32>) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - most).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

/// A stack of blocks.
pub(crate) struct Blocks(Vec<Arc<Block>>);

impl Blocks {
    /// `depth` blocks. The rate of stochastic depth grows linearly to the spec's rate, as in timm.
    pub(crate) fn new(spec: BlockSpec, depth: usize, random: &mut Random) -> Self {
        let last = depth.saturating_sub(1).max(1) as f32;
        let block = |index| {
            let drop_path = spec.drop_path * index as f32 / last;
            Arc::new(Block::new(BlockSpec { drop_path, ..spec }, index, random))
        };
        Self((0..depth).map(block).collect())
    }

    /// Attention weights of the last block ([`Block::attention`]). None if there are no blocks.
    pub(crate) fn last_attention(
        &self,
        tape: &Tape,
        mut x: Tensor,
        sequences: &Sequences,
    ) -> Result<Option<Vec<Vec<f32>>>> {
        let Some((last, before)) = self.0.split_last() else { return Ok(None) };
        for block in before {
            x = block.forward(tape, &x, sequences, None)?;
        }
        last.attention(tape, &x, sequences).map(Some)
    }

    /// x [R, D] -> the outputs of the last `count` blocks, [R, D] each, in their order.
    pub(crate) fn last_outputs(
        &self,
        tape: &Tape,
        mut x: Tensor,
        sequences: &Sequences,
        count: usize,
    ) -> Result<Vec<Tensor>> {
        let mut outputs = Vec::new();
        for (index, block) in self.0.iter().enumerate() {
            x = block.forward(tape, &x, sequences, None)?;
            if index + count >= self.0.len() {
                outputs.push(x.clone());
            }
        }
        Ok(outputs)
    }

    /// x [R, D] -> [R, D], or only the rows of `queries` [K, D].
    pub(crate) fn forward(
        &self,
        tape: &Tape,
        x: Tensor,
        sequences: &Sequences,
        queries: Option<&Queries<'_>>,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let (mut x, count) = (x, self.0.len());
        for (index, block) in self.0.iter().enumerate() {
            x = match queries {
                Some(queries) if index + 1 == count => {
                    block.forward_queries(tape, &x, sequences, queries, key)?
                }
                _ => {
                    let (block, sequences) = (block.clone(), sequences.clone());
                    tape.checkpoint(&x, move |tape, x| block.forward(tape, x, &sequences, key))?
                }
            };
        }
        match queries {
            Some(queries) if count == 0 => ops::gather(tape, &x, queries.rows),
            _ => Ok(x),
        }
    }
}

impl Module for Blocks {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        for (index, block) in self.0.iter().enumerate() {
            block.visit(&join(prefix, &format!("blocks.{index}")), f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn spec(drop_path: f32) -> BlockSpec {
        BlockSpec {
            width: 4,
            hidden: 8,
            swiglu: false,
            heads: 2,
            eps: 1e-6,
            layer_scale: None,
            qk_norm: false,
            drop_path,
            start: Start::TruncNormal,
        }
    }

    /// timm's `torch.linspace(0, 0.3, depth)`.
    #[test]
    fn the_rate_of_stochastic_depth_grows_from_0_to_the_whole_rate() {
        let rates = |depth| -> Vec<f32> {
            let blocks = Blocks::new(spec(0.3), depth, &mut Random::new(0, "test", 0));
            blocks.0.iter().map(|block| block.spec.drop_path).collect()
        };
        let (found, wanted) = (rates(4), [0.0, 0.1, 0.2, 0.3]);
        let near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-6);
        assert!(near && found.len() == 4, "{found:?}");
        assert_eq!(rates(1), [0.0]);
    }

    /// timm's DropPath with `scale_by_keep`: the mean of a branch stays the same.
    #[test]
    fn kept_branches_are_scaled_up_by_the_share_that_is_kept() {
        let key = StepKey { seed: 1, step: 3, first_sample: 0 };
        let block = Block::new(spec(0.75), 1, &mut Random::new(0, "test", 0));
        let keep = block.keep(Draws { key, per_sample: 1 }, 4000, 0).unwrap();
        assert!(keep.iter().all(|factor| [0.0, 4.0].contains(factor)));
        // Standard error of the mean: 4 √(0.75 · 0.25 / 4000) = 0.027.
        let mean = keep.iter().sum::<f32>() / 4000.0;
        assert!((mean - 1.0).abs() < 0.11, "{mean}");
    }

    #[test]
    fn no_two_branches_drop_the_same_samples() {
        let key = StepKey { seed: 1, step: 3, first_sample: 0 };
        let mut random = Random::new(0, "test", 0);
        let mut drawn = HashSet::new();
        for index in 0..12 {
            let block = Block::new(spec(0.5), index, &mut random);
            for which in 0..2 {
                let keep = block.keep(Draws { key, per_sample: 2 }, 128, which).unwrap();
                let masks = keep.chunks(64);
                drawn.extend(masks.map(|keep| keep.iter().map(|f| *f == 0.0).collect::<Vec<_>>()));
            }
        }
        // Two of 48 draws of 64 coins are equal with a probability of 1128 in 2^64.
        assert_eq!(drawn.len(), 48);
    }

    #[test]
    fn a_part_of_a_batch_drops_what_it_drops_in_the_whole() {
        let block = Block::new(spec(0.5), 1, &mut Random::new(0, "test", 0));
        let keep = |first_sample, sequences| {
            let key = StepKey { seed: 1, step: 3, first_sample };
            block.keep(Draws { key, per_sample: 2 }, sequences, 0).unwrap()
        };
        let (whole, part) = (keep(0, 16), keep(3, 10));
        assert_eq!(part, [&whole[3..8], &whole[11..16]].concat());
    }
}
