//! What holds for every operation together: what is recorded, sameness of bits, the optimizer, and
//! errors that name the argument.

mod common;

use common::{ContextLists, Model, On, images};
use engine::check::{Tolerance, assert_close, max_abs, normal, rel_l2};
use engine::device::PatchNorm;
use engine::ops::{self, Images, LossKind, PatchOrder, Row};
use engine::optim::{AdamW, clip_grad_norm, grad_norm, zero_grad};
use engine::{
    Error, Frozen, HOST, Module, Parameter, Result, Segments, Tape, Tensor, on_every_device,
};

on_every_device! {
    frozen_parameters_record_nothing,
    frozen_and_detached_parts_get_no_gradient_and_others_get_theirs,
    a_backward_pass_from_several_results_is_that_of_their_losses_and_reaches_inputs,
    inference_equals_the_recording_bit_for_bit_and_records_nothing,
    a_timed_tape_names_each_operation_and_changes_no_number,
    a_sample_alone_equals_itself_in_a_batch,
    adamw_is_the_formula_of_torch,
    adamw_keeps_moments_by_name_skips_what_has_no_gradient_and_restores,
    clipping_scales_all_gradients_by_one_factor_as_torch_does,
    a_gradient_that_is_not_finite_is_an_error_by_name,
    a_large_but_finite_gradient_has_a_norm,
    no_rows_give_no_values_and_zero_gradients,
}

fn kept() -> ContextLists {
    ContextLists::draw(&[5, 9, 1, 7], 3)
}

fn frozen_parameters_record_nothing(device: On) {
    let trained = Model::new(device);
    let tape = Tape::new();
    let want = trained.loss(&tape, &images(device, 4), &kept()).unwrap();
    assert!(tape.recorded() > 10);
    let frozen = Frozen::new(Model::new(device));
    let tape = Tape::new();
    let got = frozen.loss(&tape, &images(device, 4), &kept()).unwrap();
    assert_eq!(tape.recorded(), 0);
    assert_eq!(got.item().to_bits(), want.item().to_bits());
    assert!(matches!(tape.backward(&got), Err(Error::Untracked)));
}

fn a_backward_pass_from_several_results_is_that_of_their_losses_and_reaches_inputs(device: On) {
    let on = |name, shape: &[usize]| normal(name, shape).to(device);
    let (w, v) = (Parameter::new("w", on("w", &[3, 4])), Parameter::new("v", on("v", &[2, 3])));
    let x = Parameter::new("x", on("x", &[5, 4]));
    let targets = [on("first", &[5, 3]), on("second", &[5, 2])];
    let results = |tape: &Tape, x: &Tensor| -> Result<[Tensor; 2]> {
        let hidden = ops::linear(tape, x, &w.tensor(), None)?;
        let normed = ops::layer_norm(tape, &hidden, None, 1e-3)?;
        Ok([hidden, ops::linear(tape, &normed, &v.tensor(), None)?])
    };
    for which in [0, 1] {
        let tape = Tape::new();
        let y = &results(&tape, &x.tensor()).unwrap()[which];
        let loss = ops::loss(&tape, y, &targets[which], LossKind::Mse, None).unwrap();
        tape.backward(&loss).unwrap();
    }
    let want = [w.grad().unwrap(), v.grad().unwrap(), x.grad().unwrap()].map(|g| g.to_vec());
    zero_grad([&w, &v]);
    let tape = Tape::new();
    let (input, gradient) = tape.input(&x.value());
    let made = results(&tape, &input).unwrap();
    // d mse / d y = 2 (y - target) / count
    let slopes = made.iter().zip(&targets).map(|(y, target)| {
        let slope = |(y, t): (f32, f32)| 2.0 * (y - t) / target.len() as f32;
        let values = y.to_vec().into_iter().zip(target.to_vec()).map(slope);
        Tensor::from_vec(values.collect::<Vec<_>>(), target.shape()).to(device)
    });
    assert!(gradient.take().is_none());
    tape.backward_from(made.iter().zip(slopes)).unwrap();
    let got = [w.grad().unwrap(), v.grad().unwrap(), gradient.take().unwrap()].map(|g| g.to_vec());
    for (name, (got, want)) in ["w", "v", "x"].iter().zip(got.iter().zip(&want)) {
        assert_close(name, got, want, Tolerance::RelativeL2(1e-6), "sums in another order");
    }
    assert!(matches!(tape.backward_from([(&targets[0], on("g", &[5, 3]))]), Err(Error::Untracked)));
    let inference = Tape::inference();
    let (input, _) = inference.input(&x.value());
    results(&inference, &input).unwrap();
    assert_eq!(inference.recorded(), 0);
}

