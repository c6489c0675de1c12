//! timm's VisionTransformer (timm/models/vision_transformer.py), for any subset of the patches.

use super::StepKey;
use super::block::{BlockSpec, Blocks, Queries, Sequences};
use super::layers::{Linear, Norm, Start, join};
use super::rotary::RotaryTable;
use super::spec::VitSpec;
use crate::mask::{Grid, TokenIndex};
use engine::ops::{Images, PatchOrder, Row};
use engine::random::Random;
use engine::shape::{expect_count, expect_multiple, expect_shape};
use engine::{Error, Module, Parameter, Result, Segments, Tape, Tensor, init, ops};
use std::sync::Arc;

/// Which patches enter the encoder.
#[derive(Clone, Copy)]
pub enum Patches<'a> {
    /// Every patch of the grid.
    All,
    /// These patches of each sample.
    Some(&'a [TokenIndex]),
}

/// Which outputs the encoder computes. The last block skips all others.
#[derive(Clone, Copy)]
pub enum Outputs<'a> {
    /// All tokens, class token and registers first.
    All,
    /// These patches of each sample, without the prefix. Each must have entered the encoder.
    Patches(&'a [TokenIndex]),
}

/// Encoded tokens, packed.
pub struct EncodedTokens {
    /// [R, D], after the final norm. If that comes behind the mean, before it.
    pub tokens: Tensor,
    /// Rows of each sample.
    pub segments: Segments,
    /// Rows of each sample before its patches: class token first, then registers.
    pub prefix: usize,
    /// Whether row 0 of each sample is a class token.
    pub class_token: bool,
    /// The norm behind mean and class token.
    pooled_norm: Option<Arc<Norm>>,
}

impl EncodedTokens {
    /// Only the patch tokens [R - B P, D].
    pub fn patches(&self, tape: &Tape) -> Result<Tensor> {
        if self.prefix == 0 {
            return Ok(self.tokens.clone());
        }
        let rows = (0..self.segments.len()).flat_map(|b| self.segments.range(b).skip(self.prefix));
        let rows: Vec<u32> = rows.map(|row| row as u32).collect();
        ops::gather(tape, &self.tokens, &rows)
    }

    /// Row `index` of each sample [B, D]. The class token is row 0 if there is one.
    pub fn row(&self, tape: &Tape, index: usize) -> Result<Tensor> {
        let rows: Vec<u32> = (0..self.segments.len())
            .map(|b| (self.segments.range(b).start + index) as u32)
            .collect();
        self.normed(tape, ops::gather(tape, &self.tokens, &rows)?)
    }

    /// Mean of each sample's patch tokens [B, D].
    pub fn mean(&self, tape: &Tape) -> Result<Tensor> {
        self.normed(tape, ops::mean_pool(tape, &self.tokens, &self.segments, self.prefix)?)
    }

    /// timm's `forward_head` before its head: pooled tokens [B, D] -> [B, D].
    fn normed(&self, tape: &Tape, pooled: Tensor) -> Result<Tensor> {
        match &self.pooled_norm {
            Some(norm) => norm.forward(tape, &pooled),
            None => Ok(pooled),
        }
    }
}

/// The vision transformer.
pub struct Encoder {
    spec: VitSpec,
    patch_embed: Linear,
    cls_token: Option<Parameter>,
    reg_token: Option<Parameter>,
    /// The learned table, or none with rotary positions.
    pos_embed: Option<Parameter>,
    rotary: Option<RotaryTable>,
    norm_pre: Option<Norm>,
    blocks: Blocks,
    norm: Arc<Norm>,
}

impl Encoder {
    /// A new encoder with timm's initial weights, drawn from `seed`. `spec` must have passed its
    /// check.
    pub fn new(spec: &VitSpec, seed: u64) -> Self {
        let mut random = Random::new(seed, "encoder", 0);
        let (width, rows) = (spec.width, spec.position_rows());
        let patch_embed = patch_embed(spec, &mut random);
        let table = init::trunc_normal(&mut random, rows * width, 0.02);
        let mut token = |name: &str, count: usize| {
            let values = init::normal(&mut random, count * width, 1e-6);
            (count > 0).then(|| Parameter::new(name, Tensor::from_vec(values, &[1, count, width])))
        };
        let block = BlockSpec {
            width,
            hidden: spec.hidden,
            swiglu: spec.swiglu,
            heads: spec.heads,
            eps: spec.eps,
            layer_scale: spec.layer_scale,
            qk_norm: spec.qk_norm,
            drop_path: spec.drop_path,
            start: Start::TruncNormal,
        };
        Self {
            patch_embed,
            cls_token: token("cls_token", usize::from(spec.class_token)),
            reg_token: token("reg_token", spec.registers),
            pos_embed: spec
                .rope
                .is_none()
                .then(|| Parameter::new("pos_embed", Tensor::from_vec(table, &[1, rows, width]))),
            rotary: spec.rope.map(|form| RotaryTable::new(form, spec.grid(), width / spec.heads)),
            norm_pre: spec.pre_norm.then(|| Norm::new(width, spec.eps)),
            blocks: Blocks::new(block, spec.depth, &mut random),
            norm: Arc::new(Norm::new(width, spec.eps)),
            spec: spec.clone(),
        }
    }

