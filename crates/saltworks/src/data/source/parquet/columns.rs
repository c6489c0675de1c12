//! Which columns of a table hold the images and the labels.

use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type as Column};

use super::features::HubFeatures;
use crate::data::source::part_column::is_part_name;
use crate::data::{Error, Result};

/// Names of the column of images: plain bytes, or a struct with a field `bytes`. The first name
/// found is used.
const IMAGE_NAMES: [&str; 14] = [
    "image",
    "img",
    "images",
    "bytes",
    "image_bytes",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "tif",
    "tiff",
    "bmp",
    "picture",
    "photo",
];

/// Names of the column of labels. The first one that holds whole numbers or texts is used.
const LABEL_NAMES: [&str; 6] = ["label", "labels", "class", "cls", "target", "fine_label"];

/// The columns that are read, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableColumns {
    /// The bytes of the images.
    pub(super) image: usize,
    /// Its name, without the field of a struct.
    pub(super) image_name: String,
    /// The labels, if there are any.
    pub(super) label: Option<usize>,
    /// Columns of texts that may say which images are to train on.
    pub(super) parts: Vec<usize>,
    /// What else the table has of images and labels, for people.
    pub(super) left_alone: Vec<String>,
}

impl TableColumns {
    /// Chooses the columns of a table. `wanted` is the name of the images' column that the user
    /// gave. `path` is for messages.
    pub(super) fn of(
        metadata: &ParquetMetaData,
        features: &HubFeatures,
        wanted: Option<&str>,
        path: &Path,
    ) -> Result<Self> {
        let schema = metadata.file_metadata().schema_descr();
        let image = match wanted {
            Some(wanted) => wanted_column(schema, wanted, path)?,
            None => image_column(schema, features, path)?,
        };
        let label = label_column(schema, features).filter(|&label| label != image);
        for column in [Some(image), label].into_iter().flatten() {
            check_compression(metadata, column, path)?;
        }
        let is_part = |&at: &usize| {
            let is_read = at == image || Some(at) == label;
            !is_read && is_bytes(schema, at) && is_part_name(&name_of(schema, at))
        };
        let parts = (0..schema.num_columns()).filter(is_part).collect();
        let mut left_alone = Vec::new();
        let others = (0..schema.num_columns()).filter(|&at| at != image && Some(at) != label);
        for at in others.filter(|&at| is_of_images(schema, features, at)) {
            let name = name_of(schema, at);
            left_alone.push(format!("the column {name} of bytes (data.column chooses it)"));
        }
        if label.is_none() {
            let columns = 0..schema.num_columns();
            left_alone.extend(columns.filter_map(|at| unread_label(schema, at)));
        }
        Ok(Self { image, image_name: name_of(schema, image), label, parts, left_alone })
    }
}

/// The name of a column of images: of a struct, or of plain bytes.
pub(super) fn name_of(schema: &SchemaDescriptor, at: usize) -> String {
    let column = schema.column(at);
    match column.path().parts() {
        [parts @ .., _] if is_in_struct(schema, at) => parts.join("."),
        parts => parts.join("."),
    }
}

/// Whether a column is the field `bytes` of a struct.
fn is_in_struct(schema: &SchemaDescriptor, at: usize) -> bool {
    matches!(schema.column(at).path().parts(), [_, .., last] if last == "bytes")
}

fn is_bytes(schema: &SchemaDescriptor, at: usize) -> bool {
    let leaf = schema.column(at);
    leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() == 0
}

/// Whether a column has the name of images, or the metadata call it an image.
fn is_known(schema: &SchemaDescriptor, features: &HubFeatures, at: usize) -> bool {
    let name = name_of(schema, at);
    features.images.contains(&name) || (rank(&name) < IMAGE_NAMES.len() && !is_text(schema, at))
}