fn frozen_and_detached_parts_get_no_gradient_and_others_get_theirs(device: On) {
    let on = |name, shape| normal(name, shape).to(device);
    let (w, v) = (Parameter::new("w", on("w", &[3, 4])), Parameter::new("v", on("v", &[2, 3])));
    let (x, target) = (on("x", &[5, 4]), on("target", &[5, 2]));
    let run = |detach: bool| {
        w.zero_grad();
        v.zero_grad();
        let tape = Tape::new();
        let y = ops::layer_norm(&tape, &ops::linear(&tape, &x, &w.tensor(), None)?, None, 1e-3)?;
        let y = if detach { y.detach() } else { y };
        let y = ops::linear(&tape, &y, &v.tensor(), None)?;
        tape.backward(&ops::loss(&tape, &y, &target, LossKind::Mse, None)?)?;
        Ok::<_, Error>(v.grad().map(|g| g.to_vec()))
    };
    let detached = run(true).unwrap();
    assert!(w.grad().is_none(), "w is cut off by detach");
    assert_eq!(run(false).unwrap(), detached);
    assert!(w.grad().is_some());
}

fn inference_equals_the_recording_bit_for_bit_and_records_nothing(device: On) {
    let model = Model::new(device);
    let (recording, inference) = (Tape::new(), Tape::inference());
    let want = model.encode(&recording, &images(device, 4), &kept()).unwrap();
    let got = model.encode(&inference, &images(device, 4), &kept()).unwrap();
    let why = "the same kernels";
    assert_close("encoder", &got.to_host(), &want.to_host(), Tolerance::Exact, why);
    assert_eq!(inference.recorded(), 0);
    assert!(recording.recorded() > 0);
}

fn a_timed_tape_names_each_operation_and_changes_no_number(device: On) {
    let (plain, timed) = (Tape::new(), Tape::new().timed());
    let want = Model::new(device).loss(&plain, &images(device, 4), &kept()).unwrap();
    let got = Model::new(device).loss(&timed, &images(device, 4), &kept()).unwrap();
    timed.backward(&got).unwrap();
    assert_eq!(got.item().to_bits(), want.item().to_bits());
    assert!(plain.costs().iter().all(|cost| cost.seconds == [0.0; 2]));
    let costs = timed.costs();
    let attention = costs.iter().find(|cost| cost.op == "attention").unwrap();
    assert!(attention.seconds.iter().all(|&seconds| seconds > 0.0));
    // Two products forward, four back.
    assert!(attention.flops[0] > 0.0);
    assert_eq!(attention.flops[1], 2.0 * attention.flops[0]);
}

/// Loss, gradients and updated values of three steps on this many samples.
fn trained(device: On, samples: usize) -> Vec<(String, Vec<f32>)> {
    let (model, mut optimizer) = (Model::new(device), AdamW::new((0.9, 0.95), 1e-8));
    let mut numbers = Vec::new();
    for step in 0..3 {
        let tape = Tape::new();
        let counts: Vec<usize> = (0..samples).map(|b| 3 + (b * 7) % 11).collect();
        let loss = encoder_loss(&model, &tape, device, &counts, step).unwrap();
        let parameters = model.parameters();
        zero_grad(parameters.iter().map(|(_, p)| p));
        tape.backward(&loss).unwrap();
        numbers.push((format!("loss {step}"), loss.to_vec()));
        numbers.extend(parameters.iter().map(gradient));
        numbers.push(("norm".into(), vec![clip_grad_norm(&parameters, 0.1).unwrap()]));
        optimizer.step(parameters.iter().map(|(name, p)| (name.as_str(), p, 1e-2, 0.05)));
        numbers.extend(parameters.iter().map(|(name, p)| (name.clone(), p.value().to_vec())));
    }
    numbers
}

