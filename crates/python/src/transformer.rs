//! `saltworks.Transformer`: context tokens and queries that attend jointly.

use crate::arrays::floats;
use crate::compute::{Results, not_forked};
use crate::errors::{raised, refused};
use crate::model::{Model, ModelParts, array};
use crate::state::{Extras, reference_weights};
use crate::tokens::{Tokens, patch_lists};
use engine::random::Random;
use engine::{Module, Parameter, Result, Tape, Tensor, init};
use pyo3::prelude::*;
use saltworks::mask::{Grid, Masks};
use saltworks::model::{
    FirstWeights, Inputs, PositionTable, Positions, Published, StepKey, Transformer,
    TransformerSpec, TransformerUse, position,
};

/// The table of positions [1, N, D], if none is learned.
fn fixed_positions(
    kind: PositionTable,
    width: usize,
    (rows, columns): (usize, usize),
) -> engine::Result<Option<Tensor>> {
    let patches = rows * columns;
    let table = match kind {
        PositionTable::Sincos => position::sincos(width, Grid::image(rows, columns)),
        PositionTable::SincosOfIndex => position::sincos_of_index(width, patches),
        PositionTable::None => Tensor::zeros(&[patches, width]),
        PositionTable::Learned | PositionTable::Rotary(_) => return Ok(None),
    };
    table.reshape(&[1, patches, width]).map(Some)
}

/// The first weights of this name.
pub(crate) fn initial_weights(name: &str) -> PyResult<FirstWeights> {
    match name {
        "published" => Ok(FirstWeights::Published),
        "torch" => Ok(FirstWeights::Torch),
        _ => Err(refused(format!(
            "initial_weights is {name:?}, expected \"published\" (V-JEPA's for a predictor, MAE's \
             for a decoder) or \"torch\" (torch.nn.Linear's default)"
        ))),
    }
}

/// The table of positions of this name.
fn position_table(name: &str) -> PyResult<PositionTable> {
    match name {
        "sincos_2d" => Ok(PositionTable::Sincos),
        "sincos_1d" => Ok(PositionTable::SincosOfIndex),
        "learned" => Ok(PositionTable::Learned),
        "none" => Ok(PositionTable::None),
        _ => Err(refused(format!(
            "pos_embed_type is {name:?}, expected \"sincos_2d\", \"sincos_1d\", \"learned\" or \
             \"none\""
        ))),
    }
}

/// What a call reads: context tokens, and queries or none, with the patches of both.
pub(crate) struct Call {
    context: Tensor,
    queries: Option<Tensor>,
    masks: Masks,
    /// Whether every patch gets an output, in the order of the grid.
    every: bool,
}

impl Call {
    /// `context` [B, K, I], `queries` [B, M, I] or None for the mask token. I is `width`.
    pub(crate) fn new(
        (grid, width): (Grid, usize),
        context: &Bound<'_, PyAny>,
        queries: Option<&Bound<'_, PyAny>>,
        (context_idx, query_idx): (&Bound<'_, PyAny>, &Bound<'_, PyAny>),
        every: bool,
    ) -> PyResult<Self> {
        not_forked()?;
        let (context, samples) = rows("context", context)?;
        let masks = Masks::of_lists(
            grid,
            patch_lists("context_idx", context_idx, samples, grid, every)?,
            patch_lists("query_idx", query_idx, samples, grid, every)?,
        );
        let queries = queries.map(|queries| rows("queries", queries)).transpose()?;
        let counts = [("context", &context, samples, masks.context[0].len())];
        let asked = queries
            .iter()
            .map(|(rows, samples)| ("queries", rows, *samples, masks.target[0].len()));
        for (name, rows, of, expected) in counts.into_iter().chain(asked) {
            if of != samples || rows.rows() != samples * expected || rows.dim(1) != width {
                let found = [of, rows.rows() / of, rows.dim(1)];
                return Err(refused(format!(
                    "{name} is {found:?}, expected {:?}: as many tokens as its indices",
                    [samples, expected, width]
                )));
            }
        }
        if masks.context[0].is_empty() {
            return Err(refused("the context is empty, expected at least one token"));
        }
        let both = masks.context.iter().zip(&masks.target);
        let twice = |(context, target): (&Vec<u32>, &Vec<u32>)| {
            target.iter().copied().find(|patch| context.contains(patch))
        };
        if let Some(patch) = both.filter_map(twice).next().filter(|_| every) {
            return Err(refused(format!("patch {patch} is both context and query")));
        }
        if every && masks.context[0].len() + masks.target[0].len() != grid.len() {
            let (found, expected) = (masks.context[0].len() + masks.target[0].len(), grid.len());
            return Err(refused(format!(
                "context and queries are {found} patches, expected all {expected} of the {grid} \
                 grid, because an output of every patch is wanted"
            )));
        }
        Ok(Self { context, queries: queries.map(|(queries, _)| queries), masks, every })
    }

