//! What a model sees while it trains: reconstructions, principal components of patch tokens,
//! attention, nearest neighbours and a map of the held-out images. A clip is shown as a strip of
//! its frames.

mod draw;
mod png;
mod strip;

pub use draw::PixelScale;

use crate::eval::{self, Features, TsneOptions, pca, tsne};
use crate::mask::Masks;
use crate::method::{Method, embed};
use crate::model::{Outputs, Patches};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use draw::{components, patched, shown_channels};
use engine::Tape;
use engine::ops::Images;
use png::png;
use serde::Serialize;
use serde_json::{Value, json};
use strip::Strip;

/// Neighbours of each image.
pub const NEIGHBOURS: usize = 6;
/// The most tokens for a table of attention. It takes one byte per pair for each image.
const MOST_TOKENS: usize = 1024;

/// The images of a scene.
pub struct SceneImages<'a> {
    /// [B, C, T, H, W]
    pub images: &'a Images,
    /// Their indices in their set [B].
    pub indices: Vec<u64>,
    /// Their names [B].
    pub names: Vec<String>,
    /// Their classes [B], -1 without one.
    pub labels: Vec<i32>,
}

/// A model and the images to show it with.
pub struct Scene<'a> {
    /// The stage.
    pub stage: &'a str,
    /// Steps made in the stage.
    pub step: u64,
    /// `mae` or `salt`.
    pub kind: &'static str,
    /// Names of the classes 0, 1, ...
    pub classes: &'a [String],
    /// Whether the images are held out.
    pub held_out: bool,
    /// The model.
    pub method: &'a dyn Method,
    /// Held-out images, or training images if none are held out.
    pub shown: SceneImages<'a>,
    /// Their masks.
    pub masks: &'a Masks,
    /// How images were normalised: mean and deviation of each channel.
    pub pixels: PixelScale,
}

/// An image near another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its index in its set.
    pub index: usize,
    /// Its class.
    pub label: u32,
    /// Cosine of both mean tokens.
    pub similarity: f64,
}

impl Scene<'_> {
    /// Everything except neighbours and map, as `pictures/STAGE.json` holds it.
    ///
    /// # Errors
    /// The engine fails, or tokens are not finite.
    pub fn take(&self) -> eval::Result<Value> {
        let Self { method, masks, pixels, shown, .. } = self;
        let strip = Strip::new(method.encoder().spec());
        let [_, height, width] = strip.spec().image;
        let grid = strip.spec().grid();
        let originals = pixels.images(&strip.shown(shown.images)?)?;
        let image = |i: usize| {
            json!({
                "index": shown.indices[i], "name": shown.names[i], "label": shown.labels[i],
                "png": png(&originals[i], width, height),
            })
        };
        let count = originals.len();
        let mut all = json!({
            "stage": self.stage, "step": self.step, "method": self.kind, "size": [height, width],
            "grid": [grid.h, grid.w], "classes": self.classes,
            "held_out": self.held_out,
            "images": (0..count).map(image).collect::<Vec<_>>(),
            "masks": (0..count).map(|i| mask_text(masks, i, &strip)).collect::<Vec<_>>(),
            "pca": self.components(&strip)?,
        });
        if let Some(reconstructions) = self.reconstructions(&originals, &strip)? {
            all["reconstructions"] = reconstructions;
        }
        if let Some(attention) = self.attention(&strip)? {
            all["attention"] = attention;
        }
        Ok(all)
    }

    /// For each image the masked input, the prediction, and both combined. None if the method
    /// predicts no pixels.
    fn reconstructions(&self, originals: &[Vec<u8>], strip: &Strip) -> eval::Result<Option<Value>> {
        let (model, spec) = (self.method.encoder().spec(), strip.spec());
        let [_, height, width] = spec.image;
        let tokens = strip.tokens();
        let Some(method) = self.method.reconstructs() else { return Ok(None) };
        let predicted = method.predicted_pixels(self.shown.images, self.masks)?.to_vec();
        let mut rows = predicted.chunks_exact(model.patch_len());
        let one = |(i, original): (usize, &Vec<u8>)| {
            let target = &self.masks.target[i];
            let first = |row: &[f32]| self.pixels.patch(&strip.first_frame(row));
            let predicted: Vec<Vec<u8>> = rows.by_ref().take(target.len()).map(first).collect();
            let shown = shown_channels(spec.channels);
            let grey = vec![128; spec.patch_len() / spec.channels * shown];
            let context = &self.masks.context[i];
            let masked = patched(original, spec, |cell| {
                (!context.contains(&tokens[cell as usize])).then_some(grey.as_slice())
            });
            let at = |cell: u32| {
                let token = tokens[cell as usize];
                target.iter().position(|t| *t == token).map(|at| predicted[at].as_slice())
            };
            let composite = patched(original, spec, at);
            let alone = patched(original, spec, |patch| at(patch).or(Some(&grey)));
            json!({
                "masked": png(&masked, width, height),
                "predicted": png(&alone, width, height),
                "composite": png(&composite, width, height),
            })
        };
        Ok(Some(originals.iter().enumerate().map(one).collect()))
    }

    /// Patch tokens along their first three components, one basis for all images.
    fn components(&self, strip: &Strip) -> eval::Result<Vec<String>> {
        let (encoder, tape) = (self.method.encoder(), Tape::inference());
        let encoded =
            encoder.forward(&tape, self.shown.images, Patches::All, Outputs::All, None)?;
        let tokens = encoded.patches(&tape)?;
        let labels = vec![0; tokens.rows()];
        let features = Features { rows: tokens.to_vec(), dim: tokens.dim(1), labels };
        let found = pca(&features, 3.min(features.dim))?;
        let grid = strip.spec().grid();
        let along = features.rows.chunks_exact(features.dim).map(|row| found.project(row));
        let colours = components(&along.collect::<Vec<_>>());
        let picture = |rgb: &[u8]| {
            let (colours, _) = rgb.as_chunks::<3>();
            png(strip.ordered(colours).as_flattened(), grid.w, grid.h)
        };
        Ok(colours.chunks_exact(3 * grid.len()).map(picture).collect())
    }

    /// What class token and patches attend to in the last block.
    fn attention(&self, strip: &Strip) -> eval::Result<Option<Value>> {
        let spec = self.method.encoder().spec();
        let (count, prefix, heads) = (spec.grid().len(), spec.prefix(), spec.heads);
        if count > MOST_TOKENS {
            return Ok(None);
        }
        let Some(tables) = self.method.encoder().last_attention(self.shown.images)? else {
            return Ok(None);
        };
        let rows = prefix + count;
        let look = |table: &[f32], head: usize, query: usize| {
            strip.ordered(&table[(head * rows + query) * rows + prefix..][..count])
        };
        let cls = |table: &Vec<f32>| {
            let heads = (0..heads).flat_map(|head| scaled(&look(table, head, 0)));
            BASE64_STANDARD.encode(heads.collect::<Vec<_>>())
        };
        let patches = |table: &Vec<f32>| {
            let mean = |query: usize| {
                let mut sum = vec![0.0; count];
                for head in 0..heads {
                    let seen = look(table, head, prefix + query);
                    sum.iter_mut().zip(seen).for_each(|(sum, x)| *sum += x);
                }
                scaled(&sum)
            };
            let queries = strip.tokens().iter().map(|&token| token as usize);
            BASE64_STANDARD.encode(queries.flat_map(mean).collect::<Vec<_>>())
        };
        let mut all = json!({
            "heads": heads, "patches": tables.iter().map(patches).collect::<Vec<_>>(),
        });
        if spec.class_token {
            all["cls"] = tables.iter().map(cls).collect();
        }
        Ok(Some(all))
    }

    /// The training images nearest to each image of the scene, by their mean tokens. `own` gives
    /// the index of a scene's image among them, if it is one.
    ///
    /// # Errors
    /// Of the engine.
    pub fn neighbours(
        &self,
        train: &Features,
        own: &dyn Fn(usize) -> Option<usize>,
    ) -> eval::Result<Vec<Vec<Neighbour>>> {
        let mean = embed(self.method.encoder(), self.shown.images)?.mean.to_vec();
        let rows = mean.chunks_exact(train.dim).enumerate();
        Ok(rows.map(|(shown, row)| nearest(row, train, own(shown))).collect())
    }

    /// Adds neighbours and their pictures to the result of [`Scene::take`]. `images` holds those of
    /// all neighbours one after another.
    ///
    /// # Errors
    /// Of the engine.
    pub fn add_neighbours(
        &self,
        taken: &mut Value,
        near: &[Vec<Neighbour>],
        images: &Images,
    ) -> eval::Result<()> {
        let strip = Strip::new(self.method.encoder().spec());
        let [_, height, width] = strip.spec().image;
        let mut shown = self.pixels.images(&strip.shown(images)?)?.into_iter();
        let mut one = |near: &Neighbour| {
            let mut one = json!(near);
            one["png"] = shown.next().map(|image| png(&image, width, height)).into();
            one
        };
        let mut entry =
            |near: &Vec<Neighbour>| json!({"near": near.iter().map(&mut one).collect::<Vec<_>>()});
        taken["neighbours"] = near.iter().map(&mut entry).collect();
        Ok(())
    }
}

