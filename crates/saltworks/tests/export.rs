//! `saltworks export` as its user meets it.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use saltworks::weights::{Hint, ModelFile};
use serde_json::Value;
use std::process::{Command, Output};

fn export(place: &Place, source: &str, to: &str, out: &str, more: &[&str]) -> Command {
    let mut command = saltworks();
    command.arg("export").arg(place.path(source)).args(["--to", to, "--out"]).arg(place.path(out));
    command.args(more);
    command
}

fn exported(place: &Place, source: &str, to: &str, out: &str, more: &[&str]) -> Output {
    let output = export(place, source, to, out, more).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

#[test]
fn a_finished_run_is_exported_from_anywhere_and_without_its_teacher() {
    let place = Place::with_classes();
    place.trained("first", &["data.normalize=imagenet"]);
    let file = place.path("first/teacher/encoder.safetensors");
    std::fs::copy(&file, place.path("teacher.safetensors")).unwrap();
    // As one names it from the folder it lies in.
    let run = place
        .pretrain("run", &["student.teacher=teacher.safetensors", "data.normalize=imagenet"])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    exported(&place, "run", "stable-pretraining", "salt.ckpt", &[]);
    let salt = ModelFile::open(&place.path("salt.ckpt"), None).unwrap();
    salt.check_whole(Hint::default()).unwrap();
    for part in ["student", "teacher"] {
        let sizes = salt.sizes(Some(part), Hint::default()).unwrap();
        assert_eq!((sizes.spec.heads, sizes.guessed), (2, None), "{part}");
    }
    let wanted = ModelFile::open(&file, None).unwrap().encoder(None).unwrap();
    for (name, tensor) in salt.encoder(Some("teacher")).unwrap() {
        assert_eq!(tensor.to_vec(), wanted[&name].to_vec(), "{name}");
    }

    // Another file in its place is not this student's teacher.
    std::fs::copy(place.path("run/student/encoder.safetensors"), place.path("teacher.safetensors"))
        .unwrap();
    let whole = || export(&place, "run", "stable-pretraining", "b.ckpt", &[]);
    assert_refused(&mut whole(), &["is not the teacher that trained this student"]);
    std::fs::remove_file(place.path("teacher.safetensors")).unwrap();
    assert_refused(&mut whole(), &["teacher.safetensors", "--partial leaves it out"]);
    let output = exported(&place, "run", "stable-pretraining", "b.ckpt", &["--partial"]);
    assert!(stderr(&output).contains("without its teacher"), "{}", stderr(&output));
    exported(&place, "run", "timm", "a.safetensors", &[]);
    exported(&place, "run", "safetensors", "whole.safetensors", &[]);
    saltworks::weights::load(&place.path("whole.safetensors")).unwrap();
}

#[test]
fn how_pixels_were_normalised_goes_with_the_weights() {
    let place = Place::with_classes();
    place.trained("run", &["data.normalize=imagenet"]);
    let imagenet = [0.485, 0.456, 0.406];
    let mean = |name: &str| {
        ModelFile::open(&place.path(name), None).unwrap().normalize(3).unwrap().unwrap().mean
    };
    assert_eq!(mean("run/student/encoder.safetensors"), imagenet);
    for (to, out) in
        [("timm", "a.safetensors"), ("facebook", "a.pth"), ("hf", "a"), ("onnx", "a.onnx")]
    {
        exported(&place, "run", to, out, &[]);
    }
    exported(&place, "run", "stable-pretraining", "a.ckpt", &[]);
    for name in ["a.safetensors", "a.pth", "a", "a.ckpt"] {
        assert_eq!(mean(name), imagenet, "{name}");
    }
    let graph = place.bytes("a.onnx");
    for words in ["\"mean\":[0.485,0.456,0.406]", "RGB"] {
        assert!(memchr::memmem::find(&graph, words.as_bytes()).is_some(), "{words}");
    }
    let processor: Value =
        serde_json::from_slice(&place.bytes("a/preprocessor_config.json")).unwrap();
    assert_eq!(
        (&processor["size"]["height"], &processor["do_rescale"]),
        (&32.into(), &true.into())
    );
}

/// timm and torch choose their reader by the suffix.
#[test]
fn the_suffix_decides_what_is_written_and_a_suffix_that_does_not_fit_is_refused() {
    let place = Place::with_classes();
    place.trained("run", &["probe.online=false"]);
    exported(&place, "run", "timm", "a.safetensors", &[]);
    let written = exported(&place, "run", "timm", "a.PTH", &[]);
    assert!(String::from_utf8_lossy(&written.stdout).contains("a torch.save file"));
    exported(&place, "run", "torch", "b.bin", &[]);
    // An archive starts with PK, a safetensors file with the length of its header.
    assert_eq!(["a.PTH", "b.bin"].map(|name| place.bytes(name).starts_with(b"PK")), [true; 2]);
    assert_eq!(place.bytes("a.PTH"), place.bytes("b.bin"));
    let [one, other] = ["a.safetensors", "a.PTH"]
        .map(|name| saltworks::weights::load(&place.path(name)).unwrap().tensors);
    for (name, tensor) in one {
        assert_eq!(other[&name].to_host(), tensor.to_host(), "{name}");
    }
    let torch = "writes .pt, .pth, .ckpt, .bin. Change --out";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("torch", "c.safetensors", &["ends in .safetensors", torch, "--to timm or safetensors"]),
        ("facebook", "c.onnx", &[torch, "or choose --to onnx"]),
        ("safetensors", "c.pth", &["writes .safetensors. Change --out", "--to timm or torch"]),
        ("timm", "c", &["has no suffix", "writes .safetensors, .pt, .pth, .ckpt, .bin"]),
        ("onnx", "c.weights", &["ends in .weights", "writes .onnx. Change --out"]),
        ("hf", "c.safetensors", &["--to hf writes a folder"]),
    ];
    for (to, out, words) in cases {
        assert_refused(&mut export(&place, "run", to, out, &[]), words);
        assert!(!place.path(out).exists());
    }
}

