//! The data set inside the binary: the test file pair of Fashion-MNIST (data/fashion-mnist).

use std::path::Path;

use crate::data::{Holdout, Idx, Normalize, Result};

const IMAGES: &[u8] = include_bytes!("../../../../../data/fashion-mnist/t10k-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../../../../data/fashion-mnist/t10k-labels-idx1-ubyte.gz");

/// The classes of Fashion-MNIST in the order of their labels (its README, "Labels").
const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// The last 1,000 of the 10,000 images are held out for probes. The first 9,000 are for training.
pub const HOLDOUT: Holdout = Holdout::Last { count: 1000 };

/// All 10,000 images, grey, 28 x 28.
pub fn fashion_mnist() -> Result<Idx> {
    let path = Path::new("builtin:fashion-mnist");
    let classes = CLASSES.iter().map(ToString::to_string).collect();
    Ok(Idx::parse(IMAGES, Some(LABELS), path, path)?.named(classes))
}

/// Mean and standard deviation of the pixels of the 9,000 training images.
pub fn fashion_mnist_normalize() -> Normalize {
    Normalize { mean: vec![0.286_298_95], std: vec![0.352_308_83] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Source;

    #[test]
    fn the_embedded_images_are_the_published_ones() {
        let source = fashion_mnist().unwrap();
        let sum = |index| source.read(index).unwrap().clip.data.iter().map(|&v| u32::from(v)).sum();
        // Sums of the first and the last image, read with Python's gzip.
        let sums: [u32; 2] = [sum(0), sum(9999)];
        assert_eq!(sums, [33_456, 24_390]);
        let labels: Vec<_> = (0..10).map(|index| source.label(index)).collect();
        assert_eq!(labels, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
        assert_eq!(source.describe(), "builtin:fashion-mnist: 10000 images of 28 x 28, 10 classes");
    }

    #[test]
    fn the_normalisation_is_that_of_the_training_images() {
        let source = fashion_mnist().unwrap();
        let (mut sum, mut squares) = (0_u64, 0_u64);
        for index in 0..9000 {
            for &value in &source.read(index).unwrap().clip.data {
                sum += u64::from(value);
                squares += u64::from(value).pow(2);
            }
        }
        let n = 9000.0 * 784.0;
        let mean = sum as f64 / n / 255.0;
        let std = (squares as f64 / n / 255.0 / 255.0 - mean * mean).sqrt();
        let Normalize { mean: found_mean, std: found_std } = fashion_mnist_normalize();
        assert!((f64::from(found_mean[0]) - mean).abs() < 1e-6);
        assert!((f64::from(found_std[0]) - std).abs() < 1e-6);
    }
}
