use super::*;
use crate::data::Source;

const BLACK: Decoding = Decoding { background: [0; 3], depth: None, keep_cut: false };

fn image(path: &Path, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::GrayImage::from_pixel(4, 4, image::Luma([value])).save(path).unwrap();
}

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap();
}

#[test]
fn sub_folders_are_classes_in_sorted_order() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, value) in
        [("dogs/b.PNG", 2), ("dogs/a.jpeg", 1), ("cats/deep/er/c.JPG", 3), (".hidden/x.png", 9)]
    {
        image(&root.join(name), value);
    }
    touch(&root.join("empty/notes.txt"));
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!(source.classes(), ["cats", "dogs"]);
    let labels: Vec<_> = (0..source.len()).map(|index| source.label(index)).collect();
    assert_eq!(labels, [0, 1, 1]);
    let sample = source.read(2).unwrap();
    assert!(sample.name.ends_with("dogs/b.PNG"), "{}", sample.name);
    assert_eq!((sample.clip.data[0], sample.clip.channels), (2, 1));
    assert!(source.describe().ends_with("3 images, 2 classes"));
}

/// The order decides which images are held out, so it must stay.
#[test]
fn images_of_a_class_are_in_the_order_of_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["cats/a/2.png", "cats/a/3.png", "cats/b.png", "cats/c/0.png", "cats/d.png"];
    for name in names {
        image(&folder.path().join(name), 1);
    }
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    let found: Vec<String> = (0..source.len()).map(|i| source.read(i).unwrap().name).collect();
    for (found, name) in found.iter().zip(names) {
        assert!(found.ends_with(name), "{found:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_an_image_that_is_gone_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("cats/1.png"), 1);
    std::os::unix::fs::symlink("gone.png", folder.path().join("cats/2.png")).unwrap();
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    let left_alone = source.notes().left_alone;
    assert_eq!((source.len(), left_alone.len()), (1, 1), "{left_alone:?}");
    assert!(left_alone[0].starts_with("links to nothing: 1, such as "), "{left_alone:?}");
}

#[cfg(unix)]
#[test]
fn no_image_counts_twice_through_links_and_a_pipe_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    image(&root.join("cats/1.png"), 1);
    image(&root.join("dogs/2.png"), 2);
    for (to, link) in [("cats", "more"), (".", "all"), ("../dogs", "cats/pups")] {
        std::os::unix::fs::symlink(to, root.join(link)).unwrap();
    }
    let pipe = std::process::Command::new("mkfifo").arg(root.join("dogs/3.png")).status();
    assert!(pipe.unwrap().success());
    assert_eq!(ImageFiles::of_folder(root, BLACK).unwrap().len(), 2);
}

#[test]
fn a_flat_folder_has_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("2.png"), 2);
    image(&folder.path().join("1.png"), 1);
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    assert_eq!((source.label(0), source.classes().len(), source.len()), (-1, 0, 2));
    assert_eq!(source.read(0).unwrap().clip.data[0], 1);
}

#[test]
fn a_folder_without_images_says_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let message = || ImageFiles::of_folder(folder.path(), BLACK).unwrap_err().to_string();
    assert!(
        message().contains("0 images: looked for .png .jpg .jpeg .webp .bmp .tif .tiff"),
        "{}",
        message()
    );
    assert!(message().contains("found no file"), "{}", message());
    (0..3).for_each(|index| touch(&folder.path().join(format!("a/{index}.GIF"))));
    touch(&folder.path().join("README"));
    let lists = tempfile::tempdir().unwrap();
    ["a.csv", "train.csv", "val.csv"].iter().for_each(|name| touch(&lists.path().join(name)));
    let refused = ImageFiles::of_folder(lists.path(), BLACK).unwrap_err().to_string();
    assert!(refused.contains("a list names them, set data.path="), "{refused}");
    assert!(refused.ends_with("/train.csv"), "{refused}");
    let arrays = tempfile::tempdir().unwrap();
    touch(&arrays.path().join("1.npy"));
    let refused = ImageFiles::of_folder(arrays.path(), BLACK).unwrap_err().to_string();
    assert!(
        refused.ends_with(
            "Set data.path to one of the .npy files, or name each in a \
                               [[data.source]]"
        ),
        "{refused}"
    );
    assert!(message().contains("found 3 .gif, 1 without extension"), "{}", message());
    ["x/val/1.tar", "x/train/2.tar"].iter().for_each(|name| touch(&folder.path().join(name)));
    assert!(message().contains("For the archives set data.path="), "{}", message());
    assert!(message().ends_with("/x/train"), "{}", message());
}

