//! The sizes of a stage's networks, and errors that name the recipe's keys of the sizes.

use crate::failure::{Failure, input_error};
use crate::method::MethodSettings;
use crate::model::{LENGTH, Rope, SpecError, VitSpec};
use crate::recipe::{Data, Model, PatchSize, Recipe, RopeForm, Stage};

/// The sizes of a stage's encoder.
pub(super) fn encoder_spec(recipe: &Recipe, stage: &Stage) -> Result<VitSpec, Failure> {
    let spec = spec_of(&recipe.model_of(stage), &recipe.data);
    spec.map_err(|error| refuse(recipe, stage, &error))
}

/// Refuses a decoder or predictor that cannot be built.
pub(super) fn check_trunk(
    recipe: &Recipe,
    stage: &Stage,
    settings: &MethodSettings,
    rope: Option<Rope>,
) -> Result<(), Failure> {
    let (name, trunk) = settings.trunk();
    trunk.check_with(name, rope).map_err(|error| refuse(recipe, stage, &error))
}

/// The sizes of timm's model, changed as the recipe sets them.
fn spec_of(model: &Model, data: &Data) -> Result<VitSpec, SpecError> {
    fn change<T: Copy>(value: &mut T, said: Option<T>) {
        *value = said.unwrap_or(*value);
    }
    let mut spec = VitSpec::from_name(model.name())?;
    let mut mlp_ratio = spec.hidden as f64 / spec.width as f64;
    change(&mut mlp_ratio, model.mlp_ratio);
    change(&mut spec.width, model.width);
    change(&mut spec.depth, model.depth);
    change(&mut spec.heads, model.heads);
    change(&mut spec.registers, model.registers);
    change(&mut spec.class_token, model.class_token);
    change(&mut spec.no_embed_class, model.no_embed_class);
    change(&mut spec.qk_norm, model.qk_norm);
    spec.rope = model.rope.map(|form| match form {
        RopeForm::Interleaved => Rope::Interleaved,
        RopeForm::Tiled => Rope::Tiled,
    });
    change(&mut spec.pre_norm, model.pre_norm);
    change(&mut spec.swiglu, model.swiglu);
    change(&mut spec.eps, model.eps);
    change(&mut spec.drop_path, model.drop_path);
    change(&mut spec.patch, model.patch.map(PatchSize::sides));
    let [height, width] = data.size.sides();
    (spec.image, spec.channels) = ([data.frames, height, width], data.channels());
    spec.hidden = (spec.width as f64 * mlp_ratio) as usize;
    spec.layer_scale = model.layer_scale.or(spec.layer_scale);
    spec.check()?;
    Ok(spec)
}

/// An error that names the keys of the sizes, and where the recipe sets them.
fn refuse(recipe: &Recipe, stage: &Stage, error: &SpecError) -> Failure {
    let (own, all) = (format!("{}.model", stage.name), "model".to_owned());
    let of_model = |key: &str| -> Vec<String> {
        // A stage's own model is set in its part of the recipe.
        let tables = stage.model.as_ref().map(|_| own.clone()).into_iter().chain([all.clone()]);
        let said = tables.map(|table| format!("{table}.{key}"));
        vec![said.into_iter().find(|key| recipe.origin.says(key)).unwrap_or(format!("model.{key}"))]
    };
    let of_trunk = |name: &str, key: &str| vec![format!("{}.{name}.{key}", stage.name)];
    let keys = match error {
        SpecError::Name(_) | SpecError::Feature { .. } => of_model("name"),
        SpecError::Heads { name: "model", .. } | SpecError::NarrowHeads { name: "model", .. } => {
            [of_model("width"), of_model("heads")].concat()
        }
        SpecError::Heads { name, .. } | SpecError::NarrowHeads { name, .. } => {
            [of_trunk(name, "width"), of_trunk(name, "heads")].concat()
        }
        SpecError::Small { axis, .. } | SpecError::Left { axis, .. } => {
            let image = if *axis == LENGTH { "data.frames" } else { "data.size" };
            [vec![image.to_owned()], of_model("patch")].concat()
        }
        SpecError::Large { name: "model", size: "number of frames", .. } => {
            vec!["data.frames".to_owned()]
        }
        SpecError::Large { name: "model", size: "image size", .. } => vec!["data.size".to_owned()],
        SpecError::Zero { name: "model", size } | SpecError::Large { name: "model", size, .. } => {
            of_model(size)
        }
        SpecError::Zero { name, size } | SpecError::Large { name, size, .. } => {
            of_trunk(name, size)
        }
        SpecError::LayerScale(_) => of_model("layer_scale"),
        SpecError::Eps(_) => of_model("eps"),
        SpecError::DropPath(_) => of_model("drop_path"),
    };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let no_data = match (error, recipe.origin.is_without_data()) {
        (SpecError::Small { axis, .. } | SpecError::Left { axis, .. }, true) if *axis != LENGTH => {
            ". The recipe has no data.path, so the images are the built-in Fashion-MNIST, 28 x 28 \
             pixels. Set data.path to use your own"
        }
        _ => "",
    };
    let problem = format!("{}: {error}{no_data}", keys.join(", "));
    input_error(recipe.origin.refuse(&keys, problem))
}