/// Whether a column may be of images: it has their name or form, or its bytes have no stated kind.
fn is_of_images(schema: &SchemaDescriptor, features: &HubFeatures, at: usize) -> bool {
    let column = schema.column(at);
    let is_plain = column.converted_type() == ConvertedType::NONE
        && column.logical_type_ref().is_none()
        && column.path().parts().len() == 1;
    let is_named = is_known(schema, features, at) || is_in_struct(schema, at);
    is_bytes(schema, at) && (is_named || is_plain)
}

/// The place of a name among those of images. Case and folders of a name, as in `input.jpg`, do not
/// matter.
fn rank(name: &str) -> usize {
    let last = name.rsplit('.').next().unwrap_or_default().to_lowercase();
    IMAGE_NAMES.iter().position(|name| *name == last).unwrap_or(IMAGE_NAMES.len())
}

fn is_text(schema: &SchemaDescriptor, at: usize) -> bool {
    let column = schema.column(at);
    column.converted_type() == ConvertedType::UTF8
        || matches!(column.logical_type_ref(), Some(LogicalType::String))
}

/// All columns, for messages.
fn all_columns(schema: &SchemaDescriptor) -> String {
    let columns = schema.columns().iter().map(|column| column.path().string());
    columns.collect::<Vec<_>>().join(", ")
}

/// The leaf column that the user named: plain bytes, or a struct with a field `bytes`.
fn wanted_column(schema: &SchemaDescriptor, wanted: &str, path: &Path) -> Result<usize> {
    let mut columns = (0..schema.num_columns()).filter(|&at| is_bytes(schema, at));
    let is_wanted =
        |&at: &usize| name_of(schema, at) == wanted || schema.column(at).path().string() == wanted;
    columns.find(is_wanted).ok_or_else(|| {
        let problem = format!(
            "has no column {wanted:?} of images (bytes, or a struct with bytes), found {}. Set \
             data.column to one of them",
            all_columns(schema)
        );
        Error::file(path, problem)
    })
}

/// The leaf column that holds the images' bytes.
fn image_column(schema: &SchemaDescriptor, features: &HubFeatures, path: &Path) -> Result<usize> {
    let columns = || (0..schema.num_columns()).filter(|&at| is_bytes(schema, at));
    let of_bytes = || columns().filter(|&at| !is_text(schema, at));
    let exact = |name: &str| {
        let found = |at: &usize, parts: &[&str]| schema.column(*at).path().parts() == parts;
        let within = of_bytes().find(|at| found(at, &[name, "bytes"]));
        within.or_else(|| of_bytes().find(|at| found(at, &[name])))
    };
    // A text is most often a path. Then each image says so.
    let text = |name: &str| columns().find(|&at| schema.column(at).path().parts() == [name]);
    // Of several columns that the metadata call images, the first by name comes first. Earlier runs
    // read that one, and must find it again.
    let mut stated = features.images.iter().map(String::as_str);
    let mut names = stated.next().into_iter().chain(IMAGE_NAMES).chain(stated);
    let near = || {
        let known = of_bytes().filter(|&at| is_known(schema, features, at));
        known.min_by_key(|&at| rank(&name_of(schema, at)))
    };
    let only = || {
        let mut bytes = of_bytes();
        bytes.next().filter(|_| bytes.next().is_none())
    };
    let found = names.clone().find_map(exact).or_else(near).or_else(only);
    found.or_else(|| names.find_map(text)).ok_or_else(|| {
        let problem = format!(
            "has no column of images: looked for {} (bytes, or a struct with bytes), found {}. \
             Name the column with data.column",
            IMAGE_NAMES.join(", "),
            all_columns(schema)
        );
        Error::file(path, problem)
    })
}