    /// Its sizes.
    pub fn spec(&self) -> &VitSpec {
        &self.spec
    }

    /// The encoder's grid of patches.
    pub fn grid(&self) -> Grid {
        self.spec.grid()
    }

    /// Encodes `patches` of each image [B, C, T, H, W]. There may be several lists of patches for
    /// each image: the first of all images, then the second of all images, and so on. Each is
    /// encoded by itself.
    pub fn forward(
        &self,
        tape: &Tape,
        images: &Images,
        patches: Patches<'_>,
        outputs: Outputs<'_>,
        key: Option<StepKey>,
    ) -> Result<EncodedTokens> {
        let [_, pixels @ ..] = images.shape();
        let [t, h, w] = self.spec.image;
        let expected = [self.spec.channels, t, h, w];
        expect_shape("encoder", "an image [C, T, H, W]", &pixels, &expected)?;
        let all: Vec<TokenIndex>;
        let patches = match patches {
            Patches::Some(patches) => patches,
            Patches::All => {
                all = self.all_patches(images.samples());
                &all
            }
        };
        expect_multiple("encoder", "the lists of patches", patches.len(), images.samples())?;
        let (x, sequences) = self.embed(tape, images, patches)?; // [B P + K, D]
        let prefix = self.spec.prefix();
        let (x, segments, prefix) = match outputs {
            Outputs::All => {
                let x = self.blocks.forward(tape, x, &sequences, None, key)?;
                (x, sequences.segments, prefix)
            }
            Outputs::Patches(outputs) => {
                let rows = rows_of(outputs, patches, &sequences.segments, prefix)?;
                let output_segments = Segments::new(outputs.iter().map(Vec::len));
                let queries = Queries { rows: &rows, segments: &output_segments };
                let x = self.blocks.forward(tape, x, &sequences, Some(&queries), key)?;
                (x, output_segments, 0)
            }
        };
        self.encoded(tape, x, segments, prefix)
    }

    /// The last block's outputs [R, D] -> tokens, with the final norm.
    fn encoded(
        &self,
        tape: &Tape,
        x: Tensor,
        segments: Segments,
        prefix: usize,
    ) -> Result<EncodedTokens> {
        let (tokens, pooled_norm) = match self.spec.fc_norm {
            true => (x, Some(self.norm.clone())),
            false => (self.norm.forward(tape, &x)?, None),
        };
        let class_token = self.spec.class_token;
        Ok(EncodedTokens { tokens, segments, prefix, class_token, pooled_norm })
    }

    /// All tokens after each of the last `layers` blocks, and after the final norm. This is
    /// DINOv2's `get_intermediate_layers`, whose features its linear evaluation concatenates.
    pub fn last_layers(&self, images: &Images, layers: usize) -> Result<Vec<EncodedTokens>> {
        let tape = Tape::inference();
        let (x, sequences) = self.embed(&tape, images, &self.all_patches(images.samples()))?;
        let prefix = self.spec.prefix();
        let outputs = self.blocks.last_outputs(&tape, x, &sequences, layers)?.into_iter();
        let segments = &sequences.segments;
        outputs.map(|x| self.encoded(&tape, x, segments.clone(), prefix)).collect()
    }

    /// Attention weights of whole images in the last block: for each image [A, P + N, P + N],
    /// prefix first. Rows sum to 1. None if there are no blocks. This is timm's `attn` before its
    /// dropout.
    pub fn last_attention(&self, images: &Images) -> Result<Option<Vec<Vec<f32>>>> {
        let tape = Tape::inference();
        let (x, sequences) = self.embed(&tape, images, &self.all_patches(images.samples()))?;
        self.blocks.last_attention(&tape, x, &sequences)
    }

    /// Every patch of each sample.
    fn all_patches(&self, samples: usize) -> Vec<TokenIndex> {
        vec![(0..self.grid().len() as u32).collect(); samples]
    }

