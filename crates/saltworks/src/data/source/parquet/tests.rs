use super::*;
use crate::data::open;
use crate::data::source::shards::tests::pixel;
use crate::fuzz;
use parquet::basic::Compression;
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::sync::Arc;

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
        .set_compression(Compression::SNAPPY)
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

/// Writes images with a text each in a column `split`.
fn write_parts(path: &Path, rows: &[(Vec<u8>, &str)]) {
    let schema = "message schema { required binary image; required binary split (STRING); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    for group in rows.chunks(4) {
        let mut columns = writer.next_row_group().unwrap();
        let texts = |row: &(Vec<u8>, &str)| ByteArray::from(row.1);
        let images = group.iter().map(|row| ByteArray::from(row.0.clone())).collect::<Vec<_>>();
        for values in [images, group.iter().map(texts).collect()] {
            let mut column = columns.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn rows_whose_split_says_test_are_not_trained_on_but_tested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.parquet");
    let texts = ["train", "test", "validation", "train", "train", "test", "other", "train"];
    let rows: Vec<_> = texts.into_iter().zip(0..).map(|(text, at)| (pixel(at), text)).collect();
    write_parts(&path, &rows[..5]);
    write_parts(&folder.path().join("more.parquet"), &rows[5..]);
    let shades = |source: &dyn Source| -> Vec<u8> {
        (0..source.len()).map(|index| source.read(index).unwrap().clip.data[0]).collect()
    };
    let train = open(folder.path(), [0; 3]).unwrap();
    assert_eq!(shades(&*train), [0, 3, 4, 6, 7]);
    assert!(train.stamp(3).name.ends_with("more.parquet: row 6"), "{}", train.stamp(3).name);
    let left = "3 images with test, validation in the column split. To read them, too, rename";
    assert!(told(&*train).starts_with(left), "{}", told(&*train));
    let remarks = train.notes().remarks.join(", ");
    assert!(
        remarks.contains("1 images with other in the column split are trained on"),
        "{remarks}"
    );
    let beside = crate::data::tests_beside(folder.path(), &*train).unwrap();
    // Validation images rather than test images, as of folders.
    let tests = beside.open([0; 3]).unwrap();
    assert_eq!(shades(&*tests), [2]);
    assert!(told(&*tests).contains("7 images of other parts of the table"), "{}", told(&*tests));
    let whole: Vec<_> = rows.iter().map(|row| (row.0.clone(), "a")).collect();
    write_parts(&path, &whole[..5]);
    std::fs::remove_file(folder.path().join("more.parquet")).unwrap();
    let source = open(&path, [0; 3]).unwrap();
    assert_eq!((source.len(), crate::data::tests_beside(&path, &*source)), (5, None));
    let remarks = source.notes().remarks.join(", ");
    assert!(remarks.contains("the column split says a: all are trained on"), "{remarks}");
}

/// What is not read.
fn told(source: &dyn Source) -> String {
    source.notes().left_alone.join(", ")
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
    let source = Parquet::open(&path, std::slice::from_ref(&path), &[0; 3].into()).unwrap();
    assert_eq!((source.label(0), source.classes().len()), (-1, 0));
    source.read(11).unwrap();
    let pages = source.groups[1].pages.get().unwrap();
    assert!(pages.len() > 2, "{}", pages.len());
    let (pages, bytes) = source.cache.held();
    assert!(pages == 1 && bytes < 10 * images[0].0.len(), "{bytes}");
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

/// Values of a column, with their definition and repetition levels.
fn values<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, defined, repeated).unwrap();
    column.close().unwrap();
}

type Group<'a> = parquet::file::writer::SerializedRowGroupWriter<'a, File>;

