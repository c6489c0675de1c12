//! Every operation, in every variant: its gradients are those of its forward pass. Tests begin with
//! the operation's name.
//!
//! Sizes are odd and small, so that every kernel meets its tail, and large once where a kernel
//! works in blocks.

use engine::check::{assert_close, assert_gradients, normal, rel_l2};
use engine::device::Device;
use engine::ops::{self, LossKind, Row};
use engine::{Dtype, Index, Parameter, Result, Segments, Tape, Tensor, on_every_device};

type On = &'static dyn Device;

/// Rows, input width, output width: one element; below any tile; above a tile, with tails.
const LINEAR_SIZES: [[usize; 3]; 4] = [[1, 1, 1], [3, 5, 7], [37, 19, 23], [150, 70, 130]];

fn linear_inputs([rows, input, output]: [usize; 3]) -> Vec<(&'static str, Tensor)> {
    vec![
        ("x", normal("x", &[rows, input])),
        ("w", weight("w", [output, input])),
        ("b", normal("b", &[output])),
        ("residual", normal("residual", &[rows, output])),
    ]
}

/// A weight [O, I] of size 1/√I, as trained ones are: with larger ones GELU's argument would move
/// so far in a step that finite differences miss its bend.
fn weight(name: &str, [output, input]: [usize; 2]) -> Tensor {
    let noise = normal(name, &[output, input]);
    let values: Vec<f32> = noise.to_host().iter().map(|w| w / (input as f32).sqrt()).collect();
    Tensor::from_vec(values, &[output, input])
}

fn linear(device: On) {
    for size in LINEAR_SIZES {
        let inputs = &linear_inputs(size)[..3];
        assert_gradients(device, "linear", inputs, |tape, t| {
            ops::linear(tape, &t[0], &t[1], Some(&t[2]))
        });
    }
}

fn linear_without_bias(device: On) {
    for size in LINEAR_SIZES {
        let inputs = &linear_inputs(size)[..2];
        assert_gradients(device, "linear", inputs, |tape, t| ops::linear(tape, &t[0], &t[1], None));
    }
}

/// Rounding has no slope, so the gradient is compared with what it should be: that of the rounded
/// values, rounded.
fn cast(device: On) {
    let x = Parameter::new("x", normal("x", &[3, 5]).to(device));
    let tape = Tape::new();
    let y = ops::cast(&tape, &x.tensor(), Dtype::Bf16);
    assert_eq!((y.dtype(), tape.recorded()), (Dtype::Bf16, 1));
    assert_eq!(ops::cast(&tape, &y, Dtype::Bf16).to_vec(), y.to_vec());
    assert_eq!(tape.recorded(), 1, "no cast to the type that is there");
    let target = normal("target", &[3, 5]).to(device);
    let wide = ops::cast(&tape, &y, Dtype::F32);
    let loss = ops::loss(&tape, &wide, &target, LossKind::Mse, None).unwrap();
    tape.backward(&loss).unwrap();
    let slopes = y.to_vec().into_iter().zip(target.to_vec()).map(|(y, t)| 2.0 * (y - t) / 15.0);
    let want = Tensor::from_vec(slopes.collect::<Vec<_>>(), &[3, 5]).cast(Dtype::Bf16);
    let got = x.grad().unwrap();
    assert_eq!(got.dtype(), Dtype::F32);
    let why = "one rounding to f32 may move a value over the half of a bf16";
    assert_close("cast", &got.to_vec(), &want.to_vec(), rel_l2(1e-3), why);
}

fn mlp(device: On) {
    for [rows, input, hidden] in LINEAR_SIZES {
        let inputs = [
            ("x", normal("x", &[rows, input])),
            ("w1", weight("w1", [hidden, input])),
            ("b1", normal("b1", &[hidden])),
            ("w2", weight("w2", [6, hidden])),
            ("b2", normal("b2", &[6])),
            ("residual", normal("residual", &[rows, 6])),
        ];
        assert_gradients(device, "mlp", &inputs, |tape, t| {
            ops::mlp(tape, &t[0], (&t[1], Some(&t[2])), (&t[3], Some(&t[4])), Some(&t[5]))
        });
    }
}

