//! The bytes of an event file: records with checksums (tensorflow/core/lib/io/record_writer.h), and
//! the messages in them.

use super::messages::{
    Event, EventHead, Experiment, HParamEntry, HParamInfo, HParamValue, HParamsPluginData,
    HistogramProto, MetricInfo, MetricName, PluginData, SessionEndInfo, SessionLog,
    SessionStartInfo, Summary, SummaryImage, SummaryMetadata, SummaryValue, ValueHead,
};
use crate::run_files::{Histogram, Line, LineKind};
use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// Tags of hparams.
const EXPERIMENT: &str = "_hparams_/experiment";
const START: &str = "_hparams_/session_start_info";
const END: &str = "_hparams_/session_end_info";
/// Largest record that is read. Pictures are the largest that saltworks writes.
const MOST_RECORD_BYTES: u64 = 64 << 20;
/// Bytes of a record beside its data: the length and two checksums.
const FRAME_BYTES: u64 = 16;

/// Identifies a line of the log in an event file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineId {
    pub(super) step: u64,
    pub(super) is_probe: bool,
}

impl LineId {
    /// `None` for a line without numbers.
    pub(super) fn of(line: &Line) -> Option<Self> {
        match line.kind {
            LineKind::Step(_) => Some(Self { step: line.step, is_probe: false }),
            LineKind::Probe(_) => Some(Self { step: line.step, is_probe: true }),
            LineKind::Alarm(_) => None,
        }
    }
}

/// What an event file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileContents {
    /// Bytes of its whole records.
    pub(super) bytes: u64,
    /// Whether it holds the stage's settings.
    pub(super) settings: bool,
    /// Lines of the log.
    pub(super) lines: VecDeque<LineId>,
    /// Step of the last pictures.
    pub(super) picture_step: Option<u64>,
    /// Whether it says that the stage ended.
    pub(super) ended: bool,
}

impl FileContents {
    /// Reads whole records up to the first that is damaged or cut.
    pub(super) fn read(mut file: impl Read) -> Self {
        let mut contents = Self::default();
        while let Some(data) = next_record(&mut file) {
            contents.bytes += data.len() as u64 + FRAME_BYTES;
            contents.count(data);
        }
        contents
    }

    fn count(&mut self, data: Vec<u8>) {
        let Ok(event) = EventHead::decode(Bytes::from(data)) else { return };
        let step = event.step;
        if event.session_log.is_some() {
            self.lines.retain(|line| line.step < step);
            self.picture_step = self.picture_step.filter(|pictures| *pictures < step);
            self.ended = false;
        }
        match first_tag(&event.summary).unwrap_or_default().as_str() {
            "loss" => self.lines.push_back(LineId { step, is_probe: false }),
            START => self.settings = true,
            END => self.ended = true,
            tag if tag.starts_with("probe/") => {
                self.lines.push_back(LineId { step, is_probe: true });
            }
            tag if tag.starts_with("original/") => self.picture_step = Some(step),
            _ => {}
        }
    }
}

/// The tag of the first value of a Summary.
fn first_tag(summary: &[u8]) -> Option<String> {
    // Key of field 1, with a length. The other values are not read.
    let value = summary.strip_prefix(b"\x0A")?;
    ValueHead::decode_length_delimited(value).ok().map(|value| value.tag)
}

/// The data of the next record, if it is whole and its checksums agree.
fn next_record(file: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut sum) = ([0; 8], [0; 4]);
    file.read_exact(&mut length).ok()?;
    file.read_exact(&mut sum).ok()?;
    let size = u64::from_le_bytes(length);
    if masked(&length).to_le_bytes() != sum || size > MOST_RECORD_BYTES {
        return None;
    }
    let mut data = vec![0; size as usize];
    file.read_exact(&mut data).ok()?;
    file.read_exact(&mut sum).ok()?;
    (masked(&data).to_le_bytes() == sum).then_some(data)
}

/// Writes one record: length, data, and a checksum of each.
pub(super) fn write_record(file: &mut impl Write, event: &Event) -> io::Result<()> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked(&length).to_le_bytes())?;
    file.write_all(&data)?;
    file.write_all(&masked(&data).to_le_bytes())
}

/// The event that begins a file.
pub(super) fn file_version(time: f64) -> Event {
    let file_version = Some("brain.Event:2".to_owned());
    Event { wall_time: time, file_version, ..Event::default() }
}

/// An event with these values.
pub(super) fn event(time: f64, step: u64, values: impl Iterator<Item = SummaryValue>) -> Event {
    let summary = Some(Summary { value: values.collect() });
    Event { wall_time: time, step: Some(step), summary, ..Event::default() }
}

/// An event that voids those of `step` and later ones.
pub(super) fn restart(time: f64, step: u64) -> Event {
    let session_log = Some(SessionLog { status: 1 });
    Event { wall_time: time, step: Some(step), session_log, ..Event::default() }
}

/// A value of one number.
pub(super) fn number((tag, value): (String, f64)) -> SummaryValue {
    SummaryValue { tag, simple_value: Some(value as f32), ..SummaryValue::default() }
}

/// A value of a histogram. The values themselves are not kept, so sums are those of the bins'
/// centres.
pub(super) fn histogram(tag: &str, of: &Histogram) -> SummaryValue {
    let bounds = |index: usize| f64::from(of.edges.get(index).copied().unwrap_or_default());
    let count = |bin: usize| of.counts[bin] as f64;
    let bins = 0..of.counts.len();
    let sum = |power: i32| -> f64 {
        let centre = |bin: usize| 0.5 * (bounds(bin) + bounds(bin + 1));
        bins.clone().map(|bin| count(bin) * centre(bin).powi(power)).sum()
    };
    let histo = HistogramProto {
        min: bounds(0),
        max: bounds(of.counts.len()),
        num: bins.clone().map(count).sum(),
        sum: sum(1),
        sum_squares: sum(2),
        bucket_limit: bins.clone().map(|bin| bounds(bin + 1)).collect(),
        bucket: bins.clone().map(count).collect(),
    };
    SummaryValue { tag: tag.to_owned(), histo: Some(histo), ..SummaryValue::default() }
}

