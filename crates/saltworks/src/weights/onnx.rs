//! The encoder as an ONNX graph (opset 17): images in, tokens out, for any batch.
//!
//! The input is `images` [B, C, H, W], normalised as in training. The outputs are `tokens` [B, P +
//! N, D] after the final norm, `mean` [B, D] of the patch tokens, and `cls` [B, D] if there is a
//! class token. A norm behind the mean is part of `mean` and `cls`, not of `tokens`.

mod graph;
mod messages;

use super::{Error, NamedTensors};
use crate::files::write_whole_with;
use crate::model::VitSpec;
use engine::Tensor;
use graph::Attribute::{self, Float, Int, Ints};
use graph::{Axis, Graph};
use messages::{GRAPH, ModelEnd, ModelStart, OperatorSetIdProto, StringStringEntryProto};
use prost::Message as _;
use std::collections::HashMap;
use std::path::Path;

/// The first version with LayerNormalization.
const OPSET: i64 = 17;

/// ONNX 1.12, the first with opset 17.
const IR_VERSION: i64 = 8;

/// The most bytes of tensors: a protobuf message must be smaller than 2 GiB.
const MOST_BYTES: usize = (1 << 31) - (1 << 20);

/// Writes an encoder of these sizes, with tensors under timm's names and `metadata`, to `path`.
pub fn save(
    path: &Path,
    spec: &VitSpec,
    tensors: &NamedTensors,
    metadata: &HashMap<String, String>,
) -> Result<(), Error> {
    let fail =
        |problem: String, advice| Error::Fit { path: path.display().to_string(), problem, advice };
    if spec.image[0] != 1 {
        let problem = format!("the encoder sees clips of {} frames", spec.image[0]);
        return Err(fail(problem, "ONNX is written only for encoders of images"));
    }
    let bytes = size_of::<f32>() * tensors.values().map(Tensor::len).sum::<usize>();
    if bytes > MOST_BYTES {
        let problem = format!("its tensors take {bytes} bytes, an ONNX file holds {MOST_BYTES}");
        return Err(fail(problem, "Export to safetensors instead"));
    }
    let mut writer = Writer { graph: Graph::of("encoder"), spec, tensors };
    writer.encoder().map_err(|name| {
        let advice = "Set the model's sizes to those of the file, or choose another file";
        fail(format!("missing {name}"), advice)
    })?;
    let (graph, (start, end)) = (writer.graph, around(metadata));
    let written = write_whole_with(path, |file| {
        file.write_all(&start.encode_to_vec())?;
        file.write_all(&GRAPH.head(graph.size()))?;
        graph.write(file)?;
        file.write_all(&end.encode_to_vec())
    });
    written.map(drop).map_err(|source| Error::write(path, source))
}

/// The model around its graph.
fn around(metadata: &HashMap<String, String>) -> (ModelStart, ModelEnd) {
    let mut sorted: Vec<_> = metadata.iter().collect();
    sorted.sort();
    let pair = |(key, value): (&String, &String)| StringStringEntryProto {
        key: key.clone(),
        value: value.clone(),
    };
    let start = ModelStart {
        ir_version: IR_VERSION,
        producer_name: "saltworks".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let end = ModelEnd {
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: sorted.into_iter().map(pair).collect(),
    };
    (start, end)
}

struct Writer<'a> {
    graph: Graph<'a>,
    spec: &'a VitSpec,
    tensors: &'a NamedTensors,
}

/// The name of a tensor that is missing.
type Missing = String;

