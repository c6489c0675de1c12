//! The clips inside the binary: images of Fashion-MNIST that move over a still background. A clip
//! is a function of its number, so none is stored.

use super::{Idx, Source};
use crate::data::{Clip, Result, Sample, Stamp};
use engine::random::Random;
use std::sync::Arc;

/// T, the frames of a clip.
const FRAMES: usize = 8;
/// H and W, the sides of a frame.
const SIDE: usize = 48;
/// The sides of an image that moves.
const SPRITE: usize = 28;
/// How many clips there are.
const CLIPS: usize = 7000;
/// The images of Fashion-MNIST.
const SPRITES: usize = 10_000;
/// The slowest and the fastest motion, in pixels a frame.
const SPEED: [f32; 2] = [1.0, 3.0];

/// The brightest background, which hides little of the images.
const BACKGROUND: f32 = 0.3 * 255.0;
/// Values of the background along a side. Between them, it is interpolated.
const KNOTS: usize = 5;

/// The sets of labels: where the image moves, and what it shows.
const LABEL_SETS: [&str; 2] = ["motion", "what"];

/// The directions with their steps down and to the right, at speed 1.
const DIRECTIONS: [(&str, f32, f32); 8] = [
    ("right", 0.0, 1.0),
    ("down right", HALF, HALF),
    ("down", 1.0, 0.0),
    ("down left", HALF, -HALF),
    ("left", 0.0, -1.0),
    ("up left", -HALF, -HALF),
    ("up", -1.0, 0.0),
    ("up right", -HALF, HALF),
];
const HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Clips [8, 48, 48] of one grey image in motion, which covers what is darker. What leaves a frame
/// on one side comes back on the other, so a single frame tells nothing of the direction.
#[derive(Debug)]
pub(super) struct MovingFashion {
    sprites: Arc<Idx>,
    /// The index of its labels among [`LABEL_SETS`].
    set: usize,
    classes: Vec<String>,
}

/// What a clip shows.
struct Motion {
    sprite: usize,
    direction: usize,
    /// Pixels a frame.
    speed: f32,
    /// The row and column of the image's first pixel in the first frame.
    start: [f32; 2],
    background: [[f32; KNOTS]; KNOTS],
}

impl Motion {
    fn of(number: usize) -> Self {
        let mut random = Random::new(0, "moving-fashion", number as u64);
        // Each clip has an image of its own, in their order: however many are held out from the
        // end, they show other images.
        let sprite = number * SPRITES / CLIPS;
        let direction = random.below(DIRECTIONS.len());
        let speed = SPEED[0] + (SPEED[1] - SPEED[0]) * random.uniform();
        let start = [0; 2].map(|_| SIDE as f32 * random.uniform());
        let background = [[0; KNOTS]; KNOTS].map(|row| row.map(|_| BACKGROUND * random.uniform()));
        Self { sprite, direction, speed, start, background }
    }

    /// The background of all frames.
    fn background(&self) -> Vec<u8> {
        // The knots left or above a pixel, and how far it is from there to the next one.
        let place = |pixel: usize| {
            let at = pixel as f32 * (KNOTS - 1) as f32 / (SIDE - 1) as f32;
            let knot = (at as usize).min(KNOTS - 2);
            (knot, at - knot as f32)
        };
        let pixel = |at: usize| {
            let ((row, below), (column, beside)) = (place(at / SIDE), place(at % SIDE));
            let value = |row: usize| {
                let knots = &self.background[row][column..];
                knots[0] * (1.0 - beside) + knots[1] * beside
            };
            (value(row) * (1.0 - below) + value(row + 1) * below + 0.5) as u8
        };
        (0..SIDE * SIDE).map(pixel).collect()
    }

