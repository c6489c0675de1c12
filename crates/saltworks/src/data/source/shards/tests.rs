use super::index::index_of;
use super::*;
use crate::data::open;
use crate::data::store::tar::tests::{archive, linked, member, signed_again};
use crate::fuzz;
use rayon::prelude::*;
use std::fs::File;
use std::sync::Arc;

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
    assert_eq!(
        told(&*source),
        "2 images beside their samples' (first c.jpg), 1 hidden file (._c.png), 1 without extension"
    );
}

/// What is not read.
fn told(source: &dyn Source) -> String {
    source.notes().left_alone.join(", ")
}

/// A link of this kind.
fn link(name: &str, kind: u8, target: &str) -> Vec<u8> {
    linked(&member(name, kind, b""), target)
}

fn of_bytes(bytes: &[u8]) -> Arc<dyn Source> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    write(&path, bytes);
    open(&path, [0; 3]).unwrap()
}

#[test]
fn damaged_json_drops_no_image_where_no_image_has_a_label() {
    let source = of_bytes(&archive(&[
        file("a.png", &pixel(1)),
        file("a.json", br#"{"caption": "x", "score": NaN}"#),
        file("b.png", &pixel(2)),
        file("b.json", br#"{"caption": "y", "score": 0.5}"#),
    ]));
    assert_eq!(all(&*source), [(1, -1), (2, -1)]);
    let told = told(&*source);
    assert!(told.starts_with("the damaged labels of 1 sample, whose images are read ("), "{told}");
}

#[test]
fn archives_and_arrays_that_are_skipped_by_their_names_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("train-0.tar", 1), ("val-0.tar", 2), ("val-1.tar", 3)] {
        write(&folder.path().join(name), &archive(&[file("x.png", &pixel(value))]));
    }
    let source = open(folder.path(), [0; 3]).unwrap();
    assert_eq!(all(&*source), [(1, -1)]);
    assert_eq!(told(&*source), "2 files beside those named train: val-0.tar, val-1.tar");
    let folder = tempfile::tempdir().unwrap();
    let array = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7]].concat();
    write(&folder.path().join("train-images-idx3-ubyte"), &array);
    write(&folder.path().join("t10k-images-idx3-ubyte"), &array);
    write(&folder.path().join("more.png"), &pixel(9));
    assert_eq!(
        told(&*open(folder.path(), [0; 3]).unwrap()),
        "1 file beside those named train: t10k-images-idx3-ubyte, 1 image beside the IDX file: \
         to read them, move them elsewhere"
    );
}

#[test]
fn folders_and_files_beside_the_archives_that_are_read_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("train", 1), ("val", 2)] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let archive = archive(&[file("x.png", &pixel(value))]);
        write(&folder.path().join(name).join("0.tar"), &archive);
    }
    for name in ["README.md", "train/words.txt", "val/1.png", "train/._0.tar"] {
        write(&folder.path().join(name), &pixel(9));
    }
    let source = open(folder.path(), [0; 3]).unwrap();
    assert_eq!(all(&*source), [(1, -1)]);
    let val = folder.path().join("val");
    assert_eq!(
        source.notes().left_alone,
        [
            format!(
                "the folder {} (1 image, 1 .tar), named as validation or test images",
                val.display()
            ),
            "files of other kinds: 1 .md, 1 .txt".to_owned(),
            "hidden files and folders: 1".to_owned(),
        ]
    );
}

#[test]
fn names_that_are_no_utf8_stay_apart() {
    let mut members = [file("a?.png", &pixel(1)), file("a?.png", &pixel(2))];
    members[0][1] = 0xE9;
    members[1][1] = 0xE8;
    let members = members.map(|bytes| signed_again(&bytes));
    let source = of_bytes(&archive(&members));
    assert_eq!(all(&*source), [(2, -1), (1, -1)]);
    assert!(source.stamp(1).name.ends_with("a\\xE9.png"), "{}", source.stamp(1).name);
    assert_eq!(told(&*source), "");
}

#[test]
fn a_doubled_image_among_several_of_one_key_is_the_last_one() {
    let source = of_bytes(&archive(&[
        file("cat.0.png", &pixel(1)),
        file("cat.1.png", &pixel(2)),
        file("cat.0.png", &pixel(3)),
    ]));
    assert_eq!(all(&*source), [(3, -1), (2, -1)]);
    assert!(told(&*source).starts_with("1 image that a later member of its name replaces"));
}

