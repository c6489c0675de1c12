//! The interface to the hardware: memory, and the list of kernels with their shapes.
//!
//! No code above this file depends on where a buffer is stored. A new device adds a [`Buffer`]
//! variant and implements [`Device`]. Operations, models and methods do not change.
//!
//! A kernel overwrites its output, or adds to it if its formula has `+=`. A kernel that changes all
//! parameters takes them as one list: it is one launch on any device.
//!
//! A kernel with `<T>` works on activations of any [`Dtype`]: all its [`View`]s and [`ViewMut`]s
//! have one type, and its [`Floats`] are f32. It computes in f32 and rounds what it writes. Weights
//! are rounded to the type of the activations before they are multiplied. Other kernels take f32.
//!
//! Letters: B samples, R packed rows, D width, I and O input and output width, A heads, E = D/A, C
//! channels.

use crate::dtype::{Dtype, Slice, SliceMut};
use crate::index::{Index, Segments};
use crate::pool::HostValues;
use std::borrow::Cow;
use std::ops::Range;

/// Memory of one device.
pub enum Buffer {
    /// Host memory.
    Host(HostValues),
    /// Memory of the naive device. The CPU's kernels refuse it.
    #[cfg(any(test, feature = "check"))]
    Naive(HostValues),
}

impl Buffer {
    /// All of it, to read.
    pub fn view(&self) -> View<'_> {
        match self {
            Self::Host(values) => View::Host(values.slice()),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(values) => View::Naive(values.slice()),
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Self::Host(values) => ViewMut::Host(values.slice_mut()),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(values) => ViewMut::Naive(values.slice_mut()),
        }
    }
}

/// Part of a buffer, to read.
#[derive(Clone, Copy)]
pub enum View<'a> {
    /// Host memory.
    Host(Slice<'a>),
    /// Memory of the naive device.
    #[cfg(any(test, feature = "check"))]
    Naive(Slice<'a>),
}

impl View<'_> {
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::Host(slice) => Self::Host(slice.range(range)),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(slice) => Self::Naive(slice.range(range)),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Host(slice) => slice.dtype(),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(slice) => slice.dtype(),
        }
    }
}

/// Part of a buffer, to write.
pub enum ViewMut<'a> {
    /// Host memory.
    Host(SliceMut<'a>),
    /// Memory of the naive device.
    #[cfg(any(test, feature = "check"))]
    Naive(SliceMut<'a>),
}

impl ViewMut<'_> {
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::Host(slice) => Self::Host(slice.range(range)),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(slice) => Self::Naive(slice.range(range)),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Host(slice) => slice.dtype(),
            #[cfg(any(test, feature = "check"))]
            Self::Naive(slice) => slice.dtype(),
        }
    }
}

/// Values that are f32 whatever the type of the activations: parameters and their gradients,
/// statistics, losses.
pub struct Full<V>(pub V);

/// [`Full`] values to read.
pub type Floats<'a> = Full<View<'a>>;

/// [`Full`] values to write.
pub type FloatsMut<'a> = Full<ViewMut<'a>>;

/// How a backward kernel writes the gradient of an input.
pub enum Write<W> {
    /// Overwrite the buffer.
    Set(W),
    /// Add to the buffer once the gradient is computed. In bf16 it may be rounded before that.
    Add(W),
}

/// l(δ) of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossKind {
    /// |δ|
    L1,
    /// δ²/2β if |δ| < β, else |δ| - β/2
    SmoothL1 {
        /// β
        beta: f32,
    },
    /// δ²
    Mse,
}

/// Order of the values within a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchOrder {
    /// c, pt, ph, pw: the order of a convolution's weight.
    ChannelsFirst,
    /// pt, ph, pw, c: the order of MAE's targets.
    ChannelsLast,
}

/// The source of a row of `assemble`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A row of x.
    X(u32),
    /// A row of the token tables, counted over all of them in order.
    Token(u32),
}