    /// Draws the image into a frame, where it is brighter. Between pixels, it is interpolated.
    fn draw(&self, sprite: &[u8], time: usize, frame: &mut [u8]) {
        let (_, down, right) = DIRECTIONS[self.direction];
        let way = self.speed * time as f32;
        let [y, x] = [self.start[0] + way * down, self.start[1] + way * right]
            .map(|place| place.rem_euclid(SIDE as f32));
        let ([row, column], [below, beside]) =
            ([y, x].map(|at| at as usize), [y.fract(), x.fract()]);
        let pixel = |row: usize, column: usize| {
            // One row and one column around the image are black.
            let inside = (1..=SPRITE).contains(&row) && (1..=SPRITE).contains(&column);
            if inside { f32::from(sprite[(row - 1) * SPRITE + column - 1]) } else { 0.0 }
        };
        for r in 0..=SPRITE {
            for c in 0..=SPRITE {
                let upper = pixel(r, c) * beside + pixel(r, c + 1) * (1.0 - beside);
                let lower = pixel(r + 1, c) * beside + pixel(r + 1, c + 1) * (1.0 - beside);
                let value = upper * below + lower * (1.0 - below);
                let shown = &mut frame[(row + r) % SIDE * SIDE + (column + c) % SIDE];
                *shown = (*shown).max((value + 0.5) as u8);
            }
        }
    }
}

impl MovingFashion {
    /// The clips, with the labels `motion`.
    pub(super) fn new(sprites: Idx) -> Self {
        Self::labelled(Arc::new(sprites), 0)
    }

    fn labelled(sprites: Arc<Idx>, set: usize) -> Self {
        let classes = match set {
            0 => DIRECTIONS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            _ => sprites.classes().to_vec(),
        };
        Self { sprites, set, classes }
    }
}

impl Source for MovingFashion {
    fn len(&self) -> usize {
        CLIPS
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let motion = Motion::of(index);
        let sprite = self.sprites.read(motion.sprite)?.clip.data;
        let mut data = motion.background().repeat(FRAMES);
        for (time, frame) in data.chunks_exact_mut(SIDE * SIDE).enumerate() {
            motion.draw(&sprite, time, frame);
        }
        let clip = Clip { frames: FRAMES, ..Clip::image(SIDE, SIDE, 1, data) };
        Ok(Sample { clip, label: self.label(index), name: self.stamp(index).name })
    }

    fn stamp(&self, index: usize) -> Stamp {
        let bytes = (FRAMES * SIDE * SIDE) as u64;
        Stamp { name: format!("builtin:moving-fashion clip {index}"), bytes }
    }