    /// Whether there is a query.
    fn asks(&self) -> bool {
        self.masks.target_count() > 0
    }

    /// The outputs that `forward` computes of context, queries, their patches, and the patches that
    /// get outputs.
    pub(crate) fn run(
        self,
        py: Python<'_>,
        model: &Model,
        record: bool,
        forward: impl FnOnce(&Tape, &Tensor, Option<&Tensor>, &Masks, Positions) -> Result<Tensor>
        + Send,
    ) -> PyResult<Tokens> {
        let Self { context, queries, masks, every } = self;
        let samples = masks.len();
        let shape = |rows: &Tensor| vec![samples, rows.rows() / samples, rows.dim(1)];
        let inputs = std::iter::once(&context).chain(&queries).map(shape).collect();
        let (tokens, recorded) = model.turn().record(py, record, |tape| {
            let (context, context_gradient) = tape.input(&context);
            let queries = queries.map(|queries| tape.input(&queries));
            let positions = if every { Positions::All } else { Positions::Targets };
            let given = queries.as_ref().map(|(queries, _)| queries);
            let tokens = forward(tape, &context, given, &masks, positions)?;
            let inputs = std::iter::once(context_gradient);
            let inputs = inputs.chain(queries.map(|(_, gradient)| gradient)).collect();
            Ok((tokens.clone(), Results { results: vec![tokens], inputs }))
        })?;
        let shape = [samples, tokens.rows() / samples, tokens.dim(1)];
        Ok(Tokens::new(array(py, &tokens, &shape)?, inputs, recorded))
    }
}

/// Tokens [B, L, I] as rows [B L, I], and B.
fn rows(name: &str, given: &Bound<'_, PyAny>) -> PyResult<(Tensor, usize)> {
    let (values, shape) = floats(name, given)?;
    match *shape.as_slice() {
        [samples, tokens, width] if samples > 0 && width > 0 => {
            Ok((Tensor::from_vec(values, &[samples * tokens, width]), samples))
        }
        _ => Err(refused(format!("{name} is {shape:?}, expected [B, L, D]"))),
    }
}

/// The transformer of predictors and decoders, and its mask token.
struct Flexible {
    transformer: Transformer,
    mask_token: Option<Parameter>,
    input: usize,
    width: usize,
}

impl Flexible {
    fn forward(
        &self,
        tape: &Tape,
        (context, queries): (&Tensor, Option<&Tensor>),
        (masks, positions): (&Masks, Positions),
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let query = match (queries, &self.mask_token) {
            (Some(queries), _) if queries.rows() > 0 => self.transformer.query(tape, queries)?,
            (_, Some(token)) => token.tensor().reshape(&[1, self.width])?,
            _ => Tensor::zeros(&[1, self.width]), // nobody asks
        };
        let inputs = Inputs { context, query: &query, masks };
        self.transformer.forward(tape, &inputs, positions, key)
    }
}

impl Module for Flexible {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        if let Some(token) = &self.mask_token {
            f("mask_token", token);
        }
        self.transformer.visit(prefix, f);
    }
}

/// stable-pretraining's FlexibleTransformer with joint attention: context tokens and queries attend
/// to each other. Outputs are those of the queries, or of every patch.
#[pyclass(frozen, name = "Transformer", extends = Model, module = "saltworks")]
pub(crate) struct PyTransformer {
    inner: Flexible,
}

