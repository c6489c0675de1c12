//! Messages of an ONNX file (onnx/onnx.proto of ONNX 1.16), with the fields that saltworks writes.
//!
//! Graphs and tensors are larger than memory should hold twice. So their messages, and those around
//! them, have a start and an end, and [`Field`] frames what comes between.
//!
//! `required` writes a field even if it is zero or empty. Most fields of onnx.proto are optional.

/// A field of bytes or of a message, by its number.
#[derive(Clone, Copy)]
pub(super) struct Field(pub(super) u8);

/// ModelProto.graph
pub(super) const GRAPH: Field = Field(7);
/// GraphProto.initializer
pub(super) const INITIALIZER: Field = Field(5);
/// TensorProto.raw_data
pub(super) const RAW_DATA: Field = Field(9);

impl Field {
    /// Its key and the length of its content, which follow. Numbers are below 16, so a key is a
    /// byte: wire type 2 is that of lengths.
    pub(super) fn head(self, length: usize) -> Vec<u8> {
        let mut head = vec![self.0 << 3 | 2];
        // A vector has room.
        prost::encode_length_delimiter(length, &mut head).expect("room in a vector");
        head
    }

    /// Bytes of the whole field.
    pub(super) fn size(self, length: usize) -> usize {
        1 + prost::length_delimiter_len(length) + length
    }
}

/// ModelProto, up to its graph.
#[derive(prost::Message)]
pub(super) struct ModelStart {
    #[prost(int64, required, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, required, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, required, tag = "3")]
    pub(super) producer_version: String,
}

/// ModelProto, behind its graph.
#[derive(prost::Message)]
pub(super) struct ModelEnd {
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<StringStringEntryProto>,
}

/// OperatorSetIdProto
#[derive(prost::Message)]
pub(super) struct OperatorSetIdProto {
    #[prost(string, required, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, required, tag = "2")]
    pub(super) version: i64,
}

/// StringStringEntryProto
#[derive(prost::Message)]
pub(super) struct StringStringEntryProto {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "2")]
    pub(super) value: String,
}

/// GraphProto, up to its constants.
#[derive(prost::Message)]
pub(super) struct GraphStart {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, required, tag = "2")]
    pub(super) name: String,
}

/// GraphProto, behind its constants.
#[derive(prost::Message)]
pub(super) struct GraphEnd {
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfoProto>,
}

/// NodeProto
#[derive(prost::Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
    #[prost(string, required, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeProto>,
}

/// AttributeProto
#[derive(prost::Message)]
pub(super) struct AttributeProto {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    // One of these.
    #[prost(float, optional, tag = "2")]
    pub(super) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    /// AttributeProto.type: 1 is FLOAT, 2 INT, 7 INTS.
    #[prost(int32, required, tag = "20")]
    pub(super) attribute_type: i32,
}

/// TensorProto, up to its values.
#[derive(prost::Message)]
pub(super) struct TensorStart {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, required, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, required, tag = "8")]
    pub(super) name: String,
}

/// ValueInfoProto
#[derive(prost::Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value_type: Option<TypeProto>,
}

/// TypeProto
#[derive(prost::Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorTypeProto>,
}

/// TypeProto.Tensor
#[derive(prost::Message)]
pub(super) struct TensorTypeProto {
    #[prost(int32, required, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShapeProto>,
}

/// TensorShapeProto
#[derive(prost::Message)]
pub(super) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<DimensionProto>,
}

/// TensorShapeProto.Dimension. It has one of its fields.
#[derive(prost::Message)]
pub(super) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}