    fn label(&self, index: usize) -> i32 {
        let motion = Motion::of(index);
        match self.set {
            0 => motion.direction as i32,
            _ => self.sprites.label(motion.sprite),
        }
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label_sets(&self) -> Vec<String> {
        LABEL_SETS.map(str::to_owned).to_vec()
    }

    fn labelled_by(&self, set: &str) -> Option<Arc<dyn Source>> {
        let set = LABEL_SETS.iter().position(|known| *known == set)?;
        Some(Arc::new(Self::labelled(self.sprites.clone(), set)))
    }

    fn frames(&self) -> [usize; 2] {
        [FRAMES; 2]
    }

    fn describe(&self) -> String {
        let (clips, classes) = (self.len(), self.classes.len());
        format!(
            "builtin:moving-fashion: {clips} clips of {FRAMES} x {SIDE} x {SIDE}, {classes} classes"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::builtin::fashion_mnist;
    use std::collections::BTreeSet;

    fn clips() -> MovingFashion {
        MovingFashion::new(fashion_mnist().unwrap())
    }

    /// The place of what is bright on a circle of 48 pixels, along rows or columns.
    fn place(frame: &[u8], along_rows: bool) -> f32 {
        let (mut sine, mut cosine) = (0.0, 0.0);
        for (at, &value) in frame.iter().enumerate() {
            let place = if along_rows { at / SIDE } else { at % SIDE };
            let angle = place as f32 * std::f32::consts::TAU / SIDE as f32;
            sine += f32::from(value) * angle.sin();
            cosine += f32::from(value) * angle.cos();
        }
        sine.atan2(cosine) * SIDE as f32 / std::f32::consts::TAU
    }

    #[test]
    fn what_is_bright_moves_as_the_label_says() {
        let clips = clips();
        let mut seen = BTreeSet::new();
        for index in 0..80 {
            let sample = clips.read(index).unwrap();
            let (name, down, right) = DIRECTIONS[sample.label as usize];
            assert_eq!(clips.classes()[sample.label as usize], name);
            let motion = Motion::of(index);
            let speed = motion.speed;
            assert!((SPEED[0]..SPEED[1]).contains(&speed));
            let sprite = clips.sprites.read(motion.sprite).unwrap().clip.data;
            let background = motion.background();
            let drawn = (0..FRAMES).map(|time| {
                let mut frame = vec![0; SIDE * SIDE];
                motion.draw(&sprite, time, &mut frame);
                frame
            });
            let frames: Vec<_> = drawn.collect();
            for (shown, frame) in sample.clip.data.chunks_exact(SIDE * SIDE).zip(&frames) {
                let brighter = frame.iter().zip(&background).map(|(one, other)| one.max(other));
                assert!(shown.iter().eq(brighter));
            }
            assert_eq!(frames.len(), FRAMES);
            for pair in frames.windows(2) {
                for (along_rows, step) in [(true, down), (false, right)] {
                    let moved = place(&pair[1], along_rows) - place(&pair[0], along_rows);
                    let wrapped = (moved + 24.0).rem_euclid(48.0) - 24.0;
                    let wanted = step * speed;
                    assert!((wrapped - wanted).abs() < 0.1, "{index} {name}: {wrapped}, {wanted}");
                }
            }
            seen.insert(sample.label);
        }
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_clip_is_a_function_of_its_number_and_shows_the_image_of_its_label() {
        let (clips, images) = (clips(), fashion_mnist().unwrap());
        let what = clips.labelled_by("what").unwrap();
        assert_eq!(what.classes(), images.classes());
        assert!(clips.labelled_by("where").is_none());
        for index in [0, 17, 6999] {
            let (one, again) = (clips.read(index).unwrap(), what.read(index).unwrap());
            assert_eq!(one.clip.data, again.clip.data);
            let sprite = Motion::of(index).sprite;
            assert_eq!(what.label(index), images.label(sprite));
            assert_eq!(again.label, what.label(index));
            // Interpolation keeps the sum of the pixels, apart from rounding.
            let sum = |data: &[u8]| data.iter().map(|&value| f32::from(value)).sum::<f32>();
            let whole = sum(&images.read(sprite).unwrap().clip.data);
            let mut frame = vec![0; SIDE * SIDE];
            Motion::of(index).draw(&images.read(sprite).unwrap().clip.data, 0, &mut frame);
            let frame = sum(&frame);
            assert!((frame / whole - 1.0).abs() < 0.01, "{frame} of {whole}");
        }
        // The bytes must stay the same on every processor and in every version.
        let data = clips.read(0).unwrap().clip.data;
        let digest = crate::files::sha256(&data);
        assert_eq!(digest, "bfcfe042da1d5b1cf55fe7bc84457228b98228474aa2966f3c4b9cdcc88dbf77");
    }

    #[test]
    fn every_clip_shows_another_image_and_classes_are_balanced() {
        let later = (1..CLIPS).all(|clip| Motion::of(clip - 1).sprite < Motion::of(clip).sprite);
        assert!(later && Motion::of(CLIPS - 1).sprite < SPRITES);
        let clips = clips();
        for set in LABEL_SETS {
            let clips = clips.labelled_by(set).unwrap();
            let count = |class| (0..CLIPS).filter(|&index| clips.label(index) == class).count();
            let fair = CLIPS / clips.classes().len();
            let classes = 0..clips.classes().len() as i32;
            assert!(classes.map(count).all(|found| found.abs_diff(fair) < fair / 10), "{set}");
        }
    }
}
