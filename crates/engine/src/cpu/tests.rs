//! Every operation in bf16 against the naive device, on every instruction set and thread count.

use super::Cpu;
use super::dispatch::{Level, cap};
use crate::check::{assert_close, normal, rel_l2};
use crate::device::Device;
use crate::naive::Naive;
use crate::ops::{self, Images, LossKind, PatchOrder, Row};
use crate::{Dtype, Parameter, Result, Segments, Tape, Tensor};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Both devices round at the same places and sum with other roundings, so that few values fall on
/// the other side of a bf16 number's half. One rounding left out or made twice is 1e-3.
const BOUND: f64 = 4e-4;

/// A sum of a gradient with one that is there is rounded twice on the CPU.
const BOUND_OF_SUMS: f64 = 4e-3;

/// An operation: shapes of its activations, which are bf16, and of its parameters.
struct Case {
    name: &'static str,
    activations: &'static [[usize; 2]],
    parameters: &'static [&'static [usize]],
    op: fn(&Tape, &[Tensor], &[Tensor]) -> Result<Tensor>,
    bound: f64,
}

/// Rows and columns beside those of tiles, panels, tasks and blocks of k.
const CASES: &[Case] = &[
    Case {
        name: "linear",
        activations: &[[101, 530]],
        parameters: &[&[37, 530], &[37]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], Some(&p[1])),
        bound: BOUND,
    },
    Case {
        name: "linear without rows of a whole tile",
        activations: &[[1, 3]],
        parameters: &[&[2, 3]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], None),
        bound: BOUND,
    },
    Case {
        name: "linear with an odd end of its second block, and of its gradient's third",
        activations: &[[1031, 515]],
        parameters: &[&[9, 515], &[9]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], Some(&p[1])),
        bound: BOUND,
    },
    Case {
        name: "linear whose rows share a set of L1",
        activations: &[[14, 2048]],
        parameters: &[&[5, 2048]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], None),
        bound: BOUND,
    },
    Case {
        name: "linear of rows that start between two pairs",
        activations: &[[9, 7]],
        parameters: &[&[6, 14]],
        op: |tape, x, p| ops::linear(tape, &x[0].narrow(1..9)?.reshape(&[4, 14])?, &p[0], None),
        bound: BOUND,
    },
    Case {
        name: "linear without rows",
        activations: &[[0, 8]],
        parameters: &[&[6, 8], &[6]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], Some(&p[1])),
        bound: BOUND,
    },
    Case {
        name: "linear of no columns",
        activations: &[[5, 0]],
        parameters: &[&[3, 0], &[3]],
        op: |tape, x, p| ops::linear(tape, &x[0], &p[0], Some(&p[1])),
        bound: BOUND,
    },
    Case {
        name: "attention of heads of 64",
        activations: &[[50, 3 * 64]],
        parameters: &[],
        op: |tape, x, _| ops::attention(tape, &x[0], &Segments::new([50]), 1),
        bound: BOUND,
    },
    Case {
        name: "linear_residual, whose residual is its input",
        activations: &[[98, 40]],
        parameters: &[&[40, 40], &[40]],
        op: |tape, x, p| ops::linear_residual(tape, &x[0], &p[0], Some(&p[1]), &x[0]),
        bound: BOUND,
    },
    Case {
        name: "two layers of one input",
        activations: &[[25, 600]],
        parameters: &[&[600, 600], &[600, 600]],
        op: |tape, x, p| {
            let y = ops::linear(tape, &x[0], &p[0], None)?;
            ops::add(tape, &y, &ops::linear(tape, &x[0], &p[1], None)?)
        },
        bound: BOUND,
    },
    Case {
        name: "mlp",
        activations: &[[99, 24], [99, 24]],
        parameters: &[&[530, 24], &[530], &[24, 530], &[24]],
        op: |tape, x, p| {
            ops::mlp(tape, &x[0], (&p[0], Some(&p[1])), (&p[2], Some(&p[3])), Some(&x[1]))
        },
        bound: BOUND,
    },
    Case {
        name: "attention",
        activations: &[[61, 3 * 48]],
        parameters: &[],
        op: |tape, x, _| ops::attention(tape, &x[0], &Segments::new([40, 0, 17, 4]), 2),
        bound: BOUND,
    },
    Case {
        name: "attention of one input twice",
        activations: &[[61, 3 * 48]],
        parameters: &[],
        op: |tape, x, _| {
            let y = ops::attention(tape, &x[0], &Segments::new([40, 21]), 2)?;
            ops::add(tape, &y, &ops::attention(tape, &x[0], &Segments::new([61]), 3)?)
        },
        bound: BOUND_OF_SUMS,
    },
    Case {
        name: "cross_attention, several blocks of queries and of keys",
        activations: &[[215, 10], [830, 20]],
        parameters: &[],
        op: |tape, x, _| {
            // Odd numbers in the last blocks, whose last pairs are half empty.
            let (q, k) = (Segments::new([211, 4]), Segments::new([301, 529]));
            ops::cross_attention(tape, &x[0], &q, &x[1], &k, 2)
        },
        bound: BOUND,
    },
    Case {
        name: "attention of odd heads, and of one query with one key",
        activations: &[[8, 45]],
        parameters: &[],
        op: |tape, x, _| ops::attention(tape, &x[0], &Segments::new([1, 2, 5]), 3),
        bound: BOUND,
    },
    Case {
        name: "attention of rows that start between two pairs",
        activations: &[[49, 9]],
        parameters: &[],
        op: |tape, x, _| {
            let rows = x[0].narrow(1..49)?.reshape(&[9, 48])?;
            ops::attention(tape, &rows, &Segments::new([5, 4]), 1)
        },
        bound: BOUND,
    },
    Case {
        name: "attention of a head wider than a block of pairs",
        activations: &[[3, 3 * 515]],
        parameters: &[],
        op: |tape, x, _| ops::attention(tape, &x[0], &Segments::new([3]), 1),
        bound: BOUND,
    },
    Case {
        name: "attention whose last tile is one row",
        activations: &[[26, 3 * 16]],
        parameters: &[],
        op: |tape, x, _| ops::attention(tape, &x[0], &Segments::new([13, 13]), 2),
        bound: BOUND,
    },
    Case {
        name: "cross_attention of samples without queries or without keys",
        activations: &[[33, 48], [48, 96]],
        parameters: &[],
        op: |tape, x, _| {
            let (q, k) = (Segments::new([20, 0, 9, 4]), Segments::new([31, 5, 0, 12]));
            ops::cross_attention(tape, &x[0], &q, &x[1], &k, 2)
        },
        bound: BOUND,
    },
    Case {
        name: "layer_norm",
        activations: &[[130, 97]],
        parameters: &[&[97], &[97]],
        op: |tape, x, p| ops::layer_norm(tape, &x[0], Some((&p[0], &p[1])), 1e-6),
        bound: BOUND,
    },
    Case {
        name: "layer_norm without parameters, added to its input",
        activations: &[[130, 97]],
        parameters: &[],
        op: |tape, x, _| {
            let y = ops::layer_norm(tape, &x[0], None, 1e-6)?;
            ops::add(tape, &x[0], &y)
        },
        bound: BOUND,
    },
    Case {
        name: "head_norm",
        activations: &[[70, 36]],
        parameters: &[&[12], &[12]],
        op: |tape, x, p| ops::head_norm(tape, &x[0], 0..24, 12, &p[0], &p[1], 1e-6),
        bound: BOUND,
    },
    Case {
        name: "rope of queries and keys",
        activations: &[[70, 36]],
        parameters: &[],
        op: |tape, x, _| {
            let factors = normal("factors", &[9, 24]).to(x[0].device());
            let places: Vec<u32> = (0..70).map(|r| r % 9).collect();
            ops::rope(tape, &x[0], 0..24, &factors, &places.into())
        },
        bound: BOUND,
    },
    Case {
        name: "residual with layer scale and stochastic depth",
        activations: &[[150, 33], [150, 33]],
        parameters: &[&[33]],
        op: |tape, x, p| {
            let keep = Some((&Segments::new([100, 50]), &[1.25, 0.0][..]));
            ops::residual(tape, &x[0], &x[1], Some(&p[0]), keep)
        },
        bound: BOUND,
    },
    Case {
        name: "gather with repeats",
        activations: &[[40, 17]],
        parameters: &[],
        op: |tape, x, _| {
            let index: Vec<u32> = (0..3000).map(|i| i * 7 % 40).collect();
            ops::gather(tape, &x[0], index)
        },
        bound: BOUND,
    },
    Case {
        name: "assemble",
        activations: &[[50, 24]],
        parameters: &[&[1, 24], &[2, 24], &[60, 24]],
        op: |tape, x, p| {
            let row = |r: u32| if r % 6 == 5 { Row::Token(r / 6 % 3) } else { Row::X(r * 5 % 50) };
            let rows: Vec<Row> = (0..900).map(row).collect();
            let positions: Vec<i32> = (0..900).map(|r| r % 61 - 1).collect();
            ops::assemble(tape, &x[0], &[&p[0], &p[1]], &rows, Some((&p[2], &positions)))
        },
        bound: BOUND,
    },
    Case {
        name: "mean_pool",
        activations: &[[50, 24]],
        parameters: &[],
        op: |tape, x, _| ops::mean_pool(tape, &x[0], &Segments::new([20, 30]), 1),
        bound: BOUND,
    },
    Case {
        name: "loss",
        activations: &[[50, 24], [50, 24]],
        parameters: &[],
        op: |tape, x, _| {
            let kind = LossKind::SmoothL1 { beta: 0.5 };
            let y = ops::loss(tape, &x[0], &x[1].detach(), kind, None)?;
            // Else the loss of the other input would be without a gradient.
            let other = ops::loss(tape, &x[1], &x[0].detach(), LossKind::L1, None)?;
            ops::add(tape, &y.reshape(&[1, 1])?, &other.reshape(&[1, 1])?)
        },
        bound: BOUND,
    },
    Case {
        name: "cross_entropy",
        activations: &[[6, 10]],
        parameters: &[],
        op: |tape, x, _| {
            let loss = ops::cross_entropy(tape, &x[0], &[3, 1, 4, 1, 5, 9])?;
            loss.reshape(&[1, 1])
        },
        bound: BOUND,
    },
];

