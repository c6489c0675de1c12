//! Derives a vision transformer's sizes from its tensors.

use super::Hint;
use super::dialect::hugging_face_eps;
use super::shapes::{Shapes, depth};
use crate::mask::Grid;
use crate::model::{PRE_NORM_EPS, USUAL_EPS, VitSpec};
use serde_json::Value;

/// Widths and heads of timm's sizes. Other models of these widths may have other heads, so the
/// assumed heads are reported.
const HEADS: [(usize, usize); 7] =
    [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)];

/// An encoder's sizes, and which of them are guesses.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// All of them.
    pub spec: VitSpec,
    /// The guesses in words, if any.
    pub guessed: Option<String>,
}

/// The sizes of an encoder under timm's names. Shapes do not state the heads, nor the sides of an
/// image that is not square. They come from `config` (a `config.json` of transformers), then from
/// `hint`. Otherwise heads follow from the width of the norms of queries, or are timm's for the
/// width.
pub(super) fn of(shapes: &Shapes, config: Option<&Value>, hint: Hint) -> Result<Sizes, String> {
    let shape = |name: &str| shapes.get(name).map(Vec::as_slice);
    let needed = |name: &str, axes: usize| {
        let found = shape(name).filter(|found| found.len() == axes);
        found.ok_or_else(|| {
            let found = shape(name).map_or("none".to_owned(), |found| format!("{found:?}"));
            format!("has no {name} of {axes} axes, which states the encoder's sizes; found {found}")
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
    let class_token = shape("cls_token").is_some();
    needed("blocks.0.norm1.weight", 1)?;
    let registers = match shape("reg_token") {
        Some(_) => needed("reg_token", 3)?[1],
        None => 0,
    };
    let rows = needed("pos_embed", 3)?[1];
    let prefix = usize::from(class_token) + registers;
    let placed = grid(rows, prefix, config, hint, patch)?;
    const Q_NORM: &str = "blocks.0.attn.q_norm.weight";
    let head = shape(Q_NORM).map(|_| Ok::<_, String>(needed(Q_NORM, 1)?[0])).transpose()?;
    let (heads, told) = heads(width, head, config, hint)?;
    let found = [("hidden_size", width), ("num_hidden_layers", depth(shapes, ""))];
    expect_stated(config, &[found[0], found[1], ("patch_size", patch[1])])?;
    let hidden = needed("blocks.0.mlp.fc1.weight", 2)?[0];
    // The gate halves the width between both layers.
    let behind = shape("blocks.0.mlp.fc2.weight").and_then(|shape| shape.get(1)).copied();
    let swiglu = behind.is_some_and(|behind| behind > 0 && Some(hidden) == behind.checked_mul(2));
    let pre_norm = shape("norm_pre.weight").is_some();
    let stated = config.map(hugging_face_eps).transpose()?;
    let usual = if pre_norm { PRE_NORM_EPS } else { USUAL_EPS };
    let image = std::array::from_fn(|axis| placed.sides[axis].saturating_mul(patch[axis]));
    let spec = VitSpec {
        image,
        patch,
        channels,
        width,
        depth: depth(shapes, ""),
        heads,
        hidden: if swiglu { hidden / 2 } else { hidden },
        registers,
        class_token,
        no_embed_class: placed.no_embed_class,
        // Its initial value no longer matters.
        layer_scale: shape("blocks.0.ls1.gamma").map(|_| 1.0),
        qk_norm: head.is_some(),
        rope: None, // a file of ours states it
        fc_norm: shape("fc_norm.weight").is_some(),
        pre_norm,
        swiglu,
        eps: stated.or(hint.eps).unwrap_or(usual),
        drop_path: 0.0,
    };
    Ok(Sizes { guessed: guessed(&spec, told, &placed, stated.is_some()), spec })
}

/// Refuses a config.json that states other sizes than the tensors have.
fn expect_stated(config: Option<&Value>, found: &[(&str, usize)]) -> Result<(), String> {
    for &(key, found) in found {
        let stated = config.and_then(|config| size(config.get(key)?));
        if let Some(stated) = stated.filter(|stated| *stated != found) {
            return Err(format!(
                "has a config.json with {key} {stated}, but its tensors have {found}. Restore the \
                 config.json of these weights"
            ));
        }
    }
    Ok(())
}

/// The sides of a square of so many positions but for the class token's.
pub(super) fn square_behind_class(rows: usize) -> Option<Grid> {
    let patches = rows.checked_sub(1).filter(|patches| *patches > 0)?;
    let side = patches.isqrt();
    (side * side == patches).then(|| Grid::image(side, side))
}

/// Takes the class token's row from the positions of an encoder with registers that have none.
/// Returns the grid of the others. See `place_registers` of the model.
pub(super) fn without_class_position(shapes: &mut Shapes) -> Option<Grid> {
    let has = |name: &str| shapes.contains_key(name);
    if !has("reg_token") || !has("cls_token") {
        return None;
    }
    let [1, rows, _] = shapes.get_mut("pos_embed")?.as_mut_slice() else { return None };
    let grid = square_behind_class(*rows)?;
    *rows -= 1;
    Some(grid)
}

/// The heads, and whether the file states them.
fn heads(
    width: usize,
    head: Option<usize>,
    config: Option<&Value>,
    hint: Hint,
) -> Result<(usize, bool), String> {
    let stated = config.and_then(|config| size(config.get("num_attention_heads")?));
    if let Some(heads) = head.map(|head| width / head.max(1)).or(stated) {
        return Ok((heads, true));
    }
    let hinted = hint.heads.filter(|(of, _)| *of == width).map(|(_, heads)| heads);
    let by_width = HEADS.iter().find(|(timm, _)| *timm == width).map(|(_, heads)| *heads);
    hinted.or(by_width).map(|heads| (heads, false)).ok_or_else(|| {
        format!(
            "does not state how many heads the width {width} is split into. State it with --heads \
             N. For a teacher, export the file once with --heads N"
        )
    })
}

fn guessed(spec: &VitSpec, heads_told: bool, placed: &PatchGrid, eps_told: bool) -> Option<String> {
    let [_, height, width] = spec.image;
    let heads = (!heads_told).then(|| format!("{} heads", spec.heads));
    let image = (!placed.told).then(|| format!("images of {height} x {width} pixels"));
    let prefix = (!placed.told && placed.no_embed_class && spec.prefix() > 0)
        .then(|| "class token and registers without positions".to_owned());
    // The usual one goes without saying.
    let eps = (!eps_told && (spec.pre_norm || spec.eps != USUAL_EPS))
        .then(|| format!("norms with an ε of {:e}", spec.eps));
    let all: Vec<String> = [heads, image, prefix, eps].into_iter().flatten().collect();
    let what = all.join(", ");
    (!all.is_empty())
        .then(|| format!("the file does not state all its sizes, so these are assumed: {what}"))
}

/// Patches along time, height and width.
struct PatchGrid {
    sides: [usize; 3],
    /// Whether the table has no rows for the prefix.
    no_embed_class: bool,
    /// Whether the file states the sides, rather than a guess.
    told: bool,
}

fn grid(
    rows: usize,
    prefix: usize,
    config: Option<&Value>,
    hint: Hint,
    [pt, ph, pw]: [usize; 3],
) -> Result<PatchGrid, String> {
    let image = config.and_then(|config| match config.get("image_size")? {
        Value::Array(sides) => Some([size(sides.first()?)?, size(sides.get(1)?)?]),
        side => Some([size(side)?; 2]),
    });
    if let Some([height, width]) = image {
        let sides = [1, height / ph.max(1), width / pw.max(1)];
        // Registers have none, see `without_class_position`.
        let no_embed_class = prefix > 1 && rows == sides.iter().product::<usize>();
        return Ok(PatchGrid { sides, no_embed_class, told: true });
    }
    let fits = |grid: &Grid| [0, prefix].contains(&rows.wrapping_sub(grid.len()));
    let of_grid = |grid: Grid, told: bool| PatchGrid {
        sides: [grid.t, grid.h, grid.w],
        no_embed_class: rows == grid.len() && prefix > 0,
        told,
    };
    if let Some(grid) = hint.grid.filter(fits) {
        return Ok(of_grid(grid, true));
    }
    // Tables usually have rows for the prefix. A wanted image is no evidence of the one in
    // training, so a square comes first.
    let wanted =
        hint.image.map(|[t, h, w]| Grid { t: t / pt.max(1), h: h / ph.max(1), w: w / pw.max(1) });
    for patches in [rows.wrapping_sub(prefix), rows] {
        let side = patches.isqrt();
        let square =
            (pt == 1 && patches > 0 && side * side == patches).then_some(Grid::image(side, side));
        let found = square.or(wanted.filter(|grid| grid.len() == patches));
        if let Some(grid) = found.filter(fits) {
            return Ok(of_grid(grid, false));
        }
    }
    let no_square = match hint.grid {
        Some(grid) => format!("neither a grid of {grid} nor a square of patches"),
        None => "not a square of patches".to_owned(),
    };
    Err(format!(
        "has a position table of {rows} rows, {prefix} of them before the patches: {no_square}, so \
         the image's size is not known. Use a file whose metadata state it, or state the patches \
         with --grid ROWSxCOLUMNS"
    ))
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().map(|value| value as usize)
}

#[cfg(test)]
mod tests {
    use super::{Grid, Hint, grid};

    /// The grid of a table of so many rows, one of them the class token's, with patches of 4 x 4,
    /// if images of these sides are wanted. Whether the class token has no row.
    fn sides(rows: usize, image: Option<[usize; 2]>) -> Result<([usize; 3], bool), String> {
        let image = image.map(|[height, width]| [1, height, width]);
        let found = grid(rows, 1, None, Hint { image, ..Hint::default() }, [1, 4, 4])?;
        Ok((found.sides, found.no_embed_class))
    }

    #[test]
    fn a_square_table_is_square_whatever_images_are_wanted() {
        assert_eq!(sides(65, Some([16, 64])), Ok(([1, 8, 8], false)), "4 x 16 are 64, too");
        assert_eq!(sides(65, Some([20, 52])), Ok(([1, 8, 8], false)), "5 x 13 are 65, too");
        assert_eq!(sides(64, Some([16, 64])), Ok(([1, 8, 8], true)));
        assert_eq!(sides(25, Some([16, 24])), Ok(([1, 4, 6], false)), "25 are a square, too");
    }

    #[test]
    fn a_stated_grid_comes_before_a_square() {
        let of = |rows: usize, grid: Grid| {
            let hint = Hint { grid: Some(grid), image: Some([1, 20, 20]), ..Hint::default() };
            super::grid(rows, 1, None, hint, [1, 4, 4]).map(|found| found.sides)
        };
        assert_eq!(of(65, Grid::image(4, 16)), Ok([1, 4, 16]));
        assert_eq!(of(33, Grid::image(4, 8)), Ok([1, 4, 8]));
        assert_eq!(of(65, Grid::image(4, 8)), Ok([1, 8, 8]), "which the caller refuses");
    }

    #[test]
    fn a_table_that_is_no_square_is_of_the_wanted_images_or_refused() {
        assert_eq!(sides(97, Some([32, 48])), Ok(([1, 8, 12], false)));
        assert_eq!(sides(96, Some([32, 48])), Ok(([1, 8, 12], true)));
        for image in [None, Some([48, 48])] {
            assert!(sides(97, image).unwrap_err().contains("--grid"), "{image:?}");
        }
    }
}
