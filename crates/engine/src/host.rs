//! Devices whose kernels work in host memory. Their kernels take slices, and the arguments of
//! [`Device`](crate::device::Device) are unwrapped here.

use crate::device::{
    AdamWOperands, AttentionGrad, AttentionInput, Epilogue, HeadColumns, HeadRows, LinearSize,
    LossKind, Moments, PatchLayout, PatchNorm, Pixels, View, ViewMut, Write,
};
use crate::index::{Index, Segments};

/// One device's views as slices. A view of another device causes a panic, because an operation
/// mixed two devices.
pub(crate) trait HostMemory {
    /// The values to read.
    fn read(view: View<'_>) -> &[f32];
    /// The values to write.
    fn write(view: ViewMut<'_>) -> &mut [f32];
}

/// An argument of a kernel. `plain` unwraps its views of device `M` to slices.
pub(crate) trait HostArg<M> {
    type Plain;
    fn plain(self) -> Self::Plain;
}

impl<'a, M: HostMemory> HostArg<M> for View<'a> {
    type Plain = &'a [f32];
    fn plain(self) -> &'a [f32] {
        M::read(self)
    }
}

impl<'a, M: HostMemory> HostArg<M> for ViewMut<'a> {
    type Plain = &'a mut [f32];
    fn plain(self) -> &'a mut [f32] {
        M::write(self)
    }
}

impl<M, A: HostArg<M>> HostArg<M> for Vec<A> {
    type Plain = Vec<A::Plain>;
    fn plain(self) -> Self::Plain {
        self.into_iter().map(A::plain).collect()
    }
}

impl<M, V: HostArg<M>> HostArg<M> for Option<V> {
    type Plain = Option<V::Plain>;
    fn plain(self) -> Self::Plain {
        self.map(V::plain)
    }
}

impl<M, A: HostArg<M>, B: HostArg<M>> HostArg<M> for (A, B) {
    type Plain = (A::Plain, B::Plain);
    fn plain(self) -> Self::Plain {
        (self.0.plain(), self.1.plain())
    }
}

impl<M, V: HostArg<M>> HostArg<M> for Moments<V> {
    type Plain = Moments<V::Plain>;
    fn plain(self) -> Self::Plain {
        Moments { mean: self.mean.plain(), rstd: self.rstd.plain() }
    }
}

impl<M, V: HostArg<M>, W: HostArg<M>> HostArg<M> for AdamWOperands<V, W> {
    type Plain = AdamWOperands<V::Plain, W::Plain>;
    fn plain(self) -> Self::Plain {
        AdamWOperands {
            value: self.value.plain(),
            first: self.first.plain(),
            second: self.second.plain(),
            grad: self.grad.plain(),
            step: self.step,
        }
    }
}

impl<M, W: HostArg<M>> HostArg<M> for Write<W> {
    type Plain = Write<W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::Set(view) => Write::Set(view.plain()),
            Self::Add(view) => Write::Add(view.plain()),
        }
    }
}

impl<M, V: HostArg<M>, W: HostArg<M>> HostArg<M> for Epilogue<V, W> {
    type Plain = Epilogue<V::Plain, W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::None => Epilogue::None,
            Self::Gelu(pre) => Epilogue::Gelu(pre.plain()),
            Self::Residual(residual) => Epilogue::Residual(residual.plain()),
        }
    }
}

impl<M, W: HostArg<M>> HostArg<M> for AttentionGrad<W> {
    type Plain = AttentionGrad<W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::Packed(grad) => AttentionGrad::Packed(grad.plain()),
            Self::Split(dq, d_kv) => AttentionGrad::Split(dq.plain(), d_kv.plain()),
        }
    }
}

impl<M, V: HostArg<M>> HostArg<M> for HeadRows<V> {
    type Plain = HeadRows<V::Plain>;
    fn plain(self) -> Self::Plain {
        HeadRows { data: self.data.plain(), stride: self.stride, offset: self.offset }
    }
}

impl<'a, M, V: HostArg<M>> HostArg<M> for AttentionInput<'a, V> {
    type Plain = AttentionInput<'a, V::Plain>;
    fn plain(self) -> Self::Plain {
        AttentionInput {
            q: self.q.plain(),
            k: self.k.plain(),
            v: self.v.plain(),
            q_segments: self.q_segments,
            k_segments: self.k_segments,
            heads: self.heads,
            head_dim: self.head_dim,
        }
    }
}

impl<'a, M, T> HostArg<M> for &'a Index<T> {
    type Plain = &'a [T];
    fn plain(self) -> &'a [T] {
        self.as_slice()
    }
}

impl<'a, M> HostArg<M> for &'a Segments {
    type Plain = &'a [usize];
    fn plain(self) -> &'a [usize] {
        self.offsets()
    }
}

macro_rules! hold_no_view {
    ($($type:ty),*) => {$(
        impl<M> HostArg<M> for $type {
            type Plain = Self;
            fn plain(self) -> Self {
                self
            }
        }
    )*};
}
hold_no_view!(
    usize,
    f32,
    LinearSize,
    LossKind,
    PatchLayout,
    PatchNorm,
    Pixels<'_>,
    &HeadColumns,
    &[f32]
);

/// Implements each kernel of a device by the function of the same name.
macro_rules! by_functions {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?);)+) => {$(
        fn $name(&self, $($arg: $type),*) {
            $name($($crate::host::HostArg::<Self>::plain($arg)),*);
        }
    )+};
}
pub(crate) use by_functions;