fn mlp_without_biases_or_residual(device: On) {
    for [rows, input, hidden] in LINEAR_SIZES {
        let inputs = [
            ("x", normal("x", &[rows, input])),
            ("w1", weight("w1", [hidden, input])),
            ("w2", weight("w2", [3, hidden])),
        ];
        assert_gradients(device, "mlp", &inputs, |tape, t| {
            ops::mlp(tape, &t[0], (&t[1], None), (&t[2], None), None)
        });
    }
}

fn mlp_onto_its_own_input_with_one_weight_for_both_layers(device: On) {
    let inputs = [("x", normal("x", &[9, 21])), ("w", weight("w", [21, 21]))];
    assert_gradients(device, "mlp", &inputs, |tape, t| {
        ops::mlp(tape, &t[0], (&t[1], None), (&t[1], None), Some(&t[0]))
    });
}

fn swiglu(device: On) {
    for (rows, width) in [(1, 1), (3, 5), (70, 33)] {
        let inputs = [("x", normal("x", &[rows, 2 * width]))];
        assert_gradients(device, "swiglu", &inputs, |tape, t| ops::swiglu(tape, &t[0]));
    }
}

fn linear_residual(device: On) {
    for size in LINEAR_SIZES {
        assert_gradients(device, "linear_residual", &linear_inputs(size), |tape, t| {
            ops::linear_residual(tape, &t[0], &t[1], Some(&t[2]), &t[3])
        });
    }
}

fn linear_residual_without_bias(device: On) {
    for size in LINEAR_SIZES {
        let mut inputs = linear_inputs(size);
        inputs.remove(2);
        assert_gradients(device, "linear_residual", &inputs, |tape, t| {
            ops::linear_residual(tape, &t[0], &t[1], None, &t[2])
        });
    }
}

fn linear_residual_onto_its_own_input(device: On) {
    let inputs = [("x", normal("x", &[9, 21])), ("w", normal("w", &[21, 21]))];
    assert_gradients(device, "linear_residual", &inputs, |tape, t| {
        ops::linear_residual(tape, &t[0], &t[1], None, &t[0])
    });
}

const NORM_SIZES: [[usize; 2]; 4] = [[1, 2], [5, 7], [33, 19], [140, 50]];

fn layer_norm(device: On) {
    for [rows, width] in NORM_SIZES {
        let inputs = [
            ("x", normal("x", &[rows, width])),
            ("gamma", normal("gamma", &[width])),
            ("beta", normal("beta", &[width])),
        ];
        // ε at the size of the variance: it must be in both passes.
        for eps in [1e-6, 0.5] {
            assert_gradients(device, "layer_norm", &inputs, |tape, t| {
                ops::layer_norm(tape, &t[0], Some((&t[1], &t[2])), eps)
            });
        }
    }
}

fn layer_norm_without_affine(device: On) {
    for [rows, width] in NORM_SIZES {
        let inputs = [("x", normal("x", &[rows, width]))];
        for eps in [1e-6, 0.5] {
            assert_gradients(device, "layer_norm", &inputs, |tape, t| {
                ops::layer_norm(tape, &t[0], None, eps)
            });
        }
    }
}

fn head_norm_of_queries_and_keys(device: On) {
    // Row width, columns, E: all columns; q and k of [q, k, v]; k of [k, v]; a middle part.
    for (stride, columns, head_dim) in
        [(10, 0..10, 5), (63, 0..42, 7), (64, 0..32, 16), (30, 9..21, 3)]
    {
        let inputs = [
            ("x", normal("x", &[13, stride])),
            ("gamma", normal("gamma", &[head_dim])),
            ("beta", normal("beta", &[head_dim])),
        ];
        assert_gradients(device, "head_norm", &inputs, |tape, t| {
            ops::head_norm(tape, &t[0], columns.clone(), head_dim, &t[1], &t[2], 1e-2)
        });
    }
}