/// Steps of a map, for which training waits. With the quickstart's 500 images, 400, 600 and 1,000
/// steps leave divergences of 0.513, 0.505 and 0.504 (LOG.md).
const MAP_STEPS: usize = 600;

/// A map of features for `pictures/STAGE.json`.
///
/// # Errors
/// Too few rows, values that are not finite, or a request to stop.
pub fn map(features: &Features, labelled: bool, asked: eval::StopCheck<'_>) -> eval::Result<Value> {
    let options = TsneOptions { steps: MAP_STEPS, ..TsneOptions::default() };
    let found = tsne(features, options, asked)?;
    let label = |label: &u32| if labelled { i64::from(*label) } else { -1 };
    let labels: Vec<i64> = features.labels.iter().map(label).collect();
    Ok(json!({"kind": "t-SNE", "x": found.x, "y": found.y, "label": labels}))
}

/// A digit for each cell: 1 for context, 2 for target, 0 for neither.
fn mask_text(masks: &Masks, sample: usize, strip: &Strip) -> String {
    let kind = |patch: &u32| match () {
        () if masks.context[sample].contains(patch) => '1',
        () if masks.target[sample].contains(patch) => '2',
        () => '0',
    };
    strip.tokens().iter().map(kind).collect()
}

/// Scales values by their largest to bytes.
fn scaled(values: &[f32]) -> Vec<u8> {
    let most = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    values.iter().map(|value| (255.0 * value / most).round() as u8).collect()
}

fn nearest(row: &[f32], train: &Features, this: Option<usize>) -> Vec<Neighbour> {
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let own = length(row);
    let similarity = |index: usize| {
        let other = train.row(index);
        let product: f64 = row.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        product / (own * length(other)).max(f64::MIN_POSITIVE)
    };
    let mut all: Vec<Neighbour> = (0..train.len())
        .filter(|index| Some(*index) != this)
        .map(|index| Neighbour { index, label: train.labels[index], similarity: similarity(index) })
        .collect();
    all.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    all.truncate(NEIGHBOURS);
    all
}