/// Writes a table of one row group, whose columns `fill` writes.
fn table(
    path: &Path,
    columns: &str,
    properties: WriterPropertiesBuilder,
    fill: impl FnOnce(&mut Group<'_>),
) {
    let schema = parse_message_type(&format!("message schema {{ {columns} }}")).unwrap();
    let file = File::create(path).unwrap();
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    fill(&mut group);
    group.close().unwrap();
    writer.close().unwrap();
}

/// The bytes of grey images of these values.
fn pixels(values: std::ops::Range<u8>) -> Vec<ByteArray> {
    values.map(|value| pixel(value).into()).collect()
}

/// A source of four images with the labels that `fill` writes in the column `columns`.
fn with_labels(columns: &str, fill: impl FnOnce(&mut Group<'_>)) -> Arc<dyn Source> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let columns = format!("required binary image; {columns}");
    table(&path, &columns, WriterProperties::builder(), |group| {
        values::<ByteArrayType>(group, &pixels(0..4), None, None);
        fill(group);
    });
    open(&path, [0; 3]).unwrap()
}

/// The classes of all images, and their names.
fn labels(source: &dyn Source) -> (Vec<i32>, String) {
    ((0..source.len()).map(|at| source.label(at)).collect(), source.classes().join(" "))
}

#[test]
fn labels_that_are_truth_values_whole_floats_or_texts_are_classes() {
    let all = &[1, 1, 0, 1][..];
    let bools = with_labels("optional boolean label;", |group| {
        values::<BoolType>(group, &[true, false, true], Some(all), None);
    });
    assert_eq!(labels(&*bools), (vec![1, 0, -1, 1], "false true".into()));
    let floats = with_labels("optional double label;", |group| {
        values::<DoubleType>(group, &[2.0, 0.0, f64::NAN], Some(all), None);
    });
    assert_eq!(labels(&*floats), (vec![2, 0, -1, -1], "0 1 2".into()));
    assert_eq!(told(&*floats), "");
    let texts = with_labels("required binary label (STRING);", |group| {
        let names = ["dog", "cat", "dog", "ant"].map(|name| name.as_bytes().to_vec().into());
        values::<ByteArrayType>(group, &names, None, None);
    });
    assert_eq!(labels(&*texts), (vec![2, 1, 2, 0], "ant cat dog".into()));
}

#[test]
fn labels_that_are_images_are_no_classes() {
    let source = with_labels("required binary label;", |group| {
        values::<ByteArrayType>(group, &pixels(0..4), None, None);
    });
    assert_eq!(labels(&*source), (vec![-1; 4], String::new()));
    let left_alone = told(&*source);
    assert!(left_alone.contains("4 of 4 are bytes that are no text"), "{left_alone}");
}

#[test]
fn labels_with_fractions_are_reported_and_not_used() {
    let floats = with_labels("required float label;", |group| {
        values::<FloatType>(group, &[0.5, 1.0, 2.0, 3.0], None, None);
    });
    assert_eq!(labels(&*floats), (vec![-1; 4], String::new()));
    let left_alone = told(&*floats);
    assert!(left_alone.contains("1 of 4 are numbers with a fraction"), "{left_alone}");
    let unknown = with_labels("required fixed_len_byte_array(4) label;", |group| {
        let values_ = [[0_u8; 4]; 4].map(|value| ByteArray::from(value.to_vec()).into());
        values::<parquet::data_type::FixedLenByteArrayType>(group, &values_, None, None);
    });
    let left_alone = told(&*unknown);
    assert!(left_alone.contains("label, whose type (FIXED_LEN_BYTE_ARRAY)"), "{left_alone}");
}

#[test]
fn a_column_of_labels_without_any_says_why() {
    let missing = with_labels("optional int32 label;", |group| {
        values::<Int32Type>(group, &[-1], Some(&[0, 1, 0, 0]), None);
    });
    assert_eq!(labels(&*missing), (vec![-1; 4], String::new()));
    let why = "the column label, whose labels are all missing (null or -1)";
    assert_eq!(told(&*missing), why);
    let within = with_labels("required group label { required int32 id; }", |group| {
        values::<Int32Type>(group, &[0, 1, 0, 1], None, None);
    });
    let left_alone = told(&*within);
    assert!(left_alone.contains("the column label.id, which is only a part"), "{left_alone}");
    let within = with_labels("required group meta { required int32 label; }", |group| {
        values::<Int32Type>(group, &[0, 1, 0, 1], None, None);
    });
    assert_eq!(within.notes().remarks, ["labels are those of the column meta.label"]);
}

const LIST: &str =
    "optional group label (LIST) { repeated group list { optional int32 element; } }";

#[test]
fn lists_of_one_label_are_classes_and_lists_of_several_are_reported() {
    let ones = with_labels(LIST, |group| {
        // [7], [], null, [3]
        values::<Int32Type>(group, &[7, 3], Some(&[3, 1, 0, 3]), Some(&[0; 4]));
    });
    assert_eq!(labels(&*ones).0, [7, -1, -1, 3]);
    assert_eq!(told(&*ones), "");
    let several = with_labels(LIST, |group| {
        // [7], [1, 2], [], [3]
        let levels = (&[3, 3, 3, 1, 3][..], &[0, 0, 1, 0, 0][..]);
        values::<Int32Type>(group, &[7, 1, 2, 3], Some(levels.0), Some(levels.1));
    });
    assert_eq!(labels(&*several), (vec![-1; 4], String::new()));
    let left_alone = told(&*several);
    assert!(left_alone.contains("1 of 4 are lists of several (multi-label)"), "{left_alone}");
}

#[test]
fn a_file_without_rows_beside_others_is_read_as_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let columns = "required binary image; optional int64 label;";
    for (name, count) in [("a", 1), ("b", 0), ("c", 2)] {
        let path = folder.path().join(format!("{name}.parquet"));
        table(&path, columns, WriterProperties::builder(), |group| {
            values::<ByteArrayType>(group, &pixels(0..count), None, None);
            let numbers: Vec<i64> = (0..i64::from(count)).collect();
            values::<Int64Type>(group, &numbers, Some(&vec![1; count.into()]), None);
        });
    }
    let source = open(folder.path(), [0; 3]).unwrap();
    assert_eq!(labels(&*source), (vec![0, 0, 1], "0 1".into()));
    assert_eq!(source.read(2).unwrap().clip.data, [1]);
    let message = open(&folder.path().join("b.parquet"), [0; 3]).err().unwrap().to_string();
    assert!(message.contains("holds 0 images"), "{message}");
}

#[test]
fn a_damaged_page_makes_its_rows_unreadable_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let images: Vec<_> = (0..4).map(|at| (pixel(at), 0)).collect();
    write(&path, &images, 2, &[]);
    let mut bytes = std::fs::read(&path).unwrap();
    // The first page begins after PAR1. A header that ends at once has no sizes.
    bytes[4] = 0;
    std::io::Write::write_all(&mut File::create(&path).unwrap(), &bytes).unwrap();
    let source = open(&path, [0; 3]).unwrap();
    let message = source.read(1).unwrap_err().to_string();
    assert!(message.contains("a.parquet: row 1: cannot be read as parquet: it is damaged"));
    assert_eq!(source.read(3).unwrap().clip.data, [3]);
}

