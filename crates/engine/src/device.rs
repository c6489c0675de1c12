//! The border to the hardware: memory, and the list of kernels with their shapes.
//!
//! Nothing above this file knows where a buffer lies. A new device adds a [`Buffer`] variant and
//! implements [`Device`]; operations, models and methods stay as they are.
//!
//! A kernel either overwrites its output or, where it says `+=`, adds to it. Letters: B samples,
//! R packed rows, D width, I and O input and output width, A heads, E = D/A, C channels.

use crate::ops::{LossKind, PatchOrder, Row};
use crate::pool::HostBuffer;
use crate::shape::Segments;
use std::ops::Range;

/// Memory of one device.
pub enum Buffer {
    /// Host memory.
    Host(HostBuffer),
}

impl Buffer {
    /// Host memory of `len` values of any content.
    pub(crate) fn host(len: usize) -> Self {
        Self::Host(HostBuffer::dirty(len))
    }

    /// Host memory of `len` zeros that will live for many steps.
    pub(crate) fn lasting_host(len: usize) -> Self {
        Self::Host(HostBuffer::lasting(len))
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_> {
        match self {
            Self::Host(buffer) => View::Host(buffer.as_slice()),
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Self::Host(buffer) => ViewMut::Host(buffer.as_mut_slice()),
        }
    }
}

/// Part of a buffer, to read.
#[derive(Clone, Copy)]
pub enum View<'a> {
    /// Host memory.
    Host(&'a [f32]),
}

impl<'a> View<'a> {
    /// The values in host memory.
    pub fn host(self) -> &'a [f32] {
        match self {
            Self::Host(slice) => slice,
        }
    }

    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::Host(slice) => Self::Host(&slice[range]),
        }
    }
}

/// Part of a buffer, to write.
pub enum ViewMut<'a> {
    /// Host memory.
    Host(&'a mut [f32]),
}

impl<'a> ViewMut<'a> {
    /// The values in host memory.
    pub fn host(self) -> &'a mut [f32] {
        match self {
            Self::Host(slice) => slice,
        }
    }

    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::Host(slice) => Self::Host(&mut slice[range]),
        }
    }
}

/// What a linear layer does to its sum before storing it.
pub enum Epilogue<'a> {
    /// y = s
    None,
    /// y = GELU(s); s is stored too where given.
    Gelu(Option<ViewMut<'a>>),
    /// y = s + residual
    Residual(View<'a>),
}

/// Sizes of a linear layer: rows R, input width I, output width O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSize {
    /// R
    pub rows: usize,
    /// I
    pub input: usize,
    /// O
    pub output: usize,
}

impl LinearSize {
    /// R I O
    pub(crate) fn multiply_adds(self) -> usize {
        self.rows * self.input * self.output
    }
}

/// Head a of row r lies at `data[r * stride + offset + a * E ..][..E]`.
#[derive(Clone, Copy)]
pub struct HeadRows<'a> {
    /// The packed rows.
    pub data: View<'a>,
    /// Values from one row to the next.
    pub stride: usize,
    /// Where head 0 begins in a row.
    pub offset: usize,
}

/// Queries, keys and values, and which rows belong together.
#[derive(Clone, Copy)]
pub struct AttentionInput<'a> {
    /// [Rq, D]
    pub q: HeadRows<'a>,
    /// [Rk, D]
    pub k: HeadRows<'a>,
    /// [Rk, D]
    pub v: HeadRows<'a>,
    /// Rows of each sample in q.
    pub q_segments: &'a Segments,
    /// Rows of each sample in k and v.
    pub k_segments: &'a Segments,
    /// A
    pub heads: usize,
    /// E
    pub head_dim: usize,
}

/// Where attention's gradients go, packed as its inputs were.
pub enum AttentionGrad<'a> {
    /// dqkv [R, 3D]
    Packed(ViewMut<'a>),
    /// dq [Rq, D] and dkv [Rk, 2D]
    Split(ViewMut<'a>, ViewMut<'a>),
}

/// What layer norm saves of each row.
pub struct Moments<V> {
    /// μ [R]
    pub mean: V,
    /// 1/√(σ² + ε) [R]
    pub rstd: V,
}

