//! Frozen features of the training and held-out images, and what probes make of them.

use super::setup::{self, Images};
use super::{Failure, asked, ran};
use crate::data::Source;
use crate::eval::{Features, KnnOptions, LinearOptions, knn, linear};
use crate::method::embed;
use crate::model::Encoder;
use crate::recipe::Recipe;
use crate::report::ProbeRow;
use engine::Tape;
use engine::ops::{PatchOrder, patchify};
use std::sync::Arc;

/// One batch's features of one kind: [B, D].
type Made = (Vec<f32>, usize);

/// What turns images into features.
pub(super) enum Extractor<'a> {
    /// The normalised pixels themselves.
    Pixels,
    /// An encoder's class token and mean patch token.
    Encoder(&'a Encoder),
}

/// Probes one kind of features; none if there is nothing labelled to probe on.
pub(super) fn probe(
    name: &str,
    recipe: &Recipe,
    images: &Images,
    extractor: &Extractor<'_>,
) -> Result<Option<ProbeRow>, Failure> {
    let Some(held_out) = &images.held_out else { return Ok(None) };
    let [train, test] = [&images.train, held_out].map(|s| features(recipe, s, extractor));
    let (train, test) = (train?, test?);
    let options = KnnOptions { k: recipe.probe.k, temperature: recipe.probe.temperature };
    let knn_of = |kind: usize| knn(&train[kind], &test[kind], options).map(|p| p.accuracy);
    let linear_of = |kind: usize| {
        linear(&train[kind], &test[kind], &LinearOptions::default()).map(|l| l.prediction.accuracy)
    };
    let cls = (train.len() > 1).then_some(1);
    let wanted = |kind: usize| recipe.probe.linear.then_some(kind);
    Ok(Some(ProbeRow {
        name: name.to_owned(),
        knn_mean: knn_of(0).map_err(ran)?,
        knn_cls: cls.map(knn_of).transpose().map_err(ran)?,
        linear_mean: wanted(0).map(linear_of).transpose().map_err(ran)?,
        linear_cls: cls.and_then(wanted).map(linear_of).transpose().map_err(ran)?,
    }))
}

/// Features of all images of a source: mean (or pixels) first, then class token.
fn features(
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    extractor: &Extractor<'_>,
) -> Result<Vec<Features>, Failure> {
    let mut loader = setup::feature_loader(&recipe.data, source.clone())?;
    let mut all: Vec<Features> = Vec::new();
    while let Some(loaded) = loader.next_batch().map_err(asked)? {
        let batch = loaded.batch;
        let made = extract(&batch.images, extractor).map_err(ran)?;
        for (kind, (rows, dim)) in made.into_iter().enumerate() {
            if all.len() == kind {
                all.push(Features { rows: Vec::new(), dim, labels: Vec::new() });
            }
            all[kind].rows.extend(rows);
            all[kind].labels.extend(batch.labels.iter().map(|&label| label as u32));
        }
    }
    Ok(all)
}

fn extract(images: &engine::ops::Images, extractor: &Extractor<'_>) -> engine::Result<Vec<Made>> {
    match extractor {
        Extractor::Pixels => {
            let [b, _, t, h, w] = images.shape();
            let whole: Vec<u32> = (0..b as u32).collect();
            let order = PatchOrder::ChannelsFirst;
            let pixels = patchify(&Tape::inference(), images, [t, h, w], order, &whole)?;
            Ok(vec![(pixels.to_vec(), pixels.dim(1))])
        }
        Extractor::Encoder(encoder) => {
            let embedding = embed(encoder, images)?;
            let kinds = std::iter::once(embedding.mean).chain(embedding.cls);
            Ok(kinds.map(|rows| (rows.to_vec(), rows.dim(1))).collect())
        }
    }
}