/// How far a column is from a column of labels of this name, which has its type and is named so.
/// None if it is not one.
fn nearness(column: &ColumnDescriptor, name: &str) -> Option<usize> {
    let parts = column.path().parts();
    // A list has two more parts, or one in files of old writers.
    let parts = if column.max_rep_level() == 0 { parts } else { &parts[..1] };
    let joined = parts.join(".");
    let last = joined.rsplit('.').next().unwrap_or_default().to_lowercase();
    match (joined == name, last == name) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

/// Why a column that is called as labels are holds none, for people.
fn unread_label(schema: &SchemaDescriptor, at: usize) -> Option<String> {
    let column = schema.column(at);
    let (path, first) = (column.path().string(), column.path().parts().first()?.clone());
    if !LABEL_NAMES.contains(&first.to_lowercase().as_str()) {
        return None;
    }
    Some(match type_rank(schema, at) {
        _ if column.max_rep_level() > 0 && !is_list_of_values(schema.get_column_root(at)) => {
            format!("the column {first}, which is no list of single values")
        }
        Some(_) => format!("the column {path}, which is only a part of the column {first}"),
        None => {
            let kind = column.physical_type();
            format!("the column {path}, whose type ({kind}) is none of labels")
        }
    })
}

/// The name of a column of labels: that of the list, or that of the value.
pub(super) fn label_name(column: &ColumnDescriptor) -> String {
    match column.max_rep_level() {
        0 => column.path().string(),
        _ => column.path().parts().first().cloned().unwrap_or_default(),
    }
}

/// Whether a column that repeats is a list whose elements are single values, as parquet-format's
/// LogicalTypes.md tells them from structs and maps.
fn is_list_of_values(column: &Column) -> bool {
    if column.is_primitive() {
        return true;
    }
    let info = column.get_basic_info();
    let is_list = info.converted_type() == ConvertedType::LIST
        || matches!(info.logical_type_ref(), Some(LogicalType::List));
    let [repeated] = column.get_fields() else { return false };
    if repeated.is_primitive() {
        return is_list;
    }
    let is_struct = ["array".to_owned(), format!("{}_tuple", column.name())];
    let is_struct = is_struct.iter().any(|name| name == repeated.name());
    is_list && !is_struct && matches!(repeated.get_fields(), [value] if value.is_primitive())
}

/// How far a column's type is from whole numbers and texts. None if it holds no labels.
fn type_rank(schema: &SchemaDescriptor, at: usize) -> Option<usize> {
    let column = schema.column(at);
    let scalar = match column.physical_type() {
        Type::INT32 | Type::INT64 | Type::BYTE_ARRAY => 0,
        Type::BOOLEAN => 1,
        Type::FLOAT | Type::DOUBLE => 2,
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => return None,
    };
    match column.max_rep_level() {
        0 => Some(scalar),
        1 if is_list_of_values(schema.get_column_root(at)) => Some(3 + scalar),
        _ => None,
    }
}

fn label_column(schema: &SchemaDescriptor, features: &HubFeatures) -> Option<usize> {
    // Columns that the metadata call labels come before columns that only have the name of a label.
    let (stated, named): (Vec<_>, Vec<_>) =
        LABEL_NAMES.into_iter().partition(|&name| features.labels.contains_key(name));
    let others = features.labels.keys().map(String::as_str);
    let names: Vec<&str> = stated.into_iter().chain(others).chain(named).collect();
    let score = |at: usize| {
        let column = schema.column(at);
        let of_type = type_rank(schema, at)?;
        let found = names.iter().enumerate();
        let found = found.filter_map(|(order, name)| Some((nearness(&column, name)?, order)));
        let (near, order) = found.min()?;
        Some(((near, of_type > 0, order, of_type), at))
    };
    (0..schema.num_columns()).filter_map(score).min().map(|(_, at)| at)
}

/// Refuses a compression that this program does not know.
fn check_compression(metadata: &ParquetMetaData, column: usize, path: &Path) -> Result<()> {
    let of_group = |group: &parquet::file::metadata::RowGroupMetaData| {
        group.columns().get(column).map(|column| column.compression())
    };
    let name = |codec: Option<Compression>| match codec {
        Some(Compression::BROTLI(_)) => Some("brotli"),
        Some(Compression::LZO) => Some("LZO"),
        _ => None,
    };
    match metadata.row_groups().iter().find_map(|group| name(of_group(group))) {
        None => Ok(()),
        Some(codec) => {
            let problem = format!(
                "is compressed by {codec}, expected snappy, gzip, lz4, zstd or none. Write it \
                 again, in Python: import pyarrow.parquet as pq; pq.write_table(pq.read_table(\
                 {path:?}), \"zstd.parquet\", compression=\"zstd\", row_group_size=100)"
            );
            Err(Error::file(path, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    #[test]
    fn the_column_of_labels_is_stated_in_the_metadata_or_has_a_known_name_and_type() {
        let column = |columns: &str, stated: &[&str]| {
            let schema = format!("message schema {{ required binary image; {columns} }}");
            let schema = SchemaDescriptor::new(Arc::new(parse_message_type(&schema).unwrap()));
            let labels = stated.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
            label_column(&schema, &HubFeatures { labels, ..HubFeatures::default() })
        };
        assert_eq!(column("optional int64 target; optional int32 label;", &[]), Some(2));
        assert_eq!(column("optional double label; optional int32 target;", &[]), Some(2));
        assert_eq!(column("optional double target;", &[]), Some(1));
        assert_eq!(column("optional int96 label;", &[]), None);
        assert_eq!(column("optional binary label; optional int64 breed;", &["breed"]), Some(2));
        let both = ["coarse_label", "fine_label"];
        let columns = "optional int64 fine_label; optional int64 coarse_label;";
        assert_eq!(column(columns, &both), Some(1));
        // Names with dots, and names within a struct.
        assert_eq!(column("optional int32 json.Label; optional int32 id;", &[]), Some(1));
        assert_eq!(column("optional group meta { optional int32 label; }", &[]), Some(1));
        assert_eq!(column("optional int32 meta.label; optional int32 label;", &[]), Some(2));
    }

    #[test]
    fn a_field_of_a_list_of_structs_or_of_a_map_is_no_label() {
        let column = |columns: &str| {
            let schema = format!("message schema {{ required binary image; {columns} }}");
            let schema = SchemaDescriptor::new(Arc::new(parse_message_type(&schema).unwrap()));
            (label_column(&schema, &HubFeatures::default()), unread_label(&schema, 1))
        };
        let list = |list: &str| column(&format!("optional group labels (LIST) {{ {list} }}"));
        let why = "the column labels, which is no list of single values".to_owned();
        let refused = (None, Some(why));
        assert_eq!(list("repeated group list { optional int32 element; }").0, Some(1));
        assert_eq!(list("repeated int32 array;").0, Some(1));
        assert_eq!(column("repeated int32 labels;").0, Some(1));
        let structs = "repeated group list { optional group element { optional binary x; } }";
        assert_eq!(list(structs), refused);
        assert_eq!(list("repeated group array { optional int32 x; }"), refused);
        assert_eq!(list("repeated group list { optional int32 x; optional int32 y; }"), refused);
        let map = "optional group labels (MAP) { repeated group key_value { \
                   required binary key; optional int32 value; } }";
        assert_eq!(column(map), refused);
    }

    #[test]
    fn of_several_columns_that_the_metadata_call_images_the_first_by_name_is_read() {
        let schema = "message schema { required binary a_mask; required binary image; }";
        let schema = SchemaDescriptor::new(Arc::new(parse_message_type(schema).unwrap()));
        let read = |images: &[&str]| {
            let images = images.iter().map(ToString::to_string).collect();
            let features = HubFeatures { images, ..HubFeatures::default() };
            image_column(&schema, &features, Path::new("a.parquet")).unwrap()
        };
        assert_eq!(read(&["a_mask", "image"]), 0);
        assert_eq!(read(&["image"]), 1);
        assert_eq!(read(&[]), 1);
    }
}