#[test]
fn a_cut_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cats/1.jpg");
    image(&path, 7);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    let message = source.read(0).unwrap_err().to_string();
    assert!(message.contains("cats/1.jpg: JPEG is cut off after"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_link_back_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("cats/1.png"), 7);
    std::os::unix::fs::symlink("..", folder.path().join("cats/again")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("cats/self")).unwrap();
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    assert!(source.len() <= 2, "{}", source.len());
}

/// Makes these images, each of its own value, and opens the folder. The names of the images that
/// are read start at the folder.
fn read_of(names: &[&str]) -> (tempfile::TempDir, ImageFiles, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (value, name) in (1..).zip(names) {
        match image_file::is_image(Path::new(name)) {
            true => image(&folder.path().join(name), value),
            false => touch(&folder.path().join(name)),
        }
    }
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    let name = |(file, _): &(PathBuf, i32)| {
        file.strip_prefix(folder.path()).unwrap().display().to_string()
    };
    let read = source.files.iter().map(name).collect();
    (folder, source, read)
}

fn left_alone(source: &ImageFiles) -> String {
    source.notes.left_alone.join("\n")
}

#[test]
fn masks_of_pascal_voc_are_no_class() {
    let (_folder, source, read) = read_of(&[
        "Annotations/0.xml",
        "JPEGImages/0.jpg",
        "JPEGImages/1.jpg",
        "SegmentationClass/0.png",
        "SegmentationObject/0.png",
    ]);
    assert_eq!(read, ["JPEGImages/0.jpg", "JPEGImages/1.jpg"]);
    let text = left_alone(&source);
    assert!(text.contains("SegmentationClass, ") && text.contains("(2 images), named as masks"));
    assert!(text.contains("1 folder without images: Annotations"), "{text}");
    assert!(text.contains("files of other kinds: 1 .xml"), "{text}");
}

#[test]
fn validation_images_of_yolo_do_not_train() {
    let (_folder, source, read) = read_of(&[
        "images/train/0.jpg",
        "images/val/1.jpg",
        "images/val/2.jpg",
        "labels/train/0.txt",
        "labels/val/1.txt",
    ]);
    assert_eq!((read, source.classes().len()), (vec!["images/train/0.jpg".to_owned()], 0));
    let text = left_alone(&source);
    let words = "images/val (2 images), named as validation or test images. To train on it, rename";
    assert!(text.contains(words), "{text}");
}

#[test]
fn test_folders_inside_classes_do_not_train() {
    let (_folder, source, read) = read_of(&[
        "cats/Train/1.png",
        "cats/Test/2.png",
        "dogs/3.png",
        "dogs/deep/val/4.png",
        "dogs/TEST_images/5.png",
        "test_tubes/6.png",
    ]);
    assert_eq!(read, ["cats/Train/1.png", "dogs/3.png", "test_tubes/6.png"]);
    assert_eq!(source.classes(), ["cats", "dogs", "test_tubes"]);
    let text = left_alone(&source);
    assert!(text.contains("the folders ") && text.contains("(3 images), named as val"), "{text}");
}

#[test]
fn training_images_of_imagenet_and_of_archives_unpacked_into_themselves_are_found() {
    let (folder, source, read) = read_of(&[
        "ILSVRC/Annotations/CLS-LOC/train/n01/1.xml",
        "ILSVRC/Data/CLS-LOC/test/t.JPEG",
        "ILSVRC/Data/CLS-LOC/train/n01/1.JPEG",
        "ILSVRC/Data/CLS-LOC/train/n02/2.JPEG",
        "ILSVRC/Data/CLS-LOC/val/v.JPEG",
    ]);
    assert_eq!((read.len(), source.classes().join(" ")), (2, "n01 n02".into()));
    let val = crate::data::tests_beside(folder.path(), &source).unwrap().to_string();
    assert!(val.ends_with("CLS-LOC/val"), "{val}");
    let (folder, source, read) = read_of(&[
        "seg_pred/seg_pred/0.jpg",
        "seg_test/seg_test/sea/1.jpg",
        "seg_train/seg_train/sea/2.jpg",
        "seg_train/seg_train/street/3.jpg",
    ]);
    assert_eq!((read.len(), source.classes().join(" ")), (2, "sea street".into()));
    let val = crate::data::tests_beside(folder.path(), &source).unwrap().to_string();
    assert!(val.ends_with("seg_test"), "{val}");
    let test = ImageFiles::of_folder(val.as_ref(), BLACK).unwrap();
    assert_eq!(test.classes(), ["sea"]);
}