impl Case {
    /// y, and the gradients of all activations and parameters.
    fn run(&self, device: &'static dyn Device, dtype: Dtype) -> Vec<Vec<f32>> {
        let new = |name: String, shape: &[usize]| {
            // Of a bf16 number and of a size that keeps scores and GELU where they are curved.
            let fan_in = if shape.len() > 1 { (shape[1] as f32).sqrt() } else { 1.0 };
            let scale = if name.starts_with('p') { fan_in.recip() } else { 1.0 };
            let values: Vec<f32> =
                normal(&name, shape).to_host().iter().map(|v| v * scale).collect();
            let value = Tensor::from_vec(values, shape);
            let value = if name.starts_with('x') { value.cast(Dtype::Bf16) } else { value };
            Parameter::new(name, value.cast(Dtype::F32).to(device))
        };
        let numbered = |kind, i| format!("{kind} {} {i}", self.name);
        let activations = self.activations.iter().enumerate();
        let activations: Vec<_> = activations.map(|(i, s)| new(numbered("x", i), s)).collect();
        let parameters = self.parameters.iter().enumerate();
        let parameters: Vec<_> = parameters.map(|(i, s)| new(numbered("p", i), s)).collect();
        let tape = Tape::new();
        let x: Vec<_> = activations.iter().map(|x| ops::cast(&tape, &x.tensor(), dtype)).collect();
        let p: Vec<_> = parameters.iter().map(Parameter::tensor).collect();
        let y = (self.op)(&tape, &x, &p).unwrap();
        let target = normal("target", y.shape()).to(device);
        let loss = ops::loss(&tape, &y, &target, LossKind::Mse, None).unwrap();
        tape.backward(&loss).unwrap();
        let mut results = vec![y.to_vec()];
        for parameter in activations.iter().chain(&parameters) {
            let grad =
                parameter.grad().unwrap_or_else(|| panic!("{}: no gradient", parameter.name()));
            results.push(grad.to_vec());
        }
        results
    }
}

