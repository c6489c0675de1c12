use super::*;

/// The 7 x 9 picture of the Pillow values below.
fn picture() -> Clip {
    let value = |x: usize, y: usize| ((x * 37 + y * 61 + x * y * 5) % 256) as u8;
    let data = (0..7).flat_map(|y| (0..9).map(move |x| value(x, y))).collect();
    Clip::image(7, 9, 1, data)
}

fn transform(size: [usize; 2], crop: Crop) -> Transform {
    Transform { crop, ..Transform::center(size) }
}

/// Pillow 13.0: `Image.fromarray(picture).resize((4, 3), Image.BILINEAR)`, `BICUBIC`.
#[test]
fn resizing_gives_pillows_values() {
    let like = |interpolation, wanted: [u8; 12]| {
        let transform = Transform { interpolation, ..Transform::center([3, 4]) };
        let whole = Region::whole(picture().extent());
        let got = transform.resize(&picture(), &whole, [3, 4], &mut Resizer::new());
        // Both compute in fixed point. One grey level is allowed for a different order of rounding.
        let near = got.data.iter().zip(wanted).all(|(got, want)| got.abs_diff(want) <= 1);
        assert!(near, "{interpolation:?}: {:?}", got.data);
    };
    like(Interpolation::Bilinear, [87, 132, 121, 111, 152, 113, 130, 135, 130, 148, 109, 119]);
    like(Interpolation::Bicubic, [80, 135, 124, 107, 159, 107, 130, 142, 129, 155, 105, 116]);
}

#[test]
fn an_area_is_resized_as_if_it_had_been_cut_out() {
    let image = picture();
    let mut resizer = Resizer::new();
    for (top, left, height, width) in [(0, 0, 7, 9), (2, 3, 5, 6), (1, 4, 3, 2), (6, 8, 1, 1)] {
        let (rows, columns) = (top..top + height, left..left + width);
        let region = Region { frames: 0..1, rows, columns };
        let part = image.crop(&region);
        for size in [[3, 4], [5, 6], [11, 13]] {
            let transform = Transform::center(size);
            let cut = transform.resize(&part, &Region::whole(part.extent()), size, &mut resizer);
            assert_eq!(
                transform.resize(&image, &region, size, &mut resizer),
                cut,
                "{region:?} {size:?}"
            );
        }
    }
}

/// 20,000 draws of torchvision 0.29.2's `RandomResizedCrop.get_params`: mean and standard deviation
/// of top, left, height and width.
#[test]
fn random_areas_are_distributed_as_torchvisions() {
    let like = |size, scale, means: [f64; 4], stds: [f64; 4]| {
        let mut random = Random::new(0, "test", 0);
        let ratio = Interval::new(3.0 / 4.0, 4.0 / 3.0);
        let mut sums = [0.0; 4];
        for _ in 0..20_000 {
            let (rows, columns) = random_area(size, scale, ratio, &mut random);
            let values = [rows.start, columns.start, rows.len(), columns.len()];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value as f64);
        }
        for ((sum, mean), std) in sums.iter().zip(means).zip(stds) {
            let got = sum / 20_000.0;
            // Five standard errors of the difference of two such means.
            assert!((got - mean).abs() <= 0.05 * std, "{size:?}: {got}, torchvision {mean}");
        }
    };
    like(
        [480, 640],
        Interval::new(0.2, 1.0),
        [52.1032, 124.1166, 375.8194, 393.9621],
        [49.2834, 89.3431, 67.1978, 91.7279],
    );
    like(
        [28, 28],
        Interval::new(0.3, 1.0),
        [3.2108, 3.2450, 21.5606, 21.5236],
        [3.0028, 3.0272, 3.6884, 3.6999],
    );
    // Too wide for any try, so the centre is taken.
    like([100, 900], Interval::new(0.2, 1.0), [0.0, 383.0, 100.0, 133.0], [0.0; 4]);
}

#[test]
fn the_centre_of_an_image_of_the_right_size_is_the_image() {
    let image = picture();
    let mut random = Random::new(0, "test", 0);
    let same = Transform::center([7, 9]).apply(&image, &mut random, &mut Resizer::new());
    assert_eq!(same, image);
}

/// torchvision 0.29: `center_crop` begins at `round((width - 4) / 2)`, half to even.
#[test]
fn the_centre_of_an_odd_rest_begins_where_torchvisions_does() {
    for (width, start) in [(5, 0), (7, 2), (9, 2), (11, 4)] {
        let image = Clip::image(4, width, 1, (0..4).flat_map(|_| 0..width as u8).collect());
        let mut random = Random::new(0, "test", 0);
        let centre = Transform::center([4, 4]).apply(&image, &mut random, &mut Resizer::new());
        assert_eq!(centre.data[..4], [start, start + 1, start + 2, start + 3], "{width} wide");
    }
}

#[test]
fn a_padded_crop_moves_the_image_by_up_to_the_padding() {
    let image = Clip::image(4, 4, 1, vec![9; 16]);
    let transform = transform([4, 4], Crop::Random { padding: 1 });
    let shown: Vec<_> = (0..50)
        .map(|index| {
            let mut random = Random::new(0, "test", index);
            let part = transform.apply(&image, &mut random, &mut Resizer::new());
            part.data.iter().filter(|&&value| value == 9).count()
        })
        .collect();
    assert!(shown.iter().all(|count| [9, 12, 16].contains(count)), "{shown:?}");
    assert!([9, 12, 16].iter().all(|count| shown.contains(count)), "{shown:?}");
}

