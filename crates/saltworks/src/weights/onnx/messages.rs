//! Messages of an ONNX file (onnx/onnx.proto of ONNX 1.16), with the fields that saltworks writes.
//!
//! `required` writes a field even if it is zero or empty. Most fields of onnx.proto are optional.

/// ModelProto
#[derive(prost::Message)]
pub(super) struct ModelProto {
    #[prost(int64, required, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, required, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, required, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
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

/// GraphProto
#[derive(prost::Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, required, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
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

/// TensorProto
#[derive(prost::Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, required, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, required, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "vec", required, tag = "9")]
    pub(super) raw_data: Vec<u8>,
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
