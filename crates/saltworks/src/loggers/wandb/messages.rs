//! Messages of an offline run (wandb/proto/wandb_internal.proto), with the fields that saltworks
//! writes.
//!
//! Numbers that are never negative are unsigned, which gives the same bytes. `required` writes a
//! field even if it is zero or empty, as files of earlier versions have it.

/// Record
#[derive(prost::Message)]
pub(super) struct WandbRecord {
    #[prost(uint64, required, tag = "1")]
    pub(super) num: u64,
    #[prost(oneof = "RecordType", tags = "2, 3, 17, 18, 21")]
    pub(super) record_type: Option<RecordType>,
}

/// Record.record_type
#[derive(prost::Oneof)]
pub(super) enum RecordType {
    #[prost(message, tag = "2")]
    History(HistoryRecord),
    #[prost(message, tag = "3")]
    Summary(SummaryRecord),
    #[prost(message, tag = "17")]
    Run(RunRecord),
    #[prost(message, tag = "18")]
    Exit(RunExitRecord),
    #[prost(message, tag = "21")]
    Header(HeaderRecord),
}

/// HeaderRecord
#[derive(prost::Message)]
pub(super) struct HeaderRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) version_info: Option<VersionInfo>,
    #[prost(message, optional, tag = "200")]
    pub(super) info: Option<RecordInfo>,
}

/// VersionInfo
#[derive(prost::Message)]
pub(super) struct VersionInfo {
    #[prost(string, required, tag = "1")]
    pub(super) producer: String,
    /// The oldest program that may read the file.
    #[prost(string, required, tag = "2")]
    pub(super) min_consumer: String,
}

/// _RecordInfo (wandb/proto/wandb_base.proto).
#[derive(prost::Message)]
pub(super) struct RecordInfo {
    #[prost(string, required, tag = "1")]
    pub(super) stream_id: String,
}

/// RunRecord
#[derive(prost::Message)]
pub(super) struct RunRecord {
    #[prost(string, required, tag = "1")]
    pub(super) run_id: String,
    #[prost(string, required, tag = "3")]
    pub(super) project: String,
    #[prost(message, optional, tag = "4")]
    pub(super) config: Option<ConfigRecord>,
    #[prost(string, required, tag = "8")]
    pub(super) display_name: String,
    #[prost(string, repeated, tag = "10")]
    pub(super) tags: Vec<String>,
    #[prost(message, optional, tag = "17")]
    pub(super) start_time: Option<Timestamp>,
}

/// google.protobuf.Timestamp (google/protobuf/timestamp.proto).
#[derive(prost::Message)]
pub(super) struct Timestamp {
    #[prost(uint64, required, tag = "1")]
    pub(super) seconds: u64,
    #[prost(uint32, required, tag = "2")]
    pub(super) nanos: u32,
}

/// ConfigRecord
#[derive(prost::Message)]
pub(super) struct ConfigRecord {
    #[prost(message, repeated, tag = "1")]
    pub(super) update: Vec<ValueItem>,
}

/// SummaryRecord
#[derive(prost::Message)]
pub(super) struct SummaryRecord {
    #[prost(message, repeated, tag = "1")]
    pub(super) update: Vec<ValueItem>,
}

/// ConfigItem and SummaryItem, which have the same fields.
#[derive(prost::Message)]
pub(super) struct ValueItem {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "16")]
    pub(super) value_json: String,
}

/// HistoryRecord
#[derive(prost::Message)]
pub(super) struct HistoryRecord {
    #[prost(message, repeated, tag = "1")]
    pub(super) item: Vec<HistoryItem>,
    #[prost(message, optional, tag = "2")]
    pub(super) step: Option<HistoryStep>,
}

/// HistoryItem
#[derive(prost::Message)]
pub(super) struct HistoryItem {
    /// A path of names.
    #[prost(string, repeated, tag = "2")]
    pub(super) nested_key: Vec<String>,
    #[prost(string, required, tag = "16")]
    pub(super) value_json: String,
}

/// HistoryStep
#[derive(prost::Message)]
pub(super) struct HistoryStep {
    #[prost(uint64, required, tag = "1")]
    pub(super) num: u64,
}

/// RunExitRecord, of a run that ended without an error.
#[derive(prost::Message)]
pub(super) struct RunExitRecord {}
