//! A masked model in small: an encoder of the kept patches, a predictor of the left-out ones by
//! cross-attention, pixels as targets. It calls every operation a method calls.

use engine::check::normal;
use engine::device::{Device, PatchNorm};
use engine::ops::{self, Images, LossKind, PatchOrder, Row};
use engine::random::Random;
use engine::{Module, Parameter, Result, Segments, Tape, Tensor};

/// D
const WIDTH: usize = 24;
/// A
const HEADS: usize = 4;
/// F
const HIDDEN: usize = 40;
/// N: 16 x 16 pixels in patches of 4 x 4.
const TOKENS: usize = 16;
const PATCH: [usize; 3] = [1, 4, 4];
/// p C
const PIXELS: usize = 48;

/// A device to test on.
pub(crate) type On = &'static dyn Device;

/// The parameters under their names.
pub(crate) struct Model(Vec<Parameter>);

impl Module for Model {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        self.0.iter().for_each(|p| f(&format!("{prefix}{}", p.name()), p));
    }
}

/// Which patches each sample keeps; the others are targets.
#[derive(Clone)]
pub(crate) struct ContextLists(pub(crate) Vec<Vec<u32>>);

impl ContextLists {
    /// `counts[b]` patches of sample b, drawn under `step`.
    pub(crate) fn draw(counts: &[usize], step: u64) -> Self {
        let mut random = Random::new(0, "kept", step);
        let lists = counts.iter().map(|&count| {
            let mut all: Vec<u32> = (0..TOKENS as u32).collect();
            random.shuffle(&mut all);
            all.truncate(count);
            all.sort_unstable();
            all
        });
        Self(lists.collect())
    }

    /// The patches that are not kept.
    fn targets(&self) -> Self {
        let left_out = |list: &Vec<u32>| (0..TOKENS as u32).filter(|n| !list.contains(n)).collect();
        Self(self.0.iter().map(left_out).collect())
    }

    /// Rows of each sample: its patches and `prefix` more.
    fn segments(&self, prefix: usize) -> Segments {
        Segments::new(self.0.iter().map(|list| list.len() + prefix))
    }

    /// b N + n of each.
    fn global(&self) -> Vec<u32> {
        let lists = self.0.iter().enumerate();
        lists.flat_map(|(b, list)| list.iter().map(move |n| (b * TOKENS) as u32 + n)).collect()
    }
}

/// Noise as B images; image 0 is the same whatever B is.
pub(crate) fn images(device: On, samples: usize) -> Images {
    let mut random = Random::new(1, "images", 0);
    let bytes: Vec<u8> = (0..samples * 3 * 256).map(|_| random.below(256) as u8).collect();
    let shape = [samples, 3, 1, 16, 16];
    Images::u8(bytes, shape, vec![0.5; 3], vec![0.25; 3]).unwrap().to(device)
}

impl Model {
    /// Weights of size 1/√I.
    pub(crate) fn new(device: On) -> Self {
        let shapes: [(&str, &[usize]); 14] = [
            ("embed.weight", &[WIDTH, PIXELS]),
            ("cls_token", &[1, WIDTH]),
            ("pos_embed", &[TOKENS, WIDTH]),
            ("norm.weight", &[WIDTH]),
            ("norm.bias", &[WIDTH]),
            ("qkv.weight", &[3 * WIDTH, WIDTH]),
            ("qk_norm.weight", &[WIDTH / HEADS]),
            ("qk_norm.bias", &[WIDTH / HEADS]),
            ("proj.weight", &[WIDTH, WIDTH]),
            ("fc1.weight", &[HIDDEN, WIDTH]),
            ("fc1.bias", &[HIDDEN]),
            ("fc2.weight", &[WIDTH, HIDDEN]),
            ("mask_token", &[1, WIDTH]),
            ("head.weight", &[PIXELS, WIDTH]),
        ];
        let parameter = |(name, shape): (&str, &[usize])| {
            let fan_in = (shape[shape.len() - 1] as f32).sqrt();
            let noise = normal(name, shape);
            let values: Vec<f32> = noise.to_host().iter().map(|w| w / fan_in).collect();
            Parameter::new(name, Tensor::from_vec(values, shape).to(device))
        };
        Self(shapes.map(parameter).into())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.iter().find(|p| p.name() == name).unwrap().tensor()
    }

