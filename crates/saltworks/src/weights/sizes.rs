//! A vision transformer's sizes, read off its tensors.

use super::{Hint, Named};
use crate::mask::Grid;
use crate::model::VitSpec;
use serde_json::Value;

/// Widths and heads of timm's sizes.
const HEADS: [(usize, usize); 7] =
    [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)];

/// The sizes of an encoder under timm's names. What shapes do not tell comes from `config` (a
/// `config.json` of transformers), then from `hint`: heads, and the image where it is not square. Else
/// heads are the width of a head's queries where they have norms, timm's for the width, or 64 wide
/// each.
pub(super) fn of(encoder: &Named, config: Option<&Value>, hint: Hint) -> Result<VitSpec, String> {
    let shape = |name: &str| encoder.get(name).map(engine::Tensor::shape);
    let needed = |name: &str, axes: usize| {
        let found = shape(name).filter(|found| found.len() == axes);
        found.ok_or_else(|| {
            let found = shape(name).map_or("none".to_owned(), |found| format!("{found:?}"));
            format!("has no {name} of {axes} axes, which tells the encoder's sizes; found {found}")
        })
    };
    let embed = match shape("patch_embed.proj.weight") {
        Some([width, channels, pt, ph, pw]) => [*width, *channels, *pt, *ph, *pw],
        Some([width, channels, ph, pw]) => [*width, *channels, 1, *ph, *pw],
        found => {
            let found = found.unwrap_or_default();
            return Err(format!("has patch_embed.proj.weight {found:?}, expected 4 or 5 axes"));
        }
    };
    let [width, channels, patch @ ..] = embed;
    let depth = (0..).take_while(|block| shape(&format!("blocks.{block}.norm1.weight")).is_some());
    let (depth, class_token) = (depth.count(), shape("cls_token").is_some());
    needed("blocks.0.norm1.weight", 1)?;
    let registers = match shape("reg_token") {
        Some(_) => needed("reg_token", 3)?[1],
        None => 0,
    };
    let rows = needed("pos_embed", 3)?[1];
    let prefix = usize::from(class_token) + registers;
    let (grid, no_embed_class) = grid(rows, prefix, config, hint, patch)?;
    let from_norm = shape("blocks.0.attn.q_norm.weight").map(|norm| width / norm[0].max(1));
    let from_config = config.and_then(|config| size(config.get("num_attention_heads")?));
    let hinted = hint.heads.filter(|(of, _)| *of == width).map(|(_, heads)| heads);
    let by_width = HEADS.iter().find(|(timm, _)| *timm == width).map(|(_, heads)| *heads);
    let by_64 = (width % 64 == 0).then_some(width / 64);
    let heads = from_norm.or(from_config).or(hinted).or(by_width).or(by_64).ok_or_else(|| {
        format!("does not tell how many heads the width {width} is split into. Write it down: saltworks \
                 export FILE --heads N --to safetensors --out NEW")
    })?;
    Ok(VitSpec {
        image: std::array::from_fn(|axis| grid[axis] * patch[axis]),
        patch,
        channels,
        width,
        depth,
        heads,
        hidden: needed("blocks.0.mlp.fc1.weight", 2)?[0],
        registers,
        class_token,
        no_embed_class,
        // Its first value no longer matters.
        layer_scale: shape("blocks.0.ls1.gamma").map(|_| 1.0),
        qk_norm: from_norm.is_some(),
        drop_path: 0.0,
    })
}

/// Patches along time, height and width, and whether the table has no rows for the prefix.
fn grid(
    rows: usize,
    prefix: usize,
    config: Option<&Value>,
    hint: Hint,
    [pt, ph, pw]: [usize; 3],
) -> Result<([usize; 3], bool), String> {
    let image = config.and_then(|config| match config.get("image_size")? {
        Value::Array(sides) => Some([size(sides.first()?)?, size(sides.get(1)?)?]),
        side => Some([size(side)?; 2]),
    });
    if let Some([height, width]) = image {
        return Ok(([1, height / ph.max(1), width / pw.max(1)], false));
    }
    let fits = |grid: &Grid| [0, prefix].contains(&rows.wrapping_sub(grid.len()));
    if let Some(grid) = hint.grid.filter(fits) {
        return Ok(([grid.t, grid.h, grid.w], rows == grid.len() && prefix > 0));
    }
    let square =
        |count: usize| Some(count.isqrt()).filter(|side| side * side == count && count > 0);
    if pt == 1 {
        let with = rows.checked_sub(prefix).and_then(square).map(|side| (side, false));
        if let Some((side, without)) = with.or_else(|| square(rows).map(|side| (side, true))) {
            return Ok(([1, side, side], without));
        }
    }
    Err(format!(
        "has a position table of {rows} rows, {prefix} of them before the patches: not a square of \
         patches, so the image's size is not known. Use a file whose metadata state it"
    ))
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().map(|value| value as usize)
}
