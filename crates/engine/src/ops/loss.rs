//! Σ_r w_r mean_d l(prediction - target), and cross-entropy. Definitions as in torch.nn.functional.

use crate::device::{Full, LossKind};
use crate::index::Index;
use crate::shape::{check_index, expect_count, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};

/// Σ_r w_r mean_d l(prediction - target) as one element. prediction and target [R, D] (the target
/// gets no gradient), either in any type. `weights` [R], by default 1/R each.
pub fn loss(
    tape: &Tape,
    prediction: &Tensor,
    target: &Tensor,
    kind: LossKind,
    weights: Option<&[f32]>,
) -> Result<Tensor> {
    let (rows, width) = matrix("loss", "the prediction", prediction)?;
    expect_shape("loss", "the target", target.shape(), prediction.shape())?;
    if let Some(weights) = weights {
        expect_count("loss", "the number of weights", weights.len(), rows)?;
    }
    let (device, weights) = (prediction.device(), weights.map(Index::from));
    let target = tape.run("loss", || target.cast(Dtype::F32));
    let value = tape.run("loss", || {
        let (mut value, weights) = (device.buffer(Dtype::F32, 1), weights.as_ref());
        let (prediction, target) = (prediction.view(), target.floats());
        device.loss(Full(value.view_mut()), prediction, target, kind, weights, width);
        value
    });
    // dprediction = g w_r l'(δ)/D
    let backward = {
        let prediction = prediction.clone();
        move |gradients: &mut Gradients, g: Tensor| {
            let (p, w) = (prediction.view(), weights.as_ref());
            gradients.write(&prediction, |d| {
                device.loss_backward(d, g.floats(), p, target.floats(), kind, w, width);
            })
        }
    };
    let value = Tensor::new(device, value, &[1]);
    Ok(tape.record("loss", value, &[prediction], backward))
}

/// mean_b -log softmax(logits_b)[label_b] as one element. logits [B, classes], B labels.
pub fn cross_entropy(tape: &Tape, logits: &Tensor, labels: impl Into<Index>) -> Result<Tensor> {
    let (labels, logits) = (labels.into(), &super::cast(tape, logits, Dtype::F32));
    let (samples, classes) = matrix("cross_entropy", "logits", logits)?;
    expect_count("cross_entropy", "the number of labels", labels.len(), samples)?;
    check_index("cross_entropy", "the classes", classes, &labels)?;
    let device = logits.device();
    let value = tape.run("cross_entropy", || {
        let mut value = device.buffer(Dtype::F32, 1);
        device.cross_entropy(value.view_mut(), logits.view(), &labels, classes);
        value
    });
    // dlogits = g (softmax(logits) - onehot)/B
    let backward = {
        let logits = logits.clone();
        move |gradients: &mut Gradients, g: Tensor| {
            gradients.write(&logits, |d| {
                device.cross_entropy_backward(d, g.view(), logits.view(), &labels, classes);
            })
        }
    };
    let value = Tensor::new(device, value, &[1]);
    Ok(tape.record("cross_entropy", value, &[logits], backward))
}
