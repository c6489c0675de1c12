//! An encoder's sizes as Python gives them: timm's name and timm's keyword arguments.

use crate::arrays::Normalization;
use crate::errors::{raised, refused};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::model::VitSpec;
use saltworks::recipe::Normalize;

/// timm's arguments that an encoder understands, and in words.
const OPTIONS: &str = "img_size, patch_size, in_chans, embed_dim, depth, num_heads, mlp_ratio, \
                       class_token, reg_tokens, no_embed_class, init_values, qk_norm, drop_path_rate";

/// The sizes that timm's `name` stands for, and what `options` change of them.
pub(crate) fn encoder_spec(name: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<VitSpec> {
    let mut spec = VitSpec::from_name(name).map_err(raised)?;
    let mut ratio = spec.hidden as f64 / spec.width as f64;
    for (key, value) in options.iter().flat_map(|options| options.iter()) {
        let key: String = key.extract()?;
        set(&mut spec, &mut ratio, &key, &value).map_err(|problem| {
            refused(format!("encoder option {key}={value}: {}", problem.value(value.py())))
        })?;
    }
    spec.hidden = (spec.width as f64 * ratio) as usize;
    spec.check().map_err(raised)?;
    Ok(spec)
}

fn set(spec: &mut VitSpec, ratio: &mut f64, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match key {
        "img_size" => spec.image = sides(value)?,
        "patch_size" => spec.patch = sides(value)?,
        "in_chans" => spec.channels = value.extract()?,
        "embed_dim" => spec.width = value.extract()?,
        "depth" => spec.depth = value.extract()?,
        "num_heads" => spec.heads = value.extract()?,
        "mlp_ratio" => *ratio = value.extract()?,
        "class_token" => spec.class_token = value.extract()?,
        "reg_tokens" => spec.registers = value.extract()?,
        "no_embed_class" => spec.no_embed_class = value.extract()?,
        "init_values" => spec.layer_scale = value.extract()?,
        "qk_norm" => spec.qk_norm = value.extract()?,
        "drop_path_rate" => spec.drop_path = value.extract()?,
        _ => return Err(refused(format!("unknown; there are {OPTIONS}"))),
    }
    Ok(())
}

/// A side, or height and width.
fn sides(value: &Bound<'_, PyAny>) -> PyResult<[usize; 3]> {
    if let Ok(side) = value.extract::<usize>() {
        return Ok([1, side, side]);
    }
    let (height, width) = value.extract()?;
    Ok([1, height, width])
}

/// How bytes of images are read: a name ("imagenet", "inception", "clip"), or (mean, std), numbers or
/// sequences of one for each of the `channels`.
pub(crate) fn normalization(
    given: Option<&Bound<'_, PyAny>>,
    channels: usize,
) -> PyResult<Normalization> {
    let Some(given) = given else { return by_name("inception", channels) };
    if let Ok(name) = given.extract::<String>() {
        return by_name(&name, channels);
    }
    let (mean, std): (Bound<'_, PyAny>, Bound<'_, PyAny>) = given.extract()?;
    let numbers = |value: &Bound<'_, PyAny>| match value.extract::<f32>() {
        Ok(one) => Ok(vec![one]),
        Err(_) => value.extract::<Vec<f32>>(),
    };
    checked(Normalization { mean: numbers(&mean)?, std: numbers(&std)? }, channels)
}

fn by_name(name: &str, channels: usize) -> PyResult<Normalization> {
    let found: Normalize = serde_json::from_value(name.into())
        .map_err(|problem| refused(format!("normalize={name:?}: {problem}")))?;
    checked(Normalization { mean: found.mean, std: found.std }, channels)
}

fn checked(found: Normalization, channels: usize) -> PyResult<Normalization> {
    for (name, list) in [("mean", &found.mean), ("std", &found.std)] {
        if ![1, channels].contains(&list.len()) {
            return Err(refused(format!(
                "normalize: {name} is {list:?}, expected 1 or {channels} numbers"
            )));
        }
    }
    if !found.std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err(refused(format!(
            "normalize: std is {:?}, expected numbers above 0",
            found.std
        )));
    }
    Ok(found)
}
