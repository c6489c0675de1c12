//! Messages of an event file, with the fields that saltworks writes.
//!
//! Numbers that are never negative are unsigned, which gives the same bytes. `required` writes a
//! field even if it is zero or empty, as files of earlier versions have it.

use bytes::Bytes;

/// Event (tensorflow/core/util/event.proto).
#[derive(prost::Message)]
pub(super) struct Event {
    #[prost(double, required, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(uint64, optional, tag = "2")]
    pub(super) step: Option<u64>,
    // One of these.
    #[prost(string, optional, tag = "3")]
    pub(super) file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    pub(super) session_log: Option<SessionLog>,
}

/// Event as it is read. Its summary stays bytes, because millions of empty values fit in a record.
#[derive(prost::Message)]
pub(super) struct EventHead {
    #[prost(uint64, required, tag = "2")]
    pub(super) step: u64,
    #[prost(bytes = "bytes", required, tag = "5")]
    pub(super) summary: Bytes,
    #[prost(message, optional, tag = "7")]
    pub(super) session_log: Option<SessionLog>,
}

/// SessionLog (tensorflow/core/util/event.proto).
#[derive(prost::Message)]
pub(super) struct SessionLog {
    /// 1 is START.
    #[prost(int32, required, tag = "1")]
    pub(super) status: i32,
}

/// Summary (tensorflow/core/framework/summary.proto, as all to HistogramProto).
#[derive(prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<SummaryValue>,
}

/// Summary.Value
#[derive(prost::Message)]
pub(super) struct SummaryValue {
    #[prost(string, required, tag = "1")]
    pub(super) tag: String,
    // One of these.
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<SummaryImage>,
    #[prost(message, optional, tag = "5")]
    pub(super) histo: Option<HistogramProto>,
    // Beside them.
    #[prost(message, optional, tag = "9")]
    pub(super) metadata: Option<SummaryMetadata>,
}

/// Summary.Value as it is read.
#[derive(prost::Message)]
pub(super) struct ValueHead {
    #[prost(string, required, tag = "1")]
    pub(super) tag: String,
}

/// Summary.Image
#[derive(prost::Message)]
pub(super) struct SummaryImage {
    #[prost(uint32, required, tag = "1")]
    pub(super) height: u32,
    #[prost(uint32, required, tag = "2")]
    pub(super) width: u32,
    /// 1 is greyscale, 3 is RGB.
    #[prost(uint32, required, tag = "3")]
    pub(super) colorspace: u32,
    #[prost(bytes = "vec", required, tag = "4")]
    pub(super) encoded_image_string: Vec<u8>,
}

/// SummaryMetadata
#[derive(prost::Message)]
pub(super) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin_data: Option<PluginData>,
}

/// SummaryMetadata.PluginData
#[derive(prost::Message)]
pub(super) struct PluginData {
    #[prost(string, required, tag = "1")]
    pub(super) plugin_name: String,
    /// A message of the plugin, encoded.
    #[prost(bytes = "vec", required, tag = "2")]
    pub(super) content: Vec<u8>,
}

/// HistogramProto
#[derive(prost::Message)]
pub(super) struct HistogramProto {
    #[prost(double, required, tag = "1")]
    pub(super) min: f64,
    #[prost(double, required, tag = "2")]
    pub(super) max: f64,
    #[prost(double, required, tag = "3")]
    pub(super) num: f64,
    #[prost(double, required, tag = "4")]
    pub(super) sum: f64,
    #[prost(double, required, tag = "5")]
    pub(super) sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    pub(super) bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) bucket: Vec<f64>,
}

/// HParamsPluginData (tensorboard/plugins/hparams/plugin_data.proto). It has one of its fields.
#[derive(prost::Message)]
pub(super) struct HParamsPluginData {
    #[prost(message, optional, tag = "2")]
    pub(super) experiment: Option<Experiment>,
    #[prost(message, optional, tag = "3")]
    pub(super) session_start_info: Option<SessionStartInfo>,
    #[prost(message, optional, tag = "4")]
    pub(super) session_end_info: Option<SessionEndInfo>,
}

/// SessionStartInfo (plugin_data.proto).
#[derive(prost::Message)]
pub(super) struct SessionStartInfo {
    /// The entries of a map. They keep their order.
    #[prost(message, repeated, tag = "1")]
    pub(super) hparams: Vec<HParamEntry>,
    #[prost(string, required, tag = "4")]
    pub(super) group_name: String,
    #[prost(double, required, tag = "5")]
    pub(super) start_time_secs: f64,
}

/// An entry of SessionStartInfo.hparams.
#[derive(prost::Message)]
pub(super) struct HParamEntry {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<HParamValue>,
}

/// google.protobuf.Value (google/protobuf/struct.proto). It has one of its fields.
#[derive(prost::Message)]
pub(super) struct HParamValue {
    #[prost(double, optional, tag = "2")]
    pub(super) number_value: Option<f64>,
    #[prost(string, optional, tag = "3")]
    pub(super) string_value: Option<String>,
    #[prost(bool, optional, tag = "4")]
    pub(super) bool_value: Option<bool>,
}

/// SessionEndInfo (plugin_data.proto).
#[derive(prost::Message)]
pub(super) struct SessionEndInfo {
    /// 1 is STATUS_SUCCESS.
    #[prost(int32, required, tag = "1")]
    pub(super) status: i32,
    #[prost(double, required, tag = "2")]
    pub(super) end_time_secs: f64,
}

/// Experiment (tensorboard/plugins/hparams/api.proto, as all that follow).
#[derive(prost::Message)]
pub(super) struct Experiment {
    #[prost(message, repeated, tag = "4")]
    pub(super) hparam_infos: Vec<HParamInfo>,
    #[prost(message, repeated, tag = "5")]
    pub(super) metric_infos: Vec<MetricInfo>,
}

/// HParamInfo
#[derive(prost::Message)]
pub(super) struct HParamInfo {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    /// DataType
    #[prost(int32, required, tag = "4")]
    pub(super) data_type: i32,
}

/// MetricInfo
#[derive(prost::Message)]
pub(super) struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) name: Option<MetricName>,
}

/// MetricName
#[derive(prost::Message)]
pub(super) struct MetricName {
    #[prost(string, required, tag = "2")]
    pub(super) tag: String,
}
