//! Changes of colours. Each is computed as in torchvision 0.29 for a Pillow image
//! (transforms/_functional_pil.py), with the arithmetic of Pillow 13.

use crate::data::clip::{Clip, luma};

/// `adjust_brightness`: factor times the image. A factor of 1 changes nothing.
pub(super) fn brightness(clip: &mut Clip, factor: f64) {
    let table = blend_table(0, factor);
    clip.data.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// `adjust_contrast`: away from the mean grey of each frame.
pub(super) fn contrast(clip: &mut Clip, factor: f64) {
    let (frame_len, channels) = (clip.frame_len(), clip.channels);
    for frame in clip.data.chunks_exact_mut(frame_len) {
        let greys =
            frame.chunks_exact(channels).map(|p| if channels == 3 { luma(p) } else { p[0] });
        let mean = greys.map(u64::from).sum::<u64>() as f64 / (frame_len / channels) as f64;
        let table = blend_table((mean + 0.5) as u8, factor);
        frame.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
    }
}

/// `adjust_saturation`: away from each pixel's grey. A grey image does not change.
pub(super) fn saturation(clip: &mut Clip, factor: f64) {
    if clip.channels == 3 {
        for pixel in clip.data.chunks_exact_mut(3) {
            let grey = luma(pixel);
            pixel.iter_mut().for_each(|value| *value = blend(grey, *value, factor));
        }
    }
}

/// `adjust_hue`: turns the hue by `factor` of the circle, -0.5 to 0.5. A grey image does not
/// change.
pub(super) fn hue(clip: &mut Clip, factor: f64) {
    if clip.channels == 3 {
        // Truncated towards zero, then wrapped, as numpy casts int32 to uint8.
        let turn = (factor * 255.0) as i32 as u8;
        for pixel in clip.data.chunks_exact_mut(3) {
            let [h, s, v] = to_hsv([pixel[0], pixel[1], pixel[2]]);
            pixel.copy_from_slice(&to_rgb([h.wrapping_add(turn), s, v]));
        }
    }
}

/// `RandomGrayscale`'s change: the three channels become their grey.
pub(super) fn greyscale(clip: &mut Clip) {
    if clip.channels == 3 {
        clip.data.chunks_exact_mut(3).for_each(|pixel| {
            let grey = luma(pixel);
            pixel.fill(grey);
        });
    }
}

/// `solarize`: inverts values at or above the threshold.
pub(super) fn solarize(clip: &mut Clip, threshold: u8) {
    let turned = clip.data.iter_mut().filter(|value| **value >= threshold);
    turned.for_each(|value| *value = 255 - *value);
}

/// `from` + factor (`to` - `from`), clipped to 0 to 255 (Pillow, libImaging/Blend.c).
fn blend(from: u8, to: u8, factor: f64) -> u8 {
    let (from, to) = (f32::from(from), f32::from(to));
    // `as` clips below 0 and above 255.
    (from + factor as f32 * (to - from)) as u8
}

fn blend_table(from: u8, factor: f64) -> [u8; 256] {
    std::array::from_fn(|value| blend(from, value as u8, factor))
}

/// Pillow's RGB to HSV, bytes each (libImaging/Convert.c, rgb2hsv).
fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let [red, green, blue] = [r, g, b].map(|value| f32::from(most - value) / range);
    let sector = if r == most {
        blue - green
    } else if g == most {
        2.0 + red - blue
    } else {
        4.0 + green - red
    };
    // Stored as a float and multiplied as a double, like the compiled C code.
    let hue = ((f64::from(sector) / 6.0 + 1.0) % 1.0) as f32;
    let saturation = range / f32::from(most);
    let [hue, saturation] = [hue, saturation].map(|share| (f64::from(share) * 255.0) as u8);
    [hue, saturation, most]
}

/// Pillow's HSV to RGB (libImaging/Convert.c, hsv2rgb).
fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let hue = (f64::from(h) * 6.0 / 255.0) as f32;
    let saturation = (f64::from(s) / 255.0) as f32;
    let (sector, part) = (hue.floor(), hue - hue.floor());
    let level = |share: f64| (f64::from(v) * (1.0 - share)).round() as u8;
    let p = level(f64::from(saturation));
    let q = level(f64::from(saturation * part));
    let t = level(f64::from(saturation) * (1.0 - f64::from(part)));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