    /// The encoder's rows: class token, then the kept patches, of each sample; [ΣK + B, D].
    pub(crate) fn encode(
        &self,
        tape: &Tape,
        images: &Images,
        kept: &ContextLists,
    ) -> Result<Tensor> {
        let order = PatchOrder::ChannelsFirst;
        let patches = ops::patchify(tape, images, PATCH, order, kept.global())?;
        let x = ops::linear(tape, &patches, &self.get("embed.weight"), None)?; // [ΣK, D]
        let (segments, mut rows, mut positions) = (kept.segments(0), Vec::new(), Vec::new());
        for (b, list) in kept.0.iter().enumerate() {
            rows.push(Row::Token(0));
            rows.extend(segments.range(b).map(|r| Row::X(r as u32)));
            positions.push(-1);
            positions.extend(list.iter().map(|&n| n as i32));
        }
        let position = (&self.get("pos_embed"), &positions[..]);
        let x = ops::assemble(tape, &x, &[&self.get("cls_token")], &rows, Some(position))?;
        self.block(tape, &x, &kept.segments(1))
    }

    fn block(&self, tape: &Tape, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let norm = (&self.get("norm.weight"), &self.get("norm.bias"));
        let qk = (self.get("qk_norm.weight"), self.get("qk_norm.bias"));
        let y = ops::layer_norm(tape, x, Some(norm), 1e-6)?;
        let y = ops::linear(tape, &y, &self.get("qkv.weight"), None)?; // [R, 3D]
        let y = ops::head_norm(tape, &y, 0..2 * WIDTH, WIDTH / HEADS, &qk.0, &qk.1, 1e-6)?;
        let y = ops::attention(tape, &y, segments, HEADS)?; // [R, D]
        let x = ops::linear_residual(tape, &y, &self.get("proj.weight"), None, x)?;
        let y = ops::layer_norm(tape, &x, None, 1e-6)?;
        let (fc1, bias) = (self.get("fc1.weight"), self.get("fc1.bias"));
        let y = ops::mlp(tape, &y, (&fc1, Some(&bias)), (&self.get("fc2.weight"), None), None)?;
        let keep: Vec<f32> = (0..segments.len()).map(|b| [1.25, 1.25, 0.0][b % 3]).collect();
        ops::residual(tape, &x, &y, Some(norm.0), Some((segments, &keep)))
    }

    /// The loss of predicting the left-out patches' pixels, plus that of naming the sample (at most
    /// [`WIDTH`] of them).
    pub(crate) fn loss(&self, tape: &Tape, images: &Images, kept: &ContextLists) -> Result<Tensor> {
        let x = self.encode(tape, images, kept)?; // [ΣK + B, D]
        let targets = kept.targets();
        let positions: Vec<i32> = targets.0.iter().flatten().map(|&n| n as i32).collect();
        let rows = vec![Row::Token(0); positions.len()];
        let position = (&self.get("pos_embed"), &positions[..]);
        let q = ops::assemble(tape, &x, &[&self.get("mask_token")], &rows, Some(position))?;
        let kv = self.get("qkv.weight").narrow(WIDTH..3 * WIDTH)?;
        let kv = ops::linear(tape, &x, &kv, None)?; // [ΣK + B, 2D]
        let (q_segments, kv_segments) = (targets.segments(0), kept.segments(1));
        let y = ops::cross_attention(tape, &q, &q_segments, &kv, &kv_segments, HEADS)?; // [ΣM, D]
        let y = ops::linear(tape, &ops::add(tape, &y, &q)?, &self.get("head.weight"), None)?;
        let order = PatchOrder::ChannelsLast;
        let pixels = ops::patchify(tape, images, PATCH, order, targets.global())?; // [ΣM, p C]
        let pixels = ops::normalize_patches(tape, &pixels, PatchNorm::joint(3))?;
        let kind = LossKind::SmoothL1 { beta: 0.5 };
        let pixels = ops::loss(tape, &y, &pixels, kind, None)?;
        let pooled = ops::mean_pool(tape, &x, &kv_segments, 1)?; // [B, D]
        let labels: Vec<u32> = (0..kept.0.len() as u32).collect();
        let naming = ops::cross_entropy(tape, &pooled, &labels)?;
        ops::add(tape, &pixels.reshape(&[1, 1])?, &naming.reshape(&[1, 1])?)
    }
}
