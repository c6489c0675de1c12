//! A batch of clips in host memory, as bytes or as values.

use crate::device::{Device, Pixels};
use crate::shape::expect_count;
use crate::{Dtype, HOST, Result};
use std::sync::Arc;

/// A batch of clips [B, C, T, H, W]; an image has T = 1.
#[derive(Clone)]
pub struct Images {
    shape: [usize; 5],
    data: Data,
    device: &'static dyn Device,
    dtype: Dtype,
}

#[derive(Clone)]
enum Data {
    U8 { bytes: Arc<[u8]>, mean: Vec<f32>, std: Vec<f32> },
    F32(Values),
}

/// Values that somebody owns.
type Values = Arc<dyn AsRef<[f32]> + Send + Sync>;

impl Images {
    /// Bytes; a value v of channel c stands for (v/255 - mean_c)/std_c.
    pub fn u8(
        bytes: impl Into<Arc<[u8]>>,
        shape: [usize; 5],
        mean: Vec<f32>,
        std: Vec<f32>,
    ) -> Result<Self> {
        let bytes = bytes.into();
        expect_count("images", "the number of bytes", bytes.len(), shape.iter().product())?;
        expect_count("images", "the channel means", mean.len(), shape[1])?;
        expect_count("images", "the channel deviations", std.len(), shape[1])?;
        Ok(Self { shape, data: Data::U8 { bytes, mean, std }, device: HOST, dtype: Dtype::F32 })
    }

    /// Values normalised already.
    pub fn f32(
        values: impl AsRef<[f32]> + Send + Sync + 'static,
        shape: [usize; 5],
    ) -> Result<Self> {
        let count = values.as_ref().len();
        expect_count("images", "the number of values", count, shape.iter().product())?;
        Ok(Self { shape, data: Data::F32(Arc::new(values)), device: HOST, dtype: Dtype::F32 })
    }

    /// The same pixels, whose patches are cut on `device`.
    pub fn to(&self, device: &'static dyn Device) -> Self {
        Self { device, ..self.clone() }
    }

    /// The same pixels, whose patches are stored as `dtype`: f32 by default.
    pub fn with_dtype(&self, dtype: Dtype) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// How its patches are stored.
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Where its patches are cut.
    pub(crate) fn device(&self) -> &'static dyn Device {
        self.device
    }

    /// [B, C, T, H, W] in pixels.
    pub fn shape(&self) -> [usize; 5] {
        self.shape
    }

    /// The bytes, where it holds bytes and not values.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Data::U8 { bytes, .. } => Some(bytes),
            Data::F32(_) => None,
        }
    }

    /// B
    pub fn samples(&self) -> usize {
        self.shape[0]
    }

    /// Tokens (t, h, w) per sample under this patch size.
    pub fn grid(&self, patch: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| self.shape[2 + axis] / patch[axis])
    }

    /// Clips of these frames, in this order: a list for each clip, all of one length. A frame may
    /// occur several times.
    ///
    /// # Errors
    /// Another number of lists, lists of several lengths or of none, or frames that clips lack.
    pub fn with_frames(&self, frames: &[Vec<usize>]) -> Result<Self> {
        let [b, c, t, h, w] = self.shape;
        let length = frames.first().map_or(0, Vec::len).max(1);
        let fits = |list: &&Vec<usize>| list.len() == length && list.iter().all(|&frame| frame < t);
        expect_count("images", "the lists of frames", frames.iter().filter(fits).count(), b)?;
        let of_plane =
            |plane: usize| frames[plane / c].iter().map(move |frame| (plane * t + frame) * h * w);
        let starts = (0..b * c).flat_map(of_plane);
        let data = match &self.data {
            Data::U8 { bytes, mean, std } => {
                let bytes = starts.flat_map(|start| &bytes[start..start + h * w]).copied();
                let (mean, std) = (mean.clone(), std.clone());
                Data::U8 { bytes: bytes.collect(), mean, std }
            }
            Data::F32(values) => {
                let values = (**values).as_ref();
                let values = starts.flat_map(|start| &values[start..start + h * w]).copied();
                Data::F32(Arc::new(values.collect::<Vec<f32>>()))
            }
        };
        Ok(Self { shape: [b, c, length, h, w], data, ..self.clone() })
    }

    pub(crate) fn pixels(&self) -> Pixels<'_> {
        match &self.data {
            Data::U8 { bytes, mean, std } => Pixels::U8 { data: bytes, mean, std },
            Data::F32(values) => Pixels::F32((**values).as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_chosen_in_any_order_within_each_channel() {
        // Two samples of two channels and three frames of 1 x 2 pixels.
        let bytes: Vec<u8> = (0..24).collect();
        let shape = [2, 2, 3, 1, 2];
        let images = Images::u8(bytes.clone(), shape, vec![0.0; 2], vec![1.0; 2]).unwrap();
        let chosen = images.with_frames(&[vec![2, 0], vec![0, 1]]).unwrap();
        assert_eq!(chosen.shape(), [2, 2, 2, 1, 2]);
        let wanted = [4, 5, 0, 1, 10, 11, 6, 7, 12, 13, 14, 15, 18, 19, 20, 21];
        assert_eq!(chosen.bytes(), Some(&wanted[..]));
        let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
        let repeated =
            Images::f32(values, shape).unwrap().with_frames(&vec![vec![1; 3]; 2]).unwrap();
        let Pixels::F32(values) = repeated.pixels() else { panic!("values") };
        assert_eq!(values[..8], [2.0, 3.0, 2.0, 3.0, 2.0, 3.0, 8.0, 9.0]);
        let wrong = [&[][..], &[vec![0]], &[vec![3], vec![0]], &[vec![0], vec![0, 1]]];
        assert!(wrong.into_iter().all(|lists| images.with_frames(lists).is_err()));
        assert!(images.with_frames(&[vec![], vec![]]).is_err());
    }
}