#[test]
fn every_operation_in_bf16_equals_the_naive_device_and_is_near_its_f32_result() {
    for case in CASES {
        let want = case.run(&Naive, Dtype::Bf16);
        let first: Mutex<BTreeMap<Level, Vec<Vec<f32>>>> = Mutex::default();
        cap::for_each(|level, threads| {
            let got = case.run(&Cpu, Dtype::Bf16);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let name = format!("{} {i} ({level:?})", case.name);
                assert_close(&name, got, want, rel_l2(case.bound), "other order of f32 sums");
            }
            let mut first = first.lock().unwrap();
            let first = first.entry(level).or_insert_with(|| got.clone());
            assert!(*first == got, "{}: other bits on {threads} threads", case.name);
        });
        for (i, (got, want)) in want.iter().zip(case.run(&Cpu, Dtype::F32)).enumerate() {
            let why = "a few roundings to eight bits, 1e-3 each, and sums that cancel";
            assert_close(&format!("{} {i}", case.name), got, &want, rel_l2(1e-2), why);
        }
    }
}

#[test]
fn patches_are_cut_in_the_type_of_the_images() {
    let bytes: Vec<u8> = (0..2 * 3 * 64).map(|i| (i * 37 % 251) as u8).collect();
    let images = Images::u8(bytes, [2, 3, 1, 8, 8], vec![0.4; 3], vec![0.2; 3]).unwrap();
    let cut = |dtype: Dtype, device: &'static dyn Device| {
        let images = images.with_dtype(dtype).to(device);
        let order = PatchOrder::ChannelsLast;
        ops::patchify(&Tape::inference(), &images, [1, 4, 4], order, &[5, 0, 3]).unwrap()
    };
    for device in [&Cpu as &dyn Device, &Naive] {
        let got = cut(Dtype::Bf16, device);
        assert_eq!(got.dtype(), Dtype::Bf16);
        assert_eq!(got.to_vec(), cut(Dtype::F32, device).cast(Dtype::Bf16).to_vec());
    }
}

#[test]
fn activations_of_two_types_are_an_error_by_name() {
    let (x, y) = (Tensor::zeros(&[2, 3]), Tensor::zeros(&[2, 3]).cast(Dtype::Bf16));
    let error = ops::add(&Tape::inference(), &x, &y).unwrap_err().to_string();
    assert_eq!(error, "residual: the branch is bf16, expected f32");
    let error = ops::linear(&Tape::inference(), &x, &y, None).unwrap_err().to_string();
    assert_eq!(error, "linear: the weight is bf16, expected f32");
}