/// Columns of a packed row that hold heads, each normalised alone.
#[derive(Clone)]
pub struct HeadColumns {
    /// Which columns; the others are copied.
    pub columns: Range<usize>,
    /// E
    pub head_dim: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

/// Pixels [B, C, T, H, W].
#[derive(Clone, Copy)]
pub enum Pixels<'a> {
    /// (v/255 - mean_c)/std_c
    U8 {
        /// The bytes.
        data: &'a [u8],
        /// [C]
        mean: &'a [f32],
        /// [C]
        std: &'a [f32],
    },
    /// Normalised already.
    F32(&'a [f32]),
}

/// How images are cut.
#[derive(Clone, Copy)]
pub struct PatchLayout {
    /// [B, C, T, H, W] in pixels
    pub shape: [usize; 5],
    /// [pt, ph, pw]
    pub patch: [usize; 3],
    /// Order of the values of one patch.
    pub order: PatchOrder,
}

/// Normalisation of pixel targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatchNorm {
    /// C
    pub channels: usize,
    /// Statistics of each channel alone (VideoMAE) or of the patch as a whole (MAE).
    pub per_channel: bool,
    /// Divide the squares by n - 1.
    pub unbiased: bool,
    /// ε
    pub eps: f32,
    /// (x - μ)/(σ + ε) instead of (x - μ)/√(σ² + ε).
    pub eps_outside_sqrt: bool,
}

/// One update of AdamW, torch.optim.AdamW's formula.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// β1, β2; f64 because 1 - 0.999 in f32 is off by 5e-5 of itself.
    pub betas: (f64, f64),
    /// ε
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Updates made so far, this one included: 1 at first.
    pub step: u64,
}

/// The kernels.
pub trait Device: Sync {
    /// Memory for `len` values of any content.
    fn buffer(&self, len: usize) -> Buffer;