    /// Patch embedding, class token, registers, positions, and the norm before the first block: for
    /// each sample its prefix, then its patches.
    fn embed(
        &self,
        tape: &Tape,
        images: &Images,
        patches: &[TokenIndex],
    ) -> Result<(Tensor, Sequences)> {
        let (width, patch_len) = (self.spec.width, self.spec.patch_len());
        let count = self.grid().len() as u32;
        let in_batch: Vec<u32> = (0..images.samples() as u32)
            .cycle()
            .zip(patches)
            .flat_map(|(b, index)| index.iter().map(move |n| b * count + n))
            .collect();
        let order = PatchOrder::ChannelsFirst;
        let pixels = ops::patchify(tape, images, self.spec.patch, order, &in_batch)?; // [K, p C]
        let weight = self.patch_embed.weight.tensor().reshape(&[width, patch_len])?;
        let x = ops::linear(tape, &pixels, &weight, Some(&self.patch_embed.bias.tensor()))?;
        let tokens = [&self.cls_token, &self.reg_token].into_iter().flatten();
        let tokens: Vec<Tensor> = tokens
            .map(|token| token.tensor())
            .map(|token| token.reshape(&[token.dim(1), width]))
            .collect::<Result<_>>()?;
        let table = self
            .pos_embed
            .as_ref()
            .map(|table| table.tensor().reshape(&[self.spec.position_rows(), width]));
        let table = table.transpose()?;
        let (rows, places) = self.sequence(patches);
        let tokens: Vec<&Tensor> = tokens.iter().collect();
        let position = table.as_ref().map(|table| (table, &places[..]));
        let mut x = ops::assemble(tape, &x, &tokens, &rows, position)?;
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(tape, &x)?;
        }
        let rotary = self.rotary.as_ref().map(|table| table.at(&places, &x));
        let prefix = self.spec.prefix();
        let segments = Segments::new(patches.iter().map(|index| prefix + index.len()));
        let per_sample = patches.len() / images.samples().max(1);
        Ok((x, Sequences { segments, rotary, per_sample }))
    }

    /// The content of each row of the sequence, and its row of the position table or its patch, or
    /// -1 for none.
    fn sequence(&self, patches: &[TokenIndex]) -> (Vec<Row>, Vec<i32>) {
        let prefix = self.spec.prefix() as u32;
        let prefix_has_place = !self.spec.no_embed_class && self.spec.rope.is_none();
        let first_patch = if prefix_has_place { prefix } else { 0 };
        let (mut rows, mut positions, mut next) = (Vec::new(), Vec::new(), 0);
        for index in patches {
            for token in 0..prefix {
                rows.push(Row::Token(token));
                positions.push(if prefix_has_place { token as i32 } else { -1 });
            }
            for &patch in index {
                rows.push(Row::X(next));
                positions.push((first_patch + patch) as i32);
                next += 1;
            }
        }
        (rows, positions)
    }
}

/// Initial values as in torch's Conv2d and timm: uniform within 1/√fan_in, including the bias.
fn patch_embed(spec: &VitSpec, random: &mut Random) -> Linear {
    let (width, patch_len) = (spec.width, spec.patch_len());
    let mut uniform = |shape: &[usize]| {
        Tensor::from_vec(init::fan_in_uniform(random, shape.iter().product(), patch_len), shape)
    };
    let [pt, ph, pw] = spec.patch;
    // timm's layout for images. A clip's patch keeps its time axis, as in V-JEPA.
    let weight = match pt {
        1 => uniform(&[width, spec.channels, ph, pw]),
        _ => uniform(&[width, spec.channels, pt, ph, pw]),
    };
    Linear {
        weight: Parameter::new("patch_embed.proj.weight", weight),
        bias: Parameter::new("patch_embed.proj.bias", uniform(&[width])),
    }
}

/// The packed rows of `outputs`, each of which must be among `patches`.
fn rows_of(
    outputs: &[TokenIndex],
    patches: &[TokenIndex],
    segments: &Segments,
    prefix: usize,
) -> Result<Vec<u32>> {
    expect_count("encoder", "the number of lists of output patches", outputs.len(), patches.len())?;
    let mut rows = Vec::new();
    for (b, (outputs, patches)) in outputs.iter().zip(patches).enumerate() {
        let start = segments.range(b).start + prefix;
        for (entry, &patch) in outputs.iter().enumerate() {
            let Ok(row) = patches.binary_search(&patch) else {
                let (op, arg, index) = ("encoder", "the encoded patches", i64::from(patch));
                return Err(Error::Index { op, arg, index, entry, rows: patches.len() });
            };
            rows.push((start + row) as u32);
        }
    }
    Ok(rows)
}

impl Module for Encoder {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        if let Some(token) = &self.cls_token {
            f(&join(prefix, "cls_token"), token);
        }
        if let Some(token) = &self.reg_token {
            f(&join(prefix, "reg_token"), token);
        }
        if let Some(table) = &self.pos_embed {
            f(&join(prefix, "pos_embed"), table);
        }
        self.patch_embed.visit(&join(prefix, "patch_embed.proj"), f);
        if let Some(norm) = &self.norm_pre {
            norm.visit(&join(prefix, "norm_pre"), f);
        }
        self.blocks.visit(prefix, f);
        self.norm.visit(&join(prefix, if self.spec.fc_norm { "fc_norm" } else { "norm" }), f);
    }
}