/// The values of the images that a column of this name gives, and what is reported.
fn read_column(path: &Path, column: Option<&str>) -> (Vec<u8>, String, String) {
    let column = column.map(str::to_owned);
    let source = open(path, OpenOptions { column, ..OpenOptions::default() }).unwrap();
    let values = (0..source.len()).map(|at| source.read(at).unwrap().clip.data[0]).collect();
    assert!(source.describe().ends_with("2 images in a parquet file, no labels"));
    (values, source.notes().remarks.join(", "), told(&*source))
}

#[test]
fn a_column_named_jpg_is_read_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for (columns, name) in [
        ("required binary jpg; required int64 id;", "jpg"),
        ("required binary input.PNG; required int64 id;", "input.PNG"),
        ("required group photo { required binary bytes; } required int64 id;", "photo"),
        ("required binary content; required int64 id;", "content"),
    ] {
        table(&path, columns, WriterProperties::builder(), |group| {
            values::<ByteArrayType>(group, &pixels(1..3), None, None);
            values::<Int64Type>(group, &[0, 1], None, None);
        });
        let (values, what, left_alone) = read_column(&path, None);
        assert_eq!((values, left_alone.as_str()), (vec![1, 2], ""), "{columns}");
        assert_eq!(what, format!("images are those of the column {name}"));
    }
}

#[test]
fn of_two_columns_of_images_the_one_named_image_is_read_unless_the_recipe_names_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let columns = "required group mask { required binary bytes; } required binary image; \
                   required binary text (STRING);";
    table(&path, columns, WriterProperties::builder(), |group| {
        values::<ByteArrayType>(group, &pixels(10..12), None, None);
        values::<ByteArrayType>(group, &pixels(1..3), None, None);
        let texts = ["a", "b"].map(|text| text.as_bytes().to_vec().into());
        values::<ByteArrayType>(group, &texts, None, None);
    });
    let (values, what, left_alone) = read_column(&path, None);
    assert_eq!(values, [1, 2]);
    assert_eq!(what, "");
    assert_eq!(left_alone, "the column mask of bytes (data.column chooses it)");
    let (values, what, left_alone) = read_column(&path, Some("mask"));
    assert_eq!(values, [10, 11]);
    assert_eq!(what, "images are those of the column mask");
    assert_eq!(left_alone, "the column image of bytes (data.column chooses it)");
    let column = Some("masks".to_owned());
    let refused = open(&path, OpenOptions { column, ..OpenOptions::default() });
    let message = refused.err().unwrap().to_string();
    let words = "has no column \"masks\" of images (bytes, or a struct with bytes), found \
                 mask.bytes, image, text. Set data.column to one of them";
    assert!(message.contains(words), "{message}");
}

