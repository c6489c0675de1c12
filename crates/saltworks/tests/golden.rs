//! The model and methods against stable-pretraining 0.1.8 and timm 1.0.31: tests/golden, made by
//! make_golden.py; tests/golden/REFERENCE.md says what the reference does.
//!
//! The references were computed in f64. Forward results may be off by 1e-5 (relative L2), gradients
//! by 1e-4: f32 rounding through a few blocks is a tenth of that, a wrong term a hundred times.

use engine::check::{assert_close, max_abs, rel_l2};
use engine::device::Device;
use engine::naive::Naive;
use engine::ops::{self, Images, LossKind};
use engine::optim::{AdamW, clip_grad_norm, grad_norm};
use engine::{HOST, Module, Parameter, Tape, Tensor};
use safetensors::{Dtype, SafeTensors};
use saltworks::mask::{Grid, Masks};
use saltworks::method::{
    Covered, Mae, MaeOptions, Method, PixelNorm, Salt, SaltOptions, Step, embed,
};
use saltworks::model::{
    Encoder, Outputs, Patches, Rope, StepKey, TransformerSpec, VitSpec, position,
};
use serde_json::Value;
use std::collections::HashMap;

const KEY: StepKey = StepKey { seed: 0, step: 0, first_sample: 0 };
const FORWARD: &str = "forward pass in f32";
const GRADIENT: &str = "gradient in f32";

