//! An encoder's sizes from Python's arguments: timm's name and timm's keyword arguments.

use crate::arrays::Normalization;
use crate::errors::{raised, refused};
use crate::model::Model;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::mask::Grid;
use saltworks::model::VitSpec;
use saltworks::recipe::Normalize;
use saltworks::weights::{Hint, NamedTensors};
use std::path::Path;

/// timm's arguments that an encoder supports, `norm_eps` for what its `norm_layer`
/// says, and `swiglu` for what its `mlp_layer` says. `mlp_ratio` is that behind SwiGLU's gate.
const OPTIONS: [&str; 17] = [
    "img_size",
    "patch_size",
    "in_chans",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "class_token",
    "reg_tokens",
    "no_embed_class",
    "init_values",
    "qk_norm",
    "fc_norm",
    "pre_norm",
    "swiglu",
    "norm_eps",
    "drop_path_rate",
];

/// The encoder's name if none is given.
pub(crate) const USUAL: &str = "vit_tiny_patch16_224";

/// The sizes of timm's `name`, changed by `options`.
pub(crate) fn encoder_spec(name: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<VitSpec> {
    let spec = changed(named(name)?, options)?;
    spec.check().map_err(raised)?;
    Ok(spec)
}

/// The sizes of timm's name.
fn named(name: &str) -> PyResult<VitSpec> {
    VitSpec::from_name_with_tag(name).map_err(|problem| {
        let file = name.contains(['/', '\\']) || std::path::Path::new(name).extension().is_some();
        match file {
            true => refused(format!(
                "{problem}. For a file of weights: Encoder(weights={name:?}), \
                 SALT.from_checkpoint({name:?})"
            )),
            false => raised(problem),
        }
    })
}

/// Sizes changed by `options`. The width of a block's hidden layer is a multiple of its width.
fn changed(mut spec: VitSpec, options: Option<&Bound<'_, PyDict>>) -> PyResult<VitSpec> {
    let mut ratio = hidden_ratio(&spec);
    for (key, value) in options.iter().flat_map(|options| options.iter()) {
        let key: String = key.extract()?;
        set(&mut spec, &mut ratio, &key, &value).map_err(|problem| {
            refused(format!("encoder option {key}={value}: {}", problem.value(value.py())))
        })?;
    }
    spec.hidden = (spec.width as f64 * ratio) as usize;
    Ok(spec)
}

/// `mlp_ratio`. timm rounds the hidden width down, so half is added to get the same width again.
fn hidden_ratio(spec: &VitSpec) -> f64 {
    (spec.hidden as f64 + 0.5) / spec.width.max(1) as f64
}

/// A caller's arguments for the sizes of an encoder whose weights exist.
#[derive(Clone, Copy)]
pub(crate) struct SizeArguments<'a, 'py> {
    /// timm's name.
    pub(crate) name: Option<&'a str>,
    /// timm's options.
    pub(crate) options: Option<&'a Bound<'py, PyDict>>,
}

impl SizeArguments<'_, '_> {
    fn says(&self, option: &str) -> bool {
        self.options.is_some_and(|options| options.contains(option).unwrap_or(false))
    }

    /// Sizes that weights may not determine.
    pub(crate) fn hint(&self, encoder: &NamedTensors) -> PyResult<Hint> {
        let spec = changed(named(self.name.unwrap_or(USUAL))?, self.options)?;
        let embed = encoder.get("patch_embed.proj.weight").map_or(&[][..], |embed| embed.shape());
        let (width, patch) = match *embed {
            [width, _, height, across] => (width, [height, across]),
            _ => return Ok(Hint::default()),
        };
        let of_name = self.name.is_some() && spec.width == width;
        let heads = (self.says("num_heads") || of_name).then_some((width, spec.heads));
        let sides = [spec.image[1] / patch[0].max(1), spec.image[2] / patch[1].max(1)];
        let grid =
            (self.says("img_size") || self.name.is_some()).then(|| Grid::image(sides[0], sides[1]));
        let eps = self.says("norm_eps").then_some(spec.eps);
        Ok(Hint { heads, grid, eps, image: None })
    }

    /// The sizes `found`, with the requested drop path. ValueError if an argument contradicts them.
    pub(crate) fn agreed(&self, of: &Path, found: &VitSpec) -> PyResult<VitSpec> {
        let named = self.name.map(named).transpose()?;
        let begin = match named {
            Some(VitSpec { image, patch, width, depth, heads, hidden, .. }) => {
                VitSpec { image, patch, width, depth, heads, hidden, ..found.clone() }
            }
            None => found.clone(),
        };
        let said = changed(begin, self.options)?;
        // The initial value of a layer scale no longer matters.
        let layer_scale = |spec: &VitSpec| spec.layer_scale.is_some();
        let sides = |[_, height, width]: [usize; 3]| format!("{height} x {width}");
        let mut differ = Vec::new();
        let mut compare = |option: &str, found: String, said: String| {
            if found != said {
                differ.push(format!("{option} is {found}, not {said}"));
            }
        };
        compare("img_size", sides(found.image), sides(said.image));
        compare("patch_size", sides(found.patch), sides(said.patch));
        compare("in_chans", found.channels.to_string(), said.channels.to_string());
        compare("embed_dim", found.width.to_string(), said.width.to_string());
        compare("depth", found.depth.to_string(), said.depth.to_string());
        compare("num_heads", found.heads.to_string(), said.heads.to_string());
        compare("the hidden width (mlp_ratio)", found.hidden.to_string(), said.hidden.to_string());
        compare("class_token", found.class_token.to_string(), said.class_token.to_string());
        compare("reg_tokens", found.registers.to_string(), said.registers.to_string());
        compare(
            "no_embed_class",
            found.no_embed_class.to_string(),
            said.no_embed_class.to_string(),
        );
        compare(
            "having init_values",
            layer_scale(found).to_string(),
            layer_scale(&said).to_string(),
        );
        compare("qk_norm", found.qk_norm.to_string(), said.qk_norm.to_string());
        compare("fc_norm", found.fc_norm.to_string(), said.fc_norm.to_string());
        compare("pre_norm", found.pre_norm.to_string(), said.pre_norm.to_string());
        compare("swiglu", found.swiglu.to_string(), said.swiglu.to_string());
        compare("norm_eps", format!("{:e}", found.eps), format!("{:e}", said.eps));
        if differ.is_empty() {
            return Ok(VitSpec { drop_path: said.drop_path, ..found.clone() });
        }
        Err(refused(format!(
            "the encoder of {} differs from the requested one: {}. Remove the name and the \
             options that the weights define",
            of.display(),
            differ.join(", ")
        )))
    }
}

/// These sizes as timm's arguments.
pub(crate) fn options_of<'py>(py: Python<'py>, spec: &VitSpec) -> PyResult<Bound<'py, PyDict>> {
    let options = PyDict::new(py);
    options.set_item("img_size", (spec.image[1], spec.image[2]))?;
    options.set_item("patch_size", (spec.patch[1], spec.patch[2]))?;
    options.set_item("in_chans", spec.channels)?;
    options.set_item("embed_dim", spec.width)?;
    options.set_item("depth", spec.depth)?;
    options.set_item("num_heads", spec.heads)?;
    options.set_item("mlp_ratio", hidden_ratio(spec))?;
    options.set_item("class_token", spec.class_token)?;
    options.set_item("reg_tokens", spec.registers)?;
    options.set_item("no_embed_class", spec.no_embed_class)?;
    options.set_item("init_values", spec.layer_scale)?;
    options.set_item("qk_norm", spec.qk_norm)?;
    options.set_item("fc_norm", spec.fc_norm)?;
    options.set_item("pre_norm", spec.pre_norm)?;
    options.set_item("swiglu", spec.swiglu)?;
    // As it is written, and not as the nearest f32.
    options.set_item("norm_eps", spec.eps.to_string().parse::<f64>().unwrap_or_default())?;
    options.set_item("drop_path_rate", spec.drop_path)?;
    Ok(options)
}