/// Writes two images in the column `columns`, with the labels 0 and 1 in a column of this name.
/// The metadata state classes of it.
fn two(path: &Path, column: &str, label: &str, classes: &[&str]) {
    let names = serde_json::to_string(classes).unwrap();
    let json = format!(
        "{{\"info\": {{\"features\": {{\"{label}\": {{\"names\": {names}, \"_type\": \
         \"ClassLabel\"}}}}}}}}"
    );
    let pair = parquet::file::metadata::KeyValue::new("huggingface".to_owned(), json);
    let properties = WriterProperties::builder()
        .set_key_value_metadata((!classes.is_empty()).then(|| vec![pair]));
    let columns = format!("required binary {column}; required int64 {label};");
    table(path, &columns, properties, |group| {
        values::<ByteArrayType>(group, &pixels(1..3), None, None);
        values::<Int64Type>(group, &[0, 1], None, None);
    });
}

#[test]
fn files_whose_images_are_in_other_columns_are_refused_unless_the_recipe_names_one() {
    let folder = tempfile::tempdir().unwrap();
    two(&folder.path().join("a.parquet"), "image", "label", &[]);
    two(&folder.path().join("b.parquet"), "jpg", "label", &[]);
    let message = open(folder.path(), [0; 3]).err().unwrap().to_string();
    let words = "b.parquet: has its images in the column jpg, but ";
    assert!(message.contains(words) && message.contains("a.parquet in the column image. Give"));
    let column = Some("jpg".to_owned());
    let refused = open(folder.path(), OpenOptions { column, ..OpenOptions::default() });
    assert!(refused.err().unwrap().to_string().contains("a.parquet: has no column \"jpg\""));
}

#[test]
fn labels_of_other_columns_or_of_no_column_are_told() {
    let folder = tempfile::tempdir().unwrap();
    two(&folder.path().join("a.parquet"), "image", "label", &[]);
    two(&folder.path().join("b.parquet"), "image", "fine_label", &[]);
    two(&folder.path().join("c.parquet"), "image", "id", &[]);
    let source = open(folder.path(), [0; 3]).unwrap();
    assert_eq!(labels(&*source).0, [0, 1, 0, 1, -1, -1]);
    let remarks = source.notes().remarks.join(", ");
    let parts = ["no column in 1 file ", "column fine_label in 1 file ", "column label in 1 file "];
    assert!(parts.iter().all(|part| remarks.contains(part)), "{remarks}");
}

#[test]
fn the_first_file_names_the_classes_and_a_file_of_other_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    two(&folder.path().join("a.parquet"), "image", "label", &["ant", "bee", "cat"]);
    two(&folder.path().join("b.parquet"), "image", "label", &["ant", "bee"]);
    assert_eq!(labels(&*open(folder.path(), [0; 3]).unwrap()).1, "ant bee cat");
    two(&folder.path().join("b.parquet"), "image", "label", &["bee", "ant"]);
    let message = open(folder.path(), [0; 3]).err().unwrap().to_string();
    let words = "b.parquet: states other classes (2: bee, ant) than ";
    assert!(message.contains(words), "{message}");
    assert!(message.contains("a.parquet (3: ant, bee, cat). Give the files as"), "{message}");
}

#[test]
fn a_column_of_plain_bytes_beside_the_images_is_told_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let columns = "required binary image; required binary depth; required binary text (STRING);";
    table(&path, columns, WriterProperties::builder(), |group| {
        (0..3).for_each(|_| values::<ByteArrayType>(group, &pixels(1..3), None, None));
    });
    let told = "the column depth of bytes (data.column chooses it)".to_owned();
    assert_eq!(read_column(&path, None), (vec![1, 2], String::new(), told));
}

#[test]
fn labels_in_latin_1_are_classes_and_long_texts_are_counted() {
    let source = with_labels("required binary label;", |group| {
        let long = vec![b'a'; 1025];
        let names = [b"th\xE9".to_vec(), b"caf\xE9".to_vec(), long, b"th\xE9".to_vec()];
        values::<ByteArrayType>(group, &names.map(ByteArray::from), None, None);
    });
    assert_eq!(labels(&*source), (vec![1, 0, -1, 1], "caf\u{FFFD} th\u{FFFD}".into()));
    assert_eq!(told(&*source), "some labels: 1 of 4 are texts of more than 1,024 bytes");
}

