//! Cost of an image in a stage, computed from sizes and masks only. FLOPs are counted as in the
//! engine and as in the paper.

use crate::mask::Masks;
use crate::model::{TransformerSpec, VitSpec};
use serde::{Deserialize, Serialize};

/// One network's part of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkCost {
    /// N, including embeddings and positions.
    pub parameters: usize,
    /// D: tokens of an image that the network processes, without class token and registers.
    pub tokens: f64,
    /// FLOPs of the matrix products of an image, two per multiply-add. The backward pass is
    /// included if the network is trained.
    pub flops: f64,
    /// 6 N D if the network is trained, 2 N D if not. Attention's products are not included (SALT,
    /// appendix on FLOPs).
    pub paper_flops: f64,
}

/// Sizes of a stage's networks.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    /// The trained encoder.
    pub encoder: &'a VitSpec,
    /// Its decoder or predictor.
    pub trunk: TransformerSpec,
    /// SALT's frozen encoder.
    pub teacher: Option<&'a VitSpec>,
    /// Mask tokens of the decoder or predictor.
    pub mask_tokens: usize,
    /// Whether blocks are recomputed in the backward pass.
    pub activation_checkpointing: bool,
}

/// Cost of an image: the mean over a batch's masks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The trained encoder.
    pub encoder: NetworkCost,
    /// Decoder or predictor.
    pub trunk: NetworkCost,
    /// The teacher, in stage 2.
    pub teacher: Option<NetworkCost>,
}

impl Cost {
    /// The cost under some batches of masks as the method reads them. Stochastic depth, which skips
    /// blocks, is not taken into account.
    pub fn new(networks: &Networks<'_>, batches: &[Masks]) -> Self {
        let Networks { encoder, trunk, teacher, mask_tokens, .. } = *networks;
        let again = networks.activation_checkpointing;
        let out = teacher.map_or(encoder.patch_len(), |teacher| teacher.width);
        let widths = [encoder.width, out];
        let blocks = if again { 4.0 } else { 3.0 };
        let samples = batches.iter().map(Masks::len).sum::<usize>() as f64;
        let lists = batches.iter().flat_map(|masks| masks.context.iter().zip(&masks.target));
        let (mut seen, mut joint) = (0.0, 0.0);
        let [mut flops, mut trunk_flops, mut teacher_flops] = [0.0; 3];
        for (context, target) in lists {
            let (context, target) = (context.len(), target.len());
            seen += context as f64;
            joint += (context + target) as f64;
            // No gradient goes to pixels.
            flops += 2.0 * encoder.embedding_flops(context);
            flops += blocks * encoder.block_flops(context, None);
            let [before, last] = trunk.block_flops(context, target);
            // The last block of a trunk keeps few rows and is never recomputed.
            trunk_flops += blocks * before + 3.0 * last;
            trunk_flops += 3.0 * trunk.projection_flops(widths, context, target);
        }
        for (masks, teacher) in batches.iter().flat_map(|masks| teacher.map(|t| (masks, t))) {
            let all = teacher.grid().len();
            // With several masks, one pass computes all tokens.
            let outputs = |target: usize| (masks.per_sample() == 1).then_some(target);
            for target in &masks.target[..masks.len()] {
                teacher_flops += teacher.embedding_flops(all);
                teacher_flops += teacher.block_flops(all, outputs(target.len()));
            }
        }
        let mut parameters = trunk.parameters(widths);
        match teacher {
            Some(_) => parameters += mask_tokens * trunk.width,
            None => {
                // The mask token has the encoder's width, and is projected once per batch.
                parameters += (encoder.width + 1) * trunk.width + encoder.width;
                trunk_flops += 3.0 * 2.0 * (encoder.width * trunk.width) as f64;
            }
        }
        let share = |parameters: usize, tokens: f64, flops: f64, each: f64| NetworkCost {
            parameters,
            tokens,
            flops: flops / samples,
            paper_flops: each * parameters as f64 * tokens,
        };
        Self {
            encoder: share(encoder.parameters(), seen / samples, flops, 6.0),
            trunk: share(parameters, joint / samples, trunk_flops, 6.0),
            teacher: teacher.map(|teacher| {
                share(teacher.parameters(), teacher.grid().len() as f64, teacher_flops, 2.0)
            }),
        }
    }

    /// Total FLOPs of an image.
    pub fn flops(&self) -> f64 {
        self.sum(|share| share.flops)
    }

    /// FLOPs of an image as the paper counts them.
    pub fn paper_flops(&self) -> f64 {
        self.sum(|share| share.paper_flops)
    }