#[test]
fn links_are_followed_inside_the_archive_and_reported_if_they_lead_out() {
    let source = of_bytes(&archive(&[
        link("cats/0.png", b'2', "../blobs/abc"),
        file("cats/1.png", &pixel(1)),
        file("blobs/abc", &pixel(7)),
        link("dogs/2.png", b'1', "cats/1.png"),
        link("dogs/3.png", b'2', "2.png"),
        link("dogs/4.png", b'2', "/etc/secret.png"),
        link("dogs/5.png", b'2', "5.png"),
    ]));
    assert_eq!(all(&*source), [(7, 0), (1, 0), (1, 1), (1, 1)]);
    assert_eq!(
        told(&*source),
        "2 links to no file in their archives (first dogs/4.png -> /etc/secret.png), \
         1 without extension"
    );
}

#[test]
fn of_two_members_with_one_name_the_last_is_read_as_when_unpacked() {
    let source = of_bytes(&archive(&[file("a.png", &pixel(1)), file("./a.png", &pixel(2))]));
    assert_eq!(all(&*source), [(2, -1)]);
    let expected = "1 image that a later member of its name replaces (a.png)";
    assert_eq!(told(&*source), expected);
}

#[test]
fn an_archive_without_an_end_marker_is_read_and_reported() {
    let source = of_bytes(&[file("a.png", &pixel(1)), file("b.png", &pixel(2))].concat());
    assert_eq!(all(&*source), [(1, -1), (2, -1)]);
    let found = told(&*source);
    assert!(found.starts_with("1 end of an archive, which has no end marker"), "{found}");
}