/// A value of a PNG file, whose first chunk states its size (PNG, 11.2.1). `None` for bytes that
/// are not a PNG file.
pub(super) fn image(tag: String, png: Vec<u8>) -> Option<SummaryValue> {
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    let (width, height) = (number(16)?, number(20)?);
    let grey = png.get(25)? & 2 == 0;
    let colorspace = if grey { 1 } else { 3 };
    let image = SummaryImage { height, width, colorspace, encoded_image_string: png };
    Some(SummaryValue { tag, image: Some(image), ..SummaryValue::default() })
}

/// hparams: the settings that vary, and the numbers by which runs are compared.
pub(super) fn experiment(settings: &[(String, Value)], metrics: &[&str]) -> SummaryValue {
    let info = |(name, value): &(String, Value)| {
        let data_type = match value {
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            _ => 3, // FLOAT64
        };
        HParamInfo { name: name.clone(), data_type }
    };
    let metric = |tag: &&str| MetricInfo { name: Some(MetricName { tag: (*tag).to_owned() }) };
    let experiment = Experiment {
        hparam_infos: settings.iter().map(info).collect(),
        metric_infos: metrics.iter().map(metric).collect(),
    };
    let data = HParamsPluginData { experiment: Some(experiment), ..HParamsPluginData::default() };
    hparams(EXPERIMENT, &data)
}

/// hparams: the settings of one stage, whose training began at `time`.
pub(super) fn session_start(settings: &[(String, Value)], stage: &str, time: f64) -> SummaryValue {
    let entry = |(name, value): &(String, Value)| HParamEntry {
        key: name.clone(),
        value: Some(hparam_value(value)),
    };
    let session_start_info = Some(SessionStartInfo {
        hparams: settings.iter().map(entry).collect(),
        group_name: stage.to_owned(),
        start_time_secs: time,
    });
    hparams(START, &HParamsPluginData { session_start_info, ..HParamsPluginData::default() })
}

/// hparams: the stage ended at `time`.
pub(super) fn session_end(time: f64) -> SummaryValue {
    let session_end_info = Some(SessionEndInfo { status: 1, end_time_secs: time });
    hparams(END, &HParamsPluginData { session_end_info, ..HParamsPluginData::default() })
}

fn hparams(tag: &str, data: &HParamsPluginData) -> SummaryValue {
    let plugin = PluginData { plugin_name: "hparams".to_owned(), content: data.encode_to_vec() };
    let metadata = Some(SummaryMetadata { plugin_data: Some(plugin) });
    SummaryValue { tag: tag.to_owned(), metadata, ..SummaryValue::default() }
}

fn hparam_value(value: &Value) -> HParamValue {
    let mut message = HParamValue::default();
    match value {
        Value::Bool(yes) => message.bool_value = Some(*yes),
        Value::Number(number) => message.number_value = Some(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => message.string_value = Some(text.clone()),
        other => message.string_value = Some(other.to_string()),
    }
    message
}

/// The checksum of TFRecord. It is rotated and shifted so that data may itself hold checksums.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82F6_3B78 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !data.iter().fold(!0, |sum: u32, &byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    /// Field by field, from the .proto files. Zeros are written.
    #[test]
    fn events_have_the_bytes_of_earlier_versions() {
        let mut file = Vec::new();
        let values = [number(("loss".to_owned(), 0.0))].into_iter();
        write_record(&mut file, &event(1.0, 0, values)).unwrap();
        let value = [&[0x0A, 4][..], b"loss", &[0x15, 0, 0, 0, 0]].concat();
        let one = [0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F];
        let data = [&one[..], &[0x10, 0, 0x2A, 13, 0x0A, 11], &value].concat();
        assert_eq!(file[12..12 + data.len()], data);
        assert_eq!(restart(1.0, 300).encode_to_vec()[9..], [0x10, 0xAC, 2, 0x3A, 2, 8, 1]);
    }

    #[test]
    fn an_event_that_cannot_be_decoded_is_passed_over() {
        let mut file = Vec::new();
        let step = |step: u64| event(0.0, step, [number(("loss".to_owned(), 0.5))].into_iter());
        write_record(&mut file, &step(1)).unwrap();
        // Nothing, a field that is cut, a length of 2^63, a tag that is no text, empty values.
        let hostile: [&[u8]; 5] = [
            b"",
            b"\x09\0",
            b"\x2A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F",
            b"\x2A\x05\x0A\x03\x0A\x01\xFF",
            b"\x2A\x04\x0A\0\x0A\0",
        ];
        for data in hostile {
            let length = (data.len() as u64).to_le_bytes();
            let sums = [masked(&length), masked(data)].map(u32::to_le_bytes);
            file.extend([&length[..], &sums[0], data, &sums[1]].concat());
        }
        write_record(&mut file, &step(2)).unwrap();
        let contents = FileContents::read(file.as_slice());
        let lines = [1, 2].map(|step| LineId { step, is_probe: false }).into();
        let bytes = file.len() as u64;
        assert_eq!(contents, FileContents { bytes, lines, ..FileContents::default() });
    }

    #[test]
    fn nothing_that_is_no_png_is_an_image() {
        let of = |bytes: &[u8]| image("a".to_owned(), bytes.to_vec());
        assert!(of(b"").is_none() && of(&[0; 25]).is_none());
    }
}