    fn sum(&self, of: impl Fn(&NetworkCost) -> f64) -> f64 {
        of(&self.encoder) + of(&self.trunk) + self.teacher.as_ref().map_or(0.0, of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{Masking, MultiBlockMasking, RandomMasking};
    use crate::method::{Covered, Mae, MaeOptions, Method, PixelNorm, Salt, SaltOptions};
    use crate::model::Encoder;
    use engine::ops::{Images, LossKind};
    use engine::{Module as _, Tape};

    fn spec(width: usize, change: impl FnOnce(&mut VitSpec)) -> VitSpec {
        let mut spec = VitSpec {
            image: [1, 32, 32],
            patch: [1, 4, 4],
            channels: 2,
            width,
            depth: 3,
            heads: 2,
            hidden: 3 * width,
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        };
        change(&mut spec);
        spec
    }

    const TRUNK: TransformerSpec = TransformerSpec::new(12, 2, 3);

    /// The formulas give the parameters of the method and the FLOPs that the engine counts.
    fn check(method: &dyn Method, teacher: Option<&Encoder>, masking: &[&Masking], again: bool) {
        let encoder = method.encoder().spec();
        let batch = 5;
        let drawn = |masking: &&Masking| masking.sample(encoder.grid(), batch, 3, 0).unwrap();
        let masks = method.masks(Masks::several(masking.iter().map(drawn).collect()));
        let networks = Networks {
            encoder,
            trunk: TRUNK,
            teacher: teacher.map(Encoder::spec),
            mask_tokens: masking.len(),
            activation_checkpointing: again,
        };
        let cost = Cost::new(&networks, std::slice::from_ref(&masks));
        let values: usize = method.parameters().iter().map(|(_, each)| each.value().len()).sum();
        assert_eq!(cost.encoder.parameters + cost.trunk.parameters, values);
        let own: usize =
            method.encoder().parameters().iter().map(|(_, each)| each.value().len()).sum();
        assert_eq!(cost.encoder.parameters, own);
        let pixels = vec![7; batch * 2 * 32 * 32];
        let images = Images::u8(pixels, [batch, 2, 1, 32, 32], vec![0.5; 2], vec![0.5; 2]).unwrap();
        let tape = Tape::new().checkpointing(again).timed();
        let step = method.step(&tape, &images, &masks, None).unwrap();
        tape.backward(&step.loss).unwrap();
        let counted: f64 = tape.costs().iter().flat_map(|cost| cost.flops).sum();
        let ours = cost.flops() * batch as f64;
        assert!((ours / counted - 1.0).abs() < 1e-9, "{ours} by formula, {counted} counted");
        let seen = step.context_tokens as f64 / batch as f64;
        assert!((cost.encoder.tokens - seen).abs() < 1e-9);
        let six = 6.0 * own as f64 * seen;
        assert!((cost.encoder.paper_flops / six - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_formulas_of_stage_1_are_what_the_engine_counts() {
        let random = Masking::Random(RandomMasking::default());
        let blocks = Masking::MultiBlock(MultiBlockMasking::default());
        for (covered, masking, again) in [
            (Covered::AllMasked, &random, false),
            (Covered::AllMasked, &random, true),
            (Covered::Targets, &blocks, false),
        ] {
            let options = MaeOptions {
                decoder: TRUNK,
                covered,
                pixel_norm: PixelNorm::None,
                loss: LossKind::Mse,
            };
            for spec in [
                spec(16, |_| ()),
                spec(24, |spec| {
                    spec.registers = 3;
                    (spec.no_embed_class, spec.qk_norm, spec.pre_norm) = (true, true, true);
                    (spec.layer_scale, spec.swiglu) = (Some(1e-5), true);
                }),
            ] {
                check(&Mae::new(Encoder::new(&spec, 0), options, 0), None, &[masking], again);
            }
        }
    }

    #[test]
    fn the_formulas_of_stage_2_are_what_the_engine_counts() {
        let blocks = Masking::MultiBlock(MultiBlockMasking::default());
        let random = Masking::Random(RandomMasking::default());
        for (again, masking) in
            [(false, vec![&blocks]), (true, vec![&blocks]), (false, vec![&blocks, &random])]
        {
            let options = SaltOptions {
                predictor: TRUNK,
                loss: LossKind::L1,
                mask_tokens: masking.len(),
                target_layer_norm: true,
            };
            let [teacher, same] = [(); 2].map(|()| spec(20, |spec| spec.depth = 2));
            let student = spec(16, |spec| spec.class_token = false);
            let salt = Salt::new(Encoder::new(&teacher, 1), Encoder::new(&student, 0), options, 0);
            check(&salt.unwrap(), Some(&Encoder::new(&same, 1)), &masking, again);
        }
    }
}
