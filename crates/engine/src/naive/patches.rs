//! Patches, one value at a time.

use super::Real;
use crate::device::{PatchLayout, PatchNorm, PatchOrder, Pixels};

/// y[K, pt ph pw C]: the patches with the given indices b N + n.
pub fn patchify<T: Real>(y: &mut [T], pixels: Pixels<'_>, layout: PatchLayout, patches: &[u32]) {
    let ([_, c, t, h, w], [pt, ph, pw]) = (layout.shape, layout.patch);
    let (gt, gh, gw) = (t / pt, h / ph, w / pw);
    let d = pt * ph * pw * c;
    for k in 0..patches.len() {
        let patch = patches[k] as usize;
        let (b, n) = (patch / (gt * gh * gw), patch % (gt * gh * gw));
        for i in 0..d {
            // The channel and the pixel in the patch of value i.
            let (channel, pixel) = match layout.order {
                PatchOrder::ChannelsFirst => (i / (pt * ph * pw), i % (pt * ph * pw)),
                PatchOrder::ChannelsLast => (i % c, i / c),
            };
            let frame = n / (gh * gw) * pt + pixel / (ph * pw);
            let row = n / gw % gh * ph + pixel / pw % ph;
            let column = n % gw * pw + pixel % pw;
            let at = (((b * c + channel) * t + frame) * h + row) * w + column;
            y[k * d + i] = T::of(match pixels {
                Pixels::F32(data) => data[at].f64(),
                Pixels::U8 { data, mean, std } => {
                    let value = f64::from(data[at]) / 255.0;
                    (value - mean[channel].f64()) / std[channel].f64()
                }
            });
        }
    }
}

/// y[R, p C]: each row, or each channel of a row, normalised to mean 0 and variance 1.
pub fn normalize_patches<T: Real>(y: &mut [T], x: &[T], d: usize, norm: PatchNorm) {
    let channels = if norm.per_channel { norm.channels } else { 1 };
    for r in 0..x.len() / d {
        for c in 0..channels {
            let of_channel: Vec<usize> = (c..d).step_by(channels).map(|i| r * d + i).collect();
            let n = of_channel.len() as f64;
            let mean = of_channel.iter().map(|&i| x[i].f64()).sum::<f64>() / n;
            let squares = of_channel.iter().map(|&i| (x[i].f64() - mean).powi(2)).sum::<f64>();
            let variance = squares / if norm.unbiased { n - 1.0 } else { n };
            let deviation = if norm.eps_outside_sqrt {
                variance.sqrt() + norm.eps.f64()
            } else {
                (variance + norm.eps.f64()).sqrt()
            };
            for i in of_channel {
                y[i] = T::of((x[i].f64() - mean) / deviation);
            }
        }
    }
}
