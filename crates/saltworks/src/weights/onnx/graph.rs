//! Nodes and constants of an ONNX graph.

use super::messages::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

/// TensorProto.DataType.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// A graph that is being written. Values are referred to by name.
#[derive(Default)]
pub(super) struct Graph(GraphProto);

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

impl Graph {
    /// Adds a node. Returns its only output, named after the node's number and operator.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let output = format!("{}_{op}", self.0.node.len());
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
        self.0.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(Attribute::message).collect(),
        });
    }

    /// A constant of f32 under this name.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name.to_owned(), shape, FLOAT, bytes)
    }

    /// A constant number.
    pub(super) fn scalar(&mut self, value: f32) -> String {
        self.floats(&self.next_name(), &[], &[value])
    }

    /// A constant list of whole numbers.
    pub(super) fn list(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(self.next_name(), &[values.len()], INT64, bytes)
    }

    /// A constant whole number without axes.
    pub(super) fn number(&mut self, value: i64) -> String {
        self.constant(self.next_name(), &[], INT64, value.to_le_bytes().into())
    }

    /// The name of the next constant that has no other.
    fn next_name(&self) -> String {
        format!("constant_{}", self.0.initializer.len())
    }

    fn constant(
        &mut self,
        name: String,
        shape: &[usize],
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> String {
        let dims = shape.iter().map(|&axis| axis as i64).collect();
        self.0.initializer.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        name
    }

    /// Declares an input of f32.
    pub(super) fn input(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.0.input.push(value_info(name, axes));
    }

    /// Declares an output of f32.
    pub(super) fn output(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.0.output.push(value_info(name, axes));
    }

    /// The whole graph.
    pub(super) fn finish(self, name: &str) -> GraphProto {
        GraphProto { name: name.to_owned(), ..self.0 }
    }
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
    use prost::Message as _;

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
        let tensor = graph.0.initializer[0].encode_to_vec();
        assert_eq!(tensor[..6], [8, 2, 0x10, 7, 0x42, 10]);
        assert_eq!(tensor[16..18], [0x4A, 16]);
    }
}
