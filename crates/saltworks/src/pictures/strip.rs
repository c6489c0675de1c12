//! A clip as one picture: the first frame of each of its patches along time, from left to right. An
//! image is a strip of one frame.

use crate::mask::Grid;
use crate::model::VitSpec;
use engine::Result;
use engine::ops::Images;

/// How the frames and tokens of a model's clips lie in a strip.
pub(super) struct Strip {
    /// The model's token in each cell of the strip, row by row.
    tokens: Vec<u32>,
    /// Frames that are shown.
    frames: usize,
    /// Frames of a patch.
    patch_frames: usize,
    /// The sizes of a model whose image is the strip.
    spec: VitSpec,
}

impl Strip {
    pub(super) fn new(model: &VitSpec) -> Self {
        let (Grid { t, h, w }, [patch_frames, ph, pw]) = (model.grid(), model.patch);
        let [_, height, width] = model.image;
        let image = [1, height, width * t];
        let spec = VitSpec { image, patch: [1, ph, pw], ..model.clone() };
        let token = |cell: usize| {
            let (row, time, column) = (cell / (t * w), cell / w % t, cell % w);
            ((time * h + row) * w + column) as u32
        };
        Self { tokens: (0..t * h * w).map(token).collect(), frames: t, patch_frames, spec }
    }

    /// The sizes of a model whose image is the strip.
    pub(super) fn spec(&self) -> &VitSpec {
        &self.spec
    }

    /// The model's token in each cell of the strip, row by row.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The frames that are shown, [B, C, T, H, W].
    pub(super) fn shown(&self, clips: &Images) -> Result<Images> {
        let frames: Vec<usize> = (0..self.frames).map(|time| time * self.patch_frames).collect();
        clips.with_frames(&vec![frames; clips.samples()])
    }

    /// The frame that is shown of a patch's values: [C, t, p] -> [C, p].
    pub(super) fn first_frame(&self, patch: &[f32]) -> Vec<f32> {
        let channel = patch.len() / self.spec.channels;
        let frames = patch.chunks_exact(channel);
        frames.flat_map(|values| values[..channel / self.patch_frames].to_vec()).collect()
    }

    /// Values for each token in the order of the strip's cells.
    pub(super) fn ordered<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.tokens.iter().map(|&token| values[token as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_clip_lie_side_by_side_and_those_of_an_image_as_they_are() {
        let base = VitSpec::from_name("vit_tiny_patch16_224").unwrap();
        let clip = VitSpec { image: [4, 4, 6], patch: [2, 2, 2], channels: 2, ..base };
        let strip = Strip::new(&clip);
        assert_eq!(strip.spec().image, [1, 4, 12]);
        // Two rows: three columns of the first step of time, then three of the second.
        assert_eq!(strip.tokens(), [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]);
        let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
        assert_eq!(strip.first_frame(&values), [0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]);
        let clips = Images::f32((0..192).map(|at| at as f32).collect::<Vec<_>>(), [1, 2, 4, 4, 6]);
        assert_eq!(strip.shown(&clips.unwrap()).unwrap().shape(), [1, 2, 2, 4, 6]);
        let image = VitSpec { image: [1, 4, 6], patch: [1, 2, 2], ..clip };
        assert_eq!(Strip::new(&image).tokens(), [0, 1, 2, 3, 4, 5]);
    }
}