fn rope_of_queries_and_keys(device: On) {
    // Row width, columns, E, as above. The factors are no rotation.
    for (stride, columns, head_dim) in
        [(8, 0..8, 4), (63, 0..42, 6), (64, 0..32, 16), (30, 9..21, 2)]
    {
        let factors = normal("factors", &[5, 2 * head_dim]).to(device);
        let places = Index::from(&[0, 3, 1, 1, 4, 2, 0]);
        let inputs = [("x", normal("x", &[7, stride]))];
        assert_gradients(device, "rope", &inputs, |tape, t| {
            ops::rope(tape, &t[0], columns.clone(), &factors, &places)
        });
        // A second use of x: its gradient is added to.
        assert_gradients(device, "rope", &inputs, |tape, t| {
            let y = ops::rope(tape, &t[0], columns.clone(), &factors, &places)?;
            ops::add(tape, &t[0], &y)
        });
    }
}

/// Ragged, with empty samples within and at the end, one row alone, and one longer than a block of
/// queries or keys.
fn ragged() -> [Segments; 3] {
    [Segments::new([3, 0, 5, 1, 0]), Segments::uniform(2, 4), Segments::new([2, 150, 0, 33])]
}

/// Heads and E: odd, below a register, a whole register, the widths of ViT.
const HEADS: [[usize; 2]; 5] = [[1, 1], [2, 5], [3, 8], [2, 24], [1, 64]];

fn attention(device: On) {
    for segments in ragged() {
        for [heads, head_dim] in HEADS {
            let inputs = [("qkv", normal("qkv", &[segments.rows(), 3 * heads * head_dim]))];
            assert_gradients(device, "attention", &inputs, |tape, t| {
                ops::attention(tape, &t[0], &segments, heads)
            });
        }
    }
}

fn attention_with_sharp_scores(device: On) {
    // Scores of about ±30: one key takes nearly all. The step is relative to the small shift.
    let segments = Segments::new([6, 9]);
    let values: Vec<f32> = normal("qkv", &[15, 24]).to_host().iter().map(|x| 4.0 * x).collect();
    let qkv = Tensor::from_vec(values, &[15, 24]).to(device);
    assert_gradients(device, "attention", &[("shift", normal("shift", &[15, 24]))], |tape, t| {
        ops::attention(tape, &ops::add(tape, &qkv, &t[0])?, &segments, 2)
    });
}

fn cross_attention(device: On) {
    // Queries without keys get zeros, keys without queries no gradient.
    let keys = [[4, 2, 1, 6, 3].as_slice(), &[7, 0], &[5, 140, 3, 0]];
    let keys = keys.map(|lengths| Segments::new(lengths.iter().copied()));
    for (q_segments, kv_segments) in ragged().iter().zip(&keys) {
        for [heads, head_dim] in HEADS {
            let width = heads * head_dim;
            let inputs = [
                ("q", normal("q", &[q_segments.rows(), width])),
                ("kv", normal("kv", &[kv_segments.rows(), 2 * width])),
            ];
            assert_gradients(device, "cross_attention", &inputs, |tape, t| {
                ops::cross_attention(tape, &t[0], q_segments, &t[1], kv_segments, heads)
            });
        }
    }
}

fn gather_with_repeats(device: On) {
    let index = [4, 0, 4, 4, 2, 0, 6];
    for width in [1, 5, 40] {
        let inputs = [("x", normal("x", &[7, width]))];
        assert_gradients(device, "gather", &inputs, |tape, t| ops::gather(tape, &t[0], &index));
    }
}

fn gather_of_many_rows(device: On) {
    // Longer than any split of the work: each row three times, far apart.
    let index: Vec<u32> = (0..900).map(|k| (k * 7) % 300).collect();
    let inputs = [("x", normal("x", &[300, 6]))];
    assert_gradients(device, "gather", &inputs, |tape, t| ops::gather(tape, &t[0], &index));
}

/// Class token, mask tokens and kept rows, as encoder and predictor build their sequences.
fn rows() -> Vec<Row> {
    use Row::{Token, X};
    vec![Token(0), X(2), X(0), Token(2), Token(2), Token(0), X(2), X(4), Token(1), Token(2)]
}