#[test]
fn a_codec_that_is_not_known_is_named_with_advice_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[(pixel(1), 0), (pixel(2), 1)], 10, &[]);
    let mut bytes = std::fs::read(&path).unwrap();
    // The name of the column, and the codec after it: Snappy is 1, brotli 4, LZO 3, each doubled.
    let name = b"\x05bytes\x15\x02";
    let at = bytes.windows(name.len()).position(|part| part == name).unwrap();
    for (codec, word) in [(8, "brotli"), (6, "LZO")] {
        bytes[at + name.len() - 1] = codec;
        std::io::Write::write_all(&mut File::create(&path).unwrap(), &bytes).unwrap();
        let message = open(&path, [0; 3]).err().unwrap().to_string();
        assert!(
            message.contains(&format!("is compressed by {word}, expected snappy")),
            "{message}"
        );
        assert!(message.contains("compression=\"zstd\""), "{message}");
    }
}

#[test]
fn a_small_image_of_a_large_dictionary_is_all_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_dictionary_page_size_limit(1 << 30);
    table(&path, "required binary image;", properties, |group| {
        let large: ByteArray = vec![0; 8 << 20].into();
        let images = [pixel(1).into(), large, pixel(3).into(), pixel(1).into()];
        let mut column = group.next_column().unwrap().unwrap();
        for part in [&images[..2], &images[2..]] {
            column.typed::<ByteArrayType>().write_batch(part, None, None).unwrap();
        }
        column.close().unwrap();
    });
    assert!(path.metadata().unwrap().len() < 10_000);
    let source = Parquet::open(&path, std::slice::from_ref(&path), &[0; 3].into()).unwrap();
    assert_eq!(source.read(0).unwrap().clip.data, [1]);
    let (pages, bytes) = source.cache.held();
    assert!(pages == 1 && bytes >= 8 << 20, "the large value is a row of the page: {bytes}");
    assert_eq!(source.read(3).unwrap().clip.data, [1]);
}

#[test]
fn no_damage_makes_the_reader_panic_or_take_more_memory_than_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for (purpose, seed) in seeds(&path) {
        fuzz::mutate(purpose, &seed, |bytes| {
            std::io::Write::write_all(&mut File::create(&path).unwrap(), bytes).unwrap();
            let files = std::slice::from_ref(&path);
            match Parquet::open(&path, files, &[0; 3].into()) {
                Ok(source) => {
                    assert!(source.len() <= bytes.len());
                    for at in 0..source.len().min(8) {
                        drop(source.raw(at));
                    }
                }
                Err(error) => assert!(error.to_string().contains("a.parquet"), "{error}"),
            }
        });
    }
}

/// Small files with the encodings and compressions that people write.
fn seeds(path: &Path) -> Vec<(&'static str, Vec<u8>)> {
    use parquet::basic::Encoding;
    use parquet::file::properties::WriterVersion;
    let mut seeds = Vec::new();
    write(path, &[(pixel(1), 0), (Vec::new(), 1), (pixel(3), 1)], 2, &["a", "b"]);
    seeds.push(("parquet", std::fs::read(path).unwrap()));
    let columns = "required binary jpg; optional binary label (STRING);";
    let new = || WriterProperties::builder().set_statistics_enabled(Default::default());
    for (purpose, properties) in [
        ("parquet zstd", new().set_compression(Compression::ZSTD(Default::default()))),
        (
            "parquet delta",
            new()
                .set_writer_version(WriterVersion::PARQUET_2_0)
                .set_dictionary_enabled(false)
                .set_encoding(Encoding::DELTA_BYTE_ARRAY),
        ),
        (
            "parquet gzip",
            new()
                .set_compression(Compression::GZIP(Default::default()))
                .set_dictionary_enabled(false)
                .set_encoding(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        ),
    ] {
        table(path, columns, properties, |group| {
            values::<ByteArrayType>(group, &pixels(1..4), None, None);
            let names = ["a", "b"].map(|name| name.as_bytes().to_vec().into());
            values::<ByteArrayType>(group, &names, Some(&[1, 0, 1]), None);
        });
        seeds.push((purpose, std::fs::read(path).unwrap()));
    }
    seeds
}