#[test]
fn what_does_not_fit_is_listed_and_partial_writes_what_is_there() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let file = saltworks::weights::load(&place.path("run/student/model.safetensors")).unwrap();
    let save = |name: &str, tensors: &saltworks::weights::NamedTensors| {
        let list: Vec<_> = tensors.clone().into_iter().collect();
        saltworks::weights::save(&place.path(name), &list, &file.metadata).unwrap();
    };
    let mut tensors = file.tensors.clone();
    tensors.remove("student.blocks.0.attn.qkv.weight");
    tensors.insert("predictor.extra".to_owned(), engine::Tensor::zeros(&[2]));
    save("cut.safetensors", &tensors);
    let targets = [
        ("safetensors", "a.safetensors"),
        ("stable-pretraining", "a.ckpt"),
        ("timm", "b.safetensors"),
    ];
    for (to, out) in targets {
        let words = "missing blocks.0.attn.qkv.weight";
        assert_refused(&mut export(&place, "cut.safetensors", to, out, &[]), &[words]);
        exported(&place, "cut.safetensors", to, out, &["--partial"]);
    }
    tensors = file.tensors.clone();
    tensors.insert("predictor.extra".to_owned(), engine::Tensor::zeros(&[2]));
    save("more.safetensors", &tensors);
    let whole = &mut export(&place, "more.safetensors", "safetensors", "c.safetensors", &[]);
    assert_refused(whole, &["unexpected predictor.extra"]);
    let given = ["--partial", "--size", "64"];
    assert_refused(&mut export(&place, "run", "timm", "c.pth", &given), &["Remove one of the two"]);
    let other = &mut export(&place, "run", "timm", "c.pth", &["--heads", "4"]);
    assert_refused(other, &["has 2 heads"]);
}

#[test]
fn a_refused_folder_of_transformers_leaves_nothing_behind() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let path = place.path("run/student/encoder.safetensors");
    let file = saltworks::weights::load(&path).unwrap();
    let mut list: Vec<_> = file.tensors.into_iter().collect();
    list[0].1 = engine::Tensor::from_vec(vec![1e9; list[0].1.len()], list[0].1.shape());
    saltworks::weights::save(&place.path("large.safetensors"), &list, &file.metadata).unwrap();
    let half =
        export(&place, "large.safetensors", "hf", "hf", &["--dtype", "f16"]).output().unwrap();
    assert_eq!(half.status.code(), Some(1), "{}", stderr(&half));
    assert!(!place.path("hf").exists());
    exported(&place, "large.safetensors", "hf", "hf", &[]);
}

