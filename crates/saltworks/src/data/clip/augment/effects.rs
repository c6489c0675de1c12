//! Changes of an image's colours and sharpness, each applied with its own chance. They are those of
//! SimCLR and DINO. All are off by default, as MAE and SALT train without them. Definitions are
//! those of torchvision 0.29. The random numbers are our own.

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::{blur, color};
use crate::data::{Clip, Error, Result};
use crate::range::Range;

/// Changes that may be applied to a crop, in this order. Those that are not set are not applied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effects {
    /// Brightness, contrast, saturation and hue.
    pub jitter: Option<Jitter>,
    /// The chance of `RandomGrayscale`.
    pub greyscale: f64,
    /// `GaussianBlur`.
    pub blur: Option<Blur>,
    /// `RandomSolarize`.
    pub solarize: Option<Solarize>,
}

/// `ColorJitter`: for a value x, the first three are multiplied by a factor from 1 - x to 1 + x.
/// Hue is turned by -x to x of the circle. The order of the four is random.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// 0 for none.
    pub brightness: f64,
    /// 0 for none.
    pub contrast: f64,
    /// 0 for none.
    pub saturation: f64,
    /// 0 for none, at most 0.5.
    pub hue: f64,
    /// The chance that it is applied.
    pub chance: f64,
}

impl Default for Jitter {
    /// torchvision's: what is not set does not change.
    fn default() -> Self {
        Self { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, chance: 1.0 }
    }
}

/// Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blur {
    /// Side of the window in pixels, an odd number.
    pub kernel: usize,
    /// σ in pixels, drawn uniformly.
    pub sigma: Range,
    /// The chance that it is applied.
    pub chance: f64,
}

impl Default for Blur {
    /// SimCLR's sigma and chance. The window is a tenth of 224 pixels (appendix A).
    fn default() -> Self {
        Self { kernel: 23, sigma: Range::new(0.1, 2.0), chance: 0.5 }
    }
}

/// Inverts values at or above the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Solarize {
    /// 0 to 255.
    pub threshold: u8,
    /// The chance that it is applied.
    pub chance: f64,
}

impl Default for Solarize {
    /// DINO's (main_dino.py, second global crop).
    fn default() -> Self {
        Self { threshold: 128, chance: 0.2 }
    }
}

impl Effects {
    /// Checks the settings, for images of [H, W] pixels.
    pub(super) fn validate(&self, size: [usize; 2]) -> Result<()> {
        let jitter = self.jitter.unwrap_or(Jitter { chance: 0.0, ..Jitter::default() });
        let blur = self.blur.unwrap_or(Blur { kernel: 1, ..Blur::default() });
        let solarize = self.solarize.unwrap_or_default();
        for (name, value, most) in [
            ("augment.jitter.brightness", jitter.brightness, f64::MAX),
            ("augment.jitter.contrast", jitter.contrast, f64::MAX),
            ("augment.jitter.saturation", jitter.saturation, f64::MAX),
            ("augment.jitter.hue", jitter.hue, 0.5),
            ("augment.jitter.chance", jitter.chance, 1.0),
            ("augment.greyscale", self.greyscale, 1.0),
            ("augment.blur.chance", blur.chance, 1.0),
            ("augment.solarize.chance", solarize.chance, 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                let expected =
                    if most < f64::MAX { format!("0 to {most}") } else { "0 or more".to_owned() };
                return Err(Error::setting(name, &value, expected));
            }
        }
        if !blur.sigma.lies_within(0.0, 1000.0) {
            let expected = "[min, max] with 0 < min <= max <= 1000";
            return Err(Error::setting("augment.blur.sigma", &blur.sigma, expected));
        }
        // The border is mirrored once.
        let most = 2 * size[0].min(size[1]) - 1;
        if blur.kernel.is_multiple_of(2) || blur.kernel > most {
            let expected = format!("an odd number of 1 to {most} for images of this size");
            return Err(Error::setting("augment.blur.kernel", &blur.kernel, expected));
        }
        Ok(())
    }

    /// Checks whether images of this number of channels can be changed so.
    pub(in crate::data) fn check_channels(&self, channels: usize) -> Result<()> {
        let expected = || format!("none for images of {channels} bands: it changes colours");
        if [1, 3].contains(&channels) {
            return Ok(());
        }
        if self.jitter.is_some() {
            return Err(Error::setting("augment.jitter", &"set", expected()));
        }
        if self.greyscale > 0.0 {
            return Err(Error::setting("augment.greyscale", &self.greyscale, expected()));
        }
        Ok(())
    }

    /// Changes all frames of a clip in the same way. A change that is off draws no random number.
    pub(super) fn apply(&self, clip: &mut Clip, random: &mut Random) {
        let happens =
            |chance: f64, random: &mut Random| chance > 0.0 && random.uniform_f64() < chance;
        if let Some(jitter) = self.jitter.filter(|jitter| happens(jitter.chance, random)) {
            jitter.apply(clip, random);
        }
        if happens(self.greyscale, random) {
            color::greyscale(clip);
        }
        if let Some(blur) = self.blur.filter(|blur| happens(blur.chance, random)) {
            blur::blur(clip, blur.kernel, blur.sigma.at(random.uniform_f64()));
        }
        if let Some(solarize) = self.solarize.filter(|solarize| happens(solarize.chance, random)) {
            color::solarize(clip, solarize.threshold);
        }
    }
}

impl Jitter {
    fn apply(&self, clip: &mut Clip, random: &mut Random) {
        let mut order = [0, 1, 2, 3];
        random.shuffle(&mut order);
        let mut factor =
            |x: f64, least: f64| Range::new((1.0 - x).max(least), 1.0 + x).at(random.uniform_f64());
        let [brightness, contrast, saturation] =
            [self.brightness, self.contrast, self.saturation].map(|x| factor(x, 0.0));
        let hue = factor(self.hue, 0.5) - 1.0;
        for change in order {
            match change {
                0 if self.brightness > 0.0 => color::brightness(clip, brightness),
                1 if self.contrast > 0.0 => color::contrast(clip, contrast),
                2 if self.saturation > 0.0 => color::saturation(clip, saturation),
                3 if self.hue > 0.0 => color::hue(clip, hue),
                _ => {}
            }
        }
    }
}