/// The same under this number of threads. 300 samples are work for many in each kernel.
fn trained_by(threads: usize) -> Vec<(String, Vec<f32>)> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| trained(HOST, 300))
}

/// The name and the gradient, empty if none came.
fn gradient((name, p): &(String, Parameter)) -> (String, Vec<f32>) {
    (format!("gradient of {name}"), p.grad().map(|g| g.to_vec()).unwrap_or_default())
}

/// A loss of the encoder alone, for more samples than [`Model::loss`] takes.
fn encoder_loss(
    model: &Model,
    tape: &Tape,
    device: On,
    counts: &[usize],
    step: u64,
) -> Result<Tensor> {
    let images = images(device, counts.len());
    let x = model.encode(tape, &images, &ContextLists::draw(counts, step))?;
    ops::loss(tape, &x, &normal("target", x.shape()).to(device), LossKind::L1, None)
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let one = trained_by(1);
    for threads in [2, 3, 8] {
        for ((name, want), (_, got)) in one.iter().zip(trained_by(threads)) {
            let name = format!("{name} on {threads} threads");
            assert_close(&name, &got, want, Tolerance::Exact, "tasks do not depend on threads");
        }
    }
}

#[test]
fn three_steps_on_another_device_give_the_cpus_losses_gradients_and_values() {
    let (cpu, naive) = (trained(HOST, 6), trained(&engine::naive::Naive, 6));
    for ((name, got), (_, want)) in cpu.iter().zip(&naive) {
        // A shift common to all keys changes no score, so this gradient is zero but for rounding.
        let tolerance =
            if name == "gradient of qk_norm.bias" { max_abs(1e-5) } else { rel_l2(1e-4) };
        assert_close(name, got, want, tolerance, "f32 sums against f64 ones, three updates");
    }
}

fn a_sample_alone_equals_itself_in_a_batch(device: On) {
    let (model, tape) = (Model::new(device), Tape::inference());
    let together = model.encode(&tape, &images(device, 4), &kept()).unwrap();
    // Image 0 is the first of any batch, whatever follows.
    let alone =
        model.encode(&tape, &images(device, 1), &ContextLists(vec![kept().0[0].clone()])).unwrap();
    let first = together.narrow(0..alone.rows()).unwrap();
    let why = "a row's sums do not depend on the rows beside it";
    assert_close("sample 0", &alone.to_host(), &first.to_host(), Tolerance::Exact, why);
}

fn no_rows_give_no_values_and_zero_gradients(device: On) {
    let w = Parameter::new("w", normal("w", &[3, 3]).to(device));
    let gamma = Parameter::new("gamma", normal("gamma", &[3]).to(device));
    let segments = Segments::new([0, 0]);
    let tape = Tape::new();
    let x = Tensor::zeros(&[0, 3]).to(device);
    let fc = (&w.tensor(), Some(&gamma.tensor()));
    let y = ops::mlp(&tape, &x, fc, fc, Some(&x)).unwrap();
    let y = ops::layer_norm(&tape, &y, Some((&gamma.tensor(), &gamma.tensor())), 1e-6).unwrap();
    let y = ops::cross_attention(
        &tape,
        &y,
        &segments,
        &Tensor::zeros(&[0, 6]).to(device),
        &segments,
        1,
    )
    .unwrap();
    let y = ops::gather(&tape, &y, Vec::new()).unwrap();
    let y = ops::residual(&tape, &y, &y, Some(&gamma.tensor()), Some((&segments, &[1.0, 0.0])))
        .unwrap();
    let loss = ops::loss(&tape, &y, &x, LossKind::L1, None).unwrap();
    assert_eq!(loss.item(), 0.0);
    tape.backward(&loss).unwrap();
    assert_eq!(w.grad().unwrap().to_vec(), [0.0; 9]);
    assert_eq!(gamma.grad().unwrap().to_vec(), [0.0; 3]);
}

