//! The bytes of an event file: records with checksums, and the messages in them.
//! Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
//! tensorflow/core/framework/summary.proto and tensorboard/plugins/hparams/plugin_data.proto.

use super::super::protobuf::{Field, MessageWriter, fields};
use crate::run_files::{Histogram, Line, LineKind};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// Event.session_log
const SESSION_LOG: u32 = 7;
/// Tags of hparams.
const EXPERIMENT: &[u8] = b"_hparams_/experiment";
const START: &[u8] = b"_hparams_/session_start_info";
const END: &[u8] = b"_hparams_/session_end_info";
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
            contents.count(&data);
        }
        contents
    }

    fn count(&mut self, data: &[u8]) {
        let Some(event) = fields(data) else { return };
        let step = event.iter().find_map(|field| match field {
            (2, Field::Integer(step)) => Some(*step),
            _ => None,
        });
        let step = step.unwrap_or_default();
        if event.iter().any(|(field, _)| *field == SESSION_LOG) {
            self.lines.retain(|line| line.step < step);
            self.picture_step = self.picture_step.filter(|pictures| *pictures < step);
            self.ended = false;
        }
        match first_tag(&event).unwrap_or_default() {
            b"loss" => self.lines.push_back(LineId { step, is_probe: false }),
            tag if tag.starts_with(b"probe/") => {
                self.lines.push_back(LineId { step, is_probe: true });
            }
            tag if tag.starts_with(b"original/") => self.picture_step = Some(step),
            START => self.settings = true,
            END => self.ended = true,
            _ => {}
        }
    }
}

/// The tag of an event's first value: Event.summary, the first Summary.Value, its tag.
fn first_tag<'a>(event: &[(u32, Field<'a>)]) -> Option<&'a [u8]> {
    let within = |message: &[(u32, Field<'a>)], wanted: u32| {
        message.iter().find_map(|field| match field {
            (number, Field::Bytes(bytes)) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let summary = fields(within(event, 5)?)?;
    let value = fields(within(&summary, 1)?)?;
    within(&value, 1)
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
pub(super) fn write_record(file: &mut impl Write, message: MessageWriter) -> io::Result<()> {
    let data = message.bytes();
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked(&length).to_le_bytes())?;
    file.write_all(&data)?;
    file.write_all(&masked(&data).to_le_bytes())
}

/// The event that begins a file.
pub(super) fn file_version(time: f64) -> MessageWriter {
    MessageWriter::default().double(1, time).text(3, "brain.Event:2")
}

/// An event with these values.
pub(super) fn event(
    time: f64,
    step: u64,
    values: impl Iterator<Item = MessageWriter>,
) -> MessageWriter {
    let summary = values.fold(MessageWriter::default(), |all, value| all.message(1, value));
    MessageWriter::default().double(1, time).integer(2, step).message(5, summary)
}

/// An event that voids those of `step` and later ones: SessionLog.status = START.
pub(super) fn restart(time: f64, step: u64) -> MessageWriter {
    let start = MessageWriter::default().integer(1, 1);
    MessageWriter::default().double(1, time).integer(2, step).message(SESSION_LOG, start)
}

/// A Summary.Value of this tag.
pub(super) fn value_of(tag: impl AsRef<[u8]>) -> MessageWriter {
    MessageWriter::default().text(1, tag)
}

/// A Summary.Value of one number.
pub(super) fn number((tag, value): (String, f64)) -> MessageWriter {
    value_of(&tag).float(2, value as f32)
}

/// A Summary.Value of a histogram: a HistogramProto. The values themselves are not kept, so sums
/// are those of the bins' centres.
pub(super) fn histogram(tag: &str, of: &Histogram) -> MessageWriter {
    let bounds = |index: usize| f64::from(of.edges.get(index).copied().unwrap_or_default());
    let count = |bin: usize| of.counts[bin] as f64;
    let bins = 0..of.counts.len();
    let sum = |power: i32| -> f64 {
        let centre = |bin: usize| 0.5 * (bounds(bin) + bounds(bin + 1));
        bins.clone().map(|bin| count(bin) * centre(bin).powi(power)).sum()
    };
    let proto = MessageWriter::default()
        .double(1, bounds(0))
        .double(2, bounds(of.counts.len()))
        .double(3, bins.clone().map(count).sum())
        .double(4, sum(1))
        .double(5, sum(2))
        .doubles(6, bins.clone().map(|bin| bounds(bin + 1)))
        .doubles(7, bins.clone().map(count));
    value_of(tag).message(5, proto)
}

/// A Summary.Value of a PNG file, whose first chunk states its size (PNG, 11.2.1). `None` for bytes
/// that are not a PNG file.
pub(super) fn image(tag: &str, png: &[u8]) -> Option<MessageWriter> {
    let number = |at: usize| {
        let bytes = png.get(at..at + 4)?;
        Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?)))
    };
    let (width, height) = (number(16)?, number(20)?);
    let grey = png.get(25)? & 2 == 0;
    let channels = if grey { 1 } else { 3 };
    let image = MessageWriter::default().integer(1, height).integer(2, width);
    Some(value_of(tag).message(4, image.integer(3, channels).text(4, png)))
}

/// hparams: the settings that vary, and the numbers by which runs are compared.
pub(super) fn experiment(settings: &[(String, Value)], metrics: &[&str]) -> MessageWriter {
    let mut experiment = MessageWriter::default();
    for (name, value) in settings {
        // STRING, BOOL, FLOAT64
        let kind = if value.is_string() { 1 } else { 3 - u64::from(value.is_boolean()) };
        let setting = MessageWriter::default().text(1, name).integer(3, kind);
        experiment = experiment.message(4, setting);
    }
    for metric in metrics {
        let tag = MessageWriter::default().text(2, metric);
        experiment = experiment.message(5, MessageWriter::default().message(1, tag));
    }
    hparams(EXPERIMENT, 2, experiment)
}

/// hparams: the settings of one stage, whose training began at `time`.
pub(super) fn session_start(settings: &[(String, Value)], stage: &str, time: f64) -> MessageWriter {
    let session = settings.iter().fold(MessageWriter::default(), |session, (name, value)| {
        session.message(1, MessageWriter::default().text(1, name).message(2, json_value(value)))
    });
    hparams(START, 3, session.text(4, stage).double(5, time))
}

/// hparams: the stage ended at `time`.
pub(super) fn session_end(time: f64) -> MessageWriter {
    hparams(END, 4, MessageWriter::default().integer(1, 1).double(2, time))
}

fn hparams(tag: &[u8], field: u32, content: MessageWriter) -> MessageWriter {
    let content = MessageWriter::default().message(field, content);
    let plugin = MessageWriter::default().text(1, "hparams").text(2, content.bytes());
    value_of(tag).message(9, MessageWriter::default().message(1, plugin))
}

/// google.protobuf.Value
fn json_value(value: &Value) -> MessageWriter {
    let message = MessageWriter::default();
    match value {
        Value::Bool(yes) => message.integer(4, u64::from(*yes)),
        Value::Number(number) => message.double(2, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => message.text(3, text),
        other => message.text(3, other.to_string()),
    }
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

    #[test]
    fn nothing_that_is_no_png_is_an_image() {
        assert!(image("a", b"").is_none() && image("a", &[0; 25]).is_none());
    }
}
