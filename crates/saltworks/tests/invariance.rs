//! What must not change the result: the company of a batch, work that is skipped, pixels behind
//! the mask, and how often a step is repeated.

use engine::check::{Tolerance, assert_close, normal, rel_l2};
use engine::ops::{self, Images, LossKind};
use engine::{Module, Parameter, Tape, Tensor};
use saltworks::mask::{Grid, Masks};
use saltworks::method::{
    Covered, Mae, MaeOptions, Method, PixelNorm, Salt, SaltOptions, Step, embed,
};
use saltworks::model::{Encoder, Outputs, Patches, StepKey, TransformerSpec, VitSpec};

const KEY: StepKey = StepKey { seed: 7, step: 3, first_sample: 0 };
const GRID: Grid = Grid::image(3, 4);

/// A small model with every option that has a path of its own.
fn spec() -> VitSpec {
    VitSpec {
        image: [1, 12, 16],
        patch: [1, 4, 4],
        width: 24,
        depth: 3,
        heads: 3,
        hidden: 48,
        registers: 2,
        layer_scale: Some(0.5),
        qk_norm: true,
        ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
    }
}

/// An encoder with all its parameters moved, so that no token, scale or bias is trivial.
fn encoder(spec: &VitSpec, seed: u64) -> Encoder {
    spec.check().unwrap();
    let encoder = Encoder::new(spec, seed);
    encoder.visit("", &mut |name, parameter| moved(name, parameter));
    encoder
}

fn moved(name: &str, parameter: &Parameter) {
    let noise = normal(name, &parameter.shape());
    let values = parameter.value().to_vec();
    let sum: Vec<f32> = values
        .iter()
        .zip(noise.to_host().iter())
        .map(|(value, noise)| value + 0.1 * noise)
        .collect();
    parameter.set_value(&sum).unwrap();
}

fn salt(seed: u64) -> Salt {
    salt_with(&spec(), seed)
}

fn salt_with(student: &VitSpec, seed: u64) -> Salt {
    let teacher = encoder(&VitSpec { width: 36, ..spec() }, seed);
    let options = SaltOptions {
        predictor: TransformerSpec::new(32, 2, 4),
        loss: LossKind::L1,
        mask_tokens: 1,
        target_layer_norm: true,
    };
    let method = Salt::new(teacher, encoder(student, seed + 1), options, seed).unwrap();
    method.visit("", &mut moved);
    method
}

fn mae(covered: Covered, pixel_norm: PixelNorm) -> Mae {
    let decoder = TransformerSpec::new(32, 2, 4);
    let options = MaeOptions { decoder, covered, pixel_norm, loss: LossKind::Mse };
    let method = Mae::new(encoder(&spec(), 5), options, 5);
    method.visit("", &mut moved);
    method
}

const PIXELS: usize = 3 * 12 * 16;

fn pixels(samples: usize) -> Vec<f32> {
    normal("images", &[samples * PIXELS]).to_vec()
}

fn images(pixels: &[f32]) -> Images {
    Images::f32(pixels.to_vec(), [pixels.len() / PIXELS, 3, 1, 12, 16]).unwrap()
}

/// Masks of other sizes for each of three samples.
fn masks() -> Masks {
    let context = vec![vec![0, 1, 5, 9], vec![2, 3], vec![0, 4, 6, 7, 8, 10, 11]];
    let target = vec![vec![2, 3], vec![0, 1, 4, 5, 8, 9], vec![1]];
    Masks::new(GRID, context, target).unwrap()
}

fn only(masks: &Masks, sample: usize) -> Masks {
    let context = vec![masks.context[sample].clone()];
    Masks::new(GRID, context, vec![masks.target[sample].clone()]).unwrap()
}

fn run(method: &dyn Method, pixels: &[f32], masks: &Masks) -> Step {
    method.step(&Tape::inference(), &images(pixels), masks, Some(KEY)).unwrap()
}

