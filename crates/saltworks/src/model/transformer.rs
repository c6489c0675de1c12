//! The common part of predictor and pixel decoder. Context tokens and queries attend jointly. The
//! queries' outputs are projected. stable-pretraining backbone/vit.py, FlexibleTransformer with
//! joint attention. V-JEPA's predictor has the same form.

use super::StepKey;
use super::block::{BlockSpec, Blocks, Queries, Sequences};
use super::layers::{Linear, Norm, Start, join};
use super::rotary::{Rope, RotaryTable};
use super::spec::{MOST_DEPTH, MOST_WIDTH, check_most, check_rotary_heads};
use super::{SpecError, position};
use crate::mask::{Grid, Masks};
use engine::ops::Row;
use engine::random::Random;
use engine::shape::{expect_count, expect_shape};
use engine::{Constant, Module, Parameter, Result, Segments, Tape, Tensor, init, ops};

/// Sizes of a predictor or decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerSpec {
    /// D
    pub width: usize,
    /// L
    pub depth: usize,
    /// A
    pub heads: usize,
    /// How its first weights are drawn.
    pub initial: FirstWeights,
}

/// The distribution of a predictor's or decoder's first weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstWeights {
    /// torch.nn.Linear's default, which stable-pretraining keeps.
    #[default]
    Torch,
    /// V-JEPA's for a predictor, MAE's for a decoder.
    Published,
}

impl TransformerSpec {
    /// These sizes, with torch's first weights.
    pub const fn new(width: usize, depth: usize, heads: usize) -> Self {
        Self { width, depth, heads, initial: FirstWeights::Torch }
    }

    /// Refuses sizes that no transformer can have. `name` is its name in messages.
    pub fn check(&self, name: &'static str) -> std::result::Result<(), SpecError> {
        let sizes = [("width", self.width), ("depth", self.depth), ("heads", self.heads)];
        if let Some((size, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(SpecError::Zero { name, size });
        }
        check_most(name, "width", self.width, MOST_WIDTH)?;
        check_most(name, "depth", self.depth, MOST_DEPTH)?;
        if !self.width.is_multiple_of(self.heads) {
            return Err(SpecError::Heads { name, width: self.width, heads: self.heads });
        }
        Ok(())
    }

    /// [`TransformerSpec::check`], and whether the heads can have rotary positions.
    pub fn check_with(
        &self,
        name: &'static str,
        rope: Option<Rope>,
    ) -> std::result::Result<(), SpecError> {
        self.check(name)?;
        rope.map_or(Ok(()), |_| check_rotary_heads(name, self.width / self.heads))
    }
}

/// What differs between the uses of a [`Transformer`].
#[derive(Clone, Copy, Debug)]
pub struct TransformerUse {
    /// Width of the context tokens, I.
    pub input: usize,
    /// Width of the outputs, O.
    pub output: usize,
    /// Width of the blocks' hidden layer, F.
    pub hidden: usize,
    /// Whether queries have width I, and a projection of their own to D.
    pub projects_queries: bool,
    /// Rate of stochastic depth in the last block. It grows linearly from 0.
    pub drop_path: f32,
    /// The published first weights. [`FirstWeights::Torch`] replaces them.
    pub published: Published,
    /// How each token's place is told.
    pub positions: PositionTable,
    /// ε of the norms.
    pub eps: f32,
}

/// The positions of a [`Transformer`]: a table that is added to the tokens, or rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionTable {
    /// [`position::sincos`] of row and column, and of time in clips.
    Sincos,
    /// [`position::sincos_of_index`] of the place in the sequence.
    SincosOfIndex,
    /// Learned, from a truncated normal of deviation 0.02.
    Learned,
    /// No table.
    None,
    /// No table, but rotary positions in each block.
    Rotary(Rope),
}

impl PositionTable {
    /// The positions of a predictor or decoder behind an encoder, and the ε of its norms:
    /// stable-pretraining's table and torch's default, or rotary positions as the encoder's and
    /// V-JEPA 2's ε.
    pub(super) fn beside(rope: Option<Rope>) -> (Self, f32) {
        rope.map_or((Self::Sincos, 1e-5), |form| (Self::Rotary(form), 1e-6))
    }
}