#[test]
fn members_behind_an_end_marker_are_reported() {
    let (one, two) = (archive(&[file("a.png", &pixel(1))]), archive(&[file("b.png", &pixel(2))]));
    let source = of_bytes(&[one.clone(), two].concat());
    assert_eq!(all(&*source), [(1, -1)]);
    let found = told(&*source);
    assert!(found.contains("behind its end marker"), "{found}");
    assert!(found.contains(&format!("a.tar at byte {}", one.len())), "{found}");
    let padded = of_bytes(&[one, vec![0; 10_240]].concat());
    assert_eq!(told(&*padded), "");
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

/// The first byte and the label of each image of an archive, its classes, and what is reported.
fn of_archive(members: &[Vec<u8>]) -> (Vec<(u8, i32)>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    write(&path, &archive(members));
    let source = open(&path, [0; 3]).unwrap();
    (all(&*source), source.classes().join(" "), told(&*source))
}

#[test]
fn one_damaged_label_leaves_out_one_sample_and_is_reported() {
    let good = [file("a.json", br#"{"label": 1}"#), file("a.png", &pixel(1))];
    let other = [file("c.json", br#"{"label": 0}"#), file("c.png", &pixel(3))];
    let damaged = [file("b.png", &pixel(2)), file("b.json", b"{\"label\": ")];
    let (images, classes, left_alone) = of_archive(&[good, damaged, other].concat());
    assert_eq!((images, classes.as_str()), (vec![(1, 1), (3, 0)], "0 1"));
    assert!(left_alone.starts_with("1 sample with a damaged label ("), "{left_alone}");
    assert!(left_alone.contains("a.tar: b.json: is not JSON"), "{left_alone}");
    let (images, _, left_alone) = of_archive(&[
        file("a.cls", b"1"),
        file("a.png", &pixel(1)),
        file("b.cls", b"cat"),
        file("b.png", &pixel(2)),
        file("c.cls", b""),
        file("c.png", &pixel(3)),
    ]);
    assert_eq!(images, [(1, 1)]);
    assert!(left_alone.starts_with("2 samples with a damaged label"), "{left_alone}");
    assert!(
        left_alone.contains("b.cls: holds \"cat\", expected a number as in most"),
        "{left_alone}"
    );
    assert!(left_alone.contains("c.cls: is empty"), "{left_alone}");
    // A sample with another label needs none of the damaged one.
    let members = [file("a.cls", b"1"), file("a.png", &pixel(1)), file("a.json", b"no JSON")];
    let backwards = [2, 1, 0].map(|at| members[at].clone());
    for members in [members, backwards] {
        let (images, _, left_alone) = of_archive(&members);
        assert_eq!(images, [(1, 1)]);
        let words = "1 damaged label beside a good one of its sample (a.json: is not JSON";
        assert!(left_alone.starts_with(words), "{left_alone}");
    }
}

#[test]
fn names_in_cls_members_are_classes() {
    let (images, classes, left_alone) = of_archive(&[
        file("a.cls", b"dog\n"),
        file("a.png", &pixel(1)),
        file("b.cls", b"cat"),
        file("b.png", &pixel(2)),
    ]);
    assert_eq!((images, classes.as_str()), (vec![(1, 1), (2, 0)], "cat dog"));
    assert_eq!(left_alone, "");
    // Letters among digits are no damage, unless they are few.
    let labelled = |at: u8, label: &[u8]| {
        [file(&format!("{at}.cls"), label), file(&format!("{at}.png"), &pixel(at))]
    };
    let characters = [labelled(1, b"7"), labelled(2, b"a"), labelled(3, b"b")].concat();
    let (images, classes, left_alone) = of_archive(&characters);
    assert_eq!((images, classes.as_str()), (vec![(1, 0), (2, 1), (3, 2)], "7 a b"));
    assert_eq!(left_alone, "");
    let some = |digits: u8, letters: u8| -> Vec<Vec<u8>> {
        let digits = (0..digits).flat_map(|at| labelled(at, b"7"));
        digits.chain((100..100 + letters).flat_map(|at| labelled(at, b"a"))).collect()
    };
    for (digits, letters, kept) in [(99, 10, 109), (100, 10, 100), (11, 9, 11), (8, 9, 17)] {
        let (images, ..) = of_archive(&some(digits, letters));
        assert_eq!(images.len(), kept, "{digits} and {letters}");
    }
}

#[test]
fn a_label_belongs_to_the_image_with_the_same_dots_in_its_name() {
    let (images, classes, _) = of_archive(&[
        file("v1/22.05.png", &pixel(1)),
        file("v1/22.05.cls", b"1"),
        file("v1/22.06.png", &pixel(2)),
        file("v1/22.06.json", br#"{"label": 2}"#),
        file("v1/23.a.png", &pixel(3)),
        file("v1/23.cls", b"0"),
    ]);
    assert_eq!((images, classes.as_str()), (vec![(1, 1), (2, 2), (3, 0)], "0 1 2"));
}

#[test]
fn labels_in_json_that_are_no_classes_are_reported() {
    let (images, classes, left_alone) = of_archive(&[
        file("a.json", br#"{"label": [0, 3]}"#),
        file("a.png", &pixel(1)),
        file("b.json", br#"{"label": "dog"}"#),
        file("b.png", &pixel(2)),
    ]);
    assert_eq!((images, classes.as_str()), (vec![(1, -1), (2, -1)], ""));
    assert!(left_alone.contains("1 of 2 are lists of several (multi-label)"), "{left_alone}");
    let (images, classes, left_alone) = of_archive(&[
        file("a.json", br#"{"label": [true]}"#),
        file("a.png", &pixel(1)),
        file("b.json", br#"{"label": false}"#),
        file("b.png", &pixel(2)),
        file("c.json", br#"{"label": null}"#),
        file("c.png", &pixel(3)),
    ]);
    assert_eq!((images, classes.as_str()), (vec![(1, 1), (2, 0), (3, -1)], "false true"));
    assert_eq!(left_alone, "");
}

#[test]
fn wrong_labels_and_archives_without_images_are_refused_by_name() {
    let refused = |members: &[Vec<u8>]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        write(&path, &archive(members));
        open(&path, [0; 3]).err().unwrap().to_string()
    };
    let message = refused(&[file("a.json", b"{"), file("a.png", &pixel(1))]);
    assert!(message.contains("0 images whose label can be read"), "{message}");
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
        if let Ok(index) = index_of(&bytes, Path::new("a.tar"), bytes.len() as u64) {
            let (entries, _) = label(images(vec![index.groups]).found);
            assert!(entries.len() <= bytes.len() / 512);
        }
    });
}