/// What a linear layer does to its sum before storing it.
pub enum Epilogue<V, W> {
    /// y = s
    None,
    /// y = GELU(s). s is also stored if there is a buffer for it.
    Gelu(Option<W>),
    /// y = s + residual
    Residual(V),
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

/// Head a of row r is at `data[r * stride + offset + a * E ..][..E]`.
#[derive(Clone, Copy)]
pub struct HeadRows<V> {
    /// The packed rows.
    pub data: V,
    /// Number of values from one row to the next.
    pub stride: usize,
    /// Start of head 0 in a row.
    pub offset: usize,
}

/// Queries, keys and values, and which rows belong together.
#[derive(Clone, Copy)]
pub struct AttentionInput<'a, V> {
    /// [Rq, D]
    pub q: HeadRows<V>,
    /// [Rk, D]
    pub k: HeadRows<V>,
    /// [Rk, D]
    pub v: HeadRows<V>,
    /// Rows of each sample in q.
    pub q_segments: &'a Segments,
    /// Rows of each sample in k and v.
    pub k_segments: &'a Segments,
    /// A
    pub heads: usize,
    /// E
    pub head_dim: usize,
}

/// The outputs of attention's gradients, packed like its inputs.
pub enum AttentionGrad<W> {
    /// dqkv [R, 3D]
    Packed(Write<W>),
    /// dq [Rq, D] and dkv [Rk, 2D], overwritten.
    Split(W, W),
}

/// Values that layer norm saves for each row.
#[derive(Clone, Copy)]
pub struct Moments<V> {
    /// μ [R]
    pub mean: V,
    /// 1/√(σ² + ε) [R]
    pub rstd: V,
}

/// Which of a rotation's two directions a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// y_j = c_j x_j + s_j x_(j^1)
    Forward,
    /// y_j = c_j x_j + s_(j^1) x_(j^1): the gradient.
    Transposed,
}

/// Columns of a packed row that hold heads. Each head is computed separately.
#[derive(Clone)]
pub struct HeadColumns {
    /// The columns of the heads. The others are copied.
    pub columns: Range<usize>,
    /// E
    pub head_dim: usize,
    /// Number of values from one row to the next.
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
    /// Already normalised values.
    F32(&'a [f32]),
}

/// How images are split into patches.
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
    /// Whether each channel has its own statistics (VideoMAE) or the whole patch shares them (MAE).
    pub per_channel: bool,
    /// Whether the squares are divided by n - 1.
    pub unbiased: bool,
    /// ε
    pub eps: f32,
    /// Whether to compute (x - μ)/(σ + ε) instead of (x - μ)/√(σ² + ε).
    pub eps_outside_sqrt: bool,
}

impl PatchNorm {
    /// (x - μ)/√(σ² + 1e-6) over the whole patch, σ² unbiased: stable-pretraining's MAELoss.
    pub fn joint(channels: usize) -> Self {
        Self { channels, per_channel: false, unbiased: true, eps: 1e-6, eps_outside_sqrt: false }
    }

    /// (x - μ)/(σ + 1e-6) over each channel, σ² unbiased: VideoMAE's engine_for_pretraining.py.
    pub fn per_channel(channels: usize) -> Self {
        Self { channels, per_channel: true, unbiased: true, eps: 1e-6, eps_outside_sqrt: true }
    }

    /// What (x - μ) is divided by.
    pub fn divisor(self, variance: f32) -> f32 {
        if self.eps_outside_sqrt {
            variance.sqrt() + self.eps
        } else {
            (variance + self.eps).sqrt()
        }
    }
}

/// One update of AdamW with torch.optim.AdamW's formula.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// β1, β2. They are f64, because 1 - 0.999 in f32 has a relative error of 5e-5.
    pub betas: (f64, f64),
    /// ε
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Number of updates including this one, so the first is 1.
    pub step: u64,
}

/// A parameter under AdamW, all four of one length.
pub struct AdamWOperands<V, W> {
    /// The value, updated in place.
    pub value: W,
    /// m, the mean of gradients.
    pub first: W,
    /// v, the mean of their squares.
    pub second: W,
    /// g
    pub grad: V,
    /// How it is updated.
    pub step: AdamWStep,
}

