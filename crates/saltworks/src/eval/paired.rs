//! Compares two encoders on the same test images.

use super::Prediction;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::cmp::Ordering;
use std::fmt::Write as _;

/// Which test images a probe classifies right. In files it is hexadecimal: a byte for eight images,
/// the first one in the lowest bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightImages(Vec<u8>);

impl RightImages {
    /// Compares the predicted classes with the `truth` `[B]`.
    pub fn new(prediction: &Prediction, truth: &[u32]) -> Self {
        let mut bytes = vec![0; truth.len().div_ceil(8)];
        for (image, (label, truth)) in prediction.labels.iter().zip(truth).enumerate() {
            bytes[image / 8] |= u8::from(label == truth) << (image % 8);
        }
        Self(bytes)
    }

    /// `Greater` if more images are right here than in `other`, and chance hardly explains it: the
    /// p-value of [`mcnemar`] is below `level`. `Equal` if chance may explain it. None if the two
    /// are not of as many images. Both must be of the same images in the same order.
    pub fn compare(&self, other: &Self, level: f64) -> Option<Ordering> {
        if self.0.len() != other.0.len() {
            return None;
        }
        let only = |these: &Self, those: &Self| {
            let bytes = these.0.iter().zip(&those.0);
            bytes.map(|(this, that)| u64::from((this & !that).count_ones())).sum()
        };
        let (here, there) = (only(self, other), only(other, self));
        let differ = mcnemar(here, there) < level;
        Some(if differ { here.cmp(&there) } else { Ordering::Equal })
    }
}

impl Serialize for RightImages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = self.0.iter().fold(String::new(), |mut text, byte| {
            // A string takes all that is written to it.
            let _ = write!(text, "{byte:02x}");
            text
        });
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for RightImages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0);
        let digits = digits.ok_or_else(|| {
            de::Error::invalid_value(de::Unexpected::Str(&text), &"pairs of hexadecimal digits")
        })?;
        let byte = |pair: &[u32]| u8::try_from(16 * pair[0] + pair[1]).unwrap_or(u8::MAX);
        Ok(Self(digits.chunks_exact(2).map(byte).collect()))
    }
}

/// The p-value that two encoders are equally accurate, if so many images are right only with the
/// first one and so many only with the second: the two-sided binomial test of McNemar 1947. It is
/// exact.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let (few, all) = (only_first.min(only_second), only_first + only_second);
    // Terms are binomial(all, right) / 2^all, from right = 0 on.
    let mut log_term = -(all as f64) * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for right in 1..=few {
        log_term += ((all - right + 1) as f64 / right as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scipy.stats.binomtest(b, b + c, 0.5).pvalue.
    #[test]
    fn p_values_are_the_published_ones() {
        for (b, c, expected) in [
            (0, 8, 0.0078125),
            (3, 9, 0.14599609375),
            (10, 10, 1.0),
            (40, 75, 0.001412957497608),
            (900, 1100, 8.45708953550381e-06),
            (2000, 2300, 5.079935568924055e-06),
        ] {
            let got = mcnemar(b, c);
            assert!((got - expected).abs() < 1e-9 * expected, "{b}, {c}: {got}");
            assert_eq!(got.to_bits(), mcnemar(c, b).to_bits());
        }
        assert_eq!(mcnemar(0, 0), 1.0);
    }

    fn right(images: &[bool]) -> RightImages {
        let labels: Vec<u32> = images.iter().map(|right| u32::from(*right)).collect();
        let truth = vec![1; labels.len()];
        RightImages::new(&Prediction::new(labels, &truth), &truth)
    }

    #[test]
    fn images_are_kept_in_files_bit_by_bit() {
        let images = right(&[true, false, false, false, true, false, false, true, true]);
        let text = serde_json::to_string(&images).unwrap();
        assert_eq!(text, "\"9101\"");
        assert_eq!(serde_json::from_str::<RightImages>(&text).unwrap(), images);
        for damaged in ["\"910\"", "\"9g\"", "\"é1\"", "7"] {
            assert!(serde_json::from_str::<RightImages>(damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn pairs_show_what_shares_alone_do_not() {
        // 8 of 100 images are right only with the second encoder, none only with the first.
        let first: Vec<bool> = (0..100).map(|image| image < 60).collect();
        let second: Vec<bool> = (0..100).map(|image| image < 68).collect();
        let [first, second] = [first, second].map(|images| right(&images));
        assert_eq!(second.compare(&first, 0.01), Some(Ordering::Greater));
        assert_eq!(second.compare(&first, 0.005), Some(Ordering::Equal), "p is 0.0078");
        assert_eq!(first.compare(&second, 0.01), Some(Ordering::Less));
        // The same shares, but the encoders disagree on many images: 30 and 38.
        let other: Vec<bool> = (0..100).map(|image| !(30..62).contains(&image)).collect();
        assert_eq!(right(&other).compare(&first, 0.01), Some(Ordering::Equal));
        assert_eq!(first.compare(&right(&[true; 9]), 0.01), None);
    }
}