#[test]
fn a_tensor_of_another_tape_is_an_error_not_a_wrong_gradient() {
    let w = Parameter::new("w", normal("w", &[3, 3]));
    let x = normal("x", &[2, 3]);
    let first = Tape::new();
    let y = ops::linear(&first, &x, &w.tensor(), None).unwrap();
    let second = Tape::new();
    let z = ops::add(&second, &y, &ops::linear(&second, &x, &w.tensor(), None).unwrap()).unwrap();
    let loss = ops::loss(&second, &z, &x, LossKind::Mse, None).unwrap();
    assert!(matches!(second.backward(&loss), Err(Error::OtherTape)));
    // Nor can a tape be walked twice.
    let loss = ops::loss(&first, &y, &x, LossKind::Mse, None).unwrap();
    first.backward(&loss).unwrap();
    assert!(matches!(first.backward(&loss), Err(Error::OtherTape)));
    let inference = ops::loss(&Tape::inference(), &y, &x, LossKind::Mse, None).unwrap();
    assert!(matches!(first.backward(&inference), Err(Error::Untracked)));
}

/// torch.optim.AdamW's single-tensor update in f64: value, first and second moment. The decay is
/// a factor rounded to f32, as torch's is.
fn adamw_in_f64(
    (value, first, second): &mut (f64, f64, f64),
    grad: f64,
    (lr, decay, betas, step): (f64, f64, (f64, f64), i32),
) {
    *value *= f64::from((1.0 - lr * decay) as f32);
    *first += (grad - *first) * (1.0 - betas.0);
    *second = betas.1 * *second + (1.0 - betas.1) * grad * grad;
    let denominator = second.sqrt() / (1.0 - betas.1.powi(step)).sqrt() + 1e-8;
    *value -= lr / (1.0 - betas.0.powi(step)) * *first / denominator;
}

fn adamw_is_the_formula_of_torch(device: On) {
    // 37 values: whole registers and a tail. Two groups differ in rate and decay.
    for (betas, decay, lr) in [((0.9, 0.95), 0.05, 1e-2), ((0.9, 0.999), 0.0, 3e-3)] {
        let start = normal("start", &[37]).to(device);
        let p = Parameter::new("p", start.clone());
        let mut optimizer = AdamW::new(betas, 1e-8);
        let mut want: Vec<_> = start.to_host().iter().map(|&v| (f64::from(v), 0.0, 0.0)).collect();
        for step in 1..=300 {
            // d/dp Σ_i g_i p_i = g, through an engine loss: linear of one row.
            let grad = normal(&format!("gradient {step}"), &[1, 37]).to(device);
            p.zero_grad();
            let tape = Tape::new();
            let row = p.tensor().reshape(&[1, 37]).unwrap();
            tape.backward(&ops::linear(&tape, &row, &grad, None).unwrap()).unwrap();
            optimizer.step([("p", &p, lr as f32, decay as f32)]);
            for (state, &g) in want.iter_mut().zip(grad.to_host().iter()) {
                adamw_in_f64(state, f64::from(g), (lr, decay, betas, step));
            }
        }
        let column = |f: fn(&(f64, f64, f64)) -> f64| want.iter().map(f).collect::<Vec<_>>();
        let (_, first, second, steps) = optimizer.state().next().unwrap();
        assert_eq!(steps, 300);
        let why = "300 f32 updates, each rounded twice";
        assert_close("value", &p.value().to_host(), &column(|s| s.0), rel_l2(2e-6), why);
        let why = "a decaying f32 sum";
        assert_close("first", &first.to_host(), &column(|s| s.1), rel_l2(1e-6), why);
        assert_close("second", &second.to_host(), &column(|s| s.2), rel_l2(4e-6), why);
    }
}