fn assemble(device: On) {
    for width in [1, 9, 32] {
        let inputs = [
            ("x", normal("x", &[5, width])),
            ("class and register tokens", normal("tokens", &[2, width])),
            ("mask token", normal("mask", &[1, width])),
        ];
        assert_gradients(device, "assemble", &inputs, |tape, t| {
            ops::assemble(tape, &t[0], &[&t[1], &t[2]], rows(), None)
        });
    }
}

fn assemble_with_positions(device: On) {
    let positions = [-1, 3, 0, 3, 1, -1, 5, 3, 2, 0];
    for width in [1, 9, 32] {
        let inputs = [
            ("x", normal("x", &[5, width])),
            ("class and register tokens", normal("tokens", &[2, width])),
            ("mask token", normal("mask", &[1, width])),
            ("positions", normal("positions", &[6, width])),
        ];
        assert_gradients(device, "assemble", &inputs, |tape, t| {
            ops::assemble(tape, &t[0], &[&t[1], &t[2]], rows(), Some((&t[3], &positions)))
        });
    }
}

fn assemble_without_tokens_adds_positions(device: On) {
    let rows: Vec<Row> = (0..6).map(Row::X).collect();
    let inputs = [("x", normal("x", &[6, 5])), ("positions", normal("positions", &[3, 5]))];
    assert_gradients(device, "assemble", &inputs, |tape, t| {
        ops::assemble(tape, &t[0], &[], &rows, Some((&t[1], &[0, 1, 2, 0, 1, 2])))
    });
}

fn add(device: On) {
    let inputs = [("a", normal("a", &[7, 13])), ("b", normal("b", &[7, 13]))];
    assert_gradients(device, "add", &inputs, |tape, t| ops::add(tape, &t[0], &t[1]));
}

fn add_of_a_tensor_to_itself_doubles_its_gradient(device: On) {
    let inputs = [("a", normal("a", &[7, 13]))];
    assert_gradients(device, "add", &inputs, |tape, t| ops::add(tape, &t[0], &t[0]));
}

fn residual(device: On) {
    check_residual(device, false, None);
}

fn residual_with_layer_scale(device: On) {
    check_residual(device, true, None);
}

fn residual_with_drop_path(device: On) {
    check_residual(device, false, Some(&[1.25, 9.0, 0.0, 1.25]));
}

fn residual_with_layer_scale_and_drop_path(device: On) {
    check_residual(device, true, Some(&[1.25, 9.0, 0.0, 1.25]));
}

fn check_residual(device: On, scaled: bool, keep: Option<&[f32]>) {
    let segments = Segments::new([3, 0, 4, 90]);
    for width in [1, 6, 35] {
        let mut inputs = vec![
            ("skip", normal("skip", &[segments.rows(), width])),
            ("branch", normal("branch", &[segments.rows(), width])),
        ];
        if scaled {
            inputs.push(("layer scale", normal("scale", &[width])));
        }
        let keep = keep.map(|keep| (&segments, keep));
        assert_gradients(device, "residual", &inputs, |tape, t| {
            ops::residual(tape, &t[0], &t[1], t.get(2), keep)
        });
    }
}

fn mean_pool_with_and_without_prefix(device: On) {
    let segments = Segments::new([3, 7, 2, 80]);
    for (width, skip) in [(1, 0), (6, 0), (6, 1), (33, 1)] {
        let inputs = [("x", normal("x", &[segments.rows(), width]))];
        assert_gradients(device, "mean_pool", &inputs, |tape, t| {
            ops::mean_pool(tape, &t[0], &segments, skip)
        });
    }
}

const KINDS: [LossKind; 4] = [
    LossKind::L1,
    LossKind::SmoothL1 { beta: 1.0 },
    LossKind::SmoothL1 { beta: 0.3 },
    LossKind::Mse,
];