impl<'a> Writer<'a> {
    fn encoder(&mut self) -> Result<(), Missing> {
        let (spec, width) = (self.spec, self.spec.width);
        let [_, height, length] = spec.image;
        let batch = || Axis::Any("batch");
        let axes = [batch(), Axis::Of(spec.channels), Axis::Of(height), Axis::Of(length)];
        self.graph.input("images", &axes);
        let mut x = self.embed()?; // [B, P + N, D]
        if spec.pre_norm {
            x = self.norm(&x, "norm_pre")?;
        }
        for block in 0..spec.depth {
            x = self.block(&x, &format!("blocks.{block}"))?;
        }
        let tokens = if spec.fc_norm { x } else { self.norm(&x, "norm")? };
        let count = spec.prefix() + spec.grid().len();
        self.graph.named_node("Identity", &[&tokens], "tokens", &[]);
        self.graph.output("tokens", &[batch(), Axis::Of(count), Axis::Of(width)]);
        let patches = self.slice(&tokens, spec.prefix(), count, 1);
        let norm = match spec.fc_norm {
            true => Some([self.constant("fc_norm.weight")?, self.constant("fc_norm.bias")?]),
            false => None,
        };
        let attributes = [Ints("axes", &[1]), Int("keepdims", 0)];
        self.pooled(("ReduceMean", &[&patches], &attributes), norm.as_ref(), "mean");
        self.graph.output("mean", &[batch(), Axis::Of(width)]);
        if spec.class_token {
            let first = self.graph.number(0);
            self.pooled(("Gather", &[&tokens, &first], &[Int("axis", 1)]), norm.as_ref(), "cls");
            self.graph.output("cls", &[batch(), Axis::Of(width)]);
        }
        Ok(())
    }