fn adamw_keeps_moments_by_name_skips_what_has_no_gradient_and_restores(device: On) {
    let new = |name| Parameter::new(name, normal(name, &[4]).to(device));
    let (a, b) = (new("a"), new("b"));
    let step = |optimizer: &mut AdamW, p: &Parameter, name: &str| {
        p.zero_grad();
        let tape = Tape::new();
        let row = p.tensor().reshape(&[1, 4]).unwrap();
        tape.backward(&ops::linear(&tape, &row, &row.detach(), None).unwrap()).unwrap();
        optimizer.step([(name, p, 0.1, 0.1), ("b", &b, 0.1, 0.1)]);
    };
    let mut optimizer = AdamW::new((0.9, 0.95), 1e-8);
    step(&mut optimizer, &a, "a");
    assert_eq!(b.value().to_vec(), normal("b", &[4]).to_vec());
    assert_eq!(optimizer.state().count(), 1);
    let mut resumed = AdamW::new((0.9, 0.95), 1e-8);
    for (name, first, second, steps) in optimizer.state() {
        resumed.restore(name, first, second, steps).unwrap();
    }
    let copy = Parameter::new("a", a.value().to(device));
    step(&mut optimizer, &a, "a");
    step(&mut resumed, &copy, "a");
    let why = "the state is whole";
    assert_close("resumed", &copy.value().to_host(), &a.value().to_host(), Tolerance::Exact, why);
    let wrong = resumed.restore("a", &Tensor::zeros(&[4]), &Tensor::zeros(&[5]), 1);
    assert!(wrong.unwrap_err().to_string().contains("moments of a are [4] and [5]"));
}

/// Parameters whose gradients are these values.
fn with_gradients(device: On, gradients: &[(&str, &[f32])]) -> Vec<(String, Parameter)> {
    let parameter = |&(name, gradient): &(&str, &[f32])| {
        let p = Parameter::new(name, Tensor::zeros(&[1, gradient.len()]).to(device));
        let tape = Tape::new();
        let weight = Tensor::from_vec(gradient, &[1, gradient.len()]).to(device);
        tape.backward(&ops::linear(&tape, &p.tensor(), &weight, None).unwrap()).unwrap();
        (name.to_owned(), p)
    };
    gradients.iter().map(parameter).collect()
}

fn clipping_scales_all_gradients_by_one_factor_as_torch_does(device: On) {
    let list = with_gradients(device, &[("a", &[3.0, -4.0, 12.0]), ("b", &[84.0, 0.0])]);
    // √(3² + 4² + 12² + 84²) = 85.
    assert_eq!(grad_norm(&list).unwrap(), 85.0);
    assert_eq!(clip_grad_norm(&list, 100.0).unwrap(), 85.0);
    assert_eq!(list[0].1.grad().unwrap().to_vec(), [3.0, -4.0, 12.0]);
    assert_eq!(clip_grad_norm(&list, 1.7).unwrap(), 85.0);
    let factor = 1.7 / (85.0 + 1e-6);
    let why = "one f32 product";
    let (a, b) = (list[0].1.grad().unwrap(), list[1].1.grad().unwrap());
    let want = [3.0 * factor, -4.0 * factor, 12.0 * factor];
    assert_close("a", &a.to_host(), &want, rel_l2(2e-7), why);
    assert_close("b", &b.to_host(), &[84.0 * factor, 0.0], max_abs(2e-7), why);
}

fn a_gradient_that_is_not_finite_is_an_error_by_name(device: On) {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let list = with_gradients(
            device,
            &[("fine", &[1e30, 2.0]), ("blocks.3.norm1.weight", &[1.0, value])],
        );
        let error = clip_grad_norm(&list, 1.0).unwrap_err();
        let Error::NonFinite { parameter, element, value: found } = &error else {
            panic!("another error: {error}")
        };
        assert_eq!((parameter.as_str(), *element), ("blocks.3.norm1.weight", 1));
        assert!(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan());
        assert!(error.to_string().contains("blocks.3.norm1.weight is not finite"), "{error}");
        assert_eq!(list[0].1.grad().unwrap().to_vec(), [1e30, 2.0], "gradients stay as they were");
    }
}