/// A prediction [R, D] and a target whose differences keep 0.1 from 0 and ±β, where l bends; a step
/// of the finite differences is below 0.05.
fn away_from_kinks(rows: usize, width: usize) -> (Tensor, Tensor) {
    let prediction = normal("prediction", &[rows, width]);
    let noise = normal("difference", &[rows, width]);
    let pairs = prediction.to_vec().into_iter().zip(noise.to_vec());
    let target = pairs.map(|(p, n)| {
        // |δ| in 0.1..0.2, 0.4..0.9 or above 1.1, by the size of the noise.
        let size = match n.abs() {
            a if a < 0.4 => 0.1 + a / 4.0,
            a if a < 1.1 => 0.4 + (a - 0.4) / 1.4,
            a => a,
        };
        p - size.copysign(n)
    });
    let target = Tensor::from_vec(target.collect::<Vec<_>>(), &[rows, width]);
    (prediction, target)
}

fn loss_of_each_kind(device: On) {
    check_loss(device, None);
}

fn loss_of_each_kind_with_weights(device: On) {
    let weights: Vec<f32> = (0..45).map(|r| [0.0, 0.4, 1.0, 0.03][r % 4]).collect();
    check_loss(device, Some(&weights));
}

fn check_loss(device: On, weights: Option<&[f32]>) {
    for kind in KINDS {
        for width in [1, 5, 48] {
            let (prediction, target) = away_from_kinks(45, width);
            let target = target.to(device);
            assert_gradients(device, "loss", &[("prediction", prediction)], |tape, t| {
                ops::loss(tape, &t[0], &target, kind, weights)
            });
        }
    }
}

fn cross_entropy(device: On) {
    for [samples, classes] in [[1, 2], [5, 3], [40, 37]] {
        let labels: Vec<u32> = (0..samples as u32).map(|b| (b * b + 1) % classes as u32).collect();
        let inputs = [("logits", normal("logits", &[samples, classes]))];
        assert_gradients(device, "cross_entropy", &inputs, |tape, t| {
            ops::cross_entropy(tape, &t[0], &labels)
        });
    }
}

fn narrow_of_a_parameter_and_of_an_intermediate(device: On) {
    let inputs = [("x", normal("x", &[9, 4])), ("w", normal("w", &[6, 4]))];
    assert_gradients(device, "narrow", &inputs, |tape, t| {
        // Rows 1..5 of the weight, then rows 2..6 of the result, of which rows 1..3 once more.
        let y = ops::linear(tape, &t[0], &t[1].narrow(1..5)?, None)?;
        let part = y.narrow(2..6)?;
        ops::add(tape, &part.narrow(1..3)?, &part.narrow(0..2)?)
    });
}

fn narrow_and_the_whole_sum_their_gradients(device: On) {
    let inputs = [("x", normal("x", &[6, 4]))];
    // The whole first, the part first: the gradients arrive in the other order.
    for part_first in [false, true] {
        assert_gradients(device, "narrow", &inputs, |tape, t| {
            let y = ops::layer_norm(tape, &t[0], None, 1e-2)?;
            let part = |y: &Tensor| ops::gather(tape, &y.narrow(2..5)?, &[0, 2, 1, 0, 2, 2]);
            let whole = |y: &Tensor| ops::layer_norm(tape, y, None, 0.3);
            let (a, b) = if part_first {
                let a = part(&y)?;
                (a, whole(&y)?)
            } else {
                let b = whole(&y)?;
                (part(&y)?, b)
            };
            ops::add(tape, &a, &b)
        });
    }
}

fn reshape_passes_the_gradient_on(device: On) {
    let inputs = [("x", normal("x", &[6, 4])), ("w", normal("w", &[3, 8]))];
    assert_gradients(device, "reshape", &inputs, |tape, t| {
        let y = ops::layer_norm(tape, &t[0], None, 1e-2)?.reshape(&[3, 8])?;
        // Used in both shapes.
        let z = ops::linear(tape, &y, &t[1].reshape(&[12, 2])?.reshape(&[3, 8])?, None)?;
        let sum = ops::residual(tape, &y, &y, None, None)?;
        ops::linear(tape, &z, &sum.reshape(&[8, 3])?, None)
    });
}

