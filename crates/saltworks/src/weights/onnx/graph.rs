//! Nodes and constants of an ONNX graph. Field numbers: onnx/onnx.proto (ONNX 1.16).

use super::proto::ProtoMessage;

/// TensorProto.DataType.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// A graph that is being written. Values are referred to by name.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<ProtoMessage>,
    constants: Vec<ProtoMessage>,
    inputs: Vec<ProtoMessage>,
    outputs: Vec<ProtoMessage>,
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

impl Graph {
    /// Adds a node. Returns its only output, named after the node's number and operator.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let output = format!("{}_{op}", self.nodes.len());
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
        let node = inputs.iter().fold(ProtoMessage::default(), |node, input| node.text(1, input));
        let node = node.text(2, output).text(3, output).text(4, op);
        let attributes: Vec<_> = attributes.iter().map(Attribute::message).collect();
        self.nodes.push(node.messages(5, &attributes));
    }

    /// A constant of f32 under this name.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, FLOAT, &bytes)
    }

    /// A constant number.
    pub(super) fn scalar(&mut self, value: f32) -> String {
        self.floats(&format!("constant_{}", self.constants.len()), &[], &[value])
    }

    /// A constant list of whole numbers.
    pub(super) fn list(&mut self, values: &[i64]) -> String {
        let (name, shape) = (format!("constant_{}", self.constants.len()), [values.len()]);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&name, &shape, INT64, &bytes)
    }

    /// A constant whole number without axes.
    pub(super) fn number(&mut self, value: i64) -> String {
        let name = format!("constant_{}", self.constants.len());
        self.constant(&name, &[], INT64, &value.to_le_bytes())
    }

    fn constant(&mut self, name: &str, shape: &[usize], kind: i64, bytes: &[u8]) -> String {
        let shape: Vec<i64> = shape.iter().map(|&axis| axis as i64).collect();
        let tensor =
            ProtoMessage::default().ints(1, &shape).int(2, kind).text(8, name).bytes(9, bytes);
        self.constants.push(tensor);
        name.to_owned()
    }

    /// Declares an input of f32.
    pub(super) fn input(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.inputs.push(value_info(name, axes));
    }

    /// Declares an output of f32.
    pub(super) fn output(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.outputs.push(value_info(name, axes));
    }

    /// The whole GraphProto.
    pub(super) fn finish(self, name: &str) -> ProtoMessage {
        let Self { nodes, constants, inputs, outputs } = self;
        let graph =
            ProtoMessage::default().messages(1, &nodes).text(2, name).messages(5, &constants);
        graph.messages(11, &inputs).messages(12, &outputs)
    }
}

impl Attribute<'_> {
    fn message(&self) -> ProtoMessage {
        // The last field is AttributeProto.AttributeType.
        match *self {
            Self::Float(name, value) => {
                ProtoMessage::default().text(1, name).float(2, value).int(20, 1)
            }
            Self::Int(name, value) => {
                ProtoMessage::default().text(1, name).int(3, value).int(20, 2)
            }
            Self::Ints(name, values) => {
                ProtoMessage::default().text(1, name).ints(8, values).int(20, 7)
            }
        }
    }
}

fn value_info(name: &str, axes: &[Axis<'_>]) -> ProtoMessage {
    let axis = |axis: &Axis<'_>| match *axis {
        Axis::Of(length) => ProtoMessage::default().int(1, length as i64),
        Axis::Any(name) => ProtoMessage::default().text(2, name),
    };
    let axes: Vec<_> = axes.iter().map(axis).collect();
    let shape = ProtoMessage::default().messages(1, &axes);
    let tensor = ProtoMessage::default().int(1, FLOAT).message(2, &shape);
    ProtoMessage::default().text(1, name).message(2, &ProtoMessage::default().message(1, &tensor))
}