    /// The tokens of each image pooled to one, with the weight and bias of a norm behind.
    fn pooled(
        &mut self,
        (op, inputs, attributes): (&str, &[&str], &[Attribute<'_>]),
        norm: Option<&[String; 2]>,
        output: &str,
    ) {
        let Some([weight, bias]) = norm else {
            return self.graph.named_node(op, inputs, output, attributes);
        };
        let pooled = self.graph.node(op, inputs, attributes);
        let attributes = [Int("axis", -1), Float("epsilon", self.spec.eps)];
        let inputs = [pooled.as_str(), weight, bias];
        self.graph.named_node("LayerNormalization", &inputs, output, &attributes);
    }

    /// Patches [B, N, D] by a convolution, then class token, registers and positions.
    fn embed(&mut self) -> Result<String, Missing> {
        let spec = self.spec;
        let [_, ph, pw] = spec.patch.map(|side| side as i64);
        let (width, patches) = (spec.width as i64, spec.grid().len() as i64);
        let weight = self.constant("patch_embed.proj.weight")?;
        let bias = self.constant("patch_embed.proj.bias")?;
        let attributes = [Ints("kernel_shape", &[ph, pw]), Ints("strides", &[ph, pw])];
        let x = self.graph.node("Conv", &["images", &weight, &bias], &attributes);
        let x = self.reshape(&x, &[0, width, patches]);
        let x = self.transpose(&x, &[0, 2, 1]); // [B, N, D]
        let position = self.constant("pos_embed")?;
        let x = match spec.no_embed_class {
            true => self.graph.node("Add", &[&x, &position], &[]),
            false => x,
        };
        let mut parts = Vec::new();
        for (name, count) in
            [("cls_token", usize::from(spec.class_token)), ("reg_token", spec.registers)]
        {
            if count > 0 {
                parts.push(self.for_each_image(name, count as i64)?);
            }
        }
        parts.push(x);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let x = self.graph.node("Concat", &parts, &[Int("axis", 1)]);
        Ok(match spec.no_embed_class {
            true => x,
            false => self.graph.node("Add", &[&x, &position], &[]),
        })
    }

    /// Repeats a token [1, count, D] for each image of the batch.
    fn for_each_image(&mut self, name: &str, count: i64) -> Result<String, Missing> {
        let token = self.constant(name)?;
        let shape = self.graph.node("Shape", &["images"], &[Int("start", 0), Int("end", 1)]);
        let rest = self.graph.list(&[count, self.spec.width as i64]);
        let shape = self.graph.node("Concat", &[&shape, &rest], &[Int("axis", 0)]);
        Ok(self.graph.node("Expand", &[&token, &shape], &[]))
    }

    /// x + γ attention(norm(x)), then x + γ MLP(norm(x)).
    fn block(&mut self, x: &str, name: &str) -> Result<String, Missing> {
        let y = self.norm(x, &format!("{name}.norm1"))?;
        let y = self.attention(&y, &format!("{name}.attn"))?;
        let x = self.residual(x, &y, &format!("{name}.ls1"))?;
        let y = self.norm(&x, &format!("{name}.norm2"))?;
        let y = self.linear(&y, &format!("{name}.mlp.fc1"))?;
        let y = if self.spec.swiglu { self.gate(&y) } else { self.gelu(&y) };
        let y = self.linear(&y, &format!("{name}.mlp.fc2"))?;
        self.residual(&x, &y, &format!("{name}.ls2"))
    }

    fn residual(&mut self, x: &str, y: &str, scale: &str) -> Result<String, Missing> {
        let y = match self.spec.layer_scale {
            None => y.to_owned(),
            Some(_) => {
                let gamma = self.constant(&format!("{scale}.gamma"))?;
                self.graph.node("Mul", &[y, &gamma], &[])
            }
        };
        Ok(self.graph.node("Add", &[x, &y], &[]))
    }

    fn attention(&mut self, x: &str, name: &str) -> Result<String, Missing> {
        let (width, heads) = (self.spec.width, self.spec.heads);
        let (tokens, dim) = (self.spec.prefix() + self.spec.grid().len(), width / heads);
        let [tokens, heads, dim] = [tokens, heads, dim].map(|size| size as i64);
        let qkv = self.linear(x, &format!("{name}.qkv"))?;
        let qkv = self.reshape(&qkv, &[0, tokens, 3, heads, dim]);
        let qkv = self.transpose(&qkv, &[2, 0, 3, 1, 4]); // [3, B, A, N, E]
        let [mut q, mut k, v] = [0, 1, 2].map(|index| {
            let index = self.graph.number(index);
            self.graph.node("Gather", &[&qkv, &index], &[Int("axis", 0)])
        });
        if self.spec.qk_norm {
            q = self.norm(&q, &format!("{name}.q_norm"))?;
            k = self.norm(&k, &format!("{name}.k_norm"))?;
        }
        let q = self.times(&q, (dim as f32).powf(-0.5));
        let k = self.transpose(&k, &[0, 1, 3, 2]);
        let scores = self.graph.node("MatMul", &[&q, &k], &[]);
        let shares = self.graph.node("Softmax", &[&scores], &[Int("axis", -1)]);
        let mixed = self.graph.node("MatMul", &[&shares, &v], &[]); // [B, A, N, E]
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[0, tokens, width as i64]);
        self.linear(&mixed, &format!("{name}.proj"))
    }

    /// x (1 + erf(x/√2))/2: opset 17 has no GELU.
    fn gelu(&mut self, x: &str) -> String {
        let scaled = self.times(x, std::f32::consts::FRAC_1_SQRT_2);
        let erf = self.graph.node("Erf", &[&scaled], &[]);
        let one = self.graph.scalar(1.0);
        let sum = self.graph.node("Add", &[&erf, &one], &[]);
        let product = self.graph.node("Mul", &[x, &sum], &[]);
        self.times(&product, 0.5)
    }

    /// silu(a) b, for x [B, N, 2F] = [a, b].
    fn gate(&mut self, x: &str) -> String {
        let width = self.spec.hidden;
        let [a, b] = [0, width].map(|first| self.slice(x, first, first + width, 2));
        let open = self.graph.node("Sigmoid", &[&a], &[]);
        let silu = self.graph.node("Mul", &[&a, &open], &[]);
        self.graph.node("Mul", &[&silu, &b], &[])
    }

    /// x wᵀ + b.
    fn linear(&mut self, x: &str, name: &str) -> Result<String, Missing> {
        let weight = format!("{name}.weight");
        let weight = self.graph.transposed(&weight, self.tensor(&weight)?);
        let bias = self.constant(&format!("{name}.bias"))?;
        let product = self.graph.node("MatMul", &[x, &weight], &[]);
        Ok(self.graph.node("Add", &[&product, &bias], &[]))
    }

    fn norm(&mut self, x: &str, name: &str) -> Result<String, Missing> {
        let weight = self.constant(&format!("{name}.weight"))?;
        let bias = self.constant(&format!("{name}.bias"))?;
        let attributes = [Int("axis", -1), Float("epsilon", self.spec.eps)];
        Ok(self.graph.node("LayerNormalization", &[x, &weight, &bias], &attributes))
    }

    fn times(&mut self, x: &str, factor: f32) -> String {
        let factor = self.graph.scalar(factor);
        self.graph.node("Mul", &[x, &factor], &[])
    }

    fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.graph.list(shape);
        self.graph.node("Reshape", &[x, &shape], &[])
    }