/// A table of positions, if there is one.
enum Table {
    Fixed(Constant),
    Learned(Parameter),
    None,
}

impl Table {
    fn new(kind: PositionTable, width: usize, grid: Grid, random: &mut Random) -> Self {
        match kind {
            PositionTable::Sincos => Self::Fixed(Constant::new(&position::sincos(width, grid))),
            PositionTable::SincosOfIndex => {
                Self::Fixed(Constant::new(&position::sincos_of_index(width, grid.len())))
            }
            PositionTable::Learned => {
                let values = init::trunc_normal(random, grid.len() * width, 0.02);
                let table = Tensor::from_vec(values, &[1, grid.len(), width]);
                Self::Learned(Parameter::new("pos_embed", table))
            }
            PositionTable::None | PositionTable::Rotary(_) => Self::None,
        }
    }

    /// The table [N, D] on the device of `x`.
    fn beside(&self, x: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Fixed(table) => Ok(Some(table.beside(x))),
            Self::Learned(table) => {
                let table = table.tensor();
                table.reshape(&[table.dim(1), table.dim(2)]).map(Some)
            }
            Self::None => Ok(None),
        }
    }
}

/// First weights that have been published.
#[derive(Clone, Copy, Debug)]
pub enum Published {
    /// Truncated normal of deviation 0.02, zero biases: V-JEPA (src/models/predictor.py).
    Vjepa,
    /// Xavier uniform, zero biases: MAE (models_mae.py).
    Mae,
}

/// Input projections, positions, blocks, norm, output projection.
pub struct Transformer {
    context_proj: Linear,
    query_proj: Option<Linear>,
    grid: Grid,
    position: Table,
    rotary: Option<RotaryTable>,
    blocks: Blocks,
    final_norm: Norm,
    output_proj: Linear,
}

impl Transformer {
    /// A transformer on `grid`.
    pub fn new(
        spec: TransformerSpec,
        used: TransformerUse,
        grid: Grid,
        random: &mut Random,
    ) -> Self {
        let TransformerSpec { width, depth, heads, initial } = spec;
        let TransformerUse { input, output, hidden, drop_path, positions, eps, .. } = used;
        let start = match (initial, used.published) {
            (FirstWeights::Torch, _) => Start::Torch,
            (FirstWeights::Published, Published::Vjepa) => Start::TruncNormal,
            (FirstWeights::Published, Published::Mae) => Start::Xavier,
        };
        let block = BlockSpec {
            width,
            hidden,
            swiglu: false,
            heads,
            eps,
            layer_scale: None,
            qk_norm: false,
            drop_path,
            start,
        };
        let context_proj = Linear::new(input, width, start, random);
        let blocks = Blocks::new(block, depth, random);
        let output_proj = Linear::new(width, output, start, random);
        let query_proj = used.projects_queries.then(|| Linear::new(input, width, start, random));
        Self {
            context_proj,
            query_proj,
            grid,
            position: Table::new(positions, width, grid, random),
            rotary: match positions {
                PositionTable::Rotary(form) => Some(RotaryTable::new(form, grid, width / heads)),
                _ => None,
            },
            blocks,
            final_norm: Norm::new(width, eps),
            output_proj,
        }
    }

    /// Queries [Q, I], projected to [Q, D] if this transformer projects queries.
    pub fn query(&self, tape: &Tape, queries: &Tensor) -> Result<Tensor> {
        match &self.query_proj {
            Some(projection) => projection.forward(tape, queries),
            None => Ok(queries.clone()),
        }
    }

    /// Outputs [M, O] at the target patches, or [K + M, O] at every patch (see [`Positions`]).
    pub fn forward(
        &self,
        tape: &Tape,
        inputs: &Inputs<'_>,
        positions: Positions,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let joint = Joint::new(inputs.masks, inputs.query.rows());
        let x = self.embed(tape, inputs, &joint)?; // [K + M, D]
        let rotary = self.rotary.as_ref().map(|table| table.at(&joint.patches, &x));
        let (segments, per_sample) = (joint.segments.clone(), inputs.masks.per_sample());
        let sequences = Sequences { segments, rotary, per_sample };
        let x = match positions {
            Positions::Targets => {
                let queries = Queries { rows: &joint.query_rows, segments: &joint.query_segments };
                self.blocks.forward(tape, x, &sequences, Some(&queries), key)? // [M, D]
            }
            Positions::All => {
                let x = self.blocks.forward(tape, x, &sequences, None, key)?;
                ops::gather(tape, &x, joint.in_grid_order())?
            }
        };
        self.output_proj.forward(tape, &self.final_norm.forward(tape, &x)?)
    }

