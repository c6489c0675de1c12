//! The common part of predictor and pixel decoder. Context tokens and queries attend jointly. The
//! queries' outputs are projected. stable-pretraining backbone/vit.py, FlexibleTransformer with
//! joint attention. V-JEPA's predictor has the same form.

use super::StepKey;
use super::block::{BlockSpec, Blocks, Queries};
use super::layers::{Linear, Norm, Start, join};
use super::spec::{MOST_DEPTH, MOST_WIDTH, check_most};
use super::{SpecError, position};
use crate::mask::{Grid, Masks};
use engine::ops::Row;
use engine::random::Random;
use engine::shape::{expect_count, expect_shape};
use engine::{Constant, Module, Parameter, Result, Segments, Tape, Tensor, ops};

/// Sizes of a predictor or decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerSpec {
    /// D
    pub width: usize,
    /// L
    pub depth: usize,
    /// A
    pub heads: usize,
}

impl TransformerSpec {
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
}

/// Input projection, positions, blocks, norm, output projection.
pub(crate) struct Transformer {
    context_proj: Linear,
    grid: Grid,
    position: Constant,
    blocks: Blocks,
    final_norm: Norm,
    output_proj: Linear,
}

impl Transformer {
    /// A transformer from tokens of width `input` to outputs of width `output` on `grid`.
    pub(crate) fn new(
        spec: TransformerSpec,
        [input, output]: [usize; 2],
        grid: Grid,
        start: Start,
        random: &mut Random,
    ) -> Self {
        let TransformerSpec { width, depth, heads } = spec;
        let block = BlockSpec {
            width,
            hidden: 4 * width,
            heads,
            eps: 1e-5, // torch's LayerNorm default, which the reference keeps here
            layer_scale: None,
            qk_norm: false,
            drop_path: 0.0,
            start,
        };
        Self {
            context_proj: Linear::new(input, width, start, random),
            grid,
            position: Constant::new(&position::sincos(width, grid)),
            blocks: Blocks::new(block, depth, random),
            final_norm: Norm::new(width, 1e-5),
            output_proj: Linear::new(width, output, start, random),
        }
    }

    /// Outputs [M, O] at the target patches, or [K + M, O] at every patch (see [`Positions`]).
    pub(crate) fn forward(
        &self,
        tape: &Tape,
        inputs: &Inputs<'_>,
        positions: Positions,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let joint = Joint::new(inputs.masks);
        let x = self.embed(tape, inputs, &joint)?; // [K + M, D]
        let x = match positions {
            Positions::Targets => {
                let queries = Queries { rows: &joint.query_rows, segments: &joint.query_segments };
                self.blocks.forward(tape, x, &joint.segments, Some(&queries), key)? // [M, D]
            }
            Positions::All => {
                let x = self.blocks.forward(tape, x, &joint.segments, None, key)?;
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
        let position = Some((&self.position.beside(&context), &joint.patches[..]));
        ops::assemble(tape, &context, &[query], &joint.rows, position)
    }
}

/// The inputs of a transformer.
pub(crate) struct Inputs<'a> {
    /// [K, I]: the tokens at `masks.context`.
    pub(crate) context: &'a Tensor,
    /// [1, D]: the query at each patch of `masks.target`.
    pub(crate) query: &'a Tensor,
    pub(crate) masks: &'a Masks,
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
        self.context_proj.visit(&join(prefix, "context_proj"), f);
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
    fn new(masks: &Masks) -> Self {
        let (mut rows, mut patches, mut query_rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_context = 0;
        for (context, target) in masks.context.iter().zip(&masks.target) {
            for &patch in context {
                rows.push(Row::X(next_context));
                patches.push(patch as i32);
                next_context += 1;
            }
            for &patch in target {
                query_rows.push(rows.len() as u32);
                rows.push(Row::Token(0));
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