fn a_large_but_finite_gradient_has_a_norm(device: On) {
    let list = with_gradients(device, &[("a", &[3e30, 4e30])]);
    let norm = grad_norm(&list).unwrap();
    assert_close("norm", &[norm], &[5e30], rel_l2(1e-6), "squares are summed in f64");
}

/// Asserts that `result` is an error whose message has each of these parts.
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let error = result.err().unwrap_or_else(|| panic!("accepted, expected {parts:?}"));
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape)
}

#[test]
fn linear_layers_refuse_wrong_shapes() {
    let tape = &Tape::new();
    let (x, w) = (&zeros(&[5, 4]), &zeros(&[3, 4]));
    refused(ops::linear(tape, &zeros(&[5]), w, None), &["linear", "x is [5]", "matrix"]);
    refused(ops::linear(tape, x, &zeros(&[3, 5]), None), &["weight is [3, 5]", "[3, 4]"]);
    refused(ops::linear(tape, x, &zeros(&[12]), None), &["weight is [12]", "matrix"]);
    refused(ops::linear(tape, x, w, Some(&zeros(&[4]))), &["bias is [4]", "expected [3]"]);
    let fc2 = (&zeros(&[2, 3]), None);
    refused(ops::mlp(tape, x, (w, Some(&zeros(&[4]))), fc2, None), &["mlp", "bias is [4]"]);
    refused(ops::mlp(tape, x, (w, None), (w, None), None), &["weight is [3, 4]", "[3, 3]"]);
    refused(ops::mlp(tape, x, (w, None), fc2, Some(x)), &["residual is [5, 4]", "[5, 2]"]);
    refused(
        ops::linear_residual(tape, x, w, None, &zeros(&[5, 4])),
        &["linear_residual", "residual is [5, 4]", "expected [5, 3]"],
    );
}

#[test]
fn norms_refuse_wrong_shapes() {
    let tape = &Tape::new();
    let (x, four, five) = (&zeros(&[5, 12]), &zeros(&[4]), &zeros(&[5]));
    refused(ops::layer_norm(tape, four, None, 1e-6), &["layer_norm", "x is [4]"]);
    refused(ops::layer_norm(tape, x, Some((four, four)), 1e-6), &["weight is [4]", "[12]"]);
    let twelve = &zeros(&[12]);
    refused(ops::layer_norm(tape, x, Some((twelve, four)), 1e-6), &["bias is [4]", "[12]"]);
    let head_norm = |columns, head_dim, gamma, beta| {
        ops::head_norm(tape, x, columns, head_dim, gamma, beta, 1e-6)
    };
    refused(head_norm(0..8, 4, five, four), &["head_norm", "weight is [5]", "[4]"]);
    refused(head_norm(0..8, 4, four, five), &["bias is [5]", "[4]"]);
    refused(head_norm(0..10, 4, four, four), &["is 10", "a multiple of 4"]);
    refused(head_norm(8..16, 4, four, four), &["head_norm", "columns"]);
    refused(head_norm(0..8, 0, &zeros(&[0]), &zeros(&[0])), &["above 0"]);
}

#[test]
fn rope_refuses_wrong_shapes_and_places() {
    let tape = &Tape::new();
    let (x, factors) = (&zeros(&[3, 12]), &[2, 8]);
    let rope = |columns, factors: &[usize; 2], places: &[u32]| {
        ops::rope(tape, x, columns, &zeros(factors), &places.into())
    };
    refused(rope(0..8, &[2, 6], &[0, 1, 1]), &["rope", "is 6", "a multiple of 4"]);
    refused(rope(0..6, factors, &[0, 1, 1]), &["is 6", "a multiple of 4"]);
    refused(rope(8..16, factors, &[0, 1, 1]), &["rope", "columns"]);
    refused(rope(0..8, factors, &[0, 1]), &["places is 2, expected 3"]);
    refused(rope(0..8, factors, &[0, 2, 1]), &["index 2", "entry 1", "2 rows of the factors"]);
    refused(rope(0..8, &[2, 0], &[0, 1, 1]), &["above 0"]);
}