#[test]
fn a_padded_crop_begins_in_every_row_and_column_of_the_border() {
    // One bright pixel in the middle, which a border of 1 moves to any of nine places.
    let image = Clip::image(3, 3, 1, vec![0, 0, 0, 0, 9, 0, 0, 0, 0]);
    let transform = transform([3, 3], Crop::Random { padding: 1 });
    let place = |index| {
        let mut random = Random::new(0, "test", index);
        let shown = transform.apply(&image, &mut random, &mut Resizer::new()).data;
        shown.iter().position(|&value| value == 9).unwrap()
    };
    let places: std::collections::BTreeSet<usize> = (0..200).map(place).collect();
    assert!(places.iter().copied().eq(0..9), "{places:?}");
}

#[test]
fn half_of_the_images_are_mirrored() {
    let image = Clip::image(1, 2, 1, vec![1, 2]);
    let transform = Transform { flip: 0.5, ..Transform::center([1, 2]) };
    let mirrored = (0..1000).filter(|&index| {
        let mut random = Random::new(0, "test", index);
        transform.apply(&image, &mut random, &mut Resizer::new()).data == [2, 1]
    });
    assert!((421..580).contains(&mirrored.count()));
}

#[test]
fn nine_of_ten_images_are_mirrored_at_a_chance_of_nine_tenths() {
    let image = Clip::image(1, 2, 1, vec![1, 2]);
    let mirrored = |flip| {
        let transform = Transform { flip, ..Transform::center([1, 2]) };
        let is_mirrored = |index: &u64| {
            let mut random = Random::new(0, "test", *index);
            transform.apply(&image, &mut random, &mut Resizer::new()).data == [2, 1]
        };
        (0..1000).filter(is_mirrored).count()
    };
    assert_eq!((mirrored(0.0), mirrored(1.0)), (0, 1000));
    // Five standard deviations: √(1000 · 0.9 · 0.1) = 9.5.
    assert!(mirrored(0.9).abs_diff(900) < 48);
}

#[test]
fn every_crop_of_every_image_has_the_wanted_size() {
    let (scale, ratio) = (Interval::new(0.01, 1.0), Interval::new(0.1, 10.0));
    let crops = [
        Crop::RandomResized { scale, ratio },
        Crop::Random { padding: 3 },
        Crop::Center { zoom: 256.0 / 224.0 },
    ];
    for crop in crops {
        for (height, width) in [(1, 1), (1, 200), (200, 1), (31, 17), (64, 48)] {
            for channels in [1, 3] {
                let data = vec![0; height * width * channels];
                let image = Clip::image(height, width, channels, data);
                for index in 0..5 {
                    let mut random = Random::new(0, "test", index);
                    let result =
                        transform([24, 32], crop).apply(&image, &mut random, &mut Resizer::new());
                    assert_eq!((result.height, result.width), (24, 32));
                    assert_eq!(result.data.len(), 24 * 32 * channels);
                }
            }
        }
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let message = |transform: Transform| transform.validate().unwrap_err().to_string();
    assert!(message(Transform::center([0, 3])).contains("size is 0 x 3"));
    let flip = Transform { flip: 1.5, ..Transform::center([3, 3]) };
    assert!(message(flip).contains("flip is 1.5, expected a chance of 0 to 1"));
    let scale =
        Crop::RandomResized { scale: Interval::new(0.0, 1.0), ratio: Interval::new(1.0, 1.0) };
    assert!(message(transform([3, 3], scale)).contains("data.augment.crop_scale is [0, 1]"));
    assert!(message(transform([3, 3], Crop::Center { zoom: 0.5 })).contains("eval_zoom is 0.5"));
}

#[test]
fn crop_and_flip_are_the_same_for_all_frames() {
    let frame = picture().data;
    let clip = Clip { frames: 3, data: [&frame[..]; 3].concat(), ..picture() };
    let jitter = Jitter { brightness: 0.4, contrast: 0.4, ..Jitter::default() };
    let blur = Blur { kernel: 3, chance: 0.5, ..Blur::default() };
    let effects = Effects { jitter: Some(jitter), blur: Some(blur), ..Effects::default() };
    let crops = [
        Crop::RandomResized { scale: Interval::new(0.3, 1.0), ratio: Interval::new(0.5, 2.0) },
        Crop::Random { padding: 2 },
        Crop::Center { zoom: 1.2 },
    ];
    for crop in crops {
        let image = Transform { flip: 0.5, effects, ..transform([4, 5], crop) };
        for index in 0..20 {
            let apply = |transform: &Transform, clip: &Clip| {
                transform.apply(clip, &mut Random::new(0, "test", index), &mut Resizer::new())
            };
            let wanted = apply(&image, &picture()).data;
            let shown = apply(&Transform { frames: 3, ..image }, &clip);
            assert_eq!((shown.frames, shown.data), (3, wanted.repeat(3)), "{crop:?} {index}");
            let still = apply(&Transform { frames: 2, ..image }, &picture());
            assert_eq!(still.data, wanted.repeat(2), "an image is repeated");
        }
    }
}

#[test]
fn consecutive_frames_are_chosen_at_random_or_in_the_middle() {
    let clip = Clip { frames: 6, ..Clip::image(1, 1, 1, (0..6).collect()) };
    let shown = |crop, index| {
        let transform = Transform { frames: 3, ..transform([1, 1], crop) };
        transform.apply(&clip, &mut Random::new(0, "test", index), &mut Resizer::new()).data
    };
    assert_eq!(shown(Crop::Center { zoom: 1.0 }, 0), [1, 2, 3]);
    let starts: Vec<_> = (0..50).map(|index| shown(Crop::Random { padding: 0 }, index)).collect();
    for start in 0..4 {
        assert!(starts.contains(&vec![start, start + 1, start + 2]), "{start}: {starts:?}");
    }
}