fn reused_tensors_sum_their_gradients(device: On) {
    let inputs = [("x", normal("x", &[6, 12])), ("w", normal("w", &[12, 12]))];
    assert_gradients(device, "a small network", &inputs, |tape, t| {
        // x five times, w four times, y twice.
        let y = ops::mlp(tape, &t[0], (&t[1], None), (&t[1], None), None)?;
        let z = ops::linear_residual(tape, &y, &t[1], None, &t[0])?;
        let z = ops::residual(tape, &z, &y, None, None)?;
        let z = ops::add(tape, &z, &ops::gather(tape, &t[0], &[5, 4, 3, 2, 1, 0])?)?;
        let z = ops::linear(tape, &z, &t[1], None)?;
        ops::add(tape, &ops::add(tape, &z, &t[0])?, &t[0])
    });
}

/// One pre-norm block with everything a method uses, on ragged samples.
fn block(tape: &Tape, t: &[Tensor], segments: &Segments) -> Result<Tensor> {
    let [x, gamma, qkv, head, proj, fc1, fc2, scale] = t else { panic!("eight inputs") };
    let (heads, head_dim) = (2, 6);
    let beta = normal("beta", &[12]).to(x.device());
    let head_beta = normal("head beta", &[head_dim]).to(x.device());
    let y = ops::layer_norm(tape, x, Some((gamma, &beta)), 1e-3)?; // [R, D]
    let y = ops::linear(tape, &y, qkv, None)?; // [R, 3D]
    let y = ops::head_norm(tape, &y, 0..24, head_dim, head, &head_beta, 1e-3)?;
    let y = ops::attention(tape, &y, segments, heads)?; // [R, D]
    let x = ops::linear_residual(tape, &y, proj, None, x)?;
    let y = ops::layer_norm(tape, &x, None, 1e-3)?;
    let y = ops::mlp(tape, &y, (fc1, None), (fc2, None), None)?; // [R, D]
    let x = ops::residual(tape, &x, &y, Some(scale), Some((segments, &[1.25, 0.0, 1.25])))?;
    ops::mean_pool(tape, &x, segments, 1) // [B, D]
}

fn block_of_a_transformer(device: On) {
    let segments = Segments::new([5, 2, 8]);
    let inputs = [
        ("x", normal("x", &[15, 12])),
        ("gamma", normal("gamma", &[12])),
        ("qkv", weight("qkv", [36, 12])),
        ("head gamma", normal("head", &[6])),
        ("proj", weight("proj", [12, 12])),
        ("fc1", weight("fc1", [30, 12])),
        ("fc2", weight("fc2", [12, 30])),
        ("layer scale", normal("scale", &[12])),
    ];
    assert_gradients(device, "block", &inputs, |tape, t| block(tape, t, &segments));
}

on_every_device!(
    linear,
    linear_without_bias,
    cast,
    mlp,
    mlp_without_biases_or_residual,
    mlp_onto_its_own_input_with_one_weight_for_both_layers,
    swiglu,
    linear_residual,
    linear_residual_without_bias,
    linear_residual_onto_its_own_input,
    layer_norm,
    layer_norm_without_affine,
    head_norm_of_queries_and_keys,
    rope_of_queries_and_keys,
    attention,
    attention_with_sharp_scores,
    cross_attention,
    gather_with_repeats,
    gather_of_many_rows,
    assemble,
    assemble_with_positions,
    assemble_without_tokens_adds_positions,
    add,
    add_of_a_tensor_to_itself_doubles_its_gradient,
    residual,
    residual_with_layer_scale,
    residual_with_drop_path,
    residual_with_layer_scale_and_drop_path,
    mean_pool_with_and_without_prefix,
    loss_of_each_kind,
    loss_of_each_kind_with_weights,
    cross_entropy,
    narrow_of_a_parameter_and_of_an_intermediate,
    narrow_and_the_whole_sum_their_gradients,
    reshape_passes_the_gradient_on,
    reused_tensors_sum_their_gradients,
    block_of_a_transformer,
);