#[test]
fn attention_refuses_wrong_shapes() {
    let tape = &Tape::new();
    let (two, three) = (&Segments::new([2, 3]), &Segments::new([2, 1]));
    let qkv = &zeros(&[5, 12]);
    refused(ops::attention(tape, qkv, three, 2), &["attention", "query", "is 3, expected 5"]);
    refused(ops::attention(tape, &zeros(&[5, 13]), two, 2), &["qkv is 13", "multiple of 3"]);
    refused(ops::attention(tape, qkv, two, 3), &["is 4", "multiple of 3"]);
    refused(ops::attention(tape, qkv, two, 0), &["above 0"]);
    let (q, kv) = (&zeros(&[5, 4]), &zeros(&[3, 8]));
    let cross = |q, q_segments, kv, kv_segments, heads| {
        ops::cross_attention(tape, q, q_segments, kv, kv_segments, heads)
    };
    let narrow = &zeros(&[3, 4]);
    refused(cross(q, two, narrow, three, 2), &["width of kv is 4, expected 8"]);
    refused(cross(q, three, kv, three, 2), &["query segments is 3, expected 5"]);
    refused(cross(q, two, kv, two, 2), &["key segments is 5, expected 3"]);
    let one = &Segments::new([3]);
    refused(cross(q, two, kv, one, 2), &["samples of the key segments is 1, expected 2"]);
}

#[test]
fn token_operations_refuse_wrong_indices_and_shapes() {
    let tape = &Tape::new();
    let (x, token, table) = (&zeros(&[5, 4]), &zeros(&[1, 4]), &zeros(&[3, 4]));
    refused(ops::gather(tape, x, &[0, 5]), &["gather", "index 5 at entry 1", "5 rows of x"]);
    let assemble =
        |tokens: &[&Tensor], rows: &[Row], position| ops::assemble(tape, x, tokens, rows, position);
    refused(assemble(&[token], &[Row::X(5)], None), &["index 5 at entry 0", "5 rows of x"]);
    refused(
        assemble(&[token], &[Row::X(0), Row::Token(1)], None),
        &["index 1 at entry 1", "token"],
    );
    refused(assemble(&[&zeros(&[1, 3])], &[Row::X(0)], None), &["[1, 3]", "[1, 4]"]);
    let rows = [Row::X(0), Row::X(1)];
    refused(assemble(&[], &rows, Some((table, &[0]))), &["positions is 1, expected 2"]);
    refused(assemble(&[], &rows, Some((table, &[-1, 3]))), &["index 3 at entry 1", "position"]);
    refused(assemble(&[], &rows, Some((&zeros(&[3, 5]), &[0, 0]))), &["[3, 5]", "[3, 4]"]);
    refused(x.narrow(3..6), &["narrow", "3..6", "[5, 4]"]);
    refused(x.reshape(&[3, 7]), &["reshape", "is 21, expected 20"]);
}

#[test]
fn sums_and_pools_refuse_wrong_shapes() {
    let tape = &Tape::new();
    let (x, segments) = (&zeros(&[5, 4]), &Segments::new([2, 3]));
    refused(ops::add(tape, x, &zeros(&[5, 3])), &["is [5, 3], expected [5, 4]"]);
    let scale = &zeros(&[5]);
    refused(ops::residual(tape, x, x, Some(scale), None), &["layer scale is [5]", "[4]"]);
    let keep = |segments, keep| ops::residual(tape, x, x, None, Some((segments, keep)));
    refused(keep(segments, &[1.0]), &["residual", "factors is 1, expected 2"]);
    refused(keep(&Segments::new([2, 4]), &[1.0, 1.0]), &["segments is 6, expected 5"]);
    let short = &Segments::new([2, 4]);
    refused(ops::mean_pool(tape, x, short, 0), &["mean_pool", "is 6, expected 5"]);
    refused(ops::mean_pool(tape, x, segments, 2), &["a sample is 2 rows", "more than the 2"]);
}

