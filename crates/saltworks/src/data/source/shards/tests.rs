use super::index::groups;
use super::*;
use crate::data::open;
use crate::data::store::tar::tests::{archive, member};
use crate::fuzz;
use rayon::prelude::*;
use std::fs::File;

/// A PNG of one grey pixel.
pub(in crate::data) fn pixel(value: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(1, 1, image::Luma([value]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    member(name, b'0', bytes)
}

fn write(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut File::create(path).unwrap(), bytes).unwrap();
}

/// The first byte and the label of each image.
fn all(source: &dyn Source) -> Vec<(u8, i32)> {
    let sample = |index| source.read(index).unwrap();
    (0..source.len()).map(|index| (sample(index).clip.data[0], sample(index).label)).collect()
}

#[test]
fn members_with_one_key_are_a_sample_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    write(
        &path,
        &archive(&[
            file("./b.seg.png", b"no image of its own"),
            file("./b.png", &pixel(2)),
            file("./b.cls", b"3\n"),
            file("a.json", br#"{"label": 1, "text": "x"}"#),
            file("a.PNG", &pixel(1)),
            file("c.png", &pixel(3)),
            file("c.jpg", b"of a sample that has its image"),
            file("._c.png", b"hidden"),
            file("README", b"no dot"),
        ]),
    );
    let source = open(&path, [0; 3]).unwrap();
    assert_eq!(all(&*source), [(1, 1), (2, 3), (3, -1)]);
    assert_eq!(source.classes().len(), 4);
    assert!(source.describe().ends_with("3 images in a tar archive, 4 classes"));
    assert_eq!(source.info(0).unwrap().channels, 1);
    assert!(source.read(1).unwrap().name.ends_with("a.tar: b.png"));
}

#[test]
fn a_range_or_a_folder_of_shards_is_one_source() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3_u8 {
        let name = format!("x{number}.png");
        let shard = archive(&[file(&name, &pixel(number)), file("same.png", &pixel(10 + number))]);
        write(&folder.path().join(format!("train-{number:03}.tar")), &shard);
    }
    let range = folder.path().join("train-{000..002}.tar");
    let want = [(10, -1), (11, -1), (12, -1), (0, -1), (1, -1), (2, -1)];
    assert_eq!(all(&*open(&range, [0; 3]).unwrap()), want);
    write(&folder.path().join("val-000.tar"), b"not read beside train");
    assert_eq!(all(&*open(folder.path(), [0; 3]).unwrap()), want);
    let missing = open(&folder.path().join("train-{000..003}.tar"), [0; 3]);
    assert!(missing.err().unwrap().to_string().contains("train-003.tar: no such file"));
}

#[test]
fn folders_are_classes_if_no_member_has_a_label() {
    let label = |names: &[&str]| folders(names);
    let (labels, classes) = label(&["set/train/cats/1.png", "set/train/dogs/2.png"]);
    assert_eq!((labels, classes.join(" ")), (vec![0, 1], "cats dogs".into()));
    let (labels, classes) = label(&["a/x.png", "a/b/y.png", "a/bc/y.png"]);
    assert_eq!((labels, classes.join(" ")), (vec![-1, 0, 1], "b bc".into()));
    let (labels, classes) = label(&["a/x.png", "a/y.png"]);
    assert_eq!((labels, classes.len()), (vec![-1, -1], 0));
}

#[test]
fn plain_files_with_dots_in_their_names_are_images_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let names = ["cat.0.jpg", "cat.1.jpg", "dog.0.PNG", "x.png", "x.mask.png"];
    let members = names.iter().zip(1..).map(|(name, value)| file(name, &pixel(value)));
    write(&path, &archive(&members.collect::<Vec<_>>()));
    assert_eq!(all(&*open(&path, [0; 3]).unwrap()), [(1, -1), (2, -1), (3, -1), (4, -1)]);
}

#[test]
fn a_packed_folder_keeps_the_order_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    let names = ["cats/1.png", "dogs/2.png", "z.png"];
    for (name, value) in names.iter().zip(1..) {
        std::fs::create_dir_all(photos.join(name).parent().unwrap()).unwrap();
        write(&photos.join(name), &pixel(value));
    }
    let want = all(&*open(&photos, [0; 3]).unwrap());
    assert_eq!(want, [(3, -1), (1, 0), (2, 1)]);
    for root in ["", "photos/", "set/photos/"] {
        let path = folder.path().join("a.tar");
        let packed = |(name, value): (&&str, u8)| file(&format!("{root}{name}"), &pixel(value));
        write(&path, &archive(&names.iter().zip(1..).map(packed).collect::<Vec<_>>()));
        assert_eq!(all(&*open(&path, [0; 3]).unwrap()), want, "{root}");
    }
}

#[test]
fn wrong_labels_and_archives_without_images_are_refused_by_name() {
    let refused = |members: &[Vec<u8>]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        write(&path, &archive(members));
        open(&path, [0; 3]).err().unwrap().to_string()
    };
    let message = refused(&[file("a.cls", b"cat"), file("a.png", &pixel(1))]);
    assert!(message.contains("a.cls: holds \"cat\", expected the number"), "{message}");
    let message = refused(&[file("a.json", b"{"), file("a.png", &pixel(1))]);
    assert!(message.contains("a.json: is not JSON"), "{message}");
    let message = refused(&[file("a.txt", b"words")]);
    assert!(message.contains("0 images in 1 archives"), "{message}");
}

#[test]
fn many_threads_read_one_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let members: Vec<_> = (0..=255).map(|n| file(&format!("{n:03}.png"), &pixel(n))).collect();
    write(&path, &archive(&members));
    let source = open(&path, [0; 3]).unwrap();
    let order: Vec<usize> = (0..2048).map(|at| at * 97 % 256).collect();
    order.par_iter().for_each(|&at| assert_eq!(source.read(at).unwrap().clip.data, [at as u8]));
}

#[test]
fn no_archive_makes_the_index_panic() {
    let seed = archive(&[
        file("cats/1.png", &pixel(1)),
        file("cats/1.cls", b"3"),
        file("cats/2.json", br#"{"label": "x"}"#),
        file("dogs/2.png", &pixel(2)),
    ]);
    fuzz::mutate("shards", &seed, |bytes| {
        let bytes = bytes.to_vec();
        if let Ok(groups) = groups(&bytes, Path::new("a.tar"), bytes.len() as u64) {
            let images = groups.into_iter().flat_map(SampleGroup::images);
            let (entries, _) = label(images.map(|(image, label)| (0, image, label)).collect());
            assert!(entries.len() <= bytes.len() / 512);
        }
    });
}
