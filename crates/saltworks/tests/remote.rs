//! Images in object stores, as the user of a program built with them meets them.

#![cfg(feature = "remote")]

mod place;
mod store;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use place::{Place, assert_refused, saltworks, stderr};
use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use store::Server;

/// A folder of images, also packed as two archives and a parquet file in `bucket/set`.
fn packed() -> (Place, Server) {
    let place = Place::with_classes();
    fs::create_dir_all(place.path("bucket/set/data")).unwrap();
    for (archive, class) in [("0", "discs"), ("1", "stripes")] {
        let file = place.path(&format!("bucket/set/photos-{archive}.tar"));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(place.path("photos")).arg("-cf").arg(file).arg(class);
        assert!(tar.status().unwrap().success());
    }
    write_parquet(&place);
    let server = Server::of(place.path(""));
    (place, server)
}

/// `bucket/tables/data/train.parquet`, its rows in the folder's order.
fn write_parquet(place: &Place) {
    let mut images = Vec::new();
    for (label, class) in [(0, "discs"), (1, "stripes")] {
        let folder = fs::read_dir(place.path(&format!("photos/{class}"))).unwrap();
        let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        images.extend(files.iter().map(|file| (ByteArray::from(fs::read(file).unwrap()), label)));
    }
    let schema = "message m { optional binary image; optional int64 label; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let names =
        r#"{"info":{"features":{"label":{"names":["discs","stripes"],"_type":"ClassLabel"}}}}"#;
    let pair = parquet::file::metadata::KeyValue::new("huggingface".to_owned(), names.to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![pair])).build();
    fs::create_dir_all(place.path("bucket/tables/data")).unwrap();
    let file = File::create(place.path("bucket/tables/data/train.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in images.chunks(7) {
        let mut group = writer.next_row_group().unwrap();
        let (bytes, labels): (Vec<_>, Vec<i64>) = rows.iter().cloned().unzip();
        column::<ByteArrayType>(&mut group, &bytes);
        column::<Int64Type>(&mut group, &labels);
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, Some(&vec![1; values.len()]), None).unwrap();
    column.close().unwrap();
}

/// The stores of a command are this server, its cache lies in the place.
fn at<'a>(command: &'a mut Command, place: &Place, server: &Server) -> &'a mut Command {
    let base = server.url("");
    let base = base.trim_end_matches('/');
    let google = format!(
        r#"{{"gcs_base_url":"{base}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#
    );
    command
        .env("XDG_CACHE_HOME", place.path("cache"))
        .env("AWS_ENDPOINT", base)
        .env("AWS_SKIP_SIGNATURE", "true")
        .env("GOOGLE_SERVICE_ACCOUNT_KEY", google)
}

#[test]
fn images_in_a_store_train_to_the_bits_of_those_on_disk() {
    let (place, server) = packed();
    place.trained("disk", &[]);
    // A busy server is asked again.
    server.busy_every(5);
    let range = server.url("bucket/set/photos-{0..1}.tar");
    let table = server.url("bucket/tables/data/train.parquet");
    for (run, url) in [
        ("http", range.as_str()),
        ("table", &table),
        ("s3", "s3://bucket/set"),
        ("s3table", "s3://bucket/tables/"),
        ("google", "gs://bucket/set/photos-{0..1}.tar"),
    ] {
        let mut command = place.pretrain(run, &[&format!("data.path={url}")]);
        let output = at(&mut command, &place, &server).output().unwrap();
        assert!(output.status.success(), "{url}: {}", stderr(&output));
        place.assert_same_run("disk", run);
    }
}

#[test]
fn an_archive_is_indexed_once() {
    let (place, server) = packed();
    let inspect = |server: &Server| {
        let before = server.asked().len();
        let mut command = saltworks();
        command.args(["inspect", &server.url("bucket/set/photos-{0..1}.tar")]);
        let output = at(&mut command, &place, server).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("24 images in 2 tar archives, 2 classes"), "{text}");
        server.asked().len() - before
    };
    // Two sizes, two blocks of headers, an answer for each image; then the blocks are known.
    assert_eq!((inspect(&server), inspect(&server)), (28, 26));
    let index = fs::read_dir(place.path("cache/saltworks/tar-index")).unwrap().next().unwrap();
    File::create(index.unwrap().path()).unwrap();
    assert_eq!(inspect(&server), 27, "a damaged index is made again");
}

#[test]
fn a_store_that_fails_ends_the_run_and_no_image_is_replaced() {
    let (place, server) = packed();
    let url = format!("data.path={}", server.url("bucket/set/photos-{0..1}.tar"));
    let set = [url.as_str(), "teacher.steps=400", "data.max_unreadable=1.0"];
    // Changed under the run: other bytes of the same length.
    let changed = place.path("bucket/set/photos-1.tar");
    let mut command = place.pretrain("changed", &set);
    let mut child =
        at(&mut command, &place, &server).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let log = place.path("changed/metrics.jsonl");
    while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended before its first step");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut bytes = fs::read(&changed).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    saltworks::files::write_whole(&changed, &bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("photos-1.tar") && text.contains("changed since"), "{text}");
    assert!(!place.path("changed/unreadable.txt").exists(), "{text}");
}

#[test]
fn what_is_not_there_is_named() {
    let (place, server) = packed();
    for (path, words) in [
        (server.url("bucket/none.tar"), ["none.tar", "Check the URL"]),
        (server.url("bucket/set/"), ["does not list its files", "{000..127}"]),
        (server.url("bucket/a.tar?X-Amz=1"), ["has a query", "s3://BUCKET/KEY"]),
        ("s3://bucket/photos/none.parquet".to_owned(), ["none.parquet", "Check the URL"]),
        ("s3://bucket".to_owned(), ["0 .tar or .parquet objects", "pack the images"]),
    ] {
        if path == "s3://bucket" {
            fs::remove_dir_all(place.path("bucket/tables")).unwrap();
        }
        let mut command = saltworks();
        command.args(["inspect", &path]);
        assert_refused(at(&mut command, &place, &server), &words);
    }
}
