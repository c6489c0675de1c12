//! Settings that can be trained but are most likely mistakes.

use super::choose::facts_of;
use crate::judge::{ImageSets, size_doubts};
use crate::recipe::{Color, Data, Depth, ImageFacts, Recipe, Stage};

/// Learning rates above this diverge or destroy what was learned. (guess)
const DOUBTFUL_LR: f64 = 1.0;

/// Settings that can be trained but are most likely mistakes.
pub(super) fn doubts(recipe: &Recipe, images: &ImageSets) -> Vec<String> {
    let (k, train) = (recipe.probe.k, images.train.len());
    let mut doubts = size_doubts(images.to_probe.as_ref(), &recipe.data);
    if images.held_out.is_some() && k > train {
        doubts.push(format!(
            "probe.k is {k}, but there are {train} training images: all of them vote"
        ));
    }
    doubts.extend(frame_doubt(images.train.frames(), recipe.data.frames));
    let background = recipe.data.background;
    if background.is_nearly_black() {
        doubts.push(format!(
            "data.background is {background}, nearly black: values go from 0 to 255. White is \
             [255, 255, 255] or \"white\""
        ));
    }
    for Stage { name, lr, batch, .. } in &recipe.stage {
        if *lr > DOUBTFUL_LR {
            doubts.push(format!("{name}.lr is {lr}: usual values for AdamW are 1e-4 to 5e-3"));
        }
        if *batch > train {
            let times = *batch as f64 / train as f64;
            doubts.push(format!(
                "{name}.batch is {batch}, but there are {train} training images: each step sees \
                 every image {times:.1} times"
            ));
        }
    }
    doubts.extend(holdout_doubt(recipe, images));
    // In a store, each header is a request for a whole image.
    let near = images.to_probe.requests() == 1;
    if near && !recipe.origin.is_chosen() && !recipe.data.is_built_in() {
        // Images that cannot be read are reported when they are met.
        let facts = facts_of(&images.to_probe).ok();
        doubts.extend(facts.iter().flat_map(|facts| data_doubts(&recipe.data, facts)));
    }
    doubts
}

/// Clips of other lengths than the model's.
fn frame_doubt([shortest, longest]: [usize; 2], frames: usize) -> Option<String> {
    let found = match (shortest, longest) {
        (1, 1) => "images, no clips".to_owned(),
        (from, to) if from == to => format!("clips of {from} frames"),
        (from, to) => format!("clips of {from} to {to} frames"),
    };
    let longer = (longest > frames).then(|| format!("a longer one gives {frames} in a row"));
    let shorter = (shortest < frames).then(|| "a shorter one repeats its last frame".to_owned());
    let done: Vec<_> = longer.into_iter().chain(shorter).collect();
    (!done.is_empty())
        .then(|| format!("data.frames is {frames}, but there are {found}: {}", done.join(", ")))
}

/// A holdout that leaves little to train on.
fn holdout_doubt(recipe: &Recipe, images: &ImageSets) -> Option<String> {
    let (held_out, train) = (recipe.data.holdout?, images.to_probe.len());
    (held_out > train).then(|| {
        format!(
            "data.holdout is {held_out}, so only {train} images are left to train on. Without it, \
             a fifth is held out"
        )
    })
}

/// How far the mean of the images may lie from 0 after normalisation, and their deviation from 1,
/// as a factor. (guess: ImageNet's values pass for photographs of any kind)
const MOST_MEAN: f32 = 0.5;
const MOST_STD: f32 = 2.0;

