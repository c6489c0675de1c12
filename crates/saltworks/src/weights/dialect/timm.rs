//! timm's VisionTransformer: its names are ours.

use crate::model::VitSpec;
use crate::weights::NamedTensors;
use engine::Tensor;

/// An encoder's tensors as timm's model of these sizes has them. With a norm before the first
/// block, its patches have no bias: ours is added to their positions, which computes the same.
pub fn theirs(spec: &VitSpec, mut encoder: NamedTensors) -> NamedTensors {
    const BIAS: &str = "patch_embed.proj.bias";
    let width = spec.width;
    let (Some(bias), Some(table)) = (encoder.get(BIAS), encoder.get("pos_embed")) else {
        return encoder;
    };
    let before = spec.position_rows() - spec.grid().len();
    let expected = [1, spec.position_rows(), width];
    if !spec.pre_norm || bias.shape() != [width] || table.shape() != expected {
        return encoder;
    }
    let (bias, mut values) = (bias.to_vec(), table.to_vec());
    for row in values.chunks_exact_mut(width).skip(before) {
        row.iter_mut().zip(&bias).for_each(|(value, bias)| *value += bias);
    }
    encoder.insert("pos_embed".to_owned(), Tensor::from_vec(values, &expected));
    encoder.remove(BIAS);
    encoder
}
