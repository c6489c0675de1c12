//! Nodes and constants of an ONNX graph.

use super::messages::{
    AttributeProto, DimensionProto, GraphEnd, GraphStart, INITIALIZER, NodeProto, RAW_DATA,
    TensorShapeProto, TensorStart, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::weights::Dtype;
use crate::weights::safetensors_file::write_values;
use engine::Tensor;
use prost::Message as _;
use std::io::{self, Write};

/// TensorProto.DataType.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// A graph of an encoder. Values are referred to by name. Those of its weights stay where they are
/// until the graph is written.
#[derive(Default)]
pub(super) struct Graph<'a> {
    start: GraphStart,
    constants: Vec<Constant<'a>>,
    end: GraphEnd,
}

struct Constant<'a> {
    start: TensorStart,
    values: ConstantValues<'a>,
}

/// The values of a constant.
pub(super) enum ConstantValues<'a> {
    /// Little-endian bytes.
    Bytes(Vec<u8>),
    /// A weight as it is.
    Weight(&'a Tensor),
    /// A weight [O, I] as [I, O].
    Transposed(&'a Tensor),
}

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
}

/// An axis of an input or output.
pub(super) enum Axis<'a> {
    /// Of any length.
    Any(&'a str),
    /// Of this length.
    Of(usize),
}

impl<'a> Graph<'a> {
    /// An empty graph of this name.
    pub(super) fn of(name: &str) -> Self {
        let start = GraphStart { name: name.to_owned(), ..GraphStart::default() };
        Self { start, ..Self::default() }
    }

    /// Adds a node. Returns its only output, named after the node's number and operator.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let output = format!("{}_{op}", self.start.node.len());
        self.named_node(op, inputs, &output, attributes);
        output
    }

    /// Adds a node whose output has this name.
    pub(super) fn named_node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[Attribute<'_>],
    ) {
        self.start.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(Attribute::message).collect(),
        });
    }

    /// A weight under its name.
    pub(super) fn weight(&mut self, name: &str, tensor: &'a Tensor) -> String {
        self.constant(name.to_owned(), tensor.shape(), FLOAT, ConstantValues::Weight(tensor))
    }

    /// A weight [O, I] as [I, O], under its name.
    pub(super) fn transposed(&mut self, name: &str, tensor: &'a Tensor) -> String {
        let shape = [tensor.dim(1), tensor.dim(0)];
        self.constant(name.to_owned(), &shape, FLOAT, ConstantValues::Transposed(tensor))
    }

    /// A constant number.
    pub(super) fn scalar(&mut self, value: f32) -> String {
        let values = ConstantValues::Bytes(value.to_le_bytes().into());
        self.constant(self.next_name(), &[], FLOAT, values)
    }

    /// A constant list of whole numbers.
    pub(super) fn list(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(self.next_name(), &[values.len()], INT64, ConstantValues::Bytes(bytes))
    }

    /// A constant whole number without axes.
    pub(super) fn number(&mut self, value: i64) -> String {
        let values = ConstantValues::Bytes(value.to_le_bytes().into());
        self.constant(self.next_name(), &[], INT64, values)
    }

    /// The name of the next constant that has no other.
    fn next_name(&self) -> String {
        format!("constant_{}", self.constants.len())
    }

    fn constant(
        &mut self,
        name: String,
        shape: &[usize],
        data_type: i32,
        values: ConstantValues<'a>,
    ) -> String {
        let dims = shape.iter().map(|&axis| axis as i64).collect();
        let start = TensorStart { dims, data_type, name: name.clone() };
        self.constants.push(Constant { start, values });
        name
    }

    /// Declares an input of f32.
    pub(super) fn input(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.end.input.push(value_info(name, axes));
    }

    /// Declares an output of f32.
    pub(super) fn output(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.end.output.push(value_info(name, axes));
    }

    /// Bytes of the whole graph.
    pub(super) fn size(&self) -> usize {
        let constants = self.constants.iter().map(|one| INITIALIZER.size(one.size()));
        self.start.encoded_len() + constants.sum::<usize>() + self.end.encoded_len()
    }

    /// Writes the graph. Of its weights, one at a time is in memory a second time.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.start.encode_to_vec())?;
        for constant in &self.constants {
            to.write_all(&INITIALIZER.head(constant.size()))?;
            constant.write(to)?;
        }
        to.write_all(&self.end.encode_to_vec())
    }
}

