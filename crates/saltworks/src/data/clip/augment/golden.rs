//! torchvision's output on the same picture (tests/golden/make_augment.py).

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::*;

/// Pictures by name.
fn goldens() -> BTreeMap<String, Clip> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/augment.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let pictures = file.iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        let data = values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]) as u8).collect();
        let [height, width, channels] = [0, 1, 2].map(|axis| view.shape()[axis]);
        (name.to_owned(), Clip::image(height, width, channels, data))
    });
    pictures.collect()
}

/// Applies the change that a golden's name states: the change, then its numbers.
fn made(name: &str, picture: &Clip) -> Option<Clip> {
    let mut words = name.split(' ');
    let (change, numbers): (_, Vec<&str>) = (words.next()?, words.collect());
    let number = |index: usize| numbers[index].parse::<f64>().unwrap();
    let interpolation = match numbers.first() {
        Some(&"bilinear") => Interpolation::Bilinear,
        _ => Interpolation::Bicubic,
    };
    let mut image = picture.clone();
    match change {
        "brightness" => color::brightness(&mut image, number(0)),
        "contrast" => color::contrast(&mut image, number(0)),
        "saturation" => color::saturation(&mut image, number(0)),
        "hue" => color::hue(&mut image, number(0)),
        "greyscale" => color::greyscale(&mut image),
        "solarize" => color::solarize(&mut image, number(0) as u8),
        "blur" => blur::blur(&mut image, number(0) as usize, number(1)),
        "crop" => {
            let transform = Transform { interpolation, ..Transform::center([12, 12]) };
            let region = Region { frames: 0..1, rows: 3..20, columns: 5..26 };
            image = transform.resize(picture, &region, [12, 12], &mut Resizer::new());
        }
        "center" => {
            let transform = Transform { interpolation, ..Transform::center([12, 12]) };
            let whole = Region::whole(picture.extent());
            image = transform.center_crop(picture, &whole, 16.0 / 12.0, &mut Resizer::new());
        }
        _ => return None,
    }
    Some(image)
}

#[test]
fn every_change_is_torchvisions() {
    let goldens = goldens();
    let picture = &goldens["picture"];
    let mut compared = 0;
    for (name, golden) in &goldens {
        let Some(image) = made(name, picture) else { continue };
        let pairs = image.data.iter().zip(&golden.data);
        let differences: Vec<f32> = pairs.map(|(&a, &b)| f32::from(a.abs_diff(b))).collect();
        assert_eq!(differences.len(), golden.data.len(), "{name}");
        let most = differences.iter().copied().fold(0.0, f32::max);
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        // Colours use the same arithmetic. Sums of weights have another precision here, and may
        // round differently in each of two passes. So may one pixel in hundreds in HSV, for which C
        // may keep more digits than required.
        let exact =
            !["blur", "crop", "center", "hue"].iter().any(|change| name.starts_with(change));
        let bound = if exact { 0.0 } else { 2.0 };
        assert!(most <= bound && mean <= 0.5, "{name}: at most {most}, mean {mean}");
        compared += 1;
    }
    assert_eq!(compared, goldens.len() - 1);
}

#[test]
fn effects_happen_as_often_as_their_chance_and_draw_nothing_when_off() {
    let goldens = goldens();
    let picture = &goldens["picture"];
    let mut off = Random::new(0, "test", 0);
    let mut same = picture.clone();
    Effects::default().apply(&mut same, &mut off);
    assert_eq!(
        (same, off.uniform_f64()),
        (picture.clone(), Random::new(0, "test", 0).uniform_f64())
    );
    let jitter = Jitter { brightness: 0.4, hue: 0.1, chance: 0.3, ..Jitter::default() };
    for effects in [
        Effects { jitter: Some(jitter), ..Effects::default() },
        Effects { greyscale: 0.3, ..Effects::default() },
        Effects {
            blur: Some(Blur { chance: 0.3, kernel: 5, sigma: Interval::new(1.0, 2.0) }),
            ..Effects::default()
        },
        Effects { solarize: Some(Solarize { chance: 0.3, threshold: 128 }), ..Effects::default() },
    ] {
        let changed = (0..1000).filter(|&index| {
            let mut image = picture.clone();
            effects.apply(&mut image, &mut Random::new(0, "test", index));
            image != *picture
        });
        // Six standard deviations of a thousand draws.
        let changed = changed.count();
        assert!((213..=387).contains(&changed), "{effects:?}: {changed}");
    }
}

#[test]
fn wrong_settings_are_named() {
    let refused = |effects: Effects| {
        Transform { effects, ..Transform::center([8, 8]) }.validate().unwrap_err().to_string()
    };
    let jitter =
        |hue| Effects { jitter: Some(Jitter { hue, ..Jitter::default() }), ..Effects::default() };
    assert!(refused(jitter(0.6)).contains("augment.jitter.hue is 0.6, expected 0 to 0.5"));
    assert!(refused(jitter(f64::NAN)).contains("augment.jitter.hue is NaN"));
    let blur =
        |kernel| Effects { blur: Some(Blur { kernel, ..Blur::default() }), ..Effects::default() };
    assert!(refused(blur(4)).contains("augment.blur.kernel is 4, expected an odd number"));
    assert!(refused(blur(17)).contains("augment.blur.kernel is 17"));
    assert!(
        refused(Effects { greyscale: 2.0, ..Effects::default() })
            .contains("augment.greyscale is 2")
    );
}