#[test]
fn masks_beside_training_and_test_images_are_known() {
    let (_folder, source, read) = read_of(&[
        "bottle/ground_truth/cut/0_mask.png",
        "bottle/test/cut/0.png",
        "bottle/train/good/1.png",
        "cable/train/good/2.png",
        "cable/test/good/3.png",
    ]);
    assert_eq!(read, ["bottle/train/good/1.png", "cable/train/good/2.png"]);
    assert_eq!(source.classes(), ["bottle", "cable"]);
}

#[test]
fn a_mask_beside_its_image_is_no_image() {
    let names = ["benign/1.png", "benign/1_mask.png", "benign/1_mask_1.png", "mask/2_mask.png"];
    let (_folder, source, read) = read_of(&names);
    assert_eq!(read, ["benign/1.png", "mask/2_mask.png"]);
    let text = left_alone(&source);
    assert!(text.contains("masks beside their images: 2, such as "), "{text}");
    assert!(text.ends_with("benign/1_mask.png"), "{text}");
}

#[test]
fn links_in_test_folders_take_no_image_away() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("train/cats/1.png"), 1);
    image(&folder.path().join("test/2.png"), 2);
    std::os::unix::fs::symlink("../train/cats", folder.path().join("test/cats")).unwrap();
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    assert_eq!((source.len(), source.classes().join(" ")), (1, "cats".into()));
}

#[test]
fn clutter_of_caltech_is_no_class() {
    let (_folder, source, read) = read_of(&["BACKGROUND_Google/0.jpg", "accordion/1.jpg"]);
    assert_eq!(read, ["accordion/1.jpg"]);
    assert!(left_alone(&source).contains("named as Caltech's clutter"), "{}", left_alone(&source));
}

#[test]
fn images_are_read_whatever_their_folders_are_called_if_there_are_no_others() {
    let (folder, source, read) =
        read_of(&["test/cats/1.png", "test/dogs/2.png", "test/masks/3.png"]);
    assert_eq!((read.len(), source.classes().join(" ")), (3, "cats dogs masks".into()));
    let remark = "all images are in folders named as validation or test images";
    assert_eq!(source.notes.remarks, [remark]);
    let inside = ImageFiles::of_folder(&folder.path().join("test"), BLACK).unwrap();
    assert_eq!((inside.len(), inside.notes), (3, Notes::default()));
    std::fs::create_dir(folder.path().join("train")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("val")).unwrap();
    let message = ImageFiles::of_folder(empty.path(), BLACK).unwrap_err().to_string();
    assert!(message.contains("0 images"), "{message}");
}