    fn embed(&self, tape: &Tape, inputs: &Inputs<'_>, joint: &Joint) -> Result<Tensor> {
        let &Inputs { context, query, masks } = inputs;
        let sides = |grid: Grid| [grid.t, grid.h, grid.w];
        expect_shape("predictor", "the masks' grid", &sides(masks.grid), &sides(self.grid))?;
        let count = masks.context.iter().map(Vec::len).sum();
        expect_count("predictor", "the number of context tokens", context.rows(), count)?;
        let context = self.context_proj.forward(tape, context)?; // [K, D]
        let (queries, targets) = (query.rows(), masks.target_count());
        if queries != 1 && queries != masks.per_sample() {
            expect_count("predictor", "the number of queries", queries, targets)?;
        }
        let table = self.position.beside(&context)?;
        let position = table.as_ref().map(|table| (table, &joint.patches[..]));
        ops::assemble(tape, &context, &[query], &joint.rows, position)
    }
}

/// The inputs of a transformer.
pub struct Inputs<'a> {
    /// [K, I]: the tokens at `masks.context`.
    pub context: &'a Tensor,
    /// [1, D]: the query at each patch of `masks.target`. Or [S, D]: one for each of the S masks of
    /// a sample. Or [M, D]: one for each patch.
    pub query: &'a Tensor,
    /// The patches of context and queries.
    pub masks: &'a Masks,
}

/// The patches that get outputs.
#[derive(Clone, Copy)]
pub enum Positions {
    /// The target patches, sample by sample.
    Targets,
    /// Context and target patches. Those of each sample are in the order of the grid.
    All,
}

impl Module for Transformer {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        if let Table::Learned(table) = &self.position {
            f(&join(prefix, "pos_embed"), table);
        }
        self.context_proj.visit(&join(prefix, "context_proj"), f);
        if let Some(projection) = &self.query_proj {
            projection.visit(&join(prefix, "query_proj"), f);
        }
        self.blocks.visit(prefix, f);
        self.final_norm.visit(&join(prefix, "final_norm"), f);
        self.output_proj.visit(&join(prefix, "output_proj"), f);
    }
}

/// The joint sequence: for each sample its context tokens, then its queries.
struct Joint {
    rows: Vec<Row>,
    /// The patch of each row.
    patches: Vec<i32>,
    segments: Segments,
    query_rows: Vec<u32>,
    query_segments: Segments,
}

impl Joint {
    /// `queries` is the number of different queries, as in [`Inputs::query`].
    fn new(masks: &Masks, queries: usize) -> Self {
        let (mut rows, mut patches, mut query_rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_context = 0;
        for (sequence, (context, target)) in masks.context.iter().zip(&masks.target).enumerate() {
            for &patch in context {
                rows.push(Row::X(next_context));
                patches.push(patch as i32);
                next_context += 1;
            }
            for &patch in target {
                query_rows.push(rows.len() as u32);
                let query = match queries {
                    1 => 0,
                    _ if queries == masks.per_sample() => (sequence / masks.len()) as u32,
                    _ => query_rows.len() as u32 - 1,
                };
                rows.push(Row::Token(query));
                patches.push(patch as i32);
            }
        }
        let lengths = masks.context.iter().zip(&masks.target).map(|(c, m)| c.len() + m.len());
        Self {
            rows,
            patches,
            segments: Segments::new(lengths),
            query_rows,
            query_segments: masks.target_segments(),
        }
    }

    /// The rows of each sample, in the order of the grid.
    fn in_grid_order(&self) -> Vec<u32> {
        let samples = 0..self.segments.len();
        let sorted = samples.flat_map(|b| {
            let mut rows: Vec<_> = self.segments.range(b).collect();
            rows.sort_unstable_by_key(|&row| self.patches[row]);
            rows
        });
        sorted.map(|row| row as u32).collect()
    }
}
