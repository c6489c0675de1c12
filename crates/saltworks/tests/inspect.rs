//! `saltworks inspect` as its user meets it.

mod place;

use place::{Place, saltworks, stderr};
use serde_json::Value;
use std::process::{Command, Output};

fn inspect(place: &Place, name: &str, more: &[&str]) -> Output {
    saltworks().arg("inspect").arg(place.path(name)).args(more).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_folder_is_described_with_sizes_and_classes() {
    let place = Place::with_classes();
    let output = inspect(&place, "photos", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in ["24 images, 2 classes", "40 to 40, median 40", "24 colour", "12  discs"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn broken_images_are_named_and_end_with_1() {
    let place = Place::with_classes();
    place.cut("photos/stripes/7.jpg");
    let output = inspect(&place, "photos", &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&found["images"], &found["unreadable"]["count"]), (&24.into(), &1.into()));
    assert_eq!(found["width"]["median"], 40);
    let first = found["unreadable"]["first"][0].as_str().unwrap();
    assert!(first.contains("stripes/7.jpg: JPEG is cut off"), "{first}");
    assert!(stderr(&output).contains("1 of 24 images cannot be read"));
}

#[test]
fn damage_behind_a_header_shows_when_pixels_are_decoded() {
    let place = Place::with_classes();
    place.cut("photos/discs/3.png");
    assert_eq!(inspect(&place, "photos", &[]).status.code(), Some(0));
    let output = inspect(&place, "photos", &["--decode"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("unreadable:"), "{}", stdout(&output));
}

#[test]
fn images_that_a_recipe_cannot_read_are_named_and_end_with_1() {
    let place = Place::with_classes();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, 4), }";
    let mut floats = b"\x93NUMPY\x01\0\x76\0".to_vec();
    floats.extend(format!("{header:<117}\n").bytes());
    floats.extend((0..32).flat_map(|value| (value as f32 / 31.0).to_le_bytes()));
    std::io::Write::write_all(
        &mut std::fs::File::create(place.path("floats.npy")).unwrap(),
        &floats,
    )
    .unwrap();
    let ended = |images: &str, set: &str| {
        let path = toml::Value::from(place.path(images).to_str().unwrap());
        let stage = "[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 1\n";
        place.text("recipe.toml", &format!("[data]\npath = {path}\n{set}\n{stage}"));
        let output = inspect(&place, "recipe.toml", &[]);
        (output.status.code(), stderr(&output))
    };
    let normalize = "normalize = { mean = [0.5], std = [0.5] }";
    let (code, text) = ended("photos", &format!("channels = 4\n{normalize}"));
    let words = "24 images have 3 bands, and data.channels is 4: they cannot be read";
    assert!(code == Some(1) && text.contains(words), "{text}");
    let (code, text) = ended("floats.npy", "");
    assert!(code == Some(1) && text.contains("Set data.depth=[0.0, 1.0]"), "{text}");
    let (code, text) = ended("floats.npy", "depth = [0, 1]");
    assert_eq!(code, Some(0), "{text}");
}

/// The header of a PNG states its size. Nothing else of it is true.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(1, 1).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &png[12..29] {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1)));
    }
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[test]
fn images_that_are_too_large_are_known_by_their_headers() {
    let place = Place::with_classes();
    let write = |name: &str, bytes: &[u8]| {
        saltworks::files::write_whole(&place.path(name), bytes).unwrap();
    };
    write("photos/discs/huge.png", &claiming(65_536, 65_536));
    let output = inspect(&place, "photos", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let words = "huge.png: needs more than 1024 MiB of memory to decode. Resize it once";
    assert!(stdout(&output).contains(words), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 of 25 images need too much memory"), "{}", stderr(&output));

    // Before a run begins, too. It leaves the image out.
    let set = ["data.max_unreadable=0.1", "data.holdout=0", "probe.online=false"];
    let printed = stderr(&place.trained("run", &set));
    for words in ["1 of 25 images need too much memory", "huge.png", "left out: "] {
        assert!(printed.contains(words), "{words:?} is not in:\n{printed}");
    }

    // Larger than a model needs, but not too large.
    for index in 0..12 {
        write(&format!("photos/discs/{index}.png"), &claiming(16_000, 16_000));
    }
    std::fs::remove_file(place.path("photos/discs/huge.png")).unwrap();
    let output = inspect(&place, "photos", &[]);
    let words = "images have 128.0 megapixels on average, 2551 times 224 x 224";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(stdout(&output).contains("pixels    128.00 million per image"), "{}", stdout(&output));
}

#[test]
fn what_is_no_source_ends_with_2() {
    let place = Place::empty();
    place.text("notes.docx", "x");
    for (name, words) in [("notes.docx", "expected .tar, .csv"), ("none", "no such file")] {
        let output = inspect(&place, name, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn weights_are_listed_from_their_header() {
    let place = Place::empty();
    let header =
        r#"{"__metadata__":{"by":"me"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let whole = [&length[..], header.as_bytes(), &[0; 8]].concat();
    let write = |bytes: &[u8]| saltworks::files::write_whole(&place.path("a.safetensors"), bytes);
    write(&whole).unwrap();
    let text = stdout(&inspect(&place, "a.safetensors", &["--tensors"]));
    assert!(text.contains("1 tensors, 2 values") && text.contains("b  F32  [2, 1]"), "{text}");
    assert!(text.contains("by = me"), "{text}");
    write(&whole[..whole.len() - 1]).unwrap();
    let output = inspect(&place, "a.safetensors", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("its tensors take 8 bytes, it has 7"), "{}", stderr(&output));
    // A hole between the header and the values.
    let holed = header.replace("[0,8]", "[1,9]");
    write(&[&length[..], holed.as_bytes(), &[0; 9]].concat()).unwrap();
    let output = inspect(&place, "a.safetensors", &[]);
    assert_eq!(output.status.code(), Some(2), "as reading refuses it: {}", stdout(&output));
}

#[test]
fn torch_files_are_listed_from_their_pickle_whatever_they_are_called() {
    let place = Place::empty();
    let golden = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        std::fs::read(path.join(name)).unwrap()
    };
    let write = |name: &str, bytes: &[u8]| {
        saltworks::files::write_whole(&place.path(name), bytes).unwrap();
    };
    write("last.ckpt", &golden("torch_lightning.ckpt"));
    let text = stdout(&inspect(&place, "last.ckpt", &["--tensors"]));
    let first = "last.ckpt: 10 tensors, 175 values\n\
                 no model would be read: the file holds no vision transformer";
    let other = "not read: state_dict, 9 tensors, 173 values";
    for part in [first, other, "F32  [8, 3, 2, 2]", "global_step = 120"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    write("weights", &golden("torch_types.pt"));
    let found: Value =
        serde_json::from_str(&stdout(&inspect(&place, "weights", &["--json"]))).unwrap();
    assert_eq!(
        (&found["tensors"][1]["dtype"], &found["models"]),
        (&"F16".into(), &Value::Array(vec![]))
    );
    write("model.safetensors.index.json", b"{\n  \"weight_map\": {}}");
    let output = inspect(&place, "model.safetensors.index.json", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("index.json: names no tensors"), "{}", stderr(&output));
}

#[test]
fn an_encoders_sizes_and_what_was_guessed_of_them_are_told() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let words = "student: 32 wide, 2 blocks, 2 heads, patches of 8 x 8, images of 32 x 32";
    let text = stdout(&inspect(&place, "run", &[]));
    assert!(text.contains(words) && !text.contains("are assumed"), "{text}");
    let file = place.path("run/student/encoder.safetensors");
    let bare: Vec<_> = saltworks::weights::load(&file).unwrap().tensors.into_iter().collect();
    saltworks::weights::save(&place.path("bare.safetensors"), &bare, &[].into()).unwrap();
    let text = stdout(&inspect(&place, "bare.safetensors", &[]));
    assert!(
        text.contains("with 3 channels; it does not state how many heads the width 32"),
        "{text}"
    );
}

#[test]
fn names_do_not_steer_the_terminal() {
    let place = Place::empty();
    let path = place.path("a.safetensors");
    let tensors = [("\u{1b}[31mred\nfake".to_owned(), engine::Tensor::zeros(&[1]))];
    saltworks::weights::save(&path, &tensors, &[].into()).unwrap();
    let text = stdout(&inspect(&place, "a.safetensors", &["--tensors"]));
    assert!(text.contains("\\u001b[31mred\\u000afake  F32"), "{text}");
    let output = saltworks()
        .arg("export")
        .arg(&path)
        .args(["--to", "timm", "--out"])
        .arg(place.path("b.safetensors"))
        .output()
        .unwrap();
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

/// Opening a pipe waits for a writer, which may never come.
#[test]
fn pipes_are_refused_without_waiting() {
    let place = Place::with_classes();
    for name in
        ["a.tar", "a.npy", "a.npz", "a.parquet", "a.toml", "a.csv", "a.png", "a.safetensors"]
    {
        let pipe = place.path(name);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let verb = if name == "a.toml" { "pretrain" } else { "inspect" };
        let program = saltworks();
        let mut timed = Command::new("timeout");
        timed.arg("60").arg(program.get_program()).arg(verb).arg(&pipe);
        let output = timed.output().unwrap();
        let notes = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {notes}");
        assert!(notes.contains(name), "{name}: {notes}");
        std::fs::remove_file(pipe).unwrap();
    }
}

#[test]
fn what_is_left_alone_is_reported() {
    let place = Place::with_classes();
    place.image("photos/test/0.jpg", 99);
    place.text("photos/discs/notes.docx", "x");
    let text = stdout(&inspect(&place, "photos", &[]));
    for words in [
        "test (1 images), named as validation or test images",
        "not read: files of other kinds: 1 .docx",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let found: Value =
        serde_json::from_str(&stdout(&inspect(&place, "photos", &["--json"]))).unwrap();
    assert_eq!((found["left_alone"].as_array().unwrap().len(), &found["images"]), (2, &24.into()));
    // A run says so before it begins.
    let notes = stderr(&place.trained("run", &["data.holdout=0", "probe.online=false"]));
    assert!(notes.contains("named as validation"), "{notes}");
}

#[test]
fn images_stored_twice_are_reported_and_held_out_together() {
    let place = Place::with_classes();
    for index in 0..12 {
        let copy = place.bytes(&format!("photos/discs/{index}.png"));
        let name = place.path(&format!("photos/stripes/copy of {index}.png"));
        saltworks::files::write_whole(&name, &copy).unwrap();
    }
    let text = stdout(&inspect(&place, "photos", &[]));
    assert!(text.contains("copies    24 images (12 different ones), such as "), "{text}");
    let found: Value =
        serde_json::from_str(&stdout(&inspect(&place, "photos", &["--json"]))).unwrap();
    assert_eq!((&found["copies"]["images"], &found["images"]), (&24.into(), &36.into()));
    // A run says so before it begins.
    let notes = stderr(&place.trained("run", &["data.holdout=9"]));
    for words in [" different ones), such as ", "Copies are held out together"] {
        assert!(notes.contains(words), "{words} is not in {notes}");
    }
}

#[test]
fn copies_in_several_classes_and_tests_that_train_are_named() {
    let place = Place::with_classes();
    for class in ["discs", "stripes"] {
        let (from, to) = (place.path(&format!("photos/{class}")), format!("set/train/{class}"));
        std::fs::create_dir_all(place.path(&to)).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), place.path(&to).join(entry.file_name())).unwrap();
        }
    }
    let copy = |to: &str| {
        let to = place.path(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(place.path("photos/discs/3.png"), to).unwrap();
    };
    copy("set/train/stripes/odd.png");
    copy("set/test/discs/x.png");
    let output = inspect(&place, "set", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let words = "1 of the different ones are in several classes, such as ";
    let text = stdout(&output);
    assert!(text.contains(words) && text.contains("stripes/odd.png"), "{text}");
    let words = "1 of 1 images that were compared are training images, too, such as ";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&inspect(&place, "set", &["--json"]))).unwrap();
    assert_eq!(found["copies"]["in_several_classes"], 1);
}

#[test]
fn files_with_several_pages_are_counted() {
    let place = Place::with_classes();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(40, 36).write_to(&mut bytes, image::ImageFormat::Tiff).unwrap();
    let mut tiff = bytes.into_inner();
    // The directory again behind the file, as the next of the first.
    let at = u32::from_le_bytes(*tiff[4..].first_chunk().unwrap()) as usize;
    let entries = u16::from_le_bytes(*tiff[at..].first_chunk().unwrap());
    let next = at + 2 + 12 * usize::from(entries);
    let directory = tiff[at..next + 4].to_vec();
    let end = tiff.len() as u32;
    tiff[next..next + 4].copy_from_slice(&end.to_le_bytes());
    tiff.extend(directory);
    saltworks::files::write_whole(&place.path("photos/discs/stack.tif"), &tiff).unwrap();
    let output = inspect(&place, "photos", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let words = "1 of 25 images whose headers were read are files with several frames or pages: ";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    let printed = stderr(&place.trained("run", &["data.holdout=0", "probe.online=false"]));
    assert!(
        printed.contains(words) && printed.contains("stack.tif. The first of each"),
        "{printed}"
    );
}
