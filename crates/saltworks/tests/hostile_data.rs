//! Files of images made to harm: no more memory is taken than is stated in docs/data.md.

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use saltworks::data::open;
use std::path::Path;
use std::sync::Arc;

/// Memory that this whole process may ever take. Half of it is for writing the file, and the row
/// groups of the file claim twice as much.
const MOST_MEMORY_KIB: u64 = 600_000;

/// Bytes of zeros in the dictionary of each row group.
const ZEROS: usize = 64 << 20;

/// Row groups of a dictionary that holds an image and many zeros. Both rows are the image.
fn write_bomb(path: &Path, groups: usize) {
    let schema = parse_message_type("message schema { required binary image; }").unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_dictionary_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(1)
        .set_write_batch_size(1)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(1, 1).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let image = ByteArray::from(png.into_inner());
    let zeros = ByteArray::from(vec![0; ZEROS]);
    for _ in 0..groups {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        for value in [&image, &zeros] {
            column
                .typed::<ByteArrayType>()
                .write_batch(std::slice::from_ref(value), None, None)
                .unwrap();
        }
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// The most memory that this process has taken.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[test]
fn a_parquet_file_of_few_bytes_does_not_take_gigabytes_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.parquet");
    const GROUPS: usize = 16;
    write_bomb(&path, GROUPS);
    let bytes = path.metadata().unwrap().len();
    assert!(bytes < 1 << 20, "{bytes}");
    let source = open(&path, [0; 3]).unwrap();
    assert_eq!(source.len(), 2 * GROUPS);
    std::thread::scope(|threads| {
        for first in 0..4 {
            let source = source.as_ref();
            threads.spawn(move || {
                for at in (first..GROUPS).step_by(4) {
                    assert_eq!(source.read(2 * at).unwrap().clip.data, [0], "{at}");
                }
            });
        }
    });
    if let Some(peak) = peak_kib() {
        assert!(peak < MOST_MEMORY_KIB, "{peak} KiB of memory were taken");
    }
}
