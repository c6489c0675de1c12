//! stable-pretraining 0.1.8: methods/mae.py and methods/salt.py. tests/golden/REFERENCE.md lists
//! the `state_dict` keys.

use crate::mask::Grid;
use crate::model::position;
use crate::weights::NamedTensors;
use engine::Tensor;

/// The encoders: their owners there and here.
const ENCODERS: [(&str, &str); 4] = [
    ("encoder", "encoder"),
    ("student", "student"),
    ("teacher.backbone", "teacher"),
    ("teacher", "teacher"),
];

/// Tensors that are fixed, or without effect: SALT replaces the whole output of `query_proj` by the
/// mask token.
const UNUSED: [&str; 4] = [
    "predictor.pos_embed",
    "predictor.query_proj.weight",
    "predictor.query_proj.bias",
    "decoder.transformer.pos_embed",
];

/// What stands before their encoders' names there and here, the longest first.
pub(in crate::weights) fn owners() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut owners = ENCODERS;
    owners.sort_by_key(|(theirs, _)| std::cmp::Reverse(theirs.len()));
    owners.into_iter()
}

/// Our name of a tensor of theirs. None for second names, fixed tables and heads.
pub(super) fn our_name(name: &str) -> Option<String> {
    for (theirs, ours) in ENCODERS {
        let Some(rest) = name.strip_prefix(theirs).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        // Without it: the patch embedding's second name, mask tokens of other methods.
        let rest = rest.strip_prefix("vit.")?;
        return (!rest.starts_with("head.")).then(|| format!("{ours}.{rest}"));
    }
    let known = name.starts_with("predictor.") || name.starts_with("decoder.");
    (known && !UNUSED.contains(&name)).then(|| name.to_owned())
}

/// stable-pretraining's name of one of a stage's tensors, and its second name if it has one. A
/// patch embedding appears under timm's name, and as the masked encoder's own.
pub fn names(ours: &str) -> (String, Option<String>) {
    let (owner, rest) = ours.split_once('.').unwrap_or(("", ours));
    let found = ENCODERS.iter().find(|(_, ours)| *ours == owner);
    let Some((theirs, _)) = found else { return (ours.to_owned(), None) };
    let second = rest.starts_with("patch_embed.proj.").then(|| format!("{theirs}.{rest}"));
    (format!("{theirs}.vit.{rest}"), second)
}

/// The names of a module's parameters and of its parts, in the order in which they are registered
/// there and in timm. torch lists a module's own parameters before those of its parts.
const ORDER: [&[&str]; 2] = [
    &["cls_token", "reg_token", "pos_embed", "mask_token", "weight", "bias", "gamma"],
    &[
        "teacher",
        "student",
        "encoder",
        "predictor",
        "decoder",
        "backbone",
        "vit",
        "transformer",
        "patch_embed",
        "context_proj",
        "query_proj",
        "output_proj",
        "norm_pre",
        "blocks",
        "norm",
        "fc_norm",
        "final_norm",
        "norm1",
        "attn",
        "ls1",
        "norm2",
        "mlp",
        "ls2",
        "qkv",
        "q_norm",
        "k_norm",
        "proj",
        "fc1",
        "fc2",
    ],
];

/// Sorts the names of weights there as `named_parameters` lists them.
pub fn place(name: &str) -> Vec<(bool, usize)> {
    let count = name.split('.').count();
    let part = |(level, part): (usize, &str)| {
        let inner = level + 1 < count;
        let known = || ORDER[usize::from(inner)].iter().position(|known| *known == part);
        // A block's number, or a name that is not known: after all others.
        let rank = part.parse().ok().or_else(known).unwrap_or(usize::MAX);
        (inner, rank)
    };
    name.split('.').enumerate().map(part).collect()
}

/// A stage's tensors under stable-pretraining's names, including second names.
pub fn renamed(tensors: &NamedTensors) -> NamedTensors {
    let mut all = NamedTensors::new();
    for (name, tensor) in tensors {
        let (first, second) = names(name);
        all.extend(second.map(|second| (second, tensor.clone())));
        all.insert(first, tensor.clone());
    }
    all
}

/// A stage's tensors under stable-pretraining's names, with everything else that its
/// `load_state_dict` needs. These are second names, fixed tables on `grid`, and zeros for the
/// projection that has no effect.
pub fn theirs(tensors: &NamedTensors, grid: Grid) -> Vec<(String, Tensor)> {
    let mut all = renamed(tensors);
    for part in ["predictor", "decoder.transformer"] {
        let projection = tensors.get(&format!("{part}.context_proj.weight"));
        let Some(&[width, input]) = projection.map(Tensor::shape) else { continue };
        let table = position::sincos(width, grid).to_vec();
        let table = Tensor::from_vec(table, &[1, grid.len(), width]);
        all.insert(format!("{part}.pos_embed"), table);
        if part == "predictor" {
            all.insert(format!("{part}.query_proj.weight"), Tensor::zeros(&[width, input]));
            all.insert(format!("{part}.query_proj.bias"), Tensor::zeros(&[width]));
        }
    }
    all.into_iter().collect()
}