    /// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ + b[O])
    fn linear(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        w: View<'_>,
        b: Option<View<'_>>,
        size: LinearSize,
        epilogue: Epilogue<'_>,
    );
    /// dx[R,I] = dy[R,O] w[O,I]
    fn linear_grad_input(&self, dx: ViewMut<'_>, dy: View<'_>, w: View<'_>, size: LinearSize);
    /// ds[R,I] = (dy[R,O] w[O,I]) GELU'(s[R,I]); h[R,I] = GELU(s)
    fn linear_grad_gelu(
        &self,
        ds: ViewMut<'_>,
        h: ViewMut<'_>,
        dy: View<'_>,
        w: View<'_>,
        s: View<'_>,
        size: LinearSize,
    );
    /// dw[O,I] += dy[R,O]ᵀ x[R,I]
    fn linear_grad_weight(&self, dw: ViewMut<'_>, dy: View<'_>, x: View<'_>, size: LinearSize);
    /// db[O] += Σ_r dy[R,O]
    fn column_sum(&self, db: ViewMut<'_>, dy: View<'_>, rows: usize, columns: usize);

    /// y[Rq,D] = softmax(q kᵀ E^-½) v by sample and head; lse[Rq,A] = log Σ exp of the scores
    fn attention(&self, y: ViewMut<'_>, lse: ViewMut<'_>, input: AttentionInput<'_>);
    /// Gradients of q, k, v from y, dy and lse.
    fn attention_backward(
        &self,
        grad: AttentionGrad<'_>,
        y: View<'_>,
        dy: View<'_>,
        lse: View<'_>,
        input: AttentionInput<'_>,
    );

    /// y[R,D] = γ (x - μ)/√(σ² + ε) + β
    fn layer_norm(
        &self,
        y: ViewMut<'_>,
        saved: Moments<ViewMut<'_>>,
        x: View<'_>,
        affine: Option<(View<'_>, View<'_>)>,
        width: usize,
        eps: f32,
    );
    /// dx[R,D]; dγ[D] += ; dβ[D] +=
    fn layer_norm_backward(
        &self,
        dx: ViewMut<'_>,
        d_affine: Option<(ViewMut<'_>, ViewMut<'_>)>,
        dy: View<'_>,
        x: View<'_>,
        saved: Moments<View<'_>>,
        gamma: Option<View<'_>>,
        width: usize,
    );
    /// Layer norm over each head of the given columns.
    fn head_norm(
        &self,
        y: ViewMut<'_>,
        saved: Moments<ViewMut<'_>>,
        x: View<'_>,
        affine: (View<'_>, View<'_>),
        columns: &HeadColumns,
        eps: f32,
    );
    /// dx; dγ[E] += ; dβ[E] +=
    fn head_norm_backward(
        &self,
        dx: ViewMut<'_>,
        d_affine: (ViewMut<'_>, ViewMut<'_>),
        dy: View<'_>,
        x: View<'_>,
        saved: Moments<View<'_>>,
        gamma: View<'_>,
        columns: &HeadColumns,
    );

    /// y += x
    fn add_assign(&self, y: ViewMut<'_>, x: View<'_>);
    /// y = a y
    fn scale(&self, y: ViewMut<'_>, a: f32);
    /// y[R,D] = skip + factor_r scale_d branch
    fn residual(
        &self,
        y: ViewMut<'_>,
        skip: View<'_>,
        branch: View<'_>,
        scale: Option<View<'_>>,
        factor: Option<&[f32]>,
        width: usize,
    );
    /// dbranch[R,D]; dscale[D] +=
    fn residual_backward(
        &self,
        d_branch: ViewMut<'_>,
        d_scale: Option<ViewMut<'_>>,
        dy: View<'_>,
        branch: View<'_>,
        scale: Option<View<'_>>,
        factor: Option<&[f32]>,
        width: usize,
    );

    /// y[K,D] = x[index_k]
    fn gather(&self, y: ViewMut<'_>, x: View<'_>, index: &[u32], width: usize);
    /// dx[index_k] += dy[K,D]
    fn gather_backward(&self, dx: ViewMut<'_>, dy: View<'_>, index: &[u32], width: usize);
    /// y[r] = x row or token row, + position[place_r]
    fn assemble(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        tokens: &[View<'_>],
        rows: &[Row],
        position: Option<(View<'_>, &[i32])>,
        width: usize,
    );

    /// y[B,D] = mean of each sample's rows but the first `skip`
    fn mean_pool(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        segments: &Segments,
        skip: usize,
        width: usize,
    );
    /// dx[R,D]
    fn mean_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        segments: &Segments,
        skip: usize,
        width: usize,
    );

    /// Σ_r w_r mean_d l(prediction - target), w_r = 1/R if not given
    fn loss(
        &self,
        prediction: View<'_>,
        target: View<'_>,
        kind: LossKind,
        weights: Option<&[f32]>,
        width: usize,
    ) -> f32;
    /// dprediction[R,D] = g w_r l'(prediction - target)/D
    fn loss_backward(
        &self,
        d_prediction: ViewMut<'_>,
        g: f32,
        prediction: View<'_>,
        target: View<'_>,
        kind: LossKind,
        weights: Option<&[f32]>,
        width: usize,
    );
    /// mean_b -log softmax(logits[b])[label_b]
    fn cross_entropy(&self, logits: View<'_>, labels: &[u32], classes: usize) -> f32;
    /// dlogits[B,classes]
    fn cross_entropy_backward(
        &self,
        d_logits: ViewMut<'_>,
        g: f32,
        logits: View<'_>,
        labels: &[u32],
        classes: usize,
    );

    /// y[K, pt ph pw C]: the patches b N + n listed
    fn patchify(&self, y: ViewMut<'_>, pixels: Pixels<'_>, layout: PatchLayout, patches: &[u32]);
    /// y[R, p C]: each row (or each channel of a row) to mean 0, variance 1
    fn normalize_patches(&self, y: ViewMut<'_>, x: View<'_>, width: usize, norm: PatchNorm);

    /// One fused AdamW update.
    fn adamw(
        &self,
        value: ViewMut<'_>,
        first: ViewMut<'_>,
        second: ViewMut<'_>,
        grad: View<'_>,
        step: AdamWStep,
    );
    /// Σ x²
    fn squared_norm(&self, x: View<'_>) -> f64;
    /// The first value that is not finite, with its place.
    fn first_non_finite(&self, x: View<'_>) -> Option<(usize, f32)>;
}