/// A golden file: tensors by name (bytes and whole numbers as f32, exactly) and its sizes.
struct Golden {
    tensors: HashMap<String, Tensor>,
    bytes: HashMap<String, Vec<u8>>,
    config: Value,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = format!("{}/../../tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        let config = &metadata.metadata().as_ref().unwrap()["config"];
        let config = serde_json::from_str(config).unwrap();
        let mut golden = Self { tensors: HashMap::new(), bytes: HashMap::new(), config };
        for (name, view) in SafeTensors::deserialize(&file).unwrap().tensors() {
            let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => words.map(f32::from_le_bytes).collect(),
                Dtype::I32 => words.map(|b| i32::from_le_bytes(b) as f32).collect(),
                _ => {
                    golden.bytes.insert(name, view.data().to_vec());
                    continue;
                }
            };
            golden.tensors.insert(name, Tensor::from_vec(values, view.shape()));
        }
        golden
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the golden file has no {name}"))
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The sizes under `model`, in our words.
    fn spec(&self) -> VitSpec {
        let model = &self.config["model"];
        let size = |key: &str| model[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize;
        let flag = |key: &str, unset: bool| model[key].as_bool().unwrap_or(unset);
        // The side of a square, or frames, height and width.
        let sides = |key: &str| match model[key].as_array() {
            Some(sides) => [0, 1, 2].map(|axis| sides[axis].as_u64().expect("a side") as usize),
            None => [1, size(key), size(key)],
        };
        VitSpec {
            image: sides("img_size"),
            patch: sides("patch_size"),
            channels: size("in_chans"),
            width: size("embed_dim"),
            depth: size("depth"),
            heads: size("num_heads"),
            hidden: 4 * size("embed_dim"),
            registers: model["reg_tokens"].as_u64().unwrap_or(0) as usize,
            class_token: flag("class_token", true),
            no_embed_class: flag("no_embed_class", false),
            layer_scale: model["init_values"].as_f64().map(|value| value as f32),
            qk_norm: flag("qk_norm", false),
            rope: model["rope"].as_str().map(|form| match form {
                "tiled" => Rope::Tiled,
                _ => Rope::Interleaved,
            }),
            fc_norm: flag("fc_norm", model["global_pool"].as_str() == Some("avg")),
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        }
    }

    /// Sizes of the `predictor` or `decoder`.
    fn transformer(&self, which: &str) -> TransformerSpec {
        let size = |key: &str| {
            self.config[which][format!("{which}_{key}")].as_u64().expect("a size") as usize
        };
        TransformerSpec::new(size("embed_dim"), size("depth"), size("num_heads"))
    }

    fn images(&self, name: &str, spec: &VitSpec) -> Images {
        let bytes = self.bytes[name].clone();
        let [t, h, w] = spec.image;
        let samples = bytes.len() / (spec.channels * t * h * w);
        let of = |name| self.tensor(name).to_vec();
        let shape = [samples, spec.channels, t, h, w];
        Images::u8(bytes, shape, of("input/mean"), of("input/std")).unwrap()
    }

    /// Lists of patches [B, K], ascending (PatchMasking keeps its order of drawing).
    fn patches(&self, name: &str) -> Vec<Vec<u32>> {
        let table = self.tensor(name);
        let list = |row: &[f32]| {
            let mut list: Vec<u32> = row.iter().map(|&patch| patch as u32).collect();
            list.sort_unstable();
            list
        };
        table.to_host().chunks_exact(table.dim(1)).map(list).collect()
    }

    /// Masks whose lists are called input/context and input/target, with this ending.
    fn masks(&self, spec: &VitSpec, ending: &str) -> Masks {
        let list = |name: &str| self.patches(&format!("input/{name}{ending}"));
        Masks::new(spec.grid(), list("context"), list("target")).unwrap()
    }

    /// An encoder with the weights below `prefix`.
    fn encoder(&self, spec: &VitSpec, prefix: &str) -> Encoder {
        spec.check().unwrap();
        let encoder = Encoder::new(spec, 1);
        encoder.visit("", &mut |name, parameter| {
            self.set(&format!("weights/{prefix}{name}"), parameter);
        });
        encoder
    }

    fn set(&self, name: &str, parameter: &Parameter) {
        let tensor = self.tensor(name);
        assert_eq!(tensor.shape(), parameter.shape(), "{name}");
        parameter.set_value(&tensor.to_host()).unwrap();
    }

    /// Gives a method's parameters the file's weights, all of them used.
    fn fill(&self, method: &dyn Method) {
        let mut used = Vec::new();
        method.visit("", &mut |name, parameter| {
            let name = format!("weights/{}", reference_name(name));
            self.set(&name, parameter);
            used.push(name);
        });
        let left = self.tensors.keys().filter(|name| name.starts_with("weights/"));
        let left: Vec<_> = left.filter(|name| !used.contains(name) && !unused(name)).collect();
        assert!(left.is_empty(), "weights that nothing takes: {left:?}");
    }

    fn compare(&self, name: &str, got: &Tensor) {
        assert_close(name, &got.to_host(), &self.tensor(name).to_host(), rel_l2(1e-5), FORWARD);
    }

    /// Compares every gradient.
    fn compare_gradients(&self, parameters: &[(String, Parameter)]) {
        for (name, parameter) in parameters {
            let name = format!("grad/{}", reference_name(name));
            let got = parameter.grad().unwrap_or_else(|| panic!("{name}: none came"));
            let want = self.tensor(&name);
            // Softmax does not see a shift common to all keys: zero but for rounding.
            let close = if name.ends_with("k_norm.bias") { max_abs(1e-7) } else { rel_l2(1e-4) };
            assert_close(&name, &got.to_host(), &want.to_host(), close, GRADIENT);
        }
    }
}

/// stable-pretraining keeps timm's model under `vit`.
fn reference_name(name: &str) -> String {
    let (owner, rest) = name.split_once('.').unwrap_or(("", name));
    match owner {
        "student" | "encoder" => format!("{owner}.vit.{rest}"),
        _ => name.to_owned(),
    }
}

/// The teacher is loaded by itself; SALT replaces all that `query_proj` gives by the mask token.
fn unused(name: &str) -> bool {
    name.starts_with("weights/teacher.") || name.starts_with("weights/predictor.query_proj.")
}

fn salt(golden: &Golden) -> Salt {
    salt_with(golden, 1, false)
}

fn salt_with(golden: &Golden, mask_tokens: usize, target_layer_norm: bool) -> Salt {
    let spec = golden.spec();
    let teacher = golden.encoder(&spec, "teacher.backbone.vit.");
    let predictor = golden.transformer("predictor");
    let options = SaltOptions { predictor, loss: LossKind::L1, mask_tokens, target_layer_norm };
    let method = Salt::new(teacher, Encoder::new(&spec, 2), options, 3).unwrap();
    golden.fill(&method);
    method
}

fn mae(golden: &Golden, pixel_norm: PixelNorm) -> Mae {
    let options = MaeOptions {
        decoder: golden.transformer("decoder"),
        covered: Covered::AllMasked,
        pixel_norm,
        loss: LossKind::Mse,
    };
    let method = Mae::new(Encoder::new(&golden.spec(), 2), options, 3);
    golden.fill(&method);
    method
}

/// One step, and its gradients compared.
fn step(golden: &Golden, method: &dyn Method) -> (Images, Masks, Step) {
    step_on(HOST, golden, method)
}

/// [`step`] of a method that lies on `device`.
fn step_on(
    device: &'static dyn Device,
    golden: &Golden,
    method: &dyn Method,
) -> (Images, Masks, Step) {
    let spec = golden.spec();
    let images = golden.images("input/images", &spec).to(device);
    let masks = golden.masks(&spec, "");
    let tape = Tape::new();
    let step = method.step(&tape, &images, &masks, Some(KEY)).unwrap();
    golden.compare("output/loss", &step.loss);
    tape.backward(&step.loss).unwrap();
    golden.compare_gradients(&method.parameters());
    (images, masks, step)
}

#[test]
fn a_step_on_the_naive_device_gives_the_references_loss_and_gradients() {
    let golden = Golden::read("mae_block_norm");
    let method = mae(&golden, PixelNorm::Joint);
    method.visit("", &mut |_, parameter| parameter.move_to(&Naive));
    let (_, _, step) = step_on(&Naive, &golden, &method);
    assert_eq!(step.loss.device().name(), "naive");
}

const ENCODERS: [&str; 7] =
    ["cls", "gray", "no_class_token", "fc_norm", "no_embed_class", "registers", "scale_qk_norm"];

#[test]
fn encoders_give_timms_features_and_gradients() {
    for name in ENCODERS {
        let golden = Golden::read(&format!("encoder_{name}"));
        let spec = golden.spec();
        let encoder = golden.encoder(&spec, "");
        let images = golden.images("input/images", &spec);
        let tape = Tape::new();
        let tokens =
            encoder.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap().tokens;
        golden.compare("output/features", &tokens);
        let features = embed(&encoder, &images).unwrap();
        golden.compare("output/pooled", features.cls.as_ref().unwrap_or(&features.mean));
        if golden.has("input/goal") {
            let goal = golden.tensor("input/goal").reshape(tokens.shape()).unwrap();
            let loss = ops::loss(&tape, &tokens, &goal, LossKind::Mse, None).unwrap();
            golden.compare("output/loss", &loss);
            tape.backward(&loss).unwrap();
            golden.compare_gradients(&encoder.parameters());
        }
    }
}

#[test]
fn an_encoder_brought_to_another_image_gives_timms_features() {
    let golden = Golden::read("encoder_resized");
    let spec = golden.spec();
    let first = golden.encoder(&spec, "");
    for (height, width) in [(48, 48), (24, 40)] {
        let other = VitSpec { image: [1, height, width], ..spec.clone() };
        let encoder = Encoder::new(&other, 1);
        let values: HashMap<_, _> = first.parameters().into_iter().collect();
        encoder.visit("", &mut |name, parameter| {
            let mut value = values[name].value().to_vec();
            if name == "pos_embed" {
                let (from, to) = (spec.grid(), other.grid());
                value = position::resample(&value, spec.width, spec.prefix(), from, to);
            }
            parameter.set_value(&value).unwrap();
        });
        let images = golden.images(&format!("input/images/{height}x{width}"), &other);
        let tape = Tape::inference();
        let tokens =
            encoder.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap().tokens;
        golden.compare(&format!("output/features/{height}x{width}"), &tokens);
    }
}

#[test]
fn an_encoder_of_some_patches_gives_the_references_features() {
    let golden = Golden::read("masked_encoder");
    let spec = golden.spec();
    let (encoder, images) = (golden.encoder(&spec, "vit."), golden.images("input/images", &spec));
    for masking in ["block", "random"] {
        let context = format!("input/context/{masking}");
        let given = golden.patches(&context);
        let tape = Tape::inference();
        let encoded =
            encoder.forward(&tape, &images, Patches::Some(&given), Outputs::All, None).unwrap();
        // The reference keeps the order of drawing; ours ascends.
        let drawn = golden.tensor(&context);
        let mut rows = Vec::new();
        for (b, drawn) in drawn.to_host().chunks_exact(drawn.dim(1)).enumerate() {
            let start = encoded.segments.range(b).start;
            rows.extend((start..start + encoded.prefix).map(|row| row as u32));
            for &patch in drawn {
                let place = given[b].binary_search(&(patch as u32)).unwrap();
                rows.push((start + encoded.prefix + place) as u32);
            }
        }
        let tokens = ops::gather(&tape, &encoded.tokens, &rows).unwrap();
        golden.compare(&format!("output/features/{masking}"), &tokens);
    }
}

#[test]
fn position_tables_are_the_references() {
    let golden = Golden::read("positions");
    for (name, width, grid) in [
        ("sincos/4x4x24", 24, Grid::image(4, 4)),
        ("sincos/3x5x16", 16, Grid::image(3, 5)),
        ("sincos/2x3x4x24", 24, Grid { t: 2, h: 3, w: 4 }),
    ] {
        golden.compare(name, &position::sincos(width, grid));
    }
    let large = position::sincos(384, Grid::image(14, 14)).narrow(195..196).unwrap();
    golden.compare("sincos/14x14x384/last", &large);
    let (source, from) = (golden.tensor("source").to_vec(), Grid::image(4, 4));
    for (h, w) in [(6, 6), (3, 3), (2, 2), (3, 5), (8, 3)] {
        let to = Grid::image(h, w);
        let shape = [1 + to.len(), 8];
        let timm = position::resample(&source, 8, 1, from, to);
        golden.compare(&format!("timm/{h}x{w}"), &Tensor::from_vec(timm, &shape));
        let plain = position::resample_plain(&source, 8, 1, from, to);
        golden.compare(&format!("spt/{h}x{w}"), &Tensor::from_vec(plain, &shape));
    }
}

#[test]
fn salt_gives_the_references_loss_outputs_and_gradients() {
    for name in ["salt_plain", "salt_registers"] {
        let golden = Golden::read(name);
        let method = salt(&golden);
        let (images, masks, step) = step(&golden, &method);
        golden.compare("output/predictions", &step.predictions);
        golden.compare("output/targets", &step.targets);
        golden.compare("output/embedding", &step.embedding().unwrap());
        let tape = Tape::inference();
        let given = Patches::Some(&masks.context);
        let encoded = method.encoder().forward(&tape, &images, given, Outputs::All, None).unwrap();
        golden.compare("output/context", &encoded.patches(&tape).unwrap());
        let whole = embed(method.encoder(), &images).unwrap();
        golden.compare("output/eval_embedding", &whole.cls.expect("a class token"));
    }
}

/// transformers' VJEPA2, in both forms of rotary positions: teacher, student and predictor under
/// two masks of each clip.
#[test]
fn salt_on_clips_gives_the_losses_outputs_and_gradients_of_vjepa2() {
    for (name, mask_tokens) in [("tiled", 1), ("interleaved", 2)] {
        let golden = Golden::read(&format!("vjepa2_{name}"));
        let (spec, method) = (golden.spec(), salt_with(&golden, mask_tokens, true));
        let images = golden.images("input/images", &spec);
        let masks = ["/0", "/1"].map(|mask| golden.masks(&spec, mask)).to_vec();
        let masks = Masks::several(masks);
        let tape = Tape::new();
        let step = method.step(&tape, &images, &masks, Some(KEY)).unwrap();
        golden.compare("output/loss", &step.loss);
        let context = step.context.patches(&tape).unwrap();
        for (output, got) in
            [("context", context), ("predictions", step.predictions), ("targets", step.targets)]
        {
            // First all rows of the first mask, then those of the second.
            let first = golden.tensor(&format!("output/{output}/0")).rows();
            golden.compare(&format!("output/{output}/0"), &got.narrow(0..first).unwrap());
            golden.compare(&format!("output/{output}/1"), &got.narrow(first..got.rows()).unwrap());
        }
        tape.backward(&step.loss).unwrap();
        golden.compare_gradients(&method.parameters());
        let teacher = method.teacher().forward(&tape, &images, Patches::All, Outputs::All, None);
        golden.compare("output/teacher", &teacher.unwrap().tokens);
    }
}

#[test]
fn mae_gives_the_references_loss_outputs_and_gradients() {
    for name in ["block_norm", "block_raw", "random_norm", "random_raw"] {
        let golden = Golden::read(&format!("mae_{name}"));
        let norm = if name.ends_with("norm") { PixelNorm::Joint } else { PixelNorm::None };
        let method = mae(&golden, norm);
        let (images, masks, step) = step(&golden, &method);
        let (seen, all) =
            method.step_with_all(&Tape::inference(), &images, &masks, Some(KEY)).unwrap();
        golden.compare("output/loss", &seen.loss);
        let all = all.to_host();
        let want = golden.tensor("output/predictions");
        assert_close("every patch", &all, &want.to_host(), rel_l2(1e-5), FORWARD);
        // The reference predicts every patch, in the order of the grid; ours the masked ones.
        for (output, got) in [("predictions", step.predictions), ("targets", step.targets)] {
            let all = golden.tensor(&format!("output/{output}"));
            let all = all.reshape(&[all.dim(0) * all.dim(1), all.dim(2)]).unwrap();
            let want = ops::gather(&Tape::inference(), &all, masks.target_global()).unwrap();
            assert_close(output, &got.to_host(), &want.to_host(), rel_l2(1e-5), FORWARD);
        }
    }
}

/// How far torch's bf16 autocast is from f64, by make_golden.py: loss, predictions and all
/// gradients as relative L2 errors. There is no figure for VideoMAE; those are ours.
const AUTOCAST: [(&str, [f64; 3]); 5] = [
    ("mae_block_norm", [1.4e-4, 5.2e-3, 7.5e-3]),
    ("mae_block_raw", [3.1e-3, 7.1e-3, 6.9e-3]),
    ("salt_plain", [5.8e-4, 5.9e-3, 2.8e-2]),
    ("salt_registers", [1.1e-4, 4.9e-3, 9.5e-3]),
    ("videomae", [3.4e-5, 5.7e-3, 5.4e-3]),
];

#[test]
fn a_step_in_bf16_is_as_near_to_the_reference_as_under_autocast() {
    for (name, autocast) in AUTOCAST {
        let golden = Golden::read(name);
        let method: Box<dyn Method> = match name {
            "mae_block_norm" => Box::new(mae(&golden, PixelNorm::Joint)),
            "mae_block_raw" => Box::new(mae(&golden, PixelNorm::None)),
            "videomae" => Box::new(mae(&golden, PixelNorm::PerChannel)),
            _ => Box::new(salt(&golden)),
        };
        let spec = golden.spec();
        let images = golden.images("input/images", &spec).with_dtype(engine::Dtype::Bf16);
        let masks = golden.masks(&spec, "");
        let tape = Tape::new();
        let step = method.step(&tape, &images, &masks, Some(KEY)).unwrap();
        assert_eq!(step.predictions.dtype(), engine::Dtype::Bf16, "{name}");
        assert_eq!(step.loss.dtype(), engine::Dtype::F32, "{name}");
        tape.backward(&step.loss).unwrap();
        let (mut got, mut want) = (Vec::new(), Vec::new());
        for (parameter, p) in method.parameters() {
            got.extend(p.grad().unwrap().to_vec());
            want.extend(golden.tensor(&format!("grad/{}", reference_name(&parameter))).to_vec());
        }
        // MAE's reference predicts every patch; ours the masked ones.
        let predictions = golden.tensor("output/predictions");
        let all = predictions
            .reshape(&[predictions.len() / step.predictions.dim(1), step.predictions.dim(1)]);
        let all = all.unwrap();
        let predictions = match all.rows() == step.predictions.rows() {
            true => all,
            false => ops::gather(&Tape::inference(), &all, masks.target_global()).unwrap(),
        };
        let why = "activations and weights rounded to eight bits";
        let loss = golden.tensor("output/loss").to_vec();
        let close = |what: &str, got: &[f32], want: &[f32], bound: f64| {
            assert_close(&format!("{name}: {what}"), got, want, rel_l2(bound), why);
        };
        // Errors of the loss cancel by chance, here or there.
        close("loss", &step.loss.to_vec(), &loss, 1.5 * autocast[0].max(5e-4));
        close("predictions", &step.predictions.to_vec(), &predictions.to_vec(), 1.5 * autocast[1]);
        close("gradients", &got, &want, 1.5 * autocast[2]);
    }
}

/// transformers' VideoMAE on clips, made by make_videomae.py, which says how both differ.
#[test]
fn clips_give_the_loss_predictions_and_gradients_of_videomae() {
    let golden = Golden::read("videomae");
    let method = mae(&golden, PixelNorm::PerChannel);
    let (_, _, step) = step(&golden, &method);
    golden.compare("output/predictions", &step.predictions);
}

#[test]
fn ten_steps_give_the_references_curve_and_weights() {
    for name in ["steps_mae", "steps_salt"] {
        let golden = Golden::read(name);
        let method: Box<dyn Method> = match name {
            "steps_mae" => Box::new(mae(&golden, PixelNorm::Joint)),
            _ => Box::new(salt(&golden)),
        };
        let (losses, norms) = train(&golden, method.as_ref());
        let close = |what: &str, got: &[f32]| {
            let want = golden.tensor(what).to_vec();
            assert_close(&format!("{name} {what}"), got, &want, rel_l2(1e-5), "ten f32 steps");
        };
        close("output/losses", &losses);
        close("output/gradient_norms", &norms);
        let mut compared = 0;
        method.visit("", &mut |parameter, p| {
            let final_name = format!("final/{}", reference_name(parameter));
            if golden.has(&final_name) {
                compared += 1;
                let (got, want) = (p.value(), golden.tensor(&final_name));
                let why = "ten f32 steps, each of lr times a ratio of gradients";
                assert_close(&final_name, &got.to_host(), &want.to_host(), rel_l2(1e-5), why);
            }
        });
        let unused = usize::from(name == "steps_salt"); // query_proj
        let in_file = golden.tensors.keys().filter(|name| name.starts_with("final/")).count();
        assert_eq!(compared, in_file - unused, "{name}: weights compared");
    }
}

/// Ten steps of AdamW as the file's settings say: losses, and gradient norms before clipping.
fn train(golden: &Golden, method: &dyn Method) -> (Vec<f32>, Vec<f32>) {
    let settings = &golden.config["adamw"];
    let number = |value: &Value| value.as_f64().expect("a number");
    let betas = (number(&settings["betas"][0]), number(&settings["betas"][1]));
    let mut optimizer = AdamW::new(betas, number(&settings["eps"]) as f32);
    let (lr, decay) = (number(&settings["lr"]) as f32, number(&settings["weight_decay"]) as f32);
    let clip = golden.config["clip"].as_f64();
    let (spec, parameters) = (golden.spec(), method.parameters());
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for i in 0..10 {
        let images = golden.images(&format!("input/images/{i}"), &spec);
        let masks = golden.masks(&spec, &format!("/{i}"));
        parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
        let tape = Tape::new();
        let step = method.step(&tape, &images, &masks, Some(KEY)).unwrap();
        tape.backward(&step.loss).unwrap();
        let norm = match clip {
            Some(clip) => clip_grad_norm(&parameters, clip as f32),
            None => grad_norm(&parameters),
        };
        optimizer.step(parameters.iter().map(|(name, p)| (name.as_str(), p, lr, decay)));
        losses.push(step.loss.item());
        norms.push(norm.unwrap());
    }
    (losses, norms)
}

#[test]
fn the_last_blocks_attention_is_timms() {
    let path = format!("{}/../../tests/golden/pictures.safetensors", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(path).unwrap();
    let pictures = SafeTensors::deserialize(&file).unwrap();
    for name in
        ["cls", "no_class_token", "registers", "scale_qk_norm"].map(|n| format!("encoder_{n}"))
    {
        let golden = Golden::read(&name);
        let spec = golden.spec();
        let encoder = golden.encoder(&spec, "");
        let images = golden.images("input/images", &spec);
        let found = encoder.last_attention(&images).unwrap().unwrap().concat();
        let view = pictures.tensor(&format!("attention/{name}")).unwrap();
        let wanted: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_close(&name, &found, &wanted, rel_l2(1e-5), FORWARD);
    }
}
