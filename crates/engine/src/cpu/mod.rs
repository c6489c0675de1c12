//! The CPU: each kernel of [`Device`], handed to the file that computes it.

mod adamw;
mod attention;
mod dispatch;
mod gemm;
mod math;
mod parallel;
mod peak;
mod row;

pub use dispatch::instruction_set;
pub use peak::fma_peak_gflops;

use crate::device::{
    AdamWStep, AttentionGrad, AttentionInput, Buffer, Device, Epilogue, HeadColumns, HeadRows,
    LinearSize, Moments, PatchLayout, PatchNorm, Pixels, View, ViewMut,
};
use crate::ops::{LossKind, Row};
use crate::shape::Segments;

/// All cores of this machine, or as many as rayon's pool has threads.
pub struct Cpu;

fn rows(rows: HeadRows<'_>) -> attention::Rows<'_> {
    attention::Rows { data: rows.data.host(), stride: rows.stride, offset: rows.offset }
}

fn ragged<'a>(input: &AttentionInput<'a>) -> attention::Ragged<'a> {
    attention::Ragged {
        q_offsets: input.q_segments.offsets(),
        k_offsets: input.k_segments.offsets(),
        heads: input.heads,
        head_dim: input.head_dim,
    }
}

impl Device for Cpu {
    fn buffer(&self, len: usize) -> Buffer {
        Buffer::host(len)
    }

    fn linear(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        w: View<'_>,
        b: Option<View<'_>>,
        size: LinearSize,
        epilogue: Epilogue<'_>,
    ) {
        let bias = b.map(View::host);
        let epilogue = match (epilogue, bias) {
            (Epilogue::None, None) => gemm::Epilogue::None,
            (Epilogue::None, Some(bias)) => gemm::Epilogue::Bias(bias),
            (Epilogue::Gelu(pre), bias) => {
                let pre = pre.map_or(&mut [][..], ViewMut::host);
                gemm::Epilogue::Gelu { bias, pre }
            }
            (Epilogue::Residual(residual), bias) => {
                gemm::Epilogue::Residual { bias, residual: residual.host() }
            }
        };
        let dims = (size.rows, size.input, size.output);
        gemm::linear(y.host(), x.host(), w.host(), dims, epilogue);
    }

    fn linear_grad_input(&self, dx: ViewMut<'_>, dy: View<'_>, w: View<'_>, size: LinearSize) {
        let dims = (size.rows, size.input, size.output);
        gemm::linear_grad_input(dx.host(), dy.host(), w.host(), dims);
    }

    fn linear_grad_gelu(
        &self,
        ds: ViewMut<'_>,
        h: ViewMut<'_>,
        dy: View<'_>,
        w: View<'_>,
        s: View<'_>,
        size: LinearSize,
    ) {
        let dims = (size.rows, size.input, size.output);
        gemm::linear_grad_gelu(ds.host(), h.host(), dy.host(), w.host(), s.host(), dims);
    }

    fn linear_grad_weight(&self, dw: ViewMut<'_>, dy: View<'_>, x: View<'_>, size: LinearSize) {
        let dims = (size.rows, size.input, size.output);
        gemm::linear_grad_weight(dw.host(), dy.host(), x.host(), dims);
    }

    fn column_sum(&self, db: ViewMut<'_>, dy: View<'_>, rows: usize, columns: usize) {
        gemm::column_sum(db.host(), dy.host(), rows, columns);
    }

    fn attention(&self, y: ViewMut<'_>, lse: ViewMut<'_>, input: AttentionInput<'_>) {
        let (q, k, v) = (rows(input.q), rows(input.k), rows(input.v));
        attention::attention(y.host(), lse.host(), q, k, v, &ragged(&input));
    }

    fn attention_backward(
        &self,
        grad: AttentionGrad<'_>,
        y: View<'_>,
        dy: View<'_>,
        lse: View<'_>,
        input: AttentionInput<'_>,
    ) {
        let grad = match grad {
            AttentionGrad::Packed(grad) => attention::QkvGrad::Packed(grad.host()),
            AttentionGrad::Split(dq, dkv) => {
                attention::QkvGrad::Split { dq: dq.host(), dkv: dkv.host() }
            }
        };
        let (q, k, v) = (rows(input.q), rows(input.k), rows(input.v));
        let (y, dy, lse) = (y.host(), dy.host(), lse.host());
        attention::attention_backward(grad, y, dy, lse, q, k, v, &ragged(&input));
    }

    fn layer_norm(
        &self,
        y: ViewMut<'_>,
        saved: Moments<ViewMut<'_>>,
        x: View<'_>,
        affine: Option<(View<'_>, View<'_>)>,
        width: usize,
        eps: f32,
    ) {
        let affine = affine.map(|(gamma, beta)| (gamma.host(), beta.host()));
        let (mean, rstd) = (saved.mean.host(), saved.rstd.host());
        row::layer_norm(y.host(), mean, rstd, x.host(), affine, width, eps);
    }

    fn layer_norm_backward(
        &self,
        dx: ViewMut<'_>,
        d_affine: Option<(ViewMut<'_>, ViewMut<'_>)>,
        dy: View<'_>,
        x: View<'_>,
        saved: Moments<View<'_>>,
        gamma: Option<View<'_>>,
        width: usize,
    ) {
        let d_affine = d_affine.map(|(d_gamma, d_beta)| (d_gamma.host(), d_beta.host()));
        let saved = (saved.mean.host(), saved.rstd.host());
        let gamma = gamma.map(View::host);
        row::layer_norm_backward(dx.host(), d_affine, dy.host(), x.host(), saved, gamma, width);
    }

