//! Devices whose kernels work in host memory. Their kernels take slices, and the arguments of
//! [`Device`](crate::device::Device) are unwrapped here.

use crate::device::{
    AdamWOperands, AttentionGrad, AttentionInput, Epilogue, Full, HeadColumns, HeadRows,
    LinearSize, LossKind, Moments, PatchLayout, PatchNorm, Pixels, Rotation, View, ViewMut, Write,
};
use crate::dtype::{Dtype, Element, Slice, SliceMut};
use crate::index::{Index, Segments};

/// One device's views as slices. A view of another device causes a panic, because an operation
/// mixed two devices.
pub(crate) trait HostMemory {
    /// The values to read.
    fn read(view: View<'_>) -> Slice<'_>;
    /// The values to write.
    fn write(view: ViewMut<'_>) -> SliceMut<'_>;
}

/// An argument of a kernel whose activations have type `T`. `plain` unwraps its views of device `M`
/// to slices.
pub(crate) trait HostArg<M, T> {
    type Plain;
    fn plain(self) -> Self::Plain;
    /// The type of the activations, if this argument holds any.
    fn dtype(&self) -> Option<Dtype> {
        None
    }
}

/// Operations check the types of their tensors before they call a kernel.
const ONE_TYPE: &str = "all activations of a kernel have one type, all its other tensors are f32";

impl<'a, M: HostMemory, T: Element> HostArg<M, T> for View<'a> {
    type Plain = &'a [T];
    fn plain(self) -> &'a [T] {
        T::of(M::read(self)).expect(ONE_TYPE)
    }
    fn dtype(&self) -> Option<Dtype> {
        Some(View::dtype(self))
    }
}

impl<'a, M: HostMemory, T: Element> HostArg<M, T> for ViewMut<'a> {
    type Plain = &'a mut [T];
    fn plain(self) -> &'a mut [T] {
        T::of_mut(M::write(self)).expect(ONE_TYPE)
    }
    fn dtype(&self) -> Option<Dtype> {
        Some(ViewMut::dtype(self))
    }
}

impl<M, T, V: HostArg<M, f32>> HostArg<M, T> for Full<V> {
    type Plain = V::Plain;
    fn plain(self) -> Self::Plain {
        self.0.plain()
    }
}

impl<M, T, A: HostArg<M, T>> HostArg<M, T> for Vec<A> {
    type Plain = Vec<A::Plain>;
    fn plain(self) -> Self::Plain {
        self.into_iter().map(A::plain).collect()
    }
    fn dtype(&self) -> Option<Dtype> {
        self.first()?.dtype()
    }
}

impl<M, T, V: HostArg<M, T>> HostArg<M, T> for Option<V> {
    type Plain = Option<V::Plain>;
    fn plain(self) -> Self::Plain {
        self.map(V::plain)
    }
}

impl<M, T, A: HostArg<M, T>, B: HostArg<M, T>> HostArg<M, T> for (A, B) {
    type Plain = (A::Plain, B::Plain);
    fn plain(self) -> Self::Plain {
        (self.0.plain(), self.1.plain())
    }
}

impl<M, T, V: HostArg<M, T>> HostArg<M, T> for Moments<V> {
    type Plain = Moments<V::Plain>;
    fn plain(self) -> Self::Plain {
        Moments { mean: self.mean.plain(), rstd: self.rstd.plain() }
    }
}

impl<M, T, V: HostArg<M, T>, W: HostArg<M, T>> HostArg<M, T> for AdamWOperands<V, W> {
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

impl<M, T, W: HostArg<M, T>> HostArg<M, T> for Write<W> {
    type Plain = Write<W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::Set(view) => Write::Set(view.plain()),
            Self::Add(view) => Write::Add(view.plain()),
        }
    }
    fn dtype(&self) -> Option<Dtype> {
        match self {
            Self::Set(view) | Self::Add(view) => view.dtype(),
        }
    }
}

impl<M, T, V: HostArg<M, T>, W: HostArg<M, T>> HostArg<M, T> for Epilogue<V, W> {
    type Plain = Epilogue<V::Plain, W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::None => Epilogue::None,
            Self::Gelu(pre) => Epilogue::Gelu(pre.plain()),
            Self::Residual(residual) => Epilogue::Residual(residual.plain()),
        }
    }
}

impl<M, T, W: HostArg<M, T>> HostArg<M, T> for AttentionGrad<W> {
    type Plain = AttentionGrad<W::Plain>;
    fn plain(self) -> Self::Plain {
        match self {
            Self::Packed(grad) => AttentionGrad::Packed(grad.plain()),
            Self::Split(dq, d_kv) => AttentionGrad::Split(dq.plain(), d_kv.plain()),
        }
    }
}

impl<M, T, V: HostArg<M, T>> HostArg<M, T> for HeadRows<V> {
    type Plain = HeadRows<V::Plain>;
    fn plain(self) -> Self::Plain {
        HeadRows { data: self.data.plain(), stride: self.stride, offset: self.offset }
    }
}

impl<'a, M, T, V: HostArg<M, T>> HostArg<M, T> for AttentionInput<'a, V> {
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

impl<'a, M, T, I> HostArg<M, T> for &'a Index<I> {
    type Plain = &'a [I];
    fn plain(self) -> &'a [I] {
        self.as_slice()
    }
}

impl<'a, M, T> HostArg<M, T> for &'a Segments {
    type Plain = &'a [usize];
    fn plain(self) -> &'a [usize] {
        self.offsets()
    }
}

macro_rules! hold_no_view {
    ($($type:ty),*) => {$(
        impl<M, T> HostArg<M, T> for $type {
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
    Rotation,
    &HeadColumns,
    &[f32]
);

/// Implements each kernel of a device by the function of the same name. A kernel with `<T>` takes
/// the type of its activations from the first argument that holds any.
macro_rules! by_functions {
    ($($(#[$doc:meta])* fn $name:ident$(<$T:ident>)?($($arg:ident: $type:ty),* $(,)?);)+) => {$(
        fn $name(&self, $($arg: $type),*) {
            $crate::host::call!($name$(<$T>)?, Self, $($arg: $type),*);
        }
    )+};
}
pub(crate) use by_functions;

/// Calls the function with its arguments as slices.
macro_rules! call {
    ($name:ident<T>, $device:ty, $($arg:ident: $type:ty),*) => {
        let dtype =
            None$(.or_else(|| <$type as $crate::host::HostArg<$device, f32>>::dtype(&$arg)))*;
        match dtype {
            Some($crate::dtype::Dtype::Bf16) => {
                type T = $crate::dtype::Bf16;
                $name($(<$type as $crate::host::HostArg<$device, T>>::plain($arg)),*);
            }
            _ => $crate::host::call!($name, $device, $($arg: $type),*),
        }
    };
    ($name:ident, $device:ty, $($arg:ident: $type:ty),*) => {
        $name($(<$type as $crate::host::HostArg<$device, f32>>::plain($arg)),*)
    };
}
pub(crate) use call;
