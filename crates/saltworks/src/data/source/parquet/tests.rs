use super::*;
use crate::data::open;
use crate::data::source::shards::tests::pixel;
use parquet::data_type::{ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (STRING); }
    optional int64 label;
}";

/// Writes images in groups of `rows`, a page for each two or three, with their labels.
pub(in crate::data) fn write(
    path: &Path,
    images: &[(Vec<u8>, i64)],
    rows: usize,
    classes: &[&str],
) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let names = serde_json::to_string(classes).unwrap();
    // Classes of another column, whose name comes first.
    let other = r#""a_kind": {"names": ["p", "q", "r", "s"], "_type": "ClassLabel"}"#;
    let json = format!(
        "{{\"info\": {{\"features\": {{{other}, \"label\": \
         {{\"names\": {names}, \"_type\": \"ClassLabel\"}}}}}}}}"
    );
    let pair = parquet::file::metadata::KeyValue::new("huggingface".to_owned(), json);
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(1)
        .set_key_value_metadata((!classes.is_empty()).then(|| vec![pair]))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for group in images.chunks(rows) {
        let mut columns = writer.next_row_group().unwrap();
        let bytes: Vec<ByteArray> = group
            .iter()
            .filter(|(image, _)| !image.is_empty())
            .map(|(image, _)| image.clone().into())
            .collect();
        let levels: Vec<i16> =
            group.iter().map(|(image, _)| if image.is_empty() { 1 } else { 2 }).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&[], Some(&vec![1; group.len()]), None)
            .unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = group.iter().map(|(_, label)| *label).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&labels, Some(&vec![1; group.len()]), None)
            .unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn rows_of_any_file_group_and_page_are_found() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let images: Vec<_> = (0..100).map(|at| (pixel(at), i64::from(at % 3))).collect();
    let file = |name: &str| folder.path().join("data").join(name);
    write(&file("train-00000-of-00002.parquet"), &images[..64], 25, &["a", "b", "c"]);
    write(&file("train-00001-of-00002.parquet"), &images[64..], 40, &["a", "b", "c"]);
    write(&file("test-00000-of-00001.parquet"), &images[..1], 40, &["a", "b", "c"]);
    let source = open(folder.path(), [0; 3]).unwrap();
    assert_eq!((source.len(), source.classes().join(" ")), (100, "a b c".into()));
    assert!(source.describe().ends_with("100 images in 2 parquet files, 3 classes"));
    for at in (0..300).map(|at| at * 37 % 100) {
        let sample = source.read(at).unwrap();
        assert_eq!((sample.clip.data[0], sample.label), (at as u8, at as i32 % 3));
    }
    assert_eq!(source.info(3).unwrap().height, 1);
}

#[test]
fn only_the_folder_named_train_is_read_as_with_files_of_that_name() {
    let folder = tempfile::tempdir().unwrap();
    for (part, images) in [("test", 1), ("train", 2), ("validation", 3)] {
        let part = folder.path().join("default").join(part);
        std::fs::create_dir_all(&part).unwrap();
        let images: Vec<_> = (0..images).map(|at| (pixel(at), 0)).collect();
        write(&part.join("0000.parquet"), &images, 10, &[]);
    }
    assert_eq!(open(folder.path(), [0; 3]).unwrap().len(), 2);
    assert_eq!(open(&folder.path().join("default/test"), [0; 3]).unwrap().len(), 1);
}

#[test]
fn the_column_of_labels_is_stated_in_the_metadata_or_has_a_known_name_and_kind() {
    let column = |columns: &str, stated: &[&str]| {
        let schema = format!("message schema {{ required binary image; {columns} }}");
        let schema = SchemaDescriptor::new(Arc::new(parse_message_type(&schema).unwrap()));
        let labels = stated.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        label_column(&schema, &HubFeatures { labels, ..HubFeatures::default() })
    };
    assert_eq!(column("optional int64 target; optional int32 label;", &[]), Some(2));
    assert_eq!(column("optional double label; optional int32 target;", &[]), Some(2));
    assert_eq!(column("optional double target;", &[]), None);
    assert_eq!(column("optional binary label; optional int64 breed;", &["breed"]), Some(2));
    let both = ["coarse_label", "fine_label"];
    assert_eq!(column("optional int64 fine_label; optional int64 coarse_label;", &both), Some(1));
}

#[test]
fn more_rows_than_bytes_are_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = parse_message_type("message schema { optional binary image; }").unwrap();
    let file = File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
    let mut columns = writer.next_row_group().unwrap();
    let mut column = columns.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; 100_000]), None).unwrap();
    column.close().unwrap();
    columns.close().unwrap();
    writer.close().unwrap();
    let message = open(&path, [0; 3]).err().unwrap().to_string();
    assert!(message.contains("a.parquet: states 100000 rows in "), "{message}");
}

#[test]
fn pages_are_read_one_by_one_and_kept_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let images: Vec<_> = (0..20).map(|at| (pixel(at), -1)).collect();
    write(&path, &images, 10, &[]);
    let source = Parquet::open(&path, std::slice::from_ref(&path), [0; 3]).unwrap();
    assert_eq!((source.label(0), source.classes.len()), (-1, 0));
    source.read(11).unwrap();
    let pages = source.groups[1].pages.get().unwrap();
    assert!(pages.len() > 2, "{pages:?}");
    let cache = source.cache.0.lock().unwrap();
    assert!(cache.pages.len() == 1 && cache.bytes < 10 * images[0].0.len(), "{}", cache.bytes);
}

#[test]
fn old_pages_go_when_memory_is_full() {
    let cache = PageCache::default();
    let half = || Ok(vec![Some(ByteArray::from(vec![0; MOST_CACHED_BYTES / 2]))]);
    for at in [0, 1, 0, 2] {
        cache.page((at, 0), half).unwrap();
    }
    let state = cache.0.lock().unwrap();
    assert!(state.bytes <= MOST_CACHED_BYTES);
    assert!(state.pages.contains_key(&(0, 0)) && !state.pages.contains_key(&(1, 0)));
}

#[test]
fn a_row_without_bytes_is_unreadable_and_a_wrong_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[(pixel(1), 0), (Vec::new(), 0), (pixel(3), 1)], 10, &[]);
    let source = open(&path, [0; 3]).unwrap();
    let message = source.read(1).unwrap_err().to_string();
    assert!(message.contains("a.parquet: row 1: has no bytes"), "{message}");
    assert_eq!(source.read(2).unwrap().clip.data, [3]);
    let whole = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(whole.len() as u64 / 2).unwrap();
    let message = open(&path, [0; 3]).err().unwrap().to_string();
    assert!(message.contains("a.parquet: cannot be read as parquet"), "{message}");
}

#[test]
fn a_file_that_holds_only_paths_says_how_to_embed_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[(Vec::new(), 1), (Vec::new(), 0), (Vec::new(), 1)], 2, &[]);
    let message = open(&path, [0; 3]).err().unwrap().to_string();
    assert!(message.contains("holds no images, only their paths"), "{message}");
    assert!(message.contains("embed_table_storage"), "{message}");
}