    fn head_norm(
        &self,
        y: ViewMut<'_>,
        saved: Moments<ViewMut<'_>>,
        x: View<'_>,
        affine: (View<'_>, View<'_>),
        columns: &HeadColumns,
        eps: f32,
    ) {
        let affine = (affine.0.host(), affine.1.host());
        let (mean, rstd) = (saved.mean.host(), saved.rstd.host());
        row::head_norm(y.host(), mean, rstd, x.host(), affine, columns, eps);
    }

    fn head_norm_backward(
        &self,
        dx: ViewMut<'_>,
        d_affine: (ViewMut<'_>, ViewMut<'_>),
        dy: View<'_>,
        x: View<'_>,
        saved: Moments<View<'_>>,
        gamma: View<'_>,
        columns: &HeadColumns,
    ) {
        let d_affine = (d_affine.0.host(), d_affine.1.host());
        let saved = (saved.mean.host(), saved.rstd.host());
        let gamma = gamma.host();
        row::head_norm_backward(dx.host(), d_affine, dy.host(), x.host(), saved, gamma, columns);
    }

    fn add_assign(&self, y: ViewMut<'_>, x: View<'_>) {
        row::add_assign(y.host(), x.host());
    }

    fn scale(&self, y: ViewMut<'_>, a: f32) {
        row::scale(y.host(), a);
    }

    fn residual(
        &self,
        y: ViewMut<'_>,
        skip: View<'_>,
        branch: View<'_>,
        scale: Option<View<'_>>,
        factor: Option<&[f32]>,
        width: usize,
    ) {
        let scale = scale.map(View::host);
        row::residual(y.host(), skip.host(), branch.host(), scale, factor, width);
    }

    fn residual_backward(
        &self,
        d_branch: ViewMut<'_>,
        d_scale: Option<ViewMut<'_>>,
        dy: View<'_>,
        branch: View<'_>,
        scale: Option<View<'_>>,
        factor: Option<&[f32]>,
        width: usize,
    ) {
        let (scale, d_scale) = (scale.map(View::host), d_scale.map(ViewMut::host));
        let (dy, branch) = (dy.host(), branch.host());
        row::residual_backward(d_branch.host(), d_scale, dy, branch, scale, factor, width);
    }

    fn gather(&self, y: ViewMut<'_>, x: View<'_>, index: &[u32], width: usize) {
        row::gather(y.host(), x.host(), index, width);
    }

    fn gather_backward(&self, dx: ViewMut<'_>, dy: View<'_>, index: &[u32], width: usize) {
        row::gather_backward(dx.host(), dy.host(), index, width);
    }

    fn assemble(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        tokens: &[View<'_>],
        rows: &[Row],
        position: Option<(View<'_>, &[i32])>,
        width: usize,
    ) {
        let tokens: Vec<_> = tokens.iter().map(|table| table.host()).collect();
        let position = position.map(|(table, places)| (table.host(), places));
        row::assemble(y.host(), x.host(), &tokens, rows, position, width);
    }

    fn mean_pool(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        segments: &Segments,
        skip: usize,
        width: usize,
    ) {
        row::mean_pool(y.host(), x.host(), segments.offsets(), skip, width);
    }

    fn mean_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        segments: &Segments,
        skip: usize,
        width: usize,
    ) {
        row::mean_pool_backward(dx.host(), dy.host(), segments.offsets(), skip, width);
    }

    fn loss(
        &self,
        prediction: View<'_>,
        target: View<'_>,
        kind: LossKind,
        weights: Option<&[f32]>,
        width: usize,
    ) -> f32 {
        row::loss(prediction.host(), target.host(), kind, weights, width)
    }

    fn loss_backward(
        &self,
        d_prediction: ViewMut<'_>,
        g: f32,
        prediction: View<'_>,
        target: View<'_>,
        kind: LossKind,
        weights: Option<&[f32]>,
        width: usize,
    ) {
        let (d_prediction, prediction) = (d_prediction.host(), prediction.host());
        row::loss_backward(d_prediction, g, prediction, target.host(), kind, weights, width);
    }

    fn cross_entropy(&self, logits: View<'_>, labels: &[u32], classes: usize) -> f32 {
        row::cross_entropy(logits.host(), labels, classes)
    }

    fn cross_entropy_backward(
        &self,
        d_logits: ViewMut<'_>,
        g: f32,
        logits: View<'_>,
        labels: &[u32],
        classes: usize,
    ) {
        row::cross_entropy_backward(d_logits.host(), g, logits.host(), labels, classes);
    }

    fn patchify(&self, y: ViewMut<'_>, pixels: Pixels<'_>, layout: PatchLayout, patches: &[u32]) {
        row::patchify(y.host(), pixels, layout, patches);
    }

    fn normalize_patches(&self, y: ViewMut<'_>, x: View<'_>, width: usize, norm: PatchNorm) {
        row::normalize_patches(y.host(), x.host(), width, norm);
    }

    fn adamw(
        &self,
        value: ViewMut<'_>,
        first: ViewMut<'_>,
        second: ViewMut<'_>,
        grad: View<'_>,
        step: AdamWStep,
    ) {
        adamw::adamw(value.host(), first.host(), second.host(), grad.host(), step);
    }

    fn squared_norm(&self, x: View<'_>) -> f64 {
        adamw::squared_norm(x.host())
    }

    fn first_non_finite(&self, x: View<'_>) -> Option<(usize, f32)> {
        adamw::first_non_finite(x.host())
    }
}