/// Loss and all gradients of one step.
fn gradients(method: &dyn Method, pixels: &[f32], masks: &Masks) -> (f32, Vec<Vec<f32>>) {
    gradients_on(&Tape::new(), method, pixels, masks)
}

fn gradients_on(
    tape: &Tape,
    method: &dyn Method,
    pixels: &[f32],
    masks: &Masks,
) -> (f32, Vec<Vec<f32>>) {
    let parameters = method.parameters();
    parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
    let step = method.step(tape, &images(pixels), masks, Some(KEY)).unwrap();
    tape.backward(&step.loss).unwrap();
    let of = |(name, p): &(String, Parameter)| {
        p.grad().unwrap_or_else(|| panic!("{name} got no gradient")).to_vec()
    };
    (step.loss.item(), parameters.iter().map(of).collect())
}

fn methods() -> [(&'static str, Box<dyn Method>); 3] {
    [
        ("SALT", Box::new(salt(11))),
        ("MAE", Box::new(mae(Covered::AllMasked, PixelNorm::Joint))),
        ("MAE on targets", Box::new(mae(Covered::Targets, PixelNorm::PerChannel))),
    ]
}

#[test]
fn row_of_a_batch_equals_it_alone() {
    let (pixels, masks) = (pixels(3), masks());
    for (name, method) in methods() {
        let batch = run(method.as_ref(), &pixels, &masks);
        let mut first = 0;
        for sample in 0..3 {
            let part = &pixels[sample * PIXELS..(sample + 1) * PIXELS];
            let alone = run(method.as_ref(), part, &only(&masks, sample));
            let rows = first..first + alone.target_count;
            first = rows.end;
            for (what, all, one) in [
                ("predictions", &batch.predictions, &alone.predictions),
                ("targets", &batch.targets, &alone.targets),
                ("embedding", &batch.embedding().unwrap(), &alone.embedding().unwrap()),
            ] {
                let rows = if what == "embedding" { sample..sample + 1 } else { rows.clone() };
                let got = all.narrow(rows).unwrap().to_vec();
                // The same products; their sums may be cut into other blocks.
                let why = "f32 sums in another order";
                assert_close(
                    &format!("{name} {what} {sample}"),
                    &got,
                    &one.to_host(),
                    rel_l2(1e-6),
                    why,
                );
            }
        }
        assert_eq!(first, batch.target_count, "{name}: rows of all samples");
    }
}

/// Masks of each sample, drawn apart.
fn second_masks() -> Masks {
    let context = vec![vec![3, 6], vec![0, 1, 5, 8, 9], vec![2]];
    let target = vec![vec![0, 1, 4, 7], vec![2], vec![0, 5, 9]];
    Masks::new(GRID, context, target).unwrap()
}

#[test]
fn a_step_with_two_masks_is_the_mean_of_a_step_with_each() {
    for (name, method) in methods() {
        let [first, second] = [masks(), second_masks()].map(|drawn| method.masks(drawn));
        let pixels = pixels(3);
        let both = Masks::several(vec![first.clone(), second.clone()]);
        let (loss, grads) = gradients(method.as_ref(), &pixels, &both);
        let each = [first, second].map(|masks| gradients(method.as_ref(), &pixels, &masks));
        let mean = (each[0].0 + each[1].0) / 2.0;
        assert_close(name, &[loss], &[mean], rel_l2(1e-6), "f32 sums in another order");
        for (i, (parameter, _)) in method.parameters().iter().enumerate() {
            // Softmax does not see a shift common to all keys: this gradient is rounding alone.
            if parameter.ends_with("k_norm.bias") {
                continue;
            }
            let pairs = each[0].1[i].iter().zip(&each[1].1[i]);
            let mean: Vec<f32> = pairs.map(|(a, b)| (a + b) / 2.0).collect();
            let subject = format!("{name} {parameter}");
            assert_close(&subject, &grads[i], &mean, rel_l2(1e-5), "f32 sums in another order");
        }
    }
}

#[test]
fn the_parts_of_a_batch_with_two_masks_give_its_loss_and_gradients() {
    for (name, method) in methods() {
        let drawn = [masks(), second_masks()].map(|drawn| method.masks(drawn));
        let (pixels, both) = (pixels(3), Masks::several(drawn.to_vec()));
        let (loss, grads) = gradients(method.as_ref(), &pixels, &both);
        let parameters = method.parameters();
        parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
        let mut sum = 0.0;
        for samples in [0..2, 2..3] {
            let part = both.part(samples.clone());
            let images = images(&pixels[samples.start * PIXELS..samples.end * PIXELS]);
            let key = StepKey { first_sample: samples.start, ..KEY };
            let tape = Tape::new();
            let step = method.step(&tape, &images, &part, Some(key)).unwrap();
            tape.backward_scaled(&step.loss, part.share()).unwrap();
            sum += part.share() * step.loss.item();
        }
        assert_close(name, &[sum], &[loss], rel_l2(1e-6), "f32 sums in another order");
        for ((parameter, of), want) in parameters.iter().zip(&grads) {
            if !parameter.ends_with("k_norm.bias") {
                let subject = format!("{name} {parameter}");
                let got = of.grad().unwrap().to_vec();
                assert_close(&subject, &got, want, rel_l2(1e-5), "f32 sums in another order");
            }
        }
    }
}

#[test]
fn a_last_block_that_skips_unread_rows_gives_the_same_rows_and_gradients() {
    let encoder = encoder(&spec(), 3);
    let (images, masks) = (images(&pixels(3)), masks());
    let read = [vec![1, 9], vec![3], vec![0, 7, 11]];
    // The same patches among all rows: each sample's three prefix rows, then its context.
    let rows_read = [4, 6, 11, 15, 18, 21];
    let run = |skip: bool| {
        let parameters = encoder.parameters();
        parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
        let tape = Tape::new();
        let given = Patches::Some(&masks.context);
        let y = if skip {
            encoder.forward(&tape, &images, given, Outputs::Patches(&read), None).unwrap().tokens
        } else {
            let all = encoder.forward(&tape, &images, given, Outputs::All, None).unwrap();
            ops::gather(&tape, &all.tokens, &rows_read).unwrap()
        };
        let target = Tensor::zeros(y.shape());
        let loss = ops::loss(&tape, &y, &target, LossKind::SmoothL1 { beta: 1.0 }, None).unwrap();
        tape.backward(&loss).unwrap();
        let grads: Vec<_> = parameters
            .into_iter()
            .map(|(name, p)| (p.grad().unwrap_or_else(|| panic!("{name}")).to_vec(), name))
            .collect();
        (y.to_vec(), grads)
    };
    let ((skipped, of_skipped), (whole, of_whole)) = (run(true), run(false));
    assert_close("rows", &skipped, &whole, rel_l2(1e-6), "f32 sums in another order");
    for ((got, name), (want, _)) in of_skipped.iter().zip(&of_whole) {
        // Softmax does not see a shift common to all keys: this gradient is rounding alone.
        if !name.ends_with("k_norm.bias") {
            assert_close(name, got, want, rel_l2(1e-5), "sums over fewer, zero-free rows");
        }
    }
}

#[test]
fn pixels_behind_the_mask_never_reach_the_student() {
    let (mut pixels, masks) = (pixels(3), masks());
    let student = encoder(&spec(), 9);
    let encode = |pixels: &[f32]| {
        let (images, given) = (images(pixels), Patches::Some(&masks.context));
        student.forward(&Tape::inference(), &images, given, Outputs::All, None).unwrap().tokens
    };
    let before = encode(&pixels);
    for (place, value) in pixels.iter_mut().enumerate() {
        let (sample, row, column) = (place / PIXELS, place / 16 % 12, place % 16);
        let patch = (row / 4 * 4 + column / 4) as u32;
        if !masks.context[sample].contains(&patch) {
            *value = f32::NAN;
        }
    }
    assert_close("tokens", &encode(&pixels).to_host(), &before.to_host(), Tolerance::Exact, "");
}

#[test]
fn a_step_repeated_gives_the_same_bits_and_reaches_every_parameter() {
    for (name, method) in methods() {
        let (pixels, masks) = (pixels(3), masks());
        let (loss, grads) = gradients(method.as_ref(), &pixels, &masks);
        let (again, same) = gradients(method.as_ref(), &pixels, &masks);
        assert_eq!(loss.to_bits(), again.to_bits(), "{name}");
        for ((grad, same), (parameter, _)) in grads.iter().zip(&same).zip(method.parameters()) {
            let subject = format!("{name} {parameter}");
            assert_close(&subject, grad, same, Tolerance::Exact, "a step repeated");
            assert!(grad.iter().any(|&g| g != 0.0), "{subject}: no gradient");
        }
    }
}

#[test]
fn checkpointed_activations_give_the_same_bits_from_fewer_records() {
    let dropping = salt_with(&VitSpec { drop_path: 0.5, ..spec() }, 11);
    let dropping: (_, Box<dyn Method>) = ("SALT with stochastic depth", Box::new(dropping));
    for (name, method) in methods().into_iter().chain([dropping]) {
        let (pixels, masks) = (pixels(3), masks());
        let (loss, grads) = gradients(method.as_ref(), &pixels, &masks);
        let tape = Tape::new().checkpointing(true);
        let (again, same) = gradients_on(&tape, method.as_ref(), &pixels, &masks);
        assert_eq!(loss.to_bits(), again.to_bits(), "{name}");
        for ((grad, same), (parameter, _)) in grads.iter().zip(&same).zip(method.parameters()) {
            let subject = format!("{name} {parameter}");
            assert_close(&subject, same, grad, Tolerance::Exact, "the same operations again");
        }
        let recorded = [false, true].map(|checkpointing| {
            let tape = Tape::new().checkpointing(checkpointing);
            method.step(&tape, &images(&pixels), &masks, Some(KEY)).unwrap();
            tape.recorded()
        });
        assert!(recorded[1] < recorded[0], "{name}: {recorded:?}");
    }
}

#[test]
fn loss_is_the_mean_over_all_predicted_patches() {
    let step = run(&salt(11), &pixels(3), &masks());
    let (predictions, targets) = (step.predictions.to_host(), step.targets.to_host());
    let pairs = predictions.iter().zip(targets.iter());
    let sum: f64 = pairs.map(|(p, t)| f64::from((p - t).abs())).sum();
    let mean = sum / step.predictions.len() as f64;
    assert_close("loss", &[step.loss.item()], &[mean], rel_l2(1e-6), "f32 sum");
    assert_eq!((step.target_count, step.context_tokens), (9, 13));
    assert_eq!(step.predictions.shape(), [9, 36], "the teacher's width, not the student's");
    assert_eq!(step.embedding().unwrap().shape(), [3, 24]);
}

#[test]
fn mae_covers_what_it_is_told_to() {
    for (covered, count) in [(Covered::AllMasked, 3 * 12 - 13), (Covered::Targets, 9)] {
        let mae = mae(covered, PixelNorm::None);
        let step = run(&mae, &pixels(3), &mae.masks(masks()));
        assert_eq!(step.target_count, count);
    }
}

#[test]
fn teacher_receives_no_gradient_and_is_not_trained() {
    let method = salt(11);
    assert!(method.parameters().iter().all(|(name, _)| !name.starts_with("teacher")));
    let teacher = encoder(&spec(), 4);
    let parameters = teacher.parameters();
    let teacher = engine::Frozen::new(teacher);
    let tape = Tape::new();
    let images = images(&pixels(1));
    teacher.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap();
    assert_eq!(tape.recorded(), 0);
    assert!(parameters.iter().all(|(_, parameter)| parameter.grad().is_none()));
}

#[test]
fn stochastic_depth_is_drawn_by_sample_and_step_and_only_when_training() {
    let encoder = encoder(&VitSpec { drop_path: 0.5, ..spec() }, 6);
    let images = images(&pixels(3));
    let forward = |key| {
        let tape = Tape::inference();
        encoder.forward(&tape, &images, Patches::All, Outputs::All, key).unwrap().tokens.to_vec()
    };
    assert_eq!(forward(Some(KEY)), forward(Some(KEY)));
    assert_ne!(forward(Some(KEY)), forward(Some(StepKey { step: 4, ..KEY })));
    assert_ne!(forward(Some(KEY)), forward(None));
    // Averaged over steps the branches are whole again: what is dropped is made up for. With 400
    // steps the mean's deviation is a twentieth of one step's.
    let mean = (0..400).fold(vec![0.0; forward(None).len()], |mut sum: Vec<f32>, step| {
        let tokens = forward(Some(StepKey { step, ..KEY }));
        sum.iter_mut().zip(&tokens).for_each(|(sum, token)| *sum += token / 400.0);
        sum
    });
    assert_close("mean", &mean, &forward(None), rel_l2(0.15), "the norm behind is not linear");
}

#[test]
fn features_of_whole_images_are_class_token_and_mean_of_patches() {
    let student = encoder(&spec(), 8);
    let images = images(&pixels(2));
    let features = embed(&student, &images).unwrap();
    let tape = Tape::inference();
    let tokens = student.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap().tokens;
    let cls = features.cls.expect("this model has a class token");
    for b in 0..2 {
        let rows = tokens.narrow(b * 15..(b + 1) * 15).unwrap().to_vec();
        assert_eq!(cls.narrow(b..b + 1).unwrap().to_vec(), rows[..24]);
        let mean: Vec<f32> =
            (0..24).map(|d| (3..15).map(|n| rows[n * 24 + d]).sum::<f32>() / 12.0).collect();
        let got = features.mean.narrow(b..b + 1).unwrap().to_vec();
        assert_close("mean", &got, &mean, rel_l2(1e-6), "f32 sums in another order");
    }
    let without = VitSpec { class_token: false, registers: 0, ..spec() };
    assert!(embed(&encoder(&without, 8), &images).unwrap().cls.is_none());
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let method = salt(11);
    let step = |pixels: &Images, masks: &Masks| {
        method.step(&Tape::inference(), pixels, masks, Some(KEY)).err().unwrap().to_string()
    };
    let gray = Images::f32(vec![0.0; 3 * 12 * 16], [3, 1, 1, 12, 16]).unwrap();
    let message = step(&gray, &masks());
    assert!(message.contains("[1, 1, 12, 16], expected [3, 1, 12, 16]"), "{message}");
    let message = step(&images(&pixels(2)), &masks());
    assert!(
        message.contains("the number of lists of output patches is 3, expected 2"),
        "{message}"
    );
    let turned = Masks::new(Grid::image(4, 3), masks().context, masks().target).unwrap();
    let message = step(&images(&pixels(3)), &turned);
    assert!(message.contains("the masks' grid is [1, 4, 3], expected [1, 3, 4]"), "{message}");
    let other = VitSpec { image: [1, 12, 12], ..spec() };
    let options = SaltOptions {
        predictor: TransformerSpec::new(32, 1, 4),
        loss: LossKind::L1,
        mask_tokens: 1,
        target_layer_norm: false,
    };
    let message = Salt::new(encoder(&other, 1), encoder(&spec(), 2), options, 1).err().unwrap();
    assert!(message.to_string().contains("3 x 4"), "{message}");
}