#[test]
fn losses_refuse_wrong_shapes_and_labels() {
    let tape = &Tape::new();
    let x = &zeros(&[5, 4]);
    let loss = |target: &Tensor, weights| ops::loss(tape, x, target, LossKind::L1, weights);
    refused(loss(&zeros(&[4, 5]), None), &["loss", "target is [4, 5], expected [5, 4]"]);
    refused(loss(x, Some(&[1.0])), &["weights is 1, expected 5"]);
    let labels = |labels: &[u32]| ops::cross_entropy(tape, x, labels);
    refused(labels(&[0; 4]), &["cross_entropy", "labels is 4, expected 5"]);
    refused(labels(&[0, 1, 4, 0, 0]), &["index 4 at entry 2", "4 rows of the classes"]);
    refused(tape.backward(x), &["backward", "is 20, expected 1"]);
}

#[test]
fn patches_refuse_wrong_shapes() {
    let tape = &Tape::new();
    let shape = [2, 1, 1, 4, 6];
    let images = Images::f32(vec![0.0; 48], shape).unwrap();
    let patchify = |patch, patches: &[u32]| {
        ops::patchify(tape, &images, patch, PatchOrder::ChannelsLast, patches)
    };
    refused(patchify([1, 2, 4], &[0]), &["patchify", "is 6", "multiple of 4"]);
    refused(patchify([1, 0, 2], &[0]), &["above 0"]);
    refused(patchify([1, 2, 2], &[0, 12]), &["index 12 at entry 1", "12 rows of the batch"]);
    refused(Images::f32(vec![0.0; 47], shape), &["images", "is 47, expected 48"]);
    let u8 = |mean, std| Images::u8(vec![0; 48], shape, mean, std);
    refused(u8(vec![0.5; 3], vec![0.5]), &["means is 3, expected 1"]);
    refused(u8(vec![0.5], vec![0.5; 3]), &["deviations is 3, expected 1"]);
    let normalize =
        |channels| ops::normalize_patches(tape, &zeros(&[2, 8]), PatchNorm::joint(channels));
    refused(normalize(3), &["normalize_patches", "is 8", "multiple of 3"]);
    refused(normalize(0), &["above 0"]);
}

#[test]
fn set_value_refuses_another_count_and_keeps_handles_apart() {
    let p = Parameter::new("p", Tensor::zeros(&[2, 2]));
    refused(p.set_value(&[1.0; 3]), &["set_value", "is 3, expected 4"]);
    let before = p.value();
    p.set_value(&[1.0; 4]).unwrap();
    assert_eq!(before.to_vec(), [0.0; 4], "a value handed out does not change");
    assert_eq!(p.value().to_vec(), [1.0; 4]);
}

/// A block or a node that has begun is computed to its end, and no gradient is applied.
#[test]
fn a_stopping_tape_ends_before_its_next_block_and_in_the_backward_pass() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let w = Parameter::new("w", normal("w", &[4, 4]));
    let ends_at = |allowed: usize| {
        let left = Arc::new(AtomicUsize::new(allowed));
        let tape = Tape::new().stopping(move || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_err()
        });
        let block = || {
            let w = w.share();
            move |tape: &Tape, x: &Tensor| ops::linear(tape, x, &w.tensor(), None)
        };
        let x = normal("x", &[3, 4]);
        let x = tape.checkpoint(&x, block())?;
        let x = tape.checkpoint(&x, block())?;
        let loss = ops::loss(&tape, &x, &normal("t", &[3, 4]), LossKind::Mse, None)?;
        tape.backward(&loss)
    };
    for allowed in 0..5 {
        assert!(matches!(ends_at(allowed), Err(Error::Stopped)), "after {allowed}");
    }
    assert!(ends_at(5).is_ok(), "two blocks, and three nodes of the backward pass");
}
