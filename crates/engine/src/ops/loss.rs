//! Σ_r w_r mean_d l(prediction - target), and cross-entropy. Definitions as torch.nn.functional's.

use crate::shape::{expect_count, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Error, Result, Tape, Tensor};

/// l(δ).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossKind {
    /// |δ|
    L1,
    /// δ²/2β where |δ| < β, else |δ| - β/2
    SmoothL1 {
        /// β
        beta: f32,
    },
    /// δ²
    Mse,
}

/// Σ_r w_r mean_d l(prediction - target) as one element. prediction and target [R, D] (the target
/// gets no gradient); `weights` [R], 1/R each if not given.
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
    let value = tape
        .run("loss", |device| device.loss(prediction.view(), target.view(), kind, weights, width));
    // dprediction = g w_r l'(δ)/D
    let backward = {
        let (prediction, target) = (prediction.clone(), target.detach());
        let weights = weights.map(<[f32]>::to_vec);
        move |gradients: &mut Gradients, g: Tensor| {
            let device = gradients.device();
            let mut d = device.buffer(prediction.len());
            let (p, t, w) = (prediction.view(), target.view(), weights.as_deref());
            device.loss_backward(d.view_mut(), g.item(), p, t, kind, w, width);
            gradients.add(&prediction, Tensor::new(d, prediction.shape()))
        }
    };
    let value = Tensor::from_vec([value], &[1]);
    Ok(tape.record_tensor("loss", value, &[prediction], backward))
}

/// mean_b -log softmax(logits_b)[label_b] as one element. logits [B, classes], B labels.
pub fn cross_entropy(tape: &Tape, logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (samples, classes) = matrix("cross_entropy", "logits", logits)?;
    expect_count("cross_entropy", "the number of labels", labels.len(), samples)?;
    if let Some(place) = labels.iter().position(|&label| label as usize >= classes) {
        let (op, arg, index) = ("cross_entropy", "the classes", i64::from(labels[place]));
        return Err(Error::Index { op, arg, index, place, rows: classes });
    }
    let value =
        tape.run("cross_entropy", |device| device.cross_entropy(logits.view(), labels, classes));
    // dlogits = g (softmax(logits) - onehot)/B
    let backward = {
        let (logits, labels) = (logits.clone(), labels.to_vec());
        move |gradients: &mut Gradients, g: Tensor| {
            let device = gradients.device();
            let mut d = device.buffer(logits.len());
            let (view, g) = (d.view_mut(), g.item());
            device.cross_entropy_backward(view, g, logits.view(), &labels, classes);
            gradients.add(&logits, Tensor::new(d, logits.shape()))
        }
    };
    let value = Tensor::from_vec([value], &[1]);
    Ok(tape.record_tensor("cross_entropy", value, &[logits], backward))
}