#[test]
fn a_run_that_stands_in_the_middle_says_so() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    std::fs::remove_dir_all(place.path("run/student")).unwrap();
    let output = exported(&place, "run", "timm", "a.safetensors", &[]);
    assert!(stderr(&output).contains("stage student is not trained yet"), "{}", stderr(&output));
    std::fs::remove_dir_all(place.path("run/teacher")).unwrap();
    let none = &mut export(&place, "run", "timm", "b.safetensors", &[]);
    assert_refused(none, &["holds no trained stage; trained: none"]);
}

/// Trains both stages on images of 24 x 40 pixels, and judges and exports what was trained.
fn assert_not_square_works(patch: &str, sides: [usize; 2]) {
    let place = Place::with_classes();
    let set = ["data.size=[24,40]", &format!("model.patch={patch}"), "probe.images=16"];
    place.trained("run", &set);
    assert!(place.path("run/pictures/teacher.json").is_file(), "online probes took pictures");
    let text = String::from_utf8(place.bytes("run/recipe.toml")).unwrap();
    assert!(text.contains("size = [24, 40]") && text.contains(&format!("patch = {patch}")));

    for stage in ["teacher", "student"] {
        let file = ModelFile::open(&place.path(&format!("run/{stage}/encoder.safetensors")), None)
            .unwrap();
        let spec = file.sizes(None, Hint::default()).unwrap().spec;
        let (image, patch) = ([1, 24, 40], [1, sides[0], sides[1]]);
        assert_eq!((spec.image, spec.patch), (image, patch), "{stage}: height before width");
        assert_eq!((spec.grid().h, spec.grid().w), (24 / sides[0], 40 / sides[1]));
    }
    let judged = |verb: &str, more: &[&str]| {
        let mut command = saltworks();
        command.arg(verb).arg(place.path("run")).args(more).current_dir(place.path("."));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{verb}: {}", stderr(&output));
    };
    judged("probe", &[]);
    judged("probe", &["--size", "48x40"]);
    judged("embed", &["--data", "photos", "--out", "features.npy"]);

    let output = exported(&place, "run", "timm", "timm.safetensors", &[]);
    let [height, width] = sides;
    let call = format!("img_size=(24, 40), patch_size=({height}, {width})");
    assert!(stderr(&output).contains(&call), "{}", stderr(&output));
    exported(&place, "run", "onnx", "model.onnx", &[]);
    exported(&place, "run", "hf", "hf", &[]);
    let config: Value = serde_json::from_slice(&place.bytes("hf/config.json")).unwrap();
    assert_eq!(config["image_size"], serde_json::json!([24, 40]));
    let sizes =
        ModelFile::open(&place.path("hf"), None).unwrap().sizes(None, Hint::default()).unwrap();
    assert_eq!((sizes.spec.image, sizes.spec.patch), ([1, 24, 40], [1, height, width]));
    let resized = exported(&place, "run", "timm", "other.safetensors", &["--size", "48x80"]);
    assert!(stderr(&resized).contains("img_size=(48, 80)"), "{}", stderr(&resized));
}

#[test]
fn images_that_are_not_square_are_trained_on_judged_and_exported() {
    assert_not_square_works("8", [8, 8]);
}

#[test]
fn patches_that_are_not_square_are_trained_judged_and_exported() {
    assert_not_square_works("[8, 4]", [8, 4]);
}

/// A torch file states no image size. One whose patches form no square is read with --size.
#[test]
fn a_torch_file_that_is_not_square_says_so_and_is_read_with_its_size() {
    let place = Place::with_classes();
    place.trained("run", &["data.size=[16,32]", "model.patch=4", "probe.online=false"]);
    let written = exported(&place, "run", "torch", "a.pth", &[]);
    let told = stderr(&written);
    let words = "a.pth does not state its 2 heads, its image size of 16 x 32, its normalisation";
    assert!(told.contains(words), "{told}");
    let refused = &mut export(&place, "a.pth", "timm", "b.safetensors", &["--heads", "2"]);
    assert_refused(refused, &["33 rows", "not a square of patches", "--grid ROWSxCOLUMNS"]);
    let size = ["--heads", "2", "--size", "16x32"];
    let read = exported(&place, "a.pth", "timm", "b.safetensors", &size);
    assert!(!stderr(&read).contains("resized"), "{}", stderr(&read));
    let [original, back] = ["run/student/encoder.safetensors", "b.safetensors"]
        .map(|name| saltworks::weights::load(&place.path(name)).unwrap().tensors);
    for (name, tensor) in original {
        assert_eq!(back[&name].to_host(), tensor.to_host(), "{name}");
    }
}