/// The encoder's options among the arguments of a constructor.
pub(crate) fn options_among<'py>(all: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let options = PyDict::new(all.py());
    for option in OPTIONS {
        if let Some(value) = all.get_item(option)? {
            options.set_item(option, value)?;
        }
    }
    Ok(options)
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
        "fc_norm" => spec.fc_norm = value.extract()?,
        "pre_norm" => spec.pre_norm = value.extract()?,
        "swiglu" => spec.swiglu = value.extract()?,
        "norm_eps" => spec.eps = value.extract()?,
        "drop_path_rate" => spec.drop_path = value.extract()?,
        _ => return Err(refused(format!("unknown. Known options are {}", OPTIONS.join(", ")))),
    }
    Ok(())
}

/// One side, or height and width.
fn sides(value: &Bound<'_, PyAny>) -> PyResult<[usize; 3]> {
    if let Ok(side) = value.extract::<usize>() {
        return Ok([1, side, side]);
    }
    let (height, width) = value.extract()?;
    Ok([1, height, width])
}

/// How bytes of images are normalised: a name ("imagenet", "inception", "clip"), (mean, std), or a
/// model's normalisation. Mean and std are numbers, or sequences of one number for each of the
/// `channels`. None if nothing is given.
pub(crate) fn normalization(
    given: Option<&Bound<'_, PyAny>>,
    channels: usize,
) -> PyResult<Option<Normalization>> {
    let Some(given) = given else { return Ok(None) };
    if let Ok(name) = given.extract::<String>() {
        return by_name(&name, channels).map(Some);
    }
    if let Ok(model) = given.cast::<Model>() {
        let found = model.get().bytes().cloned().ok_or_else(|| {
            refused("normalize: the normalisation of this model's images is not known")
        })?;
        return checked(found, channels).map(Some);
    }
    let (mean, std): (Bound<'_, PyAny>, Bound<'_, PyAny>) = given.extract()?;
    let numbers = |value: &Bound<'_, PyAny>| match value.extract::<f32>() {
        Ok(one) => Ok(vec![one]),
        Err(_) => value.extract::<Vec<f32>>(),
    };
    checked(Normalization { mean: numbers(&mean)?, std: numbers(&std)? }, channels).map(Some)
}

pub(crate) fn by_name(name: &str, channels: usize) -> PyResult<Normalization> {
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