#[test]
fn everything_that_is_left_alone_is_counted() {
    let kinds = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"];
    let others: Vec<String> = kinds.iter().map(|kind| format!("cats/x.{kind}")).collect();
    let mut names = vec!["cats/1.png", "empty/notes.txt", ".ipynb_checkpoints/1.png", "cats/a.GIF"];
    names.extend(["cats/b.heic", "cats/c.heic", "cats/noextension"]);
    names.extend(others.iter().map(String::as_str));
    let (_folder, source, read) = read_of(&names);
    assert_eq!((read, source.classes()), (vec!["cats/1.png".to_owned()], &["cats".to_owned()][..]));
    let text = left_alone(&source);
    for words in [
        "1 folder without images: empty",
        "2 .heic, 1 .gif: convert them to PNG or JPEG",
        "1 without extension, 1 .a, 1 .b, ",
        " and 4 more kinds (4 files)",
        "hidden files and folders: 1, such as ",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn kinds_of_images_that_torchvision_reads_are_read() {
    let names = ["a/1.jfif", "a/2.ppm", "a/3.pgm", "a/4.pbm", "a/5.pnm", "a/6.JPE", "a/7.tiff"];
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let (path, lower) = (folder.path().join(name), name.to_lowercase());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let format = match &lower[4..] {
            "jfif" | "jpe" => image::ImageFormat::Jpeg,
            "tiff" => image::ImageFormat::Tiff,
            _ => image::ImageFormat::Pnm,
        };
        image::GrayImage::from_pixel(4, 4, image::Luma([7]))
            .save_with_format(path, format)
            .unwrap();
    }
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    assert_eq!(source.len(), 7);
    for index in 0..7 {
        let sample = source.read(index).unwrap();
        assert!(sample.clip.data[0].abs_diff(7) < 2, "{}", sample.name);
    }
}

#[test]
fn labels_of_hugging_face_metadata_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["train/0.png", "train/1.png", "train/more/2.png", "val/9.png"] {
        image(&root.join(name), 1);
    }
    let write = |name: &str, text: &str| {
        std::io::Write::write_all(&mut fs::File::create(root.join(name)).unwrap(), text.as_bytes())
            .unwrap();
    };
    let labels = |source: &ImageFiles| (0..3).map(|at| source.label(at)).collect::<Vec<_>>();
    write(
        "train/metadata.jsonl",
        "{\"file_name\": \"0.png\", \"label\": \"dog\"}\n\
         {\"file_name\": \"1.png\", \"label\": \"cat\"}\n\
         {\"file_name\": \"more/2.png\", \"label\": \"dog\"}\n\
         {\"file_name\": \"gone.png\", \"label\": \"dog\"}\n",
    );
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!((labels(&source), source.classes().join(" ")), (vec![1, 0, 1], "cat dog".into()));
    assert!(source.notes.remarks[0].contains("labels are those of "), "{:?}", source.notes);
    assert!(left_alone(&source).contains("1 of its 4 files do not exist"), "{:?}", source.notes);
    fs::remove_file(root.join("train/metadata.jsonl")).unwrap();
    write("metadata.csv", "file_name,label\ntrain/0.png,7\ntrain/1.png,5\nval/9.png,1\n");
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!(labels(&source), [7, 5, -1]);
    assert!(source.notes.remarks[0].ends_with("which has none for 1 of the images"));
    // Without labels, folders are the classes.
    write("metadata.csv", "file_name,text\ntrain/0.png,a dog\n");
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!((labels(&source), source.classes().join(" ")), (vec![-1, -1, 0], "more".into()));
    assert!(left_alone(&source).contains("it has no labels, only file_name, text"));
    // Some are to test.
    write("metadata.csv", "file_name,split\ntrain/0.png,test\ntrain/1.png,train\n");
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!((source.len(), left_alone(&source).contains("1 images with test in")), (2, true));
    let text = "file_name,split\nval/../train/0.png,test\ngone.png,train\n";
    write("metadata.csv", text);
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!((source.len(), left_alone(&source).contains("1 images with test in")), (2, true));
    let all = "file_name,split\ntrain/0.png,test\ntrain/1.png,test\ntrain/more/2.png,test\n";
    write("metadata.csv", &format!("{all}gone.png,train\n"));
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert_eq!((source.len(), left_alone(&source).contains("with test in")), (3, false));
    let halves = "file_name,label,split\ntrain/0.png,a,test\ntrain/1.png,b,train\n";
    write("metadata.csv", halves);
    assert!(ImageFiles::of_folder(root, BLACK).unwrap().holds_tests());
    let tests = ImageFiles::part_of_folder(root, BLACK, true).unwrap();
    assert_eq!((tests.len(), tests.classes().join(" ")), (1, "a".into()), "{:?}", tests.notes);
    assert!(tests.files()[0].ends_with("train/0.png"));
    write("metadata.csv", "isic,diagnosis\n7,x\n");
    let source = ImageFiles::of_folder(root, BLACK).unwrap();
    assert!(left_alone(&source).contains("not used for labels"), "{:?}", source.notes);
}

#[test]
fn a_folder_read_before_through_a_link_is_reported() {
    let (folder, ..) = read_of(&["cats/1.png"]);
    std::os::unix::fs::symlink("cats", folder.path().join("more")).unwrap();
    let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
    assert_eq!(source.classes(), ["cats"]);
    assert!(left_alone(&source).contains("links to folders that are read anyway: 1, such as"));
}