impl Constant<'_> {
    fn size(&self) -> usize {
        self.start.encoded_len() + RAW_DATA.size(self.values.size())
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.start.encode_to_vec())?;
        to.write_all(&RAW_DATA.head(self.values.size()))?;
        match &self.values {
            ConstantValues::Bytes(bytes) => to.write_all(bytes),
            ConstantValues::Weight(tensor) => write_values(to, &tensor.to_host(), Dtype::F32),
            ConstantValues::Transposed(tensor) => write_values(to, &transposed(tensor), Dtype::F32),
        }
    }
}

impl ConstantValues<'_> {
    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Weight(tensor) | Self::Transposed(tensor) => size_of::<f32>() * tensor.len(),
        }
    }
}

/// [O, I] -> [I, O]
fn transposed(tensor: &Tensor) -> Vec<f32> {
    let (rows, columns, from) = (tensor.dim(0), tensor.dim(1), tensor.to_host());
    (0..rows * columns).map(|index| from[index % rows * columns + index / rows]).collect()
}

impl Attribute<'_> {
    fn message(&self) -> AttributeProto {
        let of = |name: &str, attribute_type: i32| AttributeProto {
            name: name.to_owned(),
            attribute_type,
            ..AttributeProto::default()
        };
        match *self {
            Self::Float(name, value) => AttributeProto { f: Some(value), ..of(name, 1) },
            Self::Int(name, value) => AttributeProto { i: Some(value), ..of(name, 2) },
            Self::Ints(name, values) => AttributeProto { ints: values.to_vec(), ..of(name, 7) },
        }
    }
}

fn value_info(name: &str, axes: &[Axis<'_>]) -> ValueInfoProto {
    let dim = |axis: &Axis<'_>| match *axis {
        Axis::Of(length) => DimensionProto { dim_value: Some(length as i64), dim_param: None },
        Axis::Any(name) => DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) },
    };
    let shape = Some(TensorShapeProto { dim: axes.iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape });
    ValueInfoProto { name: name.to_owned(), value_type: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field by field, from onnx.proto. Zeros are written, and lists are not packed.
    #[test]
    fn messages_have_the_bytes_of_earlier_versions() {
        let bytes = |attribute: Attribute<'_>| attribute.message().encode_to_vec();
        let minus = [[0x18].as_slice(), &[0xFF; 9], &[1]].concat();
        let kind = |kind: u8| [0xA0, 1, kind];
        assert_eq!(bytes(Attribute::Int("a", -1)), [b"\x0A\x01a", &minus[..], &kind(2)].concat());
        let ints = [0x40, 0, 0x40, 2];
        assert_eq!(
            bytes(Attribute::Ints("a", &[0, 2])),
            [b"\x0A\x01a", &ints[..], &kind(7)].concat()
        );
        let float = [0x15, 0, 0, 0, 0];
        assert_eq!(
            bytes(Attribute::Float("a", 0.0)),
            [b"\x0A\x01a", &float[..], &kind(1)].concat()
        );
        let mut graph = Graph::default();
        graph.list(&[1, 2]);
        let mut tensor = Vec::new();
        graph.constants[0].write(&mut tensor).unwrap();
        assert_eq!(tensor.len(), graph.constants[0].size());
        assert_eq!(tensor[..6], [8, 2, 0x10, 7, 0x42, 10]);
        assert_eq!(tensor[16..18], [0x4A, 16]);
    }
}