#[pymethods]
impl PyTransformer {
    /// Tokens of width `input_dim` on a grid of `grid` = (height, width) patches become outputs of
    /// width `output_dim`. `initial_weights` is "torch" or "published" (V-JEPA's predictor).
    #[new]
    #[pyo3(signature = (input_dim=768, hidden_dim=384, output_dim=768, grid=(14, 14), depth=4,
        num_heads=6, mlp_ratio=4.0, drop_path_rate=0.0, pos_embed_type="sincos_2d",
        add_mask_token=false, seed=0, *, initial_weights="torch"))]
    #[allow(clippy::too_many_arguments)] // the reference's arguments
    fn new(
        py: Python<'_>,
        input_dim: usize,
        hidden_dim: usize,
        output_dim: usize,
        grid: (usize, usize),
        depth: usize,
        num_heads: usize,
        mlp_ratio: f64,
        drop_path_rate: f32,
        pos_embed_type: &str,
        add_mask_token: bool,
        seed: u64,
        initial_weights: &str,
    ) -> PyResult<PyClassInitializer<Self>> {
        let initial = self::initial_weights(initial_weights)?;
        let spec = TransformerSpec { width: hidden_dim, depth, heads: num_heads, initial };
        spec.check("transformer").map_err(raised)?;
        let hidden = (hidden_dim as f64 * mlp_ratio) as usize;
        let sizes = [input_dim, output_dim, grid.0, grid.1, hidden];
        // Each is the width of a weight, or the height of the table of positions.
        let largest = sizes.iter().max().copied().unwrap_or(0).max(grid.0.saturating_mul(grid.1));
        if sizes.contains(&0) || largest.saturating_mul(hidden_dim) > 1 << 30 {
            return Err(refused(format!(
                "input_dim={input_dim}, hidden_dim={hidden_dim}, output_dim={output_dim}, \
                 grid={grid:?}, mlp_ratio={mlp_ratio}: expected sizes above 0, and no weight of \
                 more than 2^30 values"
            )));
        }
        if !(0.0..1.0).contains(&drop_path_rate) {
            return Err(refused(format!("drop_path_rate is {drop_path_rate}, expected [0, 1)")));
        }
        let made = ModelParts::without_images(py, hidden_dim, Grid::image(grid.0, grid.1), seed)?;
        made.arguments.set_item("input_dim", input_dim)?;
        made.arguments.set_item("hidden_dim", hidden_dim)?;
        made.arguments.set_item("output_dim", output_dim)?;
        made.arguments.set_item("grid", grid)?;
        made.arguments.set_item("depth", depth)?;
        made.arguments.set_item("num_heads", num_heads)?;
        made.arguments.set_item("mlp_ratio", mlp_ratio)?;
        made.arguments.set_item("drop_path_rate", drop_path_rate)?;
        made.arguments.set_item("pos_embed_type", pos_embed_type)?;
        made.arguments.set_item("add_mask_token", add_mask_token)?;
        made.arguments.set_item("initial_weights", initial_weights)?;
        let used = TransformerUse {
            input: input_dim,
            output: output_dim,
            hidden,
            projects_queries: true,
            drop_path: drop_path_rate,
            published: Published::Vjepa,
            positions: position_table(pos_embed_type)?,
            eps: 1e-5,
        };
        let mut random = Random::new(seed, "transformer", 0);
        let token = init::normal(&mut random, hidden_dim, 0.02);
        let token = || Parameter::new("mask_token", Tensor::from_vec(token, &[1, 1, hidden_dim]));
        let inner = Flexible {
            mask_token: add_mask_token.then(token),
            transformer: Transformer::new(spec, used, Grid::image(grid.0, grid.1), &mut random),
            input: input_dim,
            width: hidden_dim,
        };
        let weights = reference_weights(inner.parameters());
        let table = fixed_positions(used.positions, hidden_dim, grid).map_err(raised)?;
        let table = table.map(|table| ("pos_embed".to_owned(), table));
        let extras = Extras::of(table.into_iter().collect());
        let model = Model::new(py, weights, 0, extras, made)?;
        Ok(PyClassInitializer::from(model).add_subclass(Self { inner }))
    }

    /// `context` [B, K, input_dim] at the patches `context_idx` [B, K], and `queries` [B, M,
    /// input_dim] at the patches `query_idx` [B, M]. Without `queries`, the mask token is asked at
    /// each of them. Returns tokens [B, M, output_dim], or with `every` those of all patches
    /// [B, N, output_dim] in the order of the grid. With `training`, by default the model's mode,
    /// blocks are left out at random (`drop_path_rate`).
    #[pyo3(signature = (context, queries, context_idx, query_idx, *, every=false, training=None,
        record=true))]
    #[allow(clippy::too_many_arguments)]
    fn __call__(
        slf: &Bound<'_, Self>,
        context: &Bound<'_, PyAny>,
        queries: Option<&Bound<'_, PyAny>>,
        context_idx: &Bound<'_, PyAny>,
        query_idx: &Bound<'_, PyAny>,
        every: bool,
        training: Option<bool>,
        record: bool,
    ) -> PyResult<Tokens> {
        let (this, model) = (slf.get(), slf.as_super().get());
        let call = Call::new(
            (model.patch_grid(), this.inner.input),
            context,
            queries,
            (context_idx, query_idx),
            every,
        )?;
        if queries.is_none() && this.inner.mask_token.is_none() && call.asks() {
            return Err(refused("queries are None, but this transformer has no mask token"));
        }
        let key = training.unwrap_or(model.is_training()).then(|| model.next_key());
        call.run(slf.py(), model, record, |tape, context, queries, masks, positions| {
            this.inner.forward(tape, (context, queries), (masks, positions), key)
        })
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!(
            "Transformer(hidden_dim={}, grid={})",
            slf.get().inner.width,
            slf.as_super().get().patch_grid()
        )
    }
}