/// Calls the macro `$then` with the list of kernels. The trait is generated from this list. Devices
/// whose kernels work in host memory are implemented by functions with the same names.
macro_rules! kernels {
    ($then:ident) => {
        $then! {
            /// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ + b[O])
            fn linear<T>(
                y: ViewMut<'_>,
                x: View<'_>,
                w: Floats<'_>,
                b: Option<Floats<'_>>,
                size: LinearSize,
                epilogue: Epilogue<View<'_>, ViewMut<'_>>,
            );
            /// dx[R,I] = dy[R,O] w[O,I]
            fn linear_grad_input<T>(
                dx: Write<ViewMut<'_>>,
                dy: View<'_>,
                w: Floats<'_>,
                size: LinearSize,
            );
            /// ds[R,I] = (dy[R,O] w[O,I]) GELU'(s[R,I]); h[R,I] = GELU(s)
            fn linear_grad_gelu<T>(
                ds: ViewMut<'_>,
                h: ViewMut<'_>,
                dy: View<'_>,
                w: Floats<'_>,
                s: View<'_>,
                size: LinearSize,
            );
            /// dw[O,I] += dy[R,O]ᵀ x[R,I]
            fn linear_grad_weight<T>(
                dw: FloatsMut<'_>,
                dy: View<'_>,
                x: View<'_>,
                size: LinearSize,
            );
            /// db[O] += Σ_r dy[R,O]
            fn column_sum<T>(db: FloatsMut<'_>, dy: View<'_>, rows: usize, columns: usize);

            /// y[Rq,D] = softmax(q kᵀ E^-½) v by sample and head;
            /// lse[Rq,A] = log Σ exp of the scores
            fn attention<T>(
                y: ViewMut<'_>,
                lse: FloatsMut<'_>,
                input: AttentionInput<'_, View<'_>>,
            );
            /// Gradients of q, k, v from y, dy and lse.
            fn attention_backward<T>(
                grad: AttentionGrad<ViewMut<'_>>,
                y: View<'_>,
                dy: View<'_>,
                lse: Floats<'_>,
                input: AttentionInput<'_, View<'_>>,
            );

            /// y[R,D] = γ (x - μ)/√(σ² + ε) + β
            fn layer_norm<T>(
                y: ViewMut<'_>,
                saved: Moments<FloatsMut<'_>>,
                x: View<'_>,
                affine: Option<(Floats<'_>, Floats<'_>)>,
                width: usize,
                eps: f32,
            );
            /// dx[R,D]; dγ[D] += ; dβ[D] +=
            fn layer_norm_backward<T>(
                dx: Write<ViewMut<'_>>,
                d_affine: Option<(FloatsMut<'_>, FloatsMut<'_>)>,
                dy: View<'_>,
                x: View<'_>,
                saved: Moments<Floats<'_>>,
                gamma: Option<Floats<'_>>,
                width: usize,
            );
            /// Layer norm over each head of the given columns.
            fn head_norm<T>(
                y: ViewMut<'_>,
                saved: Moments<FloatsMut<'_>>,
                x: View<'_>,
                affine: (Floats<'_>, Floats<'_>),
                columns: &HeadColumns,
                eps: f32,
            );
            /// dx; dγ[E] += ; dβ[E] +=
            fn head_norm_backward<T>(
                dx: Write<ViewMut<'_>>,
                d_affine: (FloatsMut<'_>, FloatsMut<'_>),
                dy: View<'_>,
                x: View<'_>,
                saved: Moments<Floats<'_>>,
                gamma: Floats<'_>,
                columns: &HeadColumns,
            );

            /// y[R,S]: each head of the columns of x[R,S], turned by the factors [P, c[E] s[E]] of
            /// its row's place. Other columns are copied.
            fn rope<T>(
                y: Write<ViewMut<'_>>,
                x: View<'_>,
                factors: Floats<'_>,
                places: &Index,
                columns: &HeadColumns,
                rotation: Rotation,
            );

            /// y = values, which are in host memory, rounded.
            fn upload<T>(y: ViewMut<'_>, values: &[f32]);
            /// y = x
            fn copy<T>(y: ViewMut<'_>, x: View<'_>);
            /// y = x, in f32.
            fn widen<T>(y: FloatsMut<'_>, x: View<'_>);
            /// y = x, rounded.
            fn round<T>(y: ViewMut<'_>, x: Floats<'_>);
            /// y = a, of each y.
            fn fill<T>(ys: Vec<ViewMut<'_>>, a: f32);
            /// y += x
            fn add_assign<T>(y: ViewMut<'_>, x: View<'_>);
            /// y = a y, of each y.
            fn scale(ys: Vec<ViewMut<'_>>, a: f32);
            /// y[R,D] = skip + factor_r scale_d branch
            fn residual<T>(
                y: ViewMut<'_>,
                skip: View<'_>,
                branch: View<'_>,
                scale: Option<Floats<'_>>,
                factor: Option<&Index<f32>>,
                width: usize,
            );
            /// dbranch[R,D]; dscale[D] +=
            fn residual_backward<T>(
                d_branch: Write<ViewMut<'_>>,
                d_scale: Option<FloatsMut<'_>>,
                dy: View<'_>,
                branch: View<'_>,
                scale: Option<Floats<'_>>,
                factor: Option<&Index<f32>>,
                width: usize,
            );

            /// y[R,F] = silu(a) b, for x[R,2F] = [a, b]
            fn swiglu<T>(y: ViewMut<'_>, x: View<'_>, width: usize);
            /// dx[R,2F]
            fn swiglu_backward<T>(
                dx: Write<ViewMut<'_>>,
                dy: View<'_>,
                x: View<'_>,
                width: usize,
            );

            /// y[K,D] = x[index_k]
            fn gather<T>(y: ViewMut<'_>, x: View<'_>, index: &Index, width: usize);
            /// dx[index_k] += dy[K,D]
            fn gather_backward<T>(dx: ViewMut<'_>, dy: View<'_>, index: &Index, width: usize);
            /// y[r] = x row or token row, + position[position_r]
            fn assemble<T>(
                y: ViewMut<'_>,
                x: View<'_>,
                tokens: Vec<Floats<'_>>,
                rows: &Index<Row>,
                position: Option<(Floats<'_>, &Index<i32>)>,
                width: usize,
            );

            /// y[B,D] = mean of each sample's rows without the first `skip`
            fn mean_pool(
                y: ViewMut<'_>,
                x: View<'_>,
                segments: &Segments,
                skip: usize,
                width: usize,
            );
            /// dx[R,D]
            fn mean_pool_backward(
                dx: Write<ViewMut<'_>>,
                dy: View<'_>,
                segments: &Segments,
                skip: usize,
                width: usize,
            );

            /// Σ_r w_r mean_d l(prediction - target), w_r = 1/R by default
            fn loss<T>(
                y: FloatsMut<'_>,
                prediction: View<'_>,
                target: Floats<'_>,
                kind: LossKind,
                weights: Option<&Index<f32>>,
                width: usize,
            );
            /// dprediction[R,D] = g w_r l'(prediction - target)/D
            fn loss_backward<T>(
                d_prediction: Write<ViewMut<'_>>,
                g: Floats<'_>,
                prediction: View<'_>,
                target: Floats<'_>,
                kind: LossKind,
                weights: Option<&Index<f32>>,
                width: usize,
            );
            /// mean_b -log softmax(logits[b])[label_b]
            fn cross_entropy(y: ViewMut<'_>, logits: View<'_>, labels: &Index, classes: usize);
            /// dlogits[B,classes]
            fn cross_entropy_backward(
                d_logits: Write<ViewMut<'_>>,
                g: View<'_>,
                logits: View<'_>,
                labels: &Index,
                classes: usize,
            );

            /// y[K, pt ph pw C]: the patches with the given indices b N + n
            fn patchify<T>(
                y: ViewMut<'_>,
                pixels: Pixels<'_>,
                layout: PatchLayout,
                patches: &Index,
            );
            /// y[R, p C]: each row (or each channel of a row) normalised to mean 0, variance 1
            fn normalize_patches(y: ViewMut<'_>, x: View<'_>, width: usize, norm: PatchNorm);

            /// One AdamW update of each parameter.
            fn adamw(parameters: Vec<AdamWOperands<View<'_>, ViewMut<'_>>>);
            /// y[1] = √(Σ_x Σ x²) over all of `xs`, with 64-bit sums in their order.
            fn norm(y: ViewMut<'_>, xs: Vec<View<'_>>);
        }
    };
}
pub(crate) use kernels;

macro_rules! device {
    ($($(#[$doc:meta])* fn $name:ident$(<$T:ident>)?($($arg:ident: $type:ty),* $(,)?);)+) => {
        /// Memory and kernels of a device.
        pub trait Device: Sync + std::panic::RefUnwindSafe {
            /// What messages call it, such as "cpu". No two devices share a name.
            fn name(&self) -> &'static str;
            /// Memory for `len` values with arbitrary content. It is returned within the step.
            fn buffer(&self, dtype: Dtype, len: usize) -> Buffer;
            /// Zeros in f32 that live for many steps, such as gradients and moments.
            fn lasting_zeros(&self, len: usize) -> Buffer;
            /// The values in host memory: borrowed if they are there, else a copy.
            fn download<'a>(&self, x: View<'a>) -> Cow<'a, [f32]>;
            $($(#[$doc])* fn $name(&self, $($arg: $type),*);)+
        }
    };
}
kernels!(device);