/// Values of `data` that were made for other images.
fn data_doubts(data: &Data, facts: &ImageFacts) -> Vec<String> {
    let mut doubts = Vec::new();
    match (data.channels(), facts.channels) {
        (1, 3) => doubts.push(
            "data.channels is 1, so images are read as grey, but they have colours. For colours \
             set data.channels=3"
                .to_owned(),
        ),
        (3, 1) => doubts.push(
            "data.channels is 3, but all images that were looked at are grey. data.channels=1 \
             trains faster"
                .to_owned(),
        ),
        (given, found) if given != found && ![1, 3].contains(&found) => doubts.push(format!(
            "data.channels is {given}, but images have {found} bands: they cannot be read. Set \
             data.channels={found}"
        )),
        _ => {}
    }
    if facts.transparent > 0.0 && data.background == Color::default() {
        doubts.push(format!(
            "{:.1} % of the images are stored with transparent parts, which show \
             data.background = {}, black. \"white\" is usual for drawings",
            100.0 * facts.transparent,
            data.background
        ));
    }
    doubts.extend(
        facts.values.iter().flat_map(|values| Depth::doubts(data.depth, values, "data.depth")),
    );
    let normalize = data.channel_normalize();
    let found = facts.mean.iter().zip(&facts.std).cycle();
    let off = normalize.mean.iter().zip(&normalize.std).zip(found).any(|(given, found)| {
        let ((mean, std), (own_mean, own_std)) = (given, found);
        let scale = own_std / std;
        ((own_mean - mean) / std).abs() > MOST_MEAN || !(1.0 / MOST_STD..=MOST_STD).contains(&scale)
    });
    if off {
        doubts.push(format!(
            "data.normalize has mean {:?} and std {:?}, but the images have mean {:.3?} and \
             deviation {:.3?}",
            data.normalize.mean, data.normalize.std, facts.mean, facts.std
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{NumberKind, StoredValues};
    use crate::range::Range;
    use crate::recipe::Normalize;

    #[test]
    fn values_of_another_set_are_doubted_and_fitting_ones_are_not() {
        let facts = ImageFacts {
            images: 1500,
            height: 64,
            width: 64,
            same_shape: true,
            channels: 3,
            values: None,
            transparent: 0.0,
            mean: vec![0.8, 0.79, 0.77],
            std: vec![0.3, 0.3, 0.3],
        };
        let data = |channels: usize, mean: f32, std: f32| Data {
            channels: Some(channels),
            normalize: Normalize { mean: vec![mean], std: vec![std] },
            ..Data::default()
        };
        let fashion = data_doubts(&data(1, 0.2863, 0.3523), &facts);
        assert!(fashion[0].starts_with("data.channels is 1"), "{fashion:?}");
        assert!(fashion[1].contains("mean [0.2863]"), "{fashion:?}");
        assert!(data_doubts(&data(3, 0.75, 0.25), &facts).is_empty());
        let seen_through = ImageFacts { transparent: 0.25, ..facts.clone() };
        let told = data_doubts(&data(3, 0.75, 0.25), &seen_through);
        assert!(told[0].starts_with("25.0 % of the images are stored with trans"), "{told:?}");
        let white = Data { background: Color([255; 3]), ..data(3, 0.75, 0.25) };
        assert!(data_doubts(&white, &seen_through).is_empty());
        let bands = ImageFacts { channels: 12, mean: vec![0.8; 12], std: vec![0.3; 12], ..facts };
        let told = data_doubts(&data(3, 0.8, 0.3), &bands);
        assert!(told[0].ends_with("Set data.channels=12"), "{told:?}");
    }

    #[test]
    fn values_that_are_shown_black_or_cut_are_reported() {
        let kind = NumberKind::U16;
        let (range, darkest) = (Range::new(0.0, 4095.0), 900.0);
        let values = StoredValues { kind, range, darkest, some_not_finite: true };
        let told = |depth| Depth::doubts(depth, &values, "data.depth");
        let [dark, not_finite] = &told(None)[..] else { panic!("two") };
        assert!(dark.ends_with("Set data.depth=[0.0, 4095.0]"), "{dark}");
        assert!(dark.contains("from 0 to 4095 (to 900 in the darkest image)"), "{dark}");
        assert!(not_finite.contains("NaN"), "{not_finite}");
        assert_eq!(told(Some(Depth::of_bits(12))).len(), 1);
        let cut = &told(Some(Depth::of_bits(10)))[0];
        assert!(cut.ends_with("outside data.depth = [0, 1023] is cut"), "{cut}");
    }
}