    fn transpose(&mut self, x: &str, axes: &[i64]) -> String {
        self.graph.node("Transpose", &[x], &[Ints("perm", axes)])
    }

    /// first..end of an axis: of [B, N, D], axis 1 is that of the tokens.
    fn slice(&mut self, x: &str, first: usize, end: usize, axis: usize) -> String {
        let [first, end, axis] = [first, end, axis].map(|value| self.graph.list(&[value as i64]));
        self.graph.node("Slice", &[x, &first, &end, &axis], &[])
    }

    fn tensor(&self, name: &str) -> Result<&'a Tensor, Missing> {
        self.tensors.get(name).ok_or_else(|| name.to_owned())
    }

    fn constant(&mut self, name: &str) -> Result<String, Missing> {
        let tensor = self.tensor(name)?;
        Ok(self.graph.weight(name, tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Module as _;

    /// The numbers of a graph, in their order: field 9 of a TensorProto is its bytes, and these are
    /// four of a number. The weights are all 0.
    fn numbers(file: &[u8]) -> Vec<f32> {
        let number = |bytes: &[u8]| match *bytes {
            [0x4A, 4, a, b, c, d] => Some(f32::from_le_bytes([a, b, c, d])),
            _ => None,
        };
        file.windows(6).filter_map(number).collect()
    }

    /// Scores are q·k/√E (Vaswani et al. 2017, eq. 1), and GELU is x (1 + erf(x/√2))/2.
    #[test]
    fn scores_are_divided_by_the_root_of_the_width_of_a_head() {
        let spec = VitSpec {
            image: [1, 8, 8],
            patch: [1, 4, 4],
            channels: 1,
            width: 32,
            depth: 1,
            heads: 2,
            hidden: 8,
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        };
        let parameters = crate::model::Encoder::new(&spec, 0).parameters().into_iter();
        let zeros = |(name, parameter): (String, engine::Parameter)| {
            (name, Tensor::zeros(&parameter.shape()))
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.onnx");
        save(&path, &spec, &parameters.map(zeros).collect(), &HashMap::new()).unwrap();
        let found = numbers(&std::fs::read(path).unwrap());
        assert_eq!(found, [0.25, std::f32::consts::FRAC_1_SQRT_2, 1.0, 0.5]);
    }

    /// The fields of a message: numbers and contents. A number has no content.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = prost::decode_length_delimiter(&mut bytes).unwrap() as u64;
            let value = prost::decode_length_delimiter(&mut bytes).unwrap();
            let (content, rest) = bytes.split_at(if key & 7 == 2 { value } else { 0 });
            found.push((key >> 3, content));
            bytes = rest;
        }
        found
    }

    #[test]
    fn lengths_that_are_written_first_are_those_of_what_follows() {
        let spec = VitSpec {
            image: [1, 32, 32],
            patch: [1, 8, 8],
            depth: 2,
            width: 48,
            hidden: 96,
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        };
        let parameters = crate::model::Encoder::new(&spec, 0).parameters().into_iter();
        let tensors: NamedTensors =
            parameters.map(|(name, parameter)| (name, parameter.value())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.onnx");
        save(&path, &spec, &tensors, &[("a".to_owned(), "b".to_owned())].into()).unwrap();
        let file = std::fs::read(path).unwrap();
        let model = fields(&file);
        assert_eq!(
            model.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            [1, 2, 3, 7, 8, 14]
        );
        let graph = fields(model[3].1);
        let constants = graph.iter().filter(|(number, _)| *number == 5);
        let weights = constants.map(|(_, constant)| fields(constant)).filter_map(|constant| {
            let of = |number: u64| constant.iter().find(|(found, _)| *found == number);
            let name = String::from_utf8(of(8)?.1.to_vec()).ok()?;
            Some((name, of(9)?.1.len()))
        });
        let lengths: HashMap<String, usize> = weights.collect();
        for (name, tensor) in &tensors {
            assert_eq!(lengths[name], 4 * tensor.len(), "{name}");
        }
        assert_eq!(graph.iter().filter(|(number, _)| *number == 12).count(), 3, "outputs");
    }
}
